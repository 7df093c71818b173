package slab

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf/btf"

	"huatuo/internal/kern/load"
	"huatuo/internal/kern/procfs"
	"huatuo/internal/kern/ring"
	"huatuo/internal/probe"
)

// attach loads the iterator; its error tells why this kernel has it not.
func attach(env *probe.Env) (*load.Object, error) {
	if env.Kernel == nil {
		return nil, errors.New("no BPF")
	}
	at, step, err := nodesOf(env.Kernel.Types())
	if err != nil {
		return nil, err
	}
	l, err := env.Kernel.Load(loadBpf, nil)
	if err != nil {
		return nil, err
	}
	for name, v := range map[string]uint32{"nodes": possibleNodes(env.Root), "nodes_at": at, "nodes_step": step} {
		if err := l.Set(name, v); err != nil {
			return nil, err
		}
	}
	return l.Attach(load.Hook{Name: walkHook, Programs: []string{"caches"}})
}

// nodesOf tells where a cache of this kernel has the pointers to its nodes, and
// how far they are apart. It is an error when the kernel has no iterator, does
// not count slabs (without CONFIG_SLUB_DEBUG), or keeps them elsewhere.
func nodesOf(types *btf.Spec) (at, step uint32, err error) {
	if types == nil {
		return 0, 0, errors.New("the kernel has no BTF")
	}
	var iter *btf.Struct
	if err := types.TypeByName("bpf_iter__kmem_cache", &iter); err != nil {
		return 0, 0, errors.New("the kernel has no struct bpf_iter__kmem_cache")
	}
	if _, ok := offset(types, "kmem_cache_node", "nr_slabs"); !ok {
		return 0, 0, errors.New("the kernel does not count slabs")
	}
	if at, ok := offset(types, "kmem_cache", "node"); ok {
		return at, 8, nil
	}
	at, ok := offset(types, "kmem_cache", "per_node")
	inner, ok2 := offset(types, "kmem_cache_per_node_ptrs", "node")
	var ptrs *btf.Struct
	if err := types.TypeByName("kmem_cache_per_node_ptrs", &ptrs); err != nil || !ok || !ok2 {
		return 0, 0, errors.New("the kernel keeps the slabs of a cache in an unknown place")
	}
	return at + inner, ptrs.Size, nil
}

// offset returns where a struct of the kernel has a member.
func offset(types *btf.Spec, name, member string) (uint32, bool) {
	var s *btf.Struct
	if err := types.TypeByName(name, &s); err != nil {
		return 0, false
	}
	i := slices.IndexFunc(s.Members, func(m btf.Member) bool { return m.Name == member })
	if i < 0 {
		return 0, false
	}
	return s.Members[i].Offset.Bytes(), true
}

// possibleNodes is how many NUMA nodes there may be; 1 when that is not known.
func possibleNodes(root string) uint32 {
	b, err := os.ReadFile(filepath.Join(root, "sys/devices/system/node/possible"))
	if err != nil {
		return 1
	}
	list := bytes.TrimSpace(b)
	last, ok := procfs.Uint(list[bytes.LastIndexAny(list, "-,")+1:])
	if !ok || last >= 1<<16 {
		return 1
	}
	return uint32(last) + 1
}

// iterSource has the kernel walk its caches.
type iterSource struct {
	o   *load.Object
	buf []byte
}

const rowBytes = int(unsafe.Sizeof(bpfCacheRow{}))

func (s *iterSource) walk() ([]cache, error) {
	it, err := s.o.Iterate(walkHook)
	if err != nil {
		return nil, err
	}
	defer it.Close()
	if s.buf == nil {
		s.buf = make([]byte, 64*rowBytes)
	}
	var all []cache
	fill := 0
	for {
		n, err := it.Read(s.buf[fill:])
		fill += n
		done := 0
		for ; fill-done >= rowBytes; done += rowBytes {
			r, err := ring.View[bpfCacheRow](s.buf[done:])
			if err != nil {
				return nil, fmt.Errorf("decode a cache: %w", err)
			}
			all = append(all, r.cache())
		}
		fill = copy(s.buf, s.buf[done:fill])
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read caches: %w", err)
		}
	}
}

func (r *bpfCacheRow) cache() cache {
	return cache{
		name:    probe.CString(r.Name[:]),
		bytes:   r.Slabs * uint64(os.Getpagesize()) << (r.Order & 31),
		objects: r.Objects,
	}
}

// fileSource reads /proc/slabinfo, for kernels without the iterator. With
// millions of objects a read takes milliseconds.
type fileSource struct {
	path string
	buf  []byte
}

func (s *fileSource) walk() ([]cache, error) {
	var err error
	if s.buf, err = procfs.ReadInto(s.path, s.buf); err != nil {
		return nil, err
	}
	return parse(s.buf, uint64(os.Getpagesize())), nil
}

// Columns of /proc/slabinfo, version 2.1.
const (
	colName     = 0
	colObjects  = 2
	colPages    = 5 // in a slab
	colSlabs    = 14
	colSlabdata = 12 // the word slabdata
)

// parse passes over lines that do not look like a cache.
func parse(file []byte, page uint64) []cache {
	var all []cache
	for line := range bytes.Lines(file) {
		f := bytes.Fields(line)
		if len(f) <= colSlabs || f[colName][0] == '#' || string(f[colSlabdata]) != "slabdata" {
			continue
		}
		objects, ok1 := procfs.Uint(f[colObjects])
		pages, ok2 := procfs.Uint(f[colPages])
		slabs, ok3 := procfs.Uint(f[colSlabs])
		if !ok1 || !ok2 || !ok3 || pages > 1<<11 || slabs > 1<<36 {
			continue
		}
		all = append(all, cache{name: strings.ToValidUTF8(string(f[colName]), "\uFFFD"), bytes: slabs * pages * page, objects: objects})
	}
	return all
}

// sortCaches puts the largest first.
func sortCaches(all []cache) {
	slices.SortFunc(all, func(x, y cache) int {
		return cmp.Or(cmp.Compare(y.bytes, x.bytes), cmp.Compare(x.name, y.name))
	})
}
