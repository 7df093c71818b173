package profiles

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"huatuo/internal/signal"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		childAdds(dir)
	}
	os.Exit(m.Run())
}

// hour0 is the beginning of an hour.
var hour0 = time.UnixMilli(1_700_000_000_000).UTC().Truncate(time.Hour)

// fill adds a sample of each of two stacks, of two threads, each ten seconds for
// some hours.
func fill(t *testing.T, s *Store, clock *time.Time, hours int) {
	t.Helper()
	a, b := stackOf("spin", "heavy", "main"), stackOf("light", "main")
	for sec := 0; sec < hours*3600; sec += 10 {
		*clock = hour0.Add(time.Duration(sec) * time.Second)
		x := sample(*clock, "p", 3, a)
		x.TID = 8
		s.Add(x)
		x = sample(clock.Add(7*time.Millisecond), "q", 5, b)
		x.TID, x.Labels.PID = 9, 9
		s.Add(x)
		if sec%200 == 190 {
			s.Flush()
		}
	}
	s.Flush()
}

// TestSeal: sealed segments answer as they did before, the sums are taken where
// they do, and they stay when the samples are gone.
func TestSeal(t *testing.T) {
	clock := hour0
	s := open(t, Options{Now: func() time.Time { return clock }})
	fill(t, s, &clock, 4)
	queries := map[string]signal.ProfileQuery{
		"all":       {From: hour0, To: hour0.Add(5 * time.Hour)},
		"not whole": {From: hour0.Add(30 * time.Minute), To: hour0.Add(170 * time.Minute)},
		"second":    {From: hour0.Add(10 * time.Second), To: hour0.Add(11 * time.Second)},
		"pid":       {From: hour0, To: hour0.Add(5 * time.Hour), PID: 9},
		"tid":       {From: hour0, To: hour0.Add(5 * time.Hour), TID: 8},
		"process":   {From: hour0, To: hour0.Add(5 * time.Hour), Labels: map[string][]string{"process": {"p"}}},
		"column": {From: hour0, To: hour0.Add(5 * time.Hour), Columns: []signal.Range{
			{From: hour0.Add(time.Hour), To: hour0.Add(time.Hour + time.Millisecond)}}},
	}
	ask := func(q signal.ProfileQuery) string {
		t.Helper()
		q.Type = "cpu"
		g, err := s.Flame(t.Context(), q, 0)
		if err != nil {
			t.Fatal(err)
		}
		series, err := s.Series(t.Context(), q, []string{"process", "container"})
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(show(g), g.Total, g.Samples, g.Squares, g.Unit, series)
	}
	heat := func() string {
		t.Helper()
		h, err := s.Heat(t.Context(), signal.ProfileQuery{Type: "cpu", From: hour0.Add(time.Hour), To: hour0.Add(time.Hour + time.Second)}, 5*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(h)
	}
	before, heatBefore := map[string]string{}, heat()
	for name, q := range queries {
		before[name] = ask(q)
	}
	clock = hour0.Add(4 * time.Hour) // the last segment is over, too
	if err := s.sealAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := s.list(suffix); err != nil || len(left) != 0 {
		t.Fatalf("not sealed: %v, %v", left, err)
	}
	for name, q := range queries {
		if got := ask(q); got != before[name] {
			t.Errorf("%s: sealed %s\nbefore %s", name, got, before[name])
		}
	}
	if got := heat(); got != heatBefore {
		t.Errorf("heat: sealed %s, before %s", got, heatBefore)
	}
	plan, err := s.plan(queries["not whole"], false)
	taken := map[bool]int{}
	for _, src := range plan {
		taken[true] += len(src.sums)
		taken[false] += len(src.samples)
	}
	if err != nil || taken[true] != 1 || taken[false] != 2 {
		t.Errorf("plan %+v, %v: want one segment as sums and two as samples", plan, err)
	}

	samples, err := filepath.Glob(filepath.Join(s.o.Dir, "*"+samplesSuffix))
	if err != nil || len(samples) == 0 {
		t.Fatal(samples, err)
	}
	kept := map[string][]byte{}
	for _, f := range samples {
		if kept[f], err = os.ReadFile(f); err != nil {
			t.Fatal(err)
		}
	}
	all := s.Stats().Bytes
	s.o.MaxBytes = 1
	if err := s.retain(); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.Bytes != 0 || st.HoursBytes == 0 || st.HoursBytes > all {
		t.Errorf("of %d bytes of samples are left %+v", all, st)
	}
	for _, name := range []string{"all", "process"} {
		if got := ask(queries[name]); got != before[name] {
			t.Errorf("%s: sums %s\nbefore %s", name, got, before[name])
		}
	}
	for f, b := range kept { // a crash before they were removed
		if err := os.WriteFile(f, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name := range queries {
		if got := ask(queries[name]); got != before[name] {
			t.Errorf("%s: sums and samples %s\nbefore %s", name, got, before[name])
		}
	}
	if err := s.retain(); err != nil {
		t.Fatal(err)
	}
	if got := ask(queries["pid"]); !strings.Contains(got, "map[] 0 0") {
		t.Errorf("pid: %s of sums, which have none", got)
	}
	h, err := s.Heat(t.Context(), signal.ProfileQuery{Type: "cpu", From: hour0, To: hour0.Add(4 * time.Hour)}, 30*time.Minute)
	if want := fmt.Sprint([]int64{1440, 1440, 1440, 1440, 1440, 1440, 1440, 1440}); err != nil || fmt.Sprint(h) != want {
		t.Errorf("heat of sums %v, %v; want %s", h, err, want)
	}
}

// TestVersion1: a segment that version 1 wrote is read, and sealed.
func TestVersion1(t *testing.T) {
	dir := t.TempDir()
	b, err := os.ReadFile("testdata/1700000000000.profile")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "1700000000000.profile"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, Options{Dir: dir})
	q := signal.ProfileQuery{Type: "cpu", From: time.UnixMilli(1_699_999_000_000), To: time.UnixMilli(1_700_001_000_000)}
	for _, when := range []string{"as it was", "sealed"} {
		g, err := s.Flame(t.Context(), q, 0)
		want := map[string]int64{"main;f0": 5 * 52_631_579, "main;f1": 5 * 52_631_579, "main;f2": 5 * 52_631_579, "main;f3": 5 * 52_631_579}
		if err != nil || fmt.Sprint(show(g)) != fmt.Sprint(want) || g.Samples != 20 {
			t.Errorf("%s: %v, %d samples, %v", when, show(g), g.Samples, err)
		}
		off := q
		off.Type, off.PID = "offcpu.blocked", 7
		g, err = s.Flame(t.Context(), off, 0)
		if want := int64(20*20_000_000 + 190*1234567); err != nil || math.Abs(float64(g.Total-want)) > 0.005*float64(want) {
			t.Errorf("%s: off-CPU %d, %v; want %d", when, g.Total, err, want)
		}
		if err := s.sealAll(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "1700000000000.profile")); !os.IsNotExist(err) {
		t.Errorf("not sealed: %v", err)
	}
}

// TestSealCrash: whatever part of sealing was done, it is done once.
func TestSealCrash(t *testing.T) {
	clock := hour0
	s := open(t, Options{Now: func() time.Time { return clock }})
	fill(t, s, &clock, 1)
	clock = hour0.Add(time.Hour)
	files, err := s.list(suffix)
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	whole, err := os.ReadFile(files[0].path)
	if err != nil {
		t.Fatal(err)
	}
	s.end()
	q := signal.ProfileQuery{Type: "cpu", From: hour0, To: hour0.Add(time.Hour)}
	check := func(when string) {
		t.Helper()
		for _, pid := range []uint32{0, 7} {
			q.PID = pid
			g, err := s.Flame(t.Context(), q, 0)
			if want := int64(360*8 - int(pid)/7*360*5); err != nil || g.Total != want {
				t.Fatalf("%s, pid %d: %d, %v; want %d", when, pid, g.Total, err, want)
			}
		}
	}
	if err := s.sealAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("sealed")
	for _, sfx := range []string{samplesSuffix} {
		archives, err := s.list(sfx)
		if err != nil || len(archives) != 1 {
			t.Fatal(archives, err)
		}
		b, err := os.ReadFile(archives[0].path)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range []int{len(magic2), len(magic2) + 40, len(b) / 2, len(b) - 1, len(b)} { // cut off here by a crash, the segment still there
			if err := os.WriteFile(archives[0].path, b[:n], 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(files[0].path, whole, 0o600); err != nil {
				t.Fatal(err)
			}
			clear(s.archives)
			check(fmt.Sprintf("%s cut at %d of %d", sfx, n, len(b)))
			if err := s.sealAll(t.Context()); err != nil {
				t.Fatal(err)
			}
			check(fmt.Sprintf("%s cut at %d of %d and sealed again", sfx, n, len(b)))
			if again, err := os.ReadFile(archives[0].path); err != nil || len(again) != len(b) {
				t.Errorf("%s cut at %d: %d bytes after that, before %d, %v", sfx, n, len(again), len(b), err)
			}
		}
	}
}

// TestDamagedArchive: a segment of which a byte is wrong is not taken.
func TestDamagedArchive(t *testing.T) {
	clock := hour0
	s := open(t, Options{Now: func() time.Time { return clock }})
	fill(t, s, &clock, 1)
	clock = hour0.Add(time.Hour)
	if err := s.sealAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	files, err := s.list(samplesSuffix)
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	b, err := os.ReadFile(files[0].path)
	if err != nil {
		t.Fatal(err)
	}
	q := signal.ProfileQuery{Type: "cpu", From: hour0, To: hour0.Add(time.Hour)}
	for at := len(magic2); at < len(b); at += headerBytes + int(binary.LittleEndian.Uint32(b[at:])) {
		bad := bytes.Clone(b)
		bad[at+headerBytes+3] ^= 1
		if err := os.WriteFile(files[0].path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		clear(s.archives)
		if g, err := s.Flame(t.Context(), q, 0); err != nil || g.Total != 0 {
			t.Errorf("chunk at %d damaged: %+v, %v", at, g, err)
		}
	}
}

// childDir is set in a child of TestKill.
const childDir = "PROFILES_TEST_CHILD"

// childAdds adds samples, with a clock that runs through an hour in a few
// flushes, seals all the time, and says how many samples were written.
func childAdds(dir string) {
	fail := func(err error) { fmt.Println("error", err); os.Exit(1) }
	clock := time.Now()
	s, err := Open(Options{Dir: dir, Now: func() time.Time { return clock }})
	if err != nil {
		fail(err)
	}
	a := stackOf("spin", "main")
	for n := 0; ; n += 5 {
		clock = clock.Add(7 * time.Minute)
		for i := range 5 {
			s.Add(sample(clock.Add(time.Duration(i)*time.Second), fmt.Sprint("p", i), 1, a))
		}
		s.Flush()
		fmt.Println("written", n+5)
		if err := s.sealAll(context.Background()); err != nil {
			fail(err)
		}
	}
}

// TestKill kills a process with SIGKILL while it writes and seals, again and
// again on one directory, and counts the samples that it said were written.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	least, most := 0, 0
	for n := range 4 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		written := 0
		sc := bufio.NewScanner(out)
		for first := true; sc.Scan(); first = false {
			if first {
				time.AfterFunc(time.Duration(100+70*n)*time.Millisecond, func() { _ = cmd.Process.Kill() })
			}
			if _, err := fmt.Sscanf(sc.Text(), "written %d", &written); err != nil {
				t.Fatal(sc.Text())
			}
		}
		_ = cmd.Wait() // it was killed
		least, most = least+written, most+written+5
	}
	s := open(t, Options{Dir: dir})
	q := signal.ProfileQuery{Type: "cpu", From: time.Now().Add(-time.Hour), To: time.Now().Add(10_000 * time.Hour)}
	for _, when := range []string{"as they were left", "sealed"} {
		for _, pid := range []uint32{0, 7} { // sums, and samples
			q.PID = pid
			g, err := s.Flame(t.Context(), q, 0)
			if err != nil || g.Samples < int64(least) || g.Samples > int64(most) {
				t.Errorf("%s, pid %d: %d samples, %v; want %d to %d", when, pid, g.Samples, err, least, most)
			}
		}
		if err := s.sealAll(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := s.list(suffix); err != nil || len(left) != 0 || least == 0 {
		t.Errorf("%d samples, left %v, %v", least, left, err)
	}
}

// TestValues: values are kept exactly when they are small or frequent, and to
// 0.8 per cent otherwise.
func TestValues(t *testing.T) {
	for _, v := range []int64{0, 1, -1, 63, 64, 65, 127, 128, 129, 255, 257, 1000, 4095, 4097, 1e6 + 1, -123456789, 1<<40 + 12345, math.MaxInt64, math.MinInt64 + 1} {
		got := valueOf(magnitude(v))
		if limit := math.Abs(float64(v)) * 0.0079; math.Abs(float64(got)-float64(v)) > limit || v > -128 && v < 128 && got != v {
			t.Errorf("%d is read as %d", v, got)
		}
	}
	if sum := func() (d float64) {
		for v := int64(100_000); v < 200_000; v++ {
			d += float64(valueOf(magnitude(v)) - v)
		}
		return d
	}(); math.Abs(sum) > 1e-4*100_000*150_000 {
		t.Errorf("rounding adds %g", sum)
	}
	for _, in := range [][]uint32{{0, 0, 0}, {1, 0, 1, 1}, {255, 3, 128, 7, 9}, {math.MaxUint32, 1, 70000}} {
		u := newUnpacker(packed(in))
		for i, want := range in {
			if got := u.next(); got != want {
				t.Errorf("%v: number %d is read as %d", in, i, got)
			}
		}
	}
}

// TestLinks: ids of traces and spans stay with their samples, also when sealed,
// and take nothing where there are none.
func TestLinks(t *testing.T) {
	clock := hour0
	s := open(t, Options{Now: func() time.Time { return clock }})
	for i := range 20 {
		x := sample(hour0.Add(time.Duration(i)*time.Second), "p", int64(i), stackOf("main"))
		if i%7 == 3 {
			x.TraceID[0], x.SpanID[7] = byte(i), byte(i)
		}
		s.Add(x)
	}
	s.Flush()
	for _, sfx := range []string{suffix, samplesSuffix} {
		files, err := s.list(sfx)
		if err != nil || len(files) != 1 {
			t.Fatal(files, err)
		}
		found := 0
		if err := readRows(files[0].path, func(b *block, x *row) bool {
			if want := x.value%7 == 3; want != (x.link > 0) || want && (int64(b.link.trace[0]) != x.value || int64(b.link.span[7]) != x.value) {
				t.Errorf("%s: sample %d has link %d of %v", sfx, x.value, x.link, b.link)
			}
			found++
			return true
		}); err != nil || found != 20 {
			t.Errorf("%d samples, %v", found, err)
		}
		clock = hour0.Add(time.Hour)
		if err := s.sealAll(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	w := blockWriter{rows: []row{{ms: 1, value: 2}}}
	payload, _, _ := w.encode()
	var b block
	if err := b.open(payload, newDict(2)); err != nil || b.cols[colLinks].b != nil {
		t.Errorf("a column of no links: %v, %v", b.cols[colLinks].b, err)
	}
}

// FuzzArchive reads, strips and resumes an archive, as a crash or a bad disk may
// leave one.
func FuzzArchive(f *testing.F) {
	clock := hour0
	s := open(f, Options{Now: func() time.Time { return clock }})
	s.Add(sample(hour0, "p", 3, stackOf("spin", "main")))
	s.Flush()
	clock = hour0.Add(time.Hour)
	if err := s.sealAll(f.Context()); err != nil {
		f.Fatal(err)
	}
	files, err := s.list(samplesSuffix)
	if err != nil || len(files) != 1 {
		f.Fatal(files, err)
	}
	b, err := os.ReadFile(files[0].path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)/2])
	shm, err := os.MkdirTemp("/dev/shm", "huatuo-fuzz-") // where a sync costs nothing
	if err != nil {
		shm = f.TempDir()
	}
	f.Cleanup(func() { os.RemoveAll(shm) })
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(shm, fmt.Sprint(os.Getpid())+samplesSuffix)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		before, err := readEntries(path)
		if err != nil && !errors.Is(err, errDamaged) {
			t.Fatal(err)
		}
		if a, err := resume(path); err == nil {
			if err := a.close(); err != nil {
				t.Fatal(err)
			}
			if after, err := readEntries(path); err != nil || len(after) != len(before) {
				t.Fatalf("%d segments, %d when resumed, %v", len(before), len(after), err)
			}
		}
		if err := strip(path); err != nil {
			t.Fatal(err)
		}
	})
}
