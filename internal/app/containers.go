package app

import (
	"log/slog"
	"strings"

	"huatuo/internal/config"
	"huatuo/internal/enrich/naming"
	"huatuo/internal/kern/cgroup"
	"huatuo/internal/pipe"
	"huatuo/internal/signal"
)

// Metrics about containers that come from who runs them, and about who is asked.
var (
	containerInfo = workloadMetric("huatuo_container_info", signal.Gauge, "1", "What a container is; the value is always 1.",
		"Join it to other series by namespace, pod, container and unit to see their image.", infoFields()...)
	containerStart = workloadMetric("huatuo_container_start_time_seconds", signal.Gauge, "seconds", "When a container was started, in seconds since 1970.",
		"time() minus it is the container's age; a small one after a quiet day is a restart.")
	containerRestarts = workloadMetric("huatuo_container_restarts", signal.Gauge, "1", "How often a container was started again.",
		"Its increase is what to look at; it begins anew when the container is made anew.")
	runtimeUp = selfMetric("huatuo_names_source_up", signal.Gauge, "1", "Whether a source of container names can be asked: 1 or 0.",
		"0: the source is there and does not answer, so its containers go by their ids. A source that is not on the machine has no series.",
		signal.Field{Name: "source", Help: "docker, containerd, podman-store, kubelet, …"})
	namesKnown    = selfMetric("huatuo_names_known", signal.Gauge, "1", "Containers whose names are known, those of the last 10 minutes included.", "Bounded at 8192.")
	namesDeferred = selfMetric("huatuo_names_deferred_total", signal.Counter, "1", "New containers that were not asked for at once, because too many were waiting.",
		"Their events of the first seconds go by the container's id. Above 0: a runtime answers slowly.")
)

func containerSchemas() []*signal.Schema {
	return []*signal.Schema{containerInfo, containerStart, containerRestarts, runtimeUp, namesKnown, namesDeferred}
}

func infoFields() []signal.Field {
	return []signal.Field{
		{Name: "id", Help: "first 12 digits of the container's id"},
		{Name: "image", Help: "image as it was asked for"},
		{Name: "runtime", Help: "docker, containerd, cri-o or podman"},
		{Name: "qos", Help: "class of a Kubernetes pod: guaranteed, burstable or besteffort; empty for others"},
	}
}

func workloadMetric(name string, typ signal.MetricType, unit, help, read string, labels ...signal.Field) *signal.Schema {
	s := selfMetric(name, typ, unit, help, read, labels...)
	s.Area, s.Scope = signal.AreaSystem, signal.Workload
	return s
}

// newNames makes the registry of container names and has it follow the index.
func newNames(cfg *config.Config, index *cgroup.Index, log *slog.Logger) *naming.Registry {
	c := cfg.Containers
	feeds := naming.Feeds(naming.Places{
		Root: cfg.Host.Root, Sources: c.Sources, Docker: c.DockerHost, CRI: c.CRIEndpoints,
		PodmanSocket: c.PodmanSocket, PodmanStores: c.PodmanStores,
		Kubelet: naming.Kubelet(c.Kubelet), Pods: func() bool { return hasPods(index) },
	})
	r := naming.New(naming.Options{
		Feeds: feeds, Index: index, Log: log, Interval: c.Interval, Labels: c.EventLabels, Annotations: c.EventAnnotations,
	})
	if index != nil {
		index.Follow(r.Cgroup)
	}
	return r
}

func hasPods(index *cgroup.Index) bool {
	if index == nil {
		return false
	}
	for _, e := range index.Live() {
		if e.PodUID != "" {
			return true
		}
	}
	return false
}

// infoSchema is containerInfo with the labels that the configuration adds. It
// is made once: a series belongs to its schema.
func infoSchema(c config.Containers) (s *signal.Schema, chosen []infoLabel) {
	s = new(signal.Schema)
	*s = *containerInfo
	s.Fields = infoFields()
	seen := map[string]bool{}
	add := func(prefix string, keys []string, of func(*naming.Container) map[string]string) {
		for _, k := range keys {
			name := prefix + labelName(k)
			if seen[name] {
				continue
			}
			seen[name] = true
			s.Fields = append(s.Fields, signal.Field{Name: name, Help: strings.TrimSuffix(prefix, "_") + " " + k})
			chosen = append(chosen, infoLabel{k, of})
		}
	}
	add("label_", c.MetricLabels, func(c *naming.Container) map[string]string { return c.Labels })
	add("annotation_", c.MetricAnnotations, func(c *naming.Container) map[string]string { return c.Annotations })
	return s, chosen
}

// infoLabel is a label or annotation of containers that containerInfo carries.
type infoLabel struct {
	key string
	of  func(*naming.Container) map[string]string
}

// labelName makes a Prometheus label name of a key: app.kubernetes.io/name is
// app_kubernetes_io_name.
func labelName(key string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
}

// collectContainers reports the containers that run and have series of their own.
func (e *Engine) collectContainers(info *signal.Schema, chosen []infoLabel) func(*signal.Batch) error {
	return func(b *signal.Batch) error {
		for _, s := range e.names.Sources() {
			switch s.State {
			case naming.Up:
				b.Value(runtimeUp, 1, s.Name)
			case naming.Down:
				b.Value(runtimeUp, 0, s.Name)
			}
		}
		b.Value(namesKnown, float64(e.names.Len()))
		b.Value(namesDeferred, float64(e.names.Deferred()))
		if e.index == nil {
			return nil
		}
		seen := map[[3]string]bool{}
		for _, g := range e.index.Live() {
			if g.Kind == cgroup.Container && g.Workload() {
				e.collectContainer(b, info, chosen, &g, seen)
			}
		}
		return nil
	}
}

func (e *Engine) collectContainer(b *signal.Batch, info *signal.Schema, chosen []infoLabel, g *cgroup.Entry, seen map[[3]string]bool) {
	// What has no series of its own would give each of its ids to the series
	// of all the others.
	ns, pod, name, _, known := e.enrich.Labels(g.ID)
	if !known || ns == "" && pod == "" && name == pipe.Other {
		return
	}
	id := g.Identity.ID
	c, _ := e.names.Info(id)
	values := []string{id[:min(12, len(id))], c.Image, c.Runtime, c.QoS}
	if c.Runtime == "" {
		values[2] = g.Runtime
	}
	if c.QoS == "" {
		values[3] = g.QoS
	}
	for _, l := range chosen {
		values = append(values, l.of(&c)[l.key])
	}
	b.WorkloadValue(info, g.ID, 1, values...)
	// Containers of one name (of two runtimes) share series, whose gauges add
	// up: of times there must be one.
	who := [3]string{ns, pod, name}
	if c.Started.IsZero() || seen[who] {
		return
	}
	seen[who] = true
	b.WorkloadValue(containerStart, g.ID, float64(c.Started.UnixNano())/1e9)
	b.WorkloadValue(containerRestarts, g.ID, float64(c.Restarts))
}
