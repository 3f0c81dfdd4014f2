/* SPDX-License-Identifier: GPL-2.0-only */
/* Of workqueues, what is the same for threads (shim.c) and for one alone (serial.c) */
#ifndef USER_LINUX_WORK_H
#define USER_LINUX_WORK_H

#include <linux/kernel.h>

struct workqueue_struct;
struct work_queue;

struct work_struct {
	void			(*func)(struct work_struct *work);
	struct list_head	entry;
	bool			pending;
	u64			due;		/* ns */
	struct work_queue	*queue;		/* shim.c: it was last in */
	bool			running;	/* serial.c, as the next one */
	unsigned long		cookie;		/* of the grace period it waits for */
};

struct rcu_work {
	struct work_struct	work;
};

struct delayed_work {
	struct work_struct	work;
};

#define __WORK_INITIALIZER(name, f)		{ .func = (f) }
#define __DELAYED_WORK_INITIALIZER(name, f, flags) { __WORK_INITIALIZER(name, f) }

#define WQ_UNBOUND	0
#define WQ_MEM_RECLAIM	0

struct workqueue_struct *alloc_workqueue(const char *name, unsigned int flags,
					 int max_active);
void destroy_workqueue(struct workqueue_struct *wq);	/* when all is done */
bool queue_work(struct workqueue_struct *wq, struct work_struct *work);
bool queue_rcu_work(struct workqueue_struct *wq, struct rcu_work *work);
bool queue_delayed_work(struct workqueue_struct *wq, struct delayed_work *work,
			unsigned long delay);
bool flush_work(struct work_struct *work);
bool cancel_delayed_work_sync(struct delayed_work *work);

/* Never needed, without interrupts */
struct irq_work {
	void	(*func)(struct irq_work *work);
};

#define IRQ_WORK_INIT(f)	{ (f) }
#define irq_work_queue(work)	((work)->func(work))
#define irq_work_sync(work)	((void)(work))

#endif
