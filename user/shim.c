// SPDX-License-Identifier: GPL-2.0-only
/* What the headers in include/ only declare */
#include <pthread.h>
#include <sys/random.h>

#include <linux/kernel.h>
#include <linux/list.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

/* === Machine ============================================================= */

__thread struct task_struct current[1];

void might_sleep(void)
{
	WARN_ON_ONCE(preempt_count() || rcu_preempt_depth());
}

u64 get_random_u64(void)
{
	u64 n;

	/* So few bytes come whole. */
	if (getrandom(&n, sizeof(n), 0) != sizeof(n))
		abort();
	return n;
}

long si_mem_available(void)
{
	FILE *info = fopen("/proc/meminfo", "r");
	char line[80];
	long kib = 0;

	while (info && !kib && fgets(line, sizeof(line), info))
		sscanf(line, "MemAvailable: %ld", &kib);
	if (info)
		fclose(info);
	return kib >> (PAGE_SHIFT - 10);
}

void *kmalloc(size_t bytes, gfp_t gfp)
{
	void *p;

	if (gfpflags_allow_blocking(gfp))
		might_sleep();
	if (posix_memalign(&p, L1_CACHE_BYTES, bytes))
		return NULL;
	return gfp & __GFP_ZERO ? memset(p, 0, bytes) : p;
}

void kfree(const void *p)
{
	free((void *)p);
}

/* === RCU ================================================================= */

char rcu_readers;

/* Twice the grace periods that have ended, and one more while there is one. */
static unsigned long rcu_count;
static pthread_mutex_t rcu_lock = PTHREAD_MUTEX_INITIALIZER;

/* One that is under way may have begun too early. */
unsigned long get_state_synchronize_rcu(void)
{
	/* Pairs with synchronize_rcu(): what the caller did is before a later one. */
	smp_mb();
	return (READ_ONCE(rcu_count) + 3) & ~1UL;
}

bool poll_state_synchronize_rcu(unsigned long cookie)
{
	/* Pairs with synchronize_rcu(): its readers are before what the caller will do. */
	unsigned long count = smp_load_acquire(&rcu_count);

	return cookie == get_completed_synchronize_rcu() || (long)(count - cookie) >= 0;
}

/* Who comes while another one waits may have waited enough when it is its turn. */
void synchronize_rcu(void)
{
	unsigned long cookie = get_state_synchronize_rcu();

	might_sleep();
	pthread_mutex_lock(&rcu_lock);
	if (!poll_state_synchronize_rcu(cookie)) {
		WRITE_ONCE(rcu_count, rcu_count + 1);
		/* Pairs with get_state_synchronize_rcu(). */
		smp_mb();
		urcu_memb_synchronize_rcu();
		__tsan_acquire(&rcu_readers);
		/* Pairs with poll_state_synchronize_rcu(). */
		smp_store_release(&rcu_count, rcu_count + 1);
	}
	pthread_mutex_unlock(&rcu_lock);
}

/* === Wait queues ========================================================= */

wait_queue_head_t var_waiters = __WAIT_QUEUE_HEAD_INITIALIZER(var_waiters);

void wake_up_all(wait_queue_head_t *wq)
{
	pthread_mutex_lock(&wq->lock);
	pthread_cond_broadcast(&wq->cond);
	pthread_mutex_unlock(&wq->lock);
}

static bool cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, u64 ns)
{
	struct timespec t = {
		.tv_sec = ns / NSEC_PER_SEC,
		.tv_nsec = ns % NSEC_PER_SEC,
	};

	if (ns == U64_MAX)
		return !pthread_cond_wait(cond, lock);
	return !pthread_cond_clockwait(cond, lock, CLOCK_MONOTONIC, &t);
}

bool wait_until(wait_queue_head_t *wq, u64 ns)
{
	return cond_wait_until(&wq->cond, &wq->lock, ns);
}

/* === Workqueues ========================================================== */

/* Work of one kind, in order */
struct work_queue {
	pthread_mutex_t		lock;
	pthread_cond_t		cond;		/* of all that changes below */
	struct list_head	works;
	struct work_struct	*running;
	bool			ending;
	pthread_t		thread;
	/* The first one may run.  Without the lock, if it has to wait; or return false. */
	bool			(*ripe)(struct work_queue *q, struct work_struct *work);
};

struct workqueue_struct {
	struct work_queue	now, grace, later;
};

static bool ripe_now(struct work_queue *q, struct work_struct *work)
{
	return true;
}

