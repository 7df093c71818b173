package kernlog

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"huatuo/internal/signal"
)

var (
	cpuLine = regexp.MustCompile(`^CPU: (\d+) (?:UID: \d+ )?PID: (\d+) Comm: (.{1,15}?) (?:Kdump: loaded )?(?:Not tainted|Tainted: ([A-Z() ]+?))[ -]+(\d\S*(?: .*)?)$`)
	// arm64, x86-64; old ones show addresses in front.
	rip        = regexp.MustCompile(`^RIP: (?:0010|e030):(?:\[<[0-9a-f]+>\]\s+)*` + function)
	ripAddress = regexp.MustCompile(`^RIP: (\w+):`)
	pc         = regexp.MustCompile(`^pc : ` + function)
	// A frame: a question mark, [<address>], the function, build ids, marks of arm64 like (P).
	frameLine = regexp.MustCompile(`^(\s*)(?:\[<[0-9a-f]+>\] )?(\? )?` + function + `(?: \([A-Z]+\))?$`)
	mark      = regexp.MustCompile(`^\s*<(/?)(IRQ|SOFTIRQ|NMI|TASK|EOI|EOE|#DF|#DB|#MC|#VC|ENTRY_TRAMPOLINE|SYSENTER)>\s*(.*)$`)
	// Of the registers those that hold values of the kernel's code.
	register    = regexp.MustCompile(`\b(R[A-Z0-9]{2}|EFLAGS|[CDEFG]S|knlGS|CR[0-9]|DR[0-9]|PKRU|x\d{1,2}|sp|pstate)\s*: ?(?:([0-9a-f]{4}):)?([0-9a-f]{4,16})\b`)
	registers   = regexp.MustCompile(`^(?:R[A-Z0-9]{2}: |[CF]S: |CR2: |DR[0-9]: |PKRU: |sp : |x\d{1,2}\s?: |pstate: )`)
	nmi         = regexp.MustCompile(`^NMI backtrace for cpu (\d+)(?: skipped: (.*))?`)
	taskDump    = regexp.MustCompile(`^(?:Task dump for CPU|Backtrace for CPU|CPU) ?(\d+)[: ](?: ?backtrace:?)?$`)
	kthreadDump = regexp.MustCompile(`^(?:rcu: )?RCU grace-period kthread stack dump:`)
	taskLine    = regexp.MustCompile(`^task:(.{1,15}?)\s+state:(\S+).*?\spid:\s*(\d+)`)
	oldTask     = regexp.MustCompile(`^(\S.{0,14}?)\s+[A-Z]\s+(?:running task\s+)?\d+\s+(\d+)\s+\d+ 0x[0-9a-f]+$`)
	history     = regexp.MustCompile(`^(?i)(allocated|freed|last potentially related work creation|second to last potentially related work creation)(?: by task (\d+))?.*:$`)
	stalled     = regexp.MustCompile(`^(?:rcu: )?\s*(\d+-\S*): \(`)
	stalledTask = regexp.MustCompile(`^(?:rcu: )?\s*(?:Tasks blocked on level-\d+ rcu_node \([^)]*\):|Blocked by:?)(.*)`)
	stallAge    = regexp.MustCompile(`^(?:rcu: )?\s*\((?:detected by \d+, )?t=(\d+) jiffies`)
	expedited   = regexp.MustCompile(`\{(.*)\} (\d+) jiffies`)
	access      = regexp.MustCompile(`^((?:Read|Write|Invalid free|.*access) .*?)(?: by task (.{1,15}?)/(\d+))?$`)
	inAtomic    = regexp.MustCompile(`^in_atomic\(\): .* pid: (\d+), name: (.*)$`)
	taintWords  = regexp.MustCompile(`^Tainted: \[`)
	endOfTrace  = regexp.MustCompile(`^---\[ end (?:trace|Kernel panic)`)
	// Others that belong to a report.
	known = regexp.MustCompile(`^\s*(?:Modules linked in:|Code: |\[last unloaded:|Call [Tt]race:|irq event stamp:|(?:hard|soft)irqs last |Tainted: |#PF: |PGD |Oops: |Mem abort info:|Data abort info:|  ?(?:ESR|EC|SET|EA|FSC|ISV|ISS|CM|GCS|FnV|S1PTW|WnR)\b|(?:user|swapper) pgtable: |\[[0-9a-f]{16}\] |lr : |pc : |note: |Showing |workqueue |  pwq |    (?:in-flight|pending|inactive|delayed): |pool \d+: |Sending NMI |page:|page dumped|flags: |raw: |head: |The buggy address|Memory state|Stack: |>?[0-9a-f]{16}: |Disabling lock debugging|Kernel Offset:|traps: |INFO: lockdep|[0-9]+ locks? held by|\s*#[0-9]+: |Dumping ftrace|ORIG_RAX|CPU: |rcu: |Kernel panic)`)
)

