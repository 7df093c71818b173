package console

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"huatuo/internal/signal"
)

// diffParams choose two sets of samples. Those of the base that are missing are
// those of the other, but for its window: the stretch of the same length before.
type diffParams struct {
	ProfileParams
	BaseFrom      string   `query:"base_from" doc:"begin of the window that is compared with; as long before base_to as the other window is when missing"`
	BaseTo        string   `query:"base_to" doc:"its end; from when missing, but to when another workload is compared with"`
	BasePID       uint32   `query:"base_pid"`
	BaseNamespace []string `query:"base_namespace" maxItems:"50" doc:"any of these, separated by commas"`
	BasePod       []string `query:"base_pod" maxItems:"50"`
	BaseContainer []string `query:"base_container" maxItems:"50"`
	BaseUnit      []string `query:"base_unit" maxItems:"50"`
	BaseProcess   []string `query:"base_process" maxItems:"50"`
	BaseThread    []string `query:"base_thread" maxItems:"50"`
	Of            string   `query:"of" enum:"self,total" default:"self" doc:"rank functions by samples that end in them, or by those through them"`
	Limit         int      `query:"limit" minimum:"1" maximum:"5000" default:"200" doc:"most functions"`
	MinShare      float64  `query:"min_share" minimum:"0" maximum:"1" default:"0.0005" doc:"nodes of the tree with less in both are left out"`
}

// base makes the query that is compared with.
func (p *diffParams) base(q signal.ProfileQuery) (b signal.ProfileQuery, err error) {
	b = q
	other := p.BasePID != 0
	if other {
		b.PID = p.BasePID
	}
	b.Labels = map[string][]string{}
	for name, values := range q.Labels {
		b.Labels[name] = values
	}
	for name, values := range map[string][]string{
		"namespace": p.BaseNamespace, "pod": p.BasePod, "container": p.BaseContainer, "unit": p.BaseUnit, "process": p.BaseProcess, "thread": p.BaseThread,
	} {
		if len(values) > 0 {
			b.Labels[name], other = values, true
			if p.BasePID == 0 {
				b.PID = 0 // another workload is no process of this one
			}
		}
	}
	if b.From, err = optionalTime("base_from", p.BaseFrom); err != nil {
		return b, err
	}
	if b.To, err = optionalTime("base_to", p.BaseTo); err != nil {
		return b, err
	}
	if b.To.IsZero() {
		if b.To = q.From; other && b.From.IsZero() {
			b.To = q.To
		}
	}
	if b.From.IsZero() {
		b.From = b.To.Add(-q.To.Sub(q.From))
	}
	if !b.From.Before(b.To) {
		return b, paramError("base_from", "must be before base_to")
	}
	return b, nil
}

func (s *Server) profileDiff(ctx context.Context, in *diffParams) (*signal.ProfileDiff, error) {
	d, err := readProfiles(ctx, s, &in.ProfileParams, func(ctx context.Context, q signal.ProfileQuery) (*signal.ProfileDiff, error) {
		base, err := in.base(q)
		if err != nil {
			return nil, huma.Error422UnprocessableEntity("validation failed", err)
		}
		return s.opt.Profiles.Diff(ctx, base, q, in.Of == "self", in.MinShare)
	})
	if err == nil {
		d.Functions = d.Functions[:min(len(d.Functions), in.Limit)]
	}
	return d, err
}
