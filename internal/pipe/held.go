package pipe

import (
	"slices"
	"time"
)

// maxHeld records are held back at a time: a flood of them must not wait, nor
// make the agent large.
const maxHeld = 1024

// held are records whose grace is not over, the next first. Not safe for
// concurrent use.
type held []heldItem

type heldItem struct {
	item
	until time.Time
}

// push keeps it until a time; false when there is no room.
func (h *held) push(it item, until time.Time) bool {
	if len(*h) >= maxHeld {
		return false
	}
	i := len(*h)
	for i > 0 && until.Before((*h)[i-1].until) {
		i--
	}
	*h = slices.Insert(*h, i, heldItem{it, until})
	return true
}

// due is when the next is ripe; zero when there is none.
func (h held) due() time.Time {
	if len(h) == 0 {
		return time.Time{}
	}
	return h[0].until
}

func (h held) ripe(now time.Time) bool { return len(h) > 0 && !now.Before(h[0].until) }

func (h *held) pop() (item, bool) {
	if len(*h) == 0 {
		return item{}, false
	}
	it := (*h)[0].item
	*h = slices.Delete(*h, 0, 1)
	return it, true
}
