// Package stuckcpu keeps a CPU in the kernel: nothing else runs on it, so that
// the kernel's watchdogs report it.
package stuckcpu

import (
	"errors"
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"golang.org/x/sys/unix"
)

// Hold keeps the CPU on which the calling thread runs in the kernel for d.
// Interrupts stay on. It returns an error that wraps errors.ErrUnsupported
// before Linux 5.17, which has no bpf_loop.
func Hold(d time.Duration) error {
	if err := features.HaveProgramHelper(ebpf.Syscall, asm.FnLoop); err != nil {
		return fmt.Errorf("needs bpf_loop in a program that a system call runs (Linux 5.17): %w", errors.ErrUnsupported)
	}
	disable, err := preemptDisable()
	if err != nil {
		return err
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "stuck", Type: ebpf.Syscall, Flags: unix.BPF_F_SLEEPABLE, License: "GPL", Instructions: program(d, disable),
	})
	if err != nil {
		return fmt.Errorf("load the program: %w", err)
	}
	defer p.Close()
	if _, err := p.Run(&ebpf.RunOptions{}); err != nil {
		return fmt.Errorf("run the program: %w", err)
	}
	return nil
}

// HoldSoft keeps soft interrupts off on the CPU on which the calling thread runs,
// for d: the kernel tries programs of packets that way. Hardware interrupts come,
// and what they leave for later waits. It returns errors as Hold does.
func HoldSoft(d time.Duration) error {
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return fmt.Errorf("read the kernel's BTF: %w", err)
	}
	// 401cb7dae813 ("net: Reference bpf_redirect_info via task_struct on
	// PREEMPT_RT."), v6.11: a try runs with soft interrupts off, and has this.
	var context *btf.Struct
	if err := kernel.TypeByName("bpf_net_context", &context); err != nil {
		return fmt.Errorf("needs a kernel that tries programs with soft interrupts off (Linux 6.11): %w", errors.ErrUnsupported)
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "stuck", Type: ebpf.SchedCLS, License: "GPL", Instructions: program(d, [2]asm.Instructions{})})
	if err != nil {
		return fmt.Errorf("load the program: %w", err)
	}
	defer p.Close()
	if _, err := p.Run(&ebpf.RunOptions{Data: make([]byte, 64)}); err != nil {
		return fmt.Errorf("run the program: %w", err)
	}
	return nil
}

// preemptDisable returns the calls that begin and end what cannot be preempted.
// Kernels without these functions (before 6.10) are mostly of those where the
// kernel is not preempted anyway, and need none.
func preemptDisable() ([2]asm.Instructions, error) {
	var calls [2]asm.Instructions
	kernel, err := btf.LoadKernelSpec()
	if err != nil {
		return calls, fmt.Errorf("read the kernel's BTF: %w", err)
	}
	for i, name := range []string{"bpf_preempt_disable", "bpf_preempt_enable"} {
		var f *btf.Func
		if err := kernel.TypeByName(name, &f); errors.Is(err, btf.ErrNotFound) {
			return [2]asm.Instructions{}, nil
		} else if err != nil {
			return calls, fmt.Errorf("find %s: %w", name, err)
		}
		id, err := kernel.TypeID(f)
		if err != nil {
			return calls, fmt.Errorf("find %s: %w", name, err)
		}
		calls[i] = asm.Instructions{{OpCode: asm.OpCode(asm.JumpClass).SetJumpOp(asm.Call), Src: asm.PseudoKfuncCall, Constant: int64(id)}}
	}
	return calls, nil
}

// program has two loops, one in the other: one alone ends after 2^23 turns.
func program(d time.Duration, preempt [2]asm.Instructions) asm.Instructions {
	number := &btf.Int{Name: "long", Size: 8, Encoding: btf.Signed}
	main := &btf.Func{Name: "stuck", Linkage: btf.GlobalFunc, Type: &btf.FuncProto{Return: &btf.Int{Name: "int", Size: 4, Encoding: btf.Signed},
		Params: []btf.FuncParam{{Name: "ctx", Type: &btf.Pointer{Target: &btf.Void{}}}}}}
	callback := func(name string) *btf.Func {
		return &btf.Func{Name: name, Linkage: btf.StaticFunc, Type: &btf.FuncProto{Return: number,
			Params: []btf.FuncParam{{Name: "i", Type: number}, {Name: "ctx", Type: &btf.Pointer{Target: &btf.Void{}}}}}}
	}
	loop := func(f string) asm.Instructions { // over f, with the context in R3
		return asm.Instructions{
			asm.Mov.Imm(asm.R1, 1<<23),
			asm.Instruction{OpCode: asm.LoadImmOp(asm.DWord), Dst: asm.R2, Src: asm.PseudoFunc, Constant: -1}.WithReference(f),
			asm.Mov.Imm(asm.R4, 0),
			asm.FnLoop.Call(),
		}
	}
	late := func(again string) asm.Instructions { // returns 1 after the deadline, to which R6 points, and 0 before
		return asm.Instructions{
			asm.FnKtimeGetNs.Call(),
			asm.LoadMem(asm.R1, asm.R6, 0, asm.DWord),
			asm.JLT.Reg(asm.R0, asm.R1, again),
			asm.Mov.Imm(asm.R0, 1),
			asm.Return(),
			asm.Mov.Imm(asm.R0, 0).WithSymbol(again),
			asm.Return(),
		}
	}
	ins := asm.Instructions{btf.WithFuncMetadata(asm.FnKtimeGetNs.Call().WithSymbol("stuck"), main)}
	ins = append(ins,
		asm.LoadImm(asm.R1, int64(d), asm.DWord),
		asm.Add.Reg(asm.R0, asm.R1),
		asm.StoreMem(asm.RFP, -8, asm.R0, asm.DWord))
	ins = append(ins, preempt[0]...)
	ins = append(ins, asm.Mov.Reg(asm.R3, asm.RFP), asm.Add.Imm(asm.R3, -8))
	ins = append(ins, loop("outer")...)
	ins = append(ins, preempt[1]...)
	ins = append(ins, asm.Mov.Imm(asm.R0, 0), asm.Return())

	ins = append(ins, btf.WithFuncMetadata(asm.Mov.Reg(asm.R6, asm.R2).WithSymbol("outer"), callback("outer")), asm.Mov.Reg(asm.R3, asm.R2))
	ins = append(ins, loop("inner")...)
	ins = append(ins, late("outer_again")...)

	ins = append(ins, btf.WithFuncMetadata(asm.Mov.Reg(asm.R6, asm.R2).WithSymbol("inner"), callback("inner")))
	return append(ins, late("inner_again")...)
}
