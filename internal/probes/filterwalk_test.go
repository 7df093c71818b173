package probes

import (
	"os"
	"strings"
	"testing"

	"huatuo/internal/kern/load"
	"huatuo/internal/kern/packetfilter"
)

// filters to insert into programs: one as people write it, one that goes through
// whole headers, and nearly the longest that compiles.
var longFilters = []string{
	"tcp port 443 and host 192.0.2.1",
	"tcp[((tcp[12] & 0xf0) >> 2):4] = 0x47455420 or udp[ip[ip[9]]:2] / (ip[8] + 1) > len % 100 or ether host 02:00:00:00:00:01",
	"host 2001:db8::1" + strings.Repeat(" or 2001:db8::2", 45),
	"port 1" + strings.Repeat(" or 9", 120),
}

// TestLegacyFilter: a legacy program with a filter in it keeps the rules of Linux 4.18.
func TestLegacyFilter(t *testing.T) {
	for name, spec := range objects(t, "bpflegacy_bpfel.o") {
		if spec.Maps["ht_filter"] == nil {
			continue
		}
		for _, f := range longFilters {
			spec := spec.Copy()
			p, err := packetfilter.Compile(f)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Insert(spec); err != nil {
				t.Fatal(err)
			}
			for _, bad := range checkLegacy(spec) {
				t.Errorf("%s with %.40s…: %s", name, f, bad)
			}
		}
	}
}

// TestKernelFilterWalk is TestKernelLegacyWalk of programs with a filter in them.
func TestKernelFilterWalk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to load BPF: run `make ktest` as root")
	}
	k, err := load.Open(load.Options{Flavour: load.Legacy})
	if err != nil {
		t.Fatal(err)
	}
	if k.Types() == nil {
		t.Skip("needs a kernel with BTF: any of Debian's")
	}
	for name, spec := range objects(t, "bpflegacy_bpfel.o") {
		if spec.Maps["ht_filter"] == nil {
			continue
		}
		for _, f := range longFilters {
			spec := spec.Copy()
			p, err := packetfilter.Compile(f)
			if err == nil {
				err = p.Insert(spec)
			}
			if err == nil {
				err = load.InlineConstants(spec)
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, prog := range sorted(spec.Programs) {
				t.Run(name+"/"+prog+"/"+f[:12], func(t *testing.T) { walk(t, spec, prog, k.Types()) })
			}
		}
	}
}
