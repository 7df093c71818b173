package signal

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Condition compares one member of a Document with a value.
//
// Path names the member as JSON does, "field." standing for the body:
// field.wait_seconds, verdict, process.exe, kernel_stack.function. Of a list
// each element is looked at, and one that passes is enough. A member that is
// missing is the empty text.
type Condition struct {
	Path string
	Op   Op
	Text string // what to compare with, as it was written
}

// Op is the comparison of a Condition.
type Op string

// The comparisons. Equal is of texts, and of numbers when both sides are;
// NotEqual is its opposite, so that it passes documents without the member.
// The four orders are of numbers. Contains finds a part of a text, whatever
// the case of its ASCII letters.
const (
	Equal        Op = "="
	NotEqual     Op = "!="
	Greater      Op = ">"
	GreaterEqual Op = ">="
	Less         Op = "<"
	LessEqual    Op = "<="
	Contains     Op = "contains"
)

// ordered tells whether op needs numbers.
func (op Op) ordered() bool {
	return op == Greater || op == GreaterEqual || op == Less || op == LessEqual
}

// numberUnits are the suffixes of a number, with what to multiply and to
// divide by: 50/1000 is the float nearest to 0.05, 50*0.001 need not be.
var numberUnits = []struct {
	suffix   string
	mul, div float64
}{
	{"ns", 1, 1e9}, {"us", 1, 1e6}, {"µs", 1, 1e6}, {"ms", 1, 1e3}, {"s", 1, 1}, {"min", 60, 1}, {"h", 3600, 1}, {"d", 86400, 1},
	{"B", 1, 1}, {"KiB", 1 << 10, 1}, {"MiB", 1 << 20, 1}, {"GiB", 1 << 30, 1}, {"TiB", 1 << 40, 1},
	{"k", 1e3, 1}, {"M", 1e6, 1}, {"G", 1e9, 1}, {"%", 1, 100}, {"", 1, 1},
}

// Number returns the value that c.Text is in base units: 0.05 of "50ms",
// 1048576 of "1MiB".
func (c *Condition) Number() (float64, bool) {
	digits := strings.TrimRight(c.Text, "abcdefghijklmnopqrstuvwxyzµBKMGT% ")
	suffix := strings.TrimSpace(c.Text[len(digits):])
	v, err := strconv.ParseFloat(digits, 64)
	if err != nil || math.IsInf(v, 0) || math.IsNaN(v) || strings.ContainsAny(digits, "xX_") {
		return 0, false
	}
	for _, u := range numberUnits {
		if u.suffix == suffix {
			return v * u.mul / u.div, true
		}
	}
	return 0, false
}

// Whole returns the integer that c.Text is: a float64 does not tell large ones apart.
func (c *Condition) Whole() (int64, bool) {
	n, err := strconv.ParseInt(c.Text, 10, 64)
	return n, err == nil
}

// String writes c in the form that ParseWhere reads.
func (c Condition) String() string {
	return c.Path + " " + string(c.Op) + " " + quote(c.Text)
}

