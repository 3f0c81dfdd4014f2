// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of chm: readers against writers, grace periods, walks, failures
 *
 * chm_test.c tells what each call promises; this file tries to catch it in a
 * lie while something else is going on.  G1 to G12 are the guarantees of
 * Documentation/chm.rst, O1 to O8 the ordering rules of chm.c.
 *
 * Cases that race take as long as they are told, not as long as their work
 * takes: more time finds more.  They go on if a busy machine has kept them from
 * getting anywhere, so that a pass always means something.  Where lookups are
 * fast, @volume says how many all of them have to make.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <kunit/test.h>
#include <linux/atomic.h>
#include <linux/bits.h>
#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/hrtimer.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/math64.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/random.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/smp.h>
#include <linux/timekeeping.h>

#include "chm.h"
#include "chm_test.h"

static unsigned int volume;
module_param(volume, uint, 0444);
MODULE_PARM_DESC(volume, "Millions of lookups that the races shall make (0: what their time allows)");

static unsigned long seed;
module_param(seed, ulong, 0444);
MODULE_PARM_DESC(seed, "Of the random tests; 0: another one each time");

/* === Races: the oracle =================================================== */

/*
 * Readers and writers share one set of keys.  Each pair carries its key, a
 * version and a pattern made of both, and for each key the writers say what
 * they did, so that every single lookup can be judged:
 *
 *	G2	a steady key is never missed; nor is any key that was present
 *		all the time, as its sequence count tells
 *	G3	the bytes are one pair's, and stay so to the end of the section
 *	G4	a version that any lookup returned, or any writer finished, is
 *		the least that a lookup which begins later may return
 *
 * A failed KUNIT_ASSERT ends the thread that made it, which must be the test's
 * own.  So workers remember the first thing that is wrong, and the test thread
 * EXPECTs after it joined them.
 */

#define RACE_WORKERS	5
#define RACE_BATCH	16U
#define RACE_TAG_BITS	7
#define RACE_RATIO	100	/* lookups due for each write that is due */

/* How much slower everything is on a kernel with KASAN and lockdep. */
#define RACE_SLOW	(IS_ENABLED(CONFIG_KASAN) ? 8U : 1U)

struct race_key {
	u64			key;
	bool			steady;		/* present throughout */
	struct mutex		lock;		/* one writer per key at a time */
	unsigned int		seq;		/* odd: being written */
	bool			present;
	u64			version;	/* of the pair that is present */
	u64			next;		/* newest that was handed to chm */
	atomic64_t		seen;		/* newest that a lookup returned */
};

/* What is known of a key when a lookup of it begins. */
struct race_view {
	unsigned int		seq;
	bool			present;
	u64			version;
	u64			least;
};

struct race_worker;

enum race_context {
	RACE_THREAD,
	RACE_SOFTIRQ,
	RACE_HARDIRQ,
};

/* One worker: what it does, on which CPU, in which context. */
struct race_role {
	void			(*step)(struct race_worker *w);
	unsigned int		cpu;
	enum race_context	context;
};

/* What must have happened, or the test has shown nothing. */
#define RACE_GROWS	BIT(0)
#define RACE_SHRINKS	BIT(1)
#define RACE_MIGRATES	BIT(2)
#define RACE_DISPLACES	BIT(3)

struct race_spec {
	u32			keys;
	u32			steady;		/* the first so many stay */
	u32			homes;		/* that keys have; 0: hashed */
	u32			words;		/* of a value; 1: CHM_WORD */
	bool			one_tag;
	u32			bits;		/* of overflow filters; 0: 2 */
	enum chm_reclaim	reclaim;
	u32			must;
	u32			share;		/* of the volume due, in percent */
	struct race_role	roles[RACE_WORKERS];
};

struct race_worker {
	struct race		*r;
	const struct race_role	*role;
	struct task_struct	*task;
	struct hrtimer		timer;
	u64			rng;
	unsigned long		lookups;
	unsigned long		hits;
	unsigned long		writes;
	unsigned long		rounds;		/* whole walks, for instance */
	u64			*value;
	u64			*seen;		/* newest version of each key */
	u8			*count;		/* of each key, on a walk */
	u64			keys[RACE_BATCH];
	const void		*values[RACE_BATCH];
	struct race_key		*batch[RACE_BATCH];
	struct race_view	views[RACE_BATCH];
};

struct race {
	struct chm		map;
	const struct race_spec	*spec;
	struct race_key		*keys;
	struct race_worker	workers[RACE_WORKERS];
	struct chm_stats	stats;
	unsigned long		due;		/* lookups; a write for RACE_RATIO */
	unsigned int		patience;	/* ns for each of them */
	unsigned long		displaced;	/* most that were sampled */
	unsigned int		phase;		/* odd: filling */
	bool			stop;
	atomic_t		wrong;
	bool			described;	/* all below is valid */
	const char		*what;
	u64			key;
	u64			got;
	u64			want;
	enum race_context	context;
};

/*
 * Let others run.  User Mode Linux does not preempt kernel threads when an
 * interrupt returns, and cond_resched() does nothing where CONFIG_PREEMPT is set.
 */
static void race_give_way(void)
{
	cond_resched();
	if (need_resched())
		schedule();
}

/* Not local_clock(): in User Mode Linux it stands still while an interrupt lasts. */
static u64 race_now(void)
{
	return ktime_get_mono_fast_ns();
}

/*
 * Keep the CPU for a while.  Not udelay() nor cpu_relax(): emulators take PAUSE
 * for a chance to run something else, and no two CPUs would spin at a time.
 */
static void race_spin(u64 us)
{
	u64 start = race_now();

	while (race_now() - start < us * NSEC_PER_USEC)
		barrier();
}

static u64 race_random64(struct race_worker *w)
{
	w->rng ^= w->rng << 13;
	w->rng ^= w->rng >> 7;
	w->rng ^= w->rng << 17;
	return w->rng;
}

static u32 race_random(struct race_worker *w, u32 below)
{
	return ((race_random64(w) >> 32) * below) >> 32;
}

static bool race_over(const struct race *r)
{
	return READ_ONCE(r->stop) || atomic_read(&r->wrong);
}

static void race_wrong(struct race_worker *w, const char *what, u64 key,
		       u64 got, u64 want)
{
	struct race *r = w->r;

	if (atomic_xchg(&r->wrong, 1))
		return;
	r->what = what;
	r->key = key;
	r->got = got;
	r->want = want;
	r->context = w->role->context;
	/* Pairs with race_describe(). */
	smp_store_release(&r->described, true);
}

/* The hash is in the key, so that tests choose homes and tags. */
static u64 race_hash(const void *key, u64 seed)
{
	return unmix(*(const u64 *)key, seed);
}

/* Key number @i: never 0, unique, and race_index() finds @i again. */
static u64 race_make_key(const struct race_spec *s, u32 i)
{
	u64 home = s->homes ? (i % s->homes) * div_u64(1ULL << 32, s->homes) : 0;
	u32 tag = s->one_tag ? 5 : i % (s->bits ?: 2);

	return home << 32 | (u64)(i + 1) << RACE_TAG_BITS | tag;
}

static u32 race_index(u64 key)
{
	return ((u32)key >> RACE_TAG_BITS) - 1;
}

static u64 race_word(u64 key, u64 version, u32 i)
{
	return (key + version * 0x9e3779b97f4a7c15ULL) ^ i * 0x100000001b3ULL;
}

static void race_fill(u64 *value, u32 words, u64 key, u64 version)
{
	u32 i;

	if (words == 1) {
		value[0] = version << 32 | (u32)key;
		return;
	}
	value[0] = key;
	value[1] = version;
	for (i = 2; i < words; i++)
		value[i] = race_word(key, version, i);
}

static u64 race_version(const u64 *value, u32 words)
{
	if (words == 1)
		return READ_ONCE(value[0]) >> 32;
	return READ_ONCE(value[1]);
}

static bool race_intact(const u64 *value, u32 words, u64 key, u64 version)
{
	u32 i;

	if (words == 1)
		return (u32)READ_ONCE(value[0]) == (u32)key;
	if (READ_ONCE(value[0]) != key || READ_ONCE(value[1]) != version)
		return false;
	for (i = 2; i < words; i++) {
		if (READ_ONCE(value[i]) != race_word(key, version, i))
			return false;
	}
	return true;
}

/* === Races: readers ====================================================== */

static void race_begin(struct race_key *k, struct race_view *view)
{
	/* Pairs with the release in race_write(): the rest is as it left it. */
	view->seq = smp_load_acquire(&k->seq);
	view->present = READ_ONCE(k->present);
	view->version = READ_ONCE(k->version);
	view->least = atomic64_read_acquire(&k->seen);
	/* All that before the lookup. */
	smp_rmb();
}

/* Has no writer touched @k since race_begin()? */
static bool race_settled(struct race_key *k, const struct race_view *view)
{
	/* The lookup before this; pairs with smp_wmb() in race_write(). */
	smp_rmb();
	return !(view->seq & 1) && READ_ONCE(k->seq) == view->seq;
}

/* A version was seen: no lookup that begins from now on may find less. */
static void race_see(struct race_key *k, u64 version)
{
	u64 old = atomic64_read(&k->seen);

	while (old < version) {
		u64 was = atomic64_cmpxchg(&k->seen, old, version);

		if (was == old)
			break;
		old = was;
	}
}

/* Go on holding the pair for a while: mostly not at all, rarely for long. */
static void race_hold(struct race_worker *w, struct race_key *k,
		      const u64 *value, u64 version)
{
	u32 words = w->r->spec->words;
	u32 lot = race_random(w, 256);

	if (words == 1 || lot >= 8)
		return;
	if (w->role->context != RACE_THREAD)
		race_spin(lot);
	else
		race_spin(lot ? 10 : 300);
	if (!race_intact(value, words, k->key, version))
		race_wrong(w, "G3: changed while it was held", k->key,
			   READ_ONCE(value[1]), version);
}

/* Judge what a lookup of @k returned that began at @view. */
static void race_judge(struct race_worker *w, struct race_key *k,
		       const struct race_view *view, const u64 *value)
{
	u32 words = w->r->spec->words;
	/* In this order: a CHM_WORD value changes under us. */
	u64 version = value ? race_version(value, words) : 0;
	bool settled = race_settled(k, view);

	w->lookups++;
	if (!value) {
		if (k->steady || (settled && view->present))
			race_wrong(w, "G2: missed", k->key, 0, view->version);
		return;
	}
	w->hits++;
	if (!race_intact(value, words, k->key, version))
		race_wrong(w, "G3: mixed bytes", k->key, version, view->version);
	else if (version < view->least)
		race_wrong(w, "G4: older than what was seen before", k->key,
			   version, view->least);
	else if (version > READ_ONCE(k->next))
		race_wrong(w, "a version that was never written", k->key,
			   version, k->next);
	else if (settled && !view->present)
		race_wrong(w, "G4: found after removal", k->key, version, 0);
	else if (settled && version != view->version)
		race_wrong(w, "G4: not the last one written", k->key, version,
			   view->version);
	race_see(k, version);
}

static bool race_look(struct race_worker *w, struct race_key *k)
{
	struct race_view view;
	const u64 *value;
	u64 version;

	race_begin(k, &view);
	rcu_read_lock();
	value = chm_lookup(&w->r->map, &k->key);
	if (value) {
		version = race_version(value, w->r->spec->words);
		race_judge(w, k, &view, value);
		race_hold(w, k, value, version);
	} else {
		race_judge(w, k, &view, NULL);
	}
	rcu_read_unlock();
	return value;
}

static struct race_key *race_any(struct race_worker *w)
{
	return &w->r->keys[race_random(w, w->r->spec->keys)];
}

static struct race_key *race_any_steady(struct race_worker *w)
{
	return &w->r->keys[race_random(w, w->r->spec->steady)];
}

static struct race_key *race_any_other(struct race_worker *w)
{
	const struct race_spec *s = w->r->spec;

	return &w->r->keys[s->steady + race_random(w, s->keys - s->steady)];
}

static void race_step_look(struct race_worker *w)
{
	u32 i;

	for (i = 0; i < RACE_BATCH && !race_over(w->r); i++)
		race_look(w, race_any(w));
}

/* Nothing but lookups: as many as possible per write. */
static void race_step_look_fast(struct race_worker *w)
{
	struct race_view view;
	u32 i;

	for (i = 0; i < RACE_BATCH; i++) {
		struct race_key *k = race_any(w);

		race_begin(k, &view);
		rcu_read_lock();
		race_judge(w, k, &view, chm_lookup(&w->r->map, &k->key));
		rcu_read_unlock();
	}
}

/*
 * Judge a lookup at little more than its own cost: no barrier, and nothing shared
 * is touched.  All that is known is what this reader saw before.  Return: the
 * version; 0: none.
 */
static u64 race_glance(struct race_worker *w, const struct race_key *k,
		       const u64 *value)
{
	u64 seen = w->seen[k - w->r->keys];
	u32 words = w->r->spec->words;
	u64 version;

	if (!value) {
		if (k->steady)
			race_wrong(w, "G2: missed", k->key, 0, seen);
		return 0;
	}
	w->hits++;
	version = race_version(value, words);
	if (!race_intact(value, words, k->key, version))
		race_wrong(w, "G3: mixed bytes", k->key, version, seen);
	else if (version < seen)
		race_wrong(w, "G4: older than what this reader saw", k->key,
			   version, seen);
	return version;
}

static void race_remember(struct race_worker *w, const struct race_key *k,
			  u64 version)
{
	u64 *seen = &w->seen[k - w->r->keys];

	*seen = max(*seen, version);
}

/* As many lookups as possible, of which one in 65 is judged in full. */
static void race_step_glance(struct race_worker *w)
{
	u32 i, j;

	for (j = 0; j < 4; j++) {
		rcu_read_lock();
		for (i = 0; i < RACE_BATCH; i++) {
			struct race_key *k = race_any(w);
			const u64 *value = chm_lookup(&w->r->map, &k->key);

			race_remember(w, k, race_glance(w, k, value));
		}
		rcu_read_unlock();
	}
	w->lookups += j * i;
	race_look(w, race_any(w));
}

/* The same with all lookups of a section in one call, which go side by side. */
static void race_step_glance_many(struct race_worker *w)
{
	u64 versions[RACE_BATCH];
	u32 i;

	for (i = 0; i < RACE_BATCH; i++) {
		w->batch[i] = race_any(w);
		w->keys[i] = w->batch[i]->key;
	}
	rcu_read_lock();
	chm_lookup_many(&w->r->map, w->keys, RACE_BATCH, w->values);
	for (i = 0; i < RACE_BATCH; i++)
		versions[i] = race_glance(w, w->batch[i], w->values[i]);
	rcu_read_unlock();
	for (i = 0; i < RACE_BATCH; i++)
		race_remember(w, w->batch[i], versions[i]);
	w->lookups += i;
}

static void race_step_look_preempt_off(struct race_worker *w)
{
	preempt_disable();
	race_step_look(w);
	preempt_enable();
}

static void race_step_get(struct race_worker *w)
{
	struct race_key *k = race_any(w);
	struct race_view view;
	bool found;

	race_begin(k, &view);
	found = chm_get(&w->r->map, &k->key, w->value);
	race_judge(w, k, &view, found ? w->value : NULL);
}

static void race_step_look_many(struct race_worker *w)
{
	unsigned int found;
	unsigned int hits = 0;
	u32 i;

	for (i = 0; i < RACE_BATCH; i++) {
		w->batch[i] = race_any(w);
		w->keys[i] = w->batch[i]->key;
		race_begin(w->batch[i], &w->views[i]);
	}
	rcu_read_lock();
	found = chm_lookup_many(&w->r->map, w->keys, RACE_BATCH, w->values);
	for (i = 0; i < RACE_BATCH; i++) {
		race_judge(w, w->batch[i], &w->views[i], w->values[i]);
		hits += !!w->values[i];
	}
	rcu_read_unlock();
	if (hits != found)
		race_wrong(w, "lookup_many: count", 0, found, hits);
}

/* G2, O2: of two keys, who sees the later one sees the earlier one. */
static void race_step_look_in_order(struct race_worker *w)
{
	struct race *r = w->r;
	/* Pairs with race_step_fill_drain(). */
	unsigned int phase = smp_load_acquire(&r->phase);
	u32 later = 1 + race_random(w, r->spec->keys - 1);
	u32 earlier = race_random(w, later);

	if (!race_look(w, &r->keys[later]) || race_look(w, &r->keys[earlier]))
		return;
	/* The lookups before this; pairs with smp_wmb() in the writer. */
	smp_rmb();
	if ((phase & 1) && READ_ONCE(r->phase) == phase)
		race_wrong(w, "G2: hit, then miss of an earlier key",
			   r->keys[earlier].key, 0, r->keys[later].key);
}

/* === Races: walks ======================================================== */

static void race_visit(struct race_worker *w, u64 key, const u64 *value)
{
	const struct race_spec *s = w->r->spec;
	u64 version = race_version(value, s->words);
	u32 i = race_index(key);

	if (i >= s->keys || key != w->r->keys[i].key)
		race_wrong(w, "walk: a key that nobody inserted", key, i, 0);
	else if (!race_intact(value, s->words, key, version))
		race_wrong(w, "walk: mixed bytes", key, version, 0);
	else if (w->count[i]++)
		race_wrong(w, "G8: visited twice", key, 2, 1);
}

static void race_walked(struct race_worker *w)
{
	u32 i;

	for (i = 0; i < w->r->spec->steady; i++) {
		if (!w->count[i])
			race_wrong(w, "G8: not visited", w->r->keys[i].key, 0, 1);
	}
	w->rounds++;
}

