//go:build ignore
// SPDX-License-Identifier: GPL-2.0
/*
 * ras - what the hardware and its firmware report: memory, PCIe, processors.
 *
 * All are counted, by what and where; events of corrected errors, which come in
 * storms, have a rate limit of their own. What is read is fixed by firmware
 * (UEFI's CPER) or by the processor's manuals, so no type of the kernel is needed.
 */
#include "huatuo.h"

HT_CONST(u64, hardware_error_period_ns, 1000000000);
HT_CONST(u64, hardware_error_burst, 10);
HT_CONST(u64, corrected_period_ns, 60000000000);
HT_CONST(u64, corrected_burst, 5);
HT_CONST(bool, arm_tells_severity, false); /* arm_event has 9 arguments, see core_fixes.h */
HT_CONST(bool, aer_tells_header, false);   /* aer_event has 5 */

enum hw_kind { HW_MEMORY, HW_PCIE, HW_MCE, HW_ARM, HW_FIRMWARE, HW_MEMLOG, HW_PAGE, HW_KINDS };

/* The numbers of enum hw_event_mc_err_type. */
enum hw_severity { HW_CORRECTED, HW_UNCORRECTED, HW_DEFERRED, HW_FATAL, HW_INFO, HW_SEVERITIES };

/* What begins each event. */
struct hw_head {
	u64 ts;
	u64 suppressed;
	u32 kind;
	u32 severity;
	u32 count;
	u32 cpu; /* on which it was told */
};

struct memory_wire {
	struct hw_head head;
	u64 address;
	u64 syndrome;
	s32 layers[3];
	u32 grain_bits;
	u32 controller;
	u8 message[64];
	u8 label[64];
	u8 detail[204];
};
HT_WIRE(memory_wire);

struct pcie_wire {
	struct hw_head head;
	u32 status;
	u32 has_header;
	u32 header[4];
	u8 device[32];
};
HT_WIRE(pcie_wire);

/* The first 88 bytes of struct mce (arch/x86/include/uapi/asm/mce.h): since v2.6.31, only ever added to. */
struct mce_record {
	u64 status;
	u64 misc;
	u64 addr;
	u64 mcgstatus;
	u64 ip;
	u64 tsc;
	u64 time;
	u8 cpuvendor;
	u8 inject_flags;
	u8 severity;
	u8 pad;
	u32 cpuid;
	u8 cs;
	u8 bank;
	u8 cpu;
	u8 finished;
	u32 extcpu;
	u32 socketid;
	u32 apicid;
	u64 mcgcap;
};

struct mce_wire {
	struct hw_head head;
	struct mce_record m;
};
HT_WIRE(mce_wire);

/* One section of a record that firmware wrote, or its beginning. */
struct section_wire {
	struct hw_head head;
	u8 type[16]; /* GUIDs */
	u8 fru[16];
	u8 fru_text[24];
	u32 len;
	u32 pad;
	u8 data[128];
};
HT_WIRE(section_wire);

struct page_wire {
	struct hw_head head;
	u64 pfn;
	u32 type;
	s32 result;
};
HT_WIRE(page_wire);

struct count_key {
	u32 kind;
	u32 severity;
	u32 unit; /* bank, memory controller */
	u8 where[52];
};
HT_WIRE(count_key);

/* 512 places: a machine has fewer DIMMs, banks and PCIe devices that fail. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 512);
	__type(key, struct count_key);
	__type(value, u64);
} counts SEC(".maps");

/* What found no room there, by kind and severity. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, HW_KINDS *HW_SEVERITIES);
	__type(key, u32);
	__type(value, u64);
} others SEC(".maps");

static __always_inline void tally(struct count_key *k, u32 n)
{
	u64 zero = 0, *v;
	u32 i;

	v = bpf_map_lookup_elem(&counts, k);
	if (!v) {
		bpf_map_update_elem(&counts, k, &zero, BPF_NOEXIST);
		v = bpf_map_lookup_elem(&counts, k);
	}
	if (!v) {
		i = k->kind * HW_SEVERITIES + k->severity;
		v = bpf_map_lookup_elem(&others, &i);
	}
	if (v)
		__sync_fetch_and_add(v, n);
}

/* Counts, and admits an event or not: then the number of those before it that were not, else -1. */
static __always_inline s64 admit(struct count_key *k, u32 n, u64 now)
{
	tally(k, n);
	if (k->severity == HW_CORRECTED || k->severity == HW_INFO)
		return ht_admit(1, now, HT_GET(corrected_period_ns), HT_GET(corrected_burst));
	return ht_admit(0, now, HT_GET(hardware_error_period_ns), HT_GET(hardware_error_burst));
}

