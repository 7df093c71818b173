// Package bpf holds the programs that enter the unwinder from hooks of our own.
// They include its headers, and so have its licence: GPL-2.0-only, see LICENSE
// in this directory.
package bpf

//go:generate sh -c "D=$(go list -m -f '{{.Dir}}' go.opentelemetry.io/ebpf-profiler)/support/ebpf && go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -tags '!noprofiler' -no-global-types Entries entries.bpf.c -- -I${DOLLAR}D -ffile-prefix-map=${DOLLAR}D=unwinder -std=gnu17 -Wall -Werror -Wno-address-of-packed-member -Wno-unused-label -mcpu=v2"
