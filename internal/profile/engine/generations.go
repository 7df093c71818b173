//go:build !noprofiler

package engine

// generations keeps what was asked for of late, up to twice a number of
// entries: when one generation is full it becomes the old one, and what was not
// asked for during a whole generation is forgotten.
type generations[K comparable, V any] struct {
	young, old map[K]V
	most       int
}

func newGenerations[K comparable, V any](most int) *generations[K, V] {
	return &generations[K, V]{young: make(map[K]V), most: most}
}

func (g *generations[K, V]) get(k K) (V, bool) {
	if v, ok := g.young[k]; ok {
		return v, true
	}
	v, ok := g.old[k]
	if ok {
		g.put(k, v)
	}
	return v, ok
}

func (g *generations[K, V]) put(k K, v V) {
	if len(g.young) >= g.most {
		g.old, g.young = g.young, make(map[K]V, g.most/2)
	}
	g.young[k] = v
}

func (g *generations[K, V]) clear() { g.young, g.old = make(map[K]V), nil }