static void race_step_walk(struct race_worker *w)
{
	struct chm_iter it;
	u64 key;

	memset(w->count, 0, w->r->spec->keys);
	chm_iter_init(&it, &w->r->map);
	while (!race_over(w->r) && chm_iter_next(&it, &key, w->value)) {
		race_visit(w, key, w->value);
		race_give_way();
	}
	if (!race_over(w->r))
		race_walked(w);
}

/* Also: what a walk in place saw, a lookup that begins later must find. */
static void race_step_each(struct race_worker *w)
{
	struct chm_pos pos;
	const u64 *key, *value;

	memset(w->count, 0, w->r->spec->keys);
	rcu_read_lock();
	chm_for_each_rcu(&w->r->map, pos, key, value)
		race_visit(w, *key, value);
	rcu_read_unlock();
	race_walked(w);
}

/* === Races: writers ====================================================== */

enum race_op {
	RACE_INSERT,
	RACE_REPLACE,
	RACE_UPSERT,
	RACE_REMOVE,
	RACE_TAKE,
};

static int race_expected(const struct race_key *k, enum race_op op)
{
	switch (op) {
	case RACE_INSERT:
		return k->present ? -EEXIST : 0;
	case RACE_UPSERT:
		return !k->present;
	default:
		return k->present ? 0 : -ENOENT;
	}
}

static int race_apply(struct race_worker *w, struct race_key *k,
		      enum race_op op)
{
	struct chm *map = &w->r->map;

	switch (op) {
	case RACE_INSERT:
		return chm_insert(map, &k->key, w->value, GFP_KERNEL);
	case RACE_REPLACE:
		return chm_replace(map, &k->key, w->value, GFP_KERNEL);
	case RACE_UPSERT:
		return chm_upsert(map, &k->key, w->value, GFP_KERNEL);
	case RACE_REMOVE:
		return chm_remove(map, &k->key);
	default:
		return chm_take(map, &k->key, NULL, w->value);
	}
}

static void race_note(struct race_worker *w, struct race_key *k,
		      enum race_op op)
{
	if (op == RACE_TAKE && race_version(w->value, w->r->spec->words) !=
			       k->version)
		race_wrong(w, "took another version", k->key,
			   race_version(w->value, w->r->spec->words), k->version);
	if (op == RACE_REMOVE || op == RACE_TAKE) {
		WRITE_ONCE(k->present, false);
		return;
	}
	WRITE_ONCE(k->present, true);
	WRITE_ONCE(k->version, k->next);
	race_see(k, k->next);
}

static void race_write(struct race_worker *w, struct race_key *k,
		       enum race_op op)
{
	int expected, ret;

	mutex_lock(&k->lock);
	WRITE_ONCE(k->next, k->next + 1);
	race_fill(w->value, w->r->spec->words, k->key, k->next);
	WRITE_ONCE(k->seq, k->seq + 1);
	/* Before the map changes; pairs with race_settled(). */
	smp_wmb();
	expected = race_expected(k, op);
	ret = race_apply(w, k, op);
	if (ret != expected)
		race_wrong(w, "a writer returned", k->key, ret, expected);
	else if (ret >= 0)
		race_note(w, k, op);
	/* After the map has changed; pairs with race_begin(). */
	smp_store_release(&k->seq, k->seq + 1);
	mutex_unlock(&k->lock);
	w->writes++;
}

static void race_shrink(struct race_worker *w)
{
	int ret = chm_shrink(&w->r->map, GFP_KERNEL);

	if (ret)
		race_wrong(w, "shrink returned", 0, ret, 0);
}

static void race_step_replace(struct race_worker *w)
{
	race_write(w, race_any_steady(w), RACE_REPLACE);
}

/* DEAD slots make the table grow: keep it so small that paths are short. */
static void race_step_replace_in_few_chunks(struct race_worker *w)
{
	race_step_replace(w);
	if (!(w->writes % 32))
		race_shrink(w);
}

static void race_toggle(struct race_worker *w, struct race_key *k)
{
	/* Racy, but race_write() looks again. */
	if (!READ_ONCE(k->present))
		race_write(w, k, RACE_INSERT);
	else
		race_write(w, k, race_random(w, 2) ? RACE_REMOVE : RACE_TAKE);
}

/* Slots that one key leaves are taken by others. */
static void race_step_reuse(struct race_worker *w)
{
	race_toggle(w, race_any_other(w));
}

static void race_step_upsert(struct race_worker *w)
{
	struct race_key *k = race_any(w);

	if (k->steady || race_random(w, 2))
		race_write(w, k, RACE_UPSERT);
	else
		race_write(w, k, RACE_REMOVE);
}

static void race_step_mixed(struct race_worker *w)
{
	struct race_key *k = race_any(w);

	if (!k->steady)
		race_write(w, k, race_random(w, RACE_TAKE + 1));
	else
		race_write(w, k, race_random(w, 2) ? RACE_REPLACE : RACE_UPSERT);
}

/* All that may go comes, in order, and goes in reverse; then shrink. */
static void race_step_fill_drain(struct race_worker *w)
{
	struct race *r = w->r;
	u32 i;

	/* Pairs with race_step_look_in_order(). */
	smp_store_release(&r->phase, r->phase + 1);
	for (i = r->spec->steady; i < r->spec->keys && !race_over(r); i++)
		race_write(w, &r->keys[i], RACE_UPSERT);
	race_spin(10);
	WRITE_ONCE(r->phase, r->phase + 1);
	/* Before the first removal; pairs with race_step_look_in_order(). */
	smp_wmb();
	while (i-- > r->spec->steady)
		race_write(w, &r->keys[i], RACE_REMOVE);
	race_shrink(w);
	w->rounds++;
}

/* As race_step_fill_drain(), but replaces at every size. */
static void race_step_grow_replace(struct race_worker *w)
{
	struct race *r = w->r;
	u32 i;

	for (i = r->spec->steady; i < r->spec->keys && !race_over(r); i++) {
		race_write(w, &r->keys[i], RACE_UPSERT);
		race_step_replace(w);
	}
	for (; i-- > r->spec->steady;) {
		race_write(w, &r->keys[i], RACE_REMOVE);
		race_step_replace(w);
	}
	race_shrink(w);
	w->rounds++;
}

/* Nothing but other tables, one after the other. */
static void race_step_resize(struct race_worker *w)
{
	unsigned long n = w->r->spec->steady + race_random(w, 200);
	int ret = chm_reserve(&w->r->map, n, GFP_KERNEL);

	if (ret)
		race_wrong(w, "reserve returned", 0, ret, 0);
	race_shrink(w);
	w->rounds++;
}

static void race_note_displaced(struct race *r, unsigned long displaced)
{
	if (displaced > READ_ONCE(r->displaced))
		WRITE_ONCE(r->displaced, displaced);
}

/* The map is empty for most of the time: it is seldom sampled when it is full. */
static void race_step_clear_fill(struct race_worker *w)
{
	struct race *r = w->r;
	struct chm_stats s;
	u32 i;

	for (i = 0; i < r->spec->keys && !race_over(r); i++)
		race_write(w, &r->keys[i], RACE_UPSERT);
	chm_stats(&r->map, &s);
	race_note_displaced(r, s.displaced);
	for (i = 0; i < r->spec->keys; i++)
		WRITE_ONCE(r->keys[i].seq, r->keys[i].seq + 1);
	/* Before the map changes; pairs with race_settled(). */
	smp_wmb();
	chm_clear(&r->map);
	for (i = 0; i < r->spec->keys; i++) {
		WRITE_ONCE(r->keys[i].present, false);
		/* After the map has changed; pairs with race_begin(). */
		smp_store_release(&r->keys[i].seq, r->keys[i].seq + 1);
	}
	if (race_random(w, 2))
		race_shrink(w);
	w->rounds++;
}

static void race_step_verify(struct race_worker *w)
{
	struct chm_stats s;
	int ret = chm_verify(&w->r->map);

	if (ret)
		race_wrong(w, "verify returned", 0, ret, 0);
	chm_stats(&w->r->map, &s);
	if (s.entries < w->r->spec->steady || s.entries > w->r->spec->keys)
		race_wrong(w, "stats: entries", 0, s.entries,
			   w->r->spec->steady);
	if (s.displaced > s.entries || s.entries + s.dead > s.slots)
		race_wrong(w, "stats: slots", s.slots, s.displaced, s.dead);
	w->rounds++;
}

/* Grace periods in a hurry: slots and tables are reused much sooner. */
static void race_step_expedite(struct race_worker *w)
{
	synchronize_rcu_expedited();
	w->rounds++;
}

/* Readers in interrupts do this: they stop their CPU in the middle of things. */
static void race_step_freeze(struct race_worker *w)
{
	race_spin(race_random(w, 20 * RACE_SLOW));
	w->rounds++;
}

static void race_step_look_and_freeze(struct race_worker *w)
{
	race_step_look(w);
	race_step_freeze(w);
}

/* === Races: running them ================================================= */

static enum hrtimer_restart race_timer(struct hrtimer *timer)
{
	struct race_worker *w = container_of(timer, struct race_worker, timer);
	u64 ns = (20000 + race_random(w, 60000)) * RACE_SLOW;

	if (race_over(w->r))
		return HRTIMER_NORESTART;
	if (w->role->context == RACE_HARDIRQ ? !in_hardirq() :
					       !in_serving_softirq())
		race_wrong(w, "timer: wrong context", 0, preempt_count(), 0);
	w->role->step(w);
	hrtimer_forward_now(timer, ns_to_ktime(ns));
	return HRTIMER_RESTART;
}

static void race_run_timer(struct race_worker *w)
{
	enum hrtimer_mode mode = w->role->context == RACE_HARDIRQ ?
				 HRTIMER_MODE_REL_PINNED_HARD :
				 HRTIMER_MODE_REL_PINNED_SOFT;

	hrtimer_setup(&w->timer, race_timer, CLOCK_MONOTONIC, mode);
	hrtimer_start(&w->timer, ns_to_ktime(NSEC_PER_USEC), mode);
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);
	hrtimer_cancel(&w->timer);
}

static int race_thread(void *arg)
{
	struct race_worker *w = arg;

	if (w->role->context != RACE_THREAD) {
		race_run_timer(w);
		return 0;
	}
	while (!race_over(w->r)) {
		w->role->step(w);
		race_give_way();
	}
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);
	return 0;
}

static unsigned int race_cpu(unsigned int nr)
{
	return cpumask_nth(nr % num_online_cpus(), cpu_online_mask);
}

static bool race_start(struct race *r)
{
	u32 i;

	for (i = 0; i < RACE_WORKERS && r->spec->roles[i].step; i++) {
		struct race_worker *w = &r->workers[i];
		struct task_struct *task;

		task = kthread_create(race_thread, w, "chm_race/%u", i);
		if (IS_ERR(task))
			return false;
		kthread_bind(task, race_cpu(w->role->cpu));
		w->task = task;
	}
	for (i = 0; i < RACE_WORKERS && r->workers[i].task; i++)
		wake_up_process(r->workers[i].task);
	return true;
}

static void race_stop(struct race *r)
{
	u32 i;

	WRITE_ONCE(r->stop, true);
	for (i = 0; i < RACE_WORKERS; i++) {
		if (r->workers[i].task)
			kthread_stop(r->workers[i].task);
	}
}

/* What the workers have done so far. */
struct race_tally {
	unsigned long		lookups;
	unsigned long		hits;
	unsigned long		writes;
	bool			idle;		/* one of them has hardly begun */
};

/* Of all cases so far. */
static struct race_tally race_total;
static u64 race_began;

static unsigned int race_ms(void)
{
	return 1000 * max(scale, 50U) / 100;
}

/* What a worker has counted so far. */
static unsigned long race_count(const unsigned long *count)
{
	/* It counts on, without telling: any figure of late will do. */
	return data_race(*count);
}

static struct race_tally race_count_all(const struct race *r)
{
	struct race_tally t = { };
	u32 i;

	for (i = 0; i < RACE_WORKERS && r->spec->roles[i].step; i++) {
		const struct race_worker *w = &r->workers[i];
		unsigned long lookups = race_count(&w->lookups);
		unsigned long writes = race_count(&w->writes);

		t.idle |= lookups + writes + race_count(&w->rounds) < 10;
		t.lookups += lookups;
		t.hits += race_count(&w->hits);
		t.writes += writes;
	}
	return t;
}

/* A part of what was asked for, in lookups and in writes */
static bool race_has_done(const struct race *r, unsigned long due)
{
	const struct race_tally t = race_count_all(r);

	return t.lookups >= due && t.writes >= due / RACE_RATIO;
}

/* Has everything happened that must, often enough to mean something? */
static bool race_enough(const struct race *r)
{
	const struct race_tally t = race_count_all(r);
	const struct chm_stats *s = &r->stats;
	u32 must = r->spec->must;

	return !t.idle && (!t.lookups || t.hits > 200) &&
	       race_has_done(r, r->due / 100) &&
	       (!(must & RACE_GROWS) || s->grows > 1) &&
	       (!(must & RACE_SHRINKS) || s->shrinks) &&
	       (!(must & RACE_MIGRATES) ||
		s->grows + s->shrinks + s->rehashes > 5) &&
	       (!(must & RACE_DISPLACES) || READ_ONCE(r->displaced));
}

/*
 * When to end, in jiffies from the beginning.  Patience is for what is due; besides,
 * on a busy host it may take longer until there is something to judge.
 */
static unsigned long race_end(const struct race *r)
{
	unsigned long end = msecs_to_jiffies(race_ms());

	if (!race_has_done(r, r->due))
		end += r->due / (NSEC_PER_SEC / r->patience / HZ);
	return race_enough(r) ? end : end + 10 * HZ;
}

static void race_wait(struct race *r)
{
	unsigned long start = jiffies;

	while (!atomic_read(&r->wrong) &&
	       time_before(jiffies, start + race_end(r))) {
		msleep(20);
		chm_stats(&r->map, &r->stats);
		race_note_displaced(r, r->stats.displaced);
	}
}

static bool race_init_map(struct kunit *test, struct race *r)
{
	const struct chm_params p = {
		.key_size = sizeof(u64),
		.value_size = r->spec->words * sizeof(u64),
		.class = r->spec->words == 1 ? CHM_WORD : CHM_FROZEN,
		.reclaim = r->spec->reclaim,
		.hash = r->spec->homes ? race_hash : NULL,
	};

	return !chm_init(&r->map, test_params(test, &p), NULL, NULL);
}

static bool race_init_workers(struct kunit *test, struct race *r)
{
	u32 i;

	for (i = 0; i < RACE_WORKERS; i++) {
		struct race_worker *w = &r->workers[i];

		w->r = r;
		w->role = &r->spec->roles[i];
		w->rng = ((u64)seed + i + 1) * 0x9e3779b97f4a7c15ULL | 1;
		w->value = kunit_kcalloc(test, r->spec->words, sizeof(u64),
					 GFP_KERNEL);
		w->count = kunit_kzalloc(test, r->spec->keys, GFP_KERNEL);
		w->seen = kunit_kcalloc(test, r->spec->keys, sizeof(u64),
					GFP_KERNEL);
		if (!w->value || !w->count || !w->seen)
			return false;
	}
	return true;
}

/* A map with the steady keys in it. */
static struct race *race_new(struct kunit *test, const struct race_spec *spec)
{
	struct race *r = kunit_kzalloc(test, sizeof(*r), GFP_KERNEL);
	u32 i;

	KUNIT_ASSERT_NOT_NULL(test, r);
	r->spec = spec;
	r->keys = kunit_kcalloc(test, spec->keys, sizeof(*r->keys), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, r->keys);
	KUNIT_ASSERT_TRUE(test, race_init_workers(test, r));
	KUNIT_ASSERT_TRUE(test, race_init_map(test, r));
	for (i = 0; i < spec->keys; i++) {
		r->keys[i].key = race_make_key(spec, i);
		r->keys[i].steady = i < spec->steady;
		mutex_init(&r->keys[i].lock);
	}
	for (i = 0; i < spec->steady; i++)
		race_write(&r->workers[0], &r->keys[i], RACE_INSERT);
	r->workers[0].writes = 0;
	return r;
}

static void race_describe(struct kunit *test, struct race *r)
{
	static const char * const contexts[] = {
		[RACE_THREAD] = "a thread",
		[RACE_SOFTIRQ] = "a softirq",
		[RACE_HARDIRQ] = "a hardirq",
	};

	/* Pairs with race_wrong(). */
	if (smp_load_acquire(&r->described))
		KUNIT_FAIL(test, "%s: key %#llx (number %u), %lld, not %lld; in %s",
			   r->what, r->key, race_index(r->key), r->got, r->want,
			   contexts[r->context]);
}

static void race_expect_work(struct kunit *test, struct race *r)
{
	const struct race_tally t = race_count_all(r);

	kunit_info(test, "%lu lookups, %lu hits, %lu writes, %lu + %lu + %lu migrations, %lu displaced, %lu waits\n",
		   t.lookups, t.hits, t.writes, r->stats.grows,
		   r->stats.shrinks, r->stats.rehashes, r->displaced,
		   r->stats.gp_waits);
	if (!race_has_done(r, r->due))
		kunit_info(test, "fewer than the %lu lookups and %lu writes that were due\n",
			   r->due, r->due / RACE_RATIO);
	KUNIT_EXPECT_TRUE_MSG(test, race_enough(r), "too little happened");
	race_total.lookups += t.lookups;
	race_total.writes += t.writes;
}

/* Each key that should be there is, with its last version, and no other. */
static void race_expect_content(struct kunit *test, struct race *r)
{
	struct race_worker *w = &r->workers[0];
	unsigned long present = 0;
	u32 i;

	for (i = 0; i < r->spec->keys; i++) {
		race_look(w, &r->keys[i]);
		present += r->keys[i].present;
	}
	KUNIT_EXPECT_EQ(test, chm_count(&r->map), present);
	KUNIT_EXPECT_EQ(test, chm_verify(&r->map), 0);
}

