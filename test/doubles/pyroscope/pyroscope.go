// Package pyroscope is a double of a Pyroscope server for tests: it takes what
// the real one was seen to take, by its push API and as OTLP profiles, and
// refuses what that refuses, in the same words where somebody may look for them.
// It is stricter where the real one repairs or drops something silently: a
// client should not lean on that.
//
// The messages are those that the project publishes; the limits are the server's
// defaults.
package pyroscope

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	pushv1 "github.com/grafana/pyroscope/api/gen/proto/go/push/v1"
	"github.com/grafana/pyroscope/api/gen/proto/go/push/v1/pushv1connect"
)

// Options say whom the server lets in.
type Options struct {
	Username, Password string // empty: anybody
	Token              string
	Tenants            bool // a request has to name its tenant
}

// Stored is a profile that was taken.
type Stored struct {
	Tenant string
	Type   string // name:type:unit:period type:period unit
	Labels map[string]string
	Time   time.Time
	Total  int64
	Stacks map[string]int64 // value by functions, outermost first, joined by ;
}

// Server is the double.
type Server struct {
	opt Options
	mux *http.ServeMux

	mu      sync.Mutex
	stored  []Stored
	refused []string
	last    map[string]time.Time // of each series
	ids     map[string]bool
	fail    []failure
}

type failure struct {
	code  connect.Code
	after time.Duration
	lost  bool // it was taken all the same
}

// New returns a server without any profile.
func New(o Options) *Server {
	s := &Server{opt: o, mux: http.NewServeMux(), last: map[string]time.Time{}, ids: map[string]bool{}}
	s.mux.Handle(pushv1connect.NewPusherServiceHandler(s))
	s.mux.HandleFunc("POST /v1development/profiles", s.otlp)
	return s
}

// ServeHTTP answers a request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if why := s.admit(r); why != "" {
		s.refuse(why)
		http.Error(w, why, http.StatusUnauthorized)
		return
	}
	s.mux.ServeHTTP(w, r)
}

func (s *Server) admit(r *http.Request) string {
	user, password, _ := r.BasicAuth()
	switch {
	case s.opt.Username != "" && (user != s.opt.Username || password != s.opt.Password):
		return "invalid credentials"
	case s.opt.Token != "" && r.Header.Get("Authorization") != "Bearer "+s.opt.Token:
		return "invalid token"
	case s.opt.Tenants && r.Header.Get(tenantHeader) == "":
		return "no org id"
	}
	return ""
}

const tenantHeader = "X-Scope-OrgID"

// Fail makes the next n requests fail.
func (s *Server) Fail(n int, code connect.Code, after time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		s.fail = append(s.fail, failure{code: code, after: after})
	}
}

// LoseAnswer makes the next request succeed, and its answer say otherwise.
func (s *Server) LoseAnswer() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = append(s.fail, failure{code: connect.CodeUnavailable, lost: true})
}

// Stored returns what was taken so far.
func (s *Server) Stored() []Stored {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.stored)
}

// Refused returns why requests were refused so far, other than by Fail.
func (s *Server) Refused() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.refused)
}

func (s *Server) refuse(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused = append(s.refused, why)
}

// failing returns the failure that the next request was promised.
func (s *Server) failing() (failure, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.fail) == 0 {
		return failure{}, false
	}
	f := s.fail[0]
	s.fail = s.fail[1:]
	return f, true
}

// Push takes profiles as pprof.
func (s *Server) Push(_ context.Context, r *connect.Request[pushv1.PushRequest]) (*connect.Response[pushv1.PushResponse], error) {
	f, fails := s.failing()
	if fails && !f.lost {
		err := connect.NewError(f.code, errors.New("told to fail"))
		if f.after > 0 {
			err.Meta().Set("Retry-After", strconv.Itoa(int(f.after/time.Second)))
		}
		return nil, err
	}
	all, err := s.checkPush(r.Msg)
	if err == nil {
		err = s.keep(r.Header().Get(tenantHeader), all)
	}
	if err != nil {
		s.refuse(err.Error())
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	if fails {
		return nil, connect.NewError(f.code, errors.New("told to fail after all"))
	}
	return connect.NewResponse(&pushv1.PushResponse{}), nil
}

func (s *Server) checkPush(m *pushv1.PushRequest) ([]taken, error) {
	var all []taken
	for _, series := range m.Series {
		names := make([][2]string, 0, len(series.Labels))
		for _, l := range series.Labels {
			names = append(names, [2]string{l.Name, l.Value})
		}
		labels, err := checkLabels(names)
		if err != nil {
			return nil, err
		}
		if len(series.Samples) == 0 {
			return nil, fmt.Errorf("series %v has no profile", labels)
		}
		for _, x := range series.Samples {
			p, err := checkPprof(x.RawProfile, labels)
			if err != nil {
				return nil, err
			}
			all = append(all, taken{x.ID, p})
		}
	}
	if len(all) == 0 {
		return nil, errors.New("no profiles received")
	}
	return all, nil
}

// taken is a profile with the id that its client gave it.
type taken struct {
	id string
	Stored
}

const (
	rejectOlder = time.Hour
	rejectNewer = 10 * time.Minute
)

// keep stores profiles if all of them are in time and in order. One of an id that
// is known already was sent again, and is not kept twice.
func (s *Server) keep(tenant string, all []taken) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	last := map[string]time.Time{}
	for _, p := range all {
		if p.id != "" && s.ids[p.id] {
			continue
		}
		if p.Time.Before(now.Add(-rejectOlder)) || p.Time.After(now.Add(rejectNewer)) {
			return fmt.Errorf("profile with labels %v is outside of the ingestion window (profile timestamp: %v)", p.Labels, p.Time)
		}
		k := series(p.Stored)
		if _, ok := last[k]; !ok {
			last[k] = s.last[k]
		}
		if p.Time.Before(last[k]) {
			return fmt.Errorf("profile with labels %v is out of order: %v is before %v", p.Labels, p.Time, last[k])
		}
		last[k] = p.Time
	}
	maps.Copy(s.last, last)
	for _, p := range all {
		if p.id != "" && s.ids[p.id] {
			continue
		}
		if p.id != "" {
			s.ids[p.id] = true
		}
		p.Tenant = tenant
		s.stored = append(s.stored, p.Stored)
	}
	return nil
}

// series names the series of a profile.
func series(p Stored) string {
	pairs := []string{p.Type}
	for n, v := range p.Labels {
		pairs = append(pairs, n+"="+v)
	}
	slices.Sort(pairs)
	return strings.Join(pairs, "\x00")
}
