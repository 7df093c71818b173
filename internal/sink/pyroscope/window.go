package pyroscope

import (
	"cmp"
	"slices"
	"time"

	"huatuo/internal/signal"
)

// window is the samples of an interval, by series and stack.
type window struct {
	begin, end time.Time
	series     map[seriesKey]series
	samples    uint64
	frames     int // in all its stacks
}

// seriesKey says which samples go together.
type seriesKey struct {
	typ     *signal.ProfileType
	service string
	labels  signal.ProfileLabels // those that tell series apart
}

// series is what stacks have. A stack is known by its pointer, as signal.Stack
// says: the same one may be there twice.
type series map[*signal.Stack]weight

// weight is the samples of a stack.
type weight struct {
	value   int64
	samples uint64
}

func newWindow(begin time.Time) *window {
	return &window{begin: begin, series: map[seriesKey]series{}}
}

func (w *window) add(x *signal.LabeledSample, groupBy []string) {
	k := seriesKey{typ: x.Type, service: x.Labels.Service(), labels: only(&x.Labels, groupBy)}
	s := w.series[k]
	if s == nil {
		s = series{}
		w.series[k] = s
	}
	old, ok := s[x.Stack]
	if !ok {
		w.frames += len(x.Stack.Frames) + 1
	}
	s[x.Stack] = weight{old.value + x.Value, old.samples + 1}
	w.samples++
}

// only returns the labels of these names.
func only(l *signal.ProfileLabels, names []string) (out signal.ProfileLabels) {
	for _, n := range names {
		switch n {
		case "namespace":
			out.Namespace = l.Namespace
		case "pod":
			out.Pod = l.Pod
		case "container":
			out.Container = l.Container
		case "unit":
			out.Unit = l.Unit
		case "process":
			out.Process = l.Process
		case "thread":
			out.Thread = l.Thread
		}
	}
	return out
}

// count is how many samples it has.
func (s series) count() (n uint64) {
	for _, x := range s {
		n += x.samples
	}
	return n
}

// sorted lists the series in an order that is always the same.
func (w *window) sorted() []seriesKey {
	keys := make([]seriesKey, 0, len(w.series))
	for k := range w.series {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b seriesKey) int {
		return cmp.Or(
			cmp.Compare(a.typ.Name, b.typ.Name), cmp.Compare(a.service, b.service),
			cmp.Compare(a.labels.Namespace, b.labels.Namespace), cmp.Compare(a.labels.Pod, b.labels.Pod),
			cmp.Compare(a.labels.Container, b.labels.Container), cmp.Compare(a.labels.Unit, b.labels.Unit),
			cmp.Compare(a.labels.Process, b.labels.Process), cmp.Compare(a.labels.Thread, b.labels.Thread),
		)
	})
	return keys
}

// frames are those of a stack. One of which nothing is known, because a kernel
// thread has none but the profiler's, has one that says so: servers refuse
// samples without any.
func frames(s *signal.Stack) []signal.Frame {
	if len(s.Frames) == 0 {
		return []signal.Frame{{Function: "[unknown]"}}
	}
	return s.Frames
}

// period is the largest number that all values are multiples of: what one
// observation stood for, if all stood for the same.
func (s series) period() int64 {
	var p int64
	for _, x := range s {
		for v := x.value; v != 0; {
			p, v = v, p%v
		}
	}
	return max(p, -p, 1)
}

// serviceName is what a workload without any name is called: a server refuses an
// empty one.
func (k *seriesKey) serviceName() string {
	if k.service == "" {
		return "unknown"
	}
	return k.service
}
