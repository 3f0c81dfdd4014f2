/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * All that is not worth a header of its own.  The Makefile lets the headers that chm
 * includes, and that are not here, stand for this one.
 */
#ifndef USER_LINUX_KERNEL_H
#define USER_LINUX_KERNEL_H

#include <ctype.h>
#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <linux/bitops.h>
#include <linux/compiler.h>
#include <linux/types.h>

/* === Numbers ============================================================= */

#define U8_MAX		((u8)~0U)
#define U16_MAX		((u16)~0U)
#define U32_MAX		((u32)~0U)
#define U64_MAX		(~0ULL)
#define S64_MAX		((s64)(U64_MAX >> 1))
#define SZ_32K		0x00008000
#define SZ_256K		0x00040000
#define SZ_1M		0x00100000
#define SZ_4M		0x00400000
#define NSEC_PER_USEC	1000L
#define NSEC_PER_MSEC	1000000L
#define NSEC_PER_SEC	1000000000L

#define min(a, b) ({							\
	typeof(a) __a = (a);						\
	typeof(b) __b = (b);						\
									\
	__a < __b ? __a : __b; })
#define max(a, b) ({							\
	typeof(a) __a = (a);						\
	typeof(b) __b = (b);						\
									\
	__a > __b ? __a : __b; })
#define min3(a, b, c)		min(min(a, b), c)
#define max3(a, b, c)		max(max(a, b), c)
#define clamp(x, low, high)	min(max(x, low), high)
#define min_t(type, a, b)	min((type)(a), (type)(b))
#define max_t(type, a, b)	max((type)(a), (type)(b))
#define clamp_t(type, x, low, high)	clamp((type)(x), (type)(low), (type)(high))

#define ALIGN(x, to)		(((x) + (to) - 1) & ~((typeof(x))(to) - 1))
#define round_up(n, to)		ALIGN(n, to)
#define IS_ALIGNED(x, to)	(!((x) & ((typeof(x))(to) - 1)))
#define ARRAY_SIZE(array)	(sizeof(array) / sizeof((array)[0]))
#define container_of(p, type, field)					\
	((type *)((char *)(p) - offsetof(type, field)))

#define div_u64(a, b)		((u64)(a) / (u32)(b))
#define div64_u64(a, b)		((u64)(a) / (u64)(b))
#define div64_ul(a, b)		((u64)(a) / (unsigned long)(b))

#define le64_to_cpu(x)		((u64)le64toh(x))
#define le32_to_cpu(x)		((u32)le32toh(x))
#define le32_to_cpup(p)		le32_to_cpu(*(p))

#define array_size(n, size)	((size_t)(n) * (size))
#define struct_size_t(type, array, n)					\
	(sizeof(type) + (n) * sizeof(((type *)0)->array[0]))

/* === Errors and messages ================================================= */

#define ERR_PTR(error)		((void *)(long)(error))
#define PTR_ERR(p)		((long)(p))
#define IS_ERR(p)		((unsigned long)(p) >= -4095UL)
#define IS_ERR_OR_NULL(p)	(!(p) || IS_ERR(p))
#define PTR_ERR_OR_ZERO(p)	((int)(IS_ERR(p) ? PTR_ERR(p) : 0))

#ifndef pr_fmt
#define pr_fmt(fmt)		fmt
#endif
/* %ph, %pS and the like are not known here: what is behind %p is printed as it is. */
#define pr_warn(fmt, ...)	fprintf(stderr, pr_fmt(fmt), ##__VA_ARGS__)
#define pr_warn_ratelimited	pr_warn
#define pr_err_ratelimited	pr_warn

/* As with panic_on_warn */
#define WARN(cond, fmt, ...) ({						\
	bool __warn = (cond);						\
									\
	if (unlikely(__warn)) {						\
		fprintf(stderr, "WARNING: %s:%d: " fmt "\n",		\
			__FILE__, __LINE__, ##__VA_ARGS__);		\
		abort();						\
	}								\
	__warn; })
#define WARN_ONCE		WARN
#define WARN_ON_ONCE(cond)	WARN(cond, "%s", #cond)

/* === Strings ============================================================= */

static inline ssize_t strscpy(char *to, const char *from, size_t size)
{
	size_t len = strnlen(from, size - 1);

	memcpy(to, from, len);
	to[len] = '\0';
	return from[len] ? -E2BIG : (ssize_t)len;
}

/* === Time ================================================================ */

#define HZ		1000

#ifdef CONFIG_SERIAL
u64 ktime_get_ns(void);
#else
static inline u64 ktime_get_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}
#endif

static inline s64 ktime_get_seconds(void)
{
	return div_u64(ktime_get_ns(), NSEC_PER_SEC);
}

/* === Machine ============================================================= */

#define L1_CACHE_BYTES	64
#define PAGE_SHIFT	12
#define PAGE_SIZE	BIT(PAGE_SHIFT)

#define prefetch(p)	__builtin_prefetch(p)
#define prefetchw(p)	__builtin_prefetch(p, 1)

/* Who is waited for may have no CPU. */
#define cpu_relax()	sched_yield()

u64 get_random_u64(void);
long si_mem_available(void);	/* pages */

/* For KCSAN.  ThreadSanitizer sees for itself. */
#define ASSERT_EXCLUSIVE_WRITER(x)		((void)0)
#define __kcsan_check_access(p, size, type)	((void)0)

/* === Threads ============================================================= */

struct task_struct {
	int	preempt_count;	/* spinlocks held */
#ifdef CONFIG_SERIAL
	int	rcu_depth;
#endif
};

/* That of the thread: a pointer to it */
extern __thread struct task_struct current[1];

#define preempt_count()		(current->preempt_count)
#define in_nmi()		false
#ifdef CONFIG_SERIAL
void cond_resched(void);	/* others may have their turn */
#else
#define cond_resched()		((void)0)
#endif
#define fatal_signal_pending(task)	false
#define SYSTEM_BOOTING		0
#define system_state		(SYSTEM_BOOTING + 1)

void might_sleep(void);

/* === Modules ============================================================= */

/* The program loads and unloads its one itself. */
#define THIS_MODULE		NULL
#define EXPORT_SYMBOL(name)
#define EXPORT_SYMBOL_GPL(name)
#define MODULE_DESCRIPTION(text)
#define MODULE_LICENSE(text)
#define MODULE_VERSION(text)
#define MODULE_INFO(tag, text)
#define __MODULE_INFO_PREFIX	""

int load_module(void);
void unload_module(void);

#define subsys_initcall(init)	int load_module(void) { return init(); }
#define module_exit(exit)	void unload_module(void) { exit(); }

#endif
