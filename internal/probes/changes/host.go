package changes

import (
	"path/filepath"
	"strings"

	"huatuo/internal/kern/sysfs"
)

// settings below /sys that no sysctl has, and that make a host another one.
var hostSettings = []struct{ file, setting string }{
	{"devices/system/cpu/online", "cpu/online"},
	{"devices/system/cpu/smt/control", "cpu/smt/control"},
	{"devices/system/cpu/cpufreq/policy0/scaling_governor", "cpufreq/scaling_governor"},
	{"devices/system/clocksource/clocksource0/current_clocksource", "clocksource"},
	{"devices/system/memory/auto_online_blocks", "memory/auto_online_blocks"},
	{"kernel/mm/transparent_hugepage/enabled", "transparent_hugepage/enabled"},
	{"kernel/mm/transparent_hugepage/defrag", "transparent_hugepage/defrag"},
	{"kernel/mm/ksm/run", "ksm/run"},
}

// host compares those.
type host struct {
	dir    string
	values []string
	looked bool
}

func newHost(root string) *host {
	return &host{dir: filepath.Join(root, "sys"), values: make([]string, len(hostSettings))}
}

func (h *host) look() (out []change) {
	for i, s := range hostSettings {
		text, ok := sysfs.Text(h.dir, s.file)
		if !ok {
			continue
		}
		is, was := chosen(text), h.values[i]
		h.values[i] = is
		if h.looked && was != "" && is != was {
			out = append(out, change{what: "host", setting: s.setting, old: was, new: is, title: s.setting})
		}
	}
	h.looked = true
	return out
}

// chosen takes "madvise" out of "always [madvise] never".
func chosen(s string) string {
	if _, rest, ok := strings.Cut(s, "["); ok {
		if in, _, ok := strings.Cut(rest, "]"); ok {
			return in
		}
	}
	return s
}
