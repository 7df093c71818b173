package pyroscope

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/pprof/profile"
	querierv1 "github.com/grafana/pyroscope/api/gen/proto/go/querier/v1"
	"github.com/grafana/pyroscope/api/gen/proto/go/querier/v1/querierv1connect"
	typesv1 "github.com/grafana/pyroscope/api/gen/proto/go/types/v1"

	"huatuo/internal/signal"
)

const (
	cpuID   = "process_cpu:cpu:nanoseconds:cpu:nanoseconds"
	locksID = "lock:user.contentions:count:lock:count"
)

// start and end of the workload, in milliseconds.
func window20() (start, end int64) {
	return epoch.UnixMilli(), epoch.Add(20 * time.Second).UnixMilli()
}

func each(t *testing.T, p Profiles, f func(t *testing.T, c querierv1connect.QuerierServiceClient)) {
	t.Helper()
	for name, c := range clients(t, p) {
		t.Run(name, func(t *testing.T) { f(t, c) })
	}
}

func pairText(ls []*typesv1.LabelPair) string {
	var out []string
	for _, l := range ls {
		out = append(out, l.Name+"="+l.Value)
	}
	return strings.Join(out, ",")
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\ngot  %q\nwant %q", what, got, want)
	}
}

func TestTypesAndLabels(t *testing.T) {
	ctx := context.Background()
	start, end := window20()
	each(t, workload(), func(t *testing.T, c querierv1connect.QuerierServiceClient) {
		types, err := c.ProfileTypes(ctx, connect.NewRequest(&querierv1.ProfileTypesRequest{Start: start, End: end}))
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, x := range types.Msg.ProfileTypes {
			ids = append(ids, x.ID)
			if want := strings.Join([]string{x.Name, x.SampleType, x.SampleUnit, x.PeriodType, x.PeriodUnit}, ":"); x.ID != want {
				t.Errorf("id %s of %s", x.ID, want)
			}
		}
		same(t, "types that there are samples of", ids, []string{cpuID, "offcpu:blocked:nanoseconds:offcpu:nanoseconds", locksID})

		names := func(matchers ...string) []string {
			t.Helper()
			r, err := c.LabelNames(ctx, connect.NewRequest(&typesv1.LabelNamesRequest{Start: start, End: end, Matchers: matchers}))
			if err != nil {
				t.Fatal(err)
			}
			return slices.DeleteFunc(r.Msg.Names, func(n string) bool { return strings.HasPrefix(n, "__") })
		}
		same(t, "names", names("{}"), []string{"container", "instance", "namespace", "pod", "process", "service_name", "thread", "unit"})
		same(t, "names of one", names(`{process="bash"}`), []string{"instance", "process", "service_name", "thread"})
		same(t, "names of none", names(`{process="nobody"}`), nil)

		values := func(name string, matchers ...string) []string {
			t.Helper()
			r, err := c.LabelValues(ctx, connect.NewRequest(&typesv1.LabelValuesRequest{Name: name, Start: start, End: end, Matchers: matchers}))
			if err != nil {
				t.Fatal(err)
			}
			return r.Msg.Names
		}
		same(t, "services", values("service_name"), []string{"bash", "nginx.service", "shop/cart"})
		same(t, "services of a pattern", values("service_name", `{process=~"ba.*|java"}`), []string{"bash", "shop/cart"})
		same(t, "services of a type", values("service_name", `{__profile_type__="offcpu:blocked:nanoseconds:offcpu:nanoseconds"}`), []string{"shop/cart"})
		same(t, "either matcher", values("process", `{process="bash"}`, `{unit!=""}`), []string{"bash", "nginx"})
		same(t, "of both in one", values("process", `{process="bash", unit!=""}`), nil)
		same(t, "types", values("__profile_type__"), []string{locksID, "offcpu:blocked:nanoseconds:offcpu:nanoseconds", cpuID})
		same(t, "services of a count", values("service_name", `{__profile_type__="`+locksID+`"}`), []string{"shop/cart"})
		same(t, "no label", values("color"), nil)

		series, err := c.Series(ctx, connect.NewRequest(&querierv1.SeriesRequest{Start: start, End: end, LabelNames: []string{"service_name", "__type__", "color"}}))
		if err != nil {
			t.Fatal(err)
		}
		var sets []string
		for _, s := range series.Msg.LabelsSet {
			sets = append(sets, pairText(s.Labels))
		}
		slices.Sort(sets)
		same(t, "series", sets, []string{"__type__=blocked,service_name=shop/cart", "__type__=cpu,service_name=bash", "__type__=cpu,service_name=nginx.service", "__type__=cpu,service_name=shop/cart", "__type__=user.contentions,service_name=shop/cart"})
	})
}

