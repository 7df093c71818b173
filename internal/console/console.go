// Package console serves the agent's HTTP API, the live event stream, /metrics
// and the web console that is embedded in the binary.
//
// It reads everything through interfaces that it declares itself (Agent,
// Events, Metrics): what is behind them is wired in package app. It listens on
// loopback unless there is a credential for those who come from elsewhere.
// Nothing here runs a command, takes a path from a request or changes the
// agent.
package console

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzhttp"
	"golang.org/x/time/rate"

	"huatuo/internal/console/pyroscope"
	"huatuo/internal/signal"
)

// DefaultListen is the address in use when the configuration has none.
const DefaultListen = "localhost:19704"

// defaultQueryTimeout is what a person waits for at most. The slowest query of
// the console takes well under a second.
const defaultQueryTimeout = 30 * time.Second

// Options say what a Server serves and to whom.
type Options struct {
	Listen         string   // host:port; DefaultListen when empty
	ConfigFile     string   // web.config_file: exporter-toolkit's TLS and basic auth
	TokenFile      string   // web.token_file: a bearer token
	AllowAnonymous bool     // web.allow_anonymous: open to the network without a credential
	AllowedHosts   []string // web.allowed_hosts: names by which a browser may reach it, besides localhost and the host's own

	Agent    Agent
	Events   Events       // nil without a store
	Metrics  Metrics      // nil without a store
	Profiles Profiles     // nil without profiles
	Captures Captures     // nil without profiles
	Runtimes Runtimes     // nil: no process is asked
	Scrape   http.Handler // serves /metrics
	Hub      *Hub         // nil makes an empty one
	// Latest gives the samples of the last gathering round, whose notes the
	// history has not; nil for none. It returns at once.
	Latest func() []signal.Sample

	QueryTimeout time.Duration // 30 s when zero
	Log          *slog.Logger
}

// Server is the HTTP server of the agent.
type Server struct {
	opt      Options
	log      *slog.Logger
	creds    *credentials
	origin   *http.CrossOriginProtection
	hosts    []string // names that pass the Host check, lower case
	loopback bool     // Options.Listen is
	port     string   // that Listen got
	handler  http.Handler
	stopping chan struct{} // closed when streams have to end

	heartbeat, streamWrite time.Duration // shorter in tests

	captureLimit, runtimeLimit *rate.Limiter

	metrics metrics
	panics  atomic.Uint64
	answers [6]atomic.Uint64 // by status/100
}

// New checks the options and returns a server that Serve starts. An address
// that is not loopback needs a credential, or the explicit wish for none.
func New(opt Options) (*Server, error) {
	if opt.Listen == "" {
		opt.Listen = DefaultListen
	}
	if opt.Log == nil {
		opt.Log = slog.Default()
	}
	if opt.Hub == nil {
		opt.Hub = NewHub()
	}
	if opt.QueryTimeout <= 0 {
		opt.QueryTimeout = defaultQueryTimeout
	}
	if opt.Agent == nil || opt.Scrape == nil {
		panic("BUG: console.New needs an Agent and a Scrape handler")
	}
	host, _, err := splitListen(opt.Listen)
	if err != nil {
		return nil, err
	}
	s := &Server{
		opt: opt, log: opt.Log, loopback: isLoopback(host),
		origin:    http.NewCrossOriginProtection(),
		stopping:  make(chan struct{}),
		heartbeat: heartbeat, streamWrite: streamWrite, metrics: newMetrics(), captureLimit: newCaptureLimit(), runtimeLimit: newRuntimeLimit(),
	}
	if err := s.secure(host); err != nil {
		return nil, err
	}
	if s.handler, err = s.routes(); err != nil {
		return nil, err
	}
	return s, nil
}

