package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"huatuo/internal/app"
	"huatuo/internal/probes"
	"huatuo/internal/profile"
	sig "huatuo/internal/signal"
)

// topRows is how many functions the table has.
const topRows = 20

// profileRun is one `huatuo profile`.
type profileRun struct {
	name      string // what was asked for
	types     []*sig.ProfileType
	duration  time.Duration
	hertz     int
	pid       uint32
	comm      string
	container string
	output    string
	engine    string
}

// families are the words of the command line for several types. Waits for work
// to do are in none of them: they are most of all waits, and no loss; nor is what
// the hardware counts, of which a sum says nothing.
func families(all []*sig.ProfileType) map[string][]*sig.ProfileType {
	out := map[string][]*sig.ProfileType{}
	for _, t := range all {
		if family, _, ok := strings.Cut(t.Name, "."); ok && t != profile.Idle && !isCounted(t.Name) {
			out[family] = append(out[family], t)
		}
	}
	return out
}

// isCounted tells whether a type is of the hardware's counters.
func isCounted(name string) bool {
	return slices.ContainsFunc(profile.Hardware(), func(t *sig.ProfileType) bool { return t.Name == name })
}

// choose finds what the argument names: a type, or a family of them.
func (r *profileRun) choose(args, words []string, all []*sig.ProfileType) error {
	if len(args) != 1 {
		return errUsage{fmt.Errorf("name what to profile: %s", strings.Join(words, ", "))}
	}
	r.name, r.types = args[0], families(all)[args[0]]
	for _, t := range all {
		if t.Name == args[0] {
			r.types = []*sig.ProfileType{t}
			if b := profile.Beside(t); b != nil && slices.Contains(all, b) {
				r.types = append(r.types, b)
			}
		}
	}
	if r.types == nil {
		return errUsage{fmt.Errorf("no profile %q; there are: %s", args[0], strings.Join(words, ", "))}
	}
	return nil
}

func (c *cli) profileCmd() *cobra.Command {
	r := &profileRun{}
	all := app.ProfileTypes()
	words := slices.Sorted(maps.Keys(families(all)))
	var list strings.Builder
	for _, t := range all {
		words = append(words, t.Name)
		fmt.Fprintf(&list, "  %-23s %s\n", t.Name, t.Help)
	}
	cmd := &cobra.Command{
		Use:   "profile TYPE",
		Short: "Take stacks for a while, print who takes or waits for what; no agent is needed",
		Long: `Take stacks of everything that runs, kernel, compiled and interpreted code, and
print the functions that take most of the time, or wait longest, or use most memory.

` + list.String() + `
A word before the dot takes all types of that family beside each other, but for
offcpu.idle: offcpu, lock, io, mem. Waits for locks come with how many there were,
those for files and disks with the bytes: in files of pprof and speedscope, and in
a column of the table. The word runtime asks a process for a
profile that its own language runtime keeps.

With -o the stacks are written to a file for other tools; its name tells the format:
.pb.gz or .pprof for go tool pprof, .folded or .txt, .speedscope.json, .otlp for OTLP
profiles (protobuf), .svg for a flame graph to look at. "-" writes folded stacks to
standard output.`,
		Example: `  sudo huatuo profile cpu --for 10s
  sudo huatuo profile offcpu --pid 4242 -o waits.svg
  sudo huatuo profile lock.user --comm java --for 30s
  sudo huatuo profile cpu --container web -o web.pb.gz && go tool pprof -top web.pb.gz
  huatuo profile diff before.pb.gz after.pb.gz`,
		ValidArgs: words,
		Args:      func(_ *cobra.Command, args []string) error { return r.choose(args, words, all) },
		RunE:      func(cmd *cobra.Command, _ []string) error { return c.profile(cmd, r) },
	}
	f := cmd.Flags()
	f.DurationVar(&r.duration, "for", 10*time.Second, "how long")
	f.IntVar(&r.hertz, "hz", 97, "samples of each CPU per second, 1 to 999, of the types cpu and hw.*")
	f.Uint32Var(&r.pid, "pid", 0, "only this process")
	f.StringVar(&r.comm, "comm", "", "only processes of this name")
	f.StringVar(&r.container, "container", "", "only this container: its name, or a prefix of its id")
	f.StringVar(&r.engine, "engine", "", "how stacks are walked: auto, unwinder or frame_pointers; empty: as profiles.engine has it")
	f.StringVarP(&r.output, "output", "o", "", `file for the stacks, "-" for standard output`)
	cmd.AddCommand(c.profileDiffCmd(), c.runtimeCmd())
	return cmd
}

// formatOf tells the format by the name of a file: none if there is no file.
func formatOf(file string) (string, error) {
	switch base := path.Base(file); {
	case file == "":
		return "", nil
	case file == "-", strings.HasSuffix(base, ".folded"), strings.HasSuffix(base, ".txt"):
		return "folded", nil
	case strings.HasSuffix(base, ".pb.gz"), strings.HasSuffix(base, ".pprof"):
		return "pprof", nil
	case strings.HasSuffix(base, ".svg"):
		return "svg", nil
	case strings.HasSuffix(base, ".otlp"):
		return "otlp", nil
	case strings.HasSuffix(base, ".json"):
		return "speedscope", nil
	}
	return "", errUsage{fmt.Errorf("cannot tell a format from %q: end it in .pb.gz, .folded, .speedscope.json, .otlp or .svg", file)}
}

func (r *profileRun) matches(l *sig.ProfileLabels) bool {
	return (r.pid == 0 || l.PID == r.pid) && (r.comm == "" || l.Process == r.comm || l.Thread == r.comm) &&
		(r.container == "" || l.Container == r.container || len(r.container) >= 4 && strings.HasPrefix(l.Container, r.container))
}

