package sysfs

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// OnlineCPUs lists the CPUs that are online, by number.
func OnlineCPUs() ([]int, error) {
	b, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return nil, fmt.Errorf("list CPUs: %w", err)
	}
	return ParseCPUs(string(b))
}

// ParseCPUs reads a list as "0-3,6".
func ParseCPUs(s string) (cpus []int, err error) {
	for part := range strings.SplitSeq(strings.TrimSpace(s), ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.ParseUint(first, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("read the list of CPUs %q: %w", s, err)
		}
		to, err := strconv.ParseUint(last, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("read the list of CPUs %q: %w", s, err)
		}
		for n := from; n <= to; n++ {
			cpus = append(cpus, int(n))
		}
	}
	return cpus, nil
}
