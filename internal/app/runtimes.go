package app

import (
	"bytes"
	"context"
	"encoding/json"
	"io"

	"github.com/google/pprof/profile"

	"huatuo/internal/config"
	"huatuo/internal/console"
	prof "huatuo/internal/profile"
	"huatuo/internal/profile/runtimes"
	"huatuo/internal/signal"
)

// runtimeView asks processes for profiles on behalf of the console.
type runtimeView struct {
	a *App
	c *runtimes.Client
}

func (v runtimeView) allowed() error {
	if !v.a.cfg.Load().Profiles.Runtimes {
		return console.ErrRuntimesOff
	}
	return nil
}

// List lists processes that may have profiles.
func (v runtimeView) List(ctx context.Context) ([]signal.RuntimeProcess, error) {
	if err := v.allowed(); err != nil {
		return nil, err
	}
	return v.c.List(ctx)
}

// Look tells what /proc says of one.
func (v runtimeView) Look(pid uint32) (signal.RuntimeProcess, error) {
	if err := v.allowed(); err != nil {
		return signal.RuntimeProcess{}, err
	}
	return v.c.Look(pid)
}

// Ask tells what a process offers.
func (v runtimeView) Ask(ctx context.Context, pid uint32) (signal.RuntimeProcess, error) {
	if err := v.allowed(); err != nil {
		return signal.RuntimeProcess{}, err
	}
	v.a.log.Info("a process is asked which profiles it has", "pid", pid)
	return v.c.Ask(ctx, pid)
}

// Fetch gets a profile as a file.
func (v runtimeView) Fetch(ctx context.Context, r signal.RuntimeRequest, format string) ([]byte, error) {
	if err := v.allowed(); err != nil {
		return nil, err
	}
	v.a.log.Info("a process is asked for a profile", "pid", r.PID, "profile", r.Profile, "for", r.For, "collect", r.Collect)
	p, err := v.c.Fetch(ctx, r)
	if err != nil {
		v.a.log.Warn("no profile came", "pid", r.PID, "profile", r.Profile, "err", err)
		return nil, err
	}
	var b bytes.Buffer
	err = EncodeRuntime(&b, p, r, format)
	return b.Bytes(), err
}

// EncodeRuntime writes a profile that a runtime has given: pprof has all of its
// values, the formats of profile.Encode one, and so has json, the form that the
// console reads.
func EncodeRuntime(w io.Writer, p *profile.Profile, r signal.RuntimeRequest, format string) error {
	if format == "pprof" {
		return p.Write(w)
	}
	g, err := runtimes.Graph(p, r.Profile, r.Sample)
	if err != nil {
		return err
	}
	if format == "json" {
		return json.NewEncoder(w).Encode(g)
	}
	return prof.Encode(w, format, g)
}

// NewRuntimes makes a client that asks processes without an agent, where the
// configuration lets them be asked.
func NewRuntimes(cfg *config.Config) (*runtimes.Client, error) {
	if !cfg.Profiles.Runtimes {
		return nil, console.ErrRuntimesOff
	}
	return runtimes.New(procOf(cfg.Host.Root)), nil
}
