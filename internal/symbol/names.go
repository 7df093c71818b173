package symbol

import (
	"strings"
	"sync"

	"github.com/ianlancetaylor/demangle"
)

const (
	// maxName bounds a symbol's name. Longer ones exist in template-heavy C++;
	// they are cut, and shown as they are.
	maxName = 4096
	// maxNames bounds the names in use that are kept; stacks of one host repeat
	// the same few thousand.
	maxNames = 8192
)

// names turns symbols into the names shown, and keeps one copy of each, so
// that a record does not hold on to the table its names came from.
type names struct {
	mu    sync.Mutex
	shown map[string]string
	bytes int
}

func newNames() *names { return &names{shown: make(map[string]string)} }

// show returns the demangled form of a symbol, or the symbol itself.
func (n *names) show(symbol string) string { return n.get(symbol, true) }

// plain is for names that are no linker symbols.
func (n *names) plain(name string) string { return n.get(name, false) }

func (n *names) get(symbol string, mangled bool) string {
	if symbol == "" {
		return ""
	}
	mangled = mangled && isMangled(symbol)
	n.mu.Lock()
	s, ok := n.shown[symbol]
	n.mu.Unlock()
	if ok {
		return s
	}
	key := strings.Clone(symbol)
	s = key
	if mangled {
		s = demangled(key)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.shown) >= maxNames || n.bytes > 2<<20 {
		clear(n.shown) // all at once: it is filled again in no time
		n.bytes = 0
	}
	n.shown[key] = s
	n.bytes += len(key) + len(s)
	return s
}

func isMangled(s string) bool {
	return strings.HasPrefix(s, "_Z") || strings.HasPrefix(s, "_R") || strings.HasPrefix(s, "__Z")
}

// demangled returns the name without parameters, since a stack is read by
// names, and bounded, since a short mangled name can stand for a gigabyte.
func demangled(s string) (out string) {
	if len(s) >= maxName {
		return s
	}
	// The library parses whatever a process has in its files.
	defer func() {
		if recover() != nil {
			out = s
		}
	}()
	return demangle.Filter(s, demangle.NoParams, demangle.NoEnclosingParams, demangle.NoClones, demangle.MaxLength(12))
}
