package docgen

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// Example is a captured document of one kind of event.
type Example struct {
	Document []byte // JSON
	Source   string // where it comes from, one sentence
}

// Examples reads the captured events of the probes from their sources: root is
// internal/probes. A kind without one is left out.
func Examples(root fs.FS, specs []probe.Spec) (map[string]Example, error) {
	found := map[string]Example{}
	for _, s := range specs {
		for _, e := range s.Emits {
			if e.Kind != signal.Event {
				continue
			}
			base := path.Join(s.Name, "testdata", "example_"+e.Name)
			doc, err := fs.ReadFile(root, base+".json")
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("read examples: %w", err)
			}
			source, err := fs.ReadFile(root, base+".txt")
			if err != nil {
				return nil, fmt.Errorf("read examples: %w", err)
			}
			found[e.Name] = Example{doc, strings.TrimSpace(string(source))}
		}
	}
	return found, nil
}

func eventsPage(in In) ([]byte, error) {
	p := newPage("Events")
	es := all(in, signal.Event)
	p.line("Every kind of event, by area: when it is made and why then, what is normal, what configures it, what it tells, and a captured example. All kinds share one " +
		"document: identity, time, severity, a title of one sentence, the process and container concerned, stacks where the kernel gives them, the resources of that moment, links " +
		"to events that have to do with it, and under `fields` what is listed here. `schema/<kind>.json` holds the JSON Schema of the whole document.")
	p.line("A rate limit holds for each CPU. What it holds back is counted in `suppressed` of the next event and in `huatuo_events_dropped_total`, and metrics count everything. " +
		"What is normal on a healthy host, and why, is in [the guide](../guide/noise.md). Examples are of a test's processes: `make examples` captures them.")
	var err error
	byArea(es, func(a signal.Area, es []emitted) {
		p.line("## " + title(string(a)))
		for _, e := range es {
			err = errors.Join(err, p.event(e, in))
		}
	})
	return p.bytes(), err
}

func (p *page) event(e emitted, in In) error {
	p.line("### " + e.Name)
	p.line(e.Help)
	if e.Trigger != "" {
		p.line("**When:** " + e.Trigger)
	}
	if e.Normal != "" {
		p.line("**Normal:** " + e.Normal)
	}
	p.line(fmt.Sprintf("Severity %s unless the event says otherwise. Probe %s. [JSON Schema](schema/%s.json).", e.Severity, probeLink("probes/", e.probe), e.Name))
	if e.Read != "" {
		p.line(e.Read)
	}
	p.knobs(e, in)
	p.table(fieldHead, fieldRows(e.Fields))
	x, ok := in.Examples[e.Name]
	if !ok {
		return nil
	}
	text, err := compact(x.Document)
	if err != nil {
		return fmt.Errorf("read example of %s: %w", e.Name, err)
	}
	p.WriteString("<details><summary>Example. " + cell(x.Source) + "</summary>\n\n```json\n" + text + "\n```\n\n</details>\n\n")
	return nil
}

// limits are keys that limit the rate of events.
var limits = [...]string{"rate", "burst", "exec_rate", "corrected_every"}

// knobs lists the options that decide on a kind: those that its trigger or what
// is normal names, and its rate limits. A limit whose help names a kind is that
// kind's, and the kind has no other.
func (p *page) knobs(e emitted, in In) {
	var thresholds, own, shared []Option
	for _, o := range in.Options {
		key, ok := strings.CutPrefix(o.Key, "probes."+e.probe+".")
		if !ok {
			continue
		}
		isOf := func(x emitted) bool { return x.probe == e.probe && strings.Contains(o.Help, x.Name) }
		switch isLimit := slices.Contains(limits[:], key); {
		case isLimit && isOf(e):
			own = append(own, o)
		case isLimit && !slices.ContainsFunc(all(in, signal.Event), isOf):
			shared = append(shared, o)
		case strings.Contains(e.Trigger+e.Normal, "`"+key+"`"):
			thresholds = append(thresholds, o)
		}
	}
	if len(own) == 0 {
		own = shared
	}
	var rows [][]string
	for _, o := range append(thresholds, own...) {
		rows = append(rows, []string{code(o.Key), code(o.Default), o.Help})
	}
	p.table([]string{"configured by", "default", "meaning"}, rows)
	if len(own) == 0 && e.probe != "" {
		p.line("It has no rate limit of its own.")
	}
}

// width is what one line of an example has at most, if its value can be broken.
const width = 110

// compact indents JSON, with what fits on a line on one line: a frame of a stack
// is one.
func compact(doc []byte) (string, error) {
	var flat bytes.Buffer
	if err := json.Compact(&flat, doc); err != nil {
		return "", err
	}
	d := json.NewDecoder(bytes.NewReader(flat.Bytes()))
	d.UseNumber()
	var b strings.Builder
	err := value(&b, d, "")
	return b.String(), err
}

// value writes the next value of d, which its caller has indented.
func value(b *strings.Builder, d *json.Decoder, indent string) error {
	var raw json.RawMessage
	if err := d.Decode(&raw); err != nil {
		return err
	}
	if raw[0] != '{' && raw[0] != '[' || len(raw) < 3 {
		b.Write(raw)
		return nil
	}
	if line := spaced(raw); len(indent)+len(line) <= width {
		b.WriteString(line)
		return nil
	}
	in := json.NewDecoder(bytes.NewReader(raw))
	open, err := in.Token()
	if err != nil {
		return err
	}
	inner := indent + "  "
	for first := true; in.More(); first = false {
		if !first {
			b.WriteByte(',')
		} else {
			fmt.Fprint(b, open)
		}
		b.WriteString("\n" + inner)
		if open == json.Delim('{') {
			key, err := in.Token()
			if err != nil {
				return err
			}
			name, err := json.Marshal(key)
			if err != nil {
				return err
			}
			b.Write(append(name, ": "...))
		}
		if err := value(b, in, inner); err != nil {
			return err
		}
	}
	b.WriteString("\n" + indent + string(open.(json.Delim)+2)) // ']' and '}' are two after '[' and '{'
	return nil
}

// spaced is JSON on one line with a space after each comma and colon outside of strings.
func spaced(raw []byte) string {
	var b strings.Builder
	quoted := false
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		b.WriteByte(c)
		switch {
		case quoted && c == '\\':
			i++
			b.WriteByte(raw[i])
		case c == '"':
			quoted = !quoted
		case !quoted && (c == ',' || c == ':'):
			b.WriteByte(' ')
		}
	}
	return b.String()
}