static void race_free(struct race *r)
{
	u32 i;

	chm_destroy(&r->map);
	for (i = 0; i < r->spec->keys; i++)
		mutex_destroy(&r->keys[i].lock);
}

static void race_run_for(struct kunit *test, const struct race_spec *spec,
			 unsigned long due, unsigned int patience)
{
	struct race *r = race_new(test, spec);
	bool started;

	r->due = due;
	r->patience = patience;
	started = race_start(r);
	if (started)
		race_wait(r);
	race_stop(r);
	KUNIT_EXPECT_TRUE(test, started);
	chm_stats(&r->map, &r->stats);
	if (started && !atomic_read(&r->wrong)) {
		race_expect_work(test, r);
		race_expect_content(test, r);
	}
	race_describe(test, r);
	race_free(r);
}

static void race_run(struct kunit *test, const struct race_spec *spec)
{
	race_run_for(test, spec, volume * (1000000UL / 100) * spec->share, 100);
}

/* === Races: cases ======================================================== */

/* G2, G3, G4: in one chunk, so that each replacement is one store. */
static void chm_replace_races_in_one_chunk(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 3, .steady = 3, .homes = 1, .words = 48,
		.roles = {
			{ race_step_replace, 0 },
			{ race_step_look, 1 },
			{ race_step_look, 0 },
		},
	};

	race_run(test, &spec);
}

/* G2, G4: the same with little to copy and nothing but lookups. */
static void chm_replace_races_small_values(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 2, .steady = 2, .homes = 1, .words = 2,
		.roles = {
			{ race_step_replace_in_few_chunks, 0 },
			{ race_step_look_fast, 1 },
		},
	};

	race_run(test, &spec);
}

/* G2, G3, G4: old and new pair lie in different chunks. */
static void chm_replace_races_displaced(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 10, .steady = 10, .homes = 1, .words = 32,
		.must = RACE_DISPLACES,
		.roles = {
			{ race_step_replace_in_few_chunks, 0 },
			{ race_step_look, 1 },
			{ race_step_look, 0 },
		},
	};

	race_run(test, &spec);
}

/*
 * G2, G4: interrupts stop the writer between any two of its holds of the lock and look
 * at what it has left there.
 */
static void chm_replace_races_hardirq(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 9, .steady = 9, .homes = 1, .words = 4,
		.one_tag = true, .must = RACE_DISPLACES,
		.roles = {
			{ race_step_replace_in_few_chunks, 0 },
			{ race_step_look_and_freeze, 0, RACE_HARDIRQ },
			{ race_step_look, 1 },
		},
	};

	race_run(test, &spec);
}

static void chm_replace_races_softirq(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 9, .steady = 9, .homes = 2, .words = 8,
		.must = RACE_DISPLACES,
		.roles = {
			{ race_step_replace_in_few_chunks, 0 },
			{ race_step_look_and_freeze, 0, RACE_SOFTIRQ },
			{ race_step_look, 1, RACE_SOFTIRQ },
		},
	};

	race_run(test, &spec);
}

/* Grace periods in quick succession: slots are reused as soon as allowed. */
static void chm_replace_races_reuse(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 4, .steady = 4, .homes = 1, .words = 64,
		.roles = {
			{ race_step_replace, 0 },
			{ race_step_freeze, 0, RACE_HARDIRQ },
			{ race_step_expedite, 1 },
			{ race_step_look, 1 },
		},
	};

	race_run(test, &spec);
}

/* G3: a slot that one key left is taken by another. */
static void chm_remove_races_reuse_in_one_chunk(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 5, .steady = 2, .homes = 1, .words = 48,
		.one_tag = true,
		.roles = {
			{ race_step_reuse, 0 },
			{ race_step_look, 1 },
			{ race_step_look, 0 },
			{ race_step_expedite, 1 },
		},
	};

	race_run(test, &spec);
}

/* G2: filters rise and fall while displaced pairs are looked up. */
static void chm_remove_races_displaced(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 24, .steady = 10, .homes = 2, .words = 16,
		.must = RACE_DISPLACES,
		.roles = {
			{ race_step_reuse, 0 },
			{ race_step_look, 1 },
			{ race_step_look, 0 },
			{ race_step_look_and_freeze, 0, RACE_HARDIRQ },
		},
	};

	race_run(test, &spec);
}

/*
 * G2: the pairs that come and go share their bit with those that stay, which
 * are never missed, in interrupts either.
 */
static void chm_remove_races_shared_overflow(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 30, .steady = 11, .homes = 1, .words = 4,
		.one_tag = true, .must = RACE_DISPLACES,
		.roles = {
			{ race_step_reuse, 0 },
			{ race_step_look, 1 },
			{ race_step_look_and_freeze, 0, RACE_HARDIRQ },
			{ race_step_look_fast, 0 },
		},
	};

	race_run(test, &spec);
}

/* G2: all bits, and paths that meet and go around the end. */
static void chm_remove_races_all_overflow_bits(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 70, .steady = 24, .homes = 3, .words = 2, .bits = 8,
		.must = RACE_DISPLACES,
		.roles = {
			{ race_step_reuse, 0 },
			{ race_step_look, 1 },
			{ race_step_look_and_freeze, 0, RACE_HARDIRQ },
			{ race_step_replace_in_few_chunks, 0 },
		},
	};

	race_run(test, &spec);
}

/* G2, G3, G4: growth and shrinking without end. */
static void chm_grow_races_lookup(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 600, .steady = 32, .words = 32,
		.must = RACE_GROWS | RACE_SHRINKS,
		.roles = {
			{ race_step_fill_drain, 0 },
			{ race_step_look, 1 },
			{ race_step_look, 0 },
		},
	};

	race_run(test, &spec);
}

static void chm_grow_races_replace(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 200, .steady = 16, .homes = 5, .words = 16,
		.must = RACE_GROWS | RACE_SHRINKS | RACE_DISPLACES,
		.roles = {
			{ race_step_grow_replace, 0 },
			{ race_step_look, 1 },
			{ race_step_look, 0 },
		},
	};

	race_run(test, &spec);
}

static void chm_grow_races_hardirq(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 100, .steady = 20, .homes = 3, .words = 4,
		.must = RACE_GROWS | RACE_SHRINKS | RACE_DISPLACES,
		.roles = {
			{ race_step_fill_drain, 0 },
			{ race_step_look_and_freeze, 0, RACE_HARDIRQ },
			{ race_step_look, 1 },
		},
	};

	race_run(test, &spec);
}

/* The synchronous mode frees the old table at once: readers must be out. */
static void chm_grow_races_lookup_in_sync_mode(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 24, .steady = 4, .words = 32, .reclaim = CHM_SYNC,
		.must = RACE_GROWS | RACE_SHRINKS,
		.roles = {
			{ race_step_fill_drain, 0 },
			{ race_step_look, 1 },
			{ race_step_look, 0 },
			{ race_step_expedite, 0 },
		},
	};

	race_run(test, &spec);
}

static void chm_resize_races_lookup(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 12, .steady = 12, .homes = 1, .words = 40,
		.must = RACE_GROWS | RACE_SHRINKS | RACE_DISPLACES,
		.roles = {
			{ race_step_resize, 0 },
			{ race_step_look, 1 },
			{ race_step_look, 0 },
			{ race_step_replace, 0 },
		},
	};

	race_run(test, &spec);
}

static void chm_clear_races_lookup(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 40, .homes = 3, .words = 16,
		.must = RACE_GROWS | RACE_DISPLACES,
		.roles = {
			{ race_step_clear_fill, 0 },
			{ race_step_look, 1 },
			{ race_step_look, 0 },
		},
	};

	race_run(test, &spec);
}

/* From no table at all to one, and back. */
static void chm_insert_races_into_empty_map(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 3, .words = 48, .must = RACE_SHRINKS,
		.roles = {
			{ race_step_fill_drain, 0 },
			{ race_step_look, 1 },
			{ race_step_look_many, 1 },
			{ race_step_look, 0 },
		},
	};

	race_run(test, &spec);
}

static void chm_upsert_races_lookup(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 20, .steady = 5, .homes = 1, .words = 32,
		.must = RACE_DISPLACES,
		.roles = {
			{ race_step_upsert, 0 },
			{ race_step_look, 1 },
			{ race_step_look, 0 },
		},
	};

	race_run(test, &spec);
}

/* Two writers and every operation on the same keys. */
static void chm_writers_race_on_shared_keys(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 40, .steady = 12, .homes = 2, .words = 24,
		.must = RACE_DISPLACES | RACE_MIGRATES,
		.roles = {
			{ race_step_mixed, 0 },
			{ race_step_mixed, 1 },
			{ race_step_look, 0 },
			{ race_step_look, 1 },
			{ race_step_resize, 1 },
		},
	};

	race_run(test, &spec);
}

/* G2, O2: keys come in order and go in reverse. */
static void chm_insert_races_hit_then_miss(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 22, .homes = 1, .words = 4, .one_tag = true,
		.must = RACE_DISPLACES,
		.roles = {
			{ race_step_fill_drain, 0 },
			{ race_step_look_in_order, 1 },
			{ race_step_look_in_order, 0 },
			{ race_step_freeze, 0, RACE_HARDIRQ },
		},
	};

	race_run(test, &spec);
}

static void chm_lookup_many_races_writers(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 30, .steady = 10, .homes = 2, .words = 16,
		.must = RACE_DISPLACES,
		.roles = {
			{ race_step_mixed, 0 },
			{ race_step_look_many, 1 },
			{ race_step_look_many, 0 },
			{ race_step_look_many, 0, RACE_HARDIRQ },
		},
	};

	race_run(test, &spec);
}

static void chm_get_races_writers(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 12, .steady = 8, .homes = 1, .words = 64,
		.roles = {
			{ race_step_mixed, 0 },
			{ race_step_get, 1 },
			{ race_step_get, 0 },
			{ race_step_look_preempt_off, 1 },
		},
	};

	race_run(test, &spec);
}

/* CHM_WORD: overwritten in place, and no replacement is lost to a growth. */
static void chm_replace_races_word(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 120, .steady = 16, .words = 1,
		.must = RACE_GROWS | RACE_SHRINKS,
		.roles = {
			{ race_step_grow_replace, 0 },
			{ race_step_replace, 1 },
			{ race_step_look, 1 },
			{ race_step_get, 0 },
		},
	};

	race_run(test, &spec);
}

static void chm_verify_races_writers(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 60, .steady = 10, .homes = 3, .words = 8,
		.must = RACE_DISPLACES,
		.roles = {
			{ race_step_mixed, 0 },
			{ race_step_verify, 1 },
			{ race_step_look, 1 },
		},
	};

	race_run(test, &spec);
}

/* G8 with writers that replace, grow and shrink. */
static void chm_iter_races_writers(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 120, .steady = 40, .homes = 4, .words = 8,
		.must = RACE_GROWS | RACE_SHRINKS | RACE_DISPLACES,
		.roles = {
			{ race_step_grow_replace, 0 },
			{ race_step_walk, 1 },
			{ race_step_walk, 0 },
		},
	};

	race_run(test, &spec);
}

/* G8, every key with one and the same hash. */
static void chm_iter_races_writers_with_one_hash(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 40, .steady = 24, .homes = 1, .words = 4,
		.one_tag = true, .must = RACE_DISPLACES | RACE_MIGRATES,
		.roles = {
			{ race_step_mixed, 0 },
			{ race_step_walk, 1 },
			{ race_step_look, 1 },
		},
	};

	race_run(test, &spec);
}

/* Each key once in one table, also from an interrupt inside a replacement. */
static void chm_foreach_races_replace(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 20, .steady = 10, .homes = 1, .words = 4,
		.one_tag = true, .must = RACE_DISPLACES,
		.roles = {
			{ race_step_replace_in_few_chunks, 0 },
			{ race_step_each, 1 },
			{ race_step_each, 0, RACE_HARDIRQ },
			{ race_step_reuse, 0 },
		},
	};

	race_run(test, &spec);
}

/* === Races: in bulk ====================================================== */

/*
 * What happens once in many millions of lookups: the other CPU does little but
 * look, and the writer little but write.
 */

/* G2, G3, G4: in one chunk, so that each replacement is one store. */
static void chm_replace_races_in_bulk(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 3, .steady = 3, .homes = 1, .words = 4, .share = 10,
		.roles = {
			{ race_step_replace, 0 },
			{ race_step_glance, 1 },
		},
	};

	race_run(test, &spec);
}

/* G2, G4: from chunk to chunk. */
static void chm_replace_races_displaced_in_bulk(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 10, .steady = 10, .homes = 1, .words = 2, .share = 10,
		.must = RACE_DISPLACES,
		.roles = {
			{ race_step_replace_in_few_chunks, 0 },
			{ race_step_glance, 1 },
		},
	};

	race_run(test, &spec);
}

/* CHM_WORD: overwritten in place. */
static void chm_replace_races_word_in_bulk(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 120, .steady = 16, .words = 1, .share = 10,
		.must = RACE_GROWS | RACE_SHRINKS,
		.roles = {
			{ race_step_grow_replace, 0 },
			{ race_step_glance, 1 },
		},
	};

	race_run(test, &spec);
}

/* G2, G3: slots are taken by others, and bits rise and fall. */
static void chm_remove_races_in_bulk(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 24, .steady = 10, .homes = 2, .words = 4, .share = 1,
		.must = RACE_DISPLACES,
		.roles = {
			{ race_step_reuse, 0 },
			{ race_step_glance, 1 },
		},
	};

	race_run(test, &spec);
}

static void chm_remove_races_shared_overflow_in_bulk(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 70, .steady = 24, .homes = 3, .words = 2, .bits = 8,
		.must = RACE_DISPLACES, .share = 10,
		.roles = {
			{ race_step_reuse, 0 },
			{ race_step_replace_in_few_chunks, 0 },
			{ race_step_glance, 1 },
		},
	};

	race_run(test, &spec);
}

/* G2, G3, G4: growth and shrinking without end. */
static void chm_grow_races_in_bulk(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 600, .steady = 32, .words = 4, .share = 10,
		.must = RACE_GROWS | RACE_SHRINKS,
		.roles = {
			{ race_step_fill_drain, 0 },
			{ race_step_glance, 1 },
		},
	};

	race_run(test, &spec);
}

static void chm_grow_races_replace_in_bulk(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 200, .steady = 16, .homes = 5, .words = 2, .share = 10,
		.must = RACE_GROWS | RACE_SHRINKS | RACE_DISPLACES,
		.roles = {
			{ race_step_grow_replace, 0 },
			{ race_step_glance, 1 },
		},
	};

	race_run(test, &spec);
}

/* Two writers and every operation on the same keys. */
static void chm_writers_race_in_bulk(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 40, .steady = 12, .homes = 2, .words = 4, .share = 10,
		.must = RACE_DISPLACES | RACE_MIGRATES,
		.roles = {
			{ race_step_mixed, 0 },
			{ race_step_mixed, 1 },
			{ race_step_glance, 0 },
			{ race_step_glance, 1 },
		},
	};

	race_run(test, &spec);
}

static void chm_lookup_many_races_in_bulk(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 30, .steady = 10, .homes = 2, .words = 4, .share = 10,
		.must = RACE_DISPLACES,
		.roles = {
			{ race_step_mixed, 0 },
			{ race_step_glance_many, 1 },
		},
	};

	race_run(test, &spec);
}

/* What is left of the volume that was asked for, and what all races have done. */
static void chm_races_add_up(struct kunit *test)
{
	static const struct race_spec spec = {
		.keys = 1000, .steady = 500, .words = 1,
		.roles = {
			{ race_step_grow_replace, 0 },
			{ race_step_glance, 1 },
		},
	};
	unsigned long asked = volume * 1000000UL;
	unsigned long due = asked - min(asked, race_total.lookups);
	u64 seconds;

	due = max(due, asked - min(asked, race_total.writes * RACE_RATIO));
	race_run_for(test, &spec, due, 1000);
	seconds = div64_u64(race_now() - race_began, NSEC_PER_SEC);
	kunit_info(test, "measured: %lu million lookups, %lu million writes in %llu s\n",
		   race_total.lookups / 1000000, race_total.writes / 1000000,
		   seconds);
	KUNIT_EXPECT_GE(test, race_total.lookups, asked);
	KUNIT_EXPECT_GE(test, race_total.writes, asked / RACE_RATIO);
}

/* === Races: duels ======================================================== */

/* Two writers insert and remove the same keys: one of them wins each time. */
#define RACE_DUEL_KEYS	8U

struct race_duel {
	struct chm		map;
	atomic_t		present[RACE_DUEL_KEYS]; /* inserted - removed */
	atomic_t		wrong;
	struct race_duelist {
		struct race_duel	*d;
		struct task_struct	*task;
		unsigned long		lost;
		u32			rng;
	} duelists[2];
};

static int race_duel_thread(void *arg)
{
	struct race_duelist *me = arg;
	struct race_duel *d = me->d;

	while (!kthread_should_stop()) {
		u64 key, value = me->rng;
		bool insert;
		u32 i;
		int ret;

		me->rng = me->rng * 1664525 + 1013904223;
		insert = me->rng >> 31;
		i = (me->rng >> 16) % RACE_DUEL_KEYS;
		key = (u64)(i + 1) << RACE_TAG_BITS;
		if (insert)
			ret = chm_insert(&d->map, &key, &value, GFP_KERNEL);
		else
			ret = chm_remove(&d->map, &key);
		if (!ret)
			atomic_add(insert ? 1 : -1, &d->present[i]);
		else if (ret != (insert ? -EEXIST : -ENOENT))
			atomic_set(&d->wrong, ret);
		else
			WRITE_ONCE(me->lost, me->lost + 1);
		race_give_way();
	}
	return 0;
}

