package console

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"

	"huatuo/internal/signal"
)

// culpritsOf is a history in which web-1's app waited for batch, for itself and
// for nobody, and batch waited for web-1's app.
func culpritsOf() promql.Vector {
	app := []string{"namespace", "shop", "pod", "web-1", "container", "app"}
	pair := func(seconds float64, kv ...string) promql.Sample {
		return promql.Sample{F: seconds, Metric: labels.FromStrings(kv...)}
	}
	return promql.Vector{
		pair(1, append([]string{"culprit", "idle"}, app...)...),
		pair(3, append([]string{"culprit", "self", "culprit_namespace", "shop", "culprit_pod", "web-1", "culprit_container", "app"}, app...)...),
		pair(6, append([]string{"culprit", "workload", "culprit_unit", "batch.service"}, app...)...),
		pair(0, append([]string{"culprit", "workload", "culprit_unit", "quiet.service"}, app...)...),
		pair(2, "culprit", "workload", "culprit_namespace", "shop", "culprit_pod", "web-1", "culprit_container", "app", "unit", "batch.service"),
	}
}

func TestCulprits(t *testing.T) {
	schema := &signal.Schema{Name: culpritMetric, Fields: signal.PeerFields("culprit", "who", "idle", "quota")}
	w := newWorld(t, func(o *Options) {
		o.Latest = func() []signal.Sample {
			return []signal.Sample{
				{Schema: schema, Note: "ffmpeg", Labels: []string{"workload", "", "", "", "batch.service", "shop", "web-1", "app", ""}},
				{Schema: schema, Note: "stray", Labels: []string{"workload"}},
				{Schema: &signal.Schema{Name: "other"}, Note: "else"},
			}
		}
	})
	w.metrics.culprits = culpritsOf()
	const app = `{"namespace":"shop","pod":"web-1","container":"app","unit":""}`
	const batch = `{"namespace":"","pod":"","container":"","unit":"batch.service"}`
	hit := `{"victim":` + app + `,"culprit":{"kind":"workload",` + batch[1:] + `,"seconds":6,"share":0.6,"victim_seconds":10,"command":"ffmpeg"}`
	self := `{"victim":` + app + `,"culprit":{"kind":"self",` + app[1:] + `,"seconds":3,"share":0.3,"victim_seconds":10}`
	back := `{"victim":` + batch + `,"culprit":{"kind":"workload",` + app[1:] + `,"seconds":2,"share":1,"victim_seconds":2}`
	nobody := `{"victim":` + app + `,"culprit":{"kind":"idle","namespace":"","pod":"","container":"","unit":""},"seconds":1,"share":0.1,"victim_seconds":10}`
	for query, want := range map[string][]string{
		"":                                       {hit, self, back, nobody},
		"&limit=2":                               {hit, self},
		"&pod=web-1":                             {hit, self, back, nobody},
		"&pod=web-1&role=victim":                 {hit, self, nobody},
		"&pod=web-1&namespace=shop&role=culprit": {self, back},
		"&unit=batch.service&role=victim":        {back},
		"&unit=batch.service&role=culprit":       {hit},
		"&unit=batch.service":                    {hit, back},
		"&unit=batch.service&pod=web-1":          {},
		"&container=nobody":                      {},
	} {
		rec := w.get("/api/v1/workloads/culprits?from=2026-01-02T03:00:00Z&to=2026-01-02T03:10:00Z" + query)
		if rec.Code != http.StatusOK {
			t.Fatalf("%s: %d %s", query, rec.Code, rec.Body)
		}
		text := `{"from":"2026-01-02T03:00:00Z","to":"2026-01-02T03:10:00Z","pairs":[` + strings.Join(want, ",") + `]}`
		if d := cmp.Diff(decode(t, text), decode(t, rec.Body.String())); d != "" {
			t.Errorf("%s (-want +got):\n%s", query, d)
		}
	}
	want := "sum by (culprit, culprit_namespace, culprit_pod, culprit_container, culprit_unit, namespace, pod, container, unit) (increase(" + culpritMetric + "[600s])) @2026-01-02T03:10:00Z"
	if got := w.metrics.asked(); got != want {
		t.Errorf("asked %s, want %s", got, want)
	}
}

// TestCulpritsWindow: a window shorter than two samples is made longer, and said.
func TestCulpritsWindow(t *testing.T) {
	w := newWorld(t)
	rec := w.get("/api/v1/workloads/culprits?from=2026-01-02T03:09:59Z&to=2026-01-02T03:10:00Z")
	var got struct{ From, To string }
	if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil || got.From != "2026-01-02T03:09:47.5Z" || !strings.Contains(w.metrics.asked(), "[13s]") {
		t.Errorf("%v: %s, asked %s", err, rec.Body, w.metrics.asked())
	}
	if rec := w.get("/api/v1/workloads/culprits"); rec.Code != http.StatusOK || !strings.Contains(w.metrics.asked(), "[3600s]") {
		t.Errorf("without a window: %d %s, asked %s", rec.Code, rec.Body, w.metrics.asked())
	}
}

func TestCulpritsErrors(t *testing.T) {
	w := newWorld(t)
	for query, detail := range map[string]string{
		"from=5&to=4": "must be before to", "from=yesterday": "neither RFC 3339", "role=witness": "role", "limit=1001": "limit", "comm=x": "comm",
	} {
		wantProblem(t, w.get("/api/v1/workloads/culprits?"+query), http.StatusUnprocessableEntity, detail)
	}
	w.metrics.fail = errors.New("disk on fire")
	wantProblem(t, w.get("/api/v1/workloads/culprits"), http.StatusInternalServerError, "disk on fire")
	w.metrics.fail = typedError{"execution", "too many samples"}
	wantProblem(t, w.get("/api/v1/workloads/culprits"), http.StatusUnprocessableEntity, "too many samples")
	none := newWorld(t, func(o *Options) { o.Metrics = nil })
	wantProblem(t, none.get("/api/v1/workloads/culprits"), http.StatusServiceUnavailable, "no history")
}
