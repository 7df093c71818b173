package internal

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const module = "huatuo"

// A package imports packages of lower layers only. A prefix that ends in a
// slash covers the folders below it, each of which is alone: two of them may
// not import each other. Any other prefix covers one folder and what lies
// below, as one. The longest prefix counts. The reason is printed with a
// failure.
var layers = []layer{
	{"internal/kern/", 0, "a leaf knows the kernel, not the agent and not its siblings"},
	{"internal/signal", 1, "the datum knows nobody"},
	{"internal/symbol", 1.5, "names of addresses come from files and the kernel; it gives frames, and knows no record"},
	{"internal/l7/", 1.5, "a parser is bytes in, messages out; it knows no other protocol"},
	{"internal/probe", 2, "it says what a probe is, not which probes there are"},
	{"internal/probes/probetest", 2.5, "it plays the agent for any probe, so it may know none"},
	{"internal/profile/otlp", 2.5, "a form of stacks that files and servers have in common knows neither"},
	{"internal/probes/", 3, "a probe must not know other probes, the store or the console"},
	{"internal/profile", 3, "a profiler makes profiles; it must not know who keeps or shows them"},
	{"internal/trace", 3, "spans are made from messages; who keeps them is not their business"},
	{"internal/enrich", 3, "enrichment knows records, not where they come from or go to"},
	{"internal/store", 3, "a sink must not know who fills it"},
	{"internal/sink/", 3, "a sink must not know who fills it, nor other sinks"},
	{"internal/query", 3, "reading must work on any back end"},
	{"internal/pipe", 4, "routing works on signals; it declares the sinks that it needs"},
	{"internal/autotrace", 4, "a watcher consumes signals and starts captures through specs"},
	{"internal/diagnose", 4, "a finding comes from evidence, whoever gathered it"},
	{"internal/budget", 4, "it measures and sheds by interface, it knows no probe"},
	{"internal/console", 4, "it reads through the interfaces that it declares, so that it also works on a fleet"},
	{"internal/docgen", 4, "docs come from specs"},
	{"internal/config", 4, "configuration comes from specs; nobody below reads it"},
	{"internal/probes", 5, "the list, and only the list, names every probe"},
	{"internal/app", 6, "wiring: the one place where concrete things meet"},
	{"cmd/", 7, "a command parses flags and calls app"},
	{"tools/", 8, "a tool may use the agent's packages; nothing may use a tool"},
	{"test/faults/", 0.5, "a fault knows the kernel alone: tests of probes and of the whole agent use it"},
	{"test/doubles/", 0.5, "a double knows published protocols alone: tests of sinks and of the whole agent use it"},
	{"test/faults/cmd/", 8, "a fault as a program, for use by hand and from scripts"},
	{"test/", 8, "a test from outside may use anything; nothing may use it"},
}

type layer struct {
	prefix string
	level  float64 // halves are what a layer itself may use
	why    string
}

// thirdParty limits what lower layers import from other modules, tests apart.
var thirdParty = []struct {
	prefix  string
	allowed []string
	why     string
}{
	{"internal/kern/", []string{"github.com/cilium/ebpf", "golang.org/x/sys", "github.com/prometheus/procfs"}, "the kernel needs no more"},
	{"internal/signal", nil, "the datum is standard library only, so that everything may import it"},
	{"internal/probe", nil, "what a probe is needs no library"},
}

// forbidden are names that say nothing about what a folder holds.
var forbidden = []string{"pkg", "util", "utils", "common", "helper", "helpers", "misc", "types", "core", "lib", "base", "shared"}

// find returns the layer of a folder and the name of its unit: folders of one
// unit may import each other.
func find(dir string) (l layer, unit string, ok bool) {
	for _, c := range layers {
		rest, hit := strings.CutPrefix(dir+"/", strings.TrimSuffix(c.prefix, "/")+"/")
		if alone := strings.HasSuffix(c.prefix, "/"); alone {
			first, _, _ := strings.Cut(rest, "/")
			hit = hit && first != ""
			rest = first
		} else {
			rest = ""
		}
		if hit && len(c.prefix) > len(l.prefix) {
			l, unit, ok = c, c.prefix+rest, true
		}
	}
	return l, unit, ok
}

// source is one Go file of the tree.
type source struct {
	dir, path string
	file      *ast.File
	fset      *token.FileSet
	generated bool
	test      bool
}

