package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

// TestBrowser opens every page of the console in a headless Chromium, with
// real data: stalls of busy loops and drops of refused datagrams.
// HUATUO_SCREENSHOTS names a folder for the screenshots.
func TestBrowser(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("needs node: apt-get install nodejs npm")
	}
	chromium := os.Getenv("CHROMIUM")
	if chromium == "" {
		chromium = "/usr/bin/chromium"
	}
	if _, err := os.Stat(chromium); err != nil {
		t.Skipf("needs %s: apt-get install chromium, or set CHROMIUM", chromium)
	}
	a := start(t, "--set", "profiles.enabled=true", "--set", "profiles.cpu_hertz=97")
	goServer(t) // whose profiles the page asks for
	if _, err := exec.LookPath("javac"); err == nil {
		javaProgram(t)
	}
	npm := exec.Command("npm", "ci", "--silent", "--no-fund", "--no-audit")
	npm.Dir = "../browser"
	if out, err := npm.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	cg := probetest.NewCgroup(t, cgroupName("browser"))
	stop := refuse(t)
	defer stop()
	hogs(t, cg, 24)
	a.event("sched_stall", 20*time.Second, func(d *signal.Document) bool { return len(d.KernelStack) > 0 })
	a.event("packet_drop", 20*time.Second, func(*signal.Document) bool { return true })
	a.eventually(40*time.Second, "two samples of the load", func() error {
		if n, _ := a.query(fmt.Sprintf(`histogram_count(rate(huatuo_container_runqueue_wait_seconds{unit=%q}[1m]))`, cg.Path)); n == 0 {
			return errors.New("no rate of the group's waits yet")
		}
		return nil
	})
	killHogs(t, cg)              // the browser wants the CPUs
	time.Sleep(11 * time.Second) // two samples of history after the load

	shots := os.Getenv("HUATUO_SCREENSHOTS")
	if shots == "" {
		shots = filepath.Join(t.TempDir(), "shots")
	}
	c := exec.Command(node, "run.mjs", "--url", a.url, "--out", shots)
	c.Dir = "../browser"
	c.Env = append(os.Environ(), "CHROMIUM="+chromium)
	out, err := c.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("browser tests: %v", err)
	}
}
