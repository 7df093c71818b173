package checkup

import (
	"cmp"
	"fmt"
	"slices"

	"huatuo/internal/diagnose/window"
	"huatuo/internal/signal"
)

const (
	culpritMetric = "huatuo_container_runqueue_culprit_seconds_total"
	waitMetric    = "huatuo_container_runqueue_wait_seconds"
	// leastWaits is below how many waits a percentile of them means nothing.
	leastWaits = 100
)

func cpuRules() []Rule {
	return []Rule{
		{
			Name: "cpu_wait", Area: signal.AreaSched,
			What:      "time that tasks wait for a CPU (p99), how many wait, and how busy the CPUs are",
			Threshold: "10 ms warns: three of the scheduler's slices, which users of a service notice; so does one task waiting for each CPU at all times: everything takes twice as long. Ten times that is critical",
			Next:      "See `huatuo top` for who has the CPUs; limit or move the culprit, or give the machine more CPUs.",
			Metrics:   []string{"huatuo_runqueue_wait_seconds", "huatuo_cpu_seconds_total"},
			check:     checkCPUWait,
		},
		{
			Name: "workload_wait", Area: signal.AreaSched,
			What:      "time that a workload's tasks wait for a CPU, and who has it meanwhile",
			Threshold: "half a task waiting at all times, and 10 ms for one wait in a hundred: below that it costs less than a tenth of what the workload does",
			Next:      "See `huatuo top --sort wait`; give the culprit a CPU limit or a smaller weight, or set them on different CPUs.",
			Metrics:   []string{waitMetric}, Nothing: "no workload waited",
			check: checkWorkloadWait,
		},
		{
			Name: "cpu_throttling", Area: signal.AreaCPU,
			What:      "periods in which a workload used up its CPU quota and was stopped",
			Threshold: "a tenth of its periods: requests then wait up to 100 ms for the next one",
			Next:      "Raise its CPU limit (cpu.max, resources.limits.cpu), or run fewer threads.",
			Metrics:   []string{"huatuo_container_cpu_periods_total", "huatuo_container_cpu_throttled_periods_total"}, Nothing: "no workload has a CPU limit",
			check: checkThrottling,
		},
		{
			Name: "cpu_steal", Area: signal.AreaCPU,
			What:      "share of the time in which this virtual machine wanted a CPU and the hypervisor ran others",
			Threshold: "5 % warns: it is felt as jitter; 20 % is critical: a fifth of the machine is not there",
			Next:      "The host of this virtual machine is overcommitted: move the machine, or take one with dedicated CPUs.",
			Metrics:   []string{"huatuo_cpu_seconds_total"},
			check: func(f *Facts) verdict {
				total, _ := f.cpuTime()
				share := f.Sum("huatuo_cpu_seconds_total", "mode=steal") / max(total, 1e-9)
				return one(share, 0.05, 0.2, fmt.Sprintf("The hypervisor kept %s of the CPU time for others.", Percent(share)))
			},
		},
		{
			Name: "softirq_wait", Area: signal.AreaCPU,
			What:      "time from raising a softirq to running it (p99)",
			Threshold: "10 ms: packets and timers come that late",
			Next:      "Look at softirq_stall and tick_gap events for what kept the CPU: `huatuo watch softirq_stall tick_gap --stacks`.",
			Metrics:   []string{"huatuo_softirq_wait_seconds"},
			check: func(f *Facts) verdict {
				h := f.Hist("huatuo_softirq_wait_seconds")
				if h == nil || h.Count < leastWaits {
					return verdict{fine: "hardly any softirq ran"}
				}
				p99 := window.Quantile(h, 0.99)
				return one(p99, 0.01, 0.1, fmt.Sprintf("Of 100 softirqs 99 ran within %s.", Seconds(p99)))
			},
		},
	}
}

// cpuTime returns all CPU time, and that which was used. Guests are in user.
func (f *Facts) cpuTime() (total, busy float64) {
	for _, m := range f.By("huatuo_cpu_seconds_total", "mode") {
		switch m.Name {
		case "guest", "guest_nice":
			continue
		case "idle", "iowait":
		default:
			busy += m.Value
		}
		total += m.Value
	}
	return total, busy
}

