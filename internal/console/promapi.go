package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"huatuo/internal/signal"
)

// The handlers below speak Prometheus' HTTP API, so that Grafana and promtool
// take the agent for a Prometheus.

// maxPoints per series of a range query, as in Prometheus: a week at 60 s, or
// more than any screen has pixels.
const maxPoints = 11000

// promError is an error in Prometheus' terms.
type promError struct {
	kind string // errorType
	err  error
}

func badData(format string, args ...any) *promError {
	return &promError{badDataError, fmt.Errorf(format, args...)}
}

func badParam(name string, err error) *promError {
	return badData("invalid parameter %q: %w", name, err)
}

func (e *promError) status() int {
	switch e.kind {
	case badDataError:
		return http.StatusBadRequest
	case executionError:
		return http.StatusUnprocessableEntity
	case canceledError:
		return statusGone
	case timeoutError, unavailableError:
		return http.StatusServiceUnavailable
	case notFoundError:
		return http.StatusNotFound
	default:
		return http.StatusInternalServerError
	}
}

// promResult is a successful answer: data is JSON.
type promResult struct {
	data            []byte
	warnings, infos []string
}

// promHandler runs h as one query, which ends with the query timeout, or
// earlier when the client says so.
func (s *Server) promHandler(h func(ctx context.Context, r *http.Request) (promResult, *promError)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		res, perr := s.runProm(r, h)
		if perr != nil {
			if perr.kind == internalError {
				s.log.Error("query metrics", "error", perr.err)
			}
			writePromError(w, perr)
			return
		}
		b := append([]byte(`{"status":"success","data":`), res.data...)
		b = appendNotes(b, `,"warnings":`, res.warnings)
		b = appendNotes(b, `,"infos":`, res.infos)
		w.Header().Set("Content-Type", "application/json")
		w.Write(append(b, '}'))
	}
}

func (s *Server) runProm(r *http.Request, h func(context.Context, *http.Request) (promResult, *promError)) (promResult, *promError) {
	if err := r.ParseForm(); err != nil {
		return promResult{}, badData("read form: %w", err)
	}
	if s.opt.Metrics == nil {
		return promResult{}, &promError{unavailableError, errors.New(noStore)}
	}
	timeout := s.opt.QueryTimeout
	if v := r.Form.Get("timeout"); v != "" {
		d, err := durationOf(v)
		if err != nil {
			return promResult{}, badParam("timeout", err)
		}
		timeout = min(timeout, max(d, 0))
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	return h(ctx, r)
}

func writePromError(w http.ResponseWriter, e *promError) {
	b := append([]byte(`{"status":"error","errorType":`), appendString(nil, e.kind)...)
	b = append(b, `,"error":`...)
	b = append(appendString(b, e.err.Error()), '}')
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.status())
	w.Write(b)
}

func appendNotes(b []byte, key string, notes []string) []byte {
	if len(notes) == 0 {
		return b
	}
	b = append(b, key...)
	return appendList(b, notes, appendText)
}

func (s *Server) query(ctx context.Context, r *http.Request) (promResult, *promError) {
	at, err := timeParam(r, "time", false)
	if err != nil {
		return promResult{}, err
	}
	if at.IsZero() {
		at = time.Now()
	}
	res, xerr := s.opt.Metrics.Instant(ctx, r.Form.Get("query"), at)
	return valueResult(r, res, xerr)
}

func (s *Server) queryRange(ctx context.Context, r *http.Request) (promResult, *promError) {
	from, to, err := rangeParams(r, true)
	if err != nil {
		return promResult{}, err
	}
	step, derr := durationOf(r.Form.Get("step"))
	if derr != nil {
		return promResult{}, badParam("step", derr)
	}
	if step <= 0 {
		return promResult{}, badData(`invalid parameter "step": must be greater than zero`)
	}
	if to.Sub(from)/step > maxPoints {
		return promResult{}, badData("more than %d points per series: use a longer step or a shorter range", maxPoints)
	}
	res, xerr := s.opt.Metrics.Range(ctx, r.Form.Get("query"), from, to, step)
	return valueResult(r, res, xerr)
}

// valueResult makes the answer of a query, cut to the limit of the request.
func valueResult(r *http.Request, res Result, err error) (promResult, *promError) {
	if err != nil {
		return promResult{}, readError(err)
	}
	limit, perr := limitParam(r)
	if perr != nil {
		return promResult{}, perr
	}
	value, cut := res.Value, false
	switch v := value.(type) {
	case promql.Vector:
		if cut = limit > 0 && len(v) > limit; cut {
			value = v[:limit]
		}
	case promql.Matrix:
		if cut = limit > 0 && len(v) > limit; cut {
			value = v[:limit]
		}
	}
	out := promResult{appendValue(nil, value), res.Warnings, res.Infos}
	if cut {
		out.warnings = append(slices.Clone(out.warnings), truncated)
	}
	return out, nil
}

