package config

import "testing"

func TestSymbols(t *testing.T) {
	for _, tt := range []struct {
		url, dir string
		ok       bool
	}{
		{"https://debuginfod.example.org", "/var/lib/x", true},
		{"http://127.0.0.1:8002/", "/var/lib/x", true},
		{"debuginfod.example.org", "/var/lib/x", false},
		{"ftp://example.org", "/var/lib/x", false},
		{"https://", "/var/lib/x", false},
		{"https://debuginfod.example.org", "", false},
	} {
		c := Default(nil)
		c.Store.Dir = tt.dir
		c.Symbols.Debuginfod = []string{tt.url}
		if errs := c.checkSymbols(); (len(errs) == 0) != tt.ok {
			t.Errorf("%q below %q: %v", tt.url, tt.dir, errs)
		}
	}
	if errs := Default(nil).checkSymbols(); len(errs) > 0 {
		t.Errorf("the default: %v", errs)
	}
}