func checkCPUWait(f *Facts) verdict {
	h := f.Hist("huatuo_runqueue_wait_seconds")
	if h == nil || h.Count < leastWaits {
		return verdict{fine: "hardly any task waited for a CPU"}
	}
	total, busy := f.cpuTime()
	p99 := window.Quantile(h, 0.99)
	s := fmt.Sprintf("Of 100 waits for a CPU 99 were over within %s; %s waited on average, and the CPUs were busy for %s of the time.",
		Seconds(p99), many(h.Sum/f.Seconds, "task"), Percent(busy/max(total, 1e-9)))
	return one(max(p99/0.01, h.Sum/f.Seconds/float64(max(f.CPUs, 1))), 1, 10, s)
}

func checkWorkloadWait(f *Facts) verdict {
	var v verdict
	var worst float64
	for _, s := range f.Series(waitMetric) {
		if s.Hist == nil || s.Workload.Container == other {
			continue
		}
		rate := s.Hist.Sum / f.Seconds
		worst = max(worst, rate)
		p99 := window.Quantile(s.Hist, 0.99)
		if p99 < 0.01 || s.Hist.Count < leastWaits/4 {
			continue
		}
		x, bad := judge(rate, 0.5, 0)
		if !bad {
			continue
		}
		x.Sentence = fmt.Sprintf("On average %s of it waited for a CPU, one wait in a hundred for %s or longer", many(rate, "task"), Seconds(p99))
		who, kind := f.culprits(s.Workload)
		x.Sentence += who + "."
		switch kind {
		case signal.PeerSelf:
			x.Next = "It has more tasks that can run than CPUs for them: run fewer threads, or give it more CPUs."
		case "quota":
			x.Next = "It waits for its own quota: raise its CPU limit, or run fewer threads."
		}
		v.findings = append(v.findings, about(x, s.Workload))
	}
	v.fine = fmt.Sprintf("the workload that waited most had %s waiting on average", many(worst, "task"))
	return v
}

// other is what workloads without a name of their own are called.
const other = "other"

// culprits tells who had the CPU while a workload waited, for the most part, and
// of what kind the first of them is.
func (f *Facts) culprits(victim window.Workload) (text, kind string) {
	var all []window.Series
	var sum float64
	for _, s := range f.Series(culpritMetric) {
		if s.Workload == victim && s.Value > 0 {
			all = append(all, s)
			sum += s.Value
		}
	}
	if sum == 0 {
		return "", ""
	}
	slices.SortFunc(all, func(a, b window.Series) int { return cmp.Compare(b.Value, a.Value) })
	text = "; meanwhile the CPU was with"
	for i, s := range all[:min(2, len(all))] {
		if i > 0 {
			text += ","
		}
		text += fmt.Sprintf(" %s for %s", Culprit(&s), Percent(s.Value/sum))
		if s.Note != "" {
			text += fmt.Sprintf(" (%s)", s.Note)
		}
	}
	return text, all[0].Label("culprit")
}

// Culprit returns what to call the culprit of a series of the culprit metric.
func Culprit(s *window.Series) string {
	switch kind := s.Label("culprit"); kind {
	case signal.PeerWorkload:
		return window.Workload{Namespace: s.Label("culprit_namespace"), Pod: s.Label("culprit_pod"),
			Container: s.Label("culprit_container"), Unit: s.Label("culprit_unit")}.String()
	case signal.PeerSelf:
		return "itself"
	case "quota":
		return "nobody, its quota being used up,"
	case "idle":
		return "nobody"
	default:
		return kind
	}
}

func checkThrottling(f *Facts) verdict {
	periods := map[window.Workload]float64{}
	for _, s := range f.Series("huatuo_container_cpu_periods_total") {
		periods[s.Workload] = s.Value
	}
	limits := map[window.Workload]float64{}
	for _, s := range f.Series("huatuo_container_cpu_limit_cores") {
		limits[s.Workload] = s.Value
	}
	var v verdict
	var worst float64
	for _, s := range f.Series("huatuo_container_cpu_throttled_periods_total") {
		n := periods[s.Workload]
		if n < 10 { // a second
			continue
		}
		share := s.Value / n
		worst = max(worst, share)
		x, bad := judge(share, 0.1, 0)
		if !bad {
			continue
		}
		x.Sentence = fmt.Sprintf("It was stopped in %s of its periods (%s of %s) because its quota was used up", Percent(share), number(s.Value), number(n))
		if limit := limits[s.Workload]; limit > 0 {
			x.Sentence += fmt.Sprintf("; its limit is %s", many(limit, "CPU"))
		}
		x.Sentence += "."
		v.findings = append(v.findings, about(x, s.Workload))
	}
	v.fine = fmt.Sprintf("no workload was stopped in more than %s of its periods", Percent(worst))
	return v
}
