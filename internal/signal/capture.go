package signal

import "time"

// CaptureTarget says whose stacks a capture has. Its members are joined by and;
// one without any is the whole host.
type CaptureTarget struct {
	PID       uint32              `json:"pid,omitempty" doc:"process id in the host's pid namespace"`
	TID       uint32              `json:"tid,omitempty" doc:"thread id in the host's pid namespace"`
	Container string              `json:"container,omitempty" maxLength:"256" doc:"name or id of a container"`
	Cgroup    uint64              `json:"cgroup,omitempty" doc:"id of a cgroup: of a container, or of a systemd unit"`
	Labels    map[string][]string `json:"labels,omitempty" doc:"values of process, thread, namespace, pod, container, unit"`
}

// CaptureRequest asks for the stacks of a target in a window. The window may begin
// before the request and may end after it.
type CaptureRequest struct {
	Target CaptureTarget
	Types  []string // names of profile types; none: all that are taken
	From   time.Time
	To     time.Time
	Hertz  int    // raise the rate at which the CPUs are sampled to this while the window lasts; 0: leave it
	Why    string // what it was taken for, a line: an event, a rule, a person
}

// CaptureState tells how far a capture is.
type CaptureState string

// The states of a capture.
const (
	CaptureRunning CaptureState = "running"
	CaptureDone    CaptureState = "done"
	CaptureFailed  CaptureState = "failed"
)

// CaptureInfo is a capture without its stacks. An event has its ID.
type CaptureInfo struct {
	ID      string        `json:"id"` // a ULID
	State   CaptureState  `json:"state" enum:"running,done,failed"`
	Error   string        `json:"error,omitempty" doc:"why it failed, or what is missing"`
	Why     string        `json:"why,omitempty" doc:"what it was taken for"`
	Target  CaptureTarget `json:"target"`
	From    time.Time     `json:"from"`
	To      time.Time     `json:"to"`
	Hertz   int           `json:"hertz,omitempty" doc:"the rate that was asked for"`
	Types   []string      `json:"types"`
	Samples int64         `json:"samples"`
}

// Capture is the merged stacks of a target in a window, by type.
type Capture struct {
	CaptureInfo
	Graphs []*FlameGraph `json:"graphs"`
}