func frame(m []string) signal.Frame {
	offset, _ := strconv.ParseUint(m[1], 16, 64) // too long a number is as good as none
	return signal.Frame{Function: mask(m[0]), Offset: offset, Module: m[2]}
}

// add looks at one line of an open report and tells whether it is a part of one.
func (r *report) add(s string) bool {
	switch {
	case r.addStack(s), r.addWho(s), r.addStall(s), r.addWork(s):
		r.explained = true
		return true
	case endOfTrace.MatchString(s):
		r.done = true
		return true
	case strings.HasPrefix(s, "====="):
		r.rulers++
		r.done = r.rulers > 0 && len(r.sections[0].frames) > 0
		return true
	case r.addReason(s):
		return true
	}
	r.waiting = r.waiting || strings.HasPrefix(s, "Sending NMI")
	if known.MatchString(s) {
		r.explained = r.explained || strings.HasPrefix(s, "Modules linked in:")
		return true
	}
	return strings.TrimSpace(s) == ""
}

// addStack looks for what is in a stack, and for the heads of stacks.
func (r *report) addStack(s string) bool {
	cur := r.cur()
	if m := mark.FindStringSubmatch(s); m != nil {
		context := m[2]
		if m[1] != "" || context[0] == 'E' { // what follows was interrupted; 4.18 does not tell <TASK>
			context = "TASK"
		}
		if len(cur.frames) < maxFrames {
			cur.frames = append(cur.frames, signal.Frame{Function: "<" + context + ">"})
		}
		if s = m[3]; s == "" {
			cur.started = true
			return true
		}
		s = " " + s
	}
	if m := frameLine.FindStringSubmatch(s); m != nil && (m[1] != "" || cur.started) {
		cur.add(m[2] != "", frame(m[3:]))
		return true
	}
	switch {
	case strings.HasPrefix(s, "Call Trace:"), strings.HasPrefix(s, "Call trace:"):
		cur.started = true
		return true
	case rip.MatchString(s):
		cur.arrive(frame(rip.FindStringSubmatch(s)[1:]))
		r.regsFrom = cur
		return true
	case pc.MatchString(s):
		cur.arrive(frame(pc.FindStringSubmatch(s)[1:]))
		return true
	case ripAddress.MatchString(s):
		r.regsFrom = nil
		if len(r.regs) == 0 && ripAddress.FindStringSubmatch(s)[1] == "0010" { // a jump to nowhere
			r.regsFrom = cur
		}
		return true
	case registers.MatchString(s):
		r.addRegisters(s)
		return true
	}
	return r.addHeadOfStack(s)
}

// add takes a frame. Those with a question mark are addresses that lay on the
// stack, but where the CPU was is among them.
func (s *section) add(doubtful bool, f signal.Frame) {
	s.started = true
	if s.at != nil && f == *s.at {
		if s.atLine < 0 {
			s.atLine = len(s.frames)
		}
		return
	}
	if !doubtful && len(s.frames) < maxFrames {
		s.frames = append(s.frames, f)
	}
}

// arrive takes where the CPU was. Within a stack, it is a frame.
func (s *section) arrive(f signal.Frame) {
	if s.started {
		s.was = &f
		s.add(false, f)
	} else if s.at == nil {
		s.at = &f
	}
}

func (r *report) addHeadOfStack(s string) bool {
	if m := nmi.FindStringSubmatch(s); m != nil {
		r.begin("", atoi(m[1]))
		r.cur().idle = clip(mask(m[2]))
		r.waiting = false
		return true
	}
	if m := taskDump.FindStringSubmatch(s); m != nil {
		r.begin("", atoi(m[1]))
		return true
	}
	if kthreadDump.MatchString(s) {
		r.begin("RCU grace-period thread", -1)
		return true
	}
	if m := history.FindStringSubmatch(s); m != nil {
		r.begin(strings.ToLower(m[1]), -1)
		r.cur().pid = uint32(atoi(m[2]))
		return true
	}
	if m := taskLine.FindStringSubmatch(s); m != nil {
		r.beginTask(m[1], m[3])
		return true
	}
	if m := oldTask.FindStringSubmatch(s); m != nil {
		r.beginTask(m[1], m[2])
		return true
	}
	return false
}

// beginTask is the head of a task's stack, alone or after that of a CPU's.
func (r *report) beginTask(comm, pid string) {
	if s := r.cur(); s == r.sections[0] || s.started {
		r.begin("task "+comm, -1)
	}
	r.cur().comm, r.cur().pid = comm, uint32(atoi(pid))
}