// read parses every Go file below root. It reads the sources itself rather
// than asking `go list`: the test cache notices files a test opens, not files
// a child process opens.
func read(root fs.FS) ([]source, error) {
	var all []source
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if skip(d.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		text, err := fs.ReadFile(root, p)
		if err != nil {
			return err
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, p, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		all = append(all, source{path.Dir(p), p, f, fset, ast.IsGenerated(f), strings.HasSuffix(p, "_test.go")})
		return nil
	})
	return all, err
}

func skip(dir string) bool {
	return dir == "testdata" || dir == "node_modules" || dir == ".git"
}

// checkImports returns one line per import that goes up or sideways.
func checkImports(all []source) []string {
	var bad []string
	for _, s := range all {
		if s.dir == "internal" {
			continue // this test
		}
		from, unit, ok := find(s.dir)
		if !ok {
			bad = append(bad, fmt.Sprintf("%s: %s has no layer: write an ADR and add it to the table in internal/arch_test.go", s.path, s.dir))
			continue
		}
		for _, i := range s.file.Imports {
			imp, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				panic("BUG: the parser accepted the import " + i.Path.Value)
			}
			ours, isOurs := strings.CutPrefix(imp, module+"/")
			if !isOurs {
				bad = append(bad, checkThirdParty(s, imp)...)
				continue
			}
			if strings.HasPrefix(ours, "test/") && !s.test && !strings.HasPrefix(s.dir, "test/") {
				bad = append(bad, fmt.Sprintf("%s imports %s: the agent must not carry test code", s.path, ours))
				continue
			}
			to, toUnit, ok := find(ours)
			if ok && (toUnit == unit || to.level < from.level) {
				continue
			}
			bad = append(bad, fmt.Sprintf("%s (layer %g) imports %s (layer %g): %s", s.path, from.level, ours, to.level, from.why))
		}
	}
	return bad
}

func checkThirdParty(s source, imp string) []string {
	host, _, _ := strings.Cut(imp, "/")
	if s.test || !strings.Contains(host, ".") {
		return nil // a test, or the standard library
	}
	for _, t := range thirdParty {
		if !strings.HasPrefix(s.dir+"/", strings.TrimSuffix(t.prefix, "/")+"/") {
			continue
		}
		if !slices.ContainsFunc(t.allowed, func(a string) bool { return imp == a || strings.HasPrefix(imp, a+"/") }) {
			return []string{fmt.Sprintf("%s imports %s: %s", s.path, imp, t.why)}
		}
	}
	return nil
}

// checkDocs wants exactly one package comment per package, tests and generated
// files apart.
func checkDocs(all []source) []string {
	docs := map[string]int{}
	for _, s := range all {
		if s.test || s.generated {
			continue
		}
		docs[s.dir] += 0
		if s.file.Doc != nil {
			docs[s.dir]++
		}
	}
	var bad []string
	for dir, n := range docs {
		if n != 1 {
			bad = append(bad, fmt.Sprintf("%s: %d package comments, want 1", dir, n))
		}
	}
	slices.Sort(bad)
	return bad
}

// checkInit finds func init outside generated code: order is a list that can
// be read, not the order of files.
func checkInit(all []source) []string {
	var bad []string
	for _, s := range all {
		for _, d := range s.file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if ok && fn.Recv == nil && fn.Name.Name == "init" && !s.generated {
				bad = append(bad, fmt.Sprintf("%s: func init", s.fset.Position(fn.Pos())))
			}
		}
	}
	return bad
}

// checkNames finds folders whose name says nothing.
func checkNames(root fs.FS) ([]string, error) {
	var bad []string
	err := fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		if skip(d.Name()) || d.Name() == "dist" {
			return fs.SkipDir
		}
		if slices.Contains(forbidden, d.Name()) {
			bad = append(bad, p+": a folder is named for what it holds")
		}
		return nil
	})
	return bad, err
}

func TestTree(t *testing.T) {
	root := os.DirFS("..")
	all, err := read(root)
	if err != nil {
		t.Fatal(err)
	}
	names, err := checkNames(root)
	if err != nil {
		t.Fatal(err)
	}
	for what, bad := range map[string][]string{
		"imports": checkImports(all), "docs": checkDocs(all), "init": checkInit(all), "names": names,
	} {
		t.Run(what, func(t *testing.T) {
			for _, b := range bad {
				t.Error(b)
			}
		})
	}
}

