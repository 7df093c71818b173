package probetest

import (
	"regexp"
	"testing"
	"time"

	"huatuo/internal/signal"
)

// Event is what a test knows of an event before it happens.
type Event struct {
	Title         string // regular expression
	Severity      signal.Severity
	Kernel, User  bool   // it has a stack of the kernel, of the program
	Cgroup        uint64 // its workload; 0: whatever
	PID           int    // its process; 0: none is checked
	NoProcess     bool
	IsWithoutTime bool // its time is not of now
}

// Check holds an event to what was known of it, and to what every event is to
// have: a document, a time, a title of one line.
func (w Event) Check(t testing.TB, r *signal.Record) {
	t.Helper()
	d, err := r.Document()
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := regexp.MatchString("^(?:"+w.Title+")$", d.Title); err != nil {
		t.Fatal(err)
	} else if !ok {
		t.Errorf("%s: title %q, want %q", d.Kind, d.Title, w.Title)
	}
	if d.Severity != w.Severity {
		t.Errorf("%s: severity %s, want %s", d.Title, d.Severity, w.Severity)
	}
	if kernel := len(r.KernelIPs)+len(r.KernelStack) > 0; kernel != w.Kernel {
		t.Errorf("%s: a kernel stack: %v, want %v", d.Title, kernel, w.Kernel)
	}
	if user := len(r.UserIPs)+len(r.UserStack) > 0; user != w.User {
		t.Errorf("%s: a user stack: %v, want %v", d.Title, user, w.User)
	}
	if w.Cgroup != 0 && r.CgroupID != w.Cgroup {
		t.Errorf("%s: of cgroup %d, want %d", d.Title, r.CgroupID, w.Cgroup)
	}
	if w.PID != 0 && int(r.Process.PID) != w.PID {
		t.Errorf("%s: of process %+v, want %d", d.Title, r.Process, w.PID)
	}
	if w.NoProcess && d.Process != nil {
		t.Errorf("%s: of process %+v, want none", d.Title, r.Process)
	}
	if age := time.Since(r.Time); !w.IsWithoutTime && (age < 0 || age > time.Minute) {
		t.Errorf("%s: it is %v old", d.Title, age)
	}
}
