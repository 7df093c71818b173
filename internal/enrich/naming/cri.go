package naming

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// criServices are the names of the service, the newest first. The messages are
// the same: containerd before 1.6 and CRI-O before 1.23 have the older name.
var criServices = [...]string{"/runtime.v1.RuntimeService/", "/runtime.v1alpha2.RuntimeService/"}

// criRuntime is a runtime that speaks the Container Runtime Interface.
type criRuntime struct {
	conn    *grpc.ClientConn
	service string
	name    string // containerd, cri-o, …

	mu     sync.Mutex
	images map[string]string // names by digest
}

// maxImages bounds the memory for images' names: a node keeps dozens.
const maxImages = 1024

func openCRI(ctx context.Context, address string) (Source, error) {
	if !strings.Contains(address, "://") {
		address = "unix://" + address
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)), grpc.WithDisableServiceConfig())
	if err != nil {
		return nil, err
	}
	r := &criRuntime{conn: conn, images: map[string]string{}}
	for _, r.service = range criServices {
		v := &cri.VersionResponse{}
		if err = r.call(ctx, "Version", &cri.VersionRequest{}, v); err == nil {
			r.name = v.RuntimeName
			return r, nil
		}
		if status.Code(err) != codes.Unimplemented {
			break
		}
	}
	conn.Close()
	if status.Code(err) == codes.Unimplemented { // a containerd that only Docker uses
		return nil, fmt.Errorf("%w: no CRI at %s", ErrAbsent, address)
	}
	return nil, fmt.Errorf("ask for the version: %w", err)
}

func (r *criRuntime) call(ctx context.Context, method string, req, res proto.Message) error {
	return r.conn.Invoke(ctx, r.service+method, req, res)
}

// Close ends the connection.
func (r *criRuntime) Close() { r.conn.Close() }

// List returns the running containers and the sandboxes that are ready.
func (r *criRuntime) List(ctx context.Context) ([]Container, error) {
	var pods cri.ListPodSandboxResponse
	if err := r.call(ctx, "ListPodSandbox", &cri.ListPodSandboxRequest{}, &pods); err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	var list cri.ListContainersResponse
	if err := r.call(ctx, "ListContainers", &cri.ListContainersRequest{}, &list); err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	byID := make(map[string]Container, len(pods.Items))
	var out []Container
	for _, p := range pods.Items {
		c := r.sandbox(p.Id, p.Metadata, p.Labels, p.Annotations, p.CreatedAt)
		byID[p.Id] = c
		if p.State == cri.PodSandboxState_SANDBOX_READY {
			out = append(out, c)
		}
	}
	for _, x := range list.Containers {
		if x.State != cri.ContainerState_CONTAINER_RUNNING {
			continue
		}
		c := r.container(x.Id, x.Metadata, x.Labels, x.Annotations, image(x.Image))
		c.Partial = true
		if p, ok := byID[x.PodSandboxId]; ok {
			c.inPod(p)
		}
		out = append(out, c)
	}
	return out, nil
}

// Inspect returns one container or sandbox.
func (r *criRuntime) Inspect(ctx context.Context, id string) (Container, error) {
	var list cri.ListContainersResponse
	filter := &cri.ContainerFilter{Id: id}
	if err := r.call(ctx, "ListContainers", &cri.ListContainersRequest{Filter: filter}, &list); err != nil {
		return Container{}, unknown(err)
	}
	if len(list.Containers) == 0 {
		return r.inspectSandbox(ctx, id)
	}
	x := list.Containers[0]
	c := r.container(x.Id, x.Metadata, x.Labels, x.Annotations, image(x.Image))
	// The list may give an image by its id, and does not tell of the start.
	var st cri.ContainerStatusResponse
	switch err := r.call(ctx, "ContainerStatus", &cri.ContainerStatusRequest{ContainerId: id}, &st); {
	case err == nil && st.Status != nil:
		c.Started = nanos(st.Status.StartedAt)
		if name := image(st.Status.Image); name != "" && !isDigest(name) {
			c.Image = name
		}
	case err != nil && !errors.Is(unknown(err), ErrUnknown):
		return Container{}, err
	}
	if isDigest(c.Image) {
		c.Image = r.imageName(ctx, c.Image)
	}
	p, err := r.inspectSandbox(ctx, x.PodSandboxId)
	if err != nil && !errors.Is(err, ErrUnknown) {
		return Container{}, err
	}
	c.inPod(p)
	return c, nil
}

