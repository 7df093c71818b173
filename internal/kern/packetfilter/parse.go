package packetfilter

import (
	"fmt"
	"strings"
)

// parser reads an expression by recursive descent.
type parser struct {
	expr  string
	toks  []token
	i     int
	depth int
	last  *qualifier // of the last primitive: what a bare name after it is
}

// problem is an error with its place.
type problem struct {
	at  int
	msg string
}

// maxDepth bounds the nesting: 20 times what a person reads.
const maxDepth = 100

// qualifier says what a name is: tcp src port …
type qualifier struct {
	proto protocol // name "" when none is given
	dir   string   // "src", "dst", "and" (both), "" (either)
	kind  string   // "host", "net", "port", "portrange", "proto", "" (an address)
}

func (p *parser) fail(msg string, args ...any) *problem {
	return &problem{p.at(), fmt.Sprintf(msg, args...)}
}

// at is the place of the next token.
func (p *parser) at() int { return p.atOf(p.i) }

func (p *parser) atOf(i int) int {
	if i < len(p.toks) {
		return p.toks[i].at
	}
	return len(p.expr)
}

// peek returns the n-th token from here; the empty one at the end.
func (p *parser) peek(n int) token {
	if p.i+n < len(p.toks) {
		return p.toks[p.i+n]
	}
	return token{at: len(p.expr), match: -1}
}

// is tells whether the n-th token is an operator or keyword.
func (p *parser) is(n int, text string) bool {
	t := p.peek(n)
	return t.text == text && !t.escaped
}

// take skips the next token when it is that operator or keyword.
func (p *parser) take(texts ...string) bool {
	for _, t := range texts {
		if p.is(0, t) {
			p.i++
			return true
		}
	}
	return false
}

func (p *parser) parse() (node, *problem) {
	if len(p.toks) == 0 {
		return nil, p.fail("there is nothing to match")
	}
	n, err := p.expression()
	if err != nil {
		return nil, err
	}
	if p.i < len(p.toks) {
		return nil, p.fail("want \"and\", \"or\" or the end")
	}
	return n, nil
}

// expression is terms joined by and, or, which bind alike, from the left.
func (p *parser) expression() (node, *problem) {
	p.depth++
	defer func() { p.depth-- }()
	if p.depth > maxDepth {
		return nil, p.fail("nested too deep")
	}
	left, err := p.term()
	for err == nil {
		var right node
		switch {
		case p.take("and", "&&"):
			if right, err = p.operand(); err == nil {
				left = and{left, right}
			}
		case p.take("or", "||"):
			if right, err = p.operand(); err == nil {
				left = disjoin(left, right)
			}
		default:
			return left, nil
		}
	}
	return nil, err
}

// operand is what follows and, or: a term, or a name that is what the last one was.
func (p *parser) operand() (node, *problem) {
	if p.bareName() {
		if p.last == nil {
			return nil, p.fail("say what it is: host, net, port …")
		}
		return p.names(*p.last)
	}
	return p.term()
}

// bareName tells whether a name or number without a keyword comes, perhaps
// within parentheses or after not.
func (p *parser) bareName() bool {
	n := 0
	for p.is(n, "(") || p.is(n, "!") || p.is(n, "not") {
		if p.is(n, "(") && isArithmetic(p.after(n).text) {
			return false
		}
		n++
	}
	return p.isName(n)
}

// after is the token after the parenthesis that closes the n-th token.
func (p *parser) after(n int) token {
	return p.peek(p.toks[p.i+n].match + 1 - p.i)
}

// isName tells whether the n-th token is a name or number, and not the beginning of a relation.
func (p *parser) isName(n int) bool {
	t := p.peek(n)
	if !t.word || !t.escaped && isKeyword(t.text) {
		return false
	}
	if _, ok := parseNumber(t.text); ok || hasConstant(t.text) {
		return !isArithmetic(p.peek(n + 1).text)
	}
	return true
}

func hasConstant(s string) bool {
	_, ok := constants[s]
	return ok
}