// levels writes a flame graph as one can read it: a box as name:left+total(self).
func levels(g *querierv1.FlameGraph) []string {
	var out []string
	for _, l := range g.GetLevels() {
		var row []string
		at := int64(0)
		for i := 0; i+3 < len(l.Values); i += 4 {
			v := l.Values[i:]
			at += v[0]
			row = append(row, fmt.Sprintf("%s:%d+%d(%d)", g.Names[v[3]], at, v[1], v[2]))
			at += v[1]
		}
		out = append(out, strings.Join(row, " "))
	}
	return out
}

func TestStacktraces(t *testing.T) {
	start, end := window20()
	two, one := int64(2), int64(1)
	each(t, workload(), func(t *testing.T, c querierv1connect.QuerierServiceClient) {
		for _, tt := range []struct {
			what string
			req  *querierv1.SelectMergeStacktracesRequest
			want []string
		}{
			{"all", &querierv1.SelectMergeStacktracesRequest{LabelSelector: "{}"}, []string{
				"total:0+200(0)", "bad\uFFFDname:0+5(5) main:5+180(30) worker:185+15(0)", "cold:35+50(50) hot:85+100(100) send:185+15(15)"}},
			{"one service", &querierv1.SelectMergeStacktracesRequest{LabelSelector: `{service_name="nginx.service"}`}, []string{
				"total:0+15(0)", "worker:0+15(0)", "send:0+15(15)"}},
			{"no selector", &querierv1.SelectMergeStacktracesRequest{LabelSelector: "", MaxNodes: &two}, []string{
				"total:0+200(0)", "main:0+180(30) other:180+20(20)", "hot:30+100(100) other:130+50(50)"}},
			{"one node", &querierv1.SelectMergeStacktracesRequest{MaxNodes: &one}, []string{
				"total:0+200(0)", "main:0+180(30) other:180+20(20)", "other:30+150(150)"}},
			{"call site", &querierv1.SelectMergeStacktracesRequest{StackTraceSelector: &typesv1.StackTraceSelector{CallSite: []*typesv1.Location{{Name: "main"}, {Name: "hot"}}}}, []string{
				"total:0+100(0)", "main:0+100(0)", "hot:0+100(100)"}},
			{"nobody", &querierv1.SelectMergeStacktracesRequest{LabelSelector: `{pod="none"}`}, nil},
			{"another window", &querierv1.SelectMergeStacktracesRequest{Start: end, End: end + 1}, nil},
			{"unknown type", &querierv1.SelectMergeStacktracesRequest{ProfileTypeID: "memory:inuse_space:bytes:space:bytes"}, nil},
		} {
			if tt.req.ProfileTypeID == "" {
				tt.req.ProfileTypeID = cpuID
			}
			if tt.req.End == 0 {
				tt.req.Start, tt.req.End = start, end
			}
			r, err := c.SelectMergeStacktraces(context.Background(), connect.NewRequest(tt.req))
			if err != nil {
				t.Errorf("%s: %v", tt.what, err)
				continue
			}
			same(t, tt.what, levels(r.Msg.Flamegraph), tt.want)
		}
	})
}

func TestProfile(t *testing.T) {
	start, end := window20()
	check := func(t *testing.T, raw []byte, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		p, err := profile.ParseUncompressed(raw)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.CheckValid(); err != nil {
			t.Fatal(err)
		}
		if len(p.SampleType) != 1 || p.SampleType[0].Type != "cpu" || p.PeriodType.Type != "cpu" || p.PeriodType.Unit != "nanoseconds" || p.DefaultSampleType != "cpu" {
			t.Errorf("types %v, period %v", p.SampleType[0], p.PeriodType)
		}
		var total int64
		for _, s := range p.Sample {
			total += s.Value[0]
		}
		if total != 200 {
			t.Errorf("total %d", total)
		}
	}
	each(t, workload(), func(t *testing.T, c querierv1connect.QuerierServiceClient) {
		ctx := context.Background()
		//lint:ignore SA1019 data sources call it
		r, err := c.SelectMergeProfile(ctx, connect.NewRequest(&querierv1.SelectMergeProfileRequest{ProfileTypeID: cpuID, Start: start, End: end}))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := r.Msg.MarshalVT()
		check(t, raw, err)
		s, err := c.SelectMergeStacktraces(ctx, connect.NewRequest(&querierv1.SelectMergeStacktracesRequest{
			ProfileTypeID: cpuID, Start: start, End: end, Format: querierv1.ProfileFormat_PROFILE_FORMAT_PPROF,
		}))
		if err != nil {
			t.Fatal(err)
		}
		raw, err = s.Msg.Pprof.Profile.MarshalVT()
		check(t, raw, err)
		//lint:ignore SA1019 data sources call it
		none, err := c.SelectMergeProfile(ctx, connect.NewRequest(&querierv1.SelectMergeProfileRequest{ProfileTypeID: "a:b:c:d:e", Start: start, End: end}))
		if err != nil || len(none.Msg.Sample) != 0 {
			t.Errorf("%v, %v", none, err)
		}
	})
}

