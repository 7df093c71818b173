package signal

import "time"

// RuntimeProcess is a process whose language runtime may have profiles of its own.
type RuntimeProcess struct {
	PID      uint32           `json:"pid" doc:"process id in the host's pid namespace"`
	Process  string           `json:"process" doc:"base name of the program"`
	Runtime  string           `json:"runtime" enum:"go,jvm,none"`
	Version  string           `json:"version,omitempty" doc:"of Go"`
	Listens  []string         `json:"listens" doc:"TCP addresses that a Go program listens on, as its network namespace has them"`
	Profiles []RuntimeProfile `json:"profiles" doc:"what it offers; a Go program's are known only when it has been asked"`
	Reason   string           `json:"reason,omitempty" doc:"why it offers nothing"`
}

// RuntimeProfile is a profile that a process' own runtime keeps.
type RuntimeProfile struct {
	Name    string   `json:"name" enum:"heap,allocs,goroutine,mutex,block,classes"`
	Help    string   `json:"help"`
	Samples []string `json:"samples" doc:"what its stacks can be weighted with; the first unless told"`
	At      string   `json:"at" doc:"where it comes from: an address, or the attach socket"`
	Count   *int64   `json:"count,omitempty" doc:"how many records the runtime says that it has; 0 of mutex and block is most often that the program does not take them"`
	Delta   bool     `json:"delta" doc:"the change within some seconds can be asked for"`
}

// RuntimeRequest asks a process for a profile of its runtime.
type RuntimeRequest struct {
	PID     uint32
	Profile string
	Sample  string        // what the stacks are weighted with; "": the profile's first
	For     time.Duration // the change within so long; 0: all since the program began
	Collect bool          // collect garbage first, which halts the program
}
