// Package tcp measures how TCP connections begin and how long a round trip
// takes, and reports those that fail.
package tcp

import (
	"context"
	_ "embed"
	"fmt"
	"sync"
	"time"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type tcp_wire -type cpu_state -type group -type reset_key -type ht_flow -type ht_hist -type ht_hist_fine bpf tcp.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types bpfLegacy tcp.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2 -DHT_LEGACY

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	RTTEvery         uint32        `yaml:"rtt_every" help:"take the round-trip time at one of so many received segments, on each CPU; 0 takes none and saves the program that sees each segment"`
	ListenInterval   time.Duration `yaml:"listen_interval" help:"how often the network namespaces are asked for full listen queues, 1s or more; 0 does not ask"`
	probe.EventKnobs `yaml:",inline"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "tcp",
		Help:   "Measures how TCP connections begin and how long a round trip takes, and reports those that fail.",
		Readme: readme,
		Source: "sock:inet_sock_set_state, tcp:tcp_send_reset, tcp_receive_reset, tcp_probe; /proc/PID/net/{netstat,tcp,tcp6}",
		Since:  "4.18",
		Emits: []*signal.Schema{handshake, connectFailures, rtt, variation, resets,
			containerHandshake, containerFailures, containerRTT, containerResets, connectFailed, reset, overflowed},
	}, Config{
		RTTEvery:       32,
		ListenInterval: 5 * time.Second,
		EventKnobs:     probe.EventKnobs{Rate: 5, Burst: 10},
	}, run, probe.Without(probe.Sampling, "round-trip times", func(c *Config) { c.RTTEvery = 0 }))
}

// By the number the program gives them.
var (
	roles      = [...]string{"connect", "accept"}
	directions = [...]string{"sent", "received"}
	failures   = [...]string{"refused", "timed_out", "unreachable", "aborted", "other"}
	// states: include/net/tcp_states.h, with 0 for no socket.
	states = [...]string{"none", "established", "syn_sent", "syn_recv", "fin_wait1", "fin_wait2", "time_wait", "close",
		"close_wait", "last_ack", "listen", "closing", "new_syn_recv"}
)

func metric(name string, t signal.MetricType, unit, help, read string, fields ...signal.Field) *signal.Schema {
	return &signal.Schema{Name: name, Kind: signal.Metric, Type: t, Unit: unit, Area: signal.AreaNetwork, Scope: signal.Host,
		Help: help, Read: read, Fields: fields}
}

func workload(s *signal.Schema) *signal.Schema {
	s.Scope = signal.Workload
	return s
}

var (
	roleField    = signal.Field{Name: "role", Help: "connect: from the SYN until the connection stands; accept: from the answer to a SYN until its acknowledgement", Values: roles[:]}
	failureField = signal.Field{Name: "reason", Help: "refused: by a reset; timed_out: no answer; unreachable: told by ICMP; aborted: the program gave up", Values: failures[:]}

	handshake = metric("huatuo_tcp_handshake_seconds", signal.Histogram, "seconds",
		"Time that a TCP connection took to be established, in all network namespaces.",
		"connect near the round-trip time is good; a second bucket at 1 s or more is lost SYNs or a full listen queue.", roleField)
	connectFailures = metric("huatuo_tcp_connect_failures_total", signal.Counter, "1",
		"TCP connections that this host began and that were not established, in all network namespaces.",
		"timed_out: a firewall, a dead host or a full listen queue; refused: nobody listens.", failureField)
	rtt = metric("huatuo_tcp_rtt_seconds", signal.Histogram, "seconds",
		"Smoothed round-trip time of connections, taken at a sample of the segments received; not of connections between one address and itself.",
		"A busy connection counts more often. Higher than usual at the same peers: queues on the way, or a slow peer.")
	variation = metric("huatuo_tcp_rtt_variation_seconds", signal.Histogram, "seconds",
		"Mean deviation of the round-trip time, taken as huatuo_tcp_rtt_seconds is.",
		"Near the round-trip time itself: the path's queues fill and drain, or the peer is not scheduled evenly.")
	resets = metric("huatuo_tcp_resets_total", signal.Counter, "1",
		"TCP resets sent and received, in all network namespaces.",
		"received in established: the peer's program or a box on the way broke the connection. sent without a socket: somebody knocks on closed ports.",
		signal.Field{Name: "direction", Help: "which way", Values: directions[:]},
		signal.Field{Name: "state", Help: "of the socket when it happened; none: there was no socket", Values: states[:]},
		signal.Field{Name: "reason", Help: "of a reset sent, enum sk_rst_reason of this kernel without its prefix; UNKNOWN for those received and before Linux 6.10"})

	containerHandshake = workload(metric("huatuo_container_tcp_handshake_seconds", signal.Histogram, "seconds",
		"Time that a TCP connection of the workload took to be established.", "As huatuo_tcp_handshake_seconds.", roleField))
	containerFailures = workload(metric("huatuo_container_tcp_connect_failures_total", signal.Counter, "1",
		"TCP connections that the workload began and that were not established.", "As huatuo_tcp_connect_failures_total.", failureField))
	containerRTT = workload(metric("huatuo_container_tcp_rtt_seconds", signal.Histogram, "seconds",
		"Smoothed round-trip time of the workload's connections, as huatuo_tcp_rtt_seconds has it.", "One workload alone: look at its peers."))
	containerResets = workload(metric("huatuo_container_tcp_resets_total", signal.Counter, "1",
		"Connections of the workload that a reset ended while somebody still used them.", "received: the peer ended it; sent: the workload itself did.",
		signal.Field{Name: "direction", Help: "which way", Values: directions[:]}))
)

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	if cfg.ListenInterval != 0 && cfg.ListenInterval < time.Second {
		return fmt.Errorf("probes.tcp.listen_interval is %v: want 1s or more, or 0", cfg.ListenInterval)
	}
	o, err := attach(env, cfg)
	if err != nil {
		return err
	}
	defer o.Close()

	groups := sockets(env)
	if groups != nil {
		defer groups.Close()
	}
	rs := reasonNames(env.Kernel.Types())
	env.Collect(load.Guard(o, func(b *signal.Batch) error { return collect(b, o, rs, groups) }))

	w := newWatcher(env)
	var wg sync.WaitGroup
	defer wg.Wait()
	if cfg.ListenInterval > 0 {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		wg.Go(func() {
			probe.Every(ctx, cfg.ListenInterval, func() error { w.round(); return nil })
		})
	}
	d := &decoder{clock: env.Clock, reasons: rs, groups: groups}
	return probe.Stream(ctx, w.wrap(), o, d.decode)
}

func attach(env *probe.Env, cfg Config) (*load.Object, error) {
	l, err := env.Kernel.Load(loadBpf, loadBpfLegacy)
	if err != nil {
		return nil, err
	}
	if err := l.Set("rtt_every", cfg.RTTEvery); err != nil {
		return nil, err
	}
	for _, kind := range []string{"connect_failure", "tcp_reset"} {
		if err := cfg.Set(l, kind); err != nil {
			return nil, err
		}
	}
	send := load.TP("tcp_send_reset").Maybe()
	if env.Kernel.TracepointArgs("tcp_send_reset") != 3 {
		send.Programs = []string{"tcp_send_reset_2_btf", "tcp_send_reset_2_raw"}
	}
	hooks := []load.Hook{load.TP("inet_sock_set_state"), send, load.TP("tcp_receive_reset").Maybe()}
	if cfg.RTTEvery > 0 {
		hooks = append(hooks, load.TP("tcp_probe").Maybe())
	}
	return l.Attach(hooks...)
}

// sockets returns what tells a workload by the cgroup of a socket, which the
// kernel knows in the default hierarchy only; nil, and the reason in the log,
// when that is not possible.
func sockets(env *probe.Env) *cgroup.Translator {
	if env.Layout == nil {
		return nil
	}
	t, err := env.Layout.Translator("")
	if err != nil {
		env.Log.Info("connections are not told by workload", "reason", err)
		return nil
	}
	return t
}

func collect(b *signal.Batch, o *load.Object, rs reasons, groups *cgroup.Translator) error {
	var cpus []bpfCpuState
	if err := o.Map("cpus").Lookup(uint32(0), &cpus); err != nil {
		return fmt.Errorf("read host histograms: %w", err)
	}
	var sum bpfCpuState
	for i := range cpus {
		c := &cpus[i]
		for r := range roles {
			addFine(&sum.Handshake[r], &c.Handshake[r])
		}
		addFine(&sum.Rtt, &c.Rtt)
		addFine(&sum.Variation, &c.Variation)
		for f, n := range c.Failures {
			sum.Failures[f] += n
		}
	}
	for r, name := range roles {
		b.Hist(handshake, fine(&sum.Handshake[r]), name)
	}
	for f, name := range failures {
		b.Value(connectFailures, float64(sum.Failures[f]), name)
	}
	if o.Attached("tcp_probe") {
		b.Hist(rtt, fine(&sum.Rtt))
		b.Hist(variation, fine(&sum.Variation))
	}
	if err := collectResets(b, o, rs); err != nil {
		return err
	}
	if groups == nil {
		return nil
	}
	return collectGroups(b, o, groups)
}

func collectResets(b *signal.Batch, o *load.Object, rs reasons) error {
	type series struct{ direction, state, reason string }
	sums := map[series]uint64{}
	var k bpfResetKey
	var per []uint64
	it := o.Map("resets").Iterate()
	for it.Next(&k, &per) {
		s := series{directions[k.Direction&1], stateName(k.State), rs.name(k.Reason)}
		for _, n := range per {
			sums[s] += n
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read resets: %w", err)
	}
	for s, n := range sums {
		b.Value(resets, float64(n), s.direction, s.state, s.reason)
	}
	return nil
}

// collectGroups sums what the groups of one workload's hierarchy have: two of the
// default hierarchy may be one of that which names workloads.
func collectGroups(b *signal.Batch, o *load.Object, groups *cgroup.Translator) error {
	sums := map[uint64]*bpfGroup{}
	var id uint64
	var g bpfGroup
	it := o.Map("groups").Iterate()
	for it.Next(&id, &g) {
		who := groups.ID(id)
		sum := sums[who]
		if sum == nil {
			sum = &bpfGroup{}
			sums[who] = sum
		}
		for r := range roles {
			add(&sum.Handshake[r], &g.Handshake[r])
		}
		add(&sum.Rtt, &g.Rtt)
		for f, n := range g.Failures {
			sum.Failures[f] += n
		}
		for d, n := range g.Resets {
			sum.Resets[d] += n
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read counts of cgroups: %w", err)
	}
	for id, g := range sums {
		for r, name := range roles {
			b.WorkloadHist(containerHandshake, id, coarse(&g.Handshake[r]), name)
		}
		for f, name := range failures {
			b.WorkloadValue(containerFailures, id, float64(g.Failures[f]), name)
		}
		if o.Attached("tcp_probe") {
			b.WorkloadHist(containerRTT, id, coarse(&g.Rtt))
		}
		for d, name := range directions {
			b.WorkloadValue(containerResets, id, float64(g.Resets[d]), name)
		}
	}
	return nil
}

func addFine(to, h *bpfHtHistFine) {
	to.Zero += h.Zero
	to.Sum += h.Sum
	for i, n := range h.Slots {
		to.Slots[i] += n
	}
}

func add(to, h *bpfHtHist) {
	to.Zero += h.Zero
	to.Sum += h.Sum
	for i, n := range h.Slots {
		to.Slots[i] += n
	}
}

func fine(h *bpfHtHistFine) *signal.Hist { return signal.LatencyHist(2, h.Zero, h.Sum, h.Slots[:]) }

func coarse(h *bpfHtHist) *signal.Hist { return signal.LatencyHist(0, h.Zero, h.Sum, h.Slots[:]) }
