package locks

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// rescanEvery bounds how often the symbols are read for a lock whose name is
// not known yet: a read is 40 ms of CPU.
const rescanEvery = time.Minute

// names tells locks and the code of locks by the kernel's symbols. Without
// them, or where they are hidden, all it knows is nothing.
type names struct {
	sched, lock, data [2]uint64 // address ranges: code of locks that sleep, of those that spin; the kernel's own data
	symbol            func(uint64) string
	kallsyms          string

	mu     sync.Mutex
	static map[uint64]string // by address of the lock; "" when the symbols have no name for it
	read   time.Time
}

func newNames(root string, symbol func(uint64) string) *names {
	n := &names{symbol: symbol, kallsyms: filepath.Join(root, "proc/kallsyms"), static: map[uint64]string{}}
	bounds := map[string]*uint64{
		"__sched_text_start": &n.sched[0], "__sched_text_end": &n.sched[1],
		"__lock_text_start": &n.lock[0], "__lock_text_end": &n.lock[1],
		"_sdata": &n.data[0], "_end": &n.data[1],
	}
	n.scan(func(addr uint64, name []byte) {
		if p := bounds[string(name)]; p != nil {
			*p = addr
		}
	})
	for _, r := range []*[2]uint64{&n.sched, &n.lock, &n.data} {
		if r[0] == 0 || r[1] < r[0] { // one of the two is missing
			*r = [2]uint64{}
		}
	}
	return n
}

// scan calls f for each symbol of the kernel itself.
func (n *names) scan(f func(addr uint64, name []byte)) {
	file, err := os.Open(n.kallsyms)
	if err != nil {
		return
	}
	defer file.Close()
	for s := bufio.NewScanner(file); s.Scan(); {
		line := s.Bytes()
		i := bytes.IndexByte(line, ' ')
		if i < 0 || len(line) < i+4 || bytes.IndexByte(line, '[') >= 0 {
			continue
		}
		if addr, err := strconv.ParseUint(string(line[:i]), 16, 64); err == nil && addr != 0 {
			f(addr, line[i+3:])
		}
	}
}

// isLock tells whether an address is in the code of locks.
func (n *names) isLock(ip uint64) bool {
	return n.sched[0] <= ip && ip < n.sched[1] || n.lock[0] <= ip && ip < n.lock[1]
}

// unknown is the name of a lock that has none.
const unknown = "unknown"

// of returns the name of a lock: its own when it is one of the kernel's data,
// else the function that took it.
func (n *names) of(addr uint64) string {
	name := ""
	switch {
	case addr == 0:
	case n.data[0] <= addr && addr < n.data[1]:
		name = n.ofData(addr)
	case n.symbol != nil:
		name = n.symbol(addr)
	}
	if name == "" {
		return unknown
	}
	name, _, _ = strings.Cut(name, ".") // .constprop.0, .isra.0, .cold: one function
	return name
}

// ofData returns the symbol that covers the address of a lock.
func (n *names) ofData(addr uint64) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	name, ok := n.static[addr]
	if ok || time.Since(n.read) < rescanEvery {
		return name
	}
	n.read = time.Now()
	n.static[addr] = ""
	n.nameStatic()
	return n.static[addr]
}

// want makes later calls of of know these addresses by one scan.
func (n *names) want(addrs []uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	missing := false
	for _, a := range addrs {
		if _, ok := n.static[a]; !ok && n.data[0] <= a && a < n.data[1] && time.Since(n.read) >= rescanEvery {
			n.static[a] = ""
			missing = true
		}
	}
	if missing {
		n.read = time.Now()
		n.nameStatic()
	}
}

// nameStatic finds for each address without a name the last symbol that is
// not beyond it. The caller holds mu.
func (n *names) nameStatic() {
	best := map[uint64]uint64{}
	for a, name := range n.static {
		if name == "" {
			best[a] = 0
		}
	}
	n.scan(func(addr uint64, name []byte) {
		if addr < n.data[0] || addr >= n.data[1] {
			return
		}
		for a, b := range best {
			if addr <= a && addr > b {
				best[a] = addr
				n.static[a] = string(name)
			}
		}
	})
}
