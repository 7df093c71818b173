package naming

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// dockerAPI is the oldest Engine API that every Docker of kernel 4.18's time
// and later serves: 19.03 has 1.40, and 29 refuses what is older than 1.44, so
// the version is asked for first.
const dockerAPI = "1.40"

// docker is the Docker Engine.
type docker struct {
	c       *client
	version string // "/v1.44"
}

func openDocker(ctx context.Context, address string) (Source, error) {
	c, err := dial(address)
	if err != nil {
		return nil, err
	}
	d := &docker{c: c}
	// The path without a version is the newest that the daemon speaks; this
	// question has been answered in the same way since 1.24.
	var v struct {
		APIVersion string `json:"ApiVersion"`
		MinVersion string `json:"MinAPIVersion"`
	}
	if err := c.get(ctx, "/version", &v); err != nil {
		c.close()
		return nil, fmt.Errorf("ask for the version: %w", err)
	}
	d.version = "/v" + dockerVersion(v.MinVersion, v.APIVersion)
	return d, nil
}

// dockerVersion chooses what is spoken with a daemon that speaks all between
// two versions: as old as it can be, for what is known here to hold.
func dockerVersion(oldest, newest string) string {
	switch {
	case newest != "" && older(newest, dockerAPI):
		return newest
	case older(dockerAPI, oldest):
		return oldest
	}
	return dockerAPI
}

// older compares versions of two numbers.
func older(a, b string) bool {
	var x, y [2]int
	_, _ = fmt.Sscanf(a, "%d.%d", &x[0], &x[1]) // what is no version is 0.0
	_, _ = fmt.Sscanf(b, "%d.%d", &y[0], &y[1])
	return x[0] < y[0] || x[0] == y[0] && x[1] < y[1]
}

// Close gives back connections.
func (d *docker) Close() { d.c.close() }

// List returns the running containers.
func (d *docker) List(ctx context.Context) ([]Container, error) {
	var all []struct {
		ID     string `json:"Id"`
		Names  []string
		Image  string
		Labels map[string]string
	}
	if err := d.c.get(ctx, d.version+"/containers/json", &all); err != nil {
		return nil, err
	}
	out := make([]Container, 0, len(all))
	for _, a := range all {
		c := Container{ID: a.ID, Image: a.Image, Labels: a.Labels, Partial: true}
		for _, n := range a.Names { // a link gives a container more: /web/db
			if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") {
				c.Name = n
			}
		}
		out = append(out, dockerContainer(c))
	}
	return out, nil
}

// Inspect returns one container.
func (d *docker) Inspect(ctx context.Context, id string) (Container, error) {
	var a struct {
		ID           string `json:"Id"`
		Name         string
		RestartCount int
		State        struct{ StartedAt time.Time }
		Config       struct {
			Image  string
			Labels map[string]string
		}
	}
	if err := d.c.get(ctx, d.version+"/containers/"+url.PathEscape(id)+"/json", &a); err != nil {
		return Container{}, err
	}
	return dockerContainer(Container{
		ID: a.ID, Name: strings.TrimPrefix(a.Name, "/"), Image: a.Config.Image, Labels: a.Config.Labels,
		Started: started(a.State.StartedAt), Restarts: a.RestartCount,
	}), nil
}

// dockerContainer fills in what can be told of a container from its labels:
// below Kubernetes the shim put them there, annotations with a prefix.
func dockerContainer(c Container) Container {
	c.Runtime = "docker"
	c.fromKubernetes()
	c.Annotations = map[string]string{}
	for k, v := range c.Labels {
		if k, ok := strings.CutPrefix(k, "annotation."); ok {
			c.Annotations[k] = v
		}
	}
	c.Labels, c.Annotations = plain(c.Labels), plain(c.Annotations)
	return c
}

// started is t, or zero when it stands for a container that has not started:
// 0001-01-01 in JSON.
func started(t time.Time) time.Time {
	if t.Unix() <= 0 {
		return time.Time{}
	}
	return t
}

// Watch follows /events.
func (d *docker) Watch(ctx context.Context, ready func(), f func(id string)) error {
	filter := `{"type":["container"],"event":["create","start","rename","update","die","destroy"]}`
	body, err := d.c.open(ctx, d.version+"/events?filters="+url.QueryEscape(filter))
	if err != nil {
		return err
	}
	defer body.Close()
	ready()
	dec := json.NewDecoder(body)
	for {
		var e struct{ Actor struct{ ID string } }
		if err := dec.Decode(&e); err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		f(e.Actor.ID)
	}
}
