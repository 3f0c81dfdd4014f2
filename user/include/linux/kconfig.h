/* SPDX-License-Identifier: GPL-2.0-only */
/* Included before anything else: the configuration of this kernel, as it were */
#ifndef USER_LINUX_KCONFIG_H
#define USER_LINUX_KCONFIG_H

#ifdef __LP64__
#define CONFIG_64BIT		1
#define BITS_PER_LONG		64
#else
#define BITS_PER_LONG		32
#endif
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define CONFIG_CPU_BIG_ENDIAN	1
#endif
#define CONFIG_PREEMPT_COUNT	1	/* spinlocks are counted */
#define CONFIG_HAVE_EFFICIENT_UNALIGNED_ACCESS 1	/* for siphash() */

/* What Kbuild.compat finds in a current kernel */
#define CHM_HAS_hex2bin
#define CHM_HAS_hrtimer_setup
#define CHM_HAS_system_dfl_wq

#define KBUILD_MODNAME		"chm"

/* As gcc tells */
#ifdef __has_feature
#if __has_feature(thread_sanitizer)
#define __SANITIZE_THREAD__	1
#endif
#endif

/* 1 if @option is defined as 1, else 0: where it is, there is a comma more. */
#define IS_ENABLED(option)	__enabled_if(option)
#define __enabled_if(value)	__enabled_as(__ENABLED_##value)
#define __ENABLED_1		0,
#define __enabled_as(comma)	__enabled_second(comma 1, 0, 0)
#define __enabled_second(first, second, ...)	second

#endif
