/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A workqueue has a thread for each kind of work: what can run at once, what waits for
 * a grace period, and what waits for a time.  Wait queues are condition variables;
 * conditions are looked at with their mutex held, so that no wake-up is lost.
 */
#ifndef USER_LINUX_WORKQUEUE_H
#define USER_LINUX_WORKQUEUE_H

#include <pthread.h>

#include <linux/work.h>

/* === Wait queues ========================================================= */

typedef struct wait_queue_head {
	pthread_mutex_t	lock;
	pthread_cond_t	cond;
} wait_queue_head_t;

#define __WAIT_QUEUE_HEAD_INITIALIZER(name)				\
	{ PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER }

void wake_up_all(wait_queue_head_t *wq);
bool wait_until(wait_queue_head_t *wq, u64 ns);		/* false: it is that late */

#define wait_event_until(wq, cond, ns) do {				\
	might_sleep();							\
	pthread_mutex_lock(&(wq)->lock);				\
	while (!(cond) && wait_until(wq, ns))				\
		;							\
	pthread_mutex_unlock(&(wq)->lock);				\
} while (0)

#define wait_event(wq, cond)		wait_event_until(&(wq), cond, U64_MAX)

/* One for all variables */
extern wait_queue_head_t var_waiters;

#define wake_up_var(var)		((void)(var), wake_up_all(&var_waiters))
#define wait_var_event(var, cond)	wait_event(var_waiters, cond)
#define wait_var_event_timeout(var, cond, timeout)			\
	wait_event_until(&var_waiters, cond,				\
			 ktime_get_ns() + (timeout) * (NSEC_PER_SEC / HZ))

#endif
