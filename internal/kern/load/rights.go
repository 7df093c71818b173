package load

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// permitted returns nil when this process may load tracing programs, and else
// an error that wraps errors.ErrUnsupported and names what it lacks: a process
// gets no capabilities while it runs, so there is no use in trying again. It
// asks once.
func (k *Kernel) permitted() error {
	k.permit.Do(func() {
		if forbidden(loadTrivial()) {
			k.denied = fmt.Errorf("not allowed to load BPF programs: %s: %w", withheld(lacking()), errors.ErrUnsupported)
		}
	})
	return k.denied
}

// loadTrivial tries to load the smallest of all tracing programs.
func loadTrivial() error {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.RawTracepoint, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return err
	}
	return p.Close()
}

func forbidden(err error) bool { return errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) }

// lacking lists the capabilities that loading a tracing program needs and this
// process does not have. CAP_SYS_ADMIN stands for both, and is the only one
// before 2c78ee898d8f ("bpf: Implement CAP_BPF"), v5.8.
func lacking() (names []string) {
	const sysAdmin = 21
	eff, err := effective("/proc/self/status")
	if err != nil || eff&(1<<sysAdmin) != 0 {
		return nil
	}
	for _, c := range []struct {
		bit  int
		name string
	}{{39, "CAP_BPF"}, {38, "CAP_PERFMON"}} {
		if eff&(1<<c.bit) == 0 {
			names = append(names, c.name)
		}
	}
	return names
}

// withheld says who is in the way.
func withheld(lacking []string) string {
	if len(lacking) == 0 {
		return "the kernel, a security module or a seccomp filter refuses it (before Linux 5.8 CAP_SYS_ADMIN is needed)"
	}
	return "this process lacks " + strings.Join(lacking, " and ")
}

// effective reads the set of effective capabilities from a status file of /proc.
func effective(path string) (set uint64, err error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			_, err := fmt.Sscanf(strings.TrimSpace(v), "%x", &set)
			return set, err
		}
	}
	return 0, fmt.Errorf("no CapEff in %s", path)
}
