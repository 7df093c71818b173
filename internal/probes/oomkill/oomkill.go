// Package oomkill x.
package oomkill

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type oom_wire -type oom_level bpf oomkill.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2
