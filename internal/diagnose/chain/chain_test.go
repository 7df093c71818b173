package chain

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"huatuo/internal/signal"
)

type nothing struct{}

// kinds of events, as the probes have them.
var kinds = map[string]*signal.Schema{}

func kind(name string) *signal.Schema {
	if kinds[name] == nil {
		kinds[name] = signal.EventOf[nothing](name, signal.AreaSystem, signal.Info, "A thing happened.")
	}
	return kinds[name]
}

// begin is when the tests begin: drops have been watched since before.
var begin = time.Unix(1_700_000_000, 0)

// world is Chains with a clock and a count of drops by hand.
type world struct {
	*Chains
	now     time.Time
	unseen  Unseen
	watched bool
	ids     int
}

func newWorld() *world {
	w := &world{now: begin, watched: true}
	w.Chains = New(Options{Now: func() time.Time { return w.now }, Unseen: func() (Unseen, bool) { return w.unseen, w.watched }})
	w.count()
	return w
}

// event passes one through at the time at which it happened.
func (w *world) event(name string, at time.Duration, change func(*signal.Record)) *signal.Record {
	w.ids++
	r := &signal.Record{ID: fmt.Sprintf("%s-%d", name, w.ids), Schema: kind(name), Title: name, Time: begin.Add(at)}
	change(r)
	if r.Time.After(w.now) {
		w.now = r.Time
	}
	w.Relate(r)
	return r
}

func flow(netns uint32, seq ...int) func(*signal.Record) {
	return func(r *signal.Record) {
		r.Flow = signal.FlowOf("tcp", "10.0.0.1:80", "10.0.0.2:4000", netns)
		for _, s := range seq {
			r.Keys = append(r.Keys, fmt.Sprintf("seq:%d", s))
		}
		r.Brief = "NETFILTER_DROP in nf_hook_slow"
	}
}

func (w *world) links(r *signal.Record) string {
	var out []string
	for _, l := range r.Links {
		out = append(out, l.Relation+" "+l.ID)
	}
	return strings.Join(out, ", ")
}

func TestRetransmit(t *testing.T) {
	const ms = time.Millisecond
	for _, tt := range []struct {
		name    string
		drop    func(*signal.Record) // nil: none
		at      time.Duration        // of the drop; the retransmission is at 10 s
		lasted  time.Duration
		change  func(w *world)
		linked  bool
		verdict string
	}{
		{"this segment", flow(5, 77), 9797 * ms, 0, nil, true, "dropped on this host: this segment, reason NETFILTER_DROP in nf_hook_slow, 203ms before"},
		{"another segment", flow(5, 76), 9797 * ms, 0, nil, true, "dropped on this host: a packet of the connection, reason NETFILTER_DROP in nf_hook_slow, 203ms before"},
		{"the acknowledgement, from the other end", func(r *signal.Record) {
			flow(5)(r)
			r.Flow = signal.FlowOf("tcp", "10.0.0.2:4000", "10.0.0.1:80", 5)
		}, 9900 * ms, 0, nil, true, "dropped on this host: a packet"},
		{"in the host's namespace", flow(6, 77), 9900 * ms, 0, nil, true, "dropped on this host: this segment"},
		{"after a long timeout", flow(5, 77), 3000 * ms, 6400 * ms, nil, true, "dropped on this host: this segment, reason NETFILTER_DROP in nf_hook_slow, 7s before"},

		{"the same addresses in another namespace", flow(6, 76), 9900 * ms, 0, nil, false, "no local drop seen since 4s before it: the loss is outside this host"},
		{"another conversation", func(r *signal.Record) {
			r.Flow = signal.FlowOf("tcp", "10.0.0.1:80", "10.0.0.2:4001", 5)
		}, 9900 * ms, 0, nil, false, "no local drop seen"},
		{"another protocol", func(r *signal.Record) {
			r.Flow = signal.FlowOf("udp", "10.0.0.1:80", "10.0.0.2:4000", 5)
		}, 9900 * ms, 0, nil, false, "no local drop seen"},
		{"too long ago", flow(5, 77), 6000 * ms, 0, nil, false, "no local drop seen"},
		{"afterwards", flow(5, 77), 10001 * ms, 0, nil, false, "no local drop seen"},
		{"none", nil, 0, 0, nil, false, "no local drop seen since 4s before it: the loss is outside this host"},
		{"none, but some were rate-limited", nil, 0, 0, func(w *world) { w.unseen.Lost += 12 }, false,
			"not known: no local drop seen, but 12 drop events were rate-limited or lost since 4s before it"},
		{"none, but some were not looked at", nil, 0, 0, func(w *world) { w.unseen.LeftOut += 3 }, false,
			"the loss is outside this host; not looked at: 3 packets dropped for reasons"},
		{"nobody watches", nil, 0, 0, func(w *world) { w.watched = false }, false, "not known: packet drops are not watched"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			w.unseen.Lost = 1000 // of long ago
			for i := range 4 {   // at 0, 2, 4 and 6 s
				w.now = begin.Add(time.Duration(i) * countEvery)
				w.count()
			}
			if tt.change != nil {
				tt.change(w)
			}
			var drop *signal.Record
			if tt.drop != nil && tt.at <= 10*time.Second {
				drop = w.event("packet_drop", tt.at, tt.drop)
			}
			if tt.drop != nil && drop == nil { // it came first all the same
				w.now = begin.Add(11 * time.Second)
				drop = w.event("packet_drop", tt.at, tt.drop)
			}
			r := w.event("tcp_retransmit", 10*time.Second, func(r *signal.Record) { flow(5, 77)(r); r.Lasted = tt.lasted })
			want := ""
			if tt.linked {
				want = "cause " + drop.ID
			}
			if got := w.links(r); got != want || !strings.Contains(r.Verdict, tt.verdict) {
				t.Errorf("links %q, want %q; verdict\n%q, want\n%q", got, want, r.Verdict, tt.verdict)
			}
		})
	}
}