func isArithmetic(op string) bool {
	switch op {
	case "+", "-", "*", "/", "%", "&", "|", "^", "<<", ">>", "<", ">", "<=", ">=", "=", "==", "!=":
		return true
	}
	return false
}

func (p *parser) term() (node, *problem) {
	p.depth++
	defer func() { p.depth-- }()
	if p.depth > maxDepth {
		return nil, p.fail("nested too deep")
	}
	if p.take("not", "!") {
		n, err := p.term()
		return not{n}, err
	}
	t := p.peek(0)
	switch {
	case p.is(0, "(") && !isArithmetic(p.after(0).text):
		p.i++
		n, err := p.expression()
		if err == nil && !p.take(")") {
			err = p.fail("want \"and\", \"or\" or \")\"")
		}
		return n, err
	case p.beginsArithmetic():
		p.last = nil
		return p.relation()
	case !t.word:
		return nil, p.fail("want a condition, like \"tcp port 443\"")
	}
	return p.primitive()
}

func (p *parser) beginsArithmetic() bool {
	t := p.peek(0)
	if p.is(0, "(") || p.is(0, "-") || p.is(0, "len") {
		return true
	}
	if !t.word || t.escaped {
		return false
	}
	if _, ok := parseNumber(t.text); ok || hasConstant(t.text) {
		return isArithmetic(p.peek(1).text)
	}
	_, proto := protocolOf(t.text)
	return proto && p.is(1, "[")
}

// primitive is [protocol] [direction] [kind] name, or one of the words that need no name.
func (p *parser) primitive() (node, *problem) {
	start := p.i
	if n, done, err := p.special(); done || err != nil {
		return n, err
	}
	var q qualifier
	if t := p.peek(0); !t.escaped {
		if proto, ok := protocolOf(t.text); ok {
			q.proto = proto
			p.i++
		}
	}
	if n, done, err := p.cast(q); done || err != nil {
		return n, err
	}
	q.dir = p.direction()
	for _, k := range []string{"host", "net", "port", "portrange", "proto"} {
		if p.take(k) {
			q.kind = k
			break
		}
	}
	if why := p.unsupportedWord(); why != nil {
		return nil, why
	}
	if q.dir == "" && q.kind == "" {
		p.last = nil
		if q.proto.name == "ether" || q.proto.name == "link" {
			return nil, p.fail("want host, src, dst, proto, broadcast or multicast")
		}
		if p.i > start {
			return q.proto.test(), nil
		}
		if strings.Contains(p.peek(0).text, "-") && isArithmetic(p.peek(1).text) {
			return nil, p.fail(noSpaces)
		}
		if p.isName(0) {
			return nil, p.fail("say what it is: host, net, port, portrange or proto")
		}
		return nil, p.fail("want a condition, like \"tcp port 443\"")
	}
	p.last = &q
	return p.names(q)
}

// unsupportedWord tells why the word that comes is not known.
func (p *parser) unsupportedWord() *problem {
	t := p.peek(0)
	if why, ok := unsupported[t.text]; ok && !t.escaped {
		return p.fail("%q is not supported: %s", t.text, why)
	}
	return nil
}

// special reads less N and greater N.
func (p *parser) special() (node, bool, *problem) {
	less := p.is(0, "less")
	if !less && !p.is(0, "greater") {
		return nil, false, nil
	}
	p.i++
	p.last = nil
	n, ok := parseNumber(p.peek(0).text)
	if !ok {
		return nil, true, p.fail("want a number of bytes")
	}
	p.i++
	if less {
		return not{relation{">", length{}, number(n)}}, true, nil
	}
	return relation{">=", length{}, number(n)}, true, nil
}

