package probes

import (
	"bytes"
	"embed"
	"errors"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"huatuo/internal/kern/load"
	"huatuo/internal/profile/frames"
)

// oldWalk is how many instructions the verifier of Linux 4.18 looks at before it
// gives up (BPF_COMPLEXITY_LIMIT_INSNS), on all ways through a program.
const oldWalk = 131_072

// testStateFreq is BPF_F_TEST_STATE_FREQ: keep a state at each place where one
// may be compared, as verifiers did before v5.4.
const testStateFreq = 1 << 3

// TestKernelLegacyWalk loads each legacy program such that this kernel's verifier
// works like an old one, and counts: it must stay below half of the limit of
// 4.18. As the body of a subprogram Linux 5.3 … 6.2 gives up on telling precise
// values from others, which older ones cannot, so that the count of 5.10 and 6.1
// (make vmtest) is the one that tells; newer ones walk less.
func TestKernelLegacyWalk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to load BPF: run `make ktest` as root")
	}
	k, err := load.Open(load.Options{Flavour: load.Legacy})
	if err != nil {
		t.Fatal(err)
	}
	if k.Types() == nil {
		t.Skip("needs a kernel with BTF: any of Debian's")
	}
	walkAll(t, k.Types())
}

// TestKernelOldTypes does the same as if this kernel had the types of Linux
// 4.18: what a program reads must be there, under the name and in the kind of
// member that it had then. Where the programs read does not matter to this
// kernel's verifier, since they are not attached.
func TestKernelOldTypes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to load BPF: run `make ktest` as root")
	}
	types, err := btf.LoadSpecFromReader(bytes.NewReader(oldTypes))
	if err != nil {
		t.Fatal(err)
	}
	walkAll(t, types)
}

//go:generate clang-19 -target bpf -g -O2 -c testdata/linux-4.18.c -o testdata/linux-4.18.o
//go:generate llvm-strip-19 -g testdata/linux-4.18.o

//go:embed testdata/linux-4.18.o
var oldTypes []byte

func walkAll(t *testing.T, types *btf.Spec) {
	for name, spec := range objects(t, "bpflegacy_bpfel.o") {
		if err := load.InlineConstants(spec); err != nil {
			t.Fatal(err)
		}
		for _, p := range sorted(spec.Programs) {
			t.Run(name+"/"+p, func(t *testing.T) { walk(t, spec, p, types) })
		}
	}
}

func walk(t *testing.T, spec *ebpf.CollectionSpec, name string, types *btf.Spec) {
	one := *spec.Copy()
	one.Programs = map[string]*ebpf.ProgramSpec{name: asSubprogram(one.Programs[name])}
	var o ebpf.CollectionOptions
	o.Programs.LogLevel = ebpf.LogLevelStats
	o.Programs.KernelTypes = types
	c, err := ebpf.NewCollectionWithOptions(&one, o)
	if errors.Is(err, btf.ErrNotFound) || errors.Is(err, unix.ENOENT) {
		t.Skipf("this kernel has not what it reads: %v", err)
	}
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) {
		o.Programs.LogLevel = ebpf.LogLevelBranch
		if again, err := ebpf.NewCollectionWithOptions(&one, o); err == nil {
			again.Close()
		} else if errors.As(err, &refused) && len(refused.Log) > 40 {
			refused.Log = refused.Log[len(refused.Log)-40:]
		}
		t.Fatalf("%+v\nnot among the types: %q", refused, unresolved(one.Programs[name], types))
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := regexp.MustCompile(`processed (\d+) insns`).FindStringSubmatch(c.Programs[name].VerifierLog)
	if m == nil {
		t.Fatalf("no count in the log: %s", c.Programs[name].VerifierLog)
	}
	checkStack(t, c.Programs[name].VerifierLog)
	n, _ := strconv.Atoi(m[1])
	t.Logf("%d instructions walked", n)
	if n > oldWalk/2 {
		t.Errorf("the verifier walked %d instructions: more than half of what Linux 4.18 allows", n)
	}
}

// unresolved lists the members that a program reads and the types have not; a
// program may ask whether they are there, and then read others.
func unresolved(p *ebpf.ProgramSpec, types *btf.Spec) (out []string) {
	for i := range p.Instructions {
		ins := p.Instructions[i]
		r := btf.CORERelocationMetadata(&ins)
		if r == nil {
			continue
		}
		fixups, err := btf.CORERelocate([]*btf.CORERelocation{r}, []*btf.Spec{types}, p.ByteOrder, func(btf.Type) (btf.TypeID, error) { return 0, nil })
		if err == nil {
			err = fixups[0].Apply(&ins)
		}
		// One that cannot be resolved becomes a call of a function that there is not.
		if (err != nil || ins.OpCode.JumpOp() == asm.Call) && !slices.Contains(out, r.String()) {
			out = append(out, r.String())
		}
	}
	return out
}

// asSubprogram makes p a program that does nothing but call what it was.
func asSubprogram(p *ebpf.ProgramSpec) *ebpf.ProgramSpec {
	p = p.Copy()
	body := slices.Clone(p.Instructions)
	call := asm.Call.Label("body").WithSymbol(p.Name).WithSource(body[0].Source())
	body[0] = body[0].WithSymbol("body")
	if f := btf.FuncMetadata(&body[0]); f != nil {
		static := *f // a global one would be verified on its own
		static.Linkage = btf.StaticFunc
		call = btf.WithFuncMetadata(call, f)
		body[0] = btf.WithFuncMetadata(body[0], &static)
	}
	p.Instructions = append(asm.Instructions{call, asm.Return()}, body...)
	p.Flags |= testStateFreq
	return p
}

//go:embed */*_bpfel.o
var objectFiles embed.FS // in the test binary: make vmtest runs it where there is no tree

// objects reads the BPF object of this name of each probe that has it, and that
// of the profiler.
func objects(t *testing.T, file string) map[string]*ebpf.CollectionSpec {
	t.Helper()
	paths, err := fs.Glob(objectFiles, "*/"+file)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no %s: %v", file, err)
	}
	all := map[string]*ebpf.CollectionSpec{}
	for _, p := range paths {
		b, err := objectFiles.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		spec, err := ebpf.LoadCollectionSpecFromReader(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("read %s: %v", p, err)
		}
		all[path.Dir(p)] = spec
	}
	flavour := load.Modern
	if strings.Contains(file, "legacy") {
		flavour = load.Legacy
	}
	spec, err := frames.Object(flavour)
	if err != nil {
		t.Fatal(err)
	}
	all["profile/frames"] = spec
	return all
}

func sorted[T any](m map[string]T) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// checkStack holds a program and the largest of its functions to the 512 bytes
// that kernels before 6.13 have for all of a chain of calls, in steps of 32. Newer
// ones have a stack for each, and do not complain.
func checkStack(t *testing.T, log string) {
	t.Helper()
	m := regexp.MustCompile(`stack depth ([\d+]+)`).FindStringSubmatch(log)
	if m == nil {
		return // Linux 7.3 tells it in another form; the older ones hold it down
	}
	var own, most int
	for i, d := range strings.Split(m[1], "+") {
		n, _ := strconv.Atoi(d)
		n = (max(n, 1) + 31) / 32 * 32
		if i < 2 { // the wrapper of asSubprogram, and the program
			own += n
		} else {
			most = max(most, n)
		}
	}
	if own+most > 512 {
		t.Errorf("stack %s: %d bytes with one call, 512 are allowed", m[1], own+most)
	}
}
