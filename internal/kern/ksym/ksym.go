// Package ksym names kernel text addresses from /proc/kallsyms: functions of
// the kernel, of its modules and BPF programs.
//
// A table costs about 4 MB and 60 ms for a distribution kernel; it is read on
// first use, and again when an address has no name or may have got another one
// because a module or a BPF program was loaded since. Addresses go in, names
// come out: what Lookup returns may leave the agent, an address may not.
package ksym

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
)

// ErrHidden says that the kernel shows every address as zero.
var ErrHidden = errors.New("kernel addresses are hidden")

const (
	// checkEvery bounds how often a lookup may look for new modules and BPF
	// programs: two system calls and a short read, 10 µs to 200 µs.
	checkEvery = time.Second
	// After something was loaded the table is read again for an address
	// without a name at most every reloadMissing, and for one that has a name,
	// which is nearly always right, every reloadFound: 60 ms of CPU a minute
	// is 0.1 % of a core, on a host that loads BPF programs all the time.
	reloadMissing = 10 * time.Second
	reloadFound   = time.Minute
	// retryEvery is for what no check can see: ftrace and kprobe pages, and a
	// failure that an administrator may have mended.
	retryEvery = 5 * time.Minute
)

// Symbol is what Lookup knows about an address.
type Symbol struct {
	Name   string // shares memory with the whole table: clone it to keep it for long
	Module string // empty for the kernel itself, "bpf" for a BPF program
	Offset uint64 // from the start of the function
}

// Symbols resolves kernel addresses. All methods may be called at once from
// several goroutines; Lookup takes no lock once the table is there.
type Symbols struct {
	proc string
	now  func() time.Time
	mark func() uint64 // changes when a module or a BPF program was loaded

	table atomic.Pointer[table]
	check atomic.Int64 // unix nanoseconds of the last look for changes

	mu     sync.Mutex // held while the table is read
	err    error      // of the last read
	loaded time.Time  // when it was, also if it failed
	seen   uint64     // mark at that time
}

// New returns a resolver that reads below proc, or below /proc when proc is
// empty. It reads nothing yet; call Load in the background, after the agent's
// own BPF programs are loaded, to have the first Lookup answer at once.
func New(proc string) *Symbols {
	if proc == "" {
		proc = "/proc"
	}
	s := &Symbols{proc: proc, now: time.Now}
	m := marker{modules: filepath.Join(proc, "modules"), seed: maphash.MakeSeed()}
	s.mark = m.mark
	return s
}

// Load reads the table unless it is there.
func (s *Symbols) Load() error {
	if s.table.Load() != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.table.Load() == nil && (s.loaded.IsZero() || s.now().Sub(s.loaded) >= retryEvery) {
		s.read()
	}
	return s.err
}

// Lookup returns the symbol that covers a kernel text address, and false when
// there is none or the table cannot be read (Load returns why). It reads the
// table on first use and takes about 100 ns after that, without allocation.
func (s *Symbols) Lookup(addr uint64) (Symbol, bool) {
	t := s.table.Load()
	if t == nil {
		if s.Load() != nil {
			return Symbol{}, false
		}
		t = s.table.Load()
	}
	sym, loose, ok := t.find(addr)
	if loose && s.refresh(ok) {
		sym, _, ok = s.table.Load().find(addr)
	}
	return sym, ok
}

// Addresses returns every address of a function of the given name. They are
// for comparison inside the agent and for constants of BPF programs: they must
// not be stored, exported or shown.
func (s *Symbols) Addresses(name string) ([]uint64, error) {
	if err := s.Load(); err != nil {
		return nil, err
	}
	t := s.table.Load()
	var addrs []uint64
	for _, e := range t.entries {
		if int(e.size) == len(name) && e.mod&(flagEnd|flagPrefix) == 0 && t.text(e) == name {
			addrs = append(addrs, e.addr)
		}
	}
	return addrs, nil
}

// Stats returns how many symbols the table has and the bytes that they take.
func (s *Symbols) Stats() (symbols, bytes int) {
	t := s.table.Load()
	if t == nil {
		return 0, 0
	}
	return len(t.entries), cap(t.entries)*16 + len(t.names)
}

// refresh reads the table again when a module or a BPF program was loaded
// since, and, for an address that nothing covers, when the table is old. It
// reports whether the table is another one now.
func (s *Symbols) refresh(found bool) bool {
	now := s.now()
	last := s.check.Load()
	if now.UnixNano()-last < int64(checkEvery) || !s.check.CompareAndSwap(last, now.UnixNano()) {
		return false
	}
	if !s.mu.TryLock() {
		return false // somebody reads it; the next lookup has the answer
	}
	defer s.mu.Unlock()
	age := now.Sub(s.loaded)
	if age < reloadMissing || (found && age < reloadFound) {
		return false
	}
	if s.mark() == s.seen && (found || age < retryEvery) {
		return false
	}
	before := s.table.Load()
	s.read()
	return s.table.Load() != before
}

// read replaces the table. An old table stays when reading fails: its names
// are right for all that was loaded before. The caller holds mu.
func (s *Symbols) read() {
	s.seen = s.mark() // before the table, so that what is loaded meanwhile is noticed later
	s.loaded = s.now()
	t, err := s.open()
	if err == nil && len(t.entries) == 0 {
		err = errors.New("no text symbol in it: the kernel needs CONFIG_KALLSYMS")
	}
	if errors.Is(err, ErrHidden) {
		err = fmt.Errorf("%w: %s", err, s.hint())
	}
	if err != nil {
		s.err = fmt.Errorf("read %s/kallsyms: %w", s.proc, err)
		return
	}
	s.err = nil
	s.table.Store(t)
}

func (s *Symbols) open() (*table, error) {
	f, err := os.Open(filepath.Join(s.proc, "kallsyms"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return parse(f)
}

// hint says what to do about hidden addresses.
func (s *Symbols) hint() string {
	b, err := os.ReadFile(filepath.Join(s.proc, "sys/kernel/kptr_restrict"))
	v := strings.TrimSpace(string(b))
	switch {
	case err == nil && v == "2":
		return "kernel.kptr_restrict is 2; set it to 1 (sysctl kernel.kptr_restrict=1) and run the agent with CAP_SYSLOG"
	case err == nil && v == "1":
		return "kernel.kptr_restrict is 1; run the agent with CAP_SYSLOG"
	default:
		return "run the agent as root, or with CAP_SYSLOG and CAP_PERFMON"
	}
}

// marker notices that kernel text was added.
type marker struct {
	modules string
	seed    maphash.Seed
	program atomic.Uint32 // the newest BPF program seen
}

// mark returns another value when the list of modules changed or a BPF program
// was loaded since the call before. Program ids grow, so one system call tells
// whether there is a newer one; where it is refused, only modules are seen.
func (m *marker) mark() uint64 {
	var h maphash.Hash
	h.SetSeed(m.seed)
	if f, err := os.Open(m.modules); err == nil {
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			// name size references users state address: only the first and the
			// last stay the same while the module does.
			name, rest, _ := bytes.Cut(lines.Bytes(), []byte(" "))
			h.Write(name)
			h.Write(rest[bytes.LastIndexByte(rest, ' ')+1:])
		}
		f.Close()
	}
	for {
		id, err := ebpf.ProgramGetNextID(ebpf.ProgramID(m.program.Load()))
		if err != nil {
			break
		}
		m.program.Store(uint32(id))
	}
	maphash.WriteComparable(&h, m.program.Load())
	return h.Sum64()
}
