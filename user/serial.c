// SPDX-License-Identifier: GPL-2.0-only
/*
 * shim.c for a program of one thread: for fuzz.c, which decides by serial.h what others
 * would do, and when.  A worker has its turn where a thread waits, and, as if it were
 * preempted, where it unlocks.
 */
#include <linux/kernel.h>
#include <linux/list.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

#include "serial.h"

struct serial serial;

/* === Machine ============================================================= */

__thread struct task_struct current[1];

/* Readers that were preempted: they go on when the worker's turn is over. */
static unsigned int preempted_readers;

void might_sleep(void)
{
	WARN_ON_ONCE(preempt_count() || rcu_preempt_depth());
}

u64 get_random_u64(void)
{
	u64 x = serial.random += 0x9e3779b97f4a7c15;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
	x = (x ^ x >> 27) * 0x94d049bb133111eb;
	return x ^ x >> 31;
}

long si_mem_available(void)
{
	return LONG_MAX >> PAGE_SHIFT;	/* kmalloc() will tell */
}

u64 ktime_get_ns(void)
{
	return serial.now += 100;
}

/* === Memory ============================================================== */

/* In front of each block, which begins a cache line */
struct block {
	size_t	bytes;
} __aligned(L1_CACHE_BYTES);

static bool must_fail(size_t bytes)
{
	if (bytes > serial.limit - serial.bytes)
		return true;
	if (!serial.failing)
		return false;
	if (serial.spared) {
		serial.spared--;
		return false;
	}
	serial.failing--;
	return true;
}

void *kmalloc(size_t bytes, gfp_t gfp)
{
	struct block *b;
	void *p;

	if (gfpflags_allow_blocking(gfp))
		might_sleep();
	if (must_fail(bytes)) {
		serial.failed++;
		return NULL;
	}
	if (posix_memalign(&p, L1_CACHE_BYTES, sizeof(*b) + bytes))
		abort();
	b = p;
	b->bytes = bytes;
	serial.bytes += bytes;
	serial.blocks++;
	return gfp & __GFP_ZERO ? memset(b + 1, 0, bytes) : b + 1;
}

void kfree(const void *p)
{
	struct block *b = (struct block *)p - 1;

	if (!p)
		return;
	serial.bytes -= b->bytes;
	serial.blocks--;
	free(b);
}

/* === RCU ================================================================= */

/* The worker tries again after each, where memory is short. */
#define GRACE_NS	(20 * NSEC_PER_MSEC)

/* As in shim.c: twice the grace periods that have ended, and one more in one */
static unsigned long rcu_count = 2;

unsigned long get_state_synchronize_rcu(void)
{
	return (rcu_count + 3) & ~1UL;
}

bool poll_state_synchronize_rcu(unsigned long cookie)
{
	return cookie == get_completed_synchronize_rcu() ||
	       (long)(rcu_count - cookie) >= 0;
}

void serial_read(unsigned int i)
{
	serial.readers[i] = rcu_count + 1;
}

/* Those that began in this grace period do not matter. */
static bool has_readers(void)
{
	unsigned int i;

	if (rcu_preempt_depth() || preempted_readers)
		return true;
	for (i = 0; i < SERIAL_READERS; i++)
		if (serial.readers[i] && serial.readers[i] - 1 < rcu_count)
			return true;
	return false;
}

bool serial_grace(void)
{
	if (rcu_count % 2 && has_readers())
		return false;
	rcu_count++;
	serial.now += GRACE_NS / 2;
	return true;
}

static void force_grace(void)
{
	if (serial_grace())
		return;
	serial.end_readers();
	WARN_ON_ONCE(!serial_grace());
}

void synchronize_rcu(void)
{
	unsigned long cookie = get_state_synchronize_rcu();

	might_sleep();
	while (!poll_state_synchronize_rcu(cookie))
		force_grace();
}

/* === Workqueues ========================================================== */

unsigned long works_done;

static LIST_HEAD(ready);
static LIST_HEAD(in_grace);
static LIST_HEAD(delayed);

