package symbol

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
)

// vdso is the object of the vDSO, the code that the kernel maps into every
// process. It is read from the agent's own memory: another process can put
// anything in its place.
type vdso struct {
	once sync.Once
	size uint64
	obj  *object
}

// object returns the vDSO's object if it is of the size that a process has
// mapped. That of a 32-bit process is another one.
func (v *vdso) object(size uint64) result {
	v.once.Do(func() {
		b, err := ownVDSO()
		if err != nil {
			return
		}
		v.size, v.obj = uint64(len(b)), loadObject(bytes.NewReader(b), 1<<20, nil)
	})
	if v.obj == nil || v.size != size {
		return result{why: otherABI}
	}
	return result{object: v.obj}
}

func ownVDSO() ([]byte, error) {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	maps, err := parseMaps(f, newImage)
	if err != nil {
		return nil, err
	}
	for _, m := range maps {
		if m.image.kind != vdsoPage {
			continue
		}
		mem, err := os.Open("/proc/self/mem")
		if err != nil {
			return nil, err
		}
		defer mem.Close()
		b := make([]byte, m.end-m.start) // some pages
		if _, err := io.ReadFull(io.NewSectionReader(mem, int64(m.start), int64(len(b))), b); err != nil {
			return nil, err
		}
		return b, nil
	}
	return nil, errors.New("find vDSO: not mapped")
}
