package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func isNotExist(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOENT)
}

// Stats is what an object counted of its own events, summed over CPUs: the
// map ht_stats of bpf/include/huatuo.h.
type Stats struct {
	Observed    uint64 // events that met the condition
	RingFull    uint64 // lost because the ring had no room
	RateLimited uint64 // held back by the token bucket
	LeftOut     uint64 // not taken by the packet filter (bpf/include/filter.h)
}

// Stats reads the object's counters.
func (o *Object) Stats() (Stats, error) {
	m := o.maps["ht_stats"]
	if m == nil {
		return Stats{}, fmt.Errorf("read ht_stats: %w", os.ErrNotExist)
	}
	var sums [3]uint64
	var perCPU []uint64
	for i := range uint32(len(sums)) {
		if err := m.Lookup(i, &perCPU); err != nil {
			return Stats{}, fmt.Errorf("read ht_stats: %w", err)
		}
		for _, n := range perCPU {
			sums[i] += n
		}
	}
	out, err := o.leftOut()
	return Stats{sums[0], sums[1], sums[2], out}, err
}

// leftOut reads the first member of struct ht_filter_value.
func (o *Object) leftOut() (sum uint64, err error) {
	m := o.maps["ht_filter"]
	if m == nil {
		return 0, nil
	}
	var perCPU [][]byte
	if err := m.Lookup(uint32(0), &perCPU); err != nil {
		return 0, fmt.Errorf("read ht_filter: %w", err)
	}
	for _, v := range perCPU {
		sum += binary.NativeEndian.Uint64(v)
	}
	return sum, nil
}
