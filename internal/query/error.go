package query

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
)

// The types of Error, named as in Prometheus' API.
const (
	BadData   = "bad_data"  // the question is wrong
	Timeout   = "timeout"   // it took too long
	Canceled  = "canceled"  // who asked has gone
	Execution = "execution" // it cannot be answered, or only above a limit
	NotFound  = "not_found" // there is no such thing
	Internal  = "internal"  // the store failed
)

// Error is every error of this package.
type Error struct {
	Type string
	Err  error
	// Start and End are the bytes of the expression that a syntax error is
	// about; both are 0 for other errors.
	Start, End int
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// ErrorType returns e.Type, for those who must not know this package.
func (e *Error) ErrorType() string { return e.Type }

func badData(format string, args ...any) *Error {
	return &Error{Type: BadData, Err: fmt.Errorf(format, args...)}
}

// classify returns err as an *Error.
func classify(err error) error {
	if err == nil {
		return nil
	}
	e := &Error{Type: Execution, Err: err}
	var (
		known    *Error
		syntax   parser.ParseErrors
		canceled promql.ErrQueryCanceled
		timeout  promql.ErrQueryTimeout
		storage  promql.ErrStorage
	)
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &syntax) && len(syntax) > 0:
		e.Type = BadData
		e.Start, e.End = int(syntax[0].PositionRange.Start), int(syntax[0].PositionRange.End)
	case errors.Is(err, fs.ErrNotExist):
		e.Type = NotFound
	case errors.As(err, &timeout), errors.Is(err, context.DeadlineExceeded):
		e.Type = Timeout
	case errors.As(err, &canceled), errors.Is(err, context.Canceled):
		e.Type = Canceled
	case errors.As(err, &storage):
		e.Type = Internal
	}
	return e
}

// storeError is classify for the answers of the backend, where whatever has no
// other name is a failure of the store.
func storeError(err error) error {
	err = classify(err)
	if e, ok := err.(*Error); ok && e.Type == Execution {
		e.Type = Internal
	}
	return err
}
