package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// kernelSuites finds the packages below root whose tests belong in a guest.
func kernelSuites(root string) ([]suite, error) {
	found := map[string]bool{}
	err := filepath.WalkDir(filepath.Join(root, "internal"), func(p string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(p, "_test.go") {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if strings.Contains(string(b), "\nfunc TestKernel") {
			rel, err := filepath.Rel(root, filepath.Dir(p))
			if err != nil {
				return err
			}
			found[rel] = true
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find kernel tests: %w", err)
	}
	for _, w := range whole {
		found[w] = true
	}
	var out []suite
	for _, pkg := range slices.Sorted(maps.Keys(found)) {
		s := suite{pkg: pkg, run: "^TestKernel"}
		if slices.Contains(whole, pkg) {
			s.run = "^Test"
		}
		if hostOnly[pkg] == "" {
			out = append(out, s)
		}
	}
	return out, nil
}

// name is the file of the package's test binary.
func (s suite) name() string { return filepath.Base(s.pkg) + ".test" }

// smokePkg starts the real agent in the guest.
const smokePkg = "test/vm/smoke"

// build makes the test binaries and the agent for one architecture in dir.
func build(ctx context.Context, root, dir, arch string, suites []suite) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	pkgs := []string{"./" + smokePkg}
	for _, s := range suites {
		pkgs = append(pkgs, "./"+s.pkg)
	}
	for _, args := range [][]string{
		append([]string{"test", "-c", "-ldflags=-s -w", "-o", dir + "/"}, pkgs...),
		{"build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "huatuo"), "./cmd/huatuo"},
	} {
		cmd := exec.CommandContext(ctx, "nice", append([]string{"-n", "10", "go"}, args...)...)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build for %s: %w\n%s", arch, err, out)
		}
	}
	return nil
}

// guestPrograms are what tests call, beside the applets of busybox.
// What busybox has as well goes where it is found first.
var guestPrograms = map[string]string{
	"/bin/busybox":                "/bin/busybox",
	"/bin/ip":                     "/usr/sbin/ip",
	"/sbin/losetup":               "/usr/sbin/losetup",
	"/sbin/mke2fs":                "/usr/sbin/mkfs.ext4",
	"/sbin/tc":                    "/usr/sbin/tc",
	"/usr/sbin/xtables-nft-multi": "/usr/sbin/xtables-nft-multi",
}

// baseArchive writes what all guests of one architecture have in common: the
// programs, the test binaries with their testdata, the agent.
func baseArchive(root, built, tools, file string, suites []suite) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	a := newArchive(f)
	for from, to := range guestPrograms {
		if err := a.program(tools, from, to); err != nil {
			return fmt.Errorf("take %s along: %w", from, err)
		}
	}
	plugins, err := filepath.Glob(tools + "/usr/lib/*-linux-gnu/xtables/libxt_*.so")
	if err != nil {
		return err
	}
	for _, p := range plugins {
		if err := a.copyFile(strings.TrimPrefix(p, tools), p); err != nil {
			return err
		}
	}
	a.link("/usr/sbin/iptables", "xtables-nft-multi")
	a.link("/usr/sbin/ip6tables", "xtables-nft-multi")
	a.file("/etc/hostname", 0o644, []byte("guest\n"))
	a.file("/etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\n"))
	if err := a.copyFile("/init", filepath.Join(root, "test/vm/init")); err != nil {
		return err
	}
	for from, to := range map[string]string{"huatuo": "/t/huatuo", "smoke.test": "/t/smoke/smoke.test"} {
		if err := a.copyFile(to, filepath.Join(built, from)); err != nil {
			return err
		}
	}
	for _, s := range suites {
		if err := a.copyFile("/t/"+s.pkg+"/"+s.name(), filepath.Join(built, s.name())); err != nil {
			return err
		}
		data := filepath.Join(root, s.pkg, "testdata")
		if _, err := os.Stat(data); err == nil {
			if err := a.copyTree("/t/"+s.pkg+"/testdata", data); err != nil {
				return err
			}
		}
	}
	if a.err != nil {
		return a.err
	}
	return f.Close()
}

// guestArchive writes the whole root of one guest: the base, its kernel's
// modules, and what to run.
func guestArchive(base, modroot, file string, k kernel, suites []suite) error {
	b, err := os.ReadFile(base)
	if err != nil {
		return err
	}
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	a := newArchive(f)
	var order []string
	for _, m := range modules {
		if k.debian == "" {
			break // lab.config has them built in
		}
		files, err := modulesOf(modroot, m)
		if err != nil && !slices.Contains(optional, m) {
			return err
		}
		for _, m := range files {
			name, _, _ := strings.Cut(filepath.Base(m), ".ko")
			if slices.Contains(order, name) {
				continue
			}
			data, err := readModule(filepath.Join(modroot, m))
			if err != nil {
				return err
			}
			order = append(order, name)
			a.file("/t/mod/"+name, 0o644, data)
		}
	}
	a.file("/t/modules", 0o644, []byte(strings.Join(order, "\n")+"\n"))
	a.file("/t/run.sh", 0o644, []byte(script(k, suites)))
	if err := a.close(); err != nil {
		return err
	}
	return f.Close()
}

// script is what init runs. Temporary files of kernel tests lie on a block
// device, those of the agent, whose store wants room, in memory.
func script(k kernel, suites []suite) string {
	var b strings.Builder
	fmt.Fprintf(&b, "export HUATUO_TEST_HOOKS='%s' HUATUO_AGENT=/t/huatuo\n", strings.Join(k.hooks, " "))
	for _, s := range suites {
		if !k.runs(s.pkg) {
			continue
		}
		run := cmp.Or(k.tests, s.run)
		fmt.Fprintf(&b, "TMPDIR=/var/tmp try %s /t/%s ./%s -test.v -test.timeout 400s -test.run '%s'%s\n", s.pkg, s.pkg, s.name(), run, k.skip(s.pkg))
	}
	if len(k.smoke) > 0 {
		fmt.Fprintf(&b, "try %s /t/smoke ./smoke.test -test.v -test.timeout 300s -test.run '^(%s)$'\n", smokePkg, strings.Join(k.smoke, "|"))
	}
	return b.String()
}

// skip is what of a package is left out on k: a flag, or nothing.
func (k kernel) skip(pkg string) string {
	var out []string
	for _, e := range excluded {
		if e.pkg == pkg && e.on(k) {
			out = append(out, e.test)
		}
	}
	if r := k.rungs.skip(); r != "" {
		out = append(out, r) // last: package testing looks no further when a part of a name matches
	}
	if len(out) == 0 {
		return ""
	}
	return " -test.skip '" + strings.Join(out, "|") + "'"
}
