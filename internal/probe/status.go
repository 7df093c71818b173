package probe

import (
	"errors"
	"time"

	"huatuo/internal/kern/load"
)

// State is where a probe is in its life.
type State string

// States of a probe.
const (
	Starting    State = "starting"
	Running     State = "running"
	Degraded    State = "degraded"    // running, but a hook is missing: see Hooks
	Unsupported State = "unsupported" // this kernel lacks what it needs; not tried again
	Absent      State = "absent"      // there is nothing on this machine that it could watch; looked for again
	Failed      State = "failed"      // cannot run; tried again with back-off
	Disabled    State = "disabled"    // by configuration
	Shed        State = "shed"        // ended because the agent cost too much: see package budget
	Stopped     State = "stopped"
)

// ErrAbsent is what a probe returns, wrapped, when there is nothing on this
// machine that it could watch: no such device. It is run again each five
// minutes, in case one comes.
var ErrAbsent = errors.New("nothing to watch")

// Status is what the user is told about one probe.
type Status struct {
	Name     string           `json:"name"`
	Help     string           `json:"help"`
	Source   string           `json:"source"`
	State    State            `json:"state" enum:"starting,running,degraded,unsupported,absent,failed,disabled,shed,stopped"`
	Reason   string           `json:"reason,omitempty" doc:"why it does not run, or what is missing"`
	Hooks    []load.HookState `json:"hooks,omitempty"`
	Since    time.Time        `json:"since" doc:"when it came into this state"`
	Restarts int              `json:"restarts,omitempty"`
	Lean     []string         `json:"lean,omitempty" doc:"what it does without at the moment, because the agent cost too much"`
	Signals  []string         `json:"signals" doc:"names of the metrics and events it makes"`
}
