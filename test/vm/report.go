package main

import (
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// outcome is how one suite did in one guest.
type outcome struct {
	suite   string
	code    int
	took    time.Duration
	passed  int
	skipped []skipped
	failed  []string
	log     []string
}

type skipped struct{ test, reason string }

// machine is one guest's report.
type machine struct {
	k       kernel
	release string
	gone    bool // the archive has lost the kernel
	err     error
	took    time.Duration
	suites  []*outcome
	again   []string        // suites that failed at first
	log     string          // what the name of its console's file has besides the kernel's
	result  json.RawMessage // what its agent told about itself

	current *outcome
	began   float64
	test    string            // whose log lines come
	last    map[string]string // test → its last log line
}

var (
	testEnd = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+) \(`)
	testRun = regexp.MustCompile(`^=== (?:RUN|NAME|CONT)\s+(\S+)`)
	logLine = regexp.MustCompile(`^\s+\w+\.go:\d+: (.*)`)
)

// add takes one event of the guest and returns a suite that is complete with it.
func (m *machine) add(e event) *outcome {
	f := strings.Fields(e.rest)
	switch {
	case e.what == "UP" && len(f) > 0:
		m.release = f[0]
	case e.what == "BEGIN" && len(f) == 2:
		m.current = &outcome{suite: f[0], code: -1}
		m.suites = append(m.suites, m.current)
		m.began, _ = strconv.ParseFloat(f[1], 64)
		m.test, m.last = "", map[string]string{}
	case e.what == "END" && len(f) == 3 && m.current != nil:
		o := m.current
		m.current = nil
		o.code, _ = strconv.Atoi(f[1])
		end, _ := strconv.ParseFloat(f[2], 64)
		o.took = time.Duration((end - m.began) * float64(time.Second))
		return o
	case e.what == "RESULT":
		m.result = json.RawMessage(e.rest)
	case e.what == "" && m.current != nil:
		m.line(e.line)
	}
	return nil
}

func (m *machine) line(s string) {
	o := m.current
	o.log = append(o.log, s)
	if r := testRun.FindStringSubmatch(s); r != nil {
		m.test = r[1]
	} else if r := testEnd.FindStringSubmatch(s); r != nil {
		switch r[1] {
		case "PASS":
			o.passed++
		case "FAIL":
			o.failed = append(o.failed, r[2])
		case "SKIP":
			o.skipped = append(o.skipped, skipped{r[2], m.last[r[2]]})
		}
	} else if r := logLine.FindStringSubmatch(s); r != nil {
		m.last[m.test] = r[1]
	}
}

// problems are what makes the suite fail.
func (o *outcome) problems(k kernel) []string {
	var out []string
	switch {
	case o.code == 124 || o.code == 137 || o.code == 143:
		out = append(out, "timed out")
	case o.code != 0:
		out = append(out, fmt.Sprintf("exit status %d: %s", o.code, strings.Join(o.failed, ", ")))
	case o.passed == 0 && len(o.skipped) == 0:
		out = append(out, "no test ran")
	}
	for _, s := range o.skipped {
		if !mayskip(k, o.suite+":"+s.test, s.reason) {
			out = append(out, fmt.Sprintf("%s skips itself, which no rule in test/vm/kernels.go allows: %s", s.test, s.reason))
		}
	}
	return out
}

// printer writes lines of several guests without mixing them.
type printer struct {
	mu sync.Mutex
	w  io.Writer
}

// suite writes a suite's line, and its log when it failed.
func (p *printer) suite(k kernel, o *outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	bad := o.problems(k)
	word := "ok"
	if len(bad) > 0 {
		word = "FAIL"
	}
	count := fmt.Sprintf("%d passed", o.passed)
	if n := len(o.skipped); n > 0 {
		count += fmt.Sprintf(", %d skipped", n)
	}
	fmt.Fprintf(p.w, "%-5s %-13s %-28s %6.1fs  %s\n", word, k.name, o.suite, o.took.Seconds(), count)
	if len(bad) == 0 {
		for _, s := range o.skipped {
			fmt.Fprintf(p.w, "      %-13s %s: %s\n", "", s.test, s.reason)
		}
		return
	}
	for _, l := range o.log {
		fmt.Fprintf(p.w, "      | %s\n", l)
	}
	for _, l := range bad {
		fmt.Fprintf(p.w, "      %s\n", l)
	}
}

// failing lists the suites that failed, and those that a guest which went away
// did not come to.
func (m *machine) failing(all []suite, smoke bool) []string {
	if m.gone {
		return nil
	}
	var names []string
	for _, s := range all {
		if m.k.runs(s.pkg) {
			names = append(names, s.pkg)
		}
	}
	if smoke && len(m.k.smoke) > 0 {
		names = append(names, smokePkg)
	}
	return slices.DeleteFunc(names, func(n string) bool {
		i := slices.IndexFunc(m.suites, func(o *outcome) bool { return o.suite == n })
		return i >= 0 && len(m.suites[i].problems(m.k)) == 0
	})
}

// merge takes the outcomes of a second guest in place of the first's.
func (m *machine) merge(second *machine) {
	for _, o := range second.suites {
		m.again = append(m.again, o.suite)
		if i := slices.IndexFunc(m.suites, func(was *outcome) bool { return was.suite == o.suite }); i >= 0 {
			m.suites[i] = o
		} else {
			m.suites = append(m.suites, o)
		}
	}
	if second.result != nil {
		m.result = second.result
	}
	m.took += second.took
}

// bad tells whether the machine's run is a failure.
func (m *machine) bad() bool {
	if m.gone {
		return false
	}
	if m.err != nil || len(m.suites) == 0 {
		return true
	}
	for _, o := range m.suites {
		if len(o.problems(m.k)) > 0 {
			return true
		}
	}
	return false
}

// summary writes a line for each machine and tells whether all is well. A run
// in which every kernel was gone has tested nothing, which is not well.
func summary(w io.Writer, ms []*machine) bool {
	fmt.Fprintln(w)
	ran, failed := 0, 0
	for _, m := range ms {
		word := "ok"
		switch {
		case m.gone:
			fmt.Fprintf(w, "SKIP  %-13s its packages are gone from the archive (404): %v\n", m.k.name, m.err)
			continue
		case m.bad():
			word = "FAIL"
			failed++
		}
		ran++
		fmt.Fprintf(w, "%-5s %-13s %s, %s, control groups %s, %d CPU  %.1fs\n", word, m.k.name, m.release, m.k.arch, m.k.cgroup, m.k.cpus, m.took.Seconds())
		if m.err != nil {
			fmt.Fprintf(w, "      %v\n", m.err)
		}
		if len(m.again) > 0 {
			fmt.Fprintf(w, "      ran in a second guest: %s\n", strings.Join(m.again, ", "))
		}
	}
	if failed > 0 || ran == 0 {
		fmt.Fprintf(w, "FAIL  %d of %d kernels\n", failed, ran)
		return false
	}
	fmt.Fprintf(w, "PASS  %d kernels\n", ran)
	return true
}
