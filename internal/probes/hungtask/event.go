package hungtask

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"huatuo/internal/kern/kmsg"
	"huatuo/internal/kern/ring"
	"huatuo/internal/signal"
)

// Who found that a task hangs.
const (
	bySampling = "sampling"
	byKernel   = "kernel"
)

// HungTask is the body of a hung_task event. The record's process is the task
// that hangs for the longest time, its kernel stack tells what it waits for.
type HungTask struct {
	Source         string         `json:"source" help:"sampling: this agent found it; kernel: the kernel's own detector did, after kernel.hung_task_timeout_secs"`
	BlockedSeconds float64        `json:"blocked_seconds" unit:"seconds" help:"how long it has been waiting, at least; by the kernel's report when source is kernel, 0 when there is none"`
	Wait           string         `json:"wait" help:"kernel function in which it waits"`
	WaitClass      string         `json:"wait_class" help:"what for: io, network_fs, journal, memory, lock or other"`
	Killable       bool           `json:"killable" help:"SIGKILL would end the wait; the kernel's detector does not look at such tasks"`
	Tasks          int            `json:"tasks" help:"tasks that hang in the same function and for the same device, mount or server, this one included"`
	Others         []signal.Party `json:"others" help:"up to eight more of them; with a stack when it is another one"`
	Lock           string         `json:"lock" help:"mutex, semaphore or rwsem; empty when it waits for none of them, or this kernel does not tell"`
	Owner          *signal.Party  `json:"owner" help:"thread that holds the lock, with its stack; null when it is not known"`
	LastReader     bool           `json:"last_reader" help:"owner was the last of several readers to take the lock, and may have let go"`
	OwnerState     string         `json:"owner_state" help:"of that thread: R runs or wants to, S sleeps, D waits and cannot be interrupted"`
	OwnerWait      string         `json:"owner_wait" help:"kernel function in which it waits"`
	WaitsFor       *WaitsFor      `json:"waits_for" help:"device, mount or server of the file that its system call is about, or the owner's: kind (device, server, fuse, frozen, memory), device, mount, fs_type, source, path, syscall"`
	Server         *signal.Party  `json:"server" help:"process that serves the FUSE file system; null when it is another kind, or the kernel does not tell"`
	ServerState    string         `json:"server_state" help:"of its first thread"`
	Missing        []string       `json:"missing" help:"what could not be found out, and why"`
	Log            string         `json:"log" help:"the kernel's report in its log, when source is kernel"`
}

var hungTask = signal.EventOf[HungTask]("hung_task", signal.AreaProcess, signal.Warning,
	"Tasks wait uninterruptibly for longer than the threshold.").When(
	"A task that waits in state D for `threshold` (10s) without having run in between, or that the kernel's own detector reports: a healthy disk or lock keeps nobody that long.",
	"D states of milliseconds to seconds are how tasks wait for disks and locks. Idle kernel threads in state I do not count. A file system that is frozen for a snapshot holds its writers meanwhile.")

func (b *HungTask) title(p signal.Process) string {
	s := fmt.Sprintf("%s (pid %d) hangs", p.Comm, p.PID)
	if b.BlockedSeconds > 0 {
		s += " for " + time.Duration(b.BlockedSeconds*float64(time.Second)).Round(time.Second/10).String()
	}
	if b.Wait != "" {
		s += " in " + b.Wait
	}
	switch b.Tasks {
	case 0, 1:
	case 2:
		s += ", and so does another task"
	default:
		s += fmt.Sprintf(", and so do %d other tasks", b.Tasks-1)
	}
	return s
}

// decoder turns what the kernel's detector reports into records. stack gives
// the stack of a task where the program could not take it.
type decoder struct {
	clock  func(uint64) time.Time
	symbol func(uint64) string
	stack  func(t *task) ([]uint64, []signal.Frame)
}