func (r *criRuntime) inspectSandbox(ctx context.Context, id string) (Container, error) {
	var st cri.PodSandboxStatusResponse
	if err := r.call(ctx, "PodSandboxStatus", &cri.PodSandboxStatusRequest{PodSandboxId: id}, &st); err != nil {
		return Container{}, unknown(err)
	}
	s := st.Status
	if s == nil || s.Metadata == nil {
		return Container{}, ErrUnknown
	}
	return r.sandbox(s.Id, s.Metadata, s.Labels, s.Annotations, s.CreatedAt), nil
}

// imageName returns what an image is called that the kubelet asked for by its
// digest, as it does since 1.31; the digest when it has no name.
func (r *criRuntime) imageName(ctx context.Context, digest string) string {
	r.mu.Lock()
	name := r.images[digest]
	r.mu.Unlock()
	if name != "" {
		return name
	}
	var st cri.ImageStatusResponse
	service := strings.Replace(r.service, "RuntimeService", "ImageService", 1)
	req := &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: digest}}
	if err := r.conn.Invoke(ctx, service+"ImageStatus", req, &st); err != nil || st.Image == nil {
		return digest // the container has a name, which matters more
	}
	name = digest
	if i := st.Image; len(i.RepoTags) > 0 {
		name = i.RepoTags[0]
	} else if len(i.RepoDigests) > 0 {
		name = i.RepoDigests[0]
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.images) >= maxImages {
		clear(r.images)
	}
	r.images[digest] = name
	return name
}

// unknown maps the ways in which runtimes say that they know no such id.
func unknown(err error) error {
	if status.Code(err) == codes.NotFound || strings.Contains(err.Error(), "does not exist") {
		return fmt.Errorf("%w: %w", ErrUnknown, err)
	}
	return err
}

func (r *criRuntime) runtime() string {
	if r.name == "docker" || r.name == "cri-o" {
		return r.name
	}
	return "containerd"
}

func (r *criRuntime) sandbox(id string, m *cri.PodSandboxMetadata, labels, annotations map[string]string, created int64) Container {
	return Container{
		ID: id, Name: sandboxName, Runtime: r.runtime(),
		Namespace: m.GetNamespace(), Pod: m.GetName(), PodUID: m.GetUid(), Restarts: int(m.GetAttempt()),
		Labels: plain(labels), Annotations: plain(annotations), Started: nanos(created),
	}
}

func (r *criRuntime) container(id string, m *cri.ContainerMetadata, labels, annotations map[string]string, img string) Container {
	c := Container{ID: id, Name: m.GetName(), Runtime: r.runtime(), Image: img, Labels: labels, Restarts: int(m.GetAttempt())}
	c.fromKubernetes()
	c.Labels, c.Annotations = plain(labels), plain(annotations)
	return c
}

// inPod adds what a container has from its pod: the pod's labels are the ones
// that people give.
func (c *Container) inPod(p Container) {
	c.Namespace, c.Pod, c.PodUID = or(p.Namespace, c.Namespace), or(p.Pod, c.Pod), or(p.PodUID, c.PodUID)
	c.Labels, c.Annotations = union(p.Labels, c.Labels), union(p.Annotations, c.Annotations)
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// image is what the user asked for, else what the runtime made of it.
func image(i *cri.ImageSpec) string {
	return or(i.GetUserSpecifiedImage(), i.GetImage())
}

// isDigest tells sha256:… and 64 bare digits, which nobody reads.
func isDigest(s string) bool {
	return strings.HasPrefix(s, "sha256:") || len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

func nanos(t int64) time.Time {
	if t <= 0 {
		return time.Time{}
	}
	return time.Unix(0, t)
}

// Watch follows GetContainerEvents: containerd from 1.7, CRI-O from 1.26.
func (r *criRuntime) Watch(ctx context.Context, ready func(), f func(id string)) error {
	s, err := r.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, r.service+"GetContainerEvents")
	if err == nil {
		if err = s.SendMsg(&cri.GetEventsRequest{}); err == nil {
			err = s.CloseSend()
		}
	}
	for err == nil {
		// Only the answer tells whether there are events, and it comes with the
		// first one: until then the caller must list.
		e := &cri.ContainerEventResponse{}
		if err = s.RecvMsg(e); err == nil {
			ready()
			f(e.ContainerId)
		}
	}
	if status.Code(err) == codes.Unimplemented {
		return fmt.Errorf("events: %w", errors.ErrUnsupported)
	}
	return fmt.Errorf("read events: %w", err)
}
