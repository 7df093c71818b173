package known

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"huatuo/internal/signal"
)

// common is part of the body of several events.
type common struct {
	Device string `json:"device"`
}

type body struct {
	common
	Seconds float64      `json:"seconds"`
	Ops     []string     `json:"ops"`
	Party   signal.Party `json:"party"`
}

func stall() *signal.Record {
	return &signal.Record{
		Schema: &signal.Schema{Name: "io_stall", Kind: signal.Event}, Title: "sda waits for 3 s",
		Process:     signal.Process{Comm: "restic"},
		KernelStack: []signal.Frame{{Function: "io_schedule"}, {Function: "ext4_sync_file"}},
		Parties:     []*signal.Party{{UserStack: []signal.Frame{{Function: "main.backup"}}}},
		Body:        &body{common{"sda"}, 1.5, []string{"read", "write"}, signal.Party{}},
	}
}

func TestLook(t *testing.T) {
	for _, tt := range []struct {
		name  string
		issue Issue
		match bool
	}{
		{"title", Issue{Title: "^sda waits"}, true},
		{"other title", Issue{Title: "^sdb"}, false},
		{"kernel stack", Issue{Stack: "^ext4_"}, true},
		{"stack of another party", Issue{Stack: `^main\.`}, true},
		{"no such function", Issue{Stack: "^xfs_"}, false},
		{"process", Issue{Process: "^restic$"}, true},
		{"other process", Issue{Process: "^rest$"}, false},
		{"field", Issue{Fields: []string{"device=^sda$"}}, true},
		{"number", Issue{Fields: []string{"seconds=^1.5$"}}, true},
		{"list", Issue{Fields: []string{"ops=^read,write$"}}, true},
		{"an equals sign in the expression", Issue{Fields: []string{"device=^(a=b|sda)$"}}, true},
		{"other field value", Issue{Fields: []string{"device=sdb"}}, false},
		{"no such field", Issue{Fields: []string{"none="}}, false},
		{"an object is no text", Issue{Fields: []string{"party="}}, false},
		{"kind", Issue{Kinds: []string{"io_error", "io_stall"}, Title: "sda"}, true},
		{"other kind", Issue{Kinds: []string{"io_error"}, Title: "sda"}, false},
		{"all of them", Issue{Title: "sda", Stack: "ext4", Process: "restic", Fields: []string{"device=sda", "ops=read"}}, true},
		{"all but one", Issue{Title: "sda", Stack: "ext4", Process: "restic", Fields: []string{"device=sda", "ops=trim"}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, action := range []string{"", Label, Suppress} {
				is := tt.issue
				is.Name, is.Action = "x", action
				l, err := Compile([]Issue{is})
				if err != nil {
					t.Fatal(err)
				}
				r := stall()
				report := l.Look(r)
				if (len(r.Known) == 1) != tt.match || report != (action != Suppress || !tt.match) {
					t.Errorf("action %q: known %q, report %v", action, r.Known, report)
				}
			}
		})
	}
	l, err := Compile(nil)
	if r := stall(); err != nil || !l.Look(r) || r.Known != nil {
		t.Errorf("nothing is known: %v, %q", err, r.Known)
	}
	l, err = Compile([]Issue{{Name: "x", Fields: []string{"device=a"}}})
	if r := (&signal.Record{Schema: stall().Schema}); err != nil || !l.Look(r) {
		t.Errorf("no body: %v", err)
	}
}

func TestSeveral(t *testing.T) {
	l, err := Compile(
		[]Issue{{Name: "a", Title: "sda"}, {Name: "b", Title: "sda", Action: Suppress}, {Name: "c", Title: "sda"}},
		[]Issue{{Name: "b", Title: "sda"}, {Name: "c", Action: Off}, {Name: "d", Kinds: []string{"io_stall"}, Stack: "io_"}})
	if err != nil {
		t.Fatal(err)
	}
	r := stall()
	if !l.Look(r) || !slices.Equal(r.Known, []string{"d", "a", "b"}) {
		t.Errorf("known %q: want d, a, and b as it was last said", r.Known)
	}
}