static bool race_duel_start(struct race_duel *d, unsigned int i)
{
	struct race_duelist *me = &d->duelists[i];
	struct task_struct *task;

	me->d = d;
	me->rng = (u32)seed + i;
	task = kthread_create(race_duel_thread, me, "chm_duel/%u", i);
	if (IS_ERR(task))
		return false;
	kthread_bind(task, race_cpu(i));
	me->task = task;
	wake_up_process(task);
	return true;
}

static void race_duel_fight(struct kunit *test, struct race_duel *d)
{
	u32 i;

	for (i = 0; i < 2; i++)
		KUNIT_EXPECT_TRUE(test, race_duel_start(d, i));
	for (i = 0; i < 20; i++) {
		msleep(race_ms() / 2);
		if (READ_ONCE(d->duelists[0].lost) > 50 &&
		    READ_ONCE(d->duelists[1].lost) > 50)
			break;
	}
	for (i = 0; i < 2; i++) {
		if (d->duelists[i].task)
			kthread_stop(d->duelists[i].task);
		KUNIT_EXPECT_GT(test, d->duelists[i].lost, 50);
	}
	KUNIT_EXPECT_EQ(test, atomic_read(&d->wrong), 0);
}

static void chm_insert_races_insert_of_same_key(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64),
		.hash = race_hash,
	};
	struct race_duel *d = kunit_kzalloc(test, sizeof(*d), GFP_KERNEL);
	u32 i;

	KUNIT_ASSERT_NOT_NULL(test, d);
	KUNIT_ASSERT_EQ(test, chm_init(&d->map, &p, NULL, NULL), 0);
	race_duel_fight(test, d);
	for (i = 0; i < RACE_DUEL_KEYS; i++) {
		u64 key = (u64)(i + 1) << RACE_TAG_BITS;
		u64 value;

		KUNIT_EXPECT_EQ_MSG(test, atomic_read(&d->present[i]),
				    chm_get(&d->map, &key, &value), "key %u", i);
	}
	KUNIT_EXPECT_EQ(test, chm_verify(&d->map), 0);
	chm_destroy(&d->map);
}

/* === Races: staged ======================================================= */

/*
 * Windows of a few instructions that need a reader at one place and a writer at
 * another.  @equal holds the reader inside the chunk it is in until the writer
 * comes to the point; then it sends the writer's CPU an interrupt, which stops
 * the writer as soon as it lets go of the lock until the reader has looked twice.
 * The one that would be too early takes a run-up, which is adjusted until
 * the interrupt hits.  Between two stores in one hold of the lock no interrupt
 * comes: that is what chm_lookup_between_stores is for.  Each site is a chunk to
 * begin from and the ones after it.
 */
#define STAGE_SITES	256U
#define STEP_SITES	8U	/* no operation has as many stores */
#define STAGE_HITS	10U	/* without as many, nothing was tried */
#define STAGE_WAIT	(NSEC_PER_MSEC * RACE_SLOW)
#define STAGE_NS	(8 * (s32)RACE_SLOW)

enum stage_progress {
	STAGE_BEFORE,
	STAGE_WITHIN,
	STAGE_AFTER,
};

struct stage {
	struct chm		map;
	struct task_struct	*reader;
	struct task_struct	*writer;
	void			(*act)(struct stage *s, u32 site);
	unsigned long		end;
	call_single_data_t	csd;
	u32			sites;
	u32			stride;		/* chunks of a site */
	u32			fillers;	/* pairs of a site to begin with */
	s32			vacancy;	/* the one that goes again; < 0: none */
	u32			pass;		/* pairs to compare before */
	bool			steady;		/* @key is never absent */
	u32			chunks;
	unsigned long		migrations;	/* when it was filled */
	u64			key;		/* what the reader looks for */
	unsigned int		round;		/* that the writer has begun */
	unsigned int		done;		/* that the reader has ended */
	bool			armed;		/* hold the reader in @equal */
	u32			passed;		/* pairs that it has compared */
	bool			held;		/* it is there */
	bool			go;		/* it may go on */
	bool			removing;	/* misses are all right again */
	bool			over;
	bool			frozen;
	bool			stepwise;	/* no interrupt: stage_stored() */
	bool			watched;	/* the writer's stores are */
	u32			stores;
	u32			pause;		/* after so many of them */
	u64			patience;	/* ns */
	enum stage_progress	progress;	/* of the writer */
	s32			run_up;		/* ns, if < 0 the reader's */
	s32			step;
	bool			too_late;	/* the last time */
	unsigned long		landed[3];	/* interrupts, by progress */
	unsigned long		hits;		/* after having been held */
	atomic_t		backward;	/* newer first, older second */
	atomic_t		lost;		/* hit first, miss second */
	u32			version;
	int			error;
};

/* For @equal, which gets no context.  One test at a time. */
static struct stage *stage;

static void stage_await(const bool *flag)
{
	u64 start = race_now();

	while (!READ_ONCE(*flag) && race_now() - start < stage->patience)
		barrier();
}

static void stage_await_done(struct stage *s)
{
	u64 start = race_now();

	/* Pairs with stage_reader(). */
	while (smp_load_acquire(&s->done) != s->round &&
	       race_now() - start < stage->patience)
		barrier();
}

/* In an interrupt, on the writer's CPU. */
static void stage_freeze(void *arg)
{
	struct stage *s = arg;

	s->landed[s->progress]++;
	WRITE_ONCE(s->frozen, true);
	if (s->progress == STAGE_WITHIN)
		stage_await_done(s);
}

static void stage_run_up(s64 ns)
{
	u64 start = race_now();

	while ((s64)(race_now() - start) < ns)
		barrier();
}

static bool stage_equal(const void *a, const void *b)
{
	struct stage *s = stage;

	if (current == READ_ONCE(s->reader) && READ_ONCE(s->armed) &&
	    s->passed++ == s->pass) {
		WRITE_ONCE(s->armed, false);
		WRITE_ONCE(s->held, true);
		stage_await(&s->go);
		stage_run_up(-s->run_up);
		if (!s->stepwise &&
		    !smp_call_function_single_async(race_cpu(0), &s->csd))
			stage_await(&s->frozen);
	}
	return *(const u64 *)a == *(const u64 *)b;
}

/* Key @i whose home is the first chunk of @site; all have the same tag. */
static u64 stage_key(const struct stage *s, u32 site, u32 i)
{
	return chm_home_begin(s->stride * site, s->chunks) |
	       (i + 1) << RACE_TAG_BITS;
}

/* Close in on the moment at which the pair is published. */
static void stage_aim(struct stage *s, bool too_late)
{
	s32 most = STAGE_WAIT / 4, run_up;

	if (too_late != s->too_late)
		s->step = STAGE_NS;
	else
		s->step = min(2 * s->step, 256 * STAGE_NS);
	s->too_late = too_late;
	run_up = s->run_up + (too_late ? s->step : -s->step);
	/* The writer reads it, in a round whose lookup it gave up waiting for. */
	WRITE_ONCE(s->run_up, clamp(run_up, -most, most));
}

static void stage_read(struct stage *s)
{
	u64 key = s->key;
	const u64 *v;
	u64 first, second;

	rcu_read_lock();
	s->passed = 0;
	WRITE_ONCE(s->armed, true);
	v = chm_lookup(&s->map, &key);
	first = v ? *v : 0;
	WRITE_ONCE(s->armed, false);
	v = chm_lookup(&s->map, &key);
	second = v ? *v : 0;
	rcu_read_unlock();
	stage_aim(s, first);
	if (!first) {
		atomic_add(s->steady, &s->lost);
		return;
	}
	s->hits++;
	/* The lookups, then the flag; pairs with stage_end(). */
	smp_rmb();
	if (!second && !READ_ONCE(s->removing))
		atomic_inc(&s->lost);
	else if (second && second < first)
		atomic_inc(&s->backward);
}

static int stage_reader(void *arg)
{
	struct stage *s = arg;

	while (!kthread_should_stop()) {
		/* Pairs with stage_begin(). */
		unsigned int round = smp_load_acquire(&s->round);

		if (round == s->done) {
			race_give_way();
			continue;
		}
		stage_read(s);
		/* Pairs with stage_await_done(). */
		smp_store_release(&s->done, round);
	}
	return 0;
}

/* The reader looks for @key and is on its way. */
static void stage_begin(struct stage *s, u64 key)
{
	s->key = key;
	s->held = false;
	s->go = false;
	s->frozen = false;
	s->removing = false;
	s->progress = STAGE_BEFORE;
	/* Pairs with stage_reader(). */
	smp_store_release(&s->round, s->round + 1);
	stage_await(&s->held);
}

/* What comes next is what the interrupt shall hit. */
static void stage_go(struct stage *s)
{
	s32 run_up;

	if (s->stepwise) {
		s->watched = true;
		return;
	}
	/* Before the reader goes on: it aims anew when its lookup is over. */
	run_up = READ_ONCE(s->run_up);
	WRITE_ONCE(s->go, true);
	stage_run_up(run_up);
	WRITE_ONCE(s->progress, STAGE_WITHIN);
}

static void stage_end(struct stage *s)
{
	WRITE_ONCE(s->progress, STAGE_AFTER);
	if (s->stepwise) {
		s->watched = false;
		WRITE_ONCE(s->go, true);
	}
	stage_await_done(s);
	/* Has it given up waiting?  It must not take the rest for a fault. */
	WRITE_ONCE(s->removing, true);
	/* Before the removal; pairs with stage_read(). */
	smp_wmb();
	/* Pairs with stage_reader(). */
	while (smp_load_acquire(&s->done) != s->round)
		race_give_way();
}

static void stage_check(struct stage *s, int ret)
{
	if (ret)
		s->error = ret;
}

static void stage_insert(struct stage *s, u64 key)
{
	u64 version = ++s->version;

	stage_check(s, chm_insert(&s->map, &key, &version, GFP_KERNEL));
}

/*
 * O4: the key is inserted at home, and then replaced further on, where the
 * reader will look because another pair went there before.
 */
static void stage_look_back(struct stage *s, u32 site)
{
	u64 key = stage_key(s, site, 8);
	u64 version;

	stage_begin(s, key);
	stage_insert(s, key);
	version = ++s->version;
	stage_go(s);
	stage_check(s, chm_replace(&s->map, &key, &version, GFP_KERNEL));
	stage_end(s);
	stage_check(s, chm_remove(&s->map, &key));
}

/*
 * O4: the same one chunk further on.  Home is full and does not change; the
 * reader is held in the chunk after it.
 */
static void stage_look_back_beyond(struct stage *s, u32 site)
{
	u64 key = stage_key(s, site, 2 * CHM_SLOTS + 1);
	u64 version;

	stage_begin(s, key);
	stage_insert(s, key);
	version = ++s->version;
	stage_go(s);
	stage_check(s, chm_replace(&s->map, &key, &version, GFP_KERNEL));
	stage_end(s);
	stage_check(s, chm_remove(&s->map, &key));
}

/* O2: home is full; what passed it leaves, and the key comes that way. */
static void stage_raise(struct stage *s, u32 site)
{
	u64 key = stage_key(s, site, 7), other = stage_key(s, site, 8);

	stage_insert(s, other);
	stage_begin(s, key);
	stage_check(s, chm_remove(&s->map, &other));
	stage_go(s);
	stage_insert(s, key);
	stage_end(s);
	stage_check(s, chm_remove(&s->map, &key));
}

/* O3: a displaced pair is replaced while the reader is on its way to it. */
static void stage_replace(struct stage *s, u32 site)
{
	u64 key = stage_key(s, site, 2 * CHM_SLOTS - 1);
	u64 version = ++s->version;

	stage_begin(s, key);
	stage_check(s, chm_replace(&s->map, &key, &version, GFP_KERNEL));
	stage_go(s);
	stage_end(s);
}

static unsigned long stage_migrations(struct stage *s)
{
	struct chm_stats stats;

	chm_stats(&s->map, &stats);
	return stats.grows + stats.shrinks + stats.rehashes;
}

/* Into an empty table. */
static int stage_fill(struct stage *s)
{
	u64 key, value = ++s->version;
	u32 site, i;
	int ret = 0;

	for (site = 0; site < s->sites; site++) {
		for (i = 0; i < s->fillers && !ret; i++) {
			key = stage_key(s, site, i);
			ret = chm_insert(&s->map, &key, &value, GFP_KERNEL);
		}
		key = stage_key(s, site, s->vacancy);
		if (s->vacancy >= 0 && !ret)
			ret = chm_remove(&s->map, &key);
	}
	/* Each slot that died can be used again. */
	if (!ret && !(wait_dead(&s->map) && settle(&s->map)))
		ret = -EBUSY;
	s->migrations = stage_migrations(s);
	return ret;
}

/* Everything as it was at first; has it been so up to now? */
static int stage_refill(struct stage *s)
{
	int ret;

	if (stage_migrations(s) != s->migrations)
		return -ESTALE;
	chm_clear(&s->map);
	ret = chm_shrink(&s->map, GFP_KERNEL);
	return ret ?: stage_fill(s);
}

static struct stage *stage_empty(struct kunit *test, u32 stride, u32 fillers,
				 s32 vacancy)
{
	const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64),
		.hash = race_hash, .equal = stage_equal,
		.min_entries = STAGE_SITES * stride * CHM_SLOTS * 80 / 100,
	};
	struct stage *s = kunit_kzalloc(test, sizeof(*s), GFP_KERNEL);
	struct chm_stats stats;
	u64 key = 1, value = 0;

	if (num_online_cpus() < 2)
		kunit_skip(test, "needs two CPUs");
	KUNIT_ASSERT_NOT_NULL(test, s);
	KUNIT_ASSERT_EQ(test, chm_init(&s->map, test_params(test, &p), NULL, NULL), 0);
	stage = s;
	s->patience = STAGE_WAIT;
	INIT_CSD(&s->csd, stage_freeze, s);
	s->step = STAGE_NS;
	KUNIT_EXPECT_EQ(test, chm_insert(&s->map, &key, &value, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, chm_remove(&s->map, &key), 0);
	chm_stats(&s->map, &stats);
	s->chunks = stats.chunks;
	s->stride = stride;
	s->sites = stats.chunks / stride;
	s->fillers = fillers;
	s->vacancy = vacancy;
	return s;
}

static struct stage *stage_new(struct kunit *test, u32 stride, u32 fillers,
			       s32 vacancy)
{
	struct stage *s = stage_empty(test, stride, fillers, vacancy);

	KUNIT_EXPECT_EQ(test, stage_fill(s), 0);
	return s;
}

/*
 * A host that does not run both CPUs at a time lets few interrupts hit, and
 * there is no more to it than to try longer.  chm_lookup_between_stores tries
 * the same step by step.
 */
static bool stage_over(const struct stage *s)
{
	bool enough = (s->steady || s->landed[STAGE_WITHIN] > 20) &&
		      READ_ONCE(s->hits) > STAGE_HITS;

	if (s->error || atomic_read(&s->backward) || atomic_read(&s->lost))
		return true;
	return time_after(jiffies, enough ? s->end : s->end + 5 * HZ);
}

static int stage_writer(void *arg)
{
	struct stage *s = arg;
	u32 site;

	for (site = 0; !stage_over(s); site++) {
		if (site == s->sites) {
			stage_check(s, stage_refill(s));
			site = 0;
		}
		s->act(s, site);
		race_give_way();
	}
	WRITE_ONCE(s->over, true);
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);
	return 0;
}

static void stage_expect(struct kunit *test, struct stage *s)
{
	kunit_info(test, "%u rounds, %lu hits; interrupts %lu before, %lu within, %lu after\n",
		   s->round, s->hits, s->landed[STAGE_BEFORE],
		   s->landed[STAGE_WITHIN], s->landed[STAGE_AFTER]);
	/* -ESTALE: the map tidied up, so that no more was staged. */
	if (s->error != -ESTALE)
		KUNIT_EXPECT_EQ(test, s->error, 0);
	KUNIT_EXPECT_EQ_MSG(test, atomic_read(&s->backward), 0,
			    "G4: a newer value, then an older one");
	KUNIT_EXPECT_EQ_MSG(test, atomic_read(&s->lost), 0,
			    "G2: a hit, then a miss");
	if (s->hits <= STAGE_HITS && test->status == KUNIT_SUCCESS)
		kunit_mark_skipped(test, "the CPUs hardly ran at the same time");
	KUNIT_EXPECT_EQ(test, chm_verify(&s->map), 0);
}

/* Ends what stage_new() began. */
static void stage_run(struct kunit *test, struct stage *s,
		      void (*act)(struct stage *s, u32 site))
{
	s->act = act;
	s->writer = kthread_create(stage_writer, s, "chm_stage/w");
	s->reader = kthread_create(stage_reader, s, "chm_stage/r");
	KUNIT_ASSERT_FALSE(test, IS_ERR(s->writer) || IS_ERR(s->reader));
	kthread_bind(s->writer, race_cpu(0));
	kthread_bind(s->reader, race_cpu(1));
	s->end = jiffies + msecs_to_jiffies(2 * race_ms());
	wake_up_process(s->reader);
	wake_up_process(s->writer);
	while (!READ_ONCE(s->over))
		msleep(20);
	kthread_stop(s->writer);
	kthread_stop(s->reader);
	stage_expect(test, s);
	chm_destroy(&s->map);
}

/* O4, G4: without the look back, the new value comes first, the old second. */
static void chm_lookup_looks_back(struct kunit *test)
{
	stage_run(test, stage_new(test, 2, CHM_SLOTS + 1, 0), stage_look_back);
}

