package checkup

import (
	"fmt"

	"huatuo/internal/diagnose/window"
	"huatuo/internal/signal"
)

func memoryRules() []Rule {
	return append(shortageRules(), reclaimRules()...)
}

// shortageRules are about memory that is used up, or nearly.
func shortageRules() []Rule {
	return []Rule{
		{
			Name: "oom_kill", Area: signal.AreaMemory,
			What:      "processes killed because memory was used up",
			Threshold: "any: something died",
			Next:      "Raise the limit of the workload, or find what grew: the event has the processes by size (`huatuo watch oom_kill`).",
			Metrics:   []string{"huatuo_oom_kills_total"}, Nothing: "no process was killed for memory", Kinds: []string{"oom_kill"},
			check: checkOOM,
		},
		{
			Name: "memory_available", Area: signal.AreaMemory,
			What:      "memory that is left",
			Threshold: "5 % of it warns, 2 % is critical: reclaim then takes what is needed again at once",
			Next:      "Find who grew (`huatuo top --sort memory`); add memory, or set limits.",
			Metrics:   []string{"huatuo_memory_available_bytes", "huatuo_memory_total_bytes"},
			check: func(f *Facts) verdict {
				left, all := f.Max("huatuo_memory_available_bytes"), f.Max("huatuo_memory_total_bytes")
				share := left / max(all, 1)
				return one(0.05/max(share, 1e-9), 1, 2.5, fmt.Sprintf("%s of %s are available (%s).", Bytes(left), Bytes(all), Percent(share)))
			},
		},
		{
			Name: "memory_limit", Area: signal.AreaMemory,
			What:      "memory of a workload that cannot be dropped easily, against its limit",
			Threshold: "90 % of the limit: what the kubelet evicts by, and near to an OOM kill",
			Next:      "Raise its limit before it is killed, or find what grows: compare huatuo_container_memory_anon_bytes over hours.",
			Metrics:   []string{"huatuo_container_memory_working_set_bytes", "huatuo_container_memory_limit_bytes"}, Nothing: "no workload has a memory limit",
			check: checkMemoryLimit,
		},
	}
}

// reclaimRules are about what the shortage costs.
func reclaimRules() []Rule {
	return []Rule{
		{
			Name: "memory_pressure", Area: signal.AreaMemory,
			What:      "share of the time in which tasks stood still for want of memory (PSI)",
			Threshold: "10 % of the time for some task warns; 10 % for all of them is critical: that time is lost for everybody",
			Next:      "Find who grows (`huatuo top --sort memory`); lower its limit or add memory.",
			Metrics:   []string{"huatuo_pressure_stall_seconds_total"},
			check:     checkMemoryPressure,
		},
		{
			Name: "workload_pressure", Area: signal.AreaMemory,
			What:      "share of the time in which all tasks of a workload stood still for want of memory (PSI)",
			Threshold: "10 %: that much of its time is lost",
			Next:      "It is at its limit, or the host is: raise memory.max or memory.high, or make it use less.",
			Metrics:   []string{"huatuo_container_pressure_stall_seconds_total"}, Nothing: "no workload has files of pressure (cgroup v2 has them)",
			check: checkWorkloadPressure,
		},
		{
			Name: "direct_reclaim", Area: signal.AreaMemory,
			What:      "time that tasks spend to reclaim memory themselves, because the host has none",
			Threshold: "a tenth of a task at all times: allocation stalls are then felt",
			Next:      "The host is short of memory: add some, set limits, or raise vm.watermark_scale_factor so that kswapd begins earlier.",
			Metrics:   []string{"huatuo_reclaim_seconds"}, Nothing: "nobody had to reclaim memory",
			check: checkReclaim,
		},
		{
			Name: "swapping", Area: signal.AreaMemory,
			What:      "pages that had to be read back from swap",
			Threshold: "100 a second: each makes a task wait for a disk",
			Next:      "Memory is overcommitted: find who is swapped out (huatuo_container_memory_swap_bytes) and give it memory.",
			Metrics:   []string{"huatuo_vmstat_pswpin_total"},
			check: func(f *Facts) verdict {
				rate := f.Rate("huatuo_vmstat_pswpin_total")
				return one(rate, 100, 0, fmt.Sprintf("%s a second were read back from swap.", many(rate, "page")))
			},
		},
	}
}

