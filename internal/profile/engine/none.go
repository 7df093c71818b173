//go:build noprofiler

package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"huatuo/internal/signal"
	"huatuo/internal/symbol"
)

// Options of Run.
type Options struct {
	Log     *slog.Logger
	Hertz   int
	Symbols *symbol.Resolver
	Rate    *Rate
	Small   bool
	Usage   *Usage
	Want    func(*signal.StackSample) bool
	Entries Entries
	Emit    func(*signal.StackSample)
	Ready   func()
}

// Usage is what an engine has in the kernel: nothing.
type Usage struct{}

// Programs lists none.
func (*Usage) Programs() []uint32 { return nil }

// MapBytes is 0.
func (*Usage) MapBytes() (all, tables uint64, err error) { return 0, 0, nil }

// Run says that there is no unwinder in this build.
func Run(context.Context, Options) error {
	return fmt.Errorf("this program was built without the unwinder (tag noprofiler): %w", errors.ErrUnsupported)
}

// Types lists none.
func Types() []*signal.ProfileType { return nil }

// Lost is 0.
func Lost() uint64 { return 0 }
