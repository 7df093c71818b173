package app

import "testing"

// TestSkips: what programs skipped adds up by probe, also over programs that
// come and go.
func TestSkips(t *testing.T) {
	var s skips
	s.note(map[uint32]ranFor{1: {probe: "a", skipped: 5}, 2: {probe: "b"}, 3: {probe: "a", skipped: 1}})
	s.note(map[uint32]ranFor{1: {probe: "a", skipped: 7}, 2: {probe: "b"}})
	s.note(map[uint32]ranFor{4: {probe: "a", skipped: 3}, 2: {probe: "b", skipped: 1}}) // a began anew
	got := map[string]uint64{}
	s.each(func(probe string, n uint64) { got[probe] = n })
	if got["a"] != 11 || got["b"] != 1 {
		t.Errorf("%v, want a 11 and b 1", got)
	}
}
