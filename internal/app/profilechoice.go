package app

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"huatuo/internal/profile/engine"
	walker "huatuo/internal/profile/frames" // frames is a metric here
	"huatuo/internal/signal"
	"huatuo/internal/symbol"
)

// What profiles.engine may be, besides auto.
const (
	byUnwinder      = "unwinder"
	byFramePointers = "frame_pointers"
)

// hiddenFromFrames is what frame pointers do not show, for the console.
const hiddenFromFrames = "stacks are taken by frame pointers: callers of code that keeps none and functions of interpreters are not seen, nor what threads wait for"

// newSizing returns with what profiling begins.
func newSizing(engine string) sizing {
	switch engine {
	case byFramePointers:
		return sizing{mode: profileFrames, most: profileFrames, why: "chosen by configuration (profiles.engine)"}
	case byUnwinder:
		return sizing{only: true}
	}
	return sizing{}
}

// ProfileTypes lists what stacks can be taken of by this program.
func ProfileTypes() []*signal.ProfileType {
	if t := engine.Types(); len(t) > 0 {
		return t
	}
	return walker.Types() // built without the unwinder
}

// walkerNames are the names for frame pointers: without source lines and inlined
// calls, which take more memory and time than all the rest, and without waiting
// for files.
func (e *Engine) walkerNames(short bool) *symbol.Resolver {
	o := symbol.Options{
		Kernel: e.ksyms, Proc: procOf(e.cfg.Host.Root), CacheBytes: profileSymbols, DebugBytes: 1, Wait: time.Millisecond,
		Fetch: e.fetch, Count: e.counts,
	}
	if short {
		o.CacheBytes = smallSymbols
	}
	return symbol.New(o)
}

// stacks takes stacks of some types until ctx is done, by the engine that
// profiles.engine names.
func (e *Engine) stacks(ctx context.Context, types []*signal.ProfileType, o engine.Options) error {
	choice := e.cfg.Profiles.Engine
	walks := slices.ContainsFunc(walker.Types(), func(t *signal.ProfileType) bool { return slices.Contains(types, t) })
	if choice == byFramePointers && !walks {
		return fmt.Errorf("%s is not among what frame pointers show (profiles.engine): %w", types[0].Name, errors.ErrUnsupported)
	}
	if choice != byFramePointers {
		err := engine.Run(ctx, o)
		if choice == byUnwinder || !walks || !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		e.log.Warn(hiddenFromFrames, "because", err)
	}
	return walker.Run(ctx, walker.Options{
		Log: o.Log, Hertz: o.Hertz, Symbols: e.walkerNames(false), Want: o.Want, Emit: o.Emit, Ready: o.Ready,
		Kernel: e.kernel, Rings: e.rings, Proc: procOf(e.cfg.Host.Root),
	})
}
