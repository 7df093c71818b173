package app

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	"huatuo/internal/config"
	"huatuo/internal/console"
	"huatuo/internal/signal"
	"huatuo/internal/sink/pyroscope"
)

// pushes are the servers that profiles are sent to.
type pushes struct {
	sinks []*pyroscope.Sink

	mu sync.Mutex // a sample is given to all of them, or to none yet
}

// openPushes makes the sinks that the configuration names.
func openPushes(c *config.Config, instance string, log *slog.Logger) (*pushes, error) {
	p := &pushes{}
	for _, s := range []struct {
		name, url string
		push      config.Push
		open      func(pyroscope.Options) (*pyroscope.Sink, error)
	}{
		{"pyroscope", c.Sinks.Pyroscope.URL, c.Sinks.Pyroscope.Push, pyroscope.New},
		{"otlp_profiles", c.Sinks.OTLPProfiles.URL, c.Sinks.OTLPProfiles.Push, pyroscope.NewOTLP},
	} {
		if s.url == "" || !c.Profiles.Enabled {
			continue
		}
		o := pyroscope.Options{
			Name: s.name, Log: log, Instance: instance, Interval: s.push.Interval, Queue: s.push.Queue, GroupBy: s.push.GroupBy,
			Client: pyroscope.Client{
				URL: s.url, Username: s.push.Username, PasswordFile: s.push.PasswordFile, TokenFile: s.push.TokenFile, Tenant: s.push.Tenant,
				CAFile: s.push.CAFile, CertFile: s.push.CertFile, KeyFile: s.push.KeyFile, Insecure: s.push.Insecure,
			},
		}
		if strings.HasPrefix(s.url, "http://") && (s.push.Username != "" || s.push.TokenFile != "") {
			log.Warn("credentials are sent in clear text: use https", "sink", s.name, "url", s.url)
		}
		for _, l := range s.push.Pairs() {
			o.Labels = append(o.Labels, pyroscope.Label(l))
		}
		sink, err := s.open(o)
		if err != nil {
			return nil, fmt.Errorf("sinks.%s: %w", s.name, err)
		}
		p.sinks = append(p.sinks, sink)
	}
	return p, nil
}

// after returns a function that calls keep, if there is one, and gives the
// sample to the sinks.
func (p *pushes) after(keep func(signal.LabeledSample)) func(signal.LabeledSample) {
	if len(p.sinks) == 0 {
		return keep
	}
	return func(x signal.LabeledSample) {
		if keep != nil {
			keep(x)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, s := range p.sinks {
			s.Add(x)
		}
	}
}

// run sends until ctx is done.
func (p *pushes) run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, s := range p.sinks {
		wg.Go(func() { s.Run(ctx) })
	}
	wg.Wait()
}

// accounts tells what became of the samples; nothing without sinks.
func (p *pushes) accounts() []signal.Account {
	if p == nil || len(p.sinks) == 0 {
		return nil
	}
	out := signal.Account{Probe: "profiles", Dropped: map[string]uint64{}}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.sinks {
		taken, a := s.Account()
		out.Observed, out.Routed = taken, taken
		out.Sinks = append(out.Sinks, a)
	}
	return []signal.Account{out}
}

// states tells how the sinks are doing.
func (p *pushes) states() []console.Sink {
	if p == nil {
		return nil
	}
	var out []console.Sink
	for _, s := range p.sinks {
		st := s.State()
		c := console.Sink{Name: st.Name, State: "ok", Queued: st.Queued, Capacity: st.Capacity}
		if st.Err != nil {
			c.State, c.Error = "retrying", st.Err.Error()
		}
		out = append(out, c)
	}
	return out
}

// profileSent counts what the sinks do; absent without any.
var profileSent = selfMetric("huatuo_profile_sent_samples_total", signal.Counter, "1", "Samples of stacks that were to be sent to another server, by what became of them.",
	"dropped: the server was too slow or away, and the oldest went; failed: it refused them again and again. What is still on its way is on the System page.",
	signal.Field{Name: "sink", Help: "pyroscope or otlp_profiles"},
	signal.Field{Name: "outcome", Help: "what became of the sample", Values: []string{"delivered", "dropped", "failed"}})

func (p *pushes) collect(b *signal.Batch) {
	for _, acc := range p.accounts() {
		for _, s := range acc.Sinks {
			b.Value(profileSent, float64(s.Delivered), s.Sink, "delivered")
			b.Value(profileSent, float64(s.Dropped), s.Sink, "dropped")
			b.Value(profileSent, float64(s.Failed), s.Sink, "failed")
		}
	}
}
