package symbol

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"huatuo/internal/signal"
)

// split is a program whose symbols were taken off, and they.
type split struct {
	exe, debug string
	buildID    string
	dir        string
}

// splitTarget compiles testdata/inlined.c without any name but those of the C
// library, and takes the debug symbols off.
func splitTarget(t *testing.T, link bool, args ...string) split {
	t.Helper()
	for _, tool := range []string{"objcopy", "strip"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s: install binutils", tool)
		}
	}
	exe := compile(t, "gcc", "testdata/inlined.c", append([]string{"-O2", "-g", "-Wl,--build-id"}, args...)...)
	s := split{exe: exe, debug: exe + ".debug", dir: filepath.Dir(exe)}
	tool(t, "objcopy", "--only-keep-debug", s.exe, s.debug)
	tool(t, "strip", "--strip-all", s.exe)
	if link {
		tool(t, "objcopy", "--add-gnu-debuglink="+s.debug, s.exe)
	}
	f, err := os.Open(s.exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s.buildID = loadObject(f, 1<<20, nil).buildID
	if len(s.buildID) != 40 {
		t.Fatalf("build id %q", s.buildID)
	}
	return s
}

func tool(t *testing.T, args ...string) {
	t.Helper()
	if b, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, b)
	}
}

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// below returns the Options for a host whose files are below a directory.
func below(t *testing.T) (root string, o Options) {
	t.Helper()
	root = t.TempDir()
	if err := os.Symlink("/proc", filepath.Join(root, "proc")); err != nil {
		t.Fatal(err)
	}
	return root, Options{Proc: filepath.Join(root, "proc"), Wait: 10 * time.Second}
}

func (s split) buildPath(root string) string {
	return filepath.Join(root, "usr/lib/debug/.build-id", s.buildID[:2], s.buildID[2:]+".debug")
}

