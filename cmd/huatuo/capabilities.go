package main

import (
	"fmt"
	"os"
	"strings"
)

// capability is one that some part of the agent uses.
type capability struct {
	bit     int // in include/uapi/linux/capability.h
	name    string
	needed  bool   // of the set that an ordinary user should be given
	without string // what is lost; docs/guide/privileges.md says the same
}

// sysAdmin is the bit of CAP_SYS_ADMIN, which stands for those of stoodFor.
const sysAdmin = 21

// stoodFor tells for which capabilities the kernel takes CAP_SYS_ADMIN as well.
func (c capability) stoodFor() bool {
	return c.name == "bpf" || c.name == "perfmon" || c.name == "checkpoint_restore"
}

// allCapabilities lists what the agent can make use of, the needed ones first.
func allCapabilities() []capability {
	return []capability{
		{39, "bpf", true, "no probe that needs BPF runs"},
		{38, "perfmon", true, "no probe that needs BPF runs"},
		{19, "sys_ptrace", true, "processes of other users have no executable, and their stacks no function names"},
		{34, "syslog", true, "kernel stacks have no function names, OOM kills and hung tasks lack the kernel's own report, and there are no events of lockups, warnings and bugs of the kernel"},
		{2, "dac_read_search", true, "on cgroup v1 hosts, dropped packets, retransmissions and block I/O are not told by workload; files that only their owner may read give no function names"},
		{40, "checkpoint_restore", false, "programs whose file was deleted or replaced since they started have no function names"},
		{1, "dac_override", false, "containers have no names where the socket of their runtime is open to root alone"},
		{sysAdmin, "sys_admin", false, "what the agent's own BPF programs cost is not measured; before Linux 5.8 no probe that needs BPF runs"},
		{24, "sys_resource", false, "before Linux 5.11 the limit of locked memory may be too low for BPF maps"},
	}
}

// capabilities splits allCapabilities into those that this process has and the
// others.
func capabilities() (have, lack []capability) {
	eff, err := effective()
	if err != nil {
		return nil, nil
	}
	for _, c := range allCapabilities() {
		if eff&(1<<c.bit) != 0 || c.stoodFor() && eff&(1<<sysAdmin) != 0 {
			have = append(have, c)
		} else {
			lack = append(lack, c)
		}
	}
	return have, lack
}

func effective() (set uint64, err error) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "CapEff:"); ok {
			_, err := fmt.Sscanf(strings.TrimSpace(v), "%x", &set)
			return set, err
		}
	}
	return 0, fmt.Errorf("no CapEff in /proc/self/status")
}

func names(cs []capability) []string {
	out := []string{}
	for _, c := range cs {
		out = append(out, c.name)
	}
	return out
}
