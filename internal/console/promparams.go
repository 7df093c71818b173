package console

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
)

// rangeParams reads start and end; missing ones are zero unless they are required.
func rangeParams(r *http.Request, required bool) (from, to time.Time, perr *promError) {
	if from, perr = timeParam(r, "start", required); perr != nil {
		return from, to, perr
	}
	if to, perr = timeParam(r, "end", required); perr != nil {
		return from, to, perr
	}
	if !from.IsZero() && !to.IsZero() && to.Before(from) {
		return from, to, badData(`invalid parameter "end": must not be before start`)
	}
	return from, to, nil
}

func timeParam(r *http.Request, name string, required bool) (time.Time, *promError) {
	v := r.Form.Get(name)
	if v == "" && !required {
		return time.Time{}, nil
	}
	t, err := timeOf(v)
	if err != nil {
		return t, badParam(name, err)
	}
	return t, nil
}

// limitParam returns 0 for no limit.
func limitParam(r *http.Request) (int, *promError) {
	v := r.Form.Get("limit")
	if v == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		return 0, badParam("limit", fmt.Errorf("%q is no number of at least 0", clip(v)))
	}
	return n, nil
}

// durationOf reads seconds, or a duration as PromQL has it.
func durationOf(v string) (time.Duration, error) {
	if sec, err := strconv.ParseFloat(v, 64); err == nil {
		// Also false for NaN. The product must fit an int64.
		if !(math.Abs(sec) < maxSeconds) {
			return 0, fmt.Errorf("%q is out of range", clip(v))
		}
		return time.Duration(sec * float64(time.Second)), nil
	}
	d, err := model.ParseDuration(v)
	if err != nil {
		return 0, fmt.Errorf("%q is neither seconds nor a duration such as 15s or 1h30m", clip(v))
	}
	return time.Duration(d), nil
}
