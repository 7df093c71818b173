package naming

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	pweb5  = "9dbea7f2850f49d50bf4c016119efa52a031541e029e7ca7cffe1d63231456f2"
	prm5   = "d87aff20e9c0ab9cbe886ab312a306f665838ddb420733b9d7d8396e99d5e9c5" // podman run --rm
	inpod5 = "8f7e254cc946a455f68d6dd27abad627e2f1d8ce6cfe0057f35b64b65568f660"
	mypod5 = "1ba1ac1941f6a4cba78465f355d70bdc3e72242d07b389371c8dad6768e76feb"
	pweb4  = "6f05547298d3b5f1a41430266cc8af22517edf7acb68f790f2623a17ae337d0b"
	inpod4 = "84eb835d40587feb71d4469ad4e90665dd1e9d7306a544f91ceb0b41dd47e6f5"
	mypod4 = "e915eb40264b3691e593b1713fa1f20e18244210d2e17bd51a6804d413d52019"
)

// podmanContainer is one of the recorded containers, as every way must tell it.
func podmanContainer(id, name, pod, podID string, started time.Time) Container {
	return Container{
		ID: id, Name: name, Pod: pod, PodUID: podID, Image: "localhost/busybox:1", Runtime: "podman", Started: started,
		Labels: map[string]string{"app": name, "org.example.image": "busybox"},
	}
}

