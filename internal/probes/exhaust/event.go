package exhaust

import (
	"fmt"
	"time"

	"huatuo/internal/signal"
)

// ResourceExhausted is the body of a resource_exhausted event. The record's
// process or container is the one whose limit it is.
type ResourceExhausted struct {
	Resource      string      `json:"resource" help:"what comes to its end: host_files, process_files, host_tasks, workload_tasks, workload_memory, swap, disk_space, inodes, conntrack or ports"`
	Instance      string      `json:"instance" help:"which one: a mount point, a process, a control group, a destination; empty for one that the host has once"`
	Used          uint64      `json:"used" help:"how much is used, in unit"`
	Limit         uint64      `json:"limit" help:"how much there is, in unit"`
	Unit          string      `json:"unit" help:"bytes, or 1 for a count"`
	Ratio         float64     `json:"ratio" unit:"ratio" help:"used divided by limit"`
	Since         string      `json:"since" help:"when it passed 70 % and stayed above; no earlier than the agent's start; empty below"`
	Slope         float64     `json:"slope_per_second" help:"growth per second, of a line through the last readings; negative when it shrinks"`
	SecondsToFull *float64    `json:"seconds_to_full" unit:"seconds" help:"until the limit is reached at that growth; null when it does not grow"`
	Predicted     bool        `json:"predicted" help:"the share alone is no reason yet, its growth is"`
	Reports       int         `json:"reports" help:"how many events there were of it before this one, since it was below the threshold last"`
	Users         []*User     `json:"users" help:"who uses most of it, where that can be told"`
	Files         []FileCount `json:"files" help:"process_files: what the descriptors are of, by number"`
}

// User is somebody who uses the resource.
type User struct {
	signal.Party
	Amount uint64 `json:"amount"`         // in the event's unit
	What   string `json:"what,omitempty"` // disk_space: the largest file that the process has open for writing
}

// FileCount is a kind of open file, and how many there are.
type FileCount struct {
	What  string `json:"what"`
	Count int    `json:"count"`
}

// The resources.
const (
	hostFiles      = "host_files"
	processFiles   = "process_files"
	hostTasks      = "host_tasks"
	workloadTasks  = "workload_tasks"
	workloadMemory = "workload_memory"
	swap           = "swap"
	diskSpace      = "disk_space"
	inodes         = "inodes"
	conntrack      = "conntrack"
	ports          = "ports"
)

var exhausted = signal.EventOf[ResourceExhausted]("resource_exhausted", signal.AreaSystem, signal.Warning,
	"A resource with a limit is near its end, or will be within minutes at the rate at which it grows.").When(
	"A share of at least `threshold` (0.9), when the last tenth can go within minutes and it is still time to act, or of 70 % with an end within `horizon` (10m) by the growth of the last readings; critical at 98 %. "+
		"Once for each resource until it is below the threshold by 5 points; once more at 98 %, and after 1, 2, 4 … 24 h while it lasts.",
	"Memory that is page cache, which the kernel drops when it needs room; file systems that are mounted read-only; a process that has lowered its own limit of files to what it has open, or below 64, as sandboxes do.")

// reading is what a source found of one resource.
type reading struct {
	resource string
	key      string // of the instance, never that of another
	instance string // of the instance, for people
	name     string // what it is the limit of: "open files of nginx (pid 12)"
	used     uint64
	limit    uint64
	bytes    bool
	cgroup   uint64
	process  signal.Process
	users    func() []*User     // asked for when there is an event
	files    func() []FileCount // likewise
}

func (r *reading) ratio() float64 {
	if r.limit == 0 {
		return 0
	}
	return float64(r.used) / float64(r.limit)
}

// unit names what used and limit count.
func (r *reading) unit() string {
	if r.bytes {
		return "bytes"
	}
	return "1"
}

// record makes the event of a report.
func (p *report) record(now time.Time) *signal.Record {
	r := p.reading
	b := &ResourceExhausted{
		Resource: r.resource, Instance: r.instance, Used: r.used, Limit: r.limit, Unit: r.unit(), Ratio: r.ratio(),
		Slope: p.slope, Predicted: p.predicted, Reports: p.before,
	}
	if !p.since.IsZero() {
		b.Since = p.since.UTC().Format(time.RFC3339)
	}
	if p.grows {
		s := p.left.Seconds()
		b.SecondsToFull = &s
	}
	rec := &signal.Record{
		Schema: exhausted, Time: now, Body: b, CgroupID: r.cgroup, Process: r.process,
		Suppressed: p.held, Title: p.title(),
	}
	if b.Ratio >= criticalRatio {
		rec.Severity = signal.Critical
	}
	if r.users != nil {
		b.Users = r.users()
	}
	if r.files != nil {
		b.Files = r.files()
	}
	for _, u := range b.Users {
		rec.Parties = append(rec.Parties, &u.Party)
	}
	return rec
}

func (p *report) title() string {
	r := p.reading
	used, limit := fmt.Sprint(r.used), fmt.Sprint(r.limit)
	if r.bytes {
		used, limit = size(r.used), size(r.limit)
	}
	s := fmt.Sprintf("%s: %.0f %% used (%s of %s)", r.name, 100*r.ratio(), used, limit)
	if p.grows && p.left <= time.Hour {
		s += fmt.Sprintf(", full in %s at this rate", p.left.Round(time.Second))
	}
	return s
}

func size(bytes uint64) string {
	const units = "KMGTPE"
	if bytes < 1024 {
		return fmt.Sprintf("%d B", bytes)
	}
	f, u := float64(bytes)/1024, 0
	for f >= 1024 && u < len(units)-1 {
		f /= 1024
		u++
	}
	return fmt.Sprintf("%.4g %ciB", f, units[u])
}
