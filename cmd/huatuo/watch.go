package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"huatuo/internal/app"
	"huatuo/internal/probe"
	"huatuo/internal/probes"
	sig "huatuo/internal/signal"
)

// watcher prints events.
type watcher struct {
	out       io.Writer
	json      bool
	stacks    bool
	kinds     []string
	container string
	pid       uint32
	limit     int

	mu    sync.Mutex
	count int
	stop  context.CancelFunc
}

func (c *cli) watchCmd() *cobra.Command {
	w := &watcher{out: c.out}
	var output, filter string
	cmd := &cobra.Command{
		Use:   "watch EVENT…",
		Short: "Print events as they happen; no agent is needed",
		Long: `Run the probes that make the named events, and print each event until interrupted.
Without a name all events are printed. The kinds are: ` + strings.Join(eventKinds(), ", ") + `.
For short: ` + shortNameList() + `.

A packet filter, in the syntax of tcpdump, chooses the packets that make events of those kinds
that are about packets; it runs in the kernel. ` + "`huatuo explain netdrop`" + ` tells what it understands.`,
		Example: `  sudo huatuo watch sched_stall
  sudo huatuo watch drops --container 3f2a91 -o json
  sudo huatuo watch drops retransmits --filter 'tcp port 443 and net 10.0.0.0/8'
  sudo huatuo watch --pid 4242 --stacks
  sudo huatuo watch oom_kill --count 1     end after the first
  sudo huatuo watch process_exec           each program that starts to run`,
		ValidArgs: eventKinds(),
		RunE: func(cmd *cobra.Command, args []string) error {
			if output != "text" && output != "json" {
				return errUsage{fmt.Errorf("--output %q: want text or json", output)}
			}
			w.json = output == "json"
			kinds, err := namedKinds(args)
			if err != nil {
				return err
			}
			var options []string
			if w.kinds, options, err = withFilter(kinds, filter); err != nil {
				return err
			}
			for _, k := range w.kinds {
				if o := optIn(k); o != "" {
					options = append(options, o)
				}
			}
			for _, o := range options {
				if err := cmd.Flags().Set("set", o); err != nil {
					return err
				}
			}
			return c.watch(cmd, w)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&output, "output", "o", "text", "form of an event: text, or json (one document per line)")
	f.StringVar(&w.container, "container", "", "only events of this container: its name, or a prefix of its id")
	f.Uint32Var(&w.pid, "pid", 0, "only events of this process")
	f.StringVar(&filter, "filter", "", "only packets that this filter in tcpdump's syntax takes, of events that are about packets")
	f.BoolVar(&w.stacks, "stacks", false, "print stacks too (text)")
	f.IntVarP(&w.limit, "count", "n", 0, "end after this many events; 0: never")
	agentFlags(f)
	return cmd
}

// optIn returns the option that turns on an event which is off by default, ""
// for all others: who names an event wants it.
func optIn(kind string) string {
	if kind == "process_exec" {
		return "probes.process.exec=true"
	}
	return ""
}

func (c *cli) watch(cmd *cobra.Command, w *watcher) error {
	cfg, err := c.load(cmd.Flags())
	if err != nil {
		return err
	}
	e, err := app.NewEngine(cfg, probes.All(), c.logger(cfg))
	if err != nil {
		return err
	}
	if err := e.Kernel().Usable(); err != nil {
		return err
	}
	e.AddSink("terminal", w)
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	w.stop = stop
	go func() {
		e.Settle(ctx)
		for _, st := range e.Statuses() {
			if st.State == probe.Failed || st.State == probe.Unsupported {
				fmt.Fprintf(c.err, "huatuo: %s does not run: %s\n", st.Name, st.Reason)
			}
		}
		if ctx.Err() == nil && !w.json {
			fmt.Fprintln(c.err, "huatuo: watching; interrupt to end")
		}
	}()
	want := map[string]bool{}
	for _, s := range probes.All() {
		for _, ev := range s.Emits {
			if ev.Kind == sig.Event && (len(w.kinds) == 0 || slices.Contains(w.kinds, ev.Name)) {
				want[s.Name] = true
			}
		}
	}
	e.Run(ctx, func(name string) bool { return want[name] })
	return nil
}

// Deliver prints the events that pass the filters.
func (w *watcher) Deliver(_ context.Context, docs []*sig.Document) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, d := range docs {
		if !w.passes(d) {
			continue
		}
		if w.limit > 0 && w.count >= w.limit {
			return nil
		}
		if err := w.print(d); err != nil {
			w.stop() // the reader is gone
			return nil
		}
		w.count++
		if w.limit > 0 && w.count >= w.limit {
			w.stop()
		}
	}
	return nil
}

func (w *watcher) passes(d *sig.Document) bool {
	if len(w.kinds) > 0 && !slices.Contains(w.kinds, d.Kind) {
		return false
	}
	if w.pid != 0 && (d.Process == nil || d.Process.PID != w.pid && d.Process.TID != w.pid) {
		return false
	}
	if w.container != "" {
		c := d.Container
		return c != nil && (c.Name == w.container || c.ID != "" && strings.HasPrefix(c.ID, w.container) || c.Unit == w.container)
	}
	return true
}

func (w *watcher) print(d *sig.Document) error {
	if w.json {
		b, err := json.Marshal(d)
		if err != nil {
			return err
		}
		_, err = w.out.Write(append(b, '\n'))
		return err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s  %-12s %s", d.Time.Local().Format("15:04:05.000"), d.Kind, d.Title)
	if c := d.Container; c != nil {
		for _, s := range []string{c.Pod, c.Name, c.Unit} {
			if s != "" {
				fmt.Fprintf(&b, "  [%s]", s)
				break
			}
		}
	}
	if d.Suppressed > 0 {
		fmt.Fprintf(&b, "  (+%d suppressed)", d.Suppressed)
	}
	if len(d.Known) > 0 {
		fmt.Fprintf(&b, "  [known: %s]", strings.Join(d.Known, ", "))
	}
	b.WriteByte('\n')
	if d.Verdict != "" {
		fmt.Fprintf(&b, "    cause  %s\n", d.Verdict)
	}
	if w.stacks {
		printStack(&b, "kernel", d.KernelStack)
		printStack(&b, "user", d.UserStack)
	}
	_, err := io.WriteString(w.out, printable(b.String()))
	return err
}

func printStack(b *bytes.Buffer, what string, frames []sig.Frame) {
	for _, f := range frames {
		fmt.Fprintf(b, "    %-6s %s", what, f.Function)
		if f.Module != "" {
			fmt.Fprintf(b, " (%s)", f.Module)
		}
		b.WriteByte('\n')
	}
}
