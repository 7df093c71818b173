package app

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// forgetPages has the kernel unmap the pages of the agent's own binary, which
// come back, 64 KiB at a time, when they are used again. The start touches most
// of the binary (BPF objects, tables, the console), and the agent then needs
// less than half of it: without this, the rest counts as its resident memory for
// ever. Nothing is written or read: the pages stay in the page cache.
func forgetPages() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("find the agent's binary: %w", err)
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("read the agent's mappings: %w", err)
	}
	for s := bufio.NewScanner(bytes.NewReader(maps)); s.Scan(); {
		// 00400000-01a3c000 r-xp 00000000 fe:01 131 /usr/bin/huatuo
		f := strings.Fields(s.Text())
		if len(f) != 6 || f[5] != exe || strings.Contains(f[1], "w") {
			continue // what can be written may have been
		}
		var from, to uintptr
		if _, err := fmt.Sscanf(f[0], "%x-%x", &from, &to); err != nil {
			return fmt.Errorf("read the agent's mappings: %q: %w", s.Text(), err)
		}
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, from, to-from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("unmap pages of the agent's binary: %w", errno)
		}
	}
	return nil
}
