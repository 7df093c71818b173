package sysfs

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"dev1/temp": "42000\n", "dev1/low": "-5\n", "dev1/name": "  a b \n", "dev1/empty": "", "dev1/big": "18446744073709551615\n",
		"dev1/long": strings.Repeat("x", 5000), "dev0/odd": "a\xffb",
	} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../../drivers/nvme", filepath.Join(dir, "dev1/driver")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, text string
		isText     bool
		n          int64
		isInt      bool
		u          uint64
		isUint     bool
	}{
		{"temp", "42000", true, 42000, true, 42000, true},
		{"low", "-5", true, -5, true, 0, false},
		{"name", "a b", true, 0, false, 0, false},
		{"big", "18446744073709551615", true, 1<<63 - 1, false, 1<<64 - 1, true},
		{"empty", "", false, 0, false, 0, false},
		{"none", "", false, 0, false, 0, false},
		{"long", strings.Repeat("x", maxBytes), true, 0, false, 0, false},
	} {
		s, ok := Text(dir, "dev1", tt.name)
		n, isInt := Int(dir, "dev1", tt.name)
		u, isUint := Uint(dir, "dev1", tt.name)
		if s != tt.text || ok != tt.isText || isInt != tt.isInt || isUint != tt.isUint || isInt && n != tt.n || isUint && u != tt.u {
			t.Errorf("%s: %q %v, %d %v, %d %v", tt.name, s, ok, n, isInt, u, isUint)
		}
	}
	if s, _ := Text(dir, "dev0/odd"); s != "a\uFFFDb" {
		t.Errorf("%q", s)
	}
	if got := List(dir, "dev"); !slices.Equal(got, []string{"dev0", "dev1"}) {
		t.Errorf("list %q", got)
	}
	if got := List(filepath.Join(dir, "none"), ""); got != nil {
		t.Errorf("list of nothing %q", got)
	}
	if Link(dir, "dev1", "driver") != "nvme" || Link(dir, "dev0", "driver") != "" {
		t.Error("links")
	}
}

func TestParseCPUs(t *testing.T) {
	for in, want := range map[string][]int{
		"0\n": {0}, "0-2,5": {0, 1, 2, 5}, "0,2-3,9\n": {0, 2, 3, 9}, "x": nil, "0-": nil, "1-x": nil, "-1": nil, "": nil,
	} {
		got, err := ParseCPUs(in)
		if (err != nil) != (want == nil) || err == nil && !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v; want %v", in, got, err, want)
		}
	}
}
