package top

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"huatuo/internal/signal"
)

// column is one column of the table.
type column struct {
	name  string
	order string // the order that sorts by it
	width int
	// drop says which go first when the screen is narrow: the largest.
	drop int
	text func(*Row) string
}

func columns() []column {
	return []column{
		{"CPU", "cpu", 5, 0, func(r *Row) string { return cores(r.CPU) }},
		{"WAIT", "wait", 5, 1, func(r *Row) string { return cores(r.Wait) }},
		{"BLAME", "blame", 5, 2, func(r *Row) string { return cores(r.Blame) }},
		{"THR%", "throttled", 4, 3, func(r *Row) string { return percent(r.Throttled) }},
		{"MEM", "memory", 5, 4, func(r *Row) string { return size(r.Memory) }},
		{"LIM%", "", 4, 6, func(r *Row) string {
			if r.Memory == nil || val(r.MemoryLimit) == 0 {
				return "-"
			}
			return percent(ptr(*r.Memory / *r.MemoryLimit))
		}},
		{"READ/s", "io", 6, 7, func(r *Row) string { return size(r.Read) }},
		{"WRIT/s", "io", 6, 7, func(r *Row) string { return size(r.Write) }},
		{"IO99", "latency", 5, 8, func(r *Row) string { return short(r.Latency) }},
		{"PSI c/m/i", "", 9, 10, func(r *Row) string {
			if r.Pressure == nil {
				return "-"
			}
			return fmt.Sprintf("%.0f/%.0f/%.0f", r.Pressure.CPU*100, r.Pressure.Memory*100, r.Pressure.IO*100)
		}},
		{"RETR/s", "network", 6, 11, func(r *Row) string { return rate(r.Retransmits) }},
		{"DROP/s", "network", 6, 11, func(r *Row) string { return rate(r.Drops) }},
		{"EVENT", "events", 5, 5, func(r *Row) string { return count(r.Events) }},
	}
}

// Head begins the line with the names of the columns.
const Head = "WORKLOAD"

const (
	leastName    = 20 // columns of a workload's name at least
	leastCulprit = 24 // likewise of a culprit's: with less it is left out
	mostCulprit  = 40
	culpritDrop  = 9 // columns with a larger drop make room for the culprit
)

// Text returns the view as lines of at most width columns: the host, and at most
// rows workloads, with the column that they are sorted by marked.
func (v *View) Text(width, rows int, order string) []string {
	lines := v.Host.text(width)
	cols, name, culprit := layout(v.Workload, width)
	head := pad(Head, name)
	for _, c := range cols {
		h := c.name
		if c.order == order && order != "" && !strings.Contains(head, "*") {
			h = "*" + h
		}
		head += " " + right(h, c.width)
	}
	if culprit > 0 {
		head += "  CULPRIT"
	}
	lines = append(lines, "", strings.TrimRight(head, " "))
	for i := range v.Workload[:min(rows, len(v.Workload))] {
		r := &v.Workload[i]
		line := pad(cut(r.Name, name), name)
		for _, c := range cols {
			line += " " + right(c.text(r), c.width)
		}
		if culprit > 0 {
			line += "  " + cut(r.Culprit.String(), culprit)
		}
		lines = append(lines, strings.TrimRight(line, " "))
	}
	if more := len(v.Workload) - rows; more > 0 {
		lines = append(lines, fmt.Sprintf("%d more", more))
	}
	return lines
}

// layout chooses the columns, and how wide the two of text are.
func layout(rows []Row, width int) (cols []column, name, culprit int) {
	longName, longCulprit := leastName, 0
	for i := range rows {
		longName = max(longName, utf8.RuneCountInString(rows[i].Name))
		longCulprit = max(longCulprit, utf8.RuneCountInString(rows[i].Culprit.String()))
	}
	cols = columns()
	used := func() int {
		n := leastName
		for _, c := range cols {
			n += 1 + max(c.width, len(c.name)+1)
		}
		return n
	}
	for i := range cols {
		cols[i].width = max(cols[i].width, len(cols[i].name)+1) // the mark
	}
	for used() > width && len(cols) > 1 {
		cols = narrower(cols)
	}
	for longCulprit > 0 && width-used()-2 < leastCulprit && worst(cols) > culpritDrop {
		cols = narrower(cols)
	}
	spare := width - used()
	if longCulprit > 0 && spare-2 >= leastCulprit {
		culprit = min(longCulprit, mostCulprit, spare-2)
		spare -= culprit + 2
	}
	return cols, min(longName, leastName+max(spare, 0)), culprit
}

