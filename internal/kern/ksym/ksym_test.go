package ksym

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLookup(t *testing.T) {
	s := fixture(t)
	for _, tt := range []struct {
		name string
		addr uint64
		want Symbol
		ok   bool
	}{
		{"start", 0xffffffff81000100, Symbol{Name: "do_one_initcall"}, true},
		{"inside", 0xffffffff81000142, Symbol{Name: "do_one_initcall", Offset: 0x42}, true},
		{"last byte", 0xffffffff810001ff, Symbol{Name: "do_one_initcall", Offset: 0xff}, true},
		{"a function rather than a label", 0xffffffff81000001, Symbol{Name: "srso_alias_untrain_ret", Offset: 1}, true},
		{"padding has the name of its function", 0xffffffff810000f4, Symbol{Name: "do_one_initcall", Offset: 4}, true},
		{"the global alias", 0xffffffff81000208, Symbol{Name: "arch_global", Offset: 8}, true},
		{"same name twice", 0xffffffff81000410, Symbol{Name: "duplicate", Offset: 0x10}, true},
		{"last of text", 0xffffffff81000fff, Symbol{Name: "last_function", Offset: 0xaff}, true},
		{"end of text", 0xffffffff81001000, Symbol{}, false},
		{"data", 0xffffffff81200004, Symbol{}, false},
		{"init text", 0xffffffff81300020, Symbol{Name: "early_setup", Offset: 0x10}, true},
		{"end of init text", 0xffffffff81400000, Symbol{}, false},
		{"module, listed out of order", 0xffffffffc0401004, Symbol{Name: "first_in_module", Module: "nf_tables", Offset: 4}, true},
		{"data of a module", 0xffffffffc0401900, Symbol{}, false},
		{"second of module", 0xffffffffc0402004, Symbol{Name: "second_in_module", Module: "nf_tables", Offset: 4}, true},
		{"BPF program", 0xffffffffc0300010, Symbol{Name: "bpf_prog_6deef7357e7b4530_sched_switch", Module: "bpf", Offset: 0x10}, true},
		{"hole behind the last symbol", 0xffffffffc0402000 + maxFunction, Symbol{}, false},
		{"below everything", 0x400000, Symbol{}, false},
		{"zero", 0, Symbol{}, false},
		{"top", ^uint64(0), Symbol{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := s.Lookup(tt.addr)
			if d := cmp.Diff(tt.want, got); d != "" || ok != tt.ok {
				t.Errorf("Lookup(%#x) = %v, want %v: %s", tt.addr, ok, tt.ok, d)
			}
		})
	}
}

func TestAddresses(t *testing.T) {
	s := fixture(t)
	for name, want := range map[string][]uint64{
		"do_one_initcall": {0xffffffff81000100}, // not its padding
		"duplicate":       {0xffffffff81000300, 0xffffffff81000400},
		"some_data":       nil,
		"no_such":         nil,
		"":                nil,
	} {
		got, err := s.Addresses(name)
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("Addresses(%q): %v %s", name, err, d)
		}
	}
}

func TestErrors(t *testing.T) {
	hidden := "0000000000000000 T _text\n0000000000000000 t do_one_initcall\n"
	for _, tt := range []struct {
		name, kallsyms, restrict, want string
		hidden                         bool
	}{
		{"restrict 2", hidden, "2\n", "kernel.kptr_restrict is 2; set it to 1", true},
		{"restrict 1", hidden, "1\n", "run the agent with CAP_SYSLOG", true},
		{"restrict unknown", hidden, "", "run the agent as root", true},
		{"empty", "", "", "CONFIG_KALLSYMS", false},
		{"data only", "ffffffff81200000 D some_data\n", "", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			proc := t.TempDir()
			write(t, proc, "kallsyms", tt.kallsyms)
			if tt.restrict != "" {
				write(t, proc, "sys/kernel/kptr_restrict", tt.restrict)
			}
			s := New(proc)
			err := s.Load()
			if errors.Is(err, ErrHidden) != tt.hidden || (tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want))) {
				t.Errorf("Load: %v, want %q", err, tt.want)
			}
			if _, ok := s.Lookup(0xffffffff81000100); ok {
				t.Error("Lookup found a symbol")
			}
		})
	}
	s := New(t.TempDir())
	if err := s.Load(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Load without a file: %v", err)
	}
}

// TestReload walks the clock over what makes the table be read again and what
// must not.
func TestReload(t *testing.T) {
	proc := t.TempDir()
	const base = "ffffffff81000000 T first\nffffffff81000100 T _etext\nffffffffc0001000 t old\t[m]\n"
	write(t, proc, "kallsyms", base)
	now, mark := time.Unix(1000, 0), uint64(1)
	s := New(proc)
	s.now, s.mark = func() time.Time { return now }, func() uint64 { return mark }
	look := func(addr uint64) string {
		sym, _ := s.Lookup(addr)
		return sym.Name
	}
	expect := func(when string, addr uint64, want string) {
		t.Helper()
		if got := look(addr); got != want {
			t.Fatalf("%s: %#x is %q, want %q", when, addr, got, want)
		}
	}
	expect("first use", 0xffffffff81000001, "first")
	write(t, proc, "kallsyms", base+"ffffffffc0002000 t added\t[n]\nffffffffc0001800 t between\t[n]\n")
	mark++
	expect("too early", 0xffffffffc0002004, "old")
	now = now.Add(reloadMissing)
	expect("text of the kernel never reloads", 0xffffffff81000001, "first")
	expect("found, a minute is not over", 0xffffffffc0002004, "old")
	now = now.Add(reloadFound)
	expect("found, a minute is over", 0xffffffffc0002004, "added")
	expect("between", 0xffffffffc0001804, "between")

	write(t, proc, "kallsyms", base+"ffffffffd0000000 t far\t[f]\n")
	now = now.Add(reloadFound)
	expect("missing, nothing was loaded", 0xffffffffd0000004, "")
	now = now.Add(retryEvery)
	expect("missing, for long", 0xffffffffd0000004, "far")

	if err := os.Remove(filepath.Join(proc, "kallsyms")); err != nil {
		t.Fatal(err)
	}
	mark++
	now = now.Add(retryEvery)
	expect("unreadable: the old table stays", 0xffffffffd0000004, "far")
}

