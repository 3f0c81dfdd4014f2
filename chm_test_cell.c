// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of chm: values that readers update in place (CHM_CELL, G9)
 *
 * Updates are counted by those who make them, so that at every moment it is
 * known what a value must have come to: at least what had ended before it was
 * read, at most what had begun until then, and exactly their sum in the end.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <kunit/test.h>
#include <linux/atomic.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/irqflags.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/random.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/timekeeping.h>

#include "chm.h"
#include "chm_test.h"

/* Whatever takes longer than this has gone wrong. */
#define CELL_PATIENCE	(60 * HZ)

/* === Helpers ============================================================= */

struct hits {
	atomic_long_t	n;
	atomic_long_t	bytes;
};

DEFINE_CHM_TYPE(hit_map, u32, struct hits, .class = CHM_CELL);

static const struct chm_params cell_params = {
	.key_size = sizeof(u64), .value_size = sizeof(long), .class = CHM_CELL,
};

/* A layout of its own: a sum and a maximum, of 4 bytes each, and a constant. */
struct peak {
	atomic_t	sum;
	atomic_t	most;
	u32		born;
};

static void peak_raise(atomic_t *most, int value)
{
	int old = atomic_read(most);

	while (old < value && !atomic_try_cmpxchg(most, &old, value))
		;
}

static void peak_merge(void *ctx, void *new_value, const void *old_now,
		       const void *snapshot)
{
	const struct peak *old = old_now, *copied = snapshot;
	struct peak *new = new_value;

	atomic_add(atomic_read(&old->sum) - atomic_read(&copied->sum), &new->sum);
	peak_raise(&new->most, atomic_read(&old->most));
}

static const struct chm_params peak_params = {
	.key_size = sizeof(u32), .value_size = sizeof(struct peak),
	.class = CHM_CELL, .merge = peak_merge,
};

static int cell_insert(struct chm *map, u64 key, long value)
{
	return chm_insert(map, &key, &value, GFP_KERNEL);
}

/* -1: absent. */
static long cell_read(struct chm *map, u64 key)
{
	long value;

	return chm_cell_read(map, &key, &value) ? value : -1;
}

static long cell_get(struct chm *map, u64 key)
{
	long value;

	return chm_get(map, &key, &value) ? value : -1;
}

/* === One thread ========================================================== */

static void chm_cell_params(struct kunit *test)
{
	static const struct {
		struct chm_params	p;
		int			ret;
	} cases[] = {
		{ { .key_size = 1, .value_size = 8 }, 0 },
		{ { .key_size = 12, .value_size = 5 * sizeof(long) }, 0 },
		{ { .key_size = 8, .value_size = 0 }, -EINVAL },
		{ { .key_size = 8, .value_size = 1 }, -EINVAL },
		{ { .key_size = 8, .value_size = 15 }, -EINVAL },
		{ { .key_size = 4, .value_size = 8, .value_offset = 6,
		    .slot_size = 16 }, -EINVAL },
		{ { .key_size = 8, .value_size = 8, .slot_size = 18 }, -EINVAL },
		{ { .key_size = 4, .value_size = 12, .merge = peak_merge }, 0 },
		{ { .key_size = 4, .value_size = 3, .merge = peak_merge }, 0 },
		{ { .key_size = 4, .value_size = 0, .merge = peak_merge },
		  -EINVAL },
	};
	struct chm *map = kunit_kzalloc(test, sizeof(*map), GFP_KERNEL);
	u32 i;

	KUNIT_ASSERT_NOT_NULL(test, map);
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct chm_params p = cases[i].p;
		int ret;

		p.class = CHM_CELL;
		ret = chm_init(map, &p, NULL, NULL);
		KUNIT_EXPECT_EQ_MSG(test, ret, cases[i].ret, "case %u", i);
		if (!ret)
			chm_destroy(map);
	}
}

static void chm_cell_lookup_updates_in_place(struct kunit *test)
{
	struct chm *map = test_map(test, &cell_params);
	u64 key = 1, absent = 2;
	atomic_long_t *cell;

	rcu_read_lock();
	KUNIT_EXPECT_NULL(test, chm_cell_lookup(map, &key));
	rcu_read_unlock();
	KUNIT_EXPECT_EQ(test, cell_read(map, 1), -1);
	KUNIT_EXPECT_EQ(test, cell_insert(map, 1, 10), 0);
	rcu_read_lock();
	KUNIT_EXPECT_NULL(test, chm_cell_lookup(map, &absent));
	cell = chm_cell_lookup(map, &key);
	KUNIT_EXPECT_NOT_NULL(test, cell);
	if (cell) {
		atomic_long_add(5, cell);
		KUNIT_EXPECT_PTR_EQ(test, chm_lookup(map, &key),
				    (const void *)cell);
	}
	rcu_read_unlock();
	KUNIT_EXPECT_EQ(test, cell_read(map, 1), 15);
	KUNIT_EXPECT_EQ(test, cell_get(map, 1), 15);
	KUNIT_EXPECT_EQ(test, cell_read(map, 2), -1);
	KUNIT_EXPECT_EQ(test, cell_insert(map, 1, 20), -EEXIST);
	KUNIT_EXPECT_EQ(test, chm_verify(map), 0);
	destroy_now(test, map);
}

static void chm_cell_add_finds_words(struct kunit *test)
{
	const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = 3 * sizeof(long),
		.class = CHM_CELL,
	};
	struct chm *map = test_map(test, &p);
	long value[3] = { 1, 2, 3 };
	u64 key = 7, absent = 8;

	KUNIT_EXPECT_EQ(test, chm_cell_add(map, &key, 0, 1), -ENOENT);
	KUNIT_ASSERT_EQ(test, chm_insert(map, &key, value, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, chm_cell_add(map, &key, 0, 10), 0);
	KUNIT_EXPECT_EQ(test, chm_cell_add(map, &key, 2, -30), 0);
	KUNIT_EXPECT_EQ(test, chm_cell_add(map, &key, 3, 1), -EINVAL);
	KUNIT_EXPECT_EQ(test, chm_cell_add(map, &key, -1U, 1), -EINVAL);
	KUNIT_EXPECT_EQ(test, chm_cell_add(map, &absent, 0, 1), -ENOENT);
	KUNIT_EXPECT_TRUE(test, chm_cell_read(map, &key, value));
	KUNIT_EXPECT_EQ(test, value[0], 11);
	KUNIT_EXPECT_EQ(test, value[1], 2);
	KUNIT_EXPECT_EQ(test, value[2], -27);
	KUNIT_EXPECT_FALSE(test, chm_cell_read(map, &absent, value));
	KUNIT_EXPECT_EQ(test, value[0], 11);
	destroy_now(test, map);
}

