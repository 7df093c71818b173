package store

import (
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// keepAside is how many things that were set aside are kept as evidence; older
// ones go when the store is opened, since no retention covers them.
const keepAside = 3

// setAside moves path out of the way under a name that says why and when, and
// tells the new name.
func setAside(path, why string, log *slog.Logger, cause error) (string, error) {
	at := time.Now().UTC()
	name := func() string { return path + "." + why + "-" + at.Format("20060102T150405.000Z") }
	for {
		if _, err := os.Lstat(name()); err != nil {
			break
		}
		at = at.Add(time.Millisecond) // two in the same one
	}
	if err := os.Rename(path, name()); err != nil {
		return "", err
	}
	log.Error("set aside what cannot be used; starting anew", "path", path, "moved_to", name(), "err", cause)
	return name(), nil
}

// pruneAside removes all but the newest things that were set aside in dir.
func pruneAside(dir string, log *slog.Logger) {
	aside := regexp.MustCompile(`\.(corrupt|ahead)-(\d{8}T\d{6}\.\d{3}Z)(-wal|-shm)?$`)
	es, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	byTime := map[string][]string{} // one incident may have left several files
	var times []string
	for _, e := range es {
		m := aside.FindStringSubmatch(e.Name())
		if m == nil {
			continue
		}
		if byTime[m[2]] == nil {
			times = append(times, m[2])
		}
		byTime[m[2]] = append(byTime[m[2]], e.Name())
	}
	sort.Strings(times)
	for len(times) > keepAside {
		for _, name := range byTime[times[0]] {
			log.Info("remove old evidence of corruption", "path", filepath.Join(dir, name))
			_ = os.RemoveAll(filepath.Join(dir, name))
		}
		times = times[1:]
	}
}

// repaired tells whether the TSDB had to cut its WAL when it was opened. Its
// own metrics are the only place where it says so.
func repaired(reg prometheus.Gatherer) bool {
	families, err := reg.Gather()
	if err != nil {
		return false
	}
	for _, f := range families {
		if f.GetName() == "prometheus_tsdb_wal_corruptions_total" {
			return f.GetMetric()[0].GetCounter().GetValue() > 0
		}
	}
	return false
}
