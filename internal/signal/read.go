package signal

import "time"

// EventFilter selects events. Zero members do not restrict.
type EventFilter struct {
	From, To   time.Time // From ≤ time < To
	Kinds      []string
	Severities []Severity
	Text       string // full-text: every word must occur (prefix match on the last); quotes make a phrase
	Namespace  string
	Pod        string
	Container  string // container name or a prefix of its id
	Unit       string
	Comm       string
	PID        uint32
	Where      []Condition // every one must hold
	Limit      int         // at most this many events; 0 means the reader's default
	Before     string      // only events with an id smaller than this: the Next of the page before
	After      string      // only events with an id greater than this: what came later than that event
	Oldest     bool        // the page begins with the oldest event, not with the newest; Next is its After then
}

// EventPage is one page of events, newest first unless EventFilter.Oldest asks
// for the other order.
type EventPage struct {
	Events []*Document `json:"events"`
	Next   string      `json:"next,omitempty"` // Before of the next page; empty when this is the last
}

// EventGrouping says by what events are counted together.
type EventGrouping struct {
	Kind, Severity, Workload bool
	Buckets                  int // of time, of equal length; 0: not by time
	Limit                    int // at most this many groups, those with the most events
}

// EventCount is one group of events. Members that it was not grouped by are empty.
type EventCount struct {
	Time      *time.Time `json:"time,omitempty" doc:"start of the interval"`
	Kind      string     `json:"kind,omitempty"`
	Severity  Severity   `json:"severity,omitempty" enum:"info,warning,critical"`
	Namespace string     `json:"namespace,omitempty"`
	Pod       string     `json:"pod,omitempty"`
	Container string     `json:"container,omitempty"`
	Unit      string     `json:"unit,omitempty" doc:"of events without a container"`
	Count     int        `json:"count"`
}

// ValueCount is a value that a member of events has, and in how many.
type ValueCount struct {
	Value string `json:"value"`
	Count int    `json:"count"`
}

// EventBucket counts the events of one kind in one interval of a timeline.
type EventBucket struct {
	Time  time.Time      `json:"time"`  // start of the interval
	Count map[string]int `json:"count"` // by kind
}

// StoreStatus says how the embedded store is doing.
type StoreStatus struct {
	Dir          string        `json:"dir,omitempty"` // empty with --store none
	Error        string        `json:"error,omitempty"`
	MetricBytes  int64         `json:"metric_bytes"`
	MetricSeries uint64        `json:"metric_series"`
	EventBytes   int64         `json:"event_bytes"`
	Events       int64         `json:"events"`
	SetAside     uint64        `json:"set_aside" doc:"how often since the start something unreadable was moved aside, or cut off where it was broken"`
	OldestMetric *time.Time    `json:"oldest_metric,omitempty"`
	OldestEvent  *time.Time    `json:"oldest_event,omitempty"`
	Retention    RetentionInfo `json:"retention"`
}

// RetentionInfo is the retention in force.
type RetentionInfo struct {
	MetricAge   string `json:"metric_age"`
	MetricBytes int64  `json:"metric_bytes"`
	EventAge    string `json:"event_age"`
	EventBytes  int64  `json:"event_bytes"`
}

// Account is the conservation law of one probe's events, summed since start:
//
//	Observed = Σ Dropped + Routed
//
// and for each sink
//
//	Routed = Delivered + Σ Dropped + Failed + Queued
type Account struct {
	Probe    string            `json:"probe"`
	Observed uint64            `json:"observed"`
	Dropped  map[string]uint64 `json:"dropped"` // before the pipe, by reason
	Routed   uint64            `json:"routed"`  // taken by the pipe
	Sinks    []SinkAccount     `json:"sinks"`
}

// SinkAccount is one sink's part of an Account.
type SinkAccount struct {
	Sink      string `json:"sink"`
	Delivered uint64 `json:"delivered"`
	Dropped   uint64 `json:"dropped"` // queue full: the oldest went
	Failed    uint64 `json:"failed"`  // given up after retries
	Queued    uint64 `json:"queued"`  // still on the way
}

// Balanced tells whether the conservation law holds for a.
func (a *Account) Balanced() bool {
	var dropped uint64
	for _, n := range a.Dropped {
		dropped += n
	}
	if a.Observed != dropped+a.Routed {
		return false
	}
	for _, s := range a.Sinks {
		if a.Routed != s.Delivered+s.Dropped+s.Failed+s.Queued {
			return false
		}
	}
	return true
}