func (d *decoder) decode(raw []byte) (*signal.Record, error) {
	w, err := ring.View[bpfHungWire](raw)
	if err != nil {
		return nil, fmt.Errorf("decode hung_task: %w", err)
	}
	t := taskOf(&w.Task)
	if t.stack == nil && d.stack != nil {
		t.stack, t.frames = d.stack(&t)
	}
	functions := names(t.stack, d.symbol)
	for _, f := range t.frames {
		functions = append(functions, f.Function)
	}
	t.wait, t.class = classify(functions)
	b := &HungTask{Source: byKernel, Wait: t.wait, WaitClass: t.class, Killable: t.killable, Tasks: 1}
	r := &signal.Record{
		Schema: hungTask, Time: d.clock(w.Ts), Severity: signal.Critical, Suppressed: w.Suppressed, CgroupID: t.cgroup,
		Process: t.process(), KernelIPs: t.stack, KernelStack: t.frames, Body: b,
	}
	b.lock(&t, r)
	r.Title, r.Lasted = b.title(r.Process), seconds(b.BlockedSeconds)
	return r, nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

const (
	kmsgPath = "/dev/kmsg"
	// excerptPatience is how long an event waits for its report: the kernel
	// writes it right after the event, 60 lines at most, each of which a
	// serial console holds up for some milliseconds.
	excerptPatience = time.Second
	// maxExcerpt lines are kept of a report: header, advice, stack and registers.
	maxExcerpt = 60
)

// reporter finds the kernel's report about a task in the log, which may be nil.
type reporter struct {
	log interface {
		Next() (kmsg.Record, bool, error)
	}
	wait  time.Duration
	lines []string // of the kernel, the latest
}

// attach adds the report to the event, if there is one: the kernel writes only
// the first ten (kernel.hung_task_warnings).
func (p *reporter) attach(r *signal.Record) {
	if p.log == nil {
		return
	}
	b := r.Body.(*HungTask)
	for end := time.Now().Add(p.wait); ; time.Sleep(p.wait / 10) {
		grown := p.read()
		text, secs, ok := report(p.lines, r.Process.TID)
		late := time.Now().After(end)
		if ok && (!grown || late) { // nothing came since: it is whole
			b.Log, b.BlockedSeconds = text, secs
			r.Title, r.Lasted = b.title(r.Process), seconds(secs)
			break
		}
		if late {
			break
		}
	}
	p.lines = p.lines[max(0, len(p.lines)-2*maxExcerpt):] // another task's report may be in it
}

// read takes what is new in the log.
func (p *reporter) read() (grown bool) {
	for {
		rec, ok, err := p.log.Next()
		if err != nil || !ok {
			return grown
		}
		if rec.Facility == 0 {
			p.lines, grown = append(p.lines, rec.Text), true
		}
	}
}

var (
	// "INFO: task touch:4242 blocked for more than 122 seconds.", and since
	// v6.17 "… blocked in I/O wait for more than …". The name may hold anything.
	headline = regexp.MustCompile(`^INFO: task .*:(\d+) blocked.* for more than (\d+) seconds`)
	// addresses of the kernel must not leave the agent.
	address = regexp.MustCompile(`\b(0x)?ffff[0-9a-f]{12}\b`)
)

// report finds the last report about a thread.
func report(lines []string, pid uint32) (text string, secs float64, ok bool) {
	for i := len(lines) - 1; i >= 0; i-- {
		m := headline.FindStringSubmatch(lines[i])
		if m == nil || m[1] != strconv.FormatUint(uint64(pid), 10) {
			continue
		}
		end := i + 1
		for end < len(lines) && end-i < maxExcerpt && !strings.HasPrefix(lines[end], "INFO: task ") {
			end++
			if strings.Contains(lines[end-1], "</TASK>") {
				break
			}
		}
		n, err := strconv.ParseUint(m[2], 10, 32)
		if err != nil {
			return "", 0, false
		}
		return address.ReplaceAllString(strings.Join(lines[i:end], "\n"), "(address)"), float64(n), true
	}
	return "", 0, false
}
