package signal

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestParseWhere(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []Condition
	}{
		{"", nil},
		{"field.wait_seconds>=50ms", []Condition{{"field.wait_seconds", GreaterEqual, "50ms"}}},
		{" field.cpu != 3 ", []Condition{{"field.cpu", NotEqual, "3"}}},
		{"verdict contains quota AND process.exe = /bin/x", []Condition{{"verdict", Contains, "quota"}, {"process.exe", Equal, "/bin/x"}}},
		{`known = ""`, []Condition{{"known", Equal, ""}}},
		{`title = "a \"b\" \\ and c"`, []Condition{{"title", Equal, `a "b" \ and c`}}},
		{"field.a containsx = 1", nil},
		{"and and and", nil},
		{"field.reason = and", []Condition{{"field.reason", Equal, "and"}}},
		{"field.n < 5 % ", nil},
	} {
		got, err := ParseWhere(tt.text)
		if (tt.want == nil) != (err != nil) && tt.text != "" {
			t.Errorf("%q: %v", tt.text, err)
			continue
		}
		if len(got) != len(tt.want) && err == nil {
			t.Errorf("%q: %v, want %v", tt.text, got, tt.want)
			continue
		}
		for i := range tt.want {
			if got[i] != tt.want[i] {
				t.Errorf("%q: %v, want %v", tt.text, got[i], tt.want[i])
			}
		}
		for _, c := range got { // what is written can be read
			if again, err := ParseWhere(c.String()); err != nil || len(again) != 1 || again[0] != c {
				t.Errorf("%q is read as %v, %v", c.String(), again, err)
			}
		}
	}
}

func TestParseWhereRefuses(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"field.n", "a condition is NAME OP VALUE"},
		{"field.n >", "a value is missing"},
		{"field.n > many", "must be a number"},
		{"field.n > 5 parsecs", `"parsecs": two conditions`},
		{"field.n > 5parsecs", "must be a number"},
		{"field.n > 0x10", "must be a number"},
		{"field.n > Inf", "must be a number"},
		{"field..n = 1", "is not the name of a member"},
		{"1n = 1", "is not the name of a member"},
		{"= 1", "is not the name of a member"},
		{`title = "a`, "a quote is not closed"},
		{"a = 1 b = 2", `joined by "and"`},
		{"a = 1" + strings.Repeat(" and a = 1", maxConditions), "at most 16"},
	} {
		if _, err := ParseWhere(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.text, err, tt.want)
		}
	}
}

func TestConditionNumber(t *testing.T) {
	for text, want := range map[string]float64{
		"5": 5, "-1.5": -1.5, "1e3": 1000, "50ms": 0.05, "70 ms": 0.07, "3us": 3e-6, "3µs": 3e-6, "2min": 120, "1d": 86400,
		"1MiB": 1 << 20, "4KiB": 4096, "2k": 2000, "5%": 0.05,
	} {
		c := Condition{Text: text}
		if got, ok := c.Number(); !ok || got != want {
			t.Errorf("%q is %v, %v; want %v", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "ms", "x", "1 000", "0x1p3", "1_000", "nan", "1e999"} {
		c := Condition{Text: text}
		if got, ok := c.Number(); ok {
			t.Errorf("%q is %v", text, got)
		}
	}
}

// TestMatchAll: what the rows of the store's TestWhere do not say.
func TestMatchAll(t *testing.T) {
	d := &Document{Kind: "k", Fields: json.RawMessage(`{"n":1}`)}
	if !MatchAll(nil, d) {
		t.Error("no condition does not hold")
	}
	if !MatchAll([]Condition{{"kind", Equal, "k"}, {"field.n", Less, "2"}}, d) || MatchAll([]Condition{{"kind", Equal, "k"}, {"field.n", Greater, "2"}}, d) {
		t.Error("not every condition has to hold")
	}
	if MatchAll([]Condition{{"kind", Equal, "k"}}, &Document{Kind: "k", Fields: json.RawMessage(`{`)}) {
		t.Error("a document that is no JSON passes")
	}
}

func FuzzParseWhere(f *testing.F) {
	for _, s := range []string{"field.a >= 5ms and b contains \"x\"", "a=1", `"`, "a.b != \\", "and", "a = µ", "a\x00=1", "a > 1%"} {
		f.Add(s)
	}
	d := &Document{Kind: "k", Title: "t", Fields: json.RawMessage(`{"a":[1,{"b":"x"}]}`)}
	f.Fuzz(func(t *testing.T, text string) {
		list, err := ParseWhere(text)
		if err != nil {
			return
		}
		MatchAll(list, d)
		for _, c := range list {
			if again, err := ParseWhere(c.String()); err != nil || len(again) != 1 || again[0] != c {
				t.Errorf("%q is read as %v, %v", c.String(), again, err)
			}
		}
	})
}
