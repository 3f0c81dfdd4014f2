/* SPDX-License-Identifier: GPL-2.0-only */
/* Shared by the tests of chm: maps, keys, readers, and a look into tables */
#ifndef CHM_TEST_H
#define CHM_TEST_H

#include <kunit/resource.h>
#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/sched.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

#include "chm.h"
#include "chm_compat.h"

/* === Scale =============================================================== */

static unsigned int scale = 100;
module_param(scale, uint, 0444);
MODULE_PARM_DESC(scale, "Size of the long tests in percent");

/* @n at the usual scale, but at least @least. */
static inline unsigned long scaled(unsigned long n, unsigned long least)
{
	return max(n * scale / 100, least);
}

/* === Maps and keys ======================================================= */

__maybe_unused KUNIT_DEFINE_ACTION_WRAPPER(destroy_action, chm_destroy, struct chm *);
__maybe_unused KUNIT_DEFINE_ACTION_WRAPPER(free_action, kvfree, const void *);

/* Zeroed memory of any size that lives as long as the case. */
static inline void *test_alloc(struct kunit *test, size_t bytes)
{
	void *p = kvzalloc(bytes, GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, p);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, free_action, p), 0);
	return p;
}

/* A map refers to its parameters: these live as long as the case. */
static inline const struct chm_params *test_params(struct kunit *test,
						   const struct chm_params *p)
{
	struct chm_params *copy = test_alloc(test, sizeof(*copy));

	*copy = *p;
	return copy;
}

/*
 * A map that is destroyed before anything that was allocated earlier, its
 * parameters included.
 */
static inline struct chm *test_map(struct kunit *test, const struct chm_params *p)
{
	struct chm *map = test_alloc(test, sizeof(*map));

	KUNIT_ASSERT_EQ(test, chm_init(map, test_params(test, p), NULL, NULL), 0);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, destroy_action, map), 0);
	return map;
}

static inline void destroy_now(struct kunit *test, struct chm *map)
{
	kunit_release_action(test, destroy_action, map);
}

static inline void expect_sound(struct kunit *test, struct chm *map)
{
	KUNIT_EXPECT_EQ(test, chm_verify(map), 0);
}

/*
 * The table of @map, which stays until unlock_table().  In between interrupts are
 * off: no sleeping, no allocating, no expectations.
 */
static inline struct chm_table *lock_table(struct chm *map, unsigned long *flags)
	__acquires(&map->lock)
{
	spin_lock_irqsave(&map->lock, *flags);
	return rcu_dereference_protected(map->tbl, lockdep_is_held(&map->lock));
}

static inline void unlock_table(struct chm *map, unsigned long *flags)
	__releases(&map->lock)
{
	spin_unlock_irqrestore(&map->lock, *flags);
}

/* As chm_reserve() does while it is at work. */
static inline void claim(struct chm *map, int n)
{
	unsigned long flags;

	lock_table(map, &flags);
	map->claims += n;
	unlock_table(map, &flags);
}

/* Pairs that its table is for; it must have one. */
static inline unsigned long max_entries_of(struct chm *map)
{
	unsigned long flags, n;

	n = lock_table(map, &flags)->max_entries;
	unlock_table(map, &flags);
	return n;
}

/* As if so many calls looked at cells that they take.  Return: how many did. */
static inline u16 set_pins(struct chm *map, u16 pins)
{
	unsigned long flags;
	struct chm_table *t = lock_table(map, &flags);
	u16 before = t->pins_1;

	t->pins_1 = pins;
	unlock_table(map, &flags);
	return before;
}

static inline struct chm_stats stats_of(struct chm *map)
{
	struct chm_stats s;

	chm_stats(map, &s);
	return s;
}

static inline unsigned long migrations(const struct chm_stats *s)
{
	return s->grows + s->shrinks + s->rehashes;
}

/* G10: what retired tables may take. */
static inline unsigned long budget(const struct chm_stats *s)
{
	return max_t(unsigned long, s->bytes, SZ_1M);
}

