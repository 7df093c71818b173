package enrich

import (
	"huatuo/internal/kern/cgroup"
	"huatuo/internal/signal"
)

// identify turns what a path tells, and what Names knows, into a container and
// its labels. named is false while Names may learn more.
func (ws *workloads) identify(path string, id cgroup.Identity) (c signal.Container, l labels, named bool) {
	c = signal.Container{
		ID: id.ID, PodUID: id.PodUID, QoS: id.QoS, Runtime: id.Runtime, Unit: id.Unit, Cgroup: path,
	}
	switch id.Kind {
	case cgroup.Container:
		c.Name = id.Name
		if c.Name == "" {
			c.Name = id.ID[:min(shortID, len(id.ID))]
		}
		named = ws.names == nil || ws.nameContainer(&c)
		return c, labels{namespace: c.Namespace, pod: c.Pod, container: c.Name}, named
	case cgroup.Pod:
		// Of a pod's own group the path gives the uid alone.
		l.pod = id.PodUID
		if named = ws.names == nil; !named {
			var n Name
			if n, named = ws.names.Pod(id.PodUID); named {
				n.give(&c)
				l.namespace, l.pod = n.Namespace, n.Pod
			}
		}
		return c, l, named
	}
	if c.Unit == "" {
		c.Unit = id.Top // made by hand; "/" for the host itself
	}
	return c, labels{unit: c.Unit}, true
}

// nameContainer fills in what Names knows of a container, else of its pod.
func (ws *workloads) nameContainer(c *signal.Container) bool {
	if n, ok := ws.names.Container(c.ID); ok {
		n.give(c)
		return true
	}
	if n, ok := ws.names.Pod(c.PodUID); ok && c.PodUID != "" {
		n.give(c)
	}
	return false
}

// give writes what n tells into c. A runtime knows better than a path which
// runtime it is, and the path knows the uid and the class that the kernel sees.
func (n *Name) give(c *signal.Container) {
	c.Namespace, c.Pod, c.Image = n.Namespace, n.Pod, n.Image
	c.Labels, c.Annotations = n.Labels, n.Annotations
	if n.Name != "" {
		c.Name = n.Name
	}
	if n.Runtime != "" {
		c.Runtime = n.Runtime
	}
	fill(&c.PodUID, n.PodUID)
	fill(&c.QoS, n.QoS)
}