func worst(cols []column) (drop int) {
	for _, c := range cols {
		drop = max(drop, c.drop)
	}
	return drop
}

// narrower leaves out the columns that matter least.
func narrower(cols []column) []column {
	drop := worst(cols)
	return slices.DeleteFunc(cols, func(c column) bool { return c.drop == drop })
}

// text tells of the host in one line, or more when it is narrow.
func (h *Host) text(width int) []string {
	parts := []string{fmt.Sprintf("%d CPUs", h.CPUs)}
	if h.Busy != nil {
		parts = append(parts, "busy "+percent(h.Busy)+"%")
		if *h.Steal >= 0.005 {
			parts = append(parts, "stolen "+percent(h.Steal)+"%")
		}
	}
	if h.Load1 != nil {
		parts = append(parts, fmt.Sprintf("load %.2f", *h.Load1))
	}
	if h.WaitP99 != nil {
		parts = append(parts, "run-queue p99 "+short(h.WaitP99))
	}
	if h.MemoryTotal != nil {
		parts = append(parts, fmt.Sprintf("memory %s of %s", size(h.MemoryUsed), size(h.MemoryTotal)))
	}
	if p := h.Pressure; p != nil {
		parts = append(parts, fmt.Sprintf("pressure cpu %.0f%% memory %.0f%% io %.0f%%", p.CPU*100, p.Memory*100, p.IO*100))
	}
	lines := []string{parts[0]}
	for _, p := range parts[1:] {
		last := &lines[len(lines)-1]
		if len(*last)+2+len(p) > width {
			lines = append(lines, p)
			continue
		}
		*last += ", " + p
	}
	return lines
}

// String tells who it is, and for how much of the time.
func (c *Culprit) String() string {
	if c == nil {
		return ""
	}
	name := c.Name
	switch c.Kind {
	case signal.PeerWorkload:
	case signal.PeerSelf:
		name = "itself"
	case "quota":
		name = "its quota"
	case "idle":
		name = "idle CPUs"
	default:
		name = c.Kind
	}
	s := fmt.Sprintf("%.0f%% %s", c.Share*100, name)
	if c.Command != "" {
		s += " (" + c.Command + ")"
	}
	return s
}

func cores(p *float64) string {
	if p == nil {
		return "-"
	}
	if *p < 0.005 {
		return "0"
	}
	return fixed(*p, 2)
}

// fixed writes a number with fewer decimals the larger it is.
func fixed(v float64, decimals int) string {
	switch {
	case v >= 100:
		decimals = 0
	case v >= 10:
		decimals = min(decimals, 1)
	}
	return strconv.FormatFloat(v, 'f', decimals, 64)
}

func percent(p *float64) string {
	if p == nil {
		return "-"
	}
	return strconv.FormatFloat(*p*100, 'f', 0, 64)
}

func rate(p *float64) string {
	switch {
	case p == nil:
		return "-"
	case *p == 0:
		return "0"
	case *p < 0.1:
		return "<0.1"
	}
	return fixed(*p, 1)
}

func count(n int) string {
	if n == 0 {
		return "-"
	}
	return strconv.Itoa(n)
}

// size writes bytes in five columns.
func size(p *float64) string {
	if p == nil {
		return "-"
	}
	v, unit := *p, ""
	for _, u := range []string{"K", "M", "G", "T", "P"} {
		if v < 1000 {
			break
		}
		v, unit = v/1024, u
	}
	if unit == "" || v >= 10 {
		return strconv.FormatFloat(v, 'f', 0, 64) + unit
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + unit
}

// short writes a time in five columns.
func short(p *float64) string {
	switch {
	case p == nil:
		return "-"
	case *p < 1e-3:
		return strconv.FormatFloat(*p*1e6, 'f', 0, 64) + "us"
	case *p < 1:
		return strings.TrimSuffix(fixed(*p*1e3, 1), ".0") + "ms"
	}
	return fixed(*p, 1) + "s"
}

func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s)))
}

func right(s string, width int) string {
	return strings.Repeat(" ", max(0, width-utf8.RuneCountInString(s))) + s
}

// cut shortens a name in its middle: both ends tell most.
func cut(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	head := (width - 1) / 2
	return string(r[:head]) + "…" + string(r[len(r)-(width-1-head):])
}
