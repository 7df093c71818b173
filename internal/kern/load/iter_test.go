package load

import (
	"errors"
	"os"
	"sync"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
)

// TestKernelIterateDetach walks while another goroutine detaches: a walk works
// or finds nothing, and never meets a descriptor that was closed under it.
func TestKernelIterateDetach(t *testing.T) {
	k := open(t, Options{})
	if err := k.supports(kind{ebpf.Tracing, ebpf.AttachTraceIter}); err != nil {
		t.Skipf("needs a kernel with BTF and task iterators (5.8): %v", err)
	}
	for range 20 {
		l, err := k.New(&ebpf.CollectionSpec{Programs: map[string]*ebpf.ProgramSpec{"walk": {
			Name: "walk", SectionName: "iter/task", Type: ebpf.Tracing, AttachType: ebpf.AttachTraceIter, AttachTo: "task", License: "GPL",
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0).WithSymbol("walk"), asm.Return()},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		o, err := l.Attach(Hook{Name: "task", Programs: []string{"walk"}})
		if err != nil {
			t.Fatal(err)
		}
		begun := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := 0; ; i++ {
				r, err := o.Iterate("task")
				if errors.Is(err, os.ErrNotExist) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				r.Close()
				if i == 0 {
					close(begun)
				}
			}
		})
		<-begun
		o.Detach()
		wg.Wait()
		o.Close()
	}
}
