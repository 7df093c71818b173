package app

import (
	"testing"

	"huatuo/internal/config"
	"huatuo/internal/profile"
)

// TestSameEngine: the rate of the CPUs' clocks changes while an engine runs, that
// of their counters does not.
func TestSameEngine(t *testing.T) {
	a := config.Default(nil).Profiles
	b := a
	b.CPUHertz = 97
	if !sameEngine(a, b) {
		t.Error("the engine is built anew for another rate")
	}
	a.Types = []string{profile.CPU.Name, profile.Cycles.Name}
	b.Types = a.Types
	if sameEngine(a, b) || !sameEngine(a, a) {
		t.Error("counters keep their rate when it changes")
	}
}
