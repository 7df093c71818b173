package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"huatuo/internal/diagnose/top"
	"huatuo/internal/diagnose/window"
	"huatuo/internal/probe"
	sig "huatuo/internal/signal"
)

// topRun is one run of the command.
type topRun struct {
	sort     string
	interval time.Duration
	rounds   int // 0: until interrupted
	rows     int
	output   string

	out    io.Writer
	live   *live
	screen *screen
	view   *top.View
	idle   int // probes that do not run
	ended  int // rounds shown
	newest []*sig.Document
}

func (c *cli) topCmd() *cobra.Command {
	t := &topRun{out: c.out}
	var once bool
	cmd := &cobra.Command{
		Use:   "top",
		Short: "Show who uses CPU, memory, disk and network, who waits, and for whom; no agent is needed",
		Long: `Run the probes and show the workloads (containers, units, control groups) of this machine:

  CPU      cores used
  WAIT     tasks that waited for a CPU, on average
  BLAME    tasks of others that waited while this one had the CPU, on average
  THR%     share of its quota periods in which it was stopped
  MEM      memory that cannot be dropped easily, LIM% of its limit
  READ/s, WRIT/s, IO99   bytes from and to disks, and the time of 99 of 100 requests
  PSI c/m/i   share of the time in which it stood still for want of CPU, memory, I/O
  RETR/s, DROP/s   TCP segments sent again, packets dropped
  EVENT    events since the start
  CULPRIT  who had the CPU for the largest part of the time that it waited

A dash is what is not measured of it. host is what runs in the root group, other what has no series
of its own. A narrow screen shows fewer columns. On a terminal the table is redrawn: q ends it, and the
first letter of what --sort takes sorts by that. Elsewhere it is written as text.`,
		Example: `  sudo huatuo top
  sudo huatuo top --sort wait --interval 5s
  sudo huatuo top --once                    one table, after one interval
  sudo huatuo top -o json -n 3 | jq '.workloads[] | select(.culprit.kind == "workload")'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if once {
				t.rounds = 1
			}
			if err := t.check(); err != nil {
				return errUsage{err}
			}
			return c.top(cmd, t)
		},
	}
	f := cmd.Flags()
	f.StringVar(&t.sort, "sort", "cpu", "what to sort by: "+strings.Join(orderNames(), ", "))
	f.DurationVarP(&t.interval, "interval", "i", 2*time.Second, "how long an interval is")
	f.IntVarP(&t.rounds, "count", "n", 0, "end after this many intervals; 0: never")
	f.BoolVar(&once, "once", false, "end after one interval")
	f.IntVar(&t.rows, "rows", 30, "workloads that are shown where there is no terminal; 0: all")
	f.StringVarP(&t.output, "output", "o", "text", "form: text, or json (one document per line and interval)")
	agentFlags(f)
	return cmd
}

func orderNames() (names []string) {
	for _, o := range top.Orders() {
		names = append(names, o.Name)
	}
	return names
}

func (t *topRun) check() error {
	switch {
	case t.output != "text" && t.output != "json":
		return fmt.Errorf("--output %q: want text or json", t.output)
	case !slices.Contains(orderNames(), t.sort):
		return fmt.Errorf("--sort %q: want %s", t.sort, strings.Join(orderNames(), ", "))
	case t.interval < 500*time.Millisecond || t.interval > time.Hour:
		return fmt.Errorf("--interval %v: want 500ms to 1h", t.interval)
	case t.rounds < 0 || t.rows < 0:
		return fmt.Errorf("--count and --rows must not be negative")
	}
	return nil
}

// wanted tells whether top needs a probe: it makes one of its metrics, or events
// that somebody may have felt.
func wanted(s probe.Spec) bool {
	return slices.ContainsFunc(s.Emits, func(e *sig.Schema) bool {
		if e.Kind == sig.Event {
			return e.Severity != sig.Info
		}
		return slices.Contains(top.Metrics(), e.Name)
	})
}

func (c *cli) top(cmd *cobra.Command, t *topRun) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	interactive := false
	if _, ok := terminal(t.out); ok && t.output == "text" && t.rounds != 1 {
		interactive = true
	}
	quiet := c
	if interactive {
		quiet = &cli{started: c.started, out: c.out, err: io.Discard, configPath: c.configPath} // a log would tear the screen
	}
	var err error
	if t.live, err = quiet.startLive(ctx, cmd, wanted); err != nil {
		return err
	}
	defer func() {
		t.live.close()
		for _, st := range t.live.idle() {
			fmt.Fprintf(c.err, "huatuo: %s does not run: %s\n", st.Name, st.Reason)
		}
	}()
	t.idle = len(t.live.idle())
	if interactive {
		if t.screen, interactive = openScreen(os.Stdin, t.out); interactive {
			defer t.screen.close()
			if err := t.screen.draw([]string{fmt.Sprintf("huatuo top: the first interval of %v", t.interval)}); err != nil {
				return err
			}
		}
	}
	return t.loop(ctx)
}

// loop shows an interval after the other.
func (t *topRun) loop(ctx context.Context) error {
	if _, _, err := t.live.round(ctx); err != nil {
		return ended(err)
	}
	tick := time.NewTicker(t.interval)
	defer tick.Stop()
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	var keys chan byte
	if t.screen != nil {
		keys = t.screen.keys
	}
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err = t.next(ctx); err == nil {
				err = t.show()
			}
			if t.ended++; t.ended == t.rounds {
				return ended(err)
			}
		case k, ok := <-keys:
			if !ok {
				keys = nil // its input is gone, the screen is not
			} else if k == 'q' || k == 'Q' {
				return nil
			} else if t.choose(k) {
				err = t.redraw()
			}
		case <-resized:
			err = t.redraw()
		}
		if err != nil {
			return ended(err)
		}
	}
}

// ended is nil for the end that a user makes.
func ended(err error) error {
	if err == nil || strings.Contains(err.Error(), context.Canceled.Error()) {
		return nil
	}
	return err
}

// choose sorts by what a key means.
func (t *topRun) choose(key byte) bool {
	for _, o := range top.Orders() {
		if o.Key == key {
			t.sort = o.Name
			return true
		}
	}
	return false
}

// next makes the view of the interval that has ended.
func (t *topRun) next(ctx context.Context) error {
	before, seconds, err := t.live.round(ctx)
	if err != nil {
		return err
	}
	docs, counts := t.live.events.all()
	t.newest = t.newest[:0]
	for _, d := range slices.Backward(docs) {
		if d.Severity != sig.Info && len(t.newest) < 3 {
			t.newest = append(t.newest, d)
		}
	}
	t.view = top.New(window.New(before, t.live.samples, seconds), t.live.at, runtime.NumCPU(), counts)
	return nil
}

func (t *topRun) redraw() error {
	if t.screen == nil || t.view == nil {
		return nil
	}
	return t.show()
}

// show writes the view in the form that was asked for.
func (t *topRun) show() error {
	t.view.Sort(t.sort)
	switch {
	case t.output == "json":
		return json.NewEncoder(t.out).Encode(t.view)
	case t.screen != nil:
		return t.screen.draw(t.page(size(t.screen.out)))
	}
	rows := t.rows
	if rows == 0 {
		rows = len(t.view.Workload)
	}
	lines := append([]string{"huatuo top, " + t.view.Time.Local().Format(time.DateTime)}, t.view.Text(textWidth(t.out), rows, t.sort)...)
	_, err := io.WriteString(t.out, printable(strings.Join(lines, "\n"))+"\n\n")
	return err
}

// page fills a screen.
func (t *topRun) page(width, height int, _ bool) []string {
	var events []string
	for _, d := range t.newest {
		events = append(events, clip(printable(fmt.Sprintf("%s %s: %s", d.Time.Local().Format("15:04:05"), d.Kind, d.Title)), width))
	}
	if len(events) > 0 {
		events = append([]string{""}, events...)
	}
	fixed := len(t.view.Text(width, 0, t.sort)) // the line with how many more is one of it
	rows := max(1, height-1-fixed-len(events))
	lines := []string{t.title(width)}
	for _, l := range t.view.Text(width, rows, t.sort) {
		l = printable(l)
		if strings.HasPrefix(l, top.Head) {
			l = reverse + l + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(l))) + plain
		}
		lines = append(lines, l)
	}
	for len(lines)+len(events) < height && len(events) > 0 {
		lines = append(lines, "")
	}
	lines = append(lines, events...)
	return lines[:min(height, len(lines))]
}

// How a terminal shows what stands out.
const (
	reverse   = "\x1b[7m"
	underline = "\x1b[4m"
	plain     = "\x1b[0m"
)

// title tells the time and the keys: each way to sort with its key underlined.
func (t *topRun) title(width int) string {
	text := t.view.Time.Local().Format("15:04:05") + " q=quit sort="
	names := orderNames()
	if len(text)+len(strings.Join(names, " ")) > width {
		for i, n := range names {
			names[i] = n[:1]
		}
	}
	used := len(text) + len(strings.Join(names, " "))
	for i, n := range names {
		names[i] = underline + n[:1] + plain + n[1:]
	}
	line := text + strings.Join(names, " ")
	if idle := fmt.Sprintf("  %d probes do not run", t.idle); t.idle > 0 && used+len(idle) <= width {
		line += idle
	}
	return line
}

// clip cuts a line at the right.
func clip(s string, width int) string {
	if r := []rune(s); len(r) > width {
		return string(r[:max(0, width-1)]) + "…"
	}
	return s
}
