/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Workqueues for a program of one thread, in ../../../serial.c.  Who waits runs the
 * work that is due, as if others did so meanwhile.
 */
#ifndef USER_SERIAL_WORKQUEUE_H
#define USER_SERIAL_WORKQUEUE_H

#include <linux/work.h>

/* === Wait queues ========================================================= */

/* Who waits looks at the condition each time that something has happened. */
typedef struct wait_queue_head {
} wait_queue_head_t;

#define __WAIT_QUEUE_HEAD_INITIALIZER(name)	{ }

extern unsigned long works_done;

bool wait_for_others(u64 until);	/* ns; false: it is that late */

/* Work may be done while the condition is looked at: then look once more. */
#define wait_until(cond, ns) do {					\
	u64 __until = (ns);						\
	unsigned long __before;						\
									\
	might_sleep();							\
	do {								\
		__before = works_done;					\
		if (cond)						\
			break;						\
	} while (works_done != __before || wait_for_others(__until));	\
} while (0)

#define wake_up_all(wq)			((void)(wq))
#define wait_event(wq, cond)		wait_until(cond, U64_MAX)
#define wake_up_var(var)		((void)(var))
#define wait_var_event(var, cond)	wait_until(cond, U64_MAX)
#define wait_var_event_timeout(var, cond, timeout)			\
	wait_until(cond, ktime_get_ns() + (timeout) * (NSEC_PER_SEC / HZ))

#endif
