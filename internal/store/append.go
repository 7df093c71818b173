package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/storage"

	"huatuo/internal/signal"
)

// series is one live series: one that was in the last round.
type series struct {
	ref   storage.SeriesRef // 0 when the TSDB must look it up
	lset  labels.Labels
	round uint64 // the last one it was in
	// The TSDB keeps the last histogram of a series to compare it with the
	// next, so two take turns.
	hist [2]histogram.Histogram
}

// liveSeries finds the series of a sample without making its labels, so that a
// round of known series costs no allocation.
type liveSeries struct {
	round uint64
	maxT  int64 // newest sample in the TSDB
	byKey map[string]*series
	key   []byte
	gone  []string
	b     labels.ScratchBuilder
}

func (l *liveSeries) init() {
	l.byKey = map[string]*series{}
	l.b = labels.NewScratchBuilder(8)
}

// forgetRefs is for a TSDB that was opened anew.
func (l *liveSeries) forgetRefs() {
	for _, s := range l.byKey {
		s.ref = 0
	}
}

// find returns the live series of s. It returns nil when the labels of s do not
// fit its schema.
func (l *liveSeries) find(s *signal.Sample) *series {
	l.key = append(l.key[:0], s.Schema.Name...)
	for _, v := range s.Labels {
		l.key = binary.AppendUvarint(l.key, uint64(len(v)))
		l.key = append(l.key, v...)
	}
	if e := l.byKey[string(l.key)]; e != nil {
		return e
	}
	lset, ok := l.labels(s)
	if !ok {
		return nil
	}
	e := &series{lset: lset}
	l.byKey[string(l.key)] = e
	return e
}

func (l *liveSeries) labels(s *signal.Sample) (labels.Labels, bool) {
	fields := s.Schema.Fields
	most := len(fields)
	if s.Schema.Scope == signal.Workload {
		most += len(signal.WorkloadLabels)
	}
	if len(s.Labels) > most {
		return labels.EmptyLabels(), false
	}
	l.b.Reset()
	l.b.Add(model.MetricNameLabel, s.Schema.Name)
	for i, v := range s.Labels {
		if v == "" {
			continue
		}
		name := ""
		if i < len(fields) {
			name = fields[i].Name
		} else {
			name = signal.WorkloadLabels[i-len(fields)]
		}
		l.b.Add(name, strings.ToValidUTF8(v, "\uFFFD"))
	}
	l.b.Sort()
	return l.b.Labels(), true
}

// write adds one round at t. An error is about the TSDB as a whole and leaves
// it in an unknown state.
func (m *metrics) write(ctx context.Context, h *handle, t int64, samples []signal.Sample) (err error) {
	l := &m.live
	l.round++
	l.maxT = h.Head().MaxTime()
	// What is added behind other samples stays in memory as it is for a while,
	// and so do the histograms.
	floor, known := h.Head().AppendableMinValidTime()
	late := t <= l.maxT
	reuse := !late && (!known || t >= floor)

	app := h.AppenderV2(ctx)
	var added, tooOld uint64
	for i := range samples {
		s := &samples[i]
		e := l.find(s)
		if e == nil {
			m.count.refused.Add(1)
			continue
		}
		if e.round == l.round {
			m.count.duplicates.Add(1)
			continue
		}
		e.round = l.round
		ref, err := app.Append(e.ref, e.lset, 0, t, s.Value, e.histogram(s.Hist, l.round, reuse), nil, storage.AOptions{})
		if err == nil {
			e.ref = ref
			added++
			continue
		}
		if fatal := m.countRefusal(err, &tooOld); fatal != nil {
			return errors.Join(fatal, app.Rollback())
		}
	}
	stale := m.markGone(app, t)
	if err := commit(app, h); err != nil {
		return err
	}
	l.dropGone()
	m.count.samples.Add(added)
	m.count.tooOld.Add(tooOld)
	m.count.stale.Add(stale)
	if late {
		m.count.late.Add(added)
	}
	m.noteRefused(added == 0 && tooOld > 0, t)
	return nil
}

// noteRefused notes whether a round was refused altogether for its time.
func (m *metrics) noteRefused(all bool, t int64) {
	switch {
	case !all:
		m.refused = time.Time{}
	case m.refused.IsZero():
		m.refused = time.Now()
		m.log.Warn("the clock is far behind the metric history, which takes no samples; if it stays, the newer history is set aside",
			"now", time.UnixMilli(t).UTC(), "newest", time.UnixMilli(m.live.maxT).UTC(), "after", m.patience)
	}
}

