package console

import (
	"fmt"
	"math"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/oklog/ulid/v2"

	"huatuo/internal/signal"
)

// Limits of a page of events.
const (
	defaultPage = 100
	maxPage     = 1000
)

// maxParam bounds one value of a query parameter. The store would search with it.
const maxParam = 1000

// maxFields bounds the field.NAME filters of one request.
const maxFields = 16

// whereDoc is the text of the parameter that the list, the stream and the export have.
const whereDoc = "conditions joined by and, each NAME OP VALUE: OP is one of = != > >= < <= contains, NAME a member of the event's JSON, " +
	"field.NAME one of its body, such as field.wait_seconds >= 50ms and verdict contains quota and kernel_stack.function = schedule. " +
	"Numbers may have a unit (ns us ms s min h d, KiB MiB GiB, %), texts with blanks are quoted; a missing member is the empty text"

// EventParams documents the query of the event endpoints. filterOf reads it,
// because the stream reads the same query. field.NAME=VALUE is short for
// where=field.NAME = VALUE, and in no operation's list: OpenAPI has no wildcard names.
type EventParams struct {
	Kind      []string `query:"kind" doc:"names of event kinds, separated by commas"`
	Severity  []string `query:"severity" doc:"info, warning, critical, separated by commas"`
	From      string   `query:"from" doc:"RFC 3339 or Unix seconds; events at or after it" example:"2026-01-02T15:04:05Z"`
	To        string   `query:"to" doc:"RFC 3339 or Unix seconds; events before it"`
	Q         string   `query:"q" doc:"full text: every word must occur, the last may be a prefix, quotes make a phrase"`
	Namespace string   `query:"namespace"`
	Pod       string   `query:"pod"`
	Container string   `query:"container" doc:"name of a container or a prefix of its id"`
	Unit      string   `query:"unit" doc:"systemd unit"`
	Comm      string   `query:"comm" doc:"name of the process"`
	PID       string   `query:"pid"`
	Where     string   `query:"where" doc:"conditions joined by and, each NAME OP VALUE: see the description of the endpoint" example:"field.wait_seconds >= 50ms and verdict contains quota"`

	filter signal.EventFilter
}

// Resolve reads the query and turns away what is not part of it.
func (p *EventParams) Resolve(ctx huma.Context) []error {
	u := ctx.URL()
	q := u.Query()
	for _, own := range ctx.Operation().Parameters {
		if !slices.Contains(filterNames, own.Name) {
			q.Del(own.Name) // a typed member of the operation's input
		}
	}
	f, err := filterOf(q)
	if err != nil {
		return []error{err}
	}
	p.filter = f
	return nil
}

// filterNames are the parameters that filterOf reads, besides field.NAME.
var filterNames = []string{"kind", "severity", "from", "to", "q", "namespace", "pod", "container", "unit", "comm", "pid", "where"}

// paramError is a mistake in the query.
func paramError(name, format string, args ...any) error {
	return &huma.ErrorDetail{Location: "query." + name, Message: fmt.Sprintf(format, args...)}
}

// filterOf reads a filter from a query. Every name in it must be known.
func filterOf(q url.Values) (signal.EventFilter, error) {
	var f signal.EventFilter
	names := make([]string, 0, len(q))
	for name := range q {
		names = append(names, name)
	}
	slices.Sort(names) // the same mistake gets the same answer each time
	for _, name := range names {
		for _, v := range q[name] {
			if len(v) > maxParam || !utf8.ValidString(v) {
				return f, paramError(clip(name), "must be valid UTF-8 of at most %d bytes", maxParam)
			}
		}
		if err := setFilter(&f, name, q[name]); err != nil {
			return f, err
		}
	}
	if !f.From.IsZero() && !f.To.IsZero() && !f.From.Before(f.To) {
		return f, paramError("from", "must be before to")
	}
	return f, nil
}

func setFilter(f *signal.EventFilter, name string, values []string) error {
	if field, ok := strings.CutPrefix(name, "field."); ok {
		return setField(f, field, values)
	}
	texts := map[string]*string{
		"q": &f.Text, "namespace": &f.Namespace, "pod": &f.Pod, "container": &f.Container, "unit": &f.Unit, "comm": &f.Comm,
	}
	if name != "kind" && name != "severity" && len(values) > 1 {
		return paramError(clip(name), "given more than once")
	}
	first := values[0]
	if t := texts[name]; t != nil {
		*t = first
		return nil
	}
	var err error
	switch name {
	case "kind":
		f.Kinds = list(values)
	case "severity":
		for _, v := range list(values) {
			if s := signal.Severity(v); s != signal.Info && s != signal.Warning && s != signal.Critical {
				return paramError(name, "%q is none of info, warning, critical", clip(v))
			}
			f.Severities = append(f.Severities, signal.Severity(v))
		}
	case "from":
		f.From, err = optionalTime(name, first)
	case "to":
		f.To, err = optionalTime(name, first)
	case "pid":
		f.PID, err = pidOf(first)
	case "where":
		err = setWhere(f, first)
	default:
		return paramError(clip(name), "unknown parameter")
	}
	return err
}

func setField(f *signal.EventFilter, name string, values []string) error {
	if name == "" || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != "" {
		return paramError("field."+clip(name), "the name of a field is snake_case")
	}
	if len(values) > 1 {
		return paramError("field."+clip(name), "given more than once")
	}
	if len(f.Where) >= maxFields {
		return paramError("field."+clip(name), "at most %d fields can be filtered on", maxFields)
	}
	f.Where = append(f.Where, signal.Condition{Path: "field." + name, Op: signal.Equal, Text: values[0]})
	return nil
}

func setWhere(f *signal.EventFilter, text string) error {
	list, err := signal.ParseWhere(text)
	if err != nil {
		return paramError("where", "%v", err)
	}
	f.Where = append(f.Where, list...)
	return nil
}

func pidOf(v string) (uint32, error) {
	if v == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(v, 10, 32)
	if err != nil || n == 0 {
		return 0, paramError("pid", "%q is no process id", clip(v))
	}
	return uint32(n), nil
}

// list splits values at commas; empty parts do not count.
func list(values []string) []string {
	var out []string
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
	}
	return out
}

func optionalTime(name, v string) (time.Time, error) {
	if v == "" {
		return time.Time{}, nil
	}
	t, err := timeOf(v)
	if err != nil {
		return t, paramError(name, "%v", err)
	}
	return t, nil
}

// maxSeconds keeps times where their nanoseconds fit an int64: year 2262.
const maxSeconds = math.MaxInt64 / 1_000_000_000

// timeOf reads RFC 3339 or Unix seconds with a fraction.
func timeOf(v string) (time.Time, error) {
	if sec, err := strconv.ParseFloat(v, 64); err == nil {
		if math.IsNaN(sec) || math.Abs(sec) >= maxSeconds {
			return time.Time{}, fmt.Errorf("%q is out of range", clip(v))
		}
		whole, part := math.Modf(sec)
		// Milliseconds, as Prometheus: a float of today's seconds has no more exact digits to spare.
		return time.Unix(int64(whole), int64(math.Round(part*1e3))*1e6).UTC(), nil
	}
	t, err := time.Parse(time.RFC3339Nano, v)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is neither RFC 3339 nor Unix seconds", clip(v))
	}
	if sec := t.Unix(); sec >= maxSeconds || sec <= -maxSeconds {
		return time.Time{}, fmt.Errorf("%q is out of range", clip(v))
	}
	return t.UTC(), nil
}

func isID(s string) bool {
	_, err := ulid.ParseStrict(s)
	return err == nil
}

// clip shortens what an error message repeats.
func clip(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
