package kernlog

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// watch makes events of reports.
type watch struct {
	env    *probe.Env
	cfg    Config
	ignore []*regexp.Regexp
	parser parser
	limits map[*signal.Schema]*limit
	lost   atomic.Uint64

	mu      sync.Mutex
	counts  map[*signal.Schema]uint64
	limited uint64
	ignored uint64
}

// limit is the bucket of one kind of event.
type limit struct {
	next       time.Time // when the bucket is full again
	suppressed uint64
}

func newWatch(env *probe.Env, cfg Config) (*watch, error) {
	if cfg.Rate < 0 || cfg.Burst < 1 {
		return nil, errors.New("probes.kernlog: want a rate of at least 0 and a burst of at least 1")
	}
	ignore, err := compile(cfg.Ignore)
	if err != nil {
		return nil, err
	}
	w := &watch{env: env, cfg: cfg, ignore: ignore, parser: parser{tick: tick()},
		limits: map[*signal.Schema]*limit{}, counts: map[*signal.Schema]uint64{}}
	for _, s := range events() {
		w.limits[s] = &limit{}
	}
	return w, nil
}

// emit passes on the reports that are complete.
func (w *watch) emit() {
	for _, r := range w.parser.take() {
		rec := r.record()
		w.count(rec.Schema)
		if w.isIgnored(rec.Title) {
			w.add(&w.ignored)
			continue
		}
		if !w.allow(rec) {
			w.add(&w.limited)
			continue
		}
		rec.Time = w.env.Clock(uint64(r.stamp))
		if tid := rec.Process.TID; tid != 0 {
			rec.Process.PID = threadGroup(filepath.Join(w.env.Root, "proc", strconv.FormatUint(uint64(tid), 10), "status"), tid)
		}
		w.env.Emit(rec)
	}
}

func (w *watch) count(s *signal.Schema) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[s]++
}

func (w *watch) add(n *uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	*n++
}

func (w *watch) isIgnored(title string) bool {
	for _, re := range w.ignore {
		if re.MatchString(title) {
			return true
		}
	}
	return false
}

// allow tells whether the rate lets a record pass.
func (w *watch) allow(rec *signal.Record) bool {
	l := w.limits[rec.Schema]
	if w.cfg.Rate > 0 {
		now, period := w.env.Now(), time.Minute/time.Duration(w.cfg.Rate)
		if l.next.Before(now) {
			l.next = now
		}
		if l.next.Sub(now) > period*time.Duration(w.cfg.Burst-1) {
			l.suppressed++
			return false
		}
		l.next = l.next.Add(period)
	}
	rec.Suppressed, l.suppressed = l.suppressed, 0
	return true
}

// threadGroup returns the process of a thread; the thread itself, which is
// right for all kernel threads, when it has ended.
func threadGroup(path string, tid uint32) uint32 {
	f, err := os.Open(path)
	if err != nil {
		return tid
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if v, ok := strings.CutPrefix(sc.Text(), "Tgid:"); ok {
			if n, err := strconv.ParseUint(strings.TrimSpace(v), 10, 32); err == nil {
				return uint32(n)
			}
		}
	}
	return tid
}

func (w *watch) loss() probe.Loss {
	w.mu.Lock()
	defer w.mu.Unlock()
	l := probe.Loss{Dropped: map[string]uint64{"rate_limited": w.limited, "ignored": w.ignored}}
	for _, n := range w.counts {
		l.Observed += n
	}
	return l
}

func (w *watch) collect(b *signal.Batch) error {
	w.mu.Lock()
	for _, s := range events() {
		b.Value(reports, float64(w.counts[s]), s.Name)
	}
	w.mu.Unlock()
	b.Value(lostRecords, float64(w.lost.Load()))
	return nil
}

func (w *watch) collectTaint(b *signal.Batch) error {
	bits, err := readTaint(filepath.Join(w.env.Root, "proc/sys/kernel/tainted"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for i, t := range taints {
		b.Value(tainted, float64(bits>>i&1), t.name)
	}
	return nil
}