// TestDebugFile puts the debug symbols wherever they may be.
func TestDebugFile(t *testing.T) {
	for _, tt := range []struct {
		name string
		put  func(t *testing.T, s split, root string)
		want bool
	}{
		{"beside it", func(*testing.T, split, string) {}, true},
		{"in .debug", func(t *testing.T, s split, _ string) {
			move(t, s.debug, filepath.Join(s.dir, ".debug", filepath.Base(s.debug)))
		}, true},
		{"in the tree of debug symbols", func(t *testing.T, s split, root string) {
			move(t, s.debug, filepath.Join(root, "usr/lib/debug", s.dir, filepath.Base(s.debug)))
		}, true},
		{"by build id", func(t *testing.T, s split, root string) { move(t, s.debug, s.buildPath(root)) }, true},
		{"by build id, through a link", func(t *testing.T, s split, root string) {
			move(t, s.debug, filepath.Join(root, "elsewhere/x.debug"))
			if err := os.MkdirAll(filepath.Dir(s.buildPath(root)), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.Symlink("/elsewhere/x.debug", s.buildPath(root)); err != nil {
				t.Fatal(err)
			}
		}, true},
		{"of another checksum", func(t *testing.T, s split, _ string) {
			f, err := os.OpenFile(s.debug, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.WriteString("x") //nolint:errcheck // the test fails without
			f.Close()
		}, false},
		{"of another build id", func(t *testing.T, s split, root string) {
			other := compile(t, "gcc", "testdata/inlined.c", "-O1", "-g", "-Wl,--build-id")
			os.Remove(s.debug) //nolint:errcheck // the test fails if it is still there
			move(t, other, s.buildPath(root))
		}, false},
		{"nowhere", func(t *testing.T, s split, _ string) { os.Remove(s.debug) }, false}, //nolint:errcheck // likewise
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := splitTarget(t, true)
			root, o := below(t)
			tt.put(t, s, root)
			tg := start(t, exec.Command(s.exe))
			got := New(o).User(tg.pid, 0, []uint64{tg.addrs["here"]})
			if tt.want {
				if brief(got) != inlinedC {
					t.Errorf("got\n%s", brief(got))
				}
				return
			}
			want := signal.Frame{Function: Unknown, Module: s.exe, Offset: got[0].Offset, Missing: got[0].Missing, BuildID: s.buildID}
			if len(got) != 1 || got[0] != want || got[0].Offset == 0 || got[0].Missing != "no symbols in file" {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// TestDebugFileInContainer: the debug symbols are where only the process' mount
// namespace has them.
func TestDebugFileInContainer(t *testing.T) {
	needRoot(t)
	s := splitTarget(t, false)
	const tree = "/usr/lib/debug"
	if err := os.Mkdir(tree, 0o755); err == nil {
		t.Cleanup(func() { os.Remove(tree) })
	} else if !os.IsExist(err) {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `mount --make-rprivate / && mount -t tmpfs none /usr/lib/debug && mkdir -p $(dirname $TO) && cp $FROM $TO && exec $EXE`)
	cmd.Env = append(os.Environ(), "TO="+s.buildPath("/"), "FROM="+s.debug, "EXE="+s.exe)
	tg := start(t, namespaces(cmd, syscall.CLONE_NEWNS))
	if err := os.Remove(s.debug); err != nil {
		t.Fatal(err)
	}
	if got := newResolver().User(tg.pid, 0, []uint64{tg.addrs["here"]}); brief(got) != inlinedC {
		t.Errorf("got\n%s", brief(got))
	}
	p := newResolver().Program(0, mappingOf(t, tg, tg.addrs["here"]))
	var got []signal.Frame
	waitFor(t, func() (ready bool) { got, ready = p.Find(linked(t, s.exe, tg)); return ready })
	if brief(got) != inlinedC {
		t.Errorf("the profiler gets\n%s", brief(got))
	}
}

// linked returns the linked address of what the target printed.
func linked(t *testing.T, exe string, tg *target) uint64 {
	t.Helper()
	f, err := os.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := os.ReadFile("/proc/" + itoa(tg.pid) + "/maps")
	if err != nil {
		t.Fatal(err)
	}
	maps, err := parseMaps(bytes.NewReader(m), newImage)
	if err != nil {
		t.Fatal(err)
	}
	here := tg.addrs["here"]
	sp := &space{maps: maps}
	at := sp.find(here)
	v, ok := loadObject(f, 1<<20, nil).vaddr(here - at.start + at.offset)
	if !ok {
		t.Fatal("not mapped")
	}
	return v
}

// TestOutOfRoot: a link in a container does not lead out of it.
func TestOutOfRoot(t *testing.T) {
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "secret"), "x")
	for name, to := range map[string]string{"up": "../secret", "far": filepath.Join(dir, "secret"), "magic": "/proc/self/root" + dir + "/secret"} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
		if f := openIn(root, name); f != nil {
			f.Close()
			t.Errorf("%s leads to %s", name, to)
		}
	}
	write(t, filepath.Join(root, "own"), "x")
	f := openIn(root, "own")
	if f == nil {
		t.Fatal("its own file is not found")
	}
	f.Close()
	if err := syscall.Mkfifo(filepath.Join(root, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if f := openIn(root, "fifo"); f != nil {
		t.Error("a FIFO was opened")
	}
}

// TestMiniDebugInfo packs symbols into the file as distributions do.
func TestMiniDebugInfo(t *testing.T) {
	if _, err := exec.LookPath("xz"); err != nil {
		t.Skip("needs xz: install xz-utils")
	}
	for _, tt := range []struct {
		name string
		xz   []string
	}{
		{"as distributions do", nil},
		{"checksum of 4 bytes", []string{"-C", "crc32"}},
		{"checksum of 32 bytes", []string{"-C", "sha256"}},
		{"none", []string{"-C", "none"}},
		{"several blocks with sizes", []string{"-T2", "--block-size=4096"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := splitTarget(t, false)
			mini := filepath.Join(s.dir, "mini")
			tool(t, "objcopy", "-S", "--keep-symbol=outer", "--keep-symbol=main", s.debug, mini)
			tool(t, append(append([]string{"xz", "-k"}, tt.xz...), mini)...)
			tool(t, "objcopy", "--add-section", ".gnu_debugdata="+mini+".xz", s.exe)
			if err := os.Remove(s.debug); err != nil {
				t.Fatal(err)
			}
			tg := start(t, exec.Command(s.exe))
			if got := newResolver().User(tg.pid, 0, []uint64{tg.addrs["here"]}); brief(got) != "outer .:0\n" {
				t.Errorf("got\n%s%+v", brief(got), got)
			}
		})
	}
}
