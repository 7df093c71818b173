// Package meminfo reports how the host's memory is used.
package meminfo

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"path/filepath"

	"huatuo/internal/kern/load"
	"huatuo/internal/kern/procfs"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:embed README.md
var readme string

// Config of the probe: it has no settings.
type Config struct{}

// Spec describes the probe.
func Spec() probe.Spec {
	emits := make([]*signal.Schema, 0, len(fields)+1)
	for _, f := range fields {
		emits = append(emits, f.schema)
	}
	return probe.New(probe.Meta{
		Name:   "meminfo",
		Help:   "Reports how the host's memory is used.",
		Readme: readme,
		Emits:  append(emits, hugePages),
		Since:  "4.18",
		Source: "/proc/meminfo",
	}, Config{}, run)
}

func run(ctx context.Context, env *probe.Env, _ Config) error {
	p := &poller{path: filepath.Join(env.Root, "proc/meminfo"), table: table()}
	if err := p.collect(new(signal.Batch)); err != nil {
		return err
	}
	env.Collect(p.collect)
	env.Ready(load.HookState{Hook: "/proc/meminfo", By: "procfs"})
	<-ctx.Done()
	return nil
}

type poller struct {
	path  string
	buf   []byte
	table map[string]field
}

func (p *poller) collect(b *signal.Batch) error {
	var err error
	if p.buf, err = procfs.ReadInto(p.path, p.buf); err != nil {
		return fmt.Errorf("read memory use: %w", err)
	}
	before := len(b.Samples)
	p.parse(p.buf, b)
	if len(b.Samples) == before {
		return errors.New("parse memory use: no known field in " + p.path)
	}
	return nil
}

// table maps the names in the file to fields.
func table() map[string]field {
	t := make(map[string]field, len(fields)+len(hugePageStates))
	for _, f := range fields {
		t[f.key] = f
	}
	for i, key := range hugePageKeys {
		t[key] = field{key: key, schema: hugePages, labels: hugePageStates[i : i+1 : i+1]}
	}
	return t
}

// parse adds a value for each line it knows; it is length-safe. A line that is
// no "Name: number" or "Name: number kB" is passed over.
func (p *poller) parse(file []byte, b *signal.Batch) {
	for line := range bytes.Lines(file) {
		key, rest, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		f, ok := p.table[string(key)]
		if !ok {
			continue
		}
		number, unit, _ := bytes.Cut(bytes.TrimSpace(rest), []byte(" "))
		v, ok := procfs.Uint(number)
		if !ok {
			continue
		}
		scale := 1.0
		if string(unit) == "kB" {
			scale = 1024
		}
		b.Value(f.schema, float64(v)*scale, f.labels...)
	}
}
