package console

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"time"

	"huatuo/internal/signal"
)

// Neighbour is an event near another one, and what they have in common.
type Neighbour struct {
	Relation string           `json:"relation" enum:"cause,effect,same,process,workload,cpu,host" doc:"the closest of: linked to it as cause, effect or another sight of the same thing; of the same process, workload, CPU; on the same host"`
	Event    *signal.Document `json:"event"`
}

type (
	neighbourParams struct {
		ID     string `path:"id" doc:"ULID"`
		Window int    `query:"window" minimum:"1" maximum:"3600" default:"60" doc:"seconds before and after"`
		Limit  int    `query:"limit" minimum:"1" maximum:"100" default:"10" doc:"of each relation, before and after each"`
	}
	neighbourList struct {
		Window int         `json:"window_seconds"`
		Total  int         `json:"total" doc:"events in the window, with the event itself"`
		List   []Neighbour `json:"neighbours" doc:"the closest relation first, then in the order of time"`
	}
)

// relations, the closest first.
var relations = []string{signal.Cause, signal.Effect, signal.Same, "process", "workload", "cpu", "host"}

func (s *Server) listNeighbours(ctx context.Context, in *neighbourParams) (neighbourList, error) {
	d, err := s.getEvent(ctx, &idParam{in.ID})
	if err != nil {
		return neighbourList{}, err
	}
	out, err := s.neighbours(ctx, d, time.Duration(in.Window)*time.Second, in.Limit)
	return out, err
}

// neighbours finds what happened around d: at most limit events before and
// after it of each relation.
func (s *Server) neighbours(ctx context.Context, d *signal.Document, window time.Duration, limit int) (neighbourList, error) {
	out := neighbourList{Window: int(window.Seconds()), List: []Neighbour{}}
	base := signal.EventFilter{From: d.Time.Add(-window), To: d.Time.Add(window), Limit: limit}
	seen := map[string]bool{d.ID: true}
	add := func(relation string, docs ...*signal.Document) {
		for _, e := range docs {
			if !seen[e.ID] {
				seen[e.ID] = true
				out.List = append(out.List, Neighbour{relation, e})
			}
		}
	}
	err := s.read(ctx, func(ctx context.Context) error {
		s.linked(ctx, d, add)
		for _, r := range related(d, base) {
			for _, before := range []bool{true, false} {
				f := r.filter
				if f.Before = d.ID; !before {
					f.Before, f.After, f.Oldest = "", d.ID, true
				}
				page, err := s.opt.Events.Events(ctx, f)
				if err != nil {
					return err
				}
				add(r.relation, page.Events...)
			}
		}
		all, err := s.opt.Events.CountEvents(ctx, base, signal.EventGrouping{})
		for _, g := range all {
			out.Total += g.Count
		}
		return err
	})
	slices.SortFunc(out.List, func(a, b Neighbour) int {
		if r := slices.Index(relations, a.Relation) - slices.Index(relations, b.Relation); r != 0 {
			return r
		}
		return a.Event.Time.Compare(b.Event.Time)
	})
	return out, err
}

// linked adds the events that d has links to. One whose retention is over is
// left out: d has its title.
func (s *Server) linked(ctx context.Context, d *signal.Document, add func(string, ...*signal.Document)) {
	for _, l := range d.Links {
		if e, err := s.opt.Events.Event(ctx, l.ID); err == nil && e != nil {
			add(l.Relation, e)
		}
	}
}

// relation is a filter for what has something in common with an event.
type relation struct {
	relation string
	filter   signal.EventFilter
}

// related returns the filters, the closest relation first.
func related(d *signal.Document, base signal.EventFilter) []relation {
	var list []relation
	if p := d.Process; p != nil && p.PID != 0 {
		f := base
		f.PID = p.PID
		list = append(list, relation{"process", f})
	}
	if f, ok := workloadFilter(d.Container, base); ok {
		list = append(list, relation{"workload", f})
	}
	if cpu, ok := number(d, "cpu"); ok {
		f := base
		f.Where = []signal.Condition{{Path: "field.cpu", Op: signal.Equal, Text: cpu}}
		list = append(list, relation{"cpu", f})
	}
	return append(list, relation{"host", base})
}

// workloadFilter selects the events of c. The host's own cgroup is no workload.
func workloadFilter(c *signal.Container, base signal.EventFilter) (signal.EventFilter, bool) {
	switch {
	case c == nil:
		return base, false
	case len(c.ID) >= minContainerID:
		base.Container = c.ID
	case c.Name != "":
		base.Namespace, base.Pod, base.Container = c.Namespace, c.Pod, c.Name
	case c.Unit != "" && c.Unit != "/":
		base.Unit = c.Unit
	default:
		return base, false
	}
	return base, true
}

// number returns the text of a whole number in d's body.
func number(d *signal.Document, name string) (string, bool) {
	var fields map[string]json.RawMessage
	if json.Unmarshal(d.Fields, &fields) != nil {
		return "", false
	}
	n, err := strconv.ParseUint(string(fields[name]), 10, 32)
	return strconv.FormatUint(n, 10), err == nil
}
