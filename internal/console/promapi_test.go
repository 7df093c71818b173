package console

import (
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	jsoniter "github.com/json-iterator/go"
	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/util/jsonutil"
)

// TestAgainstPrometheus compares with answers of Prometheus 2.42.0, recorded
// byte for byte in testdata/prometheus: native histograms with a zero bucket,
// negative and positive buckets; labels with quotes, line breaks, markup and
// other scripts; very small, very large and special values.
func TestAgainstPrometheus(t *testing.T) {
	h := &histogram.FloatHistogram{
		Schema: 0, ZeroThreshold: 0.25, ZeroCount: 2, Count: 9, Sum: 108.3,
		PositiveSpans:   []histogram.Span{{Offset: -1, Length: 1}, {Offset: 2, Length: 1}, {Offset: 4, Length: 1}},
		PositiveBuckets: []float64{2, 3, 1},
		NegativeSpans:   []histogram.Span{{Offset: 1, Length: 1}},
		NegativeBuckets: []float64{1},
	}
	series := func(a, b string) labels.Labels {
		l := []string{"__name__", "g_bytes", "a", a, "instance", "127.0.0.1:29871", "job", "t"}
		if b != "" {
			l = append(l, "b", b)
		}
		return labels.FromStrings(l...)
	}
	tiny, plain, big := series("tiny", ""), series("plain", "q\"uo\\te\n<&>é\u2028"), series("big", "")
	const vec, mat = 1795656406250, 1795656432000
	for name, v := range map[string]parser.Value{
		"vector_histogram": promql.Vector{{T: vec, H: h}},
		"vector_float":     promql.Vector{{T: vec, F: 1.5e-7, Metric: tiny}, {T: vec, F: 1234567.125, Metric: plain}, {T: vec, F: 1e21, Metric: big}},
		"range_histogram":  promql.Matrix{{Histograms: []promql.HPoint{{T: mat + 5, H: h}, {T: mat + 1005, H: h}}}},
		"range_float": promql.Matrix{
			{Metric: plain, Floats: []promql.FPoint{{T: mat, F: 1234567.125}, {T: mat + 1000, F: 1234567.125}}},
			{Metric: tiny, Floats: []promql.FPoint{{T: mat, F: 1.5e-7}, {T: mat + 1000, F: 1.5e-7}}},
		},
		"scalar": promql.Scalar{T: 1500, V: 1},
		"string": promql.String{T: -3, V: "a<b&é\x01"},
		"nan":    promql.Vector{{T: 1000, F: math.NaN()}},
		"inf":    promql.Vector{{T: 1000, F: math.Inf(-1)}},
		"empty":  promql.Vector{},
	} {
		want := recorded(t, name)
		if got := `{"status":"success","data":` + string(appendValue(nil, v)) + "}"; got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
	list := string(appendList(nil, []labels.Labels{big, plain, tiny}, func(b []byte, l *labels.Labels) []byte { return appendLabels(b, *l) }))
	if got, want := `{"status":"success","data":`+list+"}", recorded(t, "series"); got != want {
		t.Errorf("series:\n got %s\nwant %s", got, want)
	}
	w := newWorld(t)
	for name, path := range map[string]string{"error_match": "/api/v1/series"} {
		if got, want := w.get(path).Body.String(), recorded(t, name); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
}

func recorded(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "prometheus", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(b), "\n")
}

// FuzzMarshal compares with Prometheus' own code.
func FuzzMarshal(f *testing.F) {
	for _, v := range []float64{0, 1, -1, 1e-6, 9.99e-7, 1e21, 1e20, math.MaxFloat64, math.SmallestNonzeroFloat64, math.Inf(1), math.Inf(-1), math.NaN(), math.Copysign(0, -1)} {
		f.Add(v, int64(v), "a", int8(0))
	}
	f.Add(0.1, int64(math.MinInt64+1), "\xff\u2028<\"", int8(3))
	f.Fuzz(func(t *testing.T, v float64, ms int64, text string, offset int8) {
		if ms == math.MinInt64 { // Prometheus' code does not negate it right
			ms++
		}
		oracle := func(write func(*jsoniter.Stream)) string {
			s := jsoniter.NewStream(jsoniter.ConfigCompatibleWithStandardLibrary, nil, 64)
			write(s)
			return string(s.Buffer())
		}
		h := &histogram.FloatHistogram{
			Schema: 2, ZeroThreshold: 0.1, ZeroCount: math.Abs(v), Count: v, Sum: -v,
			PositiveSpans: []histogram.Span{{Offset: int32(offset), Length: 2}}, PositiveBuckets: []float64{v, 1},
			NegativeSpans: []histogram.Span{{Offset: int32(offset), Length: 1}}, NegativeBuckets: []float64{1},
		}
		for _, c := range []struct{ got, want string }{
			{string(appendFloat(nil, v)), oracle(func(s *jsoniter.Stream) { jsonutil.MarshalFloat(v, s) })},
			{string(appendTime(nil, ms)), oracle(func(s *jsoniter.Stream) { jsonutil.MarshalTimestamp(ms, s) })},
			{string(appendHistogram(nil, h)), oracle(func(s *jsoniter.Stream) { jsonutil.MarshalHistogram(h, s) })},
		} {
			if c.got != c.want {
				t.Errorf("got %s, want %s", c.got, c.want)
			}
		}
		var back string
		if err := json.Unmarshal(appendString(nil, text), &back); err != nil || (utf8.ValidString(text) && back != text) {
			t.Errorf("%q became %q: %v", text, back, err)
		}
	})
}

func TestPromAPI(t *testing.T) {
	vector := `{"resultType":"vector","result":[{"metric":{"a":"1"},"value":[1.500,"1"]},{"metric":{"a":"2"},"value":[1.500,"2"]}]},"warnings":["careful"],"infos":["by the way"]`
	cut := `{"resultType":"vector","result":[{"metric":{"a":"1"},"value":[1.500,"1"]}]},"warnings":["careful","results truncated due to limit"],"infos":["by the way"]`
	for _, c := range []struct {
		path, query, data, asked string
	}{
		{"query", "query=up&time=1.5", vector, "up @1970-01-01T00:00:01.5Z"},
		{"query", "query=up&time=2026-01-02T03:04:05Z&limit=1", cut, "up @2026-01-02T03:04:05Z"},
		{"query", "query=up&time=0&limit=2", vector, "up @1970-01-01T00:00:00Z"},
		{"query_range", "query=up&start=0&end=60&step=15s", vector, "up [1970-01-01T00:00:00Z,1970-01-01T00:01:00Z]/15s"},
		{"query_range", "query=up&start=0&end=11000&step=1", vector, "up [1970-01-01T00:00:00Z,1970-01-01T03:03:20Z]/1s"},
		{"series", "match[]=up&match[]=down", `[{"__name__":"up","a":"\u003c1\u003e"}]`, "[up down]"},
		{"series", "match[]=up&limit=1", `[{"__name__":"up","a":"\u003c1\u003e"}],"warnings":["results truncated due to limit"]`, "[up]"},
		{"labels", "", `["__name__","a"]`, "[]"},
		{"label/job/values", "match[]=up", `[]`, "job [up]"},
		{"label/U__a_2e_b/values", "", `[]`, "a.b []"},
		{"metadata", "", `{"huatuo_cpu_seconds_total":[{"type":"counter","help":"CPU time.","unit":"seconds"}],"huatuo_load":[{"type":"gauge","help":"Load.","unit":""}],"huatuo_memory_bytes":[{"type":"gauge","help":"Memory.","unit":"bytes"}]}`, ""},
		{"metadata", "metric=huatuo_load", `{"huatuo_load":[{"type":"gauge","help":"Load.","unit":""}]}`, ""},
		{"metadata", "limit=1", `{"huatuo_cpu_seconds_total":[{"type":"counter","help":"CPU time.","unit":"seconds"}]}`, ""},
	} {
		w := newWorld(t)
		want := `{"status":"success","data":` + c.data + "}"
		rec := w.get("/api/v1/" + c.path + "?" + c.query)
		var got, form any = rec.Body.String(), nil
		if c.path == "metadata" { // its members have no order
			got, form = decode(t, rec.Body.String()), decode(t, want)
			if g, _ := json.Marshal(got); string(g) != mustJSON(t, form) {
				t.Errorf("%s?%s:\n got %s\nwant %s", c.path, c.query, rec.Body, want)
			}
		} else if got != want {
			t.Errorf("%s?%s:\n got %s\nwant %s", c.path, c.query, got, want)
		}
		if w.metrics.last != c.asked {
			t.Errorf("%s?%s: asked %q, want %q", c.path, c.query, w.metrics.last, c.asked)
		}
		if rec.Code != http.StatusOK || rec.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: %d %s", c.path, rec.Code, rec.Header())
		}
		if strings.HasPrefix(c.path, "label/") || c.path == "metadata" {
			continue
		}
		post := request(http.MethodPost, "/api/v1/"+c.path, "Content-Type", "application/x-www-form-urlencoded")
		post.Body = io.NopCloser(strings.NewReader(c.query))
		if rec := w.do(post); rec.Body.String() != want {
			t.Errorf("POST %s: %d %s", c.path, rec.Code, rec.Body)
		}
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPromErrors(t *testing.T) {
	w := newWorld(t, func(o *Options) { o.QueryTimeout = 20 * time.Millisecond })
	for _, c := range []struct {
		path   string
		query  url.Values
		status int
		kind   string
		text   string
	}{
		{"query", url.Values{"query": {"broken("}}, 400, "bad_data", `invalid parameter "query": 1:8: parse error: unclosed left parenthesis`},
		{"query", url.Values{"query": {"up"}, "time": {"soon"}}, 400, "bad_data", `invalid parameter "time"`},
		{"query", url.Values{"query": {"up"}, "time": {"NaN"}}, 400, "bad_data", `invalid parameter "time"`},
		{"query", url.Values{"query": {"up"}, "limit": {"-1"}}, 400, "bad_data", `invalid parameter "limit"`},
		{"query", url.Values{"query": {"up"}, "timeout": {"long"}}, 400, "bad_data", `invalid parameter "timeout"`},
		{"query", url.Values{"query": {"huge"}}, 422, "execution", "too many samples"},
		{"query", url.Values{"query": {"bug"}}, 500, "internal", "disk on fire"},
		{"query", url.Values{"query": {"slow"}}, 503, "timeout", ""},
		{"query", url.Values{"query": {"slow"}, "timeout": {"1ms"}}, 503, "timeout", ""},
		{"query_range", url.Values{"query": {"up"}, "end": {"1"}, "step": {"1"}}, 400, "bad_data", `invalid parameter "start"`},
		{"query_range", url.Values{"query": {"up"}, "start": {"2"}, "end": {"1"}, "step": {"1"}}, 400, "bad_data", `invalid parameter "end"`},
		{"query_range", url.Values{"query": {"up"}, "start": {"0"}, "end": {"1"}, "step": {"0"}}, 400, "bad_data", `invalid parameter "step"`},
		{"query_range", url.Values{"query": {"up"}, "start": {"0"}, "end": {"1"}, "step": {"NaN"}}, 400, "bad_data", `invalid parameter "step"`},
		{"query_range", url.Values{"query": {"up"}, "start": {"0"}, "end": {"11001"}, "step": {"1"}}, 400, "bad_data", "11000 points"},
		{"query_range", url.Values{"query": {"up"}, "start": {"-9e9"}, "end": {"9e9"}, "step": {"1e-300"}}, 400, "bad_data", "step"},
		{"series", url.Values{}, 400, "bad_data", "match[]"},
		{"label/bad%20label/values", url.Values{}, 400, "bad_data", "invalid label name"},
		{"metadata", url.Values{"limit": {"x"}}, 400, "bad_data", `invalid parameter "limit"`},
	} {
		rec := w.get("/api/v1/" + c.path + "?" + c.query.Encode())
		var e struct{ Status, ErrorType, Error string }
		if err := json.Unmarshal(rec.Body.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if rec.Code != c.status || e.Status != "error" || e.ErrorType != c.kind || !strings.Contains(e.Error, c.text) {
			t.Errorf("%s %v: %d %+v, want %d %s %q", c.path, c.query, rec.Code, e, c.status, c.kind, c.text)
		}
	}
	big := request(http.MethodPost, "/api/v1/query", "Content-Type", "application/x-www-form-urlencoded")
	big.Body = io.NopCloser(strings.NewReader("query=" + strings.Repeat("x", maxBody)))
	if rec := w.do(big); rec.Code != http.StatusBadRequest || !strings.Contains(rec.Body.String(), "too large") {
		t.Errorf("body above the limit: %d %s", rec.Code, rec.Body)
	}
}

func TestBuildInfo(t *testing.T) {
	rec := newWorld(t).get("/api/v1/status/buildinfo")
	var b struct {
		Status string
		Data   map[string]string
	}
	if err := json.Unmarshal(rec.Body.Bytes(), &b); err != nil {
		t.Fatal(err)
	}
	// Grafana turns features on by this version.
	if b.Status != "success" || !strings.HasPrefix(b.Data["version"], "3.") || b.Data["revision"] != "abc" {
		t.Errorf("%+v", b)
	}
}

func BenchmarkRange(b *testing.B) {
	m := make(promql.Matrix, 50)
	for i := range m {
		m[i].Metric = labels.FromStrings("__name__", "huatuo_cpu_seconds_total", "mode", "user")
		for p := range 300 {
			m[i].Floats = append(m[i].Floats, promql.FPoint{T: int64(p) * 15000, F: float64(p) * 1.1})
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		appendValue(nil, m)
	}
}
