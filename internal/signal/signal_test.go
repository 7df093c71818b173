package signal

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

type inner struct {
	Deep bool `json:"deep" help:"embedded"`
}

type thing struct {
	Secs  float64  `json:"secs" unit:"seconds" help:"how long"`
	Names []string `json:"names" help:"which"`
	Who   Party    `json:"who" help:"who"`
	inner
	N uint32 `json:"n,omitempty" help:"how many"`
}

func TestEventOf(t *testing.T) {
	s := EventOf[thing]("thing_seen", AreaSystem, Warning, "A thing was seen.")
	want := []Field{
		{Name: "secs", Type: "number", Unit: "seconds", Help: "how long"},
		{Name: "names", Type: "array", Help: "which"},
		{Name: "who", Type: "object", Help: "who"},
		{Name: "deep", Type: "boolean", Help: "embedded"},
		{Name: "n", Type: "integer", Help: "how many"},
	}
	if len(s.Fields) != len(want) {
		t.Fatalf("fields %+v", s.Fields)
	}
	for i, f := range s.Fields {
		if f.Name != want[i].Name || f.Type != want[i].Type || f.Unit != want[i].Unit || f.Help != want[i].Help {
			t.Errorf("field %+v, want %+v", f, want[i])
		}
	}
	if _, ok := s.NewBody().(*thing); !ok {
		t.Errorf("NewBody gives %T", s.NewBody())
	}
	if (&Schema{}).NewBody() != nil {
		t.Error("a schema without a body has one")
	}
}

func TestEventOfRefuses(t *testing.T) {
	defer func() {
		if r := recover(); r == nil || !strings.HasPrefix(r.(string), "BUG:") {
			t.Errorf("a field without tags: %v", r)
		}
	}()
	EventOf[struct{ X int }]("x", AreaSystem, Info, "X.")
}

// TestDocument: no address leaves with a document, and what is unknown is absent.
func TestDocument(t *testing.T) {
	s := EventOf[thing]("thing_seen", AreaSystem, Warning, "A thing was seen.")
	r := &Record{ID: "1", Schema: s, Time: time.Unix(1, 5), Title: "t", Body: &thing{Who: Party{KernelIPs: []uint64{0xffffffff81000000}, CgroupID: 9}},
		KernelIPs: []uint64{0xffffffff81000000}, UserIPs: []uint64{0x400000}}
	d, err := r.Document()
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	for _, leak := range []string{"18446744071578845184", "ffffffff81", "4194304", "process\":{\"pid\":0,\"tid\""} {
		if strings.Contains(string(b), leak) {
			t.Errorf("%s in %s", leak, b)
		}
	}
	if d.Process != nil || d.Container != nil || d.Severity != Warning {
		t.Errorf("document %+v: want no process, no container, the schema's severity", d)
	}
	r.Severity, r.Process.PID, r.Container.Unit = Critical, 7, "x.service"
	if d, _ = r.Document(); d.Severity != Critical || d.Process.PID != 7 || d.Container.Unit != "x.service" {
		t.Errorf("document %+v", d)
	}
	r.Body = func() {}
	if _, err := r.Document(); err == nil {
		t.Error("a body that JSON cannot encode gives a document")
	}
}
