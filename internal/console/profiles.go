package console

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"huatuo/internal/console/pyroscope"
	"huatuo/internal/signal"
)

// Profiles reads the stacks that were kept.
type Profiles interface {
	Status() ProfilerStatus
	Types() []*signal.ProfileType
	Flame(ctx context.Context, q signal.ProfileQuery, least float64) (*signal.FlameGraph, error)
	Heat(ctx context.Context, q signal.ProfileQuery, column time.Duration) ([]int64, error)
	Series(ctx context.Context, q signal.ProfileQuery, by []string) ([]signal.ProfileSeries, error)
	// Diff compares two sets of samples, and ranks functions by those that end in
	// them (self) or go through them.
	Diff(ctx context.Context, before, after signal.ProfileQuery, self bool, least float64) (*signal.ProfileDiff, error)
	Encode(w io.Writer, g *signal.FlameGraph, format string) error
}

// ProfileTypeState tells whether stacks of a type are taken.
type ProfileTypeState struct {
	Name   string `json:"name"`
	On     bool   `json:"on"`
	By     string `json:"by,omitempty" doc:"the hooks"`
	Reason string `json:"reason,omitempty" doc:"why it is not taken"`
}

// ProfilerStatus tells whether stacks are being taken.
type ProfilerStatus struct {
	State     string `json:"state" enum:"starting,running,degraded,failed,unsupported,shed,disabled"`
	Reason    string `json:"reason,omitempty" doc:"why it does not run, or runs with less"`
	Mode      string `json:"mode,omitempty" enum:"full,small,frame_pointers,off" doc:"how stacks are taken: smaller modes need less memory"`
	Hertz     int    `json:"hertz" doc:"samples of each CPU per second"`
	Samples   uint64 `json:"samples" doc:"taken since the start"`
	Memory    uint64 `json:"memory_bytes,omitempty" doc:"what profiling takes: BPF maps, and what the agent has grown by"`
	MaxMemory uint64 `json:"max_memory_bytes,omitempty" doc:"above it a smaller mode is taken"`

	Types []ProfileTypeState `json:"types,omitempty" doc:"those that were asked for"`
}

// maxColumns bounds a heat map: 50 ms columns of ten minutes.
const maxColumns = 12_000

type (
	profileTypes struct {
		Status ProfilerStatus        `json:"status"`
		Types  []*signal.ProfileType `json:"types"`
		Labels []string              `json:"labels" doc:"labels that samples have"`
	}
	// ProfileParams select samples. It is exported because only then the library
	// sees the members of a struct that embeds it.
	ProfileParams struct {
		Type      string   `query:"type" default:"cpu" maxLength:"100"`
		From      string   `query:"from" doc:"RFC 3339 or Unix seconds; an hour before to when missing" example:"2026-01-02T15:04:05Z"`
		To        string   `query:"to" doc:"RFC 3339 or Unix seconds; now when missing"`
		PID       uint32   `query:"pid"`
		TID       uint32   `query:"tid"`
		Namespace []string `query:"namespace" maxItems:"50" doc:"any of these, separated by commas"`
		Pod       []string `query:"pod" maxItems:"50"`
		Container []string `query:"container" maxItems:"50"`
		Unit      []string `query:"unit" maxItems:"50"`
		Process   []string `query:"process" maxItems:"50"`
		Thread    []string `query:"thread" maxItems:"50"`
	}
	flameParams struct {
		ProfileParams
		MinShare float64 `query:"min_share" minimum:"0" maximum:"1" default:"0.0005" doc:"nodes with less of the total are left out"`
	}
	heatParams struct {
		ProfileParams
		Column float64 `query:"column" minimum:"0.01" maximum:"86400" default:"0.05" doc:"seconds that a column stands for; made larger when there would be more than 12,000"`
	}
	profileHeat struct {
		From   time.Time `json:"from"`
		Column float64   `json:"column_seconds"`
		Values []int64   `json:"values"`
	}
	seriesParams struct {
		ProfileParams
		By []string `query:"by" maxItems:"6" doc:"labels to tell apart, separated by commas; process when missing"`
	}
	profileSeriesList struct {
		Series []signal.ProfileSeries `json:"series" doc:"largest first"`
	}
	downloadParams struct {
		ProfileParams
		Format string `query:"format" enum:"pprof,folded,speedscope,svg,otlp" default:"pprof"`
	}
)

