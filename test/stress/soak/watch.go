package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"huatuo/internal/signal"
)

// watchEvery is how often the agent is looked at.
const watchEvery = 5 * time.Second

// point is what the agent held at one time.
type point struct {
	at         time.Duration // since the start of the watch
	rss        float64       // bytes
	cpu        time.Duration // in all
	fds        float64
	threads    float64
	goroutines float64
	store      int64 // bytes
	series     uint64
	accounts   []signal.Account
}

// watch looks at the agent for d, or until ctx is done: a run that is broken off
// has a result as well.
func (a *agent) watch(ctx context.Context, d time.Duration) ([]point, error) {
	began := time.Now()
	var points []point
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	for time.Since(began) < d {
		select {
		case <-ctx.Done():
			if len(points) < 10 {
				return nil, ctx.Err()
			}
			return points, nil
		case <-a.exited:
			return nil, fmt.Errorf("the agent ended by itself: %v\n%s", a.err, a.log)
		case <-t.C:
		}
		p, err := a.look(context.WithoutCancel(ctx))
		if err != nil {
			return nil, err
		}
		p.at = time.Since(began)
		points = append(points, p)
	}
	return points, nil
}

func (a *agent) look(ctx context.Context) (point, error) {
	body, err := fetch(ctx, a.url+"/api/v1/system")
	if err != nil {
		return point{}, err
	}
	var s struct {
		Accounts []signal.Account
		Store    signal.StoreStatus
		Cost     struct{ Goroutines float64 }
	}
	if err := json.Unmarshal([]byte(body), &s); err != nil {
		return point{}, err
	}
	p := point{goroutines: s.Cost.Goroutines, store: s.Store.MetricBytes + s.Store.EventBytes, series: s.Store.MetricSeries, accounts: s.Accounts}
	if s.Store.Error != "" {
		return point{}, fmt.Errorf("the store fails: %s", s.Store.Error)
	}
	return p, p.process(a.cmd.Process.Pid)
}

// process fills in what /proc tells.
func (p *point) process(pid int) error {
	dir := "/proc/" + strconv.Itoa(pid)
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch n, _ := strconv.ParseFloat(f[1], 64); f[0] {
		case "VmRSS:":
			p.rss = n * 1024
		case "Threads:":
			p.threads = n
		}
	}
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return err
	}
	f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	p.cpu = time.Duration(user+system) * 10 * time.Millisecond
	fds, err := os.ReadDir(dir + "/fd")
	p.fds = float64(len(fds))
	return err
}

// settle looks three times, two seconds apart: events may still come from
// elsewhere, so that no one look finds the agent at rest.
func (a *agent) settle(ctx context.Context) (ps [3]point, err error) {
	for i := range ps {
		time.Sleep(2 * time.Second)
		if ps[i], err = a.look(ctx); err != nil {
			return ps, err
		}
	}
	return ps, nil
}

// lawful tells whether every event that was observed at the second look is
// accounted for: no fewer than were routed or dropped at the look before, no
// more than at the one after.
func lawful(ps [3]point) bool {
	early, late := map[string]uint64{}, map[string]uint64{}
	for _, a := range ps[0].accounts {
		early[a.Probe] = accounted(a)
	}
	for _, a := range ps[2].accounts {
		late[a.Probe] = accounted(a)
	}
	for _, a := range ps[1].accounts {
		if a.Observed < early[a.Probe] || a.Observed > late[a.Probe] {
			return false
		}
	}
	return true
}

func accounted(a signal.Account) uint64 {
	n := a.Routed
	for _, d := range a.Dropped {
		n += d
	}
	return n
}

// lines keeps the agent's log.
type lines struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// trouble lists the warnings and errors in the agent's log.
func (a *agent) trouble() (out []string) {
	for line := range strings.Lines(a.log.String()) {
		if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}
