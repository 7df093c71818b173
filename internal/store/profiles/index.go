package profiles

import (
	"hash/maphash"
	"math/bits"
)

// index gives numbers to things, from 1. It takes half of what a map takes: the
// thing, and six bytes of a slot.
type index[K comparable] struct {
	hash  func(K) uint64
	slots []uint32 // numbers by hash, 0 for none; a power of two of them
	keys  []K      // the thing of number i is keys[i-1]
	stale bool     // some keys have no slot yet
}

func newIndex[K comparable](hash func(K) uint64) *index[K] {
	return &index[K]{hash: hash, slots: make([]uint32, 64)}
}

// add returns the number of k; fresh says that it is a new one.
func (x *index[K]) add(k K) (id uint32, fresh bool) {
	if x.stale {
		x.resize(max(len(x.slots), 1<<bits.Len(uint(len(x.keys)*4/3))))
		x.stale = false
	}
	mask := len(x.slots) - 1
	i := int(x.hash(k)) & mask
	for ; x.slots[i] != 0; i = (i + 1) & mask {
		if id := x.slots[i]; x.keys[id-1] == k {
			return id, false
		}
	}
	x.keys = append(x.keys, k)
	id = uint32(len(x.keys))
	x.slots[i] = id
	if len(x.keys)*4 > len(x.slots)*3 {
		x.resize(2 * len(x.slots))
	}
	return id, true
}

// push gives k a number, which is known to be new. It costs less than add, as long
// as nothing is added after it.
func (x *index[K]) push(k K) uint32 {
	x.keys = append(x.keys, k)
	x.stale = true
	return uint32(len(x.keys))
}

// reserve makes room for n more.
func (x *index[K]) reserve(n int) {
	x.keys = room(x.keys, n)
	if want := 1 << bits.Len(uint((len(x.keys)+n)*4/3)); want > len(x.slots) {
		x.resize(want)
	}
}

func (x *index[K]) resize(slots int) {
	x.slots = make([]uint32, slots)
	for n, k := range x.keys {
		i := int(x.hash(k)) & (slots - 1)
		for x.slots[i] != 0 {
			i = (i + 1) & (slots - 1)
		}
		x.slots[i] = uint32(n + 1)
	}
}

func (x *index[K]) len() int { return len(x.keys) }

// mix spreads the bits of a number over all of them (the finalizer of splitmix64).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func newStrings() *index[string] {
	seed := maphash.MakeSeed()
	return newIndex(func(s string) uint64 { return maphash.String(seed, s) })
}

func newFrames() *index[frameKey] {
	return newIndex(func(f frameKey) uint64 {
		h := mix(uint64(f.function)<<32 | uint64(f.line))
		h = mix(h ^ f.offset ^ uint64(f.module)<<40)
		return h ^ mix(uint64(f.file)<<42^uint64(f.missing)<<21^uint64(f.build))
	})
}

func newNodes() *index[nodeKey] {
	return newIndex(func(n nodeKey) uint64 { return mix(uint64(n.parent)<<32 | uint64(n.frame)) })
}

func newLabels() *index[labelKey] {
	return newIndex(func(l labelKey) uint64 {
		h := mix(uint64(l.pid)<<32 | uint64(l.tid))
		h = mix(h ^ uint64(l.process)<<32 ^ uint64(l.thread))
		h = mix(h ^ uint64(l.namespace)<<32 ^ uint64(l.pod))
		return mix(h ^ uint64(l.container)<<32 ^ uint64(l.unitID))
	})
}
