package console

import "huatuo/internal/signal"

// metrics are the schemas of what the server tells about itself.
type metrics struct {
	requests, panics, streams, lost *signal.Schema
}

func newMetrics() metrics {
	agent := func(name string, t signal.MetricType, help, read string, fields ...signal.Field) *signal.Schema {
		return &signal.Schema{
			Name: name, Kind: signal.Metric, Type: t, Unit: "1", Area: signal.AreaAgent, Scope: signal.Host,
			Help: help, Read: read, Fields: append([]signal.Field{}, fields...),
		}
	}
	return metrics{
		requests: agent("huatuo_console_requests_total", signal.Counter, "Requests answered by the agent's HTTP server.",
			"5xx above zero: see the log.", signal.Field{Name: "code", Help: "Class of the status code.", Values: classes()[1:]}),
		panics:  agent("huatuo_console_panics_total", signal.Counter, "Requests whose handler panicked.", "Anything but zero is a bug: the log has the stack."),
		streams: agent("huatuo_console_streams", signal.Gauge, "Open live event streams.", ""),
		lost: agent("huatuo_console_stream_lost_events_total", signal.Counter, "Events that readers of live streams missed because they were too slow.",
			"The readers are told where; the store has the events."),
	}
}

func (m metrics) all() []*signal.Schema {
	return []*signal.Schema{m.requests, m.panics, m.streams, m.lost}
}

// Schemas lists the metrics of the server about itself.
func Schemas() []*signal.Schema { return newMetrics().all() }

// Collect adds the server's own metrics to a gathering round.
func (s *Server) Collect(b *signal.Batch) error {
	for i, class := range classes() {
		if i > 0 {
			b.Value(s.metrics.requests, float64(s.answers[i].Load()), class)
		}
	}
	readers, lost := s.opt.Hub.stats()
	b.Value(s.metrics.panics, float64(s.panics.Load()))
	b.Value(s.metrics.streams, float64(readers))
	b.Value(s.metrics.lost, float64(lost))
	return nil
}
