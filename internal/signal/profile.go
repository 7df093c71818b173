package signal

import "time"

// ProfileType is one thing that stacks are weighted with: nanoseconds on a CPU,
// nanoseconds of waiting, bytes.
type ProfileType struct {
	Name string `json:"name"` // lower case with dots: "cpu", "offcpu.blocked"
	Unit string `json:"unit" enum:"nanoseconds,bytes,count"`
	Help string `json:"help"` // one sentence
	Read string `json:"read"` // how to read it, one line
}

// Stack is a call stack, innermost frame first, named. A profiler gives the same
// *Stack for the same stack as far as its memory goes, so that a reader can know
// it by the pointer; nobody changes one.
type Stack struct {
	Frames    []Frame
	Kernel    int  // how many of Frames, from the first, are the kernel's
	Truncated bool // outer frames are missing
}

// StackSample is one observation of a profiler: this thread, there, at that
// moment, for so long.
type StackSample struct {
	Type   *ProfileType
	Time   time.Time
	CPU    uint32
	PID    uint32 // thread group id in the host's pid namespace
	TID    uint32
	Thread string // name of the thread
	Exe    string // path of the program as its process sees it, "" when unknown
	Value  int64  // in the type's unit, for all that the sample stands for
	Stack  *Stack

	TraceID [16]byte // of the span that was open on the thread; zeros: none, or not known
	SpanID  [8]byte
}

// ProfileLabels say whose samples they are. Samples of the same labels are one
// series.
type ProfileLabels struct {
	PID       uint32 `json:"pid,omitempty"`
	Process   string `json:"process,omitempty"` // base name of the program, else the name of the first thread
	Thread    string `json:"thread,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	Pod       string `json:"pod,omitempty"`
	Container string `json:"container,omitempty"`
	Unit      string `json:"unit,omitempty"`
}

// Get returns a label by its name in JSON; ok is false when there is none of
// that name.
func (l *ProfileLabels) Get(name string) (value string, ok bool) {
	switch name {
	case "process":
		return l.Process, true
	case "thread":
		return l.Thread, true
	case "namespace":
		return l.Namespace, true
	case "pod":
		return l.Pod, true
	case "container":
		return l.Container, true
	case "unit":
		return l.Unit, true
	}
	return "", false
}

// ProfileLabelNames are the labels that values can be asked of.
func ProfileLabelNames() []string {
	return []string{"namespace", "pod", "container", "unit", "process", "thread"}
}

// LabeledSample is a StackSample with its labels, on its way to who keeps it.
type LabeledSample struct {
	StackSample
	Labels ProfileLabels
}

// ProfileQuery asks for the samples of a window.
type ProfileQuery struct {
	Type     string
	From, To time.Time
	PID      uint32              // 0: any
	TID      uint32              // 0: any
	Labels   map[string][]string // by name: any of the values; a label that is not named may be anything
	Columns  []Range             // if any: only samples within one of them (the heat map's selection)
	// Match, if there is one, must say yes to the labels too. It may be called
	// once for many samples of the same labels, and from one goroutine at a time.
	Match func(*ProfileLabels) bool
}

// Range is a half-open stretch of time.
type Range struct{ From, To time.Time }

// FlameNode is one node of a merged tree of stacks.
type FlameNode struct {
	Frame  int   `json:"f"` // index of FlameGraph.Frames
	Parent int   `json:"p"` // index of the node that it was called from; -1 for a root
	Self   int64 `json:"s"` // value of samples that end here
	Total  int64 `json:"t"` // value of all samples through here

	// What a test of significance needs, 0 in a graph that was read from a file:
	// how many samples those are, and their values, each squared, summed.
	SelfCount, Count     int64   `json:"-"`
	SelfSquares, Squares float64 `json:"-"`
}

// FlameGraph is the tree of all stacks of a query. Parents stand before their
// children.
type FlameGraph struct {
	Type      string      `json:"type"`
	Unit      string      `json:"unit"`
	From      time.Time   `json:"from"`
	To        time.Time   `json:"to"`
	Total     int64       `json:"total"`
	Samples   int64       `json:"samples"`
	Frames    []Frame     `json:"frames"`
	Nodes     []FlameNode `json:"nodes"`
	Dropped   int         `json:"dropped_nodes,omitempty" doc:"nodes that were too small to be sent; their value is in their parents"`
	Truncated int64       `json:"truncated,omitempty" doc:"value of stacks whose outer frames are missing"`
	Squares   float64     `json:"-"` // sum of the samples' values, each squared
}

// ProfileSeries is how much of a query some labels have.
type ProfileSeries struct {
	Labels  map[string]string `json:"labels"`
	Value   int64             `json:"value"`
	Samples int64             `json:"samples"`
}
