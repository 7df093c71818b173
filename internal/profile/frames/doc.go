// Package frames takes stacks by frame pointers: of the kernel always, of
// programs as far as their code keeps frame pointers. It is for kernels on which
// the unwinder of internal/profile/engine does not work, for builds without it,
// and for hosts that cannot spare its memory.
//
// A perf event of each CPU's clock runs one BPF program, which walks both stacks
// with bpf_get_stack and sends them with whose they are. Nothing is added up in
// the kernel, although bpf_get_stackid could: a sample is some 300 bytes and
// there are 19 a second and CPU, so a map of stacks would cost more memory (16 MB
// for as many as a ring of 128 KiB carries in a second) than it saves time, its
// collisions would lose stacks, and samples would lose their time, which the heat
// map shows.
//
// What it cannot see: callers of code that was compiled without frame pointers,
// which is most of what distributions ship, and the functions of interpreters. A
// stack whose outermost frame is not one that threads begin with is marked as
// truncated.
package frames

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type stack_wire bpf frames.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types bpfLegacy frames.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2 -DHT_LEGACY