/* O4, G4: that home is as it was says nothing of the other chunks passed. */
static void chm_lookup_looks_back_beyond_home(struct kunit *test)
{
	struct stage *s = stage_new(test, 3, 2 * CHM_SLOTS + 1, CHM_SLOTS);

	s->pass = CHM_SLOTS;
	stage_run(test, s, stage_look_back_beyond);
}

/* O2, G2: published before the bits are raised, a hit is followed by a miss. */
static void chm_insert_raises_before_it_publishes(struct kunit *test)
{
	stage_run(test, stage_new(test, 2, CHM_SLOTS, -1), stage_raise);
}

/* O3, G2: with room in an earlier chunk, but a reader that has passed it. */
static void chm_replace_never_goes_back(struct kunit *test)
{
	struct stage *s = stage_new(test, 3, 2 * CHM_SLOTS, 0);

	s->steady = true;
	stage_run(test, s, stage_replace);
}

/*
 * The same without luck: the writer stops after one of its stores, each in turn.
 * It is the test thread, since a stub is for that alone.
 */
static void stage_stored(const struct chm_table *t)
{
	struct stage *s = stage;

	if (s->watched && s->stores++ == s->pause) {
		WRITE_ONCE(s->go, true);
		stage_await_done(s);
	}
}

static void stage_steps(struct stage *s)
{
	for (; s->pause < STEP_SITES; s->pause++) {
		s->stores = 0;
		/* The first site has a DEAD slot of stage_empty(). */
		s->act(s, s->pause + 1);
		if (s->error || s->stores <= s->pause)
			break;
	}
}

struct step_case {
	const char	*name;
	void		(*act)(struct stage *s, u32 site);
	u32		stride, fillers;
	s32		vacancy;
	u32		pass;
	bool		steady;
	u32		stores;		/* at least */
};

static const struct step_case step_cases[] = {
	{ "replace_beyond_home", stage_look_back, 2, CHM_SLOTS + 1, 0,
	  .stores = 2 },
	{ "replace_further_on", stage_look_back_beyond, 3, 2 * CHM_SLOTS + 1,
	  CHM_SLOTS, CHM_SLOTS, .stores = 2 },
	{ "insert", stage_raise, 2, CHM_SLOTS, -1, .stores = 2 },
	{ "replace_not_back", stage_replace, 3, 2 * CHM_SLOTS, 0, .steady = true },
};

KUNIT_ARRAY_PARAM_DESC(step, step_cases, name);

/* O2, O3, O4: G2, G4 */
static void chm_lookup_between_stores(struct kunit *test)
{
	const struct step_case *c = test->param_value;
	struct stage *s = stage_empty(test, c->stride, c->fillers, c->vacancy);
	unsigned long migrations = stage_migrations(s);

	/* No more than that, or the map would bring pairs home. */
	s->sites = STEP_SITES + 1;
	KUNIT_EXPECT_EQ(test, stage_fill(s), 0);
	s->act = c->act;
	s->pass = c->pass;
	s->steady = c->steady;
	s->stepwise = true;
	s->patience = 10ULL * NSEC_PER_SEC;
	s->reader = kthread_create(stage_reader, s, "chm_stage/r");
	KUNIT_ASSERT_FALSE(test, IS_ERR(s->reader));
	kthread_bind(s->reader, race_cpu(1));
	set_cpus_allowed_ptr(current, cpumask_of(race_cpu(0)));
	wake_up_process(s->reader);
	kunit_activate_static_stub(test, chm_stored, stage_stored);
	stage_steps(s);
	kunit_deactivate_static_stub(test, chm_stored);
	kthread_stop(s->reader);
	set_cpus_allowed_ptr(current, cpu_possible_mask);
	KUNIT_EXPECT_EQ(test, s->error, 0);
	KUNIT_EXPECT_EQ(test, stage_migrations(s), migrations);
	KUNIT_EXPECT_GE(test, s->pause, c->stores);
	KUNIT_EXPECT_LT(test, s->pause, STEP_SITES);
	KUNIT_EXPECT_GT(test, s->hits, 0);
	KUNIT_EXPECT_EQ_MSG(test, atomic_read(&s->backward), 0,
			    "G4: a newer value, then an older one");
	KUNIT_EXPECT_EQ_MSG(test, atomic_read(&s->lost), 0,
			    "G2: a hit, then a miss");
	chm_destroy(&s->map);
}

/* === Grace periods ======================================================= */

/*
 * One reader finds a pair and looks at its bytes for a long time, all in one
 * section, while the test thread does what it can to have them overwritten.
 */
#define GRACE_WORDS	32U
#define GRACE_KEYS	64U
#define GRACE_MS	150U

struct grace_value {
	u64			word[GRACE_WORDS];
};

struct grace {
	struct chm		map;
	u64			key;
	unsigned int		ms;
	struct task_struct	*task;
	struct completion	holding;
	bool			inside;		/* the section */
	bool			found;
	bool			intact;
	u64			looks;
	/* What drop() saw. */
	atomic_t		drops;
	atomic_t		early;		/* of @key's pair, with a reader in */
	atomic_t		twice;
	unsigned long		*dropped;	/* bitmap of versions */
	unsigned long		versions;	/* its size */
};

static void grace_drop(void *ctx, void *key, void *value)
{
	struct grace *g = ctx;
	const struct grace_value *v = value;
	u64 version = v->word[1];

	atomic_inc(&g->drops);
	/* Only the first version of the key is what the reader holds. */
	if (*(u64 *)key == g->key && version == 1 && READ_ONCE(g->inside))
		atomic_inc(&g->early);
	/* Version 1 is that of many pairs. */
	if (version > 1 && version < g->versions &&
	    test_and_set_bit(version, g->dropped))
		atomic_inc(&g->twice);
}

static u64 grace_key(u32 i)
{
	return (u64)(i + 1) << RACE_TAG_BITS;
}

static int grace_put(struct grace *g, u32 i, u64 version)
{
	struct grace_value v;
	u64 key = grace_key(i);
	int ret;

	race_fill(v.word, GRACE_WORDS, key, version);
	ret = chm_upsert(&g->map, &key, &v, GFP_KERNEL);
	return ret < 0 ? ret : 0;
}

static int grace_reader(void *arg)
{
	struct grace *g = arg;
	unsigned long end = jiffies + msecs_to_jiffies(g->ms);
	const struct grace_value *v;

	rcu_read_lock();
	v = chm_lookup(&g->map, &g->key);
	g->found = v;
	g->intact = v;
	WRITE_ONCE(g->inside, true);
	complete(&g->holding);
	while (g->intact && time_before(jiffies, end)) {
		g->intact = race_intact(v->word, GRACE_WORDS, g->key, 1);
		g->looks++;
		race_spin(20);
	}
	WRITE_ONCE(g->inside, false);
	rcu_read_unlock();
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);
	return 0;
}

static bool grace_hold(struct grace *g, u32 i)
{
	struct task_struct *task;

	g->key = grace_key(i);
	init_completion(&g->holding);
	task = kthread_create(grace_reader, g, "chm_grace");
	if (IS_ERR(task))
		return false;
	kthread_bind(task, race_cpu(1));
	g->task = task;
	wake_up_process(task);
	wait_for_completion(&g->holding);
	return true;
}

static void grace_release(struct kunit *test, struct grace *g)
{
	kthread_stop(g->task);
	KUNIT_EXPECT_TRUE(test, g->found);
	KUNIT_EXPECT_TRUE_MSG(test, g->intact,
			      "G3: a held pair changed after %llu looks",
			      g->looks);
	KUNIT_EXPECT_GT(test, g->looks, 10);
}

static struct grace *grace_new(struct kunit *test, enum chm_reclaim reclaim,
			       void (*drop)(void *ctx, void *key, void *value))
{
	const struct chm_params p = {
		.key_size = sizeof(u64),
		.value_size = sizeof(struct grace_value),
		.reclaim = reclaim,
		.drop = drop,
	};
	struct grace *g = kunit_kzalloc(test, sizeof(*g), GFP_KERNEL);
	u32 i;

	KUNIT_ASSERT_NOT_NULL(test, g);
	KUNIT_ASSERT_EQ(test, chm_init(&g->map, test_params(test, &p), g, NULL), 0);
	g->ms = GRACE_MS;
	for (i = 0; i < GRACE_KEYS; i++)
		KUNIT_EXPECT_EQ(test, grace_put(g, i, 1), 0);
	return g;
}

/* Take what was freed, if anything was, and write to it. */
static void grace_scribble(size_t bytes)
{
	void *blocks[8];
	u32 i;

	for (i = 0; i < ARRAY_SIZE(blocks); i++) {
		blocks[i] = kvmalloc(bytes, GFP_KERNEL);
		if (blocks[i])
			memset(blocks[i], 0xa5, bytes);
	}
	for (i = 0; i < ARRAY_SIZE(blocks); i++)
		kvfree(blocks[i]);
}

/*
 * As long as the reader is in: make slots die and be taken, tables come and
 * go, memory be freed and allocated.
 */
static int grace_storm(struct grace *g, size_t bytes)
{
	u64 version = 2;
	u32 i, j;
	int ret = 0;

	for (j = 0; READ_ONCE(g->inside) && !ret; j++) {
		for (i = 0; i < 2 * GRACE_KEYS && !ret; i++)
			ret = grace_put(g, i, version++);
		for (; i-- > GRACE_KEYS && !ret;) {
			u64 key = grace_key(i);

			ret = chm_remove(&g->map, &key);
		}
		grace_scribble(bytes);
		if (!ret && j % 4 == 3)
			ret = chm_shrink(&g->map, GFP_KERNEL);
		race_give_way();
	}
	return ret;
}

static int grace_remove(struct grace *g)
{
	return chm_remove(&g->map, &g->key);
}

static int grace_replace(struct grace *g)
{
	return grace_put(g, race_index(g->key), 2);
}

static int grace_clear(struct grace *g)
{
	chm_clear(&g->map);
	return 0;
}

static int grace_grow(struct grace *g)
{
	return chm_reserve(&g->map, 8 * GRACE_KEYS, GFP_KERNEL);
}

static int grace_shrink(struct grace *g)
{
	u32 i;

	for (i = 8; i < GRACE_KEYS; i++) {
		u64 key = grace_key(i);
		int ret = key == g->key ? 0 : chm_remove(&g->map, &key);

		if (ret)
			return ret;
	}
	return chm_shrink(&g->map, GFP_KERNEL);
}

/* No table at all is left, while its reader is in. */
static int grace_empty(struct grace *g)
{
	chm_clear(&g->map);
	return chm_shrink(&g->map, GFP_KERNEL);
}

static void grace_run(struct kunit *test, int (*act)(struct grace *g))
{
	struct grace *g = grace_new(test, CHM_DEFERRED, NULL);
	struct chm_stats s;

	chm_stats(&g->map, &s);
	if (grace_hold(g, 3)) {
		KUNIT_EXPECT_EQ(test, act(g), 0);
		grace_scribble(s.bytes);
		KUNIT_EXPECT_EQ(test, grace_storm(g, s.bytes), 0);
		grace_release(test, g);
	} else {
		KUNIT_FAIL(test, "no thread");
	}
	KUNIT_EXPECT_EQ(test, chm_verify(&g->map), 0);
	chm_destroy(&g->map);
}

/* G3, O5: the slot of a removed pair is not taken under its reader. */
static void chm_remove_while_held(struct kunit *test)
{
	grace_run(test, grace_remove);
}

static void chm_replace_while_held(struct kunit *test)
{
	grace_run(test, grace_replace);
}

static void chm_clear_while_held(struct kunit *test)
{
	grace_run(test, grace_clear);
}

/* G3, O7: the old table outlives its reader. */
static void chm_grow_while_held(struct kunit *test)
{
	grace_run(test, grace_grow);
}

static void chm_shrink_while_held(struct kunit *test)
{
	grace_run(test, grace_shrink);
}

static void chm_shrink_to_nothing_while_held(struct kunit *test)
{
	grace_run(test, grace_empty);
}

/* chm_destroy() waits for lookups that are still in their sections. */
static void chm_destroy_while_held(struct kunit *test)
{
	struct grace *g = grace_new(test, CHM_DEFERRED, grace_drop);
	struct chm_stats s;

	chm_stats(&g->map, &s);
	if (grace_hold(g, 3)) {
		chm_destroy(&g->map);
		KUNIT_EXPECT_FALSE(test, READ_ONCE(g->inside));
		grace_scribble(s.bytes);
		grace_release(test, g);
	} else {
		chm_destroy(&g->map);
		KUNIT_FAIL(test, "no thread");
	}
	KUNIT_EXPECT_EQ(test, atomic_read(&g->early), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&g->drops), GRACE_KEYS);
}

static bool grace_await_drops(struct grace *g, int n)
{
	unsigned long end = jiffies + 10 * HZ;

	while (time_before(jiffies, end) && atomic_read(&g->drops) < n)
		msleep(20);
	return atomic_read(&g->drops) == n;
}

static void grace_expect_drop(struct kunit *test, int (*act)(struct grace *g),
			      int drops)
{
	struct grace *g = grace_new(test, CHM_DEFERRED, grace_drop);

	if (grace_hold(g, 3)) {
		KUNIT_EXPECT_EQ(test, act(g), 0);
		/* Nothing but the worker is left to do it. */
		KUNIT_EXPECT_TRUE_MSG(test, grace_await_drops(g, drops),
				      "%d drops, not %d",
				      atomic_read(&g->drops), drops);
		KUNIT_EXPECT_FALSE(test, READ_ONCE(g->inside));
		KUNIT_EXPECT_EQ(test, atomic_read(&g->early), 0);
		grace_release(test, g);
	} else {
		KUNIT_FAIL(test, "no thread");
	}
	chm_destroy(&g->map);
}

/* G5: not before the reader is out, and without another writer's help. */
static void chm_remove_drops_after_reader(struct kunit *test)
{
	grace_expect_drop(test, grace_remove, 1);
}

static void chm_replace_drops_after_reader(struct kunit *test)
{
	grace_expect_drop(test, grace_replace, 1);
}

static void chm_clear_drops_after_reader(struct kunit *test)
{
	grace_expect_drop(test, grace_clear, GRACE_KEYS);
}

/* The pair dies, and then its table goes: still one drop, after the reader. */
static int grace_remove_grow(struct grace *g)
{
	int ret = grace_remove(g);

	return ret ?: grace_grow(g);
}

static void chm_grow_drops_removed_after_reader(struct kunit *test)
{
	grace_expect_drop(test, grace_remove_grow, 1);
}

/* G5: what chm_take() handed out is not dropped, its neighbour is. */
static void chm_take_is_not_dropped(struct kunit *test)
{
	struct grace *g = grace_new(test, CHM_DEFERRED, grace_drop);
	struct grace_value v;
	u64 key = grace_key(1);

	g->dropped = kunit_kzalloc(test, 16, GFP_KERNEL);
	g->versions = g->dropped ? 16 : 0;
	KUNIT_EXPECT_EQ(test, grace_put(g, 1, 9), 0);
	KUNIT_EXPECT_EQ(test, chm_take(&g->map, &key, NULL, &v), 0);
	KUNIT_EXPECT_TRUE(test, race_intact(v.word, GRACE_WORDS, key, 9));
	KUNIT_EXPECT_TRUE(test, grace_await_drops(g, 1));
	chm_destroy(&g->map);
	KUNIT_EXPECT_FALSE(test, g->dropped && test_bit(9, g->dropped));
	KUNIT_EXPECT_EQ(test, atomic_read(&g->drops), GRACE_KEYS);
}

/* In the synchronous mode the memory is back when the writer returns. */
static void chm_grow_in_sync_mode_frees(struct kunit *test)
{
	struct grace *g = grace_new(test, CHM_SYNC, grace_drop);
	struct chm_stats s;

	chm_stats(&g->map, &s);
	KUNIT_EXPECT_GT(test, s.grows, 0);
	KUNIT_EXPECT_EQ(test, s.retired_bytes, 0);
	if (grace_hold(g, 3)) {
		KUNIT_EXPECT_EQ(test, grace_grow(g), 0);
		KUNIT_EXPECT_FALSE(test, READ_ONCE(g->inside));
		chm_stats(&g->map, &s);
		KUNIT_EXPECT_EQ(test, s.retired_bytes, 0);
		grace_release(test, g);
	}
	KUNIT_EXPECT_EQ(test, chm_shrink(&g->map, GFP_KERNEL), 0);
	chm_stats(&g->map, &s);
	KUNIT_EXPECT_EQ(test, s.retired_bytes, 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&g->drops), 0);
	chm_destroy(&g->map);
	KUNIT_EXPECT_EQ(test, atomic_read(&g->drops), GRACE_KEYS);
}

/* One step of chm_drop_exactly_once(): anything that moves or ends a pair. */
static int grace_step(struct grace *g, u64 version, u64 *taken)
{
	u32 i = (u32)(version * 2654435761U) % (2 * GRACE_KEYS);
	u64 key = grace_key(i);
	struct grace_value v;
	int ret;

	ret = grace_put(g, i, version);
	if (ret)
		return ret;
	switch (version % 16) {
	case 1:
		return chm_remove(&g->map, &key);
	case 2:
		*taken += 1;
		return chm_take(&g->map, &key, NULL, &v);
	case 5:
		return chm_reserve(&g->map, 100 + version % 900, GFP_KERNEL);
	case 7:
		return chm_shrink(&g->map, GFP_KERNEL);
	case 11:
		if (version % 256 == 11)
			chm_clear(&g->map);
		return 0;
	default:
		return 0;
	}
}

