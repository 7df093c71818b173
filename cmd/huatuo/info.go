package main

import (
	"fmt"
	"runtime"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"huatuo/internal/app"
	"huatuo/internal/config"
	"huatuo/internal/diagnose/known"
	"huatuo/internal/docgen"
	"huatuo/internal/probe"
	"huatuo/internal/probes"
	"huatuo/internal/signal"
)

func (c *cli) explainCmd() *cobra.Command {
	return &cobra.Command{
		Use:     "explain NAME",
		Short:   "Print the page of a probe, a metric, an event or a known issue",
		Example: "  huatuo explain runqueue\n  huatuo explain oom_kill\n  huatuo explain huatuo_runqueue_wait_seconds\n  huatuo explain known_issues",
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return explainable(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return errUsage{fmt.Errorf("want one name; the probes are: %s", strings.Join(probeNames(), ", "))}
			}
			cfg, err := c.load(cmd.Flags())
			if err != nil {
				return err
			}
			return c.explain(cfg, args[0])
		},
	}
}

func probeNames() []string {
	var out []string
	for _, s := range probes.All() {
		out = append(out, s.Name)
	}
	return out
}

func explainable() []string {
	out := probeNames()
	for _, e := range app.Catalog(probes.All()) {
		out = append(out, e.Name)
	}
	out = append(out, knownIssues)
	for _, is := range known.Builtin() {
		out = append(out, is.Name)
	}
	sort.Strings(out)
	return out
}

func (c *cli) explain(cfg *config.Config, name string) error {
	for _, s := range probes.All() {
		if s.Name == name {
			return c.explainProbe(s)
		}
	}
	for _, e := range app.Catalog(probes.All()) {
		if e.Name == name {
			c.explainSignal(&e.Schema, e.Probe)
			return nil
		}
	}
	if c.explainKnown(cfg, name) {
		return nil
	}
	msg := fmt.Sprintf("nothing is named %q", name)
	var near []string
	for _, n := range explainable() {
		if strings.Contains(n, name) || strings.Contains(name, n) {
			near = append(near, n)
		}
	}
	if len(near) > 0 {
		msg += "; there is " + strings.Join(near, ", ")
	} else {
		msg += "; the probes are: " + strings.Join(probeNames(), ", ")
	}
	return errUsage{fmt.Errorf("%s", msg)}
}

func (c *cli) explainProbe(s probe.Spec) error {
	fmt.Fprintf(c.out, "%s\n", strings.TrimSpace(s.Readme))
	fmt.Fprintf(c.out, "\n## Signals\n\n")
	for _, e := range s.Emits {
		fmt.Fprintf(c.out, "%-8s %s\n         %s\n", e.Kind, e.Name, e.Help)
	}
	fmt.Fprintf(c.out, "\n## Options\n\n")
	for _, e := range config.Reference(probes.All()) {
		if e.Probe == s.Name {
			fmt.Fprintf(c.out, "%s (default %s)\n    %s\n", e.Key, e.Default, e.Help)
		}
	}
	return nil
}

func (c *cli) explainSignal(e *signal.Schema, from string) {
	fmt.Fprintf(c.out, "%s (%s", e.Name, e.Kind)
	if e.Kind == signal.Metric {
		fmt.Fprintf(c.out, ", %s, unit %s, per %s", e.Type, e.Unit, e.Scope)
	}
	fmt.Fprintf(c.out, ")\n\n%s\n", e.Help)
	if e.Read != "" {
		fmt.Fprintf(c.out, "How to read it: %s\n", e.Read)
	}
	if len(e.Fields) > 0 {
		fmt.Fprintln(c.out)
	}
	for _, f := range e.Fields {
		unit := ""
		if f.Unit != "" {
			unit = " (" + f.Unit + ")"
		}
		fmt.Fprintf(c.out, "  %-18s %s%s\n", f.Name, f.Help, unit)
	}
	if from != "" {
		fmt.Fprintf(c.out, "\nMade by the probe %s: `huatuo explain %s`\n", from, from)
	}
}

func (c *cli) configCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Show the configuration", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	show := &cobra.Command{
		Use: "print", Short: "Print the configuration in force, and where each value comes from", Args: noArgs,
		Example: "  huatuo config print\n  HUATUO_STORE_INTERVAL=10s huatuo config print --config ./huatuo.yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.load(cmd.Flags())
			if err != nil {
				return err
			}
			for _, w := range cfg.Warnings {
				fmt.Fprintf(c.err, "huatuo: %s\n", w)
			}
			_, err = c.out.Write(cfg.Print())
			return err
		},
	}
	agentFlags(show.Flags())
	sample := &cobra.Command{
		Use: "sample", Short: "Print a file with every key, its meaning and its default", Args: noArgs,
		Example: "  huatuo config sample > huatuo.yaml",
		RunE: func(*cobra.Command, []string) error {
			_, err := c.out.Write(config.Sample(probes.All()))
			return err
		},
	}
	cmd.AddCommand(show, sample)
	return cmd
}

func (c *cli) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			b := app.ReadBuild(version, commit)
			fmt.Fprintf(c.out, "huatuo %s %s/%s %s", b.Version, runtime.GOOS, runtime.GOARCH, b.Go)
			if b.Commit != "" {
				fmt.Fprintf(c.out, " %s", b.Commit)
			}
			fmt.Fprintln(c.out)
			return nil
		},
	}
}

// genDocsCmd writes docs/reference; `make gen` calls it.
func (c *cli) genDocsCmd() *cobra.Command {
	return &cobra.Command{
		Use: "gen-docs DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := docs(cmd.Root(), args[0])
			if err != nil {
				return err
			}
			return docgen.Write(args[0], files)
		},
	}
}
