// Package otlp encodes stacks as OTLP profiles, for files and for servers.
//
// The generated types of the protocol are used and not the collector's: those
// write resources in a way that the servers which take profiles today do not
// read.
package otlp

import (
	"fmt"
	"strings"

	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	profilesv1 "go.opentelemetry.io/proto/otlp/profiles/v1development"
	resourcev1 "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/proto"

	"huatuo/internal/signal"
)

// ContentType is what a message is called in HTTP.
const ContentType = "application/x-protobuf"

// Attribute says something about the resource that a profile is of.
type Attribute struct{ Name, Value string }

// Sample is what a stack has.
type Sample struct {
	Stack int32 // as Encoder.Stack numbers it
	Value int64
}

// Profile is the samples of one type and window.
type Profile struct {
	Type, Unit             string
	PeriodType, PeriodUnit string
	Period                 int64
	Begin, Nanoseconds     int64 // of the window: Unix nanoseconds, and its length
	Samples                []Sample
}

// Encoder makes one message of profiles that share a dictionary. Index 0 of each
// of its tables is nothing.
type Encoder struct {
	dictionary profilesv1.ProfilesDictionary
	resources  []*profilesv1.ResourceProfiles
	size       int
	strings    map[string]int32
	frames     map[signal.Frame]int32
	mappings   map[string]int32
}

// New returns an Encoder without profiles.
func New() *Encoder {
	e := &Encoder{strings: map[string]int32{"": 0}, frames: map[signal.Frame]int32{}, mappings: map[string]int32{"": 0}}
	d := &e.dictionary
	d.StringTable = []string{""}
	d.MappingTable = []*profilesv1.Mapping{{}}
	d.LocationTable = []*profilesv1.Location{{}}
	d.FunctionTable = []*profilesv1.Function{{}}
	d.LinkTable = []*profilesv1.Link{{}}
	d.AttributeTable = []*profilesv1.KeyValueAndUnit{{}}
	d.StackTable = []*profilesv1.Stack{{}}
	return e
}

// Size is about how many bytes the message has so far.
func (e *Encoder) Size() int { return e.size }

// clean makes text of a name: any bytes may stand in a symbol table.
func clean(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func (e *Encoder) text(s string) int32 {
	s = clean(s)
	i, ok := e.strings[s]
	if !ok {
		i = int32(len(e.dictionary.StringTable))
		e.strings[s] = i
		e.dictionary.StringTable = append(e.dictionary.StringTable, s)
		e.size += len(s) + 4
	}
	return i
}

// Location numbers a frame; kernel tells whether it is the kernel's.
func (e *Encoder) Location(f *signal.Frame, kernel bool) int32 {
	i, ok := e.frames[*f]
	if ok {
		return i
	}
	d := &e.dictionary
	file := f.Module
	if kernel && file == "" {
		file = "[kernel]"
	}
	m, ok := e.mappings[file]
	if !ok {
		m = int32(len(d.MappingTable))
		e.mappings[file] = m
		d.MappingTable = append(d.MappingTable, &profilesv1.Mapping{FilenameStrindex: e.text(file)})
	}
	fn := int32(len(d.FunctionTable))
	d.FunctionTable = append(d.FunctionTable, &profilesv1.Function{
		NameStrindex: e.text(f.Title()), SystemNameStrindex: e.text(f.Function), FilenameStrindex: e.text(f.File),
	})
	i = int32(len(d.LocationTable))
	e.frames[*f] = i
	d.LocationTable = append(d.LocationTable, &profilesv1.Location{MappingIndex: m, Lines: []*profilesv1.Line{{FunctionIndex: fn, Line: int64(f.Line)}}})
	e.size += 30
	return i
}

// Stack numbers a stack, innermost frame first. It does not look for the same
// one: callers know their stacks by less than all of the frames. The slice is
// kept.
func (e *Encoder) Stack(locations []int32) int32 {
	i := int32(len(e.dictionary.StackTable))
	e.dictionary.StackTable = append(e.dictionary.StackTable, &profilesv1.Stack{LocationIndices: locations})
	e.size += 3*len(locations) + 4
	return i
}

// Add adds profiles of a resource. Attributes without a value are left out.
func (e *Encoder) Add(resource []Attribute, list ...Profile) {
	attributes := make([]*commonv1.KeyValue, 0, len(resource))
	for _, a := range resource {
		if a.Value == "" {
			continue
		}
		attributes = append(attributes, &commonv1.KeyValue{
			Key: a.Name, Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: clean(a.Value)}},
		})
	}
	profiles := make([]*profilesv1.Profile, len(list))
	for i, p := range list {
		profiles[i] = e.profile(p)
	}
	e.resources = append(e.resources, &profilesv1.ResourceProfiles{
		Resource: &resourcev1.Resource{Attributes: attributes},
		ScopeProfiles: []*profilesv1.ScopeProfiles{{
			Scope: &commonv1.InstrumentationScope{Name: "huatuo"}, Profiles: profiles,
		}},
	})
}

func (e *Encoder) profile(p Profile) *profilesv1.Profile {
	out := &profilesv1.Profile{
		SampleType: &profilesv1.ValueType{TypeStrindex: e.text(p.Type), UnitStrindex: e.text(p.Unit)},
		PeriodType: &profilesv1.ValueType{TypeStrindex: e.text(p.PeriodType), UnitStrindex: e.text(p.PeriodUnit)},
		Period:     p.Period, TimeUnixNano: uint64(p.Begin), DurationNano: uint64(max(p.Nanoseconds, 1)),
		Samples: make([]*profilesv1.Sample, len(p.Samples)),
	}
	for i, s := range p.Samples {
		out.Samples[i] = &profilesv1.Sample{StackIndex: s.Stack, Values: []int64{s.Value}}
	}
	e.size += 16 * len(p.Samples)
	return out
}

// Marshal returns the message: a ProfilesData, which has the members of an
// ExportProfilesServiceRequest, so that a file of it can be sent to a server.
func (e *Encoder) Marshal() ([]byte, error) {
	raw, err := proto.Marshal(&profilesv1.ProfilesData{ResourceProfiles: e.resources, Dictionary: &e.dictionary})
	if err != nil {
		return nil, fmt.Errorf("encode OTLP profiles: %w", err)
	}
	return raw, nil
}
