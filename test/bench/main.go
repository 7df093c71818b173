// Command bench measures what the agent costs, paired on and off, and writes
// the result as a page of the docs.
//
// Each pair runs a load without the agent and the same load with it, one
// after the other, on one machine; the ratio of a pair is what counts, and the
// median of the ratios is reported, because machines are noisy. Cost per event
// is the kernel's own count of BPF run time (kernel.bpf_stats_enabled), net of
// an empty program on the same hook measured in the same run.
//
//	make bench
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

type options struct {
	agent string
	out   string
	pairs int
	idle  time.Duration
	only  string
}

func main() {
	var o options
	flag.StringVar(&o.agent, "agent", "bin/huatuo", "binary to measure")
	flag.StringVar(&o.out, "o", "", "file to write (default standard output)")
	flag.IntVar(&o.pairs, "pairs", 9, "off/on pairs of each load")
	flag.DurationVar(&o.idle, "idle", time.Minute, "how long the idle agent is watched")
	flag.StringVar(&o.only, "only", "", "one part alone, to standard output: idle, pairs, events or profiles")
	flag.Parse()
	log.SetFlags(0)
	if os.Geteuid() != 0 {
		log.Fatal("bench: run as root: the agent loads BPF programs")
	}
	page, err := measure(o)
	if err != nil {
		log.Fatal("bench: ", err)
	}
	if o.out == "" {
		fmt.Print(page)
		return
	}
	if err := os.WriteFile(o.out, []byte(page), 0o644); err != nil {
		log.Fatal("bench: ", err)
	}
}

func measure(o options) (string, error) {
	parts := []struct {
		name string
		f    func(options) (string, error)
	}{{"idle", measureIdle}, {"pairs", measurePairs}, {"events", measureEvents}, {"profiles", measureProfiles}}
	var b strings.Builder
	writeHead(&b)
	for _, p := range parts {
		if o.only != "" && o.only != p.name {
			continue
		}
		s, err := p.f(o)
		if err != nil {
			return "", err
		}
		b.WriteString(s)
	}
	return b.String(), nil
}

func writeHead(b *strings.Builder) {
	var u unix.Utsname
	_ = unix.Uname(&u)
	fmt.Fprintf(b, `<!-- Written by `+"`make bench`"+`. Do not edit. -->
# What huatuo costs

Measured on Linux %s, %s, %d CPUs (%s), all probes on, with store and console, by `+"`make bench`"+` (test/bench).
Trust the ratios; absolute times are of this machine and its other work.

`, unix.ByteSliceToString(u.Release[:]), runtime.GOARCH, runtime.NumCPU(), cpuModel())
}

func cpuModel() string {
	data, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(v, "\t :"))
		}
	}
	return "unknown CPU"
}

// agent is a running agent.
type agent struct {
	cmd *exec.Cmd
	url string
	dir string
}

func start(o options, more ...string) (*agent, error) {
	dir, err := os.MkdirTemp("", "huatuo-bench-")
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	l.Close()
	a := &agent{url: "http://" + addr, dir: dir}
	args := []string{"--listen", addr, "--data", dir, "--log-level", "error", "--set", "budget.enforce=false", "--set", "profiles.enabled=false"}
	a.cmd = exec.Command(o.agent, append(args, more...)...)
	a.cmd.Stderr = os.Stderr
	if err := a.cmd.Start(); err != nil {
		return nil, err
	}
	for range 200 {
		if r, err := http.Get(a.url + "/readyz"); err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return a, nil
			}
		}
		time.Sleep(25 * time.Millisecond)
	}
	a.stop()
	return nil, fmt.Errorf("the agent is not ready after 5 s")
}

func (a *agent) stop() {
	a.cmd.Process.Signal(syscall.SIGTERM)
	a.cmd.Wait()
	os.RemoveAll(a.dir)
	time.Sleep(500 * time.Millisecond) // programs are detached asynchronously
}

func (a *agent) get(path string, into any) error {
	r, err := http.Get(a.url + path)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	return json.NewDecoder(r.Body).Decode(into)
}

// cpu returns the CPU time of the agent's process.
func (a *agent) cpu() (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", a.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	ut, _ := strconv.Atoi(f[11])
	st, _ := strconv.Atoi(f[12])
	return time.Duration(ut+st) * 10 * time.Millisecond, nil
}

