package kernlog

import (
	"regexp"
	"strconv"
	"strings"

	"huatuo/internal/signal"
)

// kind is one kind of report.
type kind struct {
	what     string
	title    string // of warnings and bugs
	schema   *signal.Schema
	severity signal.Severity // empty: the schema's
}

// head is the line by which a report begins. The patterns are those of the
// kernel's format strings, from 4.18 to 7.x.
type head struct {
	kind kind
	line *regexp.Regexp
	take func(r *report, m []string) // what the groups of line tell
}

func warning(what, title string) kind { return kind{what: what, title: title, schema: kernelWarning} }
func corrupt(what, title string) kind {
	return kind{what: what, title: title, schema: kernelWarning, severity: signal.Critical}
}
func bug(what, title string) kind { return kind{what: what, title: title, schema: kernelBug} }

// function is the form of %pS: name+0x1/0x2, maybe with [module].
const function = `([\w.$]+)\+0x([0-9a-f]+)/0x[0-9a-f]+(?: \[([\w-]+)[^\]]*\])?`

// anywhere is a function, or an address in code that has no name.
const anywhere = `(?:` + function + `|0x[0-9a-f]{16})`

// byProcess is how lines begin in which the kernel names a process first, as in
// "sh[12]: segfault at 0". Its name, 15 bytes, is the choice of anybody: it must
// not make a report. No pattern below is met by 15 bytes and what follows a
// name in those lines; this is the second lock on that door.
var byProcess = regexp.MustCompile(`^.{1,15}?(?:\[\d+\]:? |\(\d+\): |/\d+: | invoked oom-killer:|: page allocation failure)`)

// heads are tried in this order.
var heads = []head{
	{kind{what: "soft_lockup", schema: softLockup}, regexp.MustCompile(`^(?:(?:NMI )?watchdog: )?BUG: soft lockup - CPU#(\d+) stuck for (\d+)s! \[(.*):(\d+)\]`), func(r *report, m []string) {
		r.cpu, r.seconds = atoi(m[1]), float64(atoi(m[2]))
		r.comm, r.pid = clip(mask(m[3])), uint32(atoi(m[4]))
	}},
	{kind{what: "hard_lockup", schema: hardLockup}, regexp.MustCompile(`^(?:(?:NMI )?watchdog: )?(?:CPU\d+: )?Watchdog detected hard LOCKUP on cpu (\d+)`), func(r *report, m []string) { r.cpu = atoi(m[1]) }},
	{kind{what: "rcu_stall", schema: rcuStall}, regexp.MustCompile(`^(?:rcu: )?INFO: (rcu\w*) (self-detected stall on CPU|detected (?:expedited )?stalls on CPUs/tasks)(.*)`), takeRCU},
	{kind{what: "workqueue_lockup", schema: workqueueLockup}, regexp.MustCompile(`^BUG: workqueue lockup - pool (.*) stuck for (\d+)s!`), func(r *report, m []string) {
		r.pools = once(r.pools, clip(mask(strings.TrimSpace(m[1])))) // told again while it lasts
		r.seconds = max(r.seconds, float64(atoi(m[2])))
	}},

	{warning("warn", "kernel warning"), regexp.MustCompile(`^WARNING: CPU: (\d+) PID: (\d+) at (?:(\S+):(\d+) )?(?:` + function + `)?`), func(r *report, m []string) {
		r.cpu, r.pid = atoi(m[1]), uint32(atoi(m[2]))
		r.place(m[3], m[4], m[5:])
	}},
	{warning("warn", "kernel warning"), regexp.MustCompile(`^WARNING: (?:(?:\[.*\] )?(\S+):(\d+) )?at ` + function + `, CPU#(\d+): (.*)/(\d+)$`), func(r *report, m []string) { // 28ea295f941e, v6.19
		r.place(m[1], m[2], m[3:])
		r.cpu, r.comm, r.pid = atoi(m[6]), clip(mask(m[7])), uint32(atoi(m[8]))
	}},
	{warning("lockdep", "lock dependency"), regexp.MustCompile(`^(?:WARNING: ((?:possible (?:circular|irq lock|recursive|deadlock)|suspicious RCU|inconsistent|bad unlock|held lock|lock held|[Nn]ested lock|\S+-(?:safe|READ-safe) -> ).*)|(?:INFO: (trying to register non-static key.*)))`), takeReason},
	{warning("lockdep", "lock dependency"), regexp.MustCompile(`^\[ (BUG: .*) \]$`), takeReason},
	{warning("scheduling_while_atomic", "scheduling while atomic"), regexp.MustCompile(`^BUG: scheduling while atomic: (.*)/(\d+)/0x`), takeOwner},
	{warning("sleeping_in_atomic", "sleeping function called from invalid context"), regexp.MustCompile(`^BUG: sleeping function called from invalid context at (\S+):(\d+)`), func(r *report, m []string) { r.place(m[1], m[2], nil) }},
	{warning("preemptible", "per-CPU data used while preemptible"), regexp.MustCompile(`^BUG: using (\S+ in preemptible .*) code: (.*)/(\d+)`), func(r *report, m []string) {
		r.because(m[1])
		r.comm, r.pid = clip(mask(m[2])), uint32(atoi(m[3]))
	}},
	{corrupt("kasan", "KASAN"), regexp.MustCompile(`^BUG: KASAN: ([a-z][\w -]*) in ` + anywhere), takeSanitizer},
	{corrupt("kfence", "KFENCE"), regexp.MustCompile(`^BUG: KFENCE: ([a-z][\w -]*) in ` + anywhere), takeSanitizer},
	{corrupt("kmsan", "KMSAN"), regexp.MustCompile(`^BUG: KMSAN: ([a-z][\w -]*) in ` + anywhere), takeSanitizer},
	{warning("kcsan", "KCSAN"), regexp.MustCompile(`^BUG: KCSAN: ((?:data-race|assert: race) in .*)`), takeReason},
	{warning("ubsan", "UBSAN"), regexp.MustCompile(`^UBSAN: (.*) in (\S+?):(\d+)(?::\d+)?$`), func(r *report, m []string) {
		r.because(m[1])
		r.place(m[2], m[3], nil)
	}},
	{warning("irq", "interrupt that nobody handles"), regexp.MustCompile(`^irq (\d+): nobody cared`), func(r *report, m []string) { r.because("irq " + m[1]) }},
	{warning("lockdep", "lock dependency"), regexp.MustCompile(`^BUG: (MAX_\w+ too (?:low|small)!?)`), takeReason},

	{bug("bug", "kernel BUG"), regexp.MustCompile(`^kernel BUG at (\S+):(\d+)!`), func(r *report, m []string) { r.place(m[1], m[2], nil) }},
	{bug("page_fault", "kernel oops"), regexp.MustCompile(`^(?:BUG: )?([Uu]nable to handle (?:kernel|page) .*)`), takeReason},
	{bug("page_fault", "kernel oops"), regexp.MustCompile(`^BUG: (kernel NULL pointer dereference.*)`), takeReason},
	{bug("bad_page", "memory management is corrupted"), regexp.MustCompile(`^BUG: (Bad (?:page \S+|swap file entry)) in process (.*?)  ?(?:pfn|pte|pmd):`), func(r *report, m []string) {
		r.because(m[1])
		r.comm = clip(mask(m[2]))
	}},
	{bug("list_corruption", "corrupted list"), regexp.MustCompile(`^(list_(?:add|del) (?:corruption|double add)\S? .*)`), takeReason},
	{bug("usercopy", "copy between kernel and user memory that is not allowed"), regexp.MustCompile(`^usercopy: (Kernel memory .*)`), takeReason},
	{bug("slab", "corrupted slab"), regexp.MustCompile(`^BUG (\S+) \((?:Not tainted|Tainted: [A-Z ]+?)\s*\): (.*)`), func(r *report, m []string) { r.because(m[1] + ": " + m[2]) }},
	{bug("stack_overflow", "stack overflow in the kernel"), regexp.MustCompile(`^(?:BUG: (\S+ stack guard page was hit at .*)|(Insufficient stack space to handle exception!)|(Kernel stack overflow.*))`), takeReason},
	{bug("serror", "hardware error"), regexp.MustCompile(`^SError Interrupt on CPU(\d+), (.*)`), func(r *report, m []string) {
		r.cpu = atoi(m[1])
		r.because(m[2])
	}},
	{bug("panic", "kernel panic"), regexp.MustCompile(`^Kernel panic - not syncing: (.*)`), takeReason},
	{bug("oops", "kernel oops"), regexp.MustCompile(`^((?:[\w-][^:\[]*: ?){0,3}[^:\[]*): [0-9a-f]{4,16} \[#\d+\](?: [A-Z_]+)*$`), takeReason},
	{bug("spinlock", "broken spin lock"), regexp.MustCompile(`^BUG: ((?:spinlock|rwlock) (?:bad magic|already unlocked|wrong CPU|wrong owner|recursion|cpu recursion|lockup suspected|trylock failure|bad owner).*)`), takeReason},
	{bug("other", "kernel bug"), regexp.MustCompile(`^BUG: (workqueue leaked lock or atomic.*|Bad rss-counter state.*|non-zero pgtables_bytes on freeing.*|Dentry \S+ still in use.*)`), takeReason},
}