static void chm_cell_add_is_for_longs(struct kunit *test)
{
	const struct chm_params frozen = {
		.key_size = sizeof(u32), .value_size = sizeof(long),
	};
	struct peak peak = { };
	struct chm *map;
	long value = 4;
	u32 key = 1;

	map = test_map(test, &frozen);
	KUNIT_EXPECT_EQ(test, chm_cell_upsert_add(map, &key, 0, 1, GFP_KERNEL),
			-EINVAL);
	KUNIT_EXPECT_EQ(test, chm_count(map), 0);
	KUNIT_EXPECT_EQ(test, chm_insert(map, &key, &value, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, chm_cell_add(map, &key, 0, 1), -EINVAL);
	KUNIT_EXPECT_TRUE(test, chm_get(map, &key, &value));
	KUNIT_EXPECT_EQ(test, value, 4);
	destroy_now(test, map);
	map = test_map(test, &peak_params);
	KUNIT_EXPECT_EQ(test, chm_cell_upsert_add(map, &key, 0, 1, GFP_KERNEL),
			-EINVAL);
	KUNIT_EXPECT_EQ(test, chm_insert(map, &key, &peak, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, chm_cell_add(map, &key, 0, 1), -EINVAL);
	destroy_now(test, map);
}

static void chm_cell_upsert_add_inserts(struct kunit *test)
{
	const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = 2 * sizeof(long),
		.class = CHM_CELL, .max_entries = 2,
	};
	struct chm *map = test_map(test, &p);
	long value[2];
	u64 key;

	for (key = 0; key < 2; key++) {
		KUNIT_EXPECT_EQ(test, chm_cell_upsert_add(map, &key, 1, 3,
							  GFP_KERNEL), 1);
		KUNIT_EXPECT_EQ(test, chm_cell_upsert_add(map, &key, 1, 4,
							  GFP_KERNEL), 0);
		KUNIT_EXPECT_TRUE(test, chm_cell_read(map, &key, value));
		KUNIT_EXPECT_EQ(test, value[0], 0);
		KUNIT_EXPECT_EQ(test, value[1], 7);
	}
	KUNIT_EXPECT_EQ(test, chm_cell_upsert_add(map, &key, 0, 1, GFP_KERNEL),
			-E2BIG);
	KUNIT_EXPECT_EQ(test, chm_cell_upsert_add(map, &key, 2, 1, GFP_KERNEL),
			-EINVAL);
	KUNIT_EXPECT_EQ(test, chm_count(map), 2);
	KUNIT_EXPECT_EQ(test, chm_verify(map), 0);
	destroy_now(test, map);
}

static void chm_cell_replace_in_place(struct kunit *test)
{
	struct chm *map = test_map(test, &cell_params);
	struct peak peak = { .born = 3 };
	struct chm_stats before, s;
	const void *where;
	u64 key = 1;
	u32 small = 1;
	long value;

	KUNIT_ASSERT_EQ(test, cell_insert(map, 1, 10), 0);
	chm_stats(map, &before);
	rcu_read_lock();
	where = chm_lookup(map, &key);
	rcu_read_unlock();
	/* Far more often than it takes to drive frozen pairs from home. */
	for (value = 0; value < 20000; value++) {
		KUNIT_ASSERT_EQ(test, chm_replace(map, &key, &value, GFP_KERNEL),
				0);
		KUNIT_ASSERT_EQ(test, chm_cell_add(map, &key, 0, 1), 0);
	}
	KUNIT_EXPECT_EQ(test, cell_read(map, 1), 20000);
	KUNIT_EXPECT_EQ(test, chm_upsert(map, &key, &value, GFP_KERNEL), 0);
	rcu_read_lock();
	KUNIT_EXPECT_PTR_EQ(test, chm_lookup(map, &key), where);
	rcu_read_unlock();
	chm_stats(map, &s);
	KUNIT_EXPECT_EQ(test, s.rehashes, before.rehashes);
	KUNIT_EXPECT_EQ(test, s.grows, before.grows);
	KUNIT_EXPECT_EQ(test, s.dead, 0);
	destroy_now(test, map);

	map = test_map(test, &peak_params);
	KUNIT_EXPECT_EQ(test, chm_replace(map, &small, &peak, GFP_KERNEL),
			-ENOENT);
	KUNIT_EXPECT_EQ(test, chm_upsert(map, &small, &peak, GFP_KERNEL), 1);
	KUNIT_EXPECT_EQ(test, chm_replace(map, &small, &peak, GFP_KERNEL),
			-EOPNOTSUPP);
	KUNIT_EXPECT_EQ(test, chm_upsert(map, &small, &peak, GFP_KERNEL),
			-EOPNOTSUPP);
	destroy_now(test, map);
}

static void chm_cell_walks(struct kunit *test)
{
	struct chm *map = test_map(test, &cell_params);
	const atomic_long_t *v;
	long sum = 0, value;
	struct chm_iter it;
	struct chm_pos pos;
	const u64 *k;
	u64 key;

	for (key = 0; key < 1000; key++) {
		KUNIT_ASSERT_EQ(test, cell_insert(map, key, key), 0);
		KUNIT_ASSERT_EQ(test, chm_cell_add(map, &key, 0, 1000), 0);
	}
	/* Until all is merged walks may miss updates, as chm_get() does. */
	KUNIT_ASSERT_TRUE(test, settle(map));
	chm_iter_init(&it, map);
	while (chm_iter_next(&it, &key, &value)) {
		KUNIT_EXPECT_EQ(test, value, key + 1000);
		sum += value;
	}
	rcu_read_lock();
	chm_for_each_rcu(map, pos, k, v) {
		KUNIT_EXPECT_EQ(test, atomic_long_read(v), *k + 1000);
		sum -= atomic_long_read(v);
	}
	rcu_read_unlock();
	KUNIT_EXPECT_EQ(test, sum, 0);
	destroy_now(test, map);
}

static void chm_cell_typed(struct kunit *test)
{
	struct hit_map *m = kunit_kzalloc(test, sizeof(*m), GFP_KERNEL);
	struct hits hits = { };
	struct hits *in_place;
	unsigned int beyond = 2;
	u32 key = 5;

	/* The compiler refuses a constant. */
	OPTIMIZER_HIDE_VAR(beyond);
	KUNIT_ASSERT_NOT_NULL(test, m);
	KUNIT_ASSERT_EQ(test, hit_map_init(m, NULL, NULL), 0);
	KUNIT_EXPECT_EQ(test, hit_map_cell_add(m, &key, 0, 1), -ENOENT);
	KUNIT_EXPECT_FALSE(test, hit_map_cell_read(m, &key, &hits));
	KUNIT_EXPECT_EQ(test, hit_map_insert(m, &key, &hits, GFP_KERNEL), 0);
	rcu_read_lock();
	in_place = hit_map_cell_lookup(m, &key);
	if (in_place)
		atomic_long_add(1500, &in_place->bytes);
	rcu_read_unlock();
	KUNIT_EXPECT_EQ(test, hit_map_cell_add(m, &key, 0, 1), 0);
	KUNIT_EXPECT_EQ(test, hit_map_cell_add(m, &key, beyond, 1), -EINVAL);
	KUNIT_EXPECT_EQ(test, hit_map_cell_upsert_add(m, &key, 0, 1, GFP_KERNEL),
			0);
	KUNIT_EXPECT_EQ(test, hit_map_shrink(m, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, hit_map_reserve(m, 1000, GFP_KERNEL), 0);
	KUNIT_EXPECT_TRUE(test, hit_map_cell_read(m, &key, &hits));
	KUNIT_EXPECT_EQ(test, atomic_long_read(&hits.n), 2);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&hits.bytes), 1500);
	KUNIT_EXPECT_EQ(test, hit_map_take(m, &key, NULL, &hits), 0);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&hits.bytes), 1500);
	KUNIT_EXPECT_EQ(test, hit_map_count(m), 0);
	hit_map_destroy(m);
}

static void chm_cell_accounts_for_snapshots(struct kunit *test)
{
	struct chm *map = test_map(test, &cell_params);
	unsigned long slots;
	struct chm_stats s;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 1000, GFP_KERNEL), 0);
	chm_stats(map, &s);
	KUNIT_EXPECT_EQ(test, s.snapshot_bytes, 0);
	slots = s.slots;
	KUNIT_ASSERT_EQ(test, chm_reserve(map, 5000, GFP_KERNEL), 0);
	chm_stats(map, &s);
	/* The value of each slot, and which one it became. */
	KUNIT_EXPECT_GE(test, s.snapshot_bytes, slots * (sizeof(long) + sizeof(u32)));
	KUNIT_EXPECT_LE(test, s.snapshot_bytes, slots * 2 * sizeof(long) + 256);
	KUNIT_EXPECT_TRUE(test, settle(map));
	KUNIT_EXPECT_EQ(test, stats_of(map).snapshot_bytes, 0);
	destroy_now(test, map);
}

/* A table that grows, and its snapshot, are not too much to be retired. */
static void chm_cell_growth_waits_once_at_most(struct kunit *test)
{
	struct chm *map = test_map(test, &cell_params);
	struct chm_stats before, s;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 100000, GFP_KERNEL), 0);
	chm_stats(map, &before);
	KUNIT_EXPECT_GT(test, before.bytes, 1UL << 20);
	KUNIT_ASSERT_EQ(test, chm_reserve(map, 140000, GFP_KERNEL), 0);
	chm_stats(map, &s);
	KUNIT_EXPECT_LE(test, s.gp_waits, before.gp_waits + 1);
	KUNIT_EXPECT_EQ(test, chm_verify(map), 0);
	KUNIT_EXPECT_TRUE(test, settle(map));
	destroy_now(test, map);
}

/* === A reader that holds on ============================================== */