// cast reads broadcast and multicast.
func (p *parser) cast(q qualifier) (node, bool, *problem) {
	broad := p.is(0, "broadcast")
	if !broad && !p.is(0, "multicast") {
		return nil, false, nil
	}
	p.last = nil
	link := q.proto.name == "" || q.proto.name == "ether" || q.proto.name == "link"
	var n node
	switch {
	case broad && link:
		n = and{equals(4, 2, 0xffffffff), equals(2, 0, 0xffff)}
	case broad && q.proto.name == "ip":
		return nil, true, p.fail("\"ip broadcast\" is not supported: it needs the netmask of the device")
	case broad:
		return nil, true, p.fail("%s has no broadcast", q.proto.name)
	case link:
		n = compare{load: load{size: 1}, op: "&", k: 1}
	case q.proto.name == "ip":
		n = and{ipv4(), compare{load: load{size: 1, off: inIPv4 + 16}, op: ">=", k: 224}}
	case q.proto.name == "ip6":
		n = and{ipv6(), equals(1, inIPv6+24, 255)}
	default:
		return nil, true, p.fail("%s has no multicast", q.proto.name)
	}
	p.i++
	return n, true, nil
}

// direction reads src, dst, src or dst, src and dst.
func (p *parser) direction() string {
	one := ""
	for _, d := range []string{"src", "dst"} {
		if one == "" && p.take(d) {
			one = d
		}
	}
	other := map[string]string{"src": "dst", "dst": "src"}[one]
	if one == "" || !p.is(1, other) {
		return one
	}
	switch {
	case p.take("or", "||"):
		p.i++
		return ""
	case p.take("and", "&&"):
		p.i++
		return "and"
	}
	return one
}

// names is a name, or more in parentheses joined by and, or.
func (p *parser) names(q qualifier) (node, *problem) {
	p.depth++
	defer func() { p.depth-- }()
	if p.depth > maxDepth {
		return nil, p.fail("nested too deep")
	}
	if p.take("not", "!") {
		n, err := p.names(q)
		return not{n}, err
	}
	if !p.take("(") {
		return p.name(q)
	}
	left, err := p.names(q)
	for err == nil && !p.take(")") {
		var right node
		switch {
		case p.take("and", "&&"):
			right, err = p.names(q)
			left = and{left, right}
		case p.take("or", "||"):
			right, err = p.names(q)
			left = disjoin(left, right)
		default:
			err = p.fail("want \"and\", \"or\" or \")\"")
		}
	}
	return left, err
}

// name reads one name and makes the condition that q says it is.
func (p *parser) name(q qualifier) (node, *problem) {
	if !p.peek(0).word || !p.peek(0).escaped && isKeyword(p.peek(0).text) && q.kind != "proto" {
		return nil, p.fail("want %s", wanted(q))
	}
	t := p.peek(0)
	var n node
	var msg string
	used := 1
	switch q.kind {
	case "port", "portrange":
		n, msg = portNode(q, t.text)
	case "proto":
		n, msg = protoNode(q, t.text)
	default:
		mask := ""
		if p.is(1, "/") || p.is(1, "mask") {
			if mask, used = p.peek(2).text, 3; !p.peek(2).word {
				p.i += 2
				return nil, p.fail("want a netmask")
			}
		}
		n, msg = addressNode(q, t.text, mask, p.is(1, "/"))
	}
	if msg != "" {
		return nil, p.fail("%s", msg)
	}
	p.i += used
	return n, nil
}

func wanted(q qualifier) string {
	switch q.kind {
	case "port":
		return "a port"
	case "portrange":
		return "two ports, like 8000-8999"
	case "proto":
		return "a protocol, its name or number"
	case "net":
		return "a network, like 10.0.0.0/8"
	default:
		return "an address"
	}
}

func parseNumber(s string) (uint32, bool) {
	base, digits := uint64(10), s
	switch {
	case len(s) > 2 && (strings.HasPrefix(s, "0x") || strings.HasPrefix(s, "0X")):
		base, digits = 16, s[2:]
	case len(s) > 1 && s[0] == '0':
		base, digits = 8, s[1:]
	}
	if digits == "" {
		return 0, false
	}
	var v uint64
	for _, c := range []byte(strings.ToLower(digits)) {
		d := uint64(strings.IndexByte("0123456789abcdef", c))
		if d >= base { // also what is not found
			return 0, false
		}
		if v = v*base + d; v > 1<<32-1 {
			return 0, false
		}
	}
	return uint32(v), true
}