/* Pairs that are in the map have not been dropped. */
static void grace_expect_undropped(struct kunit *test, struct grace *g)
{
	struct chm_pos pos;
	const u64 *key;
	const struct grace_value *v;
	unsigned long bad = 0;

	rcu_read_lock();
	chm_for_each_rcu(&g->map, pos, key, v)
		bad += v->word[0] != *key ||
		       (v->word[1] > 1 && test_bit(v->word[1], g->dropped));
	rcu_read_unlock();
	KUNIT_EXPECT_EQ_MSG(test, bad, 0, "G5: dropped, but still in the map");
}

/* G5: migrated copies are never dropped, all else is, and once. */
static void chm_drop_exactly_once(struct kunit *test)
{
	struct grace *g = grace_new(test, CHM_DEFERRED, grace_drop);
	unsigned long n = max(6000 * scale / 100, 1000U);
	u64 version, taken = 0;
	int ret = 0;

	g->dropped = kunit_kcalloc(test, BITS_TO_LONGS(n), sizeof(long),
				   GFP_KERNEL);
	KUNIT_EXPECT_NOT_NULL(test, g->dropped);
	g->versions = n;
	for (version = 2; g->dropped && version < n && !ret; version++) {
		ret = grace_step(g, version, &taken);
		if (version % 256 == 0)
			grace_expect_undropped(test, g);
	}
	KUNIT_EXPECT_EQ(test, ret, 0);
	KUNIT_EXPECT_EQ(test, chm_verify(&g->map), 0);
	chm_destroy(&g->map);
	KUNIT_EXPECT_EQ(test, atomic_read(&g->drops),
			GRACE_KEYS + version - 2 - taken);
	KUNIT_EXPECT_EQ(test, atomic_read(&g->twice), 0);
}

/* G10: retired tables stay within the budget, whatever the readers do. */
static void chm_retired_within_budget(struct kunit *test)
{
	struct grace *g = grace_new(test, CHM_DEFERRED, NULL);
	unsigned long worst = 0, resizes = 0;
	struct chm_stats s;
	int ret = 0;

	g->ms = 4 * GRACE_MS;
	if (grace_hold(g, 3)) {
		while (READ_ONCE(g->inside) && !ret) {
			ret = chm_reserve(&g->map, 1000 + resizes % 700,
					  GFP_KERNEL);
			ret = ret ?: chm_shrink(&g->map, GFP_KERNEL);
			chm_stats(&g->map, &s);
			worst = max(worst, s.retired_bytes);
			resizes++;
			KUNIT_EXPECT_LE(test, s.retired_bytes,
					max(s.bytes, 1UL << 20));
		}
		grace_release(test, g);
	}
	KUNIT_EXPECT_EQ(test, ret, 0);
	kunit_info(test, "%lu resizes, at most %lu bytes retired\n", resizes,
		   worst);
	KUNIT_EXPECT_GT(test, worst, 100000);
	chm_destroy(&g->map);
}

struct churn {
	struct chm		map;
	unsigned long		live;
	u64			next;
	unsigned long		most;		/* bytes, retired ones included */
	u64			ns[4];		/* of each quarter */
};

/* Insert one, remove the oldest, @n times. */
static int churn_quarter(struct churn *c, unsigned long n, u64 *ns)
{
	u64 start = ktime_get_ns();
	struct chm_stats s;
	unsigned long i;
	int ret = 0;

	for (i = 0; i < n && !ret; i++) {
		u64 old = c->next - c->live;

		ret = chm_insert(&c->map, &c->next, &c->next, GFP_KERNEL);
		if (!ret)
			ret = chm_remove(&c->map, &old);
		c->next++;
		if (i % 512)
			continue;
		chm_stats(&c->map, &s);
		c->most = max(c->most, s.bytes + s.retired_bytes);
		race_give_way();
	}
	*ns = ktime_get_ns() - start;
	return ret;
}

static void churn_expect(struct kunit *test, struct churn *c, unsigned long n)
{
	struct chm_stats s;
	u64 rates[4];
	u32 i;

	for (i = 0; i < 4; i++)
		rates[i] = div64_u64(n * NSEC_PER_SEC, c->ns[i] + 1);
	chm_stats(&c->map, &s);
	kunit_info(test, "%llu, %llu, %llu, %llu inserts and removals per second; at most %lu bytes; %lu migrations, %lu waits\n",
		   rates[0], rates[1], rates[2], rates[3], c->most,
		   s.grows + s.shrinks + s.rehashes, s.gp_waits);
	/* An active table and retired ones, each of 1 MiB at most. */
	KUNIT_EXPECT_LE(test, c->most, 3UL << 20);
	/* Of 4n exchanges, far fewer wait for a grace period than one in 100. */
	KUNIT_EXPECT_LE(test, s.gp_waits, n / 25);
	KUNIT_EXPECT_EQ(test, s.entries, c->live);
}

/* A map that calms down gives the memory back. */
static void churn_calm(struct kunit *test, struct churn *c)
{
	unsigned long need = c->live * 2 * sizeof(u64);

	KUNIT_EXPECT_EQ(test, chm_shrink(&c->map, GFP_KERNEL), 0);
	KUNIT_EXPECT_TRUE(test, settle(&c->map));
	KUNIT_EXPECT_LE(test, stats_of(&c->map).bytes, 2 * need + 1024);
	KUNIT_EXPECT_EQ(test, chm_verify(&c->map), 0);
}

static void churn_run(struct kunit *test, unsigned long live)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64),
	};
	struct churn *c = kunit_kzalloc(test, sizeof(*c), GFP_KERNEL);
	unsigned long n = max(50000 * scale / 100, 1000U);
	int ret = 0;
	u32 i;

	KUNIT_ASSERT_NOT_NULL(test, c);
	KUNIT_ASSERT_EQ(test, chm_init(&c->map, &p, NULL, NULL), 0);
	c->live = live;
	for (; c->next < live && !ret; c->next++)
		ret = chm_insert(&c->map, &c->next, &c->next, GFP_KERNEL);
	for (i = 0; i < 4 && !ret; i++)
		ret = churn_quarter(c, n, &c->ns[i]);
	KUNIT_EXPECT_EQ(test, ret, 0);
	churn_expect(test, c, n);
	churn_calm(test, c);
	chm_destroy(&c->map);
}

/* G10: constant size means bounded memory, and no wait at every operation. */
static void chm_churn_at_64_entries(struct kunit *test)
{
	churn_run(test, 64);
}

static void chm_churn_at_1000_entries(struct kunit *test)
{
	churn_run(test, 1000);
}

/* === Walks =============================================================== */

/*
 * G8, step by step: the first half of the keys is present throughout and must
 * come exactly once, whatever is done between two steps; the others come and
 * go, and must come at most once.
 */
#define WALK_KEYS	256U
#define WALK_STEADY	(WALK_KEYS / 2)

struct walk {
	struct chm		map;
	struct kunit		*test;
	u32			rng;
	bool			present[WALK_KEYS];
	u8			count[WALK_KEYS];
	u32			changes;
	int			error;
};

static u64 walk_hash_constant(const void *key, u64 hash_seed)
{
	return unmix(0x123456789abcdef0ULL, hash_seed);
}

/* Five homes, and the same hash for many keys. */
static u64 walk_hash_five(const void *key, u64 hash_seed)
{
	return unmix((*(const u64 *)key % 5) * 0x3456789a00000000ULL, hash_seed);
}

static u32 walk_random(struct walk *w, u32 below)
{
	w->rng = w->rng * 1664525 + 1013904223;
	return ((u64)w->rng * below) >> 32;
}

static struct walk *walk_new(struct kunit *test,
			     u64 (*hash)(const void *key, u64 hash_seed))
{
	const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64),
		.hash = hash,
	};
	struct walk *w = kunit_kzalloc(test, sizeof(*w), GFP_KERNEL);
	u64 key;

	KUNIT_ASSERT_NOT_NULL(test, w);
	KUNIT_ASSERT_EQ(test, chm_init(&w->map, test_params(test, &p), NULL, NULL), 0);
	w->test = test;
	w->rng = (u32)seed;
	for (key = 0; key < WALK_STEADY; key++) {
		u64 value = ~key;

		KUNIT_EXPECT_EQ(test, chm_insert(&w->map, &key, &value,
						 GFP_KERNEL), 0);
	}
	return w;
}

static void walk_free(struct walk *w)
{
	KUNIT_EXPECT_EQ(w->test, w->error, 0);
	KUNIT_EXPECT_EQ(w->test, chm_verify(&w->map), 0);
	chm_destroy(&w->map);
}

static void walk_check(struct walk *w, int ret, int expected)
{
	if (ret != expected)
		w->error = ret ?: 1;
	w->changes++;
}

/* A key that may come and go does so. */
static void walk_toggle(struct walk *w, u64 key)
{
	u64 value = ~key;

	if (w->present[key])
		walk_check(w, chm_remove(&w->map, &key), 0);
	else
		walk_check(w, chm_insert(&w->map, &key, &value, GFP_ATOMIC), 0);
	w->present[key] = !w->present[key];
}

static void walk_toggle_all(struct walk *w, bool present)
{
	u64 key;

	for (key = WALK_STEADY; key < WALK_KEYS; key++) {
		if (w->present[key] != present)
			walk_toggle(w, key);
	}
}

static void walk_replace(struct walk *w)
{
	u64 key = walk_random(w, WALK_STEADY);
	u64 value = ~key;

	walk_check(w, chm_replace(&w->map, &key, &value, GFP_KERNEL), 0);
}

/* Anything that can happen between two steps of a walk. */
static void walk_change(struct walk *w)
{
	u32 i;

	switch (walk_random(w, 16)) {
	case 0:
		walk_toggle_all(w, true);
		break;
	case 1:
		walk_toggle_all(w, false);
		walk_check(w, chm_shrink(&w->map, GFP_KERNEL), 0);
		break;
	case 2:
		walk_check(w, chm_reserve(&w->map, WALK_KEYS +
					  walk_random(w, 1000), GFP_KERNEL), 0);
		break;
	case 3:
		walk_check(w, chm_shrink(&w->map, GFP_KERNEL), 0);
		break;
	case 4:
	case 5:
	case 6:
		for (i = 0; i < 20; i++)
			walk_replace(w);
		break;
	default:
		for (i = 0; i < 10; i++)
			walk_toggle(w, WALK_STEADY +
				    walk_random(w, WALK_KEYS - WALK_STEADY));
	}
}

static void walk_visit(struct walk *w, u64 key, u64 value)
{
	KUNIT_EXPECT_LT(w->test, key, WALK_KEYS);
	KUNIT_EXPECT_EQ(w->test, value, ~key);
	if (key < WALK_KEYS)
		w->count[key]++;
}

/* After a walk: each steady key once, each other once if it was @all. */
static void walk_expect(struct walk *w, bool all)
{
	u32 i;

	for (i = 0; i < WALK_KEYS; i++) {
		if (i < WALK_STEADY || (all && w->present[i]))
			KUNIT_EXPECT_EQ_MSG(w->test, w->count[i], 1,
					    "G8: key %u", i);
		else
			KUNIT_EXPECT_LE_MSG(w->test, w->count[i], 1,
					    "G8: key %u", i);
		w->count[i] = 0;
	}
}

/* One walk; @change is called after each step. */
static void walk_run(struct walk *w, void (*change)(struct walk *w))
{
	struct chm_iter it;
	u64 key, value;

	chm_iter_init(&it, &w->map);
	while (chm_iter_next(&it, &key, &value)) {
		walk_visit(w, key, value);
		if (change)
			change(w);
	}
	/* It stays over. */
	KUNIT_EXPECT_FALSE(w->test, chm_iter_next(&it, &key, &value));
}

static void walk_through_changes(struct kunit *test,
				 u64 (*hash)(const void *key, u64 hash_seed))
{
	struct walk *w = walk_new(test, hash);
	u32 rounds = max(40 * scale / 100, 2U);
	struct chm_stats s;
	u32 i;

	for (i = 0; i < rounds; i++) {
		walk_run(w, walk_change);
		walk_expect(w, false);
	}
	chm_stats(&w->map, &s);
	KUNIT_EXPECT_GT(test, s.grows, rounds);
	KUNIT_EXPECT_GT(test, s.shrinks, rounds);
	KUNIT_EXPECT_GT(test, w->changes, 1000);
	walk_free(w);
}

/* G8 */
static void chm_iter_through_changes(struct kunit *test)
{
	walk_through_changes(test, NULL);
}

static void chm_iter_through_changes_with_five_hashes(struct kunit *test)
{
	walk_through_changes(test, walk_hash_five);
}

static void chm_iter_through_changes_with_one_hash(struct kunit *test)
{
	walk_through_changes(test, walk_hash_constant);
}

static int walk_writer(void *arg)
{
	struct walk *w = arg;

	while (!kthread_should_stop()) {
		walk_change(w);
		race_give_way();
	}
	return 0;
}

/* G8 again, with all of that on another CPU, at any time. */
static void walk_beside_writer(struct kunit *test,
			       u64 (*hash)(const void *key, u64 hash_seed))
{
	struct walk *w = walk_new(test, hash);
	unsigned long end = jiffies + msecs_to_jiffies(2 * race_ms());
	struct task_struct *task;
	u32 walks = 0;

	task = kthread_create(walk_writer, w, "chm_walk/w");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	kthread_bind(task, race_cpu(0));
	wake_up_process(task);
	for (; time_before(jiffies, end); walks++) {
		walk_run(w, NULL);
		walk_expect(w, false);
		race_give_way();
	}
	kthread_stop(task);
	kunit_info(test, "%u walks, %u changes\n", walks, w->changes);
	KUNIT_EXPECT_GT(test, w->changes, 100);
	walk_free(w);
}

static void chm_iter_beside_writer(struct kunit *test)
{
	walk_beside_writer(test, NULL);
}

static void chm_iter_beside_writer_with_five_hashes(struct kunit *test)
{
	walk_beside_writer(test, walk_hash_five);
}

/* A table of another size for every single step. */
static void walk_resize(struct walk *w)
{
	walk_check(w, chm_reserve(&w->map, 2 * WALK_KEYS + w->changes % 5000,
				  GFP_KERNEL), 0);
	if (walk_random(w, 2))
		walk_check(w, chm_shrink(&w->map, GFP_KERNEL), 0);
}

static void chm_iter_across_tables(struct kunit *test)
{
	struct walk *w = walk_new(test, NULL);
	struct chm_stats s;

	walk_run(w, walk_resize);
	walk_expect(w, true);
	chm_stats(&w->map, &s);
	KUNIT_EXPECT_GT(test, s.grows, 20);
	KUNIT_EXPECT_GT(test, s.shrinks, 20);
	walk_free(w);
}

/*
 * One step of a walk that takes several sections, with another table in between: the
 * hash function, called by the first, waits until a writer has put that in place.
 */
#define SPLIT_KEYS	1000U	/* of one home: more chunks than a section's */

struct split {
	struct chm		map;
	struct completion	begun;
	struct task_struct	*walker;	/* until its hash has waited */
	bool			done;
	int			error;
	u8			count[SPLIT_KEYS];
};

/* A hash function knows no map. */
static struct split *split_now;

static void split_await_table(struct split *s)
{
	unsigned long end = jiffies + 10 * HZ;
	const void *old = rcu_access_pointer(s->map.tbl);

	s->walker = NULL;
	complete(&s->begun);
	while (rcu_access_pointer(s->map.tbl) == old && time_before(jiffies, end))
		cpu_relax();
	s->done = rcu_access_pointer(s->map.tbl) != old;
}

static u64 split_hash(const void *key, u64 hash_seed)
{
	if (READ_ONCE(split_now->walker) == current)
		split_await_table(split_now);
	return unmix(1ULL << 62 | *(const u64 *)key, hash_seed);
}

static int split_writer(void *arg)
{
	struct split *s = arg;

	wait_for_completion(&s->begun);
	s->error = chm_reserve(&s->map, 20 * SPLIT_KEYS, GFP_KERNEL);
	while (!kthread_should_stop())
		schedule_timeout_idle(1);
	return 0;
}

static void split_walk(struct kunit *test, struct split *s)
{
	struct chm_iter it;
	u64 key, value;
	u32 wrong = 0;

	chm_iter_init(&it, &s->map);
	s->walker = current;
	while (chm_iter_next(&it, &key, &value))
		s->count[key]++;
	s->walker = NULL;
	for (key = 0; key < SPLIT_KEYS; key++)
		wrong += s->count[key] != 1;
	KUNIT_EXPECT_EQ_MSG(test, wrong, 0, "G8");
}

/* G8 */
static void chm_iter_across_tables_in_one_step(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64),
		.hash = split_hash,
	};
	struct split *s = kunit_kzalloc(test, sizeof(*s), GFP_KERNEL);
	struct task_struct *writer;
	u64 key;

	if (num_online_cpus() < 2)
		kunit_skip(test, "one CPU");
	KUNIT_ASSERT_NOT_NULL(test, s);
	init_completion(&s->begun);
	split_now = s;
	KUNIT_ASSERT_EQ(test, chm_init(&s->map, &p, NULL, NULL), 0);
	/* The walk is in order of the hashes: the first pair is the furthest. */
	for (key = SPLIT_KEYS; key--;)
		KUNIT_ASSERT_EQ(test, chm_insert(&s->map, &key, &key,
						 GFP_KERNEL), 0);
	KUNIT_ASSERT_TRUE(test, settle(&s->map));
	writer = kthread_create(split_writer, s, "chm_split/w");
	KUNIT_ASSERT_FALSE(test, IS_ERR(writer));
	kthread_bind(writer, race_cpu(1));
	wake_up_process(writer);
	set_cpus_allowed_ptr(current, cpumask_of(race_cpu(0)));
	split_walk(test, s);
	set_cpus_allowed_ptr(current, cpu_possible_mask);
	kthread_stop(writer);
	KUNIT_EXPECT_EQ(test, s->error, 0);
	KUNIT_EXPECT_TRUE(test, s->done);
	chm_destroy(&s->map);
}

