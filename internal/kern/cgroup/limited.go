package cgroup

import "path"

// Limited chooses from living groups those whose limits are somebody's:
// containers, pods and units by their top group, of others the leaves.
func Limited(live []Entry) []Entry {
	parents := make(map[string]bool, len(live))
	for i := range live {
		parents[path.Dir(live[i].Path)] = true
	}
	var out []Entry
	for i := range live {
		e := &live[i]
		pod := e.Kind == Pod && e.Top == e.Path
		if pod || e.Workload() && (e.Kind != Plain || !parents[e.Path]) {
			out = append(out, *e)
		}
	}
	return out
}

// Short names the group in a sentence, where a record has the name of the container.
func (e *Entry) Short() string {
	switch {
	case e.Kind == Pod:
		return "pod " + e.PodUID
	case e.Kind == Container && len(e.Identity.ID) > 12:
		return "container " + e.Identity.ID[:12]
	case e.Unit != "":
		return e.Unit
	default:
		return e.Path
	}
}
