package config

import (
	"strings"
	"testing"

	"huatuo/internal/signal"
)

func TestProfileMatch(t *testing.T) {
	web := &signal.ProfileLabels{Namespace: "prod", Pod: "web-7f", Container: "web", Process: "java", Thread: "GC Thread#0"}
	host := &signal.ProfileLabels{Process: "sshd", Unit: "ssh.service"}
	for _, c := range []struct {
		include, exclude string // separated by commas
		web, host        bool
	}{
		{"", "", true, true},
		{"namespace=prod", "", true, false},
		{"namespace=*", "", true, true}, // also none
		{"namespace=p*d", "", true, false},
		{"pod=web-*", "", true, false},
		{"pod=*7f", "", true, false},
		{"pod=w*-*f", "", true, false},
		{"pod=w*x*f", "", false, false},
		{"pod=web-7f*7f", "", false, false}, // nothing of it twice
		{"unit=ssh.service,process=java", "", true, true},
		{"namespace=prod&process=python", "", false, false},
		{"namespace = prod & process = ja*", "", true, false},
		{"", "process=java", false, true},
		{"namespace=prod", "thread=GC *", false, false},
		{"", "namespace=prod&process=python", true, true},
	} {
		split := func(s string) []string {
			if s == "" {
				return nil
			}
			return strings.Split(s, ",")
		}
		m, err := NewProfileMatch(split(c.include), split(c.exclude))
		if err != nil {
			t.Errorf("%q, %q: %v", c.include, c.exclude, err)
			continue
		}
		if w, h := m.Has(web), m.Has(host); w != c.web || h != c.host {
			t.Errorf("include %q, exclude %q: web %v, host %v; want %v, %v", c.include, c.exclude, w, h, c.web, c.host)
		}
	}
}

func TestProfileMatchRefused(t *testing.T) {
	for in, want := range map[string]string{
		"web":                  "write label=pattern",
		"container=":           "write label=pattern",
		"namespace=a&":         "write label=pattern",
		"contianer=web":        `did you mean "container"?`,
		"container=a & pid=12": "the labels are namespace",
	} {
		for _, lists := range [][2][]string{{{in}, nil}, {nil, {in}}} {
			if _, err := NewProfileMatch(lists[0], lists[1]); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want %q", in, err, want)
			}
		}
	}
}
