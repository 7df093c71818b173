package main

import "fmt"

// row is one metric of HUATUO 2.x.
type row struct {
	old    string            // without huatuo_bamai_
	expr   string            // what makes it; empty: nothing does. {C} stands for the selector of containers
	labels map[string]string // that the rule adds
	note   string            // how it differs, or why there is none
}

// group is a part of the page, and a rule group.
type group struct {
	name string
	rows []row
}

// container tells whether a row is per container: its names say so.
func (r row) container() bool { return containerName.MatchString(r.old) }

// same are metrics that only have another name.
func same(pairs ...string) []row {
	var rows []row
	for i := 0; i < len(pairs); i += 2 {
		rows = append(rows, row{old: pairs[i], expr: pairs[i+1]})
	}
	return rows
}

// absent are metrics that are not made, all for one reason.
func absent(why string, names ...string) []row {
	var rows []row
	for _, n := range names {
		rows = append(rows, row{old: n, note: why})
	}
	return rows
}

// pages are counts of 4 KiB pages that are bytes now.
func pages(pairs ...string) []row {
	rows := same(pairs...)
	for i := range rows {
		rows[i].expr += " / 4096"
		rows[i].note = "pages of 4 KiB, whatever the kernel's page size"
	}
	return rows
}

// zone is a range of a histogram in seconds, with the classic bounds nearest
// to it; 0 is no lower, and highest no upper bound.
type zone struct{ low, high, classicLow, classicHigh string }

const highest = "+Inf"

// zones are the rows of a histogram that was a few counts. Classic buckets
// cannot be cut where the counts were; native ones are interpolated.
func zones(old, hist, matchers, without, note string, extra map[string]string, zs ...zone) []row {
	var rows []row
	for i, z := range zs {
		all := func(suffix, le string) string {
			m, w := matchers, without
			if le != "" {
				m, w = join(m, fmt.Sprintf("le=%q", le)), join(w, "le")
			}
			return fmt.Sprintf("sum without (%s) (%s%s{%s})", w, hist, suffix, m)
		}
		native := fmt.Sprintf("histogram_fraction(%s, %s, %s) * histogram_count(%s)", z.low, z.high, all("", ""), all("", ""))
		if z.low == "0" {
			native = fmt.Sprintf("histogram_fraction(0, %s, %s) * histogram_count(%s)", z.high, all("", ""), all("", ""))
		}
		expr := native
		switch {
		case z.classicHigh == "":
		case z.low == "0":
			expr = all("_bucket", z.classicHigh) + " or " + native
		case z.classicHigh == highest:
			expr = all("_count", "") + " - " + all("_bucket", z.classicLow) + " or " + native
		default:
			expr = all("_bucket", z.classicHigh) + " - " + all("_bucket", z.classicLow) + " or " + native
		}
		labels := map[string]string{"zone": fmt.Sprint(i)}
		for k, v := range extra {
			labels[k] = v
		}
		rows = append(rows, row{old: old, expr: expr, labels: labels, note: note})
	}
	return rows
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + ", " + b
}

// relabel gives rows a label of 2.x beside ours of the same value.
func relabel(old, ours string, rows []row) []row {
	for i := range rows {
		rows[i].expr = fmt.Sprintf(`label_replace(%s, "%s", "$1", "%s", "(.+)")`, rows[i].expr, old, ours)
	}
	return rows
}

// renamed is same, with a label of another name.
func renamed(old, ours string, pairs ...string) []row { return relabel(old, ours, same(pairs...)) }

// tcpExt are the fields of /proc/net/netstat that are metrics of their own.
func tcpExt(pairs ...string) []row {
	var rows []row
	for i := 0; i < len(pairs); i += 2 {
		rows = append(rows, row{old: "netstat_TcpExt_" + pairs[i], expr: pairs[i+1]})
	}
	return rows
}

func concat(parts ...[]row) []row {
	var all []row
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}
