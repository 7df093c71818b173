package containers

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// containerd's configuration. restrict_oom_score_adj: a machine may forbid root
// to lower the score, as CRI asks for sandboxes.
const containerdConfig = `version = 2
root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "%[1]s/c.sock"
[ttrpc]
  address = "%[1]s/c.sock.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "%[2]s"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%[1]s/cni/bin"
    conf_dir = "%[1]s/cni"
`

// criNode is a containerd, and what a kubelet asks of it.
type criNode struct {
	t      testing.TB
	socket string
	digest string // of the image
	cri.RuntimeServiceClient
}

func startContainerd(t testing.TB) *criNode {
	t.Helper()
	need(t, "containerd", "ctr", "runc", "containerd-shim-runc-v2")
	dir := workDir(t)
	cfg := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(cfg, []byte(fmt.Sprintf(containerdConfig, dir, imageName)), 0o644); err != nil {
		t.Fatal(err)
	}
	r := &criNode{t: t, socket: dir + "/c.sock"}
	conn, err := grpc.NewClient("unix://"+r.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	r.RuntimeServiceClient = cri.NewRuntimeServiceClient(conn)
	daemon(t, exec.Command("containerd", "-c", cfg), func() error {
		_, err := r.Version(r.soon(), &cri.VersionRequest{})
		return err
	})
	t.Cleanup(func() { // before the daemon ends
		r.removePods()
		conn.Close()
	})
	command(t, "ctr", "-a", r.socket, "-n", "k8s.io", "images", "import", image)
	st, err := cri.NewImageServiceClient(conn).ImageStatus(r.soon(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: imageName}})
	if err != nil || st.Image == nil {
		t.Fatalf("the image is not there: %v", err)
	}
	r.digest = st.Image.Id
	return r
}

func (r *criNode) soon() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	r.t.Cleanup(cancel)
	return ctx
}

func (r *criNode) removePods() {
	list, err := r.ListPodSandbox(r.soon(), &cri.ListPodSandboxRequest{})
	if err != nil {
		r.t.Error(err)
		return
	}
	for _, p := range list.Items {
		if _, err := r.StopPodSandbox(r.soon(), &cri.StopPodSandboxRequest{PodSandboxId: p.Id}); err != nil {
			r.t.Error(err)
		}
		if _, err := r.RemovePodSandbox(r.soon(), &cri.RemovePodSandboxRequest{PodSandboxId: p.Id}); err != nil {
			r.t.Error(err)
		}
	}
}

// pod is a pod's sandbox, as a kubelet makes it.
type pod struct {
	r      *criNode
	id     string
	config *cri.PodSandboxConfig
}

// pod makes one from what the kubelet's /pods says of it.
func (r *criNode) pod(p podSpec) *pod {
	r.t.Helper()
	m := p.Metadata
	parent := "/kubepods/" + strings.ToLower(p.Status.QOSClass) + "/pod" + m.UID
	if p.Status.QOSClass == "Guaranteed" {
		parent = "/kubepods/pod" + m.UID
	}
	labels := map[string]string{"io.kubernetes.pod.name": m.Name, "io.kubernetes.pod.namespace": m.Namespace, "io.kubernetes.pod.uid": m.UID}
	for k, v := range m.Labels {
		labels[k] = v
	}
	cfg := &cri.PodSandboxConfig{
		Metadata: &cri.PodSandboxMetadata{Name: m.Name, Namespace: m.Namespace, Uid: m.UID}, Labels: labels, Annotations: m.Annotations,
		LogDirectory: r.t.TempDir(),
		Linux: &cri.LinuxPodSandboxConfig{CgroupParent: parent, SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE},
		}},
	}
	s, err := r.RunPodSandbox(r.soon(), &cri.RunPodSandboxRequest{Config: cfg})
	if err != nil {
		r.t.Fatal(err)
	}
	return &pod{r, s.PodSandboxId, cfg}
}

// start makes and starts a container, as a kubelet does.
func (p *pod) start(name string, attempt uint32, limit int64, args ...string) (id string) {
	p.r.t.Helper()
	m := p.config.Metadata
	c, err := p.r.CreateContainer(p.r.soon(), &cri.CreateContainerRequest{PodSandboxId: p.id, SandboxConfig: p.config, Config: &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: name, Attempt: attempt}, Image: &cri.ImageSpec{Image: p.r.digest, UserSpecifiedImage: imageName}, Command: args,
		Labels: map[string]string{
			"io.kubernetes.pod.name": m.Name, "io.kubernetes.pod.namespace": m.Namespace, "io.kubernetes.pod.uid": m.Uid, "io.kubernetes.container.name": name,
		},
		Annotations: map[string]string{"io.kubernetes.container.hash": "8a5e1c0d"}, LogPath: fmt.Sprintf("%s-%d.log", name, attempt),
		Linux: &cri.LinuxContainerConfig{
			Resources:       &cri.LinuxContainerResources{MemoryLimitInBytes: limit},
			SecurityContext: &cri.LinuxContainerSecurityContext{NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE}},
		},
	}})
	if err != nil {
		p.r.t.Fatal(err)
	}
	if _, err := p.r.StartContainer(p.r.soon(), &cri.StartContainerRequest{ContainerId: c.ContainerId}); err != nil {
		p.r.t.Fatal(err)
	}
	return c.ContainerId
}

