package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"huatuo/internal/app"
	"huatuo/internal/diagnose/checkup"
	"huatuo/internal/diagnose/window"
	"huatuo/internal/probe"
)

// leastCheckup is below what a rate means nothing: a quota period is 100 ms, and
// files of pressure change each two seconds.
const leastCheckup = 2 * time.Second

func (c *cli) checkupCmd() *cobra.Command {
	var output string
	var length time.Duration
	cmd := &cobra.Command{
		Use:   "checkup",
		Short: "Observe the machine for half a minute and report what is wrong; no agent is needed",
		Long: `Run the probes for a while, hold what they measured against rules, and report:
what is wrong, worst first, with the numbers and what to do; what was looked at
and is fine; and what could not be measured on this kernel, and why.
The exit code is 0 when nothing is wrong, 1 with a warning, 2 with something critical or a
mistake in the command.`,
		Example: `  sudo huatuo checkup
  sudo huatuo checkup --for 5m             also what happens seldom
  sudo huatuo checkup -o json | jq '.findings[] | {severity, rule, subject, sentence}'
  sudo huatuo checkup --rules              what is looked at, and from when it is told`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch rules, err := cmd.Flags().GetBool("rules"); {
			case err != nil:
				return err
			case output != "text" && output != "json":
				return errUsage{fmt.Errorf("--output %q: want text or json", output)}
			case rules:
				return c.printRules()
			case length < leastCheckup || length > time.Hour:
				return errUsage{fmt.Errorf("--for %v: want %v to 1h", length, leastCheckup)}
			}
			return c.checkup(cmd, length, output)
		},
	}
	cmd.Flags().DurationVar(&length, "for", 30*time.Second, "how long to observe")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "form of the report: text or json")
	cmd.Flags().Bool("rules", false, "print the rules, and observe nothing")
	agentFlags(cmd.Flags())
	return cmd
}

func (c *cli) checkup(cmd *cobra.Command, length time.Duration, output string) error {
	ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	l, err := c.startLive(ctx, cmd, func(probe.Spec) bool { return true })
	if err != nil {
		return err
	}
	begun := time.Now()
	statuses, f, err := c.observe(ctx, l, length)
	l.close()
	if err != nil {
		return err
	}
	docs, _ := l.events.all()
	for _, d := range docs {
		if !d.Time.Before(begun) { // what the start of the probes made is not the machine's fault
			f.Events = append(f.Events, d)
		}
	}
	f.Probes = statuses
	r := checkup.Run(f, checkup.Rules())
	r.Kernel, r.Time = app.KernelRelease(), time.Now()
	if r.Host, err = os.Hostname(); err != nil {
		return err
	}
	if output == "json" {
		enc := json.NewEncoder(c.out)
		enc.SetIndent("", "  ")
		err = enc.Encode(r)
	} else {
		err = r.Print(printableWriter{c.out}, textWidth(c.out))
	}
	if err != nil {
		return err
	}
	return sick(r.Verdict)
}

// observe waits between two rounds. Interrupted, it takes what there is by then.
func (c *cli) observe(ctx context.Context, l *live, length time.Duration) ([]probe.Status, *checkup.Facts, error) {
	base := context.WithoutCancel(ctx)
	if _, _, err := l.round(base); err != nil {
		return nil, nil, err
	}
	fmt.Fprintf(c.err, "huatuo: observing for %v; interrupt to end sooner\n", length)
	select {
	case <-ctx.Done():
	case <-time.After(length):
	}
	before, seconds, err := l.round(base)
	if err != nil {
		return nil, nil, err
	}
	if seconds < leastCheckup.Seconds() {
		return nil, nil, fmt.Errorf("interrupted after %.1f s, too soon to tell anything", seconds)
	}
	f := &checkup.Facts{Window: window.New(before, l.samples, seconds), CPUs: runtime.NumCPU(), Disk: diskClass}
	return l.Statuses(), f, nil
}

// errSick is the result of a checkup that found something: it is the exit code,
// and was told in the report.
type errSick struct {
	critical bool
	text     string
}

// Error tells the verdict.
func (e errSick) Error() string { return e.text }

func sick(verdict string) error {
	switch verdict {
	case "critical":
		return errSick{true, "the checkup found something critical"}
	case "warning":
		return errSick{false, "the checkup found something"}
	}
	return nil
}

// printRules tells what is looked at.
func (c *cli) printRules() error {
	for _, r := range checkup.Rules() {
		if _, err := fmt.Fprintf(c.out, "%s (%s)\n    looks at  %s\n    tells     %s\n    then      %s\n", r.Name, r.Area, r.What, r.Threshold, r.Next); err != nil {
			return err
		}
	}
	return nil
}

// diskClass tells what kind of device a disk is, from sysfs.
func diskClass(name string) checkup.Class {
	read := func(file string) string {
		b, err := os.ReadFile(filepath.Join("/sys/block", filepath.Base(name), file))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	for _, p := range []string{"vd", "xvd", "nbd", "rbd", "drbd", "loop", "zram", "dm-", "md"} {
		if strings.HasPrefix(name, p) {
			return checkup.Virtual
		}
	}
	// Virtual machines see disks of every bus; who made them tells.
	for _, v := range []string{"qemu", "vmware", "vbox", "msft", "google", "amazon elastic", "virtual", "xen"} {
		if strings.Contains(strings.ToLower(read("device/vendor")+" "+read("device/model")), v) {
			return checkup.Virtual
		}
	}
	switch {
	case strings.HasPrefix(name, "nvme"):
		return checkup.Fast
	case read("queue/rotational") == "1":
		return checkup.Spindle
	case read("queue/rotational") == "0":
		return checkup.Flash
	}
	return checkup.Virtual
}