/*
 * A thread finds a cell, and keeps its RCU section open until the map has another
 * table, or lacks the key.  What it does then is what is easily
 * lost: it updates the cell that it had found, and the one that it finds now.
 */
struct hold {
	struct chm		*map;
	const void		*key;
	void			(*update)(struct hold *h);
	struct completion	found;
	void			*old;
	void			*now;		/* NULL: removed */
	bool			late;		/* nothing has happened */
	bool			read;
	long			exact[512];	/* what chm_cell_read() says */
	long			got[512];	/* and chm_get() */
};

static int hold_thread(void *data)
{
	unsigned long end = jiffies + CELL_PATIENCE;
	struct hold *h = data;

	rcu_read_lock();
	h->old = chm_cell_lookup(h->map, h->key);
	complete(&h->found);
	do {
		h->now = chm_cell_lookup(h->map, h->key);
		h->late = time_after(jiffies, end);
		cpu_relax();
	} while (h->now == h->old && !h->late);
	/* What does not wait for this reader gets done meanwhile. */
	end = jiffies + msecs_to_jiffies(20);
	while (time_before(jiffies, end))
		cpu_relax();
	h->update(h);
	h->read = chm_cell_read(h->map, h->key, h->exact);
	chm_get(h->map, h->key, h->got);
	rcu_read_unlock();
	while (!kthread_should_stop())
		schedule_timeout_idle(1);
	return 0;
}

static struct hold *hold_begin(struct kunit *test, struct chm *map,
			       const void *key, void (*update)(struct hold *h),
			       struct task_struct **task)
{
	struct hold *h = kunit_kzalloc(test, sizeof(*h), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, h);
	h->map = map;
	h->key = key;
	h->update = update;
	init_completion(&h->found);
	*task = kthread_run(hold_thread, h, "chm_cell_hold");
	KUNIT_ASSERT_FALSE(test, IS_ERR(*task));
	wait_for_completion(&h->found);
	return h;
}

static void hold_end(struct kunit *test, struct hold *h,
		     struct task_struct *task)
{
	kthread_stop(task);
	KUNIT_EXPECT_NOT_NULL(test, h->old);
	KUNIT_EXPECT_FALSE(test, h->late);
}

static void hold_update_long(struct hold *h)
{
	if (h->old)
		atomic_long_add(5, h->old);
	if (h->now && h->now != h->old)
		atomic_long_add(70, h->now);
}

static int cell_make_larger(struct chm *map)
{
	return chm_reserve(map, 100000, GFP_KERNEL);
}

static int cell_make_smaller(struct chm *map)
{
	return chm_shrink(map, GFP_KERNEL);
}

/* Another table comes about by @change while a reader holds on to a cell. */
static void hold_through(struct kunit *test, const struct chm_params *p,
			 int (*change)(struct chm *map))
{
	struct chm *map = test_map(test, p);
	struct task_struct *task;
	struct hold *h;
	u64 key;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 2000, GFP_KERNEL), 0);
	for (key = 0; key < 100; key++)
		KUNIT_ASSERT_EQ(test, cell_insert(map, key, 100 * key), 0);
	key = 42;
	h = hold_begin(test, map, &key, hold_update_long, &task);
	KUNIT_EXPECT_EQ(test, change(map), 0);
	hold_end(test, h, task);
	KUNIT_EXPECT_NOT_NULL(test, h->now);
	KUNIT_EXPECT_TRUE(test, h->read);
	KUNIT_EXPECT_EQ(test, h->exact[0], 4275);
	/* As documented: what went to the old cell is not there yet. */
	KUNIT_EXPECT_EQ(test, h->got[0], 4270);
	for (key = 0; key < 100; key++) {
		long sum = 100 * key + (key == 42 ? 75 : 0);

		/* Exact at once; the other when all is merged. */
		KUNIT_EXPECT_EQ(test, cell_read(map, key), sum);
	}
	KUNIT_ASSERT_TRUE(test, settle(map));
	for (key = 0; key < 100; key++) {
		long sum = 100 * key + (key == 42 ? 75 : 0);

		KUNIT_EXPECT_EQ(test, cell_read(map, key), sum);
		KUNIT_EXPECT_EQ(test, cell_get(map, key), sum);
	}
	KUNIT_EXPECT_EQ(test, chm_verify(map), 0);
	destroy_now(test, map);
}

static void chm_cell_growth_merges(struct kunit *test)
{
	hold_through(test, &cell_params, cell_make_larger);
}

static void chm_cell_shrinking_merges(struct kunit *test)
{
	hold_through(test, &cell_params, cell_make_smaller);
}

static void chm_cell_sync_growth_merges(struct kunit *test)
{
	struct chm_params p = cell_params;

	p.reclaim = CHM_SYNC;
	hold_through(test, &p, cell_make_larger);
}

/* With its first seed all keys have one home. */
static u64 cell_bad_seed;

static u64 cell_reseeding_hash(const void *key, u64 seed)
{
	u64 k = *(const u64 *)key;

	if (!cell_bad_seed)
		cell_bad_seed = seed;
	return seed == cell_bad_seed ? unmix(k & 0x7f, seed) :
				       chm_fold(chm_fold(k ^ seed));
}

/* The hash of a key differs in the old and the new table. */
static int cell_make_reseed(struct chm *map)
{
	unsigned long end = jiffies + CELL_PATIENCE;
	u64 key;
	int ret;

	for (key = 1000; !stats_of(map).reseeds && key < 1500; key++) {
		ret = cell_insert(map, key, 0);
		if (ret)
			return ret;
	}
	/* The worker may be about to copy. */
	while (!stats_of(map).reseeds && time_before(jiffies, end))
		msleep(20);
	return stats_of(map).reseeds ? 0 : -ENODATA;
}

static void chm_cell_reseed_merges(struct kunit *test)
{
	struct chm_params p = cell_params;

	cell_bad_seed = 0;
	p.hash = cell_reseeding_hash;
	hold_through(test, &p, cell_make_reseed);
}

static void hold_update_words(struct hold *h)
{
	u32 i;

	for (i = 0; i < 300; i++) {
		if (h->old && i % 3 != 1)
			atomic_long_add(i, (atomic_long_t *)h->old + i);
		if (h->now && i % 3 != 2)
			atomic_long_sub(2, (atomic_long_t *)h->now + i);
	}
}