// addRegisters takes registers of the kernel, the first that a report shows.
func (r *report) addRegisters(s string) {
	if r.regsFrom == nil {
		if arm := strings.HasPrefix(s, "pstate: ") || strings.HasPrefix(s, "sp : ") || s[0] == 'x'; !arm {
			return
		}
		r.regsFrom = r.cur()
	}
	if r.regsFrom != r.cur() || r.regs != nil && r.regsFrom != r.cur() {
		return
	}
	for _, m := range register.FindAllStringSubmatch(s, -1) {
		if r.regs == nil {
			r.regs = map[string]string{}
		}
		if _, dup := r.regs[m[1]]; !dup && len(r.regs) < maxRegs {
			r.regs[m[1]] = m[3]
		}
	}
}

// addWho looks for who it is about, on which kernel and machine.
func (r *report) addWho(s string) bool {
	if m := cpuLine.FindStringSubmatch(s); m != nil {
		sec := r.cur()
		if sec.comm == "" {
			sec.cpu, sec.pid, sec.comm = atoi(m[1]), uint32(atoi(m[2])), strings.TrimRight(m[3], " ")
		}
		if r.release == "" {
			r.taint, r.release = m[4], clip(mask(strings.Join(strings.Fields(m[5]), " ")))
		}
		return true
	}
	if h, ok := strings.CutPrefix(s, "Hardware name: "); ok {
		if r.hardware == "" {
			r.hardware = clip(mask(strings.TrimSpace(h)))
		}
		return true
	}
	if w, ok := strings.CutPrefix(s, "Workqueue: "); ok {
		if r.workqueue == "" {
			r.workqueue = clip(mask(strings.TrimSpace(w)))
		}
		return true
	}
	return taintWords.MatchString(s)
}

var (
	queueLine = regexp.MustCompile(`^workqueue (\S+): flags=`)
	workLine  = regexp.MustCompile(`^    (pending|in-flight): (.+)$`)
	workItem  = regexp.MustCompile(`^(?:\d+(?:\([^)]*\))?:)?(?:\d+\*)?([\w.]+)(?:$| )`) // show_pwq(), pr_cont_work(): worker, how often, function, module; BAR(pid) is who waits
)

// addWork looks for what a workqueue tells of the work that it has.
func (r *report) addWork(s string) bool {
	if r.is.schema != workqueueLockup {
		return false
	}
	if m := queueLine.FindStringSubmatch(s); m != nil {
		r.queue = clip(mask(m[1]))
		return true
	}
	m := workLine.FindStringSubmatch(s)
	if m == nil {
		return false
	}
	to := &r.pending
	if m[1] == "in-flight" {
		to = &r.running
	}
	for item := range strings.SplitSeq(m[2], ",") {
		if f := workItem.FindStringSubmatch(strings.TrimSpace(item)); f != nil {
			*to = once(*to, r.queue+": "+clip(mask(f[1])))
		}
	}
	return true
}

// once adds s to a list that does not have it and is not full.
func once(list []string, s string) []string {
	if len(list) >= maxList || slices.Contains(list, s) {
		return list
	}
	return append(list, s)
}

// addStall looks for what RCU tells.
func (r *report) addStall(s string) bool {
	if r.is.schema != rcuStall {
		return false
	}
	if m := stalled.FindStringSubmatch(s); m != nil {
		r.takeStalled(m[1])
		return true
	}
	if m := stalledTask.FindStringSubmatch(s); m != nil {
		for _, w := range strings.Fields(m[1]) {
			r.takeStalled(w)
		}
		return true
	}
	if m := stallAge.FindStringSubmatch(s); m != nil {
		r.jiffies(m[1])
		return true
	}
	if strings.Contains(s, "kthread starved for") {
		r.starved = true
		return true
	}
	return false
}

// addReason looks for lines that say what is wrong.
func (r *report) addReason(s string) bool {
	if m := inAtomic.FindStringSubmatch(s); m != nil {
		r.pid, r.comm = uint32(atoi(m[1])), clip(mask(m[2]))
		return true
	}
	if r.is.what == "kasan" || r.is.what == "kmsan" {
		if m := access.FindStringSubmatch(s); m != nil && !r.explained {
			r.because(m[1])
			if m[2] != "" {
				r.comm, r.pid = m[2], uint32(atoi(m[3]))
			}
			return true
		}
	}
	for _, p := range [...]string{"#PF: ", "page dumped because: ", "index ", "shift exponent ", "Preemption disabled at:"} {
		if strings.HasPrefix(s, p) && len(r.reason) < maxReason && (r.is.schema == kernelBug || r.is.what == "ubsan") {
			r.because(strings.TrimPrefix(s, "page dumped because: "))
			return true
		}
	}
	// The text of a WARN() stands before its head since 4.20, and after it before that.
	if r.is.what == "warn" && !r.explained && len(r.reason) < maxReason && !known.MatchString(s) && strings.TrimSpace(s) != "" {
		r.because(strings.TrimSpace(s))
		return true
	}
	return false
}
