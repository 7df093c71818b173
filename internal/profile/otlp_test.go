package profile

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/pprof/profile"
	profilesv1 "go.opentelemetry.io/proto/otlp/profiles/v1development"
	"google.golang.org/protobuf/proto"
)

// TestOTLP: the protocol's own types read what is written, and every stack has
// the value that it has in pprof.
func TestOTLP(t *testing.T) {
	d := &profilesv1.ProfilesData{}
	if err := proto.Unmarshal(encode(t, "otlp"), d); err != nil {
		t.Fatal(err)
	}
	if n := len(d.ProtoReflect().GetUnknown()); n > 0 || len(d.ResourceProfiles) != 1 {
		t.Fatalf("%d unknown bytes, %d resources", n, len(d.ResourceProfiles))
	}
	x, p := d.Dictionary, d.ResourceProfiles[0].ScopeProfiles[0].Profiles[0]
	if typ, unit := x.StringTable[p.SampleType.TypeStrindex], x.StringTable[p.SampleType.UnitStrindex]; typ != "cpu" || unit != "nanoseconds" || p.TimeUnixNano != 100e9 || p.DurationNano != 10e9 {
		t.Errorf("%s in %s, from %d for %d", typ, unit, p.TimeUnixNano, p.DurationNano)
	}
	got, modules := map[string]int64{}, map[string]bool{}
	for _, s := range p.Samples {
		var path []string
		for _, i := range x.StackTable[s.StackIndex].LocationIndices {
			l := x.LocationTable[i]
			modules[x.StringTable[x.MappingTable[l.MappingIndex].FilenameStrindex]] = true
			path = append(path, x.StringTable[x.FunctionTable[l.Lines[0].FunctionIndex].NameStrindex])
		}
		got[strings.Join(path, " ")] += s.Values[0]
	}
	q, err := profile.ParseData(encode(t, "pprof"))
	if err != nil {
		t.Fatal(err)
	}
	want, total := map[string]int64{}, int64(0)
	for _, s := range q.Sample {
		var path []string
		for _, l := range s.Location {
			path = append(path, l.Line[0].Function.Name)
		}
		want[strings.Join(path, " ")] += s.Value[0]
		total += s.Value[0]
	}
	if !maps.Equal(got, want) || total != 100 {
		t.Errorf("got %v, want %v", got, want)
	}
	if m := slices.Sorted(maps.Keys(modules)); strings.Join(m, " ") != "/bin/p /lib/x.so [kernel]" {
		t.Errorf("modules %v", m)
	}
}
