package main

import (
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"huatuo/internal/app"
	"huatuo/internal/profile"
	"huatuo/internal/profile/runtimes"
	sig "huatuo/internal/signal"
)

// runtimeRun is one `huatuo profile runtime`.
type runtimeRun struct {
	request sig.RuntimeRequest
	output  string
}

func (c *cli) runtimeCmd() *cobra.Command {
	r := &runtimeRun{}
	cmd := &cobra.Command{
		Use:   "runtime [heap|allocs|goroutine|mutex|block|classes]",
		Short: "Ask a process for a profile that its own language runtime keeps; no agent is needed",
		Long: `Ask a process for a profile that its own language runtime keeps.

Go programs that serve net/http/pprof on a TCP port have heap, allocs, goroutine,
mutex and block; mutex and block have something only when the program asks for it,
by runtime.SetMutexProfileFraction and runtime.SetBlockProfileRate. HotSpot JVMs
have classes: how many objects of each class there are, and what they take; the
program is halted while they are counted.

Without --pid the processes that may have profiles are listed, which none of them
notices. Without the name of a profile, those of the process are: the ports that a
Go program listens on are asked for that. They are reached within the process'
network namespace, so those of containers need not be published.

With -o the profile is written to a file for other tools, as by huatuo profile.`,
		Example: `  sudo huatuo profile runtime
  sudo huatuo profile runtime --pid 4242
  sudo huatuo profile runtime --pid 4242 mutex
  sudo huatuo profile runtime --pid 4242 heap --for 30s -o grown.pb.gz
  sudo huatuo profile runtime --pid 4343 classes --collect`,
		ValidArgs: []string{"heap", "allocs", "goroutine", "mutex", "block", "classes"},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return errUsage{fmt.Errorf("want one profile, not %s", strings.Join(args, " "))}
			}
			if len(args) == 1 {
				r.request.Profile = args[0]
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return c.runtime(cmd, r) },
	}
	f := cmd.Flags()
	f.Uint32Var(&r.request.PID, "pid", 0, "the process")
	f.DurationVar(&r.request.For, "for", 0, "the change within so long, of Go's profiles; all since the program began when 0")
	f.BoolVar(&r.request.Collect, "collect", false, "collect garbage first, for heap and classes; the program is halted for that")
	f.StringVar(&r.request.Sample, "sample", "", "what stacks are weighted with: inuse_space, inuse_objects, alloc_space, alloc_objects, delay, contentions, space, instances")
	f.StringVarP(&r.output, "output", "o", "", `file for the profile, "-" for standard output`)
	return cmd
}

func (c *cli) runtime(cmd *cobra.Command, r *runtimeRun) error {
	named := r.request.Profile != ""
	switch {
	case named && r.request.PID == 0:
		return errUsage{fmt.Errorf("name the process by --pid; without a profile, `%s` lists those that have some", cmd.CommandPath())}
	case !named && (r.output != "" || r.request.For != 0 || r.request.Collect || r.request.Sample != ""):
		return errUsage{fmt.Errorf("name a profile: %s", strings.Join(cmd.ValidArgs, ", "))}
	}
	format, err := formatOf(r.output)
	if err != nil {
		return err
	}
	cfg, err := c.load(cmd.Flags())
	if err != nil {
		return err
	}
	client, err := app.NewRuntimes(cfg)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	switch {
	case r.request.PID == 0:
		list, err := client.List(ctx)
		if err == nil {
			c.printRuntimes(list)
		}
		return err
	case !named:
		d, err := client.Ask(ctx, r.request.PID)
		if err != nil {
			return err
		}
		if len(d.Profiles) == 0 {
			return fmt.Errorf("process %d (%s) offers no profiles: %s", d.PID, printable(d.Process), printable(d.Reason))
		}
		c.printOffers(&d)
		return nil
	}
	if r.request.For > 0 {
		fmt.Fprintf(c.err, "huatuo: process %d takes the profile for %v\n", r.request.PID, r.request.For)
	}
	p, err := client.Fetch(ctx, r.request)
	if err != nil {
		return err
	}
	if format != "" {
		if err := writeTo(r.output, c.out, func(w io.Writer) error { return app.EncodeRuntime(w, p, r.request, format) }); err != nil {
			return err
		}
	}
	if r.output == "-" {
		return nil
	}
	g, err := runtimes.Graph(p, r.request.Profile, r.request.Sample)
	if err != nil {
		return err
	}
	c.printRuntime(g, &r.request)
	return nil
}

func (c *cli) printRuntimes(list []sig.RuntimeProcess) {
	if len(list) == 0 {
		fmt.Fprintln(c.out, "there is neither a Go program that listens on a port nor a JVM")
		return
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PID\tPROCESS\tRUNTIME\tPROFILES")
	for _, d := range list {
		what := "classes"
		switch {
		case len(d.Listens) > 0:
			what = "may be at " + strings.Join(d.Listens, ", ")
		case len(d.Profiles) == 0:
			what = "none: " + d.Reason
		}
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\n", d.PID, printable(d.Process), d.Runtime, printable(what))
	}
	w.Flush()
}

func (c *cli) printOffers(d *sig.RuntimeProcess) {
	fmt.Fprintf(c.out, "%s (%d), %s\n\n", printable(d.Process), d.PID, strings.TrimSpace(d.Runtime+" "+printable(d.Version)))
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PROFILE\tRECORDS\tSAMPLES\tAT")
	for _, p := range d.Profiles {
		count := "-"
		if p.Count != nil {
			count = fmt.Sprint(*p.Count)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Name, count, strings.Join(p.Samples, ", "), printable(p.At))
	}
	w.Flush()
	fmt.Fprintln(c.out)
	for _, p := range d.Profiles {
		fmt.Fprintf(c.out, "%-10s %s\n", p.Name, p.Help)
	}
}

// printRuntime prints what takes most of a runtime's profile.
func (c *cli) printRuntime(g *sig.FlameGraph, r *sig.RuntimeRequest) {
	fmt.Fprintf(c.out, "%s of process %d: %s", g.Type, r.PID, profile.Amount(g.Total, g.Unit))
	if r.For > 0 {
		fmt.Fprintf(c.out, " in %v", g.To.Sub(g.From).Round(100*time.Millisecond))
	}
	fmt.Fprint(c.out, "\n\n")
	if g.Total == 0 {
		fmt.Fprintln(c.out, "nothing was recorded")
		return
	}
	c.printTable(g)
}
