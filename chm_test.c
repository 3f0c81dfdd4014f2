// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of chm: what each call promises
 *
 * One suite per area; a case is named after the call and the condition.  G1 to
 * G12 are the guarantees of Documentation/chm.rst.  Tests use the exported API
 * and the pure helpers of chm_chunk.h; only those of chm_verify(), of the flood
 * defence and of the overflow filters look into a table.
 *
 * Callbacks and helper threads run outside the thread of the test, where an
 * expectation must not fail: they count, and the test expects afterwards.
 */
#include <kunit/resource.h>
#include <kunit/test.h>
#include <linux/atomic.h>
#include <linux/completion.h>
#include <linux/ctype.h>
#include <linux/delay.h>
#include <linux/jhash.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/math64.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/prandom.h>
#include <linux/random.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/swab.h>
#include <linux/umh.h>
#include <linux/workqueue.h>

#include "chm.h"
#include "chm_test.h"

static unsigned long seed;
module_param(seed, ulong, 0444);
MODULE_PARM_DESC(seed, "Of the random tests; 0: another one each time");

/* === Helpers ============================================================= */

/* Keys of any size: the number is in the last bytes, big-endian. */
static void fill_key(u8 *key, u32 size, u64 id)
{
	u32 i;

	memset(key, 0x5a, size);
	for (i = 0; i < min_t(u32, size, sizeof(id)); i++)
		key[size - 1 - i] = id >> (i * BITS_PER_BYTE);
}

static void fill_value(u8 *value, u32 size, u64 id)
{
	u32 i;

	for (i = 0; i < size; i++)
		value[i] = (id >> (i % sizeof(id) * BITS_PER_BYTE)) + i;
}

/* A map of any sizes, with room for a key and two values. */
struct sized {
	struct chm	*map;
	u32		key_size;
	u32		value_size;
	u8		*key;
	u8		*value;
	u8		*got;
};

static void sized_init(struct kunit *test, struct sized *z, const struct chm_params *p)
{
	z->key_size = p->key_size;
	z->value_size = p->value_size;
	z->key = test_alloc(test, p->key_size);
	z->value = test_alloc(test, p->value_size + 1);
	z->got = test_alloc(test, p->value_size + 1);
	z->map = test_map(test, p);
}

static int sized_upsert(struct sized *z, u64 id, u64 value_id)
{
	fill_key(z->key, z->key_size, id);
	fill_value(z->value, z->value_size, value_id);
	return chm_upsert(z->map, z->key, z->value, GFP_KERNEL);
}

static int sized_remove(struct sized *z, u64 id)
{
	fill_key(z->key, z->key_size, id);
	return chm_remove(z->map, z->key);
}

/* Whether pair @id is there, with value @value_id. */
static bool sized_has(struct sized *z, u64 id, u64 value_id)
{
	fill_key(z->key, z->key_size, id);
	fill_value(z->value, z->value_size, value_id);
	memset(z->got, 0xee, z->value_size + 1);
	return chm_get(z->map, z->key, z->got) &&
	       !memcmp(z->got, z->value, z->value_size) &&
	       z->got[z->value_size] == 0xee;
}

/*
 * Accounting of ownership (G5): values that are pointers to items, which must
 * be dropped exactly once.  An item is taken by the test or by clone(), which runs
 * in writers and in the module's worker under the map's lock; drop() runs anywhere.
 */
struct ledger {
	u32		size;
	atomic_t	next;
	/* Under the map's lock, see fail_clone(). */
	long		fail_clone;	/* the one after so many; < 0: none */
	bool		fail_again;	/* and after as many again, and so on */
	long		until_failure;
	atomic_t	live;		/* items taken and not dropped */
	atomic_t	drops;
	atomic_t	clones;
	atomic_t	wrong;		/* dropped twice, cloned from rubbish */
	struct item {
		struct ledger	*ledger;
		u32		stamp;
		atomic_t	live;
	} items[];
};

static struct ledger *test_ledger(struct kunit *test, u32 size)
{
	struct ledger *l = test_alloc(test, struct_size(l, items, size));

	l->size = size;
	l->until_failure = -1;
	return l;
}

/* From now on clone() fails after so many calls, once or @again and again. */
static void fail_clone(struct ledger *l, struct chm *map, long after, bool again)
{
	unsigned long flags;

	lock_table(map, &flags);
	l->fail_clone = after;
	l->fail_again = again;
	l->until_failure = after;
	unlock_table(map, &flags);
}

static bool clone_fails(struct ledger *l)
{
	if (l->until_failure < 0 || l->until_failure--)
		return false;
	if (l->fail_again)
		l->until_failure = l->fail_clone;
	return true;
}

/* An item; NULL: all are live.  Prefers those that were free for long. */
static struct item *item_new(struct ledger *l, u32 stamp)
{
	u32 tries;

	for (tries = 0; tries < l->size; tries++) {
		u32 next = atomic_inc_return(&l->next);
		struct item *item = &l->items[next % l->size];

		if (atomic_cmpxchg(&item->live, 0, 1))
			continue;
		item->ledger = l;
		item->stamp = stamp;
		atomic_inc(&l->live);
		return item;
	}
	return NULL;
}

static void item_put(struct item *item)
{
	if (atomic_cmpxchg(&item->live, 1, 0) == 1)
		atomic_dec(&item->ledger->live);
	else
		atomic_inc(&item->ledger->wrong);
}

static void drop_item(void *ctx, void *key, void *value)
{
	struct item *item = *(struct item **)value;

	atomic_inc(&item->ledger->drops);
	item_put(item);
}

static int clone_item(void *ctx, void *new_key, void *new_value, const void *key,
		      const void *value, gfp_t gfp)
{
	struct item *old = *(struct item *const *)value;
	struct ledger *l = old->ledger;
	struct item *item;

	if (*(u64 *)new_key != *(const u64 *)key || *(struct item **)new_value != old)
		atomic_inc(&l->wrong);
	if (clone_fails(l))
		return -ENOMEM;
	item = item_new(l, old->stamp);
	if (!item)
		return -ENOMEM;
	atomic_inc(&l->clones);
	*(struct item **)new_value = item;
	return 0;
}

static int give_item(struct chm *map, struct ledger *l, u64 key,
		     int (*give)(struct chm *map, const void *key,
				 const void *value, gfp_t gfp))
{
	struct item *item = item_new(l, key);
	int ret;

	if (!item)
		return -ENOBUFS;
	ret = give(map, &key, &item, GFP_KERNEL);
	if (ret < 0)
		item_put(item);
	return ret;
}

static unsigned long give_items(struct chm *map, struct ledger *l, u64 from, u64 to)
{
	unsigned long failed = 0;

	for (; from < to; from++)
		failed += give_item(map, l, from, chm_insert) != 0;
	return failed;
}

/* How many of the keys are absent, or lead to an item of another or none. */
static unsigned long wrong_items(struct chm *map, u64 from, u64 to)
{
	unsigned long wrong = 0;

	for (; from < to; from++) {
		struct item *const *found;

		rcu_read_lock();
		found = chm_lookup(map, &from);
		wrong += !found || (*found)->stamp != (u32)from ||
			 !atomic_read(&(*found)->live);
		rcu_read_unlock();
	}
	return wrong;
}

/* Waits until exactly @n items are live; false: it never happened. */
static bool wait_live(struct ledger *l, int n)
{
	unsigned long end = jiffies + 20 * HZ;

	while (atomic_read(&l->live) != n) {
		if (time_after(jiffies, end))
			return false;
		msleep(20);
	}
	return true;
}

/* Nothing leaked, nothing dropped twice. */
static void expect_settled(struct kunit *test, struct ledger *l)
{
	KUNIT_EXPECT_EQ(test, atomic_read(&l->live), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&l->wrong), 0);
}

/* A call beside the test, which may have to wait. */
struct map_call {
	struct work_struct	work;
	int			(*call)(struct chm *map);
	struct chm		*map;
	int			ret;
};

static void map_call_work(struct work_struct *work)
{
	struct map_call *c = container_of(work, struct map_call, work);

	c->ret = c->call(c->map);
}

static struct map_call *start_call(struct kunit *test, struct chm *map,
				   int (*call)(struct chm *map))
{
	struct map_call *c = test_alloc(test, sizeof(*c));

	c->call = call;
	c->map = map;
	INIT_WORK(&c->work, map_call_work);
	queue_work(system_dfl_wq, &c->work);
	return c;
}

static int end_call(struct map_call *c)
{
	flush_work(&c->work);
	return c->ret;
}

struct reclaim_mode {
	const char		*name;
	enum chm_reclaim	reclaim;
};

static const struct reclaim_mode reclaim_modes[] = {
	{ "deferred", CHM_DEFERRED },
	{ "sync", CHM_SYNC },
};

KUNIT_ARRAY_PARAM_DESC(reclaim, reclaim_modes, name);

/* A map of items in the reclaim mode of this parameter. */
static struct chm *test_item_map(struct kunit *test, enum chm_class class)
{
	const struct reclaim_mode *mode = test->param_value;
	const struct chm_params p = {
		.key_size = sizeof(u64),
		.value_size = sizeof(struct item *),
		.class = class,
		.reclaim = mode ? mode->reclaim : CHM_DEFERRED,
		.clone = class == CHM_CLONE ? clone_item : NULL,
		.drop = drop_item,
	};

	return test_map(test, &p);
}

/* A good hash, for keys of 8 bytes. */
static u64 mix(u64 x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

/* === Suite: chm_chunk ==================================================== */

static bool is_reported(unsigned long mask, u32 slot)
{
	return mask >> (slot * BITS_PER_BYTE + 7) & 1;
}

static u8 byte_at(unsigned long ctrl, u32 slot)
{
	return ctrl >> (slot * BITS_PER_BYTE);
}

static unsigned long random_ctrl(struct rnd_state *rnd)
{
	return (u64)prandom_u32_state(rnd) << 32 | prandom_u32_state(rnd);
}

/* The generator of a case: the module's seed, or a random one that it prints. */
static void test_rnd(struct kunit *test, struct rnd_state *rnd)
{
	u64 s = seed ?: get_random_u64();

	kunit_info(test, "seed=%llu", s);
	prandom_seed_state(rnd, s);
}

static void chm_tag_takes_low_bits(struct kunit *test)
{
	u32 i;

	for (i = 0; i < 0x400; i++) {
		u64 hash = (u64)i << 57 | (u64)~i << 12 | i;

		KUNIT_EXPECT_EQ(test, chm_tag(hash), 0x80UL | (i & 0x7f));
	}
}

static void chm_tag_set_keeps_neighbours(struct kunit *test)
{
	struct rnd_state rnd;
	u32 slot, tag, i;

	test_rnd(test, &rnd);
	for (slot = 0; slot < CHM_SLOTS; slot++) {
		for (tag = 0; tag < 256; tag++) {
			unsigned long ctrl = random_ctrl(&rnd);
			unsigned long set = chm_tag_set(ctrl, slot, tag);

			KUNIT_EXPECT_EQ(test, chm_tag_at(set, slot), (unsigned long)tag);
			for (i = 0; i <= CHM_SLOTS; i++)
				KUNIT_EXPECT_EQ(test, byte_at(set, i),
						i == slot ? (u8)tag : byte_at(ctrl, i));
		}
	}
}

struct mask_case {
	const char	*name;
	unsigned long	(*match)(unsigned long ctrl);
	bool		(*naive)(u8 tag);
};

static unsigned long match_dead_gen0(unsigned long ctrl)
{
	return chm_match_dead_gen(ctrl, 0);
}

static unsigned long match_dead_gen1(unsigned long ctrl)
{
	return chm_match_dead_gen(ctrl, 1);
}

static bool naive_full(u8 tag)
{
	return tag >= 0x80;
}

static bool naive_empty(u8 tag)
{
	return tag < 0x80 && tag % 2 == 0;
}

static bool naive_dead(u8 tag)
{
	return tag < 0x80 && tag % 2 == 1;
}

static bool naive_dead_gen0(u8 tag)
{
	return naive_dead(tag) && !(tag & CHM_TAG_DEAD_GEN);
}

static bool naive_dead_gen1(u8 tag)
{
	return naive_dead(tag) && (tag & CHM_TAG_DEAD_GEN);
}

static bool naive_droppable(u8 tag)
{
	return naive_dead(tag) && !(tag & CHM_TAG_DEAD_TAKEN);
}

static const struct mask_case mask_cases[] = {
	{ "full", chm_match_full, naive_full },
	{ "empty", chm_match_empty, naive_empty },
	{ "dead", chm_match_dead, naive_dead },
	{ "dead_gen0", match_dead_gen0, naive_dead_gen0 },
	{ "dead_gen1", match_dead_gen1, naive_dead_gen1 },
	{ "droppable", chm_match_droppable, naive_droppable },
};

KUNIT_ARRAY_PARAM_DESC(mask, mask_cases, name);

static unsigned long wrong_in_mask(const struct mask_case *c, unsigned long ctrl)
{
	unsigned long mask = c->match(ctrl);
	unsigned long wrong = mask & ~CHM_TAGS_HIGH;
	u32 i;

	for (i = 0; i < CHM_SLOTS; i++)
		wrong += is_reported(mask, i) != c->naive(byte_at(ctrl, i));
	return wrong;
}

static void chm_match_class_equals_naive(struct kunit *test)
{
	struct rnd_state rnd;
	unsigned long wrong = 0;
	u32 slot, tag, i;

	test_rnd(test, &rnd);
	for (slot = 0; slot < CHM_SLOTS; slot++)
		for (tag = 0; tag < 256; tag++)
			for (i = 0; i < 8; i++)
				wrong += wrong_in_mask(test->param_value,
						       chm_tag_set(random_ctrl(&rnd), slot, tag));
	KUNIT_EXPECT_EQ(test, wrong, 0);
}

/* Each kind of tag that a map stores, alone in each slot of an empty chunk. */
static void chm_match_class_of_stored_tags(struct kunit *test)
{
	u32 slot, tag;

	for (slot = 0; slot < CHM_SLOTS; slot++) {
		unsigned long bit = 0x80UL << (slot * BITS_PER_BYTE);

		for (tag = 0x80; tag < 0x100; tag++)
			KUNIT_EXPECT_EQ(test, bit, chm_match_full(chm_tag_set(0, slot, tag)));
		for (tag = CHM_TAG_DEAD; tag <= 7; tag += 2)
			KUNIT_EXPECT_EQ(test, bit, chm_match_dead(chm_tag_set(0, slot, tag)));
		KUNIT_EXPECT_EQ(test, chm_match_empty(chm_tag_set(~0UL, slot, 0)), bit);
	}
}

/*
 * All true matches are reported; a false one is FULL, above a true one, and
 * differs from the tag in the lowest bit alone.
 */
static unsigned long wrong_in_match(unsigned long ctrl, u8 tag)
{
	unsigned long mask = chm_match(ctrl, tag);
	unsigned long wrong = mask & ~CHM_TAGS_HIGH;
	bool above = false;
	u32 i;

	for (i = 0; i < CHM_SLOTS; i++) {
		u8 byte = byte_at(ctrl, i);

		if (byte == tag)
			wrong += !is_reported(mask, i);
		else if (is_reported(mask, i))
			wrong += !above || byte != (tag ^ 1);
		above |= byte == tag;
	}
	return wrong;
}

static void chm_match_each_tag_in_each_slot(struct kunit *test)
{
	struct rnd_state rnd;
	unsigned long wrong = 0;
	u32 slot, tag, i;

	test_rnd(test, &rnd);
	for (slot = 0; slot < CHM_SLOTS; slot++)
		for (tag = 0x80; tag < 0x100; tag++)
			for (i = 0; i < 16; i++)
				wrong += wrong_in_match(chm_tag_set(random_ctrl(&rnd), slot, tag),
							tag);
	KUNIT_EXPECT_EQ(test, wrong, 0);
}

/* Borrows of the subtraction go from one byte into the next. */
static void chm_match_each_pair_of_neighbours(struct kunit *test)
{
	struct rnd_state rnd;
	unsigned long wrong = 0;
	u32 slot, pair;

	test_rnd(test, &rnd);
	for (slot = 0; slot + 1 < CHM_SLOTS; slot++) {
		for (pair = 0; pair < 0x10000; pair++) {
			u32 low = pair & 0xff, high = pair >> 8;
			unsigned long ctrl = random_ctrl(&rnd);

			ctrl = chm_tag_set(ctrl, slot, low);
			ctrl = chm_tag_set(ctrl, slot + 1, high);
			wrong += wrong_in_match(ctrl, low | 0x80);
			wrong += wrong_in_match(ctrl, high | 0x80);
		}
	}
	KUNIT_EXPECT_EQ(test, wrong, 0);
}

/* A run of one tag, and a run of alternating ones: the longest borrows. */
static void chm_match_runs(struct kunit *test)
{
	u32 tag;

	for (tag = 0x80; tag < 0x100; tag++) {
		unsigned long same = CHM_TAGS_LOW * tag;
		unsigned long mixed = same ^ 0x0001000100010001ULL;

		KUNIT_EXPECT_EQ(test, chm_match(same, tag), CHM_TAGS_HIGH);
		KUNIT_EXPECT_EQ(test, chm_match(same | CHM_OVERFLOW, tag), CHM_TAGS_HIGH);
		KUNIT_EXPECT_EQ(test, wrong_in_match(mixed, tag), 0);
		KUNIT_EXPECT_EQ(test, wrong_in_match(mixed, tag ^ 1), 0);
	}
}

static unsigned long mask_of(u32 slots)
{
	unsigned long mask = 0;
	u32 i;

	for (i = 0; i < CHM_SLOTS; i++)
		if (slots & BIT(i))
			mask |= 0x80UL << (i * BITS_PER_BYTE);
	return mask;
}

static void chm_tags_clear_each_mask(struct kunit *test)
{
	struct rnd_state rnd;
	u32 slots, i;

	test_rnd(test, &rnd);
	for (slots = 0; slots < BIT(CHM_SLOTS); slots++) {
		unsigned long ctrl = random_ctrl(&rnd);
		unsigned long cleared = chm_tags_clear(ctrl, mask_of(slots));

		/* One more than the slots: the overflow filter stays. */
		for (i = 0; i <= CHM_SLOTS; i++)
			KUNIT_EXPECT_EQ(test, byte_at(cleared, i),
					slots & BIT(i) ? 0 : byte_at(ctrl, i));
	}
}

static void chm_match_walk_ascends(struct kunit *test)
{
	u32 slots, slot;

	for (slots = 1; slots < BIT(CHM_SLOTS); slots++) {
		unsigned long mask = mask_of(slots);
		u32 seen = 0;

		KUNIT_EXPECT_EQ(test, chm_first(mask), (u32)__ffs(slots));
		chm_for_each_match(slot, mask) {
			KUNIT_EXPECT_LT(test, seen, (u32)BIT(slot));
			seen |= BIT(slot);
		}
		KUNIT_EXPECT_EQ(test, seen, slots);
	}
}

/* What a hash is made of, for the filter: only its lowest bits matter. */
static u64 hash_ending_in(struct rnd_state *rnd, u32 low)
{
	return ((u64)prandom_u32_state(rnd) << 32 | prandom_u32_state(rnd)) << 7 | low;
}

static void chm_overflow_bit_of_each_tag(struct kunit *test)
{
	struct rnd_state rnd;
	u32 low;

	test_rnd(test, &rnd);
	for (low = 0; low < 128; low++) {
		unsigned long bit = chm_overflow_bit(hash_ending_in(&rnd, low));

		KUNIT_EXPECT_EQ(test, byte_at(bit, CHM_SLOTS), BIT(low % 8));
		KUNIT_EXPECT_EQ(test, bit & ~CHM_OVERFLOW, 0);
	}
}

/* Each filter, asked about each tag, whatever the slots hold. */
static void chm_overflows_as_the_filter_says(struct kunit *test)
{
	unsigned long wrong = 0;
	struct rnd_state rnd;
	u32 filter, low;

	test_rnd(test, &rnd);
	for (filter = 0; filter < 256; filter++) {
		for (low = 0; low < 128; low++) {
			unsigned long ctrl = chm_tag_set(random_ctrl(&rnd), CHM_SLOTS, filter);
			u64 hash = hash_ending_in(&rnd, low);

			wrong += chm_overflows(ctrl, hash) != (filter >> low % 8 & 1);
			/* Raised, lowered, and nothing else of the word. */
			wrong += !chm_overflows(ctrl | chm_overflow_bit(hash), hash);
			wrong += chm_overflows(ctrl & ~chm_overflow_bit(hash), hash);
		}
	}
	KUNIT_EXPECT_EQ(test, wrong, 0);
}

/* Each two hashes share a bit, as their tags tell, or don't. */
static void chm_same_overflow_of_each_two(struct kunit *test)
{
	unsigned long wrong = 0;
	struct rnd_state rnd;
	u32 a, b;

	test_rnd(test, &rnd);
	for (a = 0; a < 128; a++) {
		for (b = 0; b < 128; b++) {
			u64 one = hash_ending_in(&rnd, a), other = hash_ending_in(&rnd, b);
			bool same = chm_overflow_bit(one) == chm_overflow_bit(other);

			wrong += same != (a % 8 == b % 8);
			wrong += same != chm_same_overflow(chm_tag(one), other);
		}
	}
	KUNIT_EXPECT_EQ(test, wrong, 0);
}

static const u32 chunk_counts[] = {
	1, 2, 3, 5, 7, 64, 1000, 65535, 65537, 1000003, S32_MAX, BIT(31), U32_MAX,
};

static void chunk_count_desc(const u32 *n, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "%u chunks", *n);
}

KUNIT_ARRAY_PARAM(chunk_count, chunk_counts, chunk_count_desc);

static void chm_home_is_monotone(struct kunit *test)
{
	const u32 nr = *(const u32 *)test->param_value;
	struct rnd_state rnd;
	u32 i;

	test_rnd(test, &rnd);
	KUNIT_EXPECT_EQ(test, chm_home(0, nr), 0);
	KUNIT_EXPECT_EQ(test, chm_home(U64_MAX, nr), nr - 1);
	for (i = 0; i < 2000; i++) {
		u64 a = prandom_u32_state(&rnd), b = prandom_u32_state(&rnd);

		a = a << 32 | b;
		b = a + ((u64)prandom_u32_state(&rnd) >> i % 32);
		KUNIT_EXPECT_LT(test, chm_home(a, nr), nr);
		KUNIT_EXPECT_TRUE(test, b < a || chm_home(a, nr) <= chm_home(b, nr));
	}
}

/* The walk's cursor relies on this: G8. */
static void chm_home_begin_is_least(struct kunit *test)
{
	const u32 nr = *(const u32 *)test->param_value;
	struct rnd_state rnd;
	u32 i;

	test_rnd(test, &rnd);
	KUNIT_EXPECT_EQ(test, chm_home_begin(0, nr), 0);
	for (i = 0; i < 2000; i++) {
		u32 home = i < nr && i < 1000 ? i : prandom_u32_state(&rnd) % nr;
		u64 begin = chm_home_begin(home, nr);

		KUNIT_EXPECT_EQ(test, chm_home(begin, nr), home);
		if (home)
			KUNIT_EXPECT_EQ(test, chm_home(begin - 1, nr), home - 1);
	}
}

static void chm_distance_counts_steps(struct kunit *test)
{
	u32 nr, home, chunk, steps;

	for (nr = 1; nr < 20; nr++) {
		for (home = 0; home < nr; home++) {
			chunk = home;
			for (steps = 0; steps < nr; steps++) {
				KUNIT_EXPECT_EQ(test, chm_distance(home, chunk, nr), steps);
				KUNIT_EXPECT_EQ(test, chm_nth_chunk(home, steps, nr), chunk);
				chunk = chm_next_chunk(chunk, nr);
				KUNIT_EXPECT_LT(test, chunk, nr);
			}
			/* Every chunk was visited once. */
			KUNIT_EXPECT_EQ(test, chunk, home);
		}
	}
}

static void chm_distance_wraps_in_largest(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, chm_next_chunk(U32_MAX - 1, U32_MAX), 0);
	KUNIT_EXPECT_EQ(test, chm_distance(U32_MAX - 1, 0, U32_MAX), 1);
	KUNIT_EXPECT_EQ(test, chm_distance(1, 0, U32_MAX), U32_MAX - 1);
	KUNIT_EXPECT_EQ(test, chm_nth_chunk(U32_MAX - 1, 1, U32_MAX), 0);
	KUNIT_EXPECT_EQ(test, chm_nth_chunk(1, U32_MAX - 1, U32_MAX), 0);
}

static void chm_stride_fits_and_wastes_little(struct kunit *test)
{
	size_t size;

	for (size = 1; size <= 5000; size++) {
		size_t bytes = CHM_SLOT_ALIGN + CHM_SLOTS * size;
		size_t stride = chm_stride(size);
		size_t lines = roundup(bytes, L1_CACHE_BYTES);

		KUNIT_EXPECT_GE(test, stride, bytes);
		KUNIT_EXPECT_EQ(test, stride % CHM_SLOT_ALIGN, 0);
		if ((lines - bytes) * 8 <= lines)
			KUNIT_EXPECT_EQ(test, stride, lines);
		else
			KUNIT_EXPECT_LT(test, stride, bytes + CHM_SLOT_ALIGN);
	}
}

static void chm_stride_of_common_pairs(struct kunit *test)
{
	if (BITS_PER_LONG != 64 || L1_CACHE_BYTES != 64)
		kunit_skip(test, "needs 64-bit words and 64-byte cache lines");
	KUNIT_EXPECT_EQ(test, chm_stride(8), 64);
	KUNIT_EXPECT_EQ(test, chm_stride(16), 128);
	KUNIT_EXPECT_EQ(test, chm_stride(24), 192);
	/* 36 bytes would waste 28 of a line. */
	KUNIT_EXPECT_EQ(test, chm_stride(4), 40);
}

/* The word is left alone, slots end where the next chunk begins. */
static void chm_slots_offset_of_each_size(struct kunit *test)
{
	size_t size;

	for (size = 1; size <= 5000; size++) {
		size_t offset = chm_slots_offset(size);

		KUNIT_EXPECT_GE(test, offset, sizeof(struct chm_chunk));
		KUNIT_EXPECT_EQ(test, offset + CHM_SLOTS * size, chm_stride(size));
		/* Chunks are aligned to CHM_SLOT_ALIGN. */
		KUNIT_EXPECT_EQ(test, offset % chm_natural_align(size), 0);
	}
}

static void chm_slots_offset_keeps_in_lines(struct kunit *test)
{
	u32 size, slot;

	if (BITS_PER_LONG != 64 || L1_CACHE_BYTES != 64)
		kunit_skip(test, "needs 64-bit words and 64-byte cache lines");
	for (size = 8; size <= 64; size *= 2) {
		KUNIT_EXPECT_EQ(test, chm_stride(size) % 64, 0);
		for (slot = 0; slot < CHM_SLOTS; slot++) {
			size_t first = chm_slots_offset(size) + slot * size;

			KUNIT_EXPECT_EQ(test, first / 64, (first + size - 1) / 64);
		}
	}
}

/* Chunks after it begin where a line does; a lookup needs its first line. */
static void chm_table_header_is_three_lines(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, sizeof(struct chm_table) % L1_CACHE_BYTES, 0);
	if (BITS_PER_LONG != 64 || L1_CACHE_BYTES != 64)
		kunit_skip(test, "needs 64-bit words and 64-byte cache lines");
	KUNIT_EXPECT_EQ(test, CHM_HEADER_BYTES, 3 * 64);
	KUNIT_EXPECT_EQ(test, sizeof(struct chm_table), CHM_HEADER_BYTES);
	KUNIT_EXPECT_LE(test, offsetofend(struct chm_table, p), 64);
	KUNIT_EXPECT_LE(test, offsetofend(struct chm_table, use_siphash), 64);
	KUNIT_EXPECT_GE(test, offsetof(struct chm_table, longest), 64);
	KUNIT_EXPECT_GE(test, offsetof(struct chm_table, dead), 64);
	KUNIT_EXPECT_GE(test, offsetof(struct chm_table, displaced), 64);
}

/* What every write changes is not in the line that lookups read. */
static void chm_map_keeps_writers_apart(struct kunit *test)
{
	if (BITS_PER_LONG != 64 || L1_CACHE_BYTES != 64)
		kunit_skip(test, "needs 64-bit words and 64-byte cache lines");
	KUNIT_EXPECT_EQ(test, offsetof(struct chm, tbl), 0);
	KUNIT_EXPECT_GE(test, offsetof(struct chm, lock), 64);
	KUNIT_EXPECT_GE(test, offsetof(struct chm, entries), 64);
	if (IS_ENABLED(CONFIG_DEBUG_SPINLOCK) || IS_ENABLED(CONFIG_DEBUG_LOCK_ALLOC) ||
	    IS_ENABLED(CONFIG_PREEMPT_RT) || IS_ENABLED(CONFIG_CHM_DEBUG))
		return;
	KUNIT_EXPECT_LE(test, sizeof(struct chm), 128);
}

static void chm_natural_align_is_largest_power(struct kunit *test)
{
	u32 size;

	KUNIT_EXPECT_EQ(test, chm_natural_align(0), 1);
	for (size = 1; size < 300; size++) {
		u32 align = chm_natural_align(size);

		KUNIT_EXPECT_EQ(test, size % align, 0);
		KUNIT_EXPECT_TRUE(test, align == 8 || size % (2 * align));
		KUNIT_EXPECT_LE(test, align, CHM_SLOT_ALIGN);
	}
}

