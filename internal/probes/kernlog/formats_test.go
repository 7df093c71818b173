package kernlog

import (
	"slices"

	"huatuo/internal/signal"
)

// formats are reports in the forms that the format strings of several kernels
// give, with the lines that matter.
var formats = []struct {
	name, text string
	schema     *signal.Schema
	severity   signal.Severity
	title      string
	cpu        int
	tid        uint32
	comm       string
	stack      string
	check      func(b *Report, r *signal.Record) bool
}{
	{"soft lockup 4.18", `
NMI watchdog: BUG: soft lockup - CPU#51 stuck for 22s! [a:b] c:140354]
Modules linked in: xfs nls_iso8859_1
CPU: 51 PID: 140354 Comm: a:b] c Kdump: loaded Tainted: P        W  OE    --------- -  - 4.18.0-147.el8.x86_64 #1
Hardware name: Some Machine, BIOS 3.2a 08/08/2019
RIP: 0010:_raw_spin_unlock_irqrestore+0x15/0x20
RSP: 0018:ffff8d09bf2c3d68 EFLAGS: 00000246 ORIG_RAX: ffffffffffffff13
RAX: 0000000000000001 RBX: ffffffffffffffea RCX: 00007ffd00000000
Call Trace:
 <IRQ>
 ? foo+0x1/0x2
 timer_fn+0x12/0x40 [tmr]
 </IRQ>
 do_work+0x1b/0x40 [some_mod]
`, softLockup, "", "CPU 51 was stuck in the kernel for 22 s: a:b] c (140354) in _raw_spin_unlock_irqrestore", 51, 140354, "a:b] c",
		"_raw_spin_unlock_irqrestore+0x15 <IRQ> timer_fn+0x12[tmr] <TASK> do_work+0x1b[some_mod]", func(b *Report, r *signal.Record) bool {
			return r.Registers["RSP"] == masked && r.Registers["RBX"] == "ffffffffffffffea" && r.Registers["RCX"] == "00007ffd00000000" &&
				slices.Equal(b.Taint, []string{"proprietary_module", "warn", "out_of_tree_module", "unsigned_module"}) && b.Release == "4.18.0-147.el8.x86_64 #1"
		}},
	{"hard lockup 6.x, of another CPU", `
watchdog: CPU3: Watchdog detected hard LOCKUP on cpu 2
Modules linked in:
Sending NMI from CPU 3 to CPUs 2:
NMI backtrace for cpu 2
CPU: 2 UID: 0 PID: 77 Comm: kworker/2:1 Not tainted 6.12.0 #1
Workqueue: events do_it
RIP: 0010:native_queued_spin_lock_slowpath+0x5c/0x2b0
RAX: 0000000000000001 RBX: 0000000000000002 RCX: 0000000000000003
Call Trace:
 <TASK>
 _raw_spin_lock+0x30/0x40
`, hardLockup, "", "CPU 2 was stuck with interrupts off: kworker/2:1 (77) in native_queued_spin_lock_slowpath", 2, 77, "kworker/2:1",
		"native_queued_spin_lock_slowpath+0x5c _raw_spin_lock+0x30", func(b *Report, r *signal.Record) bool {
			return b.Workqueue == "events do_it" && len(b.Backtraces) == 0 && r.Registers["RAX"] != ""
		}},
	{"RCU stall, of others, starved", `
rcu: INFO: rcu_sched detected stalls on CPUs/tasks:
rcu: 	0-...!: (0 ticks this GP) idle=5fc/0/0x0 softirq=11204/11204 fqs=0  (false positive?)
rcu: 	12-....: (1 GPs behind) idle=d634/1/0x4000000000000002 softirq=7032/7032 fqs=2024
rcu: 	Tasks blocked on level-0 rcu_node (CPUs 0-15): P1234/1:b..l P77
	(detected by 1, t=5252 jiffies, g=12425, q=473)
Sending NMI from CPU 1 to CPUs 0:
NMI backtrace for cpu 0 skipped: idling at native_safe_halt+0xe/0x20
Sending NMI from CPU 1 to CPUs 12:
NMI backtrace for cpu 12
CPU: 12 PID: 99 Comm: busy Not tainted 5.15.0 #1
Call Trace:
 <IRQ>
 spin+0x1/0x10
rcu: rcu_sched kthread starved for 5252 jiffies! g12425 f0x0 RCU_GP_WAIT_FQS(5) ->state=0x402 ->cpu=0
rcu: RCU grace-period kthread stack dump:
task:rcu_sched       state:I stack:    0 pid:   13 ppid:     2 flags:0x00004000
Call Trace:
 __schedule+0x282/0x880
`, rcuStall, "", "rcu_sched grace period has not ended for 21 s: its own thread does not get to run", 12, 99, "busy",
		"spin+0x1", func(b *Report, r *signal.Record) bool {
			x := r.Body.(*RCUStall)
			return slices.Equal(x.CPUs, []int{0, 12}) && slices.Equal(x.Tasks, []uint32{1234, 77}) && x.Waited > 21 && x.Starved && x.Detected == "other" &&
				len(b.Backtraces) == 2 && b.Backtraces[0].Idle == "idling at native_safe_halt+0xe/0x20" && b.Backtraces[1].Of == "RCU grace-period thread" && b.Backtraces[1].PID == 13
		}},
	{"expedited RCU stall", "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 3-...D } 5000 jiffies s: 123 root: 0x8/.",
		rcuStall, "", "rcu_preempt grace period has not ended for 20 s: waits for CPU 3", -1, 0, "", "", func(_ *Report, r *signal.Record) bool { return r.Body.(*RCUStall).Detected == "expedited" }},
	{"workqueue lockup", `
BUG: workqueue lockup - pool cpus=2 node=0 flags=0x0 nice=-20 stuck for 58s!
BUG: workqueue lockup - pool cpus=4 node=0 flags=0x0 nice=0 stuck for 31s!
Showing busy workqueues and worker pools:
workqueue events: flags=0x0
  pwq 5: cpus=2 node=0 flags=0x0 nice=-20 active=2/256
    in-flight: 55:loop_fn, 56(RESCUER):other_fn
    pending: journal_write_done [somefs], 2*journal_write_done
workqueue mm_percpu_wq: flags=0x8
    pending: refresh_vm_stats BAR(4711), refresh_vm_stats
Showing backtraces of running workers in stalled CPU-bound worker pools:
pool 2:
task:kworker/2:1     state:R  running task     stack:0     pid:55    tgid:55    ppid:2      flags:0x00004000
Call Trace:
 <TASK>
 loop+0x5/0x9
`, workqueueLockup, "", "workqueue workers were stuck for 58 s: cpus=2 node=0 flags=0x0 nice=-20, cpus=4 node=0 flags=0x0 nice=0", -1, 0, "", "",
		func(b *Report, r *signal.Record) bool {
			w := r.Body.(*WorkqueueLockup)
			return len(b.Backtraces) == 1 && b.Backtraces[0].PID == 55 && len(b.Text) == 15 &&
				slices.Equal(w.Pending, []string{"events: journal_write_done", "mm_percpu_wq: refresh_vm_stats"}) && slices.Equal(w.Running, []string{"events: loop_fn", "events: other_fn"})
		}},
	{"WARN 4.18, text after the head", `
------------[ cut here ]------------
WARNING: CPU: 6 PID: 0 at net/sched/sch_generic.c:264 dev_watchdog+0x154/0x20a [net]
NETDEV WATCHDOG: eth2 (igb): transmit queue 5 timed out
Modules linked in: x
CPU: 6 PID: 0 Comm: swapper/6 Not tainted 4.18.0 #3
Call Trace:
 <IRQ>
 call_timer_fn+0x1/0x2
---[ end trace 36f8a0a0b9be4d5c ]---
`, kernelWarning, "", "kernel warning at net/sched/sch_generic.c:264 in dev_watchdog: NETDEV WATCHDOG: eth2 (igb): transmit queue 5 timed out", 6, 0, "swapper/6", "call_timer_fn+0x1",
		func(b *Report, _ *signal.Record) bool {
			return b.File == "net/sched/sch_generic.c" && b.Line == 264 && b.Module == "net"
		}},
	{"WARN 7.x", `
------------[ cut here ]------------
[cond < 1] something is odd
WARNING: [!ok && in_irq()] drivers/a/b.c:12 at probe_it+0x1ba/0x1e2 [drv], CPU#3: modprobe/12/3456
Modules linked in: drv(+)
CPU: 3 UID: 0 PID: 3456 Comm: modprobe/12 Tainted: G           O        6.19.0 #1 PREEMPT(lazy)
Tainted: [O]=OOT_MODULE
RIP: 0010:probe_it+0x1ba/0x1e2 [drv]
Call Trace:
 <TASK>
 ? probe_it+0x1ba/0x1e2 [drv 0123456789abcdef0123456789abcdef01234567]
 really_probe+0xde/0x340
 </TASK>
---[ end trace 0000000000000000 ]---
`, kernelWarning, "", "kernel warning at drivers/a/b.c:12 in probe_it: [cond < 1] something is odd", 3, 3456, "modprobe/12", "probe_it+0x1ba[drv] really_probe+0xde", nil},
	{"WARN 7.x with a file", "WARNING: kernel/a.c:12 at f+0x1/0x2, CPU#0: x/7", kernelWarning, "", "kernel warning at kernel/a.c:12 in f", 0, 7, "x", "", nil},
	{"scheduling while atomic", `
BUG: scheduling while atomic: swapper/0/0/0x10000100
Modules linked in: a
CPU: 0 PID: 0 Comm: swapper/0 Tainted: G        W         5.4.0 #43
Call Trace:
 dump_stack+0x16/0x18
 __schedule_bug+0x4e/0x5c
`, kernelWarning, "", "scheduling while atomic", 0, 0, "swapper/0", "dump_stack+0x16 __schedule_bug+0x4e", nil},
	{"sleeping function", `
BUG: sleeping function called from invalid context at mm/slab.h:421
in_atomic(): 1, irqs_disabled(): 0, non_block: 0, pid: 4567, name: insmod
CPU: 1 PID: 4567 Comm: insmod Not tainted 5.10.0 #1
Call Trace:
 ___might_sleep.cold+0xa6/0xb7
`, kernelWarning, "", "sleeping function called from invalid context at mm/slab.h:421", 1, 4567, "insmod", "___might_sleep.cold+0xa6", nil},
	{"KASAN", `
==================================================================
BUG: KASAN: slab-use-after-free in read_it+0x7c/0x3970 [afs]
Read of size 8 at addr ffff888112fb0800 by task some task/5060

CPU: 0 PID: 5060 Comm: some task Not tainted 6.0.1 #54
Call Trace:
 <TASK>
 kasan_report+0xf9/0x130
 read_it+0x7c/0x3970 [afs]
 </TASK>

Allocated by task 33:
 kmalloc_it+0x1/0x2
Freed by task 34:
 free_it+0x1/0x2

The buggy address belongs to the object at ffff888112fb0800
>ffff888112fb0800: fa fb fb fb fb fb fb fb fb fb fb fb fb fb fb fb
==================================================================
`, kernelWarning, signal.Critical, "KASAN in read_it: slab-use-after-free", 0, 5060, "some task", "kasan_report+0xf9 read_it+0x7c[afs]", func(b *Report, _ *signal.Record) bool {
		return b.Reason == "slab-use-after-free; Read of size 8 at addr "+masked && len(b.Backtraces) == 2 && b.Backtraces[0].Of == "allocated" && b.Backtraces[1].PID == 34
	}},
	{"KFENCE", `
==================================================================
BUG: KFENCE: out-of-bounds read in test_oob+0xa6/0x234

Out-of-bounds read at 0xffff8c3f2e291fff (1B left of kfence-#72):
 test_oob+0xa6/0x234
 kthread+0x137/0x160

kfence-#72: 0xffff8c3f2e292000-0xffff8c3f2e29201f, size=32, cache=kmalloc-32

allocated by task 484 on cpu 0 at 32.919330s:
 test_alloc+0xfe/0x738

CPU: 0 PID: 484 Comm: kunit Not tainted 5.13.0 #8
==================================================================
`, kernelWarning, signal.Critical, "KFENCE in test_oob: out-of-bounds read", -1, 0, "", "test_oob+0xa6 kthread+0x137", func(b *Report, _ *signal.Record) bool {
		return len(b.Backtraces) == 1 && b.Backtraces[0].PID == 484
	}},
	{"UBSAN", `
------------[ cut here ]------------
UBSAN: array-index-out-of-bounds in drivers/x/sa.c:340:4
index 1 is out of range for type 'uint16_t [1]'
CPU: 43 PID: 5214 Comm: init Tainted: P           OE      6.9.10-100.x86_64 #1
Call Trace:
 <TASK>
 sa_attr_op+0x3ea/0x430 [x]
 </TASK>
---[ end trace ]---
`, kernelWarning, "", "UBSAN at drivers/x/sa.c:340 in sa_attr_op: array-index-out-of-bounds", 43, 5214, "init", "sa_attr_op+0x3ea[x]", nil},
	{"lockdep", `
============================================
WARNING: possible recursive locking detected
5.10.0 #1 Not tainted
--------------------------------------------
`, kernelWarning, "", "lock dependency: possible recursive locking detected", -1, 0, "", "", nil},
	{"irq", "irq 16: nobody cared (try booting with the \"irqpoll\" option)", kernelWarning, "", "interrupt that nobody handles: irq 16", -1, 0, "", "", nil},
	{"general protection fault 6.12", `
Oops: general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#1] PREEMPT SMP PTI
CPU: 2 UID: 0 PID: 31 Comm: x Not tainted 6.12.0 #1
RIP: 0010:f+0x1/0x2
Call Trace:
 g+0x3/0x4
---[ end trace 0000000000000000 ]---
`, kernelBug, "", "kernel oops in f: Oops: general protection fault, probably for non-canonical address 0xdead000000000100", 2, 31, "x", "f+0x1 g+0x3", nil},
	{"arm64 oops", `
Unable to handle kernel NULL pointer dereference at virtual address 0000000000000018
Mem abort info:
  ESR = 0x0000000096000005
  EC = 0x25: DABT (current EL), IL = 32 bits
[0000000000000018] pgd=0000000000000000, p4d=0000000000000000
Internal error: Oops: 0000000096000005 [#2] PREEMPT SMP
Modules linked in: cmac
CPU: 3 UID: 0 PID: 2266 Comm: containerd-shim Tainted: G      D            6.12.20 #1
Hardware name: Some Board (DT)
pstate: 80400009 (Nzcv daif +PAN -UAO -TCO -DIT -SSBS BTYPE=--)
pc : __arch_copy_to_user+0xd8/0x240
lr : _copy_to_iter+0xf4/0x6a8
sp : ffffc00084d4bb60
x29: ffffc00084d4bb60 x28: ffff800100da51b8 x27: 000000000000005b
Call trace:
 __arch_copy_to_user+0xd8/0x240 (P)
 copy_page_to_iter+0xe4/0x170
Code: 78402423 780008c3 910008c6 36000962 (38401423) 
---[ end trace 0000000000000000 ]---
`, kernelBug, "", "kernel oops in __arch_copy_to_user: Unable to handle kernel NULL pointer dereference at virtual address 0000000000000018", 3, 2266, "containerd-shim",
		"__arch_copy_to_user+0xd8 copy_page_to_iter+0xe4", func(_ *Report, r *signal.Record) bool {
			return r.Registers["x29"] == masked && r.Registers["x27"] == "000000000000005b" && r.Registers["sp"] == masked && r.Registers["pstate"] == "80400009"
		}},
	{"list corruption, BUG", `
list_del corruption, ffff888101234560->next is LIST_POISON1 (dead000000000100)
------------[ cut here ]------------
kernel BUG at lib/list_debug.c:56!
invalid opcode: 0000 [#1] PREEMPT SMP
CPU: 0 PID: 9 Comm: z Not tainted 6.1.0 #1
RIP: 0010:__list_del_entry_valid.cold+0xf/0x6f
Call Trace:
 <TASK>
 drop+0x1/0x2
---[ end trace 0000000000000000 ]---
`, kernelBug, "", "corrupted list at lib/list_debug.c:56 in __list_del_entry_valid.cold: list_del corruption, " + masked + "->next is LIST_POISON1 (dead000000000100)", 0, 9, "z", "__list_del_entry_valid.cold+0xf drop+0x1", nil},
	{"bad page", `
BUG: Bad page state in process some proc  pfn:104300
page:00000000ce81ba6f refcount:0 mapcount:0 mapping:0000000000000000 index:0x0 pfn:0x104300
raw: 2ffff00000010200 fffffc0004108008 fffffc0004110008 ffff000100000c00
page dumped because: nonzero mapcount
CPU: 0 PID: 10 Comm: some proc Not tainted 5.15.0 #468
Call trace:
 bad_page+0x12c/0x170
`, kernelBug, "", "memory management is corrupted: Bad page state", 0, 0, "some proc", "bad_page+0x12c", func(b *Report, _ *signal.Record) bool { return b.Reason == "Bad page state; nonzero mapcount" }},
	{"panic", `
Kernel panic - not syncing: Fatal exception in interrupt
Kernel Offset: 0x1a000000 from 0xffffffff81000000 (relocation range: 0xffffffff80000000-0xffffffffbfffffff)
---[ end Kernel panic - not syncing: Fatal exception in interrupt ]---
`, kernelBug, "", "kernel panic: Fatal exception in interrupt", -1, 0, "", "", func(b *Report, _ *signal.Record) bool {
		return b.Text[1] == "Kernel Offset: "+masked+" from "+masked+" (relocation range: "+masked+"-"+masked+")"
	}},
	{"slab", "BUG kmalloc-64 (Tainted: G    B      O   ): Redzone overwritten\nObject   ffff888101234560: 6b 6b 41 41\n", kernelBug, "", "corrupted slab: kmalloc-64: Redzone overwritten", -1, 0, "", "",
		func(b *Report, _ *signal.Record) bool { return len(b.Text) == 1 || b.Text[1] == "Object [memory]" }},
}
