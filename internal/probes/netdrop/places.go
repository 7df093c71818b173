package netdrop

import (
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"

	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// normalPlaces are functions whose drops without a reason are no losses, each
// with why.
var normalPlaces = map[string]string{
	"udp_destruct_common":   "a UDP socket was closed with data unread",
	"udp_destruct_sock":     "a UDP socket was closed with data unread",
	"udpv6_destruct_sock":   "a UDP socket was closed with data unread",
	"inet_sock_destruct":    "a socket was closed with data unread",
	"sk_stream_kill_queues": "a socket was closed with data unread",
	"skb_queue_purge":       "a queue was emptied because its owner went",
	"ip6_mc_input":          "multicast that nobody here has joined",
	"packet_rcv":            "a packet socket does not want it",
	"tpacket_rcv":           "a packet socket does not want it",
	"arp_rcv":               "ARP for another host",
	"arp_process":           "ARP for another host, or one that has been answered",
}

// endedPlaces are functions whose drops are no losses where the kernel knows
// reasons and gives none. Before Linux 5.17 the same functions drop for others.
var endedPlaces = map[string]string{
	"tcp_v4_rcv": "a segment for a connection that has ended (TIME_WAIT)",
	"tcp_v6_rcv": "a segment for a connection that has ended (TIME_WAIT)",
}

// isNormalPlace tells whether a drop without a reason, from there, is no loss.
func isNormalPlace(reason, function string) bool {
	switch reason {
	case notSpecified:
		return normalPlaces[function] != "" || endedPlaces[function] != ""
	case unknown:
		return normalPlaces[function] != ""
	}
	return false
}

// learner tells the program of places that are normal. The program knows places
// by address only; an event without a reason from such a place is not passed
// on but counted, and is the last one from there.
type learner struct {
	env     *probe.Env
	total   *total // may be nil
	places  *ebpf.Map
	reasons *reasons
	normal  atomic.Uint64
}

// wrap returns the Env for probe.Stream.
func (l *learner) wrap() *probe.Env {
	inner := *l.env
	inner.Emit = l.emit
	inner.Lost = func(f func() probe.Loss) {
		l.env.Lost(func() probe.Loss {
			x := f()
			x.Dropped["normal_place"] = l.normal.Load()
			if n := l.total.read(); n > x.Observed {
				x.LeftOut = n - x.Observed
			}
			return x
		})
	}
	return &inner
}

func (l *learner) emit(r *signal.Record) {
	b := r.Body.(*PacketDrop)
	if !isNormalPlace(b.Reason, b.Location) {
		l.env.Emit(r)
		return
	}
	l.normal.Add(1)
	if err := l.places.Put(r.KernelIPs[0], uint32(1)); err != nil {
		l.env.Log.Debug("cannot note a normal place", "function", b.Location, "err", err)
	}
}

// total counts the packets that were dropped, whatever the reason.
type total struct {
	mu    sync.Mutex
	drops *ebpf.Map // by reason; nil once the probe has ended
	last  uint64
}

func (t *total) read() uint64 {
	if t == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.drops == nil {
		return t.last
	}
	var k bpfDropKey
	var per []uint64
	var n uint64
	it := t.drops.Iterate()
	for it.Next(&k, &per) {
		n += sum(per)
	}
	t.last = max(n, t.last) // one that was cut short is less
	return t.last
}

// freeze takes the last reading; the map may be closed afterwards.
func (t *total) freeze() {
	t.read()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drops = nil
}
