// Package dns measures how long name servers take to answer, and reports
// queries that fail.
package dns

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

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type dns_wire -type cpu_state -type group -type query -type query_key -type ht_hist -type ht_hist_fine bpf dns.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types bpfLegacy dns.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2 -DHT_LEGACY

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Slow             time.Duration `yaml:"slow" help:"an answer that takes so long is a dns_failure event; 1s is what users notice, and less than the 5s after which the C library asks again"`
	Timeout          time.Duration `yaml:"timeout" help:"a query without an answer for so long counts as timed out, 1s or more; 5s is when the C library asks again"`
	probe.EventKnobs `yaml:",inline"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "dns",
		Help:   "Measures how long name servers take to answer, and reports queries that fail.",
		Readme: readme,
		Source: "net:net_dev_queue, netif_receive_skb",
		Since:  "4.18",
		Emits:  []*signal.Schema{answers, responses, timeouts, retries, containerAnswers, containerResponses, containerTimeouts, failed},
	}, Config{
		Slow: time.Second, Timeout: 5 * time.Second,
		EventKnobs: probe.EventKnobs{Rate: 5, Burst: 10},
	}, run)
}

// rcodes of RFC 1035; those after mean nothing to a client that only asks.
var rcodes = [...]string{"noerror", "formerr", "servfail", "nxdomain", "notimp", "refused", "other"}

func rcode[T uint32 | int](n T) string { return rcodes[min(int(n), len(rcodes)-1)] }

func metric(name string, t signal.MetricType, unit string, scope signal.Scope, help, read string, fields ...signal.Field) *signal.Schema {
	return &signal.Schema{Name: name, Kind: signal.Metric, Type: t, Unit: unit, Area: signal.AreaNetwork, Scope: scope,
		Help: help, Read: read, Fields: fields}
}

var (
	rcodeField = signal.Field{Name: "rcode", Help: "what the server answered", Values: rcodes[:]}

	answers = metric("huatuo_dns_query_seconds", signal.Histogram, "seconds", signal.Host,
		"Time from the first packet of a DNS query until its answer, over UDP, in all network namespaces.",
		"Half a millisecond from a cache near by; a hump at 5 s is lost packets and a client that asks again.")
	responses = metric("huatuo_dns_responses_total", signal.Counter, "1", signal.Host,
		"Answers to DNS queries of this host, by what they said.",
		"servfail and refused are failures of the server. Many nxdomain: search domains, each name costs several queries.", rcodeField)
	timeouts = metric("huatuo_dns_timeouts_total", signal.Counter, "1", signal.Host,
		"DNS queries that got no answer in time.", "Packets are lost on the way, or the server is overloaded: each costs a program seconds.")
	retries = metric("huatuo_dns_retries_total", signal.Counter, "1", signal.Host,
		"Packets of DNS queries that were sent again while the first had no answer.", "Precedes timeouts.")
	containerAnswers = metric("huatuo_container_dns_query_seconds", signal.Histogram, "seconds", signal.Workload,
		"Time from the first packet of a DNS query of the workload until its answer.", "As huatuo_dns_query_seconds.")
	containerResponses = metric("huatuo_container_dns_responses_total", signal.Counter, "1", signal.Workload,
		"Answers to DNS queries of the workload, by what they said.", "As huatuo_dns_responses_total.", rcodeField)
	containerTimeouts = metric("huatuo_container_dns_timeouts_total", signal.Counter, "1", signal.Workload,
		"DNS queries of the workload that got no answer in time.", "One workload alone: its network policy, or its resolv.conf.")
)

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	if cfg.Slow <= 0 || cfg.Timeout < time.Second {
		return fmt.Errorf("probes.dns: slow is %v and timeout %v: want a positive duration, and 1s or more", cfg.Slow, cfg.Timeout)
	}
	l, err := env.Kernel.Load(loadBpf, loadBpfLegacy)
	if err != nil {
		return err
	}
	if err := l.Set("slow_ns", uint64(cfg.Slow)); err != nil {
		return err
	}
	if err := cfg.Set(l, "dns_failure"); err != nil {
		return err
	}
	o, err := l.Attach(load.TP("net_dev_queue"), load.TP("netif_receive_skb"))
	if err != nil {
		return err
	}
	defer o.Close()

	groups := sockets(env)
	if groups != nil {
		defer groups.Close()
	}
	d := &decoder{clock: env.Clock, groups: groups}
	s := newSweeper(env, o.Map("queries"), d, cfg.Timeout)
	env.Collect(load.Guard(o, func(b *signal.Batch) error { return collect(b, o, groups, s) }))
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx2, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() {
		if err := probe.Every(ctx2, cfg.Timeout/5, s.round); err != nil {
			env.Log.Error("queries without an answer are not counted any more", "err", err)
		}
	})
	return probe.Stream(ctx, s.wrap(), o, d.decode)
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
		env.Log.Info("queries are not told by workload", "reason", err)
		return nil
	}
	return t
}

func collect(b *signal.Batch, o *load.Object, groups *cgroup.Translator, s *sweeper) error {
	var cpus []bpfCpuState
	if err := o.Map("cpus").Lookup(uint32(0), &cpus); err != nil {
		return fmt.Errorf("read host histogram: %w", err)
	}
	var sum bpfCpuState
	for i := range cpus {
		c := &cpus[i]
		sum.Retries += c.Retries
		sum.Answers.Zero += c.Answers.Zero
		sum.Answers.Sum += c.Answers.Sum
		for j, n := range c.Answers.Slots {
			sum.Answers.Slots[j] += n
		}
		for r, n := range c.Rcodes {
			sum.Rcodes[r] += n
		}
	}
	b.Hist(answers, signal.LatencyHist(2, sum.Answers.Zero, sum.Answers.Sum, sum.Answers.Slots[:]))
	for name, n := range byName(&sum.Rcodes) {
		b.Value(responses, float64(n), name)
	}
	b.Value(retries, float64(sum.Retries))
	s.collect(b, groups != nil)
	if groups == nil {
		return nil
	}
	return collectGroups(b, o, groups)
}

func byName(counts *[16]uint64) map[string]uint64 {
	m := make(map[string]uint64, len(rcodes))
	for r, n := range counts {
		m[rcode(r)] += n
	}
	return m
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
		sum.Answers.Zero += g.Answers.Zero
		sum.Answers.Sum += g.Answers.Sum
		for j, n := range g.Answers.Slots {
			sum.Answers.Slots[j] += n
		}
		for r, n := range g.Rcodes {
			sum.Rcodes[r] += n
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read counts of cgroups: %w", err)
	}
	for id, g := range sums {
		b.WorkloadHist(containerAnswers, id, signal.LatencyHist(0, g.Answers.Zero, g.Answers.Sum, g.Answers.Slots[:]))
		for name, n := range byName(&g.Rcodes) {
			b.WorkloadValue(containerResponses, id, float64(n), name)
		}
	}
	return nil
}
