package load

// HookState is the fate of one hook of a probe.
type HookState struct {
	Hook    string `json:"hook" doc:"what it hooks: sched_switch, block_rq_complete, …"`
	By      string `json:"by,omitempty" doc:"how: tp_btf, raw_tp, tracepoint, kprobe, fentry, perf_event; empty when not attached"`
	Program string `json:"program,omitempty" doc:"BPF program name"`
	ID      uint32 `json:"id,omitempty" doc:"BPF program id, for bpftool"`
	Reason  string `json:"reason,omitempty" doc:"why it is not attached, or why a better way was not taken"`
}
