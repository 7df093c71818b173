package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"huatuo/internal/profile"
	"huatuo/internal/profile/engine"
	"huatuo/internal/signal"
	"huatuo/internal/store/profiles"
)

// recordRate is how many stacks of each kind a CPU takes per second for somebody
// who waits for them: ten times what is taken all the time.
const recordRate = 500

// RecordOptions of Record.
type RecordOptions struct {
	Name  string // of the graph when there are several types
	Types []*signal.ProfileType
	Hertz int // of CPU time, and of each type that the hardware counts
	For   time.Duration
	Match func(*signal.ProfileLabels) bool // nil: all
	Ready func()                           // stacks are being taken
	Tick  func(samples int64)              // for each that is kept
}

// Record takes stacks for a while and returns them merged, a graph for each unit;
// several types stand beside each other under their names. The engine's probes do not run. A type
// that this kernel cannot show is an error when it is the only one.
func (e *Engine) Record(ctx context.Context, o RecordOptions) ([]*signal.FlameGraph, error) {
	dir, err := os.MkdirTemp("", "huatuo-profile-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	s, err := profiles.Open(profiles.Options{Dir: dir, Log: e.log})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var n int64
	p := newProfiler(e.cfg.Profiles, e, e.log, func(x signal.LabeledSample) {
		if !slices.Contains(o.Types, x.Type) || o.Match != nil && !o.Match(&x.Labels) {
			return
		}
		n++
		s.Add(x)
		if o.Tick != nil {
			o.Tick(n)
		}
	})
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { e.Run(background, func(string) bool { return false }) })
	wg.Go(func() { s.Run(background) })
	begin := time.Now()
	opt := p.recording(o)
	opt.Ready = func() {
		begin = time.Now()
		time.AfterFunc(o.For, cancel)
		if o.Ready != nil {
			o.Ready()
		}
	}
	err = e.stacks(ctx, o.Types, opt)
	end := time.Now()
	stop()
	wg.Wait()
	if err != nil {
		return nil, fmt.Errorf("take stacks: %w", err)
	}
	if err := missing(o.Types, p.account.Types()); err != nil {
		return nil, err
	}
	return merged(context.WithoutCancel(ctx), profileView{store: s, prof: p}, o, begin, end)
}

// recording is what the unwinder is to take.
func (p *profiler) recording(o RecordOptions) engine.Options {
	opt := engine.Options{Log: p.log, Symbols: p.engine.symbols(profileSymbols, profileDebug), Emit: p.take, Entries: p.entriesOf(p.cfg, 0)}
	opt.Entries.KernelTypes = p.engine.kernel.Types()
	opt.Entries.Types, opt.Entries.Rate, opt.Entries.CountHertz = nil, recordRate, o.Hertz
	if o.Match != nil { // names are not looked for in vain
		opt.Want = func(s *signal.StackSample) bool {
			l := p.labels(s)
			l.Thread = s.Thread
			return o.Match(&l)
		}
	}
	for _, t := range o.Types {
		if t == profile.CPU {
			opt.Hertz = o.Hertz
		} else {
			opt.Entries.Types = append(opt.Entries.Types, t)
		}
	}
	return opt
}

// missing tells why none of some types was taken; nil when one was.
func missing(types []*signal.ProfileType, status []engine.TypeStatus) error {
	var why []error
	for _, t := range types {
		i := slices.IndexFunc(status, func(s engine.TypeStatus) bool { return s.Type == t })
		if i < 0 || status[i].On {
			return nil
		}
		why = append(why, fmt.Errorf("%s: %s: %w", t.Name, status[i].Reason, errors.ErrUnsupported))
	}
	return errors.Join(why...)
}

// merged is what was kept of some types: a graph for each unit, the first of
// which is that of the first type. Those of a unit that are empty are left out,
// but for the first.
func merged(ctx context.Context, v profileView, o RecordOptions, begin, end time.Time) ([]*signal.FlameGraph, error) {
	var names []string
	byName := map[string][]*signal.FlameGraph{}
	for _, t := range o.Types {
		g, err := v.Flame(ctx, signal.ProfileQuery{Type: t.Name, From: begin.Add(-time.Minute), To: end.Add(time.Minute)}, 0)
		if err != nil {
			return nil, err
		}
		g.From, g.To = begin, end
		name := o.Name
		if of := profile.BesideOf(t); of != nil && slices.Contains(o.Types, of) { // its stacks are those of that type
			name += strings.TrimPrefix(t.Name, of.Name)
			g.Type = of.Name
		}
		if byName[name] == nil {
			names = append(names, name)
		}
		byName[name] = append(byName[name], g)
	}
	var out []*signal.FlameGraph
	for i, name := range names {
		g := byName[name][0]
		if len(byName[name]) > 1 {
			g = profile.Merge(name, byName[name]...)
		}
		g.Type = name
		if i == 0 || g.Samples > 0 {
			out = append(out, g)
		}
	}
	return out, nil
}
