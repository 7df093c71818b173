package otlp

import (
	"testing"

	profilesv1 "go.opentelemetry.io/proto/otlp/profiles/v1development"
	"google.golang.org/protobuf/proto"

	"huatuo/internal/signal"
)

// TestEncoder: profiles share what they have in common, index 0 of each table is
// nothing, names are text, and attributes without a value are not there.
func TestEncoder(t *testing.T) {
	e := New()
	f := &signal.Frame{Function: "a\xff", Module: "/bin/a", File: "a.c", Line: 3}
	a, b := e.Location(f, false), e.Location(&signal.Frame{Function: "schedule"}, true)
	if again := e.Location(f, false); again != a || a == 0 || b == a {
		t.Errorf("locations %d, %d, %d", a, again, b)
	}
	s := e.Stack([]int32{b, a})
	for _, service := range []string{"one", "two"} {
		e.Add([]Attribute{{"service.name", service}, {"empty", ""}}, Profile{
			Type: "cpu", Unit: "nanoseconds", PeriodType: "cpu", PeriodUnit: "nanoseconds", Period: 1, Begin: 5, Samples: []Sample{{s, 7}},
		})
	}
	raw, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	d := &profilesv1.ProfilesData{}
	if err := proto.Unmarshal(raw, d); err != nil {
		t.Fatal(err)
	}
	x := d.Dictionary
	for name, zero := range map[string]proto.Message{
		"mapping": x.MappingTable[0], "location": x.LocationTable[0], "function": x.FunctionTable[0], "link": x.LinkTable[0],
		"attribute": x.AttributeTable[0], "stack": x.StackTable[0],
	} {
		if proto.Size(zero) != 0 {
			t.Errorf("the first %s is something", name)
		}
	}
	if n := len(x.LocationTable); n != 3 || len(x.StackTable) != 2 || x.StringTable[0] != "" {
		t.Errorf("%d locations, %d stacks, first string %q", n, len(x.StackTable), x.StringTable[0])
	}
	if name := x.StringTable[x.FunctionTable[x.LocationTable[a].Lines[0].FunctionIndex].NameStrindex]; name != "a\uFFFD" {
		t.Errorf("name %q", name)
	}
	if file := x.StringTable[x.MappingTable[x.LocationTable[b].MappingIndex].FilenameStrindex]; file != "[kernel]" {
		t.Errorf("the kernel is %q", file)
	}
	if len(d.ResourceProfiles) != 2 {
		t.Fatalf("%d resources", len(d.ResourceProfiles))
	}
	r := d.ResourceProfiles[1]
	p := r.ScopeProfiles[0].Profiles[0]
	if at := r.Resource.Attributes; len(at) != 1 || at[0].Value.GetStringValue() != "two" || p.Samples[0].Values[0] != 7 || p.Samples[0].StackIndex != s || p.DurationNano != 1 {
		t.Errorf("%v", r)
	}
	if size := e.Size(); size < len(raw)/3 || size > 3*len(raw) {
		t.Errorf("size %d, of %d", size, len(raw))
	}
}