// TestLate: a drop that is told after the retransmission that it caused gets the link.
func TestLate(t *testing.T) {
	w := newWorld()
	w.now = begin.Add(10 * time.Second)
	w.count()
	r := w.event("tcp_retransmit", 10*time.Second, flow(5, 77))
	drop := w.event("packet_drop", 9800*time.Millisecond, flow(5, 77))
	if got := w.links(drop); got != "effect "+r.ID {
		t.Errorf("links of the drop %q", got)
	}
	if len(r.Links) != 0 {
		t.Errorf("links %+v of what nobody may change any more", r.Links)
	}
}

// TestCountsBeginAnew: a probe that was restarted has no count of before.
func TestCountsBeginAnew(t *testing.T) {
	w := newWorld()
	w.unseen.Lost = 1000
	w.count()
	w.unseen.Lost = 5
	r := w.event("tcp_retransmit", 10*time.Second, flow(5))
	if !strings.Contains(r.Verdict, "not been watched for long enough") {
		t.Errorf("verdict %q", r.Verdict)
	}
}

// TestOwnVerdict: what a probe knows better stays.
func TestOwnVerdict(t *testing.T) {
	w := newWorld()
	r := w.event("tcp_retransmit", time.Second, func(r *signal.Record) { flow(5)(r); r.Verdict = "it did not leave" })
	if r.Verdict != "it did not leave" {
		t.Errorf("verdict %q", r.Verdict)
	}
}

// TestNoConversation: nothing is told of drops where packets may not have been lost.
func TestNoConversation(t *testing.T) {
	w := newWorld()
	if r := w.event("dns_failure", time.Second, process(7, 7, begin, 0)); r.Verdict != "" || len(r.Links) != 0 {
		t.Errorf("verdict %q, links %+v", r.Verdict, r.Links)
	}
}

func TestGrace(t *testing.T) {
	w := newWorld()
	for _, tt := range []struct {
		name string
		age  time.Duration
		flow bool
		want time.Duration
	}{
		{"tcp_retransmit", 0, true, settle},
		{"tcp_retransmit", 100 * time.Millisecond, true, settle - 100*time.Millisecond},
		{"tcp_retransmit", time.Second, true, 0},
		{"tcp_retransmit", -time.Hour, true, settle}, // the clock was set
		{"tcp_retransmit", 0, false, 0},
		{"connect_failure", 0, true, settle},
		{"packet_drop", 0, true, 0},
		{"hung_task", 0, false, 0},
	} {
		r := &signal.Record{Schema: kind(tt.name), Time: w.now.Add(-tt.age)}
		if tt.flow {
			flow(5)(r)
		}
		if got := w.Grace(r); got != tt.want {
			t.Errorf("%s of %v waits %v, want %v", tt.name, tt.age, got, tt.want)
		}
	}
}

func keyed(lasted time.Duration, keys ...string) func(*signal.Record) {
	return func(r *signal.Record) { r.Lasted, r.Keys = lasted, keys }
}

func process(pid, tid uint32, start time.Time, lasted time.Duration) func(*signal.Record) {
	return func(r *signal.Record) {
		r.Process, r.Lasted = signal.Process{PID: pid, TID: tid}, lasted
		if !start.IsZero() {
			r.Process.StartTime = &start
		}
	}
}

