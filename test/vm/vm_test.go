package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/google/go-cmp/cmp"
)

// console is what a guest may say: tests that pass, skip and fail, firmware
// before a line, and a line of the kernel in between.
const console = "\x1b[2J@@UP 6.1.0-56 2.2\r\n" +
	"@@BEGIN internal/kern/load 2.5\r\n" +
	"=== RUN   TestKernelA\r\n" +
	"--- PASS: TestKernelA (0.10s)\r\n" +
	"=== RUN   TestKernelB\r\n" +
	"=== RUN   TestKernelB/fentry\r\n" +
	"    load_test.go:191: needs a kernel with fentry: it says no\r\n" +
	"=== RUN   TestKernelB/kprobe\r\n" +
	"    load_test.go:200: something else\r\n" +
	"--- PASS: TestKernelB (0.20s)\r\n" +
	"    --- SKIP: TestKernelB/fentry (0.01s)\r\n" +
	"    --- PASS: TestKernelB/kprobe (0.01s)\r\n" +
	"PASS\r\n\r\n" +
	"@@END internal/kern/load 0 4.0\r\n" +
	"@@BEGIN internal/probes/x 4.1\r\n" +
	"--- FAIL: TestKernel (1.00s)\r\n" +
	"\r\n@@RESULT {\"probes\":[]}\r\n" +
	"@@END internal/probes/x 1 5.1\r\n" +
	"@@BEGIN internal/probes/y 5.2\r\n" +
	"@@END internal/probes/y 124 9.2\r\n" +
	"@@BEGIN internal/probes/z 9.3\r\n" +
	"testing: warning: no tests to run\r\nPASS\r\n" +
	"@@END internal/probes/z 0 9.4\r\n"

func TestConsole(t *testing.T) {
	m := &machine{k: kernel{name: "k"}}
	var got []string
	done := readConsole(strings.NewReader(console), func(e event) {
		if o := m.add(e); o != nil {
			got = append(got, o.suite+": "+strings.Join(o.problems(m.k), "; "))
		}
	})
	want := []string{
		"internal/kern/load: TestKernelB/fentry skips itself, which no rule in test/vm/kernels.go allows: needs a kernel with fentry: it says no",
		"internal/probes/x: exit status 1: TestKernel",
		"internal/probes/y: timed out",
		"internal/probes/z: no test ran",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if done || m.release != "6.1.0-56" || string(m.result) != `{"probes":[]}` || m.suites[0].passed != 3 || m.suites[0].took.Seconds() != 1.5 {
		t.Errorf("done %v, machine %+v, suite %+v", done, m, m.suites[0])
	}
	if !readConsole(strings.NewReader(console+"@@DONE 9.5\n"), func(event) {}) {
		t.Error("a guest that came to its end is taken for one that went away")
	}
}

// TestSummary: a kernel that the archive has lost is a skip, unless nothing else ran.
func TestSummary(t *testing.T) {
	gone := &machine{k: kernel{name: "gone"}, gone: true, err: os.ErrNotExist}
	good := &machine{k: kernel{name: "good"}, suites: []*outcome{{suite: "s", passed: 1}}}
	died := &machine{k: kernel{name: "died"}, suites: []*outcome{{suite: "s", passed: 1}}, err: os.ErrDeadlineExceeded}
	none := &machine{k: kernel{name: "none"}}
	for _, c := range []struct {
		ms   []*machine
		want bool
		text string
	}{
		{[]*machine{good, gone}, true, "SKIP  gone"},
		{[]*machine{gone}, false, "FAIL  0 of 0"},
		{[]*machine{good, died}, false, "FAIL  1 of 2"},
		{[]*machine{good, none}, false, "FAIL  none"},
	} {
		var b bytes.Buffer
		if got := summary(&b, c.ms); got != c.want || !strings.Contains(b.String(), c.text) {
			t.Errorf("%v, want %v with %q:\n%s", got, c.want, c.text, &b)
		}
	}
}

// TestAgain: what failed, and what a guest that went away left out, has a second guest.
func TestAgain(t *testing.T) {
	all := []suite{{pkg: "a"}, {pkg: "b"}, {pkg: "c"}}
	m := &machine{k: kernel{name: "k", smoke: []string{"TestAgent"}}, err: os.ErrDeadlineExceeded,
		suites: []*outcome{{suite: "a", passed: 1}, {suite: "b", code: 1}}}
	if diff := cmp.Diff([]string{"b", "c", smokePkg}, m.failing(all, true)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"b", "c"}, m.failing(all, false)); diff != "" {
		t.Error(diff)
	}
	m.err = nil
	m.merge(&machine{result: []byte("{}"), suites: []*outcome{{suite: "b", passed: 1}, {suite: "c", passed: 1}, {suite: smokePkg, code: 1}}})
	if diff := cmp.Diff([]string{smokePkg}, m.failing(all, true)); diff != "" {
		t.Error(diff)
	}
	var b bytes.Buffer
	if summary(&b, []*machine{m}); !m.bad() || !strings.Contains(b.String(), "second guest: b, c, "+smokePkg) {
		t.Errorf("%s", &b)
	}
}

