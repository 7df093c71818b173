package config

import (
	"fmt"
	"net"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"huatuo/internal/kern/packetfilter"
)

// validate checks the tags of every key, then what only makes sense together.
func (c *Config) validate() []error {
	var errs []error
	for _, k := range c.keys() {
		if err := k.check(); err != nil {
			errs = append(errs, fmt.Errorf("%s (%s): %w", k.name, c.Origin(k.name), err))
		}
	}
	if !filepath.IsAbs(c.Host.Root) {
		errs = append(errs, fmt.Errorf("host.root (%s): %q is not an absolute path", c.Origin("host.root"), c.Host.Root))
	}
	if c.Store.Enabled && c.Store.Dir == "" {
		errs = append(errs, fmt.Errorf("store.dir (%s): name a directory, or turn the store off with store.enabled: false", c.Origin("store.dir")))
	}
	return append(append(append(errs, c.checkSymbols()...), c.checkSinks()...), c.checkKnownIssues()...)
}

func (k key) check() error {
	if isEntries(k.value.Type()) {
		return k.checkEntries()
	}
	if k.value.Kind() != reflect.Slice {
		return k.checkOne(k.value)
	}
	for i := range k.value.Len() {
		if err := k.checkOne(k.value.Index(i)); err != nil {
			return err
		}
	}
	return nil
}

func (k key) checkOne(v reflect.Value) error {
	if enum := k.tag.Get("enum"); enum != "" {
		legal := strings.Split(enum, ",")
		if !contains(legal, v.String()) {
			return fmt.Errorf("%q is not one of %s%s", v.String(), strings.Join(legal, ", "), didYouMean(v.String(), legal))
		}
	}
	if err := k.checkBounds(v); err != nil {
		return err
	}
	switch k.tag.Get("check") {
	case "regexp":
		return compiles(v.String())
	case "profiles":
		_, err := parseMatch(v.String())
		return err
	case "packets":
		if v.String() == "" {
			return nil
		}
		if _, err := packetfilter.Compile(v.String()); err != nil {
			return err
		}
	case "address":
		return checkAddress(v.String())
	}
	return nil
}

func compiles(expr string) error {
	if _, err := regexp.Compile(expr); err != nil {
		return fmt.Errorf("%q is not a regular expression: %w", expr, err)
	}
	return nil
}

func (k key) checkBounds(v reflect.Value) error {
	if lo := k.tag.Get("min"); lo != "" && number(v) < bound(v, k.tag, lo) {
		return fmt.Errorf("%s is less than the minimum, %s", formatText(v, k.tag), lo)
	}
	if hi := k.tag.Get("max"); hi != "" && number(v) > bound(v, k.tag, hi) {
		return fmt.Errorf("%s is more than the maximum, %s", formatText(v, k.tag), hi)
	}
	return nil
}

// bound reads a min or max tag as the type of v has it.
func bound(v reflect.Value, tag reflect.StructTag, text string) float64 {
	b := reflect.New(v.Type()).Elem()
	if err := setScalar(b, tag, text); err != nil {
		panic("BUG: bad bound in a configuration tag: " + err.Error())
	}
	return number(b)
}

func number(v reflect.Value) float64 {
	switch {
	case v.CanInt():
		return float64(v.Int())
	case v.CanUint():
		return float64(v.Uint())
	case v.CanFloat():
		return v.Float()
	default:
		panic(fmt.Sprintf("BUG: min or max on a %s", v.Type()))
	}
}

func checkAddress(s string) error {
	const want = "write host:port, like 127.0.0.1:19704 or :19704"
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not an address: %s", s, want)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q has no valid port: %s", s, want)
	}
	return nil
}
