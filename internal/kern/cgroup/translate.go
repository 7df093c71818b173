package cgroup

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// translateMax bounds a Translator's memory: 100 kB. A node has hundreds of groups.
const translateMax = 4096

// Translator turns the id of a group in one hierarchy into the id of the group
// with the same path in the hierarchy that gives a workload's identity. Some
// kernel objects know only one: a block request its blkio group, a socket its
// group in the default hierarchy. It is safe for concurrent use.
type Translator struct {
	h    *handles // nil: both are one hierarchy
	root string

	mu    sync.Mutex
	known map[uint64]translated
}

type translated struct {
	id    uint64
	until time.Time // when to look again; zero: never, ids are not used again
}

// Translator makes the Translator for ids of a v1 controller's hierarchy, or
// with an empty controller or one that v2 manages for ids of the default
// hierarchy. It fails when the kernel cannot open groups by id.
func (l *Layout) Translator(controller string) (*Translator, error) {
	t := &Translator{root: l.IdentityRoot, known: make(map[uint64]translated)}
	from := l.Mount(controller)
	if from == "" {
		from = l.Mount("")
	}
	if from == "" {
		if controller == "" {
			controller = "default"
		}
		return nil, fmt.Errorf("find the %s hierarchy: %w", controller, errors.ErrUnsupported)
	}
	if from == l.IdentityRoot {
		return t, nil
	}
	h, err := openHandles(from)
	if err != nil {
		h.close()
		return nil, err
	}
	t.h = h
	return t, nil
}

// ID returns the identity that belongs to id, 0 when there is none: the group
// is gone and was never asked for while it lived, or it has no counterpart.
func (t *Translator) ID(id uint64) uint64 {
	if t.h == nil || id == 0 {
		return id
	}
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if k, ok := t.known[id]; ok && (k.until.IsZero() || now.Before(k.until)) {
		return k.id
	}
	var k translated
	if path, err := t.h.path(id); err == nil {
		k.id, _ = ID(t.root + path)
	}
	if k.id == 0 {
		k.until = now.Add(reconcileEvery)
	}
	if len(t.known) >= translateMax {
		clear(t.known) // the living are found again
	}
	t.known[id] = k
	return k.id
}

// Close gives back what the Translator holds of the system.
func (t *Translator) Close() {
	if t.h != nil {
		t.h.close()
	}
}

// PathByID returns the path of the living group with that id in the hierarchy
// of a v1 controller, or in the default one when controller is empty or has
// none of its own. It opens the hierarchy each time: for rare questions.
func (l *Layout) PathByID(controller string, id uint64) (string, error) {
	root := l.Mount(controller)
	if root == "" {
		root = l.Mount("")
	}
	h, err := openHandles(root)
	defer h.close()
	if err != nil {
		return "", err
	}
	return h.path(id)
}