func TestChoose(t *testing.T) {
	for _, c := range []struct{ words, want string }{
		{"", "5.10 6.1-v1 6.1 6.12 newest 6.1-arm64 6.1-arm64-pmu newest-arm64"},
		{"6.1", "6.1-v1 6.1 6.1-arm64 6.1-arm64-pmu"},
		{"6.1-v1,newest-arm64", "6.1-v1 newest-arm64"},
		{"arm64", "6.1-arm64 6.1-arm64-pmu newest-arm64"},
		{"6.1,4.18", "error"},
	} {
		ks, err := choose(matrix(), words(c.words))
		var got []string
		for _, k := range ks {
			got = append(got, k.name)
		}
		if err != nil {
			got = []string{"error"}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q: %v, want %s", c.words, got, c.want)
		}
	}
}

// TestSuites: the packages that are known to have kernel tests are found, and
// those that cannot run in a guest are not.
func TestSuites(t *testing.T) {
	suites, err := kernelSuites("../..")
	if err != nil {
		t.Fatal(err)
	}
	run := map[string]string{}
	for _, s := range suites {
		run[s.pkg] = s.run
	}
	for pkg, want := range map[string]string{"internal/kern/load": "^TestKernel", "internal/probes/runqueue": "^TestKernel", "internal/kern/ksym": "^Test", "internal/signal": ""} {
		if run[pkg] != want {
			t.Errorf("%s runs %q, want %q", pkg, run[pkg], want)
		}
	}
}

// TestArchive holds the archive to what the kernel reads: magic, sizes,
// padding, folders before files, an end.
func TestArchive(t *testing.T) {
	var b bytes.Buffer
	a := newArchive(&b)
	a.file("/t/run.sh", 0o644, []byte("exit\n"))
	a.file("/t/run.sh", 0o644, []byte("not twice"))
	a.link("/bin/sh", "busybox")
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	if b.Len()%4 != 0 {
		t.Errorf("%d bytes: not padded", b.Len())
	}
	var names []string
	for rest := b.Bytes(); len(rest) > 0; {
		if !bytes.HasPrefix(rest, []byte("070701")) {
			t.Fatalf("no header at %q", rest[:min(len(rest), 20)])
		}
		size, name := field(t, rest, 6), field(t, rest, 11)
		names = append(names, string(rest[110:110+name-1]))
		rest = rest[(110+name+3)/4*4:]
		rest = rest[(size+3)/4*4:]
	}
	if diff := cmp.Diff([]string{"t", "t/run.sh", "bin", "bin/sh", "TRAILER!!!"}, names); diff != "" {
		t.Error(diff)
	}
}

