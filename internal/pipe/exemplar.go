package pipe

import (
	"strings"

	"huatuo/internal/signal"
)

// exemplars keeps the latest event of each series that events are instances of.
type exemplars map[exemplarKey]*signal.Exemplar

type exemplarKey struct {
	schema *signal.Schema
	cgroup uint64
	labels string
}

// maxExemplars bounds the series remembered: hosts × kinds, and the workloads
// that had an event of late.
const maxExemplars = 1024

func (e exemplars) note(r *signal.Record) {
	for _, m := range r.Measures {
		k := exemplarKey{m.Schema, m.CgroupID, join(m.Labels)}
		if _, ok := e[k]; !ok && len(e) >= maxExemplars {
			for old := range e { // any: which one goes matters little
				delete(e, old)
				break
			}
		}
		e[k] = &signal.Exemplar{EventID: r.ID, Value: m.Value, Time: r.Time}
	}
}

// join makes one comparable string of label values.
func join(labels []string) string {
	switch len(labels) {
	case 0:
		return ""
	case 1:
		return labels[0]
	}
	return strings.Join(labels, "\x00")
}

// exemplar returns the latest event of a series, nil when there is none.
func (p *Pipe) exemplar(s *signal.Sample) *signal.Exemplar {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.recent) == 0 {
		return nil
	}
	return p.recent[exemplarKey{s.Schema, s.CgroupID, join(s.Labels)}]
}
