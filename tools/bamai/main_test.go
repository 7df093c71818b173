package main

import (
	"os"
	"strings"
	"testing"
)

// TestFresh: the files are what the table says.
func TestFresh(t *testing.T) {
	for file, want := range map[string]string{rulesFile: rules(), guideFile: guide()} {
		have, err := os.ReadFile("../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		if string(have) != want {
			t.Errorf("%s is stale: run `go run ./tools/bamai`", file)
		}
	}
}

// TestTable: each old name is there once, or once with each set of labels, and
// says why when nothing makes it.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for _, g := range table() {
		for _, r := range g.rows {
			key := r.old
			for _, l := range []string{"zone", "type"} {
				key += " " + r.labels[l]
			}
			if seen[key] {
				t.Errorf("%s is there twice", key)
			}
			seen[key] = true
			if r.expr == "" && r.note == "" {
				t.Errorf("%s: nothing makes it, and nobody says why", r.old)
			}
			if strings.Contains(r.full(), "{C") || strings.Contains(r.full(), "C}") {
				t.Errorf("%s: %s", r.old, r.full())
			}
			if r.container() && r.expr != "" && !strings.Contains(r.full(), selector) {
				t.Errorf("%s is not limited to containers: %s", r.old, r.full())
			}
		}
	}
}

func TestFull(t *testing.T) {
	const host = `, "host", "$1", "instance", "(.+?)(:[0-9]+)?")`
	const names = `, "container_host", "$1", "pod", "(.*)"), "container_hostnamespace", "$1", "namespace", "(.*)"), "container_name", "$1", "container", "(.*)")`
	for _, c := range []struct {
		r    row
		want string
	}{
		{row{old: "x", expr: "huatuo_x"}, `label_replace(huatuo_x` + host},
		{row{old: "y_container_x", expr: `huatuo_x{kind="a", C}`}, `label_replace(label_replace(label_replace(label_replace(huatuo_x{kind="a", container!~"|other"}` + names + host},
		{zones("x", "huatuo_h", "", "op", "", nil, zone{"0", "1", "", "2"})[0],
			`label_replace(sum without (op, le) (huatuo_h_bucket{le="2"}) or histogram_fraction(0, 1, sum without (op) (huatuo_h)) * histogram_count(sum without (op) (huatuo_h))` + host},
		{zones("x", "huatuo_h", "", "", "", nil, zone{"1", highest, "2", highest})[0],
			`label_replace(huatuo_h_count - sum without (le) (huatuo_h_bucket{le="2"}) or histogram_fraction(1, +Inf, huatuo_h) * histogram_count(huatuo_h)` + host},
		{zones("x", "huatuo_h", "", "op", "", nil, zone{"1", "2", "", ""})[0],
			`label_replace(histogram_fraction(1, 2, sum without (op) (huatuo_h)) * histogram_count(sum without (op) (huatuo_h))` + host},
	} {
		if got := c.r.full(); got != c.want {
			t.Errorf("full:\n%s, want\n%s", got, c.want)
		}
	}
}