static __always_inline void *begin(struct count_key *k, u32 n, u64 size)
{
	u64 now = bpf_ktime_get_ns();
	s64 suppressed = admit(k, n, now);
	struct hw_head *h;

	if (suppressed < 0)
		return NULL;
	h = ht_reserve(size);
	if (!h)
		return NULL;
	__builtin_memset(h, 0, size);
	h->ts = now;
	h->suppressed = suppressed;
	h->kind = k->kind;
	h->severity = k->severity;
	h->count = n;
	h->cpu = bpf_get_smp_processor_id();
	return h;
}

/* What is worse than corrected may be the last that this machine says: user space is woken. */
static __always_inline void send(void *ctx, struct hw_head *h, u64 size)
{
	if (h->severity == HW_CORRECTED || h->severity == HW_INFO)
		ht_submit(ctx, h, size);
	else
		ht_submit_now(ctx, h, size);
}

/* ACPI's and CPER's order: recoverable, fatal, corrected, informational. */
static __always_inline u32 cper_severity(u64 sev)
{
	switch (sev & 0xff) {
	case 1:
		return HW_FATAL;
	case 2:
		return HW_CORRECTED;
	case 3:
		return HW_INFO;
	default:
		return HW_UNCORRECTED;
	}
}

static __always_inline int on_memory(void *ctx, bool btf, u64 *c)
{
	struct count_key k = { .kind = HW_MEMORY, .severity = (u32)c[0], .unit = (u8)c[4] };
	u32 n = (u32)c[3];
	struct memory_wire *e;

	if (k.severity >= HW_SEVERITIES)
		k.severity = HW_UNCORRECTED;
	if (!n || n > 0x7fffffff)
		n = 1;
	bpf_probe_read_kernel_str(k.where, sizeof(k.where), (void *)c[2]);
	e = begin(&k, n, sizeof(*e));
	if (!e)
		return 0;
	bpf_probe_read_kernel_str(e->message, sizeof(e->message), (void *)c[1]);
	bpf_probe_read_kernel_str(e->label, sizeof(e->label), (void *)c[2]);
	bpf_probe_read_kernel_str(e->detail, sizeof(e->detail), (void *)c[11]);
	e->controller = k.unit;
	e->layers[0] = (s8)c[5];
	e->layers[1] = (s8)c[6];
	e->layers[2] = (s8)c[7];
	e->address = c[8];
	e->grain_bits = (u8)c[9];
	e->syndrome = c[10];
	send(ctx, &e->head, sizeof(*e));
	return 0;
}
HT_TP_FORM(mc_event, mc_event, on_memory, c)

static __always_inline int on_pcie(void *ctx, bool btf, u64 *c)
{
	struct count_key k = { .kind = HW_PCIE,
			       .severity = cper_severity(c[2]) }; /* AER_NONFATAL, _FATAL, _CORRECTABLE */
	struct pcie_wire *e;

	bpf_probe_read_kernel_str(k.where, sizeof(k.where), (void *)c[0]);
	e = begin(&k, 1, sizeof(*e));
	if (!e)
		return 0;
	bpf_probe_read_kernel_str(e->device, sizeof(e->device), (void *)c[0]);
	e->status = (u32)c[1];
	if (HT_GET(aer_tells_header)) {
		e->has_header = (u8)c[3];
		bpf_probe_read_kernel(e->header, sizeof(e->header), (void *)c[4]);
	}
	send(ctx, &e->head, sizeof(*e));
	return 0;
}
HT_TP_FORM(aer_event, aer_event, on_pcie, c)

#define MCI_UC (1ULL << 61)
#define MCI_PCC (1ULL << 57)
#define MCI_DEFERRED (1ULL << 44) /* AMD and Hygon */

static __always_inline u32 mce_severity(struct mce_record *m)
{
	if (m->status & MCI_UC)
		return m->status & MCI_PCC ? HW_FATAL : HW_UNCORRECTED;
	if (m->status & MCI_DEFERRED && (m->cpuvendor == 2 || m->cpuvendor == 9))
		return HW_DEFERRED;
	return HW_CORRECTED;
}

