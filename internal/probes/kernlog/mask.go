package kernlog

import (
	"regexp"
	"strconv"
	"strings"
)

// masked stands for a kernel address.
const masked = "[kernel address]"

// Kernel addresses are the upper half of the address space. With five levels of
// page tables it begins at 0xff00000000000000, on arm64 at 0xfff0000000000000
// or above. The last page is never mapped: those values are errors (-EINVAL).
const (
	kernelMin = 0xff00000000000000
	kernelMax = 0xfffffffffffff000
)

var (
	hexRun = regexp.MustCompile(`[0-9a-fA-F]{16,}`)
	anyHex = regexp.MustCompile(`0x[0-9a-fA-F]+`)
	// dumpLine is a part of an object's memory as SLUB and KASAN show it.
	dumpLine = regexp.MustCompile(`^>?\s*(?:Object|Redzone|Right Redzone|Left Redzone|Padding|Bytes b4|raw)\b`)
)

// mask takes kernel addresses out of text that leaves the agent.
func mask(s string) string {
	if strings.HasPrefix(s, "Kernel Offset:") || strings.HasPrefix(s, "PHYS_OFFSET:") { // where the kernel was loaded, which tells all
		return anyHex.ReplaceAllString(s, masked)
	}
	if m := dumpLine.FindString(s); m != "" && !strings.HasPrefix(m, "raw") {
		return m + " [memory]"
	}
	if len(s) < 16 {
		return s
	}
	return hexRun.ReplaceAllStringFunc(s, maskRun)
}

// maskRun masks a run of hexadecimal digits that holds an address anywhere: two
// numbers may stand together without a space.
func maskRun(run string) string {
	if len(run) > 16 {
		for i := 0; i+16 <= len(run); i++ {
			if isKernel(run[i : i+16]) {
				return masked
			}
		}
		return run
	}
	if isKernel(run) {
		return masked
	}
	return run
}

func isKernel(digits string) bool {
	v, err := strconv.ParseUint(digits, 16, 64)
	return err == nil && v >= kernelMin && v < kernelMax
}
