// Package signal defines the one datum that moves through the agent.
//
// A probe makes records and samples; every later stage (enrich, route, store,
// export, show) handles them and nothing else. The Schema is the contract:
// table columns, units, filters, Prometheus HELP, JSON Schema and docs all
// read it, so a new event has its page in the console with no other change.
//
// The package does no I/O and imports nothing from this repository.
package signal

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"time"
)

// Kind says what a signal is. The kinds share one path through the agent.
type Kind string

// The four kinds of signal.
const (
	Metric  Kind = "metric"  // a number with labels
	Event   Kind = "event"   // something that happened, with its context
	Profile Kind = "profile" // weighted stacks of an interval
	Span    Kind = "span"    // one timed operation with a parent
)

// Severity ranks events.
type Severity string

// Severities, mildest first.
const (
	Info     Severity = "info"     // worth a marker on a chart
	Warning  Severity = "warning"  // a delay or a loss that somebody may have felt
	Critical Severity = "critical" // something died, hung or was corrupted
)

// Area groups signals for the console and the docs.
type Area string

// Areas, in the order in which they are shown.
const (
	AreaCPU     Area = "cpu"
	AreaSched   Area = "scheduling"
	AreaMemory  Area = "memory"
	AreaBlock   Area = "block"
	AreaNetwork Area = "network"
	AreaProcess Area = "process"
	AreaSystem  Area = "system"
	AreaAgent   Area = "agent"
)

// Areas lists every Area in order.
func Areas() []Area {
	return []Area{AreaCPU, AreaSched, AreaMemory, AreaBlock, AreaNetwork, AreaProcess, AreaSystem, AreaAgent}
}

// Schema describes one signal. It is the only place where a name, a unit or a
// help text is written down.
type Schema struct {
	Name   string     `json:"name"`                                          // metrics: the full Prometheus name; events: snake_case kind
	Kind   Kind       `json:"kind"`                                          //
	Type   MetricType `json:"type,omitempty" enum:"counter,gauge,histogram"` // metrics only
	Unit   string     `json:"unit,omitempty"`                                // metrics: base unit (seconds, bytes, ratio, "1" for a plain count)
	Area   Area       `json:"area"`                                          //
	Scope  Scope      `json:"scope,omitempty"`
	Help   string     `json:"help"`           // one sentence
	Read   string     `json:"read,omitempty"` // how to read it, one line
	Fields []Field    `json:"fields"`         // metrics: labels, in the order of Sample.Labels; events: members of the body

	// Trigger says when an event is made, with the threshold and its reason: one
	// sentence. A value of the configuration stands behind its key: `stall` (50ms).
	Trigger string `json:"trigger,omitempty"`
	// Normal says what is like the event and is none, and which events are usual.
	Normal string `json:"normal,omitempty"`

	// Severity is what an event has unless its record says otherwise.
	Severity Severity `json:"severity,omitempty" enum:"info,warning,critical"`
	// body is the struct type of an event's Body.
	body reflect.Type
}

// Field is one label of a metric or one member of an event's body.
type Field struct {
	Name   string   `json:"name"`             // snake_case
	Type   string   `json:"type,omitempty"`   // string, integer, number, boolean, object, array; empty means string
	Unit   string   `json:"unit,omitempty"`   // seconds, bytes, … empty for none
	Help   string   `json:"help"`             //
	Values []string `json:"values,omitempty"` // every legal value of a label when the set is closed
}

// EventOf returns the Schema of the event whose Body is a *T. Every field of T
// needs a json and a help tag; a unit tag is optional.
func EventOf[T any](name string, area Area, sev Severity, help string) *Schema {
	t := reflect.TypeFor[T]()
	return &Schema{Name: name, Kind: Event, Area: area, Severity: sev, Help: help, Fields: fieldsOf(t), body: t}
}

// When sets s.Trigger and s.Normal, and returns s.
func (s *Schema) When(trigger, normal string) *Schema {
	s.Trigger, s.Normal = trigger, normal
	return s
}

// NewBody returns a new zero *T for the T the schema was made from, and nil
// for a schema that is not an event's.
func (s *Schema) NewBody() any {
	if s.body == nil {
		return nil
	}
	return reflect.New(s.body).Interface()
}

