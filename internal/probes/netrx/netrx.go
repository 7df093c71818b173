// Package netrx measures how long received packets wait on their way to the
// program that reads them.
package netrx

import (
	"context"
	_ "embed"
	"fmt"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type netrx_wire -type cpu_state -type group -type ht_packet -type ht_hist -type ht_hist_fine bpf netrx.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types bpfLegacy netrx.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2 -DHT_LEGACY

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Every            uint32        `yaml:"every" help:"measure one of so many packets, at each stage on each CPU"`
	Stack            time.Duration `yaml:"stack" help:"a packet that reaches the stack so long after the driver handed it over is a net_rx_latency event; 5ms is more than soft interrupts take on a CPU that keeps up"`
	TCP              time.Duration `yaml:"tcp" help:"the same for a segment that reaches its connection"`
	User             time.Duration `yaml:"user" help:"the same for data that a program reads; 115ms is what a program may sleep on a busy host without being in trouble, and above the 100ms of a container's throttling"`
	probe.EventKnobs `yaml:",inline"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "netrx",
		Help:   "Measures how long received packets wait on their way to the program that reads them.",
		Readme: readme,
		Source: "net:netif_receive_skb, tcp:tcp_probe, skb:skb_copy_datagram_iovec",
		Since:  "4.18",
		Emits:  []*signal.Schema{delay, containerDelay, unstamped, slow},
	}, Config{
		Every: 16, Stack: 5 * time.Millisecond, TCP: 10 * time.Millisecond, User: 115 * time.Millisecond,
		EventKnobs: probe.EventKnobs{Rate: 5, Burst: 10},
	}, run, probe.Without(probe.Sampling, "seven of eight samples", func(c *Config) { c.Every *= 8 }))
}

// stages by the number the program gives them.
var stages = [...]string{"stack", "tcp", "user_tcp", "user_udp"}

var (
	delay = &signal.Schema{
		Name: "huatuo_network_receive_seconds", Kind: signal.Metric, Type: signal.Histogram, Unit: "seconds",
		Area: signal.AreaNetwork, Scope: signal.Host,
		Help: "Time from when the driver handed a packet to the kernel until it came to a stage of its way, in all network namespaces, of a sample of packets.",
		Read: "stack high: soft interrupts do not keep up; tcp high alone: firewall, or the connection's lock is held; user high alone: the program reads late.",
		Fields: []signal.Field{{Name: "stage", Help: "stack: the protocols get it; tcp: its connection gets it; user_tcp, user_udp: a program reads it",
			Values: stages[:]}},
	}
	containerDelay = &signal.Schema{
		Name: "huatuo_container_network_receive_seconds", Kind: signal.Metric, Type: signal.Histogram, Unit: "seconds",
		Area: signal.AreaNetwork, Scope: signal.Workload,
		Help:   "Time from when the driver handed a packet to the kernel until the workload read it, of a sample of packets.",
		Read:   "Higher than the other workloads': it is throttled, waits for a CPU, or does something else than read.",
		Fields: []signal.Field{{Name: "stage", Help: "by protocol", Values: stages[2:]}},
	}
	unstamped = &signal.Schema{
		Name: "huatuo_network_receive_unmeasured_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaAgent, Scope: signal.Host,
		Help: "Packets of the sample that had no stamp, or one of another clock.",
		Read: "Some are normal, such as what was received before the agent began; steadily more than were measured: the stamps are off.",
	}
	slow = signal.EventOf[RxLatency]("net_rx_latency", signal.AreaNetwork, signal.Warning,
		"A received packet waited longer than the threshold.").When(
		"A measured packet, one of `every` (16), that reaches the stack `stack` (5ms), its connection `tcp` (10ms) or its reader `user` (115ms) after the driver handed it over: more than a CPU that keeps up takes, and at the user stage more than the 100ms for which a container is throttled.",
		"A connection that nobody waits on, such as one in a pool, shows seconds at the user stages and harms nobody. Requests that queue in a busy single-threaded program are its way to work.")
)

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	if cfg.Every == 0 || cfg.Stack <= 0 || cfg.TCP <= 0 || cfg.User <= 0 {
		return fmt.Errorf("probes.netrx: every, stack, tcp and user must be positive, not %d, %v, %v, %v", cfg.Every, cfg.Stack, cfg.TCP, cfg.User)
	}
	stamps, err := stampPackets()
	if err != nil {
		return err
	}
	defer unix.Close(stamps)
	o, err := attach(env, cfg)
	if err != nil {
		return err
	}
	defer o.Close()

	m := o.Map("offset")
	if err := setOffset(m); err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx2, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() {
		// The time of day may be slewed by 0.5 ms a second, and set at any time.
		if err := probe.Every(ctx2, time.Second, func() error { return setOffset(m) }); err != nil {
			env.Log.Error("the time of day is not followed any more", "err", err)
		}
	})
	env.Collect(load.Guard(o, func(b *signal.Batch) error { return collect(b, o) }))
	return probe.Stream(ctx, env, o, func(raw []byte) (*signal.Record, error) { return decode(raw, env.Clock) })
}

// stampPackets makes the kernel stamp all received packets for as long as the
// socket that it returns is open.
func stampPackets() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open socket for time stamps: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMP, 1); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("turn on time stamps: %w", err)
	}
	return fd, nil
}

// setOffset tells the program how far the time of day is ahead of its clock.
func setOffset(m *ebpf.Map) error {
	var best, width int64
	for i := range 3 { // an interruption between the readings makes a wide one
		var a, real, b unix.Timespec
		for _, c := range []struct {
			clock int32
			to    *unix.Timespec
		}{{unix.CLOCK_MONOTONIC, &a}, {unix.CLOCK_REALTIME, &real}, {unix.CLOCK_MONOTONIC, &b}} {
			if err := unix.ClockGettime(c.clock, c.to); err != nil {
				return fmt.Errorf("read clock: %w", err)
			}
		}
		if w := b.Nano() - a.Nano(); i == 0 || w < width {
			best, width = real.Nano()-a.Nano()-w/2, w
		}
	}
	if err := m.Put(uint32(0), uint64(best)); err != nil {
		return fmt.Errorf("set clock of the program: %w", err)
	}
	return nil
}

func attach(env *probe.Env, cfg Config) (*load.Object, error) {
	l, err := env.Kernel.Load(loadBpf, loadBpfLegacy)
	if err != nil {
		return nil, err
	}
	for name, v := range map[string]any{
		"every": cfg.Every, "stack_ns": uint64(cfg.Stack), "tcp_ns": uint64(cfg.TCP), "user_ns": uint64(cfg.User),
	} {
		if err := l.Set(name, v); err != nil {
			return nil, err
		}
	}
	if err := cfg.Set(l, "net_rx_latency"); err != nil {
		return nil, err
	}
	return l.Attach(load.TP("netif_receive_skb"), load.TP("tcp_probe").Maybe(), load.TP("skb_copy_datagram_iovec"))
}

func collect(b *signal.Batch, o *load.Object) error {
	var cpus []bpfCpuState
	if err := o.Map("cpus").Lookup(uint32(0), &cpus); err != nil {
		return fmt.Errorf("read host histograms: %w", err)
	}
	var sum bpfCpuState
	for i := range cpus {
		sum.Unstamped += cpus[i].Unstamped
		for s := range stages {
			h := &cpus[i].Stages[s]
			sum.Stages[s].Zero += h.Zero
			sum.Stages[s].Sum += h.Sum
			for j, n := range h.Slots {
				sum.Stages[s].Slots[j] += n
			}
		}
	}
	for s, name := range stages {
		h := &sum.Stages[s]
		b.Hist(delay, signal.LatencyHist(2, h.Zero, h.Sum, h.Slots[:]), name)
	}
	b.Value(unstamped, float64(sum.Unstamped))

	var id uint64
	var g bpfGroup
	it := o.Map("groups").Iterate()
	for it.Next(&id, &g) {
		for s := range g.User {
			h := &g.User[s]
			b.WorkloadHist(containerDelay, id, signal.LatencyHist(0, h.Zero, h.Sum, h.Slots[:]), stages[2+s])
		}
	}
	if err := it.Err(); err != nil {
		return fmt.Errorf("read histograms of cgroups: %w", err)
	}
	return nil
}
