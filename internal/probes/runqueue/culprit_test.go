package runqueue

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/kern/load"
	"huatuo/internal/probes/probetest"
	"huatuo/internal/signal"
)

const ms = uint64(time.Millisecond)

// series of one round, by victim and who: the culprit's cgroup, or a relation.
func series(t *testing.T, bs *blames, now time.Time, table ...entry) map[string]float64 {
	t.Helper()
	bs.update(now, table)
	var b signal.Batch
	bs.collect(&b)
	out := map[string]float64{}
	for _, s := range b.Samples {
		who := fmt.Sprint(s.Peer)
		if s.Peer == 0 {
			who = s.Labels[0]
		}
		key := fmt.Sprint(s.CgroupID, "<", who)
		if _, twice := out[key]; twice {
			t.Errorf("%s is given twice", key)
		}
		out[key] = s.Value
	}
	return out
}

func of(victim, culprit, ns uint64) entry {
	return entry{bpfPair{Victim: victim, Culprit: culprit}, bpfBlame{Ns: ns}}
}

// TestBlames: the largest pairs have series of their own, which begin at zero;
// the rest of each victim is one.
func TestBlames(t *testing.T) {
	bs := newBlames(2)
	now := time.Unix(1000, 0)
	table := []entry{of(1, 7, 500*ms), of(1, idle, 100*ms), of(1, 8, 40*ms), of(2, quota, 900*ms), of(2, unknown, 10*ms)}
	got := series(t, bs, now, table...)
	want := map[string]float64{"1<7": 0, "2<quota": 0, "1<other": 0, "2<other": 0}
	check := func() {
		t.Helper()
		if len(got) != len(want) {
			t.Errorf("series %v, want %v", got, want)
		}
		for k, v := range want {
			if math.Abs(got[k]-v) > 1e-9 {
				t.Errorf("%s is %v, want %v", k, got[k], v)
			}
		}
	}
	check()
	table[0].Ns += 20 * ms
	got = series(t, bs, now.Add(5*time.Second), table...)
	want = map[string]float64{"1<7": 0.52, "2<quota": 0.9, "1<other": 0.14, "2<other": 0.01}
	check()
	// What the kernel forgot and begins anew adds up.
	table[0].Ns = 3 * ms
	got = series(t, bs, now.Add(10*time.Second), table[0], table[3])
	want["1<7"] = 0.523
	check()
	// A newcomer that grows faster waits until somebody has been in for long enough.
	table[4] = of(2, 9, 5000*ms)
	got = series(t, bs, now.Add(15*time.Second), table[0], table[3], table[4])
	want["2<other"] = 5.01
	check()
	table[4].Ns += 5000 * ms
	got = series(t, bs, now.Add(minStay), table[0], table[3], table[4])
	delete(want, "1<7") // the weaker one of the two
	want["2<9"] = 0
	check()
	got = series(t, bs, now.Add(minStay+5*time.Second), table[0], table[3], table[4])
	want["2<9"] = 5
	check()
	got = series(t, bs, now.Add(minStay+3*silence), table[3], table[4])
	delete(want, "1<other")
	delete(want, "2<other")
	check()
}

// TestBlamesNoise: groups that come and go fill no place, and not for long.
func TestBlamesNoise(t *testing.T) {
	bs := newBlames(1)
	now := time.Unix(1000, 0)
	got := series(t, bs, now, of(1, 7, 9*ms))
	if _, own := got["1<7"]; own {
		t.Errorf("noise has a series: %v", got)
	}
	got = series(t, bs, now.Add(5*time.Second), of(1, 7, 30*ms))
	if _, own := got["1<7"]; !own {
		t.Errorf("what grows has none: %v", got)
	}
	got = series(t, bs, now.Add(10*time.Second), of(1, 7, 30*ms), of(2, 8, 9000*ms))
	if _, own := got["2<8"]; !own {
		t.Errorf("what is far larger waits: %v", got)
	}
}

