package runtimes

import (
	"strings"

	"huatuo/internal/signal"
)

// kind is a profile that a runtime may have.
type kind struct {
	name, runtime string
	help          string
	samples       []string // what the runtime calls the values; what is shown unless told first
	delta         bool
	collect       bool
}

func kinds() []kind {
	return []kind{
		{"heap", "go", "Memory of Go that is in use, by where it was allocated; a sample for each 512 KiB unless the program says otherwise.", []string{"inuse_space", "inuse_objects", "alloc_space", "alloc_objects"}, true, true},
		{"allocs", "go", "Memory of Go that was allocated since the program began, by where.", []string{"alloc_space", "alloc_objects", "inuse_space", "inuse_objects"}, true, false},
		{"goroutine", "go", "Goroutines, by where they are now.", []string{"goroutine"}, true, false},
		{"mutex", "go", "Time that goroutines waited for mutexes, by who held them: those that runtime.SetMutexProfileFraction takes, none unless the program sets it.", []string{"delay", "contentions"}, true, false},
		{"block", "go", "Time that goroutines waited for channels, mutexes and the like, by where: those that runtime.SetBlockProfileRate takes, none unless the program sets it.", []string{"delay", "contentions"}, true, false},
		{"classes", "jvm", "Objects on Java's heap, by class. The program is halted while they are counted.", []string{"space", "instances"}, false, true},
	}
}

func kindOf(name string) *kind {
	for _, k := range kinds() {
		if k.name == name {
			return &k
		}
	}
	return nil
}

// names lists the profiles of a runtime.
func names(runtime string) string {
	var out []string
	for _, k := range kinds() {
		if k.runtime == runtime {
			out = append(out, k.name)
		}
	}
	return strings.Join(out, ", ")
}

func (k *kind) offer(at string, count *int64) signal.RuntimeProfile {
	return signal.RuntimeProfile{Name: k.name, Help: k.help, Samples: k.samples, At: at, Count: count, Delta: k.delta}
}
