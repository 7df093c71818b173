package docgen

import (
	"encoding/json"
	"reflect"
	"strings"
	"time"

	"huatuo/internal/signal"
)

// object is a JSON Schema under construction. Members keep their order: the
// order of the Go struct is the order in which people read it.
type object struct {
	Schema      string   `json:"$schema,omitempty"`
	Title       string   `json:"title,omitempty"`
	Description string   `json:"description,omitempty"`
	Type        any      `json:"type,omitempty"` // a string, or a list of them
	Format      string   `json:"format,omitempty"`
	Const       string   `json:"const,omitempty"`
	Enum        []string `json:"enum,omitempty"`
	Unit        string   `json:"x-unit,omitempty"`
	Minimum     *int     `json:"minimum,omitempty"`
	Properties  *ordered `json:"properties,omitempty"`
	Required    []string `json:"required,omitempty"`
	Items       *object  `json:"items,omitempty"`
	Additional  *object  `json:"additionalProperties,omitempty"`
}

// ordered is a JSON object whose members keep their order.
type ordered struct {
	names  []string
	values []*object
}

// MarshalJSON writes the members in order.
func (o *ordered) MarshalJSON() ([]byte, error) {
	var b strings.Builder
	b.WriteByte('{')
	for i, n := range o.names {
		if i > 0 {
			b.WriteByte(',')
		}
		key, err := json.Marshal(n)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(o.values[i])
		if err != nil {
			return nil, err
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return []byte(b.String()), nil
}

// eventSchema describes the whole document of one kind of event.
func eventSchema(e *signal.Schema) *object {
	o := typeSchema(reflect.TypeFor[signal.Document](), nil)
	o.Schema = "https://json-schema.org/draft/2020-12/schema"
	o.Title, o.Description = e.Name, e.Help
	for i, n := range o.Properties.names {
		switch n {
		case "kind":
			o.Properties.values[i].Const = e.Name
		case "fields":
			if body := e.NewBody(); body != nil {
				m := typeSchema(reflect.TypeOf(body).Elem(), nil)
				m.Description = "what only this kind of event has"
				o.Properties.values[i] = m
			}
		}
	}
	return o
}

var rawType = reflect.TypeFor[json.RawMessage]()

// typeSchema describes t as encoding/json writes it. within holds the structs
// around it: a struct inside itself stays a plain object.
func typeSchema(t reflect.Type, within []reflect.Type) *object {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return &object{Type: "string", Format: "date-time"}
	case t == rawType:
		return &object{Type: "object"}
	case t == reflect.TypeFor[signal.Severity]():
		return &object{Type: "string", Enum: []string{string(signal.Info), string(signal.Warning), string(signal.Critical)}}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return typeSchema(t.Elem(), within)
	case reflect.Struct:
		for _, w := range within {
			if w == t {
				return &object{Type: "object"}
			}
		}
		return structSchema(t, append(within[:len(within):len(within)], t))
	case reflect.Slice, reflect.Array:
		return &object{Type: "array", Items: typeSchema(t.Elem(), within)}
	case reflect.Map:
		return &object{Type: "object", Additional: typeSchema(t.Elem(), within)}
	case reflect.Bool:
		return &object{Type: "boolean"}
	case reflect.Float32, reflect.Float64:
		return &object{Type: "number"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return &object{Type: "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return &object{Type: "integer", Minimum: new(int)}
	default:
		return &object{Type: "string"}
	}
}

func structSchema(t reflect.Type, within []reflect.Type) *object {
	o := &object{Type: "object", Properties: &ordered{}}
	for i := range t.NumField() {
		f := t.Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct {
			in := structSchema(f.Type, within)
			o.Properties.names = append(o.Properties.names, in.Properties.names...)
			o.Properties.values = append(o.Properties.values, in.Properties.values...)
			o.Required = append(o.Required, in.Required...)
			continue
		}
		if !f.IsExported() || name == "-" || name == "" {
			continue
		}
		m := typeSchema(f.Type, within)
		m.Description, m.Unit = f.Tag.Get("help")+f.Tag.Get("doc"), f.Tag.Get("unit")
		o.Properties.names = append(o.Properties.names, name)
		o.Properties.values = append(o.Properties.values, m)
		if strings.Contains(opts, "omit") {
			continue
		}
		o.Required = append(o.Required, name)
		if k := f.Type.Kind(); m.Type != nil && (k == reflect.Slice && f.Type != rawType || k == reflect.Map || k == reflect.Pointer) {
			m.Type = []any{m.Type, "null"} // how encoding/json writes a nil one
		}
	}
	return o
}
