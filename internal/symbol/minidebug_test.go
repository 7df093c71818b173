package symbol

import (
	"bytes"
	"encoding/hex"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"
)

// packXZ packs as xz does, in blocks of a size.
func packXZ(t testing.TB, b []byte, block int64) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := xz.WriterConfig{BlockSize: block, DictCap: 64 << 10}.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// helloXZ is what xz 5.4 makes of "hello\n".
const helloXZ = "fd377a585a000004e6d6b4460200210116000000742fe5a301000568656c6c6f0a000000a56097f194f6fde000011e06c12fa41d1fb6f37d010000000004595a"

func TestUnpackXZ(t *testing.T) {
	hello, err := hex.DecodeString(helloXZ)
	if err != nil {
		t.Fatal(err)
	}
	text := bytes.Repeat([]byte("some symbols and some more "), 10_000)
	packed := packXZ(t, text, 1<<40)
	dict := bytes.Clone(packed)
	dict[12+4] = 40 // a dictionary of 4 GB
	empty := []byte{2, 0, lzma2, 1, 40, 0, 0, 0, 0, 0, 0, 0 /* the end of a block */, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	for _, tt := range []struct {
		name  string
		in    []byte
		limit int
		want  []byte
		err   error
	}{
		{"of xz itself", hello, 100, []byte("hello\n"), nil},
		{"one block", packed, 1 << 20, text, nil},
		{"blocks", packXZ(t, text, 5000), 1 << 20, text, nil},
		{"as large as allowed", packed, len(text), text, nil},
		{"larger than allowed", packed, len(text) - 1, nil, errTooLarge},
		{"blocks larger than allowed", packXZ(t, text, 5000), len(text) - 1, nil, errTooLarge},
		{"a huge dictionary", dict, 1 << 20, text, nil},
		{"many dictionaries", bytes.Join([][]byte{dict[:12], bytes.Repeat(empty, 100)}, nil), 1 << 20, nil, errTooLarge},
		{"no block", hello[:12], 100, nil, errXZ},
		{"cut", packed[:len(packed)/2], 1 << 20, nil, errXZ},
		{"cut behind the block", packed[:len(packed)-40], 1 << 20, nil, errXZ},
		{"nothing", nil, 100, nil, errXZ},
		{"another format", []byte(strings.Repeat("BZh91AY", 10)), 100, nil, errXZ},
		{"two filters", changed(hello, 13, 1), 100, nil, errXZ},
		{"another filter", changed(hello, 14, 4), 100, nil, errXZ},
		{"header of a block behind the end", changed(hello, 12, 0xff), 100, nil, errXZ},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			got, err := unpackXZ(tt.in, tt.limit)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, tt.err) || !bytes.Equal(got, tt.want) {
				t.Errorf("%d bytes, %v; want %d, %v", len(got), err, len(tt.want), tt.err)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
				t.Errorf("%d MB allocated", n>>20)
			}
		})
	}
}

func changed(b []byte, at int, to byte) []byte {
	b = bytes.Clone(b)
	b[at] = to
	return b
}

func FuzzUnpackXZ(f *testing.F) {
	hello, err := hex.DecodeString(helloXZ)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(hello)
	f.Add(packXZ(f, bytes.Repeat([]byte("symbol "), 1000), 1<<40))
	f.Add(packXZ(f, bytes.Repeat([]byte("symbol "), 1000), 900))
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1 << 20
		if out, err := unpackXZ(b, limit); err == nil && len(out) > limit {
			t.Fatalf("%d bytes", len(out))
		}
	})
}
