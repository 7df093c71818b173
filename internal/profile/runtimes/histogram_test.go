package runtimes

import (
	"bytes"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/pprof/profile"
)

func TestParseHistogram(t *testing.T) {
	for file, want := range map[string]struct {
		classes int
		first   class
	}{
		"testdata/jdk17.txt": {207, class{"int[]", "java.base@17.0.15", 761, 3676640}},
		"testdata/jdk8.txt":  {4, class{"char[]", "", 5037, 476632}},
	} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseHistogram(string(text))
		if err != nil || len(got) != want.classes {
			t.Fatalf("%s: %d classes, %v", file, len(got), err)
		}
		if d := cmp.Diff(want.first, got[0], cmp.AllowUnexported(class{})); d != "" {
			t.Errorf("%s: %s", file, d)
		}
	}
	for name, text := range map[string]string{
		"no end":        "   1:  1  16  A\n",
		"wrong sum":     "   1:  1  16  A\nTotal  2  16\n",
		"no number":     "   1:  x  16  A\nTotal  1  16\n",
		"negative":      "   1:  -1  16  A\nTotal  -1  16\n",
		"sum too large": "   1:  9223372036854775807  16  A\n   2:  1  1  B\nTotal  1  17\n",
		"nothing":       "",
	} {
		if got, err := parseHistogram(text); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestJavaName(t *testing.T) {
	for in, want := range map[string]string{
		"[B": "byte[]", "[[J": "long[][]", "[Ljava.lang.String;": "java.lang.String[]", "[[LKept$Thing;": "Kept$Thing[][]",
		"java.util.HashMap$Node": "java.util.HashMap$Node", "[": "[", "[L;": "[L;", "[X": "[X", "A$$Lambda$14/0x0000000800c03000": "A$$Lambda$14/0x0000000800c03000",
	} {
		if got := javaName(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// FuzzHistogram: whatever a JVM sends, what is read can be written and read again.
func FuzzHistogram(f *testing.F) {
	for _, file := range []string{"testdata/jdk17.txt", "testdata/jdk8.txt"} {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add("   1:  1  16  [L;\nTotal  1  16\n")
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parseHistogram(text)
		if err != nil {
			return
		}
		p, err := classProfile(list, time.Unix(1, 0))
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := p.Write(&b); err != nil {
			t.Fatal(err)
		}
		again, err := profile.Parse(&b)
		if err != nil || len(again.Sample) != len(list) {
			t.Fatalf("%d classes, %d read again: %v", len(list), len(again.Sample), err)
		}
		g, err := Graph(p, "classes", "instances")
		if err != nil {
			t.Fatal(err)
		}
		var sum int64
		for _, c := range list {
			sum += c.instances
		}
		if g.Total != sum {
			t.Fatalf("%d objects, the tree has %d", sum, g.Total)
		}
	})
}

func TestParseSocket(t *testing.T) {
	for line, want := range map[string]string{
		"   0: 0100007F:17AC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 26283 1 ffff 100 0 0 10 0": "127.0.0.1:6060 0A 26283",
		"   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 7 1":               "[::1]:80 0A 7",
		"   0: 0000000000000000FFFF00000100007F:0050 0000000000000000FFFF00000100007F:9C40 01 0:0 0:0 0 0 0 8 1":               "127.0.0.1:80 01 8",
		"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode":                     "",
		"   0: 0100007F 00000000:0000 0A 0:0 0:0 0 0 0 1 1":                                                                    "",
		"   0: 01007F:0001 00000000:0000 0A 0:0 0:0 0 0 0 1 1":                                                                 "",
	} {
		s, ok := parseSocket([]byte(line))
		if !ok {
			s = socket{}
		}
		got := ""
		if ok {
			got = strings.Join([]string{s.addr.String(), s.state, strconv.FormatUint(s.inode, 10)}, " ")
		}
		if got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

func FuzzSocket(f *testing.F) {
	f.Add([]byte("   0: 0100007F:17AC 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 26283 1"))
	f.Fuzz(func(t *testing.T, line []byte) {
		if s, ok := parseSocket(line); ok && !s.addr.IsValid() {
			t.Errorf("%q: %v", line, s)
		}
	})
}

func FuzzStatus(f *testing.F) {
	f.Add([]byte("Name:\tx\nState:\tS (sleeping)\nTgid:\t7\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nNSpid:\t7\t1\nSigCgt:\t0000000000000004\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if st, err := parseStatus(text); err == nil && st.inner == 0 && st.leader != 0 && !bytes.Contains(text, []byte("NSpid:")) {
			t.Errorf("%q: %+v", text, st)
		}
	})
}
