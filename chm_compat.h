/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * chm is written for the current kernel.  This supplies what older ones lack;
 * Kbuild.compat looks for what the preprocessor can't see.  A kernel that has
 * chm in its tree needs neither.
 */
#ifndef CHM_COMPAT_H
#define CHM_COMPAT_H

#include <linux/hrtimer.h>
#include <linux/kernel.h>
#include <linux/overflow.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

/* Older kernels have it in <linux/kernel.h>. */
#ifdef CHM_HAS_hex2bin
#include <linux/hex.h>
#endif

/* The new name of system_unbound_wq, whose use the kernel reports */
#ifndef CHM_HAS_system_dfl_wq
#define system_dfl_wq system_unbound_wq
#endif

/* In place of hrtimer_init() */
#ifndef CHM_HAS_hrtimer_setup
static inline void
hrtimer_setup(struct hrtimer *timer,
	      enum hrtimer_restart (*function)(struct hrtimer *timer),
	      clockid_t clock, enum hrtimer_mode mode)
{
	hrtimer_init(timer, clock, mode);
	timer->function = function;
}
#endif

/* Distributions' kernels have no KUnit, and old ones lack these headers. */
#if IS_ENABLED(CONFIG_KUNIT)
#include <kunit/static_stub.h>
#include <kunit/visibility.h>
#else
#define KUNIT_STATIC_STUB_REDIRECT(args...) do { } while (0)
#define VISIBLE_IF_KUNIT static
#endif

/* In place of allocations that are told a sizeof() */
#ifndef kzalloc_obj
#define kzalloc_obj(type, gfp) kzalloc(sizeof(type), gfp)
#define kvzalloc_objs(type, n, gfp) kvcalloc(n, sizeof(type), gfp)
#define kzalloc_flex(type, array, n, gfp) \
	kzalloc(struct_size_t(typeof(type), array, n), gfp)
#define kvzalloc_flex(type, array, n, gfp) \
	kvzalloc(struct_size_t(typeof(type), array, n), gfp)
#endif

#endif /* CHM_COMPAT_H */
