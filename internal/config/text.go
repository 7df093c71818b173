package config

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

const day = 24 * time.Hour

var durationType = reflect.TypeFor[time.Duration]()

// readable tells whether setText and formatText know the type.
func readable(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.String, reflect.Bool, reflect.Float64,
		reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint32, reflect.Uint64:
		return true
	case reflect.Slice:
		return t.Elem().Kind() != reflect.Slice && (readable(t.Elem()) || isEntries(t))
	default:
		return false
	}
}

// setText sets v from its text form. A list is separated by commas.
func setText(v reflect.Value, tag reflect.StructTag, text string) error {
	if v.Kind() != reflect.Slice {
		return setScalar(v, tag, text)
	}
	if isEntries(v.Type()) {
		return setEntries(v, text)
	}
	var parts []string
	if strings.TrimSpace(text) != "" {
		parts = strings.Split(text, ",")
	}
	return setList(v, tag, parts)
}

func setList(v reflect.Value, tag reflect.StructTag, parts []string) error {
	list := reflect.MakeSlice(v.Type(), len(parts), len(parts))
	for i, p := range parts {
		if err := setScalar(list.Index(i), tag, strings.TrimSpace(p)); err != nil {
			return err
		}
	}
	if len(parts) == 0 {
		list = reflect.Zero(v.Type())
	}
	v.Set(list)
	return nil
}

func setScalar(v reflect.Value, tag reflect.StructTag, text string) error {
	switch {
	case v.Type() == durationType:
		d, err := ParseDuration(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(d))
	case v.Kind() == reflect.String:
		if !utf8.ValidString(text) {
			return fmt.Errorf("%q is not UTF-8", text)
		}
		v.SetString(text)
	case v.Kind() == reflect.Bool:
		b, ok := map[string]bool{"true": true, "false": false}[strings.ToLower(text)]
		if !ok {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		v.SetBool(b)
	case v.CanFloat():
		f, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return fmt.Errorf("%q is not a number", text)
		}
		v.SetFloat(f)
	default:
		return setInteger(v, tag, text)
	}
	return nil
}

func setInteger(v reflect.Value, tag reflect.StructTag, text string) error {
	var n int64
	var err error
	if tag.Get("unit") == "bytes" {
		if n, err = ParseSize(text); err != nil {
			return err
		}
	} else if n, err = strconv.ParseInt(text, 10, 64); err != nil {
		return fmt.Errorf("%q is not a whole number", text)
	}
	switch {
	case v.CanInt() && !v.OverflowInt(n):
		v.SetInt(n)
	case v.CanUint() && n >= 0 && !v.OverflowUint(uint64(n)):
		v.SetUint(uint64(n))
	default:
		return fmt.Errorf("%q is out of range", text)
	}
	return nil
}

// formatText is the inverse of setText.
func formatText(v reflect.Value, tag reflect.StructTag) string {
	if isEntries(v.Type()) {
		return formatEntries(v)
	}
	if v.Kind() == reflect.Slice {
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = formatText(v.Index(i), tag)
		}
		return strings.Join(parts, ",")
	}
	bytes := tag.Get("unit") == "bytes"
	switch {
	case v.Type() == durationType:
		return FormatDuration(time.Duration(v.Int()))
	case v.CanInt() && bytes:
		return FormatSize(v.Int())
	case v.CanUint() && bytes && v.Uint() <= math.MaxInt64:
		return FormatSize(int64(v.Uint()))
	case v.CanFloat():
		return strconv.FormatFloat(v.Float(), 'g', -1, 64)
	default:
		return fmt.Sprint(v.Interface())
	}
}

// ParseDuration reads "5s", "1h30m", and days and weeks: "15d", "1w2d12h".
func ParseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("%q is not a duration: write a number and a unit, like 500ms, 5s, 1h30m, 15d", s)
	rest, total := s, time.Duration(0)
	for _, u := range []struct {
		suffix string
		d      time.Duration
	}{{"w", 7 * day}, {"d", day}} {
		num, after, ok := strings.Cut(rest, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(num, 10, 32)
		if err != nil || n > uint64(math.MaxInt64/int64(u.d)) {
			return 0, bad
		}
		total, rest = total+time.Duration(n)*u.d, after
	}
	if rest == "" && s != "" {
		return total, checkSum(total, 0, bad)
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 {
		return 0, bad
	}
	return total + d, checkSum(total, d, bad)
}

func checkSum(a, b time.Duration, bad error) error {
	if a < 0 || a+b < a {
		return bad
	}
	return nil
}

// FormatDuration writes d as ParseDuration reads it, with days and no zero parts.
func FormatDuration(d time.Duration) string {
	s := ""
	if n := d / day; n > 0 {
		s, d = fmt.Sprintf("%dd", n), d%day
		if d == 0 {
			return s
		}
	}
	t := d.String()
	if strings.HasSuffix(t, "m0s") {
		t = strings.TrimSuffix(t, "0s")
	}
	if strings.HasSuffix(t, "h0m") {
		t = strings.TrimSuffix(t, "0m")
	}
	return s + t
}

var errSize = errors.New("write a number and a unit, like 64KiB, 512MiB, 2GiB or 500MB")

// sizeUnits in the order in which ParseSize tries the suffixes.
func sizeUnits() []sizeUnit {
	return []sizeUnit{
		{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
		{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1},
	}
}

type sizeUnit struct {
	suffix string
	bytes  uint64
}

// ParseSize reads "512MiB", "2GB", "4096" and the like into bytes.
func ParseSize(s string) (int64, error) {
	for _, u := range sizeUnits() {
		num, ok := strings.CutSuffix(s, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(strings.TrimSpace(num), 10, 63)
		if err != nil {
			return 0, fmt.Errorf("%q is not a size: %w", s, errSize)
		}
		hi, lo := bits.Mul64(n, u.bytes)
		if hi != 0 || lo > math.MaxInt64 {
			return 0, fmt.Errorf("%q is too large", s)
		}
		return int64(lo), nil
	}
	return 0, fmt.Errorf("%q is not a size: %w", s, errSize)
}

// FormatSize writes n with the largest binary unit that leaves a whole number.
func FormatSize(n int64) string {
	for _, u := range []sizeUnit{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n != 0 && n%int64(u.bytes) == 0 {
			return fmt.Sprintf("%d%s", n/int64(u.bytes), u.suffix)
		}
	}
	return strconv.FormatInt(n, 10)
}
