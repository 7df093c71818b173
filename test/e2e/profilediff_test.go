package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"huatuo/internal/signal"
)

// recorded takes a profile of a version of a program: so much work in grew_in_diff
// for each round of stays_in_diff.
func recorded(t *testing.T, file string, work int) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3")
	}
	const program = "def grew_in_diff(n):\n  s = 0\n  for i in range(n): s += i\n  return s\n" +
		"def stays_in_diff(n):\n  s = 0\n  for i in range(n): s += i\n  return s\n" +
		"while True:\n  stays_in_diff(20000)\n  grew_in_diff(%d)"
	c := exec.Command(python, "-c", fmt.Sprintf(program, work))
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { c.Process.Kill(); c.Wait() }()
	// On a machine with other work it takes a while until there are enough samples.
	for _, d := range []string{"5s", "20s", "60s"} {
		code, out, errs := cli(t, "profile", "cpu", "--pid", fmt.Sprint(c.Process.Pid), "--for", d, "-o", file)
		n := 0
		if m := regexp.MustCompile(`, (\d+) samples`).FindStringSubmatch(out); m != nil {
			n, _ = strconv.Atoi(m[1])
		}
		if code == 0 && n >= 100 {
			return
		}
		t.Logf("%s: exit %d, %d samples %s", d, code, n, errs)
	}
	t.Fatal("too few samples")
}

// TestProfileDiff: of two profiles of a program whose second version spends more
// in a function, that function comes first, in the terminal and in the files.
func TestProfileDiff(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	recorded(t, in("v1.pb.gz"), 4000)
	recorded(t, in("v2.pprof"), 40_000)

	code, out, errs := cli(t, "profile", "diff", in("v1.pb.gz"), in("v2.pprof"), "-o", in("diff.json"))
	_, table, _ := strings.Cut(out, "FUNCTION\n")
	first, _, _ := strings.Cut(table, "\n")
	if code != 0 || !regexp.MustCompile(`^ *\d+\.\d% +\d+\.\d% +\+\d+\.\d% +regressed +.*grew_in_diff`).MatchString(first) {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	if !strings.Contains(out, "cpu: ") || strings.Contains(out, "--type") || !regexp.MustCompile(`improved +.*stays_in_diff`).MatchString(out) {
		t.Error(out)
	}
	var d signal.ProfileDiff
	b, err := os.ReadFile(in("diff.json"))
	if err == nil {
		err = json.Unmarshal(b, &d)
	}
	if err != nil || len(d.Functions) == 0 || !strings.Contains(d.Functions[0].Function, "grew_in_diff") || d.Functions[0].Self.Z < 4 || len(d.Nodes) == 0 {
		t.Errorf("%v: %.2000s", err, b)
	}
	if code, out, errs := cli(t, "profile", "diff", in("v1.pb.gz"), in("v2.pprof"), "--of", "total", "--absolute", "-o", in("diff.svg")); code != 0 || !regexp.MustCompile(`\+\d+\.\d+ m?s +regressed +.*grew_in_diff`).MatchString(out) {
		t.Errorf("by values: exit %d: %s%s", code, out, errs)
	}
	if b, err := os.ReadFile(in("diff.svg")); err != nil || !regexp.MustCompile(`grew_in_diff[^<]* before, [^<]* after\)</title><rect [^>]*fill="hsl\(6,`).Match(b) {
		t.Errorf("%v: %.2000s", err, b)
	}

	if err := os.WriteFile(in("broken"), []byte("main;f 3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{in("v1.pb.gz")}, 2, "name two pprof files"},
		{[]string{in("v1.pb.gz"), in("none")}, 1, "no such file"},
		{[]string{in("v1.pb.gz"), in("broken")}, 1, "broken: not a pprof profile"},
		{[]string{in("v1.pb.gz"), dir}, 1, "is a directory"},
		{[]string{in("v1.pb.gz"), in("v2.pprof"), "--type", "alloc_space"}, 1, `no samples of type "alloc_space"; there are: samples, cpu`},
		{[]string{in("v1.pb.gz"), in("v2.pprof"), "-o", "x.gif"}, 2, "end it in .svg or .json"},
		{[]string{in("v1.pb.gz"), in("v2.pprof"), "--of", "all"}, 2, "want self or total"},
	} {
		if code, _, errs := cli(t, append([]string{"profile", "diff"}, bad.args...)...); code != bad.code || !strings.Contains(errs, bad.want) {
			t.Errorf("%v: exit %d, %s", bad.args, code, errs)
		}
	}
}
