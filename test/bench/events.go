package main

import (
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// program is one BPF program of the agent.
type program struct {
	probe, hook, by string
	id              ebpf.ProgramID
}

// stats is what the kernel counted of a program.
type stats struct {
	runs uint64
	time time.Duration
}

// measureEvents runs loads that fire the hooks and takes the kernel's count of
// run time of each program.
func measureEvents(o options) (string, error) {
	log.Print("cost per event …")
	a, err := start(o)
	if err != nil {
		return "", err
	}
	defer a.stop()
	progs, err := a.programs()
	if err != nil {
		return "", err
	}
	floor, closeFloor, err := emptyProgram("sched_switch")
	if err != nil {
		return "", err
	}
	defer closeFloor()
	progs = append(progs, program{probe: "(empty program)", hook: "sched_switch", by: "raw_tp", id: floor})

	enabled, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		return "", fmt.Errorf("count BPF run time: %w", err)
	}
	defer enabled.Close()
	before := readStats(progs)
	if err := stir(); err != nil {
		return "", err
	}
	after := readStats(progs)
	return eventTable(progs, before, after), nil
}

func eventTable(progs []program, before, after []stats) string {
	mean := func(i int) float64 {
		n := after[i].runs - before[i].runs
		if n == 0 {
			return 0
		}
		return float64(after[i].time-before[i].time) / float64(n)
	}
	floor := mean(len(progs) - 1)
	var b strings.Builder
	b.WriteString("## Per event\n\nMean run time of each program while a pipe ping-pong, direct reads and refused connects run; ")
	fmt.Fprintf(&b, "the kernel's own counting adds about %.0f ns (the empty program), which the last column leaves out.\n\n", floor)
	b.WriteString("| probe | hook | by | runs | ns per run | ns, body |\n|---|---|---|---|---|---|\n")
	var pair float64
	for i, p := range progs {
		n := after[i].runs - before[i].runs
		if n == 0 {
			fmt.Fprintf(&b, "| %s | %s | %s | 0 | did not fire | |\n", p.probe, p.hook, p.by)
			continue
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %d | %.0f | %.0f |\n", p.probe, p.hook, p.by, n, mean(i), max(0, mean(i)-floor))
		if p.probe == "runqueue" && (p.hook == "sched_wakeup" || p.hook == "sched_switch") {
			pair += max(0, mean(i)-floor)
		}
	}
	fmt.Fprintf(&b, "\nOne wakeup and one switch of the run-queue probe together: **%.0f ns** of BPF body (target ≤ 185 ns).\n", pair)
	return b.String()
}

func (a *agent) programs() ([]program, error) {
	var list struct {
		Probes []struct {
			Name  string
			Hooks []struct {
				Hook, By string
				ID       uint32
			}
		}
	}
	if err := a.get("/api/v1/probes", &list); err != nil {
		return nil, err
	}
	var out []program
	for _, p := range list.Probes {
		for _, h := range p.Hooks {
			if h.ID != 0 {
				out = append(out, program{p.Name, h.Hook, h.By, ebpf.ProgramID(h.ID)})
			}
		}
	}
	return out, nil
}

func readStats(progs []program) []stats {
	out := make([]stats, len(progs))
	for i, p := range progs {
		prog, err := ebpf.NewProgramFromID(p.id)
		if err != nil {
			continue
		}
		if s, err := prog.Stats(); err == nil {
			out[i] = stats{s.RunCount, s.Runtime}
		}
		prog.Close()
	}
	return out
}

// emptyProgram attaches a program that does nothing: the floor of the kernel's count.
func emptyProgram(tp string) (ebpf.ProgramID, func(), error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "empty", Type: ebpf.RawTracepoint, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		return 0, nil, err
	}
	l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: tp, Program: p})
	if err != nil {
		p.Close()
		return 0, nil, err
	}
	info, err := p.Info()
	if err != nil {
		return 0, nil, err
	}
	id, _ := info.ID()
	return id, func() { l.Close(); p.Close() }, nil
}

// stir fires the hooks: switches, block I/O, drops.
func stir() error {
	dir, err := os.MkdirTemp("", "huatuo-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	for _, c := range [][]string{
		{"perf", "bench", "sched", "pipe", "-l", "300000"},
		{"fio", "--name=x", "--filename=" + dir + "/f", "--rw=randread", "--bs=4k", "--direct=1", "--runtime=2", "--time_based", "--size=64m"},
	} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", c[0], err, out)
		}
	}
	for range 2000 {
		if c, err := net.Dial("tcp", "127.0.0.1:1"); err == nil {
			c.Close()
		}
	}
	return nil
}
