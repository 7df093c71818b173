package containers

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
)

// imageName is what the image is called in every runtime. It serves as the
// image of a pod's sandbox as well.
const imageName = "localhost/busybox:1"

// applets are what containers of these tests call.
func applets() []string { return []string{"sh", "sleep", "tail", "pause"} }

// writeImage makes a docker-archive of busybox-static: every runtime here reads
// it, and no registry is asked.
func writeImage(path string) error {
	exe, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("make an image: %w (run `make deps`)", err)
	}
	busybox, err := os.ReadFile(exe)
	if err != nil {
		return err
	}
	layer, err := archive(append([]*entry{
		{tar.Header{Name: "bin", Typeflag: tar.TypeDir, Mode: 0o755}, nil},
		{tar.Header{Name: "etc", Typeflag: tar.TypeDir, Mode: 0o755}, nil},
		{tar.Header{Name: "tmp", Typeflag: tar.TypeDir, Mode: 0o777}, nil},
		{tar.Header{Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0:root:/:/bin/sh\n")},
		{tar.Header{Name: "bin/busybox", Mode: 0o755}, busybox},
	}, symlinks(applets())...))
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux",
		"config": map[string]any{"Cmd": []string{"/bin/sleep", "100000"}, "Env": []string{"PATH=/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	if err != nil {
		return err
	}
	name := fmt.Sprintf("%x.json", sha256.Sum256(config))
	manifest, err := json.Marshal([]any{map[string]any{"Config": name, "RepoTags": []string{imageName}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return err
	}
	whole, err := archive([]*entry{
		{tar.Header{Name: name, Mode: 0o644}, config},
		{tar.Header{Name: "layer.tar", Mode: 0o644}, layer},
		{tar.Header{Name: "manifest.json", Mode: 0o644}, manifest},
	})
	if err != nil {
		return err
	}
	return os.WriteFile(path, whole, 0o644)
}

type entry struct {
	tar.Header
	body []byte
}

func symlinks(names []string) (es []*entry) {
	for _, n := range names {
		es = append(es, &entry{tar.Header{Name: "bin/" + n, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil})
	}
	return es
}

func archive(es []*entry) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range es {
		e.Size = int64(len(e.body))
		if err := w.WriteHeader(&e.Header); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.body); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}
