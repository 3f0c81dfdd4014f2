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

static unsigned long migrations_of(struct chm *map)
{
	struct chm_stats s = stats_of(map);

	return migrations(&s);
}

static struct cost cost_of(struct chm *map)
{
	unsigned long flags;
	const struct chm_table *t = lock_table(map, &flags);
	struct cost c = { };
	u32 i;

	if (t) {
		c.miss = div_u64(count_misses(t) * 1000, 8 * t->nr_chunks);
		for (i = 0; i < t->nr_chunks; i++)
			count_hits(t, i, &c);
		c.hit = div64_u64(c.hit * 1000, max(map->entries, 1UL));
	}
	unlock_table(map, &flags);
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

/* How long the worker does not tidy the map: it looks each second. */
static unsigned int untidy_ms(struct chm *map)
{
	unsigned long flags;
	s32 left;

	lock_table(map, &flags);
	left = map->tidy_from + 2 - (u32)ktime_get_seconds();
	unlock_table(map, &flags);
	return left > 0 ? left * MSEC_PER_SEC : 0;
}

/* Waits until nothing is left to be swept, freed, or copied. */
static void wait_calm(struct kunit *test, struct chm *map)
{
	unsigned long end = jiffies + 60 * HZ;
	struct chm_stats s, then;

	s = stats_of(map);
	do {
		KUNIT_ASSERT_TRUE(test, time_before(jiffies, end));
		then = s;
		msleep(200 + untidy_ms(map));
		s = stats_of(map);
	} while (s.dead || !is_settled(map) || untidy_ms(map) ||
		 migrations(&s) != migrations(&then));
}

/* Stubs of chm_alloc() count, and how often they must not be refused. */
static unsigned long asked_for, insisted;

static void *no_alloc(u64 bytes, gfp_t gfp)
{
	asked_for++;
	return ERR_PTR(-ENOMEM);
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
	KUNIT_ASSERT_TRUE(test, settle(map));
	before = cost_of(map);
	for (n = 0; n < total; n++) {
		failed += flap(map, n / c->each % c->keys);
		if (n % (total / 32) == 0)
			note_longest(map, &longest);
		cond_resched();
	}
	note_longest(map, &longest);
	KUNIT_EXPECT_EQ(test, failed, 0);
	/* Some while a fresh table is being filled. */
	KUNIT_EXPECT_LE(test, longest, 96);
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
	KUNIT_ASSERT_TRUE(test, settle(map));
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
	/* Some while a fresh table is being filled. */
	KUNIT_EXPECT_LE(test, longest, 96);
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

/* A moment of flapping is forgotten, however few the writes were. */
struct moment_case {
	const char	*name;
	u32		pairs;
	u32		flaps;
};

static const struct moment_case moment_cases[] = {
	{ "20000_a_little", 20000, 110 },
	{ "20000", 20000, 190 },
	{ "200000", 200000, 500 },
};

KUNIT_ARRAY_PARAM_DESC(moment, moment_cases, name);

/* As far from home as a pair may lie in a map that is tidy. */
static u32 usual_distance(struct chm *map)
{
	unsigned long flags;
	u32 longest = lock_table(map, &flags)->built_longest;

	unlock_table(map, &flags);
	return max(16, 2 * longest);
}

static u32 distance_of(struct chm *map, u64 key)
{
	unsigned long flags;
	const struct chm_table *t = lock_table(map, &flags);
	u32 home, chunk, distance;
	const u64 *value;

	rcu_read_lock();
	value = chm_lookup(map, &key);
	home = chm_home(__chm_hash(t, &key, t->p), t->nr_chunks);
	chunk = div64_ul((void *)value - (void *)(t + 1), t->stride);
	rcu_read_unlock();
	distance = chm_distance(home, chunk, t->nr_chunks);
	unlock_table(map, &flags);
	return distance;
}

/*
 * Another fresh table would be due if the key strayed farther: it can't be retired
 * while the reader is there, and the writer would rightly wait.
 */
static bool strayed_again(struct chm *map, u64 key)
{
	return READ_ONCE(map->retired_bytes) && distance_of(map, key) > 16;
}

static void chm_wear_by_a_moment_of_flapping(struct kunit *test)
{
	const struct moment_case *c = test->param_value;
	struct chm *map = test_map(test, &u64_params);
	struct long_reader *r;
	u32 i, far;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, c->pairs), 0);
	KUNIT_ASSERT_EQ(test, chm_reserve(map, c->pairs * 5 / 4, GFP_KERNEL), 0);
	wait_calm(test, map);
	r = test_reader(test);
	for (i = 0; i < c->flaps && !strayed_again(map, 7); i++)
		KUNIT_ASSERT_FALSE(test, flap(map, 7));
	stop_reader(test, r);
	far = distance_of(map, 7);
	wait_calm(test, map);
	kunit_info(test, "measured: %u chunks from home, then %u", far, distance_of(map, 7));
	KUNIT_EXPECT_LE(test, distance_of(map, 7), usual_distance(map));
	expect_sound(test, map);
}

/*
 * A key that has strayed too far has its writer take a fresh table.  The writer finds it
 * there by then: it does not take another one, nor wait for the reader.
 */
static void chm_wear_by_flapping_takes_one_table(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct chm_stats before, after;
	struct long_reader *r;
	u32 i;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 900, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 500), 0);
	wait_calm(test, map);
	before = stats_of(map);
	after = before;
	r = test_reader(test);
	for (i = 0; i < 1000 && migrations(&after) == migrations(&before); i++) {
		KUNIT_ASSERT_FALSE(test, flap(map, 7));
		after = stats_of(map);
	}
	stop_reader(test, r);
	KUNIT_EXPECT_EQ(test, after.rehashes, before.rehashes + 1);
	KUNIT_EXPECT_EQ(test, after.gp_waits, before.gp_waits);
	expect_sound(test, map);
}

/*
 * One key is replaced all the time, and strays from home again and again.  That is no
 * reason to copy a large table more often than once for some of its chunks' writes, or
 * once a second.
 */
static void chm_wear_by_a_hot_key_is_cheap(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	unsigned long before, most;
	u64 end, key = 7, n;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, scaled(300000, 20000)), 0);
	wait_calm(test, map);
	before = migrations_of(map);
	end = ktime_get_ns() + 3 * NSEC_PER_SEC;
	for (n = 0; ktime_get_ns() < end; n++) {
		KUNIT_ASSERT_EQ(test, chm_replace(map, &key, &n, GFP_KERNEL), 0);
		usleep_range(500, 1000);
	}
	most = n * 64 / stats_of(map).chunks + 3 + 1;
	kunit_info(test, "measured: %llu replacements, moved %lu times, at most %lu", n,
		   migrations_of(map) - before, most);
	KUNIT_EXPECT_LE(test, migrations_of(map) - before, most);
	wait_calm(test, map);
	KUNIT_EXPECT_LE(test, distance_of(map, 7), usual_distance(map));
	expect_sound(test, map);
}

static const u32 maxima[] = { 9, 0 };

static void describe_maximum(const u32 *max, char *desc)
{
	strscpy(desc, *max ? "at_its_maximum" : "without_one", KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(maximum, maxima, describe_maximum);

/* A table that is large for DEAD slots is not too large as soon as it has none. */
static void chm_wear_of_small_cache_does_not_flap(struct kunit *test)
{
	const u32 *max = test->param_value;
	const struct chm_params p = {
		.key_size = 8, .value_size = 8, .max_entries = *max,
	};
	struct chm *map = test_map(test, &p);
	u64 end, key;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 9), 0);
	wait_calm(test, map);
	end = ktime_get_ns() + 2 * NSEC_PER_SEC;
	for (key = 9; ktime_get_ns() < end; key++) {
		KUNIT_ASSERT_EQ(test, remove_key(map, key - 9), 0);
		KUNIT_ASSERT_EQ(test, insert_key(map, key), 0);
		if (key % 16 == 0)
			usleep_range(500, 1000);
	}
	kunit_info(test, "measured: %llu evictions, %lu shrinks", key - 9,
		   stats_of(map).shrinks);
	KUNIT_EXPECT_LE(test, stats_of(map).shrinks, 4);
	wait_calm(test, map);
	KUNIT_EXPECT_LE(test, stats_of(map).slots, 6 * CHM_SLOTS);
	expect_sound(test, map);
}

/* What is hardly used shrinks by itself, and goes when all pairs are gone. */
static void chm_wear_of_large_map_is_given_back(struct kunit *test)
{
	unsigned long n = scaled(50000, 5000);
	struct chm *map = test_map(test, &u64_params);

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, n), 0);
	KUNIT_ASSERT_EQ(test, remove_keys(map, 100, n), 0);
	wait_calm(test, map);
	KUNIT_EXPECT_LE(test, stats_of(map).bytes, SZ_4K);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 100), 0);
	KUNIT_ASSERT_EQ(test, remove_keys(map, 0, 100), 0);
	wait_calm(test, map);
	KUNIT_EXPECT_EQ(test, stats_of(map).bytes, 0);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 100), 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 100), 0);
	expect_sound(test, map);
}

/* Filled so fast that earlier tables wait for readers meanwhile, it grows by more. */
static void chm_wear_of_fast_fill_is_given_back(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	unsigned long n;

	for (n = 20000; n < scaled(130000, 30000); n = n * 13 / 10) {
		chm_clear(map);
		KUNIT_ASSERT_EQ(test, insert_keys(map, 0, n), 0);
		wait_calm(test, map);
		kunit_info(test, "measured: %lu pairs, %lu bytes for each", n,
			   stats_of(map).bytes / n);
		KUNIT_EXPECT_LE(test, stats_of(map).bytes, 38 * n);
	}
	expect_sound(test, map);
}

/* All pairs that may come, an eighth more, and what there is besides in the last page. */
static unsigned long most_slots(unsigned long max_entries)
{
	return max_entries * 10 / 7 + PAGE_SIZE / 16;
}

/* Nor is there more than the last growth needs if that is to the maximum. */
static void chm_wear_of_fast_fill_to_maximum(struct kunit *test)
{
	struct chm *maps[24];
	struct chm_params p = {
		.key_size = 8, .value_size = 8, .class = CHM_CELL,
	};
	unsigned long n = scaled(20000, 5000);
	u32 i;

	for (i = 0; i < ARRAY_SIZE(maps); i++, n = n * 108 / 100) {
		p.max_entries = n;
		maps[i] = test_map(test, &p);
		KUNIT_ASSERT_EQ(test, insert_keys(maps[i], 0, n), 0);
	}
	for (i = 0; i < ARRAY_SIZE(maps); i++) {
		struct chm_stats s;

		wait_calm(test, maps[i]);
		s = stats_of(maps[i]);
		KUNIT_EXPECT_LE_MSG(test, s.slots, most_slots(s.entries), "%lu pairs",
				    s.entries);
	}
}

/* Also while there is always something to do, but little. */
static void chm_wear_of_large_map_is_given_back_early(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	unsigned long n = scaled(50000, 5000), end, exchanges = 0;
	u64 key = 0;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, n), 0);
	KUNIT_ASSERT_EQ(test, remove_keys(map, 100, n), 0);
	for (end = jiffies + 10 * HZ; time_before(jiffies, end); exchanges++) {
		if (stats_of(map).slots <= 800)
			break;
		key = (key + 1) % 100;
		KUNIT_ASSERT_FALSE(test, flap(map, key));
		usleep_range(1000, 2000);
	}
	kunit_info(test, "measured: %lu slots after %lu exchanges", stats_of(map).slots,
		   exchanges);
	KUNIT_EXPECT_LE(test, stats_of(map).slots, 800);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 100), 0);
	expect_sound(test, map);
}

/* A table that is small for its pairs from the start is not made smaller each time. */
static void chm_wear_of_draining_map_copies_little(struct kunit *test)
{
	const struct chm_params p = {
		.key_size = 8, .value_size = 8, .max_load = 50, .growth = 400,
	};
	struct chm *map = test_map(test, &p);
	u64 key, end;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 2000), 0);
	/* To where the eighth begins, and then slowly to two thirds of that. */
	for (key = 0; 8 * chm_count(map) > stats_of(map).slots; key++)
		KUNIT_ASSERT_EQ(test, remove_key(map, key), 0);
	for (end = key + chm_count(map) / 3; key < end; key++) {
		KUNIT_ASSERT_EQ(test, remove_key(map, key), 0);
		if (key % 6)
			continue;
		KUNIT_ASSERT_TRUE(test, wait_dead(map));
		/* Some seconds in all: it is not tidied more often. */
		msleep(100);
	}
	KUNIT_EXPECT_LE(test, stats_of(map).shrinks, 2);
	expect_sound(test, map);
}

/* The worker's last turn at a map comes while somebody reserves: it comes once more. */
static void chm_wear_beside_reservation(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 1000), 0);
	claim(map, 1);
	KUNIT_ASSERT_EQ(test, remove_keys(map, 0, 1000), 0);
	KUNIT_EXPECT_TRUE(test, wait_for_zero(map, offsetof(struct chm_stats, dead)));
	msleep(200);
	KUNIT_EXPECT_NE(test, stats_of(map).bytes, 0);
	claim(map, -1);
	KUNIT_EXPECT_TRUE(test, wait_for_zero(map, offsetof(struct chm_stats, bytes)));
}

/* A promise that ends is no reason to keep memory. */
static void chm_wear_of_ended_reservation(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 20000, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, chm_reserve(map, 0, GFP_KERNEL), 0);
	KUNIT_EXPECT_TRUE(test, wait_for_zero(map, offsetof(struct chm_stats, bytes)));
	KUNIT_ASSERT_EQ(test, chm_reserve(map, 20000, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 10), 0);
	KUNIT_ASSERT_EQ(test, chm_reserve(map, 100, GFP_KERNEL), 0);
	wait_calm(test, map);
	KUNIT_EXPECT_LE(test, stats_of(map).slots, 300);
	KUNIT_EXPECT_GE(test, stats_of(map).slots, 100);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 10), 0);
}

/*
 * A cache that holds as many pairs as it may, each of which makes way for another one,
 * has room for an eighth more at most when it is calm.
 */
static void chm_wear_of_full_cache_is_given_back(struct kunit *test)
{
	unsigned long n = scaled(20000, 2000), failed = 0;
	const struct chm_params p = {
		.key_size = 8, .value_size = 8, .max_entries = n,
	};
	struct chm *map = test_map(test, &p);
	unsigned long rehashes;
	u64 key;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, n), 0);
	for (key = n; key < 5 * n; key++)
		failed += remove_key(map, key - n) || insert_key(map, key);
	/* As a worn table is, it is moved once more while it is so large. */
	rehashes = stats_of(map).rehashes;
	WRITE_ONCE(chm_restless, true);
	for (; stats_of(map).rehashes == rehashes && key < 50 * n; key++)
		failed += remove_key(map, key - n) || insert_key(map, key);
	WRITE_ONCE(chm_restless, false);
	KUNIT_EXPECT_GT(test, stats_of(map).rehashes, rehashes);
	KUNIT_EXPECT_EQ(test, failed, 0);
	wait_calm(test, map);
	KUNIT_EXPECT_LE(test, stats_of(map).slots, most_slots(n));
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
	KUNIT_ASSERT_EQ(test, remove_keys(large, 0, 10), 0);
	wait_calm(test, reserved);
	wait_calm(test, large);
	KUNIT_EXPECT_EQ(test, stats_of(reserved).slots, slots);
	KUNIT_EXPECT_GE(test, stats_of(large).slots, 3000);
	KUNIT_EXPECT_EQ(test, stats_of(large).shrinks, 0);
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

/* The largest, or the least, means of three such times. */
static struct cost churn_thrice(struct churn *c, unsigned long times, bool largest)
{
	struct cost sum = churn_times(c, times);
	u32 i;

	for (i = 1; i < 3; i++) {
		struct cost now = churn_times(c, times);

		sum.miss = largest ? max(sum.miss, now.miss) : min(sum.miss, now.miss);
		sum.hit = largest ? max(sum.hit, now.hit) : min(sum.hit, now.hit);
	}
	return sum;
}

static struct churn *churn_begin(struct kunit *test, u32 reserved,
				 enum chm_reclaim reclaim)
{
	const struct churn_case *of = test->param_value;
	const struct chm_params p = {
		.key_size = 8, .value_size = 8, .max_load = of->load,
		.reclaim = reclaim,
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

/*
 * First against last tenths: no drift of lookups, displaced pairs, or memory.  Tables
 * have good and bad times, by when they are replaced: each of the last three would have
 * to be worse than any of the first.
 */
static void chm_wear_by_churn_does_not_drift(struct kunit *test)
{
	struct churn *c = churn_begin(test, scaled(20000, 2000), CHM_DEFERRED);
	unsigned long tenth = scaled(100000, 5000);
	unsigned long reserved = stats_of(c->map).bytes;
	struct cost first, last;
	struct chm_stats s, end;

	/* The table is worn in after each pair was exchanged a few times. */
	churn_times(c, 3 * c->n);
	first = churn_thrice(c, tenth, true);
	s = stats_of(c->map);
	churn_times(c, 4 * tenth);
	last = churn_thrice(c, tenth, false);
	end = stats_of(c->map);
	KUNIT_EXPECT_EQ(test, c->failed, 0);
	expect_cost(test, &last, &first, 130);
	kunit_info(test, "measured: %lu displaced, before %lu, %lu bytes, before %lu, %lu migrations, %lu waits",
		   end.displaced, s.displaced, end.bytes, s.bytes, migrations(&end),
		   end.gp_waits);
	/* As much as DEAD slots may take; a growth and an eighth more when all is over. */
	KUNIT_EXPECT_LE(test, end.bytes, max(2 * reserved, SZ_1M + SZ_64K));
	wait_calm(test, c->map);
	KUNIT_EXPECT_LE(test, stats_of(c->map).bytes, reserved * 8 / 5);
	KUNIT_EXPECT_EQ(test, chm_count(c->map), c->n);
	expect_sound(test, c->map);
}

/* --- Time --- */

/* The least of several times, for nothing but the host makes it longer. */
static u64 least_time(void (*call)(struct churn *c), struct churn *c)
{
	u64 least = U64_MAX;
	u32 i;

	for (i = 0; i < 8; i++) {
		u64 start = ktime_get_ns();

		call(c);
		least = min(least, ktime_get_ns() - start);
		cond_resched();
	}
	return least;
}

static void exchange_some(struct churn *c)
{
	u32 i;

	for (i = 0; i < c->n / 8; i++) {
		churn_once(c);
		cond_resched();
	}
}

static void walk_all(struct chm *map)
{
	struct chm_iter it;

	chm_iter_init(&it, map);
	while (chm_iter_next(&it, NULL, NULL))
		cond_resched();
}

static void walk_pairs(struct churn *c)
{
	walk_all(c->map);
}

static void visit_pairs(struct churn *c)
{
	struct chm_pos pos;
	bool more;

	rcu_read_lock();
	for (more = chm_pos_first(&pos, c->map); more; more = chm_pos_next(&pos))
		;
	rcu_read_unlock();
}

static void look_for_absent_keys(struct churn *c)
{
	u64 key;

	for (key = 1ULL << 40; key < (1ULL << 40) + 10000; key++)
		(void)has_key(c->map, key);
}

static void tell_time(struct kunit *test, const char *what, u64 now, u64 before)
{
	kunit_info(test, "measured: %s: %llu us, before %llu", what,
		   div_u64(now, 1000), div_u64(before, 1000));
}

/*
 * A busy host may slow down all that runs for seconds.  Try again, in a table that is
 * no less worn: a call that has become slower by itself is slow each time.
 */
static void expect_time(struct kunit *test, const char *what,
			void (*call)(struct churn *c), struct churn *c, u64 before)
{
	u64 now = least_time(call, c);
	u32 i;

	for (i = 0; i < 30 && now > 4 * before; i++) {
		exchange_some(c);
		now = least_time(call, c);
	}
	tell_time(test, what, now, before);
	KUNIT_EXPECT_LE(test, now, 4 * before);
}

/* A table filled to the brim, after each pair was exchanged several times. */
static void chm_wear_of_full_table_costs_little_time(struct kunit *test)
{
	struct churn *c = churn_begin(test, scaled(30000, 3000), CHM_DEFERRED);
	u64 walk = least_time(walk_pairs, c);
	u64 each = least_time(visit_pairs, c);
	u64 miss = least_time(look_for_absent_keys, c);
	u64 exchange = least_time(exchange_some, c);
	u32 i;

	for (i = 0; i < 32; i++)
		exchange_some(c);
	expect_time(test, "walk", walk_pairs, c, walk);
	expect_time(test, "for_each", visit_pairs, c, each);
	expect_time(test, "miss", look_for_absent_keys, c, miss);
	expect_time(test, "exchange", exchange_some, c, exchange);
	KUNIT_EXPECT_EQ(test, c->failed, 0);
}

/* Find the first pair and remove it; whether that failed. */
static bool take_first(struct chm *map)
{
	struct chm_iter it;
	bool found;
	u64 key;

	chm_iter_init(&it, map);
	found = chm_iter_next(&it, &key, NULL);
	return !found || remove_key(map, key);
}

/* The times of the first and of the last quarter: of each, the best of several parts. */
struct quarters {
	u64	first;
	u64	last;
};

#define PARTS	32U

static struct quarters take_all(struct kunit *test, const struct chm_params *p, u32 n)
{
	struct quarters best = { U64_MAX, U64_MAX };
	struct chm *map = test_map(test, p);
	unsigned long failed = 0;
	u32 part, i;

	/* In a table of its own size; shrinking would help. */
	KUNIT_EXPECT_EQ(test, chm_reserve(map, n, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, n), 0);
	for (part = 0; part < PARTS; part++) {
		u64 start = ktime_get_ns(), ns;

		for (i = 0; i < n / PARTS; i++) {
			failed += take_first(map);
			cond_resched();
		}
		ns = ktime_get_ns() - start;
		if (part < PARTS / 4)
			best.first = min(best.first, ns);
		else if (part >= 3 * PARTS / 4)
			best.last = min(best.last, ns);
	}
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_EQ(test, chm_count(map), 0);
	return best;
}

/*
 * Queues and caches take the first pair again and again.  That costs no more the
 * more pairs were taken, whatever a new walk has to pass over.  Try again as in
 * expect_time().
 */
static void chm_wear_by_taking_the_first(struct kunit *test)
{
	const struct churn_case *of = test->param_value;
	const struct chm_params p = {
		.key_size = 8, .value_size = 8, .max_load = of->load,
	};
	u32 n = scaled(40000, 4000) / PARTS * PARTS, most = of->load > 90 ? 16 : 4, i;
	struct quarters took = take_all(test, &p, n);

	for (i = 0; i < 4 && took.last > most * took.first; i++)
		took = take_all(test, &p, n);
	tell_time(test, "taking one in 32", took.last, took.first);
	KUNIT_EXPECT_LE(test, took.last, most * took.first);
}

/*
 * A queue at constant size: the pairs gather where walks come last.  A fresh seed
 * spreads them; that is no reason for a slower hash, unless the table is so full
 * that it is due all the time.
 */
static void chm_wear_of_queue(struct kunit *test)
{
	const struct churn_case *of = test->param_value;
	const struct chm_params p = {
		.key_size = 8, .value_size = 8, .max_load = of->load,
	};
	u32 n = scaled(20000, 5000) * of->pairs / 100, longest = 0;
	struct chm *map = test_map(test, &p);
	unsigned long failed = 0;
	struct chm_stats end;
	unsigned long flags;
	bool slow;
	u64 i;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, scaled(20000, 5000), GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, n), 0);
	for (i = n; i < 6 * n; i++) {
		failed += take_first(map) || insert_key(map, i);
		if (i % 256 == 0)
			note_longest(map, &longest);
		cond_resched();
	}
	KUNIT_EXPECT_EQ(test, failed, 0);
	end = stats_of(map);
	kunit_info(test, "measured: %lu reseeds, paths of up to %u chunks, %lu migrations, %lu waits",
		   end.reseeds, longest, migrations(&end), end.gp_waits);
	/* A table may have to wait for its readers before the next one comes. */
	KUNIT_EXPECT_LE(test, longest, of->load <= 80 ? 1024 : 2048);
	slow = lock_table(map, &flags)->use_siphash;
	unlock_table(map, &flags);
	KUNIT_EXPECT_FALSE(test, slow && of->load <= 80);
	expect_sound(test, map);
}

/* --- Work --- */

/* What a call looks at, it hashes.  The worker does not count. */
static struct task_struct *hashing;
static long hashed;

static u64 hash_counted(const void *key, u64 hash_seed)
{
	if (current == hashing)
		hashed++;
	return unmix(chm_fold(chm_fold(*(const u64 *)key)), hash_seed);
}

/* All pairs have one home, and need the same bit of the filters behind it. */
static u64 hash_counted_one_run(const void *key, u64 hash_seed)
{
	if (current == hashing)
		hashed++;
	return unmix(1ULL << 62 | (u32)(chm_fold(*(const u64 *)key) | 7), hash_seed);
}

static struct chm *full_map(struct kunit *test, u32 n,
			    u64 (*hash)(const void *key, u64 hash_seed))
{
	const struct chm_params p = {
		.key_size = 8, .value_size = 8, .max_load = 95, .hash = hash,
	};
	struct chm *map = test_map(test, &p);

	hashing = current;
	KUNIT_ASSERT_EQ(test, chm_reserve(map, n, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, n), 0);
	/* Not the work of a fresh seed */
	KUNIT_ASSERT_TRUE(test, settle(map));
	return map;
}

/* A removal looks for others that need its bits, but not for ever. */
static void chm_wear_of_long_runs_spares_removals(struct kunit *test)
{
	u32 n = scaled(6000, 3000);
	struct chm *map = full_map(test, n, hash_counted_one_run);
	long most = 0, calls;
	u64 key;

	/* Those near home, and not at home, have the whole run behind them. */
	for (key = 10; key < 100; key++) {
		calls = hashed;
		KUNIT_EXPECT_EQ(test, remove_key(map, key), 0);
		most = max(most, hashed - calls);
	}
	kunit_info(test, "measured: %ld pairs hashed for a removal", most);
	/* In both tables, and it copies, if a fresh seed comes meanwhile. */
	KUNIT_EXPECT_LE(test, most, (2 * 256 + 128) * CHM_SLOTS);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 100, n), 0);
	expect_sound(test, map);
}

/* A walk follows only what a pair of its home may have followed. */
static void chm_wear_of_long_runs_spares_walks(struct kunit *test)
{
	u32 n = scaled(30000, 10000);
	struct chm *map = full_map(test, n, hash_counted);
	long calls = hashed;

	walk_all(map);
	calls = hashed - calls;
	kunit_info(test, "measured: %ld pairs hashed for each one visited", calls / n);
	KUNIT_EXPECT_LE(test, calls / n, 100);
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
	KUNIT_ASSERT_TRUE(test, settle(map));
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

/* What was reserved is there all the time, and has another seed after chm_clear(). */
static void chm_wear_by_restoring_what_was_reserved(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	u32 n = scaled(20000, 2000);
	u64 *keys = test_alloc(test, n * sizeof(*keys));

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, n), 0);
	KUNIT_ASSERT_EQ(test, save(map, keys), n);
	KUNIT_ASSERT_EQ(test, chm_reserve(map, 10, GFP_KERNEL), 0);
	chm_clear(map);
	KUNIT_EXPECT_LE(test, stats_of(map).slots, 100);
	restore(test, map, keys, n);
}

/* A walk goes on meanwhile.  No key was there all the time: each may come once. */
static void chm_wear_by_restoring_during_walk(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	u32 n = scaled(20000, 2000), steps = 0, twice = 0;
	u64 *keys = test_alloc(test, n * sizeof(*keys)), key;
	u8 *seen = test_alloc(test, n);
	struct chm_iter it;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, n), 0);
	KUNIT_ASSERT_EQ(test, save(map, keys), n);
	chm_iter_init(&it, map);
	for (; steps < n / 2 && chm_iter_next(&it, &key, NULL); steps++)
		twice += seen[key]++;
	KUNIT_EXPECT_EQ(test, steps, n / 2);
	chm_clear(map);
	KUNIT_ASSERT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	restore(test, map, keys, n);
	while (chm_iter_next(&it, &key, NULL))
		twice += seen[key]++;
	KUNIT_EXPECT_EQ(test, twice, 0);
	KUNIT_EXPECT_FALSE(test, chm_iter_stale(&it));
}

/*
 * Not emptied, but nearly; perhaps the map shrinks by itself meanwhile.  The seed
 * stays, and the defence has to help.  That is no reason for a slower hash.
 */
static void chm_wear_by_restoring_most(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	u32 n = scaled(80000, 4000), i, longest = 0;
	u64 *keys = test_alloc(test, n * sizeof(*keys));
	unsigned long failed = 0, flags;
	bool slow;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, n), 0);
	KUNIT_ASSERT_EQ(test, save(map, keys), n);
	for (i = 1; i < n; i++)
		failed += remove_key(map, keys[i]) != 0;
	wait_calm(test, map);
	KUNIT_EXPECT_LE(test, stats_of(map).slots, 100);
	for (i = 1; i < n; i++) {
		failed += insert_key(map, keys[i]) != 0;
		longest = max_t(u32, longest, stats_of(map).longest_probe);
	}
	kunit_info(test, "measured: paths of up to %u chunks, %lu reseeds", longest,
		   stats_of(map).reseeds);
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_LE(test, longest, 260);
	KUNIT_EXPECT_TRUE(test, settle(map));
	slow = lock_table(map, &flags)->use_siphash;
	unlock_table(map, &flags);
	KUNIT_EXPECT_FALSE(test, slow);
	expect_sound(test, map);
}

/* As an attacker does: many keys that collide under the seed that there is. */
static u64 known_seed;

static u64 hash_known(const void *key, u64 hash_seed)
{
	u64 k = *(const u64 *)key;

	if (!known_seed)
		known_seed = hash_seed;
	if (hash_seed == known_seed)
		return unmix(k << 3 | 5, hash_seed);
	return chm_fold(k ^ hash_seed);
}

static void chm_wear_by_flood_of_growing_map(struct kunit *test)
{
	const struct chm_params p = {
		.key_size = 8, .value_size = 8, .hash = hash_known,
	};
	struct chm *map = test_map(test, &p);
	u32 n = scaled(40000, 8000), i, longest = 0;
	unsigned long failed = 0;

	known_seed = 0;
	for (i = 0; i < n; i++) {
		failed += insert_key(map, i) != 0;
		longest = max_t(u32, longest, stats_of(map).longest_probe);
	}
	KUNIT_EXPECT_TRUE(test, settle(map));
	kunit_info(test, "measured: paths of up to %u chunks, %lu reseeds", longest,
		   stats_of(map).reseeds);
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_LE(test, longest, 260);
	KUNIT_EXPECT_GE(test, stats_of(map).reseeds, 1);
	KUNIT_EXPECT_LE(test, stats_of(map).reseeds, 2);
	expect_sound(test, map);
}

/* --- Replacing where there is no way on --- */

static u32 homes;	/* chunks of the table that hash_home() is for */

/* Key: home << 16 | number */
static u64 hash_home(const void *key, u64 hash_seed)
{
	u64 k = *(const u64 *)key;

	return unmix(chm_home_begin(k >> 16, homes) | (k & 0x78), hash_seed);
}

static u64 key_of(u32 home, u32 i)
{
	return (u64)home << 16 | i;
}

/*
 * A pair three chunks from home, where there is room again, is replaced; but behind
 * it the next 67 chunks are full.  No slot is DEAD.
 */
static void replace_before_full_chunks(struct kunit *test, enum chm_reclaim reclaim,
				       bool memory)
{
	const struct chm_params p = {
		.key_size = 8, .value_size = 8, .hash = hash_home,
		.reclaim = reclaim,
	};
	struct chm *map = test_map(test, &p);
	u64 key = key_of(0, 2 * CHM_SLOTS), value = value_of(key);
	u32 h, i;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 560, GFP_KERNEL), 0);
	homes = stats_of(map).chunks;
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 3 * CHM_SLOTS), 0);
	for (h = 3; h < 70; h++)
		KUNIT_ASSERT_EQ(test, insert_keys(map, key_of(h, 0),
						  key_of(h, CHM_SLOTS)), 0);
	for (i = 0; i < CHM_SLOTS; i++)
		KUNIT_ASSERT_EQ(test, remove_key(map, i), 0);
	KUNIT_ASSERT_TRUE(test, wait_dead(map));
	asked_for = 0;
	if (!memory)
		kunit_activate_static_stub(test, chm_alloc, no_alloc);
	KUNIT_EXPECT_EQ(test, chm_replace(map, &key, &value, GFP_KERNEL), 0);
	if (!memory)
		kunit_deactivate_static_stub(test, chm_alloc);
	KUNIT_EXPECT_LE(test, asked_for, 2);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, CHM_SLOTS, 3 * CHM_SLOTS), 0);
	expect_sound(test, map);
}

static void chm_wear_of_path_ends_replacing(struct kunit *test)
{
	replace_before_full_chunks(test, CHM_DEFERRED, true);
	replace_before_full_chunks(test, CHM_SYNC, true);
}

/* Rather far from home than not at all. */
static void chm_wear_of_path_without_memory(struct kunit *test)
{
	replace_before_full_chunks(test, CHM_DEFERRED, false);
	replace_before_full_chunks(test, CHM_SYNC, false);
}

/* In two chunks there is no slot behind the pair; without memory it can't be done. */
static void chm_wear_of_tiny_table_without_memory(struct kunit *test)
{
	const struct chm_params p = {
		.key_size = 8, .value_size = 8, .hash = hash_home,
	};
	struct chm *map = test_map(test, &p);
	u64 key = CHM_SLOTS, value = value_of(key);
	u32 spilled = 2 * CHM_SLOTS * 8 / 10 - CHM_SLOTS;

	homes = 2;
	KUNIT_ASSERT_EQ(test, chm_reserve(map, CHM_SLOTS + spilled, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, stats_of(map).chunks, 2);
	/* Home 0 is full, and some of its pairs are in chunk 1. */
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, CHM_SLOTS + spilled), 0);
	KUNIT_ASSERT_EQ(test, remove_keys(map, 0, CHM_SLOTS - spilled), 0);
	KUNIT_ASSERT_TRUE(test, wait_dead(map));
	KUNIT_ASSERT_EQ(test, insert_keys(map, key_of(1, 0),
					  key_of(1, CHM_SLOTS - spilled)), 0);
	asked_for = 0;
	kunit_activate_static_stub(test, chm_alloc, no_alloc);
	KUNIT_EXPECT_EQ(test, chm_replace(map, &key, &value, GFP_KERNEL), -ENOMEM);
	kunit_deactivate_static_stub(test, chm_alloc);
	KUNIT_EXPECT_LE(test, asked_for, 2);
	KUNIT_EXPECT_EQ(test, chm_replace(map, &key, &value, GFP_KERNEL), 0);
	expect_sound(test, map);
}

/*
 * G7: a pair in the last chunk of its path, with DEAD slots beside it, can go nowhere
 * else.  A writer that may block waits for these slots.  The fuzzer found one that did
 * not.
 */
static void chm_wear_at_end_of_path_without_memory(struct kunit *test)
{
	const struct chm_params p = {
		.key_size = 8, .value_size = 8, .hash = hash_home,
	};
	struct chm *map = test_map(test, &p);
	u64 key = CHM_SLOTS, value = value_of(key);
	u32 i;

	homes = 2;
	KUNIT_ASSERT_EQ(test, chm_reserve(map, CHM_SLOTS + 1, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, stats_of(map).chunks, 2);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, CHM_SLOTS + 1), 0);
	KUNIT_ASSERT_EQ(test, remove_keys(map, 0, CHM_SLOTS), 0);
	KUNIT_ASSERT_TRUE(test, wait_dead(map));
	kunit_activate_static_stub(test, chm_alloc, no_alloc);
	for (i = 0; i < 10 * CHM_SLOTS; i++)
		KUNIT_EXPECT_EQ(test, chm_replace(map, &key, &value, GFP_KERNEL), 0);
	kunit_deactivate_static_stub(test, chm_alloc);
	expect_sound(test, map);
}

/* --- Memory --- */

/* Counts allocations, and those that may do harm to others. */
static void *counting_alloc(u64 bytes, gfp_t gfp)
{
	asked_for++;
	insisted += !(gfp & __GFP_NORETRY);
	return __chm_alloc(bytes, gfp);
}

/*
 * Within a reservation a new table is one way to get rid of DEAD slots, waiting is
 * another: nobody shall be killed for it.  The writers of a CHM_SYNC map ask for it
 * themselves, where a stub can see it, unless the worker comes first.
 */
static void chm_wear_kills_nobody(struct kunit *test)
{
	u32 i, reserved = scaled(4000, 1000);
	struct churn *c = churn_begin(test, reserved, CHM_SYNC);
	unsigned long end = jiffies + 30 * HZ;

	asked_for = 0;
	insisted = 0;
	do {
		/* To a table without room for many DEAD slots. */
		KUNIT_ASSERT_EQ(test, chm_shrink(c->map, GFP_KERNEL), 0);
		KUNIT_ASSERT_EQ(test, chm_reserve(c->map, reserved, GFP_KERNEL), 0);
		kunit_activate_static_stub(test, chm_alloc, counting_alloc);
		for (i = 0; i < 5 * c->n; i++)
			churn_once(c);
		kunit_deactivate_static_stub(test, chm_alloc);
	} while (!asked_for && time_before(jiffies, end));
	KUNIT_EXPECT_EQ(test, c->failed, 0);
	KUNIT_EXPECT_GT(test, asked_for, 0);
	KUNIT_EXPECT_EQ(test, insisted, 0);
	expect_sound(test, c->map);
}

static gfp_t cloned_with;

static int clone_noting_gfp(void *ctx, void *new_key, void *new_value,
			    const void *key, const void *value, gfp_t gfp)
{
	cloned_with |= gfp;
	return 0;
}

/* The map's spinlock is held, by writers as well as by the worker. */
static void chm_wear_is_undone_without_sleeping(struct kunit *test)
{
	const struct chm_params p = {
		.key_size = 8, .value_size = 8, .class = CHM_CLONE,
		.clone = clone_noting_gfp,
	};
	struct chm *map = test_map(test, &p);
	unsigned long shrinks;

	cloned_with = 0;
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 5000), 0);
	shrinks = stats_of(map).shrinks;
	KUNIT_ASSERT_EQ(test, remove_keys(map, 100, 5000), 0);
	wait_calm(test, map);
	KUNIT_EXPECT_GT(test, stats_of(map).shrinks, shrinks);
	KUNIT_EXPECT_TRUE(test, !!cloned_with);
	KUNIT_EXPECT_FALSE(test, gfpflags_allow_blocking(cloned_with));
	expect_sound(test, map);
}

static bool clone_refuses;

static int clone_or_refuse(void *ctx, void *new_key, void *new_value,
			   const void *key, const void *value, gfp_t gfp)
{
	if (!READ_ONCE(clone_refuses))
		return 0;
	asked_for++;
	return -ENOMEM;
}

/* Where pairs can't be cloned, that is not tried all the time. */
static void chm_wear_that_stays_is_tried_rarely(struct kunit *test)
{
	const struct chm_params p = {
		.key_size = 8, .value_size = 8, .class = CHM_CLONE,
		.clone = clone_or_refuse,
	};
	struct chm *map = test_map(test, &p);

	WRITE_ONCE(clone_refuses, false);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 5000), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	asked_for = 0;
	WRITE_ONCE(clone_refuses, true);
	KUNIT_ASSERT_EQ(test, remove_keys(map, 100, 5000), 0);
	msleep(2000);
	kunit_info(test, "measured: tried %lu times in 2 s", asked_for);
	KUNIT_EXPECT_GE(test, asked_for, 1);
	KUNIT_EXPECT_LE(test, asked_for, 5);
	WRITE_ONCE(clone_refuses, false);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 100), 0);
	expect_sound(test, map);
}

static u64 hash_nothing(const void *key, u64 hash_seed)
{
	return 0;
}

/*
 * The defence that can't have its table does not ask at each insertion.  A table of
 * less than 32 KiB is asked for by the writer, where a stub can see it.
 */
static void chm_wear_of_defence_without_memory(struct kunit *test)
{
	const struct chm_params p = {
		.key_size = 8, .value_size = 8, .hash = hash_nothing,
	};
	struct chm *map = test_map(test, &p);

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 1200, GFP_KERNEL), 0);
	/* As if tidying had been dear before. */
	map->tidy_from = ktime_get_seconds() + 1000;
	asked_for = 0;
	kunit_activate_static_stub(test, chm_alloc, no_alloc);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 1000), 0);
	KUNIT_EXPECT_GE(test, asked_for, 1);
	KUNIT_EXPECT_LE(test, asked_for, 8);
	KUNIT_EXPECT_GT(test, tidying_put_off(map, ktime_get_seconds()), 500);
	kunit_deactivate_static_stub(test, chm_alloc);
	expect_sound(test, map);
}

static struct kunit_case chm_wear_cases[] = {
	KUNIT_CASE_PARAM(chm_wear_by_flapping_keys, flap_gen_params),
	KUNIT_CASE_PARAM(chm_wear_by_replacing_keys, flap_gen_params),
	KUNIT_CASE(chm_wear_is_no_flood),
	KUNIT_CASE(chm_wear_of_small_map_is_given_back),
	KUNIT_CASE_PARAM(chm_wear_by_a_moment_of_flapping, moment_gen_params),
	KUNIT_CASE(chm_wear_by_flapping_takes_one_table),
	KUNIT_CASE(chm_wear_by_a_hot_key_is_cheap),
	KUNIT_CASE_PARAM(chm_wear_of_small_cache_does_not_flap, maximum_gen_params),
	KUNIT_CASE(chm_wear_of_large_map_is_given_back),
	KUNIT_CASE(chm_wear_of_fast_fill_is_given_back),
	KUNIT_CASE(chm_wear_of_fast_fill_to_maximum),
	KUNIT_CASE(chm_wear_of_large_map_is_given_back_early),
	KUNIT_CASE(chm_wear_of_draining_map_copies_little),
	KUNIT_CASE(chm_wear_beside_reservation),
	KUNIT_CASE(chm_wear_of_ended_reservation),
	KUNIT_CASE(chm_wear_of_full_cache_is_given_back),
	KUNIT_CASE(chm_wear_leaves_reservations),
	KUNIT_CASE_PARAM(chm_wear_by_churn_does_not_drift, churn_gen_params),
	KUNIT_CASE_PARAM(chm_wear_of_full_table_costs_little_time, churn_gen_params),
	KUNIT_CASE_PARAM(chm_wear_by_taking_the_first, churn_gen_params),
	KUNIT_CASE_PARAM(chm_wear_of_queue, churn_gen_params),
	KUNIT_CASE(chm_wear_of_long_runs_spares_removals),
	KUNIT_CASE(chm_wear_of_long_runs_spares_walks),
	KUNIT_CASE(chm_wear_by_restoring),
	KUNIT_CASE(chm_wear_by_restoring_what_was_reserved),
	KUNIT_CASE(chm_wear_by_restoring_during_walk),
	KUNIT_CASE(chm_wear_by_restoring_most),
	KUNIT_CASE(chm_wear_by_flood_of_growing_map),
	KUNIT_CASE(chm_wear_of_path_ends_replacing),
	KUNIT_CASE(chm_wear_of_path_without_memory),
	KUNIT_CASE(chm_wear_of_tiny_table_without_memory),
	KUNIT_CASE(chm_wear_at_end_of_path_without_memory),
	KUNIT_CASE_PARAM(chm_wear_kills_nobody, churn_gen_params),
	KUNIT_CASE(chm_wear_of_defence_without_memory),
	KUNIT_CASE(chm_wear_is_undone_without_sleeping),
	KUNIT_CASE(chm_wear_that_stays_is_tried_rarely),
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
