package clock

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMonoNow(t *testing.T) {
	c := newClock(t)
	for range 100 {
		stamp, err := read(unix.CLOCK_MONOTONIC)
		if err != nil {
			t.Fatal(err)
		}
		if d := time.Since(c.Mono(uint64(stamp))); d < -time.Millisecond || d > 100*time.Millisecond {
			t.Fatalf("a stamp made now is told to be %v old", d)
		}
	}
	if a, b := c.NowMono(), c.NowMono(); b < a {
		t.Fatalf("monotonic clock went back: %d then %d", a, b)
	}
}

func TestBootNow(t *testing.T) {
	c := newClock(t)
	stamp, err := read(unix.CLOCK_BOOTTIME)
	if err != nil {
		t.Fatal(err)
	}
	if d := time.Since(c.Boot(uint64(stamp))); d < -time.Millisecond || d > 100*time.Millisecond {
		t.Fatalf("a stamp made now is told to be %v old", d)
	}
}

func TestClockStep(t *testing.T) {
	wall := time.Unix(1_800_000_000, 0)
	const now = int64(1000 * time.Second)
	at := func() (time.Time, int64) { return wall, now }
	c := &Clock{mono: at, boot: at}
	stamp := uint64(now - int64(3*time.Second))

	for _, step := range []time.Duration{0, time.Hour, -48 * time.Hour} {
		wall = wall.Add(step)
		want := wall.Add(-3 * time.Second)
		if got := c.Mono(stamp); !got.Equal(want) {
			t.Errorf("after a step of %v: Mono %v, want %v", step, got, want)
		}
		if got := c.Boot(stamp); !got.Equal(want) {
			t.Errorf("after a step of %v: Boot %v, want %v", step, got, want)
		}
		if got := c.Ticks(stamp / 1e7); !got.Equal(want) {
			t.Errorf("after a step of %v: Ticks %v, want %v", step, got, want)
		}
		if got, want := c.BootTime(), wall.Add(-1000*time.Second); !got.Equal(want) {
			t.Errorf("after a step of %v: BootTime %v, want %v", step, got, want)
		}
	}
	// A stamp a little ahead of the clock, made on another CPU while it was read.
	if got, want := c.Mono(uint64(now)+5), wall.Add(5); !got.Equal(want) {
		t.Errorf("stamp ahead of the clock: %v, want %v", got, want)
	}
}

func TestUnknown(t *testing.T) {
	c := newClock(t)
	if !c.Mono(0).IsZero() || !c.Boot(0).IsZero() {
		t.Error("a stamp of 0 must give the zero time")
	}
	if !c.Ticks(1 << 63).IsZero() {
		t.Error("ticks beyond any clock must give the zero time")
	}
}

func TestTicksOfSelf(t *testing.T) {
	c := newClock(t)
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	ticks, err := strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	start := c.Ticks(ticks)
	if age := time.Since(start); age < -50*time.Millisecond || age > 10*time.Minute {
		t.Errorf("this test is told to run since %v (%v ago)", start, age)
	}
	// Two ticks: a virtual CPU may be taken away between the reading of two clocks.
	for range 50 {
		if again := c.Ticks(ticks); again.Sub(start).Abs() > 20*time.Millisecond {
			t.Fatalf("start time moved from %v to %v", start, again)
		}
	}
}

func TestBootTimeMatchesProcStat(t *testing.T) {
	c := newClock(t)
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "\nbtime ")
	if !ok {
		t.Fatal("no btime in /proc/stat")
	}
	line, _, _ := strings.Cut(rest, "\n")
	btime, err := strconv.ParseInt(line, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if d := c.BootTime().Sub(time.Unix(btime, 0)); d.Abs() > 2*time.Second {
		t.Errorf("boot time is %v away from btime", d)
	}
}

func newClock(t testing.TB) *Clock {
	t.Helper()
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func BenchmarkMono(b *testing.B) {
	c := newClock(b)
	stamp := c.NowMono()
	b.ReportAllocs()
	for b.Loop() {
		c.Mono(stamp)
	}
}

func BenchmarkTicks(b *testing.B) {
	c := newClock(b)
	b.ReportAllocs()
	for b.Loop() {
		c.Ticks(12345)
	}
}
