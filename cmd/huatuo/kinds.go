package main

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"huatuo/internal/kern/packetfilter"
	"huatuo/internal/probe"
	"huatuo/internal/probes"
	sig "huatuo/internal/signal"
)

// shortNames are words for kinds of event that belong together.
var shortNames = map[string][]string{
	"drops":       {"packet_drop"},
	"retransmits": {"tcp_retransmit"},
	"resets":      {"tcp_reset"},
	"connects":    {"connect_failure", "listen_overflow"},
	"dns":         {"dns_failure"},
	"io":          {"io_stall", "io_error"},
	"fs":          {"fs_error", "readonly_remount"},
	"sched":       {"sched_stall"},
	"softirq":     {"softirq_stall"},
	"locks":       {"lock_contention"},
	"reclaim":     {"direct_reclaim_stall", "compaction_stall"},
	"faults":      {"page_fault_stall"},
	"oom":         {"oom_kill"},
	"exec":        {"process_exec"},
	"crash":       {"process_crash"},
	"hung":        {"hung_task"},
	"lockups":     {"soft_lockup", "hard_lockup", "workqueue_lockup", "rcu_stall"},
	"hardware":    {"hardware_error"},
}

// eventKinds lists the kinds of event that there are.
func eventKinds() []string {
	var out []string
	for _, s := range probes.All() {
		out = append(out, kindsOf(s)...)
	}
	sort.Strings(out)
	return out
}

func kindsOf(s probe.Spec) []string {
	var out []string
	for _, e := range s.Emits {
		if e.Kind == sig.Event {
			out = append(out, e.Name)
		}
	}
	return out
}

// shortNameList is for the help: "drops (packet_drop), …".
func shortNameList() string {
	var out []string
	for name, kinds := range shortNames {
		out = append(out, name+" ("+strings.Join(kinds, ", ")+")")
	}
	sort.Strings(out)
	return strings.Join(out, ", ")
}

// namedKinds returns the kinds that arguments name, short or whole, each once.
func namedKinds(args []string) ([]string, error) {
	all := eventKinds()
	var out []string
	for _, a := range args {
		kinds := shortNames[a]
		if slices.Contains(all, a) {
			kinds = []string{a}
		}
		if kinds == nil {
			return nil, errUsage{fmt.Errorf("no event %q; the kinds are: %s; and for short: %s", a, strings.Join(all, ", "), shortNameList())}
		}
		for _, k := range kinds {
			if !slices.Contains(out, k) {
				out = append(out, k)
			}
		}
	}
	return out, nil
}

// withFilter returns the kinds to watch with a packet filter, those that take
// one when none is named, and the options that set it.
func withFilter(kinds []string, filter string) (watched, options []string, err error) {
	if filter == "" {
		return kinds, nil, nil
	}
	if _, err := packetfilter.Compile(filter); err != nil {
		return nil, nil, errUsage{fmt.Errorf("--filter: %w", err)}
	}
	var able []string
	for _, s := range probes.All() {
		if !s.TakesFilter() {
			continue
		}
		able = append(able, kindsOf(s)...)
		if len(kinds) == 0 || slices.ContainsFunc(kindsOf(s), func(k string) bool { return slices.Contains(kinds, k) }) {
			options = append(options, "probes."+s.Name+".filter="+filter)
		}
	}
	for _, k := range kinds {
		if !slices.Contains(able, k) {
			return nil, nil, errUsage{fmt.Errorf("--filter: %s takes no packet filter; these do: %s", k, strings.Join(able, ", "))}
		}
	}
	if len(kinds) == 0 {
		kinds = able
	}
	return kinds, options, nil
}
