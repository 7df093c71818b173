package enrich

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// mask stands in the place of a secret.
const mask = "***"

// Redactor takes secrets out of command lines. Its rules (rules.go) know what
// flags, variables, headers, URLs and tokens look like; they take rather too
// much than too little, and cannot know a secret that looks like nothing: a
// positional argument of an unknown program stays.
type Redactor struct {
	rules rules
	extra []*regexp.Regexp
	off   bool
}

// NoRedaction returns a Redactor that leaves command lines as they are.
func NoRedaction() *Redactor { return &Redactor{off: true} }

// NewRedactor returns a Redactor with the built-in rules and those in extra:
// regular expressions (RE2) whose groups are secrets, or the whole match when
// they have no group. They see one argument at a time.
func NewRedactor(extra []string) (*Redactor, error) {
	r := &Redactor{rules: newRules()}
	for _, e := range extra {
		re, err := regexp.Compile(e)
		if err != nil {
			return nil, fmt.Errorf("compile redaction rule: %w", err)
		}
		r.extra = append(r.extra, re)
	}
	return r, nil
}

// Cmdline joins args with blanks, without their secrets.
func (r *Redactor) Cmdline(args []string) string {
	if r.off {
		return strings.Join(args, " ")
	}
	out := slices.Clone(args)
	r.args(out, 0)
	return strings.Join(out, " ")
}

// args redacts in place. An argument with blanks is looked into as a command
// line of its own, like that of sh -c or a process title.
func (r *Redactor) args(args []string, depth int) {
	var prog string
	var next func(string) string // what the argument before says of this one
	seen := make(map[string]bool)
	for i, arg := range args {
		if i == 0 || r.rules.programs[filepath.Base(arg)] {
			prog = filepath.Base(arg)
		}
		if next != nil {
			do := next
			if next = nil; strings.Trim(arg, `"',;)}]`) == mask {
				continue
			} else if !strings.HasPrefix(arg, "-") || len(arg) == 1 {
				args[i] = do(arg)
				continue
			}
		}
		arg = r.inline(arg)
		if depth < maxDepth && strings.ContainsAny(arg, " \t\n") {
			command := i == 0 || shellFlag(args[i-1])
			arg = r.nested(arg, command, depth)
		} else {
			arg, next = r.token(arg, prog, seen)
		}
		args[i] = arg
		seen[arg] = true
	}
}

// shellFlag tells -c and its kin, which a command line follows.
func shellFlag(arg string) bool {
	return len(arg) > 1 && len(arg) < 5 && arg[0] == '-' && arg[1] != '-' && arg[len(arg)-1] == 'c'
}

// maxDepth of command lines in command lines: ssh host "sh -c 'docker exec …'".
const maxDepth = 4

// token redacts one argument without blanks, and tells what to do with the next.
func (r *Redactor) token(arg, prog string, seen map[string]bool) (out string, next func(string) string) {
	for _, p := range r.rules.flags {
		if out, next, ok := p.apply(arg, prog, seen); ok {
			return out, next
		}
	}
	lead := len(arg) - len(strings.TrimLeft(arg, `'"`))
	name, value, assigned := strings.Cut(arg[lead:], "=")
	switch bare := strings.TrimLeft(name, "-"); {
	case assigned && value != "" && r.assigns(name):
		return arg[:lead] + name + "=" + maskQuoted(value), nil
	case assigned && value != "" && strings.HasSuffix(strings.ToLower(bare), "auth"):
		return arg[:lead] + name + "=" + maskAfter(":")(value), nil
	case assigned:
	case bare != name && r.rules.secret(bare),
		strings.HasSuffix(name, ":") && r.rules.secret(name[:len(name)-1]),
		r.rules.words[strings.ToLower(name)]:
		return arg, maskQuoted
	case bare != name && strings.HasSuffix(strings.ToLower(bare), "auth"):
		return arg, maskAfter(":")
	}
	return arg, nil
}

// nested redacts the words of an argument. command tells that it surely is a
// command line: then PASSWORD=x ends at the blank, else it goes to the end.
func (r *Redactor) nested(arg string, command bool, depth int) string {
	if name, value, ok := strings.Cut(arg, "="); ok && !command && value != "" && r.assigns(name) {
		return name + "=" + mask
	}
	if q := arg[0]; len(arg) > 1 && (q == '\'' || q == '"') && arg[len(arg)-1] == q {
		return string(q) + r.words(arg[1:len(arg)-1], depth) + string(q)
	}
	return r.words(arg, depth)
}

// assigns tells whether what stands before a '=' names a secret.
func (r *Redactor) assigns(name string) bool {
	return !strings.ContainsAny(name, " \t\n'\"/?&;,:") && r.rules.secret(strings.TrimLeft(name, "-"))
}

func (r *Redactor) words(arg string, depth int) string {
	words, gaps := splitWords(arg)
	r.args(words, depth+1)
	var b strings.Builder
	for i, w := range words {
		b.WriteString(gaps[i])
		b.WriteString(w)
	}
	b.WriteString(gaps[len(words)])
	return b.String()
}

