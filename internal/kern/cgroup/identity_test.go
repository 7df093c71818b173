package cgroup

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	id1  = "18cdd8b8dff231c14d187b5fb06af061b5c8f199aebd64d4d8a20189451d6a40"
	id2  = "c30e67512f5c0991dab1cff8fe8d34bcbe77039a697568901ff54b464ecdf63a"
	uid  = "7f4b3a1c-8e0d-4f53-9a7e-2b1c5d6e7f80"
	uid_ = "7f4b3a1c_8e0d_4f53_9a7e_2b1c5d6e7f80"
	hash = "2dc345f79ce405626bf4d35e3e76b804"
)

func TestIdentify(t *testing.T) {
	ctr := func(runtime, id string) Identity { return Identity{Kind: Container, Runtime: runtime, ID: id} }
	named := func(runtime, name string) Identity {
		return Identity{Kind: Container, Runtime: runtime, ID: name, Name: name}
	}
	pod := func(id Identity, uid, qos string) Identity { id.PodUID, id.QoS = uid, qos; return id }
	unit := func(u string) Identity { return Identity{Kind: Unit, Unit: u} }
	slice := func(u string) Identity { return Identity{Kind: Inner, Unit: u} }
	podOnly := func(uid, qos string) Identity { return Identity{Kind: Pod, PodUID: uid, QoS: qos} }

	// A '|' marks the end of Top, where it is not the whole path.
	for _, tt := range []struct {
		path string
		want Identity
	}{
		// The host.
		{"/", Identity{Kind: Root}},
		{"", Identity{Kind: Root}},
		{"/..", Identity{Kind: Root}},
		{"/../..", Identity{Kind: Root}},

		// Docker.
		{"/docker/" + id1, ctr("docker", id1)},
		{"/docker/" + id1 + "|/init.scope", ctr("docker", id1)},
		{"/docker/" + id1 + "|/system.slice/ssh.service", ctr("docker", id1)},
		{"/system.slice/docker-" + id1 + ".scope", ctr("docker", id1)},
		{"/system.slice/docker-" + id1 + ".scope|/system.slice/nginx.service", ctr("docker", id1)},
		{"/user.slice/user-1000.slice/user@1000.service/user.slice/docker-" + id1 + ".scope", ctr("docker", id1)},
		{"/docker/" + id1 + "/docker/" + id2, ctr("docker", id2)},
		{"/actions_job/" + id1, ctr("", id1)},
		{"/my/own/parent/" + id1, ctr("", id1)},
		{"/docker", Identity{Kind: Inner}},
		{"/docker/short", Identity{Kind: Plain}},
		{"/docker/" + id1[:63] + "G", Identity{Kind: Plain}},

		// BuildKit.
		{"/docker/buildkit", Identity{Kind: Inner}},
		{"/docker/buildkit/k3q2x8w0v9j1m4n5b6c7d8e9f", ctr("buildkit", "k3q2x8w0v9j1m4n5b6c7d8e9f")},
		{"/buildkit/k3q2x8w0v9j1m4n5b6c7d8e9f", ctr("buildkit", "k3q2x8w0v9j1m4n5b6c7d8e9f")},
		{"/system.slice/docker-k3q2x8w0v9j1m4n5b6c7d8e9f.scope", ctr("buildkit", "k3q2x8w0v9j1m4n5b6c7d8e9f")},

		// Kubernetes, cgroupfs driver.
		{"/kubepods/burstable/pod" + uid + "/" + id1, pod(ctr("containerd", id1), uid, "burstable")},
		{"/kubepods/besteffort/pod" + uid + "/" + id1, pod(ctr("containerd", id1), uid, "besteffort")},
		{"/kubepods/pod" + uid + "/" + id1, pod(ctr("containerd", id1), uid, "guaranteed")},
		{"/kubepods/burstable/pod" + hash + "/" + id1, pod(ctr("containerd", id1), hash, "burstable")},
		{"/kubepods/burstable/pod" + uid + "/crio-" + id1, pod(ctr("cri-o", id1), uid, "burstable")},
		{"/kubepods/burstable/pod" + uid + "|/crio-conmon-" + id1, podOnly(uid, "burstable")},
		{"/kubepods/burstable/pod" + uid + "/kata_" + id1, pod(ctr("kata", id1), uid, "burstable")},
		{"/kubepods/burstable/pod" + uid, podOnly(uid, "burstable")},
		{"/kubepods/pod" + uid, podOnly(uid, "guaranteed")},
		{"/kubepods/burstable", Identity{Kind: Inner}},
		{"/kubepods", Identity{Kind: Inner}},
		{"/burstable", Identity{Kind: Plain}},
		{"/podcast", Identity{Kind: Plain}},
		{"/custom/root/kubepods/besteffort/pod" + uid + "/" + id1, pod(ctr("containerd", id1), uid, "besteffort")},
		{"/k8s.io/" + id1, ctr("containerd", id1)},

		// Kubernetes, systemd driver.
		{"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uid_ + ".slice/cri-containerd-" + id1 + ".scope",
			pod(ctr("containerd", id1), uid, "burstable")},
		{"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + uid_ + ".slice/crio-" + id1 + ".scope",
			pod(ctr("cri-o", id1), uid, "besteffort")},
		{"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + uid_ + ".slice/crio-" + id1 + ".scope|/container",
			pod(ctr("cri-o", id1), uid, "besteffort")},
		{"/kubepods.slice/kubepods-pod" + uid_ + ".slice/docker-" + id1 + ".scope",
			pod(ctr("docker", id1), uid, "guaranteed")},
		{"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + hash + ".slice/cri-containerd-" + id1 + ".scope",
			pod(ctr("containerd", id1), hash, "burstable")},
		{"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uid_ + ".slice|/crio-conmon-" + id1 + ".scope",
			podOnly(uid, "burstable")},
		{"/kubepods.slice/kubepods-pod" + uid_ + ".slice", podOnly(uid, "guaranteed")},
		{"/kubepods.slice/kubepods-burstable.slice", slice("kubepods-burstable.slice")},
		{"/kubepods.slice", slice("kubepods.slice")},
		{"/kubepods.slice/kubepods-podnot_a_uid.slice", slice("kubepods-podnot_a_uid.slice")},
		{"/notkubepods.slice/notkubepods-pod" + uid_ + ".slice", slice("notkubepods-pod" + uid_ + ".slice")},
		{"/edge.slice/edge-kubepods.slice/edge-kubepods-burstable.slice/edge-kubepods-burstable-pod" + uid_ + ".slice/cri-containerd-" + id1 + ".scope",
			pod(ctr("containerd", id1), uid, "burstable")},
		{"/system.slice/containerd.service/kubepods-burstable-pod" + uid_ + ".slice:cri-containerd:" + id1,
			pod(ctr("containerd", id1), uid, "burstable")},
		{"/system.slice/containerd.service/kubepods-pod" + uid_ + ".slice:cri-containerd:" + id1 + "|/sub",
			pod(ctr("containerd", id1), uid, "guaranteed")},
		{"/system.slice:docker:" + id1, ctr("docker", id1)},

		// Nodes in containers: kind, k3d.
		{"/docker/" + id1 + "/kubelet/kubepods/burstable/pod" + uid + "/" + id2, pod(ctr("containerd", id2), uid, "burstable")},
		{"/docker/" + id1 + "/kubelet/kubepods/pod" + uid, podOnly(uid, "guaranteed")},
		{"/docker/" + id1 + "|/kubelet/kubepods/burstable", ctr("docker", id1)},
		{"/docker/" + id1 + "|/kubelet/kubepods", ctr("docker", id1)},
		{"/docker/" + id1 + "|/system.slice/kubelet.service", ctr("docker", id1)},
		{"/system.slice/docker-" + id1 + ".scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod" +
			uid_ + ".slice/cri-containerd-" + id2 + ".scope", pod(ctr("containerd", id2), uid, "besteffort")},
		{"/kubepods/burstable/pod" + uid + "/" + id1 + "/docker/" + id2, pod(ctr("containerd", id2), uid, "burstable")},

		// As seen from inside a cgroup namespace, and after the end.
		{"/../" + id1, ctr("", id1)},
		{"/../../burstable/pod" + uid + "/" + id1, pod(ctr("containerd", id1), uid, "guaranteed")},
		{"/../cri-containerd-" + id1 + ".scope", ctr("containerd", id1)},
		{"/docker/" + id1 + " (deleted)", ctr("docker", id1)},
		{"/..odd", Identity{Kind: Plain}},

		// Podman.
		{"/machine.slice/libpod-" + id1 + ".scope", ctr("podman", id1)},
		{"/machine.slice/libpod-" + id1 + ".scope|/container", ctr("podman", id1)},
		{"/machine.slice/libpod-conmon-" + id1 + ".scope", unit("libpod-conmon-" + id1 + ".scope")},
		{"/machine.slice/machine-libpod_pod_" + id2 + ".slice/libpod-" + id1 + ".scope", ctr("podman", id1)},
		{"/machine.slice/machine-libpod_pod_" + id2 + ".slice", slice("machine-libpod_pod_" + id2 + ".slice")},
		{"/libpod_parent/libpod-" + id1, ctr("podman", id1)},
		{"/libpod_parent/" + id2 + "/libpod-" + id1, ctr("podman", id1)},
		{"/libpod_parent/conmon", Identity{Kind: Plain}},
		{"/libpod_parent/libpod-conmon-" + id1, Identity{Kind: Plain}},
		{"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id1 + ".scope|/container", ctr("podman", id1)},
		{"/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_" + id2 + ".slice/libpod-" + id1 + ".scope", ctr("podman", id1)},
		{"/user.slice/user-1000.slice/user@1000.service|/user.slice/podman-7.scope", unit("user@1000.service")},
		{"/system.slice/web.service/libpod-payload-" + id1, ctr("podman", id1)},

		// containerd, nerdctl.
		{"/default/" + id1, ctr("containerd", id1)},
		{"/system.slice/nerdctl-" + id1 + ".scope", ctr("containerd", id1)},
		{"/default/busybox1", Identity{Kind: Plain}},

		// LXC, LXD, Incus, Proxmox.
		{"/lxc/web", named("lxc", "web")},
		{"/lxc/101|/ns/system.slice/cron.service", named("lxc", "101")},
		{"/lxc.payload.web", named("lxc", "web")},
		{"/lxc.payload.web|/system.slice/ssh.service", named("lxc", "web")},
		{"/lxc.payload/web|/init.scope", named("lxc", "web")},
		{"/lxc.payload.outer/lxc.payload.in-ner", named("lxc", "in-ner")},
		{"/lxc.monitor.web", Identity{Kind: Plain}},

		// systemd-nspawn, libvirt.
		{`/machine.slice/systemd-nspawn@deb\x2d12.service|/payload/system.slice/x.service`, named("systemd-nspawn", "deb-12")},
		{`/machine.slice/machine-deb\x2d12.scope|/init.scope`, named("systemd-nspawn", "deb-12")},
		{`/machine.slice/machine-qemu\x2d1\x2dvm.scope|/libvirt/emulator`, named("qemu", "qemu-1-vm")},
		{`/machine.slice/machine-lxc\x2d12\x2dct.scope`, named("lxc", "lxc-12-ct")},
		{"/machine/qemu-1-vm.libvirt-qemu|/emulator", named("qemu", "qemu-1-vm")},
		{"/machine.slice", slice("machine.slice")},

		// ECS, Nomad, Garden, Mesos.
		{"/ecs/" + hash + "/" + id1, ctr("ecs", id1)},
		{"/ecs/" + hash + "/" + hash + "-3456789012", ctr("ecs", hash+"-3456789012")},
		{"/ecs/" + hash, Identity{Kind: Inner}},
		{"/ecstasks.slice/ecstasks-" + hash + ".slice/docker-" + id1 + ".scope", ctr("docker", id1)},
		{"/nomad/" + uid + ".redis", Identity{Kind: Container, Runtime: "nomad", ID: uid + ".redis", Name: "redis"}},
		{"/nomad.slice/" + uid + ".redis.scope", Identity{Kind: Container, Runtime: "nomad", ID: uid + ".redis", Name: "redis"}},
		{"/nomad.slice/share.slice/" + uid + ".my.task.scope|/sub", Identity{Kind: Container, Runtime: "nomad", ID: uid + ".my.task", Name: "my.task"}},
		{"/nomad.slice/share.slice", slice("share.slice")},
		{"/garden/" + uid, ctr("garden", uid)},
		{"/garden/good/" + uid + "|/x", ctr("garden", uid)},
		{"/garden/bad/" + uid, ctr("garden", uid)},
		{"/garden/good", Identity{Kind: Inner}},
		{"/system.slice/garden.service/garden/" + uid, ctr("garden", uid)},
		{"/mesos/" + uid, ctr("mesos", uid)},

		// systemd.
		{"/system.slice/nginx.service", unit("nginx.service")},
		{"/system.slice/nginx.service|/worker", unit("nginx.service")},
		{"/system.slice/system-getty.slice/getty@tty1.service", unit("getty@tty1.service")},
		{"/system.slice/docker.service", unit("docker.service")},
		{"/system.slice/run-u7.scope", unit("run-u7.scope")},
		{"/system.slice/dbus.socket", unit("dbus.socket")},
		{"/system.slice/tmp.mount", unit("tmp.mount")},
		{"/user.slice/user-1000.slice/session-2.scope", unit("session-2.scope")},
		{"/user.slice/user-1000.slice/user@1000.service|/app.slice/app-org.gnome.Terminal.slice/vte-spawn-1.scope", unit("user@1000.service")},
		{"/user.slice/user-1000.slice/user@1000.service|/init.scope", unit("user@1000.service")},
		{"/user.slice/user-1000.slice", slice("user-1000.slice")},
		{"/system.slice/_cpu.service", unit("cpu.service")},
		{"/init.scope", unit("init.scope")},
		{"/system.slice", slice("system.slice")},
		{"/system.slice/plain", Identity{Kind: Plain}},
		{"/system.slice/myapp-cafe.scope", unit("myapp-cafe.scope")},

		// By hand.
		{"/test", Identity{Kind: Plain}},
		{"/test/a b/c", Identity{Kind: Plain}},
		{"/.service", Identity{Kind: Plain}},
	} {
		top, rest, cut := strings.Cut(tt.path, "|")
		tt.want.Top = Clean(top)
		path := top + rest
		got := Identify(path)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s:\n%s", path, diff)
		}
		workload := !cut && (got.Kind == Container || got.Kind == Unit || got.Kind == Plain)
		if got.Workload(Clean(path)) != workload {
			t.Errorf("%s: is the top of a workload: %v, want %v", path, !workload, workload)
		}
	}
}