func (s *Server) registerProfiles(api huma.API) {
	errs := []int{http.StatusServiceUnavailable, http.StatusGatewayTimeout}
	get(api, "listProfileTypes", "/api/v1/profiles/types", "What is profiled, and whether it is", nil, s.profileTypes)
	get(api, "getFlameGraph", "/api/v1/profiles/flame", "Stacks of a window, merged into a tree", errs, s.flame)
	get(api, "diffProfiles", "/api/v1/profiles/diff", "Two windows or two workloads compared: functions by how their shares changed, and the tree of both", errs, s.profileDiff)
	get(api, "getProfileHeat", "/api/v1/profiles/heat", "Value of the samples by columns of time", errs, s.profileHeat)
	get(api, "listProfileSeries", "/api/v1/profiles/series", "Value of the samples by label", errs, s.profileSeries)
	huma.Register(api, huma.Operation{
		OperationID: "downloadProfile", Method: http.MethodGet, Path: "/api/v1/profiles/download",
		Summary: "Stacks of a window, for other tools", Errors: errs,
		Responses: map[string]*huma.Response{"200": {Description: "a file in the format that was asked for", Content: map[string]*huma.MediaType{
			"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}},
		}}},
	}, s.download)
}

func (s *Server) profileTypes(context.Context, *none) (profileTypes, error) {
	if s.opt.Profiles == nil {
		return profileTypes{
			Status: ProfilerStatus{State: "disabled", Reason: "profiles.enabled is false, or there is no store"}, Types: []*signal.ProfileType{}, Labels: []string{},
		}, nil
	}
	return profileTypes{s.opt.Profiles.Status(), s.opt.Profiles.Types(), signal.ProfileLabelNames()}, nil
}

// query makes a query of the parameters.
func (p *ProfileParams) query(now time.Time) (q signal.ProfileQuery, err error) {
	q = signal.ProfileQuery{Type: p.Type, PID: p.PID, TID: p.TID, Labels: map[string][]string{}}
	if q.From, err = optionalTime("from", p.From); err != nil {
		return q, err
	}
	if q.To, err = optionalTime("to", p.To); err != nil {
		return q, err
	}
	if q.To.IsZero() {
		q.To = now
	}
	if q.From.IsZero() {
		q.From = q.To.Add(-time.Hour)
	}
	if !q.From.Before(q.To) {
		return q, paramError("from", "must be before to")
	}
	for name, values := range map[string][]string{
		"namespace": p.Namespace, "pod": p.Pod, "container": p.Container, "unit": p.Unit, "process": p.Process, "thread": p.Thread,
	} {
		if len(values) > 0 {
			q.Labels[name] = values
		}
	}
	return q, nil
}

