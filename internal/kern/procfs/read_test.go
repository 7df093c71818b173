package procfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReadInto(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	want := strings.Repeat("0123456789\n", 3000) // larger than any first buffer
	if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := ReadInto(path, nil)
	if err != nil || string(got) != want {
		t.Fatalf("ReadInto = %d bytes, %v; want %d bytes", len(got), err, len(want))
	}
	if err := os.WriteFile(path, []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := ReadInto(path, got)
	if err != nil || string(again) != "short" {
		t.Errorf("ReadInto into a used buffer = %q, %v", again, err)
	}
	if _, err := ReadInto(path+"x", again); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadInto(absent) = %v; want not exist", err)
	}
}

// TestReadIntoProc reads a proc file that is longer than one seq_file page.
func TestReadIntoProc(t *testing.T) {
	want, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		t.Skip("needs /proc/kallsyms: ", err)
	}
	got, err := ReadInto("/proc/kallsyms", make([]byte, 0, 100))
	if err != nil || len(got) < len(want)*9/10 {
		t.Errorf("ReadInto = %d bytes, %v; os.ReadFile has %d", len(got), err, len(want))
	}
}

func TestUint(t *testing.T) {
	f := func(in string, want uint64, ok bool) {
		t.Helper()
		if v, got := Uint([]byte(in)); v != want || got != ok {
			t.Errorf("Uint(%q) = %d, %v; want %d, %v", in, v, got, want, ok)
		}
	}
	f("0", 0, true)
	f("18446744073709551615", 1<<64-1, true)
	if _, ok := Uint([]byte("18446744073709551616")); ok {
		t.Error("Uint takes what does not fit")
	}
	f("", 0, false)
	f("-1", 0, false)
	f("1 ", 0, false)
}

func TestFloat(t *testing.T) {
	f := func(in string, want float64, ok bool) {
		t.Helper()
		if v, got := Float([]byte(in)); v != want || got != ok {
			t.Errorf("Float(%q) = %g, %v; want %g, %v", in, v, got, want, ok)
		}
	}
	f("0.50", 0.5, true)
	f("35", 35, true)
	f("NaN", 0, false)
	f("-1", 0, false)
	f("", 0, false)
}

func TestParsePressure(t *testing.T) {
	f := func(in string, want Pressure) {
		t.Helper()
		if got := ParsePressure([]byte(in)); got != want {
			t.Errorf("ParsePressure(%q) = %+v; want %+v", in, got, want)
		}
	}
	f("some avg10=0.16 avg60=0.07 avg300=0.11 total=1836228\nfull avg10=0.16 avg60=0.07 avg300=0.09 total=1610153\n",
		Pressure{Some: 1836228, Full: 1610153, HasSome: true, HasFull: true})
	f("some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n", Pressure{Some: 7, HasSome: true}) // cpu before 5.13
	f("full avg10=0.00 avg60=0.00 avg300=0.00 total=9\n", Pressure{Full: 9, HasFull: true}) // irq
	f("some avg10=0.00 total=x\nfull\n\n", Pressure{})
	f("", Pressure{})
}

func FuzzParsePressure(f *testing.F) {
	f.Add([]byte("some avg10=0.16 avg60=0.07 avg300=0.11 total=1836228\nfull avg10=0.16 avg60=0.07 avg300=0.09 total=1610153\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p := ParsePressure(b); !p.HasSome && p.Some != 0 || !p.HasFull && p.Full != 0 {
			t.Errorf("a value without its kind: %+v", p)
		}
	})
}

func BenchmarkReadInto(b *testing.B) {
	b.ReportAllocs()
	var buf []byte
	var err error
	for b.Loop() {
		if buf, err = ReadInto("/proc/self/stat", buf); err != nil {
			b.Fatal(err)
		}
	}
}
