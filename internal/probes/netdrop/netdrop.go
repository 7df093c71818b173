// Package netdrop counts the packets that the kernel drops, by reason, and reports those that matter.
package netdrop

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type drop_wire -type drop_key -type ht_packet bpf netdrop.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2
