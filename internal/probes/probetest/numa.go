package probetest

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Nodes are the numbers of the NUMA nodes that have memory. It skips the test
// where there are fewer than least.
func Nodes(t testing.TB, least int) (nodes []int) {
	t.Helper()
	infos, err := filepath.Glob("/sys/devices/system/node/node*/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range infos {
		n, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(filepath.Dir(path)), "node"))
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := os.ReadFile(path); !strings.Contains(string(b), "MemTotal:              0 kB") {
			nodes = append(nodes, n)
		}
	}
	if len(nodes) < least {
		t.Skipf("needs %d NUMA nodes with memory, not %d: run `make vmtest K=6.12`", least, len(nodes))
	}
	slices.Sort(nodes)
	return nodes
}

// Policy of memory, as mbind(2) has it.
type Policy int

// Where memory comes from.
const (
	Default    Policy = 0 // near the CPU
	Preferred  Policy = 1 // from a node while it has some
	Bound      Policy = 2 // from a node, from nowhere else
	Interleave Policy = 3 // from each of some nodes in turn
)

// Bind has memory that is not touched yet come from some nodes.
func Bind(t testing.TB, mem []byte, p Policy, nodes ...int) {
	t.Helper()
	mask := maskOf(nodes)
	if _, _, errno := unix.Syscall6(unix.SYS_MBIND, uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem)), uintptr(p), uintptr(unsafe.Pointer(&mask)), 64, 0); errno != 0 {
		t.Fatalf("mbind to nodes %v: %v", nodes, errno)
	}
}

func maskOf(nodes []int) (mask uint64) {
	for _, n := range nodes {
		mask |= 1 << n
	}
	return mask
}

// Move moves each page of mem to a node and returns how many are there then.
func Move(t testing.TB, mem []byte, node int) (there int) {
	t.Helper()
	page := os.Getpagesize()
	n := len(mem) / page
	at, to, status := make([]uintptr, n), make([]int32, n), make([]int32, n)
	for i := range n {
		at[i], to[i] = uintptr(unsafe.Pointer(&mem[i*page])), int32(node)
	}
	const mine = 2 // MPOL_MF_MOVE
	if _, _, errno := unix.Syscall6(unix.SYS_MOVE_PAGES, 0, uintptr(n), uintptr(unsafe.Pointer(&at[0])), uintptr(unsafe.Pointer(&to[0])), uintptr(unsafe.Pointer(&status[0])), mine); errno != 0 {
		t.Fatalf("move pages to node %d: %v", node, errno)
	}
	for _, s := range status {
		if s == int32(node) {
			there++
		}
	}
	return there
}
