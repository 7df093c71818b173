//go:build !noprofiler

package engine

import (
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/cilium/ebpf/btf"

	"huatuo/internal/profile"
	"huatuo/internal/signal"
)

// all are the types of a kind, and those beside them.
func (k kind) all() (types []*signal.ProfileType) {
	for _, t := range k.types() {
		types = append(types, t)
		if b := profile.Beside(t); b != nil {
			types = append(types, b)
		}
	}
	return types
}

// isPair tells whether a stack's value is two numbers.
func (k kind) isPair() bool { return k >= blocked && k <= kernelLock }

// halves are the two numbers of a value: half of bpf/take.h.
func halves(v int64) (value, other int64) {
	half := func(x uint32) int64 { return int64(x&(1<<26-1)) << (x >> 26) }
	return half(uint32(uint64(v) >> 32)), half(uint32(v))
}

// one is what one contention counts in the programs: ONE of bpf/take.h.
const one = 1024

// inUnit is what a sample is worth in the type beside its own. Parts of a
// contention are rounded by lot, so that sums are right.
func inUnit(k kind, other int64) int64 {
	switch k {
	case futexLock, futexOther, kernelLock:
		return (other + rand.Int64N(one)) / one
	}
	return other
}

// withoutUnknown leaves out what this kernel cannot tell of types that it has.
func (h *hooks) withoutUnknown() {
	if !h.o.wants(profile.FileBytes) {
		return
	}
	var s *btf.Struct
	err := h.kernel.TypeByName("task_io_accounting", &s)
	if err == nil && slices.ContainsFunc(s.Members, func(m btf.Member) bool { return m.Name == "syscr" }) {
		return
	}
	h.o.Types = slices.DeleteFunc(h.o.Types, func(t *signal.ProfileType) bool { return t == profile.FileBytes })
	h.off([]*signal.ProfileType{profile.FileBytes}, fmt.Errorf("the kernel does not count calls: it was built without CONFIG_TASK_XACCT"))
}
