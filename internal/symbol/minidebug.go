package symbol

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/ulikunitz/xz/lzma"
)

const (
	// maxPacked and maxUnpacked bound .gnu_debugdata. That of a file with 50,000
	// functions has 1 MB, and 6 MB unpacked, which takes 0.2 s.
	maxPacked   = 8 << 20
	maxUnpacked = 32 << 20
)

// embedded reads the symbols in .gnu_debugdata, an ELF file of symbols alone that
// distributions pack into what they strip.
func (l *loader) embedded() (bool, error) {
	s := l.f.Section(".gnu_debugdata")
	if s == nil || s.Type == elf.SHT_NOBITS {
		return false, nil
	}
	packed, err := l.bytes(s.Offset, s.FileSize, maxPacked)
	if err != nil {
		return false, fmt.Errorf("read .gnu_debugdata: %w", err)
	}
	b, err := unpackXZ(packed, maxUnpacked)
	if err != nil {
		return false, fmt.Errorf("unpack .gnu_debugdata: %w", err)
	}
	sub, err := l.other(bytes.NewReader(b))
	if err != nil {
		return false, fmt.Errorf("read .gnu_debugdata: %w", err)
	}
	return sub.symbols(elf.SHT_SYMTAB)
}

var errXZ = errors.New("malformed xz data")

const (
	xzMagic      = "\xfd7zXZ\x00"
	xzHeader     = 12
	lzma2        = 0x21 // the only filter that is used without a machine's own
	minBlock     = 8
	maxDicts     = 4 // of the largest size, for all blocks together
	minLZMA2Dict = 4 << 10
)

// unpackXZ unpacks a file in the xz format, of one stream and no other filter
// than LZMA2, that has at most limit bytes. The container is read here and not by
// the library, which sets aside as much memory as a file says it needs: up to
// 4 GB. Checksums are not looked at: a changed file is as good as a hostile one.
func unpackXZ(b []byte, limit int) ([]byte, error) {
	if len(b) < xzHeader || string(b[:len(xzMagic)]) != xzMagic {
		return nil, errXZ
	}
	check := xzCheck(b[7] & 0xf)
	r := bytes.NewReader(b)
	r.Seek(xzHeader, io.SeekStart) //nolint:errcheck // it is that long
	var out bytes.Buffer
	for dicts := 0; ; {
		rest := b[len(b)-r.Len():]
		if len(rest) == 0 {
			return nil, errXZ
		}
		if rest[0] == 0 { // the index follows the last block
			return out.Bytes(), nil
		}
		size := (int(rest[0]) + 1) * 4
		if size < minBlock || size > len(rest) {
			return nil, errXZ
		}
		dict, err := blockDict(rest[:size])
		if err != nil {
			return nil, err
		}
		// What a block refers to is never further away than what may be unpacked.
		dict = max(min(dict, limit), minLZMA2Dict)
		if dicts += dict; dicts > maxDicts*max(limit, minLZMA2Dict) { // each one is set to zero: 10 ms for 32 MB
			return nil, errTooLarge
		}
		r.Seek(int64(size), io.SeekCurrent) //nolint:errcheck // checked above
		begin := r.Len()
		lz, err := lzma.Reader2Config{DictCap: dict}.NewReader2(r)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errXZ, err)
		}
		if _, err := io.CopyN(&out, lz, int64(limit+1-out.Len())); err == nil {
			return nil, errTooLarge
		} else if !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: %w", errXZ, err)
		}
		behind := (4-(begin-r.Len())&3)&3 + check
		if behind > r.Len() {
			return nil, errXZ
		}
		r.Seek(int64(behind), io.SeekCurrent) //nolint:errcheck // checked above
	}
}

// xzCheck is how long the check of a block is.
func xzCheck(kind byte) int {
	if kind == 0 {
		return 0
	}
	return 4 << ((kind - 1) / 3)
}

// blockDict returns the size of the dictionary that a block needs, by its header.
func blockDict(h []byte) (int, error) {
	if h[1]&0x3f != 0 { // more than one filter, or bits that mean nothing
		return 0, fmt.Errorf("%w: unknown filters", errXZ)
	}
	p, unpacked := h[2:], uint64(math.MaxUint64)
	for _, flag := range [...]byte{0x40, 0x80} { // packed and unpacked size
		if h[1]&flag == 0 {
			continue
		}
		v, n := binary.Uvarint(p)
		if n <= 0 {
			return 0, errXZ
		}
		if flag == 0x80 {
			unpacked = v
		}
		p = p[n:]
	}
	if len(p) < 3 || p[0] != lzma2 || p[1] != 1 {
		return 0, fmt.Errorf("%w: unknown filter", errXZ)
	}
	n, err := lzma.DecodeDictCap(p[2])
	if err != nil || n > 1<<32 {
		return 0, errXZ
	}
	return int(min(uint64(n), unpacked)), nil
}
