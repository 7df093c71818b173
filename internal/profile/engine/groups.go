//go:build !noprofiler

package engine

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// group is hooks that belong together: all work, or the types of them are off.
type group struct {
	kinds []kind
	hooks []hook
	needs func() error                     // what else the kernel must have; nil: nothing
	set   func(*ebpf.CollectionSpec) error // constants; nil: none
}

// hook is a program and where it is attached.
type hook struct {
	program    string
	tracepoint string // "": a probe at finish_task_switch
	arguments  []int  // how many the tracepoint may have, to be known; nil: however many
	unwinds    bool
}

const finishSwitch = "finish_task_switch"

func (k hook) name() string {
	if k.tracepoint == "" {
		return finishSwitch
	}
	return k.tracepoint
}

func (h *hooks) groups() []group {
	back := hook{program: "back", tracepoint: "sched_exit_tp", unwinds: true}
	if _, err := h.arguments(back.tracepoint); err != nil { // before v6.16
		back = hook{program: "back_by_probe", unwinds: true}
	}
	return []group{
		{
			kinds: []kind{blocked, runQueue, diskWait, idle, futexLock, futexOther, blockedFile, diskFile},
			hooks: []hook{{program: "switched", tracepoint: "sched_switch", arguments: []int{3, 4}}, back},
			set:   h.setWaits,
		},
		{
			kinds: []kind{kernelLock},
			hooks: []hook{{program: "contended", tracepoint: "contention_begin"}, {program: "acquired", tracepoint: "contention_end", unwinds: true}},
		},
		{
			kinds: []kind{blockRequest},
			hooks: []hook{
				{program: "request_ends", tracepoint: "block_rq_complete", arguments: []int{3}},
				{program: "request_begins", tracepoint: "block_getrq", arguments: []int{1, 3}, unwinds: true},
			},
			set: h.setBlock,
		},
		{
			kinds: []kind{virtual},
			hooks: []hook{{program: "call_begins", tracepoint: "sys_enter"}, {program: "call_ends", tracepoint: "sys_exit", unwinds: true}},
			set:   setVirtual,
		},
		{
			kinds: []kind{inUse},
			hooks: []hook{{program: "page_back", tracepoint: "mm_page_free"}, {program: "page_given", tracepoint: "mm_page_alloc", unwinds: true}},
			needs: h.hasPages,
		},
	}
}

// arguments tells how many arguments a tracepoint hands to programs.
func (h *hooks) arguments(tracepoint string) (int, error) {
	var def *btf.Typedef
	if err := h.kernel.TypeByName("btf_trace_"+tracepoint, &def); err != nil {
		return 0, fmt.Errorf("the kernel has no tracepoint %s", tracepoint)
	}
	if p, ok := def.Type.(*btf.Pointer); ok {
		if f, ok := p.Target.(*btf.FuncProto); ok {
			return len(f.Params) - 1, nil // the first is of whoever attached
		}
	}
	return 0, fmt.Errorf("the tracepoint %s is of an unknown kind", tracepoint)
}

// has tells what is missing for a hook.
func (h *hooks) has(k hook) error {
	if k.tracepoint == "" {
		return nil // attaching tells
	}
	n, err := h.arguments(k.tracepoint)
	if err != nil || k.arguments == nil {
		return err
	}
	for _, ok := range k.arguments {
		if n == ok {
			return nil
		}
	}
	return fmt.Errorf("the tracepoint %s has %d arguments on this kernel", k.tracepoint, n)
}

func (h *hooks) setWaits(spec *ebpf.CollectionSpec) error {
	n, err := h.arguments("sched_switch")
	if err != nil {
		return err
	}
	table := calls(runtime.GOARCH)
	var content []ebpf.MapKV
	for n, what := range table {
		content = append(content, ebpf.MapKV{Key: uint32(n), Value: what})
	}
	spec.Maps["calls"].Contents = content
	return set(spec, "has_prev_state", n == 4)
}

func (h *hooks) setBlock(spec *ebpf.CollectionSpec) error {
	n, err := h.arguments("block_getrq")
	if err != nil {
		return err
	}
	at := uint32(0)
	if n == 3 {
		at = 1
	}
	return set(spec, "bio_argument", at)
}

func setVirtual(spec *ebpf.CollectionSpec) error {
	for name, n := range map[string]int32{"mmap_number": unix.SYS_MMAP, "mremap_number": unix.SYS_MREMAP, "brk_number": unix.SYS_BRK} {
		if err := set(spec, name, n); err != nil {
			return err
		}
	}
	return nil
}

// hasPages tells whether the number of a page can be told by its address.
func (h *hooks) hasPages() error {
	var page *btf.Struct
	if err := h.kernel.TypeByName("page", &page); err != nil {
		return fmt.Errorf("find struct page: %w", err)
	}
	if page.Size != 64 {
		return fmt.Errorf("struct page has %d bytes on this kernel, not 64", page.Size)
	}
	return nil
}

// attach attaches a program.
func (k hook) attach(p *ebpf.Program) (links []interface{ Close() error }, err error) {
	if k.tracepoint != "" {
		l, err := link.AttachRawTracepoint(link.RawTracepointOptions{Name: k.tracepoint, Program: p})
		if err != nil {
			return nil, fmt.Errorf("attach to %s: %w", k.tracepoint, err)
		}
		return append(links, l), nil
	}
	names, err := symbolsOf(finishSwitch)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		l, e := link.Kprobe(name, p, nil)
		if e != nil {
			err = fmt.Errorf("the kernel has no tracepoint sched_exit_tp, and probe %s: %w", name, e)
			continue
		}
		links = append(links, l)
	}
	if len(links) > 0 {
		return links, nil
	}
	if err == nil {
		err = errors.New("the kernel has no tracepoint sched_exit_tp, and no function " + finishSwitch)
	}
	return nil, err
}

// symbolsOf lists the kernel's functions of a name, those that a compiler made of it among them.
func symbolsOf(function string) (names []string, err error) {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		fields := strings.Fields(s.Text())
		if len(fields) != 3 || fields[1] != "t" && fields[1] != "T" {
			continue
		}
		base, suffix, _ := strings.Cut(fields[2], ".")
		if base == function && !strings.Contains(suffix, "cold") {
			names = append(names, fields[2])
		}
	}
	return names, s.Err()
}