/* Work of one of these lists that is not being done, or NULL */
static struct work_struct *first_idle(struct list_head *works)
{
	struct work_struct *work;

	list_for_each_entry(work, works, entry)
		if (!work->running)
			return work;
	return NULL;
}

static struct work_struct *first_due(void)
{
	struct work_struct *work = first_idle(&in_grace);

	if (work && poll_state_synchronize_rcu(work->cookie))
		return work;
	work = first_idle(&delayed);
	if (work && work->due <= serial.now)
		return work;
	return first_idle(&ready);
}

/* By another thread, while this one stands still */
static void run(struct work_struct *work)
{
	struct task_struct saved = *current;

	list_del(&work->entry);
	work->pending = false;
	work->running = true;
	*current = (struct task_struct) { };
	preempted_readers += !!saved.rcu_depth;
	work->func(work);
	WARN_ON_ONCE(current->preempt_count || current->rcu_depth);
	preempted_readers -= !!saved.rcu_depth;
	*current = saved;
	work->running = false;
	works_done++;
}

bool serial_work(void)
{
	struct work_struct *work = first_due();

	if (work)
		run(work);
	return work;
}

void cond_resched(void)
{
	if (serial.turns && !preempt_count() && (u8)get_random_u64() < serial.turns)
		serial_work();
}

/* Nothing is due: let time pass until something is, but not beyond @until. */
static bool pass_time(u64 until)
{
	struct work_struct *work = first_idle(&delayed);

	if (first_idle(&in_grace)) {
		force_grace();
		return true;
	}
	if (work && work->due <= until) {
		serial.now = max(serial.now, work->due);
		return true;
	}
	if (until != U64_MAX)
		serial.now = max(serial.now, until);
	return false;
}

bool wait_for_others(u64 until)
{
	bool woken;

	/* There may always be work to do. */
	if (serial.now >= until)
		return false;
	/* Others take their time, but not all of it. */
	if (serial.lazy && until != U64_MAX && get_random_u64() % 4) {
		serial.now = max(serial.now, until);
		return false;
	}
	woken = serial_work() || pass_time(until);
	WARN(!woken && until == U64_MAX, "nobody will wake up who waits here");
	return woken;
}

bool serial_settle(u64 ns)
{
	u64 until = serial.now + ns;

	/* The worker may never be content, where memory is short. */
	while (serial.now < until)
		if (!serial_work() && !pass_time(until))
			return true;
	return false;
}

/* There is one. */
struct workqueue_struct *alloc_workqueue(const char *name, unsigned int flags,
					 int max_active)
{
	return (struct workqueue_struct *)&serial;
}

void destroy_workqueue(struct workqueue_struct *wq)
{
	serial_settle(NSEC_PER_SEC);
}

static bool enqueue(struct list_head *works, struct work_struct *work)
{
	if (work->pending)
		return false;
	work->pending = true;
	list_add_tail(&work->entry, works);
	return true;
}

bool queue_work(struct workqueue_struct *wq, struct work_struct *work)
{
	return enqueue(&ready, work);
}

bool queue_rcu_work(struct workqueue_struct *wq, struct rcu_work *work)
{
	if (!enqueue(&in_grace, &work->work))
		return false;
	work->work.cookie = get_state_synchronize_rcu();
	return true;
}

bool queue_delayed_work(struct workqueue_struct *wq, struct delayed_work *work,
			unsigned long delay)
{
	if (!enqueue(&delayed, &work->work))
		return false;
	work->work.due = serial.now + delay * (NSEC_PER_SEC / HZ);
	return true;
}

bool flush_work(struct work_struct *work)
{
	bool was_pending = work->pending;

	wait_until(!work->pending && !work->running, U64_MAX);
	return was_pending;
}

bool cancel_delayed_work_sync(struct delayed_work *work)
{
	bool was_pending = work->work.pending;

	if (was_pending) {
		list_del(&work->work.entry);
		work->work.pending = false;
	}
	return was_pending;
}