// TestBlamesConserve runs random pairs through many rounds: the series are
// bounded, none falls, and together they have all that the kernel counted.
func TestBlamesConserve(t *testing.T) {
	const top, victims, rounds = 10, 6, 3000
	rnd := rand.New(rand.NewPCG(1, 2))
	bs := newBlames(top)
	now := time.Unix(1000, 0)
	table := map[bpfPair]uint64{}
	last := map[string]float64{}
	var counted uint64
	round := func() {
		now = now.Add(5 * time.Second)
		var list []entry
		for p, ns := range table {
			list = append(list, of(p.Victim, p.Culprit, ns))
		}
		got := series(t, bs, now, list...)
		if len(got) > top+victims {
			t.Fatalf("%d series", len(got))
		}
		for k, v := range got {
			if v < last[k] {
				t.Fatalf("%s falls from %v to %v", k, last[k], v)
			}
			last[k] = v
		}
	}
	for i := range rounds {
		for range 20 {
			p := bpfPair{Victim: 1 + rnd.Uint64N(victims), Culprit: 10 + (rnd.Uint64N(30)+uint64(i/200))%30}
			ns := rnd.Uint64N(50*ms) / (1 + p.Culprit%7)
			table[p] += ns
			counted += ns
		}
		round()
	}
	round() // what was held back
	var sum float64
	for _, v := range last {
		sum += v
	}
	if want := float64(counted) / 1e9; math.Abs(sum-want) > 1e-6*want {
		t.Errorf("the series have %v s, the kernel counted %v s", sum, want)
	}
}

// charged sums what the kernel's table has, by culprit, for one victim.
func charged(samples []signal.Sample, victim uint64) (byWho map[string]float64, comm map[string]string) {
	byWho, comm = map[string]float64{}, map[string]string{}
	for _, s := range samples {
		if s.Schema != culprit || s.CgroupID != victim {
			continue
		}
		who := fmt.Sprint(s.Peer)
		if s.Peer == 0 {
			who = s.Labels[0]
		}
		byWho[who] += s.Value
		comm[who] = s.Note
	}
	return byWho, comm
}

func waits(samples []signal.Sample, victim uint64) float64 {
	for _, s := range samples {
		if s.Schema == containerWait && s.CgroupID == victim {
			return s.Hist.Sum
		}
	}
	return 0
}

// until gathers until ok, for 20 s at most, and returns the last round.
func until(t *testing.T, env *probetest.Env, what string, ok func([]signal.Sample) bool) []signal.Sample {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		s := env.Gather()
		if ok(s) {
			return s
		}
		if time.Now().After(end) {
			t.Fatalf("%s: not after 20 s", what)
		}
	}
}

// start runs a shell script in a cgroup, on some CPUs, until stop or the test's end.
func start(t *testing.T, cg *probetest.Cgroup, cpus, script string) (pid int, stop func()) {
	t.Helper()
	// It joins before it does anything: else its first turns are the parent's.
	c := exec.Command("sh", "-c", "read go; exec taskset -c "+cpus+" sh -c '"+script+"'")
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() { c.Process.Kill(); c.Wait() })
	t.Cleanup(stop)
	cg.Add(t, c.Process.Pid)
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	return c.Process.Pid, stop
}

// settled stops what ran, and gathers what it has waited: a round reads one map
// after the other, and the second has what the first held back.
func settled(env *probetest.Env, stop ...func()) []signal.Sample {
	for _, f := range stop {
		f()
	}
	env.Gather()
	return env.Gather()
}

const (
	spin  = "while :; do :; done"
	sleep = "while :; do sleep 0.002; i=0; while [ $i -lt 3000 ]; do i=$((i+1)); done; done"
)

func cgroupFor(t *testing.T, name string) *probetest.Cgroup {
	return probetest.NewCgroup(t, fmt.Sprintf("huatuo-test-%s-%d", name, os.Getpid()))
}

// TestKernelCulprit puts one who sleeps and one who spins on one CPU: the first
// waits for the second, and the kernel's table says so.
func TestKernelCulprit(t *testing.T) {
	probetest.Rungs(t, func(t *testing.T, o load.Options) {
		env := probetest.NewKernel(t, o)
		env.Start(Spec(), nil)
		victim, hog := cgroupFor(t, "victim"), cgroupFor(t, "hog")
		_, stopHog := start(t, hog, "0", spin)
		_, stopVictim := start(t, victim, "0", sleep)
		who := fmt.Sprint(hog.ID)
		until(t, env, "half a second of waiting", func(s []signal.Sample) bool {
			by, _ := charged(s, victim.ID)
			return by[who] > 0.5
		})
		s := settled(env, stopVictim, stopHog)
		by, comm := charged(s, victim.ID)
		sum := waits(s, victim.ID)
		t.Logf("waited %.3f s, charged %v, names %q", sum, by, comm)
		all := total(by)
		if all > 1.02*sum || all < 0.8*sum {
			t.Errorf("%.3f s are charged of %.3f s of waiting", all, sum)
		}
		// What else runs on this machine has its part; the rest is the hog's.
		if rest := sum - (all - by[who]); by[who] < 0.8*rest || by[who] > 1.2*rest {
			t.Errorf("the hog is charged %.3f s of %.3f s", by[who], rest)
		}
		if comm[who] != "sh" {
			t.Errorf("top command %q", comm[who])
		}
	})
}

