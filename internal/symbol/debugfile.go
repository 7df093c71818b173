package symbol

import (
	"bytes"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	// maxDebugFile bounds a file of debug symbols whose checksum is made: 0.5 s
	// of work. A larger one is found by its build id alone.
	maxDebugFile = 1 << 30
	maxNote      = 64 << 10
	minBuildID   = 4 // bytes; linkers write 8, 16 or 20
	maxBuildID   = 64
	buildIDNote  = 3 // NT_GNU_BUILD_ID
)

// stripped is what a file says of the one that holds its debug symbols.
type stripped struct {
	buildID string // hex
	link    string // base name, from .gnu_debuglink
	crc     uint32 // of that file
}

// stripped returns what the file says of its debug symbols.
func (l *loader) stripped() stripped {
	s := stripped{buildID: l.obj.buildID}
	sec := l.f.Section(".gnu_debuglink")
	if sec == nil || sec.Type == elf.SHT_NOBITS {
		return s
	}
	b, err := l.bytes(sec.Offset, sec.FileSize, maxName)
	if err != nil {
		return s
	}
	name, _, ok := bytes.Cut(b, []byte{0})
	at := (len(name) + 4) &^ 3 // behind the NUL, on a multiple of four
	if !ok || len(b) < at+4 || len(name) == 0 || bytes.ContainsRune(name, '/') || string(name) == ".." {
		return s
	}
	s.link, s.crc = string(name), l.f.ByteOrder.Uint32(b[at:])
	return s
}

// strippedOf returns what a file says of its debug symbols, nothing if it cannot
// be read.
func strippedOf(r io.ReaderAt) (s stripped) {
	defer func() {
		if recover() != nil { // as in loadObject
			s = stripped{}
		}
	}()
	l := &loader{r: &budgetReader{r: r, left: headerBudget}, obj: &object{}}
	f, err := elf.NewFile(l.r)
	if err != nil {
		return s
	}
	l.f = f
	l.obj.buildID = l.buildID()
	return l.stripped()
}

// buildID returns the build id in hex, "" if there is none.
func (l *loader) buildID() string {
	for _, s := range l.f.Sections {
		if s.Type == elf.SHT_NOTE && s.Name == ".note.gnu.build-id" {
			if id := l.noteID(s.Offset, s.FileSize); id != "" {
				return id
			}
		}
	}
	for _, p := range l.f.Progs { // a file without section headers has it there
		if p.Type == elf.PT_NOTE {
			if id := l.noteID(p.Off, p.Filesz); id != "" {
				return id
			}
		}
	}
	return ""
}

// noteID looks for the build id in a part of the file that holds notes.
func (l *loader) noteID(off, size uint64) string {
	b, err := l.bytes(off, min(size, maxNote), maxNote)
	if err != nil {
		return ""
	}
	for len(b) >= 12 {
		nameSize, size, kind := uint64(l.f.ByteOrder.Uint32(b)), uint64(l.f.ByteOrder.Uint32(b[4:])), l.f.ByteOrder.Uint32(b[8:])
		b = b[12:]
		nameEnd := (nameSize + 3) &^ 3
		end := nameEnd + (size+3)&^3
		if nameEnd+size > uint64(len(b)) {
			return ""
		}
		if kind == buildIDNote && nameSize == 4 && string(b[:4]) == "GNU\x00" && size >= minBuildID && size <= maxBuildID {
			return hex.EncodeToString(b[nameEnd:][:size])
		}
		b = b[min(end, uint64(len(b))):]
	}
	return ""
}

// place is where a process sees a file.
type place struct {
	pid  uint32 // 0: the host
	path string
}

// search returns how the debug symbols of a file at a place are found: below the
// root of its process first, then on the host, which a build id alone leads to.
func (r *Resolver) search(at place) search {
	return func(s stripped) *os.File {
		if at.pid != 0 {
			if f := openDebug(r.path(at.pid, "root"), s, at.path); f != nil {
				return f
			}
		}
		host := filepath.Dir(r.proc)
		if f := openDebug(host, s, at.path); f != nil {
			return f
		}
		return r.fetch.open(s.buildID)
	}
}

// openDebug looks where debuggers look, below a root.
func openDebug(root string, s stripped, at string) *os.File {
	const debug = "/usr/lib/debug"
	if len(s.buildID) > 2*minBuildID-1 {
		if f := openIn(root, path.Join(debug, ".build-id", s.buildID[:2], s.buildID[2:]+".debug")); f != nil {
			if sameBuild(f, s.buildID) {
				return f
			}
			f.Close()
		}
	}
	if s.link == "" || at == "" {
		return nil
	}
	dir := path.Dir(at)
	for _, p := range [...]string{path.Join(dir, s.link), path.Join(dir, ".debug", s.link), path.Join(debug, dir, s.link)} {
		if p == at {
			continue // a file that names itself
		}
		f := openIn(root, p)
		if f == nil {
			continue
		}
		if sameSum(f, s.crc) {
			return f
		}
		f.Close()
	}
	return nil
}

// openIn opens a regular file below a root, following links as who lives there
// would; nil if there is none.
func openIn(root, name string) *os.File {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, name, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) { // before Linux 5.6; a seccomp filter that does not know it
		fd, err = walk(root, name)
	}
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil
	}
	f, _, why := reopen(fmt.Sprintf("/proc/self/fd/%d", fd), &st)
	if why != named {
		return nil
	}
	return f
}

// sameBuild says whether a file has the build id.
func sameBuild(r io.ReaderAt, id string) (same bool) {
	defer func() {
		if recover() != nil { // as in loadObject
			same = false
		}
	}()
	l := &loader{r: &budgetReader{r: r, left: headerBudget}}
	f, err := elf.NewFile(l.r)
	if err != nil {
		return false
	}
	l.f = f
	return l.buildID() == id
}

// sameSum says whether a file has the checksum.
func sameSum(f *os.File, crc uint32) bool {
	info, err := f.Stat()
	if err != nil || info.Size() > maxDebugFile {
		return false
	}
	h := crc32.NewIEEE()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, info.Size())); err != nil {
		return false
	}
	return h.Sum32() == crc
}
