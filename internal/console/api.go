package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"huatuo/internal/signal"
)

// body is the answer of an endpoint.
type body[T any] struct{ Body T }

// OpenAPI returns the description of the HTTP API, derived from the types that
// the handlers take and return.
func OpenAPI() ([]byte, error) { return describe((&Server{}).register(http.NewServeMux())) }

func describe(api huma.API) ([]byte, error) {
	doc, err := json.MarshalIndent(api.OpenAPI(), "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode OpenAPI: %w", err)
	}
	return append(doc, '\n'), nil
}

// register adds the JSON endpoints to mux and describes all endpoints.
func (s *Server) register(mux *http.ServeMux) huma.API {
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "huatuo", Version: "1",
				Description: "Signals of one Linux node. Errors are RFC 9457 problems, except at the endpoints of Prometheus' own API.",
			},
			Components: &huma.Components{SecuritySchemes: map[string]*huma.SecurityScheme{
				"basic":  {Type: "http", Scheme: "basic", Description: "a user of the web configuration file"},
				"bearer": {Type: "http", Scheme: "bearer", Description: "the token of web.token_file"},
			}},
			// A server on loopback asks for none, unless told to.
			Security: []map[string][]string{{}, {"basic": {}}, {"bearer": {}}},
		},
		Formats:       map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat: "application/json",
		Transformers:  []huma.Transformer{explain},
	}
	api := humago.New(mux, config)
	s.registerAgent(api)
	s.registerEvents(api)
	s.registerCulprits(api)
	s.registerProfiles(api)
	s.registerCaptures(api)
	s.registerRuntimes(api)
	describeRaw(api)
	loosen(api)
	return api
}

// get adds one endpoint. Parameters that it does not know are refused, so that
// a misspelt filter is an error and not a filter that is not there.
func get[I, O any](api huma.API, id, path, summary string, errs []int, h func(context.Context, *I) (O, error)) {
	huma.Register(api, huma.Operation{
		OperationID: id, Method: http.MethodGet, Path: path, Summary: summary, Errors: errs,
		RejectUnknownQueryParameters: len(errs) == 0 || errs[0] != http.StatusUnprocessableEntity,
	}, func(ctx context.Context, in *I) (*body[O], error) {
		out, err := h(ctx, in)
		if err != nil {
			return nil, err
		}
		return &body[O]{out}, nil
	})
}

type none struct{}

type nameParam struct {
	Name string `path:"name" maxLength:"64"`
}

// Answers of the list endpoints.
type (
	metricList struct {
		Metrics []CatalogEntry `json:"metrics"`
	}
	kindList struct {
		Kinds []CatalogEntry `json:"kinds"`
	}
	probeList struct {
		Probes []ProbeStatus `json:"probes"`
	}
	systemInfo struct {
		Accounts []signal.Account   `json:"accounts" doc:"observed = delivered + dropped, by probe"`
		Store    signal.StoreStatus `json:"store"`
		Sinks    []Sink             `json:"sinks"`
		Cost     Cost               `json:"cost"`
		Config   string             `json:"config" doc:"effective configuration as YAML, secrets masked"`
	}
)

