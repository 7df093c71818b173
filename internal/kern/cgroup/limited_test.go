package cgroup

import (
	"slices"
	"strings"
	"testing"
)

func TestLimited(t *testing.T) {
	id := strings.Repeat("0f", 32)
	pod := "/kubepods.slice/kubepods-pod11112222_3333_4444_5555_666677778888.slice"
	var live []Entry
	for _, p := range []string{
		"/", "/a", "/a/b", "/kubepods.slice", pod, pod + "/cri-containerd-" + id + ".scope", pod + "/cri-containerd-" + id + ".scope/inner",
		"/system.slice", "/system.slice/a.service", "/system.slice/a.service/x",
	} {
		live = append(live, Entry{Path: p, Identity: Identify(p)})
	}
	var got, names []string
	for _, e := range Limited(live) {
		got, names = append(got, e.Path), append(names, e.Short())
	}
	want := []string{"/a/b", pod, pod + "/cri-containerd-" + id + ".scope", "/system.slice/a.service"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if want := []string{"/a/b", "pod 11112222-3333-4444-5555-666677778888", "container 0f0f0f0f0f0f", "a.service"}; !slices.Equal(names, want) {
		t.Errorf("%q, want %q", names, want)
	}
}