static void chm_cell_growth_merges_words(struct kunit *test)
{
	const struct chm_params p = {
		.key_size = 3, .value_size = 300 * sizeof(long),
		.class = CHM_CELL,
	};
	struct chm *map = test_map(test, &p);
	struct task_struct *task;
	struct hold *h;
	long *value;
	u32 key, i;

	value = kunit_kzalloc(test, p.value_size, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, value);
	for (key = 0; key < 5; key++)
		KUNIT_ASSERT_EQ(test, chm_insert(map, &key, value, GFP_KERNEL),
				0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	key = 3;
	h = hold_begin(test, map, &key, hold_update_words, &task);
	KUNIT_EXPECT_EQ(test, chm_reserve(map, 50, GFP_KERNEL), 0);
	hold_end(test, h, task);
	KUNIT_EXPECT_TRUE(test, chm_cell_read(map, &key, value));
	for (i = 0; i < 300; i++) {
		long sum = (i % 3 != 1 ? (long)i : 0) - (i % 3 != 2 ? 2 : 0);

		KUNIT_EXPECT_EQ_MSG(test, h->exact[i], sum, "word %u", i);
		KUNIT_EXPECT_EQ_MSG(test, value[i], sum, "word %u", i);
	}
	destroy_now(test, map);
}

static void hold_update_peak(struct hold *h)
{
	struct peak *old = h->old, *now = h->now;

	if (!old || !now || old == now)
		return;
	atomic_add(5, &old->sum);
	peak_raise(&old->most, 50);
	atomic_add(70, &now->sum);
	peak_raise(&now->most, 40);
}

static void chm_cell_growth_calls_merge(struct kunit *test)
{
	struct chm *map = test_map(test, &peak_params);
	struct task_struct *task;
	struct peak peak;
	struct hold *h;
	u32 key;

	for (key = 0; key < 100; key++) {
		peak = (struct peak) { ATOMIC_INIT(key), ATOMIC_INIT(30), ~key };
		KUNIT_ASSERT_EQ(test, chm_insert(map, &key, &peak, GFP_KERNEL),
				0);
	}
	KUNIT_ASSERT_TRUE(test, settle(map));
	key = 42;
	h = hold_begin(test, map, &key, hold_update_peak, &task);
	KUNIT_EXPECT_EQ(test, cell_make_larger(map), 0);
	hold_end(test, h, task);
	memcpy(&peak, h->exact, sizeof(peak));
	KUNIT_EXPECT_EQ(test, atomic_read(&peak.sum), 117);
	KUNIT_EXPECT_EQ(test, atomic_read(&peak.most), 50);
	KUNIT_EXPECT_EQ(test, peak.born, ~42U);
	for (key = 0; key < 100; key++) {
		bool held = key == 42;

		KUNIT_EXPECT_TRUE(test, chm_cell_read(map, &key, &peak));
		KUNIT_EXPECT_EQ(test, atomic_read(&peak.sum),
				key + (held ? 75 : 0));
		KUNIT_EXPECT_EQ(test, atomic_read(&peak.most), held ? 50 : 30);
		KUNIT_EXPECT_EQ(test, peak.born, ~key);
	}
	destroy_now(test, map);
}

static void chm_cell_take_has_all_updates(struct kunit *test)
{
	struct chm *map = test_map(test, &cell_params);
	struct task_struct *task;
	struct hold *h;
	u64 key = 1;
	long value;

	KUNIT_EXPECT_EQ(test, chm_take(map, &key, NULL, &value), -ENOENT);
	KUNIT_ASSERT_EQ(test, cell_insert(map, 1, 10), 0);
	h = hold_begin(test, map, &key, hold_update_long, &task);
	KUNIT_EXPECT_EQ(test, chm_take(map, &key, NULL, &value), 0);
	KUNIT_EXPECT_EQ(test, value, 15);
	hold_end(test, h, task);
	KUNIT_EXPECT_NULL(test, h->now);
	KUNIT_EXPECT_FALSE(test, h->read);
	KUNIT_EXPECT_EQ(test, chm_count(map), 0);
	KUNIT_EXPECT_EQ(test, chm_verify(map), 0);
	destroy_now(test, map);
}

struct late_take {
	struct chm		*map;
	struct completion	done;
	long			value;
	int			ret;
};

static int late_take(void *arg)
{
	struct late_take *l = arg;
	u64 key = 1;

	l->ret = chm_take(l->map, &key, NULL, &l->value);
	complete(&l->done);
	while (!kthread_should_stop())
		msleep(20);
	return 0;
}

/* As many calls at once as a table can count: the next one waits for one of them. */
static void chm_cell_take_waits_for_a_crowd(struct kunit *test)
{
	struct late_take *l = test_alloc(test, sizeof(*l));
	struct task_struct *task;

	init_completion(&l->done);
	l->map = test_map(test, &cell_params);
	KUNIT_ASSERT_EQ(test, cell_insert(l->map, 1, 10), 0);
	set_pins(l->map, U16_MAX);
	task = kthread_run(late_take, l, "chm_late_take");
	if (IS_ERR(task)) {
		set_pins(l->map, 0);
		KUNIT_FAIL(test, "no thread: %ld", PTR_ERR(task));
		return;
	}
	KUNIT_EXPECT_EQ(test, wait_for_completion_timeout(&l->done, HZ / 5), 0);
	KUNIT_EXPECT_EQ(test, chm_count(l->map), 1);
	set_pins(l->map, 0);
	KUNIT_EXPECT_NE(test, wait_for_completion_timeout(&l->done, CELL_PATIENCE), 0);
	kthread_stop(task);
	KUNIT_EXPECT_EQ(test, l->ret, 0);
	KUNIT_EXPECT_EQ(test, l->value, 10);
	KUNIT_EXPECT_EQ(test, chm_count(l->map), 0);
}

static atomic_t cell_drops;
static atomic_long_t cell_dropped;

static void cell_drop(void *ctx, void *key, void *value)
{
	atomic_inc(&cell_drops);
	atomic_long_add(*(long *)value, &cell_dropped);
}

/* Updates that begin before @remove reach drop(), which runs @drops times. */
static void hold_drop(struct kunit *test, void (*remove)(struct chm *map),
		      int drops)
{
	struct chm_params p = cell_params;
	struct task_struct *task;
	struct chm *map;
	struct hold *h;
	u64 key = 1;

	p.drop = cell_drop;
	atomic_set(&cell_drops, 0);
	atomic_long_set(&cell_dropped, 0);
	map = test_map(test, &p);
	KUNIT_ASSERT_EQ(test, cell_insert(map, 1, 10), 0);
	h = hold_begin(test, map, &key, hold_update_long, &task);
	remove(map);
	hold_end(test, h, task);
	destroy_now(test, map);
	KUNIT_EXPECT_EQ(test, atomic_read(&cell_drops), drops);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&cell_dropped), 15);
}

static void cell_remove_one(struct chm *map)
{
	u64 key = 1;

	chm_remove(map, &key);
}

static void cell_remove_and_shrink(struct chm *map)
{
	cell_remove_one(map);
	chm_shrink(map, GFP_KERNEL);
}

/* The old pair stays behind in the table that is replaced. */
static void cell_remove_and_grow(struct chm *map)
{
	cell_remove_one(map);
	if (cell_insert(map, 2, 0) || cell_make_larger(map))
		return;
	chm_clear(map);
	chm_take(map, &(u64) { 2 }, NULL, &(long) { 0 });
}

static void chm_cell_drop_has_all_updates(struct kunit *test)
{
	hold_drop(test, cell_remove_one, 1);
	hold_drop(test, chm_clear, 1);
	hold_drop(test, cell_remove_and_shrink, 1);
}

static void chm_cell_drop_in_old_table(struct kunit *test)
{
	hold_drop(test, cell_remove_and_grow, 2);
}

/* === Races =============================================================== */

/*
 * Updaters add positive numbers to random words and keep account of each word,
 * before and after; readers compare what they read with the accounts; the test
 * thread changes the table.
 */
#define SUM_UPDATERS	4
#define SUM_READERS	1
#define SUM_WATCHED	16	/* keys that stay and are accounted for twice */

struct sum_worker {
	struct sum		*s;
	struct task_struct	*task;
	u64			rng;
	unsigned long		updates;
	unsigned long		reads;
	long			*added;		/* by word */
	long			*begun;		/* of watched keys, by word */
	long			*seen;		/* readers: last read, by word */
	long			*least;
	long			*value;
};

struct sum {
	struct chm		map;
	u32			keys;
	u32			words;
	bool			merge;
	atomic_t		wrong;
	const char		*what;
	long			got, want;
	long			lost;		/* in the end */
	atomic_long_t		*dropped;	/* by word */
	struct sum_worker	workers[SUM_UPDATERS + SUM_READERS];
};

static void sum_drop(void *ctx, void *key, void *value)
{
	struct sum *s = ctx;
	u64 k = *(u64 *)key;
	u32 i;

	for (i = 0; i < s->words; i++)
		atomic_long_add(((long *)value)[i], &s->dropped[k * s->words + i]);
}

/* As merge == NULL, by other means. */
static void sum_merge(void *ctx, void *new_value, const void *old_now,
		      const void *snapshot)
{
	const atomic_long_t *now = old_now, *copied = snapshot;
	atomic_long_t *to = new_value;
	const struct sum *s = ctx;
	u32 i;

	for (i = 0; i < s->words; i++)
		atomic_long_add(atomic_long_read(&now[i]) -
				atomic_long_read(&copied[i]), &to[i]);
}

static void sum_wrong(struct sum *s, const char *what, long got, long want)
{
	if (atomic_xchg(&s->wrong, 1))
		return;
	s->what = what;
	s->got = got;
	s->want = want;
}

static u64 sum_random(struct sum_worker *w)
{
	w->rng ^= w->rng << 13;
	w->rng ^= w->rng >> 7;
	w->rng ^= w->rng << 17;
	return w->rng >> 8;
}

/*
 * Not udelay(): emulators take PAUSE for a chance to run another CPU.  Nor
 * local_clock(), which counts jiffies in User Mode Linux.
 */
