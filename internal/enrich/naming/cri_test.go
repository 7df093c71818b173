package naming

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	sandboxID = "69d63b41711d9a9611cfbfb4369f2376101849682e4f5ce287a5feba1377ad84"
	appID     = "16bd0df0fdce020bfacf20bafc22bcc2358ab7970565c8551a1a6acabd309331"
	staticUID = "2dc345f79ce405626bf4d35e3e76b804"
)

// fakeCRI answers with what a real containerd has answered.
type fakeCRI struct {
	cri.UnimplementedRuntimeServiceServer
	t         *testing.T
	stateless bool // no stream of events, as before containerd 1.7
}

func (f *fakeCRI) read(name string, m proto.Message) {
	if err := proto.Unmarshal(recorded(f.t, "cri/"+name+".pb"), m); err != nil {
		f.t.Error(err)
	}
}

func (f *fakeCRI) Version(context.Context, *cri.VersionRequest) (*cri.VersionResponse, error) {
	m := &cri.VersionResponse{}
	f.read("Version", m)
	return m, nil
}

func (f *fakeCRI) ListPodSandbox(context.Context, *cri.ListPodSandboxRequest) (*cri.ListPodSandboxResponse, error) {
	m := &cri.ListPodSandboxResponse{}
	f.read("ListPodSandbox", m)
	return m, nil
}

func (f *fakeCRI) ListContainers(_ context.Context, r *cri.ListContainersRequest) (*cri.ListContainersResponse, error) {
	m := &cri.ListContainersResponse{}
	if id := r.GetFilter().GetId(); id == "" || id == appID {
		f.read("ListContainers", m)
	}
	return m, nil
}

func (f *fakeCRI) ContainerStatus(_ context.Context, r *cri.ContainerStatusRequest) (*cri.ContainerStatusResponse, error) {
	if r.ContainerId != appID {
		return nil, status.Error(codes.NotFound, "an error occurred when try to find container: not found")
	}
	m := &cri.ContainerStatusResponse{}
	f.read("ContainerStatus", m)
	return m, nil
}

func (f *fakeCRI) PodSandboxStatus(_ context.Context, r *cri.PodSandboxStatusRequest) (*cri.PodSandboxStatusResponse, error) {
	if r.PodSandboxId != sandboxID {
		return nil, status.Error(codes.NotFound, "an error occurred when try to find sandbox: not found")
	}
	m := &cri.PodSandboxStatusResponse{}
	f.read("PodSandboxStatus", m)
	return m, nil
}

func (f *fakeCRI) GetContainerEvents(_ *cri.GetEventsRequest, s grpc.ServerStreamingServer[cri.ContainerEventResponse]) error {
	if f.stateless {
		return status.Error(codes.Unimplemented, "method GetContainerEvents not implemented")
	}
	for i := range 8 {
		m := &cri.ContainerEventResponse{}
		f.read(fmt.Sprintf("event%d", i), m)
		if err := s.Send(m); err != nil {
			return err
		}
	}
	return nil
}

// serveCRI serves f under the name of a version of CRI; "" serves nothing.
func serveCRI(t *testing.T, f *fakeCRI, version string) string {
	t.Helper()
	f.t = t
	l, address := listenUnix(t)
	srv := grpc.NewServer()
	if version != "" {
		desc := cri.RuntimeService_ServiceDesc
		desc.ServiceName = "runtime." + version + ".RuntimeService"
		srv.RegisterService(&desc, f)
	}
	go srv.Serve(l)
	t.Cleanup(srv.Stop)
	return address
}

