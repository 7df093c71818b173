package symbol

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"huatuo/internal/signal"
)

func TestUserC(t *testing.T) {
	for _, tt := range []struct {
		name  string
		flags []string
		// what the local function is; empty: its name
		local string
	}{
		{"position independent", []string{"-fpie", "-pie"}, ""},
		{"fixed address", []string{"-fno-pie", "-no-pie"}, ""},
		{"stripped, dynamic symbols", []string{"-s", "-rdynamic"}, "no symbol covers it"},
		{"large pages, odd segments", []string{"-Wl,-z,max-page-size=0x200000", "-Wl,-z,noseparate-code"}, ""},
		{"frame of another base", []string{"-no-pie", "-fno-pie", "-Wl,-Ttext-segment=0x10000000"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tg := startTarget(t, tt.flags...)
			r := newResolver()
			for _, name := range []string{"exported_function", "aliased_function", "puts"} {
				if name == "puts" && slices.Contains(tt.flags, "-no-pie") {
					continue // there its address is that of a stub in .plt
				}
				f := one(t, r, tg.pid, tg.addrs[name]+1)
				if f.Function != name || f.Missing != "" || f.Offset != 0 || !strings.HasPrefix(f.Module, "/") {
					t.Errorf("%s is %+v", name, f)
				}
			}
			f := one(t, r, tg.pid, tg.addrs["local_function"])
			if tt.local == "" && f.Function != "local_function" {
				t.Errorf("local function is %+v", f)
			}
			if tt.local != "" && (f.Function != Unknown || f.Missing != tt.local || f.Offset == 0) {
				t.Errorf("local function is %+v, want %s", f, tt.local)
			}
		})
	}
}

// TestStub takes the address of a stub that no symbol covers, behind one
// without a size (_init) that ends with its section.
func TestStub(t *testing.T) {
	tg := startTarget(t, "-no-pie", "-fno-pie")
	if f := one(t, newResolver(), tg.pid, tg.addrs["puts"]); f.Missing != "no symbol covers it" {
		t.Errorf("stub in .plt: %+v", f)
	}
}

func TestUserStripped(t *testing.T) {
	tg := startTarget(t, "-s", "-no-pie", "-fno-pie", "-static")
	r := newResolver()
	got := one(t, r, tg.pid, tg.addrs["exported_function"])
	if got.Function != Unknown || got.Missing != "no symbols in file" || got.Offset == 0 || filepath.Base(got.Module) != "target" {
		t.Errorf("stripped: %+v", got)
	}
	if s := r.Stats(); s.Missing["no symbols in file"] != 1 || s.Named != 0 {
		t.Errorf("counted %+v", s)
	}
}

// TestReturnAddress looks up a return address that is the next function's
// first byte.
func TestReturnAddress(t *testing.T) {
	tg := startTarget(t)
	if tg.addrs["return_address"] != tg.addrs["function_after"] {
		t.Skipf("the compiler put something between the functions: %x", tg.addrs)
	}
	ret := tg.addrs["return_address"]
	frames := newResolver().User(tg.pid, 0, []uint64{ret, ret})
	got := []string{frames[0].Function, frames[1].Function}
	if d := cmp.Diff([]string{"function_after", "caller_of_noreturn"}, got); d != "" {
		t.Error(d)
	}
}

