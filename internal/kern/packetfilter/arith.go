package packetfilter

import "strings"

// precedence of arithmetic, as the grammar of libpcap has it. It gives none to
// % and ^: see unclear.
func precedence(op string) int {
	switch op {
	case "|":
		return 1
	case "&":
		return 2
	case "<<", ">>":
		return 3
	case "+", "-":
		return 4
	case "*", "/":
		return 5
	case "%", "^":
		return 6
	}
	return 0
}

// relation is arithmetic, a comparison, arithmetic. What it reads of a protocol
// implies that the packet is of that protocol.
func (p *parser) relation() (node, *problem) {
	var guards []node
	l, err := p.sum(1, "", &guards)
	if err != nil {
		return nil, err
	}
	t := p.peek(0)
	if t.word || precedence(t.text) != 0 || !isArithmetic(t.text) {
		return nil, p.fail("want a comparison: =, !=, <, >, <= or >=")
	}
	p.i++
	r, err := p.sum(1, "", &guards)
	if err != nil {
		return nil, err
	}
	var n node
	switch t.text {
	case "=", "==":
		n = relation{"==", l, r}
	case "!=":
		n = not{relation{"==", l, r}}
	case ">":
		n = relation{">", l, r}
	case "<=":
		n = not{relation{">", l, r}}
	case ">=":
		n = relation{">=", l, r}
	case "<":
		n = not{relation{">=", l, r}}
	}
	return all(append(guards, n)...), nil
}

// sum is operands joined by operators that bind as tight as lowest, or tighter.
// before is the operator on its left.
func (p *parser) sum(lowest int, before string, guards *[]node) (arith, *problem) {
	p.depth++
	defer func() { p.depth-- }()
	if p.depth > maxDepth {
		return nil, p.fail("nested too deep")
	}
	left, err := p.operandOf(guards)
	for err == nil {
		op := p.peek(0)
		if op.word || precedence(op.text) < lowest || precedence(op.text) == 0 {
			return left, nil
		}
		if msg := unclear(before, op.text); msg != "" {
			return nil, p.fail("%s", msg)
		}
		before = op.text
		p.i++
		var right arith
		if right, err = p.sum(precedence(op.text)+1, op.text, guards); err != nil {
			break
		}
		var msg string
		if left, msg = combine(op.text, left, right); msg != "" {
			return nil, &problem{op.at, msg}
		}
	}
	return nil, err
}

// unclear: libpcap's grammar leaves open how % and ^ bind to other operators, so
// that what a filter means depends on the order in which one writes it.
func unclear(a, b string) string {
	odd := a == "%" || a == "^" || b == "%" || b == "^"
	if odd && a != b && precedence(a) != 0 && precedence(b) != 0 {
		return "use parentheses: " + a + " beside " + b + " is not clear"
	}
	return ""
}

// operandOf is a number, len, a field, what is in parentheses, or the negative of these.
func (p *parser) operandOf(guards *[]node) (arith, *problem) {
	p.depth++
	defer func() { p.depth-- }()
	if p.depth > maxDepth {
		return nil, p.fail("nested too deep")
	}
	t := p.peek(0)
	switch {
	case p.take("("):
		a, err := p.sum(1, "", guards)
		if err == nil && !p.take(")") {
			err = p.fail("want an operator or \")\"")
		}
		return a, err
	case p.take("-"):
		a, err := p.operandOf(guards)
		if err != nil {
			return nil, err
		}
		n, _ := combine("-", number(0), a)
		return n, nil
	case p.take("len"):
		return length{}, nil
	case !t.word:
		return nil, p.fail("want a number or a field, like tcp[13]")
	}
	if n, ok := parseNumber(t.text); ok {
		p.i++
		return number(n), nil
	}
	if n, ok := constants[t.text]; ok {
		p.i++
		return number(n), nil
	}
	if proto, ok := protocolOf(t.text); ok && !t.escaped {
		if !p.is(1, "[") {
			p.i++
			return nil, p.fail("want [ and the place of a field")
		}
		return p.field(proto, guards)
	}
	if why := p.unsupportedWord(); why != nil {
		return nil, why
	}
	if strings.Contains(t.text, "-") {
		return nil, p.fail(noSpaces)
	}
	return nil, p.fail("want a number or a field, like tcp[13]")
}

const noSpaces = "not a number; if it is a subtraction, put spaces around the -"

// field is proto[index:size].
func (p *parser) field(proto protocol, guards *[]node) (arith, *problem) {
	start := p.i
	p.i += 2
	index, err := p.sum(1, "", guards)
	if err != nil {
		return nil, err
	}
	size := uint32(1)
	if p.take(":") {
		n, ok := parseNumber(p.peek(0).text)
		if !ok || n != 1 && n != 2 && n != 4 {
			return nil, p.fail("a field has 1, 2 or 4 bytes")
		}
		size = n
		p.i++
	}
	if !p.take("]") {
		return nil, p.fail("want an operator, \":\" or \"]\"")
	}
	f := field{load: load{size: size}, index: index}
	switch {
	case proto.name == "ether" || proto.name == "link":
	case proto.ether != 0:
		f.off = linkBytes
		*guards = append(*guards, etherType(proto.ether))
	case proto.name == "icmp6":
		f.off = inIPv6 + ipv6Bytes
		*guards = append(*guards, ipv6(), equals(1, inIPv6+6, proto.number))
	default:
		// By the header of IPv4 alone, as in tcpdump.
		f.off, f.pastX = linkBytes, true
		*guards = append(*guards, ipv4Proto(proto.number), firstFragment())
	}
	if n, ok := index.(number); ok {
		if at := uint64(f.off) + uint64(n) + uint64(size); at > FrameBytes {
			return nil, &problem{p.atOf(start), beyond}
		}
	}
	return f, nil
}

const beyond = "beyond the first bytes of the packet, which are all that the filter sees"

// combine makes a binary operation, at once when both sides are numbers.
func combine(op string, l, r arith) (arith, string) {
	a, known := l.(number)
	b, fixed := r.(number)
	if fixed {
		switch {
		case (op == "/" || op == "%") && b == 0:
			return nil, "division by zero"
		case (op == "<<" || op == ">>") && b > 31:
			return nil, "a shift by more than 31 bits"
		}
	}
	if !known || !fixed {
		return operation{op, l, r}, ""
	}
	switch op {
	case "+":
		return a + b, ""
	case "-":
		return a - b, ""
	case "*":
		return a * b, ""
	case "/":
		return a / b, ""
	case "%":
		return a % b, ""
	case "&":
		return a & b, ""
	case "|":
		return a | b, ""
	case "^":
		return a ^ b, ""
	case "<<":
		return a << b, ""
	default:
		return a >> b, ""
	}
}
