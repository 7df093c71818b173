package app

import "testing"

func TestProgramName(t *testing.T) {
	for exe, want := range map[string]string{
		"/usr/bin/python3.11": "python3.11", "/opt/app (deleted)": "app", "": "", "/": "", "/memfd:runc_cloned:/proc/self/exe (deleted)": "",
		"/memfd:sealed-91 (deleted)": "",
	} {
		if got := programName(exe); got != want {
			t.Errorf("%q is called %q, want %q", exe, got, want)
		}
	}
}
