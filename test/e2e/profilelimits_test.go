package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"huatuo/internal/signal"
)

// profilerStatus is what the API says of it.
type profilerStatus struct {
	State, Reason, Mode string
	Hertz               int
	Samples             uint64
	Memory              uint64 `json:"memory_bytes"`
	MaxMemory           uint64 `json:"max_memory_bytes"`
}

func (a *agent) profiler() profilerStatus {
	var types struct{ Status profilerStatus }
	a.json("/api/v1/profiles/types", &types)
	return types.Status
}

// TestProfileChoice: include and exclude choose whose stacks are taken, and a
// reload changes that, and the rate, while they are.
func TestProfileChoice(t *testing.T) {
	needRoot(t)
	file := filepath.Join(t.TempDir(), "huatuo.yaml")
	write := func(lines ...string) {
		t.Helper()
		text := "profiles:\n  enabled: true\n  types: [cpu]\n  " + strings.Join(lines, "\n  ") + "\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("cpu_hertz: 97", `include: ["process=python3*"]`)
	a := start(t, "--config", file, "--set", "profiles.enabled=true")
	spinner(t, "chosen_function")
	series := func() map[string]int64 {
		var got struct{ Series []signal.ProfileSeries }
		a.json(fmt.Sprintf("/api/v1/profiles/series?by=process&from=%d", time.Now().Add(-time.Minute).Unix()), &got)
		by := map[string]int64{}
		for _, s := range got.Series {
			by[s.Labels["process"]] = s.Samples
		}
		return by
	}
	a.eventually(90*time.Second, "samples of python alone", func() error {
		by := series()
		for p, n := range by {
			if !strings.HasPrefix(p, "python3") {
				t.Fatalf("%d samples of %s", n, p)
			}
			if n > 50 {
				return nil
			}
		}
		return fmt.Errorf("%v", by)
	})
	if code, b := a.get("/metrics"); code != 200 || strings.Contains(b, `huatuo_profile_samples_total{outcome="excluded"} 0`+"\n") {
		t.Errorf("nothing was excluded: %d", code)
	}
	write("cpu_hertz: 49", `exclude: ["process=python3*"]`)
	a.cmd.Process.Signal(syscall.SIGHUP)
	a.eventually(20*time.Second, "49 Hz", func() error {
		if st := a.profiler(); st.Hertz != 49 || st.State != "running" {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	a.eventually(90*time.Second, "samples of others", func() error {
		for p := range series() {
			if !strings.HasPrefix(p, "python3") {
				return nil
			}
		}
		return fmt.Errorf("%v", series())
	})
	write(`include: ["colour=red"]`)
	a.cmd.Process.Signal(syscall.SIGHUP)
	a.eventually(20*time.Second, "a mistake is told", func() error {
		if log := a.log.String(); !strings.Contains(log, "colour=red") || !strings.Contains(log, "the labels are") {
			return fmt.Errorf("not in the log")
		}
		return nil
	})
}

// hugeProgram makes a program that spins, with a million functions that each
// have an entry in its unwind table: more than four million lines of it for the
// unwinder, which takes 64 MB for them.
func hugeProgram(t *testing.T) string {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("needs a C compiler: install gcc")
	}
	const source = `
	.text
	.globl _start
	.type _start, @function
_start:	.cfi_startproc
1:	jmp 1b
	.cfi_endproc
	.rept 1100000
	.cfi_startproc
	.byte 0x53
	.cfi_def_cfa_offset 16
	.cfi_offset 3, -16
	.byte 0x90, 0x5b
	.cfi_def_cfa_offset 8
	.byte 0xc3
	.cfi_endproc
	.endr
	.section .note.GNU-stack,"",@progbits
`
	dir := t.TempDir()
	s, out := filepath.Join(dir, "huge.s"), filepath.Join(dir, "huge")
	if err := os.WriteFile(s, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := exec.Command(cc, "-nostdlib", "-static", "-Wl,--eh-frame-hdr", "-o", out, s).CombinedOutput(); err != nil {
		t.Skipf("cannot make a huge program here: %v: %s", err, b)
	}
	return out
}

// TestProfileCeiling: with a huge program in the mix profiling goes on with less
// until it has no more memory than it may, and says so.
func TestProfileCeiling(t *testing.T) {
	needRoot(t)
	c := exec.Command(hugeProgram(t))
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	a := start(t, "--set", "profiles.enabled=true", "--set", "profiles.max_memory=60MiB")
	var st profilerStatus
	a.eventually(2*time.Minute, "a smaller mode", func() error {
		if st = a.profiler(); st.Mode != "frame_pointers" && st.Mode != "off" || st.State != "degraded" && st.State != "shed" {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	if !strings.Contains(st.Reason, "the limit is 60 MB") {
		t.Errorf("because %q", st.Reason)
	}
	since := time.Time{}
	a.eventually(3*time.Minute, "half a minute within the limit", func() error {
		if st = a.profiler(); st.Memory == 0 || st.Memory > st.MaxMemory || st.State == "starting" {
			since = time.Time{}
		} else if since.IsZero() {
			since = time.Now()
		}
		if since.IsZero() || time.Since(since) < 30*time.Second {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	t.Logf("%s with %d of %d MB", st.Mode, st.Memory>>20, st.MaxMemory>>20)
	_, page := a.get("/metrics")
	for _, want := range []string{`huatuo_profile_mode{mode="` + st.Mode + `"} 1`, "huatuo_profile_memory_bytes "} {
		if !strings.Contains(page, want) {
			t.Errorf("no %s in /metrics", want)
		}
	}
	if !strings.Contains(a.log.String(), "profiling takes too much memory and goes on with less") {
		t.Error("the log does not say it")
	}
}
