package load

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// The flavours of a probe's object: bpf/include/flavour.h tells how they differ.
const (
	Modern = "modern"
	Legacy = "legacy"
)

// Flavour tells which flavour of the objects this kernel gets, and why when it
// is the legacy one.
func (k *Kernel) Flavour() (name, reason string) {
	if k.legacy == "" {
		return Modern, ""
	}
	return Legacy, k.legacy
}

// Load prepares the object that suits this kernel: its modern or its legacy
// flavour. legacy is nil when the object is of no use to kernels that need that.
func (k *Kernel) Load(modern, legacy func() (*ebpf.CollectionSpec, error)) (*Loader, error) {
	if k == nil {
		return nil, errors.New("BUG: a probe that loads BPF got no kernel")
	}
	read := modern
	if k.legacy != "" {
		read = legacy
	}
	if read == nil {
		return nil, fmt.Errorf("there is no legacy flavour of this probe, whose hooks are younger than what it needs: %s: %w", k.legacy, errors.ErrUnsupported)
	}
	spec, err := read()
	if err != nil {
		return nil, fmt.Errorf("read BPF object: %w", err)
	}
	return k.New(spec)
}

// chooseFlavour decides by what the kernel can do, not by its version: an
// enterprise kernel that calls itself 4.18 may do all that the modern objects need.
func (k *Kernel) chooseFlavour() error {
	switch k.opts.Flavour {
	case "", "auto":
		k.legacy = firstMissing(modernNeeds())
	case Modern:
	case Legacy:
		k.legacy = "chosen by configuration (kernel.flavour)"
	default:
		return fmt.Errorf("unknown flavour %q: want auto, modern or legacy", k.opts.Flavour)
	}
	if k.legacy == "" {
		return nil
	}
	if k.opts.Ring == "ringbuf" {
		return fmt.Errorf("kernel.ring is ringbuf, which the legacy flavour has not; it is taken because: %s", k.legacy)
	}
	k.ring = false
	return nil
}

// need is something that modern objects cannot do without.
type need struct {
	what string
	try  func() error
}

func modernNeeds() []need {
	return []need{
		{"constants in read-only maps (Linux 5.5)", tryConstants},
		{"maps that user space can map (Linux 5.5)", tryMmapable},
		{"bounded loops (Linux 5.3)", tryLoop},
	}
}

// firstMissing tells what the kernel lacks, and "" when it has all or when this
// process may not ask: then Usable says so.
func firstMissing(needs []need) string {
	for _, n := range needs {
		if err := n.try(); err != nil && !errors.Is(err, unix.EPERM) {
			return "this kernel lacks " + n.what
		}
	}
	return ""
}

// tryConstants loads a program that is wrong unless the verifier knows the
// value in a read-only map: a23740ec43ba ("bpf: Track contents of read-only maps
// as scalars"), v5.5. Without it the code for the ring buffer, which such a
// constant switches off, would be looked at.
func tryConstants() error {
	one := make([]byte, 4)
	binary.NativeEndian.PutUint32(one, 1)
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1, Flags: unix.BPF_F_RDONLY_PROG,
		Contents: []ebpf.MapKV{{Key: uint32(0), Value: one}},
	})
	if err != nil {
		return err
	}
	defer m.Close()
	if err := m.Freeze(); err != nil {
		return err
	}
	return tryProgram(asm.Instructions{
		asm.LoadMapValue(asm.R1, m.FD(), 0),
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word),
		asm.JEq.Imm(asm.R2, 1, "known"),
		asm.Mov.Reg(asm.R0, asm.R9), // R9 was never written
		asm.Mov.Imm(asm.R0, 0).WithSymbol("known"),
		asm.Return(),
	})
}

func tryMmapable() error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1, Flags: unix.BPF_F_MMAPABLE})
	if err != nil {
		return err
	}
	return m.Close()
}

func tryLoop() error {
	return tryProgram(asm.Instructions{
		asm.Mov.Imm(asm.R0, 2),
		asm.Sub.Imm(asm.R0, 1).WithSymbol("again"),
		asm.JNE.Imm(asm.R0, 0, "again"),
		asm.Return(),
	})
}

func tryProgram(ins asm.Instructions) error {
	p, err := ebpf.NewProgramWithOptions(&ebpf.ProgramSpec{Type: ebpf.RawTracepoint, License: "GPL", Instructions: ins}, ebpf.ProgramOptions{LogDisabled: true})
	if err != nil {
		return err
	}
	return p.Close()
}