const truncated = "results truncated due to limit"

func readError(err error) *promError {
	kind := typeOf(err)
	if kind == badDataError {
		return badParam("query", err)
	}
	return &promError{kind, err}
}

func (s *Server) series(ctx context.Context, r *http.Request) (promResult, *promError) {
	if len(r.Form["match[]"]) == 0 {
		return promResult{}, badData("no match[] parameter provided")
	}
	return selected(r, func(q Selection) ([]labels.Labels, bool, error) { return s.opt.Metrics.Series(ctx, q) },
		func(b []byte, l *labels.Labels) []byte { return appendLabels(b, *l) })
}

func (s *Server) labelNames(ctx context.Context, r *http.Request) (promResult, *promError) {
	return selected(r, func(q Selection) ([]string, bool, error) { return s.opt.Metrics.LabelNames(ctx, q) }, appendText)
}

func (s *Server) labelValues(ctx context.Context, r *http.Request) (promResult, *promError) {
	name := r.PathValue("name")
	if strings.HasPrefix(name, "U__") { // how clients put other characters into a path
		name = model.UnescapeName(name, model.ValueEncodingEscaping)
	}
	return selected(r, func(q Selection) ([]string, bool, error) { return s.opt.Metrics.LabelValues(ctx, name, q) }, appendText)
}

func appendText(b []byte, s *string) []byte { return appendString(b, *s) }

// selected answers one of the series and label endpoints.
func selected[T any](r *http.Request, read func(Selection) ([]T, bool, error), item func([]byte, *T) []byte) (promResult, *promError) {
	q := Selection{Match: r.Form["match[]"]}
	var perr *promError
	if q.From, q.To, perr = rangeParams(r, false); perr != nil {
		return promResult{}, perr
	}
	if q.Limit, perr = limitParam(r); perr != nil {
		return promResult{}, perr
	}
	list, more, err := read(q)
	if err != nil {
		return promResult{}, &promError{typeOf(err), err}
	}
	out := promResult{data: appendList(nil, list, item)}
	if more {
		out.warnings = []string{truncated}
	}
	return out, nil
}

// metadata answers from the catalogue, not from what was scraped.
func (s *Server) metadata(w http.ResponseWriter, r *http.Request) {
	type entry struct {
		Type string `json:"type"`
		Help string `json:"help"`
		Unit string `json:"unit"`
	}
	if err := r.ParseForm(); err != nil {
		writePromError(w, badData("read form: %w", err))
		return
	}
	limit, perr := limitParam(r)
	if perr != nil {
		writePromError(w, perr)
		return
	}
	only, data := r.Form.Get("metric"), map[string][]entry{}
	for _, e := range s.catalog(signal.Metric) {
		if (only != "" && only != e.Name) || (limit > 0 && len(data) >= limit) {
			continue
		}
		unit := e.Unit
		if unit == "1" {
			unit = ""
		}
		data[e.Name] = []entry{{string(e.Type), e.Help, unit}}
	}
	writeProm(w, data)
}

// buildInfo tells clients which features of the API they may use: the version
// is that of the Prometheus whose engine answers.
func (s *Server) buildInfo(w http.ResponseWriter, _ *http.Request) {
	n := s.opt.Agent.Node()
	writeProm(w, map[string]string{
		"version": engineVersion(), "revision": n.Commit, "branch": "huatuo " + n.Version, "buildUser": "", "buildDate": "", "goVersion": runtime.Version(),
	})
}

// engineVersion maps the module's version v0.3XX.Y to the server's 3.XX.Y.
func engineVersion() string {
	const unknown = "3.0.0" // a binary without build information, as some tests are
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return unknown
	}
	for _, m := range info.Deps {
		if m.Path != "github.com/prometheus/prometheus" {
			continue
		}
		parts := strings.SplitN(strings.TrimPrefix(m.Version, "v"), ".", 3)
		if len(parts) == 3 && len(parts[1]) == 3 {
			minor, err := strconv.Atoi(parts[1][1:])
			if err == nil {
				return fmt.Sprintf("%c.%d.%s", parts[1][0], minor, parts[2])
			}
		}
	}
	return unknown
}

func writeProm(w http.ResponseWriter, data any) {
	w.Header().Set("Content-Type", "application/json")
	b, err := json.Marshal(map[string]any{"status": "success", "data": data})
	if err != nil {
		panic("BUG: encode answer: " + err.Error())
	}
	w.Write(b)
}
