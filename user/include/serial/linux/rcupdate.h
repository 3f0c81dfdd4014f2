/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * RCU for a program of one thread, in ../../../serial.c.  A grace period ends when the
 * program says so, or has to wait for it.
 */
#ifndef USER_SERIAL_RCUPDATE_H
#define USER_SERIAL_RCUPDATE_H

#include <linux/kernel.h>
#include <linux/workqueue.h>

static inline void rcu_read_lock(void)
{
	current->rcu_depth++;
}

static inline void rcu_read_unlock(void)
{
	current->rcu_depth--;
	cond_resched();
}

#define rcu_preempt_depth()		(current->rcu_depth)
#define rcu_read_lock_any_held()	(current->rcu_depth > 0)
#define RCU_LOCKDEP_WARN(c, s)	do { } while (0 && (c))

#define rcu_dereference(p)		__atomic_load_n(&(p), __ATOMIC_CONSUME)
#define rcu_dereference_check(p, cond)	({ assert(cond); rcu_dereference(p); })
#define rcu_dereference_protected(p, cond)	(p)
#define rcu_assign_pointer(p, value)	smp_store_release(&(p), value)
#define RCU_INIT_POINTER(p, value)	WRITE_ONCE(p, value)

void synchronize_rcu(void);
unsigned long get_state_synchronize_rcu(void);
bool poll_state_synchronize_rcu(unsigned long cookie);
#define get_completed_synchronize_rcu()	1UL
#define rcu_barrier()			((void)0)

#endif
