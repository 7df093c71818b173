package main

import (
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"huatuo/internal/profile"
	sig "huatuo/internal/signal"
)

// profileDiff is one `huatuo profile diff`.
type profileDiff struct {
	typ      string
	of       string
	absolute bool
	output   string
}

func (c *cli) profileDiffCmd() *cobra.Command {
	d := &profileDiff{}
	cmd := &cobra.Command{
		Use:   "diff BEFORE AFTER",
		Short: "Compare two pprof files: which functions take more than before, and whether that is chance",
		Long: `Compare two profiles in pprof's format, as huatuo profile -o x.pb.gz, the download of
the Profiles page and most other profilers write them, gzipped or not.

Functions are ranked by how much larger their share of all became, so that profiles of
different length and load can be compared; --absolute ranks them by their values instead.
Behind the change stands what a test of significance says:

  regressed, improved   not by chance: in 19 of 20 comparisons no function at all is
                        called so wrongly
  unclear               may be chance
  untested              fewer than ten samples

A function whose name occurs in a single file of each profile is taken as the same one,
whatever these files are called: the next version of a program often has another name.

With -o the comparison is written to a file: .svg is a flame graph of both, red where
it grew and blue where it shrank; .json has the form of the API's comparison.`,
		Example: `  huatuo profile diff before.pb.gz after.pb.gz
  huatuo profile diff v1.pb.gz v2.pb.gz --of total -o diff.svg
  huatuo profile diff heap1.pb.gz heap2.pb.gz --type inuse_space --absolute`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 2 {
				return errUsage{fmt.Errorf("name two pprof files, the one from before and the one from after; there are %d", len(args))}
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error { return c.profileDiff(d, args[0], args[1]) },
	}
	f := cmd.Flags()
	f.StringVar(&d.typ, "type", "", "what to compare, where the files have values of several types; empty: what go tool pprof would show")
	f.StringVar(&d.of, "of", "self", "rank functions by samples that end in them (self), or by those through them (total)")
	f.BoolVar(&d.absolute, "absolute", false, "compare values, not shares of all: of windows of the same length")
	f.StringVarP(&d.output, "output", "o", "", "file for the comparison: .svg or .json")
	return cmd
}

func (c *cli) profileDiff(d *profileDiff, from, to string) error {
	if d.of != "self" && d.of != "total" {
		return errUsage{fmt.Errorf("--of %s: want self or total", d.of)}
	}
	format := strings.TrimPrefix(filepath.Ext(d.output), ".")
	if d.output != "" && !slices.Contains(profile.DiffFormats(), format) {
		return errUsage{fmt.Errorf("cannot tell a format from %q: end it in .%s", d.output, strings.Join(profile.DiffFormats(), " or ."))}
	}
	before, after, others, err := d.read(from, to)
	if err != nil {
		return err
	}
	profile.Align(before, after)
	o := profile.DiffOptions{Self: d.of == "self", Absolute: d.absolute, Few: true}
	whole, err := profile.Diff(before, after, o)
	if err != nil {
		return err
	}
	if d.output != "" {
		if err := writeTo(d.output, c.out, func(w io.Writer) error { return profile.EncodeDiff(w, whole, format) }); err != nil {
			return err
		}
	}
	table := whole
	if o.Self && waits(after.Type) { // all waits end in the kernel's scheduler
		if table, err = profile.Diff(profile.Userland(before), profile.Userland(after), o); err != nil {
			return err
		}
	}
	c.printDiff(table, o)
	if len(others) > 0 {
		fmt.Fprintf(c.out, "\nthe files have other types too: --type %s\n", printable(strings.Join(others, ", ")))
	}
	return nil
}

// waits tells whether a type is one of ours, or a family of them, and not time on
// a CPU.
func waits(typ string) bool {
	family, _, _ := strings.Cut(typ, ".")
	return typ != profile.CPU.Name && slices.ContainsFunc(profile.Types(), func(t *sig.ProfileType) bool {
		return t.Name == typ || strings.HasPrefix(t.Name, family+".") && typ == family
	})
}

// read reads the type that is asked for of both files. The others that both have
// are returned as well.
func (d *profileDiff) read(from, to string) (before, after *sig.FlameGraph, others []string, err error) {
	b, err := readPprof(from)
	if err != nil {
		return nil, nil, nil, err
	}
	a, err := readPprof(to)
	if err != nil {
		return nil, nil, nil, err
	}
	typ := d.typ
	if typ == "" {
		typ = a.Default()
	}
	if before, err = b.Graph(typ); err != nil {
		return nil, nil, nil, fmt.Errorf("%s: %s", from, printable(err.Error()))
	}
	if after, err = a.Graph(typ); err != nil {
		return nil, nil, nil, fmt.Errorf("%s: %s", to, printable(err.Error()))
	}
	switch {
	case before.Unit != after.Unit:
		return nil, nil, nil, fmt.Errorf("%s has %q in %q, %s in %q: they cannot be compared", from, typ, before.Unit, to, after.Unit)
	case before.Total == 0 && after.Total == 0:
		return nil, nil, nil, fmt.Errorf("both files have no values of type %q", typ)
	}
	for _, t := range a.Types() { // samples are how many the others come from
		if d.typ == "" && t != typ && t != "samples" && slices.Contains(b.Types(), t) {
			others = append(others, t)
		}
	}
	return before, after, others, nil
}

func readPprof(file string) (*profile.File, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.IsDir() {
		return nil, fmt.Errorf("read %s: it is a directory", file)
	}
	p, err := profile.ReadPprof(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return p, nil
}

// printDiff prints the functions that changed most.
func (c *cli) printDiff(d *sig.ProfileDiff, o profile.DiffOptions) {
	amount := func(v int64) string { return printable(profile.Amount(v, d.Unit)) }
	fmt.Fprintf(c.out, "%s: %s in %d samples before, %s in %d after\n", printable(d.Type),
		amount(d.Before.Total), d.Before.Samples, amount(d.After.Total), d.After.Samples)
	if len(d.Functions) == 0 {
		fmt.Fprintln(c.out, "no function changed")
		return
	}
	if d.Tested == 0 {
		fmt.Fprint(c.out, "no function has enough samples to tell a change from chance\n\n")
	} else {
		fmt.Fprintf(c.out, "%d of %d functions that have enough samples changed, and not by chance\n\n", d.Clear, d.Tested)
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "BEFORE\tAFTER\tCHANGE\t\t  FUNCTION")
	for i := range d.Functions[:min(topRows, len(d.Functions))] {
		f := &d.Functions[i]
		s := &f.Total
		if o.Self {
			s = &f.Self
		}
		before, after, change := fmt.Sprintf("%.1f%%", 100*s.Before), fmt.Sprintf("%.1f%%", 100*s.After), fmt.Sprintf("%+.1f%%", 100*(s.After-s.Before))
		if o.Absolute {
			before, after, change = amount(s.BeforeValue), amount(s.AfterValue), amount(s.AfterValue-s.BeforeValue)
			if s.AfterValue > s.BeforeValue {
				change = "+" + change
			}
		}
		where := path.Base(f.Module)
		if f.Module == "" {
			where = "kernel"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t  %s (%s)\n", before, after, change, f.Verdict, printable(f.Function), printable(where))
	}
	w.Flush()
	if n := len(d.Functions) - topRows; n > 0 {
		fmt.Fprintf(c.out, "\n%d more functions; -o FILE.json has all\n", n)
	}
}
