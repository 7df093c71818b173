package docgen

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func configPage(options []Option) []byte {
	p := newPage("Configuration")
	p.line("One YAML file (`--config FILE`; `/etc/huatuo/huatuo.yaml` when it exists), overridden by environment variables, overridden by flags. " +
		"An unknown key is an error. `huatuo config print` shows the configuration in force and where each value comes from; " +
		"[huatuo.yaml](huatuo.yaml) lists every key with its default.")
	p.line("The variable of a key is its name in capitals with `HUATUO_` before it and `_` for each dot: `store.dir` is `HUATUO_STORE_DIR`. " +
		"A list is separated by commas there. Durations are written `500ms`, `5s`, `1h30m`, `15d`; sizes `64KiB`, `512MiB`, `2GiB`. " +
		"Keys marked “SIGHUP” take effect when the agent gets that signal; the others need a restart.")
	var plain []Option
	byProbe := map[string][]Option{}
	for _, o := range options {
		if o.Probe == "" {
			plain = append(plain, o)
		} else {
			byProbe[o.Probe] = append(byProbe[o.Probe], o)
		}
	}
	p.options(plain)
	if len(byProbe) > 0 {
		p.line("## Probes")
	}
	for _, o := range options {
		if keys := byProbe[o.Probe]; keys != nil {
			p.line("### " + probeLink("probes/", o.Probe))
			p.options(keys)
			delete(byProbe, o.Probe)
		}
	}
	return p.bytes()
}

func (p *page) options(options []Option) {
	var rows [][]string
	for _, o := range options {
		when := ""
		if o.Reload {
			when = "SIGHUP"
		}
		rows = append(rows, []string{code(o.Key), o.Type, code(o.Default), code(o.Flag), when, o.Help, strings.ReplaceAll(o.Legal, ",", ", ")})
	}
	p.table([]string{"key", "type", "default", "flag", "changes on", "meaning", "legal values"}, rows)
}

func cliPage(root *cobra.Command) []byte {
	p := newPage("Command line")
	p.line("Every command also tells this with `--help`.")
	p.command(root)
	return p.bytes()
}

func (p *page) command(c *cobra.Command) {
	if c.Hidden {
		return
	}
	p.line("## " + c.CommandPath())
	text := c.Long
	if text == "" {
		text = c.Short
	}
	p.line(strings.TrimRight(text, ".") + ".")
	if c.Runnable() {
		p.block(c.UseLine())
	}
	if c.Example != "" {
		p.line("Examples:")
		p.block(c.Example)
	}
	p.flags(c)
	for _, sub := range c.Commands() {
		// cobra adds help and completion by itself when the program runs.
		if sub.Name() != "help" && sub.Name() != "completion" {
			p.command(sub)
		}
	}
}

// flags lists the flags of c. Those that it shares with the root, the
// configuration's, stand there.
func (p *page) flags(c *cobra.Command) {
	var rows [][]string
	shared := false
	c.NonInheritedFlags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		if r := c.Root().Flags().Lookup(f.Name); c != c.Root() && r != nil && r.Usage == f.Usage {
			shared = true
			return
		}
		rows = append(rows, flagRow(f))
	})
	p.table([]string{"flag", "default", "meaning"}, rows)
	if shared {
		p.line("It takes the configuration flags of [" + c.Root().Name() + "](#" + c.Root().Name() + ") as well.")
	}
}

func flagRow(f *pflag.Flag) []string {
	kind, usage := pflag.UnquoteUsage(f)
	name := "--" + f.Name
	if kind != "" {
		name += " " + kind
	}
	if f.Shorthand != "" {
		name = "-" + f.Shorthand + ", " + name
	}
	def := f.DefValue
	if def == "false" || def == "[]" || def == "0" || def == "0s" {
		def = ""
	}
	return []string{code(name), code(def), usage}
}

// block writes a literal block, without the indentation that its lines share.
func (p *page) block(s string) {
	lines := strings.Split(strings.Trim(s, "\n"), "\n")
	indent := len(lines[0]) - len(strings.TrimLeft(lines[0], " \t"))
	p.WriteString("```sh\n")
	for _, l := range lines {
		p.WriteString(strings.TrimRight(l[min(indent, len(l)-len(strings.TrimLeft(l, " \t"))):], " ") + "\n")
	}
	p.line("```")
}

