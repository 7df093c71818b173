package symbol

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unique"
)

// maxMappings bounds the executable mappings of one process that are kept. A
// JVM or a browser has some hundred.
const maxMappings = 4096

// kind is what stands behind a mapping.
type kind uint8

const (
	regular   kind = iota // a file
	anonymous             // nothing: code that the process wrote
	memory                // a memfd or shared memory, which JIT compilers use too
	vdsoPage
	special // the kernel's, as vsyscall: it has no names
)

// compiled says whether the runtime in the process made the code there.
func (k kind) compiled() bool { return k == anonymous || k == memory }

// mapping is a range of addresses that holds code.
type mapping struct {
	start, end, offset uint64
	image              *image
	deleted            bool // another file may have the path now
}

// space is what a process had mapped as code at one time, sorted by address.
// It is immutable.
type space struct {
	maps []mapping
	at   time.Time     // when it was read
	cost time.Duration // how long that took
}

func (s *space) find(pc uint64) *mapping {
	i, exact := slices.BinarySearchFunc(s.maps, pc, func(m mapping, pc uint64) int { return cmp.Compare(m.start, pc) })
	if !exact {
		i--
	}
	if i < 0 || pc >= s.maps[i].end {
		return nil
	}
	return &s.maps[i]
}

// imageKey tells the files that one process maps apart.
type imageKey struct {
	path  unique.Handle[string] // as in the maps, but without " (deleted)"
	dev   uint64                // as unix.Mkdev encodes it
	inode uint64
}

// parseMaps reads text in the form of /proc/PID/maps. image returns the image
// of a key.
func parseMaps(r io.Reader, image func(imageKey) *image) ([]mapping, error) {
	br := bufio.NewReaderSize(r, 8<<10) // a line has a path of at most 4 KB, escaped
	var maps []mapping
	for len(maps) < maxMappings {
		line, err := br.ReadSlice('\n')
		if m, key, ok := parseMapping(line); ok {
			m.image = image(key)
			maps = append(maps, m)
		}
		if err == io.EOF {
			break
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) { // what follows a full buffer is no mapping
			return nil, err
		}
	}
	slices.SortFunc(maps, func(x, y mapping) int { return cmp.Compare(x.start, y.start) })
	return slices.Clip(maps), nil
}

// parseMapping reads one line, such as
// "7f4ed2a7d000-7f4ed2a87000 r-xp 00027000 fe:00 325835    /usr/lib/ld.so".
// It passes over mappings that are not executable.
func parseMapping(line []byte) (m mapping, key imageKey, ok bool) {
	line = bytes.TrimSuffix(line, []byte("\n"))
	var f [5][]byte
	for i := range f {
		f[i], line, _ = bytes.Cut(line, []byte(" "))
	}
	if len(f[1]) < 3 || f[1][2] != 'x' {
		return m, key, false
	}
	from, to, _ := bytes.Cut(f[0], []byte("-"))
	major, minor, _ := bytes.Cut(f[3], []byte(":"))
	var n [5]uint64
	for i, b := range [...][]byte{from, to, f[2], major, minor} {
		v, err := strconv.ParseUint(string(b), 16, 64)
		if err != nil {
			return m, key, false
		}
		n[i] = v
	}
	inode, err := strconv.ParseUint(string(f[4]), 10, 64)
	if err != nil || n[0] >= n[1] {
		return m, key, false
	}
	m = mapping{start: n[0], end: n[1], offset: n[2]}
	path, deleted := strings.CutSuffix(strings.TrimLeft(string(line), " "), " (deleted)")
	m.deleted = deleted
	path = strings.ReplaceAll(path, `\012`, "\n") // the one character that the kernel escapes
	return m, imageKey{unique.Make(path), mkdev(n[3], n[4]), inode}, true
}

// mkdev encodes a device number as stat(2) does.
func mkdev(major, minor uint64) uint64 {
	return major&0xfff<<8 | major&^0xfff<<32 | minor&0xff | minor&^0xff<<12
}

func kindOf(path string, inode uint64) kind {
	switch {
	case path == "[vdso]":
		return vdsoPage
	case path == "" || path == "//anon" || strings.HasPrefix(path, "[anon:"):
		return anonymous
	case strings.HasPrefix(path, "/memfd:"), strings.HasPrefix(path, "/SYSV"), strings.HasPrefix(path, "/dev/shm/"),
		strings.HasPrefix(path, "[anon_shmem:"), path == "/dev/zero", path == "[heap]", path == "[stack]":
		return memory
	case path[0] == '/' && inode != 0:
		return regular
	default:
		return special
	}
}

// image is one thing that a process maps.
type image struct {
	key  imageKey
	kind kind

	state imageState
}

func newImage(k imageKey) *image {
	return &image{key: k, kind: kindOf(k.path.Value(), k.inode)}
}

// module returns what Frame.Module says.
func (i *image) module() string {
	if i.kind == anonymous {
		return "[anon]"
	}
	return i.key.path.Value()
}