func FuzzIdentify(f *testing.F) {
	for _, p := range []string{
		"/", "/docker/" + id1 + "/init.scope", "/../x (deleted)", "/kubepods/burstable/pod" + uid + "/" + id1,
		"/system.slice/containerd.service/kubepods-burstable-pod" + uid_ + ".slice:cri-containerd:" + id1,
		`/machine.slice/machine-a\x2d.scope`, "/nomad/" + uid + ".t", "//", "/a//b/", "/ecs/x/x-1",
	} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, path string) {
		id := Identify(path)
		if clean := Clean(path); !strings.HasPrefix(clean, id.Top) || id.Top == "" {
			t.Errorf("top %q is not above %q", id.Top, clean)
		}
		if (id.Kind == Container) != (id.ID != "") {
			t.Errorf("kind %d with container id %q", id.Kind, id.ID)
		}
		if id.Kind == Container && id.Unit != "" {
			t.Errorf("a container with unit %q", id.Unit)
		}
		if again := Identify(id.Top); again.ID != id.ID || again.PodUID != id.PodUID {
			t.Errorf("%q is %+v, but its top %q is %+v", path, id, id.Top, again)
		}
	})
}

func BenchmarkIdentify(b *testing.B) {
	path := "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uid_ + ".slice/cri-containerd-" + id1 + ".scope"
	b.ReportAllocs()
	for b.Loop() {
		Identify(path)
	}
}
