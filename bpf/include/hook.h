/* SPDX-License-Identifier: GPL-2.0 */
/*
 * hook.h - one body, several attachments.
 *
 * HT_TPn() makes two programs of one body: NAME_btf (tp_btf, direct loads) and
 * NAME_raw (raw_tp, probe reads), in the legacy flavour the second only. The
 * loader takes the first that the kernel accepts. The body gets `btf`, a
 * constant, as its second argument and reads kernel memory by HT_READ(btf, ptr,
 * member), which costs one load in the tp_btf program and a helper call in the
 * other.
 *
 *	static __always_inline int on_exit(void *ctx, bool btf, struct task_struct *p)
 *	{
 *		...
 *	}
 *	HT_TP1(sched_process_exit, on_exit, struct task_struct *)
 */
#pragma once

#define HT_READ(btf, p, member)                                                                                        \
	({                                                                                                             \
		typeof((p)->member) __v;                                                                               \
		if (btf)                                                                                               \
			__v = (p)->member;                                                                             \
		else                                                                                                   \
			bpf_core_read(&__v, sizeof(__v), &(p)->member);                                                \
		__v;                                                                                                   \
	})

/*
 * HT_TP_FORM() is HT_TPn() for one form of a tracepoint whose arguments are not
 * the same in all kernels: the programs are @name with _btf and _raw, and the
 * further arguments of the body are expressions of c, the tracepoint's
 * arguments as u64. User space chooses the form by the kernel's BTF
 * (load.Kernel.TracepointArgs): the verifier would take a wrong one as well.
 */
#ifdef HT_LEGACY
#define HT_TP_FORM(name, tp, body, ...)                                                                                \
	SEC("raw_tp/" #tp) int name##_raw(u64 *c) { return body(c, false, __VA_ARGS__); }
#else
#define HT_TP_FORM(name, tp, body, ...)                                                                                \
	SEC("tp_btf/" #tp) int name##_btf(u64 *c) { return body(c, true, __VA_ARGS__); }                               \
	SEC("raw_tp/" #tp) int name##_raw(u64 *c) { return body(c, false, __VA_ARGS__); }
#endif

#define HT_TP1(tp, body, t1) HT_TP_FORM(tp, tp, body, (t1)c[0])
#define HT_TP2(tp, body, t1, t2) HT_TP_FORM(tp, tp, body, (t1)c[0], (t2)c[1])
#define HT_TP3(tp, body, t1, t2, t3) HT_TP_FORM(tp, tp, body, (t1)c[0], (t2)c[1], (t3)c[2])