func (c *cli) profile(cmd *cobra.Command, r *profileRun) error {
	if r.hertz < 1 || r.hertz > 999 {
		return errUsage{fmt.Errorf("--hz %d: want 1 to 999", r.hertz)}
	}
	if r.duration <= 0 || r.duration > time.Hour {
		return errUsage{fmt.Errorf("--for %v: want more than 0 and at most 1h", r.duration)}
	}
	format, err := formatOf(r.output)
	if err != nil {
		return err
	}
	cfg, err := c.load(cmd.Flags())
	if err != nil {
		return err
	}
	switch r.engine {
	case "":
	case "auto", "unwinder", "frame_pointers":
		cfg.Profiles.Engine = r.engine
	default:
		return errUsage{fmt.Errorf("--engine %s: want auto, unwinder or frame_pointers", r.engine)}
	}
	e, err := app.NewEngine(cfg, probes.All(), c.logger(cfg))
	if err != nil {
		return err
	}
	if err := e.Kernel().Usable(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	bar := progress{out: c.err, total: r.duration}
	fmt.Fprintln(c.err, "huatuo: preparing")
	graphs, err := e.Record(ctx, app.RecordOptions{Name: r.name, Types: r.types, Hertz: r.hertz, For: r.duration, Match: r.matches, Ready: bar.begin, Tick: bar.tick})
	bar.end()
	if err != nil {
		return err
	}
	if graphs[0].Samples == 0 {
		return errors.New("no samples: nothing that was asked for happened meanwhile")
	}
	if format != "" {
		if err := writeTo(r.output, c.out, func(w io.Writer) error { return profile.Encode(w, format, graphs...) }); err != nil {
			return err
		}
	}
	if r.output != "-" {
		c.printTop(graphs)
	}
	return nil
}

// writeTo writes a file, or standard output for "-".
func writeTo(file string, stdout io.Writer, write func(io.Writer) error) error {
	if file == "-" {
		return write(stdout)
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// printTop prints the functions that take most of the first graph, with what they
// have of the others.
func (c *cli) printTop(graphs []*sig.FlameGraph) {
	g := graphs[0]
	sums := profile.Amount(g.Total, g.Unit)
	for _, o := range graphs[1:] {
		sums += ", " + profile.Amount(o.Total, o.Unit)
		if o.Unit == "count" {
			sums += " " + strings.TrimPrefix(o.Type, g.Type+".")
		}
	}
	fmt.Fprintf(c.out, "%s: %s in %v, %d samples\n\n", g.Type, sums, g.To.Sub(g.From).Round(100*time.Millisecond), g.Samples)
	c.printTable(graphs...)
}

// printTable prints them without a heading.
func (c *cli) printTable(graphs ...*sig.FlameGraph) {
	g := graphs[0]
	head, others := "SELF\t\tTOTAL\t\t", make([]map[profile.Row]int64, len(graphs))
	for i, o := range graphs[1:] {
		head += strings.ToUpper(strings.TrimPrefix(o.Type, g.Type+".")) + "\t"
		others[i] = map[profile.Row]int64{}
		for _, r := range profile.Top(shown(o)) {
			others[i][profile.Row{Function: r.Function, Module: r.Module}] = r.Total
		}
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, head+"  FUNCTION")
	rows := profile.Top(shown(g))
	for _, r := range rows[:min(topRows, len(rows))] {
		where := path.Base(r.Module)
		if r.Module == "" {
			where = "kernel"
		}
		fmt.Fprintf(w, "%s\t%.1f%%\t%s\t%.1f%%\t", profile.Amount(r.Self, g.Unit), share(r.Self, g.Total), profile.Amount(r.Total, g.Unit), share(r.Total, g.Total))
		for i, o := range graphs[1:] {
			fmt.Fprintf(w, "%s\t", profile.Amount(others[i][profile.Row{Function: r.Function, Module: r.Module}], o.Unit))
		}
		fmt.Fprintf(w, "  %s (%s)\n", printable(r.Function), printable(where))
	}
	w.Flush()
	if len(rows) > topRows {
		fmt.Fprintf(c.out, "\n%d more functions; -o FILE keeps all stacks\n", len(rows)-topRows)
	}
}

// shown is a graph without what the kernel does: all waits end in its scheduler.
func shown(g *sig.FlameGraph) *sig.FlameGraph {
	if g.Type == profile.CPU.Name || isCounted(g.Type) {
		return g
	}
	return profile.Userland(g)
}

func share(part, whole int64) float64 { return 100 * float64(part) / float64(max(whole, 1)) }

// progress draws a bar on a terminal, and nothing elsewhere.
type progress struct {
	out   io.Writer
	total time.Duration
	start time.Time
	last  time.Time
	drawn bool
}

func (p *progress) begin() { p.start = time.Now() }

// tick draws at most five times a second.
func (p *progress) tick(samples int64) {
	if _, ok := terminal(p.out); !ok || time.Since(p.last) < 200*time.Millisecond {
		return
	}
	p.last = time.Now()
	const width = 30
	n := min(int(width*time.Since(p.start)/p.total), width)
	fmt.Fprintf(p.out, "\r[%s%s] %v of %v, %d samples ", strings.Repeat("=", n), strings.Repeat(" ", width-n),
		time.Since(p.start).Round(time.Second), p.total, samples)
	p.drawn = true
}

func (p *progress) end() {
	if p.drawn {
		fmt.Fprint(p.out, "\r\x1b[K")
	}
}
