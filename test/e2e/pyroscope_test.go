package e2e

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
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
	double "huatuo/test/doubles/pyroscope"
)

// spinEnv makes the test's binary spin and do nothing else.
const spinEnv = "HUATUO_E2E_SPIN"

// busyForPyroscope is the function that the profiles have to name.
//
//go:noinline
func busyForPyroscope() {
	for n := uint64(1); n != 0; n = n*6364136223846793005 + 1442695040888963407 {
	}
}

// named starts a copy of the test's binary under a name that no other process
// has, so that profiles can be asked for it, and returns what ends it.
func named(t *testing.T) (process string, end func()) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	process = fmt.Sprintf("spin-%d", os.Getpid())
	path := filepath.Join(t.TempDir(), process)
	if err := os.WriteFile(path, b, 0o700); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(path)
	c.Env = append(os.Environ(), spinEnv+"=1")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	end = func() {
		if !ended {
			ended = true
			c.Process.Kill()
			c.Wait()
		}
	}
	t.Cleanup(end)
	return process, end
}

const cpuType = "process_cpu:cpu:nanoseconds:cpu:nanoseconds"

// TestPyroscope: Grafana's data source for Pyroscope reads the agent, and a
// Pyroscope server gets all that the agent keeps, as pprof and as OTLP.
func TestPyroscope(t *testing.T) {
	needRoot(t)
	pprofs, otlps := double.New(double.Options{Username: "agent", Password: "s3cret", Tenants: true}), double.New(double.Options{})
	to, too := httptest.NewServer(pprofs), httptest.NewServer(otlps)
	t.Cleanup(to.Close)
	t.Cleanup(too.Close)
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{}
	for _, set := range []string{
		"profiles.enabled=true", "profiles.cpu_hertz=97", "sinks.pyroscope.url=" + to.URL, "sinks.pyroscope.interval=1s", "sinks.pyroscope.tenant=e2e",
		"sinks.pyroscope.username=agent", "sinks.pyroscope.password_file=" + password, "sinks.pyroscope.labels=env=e2e",
		"sinks.otlp_profiles.url=" + too.URL + "/v1development/profiles", "sinks.otlp_profiles.interval=1s",
	} {
		args = append(args, "--set", set)
	}
	a := start(t, args...)
	begin := time.Now().Add(-time.Minute)
	process, end := named(t)
	g := grafana{t, querierv1connect.NewQuerierServiceClient(http.DefaultClient, a.url), process, begin}
	a.eventually(90*time.Second, "a flame graph with the function", func() error {
		f := g.flame()
		if f.GetTotal() < int64(2*time.Second) || !slices.ContainsFunc(f.GetNames(), func(n string) bool { return strings.HasSuffix(n, ".busyForPyroscope") }) {
			return fmt.Errorf("%d in %v", f.GetTotal(), f.GetNames())
		}
		return nil
	})
	end()
	g.labels()
	kept := settle(t, a, g)
	g.pprof(kept)
	g.series(kept)
	for name, d := range map[string]*double.Server{"process": pprofs, "process_executable_name": otlps} {
		a.eventually(30*time.Second, "the same at the server", func() error {
			if got := pushed(d, name, process); got != kept {
				return fmt.Errorf("%d arrived as %s, %d kept", got, name, kept)
			}
			return nil
		})
		if r := d.Refused(); len(r) > 0 {
			t.Errorf("refused: %.500v", r)
		}
	}
	checkLabels(t, pprofs, process)
	checkSent(t, a)
}

// checkLabels looks at what the server got of a process beside its stacks.
func checkLabels(t *testing.T, d *double.Server, process string) {
	t.Helper()
	for _, p := range d.Stored() {
		if p.Labels["process"] == process && (p.Labels["env"] != "e2e" || p.Labels["instance"] == "" || p.Labels["service_name"] == "" || p.Tenant != "e2e") {
			t.Errorf("labels %v, tenant %q", p.Labels, p.Tenant)
		}
	}
}

// checkSent looks at the account of what was sent.
func checkSent(t *testing.T, a *agent) {
	t.Helper()
	a.balanced()
	acc := a.accounts()["profiles"]
	if len(acc.Sinks) != 2 || acc.Observed == 0 {
		t.Errorf("account %+v", acc)
	}
	for _, s := range acc.Sinks {
		if s.Failed != 0 || s.Dropped != 0 {
			t.Errorf("account %+v", s)
		}
	}
	if code, b := a.get("/metrics"); code != http.StatusOK || !strings.Contains(b, `huatuo_profile_sent_samples_total{sink="pyroscope",outcome="delivered"} `) {
		t.Errorf("no count of what was sent in /metrics: %d", code)
	}
}

// TestPyroscopeWithoutStore: profiles are sent where none are kept.
func TestPyroscopeWithoutStore(t *testing.T) {
	needRoot(t)
	d := double.New(double.Options{})
	srv := httptest.NewServer(d)
	t.Cleanup(srv.Close)
	process, _ := named(t)
	a := start(t, "--set", "store.enabled=false", "--set", "profiles.enabled=true", "--set", "sinks.pyroscope.url="+srv.URL, "--set", "sinks.pyroscope.interval=1s")
	a.eventually(90*time.Second, "profiles at the server", func() error {
		if pushed(d, "process", process) == 0 {
			return fmt.Errorf("%d profiles, refused %v", len(d.Stored()), d.Refused())
		}
		return nil
	})
	c := querierv1connect.NewQuerierServiceClient(http.DefaultClient, a.url, connect.WithProtoJSON())
	if _, err := c.ProfileTypes(context.Background(), connect.NewRequest(&querierv1.ProfileTypesRequest{})); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("without a store: %v", err)
	}
}

