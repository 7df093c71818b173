package console

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"huatuo/internal/signal"
)

// bodyOf lists the members of d's body in the order of its schema, with their
// help and units, and then those that the schema does not know.
func bodyOf(d *signal.Document, schema CatalogEntry) []member {
	var raw map[string]any
	dec := json.NewDecoder(strings.NewReader(string(d.Fields)))
	dec.UseNumber()
	if dec.Decode(&raw) != nil {
		return nil
	}
	var list []member
	add := func(name, help, unit string) {
		if v, ok := raw[name]; ok && v != nil && v != "" {
			list = append(list, member{name, help, valueOf(v, unit)})
		}
		delete(raw, name)
	}
	for _, f := range schema.Fields {
		add(f.Name, f.Help, f.Unit)
	}
	for _, name := range sortedNames(raw) {
		add(name, "", unitOf(name))
	}
	return list
}

func sortedNames(m map[string]any) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// unitOf guesses the unit of a nested member, which has no schema: its name
// ends in it.
func unitOf(name string) string {
	for _, u := range []string{"seconds", "bytes", "ratio"} {
		if name == u || strings.HasSuffix(name, "_"+u) {
			return u
		}
	}
	return ""
}

// unitBeside is the one unit that the names of an object's members tell:
// amounts by kind beside limit_bytes and usage_bytes are bytes too.
func unitBeside(m map[string]any) string {
	found := ""
	for name := range m {
		switch u := unitOf(name); {
		case u == "" || u == found:
		case found == "":
			found = u
		default:
			return ""
		}
	}
	return found
}

func valueOf(v any, unit string) value {
	switch v := v.(type) {
	case json.Number:
		f, err := v.Float64()
		if err != nil || unit == "" {
			return value{Text: v.String()}
		}
		return value{Text: formatValue(f, unit)}
	case string:
		return value{Text: v}
	case bool:
		return value{Text: strconv.FormatBool(v)}
	case []any:
		if stack, ok := stackOf(v); ok {
			return value{Stack: stack}
		}
		out := value{Items: []value{}}
		for _, e := range v {
			out.Items = append(out.Items, valueOf(e, unit))
		}
		return out
	case map[string]any:
		out := value{Members: []member{}}
		beside := unitBeside(v)
		for _, name := range sortedNames(v) {
			u := unitOf(name)
			if u == "" {
				u = unit
			}
			if _, nested := v[name].(map[string]any); nested && u == "" {
				u = beside
			}
			out.Members = append(out.Members, member{Name: name, Value: valueOf(v[name], u)})
		}
		return out
	}
	return value{Text: "–"}
}

// stackOf recognises symbolised frames wherever they stand.
func stackOf(list []any) ([]signal.Frame, bool) {
	for _, e := range list {
		if m, ok := e.(map[string]any); !ok || m["function"] == nil {
			return nil, false
		}
	}
	b, err := json.Marshal(list)
	if err != nil {
		return nil, false
	}
	var stack []signal.Frame
	return stack, json.Unmarshal(b, &stack) == nil && len(stack) > 0
}

// scale is a unit that a number may be shown in.
type scale struct {
	least  float64
	suffix string
}

// formatValue writes a value of a base unit with about three digits.
func formatValue(v float64, unit string) string {
	scales := []scale{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}, {1, ""}}
	switch unit {
	case "seconds":
		scales = []scale{{86400, " d"}, {3600, " h"}, {60, " min"}, {1, " s"}, {1e-3, " ms"}, {1e-6, " µs"}, {1e-9, " ns"}}
	case "bytes":
		scales = []scale{{1 << 40, " TiB"}, {1 << 30, " GiB"}, {1 << 20, " MiB"}, {1 << 10, " KiB"}, {1, " B"}}
	case "ratio":
		scales = []scale{{0.01, " %"}}
	}
	word := ""
	if unit != "" && unit != "1" && unit != "seconds" && unit != "bytes" && unit != "ratio" {
		word = " " + unit
	}
	if v == 0 || math.IsNaN(v) || math.IsInf(v, 0) {
		return strings.TrimSpace(fmt.Sprint(v) + word)
	}
	s := scales[len(scales)-1]
	for _, c := range scales {
		if math.Abs(v) >= c.least*0.9995 {
			s = c
			break
		}
	}
	return digits(v/s.least) + s.suffix + word
}

// digits writes v with three significant digits, and whole numbers whole.
func digits(v float64) string {
	switch a := math.Abs(v); {
	case v == math.Trunc(v) && a < 1e15:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case a >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return trimZeros(strconv.FormatFloat(v, 'f', 1, 64))
	case a >= 1:
		return trimZeros(strconv.FormatFloat(v, 'f', 2, 64))
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

func trimZeros(s string) string { return strings.TrimRight(strings.TrimRight(s, "0"), ".") }

// clockText is the time of day on an axis.
func clockText(t time.Time) string { return t.UTC().Format("15:04:05") }

// translate returns a heading of the page in another language.
func translate(text, lang string) string {
	if zh, ok := map[string]string{
		"Cause": "原因", "Known issues": "已知问题", "Links": "关联事件", "Fields": "字段", "Process": "进程", "Workload": "工作负载",
		"Resources at the moment": "事发时的资源", "Host": "主机", "Kernel stack": "内核调用栈", "User stack": "用户调用栈", "Registers": "寄存器",
		"Around it": "前后发生的事件", "Charts": "前后的指标", "The document": "原始文档", "No stack was captured.": "未捕获调用栈。",
		"None in this window.": "此窗口内没有事件。", "No metric history of this time.": "没有这段时间的指标历史。",
		"exported": "导出于", "kernel": "内核", "events within": "个事件，前后", "not looked up": "未能查到",
		"cause": "原因", "effect": "结果", "same": "同一件事", "process": "同一进程", "workload": "同一工作负载", "cpu": "同一 CPU", "host": "同一主机",
		"rate-limited before it": "在它之前被限流", "the container was gone": "容器已退出", "times are UTC": "时间为 UTC", "the event": "事件发生",
		"info": "信息", "warning": "警告", "critical": "严重", "per second": "每秒",
		"load (1 min)": "负载（1 分钟）", "runnable tasks": "可运行任务", "memory": "内存", "swap": "交换", "dirty pages": "脏页", "CPU limit": "CPU 限额",
		"CPU time": "CPU 时间", "throttled": "被限流时间", "tasks": "任务数", "throttled periods": "被限流周期", "OOM kills": "OOM 次数",
		"pressure: CPU": "压力：CPU", "pressure: memory": "压力：内存", "pressure: memory, all": "压力：内存（全部）", "pressure: I/O": "压力：I/O", "pressure: I/O, all": "压力：I/O（全部）",
	}[text]; ok && lang == "zh" {
		return zh
	}
	return text
}
