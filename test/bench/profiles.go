package main

import (
	"fmt"
	"log"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// setting is a way to run the agent.
type setting struct {
	name string
	args []string
}

func set(types string) []string {
	return []string{"--set", "profiles.enabled=true", "--set", "profiles.types=" + types}
}

// settings are what is compared; the first is what the others are compared with.
func settings() []setting {
	return []setting{
		{"no profiles", []string{"--set", "profiles.enabled=false"}},
		{"time on CPUs alone, 19 Hz", set("cpu")},
		{"on-CPU, off-CPU and locks", set("cpu,offcpu.blocked,offcpu.runqueue,offcpu.io,lock.user,lock.user.contentions,lock.kernel,lock.kernel.contentions")},
		{"all types that are on by default", []string{"--set", "profiles.enabled=true"}},
	}
}

// settle waits until stacks are taken, if they are to be, and until the programs
// that run already have been read.
func (a *agent) settle() error {
	var types struct {
		Status struct{ State, Reason string }
	}
	for end := time.Now().Add(2 * time.Minute); !slices.Contains([]string{"running", "degraded", "disabled"}, types.Status.State); time.Sleep(time.Second) {
		if err := a.get("/api/v1/profiles/types", &types); err != nil {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("profiling is %s: %s", types.Status.State, types.Status.Reason)
		}
	}
	time.Sleep(20 * time.Second)
	return nil
}

// measureProfiles measures what profiling costs beside the rest of the agent.
func measureProfiles(o options) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "## Profiling\n\nThe agent with profiles on and off. CPU is that of its process and its BPF programs together, of all %d CPUs; BPF maps are memory of the kernel.\n\n", runtime.NumCPU())
	for _, part := range []struct {
		title string
		load  func() (stop func(), err error)
	}{{"idle", nothing}, {"busy: hackbench without end, and a compiler's churn of processes", churn}} {
		s, err := compare(o, part.title, part.load)
		if err != nil {
			return "", err
		}
		b.WriteString(s)
	}
	s, err := measureSamples(o)
	return b.String() + s, err
}

// cost is what an agent took in a while.
type cost struct{ process, bpf, rss, maps float64 }

