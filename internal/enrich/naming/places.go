package naming

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Places says where the sources are. An empty member means the usual places.
type Places struct {
	Root         string   // where the host's files are seen; "/" on the host
	Sources      []string // which of docker, cri, podman, podman-store, kubelet are asked
	Docker       string
	CRI          []string
	PodmanSocket string
	PodmanStores []string
	Kubelet      Kubelet
	Pods         func() bool // whether pods are seen on this machine
}

// serviceToken is where Kubernetes mounts a pod's token.
const serviceToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// The usual sockets, and files of podman: of root, and of users, whose state is
// on a tmpfs and whose storage is in their homes.
func usualDocker() []string { return []string{"run/docker.sock", "var/run/docker.sock"} }

func usualCRI() []string {
	return []string{
		"run/containerd/containerd.sock", "run/crio/crio.sock", "run/k3s/containerd/containerd.sock",
		"run/cri-dockerd.sock", "var/run/dockershim.sock",
	}
}

func usualStores() []string {
	return []string{
		"var/lib/containers/storage", "run/containers/storage",
		"home/*/.local/share/containers/storage", "run/user/*/containers",
	}
}

// Feeds returns the sources in the order in which they are believed: runtimes
// know the images and the names, the kubelet fills in pods.
func Feeds(p Places) []Feed {
	var fs []Feed
	on := func(name string) bool { return slices.Contains(p.Sources, name) }
	if on("docker") {
		fs = append(fs, Feed{Name: "docker", Knows: dockerKnows, Open: p.socket(p.Docker, usualDocker(), openDocker)})
	}
	if on("cri") {
		fs = append(fs, p.criFeeds()...)
	}
	isPodman := func(runtime string, _ bool) bool { return runtime == "podman" }
	if on("podman-store") {
		fs = append(fs, Feed{Name: "podman-store", Knows: isPodman, Open: func(ctx context.Context) (Source, error) {
			if len(p.PodmanStores) > 0 {
				return openPodmanStore(ctx, p.PodmanStores)
			}
			return openPodmanStore(ctx, p.join(usualStores()))
		}})
	}
	if on("podman") {
		fs = append(fs, Feed{Name: "podman", Knows: isPodman, Lazy: true,
			Open: p.socket(p.PodmanSocket, []string{"run/podman/podman.sock"}, openPodman)})
	}
	if on("kubelet") {
		fs = append(fs, Feed{Name: "kubelet", Knows: func(_ string, inPod bool) bool { return inPod }, Open: p.openKubelet})
	}
	return fs
}

// dockerKnows: Docker's containers may have a parent group of the user's choice,
// and below a pod's they look like containerd's.
func dockerKnows(runtime string, inPod bool) bool {
	return runtime == "docker" || runtime == "" || inPod
}

func criKnows(runtime string, inPod bool) bool {
	return inPod || runtime == "containerd" || runtime == "cri-o" || runtime == ""
}

func (p Places) criFeeds() (fs []Feed) {
	for _, a := range p.CRI {
		fs = append(fs, Feed{Name: "cri " + strings.TrimPrefix(a, "unix://"), Knows: criKnows, Open: p.socket(a, nil, openCRI)})
	}
	if len(p.CRI) > 0 {
		return fs
	}
	for _, a := range usualCRI() {
		name := strings.TrimSuffix(filepath.Base(a), ".sock")
		if strings.Contains(a, "k3s") {
			name = "k3s"
		}
		fs = append(fs, Feed{Name: name, Knows: criKnows, Open: p.socket("", []string{a}, openCRI)})
	}
	return fs
}

func (p Places) join(paths []string) []string {
	out := make([]string, len(paths))
	for i, s := range paths {
		out[i] = filepath.Join("/", p.Root, s)
	}
	return out
}

// socket opens the address that was configured, else the first of the usual
// sockets that is there.
func (p Places) socket(address string, usual []string, open func(context.Context, string) (Source, error)) func(context.Context) (Source, error) {
	return func(ctx context.Context) (Source, error) {
		if address != "" {
			return open(ctx, address)
		}
		for _, s := range p.join(usual) {
			if fi, err := os.Stat(s); err == nil && fi.Mode()&os.ModeSocket != 0 {
				return open(ctx, "unix://"+s)
			}
		}
		return nil, fmt.Errorf("%w: no socket %s", ErrAbsent, strings.Join(usual, ", "))
	}
}

func (p Places) openKubelet(ctx context.Context) (Source, error) {
	k := p.Kubelet
	if k.TokenFile == "" && k.CertFile == "" {
		if _, err := os.Stat(serviceToken); err == nil {
			k.TokenFile = serviceToken
		}
	}
	if k.URL != "" {
		return openKubelet(ctx, k)
	}
	// Nobody's ports are tried on a machine without pods.
	if p.Pods == nil || !p.Pods() {
		return nil, fmt.Errorf("%w: no pods are seen", ErrAbsent)
	}
	s, err := openKubelet(ctx, k)
	if err != nil { // nobody asked for it
		return nil, errors.Join(ErrAbsent, err)
	}
	return s, nil
}
