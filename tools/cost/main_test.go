package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// read parses the ledger into rows by "probe program".
func read(t *testing.T) (kernel string, rows map[string]row) {
	t.Helper()
	text, err := os.ReadFile("../../" + ledger)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "verifier of Linux ")
	kernel, _, _ = strings.Cut(rest, " ")
	rows = map[string]row{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 5 || f[0] == "probe" || f[0] == "#" {
			continue
		}
		r := row{probe: f[0], program: f[1], kind: f[2]}
		if _, err := fmt.Sscan(f[3], &r.instructions); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if f[4] != "-" {
			if _, err := fmt.Sscan(f[4], &r.verified); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
		}
		rows[r.probe+" "+r.program] = r
	}
	return kernel, rows
}

// TestLedger: the ledger has the programs of the committed objects, with their
// present length.
func TestLedger(t *testing.T) {
	_, rows := read(t)
	got, err := measure("../..", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range got.rows {
		key := r.probe + " " + r.program
		have, ok := rows[key]
		if !ok || have.instructions != r.instructions || have.kind != r.kind {
			t.Errorf("%s: %d instructions, the ledger says %d: run `make cost` as root", key, r.instructions, have.instructions)
		}
		delete(rows, key)
	}
	for key := range rows {
		t.Errorf("%s is in the ledger but no longer a program: run `make cost` as root", key)
	}
}

// TestKernel: on the kernel of the ledger the verifier's counts are the
// ledger's, give or take a tenth, as other patch releases may differ a little.
func TestKernel(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to load BPF: run `make ktest` as root")
	}
	kernel, rows := read(t)
	got, err := measure("../..", verify)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.rows) == 0 {
		t.Fatal("no programs")
	}
	for _, r := range got.rows {
		if r.verified > 250_000 {
			t.Errorf("%s %s: the verifier processed %d instructions, a quarter of its limit: older kernels count more", r.probe, r.program, r.verified)
		}
		was := rows[r.probe+" "+r.program].verified
		if got.kernel == kernel && (r.verified < was*9/10 || r.verified > was*11/10) {
			t.Errorf("%s %s: the verifier processed %d instructions, the ledger says %d: run `make cost`", r.probe, r.program, r.verified, was)
		}
	}
}
