package naming

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

// dbPatience is how long the database's lock is waited for. podman holds it for
// milliseconds, and waits for a reader as long as it must: reading is short.
const dbPatience = 100 * time.Millisecond

// podmanConfig is what podman notes of a container when it makes it.
type podmanConfig struct {
	Name   string            `json:"name"`
	Pod    string            `json:"pod"`
	Image  string            `json:"rootfsImageName"`
	Labels map[string]string `json:"labels"`
	Infra  bool              `json:"pause"` // holds the namespaces of its pod
}

// podmanState is what it notes of one that runs.
type podmanState struct {
	Started  time.Time `json:"startedTime"`
	Restarts int       `json:"restartCount"`
}

// podmanRow is one container in the database.
type podmanRow struct {
	config, state []byte
	pod           string // its pod's name
}

func (r *podmanRow) container() (Container, error) {
	var cfg podmanConfig
	var st podmanState
	if err := json.Unmarshal(r.config, &cfg); err != nil {
		return Container{}, fmt.Errorf("read a container of podman: %w", err)
	}
	if err := json.Unmarshal(r.state, &st); err != nil {
		return Container{}, fmt.Errorf("read the state of a container of podman: %w", err)
	}
	return Container{
		Name: cfg.Name, Image: cfg.Image, Labels: plain(cfg.Labels), Pod: r.pod, PodUID: cfg.Pod,
		Started: started(st.Started), Restarts: st.Restarts,
	}, nil
}

// readPodmanDB reads the containers with those ids from the database of the
// storage at root: SQLite since podman 4.8, BoltDB before and where it was kept.
func readPodmanDB(ctx context.Context, root string, ids map[string]*Container) (map[string]Container, error) {
	path, read := filepath.Join(root, "db.sql"), readPodmanSQL
	if ours(path) != nil {
		path, read = filepath.Join(root, "libpod", "bolt_state.db"), readPodmanBolt
		if err := ours(path); err != nil {
			return nil, err
		}
	}
	rows, err := read(ctx, path, ids)
	if err != nil {
		return nil, fmt.Errorf("read podman's database %s: %w", path, err)
	}
	out := make(map[string]Container, len(rows))
	for id, r := range rows {
		if out[id], err = r.container(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// ours tells whether a database belongs to the agent's user: the libraries that
// read it trust its pages, so those of other users are left alone.
func ours(path string) error {
	fi, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); !ok || !fi.Mode().IsRegular() || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s belongs to another user", path)
	}
	return nil
}

func readPodmanSQL(ctx context.Context, path string, ids map[string]*Container) (rows map[string]podmanRow, err error) {
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{
		"mode": {"ro"}, "_pragma": {fmt.Sprintf("busy_timeout(%d)", dbPatience.Milliseconds())},
	}.Encode()}
	db, err := sql.Open("sqlite", dsn.String())
	if err != nil {
		return nil, err
	}
	defer db.Close()
	q, err := db.QueryContext(ctx, `SELECT c.ID, c.JSON, s.JSON, COALESCE(p.Name, '') FROM ContainerConfig c
		JOIN ContainerState s ON s.ID = c.ID LEFT JOIN PodConfig p ON p.ID = c.PodID`)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	rows = make(map[string]podmanRow)
	for q.Next() {
		var id string
		var r podmanRow
		if err := q.Scan(&id, &r.config, &r.state, &r.pod); err != nil {
			return nil, err
		}
		if ids[id] != nil {
			rows[id] = r
		}
	}
	return rows, q.Err()
}

// readPodmanBolt reads ctr/<id>/{config,state} and pod/<id>/config.
func readPodmanBolt(_ context.Context, path string, ids map[string]*Container) (rows map[string]podmanRow, err error) {
	db, err := bolt.Open(path, 0, &bolt.Options{ReadOnly: true, Timeout: dbPatience})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	rows = make(map[string]podmanRow)
	err = db.View(func(tx *bolt.Tx) error {
		containers, pods := tx.Bucket([]byte("ctr")), tx.Bucket([]byte("pod"))
		if containers == nil {
			return nil
		}
		for id := range ids {
			b := containers.Bucket([]byte(id))
			if b == nil {
				continue
			}
			r := podmanRow{config: clone(b.Get([]byte("config"))), state: clone(b.Get([]byte("state")))}
			var cfg podmanConfig
			if err := json.Unmarshal(r.config, &cfg); err != nil {
				return err
			}
			if pods != nil && cfg.Pod != "" {
				if p := pods.Bucket([]byte(cfg.Pod)); p != nil {
					var pod struct{ Name string }
					if err := json.Unmarshal(p.Get([]byte("config")), &pod); err != nil {
						return err
					}
					r.pod = pod.Name
				}
			}
			rows[id] = r
		}
		return nil
	})
	return rows, err
}

// clone copies what belongs to a transaction.
func clone(b []byte) []byte { return append([]byte(nil), b...) }