static struct kunit_case chm_chunk_cases[] = {
	KUNIT_CASE(chm_tag_takes_low_bits),
	KUNIT_CASE(chm_tag_set_keeps_neighbours),
	KUNIT_CASE_PARAM(chm_match_class_equals_naive, mask_gen_params),
	KUNIT_CASE(chm_match_class_of_stored_tags),
	KUNIT_CASE(chm_match_each_tag_in_each_slot),
	KUNIT_CASE(chm_match_each_pair_of_neighbours),
	KUNIT_CASE(chm_match_runs),
	KUNIT_CASE(chm_tags_clear_each_mask),
	KUNIT_CASE(chm_match_walk_ascends),
	KUNIT_CASE(chm_overflow_bit_of_each_tag),
	KUNIT_CASE(chm_overflows_as_the_filter_says),
	KUNIT_CASE(chm_same_overflow_of_each_two),
	KUNIT_CASE_PARAM(chm_home_is_monotone, chunk_count_gen_params),
	KUNIT_CASE_PARAM(chm_home_begin_is_least, chunk_count_gen_params),
	KUNIT_CASE(chm_distance_counts_steps),
	KUNIT_CASE(chm_distance_wraps_in_largest),
	KUNIT_CASE(chm_stride_fits_and_wastes_little),
	KUNIT_CASE(chm_stride_of_common_pairs),
	KUNIT_CASE(chm_slots_offset_of_each_size),
	KUNIT_CASE(chm_slots_offset_keeps_in_lines),
	KUNIT_CASE(chm_table_header_is_three_lines),
	KUNIT_CASE(chm_map_keeps_writers_apart),
	KUNIT_CASE(chm_natural_align_is_largest_power),
	{}
};

static struct kunit_suite chm_chunk_suite = {
	.name = "chm_chunk",
	.test_cases = chm_chunk_cases,
};

/* === Suite: chm_bytes ==================================================== */

/* The default hash of a key's bytes, and how keys are compared. */

/* The product by halves, as one does without 128-bit integers. */
static u64 naive_fold(u64 x)
{
	const u64 y = 0x9e3779b97f4a7c15ULL;
	u64 low = (u32)x * (y & U32_MAX);
	u64 one = (x >> 32) * (y & U32_MAX);
	u64 other = (u32)x * (y >> 32);
	u64 middle = (low >> 32) + (u32)one + (u32)other;
	u64 high = (x >> 32) * (y >> 32) + (one >> 32) + (other >> 32) + (middle >> 32);

	return (middle << 32 | (u32)low) ^ high;
}

static void chm_fold_is_naive_product(struct kunit *test)
{
	static const u64 corners[] = {
		0, 1, 2, U32_MAX, U32_MAX + 1ULL, 1ULL << 63, U64_MAX - 1, U64_MAX,
	};
	struct rnd_state rnd;
	u32 i;

	test_rnd(test, &rnd);
	for (i = 0; i < ARRAY_SIZE(corners); i++)
		KUNIT_EXPECT_EQ(test, chm_fold(corners[i]), naive_fold(corners[i]));
	for (i = 0; i < 64; i++)
		KUNIT_EXPECT_EQ(test, chm_fold(1ULL << i), naive_fold(1ULL << i));
	for (i = 0; i < 1000; i++) {
		u64 x = random_ctrl(&rnd);

		KUNIT_EXPECT_EQ(test, chm_fold(x), naive_fold(x));
	}
}

/* A bijection: what was told apart before is told apart afterwards. */
static void chm_mix_can_be_undone(struct kunit *test)
{
	struct rnd_state rnd;
	u32 i;

	test_rnd(test, &rnd);
	for (i = 0; i < 1000; i++) {
		u64 hash = random_ctrl(&rnd), seed = random_ctrl(&rnd);

		KUNIT_EXPECT_EQ(test, chm_mix(unmix(hash, seed), seed), hash);
		KUNIT_EXPECT_EQ(test, unmix(chm_mix(hash, seed), seed), hash);
		/* A hash that ends with XORing the seed does not take it back. */
		KUNIT_EXPECT_NE(test, chm_mix(hash ^ seed, seed), chm_mix(hash, 0));
	}
}

#define HASHED_MAX	64U
#define HASH_TRIALS	16U

/* Bits of the hash that follow one bit of the key, or of the seed behind it. */
static u32 bits_changed(u8 *key, u32 len, u32 bit, u64 seed)
{
	u64 hash = chm_hash_bytes(key, len, seed);

	if (bit >= len * BITS_PER_BYTE)
		return hweight64(hash ^ chm_hash_bytes(key, len, seed ^ BIT_ULL(bit % 64)));
	key[bit / 8] ^= BIT(bit % 8);
	return hweight64(hash ^ chm_hash_bytes(key, len, seed));
}

/* Half of them, on average.  The key has an allocation of its own, for KASAN. */
static void chm_hash_bytes_each_bit_matters(struct kunit *test)
{
	struct rnd_state rnd;
	u32 len, bit, i;

	test_rnd(test, &rnd);
	for (len = 1; len <= HASHED_MAX; len++) {
		u8 *key = test_alloc(test, len);
		u32 wrong = 0;

		for (bit = 0; bit < len * BITS_PER_BYTE + 64; bit++) {
			u32 changed = 0;

			for (i = 0; i < HASH_TRIALS; i++) {
				prandom_bytes_state(&rnd, key, len);
				changed += bits_changed(key, len, bit, random_ctrl(&rnd));
			}
			wrong += changed < 24 * HASH_TRIALS || changed > 40 * HASH_TRIALS;
		}
		KUNIT_EXPECT_EQ_MSG(test, wrong, 0, "keys of %u", len);
	}
}

/* The same wherever the key lies and whatever is behind it. */
static void chm_hash_bytes_of_key_alone(struct kunit *test)
{
	u8 *one = test_alloc(test, HASHED_MAX + 8), *other = test_alloc(test, HASHED_MAX + 8);
	unsigned long wrong = 0;
	struct rnd_state rnd;
	u32 len, i;

	test_rnd(test, &rnd);
	for (len = 1; len <= HASHED_MAX; len++) {
		for (i = 0; i < 8; i++) {
			u64 s = random_ctrl(&rnd);

			prandom_bytes_state(&rnd, one, HASHED_MAX + 8);
			prandom_bytes_state(&rnd, other, HASHED_MAX + 8);
			memcpy(other + i, one, len);
			wrong += chm_hash_bytes(one, len, s) != chm_hash_bytes(other + i, len, s);
		}
	}
	KUNIT_EXPECT_EQ(test, wrong, 0);
}

/* Kinds of keys that there are: structure that a weak hash would keep. */
struct key_kind {
	const char	*name;
	u32		size;
	void		(*make)(u8 *key, u32 size, u64 i);
	u64		factor;
};

static void make_number(u8 *key, u32 size, u64 i)
{
	if (size == sizeof(u32))
		memcpy(key, &(u32){ i }, sizeof(u32));
	else
		memcpy(key, &i, sizeof(i));
}

static void make_swapped(u8 *key, u32 size, u64 i)
{
	make_number(key, size, size == sizeof(u32) ? swab32(i) : swab64(i));
}

static void make_pointer(u8 *key, u32 size, u64 i)
{
	make_number(key, size, 0xffff888100000000ULL + i);
}

/* Big-endian, each byte from 1 to 254: 10.1.1.1 and up. */
static void make_ipv4(u8 *key, u32 size, u64 i)
{
	key[0] = 10;
	key[1] = 1 + i / 254 / 254;
	key[2] = 1 + i / 254 % 254;
	key[3] = 1 + i % 254;
}

static void make_ipv6(u8 *key, u32 size, u64 i)
{
	fill_key(key, size, 0x0200000000000000ULL | i);
	key[0] = 0x20;
	key[1] = 0x01;
}

/* Some clients, few servers, ports in sequence, and a protocol. */
static void make_flow(u8 *key, u32 size, u64 i)
{
	make_ipv4(key, 4, i % 251);
	make_ipv4(key + 4, 4, i / 251 % 13);
	memcpy(key + 8, &(u16){ 1024 + i / 7 }, sizeof(u16));
	memcpy(key + 10, &(u16){ 443 }, sizeof(u16));
	key[12] = i % 7;
}

static void make_grid(u8 *key, u32 size, u64 i)
{
	make_number(key, sizeof(u64), i % 151);
	make_number(key + sizeof(u64), sizeof(u64), i / 151);
}

static void make_text(u8 *key, u32 size, u64 i)
{
	char text[32] = { };

	snprintf(text, sizeof(text), "connection-%llu", i);
	memcpy(key, text, size);
}

static const struct key_kind key_kinds[] = {
	{ "numbers", 8, make_number, 1 },
	{ "multiples_of_3", 8, make_number, 3 },
	{ "multiples_of_24", 8, make_number, 24 },
	{ "multiples_of_1000", 8, make_number, 1000 },
	{ "multiples_of_65537", 8, make_number, 65537 },
	{ "multiples_of_2^30-1", 8, make_number, BIT(30) - 1 },
	{ "multiples_of_2^4", 8, make_number, BIT(4) },
	{ "multiples_of_2^12", 8, make_number, BIT(12) },
	{ "multiples_of_2^24", 8, make_number, BIT(24) },
	{ "multiples_of_2^32", 8, make_number, BIT_ULL(32) },
	{ "multiples_of_2^40", 8, make_number, BIT_ULL(40) },
	{ "multiples_of_2^48", 8, make_number, BIT_ULL(48) },
	{ "swapped_numbers", 8, make_swapped, 1 },
	{ "swapped_multiples_of_2^16", 8, make_swapped, BIT(16) },
	{ "u32_numbers", 4, make_number, 1 },
	{ "u32_multiples_of_2^16", 4, make_number, BIT(16) },
	{ "u32_swapped_numbers", 4, make_swapped, 1 },
	{ "pointers_to_64_bytes", 8, make_pointer, 64 },
	{ "pointers_to_pages", 8, make_pointer, 4096 },
	{ "ipv4", 4, make_ipv4, 1 },
	{ "ipv6", 16, make_ipv6, 1 },
	{ "flows", 13, make_flow, 1 },
	{ "grid", 16, make_grid, 1 },
	{ "text", 17, make_text, 1 },
	{ "long_keys", 40, fill_key, 1 },
};

KUNIT_ARRAY_PARAM_DESC(key_kind, key_kinds, name);

#define SPREAD_CHUNKS	4096U
#define SPREAD_PAIRS	(SPREAD_CHUNKS * (u32)CHM_SLOTS * 80 / 100)

/* A table at a load of 0.8, without the pairs. */
struct spread {
	u8		count[SPREAD_CHUNKS];
	u8		tags[SPREAD_CHUNKS][CHM_SLOTS];
	unsigned long	displaced;
	unsigned long	reads;		/* chunks that all hits visit */
	unsigned long	compared;	/* tags with those before in their homes */
	unsigned long	equal;
};

static void spread_add(struct spread *s, u64 hash)
{
	u32 chunk = chm_home(hash, SPREAD_CHUNKS);
	u32 i;

	for (i = 0; i < s->count[chunk]; i++)
		s->equal += s->tags[chunk][i] == chm_tag(hash);
	s->compared += i;
	s->displaced += i == CHM_SLOTS;
	for (s->reads++; s->count[chunk] == CHM_SLOTS; s->reads++)
		chunk = chm_next_chunk(chunk, SPREAD_CHUNKS);
	s->tags[chunk][s->count[chunk]++] = chm_tag(hash);
}

static void spread_fill(struct spread *s, const struct key_kind *kind, u64 seed)
{
	u8 key[40] = { };
	u32 i;

	memset(s->count, 0, sizeof(s->count));
	for (i = 0; i < SPREAD_PAIRS; i++) {
		kind->make(key, kind->size, i * kind->factor);
		spread_add(s, chm_hash_bytes(key, kind->size, seed));
	}
}

/*
 * As from random numbers: 9.36 percent are displaced, a hit visits 1.183 chunks,
 * and a 128th of all tags is equal.  The tolerances are six standard deviations.
 */
static void chm_hash_bytes_spreads(struct kunit *test)
{
	const u32 root = scale < 100 ? 2 : 4, seeds = root * root;
	struct spread *s = test_alloc(test, sizeof(*s));
	long displaced, reads, equal;
	struct rnd_state rnd;
	u32 i;

	if (CHM_SLOTS != 7)
		kunit_skip(test, "the figures are those of 64-bit words");
	test_rnd(test, &rnd);
	for (i = 0; i < seeds; i++)
		spread_fill(s, test->param_value, random_ctrl(&rnd));
	displaced = s->displaced * 10000 / seeds / SPREAD_PAIRS;
	reads = s->reads * 10000 / seeds / SPREAD_PAIRS;
	equal = s->equal * 10000 * 128 / s->compared;
	kunit_info(test, "of 10000: %ld displaced, %ld chunks read, %ld / 128 equal tags\n",
		   displaced, reads, equal);
	KUNIT_EXPECT_LE(test, abs(displaced - 936), 160 / root);
	KUNIT_EXPECT_LE(test, abs(reads - 11830), 750 / root);
	KUNIT_EXPECT_LE(test, abs(equal - 10000), 3000 / root);
}

#define EQUAL_MAX	130U

/* Each byte of each length; unaligned, and in allocations that end with it. */
static void chm_equal_bytes_is_memcmp(struct kunit *test)
{
	struct rnd_state rnd;
	u32 len, i;

	test_rnd(test, &rnd);
	for (len = 1; len <= EQUAL_MAX; len++) {
		u8 *a = test_alloc(test, len), *b = (u8 *)test_alloc(test, len + 1) + 1;
		u32 wrong = 0;

		prandom_bytes_state(&rnd, a, len);
		memcpy(b, a, len);
		wrong += !chm_equal_bytes(a, b, len);
		for (i = 0; i < len * BITS_PER_BYTE; i++) {
			b[i / 8] ^= BIT(i % 8);
			wrong += chm_equal_bytes(a, b, len) || !memcmp(a, b, len);
			b[i / 8] ^= BIT(i % 8);
		}
		for (i = 0; i < len; i++) {
			u32 at = prandom_u32_state(&rnd) % len;

			b[i] ^= 0x10;
			b[at] ^= 0x10;
			wrong += chm_equal_bytes(a, b, len) != !memcmp(a, b, len);
			memcpy(b, a, len);
		}
		KUNIT_EXPECT_EQ_MSG(test, wrong, 0, "keys of %u", len);
	}
}

static struct kunit_case chm_bytes_cases[] = {
	KUNIT_CASE(chm_fold_is_naive_product),
	KUNIT_CASE(chm_mix_can_be_undone),
	KUNIT_CASE(chm_hash_bytes_each_bit_matters),
	KUNIT_CASE(chm_hash_bytes_of_key_alone),
	KUNIT_CASE_PARAM(chm_hash_bytes_spreads, key_kind_gen_params),
	KUNIT_CASE(chm_equal_bytes_is_memcmp),
	{}
};

static struct kunit_suite chm_bytes_suite = {
	.name = "chm_bytes",
	.test_cases = chm_bytes_cases,
};

/* === Suite: chm_init ===================================================== */

struct params_case {
	const char		*name;
	struct chm_params	p;
};

static int clone_nothing(void *ctx, void *new_key, void *new_value,
			 const void *key, const void *value, gfp_t gfp)
{
	return 0;
}

static void merge_nothing(void *ctx, void *new_value, const void *old_now,
			  const void *snapshot)
{
}

static const struct params_case bad_params[] = {
	{ "key_size_0", { .key_size = 0, .value_size = 8 } },
	{ "key_size_4097", { .key_size = CHM_KEY_MAX + 1, .value_size = 8 } },
	{ "key_size_max", { .key_size = U32_MAX, .value_size = 8 } },
	{ "value_size_65537", { .key_size = 8, .value_size = CHM_VALUE_MAX + 1 } },
	{ "value_size_max", { .key_size = 8, .value_size = U32_MAX } },
	{ "value_in_key", { .key_size = 8, .value_size = 8, .value_offset = 4 } },
	{ "value_offset_max", { .key_size = 8, .value_size = 8, .value_offset = U32_MAX - 7 } },
	{ "slot_too_small", { .key_size = 8, .value_size = 8, .slot_size = 15 } },
	{ "slot_ends_in_value", { .key_size = 8, .value_size = 8, .value_offset = 16,
				  .slot_size = 16 } },
	{ "slot_size_max", { .key_size = 8, .value_size = 8, .slot_size = U32_MAX } },
	{ "max_load_24", { .key_size = 8, .max_load = 24 } },
	{ "max_load_96", { .key_size = 8, .max_load = 96 } },
	{ "growth_109", { .key_size = 8, .growth = 109 } },
	{ "growth_401", { .key_size = 8, .growth = 401 } },
	{ "min_above_max", { .key_size = 8, .min_entries = 11, .max_entries = 10 } },
	{ "class_unknown", { .key_size = 8, .class = CHM_CELL + 1 } },
	{ "reclaim_unknown", { .key_size = 8, .reclaim = CHM_SYNC + 1 } },
	{ "word_of_0", { .key_size = 8, .value_size = 0, .class = CHM_WORD } },
	{ "word_of_3", { .key_size = 8, .value_size = 3, .class = CHM_WORD } },
	{ "word_of_16", { .key_size = 8, .value_size = 16, .class = CHM_WORD } },
	{ "word_misaligned", { .key_size = 6, .value_size = 4, .value_offset = 6,
			       .slot_size = 12, .class = CHM_WORD } },
	{ "word_slots_misaligned", { .key_size = 4, .value_size = 4, .slot_size = 10,
				     .class = CHM_WORD } },
	{ "clone_missing", { .key_size = 8, .value_size = 8, .class = CHM_CLONE } },
	{ "clone_of_frozen", { .key_size = 8, .value_size = 8, .clone = clone_nothing } },
	{ "clone_of_word", { .key_size = 8, .value_size = 8, .class = CHM_WORD,
			     .clone = clone_nothing } },
	{ "merge_of_frozen", { .key_size = 8, .value_size = 8, .merge = merge_nothing } },
	{ "pointer_key_of_2", { .key_size = 2, .value_size = 8, .key_is_pointer = true } },
	{ "pointer_value_of_0", { .key_size = 8, .value_is_pointer = true } },
};

KUNIT_ARRAY_PARAM_DESC(bad, bad_params, name);

static void chm_init_refuses(struct kunit *test)
{
	const struct params_case *c = test->param_value;
	struct chm *map = test_alloc(test, sizeof(*map));

	KUNIT_EXPECT_EQ(test, chm_init(map, &c->p, NULL, NULL), -EINVAL);
}

/* Each bound from the inside, and layouts that leave gaps. */
static const struct params_case good_params[] = {
	{ "smallest", { .key_size = 1, .value_size = 0 } },
	{ "largest_key", { .key_size = CHM_KEY_MAX, .value_size = 1 } },
	{ "largest_value", { .key_size = 2, .value_size = CHM_VALUE_MAX } },
	{ "max_load_25", { .key_size = 8, .value_size = 8, .max_load = 25 } },
	{ "max_load_95", { .key_size = 8, .value_size = 8, .max_load = 95 } },
	{ "growth_110", { .key_size = 8, .value_size = 8, .growth = 110 } },
	{ "growth_400", { .key_size = 8, .value_size = 8, .growth = 400 } },
	{ "gap_before_value", { .key_size = 5, .value_size = 4, .value_offset = 24 } },
	{ "gap_after_value", { .key_size = 8, .value_size = 4, .slot_size = 64 } },
	{ "min_is_max", { .key_size = 8, .value_size = 8, .min_entries = 40,
			  .max_entries = 40 } },
	{ "sync", { .key_size = 8, .value_size = 8, .reclaim = CHM_SYNC } },
};

KUNIT_ARRAY_PARAM_DESC(good, good_params, name);

static void chm_init_accepts(struct kunit *test)
{
	const struct params_case *c = test->param_value;
	struct sized z;
	u64 i;

	sized_init(test, &z, &c->p);
	for (i = 0; i < 40; i++)
		KUNIT_EXPECT_EQ(test, sized_upsert(&z, i, i + 5), 1);
	for (i = 0; i < 40; i++)
		KUNIT_EXPECT_TRUE(test, sized_has(&z, i, i + 5));
	expect_sound(test, z.map);
}

/* G10: the default load of 80 percent, the value at its natural alignment. */
static void chm_init_defaults(struct kunit *test)
{
	const struct chm_params p = { .key_size = 3, .value_size = 4 };
	struct sized z;
	struct chm_stats s;
	struct chm_pos pos;
	const u8 *key, *value;

	sized_init(test, &z, &p);
	KUNIT_ASSERT_EQ(test, sized_upsert(&z, 1, 1), 1);
	rcu_read_lock();
	chm_for_each_rcu(z.map, pos, key, value) {
		KUNIT_EXPECT_EQ(test, value - key, 4);
		KUNIT_EXPECT_TRUE(test, IS_ALIGNED((unsigned long)value, 4));
	}
	rcu_read_unlock();
	KUNIT_ASSERT_EQ(test, chm_reserve(z.map, 7000, GFP_KERNEL), 0);
	s = stats_of(z.map);
	expect_chunks_for(test, z.map, 7000);
	KUNIT_EXPECT_EQ(test, s.slots, s.chunks * CHM_SLOTS);
}

struct name_case {
	const char	*desc;
	const char	*name;
	int		ret;
};

static const struct name_case name_cases[] = {
	{ "plain", "chm-test-name", 0 },
	{ "space", "chm test name", 0 },
	{ "of_63", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde", 0 },
	{ "of_64", "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", -EINVAL },
	{ "slash", "chm/test", -EINVAL },
	{ "newline", "chm-test\n", -EINVAL },
	{ "control", "chm\001test", -EINVAL },
	{ "non_ascii", "chm-\xff-test", -EINVAL },
};

KUNIT_ARRAY_PARAM_DESC(name, name_cases, desc);

static void chm_init_checks_name(struct kunit *test)
{
	const struct name_case *c = test->param_value;
	struct chm *map = test_alloc(test, sizeof(*map));
	int ret = chm_init(map, &u64_params, NULL, c->name);

	KUNIT_EXPECT_EQ(test, ret, c->ret);
	if (!ret)
		chm_destroy(map);
}

static void chm_init_with_name_in_use(struct kunit *test)
{
	struct chm *first = test_alloc(test, sizeof(*first));
	struct chm *second = test_alloc(test, sizeof(*second));
	int ret;

	if (!IS_ENABLED(CONFIG_DEBUG_FS))
		kunit_skip(test, "needs CONFIG_DEBUG_FS");
	KUNIT_ASSERT_EQ(test, chm_init(first, &u64_params, NULL, "chm-test-in-use"), 0);
	/* It goes on without a directory. */
	ret = chm_init(second, &u64_params, NULL, "chm-test-in-use");
	KUNIT_EXPECT_EQ(test, ret, 0);
	if (!ret) {
		KUNIT_EXPECT_EQ(test, insert_keys(second, 0, 10), 0);
		chm_destroy(second);
	}
	chm_destroy(first);
	/* The name is free again. */
	ret = chm_init(second, &u64_params, NULL, "chm-test-in-use");
	KUNIT_EXPECT_EQ(test, ret, 0);
	if (!ret)
		chm_destroy(second);
}

static atomic_t hashed;

static u64 hash_counted(const void *key, u64 seed)
{
	atomic_inc(&hashed);
	return *(const u64 *)key * 0x9e3779b97f4a7c15;
}

static bool equal_u64(const void *a, const void *b)
{
	return *(const u64 *)a == *(const u64 *)b;
}

static const struct debugfs_case {
	const char		*desc;
	bool			refuses;
	struct chm_params	p;
} debugfs_cases[] = {
	{ "hash", true, { .key_size = 8, .hash = hash_counted } },
	{ "equal", true, { .key_size = 8, .hash = hash_counted, .equal = equal_u64 } },
	{ "pointer", true, { .key_size = sizeof(void *), .key_is_pointer = true } },
	{ "write", false, { .key_size = 8, .hash = hash_counted, .debugfs_write = true } },
};

KUNIT_ARRAY_PARAM_DESC(debugfs, debugfs_cases, desc);

static int shell(const char *script)
{
	char *argv[4] = { "/bin/sh", "-c", (char *)script, NULL };
	char *envp[2] = { "PATH=/bin:/usr/bin", NULL };

	return call_usermodehelper(argv[0], argv, envp, UMH_WAIT_PROC);
}

/* The keys of a map with hash() may be pointers, and root be no oracle. */
static void chm_debugfs_makes_up_no_keys(struct kunit *test)
{
	const struct debugfs_case *c = test->param_value;
	struct chm *map = test_alloc(test, sizeof(*map));
	int before, ret;
	u64 key = 1;

	KUNIT_ASSERT_EQ(test, chm_init(map, &c->p, NULL, "chm-test-keys"), 0);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, destroy_action, map), 0);
	KUNIT_ASSERT_EQ(test, chm_insert(map, &key, NULL, GFP_KERNEL), 0);
	if (shell(": >/sys/kernel/debug/chm/chm-test-keys/lookup"))
		kunit_skip(test, "needs a shell, and debugfs mounted");
	before = atomic_read(&hashed);
	ret = shell("echo 1 >/sys/kernel/debug/chm/chm-test-keys/lookup");
	KUNIT_EXPECT_EQ(test, !!ret, c->refuses);
	KUNIT_EXPECT_EQ(test, atomic_read(&hashed) == before, c->refuses);
}

static void chm_init_after_destroy(struct kunit *test)
{
	struct chm *map = test_alloc(test, sizeof(*map));
	u64 round;

	for (round = 0; round < 3; round++) {
		KUNIT_ASSERT_EQ(test, chm_init(map, &u64_params, NULL, NULL), 0);
		KUNIT_EXPECT_EQ(test, chm_count(map), 0);
		KUNIT_EXPECT_EQ(test, found_keys(map, 0, 100), 0);
		KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 100), 0);
		KUNIT_EXPECT_EQ(test, stats_of(map).failed_allocs, 0);
		expect_sound(test, map);
		chm_destroy(map);
	}
}

/* G10. */
static void chm_init_owns_nothing(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct chm_stats s = stats_of(map), zero = { };

	KUNIT_EXPECT_MEMEQ(test, &s, &zero, sizeof(s));
	KUNIT_EXPECT_EQ(test, remove_key(map, 1), -ENOENT);
	chm_clear(map);
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	KUNIT_EXPECT_FALSE(test, has_key(map, 1));
	expect_sound(test, map);
	KUNIT_EXPECT_EQ(test, stats_of(map).bytes, 0);
}

static void chm_init_min_entries(struct kunit *test)
{
	const struct chm_params p = { .key_size = 8, .value_size = 8, .min_entries = 1000 };
	struct chm *map = test_map(test, &p);
	struct chm_stats s;

	KUNIT_EXPECT_EQ(test, stats_of(map).bytes, 0);
	KUNIT_ASSERT_EQ(test, insert_key(map, 0), 0);
	KUNIT_EXPECT_GE(test, stats_of(map).slots * 80 / 100, 1000);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 1, 1000), 0);
	s = stats_of(map);
	KUNIT_EXPECT_EQ(test, migrations(&s), 0);
	/* It stays so large. */
	KUNIT_EXPECT_EQ(test, remove_keys(map, 1, 1000), 0);
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	KUNIT_EXPECT_GE(test, stats_of(map).slots * 80 / 100, 1000);
}

/* Static maps live as long as the module, so cases leave them empty. */
static DEFINE_CHM(static_map, .key_size = 8, .value_size = 8);
static DEFINE_CHM(static_bad, .key_size = 8, .value_size = 8, .max_load = 5);
static DEFINE_CHM(static_cell, .key_size = 8, .value_size = 8, .class = CHM_CELL);

static void chm_define_owns_nothing(struct kunit *test)
{
	struct chm_iter it;

	KUNIT_EXPECT_EQ(test, stats_of(&static_map).bytes, 0);
	KUNIT_EXPECT_EQ(test, found_keys(&static_map, 0, 3), 0);
	KUNIT_EXPECT_EQ(test, remove_key(&static_map, 1), -ENOENT);
	KUNIT_EXPECT_EQ(test, chm_shrink(&static_map, GFP_KERNEL), 0);
	chm_clear(&static_map);
	chm_iter_init(&it, &static_map);
	KUNIT_EXPECT_FALSE(test, chm_iter_next(&it, NULL, NULL));
	expect_sound(test, &static_map);
	KUNIT_EXPECT_EQ(test, stats_of(&static_map).bytes, 0);
}

static void chm_define_works(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, insert_keys(&static_map, 0, 500), 0);
	KUNIT_EXPECT_NE(test, stats_of(&static_map).bytes, 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(&static_map, 0, 500), 0);
	expect_sound(test, &static_map);
	chm_clear(&static_map);
	KUNIT_EXPECT_EQ(test, chm_shrink(&static_map, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, stats_of(&static_map).bytes, 0);
}

static void chm_define_with_bad_params(struct kunit *test)
{
	u64 key = 1, value = 2;

	KUNIT_EXPECT_EQ(test, insert_key(&static_bad, 1), -EINVAL);
	KUNIT_EXPECT_EQ(test, chm_upsert(&static_bad, &key, &value, GFP_KERNEL), -EINVAL);
	KUNIT_EXPECT_EQ(test, chm_reserve(&static_bad, 10, GFP_KERNEL), -EINVAL);
	KUNIT_EXPECT_EQ(test, insert_key(&static_bad, 1), -EINVAL);
	KUNIT_EXPECT_EQ(test, chm_shrink(&static_bad, GFP_KERNEL), 0);
	KUNIT_EXPECT_FALSE(test, has_key(&static_bad, 1));
	KUNIT_EXPECT_EQ(test, remove_key(&static_bad, 1), -ENOENT);
	KUNIT_EXPECT_EQ(test, stats_of(&static_bad).bytes, 0);
}

static void chm_define_with_cell(struct kunit *test)
{
	u64 key = 1;

	KUNIT_EXPECT_EQ(test, chm_cell_add(&static_cell, &key, 0, 5), -ENOENT);
	KUNIT_EXPECT_EQ(test, chm_count(&static_cell), 0);
	KUNIT_EXPECT_EQ(test, chm_cell_upsert_add(&static_cell, &key, 0, 5,
						  GFP_KERNEL), 1);
	KUNIT_EXPECT_TRUE(test, has_key(&static_cell, 1));
	KUNIT_EXPECT_EQ(test, chm_cell_add(&static_cell, &key, 8, 5), -EINVAL);
	chm_clear(&static_cell);
}

static struct kunit_case chm_init_cases[] = {
	KUNIT_CASE_PARAM(chm_init_refuses, bad_gen_params),
	KUNIT_CASE_PARAM(chm_init_accepts, good_gen_params),
	KUNIT_CASE(chm_init_defaults),
	KUNIT_CASE_PARAM(chm_init_checks_name, name_gen_params),
	KUNIT_CASE(chm_init_with_name_in_use),
	KUNIT_CASE_PARAM(chm_debugfs_makes_up_no_keys, debugfs_gen_params),
	KUNIT_CASE(chm_init_after_destroy),
	KUNIT_CASE(chm_init_owns_nothing),
	KUNIT_CASE(chm_init_min_entries),
	KUNIT_CASE(chm_define_owns_nothing),
	KUNIT_CASE(chm_define_works),
	KUNIT_CASE(chm_define_with_bad_params),
	KUNIT_CASE(chm_define_with_cell),
	{}
};

