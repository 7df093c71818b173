package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"huatuo/internal/app"
	"huatuo/internal/probe"
	"huatuo/internal/probes"
)

// doctorWait is how long the probes may take to start: BPF programs of all
// probes verify within a second on a busy machine.
const doctorWait = 10 * time.Second

// machine is what doctor finds.
type machine struct {
	Kernel       string         `json:"kernel"`
	Arch         string         `json:"arch"`
	BTF          string         `json:"btf"`
	Ring         string         `json:"ring"`
	Flavour      string         `json:"flavour"`
	WhyLegacy    string         `json:"why_legacy,omitempty"`
	CgroupMode   string         `json:"cgroup_mode"`
	Capabilities []string       `json:"capabilities"`
	Missing      []missing      `json:"missing_capabilities"`
	BPF          string         `json:"bpf"` // "usable", or why not
	Lockdown     string         `json:"lockdown,omitempty"`
	Names        []source       `json:"name_sources"`
	Probes       []probe.Status `json:"probes"`
}

// source is where names of containers come from.
type source struct {
	Name   string `json:"name"`
	State  string `json:"state"` // up, down or absent
	Reason string `json:"reason,omitempty"`
}

// missing is a capability that this process does not have.
type missing struct {
	Name    string `json:"name"`
	Needed  bool   `json:"needed"`
	Without string `json:"without"` // what is lost
}

func (c *cli) doctorCmd() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Tell what this kernel offers, and which probe runs by which hook",
		Long: `Start every probe, tell by which hook it runs or why it does not, and stop again.
Tell also who gives containers their names.
The exit code is 0 when every enabled probe runs, 1 when one does not, 2 for a mistake in the command.`,
		Example: "  sudo huatuo doctor\n  sudo huatuo doctor -o json | jq '.probes[] | {name, state}'",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "text" && output != "json" {
				return errUsage{fmt.Errorf("--output %q: want text or json", output)}
			}
			return c.doctor(cmd, output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "form of the report: text or json")
	agentFlags(cmd.Flags())
	return cmd
}

func (c *cli) doctor(cmd *cobra.Command, output string) error {
	cfg, err := c.load(cmd.Flags())
	if err != nil {
		return err
	}
	e, err := app.NewEngine(cfg, probes.All(), slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.Run(ctx, func(string) bool { return true })
	}()
	settle, stop := context.WithTimeout(ctx, doctorWait)
	e.Settle(settle)
	stop()
	have, lack := capabilities()
	r := machine{
		Kernel: app.KernelRelease(), Arch: runtime.GOARCH, BTF: e.Kernel().BTF(), Ring: e.Kernel().Ring(),
		CgroupMode: e.CgroupMode(), Capabilities: names(have), Missing: []missing{}, Names: []source{}, BPF: "usable", Lockdown: lockdown(), Probes: e.Statuses(),
	}
	for _, c := range lack {
		r.Missing = append(r.Missing, missing{c.name, c.needed, c.without})
	}
	for _, s := range e.NameSources() {
		r.Names = append(r.Names, source{s.Name, string(s.State), s.Reason})
	}
	r.Flavour, r.WhyLegacy = e.Kernel().Flavour()
	if err := e.Kernel().Usable(); err != nil {
		r.BPF = err.Error()
	}
	cancel()
	<-done
	if output == "json" {
		enc := json.NewEncoder(c.out)
		enc.SetIndent("", "  ")
		err = enc.Encode(r)
	} else {
		err = r.print(c.out)
	}
	if err != nil {
		return err
	}
	return r.verdict()
}

// verdict is nil when every enabled probe runs.
func (r *machine) verdict() error {
	var bad []string
	for _, p := range r.Probes {
		if p.State != probe.Running && p.State != probe.Degraded && p.State != probe.Disabled && p.State != probe.Absent {
			bad = append(bad, p.Name)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d probes do not run: %s", len(bad), len(r.Probes), strings.Join(bad, ", "))
}

func (r *machine) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "kernel\t%s %s\n", r.Kernel, r.Arch)
	fmt.Fprintf(w, "BTF\t%s\n", r.BTF)
	fmt.Fprintf(w, "events by\t%s\n", r.Ring)
	if r.WhyLegacy != "" {
		fmt.Fprintf(w, "objects\t%s: %s\n", r.Flavour, r.WhyLegacy)
	}
	fmt.Fprintf(w, "cgroups\t%s\n", r.CgroupMode)
	fmt.Fprintf(w, "BPF\t%s\n", r.BPF)
	if r.Lockdown != "" {
		fmt.Fprintf(w, "lockdown\t%s\n", r.Lockdown)
	}
	fmt.Fprintf(w, "capabilities\t%s\n", strings.Join(r.Capabilities, " "))
	for _, m := range r.Missing {
		if m.Needed {
			fmt.Fprintf(w, "without %s\t%s\n", m.Name, m.Without)
		}
	}
	fmt.Fprintln(w)
	fmt.Fprintf(w, "NAMES FROM\tSTATE\tREMARK\n")
	for _, s := range r.Names {
		fmt.Fprintf(w, "%s\t%s\t%s\n", s.Name, s.State, s.Reason)
	}
	if err := w.Flush(); err != nil { // the columns below have other widths
		return err
	}
	fmt.Fprintln(w)
	fmt.Fprintf(w, "PROBE\tSTATE\tHOOK\tBY\tREMARK\n")
	for _, p := range r.Probes {
		if len(p.Hooks) == 0 {
			fmt.Fprintf(w, "%s\t%s\t\t\t%s\n", p.Name, p.State, p.Reason)
		}
		for i, h := range p.Hooks {
			name, state := p.Name, string(p.State)
			if i > 0 {
				name, state = "", ""
			}
			by := h.By
			if by == "" {
				by = "missing"
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", name, state, h.Hook, by, h.Reason)
		}
	}
	return w.Flush()
}

// lockdown returns the kernel's lockdown mode, "" when it tells none.
func lockdown() string {
	b, err := os.ReadFile("/sys/kernel/security/lockdown")
	if err != nil {
		return ""
	}
	_, rest, _ := strings.Cut(string(b), "[")
	mode, _, _ := strings.Cut(rest, "]")
	return mode
}
