package console

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/prometheus/promql"

	"huatuo/internal/signal"
)

// culpritMetric is what the answer is made of.
const culpritMetric = "huatuo_container_runqueue_culprit_seconds_total"

// Workload is what the series of a workload are called.
type Workload struct {
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	Container string `json:"container"`
	Unit      string `json:"unit" doc:"systemd unit or path of a cgroup, where there is no container"`
}

func (w *Workload) set(i int, v string) {
	*[]*string{&w.Namespace, &w.Pod, &w.Container, &w.Unit}[i] = v
}

// matches tells whether w has each name that f has.
func (f *Workload) matches(w *Workload) bool {
	same := func(want, is string) bool { return want == "" || want == is }
	return same(f.Namespace, w.Namespace) && same(f.Pod, w.Pod) && same(f.Container, w.Container) && same(f.Unit, w.Unit)
}

// Culprit is who had the CPU.
type Culprit struct {
	Kind string `json:"kind" enum:"workload,self,idle,quota,other" doc:"another workload, the one that waited itself, nobody, nobody because the quota of the one that waited was used up, or those without series of their own"`
	Workload
}

// CulpritPair is one who waited for a CPU, and one who had it meanwhile.
type CulpritPair struct {
	Victim        Workload `json:"victim"`
	Culprit       Culprit  `json:"culprit"`
	Seconds       float64  `json:"seconds" doc:"for how long, summed over the tasks that waited"`
	Share         float64  `json:"share" doc:"of victim_seconds"`
	VictimSeconds float64  `json:"victim_seconds" doc:"how long the victim waited for all of its culprits"`
	Command       string   `json:"command,omitempty" doc:"the culprit's command that lately stayed longest on the CPU; missing when the agent has not seen it since it started"`
}

type (
	culpritParams struct {
		From      string `query:"from" doc:"RFC 3339 or Unix seconds; an hour before to when missing" example:"2026-01-02T15:04:05Z"`
		To        string `query:"to" doc:"RFC 3339 or Unix seconds; now when missing"`
		Namespace string `query:"namespace" maxLength:"1000"`
		Pod       string `query:"pod" maxLength:"1000"`
		Container string `query:"container" maxLength:"1000"`
		Unit      string `query:"unit" maxLength:"1000"`
		Role      string `query:"role" enum:"victim,culprit,either" default:"either" doc:"what the workload that the names select is in a pair"`
		Limit     int    `query:"limit" minimum:"1" maximum:"1000" default:"1000"`
	}
	culpritList struct {
		From  time.Time     `json:"from"`
		To    time.Time     `json:"to"`
		Pairs []CulpritPair `json:"pairs" doc:"longest first"`
	}
)

func (s *Server) registerCulprits(api huma.API) {
	get(api, "listCulprits", "/api/v1/workloads/culprits", "Who ran while a workload waited for a CPU",
		[]int{http.StatusServiceUnavailable, http.StatusGatewayTimeout}, s.culprits)
}

func (s *Server) culprits(ctx context.Context, in *culpritParams) (culpritList, error) {
	out := culpritList{Pairs: []CulpritPair{}}
	if err := out.window(in, time.Now().UTC()); err != nil {
		return out, huma.Error422UnprocessableEntity("validation failed", err)
	}
	// An increase takes two samples.
	if least := time.Duration(2.5 * s.opt.Agent.Node().StoreInterval * float64(time.Second)); out.To.Sub(out.From) < least {
		out.From = out.To.Add(-least)
	}
	var vector promql.Vector
	err := s.readMetrics(ctx, func(ctx context.Context) error {
		r, err := s.opt.Metrics.Instant(ctx, culpritQuery(out.To.Sub(out.From)), out.To)
		vector, _ = r.Value.(promql.Vector)
		return err
	})
	if err != nil {
		return out, err
	}
	out.fill(vector, s.commands())
	out.choose(in)
	return out, nil
}

func culpritQuery(window time.Duration) string {
	by := ""
	for _, f := range signal.PeerFields("culprit", "") {
		by += f.Name + ", "
	}
	for i, l := range signal.WorkloadLabels {
		if i > 0 {
			by += ", "
		}
		by += l
	}
	return fmt.Sprintf("sum by (%s) (increase(%s[%ds]))", by, culpritMetric, int64(math.Ceil(window.Seconds())))
}

func (l *culpritList) window(in *culpritParams, now time.Time) (err error) {
	if l.From, err = optionalTime("from", in.From); err != nil {
		return err
	}
	if l.To, err = optionalTime("to", in.To); err != nil {
		return err
	}
	if l.To.IsZero() {
		l.To = now
	}
	if l.From.IsZero() {
		l.From = l.To.Add(-time.Hour)
	}
	if !l.From.Before(l.To) {
		return paramError("from", "must be before to")
	}
	return nil
}

// names of a pair, as the labels of its series have them.
type names struct {
	victim  Workload
	culprit Culprit
}

func namesOf(get func(label string) string) (n names) {
	n.culprit.Kind = get("culprit")
	for i, l := range signal.WorkloadLabels {
		n.victim.set(i, get(l))
		n.culprit.set(i, get("culprit_"+l))
	}
	return n
}

// fill makes pairs of the series, longest first.
func (l *culpritList) fill(v promql.Vector, commands map[names]string) {
	sums := map[Workload]float64{}
	for _, s := range v {
		if n := namesOf(s.Metric.Get); s.F > 0 {
			sums[n.victim] += s.F
			l.Pairs = append(l.Pairs, CulpritPair{Victim: n.victim, Culprit: n.culprit, Seconds: s.F, Command: commands[n]})
		}
	}
	for i := range l.Pairs {
		p := &l.Pairs[i]
		p.VictimSeconds = sums[p.Victim]
		p.Share = p.Seconds / p.VictimSeconds
	}
	slices.SortStableFunc(l.Pairs, func(a, b CulpritPair) int { return cmp.Compare(b.Seconds, a.Seconds) })
}

// choose keeps what was asked for.
func (l *culpritList) choose(in *culpritParams) {
	want := Workload{in.Namespace, in.Pod, in.Container, in.Unit}
	l.Pairs = slices.DeleteFunc(l.Pairs, func(p CulpritPair) bool {
		victim := in.Role != "culprit" && want.matches(&p.Victim)
		// Nobody has no name, which a name that is not asked for must not match.
		culprit := in.Role != "victim" && (want == Workload{} || p.Culprit.Workload != Workload{}) && want.matches(&p.Culprit.Workload)
		return !victim && !culprit
	})
	l.Pairs = l.Pairs[:min(len(l.Pairs), in.Limit)]
}

// commands are what the probe knows of the culprits at present. Series have no
// label for it: there is no end of commands.
func (s *Server) commands() map[names]string {
	out := map[names]string{}
	if s.opt.Latest == nil {
		return out
	}
	for _, sample := range s.opt.Latest() {
		if sample.Schema.Name == culpritMetric && sample.Note != "" {
			out[namesOf(func(label string) string { return labelOf(&sample, label) })] = sample.Note
		}
	}
	return out
}

// labelOf returns the value of one label of a gathered sample.
func labelOf(s *signal.Sample, name string) string {
	fields := s.Schema.Fields
	i := slices.IndexFunc(fields, func(f signal.Field) bool { return f.Name == name })
	if i < 0 {
		if i = slices.Index(signal.WorkloadLabels[:], name); i < 0 {
			return ""
		}
		i += len(fields)
	}
	if i >= len(s.Labels) {
		return ""
	}
	return s.Labels[i]
}