func measureIdle(o options) (string, error) {
	log.Printf("idle agent, %v …", o.idle)
	a, err := start(o)
	if err != nil {
		return "", err
	}
	defer a.stop()
	time.Sleep(5 * time.Second) // past the start
	before, err := a.cpu()
	if err != nil {
		return "", err
	}
	time.Sleep(o.idle)
	after, err := a.cpu()
	if err != nil {
		return "", err
	}
	var sys struct {
		Cost struct {
			RSS   float64  `json:"rss_bytes"`
			BPF   *float64 `json:"bpf_seconds_per_second"`
			Start float64  `json:"start_seconds"`
		} `json:"cost"`
	}
	if err := a.get("/api/v1/system", &sys); err != nil {
		return "", err
	}
	bpf := "not counted"
	if sys.Cost.BPF != nil {
		bpf = fmt.Sprintf("%.3f %%", *sys.Cost.BPF*100)
	}
	st, err := os.Stat(o.agent)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(`## Idle

| what | measured | target |
|---|---|---|
| CPU of the agent, share of one core, over %v | %.3f %% | < 0.2 %% |
| CPU of its BPF programs, share of one core | %s | |
| resident memory | %.1f MB | < 80 MB |
| start to first stored sample | %.0f ms | < 1000 ms |
| size of the binary | %.1f MB | |

`, o.idle, 100*float64(after-before)/float64(o.idle), bpf, sys.Cost.RSS/1e6, sys.Cost.Start*1000, float64(st.Size())/1e6), nil
}

// load is one thing to run with and without the agent; it returns seconds per
// unit of work, whatever the unit.
type load struct {
	name    string
	command string // for the page
	target  string
	run     func() (float64, error)
}

func loads(dir string) []load {
	file := filepath.Join(dir, "fio.data")
	cpu := strconv.Itoa(runtime.NumCPU() - 1)
	return []load{
		{
			"pipe ping-pong on one CPU, the worst case: 2 switches and 2 wakeups per round",
			"chrt -f 10 taskset -c " + cpu + " perf bench -f simple sched pipe -l 60000", "≤ 1.10",
			func() (float64, error) {
				return seconds("chrt", "-f", "10", "taskset", "-c", cpu, "perf", "bench", "-f", "simple", "sched", "pipe", "-l", "60000")
			},
		}, {
			"hackbench, 2 groups of 5 pairs", "hackbench -g 2 -f 5 -l 2000", "",
			func() (float64, error) { return seconds("hackbench", "-g", "2", "-f", "5", "-l", "2000") },
		}, {
			"random reads of 4 KiB, O_DIRECT, 2 s", "fio --rw=randread --bs=4k --direct=1 --runtime=2 --time_based --size=64m", "",
			func() (float64, error) {
				out, err := exec.Command("fio", "--name=x", "--filename="+file, "--rw=randread", "--bs=4k", "--direct=1",
					"--runtime=2", "--time_based", "--size=64m", "--output-format=json").Output()
				if err != nil {
					return 0, fmt.Errorf("fio: %w", err)
				}
				var r struct {
					Jobs []struct{ Read struct{ IOPS float64 } }
				}
				if err := json.Unmarshal(out[strings.IndexByte(string(out), '{'):], &r); err != nil {
					return 0, fmt.Errorf("fio: %w", err)
				}
				return 1 / r.Jobs[0].Read.IOPS, nil
			},
		},
	}
}

// seconds runs a command and returns the last number it prints.
func seconds(name string, args ...string) (float64, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("%s: %w: %s", name, err, out)
	}
	f := strings.Fields(string(out))
	for _, s := range slices.Backward(f) {
		if v, err := strconv.ParseFloat(s, 64); err == nil {
			return v, nil
		}
	}
	return 0, fmt.Errorf("%s printed no number: %s", name, out)
}

func measurePairs(o options) (string, error) {
	dir, err := os.MkdirTemp("", "huatuo-bench-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	ls := loads(dir)
	ratios := make([][]float64, len(ls))
	for _, l := range ls { // warm caches, make the file
		if _, err := l.run(); err != nil {
			return "", err
		}
	}
	for i := range o.pairs {
		log.Printf("pair %d of %d …", i+1, o.pairs)
		off := make([]float64, len(ls))
		for j, l := range ls {
			if off[j], err = l.run(); err != nil {
				return "", err
			}
		}
		a, err := start(o)
		if err != nil {
			return "", err
		}
		for j, l := range ls {
			on, err := l.run()
			if err != nil {
				a.stop()
				return "", err
			}
			ratios[j] = append(ratios[j], on/off[j])
		}
		a.stop()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "## Loads with and without the agent\n\nTime per unit of work, on ÷ off, %d pairs: 1.00 means that the agent costs nothing.\n\n", o.pairs)
	b.WriteString("| load | command | median | quartiles | range | target |\n|---|---|---|---|---|---|\n")
	for j, l := range ls {
		r := ratios[j]
		slices.Sort(r)
		q := func(f float64) float64 { return r[int(f*float64(len(r)-1)+0.5)] }
		fmt.Fprintf(&b, "| %s | `%s` | ×%.3f | %.3f – %.3f | %.3f – %.3f | %s |\n", l.name, l.command, q(0.5), q(0.25), q(0.75), r[0], r[len(r)-1], l.target)
	}
	b.WriteByte('\n')
	return b.String(), nil
}