// operation is what the API page needs of one OpenAPI operation.
type operation struct {
	Summary     string `json:"summary"`
	Description string `json:"description"`
	Parameters  []struct {
		Name        string `json:"name"`
		In          string `json:"in"`
		Required    bool   `json:"required"`
		Description string `json:"description"`
		Schema      struct {
			Type    any   `json:"type"` // a string, or in OpenAPI 3.1 a list of them
			Enum    []any `json:"enum"`
			Default any   `json:"default"`
		} `json:"schema"`
	} `json:"parameters"`
}

// methods in the order in which a path lists them.
var methods = [...]string{"get", "post", "put", "patch", "delete"}

func apiPage(openapi []byte) ([]byte, error) {
	var doc struct {
		Info struct {
			Description string `json:"description"`
		} `json:"info"`
		Paths map[string]map[string]json.RawMessage `json:"paths"`
	}
	if err := json.Unmarshal(openapi, &doc); err != nil {
		return nil, fmt.Errorf("read OpenAPI document: %w", err)
	}
	p := newPage("HTTP API")
	p.line("The [OpenAPI document](openapi.json) has the schemas of all answers; the agent serves it at `/openapi.json`.")
	if doc.Info.Description != "" {
		p.line(doc.Info.Description)
	}
	for _, path := range sortedKeys(doc.Paths) {
		for _, m := range methods {
			raw, ok := doc.Paths[path][m]
			if !ok {
				continue
			}
			var op operation
			if err := json.Unmarshal(raw, &op); err != nil {
				return nil, fmt.Errorf("read OpenAPI document: %s %s: %w", m, path, err)
			}
			p.operation(strings.ToUpper(m)+" "+path, op)
		}
	}
	return p.bytes(), nil
}

func (p *page) operation(heading string, op operation) {
	p.line("## " + heading)
	for _, s := range []string{op.Summary, op.Description} {
		if s != "" {
			p.line(strings.TrimRight(s, ".") + ".")
		}
	}
	var rows [][]string
	for _, a := range op.Parameters {
		need := ""
		if a.Required {
			need = "required"
		}
		kind := typeName(a.Schema.Type)
		def := ""
		if a.Schema.Default != nil {
			def = code(fmt.Sprint(a.Schema.Default))
		}
		var legal []string
		for _, v := range a.Schema.Enum {
			legal = append(legal, fmt.Sprint(v))
		}
		rows = append(rows, []string{code(a.Name), a.In, kind, need, def, a.Description, codes(legal)})
	}
	p.table([]string{"parameter", "in", "type", "", "default", "meaning", "legal values"}, rows)
}

// typeName reads an OpenAPI type; a list of them is a type that may be null.
func typeName(t any) string {
	switch t := t.(type) {
	case string:
		return t
	case []any:
		for _, v := range t {
			if v != "null" {
				return fmt.Sprint(v)
			}
		}
	}
	return ""
}

func indexPage(in In) []byte {
	p := newPage("Reference")
	p.line("Made from the code by `make gen`; a test fails when it is stale.")
	list := []string{
		"[Metrics](metrics.md)", "[Events](events.md), and the JSON Schema of each in `schema/`",
		"[Configuration](config.md), and [huatuo.yaml](huatuo.yaml) with every default",
	}
	if in.Command != nil {
		list = append(list, "[Command line](cli.md)")
	}
	if in.OpenAPI != nil {
		list = append(list, "[HTTP API](api.md), and its [OpenAPI document](openapi.json)")
	}
	for _, pg := range in.Pages {
		list = append(list, fmt.Sprintf("[%s](%s)", pg.Title, pg.File))
	}
	p.line("- " + strings.Join(list, "\n- "))
	p.line("## Probes")
	var rows [][]string
	for _, s := range in.Probes {
		rows = append(rows, []string{probeLink("probes/", s.Name), s.Help, s.Source, s.Since})
	}
	p.table([]string{"probe", "what it does", "source", "oldest kernel"}, rows)
	return p.bytes()
}
