package runtimes

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/google/pprof/profile"
)

// class is a line of a class histogram.
type class struct {
	name             string // as Java writes it: byte[], java.lang.String[]
	module           string // with its version; "" where the JVM has none, before Java 9
	instances, bytes int64
}

// parseHistogram reads what HotSpot prints: a heading, a line for each class that
// has objects, and a line with their sums, without which the rest is missing.
func parseHistogram(text string) ([]class, error) {
	var out []class
	var sum class
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "Total" {
			var total class
			if err := total.count(f[1], f[2]); err != nil {
				return nil, fmt.Errorf("its sum: %w", err)
			}
			if total != sum {
				return nil, fmt.Errorf("its %d objects of %d bytes are not the sum of the classes, %d of %d", total.instances, total.bytes, sum.instances, sum.bytes)
			}
			return out, nil
		}
		if len(f) < 4 || !strings.HasSuffix(f[0], ":") {
			continue // the heading
		}
		c := class{name: javaName(f[3])}
		if len(f) > 4 {
			c.module = strings.Trim(f[4], "()")
		}
		if err := c.count(f[1], f[2]); err != nil {
			return nil, fmt.Errorf("class %s: %w", c.name, err)
		}
		if c.instances > math.MaxInt64-sum.instances || c.bytes > math.MaxInt64-sum.bytes {
			return nil, errors.New("the sum of its classes is too large")
		}
		sum.instances += c.instances
		sum.bytes += c.bytes
		out = append(out, c)
	}
	return nil, errors.New("its end is missing")
}

func (c *class) count(instances, bytes string) error {
	n, err1 := strconv.ParseUint(instances, 10, 63)
	b, err2 := strconv.ParseUint(bytes, 10, 63)
	c.instances, c.bytes = int64(n), int64(b)
	return errors.Join(err1, err2)
}

// javaName turns the JVM's name of an array into Java's: [[B is byte[][],
// [Ljava.lang.String; is java.lang.String[]. Others stay as they are.
func javaName(s string) string {
	element := strings.TrimLeft(s, "[")
	dims := len(s) - len(element)
	if dims == 0 {
		return s
	}
	name, ok := map[string]string{
		"Z": "boolean", "B": "byte", "C": "char", "S": "short", "I": "int", "J": "long", "F": "float", "D": "double",
	}[element]
	if !ok {
		if len(element) < 3 || element[0] != 'L' || element[len(element)-1] != ';' {
			return s
		}
		name = element[1 : len(element)-1]
	}
	return name + strings.Repeat("[]", dims)
}

// classProfile makes a profile of classes: a frame for each.
func classProfile(list []class, now time.Time) (*profile.Profile, error) {
	p := &profile.Profile{
		SampleType:        []*profile.ValueType{{Type: "instances", Unit: "count"}, {Type: "space", Unit: "bytes"}},
		DefaultSampleType: "space", TimeNanos: now.UnixNano(),
	}
	m := &profile.Mapping{ID: 1, File: "jvm", HasFunctions: true, HasFilenames: true, HasLineNumbers: true}
	p.Mapping = []*profile.Mapping{m}
	for i, c := range list {
		id := uint64(i + 1)
		f := &profile.Function{ID: id, Name: c.name, SystemName: c.name, Filename: c.module}
		l := &profile.Location{ID: id, Mapping: m, Line: []profile.Line{{Function: f}}}
		p.Function = append(p.Function, f)
		p.Location = append(p.Location, l)
		p.Sample = append(p.Sample, &profile.Sample{Location: []*profile.Location{l}, Value: []int64{c.instances, c.bytes}})
	}
	if err := p.CheckValid(); err != nil {
		return nil, fmt.Errorf("BUG: classes: %w", err)
	}
	return p, nil
}
