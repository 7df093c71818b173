// Package diskstats reports the counters of the host's disks.
package diskstats

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"huatuo/internal/kern/load"
	"huatuo/internal/kern/procfs"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Partitions bool   `yaml:"partitions" help:"report partitions too; their I/O is also in the whole disk's"`
	Exclude    string `yaml:"exclude" help:"regular expression of device names: do not report these; empty means none"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	emits := make([]*signal.Schema, len(columns))
	for i, c := range columns {
		emits[i] = c.schema
	}
	return probe.New(probe.Meta{
		Name:   "diskstats",
		Help:   "Reports operations, bytes and busy time of the host's disks.",
		Readme: readme,
		Emits:  emits,
		Since:  "4.18",
		Source: "/proc/diskstats",
	}, Config{}, run)
}

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	p, err := newPoller(env.Root, cfg)
	if err != nil {
		return err
	}
	if err := p.collect(new(signal.Batch)); err != nil {
		return err
	}
	env.Collect(p.collect)
	env.Ready(load.HookState{Hook: "/proc/diskstats", By: "procfs"})
	<-ctx.Done()
	return nil
}

type poller struct {
	root    string
	path    string
	cfg     Config
	exclude *regexp.Regexp
	buf     []byte
	devices map[string]*device
	round   uint64
}

// device is what is kept of a device between rounds.
type device struct {
	labels []string // nil: not reported
	spare  bool     // made in advance by the kernel: reported once it was used
	round  uint64   // when it was last seen
}

func newPoller(root string, cfg Config) (*poller, error) {
	p := &poller{root: root, path: filepath.Join(root, "proc/diskstats"), cfg: cfg, devices: map[string]*device{}}
	if cfg.Exclude != "" {
		var err error
		if p.exclude, err = regexp.Compile(cfg.Exclude); err != nil {
			return nil, fmt.Errorf("compile diskstats.exclude: %w", err)
		}
	}
	return p, nil
}

// collect accepts an empty file: a machine without disks is no error.
func (p *poller) collect(b *signal.Batch) error {
	var err error
	if p.buf, err = procfs.ReadInto(p.path, p.buf); err != nil {
		return fmt.Errorf("read disk statistics: %w", err)
	}
	p.round++
	for line := range bytes.Lines(p.buf) {
		name, v, n, ok := parse(line)
		if !ok {
			continue
		}
		d := p.device(name)
		d.round = p.round
		if d.labels == nil || d.spare && v[reads] == 0 && v[writes] == 0 {
			continue
		}
		for i := range n {
			b.Value(columns[i].schema, float64(v[i])/columns[i].per, d.labels...)
		}
	}
	for name, d := range p.devices {
		if d.round != p.round {
			delete(p.devices, name)
		}
	}
	return nil
}

// device returns the entry of name, made at its first sight: sysfs is asked
// once per device, not once per round.
func (p *poller) device(name []byte) *device {
	if d := p.devices[string(name)]; d != nil {
		return d
	}
	n := string(name)
	d := &device{spare: isSpare(n)}
	if (p.cfg.Partitions || !p.isPartition(n)) && (p.exclude == nil || !p.exclude.MatchString(n)) {
		d.labels = []string{n}
	}
	p.devices[n] = d
	return d
}

// isPartition asks sysfs, where only a whole disk has an entry of its own.
// Without sysfs every device is taken for a whole disk.
func (p *poller) isPartition(name string) bool {
	entry := strings.ReplaceAll(name, "/", "!") // cciss/c0d0 is cciss!c0d0 there
	if _, err := os.Lstat(filepath.Join(p.root, "sys/class/block", entry)); err != nil {
		return false
	}
	_, err := os.Lstat(filepath.Join(p.root, "sys/block", entry))
	return err != nil
}

// isSpare tells devices that the kernel makes before anybody needs them.
func isSpare(name string) bool {
	for _, prefix := range [...]string{"loop", "ram", "zram", "nbd", "fd", "sr"} {
		if rest, ok := strings.CutPrefix(name, prefix); ok && rest != "" && strings.Trim(rest, "0123456789") == "" {
			return true
		}
	}
	return false
}

// parse reads one line of /proc/diskstats; it is length-safe. n is how many of
// the columns the kernel tells: 11 before 4.18, 15 before 5.5, else 17.
func parse(line []byte) (name []byte, v [nColumns]uint64, n int, ok bool) {
	i := 0
	for f := range bytes.FieldsSeq(line) {
		switch {
		case i == 2:
			name = f
		case i-3 >= nColumns: // a column of a future kernel
			return name, v, nColumns, true
		default: // the first two are the device numbers
			u, ok := procfs.Uint(f)
			if !ok {
				return nil, v, 0, false
			}
			if i > 2 {
				v[i-3] = u
			}
		}
		i++
	}
	if i-3 < minColumns {
		return nil, v, 0, false
	}
	return name, v, i - 3, true
}
