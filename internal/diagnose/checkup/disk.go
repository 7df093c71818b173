package checkup

import (
	"fmt"

	"huatuo/internal/diagnose/window"
	"huatuo/internal/signal"
)

// slow is from when one request in a hundred is slow for a device of a class. A
// healthy one stays below a tenth of it: flash answers within a millisecond, a
// disk that turns within two of its turns.
func slow(c Class) float64 {
	switch c {
	case Fast:
		return 0.02
	case Flash:
		return 0.05
	case Spindle:
		return 0.2
	default:
		return 0.1
	}
}

// deep is how many requests at a time are a queue rather than work for a device.
func deep(c Class) float64 {
	switch c {
	case Fast:
		return 128
	case Spindle:
		return 4
	default:
		return 32
	}
}

func diskRules() []Rule {
	return []Rule{
		{
			Name: "disk_latency", Area: signal.AreaBlock,
			What:      "time of a request, from the queue to its end (p99), by device and read or write",
			Threshold: "20 ms for NVMe, 50 ms for flash, 200 ms for disks that turn, 100 ms for virtual ones: ten times what a healthy one takes; ten times that again is critical",
			Next:      "See whether the device or the queue before it is slow: huatuo_block_io_device_seconds against huatuo_block_io_queue_seconds; `huatuo top --sort io` has who sends.",
			Metrics:   []string{"huatuo_block_io_total_seconds"}, Nothing: "no disk was used",
			check: checkDiskLatency,
		},
		{
			Name: "disk_saturation", Area: signal.AreaBlock,
			What:      "requests that a device has at a time, and for how long it has any",
			Threshold: "busy for 95 % of the time with more requests than it works on at once (4 for one that turns, 32, 128 for NVMe)",
			Next:      "It is at its limit: `huatuo top --sort io` has who sends; limit that (io.max), or spread it.",
			Metrics:   []string{"huatuo_disk_io_seconds_total", "huatuo_disk_io_weighted_seconds_total"}, Nothing: "there is no disk",
			check: checkDiskSaturation,
		},
		{
			Name: "disk_errors", Area: signal.AreaBlock,
			What:      "requests that failed, or hang for a second or longer",
			Threshold: "any failure is critical: data were not read or written; a hanging one warns",
			Next:      "Look at the device (`smartctl -a`, `nvme smart-log`), its cable or its network; the events name sector and process.",
			Kinds:     []string{"io_error", "io_stall"},
			check: func(f *Facts) verdict {
				v := verdict{fine: "no request failed or hung"}
				if docs := f.of("io_error"); len(docs) > 0 {
					v.findings = append(v.findings, tell(docs, signal.Critical))
				}
				if docs := f.of("io_stall"); len(docs) > 0 {
					v.findings = append(v.findings, tell(docs, signal.Warning))
				}
				return v
			},
		},
		{
			Name: "filesystem_errors", Area: signal.AreaBlock,
			What:      "errors of file systems, and file systems that became read-only or do not answer",
			Threshold: "any: data are at risk",
			Next:      "Save what is there, then check the file system and the disk below it; the kernel log has more.",
			Kinds:     []string{"fs_error", "readonly_remount"},
			check:     checkFilesystems,
		},
		{
			Name: "filesystem_space", Area: signal.AreaBlock,
			What:      "space and inodes that are left on each file system",
			Threshold: "5 % warns, 1 % is critical",
			Next:      "Delete or move what is large: `du -xh --max-depth=2 MOUNTPOINT | sort -h`; many small files use up inodes.",
			Metrics:   []string{"huatuo_filesystem_available_bytes", "huatuo_filesystem_size_bytes"}, Nothing: "there is no file system on a disk",
			check: checkSpace,
		},
	}
}

func (f *Facts) class(device string) Class {
	if f.Disk == nil {
		return Virtual
	}
	return f.Disk(device)
}