// TestRules: of two events the second tells what the first is to it.
func TestRules(t *testing.T) {
	const ms = time.Millisecond
	born := begin.Add(-time.Hour)
	type ev struct {
		kind   string
		at     time.Duration
		change func(*signal.Record)
	}
	for _, tt := range []struct {
		name          string
		first, second ev
		want          string // empty: they do not belong together
	}{
		{"a CPU without interrupts and who waited for it", ev{"tick_gap", 50 * ms, keyed(50*ms, "cpu:3")}, ev{"sched_stall", 52 * ms, keyed(60*ms, "cpu:3")}, "cause"},
		{"a short part of the wait", ev{"tick_gap", 50 * ms, keyed(20*ms, "cpu:3")}, ev{"sched_stall", 100 * ms, keyed(90*ms, "cpu:3")}, "same"},
		{"the wait is told first", ev{"sched_stall", 52 * ms, keyed(60*ms, "cpu:3")}, ev{"tick_gap", 50 * ms, keyed(50*ms, "cpu:3")}, "effect"},
		{"softirqs wait as well", ev{"tick_gap", 50 * ms, keyed(50*ms, "cpu:3")}, ev{"softirq_stall", 51 * ms, keyed(50*ms, "cpu:3")}, "cause"},
		{"softirqs and tasks", ev{"softirq_stall", 50 * ms, keyed(50*ms, "cpu:3")}, ev{"sched_stall", 60 * ms, keyed(50*ms, "cpu:3")}, "same"},
		{"another CPU", ev{"tick_gap", 50 * ms, keyed(50*ms, "cpu:2")}, ev{"sched_stall", 52 * ms, keyed(60*ms, "cpu:3")}, ""},
		{"another time", ev{"tick_gap", 50 * ms, keyed(50*ms, "cpu:3")}, ev{"sched_stall", 200 * ms, keyed(60*ms, "cpu:3")}, ""},

		{"a device that hangs", ev{"io_stall", 5 * time.Second, keyed(time.Second, "dev:8:0")}, ev{"hung_task", 14 * time.Second, keyed(10*time.Second, "dev:8:1", "dev:8:0")}, "cause"},
		{"the request is over later", ev{"hung_task", 14 * time.Second, keyed(10*time.Second, "dev:8:0")}, ev{"io_stall", 20 * time.Second, keyed(16*time.Second, "dev:8:0")}, "effect"},
		{"another device", ev{"io_stall", 5 * time.Second, keyed(time.Second, "dev:8:16")}, ev{"hung_task", 14 * time.Second, keyed(10*time.Second, "dev:8:0")}, ""},
		{"before the task hung", ev{"io_stall", 2 * time.Second, keyed(time.Second, "dev:8:0")}, ev{"hung_task", 14 * time.Second, keyed(10*time.Second, "dev:8:0")}, ""},

		{"found by the agent and by the kernel", ev{"hung_task", 10 * time.Second, process(7, 8, born, 10*time.Second)}, ev{"hung_task", 120 * time.Second, process(7, 8, born, 120*time.Second)}, "same"},
		{"a later wait", ev{"hung_task", 10 * time.Second, process(7, 8, born, 10*time.Second)}, ev{"hung_task", 120 * time.Second, process(7, 8, born, 10*time.Second)}, ""},
		{"another thread", ev{"hung_task", 10 * time.Second, process(7, 8, born, 10*time.Second)}, ev{"hung_task", 12 * time.Second, process(7, 9, born, 12*time.Second)}, ""},

		{"the victim's end", ev{"oom_kill", time.Second, process(7, 7, born, 0)}, ev{"process_crash", 2 * time.Second, process(7, 8, born, 0)}, "cause"},
		{"its end is told first", ev{"process_crash", 1200 * ms, process(7, 8, born, 0)}, ev{"oom_kill", time.Second, process(7, 7, time.Time{}, 0)}, "effect"},
		{"a later process with its pid", ev{"oom_kill", time.Second, process(7, 7, born, 0)}, ev{"process_crash", 2 * time.Second, process(7, 7, begin, 0)}, ""},
		{"an end of long after", ev{"oom_kill", time.Second, process(7, 7, born, 0)}, ev{"process_crash", time.Minute, process(7, 7, born, 0)}, ""},

		{"a full listen queue", ev{"packet_drop", 3 * time.Second, keyed(0, "listen:5:80")}, ev{"listen_overflow", 5 * time.Second, keyed(5*time.Second, "listen:5:80")}, "same"},
		{"another port", ev{"packet_drop", 3 * time.Second, keyed(0, "listen:5:81")}, ev{"listen_overflow", 5 * time.Second, keyed(5*time.Second, "listen:5:80")}, ""},
		{"before the last look", ev{"packet_drop", 3 * time.Second, keyed(0, "listen:5:80")}, ev{"listen_overflow", 15 * time.Second, keyed(5*time.Second, "listen:5:80")}, ""},

		{"a connect whose SYN was dropped", ev{"packet_drop", time.Second, flow(5)}, ev{"connect_failure", 2 * time.Second, flow(5)}, "cause"},
		{"a connect that sent SYN again", ev{"tcp_retransmit", time.Second, flow(5)}, ev{"connect_failure", 2 * time.Second, flow(5)}, "same"},
		{"a connect that was reset", ev{"tcp_reset", time.Second, flow(5)}, ev{"connect_failure", time.Second, flow(5)}, "cause"},
		{"a query that was dropped", ev{"packet_drop", time.Second, flow(5)}, ev{"dns_failure", 2 * time.Second, flow(5)}, "cause"},
		{"no rule", ev{"tcp_reset", time.Second, flow(5)}, ev{"tcp_reset", time.Second, flow(5)}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld()
			w.now = begin.Add(tt.first.at)
			first := w.event(tt.first.kind, tt.first.at, tt.first.change)
			second := w.event(tt.second.kind, tt.second.at, tt.second.change)
			want := ""
			if tt.want != "" {
				want = tt.want + " " + first.ID
			}
			if got := w.links(second); got != want {
				t.Errorf("links %q, want %q", got, want)
			}
			if len(second.Links) == 1 && (second.Links[0].Kind != tt.first.kind || second.Links[0].Title != first.Title) {
				t.Errorf("link %+v", second.Links[0])
			}
		})
	}
}

