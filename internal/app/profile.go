package app

import (
	"context"
	"io"
	"path/filepath"
	"sync"
	"time"

	"huatuo/internal/console"
	"huatuo/internal/profile"
	"huatuo/internal/profile/engine"
	"huatuo/internal/signal"
	"huatuo/internal/store/profiles"
)

// profileView is the kept profiles as the console reads them.
type profileView struct {
	store *profiles.Store
	prof  *profiler
}

// Status tells whether stacks are being taken.
func (v profileView) Status() console.ProfilerStatus { return v.prof.Status() }

// Types lists what can be asked for.
func (v profileView) Types() []*signal.ProfileType { return ProfileTypes() }

// Flame merges stacks.
func (v profileView) Flame(ctx context.Context, q signal.ProfileQuery, least float64) (*signal.FlameGraph, error) {
	g, err := v.store.Flame(ctx, q, least)
	if err == nil {
		if v.prof.engine.again(g.Frames) > 0 {
			profile.Regroup(g)
		}
		if t := profile.ByName(q.Type); t != nil {
			g.Unit = t.Unit
		}
	}
	return g, err
}

// Heat sums by time.
func (v profileView) Heat(ctx context.Context, q signal.ProfileQuery, column time.Duration) ([]int64, error) {
	return v.store.Heat(ctx, q, column)
}

// Series sums by labels.
func (v profileView) Series(ctx context.Context, q signal.ProfileQuery, by []string) ([]signal.ProfileSeries, error) {
	return v.store.Series(ctx, q, by)
}

// Diff compares two sets of samples.
func (v profileView) Diff(ctx context.Context, before, after signal.ProfileQuery, self bool, least float64) (*signal.ProfileDiff, error) {
	b, err := v.Flame(ctx, before, 0)
	if err != nil {
		return nil, err
	}
	a, err := v.Flame(ctx, after, 0)
	if err != nil {
		return nil, err
	}
	return profile.Diff(b, a, profile.DiffOptions{Self: self, MinShare: least})
}

// Encode writes a graph for other tools.
func (v profileView) Encode(w io.Writer, g *signal.FlameGraph, format string) error {
	return profile.Encode(w, format, g)
}

// Metrics of profiles; absent when they are off.
var (
	profileSamples = selfMetric("huatuo_profile_samples_total", signal.Counter, "1", "Samples of stacks by what became of them.",
		"excluded: by profiles.include and exclude; lost: the unwinder's buffer was full; dropped: they came faster than they could be written; failed: the disk refused them.",
		signal.Field{Name: "outcome", Help: "what became of the sample", Values: []string{"kept", "excluded", "lost", "dropped", "failed"}})
	profileBytes = selfMetric("huatuo_profile_bytes", signal.Gauge, "bytes", "Size of the profiles that are kept.",
		"Bounded by profiles.max_size and hourly_max_size, and by profiles.retention and hourly_retention.",
		signal.Field{Name: "what", Help: "samples, their sums by the hour, or captures", Values: []string{"samples", "sums", "captures"}})
	profileMemory = selfMetric("huatuo_profile_memory_bytes", signal.Gauge, "bytes", "Memory of profiling: the unwinder's BPF maps, and what the agent has grown by.",
		"Bounded by profiles.max_memory.")
	profileModes = selfMetric("huatuo_profile_mode", signal.Gauge, "1", "How stacks are taken: 1 for the mode in force.",
		"small, frame_pointers and off: memory was short, or the unwinder cannot run here; the Profiles page and the log say why. By frame pointers, programs built without them have stacks of one frame.",
		signal.Field{Name: "mode", Help: "how", Values: []string{"full", "small", "frame_pointers", "off"}})
	profileLeftOut = selfMetric("huatuo_profile_left_out_total", signal.Counter, "1", "Stacks that were not taken, by type of profile and reason.",
		"rate: there were more of them than profiles.rate allows, which is by design.",
		signal.Field{Name: "type", Help: "type of profile"}, signal.Field{Name: "reason", Help: "why"})
)

// profileSchemas lists them, for the catalogue and the docs.
func profileSchemas() []*signal.Schema {
	return []*signal.Schema{profileSamples, profileBytes, profileMemory, profileModes, profileLeftOut}
}

func (a *App) collectProfiles(b *signal.Batch) {
	a.pushes.collect(b)
	if p := a.profiler; p != nil {
		st := p.Status()
		b.Value(profileMemory, float64(st.Memory))
		b.Value(profileModes, 1, st.Mode)
		b.Value(profileSamples, float64(p.excluded.Load()), "excluded")
		b.Value(profileSamples, float64(engine.Lost()+p.lost.Load()), "lost")
		for _, l := range p.account.Losses() {
			b.Value(profileLeftOut, float64(l.Samples), l.Type.Name, l.Reason)
		}
	}
	if a.profiles == nil {
		return
	}
	st := a.profiles.Stats()
	b.Value(profileSamples, float64(st.Kept), "kept")
	b.Value(profileSamples, float64(st.Dropped), "dropped")
	b.Value(profileSamples, float64(st.Failed), "failed")
	b.Value(profileBytes, float64(st.Bytes), "samples")
	b.Value(profileBytes, float64(st.HoursBytes), "sums")
	b.Value(profileBytes, float64(st.CaptureBytes), "captures")
}

// openProfiles opens the store of profiles beside the other one.
func (a *App) openProfiles(e *Engine) error {
	c := a.cfg.Load()
	if !c.Profiles.Enabled {
		return nil
	}
	var err error
	if a.pushes, err = openPushes(c, e.hostID, a.log); err != nil {
		return err
	}
	if a.store == nil && len(a.pushes.sinks) == 0 {
		a.log.Warn("profiles need the store, or a server that they are sent to: there are none")
		return nil
	}
	if a.store == nil {
		a.profiler = newProfiler(c.Profiles, e, a.log, a.pushes.after(nil))
		return nil
	}
	s, err := profiles.Open(profiles.Options{
		Dir: filepath.Join(c.Store.Dir, "profiles"), MaxBytes: c.Profiles.MaxSize, MaxAge: c.Profiles.Retention,
		MaxHoursBytes: c.Profiles.HourlyMaxSize, MaxHoursAge: c.Profiles.HourlyRetention, MaxCaptureBytes: maxCaptureBytes, Log: a.log,
	})
	if err != nil {
		return err
	}
	a.profiles = s
	a.profiler = newProfiler(c.Profiles, e, a.log, a.pushes.after(s.Add))
	return nil
}

// runProfiles takes and keeps profiles until ctx is done. It begins when the
// probes run: they are what the first second is for.
func (a *App) runProfiles(ctx context.Context) {
	if a.profiler == nil {
		return
	}
	a.engine.Settle(ctx)
	keep, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	if a.profiles != nil {
		wg.Go(func() { a.profiles.Run(keep) })
	}
	wg.Go(func() { a.pushes.run(keep) })
	a.profiler.run(ctx) // which hands on what it still has when it ends
	a.closeCaptures()
	stop()
	wg.Wait()
}
