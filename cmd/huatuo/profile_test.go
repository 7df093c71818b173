package main

import (
	"slices"
	"testing"

	"huatuo/internal/profile"
	sig "huatuo/internal/signal"
)

// TestFamilies: a word stands for the types of a family that can be added up.
func TestFamilies(t *testing.T) {
	f := families(profile.Types())
	if got := f["offcpu"]; slices.Contains(got, profile.Idle) || !slices.Contains(got, profile.Blocked) {
		t.Errorf("offcpu has %d types", len(got))
	}
	if _, ok := f["hw"]; ok {
		t.Error("cycles and misses are added up")
	}
	r := &profileRun{}
	if err := r.choose([]string{"hw.cycles"}, nil, profile.Types()); err != nil || !slices.Equal(r.types, []*sig.ProfileType{profile.Cycles}) {
		t.Errorf("hw.cycles: %v, %v", r.types, err)
	}
	if err := r.choose([]string{"hw"}, nil, profile.Types()); err == nil {
		t.Error("hw is taken for a type")
	}
}
