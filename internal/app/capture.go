package app

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"huatuo/internal/console"
	"huatuo/internal/kern/cgroup"
	"huatuo/internal/profile"
	"huatuo/internal/signal"
	"huatuo/internal/store/profiles"
)

// maxCaptureBytes bounds the captures that are kept: some hundreds.
const maxCaptureBytes = 64 << 20

// errNoProfiles is returned for a capture when no profiles are taken.
var errNoProfiles = errors.New("no stacks are taken: set profiles.enabled, and keep the store on")

// openCaptures lets stacks be captured; after openProfiles.
func (a *App) openCaptures() {
	if a.profiles == nil {
		return
	}
	a.captureCtx, a.endCaptures = context.WithCancel(context.Background())
	a.captures = profile.NewCapturer(profile.CapturerOptions{
		Source: a.profiles, Keeper: a.profiles, Booster: a.profiler, Types: ProfileTypes,
		Resolve: func(t *signal.CaptureTarget) error { return a.engine.resolveTarget(t) },
	})
}

// closeCaptures ends what the console began, while it can still be kept.
func (a *App) closeCaptures() {
	if a.captures != nil {
		a.endCaptures()
		a.captures.Wait()
	}
}

// Capture returns the stacks of a target in a window that may begin before the
// call and end after it; it waits for its end. The capture is kept, and can be had
// by its id from the API for as long as it is.
func (a *App) Capture(ctx context.Context, r signal.CaptureRequest) (*signal.Capture, error) {
	if a.captures == nil {
		return nil, errNoProfiles
	}
	return a.captures.Capture(ctx, r)
}

// resolveTarget replaces a container or a cgroup by the labels that its samples
// have.
func (e *Engine) resolveTarget(t *signal.CaptureTarget) error {
	labels := map[string][]string{}
	for name, values := range t.Labels {
		labels[name] = values
	}
	if t.Cgroup != 0 {
		g, ok := e.lookupCgroup(t.Cgroup)
		switch {
		case !ok:
			return fmt.Errorf("has a cgroup %d that is not known", t.Cgroup)
		case g.Identity.ID != "":
			labels["container"] = e.containerNames(g.Identity.ID)
		case g.Unit != "":
			labels["unit"] = []string{g.Unit}
		default:
			return fmt.Errorf("has cgroup %s, which is of no container and no systemd unit", g.Path)
		}
	}
	if t.Container != "" {
		if labels["container"] != nil {
			return errors.New("has a container twice")
		}
		labels["container"] = e.containerNames(t.Container)
	}
	t.Labels = labels
	return nil
}

func (e *Engine) lookupCgroup(id uint64) (cgroup.Entry, bool) {
	if e.index == nil {
		return cgroup.Entry{}, false
	}
	return e.index.Lookup(id)
}

// shortID is how much of a container's id its samples have when its name is not
// known.
const shortID = 12

// containerNames lists what samples of a container may be labelled with, for a
// name or an id.
func (e *Engine) containerNames(name string) []string {
	out := []string{name}
	if len(name) < shortID || strings.Trim(name, "0123456789abcdef") != "" || e.index == nil {
		return out
	}
	out = append(out, name[:shortID])
	for _, g := range e.index.Live() {
		if !strings.HasPrefix(g.Identity.ID, name) {
			continue
		}
		if n, ok := e.names.Container(g.Identity.ID); ok {
			out = append(out, n.Name)
		}
		if g.Identity.Name != "" {
			out = append(out, g.Identity.Name)
		}
	}
	return out
}

// captureView is the captures as the console sees them.
type captureView struct {
	ctx  context.Context // ends the captures that the console began
	take *profile.Capturer
	kept *profiles.Store
}

// Start begins a capture.
func (v captureView) Start(r signal.CaptureRequest) (signal.CaptureInfo, error) {
	info, err := v.take.Start(v.ctx, r)
	if errors.Is(err, profile.ErrBusy) {
		err = console.ErrTooMany
	}
	return info, err
}

// List lists captures, those that run first.
func (v captureView) List(most int) ([]signal.CaptureInfo, error) {
	out := v.take.Running()
	kept, err := v.kept.Captures(most)
	if err != nil {
		return nil, err
	}
	ended := map[string]bool{}
	for _, c := range kept {
		ended[c.ID] = true
	}
	all := out[:0]
	for _, c := range out {
		if !ended[c.ID] { // it has ended just now
			all = append(all, c)
		}
	}
	all = append(all, kept...)
	return all[:min(most, len(all))], nil
}

// Get returns a capture; one that runs has no stacks.
func (v captureView) Get(id string) (*signal.Capture, error) {
	for _, c := range v.take.Running() {
		if c.ID == id {
			return &signal.Capture{CaptureInfo: c, Graphs: []*signal.FlameGraph{}}, nil
		}
	}
	c, err := v.kept.Capture(id)
	if errors.Is(err, profiles.ErrNoCapture) {
		return nil, console.ErrMissing
	}
	return c, err
}

// Remove ends a capture that runs, or removes one that is kept.
func (v captureView) Remove(id string) error {
	if v.take.Cancel(id) {
		return nil
	}
	err := v.kept.RemoveCapture(id)
	if errors.Is(err, profiles.ErrNoCapture) {
		return console.ErrMissing
	}
	return err
}
