package pyroscope

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"regexp"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"github.com/google/pprof/profile"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	otlp "go.opentelemetry.io/proto/otlp/profiles/v1development"
	"google.golang.org/protobuf/proto"
)

// otlp takes OTLP profiles by HTTP.
func (s *Server) otlp(w http.ResponseWriter, r *http.Request) {
	f, fails := s.failing()
	if fails && !f.lost {
		if f.after > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(f.after/time.Second)))
		}
		status := http.StatusServiceUnavailable
		if f.code == connect.CodeInvalidArgument {
			status = http.StatusBadRequest
		}
		http.Error(w, "told to fail", status)
		return
	}
	switch r.Header.Get("Content-Type") {
	case "application/x-protobuf", "application/protobuf":
	default:
		why := "Unsupported Content-Type: " + r.Header.Get("Content-Type")
		s.refuse(why)
		http.Error(w, why, http.StatusUnsupportedMediaType)
		return
	}
	all, err := readOTLP(r)
	if err == nil {
		err = s.keep(r.Header.Get(tenantHeader), all)
	}
	if err != nil {
		s.refuse(err.Error())
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func readOTLP(r *http.Request) ([]taken, error) {
	var in io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			return nil, err
		}
		in = z
	}
	raw, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	data := &otlp.ProfilesData{} // the members of ExportProfilesServiceRequest
	if err := proto.Unmarshal(raw, data); err != nil {
		return nil, err
	}
	switch {
	case len(data.ProtoReflect().GetUnknown()) > 0:
		return nil, errors.New("members of another version of the protocol")
	case data.Dictionary == nil:
		return nil, errors.New("missing profile metadata dictionary")
	case len(data.ResourceProfiles) == 0:
		return nil, errors.New("missing resource profiles")
	}
	c := converter{d: data.Dictionary}
	if err := c.zeros(); err != nil {
		return nil, err
	}
	var all []taken
	for _, rp := range data.ResourceProfiles {
		for _, sp := range rp.ScopeProfiles {
			for _, p := range sp.Profiles {
				one, err := c.profile(p, rp.GetResource().GetAttributes())
				if err != nil {
					return nil, fmt.Errorf("failed to convert otel profile: %w", err)
				}
				all = append(all, taken{"", one})
			}
		}
	}
	return all, nil
}

// converter makes pprof of OTLP, as the server does.
type converter struct{ d *otlp.ProfilesDictionary }

// zeros wants the entry of index 0 of each table to be nothing.
func (c *converter) zeros() error {
	if len(c.d.StringTable) == 0 || c.d.StringTable[0] != "" {
		return errors.New("string_table does not begin with an empty string")
	}
	for name, zero := range map[string]bool{
		"mapping_table":   isZero(c.d.MappingTable),
		"location_table":  isZero(c.d.LocationTable),
		"function_table":  isZero(c.d.FunctionTable),
		"link_table":      isZero(c.d.LinkTable),
		"attribute_table": isZero(c.d.AttributeTable),
		"stack_table":     isZero(c.d.StackTable),
	} {
		if !zero {
			return fmt.Errorf("%s does not begin with an entry of zeros", name)
		}
	}
	return nil
}

func isZero[M proto.Message](table []M) bool {
	return len(table) > 0 && proto.Size(table[0]) == 0
}

// at returns an entry of a table. Index 0 stands for nothing, and is none.
func at[T any](table []T, i int32) (x T, err error) {
	if i < 0 || int(i) >= len(table) {
		return x, fmt.Errorf("index %d of %v out of bounds", i, reflect.TypeFor[T]())
	}
	return table[i], nil
}

func (c *converter) text(i int32) string {
	s, err := at(c.d.StringTable, i)
	if err != nil {
		return ""
	}
	return s
}

func (c *converter) profile(p *otlp.Profile, attributes []*commonv1.KeyValue) (Stored, error) {
	if p.SampleType == nil || p.PeriodType == nil || len(p.Samples) == 0 {
		return Stored{}, errors.New("sample type, period type or samples are missing")
	}
	typ := [2]string{c.text(p.SampleType.TypeStrindex), c.text(p.SampleType.UnitStrindex)}
	period := [2]string{c.text(p.PeriodType.TypeStrindex), c.text(p.PeriodType.UnitStrindex)}
	times, name := int64(1), period[0]
	if typ == [2]string{"samples", "count"} && period == [2]string{"cpu", "nanoseconds"} {
		// As the real one was seen to do.
		times, name, typ = p.Period, "process_cpu", period
	}
	out := &profile.Profile{
		SampleType: []*profile.ValueType{{Type: typ[0], Unit: typ[1]}}, PeriodType: &profile.ValueType{Type: period[0], Unit: period[1]},
		Period: p.Period, TimeNanos: int64(p.TimeUnixNano), DurationNanos: int64(p.DurationNano),
	}
	locations := map[int32]*profile.Location{}
	for _, x := range p.Samples {
		if len(x.Values) != 1 {
			return Stored{}, fmt.Errorf("sample values length mismatch %d 1", len(x.Values))
		}
		stack, err := at(c.d.StackTable, x.StackIndex)
		if err != nil {
			return Stored{}, err
		}
		sample := &profile.Sample{Value: []int64{x.Values[0] * times}}
		for _, i := range stack.LocationIndices {
			l := locations[i]
			if l == nil {
				if l, err = c.location(i, out); err != nil {
					return Stored{}, err
				}
				locations[i] = l
			}
			sample.Location = append(sample.Location, l)
		}
		out.Sample = append(out.Sample, sample)
	}
	labels, err := labelsOf(name, attributes)
	if err != nil {
		return Stored{}, err
	}
	return checkProfile(out, labels)
}

func (c *converter) location(i int32, out *profile.Profile) (*profile.Location, error) {
	l, err := at(c.d.LocationTable, i)
	if err != nil {
		return nil, err
	}
	if _, err := at(c.d.MappingTable, l.MappingIndex); err != nil {
		return nil, err
	}
	to := &profile.Location{ID: uint64(len(out.Location) + 1)}
	for _, line := range l.Lines {
		fn, err := at(c.d.FunctionTable, line.FunctionIndex)
		if err != nil {
			return nil, err
		}
		f := &profile.Function{ID: uint64(len(out.Function) + 1), Name: c.text(fn.NameStrindex), Filename: c.text(fn.FilenameStrindex)}
		out.Function = append(out.Function, f)
		to.Line = append(to.Line, profile.Line{Function: f, Line: line.Line})
	}
	out.Location = append(out.Location, to)
	return to, nil
}

// labelsOf makes labels of the attributes of a resource.
func labelsOf(name string, attributes []*commonv1.KeyValue) (map[string]string, error) {
	dirty := regexp.MustCompile(`[^a-zA-Z0-9_]`)
	pairs := [][2]string{{"__name__", name}, {"__otel__", "true"}, {"__delta__", "false"}}
	for _, a := range attributes {
		v, ok := a.GetValue().GetValue().(*commonv1.AnyValue_StringValue)
		if !ok {
			return nil, fmt.Errorf("attribute %q has no text", a.Key)
		}
		pairs = append(pairs, [2]string{dirty.ReplaceAllString(a.Key, "_"), v.StringValue})
	}
	return checkLabels(pairs)
}
