package app

import (
	"testing"

	"huatuo/internal/diagnose/chain"
	"huatuo/internal/probe"
)

// TestUnseen: what was lost is told apart from what nobody wants to see.
func TestUnseen(t *testing.T) {
	got := unseen(probe.Loss{Observed: 100, LeftOut: 7, Dropped: map[string]uint64{
		"rate_limited": 10, "ring_full": 5, "undecoded": 1, "normal_place": 20, "filtered": 30, "known_issue": 40,
	}})
	if want := (chain.Unseen{Lost: 16, LeftOut: 97}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
