package naming

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// podmanStore reads the files that podman keeps, for the machine where no
// service of it runs, which is the rule: podman has no daemon.
//
// The list of containers (<root>/<driver>-containers/containers.json) has names
// and images. Labels, pods and starts are in podman's database.
type podmanStore struct {
	patterns []string // of storage roots, and of run roots, where containers of `podman run --rm` are

	mu    sync.Mutex
	files map[string]*storeFile
}

// storeFile is one list, as it was when it was read last.
type storeFile struct {
	changed time.Time
	size    int64
	list    []Container
}

func openPodmanStore(_ context.Context, patterns []string) (Source, error) {
	s := &podmanStore{patterns: patterns, files: map[string]*storeFile{}}
	if len(s.lists()) == 0 {
		return nil, fmt.Errorf("%w: no containers of podman below %q", ErrAbsent, patterns)
	}
	return s, nil
}

// Close has nothing to give back.
func (s *podmanStore) Close() {}

// lists returns the paths of the lists of containers.
func (s *podmanStore) lists() (paths []string) {
	for _, p := range s.patterns {
		// Matching fails for a malformed pattern only: then nothing is there.
		for _, name := range [...]string{"containers.json", "volatile-containers.json"} {
			found, _ := filepath.Glob(filepath.Join(p, "*-containers", name))
			paths = append(paths, found...)
		}
	}
	return paths
}

// List returns all containers in the lists, running or not: the files do not
// tell, and the registry asks for what it sees running.
func (s *podmanStore) List(ctx context.Context) ([]Container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Container
	var errs []error
	seen := map[string]bool{}
	for _, p := range s.lists() {
		seen[p] = true
		list, err := s.read(ctx, p)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		out = append(out, list...)
	}
	for p := range s.files {
		if !seen[p] {
			delete(s.files, p)
		}
	}
	return out, errors.Join(errs...)
}

// read returns the containers of one list, from memory when the file has not
// changed: podman replaces it for each container that comes and goes.
func (s *podmanStore) read(ctx context.Context, path string) ([]Container, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read podman's containers: %w", err)
	}
	if f := s.files[path]; f != nil && f.changed.Equal(fi.ModTime()) && f.size == fi.Size() {
		return f.list, nil
	}
	b, err := readRegular(path)
	if err != nil {
		return nil, fmt.Errorf("read podman's containers: %w", err)
	}
	list, err := parseStore(b)
	if err != nil {
		return nil, fmt.Errorf("read podman's containers in %s: %w", path, err)
	}
	// A container is in the list before it is in the database.
	if s.addDetails(ctx, filepath.Dir(filepath.Dir(path)), list) {
		s.files[path] = &storeFile{changed: fi.ModTime(), size: fi.Size(), list: list}
	}
	return list, nil
}

// maxList bounds a list: a container takes 600 bytes.
const maxList = 16 << 20

// readRegular reads a file that any user may have put there: it neither waits
// for a pipe, nor follows a link, nor reads without end.
func readRegular(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxList {
		return nil, fmt.Errorf("%s is not a file of less than %d bytes", path, maxList)
	}
	return io.ReadAll(io.LimitReader(f, maxList))
}

// addDetails adds what the database tells. It is in the storage root, which the
// list of a run root does not name, so the others are tried. A failure is no
// reason to give up the names. It returns whether all are complete.
func (s *podmanStore) addDetails(ctx context.Context, root string, list []Container) bool {
	roots := []string{root}
	for _, p := range s.patterns {
		found, _ := filepath.Glob(p)
		roots = append(roots, found...)
	}
	left := make(map[string]*Container, len(list))
	for i := range list {
		left[list[i].ID] = &list[i]
	}
	for _, r := range roots {
		if len(left) == 0 {
			break
		}
		details, err := readPodmanDB(ctx, r, left)
		if err != nil {
			continue
		}
		for id, d := range details {
			left[id].merge(&d)
			delete(left, id)
		}
	}
	return len(left) == 0
}

// parseStore reads a list of containers/storage. CRI-O and Buildah have such
// lists too: theirs are not podman's, and have other metadata.
func parseStore(b []byte) ([]Container, error) {
	var all []struct {
		ID       string   `json:"id"`
		Names    []string `json:"names"`
		Metadata string   `json:"metadata"`
	}
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, err
	}
	var out []Container
	for _, a := range all {
		var m struct {
			Image     string `json:"image-name"`
			Name      string `json:"name"`
			PodName   string `json:"pod-name"`  // CRI-O's
			Namespace string `json:"namespace"` // CRI-O's
		}
		// Another program's metadata may be anything; its containers are not
		// this source's.
		if json.Unmarshal([]byte(a.Metadata), &m) != nil || a.ID == "" || m.Name == "" || m.PodName != "" {
			continue
		}
		c := Container{ID: a.ID, Name: m.Name, Image: m.Image, Runtime: "podman"}
		if len(a.Names) > 0 && a.Names[0] != "" { // `podman rename` changes this one
			c.Name = a.Names[0]
		}
		out = append(out, c)
	}
	return out, nil
}

// Inspect returns one container.
func (s *podmanStore) Inspect(ctx context.Context, id string) (Container, error) {
	list, err := s.List(ctx)
	for _, c := range list {
		if c.ID == id {
			return c, nil
		}
	}
	if err != nil {
		return Container{}, err
	}
	return Container{}, ErrUnknown
}

// Watch is not offered: a look at the files' times is as good.
func (s *podmanStore) Watch(context.Context, func(), func(string)) error {
	return fmt.Errorf("files have no stream: %w", errors.ErrUnsupported)
}