func quote(text string) string {
	if text != "" && !strings.ContainsAny(text, " \t\r\n\"\\") {
		return text
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}

// maxConditions bounds what one filter may compare.
const maxConditions = 16

// ParseWhere reads conditions joined by "and":
//
//	field.wait_seconds >= 50ms and process.comm != "nginx: worker"
func ParseWhere(text string) ([]Condition, error) {
	p := whereParser{rest: text}
	var list []Condition
	for p.space(); p.rest != ""; p.space() {
		if len(list) > 0 && !p.word("and") {
			return nil, fmt.Errorf("%q: two conditions are joined by \"and\"", head(p.rest))
		}
		if len(list) == maxConditions {
			return nil, fmt.Errorf("at most %d conditions", maxConditions)
		}
		c, err := p.condition()
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// Check tells what is wrong with c.
func (c *Condition) Check() error {
	for part := range strings.SplitSeq(c.Path, ".") {
		if part == "" || !isLetter(part[0]) || strings.IndexFunc(part, func(r rune) bool { return r > 127 || !isWord(byte(r)) }) >= 0 {
			return fmt.Errorf("%q is not the name of a member, such as field.wait_seconds, verdict or process.exe", head(c.Path))
		}
	}
	if _, ok := c.Number(); c.Op.ordered() && !ok {
		return fmt.Errorf("%s %s %q: what it is compared with must be a number, such as 5, 50ms or 1MiB", c.Path, c.Op, head(c.Text))
	}
	return nil
}

type whereParser struct{ rest string }

func (p *whereParser) space() { p.rest = strings.TrimLeft(p.rest, " \t\r\n") }

// word takes w, in whatever case, when it is what comes next and nothing is
// glued to it.
func (p *whereParser) word(w string) bool {
	if len(p.rest) < len(w) || !strings.EqualFold(p.rest[:len(w)], w) || len(p.rest) > len(w) && isWord(p.rest[len(w)]) {
		return false
	}
	p.rest = p.rest[len(w):]
	p.space()
	return true
}

func (p *whereParser) condition() (c Condition, err error) {
	n := 0
	for n < len(p.rest) && (isWord(p.rest[n]) || p.rest[n] == '.') {
		n++
	}
	c.Path, p.rest = p.rest[:n], p.rest[n:]
	p.space()
	if c.Op = p.op(); c.Op == "" {
		return c, fmt.Errorf("%q: a condition is NAME OP VALUE, where OP is one of = != > >= < <= contains", head(c.Path+" "+p.rest))
	}
	if c.Text, err = p.value(); err != nil {
		return c, err
	}
	return c, c.Check()
}

func (p *whereParser) op() Op {
	for _, op := range []Op{NotEqual, GreaterEqual, LessEqual, Equal, Greater, Less} { // the longer first
		if rest, ok := strings.CutPrefix(p.rest, string(op)); ok {
			p.rest = rest
			p.space()
			return op
		}
	}
	if p.word(string(Contains)) {
		return Contains
	}
	return ""
}

func (p *whereParser) value() (string, error) {
	if !strings.HasPrefix(p.rest, `"`) {
		n := strings.IndexAny(p.rest, " \t\r\n")
		if n < 0 {
			n = len(p.rest)
		}
		if n == 0 {
			return "", fmt.Errorf(`a value is missing at the end; the empty one is ""`)
		}
		v := p.rest[:n]
		p.rest = p.rest[n:]
		return v, nil
	}
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch ch := p.rest[i]; {
		case ch == '"':
			p.rest = p.rest[i+1:]
			return b.String(), nil
		case ch == '\\' && i+1 < len(p.rest):
			i++
			b.WriteByte(p.rest[i])
		default:
			b.WriteByte(ch)
		}
	}
	return "", fmt.Errorf("%q: a quote is not closed", head(p.rest))
}

func isLetter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' }
func isWord(c byte) bool   { return isLetter(c) || c >= '0' && c <= '9' }

// head shortens what an error repeats.
func head(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// MatchAll tells whether d passes every condition.
func MatchAll(list []Condition, d *Document) bool { return TreeOf(d).Match(list) }

// Tree is a document as its JSON reads. It is made when the first condition
// asks for it, and once for however many ask: that costs some 40 µs. It is not
// safe for concurrent use.
type Tree struct {
	doc  *Document
	root map[string]any // nil: not read yet, or not JSON
	read bool
}

// TreeOf returns the Tree of d, which must not change meanwhile.
func TreeOf(d *Document) *Tree { return &Tree{doc: d} }

// Match tells whether the document passes every condition.
func (t *Tree) Match(list []Condition) bool {
	if len(list) == 0 {
		return true
	}
	if !t.read {
		t.read = true
		t.root = t.decode()
	}
	return t.root != nil && !slices.ContainsFunc(list, func(c Condition) bool { return !c.match(t.root) })
}

func (t *Tree) decode() map[string]any {
	b, err := json.Marshal(t.doc)
	if err != nil {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var v map[string]any
	if dec.Decode(&v) != nil {
		return nil
	}
	return v
}

// Parts are the names that lead from a document to the member.
func (c *Condition) Parts() []string {
	parts := strings.Split(c.Path, ".")
	if parts[0] == "field" {
		parts[0] = "fields"
	}
	return parts
}

func (c *Condition) match(doc any) bool {
	leaves := leavesAt(nil, doc, c.Parts())
	switch {
	case c.Op == NotEqual:
		return !c.equal(leaves)
	case c.Op == Equal:
		return c.equal(leaves)
	case c.Op == Contains:
		part := lowerASCII(c.Text)
		return slices.ContainsFunc(leaves, func(v any) bool {
			s, ok := v.(string)
			return ok && strings.Contains(lowerASCII(s), part)
		})
	}
	want, ok := c.Number()
	return ok && slices.ContainsFunc(leaves, func(v any) bool {
		n, ok := v.(json.Number)
		f, err := n.Float64()
		return ok && err == nil && c.Op.holds(f, want)
	})
}

func (op Op) holds(a, b float64) bool {
	switch op {
	case Greater:
		return a > b
	case GreaterEqual:
		return a >= b
	case Less:
		return a < b
	default:
		return a <= b
	}
}

func (c *Condition) equal(leaves []any) bool {
	if c.Text == "" {
		return !slices.ContainsFunc(leaves, func(v any) bool { return v != "" })
	}
	want, number := c.Number()
	whole, isWhole := c.Whole()
	return slices.ContainsFunc(leaves, func(v any) bool {
		switch v := v.(type) {
		case string:
			return v == c.Text
		case bool:
			return strconv.FormatBool(v) == c.Text
		case json.Number:
			if i, err := v.Int64(); err == nil && isWhole {
				return i == whole
			}
			f, err := v.Float64()
			return number && err == nil && f == want
		}
		return false
	})
}

// leavesAt appends what is found under the names; null is nothing.
func leavesAt(to []any, v any, parts []string) []any {
	if list, ok := v.([]any); ok {
		for _, e := range list {
			to = leavesAt(to, e, parts)
		}
		return to
	}
	if len(parts) == 0 {
		if v != nil {
			to = append(to, v)
		}
		return to
	}
	if m, ok := v.(map[string]any); ok {
		to = leavesAt(to, m[parts[0]], parts[1:])
	}
	return to
}

// lowerASCII is what SQLite's lower() does.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}
