package pyroscope

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/pprof/profile"
	"github.com/prometheus/common/model"
)

// Limits that a server has by default.
const (
	maxLabelNames = 30
	maxLabelName  = 1024
	maxLabelValue = 2048
	maxProfile    = 4 << 20 // unpacked
	maxSamples    = 16_000
	maxDepth      = 1000
)

// checkLabels refuses labels that the server would refuse.
func checkLabels(pairs [][2]string) (map[string]string, error) {
	if len(pairs) == 0 {
		return nil, errors.New("error at least one label pair is required per profile")
	}
	if len(pairs) > maxLabelNames {
		return nil, fmt.Errorf("profile series %v has %d label names; limit %d", pairs, len(pairs), maxLabelNames)
	}
	out := map[string]string{}
	for _, p := range pairs {
		name, value := p[0], p[1]
		switch {
		case len(name) > maxLabelName:
			return nil, fmt.Errorf("profile with labels %v has label name too long: %q", pairs, name)
		case len(value) > maxLabelValue:
			return nil, fmt.Errorf("profile with labels %v has label value too long: %q", pairs, value)
		case !model.LegacyValidation.IsValidLabelName(name):
			return nil, fmt.Errorf("invalid labels %v with error: invalid label name %q", pairs, name)
		case !utf8.ValidString(value):
			return nil, fmt.Errorf("invalid labels %v with error: invalid label value %q", pairs, value)
		}
		if _, there := out[name]; there {
			return nil, fmt.Errorf("profile with labels %v has duplicate label name: %q", pairs, name)
		}
		out[name] = value
	}
	if !model.LegacyValidation.IsValidMetricName(out["__name__"]) {
		return nil, fmt.Errorf("invalid labels %v with error: invalid metric name", pairs)
	}
	if out["service_name"] == "" {
		return nil, fmt.Errorf("invalid labels %v with error: service name is not provided", pairs)
	}
	return out, nil
}

// checkPprof reads a profile that was sent as pprof.
func checkPprof(raw []byte, labels map[string]string) (Stored, error) {
	p, err := profile.ParseData(raw)
	if err != nil {
		return Stored{}, fmt.Errorf("failed to parse profile with labels %v: %w", labels, err)
	}
	if err := p.CheckValid(); err != nil {
		return Stored{}, fmt.Errorf("profile with labels %v: %w", labels, err)
	}
	return checkProfile(p, labels)
}

// checkProfile refuses a profile that the server would refuse.
func checkProfile(p *profile.Profile, labels map[string]string) (Stored, error) {
	bad := func(format string, args ...any) (Stored, error) {
		return Stored{}, fmt.Errorf("the profile with labels %v "+format, append([]any{labels}, args...)...)
	}
	var size counter
	if err := p.WriteUncompressed(&size); err != nil {
		return bad("cannot be written: %w", err)
	}
	switch {
	case size > maxProfile:
		return bad("exceeds the size limit (max_profile_size_byte, actual: %d, limit: %d)", size, maxProfile)
	case len(p.Sample) > maxSamples:
		return bad("exceeds the samples count limit (max_profile_stacktrace_samples, actual: %d, limit: %d)", len(p.Sample), maxSamples)
	case len(p.Sample) == 0:
		return bad("is empty")
	case len(p.SampleType) != 1:
		return bad("has %d types: the agent sends one in each", len(p.SampleType))
	case strings.Contains(p.SampleType[0].Type, "-"):
		return bad("sample type contains -")
	case p.PeriodType == nil:
		return bad("has no period type")
	case p.TimeNanos == 0:
		return bad("has no time")
	case p.DurationNanos <= 0:
		return bad("has no duration")
	}
	out := Stored{
		Type: strings.Join([]string{labels["__name__"], p.SampleType[0].Type, p.SampleType[0].Unit, p.PeriodType.Type, p.PeriodType.Unit}, ":"),
		Time: time.Unix(0, p.TimeNanos), Labels: labels, Stacks: map[string]int64{},
	}
	for _, x := range p.Sample {
		if len(x.Location) == 0 || len(x.Location) > maxDepth {
			return bad("has a stack of %d frames", len(x.Location))
		}
		var path []string
		for _, l := range x.Location {
			for _, line := range l.Line {
				if line.Function == nil || line.Function.Name == "" || !utf8.ValidString(line.Function.Name) {
					return bad("has a frame without a name")
				}
				path = append(path, line.Function.Name)
			}
		}
		slices.Reverse(path)
		out.Stacks[strings.Join(path, ";")] += x.Value[0]
		out.Total += x.Value[0]
	}
	return out, nil
}

// counter counts what is written to it.
type counter int

// Write counts.
func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