func TestCompileErrors(t *testing.T) {
	for _, tt := range []struct {
		issue Issue
		want  string
	}{
		{Issue{Name: "a", Title: "("}, `known issue "a": title: `},
		{Issue{Name: "a", Stack: "("}, `known issue "a": stack: `},
		{Issue{Name: "a", Process: "("}, `known issue "a": process: `},
		{Issue{Name: "a", Fields: []string{"x=("}}, `known issue "a": field x: `},
		{Issue{Name: "a", Kinds: []string{"io_stall"}}, `known issue "a": it names nothing`},
	} {
		if _, err := Compile([]Issue{tt.issue}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: error %v does not say %q", tt.issue, err, tt.want)
		}
	}
}

// TestBuiltin: stacks as they were seen, each an instance of one issue, and near
// misses that are of none.
func TestBuiltin(t *testing.T) {
	l, err := Compile(Builtin())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ kind, stack, want string }{
		{"hung_task", "request_wait_answer __fuse_simple_request fuse_do_getattr vfs_statx", "fuse_server"},
		{"hung_task", "rpc_wait_bit_killable __rpc_execute rpc_run_task nfs4_call_sync_custom nfs4_proc_getattr", "nfs_server"},
		{"hung_task", "percpu_rwsem_wait __percpu_down_read mnt_want_write open_last_lookups path_openat", "filesystem_frozen"},
		{"hung_task", "handle_userfault do_anonymous_page handle_mm_fault", "userfaultfd_handler"},
		{"hung_task", "coredump_task_exit do_exit do_group_exit get_signal", "core_dump"},
		{"hung_task", "mem_cgroup_oom_synchronize pagefault_out_of_memory", "oom_killer_disabled"},
		{"hung_task", "schedule_timeout_killable __mem_cgroup_handle_over_high exit_to_user_mode_loop", "memory_high"},
		{"hung_task", "msleep netdev_wait_allrefs_any netdev_run_todo default_device_exit_batch cleanup_net", "network_namespace"},
		{"hung_task", "rwsem_down_read_slowpath down_read_killable copy_net_ns create_new_namespaces", "network_namespace"},
		{"kernel_warning", "dev_watchdog call_timer_fn __run_timers", "transmit_timeout"},
		{"kernel_warning", "tcp_recvmsg_locked tcp_recvmsg inet_recvmsg", ""},
		{"hung_task", "io_schedule blk_mq_get_tag submit_bio ext4_writepages", ""},
		{"hung_task", "fuse_dev_do_read fuse_dev_read vfs_read", ""},
		{"soft_lockup", "request_wait_answer", ""},
	} {
		r := &signal.Record{Schema: &signal.Schema{Name: tt.kind}}
		for _, f := range strings.Fields(tt.stack) {
			r.KernelStack = append(r.KernelStack, signal.Frame{Function: f})
		}
		if !l.Look(r) || strings.Join(r.Known, " ") != tt.want {
			t.Errorf("%s in %s: known %q, want %q", tt.kind, tt.stack, r.Known, tt.want)
		}
	}
	seen := map[string]bool{}
	for _, is := range Builtin() {
		u, err := url.Parse(is.URL)
		if err != nil || u.Scheme != "https" || !strings.HasSuffix(is.Label, ".") || len(is.Kinds) == 0 || seen[is.Name] {
			t.Errorf("%s: want a name of its own, kinds, a sentence and a source: %+v", is.Name, is)
		}
		if is.Action != "" {
			t.Errorf("%s: what is built in hides nothing", is.Name)
		}
		seen[is.Name] = true
	}
}

// BenchmarkLook is what an event costs that is no instance of anything.
func BenchmarkLook(b *testing.B) {
	l, err := Compile(Builtin())
	if err != nil {
		b.Fatal(err)
	}
	for name, kind := range map[string]string{"hung_task": "hung_task", "other": "packet_drop"} {
		b.Run(name, func(b *testing.B) {
			r := stall()
			r.Schema = &signal.Schema{Name: kind}
			for range 20 {
				r.KernelStack = append(r.KernelStack, signal.Frame{Function: "ext4_do_writepages"})
			}
			for b.Loop() {
				l.Look(r)
			}
		})
	}
}
