package procfs

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const tail = " -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 1000 20 18446744073709551615 0 0\n"

func TestParseStat(t *testing.T) {
	want := Stat{PID: 7, Comm: "bash", State: 'S', PPID: 3, Flags: 4194560, StartTicks: 4242}
	with := func(comm string) Stat { s := want; s.Comm = comm; return s }
	for _, tt := range []struct {
		name, in string
		want     Stat
		bad      bool
	}{
		{name: "plain", in: "7 (bash) S 3 7 7 0" + tail, want: want},
		{name: "parentheses", in: "7 (a) S 1 (b)) S 3 7 7 0" + tail, want: with("a) S 1 (b)")},
		{name: "blanks", in: "7 (tmux: server) S 3 7 7 0" + tail, want: with("tmux: server")},
		{name: "newline", in: "7 (a\nb) S 3 7 7 0" + tail, want: with("a\nb")},
		{name: "empty comm", in: "7 () S 3 7 7 0" + tail, want: with("")},
		{name: "kernel thread", in: "7 (kworker/0:1-ev) I 2 0 0 0 -1 69238880 0 0 0 0 0 0 0 0 20 0 1 0 50",
			want: Stat{PID: 7, Comm: "kworker/0:1-ev", State: 'I', PPID: 2, Flags: 69238880, StartTicks: 50}},
		{name: "empty", in: "", bad: true},
		{name: "no parentheses", in: "7 bash S 3", bad: true},
		{name: "reversed parentheses", in: "7 )bash( S 3", bad: true},
		{name: "cut", in: "7 (bash) S 3 7 7", bad: true},
		{name: "no pid", in: "(bash) S 3 7 7 0" + tail, bad: true},
		{name: "pid too big", in: "99999999999 (bash) S 3 7 7 0" + tail, bad: true},
		{name: "negative parent", in: "7 (bash) S -3 7 7 0" + tail, bad: true},
		{name: "start not a number", in: "7 (bash) S 3 7 7 0 -1 1 1 2 3 4 5 6 7 8 20 0 1 0 x", bad: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseStat([]byte(tt.in))
			if (err != nil) != tt.bad {
				t.Fatalf("error %v, want one: %v", err, tt.bad)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if kt := (&Stat{Flags: 69238880}); !kt.KernelThread() || (&want).KernelThread() {
		t.Error("KernelThread does not tell a kernel thread from bash")
	}
	if !(&Stat{State: 'Z'}).Zombie() || (&want).Zombie() {
		t.Error("Zombie does not tell the dead from the living")
	}
}

func TestParseCgroup(t *testing.T) {
	in := strings.Join([]string{
		"12:cpu,cpuacct:/docker/ab",
		"9:name=systemd:/init.scope",
		"8:name=odd:/name:/x",
		"7::/wrong-but-v2-like",
		"garbage",
		"x:cpu:/y",
		"-1:cpu:/z",
		"5:memory:no-slash",
		"4:memory:/a:b:c (deleted)",
		"0::/../kubepods/pod1",
		"",
	}, "\n")
	got := ParseCgroup([]byte(in))
	want := Cgroups{
		{12, "cpu,cpuacct", "/docker/ab"},
		{9, "name=systemd", "/init.scope"},
		{8, "name=odd", "/name:/x"},
		{7, "", "/wrong-but-v2-like"},
		{4, "memory", "/a:b:c"},
		{0, "", "/../kubepods/pod1"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	for controller, path := range map[string]string{
		"cpu": "/docker/ab", "cpuacct": "/docker/ab", "memory": "/a:b:c", "name=systemd": "/init.scope",
		"": "/../kubepods/pod1", "cpuset": "", "cp": "",
	} {
		if got := got.Path(controller); got != path {
			t.Errorf("Path(%q) = %q, want %q", controller, got, path)
		}
	}
}

func TestParseNSPid(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []uint32
	}{
		{"Name:\tx\nPid:\t7\nNSpid:\t4711\t12\t1\nNSsid:\t1\n", []uint32{4711, 12, 1}},
		{"Name:\tx\nNSpid:\t9\n", []uint32{9}},
		{"Name:\tNSpid:\t9\nPid:\t7\n", nil},
		{"Name:\tx\nNSpid:\tq\n", nil},
		{"", nil},
	} {
		if diff := cmp.Diff(tt.want, ParseNSPid([]byte(tt.in))); diff != "" {
			t.Errorf("%q: %s", tt.in, diff)
		}
	}
}

func TestSplitArgs(t *testing.T) {
	for in, want := range map[string][]string{
		"":                             nil,
		"\x00\x00":                     nil,
		"sleep\x0010\x00":              {"sleep", "10"},
		"sh\x00-c\x00\x00x\x00":        {"sh", "-c", "", "x"},
		"nginx: worker\x00\x00\x00":    {"nginx: worker"},
		"cut in the middle\x00of an a": {"cut in the middle", "of an a"},
	} {
		if diff := cmp.Diff(want, SplitArgs([]byte(in))); diff != "" {
			t.Errorf("%q: %s", in, diff)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("7 (a) S 1 (b)) S 3 7 7 0" + tail))
	f.Add([]byte("7 ("))
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := ParseStat(b)
		if err != nil && st != (Stat{}) {
			t.Errorf("half an answer with an error: %+v", st)
		}
		if err == nil && !strings.Contains(string(b), fmt.Sprintf("(%s)", st.Comm)) {
			t.Errorf("comm %q is not in the input", st.Comm)
		}
	})
}

func FuzzParseCgroup(f *testing.F) {
	f.Add([]byte("12:cpu,cpuacct:/docker/ab\n0::/\n"))
	f.Add([]byte("1:name=a:b:/x"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, c := range ParseCgroup(b) {
			if !strings.HasPrefix(c.Path, "/") || c.Hierarchy < 0 {
				t.Errorf("bad line let through: %+v", c)
			}
		}
	})
}

func FuzzParseNSPid(f *testing.F) {
	f.Add([]byte("Name:\tx\nNSpid:\t4711\t12\n"))
	f.Fuzz(func(t *testing.T, b []byte) { ParseNSPid(b) })
}

func FuzzSplitArgs(f *testing.F) {
	f.Add([]byte("a\x00b\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if n := len(strings.Join(SplitArgs(b), "\x00")); n > len(b) {
			t.Errorf("%d bytes out of %d", n, len(b))
		}
	})
}
