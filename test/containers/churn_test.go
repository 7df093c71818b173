package containers

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"huatuo/internal/kern/cgroup"
)

// use is what the agent holds.
type use struct {
	goroutines, files, watches int
	rss                        float64 // bytes
	series                     float64 // of the store
	containers                 map[string]bool
}

func (a *agent) use() (u use) {
	a.t.Helper()
	var sys struct {
		Cost struct {
			Goroutines int
			RSS        float64 `json:"rss_bytes"`
		}
	}
	a.json("/api/v1/system", &sys)
	u.goroutines, u.rss = sys.Cost.Goroutines, sys.Cost.RSS
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", a.pid))
	if err != nil || len(fds) == 0 {
		a.t.Fatalf("files of the agent: %v", err)
	}
	u.files = len(fds)
	for _, fd := range fds {
		b, _ := os.ReadFile(fd) // of a file that was closed meanwhile
		u.watches += strings.Count(string(b), "inotify wd:")
	}
	u.containers = map[string]bool{}
	_, body := a.get("/metrics")
	for _, m := range regexp.MustCompile(`[{,]container="([^"]+)"`).FindAllStringSubmatch(body, -1) {
		u.containers[m[1]] = true
	}
	if m := regexp.MustCompile(`(?m)^huatuo_store_series (\S+)$`).FindStringSubmatch(body); m != nil {
		fmt.Sscan(m[1], &u.series)
	}
	return u
}

// TestChurn: 200 containers a minute, and as many groups like a container's in
// each second, leave nothing behind in the agent.
func TestChurn(t *testing.T) {
	t.Parallel()
	c, address := startDocker(t)
	a := startAgent(t, "docker_host: "+address+"\nsources: [docker]")
	once := func(name string) {
		c.do(append(append([]string{"run", "--rm", "--name", name}, c.run...), imageName, "sleep", "0.1")...)
	}
	for i := range 5 {
		once(fmt.Sprintf("warm-%d", i))
	}
	time.Sleep(2 * time.Second)
	before := a.use()

	const containers, every = 60, 300 * time.Millisecond
	stop := fakeGroups(t)
	began := time.Now()
	var wg sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i := range containers {
		slots <- struct{}{}
		wg.Go(func() { once(fmt.Sprintf("churn-%d", i)); <-slots })
		time.Sleep(time.Until(began.Add(time.Duration(i+1) * every)))
	}
	wg.Wait()
	groups := stop()
	t.Logf("%d containers and %d groups in %v", containers, groups, time.Since(began).Round(time.Second))

	// Series end half a minute after what they are about.
	a.eventually(60*time.Second, "the agent is as it was before", func() error {
		after := a.use()
		for name := range after.containers {
			if strings.HasPrefix(name, "churn-") {
				return fmt.Errorf("series of %s, which has gone", name)
			}
		}
		switch {
		case after.goroutines > before.goroutines+10:
			return fmt.Errorf("%d goroutines, were %d", after.goroutines, before.goroutines)
		case after.files > before.files+5:
			return fmt.Errorf("%d files, were %d", after.files, before.files)
		case after.watches > before.watches+20: // of other tests on this machine
			return fmt.Errorf("%d groups are watched, were %d", after.watches, before.watches)
		case after.rss > before.rss+48<<20: // names and series of 10 minutes, and the collector's headroom
			return fmt.Errorf("%.1f MB resident, were %.1f", after.rss/1e6, before.rss/1e6)
		}
		t.Logf("before %d goroutines, %d files, %d watches, %.1f MB, %.0f series; after %d, %d, %d, %.1f MB, %.0f",
			before.goroutines, before.files, before.watches, before.rss/1e6, before.series,
			after.goroutines, after.files, after.watches, after.rss/1e6, after.series)
		return nil
	})
	last := c.start(append([]string{"--name", "last", "--memory", memory}, eat(0)...)...)
	if got := a.oomKill(last); got.Name != "last" {
		t.Errorf("after it all: %+v", got)
	}
}

// fakeGroups makes and removes groups like a container's until it is told to
// stop; it returns how many.
func fakeGroups(t *testing.T) (stop func() int) {
	t.Helper()
	layout, err := cgroup.Detect("/")
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(layout.IdentityRoot, "docker")
	done, ended := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		defer func() { ended <- n }()
		for {
			select {
			case <-done:
				return
			case <-time.After(5 * time.Millisecond):
			}
			dir := filepath.Join(root, fmt.Sprintf("%016x%048x", rand.Uint64(), n))
			if os.Mkdir(dir, 0o755) == nil {
				n++
				time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
				if err := os.Remove(dir); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	return sync.OnceValue(func() int { close(done); return <-ended })
}
