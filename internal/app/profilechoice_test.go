package app

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"huatuo/internal/config"
	"huatuo/internal/probe"
)

// TestEngineChoice: what is chosen by configuration is neither left for want of
// memory nor because something larger could run.
func TestEngineChoice(t *testing.T) {
	now := time.Now()
	for _, tt := range []struct {
		engine string
		modes  []profileMode // one after the other, as memory gets short
	}{
		{"auto", []profileMode{profileFull, profileSmall, profileFrames, profileOff}},
		{byUnwinder, []profileMode{profileFull, profileSmall, profileOff}},
		{byFramePointers, []profileMode{profileFrames, profileOff}},
	} {
		s := newSizing(tt.engine)
		for i, want := range tt.modes {
			if s.mode != want {
				t.Errorf("%s, step %d: %v, want %v", tt.engine, i, s.mode, want)
			}
			if more := s.shrink(now, "short", true); more != (i+1 < len(tt.modes)) {
				t.Errorf("%s, step %d: goes on: %t", tt.engine, i, more)
			}
		}
		for i := len(tt.modes) - 2; i >= 0; i-- {
			now = now.Add(48 * time.Hour)
			if !s.grow(now) || s.mode != tt.modes[i] {
				t.Errorf("%s, back to step %d: %v, want %v", tt.engine, i, s.mode, tt.modes[i])
			}
		}
		if s.grow(now.Add(48 * time.Hour)) {
			t.Errorf("%s: grows to %v", tt.engine, s.mode)
		}
	}
}

// TestUnwinderOnly: who wants the unwinder gets nothing else where it cannot run,
// and who wants frame pointers is not shown anything larger.
func TestUnwinderOnly(t *testing.T) {
	cannot := fmt.Errorf("too old: %w", errors.ErrUnsupported)
	choose := func(engine string) func(*config.Profiles) {
		return func(c *config.Profiles) { c.Engine = engine }
	}
	f := startProfiler(t, choose(byUnwinder), cannot)
	f.next(t, profileFull)
	f.await(t, probe.Unsupported, profileFull)
	f = startProfiler(t, choose("auto"), cannot)
	f.next(t, profileFull)
	f.next(t, profileFrames)
	f.await(t, probe.Degraded, profileFrames)
	f = startProfiler(t, choose(byFramePointers), cannot)
	if r := f.next(t, profileFrames); r.short {
		t.Error("its names are few although memory is not short")
	}
	f.await(t, probe.Degraded, profileFrames)
	if why := f.Status().Reason; !strings.Contains(why, "profiles.engine") || !strings.Contains(why, hiddenFromFrames) {
		t.Errorf("reason: %s", why)
	}
}
