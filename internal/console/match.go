package console

import (
	"slices"
	"strings"

	"huatuo/internal/signal"
)

// minContainerID is how much of a container's id a filter must have to mean
// the id, as in the store: a container named "a" is not every id with an a in front.
const minContainerID = 4

// matches tells whether d passes those members of f that a stream can filter
// on: all but time, text and fields, which need the store.
func matches(f *signal.EventFilter, d *signal.Document) bool {
	if len(f.Kinds) > 0 && !slices.Contains(f.Kinds, d.Kind) {
		return false
	}
	if len(f.Severities) > 0 && !slices.Contains(f.Severities, d.Severity) {
		return false
	}
	if f.PID != 0 || f.Comm != "" {
		p := d.Process
		if p == nil || (f.PID != 0 && p.PID != f.PID) || (f.Comm != "" && p.Comm != f.Comm) {
			return false
		}
	}
	if f.Namespace == "" && f.Pod == "" && f.Container == "" && f.Unit == "" {
		return true
	}
	c := d.Container
	return c != nil &&
		(f.Namespace == "" || c.Namespace == f.Namespace) &&
		(f.Pod == "" || c.Pod == f.Pod) &&
		(f.Unit == "" || c.Unit == f.Unit) &&
		(f.Container == "" || c.Name == f.Container || len(f.Container) >= minContainerID && strings.HasPrefix(c.ID, f.Container))
}