static struct kunit_suite chm_init_suite = {
	.name = "chm_init",
	.test_cases = chm_init_cases,
};

/* === Suite: chm_typed ==================================================== */

struct point {
	u32	x;
	u16	y;
	u16	z;
};

struct weight {
	u8	kind;
	u64	grams;
};

DEFINE_CHM_TYPE(point_map, struct point, struct weight, .max_entries = 500);
DEFINE_CHM_TYPE(word_map, u8, u16, .class = CHM_WORD);
static DEFINE_CHM_OF(point_map, static_points);

static struct point point_of(u32 i)
{
	return (struct point) { .x = i, .y = i * 3, .z = 7 };
}

static struct weight weight_of(u32 i)
{
	return (struct weight) { .kind = i, .grams = i * 1000ULL };
}

KUNIT_DEFINE_ACTION_WRAPPER(destroy_points_action, point_map_destroy, struct point_map *);

static struct point_map *test_points(struct kunit *test, u32 n)
{
	struct point_map *m = test_alloc(test, sizeof(*m));
	u32 i;

	KUNIT_ASSERT_EQ(test, point_map_init(m, NULL, NULL), 0);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, destroy_points_action, m), 0);
	for (i = 0; i < n; i++) {
		struct point key = point_of(i);
		struct weight value = weight_of(i);

		KUNIT_ASSERT_EQ(test, point_map_insert(m, &key, &value, GFP_KERNEL), 0);
	}
	return m;
}

static void expect_points(struct kunit *test, struct point_map *m, u32 n)
{
	u32 i;

	for (i = 0; i < n; i++) {
		struct point key = point_of(i);
		const struct weight *found;
		struct weight got = { };

		rcu_read_lock();
		found = point_map_lookup(m, &key);
		KUNIT_EXPECT_TRUE(test, found && found->grams == i * 1000ULL);
		rcu_read_unlock();
		KUNIT_EXPECT_TRUE(test, point_map_get(m, &key, &got));
		KUNIT_EXPECT_EQ(test, got.grams, i * 1000ULL);
		/* Typed and untyped calls agree about the layout. */
		KUNIT_EXPECT_TRUE(test, chm_get(&m->map, &key, &got));
	}
	KUNIT_EXPECT_EQ(test, point_map_count(m), n);
	KUNIT_EXPECT_EQ(test, point_map_verify(m), 0);
}

static void chm_typed_lookups(struct kunit *test)
{
	struct point_map *m = test_points(test, 300);
	const struct weight *values[3];
	struct point keys[3] = { point_of(4), point_of(300), point_of(299) };

	expect_points(test, m, 300);
	rcu_read_lock();
	KUNIT_EXPECT_EQ(test, point_map_lookup_many(m, keys, 3, values), 2);
	KUNIT_EXPECT_TRUE(test, values[0] && values[0]->grams == 4000);
	KUNIT_EXPECT_NULL(test, values[1]);
	KUNIT_EXPECT_TRUE(test, values[2] && values[2]->grams == 299000);
	rcu_read_unlock();
}

static void chm_typed_updates(struct kunit *test)
{
	struct point_map *m = test_points(test, 20);
	struct point key = point_of(3), other = point_of(20);
	struct weight value = weight_of(77), got;

	KUNIT_EXPECT_EQ(test, point_map_insert(m, &key, &value, GFP_KERNEL), -EEXIST);
	KUNIT_EXPECT_EQ(test, point_map_replace(m, &other, &value, GFP_KERNEL), -ENOENT);
	KUNIT_EXPECT_EQ(test, point_map_replace(m, &key, &value, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, point_map_upsert(m, &key, &value, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, point_map_upsert(m, &other, &value, GFP_KERNEL), 1);
	KUNIT_EXPECT_EQ(test, point_map_remove(m, &other), 0);
	KUNIT_EXPECT_EQ(test, point_map_take(m, &key, NULL, &got), 0);
	KUNIT_EXPECT_EQ(test, got.grams, 77000);
	KUNIT_EXPECT_EQ(test, point_map_take(m, &key, NULL, &got), -ENOENT);
	KUNIT_EXPECT_EQ(test, point_map_verify(m), 0);
}

static void chm_typed_sizing(struct kunit *test)
{
	struct point_map *m = test_points(test, 20);
	struct chm_stats s;

	KUNIT_EXPECT_EQ(test, point_map_reserve(m, 501, GFP_KERNEL), -E2BIG);
	KUNIT_EXPECT_EQ(test, point_map_reserve(m, 500, GFP_KERNEL), 0);
	point_map_stats(m, &s);
	KUNIT_EXPECT_EQ(test, s.entries, 20);
	KUNIT_EXPECT_GE(test, s.slots, 500);
	expect_points(test, m, 20);
	point_map_clear(m);
	KUNIT_EXPECT_EQ(test, point_map_count(m), 0);
	KUNIT_EXPECT_EQ(test, point_map_shrink(m, GFP_KERNEL), 0);
	point_map_stats(m, &s);
	KUNIT_EXPECT_EQ(test, s.bytes, 0);
}

static void chm_typed_walk(struct kunit *test)
{
	struct point_map *m = test_points(test, 50);
	struct chm_iter it;
	struct point key;
	struct weight value;
	u64 seen = 0;

	point_map_iter_init(&it, m);
	while (point_map_iter_next(&it, &key, &value)) {
		KUNIT_ASSERT_LT(test, key.x, 50);
		KUNIT_EXPECT_EQ(test, value.grams, key.x * 1000ULL);
		KUNIT_EXPECT_FALSE(test, seen & BIT_ULL(key.x));
		seen |= BIT_ULL(key.x);
	}
	KUNIT_EXPECT_EQ(test, seen, BIT_ULL(50) - 1);
}

static void chm_typed_define_of(struct kunit *test)
{
	struct point key = point_of(9);
	struct weight value = weight_of(9), got = { };

	KUNIT_EXPECT_FALSE(test, point_map_get(&static_points, &key, &got));
	KUNIT_EXPECT_EQ(test, point_map_insert(&static_points, &key, &value, GFP_KERNEL), 0);
	KUNIT_EXPECT_TRUE(test, point_map_get(&static_points, &key, &got));
	KUNIT_EXPECT_EQ(test, got.grams, 9000);
	KUNIT_EXPECT_EQ(test, point_map_remove(&static_points, &key), 0);
	KUNIT_EXPECT_EQ(test, point_map_shrink(&static_points, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, stats_of(&static_points.map).bytes, 0);
}

/* All 256 keys that there are, in a type whose value is a word. */
static void chm_typed_word(struct kunit *test)
{
	struct word_map *m = test_alloc(test, sizeof(*m));
	u16 value, got;
	u32 i;

	KUNIT_ASSERT_EQ(test, word_map_init(m, NULL, NULL), 0);
	for (i = 0; i < 256; i++) {
		value = i * 257;
		KUNIT_EXPECT_EQ(test, word_map_upsert(m, &(u8){ i }, &value, GFP_KERNEL), 1);
	}
	value = 1;
	KUNIT_EXPECT_EQ(test, word_map_replace(m, &(u8){ 0 }, &value, GFP_KERNEL), 0);
	for (i = 0; i < 256; i++) {
		KUNIT_EXPECT_TRUE(test, word_map_get(m, &(u8){ i }, &got));
		KUNIT_EXPECT_EQ(test, got, i ? i * 257 : 1);
	}
	KUNIT_EXPECT_EQ(test, word_map_verify(m), 0);
	word_map_destroy(m);
}

/* debugfs shows no pointers.  An array is none. */
DEFINE_CHM_TYPE(object_map, const struct point *, char[sizeof(void *)]);
DEFINE_CHM_TYPE(name_map, char[sizeof(void *)], void (*)(struct kunit *test));

static void chm_typed_knows_pointers(struct kunit *test)
{
	KUNIT_EXPECT_TRUE(test, object_map_params.key_is_pointer);
	KUNIT_EXPECT_FALSE(test, object_map_params.value_is_pointer);
	KUNIT_EXPECT_FALSE(test, name_map_params.key_is_pointer);
	KUNIT_EXPECT_TRUE(test, name_map_params.value_is_pointer);
	KUNIT_EXPECT_FALSE(test, point_map_params.key_is_pointer);
	KUNIT_EXPECT_FALSE(test, point_map_params.value_is_pointer);
}

static struct kunit_case chm_typed_cases[] = {
	KUNIT_CASE(chm_typed_lookups),
	KUNIT_CASE(chm_typed_updates),
	KUNIT_CASE(chm_typed_sizing),
	KUNIT_CASE(chm_typed_walk),
	KUNIT_CASE(chm_typed_define_of),
	KUNIT_CASE(chm_typed_word),
	KUNIT_CASE(chm_typed_knows_pointers),
	{}
};

static struct kunit_suite chm_typed_suite = {
	.name = "chm_typed",
	.test_cases = chm_typed_cases,
};

/* === Suite: chm_lookup =================================================== */

static void chm_lookup_absent_and_present(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);

	KUNIT_EXPECT_FALSE(test, has_key(map, 0));
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 1000), 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 1000), 0);
	KUNIT_EXPECT_EQ(test, found_keys(map, 1000, 3000), 0);
}

/* Keys that differ in one bit each. */
static void chm_lookup_compares_every_bit(struct kunit *test)
{
	const struct chm_params p = { .key_size = 24, .value_size = 1 };
	struct chm *map = test_map(test, &p);
	u8 key[24] = { }, value;
	u32 bit;

	for (bit = 0; bit < 192; bit++) {
		key[bit / 8] ^= BIT(bit % 8);
		KUNIT_EXPECT_FALSE(test, chm_get(map, key, &value));
		value = bit;
		KUNIT_EXPECT_EQ(test, chm_insert(map, key, &value, GFP_KERNEL), 0);
		key[bit / 8] ^= BIT(bit % 8);
	}
	KUNIT_EXPECT_FALSE(test, chm_get(map, key, &value));
	for (bit = 0; bit < 192; bit++) {
		key[bit / 8] ^= BIT(bit % 8);
		KUNIT_EXPECT_TRUE(test, chm_get(map, key, &value));
		KUNIT_EXPECT_EQ(test, value, bit);
		key[bit / 8] ^= BIT(bit % 8);
	}
}

/* G1: other RCU readers will do, and interrupts may be off. */
static void chm_lookup_with_interrupts_off(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	const u64 *found;
	unsigned long flags;
	u64 key = 7, got = 0;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 50), 0);
	preempt_disable();
	found = chm_lookup(map, &key);
	KUNIT_EXPECT_TRUE(test, found && *found == value_of(7));
	preempt_enable();
	local_irq_save(flags);
	found = chm_lookup(map, &key);
	key = 50;
	chm_get(map, &key, &got);
	local_irq_restore(flags);
	KUNIT_EXPECT_NOT_NULL(test, found);
	KUNIT_EXPECT_EQ(test, got, 0);
}

/* Values of each size are at least naturally aligned. */
static void chm_lookup_value_is_aligned(struct kunit *test)
{
	u32 size;

	for (size = 1; size <= 8; size *= 2) {
		const struct chm_params p = { .key_size = 5, .value_size = size };
		struct sized z;
		u64 id;

		sized_init(test, &z, &p);
		for (id = 0; id < 100; id++) {
			KUNIT_EXPECT_EQ(test, sized_upsert(&z, id, id), 1);
			rcu_read_lock();
			KUNIT_EXPECT_EQ(test, (unsigned long)chm_lookup(z.map, z.key) % size, 0);
			rcu_read_unlock();
		}
		destroy_now(test, z.map);
	}
}

/* In tables of each kind of memory: part of a page, pages, and vmalloc(). */
static void chm_lookup_pair_in_one_line(struct kunit *test)
{
	unsigned long wrong = 0;
	struct sized z;
	u32 size;
	u64 id;

	if (BITS_PER_LONG != 64 || L1_CACHE_BYTES != 64)
		kunit_skip(test, "needs 64-bit words and 64-byte cache lines");
	for (size = 8; size <= 64; size *= 2) {
		const struct chm_params p = { .key_size = 4, .value_size = size - 4 };

		sized_init(test, &z, &p);
		for (id = 0; id < scaled(3000, 500); id++) {
			unsigned long pair;

			KUNIT_ASSERT_EQ(test, sized_upsert(&z, id, id), 1);
			rcu_read_lock();
			pair = (unsigned long)chm_lookup(z.map, z.key) - 4;
			rcu_read_unlock();
			wrong += pair / 64 != (pair + size - 1) / 64;
		}
		destroy_now(test, z.map);
	}
	KUNIT_EXPECT_EQ(test, wrong, 0);
}

static void chm_get_hit_and_miss(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	u64 key = 3, got = 42;

	KUNIT_EXPECT_FALSE(test, chm_get(map, &key, &got));
	KUNIT_ASSERT_EQ(test, insert_key(map, 4), 0);
	KUNIT_EXPECT_FALSE(test, chm_get(map, &key, &got));
	/* A miss leaves the buffer alone. */
	KUNIT_EXPECT_EQ(test, got, 42);
	key = 4;
	KUNIT_EXPECT_TRUE(test, chm_get(map, &key, &got));
	KUNIT_EXPECT_EQ(test, got, value_of(4));
}

static void chm_get_copies_no_more_than_the_value(struct kunit *test)
{
	const struct chm_params p = { .key_size = 8, .value_size = 13 };
	struct sized z;

	sized_init(test, &z, &p);
	KUNIT_ASSERT_EQ(test, sized_upsert(&z, 1, 2), 1);
	/* sized_has() looks at the byte behind. */
	KUNIT_EXPECT_TRUE(test, sized_has(&z, 1, 2));
}

static const u32 batch_sizes[] = { 0, 1, 2, 31, 32, 33, 64, 100 };

static void batch_desc(const u32 *n, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "%u keys", *n);
}

KUNIT_ARRAY_PARAM(batch, batch_sizes, batch_desc);

struct batch {
	u64		keys[101];
	const void	*values[101];
};

/* Every third key is absent; the entry behind the last one stays. */
static void chm_lookup_many_mixed(struct kunit *test)
{
	const u32 n = *(const u32 *)test->param_value;
	struct chm *map = test_map(test, &u64_params);
	struct batch *b = test_alloc(test, sizeof(*b));
	unsigned int found, expected = 0;
	u32 i;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 300), 0);
	for (i = 0; i < n; i++) {
		b->keys[i] = i % 3 ? i * 2 : 300 + i;
		expected += !!(i % 3);
	}
	for (i = 0; i <= n; i++)
		b->values[i] = b;
	rcu_read_lock();
	found = chm_lookup_many(map, b->keys, n, b->values);
	for (i = 0; i < n; i++) {
		const u64 *value = b->values[i];

		KUNIT_EXPECT_EQ(test, !!value, !!(i % 3));
		KUNIT_EXPECT_TRUE(test, !value || *value == value_of(b->keys[i]));
	}
	rcu_read_unlock();
	KUNIT_EXPECT_EQ(test, found, expected);
	KUNIT_EXPECT_PTR_EQ(test, b->values[n], (const void *)b);
}

static void chm_lookup_many_without_table(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct batch *b = test_alloc(test, sizeof(*b));
	u32 i;

	memset(b->values, 0xff, sizeof(b->values));
	rcu_read_lock();
	KUNIT_EXPECT_EQ(test, chm_lookup_many(map, b->keys, 101, b->values), 0);
	rcu_read_unlock();
	for (i = 0; i < 101; i++)
		KUNIT_EXPECT_NULL(test, b->values[i]);
}

/* Packed keys of an odd size; pairs of the batch that are displaced. */
static void chm_lookup_many_packed_keys(struct kunit *test)
{
	const struct chm_params p = { .key_size = 3, .value_size = 2, .max_load = 95 };
	struct batch *b = test_alloc(test, sizeof(*b));
	u8 *keys = test_alloc(test, 3 * 101);
	struct sized z;
	u32 i;

	sized_init(test, &z, &p);
	for (i = 0; i < 101; i++) {
		fill_key(keys + 3 * i, 3, i);
		KUNIT_EXPECT_EQ(test, sized_upsert(&z, i, i), 1);
	}
	/* Addresses can be compared in one table alone. */
	KUNIT_ASSERT_TRUE(test, settle(z.map));
	rcu_read_lock();
	KUNIT_EXPECT_EQ(test, chm_lookup_many(z.map, keys, 101, b->values), 101);
	for (i = 0; i < 101; i++)
		KUNIT_EXPECT_PTR_EQ(test, b->values[i], chm_lookup(z.map, keys + 3 * i));
	rcu_read_unlock();
}

static struct kunit_case chm_lookup_cases[] = {
	KUNIT_CASE(chm_lookup_absent_and_present),
	KUNIT_CASE(chm_lookup_compares_every_bit),
	KUNIT_CASE(chm_lookup_with_interrupts_off),
	KUNIT_CASE(chm_lookup_value_is_aligned),
	KUNIT_CASE(chm_lookup_pair_in_one_line),
	KUNIT_CASE(chm_get_hit_and_miss),
	KUNIT_CASE(chm_get_copies_no_more_than_the_value),
	KUNIT_CASE_PARAM(chm_lookup_many_mixed, batch_gen_params),
	KUNIT_CASE(chm_lookup_many_without_table),
	KUNIT_CASE(chm_lookup_many_packed_keys),
	{}
};

static struct kunit_suite chm_lookup_suite = {
	.name = "chm_lookup",
	.test_cases = chm_lookup_cases,
};

/* === Suite: chm_update =================================================== */

static void chm_insert_new_and_present(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	u64 key = 5, value = 1, got = 0;

	KUNIT_EXPECT_EQ(test, chm_insert(map, &key, &value, GFP_KERNEL), 0);
	value = 2;
	KUNIT_EXPECT_EQ(test, chm_insert(map, &key, &value, GFP_KERNEL), -EEXIST);
	KUNIT_EXPECT_TRUE(test, chm_get(map, &key, &got));
	KUNIT_EXPECT_EQ(test, got, 1);
	KUNIT_EXPECT_EQ(test, chm_count(map), 1);
	expect_sound(test, map);
}

/* Zeroes for want of a value are for chm_cell_upsert_add() alone. */
static void chm_insert_without_value(struct kunit *test)
{
	static const struct chm_params params[] = {
		{ .key_size = 8, .value_size = sizeof(long) },
		{ .key_size = 8, .value_size = sizeof(long), .class = CHM_WORD },
		{ .key_size = 8, .value_size = sizeof(long), .class = CHM_CELL },
	};
	u64 key = 5;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(params); i++) {
		struct chm *map = test_map(test, &params[i]);
		long value = 7;

		KUNIT_EXPECT_EQ(test, chm_insert(map, &key, NULL, GFP_KERNEL),
				-EINVAL);
		KUNIT_EXPECT_EQ(test, chm_count(map), 0);
		KUNIT_EXPECT_EQ(test, chm_insert(map, &key, &value, GFP_KERNEL),
				0);
		KUNIT_EXPECT_EQ(test, chm_replace(map, &key, NULL, GFP_KERNEL),
				-EINVAL);
		KUNIT_EXPECT_EQ(test, chm_upsert(map, &key, NULL, GFP_KERNEL),
				-EINVAL);
		value = 0;
		KUNIT_EXPECT_TRUE(test, chm_get(map, &key, &value));
		KUNIT_EXPECT_EQ(test, value, 7);
	}
}

static void chm_insert_copies_its_arguments(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	u64 key = 5, value = value_of(5);

	KUNIT_EXPECT_EQ(test, chm_insert(map, &key, &value, GFP_KERNEL), 0);
	key = 6;
	value = 0;
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 5, 6), 0);
	KUNIT_EXPECT_FALSE(test, has_key(map, 6));
}

static void chm_insert_beyond_max_entries(struct kunit *test)
{
	const struct chm_params p = { .key_size = 8, .value_size = 8, .max_entries = 10 };
	struct chm *map = test_map(test, &p);

	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 10), 0);
	KUNIT_EXPECT_EQ(test, insert_key(map, 10), -E2BIG);
	/* What is there is there. */
	KUNIT_EXPECT_EQ(test, insert_key(map, 9), -EEXIST);
	KUNIT_EXPECT_FALSE(test, has_key(map, 10));
	KUNIT_EXPECT_EQ(test, chm_count(map), 10);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 10), 0);
	expect_sound(test, map);
	KUNIT_EXPECT_EQ(test, remove_key(map, 3), 0);
	KUNIT_EXPECT_EQ(test, insert_key(map, 10), 0);
	KUNIT_EXPECT_EQ(test, insert_key(map, 3), -E2BIG);
}

static const u32 key_sizes[] = { 1, 2, 3, 4, 7, 8, 12, 16, 24, 40, 64, 192, 4096 };
static const u32 value_sizes[] = { 0, 1, 3, 4, 8, 20, 64, 4096 };

static void key_size_desc(const u32 *size, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "keys of %u", *size);
}

KUNIT_ARRAY_PARAM(key_size, key_sizes, key_size_desc);

static void expect_sized_calls(struct kunit *test, struct sized *z, u32 n)
{
	unsigned long wrong = 0;
	u32 i;

	for (i = 0; i < n; i++)
		wrong += sized_upsert(z, i, i) != 1;
	for (i = 0; i < n; i += 2)
		wrong += sized_upsert(z, i, i + 1000) != 0;
	for (i = 0; i < n; i++)
		wrong += !sized_has(z, i, i % 2 ? i : i + 1000);
	for (i = 0; i < n; i += 3)
		wrong += sized_remove(z, i) != 0;
	for (i = 0; i < n; i++)
		wrong += sized_has(z, i, i % 2 ? i : i + 1000) != !!(i % 3);
	KUNIT_EXPECT_EQ_MSG(test, wrong, 0, "values of %u", z->value_size);
	KUNIT_EXPECT_EQ(test, chm_count(z->map), n - DIV_ROUND_UP(n, 3));
	expect_sound(test, z->map);
}

static void chm_update_with_each_size(struct kunit *test)
{
	u32 i;

	for (i = 0; i < ARRAY_SIZE(value_sizes); i++) {
		const struct chm_params p = {
			.key_size = *(const u32 *)test->param_value,
			.value_size = value_sizes[i],
		};
		struct sized z;

		sized_init(test, &z, &p);
		expect_sized_calls(test, &z, scaled(200, 40));
		destroy_now(test, z.map);
	}
}

static void chm_replace_absent_and_present(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	u64 key = 5, value = 99, got = 0;

	/* Without a table, with one. */
	KUNIT_EXPECT_EQ(test, chm_replace(map, &key, &value, GFP_KERNEL), -ENOENT);
	KUNIT_EXPECT_EQ(test, stats_of(map).bytes, 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 6, 30), 0);
	KUNIT_EXPECT_EQ(test, chm_replace(map, &key, &value, GFP_KERNEL), -ENOENT);
	KUNIT_EXPECT_FALSE(test, has_key(map, 5));
	key = 6;
	KUNIT_EXPECT_EQ(test, chm_replace(map, &key, &value, GFP_KERNEL), 0);
	KUNIT_EXPECT_TRUE(test, chm_get(map, &key, &got));
	KUNIT_EXPECT_EQ(test, got, 99);
	KUNIT_EXPECT_EQ(test, chm_count(map), 24);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 7, 30), 0);
	expect_sound(test, map);
}

/* Each replacement leaves a DEAD slot behind: no free one in the chunk soon. */
static void chm_replace_over_and_over(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	unsigned long n = scaled(5000, 500);
	unsigned long wrong = 0;
	u64 key, value, got;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 100), 0);
	for (value = 0; value < n; value++) {
		key = value % 10;
		wrong += chm_replace(map, &key, &value, GFP_KERNEL) != 0;
		wrong += !chm_get(map, &key, &got) || got != value;
		if (value % 500 == 0)
			expect_sound(test, map);
	}
	KUNIT_EXPECT_EQ(test, wrong, 0);
	KUNIT_EXPECT_EQ(test, chm_count(map), 100);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 10, 100), 0);
	expect_sound(test, map);
}

/*
 * A table near its maximum load, where replacing drives pairs from home, and
 * few enough replacements between grace periods that DEAD slots do not make the
 * table be rebuilt.  G1: lookups stay short.
 */
#define STRAY_KEYS	20000UL

static struct chm *full_map(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	unsigned long filled = STRAY_KEYS * 98 / 100;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, STRAY_KEYS, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, filled), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	return map;
}

static unsigned long replace_and_wait(struct chm *map, u64 key, bool next,
				      unsigned int n)
{
	unsigned long failed = 0;
	u64 value;

	for (; n; n--, key += next) {
		value = value_of(key);
		failed += chm_replace(map, &key, &value, GFP_KERNEL) != 0;
	}
	synchronize_rcu();
	return failed;
}

static void chm_replace_one_key_stays_near(struct kunit *test)
{
	struct chm *map = full_map(test);
	unsigned long failed = 0, longest = 0;
	struct chm_stats s;
	int i;

	for (i = 0; i < 20; i++) {
		failed += replace_and_wait(map, 7, false, 500);
		s = stats_of(map);
		longest = max(longest, s.longest_probe);
	}
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_GT_MSG(test, s.chunks, 3000, "no room to stray");
	KUNIT_EXPECT_LE(test, longest, 64);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, STRAY_KEYS * 98 / 100), 0);
	expect_sound(test, map);
}

static void chm_replace_all_keys_stay_near(struct kunit *test)
{
	struct chm *map = full_map(test);
	unsigned long failed = 0;
	u64 key;

	for (key = 0; key + 300 <= STRAY_KEYS * 98 / 100; key += 300)
		failed += replace_and_wait(map, key, true, 300);
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_LE(test, stats_of(map).longest_probe, 64);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, STRAY_KEYS * 98 / 100), 0);
	expect_sound(test, map);
}

#define COLLIDING_KEYS	2000UL

/* Below COLLIDING_KEYS all keys have one home, which no fresh table mends. */
static u64 hash_some_collide(const void *key, u64 seed)
{
	if (*(const u64 *)key < COLLIDING_KEYS)
		return unmix(1ULL << 62 | *(const u64 *)key, seed);
	return chm_hash_bytes(key, sizeof(u64), seed);
}

static void chm_replace_colliding_keys_rarely_migrates(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64),
		.value_size = sizeof(u64),
		.hash = hash_some_collide,
	};
	struct chm *map = test_map(test, &p);
	struct chm_stats before, after;
	unsigned long failed = 0;
	u64 key;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 12000, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 10000), 0);
	before = stats_of(map);
	KUNIT_EXPECT_GT(test, before.longest_probe, COLLIDING_KEYS / CHM_SLOTS / 2);
	for (key = 0; key < 1000; key += 100)
		failed += replace_and_wait(map, key, true, 100);
	after = stats_of(map);
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_LE(test, migrations(&after), migrations(&before) + 10);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 10000), 0);
	expect_sound(test, map);
}

/* More DEAD slots at once than there is room for: rebuild, don't stray. */
static void chm_replace_faster_than_grace_periods(struct kunit *test)
{
	struct chm *map = full_map(test);
	struct chm_stats before = stats_of(map), after;
	unsigned long failed = 0;
	u64 key, value = 1;

	for (key = 0; key < STRAY_KEYS / 2; key++)
		failed += chm_replace(map, &key, &value, GFP_KERNEL) != 0;
	KUNIT_EXPECT_TRUE(test, settle(map));
	after = stats_of(map);
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_GT(test, migrations(&after), migrations(&before));
	KUNIT_EXPECT_LE(test, after.longest_probe, 257);
	expect_sound(test, map);
}

static void chm_upsert_absent_and_present(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	u64 key = 5, value = 1, got = 0;

	KUNIT_EXPECT_EQ(test, chm_upsert(map, &key, &value, GFP_KERNEL), 1);
	value = 2;
	KUNIT_EXPECT_EQ(test, chm_upsert(map, &key, &value, GFP_KERNEL), 0);
	KUNIT_EXPECT_TRUE(test, chm_get(map, &key, &got));
	KUNIT_EXPECT_EQ(test, got, 2);
	KUNIT_EXPECT_EQ(test, chm_count(map), 1);
	KUNIT_EXPECT_EQ(test, remove_key(map, 5), 0);
	KUNIT_EXPECT_EQ(test, chm_upsert(map, &key, &value, GFP_KERNEL), 1);
	expect_sound(test, map);
}

static void chm_upsert_at_max_entries(struct kunit *test)
{
	const struct chm_params p = { .key_size = 8, .value_size = 8, .max_entries = 3 };
	struct chm *map = test_map(test, &p);
	u64 key = 2, value = value_of(2);

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 3), 0);
	KUNIT_EXPECT_EQ(test, chm_upsert(map, &key, &value, GFP_KERNEL), 0);
	key = 3;
	KUNIT_EXPECT_EQ(test, chm_upsert(map, &key, &value, GFP_KERNEL), -E2BIG);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 3), 0);
	KUNIT_EXPECT_FALSE(test, has_key(map, 3));
}

static void chm_remove_present_and_absent(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);

	KUNIT_EXPECT_EQ(test, remove_key(map, 5), -ENOENT);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 10), 0);
	KUNIT_EXPECT_EQ(test, remove_key(map, 10), -ENOENT);
	KUNIT_EXPECT_EQ(test, remove_key(map, 5), 0);
	KUNIT_EXPECT_EQ(test, remove_key(map, 5), -ENOENT);
	KUNIT_EXPECT_FALSE(test, has_key(map, 5));
	KUNIT_EXPECT_EQ(test, chm_count(map), 9);
	expect_sound(test, map);
	KUNIT_EXPECT_EQ(test, insert_key(map, 5), 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 10), 0);
}

