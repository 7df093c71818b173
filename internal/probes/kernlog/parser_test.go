package kernlog

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"huatuo/internal/kern/kmsg"
	"huatuo/internal/signal"
)

func TestFormats(t *testing.T) {
	for _, tt := range formats {
		t.Run(tt.name, func(t *testing.T) {
			got := parse(lines(tt.text))
			if len(got) != 1 {
				t.Fatalf("%d reports, want 1", len(got))
			}
			r := got[0].record()
			d, err := r.Document()
			if err != nil {
				t.Fatal(err)
			}
			if r.Schema != tt.schema || r.Severity != tt.severity || r.Title != tt.title || r.Process.TID != tt.tid || r.Process.Comm != tt.comm {
				t.Errorf("%s, severity %q, %q, %+v", r.Schema.Name, r.Severity, r.Title, r.Process)
			}
			b := bodyOf(r)
			if s := short(r.KernelStack); s != tt.stack || b.CPU != tt.cpu {
				t.Errorf("CPU %d, stack %s", b.CPU, s)
			}
			if tt.check != nil && !tt.check(b, r) {
				t.Errorf("%s\n%v", d.Fields, r.Registers)
			}
		})
	}
}

func bodyOf(r *signal.Record) *Report {
	switch b := r.Body.(type) {
	case *SoftLockup:
		return &b.Report
	case *HardLockup:
		return &b.Report
	case *RCUStall:
		return &b.Report
	case *WorkqueueLockup:
		return &b.Report
	case *KernelWarning:
		return &b.Report
	case *KernelBug:
		return &b.Report
	}
	panic("BUG: a body without a report")
}

// TestNoReport: lines that look a little like a report.
func TestNoReport(t *testing.T) {
	for _, s := range []string{
		"eth0: WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2",
		"audit: BUG: soft lockup - CPU#0 stuck for 22s! [x:1]",
		"WARNING: The device tree is old",
		"INFO: task sh:1 blocked for more than 120 seconds.",
		"DEBUG: kernel BUG at a.c:1!",
		"usb 1-1: new device [#1]",
		cutHere,
		" dump_stack+0x16/0x18",
		"x: page allocation failure: order:4, mode:0x40dc0",
	} {
		if got := parse(lines(s)); len(got) != 0 {
			t.Errorf("%q is %q", s, got[0].record().Title)
		}
	}
	// "cut here" without a head soon after it.
	if got := parse(lines(cutHere + strings.Repeat("\nx", 20) + "\nWARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2")); len(got) != 1 || got[0].record().Title != "kernel warning at a.c:1 in f" {
		t.Errorf("%d reports", len(got))
	}
	p := &parser{}
	p.push(&kmsg.Record{Facility: 1, Text: "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [x:1]"}, time.Now())
	if len(p.open) != 0 {
		t.Error("a process has made a report")
	}
}

// TestNames: the name of a process is anybody's choice, and so is that of its
// program. Neither may make a report, with or without the check by byProcess.
func TestNames(t *testing.T) {
	for _, name := range []string{"BUG: x", "BUG: KASAN: x", "BUG: KFENCE: ab", "BUG: KCSAN: a", "BUG: KMSAN: a", "UBSAN: a in b:1", "kernel BUG at a", "x: 0000 [#1]", "x: 0000 [#1] S",
		"Oops: 0000 [#1]", "BUG a (b): c", "BUG a (Tainted:", "[ BUG: x ]", "irq 1: nobody c", "BUG: spinlock", "BUG: MAX_a too", "Kernel panic -", "WARNING: a:1 at", "list_add doubl", "INFO: rcu_sched", "BUG: a/1", cutHere[:15]} {
		for _, rest := range []string{"[12]: segfault at 0 ip 0000 sp 0000 error 4 in f+0x1[400000+1000]", "[12] general protection fault ip:1 sp:2 error:0 in x stack guard page was hit at y[4+1]",
			" invoked oom-killer: gfp_mask=0xcc0", " (12): drop_caches: 3", ": page allocation failure: order:4", "/12: potentially unexpected fatal signal 11.", " (12) used greatest stack depth: 1 bytes left"} {
			if h, _ := findHead(name + rest); h != nil {
				t.Errorf("%q begins a report: %s", name+rest, h.kind.what)
			}
			for i := range heads {
				if heads[i].line.MatchString(name + rest) {
					t.Errorf("%q meets %s", name+rest, heads[i].line)
				}
			}
		}
	}
}