func TestPodman(t *testing.T) {
	ctx := shortly(t)
	address := serve(t, map[string]http.HandlerFunc{
		podmanAPI + "/containers/json":                bytesOf(recorded(t, "podman/list.json")),
		podmanAPI + "/containers/" + inpod5 + "/json": bytesOf(recorded(t, "podman/inspect.json")),
		podmanAPI + "/pods/" + mypod5 + "/json":       bytesOf(recorded(t, "podman/pod.json")),
	})
	s, err := openPodman(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	list, err := s.List(ctx)
	want := []Container{
		podmanContainer(pweb5, "pweb", "", "", time.Unix(1795658407, 0)),
		podmanContainer(prm5, "prm", "", "", time.Unix(1795658407, 0)),
		podmanContainer(inpod5, "inpod", "mypod", mypod5, time.Unix(1795658408, 0)),
	}
	if diff := cmp.Diff(want, list); diff != "" || err != nil {
		t.Errorf("list: %v %s", err, diff)
	}
	got, err := s.Inspect(ctx, inpod5)
	if got.Started.Unix() != 1795658408 {
		t.Errorf("started %v", got.Started)
	}
	got.Started = want[2].Started
	if diff := cmp.Diff(want[2], got); diff != "" || err != nil {
		t.Errorf("inspect: %v %s", err, diff)
	}
	if _, err := s.Inspect(ctx, pweb4); !errors.Is(err, ErrUnknown) {
		t.Errorf("a container that is not there: %v", err)
	}
	if err := s.Watch(ctx, nil, nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("watch: %v", err)
	}
}

// store makes podman's directories from recorded files: the storage root, and
// the run root with the list of containers that do not outlive a boot.
func store(t *testing.T, version string) (root, run string) {
	t.Helper()
	root, run = filepath.Join(t.TempDir(), "root"), filepath.Join(t.TempDir(), "run")
	from := "podman/" + version + "/vfs-containers/"
	put(t, root+"/vfs-containers/containers.json", recorded(t, from+"containers.json"))
	switch version {
	case "sqlite":
		put(t, run+"/vfs-containers/volatile-containers.json", recorded(t, from+"volatile-containers.json"))
		gunzip(t, "podman/sqlite/db.sql.gz", root+"/db.sql")
	case "bolt":
		gunzip(t, "podman/bolt/libpod/bolt_state.db.gz", root+"/libpod/bolt_state.db")
	}
	return root, run
}

func TestPodmanStore(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for version, want := range map[string][]Container{
		"sqlite": {
			podmanContainer(pweb5, "pweb", "", "", at("2026-11-26T02:00:07.150446846Z")),
			podmanContainer(inpod5, "inpod", "mypod", mypod5, at("2026-11-26T02:00:08.44Z")),
			podmanContainer(prm5, "prm", "", "", at("2026-11-26T02:00:07.7Z")),
		},
		"bolt": {
			podmanContainer(pweb4, "pweb", "", "", at("2026-11-26T01:54:38.735306818Z")),
			podmanContainer(inpod4, "inpod", "mypod", mypod4, at("2026-11-26T01:54:49.706112292Z")),
		},
	} {
		t.Run(version, func(t *testing.T) {
			ctx := shortly(t)
			root, run := store(t, version)
			s, err := openPodmanStore(ctx, []string{root, run})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for range 2 { // from the files, and from memory
				list, err := s.List(ctx)
				if err != nil || len(list) != len(want) {
					t.Fatalf("%v %+v", err, list)
				}
				for i := range list {
					if d := list[i].Started.Sub(want[i].Started).Abs(); d > time.Second {
						t.Errorf("%s started %v", want[i].Name, list[i].Started)
					}
					list[i].Started = want[i].Started
				}
				if diff := cmp.Diff(want, list); diff != "" {
					t.Error(diff)
				}
			}
			if c, err := s.Inspect(ctx, want[0].ID); err != nil || c.Name != "pweb" {
				t.Errorf("inspect: %+v %v", c, err)
			}
			if _, err := s.Inspect(ctx, webID); !errors.Is(err, ErrUnknown) {
				t.Errorf("a container that is not there: %v", err)
			}

			// Without the database there are the names still.
			os.RemoveAll(root + "/db.sql")
			os.RemoveAll(root + "/libpod")
			again, err := openPodmanStore(ctx, []string{root, run})
			if err != nil {
				t.Fatal(err)
			}
			list, err := again.List(ctx)
			if err != nil || len(list) != len(want) || list[0].Name != "pweb" || list[0].Image != "localhost/busybox:1" || list[0].Labels != nil {
				t.Errorf("without a database: %v %+v", err, list)
			}
		})
	}
}

// TestPodmanStoreChange: a container that comes later is found, and one that
// went is not.
func TestPodmanStoreChange(t *testing.T) {
	ctx := shortly(t)
	root, run := store(t, "sqlite")
	s, err := openPodmanStore(ctx, []string{root, run})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Inspect(ctx, webID); !errors.Is(err, ErrUnknown) {
		t.Fatal(err)
	}
	put(t, root+"/vfs-containers/containers.json", []byte(`[{"id":"`+webID+`","names":["new"],"metadata":"{\"name\":\"old\",\"image-name\":\"i\"}"}]`))
	if c, err := s.Inspect(ctx, webID); err != nil || c.Name != "new" {
		t.Errorf("%+v %v", c, err)
	}
	if _, err := s.Inspect(ctx, pweb5); !errors.Is(err, ErrUnknown) {
		t.Errorf("one that has gone: %v", err)
	}
	if err := os.Remove(root + "/vfs-containers/containers.json"); err != nil {
		t.Fatal(err)
	}
	list, err := s.List(ctx)
	if err != nil || len(list) != 1 || list[0].ID != prm5 {
		t.Errorf("a list is gone: %+v %v", list, err)
	}
}

// TestPodmanStoreStrange: files that somebody else has put there do no harm.
func TestPodmanStoreStrange(t *testing.T) {
	ctx := shortly(t)
	dir := t.TempDir()
	list := filepath.Join(dir, "overlay-containers/containers.json")
	put(t, list, nil)
	s, err := openPodmanStore(ctx, []string{dir})
	if err != nil {
		t.Fatal(err)
	}
	for what, make := range map[string]func() error{
		"empty":     func() error { return os.WriteFile(list, nil, 0o600) },
		"no JSON":   func() error { return os.WriteFile(list, []byte("{"), 0o600) },
		"a pipe":    func() error { return syscall.Mkfifo(list, 0o600) },
		"a link":    func() error { return os.Symlink("/etc/passwd", list) },
		"too large": func() error { return truncated(list, maxList+1) },
	} {
		os.Remove(list)
		if err := make(); err != nil {
			t.Fatal(err)
		}
		if cs, err := s.List(ctx); err == nil || len(cs) != 0 {
			t.Errorf("%s: %+v, no error", what, cs)
		}
	}
	// CRI-O's and Buildah's containers are not podman's.
	cs, err := parseStore([]byte(`[
		{"id":"a","names":["k8s_app"],"metadata":"{\"pod-name\":\"p\",\"namespace\":\"n\",\"name\":\"k8s_app\"}"},
		{"id":"b","names":["busybox-working-container"],"metadata":""},
		{"id":"c","metadata":"{\"name\":\"mine\"}"}]`))
	if err != nil || len(cs) != 1 || cs[0].Name != "mine" {
		t.Errorf("%+v %v", cs, err)
	}
	if _, err := openPodmanStore(ctx, []string{t.TempDir()}); !errors.Is(err, ErrAbsent) {
		t.Errorf("an empty directory: %v", err)
	}
}

func truncated(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Truncate(size)
}

// TestPodmanDBOfOthers: the database of another user is not opened.
func TestPodmanDBOfOthers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a file of another user")
	}
	root, _ := store(t, "sqlite")
	db := root + "/db.sql"
	ids := map[string]*Container{pweb5: {}}
	if rows, err := readPodmanDB(shortly(t), root, ids); err != nil || len(rows) != 1 {
		t.Fatalf("%v %v", rows, err)
	}
	if err := os.Chown(db, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if rows, err := readPodmanDB(shortly(t), root, ids); err == nil {
		t.Errorf("read: %v", rows)
	}
}

// TestPodmanDBLocked: podman holds the lock; the names come without the labels,
// and the labels later.
func TestPodmanDBLocked(t *testing.T) {
	ctx := shortly(t)
	root, run := store(t, "bolt")
	f, err := os.OpenFile(root+"/libpod/bolt_state.db", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	s, err := openPodmanStore(ctx, []string{root, run})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	c, err := s.Inspect(ctx, pweb4)
	if err != nil || c.Name != "pweb" || c.Labels != nil {
		t.Errorf("while it is locked: %+v %v", c, err)
	}
	if d := time.Since(began); d > time.Second {
		t.Errorf("the lock held the look-up up for %v", d)
	}
	f.Close()
	if c, err = s.Inspect(ctx, pweb4); err != nil || c.Labels["app"] != "pweb" {
		t.Errorf("after it: %+v %v", c, err)
	}
}

func FuzzParseStore(f *testing.F) {
	for _, version := range []string{"sqlite", "bolt"} {
		f.Add(recorded(f, "podman/"+version+"/vfs-containers/containers.json"))
	}
	f.Add([]byte(`[{"id":"a","names":[],"metadata":"{"}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		cs, err := parseStore(b)
		for _, c := range cs {
			if err != nil || c.Name == "" && c.ID == "" {
				t.Errorf("%+v %v", c, err)
			}
		}
	})
}