/* In both orders, so that displaced pairs go first, and last. */
static void chm_remove_all_and_insert_again(struct kunit *test)
{
	const struct chm_params p = { .key_size = 8, .value_size = 8, .max_load = 95 };
	struct chm *map = test_map(test, &p);
	unsigned long n = scaled(3000, 300);
	unsigned long failed = 0;
	u64 key;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, n), 0);
	KUNIT_EXPECT_EQ(test, remove_keys(map, 0, n), 0);
	KUNIT_EXPECT_EQ(test, found_keys(map, 0, n), 0);
	KUNIT_EXPECT_EQ(test, stats_of(map).displaced, 0);
	expect_sound(test, map);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, n), 0);
	for (key = n; key; key--)
		failed += remove_key(map, key - 1) != 0;
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_EQ(test, chm_count(map), 0);
	KUNIT_EXPECT_EQ(test, found_keys(map, 0, n), 0);
	expect_sound(test, map);
}

/* A slot is reused only after a grace period, and then it must be. */
static void chm_remove_slots_become_usable(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 100), 0);
	KUNIT_EXPECT_EQ(test, remove_keys(map, 0, 50), 0);
	KUNIT_EXPECT_TRUE(test, wait_dead(map));
	expect_sound(test, map);
}

/* A writer has waited; what that did for is what had died before, and no more. */
static void chm_remove_after_a_wait(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct long_reader *r;
	struct chm_table *t;
	unsigned long flags;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 100), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	t = lock_table(map, &flags);
	t->awaited = true;
	unlock_table(map, &flags);
	r = test_reader(test);
	KUNIT_EXPECT_EQ(test, remove_keys(map, 0, 50), 0);
	msleep(50);
	KUNIT_EXPECT_EQ(test, stats_of(map).dead, 50);
	stop_reader(test, r);
	KUNIT_EXPECT_TRUE(test, wait_dead(map));
	expect_sound(test, map);
}

static void chm_take_present_and_absent(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	u64 key = 5, old = 42, got = 42;

	KUNIT_EXPECT_EQ(test, chm_take(map, &key, &old, &got), -ENOENT);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 10), 0);
	KUNIT_EXPECT_EQ(test, chm_take(map, &key, &old, &got), 0);
	KUNIT_EXPECT_EQ(test, old, 5);
	KUNIT_EXPECT_EQ(test, got, value_of(5));
	old = 42;
	got = 42;
	KUNIT_EXPECT_EQ(test, chm_take(map, &key, &old, &got), -ENOENT);
	KUNIT_EXPECT_EQ(test, old, 42);
	KUNIT_EXPECT_EQ(test, got, 42);
	KUNIT_EXPECT_FALSE(test, has_key(map, 5));
	KUNIT_EXPECT_EQ(test, chm_count(map), 9);
	expect_sound(test, map);
}

static void chm_clear_removes_all(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct chm_stats before, after;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 1000), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	before = stats_of(map);
	chm_clear(map);
	after = stats_of(map);
	KUNIT_EXPECT_EQ(test, chm_count(map), 0);
	KUNIT_EXPECT_EQ(test, found_keys(map, 0, 1000), 0);
	/* Another table, where nothing is to be seen of the pairs, or none. */
	KUNIT_EXPECT_LE(test, after.bytes, before.bytes);
	KUNIT_EXPECT_EQ(test, migrations(&after), migrations(&before));
	KUNIT_EXPECT_EQ(test, after.displaced, 0);
	KUNIT_EXPECT_EQ(test, after.dead, 0);
	expect_sound(test, map);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 1000), 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 1000), 0);
	expect_sound(test, map);
	KUNIT_EXPECT_TRUE(test, settle(map));
}

/* Not even then does an insertion need memory that may not be there: G7. */
static void chm_clear_keeps_what_was_reserved(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct chm_stats s;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 1000, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 1000), 0);
	chm_clear(map);
	s = stats_of(map);
	KUNIT_EXPECT_GE(test, s.slots * 80, 1000 * 100);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 1000, 2000), 0);
	KUNIT_EXPECT_EQ(test, stats_of(map).bytes, s.bytes);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 1000, 2000), 0);
	expect_sound(test, map);
}

/* Slots that died before, of one generation and the other, survive it. */
static void chm_clear_among_the_dead(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	u64 round;

	for (round = 0; round < 20; round++) {
		KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 60), 0);
		KUNIT_EXPECT_EQ(test, remove_keys(map, round, round + 30), 0);
		chm_clear(map);
		expect_sound(test, map);
		chm_clear(map);
		expect_sound(test, map);
		KUNIT_EXPECT_EQ(test, found_keys(map, 0, 60), 0);
	}
}

static void chm_count_follows_every_call(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	u64 key = 3, value = 4;

	KUNIT_EXPECT_EQ(test, chm_count(map), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 200), 0);
	KUNIT_EXPECT_EQ(test, chm_count(map), 200);
	KUNIT_EXPECT_EQ(test, chm_replace(map, &key, &value, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, chm_upsert(map, &key, &value, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, chm_count(map), 200);
	KUNIT_EXPECT_EQ(test, chm_take(map, &key, NULL, &value), 0);
	KUNIT_EXPECT_EQ(test, chm_count(map), 199);
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, chm_count(map), 199);
	chm_clear(map);
	KUNIT_EXPECT_EQ(test, chm_count(map), 0);
}

static struct kunit_case chm_update_cases[] = {
	KUNIT_CASE(chm_insert_new_and_present),
	KUNIT_CASE(chm_insert_without_value),
	KUNIT_CASE(chm_insert_copies_its_arguments),
	KUNIT_CASE(chm_insert_beyond_max_entries),
	KUNIT_CASE_PARAM(chm_update_with_each_size, key_size_gen_params),
	KUNIT_CASE(chm_replace_absent_and_present),
	KUNIT_CASE(chm_replace_over_and_over),
	KUNIT_CASE(chm_replace_one_key_stays_near),
	KUNIT_CASE(chm_replace_all_keys_stay_near),
	KUNIT_CASE(chm_replace_colliding_keys_rarely_migrates),
	KUNIT_CASE(chm_replace_faster_than_grace_periods),
	KUNIT_CASE(chm_upsert_absent_and_present),
	KUNIT_CASE(chm_upsert_at_max_entries),
	KUNIT_CASE(chm_remove_present_and_absent),
	KUNIT_CASE(chm_remove_all_and_insert_again),
	KUNIT_CASE(chm_remove_slots_become_usable),
	KUNIT_CASE(chm_remove_after_a_wait),
	KUNIT_CASE(chm_take_present_and_absent),
	KUNIT_CASE(chm_clear_removes_all),
	KUNIT_CASE(chm_clear_keeps_what_was_reserved),
	KUNIT_CASE(chm_clear_among_the_dead),
	KUNIT_CASE(chm_count_follows_every_call),
	{}
};

static struct kunit_suite chm_update_suite = {
	.name = "chm_update",
	.test_cases = chm_update_cases,
};

/* === Suite: chm_size ===================================================== */

/* G7, checked by the figures: nothing migrated, nothing failed. */
static void expect_no_new_table(struct kunit *test, struct chm *map,
				const struct chm_stats *before)
{
	struct chm_stats s = stats_of(map);

	KUNIT_EXPECT_EQ(test, s.chunks, before->chunks);
	KUNIT_EXPECT_EQ(test, s.bytes, before->bytes);
	KUNIT_EXPECT_EQ(test, s.migrating, 0);
	KUNIT_EXPECT_EQ(test, migrations(&s), migrations(before));
	KUNIT_EXPECT_EQ(test, s.failed_allocs, before->failed_allocs);
}

static const u32 reserve_sizes[] = { 1, 2, 5, 6, 7, 100, 1000, 10007 };

static void reserve_desc(const u32 *n, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "%u pairs", *n);
}

KUNIT_ARRAY_PARAM(reserve, reserve_sizes, reserve_desc);

/* G7, at the loads where rounding matters most. */
static void chm_reserve_then_fill(struct kunit *test)
{
	const u32 n = *(const u32 *)test->param_value;
	/* At 95 percent long paths make a large table grow early. */
	const u32 loads[] = { 25, 33, 80, n <= 1000 ? 95 : 85 };
	u32 i;

	for (i = 0; i < ARRAY_SIZE(loads); i++) {
		const struct chm_params p = {
			.key_size = 8,
			.value_size = 8,
			.max_load = loads[i],
		};
		struct chm *map = test_map(test, &p);
		struct chm_stats s;

		KUNIT_ASSERT_EQ(test, chm_reserve(map, n, GFP_KERNEL), 0);
		s = stats_of(map);
		KUNIT_EXPECT_GE(test, s.slots * loads[i], n * 100UL);
		KUNIT_EXPECT_EQ(test, insert_keys(map, 0, n), 0);
		expect_no_new_table(test, map, &s);
		KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, n), 0);
		expect_sound(test, map);
		destroy_now(test, map);
	}
}

static void chm_reserve_counts_what_is_there(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct chm_stats s;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 700), 0);
	KUNIT_ASSERT_EQ(test, chm_reserve(map, 2000, GFP_KERNEL), 0);
	s = stats_of(map);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 700), 0);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 700, 2000), 0);
	expect_no_new_table(test, map, &s);
	expect_sound(test, map);
}

static void chm_reserve_less_changes_nothing(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct chm_stats s;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 5000, GFP_KERNEL), 0);
	/* More than an eighth of the slots, or it would shrink by itself. */
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 1000), 0);
	s = stats_of(map);
	KUNIT_EXPECT_EQ(test, chm_reserve(map, 50, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, chm_reserve(map, 0, GFP_KERNEL), 0);
	expect_no_new_table(test, map, &s);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 1000), 0);
}

static const unsigned long impossible_sizes[] = {
	ULONG_MAX, ULONG_MAX - 1, ULONG_MAX / 2 + 1, ULONG_MAX / 100, ULONG_MAX / 100 + 1,
	ULONG_MAX / 7, ULONG_MAX / 16,
#if BITS_PER_LONG == 64
	1UL << 44, 7UL << 31,
#endif
};

/* No arithmetic wraps around; G6. */
static void chm_reserve_impossible(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct chm_stats s;
	u32 i;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 50), 0);
	s = stats_of(map);
	for (i = 0; i < ARRAY_SIZE(impossible_sizes); i++)
		KUNIT_EXPECT_EQ_MSG(test, chm_reserve(map, impossible_sizes[i], GFP_KERNEL),
				    -E2BIG, "%#lx pairs", impossible_sizes[i]);
	KUNIT_EXPECT_EQ(test, stats_of(map).bytes, s.bytes);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 50), 0);
	expect_sound(test, map);
	/* No promise was left behind. */
	KUNIT_EXPECT_EQ(test, insert_keys(map, 50, 1000), 0);
}

static void chm_reserve_beyond_max_entries(struct kunit *test)
{
	const struct chm_params p = { .key_size = 8, .value_size = 8, .max_entries = 100 };
	struct chm *map = test_map(test, &p);

	KUNIT_EXPECT_EQ(test, chm_reserve(map, 101, GFP_KERNEL), -E2BIG);
	KUNIT_EXPECT_EQ(test, stats_of(map).bytes, 0);
	KUNIT_EXPECT_EQ(test, chm_reserve(map, 100, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 100), 0);
}

/* Wide pairs: 1500 of them take more than kmalloc() can give. */
static const struct chm_params wide_params = {
	.key_size = 8,
	.value_size = 4096,
};

/* Writers of such a map look for memory themselves, and the worker does not. */
static const struct chm_params wide_sync_params = {
	.key_size = 8,
	.value_size = 4096,
	.reclaim = CHM_SYNC,
};

#define WIDE_PAIRS	1500

static unsigned long insert_wide(struct sized *z, u64 from, u64 to, gfp_t gfp)
{
	unsigned long failed = 0;

	for (; from < to; from++) {
		fill_key(z->key, 8, from);
		failed += chm_insert(z->map, z->key, z->value, gfp) != 0;
	}
	return failed;
}

/* Tables of more bytes can't be had by the test; the worker gets what it asks for. */
static u64 memory_limit;

static void *limited_alloc(u64 bytes, gfp_t gfp)
{
	return bytes > memory_limit ? ERR_PTR(-ENOMEM) :
				      __chm_alloc(bytes, gfp);
}

static void limit_memory(struct kunit *test, u64 bytes)
{
	memory_limit = bytes;
	kunit_activate_static_stub(test, chm_alloc, limited_alloc);
}

static void end_limit(struct kunit *test)
{
	kunit_deactivate_static_stub(test, chm_alloc);
}

/* G7 */
static void chm_reserve_then_nothing_can_be_allocated(struct kunit *test)
{
	struct sized z;
	struct chm_stats s;

	sized_init(test, &z, &wide_params);
	KUNIT_ASSERT_EQ(test, chm_reserve(z.map, WIDE_PAIRS, GFP_KERNEL), 0);
	s = stats_of(z.map);
	limit_memory(test, 0);
	KUNIT_EXPECT_EQ(test, insert_wide(&z, 0, WIDE_PAIRS, GFP_KERNEL), 0);
	expect_no_new_table(test, z.map, &s);
	KUNIT_EXPECT_EQ(test, chm_count(z.map), WIDE_PAIRS);
	expect_sound(test, z.map);
}

/* G7 after churn: DEAD slots may make it wait, or take room, but not fail. */
static void chm_reserve_then_churn(struct kunit *test)
{
	struct sized z;
	struct chm_stats s;
	u64 round, id;

	sized_init(test, &z, &wide_params);
	KUNIT_ASSERT_EQ(test, chm_reserve(z.map, WIDE_PAIRS, GFP_KERNEL), 0);
	s = stats_of(z.map);
	limit_memory(test, 0);
	for (round = 0; round < 3; round++) {
		KUNIT_EXPECT_EQ(test, insert_wide(&z, 0, WIDE_PAIRS, GFP_KERNEL), 0);
		for (id = 0; id < WIDE_PAIRS; id++)
			KUNIT_EXPECT_EQ(test, sized_remove(&z, id), 0);
	}
	/* If the worker has found memory: once more as much, for the dead. */
	KUNIT_EXPECT_GE(test, stats_of(z.map).bytes, s.bytes);
	KUNIT_EXPECT_LE(test, stats_of(z.map).bytes, 2 * s.bytes);
	expect_sound(test, z.map);
}

/* G6: the first pair too many, when there is no memory for a larger table. */
static void chm_insert_without_memory(struct kunit *test)
{
	struct sized z;
	struct chm_stats s;
	u64 id = 0;

	sized_init(test, &z, &wide_sync_params);
	KUNIT_ASSERT_EQ(test, chm_reserve(z.map, WIDE_PAIRS, GFP_KERNEL), 0);
	s = stats_of(z.map);
	limit_memory(test, 0);
	while (!insert_wide(&z, id, id + 1, GFP_KERNEL) && id < 2 * WIDE_PAIRS)
		id++;
	KUNIT_EXPECT_GE(test, id, WIDE_PAIRS);
	fill_key(z.key, 8, id);
	KUNIT_EXPECT_EQ(test, chm_insert(z.map, z.key, z.value, GFP_KERNEL), -ENOMEM);
	KUNIT_EXPECT_EQ(test, chm_upsert(z.map, z.key, z.value, GFP_KERNEL), -ENOMEM);
	KUNIT_EXPECT_EQ(test, chm_reserve(z.map, 2 * id, GFP_KERNEL), -ENOMEM);
	KUNIT_EXPECT_FALSE(test, chm_get(z.map, z.key, z.got));
	KUNIT_EXPECT_EQ(test, chm_count(z.map), id);
	KUNIT_EXPECT_EQ(test, stats_of(z.map).bytes, s.bytes);
	KUNIT_EXPECT_GE(test, stats_of(z.map).failed_allocs, 3);
	expect_sound(test, z.map);
	end_limit(test);
	KUNIT_EXPECT_EQ(test, insert_wide(&z, id, id + 1, GFP_KERNEL), 0);
}

/* There is no memory for the usual growth, but for a smaller one. */
static void chm_insert_with_little_memory(struct kunit *test)
{
	struct chm_stats s;
	struct sized z;
	u64 id = 0;

	sized_init(test, &z, &wide_sync_params);
	KUNIT_ASSERT_EQ(test, insert_wide(&z, 0, WIDE_PAIRS, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, chm_shrink(z.map, GFP_KERNEL), 0);
	s = stats_of(z.map);
	limit_memory(test, s.bytes + s.bytes / 4);
	for (id = WIDE_PAIRS; stats_of(z.map).bytes == s.bytes; id++)
		KUNIT_ASSERT_EQ(test, insert_wide(&z, id, id + 1, GFP_KERNEL), 0);
	KUNIT_EXPECT_GE(test, stats_of(z.map).failed_allocs, 1);
	KUNIT_EXPECT_EQ(test, chm_count(z.map), id);
	expect_sound(test, z.map);
}

static void chm_shrink_without_memory(struct kunit *test)
{
	struct sized z;
	struct chm_stats s;

	sized_init(test, &z, &wide_params);
	KUNIT_ASSERT_EQ(test, chm_reserve(z.map, 2 * WIDE_PAIRS, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_wide(&z, 0, WIDE_PAIRS, GFP_KERNEL), 0);
	s = stats_of(z.map);
	limit_memory(test, 0);
	KUNIT_EXPECT_EQ(test, chm_shrink(z.map, GFP_KERNEL), -ENOMEM);
	KUNIT_EXPECT_EQ(test, stats_of(z.map).bytes, s.bytes);
	/* The table is as it was, and so many fit. */
	KUNIT_EXPECT_EQ(test, insert_wide(&z, WIDE_PAIRS, 2 * WIDE_PAIRS, GFP_KERNEL), 0);
	expect_sound(test, z.map);
}

static void chm_shrink_to_fit(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct chm_stats s;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 5000), 0);
	KUNIT_ASSERT_EQ(test, remove_keys(map, 300, 5000), 0);
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	s = stats_of(map);
	expect_chunks_for(test, map, 300);
	KUNIT_EXPECT_GE(test, s.shrinks, 1);
	KUNIT_EXPECT_EQ(test, s.dead, 0);
	KUNIT_EXPECT_EQ(test, s.migrated, 300);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 300), 0);
	KUNIT_EXPECT_EQ(test, found_keys(map, 300, 5000), 0);
	expect_sound(test, map);
	/* It fits already. */
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	expect_no_new_table(test, map, &s);
}

/* Has slots die all the time, until the test takes the pairs away. */
static int replace_until_absent(struct chm *map)
{
	unsigned long end = jiffies + 20 * HZ;
	u8 value[120] = { };
	u64 key = 0;
	int ret = 0;

	while (!ret && time_before(jiffies, end)) {
		key = (key + 1) % 64;
		ret = chm_replace(map, &key, value, GFP_NOFS);
		cond_resched();
	}
	return ret;
}

/* The tables of a writer who never rests come in nobody's way for ever. */
static void chm_reserve_beside_busy_writer(struct kunit *test)
{
	static const struct chm_params p = { .key_size = 8, .value_size = 120 };
	struct chm *map = test_map(test, &p);
	u8 *value = test_alloc(test, p.value_size);
	unsigned long n = scaled(1000000, 100000);
	struct map_call *c;
	u64 key;

	for (key = 0; key < 64; key++)
		KUNIT_ASSERT_EQ(test, chm_insert(map, &key, value, GFP_KERNEL), 0);
	c = start_call(test, map, replace_until_absent);
	while (work_busy(&c->work) && !stats_of(map).dead)
		msleep(20);
	KUNIT_EXPECT_EQ(test, chm_reserve(map, n, GFP_KERNEL), 0);
	chm_clear(map);
	KUNIT_EXPECT_EQ(test, end_call(c), -ENOENT);
	KUNIT_EXPECT_GE(test, stats_of(map).slots, n);
	expect_sound(test, map);
}

/* G10. */
static void chm_shrink_empty(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 1000), 0);
	KUNIT_ASSERT_EQ(test, remove_keys(map, 0, 1000), 0);
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, stats_of(map).bytes, 0);
	KUNIT_EXPECT_EQ(test, stats_of(map).chunks, 0);
	KUNIT_EXPECT_EQ(test, found_keys(map, 0, 1000), 0);
	expect_sound(test, map);
	KUNIT_EXPECT_TRUE(test, wait_retired(map));
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 1000), 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 1000), 0);
}

static void chm_shrink_ends_reserve(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 10000, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 10), 0);
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	KUNIT_EXPECT_LE(test, stats_of(map).slots, 3 * CHM_SLOTS);
	/* Not even the next growth remembers. */
	KUNIT_EXPECT_EQ(test, insert_keys(map, 10, 100), 0);
	KUNIT_EXPECT_LE(test, stats_of(map).slots, 300);
	expect_sound(test, map);
}

static void chm_stats_figures(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct chm_stats s;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 100), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	s = stats_of(map);
	KUNIT_EXPECT_EQ(test, s.entries, 100);
	KUNIT_EXPECT_EQ(test, s.slots, s.chunks * CHM_SLOTS);
	KUNIT_EXPECT_GE(test, s.bytes, s.chunks * chm_stride(16));
	KUNIT_EXPECT_GE(test, s.longest_probe, 1);
	KUNIT_EXPECT_LE(test, s.longest_probe, s.chunks);
	KUNIT_EXPECT_EQ(test, s.migrating, 0);
	KUNIT_EXPECT_EQ(test, s.copied, 0);
	KUNIT_EXPECT_EQ(test, s.aborts, 0);
}

/* A table that was built has been inserted into, too. */
static void chm_stats_longest_probe_of_built_table(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 100, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, stats_of(map).longest_probe, 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 3), 0);
	KUNIT_EXPECT_EQ(test, stats_of(map).longest_probe, 1);
	/* Three pairs fit into any chunk. */
	KUNIT_ASSERT_EQ(test, chm_reserve(map, 200, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, stats_of(map).longest_probe, 1);
	KUNIT_ASSERT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, stats_of(map).longest_probe, 1);
	chm_clear(map);
	KUNIT_EXPECT_EQ(test, stats_of(map).longest_probe, 0);
	KUNIT_ASSERT_EQ(test, chm_reserve(map, 200, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, stats_of(map).longest_probe, 0);
}

static void chm_stats_events(struct kunit *test)
{
	const struct chm_params p = { .key_size = 8, .value_size = 8, .reclaim = CHM_SYNC };
	struct chm *map = test_map(test, &p);
	struct chm_stats s;

	KUNIT_ASSERT_EQ(test, insert_key(map, 0), 0);
	s = stats_of(map);
	KUNIT_EXPECT_EQ(test, migrations(&s), 0);
	KUNIT_ASSERT_EQ(test, chm_reserve(map, 100, GFP_KERNEL), 0);
	s = stats_of(map);
	KUNIT_EXPECT_EQ(test, s.grows, 1);
	KUNIT_EXPECT_EQ(test, s.migrated, 1);
	/* CHM_SYNC: the writer waited, and the memory is back. */
	KUNIT_EXPECT_EQ(test, s.gp_waits, 1);
	KUNIT_EXPECT_EQ(test, s.retired_bytes, 0);
	KUNIT_ASSERT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	s = stats_of(map);
	KUNIT_EXPECT_EQ(test, s.shrinks, 1);
	KUNIT_EXPECT_EQ(test, s.grows, 1);
	KUNIT_EXPECT_EQ(test, s.rehashes, 0);
	KUNIT_EXPECT_EQ(test, s.gp_waits, 2);
}

/* More than kvmalloc() gives: INT_MAX. */
static void chm_reserve_beyond_kvmalloc(struct kunit *test)
{
	const unsigned long n = ((unsigned long)INT_MAX + SZ_64M) / (4096 + 8) * 4 / 5;
	struct sized z;

	if (BITS_PER_LONG < 64 || totalram_pages() >> (30 - PAGE_SHIFT) < 4)
		kunit_skip(test, "needs 64 bits and 4 GiB of memory");
	sized_init(test, &z, &wide_params);
	KUNIT_ASSERT_EQ(test, chm_reserve(z.map, n, GFP_KERNEL), 0);
	KUNIT_EXPECT_GT(test, stats_of(z.map).bytes, (unsigned long)INT_MAX);
	KUNIT_EXPECT_EQ(test, insert_wide(&z, 0, 3000, GFP_KERNEL), 0);
	fill_key(z.key, 8, 2999);
	KUNIT_EXPECT_TRUE(test, chm_get(z.map, z.key, z.got));
	expect_sound(test, z.map);
}

/* A table larger than the memory: no warning, no harm. */
static void chm_reserve_beyond_memory(struct kunit *test)
{
	const unsigned long n = totalram_pages() * (PAGE_SIZE / 4096) * 2;
	struct sized z;

	sized_init(test, &z, &wide_params);
	KUNIT_ASSERT_EQ(test, insert_wide(&z, 0, 20, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, chm_reserve(z.map, n, GFP_KERNEL), -ENOMEM);
	KUNIT_EXPECT_EQ(test, stats_of(z.map).failed_allocs, 1);
	KUNIT_EXPECT_EQ(test, chm_count(z.map), 20);
	expect_sound(test, z.map);
}

static struct kunit_case chm_size_cases[] = {
	KUNIT_CASE_PARAM(chm_reserve_then_fill, reserve_gen_params),
	KUNIT_CASE(chm_reserve_counts_what_is_there),
	KUNIT_CASE(chm_reserve_less_changes_nothing),
	KUNIT_CASE(chm_reserve_impossible),
	KUNIT_CASE(chm_reserve_beyond_max_entries),
	KUNIT_CASE(chm_reserve_then_nothing_can_be_allocated),
	KUNIT_CASE(chm_reserve_then_churn),
	KUNIT_CASE(chm_insert_without_memory),
	KUNIT_CASE(chm_insert_with_little_memory),
	KUNIT_CASE(chm_reserve_beside_busy_writer),
	KUNIT_CASE(chm_shrink_without_memory),
	KUNIT_CASE(chm_shrink_to_fit),
	KUNIT_CASE(chm_shrink_empty),
	KUNIT_CASE(chm_shrink_ends_reserve),
	KUNIT_CASE(chm_stats_figures),
	KUNIT_CASE(chm_stats_longest_probe_of_built_table),
	KUNIT_CASE(chm_stats_events),
	KUNIT_CASE_SLOW(chm_reserve_beyond_kvmalloc),
	KUNIT_CASE(chm_reserve_beyond_memory),
	{}
};

static struct kunit_suite chm_size_suite = {
	.name = "chm_size",
	.test_cases = chm_size_cases,
};

/* === Suite: chm_verify =================================================== */

/* What a table and a map were before one of them was damaged. */
struct backup {
	struct chm_table	*t;
	void			*bytes;
	size_t			size;
	unsigned long		entries;
	unsigned long		retired_bytes;
};

static struct chm_chunk *chunk_of(struct backup *b, u32 chunk)
{
	return __chm_chunk(b->t, chunk, b->t->p);
}

static void *slot_of(struct backup *b, const struct chm_chunk *c, u32 slot)
{
	return __chm_slot(b->t, c, slot, b->t->p);
}

/* Of chunks with DEAD slots, of occupied chunks, and of words of that one. */
static unsigned long *bitmaps_of(struct backup *b)
{
	return (void *)chunk_of(b, b->t->nr_chunks);
}

/* The first chunk with @n FULL and @n EMPTY slots. */
static u32 chunk_with(struct backup *b, u32 n)
{
	u32 i;

	for (i = 0; i + 1 < b->t->nr_chunks; i++) {
		unsigned long ctrl = chunk_of(b, i)->ctrl;

		if (hweight_long(chm_match_full(ctrl)) >= n &&
		    hweight_long(chm_match_empty(ctrl)) >= n && !(ctrl & CHM_OVERFLOW))
			break;
	}
	return i;
}

static void damage_tag(struct chm *map, struct backup *b)
{
	struct chm_chunk *c = chunk_of(b, chunk_with(b, 1));
	u32 slot = chm_first(chm_match_full(c->ctrl));

	c->ctrl = chm_tag_set(c->ctrl, slot, chm_tag_at(c->ctrl, slot) ^ 1);
}

static void damage_empty_tag(struct chm *map, struct backup *b)
{
	struct chm_chunk *c = chunk_of(b, chunk_with(b, 1));

	c->ctrl = chm_tag_set(c->ctrl, chm_first(chm_match_empty(c->ctrl)), 0x40);
}

static void damage_key(struct chm *map, struct backup *b)
{
	struct chm_chunk *c = chunk_of(b, chunk_with(b, 1));
	u64 *key = slot_of(b, c, chm_first(chm_match_full(c->ctrl)));

	*key ^= 1ULL << 40;
}

static void damage_overflow(struct chm *map, struct backup *b)
{
	struct chm_chunk *c = chunk_of(b, chunk_with(b, 1));

	c->ctrl |= chm_overflow_bit(3);
}

static void damage_lost_pair(struct chm *map, struct backup *b)
{
	struct chm_chunk *c = chunk_of(b, chunk_with(b, 1));

	c->ctrl = chm_tag_set(c->ctrl, chm_first(chm_match_full(c->ctrl)), CHM_TAG_EMPTY);
}

static void damage_entries(struct chm *map, struct backup *b)
{
	map->entries++;
}

static void damage_dead_count(struct chm *map, struct backup *b)
{
	b->t->dead[1]++;
}

static void damage_displaced(struct chm *map, struct backup *b)
{
	b->t->displaced++;
}

static void damage_retired(struct chm *map, struct backup *b)
{
	map->retired_bytes += 4096;
}

static void damage_bitmap(struct chm *map, struct backup *b)
{
	*bitmaps_of(b) ^= 1;
}

static void damage_occupied(struct chm *map, struct backup *b)
{
	bitmaps_of(b)[BITS_TO_LONGS(b->t->nr_chunks)] ^= 1;
}

/* The last bitmap but one; all of its words are in use. */
static void damage_occupied_words(struct chm *map, struct backup *b)
{
	bitmaps_of(b)[2 * BITS_TO_LONGS(b->t->nr_chunks)] ^= 1;
}

static void damage_spread(struct chm *map, struct backup *b)
{
	b->t->spread++;
}

/* One pair in two slots; all counts agree. */
static void damage_twice(struct chm *map, struct backup *b)
{
	struct chm_chunk *c = chunk_of(b, chunk_with(b, 1));
	u32 from = chm_first(chm_match_full(c->ctrl));
	u32 to = chm_first(chm_match_empty(c->ctrl));

	memcpy(slot_of(b, c, to), slot_of(b, c, from), b->t->slot_size);
	c->ctrl = chm_tag_set(c->ctrl, to, chm_tag_at(c->ctrl, from));
	map->entries++;
}

/* The pair goes one chunk too far without raising a bit. */
static void damage_unreachable(struct chm *map, struct backup *b)
{
	struct chm_chunk *c, *next;
	u32 chunk = 0, from, to;

	/* No pair has gone on from there, and in the next chunk there is room. */
	do {
		c = chunk_of(b, chunk++);
		next = chunk_of(b, chunk);
	} while (chunk + 1 < b->t->nr_chunks &&
		 (c->ctrl & CHM_OVERFLOW || !chm_match_full(c->ctrl) ||
		  !chm_match_empty(next->ctrl)));
	from = chm_first(chm_match_full(c->ctrl));
	to = chm_first(chm_match_empty(next->ctrl));
	memcpy(slot_of(b, next, to), slot_of(b, c, from), b->t->slot_size);
	next->ctrl = chm_tag_set(next->ctrl, to, chm_tag_at(c->ctrl, from));
	c->ctrl = chm_tag_set(c->ctrl, from, CHM_TAG_EMPTY);
	b->t->displaced++;
	b->t->spread++;
}

struct damage_case {
	const char	*name;
	void		(*damage)(struct chm *map, struct backup *b);
};

static const struct damage_case damage_cases[] = {
	{ "tag", damage_tag },
	{ "empty_tag", damage_empty_tag },
	{ "key", damage_key },
	{ "overflow", damage_overflow },
	{ "lost_pair", damage_lost_pair },
	{ "entries", damage_entries },
	{ "dead_count", damage_dead_count },
	{ "displaced", damage_displaced },
	{ "retired", damage_retired },
	{ "bitmap", damage_bitmap },
	{ "occupied", damage_occupied },
	{ "occupied_words", damage_occupied_words },
	{ "spread", damage_spread },
	{ "twice", damage_twice },
	{ "unreachable", damage_unreachable },
};

KUNIT_ARRAY_PARAM_DESC(damage, damage_cases, name);

static void take_backup(struct kunit *test, struct chm *map, struct backup *b)
{
	b->t = rcu_dereference_protected(map->tbl, true);
	b->size = stats_of(map).bytes;
	b->bytes = test_alloc(test, b->size);
	memcpy(b->bytes, b->t, b->size);
	b->entries = map->entries;
	b->retired_bytes = map->retired_bytes;
}

static void restore_backup(struct chm *map, struct backup *b)
{
	memcpy(b->t, b->bytes, b->size);
	map->entries = b->entries;
	map->retired_bytes = b->retired_bytes;
}

/* It is the judge of most other cases: it must see what it claims to see. */
static void chm_verify_finds_damage(struct kunit *test)
{
	const struct damage_case *c = test->param_value;
	struct chm *map = test_map(test, &u64_params);
	struct backup b;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 1000, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 400), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	KUNIT_ASSERT_EQ(test, chm_verify(map), 0);
	take_backup(test, map, &b);
	c->damage(map, &b);
	KUNIT_EXPECT_EQ(test, chm_verify(map), -EUCLEAN);
	restore_backup(map, &b);
	KUNIT_EXPECT_EQ(test, chm_verify(map), 0);
}

