package stress

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// needed are the capabilities that docs/guide/privileges.md asks for.
var needed = []string{"bpf", "perfmon", "sys_ptrace", "syslog", "dac_read_search"}

const nobody = 65534

// asUser is a command that runs its arguments as an ordinary user who has these
// capabilities and can never get another.
func asUser(t testing.TB, caps []string) []string {
	t.Helper()
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip("needs setpriv: apt-get install util-linux")
	}
	set := "-all"
	for _, c := range caps {
		set += ",+" + c
	}
	user := fmt.Sprint(nobody)
	return []string{"setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--no-new-privs",
		"--inh-caps=" + set, "--ambient-caps=" + set, "--bounding-set=" + set, "--"}
}

// homeOf makes a data directory that the ordinary user owns, where he can get to.
func homeOf(t testing.TB, uid int) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "huatuo-stress-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chown(dir, uid, uid); err != nil {
		t.Fatal(err)
	}
	return dir
}

// checkup is the part of `huatuo doctor -o json` that the tests look at.
type checkup struct {
	Capabilities []string
	Missing      []struct{ Name, Without string } `json:"missing_capabilities"`
	Probes       []probe.Status
}

func doctor(t testing.TB, wrap []string) checkup {
	t.Helper()
	argv := append(append([]string(nil), wrap...), binary, "doctor", "-o", "json")
	out, err := exec.Command(argv[0], argv[1:]...).Output() // exit code 1: some probe does not run
	var r checkup
	if jerr := json.Unmarshal(out, &r); jerr != nil {
		t.Fatalf("doctor: %v, %v\n%s", err, jerr, out)
	}
	return r
}

// usesBPF tells whether a running probe is tied to the kernel by BPF.
func usesBPF(p probe.Status) bool {
	return slices.ContainsFunc(p.Hooks, func(h load.HookState) bool { return h.ID != 0 })
}

// TestLeastPrivilege runs the agent as an ordinary user with the capabilities
// of the guide, then without each of them, then without any: each must buy what
// the guide says, and a missing one must cost nothing else.
func TestLeastPrivilege(t *testing.T) {
	needRoot(t)
	var bpf []string // the probes that need BPF
	for _, p := range doctor(t, nil).Probes {
		if usesBPF(p) {
			bpf = append(bpf, p.Name)
		}
	}
	if len(bpf) < 4 {
		t.Fatalf("only %v use BPF as root", bpf)
	}
	rows := append([]string{""}, needed...)
	for _, missing := range rows {
		t.Run("without "+missing, func(t *testing.T) {
			caps := slices.DeleteFunc(slices.Clone(needed), func(c string) bool { return c == missing })
			checkDoctor(t, caps, missing, bpf)
			if missing != "bpf" && missing != "perfmon" {
				checkAgent(t, caps, missing)
			}
		})
	}
	t.Run("without any", func(t *testing.T) {
		checkDoctor(t, nil, "bpf", bpf)
		a := start(t, homeOf(t, nobody), asUser(t, nil), "--set", "store.interval=1s")
		eventually(t, 10*time.Second, "pollers", func() error {
			if _, ok := a.query("huatuo_memory_available_bytes"); !ok {
				return fmt.Errorf("no sample")
			}
			return nil
		})
		if !strings.Contains(a.log.String(), "CAP_BPF") {
			t.Errorf("the log does not say what is missing:\n%s", a.log)
		}
		a.stop()
	})
}

// reasons are what a probe says of itself and of its hooks.
func reasons(p probe.Status) string {
	all := p.Reason
	for _, h := range p.Hooks {
		all += " " + h.Reason
	}
	return all
}

// fallsBack tells whether a probe has all it wants without BPF, from a file.
func fallsBack(p probe.Status) bool {
	return !slices.ContainsFunc(p.Hooks, func(h load.HookState) bool { return h.By != "procfs" })
}

