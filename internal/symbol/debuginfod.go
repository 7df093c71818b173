package symbol

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Debuginfod says where the debug symbols of stripped files are fetched from. It
// is off unless there is a URL: the servers learn the build ids of what runs here.
type Debuginfod struct {
	URLs      []string      // of servers, asked in this order
	Dir       string        // keeps what was fetched; required
	Bytes     int64         // bounds what is kept; 0: 1 GiB
	FileBytes int64         // bounds one file; 0: 256 MiB
	Timeout   time.Duration // of one file from one server; 0: a minute
}

const (
	// absentFor is how long a file that no server has is not asked for again, and
	// failedFor one that could not be had.
	absentFor = 6 * time.Hour
	failedFor = 10 * time.Minute
	// maxAsked bounds the build ids that are remembered.
	maxAsked = 16384
	// maxTold bounds who is told of one file; the others look again by themselves.
	maxTold = 64
	// leftBehind is the age at which a file that is not whole is nobody's any more.
	leftBehind = time.Hour
)

var errAbsent = errors.New("no server has it")

// Fetcher fetches files of debug symbols, for all Resolvers of a process. A nil
// one has none.
type Fetcher struct {
	o    Debuginfod
	crew *crew

	mu    sync.Mutex
	until map[string]time.Time // by build id: not to be asked for before
	busy  map[string][]func()  // by build id: who is to be told

	fetched, absent, failed atomic.Uint64
}

// NewFetcher returns nil when there is no server to ask, or no place to keep what
// it has.
func NewFetcher(o Debuginfod) *Fetcher {
	if len(o.URLs) == 0 || o.Dir == "" {
		return nil
	}
	o.Bytes = cmp.Or(o.Bytes, 1<<30)
	o.FileBytes = min(cmp.Or(o.FileBytes, 256<<20), o.Bytes)
	o.Timeout = cmp.Or(o.Timeout, time.Minute)
	return &Fetcher{o: o, crew: newCrew(1, 64), until: make(map[string]time.Time), busy: make(map[string][]func())}
}

func (f *Fetcher) path(id string) string { return filepath.Join(f.o.Dir, id+".debug") }

// open opens what was fetched for a build id, nil when there is nothing.
func (f *Fetcher) open(id string) *os.File {
	if f == nil || id == "" {
		return nil
	}
	file, err := os.Open(f.path(id))
	if err != nil {
		return nil
	}
	now := time.Now()
	os.Chtimes(f.path(id), now, now) //nolint:errcheck // it only orders what is dropped first
	return file
}

// want has the file of a build id fetched in the background, unless that was
// tried lately, and calls then when it is there.
func (f *Fetcher) want(id string, then func()) {
	if f == nil || id == "" {
		return
	}
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	if who, ok := f.busy[id]; ok {
		if len(who) < maxTold {
			f.busy[id] = append(who, then)
		}
		return
	}
	if now.Before(f.until[id]) {
		return
	}
	if len(f.until) >= maxAsked {
		clear(f.until)
	}
	if f.crew.do(func() { f.fetch(id) }) {
		f.busy[id] = []func(){then}
	}
}

// fetch asks one server after the other.
func (f *Fetcher) fetch(id string) {
	err := errAbsent
	for _, url := range f.o.URLs {
		if err = f.from(url, id); err == nil {
			break
		}
	}
	again := absentFor
	switch {
	case err == nil:
		f.fetched.Add(1)
		f.trim(id)
	case errors.Is(err, errAbsent):
		f.absent.Add(1)
	default:
		f.failed.Add(1)
		again = failedFor
	}
	f.mu.Lock()
	who := f.busy[id]
	delete(f.busy, id)
	f.until[id] = time.Now().Add(again)
	f.mu.Unlock()
	if err == nil {
		for _, then := range who {
			then()
		}
	}
}

// from fetches a file from one server and keeps it if it is what was asked for.
func (f *Fetcher) from(url, id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), f.o.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(url, "/")+"/buildid/"+id+"/debuginfo", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("fetch debug symbols: %w", err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return errAbsent
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("fetch debug symbols: %s", resp.Status)
	case resp.ContentLength > f.o.FileBytes:
		return fmt.Errorf("fetch debug symbols: %w", errTooLarge)
	}
	return f.keep(resp.Body, id)
}

// keep writes a file under its build id when it is whole.
func (f *Fetcher) keep(r io.Reader, id string) error {
	if err := os.MkdirAll(f.o.Dir, 0o755); err != nil {
		return fmt.Errorf("keep debug symbols: %w", err)
	}
	tmp, err := os.CreateTemp(f.o.Dir, "part-*")
	if err != nil {
		return fmt.Errorf("keep debug symbols: %w", err)
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	n, err := io.Copy(tmp, io.LimitReader(r, f.o.FileBytes+1))
	switch {
	case err != nil:
		return fmt.Errorf("fetch debug symbols: %w", err)
	case n > f.o.FileBytes:
		return fmt.Errorf("fetch debug symbols: %w", errTooLarge)
	case !sameBuild(tmp, id):
		return errors.New("fetch debug symbols: the server sent another file")
	}
	return os.Rename(tmp.Name(), f.path(id))
}

// trim drops the files that were not used for longest, and what a run that was
// killed left behind.
func (f *Fetcher) trim(keep string) {
	entries, err := os.ReadDir(f.o.Dir)
	if err != nil {
		return
	}
	type kept struct {
		path string
		size int64
		at   time.Time
	}
	var all []kept
	var total int64
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue
		}
		path := filepath.Join(f.o.Dir, e.Name())
		if strings.HasPrefix(e.Name(), "part-") && time.Since(info.ModTime()) > leftBehind {
			os.Remove(path) //nolint:errcheck // tried again the next time
			continue
		}
		if strings.HasSuffix(e.Name(), ".debug") {
			all = append(all, kept{path, info.Size(), info.ModTime()})
			total += info.Size()
		}
	}
	slices.SortFunc(all, func(x, y kept) int { return x.at.Compare(y.at) })
	for _, k := range all {
		if total <= f.o.Bytes {
			return
		}
		if k.path != f.path(keep) && os.Remove(k.path) == nil {
			total -= k.size
		}
	}
}