func TestSeries(t *testing.T) {
	start, end := window20()
	limit := int64(1)
	each(t, workload(), func(t *testing.T, c querierv1connect.QuerierServiceClient) {
		for _, tt := range []struct {
			what string
			req  *querierv1.SelectSeriesRequest
			want []string
		}{
			{"all", &querierv1.SelectSeriesRequest{Step: 5}, []string{": 5=180 15=20"}},
			{"by service", &querierv1.SelectSeriesRequest{Step: 10, GroupBy: []string{"service_name"}}, []string{"service_name=shop/cart: 10=180", "service_name=nginx.service: 20=15", "service_name=bash: 20=5"}},
			{"the largest", &querierv1.SelectSeriesRequest{Step: 10, GroupBy: []string{"process"}, Limit: &limit}, []string{"process=java: 10=180"}},
			{"by a label that some lack", &querierv1.SelectSeriesRequest{Step: 20, GroupBy: []string{"namespace"}}, []string{"namespace=shop: 20=180", ": 20=20"}},
			{"average", &querierv1.SelectSeriesRequest{Step: 10, LabelSelector: `{namespace="shop"}`, Aggregation: typesv1.TimeSeriesAggregationType_TIME_SERIES_AGGREGATION_TYPE_AVERAGE.Enum()}, []string{": 10=18"}},
			{"nobody", &querierv1.SelectSeriesRequest{Step: 10, LabelSelector: `{namespace="none"}`}, nil},
		} {
			tt.req.ProfileTypeID, tt.req.Start, tt.req.End = cpuID, start, end
			r, err := c.SelectSeries(context.Background(), connect.NewRequest(tt.req))
			if err != nil {
				t.Errorf("%s: %v", tt.what, err)
				continue
			}
			var got []string
			for _, s := range r.Msg.Series {
				row := pairText(s.Labels) + ":"
				for _, p := range s.Points {
					row += fmt.Sprintf(" %g=%g", float64(p.Timestamp-start)/1000, p.Value)
				}
				got = append(got, row)
			}
			same(t, tt.what, got, tt.want)
		}
	})
}

func TestDiff(t *testing.T) {
	start, end := window20()
	f := workload()
	f.add(cpu, 101, 40, cart, fn("hot"), fn("main"))
	f.add(cpu, 102, 60, cart, fn("new"), fn("main"))
	each(t, f, func(t *testing.T, c querierv1connect.QuerierServiceClient) {
		side := func(id string, by int64) *querierv1.SelectMergeStacktracesRequest {
			return &querierv1.SelectMergeStacktracesRequest{ProfileTypeID: id, LabelSelector: `{container="cart"}`, Start: start + by, End: end + by}
		}
		r, err := c.Diff(context.Background(), connect.NewRequest(&querierv1.DiffRequest{Left: side(cpuID, 0), Right: side(cpuID, 100_000)}))
		if err != nil {
			t.Fatal(err)
		}
		g := r.Msg.Flamegraph
		if g.LeftTicks != 180 || g.RightTicks != 100 || g.Total != 280 || g.MaxSelf != 100 {
			t.Errorf("left %d right %d total %d max %d", g.LeftTicks, g.RightTicks, g.Total, g.MaxSelf)
		}
		var got []string
		for _, l := range g.Levels {
			var row []string
			for i := 0; i+6 < len(l.Values); i += 7 {
				v := l.Values[i:]
				row = append(row, fmt.Sprintf("%s:%v|%v", g.Names[v[6]], v[:3], v[3:6]))
			}
			got = append(got, strings.Join(row, " "))
		}
		same(t, "levels", got, []string{
			"total:[0 180 0]|[0 100 0]", "main:[0 180 30]|[0 100 0]",
			"cold:[30 50 50]|[0 0 0] hot:[0 100 100]|[0 40 40] new:[0 0 0]|[0 60 60]",
		})
		if _, err := c.Diff(context.Background(), connect.NewRequest(&querierv1.DiffRequest{Left: side(cpuID, 0)})); connect.CodeOf(err) != connect.CodeInvalidArgument {
			t.Errorf("one side: %v", err)
		}
	})
}

