// Package probes lists the probes. To add one: write its folder, add its line.
package probes

import (
	"huatuo/internal/probe"
	"huatuo/internal/probes/blockio"
	"huatuo/internal/probes/buddy"
	"huatuo/internal/probes/cgroupstat"
	"huatuo/internal/probes/changes"
	"huatuo/internal/probes/cpustat"
	"huatuo/internal/probes/diskstats"
	"huatuo/internal/probes/dns"
	"huatuo/internal/probes/exhaust"
	"huatuo/internal/probes/fs"
	"huatuo/internal/probes/gpu"
	"huatuo/internal/probes/hungtask"
	"huatuo/internal/probes/irq"
	"huatuo/internal/probes/kernlog"
	"huatuo/internal/probes/limits"
	"huatuo/internal/probes/loadavg"
	"huatuo/internal/probes/locks"
	"huatuo/internal/probes/meminfo"
	"huatuo/internal/probes/netdev"
	"huatuo/internal/probes/netdrop"
	"huatuo/internal/probes/netrx"
	"huatuo/internal/probes/netstat"
	"huatuo/internal/probes/nettx"
	"huatuo/internal/probes/nic"
	"huatuo/internal/probes/numa"
	"huatuo/internal/probes/nvme"
	"huatuo/internal/probes/oomkill"
	"huatuo/internal/probes/pressure"
	"huatuo/internal/probes/process"
	"huatuo/internal/probes/ras"
	"huatuo/internal/probes/rdma"
	"huatuo/internal/probes/reclaim"
	"huatuo/internal/probes/runqueue"
	"huatuo/internal/probes/slab"
	"huatuo/internal/probes/softirq"
	"huatuo/internal/probes/tcp"
	"huatuo/internal/probes/tcpretrans"
	"huatuo/internal/probes/thermal"
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
		buddy.Spec(),
		numa.Spec(),
		slab.Spec(),
		vmstat.Spec(),
		reclaim.Spec(),
		oomkill.Spec(),
		diskstats.Spec(),
		blockio.Spec(),
		fs.Spec(),
		netdev.Spec(),
		nic.Spec(),
		netstat.Spec(),
		netdrop.Spec(),
		netrx.Spec(),
		nettx.Spec(),
		tcp.Spec(),
		tcpretrans.Spec(),
		dns.Spec(),
		process.Spec(),
		limits.Spec(),
		hungtask.Spec(),
		kernlog.Spec(),
		cgroupstat.Spec(),
		ras.Spec(),
		thermal.Spec(),
		nvme.Spec(),
		rdma.Spec(),
		gpu.Spec(),
		exhaust.Spec(),
		changes.Spec(),
	}
}
