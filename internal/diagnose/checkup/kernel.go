package checkup

import (
	"fmt"
	"slices"

	"huatuo/internal/diagnose/window"
	"huatuo/internal/signal"
)

// Rules returns every rule, in the order in which what is fine is told.
func Rules() []Rule {
	return slices.Concat(cpuRules(), memoryRules(), diskRules(), networkRules(), kernelRules(), hardwareRules(), limitRules())
}

// fewStalls is how many events of a kind are life: one now and then.
const fewStalls = 5

// stallKinds are events that tell of a delay that somebody had.
func stallKinds() []string {
	return []string{"page_fault_stall", "lock_contention", "tick_gap", "direct_reclaim_stall", "compaction_stall", "net_rx_latency"}
}

func checkStalls(f *Facts) verdict {
	var v verdict
	most := 0
	for _, k := range stallKinds() {
		docs := f.of(k)
		most = max(most, len(docs))
		if len(docs) < fewStalls {
			continue
		}
		x := tell(docs, signal.Warning)
		x.Excess = float64(len(docs)) / fewStalls
		x.Next = fmt.Sprintf("`huatuo watch %s --stacks` shows each; `huatuo explain %s` tells how to read it.", k, k)
		v.findings = append(v.findings, x)
	}
	v.fine = fmt.Sprintf("of no kind were there more than %s", many(float64(most), "event"))
	return v
}

// kernelRules are about what hangs, dies or complains.
func kernelRules() []Rule {
	return []Rule{
		{
			Name: "hung_tasks", Area: signal.AreaProcess,
			What:      "tasks that wait uninterruptibly for ten seconds or longer",
			Threshold: "any: a device, a file server or a lock is gone",
			Next:      "The event has the stack: `huatuo watch hung_task --stacks`; a file server in it is where to look.",
			Metrics:   []string{"huatuo_tasks_hung"}, Kinds: []string{"hung_task"},
			check: func(f *Facts) verdict {
				n := f.Max("huatuo_tasks_hung")
				if docs := f.of("hung_task"); len(docs) > 0 {
					x := tell(docs, signal.Critical)
					x.Excess = max(n, x.Excess)
					return verdict{findings: []Finding{x}}
				}
				return one(n, 1, 1, fmt.Sprintf("%s hang.", many(n, "task")))
			},
		},
		{
			Name: "stalls", Area: signal.AreaSystem,
			What:      "events of page faults, locks, reclaim, CPUs and packets that took long",
			Threshold: fmt.Sprintf("%d of a kind: one now and then is life", fewStalls),
			Next:      "Look at the stacks in the events.",
			Kinds:     stallKinds(),
			check:     checkStalls,
		},
		{
			Name: "kernel_reports", Area: signal.AreaSystem,
			What:      "lockups, stalls, warnings and crashes that the kernel wrote into its log",
			Threshold: "any: lockups, stalls and crashes are critical, warnings warn",
			Next:      "Read the report in `dmesg`; look for the function in it and the kernel's version, and update the kernel or the driver.",
			Kinds:     []string{"soft_lockup", "hard_lockup", "rcu_stall", "workqueue_lockup", "kernel_warning", "kernel_bug"},
			check: func(f *Facts) verdict {
				return f.byKind("the kernel reported nothing", signal.Critical, "soft_lockup", "hard_lockup", "rcu_stall", "workqueue_lockup", "kernel_bug").
					and(f.byKind("the kernel reported nothing", signal.Warning, "kernel_warning"))
			},
		},
		{
			Name: "crashes", Area: signal.AreaProcess,
			What:      "processes that died of a signal of their own making",
			Threshold: "any warns",
			Next:      "`huatuo watch process_crash --stacks` has the stack and the registers.",
			Kinds:     []string{"process_crash"},
			check: func(f *Facts) verdict {
				v := f.byKind("no process crashed", signal.Warning, "process_crash")
				if len(v.findings) > 0 {
					var who []window.Workload
					for _, d := range f.of("process_crash") {
						if w := window.Of(d.Container); !slices.Contains(who, w) {
							who = append(who, w)
						}
					}
					if len(who) > 1 {
						v.findings[0].Sentence += " They are of " + workloadsOf(who) + "."
					}
				}
				return v
			},
		},
	}
}

func hardwareRules() []Rule {
	return []Rule{
		{
			Name: "gpu_errors", Area: signal.AreaSystem,
			What:      "errors of GPUs (Xid)",
			Threshold: "any: work on the GPU was lost, or it is failing",
			Next:      "Look the Xid up in NVIDIA's list; the event says whether the program or the hardware is at fault.",
			Kinds:     []string{"gpu_error"},
			check: func(f *Facts) verdict {
				return f.byKind("no GPU reported an error", signal.Critical, "gpu_error")
			},
		},
		{
			Name: "hardware_errors", Area: signal.AreaSystem,
			What:      "errors that the hardware or its firmware reported",
			Threshold: "any: corrected ones warn, all others are critical",
			Next:      "Find the part in the event (DIMM, slot, device) and have it changed before it fails.",
			Kinds:     []string{"hardware_error"},
			check:     checkHardware,
		},
		{
			Name: "nvme_health", Area: signal.AreaBlock,
			What:      "what NVMe disks say of their own health",
			Threshold: "a critical warning or a used-up spare is critical; a life that is used up warns",
			Next:      "Copy what is on it and change the disk.",
			Metrics:   []string{"huatuo_nvme_critical_warning"}, Nothing: "there is no NVMe disk",
			check: checkNVMe,
		},
		{
			Name: "thermal_throttling", Area: signal.AreaCPU,
			What:      "CPUs slowed down because they are too hot",
			Threshold: "any in half a minute",
			Next:      "Look at fans, dust and the room.",
			Metrics:   []string{"huatuo_thermal_core_throttles_total"}, Nothing: "the CPUs do not tell of heat",
			check: func(f *Facts) verdict {
				n := f.Sum("huatuo_thermal_core_throttles_total") + f.Sum("huatuo_thermal_package_throttles_total")
				return one(n, 1, 0, fmt.Sprintf("CPUs were slowed down %s because they were too hot.", many(n, "time")))
			},
		},
	}
}