func TestUserElsewhere(t *testing.T) {
	tg := startTarget(t)
	r := newResolver()
	for name, want := range map[string]signal.Frame{
		"data": {Function: Unknown, Missing: "not mapped as code"},
		"jit":  {Function: Unknown, Module: "[anon]", Missing: "generated code without a perf map"},
	} {
		if d := cmp.Diff(want, one(t, r, tg.pid, tg.addrs[name])); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	if f := r.User(tg.pid, 0, []uint64{0, ^uint64(0)}); f[0].Missing != "not mapped as code" || f[1].Missing != "not mapped as code" {
		t.Errorf("wild addresses: %+v", f)
	}
	if f := r.User(1<<30, 0, []uint64{1}); f[0].Missing != "process gone" {
		t.Errorf("no such process: %+v", f)
	}
	if f := r.User(tg.pid, 1, []uint64{tg.addrs["puts"]}); f[0].Missing != "process gone" {
		t.Errorf("another process of the same id: %+v", f)
	}
	if f := r.User(tg.pid, 0, nil); f != nil {
		t.Errorf("empty stack: %+v", f)
	}
}

func TestVDSO(t *testing.T) {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	maps, err := parseMaps(f, newImage)
	if err != nil {
		t.Fatal(err)
	}
	r := newResolver()
	for _, m := range maps {
		if m.image.kind != vdsoPage {
			continue
		}
		res := r.vdso.object(m.end - m.start)
		if res.object == nil || res.object.syms == nil {
			t.Fatalf("vDSO: %+v", res)
		}
		s := res.object.syms
		last := s.base + uint64(s.syms[len(s.syms)-1].addr)
		got := one(t, r, uint32(os.Getpid()), m.start+last)
		if got.Function == Unknown || got.Module != "[vdso]" {
			t.Errorf("vDSO function is %+v", got)
		}
		if res := r.vdso.object(4096 * 77); res.why != otherABI {
			t.Errorf("vDSO of another size: %+v", res)
		}
		return
	}
	t.Skip("this kernel maps no vDSO")
}

func TestDeletedProgram(t *testing.T) {
	needRoot(t)
	exe := compileTarget(t)
	tg := start(t, exec.Command(exe))
	if err := os.Remove(exe); err != nil {
		t.Fatal(err)
	}
	write(t, exe, "another file of the same name")
	got := one(t, newResolver(), tg.pid, tg.addrs["exported_function"])
	if got.Function != "exported_function" || got.Module != exe {
		t.Errorf("deleted program: %+v", got)
	}
}

func TestRememberedProcess(t *testing.T) {
	exe := compileTarget(t)
	tg := start(t, exec.Command(exe))
	r := newResolver()
	began, err := r.startTime(tg.pid)
	if err != nil {
		t.Fatal(err)
	}
	r.Remember(tg.pid)
	waitFor(t, func() bool { s := r.Stats(); return s.Files >= 3 })
	tg.stop()
	if err := os.Rename(exe, exe+".moved"); err != nil {
		t.Fatal(err)
	}
	for _, st := range []uint64{began, 0} {
		f := r.User(tg.pid, st, []uint64{tg.addrs["exported_function"], tg.addrs["puts"] + 1})
		if f[0].Function != "exported_function" || f[1].Function != "puts" {
			t.Errorf("start %d: %+v", st, f)
		}
	}
	if f := r.User(tg.pid, began+1, []uint64{tg.addrs["puts"]}); f[0].Missing != "process gone" {
		t.Errorf("a later process of the id: %+v", f)
	}
}

func TestEndedProcess(t *testing.T) {
	exe := compileTarget(t)
	t.Run("seen, symbols not read yet", func(t *testing.T) {
		tg := start(t, exec.Command(exe))
		r := newResolver()
		one(t, r, tg.pid, tg.addrs["jit"]) // reads the maps alone
		tg.stop()
		if f := one(t, r, tg.pid, tg.addrs["exported_function"]); f.Function != "exported_function" {
			t.Errorf("from the host's file: %+v", f)
		}
	})
	t.Run("seen, file replaced", func(t *testing.T) {
		tg := start(t, exec.Command(exe))
		r := newResolver()
		one(t, r, tg.pid, tg.addrs["jit"])
		tg.stop()
		b, err := os.ReadFile(exe)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(exe, exe+".old"); err != nil { // keeps the inode in use
			t.Fatal(err)
		}
		if err := os.WriteFile(exe, b, 0o755); err != nil {
			t.Fatal(err)
		}
		f := one(t, r, tg.pid, tg.addrs["exported_function"])
		if f.Function != Unknown || f.Missing != "file gone" || f.Offset == 0 && f.Module != exe {
			t.Errorf("from another file: %+v", f)
		}
	})
	t.Run("never seen", func(t *testing.T) {
		tg := start(t, exec.Command(exe))
		tg.stop()
		if f := one(t, newResolver(), tg.pid, tg.addrs["exported_function"]); f.Missing != "process gone" {
			t.Errorf("never seen: %+v", f)
		}
	})
}

// TestContainer runs the target from a file system that only its mount
// namespace has.
func TestContainer(t *testing.T) {
	needRoot(t)
	for name, mount := range map[string]string{
		"tmpfs":   "mount -t tmpfs none $D/m && cp $D/target $D/m/inside",
		"overlay": "mount -t tmpfs none $D/m && mkdir $D/m/l $D/m/u $D/m/w $D/m/o && cp $D/target $D/m/l/inside && mount -t overlay -o lowerdir=$D/m/l,upperdir=$D/m/u,workdir=$D/m/w none $D/m/o && cd $D/m/o",
	} {
		t.Run(name, func(t *testing.T) {
			exe := compileTarget(t)
			dir := filepath.Dir(exe)
			if err := os.Mkdir(filepath.Join(dir, "m"), 0o755); err != nil {
				t.Fatal(err)
			}
			at := "$D/m"
			if name == "overlay" {
				at = "$D/m/o"
			}
			cmd := exec.Command("sh", "-c", "mount --make-rprivate / && "+mount+" && exec "+at+"/inside")
			cmd.Env = append(os.Environ(), "D="+dir)
			tg := start(t, namespaces(cmd, syscall.CLONE_NEWNS))
			r := newResolver()
			got := one(t, r, tg.pid, tg.addrs["local_function"])
			if got.Function != "local_function" || filepath.Base(got.Module) != "inside" {
				t.Errorf("program in a container: %+v", got)
			}
			// Without map_files it is found below the root of the process.
			p := r.processes.get(processKey{tg.pid, must(t)(r.startTime(tg.pid))}, false)
			m := p.space.find(tg.addrs["local_function"])
			f, _, why := openBelow(r.path(tg.pid, "root"), m.image.key, false)
			if why != named {
				t.Fatalf("below the root: %s", why)
			}
			f.Close()
			if _, _, why := openBelow("/", m.image.key, true); why != fileGone {
				t.Errorf("on the host: %s", why)
			}
		})
	}
}

// TestExec replaces all that a process maps, as exec does.
func TestExec(t *testing.T) {
	exe := compileTarget(t)
	// The shell becomes the target: same process, other maps.
	cmd := exec.Command("sh", "-c", "read line; exec "+exe)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() }) //nolint:errcheck // it ends with its input
	r := newResolver()
	pid := uint32(cmd.Process.Pid)
	began := must(t)(r.startTime(pid))
	r.User(pid, began, []uint64{1})
	p := r.processes.get(processKey{pid, began}, false)
	if p == nil || p.space == nil {
		t.Fatal("the shell's maps were not read")
	}
	if _, err := in.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		now, err := os.Readlink(r.path(pid, "exe"))
		return err == nil && now == exe
	})
	for range 20 { // a busy machine may not read the maps within the time that User waits
		time.Sleep(2 * missFor)
		r.User(pid, began, []uint64{1})
		for k := range p.images {
			if k.path.Value() == exe {
				return
			}
		}
	}
	t.Errorf("maps are still the shell's")
}

func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	for range 1000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("waited 10 s in vain")
}

func must(t testing.TB) func(uint64, error) uint64 {
	return func(v uint64, err error) uint64 {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