static void sum_spin(u64 us)
{
	u64 start = ktime_get_mono_fast_ns();

	while (ktime_get_mono_fast_ns() - start < us * NSEC_PER_USEC)
		barrier();
}

/* Add @n to word @i of @key, in one of the ways there are. */
static bool sum_add(struct sum_worker *w, u64 key, u32 i, long n)
{
	struct sum *s = w->s;
	atomic_long_t *cell;

	if (!s->merge && w->updates % 2)
		return !chm_cell_add(&s->map, &key, i, n);
	rcu_read_lock();
	cell = chm_cell_lookup(&s->map, &key);
	/* Rarely for so long that the table may be another one meanwhile. */
	if (!(w->updates % 256))
		sum_spin(sum_random(w) % 500);
	if (cell)
		atomic_long_add(n, cell + i);
	rcu_read_unlock();
	return cell;
}

static void sum_update(struct sum_worker *w)
{
	struct sum *s = w->s;
	bool watched = sum_random(w) % 4 == 0;
	u64 key = sum_random(w) % (watched ? SUM_WATCHED : s->keys);
	u32 i = sum_random(w) % s->words;
	unsigned long at = key * s->words + i;
	long n = 1 + sum_random(w) % 1000;

	if (key < SUM_WATCHED) {
		WRITE_ONCE(w->begun[at], w->begun[at] + n);
		/* Pairs with smp_mb() in sum_check(): begun before added. */
		smp_mb();
	}
	if (sum_add(w, key, i, n))
		/* Pairs with smp_load_acquire() in sum_check(). */
		smp_store_release(&w->added[at], w->added[at] + n);
	else if (key < SUM_WATCHED)
		sum_wrong(s, "a key that stays was not found", key, 0);
	w->updates++;
}

/*
 * Migrations mostly wait for grace periods, and these for busy CPUs: threads that
 * pause now and then see ten times as many in the same time.
 */
#define CELL_BREATH	(IS_ENABLED(CONFIG_KASAN) ? 64 : 512)

static struct task_struct *cell_run(int (*thread)(void *data), void *data)
{
	struct task_struct *task = kthread_create(thread, data, "chm_cell");

	if (!IS_ERR(task)) {
		set_user_nice(task, 10);
		wake_up_process(task);
	}
	return task;
}

static void cell_breathe(unsigned long i)
{
	if (!(i % CELL_BREATH))
		usleep_range(50, 200);
}

static int sum_updater(void *data)
{
	struct sum_worker *w = data;

	while (!kthread_should_stop()) {
		sum_update(w);
		cell_breathe(w->updates);
	}
	return 0;
}

static long sum_of_begun(struct sum *s, unsigned long at)
{
	long sum = 0;
	u32 u;

	for (u = 0; u < SUM_UPDATERS; u++)
		sum += READ_ONCE(s->workers[u].begun[at]);
	return sum;
}

static long sum_of_added(struct sum *s, unsigned long at)
{
	long sum = 0;
	u32 u;

	for (u = 0; u < SUM_UPDATERS; u++)
		/* Pairs with smp_store_release() in sum_update(). */
		sum += smp_load_acquire(&s->workers[u].added[at]);
	return sum;
}

/* Read a watched key, and judge every word of it. */
static void sum_check(struct sum_worker *w)
{
	struct sum *s = w->s;
	u64 key = sum_random(w) % SUM_WATCHED;
	unsigned long at = key * s->words;
	u32 i;

	for (i = 0; i < s->words; i++)
		w->least[i] = sum_of_added(s, at + i);
	if (!chm_cell_read(&s->map, &key, w->value)) {
		sum_wrong(s, "a key that stays was not read", key, 0);
		return;
	}
	/* Pairs with smp_mb() in sum_update(). */
	smp_mb();
	for (i = 0; i < s->words; i++) {
		long value = w->value[i];

		if (value < w->least[i])
			sum_wrong(s, "an update is missing", value, w->least[i]);
		if (value > sum_of_begun(s, at + i))
			sum_wrong(s, "an update counts twice", value,
				  sum_of_begun(s, at + i));
		if (value < w->seen[at + i])
			sum_wrong(s, "went backwards", value, w->seen[at + i]);
		w->seen[at + i] = value;
	}
	w->reads++;
}

static int sum_reader(void *data)
{
	struct sum_worker *w = data;

	while (!kthread_should_stop()) {
		sum_check(w);
		cell_breathe(w->reads);
	}
	return 0;
}

static void *sum_array(struct kunit *test, struct sum *s, unsigned long keys)
{
	return kvcalloc(keys * s->words, sizeof(long), GFP_KERNEL);
}

static void sum_free(struct sum *s)
{
	u32 i;

	for (i = 0; i < ARRAY_SIZE(s->workers); i++) {
		kvfree(s->workers[i].added);
		kvfree(s->workers[i].begun);
		kvfree(s->workers[i].seen);
		kvfree(s->workers[i].least);
		kvfree(s->workers[i].value);
	}
	kvfree(s->dropped);
}

static bool sum_alloc(struct kunit *test, struct sum *s)
{
	u32 i;

	s->dropped = sum_array(test, s, s->keys);
	if (!s->dropped)
		return false;
	for (i = 0; i < ARRAY_SIZE(s->workers); i++) {
		struct sum_worker *w = &s->workers[i];

		w->s = s;
		w->rng = get_random_u64() | 1;
		w->added = i < SUM_UPDATERS ? sum_array(test, s, s->keys) : NULL;
		w->begun = sum_array(test, s, SUM_WATCHED);
		w->seen = sum_array(test, s, SUM_WATCHED);
		w->least = sum_array(test, s, 1);
		w->value = sum_array(test, s, 1);
		if ((i < SUM_UPDATERS && !w->added) || !w->begun || !w->seen ||
		    !w->least || !w->value)
			return false;
	}
	return true;
}

static struct sum *sum_begin(struct kunit *test, u32 keys, u32 words, bool merge)
{
	struct chm_params p = {
		.key_size = sizeof(u64), .value_size = words * sizeof(long),
		.class = CHM_CELL, .drop = sum_drop,
		.merge = merge ? sum_merge : NULL,
	};
	struct sum *s = kunit_kzalloc(test, sizeof(*s), GFP_KERNEL);
	u32 i;

	KUNIT_ASSERT_NOT_NULL(test, s);
	s->keys = keys;
	s->words = words;
	s->merge = merge;
	KUNIT_ASSERT_EQ(test, chm_init(&s->map, test_params(test, &p), s, NULL), 0);
	KUNIT_ASSERT_TRUE(test, sum_alloc(test, s));
	for (i = 0; i < SUM_WATCHED; i++)
		KUNIT_ASSERT_EQ(test, chm_insert(&s->map, &(u64) { i },
						 s->workers[0].value,
						 GFP_KERNEL), 0);
	for (i = 0; i < ARRAY_SIZE(s->workers); i++) {
		struct sum_worker *w = &s->workers[i];

		w->task = cell_run(i < SUM_UPDATERS ? sum_updater : sum_reader, w);
		KUNIT_ASSERT_FALSE(test, IS_ERR(w->task));
	}
	return s;
}

static void sum_expect_key(struct kunit *test, struct sum *s, u64 key,
			   long *value)
{
	u32 i;

	if (!chm_cell_read(&s->map, &key, value))
		memset(value, 0, s->words * sizeof(long));
	for (i = 0; i < s->words; i++) {
		unsigned long at = key * s->words + i;
		long sum = value[i] + atomic_long_read(&s->dropped[at]);

		if (sum != sum_of_added(s, at))
			sum_wrong(s, "lost or made up in the end", sum,
				  sum_of_added(s, at));
		s->lost += sum_of_added(s, at) - sum;
	}
}

