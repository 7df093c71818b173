package frames

import (
	"github.com/cilium/ebpf"

	"huatuo/internal/kern/load"
)

// Object reads a flavour of the BPF object (load.Modern or load.Legacy), for the
// tests that hold all objects to what old kernels take.
func Object(flavour string) (*ebpf.CollectionSpec, error) {
	if flavour == load.Legacy {
		return loadBpfLegacy()
	}
	return loadBpf()
}