func TestRetryAfterFailure(t *testing.T) {
	proc := t.TempDir()
	now := time.Unix(1000, 0)
	s := New(proc)
	s.now = func() time.Time { return now }
	if s.Load() == nil {
		t.Fatal("no error without a file")
	}
	write(t, proc, "kallsyms", "ffffffff81000000 T first\n")
	if s.Load() == nil {
		t.Error("read again at once")
	}
	now = now.Add(retryEvery)
	if err := s.Load(); err != nil {
		t.Error(err)
	}
}

func TestMark(t *testing.T) {
	proc := t.TempDir()
	m := New(proc).mark
	last := m()
	step := func(what, modules string, change bool) {
		t.Helper()
		write(t, proc, "modules", modules)
		next := m()
		if (next != last) != change {
			t.Errorf("%s: changed = %v, want %v", what, next != last, change)
		}
		last = next
	}
	step("first module", "ext4 900000 1 - Live 0xffffffffc0000000\n", true)
	step("use count", "ext4 900000 2 - Live 0xffffffffc0000000\n", false)
	step("loaded elsewhere", "ext4 900000 2 - Live 0xffffffffc0001000\n", true)
	step("second module", "xfs 1 1 - Live 0xffffffffc1000000\next4 900000 2 - Live 0xffffffffc0001000\n", true)
}

// TestHost reads the running kernel and finds what every kernel has.
func TestHost(t *testing.T) {
	s := New("")
	start := time.Now()
	if err := s.Load(); err != nil {
		if errors.Is(err, ErrHidden) {
			t.Skipf("run as root: %v", err)
		}
		t.Fatal(err)
	}
	took := time.Since(start)
	n, size := s.Stats()
	t.Logf("%d symbols in %d bytes, %v", n, size, took)
	if size > 8<<20 && n < 200_000 {
		t.Errorf("%d bytes for %d symbols", size, n)
	}
	for _, name := range []string{"vfs_read", "schedule", "__alloc_skb"} {
		addrs, err := s.Addresses(name)
		if err != nil || len(addrs) != 1 {
			t.Fatalf("Addresses(%s): %d, %v", name, len(addrs), err)
		}
		if got, ok := s.Lookup(addrs[0] + 1); !ok || got.Name != name || got.Offset != 1 || got.Module != "" {
			t.Errorf("Lookup(%s+1) = %+v, %v", name, got, ok)
		}
	}
}

func TestNoAllocs(t *testing.T) {
	s := fixture(t)
	if n := testing.AllocsPerRun(100, func() { s.Lookup(0xffffffff81000142) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzParse(f *testing.F) {
	b, err := os.ReadFile("testdata/kallsyms")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("ffffffff81000000 T \n T x\nffffffff81000000\n\n ffffffffffffffffff T x"))
	f.Add([]byte(strings.Repeat("x", 70<<10) + "\nffffffff81000000 T a\t[]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		tab, err := parse(bytes.NewReader(b))
		if err != nil {
			if !errors.Is(err, ErrHidden) {
				t.Fatal(err)
			}
			return
		}
		for i, e := range tab.entries {
			if i > 0 && tab.entries[i-1].addr >= e.addr {
				t.Fatalf("entry %d is out of order", i)
			}
			sym, _, ok := tab.find(e.addr)
			if ok != (e.mod&flagEnd == 0) || (ok && (sym.Offset != 0 || sym.Name != tab.text(e))) {
				t.Fatalf("entry %d: find returned %+v, %v", i, sym, ok)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	data, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		b.Skip(err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := parse(bytes.NewReader(data)); err != nil {
			b.Skip(err)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if err := New("").Load(); err != nil {
			b.Skip(err)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	s := New("")
	if err := s.Load(); err != nil {
		b.Skip(err)
	}
	tab := s.table.Load()
	var addrs []uint64
	for i := 0; i < len(tab.entries); i += 97 {
		if tab.entries[i].mod&flagEnd == 0 {
			addrs = append(addrs, tab.entries[i].addr)
		}
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, ok := s.Lookup(addrs[(i*7919)%len(addrs)]); !ok {
			b.Fatal("not found")
		}
	}
}

func fixture(t *testing.T) *Symbols {
	t.Helper()
	b, err := os.ReadFile("testdata/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	proc := t.TempDir()
	write(t, proc, "kallsyms", string(b))
	s := New(proc)
	if err := s.Load(); err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t *testing.T, dir, name, content string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(fmt.Errorf("write %s: %w", path, err))
	}
}
