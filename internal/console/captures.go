package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"golang.org/x/time/rate"

	"huatuo/internal/signal"
)

// Captures takes stacks of a target on demand, and has those that were taken.
type Captures interface {
	Start(r signal.CaptureRequest) (signal.CaptureInfo, error)
	List(most int) ([]signal.CaptureInfo, error)
	Get(id string) (*signal.Capture, error)
	Remove(id string) error // ends one that runs
}

// ErrTooMany is returned by Captures.Start when as many run as may, and
// ErrMissing by Get and Remove for what is not there.
var (
	ErrTooMany = errors.New("too many captures are running: try again when one has ended")
	ErrMissing = errors.New("there is no such capture: it was never taken, or is older than what is kept")
)

// captureBurst and captureEvery bound how often captures can be asked for: each
// is kept, and may raise the cost of profiling while it runs.
const (
	captureBurst = 5
	captureEvery = 10 * time.Second
)

func newCaptureLimit() *rate.Limiter { return rate.NewLimiter(rate.Every(captureEvery), captureBurst) }

type (
	captureBody struct {
		Target signal.CaptureTarget `json:"target,omitempty" doc:"whose stacks; the whole host when missing"`
		Types  []string             `json:"types,omitempty" maxItems:"50" doc:"types of profile; all when missing"`
		Before float64              `json:"before_seconds,omitempty" minimum:"0" maximum:"3600" doc:"how long before now the window begins"`
		After  float64              `json:"after_seconds,omitempty" minimum:"0" maximum:"600" doc:"how long after now it ends"`
		Hertz  int                  `json:"hertz,omitempty" minimum:"0" maximum:"999" doc:"raise the rate at which the CPUs are sampled to this until the window ends"`
		Why    string               `json:"why,omitempty" maxLength:"200" doc:"what it is taken for"`
	}
	captureInput struct {
		Body captureBody
	}
	captureAnswer struct {
		Location string `header:"Location"`
		Body     signal.CaptureInfo
	}
	captureListParams struct {
		Limit int `query:"limit" minimum:"1" maximum:"500" default:"100"`
	}
	captureList struct {
		Captures []signal.CaptureInfo `json:"captures" doc:"newest first; those that run included"`
	}
	captureParam struct {
		ID string `path:"id" minLength:"26" maxLength:"26"`
	}
	captureDownload struct {
		ID     string `path:"id" minLength:"26" maxLength:"26"`
		Type   string `query:"type" default:"cpu" maxLength:"100"`
		Format string `query:"format" enum:"pprof,folded,speedscope,svg,otlp" default:"pprof"`
	}
)

func (s *Server) registerCaptures(api huma.API) {
	const path = "/api/v1/profiles/captures"
	huma.Register(api, huma.Operation{
		OperationID: "captureProfile", Method: http.MethodPost, Path: "/api/v1/profiles/capture", DefaultStatus: http.StatusAccepted,
		Summary: "Take the stacks of a target, seconds before now included, and keep them",
		Errors:  []int{http.StatusTooManyRequests, http.StatusServiceUnavailable},
	}, s.capture)
	get(api, "listCaptures", path, "Captures, those that run included", []int{http.StatusServiceUnavailable}, s.captures)
	get(api, "getCapture", path+"/{id}", "A capture with its stacks", []int{http.StatusNotFound, http.StatusServiceUnavailable}, s.getCapture)
	huma.Register(api, huma.Operation{
		OperationID: "removeCapture", Method: http.MethodDelete, Path: path + "/{id}", DefaultStatus: http.StatusNoContent,
		Summary: "End a capture that runs, or remove one that is kept", Errors: []int{http.StatusNotFound, http.StatusServiceUnavailable},
	}, s.removeCapture)
	huma.Register(api, huma.Operation{
		OperationID: "downloadCapture", Method: http.MethodGet, Path: path + "/{id}/download",
		Summary: "Stacks of a capture, for other tools", Errors: []int{http.StatusNotFound, http.StatusServiceUnavailable},
		Responses: map[string]*huma.Response{"200": {Description: "a file in the format that was asked for", Content: map[string]*huma.MediaType{
			"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}},
		}}},
	}, s.downloadCapture)
}

func noCaptures() error {
	return huma.Error503ServiceUnavailable("there are no profiles: set profiles.enabled, and keep the store on")
}

func (s *Server) capture(_ context.Context, in *captureInput) (*captureAnswer, error) {
	if s.opt.Captures == nil {
		return nil, noCaptures()
	}
	if in.Body.Before+in.Body.After <= 0 {
		return nil, huma.Error422UnprocessableEntity("validation failed", paramError("before_seconds", "and after_seconds must not both be 0"))
	}
	if !s.captureLimit.Allow() {
		return nil, huma.ErrorWithHeaders(huma.Error429TooManyRequests(fmt.Sprintf("a capture each %v, and %d at once, are allowed", captureEvery, captureBurst)),
			http.Header{"Retry-After": {fmt.Sprint(int(captureEvery.Seconds()))}})
	}
	now := time.Now()
	seconds := func(x float64) time.Duration { return time.Duration(x * float64(time.Second)) }
	info, err := s.opt.Captures.Start(signal.CaptureRequest{
		Target: in.Body.Target, Types: in.Body.Types, From: now.Add(-seconds(in.Body.Before)), To: now.Add(seconds(in.Body.After)),
		Hertz: in.Body.Hertz, Why: in.Body.Why,
	})
	var bad interface{ BadRequest() string }
	switch {
	case errors.Is(err, ErrTooMany):
		return nil, huma.Error429TooManyRequests(err.Error())
	case errors.As(err, &bad):
		return nil, huma.Error422UnprocessableEntity("validation failed", paramError(bad.BadRequest(), "%s", strings.TrimPrefix(err.Error(), bad.BadRequest()+" ")))
	case err != nil:
		return nil, err
	}
	return &captureAnswer{"/api/v1/profiles/captures/" + info.ID, info}, nil
}

func (s *Server) captures(_ context.Context, in *captureListParams) (captureList, error) {
	if s.opt.Captures == nil {
		return captureList{}, noCaptures()
	}
	list, err := s.opt.Captures.List(in.Limit)
	return captureList{list}, err
}

func (s *Server) getCapture(_ context.Context, in *captureParam) (*signal.Capture, error) {
	if s.opt.Captures == nil {
		return nil, noCaptures()
	}
	c, err := s.opt.Captures.Get(in.ID)
	if errors.Is(err, ErrMissing) {
		return nil, huma.Error404NotFound(err.Error())
	}
	return c, err
}

func (s *Server) removeCapture(_ context.Context, in *captureParam) (*none, error) {
	if s.opt.Captures == nil {
		return nil, noCaptures()
	}
	err := s.opt.Captures.Remove(in.ID)
	if errors.Is(err, ErrMissing) {
		return nil, huma.Error404NotFound(err.Error())
	}
	return nil, err
}

func (s *Server) downloadCapture(ctx context.Context, in *captureDownload) (*huma.StreamResponse, error) {
	c, err := s.getCapture(ctx, &captureParam{in.ID})
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(c.Graphs, func(g *signal.FlameGraph) bool { return g.Type == in.Type })
	if i < 0 {
		return nil, huma.Error404NotFound(fmt.Sprintf("the capture has no stacks of type %q", in.Type))
	}
	return s.file(c.Graphs[i], in.Format), nil
}
