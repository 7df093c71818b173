package load

import "github.com/cilium/ebpf/btf"

// TracepointArgs returns how many arguments a tracepoint of the running kernel
// has, and 0 when the kernel has no such tracepoint or its types do not tell: the
// typedefs that do came with v5.5 (e8c423fb31fa, "bpf: Add typecast to
// raw_tracepoints to help BTF generation"), so 0 stands for the oldest form.
// Stable kernels take over changes of arguments, so that the version of a
// kernel does not tell.
func (k *Kernel) TracepointArgs(name string) int {
	var types *btf.Spec
	if k != nil {
		types = k.Types()
	}
	if types == nil {
		return 0
	}
	var t *btf.Typedef
	if err := types.TypeByName("btf_trace_"+name, &t); err != nil {
		return 0
	}
	p, ok := btf.UnderlyingType(t).(*btf.Pointer)
	if !ok {
		return 0
	}
	f, ok := btf.UnderlyingType(p.Target).(*btf.FuncProto)
	if !ok || len(f.Params) == 0 {
		return 0
	}
	return len(f.Params) - 1 // the first is the registered probe's own data
}