/* Nobody updates or removes any more: the accounts must balance, to the unit. */
static void sum_end(struct kunit *test, struct sum *s)
{
	struct sum_worker *reader = &s->workers[SUM_UPDATERS];
	unsigned long updates = 0;
	struct chm_stats stats;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(s->workers); i++) {
		kthread_stop(s->workers[i].task);
		updates += s->workers[i].updates;
	}
	KUNIT_EXPECT_EQ(test, chm_verify(&s->map), 0);
	/* All that was dropped. */
	KUNIT_EXPECT_TRUE(test, wait_dead(&s->map));
	KUNIT_EXPECT_TRUE(test, settle(&s->map));
	chm_stats(&s->map, &stats);
	for (i = 0; i < s->keys; i++) {
		sum_expect_key(test, s, i, reader->value);
		cond_resched();
	}
	KUNIT_EXPECT_EQ_MSG(test, atomic_read(&s->wrong), 0, "%s: %ld, not %ld",
			    s->what, s->got, s->want);
	KUNIT_EXPECT_GT(test, reader->reads, 0);
	kunit_info(test, "measured: %ld lost in %lu updates, %lu reads, %lu grows, %lu shrinks, %lu rehashes\n",
		   s->lost, updates, reader->reads, stats.grows, stats.shrinks,
		   stats.rehashes);
	chm_destroy(&s->map);
	sum_free(s);
}

/* From SUM_WATCHED keys to all, and back; a failure ends it. */
static void sum_fill_and_drain(struct kunit *test, struct sum *s, long *zero)
{
	u64 key;
	int ret = 0;

	for (key = SUM_WATCHED; key < s->keys && !ret; key++) {
		ret = chm_insert(&s->map, &key, zero, GFP_KERNEL);
		if (!(key % 256))
			cond_resched();
	}
	KUNIT_EXPECT_EQ(test, ret, 0);
	for (key = SUM_WATCHED; key < s->keys; key++) {
		chm_remove(&s->map, &key);
		if (!(key % 256))
			cond_resched();
		/* Several tables on the way down, too. */
		if (!(key % (s->keys / 4)))
			KUNIT_EXPECT_EQ(test, chm_shrink(&s->map, GFP_KERNEL), 0);
	}
	KUNIT_EXPECT_EQ(test, chm_shrink(&s->map, GFP_KERNEL), 0);
}

static void chm_cell_sums_are_exact(struct kunit *test)
{
	u32 slow = IS_ENABLED(CONFIG_KASAN) || IS_ENABLED(CONFIG_KCSAN) ? 4 : 1;
	u32 rounds = scale < 100 ? 2 : 4;
	struct sum *s;
	u32 i;

	s = sum_begin(test, max(10000 * scale / slow, 1000U), 1, false);
	for (i = 0; i < rounds && !atomic_read(&s->wrong); i++)
		sum_fill_and_drain(test, s, &(long) { 0 });
	sum_end(test, s);
}

/* Resize for @ms: other tables come and go as fast as grace periods do. */
static void sum_resize(struct kunit *test, struct sum *s, unsigned int ms)
{
	ktime_t end = ktime_add_ms(ktime_get(), ms);

	while (ktime_before(ktime_get(), end) && !atomic_read(&s->wrong)) {
		KUNIT_EXPECT_EQ(test, chm_reserve(&s->map, 200, GFP_KERNEL), 0);
		KUNIT_EXPECT_EQ(test, chm_shrink(&s->map, GFP_KERNEL), 0);
	}
}

static void chm_cell_sums_of_hot_keys(struct kunit *test)
{
	struct sum *s = sum_begin(test, SUM_WATCHED, 1, false);

	sum_resize(test, s, 50 * scale);
	sum_end(test, s);
}

/* So many words that reading and merging them take about as long. */
static void chm_cell_sums_of_many_words(struct kunit *test)
{
	struct sum *s = sum_begin(test, SUM_WATCHED, 1000, false);

	sum_resize(test, s, 50 * scale);
	sum_end(test, s);
}

static void chm_cell_sums_by_merge(struct kunit *test)
{
	struct sum *s = sum_begin(test, SUM_WATCHED, 40, true);

	sum_resize(test, s, 50 * scale);
	sum_end(test, s);
}

/* Keys come and go in a map that stays small, which rehashes it. */
static void chm_cell_sums_through_churn(struct kunit *test)
{
	struct sum *s = sum_begin(test, 100, 2, false);
	ktime_t end = ktime_add_ms(ktime_get(), 30 * scale);
	long zero[2] = { };
	u64 i;

	for (i = 0; ktime_before(ktime_get(), end) && !atomic_read(&s->wrong);
	     i++) {
		u64 key = SUM_WATCHED + i % (100 - SUM_WATCHED);

		chm_remove(&s->map, &key);
		if (i % 3)
			KUNIT_EXPECT_EQ(test, chm_insert(&s->map, &key, zero,
							 GFP_KERNEL), 0);
		if (!(i % 10000))
			KUNIT_EXPECT_EQ(test, chm_shrink(&s->map, GFP_KERNEL), 0);
		cond_resched();
	}
	sum_end(test, s);
}

/* === Reading what is being merged ======================================== */

/*
 * One value of so many words that a reader is often in the middle of it when the
 * worker begins to merge it, or the other way round.  One thread adds to all words
 * of the old copy, much and little in turn: what is counted twice is then more than
 * what may be there early.
 */
#define WIDE_WORDS	4000U

struct wide {
	struct chm	map;
	long		begun;
	long		ended;
	unsigned long	updates;
	unsigned long	reads;
	long		value[WIDE_WORDS];
	atomic_t	wrong;
	long		got, least, most;
};

static void wide_merge(void *ctx, void *new_value, const void *old_now,
		       const void *snapshot)
{
	const atomic_long_t *now = old_now, *copied = snapshot;
	atomic_long_t *to = new_value;
	u32 i;

	for (i = 0; i < WIDE_WORDS; i++)
		atomic_long_add(atomic_long_read(&now[i]) -
				atomic_long_read(&copied[i]), &to[i]);
	/* Under the lock: readers shall come meanwhile, and wait. */
	if (irqs_disabled())
		sum_spin(10000);
}

/* So that there is something to merge: go on when @cell is an old copy. */
static void wide_await_table(struct wide *w, const void *cell)
{
	u64 end = ktime_get_mono_fast_ns() + 20 * NSEC_PER_MSEC;
	u64 key = 1;

	while (chm_lookup(&w->map, &key) == cell && ktime_get_mono_fast_ns() < end)
		barrier();
}

static int wide_updater(void *data)
{
	struct wide *w = data;
	atomic_long_t *cell;
	u64 key = 1;
	u32 i;

	while (!kthread_should_stop()) {
		long n = w->updates++ % 2 ? 10 : 1000;

		WRITE_ONCE(w->begun, w->begun + n);
		/* Pairs with those in wide_reader(). */
		smp_mb();
		rcu_read_lock();
		cell = chm_cell_lookup(&w->map, &key);
		wide_await_table(w, cell);
		for (i = 0; cell && i < WIDE_WORDS; i++)
			atomic_long_add(n, &cell[i]);
		rcu_read_unlock();
		/* The same. */
		smp_mb();
		WRITE_ONCE(w->ended, w->ended + n);
		cell_breathe(0);
	}
	return 0;
}

static int wide_reader(void *data)
{
	struct wide *w = data;
	u64 key = 1;
	u32 i;

	while (!kthread_should_stop()) {
		long least = READ_ONCE(w->ended), most;

		/* Pairs with those in wide_updater(). */
		smp_mb();
		if (!chm_cell_read(&w->map, &key, w->value))
			atomic_set(&w->wrong, 1);
		/* The same. */
		smp_mb();
		most = READ_ONCE(w->begun);
		for (i = 0; i < WIDE_WORDS; i++) {
			if (w->value[i] >= least && w->value[i] <= most)
				continue;
			if (atomic_xchg(&w->wrong, 1))
				break;
			w->got = w->value[i];
			w->least = least;
			w->most = most;
		}
		w->reads++;
		cell_breathe(w->reads * 4);
	}
	return 0;
}

