package console

import (
	"encoding/json"
	"testing"

	"huatuo/internal/signal"
)

func TestFormatValue(t *testing.T) {
	for _, tt := range []struct {
		v    float64
		unit string
		want string
	}{
		{0, "seconds", "0"}, {0.0125, "seconds", "12.5 ms"}, {2.5e-7, "seconds", "250 ns"}, {90, "seconds", "1.5 min"},
		{1 << 20, "bytes", "1 MiB"}, {1500, "bytes", "1.46 KiB"}, {0.125, "ratio", "12.5 %"}, {0.0004, "ratio", "0.04 %"},
		{1234567, "", "1.23M"}, {12, "1", "12"}, {0.5, "cores", "0.5 cores"}, {-0.002, "seconds", "-2 ms"},
	} {
		if got := formatValue(tt.v, tt.unit); got != tt.want {
			t.Errorf("%v %s is %q, want %q", tt.v, tt.unit, got, tt.want)
		}
	}
}

// TestBodyOf: schema order and units, nested units, stacks, and what no schema knows.
func TestBodyOf(t *testing.T) {
	d := &signal.Document{Fields: json.RawMessage(`{"zeta":1,"wait":0.5,"memcg":{"limit_bytes":1048576,"stat":{"anon":2048}},"stack":[{"function":"f","line":3}],"empty":""}`)}
	schema := CatalogEntry{Schema: signal.Schema{Fields: []signal.Field{{Name: "wait", Unit: "seconds", Help: "how long"}, {Name: "empty"}, {Name: "absent"}}}}
	list := bodyOf(d, schema)
	if len(list) != 4 || list[0].Name != "wait" || list[0].Value.Text != "500 ms" || list[0].Help != "how long" {
		t.Fatalf("%+v", list)
	}
	stat := list[1].Value.Members[1]
	if stat.Name != "stat" || stat.Value.Members[0].Value.Text != "2 KiB" {
		t.Errorf("amounts beside bytes: %+v", stat)
	}
	if s := list[2].Value.Stack; len(s) != 1 || s[0].Line != 3 {
		t.Errorf("stack %+v", list[2])
	}
	if list[3].Name != "zeta" || list[3].Value.Text != "1" {
		t.Errorf("%+v", list[3])
	}
	if bodyOf(&signal.Document{Fields: json.RawMessage(`[1]`)}, schema) != nil {
		t.Error("a body that is no object has members")
	}
}
