package symbol

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseMaps(t *testing.T) {
	const text = `00400000-00452000 r-xp 00001000 08:02 173521      /usr/bin/dbus-daemon
00651000-00652000 r--p 00051000 08:02 173521      /usr/bin/dbus-daemon
35b1800000-35b1820000 r-xp 00000000 103:12345 135522  /srv/with blank
7f2c6d000000-7f2c6d021000 rwxp 00000000 00:00 0
7f2c6e000000-7f2c6e021000 r-xs 00000000 00:01 5     /memfd:doublemapper (deleted)
7f2c6f000000-7f2c6f021000 r-xp 00000000 08:02 7     /srv/gone.so (deleted)
7f2c70000000-7f2c70021000 r-xp 00000000 08:02 8     /srv/new\012line
7fffb2d48000-7fffb2d4a000 r-xp 00000000 00:00 0     [vdso]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0     [vsyscall]
7f2c71000000-7f2c71021000 r-xp 00000000 00:00 0     [anon:v8]
zzz
9-8 r-xp 0 08:02 9 /backwards
1-2 r-xp
`
	maps, err := parseMaps(strings.NewReader(text), newImage)
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		start, end uint64
		path       string
		kind       kind
		deleted    bool
	}
	want := []row{
		{0x400000, 0x452000, "/usr/bin/dbus-daemon", regular, false},
		{0x35b1800000, 0x35b1820000, "/srv/with blank", regular, false},
		{0x7f2c6d000000, 0x7f2c6d021000, "", anonymous, false},
		{0x7f2c6e000000, 0x7f2c6e021000, "/memfd:doublemapper", memory, true},
		{0x7f2c6f000000, 0x7f2c6f021000, "/srv/gone.so", regular, true},
		{0x7f2c70000000, 0x7f2c70021000, "/srv/new\nline", regular, false},
		{0x7f2c71000000, 0x7f2c71021000, "[anon:v8]", anonymous, false},
		{0x7fffb2d48000, 0x7fffb2d4a000, "[vdso]", vdsoPage, false},
		{0xffffffffff600000, 0xffffffffff601000, "[vsyscall]", special, false},
	}
	if len(maps) != len(want) {
		t.Fatalf("%d mappings, want %d: %+v", len(maps), len(want), maps)
	}
	for i, m := range maps {
		if got := (row{m.start, m.end, m.image.key.path.Value(), m.image.kind, m.deleted}); got != want[i] {
			t.Errorf("mapping %d: %+v, want %+v", i, got, want[i])
		}
	}
	if m := maps[0]; m.offset != 0x1000 || m.image.key.inode != 173521 || m.image.key.dev != unix.Mkdev(8, 2) {
		t.Errorf("offset, device or inode: %+v %+v", m, m.image.key)
	}
	if got := maps[1].image.key.dev; got != unix.Mkdev(0x103, 0x12345) {
		t.Errorf("device %#x", got)
	}
	s := space{maps: maps}
	for pc, want := range map[uint64]string{
		0x400000: "/usr/bin/dbus-daemon", 0x451fff: "/usr/bin/dbus-daemon", 0x452000: "", 0x3fffff: "", 0: "", ^uint64(0): "",
		0xffffffffff600800: "[vsyscall]",
	} {
		m := s.find(pc)
		if (m == nil) != (want == "") || (m != nil && m.image.key.path.Value() != want) {
			t.Errorf("find(%#x) = %+v, want %q", pc, m, want)
		}
	}
}

func TestParseMapsBounded(t *testing.T) {
	long := strings.Repeat("x", 20<<10)
	text := strings.Repeat("1000-2000 r-xp 0 08:02 9 /"+long+"\n", 3) + strings.Repeat("1000-2000 r-xp 0 08:02 9 /a\n", 2*maxMappings)
	maps, err := parseMaps(strings.NewReader(text), newImage)
	if err != nil || len(maps) != maxMappings {
		t.Errorf("%d mappings, %v", len(maps), err)
	}
}

func FuzzParseMaps(f *testing.F) {
	b, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		f.Skip(err)
	}
	f.Add(b)
	f.Add([]byte("0-ffffffffffffffff --xp ffffffffffffffff ffffffff:ffffffff 18446744073709551615 (deleted)"))
	f.Fuzz(func(t *testing.T, b []byte) {
		maps, err := parseMaps(strings.NewReader(string(b)), newImage)
		if err != nil {
			t.Fatal(err)
		}
		s := space{maps: maps}
		for i, m := range maps {
			if m.start >= m.end || m.image == nil || (i > 0 && maps[i-1].start > m.start) {
				t.Fatalf("mapping %d: %+v", i, m)
			}
			s.find(m.start)
			_ = m.image.module()
		}
	})
}
