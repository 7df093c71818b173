// Package pyroscope serves the API that Grafana reads profiles by, Pyroscope's
// querier.v1, from the profiles that the agent keeps. Its data source for
// Pyroscope, given the address of the console, shows them.
//
// The messages are the published ones; the protocol is connect's, with JSON or
// protobuf. What the agent has nothing for (spans, heat maps of single
// profiles, the cost of a query) is answered with the code unimplemented.
package pyroscope

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/grafana/pyroscope/api/gen/proto/go/querier/v1/querierv1connect"
	"github.com/prometheus/prometheus/promql/parser"

	"huatuo/internal/signal"
)

// Path is where the handler expects to be mounted.
const Path = "/" + querierv1connect.QuerierServiceName + "/"

const (
	// maxRequest bounds a request once it is unpacked: what the console lets
	// through packed.
	maxRequest = 1 << 20
	// recently is the window of a question that names none.
	recently = time.Hour
)

// Profiles reads the stacks that were kept.
type Profiles interface {
	Types() []*signal.ProfileType
	Flame(ctx context.Context, q signal.ProfileQuery, least float64) (*signal.FlameGraph, error)
	Heat(ctx context.Context, q signal.ProfileQuery, column time.Duration) ([]int64, error)
	Series(ctx context.Context, q signal.ProfileQuery, by []string) ([]signal.ProfileSeries, error)
	Encode(w io.Writer, g *signal.FlameGraph, format string) error
}

// Options of New.
type Options struct {
	Profiles Profiles      // nil: there are none, and every answer says so
	Instance string        // value of the label instance: name of this machine
	Timeout  time.Duration // of one request
}

// New returns the handler of everything below Path. What it needs is made by
// the first request: few agents ever get one.
func New(o Options) http.Handler {
	build := sync.OnceValue(func() http.Handler {
		s := &server{opt: o, parser: newParser()}
		_, h := querierv1connect.NewQuerierServiceHandler(s,
			connect.WithReadMaxBytes(maxRequest), connect.WithInterceptors(connect.UnaryInterceptorFunc(s.around)))
		return h
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { build().ServeHTTP(w, r) })
}

func newParser() parser.Parser { return parser.NewParser(parser.Options{}) }

// server answers the methods that there is something for.
type server struct {
	querierv1connect.UnimplementedQuerierServiceHandler
	opt    Options
	parser parser.Parser
}

// around runs a method within its time and gives errors their code.
func (s *server) around(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, r connect.AnyRequest) (connect.AnyResponse, error) {
		if s.opt.Profiles == nil {
			return nil, connect.NewError(connect.CodeUnavailable, errors.New("there are no profiles: set profiles.enabled, and keep the store on"))
		}
		ctx, cancel := context.WithTimeout(ctx, s.opt.Timeout)
		defer cancel()
		out, err := next(ctx, r)
		var coded *connect.Error
		switch {
		case err == nil:
			return out, nil
		case errors.Is(ctx.Err(), context.DeadlineExceeded):
			return nil, connect.NewError(connect.CodeDeadlineExceeded, errors.New("the query took too long: ask for a shorter window"))
		case errors.As(err, &coded):
			return nil, err
		case errors.Is(err, context.Canceled):
			return nil, connect.NewError(connect.CodeCanceled, err)
		}
		return nil, connect.NewError(connect.CodeInternal, err)
	}
}

func invalid(format string, args ...any) error {
	return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf(format, args...))
}

func unimplemented(what string) error {
	return connect.NewError(connect.CodeUnimplemented, errors.New(what))
}

// lastMilli is the last millisecond of the year 9999: no time that anybody means
// is later, and a duration between two such times may still overflow nothing.
const lastMilli = 253402300799999

// window reads the window of a question. When it need not name one, both ends
// may be zero.
func window(start, end int64, need bool) (from, to time.Time, err error) {
	if start == 0 && end == 0 && !need {
		to = time.Now()
		return to.Add(-recently), to, nil
	}
	if start < 0 || end > lastMilli || start >= end {
		return from, to, invalid("start %d, end %d: want milliseconds since 1970, start before end", start, end)
	}
	return time.UnixMilli(start), time.UnixMilli(end), nil
}

// seconds of a step as a duration.
func seconds(s float64) (time.Duration, error) {
	if math.IsNaN(s) || s < 0.001 || s > 366*24*3600 {
		return 0, invalid("step %g: want seconds, from 0.001 to a year", s)
	}
	return time.Duration(s * float64(time.Second)), nil
}
