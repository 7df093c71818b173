package console

import (
	"context"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"huatuo/internal/signal"
)

type (
	countParams struct {
		EventParams
		By      []string `query:"by" enum:"kind,severity,workload" doc:"what events are counted together by: kind, severity, workload, separated by commas"`
		Buckets int      `query:"buckets" minimum:"0" maximum:"1000" doc:"also by time, in that many intervals of equal length; 0: not"`
		Limit   int      `query:"limit" minimum:"1" maximum:"10000" default:"10000" doc:"at most this many groups, the largest"`
	}
	countList struct {
		From   time.Time           `json:"from"`
		To     time.Time           `json:"to"`
		Groups []signal.EventCount `json:"groups" doc:"the largest first; members that were not asked for are missing"`
	}
	valueParams struct {
		EventParams
		Name     string `query:"name" required:"true" maxLength:"200" doc:"kind, severity, namespace, pod, container, unit, comm, pid, or a NAME as in where: field.reason, process.exe"`
		Contains string `query:"contains" maxLength:"200" doc:"only values with this part, whatever its case"`
		Limit    int    `query:"limit" minimum:"1" maximum:"100" default:"20"`
	}
	valueList struct {
		Values []signal.ValueCount `json:"values"`
	}
)

func (s *Server) countEvents(ctx context.Context, in *countParams) (countList, error) {
	f := in.filter
	if err := hour(&f); err != nil {
		return countList{}, err
	}
	g := signal.EventGrouping{Buckets: in.Buckets, Limit: in.Limit}
	for _, by := range in.By {
		switch by {
		case "kind":
			g.Kind = true
		case "severity":
			g.Severity = true
		case "workload":
			g.Workload = true
		}
	}
	out := countList{From: f.From, To: f.To}
	err := s.read(ctx, func(ctx context.Context) (err error) {
		out.Groups, err = s.opt.Events.CountEvents(ctx, f, g)
		return err
	})
	out.Groups = orEmpty(out.Groups)
	return out, err
}

func (s *Server) eventValues(ctx context.Context, in *valueParams) (valueList, error) {
	var out valueList
	if err := (&signal.Condition{Path: in.Name, Op: signal.Equal}).Check(); err != nil {
		return out, huma.Error422UnprocessableEntity("validation failed", paramError("name", "%v", err))
	}
	err := s.read(ctx, func(ctx context.Context) (err error) {
		out.Values, err = s.opt.Events.EventValues(ctx, in.filter, in.Name, in.Contains, in.Limit)
		return err
	})
	out.Values = orEmpty(out.Values)
	return out, err
}

// hour gives f both ends: the last hour when it has none.
func hour(f *signal.EventFilter) error {
	if f.To.IsZero() {
		f.To = time.Now().UTC()
	}
	if f.From.IsZero() {
		f.From = f.To.Add(-time.Hour)
	}
	if !f.From.Before(f.To) {
		return huma.Error422UnprocessableEntity("validation failed", paramError("from", "must be before to"))
	}
	return nil
}