// inline redacts what is recognised wherever it stands.
func (r *Redactor) inline(arg string) string {
	for _, re := range r.extra {
		arg = maskGroups(re, arg)
	}
	lower := strings.ToLower(arg)
	for _, rule := range r.rules.inline {
		if slices.ContainsFunc(rule.need, func(s string) bool { return strings.Contains(lower, s) }) {
			arg = maskGroups(rule.re, arg)
		}
	}
	return r.pairs(arg)
}

// pairs masks the value of each key=value and key: value whose key names a
// secret. Where it does not, the value is looked into: it may be a URL with
// parameters. By hand, because an expression would look at each value again for
// each pair in it.
func (r *Redactor) pairs(arg string) string {
	var b strings.Builder
	done := 0 // what is in b
	for i := 0; i < len(arg); i++ {
		if arg[i] != '=' && arg[i] != ':' {
			continue
		}
		key := strings.TrimRight(arg[done:i], " \t")
		if n := len(key); n > 0 && (key[n-1] == '"' || key[n-1] == '\'') {
			key = key[:n-1]
		}
		key = key[strings.LastIndexFunc(key, notKey)+1:]
		if !r.rules.secret(strings.TrimLeft(key, "-")) {
			continue
		}
		value := i + 1
		for value < len(arg) && (arg[value] == ' ' || arg[value] == '\t') {
			value++
		}
		end := value + valueLen(arg[value:])
		b.WriteString(arg[done:value])
		b.WriteString(maskQuoted(arg[value:end]))
		done, i = end, end-1
	}
	if done == 0 {
		return arg
	}
	return b.String() + arg[done:]
}

func notKey(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_' && c != '-' && c != '.'
}

// valueLen is the length of a value at the start of s: up to the closing quote
// or up to a blank, a quote or what separates parameters of a URL. Not up to a
// comma: a password may have one.
func valueLen(s string) int {
	if s == "" {
		return 0
	}
	if q := s[0]; q == '"' || q == '\'' {
		for i := 1; i < len(s); i++ {
			switch {
			case s[i] == '\\' && q == '"':
				i++
			case s[i] == q:
				return i + 1
			}
		}
		return len(s)
	}
	if i := strings.IndexAny(s, " \t\r\n\"'&;"); i >= 0 {
		return i
	}
	return len(s)
}

// maskGroups masks what the groups of re match, or all when it has none.
func maskGroups(re *regexp.Regexp, s string) string {
	all := re.FindAllStringSubmatchIndex(s, -1)
	if all == nil {
		return s
	}
	var b strings.Builder
	pos := 0
	for _, m := range all {
		groups := m[2:]
		if len(groups) == 0 {
			groups = m
		}
		for g := 0; g+1 < len(groups); g += 2 {
			if groups[g] < pos || groups[g] == groups[g+1] {
				continue // not part of this match, empty, or within a group before
			}
			b.WriteString(s[pos:groups[g]])
			b.WriteString(mask)
			pos = groups[g+1]
		}
	}
	b.WriteString(s[pos:])
	return b.String()
}

// maskQuoted masks all but the quotes around a value.
func maskQuoted(s string) string {
	if s == "" {
		return s
	}
	lead, trail := "", ""
	if s[0] == '"' || s[0] == '\'' {
		lead = s[:1]
	}
	if n := len(s) - 1; n > 0 && (s[n] == '"' || s[n] == '\'') {
		trail = s[n:]
	}
	return lead + mask + trail
}

// maskAfter masks what follows the first sep: the password in user:password.
func maskAfter(sep string) func(string) string {
	return func(s string) string {
		user, secret, ok := strings.Cut(s, sep)
		if !ok || secret == "" {
			return s
		}
		return user + sep + maskQuoted(secret)
	}
}

// splitWords splits at blanks outside of quotes. gaps[i] stands before
// words[i], the last one after all. A quote that is never closed is an
// apostrophe: then quotes count for nothing.
func splitWords(s string) (words, gaps []string) {
	quotes := true
	for {
		var quote byte
		words, gaps = words[:0], gaps[:0]
		start, word := 0, false
		for i := 0; i < len(s); i++ {
			c := s[i]
			blank := quote == 0 && (c == ' ' || c == '\t' || c == '\n')
			switch {
			case quotes && quote == 0 && (c == '\'' || c == '"'):
				quote = c
			case c == quote:
				quote = 0
			}
			if blank == word { // a word ends or begins here
				if word {
					words = append(words, s[start:i])
				} else {
					gaps = append(gaps, s[start:i])
				}
				start, word = i, !word
			}
		}
		if quote != 0 {
			quotes = false
			continue
		}
		if word {
			return append(words, s[start:]), append(gaps, "")
		}
		return words, append(gaps, s[start:])
	}
}
