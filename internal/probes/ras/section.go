package ras

import (
	"encoding/binary"
	"fmt"
	"strings"

	"huatuo/internal/probe"
)

// Section is what the firmware wrote: one section of UEFI's Common Platform
// Error Record.
type Section struct {
	Type    string `json:"type,omitempty"`     // GUID; of firmware errors, whose form only the vendor knows
	FRU     string `json:"fru,omitempty"`      // GUID of the part that can be replaced
	FRUText string `json:"fru_text,omitempty"` // what the firmware calls it
	Detail  string `json:"detail,omitempty"`   // decoded
	Bytes   uint32 `json:"bytes"`              // length
	Raw     string `json:"raw,omitempty"`      // its beginning, 128 bytes at most, in hexadecimal
}

func decodeSection(w *bpfSectionWire, b *HardwareError) {
	s := &Section{FRU: guid(w.Fru), FRUText: probe.CString(w.FruText[:]), Bytes: w.Len}
	b.Section, b.Where = s, s.FRUText
	switch b.Source {
	case sources[kindARM]:
		decodeARM(w.Data[:], b)
	case sources[kindMemoryLog]:
		decodeMemoryLog(w.Data[:], b)
	default:
		s.Type = guid(w.Type)
		b.Message = "section " + s.Type
		s.Raw = fmt.Sprintf("%x", w.Data[:copied(w.Len)])
	}
}

// copied is how many bytes of a section the program took along.
func copied(n uint32) int {
	for _, step := range []int{128, 64, 16} {
		if int64(n) >= int64(step) {
			return step
		}
	}
	return 0
}

// guid is the usual form; empty when all is zero.
func guid(b [16]uint8) string {
	if b == [16]uint8{} {
		return ""
	}
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b[0:]), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:])
}

var (
	armTypes      = [...]string{"cache", "TLB", "bus", "vendor-specific"}
	armOperations = [...]string{"error", "read", "write", "data read", "data write", "instruction fetch", "prefetch", "eviction", "snoop by this processor", "snoop by another", "management"}
	armAccess     = [...]string{"instruction", "data", "generic"}
)

// decodeARM reads the header of the ARM processor section and the first error
// in it (UEFI specification, N.2.4.4).
func decodeARM(d []byte, b *HardwareError) {
	le := binary.LittleEndian
	valid, errors := le.Uint32(d), le.Uint16(d[4:])
	if valid&1 != 0 {
		b.Where = fmt.Sprintf("MPIDR 0x%x", le.Uint64(d[16:]))
	}
	b.Section.Detail = fmt.Sprintf("MIDR 0x%x, errors in the section: %d", le.Uint64(d[24:]), errors)
	if errors == 0 {
		b.Message = "the firmware tells no error"
		return
	}
	e := d[40:72]
	infoValid, typ, info := le.Uint16(e[2:]), armType(e[4]), le.Uint64(e[8:])
	b.Message = typ + " error"
	if infoValid&(1<<0) != 0 {
		b.Count = uint32(le.Uint16(e[5:])) + 1
	}
	if infoValid&(1<<2) != 0 && typ != armTypes[3] {
		b.Message += armInfo(info)
	}
	if infoValid&(1<<1) != 0 {
		b.Flags = bits(uint64(e[7]), []bit{{0, "first"}, {1, "last"}, {2, "propagated"}, {3, "overflow"}})
	}
	if infoValid&(1<<4) != 0 {
		b.Address = hex(le.Uint64(e[24:]))
	}
}

// armType names a type: a number at first, a set of bits 1 to 4 since UEFI 2.9A.
// The numbers that mean one thing in both are 0 and 4 and more; 2, a bus error by the one
// and a cache error by the other, is taken as the newer has it.
func armType(t uint8) string {
	switch {
	case t == 0 || t == 2:
		return armTypes[0]
	case t == 1 || t == 4:
		return armTypes[1]
	case t == 8:
		return armTypes[2]
	case t == 3 || t == 16:
		return armTypes[3]
	}
	return "unknown"
}

// armInfo reads what a cache, TLB or bus error tells.
func armInfo(v uint64) string {
	var s string
	if n := int(v >> 22 & 7); v&(1<<2) != 0 {
		s += fmt.Sprintf(", level %d", n)
	}
	if n := int(v >> 16 & 3); v&(1<<0) != 0 && n < len(armAccess) {
		s += ", " + armAccess[n]
	}
	if n := int(v >> 18 & 15); v&(1<<1) != 0 && n < len(armOperations) {
		s += ", " + armOperations[n]
	}
	if v&(1<<3) != 0 && v>>25&1 == 1 {
		s += ", processor context corrupt"
	}
	return s
}

var memoryErrors = [...]string{"unknown error", "no error", "single-bit ECC error", "multi-bit ECC error", "single-symbol chipkill error", "multi-symbol chipkill error",
	"master abort", "target abort", "parity error", "watchdog timeout", "invalid address", "mirror broken", "memory sparing", "scrub: corrected error",
	"scrub: uncorrected error", "memory taken out of use"}

// decodeMemoryLog reads the platform memory section (UEFI specification, N.2.5).
func decodeMemoryLog(d []byte, b *HardwareError) {
	le := binary.LittleEndian
	valid := le.Uint64(d)
	b.Message = memoryErrors[0]
	if n := int(d[72]); valid&(1<<14) != 0 && n < len(memoryErrors) {
		b.Message = memoryErrors[n]
	}
	if valid&(1<<1) != 0 {
		b.Address = hex(le.Uint64(d[16:]))
	}
	var place []string
	for _, f := range []struct {
		bit, at int
		name    string
	}{{3, 32, "node"}, {4, 34, "card"}, {5, 36, "module"}, {15, 74, "rank"}, {6, 38, "bank"}, {7, 40, "device"}, {8, 42, "row"}, {9, 44, "column"}, {10, 46, "bit"}, {16, 76, "card handle"}, {17, 78, "module handle"}} {
		if valid&(1<<f.bit) != 0 {
			place = append(place, fmt.Sprintf("%s %d", f.name, le.Uint16(d[f.at:])))
		}
	}
	b.Section.Detail = strings.Join(place, ", ")
	if b.Where == "" && len(place) > 0 {
		b.Where = strings.Join(place[:min(3, len(place))], ", ")
	}
}