// countRefusal counts a sample that the TSDB did not take, and returns err when
// that was not for the sample's sake.
func (m *metrics) countRefusal(err error, tooOld *uint64) error {
	switch {
	case errors.Is(err, storage.ErrTooOldSample), errors.Is(err, storage.ErrOutOfBounds),
		errors.Is(err, storage.ErrOutOfOrderSample):
		*tooOld++
	case errors.Is(err, storage.ErrDuplicateSampleForTimestamp):
		m.count.duplicates.Add(1)
	case environmental(err):
		return err
	default:
		m.log.Debug("sample refused", "err", err)
		m.count.refused.Add(1)
	}
	return nil
}

// markGone ends the series that were in an earlier round and are not in this
// one, so that they do not look alive for five more minutes.
func (m *metrics) markGone(app storage.AppenderV2, t int64) (n uint64) {
	l := &m.live
	l.gone = l.gone[:0]
	for key, e := range l.byKey {
		if e.round == l.round {
			continue
		}
		l.gone = append(l.gone, key)
		if e.ref == 0 {
			continue // never stored
		}
		if _, err := app.Append(e.ref, e.lset, 0, t, math.Float64frombits(value.StaleNaN), nil, nil, storage.AOptions{}); err == nil {
			n++
		}
	}
	return n
}

func (l *liveSeries) dropGone() {
	for _, key := range l.gone {
		delete(l.byKey, key)
	}
}

// endAll marks all live series as ended just after their last sample.
func (m *metrics) endAll() error {
	m.live.round++
	h := m.state.db
	t := h.Head().MaxTime()
	if t == math.MinInt64 || len(m.live.byKey) == 0 {
		return nil
	}
	app := h.AppenderV2(context.Background())
	n := m.markGone(app, t+1)
	if err := commit(app, h); err != nil {
		return fmt.Errorf("mark end of series: %w", err)
	}
	m.live.dropGone()
	m.count.stale.Add(n)
	return nil
}

// commit writes what app holds, and then at once the chunks that have become
// full to their file: the TSDB would do it within the minute, but there the
// panic about a full disk could not be caught.
func commit(app storage.AppenderV2, h *handle) (err error) {
	defer recoverIO(&err)
	if err := app.Commit(); err != nil {
		return err
	}
	h.ForceHeadMMap()
	return nil
}

// histogram returns h in the form of the TSDB, or nil when it is nil.
func (e *series) histogram(h *signal.Hist, round uint64, reuse bool) *histogram.Histogram {
	if h == nil {
		return nil
	}
	to := &e.hist[round%2]
	if !reuse {
		to = new(histogram.Histogram)
	}
	native(to, h)
	return to
}

// native writes h to "to" as a native histogram, exactly: bucket i keeps its
// bounds, and what lies at or below the first bucket's lower bound becomes the
// zero bucket. The slices of "to" are used again.
func native(to *histogram.Histogram, h *signal.Hist) {
	spans, deltas := to.PositiveSpans[:0], to.PositiveBuckets[:0]
	count := h.Zero
	var prev int64
	end := 0 // one past the last bucket written
	for i, n := range h.Counts {
		if n == 0 {
			continue
		}
		count += n
		gap := i - end
		switch {
		case len(spans) == 0:
			spans = append(spans, histogram.Span{Offset: int32(h.First + i)})
		case gap > 2: // as costly as two empty buckets
			spans = append(spans, histogram.Span{Offset: int32(gap)})
		default:
			for range gap {
				deltas, prev = append(deltas, -prev), 0
			}
			spans[len(spans)-1].Length += uint32(gap)
		}
		deltas, prev = append(deltas, int64(n)-prev), int64(n)
		spans[len(spans)-1].Length++
		end = i + 1
	}
	*to = histogram.Histogram{
		Schema:        int32(h.Resolution),
		ZeroThreshold: math.Exp2(math.Ldexp(float64(h.First-1), -h.Resolution)),
		ZeroCount:     h.Zero,
		// Not h.Count: a histogram that was read while it was written to may
		// have a sum of buckets that is one off, and the TSDB refuses that.
		Count:           count,
		Sum:             h.Sum,
		PositiveSpans:   spans,
		PositiveBuckets: deltas,
	}
}
