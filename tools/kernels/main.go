// Command kernels keeps docs/reference/kernels.md: which probe runs by which
// hook on which kernel, and what the verifier of each thinks of the programs.
// It reads what the guests of `make vmtest` told (bin/vm/results/*.json).
//
//	go run ./tools/kernels          compare: fails when a kernel takes another hook than the page says
//	go run ./tools/kernels -write   write the page; kernels without results keep their columns
//
// Only hooks are compared. Releases and the verifier's counts change with every
// update of the archive.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"huatuo/internal/probe"
)

const (
	page    = "docs/reference/kernels.md"
	results = "bin/vm/results"
)

// record is what test/vm writes for one guest.
type record struct {
	Kernel  string `json:"kernel"`
	Order   int    `json:"order"`
	Release string `json:"release"`
	Arch    string `json:"arch"`
	Cgroup  string `json:"cgroup"`
	CPUs    int    `json:"cpus"`
	Result  struct {
		Probes   []probe.Status    `json:"probes"`
		Verified map[uint32]uint32 `json:"verified"`
	} `json:"result"`
}

func main() {
	write := flag.Bool("write", false, "write the page")
	flag.Parse()
	if err := run(*write); err != nil {
		fmt.Fprintln(os.Stderr, "kernels:", err)
		os.Exit(1)
	}
}

func run(write bool) error {
	recs, err := read(results)
	if err != nil {
		return err
	}
	old, err := os.ReadFile(page)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	was, now := parse(string(old)), tables(recs)
	if write {
		return os.WriteFile(page, []byte(was.merge(now).String()), 0o644)
	}
	if diff := was.compare(now); len(diff) > 0 {
		return fmt.Errorf("%s is stale (`make vmtest-docs` rewrites it):\n  %s", page, strings.Join(diff, "\n  "))
	}
	fmt.Printf("%s says what %d kernels do\n", page, len(recs))
	return nil
}

// read returns the records in the order of the matrix.
func read(dir string) ([]record, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no results in %s: run `make vmtest` first", dir)
	}
	var recs []record
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		var r record
		if err := json.Unmarshal(b, &r); err != nil {
			return nil, fmt.Errorf("read %s: %w", f, err)
		}
		recs = append(recs, r)
	}
	slices.SortFunc(recs, func(a, b record) int { return a.Order - b.Order })
	return recs, nil
}

// none stands for a hook that a kernel has not.
const none = "–"

// tables makes the page's tables of records.
func tables(recs []record) *doc {
	d := newDoc()
	for _, r := range recs {
		d.kernels.set(r.Kernel, "release", r.Release)
		d.kernels.set(r.Kernel, "architecture", r.Arch)
		d.kernels.set(r.Kernel, "control groups", r.Cgroup)
		d.kernels.set(r.Kernel, "CPUs", fmt.Sprint(r.CPUs))
		for _, p := range r.Result.Probes {
			if len(p.Hooks) == 0 {
				d.idle = append(d.idle, [2]string{p.Name, r.Kernel})
			}
			for _, h := range p.Hooks {
				by := h.By
				if by == "" {
					by = none
				}
				d.hooks.set(row(p.Name, h.Hook), r.Kernel, by)
				if n := r.Result.Verified[h.ID]; n > 0 {
					d.cost.set(row(p.Name, h.Program), r.Kernel, fmt.Sprint(n))
				}
			}
		}
	}
	d.fold(nil)
	return d
}

func row(probe, what string) string { return probe + sep + what }
