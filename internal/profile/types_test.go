package profile

import (
	"regexp"
	"slices"
	"testing"
)

// TestTypes: names and units are of the kinds that readers expect, and a type
// stands with the one that it is beside, named after it.
func TestTypes(t *testing.T) {
	name := regexp.MustCompile(`^[a-z]+(\.[a-z_]+)*$`)
	seen := map[string]bool{}
	for _, typ := range Types() {
		if !name.MatchString(typ.Name) || seen[typ.Name] || typ.Help == "" || typ.Read == "" {
			t.Errorf("type %+v", typ)
		}
		seen[typ.Name] = true
		if !slices.Contains([]string{"nanoseconds", "bytes", "count"}, typ.Unit) {
			t.Errorf("%s has the unit %q", typ.Name, typ.Unit)
		}
		b := Beside(typ)
		if b == nil {
			continue
		}
		if BesideOf(b) != typ || b.Unit == typ.Unit || len(b.Name) <= len(typ.Name) || b.Name[:len(typ.Name)+1] != typ.Name+"." {
			t.Errorf("%s is beside %s", b.Name, typ.Name)
		}
		if slices.Contains(Defaults(), typ) != slices.Contains(Defaults(), b) || !slices.Contains(Types(), b) {
			t.Errorf("%s is not taken with %s", b.Name, typ.Name)
		}
	}
	if BesideOf(CPU) != nil {
		t.Error("time on CPUs is beside something")
	}
}
