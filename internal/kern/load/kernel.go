// Package load brings BPF objects into the running kernel: it chooses for
// each hook the cheapest kind of attachment that this kernel accepts, loads
// each program on its own so that one refusal costs one hook, and tells what
// it chose and why.
package load

// Kernel is the running kernel as a loader of BPF sees it.
type Kernel struct{}
