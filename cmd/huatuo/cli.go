package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"huatuo/internal/config"
	"huatuo/internal/probes"
)

// cli is one run of the command.
type cli struct {
	started  time.Time
	out, err io.Writer

	configPath string
	level      slog.LevelVar
}

// errUsage marks a mistake of the caller: exit code 2.
type errUsage struct{ error }

func (e errUsage) Unwrap() error { return e.error }

func exitCode(err error) int {
	var u errUsage
	var s errSick
	if errors.As(err, &u) || errors.As(err, &s) && s.critical {
		return 2
	}
	return 1
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "huatuo",
		Short: "See into the Linux kernel and the applications on this machine",
		Long: `huatuo observes this machine: metrics of the kernel per host and per container,
events with their context when something abnormal happens, history and a web console.

Without a subcommand it runs the agent; the console is then at http://localhost:19704.`,
		Example: `  sudo huatuo                              run the agent, console at http://localhost:19704
  sudo huatuo --data ./data                keep history in ./data
  sudo huatuo doctor                       what this kernel offers, probe by probe
  sudo huatuo watch sched_stall oom_kill   print these events as they happen
  sudo huatuo top                          who uses what, who waits, and for whom
  sudo huatuo checkup                      observe for half a minute, report what is wrong
  sudo huatuo profile cpu                  who takes the CPU time, by function
  huatuo explain runqueue                  what a probe shows and how to read it`,
		Args:          noArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          c.runAgent,
	}
	root.SuggestionsMinimumDistance = 2
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return errUsage{fmt.Errorf("%w; `%s --help` lists the flags", err, cmd.CommandPath())}
	})
	root.PersistentFlags().StringVarP(&c.configPath, "config", "c", "", "configuration file (default "+config.DefaultPath+" when it exists)")
	agentFlags(root.Flags())
	agent := &cobra.Command{
		Use: "agent", Short: "Run the agent (the default)", Args: noArgs, RunE: c.runAgent,
		Long: "Run the agent until SIGTERM or SIGINT. SIGHUP reloads the configuration.",
		Example: `  sudo huatuo agent --data /var/lib/huatuo
  sudo huatuo agent --listen 127.0.0.1:19704 --store none
  sudo huatuo agent --btf ./btf/        BTF files for kernels that carry none`,
	}
	agentFlags(agent.Flags())
	root.AddCommand(agent, c.doctorCmd(), c.watchCmd(), c.topCmd(), c.checkupCmd(), c.profileCmd(), c.explainCmd(), c.configCmd(), c.versionCmd(), c.genDocsCmd())
	return root
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	msg := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
	if s := cmd.SuggestionsFor(args[0]); len(s) > 0 {
		msg += fmt.Sprintf("; did you mean %q?", s[0])
	} else {
		msg += fmt.Sprintf("; `%s --help` lists them", cmd.CommandPath())
	}
	return errUsage{errors.New(msg)}
}

// agentFlags adds the flags that the configuration reference names, and --store.
func agentFlags(f *pflag.FlagSet) {
	for _, e := range config.Reference(probes.All()) {
		if e.Flag == "" {
			continue
		}
		f.String(strings.TrimPrefix(e.Flag, "--"), "", fmt.Sprintf("%s (default %q)", strings.TrimSuffix(e.Help, "."), e.Default))
	}
	f.String("store", "", `"none" keeps nothing on this machine (store.enabled)`)
	f.StringArray("set", nil, "set any configuration key, as key=value; may be repeated")
}

// load reads the configuration as the command line asks for it.
func (c *cli) load(f *pflag.FlagSet) (*config.Config, error) {
	specs := probes.All()
	flags := map[string]string{}
	for _, e := range config.Reference(specs) {
		name := strings.TrimPrefix(e.Flag, "--")
		if fl := f.Lookup(name); e.Flag != "" && fl != nil && fl.Changed {
			flags[e.Key] = fl.Value.String()
		}
	}
	if fl := f.Lookup("store"); fl != nil && fl.Changed {
		if fl.Value.String() != "none" {
			return nil, errUsage{fmt.Errorf(`--store %q: want "none", or leave it out; --data chooses the directory`, fl.Value.String())}
		}
		flags["store.enabled"] = "false"
	}
	if f.Lookup("set") != nil {
		sets, err := f.GetStringArray("set")
		if err != nil {
			return nil, err
		}
		for _, s := range sets {
			k, v, ok := strings.Cut(s, "=")
			if !ok {
				return nil, errUsage{fmt.Errorf("--set %q: want key=value, for example --set store.interval=10s", s)}
			}
			flags[k] = v
		}
	}
	path := c.configPath
	if path == "" {
		path = os.Getenv(config.EnvPath)
	}
	if path == "" {
		if _, err := os.Stat(config.DefaultPath); err == nil {
			path = config.DefaultPath
		}
	}
	cfg, err := config.Load(path, os.Environ(), flags, specs)
	if err != nil {
		return nil, errUsage{err}
	}
	return cfg, nil
}

// logger makes the log that cfg asks for.
func (c *cli) logger(cfg *config.Config) *slog.Logger {
	_ = c.level.UnmarshalText([]byte(cfg.Log.Level)) // config has checked it
	o := &slog.HandlerOptions{Level: &c.level}
	if cfg.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(c.err, o))
	}
	return slog.New(slog.NewTextHandler(c.err, o))
}
