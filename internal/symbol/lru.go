package symbol

import (
	"container/list"
	"sync"
)

// lru keeps values up to a number of bytes and drops those that were not used
// for longest.
type lru[K comparable, V any] struct {
	mu      sync.Mutex
	limit   int64
	used    int64
	evicted uint64
	order   *list.List // of *item[K, V], the last used in front
	items   map[K]*list.Element
}

type item[K comparable, V any] struct {
	key   K
	value V
	bytes int64
}

func newLRU[K comparable, V any](limit int64) *lru[K, V] {
	return &lru[K, V]{limit: limit, order: list.New(), items: make(map[K]*list.Element)}
}

func (l *lru[K, V]) get(k K) (v V, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.items[k]
	if !ok {
		return v, false
	}
	l.order.MoveToFront(e)
	return e.Value.(*item[K, V]).value, true
}

// put adds or replaces a value that takes so many bytes.
func (l *lru[K, V]) put(k K, v V, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.items[k]; ok {
		it := e.Value.(*item[K, V])
		l.used += bytes - it.bytes
		it.value, it.bytes = v, bytes
		l.order.MoveToFront(e)
	} else {
		l.items[k] = l.order.PushFront(&item[K, V]{k, v, bytes})
		l.used += bytes
	}
	for l.used > l.limit {
		e := l.order.Back()
		it := e.Value.(*item[K, V])
		l.order.Remove(e)
		delete(l.items, it.key)
		l.used -= it.bytes
		l.evicted++
	}
}

func (l *lru[K, V]) stats() (n int, bytes int64, evicted uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.items), l.used, l.evicted
}