static void chm_verify_pairs_without_table(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);

	KUNIT_EXPECT_EQ(test, chm_verify(map), 0);
	map->entries = 1;
	KUNIT_EXPECT_EQ(test, chm_verify(map), -EUCLEAN);
	map->entries = 0;
}

/* Removes and inserts keys from @first on, in turn, until it is stopped. */
struct flapper {
	struct chm	*map;
	u64		first, n;
};

static int flapper(void *arg)
{
	struct flapper *f = arg;
	u64 i = 0;

	while (!kthread_should_stop()) {
		u64 key = f->first + i++ % f->n;

		if (!remove_key(f->map, key))
			insert_key(f->map, key);
		cond_resched();
	}
	return 0;
}

/* Make @key, of @map, another one, or the same again. */
static void disguise_key(u64 *key, struct chm *map)
{
	unsigned long flags;

	lock_table(map, &flags);
	*key ^= 1ULL << 40;
	unlock_table(map, &flags);
}

/*
 * A large map that is written to all the time is looked at in small holds, too: then
 * pair by pair.
 */
static void chm_verify_large_among_writers(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct flapper f = { .map = map, .first = 100000, .n = 5000 };
	struct task_struct *task;
	u32 i, wrong = 0;
	int found;
	u64 *key, one = 1;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 60000, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 15000), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, f.first, f.n), 0);
	task = kthread_run(flapper, &f, "chm_flapper");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	for (i = 0; i < 2; i++)
		wrong += chm_verify(map) != 0;
	/* The table is roomy: it stays. */
	rcu_read_lock();
	key = (u64 *)chm_lookup(map, &one) - 1;
	rcu_read_unlock();
	disguise_key(key, map);
	found = chm_verify(map);
	disguise_key(key, map);
	kthread_stop(task);
	KUNIT_EXPECT_EQ(test, wrong, 0);
	KUNIT_EXPECT_EQ(test, found, -EUCLEAN);
	expect_sound(test, map);
}

static struct kunit_case chm_verify_cases[] = {
	KUNIT_CASE_PARAM(chm_verify_finds_damage, damage_gen_params),
	KUNIT_CASE(chm_verify_pairs_without_table),
	KUNIT_CASE(chm_verify_large_among_writers),
	{}
};

static struct kunit_suite chm_verify_suite = {
	.name = "chm_verify",
	.test_cases = chm_verify_cases,
};

/* === Suite: chm_class ==================================================== */

/* G3: a replaced pair is another one; nobody writes to the old one. */
static void chm_frozen_replace_moves(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	u64 key = 1, value = 77;
	const void *old;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 10), 0);
	old = address_of(map, 1);
	KUNIT_EXPECT_EQ(test, chm_replace(map, &key, &value, GFP_KERNEL), 0);
	KUNIT_EXPECT_PTR_NE(test, address_of(map, 1), old);
	old = address_of(map, 1);
	KUNIT_EXPECT_EQ(test, chm_upsert(map, &key, &value, GFP_KERNEL), 0);
	KUNIT_EXPECT_PTR_NE(test, address_of(map, 1), old);
}

static const u32 word_sizes[] = { 1, 2, 4, 8 };

static void word_desc(const u32 *size, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "words of %u", *size);
}

KUNIT_ARRAY_PARAM(word, word_sizes, word_desc);

static bool word_init(struct kunit *test, struct sized *z)
{
	const struct chm_params p = {
		.key_size = 8,
		.value_size = *(const u32 *)test->param_value,
		.class = CHM_WORD,
	};

	if (p.value_size > sizeof(long))
		return false;
	sized_init(test, z, &p);
	return true;
}

static void chm_word_replace_in_place(struct kunit *test)
{
	struct sized z;
	struct chm_stats s;
	const void *before;
	u64 i;

	if (!word_init(test, &z))
		kunit_skip(test, "larger than a long");
	for (i = 0; i < 50; i++)
		KUNIT_EXPECT_EQ(test, sized_upsert(&z, i, i), 1);
	KUNIT_ASSERT_TRUE(test, settle(z.map));
	s = stats_of(z.map);
	for (i = 0; i < 2000; i++) {
		u64 id = i % 50;

		fill_key(z.key, 8, id);
		fill_value(z.value, z.value_size, i);
		rcu_read_lock();
		before = chm_lookup(z.map, z.key);
		rcu_read_unlock();
		KUNIT_EXPECT_EQ(test, chm_replace(z.map, z.key, z.value, GFP_KERNEL), 0);
		rcu_read_lock();
		KUNIT_EXPECT_PTR_EQ(test, chm_lookup(z.map, z.key), before);
		rcu_read_unlock();
		KUNIT_EXPECT_TRUE(test, sized_has(&z, id, i));
	}
	expect_no_new_table(test, z.map, &s);
	KUNIT_EXPECT_EQ(test, stats_of(z.map).dead, 0);
	expect_sound(test, z.map);
}

/* The word keeps its last value through growth, and next to its neighbours. */
static void chm_word_survives_growth(struct kunit *test)
{
	unsigned long wrong = 0;
	struct sized z;
	u64 i, n = scaled(2000, 200);

	if (!word_init(test, &z))
		kunit_skip(test, "larger than a long");
	for (i = 0; i < n; i++) {
		wrong += sized_upsert(&z, i, i) != 1;
		wrong += sized_upsert(&z, i / 2, i + 1) != 0;
	}
	for (i = 0; i < n / 2; i++)
		wrong += !sized_has(&z, i, 2 * i + 2);
	for (; i < n; i++)
		wrong += !sized_has(&z, i, i);
	KUNIT_EXPECT_EQ(test, wrong, 0);
	KUNIT_EXPECT_EQ(test, chm_count(z.map), n);
	expect_sound(test, z.map);
}

static void chm_word_take_and_upsert(struct kunit *test)
{
	struct sized z;

	if (!word_init(test, &z))
		kunit_skip(test, "larger than a long");
	KUNIT_EXPECT_EQ(test, sized_upsert(&z, 1, 1), 1);
	KUNIT_EXPECT_EQ(test, sized_upsert(&z, 1, 2), 0);
	fill_value(z.value, z.value_size, 2);
	KUNIT_EXPECT_EQ(test, chm_take(z.map, z.key, NULL, z.got), 0);
	KUNIT_EXPECT_MEMEQ(test, z.got, z.value, z.value_size);
	KUNIT_EXPECT_EQ(test, chm_count(z.map), 0);
}

/* Growth makes a copy of each pair, and drops each original after a while. */
static void chm_clone_at_growth(struct kunit *test)
{
	struct ledger *l = test_ledger(test, 4000);
	struct chm *map = test_item_map(test, CHM_CLONE);
	struct chm_stats s;

	KUNIT_ASSERT_EQ(test, give_items(map, l, 0, 200), 0);
	KUNIT_ASSERT_EQ(test, chm_reserve(map, 200, GFP_KERNEL), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	KUNIT_EXPECT_TRUE(test, wait_live(l, 200));
	s = stats_of(map);
	atomic_set(&l->clones, 0);
	atomic_set(&l->drops, 0);
	KUNIT_ASSERT_EQ(test, chm_reserve(map, s.slots, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&l->clones), 200);
	KUNIT_EXPECT_TRUE(test, wait_live(l, 200));
	KUNIT_EXPECT_EQ(test, atomic_read(&l->drops), 200);
	KUNIT_EXPECT_EQ(test, wrong_items(map, 0, 200), 0);
	expect_sound(test, map);
	destroy_now(test, map);
	expect_settled(test, l);
}

/* Neither replace nor remove clones anything. */
static void chm_clone_only_at_growth(struct kunit *test)
{
	struct ledger *l = test_ledger(test, 1000);
	struct chm *map = test_item_map(test, CHM_CLONE);

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 100, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, give_items(map, l, 0, 50), 0);
	KUNIT_EXPECT_EQ(test, give_item(map, l, 3, chm_replace), 0);
	KUNIT_EXPECT_EQ(test, give_item(map, l, 3, chm_upsert), 0);
	KUNIT_EXPECT_EQ(test, remove_key(map, 4), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&l->clones), 0);
	destroy_now(test, map);
	KUNIT_EXPECT_EQ(test, atomic_read(&l->clones), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&l->drops), 52);
	expect_settled(test, l);
}

static struct kunit_case chm_class_cases[] = {
	KUNIT_CASE(chm_frozen_replace_moves),
	KUNIT_CASE_PARAM(chm_word_replace_in_place, word_gen_params),
	KUNIT_CASE_PARAM(chm_word_survives_growth, word_gen_params),
	KUNIT_CASE_PARAM(chm_word_take_and_upsert, word_gen_params),
	KUNIT_CASE_PARAM(chm_clone_at_growth, reclaim_gen_params),
	KUNIT_CASE(chm_clone_only_at_growth),
	{}
};

static struct kunit_suite chm_class_suite = {
	.name = "chm_class",
	.test_cases = chm_class_cases,
};

/* === Suite: chm_drop ===================================================== */

/* G5 through each call that ends a pair. */
static void chm_drop_once_per_pair(struct kunit *test)
{
	struct ledger *l = test_ledger(test, 1000);
	struct chm *map = test_item_map(test, CHM_FROZEN);

	KUNIT_EXPECT_EQ(test, give_items(map, l, 0, 100), 0);
	KUNIT_EXPECT_EQ(test, remove_keys(map, 0, 20), 0);
	KUNIT_EXPECT_TRUE(test, wait_live(l, 80));
	KUNIT_EXPECT_EQ(test, give_item(map, l, 30, chm_replace), 0);
	KUNIT_EXPECT_EQ(test, give_item(map, l, 31, chm_upsert), 0);
	KUNIT_EXPECT_TRUE(test, wait_live(l, 80));
	KUNIT_EXPECT_EQ(test, wrong_items(map, 20, 100), 0);
	chm_clear(map);
	KUNIT_EXPECT_TRUE(test, wait_live(l, 0));
	KUNIT_EXPECT_EQ(test, atomic_read(&l->drops), 102);
	KUNIT_EXPECT_EQ(test, give_items(map, l, 0, 100), 0);
	destroy_now(test, map);
	KUNIT_EXPECT_EQ(test, atomic_read(&l->drops), 202);
	expect_settled(test, l);
}

/* What failed is the caller's still: give_item() takes it back. */
static void chm_drop_not_for_refused_pairs(struct kunit *test)
{
	struct ledger *l = test_ledger(test, 100);
	struct chm *map = test_item_map(test, CHM_FROZEN);

	KUNIT_EXPECT_EQ(test, give_item(map, l, 1, chm_replace), -ENOENT);
	KUNIT_EXPECT_EQ(test, give_item(map, l, 1, chm_insert), 0);
	KUNIT_EXPECT_EQ(test, give_item(map, l, 1, chm_insert), -EEXIST);
	KUNIT_EXPECT_EQ(test, give_item(map, l, 2, chm_replace), -ENOENT);
	destroy_now(test, map);
	KUNIT_EXPECT_EQ(test, atomic_read(&l->drops), 1);
	expect_settled(test, l);
}

static void chm_drop_not_after_take(struct kunit *test)
{
	struct ledger *l = test_ledger(test, 1000);
	struct chm *map = test_item_map(test, CHM_FROZEN);
	struct item *item = NULL;
	u64 key;

	KUNIT_ASSERT_EQ(test, give_items(map, l, 0, 100), 0);
	for (key = 0; key < 50; key++) {
		KUNIT_EXPECT_EQ(test, chm_take(map, &key, NULL, &item), 0);
		KUNIT_ASSERT_NOT_NULL(test, item);
		KUNIT_EXPECT_EQ(test, item->stamp, (u32)key);
		item_put(item);
	}
	/* The dead go with a retired table, with a sweep, and with the map. */
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	key = 50;
	KUNIT_EXPECT_EQ(test, chm_take(map, &key, NULL, &item), 0);
	item_put(item);
	KUNIT_EXPECT_TRUE(test, wait_live(l, 49));
	destroy_now(test, map);
	KUNIT_EXPECT_EQ(test, atomic_read(&l->drops), 49);
	expect_settled(test, l);
}

static void chm_drop_not_at_growth(struct kunit *test)
{
	u32 n = scaled(5000, 500);
	struct ledger *l = test_ledger(test, n + 1);
	struct chm *map = test_item_map(test, CHM_FROZEN);

	KUNIT_ASSERT_EQ(test, give_items(map, l, 0, n), 0);
	KUNIT_EXPECT_TRUE(test, settle(map));
	KUNIT_EXPECT_GT(test, stats_of(map).grows, 3);
	KUNIT_EXPECT_EQ(test, atomic_read(&l->drops), 0);
	KUNIT_EXPECT_EQ(test, wrong_items(map, 0, n), 0);
	destroy_now(test, map);
	KUNIT_EXPECT_EQ(test, atomic_read(&l->drops), n);
	expect_settled(test, l);
}

/* DEAD slots stay behind in the table that is retired; the pairs do not. */
static void chm_drop_of_dead_in_retired_table(struct kunit *test)
{
	struct ledger *l = test_ledger(test, 2000);
	struct chm *map = test_item_map(test, CHM_FROZEN);

	KUNIT_ASSERT_EQ(test, give_items(map, l, 0, 1000), 0);
	KUNIT_EXPECT_EQ(test, remove_keys(map, 0, 900), 0);
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	KUNIT_EXPECT_TRUE(test, wait_live(l, 100));
	KUNIT_EXPECT_EQ(test, wrong_items(map, 900, 1000), 0);
	KUNIT_EXPECT_EQ(test, remove_keys(map, 900, 1000), 0);
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	KUNIT_EXPECT_TRUE(test, wait_live(l, 0));
	KUNIT_EXPECT_EQ(test, atomic_read(&l->drops), 1000);
	KUNIT_EXPECT_EQ(test, atomic_read(&l->wrong), 0);
}

/* In place: what was overwritten is the caller's, what is left is dropped. */
static void chm_drop_of_word_is_the_last(struct kunit *test)
{
	struct ledger *l = test_ledger(test, 100);
	struct chm *map = test_item_map(test, CHM_WORD);
	struct item *old = NULL;
	u64 key = 1;

	KUNIT_ASSERT_EQ(test, give_item(map, l, 1, chm_insert), 0);
	KUNIT_ASSERT_TRUE(test, chm_get(map, &key, &old));
	KUNIT_EXPECT_EQ(test, give_item(map, l, 1, chm_replace), 0);
	item_put(old);
	KUNIT_EXPECT_EQ(test, wrong_items(map, 1, 2), 0);
	KUNIT_EXPECT_EQ(test, remove_key(map, 1), 0);
	KUNIT_EXPECT_TRUE(test, wait_live(l, 0));
	KUNIT_EXPECT_EQ(test, atomic_read(&l->drops), 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&l->wrong), 0);
}

/* A promise ends with the call that gives it up, also if that fails. */
static void chm_shrink_that_fails_ends_reserve(struct kunit *test)
{
	struct ledger *l = test_ledger(test, 5000);
	struct chm *map = test_item_map(test, CHM_CLONE);

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 5000, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, give_items(map, l, 0, 300), 0);
	fail_clone(l, map, 40, false);
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), -ENOMEM);
	KUNIT_EXPECT_EQ(test, READ_ONCE(map->reserved), 0);
	KUNIT_EXPECT_EQ(test, wrong_items(map, 0, 300), 0);
	/* Nothing keeps the map from being small now. */
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	expect_chunks_for(test, map, 300);
	KUNIT_EXPECT_EQ(test, wrong_items(map, 0, 300), 0);
	destroy_now(test, map);
	expect_settled(test, l);
}

/* Inserts from *@key on until one fails since no growth gets past so many clones. */
static int give_until_full(struct chm *map, struct ledger *l, long after, u64 *key)
{
	int ret = 0;

	fail_clone(l, map, after, true);
	while (!ret && *key < 10000) {
		ret = give_item(map, l, *key, chm_insert);
		*key += !ret;
	}
	fail_clone(l, map, -1, false);
	return ret;
}

/*
 * G6: the first, the second, a middle and a late clone of each growth fails.  Pairs
 * go into the table that there is, until it is full.
 */
static void chm_clone_failure_undoes_growth(struct kunit *test)
{
	static const u32 percents[] = { 0, 1, 50, 100 };
	struct ledger *l = test_ledger(test, 20000);
	struct chm *map = test_item_map(test, CHM_CLONE);
	u64 key = 100;
	u32 i;

	KUNIT_ASSERT_EQ(test, give_items(map, l, 0, 100), 0);
	for (i = 0; i < ARRAY_SIZE(percents); i++) {
		struct chm_stats before, s;
		long after;

		KUNIT_ASSERT_TRUE(test, settle(map));
		before = stats_of(map);
		after = (before.entries - 1) * percents[i] / 100;
		KUNIT_EXPECT_EQ(test, give_until_full(map, l, after, &key), -ENOMEM);
		s = stats_of(map);
		KUNIT_EXPECT_EQ(test, s.entries, key);
		KUNIT_EXPECT_EQ(test, s.slots, before.slots);
		KUNIT_EXPECT_EQ(test, s.grows, before.grows);
		KUNIT_EXPECT_GT(test, s.aborts, before.aborts);
		KUNIT_EXPECT_EQ(test, wrong_items(map, 0, key), 0);
		KUNIT_EXPECT_FALSE(test, has_key(map, key));
		expect_sound(test, map);
		/* The same again, without the failure. */
		KUNIT_EXPECT_EQ(test, give_item(map, l, key++, chm_insert), 0);
		KUNIT_EXPECT_TRUE(test, settle(map));
		KUNIT_EXPECT_GT(test, stats_of(map).slots, before.slots);
		/* What was cloned in vain has been dropped. */
		KUNIT_EXPECT_TRUE(test, wait_live(l, key));
	}
	KUNIT_EXPECT_EQ(test, wrong_items(map, 0, key), 0);
	destroy_now(test, map);
	expect_settled(test, l);
}

/* Pairs that come in the second after it have the map grow, though none comes later. */
static void chm_clone_failure_is_overcome(struct kunit *test)
{
	struct ledger *l = test_ledger(test, 20000);
	struct chm *map = test_item_map(test, CHM_CLONE);
	unsigned long end, most;
	u64 key = 2000;

	KUNIT_ASSERT_EQ(test, give_items(map, l, 0, key), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	most = max_entries_of(map);
	fail_clone(l, map, 40, true);
	KUNIT_EXPECT_EQ(test, chm_reserve(map, 5000, GFP_KERNEL), -ENOMEM);
	fail_clone(l, map, -1, false);
	/* The worker finds nothing to do. */
	msleep(100);
	for (; key <= most; key++)
		KUNIT_ASSERT_EQ(test, give_item(map, l, key, chm_insert), 0);
	end = jiffies + 20 * HZ;
	while (key > max_entries_of(map) && time_before(jiffies, end))
		msleep(20);
	KUNIT_EXPECT_LE(test, key, max_entries_of(map));
	KUNIT_EXPECT_EQ(test, wrong_items(map, 0, key), 0);
	destroy_now(test, map);
	expect_settled(test, l);
}

#define EMPTIED		40U

static bool refuse_clone;

static int clone_or_refuse(void *ctx, void *key, void *value, const void *old_key,
			   const void *old_value, gfp_t gfp)
{
	return READ_ONCE(refuse_clone) ? -ENOMEM : 0;
}

/* DEAD slots make a table due that clone() does not let it have; then all pairs go. */
static void chm_clone_failure_leaves_no_table(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64),
		.class = CHM_CLONE, .clone = clone_or_refuse,
	};
	struct chm *maps[EMPTIED];
	u64 oldest, next;
	u32 i;

	for (i = 0; i < EMPTIED; i++) {
		maps[i] = test_map(test, &p);
		KUNIT_ASSERT_EQ(test, insert_keys(maps[i], 0, i + 1), 0);
		KUNIT_ASSERT_TRUE(test, settle(maps[i]));
	}
	for (i = 0; i < EMPTIED; i++) {
		WRITE_ONCE(refuse_clone, true);
		oldest = 0;
		next = i + 1;
		/* Until it is wanted, phase 1; or the table is full. */
		while (oldest < 10 * i && READ_ONCE(maps[i]->phase) != 1) {
			KUNIT_ASSERT_EQ(test, remove_key(maps[i], oldest++), 0);
			if (insert_key(maps[i], next))
				break;
			next++;
		}
		KUNIT_EXPECT_EQ(test, remove_keys(maps[i], oldest, next), 0);
		WRITE_ONCE(refuse_clone, false);
	}
	for (i = 0; i < EMPTIED; i++)
		KUNIT_ASSERT_TRUE(test, wait_for_zero(maps[i],
						      offsetof(struct chm_stats, bytes)));
}

/* Emulated CPUs make udelay() too short. */
static void spend_us(u32 us)
{
	u64 end = ktime_get_ns() + us * 1000ULL;

	while (ktime_get_ns() < end)
		cpu_relax();
}

static u32 slow_clones;		/* under the map's lock */
static u32 clone_us;

/* While @refuse_clone is set, one of 2000 fails. */
static int clone_slowly(void *ctx, void *key, void *value, const void *old_key,
			const void *old_value, gfp_t gfp)
{
	spend_us(READ_ONCE(clone_us));
	return READ_ONCE(refuse_clone) && ++slow_clones % 2000 == 0 ? -ENOMEM : 0;
}

static const struct chm_params slow_clone_params = {
	.key_size = sizeof(u64), .value_size = sizeof(u64),
	.class = CHM_CLONE, .clone = clone_slowly,
};

/* Ends what was reserved, and waits until the map has shrunk because of that. */
static void end_reservation(struct kunit *test, struct chm *map)
{
	unsigned long shrinks = stats_of(map).shrinks;

	KUNIT_EXPECT_EQ(test, chm_reserve(map, 0, GFP_KERNEL), 0);
	KUNIT_ASSERT_TRUE(test, wait_until_more(map, offsetof(struct chm_stats, shrinks),
						shrinks));
}

/* 3000 pairs in a table that is much too large, and that took 0.3 s of clone(). */
static struct chm *slow_clone_map(struct kunit *test)
{
	struct chm *map = test_map(test, &slow_clone_params);

	WRITE_ONCE(clone_us, 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 3000), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	WRITE_ONCE(clone_us, 100);
	KUNIT_ASSERT_EQ(test, chm_reserve(map, 40000, GFP_KERNEL), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	return map;
}

/* 3000 pairs in its first table: nobody knows how slow clone() is. */
static struct chm *first_clone_map(struct kunit *test)
{
	struct chm *map = test_map(test, &slow_clone_params);

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 40000, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 3000), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	WRITE_ONCE(clone_us, 100);
	return map;
}

/*
 * Tidying that clone() lets fail is not tried each second if it costs more than a
 * hundredth of that.  Growth does not wait for so long.
 */
static void expect_little_cost(struct kunit *test, struct chm *map)
{
	unsigned long n = max_entries_of(map);
	struct chm_stats before = stats_of(map);
	u32 then = ktime_get_seconds();

	WRITE_ONCE(refuse_clone, true);
	KUNIT_EXPECT_EQ(test, chm_reserve(map, 0, GFP_KERNEL), 0);
	KUNIT_EXPECT_TRUE(test, wait_until_more(map, offsetof(struct chm_stats, aborts),
						before.aborts));
	msleep(4000);
	KUNIT_EXPECT_LE(test, stats_of(map).aborts, before.aborts + 2);
	KUNIT_EXPECT_GE(test, tidying_put_off(map, then), 15);
	WRITE_ONCE(clone_us, 0);
	before = stats_of(map);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 3000, n + 1), 0);
	KUNIT_EXPECT_TRUE(test, wait_until_more(map, offsetof(struct chm_stats, aborts),
						before.aborts));
	WRITE_ONCE(refuse_clone, false);
	KUNIT_EXPECT_TRUE(test, wait_until_more(map, offsetof(struct chm_stats, grows),
						before.grows));
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, n + 1), 0);
	expect_sound(test, map);
}

static void chm_clone_failure_costs_little(struct kunit *test)
{
	expect_little_cost(test, slow_clone_map(test));
}

static void chm_first_clone_failure_costs_little(struct kunit *test)
{
	expect_little_cost(test, first_clone_map(test));
}

/* A few pairs are moved soon again, though there were many once. */
static void chm_clone_of_few_costs_little(struct kunit *test)
{
	struct chm *map = slow_clone_map(test);
	u32 then;

	KUNIT_ASSERT_EQ(test, remove_keys(map, 10, 3000), 0);
	KUNIT_ASSERT_TRUE(test, wait_dead(map));
	then = ktime_get_seconds();
	end_reservation(test, map);
	KUNIT_EXPECT_LT(test, tidying_put_off(map, then), 20);
	WRITE_ONCE(clone_us, 0);
	expect_sound(test, map);
}

/* That clone() is slow turns out while it is called. */
static void chm_dear_clone_puts_tidying_off(struct kunit *test)
{
	struct chm *map = first_clone_map(test);
	u32 then = ktime_get_seconds();

	end_reservation(test, map);
	KUNIT_EXPECT_GE(test, tidying_put_off(map, then), 15);
	WRITE_ONCE(clone_us, 0);
	expect_sound(test, map);
}

/* Only what the map does by itself is put off. */
static void chm_dear_shrink_puts_nothing_off(struct kunit *test)
{
	struct chm *map = slow_clone_map(test);
	u32 then = ktime_get_seconds();

	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	KUNIT_EXPECT_LT(test, tidying_put_off(map, then), 15);
	WRITE_ONCE(clone_us, 0);
	expect_sound(test, map);
}

/*
 * Where tidying is cheap, some writes bring it on again.  Not where clone() has become
 * slow, and fails.
 */
static void chm_dear_clone_is_not_brought_on_by_writes(struct kunit *test)
{
	struct chm *map = test_map(test, &slow_clone_params);
	struct chm_stats before;
	u32 then;

	WRITE_ONCE(clone_us, 0);
	KUNIT_ASSERT_EQ(test, chm_reserve(map, 300000, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 30000), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	before = stats_of(map);
	end_reservation(test, map);
	if (tidying_put_off(map, ktime_get_seconds()) > 1)
		kunit_skip(test, "copying is dear on a slow kernel");
	WRITE_ONCE(clone_us, 100);
	WRITE_ONCE(refuse_clone, true);
	then = ktime_get_seconds();
	KUNIT_EXPECT_EQ(test, remove_keys(map, 2500, 30000), 0);
	KUNIT_EXPECT_TRUE(test, wait_until_more(map, offsetof(struct chm_stats, aborts),
						before.aborts));
	msleep(6000);
	KUNIT_EXPECT_LE(test, stats_of(map).aborts, before.aborts + 3);
	KUNIT_EXPECT_GE(test, tidying_put_off(map, then), 15);
	WRITE_ONCE(refuse_clone, false);
	WRITE_ONCE(clone_us, 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 2500), 0);
	expect_sound(test, map);
}

