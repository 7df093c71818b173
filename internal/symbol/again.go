package symbol

import (
	"os"

	"golang.org/x/sys/unix"

	"huatuo/internal/signal"
)

// Again names those of the frames that had no name when they were seen and whose
// debug symbols are there by now: on the host, or fetched since. It changes them
// in place and returns how many. A frame stays one frame: what was inlined is not
// told apart, nor are there lines. It reads files, and is for who looks at what
// was kept.
func (r *Resolver) Again(frames []signal.Frame) (n int) {
	found := make(map[string]*object)
	for i := range frames {
		f := &frames[i]
		if f.Missing == "" || f.BuildID == "" {
			continue
		}
		obj, ok := found[f.BuildID]
		if !ok {
			obj = r.debugObject(f.BuildID)
			found[f.BuildID] = obj
		}
		if obj == nil {
			continue
		}
		if name, _, _, ok := obj.find(f.Offset); ok {
			*f = signal.Frame{Function: r.names.show(name), Module: f.Module}
			n++
		}
	}
	return n
}

// debugObject returns what the file of debug symbols of a build id tells, nil when
// there is none.
func (r *Resolver) debugObject(id string) *object {
	if !isHex(id) {
		return nil // it comes from a file that was kept
	}
	f := r.search(place{})(stripped{buildID: id})
	if f == nil {
		return nil
	}
	defer f.Close()
	key, err := keyOfFile(f)
	if err != nil {
		return nil
	}
	return r.objects.load(key, func() *object { return loadObject(f, r.fileBytes, nil) })
}

func isHex(s string) bool {
	for _, c := range s {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(s) >= 2*minBuildID && len(s) <= 2*maxBuildID
}

func keyOfFile(f *os.File) (fileKey, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return fileKey{}, err
	}
	return keyOf(&st), nil
}