/* Only this thread takes it from the queue. */
static bool ripe_after_grace_period(struct work_queue *q, struct work_struct *work)
{
	pthread_mutex_unlock(&q->lock);
	synchronize_rcu();
	pthread_mutex_lock(&q->lock);
	return true;
}

/* It may have been cancelled when this returns false. */
static bool ripe_in_time(struct work_queue *q, struct work_struct *work)
{
	if (work->due <= ktime_get_ns())
		return true;
	cond_wait_until(&q->cond, &q->lock, work->due);
	return false;
}

static void run_first(struct work_queue *q, struct work_struct *work)
{
	list_del(&work->entry);
	work->pending = false;
	q->running = work;
	pthread_mutex_unlock(&q->lock);
	work->func(work);
	pthread_mutex_lock(&q->lock);
	q->running = NULL;
	pthread_cond_broadcast(&q->cond);
}

static void *run_works(void *arg)
{
	struct work_queue *q = arg;
	struct work_struct *work;

	urcu_memb_register_thread();
	pthread_mutex_lock(&q->lock);
	do {
		work = list_first_entry_or_null(&q->works, struct work_struct, entry);
		if (!work && !q->ending)
			pthread_cond_wait(&q->cond, &q->lock);
		else if (work && q->ripe(q, work))
			run_first(q, work);
	} while (work || !q->ending);
	pthread_mutex_unlock(&q->lock);
	urcu_memb_unregister_thread();
	return NULL;
}

static void begin_queue(struct work_queue *q,
			bool (*ripe)(struct work_queue *q, struct work_struct *work))
{
	pthread_mutex_init(&q->lock, NULL);
	pthread_cond_init(&q->cond, NULL);
	INIT_LIST_HEAD(&q->works);
	q->ripe = ripe;
	if (pthread_create(&q->thread, NULL, run_works, q))
		abort();
}

static void end_queue(struct work_queue *q)
{
	pthread_mutex_lock(&q->lock);
	q->ending = true;
	pthread_cond_broadcast(&q->cond);
	pthread_mutex_unlock(&q->lock);
	pthread_join(q->thread, NULL);
	pthread_cond_destroy(&q->cond);
	pthread_mutex_destroy(&q->lock);
}

struct workqueue_struct *alloc_workqueue(const char *name, unsigned int flags,
					 int max_active)
{
	struct workqueue_struct *wq = kzalloc(sizeof(*wq), GFP_KERNEL);

	if (!wq)
		return NULL;
	begin_queue(&wq->now, ripe_now);
	begin_queue(&wq->grace, ripe_after_grace_period);
	begin_queue(&wq->later, ripe_in_time);
	return wq;
}

void destroy_workqueue(struct workqueue_struct *wq)
{
	end_queue(&wq->later);
	end_queue(&wq->grace);
	end_queue(&wq->now);
	kfree(wq);
}

static bool enqueue(struct work_queue *q, struct work_struct *work, u64 due)
{
	bool was_pending;

	pthread_mutex_lock(&q->lock);
	was_pending = work->pending;
	if (!was_pending) {
		work->pending = true;
		WRITE_ONCE(work->queue, q);
		work->due = due;
		list_add_tail(&work->entry, &q->works);
		pthread_cond_broadcast(&q->cond);
	}
	pthread_mutex_unlock(&q->lock);
	return !was_pending;
}

bool queue_work(struct workqueue_struct *wq, struct work_struct *work)
{
	return enqueue(&wq->now, work, 0);
}

bool queue_rcu_work(struct workqueue_struct *wq, struct rcu_work *work)
{
	return enqueue(&wq->grace, &work->work, 0);
}

bool queue_delayed_work(struct workqueue_struct *wq, struct delayed_work *work,
			unsigned long delay)
{
	return enqueue(&wq->later, &work->work,
		       ktime_get_ns() + delay * (NSEC_PER_SEC / HZ));
}

/* Until it is neither waiting, if it is not to be cancelled, nor running */
static bool finish_work(struct work_struct *work, bool cancel)
{
	struct work_queue *q = READ_ONCE(work->queue);
	bool was_pending;

	if (!q)
		return false;
	pthread_mutex_lock(&q->lock);
	was_pending = work->pending;
	if (cancel && was_pending) {
		list_del(&work->entry);
		work->pending = false;
		pthread_cond_broadcast(&q->cond);
	}
	while (work->pending || q->running == work)
		pthread_cond_wait(&q->cond, &q->lock);
	pthread_mutex_unlock(&q->lock);
	return was_pending;
}

bool flush_work(struct work_struct *work)
{
	return finish_work(work, false);
}

bool cancel_delayed_work_sync(struct delayed_work *work)
{
	return finish_work(&work->work, true);
}
