// Package probes lists the probes. To add one: write its folder, add its line.
package probes

import (
	"huatuo/internal/probe"
	"huatuo/internal/probes/blockio"
	"huatuo/internal/probes/cgroupstat"
	"huatuo/internal/probes/cpustat"
	"huatuo/internal/probes/diskstats"
	"huatuo/internal/probes/loadavg"
	"huatuo/internal/probes/meminfo"
	"huatuo/internal/probes/netdev"
	"huatuo/internal/probes/netdrop"
	"huatuo/internal/probes/oomkill"
	"huatuo/internal/probes/pressure"
	"huatuo/internal/probes/process"
	"huatuo/internal/probes/runqueue"
	"huatuo/internal/probes/softirq"
	"huatuo/internal/probes/vmstat"
)

// All returns every probe, in the order of the docs.
func All() []probe.Spec {
	return []probe.Spec{
		cpustat.Spec(),
		loadavg.Spec(),
		pressure.Spec(),
		runqueue.Spec(),
		softirq.Spec(),
		meminfo.Spec(),
		vmstat.Spec(),
		oomkill.Spec(),
		diskstats.Spec(),
		blockio.Spec(),
		netdev.Spec(),
		netdrop.Spec(),
		process.Spec(),
		cgroupstat.Spec(),
	}
}
