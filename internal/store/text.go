package store

import (
	"encoding/json"
	"strings"
	"unicode"

	"huatuo/internal/signal"
)

// words returns all text by which d can be found.
func words(d *signal.Document) string {
	var b strings.Builder
	add := func(ss ...string) {
		for _, s := range ss {
			if s != "" {
				b.WriteString(s)
				b.WriteByte('\n')
			}
		}
	}
	add(d.Title, d.Kind, d.Host)
	if p := d.Process; p != nil {
		add(p.Comm, p.Exe, p.Cmdline, p.Parent)
	}
	if c := d.Container; c != nil {
		add(c.Name, c.ID, c.Pod, c.PodUID, c.Namespace, c.Unit)
	}
	for _, st := range [][]signal.Frame{d.KernelStack, d.UserStack} {
		for _, f := range st {
			add(f.Function)
		}
	}
	var fields any
	dec := json.NewDecoder(strings.NewReader(string(d.Fields)))
	dec.UseNumber()
	if dec.Decode(&fields) == nil {
		leaves(fields, func(s string) { add(s) })
	}
	return b.String()
}

// leaves calls f with every string and number in v.
func leaves(v any, f func(string)) {
	switch v := v.(type) {
	case string:
		f(v)
	case json.Number:
		f(v.String())
	case []any:
		for _, e := range v {
			leaves(e, f)
		}
	case map[string]any:
		for _, e := range v {
			leaves(e, f)
		}
	}
}

// Longer queries find nothing that a person looks for, and cost.
const (
	maxQueryBytes = 1024
	maxQueryWords = 32
)

// match turns what a person typed into an FTS5 expression: every word must
// occur, words in quotes must follow each other, and the last word may be the
// beginning of one unless its quote is closed. Nothing in text has a meaning to
// FTS5, since each part is quoted. The result is empty when text has no words.
func match(text string) string {
	if len(text) > maxQueryBytes {
		text = text[:maxQueryBytes]
	}
	text = strings.ToValidUTF8(text, " ")
	var parts []string
	open := false // the last part may go on
	add := func(s string, closed bool) {
		// A part without any letter or digit would match nothing.
		if strings.IndexFunc(s, wordRune) < 0 || len(parts) == maxQueryWords {
			return
		}
		parts = append(parts, `"`+strings.ReplaceAll(s, "\x00", " ")+`"`)
		open = !closed
	}
	for i, s := range strings.Split(text, `"`) {
		if i%2 == 1 { // in quotes; the last piece is in a quote that was never closed
			add(s, i < strings.Count(text, `"`))
			continue
		}
		for _, w := range strings.Fields(s) {
			add(w, false)
		}
	}
	if len(parts) == 0 {
		return ""
	}
	q := strings.Join(parts, " AND ")
	if open {
		q += " *"
	}
	return q
}

// wordRune tells whether unicode61 makes r part of a word.
func wordRune(r rune) bool {
	return unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.Is(unicode.Co, r)
}