const eatLimit = 8 << 20

// podSpec is what is used of a pod in the kubelet's /pods.
type podSpec struct {
	Metadata struct {
		Name, Namespace, UID string
		Labels, Annotations  map[string]string
	}
	Status struct{ QOSClass string }
}

// recordedPods are the pods that a real kubelet ran, and its answer.
func recordedPods(t testing.TB) (pods []podSpec, answer string) {
	t.Helper()
	b, err := os.ReadFile("../../internal/enrich/naming/testdata/kubelet/pods.json")
	if err != nil {
		t.Fatal(err)
	}
	var list struct{ Items []podSpec }
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	return list.Items, string(b)
}

func TestContainerd(t *testing.T) {
	t.Parallel()
	r := startContainerd(t)
	specs, _ := recordedPods(t)
	web := r.pod(specs[0])
	app := web.start("app", 2, 64<<20, "sleep", "1000")
	a := startAgent(t, "cri_endpoints: [unix://"+r.socket+"]\nsources: [cri]\nevent_annotations: [example.com/*]\nmetric_labels: [app]\nmetric_annotations: [example.com/owner]")

	who := []string{`namespace="team-a"`, `pod="web-node1"`, `container="app"`}
	a.series("huatuo_container_info", append(who, `id="`+app[:12]+`"`, `image="`+imageName+`"`, `runtime="containerd"`, `qos="burstable"`,
		`label_app="web"`, `annotation_example_com_owner="alice"`)...)
	a.series("huatuo_container_info", `pod="web-node1"`, `container="POD"`)
	a.series("huatuo_container_memory_limit_bytes", who...)
	if l := a.series("huatuo_container_restarts", who...); !strings.HasSuffix(l, " 2") {
		t.Errorf("restarts: %s", l)
	}

	check := func(id, name string) {
		t.Helper()
		got := a.oomKill(id)
		want := got
		want.Name, want.Pod, want.Namespace, want.PodUID, want.QoS = name, specs[0].Metadata.Name, "team-a", specs[0].Metadata.UID, "burstable"
		want.Image, want.Runtime = imageName, "containerd"
		want.Labels, want.Annotations = map[string]string{"app": "web", "tier": "front"}, map[string]string{"example.com/owner": "alice"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
	check(web.start("short", 0, eatLimit, eat(0)[1:]...), "short")
	check(web.start("longer", 0, eatLimit, eat(0.3)[1:]...), "longer")

	// A whole pod comes later; another class has another path.
	guaranteed := r.pod(specs[1])
	id := guaranteed.start("g1", 0, eatLimit, eat(0)[1:]...)
	if got := a.oomKill(id); got.Pod != "guar-node1" || got.Namespace != "team-b" || got.QoS != "guaranteed" || got.Name != "g1" {
		t.Errorf("%+v", got)
	}
	a.series("huatuo_container_info", `pod="guar-node1"`, `container="POD"`)
}

// TestKubeletPods: the kubelet's answer is recorded, the containers are real,
// and the runtime cannot be asked.
func TestKubeletPods(t *testing.T) {
	t.Parallel()
	r := startContainerd(t)
	specs, answer := recordedPods(t)
	web := r.pod(specs[0])
	app := web.start("app", 0, 64<<20, "sleep", "1000")
	answer = strings.ReplaceAll(answer, "18cdd8b8dff231c14d187b5fb06af061b5c8f199aebd64d4d8a20189451d6a40", app)
	eater := web.start("side", 0, eatLimit, eat(2)[1:]...)
	answer = strings.ReplaceAll(answer, "c30e67512f5c0991dab1cff8fe8d34bcbe77039a697568901ff54b464ecdf63a", eater)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/pods" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, answer)
	}))
	defer srv.Close()
	a := startAgent(t, "sources: [kubelet]\nkubelet:\n  url: "+srv.URL)
	a.series("huatuo_container_info", `namespace="team-a"`, `pod="web-node1"`, `container="app"`, `image="`+imageName+`"`, `runtime="containerd"`, `qos="burstable"`)
	got := a.oomKill(eater)
	if got.Name != "side" || got.Pod != "web-node1" || got.Namespace != "team-a" || got.Labels["tier"] != "front" || got.Image != imageName {
		t.Errorf("%+v", got)
	}
	// A container that the kubelet does not tell of yet has its pod's name.
	id := web.start("init", 0, eatLimit, eat(0)[1:]...)
	if got := a.oomKill(id); got.Name != id[:12] || got.Pod != "web-node1" || got.Namespace != "team-a" {
		t.Errorf("%+v", got)
	}
}
