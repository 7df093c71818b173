// Command vm runs the kernel tests of the tree, and the agent itself, on other
// kernels in qemu: see README.md beside it.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// gone is the exit status with which kget.sh says that the archive no longer
// has a kernel.
const gone = 44

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	r := runner{root: ".", out: "bin/vm", p: &printer{w: os.Stdout}}
	names := flag.String("k", "", "kernels, by name, series or architecture; empty: all")
	pkgs := flag.String("p", "", "packages, by the last part of their path, or smoke; empty: all")
	useLab := flag.Bool("lab", false, "the lab kernels, which lab.sh builds, and not those of the archive")
	flag.IntVar(&r.jobs, "j", 2, "guests at once")
	flag.Parse()
	all := matrix()
	if *useLab {
		all = lab()
	}
	ok, err := r.run(ctx, all, words(*names), words(*pkgs))
	if err != nil {
		fmt.Fprintln(os.Stderr, "vm:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

// runner has what all guests of a run share.
type runner struct {
	root, out string
	jobs      int
	p         *printer
	cache     string
	suites    []suite
	smoke     bool
}

func (r *runner) run(ctx context.Context, all []kernel, names, pkgs []string) (bool, error) {
	ks, err := choose(all, names)
	if err != nil {
		return false, err
	}
	if err := r.chooseSuites(pkgs); err != nil {
		return false, err
	}
	if ks = r.busy(ks); len(ks) == 0 {
		return false, errors.New("none of the packages has tests for these kernels")
	}
	if r.cache, err = cacheDir(); err != nil {
		return false, err
	}
	ms := r.fetch(ctx, ks)
	var arches []string
	for _, m := range ms {
		if m.err == nil && !slices.Contains(arches, m.k.arch) {
			arches = append(arches, m.k.arch)
		}
	}
	tmp, err := os.MkdirTemp("", "huatuo-vm-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(tmp)
	began := time.Now()
	for _, arch := range arches {
		if err := r.prepare(ctx, arch, tmp); err != nil {
			return false, err
		}
	}
	fmt.Fprintf(r.p.w, "built %d test binaries and the agent for %s in %.0fs\n", len(r.suites)+1, strings.Join(arches, ", "), time.Since(began).Seconds())

	slots := make(chan struct{}, max(r.jobs, 1))
	var wg sync.WaitGroup
	// The longest first, so that no worker is idle at the end.
	queue := slices.Clone(ms)
	slices.SortStableFunc(queue, func(a, b *machine) int { return b.k.weight() - a.k.weight() })
	for _, m := range queue {
		if m.err != nil {
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			m.err = r.guest(ctx, m, r.suites, r.smoke, tmp)
			r.again(ctx, m, tmp)
		})
	}
	wg.Wait()
	return summary(r.p.w, ms), r.keep(all, ms)
}

// chooseSuites keeps the suites whose last part of the path is named.
func (r *runner) chooseSuites(pkgs []string) error {
	suites, err := kernelSuites(r.root)
	if err != nil {
		return err
	}
	r.smoke = len(pkgs) == 0 || slices.Contains(pkgs, "smoke")
	if len(pkgs) == 0 {
		r.suites = suites
		return nil
	}
	for _, s := range suites {
		if slices.Contains(pkgs, filepath.Base(s.pkg)) {
			r.suites = append(r.suites, s)
		}
	}
	if len(r.suites) == 0 && !r.smoke {
		return fmt.Errorf("no package with kernel tests is named %s", strings.Join(pkgs, ", "))
	}
	return nil
}

// busy keeps the kernels on which there is something to run.
func (r *runner) busy(ks []kernel) []kernel {
	return slices.DeleteFunc(slices.Clone(ks), func(k kernel) bool {
		return (!r.smoke || len(k.smoke) == 0) && !slices.ContainsFunc(r.suites, func(s suite) bool { return k.runs(s.pkg) })
	})
}

func cacheDir() (string, error) {
	if d := os.Getenv("HUATUO_CACHE"); d != "" {
		return d, nil
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find a cache (set HUATUO_CACHE): %w", err)
	}
	return filepath.Join(d, "huatuo", "kernels"), nil
}

// fetch brings the kernels and the guests' programs into the cache.
func (r *runner) fetch(ctx context.Context, ks []kernel) []*machine {
	var ms []*machine
	for _, k := range ks {
		m := &machine{k: k}
		ms = append(ms, m)
		if k.debian == "" {
			if _, err := os.Stat(filepath.Join(r.dir(k), "version")); err != nil {
				m.err = errors.New("it is not built: test/vm/lab.sh builds it")
			}
		} else {
			m.gone, m.err = r.kget(ctx, k.arch, k.debian)
		}
		if m.err == nil {
			_, m.err = r.kget(ctx, k.arch, "tools")
		}
	}
	return ms
}

func (r *runner) kget(ctx context.Context, arch, what string) (lost bool, err error) {
	cmd := exec.CommandContext(ctx, filepath.Join(r.root, "test/vm/kget.sh"), arch, what)
	cmd.Env = append(os.Environ(), "HUATUO_CACHE="+r.cache)
	out, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == gone, fmt.Errorf("fetch %s for %s: %w\n%s", what, arch, err, text)
	}
	return false, nil
}

// dir is where a kernel lies in the cache.
func (r *runner) dir(k kernel) string {
	if k.debian == "" {
		return filepath.Join(r.cache, k.arch, k.name)
	}
	return filepath.Join(r.cache, k.arch, k.debian)
}

func (r *runner) prepare(ctx context.Context, arch, tmp string) error {
	built := filepath.Join(r.root, r.out, arch)
	if err := build(ctx, r.root, built, arch, r.suites); err != nil {
		return err
	}
	return baseArchive(r.root, built, filepath.Join(r.cache, arch, "tools"), filepath.Join(tmp, arch+".cpio"), r.suites)
}

// again gives what failed a second guest, on its own: a guest that one thread
// emulates beside whatever else the machine does may see a clock tick too late.
// What fails twice has failed, and what needed two guests is said.
func (r *runner) again(ctx context.Context, m *machine, tmp string) {
	todo := m.failing(r.suites, r.smoke)
	if m.err != nil || len(todo) == 0 || len(todo) > maxAgain || ctx.Err() != nil {
		return // a guest that went away is never a matter of luck
	}
	suites := slices.DeleteFunc(slices.Clone(r.suites), func(s suite) bool { return !slices.Contains(todo, s.pkg) })
	second := &machine{k: m.k, log: ".again"}
	m.err = r.guest(ctx, second, suites, slices.Contains(todo, smokePkg), tmp)
	m.merge(second)
}

// maxAgain is how many suites may fail for them to be tried again: more are
// not a matter of luck.
const maxAgain = 5

// guest runs tests on one kernel.
func (r *runner) guest(ctx context.Context, m *machine, suites []suite, smoke bool, tmp string) error {
	k := m.k
	if !smoke {
		k.smoke = nil
	}
	version, err := os.ReadFile(filepath.Join(r.dir(k), "version"))
	if err != nil {
		return err
	}
	m.release = strings.TrimSpace(string(version))
	initrd := filepath.Join(tmp, k.name+".cpio")
	defer os.Remove(initrd)
	modroot := filepath.Join(r.dir(k), "modroot/lib/modules", m.release)
	if err := guestArchive(filepath.Join(tmp, k.arch+".cpio"), modroot, initrd, k, suites); err != nil {
		return fmt.Errorf("make the guest's root: %w", err)
	}
	began := time.Now()
	err = boot(ctx, k, filepath.Join(r.dir(k), "vmlinuz"), initrd, filepath.Join(r.root, r.out, k.name+m.log+".log"), func(e event) {
		if o := m.add(e); o != nil {
			r.p.suite(k, o)
		}
	})
	m.took = time.Since(began)
	if m.current != nil { // the guest ended in the middle of it
		r.p.suite(k, m.current)
	}
	return err
}

// record is what one guest's agent told about itself: the input of tools/kernels.
type record struct {
	Kernel  string          `json:"kernel"`
	Order   int             `json:"order"` // in the list
	Release string          `json:"release"`
	Arch    string          `json:"arch"`
	Cgroup  string          `json:"cgroup"`
	CPUs    int             `json:"cpus"`
	Result  json.RawMessage `json:"result"`
}

// keep writes what the smoke tests told, a file for each kernel; a kernel that
// told nothing has none.
func (r *runner) keep(all []kernel, ms []*machine) error {
	if !r.smoke {
		return nil
	}
	dir := filepath.Join(r.root, r.out, "results")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, m := range ms {
		file := filepath.Join(dir, m.k.name+".json")
		if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
			return err
		}
		if m.result == nil {
			continue
		}
		order := slices.IndexFunc(all, func(k kernel) bool { return k.name == m.k.name })
		if m.k.debian == "" {
			order += 100 // behind those of the archive
		}
		b, err := json.MarshalIndent(record{m.k.name, order, m.release, m.k.arch, m.k.cgroup, m.k.cpus, m.result}, "", " ")
		if err != nil {
			return fmt.Errorf("%s: a broken result: %w", m.k.name, err)
		}
		if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
			return err
		}
	}
	return nil
}
