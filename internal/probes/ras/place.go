package ras

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/btf"

	"huatuo/internal/kern/load"
	"huatuo/internal/kern/sysfs"
	"huatuo/internal/probe"
	"huatuo/internal/signal"
)

var (
	pageSize  = uint64(os.Getpagesize())
	headBytes = 32 // of struct hw_head
)

// placer finds out what an error's address or device belongs to, by what the
// kernel has in memory: no device is asked.
type placer struct {
	root string
	// owners tells whether the control group that a page is charged to names a
	// workload: on v2 it does.
	owners bool
}

func newPlacer(env *probe.Env) *placer {
	return &placer{root: env.Root, owners: env.Layout != nil && !env.Layout.IsV1("memory") && !env.Layout.IsV1("cpu")}
}

func (p *placer) place(r *signal.Record) {
	b := r.Body.(*HardwareError)
	switch {
	case b.PCIe != nil:
		p.device(b)
	case b.Address != "":
		addr, err := strconv.ParseUint(strings.TrimPrefix(b.Address, "0x"), 16, 64)
		if err != nil {
			return
		}
		b.NUMANode = p.nodeOfAddress(addr)
		if p.owners {
			r.CgroupID = p.owner(addr)
		}
	case b.MachineCheck != nil:
		dir := filepath.Join(p.root, "sys/devices/system/cpu", "cpu"+strconv.Itoa(int(b.MachineCheck.CPU)))
		for _, n := range sysfs.List(dir, "node") {
			b.NUMANode = strings.TrimPrefix(n, "node")
		}
	}
}

// device adds what sysfs has of a PCI device. None of these files reads the
// device's configuration space.
func (p *placer) device(b *HardwareError) {
	if b.PCIe.Device == "" || strings.Contains(b.PCIe.Device, "/") {
		return
	}
	dir := filepath.Join(p.root, "sys/bus/pci/devices", b.PCIe.Device)
	b.PCIe.Driver = sysfs.Link(dir, "driver")
	b.PCIe.Vendor, _ = sysfs.Text(dir, "vendor")
	b.PCIe.ID, _ = sysfs.Text(dir, "device")
	b.PCIe.Class, _ = sysfs.Text(dir, "class")
	if n, ok := sysfs.Int(dir, "numa_node"); ok && n >= 0 { // -1: there is one node, or the firmware does not tell
		b.NUMANode = strconv.FormatInt(n, 10)
	}
}

// nodeOfAddress looks for the memory block that holds the address.
func (p *placer) nodeOfAddress(addr uint64) string {
	s, ok := sysfs.Text(p.root, "sys/devices/system/memory/block_size_bytes")
	size, err := strconv.ParseUint(s, 16, 64)
	if !ok || err != nil || size == 0 {
		return ""
	}
	block := "memory" + strconv.FormatUint(addr/size, 10)
	found, err := filepath.Glob(filepath.Join(p.root, "sys/devices/system/node/node*", block))
	if err != nil || len(found) == 0 {
		return ""
	}
	return strings.TrimPrefix(filepath.Base(filepath.Dir(found[0])), "node")
}

// owner returns the id of the control group that the page at an address is
// charged to, 0 when it is none or not known.
func (p *placer) owner(addr uint64) uint64 {
	f, err := os.Open(filepath.Join(p.root, "proc/kpagecgroup"))
	if err != nil {
		return 0
	}
	defer f.Close()
	var b [8]byte
	if _, err := f.ReadAt(b[:], int64(addr/pageSize*8)); err != nil {
		return 0
	}
	return binary.NativeEndian.Uint64(b[:])
}

// pageTypes are the kernel's names of what a page was used for: they are not
// numbered alike in all versions.
func pageTypes(k *load.Kernel) map[uint32]string {
	out := map[uint32]string{}
	types := k.Types()
	if types == nil {
		return out
	}
	var e *btf.Enum
	if err := types.TypeByName("mf_action_page_type", &e); err != nil {
		return out
	}
	for _, v := range e.Values {
		name := strings.TrimPrefix(v.Name, "MF_MSG_")
		out[uint32(v.Value)] = strings.ToLower(strings.ReplaceAll(name, "_", " ")) + " page"
	}
	return out
}
