package probe

import (
	"fmt"

	"huatuo/internal/kern/load"
	"huatuo/internal/kern/packetfilter"
)

// PacketKnobs is the option of probes whose events are about a packet. Their
// objects include bpf/include/filter.h.
type PacketKnobs struct {
	Filter string `yaml:"filter" check:"packets" help:"which packets make events, in tcpdump's syntax (tcp port 443); all are counted in metrics still; empty: all"`
}

// SetFilter makes the filter part of the programs of the object.
func (k PacketKnobs) SetFilter(l *load.Loader) error {
	if k.Filter == "" {
		return nil
	}
	p, err := packetfilter.Compile(k.Filter)
	if err != nil {
		return err
	}
	if err := p.Insert(l.Spec); err != nil {
		return fmt.Errorf("insert packet filter: %w", err)
	}
	return nil
}

// TakesFilter tells whether the events of a probe can be chosen by a packet filter.
func (s Spec) TakesFilter() bool {
	_, ok := s.Config.(interface{ SetFilter(*load.Loader) error })
	return ok
}