// settle waits until the agent has kept all samples of the process, which has
// ended, and returns their value.
func settle(t *testing.T, a *agent, g grafana) int64 {
	t.Helper()
	last, since := int64(-1), time.Now()
	a.eventually(60*time.Second, "no more samples", func() error {
		if now := g.flame().GetTotal(); now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) < 5*time.Second { // longer than anything waits on the way to the store
			return fmt.Errorf("%d since %v", last, time.Since(since))
		}
		return nil
	})
	var own signal.FlameGraph
	a.json(fmt.Sprintf("/api/v1/profiles/flame?min_share=0&process=%s&from=%d", g.process, g.begin.Unix()), &own)
	if own.Total != last {
		t.Errorf("the agent's own API has %d, querier.v1 %d", own.Total, last)
	}
	return last
}

// pushed is the value that a server got of a process.
func pushed(d *double.Server, label, process string) (sum int64) {
	for _, p := range d.Stored() {
		if p.Labels[label] == process && p.Type == cpuType {
			sum += p.Total
		}
	}
	return sum
}

// grafana asks as its data source does.
type grafana struct {
	t       *testing.T
	c       querierv1connect.QuerierServiceClient
	process string
	begin   time.Time
}

func (g grafana) selector() string { return fmt.Sprintf(`{process=%q}`, g.process) }

func (g grafana) flame() *querierv1.FlameGraph {
	g.t.Helper()
	nodes := int64(16384)
	r, err := g.c.SelectMergeStacktraces(context.Background(), connect.NewRequest(&querierv1.SelectMergeStacktracesRequest{
		ProfileTypeID: cpuType, LabelSelector: g.selector(), Start: g.begin.UnixMilli(), End: time.Now().UnixMilli(), MaxNodes: &nodes,
	}))
	if err != nil {
		g.t.Fatal(err)
	}
	return r.Msg.Flamegraph
}

func (g grafana) labels() {
	g.t.Helper()
	ctx, from, to := context.Background(), g.begin.UnixMilli(), time.Now().UnixMilli()
	types, err := g.c.ProfileTypes(ctx, connect.NewRequest(&querierv1.ProfileTypesRequest{Start: from, End: to}))
	if err != nil || !slices.ContainsFunc(types.Msg.ProfileTypes, func(p *typesv1.ProfileType) bool { return p.ID == cpuType }) {
		g.t.Errorf("types %v, %v", types, err)
	}
	names, err := g.c.LabelNames(ctx, connect.NewRequest(&typesv1.LabelNamesRequest{Matchers: []string{g.selector()}, Start: from, End: to}))
	if err != nil || !slices.Contains(names.Msg.Names, "service_name") || !slices.Contains(names.Msg.Names, "process") {
		g.t.Errorf("names %v, %v", names, err)
	}
	values, err := g.c.LabelValues(ctx, connect.NewRequest(&typesv1.LabelValuesRequest{Name: "process", Start: from, End: to}))
	if err != nil || !slices.Contains(values.Msg.Names, g.process) {
		g.t.Errorf("values %v, %v", values, err)
	}
}

func (g grafana) pprof(kept int64) {
	g.t.Helper()
	//lint:ignore SA1019 data sources call it
	r, err := g.c.SelectMergeProfile(context.Background(), connect.NewRequest(&querierv1.SelectMergeProfileRequest{
		ProfileTypeID: cpuType, LabelSelector: g.selector(), Start: g.begin.UnixMilli(), End: time.Now().UnixMilli(),
	}))
	if err != nil {
		g.t.Fatal(err)
	}
	raw, err := r.Msg.MarshalVT()
	if err != nil {
		g.t.Fatal(err)
	}
	p, err := profile.ParseUncompressed(raw)
	if err != nil {
		g.t.Fatal(err)
	}
	var sum int64
	for _, s := range p.Sample {
		sum += s.Value[0]
	}
	if sum != kept {
		g.t.Errorf("the profile has %d, %d kept", sum, kept)
	}
	file := filepath.Join(g.t.TempDir(), "cpu.pb")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		g.t.Fatal(err)
	}
	top, err := exec.Command("go", "tool", "pprof", "-top", file).CombinedOutput()
	if err != nil || !strings.Contains(string(top), "busyForPyroscope") || !strings.Contains(string(top), "Type: cpu") {
		g.t.Errorf("%v: %s", err, top)
	}
}

func (g grafana) series(kept int64) {
	g.t.Helper()
	r, err := g.c.SelectSeries(context.Background(), connect.NewRequest(&querierv1.SelectSeriesRequest{
		ProfileTypeID: cpuType, LabelSelector: g.selector(), Start: g.begin.UnixMilli(), End: time.Now().UnixMilli(), Step: 15, GroupBy: []string{"process"},
	}))
	if err != nil || len(r.Msg.Series) != 1 {
		g.t.Fatalf("series %v, %v", r, err)
	}
	var sum float64
	for _, p := range r.Msg.Series[0].Points {
		sum += p.Value
	}
	if l := r.Msg.Series[0].Labels; int64(sum) != kept || len(l) != 1 || l[0].Value != g.process {
		g.t.Errorf("%v has %g, %d kept", l, sum, kept)
	}
}
