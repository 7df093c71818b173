// Package tcpretrans counts the segments that TCP sends again, and reports the
// connections that do.
package tcpretrans

import (
	"context"
	_ "embed"
	"fmt"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type retransmit_wire -type counts -type ht_flow bpf tcpretrans.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types bpfLegacy tcpretrans.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2 -DHT_LEGACY

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	probe.PacketKnobs `yaml:",inline"`
	probe.EventKnobs  `yaml:",inline"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "tcpretrans",
		Help:   "Counts the segments that TCP sends again, and reports the connections that do.",
		Readme: readme,
		Source: "tcp:tcp_retransmit_skb, tcp_retransmit_synack",
		Since:  "4.18",
		Emits:  []*signal.Schema{retransmits, failures, containerRetransmits, retransmitted},
	}, Config{
		EventKnobs: probe.EventKnobs{Rate: 5, Burst: 10},
	}, run)
}

// kinds by the number the program gives them.
var kinds = [...]string{"fast", "rto", "tlp", "syn", "synack", "other"}

var (
	retransmits = &signal.Schema{
		Name: "huatuo_tcp_retransmits_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaNetwork, Scope: signal.Host,
		Help: "Segments that TCP sent again, in all network namespaces.",
		Read: "fast and tlp are losses that cost a round trip; rto costs 200 ms and more; syn and synack delay new connections by a second.",
		Fields: []signal.Field{{Name: "kind", Help: "fast: the peer's acknowledgements showed the loss; rto: the retransmission timer ran out; tlp: a probe at the end of what was to be sent; syn, synack: of the handshake",
			Values: kinds[:]}},
	}
	failures = &signal.Schema{
		Name: "huatuo_tcp_retransmit_failures_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaNetwork, Scope: signal.Host,
		Help: "Segments that TCP was to send again and could not: they never left this host; not told before Linux 6.17.",
		Read: "More than a few: the original is still in a queue of this host, the peer's window is closed, or there is no route or memory.",
	}
	containerRetransmits = &signal.Schema{
		Name: "huatuo_container_tcp_retransmits_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaNetwork, Scope: signal.Workload,
		Help: "Segments that TCP sent again on sockets of the workload.",
		Read: "One workload alone: look at its peers or its limits. All of them: the host's network.",
	}
)

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	l, err := env.Kernel.Load(loadBpf, loadBpfLegacy)
	if err != nil {
		return err
	}
	if err := cfg.Set(l, "tcp_retransmit"); err != nil {
		return err
	}
	if err := cfg.SetFilter(l); err != nil {
		return err
	}
	retransmit, withError := hook(env.Kernel.TracepointArgs("tcp_retransmit_skb"))
	o, err := l.Attach(retransmit, load.TP("tcp_retransmit_synack").Maybe())
	if err != nil {
		return err
	}
	defer o.Close()

	groups := sockets(env)
	if groups != nil {
		defer groups.Close()
	}
	env.Collect(load.Guard(o, func(b *signal.Batch) error { return collect(b, o, groups, withError) }))
	env.Ready(o.Hooks()...)
	d := &decoder{clock: env.Clock, groups: groups}
	return probe.Stream(ctx, env, o, d.decode)
}

// hook chooses the form of tcp_retransmit_skb by how many arguments it has:
// see core_fixes.h. A kernel that does not tell gets the form that any takes.
func hook(args int) (h load.Hook, withError bool) {
	h = load.TP("tcp_retransmit_skb")
	if args >= 3 {
		return h, true
	}
	h.Programs = []string{"tcp_retransmit_skb_2_btf", "tcp_retransmit_skb_2_raw"}
	return h, false
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
		env.Log.Info("retransmissions are not told by workload", "reason", err)
		return nil
	}
	return t
}

func collect(b *signal.Batch, o *load.Object, groups *cgroup.Translator, withError bool) error {
	var cpus []bpfCounts
	if err := o.Map("host").Lookup(uint32(0), &cpus); err != nil {
		return fmt.Errorf("read counts: %w", err)
	}
	var sum bpfCounts
	for i := range cpus {
		for k, n := range cpus[i].Sent {
			sum.Sent[k] += n
		}
		sum.Failed += cpus[i].Failed
	}
	for k, name := range kinds {
		b.Value(retransmits, float64(sum.Sent[k]), name)
	}
	if withError {
		b.Value(failures, float64(sum.Failed))
	}
	if groups == nil {
		return nil
	}
	who := make(map[uint64]uint64)
	var id uint64
	var per []uint64
	it := o.Map("cgroups").Iterate()
	for it.Next(&id, &per) {
		for _, n := range per {
			who[groups.ID(id)] += n
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read counts of cgroups: %w", err)
	}
	for id, n := range who {
		b.WorkloadValue(containerRetransmits, id, float64(n))
	}
	return nil
}
