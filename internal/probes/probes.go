// Package probes lists the probes. To add one: write its folder, add its line.
package probes

import (
	"huatuo/internal/probe"
	"huatuo/internal/probes/blockio"
	"huatuo/internal/probes/cgroupstat"
	"huatuo/internal/probes/cpustat"
	"huatuo/internal/probes/diskstats"
	"huatuo/internal/probes/dns"
	"huatuo/internal/probes/fs"
	"huatuo/internal/probes/hungtask"
	"huatuo/internal/probes/irq"
	"huatuo/internal/probes/loadavg"
	"huatuo/internal/probes/locks"
	"huatuo/internal/probes/meminfo"
	"huatuo/internal/probes/netdev"
	"huatuo/internal/probes/netdrop"
	"huatuo/internal/probes/netrx"
	"huatuo/internal/probes/netstat"
	"huatuo/internal/probes/oomkill"
	"huatuo/internal/probes/pressure"
	"huatuo/internal/probes/process"
	"huatuo/internal/probes/reclaim"
	"huatuo/internal/probes/runqueue"
	"huatuo/internal/probes/softirq"
	"huatuo/internal/probes/tcp"
	"huatuo/internal/probes/tcpretrans"
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
		irq.Spec(),
		locks.Spec(),
		meminfo.Spec(),
		vmstat.Spec(),
		reclaim.Spec(),
		oomkill.Spec(),
		diskstats.Spec(),
		blockio.Spec(),
		fs.Spec(),
		netdev.Spec(),
		netstat.Spec(),
		netdrop.Spec(),
		netrx.Spec(),
		tcp.Spec(),
		tcpretrans.Spec(),
		dns.Spec(),
		process.Spec(),
		hungtask.Spec(),
		cgroupstat.Spec(),
	}
}