// field reads one of the header's numbers: eight hexadecimal digits each.
func field(t *testing.T, header []byte, i int) int {
	t.Helper()
	n, err := strconv.ParseUint(string(header[6+8*i:14+8*i]), 16, 32)
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

func TestModulesOf(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"modules.dep":     "kernel/a/nft-compat.ko.xz: kernel/b/nf_tables.ko.xz kernel/c/x_tables.ko.xz\nkernel/b/nf_tables.ko.xz: kernel/c/x_tables.ko.xz\n",
		"modules.builtin": "kernel/drivers/block/loop.ko\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, err := modulesOf(dir, "nft_compat")
	if want := []string{"kernel/c/x_tables.ko.xz", "kernel/b/nf_tables.ko.xz", "kernel/a/nft-compat.ko.xz"}; err != nil || !slices.Equal(files, want) {
		t.Errorf("%v, %v; want %v", files, err, want)
	}
	if files, err := modulesOf(dir, "loop"); err != nil || files != nil {
		t.Errorf("built in: %v, %v", files, err)
	}
	if _, err := modulesOf(dir, "nosuch"); err == nil {
		t.Error("a module that does not exist is found")
	}
}

// TestAtomics: kernels before 5.12 know one atomic instruction, an addition
// without a result. Clang makes others of __sync_fetch_and_add where it can
// (an `or` of adding 0), and no kernel with newer ones tells.
func TestAtomics(t *testing.T) {
	objects, err := filepath.Glob("../../internal/pro*/*/*_bpfel.o") // probes and profile
	entries, _ := filepath.Glob("../../internal/profile/engine/bpf/*_bpfel.o")
	objects = append(objects, entries...)
	if err != nil || len(objects) == 0 || len(entries) == 0 {
		t.Fatalf("%d objects, %v", len(objects), err)
	}
	for _, o := range objects {
		spec, err := ebpf.LoadCollectionSpec(o)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range spec.Programs {
			for i, ins := range p.Instructions {
				if c := ins.OpCode; c.Class() == asm.StXClass && c.Mode() == asm.AtomicMode && c.AtomicOp() != asm.AddAtomic {
					t.Errorf("%s: %s: instruction %d: %v", filepath.Base(filepath.Dir(o)), p.Name, i, ins)
				}
			}
		}
	}
}

// TestExcluded: a package that is left out on a kernel is no part of its script,
// and runs on the others.
func TestExcluded(t *testing.T) {
	suites := []suite{{pkg: "internal/probes/tcp", run: "^TestKernel"}, {pkg: "internal/probes/locks", run: "^TestKernel"}}
	for _, k := range matrix() {
		s := script(k, suites)
		if len(k.only) > 0 {
			if strings.Contains(s, ".test ") {
				t.Errorf("%s:\n%s", k.name, s)
			}
			continue
		}
		if got, want := strings.Contains(s, "tcp.test"), k.name != "newest"; got != want {
			t.Errorf("%s: tcp runs: %v, want %v", k.name, got, want)
		}
		if !strings.Contains(s, "locks.test") || !strings.Contains(s, "TestKernelSpin") {
			t.Errorf("%s:\n%s", k.name, s)
		}
	}
}

// TestIdle: a guest in which none of the chosen packages has tests is not booted.
func TestIdle(t *testing.T) {
	for _, c := range []struct {
		pkg   string
		smoke bool
		want  bool // the guest for the hardware's counters
	}{{"internal/profile/engine", false, true}, {"internal/probes/locks", false, false}, {"internal/probes/locks", true, false}} {
		r := runner{suites: []suite{{pkg: c.pkg, run: "^TestKernel"}}, smoke: c.smoke}
		ks := r.busy(matrix())
		if got := slices.ContainsFunc(ks, func(k kernel) bool { return k.icount }); got != c.want || len(ks) < 7 {
			t.Errorf("%s: %v of %d kernels, want %v", c.pkg, got, len(ks), c.want)
		}
	}
}
