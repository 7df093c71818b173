package symbol

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestPerfMap(t *testing.T) {
	b, err := os.ReadFile("testdata/perf-python.map")
	if err != nil {
		t.Fatal(err)
	}
	var p perfMap
	if err := p.update(bytes.NewReader(b), fileKey{inode: 1, size: int64(len(b))}); err != nil {
		t.Fatal(err)
	}
	p.at, p.why = time.Now(), noPerfEntry
	for addr, want := range map[uint64]string{
		0x7f0a4c000000: "py::<module>:/srv/app.py",
		0x7f0a4c00000a: "py::<module>:/srv/app.py",
		0x7f0a4c00000b: "py::handle again:/srv/app.py", // the place was used again
		0x7f0a4c000020: "py::render page:/srv/app.py",
		0x7f0a4c000021: "",
		0x7f0a4c000044: "outer stub",
		0x7f0a4c00004c: "inner stub",
		0x7f0a4c000050: "outer stub",
		0x7f0a4c000100: "",
		0x7f0a4c000305: "",
		0:              "",
		^uint64(0):     "",
	} {
		if got, why := p.find(addr); got != want || (why == named) != (want != "") {
			t.Errorf("find(%#x) = %q, %s; want %q", addr, got, why, want)
		}
	}
	// What is appended is read, an unfinished line not before it is finished.
	more := string(b) + "7f0a4c001000 10 later\n7f0a4c002000 10 unfin"
	update := func(s string, inode uint64) {
		t.Helper()
		if err := p.update(strings.NewReader(s), fileKey{inode: inode, size: int64(len(s))}); err != nil {
			t.Fatal(err)
		}
	}
	update(more, 1)
	if got, _ := p.find(0x7f0a4c001004); got != "later" {
		t.Errorf("appended: %q", got)
	}
	update(more+"ished\n", 1)
	if got, _ := p.find(0x7f0a4c002004); got != "unfinished" {
		t.Errorf("finished: %q", got)
	}
	update("1000 10 other\n", 2)
	if got, _ := p.find(0x7f0a4c001004); got != "" {
		t.Errorf("of the file before: %q", got)
	}
	if got, _ := p.find(0x1001); got != "other" {
		t.Errorf("of the new file: %q", got)
	}
}

func TestPerfMapTooLarge(t *testing.T) {
	var b bytes.Buffer
	for i := range 100_000 {
		fmt.Fprintf(&b, "%x 10 %0100d\n", 0x1000+i*16, i)
	}
	var p perfMap
	key := fileKey{inode: 1, size: int64(b.Len())}
	for range 3 {
		if err := p.update(bytes.NewReader(b.Bytes()), key); err != errTooLarge {
			t.Fatalf("update: %v", err)
		}
		if n := p.bytes(); n > 3*perfMapBytes {
			t.Fatalf("%d bytes", n)
		}
	}
	if _, why := p.find(0x1000); why != named {
		t.Errorf("what fits is not there: %s", why)
	}
}

// TestUserPerfMap writes the map of a live process, as its runtime would.
func TestUserPerfMap(t *testing.T) {
	tg := startTarget(t)
	path := fmt.Sprintf("/tmp/perf-%d.map", tg.pid)
	t.Cleanup(func() { os.Remove(path) })
	jit := tg.addrs["jit"]
	write(t, path, "%x 10 JS:*first /srv/app.js:1:2\n", jit)
	r := newResolver()
	ips := []uint64{jit + 8, jit + 0x20}
	f := r.User(tg.pid, 0, ips)
	if f[0].Function != "JS:*first /srv/app.js:1:2" || f[0].Module != "[jit]" || f[0].Missing != "" {
		t.Errorf("in the map: %+v", f[0])
	}
	if f[1].Function != Unknown || f[1].Missing != "not in the perf map" || f[1].Module != "[anon]" {
		t.Errorf("not in the map: %+v", f[1])
	}
	write(t, path, "%x 10 JS:*first /srv/app.js:1:2\n%x 10 second\n", jit, jit+0x18)
	p := r.processes.get(processKey{tg.pid, must(t)(r.startTime(tg.pid))}, false)
	p.perf.at = time.Now().Add(-perfMapFor)
	if f := r.User(tg.pid, 0, ips); f[1].Function != "second" {
		t.Errorf("compiled later: %+v", f[1])
	}
	tg.stop()
	p.perf.at = time.Now().Add(-perfMapFor)
	if f := r.User(tg.pid, p.key.start, []uint64{jit + 0x20, jit + 0x80}); f[0].Function != "second" || f[1].Missing != "not in the perf map" {
		t.Errorf("after the end: %+v", f)
	}
}

// TestPerfMapNotTrusted plants maps that the process did not write.
func TestPerfMapNotTrusted(t *testing.T) {
	needRoot(t)
	tg := startTarget(t)
	path := fmt.Sprintf("/tmp/perf-%d.map", tg.pid)
	real := filepath.Join(t.TempDir(), "map")
	write(t, real, "%x 10 planted\n", tg.addrs["jit"])
	for name, plant := range map[string]func() error{
		"link":          func() error { return os.Symlink(real, path) },
		"of other user": func() error { write(t, path, "%x 10 planted\n", tg.addrs["jit"]); return os.Chown(path, 12345, 0) },
		"fifo":          func() error { return syscall.Mkfifo(path, 0o644) },
		"directory":     func() error { return os.Mkdir(path, 0o755) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Cleanup(func() { os.Remove(path) })
			if err := plant(); err != nil {
				t.Fatal(err)
			}
			if f := one(t, newResolver(), tg.pid, tg.addrs["jit"]); f.Missing != "generated code without a perf map" {
				t.Errorf("%+v", f)
			}
		})
	}
}

// TestPerfMapInPidNamespace names the map by the id that the process knows.
func TestPerfMapInPidNamespace(t *testing.T) {
	needRoot(t)
	tg := start(t, namespaces(exec.Command(compileTarget(t)), syscall.CLONE_NEWPID))
	if tg.addrs["pid"] != 1 {
		t.Fatalf("the target has id %d", tg.addrs["pid"])
	}
	path := "/tmp/perf-1.map"
	if _, err := os.Lstat(path); err == nil {
		t.Skipf("remove %s to run this test", path)
	}
	t.Cleanup(func() { os.Remove(path) })
	write(t, path, "%x 10 inside\n", tg.addrs["jit"])
	if f := one(t, newResolver(), tg.pid, tg.addrs["jit"]); f.Function != "inside" {
		t.Errorf("%+v", f)
	}
}

func FuzzPerfMap(f *testing.F) {
	b, err := os.ReadFile("testdata/perf-python.map")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b, uint64(0x7f0a4c000000))
	f.Fuzz(func(t *testing.T, b []byte, pc uint64) {
		var p perfMap
		if err := p.update(bytes.NewReader(b), fileKey{size: int64(len(b))}); err != nil {
			t.Fatal(err)
		}
		p.find(pc)
		for i, e := range p.entries {
			if i > 0 && p.entries[i-1].addr >= e.addr {
				t.Fatalf("entry %d out of order", i)
			}
			if name, why := p.find(e.addr); why != named || name == "" {
				t.Fatalf("entry %d not found: %q %s", i, name, why)
			}
		}
	})
}