/* A quiet map: everything once, with colliding hashes, too. */
static void chm_iter_visits_all(struct kunit *test)
{
	static u64 (* const hashes[])(const void *key, u64 hash_seed) = {
		NULL, walk_hash_five, walk_hash_constant,
	};
	u32 i;

	for (i = 0; i < ARRAY_SIZE(hashes); i++) {
		struct walk *w = walk_new(test, hashes[i]);

		walk_toggle_all(w, true);
		walk_run(w, NULL);
		walk_expect(w, true);
		walk_free(w);
	}
}

static void walk_sleep(struct walk *w)
{
	if (!walk_random(w, 8))
		synchronize_rcu();
	walk_change(w);
}

/* Memory that a step looked at is long gone at the next. */
static void chm_iter_sleeps_between_steps(struct kunit *test)
{
	struct walk *w = walk_new(test, walk_hash_five);

	walk_run(w, walk_sleep);
	walk_expect(w, false);
	walk_free(w);
}

static void chm_iter_over_empty_map(struct kunit *test)
{
	struct walk *w = walk_new(test, NULL);
	struct chm_iter it;
	u64 key = 1, value;
	u32 i;

	/* With a table and without. */
	for (i = 0; i < 2; i++) {
		chm_clear(&w->map);
		if (i)
			walk_check(w, chm_shrink(&w->map, GFP_KERNEL), 0);
		chm_iter_init(&it, &w->map);
		KUNIT_EXPECT_FALSE(test, chm_iter_next(&it, &key, &value));
	}
	chm_iter_init(&it, &w->map);
	value = ~key;
	walk_check(w, chm_insert(&w->map, &key, &value, GFP_KERNEL), 0);
	KUNIT_EXPECT_TRUE(test, chm_iter_next(&it, &key, &value));
	KUNIT_EXPECT_EQ(test, key, 1);
	KUNIT_EXPECT_FALSE(test, chm_iter_next(&it, &key, &value));
	walk_free(w);
}

/* The map becomes empty under the walk, and is filled again. */
static void chm_iter_over_emptied_map(struct kunit *test)
{
	struct walk *w = walk_new(test, NULL);
	struct chm_iter it;
	u64 key, value, i;

	chm_iter_init(&it, &w->map);
	for (i = 0; i < 10; i++) {
		KUNIT_EXPECT_TRUE(test, chm_iter_next(&it, &key, &value));
		walk_visit(w, key, value);
	}
	chm_clear(&w->map);
	walk_check(w, chm_shrink(&w->map, GFP_KERNEL), 0);
	for (i = 0; i < WALK_STEADY; i++) {
		value = ~i;
		walk_check(w, chm_insert(&w->map, &i, &value, GFP_KERNEL), 0);
	}
	while (chm_iter_next(&it, &key, &value))
		walk_visit(w, key, value);
	for (i = 0; i < WALK_KEYS; i++)
		KUNIT_EXPECT_LE_MSG(test, w->count[i], 1, "key %llu", i);
	walk_free(w);
}

static void chm_iter_without_key_or_value(struct kunit *test)
{
	struct walk *w = walk_new(test, NULL);
	struct chm_iter it;
	u64 key, value, sum = 0;
	u32 n = 0;

	chm_iter_init(&it, &w->map);
	while (chm_iter_next(&it, n % 3 == 1 ? &key : NULL,
			     n % 3 == 2 ? &value : NULL)) {
		if (n % 3 == 1)
			sum += key < WALK_STEADY;
		if (n % 3 == 2)
			sum += ~value < WALK_STEADY;
		n++;
	}
	KUNIT_EXPECT_EQ(test, n, WALK_STEADY);
	KUNIT_EXPECT_EQ(test, sum, (WALK_STEADY + 1) / 3 + WALK_STEADY / 3);
	walk_free(w);
}

/* Two at once, at different places; one is abandoned halfway. */
static void chm_iter_two_walks(struct kunit *test)
{
	struct walk *w = walk_new(test, walk_hash_five);
	struct chm_iter slow, fast;
	u64 key, value;
	u32 n = 0;

	chm_iter_init(&slow, &w->map);
	KUNIT_EXPECT_TRUE(test, chm_iter_next(&slow, &key, &value));
	chm_iter_init(&fast, &w->map);
	while (chm_iter_next(&fast, &key, &value)) {
		walk_visit(w, key, value);
		walk_change(w);
		if (n++ % 4 == 0)
			chm_iter_next(&slow, &key, &value);
	}
	KUNIT_EXPECT_TRUE(test, chm_iter_next(&slow, &key, &value));
	walk_expect(w, false);
	walk_free(w);
}

/* All keys collide until the seed changes. */
static u64 walk_seed;

static u64 walk_hash_seeded(const void *key, u64 hash_seed)
{
	if (!walk_seed)
		walk_seed = hash_seed;
	if (hash_seed == walk_seed)
		return walk_hash_constant(key, hash_seed);
	return *(const u64 *)key * 0x9e3779b97f4a7c15ULL;
}

/* A fresh seed changes the order in the middle of a walk: it goes on in the new one. */
static void chm_iter_survives_reseed(struct kunit *test)
{
	struct walk *w;
	struct chm_stats s;
	struct chm_iter it;
	u64 key, value;
	u32 n = 0;

	walk_seed = 0;
	w = walk_new(test, walk_hash_seeded);
	walk_check(w, chm_reserve(&w->map, 20 * WALK_KEYS, GFP_KERNEL), 0);
	chm_iter_init(&it, &w->map);
	while (chm_iter_next(&it, &key, &value)) {
		walk_visit(w, key, value);
		if (n++ != WALK_STEADY / 2)
			continue;
		chm_stats(&w->map, &s);
		KUNIT_EXPECT_EQ(test, s.reseeds, 0);
		walk_toggle_all(w, true);
		/* The last one is due far from home, though its slot is DEAD. */
		walk_toggle(w, WALK_KEYS - 1);
		walk_toggle(w, WALK_KEYS - 1);
		KUNIT_EXPECT_TRUE(test, settle(&w->map));
		chm_stats(&w->map, &s);
		KUNIT_EXPECT_EQ(test, s.reseeds, 1);
	}
	KUNIT_EXPECT_FALSE(test, chm_iter_stale(&it));
	KUNIT_EXPECT_GE(test, n, WALK_STEADY);
	walk_expect(w, false);
	walk_run(w, NULL);
	walk_expect(w, true);
	walk_free(w);
}

/* A walk in place stays in its table, and that table with it. */
static void chm_foreach_visits_all(struct kunit *test)
{
	struct walk *w = walk_new(test, walk_hash_five);
	struct chm_pos pos;
	const u64 *key, *value;
	u32 n = 0;

	walk_toggle_all(w, true);
	rcu_read_lock();
	chm_for_each_rcu(&w->map, pos, key, value)
		walk_visit(w, *key, *value);
	rcu_read_unlock();
	walk_expect(w, true);
	chm_clear(&w->map);
	walk_check(w, chm_shrink(&w->map, GFP_KERNEL), 0);
	rcu_read_lock();
	chm_for_each_rcu(&w->map, pos, key, value)
		n++;
	rcu_read_unlock();
	KUNIT_EXPECT_EQ(test, n, 0);
	walk_free(w);
}

/* The pair that was just shown moves on along its path, or another comes or goes. */
static void walk_change_in_place(struct walk *w, u64 key)
{
	u64 value = ~key;

	if (walk_random(w, 4) == 0 && key < WALK_STEADY)
		walk_check(w, chm_replace(&w->map, &key, &value, GFP_ATOMIC), 0);
	else if (walk_random(w, 8) == 0)
		walk_toggle(w, WALK_STEADY + walk_random(w, WALK_KEYS - WALK_STEADY));
}

/* As few chunks as hold them, and a hash that has pairs leave home, another each time. */
static void chm_foreach_through_changes(struct kunit *test)
{
	struct walk *w = walk_new(test, NULL);
	u32 round;

	for (round = 0; round < 300 && !w->error; round++) {
		struct chm_pos pos;
		const u64 *key, *value;
		u64 k;

		rcu_read_lock();
		chm_for_each_rcu(&w->map, pos, key, value) {
			walk_visit(w, *key, *value);
			walk_change_in_place(w, *key);
		}
		rcu_read_unlock();
		walk_expect(w, false);
		chm_clear(&w->map);
		memset(w->present, 0, sizeof(w->present));
		for (k = 0; k < WALK_STEADY; k++) {
			u64 v = ~k;

			walk_check(w, chm_insert(&w->map, &k, &v, GFP_KERNEL), 0);
		}
	}
	walk_free(w);
}

/* === Failing allocations ================================================= */

/*
 * G6: an operation is run with its first allocation failing, its second, and
 * so on until it needs no more: that one alone, for which kvmalloc() and chm may
 * have a second way, and then all after it.  A failure must leave the map as it
 * was.  Allocations fail in the thread of the test alone, so most maps are CHM_SYNC
 * ones: then it is that which makes them.
 */
#define FAULT_MOST	300U

struct fault_case {
	int			(*op)(struct chm *map, gfp_t gfp);
	u32			before;		/* keys 0 to @before - 1 */
	u32			after;		/* and when it succeeded */
	bool			fills;		/* it inserts, who knows how many */
	int			success;	/* what it returns then */
	bool			clone;
	bool			may_wait;	/* where there is no memory */
	unsigned long		reserve;
};

static atomic_t fault_live;	/* clones and their originals, not dropped */

static u64 fault_value(u32 i, bool replaced)
{
	return i * 1000003ULL + replaced;
}

static int fault_clone(void *ctx, void *new_key, void *new_value, const void *key,
		       const void *value, gfp_t gfp)
{
	u64 **to = new_value;

	*to = kmemdup(*(u64 **)value, sizeof(u64), gfp | __GFP_NOWARN);
	if (!*to)
		return -ENOMEM;
	atomic_inc(&fault_live);
	return 0;
}

static void fault_drop(void *ctx, void *key, void *value)
{
	atomic_dec(&fault_live);
	kfree(*(u64 **)value);
}

static struct chm *fault_map(struct kunit *test, bool clone, enum chm_reclaim reclaim)
{
	const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64),
		.class = clone ? CHM_CLONE : CHM_FROZEN,
		.reclaim = reclaim,
		.clone = clone ? fault_clone : NULL,
		.drop = clone ? fault_drop : NULL,
	};

	return test_map(test, &p);
}

/* Insert key @i; a CHM_CLONE map gets a pointer to the value. */
static int fault_put(struct chm *map, u32 i, bool replaced, gfp_t gfp)
{
	u64 key = i, value = fault_value(i, replaced);
	u64 *boxed;
	int ret;

	if (map->p->class != CHM_CLONE)
		return chm_upsert(map, &key, &value, gfp);
	boxed = kmemdup(&value, sizeof(value), gfp);
	if (!boxed)
		return -ENOMEM;
	atomic_inc(&fault_live);
	ret = chm_upsert(map, &key, &boxed, gfp);
	if (ret < 0)
		fault_drop(NULL, &key, &boxed);
	return ret;
}

static bool fault_has(struct chm *map, u32 i, bool replaced)
{
	u64 key = i, value = 0;
	const u64 *v;
	bool found;

	rcu_read_lock();
	v = chm_lookup(map, &key);
	found = v;
	if (found)
		value = map->p->class == CHM_CLONE ? **(u64 **)v : *v;
	rcu_read_unlock();
	return found && value == fault_value(i, replaced);
}

static void fault_expect(struct kunit *test, struct chm *map, u32 n,
			 bool replaced)
{
	u32 i;

	KUNIT_EXPECT_EQ(test, chm_count(map), n);
	for (i = 0; i < n; i++)
		KUNIT_EXPECT_TRUE_MSG(test, fault_has(map, i, replaced && !i),
				      "key %u", i);
	KUNIT_EXPECT_EQ(test, chm_verify(map), 0);
}

/* One map, one failure.  Return: whether it was injected. */
static bool fault_once(struct kunit *test, const struct fault_case *c,
		       bool all, unsigned int n, u32 *failures)
{
	struct chm *map = fault_map(test, c->clone, c->may_wait ? CHM_DEFERRED : CHM_SYNC);
	bool injected;
	int ret = 0;
	u32 i;

	atomic_set(&fault_live, 0);
	if (c->reserve)
		ret = chm_reserve(map, c->reserve, GFP_KERNEL);
	for (i = 0; i < c->before && ret >= 0; i++)
		ret = fault_put(map, i, false, GFP_KERNEL);
	KUNIT_EXPECT_GE(test, ret, 0);
	fail_allocations(n, all);
	ret = c->op(map, GFP_KERNEL | __GFP_NOWARN);
	injected = end_failing();
	if (ret < 0) {
		KUNIT_EXPECT_EQ_MSG(test, ret, -ENOMEM, "allocation %u", n);
		KUNIT_EXPECT_TRUE(test, injected);
		fault_expect(test, map, c->fills ? chm_count(map) : c->before, false);
		/* And it works when there is memory. */
		ret = c->op(map, GFP_KERNEL);
		*failures += 1;
	}
	KUNIT_EXPECT_EQ_MSG(test, ret, c->success, "allocation %u", n);
	KUNIT_EXPECT_GE(test, chm_count(map), c->after);
	fault_expect(test, map, c->fills ? chm_count(map) : c->after,
		     c->after == c->before);
	destroy_now(test, map);
	KUNIT_EXPECT_EQ_MSG(test, atomic_read(&fault_live), 0,
			    "G5: allocation %u", n);
	return injected;
}

static void fault_run(struct kunit *test, const struct fault_case *c)
{
	u32 failures[2] = { };
	u32 i;

	require_failures(test);
	for (i = 0; i < 2; i++) {
		unsigned int n = 1;

		while (n < FAULT_MOST && fault_once(test, c, i, n, &failures[i]))
			n++;
		KUNIT_EXPECT_LT(test, n, FAULT_MOST);
		kunit_info(test, "%u of %u failed allocations failed it\n",
			   failures[i], n - 1);
	}
	if (!c->may_wait)
		KUNIT_EXPECT_GT_MSG(test, failures[1], 0, "nothing was shown");
}

static int fault_op_insert(struct chm *map, gfp_t gfp)
{
	u64 key = chm_count(map), value = fault_value(key, false);

	return chm_insert(map, &key, &value, gfp);
}

/* Insert until the table is full, and there is a larger one. */
static int fault_op_grow(struct chm *map, gfp_t gfp)
{
	unsigned long grows = stats_of(map).grows;
	int ret = 0;

	while (ret >= 0 && stats_of(map).grows == grows)
		ret = fault_put(map, chm_count(map), false, gfp);
	return ret;
}

/* Replace key 0 until its slots are used up and it takes another table. */
static int fault_op_replace(struct chm *map, gfp_t gfp)
{
	u64 key = 0, value = fault_value(0, false);
	struct chm_stats before, now;
	int ret;
	u32 i;

	chm_stats(map, &before);
	for (i = 0; i < 1000; i++) {
		ret = chm_replace(map, &key, &value, gfp);
		if (ret)
			return ret;
		chm_stats(map, &now);
		if (now.grows + now.rehashes > before.grows + before.rehashes)
			break;
	}
	value = fault_value(0, true);
	return chm_replace(map, &key, &value, gfp);
}

static int fault_op_reserve(struct chm *map, gfp_t gfp)
{
	u64 key = 0, value = fault_value(0, true);
	int ret = chm_reserve(map, 3000, gfp);

	return ret ?: chm_replace(map, &key, &value, gfp);
}

static int fault_op_shrink(struct chm *map, gfp_t gfp)
{
	u64 key = 0, value = fault_value(0, true);
	int ret = chm_shrink(map, gfp);

	return ret ?: chm_replace(map, &key, &value, gfp);
}

/* chm_verify() takes no flags: only its GFP_KERNEL failures are seen. */
static int fault_op_verify(struct chm *map, gfp_t gfp)
{
	u64 key = 0, value = fault_value(0, true);
	int ret = chm_verify(map);

	return ret ?: chm_replace(map, &key, &value, gfp);
}

/* G6: the very first table. */
static void chm_insert_first_fails(struct kunit *test)
{
	static const struct fault_case c = {
		.op = fault_op_insert, .before = 0, .after = 1,
	};

	fault_run(test, &c);
}

/* The least number of pairs, from @n on, that one more makes the table grow. */
static u32 fault_edge(struct kunit *test, bool clone, u32 n)
{
	struct chm *map = fault_map(test, clone, CHM_SYNC);
	unsigned long chunks = 0;
	struct chm_stats s = { };
	u32 i;

	for (i = 0; i <= n || s.chunks == chunks; i++) {
		chunks = s.chunks;
		if (fault_put(map, i, false, GFP_KERNEL) != 1)
			break;
		chm_stats(map, &s);
	}
	destroy_now(test, map);
	KUNIT_EXPECT_GT(test, i, n);
	return i - 1;
}

/* G6: a small table, and one whose memory is not one page. */
static void chm_insert_growing_fails(struct kunit *test)
{
	static const u32 sizes[] = { 20, 400 };
	u32 i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		u32 n = fault_edge(test, false, sizes[i]);
		const struct fault_case c = {
			.op = fault_op_grow, .before = n, .after = n + 1,
			.success = 1, .fills = true,
		};

		fault_run(test, &c);
	}
}

/* Without memory it may wait for a grace period instead. */
static void chm_replace_rehashing_fails(struct kunit *test)
{
	static const struct fault_case c = {
		.op = fault_op_replace, .before = 10, .after = 10,
		.may_wait = true,
	};

	fault_run(test, &c);
}

static void chm_reserve_fails(struct kunit *test)
{
	static const struct fault_case c = {
		.op = fault_op_reserve, .before = 30, .after = 30,
	};

	fault_run(test, &c);
}

