package pipe

import (
	"time"

	"huatuo/internal/signal"
)

// forget is how long a cgroup that a collector no longer reports is
// remembered: a collector that fails for a while must not count its values
// twice when it is back. The dead are remembered as long by enrich.
const forget = 10 * time.Minute

// Other is the container label of what cannot be named.
const Other = "other"

// folder turns the samples of cgroups into series of workloads.
//
// Several cgroups can make one workload, and they come and go. A plain sum of
// cumulative values would then fall, which a reader takes for a restart; so
// the folder adds up increments, per series.
type folder struct {
	labels func(uint64) (namespace, pod, container, unit string, known bool)
	parts  map[partKey]*part
	totals map[totalKey]*total
}

// partKey is one cgroup's share of a metric.
type partKey struct {
	schema *signal.Schema
	cgroup uint64
	peer   uint64
	labels string // as the collector gave them: a workload's name may change
}

type part struct {
	value float64
	hist  *signal.Hist
	seen  time.Time
}

// totalKey is one series.
type totalKey struct {
	schema *signal.Schema
	labels string
	who    [4]string
}

type total struct {
	labels   []string
	value    float64
	hist     *signal.Hist
	exemplar *signal.Exemplar
	note     string
	noted    float64   // value of the sample that note is from: the largest tells most
	round    time.Time // the last in which a cgroup reported
}

func newFolder(labels func(uint64) (string, string, string, string, bool)) *folder {
	return &folder{labels: labels, parts: map[partKey]*part{}, totals: map[totalKey]*total{}}
}

// fold replaces the Workload samples of one round by series with all labels.
func (f *folder) fold(in []signal.Sample, now time.Time) []signal.Sample {
	out := in[:0:0]
	touched := make([]*total, 0, len(in))
	keys := make([]totalKey, 0, len(in))
	for i := range in {
		s := &in[i]
		if s.Schema.Scope != signal.Workload {
			out = append(out, *s)
			continue
		}
		who := f.who(s.CgroupID)
		labels, own := s.Labels, join(s.Labels)
		key := totalKey{schema: s.Schema, labels: own, who: who}
		if s.Peer != 0 {
			labels = f.peer(s.Peer, who)
			key.labels = join(labels)
		}
		t := f.totals[key]
		if t == nil {
			t = &total{labels: append(append([]string(nil), labels...), who[:]...)}
			f.totals[key] = t
		}
		if t.round != now {
			t.round = now
			t.note, t.noted = "", -1
			touched = append(touched, t)
			keys = append(keys, key)
			if s.Schema.Type == signal.Gauge {
				t.value = 0
			}
		}
		if s.Exemplar != nil {
			t.exemplar = s.Exemplar
		}
		if s.Note != "" && s.Value > t.noted {
			t.note, t.noted = s.Note, s.Value
		}
		f.add(t, s, own, now)
	}
	for i, t := range touched {
		o := signal.Sample{Schema: keys[i].schema, Labels: t.labels, Value: t.value, Exemplar: t.exemplar, Note: t.note}
		if t.hist != nil {
			o.Hist = t.hist.Clone()
		}
		out = append(out, o)
	}
	f.expire(now)
	return out
}

func (f *folder) who(cgroup uint64) [4]string {
	if f.labels != nil {
		if ns, pod, c, unit, known := f.labels(cgroup); known {
			return [4]string{ns, pod, c, unit}
		}
	}
	return [4]string{2: Other}
}

// peer returns the values of signal.PeerFields for a sample of who.
func (f *folder) peer(cgroup uint64, who [4]string) []string {
	p := f.who(cgroup)
	switch p {
	case [4]string{2: Other}:
		return signal.NoPeer(signal.PeerOther)
	case who:
		return append([]string{signal.PeerSelf}, p[:]...)
	default:
		return append([]string{signal.PeerWorkload}, p[:]...)
	}
}

// add adds to t what s has more than in the round before.
func (f *folder) add(t *total, s *signal.Sample, labels string, now time.Time) {
	if s.Schema.Type == signal.Gauge {
		if s.Schema.Unit == "ratio" { // a sum of shares means nothing: the highest is told
			t.value = max(t.value, s.Value)
			return
		}
		t.value += s.Value
		return
	}
	k := partKey{s.Schema, s.CgroupID, s.Peer, labels}
	p := f.parts[k]
	if p == nil {
		p = &part{}
		f.parts[k] = p
	}
	p.seen = now
	if s.Hist == nil {
		d := s.Value - p.value
		if d < 0 { // the map entry or the cgroup began anew
			d = s.Value
		}
		t.value += d
		p.value = s.Value
		return
	}
	if t.hist == nil {
		t.hist = &signal.Hist{Resolution: s.Hist.Resolution, First: s.Hist.First}
	}
	t.hist.Add(increase(p.hist, s.Hist))
	p.hist = s.Hist
}

// increase is what cur has more than old; all of cur when it began anew.
func increase(old, cur *signal.Hist) *signal.Hist {
	if old == nil || cur.Count < old.Count || cur.Zero < old.Zero || cur.Sum < old.Sum ||
		cur.Resolution != old.Resolution || cur.First != old.First || len(cur.Counts) != len(old.Counts) {
		return cur
	}
	d := cur.Clone()
	for i, n := range old.Counts {
		if d.Counts[i] < n {
			return cur
		}
		d.Counts[i] -= n
	}
	d.Zero -= old.Zero
	d.Count -= old.Count
	d.Sum -= old.Sum
	return d
}

// expire forgets cgroups and series that nobody has reported for a while.
func (f *folder) expire(now time.Time) {
	for k, p := range f.parts {
		if now.Sub(p.seen) > forget {
			delete(f.parts, k)
		}
	}
	for k, t := range f.totals {
		if now.Sub(t.round) > forget {
			delete(f.totals, k)
		}
	}
}
