// Package fs measures file systems: fsync, journal commits, pauses of writers, space, errors and mounts that became read-only.
package fs

import (
	"context"
	_ "embed"
	"fmt"
	"sync"
	"time"

	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types -type fs_error_wire -type fs_key -type pauses -type ht_hist bpf fs.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -target bpfel -no-global-types bpfLegacy fs.bpf.c -- -I../../../bpf/include -Wall -Werror -mcpu=v2 -DHT_LEGACY

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Interval         time.Duration `yaml:"interval" help:"how often mounts are looked at for space and for having become read-only"`
	Timeout          time.Duration `yaml:"timeout" help:"a file system that has not told its space after this long counts as hung"`
	probe.EventKnobs `yaml:",inline"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "fs",
		Help:   "Measures file systems: fsync, journal commits, pauses of writers, space, errors and read-only mounts.",
		Readme: readme,
		Source: "ext4:ext4_sync_file_*, ext4_error, jbd2:jbd2_*_commit, writeback:balance_dirty_pages, filemap:filemap_set_wb_err, mountinfo, statfs(2), /sys/fs/{ext4,btrfs}",
		Since:  "4.18",
		Emits: []*signal.Schema{
			fsync, commit, containerPauses, containerPauseSeconds,
			size, free, inodes, inodesFree, readOnly, hung, errorsTotal, failed, remounted,
		},
	}, Config{
		Interval:   10 * time.Second,
		Timeout:    2 * time.Second,
		EventKnobs: probe.EventKnobs{Rate: 1, Burst: 10},
	}, run)
}

var (
	deviceField = []signal.Field{{Name: "device", Help: "block device that the file system is on"}}
	mountFields = []signal.Field{
		{Name: "device", Help: "what is mounted"},
		{Name: "fstype", Help: "type of the file system"},
		{Name: "mountpoint", Help: "where it is mounted; the shortest path of several"},
	}

	fsync = &signal.Schema{
		Name: "huatuo_fs_fsync_seconds", Kind: signal.Metric, Type: signal.Histogram, Unit: "seconds",
		Area: signal.AreaBlock, Scope: signal.Host, Fields: deviceField,
		Help: "Time that an fsync of a file on ext4 took.",
		Read: "What databases wait for. With the device fast in huatuo_block_io_total_seconds and this slow, the journal is the bottleneck: see huatuo_fs_journal_commit_seconds.",
	}
	commit = &signal.Schema{
		Name: "huatuo_fs_journal_commit_seconds", Kind: signal.Metric, Type: signal.Histogram, Unit: "seconds",
		Area: signal.AreaBlock, Scope: signal.Host, Fields: deviceField,
		Help: "Time that a commit of the journal of ext4 or OCFS2 took.",
		Read: "All that call fsync meanwhile wait for it. Seconds mean that much data had to be written first, by whomever.",
	}
	containerPauses = &signal.Schema{
		Name: "huatuo_container_dirty_pauses_total", Kind: signal.Metric, Type: signal.Counter, Unit: "1",
		Area: signal.AreaBlock, Scope: signal.Workload,
		Help: "Pauses that the kernel made a writer of the workload take because too many pages were dirty.",
		Read: "Writes arrive faster than the device takes them. A pause is 200 ms at most.",
	}
	containerPauseSeconds = &signal.Schema{
		Name: "huatuo_container_dirty_pause_seconds_total", Kind: signal.Metric, Type: signal.Counter, Unit: "seconds",
		Area: signal.AreaBlock, Scope: signal.Workload,
		Help: "Time of the pauses that the kernel made writers of the workload take because too many pages were dirty.",
		Read: "A rate near 1 means that one writer is held back all the time. Absent where the kernel's configuration does not tell the length of its tick.",
	}
	size = gauge("size_bytes", "bytes", "Size of the file system.", "Divides the space that is available to the share of it.")
	free = gauge("available_bytes", "bytes", "Space of the file system that is available to ordinary users.", "Below a tenth of the size it is time to act; many file systems get slow as well.")

	inodes     = gauge("inodes", "1", "Inodes of the file system.", "Absent for file systems that make them as needed.")
	inodesFree = gauge("inodes_available", "1", "Inodes of the file system that are available.", "At 0 no file can be made, with whatever space there is.")
	readOnly   = gauge("read_only", "1", "Whether the file system is mounted read-only: 1 or 0.", "A change to 1 that nobody asked for is what ext4 does after an error.")
	hung       = gauge("hung", "1", "Whether the file system does not answer when asked for its space: 1 or 0.", "1 for a network file system whose server is gone. Space and inodes are absent then.")

	failed = signal.EventOf[FSError]("fs_error", signal.AreaBlock, signal.Critical,
		"A file system found itself damaged, or could not write data that a program had handed over.").When(
		"Any error that ext4 reports, or page that a file system could not write back: there is no threshold, for data are lost or in doubt.",
		"None. A full disk that fails a write at once is no error of the file system.")
	remounted = signal.EventOf[ReadonlyRemount]("readonly_remount", signal.AreaBlock, signal.Critical,
		"A file system that could be written became read-only.").When(
		"A mount that is found read-only at a look each `interval` (10s) and was writable before.",
		"An administrator's remount before maintenance. File systems that are mounted read-only from the start make none.")
)

func gauge(what, unit, help, read string) *signal.Schema {
	return &signal.Schema{
		Name: "huatuo_filesystem_" + what, Kind: signal.Metric, Type: signal.Gauge, Unit: unit,
		Area: signal.AreaBlock, Scope: signal.Host, Fields: mountFields, Help: help, Read: read,
	}
}

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	if cfg.Interval <= 0 || cfg.Timeout <= 0 {
		return fmt.Errorf("probes.fs.interval is %v, timeout is %v: want positive durations", cfg.Interval, cfg.Timeout)
	}
	l, err := env.Kernel.Load(loadBpf, loadBpfLegacy)
	if err != nil {
		return err
	}
	if err := cfg.Set(l, "fs_error"); err != nil {
		return err
	}
	// None is a must: mounts are looked at in any case, and ext4 may be absent.
	o, err := l.Attach(
		load.TP("ext4_sync_file_exit").Maybe(), load.TP("ext4_sync_file_enter").Maybe(),
		load.TP("jbd2_end_commit").Maybe(), load.TP("jbd2_start_commit").Maybe(),
		dirtyHook(env.Kernel).Maybe(), load.TP("ext4_error").Maybe(), load.TP("filemap_set_wb_err").Maybe(),
	)
	if err != nil {
		return err
	}
	defer o.Close()

	m := newMounts(env, cfg)
	if err := m.look(); err != nil {
		return err
	}
	c := &collector{o: o, mounts: m, hz: tick(env.Root)}
	env.Collect(load.Guard(o, c.collect))
	e := &errorCounts{root: env.Root}
	env.Collect(func(b *signal.Batch) error {
		m.collect(b)
		e.collect(b)
		return nil
	})

	watch, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		probe.Every(watch, cfg.Interval, func() error {
			if err := m.look(); err != nil {
				env.Log.Warn("cannot read mounts", "err", err)
			}
			e.look()
			return nil
		})
	})
	defer wg.Wait()
	defer cancel()
	d := &decoder{clock: env.Clock}
	all := *env
	all.Lost = func(f func() probe.Loss) { // events of mounts do not pass the ring
		env.Lost(func() probe.Loss {
			l := f()
			l.Observed += m.emitted.Load()
			return l
		})
	}
	return probe.Stream(ctx, &all, o, d.decode)
}

// dirtyHook chooses the form by the arguments that balance_dirty_pages has.
func dirtyHook(k *load.Kernel) load.Hook {
	h := load.TP("balance_dirty_pages")
	if k.TracepointArgs("balance_dirty_pages") == 8 {
		h.Programs = []string{"balance_dirty_pages_dtc_btf", "balance_dirty_pages_dtc_raw"}
	}
	return h
}