static void chm_shrink_fails(struct kunit *test)
{
	static const struct fault_case c = {
		.op = fault_op_shrink, .before = 30, .after = 30,
		.reserve = 1000,
	};

	fault_run(test, &c);
}

static void chm_verify_fails(struct kunit *test)
{
	static const struct fault_case c = {
		.op = fault_op_verify, .before = 30, .after = 30,
	};

	fault_run(test, &c);
}

/* G6, G5: the table is there, but one of the clones is not. */
static void chm_insert_cloning_fails(struct kunit *test)
{
	u32 n = fault_edge(test, true, 3);
	const struct fault_case c = {
		.op = fault_op_grow, .before = n, .after = n + 1,
		.success = 1, .fills = true, .clone = true,
	};

	fault_run(test, &c);
}

/* A name whose directory could not be made is free again. */
static void chm_init_named_fails(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64),
	};
	struct chm *map = kunit_kzalloc(test, sizeof(*map), GFP_KERNEL);
	bool failed = true;
	unsigned int n;
	int ret = 0;

	require_failures(test);
	KUNIT_ASSERT_NOT_NULL(test, map);
	for (n = 1; failed && n < FAULT_MOST; n++) {
		fail_allocations(n, false);
		ret = chm_init(map, &p, NULL, "fault");
		failed = end_failing();
		if (ret) {
			KUNIT_EXPECT_EQ_MSG(test, ret, -ENOMEM,
					    "allocation %u", n);
			ret = chm_init(map, &p, NULL, "fault");
		}
		KUNIT_EXPECT_EQ_MSG(test, ret, 0, "allocation %u", n);
		if (ret)
			break;
		chm_destroy(map);
	}
	KUNIT_EXPECT_LT(test, n, FAULT_MOST);
}

#define FAULT_PAGES	1200U

struct fault_page {
	u64			word[PAGE_SIZE / sizeof(u64)];
};

/* Without fault injection: a stub refuses memory, as often as it is asked for. */
static struct chm *fault_pages(struct kunit *test, enum chm_reclaim reclaim)
{
	const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(struct fault_page),
		.reclaim = reclaim,
	};

	return test_map(test, &p);
}

static bool fault_has_pages(struct chm *map, u64 from, u64 to,
			    struct fault_page *page)
{
	u64 i;

	for (i = from; i < to; i++) {
		if (!chm_get(map, &i, page) || page->word[0] != i ||
		    page->word[ARRAY_SIZE(page->word) - 1] != i)
			return false;
	}
	return chm_count(map) == to - from;
}

static int fault_put_page(struct chm *map, u64 i, gfp_t gfp,
			  struct fault_page *page)
{
	page->word[0] = i;
	page->word[ARRAY_SIZE(page->word) - 1] = i;
	return chm_insert(map, &i, page, gfp | __GFP_NOWARN);
}

static void *fault_no_memory(u64 bytes, gfp_t gfp)
{
	return ERR_PTR(-ENOMEM);
}

/* G6, again and again; then there is memory after all. */
static void chm_insert_fails_for_long(struct kunit *test)
{
	struct fault_page *page = kunit_kzalloc(test, sizeof(*page), GFP_KERNEL);
	struct chm *map = fault_pages(test, CHM_SYNC);
	struct chm_stats before, now;
	int ret = 0;
	u64 i;
	u32 j;

	KUNIT_EXPECT_NOT_NULL(test, page);
	for (i = 0; page && !ret; i++) {
		if (i == FAULT_PAGES)
			kunit_activate_static_stub(test, chm_alloc,
						   fault_no_memory);
		ret = fault_put_page(map, i, GFP_KERNEL, page);
	}
	KUNIT_EXPECT_EQ(test, ret, -ENOMEM);
	chm_stats(map, &before);
	for (j = 0; page && j < 50; j++)
		KUNIT_EXPECT_EQ(test, fault_put_page(map, i, GFP_KERNEL, page),
				-ENOMEM);
	chm_stats(map, &now);
	KUNIT_EXPECT_EQ(test, now.chunks, before.chunks);
	/* Each time one size is tried, or two. */
	KUNIT_EXPECT_GE(test, now.failed_allocs, before.failed_allocs + 50);
	KUNIT_EXPECT_LE(test, now.failed_allocs, before.failed_allocs + 100);
	KUNIT_EXPECT_TRUE(test, page && fault_has_pages(map, 0, i - 1, page));
	KUNIT_EXPECT_EQ(test, chm_verify(map), 0);
	kunit_deactivate_static_stub(test, chm_alloc);
	KUNIT_EXPECT_EQ(test, page ? fault_put_page(map, i - 1, GFP_KERNEL, page)
			: -1, 0);
	KUNIT_EXPECT_TRUE(test, page && fault_has_pages(map, 0, i, page));
}

/* G7: what was reserved fits, with churn, and with no allocation possible. */
static void chm_insert_reserved_needs_no_memory(struct kunit *test)
{
	struct fault_page *page = kunit_kzalloc(test, sizeof(*page), GFP_KERNEL);
	struct chm *map = fault_pages(test, CHM_DEFERRED);
	u64 from = 0, to = 0;
	int ret;

	ret = chm_reserve(map, FAULT_PAGES, GFP_KERNEL);
	KUNIT_EXPECT_EQ(test, ret, 0);
	KUNIT_EXPECT_NOT_NULL(test, page);
	kunit_activate_static_stub(test, chm_alloc, fault_no_memory);
	for (; page && !ret && to < FAULT_PAGES; to++)
		ret = fault_put_page(map, to, GFP_KERNEL, page);
	KUNIT_EXPECT_EQ_MSG(test, ret, 0, "insert %llu", to);
	for (; page && !ret && from < 2 * FAULT_PAGES; from++, to++) {
		ret = chm_remove(map, &from);
		ret = ret ?: fault_put_page(map, to, GFP_KERNEL, page);
	}
	KUNIT_EXPECT_EQ_MSG(test, ret, 0, "insert %llu", to);
	KUNIT_EXPECT_TRUE(test, page && fault_has_pages(map, from, to, page));
	KUNIT_EXPECT_EQ(test, chm_verify(map), 0);
	kunit_deactivate_static_stub(test, chm_alloc);
}

/*
 * G7, with every allocation of each insertion failing.  A writer that must not sleep
 * can rely on it as long as no more than an eighth died in two grace periods.
 */
#define FAULT_RESERVED	500U

static void reserved_survives(struct kunit *test, gfp_t gfp, u32 pause)
{
	struct chm *map = fault_map(test, false, CHM_DEFERRED);
	int ret;
	u32 i;

	ret = chm_reserve(map, FAULT_RESERVED, GFP_KERNEL);
	for (i = 0; i < 4 * FAULT_RESERVED && ret >= 0; i++) {
		u64 old = i - FAULT_RESERVED;

		if (i >= FAULT_RESERVED)
			ret = chm_remove(map, &old);
		if (pause && i % pause == 0) {
			synchronize_rcu();
			synchronize_rcu();
			KUNIT_EXPECT_TRUE(test, wait_dead(map));
		}
		fail_allocations(1, true);
		if (ret >= 0)
			ret = fault_put(map, i, false, gfp | __GFP_NOWARN);
		end_failing();
	}
	KUNIT_EXPECT_GE_MSG(test, ret, 0, "insert %u", i);
	KUNIT_EXPECT_EQ(test, chm_count(map), FAULT_RESERVED);
	KUNIT_EXPECT_EQ(test, chm_verify(map), 0);
	destroy_now(test, map);
}

static void chm_insert_reserved_survives_failures(struct kunit *test)
{
	require_failures(test);
	reserved_survives(test, GFP_KERNEL, 0);
	reserved_survives(test, GFP_ATOMIC, FAULT_RESERVED / 8);
}

/* More than there is: refused without harm, and without trying to get it. */
static void chm_reserve_more_than_memory(struct kunit *test)
{
	struct chm *map = fault_map(test, false, CHM_DEFERRED);
	struct chm_stats before, now;
	unsigned long n;
	int ret = 0;
	u32 i;

	for (i = 0; i < 30 && ret >= 0; i++)
		ret = fault_put(map, i, false, GFP_KERNEL);
	KUNIT_EXPECT_TRUE(test, settle(map));
	chm_stats(map, &before);
	n = totalram_pages() * (PAGE_SIZE / 16);
	KUNIT_EXPECT_EQ(test, chm_reserve(map, n, GFP_KERNEL | __GFP_NOWARN),
			-ENOMEM);
	KUNIT_EXPECT_EQ(test, chm_reserve(map, ULONG_MAX, GFP_KERNEL), -E2BIG);
	chm_stats(map, &now);
	KUNIT_EXPECT_EQ(test, now.chunks, before.chunks);
	fault_expect(test, map, 30, false);
	/* Nor did the promise stay behind: this would try to keep it. */
	ret = fault_put(map, 30, false, GFP_KERNEL);
	for (i = 31; i < 200 && ret >= 0; i++)
		ret = fault_put(map, i, false, GFP_KERNEL);
	KUNIT_EXPECT_EQ(test, ret, 1);
}

/* clone() says no in the middle of a growth: its work so far is undone. */
static int fault_refuse_at;

static int fault_refuse_clone(void *ctx, void *new_key, void *new_value,
			      const void *key, const void *value, gfp_t gfp)
{
	if (fault_refuse_at-- == 0)
		return -ENOSPC;
	return fault_clone(ctx, new_key, new_value, key, value, gfp);
}

static void chm_reserve_refused_by_clone(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64),
		.class = CHM_CLONE, .clone = fault_refuse_clone,
		.drop = fault_drop,
	};
	struct chm *map = test_map(test, &p);
	int ret = 0, n;
	u32 i;

	atomic_set(&fault_live, 0);
	fault_refuse_at = -1;
	for (i = 0; i < 20 && ret >= 0; i++)
		ret = fault_put(map, i, false, GFP_KERNEL);
	KUNIT_EXPECT_TRUE(test, settle(map));
	for (n = 0; n < 25; n++) {
		fault_refuse_at = n;
		ret = chm_reserve(map, 100 * (n + 1), GFP_KERNEL);
		KUNIT_EXPECT_EQ_MSG(test, ret, n < 20 ? -ENOMEM : 0,
				    "clone %d", n);
		fault_refuse_at = -1;
		fault_expect(test, map, 20, false);
	}
	destroy_now(test, map);
	KUNIT_EXPECT_EQ(test, atomic_read(&fault_live), 0);
}

/* === Suites ============================================================== */

static int race_suite_init(struct kunit_suite *suite)
{
	if (!seed)
		seed = get_random_u32();
	pr_info("scale=%u volume=%u seed=%lu\n", scale, volume, seed);
	if (!race_began)
		race_began = race_now();
	return 0;
}

static struct kunit_case chm_race_cases[] = {
	KUNIT_CASE(chm_replace_races_in_one_chunk),
	KUNIT_CASE(chm_replace_races_small_values),
	KUNIT_CASE(chm_replace_races_displaced),
	KUNIT_CASE(chm_replace_races_hardirq),
	KUNIT_CASE(chm_replace_races_softirq),
	KUNIT_CASE(chm_replace_races_reuse),
	KUNIT_CASE(chm_remove_races_reuse_in_one_chunk),
	KUNIT_CASE(chm_remove_races_displaced),
	KUNIT_CASE(chm_remove_races_shared_overflow),
	KUNIT_CASE(chm_remove_races_all_overflow_bits),
	KUNIT_CASE(chm_grow_races_lookup),
	KUNIT_CASE(chm_grow_races_replace),
	KUNIT_CASE(chm_grow_races_hardirq),
	KUNIT_CASE(chm_grow_races_lookup_in_sync_mode),
	KUNIT_CASE(chm_resize_races_lookup),
	KUNIT_CASE(chm_clear_races_lookup),
	KUNIT_CASE(chm_insert_races_into_empty_map),
	KUNIT_CASE(chm_upsert_races_lookup),
	KUNIT_CASE(chm_writers_race_on_shared_keys),
	KUNIT_CASE(chm_insert_races_hit_then_miss),
	KUNIT_CASE(chm_lookup_many_races_writers),
	KUNIT_CASE(chm_get_races_writers),
	KUNIT_CASE(chm_replace_races_word),
	KUNIT_CASE(chm_verify_races_writers),
	KUNIT_CASE(chm_iter_races_writers),
	KUNIT_CASE(chm_iter_races_writers_with_one_hash),
	KUNIT_CASE(chm_foreach_races_replace),
	KUNIT_CASE(chm_insert_races_insert_of_same_key),
	KUNIT_CASE_PARAM(chm_lookup_between_stores, step_gen_params),
	KUNIT_CASE(chm_lookup_looks_back),
	KUNIT_CASE(chm_lookup_looks_back_beyond_home),
	KUNIT_CASE(chm_insert_raises_before_it_publishes),
	KUNIT_CASE(chm_replace_never_goes_back),
	{ }
};

static struct kunit_suite chm_race_suite = {
	.name = "chm_race",
	.suite_init = race_suite_init,
	.test_cases = chm_race_cases,
};

static struct kunit_case chm_bulk_cases[] = {
	KUNIT_CASE(chm_replace_races_in_bulk),
	KUNIT_CASE(chm_replace_races_displaced_in_bulk),
	KUNIT_CASE(chm_replace_races_word_in_bulk),
	KUNIT_CASE(chm_remove_races_in_bulk),
	KUNIT_CASE(chm_remove_races_shared_overflow_in_bulk),
	KUNIT_CASE(chm_grow_races_in_bulk),
	KUNIT_CASE(chm_grow_races_replace_in_bulk),
	KUNIT_CASE(chm_writers_race_in_bulk),
	KUNIT_CASE(chm_lookup_many_races_in_bulk),
	KUNIT_CASE(chm_races_add_up),
	{ }
};

static struct kunit_suite chm_bulk_suite = {
	.name = "chm_bulk",
	.suite_init = race_suite_init,
	.test_cases = chm_bulk_cases,
};

static struct kunit_case chm_grace_cases[] = {
	KUNIT_CASE(chm_remove_while_held),
	KUNIT_CASE(chm_replace_while_held),
	KUNIT_CASE(chm_clear_while_held),
	KUNIT_CASE(chm_grow_while_held),
	KUNIT_CASE(chm_shrink_while_held),
	KUNIT_CASE(chm_shrink_to_nothing_while_held),
	KUNIT_CASE(chm_destroy_while_held),
	KUNIT_CASE(chm_remove_drops_after_reader),
	KUNIT_CASE(chm_replace_drops_after_reader),
	KUNIT_CASE(chm_clear_drops_after_reader),
	KUNIT_CASE(chm_grow_drops_removed_after_reader),
	KUNIT_CASE(chm_take_is_not_dropped),
	KUNIT_CASE(chm_grow_in_sync_mode_frees),
	KUNIT_CASE(chm_drop_exactly_once),
	KUNIT_CASE(chm_retired_within_budget),
	KUNIT_CASE(chm_churn_at_64_entries),
	KUNIT_CASE(chm_churn_at_1000_entries),
	{ }
};

static struct kunit_suite chm_grace_suite = {
	.name = "chm_grace",
	.suite_init = race_suite_init,
	.test_cases = chm_grace_cases,
};

static struct kunit_case chm_iter_cases[] = {
	KUNIT_CASE(chm_iter_through_changes),
	KUNIT_CASE(chm_iter_through_changes_with_five_hashes),
	KUNIT_CASE(chm_iter_through_changes_with_one_hash),
	KUNIT_CASE(chm_iter_beside_writer),
	KUNIT_CASE(chm_iter_beside_writer_with_five_hashes),
	KUNIT_CASE(chm_iter_across_tables),
	KUNIT_CASE(chm_iter_across_tables_in_one_step),
	KUNIT_CASE(chm_iter_visits_all),
	KUNIT_CASE(chm_iter_sleeps_between_steps),
	KUNIT_CASE(chm_iter_over_empty_map),
	KUNIT_CASE(chm_iter_over_emptied_map),
	KUNIT_CASE(chm_iter_without_key_or_value),
	KUNIT_CASE(chm_iter_two_walks),
	KUNIT_CASE(chm_iter_survives_reseed),
	KUNIT_CASE(chm_foreach_visits_all),
	KUNIT_CASE(chm_foreach_through_changes),
	{ }
};

static struct kunit_suite chm_iter_suite = {
	.name = "chm_iter",
	.suite_init = race_suite_init,
	.test_cases = chm_iter_cases,
};

static struct kunit_case chm_fault_cases[] = {
	KUNIT_CASE(chm_insert_first_fails),
	KUNIT_CASE(chm_insert_growing_fails),
	KUNIT_CASE(chm_replace_rehashing_fails),
	KUNIT_CASE(chm_reserve_fails),
	KUNIT_CASE(chm_shrink_fails),
	KUNIT_CASE(chm_verify_fails),
	KUNIT_CASE(chm_insert_cloning_fails),
	KUNIT_CASE(chm_init_named_fails),
	KUNIT_CASE(chm_insert_fails_for_long),
	KUNIT_CASE(chm_insert_reserved_needs_no_memory),
	KUNIT_CASE(chm_insert_reserved_survives_failures),
	KUNIT_CASE(chm_reserve_more_than_memory),
	KUNIT_CASE(chm_reserve_refused_by_clone),
	{ }
};

static struct kunit_suite chm_fault_suite = {
	.name = "chm_fault",
	.suite_init = race_suite_init,
	.test_cases = chm_fault_cases,
};

kunit_test_suites(&chm_race_suite, &chm_bulk_suite, &chm_grace_suite,
		  &chm_iter_suite, &chm_fault_suite);

MODULE_DESCRIPTION("KUnit tests of chm: races");
MODULE_LICENSE("GPL");