/* The map is full, and clone() fails late each time: that is tried a few times. */
static void chm_clone_failure_of_full_map(struct kunit *test)
{
	static const gfp_t gfps[] = { GFP_KERNEL, GFP_ATOMIC };
	struct chm *map = test_map(test, &slow_clone_params);
	u64 key = 0;
	u32 i;

	WRITE_ONCE(clone_us, 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 3000), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	WRITE_ONCE(refuse_clone, true);
	for (key = 3000; key < 20000 && !insert_key(map, key); key++)
		;
	KUNIT_EXPECT_LT(test, key, 20000);
	for (i = 0; i < ARRAY_SIZE(gfps); i++) {
		unsigned long aborts = stats_of(map).aborts;
		u64 value = value_of(key);

		KUNIT_EXPECT_EQ(test, chm_insert(map, &key, &value, gfps[i]), -ENOMEM);
		/* Some of the worker are among them. */
		KUNIT_EXPECT_LE(test, stats_of(map).aborts, aborts + 8);
	}
	WRITE_ONCE(refuse_clone, false);
	KUNIT_EXPECT_EQ(test, insert_key(map, key), 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, key + 1), 0);
	expect_sound(test, map);
}

static u64 hash_slowly(const void *key, u64 seed)
{
	spend_us(5);
	return chm_fold(*(const u64 *)key ^ seed);
}

/* Where hash() is slow, tidying takes long, and is not to come that often. */
static void chm_slow_hash_puts_tidying_off(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .hash = hash_slowly,
	};
	struct chm *map = test_map(test, &p);
	u32 then;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 20000), 0);
	KUNIT_ASSERT_EQ(test, chm_reserve(map, 250000, GFP_KERNEL), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	then = ktime_get_seconds();
	end_reservation(test, map);
	KUNIT_EXPECT_GE(test, tidying_put_off(map, then), 5);
	expect_sound(test, map);
}

static void chm_clone_failure_undoes_shrink(struct kunit *test)
{
	struct ledger *l = test_ledger(test, 5000);
	struct chm *map = test_item_map(test, CHM_CLONE);
	struct chm_stats s;

	KUNIT_ASSERT_EQ(test, give_items(map, l, 0, 300), 0);
	KUNIT_ASSERT_EQ(test, remove_keys(map, 100, 300), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	s = stats_of(map);
	fail_clone(l, map, 40, false);
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), -ENOMEM);
	fail_clone(l, map, 40, false);
	KUNIT_EXPECT_EQ(test, chm_reserve(map, 1000, GFP_KERNEL), -ENOMEM);
	KUNIT_EXPECT_EQ(test, stats_of(map).bytes, s.bytes);
	KUNIT_EXPECT_TRUE(test, wait_live(l, 100));
	KUNIT_EXPECT_EQ(test, wrong_items(map, 0, 100), 0);
	expect_sound(test, map);
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	KUNIT_EXPECT_LT(test, stats_of(map).bytes, s.bytes);
	destroy_now(test, map);
	expect_settled(test, l);
}

/* G5: not before the readers are gone, and then without another call. */
static void chm_drop_after_grace_period(struct kunit *test)
{
	struct ledger *l = test_ledger(test, 100);
	struct chm *map = test_item_map(test, CHM_FROZEN);
	struct long_reader *r;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 100, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, give_items(map, l, 0, 10), 0);
	r = test_reader(test);
	KUNIT_EXPECT_EQ(test, remove_key(map, 1), 0);
	KUNIT_EXPECT_EQ(test, give_item(map, l, 2, chm_replace), 0);
	msleep(100);
	KUNIT_EXPECT_EQ(test, atomic_read(&l->drops), 0);
	stop_reader(test, r);
	KUNIT_EXPECT_TRUE(test, wait_live(l, 9));
	KUNIT_EXPECT_EQ(test, atomic_read(&l->drops), 2);
	destroy_now(test, map);
	expect_settled(test, l);
}

static atomic_t bare_drops;

static void drop_bare(void *ctx, void *key, void *value)
{
	atomic_inc(&bare_drops);
}

/* G5: a set has keys only; what is taken is not dropped, what is removed is. */
static void chm_drop_not_after_take_from_set(struct kunit *test)
{
	static const struct chm_params set = {
		.key_size = sizeof(u64),
		.drop = drop_bare,
	};
	struct chm *map = test_map(test, &set);
	u64 key;

	atomic_set(&bare_drops, 0);
	for (key = 0; key < 3; key++)
		KUNIT_ASSERT_EQ(test, chm_insert(map, &key, NULL, GFP_KERNEL), 0);
	for (key = 0; key < 2; key++)
		KUNIT_EXPECT_EQ(test, chm_take(map, &key, NULL, NULL), 0);
	KUNIT_EXPECT_EQ(test, chm_remove(map, &key), 0);
	destroy_now(test, map);
	KUNIT_EXPECT_EQ(test, atomic_read(&bare_drops), 1);
}

static struct kunit_case chm_drop_cases[] = {
	KUNIT_CASE_PARAM(chm_drop_once_per_pair, reclaim_gen_params),
	KUNIT_CASE(chm_drop_not_for_refused_pairs),
	KUNIT_CASE_PARAM(chm_drop_not_after_take, reclaim_gen_params),
	KUNIT_CASE(chm_drop_not_after_take_from_set),
	KUNIT_CASE_PARAM(chm_drop_not_at_growth, reclaim_gen_params),
	KUNIT_CASE_PARAM(chm_drop_of_dead_in_retired_table, reclaim_gen_params),
	KUNIT_CASE_PARAM(chm_drop_of_word_is_the_last, reclaim_gen_params),
	KUNIT_CASE_PARAM(chm_clone_failure_undoes_growth, reclaim_gen_params),
	KUNIT_CASE(chm_clone_failure_is_overcome),
	KUNIT_CASE(chm_clone_failure_leaves_no_table),
	KUNIT_CASE(chm_clone_failure_costs_little),
	KUNIT_CASE(chm_first_clone_failure_costs_little),
	KUNIT_CASE(chm_clone_of_few_costs_little),
	KUNIT_CASE(chm_dear_clone_puts_tidying_off),
	KUNIT_CASE(chm_dear_shrink_puts_nothing_off),
	KUNIT_CASE(chm_dear_clone_is_not_brought_on_by_writes),
	KUNIT_CASE(chm_clone_failure_of_full_map),
	KUNIT_CASE(chm_slow_hash_puts_tidying_off),
	KUNIT_CASE_PARAM(chm_clone_failure_undoes_shrink, reclaim_gen_params),
	KUNIT_CASE(chm_shrink_that_fails_ends_reserve),
	KUNIT_CASE(chm_drop_after_grace_period),
	{}
};

static struct kunit_suite chm_drop_suite = {
	.name = "chm_drop",
	.test_cases = chm_drop_cases,
};

/* === Suite: chm_hash ===================================================== */

static u64 hash_constant(const void *key, u64 seed)
{
	return unmix(0x7fffffff12345678ULL, seed);
}

/* The last chunk: probe paths wrap around at once. */
static u64 hash_last(const void *key, u64 seed)
{
	return unmix(U64_MAX, seed);
}

static u64 hash_four_values(const void *key, u64 seed)
{
	return unmix((*(const u64 *)key & 3) << 62 | 5, seed);
}

/* One home, but all tags. */
static u64 hash_equal_high(const void *key, u64 seed)
{
	return unmix(1ULL << 63 | (mix(*(const u64 *)key) & U32_MAX), seed);
}

/* All homes, but one tag. */
static u64 hash_equal_low(const void *key, u64 seed)
{
	return unmix(mix(*(const u64 *)key) & ~(u64)U32_MAX, seed);
}

/* All homes and many tags, but one bit of the overflow filters. */
static u64 hash_equal_bit(const void *key, u64 seed)
{
	return unmix((mix(*(const u64 *)key) & ~7ULL) | 6, seed);
}

/* Two homes near the end, and all tags: long paths around it. */
static u64 hash_two_last(const void *key, u64 seed)
{
	u64 x = mix(*(const u64 *)key);

	return unmix((x & 1 ? 0xffffffffULL : 0xf0000000ULL) << 32 | (u32)(x >> 1),
		     seed);
}

/* No mixing: neighbours in number are neighbours in the table. */
static u64 hash_identity(const void *key, u64 seed)
{
	return unmix(*(const u64 *)key << 40 | *(const u64 *)key, seed);
}

struct hash_case {
	const char	*name;
	u64		(*hash)(const void *key, u64 seed);
	bool		spreads;	/* over all chunks */
};

static const struct hash_case hash_cases[] = {
	{ "constant", hash_constant, false },
	{ "last_chunk", hash_last, false },
	{ "four_values", hash_four_values, false },
	{ "equal_high", hash_equal_high, false },
	{ "equal_low", hash_equal_low, true },
	{ "equal_bit", hash_equal_bit, true },
	{ "two_last", hash_two_last, false },
	{ "identity", hash_identity, false },
};

KUNIT_ARRAY_PARAM_DESC(hash, hash_cases, name);

static struct chm *test_hash_map(struct kunit *test, const struct hash_case *c)
{
	const struct chm_params p = {
		.key_size = sizeof(u64),
		.value_size = sizeof(u64),
		.hash = c->hash,
	};

	return test_map(test, &p);
}

static u32 hash_case_size(const struct hash_case *c)
{
	return c->spreads ? scaled(20000, 1000) : scaled(2000, 400);
}

static void chm_hash_collisions(struct kunit *test)
{
	const struct hash_case *c = test->param_value;
	struct chm *map = test_hash_map(test, c);
	u32 n = hash_case_size(c);
	u64 key;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, n), 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, n), 0);
	KUNIT_EXPECT_EQ(test, found_keys(map, n, n + 100), 0);
	expect_sound(test, map);
	for (key = 0; key < n; key += 2)
		KUNIT_EXPECT_EQ(test, remove_key(map, key), 0);
	KUNIT_EXPECT_EQ(test, found_keys(map, 0, n), n / 2);
	expect_sound(test, map);
	for (key = 0; key < n; key += 2)
		KUNIT_EXPECT_EQ(test, insert_key(map, key), 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, n), 0);
	expect_sound(test, map);
	/* Room is no remedy for a bad hash: not without end. */
	KUNIT_EXPECT_LE(test, stats_of(map).slots, max(6UL * n, 256UL));
}

/* How many chunks have a bit in their overflow filter. */
static unsigned long filters_in_use(struct chm *map)
{
	unsigned long n = 0, flags;
	const struct chm_table *t = lock_table(map, &flags);
	u32 i;

	for (i = 0; t && i < t->nr_chunks; i++)
		n += !!(__chm_chunk(t, i, t->p)->ctrl & CHM_OVERFLOW);
	unlock_table(map, &flags);
	return n;
}

/* Many pairs pass a chunk, and all of them go again. */
static void chm_hash_filters_are_cleared(struct kunit *test)
{
	const struct hash_case *c = test->param_value;
	struct chm *map = test_hash_map(test, c);
	u32 n = hash_case_size(c);

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, n), 0);
	KUNIT_EXPECT_GT(test, filters_in_use(map), 0);
	KUNIT_EXPECT_EQ(test, remove_keys(map, 0, n / 2), 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, n / 2, n), 0);
	expect_sound(test, map);
	KUNIT_EXPECT_EQ(test, remove_keys(map, n / 2, n), 0);
	KUNIT_EXPECT_EQ(test, found_keys(map, 0, n), 0);
	KUNIT_EXPECT_EQ(test, filters_in_use(map), 0);
	expect_sound(test, map);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 100), 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 100), 0);
	expect_sound(test, map);
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 100), 0);
	KUNIT_EXPECT_EQ(test, found_keys(map, 100, n), 0);
	expect_sound(test, map);
}

/* A replacement goes further along the path, never back. */
static void chm_hash_collisions_replaced(struct kunit *test)
{
	const struct hash_case *c = test->param_value;
	struct chm *map = test_hash_map(test, c);
	unsigned long wrong = 0;
	u64 key, value, got;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 300), 0);
	for (value = 0; value < scaled(3000, 600); value++) {
		key = value % 300;
		wrong += chm_replace(map, &key, &value, GFP_KERNEL) != 0;
		wrong += !chm_get(map, &key, &got) || got != value;
	}
	KUNIT_EXPECT_EQ(test, wrong, 0);
	KUNIT_EXPECT_EQ(test, chm_count(map), 300);
	expect_sound(test, map);
}

/*
 * G2: a reader that is past the home chunk would miss a pair that moves back
 * there.  The second chunk is full, the home chunk is not.
 */
static void chm_hash_replace_never_goes_back(struct kunit *test)
{
	const struct hash_case constant = { .hash = hash_constant };
	struct chm *map = test_hash_map(test, &constant);
	u64 key = CHM_SLOTS + 1, value = 1, got = 0;
	const void *old;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 20 * CHM_SLOTS, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 3 * CHM_SLOTS - 1), 0);
	KUNIT_ASSERT_EQ(test, remove_key(map, 0), 0);
	KUNIT_ASSERT_TRUE(test, wait_dead(map));
	old = address_of(map, key);
	KUNIT_EXPECT_EQ(test, chm_replace(map, &key, &value, GFP_KERNEL), 0);
	KUNIT_EXPECT_TRUE(test, address_of(map, key) > old);
	KUNIT_EXPECT_TRUE(test, chm_get(map, &key, &got));
	KUNIT_EXPECT_EQ(test, got, 1);
	expect_sound(test, map);
}

/* Pairs of one hash are told apart by their keys, in walks, too (G8). */
static void chm_hash_collisions_walked(struct kunit *test)
{
	struct chm *map = test_hash_map(test, test->param_value);
	u8 *seen = test_alloc(test, 300);
	unsigned long wrong = 0;
	struct chm_iter it;
	u64 key, value;
	u32 n = 0;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 300), 0);
	chm_iter_init(&it, map);
	for (; chm_iter_next(&it, &key, &value); n++)
		wrong += key >= 300 || seen[key]++ || value != value_of(key);
	KUNIT_EXPECT_EQ(test, wrong, 0);
	KUNIT_EXPECT_EQ(test, n, 300);
}

#define LONG_RUN_KEYS	7300UL	/* more than CHM_RANGE chunks of them */

static u64 hash_one_home(const void *key, u64 seed)
{
	return unmix(1ULL << 62 | *(const u64 *)key, seed);
}

/* One home with more chunks than a step of a walk looks at: the walk goes on. */
static void chm_hash_long_run_is_walked(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64),
		.value_size = sizeof(u64),
		.hash = hash_one_home,
	};
	struct chm_iter it;
	struct chm *map;
	u32 seen = 0;

	if (scale < 100)
		kunit_skip(test, "takes minutes on a slow kernel");
	map = test_map(test, &p);
	KUNIT_ASSERT_EQ(test, chm_reserve(map, 4 * LONG_RUN_KEYS, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, LONG_RUN_KEYS), 0);
	chm_iter_init(&it, map);
	for (; chm_iter_next(&it, NULL, NULL); seen++)
		cond_resched();
	KUNIT_EXPECT_EQ(test, seen, LONG_RUN_KEYS);
}

static void expect_next(struct kunit *test, struct chm_iter *it, u64 key)
{
	u64 got;

	KUNIT_ASSERT_TRUE(test, chm_iter_next(it, &got, NULL));
	KUNIT_EXPECT_EQ(test, got, key);
}

/* A walk has seen the pairs of a home: what became of them since counts. */
static void chm_hash_home_changes_under_walk(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64),
		.value_size = sizeof(u64),
		.hash = hash_one_home,	/* in the order of keys */
	};
	struct chm *map = test_map(test, &p);
	struct long_reader *r;
	struct chm_iter it;
	u64 key, value = 7;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 100, GFP_KERNEL), 0);
	for (key = 10; key <= 60; key += 10)
		KUNIT_ASSERT_EQ(test, insert_key(map, key), 0);
	/* The generation of the first to go is sealed; the others join the other one. */
	r = test_reader(test);
	KUNIT_ASSERT_EQ(test, insert_key(map, 70), 0);
	KUNIT_ASSERT_EQ(test, remove_key(map, 70), 0);
	chm_iter_init(&it, map);
	expect_next(test, &it, 10);
	KUNIT_ASSERT_EQ(test, remove_key(map, 20), 0);
	key = 30;
	KUNIT_ASSERT_EQ(test, chm_replace(map, &key, &value, GFP_KERNEL), 0);
	expect_next(test, &it, 30);
	expect_next(test, &it, 40);
	stop_reader(test, r);
	/* The slots of 20, 30 and 60 get pairs that are behind the walk. */
	KUNIT_ASSERT_EQ(test, remove_key(map, 60), 0);
	KUNIT_ASSERT_TRUE(test, wait_dead(map));
	for (key = 1; key <= 3; key++)
		KUNIT_ASSERT_EQ(test, insert_key(map, key), 0);
	KUNIT_ASSERT_EQ(test, insert_key(map, 45), 0);
	expect_next(test, &it, 45);
	expect_next(test, &it, 50);
	KUNIT_EXPECT_FALSE(test, chm_iter_next(&it, &key, NULL));
	KUNIT_EXPECT_EQ(test, stats_of(map).rehashes, 0);
	expect_sound(test, map);
}

/*
 * The table has no sealed generation yet, and no grace period began since it was built:
 * the first cookie of a generation must be another one than the table began with.
 */
static void chm_hash_first_seal_under_walk(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64),
		.value_size = sizeof(u64),
		.hash = hash_one_home,	/* in the order of keys */
	};
	struct chm_iter it;
	struct chm *map;
	u64 key;
	u32 i;

	for (i = 0; i < 10; i++) {
		map = test_map(test, &p);
		KUNIT_ASSERT_EQ(test, chm_reserve(map, 100, GFP_KERNEL), 0);
		for (key = 10; key <= 40; key += 10)
			KUNIT_ASSERT_EQ(test, insert_key(map, key), 0);
		chm_iter_init(&it, map);
		expect_next(test, &it, 10);
		KUNIT_ASSERT_EQ(test, remove_key(map, 20), 0);
		KUNIT_ASSERT_TRUE(test, wait_dead(map));
		/* Behind the walk, and in the slot that 20 had. */
		KUNIT_ASSERT_EQ(test, insert_key(map, 1), 0);
		expect_next(test, &it, 30);
		expect_next(test, &it, 40);
		KUNIT_EXPECT_FALSE(test, chm_iter_next(&it, &key, NULL));
		destroy_now(test, map);
	}
}

/* Visit six pairs of a home; at the first one all others are removed, or replaced. */
static u32 visit_while_changing(struct kunit *test, bool replace)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64),
		.hash = hash_one_home,
	};
	struct chm *map = test_map(test, &p);
	const u64 *key, *value;
	struct chm_pos pos;
	u32 visits = 0;
	u64 i, new = 7;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 100, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 6), 0);
	rcu_read_lock();
	chm_for_each_rcu(map, pos, key, value) {
		for (i = 0; !visits && i < 6; i++) {
			if (i != *key && replace)
				WARN_ON(chm_replace(map, &i, &new, GFP_ATOMIC));
			else if (i != *key)
				WARN_ON(chm_remove(map, &i));
		}
		visits += !visits || !replace || *value == new;
	}
	rcu_read_unlock();
	return visits;
}

static void chm_hash_home_changes_under_visit(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, visit_while_changing(test, false), 1);
	KUNIT_EXPECT_EQ(test, visit_while_changing(test, true), 6);
}

static u64 hash_of_32_bits(const void *key, u64 seed)
{
	return jhash(key, sizeof(u64), seed);
}

static u64 hash_of_high_bits(const void *key, u64 seed)
{
	return mix(*(const u64 *)key) & GENMASK_ULL(63, 32);
}

static u64 hash_without_seed(const void *key, u64 seed)
{
	return mix(*(const u64 *)key);
}

/* Hashes that are as good as 64 bits that depend on the seed. */
static const struct hash_case good_hashes[] = {
	{ "low_bits", hash_of_32_bits, true },
	{ "high_bits", hash_of_high_bits, true },
	{ "without_seed", hash_without_seed, true },
};

KUNIT_ARRAY_PARAM_DESC(good_hash, good_hashes, name);

/* Most keys are at home, and the others near. */
static void chm_hash_of_half_the_bits(struct kunit *test)
{
	struct chm *map = test_hash_map(test, test->param_value);
	u32 n = scaled(20000, 2000);
	struct chm_stats s;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, n), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	s = stats_of(map);
	KUNIT_EXPECT_LE(test, s.longest_probe, 64);
	KUNIT_EXPECT_LE(test, s.displaced, n / 5);
	KUNIT_EXPECT_EQ(test, s.reseeds, 0);
	expect_sound(test, map);
}

/*
 * Pairs come in the order of another map's hashes, as a walk has them.  Growing
 * step by step, the table always has them in its first part, unless the maps
 * differ in their order.
 */
static void chm_hash_copied_by_a_walk(struct kunit *test)
{
	struct chm *from = test_hash_map(test, test->param_value);
	struct chm *to = test_hash_map(test, test->param_value);
	u32 n = scaled(20000, 2000);
	unsigned long failed = 0;
	struct chm_iter it;
	u64 key, value;

	KUNIT_ASSERT_EQ(test, insert_keys(from, 0, n), 0);
	chm_iter_init(&it, from);
	while (chm_iter_next(&it, &key, &value))
		failed += chm_insert(to, &key, &value, GFP_KERNEL) != 0;
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_EQ(test, chm_count(to), n);
	KUNIT_ASSERT_TRUE(test, settle(to));
	KUNIT_EXPECT_LE(test, stats_of(to).longest_probe, 64);
	KUNIT_EXPECT_EQ(test, stats_of(to).reseeds, 0);
	expect_sound(test, to);
}

static u64 hash_ignoring_case(const void *key, u64 seed)
{
	const char *s = key;
	u64 hash = seed;

	while (*s)
		hash = mix(hash ^ tolower(*s++));
	return hash;
}

static bool equal_ignoring_case(const void *a, const void *b)
{
	return !strcasecmp(a, b);
}

static const struct chm_params string_params = {
	.key_size = 16,
	.value_size = 4,
	.hash = hash_ignoring_case,
	.equal = equal_ignoring_case,
};

static void chm_hash_custom_equal(struct kunit *test)
{
	struct chm *map = test_map(test, &string_params);
	char key[16] = "Content-Length", other[16] = "CONTENT-lengtH";
	u32 value = 1, got = 0;

	KUNIT_EXPECT_EQ(test, chm_insert(map, key, &value, GFP_KERNEL), 0);
	value = 2;
	KUNIT_EXPECT_EQ(test, chm_insert(map, other, &value, GFP_KERNEL), -EEXIST);
	KUNIT_EXPECT_TRUE(test, chm_get(map, other, &got));
	KUNIT_EXPECT_EQ(test, got, 1);
	KUNIT_EXPECT_EQ(test, chm_replace(map, other, &value, GFP_KERNEL), 0);
	KUNIT_EXPECT_TRUE(test, chm_get(map, key, &got));
	KUNIT_EXPECT_EQ(test, got, 2);
	KUNIT_EXPECT_EQ(test, chm_remove(map, key), 0);
	KUNIT_EXPECT_FALSE(test, chm_get(map, other, &got));
	expect_sound(test, map);
}

static void chm_hash_custom_equal_many(struct kunit *test)
{
	struct chm *map = test_map(test, &string_params);
	unsigned long wrong = 0;
	u32 i, got, n = scaled(3000, 300);
	char key[16];

	for (i = 0; i < n; i++) {
		memset(key, 0, sizeof(key));
		snprintf(key, sizeof(key), "Key-%X", i);
		wrong += chm_insert(map, key, &i, GFP_KERNEL) != 0;
	}
	for (i = 0; i < n; i++) {
		snprintf(key, sizeof(key), "kEY-%x", i);
		wrong += !chm_get(map, key, &got) || got != i;
	}
	KUNIT_EXPECT_EQ(test, wrong, 0);
	KUNIT_EXPECT_EQ(test, chm_count(map), n);
	expect_sound(test, map);
}

/*
 * The flood defence.  Keys are made to collide under the seed that a map has,
 * which an attacker would have to guess.
 */
#define FLOOD_KEYS	400

static u64 map_seed(struct chm *map)
{
	unsigned long flags;
	u64 s = lock_table(map, &flags)->seed[0];

	unlock_table(map, &flags);
	return s;
}

static bool uses_siphash(struct chm *map)
{
	unsigned long flags;
	bool ret = lock_table(map, &flags)->use_siphash;

	unlock_table(map, &flags);
	return ret;
}

/*
 * Inserts keys of one home from *@key on, and waits for what the map does about
 * it; returns how many it could not.
 */
static unsigned long flood(struct chm *map, u64 *key, u32 n)
{
	const u32 chunks = stats_of(map).chunks;
	const u64 s = map_seed(map);
	unsigned long failed = 0;

	while (n) {
		u64 k = (*key)++;

		if (chm_home(chm_hash_bytes(&k, sizeof(k), s), chunks) != chunks / 2)
			continue;
		failed += insert_key(map, k) != 0;
		n--;
	}
	return failed + !settle(map);
}

static unsigned long wrong_among(struct chm *map, u64 end, unsigned long *found)
{
	unsigned long wrong = 0;
	u64 key;

	for (key = 1000; key < end; key++) {
		if (!has_key(map, key))
			continue;
		wrong += wrong_keys(map, key, key + 1);
		(*found)++;
	}
	return wrong;
}

/*
 * One more chunk than the defence tolerates in a table that is half empty.  The
 * first time another seed will do, for keys may come in the order of the hashes
 * by chance; the second time somebody knows the seed.
 */
static void chm_hash_flood_reseeds(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	unsigned long found = 0;
	u64 old_seed, key = 1000;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 2000, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 10), 0);
	old_seed = map_seed(map);
	KUNIT_EXPECT_EQ(test, flood(map, &key, FLOOD_KEYS), 0);
	KUNIT_EXPECT_EQ(test, stats_of(map).reseeds, 1);
	KUNIT_EXPECT_NE(test, map_seed(map), old_seed);
	KUNIT_EXPECT_FALSE(test, uses_siphash(map));
	KUNIT_EXPECT_EQ(test, flood(map, &key, FLOOD_KEYS), 0);
	KUNIT_EXPECT_EQ(test, stats_of(map).reseeds, 2);
	KUNIT_EXPECT_TRUE(test, uses_siphash(map));
	/* The old collisions are none any more. */
	KUNIT_EXPECT_LE(test, stats_of(map).longest_probe, 8);
	KUNIT_EXPECT_EQ(test, chm_count(map), 2 * FLOOD_KEYS + 10);
	KUNIT_EXPECT_EQ(test, wrong_among(map, key, &found), 0);
	KUNIT_EXPECT_EQ(test, found, 2 * FLOOD_KEYS);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 10), 0);
	expect_sound(test, map);
	/* SipHash stays through growth, but not when all pairs are gone. */
	KUNIT_EXPECT_EQ(test, chm_reserve(map, 5000, GFP_KERNEL), 0);
	KUNIT_EXPECT_TRUE(test, uses_siphash(map));
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 10), 0);
	KUNIT_EXPECT_EQ(test, stats_of(map).reseeds, 2);
	chm_clear(map);
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 10), 0);
	KUNIT_EXPECT_FALSE(test, uses_siphash(map));
}

#define FLOOD_STEADY	100U

/* One step of a walk, of which the keys that stay are noted; false: the end. */
static bool walk_steady(struct chm_iter *it, u8 *seen, unsigned long *wrong)
{
	u64 key, value;

	if (!chm_iter_next(it, &key, &value))
		return false;
	*wrong += value != value_of(key);
	if (key < FLOOD_STEADY)
		*wrong += seen[key]++;
	return true;
}

/* G8: no walk keeps a map from defending itself, and it goes on in the new order. */
static void chm_hash_flood_during_walk(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	u8 *seen = test_alloc(test, FLOOD_STEADY);
	unsigned long wrong = 0;
	struct chm_iter it;
	u64 old_seed, key = 1000;
	u32 i;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 2000, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, FLOOD_STEADY), 0);
	old_seed = map_seed(map);
	chm_iter_init(&it, map);
	for (i = 0; i < FLOOD_STEADY / 2; i++)
		KUNIT_EXPECT_TRUE(test, walk_steady(&it, seen, &wrong));
	KUNIT_EXPECT_EQ(test, flood(map, &key, FLOOD_KEYS), 0);
	KUNIT_EXPECT_EQ(test, stats_of(map).reseeds, 1);
	KUNIT_EXPECT_NE(test, map_seed(map), old_seed);
	while (walk_steady(&it, seen, &wrong))
		;
	KUNIT_EXPECT_FALSE(test, chm_iter_stale(&it));
	for (i = 0; i < FLOOD_STEADY; i++)
		wrong += seen[i] != 1;
	KUNIT_EXPECT_EQ(test, wrong, 0);
	KUNIT_EXPECT_EQ(test, chm_count(map), FLOOD_STEADY + FLOOD_KEYS);
	expect_sound(test, map);
}

/* Bad under one seed in two: a fresh one helps, sooner or later. */
static u64 hash_weak(const void *key, u64 seed)
{
	return seed & 1 ? mix(*(const u64 *)key ^ seed) : hash_constant(key, seed);
}

static void chm_hash_flood_of_weak_hash(struct kunit *test)
{
	const struct hash_case weak = { .hash = hash_weak };
	u32 round, was_bad = 0;

	for (round = 0; round < 20; round++) {
		struct chm *map = test_hash_map(test, &weak);
		bool bad;

		KUNIT_ASSERT_EQ(test, chm_reserve(map, 2000, GFP_KERNEL), 0);
		KUNIT_ASSERT_EQ(test, insert_key(map, 0), 0);
		bad = !(map_seed(map) & 1);
		was_bad += bad;
		KUNIT_EXPECT_EQ(test, insert_keys(map, 1, FLOOD_KEYS), 0);
		KUNIT_EXPECT_TRUE(test, settle(map));
		KUNIT_EXPECT_EQ(test, !!stats_of(map).reseeds, bad);
		KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, FLOOD_KEYS), 0);
		expect_sound(test, map);
		destroy_now(test, map);
	}
	/* Both kinds came; that they do not is one chance in 2^19. */
	KUNIT_EXPECT_TRUE(test, was_bad && was_bad < 20);
}

