package numa

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"huatuo/internal/probes/probetest"
)

// allocated is how many pages a node has handed out in a way.
func allocated(e *probetest.Env, node int, result string) float64 {
	v, _ := probetest.Value(e.Gather(), allocations.Name, fmt.Sprint(node), result)
	return v
}

// pagesOf maps n small pages, which come from where a policy has them.
func pagesOf(t *testing.T, n int, p probetest.Policy, nodes ...int) []byte {
	t.Helper()
	mem, err := probetest.Pages(n * os.Getpagesize())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	probetest.Bind(t, mem, p, nodes...)
	return mem
}

// touch writes a byte to each page.
func touch(mem []byte) {
	for i := 0; i < len(mem); i += os.Getpagesize() {
		mem[i] = 1
	}
}

// TestKernelInterleave takes 6000 pages from all nodes in turn.
func TestKernelInterleave(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: run `make ktest` as root")
	}
	nodes := probetest.Nodes(t, 1)
	e := probetest.New(t)
	e.Start(Spec(), nil)
	const n = 6000
	mem := pagesOf(t, n, probetest.Interleave, nodes...)
	before := make([]float64, len(nodes))
	for i, node := range nodes {
		before[i] = allocated(e, node, "interleave")
	}
	touch(mem)
	each := n / float64(len(nodes))
	for i, node := range nodes {
		// The count of a CPU is added to the node's at 125 and more, or when it is read.
		if d := allocated(e, node, "interleave") - before[i]; d < each-float64(len(nodes)) || d > each+512 {
			t.Errorf("%d pages taken from %d nodes in turn, %s{node=%d, result=interleave} moved by %g, want %g", n, len(nodes), allocations.Name, node, d, each)
		}
	}
}

// TestKernelNodes takes memory from one node of two: first while it has some,
// then more than it has.
func TestKernelNodes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: run `make ktest` as root")
	}
	nodes := probetest.Nodes(t, 2)
	near, far := nodes[0], nodes[len(nodes)-1]
	if b, _ := os.ReadFile(fmt.Sprintf("/sys/devices/system/node/node%d/cpulist", far)); strings.TrimSpace(string(b)) != "" {
		t.Skipf("needs a NUMA node without CPUs, node %d has %s", far, b)
	}
	e := probetest.New(t)
	e.Start(Spec(), nil)
	const n, others = 8192, 2048 // what other processes take meanwhile
	type moved struct {
		node   int
		result string
		want   float64
	}
	check := func(what string, do func(), all ...moved) {
		t.Helper()
		before := make([]float64, len(all))
		for i, m := range all {
			before[i] = allocated(e, m.node, m.result)
		}
		do()
		for i, m := range all {
			if d := allocated(e, m.node, m.result) - before[i]; d < m.want || d > m.want+others {
				t.Errorf("%s: %s{node=%d, result=%s} moved by %g, want %g", what, allocations.Name, m.node, m.result, d, m.want)
			}
		}
	}
	bound := pagesOf(t, n, probetest.Bound, far)
	check("8192 pages of the far node taken", func() { touch(bound) },
		moved{far, "hit", n}, moved{far, "other", n}, moved{far, "local", 0}, moved{far, "miss", 0}, moved{far, "foreign", 0}, moved{near, "miss", 0})

	free, _ := probetest.Value(e.Gather(), "huatuo_numa_memory_free_bytes", fmt.Sprint(far))
	// Now it has no more than what the kernel keeps for emergencies; what the CPUs
	// keep for themselves is not told of as free.
	most := pagesOf(t, int(free)/os.Getpagesize()+n, probetest.Preferred, far)
	touch(most)
	more := pagesOf(t, n, probetest.Preferred, far)
	check("8192 pages wanted of a node that is full", func() { touch(more) },
		moved{far, "foreign", n}, moved{near, "miss", n}, moved{near, "foreign", 0}, moved{far, "miss", 0}, moved{near, "local", n})
}