// checkDoctor checks each probe's state.
func checkDoctor(t *testing.T, caps []string, missing string, bpf []string) {
	t.Helper()
	r := doctor(t, asUser(t, caps))
	slices.Sort(r.Capabilities)
	if want := slices.Sorted(slices.Values(caps)); !slices.Equal(r.Capabilities, want) {
		t.Errorf("the doctor finds %v, want %v", r.Capabilities, want)
	}
	told := slices.ContainsFunc(r.Missing, func(m struct{ Name, Without string }) bool { return m.Name == missing && m.Without != "" })
	if told != (missing != "") {
		t.Errorf("%q is missing; the doctor tells: %v", missing, r.Missing)
	}
	for _, p := range r.Probes {
		if (missing == "bpf" || missing == "perfmon") && slices.Contains(bpf, p.Name) {
			if want := "CAP_" + strings.ToUpper(missing); p.State == probe.Running && !fallsBack(p) || !strings.Contains(reasons(p), want) {
				t.Errorf("%s is %s: %q: want a reason that names %s", p.Name, p.State, reasons(p), want)
			}
			continue
		}
		noLog := p.Name == "kernlog" && !slices.Contains(caps, "syslog") && p.State == probe.Degraded
		if !fine(p) && !noLog {
			t.Errorf("%s is %s: %s", p.Name, p.State, p.Reason)
		}
	}
}

// checkAgent checks what the events of an agent tell. Busy loops of root make
// them.
func checkAgent(t *testing.T, caps []string, missing string) {
	t.Helper()
	a := start(t, homeOf(t, nobody), asUser(t, caps), "--set", "probes.runqueue.stall=5ms", "--set", "store.interval=1s")
	if uid := uidOf(t, a.pid); uid != nobody {
		t.Fatalf("the agent runs as uid %d", uid)
	}
	d := a.stalled()
	if has := d.Process.Exe != ""; has != (missing != "sys_ptrace") {
		t.Errorf("executable %q", d.Process.Exe)
	}
	if has := named(d.KernelStack); has != (missing != "syslog") {
		t.Errorf("kernel stack %+v", d.KernelStack)
	}
	log := a.log.String()
	if has := !strings.Contains(log, "without the kernel's report"); has != (missing != "syslog") {
		t.Errorf("the kernel log is read: %v", has)
	}
	if probeCgroupV1() {
		if has := !strings.Contains(log, "not told by workload"); has != (missing != "dac_read_search") {
			t.Errorf("events are told by workload: %v", has)
		}
	}
	if v, ok := a.metric("huatuo_store_failing"); !ok || v != 0 {
		t.Errorf("the store fails: %v", v)
	}
	a.stop()
	if t.Failed() {
		t.Logf("%s", log)
	}
}

func probeCgroupV1() bool {
	_, err := os.Stat("/sys/fs/cgroup/cpu/cgroup.procs")
	return err == nil
}

// stalled runs loops of root on one CPU until one of them is in a sched_stall
// event whose stacks have been looked at.
func (a *agent) stalled() *signal.Document {
	a.t.Helper()
	for range 4 {
		c := exec.Command("taskset", "-c", "0", "sh", "-c", "while :; do :; done")
		if err := c.Start(); err != nil {
			a.t.Fatal(err)
		}
		defer c.Wait()
		defer c.Process.Kill()
	}
	var found *signal.Document
	eventually(a.t, 20*time.Second, "a stall", func() error {
		var page signal.EventPage
		a.json("/api/v1/events?kind=sched_stall&comm=sh&limit=5", &page)
		for _, d := range page.Events {
			// The first may come before the kernel's symbols are read.
			if time.Since(a.began) > 4*time.Second && len(d.KernelStack) > 0 {
				found = d
				return nil
			}
		}
		return fmt.Errorf("%d stalls of sh", len(page.Events))
	})
	return found
}

func named(frames []signal.Frame) bool {
	return len(frames) > 0 && frames[len(frames)-1].Missing == "" && frames[0].Missing == ""
}

func uidOf(t testing.TB, pid int) (uid int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\nUid:")
	fmt.Sscan(rest, &uid)
	return uid
}
