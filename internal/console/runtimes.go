package console

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"golang.org/x/time/rate"

	"huatuo/internal/signal"
)

// Runtimes asks processes for the profiles that their own language runtimes keep.
// Its errors are as those of Events: not_found, bad_data, unavailable when too much
// is asked at once, execution when the process gave no answer that can be used.
type Runtimes interface {
	List(ctx context.Context) ([]signal.RuntimeProcess, error) // no process notices
	Look(pid uint32) (signal.RuntimeProcess, error)            // likewise
	Ask(ctx context.Context, pid uint32) (signal.RuntimeProcess, error)
	// Fetch returns a profile as a file of one of the formats of Profiles.Encode, or
	// as the JSON of a signal.FlameGraph.
	Fetch(ctx context.Context, r signal.RuntimeRequest, format string) ([]byte, error)
}

// ErrRuntimesOff is returned by all of Runtimes when nobody may be asked.
var ErrRuntimesOff = errors.New("no process is asked for its profiles: profiles.runtimes is false")

const (
	// runtimeBurst and runtimeEvery bound how often processes are asked: a JVM is
	// halted meanwhile.
	runtimeBurst = 10
	runtimeEvery = 2 * time.Second
	// runtimeMargin is how long an answer may take beyond the time that it is of:
	// finding the port, counting a large heap, sending it.
	runtimeMargin = 2 * time.Minute
)

func newRuntimeLimit() *rate.Limiter { return rate.NewLimiter(rate.Every(runtimeEvery), runtimeBurst) }

type (
	runtimeParams struct {
		PID uint32 `query:"pid" doc:"only this process, also when it has no profiles: the reason is told"`
	}
	runtimeList struct {
		Processes []signal.RuntimeProcess `json:"processes" doc:"by process id"`
	}
	runtimeParam struct {
		PID uint32 `path:"pid" minimum:"1"`
	}
	runtimeFetch struct {
		PID     uint32 `path:"pid" minimum:"1"`
		Profile string `path:"profile" enum:"heap,allocs,goroutine,mutex,block,classes"`
		Seconds int    `query:"seconds" minimum:"0" maximum:"300" doc:"the change within so long, for Go's; all since the program began when 0"`
		Collect bool   `query:"collect" doc:"collect garbage first, for heap and classes; the program is halted for that"`
		Sample  string `query:"sample" maxLength:"50" doc:"what stacks are weighted with, in formats but pprof, which has all: one of the profile's samples"`
		Format  string `query:"format" enum:"pprof,folded,speedscope,svg,otlp,json" default:"pprof" doc:"json: as /api/v1/profiles/flame answers"`
	}
	runtimeAnswer struct{ Body signal.RuntimeProcess }
)

func (s *Server) registerRuntimes(api huma.API) {
	const path = "/api/v1/profiles/runtimes"
	errs := []int{http.StatusForbidden, http.StatusNotFound, http.StatusUnprocessableEntity, http.StatusTooManyRequests, http.StatusBadGateway}
	get(api, "listRuntimes", path, "Processes whose language runtime may have profiles of its own, by what /proc says: none of them notices", []int{http.StatusForbidden, http.StatusNotFound}, s.runtimes)
	huma.Register(api, huma.Operation{
		OperationID: "askRuntime", Method: http.MethodPost, Path: path + "/{pid}", DefaultStatus: http.StatusOK, RejectUnknownQueryParameters: true,
		Summary: "What a process offers: the ports that a Go program listens on are asked whether they serve profiles", Errors: errs,
	}, s.askRuntime)
	huma.Register(api, huma.Operation{
		OperationID: "fetchRuntimeProfile", Method: http.MethodPost, Path: path + "/{pid}/{profile}", DefaultStatus: http.StatusOK, RejectUnknownQueryParameters: true,
		Summary: "A profile that a process' own runtime keeps: of a Go program by net/http/pprof, of a JVM by its attach socket", Errors: errs,
		Responses: map[string]*huma.Response{"200": {Description: "a file in the format that was asked for", Content: map[string]*huma.MediaType{
			"application/octet-stream": {Schema: &huma.Schema{Type: "string", Format: "binary"}},
		}}},
	}, s.fetchRuntime)
}

