package naming

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"
)

// podmanAPI is served by podman 4 and 5.
const podmanAPI = "/v4.0.0/libpod"

// podman is podman's service. systemd starts it for the connection and it ends
// after some idle seconds, so it is asked when there is a reason, and no stream
// keeps it running.
type podman struct{ c *client }

func openPodman(_ context.Context, address string) (Source, error) {
	c, err := dial(address)
	if err != nil {
		return nil, err
	}
	return &podman{c}, nil
}

// Close gives back connections.
func (p *podman) Close() { p.c.close() }

// List returns the running containers.
func (p *podman) List(ctx context.Context) ([]Container, error) {
	var all []struct {
		ID, Image, Pod, PodName string
		Names                   []string
		Labels                  map[string]string
		StartedAt               int64
		Restarts                int
	}
	if err := p.c.get(ctx, podmanAPI+"/containers/json", &all); err != nil {
		return nil, err
	}
	out := make([]Container, 0, len(all))
	for _, a := range all {
		c := Container{
			ID: a.ID, Runtime: "podman", Image: a.Image, Pod: a.PodName, PodUID: a.Pod,
			Labels: plain(a.Labels), Started: started(time.Unix(a.StartedAt, 0)), Restarts: a.Restarts,
		}
		if len(a.Names) > 0 {
			c.Name = a.Names[0]
		}
		out = append(out, c)
	}
	return out, nil
}

// Inspect returns one container.
func (p *podman) Inspect(ctx context.Context, id string) (Container, error) {
	var a struct {
		ID           string `json:"Id"`
		Name         string
		ImageName    string
		Pod          string
		RestartCount int
		State        struct{ StartedAt time.Time }
		Config       struct{ Labels map[string]string }
	}
	if err := p.c.get(ctx, podmanAPI+"/containers/"+url.PathEscape(id)+"/json", &a); err != nil {
		return Container{}, err
	}
	c := Container{
		ID: a.ID, Name: a.Name, Runtime: "podman", Image: a.ImageName, PodUID: a.Pod,
		Labels: plain(a.Config.Labels), Started: started(a.State.StartedAt), Restarts: a.RestartCount,
	}
	if a.Pod != "" {
		var pod struct{ Name string }
		if err := p.c.get(ctx, podmanAPI+"/pods/"+url.PathEscape(a.Pod)+"/json", &pod); err != nil && !errors.Is(err, ErrUnknown) {
			return Container{}, err
		}
		c.Pod = pod.Name
	}
	return c, nil
}

// Watch is not offered: see podman.
func (p *podman) Watch(context.Context, func(), func(string)) error {
	return fmt.Errorf("a stream of podman's events keeps its service running: %w", errors.ErrUnsupported)
}
