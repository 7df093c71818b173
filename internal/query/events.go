package query

import (
	"context"

	"huatuo/internal/signal"
)

// maxTerms bounds the lists in a filter: each term is a part of the statement.
const maxTerms = 64

// Events returns one page of events, newest first.
func (r *Reader) Events(ctx context.Context, f signal.EventFilter) (signal.EventPage, error) {
	if err := r.checkFilter(&f); err != nil {
		return signal.EventPage{}, err
	}
	ctx, end, err := r.begin(ctx)
	if err != nil {
		return signal.EventPage{}, err
	}
	defer end()
	p, err := r.b.Events(ctx, f)
	return p, storeError(err)
}

// Event returns the event with that id; the error is of type NotFound when
// there is none.
func (r *Reader) Event(ctx context.Context, id string) (*signal.Document, error) {
	ctx, end, err := r.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	d, err := r.b.Event(ctx, id)
	return d, storeError(err)
}

// Timeline counts the events that f selects in n intervals of equal length from
// f.From to f.To, or from the oldest event and to now when they are zero.
func (r *Reader) Timeline(ctx context.Context, f signal.EventFilter, n int) ([]signal.EventBucket, error) {
	if err := r.checkFilter(&f); err != nil {
		return nil, err
	}
	if n < 1 || n > r.limits.MaxBuckets {
		return nil, badData("a timeline has 1 to %d intervals, not %d", r.limits.MaxBuckets, n)
	}
	ctx, end, err := r.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	bs, err := r.b.Timeline(ctx, f, n)
	return bs, storeError(err)
}

// CountEvents counts the events that f selects by what g says, the largest
// groups first.
func (r *Reader) CountEvents(ctx context.Context, f signal.EventFilter, g signal.EventGrouping) ([]signal.EventCount, error) {
	if err := r.checkFilter(&f); err != nil {
		return nil, err
	}
	if g.Buckets < 0 || g.Buckets > r.limits.MaxBuckets {
		return nil, badData("events are counted in %d intervals at most, not %d", r.limits.MaxBuckets, g.Buckets)
	}
	if g.Limit <= 0 || g.Limit > r.limits.MaxGroups {
		g.Limit = r.limits.MaxGroups
	}
	ctx, end, err := r.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	cs, err := r.b.CountEvents(ctx, f, g)
	return cs, storeError(err)
}

// EventValues lists the values that a member has in the newest of the events
// that f selects: those that have part in them, the most frequent first.
func (r *Reader) EventValues(ctx context.Context, f signal.EventFilter, path, part string, limit int) ([]signal.ValueCount, error) {
	if err := r.checkFilter(&f); err != nil {
		return nil, err
	}
	if err := (&signal.Condition{Path: path, Op: signal.Equal}).Check(); err != nil {
		return nil, badData("%v", err)
	}
	if limit < 1 || limit > r.limits.MaxPage {
		return nil, badData("1 to %d values are listed, not %d", r.limits.MaxPage, limit)
	}
	ctx, end, err := r.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	vs, err := r.b.EventValues(ctx, f, path, part, limit)
	return vs, storeError(err)
}

func (r *Reader) checkFilter(f *signal.EventFilter) error {
	if f.Limit < 0 || f.Limit > r.limits.MaxPage {
		return badData("a page has 1 to %d events, not %d; ask for more with the \"next\" of the page", r.limits.MaxPage, f.Limit)
	}
	if f.Limit == 0 {
		f.Limit = r.limits.Page
	}
	if !f.From.IsZero() && !f.To.IsZero() && !f.From.Before(f.To) {
		return badData("the time range is empty: from %v to %v", f.From, f.To)
	}
	if len(f.Kinds) > maxTerms || len(f.Severities) > maxTerms || len(f.Where) > maxTerms {
		return badData("a filter has %d kinds, severities or conditions at most", maxTerms)
	}
	for i := range f.Where {
		if err := f.Where[i].Check(); err != nil {
			return badData("%v", err)
		}
	}
	return nil
}
