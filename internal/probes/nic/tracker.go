package nic

import (
	"encoding/binary"
	"hash/maphash"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// tracker knows the links and tells of what happens to them.
type tracker struct {
	now     func() time.Time
	knobs   probe.EventKnobs
	wants   func(device string) bool
	port    func(device string) *port
	emit    func(*signal.Record)
	changed func() // a link came or went

	seed maphash.Seed

	mu        sync.Mutex
	links     map[int]*tracked
	dump      uint32    // sequence number of the dump that the kernel answers
	broken    int       // of so many dumps, from that on, messages may be lost
	heard     time.Time // when the kernel last answered
	observed  uint64
	limited   uint64
	undecoded uint64
	overflows uint64 // of the socket: some notifications are lost
}

// tracked is a link and what is kept of it between messages.
type tracked struct {
	*link
	wanted     bool   // it is reported
	sum        uint64 // of the message that said all this
	dump       uint32 // that had it last, or during which it was told of
	since      time.Time
	next       time.Time // rate limit, as ht_admit() does it
	suppressed uint64
}

// message takes a message of rtnetlink in. dump is the sequence number of the dump
// that it is part of, 0 for a notification.
func (t *tracker) message(typ uint16, dump uint32, payload []byte) {
	if typ != unix.RTM_NEWLINK && typ != unix.RTM_DELLINK {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.heard = t.now()
	if dump != 0 && dump != t.dump {
		t.next(dump)
	}
	sum := maphash.Bytes(t.seed, payload)
	if t.same(typ, payload, sum) {
		return
	}
	l, err := parseLink(payload)
	if err != nil {
		t.undecoded++
		t.observed++
		return
	}
	if payload[0] != unix.AF_UNSPEC {
		return // a bridge tells of its ports in the same words
	}
	if typ == unix.RTM_DELLINK {
		t.gone(l.index)
		return
	}
	was := t.links[l.index]
	if was == nil {
		was = &tracked{link: l, wanted: t.wants(l.name), dump: t.dump, sum: sum}
		t.links[l.index] = was
		if was.wanted {
			t.changed()
		}
		return
	}
	var down time.Duration
	if !was.usable() && !was.since.IsZero() {
		down = t.heard.Sub(was.since)
	}
	reports := compare(was.link, l, t.name, down)
	if was.usable() && !l.usable() {
		was.since = t.heard
	}
	if was.usable() != l.usable() && was.wanted {
		t.changed()
	}
	if was.link.name != l.name {
		was.wanted = t.wants(l.name)
	}
	was.link, was.dump, was.sum = l, t.dump, sum
	t.tell(was, reports)
}

// same tells whether a message says what the one before said of its device: most
// of those of a dump do, and on a node with hundreds of containers they are many.
func (t *tracker) same(typ uint16, payload []byte, sum uint64) bool {
	if typ != unix.RTM_NEWLINK || len(payload) < sizeofIfinfomsg {
		return false
	}
	l := t.links[int(int32(binary.NativeEndian.Uint32(payload[4:])))]
	if l == nil || l.sum != sum {
		return false
	}
	l.dump = t.dump
	return true
}

// next notes that the kernel answers another dump, so that all of the one before
// has been here: what it did not have is gone.
func (t *tracker) next(dump uint32) {
	if t.dump != 0 && t.broken == 0 {
		for index, l := range t.links {
			if l.dump != t.dump {
				t.gone(index)
			}
		}
	}
	t.dump, t.broken = dump, max(0, t.broken-1)
}

func (t *tracker) gone(index int) {
	was := t.links[index]
	if was == nil {
		return
	}
	reports := compare(was.link, nil, t.name, 0)
	delete(t.links, index)
	t.tell(was, reports)
}

func (t *tracker) name(index int) string {
	if l := t.links[index]; l != nil {
		return l.link.name
	}
	return ""
}

// tell sends events of the devices that are reported, within the rate.
func (t *tracker) tell(l *tracked, reports []report) {
	if !l.wanted {
		return
	}
	for i := range reports {
		t.observed++
		if rate := t.knobs.Rate; rate > 0 {
			period := time.Second / time.Duration(rate)
			if l.next.Before(t.heard) {
				l.next = t.heard
			}
			if l.next.Sub(t.heard) > period*time.Duration(t.knobs.Burst) {
				l.suppressed++
				t.limited++
				continue
			}
			l.next = l.next.Add(period)
		}
		reports[i].port = t.port(l.link.name)
		t.emit(reports[i].record(t.heard, l.suppressed))
		l.suppressed = 0
	}
}

// report sends events that are not of a link.
func (t *tracker) report(reports []report) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range reports {
		t.observed++
		t.emit(reports[i].record(t.now(), 0))
	}
}

// overflow notes that notifications are lost; how many the kernel does not tell.
func (t *tracker) overflow() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.observed++
	t.overflows++
	t.broken = 2 // what is lost may be of the one that was just asked for
}

func (t *tracker) loss() probe.Loss {
	t.mu.Lock()
	defer t.mu.Unlock()
	return probe.Loss{Observed: t.observed, Dropped: map[string]uint64{
		"rate_limited": t.limited, "undecoded": t.undecoded, "socket_overflow": t.overflows,
	}}
}

// reported returns the links that have series, and when the kernel last spoke of links.
func (t *tracker) reported() (out []*link, heard time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range t.links {
		if l.wanted {
			out = append(out, l.link)
		}
	}
	return out, t.heard
}

// all returns all links.
func (t *tracker) all() []*link {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]*link, 0, len(t.links))
	for _, l := range t.links {
		out = append(out, l.link)
	}
	return out
}