/* Waits until a figure of the map, given by its offset, is 0; false: never. */
static inline bool wait_for_zero(struct chm *map, size_t figure)
{
	unsigned long end = jiffies + 20 * HZ;
	struct chm_stats s = stats_of(map);

	while (*(unsigned long *)((void *)&s + figure)) {
		if (time_after(jiffies, end))
			return false;
		msleep(20);
		s = stats_of(map);
	}
	return true;
}

/* Waits until a figure of the map is more than @n; false: not in ten seconds. */
static inline bool wait_until_more(struct chm *map, size_t figure, unsigned long n)
{
	unsigned long end = jiffies + 10 * HZ;
	struct chm_stats s = stats_of(map);

	while (*(unsigned long *)((void *)&s + figure) <= n && time_before(jiffies, end)) {
		msleep(20);
		s = stats_of(map);
	}
	return *(unsigned long *)((void *)&s + figure) > n;
}

/* For so many seconds, seen from @then, tidying is put off. */
static inline int tidying_put_off(const struct chm *map, u32 then)
{
	return map->tidy_from - then;
}

/* Waits until the map has no retired memory. */
static inline bool wait_retired(struct chm *map)
{
	return wait_for_zero(map, offsetof(struct chm_stats, retired_bytes));
}

/* Waits until all slots that were removed can be used again. */
static inline bool wait_dead(struct chm *map)
{
	return wait_for_zero(map, offsetof(struct chm_stats, dead));
}

/* Is no migration under way or asked for, and no retired memory left? */
static inline bool is_settled(struct chm *map)
{
	struct chm_stats s;
	unsigned long flags;
	u8 phase;

	lock_table(map, &flags);
	phase = map->phase;
	unlock_table(map, &flags);
	s = stats_of(map);
	/* 0 is the phase of a map where nothing is to be done. */
	return !phase && !s.migrating && !s.retired_bytes;
}

/* Waits until the map is settled; false: it never was. */
static inline bool settle(struct chm *map)
{
	unsigned long end = jiffies + 20 * HZ;

	while (!is_settled(map)) {
		if (time_after(jiffies, end))
			return false;
		msleep(20);
	}
	return true;
}

/* Is there room for @entries at a load of 80 percent, and for less than a page more? */
static inline void expect_chunks_for(struct kunit *test, struct chm *map, u64 entries)
{
	u64 least = DIV_ROUND_UP_ULL(entries * 100 / 80, CHM_SLOTS);
	struct chm_stats s = stats_of(map);

	KUNIT_EXPECT_GE(test, s.chunks, least);
	KUNIT_EXPECT_LT(test, (s.chunks - least) * (s.bytes / s.chunks), PAGE_SIZE);
}

/* Most tests map u64 to u64: key k to value_of(k). */
static const __maybe_unused struct chm_params u64_params = {
	.key_size = sizeof(u64),
	.value_size = sizeof(u64),
};

static inline u64 value_of(u64 key)
{
	return key * 0x9e3779b97f4a7c15ULL + 1;
}

static inline int insert_key(struct chm *map, u64 key)
{
	u64 value = value_of(key);

	return chm_insert(map, &key, &value, GFP_KERNEL);
}

static inline int remove_key(struct chm *map, u64 key)
{
	return chm_remove(map, &key);
}

/* How many of the keys from @from up to @to could not be inserted. */
static inline unsigned long insert_keys(struct chm *map, u64 from, u64 to)
{
	unsigned long failed = 0;

	for (; from < to; from++)
		failed += insert_key(map, from) != 0;
	return failed;
}

static inline unsigned long remove_keys(struct chm *map, u64 from, u64 to)
{
	unsigned long failed = 0;

	for (; from < to; from++)
		failed += remove_key(map, from) != 0;
	return failed;
}

static inline bool has_key(struct chm *map, u64 key)
{
	bool found;

	rcu_read_lock();
	found = chm_lookup(map, &key);
	rcu_read_unlock();
	return found;
}

