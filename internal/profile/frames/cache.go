package frames

import "time"

// cache keeps what was asked for of late, up to twice a number of entries: when
// one generation is full or old it becomes the old one, and what was not asked
// for meanwhile is forgotten.
type cache[K comparable, V any] struct {
	young, old map[K]V
	most       int
	longest    time.Duration // age of a generation
	since      time.Time
}

func newCache[K comparable, V any](most int, longest time.Duration) *cache[K, V] {
	return &cache[K, V]{young: map[K]V{}, most: most, longest: longest}
}

func (c *cache[K, V]) get(k K) (V, bool) {
	if v, ok := c.young[k]; ok {
		return v, true
	}
	v, ok := c.old[k]
	return v, ok
}

// keep is get that makes the entry stay.
func (c *cache[K, V]) keep(k K, now time.Time) (V, bool) {
	v, ok := c.get(k)
	if ok {
		c.put(k, v, now)
	}
	return v, ok
}

func (c *cache[K, V]) put(k K, v V, now time.Time) {
	if len(c.young) >= c.most || now.Sub(c.since) >= c.longest {
		c.old, c.young, c.since = c.young, map[K]V{}, now
	}
	c.young[k] = v
}
