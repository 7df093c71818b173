package profiles

import (
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"huatuo/internal/signal"
)

// fillStore puts hours of the stream into a store as the agent does: a flush
// each two seconds, and segments sealed when they are over.
func fillStore(tb testing.TB, s *Store, clock *time.Time, from time.Time, hours int) {
	tb.Helper()
	fillBy(tb, s, clock, from, hours, s.Add)
}

// fillBy does so with what add makes of the samples.
func fillBy(tb testing.TB, s *Store, clock *time.Time, from time.Time, hours int, add func(signal.LabeledSample)) {
	tb.Helper()
	g := newStream()
	for sec := 0; sec < hours*3600; sec += 2 {
		*clock = from.Add(time.Duration(sec+2) * time.Second)
		g.run(float64(sec), float64(sec+2), from, add)
		s.Flush()
		if sec%3600 == 2 {
			if err := s.sealAll(tb.Context()); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

const benchHours = 25

// filled is a store with a day of the stream and half an hour more, made once
// for all benchmarks: that takes a minute.
type filled struct {
	once  sync.Once
	store *Store
	from  time.Time
}

func (f *filled) open(b *testing.B, dir string) *Store {
	f.once.Do(func() {
		f.from = time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
		clock := f.from
		s := open(b, Options{Dir: dir, Now: func() time.Time { return clock }})
		fillStore(b, s, &clock, f.from, benchHours)
		f.store = s
	})
	return f.store
}

// cpuTime is the process's own, which a busy machine does not stretch.
func cpuTime(b *testing.B) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkDay measures a busy host of two CPUs with time on and off them: the
// size of a day, and how long it takes to merge a window. The hour begins within
// an hour, so that all of it is read sample by sample; the day is summed up but
// for its ends.
func BenchmarkDay(b *testing.B) {
	var f filled
	s := f.open(b, b.TempDir())
	st := s.Stats()
	dayBytes := float64(st.Bytes+st.HoursBytes) * 24 / benchHours
	for _, x := range []struct {
		name     string
		from, to time.Duration
	}{
		{"5m", (benchHours-2)*time.Hour + 10*time.Minute, (benchHours-2)*time.Hour + 15*time.Minute},
		{"hour", (benchHours-2)*time.Hour + 30*time.Minute, (benchHours-1)*time.Hour + 30*time.Minute},
		{"day", 30 * time.Minute, (benchHours-1)*time.Hour + 30*time.Minute},
	} {
		for _, t := range []*signal.ProfileType{cpu, blocked} {
			b.Run(x.name+"/"+t.Name, func(b *testing.B) {
				q := signal.ProfileQuery{Type: t.Name, From: f.from.Add(x.from), To: f.from.Add(x.to)}
				b.ReportAllocs()
				spent := cpuTime(b)
				for b.Loop() {
					g, err := s.Flame(b.Context(), q, 0.0005)
					if err != nil || g.Total == 0 {
						b.Fatal(g, err)
					}
				}
				b.ReportMetric((cpuTime(b)-spent).Seconds()*1e3/float64(b.N), "cpu-ms/op")
				b.ReportMetric(dayBytes/1e6, "MB/day")
			})
		}
		b.Run(x.name+"/heat", func(b *testing.B) {
			q := signal.ProfileQuery{Type: blocked.Name, From: f.from.Add(x.from), To: f.from.Add(x.to)}
			for b.Loop() {
				if _, err := s.Heat(b.Context(), q, max(50*time.Millisecond, (x.to-x.from)/12000)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOpen measures what a store costs that an hour was written to: the heap
// that stays, and the time of two seconds of samples (making them included).
func BenchmarkOpen(b *testing.B) {
	from := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
	clock := from
	s := open(b, Options{Now: func() time.Time { return clock }})
	g := newStream()
	sec := 0
	step := func() {
		clock = from.Add(time.Duration(sec+2) * time.Second)
		g.run(float64(sec), float64(sec+2), from, s.Add)
		sec += 2
		s.Flush()
	}
	for sec < 3400 {
		step()
	}
	with := heap()
	nodes := s.current.dict.nodes.len()
	for b.Loop() {
		step()
	}
	s.Flush()
	s.write.Lock()
	s.end()
	s.write.Unlock()
	s.spare = nil
	b.ReportMetric(float64(with-heap())/1e6, "MB-heap")
	runtime.KeepAlive(g)
	b.ReportMetric(float64(nodes), "nodes")
}

// BenchmarkBeside measures what it costs to keep how many contentions there were
// beside their time: a third of all waits are for locks, or for files, which have
// bytes. It fills each store with four hours, once.
func BenchmarkBeside(b *testing.B) {
	lock := &signal.ProfileType{Name: "lock.user", Unit: "nanoseconds"}
	count := &signal.ProfileType{Name: "lock.user.contentions", Unit: "count"}
	for _, x := range []struct {
		name  string
		types []*signal.ProfileType
	}{{"without", []*signal.ProfileType{lock}}, {"with", []*signal.ProfileType{lock, count}}} {
		b.Run(x.name, func(b *testing.B) {
			const hours = 4
			for b.Loop() {
				b.StopTimer()
				clock := time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC)
				s := open(b, Options{Dir: b.TempDir(), Now: func() time.Time { return clock }})
				spent, n := cpuTime(b), 0
				fillBy(b, s, &clock, clock, hours, func(sample signal.LabeledSample) {
					s.Add(sample)
					if n++; sample.Type != blocked || n%3 != 0 {
						return
					}
					for _, sample.Type = range x.types {
						if sample.Type == count {
							sample.Value = 1 + sample.Value%40
						}
						s.Add(sample)
					}
				})
				st := s.Stats()
				b.ReportMetric((cpuTime(b)-spent).Seconds()/(hours*36), "cpu-%") // of one CPU in the time that it stands for
				b.ReportMetric(float64(st.Bytes+st.HoursBytes)*24/hours/1e6, "MB/day")
				b.StartTimer()
			}
		})
	}
}