func (s *Server) runtimes(ctx context.Context, in *runtimeParams) (runtimeList, error) {
	if s.opt.Runtimes == nil {
		return runtimeList{}, runtimeError(ErrRuntimesOff)
	}
	if in.PID != 0 {
		p, err := s.opt.Runtimes.Look(in.PID)
		return runtimeList{[]signal.RuntimeProcess{p}}, runtimeError(err)
	}
	list, err := s.opt.Runtimes.List(ctx)
	return runtimeList{orEmpty(list)}, runtimeError(err)
}

func (s *Server) askRuntime(ctx context.Context, in *runtimeParam) (*runtimeAnswer, error) {
	if err := s.mayAsk(); err != nil {
		return nil, err
	}
	p, err := s.opt.Runtimes.Ask(ctx, in.PID)
	return &runtimeAnswer{p}, runtimeError(err)
}

// mayAsk tells whether a process may be asked now.
func (s *Server) mayAsk() error {
	if s.opt.Runtimes == nil {
		return runtimeError(ErrRuntimesOff)
	}
	if !s.runtimeLimit.Allow() {
		return huma.ErrorWithHeaders(huma.Error429TooManyRequests(fmt.Sprintf("a process may be asked each %v, and %d times at once", runtimeEvery, runtimeBurst)),
			http.Header{"Retry-After": {fmt.Sprint(int(runtimeEvery.Seconds()))}})
	}
	return nil
}

func (s *Server) fetchRuntime(_ context.Context, in *runtimeFetch) (*huma.StreamResponse, error) {
	if err := s.mayAsk(); err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(h huma.Context) {
		r, w := humago.Unwrap(h)
		// The server's own limits are for what it has at hand.
		rc, window := http.NewResponseController(w), time.Duration(in.Seconds)*time.Second
		if err := errors.Join(rc.SetReadDeadline(time.Time{}), rc.SetWriteDeadline(time.Now().Add(window+runtimeMargin))); err != nil && !errors.Is(err, http.ErrNotSupported) {
			s.log.Debug("an answer may be cut off", "err", err)
		}
		text, err := s.opt.Runtimes.Fetch(r.Context(), signal.RuntimeRequest{
			PID: in.PID, Profile: in.Profile, Sample: in.Sample, For: window, Collect: in.Collect,
		}, in.Format)
		if err != nil {
			writeError(w, runtimeError(err))
			return
		}
		if in.Format == "json" {
			w.Header().Set("Content-Type", "application/json")
		} else {
			ending, kind := fileKind(in.Format)
			w.Header().Set("Content-Type", kind)
			w.Header().Set("Content-Disposition", fmt.Sprintf(`attachment; filename="huatuo-%s-%d-%d.%s"`, in.Profile, in.PID, time.Now().Unix(), ending))
		}
		if _, err := w.Write(text); err != nil {
			s.log.Debug("a download ended early", "err", err)
		}
	}}, nil
}

// runtimeError gives an error of Runtimes its status.
func runtimeError(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, ErrRuntimesOff) {
		return huma.Error403Forbidden(err.Error())
	}
	switch typeOf(err) {
	case notFoundError:
		return huma.Error404NotFound(err.Error())
	case badDataError:
		return huma.Error422UnprocessableEntity(err.Error())
	case unavailableError:
		return huma.Error429TooManyRequests(err.Error())
	case executionError:
		return huma.Error502BadGateway(err.Error())
	case timeoutError:
		return huma.Error504GatewayTimeout(err.Error())
	}
	return huma.Error500InternalServerError(err.Error())
}

// writeError writes what an operation would have returned.
func writeError(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	var known huma.StatusError
	if errors.As(err, &known) {
		status = known.GetStatus()
	}
	problem(w, status, err.Error())
}