// TestRules proves that each rule finds what it is for, and no more.
func TestRules(t *testing.T) {
	tree := fstest.MapFS{}
	for p, text := range map[string]string{
		"internal/signal/a.go":          "// Package signal is good.\npackage signal\nimport _ \"encoding/json\"\n",
		"internal/signal/up.go":         "package signal\nimport _ \"huatuo/internal/probe\"\n",
		"internal/signal/third.go":      "package signal\nimport _ \"example.com/x\"\n",
		"internal/signal/x_test.go":     "package signal\nimport _ \"example.com/x\"\n",
		"internal/kern/ring/a.go":       "// Package ring is good.\npackage ring\nimport _ \"github.com/cilium/ebpf/link\"\n",
		"internal/kern/load/a.go":       "// Package load goes sideways.\npackage load\nimport _ \"huatuo/internal/kern/ring\"\n",
		"internal/probes/b/b.go":        "// Package b goes sideways.\npackage b\nimport _ \"huatuo/internal/probes/c\"\n",
		"internal/probes/c/c.go":        "// Package c goes down.\npackage c\nimport (\n_ \"huatuo/internal/kern/ring\"\n_ \"huatuo/internal/probe\"\n)\n",
		"internal/probes/c/gen.go":      "// Code generated by x. DO NOT EDIT.\n\npackage c\nfunc init() {}\n",
		"internal/probes/probes.go":     "// Package probes is the list.\npackage probes\nimport _ \"huatuo/internal/probes/b\"\n",
		"test/faults/disk/disk.go":      "// Package disk is a fault.\npackage disk\n",
		"internal/probes/c/c_test.go":   "package c\nimport _ \"huatuo/test/faults/disk\"\n",
		"internal/probes/c/c_fault.go":  "package c\nimport _ \"huatuo/test/faults/disk\"\n",
		"internal/store/sub/a.go":       "// Package sub is part of store.\npackage sub\nimport _ \"huatuo/internal/store\"\n",
		"internal/pipe/a.go":            "// Package pipe names a sibling.\npackage pipe\nimport _ \"huatuo/internal/config\"\n",
		"internal/newthing/a.go":        "// Package newthing has no layer.\npackage newthing\n",
		"internal/enrich/undoc.go":      "package enrich\nfunc init() {}\ntype t struct{}\nfunc (t) init() {}\n",
		"internal/enrich/testdata/a.go": "package broken syntax",
		"internal/utils/README":         "",
		"ui/node_modules/utils/README":  "",
		"cmd/huatuo/main.go":            "// Command huatuo is good.\npackage main\nimport _ \"huatuo/internal/app\"\n",
	} {
		tree[p] = &fstest.MapFile{Data: []byte(text)}
	}
	all, err := read(tree)
	if err != nil {
		t.Fatal(err)
	}
	names, err := checkNames(tree)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		what string
		got  []string
		want []string // start of each line, sorted
	}{
		{"imports", checkImports(all), []string{
			"internal/kern/load/a.go (layer 0) imports internal/kern/ring (layer 0): a leaf",
			"internal/newthing/a.go: internal/newthing has no layer",
			"internal/pipe/a.go (layer 4) imports internal/config (layer 4): routing",
			"internal/probes/b/b.go (layer 3) imports internal/probes/c (layer 3): a probe",
			"internal/probes/c/c_fault.go imports test/faults/disk: the agent",
			"internal/signal/third.go imports example.com/x: ",
			"internal/signal/up.go (layer 1) imports internal/probe (layer 2): the datum",
		}},
		{"docs", checkDocs(all), []string{"internal/enrich: 0 package comments"}},
		{"init", checkInit(all), []string{"internal/enrich/undoc.go:2:1: func init"}},
		{"names", names, []string{"internal/utils: "}},
	} {
		slices.Sort(tt.got)
		ok := len(tt.got) == len(tt.want)
		for i := range min(len(tt.got), len(tt.want)) {
			ok = ok && strings.HasPrefix(tt.got[i], tt.want[i])
		}
		if !ok {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.what, strings.Join(tt.got, "\n     "), strings.Join(tt.want, "\n     "))
		}
	}
}