// secure reads the credentials and refuses to go on the network without.
func (s *Server) secure(host string) error {
	var err error
	if s.creds, err = newCredentials(s.opt.ConfigFile, s.opt.TokenFile, s.log); err != nil {
		return err
	}
	configured := s.creds.configured()
	if s.opt.AllowAnonymous && configured {
		return errors.New("web.allow_anonymous contradicts the credentials of web.config_file or web.token_file: remove one of them")
	}
	if !s.loopback && !configured && !s.opt.AllowAnonymous {
		return fmt.Errorf("listen on %s: an address that others can reach needs a credential. "+
			"Give --web.config-file (web.config_file in the configuration: users and TLS, in the format of the Prometheus exporter-toolkit) "+
			"or web.token_file (a file with a bearer token), or listen on localhost. "+
			"web.allow_anonymous: true lets everybody in", s.opt.Listen)
	}
	s.creds.demand = configured // what was asked for at the start is asked for until the end
	s.hosts = []string{"localhost"}
	names := append([]string{host}, s.opt.AllowedHosts...)
	if own, err := os.Hostname(); err == nil {
		names = append(names, own)
	}
	for _, n := range names {
		if n = strings.ToLower(strings.TrimSuffix(n, ".")); n != "" {
			s.hosts = append(s.hosts, n)
		}
	}
	return nil
}

// routes builds the handler of everything.
func (s *Server) routes() (http.Handler, error) {
	gzip, err := gzhttp.NewWrapper(gzhttp.MinSize(1024), gzhttp.ContentTypes([]string{"application/json", "application/problem+json", ndjsonType, "text/html"}))
	if err != nil {
		return nil, fmt.Errorf("set up compression: %w", err)
	}
	api := http.NewServeMux()
	described := s.register(api)
	doc := sync.OnceValues(func() ([]byte, error) { return describe(described) }) // few ever ask
	for path, h := range map[string]http.HandlerFunc{
		"/api/v1/query":                   s.promHandler(s.query),
		"/api/v1/query_range":             s.promHandler(s.queryRange),
		"/api/v1/series":                  s.promHandler(s.series),
		"/api/v1/labels":                  s.promHandler(s.labelNames),
		"GET /api/v1/metadata":            s.metadata,
		"GET /api/v1/label/{name}/values": s.promHandler(s.labelValues),
		"GET /api/v1/status/buildinfo":    s.buildInfo,
	} {
		if strings.HasPrefix(path, "GET ") {
			api.Handle(path, h)
			continue
		}
		api.Handle("GET "+path, h)
		api.Handle("POST "+path, h) // long queries do not fit a URL
	}
	api.HandleFunc("GET /api/v1/events/export", s.exportEvents)
	api.HandleFunc("GET /api/v1/events/{id}/export", s.exportEvent)
	api.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		text, err := doc()
		if err != nil {
			panic("BUG: " + err.Error())
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(text)
	})
	api.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.notFound(api, w, r) })

	ui, err := newAssets()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/api/", gzip(api))
	mux.Handle("/openapi.json", gzip(api))
	mux.HandleFunc("GET /api/v1/events/stream", s.stream) // compression would hold events back
	mux.Handle("GET /metrics", s.opt.Scrape)              // compresses by itself
	mux.Handle(pyroscope.Path, s.pyroscope())             // likewise
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", s.ready)
	mux.Handle("/", ui)
	return s.guard(mux), nil
}

// notFound answers what no route of the API takes: with 405 when another
// method of the path has one.
func (s *Server) notFound(api *http.ServeMux, w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		other := *r
		other.Method = method
		if _, pattern := api.Handler(&other); pattern != "/" {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) > 0 {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		problem(w, http.StatusMethodNotAllowed, fmt.Sprintf("%s is not served here; use %s", r.Method, strings.Join(allowed, " or ")))
		return
	}
	problem(w, http.StatusNotFound, "no such endpoint: /openapi.json describes those that there are")
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	if err := s.opt.Agent.Ready(); err != nil {
		plain(w, http.StatusServiceUnavailable, "not ready: "+err.Error())
		return
	}
	plain(w, http.StatusOK, "ready")
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	w.Write([]byte(text + "\n"))
}

// ServeHTTP answers one request as the started server would.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }
