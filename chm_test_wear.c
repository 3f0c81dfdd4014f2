// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of chm: what use does to a table, and how it recovers
 *
 * Every structure that can be worn out is worn out here: overflow filters, paths
 * that DEAD slots make long, tables that churn makes large, reservations filled
 * to the brim.  What counts is how lookups fare in the end.  That is computed from
 * the table, since time says little on a busy machine.
 */
#include <kunit/test.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/prandom.h>
#include <linux/sched.h>
#include <linux/timekeeping.h>

#include "chm_test.h"

static unsigned int scale = 100;
module_param(scale, uint, 0444);
MODULE_PARM_DESC(scale, "Size of the long tests in percent");

/* @n at the usual scale, but at least @least. */
static unsigned long scaled(unsigned long n, unsigned long least)
{
	return max(n * scale / 100, least);
}

/* === Figures of a table ================================================== */

/* What lookups cost. */
struct cost {
	u64		miss;		/* chunks for 1000 absent keys */
	u64		hit;		/* chunks for 1000 present keys */
	u32		longest;	/* chunks for the present key that takes most */
};

static unsigned long ctrl_of(const struct chm_table *t, u32 chunk)
{
	return __chm_chunk(t, chunk, t->p)->ctrl;
}

/*
 * Chunks that all absent keys visit together, one for each chunk and each bit of
 * the filter: all paths that end in the same chunk are a run of set bits.
 */
static u64 count_misses(const struct chm_table *t)
{
	u64 visits = 0;
	u32 bit, i;

	for (bit = 0; bit < 8; bit++) {
		u64 run = 0;

		/* Twice around, since a run may go on at the beginning. */
		for (i = 2 * t->nr_chunks; i; i--) {
			u32 chunk = (i - 1) % t->nr_chunks;

			if (ctrl_of(t, chunk) & chm_overflow_bit(bit))
				run = min_t(u64, run + 1, t->nr_chunks - 1);
			else
				run = 0;
			if (i <= t->nr_chunks)
				visits += 1 + run;
		}
	}
	return visits;
}

static void count_hits(const struct chm_table *t, u32 chunk, struct cost *c)
{
	unsigned long mask = chm_match_full(ctrl_of(t, chunk));
	u32 slot;

	chm_for_each_match(slot, mask) {
		const void *pair = __chm_slot(t, __chm_chunk(t, chunk, t->p), slot, t->p);
		u32 home = chm_home(__chm_hash(t, pair, t->p), t->nr_chunks);
		u32 visits = chm_distance(home, chunk, t->nr_chunks) + 1;

		c->hit += visits;
		c->longest = max(c->longest, visits);
	}
}

static struct cost cost_of(struct chm *map)
{
	const struct chm_table *t = lock_table(map);
	struct cost c = { };
	u32 i;

	if (t) {
		c.miss = div_u64(count_misses(t) * 1000, 8 * t->nr_chunks);
		for (i = 0; i < t->nr_chunks; i++)
			count_hits(t, i, &c);
		c.hit = div64_u64(c.hit * 1000, max(map->entries, 1UL));
	}
	unlock_table(map);
	return c;
}

/* Is @now at most @percent of @before, but for a hundredth of a chunk? */
static bool within(u64 now, u64 before, u32 percent)
{
	return now * 100 <= before * percent + 1000;
}

static void expect_cost(struct kunit *test, const struct cost *now,
			const struct cost *before, u32 percent)
{
	kunit_info(test, "measured: chunks for 1000 misses %llu, before %llu; for 1000 hits %llu, before %llu; longest %u, before %u",
		   now->miss, before->miss, now->hit, before->hit, now->longest,
		   before->longest);
	KUNIT_EXPECT_TRUE(test, within(now->miss, before->miss, percent));
	KUNIT_EXPECT_TRUE(test, within(now->hit, before->hit, percent));
}

/* Waits until nothing is left to be swept, freed, or copied again. */
static void wait_calm(struct kunit *test, struct chm *map)
{
	unsigned long end = jiffies + 20 * HZ;
	struct chm_stats s, then;

	s = stats_of(map);
	do {
		KUNIT_ASSERT_TRUE(test, time_before(jiffies, end));
		then = s;
		msleep(200);
		s = stats_of(map);
	} while (s.dead || s.retired_bytes || migrations(&s) != migrations(&then));
}

/* Removes and inserts again; returns whether one of them failed. */
static bool flap(struct chm *map, u64 key)
{
	return remove_key(map, key) || insert_key(map, key);
}

/* === Suite: chm_wear ===================================================== */

struct flap_case {
	const char	*name;
	u32		pairs;
	u32		keys;		/* that flap */
	u32		each;		/* times in a row */
};

static const struct flap_case flap_cases[] = {
	{ "8000_one_key", 8000, 1, 20000 },
	{ "8000_512_keys", 8000, 512, 40 },
	{ "8000_512_keys_in_turn", 8000, 512, 1 },
	{ "20000_one_key", 20000, 1, 20000 },
	{ "20000_512_keys", 20000, 512, 40 },
	{ "20000_512_keys_in_turn", 20000, 512, 1 },
};

KUNIT_ARRAY_PARAM_DESC(flap, flap_cases, name);

/* As the lookups during a test have it. */
static void note_longest(struct chm *map, u32 *longest)
{
	struct cost c = cost_of(map);

	*longest = max(*longest, c.longest);
}

/*
 * The same keys come and go.  While their DEAD slots wait for a grace period each
 * insertion finds its place further out, and would stay there.
 */
static void chm_wear_by_flapping_keys(struct kunit *test)
{
	const struct flap_case *c = test->param_value;
	unsigned long n, failed = 0, total = scaled(20480, 2048);
	struct chm *map = test_map(test, &u64_params);
	struct cost before, after;
	u32 longest = 0;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, c->pairs), 0);
	before = cost_of(map);
	for (n = 0; n < total; n++) {
		failed += flap(map, n / c->each % c->keys);
		if (n % (total / 32) == 0)
			note_longest(map, &longest);
		cond_resched();
	}
	note_longest(map, &longest);
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_LE(test, longest, 64);
	wait_calm(test, map);
	after = cost_of(map);
	expect_cost(test, &after, &before, 105);
	KUNIT_EXPECT_EQ(test, stats_of(map).reseeds, 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, c->pairs), 0);
	expect_sound(test, map);
}

/* As above, by replacing them. */
static void chm_wear_by_replacing_keys(struct kunit *test)
{
	const struct flap_case *c = test->param_value;
	unsigned long n, failed = 0, total = scaled(20480, 2048);
	struct chm *map = test_map(test, &u64_params);
	struct cost before, after;
	u32 longest = 0;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, c->pairs), 0);
	before = cost_of(map);
	for (n = 0; n < total; n++) {
		u64 key = n / c->each % c->keys, value = value_of(key);

		failed += chm_replace(map, &key, &value, GFP_KERNEL) != 0;
		if (n % (total / 32) == 0)
			note_longest(map, &longest);
		cond_resched();
	}
	note_longest(map, &longest);
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_LE(test, longest, 64);
	wait_calm(test, map);
	after = cost_of(map);
	expect_cost(test, &after, &before, 105);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, c->pairs), 0);
	expect_sound(test, map);
}

/*
 * A run of DEAD slots is no attack, however long a grace period takes: a reader
 * stays for all the time, in a table a third full.
 */
static void chm_wear_is_no_flood(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct long_reader *r;
	unsigned long n;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 16000, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 6400), 0);
	r = test_reader(test);
	for (n = 0; n < 400 && cost_of(map).longest <= 40; n++)
		KUNIT_ASSERT_FALSE(test, flap(map, 7));
	KUNIT_EXPECT_GT(test, cost_of(map).longest, 40);
	KUNIT_EXPECT_EQ(test, stats_of(map).reseeds, 0);
	stop_reader(test, r);
	wait_calm(test, map);
	expect_sound(test, map);
}

/* A few pairs, replaced all the time, get a table that has room for the dead. */
static void chm_wear_of_small_map_is_given_back(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	unsigned long n, failed = 0, bytes, most = 0;
	u64 key, value = 1;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 5), 0);
	bytes = stats_of(map).bytes;
	for (n = 0; n < scaled(40000, 4000); n++) {
		key = n % 5;
		failed += chm_replace(map, &key, &value, GFP_KERNEL) != 0;
		if (n % 256 == 0)
			most = max(most, stats_of(map).bytes);
	}
	KUNIT_EXPECT_EQ(test, failed, 0);
	wait_calm(test, map);
	kunit_info(test, "measured: %lu bytes, before %lu, at most %lu",
		   stats_of(map).bytes, bytes, most);
	KUNIT_EXPECT_LE(test, stats_of(map).bytes, bytes);
	KUNIT_EXPECT_EQ(test, chm_count(map), 5);
	expect_sound(test, map);
}

/* What is hardly used shrinks by itself, and goes when all pairs are gone. */
static void chm_wear_of_large_map_is_given_back(struct kunit *test)
{
	unsigned long n = scaled(50000, 5000);
	struct chm *map = test_map(test, &u64_params);
	struct chm_stats s;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, n), 0);
	KUNIT_ASSERT_EQ(test, remove_keys(map, 100, n), 0);
	wait_calm(test, map);
	s = stats_of(map);
	KUNIT_EXPECT_LE(test, s.slots, 200);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 100), 0);
	KUNIT_ASSERT_EQ(test, remove_keys(map, 0, 100), 0);
	wait_calm(test, map);
	KUNIT_EXPECT_EQ(test, stats_of(map).bytes, 0);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 100), 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 100), 0);
	expect_sound(test, map);
}

/* But not what was reserved, or asked for when the map was made. */
static void chm_wear_leaves_reservations(struct kunit *test)
{
	const struct chm_params p = {
		.key_size = 8, .value_size = 8, .min_entries = 3000,
	};
	struct chm *reserved = test_map(test, &u64_params);
	struct chm *large = test_map(test, &p);
	unsigned long slots;

	KUNIT_ASSERT_EQ(test, chm_reserve(reserved, 5000, GFP_KERNEL), 0);
	slots = stats_of(reserved).slots;
	KUNIT_ASSERT_EQ(test, insert_keys(reserved, 0, 10), 0);
	KUNIT_ASSERT_EQ(test, remove_keys(reserved, 0, 10), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(large, 0, 10), 0);
	KUNIT_ASSERT_EQ(test, remove_keys(large, 0, 9), 0);
	wait_calm(test, reserved);
	wait_calm(test, large);
	KUNIT_EXPECT_EQ(test, stats_of(reserved).slots, slots);
	KUNIT_EXPECT_GE(test, stats_of(large).slots, 3000);
}

/* Pairs come and go, first in first out, or at random. */
struct churn_case {
	const char	*name;
	u32		load;
	u32		pairs;		/* percent of what is reserved */
	bool		random;
};

static const struct churn_case churn_cases[] = {
	{ "99_of_80_random", 80, 99, true },
	{ "99_of_80_fifo", 80, 99, false },
	{ "100_of_90_random", 90, 100, true },
	{ "100_of_95_fifo", 95, 100, false },
	{ "70_of_80_random", 80, 70, true },
};

KUNIT_ARRAY_PARAM_DESC(churn, churn_cases, name);

struct churn {
	struct chm		*map;
	const struct churn_case	*of;
	struct rnd_state	rnd;
	u64			*keys;
	u32			n;
	u64			next;
	unsigned long		failed;
};

/* One pair goes and another one comes. */
static void churn_once(struct churn *c)
{
	u32 i = c->of->random ? prandom_u32_state(&c->rnd) % c->n : c->next % c->n;

	c->failed += remove_key(c->map, c->keys[i]) != 0;
	c->keys[i] = c->next++;
	c->failed += insert_key(c->map, c->keys[i]) != 0;
}

/* The mean of what lookups cost meanwhile. */
static struct cost churn_times(struct churn *c, unsigned long times)
{
	struct cost sum = { };
	unsigned long n;
	u32 samples = 0;

	for (n = 0; n < times; n++) {
		churn_once(c);
		if (n % (times / 16 + 1) == 0) {
			struct cost now = cost_of(c->map);

			sum.miss += now.miss;
			sum.hit += now.hit;
			sum.longest = max(sum.longest, now.longest);
			samples++;
		}
		cond_resched();
	}
	sum.miss = div_u64(sum.miss, samples);
	sum.hit = div_u64(sum.hit, samples);
	return sum;
}

static struct churn *churn_begin(struct kunit *test, u32 reserved)
{
	const struct churn_case *of = test->param_value;
	const struct chm_params p = {
		.key_size = 8, .value_size = 8, .max_load = of->load,
	};
	struct churn *c = test_alloc(test, sizeof(*c));

	c->of = of;
	c->n = reserved * of->pairs / 100;
	c->keys = test_alloc(test, c->n * sizeof(*c->keys));
	prandom_seed_state(&c->rnd, 1);
	c->map = test_map(test, &p);
	KUNIT_ASSERT_EQ(test, chm_reserve(c->map, reserved, GFP_KERNEL), 0);
	for (; c->next < c->n; c->next++)
		c->keys[c->next] = c->next;
	KUNIT_ASSERT_EQ(test, insert_keys(c->map, 0, c->n), 0);
	return c;
}

/* First against last tenth: no drift of lookups, displaced pairs, or memory. */
static void chm_wear_by_churn_does_not_drift(struct kunit *test)
{
	struct churn *c = churn_begin(test, scaled(20000, 2000));
	unsigned long tenth = scaled(100000, 5000);
	unsigned long reserved = stats_of(c->map).bytes;
	struct cost first, last;
	struct chm_stats s, end;

	/* The table is worn in after each pair was exchanged a few times. */
	churn_times(c, 3 * c->n);
	first = churn_times(c, tenth);
	s = stats_of(c->map);
	churn_times(c, 8 * tenth);
	last = churn_times(c, tenth);
	end = stats_of(c->map);
	KUNIT_EXPECT_EQ(test, c->failed, 0);
	expect_cost(test, &last, &first, 125);
	kunit_info(test, "measured: %lu displaced, before %lu, %lu bytes, before %lu, %lu migrations, %lu waits",
		   end.displaced, s.displaced, end.bytes, s.bytes, migrations(&end),
		   end.gp_waits);
	/* As much as DEAD slots may take; no more than a growth when all is over. */
	KUNIT_EXPECT_LE(test, end.bytes, max(2 * reserved, SZ_1M + SZ_64K));
	wait_calm(test, c->map);
	KUNIT_EXPECT_LE(test, stats_of(c->map).bytes, reserved + reserved / 2);
	KUNIT_EXPECT_EQ(test, chm_count(c->map), c->n);
	expect_sound(test, c->map);
}

/* --- Time --- */

/* The least of three times, for nothing but the host makes it longer. */
static u64 least_time(void (*call)(void *arg), void *arg)
{
	u64 least = U64_MAX;
	u32 i;

	for (i = 0; i < 3; i++) {
		u64 start = ktime_get_ns();

		call(arg);
		least = min(least, ktime_get_ns() - start);
		cond_resched();
	}
	return least;
}

static void walk_all(void *map)
{
	struct chm_iter it;

	chm_iter_init(&it, map);
	while (chm_iter_next(&it, NULL, NULL))
		cond_resched();
	chm_iter_exit(&it);
}

static void visit_all(void *map)
{
	struct chm_pos pos;
	bool more;

	rcu_read_lock();
	for (more = chm_pos_first(&pos, map); more; more = chm_pos_next(&pos))
		;
	rcu_read_unlock();
}

static void look_for_absent_keys(void *map)
{
	u64 key;

	for (key = 1ULL << 40; key < (1ULL << 40) + 10000; key++)
		(void)has_key(map, key);
}

static void expect_time(struct kunit *test, const char *what, u64 now, u64 before,
			u32 most)
{
	kunit_info(test, "measured: %s: %llu us, before %llu", what,
		   div_u64(now, 1000), div_u64(before, 1000));
	KUNIT_EXPECT_LE(test, now, before * most);
}

/* A table filled to the brim, after each pair was exchanged several times. */
static void chm_wear_of_full_table_costs_little_time(struct kunit *test)
{
	struct churn *c = churn_begin(test, scaled(30000, 3000));
	u64 walk = least_time(walk_all, c->map);
	u64 each = least_time(visit_all, c->map);
	u64 miss = least_time(look_for_absent_keys, c->map);
	u64 start, first, last;
	u32 i;

	start = ktime_get_ns();
	for (i = 0; i < c->n; i++)
		churn_once(c);
	first = ktime_get_ns() - start;
	for (i = 0; i < 3 * c->n; i++) {
		churn_once(c);
		cond_resched();
	}
	start = ktime_get_ns();
	for (i = 0; i < c->n; i++)
		churn_once(c);
	last = ktime_get_ns() - start;
	KUNIT_EXPECT_EQ(test, c->failed, 0);
	expect_time(test, "walk", least_time(walk_all, c->map), walk, 4);
	expect_time(test, "for_each", least_time(visit_all, c->map), each, 4);
	expect_time(test, "miss", least_time(look_for_absent_keys, c->map), miss, 4);
	expect_time(test, "exchange", last, first, 4);
}

/*
 * Queues and caches take the first pair again and again.  That costs no more the
 * more pairs were taken, whatever a new walk has to pass over.
 */
static void chm_wear_by_taking_the_first(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	u32 n = scaled(40000, 4000), i, part = n / 8;
	u64 key, start, first = 0, last = 0;
	unsigned long failed = 0;
	struct chm_iter it;

	/* In a table of its own size; shrinking would help. */
	KUNIT_ASSERT_EQ(test, chm_reserve(map, n, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, n), 0);
	for (i = 0; i < n; i++) {
		start = ktime_get_ns();
		chm_iter_init(&it, map);
		failed += !chm_iter_next(&it, &key, NULL);
		chm_iter_exit(&it);
		failed += remove_key(map, key) != 0;
		if (i < part)
			first += ktime_get_ns() - start;
		else if (i >= n - part)
			last += ktime_get_ns() - start;
		cond_resched();
	}
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_EQ(test, chm_count(map), 0);
	expect_time(test, "taking an eighth", last, first, 4);
}

/* --- In the order of the hashes --- */

/* All keys of the map, as a walk finds them. */
static u32 save(struct chm *map, u64 *keys)
{
	struct chm_iter it;
	u32 n = 0;

	chm_iter_init(&it, map);
	while (chm_iter_next(&it, &keys[n], NULL))
		n++;
	chm_iter_exit(&it);
	return n;
}

static void restore(struct kunit *test, struct chm *map, const u64 *keys, u32 n)
{
	unsigned long failed = 0;
	u32 i;

	for (i = 0; i < n; i++)
		failed += insert_key(map, keys[i]) != 0;
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_EQ(test, chm_count(map), n);
	KUNIT_EXPECT_EQ(test, stats_of(map).reseeds, 0);
	KUNIT_EXPECT_LE(test, stats_of(map).longest_probe, 64);
	expect_sound(test, map);
}

/* A map is saved by a walk, emptied, and filled again. */
static void chm_wear_by_restoring(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	u32 n = scaled(20000, 2000);
	u64 *keys = test_alloc(test, n * sizeof(*keys));

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, n), 0);
	KUNIT_ASSERT_EQ(test, save(map, keys), n);
	chm_clear(map);
	KUNIT_ASSERT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	restore(test, map, keys, n);
}

/* A walk is open meanwhile.  It ends, since no key was there all the time. */
static void chm_wear_by_restoring_during_walk(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	u32 n = scaled(20000, 2000), seen = 0;
	u64 *keys = test_alloc(test, n * sizeof(*keys));
	struct chm_iter it;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, n), 0);
	KUNIT_ASSERT_EQ(test, save(map, keys), n);
	chm_iter_init(&it, map);
	while (seen < n / 2 && chm_iter_next(&it, NULL, NULL))
		seen++;
	KUNIT_EXPECT_EQ(test, seen, n / 2);
	chm_clear(map);
	KUNIT_ASSERT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	restore(test, map, keys, n);
	KUNIT_EXPECT_FALSE(test, chm_iter_next(&it, NULL, NULL));
	chm_iter_exit(&it);
}

/*
 * Not emptied, but nearly: the seed stays, and the defence has to help.  That is
 * no reason for a slower hash.
 */
static void chm_wear_by_restoring_most(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	u32 n = scaled(20000, 2000), i;
	u64 *keys = test_alloc(test, n * sizeof(*keys));
	unsigned long failed = 0;
	struct chm_table *t;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, n), 0);
	KUNIT_ASSERT_EQ(test, save(map, keys), n);
	for (i = 1; i < n; i++)
		failed += remove_key(map, keys[i]) != 0;
	KUNIT_ASSERT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	for (i = 1; i < n; i++)
		failed += insert_key(map, keys[i]) != 0;
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_LE(test, stats_of(map).longest_probe, 64);
	t = lock_table(map);
	KUNIT_EXPECT_FALSE(test, t->use_siphash);
	unlock_table(map);
	expect_sound(test, map);
}

/* --- Memory --- */

static unsigned long asked_for, insisted;

/* Counts allocations, and those that may do harm to others. */
static void *counting_alloc(u64 bytes, gfp_t gfp)
{
	asked_for++;
	insisted += !(gfp & __GFP_NORETRY);
	return kvmalloc(bytes, gfp) ?: ERR_PTR(-ENOMEM);
}

/*
 * Within a reservation a new table is one way to get rid of DEAD slots, waiting is
 * another: nobody shall be killed for it.
 */
static void chm_wear_kills_nobody(struct kunit *test)
{
	struct churn *c = churn_begin(test, scaled(4000, 1000));
	struct long_reader *r;
	u32 i;

	asked_for = 0;
	insisted = 0;
	kunit_activate_static_stub(test, chm_alloc, counting_alloc);
	r = test_reader(test);
	for (i = 0; i < c->n && !asked_for; i++)
		churn_once(c);
	stop_reader(test, r);
	for (i = 0; i < 4 * c->n; i++)
		churn_once(c);
	KUNIT_EXPECT_EQ(test, c->failed, 0);
	KUNIT_EXPECT_GT(test, asked_for, 0);
	KUNIT_EXPECT_EQ(test, insisted, 0);
	expect_sound(test, c->map);
}

static void *no_alloc(u64 bytes, gfp_t gfp)
{
	asked_for++;
	return ERR_PTR(-ENOMEM);
}

static u64 hash_nothing(const void *key, u64 hash_seed)
{
	return 0;
}

/* The defence that can't have its table does not ask at each insertion. */
static void chm_wear_of_defence_without_memory(struct kunit *test)
{
	const struct chm_params p = {
		.key_size = 8, .value_size = 8, .hash = hash_nothing,
	};
	struct chm *map = test_map(test, &p);

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 4000, GFP_KERNEL), 0);
	asked_for = 0;
	kunit_activate_static_stub(test, chm_alloc, no_alloc);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 1500), 0);
	KUNIT_EXPECT_GE(test, asked_for, 1);
	KUNIT_EXPECT_LE(test, asked_for, 8);
	kunit_deactivate_static_stub(test, chm_alloc);
	expect_sound(test, map);
}

static struct kunit_case chm_wear_cases[] = {
	KUNIT_CASE_PARAM(chm_wear_by_flapping_keys, flap_gen_params),
	KUNIT_CASE_PARAM(chm_wear_by_replacing_keys, flap_gen_params),
	KUNIT_CASE(chm_wear_is_no_flood),
	KUNIT_CASE(chm_wear_of_small_map_is_given_back),
	KUNIT_CASE(chm_wear_of_large_map_is_given_back),
	KUNIT_CASE(chm_wear_leaves_reservations),
	KUNIT_CASE_PARAM(chm_wear_by_churn_does_not_drift, churn_gen_params),
	KUNIT_CASE_PARAM(chm_wear_of_full_table_costs_little_time, churn_gen_params),
	KUNIT_CASE(chm_wear_by_taking_the_first),
	KUNIT_CASE(chm_wear_by_restoring),
	KUNIT_CASE(chm_wear_by_restoring_during_walk),
	KUNIT_CASE(chm_wear_by_restoring_most),
	KUNIT_CASE_PARAM(chm_wear_kills_nobody, churn_gen_params),
	KUNIT_CASE(chm_wear_of_defence_without_memory),
	{}
};

static struct kunit_suite chm_wear_suite = {
	.name = "chm_wear",
	.test_cases = chm_wear_cases,
};

/* === Module ============================================================== */

kunit_test_suites(&chm_wear_suite);

MODULE_DESCRIPTION("KUnit tests of chm: wear");
MODULE_LICENSE("GPL");
