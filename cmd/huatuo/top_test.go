package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"huatuo/internal/diagnose/checkup"
	"huatuo/internal/diagnose/top"
	"huatuo/internal/diagnose/window"
	"huatuo/internal/probe"
	"huatuo/internal/probes"
	sig "huatuo/internal/signal"
)

// TestPage: what is drawn fits the screen, whatever its size.
func TestPage(t *testing.T) {
	s := &sig.Schema{Name: "huatuo_container_cpu_usage_seconds_total", Type: sig.Counter, Scope: sig.Workload}
	var samples []sig.Sample
	for i := range 40 {
		samples = append(samples, sig.Sample{Schema: s, Value: float64(i), Labels: []string{"", "", "", fmt.Sprintf("a-unit-with-a-rather-long-name-%d.service", i)}})
	}
	r := &topRun{sort: "cpu", idle: 2, view: top.New(window.New(nil, samples, 1), time.Now(), 4, nil)}
	for range 3 {
		r.newest = append(r.newest, &sig.Document{Kind: "sched_stall", Title: strings.Repeat("very long ", 30)})
	}
	escapes := regexp.MustCompile("\x1b\\[[0-9;]*m")
	for _, width := range []int{40, 80, 120, 200} {
		for _, height := range []int{10, 24, 60} {
			lines := r.page(width, height, true)
			if len(lines) > height {
				t.Errorf("%dx%d: %d lines", width, height, len(lines))
			}
			for _, l := range lines {
				if n := utf8.RuneCountInString(escapes.ReplaceAllString(l, "")); n > width {
					t.Errorf("%dx%d: %d columns: %q", width, height, n, l)
				}
			}
			if all := strings.Join(lines, "\n"); !strings.Contains(all, reverse+top.Head) || !strings.Contains(all, "39.service") || !strings.Contains(all, "sched_stall") {
				t.Errorf("%dx%d: something is missing\n%s", width, height, all)
			}
		}
	}
}

func TestTopKeys(t *testing.T) {
	r := &topRun{sort: "cpu"}
	if !r.choose('w') || r.sort != "wait" || r.choose('z') || r.sort != "wait" {
		t.Errorf("sorts by %s", r.sort)
	}
}

// TestTopProbes: the probes of every column run, and those that make nothing that
// is shown do not.
func TestTopProbes(t *testing.T) {
	made, idle := map[string]bool{}, 0
	for _, s := range probes.All() {
		if !wanted(s) {
			idle++
			continue
		}
		for _, e := range s.Emits {
			made[e.Name] = true
		}
	}
	for _, m := range top.Metrics() {
		if !made[m] {
			t.Errorf("no probe that runs makes %s", m)
		}
	}
	if idle == 0 {
		t.Error("every probe runs")
	}
	if wanted(probe.Spec{Meta: probe.Meta{Emits: []*sig.Schema{{Kind: sig.Event, Severity: sig.Info}, {Kind: sig.Metric, Name: "x"}}}}) {
		t.Error("a probe of markers is run")
	}
}

// TestRulesAreMeasured: every metric and event that a rule of the checkup looks at
// is made by a probe.
func TestRulesAreMeasured(t *testing.T) {
	made := map[string]bool{}
	for _, s := range probes.All() {
		for _, e := range s.Emits {
			made[e.Name] = true
		}
	}
	for _, r := range checkup.Rules() {
		for _, m := range slices.Concat(r.Metrics, r.Kinds) {
			if !made[m] {
				t.Errorf("%s looks at %s, which no probe makes", r.Name, m)
			}
		}
	}
}

func TestExitCode(t *testing.T) {
	for want, err := range map[int]error{0: nil, 1: sick("warning"), 2: sick("critical")} {
		if err == nil && sick("healthy") != nil || err != nil && exitCode(fmt.Errorf("x: %w", err)) != want {
			t.Errorf("%v: want %d", err, want)
		}
	}
	if exitCode(errUsage{errors.New("x")}) != 2 || exitCode(errors.New("x")) != 1 {
		t.Error("of other errors")
	}
}

// TestCollected: the oldest events go when there are too many.
func TestCollected(t *testing.T) {
	var c collected
	for i := range maxCollected + 10 {
		severity := sig.Warning
		if i == 0 {
			severity = sig.Info
		}
		if err := c.Deliver(t.Context(), []*sig.Document{{ID: fmt.Sprint(i), Severity: severity, Container: &sig.Container{Unit: "a"}}}); err != nil {
			t.Fatal(err)
		}
	}
	all, counts := c.all()
	if len(all) != maxCollected || all[0].ID != "10" || counts[window.Workload{Unit: "a"}] != maxCollected+9 {
		t.Errorf("%d kept, from %s, of %v", len(all), all[0].ID, counts)
	}
}
