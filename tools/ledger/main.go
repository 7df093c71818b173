// Command ledger writes docs/ledger: small text files that make the invisible
// visible in a diff.
//
//	deps.txt        the modules linked into the agent
//	metrics.golden  name, type and labels of every metric
//	wire.txt        size and member offsets of each struct that a BPF program sends
//	size.txt        bytes of the agent's binary and of the console
package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

const dir = "docs/ledger"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "ledger:", err)
		os.Exit(1)
	}
}

// run writes the ledgers of those names, or all.
func run(names []string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, l := range []struct {
		name string
		make func() (string, error)
	}{{"metrics.golden", metrics}, {"wire.txt", wire}, {"deps.txt", deps}, {"size.txt", size}} {
		if len(names) > 0 && !slices.Contains(names, l.name) {
			continue
		}
		text, err := l.make()
		if err != nil {
			return fmt.Errorf("make %s: %w", l.name, err)
		}
		if err := os.WriteFile(filepath.Join(dir, l.name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// deps lists the modules of the packages that the agent imports, directly or
// not; modules that only tools and tests need are not among them.
func deps() (string, error) {
	cmd := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}{{end}}{{end}}", "./cmd/huatuo")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w\n%s", err, stderr.Bytes())
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(lines)
	lines = slices.DeleteFunc(slices.Compact(lines), func(l string) bool { return l == "" })
	return fmt.Sprintf("# %d modules are linked into huatuo (linux/amd64, no cgo).\n%s\n", len(lines), strings.Join(lines, "\n")), nil
}

// wire describes the structs that cross from kernel to user space.
func wire() (string, error) {
	// The legacy flavour has the same structs: internal/probes compares them.
	objects, err := filepath.Glob("internal/pro*/*/bpf_bpfel.o") // probes and profile
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("# Structs that BPF programs send: probe, struct, size; then offset, size and name of each member.\n")
	for _, o := range objects {
		spec, err := ebpf.LoadCollectionSpec(o)
		if err != nil {
			return "", fmt.Errorf("read %s: %w", o, err)
		}
		structs, err := wireStructs(spec.Types)
		if err != nil {
			return "", fmt.Errorf("read BTF of %s: %w", o, err)
		}
		for _, s := range structs {
			fmt.Fprintf(&b, "\n%s %s %d\n", filepath.Base(filepath.Dir(o)), s.Name, s.Size)
			if err := members(&b, s, 0, ""); err != nil {
				return "", err
			}
		}
	}
	return b.String(), nil
}

func wireStructs(types *btf.Spec) ([]*btf.Struct, error) {
	var found []*btf.Struct
	for t, err := range types.All() {
		if err != nil {
			return nil, err
		}
		s, ok := t.(*btf.Struct)
		if ok && (strings.HasSuffix(s.Name, "_wire") || strings.HasSuffix(s.Name, "_event")) {
			found = append(found, s)
		}
	}
	slices.SortFunc(found, func(a, b *btf.Struct) int { return strings.Compare(a.Name, b.Name) })
	return found, nil
}

// members writes the members of s, those of structs within it in their place.
func members(b *strings.Builder, s *btf.Struct, base uint32, prefix string) error {
	for _, m := range s.Members {
		offset := base + m.Offset.Bytes()
		if inner, ok := btf.UnderlyingType(m.Type).(*btf.Struct); ok {
			if err := members(b, inner, offset, prefix+m.Name+"."); err != nil {
				return err
			}
			continue
		}
		n, err := btf.Sizeof(m.Type)
		if err != nil {
			return fmt.Errorf("size of %s%s: %w", prefix, m.Name, err)
		}
		fmt.Fprintf(b, "%6d %5d %s%s\n", offset, n, prefix, m.Name)
	}
	return nil
}

// tolerance in MB: how far the binary may be from the ledger. Patch releases of
// the Go toolchain move it by less; a new dependency by more.
const tolerance = 0.25

func size() (string, error) {
	binary, err := binaryMB()
	if err != nil {
		return "", err
	}
	var was float64
	if old, err := os.ReadFile(filepath.Join(dir, "size.txt")); err == nil {
		if _, err := fmt.Sscanf(string(old), sizeFormat, &was); err == nil && math.Abs(was-binary) < tolerance {
			binary = was
		}
	}
	raw, packed, err := console(os.DirFS("internal/console/dist"))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(sizeFormat, binary) + fmt.Sprintf("console %d KB, gzip %d KB\n", raw, packed), nil
}

const sizeFormat = "# Stripped binary for linux/amd64, and all files of the console.\nbinary %.1f MB\n"

func binaryMB() (float64, error) {
	tmp, err := os.MkdirTemp("", "ledger")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(tmp)
	bin := filepath.Join(tmp, "huatuo")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin, "./cmd/huatuo")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build: %w\n%s", err, out)
	}
	st, err := os.Stat(bin)
	if err != nil {
		return 0, err
	}
	return math.Round(float64(st.Size())/1e5) / 10, nil
}

// console returns the bytes of all files of the console in KB, as they are and
// compressed one by one, as a browser gets them.
func console(dist fs.FS) (raw, packed int, err error) {
	var zipped bytes.Buffer
	err = fs.WalkDir(dist, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(dist, p)
		if err != nil {
			return err
		}
		raw += len(data)
		w := gzip.NewWriter(&zipped)
		if _, err := w.Write(data); err != nil {
			return err
		}
		return w.Close()
	})
	return (raw + 999) / 1000, (zipped.Len() + 999) / 1000, err
}
