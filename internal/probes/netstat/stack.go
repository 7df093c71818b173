package netstat

import (
	"bytes"
	"path/filepath"
	"strconv"

	"huatuo/internal/kern/procfs"
	"huatuo/internal/signal"
)

// What is the host's alone: the softirq side of the stack, connection tracking,
// neighbours and limits.
var (
	cpuField     = label("cpu", "processor")
	softnet      = counter("softnet_packets", "Packets that a CPU took from devices or other CPUs.", "One CPU far above the others: spread the queues' interrupts, or set RPS.", cpuField)
	softnetDrops = counter("softnet_drops", "Packets dropped because a CPU's backlog was full.", "Any step is loss: net.core.netdev_max_backlog, or a CPU that is busy elsewhere.", cpuField)
	softnetShort = counter("softnet_squeezed", "Times that a CPU left packets for later because its budget or time was used up.",
		"A steady rate with softirq latency: net.core.netdev_budget_usecs, or more CPUs.", cpuField)

	tracked      = gauge("conntrack_entries", "Connections that connection tracking knows.", "Against huatuo_conntrack_limit: full means that new connections are dropped.")
	trackedLimit = gauge("conntrack_limit", "Connections that connection tracking may know.", "net.netfilter.nf_conntrack_max.")
	trackEvents  = counter("conntrack_events", "What connection tracking could not do.",
		"drop, early_drop: the table is full; insert_failed: two packets of one new connection raced; invalid: packets of no known connection.",
		label("event", "what happened", "drop", "early_drop", "insert_failed", "invalid", "search_restart"))

	familyField    = label("family", "ipv4: ARP; ipv6: neighbour discovery", families...)
	neighbours     = gauge("neighbor_entries", "Neighbours that the host knows or looks for, in all namespaces.", "Near huatuo_neighbor_limit: packets to new ones are dropped.", familyField)
	neighbourLimit = gauge("neighbor_limit", "Neighbours that the host may know.", "net.ipv4.neigh.default.gc_thresh3.", familyField)
	neighbourEvent = counter("neighbor_failures", "What went wrong with neighbours.",
		"unresolved: nobody answered; discarded: packets dropped while waiting; table_full: net.ipv4.neigh.default.gc_thresh3 is too small.",
		familyField, label("cause", "what", "unresolved", "discarded", "table_full"))

	tcpLimit     = metric("tcp_memory_limit_bytes", signal.Gauge, "bytes", "Memory that all TCP sockets' buffers may have.", "The third number of net.ipv4.tcp_mem.")
	orphansLimit = gauge("tcp_orphans_limit", "TCP connections without a process that may be.", "net.ipv4.tcp_max_orphans.")
)

var hostSchemas = []*signal.Schema{softnet, softnetDrops, softnetShort, tracked, trackedLimit, trackEvents,
	neighbours, neighbourLimit, neighbourEvent, tcpLimit, orphansLimit}

// host adds what is not in tables of names.
func (p *poller) host(b *signal.Batch) {
	if p.read("proc/net/softnet_stat") {
		p.softnet(b)
	}
	if p.read("proc/net/stat/nf_conntrack") {
		rows(p.buf, func(name string, sum, _ uint64) {
			switch name {
			case "drop", "early_drop", "insert_failed", "invalid", "search_restart":
				b.Value(trackEvents, float64(sum), name)
			}
		})
	}
	for _, f := range []struct{ family, file string }{{"ipv4", "arp_cache"}, {"ipv6", "ndisc_cache"}} {
		if p.read("proc/net/stat/" + f.file) {
			rows(p.buf, func(name string, sum, first uint64) {
				switch name {
				case "entries": // the same on each CPU's row
					b.Value(neighbours, float64(first), f.family)
				case "res_failed":
					b.Value(neighbourEvent, float64(sum), f.family, "unresolved")
				case "unresolved_discards":
					b.Value(neighbourEvent, float64(sum), f.family, "discarded")
				case "table_fulls":
					b.Value(neighbourEvent, float64(sum), f.family, "table_full")
				}
			})
		}
	}
	p.limit(b, tracked, "netfilter/nf_conntrack_count", 0, 1)
	p.limit(b, trackedLimit, "netfilter/nf_conntrack_max", 0, 1)
	p.limit(b, neighbourLimit, "ipv4/neigh/default/gc_thresh3", 0, 1, "ipv4")
	p.limit(b, neighbourLimit, "ipv6/neigh/default/gc_thresh3", 0, 1, "ipv6")
	p.limit(b, tcpLimit, "ipv4/tcp_mem", 2, p.page)
	p.limit(b, orphansLimit, "ipv4/tcp_max_orphans", 0, 1)
}

// limit adds the word at a place of a file below /proc/sys/net.
func (p *poller) limit(b *signal.Batch, s *signal.Schema, file string, place int, scale float64, labels ...string) {
	if !p.read("proc/sys/net/" + file) {
		return
	}
	rest := p.buf
	var w []byte
	for range place + 1 {
		w, rest = word(rest)
	}
	if n, ok := procfs.Uint(w); ok {
		b.Value(s, float64(n)*scale, labels...)
	}
}

// softnet: a row for each CPU that is online, in hexadecimal. The 13th column is
// the CPU since "net: add CPU ID to softnet_stat" (v5.10); before, the row is taken for it.
func (p *poller) softnet(b *signal.Batch) {
	row := 0
	for line := range bytes.Lines(p.buf) {
		var v [13]uint64
		n := 0
		for n < len(v) {
			var w []byte
			if w, line = word(line); len(w) == 0 {
				break
			}
			x, err := strconv.ParseUint(string(w), 16, 64)
			if err != nil {
				break
			}
			v[n] = x
			n++
		}
		if n < 3 {
			continue
		}
		cpu := row
		if n == len(v) {
			cpu = int(min(v[12], 1<<16))
		}
		row++
		name := p.cpu(cpu)
		b.Value(softnet, float64(v[0]), name)
		b.Value(softnetDrops, float64(v[1]), name)
		b.Value(softnetShort, float64(v[2]), name)
	}
}

func (p *poller) cpu(n int) string {
	for n >= len(p.cpus) && len(p.cpus) <= 1<<16 {
		p.cpus = append(p.cpus, strconv.Itoa(len(p.cpus)))
	}
	return p.cpus[n]
}

// rows reads a file below /proc/net/stat: names, then a row for each CPU in
// hexadecimal. Kernels differ in their columns, so they go by name.
func rows(b []byte, column func(name string, sum, first uint64)) {
	head, body, _ := bytes.Cut(b, []byte{'\n'})
	names := bytes.Fields(head)
	if len(names) > 64 {
		return
	}
	sums, first := make([]uint64, len(names)), make([]uint64, len(names))
	seen := false
	for line := range bytes.Lines(body) {
		i := 0
		for f := range bytes.FieldsSeq(line) {
			x, err := strconv.ParseUint(string(f), 16, 64)
			if i == len(names) || err != nil {
				break
			}
			sums[i] += x
			if !seen {
				first[i] = x
			}
			i++
		}
		seen = true
	}
	if !seen {
		return
	}
	for i, n := range names {
		column(string(n), sums[i], first[i])
	}
}

func (p *poller) read(file string) bool {
	var err error
	p.buf, err = procfs.ReadInto(filepath.Join(p.root, file), p.buf)
	return err == nil
}
