package load

import (
	"fmt"
	"io"
	"os"

	"github.com/cilium/ebpf/link"
)

func (o *Object) addIter(hook string, it *link.Iter) {
	if o.iters == nil {
		o.iters = make(map[string]*link.Iter)
	}
	o.iters[hook] = it
}

// Iterate begins a walk of the iterator that is attached as hook: what its
// program writes with bpf_seq_write() is read from the result until io.EOF. A
// walk happens while it is read; close it in any case. It may be called from
// another goroutine than Detach, after which there is nothing to walk.
func (o *Object) Iterate(hook string) (io.ReadCloser, error) {
	o.iterMu.Lock() // closing the link while it is opened could open another file
	defer o.iterMu.Unlock()
	it := o.iters[hook]
	if it == nil {
		return nil, fmt.Errorf("iterate %s: %w", hook, os.ErrNotExist)
	}
	r, err := it.Open()
	if err != nil {
		return nil, fmt.Errorf("iterate %s: %w", hook, err)
	}
	return r, nil
}