/* No seed helps: chm says so, once, and does not try for ever. */
static void chm_hash_flood_of_constant_hash(struct kunit *test)
{
	const struct hash_case constant = { .hash = hash_constant };
	struct chm *map = test_hash_map(test, &constant);
	unsigned long reseeds;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 6 * FLOOD_KEYS, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, FLOOD_KEYS), 0);
	KUNIT_EXPECT_TRUE(test, settle(map));
	KUNIT_EXPECT_TRUE(test, map->hash_is_bad);
	reseeds = stats_of(map).reseeds;
	KUNIT_EXPECT_EQ(test, insert_keys(map, FLOOD_KEYS, 2 * FLOOD_KEYS), 0);
	KUNIT_EXPECT_TRUE(test, settle(map));
	KUNIT_EXPECT_EQ(test, stats_of(map).reseeds, reseeds);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 2 * FLOOD_KEYS), 0);
	expect_sound(test, map);
}

/* A good hash, at every load that a table may have, never looks like one. */
static void chm_hash_no_flood_no_reseed(struct kunit *test)
{
	const struct chm_params p = { .key_size = 8, .value_size = 8, .max_load = 95 };
	struct chm *map = test_map(test, &p);

	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, scaled(50000, 3000)), 0);
	KUNIT_EXPECT_TRUE(test, settle(map));
	KUNIT_EXPECT_EQ(test, stats_of(map).reseeds, 0);
	KUNIT_EXPECT_LT(test, stats_of(map).longest_probe, 256);
	expect_sound(test, map);
}

/* Each map has a seed of its own. */
static void chm_hash_seeds_differ(struct kunit *test)
{
	struct chm *a = test_map(test, &u64_params), *b = test_map(test, &u64_params);

	KUNIT_ASSERT_EQ(test, insert_key(a, 1), 0);
	KUNIT_ASSERT_EQ(test, insert_key(b, 1), 0);
	KUNIT_EXPECT_NE(test, map_seed(a), map_seed(b));
}

static struct kunit_case chm_hash_cases[] = {
	KUNIT_CASE_PARAM(chm_hash_collisions, hash_gen_params),
	KUNIT_CASE_PARAM(chm_hash_filters_are_cleared, hash_gen_params),
	KUNIT_CASE_PARAM(chm_hash_collisions_replaced, hash_gen_params),
	KUNIT_CASE(chm_hash_replace_never_goes_back),
	KUNIT_CASE_PARAM(chm_hash_collisions_walked, hash_gen_params),
	KUNIT_CASE(chm_hash_long_run_is_walked),
	KUNIT_CASE(chm_hash_home_changes_under_walk),
	KUNIT_CASE(chm_hash_first_seal_under_walk),
	KUNIT_CASE(chm_hash_home_changes_under_visit),
	KUNIT_CASE_PARAM(chm_hash_of_half_the_bits, good_hash_gen_params),
	KUNIT_CASE_PARAM(chm_hash_copied_by_a_walk, good_hash_gen_params),
	KUNIT_CASE(chm_hash_custom_equal),
	KUNIT_CASE(chm_hash_custom_equal_many),
	KUNIT_CASE(chm_hash_flood_reseeds),
	KUNIT_CASE(chm_hash_flood_during_walk),
	KUNIT_CASE(chm_hash_flood_of_weak_hash),
	KUNIT_CASE(chm_hash_flood_of_constant_hash),
	KUNIT_CASE(chm_hash_no_flood_no_reseed),
	KUNIT_CASE(chm_hash_seeds_differ),
	{}
};

static struct kunit_suite chm_hash_suite = {
	.name = "chm_hash",
	.test_cases = chm_hash_cases,
};

/* === Suite: chm_overflow ================================================= */

/*
 * The overflow filters must be what the displaced pairs need, no less and no
 * more, after each call.  Hashes are the keys themselves, so that the cases
 * choose homes and bits.
 */
static u64 hash_is_key(const void *key, u64 seed)
{
	return unmix(*(const u64 *)key, seed);
}

/* Keys that displace one another. */
struct chain_case {
	const char	*name;
	s32		first;		/* home; < 0: from the end */
	u32		homes;		/* that follow one another */
	u32		bits;		/* of the filter */
	u32		keys;
};

/*
 * The table has 19 chunks: 133 slots, 126 of them for pairs.  Each takes more than a
 * page, so that there is no slack to fill.
 */
#define CHAIN_PAIRS	120U
#define CHAIN_CHUNKS	19U

static const struct chain_case chain_cases[] = {
	{ "one_bit", 3, 1, 1, 40 },
	{ "two_bits", 3, 1, 2, 40 },
	{ "all_bits", 3, 1, 8, 60 },
	{ "at_the_end", -1, 1, 2, 40 },
	{ "all_bits_at_the_end", -2, 1, 8, 60 },
	{ "three_homes", 3, 3, 2, 60 },
	{ "three_homes_at_the_end", -2, 3, 3, 60 },
	{ "ten_homes", -5, 10, 8, 115 },
	{ "whole_table", -3, 1, 3, 115 },
	{ "whole_table_two_homes", -10, 2, 8, 115 },
};

KUNIT_ARRAY_PARAM_DESC(chain, chain_cases, name);

struct chain {
	struct chm	*map;
	u64		*keys;
	bool		*present;
	u32		nr;
	unsigned long	*needed;	/* filter of each chunk */
	u32		most;		/* chunks that it has room for */
};

static u64 chain_key(s32 home, u32 low, u32 i)
{
	home = (home + (s32)CHAIN_CHUNKS) % (s32)CHAIN_CHUNKS;
	return chm_home_begin(home, CHAIN_CHUNKS) | (i + 1) << 7 | low;
}

/* Without keys; those of a case come from chain_of(). */
static struct chain *test_chain(struct kunit *test, u32 nr)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64),
		.value_size = sizeof(u64),
		.slot_size = PAGE_SIZE / 4,
		.max_load = 95,
		.min_entries = CHAIN_PAIRS,
		.hash = hash_is_key,
	};
	struct chain *c = test_alloc(test, sizeof(*c));

	c->nr = nr;
	c->most = 16 * 1024;
	c->keys = test_alloc(test, nr * sizeof(*c->keys));
	c->present = test_alloc(test, nr);
	c->needed = test_alloc(test, c->most * sizeof(*c->needed));
	c->map = test_map(test, &p);
	KUNIT_ASSERT_EQ(test, chm_reserve(c->map, 1, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, stats_of(c->map).chunks, CHAIN_CHUNKS);
	return c;
}

static struct chain *chain_of(struct kunit *test, const struct chain_case *of)
{
	struct chain *c = test_chain(test, of->keys);
	u32 i;

	for (i = 0; i < c->nr; i++) {
		u32 bit = i / of->homes % of->bits;

		/* Tags that differ, where the bits are the same. */
		c->keys[i] = chain_key(of->first + (s32)(i % of->homes),
				       (bit | i << 3) & 0x7f, i);
	}
	return c;
}

static unsigned long chain_insert(struct chain *c, u32 i)
{
	c->present[i] = true;
	return insert_key(c->map, c->keys[i]) != 0;
}

static unsigned long chain_remove(struct chain *c, u32 i)
{
	c->present[i] = false;
	return remove_key(c->map, c->keys[i]) != 0;
}

static unsigned long chain_insert_all(struct chain *c)
{
	unsigned long failed = 0;
	u32 i;

	for (i = 0; i < c->nr; i++)
		failed += chain_insert(c, i);
	return failed;
}

/* No table; the next insertion gets one without DEAD slots. */
static unsigned long chain_restart(struct chain *c)
{
	memset(c->present, 0, c->nr);
	chm_clear(c->map);
	return chm_shrink(c->map, GFP_KERNEL) != 0;
}

/* The pair of @key lies in chunk @at: whom has it passed? */
static void chain_need(struct chain *c, u64 key, u32 at, u32 nr_chunks)
{
	u32 chunk = chm_home(key, nr_chunks);

	for (; chunk != at; chunk = chm_next_chunk(chunk, nr_chunks))
		c->needed[chunk] |= chm_overflow_bit(key);
}

/* Which chunk a value of @t is in. */
static u32 chunk_of_value(const struct chm_table *t, const void *value)
{
	return div64_ul(value - (const void *)(t + 1), t->stride);
}

/*
 * Keys that are found and should not be, or the other way round, and filters
 * that are not what the pairs need, where they lie.
 */
static unsigned long chain_wrong_in(struct chain *c, const struct chm_table *t)
{
	unsigned long wrong = 0;
	u32 i;

	if (!t || t->nr_chunks > c->most)
		return !!t;
	memset(c->needed, 0, t->nr_chunks * sizeof(*c->needed));
	for (i = 0; i < c->nr; i++) {
		const void *found = address_of(c->map, c->keys[i]);

		wrong += !!found != c->present[i];
		if (found)
			chain_need(c, c->keys[i], chunk_of_value(t, found), t->nr_chunks);
	}
	for (i = 0; i < t->nr_chunks; i++)
		wrong += (__chm_chunk(t, i, t->p)->ctrl & CHM_OVERFLOW) != c->needed[i];
	return wrong;
}

static unsigned long chain_wrong(struct chain *c)
{
	unsigned long flags;
	unsigned long wrong = chain_wrong_in(c, lock_table(c->map, &flags));

	unlock_table(c->map, &flags);
	return wrong;
}

static void chain_expect(struct kunit *test, struct chain *c)
{
	KUNIT_EXPECT_EQ(test, chain_wrong(c), 0);
	expect_sound(test, c->map);
}

static void shuffle(u32 *order, u32 n, struct rnd_state *rnd)
{
	u32 i, other;

	for (i = n; i > 1; i--) {
		other = prandom_u32_state(rnd) % i;
		swap(order[i - 1], order[other]);
	}
}

/* First come, first gone; the reverse; and at random. */
static void chm_overflow_removed_in_many_orders(struct kunit *test)
{
	struct chain *c = chain_of(test, test->param_value);
	u32 *order = test_alloc(test, c->nr * sizeof(*order));
	u32 round, i, rounds = scaled(20, 4);
	struct rnd_state rnd;

	test_rnd(test, &rnd);
	for (i = 0; i < c->nr; i++)
		order[i] = i;
	for (round = 0; round < rounds; round++) {
		KUNIT_ASSERT_EQ(test, chain_insert_all(c), 0);
		KUNIT_EXPECT_GT(test, stats_of(c->map).displaced, 0);
		KUNIT_EXPECT_GT(test, filters_in_use(c->map), 0);
		chain_expect(test, c);
		for (i = 0; i < c->nr; i++) {
			KUNIT_EXPECT_EQ(test, chain_remove(c, order[i]), 0);
			chain_expect(test, c);
		}
		KUNIT_EXPECT_EQ(test, filters_in_use(c->map), 0);
		KUNIT_EXPECT_EQ(test, chain_restart(c), 0);
		if (round)
			shuffle(order, c->nr, &rnd);
		else
			for (i = 0; i < c->nr / 2; i++)
				swap(order[i], order[c->nr - 1 - i]);
	}
}

/* What goes into the last free slot of the chunk that has one. */
static const struct {
	u32	home;
	u32	bit;
} movers[] = {
	{ 0, 0 },	/* in chunk 1 */
	{ 0, 1 },
	{ 1, 0 },
	{ 0, 0 },
	{ 2, 1 },
	{ 0, 0 },	/* in chunk 6 */
};

#define NR_MOVERS	ARRAY_SIZE(movers)
#define NR_ORDERS	720U	/* of six */

/* Seven pairs in chunk 0 and six in each after it, which stay; then the movers. */
static void movers_place(struct kunit *test, struct chain *c)
{
	unsigned long failed = 0;
	u32 i, n = NR_MOVERS;
	s32 first = -4;

	for (i = 0; i < NR_MOVERS; i++)
		c->keys[i] = chain_key(first + (s32)movers[i].home, movers[i].bit, i);
	for (i = 0; i < CHM_SLOTS; i++, n++)
		c->keys[n] = chain_key(first, i, n);
	for (i = 0; n < c->nr; i++, n++)
		c->keys[n] = chain_key(first + 1 + (s32)i / (s32)(CHM_SLOTS - 1), i % 8, n);
	for (n = NR_MOVERS; n < c->nr; n++)
		failed += chain_insert(c, n);
	KUNIT_ASSERT_EQ(test, stats_of(c->map).displaced, 0);
	for (i = 0; i < NR_MOVERS; i++)
		failed += chain_insert(c, i);
	KUNIT_ASSERT_EQ(test, failed, 0);
	KUNIT_ASSERT_EQ(test, stats_of(c->map).displaced, NR_MOVERS);
	KUNIT_ASSERT_EQ(test, stats_of(c->map).longest_probe, NR_MOVERS + 1);
}

/* Order number @n of NR_ORDERS. */
static void nth_order(u32 n, u32 *order)
{
	u32 i;

	for (i = 0; i < NR_MOVERS; i++)
		order[i] = i;
	for (i = NR_MOVERS; i > 1; n /= i, i--)
		swap(order[i - 1], order[n % i]);
}

/* Around the end of the table, too. */
static void chm_overflow_removed_in_every_order(struct kunit *test)
{
	struct chain *c = test_chain(test, NR_MOVERS + CHM_SLOTS +
					   NR_MOVERS * (CHM_SLOTS - 1));
	u32 step = NR_ORDERS / scaled(NR_ORDERS, 60);
	u32 order[NR_MOVERS];
	u32 n, i;

	for (n = 0; n < NR_ORDERS; n += max(step, 1U)) {
		movers_place(test, c);
		KUNIT_EXPECT_EQ(test, chain_wrong(c), 0);
		nth_order(n, order);
		for (i = 0; i < NR_MOVERS; i++) {
			KUNIT_EXPECT_EQ(test, chain_remove(c, order[i]), 0);
			chain_expect(test, c);
		}
		KUNIT_EXPECT_EQ(test, filters_in_use(c->map), 0);
		KUNIT_EXPECT_EQ(test, chain_restart(c), 0);
	}
}

/* The filter of chunk @chunk, as a byte. */
static u8 filter_at(struct chain *c, u32 chunk)
{
	unsigned long flags;
	const struct chm_table *t = lock_table(c->map, &flags);
	u8 filter = byte_at(__chm_chunk(t, chunk, t->p)->ctrl, CHM_SLOTS);

	unlock_table(c->map, &flags);
	return filter;
}

/* Of two pairs with one bit, one goes; a third has another bit. */
static void chm_overflow_shared_bit_stays(struct kunit *test)
{
	struct chain *c = test_chain(test, CHM_SLOTS + 3);
	u32 i;

	for (i = 0; i < c->nr; i++)
		c->keys[i] = chain_key(5, i == CHM_SLOTS + 2 ? 3 : 4, i);
	for (i = 0; i < CHM_SLOTS; i++)
		KUNIT_ASSERT_EQ(test, chain_insert(c, i), 0);
	KUNIT_EXPECT_EQ(test, filter_at(c, 5), 0);
	for (; i < c->nr; i++)
		KUNIT_ASSERT_EQ(test, chain_insert(c, i), 0);
	KUNIT_EXPECT_EQ(test, filter_at(c, 5), BIT(4) | BIT(3));
	KUNIT_EXPECT_EQ(test, chain_remove(c, CHM_SLOTS), 0);
	KUNIT_EXPECT_EQ(test, filter_at(c, 5), BIT(4) | BIT(3));
	chain_expect(test, c);
	KUNIT_EXPECT_EQ(test, chain_remove(c, CHM_SLOTS + 1), 0);
	KUNIT_EXPECT_EQ(test, filter_at(c, 5), BIT(3));
	chain_expect(test, c);
	/* A pair at home needs no bit and takes none along. */
	KUNIT_EXPECT_EQ(test, chain_remove(c, 0), 0);
	KUNIT_EXPECT_EQ(test, filter_at(c, 5), BIT(3));
	KUNIT_EXPECT_EQ(test, chain_remove(c, CHM_SLOTS + 2), 0);
	KUNIT_EXPECT_EQ(test, filter_at(c, 5), 0);
	KUNIT_EXPECT_EQ(test, filter_at(c, 6), 0);
	chain_expect(test, c);
}

/* From home to the next chunk, and on, around the end. */
static void chm_overflow_raised_by_replacing(struct kunit *test)
{
	struct chain *c = test_chain(test, 3 * CHM_SLOTS);
	const u32 last = CHAIN_CHUNKS - 1;
	u64 key, value = 1;
	u32 i;

	for (i = 0; i < c->nr; i++)
		c->keys[i] = chain_key((s32)(last + i / CHM_SLOTS), i % 8, i);
	key = c->keys[2];
	for (i = 0; i < CHM_SLOTS; i++)
		KUNIT_ASSERT_EQ(test, chain_insert(c, i), 0);
	KUNIT_EXPECT_EQ(test, chm_replace(c->map, &key, &value, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, filter_at(c, last), BIT(2));
	KUNIT_EXPECT_EQ(test, filter_at(c, 0), 0);
	chain_expect(test, c);
	/* Six more fill chunk 0. */
	for (; i < 2 * CHM_SLOTS - 1; i++)
		KUNIT_ASSERT_EQ(test, chain_insert(c, i), 0);
	KUNIT_EXPECT_EQ(test, chm_replace(c->map, &key, &value, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, filter_at(c, last), BIT(2));
	KUNIT_EXPECT_EQ(test, filter_at(c, 0), BIT(2));
	KUNIT_EXPECT_EQ(test, filter_at(c, 1), 0);
	chain_expect(test, c);
	KUNIT_EXPECT_EQ(test, chain_remove(c, 2), 0);
	KUNIT_EXPECT_EQ(test, filters_in_use(c->map), 0);
	chain_expect(test, c);
}

/* Two chunks, both of them passed: what a lookup goes by is their number. */
static void chm_overflow_in_all_chunks(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64),
		.value_size = sizeof(u64),
		.max_load = 95,
		.min_entries = 2 * CHM_SLOTS - 1,
		.hash = hash_is_key,
	};
	struct chm *map = test_map(test, &p);
	const u64 second = chm_home_begin(1, 2);
	u64 i;

	/* Key @i << 7 has home 0; with @second, 1.  All have the same tag. */
	for (i = 0; i <= CHM_SLOTS; i++)
		KUNIT_ASSERT_EQ(test, insert_key(map, i << 7), 0);
	KUNIT_ASSERT_EQ(test, stats_of(map).chunks, 2);
	for (i = 0; i < 2; i++)
		KUNIT_ASSERT_EQ(test, remove_key(map, i << 7), 0);
	KUNIT_ASSERT_TRUE(test, wait_dead(map));
	/* One of these goes to chunk 0. */
	for (i = 0; i < CHM_SLOTS; i++)
		KUNIT_ASSERT_EQ(test, insert_key(map, second | i << 7), 0);
	KUNIT_ASSERT_EQ(test, stats_of(map).chunks, 2);
	KUNIT_EXPECT_EQ(test, stats_of(map).displaced, 2);
	KUNIT_EXPECT_EQ(test, filters_in_use(map), 2);
	expect_sound(test, map);
	for (i = 0; i < 20; i++) {
		KUNIT_EXPECT_EQ(test, has_key(map, i << 7), i >= 2 && i <= CHM_SLOTS);
		KUNIT_EXPECT_EQ(test, has_key(map, second | i << 7), i < CHM_SLOTS);
	}
	KUNIT_EXPECT_EQ(test, remove_key(map, 20 << 7), -ENOENT);
	KUNIT_EXPECT_EQ(test, remove_key(map, CHM_SLOTS << 7), 0);
	KUNIT_EXPECT_EQ(test, filters_in_use(map), 1);
	expect_sound(test, map);
	KUNIT_EXPECT_EQ(test, remove_key(map, second | (CHM_SLOTS - 1) << 7), 0);
	KUNIT_EXPECT_EQ(test, filters_in_use(map), 0);
	expect_sound(test, map);
}

/* One call about key @i; returns whether it did not do what it should. */
static bool chain_call(struct chain *c, u32 i, u32 choice)
{
	u64 key = c->keys[i], value = value_of(key);
	bool present = c->present[i];

	switch (choice) {
	case 0:
		c->present[i] = true;
		return insert_key(c->map, key) != (present ? -EEXIST : 0);
	case 1:
		c->present[i] = true;
		return chm_upsert(c->map, &key, &value, GFP_KERNEL) != !present;
	case 2:
		return chm_replace(c->map, &key, &value, GFP_KERNEL) != (present ? 0 : -ENOENT);
	case 3:
		c->present[i] = false;
		return chm_take(c->map, &key, NULL, &value) != (present ? 0 : -ENOENT);
	default:
		c->present[i] = false;
		return remove_key(c->map, key) != (present ? 0 : -ENOENT);
	}
}

/* Whether it is what an array says, after each of many calls. */
static void chm_overflow_after_random_calls(struct kunit *test)
{
	struct chain *c = chain_of(test, test->param_value);
	unsigned long step, steps = scaled(4000, 400), wrong = 0, displaced = 0;
	struct rnd_state rnd;
	u32 i;

	test_rnd(test, &rnd);
	for (step = 0; step < steps && !wrong; step++) {
		u32 random = prandom_u32_state(&rnd);

		/* Now rather full, now rather empty; and back to a small table. */
		if (random % 64 == 0)
			wrong += chm_shrink(c->map, GFP_KERNEL) != 0;
		else if (step / 500 % 2)
			wrong += chain_call(c, random / 64 % c->nr, 1 + step % 5);
		else
			wrong += chain_call(c, random / 64 % c->nr, step % 4);
		wrong += chain_wrong(c) + !!chm_verify(c->map);
		displaced = max(displaced, stats_of(c->map).displaced);
	}
	KUNIT_EXPECT_EQ_MSG(test, wrong, 0, "call %lu", step);
	KUNIT_EXPECT_GE(test, displaced, 8);
	for (i = 0; i < c->nr; i++)
		if (c->present[i])
			KUNIT_EXPECT_EQ(test, chain_remove(c, i), 0);
	KUNIT_EXPECT_EQ(test, filters_in_use(c->map), 0);
	chain_expect(test, c);
}

/* Each bit that is missing, and each that is there without need. */
static void chm_verify_sees_each_filter_bit(struct kunit *test)
{
	struct chain *c = chain_of(test, test->param_value);
	unsigned long missed = 0;
	struct chm_table *t;
	u32 chunk, bit;

	KUNIT_ASSERT_EQ(test, chain_insert_all(c), 0);
	KUNIT_ASSERT_TRUE(test, settle(c->map));
	chain_expect(test, c);
	t = rcu_dereference_protected(c->map->tbl, true);
	for (chunk = 0; chunk < t->nr_chunks; chunk++) {
		for (bit = 0; bit < 8; bit++) {
			unsigned long *ctrl = &__chm_chunk(t, chunk, t->p)->ctrl;

			*ctrl ^= chm_overflow_bit(bit);
			missed += chm_verify(c->map) != -EUCLEAN;
			*ctrl ^= chm_overflow_bit(bit);
		}
	}
	KUNIT_EXPECT_EQ(test, missed, 0);
	chain_expect(test, c);
}

static struct kunit_case chm_overflow_cases[] = {
	KUNIT_CASE_PARAM(chm_overflow_removed_in_many_orders, chain_gen_params),
	KUNIT_CASE(chm_overflow_removed_in_every_order),
	KUNIT_CASE(chm_overflow_shared_bit_stays),
	KUNIT_CASE(chm_overflow_raised_by_replacing),
	KUNIT_CASE(chm_overflow_in_all_chunks),
	KUNIT_CASE_PARAM(chm_overflow_after_random_calls, chain_gen_params),
	KUNIT_CASE_PARAM(chm_verify_sees_each_filter_bit, chain_gen_params),
	{}
};

static struct kunit_suite chm_overflow_suite = {
	.name = "chm_overflow",
	.test_cases = chm_overflow_cases,
};

/* === Suite: chm_grow ===================================================== */

static struct chm *test_reclaim_map(struct kunit *test)
{
	const struct reclaim_mode *mode = test->param_value;
	const struct chm_params p = {
		.key_size = sizeof(u64),
		.value_size = sizeof(u64),
		.reclaim = mode->reclaim,
	};

	return test_map(test, &p);
}

/* Do so many pairs fit into a table when no larger one is ready? */
static bool fits_hard(const struct chm_stats *s, unsigned long max_load)
{
	return s->entries * 200 <= s->slots * (max_load + 100);
}

/* G2 and G10 along the whole way. */
static void chm_grow_from_nothing(struct kunit *test)
{
	const struct reclaim_mode *mode = test->param_value;
	struct chm *map = test_reclaim_map(test);
	u64 n = scaled(mode->reclaim == CHM_SYNC ? 10000 : 100000, 3000);
	u64 done, step;
	struct chm_stats s;

	for (done = 0; done < n; done += step) {
		step = max(done / 4, 1ULL);
		KUNIT_EXPECT_EQ(test, insert_keys(map, done, done + step), 0);
		s = stats_of(map);
		KUNIT_EXPECT_LE(test, s.retired_bytes, budget(&s));
		KUNIT_EXPECT_TRUE(test, fits_hard(&s, 80));
	}
	KUNIT_EXPECT_TRUE(test, settle(map));
	s = stats_of(map);
	KUNIT_EXPECT_LE(test, s.entries * 100, s.slots * 80);
	KUNIT_EXPECT_GT(test, s.grows, 6);
	/* It may have been rehashed: by chance a small table looks worn. */
	KUNIT_EXPECT_EQ(test, s.shrinks + s.failed_allocs + s.reseeds, 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, done), 0);
	KUNIT_EXPECT_EQ(test, found_keys(map, done, done + 1000), 0);
	expect_sound(test, map);
}

/* Every size on the way up is sound, and so is every pair in it, and in between. */
static void chm_grow_step_by_step(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	u64 key, n = scaled(2000, 300);
	unsigned long chunks = 0;
	struct chm_stats s;

	for (key = 0; key < n; key++) {
		KUNIT_ASSERT_EQ(test, insert_key(map, key), 0);
		s = stats_of(map);
		if (s.chunks == chunks && !s.migrating)
			continue;
		KUNIT_EXPECT_GE(test, s.chunks, chunks);
		chunks = s.chunks;
		KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, key + 1), 0);
		expect_sound(test, map);
	}
}

static void chm_grow_sync_frees_at_once(struct kunit *test)
{
	const struct chm_params p = { .key_size = 8, .value_size = 8, .reclaim = CHM_SYNC };
	struct chm *map = test_map(test, &p);
	u64 key;

	for (key = 0; key < 300; key++) {
		KUNIT_ASSERT_EQ(test, insert_key(map, key), 0);
		KUNIT_EXPECT_EQ(test, stats_of(map).retired_bytes, 0);
	}
	KUNIT_EXPECT_GE(test, stats_of(map).gp_waits, stats_of(map).grows);
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, stats_of(map).retired_bytes, 0);
}

static u64 free_bytes(void)
{
	struct sysinfo i;

	si_meminfo(&i);
	return (u64)i.freeram * i.mem_unit;
}

/* What a table takes is what chm_stats() says, and no power of two. */
static void chm_memory_is_exact(struct kunit *test)
{
	const u32 n = 48;
	struct chm *maps = test_alloc(test, n * sizeof(*maps));
	u64 began = free_bytes(), expected = 0, used;
	u32 i;

	for (i = 0; i < n; i++) {
		KUNIT_ASSERT_EQ(test, chm_init(&maps[i], &u64_params, NULL, NULL), 0);
		KUNIT_EXPECT_EQ(test, chm_reserve(&maps[i], 50000, GFP_KERNEL), 0);
		expected += stats_of(&maps[i]).bytes;
	}
	used = began - free_bytes();
	KUNIT_EXPECT_GT(test, expected, n * 1100ULL << 10);
	KUNIT_EXPECT_LT(test, expected, n * 1300ULL << 10);
	KUNIT_EXPECT_GT(test, (s64)used, (s64)(expected - expected / 8));
	KUNIT_EXPECT_LT(test, (s64)used, (s64)(expected + expected / 4));
	for (i = 0; i < n; i++)
		chm_destroy(&maps[i]);
	used = began - free_bytes();
	KUNIT_EXPECT_LT(test, (s64)used, (s64)(expected / 8));
}

/* G10: without another call, the memory comes back. */
static void chm_grow_deferred_frees_soon(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 3000), 0);
	KUNIT_EXPECT_TRUE(test, settle(map));
	/* Below the budget no writer had to wait. */
	KUNIT_EXPECT_EQ(test, stats_of(map).gp_waits, 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 3000), 0);
}

static const u32 growths[] = { 110, 150, 200, 400 };

static void growth_desc(const u32 *growth, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "%u percent", *growth);
}

KUNIT_ARRAY_PARAM(growth, growths, growth_desc);

static void chm_grow_by_factor(struct kunit *test)
{
	const u32 growth = *(const u32 *)test->param_value;
	const struct chm_params p = { .key_size = 8, .value_size = 8, .growth = growth };
	struct chm *map = test_map(test, &p);
	unsigned long chunks = 0;
	u64 key, n = scaled(20000, 2000);

	for (key = 0; key < n; key++) {
		unsigned long now;
		struct chm_stats s;

		KUNIT_ASSERT_EQ(test, insert_key(map, key), 0);
		s = stats_of(map);
		now = s.chunks;
		if (now != chunks && chunks) {
			/* Rounded up to whole chunks. */
			KUNIT_EXPECT_GE(test, now * 100, chunks * growth);
			/* Twice, if pairs came while the worker was late; and pages. */
			if (s.bytes > PAGE_SIZE)
				KUNIT_EXPECT_LT(test, now * 100,
						chunks * growth * growth / 100 + 400 +
						200 * PAGE_SIZE * now / s.bytes);
			/* It would be more before the old table is gone. */
			KUNIT_ASSERT_TRUE(test, settle(map));
		}
		chunks = now;
	}
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, n), 0);
	expect_sound(test, map);
}

static const u32 max_loads[] = { 25, 50, 80, 95 };

static void max_load_desc(const u32 *load, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "%u percent", *load);
}

KUNIT_ARRAY_PARAM(max_load, max_loads, max_load_desc);

static void chm_grow_at_max_load(struct kunit *test)
{
	const u32 load = *(const u32 *)test->param_value;
	const struct chm_params p = { .key_size = 8, .value_size = 8, .max_load = load };
	struct chm *map = test_map(test, &p);
	unsigned long best = 0;
	u64 key, n = scaled(5000, 1000);

	for (key = 0; key < n; key++) {
		struct chm_stats s;

		KUNIT_ASSERT_EQ(test, insert_key(map, key), 0);
		s = stats_of(map);
		/* The first table holds a pair at any load. */
		if (key > 3)
			KUNIT_EXPECT_TRUE(test, fits_hard(&s, load));
		if (s.chunks > 20)
			best = max(best, s.entries * 100 / s.slots);
	}
	/* No earlier than it must. */
	KUNIT_EXPECT_GE(test, best, load - 1);
	KUNIT_EXPECT_TRUE(test, settle(map));
	KUNIT_EXPECT_LE(test, stats_of(map).entries * 100, stats_of(map).slots * load);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, n), 0);
	expect_sound(test, map);
}