// TestKernelQuota throttles one who spins: that is its own limit, and no
// neighbour's doing, although one runs meanwhile.
func TestKernelQuota(t *testing.T) {
	probetest.Rungs(t, func(t *testing.T, o load.Options) {
		env := probetest.NewKernel(t, o)
		env.Start(Spec(), nil)
		victim, hog := cgroupFor(t, "throttled"), cgroupFor(t, "hog")
		limit(t, victim, 10)
		_, stopHog := start(t, hog, "0", spin)
		_, stopVictim := start(t, victim, "0", spin)
		until(t, env, "a second of throttling", func(s []signal.Sample) bool {
			by, _ := charged(s, victim.ID)
			return by["quota"] > 1
		})
		s := settled(env, stopVictim, stopHog)
		by, _ := charged(s, victim.ID)
		sum := waits(s, victim.ID)
		t.Logf("waited %.3f s, charged %v", sum, by)
		// What else runs on this machine has its part.
		if rest := sum - (total(by) - by["quota"] - by[fmt.Sprint(hog.ID)]); by["quota"] < 0.5*rest {
			t.Errorf("quota is charged %.3f s of %.3f s", by["quota"], rest)
		}
		// While it has quota it shares the CPU with the neighbour, in turns of equal length.
		if n := by[fmt.Sprint(hog.ID)]; n > 0.4*sum {
			t.Errorf("the neighbour is charged %.3f s of %.3f s", n, sum)
		}
	})
}

// limit gives the cgroup that many percent of a CPU.
func limit(t *testing.T, cg *probetest.Cgroup, percent int) {
	t.Helper()
	dir := cg.Dir("cpu")
	name, value := "cpu.cfs_quota_us", fmt.Sprint(percent*1000)
	if !probetest.OnV1() {
		name, value = "cpu.max", fmt.Sprint(percent*1000, " 100000")
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0); err != nil {
		t.Skipf("needs the cpu controller in %s: %v", dir, err)
	}
}

// TestKernelMove has a waiting task go to another CPU, where it runs at once:
// charged is who had the CPU on which it waited.
func TestKernelMove(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("needs two CPUs")
	}
	probetest.Rungs(t, func(t *testing.T, o load.Options) {
		env := probetest.NewKernel(t, o)
		env.Start(Spec(), nil)
		victim, hog := cgroupFor(t, "mover"), cgroupFor(t, "hog")
		lightest(t, victim)
		_, stopHog := start(t, hog, "0", spin)
		pid, stopVictim := start(t, victim, "1", spin)
		who := fmt.Sprint(hog.ID)
		run := func(cpu int) {
			var set unix.CPUSet
			set.Set(cpu)
			if err := unix.SchedSetaffinity(pid, &set); err != nil {
				t.Fatal(err)
			}
		}
		until(t, env, "half a second of waiting", func(s []signal.Sample) bool {
			run(0)
			time.Sleep(50 * time.Millisecond) // here it waits
			run(1)
			time.Sleep(time.Millisecond) // here it runs
			by, _ := charged(s, victim.ID)
			return by[who] > 0.5
		})
		s := settled(env, stopHog, stopVictim)
		by, _ := charged(s, victim.ID)
		sum := waits(s, victim.ID)
		t.Logf("waited %.3f s, charged %v", sum, by)
		// What else runs on these CPUs has its part; neither idle CPUs nor the victim itself have one to speak of.
		if all := total(by); all > 1.05*sum {
			t.Errorf("%.3f s are charged of %.3f s of waiting", all, sum)
		}
		if by["idle"]+by[fmt.Sprint(victim.ID)] > 0.1*sum {
			t.Errorf("charged to nobody or itself: %v", by)
		}
	})
}

func total(by map[string]float64) (sum float64) {
	for _, v := range by {
		sum += v
	}
	return sum
}

// lightest gives the cgroup as little of a busy CPU as there is.
func lightest(t *testing.T, cg *probetest.Cgroup) {
	t.Helper()
	dir := cg.Dir("cpu")
	name, value := "cpu.shares", "2"
	if !probetest.OnV1() {
		name, value = "cpu.weight", "1"
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0); err != nil {
		t.Skipf("needs the cpu controller in %s: %v", dir, err)
	}
}
