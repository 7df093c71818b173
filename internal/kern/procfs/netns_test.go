package procfs

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
)

func TestNetNS(t *testing.T) {
	root := t.TempDir()
	for pid, to := range map[string]string{
		"9": "net:[4026531840]", "10": "net:[4026531840]", "30": "net:[4026532999]", "200": "net:[4026532999]",
		"4": "mnt:[1]", "5": "net:[x]", "6": "net:[99999999999]", "7": "net:[1", "300": "net:[7]",
	} {
		dir := filepath.Join(root, "proc", pid, "ns")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(dir, "net")); err != nil {
			t.Fatal(err)
		}
	}
	f := New(root)
	if ns, err := f.NetNS(30); err != nil || ns != 4026532999 {
		t.Errorf("namespace %d, %v", ns, err)
	}
	for _, pid := range []uint32{1, 4, 5, 6, 7} {
		if ns, err := f.NetNS(pid); err == nil {
			t.Errorf("process %d: namespace %d, want an error", pid, ns)
		}
	}
	for limit, want := range map[int]map[uint32]uint32{
		10: {4026531840: 9, 4026532999: 30, 7: 300}, 2: {4026531840: 9, 4026532999: 30}, 0: {},
	} {
		if got, err := f.NetNamespaces(limit); err != nil || !maps.Equal(got, want) {
			t.Errorf("at most %d: %v, %v; want %v", limit, got, err, want)
		}
	}
	if _, err := New(filepath.Join(root, "none")).NetNamespaces(1); err == nil {
		t.Error("no error for a root without proc")
	}
}
