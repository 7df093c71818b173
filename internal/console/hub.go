package console

import (
	"context"
	"errors"
	"sync"

	"github.com/oklog/ulid/v2"

	"huatuo/internal/signal"
)

// ringSize is how many documents a reconnecting reader can catch up on without
// the store: at 10 events a second, more than a minute and a half away.
const ringSize = 1024

// queueSize bounds what waits for one reader. A burst fits; a reader that is
// further behind is told how much it missed.
const queueSize = 256

// maxReaders bounds the open streams. A person has a few tabs.
const maxReaders = 64

var errTooManyReaders = errors.New("too many open streams")

// Hub passes live events on to the readers of the API. It is a sink of the
// pipe that is always done at once: a slow reader loses events, nobody else.
type Hub struct {
	mu      sync.Mutex
	ring    []*signal.Document // oldest at next once it is full
	next    int
	readers map[*reader]struct{}
	lost    uint64
}

// NewHub returns an empty hub.
func NewHub() *Hub { return &Hub{readers: map[*reader]struct{}{}} }

// Deliver hands documents to every reader whose filter they pass. It never
// blocks and never fails. The documents are shared: nobody may change them.
func (h *Hub) Deliver(_ context.Context, docs []*signal.Document) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range docs {
		if len(h.ring) < ringSize {
			h.ring = append(h.ring, d)
		} else {
			h.ring[h.next] = d
			h.next = (h.next + 1) % ringSize
		}
		tree := signal.TreeOf(d)
		for r := range h.readers {
			if passes(&r.filter, d, tree) && !r.push(d) {
				h.lost++
			}
		}
	}
	return nil
}

// subscribe adds a reader. With after set, the reader starts with the
// documents of the ring that are younger than it. When the ring does not go
// back so far, older is the id below which it cannot help, and the reader gets
// nothing until it has caught up with that and rejoined.
func (h *Hub) subscribe(f signal.EventFilter, after string) (r *reader, older string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.readers) >= maxReaders {
		return nil, "", errTooManyReaders
	}
	r = &reader{filter: f, wake: make(chan struct{}, 1)}
	if after != "" {
		older = h.replay(r, after)
	}
	if older != "" {
		r.queue, r.away = nil, true
	}
	h.readers[r] = struct{}{}
	return r, older, nil
}

// rejoin is for a reader that was told to catch up and now has all documents up
// to the id after: it goes on with those of the ring. When the ring has moved
// on too far meanwhile, older tells where it begins now.
func (h *Hub) rejoin(r *reader, after string) (older string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.ring) > 0 {
		if oldest := h.ring[h.next%len(h.ring)].ID; previous(oldest) > after {
			return oldest
		}
	}
	r.mu.Lock()
	r.away = false
	r.mu.Unlock()
	h.replay(r, after)
	return ""
}

// previous returns the largest id before id.
func previous(id string) string {
	u, err := ulid.ParseStrict(id)
	if err != nil {
		return id
	}
	for i := len(u) - 1; i >= 0; i-- {
		u[i]--
		if u[i] != 0xff {
			break // nothing was borrowed
		}
	}
	return u.String()
}

func (h *Hub) replay(r *reader, after string) (older string) {
	seen := false // a document that the reader had: then the ring has all since
	for i := range h.ring {
		d := h.ring[(h.next+i)%len(h.ring)]
		if d.ID <= after {
			seen = true
			continue
		}
		if older == "" {
			older = d.ID
		}
		if matches(&r.filter, d) {
			r.queue = append(r.queue, d) // beyond queueSize: it is no burst, and the ring bounds it
		}
	}
	if len(r.queue) > 0 {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
	switch {
	case seen:
		return ""
	case older == "":
		return maxID // an empty ring, after a restart: all there is is in the store
	default:
		return older
	}
}

// maxID sorts after every ULID.
const maxID = "7ZZZZZZZZZZZZZZZZZZZZZZZZZ"

func (h *Hub) unsubscribe(r *reader) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.readers, r)
}

// stats returns the number of open streams and of documents that slow readers missed.
func (h *Hub) stats() (readers int, lost uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.readers), h.lost
}

// reader is one open stream.
type reader struct {
	filter signal.EventFilter
	wake   chan struct{} // holds one token when queue or lost may be set

	mu    sync.Mutex
	away  bool // it catches up from the store, and takes nothing
	queue []*signal.Document
	lost  uint64 // dropped after the last of queue
}

// push queues d and tells whether there was room. Once a document is lost all
// are, until the reader takes the queue: so the gap has one place in the stream.
func (r *reader) push(d *signal.Document) bool {
	r.mu.Lock()
	if r.away {
		r.mu.Unlock()
		return true // it will find d in the ring, or in the store
	}
	ok := r.lost == 0 && len(r.queue) < queueSize
	if ok {
		r.queue = append(r.queue, d)
	} else {
		r.lost++
	}
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
	return ok
}

// take returns what is queued, and how many were lost after it.
func (r *reader) take() ([]*signal.Document, uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	q, n := r.queue, r.lost
	r.queue, r.lost = nil, 0
	return q, n
}
