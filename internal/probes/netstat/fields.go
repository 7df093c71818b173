package netstat

import "huatuo/internal/signal"

// key is one number of the kernel's tables: of the line "TcpExt: …" that of the
// column ListenOverflows.
type key struct{ section, name string }

// field is one series: the numbers that add up to it and the labels it has.
type field struct {
	schema *signal.Schema
	labels []string
	keys   []key
	scale  float64
	per    bool // of each workload's network namespace as well
}

var (
	directions = []string{"receive", "transmit"}
	families   = []string{"ipv4", "ipv6"}
)

func label(name, help string, values ...string) signal.Field {
	return signal.Field{Name: name, Help: help, Values: values}
}

func metric(name string, t signal.MetricType, unit, help, read string, labels ...signal.Field) *signal.Schema {
	return &signal.Schema{
		Name: "huatuo_" + name, Kind: signal.Metric, Type: t, Unit: unit,
		Area: signal.AreaNetwork, Scope: signal.Host, Help: help, Read: read, Fields: labels,
	}
}

func counter(name, help, read string, labels ...signal.Field) *signal.Schema {
	return metric(name+"_total", signal.Counter, "1", help, read, labels...)
}

func gauge(name, help, read string, labels ...signal.Field) *signal.Schema {
	return metric(name, signal.Gauge, "1", help, read, labels...)
}

// of makes a series of s. The keys are "section:name".
func of(s *signal.Schema, labels []string, keys ...string) field {
	f := field{schema: s, labels: labels, scale: 1}
	for _, k := range keys {
		f.keys = append(f.keys, parseKey(k))
	}
	return f
}

// one makes a metric of one series.
func one(s *signal.Schema, keys ...string) field { return of(s, nil, keys...) }

// within makes the series for workloads too.
func (f field) within() field {
	f.per = true
	return f
}

// times gives the series another scale.
func (f field) times(scale float64) field {
	f.scale = scale
	return f
}

func parseKey(s string) key {
	for i := range len(s) {
		if s[i] == ':' {
			return key{s[:i], s[i+1:]}
		}
	}
	panic("BUG: no section in " + s)
}

// ext is the most common case: one counter of TcpExt.
func ext(column, name, help, read string) field {
	return one(counter("tcp_"+name, help, read), "TcpExt:"+column)
}
