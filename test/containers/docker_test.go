package containers

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDocker(t *testing.T) {
	t.Parallel()
	c, address := startDocker(t)
	web := c.start("--name", "web", "--label", "app=web", "--label", "tier=front", imageName, "sleep", "1000")
	a := startAgent(t, "docker_host: "+address+"\nsources: [docker]\nmetric_labels: [app]\nevent_labels: [app, com.*]")

	// One that was there before the agent.
	info := a.series("huatuo_container_info", `container="web"`, `image="`+imageName+`"`, `runtime="docker"`, `id="`+web[:12]+`"`, `label_app="web"`)
	if strings.Contains(info, "tier") {
		t.Errorf("a label that nobody asked for: %s", info)
	}
	a.series("huatuo_container_memory_usage_bytes", `container="web"`)
	a.series("huatuo_container_start_time_seconds", `container="web"`)
	a.series("huatuo_names_source_up", `source="docker"`)

	// One that comes later, with a kill in it.
	id := c.start(append([]string{"--name", "eater", "--memory", memory, "--label", "app=eater", "--label", "secret=x", "--label", "com.example.team=a"}, eat(1)...)...)
	got := a.oomKill(id)
	if got.Name != "eater" || got.Runtime != "docker" || got.Image != imageName {
		t.Errorf("%+v", got)
	}
	if diff := cmp.Diff(map[string]string{"app": "eater", "com.example.team": "a"}, got.Labels); diff != "" {
		t.Errorf("labels: %s", diff)
	}

	// Its events tell of a new name, and of a new start.
	c.do("rename", "web", "shop")
	a.series("huatuo_container_info", `container="shop"`, `id="`+web[:12]+`"`)
	c.do("restart", "-t", "0", "shop")
	a.series("huatuo_container_start_time_seconds", `container="shop"`)
}

// TestDockerShort: a container that lives for 300 ms, and is removed with its
// end, has its name on its events.
func TestDockerShort(t *testing.T) {
	t.Parallel()
	c, address := startDocker(t)
	a := startAgent(t, "docker_host: "+address+"\nsources: [docker]")
	for _, life := range []float64{0, 0.25} {
		began := time.Now()
		id := c.start(append([]string{"--rm", "--name", "short", "--memory", memory}, eat(life)...)...)
		got := a.oomKill(id)
		if got.Name != "short" || got.Image != imageName || got.Runtime != "docker" {
			t.Errorf("after a life of %g s: %+v", life, got)
		}
		t.Logf("known %v after docker run", time.Since(began))
		a.eventually(10*time.Second, "removed", func() error {
			if s := c.do("ps", "-aq", "--filter", "name=short"); s != "" {
				return errStill
			}
			return nil
		})
	}
}

// TestNobody: nobody can be asked for names.
func TestNobody(t *testing.T) {
	t.Parallel()
	c, address := startDocker(t)
	id := c.start("--name", "web", imageName, "sleep", "1000")
	// The agent is told of another socket, where nobody is.
	a := startAgent(t, "docker_host: "+address+".none\nsources: [docker]")
	a.series("huatuo_names_source_up", `source="docker"`)
	a.series("huatuo_container_info", `container="`+id[:12]+`"`, `runtime="docker"`)
	eater := c.start(append([]string{"--memory", memory}, eat(0.2)...)...)
	if got := a.oomKill(eater); got.Name != eater[:12] || got.Runtime != "docker" {
		t.Errorf("%+v", got)
	}
}