// readProfiles runs a query of profiles within the server's time.
func readProfiles[T any](ctx context.Context, s *Server, p *ProfileParams, f func(context.Context, signal.ProfileQuery) (T, error)) (out T, err error) {
	if s.opt.Profiles == nil {
		return out, huma.Error503ServiceUnavailable("there are no profiles: set profiles.enabled, and keep the store on")
	}
	q, err := p.query(time.Now().UTC())
	if err != nil {
		return out, huma.Error422UnprocessableEntity("validation failed", err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.opt.QueryTimeout)
	defer cancel()
	out, err = f(ctx, q)
	if ctx.Err() == context.DeadlineExceeded {
		return out, huma.Error504GatewayTimeout("the query took too long: ask for a shorter window")
	}
	return out, err
}

func (s *Server) flame(ctx context.Context, in *flameParams) (*signal.FlameGraph, error) {
	return readProfiles(ctx, s, &in.ProfileParams, func(ctx context.Context, q signal.ProfileQuery) (*signal.FlameGraph, error) {
		return s.opt.Profiles.Flame(ctx, q, in.MinShare)
	})
}

func (s *Server) profileHeat(ctx context.Context, in *heatParams) (profileHeat, error) {
	return readProfiles(ctx, s, &in.ProfileParams, func(ctx context.Context, q signal.ProfileQuery) (profileHeat, error) {
		column := max(time.Duration(in.Column*float64(time.Second)), q.To.Sub(q.From)/maxColumns+time.Millisecond)
		if q.To.Sub(q.From) <= maxColumns*time.Duration(in.Column*float64(time.Second)) {
			column = time.Duration(in.Column * float64(time.Second))
		}
		values, err := s.opt.Profiles.Heat(ctx, q, column)
		return profileHeat{q.From, column.Seconds(), values}, err
	})
}

func (s *Server) profileSeries(ctx context.Context, in *seriesParams) (profileSeriesList, error) {
	by := in.By
	if len(by) == 0 {
		by = []string{"process"}
	}
	for _, name := range by {
		if _, ok := new(signal.ProfileLabels).Get(name); !ok {
			return profileSeriesList{}, huma.Error422UnprocessableEntity("validation failed",
				paramError("by", "%q is none of the labels %s", name, strings.Join(signal.ProfileLabelNames(), ", ")))
		}
	}
	return readProfiles(ctx, s, &in.ProfileParams, func(ctx context.Context, q signal.ProfileQuery) (profileSeriesList, error) {
		list, err := s.opt.Profiles.Series(ctx, q, by)
		return profileSeriesList{list}, err
	})
}

func (s *Server) download(ctx context.Context, in *downloadParams) (*huma.StreamResponse, error) {
	g, err := readProfiles(ctx, s, &in.ProfileParams, func(ctx context.Context, q signal.ProfileQuery) (*signal.FlameGraph, error) {
		return s.opt.Profiles.Flame(ctx, q, 0)
	})
	if err != nil {
		return nil, err
	}
	return s.file(g, in.Format), nil
}

// file answers with a graph in a format of another tool.
func (s *Server) file(g *signal.FlameGraph, format string) *huma.StreamResponse {
	ending, kind := fileKind(format)
	return &huma.StreamResponse{Body: func(h huma.Context) {
		h.SetHeader("Content-Type", kind)
		h.SetHeader("Content-Disposition", fmt.Sprintf(`attachment; filename="huatuo-%s-%d.%s"`, g.Type, g.From.Unix(), ending))
		if err := s.opt.Profiles.Encode(h.BodyWriter(), g, format); err != nil {
			s.log.Debug("a download ended early", "err", err)
		}
	}}
}

// fileKind tells how the name of a file of a format ends, and its media type.
func fileKind(format string) (ending, kind string) {
	switch format {
	case "pprof":
		return "pb.gz", "application/octet-stream"
	case "folded":
		return "folded.txt", "text/plain; charset=utf-8"
	case "speedscope":
		return "speedscope.json", "application/json"
	case "svg":
		return "svg", "image/svg+xml"
	case "otlp":
		return "otlp", "application/x-protobuf"
	}
	panic("BUG: the format " + format + " was let in")
}

// pyroscope serves the profiles as Grafana's data source for Pyroscope reads them.
func (s *Server) pyroscope() http.Handler {
	o := pyroscope.Options{Instance: s.opt.Agent.Node().Hostname, Timeout: s.opt.QueryTimeout}
	if s.opt.Profiles != nil {
		o.Profiles = s.opt.Profiles
	}
	return pyroscope.New(o)
}
