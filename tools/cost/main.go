// Command cost writes docs/ledger/cost.txt: for each BPF program how many
// instructions it has and how many the verifier of the running kernel walked
// through. A jump in the second is a program on its way to the verifier's
// limit. It loads every program, so it needs root.
//
// The number of a program depends on the kernel, which the file names.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"huatuo/internal/kern/load"
)

const ledger = "docs/ledger/cost.txt"

func main() {
	table, err := measure(".", verify)
	if err == nil {
		err = os.WriteFile(ledger, []byte(table.String()), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "cost:", err)
		os.Exit(1)
	}
}

// table is the content of the ledger.
type table struct {
	kernel string
	rows   []row
}

type row struct {
	probe, program, kind string
	instructions         int    // as compiled
	verified             uint32 // 0 when this kernel does not load it
}

// String is the form in the ledger.
func (t *table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# BPF programs: instructions as compiled, instructions that the verifier of Linux %s processed (limit 1000000).\n", t.kernel)
	fmt.Fprintf(&b, "# - is a program that this kernel does not load; another of the same hook takes its place.\n")
	fmt.Fprintf(&b, "%-18s %-36s %-10s %6s %8s\n", "probe", "program", "kind", "insns", "verified")
	for _, r := range t.rows {
		verified := "-"
		if r.verified > 0 {
			verified = fmt.Sprint(r.verified)
		}
		fmt.Fprintf(&b, "%-18s %-36s %-10s %6d %8s\n", r.probe, r.program, r.kind, r.instructions, verified)
	}
	return b.String()
}

// measure makes the table of the objects below root. verify may be left out: a
// table without the verifier's counts needs no privileges.
func measure(root string, verify func(*ebpf.CollectionSpec, string) (uint32, error)) (*table, error) {
	release, err := kernelRelease()
	if err != nil {
		return nil, err
	}
	objects, err := filepath.Glob(filepath.Join(root, "internal/pro*/*/bpf*_bpfel.o")) // probes and profile
	if err != nil {
		return nil, err
	}
	t := &table{kernel: release}
	for _, o := range objects {
		spec, err := ebpf.LoadCollectionSpec(o)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", o, err)
		}
		if err := load.InlineConstants(spec); err != nil {
			return nil, fmt.Errorf("read %s: %w", o, err)
		}
		probe := filepath.Base(filepath.Dir(o))
		if strings.HasPrefix(filepath.Base(o), "bpflegacy_") {
			probe += "/legacy"
		}
		for _, name := range programs(spec) {
			p := spec.Programs[name]
			kind, _, _ := strings.Cut(p.SectionName, "/")
			r := row{probe: probe, program: name, kind: kind, instructions: len(p.Instructions)}
			if verify != nil {
				if r.verified, err = verify(spec, name); err != nil {
					return nil, fmt.Errorf("%s: %w", probe, err)
				}
			}
			t.rows = append(t.rows, r)
		}
	}
	return t, nil
}

func programs(spec *ebpf.CollectionSpec) []string {
	var names []string
	for n := range spec.Programs {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// verify loads one program of the object and returns what its verifier
// counted; 0 when this kernel refuses it, as it does with a program for the
// arguments that the hook had on older kernels. That a program which loaded
// before is refused shows in the ledger.
func verify(spec *ebpf.CollectionSpec, name string) (uint32, error) {
	one := *spec.Copy()
	one.Programs = map[string]*ebpf.ProgramSpec{name: one.Programs[name]}
	c, err := ebpf.NewCollection(&one)
	switch {
	case errors.Is(err, unix.EPERM) && os.Geteuid() != 0:
		return 0, errors.New("loading BPF needs root")
	case err != nil:
		return 0, nil
	}
	defer c.Close()
	info, err := c.Programs[name].Info()
	if err != nil {
		return 0, fmt.Errorf("read info of %s: %w", name, err)
	}
	n, ok := info.VerifiedInstructions()
	if !ok {
		return 0, errors.New("this kernel does not tell the verifier's count: Linux 5.16 or newer does")
	}
	return n, nil
}

func kernelRelease() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("read kernel release: %w", err)
	}
	// The part after the version names a build, not a kernel.
	release, _, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), "-")
	return release, nil
}
