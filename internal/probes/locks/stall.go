package locks

import (
	"fmt"
	"time"

	"huatuo/internal/kern/ring"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// LockContention is the body of a lock_contention event. The record's process
// is the one that waited, and the stacks are its, at the end of the wait; a wait
// of a CPU for a spin lock has no process, since an interrupt may have waited.
type LockContention struct {
	Type        string        `json:"type" help:"type of the lock, and for what it was wanted: mutex, rwsem_read, rwsem_write, percpu_rwsem_read, percpu_rwsem_write, rtmutex, semaphore, spinlock, rwlock_read, rwlock_write"`
	Lock        string        `json:"lock" help:"name of the lock, or the function that took it where it has none"`
	WaitSeconds float64       `json:"wait_seconds" unit:"seconds" help:"how long the wait was"`
	Acquired    bool          `json:"acquired" help:"whether the wait ended with the lock, not by a signal or a timeout"`
	CPU         uint32        `json:"cpu" help:"CPU on which the wait ended"`
	Running     string        `json:"running" help:"who was on the CPU that waited for a spin lock"`
	Owner       *signal.Party `json:"owner,omitempty" help:"who had the lock when the wait began; only mutexes and writers of rwsems are known"`
}

// decoder turns samples into records.
type decoder struct {
	clock func(uint64) time.Time
	names *names
}

func (d *decoder) decode(raw []byte) (*signal.Record, error) {
	w, err := ring.View[bpfLockContentionWire](raw)
	if err != nil {
		return nil, fmt.Errorf("decode lock_contention: %w", err)
	}
	if int(w.Type) >= len(types) {
		return nil, fmt.Errorf("decode lock_contention: type %d", w.Type)
	}
	b := &LockContention{
		Type: types[w.Type], Lock: d.names.of(w.Site), WaitSeconds: time.Duration(w.Waited).Seconds(),
		Acquired: w.Ret == 0, CPU: w.Cpu,
	}
	r := &signal.Record{
		Schema: contended, Time: d.clock(w.Ts), Suppressed: w.Suppressed, Body: b,
		KernelIPs: d.fromLock(probe.Stack(w.Frames, w.Stack[:])),
		UserIPs:   probe.Stack(w.UserFrames, w.UserStack[:]),
		Measures:  []signal.Measure{{Schema: wait, Labels: types[w.Type : w.Type+1], Value: b.WaitSeconds}},
	}
	p := signal.Process{PID: w.Tgid, TID: w.Pid, Comm: probe.CString(w.Comm[:])}
	switch {
	case w.Type < sleeping:
		r.Process, r.CgroupID = p, w.Cgroup
	case p.PID != 0:
		b.Running = fmt.Sprintf("%s (pid %d)", p.Comm, p.PID)
	default:
		b.Running = "idle"
	}
	if w.OwnerPid != 0 {
		b.Owner = &signal.Party{
			Process:  signal.Process{PID: w.OwnerTgid, TID: w.OwnerPid, Comm: probe.CString(w.OwnerComm[:])},
			CgroupID: w.OwnerCgroup,
		}
		r.Parties = []*signal.Party{b.Owner}
	}
	r.Title = b.title(p)
	return r, nil
}

// fromLock cuts off the frames of the tracepoint and of our own program.
func (d *decoder) fromLock(ips []uint64) []uint64 {
	for i, ip := range ips {
		if d.names.isLock(ip) {
			return ips[i:]
		}
	}
	return ips
}

func (b *LockContention) title(p signal.Process) string {
	who := fmt.Sprintf("%s (pid %d)", p.Comm, p.PID)
	if b.Running != "" {
		who = fmt.Sprintf("CPU %d", b.CPU)
	}
	s := fmt.Sprintf("%s waited %s for %s %s", who, time.Duration(b.WaitSeconds*float64(time.Second)).Round(100*time.Microsecond), b.Type, b.Lock)
	if !b.Acquired {
		s += " in vain"
	}
	if b.Owner != nil {
		s += fmt.Sprintf(" while %s (pid %d) had it", b.Owner.Process.Comm, b.Owner.Process.PID)
	}
	return s
}
