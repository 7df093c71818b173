package console

import (
	"context"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"

	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// Agent is what the console shows of the agent that it runs in. Every method
// may be called from many goroutines and returns at once.
type Agent interface {
	Node() Node
	Catalog() []CatalogEntry          // every metric and event, in the order of the docs
	Probes() []probe.Status           // in the order of the docs
	Probe(name string) (Manual, bool) // false when there is no such probe
	Accounts() []signal.Account       // of the probes that emit events
	StoreStatus() signal.StoreStatus  //
	Sinks() []Sink                    //
	Cost() Cost                       //
	EffectiveConfig() (string, error) // YAML, secrets masked
	Ready() error                     // nil once probes and store have started
}

// Events reads kept events. An error may have a method ErrorType() string; what
// it returns, named as in Prometheus' API, decides the status of the answer:
// bad_data and not_found are the caller's, timeout is for what took too long.
type Events interface {
	// Events returns one page, newest first.
	Events(ctx context.Context, f signal.EventFilter) (signal.EventPage, error)
	// Event returns nil, or an error of type not_found, when there is no event with that id.
	Event(ctx context.Context, id string) (*signal.Document, error)
	// Timeline counts the events from f.From to f.To, both of which are set,
	// in that many intervals of equal length.
	Timeline(ctx context.Context, f signal.EventFilter, buckets int) ([]signal.EventBucket, error)
	// CountEvents counts events by what g says, the largest groups first.
	CountEvents(ctx context.Context, f signal.EventFilter, g signal.EventGrouping) ([]signal.EventCount, error)
	// EventValues lists the values of a member in the newest of the events that
	// f selects: those with part in them, the most frequent first.
	EventValues(ctx context.Context, f signal.EventFilter, path, part string, limit int) ([]signal.ValueCount, error)
}

// Metrics answers PromQL over the metric history. Its errors are as those of Events.
type Metrics interface {
	Instant(ctx context.Context, expr string, at time.Time) (Result, error)
	Range(ctx context.Context, expr string, from, to time.Time, step time.Duration) (Result, error)
	// Series, LabelNames and LabelValues also tell whether there was more than
	// the limit.
	Series(ctx context.Context, q Selection) (sets []labels.Labels, more bool, err error)
	LabelNames(ctx context.Context, q Selection) (names []string, more bool, err error)
	LabelValues(ctx context.Context, label string, q Selection) (values []string, more bool, err error)
}

// Result is the answer to a PromQL query. Value is not changed afterwards.
type Result struct {
	Value           parser.Value
	Warnings, Infos []string
}

// Selection asks which series, labels or values there are.
type Selection struct {
	Match    []string  // selectors, of which a series matches one; none means all series
	From, To time.Time // zero: no bound
	Limit    int       // 0 for the reader's own
}

// Node is the machine and the agent on it.
type Node struct {
	Hostname      string    `json:"hostname"`
	Kernel        string    `json:"kernel" doc:"release, as uname -r prints it"`
	Arch          string    `json:"arch"`
	CPUs          int       `json:"cpus"`
	MemoryBytes   uint64    `json:"memory_bytes"`
	BootTime      time.Time `json:"boot_time"`
	CgroupMode    string    `json:"cgroup_mode" enum:"v1,v2,hybrid"`
	BTF           string    `json:"btf" doc:"kernel, the path of the file in use, or none"`
	Version       string    `json:"version" doc:"of the agent"`
	Commit        string    `json:"commit"`
	GoVersion     string    `json:"go_version"`
	Started       time.Time `json:"started" doc:"when the agent started"`
	Now           time.Time `json:"now" doc:"the node's clock"`
	Listen        string    `json:"listen"`
	StoreInterval float64   `json:"store_interval_seconds" doc:"between two samples of a stored series; 0 without a store"`
}

// CatalogEntry is one signal and the probe that makes it.
type CatalogEntry struct {
	signal.Schema
	Probe string `json:"probe" doc:"empty for signals of the agent itself"`
}

// Manual is one probe with all that is known about it.
type Manual struct {
	probe.Status
	Readme  string           `json:"readme" doc:"Markdown"`
	Schemas []*signal.Schema `json:"signals"` // in place of the names in Status
	Config  map[string]any   `json:"config" doc:"the probe's configuration in force"`
}

// ProbeStatus is one line of the list of probes.
type ProbeStatus struct {
	probe.Status
	Account *signal.Account `json:"account" doc:"null for a probe that emits no events"`
}

// Sink is the state of one output.
type Sink struct {
	Name     string `json:"name"`
	State    string `json:"state" doc:"ok, or what is wrong in a word"`
	Queued   int    `json:"queued" doc:"documents waiting"`
	Capacity int    `json:"capacity" doc:"of the queue"`
	Error    string `json:"error,omitempty" doc:"the last one"`
}

// Cost is what the agent itself takes from the node.
type Cost struct {
	CPURatio     float64  `json:"cpu_ratio" doc:"of one core, over the last minute or so"`
	RSSBytes     uint64   `json:"rss_bytes"`
	BPFSeconds   *float64 `json:"bpf_seconds_per_second" doc:"run time of the BPF programs; null when the kernel does not count it"`
	Goroutines   int      `json:"goroutines"`
	StartSeconds float64  `json:"start_seconds" doc:"from exec to the first sample"`
	LimitRatio   *float64 `json:"limit_ratio" doc:"share of all CPUs of the node that the agent and its BPF programs may take together; null when that is not enforced"`
	UsedRatio    *float64 `json:"used_ratio" doc:"the share that they took when it was last measured; null before"`
	Shed         []Shed   `json:"shed" nullable:"false" doc:"what the agent does without because it cost too much, the oldest first"`
}

// Shed is something that the agent gave up because it cost too much.
type Shed struct {
	Probe string    `json:"probe"`
	Class string    `json:"class" enum:"detail,sampling,probe"`
	What  string    `json:"what" doc:"what is missing"`
	Since time.Time `json:"since"`
	Why   string    `json:"why"`
}