/* Also since v6.13, where the argument is a struct mce_hw_err: it begins with the struct mce. */
static __always_inline int on_mce(void *ctx, bool btf, u64 *c)
{
	struct count_key k = { .kind = HW_MCE };
	struct mce_record m = {};
	struct mce_wire *e;
	u32 n;

	if (bpf_probe_read_kernel(&m, sizeof(m), (void *)c[0]))
		return 0;
	k.severity = mce_severity(&m);
	k.unit = m.bank;
	/* A bank counts corrected errors where MCG_CAP says so (MCG_CMCI_P). */
	n = m.mcgcap & (1 << 10) && !(m.status & MCI_UC) ? m.status >> 38 & 0x7fff : 1;
	if (!n)
		n = 1;
	e = begin(&k, n, sizeof(*e));
	if (!e)
		return 0;
	e->m = m;
	send(ctx, &e->head, sizeof(*e));
	return 0;
}
HT_TP_FORM(mce_record, mce_record, on_mce, c)

/* Header, and the first of the error informations that follow it. */
#define ARM_BYTES (40 + 32)
#define ARM_INFO 40
#define ARM_CORRECTED_KNOWN (1ULL << 4)
#define ARM_CORRECTED (1ULL << 26)

static __always_inline int on_arm(void *ctx, bool btf, u64 *c)
{
	struct count_key k = { .kind = HW_ARM, .severity = HW_UNCORRECTED };
	struct section_wire *e;
	u64 info = 0;

	bpf_probe_read_kernel(&info, sizeof(info), (void *)(c[0] + ARM_INFO + 8));
	if (HT_GET(arm_tells_severity))
		k.severity = cper_severity(c[7]);
	else if (info & ARM_CORRECTED_KNOWN && info & ARM_CORRECTED)
		k.severity = HW_CORRECTED;
	e = begin(&k, 1, sizeof(*e));
	if (!e)
		return 0;
	e->len = ARM_BYTES;
	bpf_probe_read_kernel(e->data, ARM_BYTES, (void *)c[0]);
	send(ctx, &e->head, sizeof(*e));
	return 0;
}
HT_TP_FORM(arm_event, arm_event, on_arm, c)

static __always_inline int on_firmware(void *ctx, bool btf, u64 *c)
{
	struct count_key k = { .kind = HW_FIRMWARE, .severity = cper_severity(c[3]) };
	struct section_wire *e;
	u32 len = (u32)c[5];
	u64 data = 0;

	/* Not c[4]: it is a u8 *, and the verifier of v5.10 takes no pointer to a number. */
	bpf_probe_read_kernel(&data, sizeof(data), c + 4);
	e = begin(&k, 1, sizeof(*e));
	if (!e)
		return 0;
	e->len = len;
	bpf_probe_read_kernel(e->type, sizeof(e->type), (void *)c[0]);
	bpf_probe_read_kernel(e->fru, sizeof(e->fru), (void *)c[1]);
	bpf_probe_read_kernel_str(e->fru_text, sizeof(e->fru_text), (void *)c[2]);
	/* No more than there is, in steps whose sizes old verifiers know. */
	if (len >= 128)
		bpf_probe_read_kernel(e->data, 128, (void *)data);
	else if (len >= 64)
		bpf_probe_read_kernel(e->data, 64, (void *)data);
	else if (len >= 16)
		bpf_probe_read_kernel(e->data, 16, (void *)data);
	send(ctx, &e->head, sizeof(*e));
	return 0;
}
HT_TP_FORM(non_standard_event, non_standard_event, on_firmware, c)

#define MEMLOG_BYTES 80 /* struct cper_sec_mem_err */

static __always_inline int on_memlog(void *ctx, bool btf, u64 *c)
{
	struct count_key k = { .kind = HW_MEMLOG, .severity = cper_severity(c[4]) };
	struct section_wire *e;

	bpf_probe_read_kernel_str(k.where, 21, (void *)c[3]);
	e = begin(&k, 1, sizeof(*e));
	if (!e)
		return 0;
	e->len = MEMLOG_BYTES;
	bpf_probe_read_kernel(e->data, MEMLOG_BYTES, (void *)c[0]);
	bpf_probe_read_kernel(e->fru, sizeof(e->fru), (void *)c[2]);
	bpf_probe_read_kernel_str(e->fru_text, 21, (void *)c[3]);
	send(ctx, &e->head, sizeof(*e));
	return 0;
}
HT_TP_FORM(extlog_mem_event, extlog_mem_event, on_memlog, c)

static __always_inline int on_page(void *ctx, bool btf, u64 *c)
{
	struct count_key k = { .kind = HW_PAGE, .severity = HW_UNCORRECTED };
	struct page_wire *e = begin(&k, 1, sizeof(*e));

	if (!e)
		return 0;
	e->pfn = c[0];
	e->type = (u32)c[1];
	e->result = (s32)c[2];
	send(ctx, &e->head, sizeof(*e));
	return 0;
}
HT_TP_FORM(memory_failure_event, memory_failure_event, on_page, c)
