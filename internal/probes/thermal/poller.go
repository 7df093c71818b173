package thermal

import (
	"cmp"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"huatuo/internal/kern/sysfs"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

// poller reads each zone, and each other source, in a goroutine of its own.
type poller struct {
	sys      string
	interval time.Duration
	asker    *probe.Asker[[]signal.Sample]
	emit     func(*signal.Record)
	emitted  atomic.Uint64
	now      func() time.Time

	cpus map[string]core // by name; the goroutine of throttles alone uses it

	// Of the last round, by package.
	before map[string]map[*signal.Schema]float64
	slow   map[string]bool
}

func newPoller(env *probe.Env, cfg Config) *poller {
	p := &poller{sys: filepath.Join(env.Root, "sys"), interval: cfg.Interval, emit: env.Emit, now: env.Now,
		cpus: map[string]core{}, before: map[string]map[*signal.Schema]float64{}, slow: map[string]bool{}}
	p.asker = probe.NewAsker(cfg.Timeout, p.ask)
	return p
}

// sources other than zones, and a file pattern that tells whether they are there.
func (p *poller) sources() map[string]string {
	return map[string]string{
		"cpu":      "devices/system/cpu/cpu[0-9]*/thermal_throttle",
		"cpufreq":  "devices/system/cpu/cpufreq/policy*/cpuinfo_max_freq",
		"powercap": "class/powercap/intel-rapl:*/name",
	}
}

func (p *poller) names() []string {
	names := sysfs.List(filepath.Join(p.sys, "class/thermal"), "thermal_zone")
	for name, pattern := range p.sources() {
		if found, _ := filepath.Glob(filepath.Join(p.sys, pattern)); len(found) > 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (p *poller) ask(name string) ([]signal.Sample, error) {
	b := new(signal.Batch)
	switch name {
	case "cpu":
		p.throttles(b)
	case "cpufreq":
		p.frequencies(b)
	case "powercap":
		p.power(b)
	default:
		p.zone(b, name)
	}
	return b.Samples, nil
}

func (p *poller) collect(b *signal.Batch) error {
	for _, a := range p.asker.Answers() {
		b.Value(hung, number(a.Hung), a.Name)
		if a.Known && !a.Hung {
			b.Samples = append(b.Samples, a.Value...)
		}
	}
	return nil
}

// zone reads a temperature. Drivers give errors while a sensor is not ready.
func (p *poller) zone(b *signal.Batch, name string) {
	dir := filepath.Join(p.sys, "class/thermal", name)
	milli, ok := sysfs.Int(dir, "temp")
	if !ok {
		return
	}
	typ, _ := sysfs.Text(dir, "type")
	b.Value(temperature, float64(milli)/1000, name, typ)
	for _, f := range sysfs.List(dir, "trip_point_") {
		trip, ok := strings.CutSuffix(f, "_type")
		if !ok {
			continue
		}
		if kind, _ := sysfs.Text(dir, f); kind != "critical" {
			continue
		}
		// Drivers tell limits that mean "none" as 0 or far below.
		if milli, ok := sysfs.Int(dir, trip+"_temp"); ok && milli > 0 {
			b.Value(criticalTemperature, float64(milli)/1000, name, typ)
			return
		}
	}
}

// throttles sums over the cores of a package; the threads of a core count the
// same, and so do all CPUs for their package.
func (p *poller) throttles(b *signal.Batch) {
	files := []struct {
		schema *signal.Schema
		file   string
		scale  float64
		core   bool
	}{
		{coreThrottles, "core_throttle_count", 1, true},
		{coreSeconds, "core_throttle_total_time_ms", 1e-3, true},
		{packageThrottles, "package_throttle_count", 1, false},
		{packageSeconds, "package_throttle_total_time_ms", 1e-3, false},
	}
	type unit struct {
		schema *signal.Schema
		pkg    string
		core   string
	}
	most := map[unit]float64{}
	for _, cpu := range sysfs.List(filepath.Join(p.sys, "devices/system/cpu"), "cpu") {
		dir := filepath.Join(p.sys, "devices/system/cpu", cpu)
		c, ok := p.core(cpu)
		if !ok {
			continue // no CPU, or one that is off
		}
		for _, f := range files {
			v, ok := sysfs.Uint(dir, "thermal_throttle", f.file)
			if !ok {
				continue
			}
			u := unit{schema: f.schema, pkg: c.pkg}
			if f.core {
				u.core = c.id
			}
			most[u] = max(most[u], float64(v)*f.scale)
		}
	}
	sum := map[unit]float64{}
	for u, v := range most {
		sum[unit{schema: u.schema, pkg: u.pkg}] += v
	}
	for u, v := range sum {
		b.Value(u.schema, v, u.pkg)
	}
}

// core is which core of which package a CPU is a thread of.
type core struct{ pkg, id string }

// core returns what was read once: it does not change.
func (p *poller) core(cpu string) (core, bool) {
	if c, ok := p.cpus[cpu]; ok {
		return c, true
	}
	dir := filepath.Join(p.sys, "devices/system/cpu", cpu, "topology")
	pkg, ok := sysfs.Text(dir, "physical_package_id")
	if !ok {
		return core{}, false
	}
	id, _ := sysfs.Text(dir, "core_id")
	die, _ := sysfs.Text(dir, "die_id")
	c := core{pkg: pkg, id: die + "/" + id}
	p.cpus[cpu] = c
	return c, true
}

// frequencies reads limits only: the frequencies in use are asked of the hardware.
func (p *poller) frequencies(b *signal.Batch) {
	least := map[string]float64{}
	dir := filepath.Join(p.sys, "devices/system/cpu")
	for _, policy := range sysfs.List(filepath.Join(dir, "cpufreq"), "policy") {
		limit, ok := sysfs.Uint(dir, "cpufreq", policy, "scaling_max_freq")
		highest, ok2 := sysfs.Uint(dir, "cpufreq", policy, "cpuinfo_max_freq")
		if !ok || !ok2 || highest == 0 {
			continue
		}
		pkg, ok := sysfs.Text(dir, "cpu"+strings.TrimPrefix(policy, "policy"), "topology/physical_package_id")
		if !ok {
			continue
		}
		ratio := float64(limit) / float64(highest)
		if old, ok := least[pkg]; !ok || ratio < old {
			least[pkg] = ratio
		}
	}
	for pkg, v := range least {
		b.Value(frequency, v, pkg)
	}
}

// power reads the limits of whole packages, and of the platform where there is one.
func (p *poller) power(b *signal.Batch) {
	dir := filepath.Join(p.sys, "class/powercap")
	for _, zone := range sysfs.List(dir, "intel-rapl:") {
		if strings.Count(zone, ":") != 1 {
			continue // a part of a package
		}
		name, ok := sysfs.Text(dir, zone, "name")
		if !ok {
			continue
		}
		for i := 0; ; i++ {
			c := "constraint_" + strconv.Itoa(i)
			constraint, ok := sysfs.Text(dir, zone, c+"_name")
			if !ok {
				break
			}
			if v, ok := sysfs.Uint(dir, zone, c+"_power_limit_uw"); ok {
				b.Value(powerLimit, float64(v)/1e6, name, constraint)
			}
			if v, ok := sysfs.Uint(dir, zone, c+"_max_power_uw"); ok && v > 0 {
				b.Value(powerMaximum, float64(v)/1e6, name, constraint)
			}
		}
	}
}

// judge emits an event when a package begins to be slowed down: it was not in the
// interval before.
func (p *poller) judge() {
	hottest, now := 0.0, map[string]map[*signal.Schema]float64{}
	for _, a := range p.asker.Answers() {
		if !a.Known || a.Hung {
			continue
		}
		for _, s := range a.Value {
			switch s.Schema {
			case temperature:
				hottest = max(hottest, s.Value)
			case coreThrottles, packageThrottles, packageSeconds:
				if now[s.Labels[0]] == nil {
					now[s.Labels[0]] = map[*signal.Schema]float64{}
				}
				now[s.Labels[0]][s.Schema] = s.Value
			}
		}
	}
	for _, pkg := range sortedKeys(now) {
		v, old := now[pkg], p.before[pkg]
		p.before[pkg] = v
		if old == nil {
			continue
		}
		b := &Throttle{Package: pkg, CoreThrottles: v[coreThrottles] - old[coreThrottles], PackageThrottles: v[packageThrottles] - old[packageThrottles],
			Seconds: v[packageSeconds] - old[packageSeconds], Interval: p.interval.Seconds(), Celsius: hottest}
		slow := b.CoreThrottles > 0 || b.PackageThrottles > 0
		if slow && !p.slow[pkg] {
			p.emitted.Add(1)
			p.emit(&signal.Record{Schema: throttled, Time: p.now(), Body: b,
				Title: fmt.Sprintf("CPU package %s is too hot and is slowed down: %g times, its cores %g times", pkg, b.PackageThrottles, b.CoreThrottles)})
		}
		p.slow[pkg] = slow
	}
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	var out []K
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
