package packetfilter

import "strings"

// token is a word (name, number, address) or an operator.
type token struct {
	text    string
	at      int
	word    bool
	escaped bool // \name: never a keyword
	match   int  // of a parenthesis that opens: index of the one that closes
}

// operators, longest first.
var operators = [...]string{"<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "(", ")", "[", "]", "+", "-", "*", "/", "%", "&", "|", "^", "<", ">", "=", "!", ":"}

func isWordByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '.' || c == ':' || c == '-'
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// lex splits an expression. Names and addresses hold "-" and ":" as they do in
// tcpdump; within brackets ":" stands before a size, and "-" after a number
// subtracts.
func lex(expr string) ([]token, error) {
	var toks []token
	var open []int // indexes of parentheses and brackets that are open
	depth := 0     // of brackets
	for i := 0; i < len(expr); {
		c := expr[i]
		if c == ' ' || c == '\t' || c == '\n' || c == '\r' {
			i++
			continue
		}
		t := token{at: i, match: -1}
		switch n := wordLen(expr[i:], depth > 0); {
		case c == '\\':
			n = wordLen(expr[i+1:], depth > 0)
			if n == 0 {
				return nil, &Error{expr, i, "a name follows a backslash"}
			}
			t.text, t.word, t.escaped = expr[i+1:i+1+n], true, true
			i += 1 + n
		case n > 0:
			t.text, t.word = expr[i:i+n], true
			i += n
		default:
			if t.text = operator(expr[i:]); t.text == "" {
				return nil, &Error{expr, i, "this character means nothing in a filter"}
			}
			i += len(t.text)
		}
		toks = append(toks, t)
		if t.word {
			continue
		}
		switch t.text {
		case "[":
			depth++
			open = append(open, len(toks)-1)
		case "(":
			open = append(open, len(toks)-1)
		case ")", "]":
			last := len(open) - 1
			if last < 0 || toks[open[last]].text+t.text != "()" && toks[open[last]].text+t.text != "[]" {
				return nil, &Error{expr, t.at, "it closes nothing"}
			}
			toks[open[last]].match = len(toks) - 1
			open = open[:last]
			if t.text == "]" {
				depth--
			}
		}
	}
	if len(open) > 0 {
		return nil, &Error{expr, toks[open[len(open)-1]].at, "it is never closed"}
	}
	return toks, nil
}

// wordLen is the length of the word that s begins with.
func wordLen(s string, bracket bool) int {
	if s == "" || s[0] == '-' || s[0] == '.' || bracket && s[0] == ':' || s[0] == ':' && !strings.HasPrefix(s, "::") {
		return 0
	}
	n := 0
	for n < len(s) && isWordByte(s[n]) {
		if bracket && (s[n] == ':' || s[n] == '-' && isDigit(s[0])) {
			break
		}
		n++
	}
	return n
}

func operator(s string) string {
	for _, o := range operators {
		if strings.HasPrefix(s, o) {
			return o
		}
	}
	return ""
}
