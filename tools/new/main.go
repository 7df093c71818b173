// Command new scaffolds a probe: a folder under internal/probes that compiles,
// loads and passes its tests, and its line in the list.
//
//	make new P=name
package main

import (
	"embed"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

//go:embed template
var templates embed.FS

// files of a probe: in template → in the probe's folder, where @ is its name.
var files = [...][2]string{
	{"probe.bpf.c", "@.bpf.c"}, {"probe.go.tmpl", "@.go"}, {"probe_test.go.tmpl", "@_test.go"}, {"README.md", "README.md"},
}

const list = "internal/probes/probes.go"

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: new NAME")
		os.Exit(2)
	}
	if err := scaffold(".", os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "new:", err)
		os.Exit(1)
	}
	dir := filepath.Join("internal/probes", os.Args[1])
	if err := generate(dir); err != nil {
		fmt.Fprintln(os.Stderr, "new:", err)
		os.Exit(1)
	}
	fmt.Printf("%s and its line in %s are there. Next:\n"+
		"  go test ./%s      as root: the kernel test runs too\n"+
		"  edit the four files; `make gen` after each change of the C file\n"+
		"  write README.md: make check fails until it is written\n", dir, list, dir)
}

// scaffold writes the folder of the probe and adds it to the list.
func scaffold(root, name string) error {
	if !regexp.MustCompile(`^[a-z][a-z0-9]{1,14}$`).MatchString(name) {
		return fmt.Errorf("%q is not a probe's name: use one lower-case word of up to 15 letters and digits, named for what the kernel calls it", name)
	}
	if token.IsKeyword(name) {
		return fmt.Errorf("%q is a Go keyword", name)
	}
	dir := filepath.Join(root, "internal/probes", name)
	if _, err := os.Stat(dir); err == nil {
		return fmt.Errorf("%s exists", dir)
	}
	src, err := os.ReadFile(filepath.Join(root, list))
	if err != nil {
		return err
	}
	listed, err := addLine(src, name)
	if err != nil {
		return fmt.Errorf("add a line to %s: %w", list, err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range files {
		text, err := fs.ReadFile(templates, "template/"+f[0])
		if err != nil {
			return err
		}
		out := strings.ReplaceAll(string(text), "@NAME@", name)
		if err := os.WriteFile(filepath.Join(dir, strings.ReplaceAll(f[1], "@", name)), []byte(out), 0o644); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(root, list), listed, 0o644)
}

// addLine adds the import and the element to the source of the list.
func addLine(src []byte, name string) ([]byte, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, list, src, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var imports, elements token.Pos
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GenDecl:
			if n.Tok == token.IMPORT && n.Rparen.IsValid() {
				imports = n.Rparen
			}
		case *ast.FuncDecl:
			return n.Name.Name == "All"
		case *ast.CompositeLit:
			elements = n.Rbrace
			return false
		}
		return true
	})
	if !imports.IsValid() || !elements.IsValid() {
		return nil, fmt.Errorf("no import block, or no func All with a list")
	}
	in, el := fset.Position(imports).Offset, fset.Position(elements).Offset
	before := string(src[in:el])
	if !strings.HasSuffix(strings.TrimRight(before, " \t"), "\n") {
		before += "\n"
	}
	out := string(src[:in]) + fmt.Sprintf("\t\"huatuo/internal/probes/%s\"\n", name) + before + fmt.Sprintf("\t\t%s.Spec(),\n\t", name) + string(src[el:])
	return format.Source([]byte(out))
}

// generate compiles the BPF program and its bindings.
func generate(dir string) error {
	cmd := exec.Command("go", "generate", "./"+dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("generate %s (needs clang-19, see `make deps`): %w", dir, err)
	}
	return nil
}