// mayBegin is a quick look whether a line can be a head: most are not.
func mayBegin(s string) bool {
	for _, w := range [...]string{"BUG", "WARNING: ", "INFO: ", "LOCKUP", "[#", "Kernel ", "nable to handle", "UBSAN", "nobody cared", "list_", "usercopy", "SError", "Insufficient"} {
		if strings.Contains(s, w) {
			return true
		}
	}
	return false
}

// findHead returns which report a line begins, and what it tells.
func findHead(s string) (*head, []string) {
	if !mayBegin(s) || byProcess.MatchString(s) {
		return nil, nil
	}
	for i := range heads {
		if m := heads[i].line.FindStringSubmatch(s); m != nil {
			return &heads[i], m
		}
	}
	return nil, nil
}

func takeReason(r *report, m []string) {
	for _, g := range m[1:] {
		if g != "" && !(len(r.reason) > 0 && strings.HasSuffix(g, "Oops")) { // which says no more than what came before it
			r.because(g)
		}
	}
}

func takeOwner(r *report, m []string) { r.comm, r.pid = clip(mask(m[1])), uint32(atoi(m[2])) }

func takeSanitizer(r *report, m []string) {
	r.because(m[1])
	r.place("", "", m[2:])
}

func takeRCU(r *report, m []string) {
	r.flavour = m[1]
	switch {
	case strings.HasPrefix(m[2], "self"):
		r.detected = "self"
	case strings.Contains(m[2], "expedited"):
		r.detected = "expedited"
	default:
		r.detected = "other"
	}
	if x := expedited.FindStringSubmatch(m[3]); x != nil {
		for _, w := range strings.Fields(x[1]) {
			r.takeStalled(w)
		}
		r.jiffies(x[2])
	}
}

// place notes where the check is.
func (r *report) place(file, line string, at []string) {
	if file != "" {
		r.file, r.line = clip(mask(file)), atoi(line)
	}
	if len(at) >= 3 && at[0] != "" {
		f := frame(at)
		r.at = &f
	}
}

// atoi is of text that a pattern has found to be digits.
func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > 1<<31-1 {
		return 0
	}
	return n
}
