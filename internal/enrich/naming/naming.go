// Package naming asks who knows what containers are called: Docker, the
// runtimes that speak CRI (containerd, CRI-O), podman, and the kubelet.
//
// A Registry has a Source for each of them. It lists what runs when it begins,
// follows the events of those that have any, asks about a container the moment
// its control group is made, and lists again every 30 s. What it has learnt is
// remembered for 10 minutes after a container's end. Nobody has to be
// reachable: a container that nobody names goes by what its cgroup path tells.
//
// Limits (CPU, memory) are not asked for: the cgroup has those in force.
package naming

import (
	"context"
	"errors"
	"maps"
	"strings"
	"time"
)

// Container is what a source tells of one container. Zero members are not known.
type Container struct {
	ID, Name               string
	Namespace, Pod, PodUID string
	Image                  string // as it was asked for: localhost/busybox:1
	Runtime                string // docker, containerd, cri-o, podman
	QoS                    string // guaranteed, burstable, besteffort
	Labels, Annotations    map[string]string
	Started                time.Time
	Restarts               int

	// Partial: it comes from a list, and Inspect knows more.
	Partial bool
}

// Source is one who knows containers. Its methods but Close may be called from
// several goroutines; contexts have a deadline, but for that of Watch.
type Source interface {
	// List returns the containers that run. One without ID tells of a pod.
	List(ctx context.Context) ([]Container, error)
	// Inspect returns one container, running or not; ErrUnknown when the
	// source does not know it.
	Inspect(ctx context.Context, id string) (Container, error)
	// Watch calls ready once nothing is missed from then on, and then f with
	// the id of each container that starts, changes or ends, until ctx is
	// done or the stream breaks. It returns an error wrapping
	// errors.ErrUnsupported when there is no stream.
	Watch(ctx context.Context, ready func(), f func(id string)) error
	Close()
}

// ErrUnknown tells that a source does not know a container.
var ErrUnknown = errors.New("no such container")

// ErrAbsent tells that a source is not on this machine, which is no failure.
var ErrAbsent = errors.New("not here")

// Keys that the kubelet puts beside the user's labels.
const (
	keyPodName   = "io.kubernetes.pod.name"
	keyNamespace = "io.kubernetes.pod.namespace"
	keyPodUID    = "io.kubernetes.pod.uid"
	keyContainer = "io.kubernetes.container.name"
)

// sandboxName is what the container is called that holds a pod's namespaces:
// cAdvisor calls it so, and dashboards leave it out by that name.
const sandboxName = "POD"

// fromKubernetes takes the identity of a pod's container out of the labels that
// the kubelet gives to its runtime.
func (c *Container) fromKubernetes() {
	pod := c.Labels[keyPodName]
	if pod == "" {
		return
	}
	c.Pod, c.Namespace, c.PodUID = pod, c.Labels[keyNamespace], c.Labels[keyPodUID]
	if name := c.Labels[keyContainer]; name != "" {
		c.Name = name
	}
}

// plain returns m without the plumbing between the kubelet, the runtimes and
// their tools; nil when nothing is left.
func plain(m map[string]string) map[string]string {
	out := make(map[string]string, len(m))
	for k, v := range m {
		if !plumbing(k) {
			out[k] = v
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

func plumbing(key string) bool {
	for _, prefix := range [...]string{
		"io.kubernetes.pod.", "io.kubernetes.container.", "io.kubernetes.docker.", "io.kubernetes.sandbox.", "io.kubernetes.cri",
		"annotation.", "io.cri-containerd.", "io.container.manager", "io.podman.annotations.", "kubernetes.io/config.",
		"kubectl.kubernetes.io/last-applied-configuration",
	} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// merge fills what c lacks from o, which another source told.
func (c *Container) merge(o *Container) {
	for _, f := range []struct {
		to   *string
		from string
	}{
		{&c.ID, o.ID}, {&c.Name, o.Name}, {&c.Namespace, o.Namespace}, {&c.Pod, o.Pod}, {&c.PodUID, o.PodUID},
		{&c.Image, o.Image}, {&c.Runtime, o.Runtime}, {&c.QoS, o.QoS},
	} {
		if *f.to == "" {
			*f.to = f.from
		}
	}
	c.Labels, c.Annotations = union(c.Labels, o.Labels), union(c.Annotations, o.Annotations)
	if c.Started.IsZero() {
		c.Started = o.Started
	}
	c.Restarts = max(c.Restarts, o.Restarts)
}

// union returns a with what only b has; neither is written to.
func union(a, b map[string]string) map[string]string {
	if len(a) == 0 {
		return b
	}
	if len(b) == 0 {
		return a
	}
	m := maps.Clone(b)
	maps.Copy(m, a)
	return m
}
