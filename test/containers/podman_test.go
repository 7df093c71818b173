package containers

import (
	"errors"
	"net"
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var errStill = errors.New("it is still there")

// TestPodmanFiles: no service of podman runs.
func TestPodmanFiles(t *testing.T) {
	t.Parallel()
	c, dir := podmanCLI(t)
	a := startAgent(t, "sources: [podman-store]\npodman_stores: ["+dir+"/root, "+dir+"/run]")
	c.do("pod", "create", "--name", "shop", "--infra=false")
	web := c.start("--name", "web", "--pod", "shop", "--label", "app=web", imageName, "sleep", "1000")
	a.series("huatuo_container_info", `container="web"`, `pod="shop"`, `runtime="podman"`, `image="`+imageName+`"`, `id="`+web[:12]+`"`)
	testPodmanKill(t, c, a)
}

// TestPodmanService: podman's files cannot be read, and its service can be asked.
func TestPodmanService(t *testing.T) {
	t.Parallel()
	c, dir := podmanCLI(t)
	socket := dir + "/p.sock"
	daemon(t, exec.Command(c.name, append(append([]string(nil), c.args...), "system", "service", "-t", "0", "unix://"+socket)...), func() error {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		return err
	})
	c.start("--name", "web", "--label", "app=web", imageName, "sleep", "1000")
	a := startAgent(t, "sources: [podman]\npodman_socket: unix://"+socket)
	a.series("huatuo_container_info", `container="web"`, `runtime="podman"`)
	testPodmanKill(t, c, a)
}

func testPodmanKill(t *testing.T, c *cli, a *agent) {
	t.Helper()
	for name, life := range map[string]float64{"short": 0, "longer": 0.3} {
		id := c.start(append([]string{"--rm", "--name", name, "--label", "app=" + name, "--memory", memory}, eat(life)...)...)
		got := a.oomKill(id)
		if got.Name != name || got.Runtime != "podman" || got.Image != imageName {
			t.Errorf("%+v", got)
		}
		if diff := cmp.Diff(map[string]string{"app": name}, got.Labels); diff != "" {
			t.Errorf("labels: %s", diff)
		}
	}
}
