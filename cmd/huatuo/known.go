package main

import (
	"fmt"
	"strings"

	"huatuo/internal/app"
	"huatuo/internal/config"
	"huatuo/internal/diagnose/checkup"
	"huatuo/internal/diagnose/known"
)

// knownIssues is what `huatuo explain` calls the list of them.
const knownIssues = "known_issues"

// explainKnown prints what is known under a name, or all of it; false when
// nothing of that name is.
func (c *cli) explainKnown(cfg *config.Config, name string) bool {
	found := false
	for _, is := range app.KnownIssues(cfg) {
		if name != knownIssues && name != is.Name {
			continue
		}
		if found {
			fmt.Fprintln(c.out)
		}
		found = true
		fmt.Fprintf(c.out, "%s\n    %s\n", is.Name, is.Label)
		for _, l := range knownMatch(&is) {
			fmt.Fprintf(c.out, "    %s\n", l)
		}
		if is.URL != "" {
			fmt.Fprintf(c.out, "    %s\n", is.URL)
		}
	}
	return found || name == knownIssues
}

// knownMatch tells what an event must be like, and what is then done.
func knownMatch(is *known.Issue) []string {
	var out []string
	for _, m := range []struct{ what, expr string }{
		{"events", strings.Join(is.Kinds, ", ")}, {"title", is.Title}, {"stack", is.Stack}, {"process", is.Process},
		{"fields", strings.Join(is.Fields, ", ")}, {"action", is.Action},
	} {
		if m.expr != "" {
			out = append(out, m.what+": "+m.expr)
		}
	}
	return out
}

// knownPage is the page of the built-in known issues.
func knownPage() string {
	var b strings.Builder
	b.WriteString("An event that is an instance of one of these carries its name in `known`. None is hidden: whether a file server that does not answer is normal, only " +
		"its owner can tell. The key `known_issues` of the [configuration](config.md) adds others, and can suppress events, which are then counted as dropped with the reason " +
		"`known_issue`. An entry of the same name stands in for a built-in one; with `action: off` it turns it off.\n\n")
	b.WriteString("```yaml\nknown_issues:\n  - name: nightly_backup\n    kinds: [io_stall]\n    process: \"^restic$\"\n    label: The backup, which may wait.\n    action: suppress\n" +
		"  - name: nfs_server\n    action: off\n```\n\n")
	b.WriteString("| name | events | a function in a stack matches | what is known | source |\n|---|---|---|---|---|\n")
	for _, is := range known.Builtin() {
		fmt.Fprintf(&b, "| `%s` | %s | `%s` | %s | [link](%s) |\n", is.Name, strings.Join(is.Kinds, ", "), strings.ReplaceAll(is.Stack, "|", `\|`), is.Label, is.URL)
	}
	return b.String()
}

// checkupPage is the page of the rules of `huatuo checkup`.
func checkupPage() string {
	var b strings.Builder
	b.WriteString("`sudo huatuo checkup` observes for half a minute (`--for`) and applies these rules. Its exit code is 0 when nothing is wrong, 1 with a warning, and 2 with something " +
		"critical. What this kernel does not tell is listed as not measured, never as fine.\n\n")
	b.WriteString("| rule | area | what is measured | from when it is told, and why | what to do |\n|---|---|---|---|---|\n")
	for _, r := range checkup.Rules() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", r.Name, r.Area, cell(r.What), cell(r.Threshold), cell(r.Next))
	}
	return b.String()
}

// cell keeps a text within its cell of a table.
func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
