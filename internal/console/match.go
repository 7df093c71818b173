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
// on: all but time and text, which need the store.
func matches(f *signal.EventFilter, d *signal.Document) bool {
	return passes(f, d, signal.TreeOf(d))
}

// passes is matches for one of many filters of the same document, whose tree
// they share.
func passes(f *signal.EventFilter, d *signal.Document, tree *signal.Tree) bool {
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
	return inWorkload(f, d.Container) && tree.Match(f.Where)
}

func inWorkload(f *signal.EventFilter, c *signal.Container) bool {
	if f.Namespace == "" && f.Pod == "" && f.Container == "" && f.Unit == "" {
		return true
	}
	return c != nil &&
		(f.Namespace == "" || c.Namespace == f.Namespace) &&
		(f.Pod == "" || c.Pod == f.Pod) &&
		(f.Unit == "" || c.Unit == f.Unit) &&
		(f.Container == "" || c.Name == f.Container || len(f.Container) >= minContainerID && strings.HasPrefix(c.ID, f.Container))
}
