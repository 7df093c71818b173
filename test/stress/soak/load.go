package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// load is one part of what goes on while the agent is watched: an ordinary node
// on a busy day, not a stress test. Groups come and go often enough for the
// agent's bound of new workloads to take effect before the judged part.
type load struct {
	what  string
	every time.Duration
	do    func(ctx context.Context)
}

func loads(url string) []load {
	n := 0
	return []load{
		{"a packet to a closed port", 50 * time.Millisecond, func(context.Context) { drop() }},
		{"a process that ends at once", 100 * time.Millisecond, func(ctx context.Context) { exec.CommandContext(ctx, "true").Run() }},
		{"a new control group with a process that lives for a tenth of a second", 200 * time.Millisecond, func(ctx context.Context) { n++; group(ctx, n) }},
		{"1 MiB written and synced", time.Second, func(context.Context) { write() }},
		{"six busy loops on one CPU, for a second", 30 * time.Second, busy},
		{"a scrape of /metrics", 15 * time.Second, func(ctx context.Context) { fetch(ctx, url+"/metrics") }},
		{"what an open page of the console asks for", 5 * time.Second, func(ctx context.Context) { page(ctx, url) }},
		{"a reader of the event stream that comes back each minute", time.Second, func(ctx context.Context) { listen(ctx, url) }},
	}
}

func (l load) run(ctx context.Context) {
	t := time.NewTicker(l.every)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			l.do(ctx)
		}
	}
}

func drop() {
	if c, err := net.Dial("udp", "127.0.0.1:9"); err == nil {
		c.Write([]byte("x"))
		c.Close()
	}
}

func group(ctx context.Context, n int) {
	roots := []string{"/sys/fs/cgroup"}
	if _, err := os.Stat("/sys/fs/cgroup/cpu/cgroup.procs"); err == nil {
		roots = []string{"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"}
	}
	c := exec.CommandContext(ctx, "sleep", "0.1")
	if c.Start() != nil {
		return
	}
	var dirs []string
	for _, r := range roots {
		dir := filepath.Join(r, fmt.Sprintf("huatuo-soak-%d-%d", os.Getpid(), n))
		if os.Mkdir(dir, 0o755) == nil {
			dirs = append(dirs, dir)
			os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(c.Process.Pid)), 0)
		}
	}
	c.Wait()
	for _, dir := range dirs {
		for range 50 { // the kernel lets go of the process a moment later
			if os.Remove(dir) == nil {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

func write() {
	f, err := os.CreateTemp("", "huatuo-soak-")
	if err != nil {
		return
	}
	defer os.Remove(f.Name())
	defer f.Close()
	f.Write(make([]byte, 1<<20))
	f.Sync()
}

func busy(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var all []*exec.Cmd
	for range 6 {
		c := exec.CommandContext(ctx, "taskset", "-c", "0", "sh", "-c", "while :; do :; done")
		if c.Start() == nil {
			all = append(all, c)
		}
	}
	for _, c := range all {
		c.Wait()
	}
}

// page asks what a page of the console asks each five seconds.
func page(ctx context.Context, base string) {
	now := time.Now().Unix()
	for _, q := range []string{
		"sum by (mode) (rate(huatuo_cpu_seconds_total[1m]))", "huatuo_memory_available_bytes",
		"topk(10, rate(huatuo_container_cpu_seconds_total[1m]))", "histogram_quantile(0.99, sum(rate(huatuo_runqueue_wait_seconds[1m])))",
	} {
		fetch(ctx, base+"/api/v1/query_range?"+url.Values{"query": {q}, "start": {fmt.Sprint(now - 900)}, "end": {fmt.Sprint(now)}, "step": {"15"}}.Encode())
	}
	for _, path := range []string{"/api/v1/events?limit=100", "/api/v1/events/timeline?buckets=60", "/api/v1/system", "/api/v1/probes"} {
		fetch(ctx, base+path)
	}
}

// listen reads the stream for a minute.
func listen(ctx context.Context, base string) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/api/v1/events/stream", nil)
	if err != nil {
		return
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return
	}
	defer r.Body.Close()
	for s := bufio.NewScanner(r.Body); s.Scan(); {
	}
}

// fetch returns the body of a 200.
func fetch(ctx context.Context, url string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	var b strings.Builder
	if _, err := io.Copy(&b, r.Body); err != nil {
		return "", err
	}
	if r.StatusCode != http.StatusOK {
		return "", fmt.Errorf("GET %s: %d", url, r.StatusCode)
	}
	return b.String(), nil
}