func (s *Server) registerAgent(api huma.API) {
	get(api, "getNode", "/api/v1/node", "The machine and the agent on it", nil, func(context.Context, *none) (Node, error) {
		n := s.opt.Agent.Node()
		n.Now = time.Now().UTC()
		return n, nil
	})
	get(api, "listMetrics", "/api/v1/metrics", "Every metric, in the order of the docs", nil, func(context.Context, *none) (metricList, error) {
		return metricList{s.catalog(signal.Metric)}, nil
	})
	get(api, "listEventKinds", "/api/v1/event-kinds", "Every kind of event, in the order of the docs", nil, func(context.Context, *none) (kindList, error) {
		return kindList{s.catalog(signal.Event)}, nil
	})
	get(api, "listProbes", "/api/v1/probes", "What runs, and why the rest does not", nil, func(context.Context, *none) (probeList, error) {
		return probeList{s.probes()}, nil
	})
	get(api, "getProbe", "/api/v1/probes/{name}", "One probe, its manual and its configuration", []int{http.StatusNotFound}, func(_ context.Context, in *nameParam) (Manual, error) {
		m, ok := s.opt.Agent.Probe(in.Name)
		if !ok {
			return m, huma.Error404NotFound(fmt.Sprintf("no probe %q: see /api/v1/probes", in.Name))
		}
		m.Schemas = withFields(m.Schemas)
		if m.Config == nil {
			m.Config = map[string]any{}
		}
		return m, nil
	})
	get(api, "getSystem", "/api/v1/system", "The agent's own state: conservation law, store, sinks, cost, configuration", nil, func(context.Context, *none) (systemInfo, error) {
		config, err := s.opt.Agent.EffectiveConfig()
		if err != nil {
			return systemInfo{}, fmt.Errorf("print configuration: %w", err)
		}
		return systemInfo{
			Accounts: s.accounts(), Store: s.opt.Agent.StoreStatus(),
			Sinks: orEmpty(s.opt.Agent.Sinks()), Cost: s.opt.Agent.Cost(), Config: config,
		}, nil
	})
}

func (s *Server) catalog(k signal.Kind) []CatalogEntry {
	out := []CatalogEntry{}
	for _, e := range s.opt.Agent.Catalog() {
		if e.Kind == k {
			e.Fields = orEmpty(e.Fields)
			out = append(out, e)
		}
	}
	return out
}

func (s *Server) probes() []ProbeStatus {
	out := []ProbeStatus{}
	accounts := s.accounts()
	for _, st := range s.opt.Agent.Probes() {
		p := ProbeStatus{Status: st}
		p.Signals = orEmpty(p.Signals)
		for i := range accounts {
			if accounts[i].Probe == st.Name {
				p.Account = &accounts[i]
			}
		}
		out = append(out, p)
	}
	return out
}

// withFields returns copies of schemas none of whose lists is null.
func withFields(list []*signal.Schema) []*signal.Schema {
	out := make([]*signal.Schema, len(list))
	for i, s := range list {
		c := *s
		c.Fields = orEmpty(c.Fields)
		out[i] = &c
	}
	return out
}

func (s *Server) accounts() []signal.Account {
	list := orEmpty(slices.Clone(s.opt.Agent.Accounts()))
	for i := range list {
		list[i].Sinks = orEmpty(list[i].Sinks)
		if list[i].Dropped == nil {
			list[i].Dropped = map[string]uint64{}
		}
	}
	return list
}

