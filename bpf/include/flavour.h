/* SPDX-License-Identifier: GPL-2.0 */
/*
 * flavour.h - what differs between the two objects that one source makes.
 *
 * Kernels before 5.5 or so do not take the modern object: no constants in
 * read-only maps, no bounded loops, no mapped arrays, 4,096 instructions a
 * program. For them each probe is compiled once more, with HT_LEGACY, and the
 * loader takes the flavour that suits (docs/adr/0006-legacy-flavour.md).
 *
 * A probe's source keeps to these, and then serves both:
 * - constants by HT_CONST() and HT_GET();
 * - hooks by the macros of hook.h: the legacy object has the raw_tp programs;
 * - no loops but unrolled ones;
 * - histograms by hist.h, maps that user space maps with HT_MMAPABLE.
 */
#pragma once

/*
 * HT_CONST() - a number that user space gives before the load, and its default.
 *
 * The modern flavour has it in a read-only map. In the legacy one the variable
 * only tells the loader name, type and default: no program reads it. HT_GET()
 * leaves an instruction that loads the symbol ht_const_NAME, which nobody
 * defines, and the loader writes the value there (load.InlineConstants). Either
 * way the verifier sees a constant and walks only the branches that it leaves.
 */
#ifdef HT_LEGACY
#define HT_CONST(type, name, value) const volatile type name SEC(".rodata.legacy") = (value)
#define HT_GET(name)                                                                                                   \
	({                                                                                                             \
		u64 __v;                                                                                               \
		asm("%0 = ht_const_" #name " ll" : "=r"(__v));                                                         \
		(typeof(name))__v;                                                                                     \
	})
#define HT_MMAPABLE 0
#else
#define HT_CONST(type, name, value) const volatile type name = (value)
#define HT_GET(name) (name)
#define HT_MMAPABLE BPF_F_MMAPABLE
#endif
