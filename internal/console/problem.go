package console

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

// Types of errors, named as in Prometheus' API.
const (
	badDataError     = "bad_data"
	timeoutError     = "timeout"
	canceledError    = "canceled"
	executionError   = "execution"
	notFoundError    = "not_found"
	internalError    = "internal"
	unavailableError = "unavailable"
)

// typeOf asks err for its type. One that has none is a failure of the reader,
// unless the time was up or the client has gone.
func typeOf(err error) string {
	var typed interface{ ErrorType() string }
	switch {
	case errors.As(err, &typed):
		return typed.ErrorType()
	case errors.Is(err, context.DeadlineExceeded):
		return timeoutError
	case errors.Is(err, context.Canceled):
		return canceledError
	default:
		return internalError
	}
}

// problem writes an RFC 9457 problem, the form of every error except those of
// the endpoints that speak Prometheus' own.
func problem(w http.ResponseWriter, status int, detail string) {
	body, err := json.Marshal(&huma.ErrorModel{Title: http.StatusText(status), Status: status, Detail: detail})
	if err != nil {
		panic("BUG: encode problem: " + err.Error())
	}
	h := w.Header()
	h.Set("Content-Type", "application/problem+json")
	h.Set("Cache-Control", "no-store")
	h.Del("Content-Encoding")
	h.Del("Content-Length")
	h.Del("Etag")
	w.WriteHeader(status)
	w.Write(append(body, '\n'))
}

// explain puts the messages of a validation error into its detail, so that
// whoever shows title and detail only shows what was wrong.
func explain(_ huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok || len(e.Errors) == 0 {
		return v, nil
	}
	parts := make([]string, 0, len(e.Errors))
	for _, d := range e.Errors {
		if d.Location == "" {
			parts = append(parts, d.Message)
			continue
		}
		parts = append(parts, d.Location+": "+d.Message)
	}
	e.Detail = strings.Join(parts, "; ")
	return e, nil
}
