package kernlog

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// taints are the kernel's reasons to be tainted, by bit: the letter by which a
// report shows it and the name. They are never reassigned.
var taints = [...]struct {
	letter byte
	name   string
}{
	{'P', "proprietary_module"}, {'F', "forced_module"}, {'S', "cpu_out_of_spec"}, {'R', "forced_rmmod"},
	{'M', "machine_check"}, {'B', "bad_page"}, {'U', "user"}, {'D', "die"},
	{'A', "overridden_acpi_table"}, {'W', "warn"}, {'C', "staging_module"}, {'I', "firmware_workaround"},
	{'O', "out_of_tree_module"}, {'E', "unsigned_module"}, {'L', "soft_lockup"}, {'K', "live_patch"},
	{'X', "distribution"}, {'T', "randstruct"}, {'N', "test"}, {'J', "fwctl"},
}

func taintNames() []string {
	var out []string
	for _, t := range taints {
		out = append(out, t.name)
	}
	return out
}

// decodeTaint turns the letters of a report into names. G stands for no
// proprietary module, and is no taint.
func decodeTaint(letters string) []string {
	var out []string
	for _, t := range taints {
		if strings.IndexByte(letters, t.letter) >= 0 {
			out = append(out, t.name)
		}
	}
	return out
}

// readTaint reads the bits in /proc/sys/kernel/tainted.
func readTaint(path string) (uint64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	v, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("parse %s: %w", path, err)
	}
	return v, nil
}