static void wide_run(struct kunit *test, bool merge)
{
	const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = WIDE_WORDS * sizeof(long),
		.class = CHM_CELL, .merge = merge ? wide_merge : NULL,
	};
	struct wide *w = kunit_kzalloc(test, sizeof(*w), GFP_KERNEL);
	struct task_struct *updater, *reader;
	struct chm_stats s;
	u64 key = 1;
	ktime_t end;

	KUNIT_ASSERT_NOT_NULL(test, w);
	KUNIT_ASSERT_EQ(test, chm_init(&w->map, test_params(test, &p), NULL, NULL), 0);
	KUNIT_ASSERT_EQ(test, chm_insert(&w->map, &key, w->value, GFP_KERNEL),
			0);
	updater = cell_run(wide_updater, w);
	reader = cell_run(wide_reader, w);
	KUNIT_ASSERT_FALSE(test, IS_ERR(updater));
	KUNIT_ASSERT_FALSE(test, IS_ERR(reader));
	end = ktime_add_ms(ktime_get(), 30 * scale);
	while (ktime_before(ktime_get(), end) && !atomic_read(&w->wrong)) {
		KUNIT_EXPECT_EQ(test, chm_reserve(&w->map, 20, GFP_KERNEL), 0);
		KUNIT_EXPECT_EQ(test, chm_shrink(&w->map, GFP_KERNEL), 0);
	}
	kthread_stop(updater);
	kthread_stop(reader);
	KUNIT_EXPECT_EQ_MSG(test, atomic_read(&w->wrong), 0,
			    "%ld, not %ld to %ld", w->got, w->least, w->most);
	KUNIT_EXPECT_TRUE(test, chm_cell_read(&w->map, &key, w->value));
	KUNIT_EXPECT_EQ(test, w->value[WIDE_WORDS / 2], w->ended);
	KUNIT_EXPECT_GT(test, w->reads, 0);
	chm_stats(&w->map, &s);
	kunit_info(test, "%lu updates, %lu reads, %lu grows\n", w->updates,
		   w->reads, s.grows);
	chm_destroy(&w->map);
}

static void chm_cell_read_against_merge(struct kunit *test)
{
	wide_run(test, true);
}

static void chm_cell_read_against_adding(struct kunit *test)
{
	wide_run(test, false);
}

/*
 * A reader comes when a value has just been merged, but that is not said yet.  By
 * then it would count the difference twice: it has to wait.  Where a second CPU is,
 * that is sure to happen, unless the worker happens to be on the reader's.
 */
#define MIDWAY_ROUNDS	20

struct midway {
	struct chm	map;
	unsigned int	cpu;		/* the reader's */
	struct completion found;
	unsigned long	begun;		/* reads, and those that have ended */
	unsigned long	ended;
	bool		armed;		/* a reader is there */
	bool		staged;		/* it could run during merge() */
	bool		passed;		/* a read came and went during merge() */
	bool		waits;		/* one came */
	long		most;
};

static bool midway_await(const unsigned long *count, unsigned long least, u64 ms)
{
	u64 end = ktime_get_mono_fast_ns() + ms * NSEC_PER_MSEC;

	while (READ_ONCE(*count) < least && ktime_get_mono_fast_ns() < end)
		barrier();
	return READ_ONCE(*count) >= least;
}

static void midway_merge(void *ctx, void *new_value, const void *old_now,
			 const void *snapshot)
{
	const atomic_long_t *now = old_now, *copied = snapshot;
	struct midway *m = ctx;

	atomic_long_add(atomic_long_read(now) - atomic_long_read(copied), new_value);
	/* By a reader, into a copy; or before there is one; or in its place. */
	if (!irqs_disabled() || !READ_ONCE(m->armed) || raw_smp_processor_id() == m->cpu)
		return;
	m->staged = true;
	/* One that had begun before may have missed the mark. */
	m->passed = midway_await(&m->ended, READ_ONCE(m->ended) + 2, 100);
	m->waits = midway_await(&m->begun, READ_ONCE(m->ended) + 1, 1000);
}

/* Before it reads, there has to be something to merge: see hold_thread(). */
static void midway_update_old(struct midway *m)
{
	unsigned long end = jiffies + CELL_PATIENCE;
	u64 key = 1;
	void *old;

	rcu_read_lock();
	old = chm_cell_lookup(&m->map, &key);
	complete(&m->found);
	while (chm_cell_lookup(&m->map, &key) == old && time_before(jiffies, end))
		cpu_relax();
	atomic_long_add(5, old);
	rcu_read_unlock();
}

static int midway_reader(void *data)
{
	struct midway *m = data;
	u64 key = 1;
	long value;

	WRITE_ONCE(m->armed, true);
	midway_update_old(m);
	while (!kthread_should_stop()) {
		WRITE_ONCE(m->begun, m->begun + 1);
		if (chm_cell_read(&m->map, &key, &value))
			m->most = max(m->most, value);
		WRITE_ONCE(m->ended, m->ended + 1);
		cond_resched();
	}
	WRITE_ONCE(m->armed, false);
	return 0;
}

/* The reader has the second CPU, and the writer the first. */
static void midway_grow(struct kunit *test, struct midway *m)
{
	struct task_struct *reader;

	reader = kthread_create(midway_reader, m, "chm_cell_midway");
	KUNIT_ASSERT_FALSE(test, IS_ERR(reader));
	kthread_bind(reader, m->cpu);
	set_cpus_allowed_ptr(current, cpumask_of(cpumask_first(cpu_online_mask)));
	init_completion(&m->found);
	wake_up_process(reader);
	wait_for_completion(&m->found);
	KUNIT_EXPECT_EQ(test, cell_make_larger(&m->map), 0);
	KUNIT_EXPECT_TRUE(test, settle(&m->map));
	set_cpus_allowed_ptr(current, cpu_possible_mask);
	kthread_stop(reader);
}

static void chm_cell_read_waits_for_merge(struct kunit *test)
{
	struct midway *m = kunit_kzalloc(test, sizeof(*m), GFP_KERNEL);
	struct chm_params p = cell_params;
	u32 round;

	if (num_online_cpus() < 2)
		kunit_skip(test, "one CPU");
	KUNIT_ASSERT_NOT_NULL(test, m);
	m->cpu = cpumask_nth(1, cpu_online_mask);
	p.merge = midway_merge;
	KUNIT_ASSERT_EQ(test, chm_init(&m->map, test_params(test, &p), m, NULL), 0);
	KUNIT_ASSERT_EQ(test, cell_insert(&m->map, 1, 0), 0);
	for (round = 1; round <= MIDWAY_ROUNDS && !m->staged; round++) {
		midway_grow(test, m);
		KUNIT_EXPECT_EQ(test, m->most, 5 * round);
		KUNIT_EXPECT_EQ(test, cell_read(&m->map, 1), 5 * round);
		KUNIT_EXPECT_EQ(test, cell_make_smaller(&m->map), 0);
		KUNIT_EXPECT_TRUE(test, settle(&m->map));
	}
	KUNIT_EXPECT_TRUE(test, m->staged);
	KUNIT_EXPECT_FALSE(test, m->passed);
	KUNIT_EXPECT_TRUE(test, m->waits);
	chm_destroy(&m->map);
}

/* === Replacing =========================================================== */

struct refill {
	struct chm	map;
	long		begun[SUM_UPDATERS];
	long		ended[SUM_UPDATERS];
	struct task_struct *task[SUM_UPDATERS];
	atomic_t	next;
};

static int refill_updater(void *data)
{
	struct refill *r = data;
	u32 me = atomic_inc_return(&r->next) - 1;
	u64 key = 1;

	while (!kthread_should_stop()) {
		WRITE_ONCE(r->begun[me], r->begun[me] + 1);
		/* Pairs with those in refill_once(). */
		smp_mb();
		chm_cell_add(&r->map, &key, 0, 1);
		/* The same. */
		smp_mb();
		WRITE_ONCE(r->ended[me], r->ended[me] + 1);
		cell_breathe(r->ended[me]);
	}
	return 0;
}

static long refill_count(const long *counts)
{
	long sum = 0;
	u32 i;

	for (i = 0; i < SUM_UPDATERS; i++)
		sum += READ_ONCE(counts[i]);
	/* Before what comes next; pairs with those in refill_updater(). */
	smp_mb();
	return sum;
}

/*
 * Set the counter, and make another table.  What it then has on top of that:
 * at least the updates that began after it was set, at most those that had not
 * ended before.
 */
static void refill_once(struct kunit *test, struct refill *r, bool larger)
{
	long to = get_random_u32(), ended, begun, most, least, value;
	u64 key = 1;

	ended = refill_count(r->ended);
	KUNIT_ASSERT_EQ(test, chm_replace(&r->map, &key, &to, GFP_KERNEL), 0);
	/* The replacement before; pairs with those in refill_updater(). */
	smp_mb();
	begun = refill_count(r->begun);
	KUNIT_EXPECT_EQ(test, larger ? cell_make_larger(&r->map) :
				       cell_make_smaller(&r->map), 0);
	least = refill_count(r->ended) - begun;
	value = cell_read(&r->map, 1) - to;
	/* The reading before; pairs with those in refill_updater(). */
	smp_mb();
	most = refill_count(r->begun) - ended;
	KUNIT_EXPECT_GE(test, value, least);
	KUNIT_EXPECT_LE(test, value, most);
}

