package profiles

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"slices"
	"strings"
	"time"

	"huatuo/internal/signal"
)

// ErrType is returned for a query without a type.
var ErrType = errors.New("a query of profiles needs a type")

// source is a file that a query reads.
type source struct {
	path    string
	archive bool
	sums    map[int64]bool // of an archive: segments of which to take the sums
	samples map[int64]bool // and those of which to take the samples
}

// visitor is what a query does with what it reads.
type visitor struct {
	exact bool // times matter: no sums while there are samples
	begin func(d *dict)
	row   func(d *dict, b *block, x *row)
	end   func(d *dict)
}

// visit calls v.row for each sample of the query: for all samples of a stack and
// of labels at once where the sum of a whole segment does.
func (s *Store) visit(ctx context.Context, q signal.ProfileQuery, v visitor) error {
	if q.Type == "" {
		return ErrType
	}
	select {
	case s.readers <- struct{}{}:
		defer func() { <-s.readers }()
	case <-ctx.Done():
		return ctx.Err()
	}
	sources, err := s.plan(q, v.exact)
	if err != nil {
		return err
	}
	for _, src := range sources {
		if err := visitFile(ctx, src, q, v); err != nil {
			return err
		}
	}
	return nil
}

// plan chooses, for each segment that touches the window, its sums, its samples in
// an archive, or the segment itself.
func (s *Store) plan(q signal.ProfileQuery, exact bool) ([]source, error) {
	segments, err := s.list(suffix)
	archives, err2 := s.list(samplesSuffix)
	stripped, err3 := s.list(hoursSuffix)
	if err := errors.Join(err, err2, err3); err != nil {
		return nil, err
	}
	from, to := q.From.UnixMilli(), q.To.UnixMilli()
	single := q.PID != 0 || q.TID != 0 || len(q.Columns) > 0 // sums have no such things
	taken := map[int64]bool{}
	var out []source
	for _, f := range archives {
		err := s.choose(&out, f, taken, func(e archived) (sums, samples bool) {
			sums = !exact && !single && e.first >= from && e.last < to
			return sums, !sums && e.last >= from && e.first < to
		})
		if err != nil {
			return nil, err
		}
	}
	whole := len(segments) - 1
	for i, f := range segments {
		ms := f.begin.UnixMilli()
		if taken[ms] {
			continue
		}
		taken[ms] = true
		if f.begin.After(q.To.Add(segmentAge)) || f.mtime.Before(q.From.Add(-flushEvery)) && i < whole {
			continue
		}
		out = append(out, source{path: f.path})
	}
	for _, f := range stripped {
		err := s.choose(&out, f, taken, func(e archived) (sums, samples bool) {
			within := min(e.last, to-1) - max(e.first, from)
			return !single && within >= 0 && within >= (e.last-e.first)/2, false // what is left as a sum is in a window or not
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// choose adds an archive as a source, with what want says of its segments, apart
// from those that another source has.
func (s *Store) choose(out *[]source, f segmentFile, taken map[int64]bool, want func(archived) (sums, samples bool)) error {
	entries, err := s.entries(f)
	if err != nil {
		return err
	}
	src := source{path: f.path, archive: true, sums: map[int64]bool{}, samples: map[int64]bool{}}
	for _, e := range entries {
		if taken[e.segment] {
			continue
		}
		taken[e.segment] = true
		sums, samples := want(e)
		if sums {
			src.sums[e.segment] = true
		}
		if samples {
			src.samples[e.segment] = true
		}
	}
	if len(src.sums)+len(src.samples) > 0 {
		*out = append(*out, src)
	}
	return nil
}

func visitFile(ctx context.Context, src source, q signal.ProfileQuery, v visitor) error {
	var wanted []int8 // by label set: 0 unknown, 1 yes, -1 no
	w := wants{from: q.From.UnixMilli(), to: q.To.UnixMilli(), sums: len(src.sums) > 0}
	if src.archive && len(src.samples) == 0 {
		w.from, w.to = math.MaxInt64, math.MinInt64
	}
	begun := false
	w.block = func(b *block, d *dict) bool {
		if b.typ != q.Type || ctx.Err() != nil {
			return false
		}
		if src.archive && !(b.rolled && src.sums[b.segment] || !b.rolled && src.samples[b.segment]) {
			return false
		}
		for len(wanted) < len(d.labels) {
			wanted = append(wanted, 0)
		}
		if !begun && v.begin != nil {
			v.begin(d)
		}
		begun = true
		return true
	}
	w.row = func(b *block, d *dict, x *row) bool {
		if wanted[x.pair.labels] == 0 {
			wanted[x.pair.labels] = -1
			if matches(d, x.pair.labels, q) {
				wanted[x.pair.labels] = 1
			}
		}
		if wanted[x.pair.labels] > 0 && inColumns(x.ms, q.Columns) {
			v.row(d, b, x)
		}
		return true
	}
	d, err := readFile(src.path, w)
	if err != nil && (errors.Is(err, errDamaged) || errors.Is(err, fs.ErrNotExist)) {
		// The tail of a segment that is being written, or that a crash cut off;
		// or retention was faster.
		err = nil
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && begun && v.end != nil {
		v.end(d)
	}
	return err
}

func matches(d *dict, labels uint32, q signal.ProfileQuery) bool {
	l, tid := d.labelsOf(labels)
	if q.PID != 0 && l.PID != q.PID || q.TID != 0 && tid != q.TID {
		return false
	}
	for name, values := range q.Labels {
		v, ok := l.Get(name)
		if !ok || !slices.Contains(values, v) {
			return false
		}
	}
	if q.Match == nil {
		return true
	}
	own := l // which the function may keep
	return q.Match(&own)
}

func inColumns(ms int64, cols []signal.Range) bool {
	if len(cols) == 0 {
		return true
	}
	for _, c := range cols {
		if ms >= c.From.UnixMilli() && ms < c.To.UnixMilli() {
			return true
		}
	}
	return false
}

// Heat sums values by columns of time. What is left only as a sum is spread over
// the time of its segment.
func (s *Store) Heat(ctx context.Context, q signal.ProfileQuery, column time.Duration) ([]int64, error) {
	from, step := q.From.UnixMilli(), max(column.Milliseconds(), 1)
	n := (q.To.UnixMilli() - from + step - 1) / step
	out := make([]int64, max(min(n, 100_000), 0))
	err := s.visit(ctx, q, visitor{exact: true, row: func(_ *dict, b *block, x *row) {
		if b.rolled {
			spread(out, (x.ms-from)/step, max(int64(segmentAge/time.Millisecond)/step, 1), x.value)
		} else if i := (x.ms - from) / step; i >= 0 && i < int64(len(out)) {
			out[i] += x.value
		}
	}})
	return out, err
}

// spread adds a value to n columns from at on in equal parts.
func spread(out []int64, at, n, value int64) {
	for i := max(at, 0); i < min(at+n, int64(len(out))); i++ {
		k := i - at
		out[i] += value*(k+1)/n - value*k/n
	}
}

// Series is how much of a query belongs to which labels, the largest first.
func (s *Store) Series(ctx context.Context, q signal.ProfileQuery, by []string) ([]signal.ProfileSeries, error) {
	sums := map[string]*signal.ProfileSeries{}
	var known []*signal.ProfileSeries // by label set of the file
	err := s.visit(ctx, q, visitor{begin: func(*dict) { clear(known) }, row: func(d *dict, _ *block, x *row) {
		for len(known) < len(d.labels) {
			known = append(known, nil)
		}
		e := known[x.pair.labels]
		if e == nil {
			l, _ := d.labelsOf(x.pair.labels)
			e = seriesOf(sums, &l, by)
			known[x.pair.labels] = e
		}
		e.Value += x.value
		e.Samples += x.count
	}})
	if err != nil {
		return nil, err
	}
	out := make([]signal.ProfileSeries, 0, len(sums))
	for _, e := range sums {
		out = append(out, *e)
	}
	slices.SortFunc(out, func(a, b signal.ProfileSeries) int {
		switch {
		case a.Value != b.Value && a.Value > b.Value:
			return -1
		case a.Value != b.Value:
			return 1
		}
		return strings.Compare(group2(a.Labels, by), group2(b.Labels, by))
	})
	return out, nil
}

// seriesOf finds or makes the series that labels are of.
func seriesOf(sums map[string]*signal.ProfileSeries, l *signal.ProfileLabels, by []string) *signal.ProfileSeries {
	key := group(l, by)
	e := sums[key]
	if e == nil {
		e = &signal.ProfileSeries{Labels: map[string]string{}}
		for _, name := range by {
			e.Labels[name], _ = l.Get(name)
		}
		sums[key] = e
	}
	return e
}

func group(l *signal.ProfileLabels, by []string) string {
	var b strings.Builder
	for _, name := range by {
		v, _ := l.Get(name)
		b.WriteString(v)
		b.WriteByte(0)
	}
	return b.String()
}

func group2(l map[string]string, by []string) string {
	var b strings.Builder
	for _, name := range by {
		b.WriteString(l[name])
		b.WriteByte(0)
	}
	return b.String()
}
