/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Attributes, and accesses to shared memory.  The latter are atomics of C11, which
 * ThreadSanitizer understands, and for x86 compile to what the kernel's are.
 */
#ifndef USER_LINUX_COMPILER_H
#define USER_LINUX_COMPILER_H

#include <assert.h>
#include <linux/types.h>

#define likely(x)		__builtin_expect(!!(x), 1)
#define unlikely(x)		__builtin_expect(!!(x), 0)
#define __aligned(n)		__attribute__((aligned(n)))
#define __maybe_unused		__attribute__((unused))
#define __must_check		__attribute__((warn_unused_result))
#define __used			__attribute__((used))
#define __noreturn		__attribute__((noreturn))
#define __printf(fmt, first)	__attribute__((format(printf, fmt, first)))
#define fallthrough		__attribute__((fallthrough))
#define noinline		__attribute__((noinline))
#define __acquire(lock)		((void)0)
#define __release(lock)		((void)0)
#define __exit
#define __force
#define __init
#define __rcu
#define __uninitialized
#define __user

#define __same_type(a, b)	__builtin_types_compatible_p(typeof(a), typeof(b))
#define sizeof_field(type, field)	sizeof(((type *)0)->field)

/* Inline functions are specialised, and dead calls removed, if the compiler tries. */
#define BUILD_BUG_ON_MSG(cond, msg) __build_bug(cond, msg, __COUNTER__)
#define __build_bug(cond, msg, n) __build_bug_named(cond, msg, n)
#ifdef __OPTIMIZE__
#define __build_bug_named(cond, msg, n) do {				\
	extern void __build_bug_##n(void) __attribute__((error(msg)));	\
									\
	if (cond)							\
		__build_bug_##n();					\
} while (0)
#else
#define __build_bug_named(cond, msg, n) ((void)(cond))
#endif

#define READ_ONCE(x)		__atomic_load_n(&(x), __ATOMIC_RELAXED)
#define WRITE_ONCE(x, value)	__atomic_store_n(&(x), value, __ATOMIC_RELAXED)
#define smp_load_acquire(p)	__atomic_load_n(p, __ATOMIC_ACQUIRE)
#define smp_store_release(p, value) __atomic_store_n(p, value, __ATOMIC_RELEASE)
#define smp_mb()		__atomic_thread_fence(__ATOMIC_SEQ_CST)
#define smp_rmb()		__atomic_thread_fence(__ATOMIC_ACQUIRE)
#define smp_wmb()		__atomic_thread_fence(__ATOMIC_RELEASE)
#define barrier()		({ asm volatile("" ::: "memory"); })

#endif