/* What a small table is allocated is filled with chunks. */
static void chm_grow_small_without_slack(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	const u32 chunk = chm_stride(2 * sizeof(u64));
	u64 key;

	for (key = 0; key < 200; key++) {
		struct chm_stats s;

		KUNIT_ASSERT_EQ(test, insert_key(map, key), 0);
		s = stats_of(map);
		if (s.bytes > PAGE_SIZE)
			continue;
		KUNIT_EXPECT_TRUE(test, is_power_of_2(s.bytes));
		KUNIT_EXPECT_LT(test, s.bytes - s.chunks * chunk,
				chunk + CHM_HEADER_BYTES + 8 * sizeof(long));
	}
	/* 512, 1024, 2048, 4096 and 8192 bytes. */
	KUNIT_EXPECT_LE(test, stats_of(map).grows, 4);
	expect_sound(test, map);
}

/* Churn: as many pairs all the time, others each time. */
static void chm_grow_not_by_churn(struct kunit *test)
{
	const struct reclaim_mode *mode = test->param_value;
	u64 key, n = scaled(mode->reclaim == CHM_SYNC ? 2000 : 50000, 500);
	struct chm *map = test_reclaim_map(test);
	unsigned long failed = 0;
	struct chm_stats s;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 64), 0);
	for (key = 64; key < n; key++) {
		failed += remove_key(map, key - 64) != 0;
		failed += insert_key(map, key) != 0;
		if (key % 64)
			continue;
		s = stats_of(map);
		KUNIT_EXPECT_LE(test, s.retired_bytes, budget(&s));
		KUNIT_EXPECT_LE(test, s.bytes, SZ_2M);
	}
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, n - 64, n), 0);
	KUNIT_EXPECT_EQ(test, found_keys(map, 0, n - 64), 0);
	expect_sound(test, map);
	/* What churn took comes back. */
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	KUNIT_EXPECT_LE(test, stats_of(map).bytes, SZ_2K);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, n - 64, n), 0);
	KUNIT_EXPECT_TRUE(test, wait_retired(map));
}

/* Replaces the oldest of 50 wide pairs until the map moves to a larger table. */
static unsigned long churn_until_growth(struct sized *z, u64 *id)
{
	struct chm_stats s = stats_of(z->map), now = s;
	unsigned long failed = 0;
	u32 i;

	for (i = 0; i < 2000 && now.grows == s.grows; i++) {
		failed += sized_remove(z, *id - 50) != 0;
		failed += sized_upsert(z, *id, *id) != 1;
		(*id)++;
		now = stats_of(z->map);
	}
	return failed;
}

/* Waits until the table has @chunks; false: it never had. */
static bool wait_chunks(struct chm *map, unsigned long chunks)
{
	unsigned long end = jiffies + 20 * HZ;

	while (stats_of(map).chunks != chunks) {
		if (time_after(jiffies, end))
			return false;
		msleep(20);
	}
	return true;
}

/*
 * A reader keeps DEAD slots from being used again: churn gets room for them, but
 * not more than twice what was reserved, and gives it back when all is over.
 */
static void chm_grow_for_dead_slots(struct kunit *test)
{
	unsigned long chunks;
	struct long_reader *r;
	struct chm_stats s;
	struct sized z;
	u64 i, id;

	sized_init(test, &z, &wide_params);
	KUNIT_ASSERT_EQ(test, chm_reserve(z.map, 200, GFP_KERNEL), 0);
	for (id = 0; id < 50; id++)
		KUNIT_ASSERT_EQ(test, sized_upsert(&z, id, id), 1);
	chunks = stats_of(z.map).chunks;
	r = test_reader(test);
	KUNIT_EXPECT_EQ(test, churn_until_growth(&z, &id), 0);
	s = stats_of(z.map);
	KUNIT_EXPECT_EQ(test, s.grows, 1);
	KUNIT_EXPECT_LE(test, s.chunks, 2 * chunks);
	stop_reader(test, r);
	KUNIT_EXPECT_TRUE(test, wait_chunks(z.map, chunks));
	KUNIT_EXPECT_TRUE(test, wait_retired(z.map));
	for (i = id - 50; i < id; i++)
		KUNIT_EXPECT_TRUE(test, sized_has(&z, i, i));
	expect_sound(test, z.map);
}

static void chm_grow_and_shrink_cycles(struct kunit *test)
{
	struct chm *map = test_reclaim_map(test);
	u64 round, n = scaled(3000, 300);

	for (round = 0; round < 5; round++) {
		KUNIT_EXPECT_EQ(test, insert_keys(map, round * n, (round + 1) * n), 0);
		KUNIT_EXPECT_EQ(test, wrong_keys(map, round * n, (round + 1) * n), 0);
		KUNIT_EXPECT_EQ(test, remove_keys(map, round * n, (round + 1) * n - 10), 0);
		KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
		KUNIT_EXPECT_EQ(test, wrong_keys(map, (round + 1) * n - 10, (round + 1) * n), 0);
		KUNIT_EXPECT_EQ(test, chm_count(map), (round + 1) * 10);
		expect_sound(test, map);
	}
	KUNIT_EXPECT_GE(test, stats_of(map).shrinks, 5);
	KUNIT_EXPECT_TRUE(test, wait_retired(map));
}

static struct kunit_case chm_grow_cases[] = {
	KUNIT_CASE_PARAM(chm_grow_from_nothing, reclaim_gen_params),
	KUNIT_CASE(chm_grow_step_by_step),
	KUNIT_CASE(chm_grow_sync_frees_at_once),
	KUNIT_CASE(chm_grow_deferred_frees_soon),
	KUNIT_CASE(chm_memory_is_exact),
	KUNIT_CASE_PARAM(chm_grow_by_factor, growth_gen_params),
	KUNIT_CASE(chm_grow_small_without_slack),
	KUNIT_CASE_PARAM(chm_grow_at_max_load, max_load_gen_params),
	KUNIT_CASE_PARAM(chm_grow_not_by_churn, reclaim_gen_params),
	KUNIT_CASE(chm_grow_for_dead_slots),
	KUNIT_CASE_PARAM(chm_grow_and_shrink_cycles, reclaim_gen_params),
	{}
};

static struct kunit_suite chm_grow_suite = {
	.name = "chm_grow",
	.test_cases = chm_grow_cases,
};

/* === Suite: chm_store ==================================================== */

/*
 * A change of the map is a sequence of stores to control words, and a reader may
 * come between any two.  Here one does: after each store all keys are looked up,
 * and the table is as readers rely on it.
 */
struct between {
	struct chain	*c;
	u64		*values;	/* of the keys that are present */
	u32		key;		/* the one that a call is about */
	bool		was, will;	/* present before and after the call? */
	u64		old, new;	/* its values */
	bool		done;		/* a lookup has found what comes after */
	unsigned long	stores;
	unsigned long	wrong;
};

static struct between *between;

/* Each FULL pair can be reached, and each chunk that matters is marked. */
static unsigned long unreachable_pairs(const struct chm_table *t)
{
	const unsigned long *occupied = (void *)__chm_chunk(t, t->nr_chunks, t->p);
	unsigned long wrong = 0;
	u32 chunk, slot, i;

	occupied += BITS_TO_LONGS(t->nr_chunks);
	for (chunk = 0; chunk < t->nr_chunks; chunk++) {
		struct chm_chunk *c = __chm_chunk(t, chunk, t->p);
		unsigned long mask = chm_match_full(c->ctrl);

		if (c->ctrl & (CHM_TAGS_HIGH | CHM_OVERFLOW))
			wrong += !test_bit(chunk, occupied);
		chm_for_each_match(slot, mask) {
			u64 hash = __chm_hash(t, __chm_slot(t, c, slot, t->p), t->p);

			i = chm_home(hash, t->nr_chunks);
			for (; i != chunk; i = chm_next_chunk(i, t->nr_chunks))
				wrong += !chm_overflows(__chm_chunk(t, i, t->p)->ctrl, hash);
		}
	}
	return wrong;
}

/* What a lookup of key @i finds is what it was, or what it will be from then on. */
static bool between_right(struct between *b, u32 i)
{
	u64 got = 0;
	bool found = chm_get(b->c->map, &b->c->keys[i], &got);
	bool before, after;

	if (i != b->key)
		return found == b->c->present[i] && (!found || got == b->values[i]);
	before = found == b->was && (!found || got == b->old);
	after = found == b->will && (!found || got == b->new);
	if (after && !before)
		b->done = true;
	return b->done ? after : before;
}

static void look_between(const struct chm_table *t)
{
	struct between *b = between;
	u32 i;

	/* Nobody sees a table that is being built. */
	if (t != rcu_access_pointer(b->c->map->tbl))
		return;
	b->stores++;
	b->wrong += unreachable_pairs(t);
	for (i = 0; i < b->c->nr; i++)
		b->wrong += !between_right(b, i);
}

/* One call about key @i, which exists or not as it was. */
static void between_call(struct between *b, u32 i, u32 what)
{
	bool present = b->c->present[i];
	const u64 *key = &b->c->keys[i];
	int ret;

	b->key = i;
	b->was = present;
	b->old = b->values[i];
	b->new = b->old + 1;
	b->will = !present || what;
	b->done = false;
	if (!present)
		ret = chm_insert(b->c->map, key, &b->new, GFP_KERNEL);
	else if (what)
		ret = chm_replace(b->c->map, key, &b->new, GFP_KERNEL);
	else
		ret = chm_remove(b->c->map, key);
	b->wrong += ret != 0;
	b->c->present[i] = b->will;
	b->values[i] = b->new;
	b->was = b->will;
	b->old = b->new;
}

static void chm_store_leaves_readers_a_sound_table(struct kunit *test)
{
	struct chain *c = chain_of(test, test->param_value);
	struct between *b = test_alloc(test, sizeof(*b));
	struct rnd_state rnd;
	u32 n;

	test_rnd(test, &rnd);
	b->c = c;
	b->values = test_alloc(test, c->nr * sizeof(*b->values));
	between = b;
	kunit_activate_static_stub(test, chm_stored, look_between);
	for (n = 0; n < scaled(3000, 500); n++) {
		u32 r = prandom_u32_state(&rnd);

		between_call(b, r % c->nr, r >> 16 & 3);
		/* So that DEAD slots are used again now and then. */
		if (n % 256 == 0)
			synchronize_rcu();
	}
	kunit_deactivate_static_stub(test, chm_stored);
	KUNIT_EXPECT_EQ(test, b->wrong, 0);
	KUNIT_EXPECT_GT(test, b->stores, n);
	expect_sound(test, c->map);
}

static struct kunit_case chm_store_cases[] = {
	KUNIT_CASE_PARAM(chm_store_leaves_readers_a_sound_table, chain_gen_params),
	{}
};

static struct kunit_suite chm_store_suite = {
	.name = "chm_store",
	.test_cases = chm_store_cases,
};

/* === Suite: chm_meddle =================================================== */

/*
 * While a writer looks for memory others write, and wait for nobody.  Here they do
 * so each time: atomic calls on the same map run inside of every allocation that may
 * sleep, and any allocation may fail besides.
 */
#define MEDDLE_KEYS	1500U

struct meddle {
	struct chm	*map;
	struct rnd_state rnd;
	u64		values[2 * MEDDLE_KEYS];	/* 0: absent */
	bool		inside;
	unsigned long	wrong;
	unsigned long	allocs;
};

/* Stubs get no argument of the test's. */
static struct meddle *meddle;

static u32 meddle_below(struct meddle *m, u32 n)
{
	return prandom_u32_state(&m->rnd) % n;
}

static void meddle_forget_all(struct meddle *m)
{
	memset(m->values, 0, sizeof(m->values));
}

/* Whether @ret is right for an insertion, replacement or both of @key. */
static bool meddle_stored(struct meddle *m, u64 key, u64 value, bool create,
			  bool update, int ret)
{
	bool was = m->values[key];

	if (ret == -ENOMEM)
		return true;
	if (was && !update)
		return ret == -EEXIST;
	if (!was && !create)
		return ret == -ENOENT;
	m->values[key] = value;
	return ret == (update && create && !was);
}

static void meddle_store(struct meddle *m, u64 key, gfp_t gfp)
{
	u64 value = prandom_u32_state(&m->rnd) | 1;
	int ret;

	switch (meddle_below(m, 3)) {
	case 0:
		ret = chm_insert(m->map, &key, &value, gfp);
		m->wrong += !meddle_stored(m, key, value, true, false, ret);
		break;
	case 1:
		ret = chm_replace(m->map, &key, &value, gfp);
		m->wrong += !meddle_stored(m, key, value, false, true, ret);
		break;
	default:
		ret = chm_upsert(m->map, &key, &value, gfp);
		m->wrong += !meddle_stored(m, key, value, true, true, ret);
	}
}

static void meddle_remove(struct meddle *m, u64 key)
{
	m->wrong += remove_key(m->map, key) != (m->values[key] ? 0 : -ENOENT);
	m->values[key] = 0;
}

/* Any write; the first half of the keys is the test's, the other one the meddler's. */
static void meddle_write(struct meddle *m, u32 first, gfp_t gfp)
{
	u32 i, n = meddle_below(m, MEDDLE_KEYS / 4);

	switch (meddle_below(m, 16)) {
	case 0:
		chm_clear(m->map);
		meddle_forget_all(m);
		break;
	case 1:
	case 2:
		for (i = 0; i < n; i++)
			meddle_remove(m, first + meddle_below(m, MEDDLE_KEYS));
		break;
	default:
		for (i = 0; i < n; i++)
			meddle_store(m, first + meddle_below(m, MEDDLE_KEYS), gfp);
	}
}

/* Any call of the test's. */
static void meddle_call(struct meddle *m)
{
	int ret = 0;

	switch (meddle_below(m, 16)) {
	case 0:
	case 1:
		ret = chm_shrink(m->map, GFP_KERNEL);
		break;
	case 2:
	case 3:
		ret = chm_reserve(m->map, meddle_below(m, 3 * MEDDLE_KEYS), GFP_KERNEL);
		break;
	default:
		meddle_write(m, 0, GFP_KERNEL);
	}
	m->wrong += ret && ret != -ENOMEM;
}

static void *meddling_alloc(u64 bytes, gfp_t gfp)
{
	struct meddle *m = meddle;

	/* Else the lock may be held. */
	if (!m->inside && gfpflags_allow_blocking(gfp)) {
		m->inside = true;
		m->allocs++;
		meddle_write(m, MEDDLE_KEYS, GFP_NOWAIT);
		m->inside = false;
	}
	if (!meddle_below(m, 4))
		return ERR_PTR(-ENOMEM);
	return __chm_alloc(bytes, gfp);
}

static unsigned long meddle_differs(struct meddle *m)
{
	unsigned long wrong = 0;
	u64 key, got;

	for (key = 0; key < ARRAY_SIZE(m->values); key++) {
		bool found = chm_get(m->map, &key, &got);

		wrong += found != !!m->values[key] || (found && got != m->values[key]);
	}
	return wrong;
}

static const struct meddle_case {
	const char		*name;
	struct chm_params	p;
} meddle_cases[] = {
	{ "frozen", { .key_size = 8, .value_size = 8 } },
	{ "word", { .key_size = 8, .value_size = 8, .class = CHM_WORD } },
	{ "cell", { .key_size = 8, .value_size = 8, .class = CHM_CELL } },
	{ "min", { .key_size = 8, .value_size = 8, .min_entries = 500, .max_load = 95 } },
};

KUNIT_ARRAY_PARAM_DESC(meddle, meddle_cases, name);

static void chm_meddle_in_every_allocation(struct kunit *test)
{
	const struct meddle_case *c = test->param_value;
	struct meddle *m = test_alloc(test, sizeof(*m));
	unsigned long differ = 0, unsound = 0;
	u32 i;

	test_rnd(test, &m->rnd);
	m->map = test_map(test, &c->p);
	meddle = m;
	kunit_activate_static_stub(test, chm_alloc, meddling_alloc);
	for (i = 0; i < scaled(400, 60); i++) {
		meddle_call(m);
		differ += meddle_differs(m);
		if (i % 8 == 0)
			unsound += chm_verify(m->map) != 0;
	}
	kunit_deactivate_static_stub(test, chm_alloc);
	KUNIT_EXPECT_EQ(test, m->wrong, 0);
	KUNIT_EXPECT_EQ(test, differ, 0);
	KUNIT_EXPECT_EQ(test, unsound, 0);
	KUNIT_EXPECT_GT(test, m->allocs, scaled(400, 60) / 40);
}

static struct kunit_case chm_meddle_cases[] = {
	KUNIT_CASE_PARAM(chm_meddle_in_every_allocation, meddle_gen_params),
	{}
};

static struct kunit_suite chm_meddle_suite = {
	.name = "chm_meddle",
	.test_cases = chm_meddle_cases,
};

/* === Suite: chm_model ==================================================== */

/*
 * Random calls, and the same on an array: what each returns and what the map
 * holds must agree.  The calls depend on the printed seed alone.  Where the
 * pairs lie depends on the map's own seed and on grace periods, too.
 */
struct model_config {
	const char	*name;
	u32		key_size;
	u32		value_size;
	u32		universe;	/* keys that there are */
	u32		calls;		/* at a scale of 100 percent */
	enum chm_class	class;
	enum chm_reclaim reclaim;
	u32		max_load;
	u64		(*hash)(const void *key, u64 seed);
	bool		items;		/* values are items, and are dropped */
};

static const struct model_config model_configs[] = {
	{ .name = "u64", .key_size = 8, .value_size = 8, .universe = 5000, .calls = 200000 },
	{ .name = "few_keys", .key_size = 4, .value_size = 4, .universe = 12,
	  .calls = 150000 },
	{ .name = "word", .key_size = 8, .value_size = 4, .universe = 1000,
	  .calls = 200000, .class = CHM_WORD },
	{ .name = "set", .key_size = 1, .value_size = 0, .universe = 256, .calls = 100000 },
	{ .name = "odd_sizes", .key_size = 13, .value_size = 29, .universe = 700,
	  .calls = 100000, .max_load = 95 },
	{ .name = "constant_hash", .key_size = 8, .value_size = 8, .universe = 60,
	  .calls = 50000, .hash = hash_constant },
	{ .name = "last_chunk", .key_size = 8, .value_size = 8, .universe = 60,
	  .calls = 50000, .hash = hash_last },
	{ .name = "equal_high", .key_size = 8, .value_size = 8, .universe = 300,
	  .calls = 50000, .hash = hash_equal_high },
	{ .name = "items", .key_size = 8, .value_size = 8, .universe = 1000,
	  .calls = 150000, .items = true },
	{ .name = "word_items", .key_size = 8, .value_size = 8, .universe = 300,
	  .calls = 50000, .class = CHM_WORD, .items = true },
	{ .name = "clone", .key_size = 8, .value_size = 8, .universe = 500,
	  .calls = 50000, .class = CHM_CLONE, .items = true },
	{ .name = "clone_constant_hash", .key_size = 8, .value_size = 8, .universe = 40,
	  .calls = 20000, .class = CHM_CLONE, .items = true, .hash = hash_constant },
	{ .name = "sync", .key_size = 8, .value_size = 8, .universe = 3000,
	  .calls = 20000, .reclaim = CHM_SYNC },
	{ .name = "sync_clone", .key_size = 8, .value_size = 8, .universe = 500,
	  .calls = 10000, .class = CHM_CLONE, .reclaim = CHM_SYNC, .items = true },
	{ .name = "large_pairs", .key_size = 64, .value_size = 500, .universe = 200,
	  .calls = 50000 },
};

KUNIT_ARRAY_PARAM_DESC(model, model_configs, name);

#define MODEL_BATCH	5000
#define MODEL_ITEMS	150000

struct model {
	struct kunit			*test;
	const struct model_config	*c;
	struct sized			z;
	struct rnd_state		rnd;
	struct ledger			*ledger;	/* items only */
	u32				*stamps;	/* by key; 0: absent */
	u8				*seen;
	u32				last_stamp;
	unsigned long			count;
	unsigned long			step;
	bool				bad;
};

/* Only the first disagreement is told: the rest may follow from it. */
static void model_check(struct model *m, const char *what, u32 id, long got, long expected)
{
	if (got == expected || m->bad)
		return;
	m->bad = true;
	KUNIT_FAIL(m->test, "call %lu: %s of key %u: %ld, not %ld",
		   m->step, what, id, got, expected);
}

static u32 model_random(struct model *m, u32 below)
{
	return prandom_u32_state(&m->rnd) % below;
}

/* A new value for @id in z.value, its key in z.key; returns its stamp. */
static u32 model_prepare(struct model *m, u32 id)
{
	u32 stamp = ++m->last_stamp;
	struct item *item;

	fill_key(m->z.key, m->z.key_size, id);
	if (!m->c->items) {
		fill_value(m->z.value, m->z.value_size, stamp);
		return stamp;
	}
	item = item_new(m->ledger, stamp);
	model_check(m, "item", id, !item, false);
	if (!item)
		return 0;
	memcpy(m->z.value, &item, sizeof(item));
	return stamp;
}

static void model_item_put(struct model *m, const u8 *value)
{
	struct item *item;

	if (!m->c->items)
		return;
	memcpy(&item, value, sizeof(item));
	item_put(item);
}

/* Whether @value is the one with this stamp. */
static bool model_is(struct model *m, const u8 *value, u32 stamp)
{
	struct item *item;

	if (m->c->items) {
		memcpy(&item, value, sizeof(item));
		return item->stamp == stamp && atomic_read(&item->live);
	}
	fill_value(m->z.value, m->z.value_size, stamp);
	return !memcmp(value, m->z.value, m->z.value_size);
}

static void model_lookup(struct model *m, u32 id)
{
	const u8 *found;
	bool right;

	fill_key(m->z.key, m->z.key_size, id);
	rcu_read_lock();
	found = chm_lookup(m->z.map, m->z.key);
	right = !found || model_is(m, found, m->stamps[id]);
	rcu_read_unlock();
	model_check(m, "chm_lookup", id, !!found, !!m->stamps[id]);
	model_check(m, "value", id, right, true);
}

typedef int (*store_fn)(struct chm *map, const void *key, const void *value, gfp_t gfp);

/* @absent and @present: what it returns for such a key. */
static void model_store(struct model *m, u32 id, const char *what, store_fn store,
			int absent, int present)
{
	int expected = m->stamps[id] ? present : absent;
	u32 stamp = model_prepare(m, id);
	bool had = false;
	int ret;

	if (!stamp)
		return;
	/* A word is overwritten, not dropped: its item comes back. */
	if (m->c->class == CHM_WORD && m->stamps[id] && present == 0)
		had = chm_get(m->z.map, m->z.key, m->z.got);
	ret = store(m->z.map, m->z.key, m->z.value, GFP_KERNEL);
	model_check(m, what, id, ret, expected);
	if (ret < 0) {
		model_item_put(m, m->z.value);
		return;
	}
	if (had)
		model_item_put(m, m->z.got);
	m->count += !m->stamps[id];
	m->stamps[id] = stamp;
}

static void model_remove(struct model *m, u32 id)
{
	int ret = sized_remove(&m->z, id);

	model_check(m, "chm_remove", id, ret, m->stamps[id] ? 0 : -ENOENT);
	m->count -= !!m->stamps[id];
	m->stamps[id] = 0;
}

static void model_take(struct model *m, u32 id)
{
	int ret;

	fill_key(m->z.key, m->z.key_size, id);
	ret = chm_take(m->z.map, m->z.key, NULL, m->z.got);
	model_check(m, "chm_take", id, ret, m->stamps[id] ? 0 : -ENOENT);
	if (!ret) {
		model_check(m, "taken", id, model_is(m, m->z.got, m->stamps[id]), true);
		model_item_put(m, m->z.got);
	}
	m->count -= !!m->stamps[id];
	m->stamps[id] = 0;
}

/* The calls that concern all keys; returns false if it was to be another. */
static bool model_call_rare(struct model *m, u32 choice)
{
	switch (choice) {
	case 0:
		model_check(m, "chm_shrink", 0, chm_shrink(m->z.map, GFP_KERNEL), 0);
		return true;
	case 1:
		model_check(m, "chm_reserve", 0,
			    chm_reserve(m->z.map, model_random(m, 2 * m->c->universe),
					GFP_KERNEL), 0);
		return true;
	case 2:
		if (model_random(m, 4))
			return false;
		chm_clear(m->z.map);
		memset(m->stamps, 0, m->c->universe * sizeof(*m->stamps));
		m->count = 0;
		return true;
	}
	return false;
}

/* The weights drift, so that the map is now full and now empty. */
static void model_call(struct model *m)
{
	u32 id = model_random(m, m->c->universe);
	bool filling = m->step / 3000 % 2;

	if (model_call_rare(m, model_random(m, 2000)))
		return;
	switch (model_random(m, 10) + filling) {
	case 0:
	case 1:
		model_remove(m, id);
		break;
	case 2:
		model_take(m, id);
		break;
	case 3:
	case 4:
		model_lookup(m, id);
		break;
	case 5:
	case 6:
		model_store(m, id, "chm_replace", chm_replace, -ENOENT, 0);
		break;
	case 7:
	case 8:
		model_store(m, id, "chm_upsert", chm_upsert, 1, 0);
		break;
	default:
		model_store(m, id, "chm_insert", chm_insert, 0, -EEXIST);
	}
}

/* The number of a key: fill_key() backwards. */
static u32 model_id(const struct model *m, const u8 *key)
{
	u32 id = 0, i;

	for (i = min_t(u32, m->z.key_size, sizeof(id)); i; i--)
		id = id << BITS_PER_BYTE | key[m->z.key_size - i];
	return id;
}

/* A walk met this pair. */
static void model_meet(struct model *m, const char *what, const u8 *key, const u8 *value)
{
	u32 id = model_id(m, key);

	model_check(m, what, id, id < m->c->universe, true);
	if (id >= m->c->universe)
		return;
	model_check(m, what, id, m->seen[id]++, 0);
	model_check(m, what, id, m->stamps[id] && model_is(m, value, m->stamps[id]), true);
}

static void model_walk(struct model *m)
{
	unsigned long n = 0;
	struct chm_iter it;

	memset(m->seen, 0, m->c->universe);
	chm_iter_init(&it, m->z.map);
	for (; chm_iter_next(&it, m->z.key, m->z.got); n++)
		model_meet(m, "chm_iter_next", m->z.key, m->z.got);
	model_check(m, "walk", 0, n, m->count);
}

static void model_for_each(struct model *m)
{
	unsigned long n = 0;
	struct chm_pos pos;
	const u8 *key, *value;

	memset(m->seen, 0, m->c->universe);
	rcu_read_lock();
	chm_for_each_rcu(m->z.map, pos, key, value) {
		model_meet(m, "chm_for_each_rcu", key, value);
		n++;
	}
	rcu_read_unlock();
	model_check(m, "chm_for_each_rcu", 0, n, m->count);
}

/* Both directions: each key is looked up, each pair is met once. */
static void model_compare(struct model *m)
{
	u32 id;

	model_check(m, "chm_verify", 0, chm_verify(m->z.map), 0);
	model_check(m, "chm_count", 0, chm_count(m->z.map), m->count);
	for (id = 0; id < m->c->universe; id++)
		model_lookup(m, id);
	model_walk(m);
	model_for_each(m);
}

static struct model *test_model(struct kunit *test, const struct model_config *c)
{
	const struct chm_params p = {
		.key_size = c->key_size,
		.value_size = c->value_size,
		.class = c->class,
		.reclaim = c->reclaim,
		.max_load = c->max_load,
		.hash = c->hash,
		.clone = c->class == CHM_CLONE ? clone_item : NULL,
		.drop = c->items ? drop_item : NULL,
	};
	struct model *m = test_alloc(test, sizeof(*m));

	m->test = test;
	m->c = c;
	m->stamps = test_alloc(test, c->universe * sizeof(*m->stamps));
	m->seen = test_alloc(test, c->universe);
	if (c->items)
		m->ledger = test_ledger(test, MODEL_ITEMS);
	sized_init(test, &m->z, &p);
	test_rnd(test, &m->rnd);
	return m;
}

static void chm_model_agrees(struct kunit *test)
{
	const struct model_config *c = test->param_value;
	unsigned long calls = scaled(c->calls, 1000);
	struct model *m = test_model(test, c);

	while (m->step < calls && !m->bad) {
		model_call(m);
		if (++m->step % MODEL_BATCH == 0 || m->step == calls)
			model_compare(m);
	}
	if (c->items)
		KUNIT_EXPECT_TRUE(test, wait_live(m->ledger, m->count));
	destroy_now(test, m->z.map);
	if (c->items)
		expect_settled(test, m->ledger);
}

static struct kunit_case chm_model_cases[] = {
	KUNIT_CASE_PARAM(chm_model_agrees, model_gen_params),
	{}
};

static struct kunit_suite chm_model_suite = {
	.name = "chm_model",
	.test_cases = chm_model_cases,
};

/* === Module ============================================================== */

kunit_test_suites(&chm_chunk_suite, &chm_bytes_suite, &chm_init_suite,
		  &chm_typed_suite, &chm_lookup_suite, &chm_update_suite,
		  &chm_size_suite, &chm_verify_suite, &chm_class_suite,
		  &chm_drop_suite, &chm_hash_suite, &chm_overflow_suite,
		  &chm_grow_suite, &chm_store_suite, &chm_meddle_suite,
		  &chm_model_suite);

/* The static maps of DEFINE_CHM() live until here. */
static void __exit chm_test_exit(void)
{
	chm_destroy(&static_map);
	chm_destroy(&static_bad);
	chm_destroy(&static_cell);
	point_map_destroy(&static_points);
}
module_exit(chm_test_exit);

MODULE_DESCRIPTION("KUnit tests of chm");
MODULE_LICENSE("GPL");
