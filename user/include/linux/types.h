/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef USER_LINUX_TYPES_H
#define USER_LINUX_TYPES_H

#include_next <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

typedef __u8	u8;
typedef __u16	u16;
typedef __u32	u32;
typedef __u64	u64;
typedef __s32	s32;
typedef __s64	s64;
typedef unsigned int gfp_t;
typedef unsigned short umode_t;

typedef struct { int counter; } atomic_t;
typedef struct { s64 counter; } atomic64_t;
#ifdef CONFIG_64BIT
typedef atomic64_t atomic_long_t;
#else
typedef atomic_t atomic_long_t;
#endif

typedef struct { atomic_t refs; } refcount_t;

struct list_head {
	struct list_head *next, *prev;
};

struct hlist_node {
	struct hlist_node *next, **pprev;
};

#endif
