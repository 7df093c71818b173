package console

import (
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"huatuo/internal/signal"
)

// rawParam is a query parameter of an endpoint that is no huma operation.
type rawParam struct {
	name, doc string
	required  bool
}

// rawOperation is such an endpoint.
type rawOperation struct {
	id, path, summary, contentType string
	post, public                   bool
	params                         []rawParam
}

func rawOperations() []rawOperation {
	const jsonType = "application/json"
	match := rawParam{name: "match[]", doc: "series selector; may be repeated"}
	start := rawParam{name: "start", doc: "RFC 3339 or Unix seconds"}
	end := rawParam{name: "end", doc: "RFC 3339 or Unix seconds"}
	limit := rawParam{name: "limit", doc: "at most this many results; 0 for no limit"}
	timeout := rawParam{name: "timeout", doc: "shorter than the server's"}
	expr := rawParam{name: "query", doc: "PromQL expression", required: true}
	must := func(p rawParam) rawParam { p.required = true; return p }
	return []rawOperation{
		{"streamEvents", "/api/v1/events/stream", "Live events as server-sent events: event, heartbeat, gap. Resumes after Last-Event-ID", "text/event-stream", false, false, []rawParam{
			{name: "kind", doc: "names of event kinds, separated by commas"}, {name: "severity", doc: "info, warning, critical, separated by commas"},
			{name: "namespace"}, {name: "pod"}, {name: "container"}, {name: "unit"}, {name: "comm"}, {name: "pid"}, {name: "where", doc: whereDoc},
			{name: "last_event_id", doc: "in place of the Last-Event-ID header, which a browser cannot set at first"},
		}},
		{"exportEvents", "/api/v1/events/export", "Events as a file, newest first; filters as for /api/v1/events", ndjsonType, false, false, []rawParam{
			{name: "format", doc: "ndjson (default): a document a line; json: a list"}, {name: "limit", doc: "at most this many, 10000 at most and when missing"},
			{name: "kind"}, {name: "severity"}, {name: "from"}, {name: "to"}, {name: "q"},
			{name: "namespace"}, {name: "pod"}, {name: "container"}, {name: "unit"}, {name: "comm"}, {name: "pid"}, {name: "where", doc: whereDoc},
		}},
		{"exportEvent", "/api/v1/events/{id}/export", "One event as a file", "text/html", false, false, []rawParam{
			{name: "format", doc: "html (default): one page that needs nothing else, with stacks, neighbours and charts; json: the document"},
			{name: "window", doc: "seconds before and after the event in which its neighbours are, 60 when missing"}, {name: "lang", doc: "of the page: en (default) or zh"},
		}},
		{"query", "/api/v1/query", "PromQL at one time, as Prometheus answers it", jsonType, true, false,
			[]rawParam{expr, {name: "time", doc: "RFC 3339 or Unix seconds; now when missing"}, timeout, limit}},
		{"queryRange", "/api/v1/query_range", "PromQL over a range, as Prometheus answers it", jsonType, true, false,
			[]rawParam{expr, must(start), must(end), {name: "step", doc: "seconds or a duration such as 15s", required: true}, timeout, limit}},
		{"series", "/api/v1/series", "Series that match, as Prometheus answers it", jsonType, true, false, []rawParam{must(match), start, end, limit}},
		{"labelNames", "/api/v1/labels", "Label names, as Prometheus answers it", jsonType, true, false, []rawParam{match, start, end, limit}},
		{"labelValues", "/api/v1/label/{name}/values", "Values of a label, as Prometheus answers it", jsonType, false, false, []rawParam{match, start, end, limit}},
		{"metadata", "/api/v1/metadata", "Type, help and unit by metric, as Prometheus answers it", jsonType, false, false, []rawParam{{name: "metric", doc: "only this one"}, limit}},
		{"buildInfo", "/api/v1/status/buildinfo", "Version of the Prometheus whose API this is", jsonType, false, false, nil},
		{"describe", "/openapi.json", "This document", jsonType, false, false, nil},
		{"scrape", "/metrics", "Every metric: text, OpenMetrics, or protobuf with native histograms, by the Accept header", "text/plain", false, true, nil},
		{"health", "/healthz", "200 while the agent runs", "text/plain", false, true, nil},
		{"ready", "/readyz", "200 once probes and store have started, else 503", "text/plain", false, true, nil},
	}
}

// describeRaw adds the endpoints that are not huma operations to the document.
func describeRaw(api huma.API) {
	for _, raw := range rawOperations() {
		api.OpenAPI().AddOperation(raw.operation(http.MethodGet))
		if raw.post {
			op := raw.operation(http.MethodPost)
			op.OperationID += "Post"
			op.Parameters = nil
			form := &huma.Schema{Type: huma.TypeObject, Properties: map[string]*huma.Schema{}}
			for _, p := range raw.params {
				form.Properties[p.name] = &huma.Schema{Type: huma.TypeString, Description: p.doc}
				if p.required {
					form.Required = append(form.Required, p.name)
				}
			}
			op.RequestBody = &huma.RequestBody{Content: map[string]*huma.MediaType{"application/x-www-form-urlencoded": {Schema: form}}}
			api.OpenAPI().AddOperation(op)
		}
	}
}

func (raw rawOperation) operation(method string) *huma.Operation {
	schema := &huma.Schema{Type: huma.TypeString}
	if raw.contentType == "application/json" {
		schema = &huma.Schema{Type: huma.TypeObject, Description: "status, data and, on errors, errorType and error"}
	}
	op := &huma.Operation{
		OperationID: raw.id, Method: method, Path: raw.path, Summary: raw.summary,
		Responses: map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{raw.contentType: {Schema: schema}}}},
	}
	if raw.public {
		op.Security = []map[string][]string{{}}
	}
	if _, rest, ok := strings.Cut(raw.path, "{"); ok {
		name, _, _ := strings.Cut(rest, "}")
		op.Parameters = append(op.Parameters, &huma.Param{Name: name, In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString}})
	}
	for _, p := range raw.params {
		op.Parameters = append(op.Parameters, &huma.Param{Name: p.name, In: "query", Description: p.doc, Required: p.required, Schema: &huma.Schema{Type: huma.TypeString}})
	}
	return op
}

// loosen makes the schemas say what the answers are: lists are never null, and
// later versions may add members.
func loosen(api huma.API) {
	for _, s := range api.OpenAPI().Components.Schemas.Map() {
		if s.AdditionalProperties == false {
			s.AdditionalProperties = nil
		}
		for _, p := range s.Properties {
			if p.Type == huma.TypeArray {
				p.Nullable = false
			}
		}
	}
}

// TransformSchema describes signals, which takes the place of the member of
// the embedded Status that has the same name.
func (Manual) TransformSchema(r huma.Registry, s *huma.Schema) *huma.Schema {
	s.Properties["signals"] = r.Schema(reflect.TypeFor[[]*signal.Schema](), true, "signals")
	slices.Sort(s.Required)
	s.Required = slices.Compact(s.Required)
	return s
}

// TransformSchema says that account may be null, which a bare reference cannot.
func (ProbeStatus) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	account := s.Properties["account"]
	s.Properties["account"] = &huma.Schema{Description: account.Description, OneOf: []*huma.Schema{{Ref: account.Ref}, {Type: "null"}}}
	return s
}