// TestHungVerdict: a device that does not answer is told with what the probe found.
func TestHungVerdict(t *testing.T) {
	w := newWorld()
	w.event("io_stall", 5*time.Second, func(r *signal.Record) {
		keyed(time.Second, "dev:8:0")(r)
		r.Title = "read on sda hangs"
	})
	hangs := func(r *signal.Record) {
		keyed(10*time.Second, "dev:8:0")(r)
		r.Verdict = "the file is on sda1"
	}
	r := w.event("hung_task", 14*time.Second, hangs)
	if r.Verdict != "the file is on sda1; the device does not answer: read on sda hangs" {
		t.Errorf("verdict %q", r.Verdict)
	}
	if r := newWorld().event("hung_task", 14*time.Second, hangs); r.Verdict != "the file is on sda1" {
		t.Errorf("verdict without a request that hangs %q", r.Verdict)
	}
}

// TestBounds: no more is remembered than is said, and nothing of long ago.
func TestBounds(t *testing.T) {
	w := newWorld()
	for i := range 3 * maxSeen {
		w.event("packet_drop", time.Duration(i)*time.Millisecond, func(r *signal.Record) {
			r.Flow = signal.FlowOf("tcp", fmt.Sprint(i%7), "b", 1)
		})
	}
	n := 0
	for _, l := range w.index {
		n += len(l)
	}
	if len(w.seen) != maxSeen || n != maxSeen || len(w.index) != 7 {
		t.Errorf("%d events, %d in the index under %d keys", len(w.seen), n, len(w.index))
	}
	w.event("packet_drop", time.Hour, flow(1))
	if len(w.seen) != 1 || len(w.index) != 1 {
		t.Errorf("%d events of an hour ago under %d keys", len(w.seen), len(w.index))
	}
	for range 20 {
		w.event("packet_drop", time.Hour, flow(5))
	}
	if r := w.event("tcp_retransmit", time.Hour, flow(5)); len(r.Links) != maxLinks {
		t.Errorf("%d links", len(r.Links))
	}
	for range 3 * maxCounts {
		w.count()
	}
	if len(w.counts) != maxCounts {
		t.Errorf("%d counts", len(w.counts))
	}
	w.event("tcp_reset", time.Hour, func(*signal.Record) {}) // without a conversation
	w.event("process_exec", time.Hour, process(1, 1, begin, 0))
	if len(w.seen) != 22 {
		t.Errorf("%d events: some that no rule looks at", len(w.seen))
	}
}

func BenchmarkRelate(b *testing.B) {
	w := newWorld()
	s := kind("packet_drop")
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		w.Relate(&signal.Record{ID: "x", Schema: s, Time: begin, Flow: signal.FlowOf("tcp", fmt.Sprint(i%5000), "b", 1)})
	}
}