func limitRules() []Rule {
	return []Rule{
		{
			Name: "resource_exhausted", Area: signal.AreaSystem,
			What:      "resources with a limit that come to their end, also by the rate at which they grow",
			Threshold: "90 % of the limit, or the end within ten minutes; 98 % is critical",
			Next:      "The event lists who uses most of it: `huatuo watch resource_exhausted -o json`.",
			Kinds:     []string{"resource_exhausted"},
			check: func(f *Facts) verdict {
				v := verdict{fine: "no resource comes to its end"}
				for _, d := range f.of("resource_exhausted") {
					v.findings = append(v.findings, tell([]*signal.Document{d}, d.Severity))
				}
				return v
			},
		},
		{
			Name: "open_files", Area: signal.AreaSystem,
			What:      "open files against the limits of the host and of each process",
			Threshold: "90 % of a limit: what comes next fails with EMFILE or ENFILE",
			Next:      "Find the leak (`ls /proc/PID/fd | wc -l`), or raise the limit (LimitNOFILE, fs.file-max).",
			Metrics:   []string{"huatuo_files_open", "huatuo_files_limit"},
			check: func(f *Facts) verdict {
				v := one(f.Max("huatuo_files_open")/max(f.Max("huatuo_files_limit"), 1), 0.9, 0, fmt.Sprintf("%s files are open on the host.", number(f.Max("huatuo_files_open"))))
				return v.and(f.perWorkload("huatuo_container_process_files_used_ratio", nil, func(s *window.Series) (float64, float64, string) {
					return s.Value, 0.9, fmt.Sprintf("One of its processes has %s of the files open that it may have.", Percent(s.Value))
				}, "no process has more than %s of the files open that it may"))
			},
		},
		{
			Name: "task_limit", Area: signal.AreaProcess,
			What:      "tasks of a workload against its limit",
			Threshold: "90 %: what comes next fails with EAGAIN",
			Next:      "Find the leak of threads or zombies, or raise pids.max (TasksMax).",
			Metrics:   []string{"huatuo_container_pids", "huatuo_container_pids_limit"}, Nothing: "no workload has a limit of tasks",
			check: func(f *Facts) verdict {
				limits := map[window.Workload]float64{}
				for _, s := range f.Series("huatuo_container_pids_limit") {
					limits[s.Workload] = s.Value
				}
				return f.perWorkload("huatuo_container_pids", nil, func(s *window.Series) (float64, float64, string) {
					limit := limits[s.Workload]
					if limit <= 0 {
						return 0, 0, ""
					}
					return s.Value / limit, 0.9, fmt.Sprintf("It has %s of the %s tasks that it may have.", number(s.Value), number(limit))
				}, "no workload has more than %s of the tasks that it may")
			},
		},
	}
}

// and joins two verdicts.
func (v verdict) and(o verdict) verdict {
	v.findings = append(v.findings, o.findings...)
	if v.fine != o.fine && o.fine != "" {
		v.fine = sentence(v.fine) + " " + sentence(o.fine)
	}
	return v
}

// byKind makes a finding of each kind of event that there was.
func (f *Facts) byKind(fine string, severity signal.Severity, kinds ...string) verdict {
	v := verdict{fine: fine}
	for _, k := range kinds {
		if docs := f.of(k); len(docs) > 0 {
			v.findings = append(v.findings, tell(docs, severity))
		}
	}
	return v
}

func checkHardware(f *Facts) verdict {
	v := verdict{fine: "the hardware reported nothing"}
	var corrected, worse []*signal.Document
	for _, d := range f.of("hardware_error") {
		if d.Severity == signal.Critical {
			worse = append(worse, d)
		} else {
			corrected = append(corrected, d)
		}
	}
	for severity, docs := range map[signal.Severity][]*signal.Document{signal.Critical: worse, signal.Warning: corrected} {
		if len(docs) > 0 {
			v.findings = append(v.findings, tell(docs, severity))
		}
	}
	if n := f.Sum("huatuo_hardware_errors_total"); n > 0 && len(v.findings) == 0 {
		v.findings = append(v.findings, Finding{Severity: signal.Warning, Excess: n, Sentence: many(n, "hardware error") + " counted."})
	}
	return v
}

func checkNVMe(f *Facts) verdict {
	var v verdict
	for _, s := range f.Series("huatuo_nvme_critical_warning") {
		if s.Value > 0 {
			v.findings = append(v.findings, Finding{Severity: signal.Critical, Excess: 1, Subject: s.Label("device"),
				Sentence: fmt.Sprintf("The disk gives a critical warning: %s.", s.Label("warning"))})
		}
	}
	for _, s := range f.Series("huatuo_nvme_used_ratio") {
		if x, bad := judge(s.Value, 1, 0); bad {
			x.Subject = s.Label("device")
			x.Sentence = fmt.Sprintf("%s of its life is used up, as its vendor estimates.", Percent(s.Value))
			v.findings = append(v.findings, x)
		}
	}
	v.fine = "the NVMe disks are well"
	return v
}