// compare runs each setting under a load, one after the other, several times.
func compare(o options, title string, load func() (func(), error)) (string, error) {
	all := make([][]cost, len(settings()))
	rounds := max(1, o.pairs/4)
	for i := range rounds {
		for j, s := range settings() {
			log.Printf("profiles, %s, %s, round %d of %d …", title, s.name, i+1, rounds)
			c, err := costOf(o, s, load)
			if err != nil {
				return "", err
			}
			all[j] = append(all[j], c)
		}
	}
	median := func(j int, f func(cost) float64) float64 {
		var v []float64
		for _, c := range all[j] {
			v = append(v, f(c))
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	total := func(c cost) float64 { return c.process + c.bpf }
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\nMedian of %d rounds of %v.\n\n", strings.ToUpper(title[:1])+title[1:], rounds, o.idle)
	b.WriteString("| | CPU, share of the machine | of it BPF | more than without | resident memory | BPF maps |\n|---|---|---|---|---|---|\n")
	for j, s := range settings() {
		more := "–"
		if j > 0 {
			more = fmt.Sprintf("%.3f %%", 100*(median(j, total)-median(0, total)))
		}
		fmt.Fprintf(&b, "| %s | %.3f %% | %.3f %% | %s | %.1f MB | %.1f MB |\n", s.name, 100*median(j, total),
			100*median(j, func(c cost) float64 { return c.bpf }), more,
			median(j, func(c cost) float64 { return c.rss })/1e6, median(j, func(c cost) float64 { return c.maps })/1e6)
	}
	b.WriteByte('\n')
	return b.String(), nil
}

// costOf runs the agent in one setting under a load.
func costOf(o options, s setting, load func() (func(), error)) (c cost, err error) {
	a, err := start(o, s.args...)
	if err != nil {
		return c, err
	}
	defer a.stop()
	stop, err := load()
	if err != nil {
		return c, err
	}
	defer stop()
	if err := a.settle(); err != nil {
		return c, err
	}
	enabled, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		return c, fmt.Errorf("count BPF run time: %w", err)
	}
	defer enabled.Close()
	own, err := a.ownPrograms()
	if err != nil {
		return c, err
	}
	before, began := readStats(own), time.Now()
	cpu, err := a.cpu()
	if err != nil {
		return c, err
	}
	time.Sleep(o.idle)
	after, err := a.cpu()
	if err != nil {
		return c, err
	}
	took := time.Since(began).Seconds() * float64(runtime.NumCPU())
	c.process = (after - cpu).Seconds() / took
	for i, st := range readStats(own) {
		c.bpf += (st.time - before[i].time).Seconds() / took
	}
	c.rss, err = a.resident()
	c.maps = a.mapBytes()
	return c, err
}

// ownPrograms lists all BPF programs that the agent has, by its descriptors;
// those of probes and those of profiling.
func (a *agent) ownPrograms() (out []program, err error) {
	err = a.eachFDInfo(func(f map[string]string) {
		if id, err := strconv.ParseUint(f["prog_id"], 10, 32); err == nil {
			out = append(out, program{id: ebpf.ProgramID(id)})
		}
	})
	slices.SortFunc(out, func(x, y program) int { return int(x.id) - int(y.id) })
	return slices.CompactFunc(out, func(x, y program) bool { return x.id == y.id }), err
}

// profilingPrograms lists those that belong to no probe.
func (a *agent) profilingPrograms() ([]program, error) {
	probes, err := a.programs()
	if err != nil {
		return nil, err
	}
	own, err := a.ownPrograms()
	return slices.DeleteFunc(own, func(p program) bool {
		return slices.ContainsFunc(probes, func(q program) bool { return q.id == p.id })
	}), err
}

func (a *agent) eachFDInfo(f func(map[string]string)) error {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fdinfo/*", a.cmd.Process.Pid))
	if err != nil {
		return err
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // closed meanwhile
		}
		m := map[string]string{}
		for line := range strings.Lines(string(b)) {
			k, v, _ := strings.Cut(line, ":")
			m[k] = strings.TrimSpace(v)
		}
		f(m)
	}
	return nil
}

// mapBytes sums the maps that the agent has descriptors of.
func (a *agent) mapBytes() (sum float64) {
	seen := map[string]bool{}
	_ = a.eachFDInfo(func(f map[string]string) {
		if id := f["map_id"]; id != "" && !seen[id] {
			seen[id] = true
			n, _ := strconv.ParseFloat(f["memlock"], 64)
			sum += n
		}
	})
	return sum
}

func (a *agent) resident() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", a.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseFloat(strings.Fields(string(b))[1], 64)
	return pages * float64(os.Getpagesize()), err
}

func nothing() (func(), error) { return func() {}, nil }

// churn keeps the machine busy: many switches, and many short processes.
func churn() (func(), error) {
	c := exec.Command("sh", "-c", `trap 'kill $!; exit' TERM
while :; do hackbench -g 1 -f 5 -l 500 >/dev/null; for i in 1 2 3 4 5 6 7 8 9 10; do sh -c 'ls -lR /usr/include >/dev/null'; done; done`)
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		return nil, err
	}
	return func() {
		unix.Kill(-c.Process.Pid, unix.SIGKILL)
		c.Wait()
	}, nil
}

// measureSamples measures what one stack costs in the kernel, of each type alone.
func measureSamples(o options) (string, error) {
	var b strings.Builder
	b.WriteString("### Per stack\n\nTime in BPF programs of profiling, with one type on, under the same load, by the stacks that were taken; " +
		"looking at events of which none is taken is in it.\n\n| type | stacks per second | BPF time per stack | share of the machine |\n|---|---|---|---|\n")
	for _, typ := range []string{"cpu", "offcpu.blocked", "offcpu.runqueue", "offcpu.io", "lock.user", "lock.kernel", "io.file", "io.block", "mem.fault"} {
		log.Printf("profiles, stacks of %s …", typ)
		row, err := samplesOf(o, typ)
		if err != nil {
			return "", err
		}
		b.WriteString(row)
	}
	b.WriteByte('\n')
	return b.String(), nil
}

func samplesOf(o options, typ string) (string, error) {
	a, err := start(o, set(typ)...)
	if err != nil {
		return "", err
	}
	defer a.stop()
	stop, err := churn()
	if err != nil {
		return "", err
	}
	defer stop()
	if err := a.settle(); err != nil {
		return "", err
	}
	progs, err := a.profilingPrograms()
	if err != nil {
		return "", err
	}
	enabled, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		return "", fmt.Errorf("count BPF run time: %w", err)
	}
	defer enabled.Close()
	before, from := readStats(progs), time.Now()
	time.Sleep(15 * time.Second)
	after, to := readStats(progs), time.Now()
	var spent time.Duration
	for i := range progs {
		spent += after[i].time - before[i].time
	}
	time.Sleep(10 * time.Second) // until all of them have names and are kept
	var got struct{ Series []struct{ Samples int64 } }
	q := url.Values{"type": {typ}, "by": {"process"}, "from": {stamp(from)}, "to": {stamp(to)}}
	if err := a.get("/api/v1/profiles/series?"+q.Encode(), &got); err != nil {
		return "", err
	}
	var n int64
	for _, s := range got.Series {
		n += s.Samples
	}
	took := to.Sub(from)
	per := "–"
	if n > 0 {
		per = fmt.Sprintf("%.1f µs", float64(spent)/float64(n)/1e3)
	}
	return fmt.Sprintf("| %s | %.1f | %s | %.3f %% |\n", typ, float64(n)/took.Seconds(), per, 100*float64(spent)/float64(took)/float64(runtime.NumCPU())), nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
