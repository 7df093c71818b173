package ras

import (
	"fmt"
	"strings"
)

// MachineCheck is what the registers of a bank held.
type MachineCheck struct {
	CPU       uint32 `json:"cpu"`
	Socket    uint32 `json:"socket"`
	APIC      uint32 `json:"apic"`
	Bank      uint8  `json:"bank"`
	Status    string `json:"status"`
	Misc      string `json:"misc,omitempty"`
	Global    string `json:"mcg_status"`
	Code      string `json:"code"`       // architectural error code, bits 0 to 15 of the status
	ModelCode string `json:"model_code"` // model-specific error code, bits 16 to 31
	CPUID     string `json:"cpuid"`
	Vendor    string `json:"vendor"`
}

// Bits of IA32_MCi_STATUS that both vendors have.
const (
	mciMiscValid    = 1 << 59
	mciAddressValid = 1 << 58
)

var (
	mciBits   = []bit{{62, "overflow"}, {61, "uncorrected"}, {60, "enabled"}, {59, "misc_valid"}, {58, "address_valid"}, {57, "processor_context_corrupt"}}
	intelBits = []bit{{56, "signaled"}, {55, "action_required"}}
	amdBits   = []bit{{55, "task_context_corrupt"}, {53, "syndrome_valid"}, {46, "corrected_ecc"}, {45, "uncorrected_ecc"}, {44, "deferred"}, {43, "poison"}, {40, "scrub"}}
)

// vendors of struct mce (X86_VENDOR_*).
var vendors = map[uint8]string{0: "intel", 1: "cyrix", 2: "amd", 5: "centaur", 7: "transmeta", 9: "hygon", 10: "zhaoxin"}

func decodeMCE(w *bpfMceWire, b *HardwareError) {
	m := &w.M
	c := &MachineCheck{CPU: m.Extcpu, Socket: m.Socketid, APIC: m.Apicid, Bank: m.Bank, Status: fmt.Sprintf("0x%016x", m.Status),
		Global: hex(m.Mcgstatus), Code: fmt.Sprintf("0x%04x", uint16(m.Status)), ModelCode: fmt.Sprintf("0x%04x", uint16(m.Status>>16)),
		CPUID: hex(uint64(m.Cpuid)), Vendor: vendors[m.Cpuvendor]}
	if c.Vendor == "" {
		c.Vendor = fmt.Sprintf("vendor %d", m.Cpuvendor)
	}
	b.MachineCheck = c
	b.Where = fmt.Sprintf("bank %d of CPU %d", m.Bank, m.Extcpu)
	b.Message = mcaCode(uint16(m.Status))
	known := mciBits
	amd := c.Vendor == "amd" || c.Vendor == "hygon"
	if amd {
		known = append(known[:len(known):len(known)], amdBits...)
	} else {
		known = append(known[:len(known):len(known)], intelBits...)
	}
	for _, x := range known {
		if m.Status>>x.n&1 == 1 {
			b.Flags = append(b.Flags, x.name)
		}
	}
	if m.Status&mciMiscValid != 0 {
		c.Misc = hex(m.Misc)
	}
	// An address may be linear, or of a cache. Intel says which in MISC (bits
	// 6 to 8), AMD's is that of memory for errors of the memory.
	physical := m.Status&mciMiscValid != 0 && m.Misc>>6&7 == 2
	if m.Status&mciAddressValid != 0 && (physical || amd && strings.HasPrefix(b.Message, "memory")) {
		b.Address = hex(m.Addr)
	}
}

// mcaCode tells what an architectural error code stands for (Intel SDM volume
// 3B, "Interpreting the MCA error codes"; AMD's agree).
func mcaCode(code uint16) string {
	filtered := code&(1<<12) != 0
	s := simpleCode(code &^ (1 << 12))
	if filtered {
		s += " (corrected ones are filtered)"
	}
	return s
}

func simpleCode(c uint16) string {
	switch c {
	case 0:
		return "no error code"
	case 1:
		return "unclassified error"
	case 2:
		return "parity error in the microcode"
	case 3:
		return "external error"
	case 4:
		return "functional redundancy check"
	case 5:
		return "internal parity error"
	case 6:
		return "code outside of SMM was executed in SMM"
	case 0x400:
		return "internal timer error"
	case 0xe0b:
		return "I/O error"
	}
	return compoundCode(c)
}

var (
	mcaTypes    = [...]string{"instruction", "data", "generic", "unknown"}
	mcaLevels   = [...]string{"level 0", "level 1", "level 2", "generic level"}
	mcaRequests = [...]string{"error", "read", "write", "data read", "data write", "instruction fetch", "prefetch", "eviction", "snoop"}
	mcaMemory   = [...]string{"generic", "read", "write", "address or command", "scrub", "reserved", "reserved", "reserved"}
	mcaParty    = [...]string{"source", "responder", "observer", "generic"}
	mcaPlaces   = [...]string{"memory", "reserved", "I/O", "other"}
)

// compoundCode takes the codes that are put together of fields.
func compoundCode(c uint16) string {
	request := "reserved request"
	if n := int(c >> 4 & 15); n < len(mcaRequests) {
		request = mcaRequests[n]
	}
	switch {
	case c>>2 == 3: // 0000 0000 0000 11LL
		return "cache hierarchy, " + mcaLevels[c&3]
	case c>>4 == 1: // 0000 0000 0001 TTLL
		return fmt.Sprintf("TLB, %s, %s", mcaTypes[c>>2&3], mcaLevels[c&3])
	case c>>7 == 1: // 0000 0000 1MMM CCCC
		return "memory controller, " + memoryCode(c)
	case c>>8 == 1: // 0000 0001 RRRR TTLL
		return fmt.Sprintf("cache, %s, %s, %s", mcaTypes[c>>2&3], mcaLevels[c&3], request)
	case c>>7 == 5: // 0000 0010 1MMM CCCC
		return "memory used as a cache, " + memoryCode(c)
	case c>>11 == 1: // 0000 1PPT RRRR IILL
		s := fmt.Sprintf("bus or interconnect, %s, %s, %s, %s", mcaParty[c>>9&3], request, mcaPlaces[c>>2&3], mcaLevels[c&3])
		if c>>8&1 == 1 {
			s += ", timed out"
		}
		return s
	case c>>10 == 1: // 0000 01xx xxxx xxxx
		return "internal error of the processor"
	}
	return "unknown error code"
}

func memoryCode(c uint16) string {
	s := mcaMemory[c>>4&7]
	if ch := c & 15; ch != 15 {
		s += fmt.Sprintf(", channel %d", ch)
	}
	return s
}
