package store

import (
	"strconv"
	"strings"

	"huatuo/internal/signal"
)

// whereTerms adds the conditions on members of the document. They are what
// signal.MatchAll does, said in SQL; a test holds the two together.
func whereTerms(w *where, list []signal.Condition) {
	for i := range list {
		c := &list[i]
		if c.Check() != nil {
			w.and("0") // the caller's parser would have refused it
			continue
		}
		test, args, not := leafTest(c)
		from, fromArgs := leafTables(c)
		if quick, arg := mention(c); quick != "" {
			test += " AND " + quick
			args = append(args, arg)
		}
		term := "EXISTS (SELECT 1 FROM doc, " + from + " WHERE doc.n = event.n AND j.type <> 'null' AND " + test + ")"
		if not {
			term = "NOT " + term
		}
		w.and(term, append(fromArgs, args...)...)
	}
}

// leafText is a leaf as the text that it is compared as.
const leafText = "CASE j.type WHEN 'true' THEN 'true' WHEN 'false' THEN 'false' WHEN 'text' THEN j.atom END"

// leafTest is the condition on one leaf, and whether there must be none that passes.
func leafTest(c *signal.Condition) (test string, args []any, not bool) {
	number, isNumber := c.Number()
	const numeric = "j.type IN ('integer', 'real') AND j.atom "
	switch c.Op {
	case signal.Equal, signal.NotEqual:
		not = c.Op == signal.NotEqual
		switch {
		case c.Text == "": // there is nothing but empty texts
			return "(j.type <> 'text' OR j.atom <> '')", nil, !not
		case isNumber:
			var exact any = number
			if n, ok := c.Whole(); ok {
				exact = n
			}
			return "(" + leafText + " = ? OR " + numeric + "= ?)", []any{c.Text, exact}, not
		}
		return leafText + " = ?", []any{c.Text}, not
	case signal.Contains:
		return "j.type = 'text' AND instr(lower(j.atom), lower(?)) > 0", []any{c.Text}, false
	default:
		return numeric + string(c.Op) + " ?", []any{number}, false // Op is one of four: Check has seen it
	}
}

// mention is a test of the document's text that is true wherever the condition
// on a leaf is: it costs a tenth of reading the JSON. Only for texts that JSON
// writes as they are, and that are not numbers, which have many forms.
func mention(c *signal.Condition) (string, any) {
	_, number := c.Number()
	if c.Text == "" || number && c.Op != signal.Contains || strings.ContainsFunc(c.Text, escaped) {
		return "", nil
	}
	if c.Op == signal.Contains {
		return "instr(lower(doc.body), lower(?)) > 0", c.Text
	}
	return "instr(doc.body, ?) > 0", c.Text
}

// escaped tells whether Go's JSON may write r as something else.
func escaped(r rune) bool {
	return r < ' ' || r > '~' || r == '"' || r == '\\' || r == '<' || r == '>' || r == '&'
}

// object are the members of a document that are objects whenever they are there.
func object(name string) bool {
	switch name {
	case "fields", "process", "container", "resources", "registers":
		return true
	}
	return false
}

// leafTables returns the tables that give the values under a path as rows of j. Of
// a list each element is a row.
func leafTables(c *signal.Condition) (string, []any) {
	parts := c.Parts()
	first := "$." + parts[0]
	if parts = parts[1:]; object(c.Parts()[0]) && len(parts) > 0 {
		first += "." + parts[0]
		parts = parts[1:]
	}
	var from []string
	var args []any
	level := func(doc, path string, last bool, i int) {
		name := "j"
		if !last {
			name += strconv.Itoa(i)
		}
		from = append(from, "json_each(CASE json_type("+doc+", ?) WHEN 'array' THEN "+doc+" -> ? ELSE json_array("+doc+" -> ?) END) AS "+name)
		args = append(args, path, path, path)
	}
	level("doc.body", first, len(parts) == 0, 0)
	for i, p := range parts {
		above := "j" + strconv.Itoa(i)
		level("CASE "+above+".type WHEN 'object' THEN "+above+".value END", "$."+p, i == len(parts)-1, i+1)
	}
	return strings.Join(from, ", "), args
}
