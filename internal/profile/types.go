// Package profile says what is profiled, and turns stacks into the forms that
// people and tools read.
package profile

import "huatuo/internal/signal"

// The types of profile.
var (
	CPU = &signal.ProfileType{
		Name: "cpu", Unit: "nanoseconds",
		Help: "Time on a CPU, by sampling each CPU's clock.",
		Read: "The widest frames are where the CPUs' time goes; a wide one with nothing on top does the work itself.",
	}
)

// Types lists all types in the order in which they are shown.
func Types() []*signal.ProfileType {
	return []*signal.ProfileType{CPU}
}

// ByName returns the type of that name, nil when there is none.
func ByName(name string) *signal.ProfileType {
	for _, t := range Types() {
		if t.Name == name {
			return t
		}
	}
	return nil
}
