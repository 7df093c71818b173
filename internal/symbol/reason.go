package symbol

import "sync/atomic"

// reason is why a frame has no name.
type reason uint8

const (
	named            reason = iota
	gone                    // the process
	noAccess                // to the process, for want of a capability
	unmapped                // nothing is mapped there as code
	notReady                // the time to wait was over
	noAnswer                // too much work was waiting
	fileGone                // the file cannot be opened any more
	notRegular              // a device, say
	notELF                  //
	badELF                  //
	noSymbols               // stripped
	noSymbolHere            // there are symbols, none covers the address
	tooLarge                // the file's symbols are over the limit
	evicted                 // the cache is too small for what is in use
	noPerfMap               // JIT code, and the runtime wrote no map
	noPerfEntry             // the map does not have it
	otherABI                // vDSO of a 32-bit process
	kernelUnreadable        // kallsyms
	kernelUnmapped          //
	reasons                 // how many there are
)

// String returns what Frame.Missing says.
func (r reason) String() string {
	switch r {
	case gone:
		return "process gone"
	case noAccess:
		return "process not readable (needs CAP_SYS_PTRACE)"
	case unmapped:
		return "not mapped as code"
	case notReady:
		return "symbols still loading"
	case noAnswer:
		return "too many files waiting"
	case fileGone:
		return "file gone"
	case notRegular:
		return "not a regular file"
	case notELF:
		return "not an ELF file"
	case badELF:
		return "malformed ELF file"
	case noSymbols:
		return "no symbols in file"
	case noSymbolHere:
		return "no symbol covers it"
	case tooLarge:
		return "symbols too large"
	case evicted:
		return "symbol cache too small"
	case noPerfMap:
		return "generated code without a perf map"
	case noPerfEntry:
		return "not in the perf map"
	case otherABI:
		return "vDSO of another ABI"
	case kernelUnreadable:
		return "kernel symbols not readable"
	case kernelUnmapped:
		return "no kernel function there"
	default:
		return ""
	}
}

// Counters count frames by fate, and reading. The zero value is ready.
type Counters struct {
	by       [reasons]atomic.Uint64 // by[named]: with a name
	loads    atomic.Uint64
	loadTime atomic.Int64
	dropped  atomic.Uint64
}

func (c *Counters) name()         { c.by[named].Add(1) }
func (c *Counters) miss(r reason) { c.by[r].Add(1) }

// Stats tells what a Resolver did and what it holds.
type Stats struct {
	Named       uint64            // frames that got a name
	Missing     map[string]uint64 // frames that got none, by Frame.Missing
	Files       int               // files whose symbols are in the cache
	Processes   int               // processes whose maps are
	CacheBytes  int64             // what both take, without the kernel's symbols
	Evicted     uint64            // files and processes that had to go for others
	Loads       uint64            // files read
	LoadSeconds float64           // time that took
	Forgotten   uint64            // calls of Remember that came too fast
	LineBytes   int64             // source lines and inlined calls in the cache
	Improved    uint64            // files for which a better source was found later
	Fetched     uint64            // files of debug symbols that came from a server
	FetchFailed uint64            // that no server had, or that could not be had
}

// Stats returns the counters so far.
func (r *Resolver) Stats() Stats {
	s := Stats{
		Named: r.count.by[named].Load(), Missing: make(map[string]uint64),
		Loads: r.count.loads.Load(), LoadSeconds: float64(r.count.loadTime.Load()) / 1e9,
		Forgotten: r.count.dropped.Load(),
	}
	for why := named + 1; why < reasons; why++ {
		if n := r.count.by[why].Load(); n > 0 {
			s.Missing[why.String()] = n
		}
	}
	s.Improved = r.improved.Load()
	if f := r.fetch; f != nil {
		s.Fetched, s.FetchFailed = f.fetched.Load(), f.absent.Load()+f.failed.Load()
	}
	_, index, _ := r.lines.index.stats()
	_, units, _ := r.lines.units.stats()
	s.LineBytes = index + units
	files, filesBytes, filesEvicted := r.objects.cache.stats()
	procs, procsBytes, procsEvicted := r.processes.cache.stats()
	s.Files, s.Processes = files, procs
	s.CacheBytes, s.Evicted = filesBytes+procsBytes, filesEvicted+procsEvicted
	return s
}