func fieldsOf(t reflect.Type) []Field {
	fs := make([]Field, 0, t.NumField())
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous && f.Type.Kind() == reflect.Struct {
			fs = append(fs, fieldsOf(f.Type)...)
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || f.Tag.Get("help") == "" {
			panic(fmt.Sprintf("BUG: %s.%s: a signal field needs a json and a help tag", t, f.Name))
		}
		fs = append(fs, Field{Name: name, Type: jsonType(f.Type), Unit: f.Tag.Get("unit"), Help: f.Tag.Get("help")})
	}
	return fs
}

func jsonType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "boolean"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "integer"
	case reflect.Float32, reflect.Float64:
		return "number"
	case reflect.Slice, reflect.Array:
		return "array"
	case reflect.Struct, reflect.Map, reflect.Pointer:
		return "object"
	default:
		return "string"
	}
}

// Frame is one symbolised entry of a stack, innermost first in a stack.
// It never carries a kernel address.
type Frame struct {
	Function string `json:"function"`          // "[unknown]" when no symbol covers the address
	Module   string `json:"module,omitempty"`  // kernel module, or path of the ELF file
	File     string `json:"file,omitempty"`    // source file where line tables exist
	Line     int    `json:"line,omitempty"`    //
	Offset   uint64 `json:"offset,omitempty"`  // of an unknown user frame: address in the file as its symbols have it, when the file could be read, else offset in the file; of a kernel frame in a report of the kernel: offset in the function
	Missing  string `json:"missing,omitempty"` // why the frame has no name

	// BuildID is that of the file of an unknown user frame, in hex, if it has one:
	// with Offset it names the frame when the file's debug symbols are found later.
	BuildID string `json:"build_id,omitempty"`
}

// Process is who a record is about. PID and StartTime together identify it.
type Process struct {
	PID       uint32     `json:"pid"`                  // thread group id in the host's pid namespace
	TID       uint32     `json:"tid,omitempty"`        // thread id
	Comm      string     `json:"comm,omitempty"`       //
	Exe       string     `json:"exe,omitempty"`        // resolved /proc/PID/exe
	Cmdline   string     `json:"cmdline,omitempty"`    // redacted by rule
	StartTime *time.Time `json:"start_time,omitempty"` //
	ParentPID uint32     `json:"parent_pid,omitempty"` //
	Parent    string     `json:"parent,omitempty"`     // comm of the parent
}

