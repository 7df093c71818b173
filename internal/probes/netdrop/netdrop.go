// Package netdrop counts the packets that the kernel drops, by reason, and
// reports those that matter.
package netdrop

import (
	"context"
	_ "embed"
	"fmt"

	"huatuo/internal/kern/cgroup"
	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type drop_wire -type drop_key -type ht_packet bpf netdrop.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types bpfLegacy netdrop.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2 -DHT_LEGACY

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	probe.PacketKnobs `yaml:",inline"`
	Ignore            []string `yaml:"ignore" help:"reasons that make no event, as in the label reason (NETFILTER_DROP), besides those that are normal; they are counted still"`
	probe.EventKnobs  `yaml:",inline"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "netdrop",
		Help:   "Counts the packets that the kernel drops, by reason, and reports those that matter.",
		Readme: readme,
		Source: "skb:kfree_skb",
		Since:  "4.18",
		Emits:  []*signal.Schema{drops, containerDrops, dropped},
	}, Config{
		Ignore:     []string{},
		EventKnobs: probe.EventKnobs{Rate: 5, Burst: 10},
	}, run)
}

var (
	drops = &signal.Schema{
		Name: "huatuo_network_drops_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaNetwork, Scope: signal.Host,
		Help: "Packets that the kernel dropped.",
		Read: "Look at normal=\"false\": those are losses that somebody may feel. The reason is the kernel's own word for it.",
		Fields: []signal.Field{
			{Name: "reason", Help: "enum skb_drop_reason of this kernel without its prefix; UNKNOWN before Linux 5.17"},
			{Name: "protocol", Help: "what was in the packet; ip: another protocol on IP", Values: protocols[:]},
			{Name: "normal", Help: "true: everyday, no loss; unknown: the kernel gives no reasons", Values: []string{"true", "false", "unknown"}},
		},
	}
	containerDrops = &signal.Schema{
		Name: "huatuo_container_network_drops_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaNetwork, Scope: signal.Workload,
		Help: "Packets to or from a socket of the workload that the kernel dropped for a reason that is not normal.",
		Read: "A full receive buffer shows here: a reader that is too slow. Packets that never got to a socket are told by huatuo_network_drops_total only.",
	}
)

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	rs := newReasons(env.Kernel.Types())
	o, err := attach(env, cfg, rs)
	if err != nil {
		return err
	}
	defer o.Close()

	groups := sockets(env)
	if groups != nil {
		defer groups.Close()
	}
	env.Collect(func(b *signal.Batch) error { return collect(b, o, rs, groups) })

	all := &total{drops: o.Map("drops")}
	defer all.freeze()
	l := &learner{env: env, total: all, places: o.Map("normal_places"), reasons: rs}
	d := &decoder{clock: env.Clock, reasons: rs, groups: groups, symbol: env.Symbol}
	return probe.Stream(ctx, l.wrap(), o, d.decode)
}

// attach loads the program in the form that this kernel's kfree_skb has.
func attach(env *probe.Env, cfg Config, rs *reasons) (*load.Object, error) {
	l, err := env.Kernel.Load(loadBpf, loadBpfLegacy)
	if err != nil {
		return nil, err
	}
	quiet, unknown := rs.quiet(cfg.Ignore)
	if len(unknown) > 0 {
		env.Log.Warn("this kernel has no such drop reasons", "probes.netdrop.ignore", unknown)
	}
	for i, set := range quiet {
		if err := l.Set(fmt.Sprintf("quiet_%d", 64*i), set); err != nil {
			return nil, err
		}
	}
	for constant, name := range map[string]string{"not_specified": notSpecified, "no_route_in": noRouteIn, "no_socket": noSocket} {
		if n, ok := rs.number(name); ok {
			if err := l.Set(constant, n); err != nil {
				return nil, err
			}
		}
	}
	if err := cfg.Set(l, "packet_drop"); err != nil {
		return nil, err
	}
	if err := cfg.SetFilter(l); err != nil {
		return nil, err
	}
	h := load.TP("kfree_skb")
	switch env.Kernel.TracepointArgs("kfree_skb") { // see core_fixes.h
	case 3:
		h.Programs = []string{"kfree_skb_3_btf", "kfree_skb_3_raw"}
	case 2, 0: // 0: the kernel is so old that its BTF does not tell
		h.Programs = []string{"kfree_skb_2_btf", "kfree_skb_2_raw"}
	}
	return l.Attach(h)
}

// sockets returns what tells a workload by the cgroup of a socket, which the
// kernel knows in the default hierarchy only; nil, and the reason in the log,
// when that is not possible.
func sockets(env *probe.Env) *cgroup.Translator {
	l, err := env.Layout, error(nil)
	if l == nil {
		l, err = cgroup.Detect(env.Root)
	}
	if err == nil {
		var t *cgroup.Translator
		if t, err = l.Translator(""); err == nil {
			return t
		}
	}
	env.Log.Info("dropped packets are not told by workload", "reason", err)
	return nil
}

func collect(b *signal.Batch, o *load.Object, rs *reasons, groups *cgroup.Translator) error {
	type series struct{ reason, protocol, normal string }
	sums := make(map[series]uint64) // two subsystem reasons may have one name
	var k bpfDropKey
	var per []uint64
	it := o.Map("drops").Iterate()
	for it.Next(&k, &per) {
		r := rs.of(k.Reason)
		if k.Normal != 0 {
			r.normal, r.none = true, false
		}
		sums[series{r.name, protocols[min(int(k.Proto), len(protocols)-1)], r.normality()}] += sum(per)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read drops: %w", err)
	}
	for s, n := range sums {
		b.Value(drops, float64(n), s.reason, s.protocol, s.normal)
	}
	if groups == nil {
		return nil
	}
	who := make(map[uint64]uint64)
	var id uint64
	it = o.Map("cgroups").Iterate()
	for it.Next(&id, &per) {
		who[groups.ID(id)] += sum(per)
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read drops of cgroups: %w", err)
	}
	for id, n := range who {
		b.WorkloadValue(containerDrops, id, float64(n))
	}
	return nil
}

func sum(per []uint64) (n uint64) {
	for _, x := range per {
		n += x
	}
	return n
}