/* How many of the keys are absent, or present with another value. */
static inline unsigned long wrong_keys(struct chm *map, u64 from, u64 to)
{
	unsigned long wrong = 0;

	for (; from < to; from++) {
		const u64 *found;

		rcu_read_lock();
		found = chm_lookup(map, &from);
		wrong += !found || *found != value_of(from);
		rcu_read_unlock();
	}
	return wrong;
}

/* How many of the keys are present. */
static inline unsigned long found_keys(struct chm *map, u64 from, u64 to)
{
	unsigned long found = 0;

	for (; from < to; from++)
		found += has_key(map, from);
	return found;
}

/* The value inside the map, as an address to compare only. */
static inline const void *address_of(struct chm *map, u64 key)
{
	const void *found;

	rcu_read_lock();
	found = chm_lookup(map, &key);
	rcu_read_unlock();
	return found;
}

/* === Hashes ============================================================== */

/*
 * What a hash() has to return for chm_mix() to make @hash of it: with this a
 * test chooses home, tag and filter bit of a key.
 */
static inline u64 unmix(u64 hash, u64 seed)
{
	const u64 inverse = 0xf1de83e19937733dULL;	/* of CHM_GOLDEN */

	static_assert(CHM_GOLDEN * 0xf1de83e19937733dULL == 1);
	return (hash ^ hash >> 32) * inverse ^ rol64(seed, 32);
}

/* === Readers ============================================================= */

/* A reader that stays inside of rcu_read_lock() until it is told to leave. */
struct long_reader {
	struct task_struct	*task;
	struct completion	inside;
	bool			leave;
	bool			late;		/* somebody waits for it to leave */
};

static inline int long_reader(void *arg)
{
	unsigned long end = jiffies + 30 * HZ;
	struct long_reader *r = arg;

	rcu_read_lock();
	complete(&r->inside);
	while (!READ_ONCE(r->leave) && !r->late) {
		r->late = time_after(jiffies, end);
		cpu_relax();
	}
	rcu_read_unlock();
	while (!kthread_should_stop())
		msleep(20);
	return 0;
}

static inline void leave_action(void *arg)
{
	struct long_reader *r = arg;

	WRITE_ONCE(r->leave, true);
	kthread_stop(r->task);
}

/* No grace period ends until stop_reader(). */
static inline struct long_reader *test_reader(struct kunit *test)
{
	struct long_reader *r = test_alloc(test, sizeof(*r));

	init_completion(&r->inside);
	r->task = kthread_run(long_reader, r, "chm_long_reader");
	KUNIT_ASSERT_FALSE(test, IS_ERR(r->task));
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, leave_action, r), 0);
	wait_for_completion(&r->inside);
	return r;
}

static inline void stop_reader(struct kunit *test, struct long_reader *r)
{
	kunit_release_action(test, leave_action, r);
	KUNIT_EXPECT_FALSE_MSG(test, r->late, "a writer waited for a reader");
}

/* === Failing allocations ================================================= */

/*
 * Allocation number @n of this task fails, counted from 1; with @all those after
 * it fail, too, if scripts/guest/init has set that up.
 */
static inline void fail_allocations(unsigned int n, bool all)
{
#ifdef CONFIG_FAULT_INJECTION
	current->fail_nth = n;
	current->make_it_fail = all;
#endif
}

/* Return: whether one was there to fail. */
static inline bool end_failing(void)
{
	bool failed = false;

#ifdef CONFIG_FAULT_INJECTION
	failed = !current->fail_nth;
	current->fail_nth = 0;
	current->make_it_fail = 0;
#endif
	return failed;
}

static inline void require_failures(struct kunit *test)
{
	void *one, *two;

	if (!IS_ENABLED(CONFIG_FAULT_INJECTION))
		kunit_skip(test, "needs CONFIG_FAULT_INJECTION");
	fail_allocations(1, true);
	one = kmalloc(8, GFP_NOWAIT | __GFP_NOWARN);
	two = kmalloc(8, GFP_NOWAIT | __GFP_NOWARN);
	end_failing();
	kfree(one);
	kfree(two);
	if (one || two)
		kunit_skip(test, "needs failslab and fail_page_alloc for make_it_fail");
}

#endif /* CHM_TEST_H */
