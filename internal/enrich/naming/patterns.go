package naming

import (
	"slices"
	"strings"

	"huatuo/internal/enrich"
)

const (
	// maxLabels and maxValue bound what of its labels a container brings into
	// every one of its events. Kubernetes allows 63 bytes for a value.
	maxLabels = 32
	maxValue  = 256
)

// Patterns choose labels by their keys: in each, * stands for any characters.
type Patterns []string

// Match tells whether a key matches one of the patterns.
func (ps Patterns) Match(key string) bool {
	return slices.ContainsFunc(ps, func(p string) bool { return wild(p, key) })
}

// choose returns the members of m whose keys match, within bounds; nil for none.
func (ps Patterns) choose(m map[string]string) map[string]string {
	var keys []string
	for k, v := range m {
		if len(v) <= maxValue && ps.Match(k) {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	slices.Sort(keys) // so that the same ones are left out each time
	out := make(map[string]string, min(len(keys), maxLabels))
	for _, k := range keys[:min(len(keys), maxLabels)] {
		out[k] = m[k]
	}
	return out
}

func wild(pattern, s string) bool {
	first, rest, star := strings.Cut(pattern, "*")
	if !star {
		return pattern == s
	}
	s, ok := strings.CutPrefix(s, first)
	if !ok {
		return false
	}
	parts := strings.Split(rest, "*")
	for i, p := range parts {
		if i == len(parts)-1 {
			return strings.HasSuffix(s, p)
		}
		at := strings.Index(s, p)
		if at < 0 {
			return false
		}
		s = s[at+len(p):]
	}
	return true
}

// name turns a container into what events carry of it.
func (r *Registry) name(c *Container) enrich.Name {
	return enrich.Name{
		Namespace: c.Namespace, Pod: c.Pod, PodUID: c.PodUID, Name: c.Name, Image: c.Image, Runtime: c.Runtime, QoS: c.QoS,
		Labels: r.opts.Labels.choose(c.Labels), Annotations: r.opts.Annotations.choose(c.Annotations),
	}
}
