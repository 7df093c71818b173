package kmsg

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Record
		ok   bool
	}{
		{"6,339,5140900,-;NET: Registered PF_NETLINK\n", Record{6, 0, 339, 5140900 * time.Microsecond, "NET: Registered PF_NETLINK", ""}, true},
		{"3,1,0,c,caller=T1;a\n SUBSYSTEM=block\n DEVICE=b8:0\n", Record{3, 0, 1, 0, "a", "T1"}, true},
		{"30,7,2,-;systemd[1]: a; b, c\n", Record{6, 3, 7, 2 * time.Microsecond, "systemd[1]: a; b, c", ""}, true},
		{"6,2,3;x", Record{6, 0, 2, 3 * time.Microsecond, "x", ""}, true},
		{`6,2,3,-;tab\x09back\x5cslash \x, \x5`, Record{6, 0, 2, 3 * time.Microsecond, "tab\tback\\slash \\x, \\x5", ""}, true},
		{`6,2,3,-;\xc3\xbc \xff`, Record{6, 0, 2, 3 * time.Microsecond, "ü \uFFFD", ""}, true},
		{"6,2,3,-;\n", Record{6, 0, 2, 3 * time.Microsecond, "", ""}, true},
		{"", Record{}, false},
		{"6,2,3,-\n", Record{}, false},
		{"6,2;x\n", Record{}, false},
		{"x,2,3,-;x\n", Record{}, false},
		{"6,-2,3,-;x\n", Record{}, false},
		{"6,2,x,-;x\n", Record{}, false},
		{"6,2,99999999999999999999,-;x\n", Record{}, false},
	} {
		got, err := Parse([]byte(tt.in))
		if (err == nil) != tt.ok || tt.ok && got != tt.want {
			t.Errorf("%q: %+v, %v; want %+v", tt.in, got, err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("6,339,5140900,-;NET: Registered PF_NETLINK\n KEY=v\n"))
	f.Add([]byte(`6,2,3,-;\xc3\xbc \xff`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Parse(b)
		if err != nil {
			return
		}
		if !utf8.ValidString(r.Text) || strings.Contains(string(b), "\n") == false && len(r.Text) > 3*len(b) || r.Level > 7 || r.SinceBoot < 0 {
			t.Errorf("%q: %+v", b, r)
		}
	})
}

func TestLost(t *testing.T) {
	r := &Reader{}
	for _, in := range []string{"6,10,0,-;a\n", "6,11,0,-;b\n", "6,15,0,-;c\n", "nonsense", "6,90,0,-;d\n", "6,91,0,-;e\n"} {
		r.take([]byte(in))
	}
	if r.Lost() != 4 { // 12, 13, 14, and the one that is none; what is missing after it cannot be known
		t.Errorf("%d lost, want 4", r.Lost())
	}
}

// TestKernelLog writes to the log of this machine and reads it back.
func TestKernelLog(t *testing.T) {
	w, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("needs the right to write to /dev/kmsg: %v", err)
	}
	defer w.Close()
	if _, err := w.WriteString("<6>before\n"); err != nil {
		t.Skipf("needs the right to write to /dev/kmsg: %v", err)
	}
	r, err := Open("/dev/kmsg")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	mark := fmt.Sprintf("huatuo test %d", os.Getpid())
	for i := range 3 {
		if _, err := fmt.Fprintf(w, "<5>%s: line %d\\ of\t3\n", mark, i); err != nil {
			t.Fatal(err)
		}
	}
	var got []Record
	for end := time.Now().Add(5 * time.Second); len(got) < 3 && time.Now().Before(end); {
		rec, ok, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			time.Sleep(time.Millisecond)
			continue
		}
		if strings.Contains(rec.Text, "before") {
			t.Errorf("a record from before: %+v", rec)
		}
		if strings.HasPrefix(rec.Text, mark) {
			got = append(got, rec)
		}
	}
	if len(got) < 3 {
		t.Fatalf("%d records, want 3", len(got))
	}
	for i, rec := range got {
		if want := fmt.Sprintf("%s: line %d\\ of\t3", mark, i); rec.Text != want || rec.Level != 5 || rec.Facility == 0 || rec.SinceBoot == 0 {
			t.Errorf("record %+v, want %q", rec, want)
		}
	}
	if got[2].Seq < got[0].Seq+2 || r.Lost() != 0 {
		t.Errorf("sequence %d … %d, %d lost", got[0].Seq, got[2].Seq, r.Lost())
	}
}

// TestWait: a pipe stands for the log.
func TestWait(t *testing.T) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[1])
	r := &Reader{fd: p[0], buf: make([]byte, maxRecord)}
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	start := time.Now()
	if err := r.Wait(ctx, 20*time.Millisecond); err != nil || time.Since(start) < 20*time.Millisecond {
		t.Errorf("nothing to read: %v after %v", err, time.Since(start))
	}
	wait := func(what string, before func()) {
		t.Helper()
		done := make(chan error)
		go func() { done <- r.Wait(ctx, -1) }()
		before()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: Wait does not return", what)
		}
	}
	wait("a record comes", func() { unix.Write(p[1], []byte("6,1,2,-;x\n")) })
	if rec, ok, err := r.Next(); !ok || err != nil || rec.Text != "x" {
		t.Errorf("after Wait: %+v, %v, %v", rec, ok, err)
	}
	wait("the context ends", cancel)
	wait("it has ended", func() {})
}

func TestOpen(t *testing.T) {
	if _, err := Open(t.TempDir() + "/kmsg"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such file: %v", err)
	}
}
