// Command fresh tells whether generated files are up to date: it copies the
// tree, runs a command in the copy, and lists every file that the command
// changed, made or removed there. The tree itself is not touched.
//
//	go run ./tools/fresh make gen
package main

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: fresh COMMAND [ARGUMENT…]")
		os.Exit(2)
	}
	diffs, err := check(".", os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "fresh:", err)
		os.Exit(1)
	}
	for _, d := range diffs {
		fmt.Println(d)
	}
	if len(diffs) > 0 {
		fmt.Printf("fresh: %d generated files are out of date: run `%s` and commit the result\n", len(diffs), strings.Join(os.Args[1:], " "))
		os.Exit(1)
	}
}

// check runs command in a copy of root and returns the differences it made.
func check(root string, command []string) ([]string, error) {
	tmp, err := os.MkdirTemp("", "fresh")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	before, err := read(root)
	if err != nil {
		return nil, fmt.Errorf("read tree: %w", err)
	}
	if err := write(tmp, before); err != nil {
		return nil, fmt.Errorf("copy tree: %w", err)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = tmp
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("run %s: %w\n%s", strings.Join(command, " "), err, out)
	}
	after, err := read(tmp)
	if err != nil {
		return nil, fmt.Errorf("read copy: %w", err)
	}
	return compare(before, after), nil
}

type file struct {
	mode fs.FileMode
	data []byte
}

// skipped are folders that hold no sources: history, packages, build results.
var skipped = []string{".git", "node_modules", "bin", ".test"}

func read(root string) (map[string]file, error) {
	files := map[string]file{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains(skipped, d.Name()) {
			return fs.SkipDir
		}
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		files[rel] = file{info.Mode().Perm(), data}
		return nil
	})
	return files, err
}

func write(root string, files map[string]file) error {
	for name, f := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, f.data, f.mode); err != nil {
			return err
		}
	}
	return nil
}

func compare(before, after map[string]file) []string {
	var diffs []string
	for name, b := range before {
		a, ok := after[name]
		switch {
		case !ok:
			diffs = append(diffs, name+": no longer made")
		case !bytes.Equal(a.data, b.data):
			diffs = append(diffs, name+": stale")
		}
	}
	for name := range after {
		if _, ok := before[name]; !ok {
			diffs = append(diffs, name+": missing")
		}
	}
	slices.Sort(diffs)
	return diffs
}
