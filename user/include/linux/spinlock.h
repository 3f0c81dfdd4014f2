/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Spinlocks as large as the kernel's, since struct chm has to be; those of pthreads
 * cannot be initialised statically.  The holder may lose its CPU, so waiters give
 * theirs away.  There are no interrupts: what turns them off does nothing.
 */
#ifndef USER_LINUX_SPINLOCK_H
#define USER_LINUX_SPINLOCK_H

#include <pthread.h>

#include <linux/kernel.h>

typedef struct { int held; } spinlock_t;
typedef struct { int held; } raw_spinlock_t;
typedef struct { int held; } rwlock_t;

#define __SPIN_LOCK_UNLOCKED(name)	{ 0 }

static inline void spin_lock_init(spinlock_t *lock)
{
	lock->held = 0;
}

static inline void spin_lock(spinlock_t *lock)
{
	preempt_count()++;
	while (__atomic_exchange_n(&lock->held, 1, __ATOMIC_ACQUIRE))
		cpu_relax();
}

static inline void spin_unlock(spinlock_t *lock)
{
	__atomic_store_n(&lock->held, 0, __ATOMIC_RELEASE);
	preempt_count()--;
	cond_resched();
}

#define local_irq_save(flags)		((void)((flags) = 0))
#define local_irq_restore(flags)	((void)(flags))
#define irqs_disabled()			false
#define spin_lock_irqsave(lock, flags)	\
	do { local_irq_save(flags); spin_lock(lock); } while (0)
#define spin_unlock_irqrestore(lock, flags)	\
	do { spin_unlock(lock); local_irq_restore(flags); } while (0)

/* === Mutexes ============================================================= */

struct mutex {
	pthread_mutex_t	lock;
};

#define DEFINE_MUTEX(name)	struct mutex name = { PTHREAD_MUTEX_INITIALIZER }
#define mutex_init(m)		pthread_mutex_init(&(m)->lock, NULL)
#define mutex_destroy(m)	pthread_mutex_destroy(&(m)->lock)
#define mutex_lock(m)		({ might_sleep(); pthread_mutex_lock(&(m)->lock); })
#define mutex_unlock(m)		pthread_mutex_unlock(&(m)->lock)

/* === Lockdep ============================================================= */

struct lock_class_key {
};

#define lockdep_assert_held(lock)				((void)(lock))
#define lockdep_is_held(lock)					true
#define lockdep_set_class_and_name(lock, key, name)		((void)(key))

#endif
