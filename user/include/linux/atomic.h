/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef USER_LINUX_ATOMIC_H
#define USER_LINUX_ATOMIC_H

#include <linux/compiler.h>

static inline int atomic_inc_return(atomic_t *v)
{
	return __atomic_add_fetch(&v->counter, 1, __ATOMIC_SEQ_CST);
}

static inline long atomic_long_read(const atomic_long_t *v)
{
	return READ_ONCE(v->counter);
}

static inline void atomic_long_add(long n, atomic_long_t *v)
{
	__atomic_fetch_add(&v->counter, n, __ATOMIC_RELAXED);
}

static inline long atomic_long_xchg(atomic_long_t *v, long n)
{
	return __atomic_exchange_n(&v->counter, n, __ATOMIC_SEQ_CST);
}

#endif
