package profiles

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"

	"huatuo/internal/signal"
)

const (
	captureSuffix = ".capture"
	magicCapture  = "huatuo capture 1\n"
)

// Kinds of chunk of a capture.
const (
	chunkInfo   = 1 // JSON of signal.CaptureInfo
	chunkGraphs = 2 // JSON of the graphs
)

// ErrNoCapture is returned for a capture that was never kept, or is no more.
var ErrNoCapture = errors.New("no capture of that id: it was never taken, or is older than what is kept")

// KeepCapture keeps a capture under its id, which is a ULID.
func (s *Store) KeepCapture(c *signal.Capture) error {
	id, err := ulid.ParseStrict(c.ID)
	if err != nil {
		return fmt.Errorf("id of a capture: %w", err)
	}
	info, err := json.Marshal(c.CaptureInfo)
	if err != nil {
		return fmt.Errorf("encode a capture: %w", err)
	}
	graphs, err := json.Marshal(c.Graphs)
	if err != nil {
		return fmt.Errorf("encode a capture: %w", err)
	}
	path := filepath.Join(s.o.Dir, id.String()+captureSuffix)
	if err := writeCapture(path+tempSuffix, info, graphs); err != nil {
		return errors.Join(err, os.Remove(path+tempSuffix))
	}
	if err := os.Rename(path+tempSuffix, path); err != nil {
		return fmt.Errorf("keep a capture: %w", err)
	}
	return s.retainCaptures()
}

func writeCapture(path string, info, graphs []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("make a file: %w", err)
	}
	c := chunkFile{path: path, f: f}
	if c.enc, err = smallEncoder(); err == nil {
		err = c.put([]byte(magicCapture))
	}
	if err == nil {
		err = c.chunk(chunkInfo, info, 0, 0)
	}
	if err == nil {
		err = c.chunk(chunkGraphs, graphs, 0, 0)
	}
	return errors.Join(err, c.close())
}

// Capture returns a capture with its stacks.
func (s *Store) Capture(id string) (*signal.Capture, error) {
	u, err := ulid.ParseStrict(id)
	if err != nil {
		return nil, ErrNoCapture
	}
	c := &signal.Capture{}
	err = readCapture(filepath.Join(s.o.Dir, u.String()+captureSuffix), &c.CaptureInfo, &c.Graphs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoCapture
	}
	return c, err
}

// RemoveCapture removes a capture.
func (s *Store) RemoveCapture(id string) error {
	u, err := ulid.ParseStrict(id)
	if err != nil {
		return ErrNoCapture
	}
	err = os.Remove(filepath.Join(s.o.Dir, u.String()+captureSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNoCapture
	}
	return err
}

// Captures lists captures without their stacks, the newest first.
func (s *Store) Captures(most int) ([]signal.CaptureInfo, error) {
	files, err := s.captureFiles()
	if err != nil {
		return nil, err
	}
	slices.Reverse(files)
	out := []signal.CaptureInfo{}
	for _, f := range files[:min(most, len(files))] {
		var info signal.CaptureInfo
		err := readCapture(f.path, &info, nil)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errDamaged) {
			continue // retention was faster, or the disk is bad: the others are there
		}
		if err != nil {
			return nil, err
		}
		out = append(out, info)
	}
	return out, nil
}

// readCapture reads a file as far as it is asked for.
func readCapture(path string, info *signal.CaptureInfo, graphs *[]*signal.FlameGraph) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return readCaptureFrom(bufio.NewReaderSize(f, 16<<10), info, graphs)
}

func readCaptureFrom(in *bufio.Reader, info *signal.CaptureInfo, graphs *[]*signal.FlameGraph) error {
	r, version, err := newChunkReader(in)
	if err != nil {
		return err
	}
	defer r.dec.Close()
	if version != versionCapture {
		return fmt.Errorf("no capture: %w", errDamaged)
	}
	for {
		kind, _, _, err := r.header()
		if err == io.EOF {
			err = fmt.Errorf("capture is cut off: %w", errDamaged)
		}
		if err != nil {
			return err
		}
		payload, err := r.payload()
		if err != nil {
			return err
		}
		var into any
		switch kind {
		case chunkInfo:
			into = info
		case chunkGraphs:
			into = graphs
		default:
			continue
		}
		if err := json.Unmarshal(payload, into); err != nil {
			return fmt.Errorf("capture: %w: %w", errDamaged, err)
		}
		if kind == chunkGraphs || graphs == nil {
			return nil
		}
	}
}

// captureFiles lists the captures, oldest first: their names begin with the time.
func (s *Store) captureFiles() ([]segmentFile, error) {
	entries, err := os.ReadDir(s.o.Dir)
	if err != nil {
		return nil, fmt.Errorf("list captures: %w", err)
	}
	var out []segmentFile
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), captureSuffix)
		if _, err := ulid.ParseStrict(name); !ok || err != nil {
			continue
		}
		if info, err := e.Info(); err == nil { // else it has just been removed
			out = append(out, segmentFile{path: filepath.Join(s.o.Dir, e.Name()), size: info.Size(), mtime: info.ModTime()})
		}
	}
	return out, nil
}

func (s *Store) retainCaptures() error {
	s.captures.Lock()
	defer s.captures.Unlock()
	files, err := s.captureFiles()
	if err != nil {
		return err
	}
	return s.remove(files, s.o.MaxCaptureBytes, s.o.MaxHoursAge)
}
