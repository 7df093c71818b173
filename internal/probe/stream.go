package probe

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"huatuo/internal/kern/load"
	"huatuo/internal/signal"
)

// Stream reads the events of o, which has the maps of bpf/include/huatuo.h,
// until ctx is done. It tells env that the probe is ready once the ring is open:
// what a perf buffer gets before that is lost, and counted. In the end it
// detaches o, passes on what is still in the ring, and returns nil. decode turns
// a sample into a record; it must not keep the sample. What decode cannot parse
// is counted as undecoded and, at most once a minute, logged.
func Stream(ctx context.Context, env *Env, o *load.Object, decode func(raw []byte) (*signal.Record, error)) error {
	r, err := env.Rings.Open(o.Map("ht_events"))
	if err != nil {
		return err
	}
	defer r.Close()
	env.Ready(o.Hooks()...)

	var undecoded atomic.Uint64
	loss := &lossReader{o: o}
	env.Lost(func() Loss {
		s := loss.read()
		dropped := map[string]uint64{"ring_full": s.RingFull, "rate_limited": s.RateLimited, "undecoded": undecoded.Load()}
		if s.LeftOut > 0 {
			dropped["filtered"] = s.LeftOut
		}
		return Loss{Observed: s.Observed, Dropped: dropped}
	})
	defer loss.freeze()

	var complained time.Time
	return r.Read(ctx, o.Detach, func(raw []byte) {
		rec, err := decode(raw)
		if err != nil {
			undecoded.Add(1)
			if now := time.Now(); now.Sub(complained) > time.Minute {
				complained = now
				env.Log.Error("cannot decode an event; the BPF object and the decoder disagree", "err", err, "undecoded", undecoded.Load())
			}
			return
		}
		env.Emit(rec)
	})
}

// lossReader reads an object's counters while it lives, and remembers them after.
type lossReader struct {
	mu     sync.Mutex
	o      *load.Object
	frozen bool
	last   load.Stats
}

func (l *lossReader) read() load.Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.frozen {
		if s, err := l.o.Stats(); err == nil {
			l.last = s
		}
	}
	return l.last
}

// freeze takes the last reading; the object may be closed afterwards.
func (l *lossReader) freeze() {
	l.read()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.frozen = true
}

// EventKnobs are the options that every kind of rate-limited event has.
type EventKnobs struct {
	Rate  int `yaml:"rate" help:"events per second and CPU that may pass in the long run; 0 does not limit"`
	Burst int `yaml:"burst" help:"events that may pass at once on a CPU before the rate limits"`
}

// Set gives the object's constants <kind>_period_ns and <kind>_burst their values.
func (k EventKnobs) Set(l *load.Loader, kind string) error {
	if k.Rate < 0 || k.Burst < 0 {
		return fmt.Errorf("rate and burst of %s must not be negative", kind)
	}
	var period uint64
	if k.Rate > 0 {
		period = uint64(time.Second) / uint64(k.Rate)
	}
	if err := l.Set(kind+"_period_ns", period); err != nil {
		return err
	}
	return l.Set(kind+"_burst", uint64(k.Burst))
}

// CString returns the bytes of b before the first NUL as a string, made valid UTF-8.
func CString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}

// Stack copies the n bytes of addresses that bpf_get_stack() wrote to ips; nil when n
// is an error or nothing.
func Stack(n int32, ips []uint64) []uint64 {
	if n < 8 {
		return nil
	}
	return append([]uint64(nil), ips[:min(int(n/8), len(ips))]...)
}
