package main

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// archive writes a cpio archive of the form that the kernel unpacks as its
// first root ("newc"). It is not compressed: a guest would need ten seconds to
// unpack what the host loads in half a second.
type archive struct {
	w    io.Writer
	ino  int
	seen map[string]bool
	err  error
}

func newArchive(w io.Writer) *archive { return &archive{w: w, seen: map[string]bool{}} }

func (a *archive) entry(name string, mode int, data []byte) {
	if a.err != nil || a.seen[name] {
		return
	}
	a.seen[name] = true
	a.ino++
	var b bytes.Buffer
	fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.ino, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name)+1, 0)
	b.WriteString(name)
	b.WriteByte(0)
	pad(&b)
	b.Write(data)
	pad(&b)
	_, a.err = a.w.Write(b.Bytes())
}

func pad(b *bytes.Buffer) {
	for b.Len()%4 != 0 {
		b.WriteByte(0)
	}
}

// dir adds a folder and those above it.
func (a *archive) dir(name string) {
	if name = strings.Trim(name, "/"); name == "" || name == "." {
		return
	}
	a.dir(path.Dir(name))
	a.entry(name, 0o040755, nil)
}

// file adds a file and the folders above it.
func (a *archive) file(name string, mode int, data []byte) {
	a.dir(path.Dir(name))
	a.entry(strings.Trim(name, "/"), 0o100000|mode, data)
}

func (a *archive) link(name, to string) {
	a.dir(path.Dir(name))
	a.entry(strings.Trim(name, "/"), 0o120777, []byte(to))
}

// copyFile adds a file of the host, what links lead to included.
func (a *archive) copyFile(name, host string) error {
	st, err := os.Stat(host)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(host)
	if err != nil {
		return err
	}
	a.file(name, int(st.Mode().Perm()), b)
	return a.err
}

// copyTree adds a folder of the host.
func (a *archive) copyTree(name, host string) error {
	return filepath.WalkDir(host, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(host, p)
		if err != nil {
			return err
		}
		return a.copyFile(path.Join(name, rel), p)
	})
}

// close ends the archive.
func (a *archive) close() error {
	a.entry("TRAILER!!!", 0, nil)
	return a.err
}

// program adds a program of the sysroot (unpacked packages of the guest's
// architecture) with the libraries that it needs.
func (a *archive) program(sysroot, name, to string) error {
	host, err := inside(sysroot, name)
	if err != nil {
		return err
	}
	if err := a.copyFile(to, host); err != nil {
		return err
	}
	return a.libraries(sysroot, host)
}

func (a *archive) libraries(sysroot, host string) error {
	f, err := elf.Open(host)
	if err != nil {
		return fmt.Errorf("read libraries of %s: %w", host, err)
	}
	defer f.Close()
	libs, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("read libraries of %s: %w", host, err)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b := make([]byte, p.Filesz)
			if _, err := p.ReadAt(b, 0); err != nil {
				return err
			}
			libs = append(libs, string(bytes.TrimRight(b, "\x00")))
		}
	}
	for _, l := range libs {
		where, guest, err := library(sysroot, l)
		if err != nil {
			return err
		}
		if a.seen[strings.Trim(guest, "/")] {
			continue
		}
		if err := a.copyFile(guest, where); err != nil {
			return err
		}
		if err := a.libraries(sysroot, where); err != nil {
			return err
		}
	}
	return nil
}

// library finds a library of the sysroot and tells where the guest wants it.
func library(sysroot, name string) (host, guest string, err error) {
	if strings.HasPrefix(name, "/") {
		host, err = inside(sysroot, name)
		return host, name, err
	}
	for _, pattern := range []string{"lib/*-linux-gnu", "usr/lib/*-linux-gnu"} {
		dirs, _ := filepath.Glob(filepath.Join(sysroot, pattern))
		for _, d := range dirs {
			if host, err := inside(sysroot, strings.TrimPrefix(d, sysroot)+"/"+name); err == nil {
				return host, strings.TrimPrefix(d, sysroot) + "/" + name, nil
			}
		}
	}
	return "", "", fmt.Errorf("no %s in %s", name, sysroot)
}

// inside resolves links as if sysroot were the root.
func inside(sysroot, name string) (string, error) {
	for range 10 {
		p := filepath.Join(sysroot, name)
		to, err := os.Readlink(p)
		if err != nil {
			_, err = os.Stat(p)
			return p, err
		}
		if path.IsAbs(to) {
			name = to
		} else {
			name = path.Join(path.Dir(name), to)
		}
	}
	return "", fmt.Errorf("too many links at %s", name)
}

// modulesOf returns the files of a module and of what it depends on, in the
// order in which to load them; none when the kernel has it built in.
func modulesOf(modroot, module string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(modroot, "modules.dep"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		file, deps, _ := strings.Cut(strings.TrimSpace(line), ":")
		if moduleName(file) != module {
			continue
		}
		files := append(strings.Fields(file+" "+deps), []string{}...)
		slices.Reverse(files) // modules.dep lists the last to load first
		return files, nil
	}
	builtin, err := os.ReadFile(filepath.Join(modroot, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(builtin)) {
		if moduleName(strings.TrimSpace(line)) == module {
			return nil, nil
		}
	}
	return nil, fmt.Errorf("this kernel has no module %s", module)
}

func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// readModule returns a module's content, unpacked.
func readModule(file string) ([]byte, error) {
	if !strings.HasSuffix(file, ".xz") {
		return os.ReadFile(file)
	}
	out, err := exec.Command("xz", "-dc", file).Output()
	if err != nil {
		return nil, fmt.Errorf("xz -dc %s: %w", file, err)
	}
	return out, nil
}