// orEmpty makes a nil slice an empty one: [] in JSON, where null would have
// every reader check for it.
func orEmpty[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// Inputs and answers of the event endpoints.
type (
	listParams struct {
		EventParams
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
		Before string `query:"before" doc:"next of the page before"`
	}
	timelineParams struct {
		EventParams
		Buckets int `query:"buckets" minimum:"1" maximum:"1000" default:"60"`
	}
	idParam struct {
		ID string `path:"id" doc:"ULID"`
	}
	timeline struct {
		From    time.Time            `json:"from"`
		To      time.Time            `json:"to"`
		Step    float64              `json:"step_seconds"`
		Buckets []signal.EventBucket `json:"buckets"`
	}
)

func (s *Server) registerEvents(api huma.API) {
	// 422 comes first: these endpoints check their parameters' names themselves.
	filtered := []int{http.StatusUnprocessableEntity, http.StatusServiceUnavailable, http.StatusGatewayTimeout}
	get(api, "listEvents", "/api/v1/events", "Events, newest first", filtered, s.listEvents)
	get(api, "getTimeline", "/api/v1/events/timeline", "Number of events by kind over time; filters as for /api/v1/events", filtered, s.timeline)
	get(api, "countEvents", "/api/v1/events/count", "Number of events by kind, severity, workload and time; filters as for /api/v1/events", filtered, s.countEvents)
	get(api, "listEventValues", "/api/v1/events/values", "Values that a member has in the newest 2000 events, the most frequent first; filters as for /api/v1/events", filtered, s.eventValues)
	get(api, "getEvent", "/api/v1/events/{id}", "One event", []int{http.StatusNotFound, http.StatusServiceUnavailable}, s.getEvent)
	one := []int{http.StatusNotFound, http.StatusServiceUnavailable, http.StatusGatewayTimeout}
	get(api, "listNeighbours", "/api/v1/events/{id}/neighbours", "What happened around an event: of the same process, workload and CPU, and on the host", one, s.listNeighbours)
	get(api, "listEventCharts", "/api/v1/events/{id}/charts", "The metrics that tell most about the time around an event", one, s.listCharts)
	for _, path := range []string{"/api/v1/events", "/api/v1/events/timeline", "/api/v1/events/count", "/api/v1/events/values"} {
		api.OpenAPI().Paths[path].Get.Description = "where: " + whereDoc + ". field.NAME=VALUE is short for where=field.NAME = VALUE."
	}
}

func (s *Server) listEvents(ctx context.Context, in *listParams) (signal.EventPage, error) {
	var page signal.EventPage
	f := in.filter
	f.Limit, f.Before = in.Limit, in.Before
	if f.Before != "" && !isID(f.Before) {
		return page, huma.Error422UnprocessableEntity("validation failed", paramError("before", "%q is not the id of an event", clip(f.Before)))
	}
	err := s.read(ctx, func(ctx context.Context) (err error) {
		page, err = s.opt.Events.Events(ctx, f)
		return err
	})
	page.Events = orEmpty(page.Events)
	return page, err
}

func (s *Server) getEvent(ctx context.Context, in *idParam) (*signal.Document, error) {
	var d *signal.Document
	if isID(in.ID) {
		err := s.read(ctx, func(ctx context.Context) (err error) {
			d, err = s.opt.Events.Event(ctx, in.ID)
			return err
		})
		if se, ok := err.(huma.StatusError); ok && se.GetStatus() != http.StatusNotFound {
			return nil, err
		}
	}
	if d == nil {
		return nil, huma.Error404NotFound(fmt.Sprintf("no event %q: it was never kept, or its retention is over", clip(in.ID)))
	}
	return d, nil
}

func (s *Server) timeline(ctx context.Context, in *timelineParams) (timeline, error) {
	f := in.filter
	if err := hour(&f); err != nil {
		return timeline{}, err
	}
	out := timeline{From: f.From, To: f.To, Step: f.To.Sub(f.From).Seconds() / float64(in.Buckets)}
	err := s.read(ctx, func(ctx context.Context) (err error) {
		out.Buckets, err = s.opt.Events.Timeline(ctx, f, in.Buckets)
		return err
	})
	out.Buckets = orEmpty(out.Buckets)
	return out, err
}

// read runs a query of the event store under the query timeout and gives its
// errors a status.
func (s *Server) read(ctx context.Context, query func(context.Context) error) error {
	return s.ask(ctx, s.opt.Events != nil, "read events", query)
}

// readMetrics is read for the metric history.
func (s *Server) readMetrics(ctx context.Context, query func(context.Context) error) error {
	return s.ask(ctx, s.opt.Metrics != nil, "query metrics", query)
}

func (s *Server) ask(ctx context.Context, kept bool, what string, query func(context.Context) error) error {
	if !kept {
		return huma.Error503ServiceUnavailable(noStore)
	}
	ctx, cancel := context.WithTimeout(ctx, s.opt.QueryTimeout)
	defer cancel()
	err := query(ctx)
	if err == nil {
		return nil
	}
	switch typeOf(err) {
	case badDataError, executionError:
		return huma.Error422UnprocessableEntity(err.Error())
	case notFoundError:
		return huma.Error404NotFound(err.Error())
	case timeoutError:
		return huma.Error504GatewayTimeout(fmt.Sprintf("the query took longer than %s: narrow its time range or filters", s.opt.QueryTimeout))
	case canceledError:
		return huma.NewError(statusGone, "the client has gone")
	default:
		s.log.Error(what, "error", err)
		return huma.Error500InternalServerError(what + ": " + err.Error())
	}
}

// statusGone is nginx' "client closed request", which Prometheus uses too.
const statusGone = 499

const noStore = "the agent keeps no history: it was started with --store none"