// TestEnds: how a report ends, and what lies between its lines.
func TestEnds(t *testing.T) {
	const first = "watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [a:1]\nCPU: 0 PID: 1 Comm: a Not tainted 6.1.0 #1\nCall Trace:\n f+0x1/0x2\n"
	const second = "watchdog: BUG: soft lockup - CPU#1 stuck for 23s! [b:2]\nCPU: 1 PID: 2 Comm: b Not tainted 6.1.0 #1\nCall Trace:\n g+0x1/0x2\n"
	if got := parse(lines(first + second)); len(got) != 2 || short(got[0].record().KernelStack) != "f+0x1" || short(got[1].record().KernelStack) != "g+0x1" {
		t.Errorf("by the next one: %d reports", len(got))
	}
	got := parse(lines(first + "eth0: link up\n h+0x1/0x2\n" + strings.Repeat("eth0: link down\n", 5)))
	if len(got) != 1 || short(got[0].record().KernelStack) != "f+0x1 h+0x1" {
		t.Errorf("with a line of another: %d reports", len(got))
	} else if text := bodyOf(got[0].record()).Text; len(text) != 6 {
		t.Errorf("text %q", text)
	}
	got = parse(lines(first + strings.Repeat("eth0: link down\n", maxOdd) + " h+0x1/0x2\n"))
	if len(got) != 1 || short(got[0].record().KernelStack) != "f+0x1" {
		t.Errorf("by lines of others: %d reports", len(got))
	}
	got = parse(lines(first + strings.Repeat("Code: 00\n", 3*maxLines)))
	if len(got) != 1 || len(got[0].raw) != maxRaw || got[0].cut != maxLines-maxRaw {
		t.Errorf("by length: %d reports, %d lines and %d cut", len(got), len(got[0].raw), got[0].cut)
	}
}

// TestQuiet: the clock ends reports.
func TestQuiet(t *testing.T) {
	now := time.Unix(100, 0)
	p := &parser{}
	push := func(s string) { p.push(&kmsg.Record{Text: s}, now) }
	if p.next(now) >= 0 {
		t.Error("nothing is open and something is due")
	}
	push("watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [a:1]")
	if d := p.next(now); d != stackless {
		t.Errorf("without a stack: %v", d)
	}
	push("Call Trace:")
	push(" f+0x1/0x2")
	if d := p.next(now); d != quiet {
		t.Errorf("with a stack: %v", d)
	}
	push("Sending NMI from CPU 0 to CPUs 1:")
	if d := p.next(now); d != asked {
		t.Errorf("another CPU was asked: %v", d)
	}
	push("NMI backtrace for cpu 1")
	now = now.Add(quiet - time.Millisecond)
	if p.due(now); len(p.take()) != 0 {
		t.Error("over too early")
	}
	now = now.Add(time.Millisecond)
	if p.due(now); len(p.take()) != 1 || p.next(now) >= 0 {
		t.Error("not over")
	}
	push("watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [a:1]")
	for range 400 {
		now = now.Add(100 * time.Millisecond)
		push(" f+0x1/0x2")
		p.due(now)
	}
	if len(p.take()) != 1 {
		t.Error("a report goes on for ever")
	}
}

// TestCallers: where the log tells who writes, two reports at once are two.
func TestCallers(t *testing.T) {
	one := lines("watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [a:1]\nCall Trace:\n f+0x1/0x2\n f+0x2/0x2")
	two := lines("watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [b:2]\nCall Trace:\n g+0x1/0x2\n g+0x2/0x2")
	var both []kmsg.Record
	for i := range one {
		one[i].Caller, two[i].Caller = "C0", "C1"
		both = append(both, one[i], two[i])
	}
	got := parse(both)
	if len(got) != 2 || short(got[0].record().KernelStack) != "f+0x1 f+0x2" || short(got[1].record().KernelStack) != "g+0x1 g+0x2" {
		t.Errorf("%d reports", len(got))
	}
	// A CPU that was asked for its stack.
	stall := lines("rcu: INFO: rcu_sched detected stalls on CPUs/tasks:\nrcu: \t1-....: (0 ticks this GP)\nSending NMI from CPU 0 to CPUs 1:\nNMI backtrace for cpu 1\nCall Trace:\n f+0x1/0x2")
	for i := range stall {
		stall[i].Caller = []string{"C0", "T9"}[i/3]
	}
	if got := parse(stall); len(got) != 1 || short(got[0].record().KernelStack) != "f+0x1" {
		t.Errorf("%d reports", len(got))
	}
}

func TestMask(t *testing.T) {
	for in, want := range map[string]string{
		"RSP: 0018:ffffbd7940c0fd70 EFLAGS":          "RSP: 0018:" + masked + " EFLAGS",
		"GS:ffff9e6afbc00000(0000)":                  "GS:" + masked + "(0000)",
		"0xffff5526c46ff600":                         "0x" + masked,
		"ff38caa44050bb40":                           masked, // 5 levels
		"FFFFFFFF81000000":                           masked,
		"ffff888101234560ffff888101234561":           masked,
		"00007ffd12345678 ffffffffffffffda":          "00007ffd12345678 ffffffffffffffda",
		"dead000000000100":                           "dead000000000100",
		"0123456789abcdef0123456789abcdef01234567":   "0123456789abcdef0123456789abcdef01234567",
		"Object   ffff888101234560: 6b 6b 41 41 a":   "Object [memory]",
		"Kernel Offset: disabled":                    "Kernel Offset: disabled",
		"PHYS_OFFSET: 0xfffff0f440000000":            "PHYS_OFFSET: " + masked,
		"Code: 48 c7 c0 ff ff ff ff eb aa <48> 3d 0": "Code: 48 c7 c0 ff ff ff ff eb aa <48> 3d 0",
	} {
		if got := mask(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

// TestClip: an address is not cut into one that is none.
func TestClip(t *testing.T) {
	for n := range 40 {
		got := parse(lines("watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [a:1]\nCode: " + strings.Repeat("x", maxRawLine-30+n) + " ffff888101234560"))
		if text := strings.Join(bodyOf(got[0].record()).Text, " "); strings.Contains(text, "ffff") {
			t.Fatal(text)
		}
	}
}

// FuzzParser: no panic, bounded memory, no kernel address.
func FuzzParser(f *testing.F) {
	for _, tt := range formats {
		f.Add(tt.text, byte(7))
	}
	f.Fuzz(func(t *testing.T, text string, seed byte) {
		p := &parser{tick: time.Millisecond}
		now := time.Unix(0, 0)
		check := func() {
			if len(p.open) > maxOpen {
				t.Fatalf("%d reports are open", len(p.open))
			}
			for _, r := range p.take() {
				if len(r.raw) > maxRaw || len(r.sections) > maxSections || len(r.reason) > maxReason || len(r.pools) > maxList || len(r.regs) > maxRegs || len(r.cpus) > maxList {
					t.Fatalf("a report is too large: %+v", r)
				}
				rec := r.record()
				if _, err := rec.Document(); err != nil {
					t.Fatal(err)
				}
				b := bodyOf(rec)
				all := append([]string{rec.Title, b.Reason, b.Function, b.Release, b.Hardware, b.Workqueue}, b.Text...)
				for _, v := range rec.Registers {
					all = append(all, v)
				}
				for _, f := range rec.KernelStack {
					all = append(all, f.Function)
				}
				for _, s := range all {
					if mask(s) != s {
						t.Fatalf("not masked: %q", s)
					}
				}
			}
		}
		for i, l := range strings.Split(text, "\n") {
			now = now.Add(time.Duration(int(seed)*i%700) * time.Millisecond)
			p.due(now)
			p.push(&kmsg.Record{Text: l, Caller: fmt.Sprint(i * int(seed) % 11 / 9)}, now)
			check()
		}
		p.due(now.Add(longest))
		check()
		if len(p.open) != 0 {
			t.Fatal("a report is open for ever")
		}
	})
}

func BenchmarkReport(b *testing.B) {
	records := recorded(b, "testdata/6.18-amd64.kmsg")
	for b.Loop() {
		for _, r := range parse(records) {
			r.record()
		}
	}
}

func BenchmarkOtherLine(b *testing.B) {
	p, now := &parser{}, time.Now()
	rec := &kmsg.Record{Text: "IN=eth0 OUT= MAC=52:54:00:12:34:56 SRC=10.0.2.2 DST=10.0.2.15 LEN=60 TOS=0x00 PREC=0x00 TTL=64 ID=0 DF PROTO=TCP SPT=443"}
	for b.Loop() {
		p.push(rec, now)
	}
}