// Container is the workload a record belongs to: a container, a pod sandbox
// or a systemd unit. Namespace, Pod and Name are Kubernetes' names.
type Container struct {
	ID        string            `json:"id,omitempty"`        // 64 hex digits for most runtimes
	Name      string            `json:"name,omitempty"`      // container name; the id's first 12 digits until it is known
	Pod       string            `json:"pod,omitempty"`       //
	PodUID    string            `json:"pod_uid,omitempty"`   // with dashes
	Namespace string            `json:"namespace,omitempty"` //
	Runtime   string            `json:"runtime,omitempty"`   // docker, containerd, cri-o, podman, …
	QoS       string            `json:"qos,omitempty"`       // guaranteed, burstable, besteffort
	Unit      string            `json:"unit,omitempty"`      // systemd unit when there is no container
	Cgroup    string            `json:"cgroup,omitempty"`    // path below the hierarchy's root
	Image     string            `json:"image,omitempty"`     // as it was asked for
	Labels    map[string]string `json:"labels,omitempty"`    // of the container and its pod, those that the configuration lets through
	Gone      bool              `json:"gone,omitempty"`      // it had ended when the record was enriched: this is its last known identity

	// Annotations are those that the configuration lets through.
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Party is somebody else in a record: the culprit of a delay, the process that
// triggered a kill. A body holds it, Record.Parties points to it, and enrich
// fills it like the record's own process and container.
type Party struct {
	Process     Process    `json:"process"`
	Container   *Container `json:"container,omitempty"`
	KernelStack []Frame    `json:"kernel_stack,omitempty"`
	UserStack   []Frame    `json:"user_stack,omitempty"`

	CgroupID  uint64   `json:"-"`
	KernelIPs []uint64 `json:"-"` // cleared once symbolised
	UserIPs   []uint64 `json:"-"`
}

// Record is one event on its way from a probe to the sinks.
//
// The probe fills Schema, Time, Title, Body, and of who it is about what the
// kernel told (Process.PID/TID/Comm, CgroupID, addresses); enrich fills the
// rest. After the pipe has taken a record nobody writes to it.
type Record struct {
	ID         string // ULID, set by the pipe
	Schema     *Schema
	Time       time.Time
	Severity   Severity // empty: the schema's
	Title      string   // one sentence
	Suppressed uint64   // how many like it were rate-limited since the last
	Host       string
	Region     string
	Process    Process
	Container  Container
	Body       any // pointer to the type the Schema was made from

	KernelStack []Frame
	UserStack   []Frame
	Registers   map[string]string
	Unresolved  []string // what enrich could not fill: "process", "container", "symbols", …

	CgroupID  uint64   // key to Container; 0 when unknown
	KernelIPs []uint64 // raw addresses, cleared once symbolised: they never leave the agent
	UserIPs   []uint64 // likewise, in the address space of Process.PID
	Parties   []*Party // others in the body that enrich has to fill
	Args      []string // command line of Process as the kernel told it, secrets and all: enrich makes Process.Cmdline of it and clears it

	// Flow is the conversation a network event is about: what the chains look
	// others up by. Nil for all other events.
	Flow *Flow
	// Keys are the other things that make two events be about the same one, as
	// "cpu:3", "dev:8:0", "listen:4026531840:80": for the chains, never told.
	Keys []string
	// Brief is how the verdict on another event calls this one, as
	// "NETFILTER_DROP in nf_hook_slow". It is never told by itself.
	Brief string
	// Lasted is how long it had gone on at Time; 0 for what is a moment.
	Lasted time.Duration

	Resources *Resources // at the moment of the event: by the pipe
	Links     []Link     // to events that have to do with it: by the pipe
	Verdict   string     // one sentence on the cause, where the chains find one
	Known     []string   // names of the known issues that it is an instance of

	// Measures are the observations of metrics that this event is an instance
	// of: the pipe makes the event the exemplar of those series.
	Measures []Measure
}

// Measure is one observation that a metric counted.
type Measure struct {
	Schema   *Schema
	Labels   []string // of the schema's own fields
	CgroupID uint64   // of a Workload metric
	Value    float64
}

// Document is a Record as it is kept, streamed and exported: one shape for
// every kind of event.
type Document struct {
	ID          string            `json:"id" doc:"ULID: sorts by time"`
	Time        time.Time         `json:"time" doc:"when it happened, nanosecond resolution"`
	Kind        string            `json:"kind" doc:"name of the event's schema"`
	Severity    Severity          `json:"severity" enum:"info,warning,critical"`
	Title       string            `json:"title" doc:"one sentence"`
	Host        string            `json:"host,omitempty"`
	Region      string            `json:"region,omitempty"`
	Container   *Container        `json:"container,omitempty"`
	Process     *Process          `json:"process,omitempty"`
	Fields      json.RawMessage   `json:"fields" doc:"members as the kind's schema lists them"`
	KernelStack []Frame           `json:"kernel_stack,omitempty" doc:"innermost first"`
	UserStack   []Frame           `json:"user_stack,omitempty" doc:"innermost first"`
	Registers   map[string]string `json:"registers,omitempty"`
	Resources   *Resources        `json:"resources,omitempty" doc:"of the host and the workload at that moment"`
	Verdict     string            `json:"verdict,omitempty" doc:"one sentence: the cause, as far as other events tell it"`
	Links       []Link            `json:"links,omitempty" doc:"events that have to do with it"`
	Known       []string          `json:"known,omitempty" doc:"known issues that it is an instance of"`
	Suppressed  uint64            `json:"suppressed,omitempty" doc:"events of the kind that were rate-limited since the one before"`
	Unresolved  []string          `json:"unresolved,omitempty" doc:"what could not be looked up"`
}

// Document returns the form of r that leaves the agent.
func (r *Record) Document() (*Document, error) {
	body, err := json.Marshal(r.Body)
	if err != nil {
		return nil, fmt.Errorf("encode body of %s: %w", r.Schema.Name, err)
	}
	d := &Document{
		ID: r.ID, Time: r.Time.UTC(), Kind: r.Schema.Name, Severity: r.Severity, Title: r.Title,
		Host: r.Host, Region: r.Region, Fields: body, KernelStack: r.KernelStack, UserStack: r.UserStack,
		Registers: r.Registers, Resources: r.Resources, Verdict: r.Verdict, Links: r.Links, Known: r.Known,
		Suppressed: r.Suppressed, Unresolved: r.Unresolved,
	}
	if d.Severity == "" {
		d.Severity = r.Schema.Severity
	}
	if r.Process.PID != 0 || r.Process.Comm != "" {
		p := r.Process
		d.Process = &p
	}
	if c := r.Container; c.ID != "" || c.Unit != "" || c.Cgroup != "" {
		d.Container = &c
	}
	return d, nil
}
