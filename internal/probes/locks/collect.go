package locks

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"huatuo/internal/kern/load"
	"huatuo/internal/signal"
)

const (
	// maxSeries bounds the locks with series of their own.
	maxSeries = 64
	// minWait keeps a lock that was waited for a few times out of them.
	minWait = uint64(time.Millisecond)
	other   = "other"
)

// lockKey is one series: a lock has a name, many places may take it.
type lockKey struct{ kind, name string }

// collector remembers which locks have series of their own: once one has, it
// keeps it, so that a counter does not go back.
type collector struct {
	names *names
	shown map[lockKey]*series
}

// series is a lock with a series of its own.
type series struct {
	base bpfSiteWaits // what other had counted of it before
	last bpfSiteWaits // value of the round before
}

func (c *collector) collect(b *signal.Batch, o *load.Object) error {
	var cpus []bpfCpuState
	if err := o.Map("cpus").Lookup(uint32(0), &cpus); err != nil {
		return fmt.Errorf("read histograms: %w", err)
	}
	sum := &cpus[0]
	for i := range cpus[1:] {
		x := &cpus[1+i]
		sum.Collisions += x.Collisions
		for t := range types {
			sum.Wait[t].Zero += x.Wait[t].Zero
			sum.Wait[t].Sum += x.Wait[t].Sum
			for j, n := range x.Wait[t].Slots {
				sum.Wait[t].Slots[j] += n
			}
			sum.LongWaits[t] += x.LongWaits[t]
			sum.LongWaitNs[t] += x.LongWaitNs[t]
		}
	}
	for t, name := range types {
		h := &sum.Wait[t]
		b.Hist(wait, signal.LatencyHist(2, h.Zero, h.Sum, h.Slots[:]), name)
	}
	b.Value(unmeasured, float64(sum.Collisions))

	rest := map[string]bpfSiteWaits{}
	for t, name := range types {
		if sum.LongWaits[t] > 0 {
			rest[name] = bpfSiteWaits{Waits: sum.LongWaits[t], Ns: sum.LongWaitNs[t]}
		}
	}
	locks, err := c.read(o.Map("sites"))
	if err != nil {
		return err
	}
	c.emit(b, locks, rest)
	return collectCgroups(b, o.Map("cgroups"))
}

// read sums the places by lock.
func (c *collector) read(m *ebpf.Map) (map[lockKey]bpfSiteWaits, error) {
	var key bpfSite
	var val bpfSiteWaits
	type entry struct {
		key bpfSite
		val bpfSiteWaits
	}
	var all []entry
	it := m.Iterate()
	for it.Next(&key, &val) {
		all = append(all, entry{key, val})
	}
	if err := it.Err(); err != nil {
		return nil, fmt.Errorf("read waits by lock: %w", err)
	}
	addrs := make([]uint64, len(all))
	for i, e := range all {
		addrs[i] = e.key.Addr
	}
	c.names.want(addrs)
	locks := map[lockKey]bpfSiteWaits{}
	for _, e := range all {
		if int(e.key.Type) >= len(types) {
			continue
		}
		k := lockKey{types[e.key.Type], c.names.of(e.key.Addr)}
		v := locks[k]
		v.Waits += e.val.Waits
		v.Ns += e.val.Ns
		locks[k] = v
	}
	return locks, nil
}

// emit gives the worst locks series of their own as long as there is room, and
// leaves what remains of rest, the sums by type, to other.
func (c *collector) emit(b *signal.Batch, locks map[lockKey]bpfSiteWaits, rest map[string]bpfSiteWaits) {
	first := c.shown == nil // then other has shown nothing yet
	if first {
		c.shown = map[lockKey]*series{}
	}
	var fresh []lockKey
	for k, v := range locks {
		if c.shown[k] == nil && v.Ns >= minWait {
			fresh = append(fresh, k)
		}
	}
	slices.SortFunc(fresh, func(x, y lockKey) int { return cmp.Compare(locks[y].Ns, locks[x].Ns) })
	for _, k := range fresh[:min(len(fresh), maxSeries-len(c.shown))] {
		c.shown[k] = &series{}
		if !first {
			c.shown[k].base = locks[k]
		}
	}
	for k, s := range c.shown {
		v := locks[k]
		v.Waits -= min(s.base.Waits, v.Waits)
		v.Ns -= min(s.base.Ns, v.Ns)
		// Less than before: the symbols were read again, and a place has another name.
		s.last.Waits, s.last.Ns = max(s.last.Waits, v.Waits), max(s.last.Ns, v.Ns)
		c.value(b, k, s.last)
		r := rest[k.kind]
		r.Waits -= min(s.last.Waits, r.Waits)
		r.Ns -= min(s.last.Ns, r.Ns)
		rest[k.kind] = r
	}
	for kind, v := range rest {
		c.value(b, lockKey{kind, other}, v)
	}
}

func (c *collector) value(b *signal.Batch, k lockKey, v bpfSiteWaits) {
	b.Value(longWaits, float64(v.Waits), k.kind, k.name)
	b.Value(longSeconds, time.Duration(v.Ns).Seconds(), k.kind, k.name)
}

func collectCgroups(b *signal.Batch, m *ebpf.Map) error {
	var id uint64
	var g bpfCgroupWaits
	it := m.Iterate()
	for it.Next(&id, &g) {
		for t, v := range g.ByType {
			if v.Waits == 0 {
				continue
			}
			b.WorkloadValue(containerWaits, id, float64(v.Waits), types[t])
			b.WorkloadValue(containerSeconds, id, time.Duration(v.Ns).Seconds(), types[t])
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read waits of cgroups: %w", err)
	}
	return nil
}
