// Package packetfilter compiles packet filters in the syntax of tcpdump
// (pcap-filter(7)) and writes them into BPF programs before the load, in place
// of the function ht_filter_run of bpf/include/filter.h.
//
// An expression becomes a tree (parse.go), the tree classic BPF with jumps of
// any length (code.go), and that instructions of the kernel (ebpf.go). A packet
// is an Ethernet frame, as to `tcpdump -y EN10MB`; where a packet has no link
// header, its addresses there are zero.
//
// What is there means what it means to tcpdump, and the tests hold the one to
// the other. What is not there is an error that tells its place: names of
// hosts, VLAN and MPLS tags, 802.11, protocol chains, directions of a capture.
package packetfilter

import (
	"fmt"
	"strings"
)

// Program is a compiled filter.
type Program struct {
	code []insn
}

// Error tells what is wrong with an expression, and where.
type Error struct {
	Expr   string
	Offset int // bytes before the place
	Msg    string
}

// Error names the place as a column, from 1.
func (e *Error) Error() string {
	near := "at the end"
	if e.Offset < len(e.Expr) {
		near = fmt.Sprintf("at column %d, near %q", e.Offset+1, cut(e.Expr[e.Offset:]))
	}
	return fmt.Sprintf("packet filter %q: %s: %s", e.Expr, near, e.Msg)
}

// cut shortens what follows a mistake to what one looks at.
func cut(s string) string {
	if i := strings.IndexAny(s, " \t\n"); i > 0 {
		s = s[:i]
	}
	const most = 24
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// maxExpr bounds the text: ten times the longest filter that maxCode lets through.
const maxExpr = 16 << 10

// Compile compiles an expression. Its error is an *Error.
func Compile(expr string) (*Program, error) {
	fail := func(at int, msg string) (*Program, error) { return nil, &Error{expr, at, msg} }
	if len(expr) > maxExpr {
		return nil, &Error{cut(expr), len(expr), fmt.Sprintf("longer than %d bytes", maxExpr)}
	}
	toks, err := lex(expr)
	if err != nil {
		return nil, err
	}
	p := &parser{expr: expr, toks: toks}
	root, perr := p.parse()
	if perr != nil {
		return fail(perr.at, perr.msg)
	}
	code, msg := generate(root)
	if msg != "" {
		return fail(len(expr), msg)
	}
	return &Program{code}, nil
}