// TestErrors: what cannot be answered is told with connect's code and a reason.
func TestErrors(t *testing.T) {
	start, end := window20()
	each(t, workload(), func(t *testing.T, c querierv1connect.QuerierServiceClient) {
		stacks := func(m *querierv1.SelectMergeStacktracesRequest) error {
			_, err := c.SelectMergeStacktraces(context.Background(), connect.NewRequest(m))
			return err
		}
		series := func(m *querierv1.SelectSeriesRequest) error {
			_, err := c.SelectSeries(context.Background(), connect.NewRequest(m))
			return err
		}
		type stacksRequest = querierv1.SelectMergeStacktracesRequest
		for _, tt := range []struct {
			what string
			err  error
			code connect.Code
			text string
		}{
			{"type", stacks(&stacksRequest{ProfileTypeID: "cpu", Start: start, End: end}), connect.CodeInvalidArgument, "name:type:unit"},
			{"selector", stacks(&stacksRequest{ProfileTypeID: cpuID, LabelSelector: `{a=}`, Start: start, End: end}), connect.CodeInvalidArgument, "selector"},
			{"pattern", stacks(&stacksRequest{ProfileTypeID: cpuID, LabelSelector: `{a=~"("}`, Start: start, End: end}), connect.CodeInvalidArgument, "missing closing"},
			{"window", stacks(&stacksRequest{ProfileTypeID: cpuID, Start: end, End: start}), connect.CodeInvalidArgument, "start before end"},
			{"no window", stacks(&stacksRequest{ProfileTypeID: cpuID}), connect.CodeInvalidArgument, "start before end"},
			{"spans", stacks(&stacksRequest{ProfileTypeID: cpuID, Start: start, End: end, SpanSelector: []string{"9a517183f26a089d"}}), connect.CodeUnimplemented, "span"},
			{"dot", stacks(&stacksRequest{ProfileTypeID: cpuID, Start: start, End: end, Format: querierv1.ProfileFormat_PROFILE_FORMAT_DOT}), connect.CodeUnimplemented, "format"},
			{"step", series(&querierv1.SelectSeriesRequest{ProfileTypeID: cpuID, Start: start, End: end}), connect.CodeInvalidArgument, "step"},
			{"points", series(&querierv1.SelectSeriesRequest{ProfileTypeID: cpuID, Start: start, End: end, Step: 0.001}), connect.CodeInvalidArgument, "points"},
		} {
			if connect.CodeOf(tt.err) != tt.code || !strings.Contains(fmt.Sprint(tt.err), tt.text) {
				t.Errorf("%s: %v; want %v and %q", tt.what, tt.err, tt.code, tt.text)
			}
		}
		if _, err := c.SelectHeatmap(context.Background(), connect.NewRequest(&querierv1.SelectHeatmapRequest{})); connect.CodeOf(err) != connect.CodeUnimplemented {
			t.Errorf("heatmap: %v", err)
		}
	})
	for _, tt := range []struct {
		what string
		p    Profiles
		code connect.Code
	}{
		{"no profiles", nil, connect.CodeUnavailable},
		{"a disk that fails", &fake{fail: errors.New("disk")}, connect.CodeInternal},
	} {
		each(t, tt.p, func(t *testing.T, c querierv1connect.QuerierServiceClient) {
			if _, err := c.ProfileTypes(context.Background(), connect.NewRequest(&querierv1.ProfileTypesRequest{})); connect.CodeOf(err) != tt.code {
				t.Errorf("%s: %v", tt.what, err)
			}
		})
	}
}

