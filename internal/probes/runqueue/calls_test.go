package runqueue

import (
	"bytes"
	"runtime"
	"testing"

	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// TestRegistersAt: at the end of the stack, or nowhere.
func TestRegistersAt(t *testing.T) {
	b, err := btf.NewBuilder([]btf.Type{&btf.Struct{Name: "pt_regs", Size: 168}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := b.Marshal(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	types, err := btf.LoadSpecFromReader(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		types *btf.Spec
		arch  string
		page  int
		want  uint32
	}{{types, "amd64", 4096, 16384 - 168}, {types, "arm64", 65536, 65536 - 168}, {types, "arm64", 4096, 16384 - 168}, {types, "riscv64", 4096, 0}, {nil, "amd64", 4096, 0}} {
		if got := registersAt(tt.types, tt.arch, tt.page); got != tt.want {
			t.Errorf("%s, pages of %d: %d, want %d", tt.arch, tt.page, got, tt.want)
		}
	}
}

// TestCalls: no number stands for two calls, and each architecture has all kinds.
func TestCalls(t *testing.T) {
	for arch := range numbers {
		seen := map[uint32]int{}
		for _, kind := range calls(arch) {
			seen[kind]++
		}
		for kind := uint32(lock); kind < sleepKinds; kind++ {
			if seen[kind] == 0 && kind != faultIO && kind != faultOther {
				t.Errorf("%s: no call is %s", arch, sleepNames[kind])
			}
		}
		if seen[none]+len(numbers[arch])+len(common) != tableSize {
			t.Errorf("%s: %d numbers of %d are none", arch, seen[none], tableSize)
		}
	}
	if table := calls(runtime.GOARCH); table[unix.SYS_FUTEX] != lock || table[unix.SYS_READ] != read || table[unix.SYS_PWRITE64] != write ||
		table[unix.SYS_FDATASYNC] != fsync || table[unix.SYS_OPENAT] != open || table[unix.SYS_GETDENTS64] != list {
		t.Error("the table does not agree with this machine's numbers")
	}
}
