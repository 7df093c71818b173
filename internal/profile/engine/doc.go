// Package engine takes stacks of everything that runs: kernel, native code
// without frame pointers, and the interpreters and JIT compilers of the
// languages that services are written in.
//
// The CPUs' clocks take them for the time on a CPU. Hooks of our own, in bpf,
// take them for the time off it, for locks, files and block devices, and for
// memory, and enter the same unwinder (Entries). No hook is on the path of all
// system calls, unless address space is asked for: what a thread has waited for
// is told by the registers with which it came into the kernel, when it is back
// on a CPU.
//
// It is the only package that knows go.opentelemetry.io/ebpf-profiler, whose
// interfaces may change with any of its monthly tags. The build tag noprofiler
// leaves it out; what is left says so.
package engine