// ask posts a body as it is.
func ask(h http.Handler, method, contentType string, body []byte) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, Path+method, bytes.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// TestWire: the wire is that of connect, as curl would write it.
func TestWire(t *testing.T) {
	h := New(Options{Profiles: workload(), Instance: "node1", Timeout: 50 * time.Millisecond})
	w := ask(h, "ProfileTypes", "application/json", []byte(`{"start":"1700000000000","end":"1700000020000"}`))
	if b := w.Body.String(); w.Code != http.StatusOK || !strings.Contains(b, `"profileTypes"`) || !strings.Contains(b, cpuID) {
		t.Errorf("%d %s", w.Code, b)
	}
	if w := ask(h, "SelectMergeStacktraces", "application/json", []byte(`{"profile_typeID":"x"}`)); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), `"code":"invalid_argument"`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if w := ask(h, "Nonsense", "application/json", []byte(`{}`)); w.Code != http.StatusNotFound {
		t.Errorf("an unknown method: %d", w.Code)
	}
	if w := ask(h, "ProfileTypes", "text/plain", nil); w.Code != http.StatusUnsupportedMediaType {
		t.Errorf("text/plain: %d", w.Code)
	}
	if w := ask(h, "SelectHeatmap", "application/json", []byte(`{}`)); w.Code != http.StatusNotImplemented || !strings.Contains(w.Body.String(), "unimplemented") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	slow := New(Options{Profiles: &fake{hang: true}, Timeout: 50 * time.Millisecond})
	if w := ask(slow, "ProfileTypes", "application/json", []byte(`{}`)); w.Code != http.StatusGatewayTimeout || !strings.Contains(w.Body.String(), "shorter window") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func FuzzRequest(f *testing.F) {
	for _, s := range []string{
		`{"start":"1700000000000","end":"1700000020000"}`,
		`{"profile_typeID":"` + cpuID + `","label_selector":"{process=~\"j.*\"}","start":"1700000000000","end":"1700000020000","step":5,"group_by":["service_name"],"max_nodes":"3"}`,
		`{"left":{"profile_typeID":"` + cpuID + `","end":"1700000020000"},"right":{"profile_typeID":"a:b:c:d:e:delta","end":"1700000020000"}}`,
		`{"name":"process","matchers":["{a=\"b\"}"]}`,
		"\n+process_cpu:cpu:nanoseconds:cpu:nanoseconds\x12\x02{}\x18\x80\xd0\x95\xff\xbc1 \xa0\xec\x96\xff\xbc1",
	} {
		f.Add([]byte(s), true)
		f.Add([]byte(s), false)
	}
	h := New(Options{Profiles: workload(), Instance: "node1", Timeout: 5 * time.Second})
	f.Fuzz(func(t *testing.T, body []byte, json bool) {
		kind := "application/proto"
		if json {
			kind = "application/json"
		}
		for _, method := range []string{"ProfileTypes", "LabelNames", "LabelValues", "Series", "SelectMergeStacktraces", "SelectMergeProfile", "SelectSeries", "Diff"} {
			w := ask(h, method, kind, body)
			if w.Code == http.StatusInternalServerError {
				b, _ := io.ReadAll(w.Body)
				t.Errorf("%s: %s", method, b)
			}
		}
	})
}

func FuzzSelector(f *testing.F) {
	for _, s := range []string{"", "{}", `{process="java"}`, `{service_name=~"shop/.*", pod!=""}`, `x{a!~"b"}`, `{"a.b"="c"}`, `{a="`, cpuID, "a:b:c:d:e:delta"} {
		f.Add(s)
	}
	s := &server{opt: Options{Profiles: workload(), Instance: "node1"}, parser: newParser()}
	f.Fuzz(func(t *testing.T, in string) {
		if sel, err := parseSelectors(s.parser, in); err == nil {
			match := s.matcher(sel, cpu)
			for _, l := range []*signal.ProfileLabels{&cart, &nginx, &bash} {
				// What a selector selects must be possible for its type.
				if match(l) && !sel.possible(s.constants(cpu)) {
					t.Errorf("%q selects %+v, and is said to select none", in, l)
				}
			}
		}
		if typ, err := s.typeOf(in); err == nil && typ != nil && strings.TrimSuffix(in, ":delta") != typ.Pprof().String() {
			t.Errorf("%q is said to be %s", in, typ.Name)
		}
	})
}

// TestThreshold: no more than asked for stay, also among equals.
func TestThreshold(t *testing.T) {
	for _, tt := range []struct {
		values []int64
		most   int
		want   int64
	}{{[]int64{5, 3, 1}, 3, 0}, {[]int64{5, 3, 1}, 2, 3}, {[]int64{5, 3, 3, 1}, 2, 4}, {[]int64{2, 2, 2}, 1, 3}} {
		if got := threshold(tt.values, tt.most); got != tt.want {
			t.Errorf("%v, %d: %d, want %d", tt.values, tt.most, got, tt.want)
		}
	}
}
