package moment

import (
	"bytes"
	"math"

	"huatuo/internal/kern/procfs"
	"huatuo/internal/signal"
)

// readHost reads the host's files; nil when there is no loadavg and no meminfo.
func (r *Reader) readHost() *signal.HostResources {
	h := &signal.HostResources{}
	load, loadErr := r.again(r.proc + "/loadavg")
	if loadErr == nil {
		parseLoadavg(load, h)
	}
	mem, memErr := r.again(r.proc + "/meminfo")
	if memErr == nil {
		parseMeminfo(mem, h)
	}
	if loadErr != nil && memErr != nil {
		return nil
	}
	h.Pressure = pressure(func(resource string) ([]byte, error) { return r.again(r.proc + "/pressure/" + resource) })
	return h
}

// parseLoadavg reads "0.52 0.58 0.59 3/467 12345".
func parseLoadavg(b []byte, h *signal.HostResources) {
	f := bytes.Fields(b)
	if len(f) < 4 {
		return
	}
	h.Load1, _ = procfs.Float(f[0])
	running, _, _ := bytes.Cut(f[3], []byte("/"))
	n, _ := procfs.Uint(running)
	h.Runnable = int(n)
}

func parseMeminfo(b []byte, h *signal.HostResources) {
	var swapTotal, swapFree uint64
	for line := range bytes.Lines(b) {
		name, rest, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			continue
		}
		v, ok := kibibytes(rest)
		if !ok {
			continue
		}
		switch string(name) {
		case "MemTotal":
			h.MemoryTotal = v
		case "MemAvailable":
			h.MemoryAvailable = v
		case "SwapTotal":
			swapTotal = v
		case "SwapFree":
			swapFree = v
		case "Dirty", "Writeback":
			h.Dirty += v
		}
	}
	if swapTotal > swapFree {
		h.Swap = swapTotal - swapFree
	}
}

// kibibytes reads "   123 kB".
func kibibytes(b []byte) (uint64, bool) {
	n, _, _ := bytes.Cut(bytes.TrimSpace(b), []byte(" "))
	v, ok := procfs.Uint(n)
	return v << 10, ok
}

// pressure reads the three files of pressure; nil when the kernel keeps none
// (CONFIG_PSI, psi=0, cgroup.pressure=0).
func pressure(read func(resource string) ([]byte, error)) *signal.Pressure {
	p, has := &signal.Pressure{}, false
	var none float64 // "full" of cpu: of no host, and of a group only since Linux 5.13
	for _, f := range [...]struct {
		resource   string
		some, full *float64
	}{{"cpu", &p.CPUSome, &none}, {"memory", &p.MemorySome, &p.MemoryFull}, {"io", &p.IOSome, &p.IOFull}} {
		if b, err := read(f.resource); err == nil {
			has = parsePressure(b, f.some, f.full) || has
		}
	}
	if !has {
		return nil
	}
	return p
}

// parsePressure reads "some avg10=1.63 avg60=1.99 avg300=4.13 total=…" and the
// same of full; false when there is neither.
func parsePressure(b []byte, some, full *float64) (ok bool) {
	for line := range bytes.Lines(b) {
		kind, rest, _ := bytes.Cut(line, []byte(" avg10="))
		percent, _, _ := bytes.Cut(rest, []byte(" "))
		v, is := procfs.Float(percent)
		if !is {
			continue
		}
		switch string(kind) {
		case "some":
			*some, ok = share(v), true
		case "full":
			*full, ok = share(v), true
		}
	}
	return ok
}

// share makes a share of a percentage with two decimals.
func share(percent float64) float64 { return math.Round(percent*100) / 1e4 }
