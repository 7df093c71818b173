package budget

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"huatuo/internal/probe"
)

// fake is a set of probes: of each the steps that are left.
type fake struct {
	left map[string][]Step
	log  []string
}

func (f *fake) Steps() []Step {
	var out []Step
	for _, name := range []string{"cheap", "dear", "plain"} {
		if s := f.left[name]; len(s) > 0 {
			out = append(out, s[0])
		}
	}
	return out
}

func (f *fake) Take(s Step) {
	f.left[s.Probe] = f.left[s.Probe][1:]
	f.log = append(f.log, "-"+s.String())
}

func (f *fake) Undo(s Step) {
	f.left[s.Probe] = append([]Step{s}, f.left[s.Probe]...)
	f.log = append(f.log, "+"+s.String())
}

func probes() *fake {
	steps := func(name string, classes ...probe.Class) (out []Step) {
		for _, c := range classes {
			out = append(out, Step{name, c, string(c)})
		}
		return out
	}
	return &fake{left: map[string][]Step{
		"cheap": steps("cheap", probe.Detail, probe.Whole),
		"dear":  steps("dear", probe.Detail, probe.Sampling, probe.Whole),
		"plain": steps("plain", probe.Whole),
	}}
}

var (
	heavy = Usage{Process: 0.03, Programs: map[string]float64{"cheap": 0.001, "dear": 0.02}}
	light = Usage{Process: 0.001, Programs: map[string]float64{"dear": 0.001}}
	limit = Limit{Share: 0.01, Calm: 10 * time.Minute}
)

// drive observes u each minute, n times, and returns the time after.
func drive(b *Budget, u Usage, at time.Time, n int) time.Time {
	for range n {
		at = at.Add(time.Minute)
		b.Observe(u, at)
	}
	return at
}

func TestOrder(t *testing.T) {
	f := probes()
	b := New(slog.New(slog.DiscardHandler), 2, limit, f)
	drive(b, heavy, time.Unix(0, 0), 30)
	want := []string{"-dear: detail", "-cheap: detail", "-dear: sampling", "-dear", "-cheap", "-plain"}
	if !slices.Equal(f.log, want) {
		t.Errorf("%q, want %q", f.log, want)
	}
	st := b.State()
	if len(st.Shed) != 6 || st.Taken[probe.Detail] != 2 || st.Taken[probe.Whole] != 3 || !strings.Contains(st.Shed[0].Why, "2.55 % of the machine") {
		t.Errorf("%+v", st)
	}
}

func TestKeep(t *testing.T) {
	f := probes()
	l := limit
	l.Keep = []string{"dear", "plain"}
	b := New(slog.New(slog.DiscardHandler), 2, l, f)
	drive(b, heavy, time.Unix(0, 0), 30)
	if want := []string{"-dear: detail", "-cheap: detail", "-dear: sampling", "-cheap"}; !slices.Equal(f.log, want) {
		t.Errorf("%q, want %q", f.log, want)
	}
}

// TestPatience: nothing is given up for one measurement, nor for a share below the limit.
func TestPatience(t *testing.T) {
	f := probes()
	b := New(slog.New(slog.DiscardHandler), 2, limit, f)
	at := time.Unix(0, 0)
	for range 10 {
		at = drive(b, heavy, at, 1)
		at = drive(b, light, at, 1)
	}
	drive(b, Usage{Process: 0.0199}, at, 10)
	if len(f.log) > 0 {
		t.Errorf("%q", f.log)
	}
}

func TestMemory(t *testing.T) {
	f := probes()
	l := limit
	l.Memory = 256 << 20
	b := New(slog.New(slog.DiscardHandler), 2, l, f)
	u := light
	u.Memory = 300 << 20
	drive(b, u, time.Unix(0, 0), 2)
	if want := []string{"-dear: detail"}; !slices.Equal(f.log, want) || !strings.Contains(b.State().Shed[0].Why, "300 MB of memory, the limit is 256 MB") {
		t.Errorf("%q, %+v", f.log, b.State())
	}
}

// TestReturn: the newest comes back first, after a calm time that doubles when
// it had to go again.
func TestReturn(t *testing.T) {
	f := probes()
	b := New(slog.New(slog.DiscardHandler), 2, limit, f)
	at := drive(b, heavy, time.Unix(0, 0), 4)
	at = drive(b, light, at, 10)
	if len(f.log) != 2 {
		t.Fatalf("it came back too soon: %q", f.log)
	}
	at = drive(b, light, at, 1)
	if want := []string{"-dear: detail", "-cheap: detail", "+cheap: detail"}; !slices.Equal(f.log, want) {
		t.Fatalf("%q, want %q", f.log, want)
	}
	at = drive(b, heavy, at, 2)
	if n := len(f.log); n != 4 {
		t.Fatalf("%q", f.log)
	}
	at = drive(b, light, at, 20)
	if n := len(f.log); n != 4 {
		t.Fatalf("the calm time did not double: %q", f.log)
	}
	at = drive(b, light, at, 1)
	if n := len(f.log); n != 5 {
		t.Fatalf("it did not come back: %q", f.log)
	}
	drive(b, Usage{Process: 0.015}, at, 100) // neither too much nor calm
	if n := len(f.log); n != 5 {
		t.Fatalf("it came back though the agent was not calm: %q", f.log)
	}
}

// TestLifted: with the limit lifted, everything comes back, one a measurement.
func TestLifted(t *testing.T) {
	f := probes()
	b := New(slog.New(slog.DiscardHandler), 2, limit, f)
	at := drive(b, heavy, time.Unix(0, 0), 12)
	b.SetLimit(Limit{Off: true})
	drive(b, heavy, at, 10)
	if st := b.State(); len(st.Shed) != 0 || len(f.log) != 12 || len(f.Steps()) != 3 {
		t.Errorf("%+v, %q", st, f.log)
	}
}

// TestNothingLeft: when all is given up, the agent goes on.
func TestNothingLeft(t *testing.T) {
	b := New(slog.New(slog.DiscardHandler), 2, limit, &fake{})
	drive(b, heavy, time.Unix(0, 0), 10)
	if len(b.State().Shed) != 0 {
		t.Error(b.State())
	}
}