func checkMemoryPressure(f *Facts) verdict {
	some := f.Rate("huatuo_pressure_stall_seconds_total", "resource=memory", "kind=some")
	full := f.Rate("huatuo_pressure_stall_seconds_total", "resource=memory", "kind=full")
	v := one(some, 0.1, 0, fmt.Sprintf("For %s of the time a task stood still for want of memory, for %s of it all did.", Percent(some), Percent(full)))
	if full >= 0.1 && len(v.findings) > 0 {
		v.findings[0].Severity = signal.Critical
	}
	return v
}

func checkWorkloadPressure(f *Facts) verdict {
	measure := func(s *window.Series) (float64, float64, string) {
		share := s.Value / f.Seconds
		return share, 0.1, fmt.Sprintf("All of its tasks stood still for want of memory for %s of the time.", Percent(share))
	}
	return f.perWorkload("huatuo_container_pressure_stall_seconds_total", []string{"resource=memory", "kind=full"}, measure,
		"no workload stood still for want of memory for more than %s of the time")
}

func checkReclaim(f *Facts) verdict {
	h := f.Hist("huatuo_reclaim_seconds", "kind=direct")
	if h == nil {
		return verdict{fine: "nobody had to reclaim memory for the host"}
	}
	tasks := h.Sum / f.Seconds
	return one(tasks, 0.1, 1, fmt.Sprintf("%s reclaimed memory at any time, in turns of which one in a hundred took %s or longer.",
		many(tasks, "task"), Seconds(window.Quantile(h, 0.99))))
}

func checkOOM(f *Facts) verdict {
	var v verdict
	kills := f.Sum("huatuo_oom_kills_total")
	by := map[string][]*signal.Document{}
	var order []string
	for _, d := range f.of("oom_kill") {
		who := window.Of(d.Container).String()
		if by[who] == nil {
			order = append(order, who)
		}
		by[who] = append(by[who], d)
	}
	for _, who := range order {
		v.findings = append(v.findings, tell(by[who], signal.Critical))
	}
	if kills > 0 && len(v.findings) == 0 {
		v.findings = append(v.findings, Finding{Severity: signal.Critical, Excess: kills, Sentence: fmt.Sprintf("%s killed for memory.", many(kills, "process"))})
	}
	v.fine = "no process was killed for memory"
	return v
}

func checkMemoryLimit(f *Facts) verdict {
	limits := map[window.Workload]float64{}
	for _, s := range f.Series("huatuo_container_memory_limit_bytes") {
		limits[s.Workload] = s.Value
	}
	return f.perWorkload("huatuo_container_memory_working_set_bytes", nil, func(s *window.Series) (float64, float64, string) {
		limit := limits[s.Workload]
		if limit <= 0 {
			return 0, 0, ""
		}
		return s.Value / limit, 0.9, fmt.Sprintf("It holds %s of the %s that it may have (%s).", Bytes(s.Value), Bytes(limit), Percent(s.Value/limit))
	}, "no workload holds more than %s of its limit")
}

// perWorkload holds every workload to a threshold. measure returns a share, the
// threshold for it (0: leave it out) and the sentence; fine has a place for the
// largest share.
func (f *Facts) perWorkload(metric string, want []string, measure func(*window.Series) (value, warn float64, sentence string), fine string) verdict {
	var v verdict
	var worst float64
	for _, s := range f.Series(metric, want...) {
		value, warn, sentence := measure(&s)
		if warn == 0 || s.Workload.Container == other {
			continue
		}
		worst = max(worst, value)
		if x, bad := judge(value, warn, 0); bad {
			x.Sentence = sentence
			v.findings = append(v.findings, about(x, s.Workload))
		}
	}
	v.fine = fmt.Sprintf(fine, Percent(worst))
	return v
}
