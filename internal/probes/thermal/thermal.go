// Package thermal reports heat, and what the machine gives up because of it: CPU frequency and power.
package thermal

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"huatuo/internal/kern/load"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

//go:embed README.md
var readme string

// Config of the probe.
type Config struct {
	Interval time.Duration `yaml:"interval" help:"how often sensors and counters are read"`
	Timeout  time.Duration `yaml:"timeout" help:"a sensor that has not answered after this long counts as hung"`
}

// Spec describes the probe.
func Spec() probe.Spec {
	return probe.New(probe.Meta{
		Name:   "thermal",
		Help:   "Reports heat, and what the machine gives up because of it: CPU frequency and power.",
		Readme: readme,
		Emits:  []*signal.Schema{temperature, criticalTemperature, hung, coreThrottles, packageThrottles, coreSeconds, packageSeconds, frequency, powerLimit, powerMaximum, throttled},
		Since:  "4.18",
		Source: "/sys/class/thermal, /sys/devices/system/cpu/cpu*/thermal_throttle, cpufreq, /sys/class/powercap",
	}, Config{
		Interval: 15 * time.Second, // what heat does takes seconds, and sensors are slow to read
		Timeout:  5 * time.Second,
	}, run)
}

var (
	zoneFields    = []signal.Field{{Name: "zone", Help: "thermal zone, as thermal_zone0"}, {Name: "type", Help: "what the zone is, as the driver names it: x86_pkg_temp, acpitz, cpu-thermal"}}
	packageFields = []signal.Field{{Name: "package", Help: "CPU package (socket) as the kernel numbers it"}}
	powerFields   = []signal.Field{{Name: "zone", Help: "what is limited, as package-0"}, {Name: "constraint", Help: "over which time: long_term, short_term or peak_power"}}

	temperature = gauge("huatuo_thermal_zone_temperature_celsius", "celsius", zoneFields, "Temperature of the zone.",
		"Against huatuo_thermal_zone_critical_celsius: there the machine switches itself off.")
	criticalTemperature = gauge("huatuo_thermal_zone_critical_celsius", "celsius", zoneFields, "Temperature at which the kernel switches the machine off.",
		"Absent for zones without such a limit.")
	hung = gauge("huatuo_thermal_hung", "1", []signal.Field{{Name: "source", Help: "thermal zone, or cpu, cpufreq, powercap"}}, "Whether what is read does not answer: 1 or 0.",
		"1 for a sensor whose firmware hangs; what it measures is absent then, or old.")
	coreThrottles = counter("huatuo_thermal_core_throttles_total", "1", "Times that a core of the package was slowed down because it was too hot, summed over the cores.",
		"Any steady rate costs speed: cooling, dust, a fan, a room that is too warm.")
	packageThrottles = counter("huatuo_thermal_package_throttles_total", "1", "Times that the package was slowed down because it was too hot.",
		"All its cores are slowed down then.")
	coreSeconds = counter("huatuo_thermal_core_throttle_seconds_total", "seconds", "Time for which cores of the package were slowed down by heat, summed over the cores.",
		"Linux 5.9 or later; absent before.")
	packageSeconds = counter("huatuo_thermal_package_throttle_seconds_total", "seconds", "Time for which the package was slowed down by heat.",
		"A rate near 1 is a package that is always too hot. Linux 5.9 or later; absent before.")
	frequency = gauge("huatuo_cpu_frequency_limit_ratio", "ratio", packageFields, "Highest frequency that may be used of the highest that the CPU has, of the package's most limited CPU.",
		"Below 1 somebody caps it: a cooling device, the firmware (power cap), an administrator.")
	powerLimit = gauge("huatuo_power_limit_watts", "watts", powerFields, "Power that the processor keeps to.",
		"Below its nominal power the processor is slower than bought: look at the firmware's and the rack's power cap.")
	powerMaximum = gauge("huatuo_power_limit_maximum_watts", "watts", powerFields, "Highest limit of power that the processor knows: its nominal power.",
		"Absent where the processor does not tell.")

	throttled = signal.EventOf[Throttle]("thermal_throttle", signal.AreaCPU, signal.Warning, "A CPU package began to be slowed down because it was too hot.").When(
		"The first interval, `interval` (15s) long, in which a package was slowed down by its own protection, after one in which it was not.",
		"Short phases under full load on laptops and dense blades.")
)

// Throttle is the body of a thermal_throttle event.
type Throttle struct {
	Package          string  `json:"package" help:"CPU package (socket)"`
	CoreThrottles    float64 `json:"core_throttles" help:"times that its cores were slowed down, in the interval"`
	PackageThrottles float64 `json:"package_throttles" help:"times that the whole package was slowed down, in the interval"`
	Seconds          float64 `json:"seconds" unit:"seconds" help:"for how long the package was slowed down, in the interval"`
	Interval         float64 `json:"interval" unit:"seconds" help:"length of the interval"`
	Celsius          float64 `json:"celsius,omitempty" unit:"celsius" help:"hottest zone"`
}

func gauge(name, unit string, fields []signal.Field, help, read string) *signal.Schema {
	return &signal.Schema{Name: name, Kind: signal.Metric, Type: signal.Gauge, Unit: unit, Area: signal.AreaCPU, Scope: signal.Host, Fields: fields, Help: help, Read: read}
}

func counter(name, unit, help, read string) *signal.Schema {
	return &signal.Schema{Name: name, Kind: signal.Metric, Type: signal.Counter, Unit: unit, Area: signal.AreaCPU, Scope: signal.Host, Fields: packageFields, Help: help, Read: read}
}

func run(ctx context.Context, env *probe.Env, cfg Config) error {
	if cfg.Interval <= 0 || cfg.Timeout <= 0 {
		return fmt.Errorf("probes.thermal.interval is %v, timeout is %v: want positive durations", cfg.Interval, cfg.Timeout)
	}
	p := newPoller(env, cfg)
	names := p.names()
	if len(names) == 0 {
		return fmt.Errorf("no thermal zone, throttle counter, cpufreq or powercap, as in most virtual machines: %w", probe.ErrAbsent)
	}
	env.Collect(p.collect)
	env.Lost(func() probe.Loss { return probe.Loss{Observed: p.emitted.Load()} })
	return p.asker.Poll(ctx, env, cfg.Interval, p.names, p.judge, p.hooks(names)...)
}

func (p *poller) hooks(names []string) []load.HookState {
	var out []load.HookState
	for _, n := range names {
		if _, ok := p.sources()[n]; ok {
			out = append(out, load.HookState{Hook: n, By: "sysfs"})
		}
	}
	if len(out) < len(names) {
		out = append(out, load.HookState{Hook: "/sys/class/thermal", By: "sysfs"})
	}
	return out
}
