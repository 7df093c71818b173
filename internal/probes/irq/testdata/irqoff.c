// SPDX-License-Identifier: GPL-2.0
/* irqoff.c - a program that keeps interrupts off on the CPU that runs it (6.14). */
#include "kernel.h"
#include <bpf/bpf_helpers.h>

extern void bpf_local_irq_save(unsigned long *flags) __ksym;
extern void bpf_local_irq_restore(unsigned long *flags) __ksym;

struct irqoff_args {
	u64 ns;
};

static long spin(u64 i, u64 *end) { return bpf_ktime_get_ns() > *end; }

SEC("syscall") int irqoff(struct irqoff_args *a)
{
	u64 end = bpf_ktime_get_ns() + a->ns;
	unsigned long flags;

	bpf_local_irq_save(&flags);
	bpf_loop(1 << 22, spin, &end, 0);
	bpf_local_irq_restore(&flags);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
