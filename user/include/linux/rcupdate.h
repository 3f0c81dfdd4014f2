/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * RCU is liburcu's flavour memb: readers store to a variable of their thread, without
 * a barrier where there is sys_membarrier().  Threads that read must be registered:
 * urcu_memb_register_thread().
 *
 * Grace periods are counted here, because liburcu can only be polled from 0.14 on.
 */
#ifndef USER_LINUX_RCUPDATE_H
#define USER_LINUX_RCUPDATE_H

/*
 * Inline, other than for ThreadSanitizer, which would report its accesses.  That is told
 * what it does not see: that a grace period waits for readers.
 */
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#else
#define _LGPL_SOURCE
#define __tsan_acquire(p)	((void)(p))
#define __tsan_release(p)	((void)(p))
#endif

#include <urcu/urcu-memb.h>

#include <linux/kernel.h>
#include <linux/workqueue.h>

extern char rcu_readers;	/* stands for them */

static __always_inline void rcu_read_lock(void)
{
	urcu_memb_read_lock();
}

static __always_inline void rcu_read_unlock(void)
{
	__tsan_release(&rcu_readers);
	urcu_memb_read_unlock();
}

#define rcu_preempt_depth()		urcu_memb_read_ongoing()
#define rcu_read_lock_any_held()	urcu_memb_read_ongoing()
#define RCU_LOCKDEP_WARN(c, s)		do { } while (0 && (c))

#undef rcu_dereference
#undef rcu_assign_pointer
#define rcu_dereference(p)		__atomic_load_n(&(p), __ATOMIC_CONSUME)
#define rcu_dereference_check(p, cond)	rcu_dereference(p)
#define rcu_dereference_protected(p, cond)	(p)
#define rcu_assign_pointer(p, value)	smp_store_release(&(p), value)
#define RCU_INIT_POINTER(p, value)	WRITE_ONCE(p, value)

void synchronize_rcu(void);

/* A cookie: the number that the count has to reach; or 1, which it never has */
unsigned long get_state_synchronize_rcu(void);
bool poll_state_synchronize_rcu(unsigned long cookie);
#define get_completed_synchronize_rcu()	1UL

/* For rcu_work, which destroy_workqueue() waits for */
#define rcu_barrier()			((void)0)

#endif