func TestCRI(t *testing.T) {
	for _, version := range []string{"v1", "v1alpha2"} {
		t.Run(version, func(t *testing.T) {
			ctx := shortly(t)
			s, err := openCRI(ctx, serveCRI(t, &fakeCRI{}, version))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			pod := Container{
				ID: sandboxID, Name: "POD", Namespace: "team-a", Pod: "web-node1", PodUID: staticUID, Runtime: "containerd",
				Labels:      map[string]string{"app": "web", "tier": "front"},
				Annotations: map[string]string{"example.com/owner": "alice"},
			}
			app := pod
			app.ID, app.Name, app.Image, app.Restarts = appID, "app", "localhost/busybox:1", 2

			list, err := s.List(ctx)
			if err != nil || len(list) != 2 {
				t.Fatalf("list: %v, %v", list, err)
			}
			pod.Started = list[0].Started
			if time.Since(pod.Started) < 0 || pod.Started.Year() < 2026 {
				t.Errorf("the sandbox started at %v", pod.Started)
			}
			partial := app
			partial.Partial = true
			if diff := cmp.Diff([]Container{pod, partial}, list); diff != "" {
				t.Errorf("list: %s", diff)
			}
			got, err := s.Inspect(ctx, appID)
			if err != nil || got.Started.Before(pod.Started) {
				t.Errorf("inspect: %v, started %v", err, got.Started)
			}
			app.Started = got.Started
			if diff := cmp.Diff(app, got); diff != "" {
				t.Errorf("inspect: %s", diff)
			}
			if got, err := s.Inspect(ctx, sandboxID); err != nil || cmp.Diff(pod, got) != "" {
				t.Errorf("inspect the sandbox: %v %s", err, cmp.Diff(pod, got))
			}
			if _, err := s.Inspect(ctx, webID); !errors.Is(err, ErrUnknown) {
				t.Errorf("a container that is not there: %v", err)
			}
		})
	}
}

// images is the service of images, which counts the questions.
type images struct {
	cri.UnimplementedImageServiceServer
	asked int
	names map[string]*cri.Image
}

func (i *images) ImageStatus(_ context.Context, r *cri.ImageStatusRequest) (*cri.ImageStatusResponse, error) {
	i.asked++
	return &cri.ImageStatusResponse{Image: i.names[r.Image.Image]}, nil
}

// TestCRIImageName: the kubelet asks for images by their digest.
func TestCRIImageName(t *testing.T) {
	l, address := listenUnix(t)
	svc := &images{names: map[string]*cri.Image{
		"sha256:1": {RepoTags: []string{"busybox:1", "busybox:latest"}, RepoDigests: []string{"busybox@sha256:2"}},
		"sha256:2": {RepoDigests: []string{"busybox@sha256:2"}},
		"sha256:3": {},
	}}
	srv := grpc.NewServer()
	cri.RegisterRuntimeServiceServer(srv, &fakeCRI{t: t})
	cri.RegisterImageServiceServer(srv, svc)
	go srv.Serve(l)
	t.Cleanup(srv.Stop)
	s, err := openCRI(shortly(t), address)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 2 {
		for digest, want := range map[string]string{"sha256:1": "busybox:1", "sha256:2": "busybox@sha256:2", "sha256:3": "sha256:3", "sha256:4": "sha256:4"} {
			if got := s.(*criRuntime).imageName(shortly(t), digest); got != want {
				t.Errorf("%s is called %s, want %s", digest, got, want)
			}
		}
	}
	if svc.asked != 5 { // the one that is not there twice
		t.Errorf("asked %d times, want 5", svc.asked)
	}
}

func TestCRIWatch(t *testing.T) {
	ctx := shortly(t)
	s, err := openCRI(ctx, serveCRI(t, &fakeCRI{}, "v1"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var ids []string
	ready := false
	err = s.Watch(ctx, func() { ready = true }, func(id string) { ids = append(ids, id) })
	want := []string{sandboxID, sandboxID, appID, appID, appID, sandboxID, appID, sandboxID}
	if !slices.Equal(ids, want) || !ready || err == nil || errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("events of %q, ready %v, %v", ids, ready, err)
	}

	old, err := openCRI(ctx, serveCRI(t, &fakeCRI{stateless: true}, "v1"))
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := old.Watch(ctx, func() {}, func(string) {}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("without a stream: %v", err)
	}
}

func TestCRIAbsent(t *testing.T) {
	ctx := shortly(t)
	// Docker's own containerd speaks no CRI.
	if _, err := openCRI(ctx, serveCRI(t, &fakeCRI{}, "")); !errors.Is(err, ErrAbsent) {
		t.Errorf("no such service: %v", err)
	}
	if _, err := openCRI(ctx, "unix://"+socketDir(t)+"/none"); err == nil || errors.Is(err, ErrAbsent) {
		t.Errorf("no socket: %v", err)
	}
	// One that takes connections and does not answer.
	_, address := listenUnix(t)
	brief, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	if _, err := openCRI(brief, address); err == nil || errors.Is(err, ErrAbsent) {
		t.Errorf("no answer: %v", err)
	}
}

func TestIsDigest(t *testing.T) {
	for s, want := range map[string]bool{
		"sha256:a336": true, appID: true, "localhost/busybox:1": false, "busybox@sha256:a336": false, "": false,
	} {
		if isDigest(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
}