func checkDiskLatency(f *Facts) verdict {
	var v verdict
	var worst float64
	for _, s := range f.Series("huatuo_block_io_total_seconds") {
		if s.Hist == nil || s.Hist.Count < 20 { // a percentile of fewer is one request
			continue
		}
		p99 := window.Quantile(s.Hist, 0.99)
		worst = max(worst, p99)
		class := f.class(s.Label("device"))
		x, bad := judge(p99, slow(class), 10*slow(class))
		if !bad {
			continue
		}
		x.Subject = s.Label("device")
		x.Sentence = fmt.Sprintf("Of 100 %s requests 99 took up to %s, of %s in all; the device is %s, for which %s is slow.",
			s.Label("op"), Seconds(p99), number(float64(s.Hist.Count)), class, Seconds(slow(class)))
		v.findings = append(v.findings, x)
	}
	v.fine = fmt.Sprintf("on the slowest disk 99 of 100 requests took up to %s", Seconds(worst))
	if worst == 0 {
		v.fine = "hardly any request was sent"
	}
	return v
}

func checkDiskSaturation(f *Facts) verdict {
	var v verdict
	var worst float64
	for _, s := range f.Series("huatuo_disk_io_seconds_total") {
		device := s.Label("device")
		busy := s.Value / f.Seconds
		worst = max(worst, busy)
		queue := f.Rate("huatuo_disk_io_weighted_seconds_total", "device="+device)
		limit := deep(f.class(device))
		if x, bad := judge(queue, limit, 0); bad && busy >= 0.95 {
			x.Subject = device
			x.Sentence = fmt.Sprintf("It was busy for %s of the time and had %s at a time; %s is %s.", Percent(min(busy, 1)), many(queue, "request"), device, f.class(device))
			v.findings = append(v.findings, x)
		}
	}
	v.fine = fmt.Sprintf("the busiest disk had requests for %s of the time", Percent(min(worst, 1)))
	return v
}

func checkFilesystems(f *Facts) verdict {
	v := verdict{fine: "no file system had an error"}
	if docs := f.of("fs_error", "readonly_remount"); len(docs) > 0 {
		v.findings = append(v.findings, tell(docs, signal.Critical))
	}
	for _, s := range f.Series("huatuo_filesystem_hung") {
		if s.Value > 0 {
			v.findings = append(v.findings, Finding{Severity: signal.Critical, Excess: 1, Subject: s.Label("mountpoint"),
				Sentence: fmt.Sprintf("The %s file system there does not answer.", s.Label("fstype"))})
		}
	}
	return v
}

func checkSpace(f *Facts) verdict {
	var v verdict
	left := 1.0
	for _, m := range []struct{ available, all, what string }{
		{"huatuo_filesystem_available_bytes", "huatuo_filesystem_size_bytes", "space"},
		{"huatuo_filesystem_inodes_available", "huatuo_filesystem_inodes", "inodes"},
	} {
		all := map[string]float64{}
		for _, s := range f.Series(m.all) {
			all[s.Label("device")+"\x00"+s.Label("mountpoint")] = s.Value
		}
		for _, s := range f.Series(m.available) {
			size := all[s.Label("device")+"\x00"+s.Label("mountpoint")]
			if size == 0 || readOnlyType(s.Label("fstype")) {
				continue
			}
			share := s.Value / size
			left = min(left, share)
			if x, bad := judge(0.05/max(share, 1e-6), 1, 5); bad {
				x.Subject = s.Label("mountpoint")
				x.Sentence = fmt.Sprintf("%s of its %s are left (%s on %s).", Percent(share), m.what, s.Label("fstype"), s.Label("device"))
				v.findings = append(v.findings, x)
			}
		}
	}
	v.fine = fmt.Sprintf("every file system has %s of its space and inodes left, or more", Percent(left))
	return v
}

// readOnlyType tells whether a file system is made full.
func readOnlyType(fstype string) bool {
	switch fstype {
	case "squashfs", "erofs", "iso9660", "cramfs", "romfs", "udf":
		return true
	}
	return false
}
