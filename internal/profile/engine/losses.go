//go:build !noprofiler

package engine

import (
	"fmt"
	"structs"

	"huatuo/internal/signal"
)

// loss is what was dropped: struct loss of bpf/take.h.
type loss struct {
	_       structs.HostLayout
	Samples uint64
	Value   uint64
}

// demand is struct demand of bpf/take.h.
type demand struct {
	_      structs.HostLayout
	Second uint64
	Seen   uint32
	Every  uint32
	Next   uint64
}

// cpu is what the programs keep of each CPU: struct cpu of bpf/take.h.
type cpu struct {
	_      structs.HostLayout
	Busy   uint64
	ID     uint64
	Demand [kindSlots]demand
	Lost   [kindSlots][reasonSlots]loss
}

// account adds to the account what was lost since the last time.
func (h *hooks) account() error {
	m := h.shared[cpusMap]
	if m == nil {
		return nil
	}
	for _, c := range h.counted {
		if err := c.account(h.o.Account); err != nil {
			return err
		}
	}
	var cpus []cpu
	if err := m.Lookup(uint32(0), &cpus); err != nil {
		return fmt.Errorf("read what was lost: %w", err)
	}
	for k := range kinds {
		for why := range reasonSlots {
			var now loss
			for i := range cpus {
				now.Samples += cpus[i].Lost[k][why].Samples
				now.Value += cpus[i].Lost[k][why].Value
			}
			was := h.before[k][why]
			h.before[k][why] = now
			if now.Samples == was.Samples || why >= len(reasons) {
				continue
			}
			h.o.Account.add(Loss{Type: h.typeOf(k), Reason: reasons[why], Samples: now.Samples - was.Samples, Value: now.Value - was.Value})
		}
		if h.joins != nil && h.joins.lost[k].Samples > 0 {
			h.o.Account.add(Loss{Type: h.typeOf(k), Reason: "full", Samples: h.joins.lost[k].Samples})
			h.joins.lost[k] = loss{}
		}
	}
	return nil
}

// typeOf is the first type of a kind that is taken.
func (h *hooks) typeOf(k kind) *signal.ProfileType {
	types := k.all()
	for _, t := range types {
		if h.o.wants(t) {
			return t
		}
	}
	return types[0]
}
