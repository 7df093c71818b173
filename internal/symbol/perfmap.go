package symbol

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// perfMapBytes bounds the table of one perf map: some 50,000 functions.
	perfMapBytes = 4 << 20
	// perfMapRead bounds what is read of one at a time.
	perfMapRead = 16 << 20
	// perfMapFor is how long a map is not looked at again for a missing address.
	perfMapFor = time.Second
)

// errForeign says that a file does not belong to the process it is about.
var errForeign = errors.New("not the process' own file")

// perfMap is /tmp/perf-PID.map of one process, which its runtime appends to
// while it compiles.
type perfMap struct {
	mu      sync.Mutex
	entries []perfEntry
	text    []byte
	key     fileKey // size is how much was read
	at      time.Time
	why     reason // why an address is not in it
}

type perfEntry struct {
	addr       uint64
	size       uint32
	name, long uint32 // offset and length in text
}

const perfEntryBytes = 24

func (p *perfMap) bytes() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int64(cap(p.entries))*perfEntryBytes + int64(cap(p.text))
}

// stale says whether the file is worth another look for pc.
func (p *perfMap) stale(pc uint64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.lookup(pc)
	return !ok && time.Since(p.at) > perfMapFor
}

// find returns the name of what was compiled at pc last.
func (p *perfMap) find(pc uint64) (string, reason) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.lookup(pc)
	switch {
	case ok:
		return string(p.text[e.name:][:e.long]), named
	case p.at.IsZero():
		return "", notReady
	default:
		return "", p.why
	}
}

func (p *perfMap) lookup(pc uint64) (perfEntry, bool) {
	i, exact := slices.BinarySearchFunc(p.entries, pc, func(e perfEntry, pc uint64) int { return cmp.Compare(e.addr, pc) })
	if !exact {
		i--
	}
	for n := 0; n < maxNested && i >= 0; n, i = n+1, i-1 {
		if e := p.entries[i]; pc-e.addr < uint64(e.size) {
			return e, true
		}
	}
	return perfEntry{}, false
}

// update reads what was appended to the file since the last time.
func (p *perfMap) update(f io.ReadSeeker, key fileKey) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if key.dev != p.key.dev || key.inode != p.key.inode || key.size < p.key.size {
		p.entries, p.text, p.key = nil, nil, fileKey{dev: key.dev, inode: key.inode}
	}
	if _, err := f.Seek(p.key.size, io.SeekStart); err != nil {
		return err
	}
	br := bufio.NewReaderSize(io.LimitReader(f, perfMapRead), chunk)
	for {
		line, err := br.ReadSlice('\n')
		if err == io.EOF {
			break // what has no newline yet is read again, whole
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		p.key.size += int64(len(line))
		if int64(len(p.entries))*perfEntryBytes+int64(len(p.text)) > perfMapBytes {
			err = errTooLarge
			p.sort()
			return err
		}
		p.add(line)
	}
	p.sort()
	return nil
}

// add takes a line: "START SIZE name", numbers in hex.
func (p *perfMap) add(line []byte) {
	from, rest, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
	length, name, ok := bytes.Cut(rest, []byte(" "))
	addr, err1 := strconv.ParseUint(strings.TrimPrefix(string(from), "0x"), 16, 64)
	size, err2 := strconv.ParseUint(strings.TrimPrefix(string(length), "0x"), 16, 32)
	if !ok || err1 != nil || err2 != nil || size == 0 || len(name) == 0 {
		return
	}
	name = name[:min(len(name), maxName)]
	p.entries = append(p.entries, perfEntry{addr, uint32(size), uint32(len(p.text)), uint32(len(name))})
	p.text = append(p.text, name...)
}

// sort orders the entries. Of those that begin at one address the last one in
// the file stays: the code was thrown away and its place used again.
func (p *perfMap) sort() {
	slices.SortFunc(p.entries, func(x, y perfEntry) int {
		if c := cmp.Compare(x.addr, y.addr); c != 0 {
			return c
		}
		return cmp.Compare(y.name, x.name)
	})
	p.entries = slices.CompactFunc(p.entries, func(x, y perfEntry) bool { return x.addr == y.addr })
}

// loadPerfMap brings the perf map of a process up to date.
func (r *Resolver) loadPerfMap(p *process) {
	f, key, err := r.openPerfMap(p)
	why := noPerfMap
	if err == nil {
		defer f.Close()
		err = p.perf.update(f, key)
		why = noPerfEntry
	}
	if errors.Is(err, errTooLarge) {
		why = tooLarge
	}
	p.perf.mu.Lock()
	if len(p.perf.entries) > 0 && why == noPerfMap {
		why = noPerfEntry // the process has ended
	}
	p.perf.why, p.perf.at = why, time.Now()
	p.perf.mu.Unlock()
	r.account(p)
}

// openPerfMap opens the perf map in the file system, and under the id, that
// the process itself sees. Anybody may write to /tmp, so the map must belong
// to the user the process runs as, or to root.
func (r *Resolver) openPerfMap(p *process) (*os.File, fileKey, error) {
	status, err := os.ReadFile(r.path(p.key.pid, "status"))
	if err != nil {
		return nil, fileKey{}, err
	}
	pid := strconv.FormatUint(uint64(p.key.pid), 10)
	if f := statusField(status, "NSpid:"); len(f) > 0 { // absent before Linux 4.1
		pid = f[len(f)-1]
	}
	fd, err := walk(r.path(p.key.pid, "root"), filepath.Join("tmp", "perf-"+pid+".map"))
	if err != nil {
		return nil, fileKey{}, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fileKey{}, err
	}
	uid := strconv.FormatUint(uint64(st.Uid), 10)
	if ids := statusField(status, "Uid:"); st.Uid != 0 && (len(ids) < 2 || ids[1] != uid) {
		return nil, fileKey{}, errForeign
	}
	f, key, why := reopen("/proc/self/fd/"+strconv.Itoa(fd), &st)
	if why != named {
		return nil, fileKey{}, errForeign
	}
	return f, key, nil
}

// statusField returns the words of one line of /proc/PID/status.
func statusField(status []byte, name string) []string {
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strings.Fields(rest)
		}
	}
	return nil
}
