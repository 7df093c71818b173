package naming

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	webID   = "37a917481d349c303f13eeff896ba7d05ca9fa5dcab4b2d9b382edbf8c2acc69"
	shortID = "4fa4e668acb024359380d2b9f64053c6478199e8d4b5bfb346317a8bdabfdc50"
)

func dockerAnswers(t *testing.T) map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"/version":                             bytesOf(recorded(t, "docker/version.json")),
		"/v1.40/containers/json":               bytesOf(recorded(t, "docker/list.json")),
		"/v1.40/containers/" + webID + "/json": bytesOf(recorded(t, "docker/inspect.json")),
		"/v1.40/events": func(w http.ResponseWriter, r *http.Request) {
			if f := r.URL.Query().Get("filters"); !strings.Contains(f, `"type":["container"]`) {
				http.Error(w, "filters: "+f, http.StatusBadRequest)
				return
			}
			w.(http.Flusher).Flush()
			w.Write(recorded(t, "docker/events.jsonl"))
		},
	}
}

func TestDocker(t *testing.T) {
	ctx := shortly(t)
	s, err := openDocker(ctx, serve(t, dockerAnswers(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	labels := map[string]string{"app": "web", "com.docker.compose.project": "shop", "org.example.image": "busybox"}
	want := Container{ID: webID, Name: "web2", Image: "localhost/busybox:1", Runtime: "docker", Labels: labels, Partial: true}
	list, err := s.List(ctx)
	if diff := cmp.Diff([]Container{want}, list); diff != "" || err != nil {
		t.Errorf("list: %v %s", err, diff)
	}
	want.Partial, want.Started = false, time.Date(2026, 11, 26, 1, 54, 29, 421169706, time.UTC)
	got, err := s.Inspect(ctx, webID)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("inspect: %v %s", err, diff)
	}
	if _, err := s.Inspect(ctx, shortID); !errors.Is(err, ErrUnknown) {
		t.Errorf("a container that is not there: %v", err)
	}

	var ids []string
	ready := 0
	err = s.Watch(ctx, func() { ready++ }, func(id string) { ids = append(ids, id) })
	if err == nil {
		t.Error("the stream broke and no error")
	}
	if slices.Index(ids, webID) != 0 || !slices.Contains(ids, shortID) || ids[len(ids)-1] != webID || ready != 1 {
		t.Errorf("events of %q, ready %d", ids, ready)
	}
}

func TestDockerVersion(t *testing.T) {
	for _, tt := range []struct{ oldest, newest, want string }{
		{"1.12", "1.41", "1.40"},
		{"1.24", "1.39", "1.39"}, // 18.09
		{"1.44", "1.52", "1.44"}, // 29
		{"", "", "1.40"},
		{"1.9", "1.40", "1.40"},
	} {
		if got := dockerVersion(tt.oldest, tt.newest); got != tt.want {
			t.Errorf("between %s and %s: %s, want %s", tt.oldest, tt.newest, got, tt.want)
		}
	}
}

// TestDockerKubernetes has the labels that cri-dockerd gives.
func TestDockerKubernetes(t *testing.T) {
	c := dockerContainer(Container{ID: webID, Name: "k8s_app_web-1_shop_7f4b_0", Labels: map[string]string{
		"io.kubernetes.pod.name": "web-1", "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": "7f4b",
		"io.kubernetes.container.name": "app", "io.kubernetes.docker.type": "container",
		"annotation.io.kubernetes.container.hash": "8a5e", "annotation.example.com/owner": "alice", "app": "web",
	}})
	want := Container{ID: webID, Name: "app", Namespace: "shop", Pod: "web-1", PodUID: "7f4b", Runtime: "docker",
		Labels: map[string]string{"app": "web"}, Annotations: map[string]string{"example.com/owner": "alice"}}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
}

func TestDial(t *testing.T) {
	for address, base := range map[string]string{
		"unix:///run/docker.sock": "http://localhost", "tcp://10.0.0.1:2375": "http://10.0.0.1:2375", "http://x:1/": "http://x:1",
		"": "", "/run/docker.sock": "", "unix://": "", "ssh://host": "",
	} {
		c, err := dial(address)
		if (err == nil) != (base != "") {
			t.Errorf("%q: %v", address, err)
		} else if err == nil && c.base != base {
			t.Errorf("%q: %s, want %s", address, c.base, base)
		}
	}
}

// TestDockerFails: an answer that is none is an error, and no name.
func TestDockerFails(t *testing.T) {
	answers := dockerAnswers(t)
	answers["/v1.40/containers/json"] = func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `[{"Id":`) }
	answers["/v1.40/containers/"+webID+"/json"] = func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "broken", 500) }
	ctx := shortly(t)
	s, err := openDocker(ctx, serve(t, answers))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.List(ctx); err == nil {
		t.Error("half a list is a list")
	}
	if _, err := s.Inspect(ctx, webID); err == nil || errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "broken") {
		t.Errorf("a failing daemon: %v", err)
	}
	if _, err := openDocker(ctx, "unix://"+socketDir(t)+"/none"); err == nil {
		t.Error("no daemon and no error")
	}
}
