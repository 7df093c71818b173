package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

const prefix = "huatuo_bamai_"

var containerName = regexp.MustCompile(`_container_`)

// selector of the series that 2.x had: those of containers.
const selector = `container!~"|other"`

// full is the rule's expression: the row's, with 2.x's labels added.
func (r row) full() string {
	e := strings.NewReplacer(", C}", ", "+selector+"}", "{C,", "{"+selector+",", "{C}", "{"+selector+"}", "{}", "", " without ()", "").Replace(r.expr)
	e = withoutSum.ReplaceAllString(e, "$1")
	if r.container() {
		for _, l := range [][2]string{{"container_host", "pod"}, {"container_hostnamespace", "namespace"}, {"container_name", "container"}} {
			e = fmt.Sprintf(`label_replace(%s, "%s", "$1", "%s", "(.*)")`, e, l[0], l[1])
		}
	}
	return fmt.Sprintf(`label_replace(%s, "host", "$1", "instance", "(.+?)(:[0-9]+)?")`, e)
}

// withoutSum finds sums over nothing, which a histogram without own labels makes.
var withoutSum = regexp.MustCompile(`sum \((huatuo_[a-z_]+(?:\{[^}]*\})?)\)`)

func (r row) allLabels() map[string]string {
	out := maps.Clone(r.labels)
	if out == nil {
		out = map[string]string{}
	}
	if r.container() {
		out["container_type"] = "normal"
	}
	return out
}

// rules renders the rule file.
func rules() string {
	var b strings.Builder
	b.WriteString("# Written by `go run ./tools/bamai`. Do not edit.\n")
	b.WriteString("# Names of HUATUO 2.x for metrics that both have: docs/guide/huatuo2.md. Load it only while something needs them.\n")
	b.WriteString("groups:\n")
	for _, g := range table() {
		fmt.Fprintf(&b, "  - name: huatuo-bamai-%s\n    rules:\n", g.name)
		for _, r := range g.rows {
			if r.expr == "" {
				continue
			}
			fmt.Fprintf(&b, "      - record: %s%s\n        expr: >-\n          %s\n", prefix, r.old, r.full())
			if l := r.allLabels(); len(l) > 0 {
				var kv []string
				for _, k := range slices.Sorted(maps.Keys(l)) {
					kv = append(kv, fmt.Sprintf("%s: %q", k, l[k]))
				}
				fmt.Fprintf(&b, "        labels: {%s}\n", strings.Join(kv, ", "))
			}
		}
	}
	return b.String()
}

const intro = `<!-- Written by ` + "`go run ./tools/bamai`" + `. Do not edit. -->
# Coming from HUATUO 2.x

Metrics have new names: base units, ` + "`_total`" + ` for what only grows, histograms instead of a few counts. Dashboards and alerts that were made for
HUATUO 2.x go on with [huatuo-bamai-compat.yaml](../../deploy/prometheus-rules/huatuo-bamai-compat.yaml): recording rules that give the same
values the old names. Load the file in Prometheus beside the others, and leave it out again once nothing reads the old names: it doubles what it covers.

` + "```yaml" + `
scrape_configs:
  - job_name: huatuo
    static_configs:
      - targets: ["node1:19704"]
        labels: {region: dev}   # 2.x set it in the agent's configuration
rule_files: [prometheus-rules/*.yaml]
` + "```" + `

What is the same for all of them:

- ` + "`host`" + ` is the target's name without its port, ` + "`region`" + ` the label that the scrape configuration gives.
- Series of containers have ` + "`container_host`" + ` (the pod), ` + "`container_hostnamespace`" + `, ` + "`container_name`" + ` and ` + "`container_type=\"normal\"`" + `;
  ` + "`container_level`" + ` is missing: join with ` + "`qos`" + ` of ` + "`huatuo_container_info`" + `. The new labels are there as well. Sandboxes and sidecars are not told apart.
- A counter is a recorded series: it has no type, and ` + "`rate()`" + ` works on it as before.
- Values are as old as the rule's evaluation, up to a minute by default.

`

// guide renders the page.
func guide() string {
	var b strings.Builder
	b.WriteString(intro)
	b.WriteString("## Covered\n\n| HUATUO 2.x | made of | differences |\n|---|---|---|\n")
	seen := map[string]bool{}
	for _, g := range table() {
		for _, r := range g.rows {
			if r.expr == "" || seen[r.old] {
				continue
			}
			seen[r.old] = true
			fmt.Fprintf(&b, "| `%s%s` | %s | %s |\n", prefix, r.old, strings.Join(sources(r), ", "), r.note)
		}
	}
	b.WriteString("\n## Not covered\n\n| HUATUO 2.x | why |\n|---|---|\n")
	for _, g := range table() {
		for _, r := range g.rows {
			if r.expr == "" {
				fmt.Fprintf(&b, "| `%s%s` | %s |\n", prefix, r.old, r.note)
			}
		}
	}
	return b.String()
}

var metricName = regexp.MustCompile(`huatuo_[a-z0-9_]+`)

// sources are the metrics that a row is made of.
func sources(r row) []string {
	var out []string
	for _, n := range metricName.FindAllString(r.expr, -1) {
		for _, suffix := range []string{"_bucket", "_count", "_sum"} {
			n = strings.TrimSuffix(n, suffix)
		}
		if n = "`" + n + "`"; !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}
