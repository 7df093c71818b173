package config

import (
	"fmt"
	"slices"
	"strings"

	"huatuo/internal/signal"
)

// ProfileMatch chooses samples of profiles by their labels. The zero value
// chooses all.
type ProfileMatch struct{ include, exclude []terms }

// terms must all hold.
type terms []term

// term is a label and what its value looks like.
type term struct {
	label string
	parts []string // of the pattern, between its asterisks
}

// NewProfileMatch reads profiles.include and profiles.exclude: a sample is chosen
// when one of include matches it, or there is none, and none of exclude does.
func NewProfileMatch(include, exclude []string) (m ProfileMatch, err error) {
	if m.include, err = parseTerms(include); err != nil {
		return m, err
	}
	m.exclude, err = parseTerms(exclude)
	return m, err
}

// Has tells whether l is chosen.
func (m ProfileMatch) Has(l *signal.ProfileLabels) bool {
	holds := func(ts terms) bool {
		return !slices.ContainsFunc(ts, func(t term) bool {
			v, _ := l.Get(t.label)
			return !like(v, t.parts)
		})
	}
	return (len(m.include) == 0 || slices.ContainsFunc(m.include, holds)) && !slices.ContainsFunc(m.exclude, holds)
}

func parseTerms(list []string) (out []terms, err error) {
	for _, s := range list {
		ts, err := parseMatch(s)
		if err != nil {
			return nil, err
		}
		out = append(out, ts)
	}
	return out, nil
}

// parseMatch reads "namespace=prod & process=java*".
func parseMatch(s string) (ts terms, err error) {
	for part := range strings.SplitSeq(s, "&") {
		label, pattern, ok := strings.Cut(part, "=")
		label, pattern = strings.TrimSpace(label), strings.TrimSpace(pattern)
		if !ok || pattern == "" {
			return nil, fmt.Errorf("%q: write label=pattern, and & between several", s)
		}
		if names := signal.ProfileLabelNames(); !slices.Contains(names, label) {
			return nil, fmt.Errorf("%q: the labels are %s%s", s, strings.Join(names, ", "), didYouMean(label, names))
		}
		ts = append(ts, term{label, strings.Split(pattern, "*")})
	}
	return ts, nil
}

// like tells whether s is the parts with anything between them.
func like(s string, parts []string) bool {
	first, last := parts[0], parts[len(parts)-1]
	if len(parts) == 1 {
		return s == first
	}
	if len(s) < len(first)+len(last) || !strings.HasPrefix(s, first) || !strings.HasSuffix(s, last) {
		return false
	}
	s = s[len(first) : len(s)-len(last)]
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(s, p)
		if i < 0 {
			return false
		}
		s = s[i+len(p):]
	}
	return true
}
