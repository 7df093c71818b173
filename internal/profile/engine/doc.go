// Package engine takes stacks of everything that runs: kernel, native code
// without frame pointers, and the interpreters and JIT compilers of the
// languages that services are written in.
//
// It is the only package that knows go.opentelemetry.io/ebpf-profiler, whose
// interfaces may change with any of its monthly tags. The build tag noprofiler
// leaves it out; what is left says so.
package engine