static void chm_cell_replace_against_updates(struct kunit *test)
{
	ktime_t end = ktime_add_ms(ktime_get(), 20 * scale);
	struct refill *r = kunit_kzalloc(test, sizeof(*r), GFP_KERNEL);
	u32 i;

	KUNIT_ASSERT_NOT_NULL(test, r);
	KUNIT_ASSERT_EQ(test, chm_init(&r->map, &cell_params, NULL, NULL), 0);
	KUNIT_ASSERT_EQ(test, cell_insert(&r->map, 1, 0), 0);
	for (i = 0; i < SUM_UPDATERS; i++) {
		r->task[i] = cell_run(refill_updater, r);
		KUNIT_ASSERT_FALSE(test, IS_ERR(r->task[i]));
	}
	for (i = 0; ktime_before(ktime_get(), end); i++)
		refill_once(test, r, i % 2);
	for (i = 0; i < SUM_UPDATERS; i++)
		kthread_stop(r->task[i]);
	KUNIT_EXPECT_EQ(test, chm_verify(&r->map), 0);
	chm_destroy(&r->map);
}

/* === Failing allocations ================================================= */

/* One key after the other, until the table is full and there is another one. */
static int fault_op_upsert_add(struct chm *map, gfp_t gfp)
{
	unsigned long grows = stats_of(map).grows;
	u64 key = 1000000;
	int ret = 0;

	for (; ret >= 0 && stats_of(map).grows == grows; key++)
		ret = chm_cell_upsert_add(map, &key, 0, 5, gfp);
	return ret;
}

static int fault_op_reserve(struct chm *map, gfp_t gfp)
{
	return chm_reserve(map, 4000, gfp);
}

static int fault_op_shrink(struct chm *map, gfp_t gfp)
{
	return chm_shrink(map, gfp);
}

/*
 * A map as full as its table allows, after @reserve; key i has 3 * i.  CHM_SYNC, so
 * that all memory is asked for by the test, in whose thread alone it can fail.
 */
static struct chm *fault_map(struct kunit *test, unsigned long reserve, u32 *n)
{
	struct chm_params p = cell_params;
	struct chm_stats s;
	struct chm *map;
	u64 key;

	p.reclaim = CHM_SYNC;
	map = test_map(test, &p);
	KUNIT_ASSERT_EQ(test, chm_reserve(map, 300, GFP_KERNEL), 0);
	chm_stats(map, &s);
	*n = s.slots * 80 / 100;
	KUNIT_ASSERT_EQ(test, chm_reserve(map, reserve, GFP_KERNEL), 0);
	for (key = 0; key < *n; key++) {
		KUNIT_ASSERT_EQ(test, cell_insert(map, key, key), 0);
		KUNIT_ASSERT_EQ(test, chm_cell_add(map, &key, 0, 2 * key), 0);
	}
	return map;
}

static void fault_expect(struct kunit *test, struct chm *map, u32 n)
{
	u64 key;

	for (key = 0; key < n; key++)
		KUNIT_EXPECT_EQ(test, cell_read(map, key), 3 * key);
	KUNIT_EXPECT_EQ(test, chm_verify(map), 0);
}

/* Return: whether allocation @nth was there to fail. */
static bool fault_once(struct kunit *test, unsigned long reserve, int nth,
		       int (*op)(struct chm *map, gfp_t gfp), bool all,
		       unsigned int *failures)
{
	struct chm_stats before, s;
	struct chm *map;
	bool fired;
	int ret;
	u32 n;

	map = fault_map(test, reserve, &n);
	chm_stats(map, &before);
	fail_allocations(nth, all);
	ret = op(map, GFP_KERNEL | __GFP_NOWARN);
	fired = end_failing();
	if (ret < 0) {
		KUNIT_EXPECT_EQ(test, ret, -ENOMEM);
		KUNIT_EXPECT_TRUE(test, fired);
		chm_stats(map, &s);
		KUNIT_EXPECT_GE(test, s.entries, n);
		KUNIT_EXPECT_EQ(test, s.chunks, before.chunks);
		KUNIT_EXPECT_GT(test, s.failed_allocs, before.failed_allocs);
		fault_expect(test, map, n);
		++*failures;
		ret = op(map, GFP_KERNEL);
	}
	KUNIT_EXPECT_GE(test, ret, 0);
	fault_expect(test, map, n);
	destroy_now(test, map);
	return fired;
}

static void fault_run(struct kunit *test, unsigned long reserve,
		      int (*op)(struct chm *map, gfp_t gfp))
{
	unsigned int failures[2] = { };
	u32 i;

	require_failures(test);
	for (i = 0; i < 2; i++) {
		int nth = 1;

		while (nth < 100 &&
		       fault_once(test, reserve, nth, op, i, &failures[i]))
			nth++;
		KUNIT_EXPECT_LT(test, nth, 100);
		kunit_info(test, "%u of %d failed allocations failed it\n",
			   failures[i], nth - 1);
	}
	/* The table. */
	KUNIT_EXPECT_GE(test, failures[1], 1);
}

static void chm_cell_growing_fails(struct kunit *test)
{
	fault_run(test, 0, fault_op_upsert_add);
}

static void chm_cell_reserving_fails(struct kunit *test)
{
	fault_run(test, 0, fault_op_reserve);
}

static void chm_cell_shrinking_fails(struct kunit *test)
{
	fault_run(test, 1000, fault_op_shrink);
}

/* === Suite =============================================================== */

static struct kunit_case chm_cell_cases[] = {
	KUNIT_CASE(chm_cell_params),
	KUNIT_CASE(chm_cell_lookup_updates_in_place),
	KUNIT_CASE(chm_cell_add_finds_words),
	KUNIT_CASE(chm_cell_add_is_for_longs),
	KUNIT_CASE(chm_cell_upsert_add_inserts),
	KUNIT_CASE(chm_cell_replace_in_place),
	KUNIT_CASE(chm_cell_walks),
	KUNIT_CASE(chm_cell_typed),
	KUNIT_CASE(chm_cell_accounts_for_snapshots),
	KUNIT_CASE(chm_cell_growth_waits_once_at_most),
	KUNIT_CASE(chm_cell_growth_merges),
	KUNIT_CASE(chm_cell_shrinking_merges),
	KUNIT_CASE(chm_cell_sync_growth_merges),
	KUNIT_CASE(chm_cell_reseed_merges),
	KUNIT_CASE(chm_cell_growth_merges_words),
	KUNIT_CASE(chm_cell_growth_calls_merge),
	KUNIT_CASE(chm_cell_take_has_all_updates),
	KUNIT_CASE(chm_cell_take_waits_for_a_crowd),
	KUNIT_CASE(chm_cell_drop_has_all_updates),
	KUNIT_CASE(chm_cell_drop_in_old_table),
	KUNIT_CASE(chm_cell_sums_are_exact),
	KUNIT_CASE(chm_cell_sums_of_hot_keys),
	KUNIT_CASE(chm_cell_sums_of_many_words),
	KUNIT_CASE(chm_cell_sums_by_merge),
	KUNIT_CASE(chm_cell_sums_through_churn),
	KUNIT_CASE(chm_cell_read_against_merge),
	KUNIT_CASE(chm_cell_read_against_adding),
	KUNIT_CASE(chm_cell_read_waits_for_merge),
	KUNIT_CASE(chm_cell_replace_against_updates),
	KUNIT_CASE(chm_cell_growing_fails),
	KUNIT_CASE(chm_cell_reserving_fails),
	KUNIT_CASE(chm_cell_shrinking_fails),
	{ }
};

static struct kunit_suite chm_cell_suite = {
	.name = "chm_cell",
	.test_cases = chm_cell_cases,
};

kunit_test_suites(&chm_cell_suite);

MODULE_DESCRIPTION("KUnit tests of chm: cells");
MODULE_LICENSE("GPL");
