// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of chm: writers in every context, while a table is being filled
 *
 * What the other files do between migrations, this one does in the middle of one:
 * from threads, softirqs and hard interrupts at once, with memory that does not
 * come, with walks that stand still.  Two variables of the core help: chm_step_chunks
 * says how much of a migration a write does, chm_restless begins the next one when
 * it has ended.
 *
 * Workers and callbacks run outside the thread of the test, where an expectation
 * must not fail: they remember what is wrong, and the test expects afterwards.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <kunit/resource.h>
#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/atomic.h>
#include <linux/bits.h>
#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/ctype.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/hrtimer.h>
#include <linux/irq_work.h>
#include <linux/jhash.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/log2.h>
#include <linux/math64.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/panic.h>
#include <linux/random.h>
#include <linux/rcupdate.h>
#include <linux/rhashtable.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/timekeeping.h>
#include <trace/events/printk.h>

#include "chm.h"
#include "chm_test.h"

static unsigned int volume;
module_param(volume, uint, 0444);
MODULE_PARM_DESC(volume, "Millions of writes that each race shall make (0: what its time allows)");

static unsigned long seed;
module_param(seed, ulong, 0444);
MODULE_PARM_DESC(seed, "Of the random tests; 0: another one each time");

/* How much slower everything is on a kernel with KASAN and lockdep. */
#define SLOW	(IS_ENABLED(CONFIG_KASAN) || IS_ENABLED(CONFIG_KCSAN) ? 8U : 1U)

/* === Helpers ============================================================= */

/*
 * Let others run.  User Mode Linux does not preempt kernel threads when an
 * interrupt returns, and cond_resched() does nothing where CONFIG_PREEMPT is set.
 */
static void give_way(void)
{
	cond_resched();
	if (need_resched())
		schedule();
}

/* Not local_clock(): in User Mode Linux it stands still while an interrupt lasts. */
static u64 now_ns(void)
{
	return ktime_get_mono_fast_ns();
}

static u32 rnd(u64 *rng, u32 below)
{
	*rng ^= *rng << 13;
	*rng ^= *rng >> 7;
	*rng ^= *rng << 17;
	return ((*rng >> 32) * below) >> 32;
}

static u64 rnd_seed(u32 nr)
{
	return ((u64)seed + nr + 1) * 0x9e3779b97f4a7c15ULL | 1;
}

static unsigned int nth_cpu(unsigned int nr)
{
	return cpumask_nth(nr % num_online_cpus(), cpu_online_mask);
}

/* A thread bound to a CPU, which is woken up later. */
static struct task_struct *bound_thread(int (*run)(void *arg), void *arg,
					unsigned int cpu)
{
	struct task_struct *task = kthread_create(run, arg, "chm_writer/%u", cpu);

	if (!IS_ERR(task))
		kthread_bind(task, nth_cpu(cpu));
	return task;
}

static int await_stop(void)
{
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);
	return 0;
}

/* --- Migrations that never pause --- */

static void calm_action(void *unused)
{
	WRITE_ONCE(chm_restless, false);
	WRITE_ONCE(chm_step_chunks, 0);
}

/* Until calm_down() or the end of the case: @step chunks per write. */
static void be_restless(struct kunit *test, unsigned int step, bool restless)
{
	WRITE_ONCE(chm_step_chunks, step);
	WRITE_ONCE(chm_restless, restless);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, calm_action, NULL), 0);
}

static void calm_down(struct kunit *test)
{
	kunit_release_action(test, calm_action, NULL);
}

/* --- A worker that is busy elsewhere --- */

/*
 * The module has one worker.  While it is held in the drop() of another map, no map
 * gets memory, help or a free slot from it: a migration goes no further than
 * writers take it.
 */
struct plug {
	struct chm		map;
	struct completion	inside;
	struct completion	leave;
	void			(*then)(void *arg);	/* what the worker does next */
	void			*arg;
};

static void plug_drop(void *ctx, void *key, void *value)
{
	struct plug *plug = ctx;

	complete(&plug->inside);
	wait_for_completion_timeout(&plug->leave, 120 * HZ);
	if (plug->then)
		plug->then(plug->arg);
}

static void unplug_action(void *arg)
{
	struct plug *plug = arg;

	complete_all(&plug->leave);
	chm_destroy(&plug->map);
}

static void drop_nothing(void *ctx, void *key, void *value)
{
}

static const struct chm_params plug_params = {
	.key_size = sizeof(u64), .drop = plug_drop,
};

static struct plug *plug_worker(struct kunit *test)
{
	struct plug *plug = test_alloc(test, sizeof(*plug));
	u64 key = 0;

	init_completion(&plug->inside);
	init_completion(&plug->leave);
	KUNIT_ASSERT_EQ(test, chm_init(&plug->map, &plug_params, plug, NULL), 0);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, unplug_action, plug), 0);
	KUNIT_ASSERT_EQ(test, chm_insert(&plug->map, &key, NULL, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, chm_remove(&plug->map, &key), 0);
	KUNIT_ASSERT_NE(test, wait_for_completion_timeout(&plug->inside, 60 * HZ), 0);
	return plug;
}

static void unplug_worker(struct kunit *test, struct plug *plug)
{
	kunit_release_action(test, unplug_action, plug);
}

/* --- Hashes --- */

/* Three homes: the last chunk of any table, its first one, one in the middle. */
static u64 hash_wrapping(const void *key, u64 hash_seed)
{
	static const u32 homes[] = { U32_MAX, 0, 0x80000000 };
	u64 k = *(const u64 *)key;

	return unmix((u64)homes[k % 3] << 32 | (k * 0x9e3779b1U >> 16 & 0xffff),
		     hash_seed);
}

/* Under the first seed, and one in four of the others, there are two homes only. */
static u64 flooded_seed;

static u64 hash_flooded(const void *key, u64 hash_seed)
{
	u64 k = *(const u64 *)key;

	if (!READ_ONCE(flooded_seed))
		cmpxchg64(&flooded_seed, 0, hash_seed);
	if (hash_seed != READ_ONCE(flooded_seed) && hash_seed % 4)
		return chm_fold(chm_fold(k ^ hash_seed));
	return unmix((k & 1) << 63 | (k & 0xff), hash_seed);
}

/* Under the first seed, keys beyond 32 bits have one home. */
static u64 hash_flooded_late(const void *key, u64 hash_seed)
{
	u64 k = *(const u64 *)key;

	if (!READ_ONCE(flooded_seed))
		cmpxchg64(&flooded_seed, 0, hash_seed);
	if (hash_seed == READ_ONCE(flooded_seed) && k >> 32)
		return unmix(0, hash_seed);
	return chm_fold(chm_fold(k ^ hash_seed));
}

/* === Every context at once =============================================== */

/*
 * Agents in all contexts write to one map.  Each value that they hand to chm is a
 * version of their own, of which the test knows to which key it belongs and how
 * many copies chm still has to drop: one when it is stored, one more for each
 * clone, one less for each drop() and for each pair that comes back.
 *
 * Agents write to shared keys, where for each key insertions and removals must add
 * up, and to some of their own, of which they know after each call what a lookup
 * has to find.
 *
 * A version is used again when the map has no copy of it, no sooner than a grace
 * period after that: so a reader that finds one which is out of use has found a
 * pair too late, or drop() came too early.
 */
#define AGENTS		8U
#define VERSIONS	4096U	/* of each agent */
#define OWNED		16U	/* keys of each agent */

enum agent_context {
	IN_THREAD,		/* may block */
	IN_READER,		/* a thread within rcu_read_lock() */
	IN_LOCK,		/* a thread with a spinlock, interrupts off */
	IN_SOFTIRQ,
	IN_HARDIRQ,
	IN_IRQ_WORK,
	IN_SHAKER,		/* a thread that changes the whole map */
};

static const char * const where_names[] = {
	"a thread", "a reader", "a lock", "a softirq", "a hardirq", "irq_work",
	"the shaker",
};

struct version {
	atomic_t		copies;
	u32			generation;
	u64			key;
	bool			handed_out;
	unsigned long		cookie;		/* when it was */
};

/* What a value is; of CHM_WORD maps only the first word. */
struct stamp {
	u64			version;
	u64			key;
	u64			check;
};

struct scene_spec {
	const char		*name;
	enum chm_class		class;
	u64			(*hash)(const void *key, u64 hash_seed);
	u32			shared;		/* keys */
	bool			clear;		/* then no key is an agent's own */
	bool			restless;
	bool			floods;
};

/* Of a shared key, in this order: what was added to two cells, and what is gone. */
struct account {
	atomic_t		balance;	/* insertions less removals */
	atomic64_t		added[2];
	atomic64_t		gone[2];
};

struct agent {
	struct scene		*s;
	u32			nr;
	enum agent_context		where;
	struct task_struct	*task;
	struct hrtimer		timer;
	struct irq_work		work;
	spinlock_t		lock;		/* a foreign one, held meanwhile */
	u64			rng;
	u32			next_version;
	unsigned long		writes;
	unsigned long		lookups;
	unsigned long		hits;
	unsigned long		starved;	/* of versions */
	unsigned long		refused;	/* -ENOMEM */
	u64			longest;	/* ns of a reserve or shrink */
	u64			own[OWNED];	/* versions; 0: absent */
};

struct scene {
	struct chm		map;
	struct chm_params	params;
	const struct scene_spec	*spec;
	struct agent		agents[AGENTS];
	struct version		*versions;
	struct account		*accounts;
	struct chm_stats	stats;
	bool			filling;
	bool			stop;
	atomic_t		clones;
	atomic_t		wrong;
	bool			described;	/* all below is valid */
	const char		*what;
	u64			key;
	s64			got;
	s64			want;
	enum agent_context		where;
};

static bool scene_over(struct scene *s)
{
	return READ_ONCE(s->stop) || atomic_read(&s->wrong);
}

static void scene_wrong(struct scene *s, enum agent_context where, const char *what,
			u64 key, s64 got, s64 want)
{
	if (atomic_xchg(&s->wrong, 1))
		return;
	s->what = what;
	s->key = key;
	s->got = got;
	s->want = want;
	s->where = where;
	/* Pairs with scene_describe(). */
	smp_store_release(&s->described, true);
}

/* --- Versions --- */

static u64 version_nr(const struct scene *s, const struct version *v)
{
	return (u64)v->generation << 32 | (u32)(v - s->versions + 1);
}

/* NULL: no such version is in use. */
static struct version *version_of(const struct scene *s, u64 nr)
{
	u32 i = (u32)nr - 1;
	struct version *v = &s->versions[i];

	if (i >= AGENTS * VERSIONS || v->generation != nr >> 32)
		return NULL;
	return v;
}

static bool version_is_free(const struct version *v)
{
	/* Acquire: pairs with version_put(). */
	return !atomic_read_acquire(&v->copies) &&
	       (!v->handed_out || poll_state_synchronize_rcu(v->cookie));
}

/* A version for @key, with one copy to account for; 0: none is free. */
static u64 version_get(struct agent *a, u64 key)
{
	struct version *v;
	u32 i;

	for (i = 0; i < 64; i++) {
		v = &a->s->versions[a->nr * VERSIONS + a->next_version++ % VERSIONS];
		if (version_is_free(v))
			break;
	}
	if (i == 64) {
		a->starved++;
		return 0;
	}
	v->handed_out = false;
	v->generation++;
	v->key = key;
	atomic_set(&v->copies, 1);
	return version_nr(a->s, v);
}

/* There is a copy less. */
static void version_put(struct scene *s, enum agent_context where, const char *what,
			u64 nr, u64 key)
{
	struct version *v = version_of(s, nr);

	if (!v)
		scene_wrong(s, where, what, key, nr, 0);
	else if (v->key != key)
		scene_wrong(s, where, what, key, v->key, key);
	else if (atomic_dec_return_release(&v->copies) < 0)
		scene_wrong(s, where, "more drops than copies", key, nr, 0);
}

/* The map gave a pair back: readers may look at it until a grace period is over. */
static void version_handed_out(struct agent *a, const struct stamp *value, u64 key)
{
	struct version *v = version_of(a->s, value->version);

	if (v) {
		v->cookie = get_state_synchronize_rcu();
		v->handed_out = true;
	}
	version_put(a->s, a->where, "handed out", value->version, key);
}

static void scene_drop(void *ctx, void *key, void *value)
{
	version_put(ctx, IN_SHAKER, "dropped", *(u64 *)value, *(u64 *)key);
}

static int scene_clone(void *ctx, void *new_key, void *new_value, const void *key,
		       const void *value, gfp_t gfp)
{
	struct scene *s = ctx;
	struct version *v = version_of(s, *(const u64 *)value);

	if (gfpflags_allow_blocking(gfp))
		scene_wrong(s, IN_SHAKER, "clone() may block", *(const u64 *)key, 0, 0);
	if (atomic_inc_return(&s->clones) % 5000 == 0)
		return -ENOSPC;
	if (!v || v->key != *(const u64 *)key)
		scene_wrong(s, IN_SHAKER, "cloned", *(const u64 *)key,
			    *(const u64 *)value, 0);
	else
		atomic_inc(&v->copies);
	return 0;
}

static u64 stamp_check(u64 version, u64 key)
{
	return (version ^ rol64(key, 40)) * 0x9e3779b97f4a7c15ULL;
}

static void stamp_fill(struct stamp *value, u64 version, u64 key)
{
	value->version = version;
	value->key = key;
	value->check = stamp_check(version, key);
}

/* Within rcu_read_lock(): a value that was found for @key.  Return: its version. */
static u64 stamp_judge(struct agent *a, const struct stamp *value, u64 key)
{
	u64 nr = READ_ONCE(value->version);
	const struct version *v = version_of(a->s, nr);

	if (!v)
		scene_wrong(a->s, a->where, "G3: a version out of use", key, nr, 0);
	else if (v->key != key)
		scene_wrong(a->s, a->where, "G3: another key's", key, v->key, key);
	else if (a->s->spec->class != CHM_WORD &&
		 (READ_ONCE(value->key) != key ||
		  READ_ONCE(value->check) != stamp_check(nr, key)))
		scene_wrong(a->s, a->where, "G3: mixed bytes", key, nr, 0);
	return nr;
}

/* Return: the version found; 0: none. */
static u64 agent_look(struct agent *a, u64 key)
{
	const struct stamp *value;
	u64 nr = 0;

	a->lookups++;
	rcu_read_lock();
	value = chm_lookup(&a->s->map, &key);
	if (value) {
		nr = stamp_judge(a, value, key);
		if (!rnd(&a->rng, 16) && a->s->spec->class != CHM_WORD &&
		    stamp_judge(a, value, key) != nr)
			scene_wrong(a->s, a->where, "G3: changed", key, 0, nr);
		a->hits++;
	}
	rcu_read_unlock();
	return nr;
}

/* --- Calls --- */

static gfp_t agent_gfp(struct agent *a)
{
	bool block = a->where == IN_THREAD && rnd(&a->rng, 2);

	return (block ? GFP_KERNEL : GFP_ATOMIC) | __GFP_NOWARN;
}

/*
 * Each returns 1 if it inserted, 0 if the key was there, -ENOENT if it was not and
 * nothing was done, or another errno.
 */
static int do_insert(struct agent *a, u64 key, struct stamp *value)
{
	int ret = chm_insert(&a->s->map, &key, value, agent_gfp(a));

	if (ret == -EEXIST)
		return 0;
	return ret ?: 1;
}

static int do_upsert(struct agent *a, u64 key, struct stamp *value)
{
	return chm_upsert(&a->s->map, &key, value, agent_gfp(a));
}

static int do_replace(struct agent *a, u64 key, struct stamp *value)
{
	return chm_replace(&a->s->map, &key, value, agent_gfp(a));
}

static int do_swap(struct agent *a, u64 key, struct stamp *value)
{
	struct stamp old;
	u64 old_key = ~key;
	int ret = chm_swap(&a->s->map, &key, value, &old_key, &old, agent_gfp(a));

	if (ret)
		return ret;
	if (old_key != key)
		scene_wrong(a->s, a->where, "swap: old key", key, old_key, key);
	version_handed_out(a, &old, key);
	return 0;
}

static int do_get_or_insert(struct agent *a, u64 key, struct stamp *value)
{
	int ret;

	rcu_read_lock();
	ret = chm_get_or_insert(&a->s->map, &key, value, GFP_ATOMIC | __GFP_NOWARN);
	if (!ret)
		stamp_judge(a, value, key);
	rcu_read_unlock();
	return ret;
}

/* Only where nobody overwrites the value in place: else it is anybody's. */
static int do_lookup_or_insert(struct agent *a, u64 key, struct stamp *value)
{
	const struct stamp *found;
	int ret;

	rcu_read_lock();
	found = chm_lookup_or_insert(&a->s->map, &key, value,
				     GFP_ATOMIC | __GFP_NOWARN);
	ret = PTR_ERR_OR_ZERO(found);
	if (!ret)
		ret = stamp_judge(a, found, key) == value->version;
	rcu_read_unlock();
	return ret;
}

/* What is there now, to be expected by the next call. */
static bool agent_expect(struct agent *a, u64 key, struct stamp *expected)
{
	memset(expected, 0, sizeof(*expected));
	return chm_get(&a->s->map, &key, expected);
}

static int do_replace_if(struct agent *a, u64 key, struct stamp *value)
{
	struct stamp old;
	int ret = -ENOENT;

	/* All in a section, lest the version is used again meanwhile. */
	rcu_read_lock();
	if (agent_expect(a, key, &old))
		ret = chm_replace_if(&a->s->map, &key, &old, value,
				     GFP_ATOMIC | __GFP_NOWARN);
	/* Overwritten in place, it is not dropped. */
	if (!ret && a->s->spec->class == CHM_WORD)
		version_handed_out(a, &old, key);
	rcu_read_unlock();
	return ret;
}

static int do_remove_if(struct agent *a, u64 key, struct stamp *value)
{
	struct stamp old;
	int ret = -ENOENT;

	rcu_read_lock();
	if (agent_expect(a, key, &old))
		ret = chm_remove_if(&a->s->map, &key, &old);
	rcu_read_unlock();
	return ret;
}

static int do_remove(struct agent *a, u64 key, struct stamp *value)
{
	return chm_remove(&a->s->map, &key);
}

/* Among keys that nobody inserts. */
static int do_remove_many(struct agent *a, u64 key, struct stamp *value)
{
	u64 keys[20];
	u32 i, at = rnd(&a->rng, ARRAY_SIZE(keys));
	unsigned long n;

	for (i = 0; i < ARRAY_SIZE(keys); i++)
		keys[i] = i == at ? key : U64_MAX - i;
	n = chm_remove_many(&a->s->map, keys, ARRAY_SIZE(keys));
	return n == 1 ? 0 : n ? -ERANGE : -ENOENT;
}

static int do_take(struct agent *a, u64 key, struct stamp *value)
{
	struct stamp old;
	u64 old_key = ~key;
	int ret = chm_take(&a->s->map, &key, &old_key, &old);

	if (ret)
		return ret;
	if (old_key != key)
		scene_wrong(a->s, a->where, "take: old key", key, old_key, key);
	version_handed_out(a, &old, key);
	return 0;
}

static const struct call {
	const char	*name;
	int		(*run)(struct agent *a, u64 key, struct stamp *value);
	bool		inserts;	/* if the key is absent */
	bool		stores;		/* if it is present */
	bool		removes;
	bool		not_words;
} calls[] = {
	{ "insert", do_insert, .inserts = true },
	{ "swap", do_swap, .inserts = true, .stores = true },
	{ "get_or_insert", do_get_or_insert, .inserts = true },
	{ "upsert", do_upsert, .inserts = true, .stores = true, .not_words = true },
	{ "lookup_or_insert", do_lookup_or_insert, .inserts = true, .not_words = true },
	{ "replace", do_replace, .stores = true, .not_words = true },
	{ "replace_if", do_replace_if, .stores = true },
	{ "remove_if", do_remove_if, .removes = true },
	{ "remove", do_remove, .removes = true },
	{ "remove_many", do_remove_many, .removes = true },
	{ "take", do_take, .removes = true },
};

#define CALLS_THAT_REMOVE	4U	/* the last so many */

static const struct call *agent_choose(struct agent *a)
{
	const struct call *c;

	do {
		bool remove = rnd(&a->rng, 8) < (READ_ONCE(a->s->filling) ? 2 : 5);

		if (remove)
			c = &calls[ARRAY_SIZE(calls) - 1 - rnd(&a->rng, CALLS_THAT_REMOVE)];
		else
			c = &calls[rnd(&a->rng, ARRAY_SIZE(calls) - CALLS_THAT_REMOVE)];
	} while (c->not_words && a->s->spec->class == CHM_WORD);
	return c;
}

/* Make the call, and account for the version that it was given. */
static int agent_call(struct agent *a, const struct call *c, u64 key, u64 *nr)
{
	struct stamp value;
	int ret;

	*nr = c->removes ? 0 : version_get(a, key);
	if (!c->removes && !*nr)
		return -EAGAIN;
	stamp_fill(&value, *nr, key);
	ret = c->run(a, key, &value);
	a->writes++;
	if (*nr && !(ret == 1 || (!ret && c->stores)))
		version_put(a->s, a->where, "not stored", *nr, key);
	if (ret == -ENOMEM)
		a->refused++;
	return ret;
}

/* Anybody may write to the key: only the sum is known. */
static void agent_write_shared(struct agent *a)
{
	u32 key = rnd(&a->rng, a->s->spec->shared);
	const struct call *c = agent_choose(a);
	atomic_t *balance = &a->s->accounts[key].balance;
	u64 nr;
	int ret = agent_call(a, c, key, &nr);

	if (ret == 1 && c->inserts)
		atomic_inc(balance);
	else if (!ret && c->removes)
		atomic_dec(balance);
	else if (ret && ret != -EAGAIN && ret != -ENOENT && ret != -ESTALE &&
		 ret != -ENOMEM)
		scene_wrong(a->s, a->where, c->name, key, ret, 0);
}

/* Nobody else writes to the key: all is known. */
static void agent_write_own(struct agent *a)
{
	u32 i = rnd(&a->rng, OWNED);
	u64 key = a->s->spec->shared + a->nr * OWNED + i;
	const struct call *c = agent_choose(a);
	int want = !a->own[i] ? c->inserts ? 1 : -ENOENT : 0;
	u64 nr, found;
	int ret = agent_call(a, c, key, &nr);

	if (ret == -EAGAIN || (ret == -ENOMEM && !c->removes))
		return;
	if (ret != want) {
		scene_wrong(a->s, a->where, c->name, key, ret, want);
		return;
	}
	if (ret == 1 || (!ret && c->stores))
		a->own[i] = nr;
	else if (!ret && c->removes)
		a->own[i] = 0;
	found = agent_look(a, key);
	if (found != a->own[i])
		scene_wrong(a->s, a->where, c->name, key, found, a->own[i]);
}

/* Four keys in one call, of which the first so many are inserted. */
static void agent_insert_many(struct agent *a)
{
	struct stamp values[4];
	u64 words[4], keys[4];
	unsigned long n, i;
	int err = 1;
	bool all;

	for (i = 0; i < 4; i++) {
		keys[i] = rnd(&a->rng, a->s->spec->shared);
		words[i] = version_get(a, keys[i]);
		if (!words[i])
			break;
		stamp_fill(&values[i], words[i], keys[i]);
	}
	n = chm_insert_many(&a->s->map, keys,
			    a->s->spec->class == CHM_WORD ? (void *)words : values,
			    i, agent_gfp(a), &err);
	all = n == i;
	if (n > i || (err && err != -EEXIST && err != -ENOMEM) || all != !err)
		scene_wrong(a->s, a->where, "insert_many", keys[0], n, err);
	for (; i-- > 0;) {
		if (i < n)
			atomic_inc(&a->s->accounts[keys[i]].balance);
		else
			version_put(a->s, a->where, "not stored", words[i], keys[i]);
	}
	a->writes++;
}

static void pair_step(struct agent *a)
{
	u32 lot = rnd(&a->rng, 16);

	agent_look(a, rnd(&a->rng, a->s->spec->shared));
	if (lot == 0)
		agent_insert_many(a);
	else if (lot < 6 && !a->s->spec->clear)
		agent_write_own(a);
	else
		agent_write_shared(a);
}

/* --- Cells: what was added is there, or was dropped or taken --- */

struct cells {
	long			word[2];
};

static void cell_note(struct agent *a, u64 key, int ret, u32 i, long n)
{
	struct account *acc = &a->s->accounts[key];

	if (ret >= 0)
		atomic64_add(n, &acc->added[i]);
	if (ret == 1)
		atomic_inc(&acc->balance);
	if (ret == -ENOMEM)
		a->refused++;
	else if (ret < 0 && ret != -ENOENT)
		scene_wrong(a->s, a->where, "cell", key, ret, 0);
}

static void cell_gone(struct scene *s, u64 key, const struct cells *c)
{
	atomic64_add(c->word[0], &s->accounts[key].gone[0]);
	atomic64_add(c->word[1], &s->accounts[key].gone[1]);
}

static void cell_drop(void *ctx, void *key, void *value)
{
	cell_gone(ctx, *(u64 *)key, value);
}

static void cell_add_in_place(struct agent *a, u64 key, u32 i, long n)
{
	atomic_long_t *cells;

	rcu_read_lock();
	cells = chm_cell_lookup(&a->s->map, &key);
	if (cells) {
		atomic_long_add(n, &cells[i]);
		atomic64_add(n, &a->s->accounts[key].added[i]);
	}
	rcu_read_unlock();
}

static void cell_insert(struct agent *a, u64 key, long n)
{
	struct cells c = { { n, -n } };
	bool get = rnd(&a->rng, 2);
	int ret;

	if (get)
		ret = chm_get_or_insert(&a->s->map, &key, &c, agent_gfp(a));
	else
		ret = chm_insert(&a->s->map, &key, &c, agent_gfp(a));
	if (ret == get) {
		atomic64_add(n, &a->s->accounts[key].added[0]);
		atomic64_add(-n, &a->s->accounts[key].added[1]);
		atomic_inc(&a->s->accounts[key].balance);
	} else if (ret == -ENOMEM) {
		a->refused++;
	} else if (ret != (get ? 0 : -EEXIST)) {
		scene_wrong(a->s, a->where, "insert of cells", key, ret, 0);
	}
}

static void cell_remove(struct agent *a, u64 key)
{
	bool take = a->where == IN_THREAD && !rnd(&a->rng, 4);
	u64 old_key = key;
	struct cells c;
	int ret;

	if (take)
		ret = chm_take(&a->s->map, &key, &old_key, &c);
	else
		ret = chm_remove(&a->s->map, &key);
	if (!ret)
		atomic_dec(&a->s->accounts[key].balance);
	if (!ret && take)
		cell_gone(a->s, key, &c);
	if ((ret && ret != -ENOENT) || old_key != key)
		scene_wrong(a->s, a->where, "removal of cells", key, ret, 0);
}

static void cell_step(struct agent *a)
{
	u64 key = rnd(&a->rng, a->s->spec->shared);
	long n = 1 + rnd(&a->rng, 1000);
	u32 i = rnd(&a->rng, 2);
	u32 lot = rnd(&a->rng, 16);

	a->writes++;
	if (lot < 6)
		cell_note(a, key, chm_cell_upsert_add(&a->s->map, &key, i, n,
						      agent_gfp(a)), i, n);
	else if (lot < 9)
		cell_note(a, key, chm_cell_add(&a->s->map, &key, i, n), i, n);
	else if (lot < 11)
		cell_add_in_place(a, key, i, n);
	else if (lot < 13)
		cell_insert(a, key, n);
	else
		cell_remove(a, key);
}

/* --- Running them --- */

static void agent_turn(struct agent *a)
{
	u32 i;

	for (i = 0; i < 4 && !scene_over(a->s); i++) {
		if (a->s->spec->class == CHM_CELL)
			cell_step(a);
		else
			pair_step(a);
	}
}

/* Both kinds of timers; the one that is not soft runs in hard interrupts. */
static enum hrtimer_restart agent_timer(struct hrtimer *timer)
{
	struct agent *a = container_of(timer, struct agent, timer);
	bool hard;

	if (scene_over(a->s))
		return HRTIMER_NORESTART;
	hard = a->where == IN_HARDIRQ && !IS_ENABLED(CONFIG_PREEMPT_RT);
	if (hard ? !in_hardirq() : !in_serving_softirq())
		scene_wrong(a->s, a->where, "wrong context", 0, preempt_count(), 0);
	agent_turn(a);
	hrtimer_forward_now(timer, ns_to_ktime((20000 + rnd(&a->rng, 60000)) * SLOW));
	return HRTIMER_RESTART;
}

static void agent_run_timer(struct agent *a)
{
	enum hrtimer_mode mode = a->where == IN_SOFTIRQ ? HRTIMER_MODE_REL_PINNED_SOFT :
							  HRTIMER_MODE_REL_PINNED;

	hrtimer_setup(&a->timer, agent_timer, CLOCK_MONOTONIC, mode);
	hrtimer_start(&a->timer, ns_to_ktime(NSEC_PER_USEC), mode);
	await_stop();
	hrtimer_cancel(&a->timer);
}

/* Some machines wait for the next tick with it: then more at a time. */
static void agent_work(struct irq_work *work)
{
	struct agent *a = container_of(work, struct agent, work);
	u32 i;

	for (i = 0; i < 8; i++)
		agent_turn(a);
}

static void agent_run_irq_work(struct agent *a)
{
	init_irq_work(&a->work, agent_work);
	while (!kthread_should_stop()) {
		irq_work_queue(&a->work);
		schedule_timeout_interruptible(1);
	}
	irq_work_sync(&a->work);
}

static void agent_run_thread(struct agent *a)
{
	unsigned long flags;

	while (!scene_over(a->s)) {
		if (a->where == IN_READER) {
			rcu_read_lock();
			agent_turn(a);
			rcu_read_unlock();
		} else if (a->where == IN_LOCK) {
			spin_lock_irqsave(&a->lock, flags);
			agent_turn(a);
			spin_unlock_irqrestore(&a->lock, flags);
		} else {
			agent_turn(a);
		}
		give_way();
	}
	await_stop();
}

static void shake_walk(struct agent *a)
{
	struct chm_iter it;
	struct stamp value;
	u64 key;

	chm_iter_init(&it, &a->s->map);
	while (chm_iter_next(&it, &key, &value) && !scene_over(a->s)) {
		if (key >= a->s->spec->shared + AGENTS * OWNED)
			scene_wrong(a->s, a->where, "walked to", key, 0, 0);
		a->lookups++;
	}
}

/* What retired tables may take is used up by those who never rest: let them rest. */
static int shake_size(struct agent *a)
{
	struct scene *s = a->s;
	u64 start = now_ns();
	int ret;

	WRITE_ONCE(chm_restless, false);
	if (rnd(&a->rng, 2))
		ret = chm_reserve(&s->map, 1 + rnd(&a->rng, 2 * s->spec->shared),
				  GFP_KERNEL | __GFP_NOWARN);
	else
		ret = chm_shrink(&s->map, GFP_KERNEL | __GFP_NOWARN);
	WRITE_ONCE(chm_restless, s->spec->restless);
	a->longest = max(a->longest, now_ns() - start);
	return ret;
}

static int shake(struct agent *a)
{
	struct scene *s = a->s;

	switch (rnd(&a->rng, 8)) {
	case 0:
	case 1:
		return shake_size(a);
	case 2:
		if (s->spec->clear)
			chm_clear(&s->map);
		return 0;
	case 3:
		return chm_verify(&s->map);
	case 4:
		shake_walk(a);
		return 0;
	default:
		WRITE_ONCE(s->filling, !s->filling);
		return 0;
	}
}

static void agent_shake(struct agent *a)
{
	while (!scene_over(a->s)) {
		int ret = shake(a);

		/* What clone() has returned may come back. */
		if (ret && ret != -ENOMEM && ret != -ENOSPC)
			scene_wrong(a->s, a->where, "shaken", 0, ret, 0);
		a->writes++;
		msleep(1 + rnd(&a->rng, 10));
	}
	await_stop();
}

static int agent_thread(void *arg)
{
	struct agent *a = arg;

	switch (a->where) {
	case IN_SOFTIRQ:
	case IN_HARDIRQ:
		agent_run_timer(a);
		break;
	case IN_IRQ_WORK:
		agent_run_irq_work(a);
		break;
	case IN_SHAKER:
		agent_shake(a);
		break;
	default:
		agent_run_thread(a);
	}
	return 0;
}

/* On two CPUs: each has a thread and an interrupt. */
static const struct {
	enum agent_context	where;
	u32		cpu;
} roles[AGENTS] = {
	{ IN_THREAD, 0 },
	{ IN_THREAD, 1 },
	{ IN_READER, 1 },
	{ IN_LOCK, 0 },
	{ IN_SOFTIRQ, 1 },
	{ IN_HARDIRQ, 0 },
	{ IN_IRQ_WORK, 1 },
	{ IN_SHAKER, 1 },
};

static struct scene *scene_new(struct kunit *test, const struct scene_spec *spec)
{
	struct scene *s = test_alloc(test, sizeof(*s));
	bool cell = spec->class == CHM_CELL;
	u32 i;

	flooded_seed = 0;
	s->spec = spec;
	s->versions = test_alloc(test, AGENTS * VERSIONS * sizeof(*s->versions));
	s->accounts = test_alloc(test, spec->shared * sizeof(*s->accounts));
	s->params = (struct chm_params) {
		.key_size = sizeof(u64),
		.value_size = cell ? sizeof(struct cells) :
			      spec->class == CHM_WORD ? sizeof(u64) : sizeof(struct stamp),
		.class = spec->class,
		.hash = spec->hash,
		.drop = cell ? cell_drop : scene_drop,
		.clone = spec->class == CHM_CLONE ? scene_clone : NULL,
	};
	KUNIT_ASSERT_EQ(test, chm_init(&s->map, &s->params, s, NULL), 0);
	for (i = 0; i < AGENTS; i++) {
		s->agents[i].s = s;
		s->agents[i].nr = i;
		s->agents[i].where = roles[i].where;
		s->agents[i].rng = rnd_seed(i);
		spin_lock_init(&s->agents[i].lock);
	}
	return s;
}

static bool scene_start(struct scene *s)
{
	u32 i;

	for (i = 0; i < AGENTS; i++) {
		struct task_struct *task;

		task = bound_thread(agent_thread, &s->agents[i], roles[i].cpu);
		if (IS_ERR(task))
			return false;
		s->agents[i].task = task;
	}
	for (i = 0; i < AGENTS; i++)
		wake_up_process(s->agents[i].task);
	return true;
}

static void scene_stop(struct scene *s)
{
	u32 i;

	WRITE_ONCE(s->stop, true);
	for (i = 0; i < AGENTS; i++) {
		if (s->agents[i].task)
			kthread_stop(s->agents[i].task);
	}
}

static unsigned long agent_writes(const struct agent *a)
{
	/* It counts on, without telling: any figure of late will do. */
	return data_race(a->writes);
}

static unsigned long scene_writes(const struct scene *s)
{
	unsigned long writes = 0;
	u32 i;

	for (i = 0; i < AGENTS; i++)
		writes += agent_writes(&s->agents[i]);
	return writes;
}

/* What has not yet happened often enough to mean something; NULL: all has. */
static const char *scene_lacks(const struct scene *s)
{
	/* Migrations of cells take a grace period each. */
	bool slow = s->spec->class == CHM_CELL;
	u32 i;

	for (i = 0; i < AGENTS; i++) {
		u32 least = roles[i].where != IN_SHAKER ? 200 : slow ? 2 : 10;

		if (agent_writes(&s->agents[i]) < least)
			return where_names[roles[i].where];
	}
	if (migrations(&s->stats) <= (slow ? 2 : 10))
		return "migrations";
	return s->spec->floods && !s->stats.reseeds ? "reseeds" : NULL;
}

static void scene_wait(struct scene *s)
{
	unsigned long start = jiffies;
	unsigned long end = start + msecs_to_jiffies(scaled(1000, 300));
	/* A slow kernel on a busy machine takes minutes; KUnit gives up after five. */
	unsigned long patience = end + (200 + volume * 20) * HZ;

	while (!atomic_read(&s->wrong) && time_before(jiffies, patience)) {
		msleep(20);
		chm_stats(&s->map, &s->stats);
		if (time_after(jiffies, end) && !scene_lacks(s) &&
		    scene_writes(s) >= volume * 1000000UL)
			break;
	}
}

static void scene_tell(struct kunit *test, const struct scene *s)
{
	unsigned long lookups = 0, hits = 0, starved = 0, refused = 0;
	const char *lacks = scene_lacks(s);
	u64 longest = 0;
	u32 i;

	for (i = 0; i < AGENTS; i++) {
		const struct agent *a = &s->agents[i];

		lookups += a->lookups;
		hits += a->hits;
		starved += a->starved;
		refused += a->refused;
		longest = max(longest, a->longest);
		kunit_info(test, "%lu writes in %s\n", a->writes, where_names[a->where]);
	}
	kunit_info(test, "measured: %s: %lu writes, %lu lookups, %lu hits, %lu + %lu + %lu migrations, %lu aborts, %lu reseeds, %lu without memory, %lu without a version, the longest reserve or shrink %llu ms\n",
		   s->spec->name, scene_writes(s), lookups, hits, s->stats.grows,
		   s->stats.shrinks, s->stats.rehashes, s->stats.aborts,
		   s->stats.reseeds, refused, starved, div_u64(longest, 1000000));
	if (lacks)
		KUNIT_FAIL(test, "too little: %s (%lu writes, %lu moves, %lu reseeds, %llu ms)",
			   lacks, scene_writes(s), migrations(&s->stats),
			   s->stats.reseeds, div_u64(longest, 1000000));
	/* No cell is removed for good, nor another table begun, before a grace period. */
	if (s->spec->class != CHM_CELL)
		KUNIT_EXPECT_LT(test, refused, scene_writes(s) / 50);
}

/* The map has what the accounts say, as long as nobody cleared it. */
static void scene_expect_balance(struct kunit *test, struct scene *s)
{
	unsigned long present = 0;
	u64 key;
	u32 i, j;

	for (key = 0; key < s->spec->shared; key++) {
		int balance = atomic_read(&s->accounts[key].balance);

		KUNIT_EXPECT_EQ_MSG(test, balance, has_key(&s->map, key),
				    "key %llu: insertions less removals", key);
		present += balance;
	}
	for (i = 0; i < AGENTS; i++) {
		for (j = 0; j < OWNED; j++) {
			KUNIT_EXPECT_EQ(test, !!s->agents[i].own[j],
					has_key(&s->map, s->spec->shared + i * OWNED + j));
			present += !!s->agents[i].own[j];
		}
	}
	KUNIT_EXPECT_EQ(test, chm_count(&s->map), present);
}

static void cell_expect(struct kunit *test, struct scene *s)
{
	u64 key;
	u32 i;

	for (key = 0; key < s->spec->shared; key++) {
		struct account *acc = &s->accounts[key];
		struct cells c = {};

		chm_cell_read(&s->map, &key, &c);
		for (i = 0; i < 2; i++)
			KUNIT_EXPECT_EQ_MSG(test, atomic64_read(&acc->added[i]),
					    c.word[i] + atomic64_read(&acc->gone[i]),
					    "G9: key %llu, word %u", key, i);
	}
}

/* After chm_destroy(): every copy was dropped or came back. */
static void scene_expect_dropped(struct kunit *test, struct scene *s)
{
	unsigned long left = 0;
	u32 i;

	for (i = 0; i < AGENTS * VERSIONS; i++)
		left += atomic_read(&s->versions[i].copies);
	KUNIT_EXPECT_EQ_MSG(test, left, 0, "G5: versions that were not dropped");
	for (i = 0; s->spec->class == CHM_CELL && i < s->spec->shared; i++) {
		KUNIT_EXPECT_EQ(test, atomic64_read(&s->accounts[i].added[0]),
				atomic64_read(&s->accounts[i].gone[0]));
		KUNIT_EXPECT_EQ(test, atomic64_read(&s->accounts[i].added[1]),
				atomic64_read(&s->accounts[i].gone[1]));
	}
}

static void scene_describe(struct kunit *test, struct scene *s)
{
	/* Pairs with scene_wrong(). */
	if (smp_load_acquire(&s->described))
		KUNIT_FAIL(test, "%s: key %llu: %#llx, not %#llx; in %s", s->what,
			   s->key, s->got, s->want, where_names[s->where]);
}

static void scene_run(struct kunit *test, const struct scene_spec *spec)
{
	struct scene *s = scene_new(test, spec);
	bool started;

	be_restless(test, spec->restless, spec->restless);
	started = scene_start(s);
	if (started)
		scene_wait(s);
	scene_stop(s);
	calm_down(test);
	KUNIT_EXPECT_TRUE(test, started);
	if (!atomic_read(&s->wrong)) {
		scene_tell(test, s);
		expect_sound(test, &s->map);
		if (!spec->clear)
			scene_expect_balance(test, s);
		KUNIT_EXPECT_TRUE(test, settle(&s->map));
		KUNIT_EXPECT_TRUE(test, wait_dead(&s->map));
		if (spec->class == CHM_CELL)
			cell_expect(test, s);
	}
	chm_destroy(&s->map);
	if (!atomic_read(&s->wrong))
		scene_expect_dropped(test, s);
	scene_describe(test, s);
}

static const struct scene_spec scene_specs[] = {
	{ "frozen", CHM_FROZEN, .shared = 200, .restless = true },
	{ "frozen_many_keys", CHM_FROZEN, .shared = 5000 },
	{ "frozen_cleared", CHM_FROZEN, .shared = 300, .restless = true, .clear = true },
	{ "frozen_few_homes", CHM_FROZEN, hash_wrapping, .shared = 60, .restless = true },
	{ "frozen_flooded", CHM_FROZEN, hash_flooded, .shared = 2000, .floods = true },
	{ "words", CHM_WORD, .shared = 200, .restless = true },
	{ "words_few_homes", CHM_WORD, hash_wrapping, .shared = 60, .restless = true },
	{ "clones", CHM_CLONE, .shared = 200, .restless = true },
	{ "clones_cleared", CHM_CLONE, .shared = 2000, .clear = true },
	{ "cells", CHM_CELL, .shared = 200, .restless = true },
	{ "cells_cleared", CHM_CELL, .shared = 2000, .restless = true, .clear = true },
};

static void scene_describe_spec(const struct scene_spec *spec, char *desc)
{
	strscpy(desc, spec->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(scene, scene_specs, scene_describe_spec);

static void chm_writers_race_in_all_contexts(struct kunit *test)
{
	scene_run(test, test->param_value);
}

/* === Two CPUs insert at full speed ======================================= */

/* What came of one thread's share of the insertions. */
struct rush_thread {
	struct rush		*rush;
	u32			nr;
	struct task_struct	*task;
	unsigned long		no_memory;
	unsigned long		busy;
	unsigned long		other;
	u64			ns;
};

struct rush_object {
	u64			key;
	u64			value;
	struct rhash_head	node;
};

struct rush {
	unsigned long		n;		/* of both threads together */
	int			(*insert)(struct rush *rush, u64 key);
	struct chm		map;
	struct rhashtable	table;
	struct rush_object	*objects;
	struct rush_thread	threads[2];
	atomic_t		ready;
};

static const struct rhashtable_params rush_rhashtable_params = {
	.key_len = sizeof(u64),
	.key_offset = offsetof(struct rush_object, key),
	.head_offset = offsetof(struct rush_object, node),
	.automatic_shrinking = true,
};

static int rush_insert_chm(struct rush *rush, u64 key)
{
	u64 value = value_of(key);

	return chm_insert(&rush->map, &key, &value, GFP_ATOMIC);
}

static int rush_insert_rhashtable(struct rush *rush, u64 key)
{
	struct rush_object *object = &rush->objects[key];

	object->key = key;
	object->value = value_of(key);
	return rhashtable_insert_fast(&rush->table, &object->node,
				      rush_rhashtable_params);
}

static void rush_note(struct rush_thread *t, int ret)
{
	if (ret == -ENOMEM)
		t->no_memory++;
	else if (ret == -EBUSY)
		t->busy++;
	else if (ret)
		t->other++;
}

static int rush_thread(void *arg)
{
	struct rush_thread *t = arg;
	u64 start, key;

	/* Both at once. */
	atomic_inc(&t->rush->ready);
	while (atomic_read(&t->rush->ready) < 2)
		give_way();
	start = now_ns();
	for (key = t->nr; key < t->rush->n; key += 2) {
		rush_note(t, t->rush->insert(t->rush, key));
		give_way();
	}
	t->ns = now_ns() - start;
	return await_stop();
}

static void rush_run(struct kunit *test, struct rush *rush)
{
	u32 i;

	for (i = 0; i < 2; i++) {
		struct rush_thread *t = &rush->threads[i];

		*t = (struct rush_thread) { .rush = rush, .nr = i };
		t->task = bound_thread(rush_thread, t, i);
		KUNIT_EXPECT_FALSE(test, IS_ERR(t->task));
	}
	atomic_set(&rush->ready, IS_ERR(rush->threads[0].task) +
				 IS_ERR(rush->threads[1].task));
	for (i = 0; i < 2; i++) {
		if (!IS_ERR(rush->threads[i].task))
			wake_up_process(rush->threads[i].task);
	}
	for (i = 0; i < 2; i++) {
		while (!IS_ERR(rush->threads[i].task) && !READ_ONCE(rush->threads[i].ns))
			msleep(20);
		if (!IS_ERR(rush->threads[i].task))
			kthread_stop(rush->threads[i].task);
	}
}

static void rush_tell(struct kunit *test, const char *what, const struct rush *rush)
{
	const struct rush_thread *a = &rush->threads[0], *b = &rush->threads[1];

	kunit_info(test, "measured: %s: %lu insertions from two CPUs with GFP_ATOMIC, %llu ns each; %lu failed for want of memory, %lu with -EBUSY, %lu otherwise\n",
		   what, rush->n, div64_ul(max(a->ns, b->ns), rush->n),
		   a->no_memory + b->no_memory, a->busy + b->busy,
		   a->other + b->other);
}

/* 10^6, ten times as many at scale 1000, as far as there is memory. */
static unsigned long rush_size(void)
{
	return min(scaled(1000000, 20000), totalram_pages() * (PAGE_SIZE / 512));
}

static void chm_insert_atomic_from_two_cpus(struct kunit *test)
{
	struct rush *rush = test_alloc(test, sizeof(*rush));
	unsigned long failed;

	rush->n = rush_size();
	rush->insert = rush_insert_chm;
	KUNIT_ASSERT_EQ(test, chm_init(&rush->map, &u64_params, NULL, NULL), 0);
	rush_run(test, rush);
	rush_tell(test, "chm", rush);
	failed = rush->threads[0].no_memory + rush->threads[0].busy +
		 rush->threads[0].other + rush->threads[1].no_memory +
		 rush->threads[1].busy + rush->threads[1].other;
	/* None, but where the worker waits for a CPU for longer than the slack lasts. */
	KUNIT_EXPECT_LE(test, failed, rush->n / 1000);
	KUNIT_EXPECT_EQ(test, chm_count(&rush->map), rush->n - failed);
	KUNIT_EXPECT_EQ(test, wrong_keys(&rush->map, 0, rush->n), failed);
	expect_sound(test, &rush->map);
	chm_destroy(&rush->map);
}

/* The same loop, for comparison: nothing is expected of it. */
static void chm_insert_atomic_on_rhashtable(struct kunit *test)
{
	struct rush *rush = test_alloc(test, sizeof(*rush));

	rush->n = rush_size();
	rush->insert = rush_insert_rhashtable;
	rush->objects = test_alloc(test, rush->n * sizeof(*rush->objects));
	KUNIT_ASSERT_EQ(test, rhashtable_init(&rush->table, &rush_rhashtable_params), 0);
	rush_run(test, rush);
	rush_tell(test, "rhashtable", rush);
	rhashtable_destroy(&rush->table);
}

/* === The longest insertion =============================================== */

/* How many calls took less than 2^i ns. */
struct times {
	unsigned long		below[40];
	u64			longest;
	unsigned long		at;		/* entries then */
};

static void times_note(struct times *t, u64 ns, unsigned long at)
{
	t->below[min(fls64(ns), 39)]++;
	if (ns > t->longest) {
		t->longest = ns;
		t->at = at;
	}
}

/* What all calls but one in 10000 stay below, as a power of two. */
static u64 times_most(const struct times *t, unsigned long n)
{
	unsigned long rest = n / 10000;
	u32 i;

	for (i = ARRAY_SIZE(t->below) - 1; i && t->below[i] <= rest; i--)
		rest -= t->below[i];
	return 1ULL << i;
}

static void times_tell(struct kunit *test, const char *what, const struct times *t,
		       unsigned long n)
{
	kunit_info(test, "measured: %s: %lu calls, all but one in 10000 below %llu us, the longest %llu us, at %lu entries\n",
		   what, n, div_u64(times_most(t, n) + 999, 1000),
		   div_u64(t->longest, 1000), t->at);
}

/*
 * G11: the time of a write does not grow with the table.  What an interrupt or a
 * host takes is in these figures, too; so all that fails is what copies a whole
 * table at once.
 */
static void chm_insert_takes_bounded_time(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct times *inserts = test_alloc(test, sizeof(*inserts));
	struct times *removals = test_alloc(test, sizeof(*removals));
	unsigned long n = rush_size(), failed = 0, absent = 0;
	u64 key, start;

	for (key = 0; key < n; key++) {
		u64 value = value_of(key);

		start = now_ns();
		failed += chm_insert(map, &key, &value, GFP_ATOMIC) != 0;
		times_note(inserts, now_ns() - start, key);
		give_way();
	}
	/* As in chm_insert_atomic_from_two_cpus(). */
	KUNIT_EXPECT_LE(test, failed, n / 1000);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, n), failed);
	for (key = 0; key < n; key++) {
		start = now_ns();
		absent += chm_remove(map, &key) != 0;
		times_note(removals, now_ns() - start, n - key);
		give_way();
	}
	KUNIT_EXPECT_EQ(test, absent, failed);
	times_tell(test, "insert", inserts, n);
	times_tell(test, "remove", removals, n);
	KUNIT_EXPECT_LT(test, inserts->longest, 8 * NSEC_PER_SEC);
	KUNIT_EXPECT_LT(test, removals->longest, 8 * NSEC_PER_SEC);
}

/* How long it takes to look at each pair, in nanoseconds. */
static u64 walk_ns(struct kunit *test, struct chm *map, unsigned long n)
{
	unsigned long seen = 0;
	u64 start = now_ns(), ns;
	struct chm_iter it;

	for (chm_iter_init(&it, map); chm_iter_next(&it, NULL, NULL); )
		seen++;
	ns = now_ns() - start;
	KUNIT_EXPECT_EQ(test, seen, n);
	return ns;
}

/* G11: it takes no longer to clear a million pairs than a thousand, nearly. */
static void chm_clear_takes_constant_time(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	u64 start, walk = U64_MAX, clear = U64_MAX;
	unsigned long n = rush_size();
	u32 i;

	/* A busy host may disturb some rounds, not all. */
	for (i = 0; i < 3 || (i < 20 && clear >= div_u64(walk, 8)); i++) {
		KUNIT_EXPECT_EQ(test, insert_keys(map, 0, n), 0);
		walk = min(walk, walk_ns(test, map, n));
		start = now_ns();
		chm_clear(map);
		clear = min(clear, now_ns() - start);
		KUNIT_EXPECT_EQ(test, chm_count(map), 0);
		KUNIT_EXPECT_FALSE(test, has_key(map, n / 2));
	}
	kunit_info(test, "measured: %lu pairs: %llu us for clear, %llu us for a walk\n",
		   n, div_u64(clear, 1000), div_u64(walk, 1000));
	KUNIT_EXPECT_LT(test, clear, div_u64(walk, 8));
}

/* === Calls =============================================================== */

/* What the callbacks of a map saw; its ctx. */
struct seen {
	atomic_t		drops;
	atomic_t		clones;
	atomic_t		merges;
	atomic64_t		keys;		/* sum of those dropped */
	atomic64_t		values;
};

static void seen_drop(void *ctx, void *key, void *value)
{
	struct seen *seen = ctx;

	atomic_inc(&seen->drops);
	atomic64_add(*(u64 *)key, &seen->keys);
	atomic64_add(*(u64 *)value, &seen->values);
}

static int seen_clone(void *ctx, void *new_key, void *new_value, const void *key,
		      const void *value, gfp_t gfp)
{
	struct seen *seen = ctx;

	atomic_inc(&seen->clones);
	return 0;
}

static void seen_merge(void *ctx, void *new_value, const void *old_now,
		       const void *snapshot)
{
	struct seen *seen = ctx;

	atomic_inc(&seen->merges);
	atomic_long_add(READ_ONCE(*(const long *)old_now) - *(const long *)snapshot,
			(atomic_long_t *)new_value);
}

static const struct chm_params seen_params = {
	.key_size = sizeof(u64), .value_size = sizeof(u64), .drop = seen_drop,
};

static const struct chm_params word_params = {
	.key_size = sizeof(u64), .value_size = sizeof(u64), .drop = seen_drop,
	.class = CHM_WORD,
};

static const struct chm_params cell_params = {
	.key_size = sizeof(u64), .value_size = sizeof(long), .class = CHM_CELL,
};

/* A map with a ctx of its own, a struct seen. */
static struct chm *seen_map(struct kunit *test, const struct chm_params *p,
			    struct seen **seen)
{
	struct chm *map = test_alloc(test, sizeof(*map));

	*seen = test_alloc(test, sizeof(**seen));
	KUNIT_ASSERT_EQ(test, chm_init(map, p, *seen, NULL), 0);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, destroy_action, map), 0);
	return map;
}

/* ~0: absent. */
static u64 get(struct chm *map, u64 key)
{
	u64 value;

	return chm_get(map, &key, &value) ? value : ~0ULL;
}

static void chm_get_or_insert_tells_which(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .max_entries = 2,
	};
	struct chm *map = test_map(test, &p);
	u64 key = 1, value = 10;

	KUNIT_EXPECT_EQ(test, chm_get_or_insert(map, &key, &value, GFP_KERNEL), 1);
	KUNIT_EXPECT_EQ(test, value, 10);
	value = 11;
	KUNIT_EXPECT_EQ(test, chm_get_or_insert(map, &key, &value, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, value, 10);
	KUNIT_EXPECT_EQ(test, get(map, 1), 10);
	key = 2;
	value = 20;
	KUNIT_EXPECT_EQ(test, chm_get_or_insert(map, &key, &value, GFP_ATOMIC), 1);
	key = 3;
	value = 30;
	KUNIT_EXPECT_EQ(test, chm_get_or_insert(map, &key, &value, GFP_ATOMIC), -E2BIG);
	KUNIT_EXPECT_EQ(test, value, 30);
	key = 2;
	KUNIT_EXPECT_EQ(test, chm_get_or_insert(map, &key, &value, GFP_ATOMIC), 0);
	KUNIT_EXPECT_EQ(test, value, 20);
	KUNIT_EXPECT_EQ(test, chm_count(map), 2);
	expect_sound(test, map);
}

static void chm_get_or_insert_of_cell(struct kunit *test)
{
	struct chm *map = test_map(test, &cell_params);
	long value = 5;
	u64 key = 1;

	KUNIT_EXPECT_EQ(test, chm_get_or_insert(map, &key, &value, GFP_KERNEL), 1);
	KUNIT_EXPECT_EQ(test, chm_cell_add(map, &key, 0, 7), 0);
	value = 0;
	KUNIT_EXPECT_EQ(test, chm_get_or_insert(map, &key, &value, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, value, 12);
}

static void chm_lookup_or_insert_points_into_the_map(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	u64 key, wrong = 0, value;
	u32 round;

	for (round = 0; round < 2; round++) {
		for (key = 0; key < 2000; key++) {
			const u64 *found;

			value = value_of(key) + round;
			rcu_read_lock();
			found = chm_lookup_or_insert(map, &key, &value, GFP_ATOMIC);
			if (IS_ERR_OR_NULL(found) || *found != value_of(key) ||
			    found == &value)
				wrong++;
			rcu_read_unlock();
		}
	}
	KUNIT_EXPECT_EQ(test, wrong, 0);
	KUNIT_EXPECT_EQ(test, chm_count(map), 2000);
	/* When nothing moves it is where a lookup finds it. */
	KUNIT_EXPECT_TRUE(test, settle(map));
	key = 77;
	rcu_read_lock();
	wrong = chm_lookup_or_insert(map, &key, &value, GFP_ATOMIC) != chm_lookup(map, &key);
	rcu_read_unlock();
	KUNIT_EXPECT_EQ(test, wrong, 0);
	expect_sound(test, map);
}

/* The pointer outlives removal and growth, until the section ends. */
static void chm_lookup_or_insert_stays_readable(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	u64 key = 1, value = 4711, changed, inserted = 0;
	const u64 *found;
	u64 i;

	rcu_read_lock();
	found = chm_lookup_or_insert(map, &key, &value, GFP_ATOMIC);
	if (!IS_ERR_OR_NULL(found)) {
		chm_remove(map, &key);
		for (i = 2; i < 3000; i++) {
			inserted += !chm_insert(map, &i, &i, GFP_ATOMIC);
			chm_remove(map, &i);
		}
	}
	changed = IS_ERR_OR_NULL(found) || *found != 4711;
	rcu_read_unlock();
	KUNIT_EXPECT_EQ(test, changed, 0);
	/* Some may fail: no slot is free again before the end of the section. */
	KUNIT_EXPECT_GT(test, inserted, 20);
	expect_sound(test, map);
}

static void chm_lookup_or_insert_fails_by_pointer(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .max_entries = 1,
	};
	struct chm *map = test_map(test, &p);
	u64 key = 1, other = 2, value = 3;
	const void *found, *failed;

	rcu_read_lock();
	found = chm_lookup_or_insert(map, &key, &value, GFP_ATOMIC);
	failed = chm_lookup_or_insert(map, &other, &value, GFP_ATOMIC);
	rcu_read_unlock();
	KUNIT_EXPECT_FALSE(test, IS_ERR_OR_NULL(found));
	KUNIT_EXPECT_EQ(test, PTR_ERR(failed), -E2BIG);
	KUNIT_EXPECT_EQ(test, chm_count(map), 1);
}

/* --- Many at once --- */

#define MANY	5000U

struct many {
	u64			keys[MANY];
	u64			values[MANY];
};

static struct many *many_new(struct kunit *test)
{
	struct many *m = test_alloc(test, sizeof(*m));
	u32 i;

	for (i = 0; i < MANY; i++) {
		m->keys[i] = i;
		m->values[i] = value_of(i);
	}
	return m;
}

static void chm_insert_many_inserts_all(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct many *m = many_new(test);
	unsigned long n, at = 0;
	int err = 1;

	KUNIT_EXPECT_EQ(test, chm_insert_many(map, m->keys, m->values, 0, GFP_KERNEL,
					      &err), 0);
	KUNIT_EXPECT_EQ(test, err, 0);
	for (n = 1; at < MANY; at += n, n = min(3 * n, MANY - at)) {
		err = 1;
		KUNIT_EXPECT_EQ(test, chm_insert_many(map, m->keys + at, m->values + at,
						      n, GFP_KERNEL, &err), n);
		KUNIT_EXPECT_EQ(test, err, 0);
	}
	KUNIT_EXPECT_EQ(test, chm_count(map), MANY);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, MANY), 0);
	expect_sound(test, map);
}

/* From one call in atomic context, through all sizes. */
static void chm_insert_many_grows_in_atomic_context(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct many *m = many_new(test);
	unsigned long done = 0;
	u32 tries = 0;
	int err;

	/* It may get no memory before the worker has run. */
	while (done < MANY && tries++ < 100) {
		rcu_read_lock();
		done += chm_insert_many(map, m->keys + done, m->values + done,
					MANY - done, GFP_ATOMIC, &err);
		rcu_read_unlock();
		if (err && err != -ENOMEM)
			break;
		if (err)
			msleep(20);
	}
	kunit_info(test, "%u calls\n", tries);
	KUNIT_EXPECT_EQ(test, err, 0);
	KUNIT_EXPECT_EQ(test, done, MANY);
	KUNIT_EXPECT_EQ(test, chm_count(map), MANY);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, MANY), 0);
	expect_sound(test, map);
}

static void chm_insert_many_stops_at_the_first_failure(struct kunit *test)
{
	struct many *m = many_new(test);
	u32 at[] = { 0, 1, 31, 32, 33, 64, 1000, 1001 };
	u32 i;
	int err;

	for (i = 0; i < ARRAY_SIZE(at); i++) {
		struct chm *map = test_map(test, &u64_params);

		KUNIT_EXPECT_EQ(test, insert_key(map, at[i]), 0);
		err = 0;
		KUNIT_EXPECT_EQ(test, chm_insert_many(map, m->keys, m->values, 1002,
						      GFP_KERNEL, &err), at[i]);
		KUNIT_EXPECT_EQ(test, err, -EEXIST);
		KUNIT_EXPECT_EQ(test, chm_count(map), at[i] + 1);
		KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, at[i] + 1), 0);
		/* And on from there. */
		KUNIT_EXPECT_EQ(test, chm_insert_many(map, m->keys + at[i] + 1,
						      m->values + at[i] + 1,
						      1001 - at[i], GFP_KERNEL, &err),
				1001 - at[i]);
		KUNIT_EXPECT_EQ(test, err, 0);
		KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 1002), 0);
		expect_sound(test, map);
	}
}

static void chm_insert_many_takes_a_key_once(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .max_entries = 50,
	};
	struct chm *map = test_map(test, &p);
	struct many *m = many_new(test);
	int err = 0;

	m->keys[20] = 17;
	KUNIT_EXPECT_EQ(test, chm_insert_many(map, m->keys, m->values, 40, GFP_KERNEL,
					      &err), 20);
	KUNIT_EXPECT_EQ(test, err, -EEXIST);
	KUNIT_EXPECT_EQ(test, get(map, 17), value_of(17));
	KUNIT_EXPECT_EQ(test, chm_insert_many(map, m->keys + 21, m->values + 21, 100,
					      GFP_KERNEL, &err), 30);
	KUNIT_EXPECT_EQ(test, err, -E2BIG);
	KUNIT_EXPECT_EQ(test, chm_count(map), 50);
	expect_sound(test, map);
}

static void chm_insert_many_keys_without_values(struct kunit *test)
{
	static const struct chm_params p = { .key_size = sizeof(u64) };
	struct chm *map = test_map(test, &p);
	struct many *m = many_new(test);
	int err = 1;

	KUNIT_EXPECT_EQ(test, chm_insert_many(map, m->keys, NULL, 500, GFP_KERNEL, &err),
			500);
	KUNIT_EXPECT_EQ(test, err, 0);
	KUNIT_EXPECT_EQ(test, found_keys(map, 0, 600), 500);
	expect_sound(test, map);
}

static void chm_remove_many_removes_what_is_there(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct many *m = many_new(test);
	unsigned long n, at = 0;
	int err;

	KUNIT_EXPECT_EQ(test, chm_remove_many(map, m->keys, MANY), 0);
	KUNIT_ASSERT_EQ(test, chm_insert_many(map, m->keys, m->values, MANY - 1000,
					      GFP_KERNEL, &err), MANY - 1000);
	KUNIT_EXPECT_EQ(test, chm_remove_many(map, m->keys, 0), 0);
	/* A key counts once. */
	m->keys[1] = 0;
	KUNIT_EXPECT_EQ(test, chm_remove_many(map, m->keys, 2), 1);
	m->keys[1] = 1;
	for (n = 1; at < MANY / 2; at += n, n = min(3 * n, MANY / 2 - at)) {
		KUNIT_EXPECT_EQ(test, chm_remove_many(map, m->keys + at, n), n - !at);
		KUNIT_EXPECT_EQ(test, found_keys(map, 0, at + n), 0);
	}
	KUNIT_EXPECT_EQ(test, wrong_keys(map, MANY / 2, MANY - 1000), 0);
	expect_sound(test, map);
	KUNIT_EXPECT_EQ(test, chm_remove_many(map, m->keys, MANY), MANY / 2 - 1000);
	KUNIT_EXPECT_EQ(test, chm_count(map), 0);
	expect_sound(test, map);
}

/* A migration goes on all the time: one key in each hold of the lock. */
static void chm_remove_many_midway(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct many *m = many_new(test);
	int err;

	KUNIT_ASSERT_EQ(test, chm_insert_many(map, m->keys, m->values, MANY,
					      GFP_KERNEL, &err), MANY);
	KUNIT_ASSERT_TRUE(test, settle(map));
	chm_step_chunks = 1;
	chm_restless = true;
	KUNIT_EXPECT_EQ(test, chm_remove_many(map, m->keys, MANY / 2), MANY / 2);
	expect_sound(test, map);
	chm_restless = false;
	chm_step_chunks = 0;
	KUNIT_EXPECT_EQ(test, found_keys(map, 0, MANY / 2), 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, MANY / 2, MANY), 0);
	KUNIT_EXPECT_EQ(test, chm_count(map), MANY / 2);
}

/* How many keys at most were hashed in ascending order, one after the other. */
struct ascent {
	u64	last;
	u32	now;
	u32	longest;
};

static struct ascent ascent;

static u64 hash_constant_ascending(const void *key, u64 seed)
{
	u64 k = *(const u64 *)key;

	ascent.now = k > ascent.last ? ascent.now + 1 : 1;
	ascent.longest = max(ascent.longest, ascent.now);
	ascent.last = k;
	return unmix(0, seed);
}

/*
 * Each key of a hold is hashed as its chunk is fetched, and then once more: so twice
 * as many keys ascend as are in a hold.
 */
static u32 keys_in_a_hold(void)
{
	return DIV_ROUND_UP(ascent.longest, 2);
}

/*
 * G11: where paths are long, few keys share a hold of the lock, be they present,
 * absent or new.
 */
static void chm_many_share_no_long_hold(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64),
		.hash = hash_constant_ascending,
	};
	struct chm *map = test_map(test, &p);
	struct many *m = many_new(test);
	struct plug *plug;
	int err;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 3000, GFP_KERNEL), 0);
	ascent = (struct ascent) { };
	KUNIT_ASSERT_EQ(test, chm_insert_many(map, m->keys + 1, m->values, 100, GFP_KERNEL,
					      &err), 100);
	KUNIT_EXPECT_GE(test, keys_in_a_hold(), 16);
	KUNIT_ASSERT_EQ(test, chm_insert_many(map, m->keys + 101, m->values, 900,
					      GFP_KERNEL, &err), 900);
	KUNIT_ASSERT_TRUE(test, settle(map));
	/* It hashes pairs in the order of the table. */
	plug = plug_worker(test);
	ascent = (struct ascent) { };
	KUNIT_EXPECT_EQ(test, chm_insert_many(map, m->keys + 1001, m->values, 64,
					      GFP_KERNEL, &err), 64);
	KUNIT_EXPECT_LE(test, keys_in_a_hold(), 8);
	KUNIT_EXPECT_EQ(test, chm_remove_many(map, m->keys + 4000, 64), 0);
	KUNIT_EXPECT_LE(test, keys_in_a_hold(), 8);
	/* Whose bits may go hashes the pairs of a chunk, too. */
	KUNIT_EXPECT_EQ(test, chm_remove_many(map, m->keys + 1001, 64), 64);
	KUNIT_EXPECT_LT(test, keys_in_a_hold(), 16);
	unplug_worker(test, plug);
	expect_sound(test, map);
}

/* --- If it has this value --- */

static void chm_replace_if_compares(struct kunit *test)
{
	struct seen *seen;
	struct chm *map = seen_map(test, &seen_params, &seen);
	u64 key = 1, a = 10, b = 11, c = 12;

	KUNIT_EXPECT_EQ(test, chm_replace_if(map, &key, &a, &b, GFP_KERNEL), -ENOENT);
	KUNIT_EXPECT_EQ(test, chm_insert(map, &key, &a, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, chm_replace_if(map, &key, &b, &c, GFP_KERNEL), -ESTALE);
	KUNIT_EXPECT_EQ(test, get(map, 1), 10);
	KUNIT_EXPECT_EQ(test, chm_replace_if(map, &key, &a, &b, GFP_ATOMIC), 0);
	KUNIT_EXPECT_EQ(test, get(map, 1), 11);
	KUNIT_EXPECT_EQ(test, chm_replace_if(map, &key, &a, &c, GFP_KERNEL), -ESTALE);
	KUNIT_EXPECT_EQ(test, get(map, 1), 11);
	KUNIT_EXPECT_TRUE(test, wait_dead(map));
	KUNIT_EXPECT_EQ(test, atomic_read(&seen->drops), 1);
	KUNIT_EXPECT_EQ(test, atomic64_read(&seen->values), 10);
	expect_sound(test, map);
}

static void chm_replace_if_of_word(struct kunit *test)
{
	struct seen *seen;
	struct chm *map = seen_map(test, &word_params, &seen);
	u64 key = 1, a = 10, b = 11;

	KUNIT_EXPECT_EQ(test, chm_insert(map, &key, &a, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, chm_replace_if(map, &key, &b, &b, GFP_KERNEL), -ESTALE);
	KUNIT_EXPECT_EQ(test, chm_replace_if(map, &key, &a, &b, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, get(map, 1), 11);
	KUNIT_EXPECT_EQ(test, chm_remove_if(map, &key, &a), -ESTALE);
	/* No value is not any value. */
	KUNIT_EXPECT_EQ(test, chm_replace_if(map, &key, NULL, &a, GFP_KERNEL), -EINVAL);
	KUNIT_EXPECT_EQ(test, chm_remove_if(map, &key, NULL), -EINVAL);
	KUNIT_EXPECT_EQ(test, chm_remove_if(map, &key, &b), 0);
	KUNIT_EXPECT_TRUE(test, wait_dead(map));
	KUNIT_EXPECT_EQ(test, atomic_read(&seen->drops), 1);
	KUNIT_EXPECT_EQ(test, atomic64_read(&seen->values), 11);
}

static void chm_remove_if_compares(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = 24,
	};
	struct chm *map = test_map(test, &p);
	u64 key = 1, a[3] = { 1, 2, 3 }, b[3] = { 1, 2, 4 };

	KUNIT_EXPECT_EQ(test, chm_remove_if(map, &key, a), -ENOENT);
	KUNIT_EXPECT_EQ(test, chm_insert(map, &key, a, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, chm_remove_if(map, &key, b), -ESTALE);
	KUNIT_EXPECT_TRUE(test, has_key(map, 1));
	KUNIT_EXPECT_EQ(test, chm_remove_if(map, &key, a), 0);
	KUNIT_EXPECT_FALSE(test, has_key(map, 1));
	KUNIT_EXPECT_EQ(test, chm_remove_if(map, &key, a), -ENOENT);
	expect_sound(test, map);
}

/* What updates add at any time is nothing to be compared. */
static void chm_conditional_calls_refuse_cells(struct kunit *test)
{
	struct chm *map = test_map(test, &cell_params);
	long a = 5, b = 6, old = 77;
	u64 key = 1, old_key = 78;

	KUNIT_EXPECT_EQ(test, chm_insert(map, &key, &a, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, chm_replace_if(map, &key, &a, &b, GFP_KERNEL), -EOPNOTSUPP);
	KUNIT_EXPECT_EQ(test, chm_remove_if(map, &key, &a), -EOPNOTSUPP);
	KUNIT_EXPECT_EQ(test, chm_swap(map, &key, &b, &old_key, &old, GFP_KERNEL),
			-EOPNOTSUPP);
	KUNIT_EXPECT_EQ(test, old, 77);
	KUNIT_EXPECT_EQ(test, old_key, 78);
	KUNIT_EXPECT_EQ(test, get(map, 1), 5);
	/* Not only when there is something to exchange. */
	key = 2;
	KUNIT_EXPECT_EQ(test, chm_swap(map, &key, &b, &old_key, &old, GFP_KERNEL),
			-EOPNOTSUPP);
	KUNIT_EXPECT_FALSE(test, has_key(map, 2));
}

/* --- The old pair comes back --- */

/* Keys that differ in bit 63 only are equal. */
static u64 hash_low_bits(const void *key, u64 hash_seed)
{
	return chm_fold(chm_fold((*(const u64 *)key & S64_MAX) ^ hash_seed));
}

static bool equal_low_bits(const void *a, const void *b)
{
	return !((*(const u64 *)a ^ *(const u64 *)b) & S64_MAX);
}

#define OTHER_BYTES	BIT_ULL(63)

static void chm_swap_hands_out_the_old_pair(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .drop = seen_drop,
		.hash = hash_low_bits, .equal = equal_low_bits,
	};
	struct seen *seen;
	struct chm *map = seen_map(test, &p, &seen);
	u64 key = 1, other = 1 | OTHER_BYTES, old_key = 77, old = 78, a = 10, b = 20, c = 30;

	KUNIT_EXPECT_EQ(test, chm_swap(map, &key, &a, &old_key, &old, GFP_KERNEL), 1);
	KUNIT_EXPECT_EQ(test, old_key, 77);
	KUNIT_EXPECT_EQ(test, old, 78);
	KUNIT_EXPECT_EQ(test, chm_swap(map, &other, &b, &old_key, &old, GFP_ATOMIC), 0);
	KUNIT_EXPECT_EQ(test, old_key, 1);
	KUNIT_EXPECT_EQ(test, old, 10);
	KUNIT_EXPECT_EQ(test, get(map, 1), 20);
	KUNIT_EXPECT_EQ(test, chm_swap(map, &key, &c, &old_key, &old, GFP_ATOMIC), 0);
	KUNIT_EXPECT_EQ(test, old_key, other);
	KUNIT_EXPECT_EQ(test, chm_swap(map, &key, &a, NULL, &old, GFP_ATOMIC), 0);
	KUNIT_EXPECT_EQ(test, old, 30);
	KUNIT_EXPECT_EQ(test, chm_count(map), 1);
	KUNIT_EXPECT_TRUE(test, wait_dead(map));
	KUNIT_EXPECT_EQ(test, atomic_read(&seen->drops), 0);
	expect_sound(test, map);
	destroy_now(test, map);
	KUNIT_EXPECT_EQ(test, atomic_read(&seen->drops), 1);
	KUNIT_EXPECT_EQ(test, atomic64_read(&seen->values), 10);
}

/* The key that is stored stays. */
static void chm_swap_of_word(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .drop = seen_drop,
		.class = CHM_WORD, .hash = hash_low_bits, .equal = equal_low_bits,
	};
	struct seen *seen;
	struct chm *map = seen_map(test, &p, &seen);
	u64 key = 1, other = 1 | OTHER_BYTES, old_key = 77, old = 78, a = 10, b = 20;

	KUNIT_EXPECT_EQ(test, chm_swap(map, &key, &a, &old_key, &old, GFP_KERNEL), 1);
	KUNIT_EXPECT_EQ(test, chm_swap(map, &other, &b, &old_key, &old, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, old_key, 1);
	KUNIT_EXPECT_EQ(test, old, 10);
	KUNIT_EXPECT_EQ(test, chm_take(map, &other, &old_key, &old), 0);
	KUNIT_EXPECT_EQ(test, old_key, 1);
	KUNIT_EXPECT_EQ(test, old, 20);
	KUNIT_EXPECT_TRUE(test, wait_dead(map));
	KUNIT_EXPECT_EQ(test, atomic_read(&seen->drops), 0);
}

static void chm_take_hands_out_the_stored_key(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .drop = seen_drop,
		.hash = hash_low_bits, .equal = equal_low_bits,
	};
	struct seen *seen;
	struct chm *map = seen_map(test, &p, &seen);
	u64 key = 5, other = 5 | OTHER_BYTES, old_key = 77, old = 78, a = 10;

	KUNIT_EXPECT_EQ(test, chm_take(map, &key, &old_key, &old), -ENOENT);
	KUNIT_EXPECT_EQ(test, old_key, 77);
	KUNIT_EXPECT_EQ(test, old, 78);
	KUNIT_EXPECT_EQ(test, chm_insert(map, &other, &a, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, chm_take(map, &key, &old_key, &old), 0);
	KUNIT_EXPECT_EQ(test, old_key, other);
	KUNIT_EXPECT_EQ(test, old, 10);
	KUNIT_EXPECT_EQ(test, chm_insert(map, &key, &a, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, chm_take(map, &key, NULL, &old), 0);
	KUNIT_EXPECT_EQ(test, chm_insert(map, &key, &a, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, chm_take(map, &key, &old_key, NULL), 0);
	KUNIT_EXPECT_EQ(test, old_key, 5);
	KUNIT_EXPECT_TRUE(test, wait_dead(map));
	KUNIT_EXPECT_EQ(test, atomic_read(&seen->drops), 0);
	expect_sound(test, map);
}

static void chm_take_of_cell_hands_out_the_stored_key(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(long), .class = CHM_CELL,
		.hash = hash_low_bits, .equal = equal_low_bits,
	};
	struct chm *map = test_map(test, &p);
	u64 key = 5, other = 5 | OTHER_BYTES, old_key = 77;
	long old = 78;

	KUNIT_EXPECT_EQ(test, chm_cell_upsert_add(map, &other, 0, 3, GFP_KERNEL), 1);
	KUNIT_EXPECT_EQ(test, chm_cell_upsert_add(map, &key, 0, 4, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, chm_take(map, &key, &old_key, &old), 0);
	KUNIT_EXPECT_EQ(test, old_key, other);
	KUNIT_EXPECT_EQ(test, old, 7);
}

/* A thread that takes cell 7 and has to wait. */
struct taker {
	struct chm		*map;
	struct completion	done;
	int			ret;
	long			value;
};

static void taker_init(struct taker *t, struct chm *map)
{
	t->map = map;
	init_completion(&t->done);
}

static int taker_thread(void *arg)
{
	struct taker *t = arg;
	u64 key = 7;

	t->ret = chm_take(t->map, &key, NULL, &t->value);
	complete(&t->done);
	return await_stop();
}

/*
 * The table with the cell that is taken is retired by chm_clear() before its migration
 * was merged, and is not the oldest of those.  The taker gets its sum all the same.
 */
static void chm_take_of_cell_while_cleared(struct kunit *test)
{
	struct taker *t = test_alloc(test, sizeof(*t));
	struct chm *map = test_map(test, &cell_params);
	struct task_struct *task;
	struct long_reader *r;
	u64 key = 7, other;

	taker_init(t, map);
	r = test_reader(test);
	KUNIT_EXPECT_EQ(test, chm_cell_upsert_add(map, &key, 0, 1, GFP_ATOMIC), 1);
	chm_clear(map);
	/* All that the map grows through waits for the reader from now on. */
	for (other = 7; other < 100 && !stats_of(map).grows; other++)
		KUNIT_EXPECT_EQ(test, chm_cell_upsert_add(map, &other, 0, 1, GFP_ATOMIC), 1);
	KUNIT_EXPECT_EQ(test, chm_cell_add(map, &key, 0, 10), 0);
	task = kthread_run(taker_thread, t, "chm_taker");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	while (has_key(map, 7))
		msleep(20);
	chm_clear(map);
	stop_reader(test, r);
	/* If it does not come back, nor will chm_destroy(). */
	KUNIT_ASSERT_NE(test, wait_for_completion_timeout(&t->done, 20 * HZ), 0);
	kthread_stop(task);
	KUNIT_EXPECT_EQ(test, t->ret, 0);
	KUNIT_EXPECT_EQ(test, t->value, 11);
	expect_sound(test, map);
}

/* --- Removal by those who look on --- */

static void chm_remove_while_visiting(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	unsigned long visited = 0, failed = 0;
	const u64 *key, *value;
	struct chm_iter it;
	struct chm_pos pos;
	u64 k;

	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 1000), 0);
	rcu_read_lock();
	chm_for_each_rcu(map, pos, key, value) {
		visited += *value == value_of(*key);
		if (*key % 2)
			failed += chm_remove(map, key) != 0;
	}
	rcu_read_unlock();
	KUNIT_EXPECT_EQ(test, visited, 1000);
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_EQ(test, chm_count(map), 500);
	chm_iter_init(&it, map);
	while (chm_iter_next(&it, &k, NULL))
		failed += chm_remove(map, &k) != 0;
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_EQ(test, chm_count(map), 0);
	expect_sound(test, map);
}

/* --- The callbacks' ctx --- */

static void chm_ctx_reaches_drop(struct kunit *test)
{
	struct seen *one, *two;
	struct chm *a = seen_map(test, &seen_params, &one);
	struct chm *b = seen_map(test, &seen_params, &two);

	KUNIT_EXPECT_EQ(test, insert_keys(a, 0, 300), 0);
	KUNIT_EXPECT_EQ(test, insert_keys(b, 0, 500), 0);
	KUNIT_EXPECT_EQ(test, remove_keys(a, 0, 100), 0);
	chm_clear(b);
	KUNIT_EXPECT_EQ(test, insert_keys(b, 0, 5), 0);
	destroy_now(test, b);
	destroy_now(test, a);
	KUNIT_EXPECT_EQ(test, atomic_read(&one->drops), 300);
	KUNIT_EXPECT_EQ(test, atomic64_read(&one->keys), 300 * 299 / 2);
	KUNIT_EXPECT_EQ(test, atomic_read(&two->drops), 505);
}

static void chm_ctx_reaches_clone(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .class = CHM_CLONE,
		.clone = seen_clone, .drop = seen_drop,
	};
	struct seen *seen;
	struct chm *map = seen_map(test, &p, &seen);

	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 500), 0);
	KUNIT_EXPECT_EQ(test, chm_reserve(map, 3000, GFP_KERNEL), 0);
	KUNIT_EXPECT_GE(test, atomic_read(&seen->clones), 500);
	destroy_now(test, map);
	KUNIT_EXPECT_EQ(test, atomic_read(&seen->drops),
			500 + atomic_read(&seen->clones));
}

/* Add to a cell's old copy, after the table has been replaced. */
static bool update_old_copy(struct chm *map, u64 key, long n)
{
	atomic_long_t *old, *now;
	u64 other;

	rcu_read_lock();
	old = chm_cell_lookup(map, &key);
	now = old;
	for (other = 1000; other < 3000 && now == old; other++) {
		if (chm_insert(map, &other, &n, GFP_ATOMIC))
			break;
		now = chm_cell_lookup(map, &key);
	}
	if (old)
		atomic_long_add(n, old);
	rcu_read_unlock();
	return old && now && old != now;
}

static void chm_ctx_reaches_merge(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(long), .class = CHM_CELL,
		.merge = seen_merge, .drop = seen_drop,
	};
	struct seen *seen;
	struct chm *map = seen_map(test, &p, &seen);
	long value = 7;
	u64 key;

	for (key = 0; key < 100; key++)
		KUNIT_EXPECT_EQ(test, chm_insert(map, &key, &value, GFP_KERNEL), 0);
	KUNIT_EXPECT_TRUE(test, settle(map));
	atomic_set(&seen->merges, 0);
	KUNIT_EXPECT_TRUE(test, update_old_copy(map, 7, 5));
	KUNIT_EXPECT_TRUE(test, settle(map));
	KUNIT_EXPECT_GT(test, atomic_read(&seen->merges), 0);
	key = 7;
	KUNIT_EXPECT_TRUE(test, chm_cell_read(map, &key, &value));
	KUNIT_EXPECT_EQ(test, value, 7 + 5);
	destroy_now(test, map);
	KUNIT_EXPECT_GT(test, atomic_read(&seen->drops), 100);
}

static atomic_t drops_without_ctx;

static void drop_without_ctx(void *ctx, void *key, void *value)
{
	if (!ctx)
		atomic_inc(&drops_without_ctx);
}

static DEFINE_CHM(static_map, .key_size = sizeof(u64), .value_size = sizeof(u64),
		  .drop = drop_without_ctx);

static void chm_ctx_of_static_map_is_null(struct kunit *test)
{
	atomic_set(&drops_without_ctx, 0);
	KUNIT_EXPECT_EQ(test, insert_keys(&static_map, 0, 20), 0);
	chm_clear(&static_map);
	/* It can't be used again; shrink instead of destroying it. */
	KUNIT_EXPECT_EQ(test, chm_shrink(&static_map, GFP_KERNEL), 0);
	KUNIT_EXPECT_TRUE(test, settle(&static_map));
	KUNIT_EXPECT_EQ(test, atomic_read(&drops_without_ctx), 20);
}

/* --- Typed maps that are declared elsewhere --- */

DECLARE_CHM_TYPE(name_map);

/* As a header would have it. */
struct name_user {
	int			before;
	struct name_map		names;
	int			after;
};

DEFINE_CHM_FUNCTIONS(name_map, char[16], u64, .drop = seen_drop);

static void name_fill(char (*name)[16], u32 nr)
{
	memset(*name, 0, sizeof(*name));
	scnprintf(*name, sizeof(*name), "name-%u", nr);
}

static u32 name_walk(struct name_map *names, u64 *sum)
{
	struct chm_iter it;
	char name[16];
	u64 value;
	u32 n = 0;

	*sum = 0;
	name_map_iter_init(&it, names);
	while (name_map_iter_next(&it, &name, &value)) {
		*sum += value;
		n++;
	}
	return n;
}

static void name_change(struct kunit *test, struct name_map *names)
{
	u64 value = 100, old = 0, expected;
	char name[16], old_name[16];

	name_fill(&name, 3);
	KUNIT_EXPECT_EQ(test, name_map_get_or_insert(names, &name, &value, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, value, 3);
	value = 100;
	KUNIT_EXPECT_EQ(test, name_map_replace(names, &name, &value, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, name_map_upsert(names, &name, &value, GFP_KERNEL), 0);
	expected = 101;
	KUNIT_EXPECT_EQ(test, name_map_replace_if(names, &name, &expected, &value,
						  GFP_KERNEL), -ESTALE);
	KUNIT_EXPECT_EQ(test, name_map_remove_if(names, &name, &expected), -ESTALE);
	value = 102;
	KUNIT_EXPECT_EQ(test, name_map_swap(names, &name, &value, &old_name, &old,
					    GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, old, 100);
	KUNIT_EXPECT_STREQ(test, old_name, "name-3");
	KUNIT_EXPECT_EQ(test, name_map_take(names, &name, &old_name, &old), 0);
	KUNIT_EXPECT_EQ(test, old, 102);
	KUNIT_EXPECT_STREQ(test, old_name, "name-3");
	KUNIT_EXPECT_EQ(test, name_map_remove(names, &name), -ENOENT);
	value = 3;
	KUNIT_EXPECT_EQ(test, name_map_insert(names, &name, &value, GFP_KERNEL), 0);
}

static void name_find(struct kunit *test, struct name_map *names, u32 n)
{
	unsigned long wrong = 0;
	char names4[4][16];
	const u64 *values[4];
	u32 i;

	for (i = 0; i < n; i++) {
		const u64 *found;
		char name[16];
		u64 value = 0;

		name_fill(&name, i);
		rcu_read_lock();
		found = name_map_lookup(names, &name);
		wrong += !found || *found != i;
		found = name_map_lookup_or_insert(names, &name, &value, GFP_ATOMIC);
		wrong += IS_ERR_OR_NULL(found) || *found != i;
		rcu_read_unlock();
		wrong += !name_map_get(names, &name, &value) || value != i;
		name_fill(&names4[i % 4], i);
	}
	KUNIT_EXPECT_EQ(test, wrong, 0);
	rcu_read_lock();
	wrong = name_map_lookup_many(names, names4, 4, values);
	rcu_read_unlock();
	KUNIT_EXPECT_EQ(test, wrong, 4);
}

/* All bytes of the array count, also those behind a 0. */
static void name_bytes_count(struct kunit *test, struct name_map *names)
{
	char name[16];
	u64 value = 1;

	name_fill(&name, 1);
	name[15] = 'x';
	KUNIT_EXPECT_FALSE(test, name_map_get(names, &name, &value));
	KUNIT_EXPECT_EQ(test, name_map_insert(names, &name, &value, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, name_map_remove(names, &name), 0);
}

static void chm_typed_map_with_array_keys(struct kunit *test)
{
	struct name_user *user = test_alloc(test, sizeof(*user));
	struct seen *seen = test_alloc(test, sizeof(*seen));
	struct name_map *names = &user->names;
	char (*keys)[16] = test_alloc(test, 200 * sizeof(*keys));
	u64 *values = test_alloc(test, 200 * sizeof(*values));
	struct chm_stats s;
	int err = 1;
	u64 sum;
	u32 i;

	BUILD_BUG_ON(sizeof(struct name_map) != sizeof(struct chm));
	KUNIT_ASSERT_EQ(test, name_map_init(names, seen, NULL), 0);
	for (i = 0; i < 200; i++) {
		name_fill(&keys[i], i);
		values[i] = i;
	}
	KUNIT_EXPECT_EQ(test, name_map_reserve(names, 50, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, name_map_insert_many(names, (void *)keys, values, 200,
						   GFP_KERNEL, &err), 200);
	KUNIT_EXPECT_EQ(test, err, 0);
	name_find(test, names, 200);
	KUNIT_EXPECT_EQ(test, name_map_remove_many(names, (void *)(keys + 190), 10), 10);
	KUNIT_EXPECT_EQ(test, name_map_insert_many(names, (void *)(keys + 190), values + 190,
						   10, GFP_KERNEL, &err), 10);
	name_change(test, names);
	name_bytes_count(test, names);
	KUNIT_EXPECT_EQ(test, name_walk(names, &sum), 200);
	KUNIT_EXPECT_EQ(test, sum, 199 * 200 / 2);
	KUNIT_EXPECT_EQ(test, name_map_count(names), 200);
	KUNIT_EXPECT_EQ(test, name_map_shrink(names, GFP_KERNEL), 0);
	name_map_stats(names, &s);
	KUNIT_EXPECT_EQ(test, s.entries, 200);
	KUNIT_EXPECT_EQ(test, name_map_verify(names), 0);
	name_map_clear(names);
	KUNIT_EXPECT_EQ(test, name_map_insert(names, (void *)keys, values, GFP_KERNEL), 0);
	name_map_destroy_async(names);
	chm_barrier();
	/* 200, ten of them twice, two replacements, the one with an 'x', and the last. */
	KUNIT_EXPECT_EQ(test, atomic_read(&seen->drops), 214);
	KUNIT_ASSERT_EQ(test, name_map_init(names, seen, NULL), 0);
	name_map_destroy(names);
}

/* --- Strings of their own as keys --- */

static atomic_t strings_alive;

static void string_drop(void *ctx, void *key, void *value)
{
	atomic_dec(&strings_alive);
	kfree(*(char **)key);
}

DEFINE_CHM_TYPE(string_map, char *, u64, .hash = chm_hash_string,
		.equal = chm_equal_string, .drop = string_drop);

static char *string_new(u32 nr)
{
	char *s = kasprintf(GFP_KERNEL, "%*s%u", nr % 50, "string", nr);

	if (s)
		atomic_inc(&strings_alive);
	return s;
}

static int string_insert(struct string_map *map, u32 nr)
{
	char *s = string_new(nr);
	u64 value = nr;
	int ret;

	if (!s)
		return -ENOMEM;
	ret = string_map_insert(map, &s, &value, GFP_KERNEL);
	if (ret)
		string_drop(NULL, &s, &value);
	return ret;
}

/* By a string at another address. */
static bool string_has(struct string_map *map, u32 nr)
{
	char text[80], *s = text;
	u64 value;

	scnprintf(text, sizeof(text), "%*s%u", nr % 50, "string", nr);
	return string_map_get(map, &s, &value) && value == nr;
}

static void string_exchange(struct kunit *test, struct string_map *map)
{
	char *s = string_new(7), *old = NULL;
	u64 value = 70, old_value = 0;

	KUNIT_ASSERT_NOT_NULL(test, s);
	KUNIT_EXPECT_EQ(test, string_map_swap(map, &s, &value, &old, &old_value,
					      GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, old_value, 7);
	KUNIT_EXPECT_PTR_NE(test, old, s);
	synchronize_rcu();
	if (old)
		string_drop(NULL, &old, &old_value);
	KUNIT_EXPECT_EQ(test, string_map_take(map, &s, &old, &old_value), 0);
	KUNIT_EXPECT_EQ(test, old_value, 70);
	KUNIT_EXPECT_PTR_EQ(test, old, s);
	synchronize_rcu();
	string_drop(NULL, &s, &value);
	KUNIT_EXPECT_EQ(test, string_insert(map, 7), 0);
}

static void chm_string_keys_are_owned(struct kunit *test)
{
	struct string_map *map = test_alloc(test, sizeof(*map));
	unsigned long missed = 0, found = 0;
	u32 i;

	atomic_set(&strings_alive, 0);
	KUNIT_ASSERT_EQ(test, string_map_init(map, NULL, NULL), 0);
	for (i = 0; i < 1000; i++)
		KUNIT_EXPECT_EQ(test, string_insert(map, i), 0);
	KUNIT_EXPECT_EQ(test, string_insert(map, 500), -EEXIST);
	string_exchange(test, map);
	for (i = 0; i < 1000; i++)
		missed += !string_has(map, i);
	for (; i < 1500; i++)
		found += string_has(map, i);
	KUNIT_EXPECT_EQ(test, missed, 0);
	KUNIT_EXPECT_EQ(test, found, 0);
	KUNIT_EXPECT_EQ(test, string_map_verify(map), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&strings_alive), 1000);
	string_map_destroy(map);
	KUNIT_EXPECT_EQ(test, atomic_read(&strings_alive), 0);
}

static void chm_string_hash_depends_on_seed(struct kunit *test)
{
	const char *a = "one", *same = kstrdup("one", GFP_KERNEL), *b = "two", *empty = "";
	u64 hash = chm_hash_string(&a, 1);

	KUNIT_ASSERT_NOT_NULL(test, same);
	KUNIT_EXPECT_EQ(test, chm_hash_string(&same, 1), hash);
	KUNIT_EXPECT_NE(test, chm_hash_string(&a, 2), hash);
	KUNIT_EXPECT_NE(test, chm_hash_string(&b, 1), hash);
	KUNIT_EXPECT_NE(test, chm_hash_string(&empty, 1), hash);
	KUNIT_EXPECT_TRUE(test, chm_equal_string(&a, &same));
	KUNIT_EXPECT_FALSE(test, chm_equal_string(&a, &b));
	KUNIT_EXPECT_FALSE(test, chm_equal_string(&a, &empty));
	kfree(same);
}

/* === Destroyed without waiting =========================================== */

static void chm_destroy_async_drops_all(struct kunit *test)
{
	struct seen *seen = test_alloc(test, sizeof(*seen));
	struct chm *map = test_alloc(test, sizeof(*map));
	u32 round;

	for (round = 1; round <= 20; round++) {
		KUNIT_ASSERT_EQ(test, chm_init(map, &seen_params, seen, NULL), 0);
		KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 500), 0);
		KUNIT_EXPECT_EQ(test, remove_keys(map, 0, 100), 0);
		chm_destroy_async(map);
		/* Nobody looks at it any more. */
		memset(map, 0x5a, sizeof(*map));
	}
	chm_barrier();
	KUNIT_EXPECT_EQ(test, atomic_read(&seen->drops), 20 * 500);
	KUNIT_EXPECT_EQ(test, atomic64_read(&seen->keys), 20LL * 500 * 499 / 2);
}

/* Who has found a pair may go on reading it. */
static void chm_destroy_async_waits_for_readers(struct kunit *test)
{
	struct seen *seen = test_alloc(test, sizeof(*seen));
	struct chm *map = test_alloc(test, sizeof(*map));
	unsigned long wrong = 0;
	const u64 *found;
	u64 key = 3;
	u32 i;

	KUNIT_ASSERT_EQ(test, chm_init(map, &seen_params, seen, NULL), 0);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 5), 0);
	rcu_read_lock();
	found = chm_lookup(map, &key);
	chm_destroy_async(map);
	for (i = 0; i < 50 && found; i++) {
		wrong += *found != value_of(3) || atomic_read(&seen->drops);
		mdelay(1);
	}
	rcu_read_unlock();
	KUNIT_EXPECT_NOT_NULL(test, found);
	KUNIT_EXPECT_EQ(test, wrong, 0);
	chm_barrier();
	KUNIT_EXPECT_EQ(test, atomic_read(&seen->drops), 5);
}

/* Nothing in it waits, whatever the writers of the map do. */
static void chm_destroy_async_of_sync_map(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .reclaim = CHM_SYNC,
	};
	struct chm *map = test_alloc(test, sizeof(*map));

	KUNIT_ASSERT_EQ(test, chm_init(map, &p, NULL, NULL), 0);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 1000), 0);
	rcu_read_lock();
	chm_destroy_async(map);
	rcu_read_unlock();
	KUNIT_EXPECT_NULL(test, map->p);
	chm_barrier();
}

/* With a table half filled, and one of a CHM_CELL map that settles. */
static void chm_destroy_async_in_the_middle(struct kunit *test)
{
	struct seen *seen = test_alloc(test, sizeof(*seen));
	struct chm *map = test_alloc(test, sizeof(*map));
	static const struct chm_params clones = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .class = CHM_CLONE,
		.clone = seen_clone, .drop = seen_drop,
	};
	static const struct chm_params cells = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .class = CHM_CELL,
		.drop = seen_drop,
	};
	unsigned long inserted = 0;
	u32 n;

	be_restless(test, 1, true);
	for (n = 1; n < 300; n += 13) {
		KUNIT_ASSERT_EQ(test, chm_init(map, n % 2 ? &clones : &cells, seen, NULL), 0);
		KUNIT_EXPECT_EQ(test, insert_keys(map, 0, n), 0);
		inserted += n;
		if (n % 3)
			chm_destroy_async(map);
		else
			chm_destroy(map);
	}
	calm_down(test);
	chm_barrier();
	KUNIT_EXPECT_EQ(test, atomic_read(&seen->drops),
			inserted + atomic_read(&seen->clones));
	KUNIT_EXPECT_GT(test, atomic_read(&seen->clones), 0);
}

struct ender {
	struct hrtimer		timer;
	struct chm		map;
	struct seen		*seen;
	bool			soft;
	int			failed;
	struct completion	done;
};

/* A map that lives and ends within an interrupt. */
static enum hrtimer_restart end_in_timer(struct hrtimer *timer)
{
	struct ender *e = container_of(timer, struct ender, timer);
	u64 key;

	e->failed = chm_init(&e->map, &seen_params, e->seen, NULL);
	for (key = 0; key < 20 && !e->failed; key++)
		e->failed = chm_insert(&e->map, &key, &key, GFP_ATOMIC);
	chm_destroy_async(&e->map);
	memset(&e->map, 0, sizeof(e->map));
	complete(&e->done);
	return HRTIMER_NORESTART;
}

static void end_in(struct kunit *test, enum hrtimer_mode mode)
{
	struct ender *e = test_alloc(test, sizeof(*e));
	u32 round;

	e->seen = test_alloc(test, sizeof(*e->seen));
	hrtimer_setup(&e->timer, end_in_timer, CLOCK_MONOTONIC, mode);
	for (round = 0; round < 10; round++) {
		init_completion(&e->done);
		hrtimer_start(&e->timer, ns_to_ktime(NSEC_PER_USEC), mode);
		wait_for_completion(&e->done);
		hrtimer_cancel(&e->timer);
		KUNIT_EXPECT_EQ(test, e->failed, 0);
	}
	chm_barrier();
	KUNIT_EXPECT_EQ(test, atomic_read(&e->seen->drops), 10 * 20);
}

static void chm_destroy_async_in_softirq(struct kunit *test)
{
	end_in(test, HRTIMER_MODE_REL_SOFT);
}

static void chm_destroy_async_in_hardirq(struct kunit *test)
{
	end_in(test, HRTIMER_MODE_REL);
}

/*
 * The worker was asked for a larger table and is at the map, perhaps, when that is
 * destroyed and its memory is overwritten and freed.
 */
static void chm_destroy_async_under_the_worker(struct kunit *test)
{
	struct seen *seen = test_alloc(test, sizeof(*seen));
	u32 n = scaled(600, 50), i;
	unsigned long inserted = 0;

	for (i = 0; i < n; i++) {
		/* 32 KiB are the table of 1433 pairs. */
		u32 pairs = 1300 + get_random_u32() % 1700;
		struct chm *map = kmalloc(sizeof(*map), GFP_KERNEL);

		KUNIT_ASSERT_NOT_NULL(test, map);
		KUNIT_EXPECT_EQ(test, chm_init(map, &seen_params, seen, NULL), 0);
		KUNIT_EXPECT_EQ(test, insert_keys(map, 0, pairs), 0);
		inserted += pairs;
		udelay(get_random_u32() % 64);
		chm_destroy_async(map);
		memset(map, 0x5a, sizeof(*map));
		kfree(map);
		cond_resched();
	}
	chm_barrier();
	KUNIT_EXPECT_EQ(test, atomic_read(&seen->drops), inserted);
}

struct slow_drop {
	struct completion	inside;
	struct completion	leave;
	atomic64_t		keys;		/* sum of those dropped */
	atomic64_t		values;
	bool			late;
};

static void slow_drop(void *ctx, void *key, void *value)
{
	struct slow_drop *s = ctx;

	complete(&s->inside);
	s->late |= !wait_for_completion_timeout(&s->leave, 60 * HZ);
	atomic64_add(*(u64 *)key, &s->keys);
	atomic64_add(*(u64 *)value, &s->values);
}

/* Nobody uses a slot again before drop() has returned, slow as it may be. */
static void chm_drop_comes_before_reuse(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .drop = slow_drop,
	};
	struct slow_drop *s = test_alloc(test, sizeof(*s));
	struct chm *map = test_alloc(test, sizeof(*map));
	u64 key, keys = 0, values = 0;

	init_completion(&s->inside);
	init_completion(&s->leave);
	KUNIT_ASSERT_EQ(test, chm_init(map, &p, s, NULL), 0);
	KUNIT_EXPECT_EQ(test, chm_reserve(map, 150, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 1, 61), 0);
	KUNIT_EXPECT_EQ(test, remove_keys(map, 1, 61), 0);
	for (key = 1; key < 61; key++) {
		keys += key;
		values += value_of(key);
	}
	KUNIT_EXPECT_NE(test, wait_for_completion_timeout(&s->inside, 60 * HZ), 0);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 1001, 1061), 0);
	complete_all(&s->leave);
	/* In the table, and in one that was replaced, if pairs have strayed. */
	KUNIT_EXPECT_TRUE(test, wait_dead(map));
	KUNIT_EXPECT_TRUE(test, settle(map));
	KUNIT_EXPECT_EQ(test, atomic64_read(&s->keys), keys);
	KUNIT_EXPECT_EQ(test, atomic64_read(&s->values), values);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 1001, 1061), 0);
	KUNIT_EXPECT_FALSE(test, s->late);
	chm_destroy(map);
}

struct destroyer {
	struct chm		*map;
	struct completion	done;
};

static int destroyer_thread(void *arg)
{
	struct destroyer *d = arg;

	chm_destroy(d->map);
	complete(&d->done);
	return await_stop();
}

/* chm_destroy() waits for the turn of the worker, and a slow drop() in it. */
static void chm_destroy_waits_for_drop(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .drop = slow_drop,
	};
	struct slow_drop *s = test_alloc(test, sizeof(*s));
	struct destroyer *d = test_alloc(test, sizeof(*d));
	struct chm *map = test_alloc(test, sizeof(*map));
	struct task_struct *task;

	init_completion(&s->inside);
	init_completion(&s->leave);
	d->map = map;
	init_completion(&d->done);
	KUNIT_ASSERT_EQ(test, chm_init(map, &p, s, NULL), 0);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 3), 0);
	KUNIT_EXPECT_EQ(test, remove_key(map, 1), 0);
	KUNIT_EXPECT_NE(test, wait_for_completion_timeout(&s->inside, 60 * HZ), 0);
	task = kthread_run(destroyer_thread, d, "chm_destroyer");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	msleep(300);
	KUNIT_EXPECT_EQ(test, atomic64_read(&s->keys), 0);
	KUNIT_EXPECT_EQ(test, chm_count(map), 2);
	complete_all(&s->leave);
	KUNIT_EXPECT_NE(test, wait_for_completion_timeout(&d->done, 60 * HZ), 0);
	KUNIT_EXPECT_EQ(test, atomic64_read(&s->keys), 3);
	KUNIT_EXPECT_FALSE(test, s->late);
	kthread_stop(task);
}

/*
 * The worker has many turns at a map, one after the other, because drop() is called
 * for some pairs in each.  chm_destroy() may come between two of them.
 */
static void chm_destroy_between_turns(struct kunit *test)
{
	struct seen *seen = test_alloc(test, sizeof(*seen));
	struct chm *map = test_alloc(test, sizeof(*map));
	u32 n = scaled(300, 60), i;

	for (i = 0; i < n; i++) {
		KUNIT_EXPECT_EQ(test, chm_init(map, &seen_params, seen, NULL), 0);
		KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 1000), 0);
		KUNIT_EXPECT_EQ(test, remove_keys(map, 0, 1000), 0);
		synchronize_rcu_expedited();
		udelay(get_random_u32() % 256);
		chm_destroy(map);
	}
	KUNIT_EXPECT_EQ(test, atomic_read(&seen->drops), n * 1000);
}

/* Waits until a thread waits for something. */
static bool falls_asleep(struct task_struct *task)
{
	unsigned long end = jiffies + 10 * HZ;

	while (task_state_to_char(task) != 'D' && time_before(jiffies, end))
		msleep(20);
	return task_state_to_char(task) == 'D';
}

/* A map that has a pair to drop, which takes until s->leave. */
static void slow_map(struct kunit *test, struct chm *map, struct slow_drop *s)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .drop = slow_drop,
	};

	init_completion(&s->inside);
	init_completion(&s->leave);
	KUNIT_ASSERT_EQ(test, chm_init(map, &p, s, NULL), 0);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 3), 0);
	KUNIT_EXPECT_EQ(test, remove_key(map, 1), 0);
}

/*
 * The turn that chm_destroy() has waited for is over, the worker is at another map, and
 * the next turn of the first one is due.  It does not come.
 */
static void chm_destroy_before_the_next_turn(struct kunit *test)
{
	struct slow_drop *s = test_alloc(test, 2 * sizeof(*s));
	struct destroyer *d = test_alloc(test, sizeof(*d));
	struct chm *maps = test_alloc(test, 2 * sizeof(*maps));
	struct task_struct *task;

	d->map = &maps[0];
	init_completion(&d->done);
	slow_map(test, &maps[0], &s[0]);
	KUNIT_EXPECT_NE(test, wait_for_completion_timeout(&s[0].inside, 60 * HZ), 0);
	slow_map(test, &maps[1], &s[1]);
	synchronize_rcu();
	task = kthread_run(destroyer_thread, d, "chm_destroyer");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	KUNIT_EXPECT_TRUE(test, falls_asleep(task));
	complete_all(&s[0].leave);
	KUNIT_EXPECT_NE(test, wait_for_completion_timeout(&s[1].inside, 60 * HZ), 0);
	KUNIT_EXPECT_NE(test, wait_for_completion_timeout(&d->done, 60 * HZ), 0);
	KUNIT_EXPECT_TRUE(test, list_empty(&maps[0].work));
	/* What fails here shall not end in a panic. */
	list_del_init(&maps[0].work);
	complete_all(&s[1].leave);
	chm_destroy(&maps[1]);
	kthread_stop(task);
	KUNIT_EXPECT_EQ(test, atomic64_read(&s[0].keys), 3);
	KUNIT_EXPECT_EQ(test, atomic64_read(&s[1].keys), 3);
	KUNIT_EXPECT_FALSE(test, s[0].late || s[1].late);
}

static void chm_destroy_async_of_many_maps(struct kunit *test)
{
	u32 n = scaled(10000, 500), i;
	struct seen *seen = test_alloc(test, sizeof(*seen));
	struct chm *maps = test_alloc(test, n * sizeof(*maps));
	u64 start, made, ended, all;

	start = now_ns();
	for (i = 0; i < n; i++) {
		KUNIT_ASSERT_EQ(test, chm_init(&maps[i], &seen_params, seen, NULL), 0);
		KUNIT_EXPECT_EQ(test, insert_keys(&maps[i], 0, 5), 0);
	}
	made = now_ns();
	for (i = 0; i < n; i++)
		chm_destroy_async(&maps[i]);
	ended = now_ns();
	memset(maps, 0x5a, n * sizeof(*maps));
	chm_barrier();
	all = now_ns();
	kunit_info(test, "measured: %u maps of 5 pairs: %llu ns each to make, %llu ns to destroy_async, %llu us until the barrier was over\n",
		   n, div_u64(made - start, n), div_u64(ended - made, n),
		   div_u64(all - ended, 1000));
	KUNIT_EXPECT_EQ(test, atomic_read(&seen->drops), 5 * n);
}

/* What the drop() below does to its own map. */
struct rewriting {
	struct chm	map;
	atomic_t	drops;
	int		inserted;
	int		removed;
};

static void rewriting_drop(void *ctx, void *key, void *value)
{
	struct rewriting *r = ctx;
	u64 other = *(u64 *)key + 1000000;

	atomic_inc(&r->drops);
	r->inserted = chm_insert(&r->map, &other, value, GFP_KERNEL);
	r->removed = chm_remove(&r->map, &other);
	if (chm_reserve(&r->map, 10, GFP_KERNEL) != -ESHUTDOWN)
		r->inserted = 0;
	chm_clear(&r->map);
}

/* A drop() may write to its own map, which may be the one that is being destroyed. */
static void chm_destroy_with_a_drop_that_writes(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = 8, .value_size = 8, .drop = rewriting_drop,
	};
	struct rewriting *r = test_alloc(test, sizeof(*r));

	KUNIT_ASSERT_EQ(test, chm_init(&r->map, &p, r, NULL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(&r->map, 0, 100), 0);
	chm_destroy(&r->map);
	KUNIT_EXPECT_EQ(test, r->inserted, -ESHUTDOWN);
	KUNIT_EXPECT_EQ(test, r->removed, -ENOENT);
	/* Nothing is left for the worker, who would find no map. */
	KUNIT_EXPECT_TRUE(test, list_empty(&r->map.work));
	KUNIT_EXPECT_NULL(test, rcu_access_pointer(r->map.tbl));
	KUNIT_EXPECT_EQ(test, atomic_read(&r->drops), 100);
}

static void chm_barrier_with_nothing_to_do(struct kunit *test)
{
	struct chm *map = test_alloc(test, sizeof(*map));

	chm_barrier();
	KUNIT_ASSERT_EQ(test, chm_init(map, &u64_params, NULL, NULL), 0);
	chm_destroy_async(map);
	chm_barrier();
	chm_barrier();
	KUNIT_SUCCEED(test);
}

/* === Misuse ============================================================== */

/*
 * Each wrong call is to fail with its errno, always, and to be reported in the log,
 * once: so only those who come first see the report.  The kernel's taint tells
 * whether somebody else has been there before.
 */
static atomic_t misuse_reports;
static const char *misuse_name;
static bool misuse_tainted;	/* before this suite */

static void misuse_probe(void *unused, const char *text, size_t len)
{
	if (strnstr(text, misuse_name, len))
		atomic_inc(&misuse_reports);
}

struct misuse {
	const char	*name;		/* of the function, as it is to be reported */
	int		(*call)(struct chm *map);
	bool		cells;
};

static int misuse_insert(struct chm *map)
{
	u64 key = 1000, value = 1;

	return chm_insert(map, &key, &value, GFP_KERNEL);
}

static int misuse_upsert(struct chm *map)
{
	u64 key = 1, value = 1;

	return chm_upsert(map, &key, &value, GFP_KERNEL);
}

static int misuse_replace(struct chm *map)
{
	u64 key = 1, value = 1;

	return chm_replace(map, &key, &value, GFP_KERNEL);
}

static int misuse_replace_if(struct chm *map)
{
	u64 key = 1, old = value_of(1), value = 1;

	return chm_replace_if(map, &key, &old, &value, GFP_KERNEL);
}

static int misuse_swap(struct chm *map)
{
	u64 key = 1, value = 1, old;

	return chm_swap(map, &key, &value, NULL, &old, GFP_KERNEL);
}

static int misuse_get_or_insert(struct chm *map)
{
	u64 key = 1000, value = 1;

	return chm_get_or_insert(map, &key, &value, GFP_KERNEL);
}

static int misuse_lookup_or_insert(struct chm *map)
{
	u64 key = 1000, value = 1;

	return PTR_ERR_OR_ZERO(chm_lookup_or_insert(map, &key, &value, GFP_KERNEL));
}

static int misuse_insert_many(struct chm *map)
{
	u64 keys[2] = { 1000, 1001 };
	int err = 0;

	return chm_insert_many(map, keys, keys, 2, GFP_KERNEL, &err) ? 0 : err;
}

static int misuse_cell_upsert_add(struct chm *map)
{
	u64 key = 1000;

	return chm_cell_upsert_add(map, &key, 0, 1, GFP_KERNEL);
}

static int misuse_reserve(struct chm *map)
{
	return chm_reserve(map, 100000, GFP_KERNEL);
}

static int misuse_shrink(struct chm *map)
{
	return chm_shrink(map, GFP_KERNEL);
}

static int misuse_take(struct chm *map)
{
	u64 key = 1, value;

	return chm_take(map, &key, NULL, &value);
}

static const struct misuse misuses[] = {
	{ "chm_insert", misuse_insert },
	{ "chm_upsert", misuse_upsert },
	{ "chm_replace", misuse_replace },
	{ "chm_replace_if", misuse_replace_if },
	{ "chm_swap", misuse_swap },
	{ "chm_get_or_insert", misuse_get_or_insert },
	{ "chm_insert_many", misuse_insert_many },
	{ "chm_cell_upsert_add", misuse_cell_upsert_add, .cells = true },
	{ "chm_reserve", misuse_reserve },
	{ "chm_shrink", misuse_shrink },
	{ "chm_take", misuse_take, .cells = true },
};

static void misuse_describe(const struct misuse *m, char *desc)
{
	strscpy(desc, m->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(misuse, misuses, misuse_describe);

/* Nothing may end the test before misuse_end(). */
static void misuse_begin(struct kunit *test, const char *name)
{
	misuse_name = name;
	atomic_set(&misuse_reports, 0);
	KUNIT_ASSERT_EQ(test, register_trace_console(misuse_probe, NULL), 0);
	pr_info("EXPECT \\[chm\\]|chm\\.[ch]|of_another_type: begin\n");
}

static void misuse_end(void)
{
	pr_info("EXPECT \\[chm\\]|chm\\.[ch]|of_another_type: end\n");
	unregister_trace_console(misuse_probe, NULL);
	tracepoint_synchronize_unregister();
}

/* Can this kernel tell that somebody is within rcu_read_lock()? */
static bool misuse_is_seen_in_reader(void)
{
	return IS_ENABLED(CONFIG_PREEMPT_RCU) || IS_ENABLED(CONFIG_PREEMPT_COUNT) ||
	       IS_ENABLED(CONFIG_DEBUG_LOCK_ALLOC);
}

static int misuse_in_reader(const struct misuse *m, struct chm *map)
{
	int ret;

	rcu_read_lock();
	ret = m->call(map);
	rcu_read_unlock();
	return ret;
}

static int misuse_without_interrupts(const struct misuse *m, struct chm *map)
{
	unsigned long flags;
	int ret;

	local_irq_save(flags);
	ret = m->call(map);
	local_irq_restore(flags);
	return ret;
}

static int misuse_with_bh_disabled(const struct misuse *m, struct chm *map)
{
	int ret;

	local_bh_disable();
	ret = m->call(map);
	local_bh_enable();
	return ret;
}

/* Nothing was done: no key came or went. */
static void misuse_expect_unchanged(struct kunit *test, struct chm *map)
{
	KUNIT_EXPECT_EQ(test, chm_count(map), 100);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 100), 0);
	expect_sound(test, map);
}

static void chm_blocking_where_it_must_not(struct kunit *test)
{
	const struct misuse *m = test->param_value;
	struct chm *map = test_map(test, m->cells ? &cell_params : &u64_params);
	int ret[3];

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 100), 0);
	misuse_begin(test, m->name);
	ret[0] = misuse_is_seen_in_reader() ? misuse_in_reader(m, map) : -EDEADLK;
	ret[1] = misuse_without_interrupts(m, map);
	ret[2] = misuse_with_bh_disabled(m, map);
	misuse_end();
	KUNIT_EXPECT_EQ_MSG(test, ret[0], -EDEADLK, "in a reader");
	KUNIT_EXPECT_EQ_MSG(test, ret[1], -EDEADLK, "with interrupts off");
	KUNIT_EXPECT_EQ_MSG(test, ret[2], -EDEADLK, "with softirqs off");
	misuse_expect_unchanged(test, map);
	kunit_info(test, "%u lines of the log name it\n", atomic_read(&misuse_reports));
	if (!misuse_tainted)
		KUNIT_EXPECT_GT_MSG(test, atomic_read(&misuse_reports), 0,
				    "nothing in the log");
	/* It is still of use. */
	KUNIT_EXPECT_EQ(test, m->call(map) < 0, 0);
	expect_sound(test, map);
}

/* Its caller is in a reader, even if this kernel can't tell. */
static void chm_lookup_or_insert_that_blocks(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	int ret;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 100), 0);
	misuse_begin(test, "chm_lookup_or_insert");
	rcu_read_lock();
	ret = misuse_lookup_or_insert(map);
	rcu_read_unlock();
	misuse_end();
	KUNIT_EXPECT_EQ(test, ret, -EDEADLK);
	/* As a kernel that can't tell sees it.  Lockdep would complain, and fall silent. */
	if (!IS_ENABLED(CONFIG_PROVE_RCU))
		KUNIT_EXPECT_EQ(test, misuse_lookup_or_insert(map), -EDEADLK);
	misuse_expect_unchanged(test, map);
}

/* A typed walk through a map of larger values does not write behind the buffer. */
static void chm_walk_of_another_type(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = 24,
	};
	struct chm *map = test_map(test, &p);
	u64 key = 1, a[3] = { 1, 2, 3 }, value = 77;
	struct chm_iter it;
	char *string;
	bool found;

	KUNIT_ASSERT_EQ(test, chm_insert(map, &key, a, GFP_KERNEL), 0);
	chm_iter_init(&it, map);
	misuse_begin(test, "chm");
	found = string_map_iter_next(&it, &string, &value);
	misuse_end();
	KUNIT_EXPECT_FALSE(test, found);
	KUNIT_EXPECT_EQ(test, value, 77);
}

/* Once, not each time. */
static void chm_misuse_is_reported_once(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	u32 i;
	int wrong = 0;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 100), 0);
	/* The first may be reported. */
	misuse_begin(test, "WARNING:");
	misuse_without_interrupts(&misuses[0], map);
	misuse_end();
	misuse_begin(test, "WARNING:");
	for (i = 0; i < 10; i++)
		wrong += misuse_without_interrupts(&misuses[0], map) != -EDEADLK;
	misuse_end();
	KUNIT_EXPECT_EQ(test, wrong, 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&misuse_reports), 0);
	misuse_expect_unchanged(test, map);
}

/* Every writer of a CHM_SYNC map must be able to sleep. */
static int misuse_sync_insert(struct chm *map)
{
	u64 key = 1000, value = 1;

	return chm_insert(map, &key, &value, GFP_ATOMIC);
}

static int misuse_sync_remove(struct chm *map)
{
	u64 key = 1;

	return chm_remove(map, &key);
}

static void chm_sync_map_where_it_must_not_block(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .reclaim = CHM_SYNC,
	};
	static const struct misuse insert = { "chm_insert", misuse_sync_insert };
	static const struct misuse removal = { "chm_remove", misuse_sync_remove };
	struct chm *map = test_map(test, &p);
	int ret[2];

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 100), 0);
	misuse_begin(test, "chm_");
	ret[0] = misuse_without_interrupts(&insert, map);
	ret[1] = misuse_without_interrupts(&removal, map);
	misuse_end();
	KUNIT_EXPECT_EQ(test, ret[0], -EDEADLK);
	KUNIT_EXPECT_EQ(test, ret[1], -EDEADLK);
	misuse_expect_unchanged(test, map);
}

/* What a lookup and each writer says where there is no map. */
static void misuse_of_no_map(struct kunit *test, struct chm *map)
{
	u64 key = 1, value = 2, old = 3;
	struct chm_iter it;
	struct chm_stats s;
	unsigned long removed;
	int err = 0, ret[12];
	bool found;
	u32 i;

	misuse_begin(test, "chm_");
	ret[0] = chm_insert(map, &key, &value, GFP_KERNEL);
	ret[1] = chm_insert(map, &key, &value, GFP_ATOMIC);
	ret[2] = chm_upsert(map, &key, &value, GFP_KERNEL);
	ret[3] = chm_replace(map, &key, &value, GFP_KERNEL);
	ret[4] = chm_swap(map, &key, &value, NULL, &old, GFP_KERNEL);
	ret[5] = chm_get_or_insert(map, &key, &value, GFP_KERNEL);
	ret[6] = chm_insert_many(map, &key, &value, 1, GFP_KERNEL, &err) ? 0 : err;
	ret[7] = chm_remove(map, &key);
	removed = chm_remove_many(map, &key, 1);
	ret[8] = chm_remove_if(map, &key, &value);
	ret[9] = chm_take(map, &key, NULL, &old);
	ret[10] = chm_reserve(map, 10, GFP_KERNEL);
	ret[11] = chm_shrink(map, GFP_KERNEL);
	chm_clear(map);
	found = chm_get(map, &key, &value);
	chm_stats(map, &s);
	chm_iter_init(&it, map);
	found |= chm_iter_next(&it, &key, &value);
	misuse_end();
	for (i = 0; i < ARRAY_SIZE(ret); i++)
		KUNIT_EXPECT_EQ_MSG(test, ret[i], -EINVAL, "call %u", i);
	KUNIT_EXPECT_FALSE(test, found);
	KUNIT_EXPECT_EQ(test, removed, 0);
	KUNIT_EXPECT_EQ(test, chm_count(map), 0);
}

static void chm_map_that_was_never_made(struct kunit *test)
{
	misuse_of_no_map(test, test_alloc(test, sizeof(struct chm)));
}

static void chm_map_that_was_destroyed(struct kunit *test)
{
	struct chm *map = test_alloc(test, sizeof(*map));

	KUNIT_ASSERT_EQ(test, chm_init(map, &u64_params, NULL, NULL), 0);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 100), 0);
	chm_destroy(map);
	misuse_of_no_map(test, map);
	/* And it can be made again. */
	KUNIT_ASSERT_EQ(test, chm_init(map, &u64_params, NULL, NULL), 0);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 100), 0);
	chm_destroy(map);
}

static void chm_map_that_was_destroyed_async(struct kunit *test)
{
	struct chm *map = test_alloc(test, sizeof(*map));

	KUNIT_ASSERT_EQ(test, chm_init(map, &u64_params, NULL, NULL), 0);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 100), 0);
	chm_destroy_async(map);
	misuse_of_no_map(test, map);
	chm_barrier();
}

/* === One thread against a model ========================================== */

/*
 * An array says what the map has to hold.  Every call is checked against it, and
 * chm_verify() compares the table that is being filled with what was copied.
 *
 * The worker is held now and then: then all copying is done by the calls, a chunk
 * each, so that they meet migrations in every state.
 */
#define MODEL_KEYS	72U
#define MODEL_VERSIONS	65536U

struct model_spec {
	const char		*name;
	enum chm_class		class;
	u64			(*hash)(const void *key, u64 hash_seed);
	u32			keys;
	bool			restless;
	bool			clone_fails;	/* now and then */
};

struct model {
	struct kunit		*test;
	const struct model_spec	*spec;
	struct chm_params	params;
	struct chm		map;
	struct plug		*plug;
	bool			faults;		/* allocations fail */
	gfp_t			gfp;		/* of the last call */
	u64			rng;
	u64			value[MODEL_KEYS];	/* 0: absent */
	u32			present;
	u64			versions;
	atomic_t		*copies;	/* of each version */
	atomic_t		drops;
	atomic_t		clones;
	u32			asked_to_clone;	/* under the map's lock */
	unsigned long		inserted;
	unsigned long		handed_out;
	unsigned long		wrong;
	unsigned long		refused;	/* for want of memory */
	unsigned long		midway;		/* calls that met a migration */
	unsigned long		calls;
};

static bool model_counts(const struct model *m)
{
	return m->spec->class != CHM_CELL;
}

/* Drops and clones are told by the version; of cells only their number is known. */
static void model_drop(void *ctx, void *key, void *value)
{
	struct model *m = ctx;

	atomic_inc(&m->drops);
	if (model_counts(m) && atomic_dec_return(&m->copies[*(u64 *)value]) < 0)
		WRITE_ONCE(m->wrong, m->wrong + 1);
}

static int model_clone(void *ctx, void *new_key, void *new_value, const void *key,
		       const void *value, gfp_t gfp)
{
	struct model *m = ctx;

	if (m->spec->clone_fails && ++m->asked_to_clone % 97 == 0)
		return -ENOSPC;
	atomic_inc(&m->clones);
	atomic_inc(&m->copies[*(const u64 *)value]);
	return 0;
}

/* A version to store: a drop() of it is due. */
static u64 model_version(struct model *m)
{
	m->versions = m->versions % (MODEL_VERSIONS - 1) + 1;
	if (model_counts(m))
		atomic_inc(&m->copies[m->versions]);
	return m->versions;
}

/* It was not stored, came back, or was overwritten in place: no drop() is due. */
static void model_forget(struct model *m, u64 value)
{
	if (model_counts(m))
		atomic_dec(&m->copies[value]);
}

static void model_stored(struct model *m, u64 key, u64 value)
{
	if (!m->value[key]) {
		m->present++;
		m->inserted++;
	}
	m->value[key] = value;
}

static void model_removed(struct model *m, u64 key)
{
	m->value[key] = 0;
	m->present--;
}

static bool model_in_place(const struct model *m)
{
	return m->spec->class == CHM_WORD || m->spec->class == CHM_CELL;
}

static gfp_t model_gfp(struct model *m)
{
	bool block = !m->plug && rnd(&m->rng, 2);

	m->gfp = (block ? GFP_KERNEL : GFP_ATOMIC) | __GFP_NOWARN;
	return m->gfp;
}

static void model_expect(struct model *m, const char *what, u64 key, s64 got, s64 want)
{
	if (got == want)
		return;
	if (!m->wrong++)
		KUNIT_FAIL(m->test, "%s of key %llu: %lld, not %lld, after %lu calls",
			   what, key, got, want, m->calls);
}

/*
 * Was this call refused for want of memory, as it may be in atomic context, or where
 * allocations fail?  Then nothing has changed.
 */
static bool model_refused(struct model *m, int ret)
{
	if (ret != -ENOMEM || (gfpflags_allow_blocking(m->gfp) && !m->faults))
		return false;
	m->refused++;
	return true;
}

static void model_insert(struct model *m, u64 key)
{
	u64 value = model_version(m), found = value;
	bool get = rnd(&m->rng, 2);
	int ret;

	if (get)
		ret = chm_get_or_insert(&m->map, &key, &found, model_gfp(m));
	else
		ret = chm_insert(&m->map, &key, &value, model_gfp(m));
	if (ret == get && !m->value[key]) {
		model_stored(m, key, value);
		return;
	}
	model_forget(m, value);
	if (model_refused(m, ret))
		return;
	model_expect(m, "insert", key, ret, !m->value[key] ? get : get ? 0 : -EEXIST);
	/* Of cells, it copies what a lookup finds, which may lag behind. */
	if (get && model_counts(m))
		model_expect(m, "get_or_insert", key, found, m->value[key]);
}

static void model_replaced(struct model *m, u64 key, u64 value)
{
	if (model_in_place(m))
		model_forget(m, m->value[key]);
	else
		m->inserted++;
	model_stored(m, key, value);
}

static void model_replace(struct model *m, u64 key)
{
	u64 value = model_version(m);
	int ret = chm_replace(&m->map, &key, &value, model_gfp(m));

	if (!ret && m->value[key])
		model_replaced(m, key, value);
	else
		model_forget(m, value);
	if (!model_refused(m, ret))
		model_expect(m, "replace", key, ret, m->value[key] ? 0 : -ENOENT);
}

static void model_upsert(struct model *m, u64 key)
{
	u64 value = model_version(m);
	int ret = chm_upsert(&m->map, &key, &value, model_gfp(m));

	if (!model_refused(m, ret))
		model_expect(m, "upsert", key, ret, !m->value[key]);
	if (!ret && m->value[key])
		model_replaced(m, key, value);
	else if (ret == 1 && !m->value[key])
		model_stored(m, key, value);
	else
		model_forget(m, value);
}

static void model_swap(struct model *m, u64 key)
{
	u64 value = model_version(m), old = 0, old_key = ~key;
	int ret = chm_swap(&m->map, &key, &value, &old_key, &old, model_gfp(m));

	if (!model_refused(m, ret))
		model_expect(m, "swap", key, ret, !m->value[key]);
	if (!ret && m->value[key]) {
		model_expect(m, "swap: old value", key, old, m->value[key]);
		model_expect(m, "swap: old key", key, old_key, key);
		model_forget(m, m->value[key]);
		if (!model_in_place(m)) {
			m->handed_out++;
			m->inserted++;
		}
	}
	if (ret >= 0)
		model_stored(m, key, value);
	else
		model_forget(m, value);
}

static void model_replace_if(struct model *m, u64 key)
{
	bool hit = rnd(&m->rng, 2);
	u64 value = model_version(m), expected = hit ? m->value[key] : value;
	int ret = chm_replace_if(&m->map, &key, &expected, &value, model_gfp(m));
	int want = !m->value[key] ? -ENOENT : hit ? 0 : -ESTALE;

	if (!model_refused(m, ret))
		model_expect(m, "replace_if", key, ret, want);
	if (!ret && m->value[key])
		model_replaced(m, key, value);
	else
		model_forget(m, value);
}

static void model_remove(struct model *m, u64 key)
{
	bool conditional = model_counts(m) && rnd(&m->rng, 2);
	bool hit = !conditional || rnd(&m->rng, 2);
	u64 expected = m->value[key] + !hit;
	int want = !m->value[key] ? -ENOENT : hit ? 0 : -ESTALE;
	int ret;

	if (conditional)
		ret = chm_remove_if(&m->map, &key, &expected);
	else
		ret = chm_remove(&m->map, &key);
	model_expect(m, "remove", key, ret, want);
	if (!ret && m->value[key])
		model_removed(m, key);
}

static void model_take(struct model *m, u64 key)
{
	u64 old = 0, old_key = key;
	int ret;

	/* Of cells: waits for the worker. */
	if (m->spec->class == CHM_CELL && (m->plug || rnd(&m->rng, 8)))
		return;
	ret = chm_take(&m->map, &key, &old_key, &old);
	model_expect(m, "take", key, ret, m->value[key] ? 0 : -ENOENT);
	if (ret || !m->value[key])
		return;
	model_expect(m, "take: value", key, old, m->value[key]);
	model_expect(m, "take: key", key, old_key, key);
	model_forget(m, m->value[key]);
	m->handed_out++;
	model_removed(m, key);
}

static void model_add(struct model *m, u64 key)
{
	int ret = chm_cell_add(&m->map, &key, 0, 1);

	model_expect(m, "cell_add", key, ret, m->value[key] ? 0 : -ENOENT);
	if (!ret)
		m->value[key]++;
}

static void model_insert_many(struct model *m)
{
	u64 keys[6], values[6], want = 0;
	unsigned long n, i;
	int err = 1;

	for (i = 0; i < 6; i++) {
		keys[i] = rnd(&m->rng, m->spec->keys);
		values[i] = model_version(m);
	}
	n = chm_insert_many(&m->map, keys, values, 6, model_gfp(m), &err);
	for (i = 0; i < 6; i++) {
		if (i >= n || m->value[keys[i]]) {
			model_forget(m, values[i]);
			continue;
		}
		want++;
		model_stored(m, keys[i], values[i]);
	}
	model_expect(m, "insert_many", keys[0], n, want);
	if (n == 6)
		model_expect(m, "insert_many: err", keys[0], err, 0);
	else if (!model_refused(m, err))
		model_expect(m, "insert_many: err", keys[n], err,
			     m->value[keys[n]] ? -EEXIST : 0);
}

static void model_remove_many(struct model *m)
{
	u64 keys[6], want = 0;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(keys); i++) {
		keys[i] = rnd(&m->rng, m->spec->keys);
		if (!m->value[keys[i]])
			continue;
		model_removed(m, keys[i]);
		want++;
	}
	model_expect(m, "remove_many", keys[0],
		     chm_remove_many(&m->map, keys, ARRAY_SIZE(keys)), want);
}

static void model_whole(struct model *m)
{
	u64 key;
	int ret = 0;

	/* What retired tables may take is used up by those who never rest. */
	WRITE_ONCE(chm_restless, false);
	switch (rnd(&m->rng, m->plug ? 2 : 4)) {
	case 0:
		chm_clear(&m->map);
		for (key = 0; key < MODEL_KEYS; key++)
			m->value[key] = 0;
		m->present = 0;
		break;
	case 2:
		ret = chm_reserve(&m->map, rnd(&m->rng, 4 * MODEL_KEYS), GFP_KERNEL);
		break;
	case 3:
		ret = chm_shrink(&m->map, GFP_KERNEL);
	}
	WRITE_ONCE(chm_restless, m->spec->restless);
	/* What clone() said no to. */
	if (m->spec->class == CHM_CLONE && (ret == -ENOSPC || ret == -ENOMEM))
		return;
	if (ret != -ENOMEM || !m->faults)
		model_expect(m, "reserve or shrink", 0, ret, 0);
}

/* Fill and drain by turns, lest the map stays half full. */
static void model_call(struct model *m)
{
	u64 key = rnd(&m->rng, m->spec->keys);
	bool filling = m->calls / 150 % 2;

	m->calls++;
	switch (rnd(&m->rng, 16)) {
	case 0:
	case 1:
		model_upsert(m, key);
		break;
	case 2:
	case 3:
		model_replace(m, key);
		break;
	case 4:
	case 5:
		if (model_counts(m))
			model_swap(m, key);
		else
			model_add(m, key);
		break;
	case 6:
		if (model_counts(m))
			model_replace_if(m, key);
		else
			model_add(m, key);
		break;
	case 7:
		model_insert_many(m);
		break;
	case 8:
		if (!rnd(&m->rng, 6))
			model_whole(m);
		else if (!filling)
			model_remove_many(m);
		break;
	case 9:
	case 10:
		model_take(m, key);
		break;
	default:
		if (rnd(&m->rng, 8) < (filling ? 6 : 2))
			model_insert(m, key);
		else
			model_remove(m, key);
	}
}

/* 0: absent */
static u64 model_read(struct model *m, u64 key)
{
	u64 value;
	bool found;

	if (m->spec->class == CHM_CELL)
		found = chm_cell_read(&m->map, &key, &value);
	else
		found = chm_get(&m->map, &key, &value);
	return found ? value : 0;
}

static void model_compare(struct model *m)
{
	u8 visits[MODEL_KEYS] = {};
	struct chm_iter it;
	u64 key;

	for (key = 0; key < MODEL_KEYS; key++)
		model_expect(m, "value", key, model_read(m, key), m->value[key]);
	chm_iter_init(&it, &m->map);
	while (chm_iter_next(&it, &key, NULL)) {
		if (key < MODEL_KEYS)
			visits[key]++;
		else
			model_expect(m, "walk", key, 1, 0);
	}
	for (key = 0; key < MODEL_KEYS; key++)
		model_expect(m, "visits", key, visits[key], !!m->value[key]);
	model_expect(m, "count", 0, chm_count(&m->map), m->present);
}

static void model_check(struct model *m)
{
	struct chm_stats s = stats_of(&m->map);

	/* Cells are not done with when all are copied. */
	m->midway += (s.copied && s.copied < s.chunks) ||
		     (m->spec->class == CHM_CELL && s.retired_bytes);
	model_expect(m, "verify", 0, chm_verify(&m->map), 0);
	model_compare(m);
}

/* Hold the worker for a time, and let it work for a time. */
static void model_plug(struct model *m)
{
	if (m->plug) {
		unplug_worker(m->test, m->plug);
		m->plug = NULL;
	} else {
		m->plug = plug_worker(m->test);
	}
}

static void model_end(struct model *m)
{
	unsigned long left = 0;
	u32 i;

	if (m->plug)
		model_plug(m);
	calm_down(m->test);
	model_check(m);
	chm_destroy(&m->map);
	for (i = 0; i < MODEL_VERSIONS; i++)
		left += abs(atomic_read(&m->copies[i]));
	KUNIT_EXPECT_EQ_MSG(m->test, left, 0, "G5: versions dropped too often or never");
	KUNIT_EXPECT_EQ_MSG(m->test, atomic_read(&m->drops),
			    m->inserted + atomic_read(&m->clones) - m->handed_out,
			    "G5: drops");
	KUNIT_EXPECT_EQ(m->test, m->wrong, 0);
	KUNIT_EXPECT_LT(m->test, m->refused, m->calls / 3);
	kunit_info(m->test, "measured: %s: %lu calls, %lu met a migration midway, %lu refused\n",
		   m->spec->name, m->calls, m->midway, m->refused);
}

static struct model *model_new(struct kunit *test, const struct model_spec *spec)
{
	struct model *m = test_alloc(test, sizeof(*m));

	m->test = test;
	m->spec = spec;
	flooded_seed = 0;
	m->rng = rnd_seed(spec->class);
	m->copies = test_alloc(test, MODEL_VERSIONS * sizeof(*m->copies));
	m->params = (struct chm_params) {
		.key_size = sizeof(u64), .value_size = sizeof(u64),
		.class = spec->class, .hash = spec->hash, .drop = model_drop,
		.clone = spec->class == CHM_CLONE ? model_clone : NULL,
	};
	KUNIT_ASSERT_EQ(test, chm_init(&m->map, &m->params, m, NULL), 0);
	be_restless(test, 1, spec->restless);
	return m;
}

static void chm_calls_agree_with_model(struct kunit *test)
{
	struct model *m = model_new(test, test->param_value);
	unsigned long n = scaled(6000, 1200);
	/* Clones put off for a second what was given up. */
	unsigned long midway = m->spec->restless && !m->spec->clone_fails ? n / 200 : 0;

	/* Where the worker is fast, and writers are slow, more calls are needed. */
	while ((m->calls < n || (midway && m->midway <= midway && m->calls < 8 * n)) && !m->wrong) {
		if (m->calls % 400 == 200)
			model_plug(m);
		model_call(m);
		model_check(m);
	}
	if (midway)
		KUNIT_EXPECT_GT(test, m->midway, midway);
	model_end(m);
}

static const struct model_spec model_specs[] = {
	{ "frozen", CHM_FROZEN, NULL, MODEL_KEYS, true },
	{ "frozen_few_homes", CHM_FROZEN, hash_wrapping, MODEL_KEYS, true },
	{ "frozen_few_keys", CHM_FROZEN, hash_wrapping, 12, true },
	{ "frozen_calm", CHM_FROZEN, hash_wrapping, MODEL_KEYS, false },
	{ "frozen_flooded", CHM_FROZEN, hash_flooded, MODEL_KEYS, true },
	{ "words", CHM_WORD, NULL, MODEL_KEYS, true },
	{ "words_few_homes", CHM_WORD, hash_wrapping, MODEL_KEYS, true },
	{ "clones", CHM_CLONE, NULL, MODEL_KEYS, true },
	{ "clones_few_homes", CHM_CLONE, hash_wrapping, MODEL_KEYS, true },
	{ "clones_that_fail", CHM_CLONE, NULL, MODEL_KEYS, true, .clone_fails = true },
	{ "cells", CHM_CELL, NULL, MODEL_KEYS, true },
	{ "cells_few_homes", CHM_CELL, hash_wrapping, MODEL_KEYS, true },
	{ "cells_few_keys", CHM_CELL, hash_wrapping, 12, true },
	{ "cells_calm", CHM_CELL, hash_wrapping, MODEL_KEYS, false },
};

static void model_describe_spec(const struct model_spec *spec, char *desc)
{
	strscpy(desc, spec->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(model, model_specs, model_describe_spec);

/* === Memory that does not come =========================================== */

#define FAULT_MOST	200U
#define FAULT_CALLS	25U

/*
 * Some calls with allocation number @n of theirs failing, and with @all those after
 * it.  Return: whether there were so many.
 */
static bool fault_once(struct model *m, unsigned int n, bool all)
{
	bool injected;
	u32 i;

	m->faults = true;
	fail_allocations(n, all);
	for (i = 0; i < FAULT_CALLS; i++)
		model_call(m);
	injected = end_failing();
	m->faults = false;
	model_check(m);
	return injected;
}

/*
 * With memory again, the next insertion does not fail; but one of cells may have to
 * wait for a grace period, and for the worker.
 */
static void fault_recover(struct model *m)
{
	bool cells = m->spec->class == CHM_CELL;
	u64 key, value;
	int ret;

	for (key = 0; key < m->spec->keys && m->value[key]; key++)
		;
	if (key == m->spec->keys)
		return;
	value = model_version(m);
	ret = chm_insert(&m->map, &key, &value,
			 cells && !m->plug ? GFP_KERNEL : GFP_ATOMIC);
	if (!(cells && m->plug && ret == -ENOMEM))
		model_expect(m, "insert after a failure", key, ret, 0);
	if (!ret)
		model_stored(m, key, value);
	else
		model_forget(m, value);
}

/*
 * G6: every allocation fails, the first, the second, and so on, while migrations
 * are half done.  The worker is held half the time: then all of them are made by
 * the calls.
 */
static void chm_calls_survive_failed_allocations(struct kunit *test)
{
	struct model *m = model_new(test, test->param_value);
	unsigned int reached[2] = {};
	u32 way;

	require_failures(test);
	for (way = 0; way < 4 && !m->wrong; way++) {
		unsigned int n = 1;

		if (way % 2)
			model_plug(m);
		while (n < FAULT_MOST && fault_once(m, n, way / 2) && !m->wrong) {
			fault_recover(m);
			n++;
		}
		reached[way / 2] = max(reached[way / 2], n);
		KUNIT_EXPECT_LT(test, n, FAULT_MOST);
		if (way % 2)
			model_plug(m);
	}
	kunit_info(test, "%u and %u failures, %lu calls refused\n", reached[0] - 1,
		   reached[1] - 1, m->refused);
	KUNIT_EXPECT_GT_MSG(test, reached[0], 1, "no allocation to fail");
	model_end(m);
}

static void *no_alloc(u64 bytes, gfp_t gfp)
{
	return ERR_PTR(-ENOMEM);
}

struct stuck {
	const char		*name;
	enum chm_class		class;
	u32			fill;		/* before memory ends */
	gfp_t			gfp;
};

static const struct stuck stuck_specs[] = {
	{ "small_atomic", CHM_FROZEN, 100, GFP_ATOMIC },
	{ "large_atomic", CHM_FROZEN, 20000, GFP_ATOMIC },
	{ "words_atomic", CHM_WORD, 100, GFP_ATOMIC },
	{ "cells_atomic", CHM_CELL, 100, GFP_ATOMIC },
	{ "large_cells_atomic", CHM_CELL, 20000, GFP_ATOMIC },
};

static void stuck_describe(const struct stuck *s, char *desc)
{
	strscpy(desc, s->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(stuck, stuck_specs, stuck_describe);

static int stuck_insert(struct chm *map, u64 key, gfp_t gfp)
{
	u64 value = value_of(key);

	return chm_insert(map, &key, &value, gfp | __GFP_NOWARN);
}

/* The first key that could not be inserted. */
static u64 stuck_fill(struct kunit *test, struct chm *map, u64 from, gfp_t gfp)
{
	int ret = 0;
	u64 key;

	for (key = from; key < from + 200000 && !ret; key++)
		ret = stuck_insert(map, key, gfp);
	KUNIT_EXPECT_EQ(test, ret, -ENOMEM);
	return ret ? key - 1 : key;
}

/*
 * Growth never succeeds.  Insertions go on to half way between max_load and all
 * slots, then fail and change nothing; removals never fail.  With memory, the map
 * grows.
 */
static void chm_growth_that_never_succeeds(struct kunit *test)
{
	const struct stuck *s = test->param_value;
	const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .class = s->class,
	};
	struct chm *map = test_map(test, &p);
	struct plug *plug;
	u64 key, full;
	u32 i;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, s->fill), 0);
	KUNIT_EXPECT_TRUE(test, settle(map));
	plug = plug_worker(test);
	kunit_activate_static_stub(test, chm_alloc, no_alloc);
	full = stuck_fill(test, map, s->fill, s->gfp);
	kunit_info(test, "%llu pairs in %lu slots\n", full, stats_of(map).slots);
	KUNIT_EXPECT_GE(test, full * 100, stats_of(map).slots * 85);
	for (i = 0; i < 20; i++)
		KUNIT_EXPECT_EQ(test, stuck_insert(map, full + i, s->gfp), -ENOMEM);
	KUNIT_EXPECT_EQ(test, chm_count(map), full);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, full), 0);
	expect_sound(test, map);
	for (key = 0; key < full; key += 2)
		KUNIT_EXPECT_EQ(test, remove_key(map, key), 0);
	KUNIT_EXPECT_EQ(test, chm_count(map), full / 2);
	expect_sound(test, map);
	kunit_deactivate_static_stub(test, chm_alloc);
	unplug_worker(test, plug);
	for (i = 0; i < 250 && stuck_insert(map, full, GFP_ATOMIC) == -ENOMEM; i++)
		msleep(20);
	KUNIT_EXPECT_TRUE(test, has_key(map, full));
	KUNIT_EXPECT_EQ(test, insert_keys(map, full + 1, 3 * full), 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, full, 3 * full), 0);
	expect_sound(test, map);
}

/* The worker is of no help, but there is memory: small tables take no worker. */
static void chm_growth_without_worker(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct plug *plug = plug_worker(test);
	unsigned long failed = 0;
	u64 key;

	for (key = 0; key < 1000; key++)
		failed += stuck_insert(map, key, GFP_ATOMIC) != 0;
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 1000), 0);
	expect_sound(test, map);
	unplug_worker(test, plug);
}

/* Who may block needs no worker, as long as retired tables are within the budget. */
static void chm_growth_without_worker_by_blocking(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct plug *plug = plug_worker(test);
	u64 n = 15000;

	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, n), 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, n), 0);
	expect_sound(test, map);
	unplug_worker(test, plug);
	expect_sound(test, map);
}

static u64 largest_request;
static u32 generous_requests;

/* Memory that takes reclaim, and insisting on it. */
static void *alloc_for_the_insistent(u64 bytes, gfp_t gfp)
{
	if (gfp & __GFP_NORETRY || !gfpflags_allow_blocking(gfp))
		return ERR_PTR(-ENOMEM);
	generous_requests += bytes > SZ_64K &&
			     bytes > largest_request + largest_request / 4;
	largest_request = max(largest_request, bytes);
	return __chm_alloc(bytes, gfp);
}

/*
 * Pairs have filled the table: a larger one is asked for as hard as the caller may, but
 * then no larger than they need.
 */
static void chm_growth_takes_gfp_of_caller(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct plug *plug = plug_worker(test);

	generous_requests = 0;
	largest_request = 0;
	kunit_activate_static_stub(test, chm_alloc, alloc_for_the_insistent);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 10000), 0);
	kunit_deactivate_static_stub(test, chm_alloc);
	KUNIT_EXPECT_EQ(test, generous_requests, 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 10000), 0);
	unplug_worker(test, plug);
	expect_sound(test, map);
}

/* Replaces @key, beside a reader, until DEAD slots leave no room for that. */
static void fill_with_dead(struct kunit *test, struct chm *map, u64 key)
{
	u64 value = value_of(key);
	int ret = 0;
	u32 i;

	for (i = 0; i < 20000 && !ret; i++)
		ret = chm_replace(map, &key, &value, GFP_ATOMIC);
	KUNIT_EXPECT_EQ(test, ret, -ENOMEM);
}

/* Without room, and memory, a call that would change nothing says so all the same. */
static void chm_stale_value_takes_no_room(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	u64 key = 7, value = value_of(key), other = value + 1;
	struct long_reader *r;
	struct plug *plug;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 3000), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	plug = plug_worker(test);
	r = test_reader(test);
	kunit_activate_static_stub(test, chm_alloc, no_alloc);
	stuck_fill(test, map, 3000, GFP_ATOMIC);
	fill_with_dead(test, map, key);
	KUNIT_EXPECT_EQ(test, chm_replace_if(map, &key, &other, &value, GFP_ATOMIC),
			-ESTALE);
	KUNIT_EXPECT_EQ(test, chm_replace_if(map, &key, &value, &other, GFP_ATOMIC),
			-ENOMEM);
	kunit_deactivate_static_stub(test, chm_alloc);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 3000), 0);
	stop_reader(test, r);
	unplug_worker(test, plug);
	expect_sound(test, map);
}

static int refuse_clone(void *ctx, void *key, void *value, const void *old_key,
			const void *old_value, gfp_t gfp)
{
	return -ENOMEM;
}

/* DEAD slots fill a table that clone() does not let the map replace: wait for readers. */
static void chm_full_of_dead_without_clones(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64),
		.class = CHM_CLONE, .clone = refuse_clone,
	};
	struct chm *map = test_map(test, &p);
	u64 key = 7, value = value_of(key);
	struct long_reader *r;
	struct plug *plug;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 1000, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 1000), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	plug = plug_worker(test);
	r = test_reader(test);
	fill_with_dead(test, map, key);
	WRITE_ONCE(r->leave, true);
	KUNIT_EXPECT_EQ(test, chm_replace(map, &key, &value, GFP_KERNEL), 0);
	stop_reader(test, r);
	unplug_worker(test, plug);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 1000), 0);
	expect_sound(test, map);
}

/* The same beyond the maximum load, where growth is due. */
static void chm_beyond_maximum_without_clones(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64),
		.class = CHM_CLONE, .clone = refuse_clone,
	};
	struct chm *map = test_map(test, &p);
	unsigned long n, failed = 0;
	u64 key, value;
	u32 i;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 1000, GFP_KERNEL), 0);
	n = max_entries_of(map) + 1;
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, n), 0);
	for (i = 0; i < 2000; i++) {
		key = i % n;
		value = value_of(key);
		failed += chm_replace(map, &key, &value, GFP_KERNEL) != 0;
	}
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, n), 0);
	expect_sound(test, map);
}

/*
 * So do DEAD slots that lie between a pair and the end of its path.  Without clone(),
 * pairs also come to lie where all slots behind them are FULL: no wait makes room then.
 */
static void chm_stuck_without_clones(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64),
		.class = CHM_CLONE, .clone = refuse_clone, .drop = drop_nothing,
	};
	struct chm *map = test_map(test, &p);
	unsigned long failed = 0;
	u64 key, value;
	u32 i;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 100, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 100), 0);
	for (i = 0; i < 1000; i++) {
		key = i % 100;
		value = value_of(key);
		failed += chm_replace(map, &key, &value, GFP_KERNEL) && stats_of(map).dead;
	}
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 100), 0);
	expect_sound(test, map);
}

static bool clones_refused;

static int clone_unless_refused(void *ctx, void *key, void *value, const void *old_key,
				const void *old_value, gfp_t gfp)
{
	return READ_ONCE(clones_refused) ? -ENOMEM : 0;
}

struct replacer {
	struct chm		*map;
	struct completion	done;
	int			ret;
};

static void replacer_init(struct replacer *r, struct chm *map)
{
	r->map = map;
	init_completion(&r->done);
}

static int replacer_thread(void *arg)
{
	struct replacer *r = arg;
	u64 key = 7, value = value_of(key);

	r->ret = chm_replace(r->map, &key, &value, GFP_KERNEL);
	complete(&r->done);
	return await_stop();
}

/*
 * DEAD slots fill a table, whose pairs only the worker may drop, and the worker is held
 * up elsewhere.  clone() has failed, but works again: the writer does not wait.
 */
static void chm_full_of_dead_clones_again(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64),
		.class = CHM_CLONE, .clone = clone_unless_refused, .drop = drop_nothing,
	};
	struct replacer *r = test_alloc(test, sizeof(*r));
	struct chm *map = test_map(test, &p);
	struct task_struct *task;
	struct plug *plug;

	replacer_init(r, map);
	WRITE_ONCE(clones_refused, false);
	KUNIT_ASSERT_EQ(test, chm_reserve(map, 1000, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 1000), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	plug = plug_worker(test);
	WRITE_ONCE(clones_refused, true);
	fill_with_dead(test, map, 7);
	WRITE_ONCE(clones_refused, false);
	msleep(2100);
	task = kthread_run(replacer_thread, r, "chm_replacer");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	KUNIT_EXPECT_NE(test, wait_for_completion_timeout(&r->done, 20 * HZ), 0);
	unplug_worker(test, plug);
	kthread_stop(task);
	KUNIT_EXPECT_EQ(test, r->ret, 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 1000), 0);
	expect_sound(test, map);
}

/*
 * The first slot that dies is sealed at once, all others join the open generation.  A
 * writer that waits for a grace period can use them all.
 */
static void chm_one_wait_will_do(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	unsigned long flags, most, hard, waits;
	struct long_reader *r;
	struct chm_table *t;
	struct plug *plug;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 1000, GFP_KERNEL), 0);
	t = lock_table(map, &flags);
	most = t->max_entries;
	hard = t->hard_entries;
	unlock_table(map, &flags);
	plug = plug_worker(test);
	/* Writers build no tables meanwhile. */
	claim(map, 1);
	r = test_reader(test);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, most), 0);
	KUNIT_EXPECT_EQ(test, remove_keys(map, 0, most), 0);
	KUNIT_EXPECT_EQ(test, insert_keys(map, most, hard), 0);
	KUNIT_EXPECT_EQ(test, stats_of(map).dead, most);
	waits = stats_of(map).gp_waits;
	stop_reader(test, r);
	KUNIT_EXPECT_EQ(test, insert_key(map, hard), 0);
	KUNIT_EXPECT_LE(test, stats_of(map).gp_waits, waits + 1);
	KUNIT_EXPECT_EQ(test, insert_keys(map, hard + 1, hard + most / 2), 0);
	KUNIT_EXPECT_LE(test, stats_of(map).gp_waits, waits + 1);
	claim(map, -1);
	unplug_worker(test, plug);
	expect_sound(test, map);
}

/*
 * A writer waits for a reader.  Slots die meanwhile, and a later reader, this thread, may
 * still look at those.  Return: does the wait end before it has left?
 */
static bool wait_ends_early(struct kunit *test)
{
	struct replacer *r = test_alloc(test, sizeof(*r));
	struct chm *map = test_map(test, &u64_params);
	unsigned long waits, failed, dead, end;
	struct long_reader *early;
	struct task_struct *task;
	struct plug *plug;
	bool ends;

	replacer_init(r, map);
	KUNIT_ASSERT_EQ(test, chm_reserve(map, 1000, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 1000), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	plug = plug_worker(test);
	early = test_reader(test);
	kunit_activate_static_stub(test, chm_alloc, no_alloc);
	fill_with_dead(test, map, 7);
	kunit_deactivate_static_stub(test, chm_alloc);
	claim(map, 1);
	waits = stats_of(map).gp_waits;
	task = kthread_run(replacer_thread, r, "chm_replacer");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	KUNIT_EXPECT_TRUE(test, wait_until_more(map, offsetof(struct chm_stats, gp_waits),
						waits));
	msleep(100);
	end = jiffies + HZ;
	rcu_read_lock();
	failed = remove_keys(map, 20, 120);
	WRITE_ONCE(early->leave, true);
	while (!completion_done(&r->done) && time_before(jiffies, end))
		cpu_relax();
	ends = completion_done(&r->done);
	dead = stats_of(map).dead;
	rcu_read_unlock();
	stop_reader(test, early);
	KUNIT_EXPECT_NE(test, wait_for_completion_timeout(&r->done, 60 * HZ), 0);
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_GE_MSG(test, dead, 100, "G3");
	claim(map, -1);
	unplug_worker(test, plug);
	kthread_stop(task);
	KUNIT_EXPECT_EQ(test, r->ret, 0);
	expect_sound(test, map);
	return ends;
}

/* It is for both readers if RCU was busy when it began. */
static void chm_wait_is_not_for_what_dies_later(struct kunit *test)
{
	bool ends = false;
	u32 i;

	for (i = 0; i < 8 && !ends; i++)
		ends = wait_ends_early(test);
	if (!ends)
		kunit_skip(test, "RCU was busy each time");
}

static struct {
	struct plug		*plug;		/* NULL: it was pulled */
	struct long_reader	*late;
	bool			taken;
} waited;

/* A wait is over, but not yet counted: another one begins, is over, and is counted. */
static void take_another(struct chm *map)
{
	u64 key = 2;
	long value;

	if (waited.taken)
		return;
	waited.taken = true;
	chm_take(map, &key, NULL, &value);
}

/*
 * Slots of two generations are DEAD when a writer begins to wait, and one more when it
 * has.  Another writer has waited for that one: this counts on.
 */
static void chm_longer_wait_takes_nothing_back(struct kunit *test)
{
	struct chm *map = test_map(test, &cell_params);
	unsigned long flags;
	struct plug *plug;
	u64 key = 1;
	bool awaited;
	long value;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 100, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 10), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	plug = plug_worker(test);
	KUNIT_EXPECT_EQ(test, remove_key(map, 0), 0);
	waited.taken = false;
	kunit_activate_static_stub(test, chm_waited, take_another);
	KUNIT_EXPECT_EQ(test, chm_take(map, &key, NULL, &value), 0);
	kunit_deactivate_static_stub(test, chm_waited);
	awaited = lock_table(map, &flags)->awaited;
	unlock_table(map, &flags);
	KUNIT_EXPECT_TRUE(test, waited.taken);
	KUNIT_EXPECT_TRUE(test, awaited);
	KUNIT_EXPECT_FALSE(test, has_key(map, 2));
	unplug_worker(test, plug);
	expect_sound(test, map);
}

/* The cookie of the oldest retired table, else of the sealed generation. */
static unsigned long set_cookie(struct chm *map, unsigned long cookie)
{
	unsigned long flags, before;
	struct chm_table *t = lock_table(map, &flags);

	if (map->retired)
		t = map->retired->link;
	before = t->cookie;
	t->cookie = cookie;
	unlock_table(map, &flags);
	return before;
}

/*
 * A wait is over, but not yet counted.  The worker looks too soon: it has to wait
 * itself, for a reader that came later.
 */
static void worker_looks(struct chm *map)
{
	struct plug *plug = waited.plug;
	unsigned long cookie;

	if (!plug)
		return;
	waited.plug = NULL;
	waited.late = test_reader(kunit_get_current_test());
	cookie = set_cookie(map, get_state_synchronize_rcu());
	complete_all(&plug->leave);
	msleep(200);
	set_cookie(map, cookie);
}

static void begin_to_look(struct kunit *test)
{
	waited.late = NULL;
	waited.plug = plug_worker(test);
	kunit_activate_static_stub(test, chm_waited, worker_looks);
}

static void end_looking(struct kunit *test, struct chm *map)
{
	kunit_deactivate_static_stub(test, chm_waited);
	KUNIT_ASSERT_NOT_NULL(test, waited.late);
	stop_reader(test, waited.late);
	expect_sound(test, map);
}

/* A writer has waited for what only the worker may drop: it is called. */
static void chm_worker_drops_after_a_wait(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .drop = drop_nothing,
	};
	struct chm *map = test_map(test, &p);
	u64 key, value = 0;
	u32 i;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 1000, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 1000), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	begin_to_look(test);
	/* Writers build no tables meanwhile. */
	claim(map, 1);
	for (i = 0; i < 20000 && waited.plug; i++) {
		key = i % 1000;
		KUNIT_EXPECT_EQ(test, chm_replace(map, &key, &value, GFP_KERNEL), 0);
	}
	claim(map, -1);
	end_looking(test, map);
}

/* A writer has waited until an earlier table may be freed: likewise. */
static void chm_worker_frees_after_a_wait(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 10), 0);
	KUNIT_ASSERT_EQ(test, chm_reserve(map, 300000, GFP_KERNEL), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	begin_to_look(test);
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, chm_reserve(map, 1000, GFP_KERNEL), 0);
	end_looking(test, map);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 10), 0);
}

/* A flood is met as soon as there is memory, however long tidying is put off. */
static void chm_defence_is_not_put_off(struct kunit *test)
{
	const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64),
		.hash = hash_flooded_late,
	};
	struct chm *map = test_map(test, &p);
	u64 key = 1ULL << 32;
	struct plug *plug;

	WRITE_ONCE(flooded_seed, 0);
	KUNIT_ASSERT_EQ(test, chm_reserve(map, 1200, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 100), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	plug = plug_worker(test);
	map->tidy_from = ktime_get_seconds() + 1000;
	kunit_activate_static_stub(test, chm_alloc, no_alloc);
	KUNIT_EXPECT_EQ(test, insert_keys(map, key, key + 400), 0);
	kunit_deactivate_static_stub(test, chm_alloc);
	KUNIT_EXPECT_EQ(test, stats_of(map).reseeds, 0);
	msleep(2100);
	KUNIT_EXPECT_EQ(test, insert_keys(map, key + 400, key + 401), 0);
	KUNIT_EXPECT_EQ(test, stats_of(map).reseeds, 1);
	KUNIT_EXPECT_GT(test, tidying_put_off(map, ktime_get_seconds()), 500);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, key, key + 401), 0);
	unplug_worker(test, plug);
	expect_sound(test, map);
}

static const struct chm_params u64_words = {
	.key_size = sizeof(u64), .value_size = sizeof(u64), .class = CHM_WORD,
};

/* Replaces words, which makes nothing due: does a write look for that nevertheless? */
static void expect_no_look(struct kunit *test, struct chm *map)
{
	u64 key = 1, value;
	unsigned long flags;
	u8 later;

	for (value = 0; value < 2; value++)
		KUNIT_EXPECT_EQ(test, chm_replace(map, &key, &value, GFP_KERNEL), 0);
	later = lock_table(map, &flags)->look_later;
	unlock_table(map, &flags);
	KUNIT_EXPECT_GT(test, later, 0);
}

/* With as many pairs as were reserved, or as the table is for, writes still cost little. */
static void chm_full_table_is_looked_at_rarely(struct kunit *test)
{
	struct chm *few = test_map(test, &u64_words), *many = test_map(test, &u64_words);

	KUNIT_ASSERT_EQ(test, chm_reserve(many, 20000, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(many, 0, 20000), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(few, 0, 11), 0);
	KUNIT_ASSERT_TRUE(test, settle(many));
	KUNIT_ASSERT_EQ(test, max_entries_of(few), 11);
	expect_no_look(test, many);
	expect_no_look(test, few);
	expect_sound(test, many);
	expect_sound(test, few);
}

/* A table that was made to fit stays, however often its words are replaced. */
static void chm_shrunk_table_stays(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_words);
	struct chm_stats before;
	struct long_reader *r;
	u64 key, value;
	u32 i;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 10000), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	r = test_reader(test);
	KUNIT_ASSERT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	before = stats_of(map);
	for (i = 0; i < 3 * before.chunks; i++) {
		key = i % 10000;
		value = value_of(key);
		KUNIT_EXPECT_EQ(test, chm_replace(map, &key, &value, GFP_ATOMIC), 0);
	}
	stop_reader(test, r);
	KUNIT_EXPECT_TRUE(test, settle(map));
	KUNIT_EXPECT_EQ(test, stats_of(map).grows, before.grows);
	KUNIT_EXPECT_EQ(test, stats_of(map).chunks, before.chunks);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 10000), 0);
	expect_sound(test, map);
}

/* --- What is wanted comes --- */

struct wanted {
	const char		*name;
	u32			pairs;
};

/* The table of the first is allocated by the writer, the other one by the worker. */
static const struct wanted wanted_specs[] = {
	{ "small", 100 },
	{ "large", 3000 },
};

KUNIT_ARRAY_PARAM_DESC(wanted, wanted_specs, name);

/* Insert until the table is too small, and no more. */
static void outgrow(struct kunit *test, struct chm *map, u32 pairs)
{
	unsigned long flags, most;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, pairs, GFP_KERNEL), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	most = lock_table(map, &flags)->max_entries;
	unlock_table(map, &flags);
	kunit_activate_static_stub(test, chm_alloc, no_alloc);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, most + 1), 0);
	kunit_deactivate_static_stub(test, chm_alloc);
}

/* Who gets no memory has the worker ask for it, though nobody writes any more. */
static void chm_wanted_table_comes(struct kunit *test)
{
	const struct wanted *w = test->param_value;
	struct chm *map = test_map(test, &u64_params);

	outgrow(test, map, w->pairs);
	KUNIT_EXPECT_TRUE(test, settle(map));
	KUNIT_EXPECT_EQ(test, stats_of(map).grows, 1);
	expect_sound(test, map);
}

/* What is not wanted any more does not come, and does when it is wanted again. */
static void chm_wanted_no_more(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct plug *plug = plug_worker(test);
	u64 end;

	outgrow(test, map, 3000);
	end = chm_count(map);
	/* Only what was reserved is left. */
	KUNIT_EXPECT_EQ(test, remove_keys(map, 0, end - 3000), 0);
	unplug_worker(test, plug);
	KUNIT_EXPECT_TRUE(test, settle(map));
	KUNIT_EXPECT_EQ(test, stats_of(map).grows, 0);
	KUNIT_EXPECT_EQ(test, insert_keys(map, end, end + 100), 0);
	KUNIT_EXPECT_TRUE(test, settle(map));
	KUNIT_EXPECT_EQ(test, stats_of(map).grows, 1);
	expect_sound(test, map);
}

static bool refused;

/* From here on the worker is part of the test, for which there is a stub. */
static void join_test(void *test)
{
	current->kunit_test = test;
}

/* The worker leaves the test with its first allocation, which fails. */
static void *refuse_once(u64 bytes, gfp_t gfp)
{
	current->kunit_test = NULL;
	WRITE_ONCE(refused, true);
	return ERR_PTR(-ENOMEM);
}

/* The worker that gets no memory, either, asks again. */
static void chm_wanted_table_comes_later(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct plug *plug = plug_worker(test);

	plug->then = join_test;
	plug->arg = test;
	WRITE_ONCE(refused, false);
	outgrow(test, map, 3000);
	kunit_activate_static_stub(test, chm_alloc, refuse_once);
	unplug_worker(test, plug);
	KUNIT_EXPECT_TRUE(test, settle(map));
	kunit_deactivate_static_stub(test, chm_alloc);
	KUNIT_EXPECT_TRUE(test, READ_ONCE(refused));
	KUNIT_EXPECT_EQ(test, stats_of(map).failed_allocs, 1);
	KUNIT_EXPECT_EQ(test, stats_of(map).grows, 1);
	expect_sound(test, map);
}

/* Where the worker is, and whether it has left. */
static struct completion lingering;
static bool has_left;

/* The worker takes its time to free a table, but for the plug's. */
static void linger(struct chm_table *t)
{
	struct kunit *test = current->kunit_test;
	bool mine = t->p == &u64_params;

	if (mine) {
		complete(&lingering);
		msleep(100);
		WRITE_ONCE(has_left, true);
	}
	current->kunit_test = NULL;
	chm_table_free(t);
	/* The worker has left the test then. */
	current->kunit_test = mine ? NULL : test;
}

/*
 * A map is destroyed that has nothing to hand over.  The worker has just forgotten its
 * last table, and is about to free it: that takes the map's parameters.
 */
static void chm_barrier_waits_for_the_worker(struct kunit *test)
{
	struct chm *map = test_alloc(test, sizeof(*map));
	struct plug *plug = plug_worker(test);

	KUNIT_ASSERT_EQ(test, chm_init(map, &u64_params, NULL, NULL), 0);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 3), 0);
	plug->then = join_test;
	plug->arg = test;
	init_completion(&lingering);
	WRITE_ONCE(has_left, false);
	kunit_activate_static_stub(test, chm_table_free, linger);
	chm_clear(map);
	/* The worker, which may be another thread the next time, has all to free it. */
	synchronize_rcu();
	unplug_worker(test, plug);
	KUNIT_EXPECT_NE(test, wait_for_completion_timeout(&lingering, 60 * HZ), 0);
	chm_destroy_async(map);
	chm_barrier();
	KUNIT_EXPECT_TRUE(test, READ_ONCE(has_left));
	kunit_deactivate_static_stub(test, chm_table_free);
}

static void idle_drop(void *ctx, void *key, void *value)
{
}

/*
 * G7, while the worker is busy with another map: writers merge cells themselves where
 * they have no room else.
 */
static void chm_reserved_cells_without_worker(struct kunit *test)
{
	const struct chm_params p = {
		.key_size = 8, .value_size = 8, .class = CHM_CELL, .drop = idle_drop,
	};
	struct chm *map = test_map(test, &p);
	u64 value = 0, first = 0, last, n = 1000;
	u32 round, i, failed = 0;
	struct plug *plug;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, n, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, n), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	plug = plug_worker(test);
	for (last = n, round = 0; round < 60; round++) {
		for (i = 0; i < n / 32; i++) {
			failed += remove_key(map, first++) != 0;
			failed += chm_insert(map, &last, &value, GFP_ATOMIC) != 0;
			last++;
		}
		synchronize_rcu();
	}
	unplug_worker(test, plug);
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_EQ(test, chm_count(map), n);
	expect_sound(test, map);
}

static atomic_t lazy_drops;

static void lazy_drop(void *ctx, void *key, void *value)
{
	usleep_range(2000, 3000);
	atomic_inc(&lazy_drops);
}

/* A drop() that is slow ends the turn of its map after some pairs. */
static void chm_slow_drop_ends_its_turn(struct kunit *test)
{
	const struct chm_params p = {
		.key_size = 8, .value_size = 8, .drop = lazy_drop,
	};
	struct chm *slow = test_map(test, &p);
	struct chm *map = test_map(test, &u64_params);
	int before;

	KUNIT_ASSERT_EQ(test, insert_keys(slow, 0, 150), 0);
	KUNIT_ASSERT_TRUE(test, settle(slow));
	atomic_set(&lazy_drops, 0);
	chm_clear(slow);
	while (atomic_read(&lazy_drops) < 10)
		usleep_range(500, 1000);
	outgrow(test, map, 3000);
	before = atomic_read(&lazy_drops);
	KUNIT_EXPECT_TRUE(test, settle(map));
	/* Seven in a chunk; one turn may have just begun, and two come before the end. */
	KUNIT_EXPECT_LE(test, atomic_read(&lazy_drops) - before, 6 * 7);
	KUNIT_EXPECT_EQ(test, stats_of(map).grows, 1);
}

/* G10: tables that clear and shrink leave behind are limited, as others are. */
static void chm_clear_retires_little(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	unsigned long most = 0, bytes;
	u32 i, n = scaled(4000, 300);
	struct long_reader *r;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 20000, GFP_KERNEL), 0);
	bytes = stats_of(map).bytes;
	r = test_reader(test);
	for (i = 0; i < n; i++) {
		u64 key = i, value = 0;

		KUNIT_ASSERT_EQ(test, chm_insert(map, &key, &value, GFP_ATOMIC), 0);
		chm_clear(map);
		most = max(most, stats_of(map).retired_bytes);
	}
	stop_reader(test, r);
	KUNIT_EXPECT_LE(test, most, 4 * SZ_1M + 2 * bytes);
	KUNIT_EXPECT_EQ(test, chm_count(map), 0);
	expect_sound(test, map);
}

/* Somebody who wants more when another one's reserve has copied some pairs. */
struct more {
	struct chm		*map;
	struct completion	ready;
	struct completion	begun;
	atomic_t		clones;
};

static int more_clone(void *ctx, void *new_key, void *new_value, const void *key,
		      const void *value, gfp_t gfp)
{
	struct more *more = ctx;

	int n = atomic_inc_return(&more->clones);

	if (n == 100)
		complete(&more->begun);
	/* The other one comes while this goes on. */
	if (n > 100)
		udelay(2);
	return 0;
}

static int more_thread(void *arg)
{
	struct more *more = arg;
	int ret;

	complete(&more->ready);
	wait_for_completion(&more->begun);
	ret = chm_reserve(more->map, 200000, GFP_KERNEL);
	while (!kthread_should_stop())
		msleep(20);
	return ret;
}

static void shrink_of_clones(struct kunit *test, struct more *more)
{
	struct chm *map = more->map;
	struct task_struct *task;

	reinit_completion(&more->ready);
	reinit_completion(&more->begun);
	atomic_set(&more->clones, -INT_MAX / 2);
	KUNIT_ASSERT_EQ(test, chm_reserve(map, 400000, GFP_KERNEL), 0);
	KUNIT_EXPECT_TRUE(test, settle(map));
	task = kthread_run(more_thread, more, "chm_more");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	wait_for_completion(&more->ready);
	atomic_set(&more->clones, 0);
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	complete(&more->begun);
	KUNIT_EXPECT_EQ(test, kthread_stop(task), 0);
}

/*
 * A promise ends the migration to a smaller table, but no clone() has failed.  On a busy
 * CPU the promise may come too late, hence several times.
 */
static void chm_shrink_of_clones_by_two(struct kunit *test)
{
	const struct chm_params p = {
		.key_size = 8, .value_size = 8, .class = CHM_CLONE,
		.clone = more_clone, .drop = idle_drop,
	};
	struct more *more = test_alloc(test, sizeof(*more));
	struct chm *map = test_alloc(test, sizeof(*map));
	u32 i;

	init_completion(&more->ready);
	init_completion(&more->begun);
	atomic_set(&more->clones, -INT_MAX / 2);
	more->map = map;
	KUNIT_ASSERT_EQ(test, chm_init(map, test_params(test, &p), more, NULL), 0);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, destroy_action, map), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 20000), 0);
	for (i = 0; i < 20 && !stats_of(map).aborts; i++)
		shrink_of_clones(test, more);
	KUNIT_EXPECT_GE(test, stats_of(map).aborts, 1);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 20000), 0);
	expect_sound(test, map);
}

/* A map that has something promised while there is memory sought for it. */
static struct chm *promised;

#define PROMISED	800U

static void *promising_alloc(u64 bytes, gfp_t gfp)
{
	struct chm *map = promised;

	promised = NULL;
	if (map && chm_reserve(map, PROMISED, GFP_KERNEL))
		return ERR_PTR(-ENOMEM);
	return __chm_alloc(bytes, gfp);
}

/* G7: a table that was made for less than is promised by now is not taken. */
static void chm_reserve_before_shrinking(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);

	KUNIT_ASSERT_EQ(test, chm_reserve(map, PROMISED + 200, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 10), 0);
	promised = map;
	kunit_activate_static_stub(test, chm_alloc, promising_alloc);
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	kunit_deactivate_static_stub(test, chm_alloc);
	KUNIT_EXPECT_NULL(test, promised);
	expect_sound(test, map);
	kunit_activate_static_stub(test, chm_alloc, no_alloc);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 10, PROMISED), 0);
	kunit_deactivate_static_stub(test, chm_alloc);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, PROMISED), 0);
	expect_sound(test, map);
}

/* === Half done, step by step ============================================= */

/* Insert keys from @key on until a migration has begun.  Return: the next key. */
static u64 begin_migration(struct kunit *test, struct chm *map, u64 key)
{
	u64 end = key + 5000;

	while (!stats_of(map).migrating && key < end)
		KUNIT_EXPECT_EQ(test, stuck_insert(map, key++, GFP_ATOMIC), 0);
	KUNIT_ASSERT_NE(test, stats_of(map).migrating, 0);
	return key;
}

/* Room for so many pairs, so many of them, and no worker: for begin_migration(). */
static struct plug *fill_and_plug(struct kunit *test, struct chm *map,
				  unsigned long room, u64 keys)
{
	KUNIT_ASSERT_EQ(test, chm_reserve(map, room, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, keys), 0);
	KUNIT_EXPECT_TRUE(test, settle(map));
	return plug_worker(test);
}

/* Growth is due, and the worker has not come: the table fits, and goes on to. */
static void chm_shrink_when_growth_is_due(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct plug *plug = fill_and_plug(test, map, 4000, 4000);
	unsigned long flags, most, slots;
	u64 key;

	most = lock_table(map, &flags)->max_entries;
	unlock_table(map, &flags);
	kunit_activate_static_stub(test, chm_alloc, no_alloc);
	for (key = 4000; key <= most; key++)
		KUNIT_EXPECT_EQ(test, stuck_insert(map, key, GFP_ATOMIC), 0);
	kunit_deactivate_static_stub(test, chm_alloc);
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	slots = stats_of(map).slots;
	KUNIT_EXPECT_LE(test, 70 * slots, 100 * chm_count(map));
	unplug_worker(test, plug);
	KUNIT_EXPECT_TRUE(test, settle(map));
	KUNIT_EXPECT_EQ(test, stats_of(map).slots, slots);
	expect_sound(test, map);
}

/* Growth is asked for early, but not in a table that chm_shrink() has found to fit. */
static void chm_shrink_of_what_fits(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	unsigned long slots;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 4000, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 4000), 0);
	slots = stats_of(map).slots;
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, remove_key(map, 0), 0);
	KUNIT_EXPECT_EQ(test, stuck_insert(map, 0, GFP_KERNEL), 0);
	KUNIT_EXPECT_TRUE(test, settle(map));
	KUNIT_EXPECT_EQ(test, stats_of(map).slots, slots);
	expect_sound(test, map);
}

static struct chm *moving;

/* While chm_shrink() allocates for 12000 pairs, others remove most and shrink, too. */
static void *alloc_while_others_shrink(u64 bytes, gfp_t gfp)
{
	struct kunit *test = kunit_get_current_test();

	kunit_deactivate_static_stub(test, chm_alloc);
	KUNIT_EXPECT_EQ(test, remove_keys(moving, 2000, 12000), 0);
	KUNIT_EXPECT_EQ(test, chm_shrink(moving, GFP_KERNEL), 0);
	return __chm_alloc(bytes, gfp);
}

/* G10: it does not enlarge the table that another call has made for fewer pairs. */
static void chm_shrink_meets_smaller_table(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 40000, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 12000), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	moving = map;
	kunit_activate_static_stub(test, chm_alloc, alloc_while_others_shrink);
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	expect_chunks_for(test, map, 2000);
	KUNIT_EXPECT_EQ(test, stats_of(map).grows, 0);
	expect_sound(test, map);
}

static u32 builds;

/* While a large table is built, atomic writers put in others. */
static void *alloc_while_others_move(u64 bytes, gfp_t gfp)
{
	struct chm_stats then = stats_of(moving), s = then;
	struct kunit *test = kunit_get_current_test();
	u32 i, refused = 0;
	u64 key;

	if (bytes < SZ_1M || ++builds > 5)
		return __chm_alloc(bytes, gfp);
	for (i = 0; i < 100000 && migrations(&s) == migrations(&then); i++) {
		key = i % 300;
		KUNIT_EXPECT_LE(test, remove_key(moving, key), 0);
		refused += stuck_insert(moving, key, GFP_ATOMIC) != 0;
		s = stats_of(moving);
	}
	KUNIT_EXPECT_LT(test, refused, i);
	KUNIT_EXPECT_NE(test, migrations(&s), migrations(&then));
	return __chm_alloc(bytes, gfp);
}

static void expect_built_once(struct kunit *test, const struct chm_params *p)
{
	struct chm *map = test_map(test, p);

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 300), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	moving = map;
	builds = 0;
	kunit_activate_static_stub(test, chm_alloc, alloc_while_others_move);
	KUNIT_EXPECT_EQ(test, chm_reserve(map, 200000, GFP_KERNEL), 0);
	kunit_deactivate_static_stub(test, chm_alloc);
	KUNIT_EXPECT_EQ(test, builds, 1);
	KUNIT_EXPECT_GE(test, stats_of(map).slots, 250000);
	KUNIT_EXPECT_TRUE(test, settle(map));
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 300), 300 - chm_count(map));
	expect_sound(test, map);
}

/* It is not built in vain, since others may always be faster. */
static void chm_reserve_while_others_move(struct kunit *test)
{
	expect_built_once(test, &u64_params);
}

/* Nor is it while cells of the others' migration wait to be merged. */
static void chm_reserve_while_cells_move(struct kunit *test)
{
	expect_built_once(test, &cell_params);
}

static struct long_reader *in_the_way;
static bool filling_up;

static void reader_leaves(struct work_struct *work)
{
	WRITE_ONCE(in_the_way->leave, true);
}

static DECLARE_DELAYED_WORK(reader_leaves_work, reader_leaves);

/* While a table is built, the map grows, and a reader still sees the table before. */
static void *alloc_while_others_retire(u64 bytes, gfp_t gfp)
{
	struct kunit *test = kunit_get_current_test();
	struct chm_stats s = stats_of(moving);
	u64 key;

	/* Neither snapshots nor what the insertions below build are counted. */
	if (bytes < 3 * SZ_1M || filling_up || ++builds > 5)
		return __chm_alloc(bytes, gfp);
	if (builds == 1) {
		filling_up = true;
		in_the_way = test_reader(test);
		for (key = s.entries; key < 140000 && !s.grows; key++) {
			KUNIT_EXPECT_EQ(test, insert_key(moving, key), 0);
			s = stats_of(moving);
		}
		KUNIT_EXPECT_GE(test, s.grows, 1);
		filling_up = false;
		schedule_delayed_work(&reader_leaves_work, HZ / 20);
	}
	return __chm_alloc(bytes, gfp);
}

/* Nor is it built in vain if another table must be freed first. */
static void chm_reserve_while_others_retire(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	unsigned long n;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 100000, GFP_KERNEL), 0);
	n = max_entries_of(map);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, n), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	moving = map;
	builds = 0;
	filling_up = false;
	kunit_activate_static_stub(test, chm_alloc, alloc_while_others_retire);
	KUNIT_EXPECT_EQ(test, chm_reserve(map, 2 * n, GFP_KERNEL), 0);
	kunit_deactivate_static_stub(test, chm_alloc);
	flush_delayed_work(&reader_leaves_work);
	stop_reader(test, in_the_way);
	KUNIT_EXPECT_EQ(test, builds, 1);
	KUNIT_EXPECT_TRUE(test, settle(map));
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, chm_count(map)), 0);
	expect_sound(test, map);
}

/* While a large table is built, the map gets ten times as many pairs, and others grow it. */
static void *alloc_while_others_grow(u64 bytes, gfp_t gfp)
{
	struct kunit *test = kunit_get_current_test();

	kunit_deactivate_static_stub(test, chm_alloc);
	KUNIT_EXPECT_EQ(test, insert_keys(moving, 300, 3000), 0);
	return __chm_alloc(bytes, gfp);
}

/* G9: room for a snapshot of the small table does not do for that of the larger one. */
static void chm_reserve_while_cells_grow(struct kunit *test)
{
	struct chm *map = test_map(test, &cell_params);

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 300), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	moving = map;
	kunit_activate_static_stub(test, chm_alloc, alloc_while_others_grow);
	KUNIT_EXPECT_EQ(test, chm_reserve(map, 200000, GFP_KERNEL), 0);
	KUNIT_EXPECT_GE(test, stats_of(map).slots, 250000);
	KUNIT_EXPECT_TRUE(test, settle(map));
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 3000), 0);
	expect_sound(test, map);
}

/* Fills a cache before the worker has looked, and evicts some. */
static void expect_slack(struct kunit *test, unsigned long n)
{
	const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .max_entries = n,
	};
	struct plug *plug = plug_worker(test);
	struct chm *map = test_map(test, &p);
	u64 key;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, n), 0);
	unplug_worker(test, plug);
	KUNIT_ASSERT_TRUE(test, settle(map));
	for (key = n; key < n + 20; key++) {
		KUNIT_ASSERT_EQ(test, remove_key(map, key - n), 0);
		KUNIT_ASSERT_EQ(test, insert_key(map, key), 0);
		if (key % 4 == 0)
			KUNIT_ASSERT_TRUE(test, settle(map));
	}
	KUNIT_EXPECT_GE_MSG(test, max_entries_of(map), n * 9 / 8, "%lu pairs", n);
	expect_sound(test, map);
}

/* Has a full cache room for an eighth more, no matter how it came to be full? */
static void chm_insert_maximum_before_worker(struct kunit *test)
{
	unsigned long n;

	for (n = 1000; n < scaled(120000, 10000); n = n * 103 / 100)
		expect_slack(test, n);
}

/* What the worker has allocated for the table before does not replace it. */
static void chm_shrink_beside_worker(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	unsigned long n;

	for (n = 20000; n < scaled(60000, 24000); n += 1000) {
		chm_clear(map);
		KUNIT_ASSERT_EQ(test, insert_keys(map, 0, n), 0);
		KUNIT_ASSERT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
		KUNIT_EXPECT_TRUE(test, settle(map));
		KUNIT_EXPECT_LE(test, 70 * stats_of(map).slots, 100 * n);
	}
	expect_sound(test, map);
}

/*
 * G7: one in 17 dies within a grace period, and the worker is busy.  What was promised
 * can be inserted without memory.
 */
static void chm_reserve_for_atomic_callers(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	unsigned long n = scaled(20000, 5000), i, failed = 0;
	struct plug *plug = fill_and_plug(test, map, n, n);
	u32 periods;
	u64 key = 0;

	kunit_activate_static_stub(test, chm_alloc, no_alloc);
	for (periods = 0; periods < 12; periods++) {
		for (i = 0; i < n / 17; i++, key = (key + 17) % n) {
			remove_key(map, key);
			failed += stuck_insert(map, key, GFP_ATOMIC) != 0;
		}
		synchronize_rcu();
	}
	kunit_deactivate_static_stub(test, chm_alloc);
	KUNIT_EXPECT_EQ(test, failed, 0);
	unplug_worker(test, plug);
	expect_sound(test, map);
}

/* Home is chunk 0 or 1 of two, as the key says.  All others have good hashes. */
#define AT_HOME(home, n)	(1ULL << 62 | (u64)(home) << 63 | (n))

static u64 hash_as_told(const void *key, u64 seed)
{
	u64 k = *(const u64 *)key;

	if (!(k & 1ULL << 62))
		return k * CHM_GOLDEN;
	return unmix((k & 1ULL << 63) | (k & 0x7f), seed);
}

static void sweep_by_writers(struct chm *map)
{
	u32 i;

	for (i = 0; i < 4; i++) {
		synchronize_rcu();
		remove_key(map, AT_HOME(0, 50));
	}
}

/*
 * The only pair of its home lies in the other chunk, which is full, and much waits for
 * readers: the table is half empty, and a replacement takes another one.
 */
static void chm_replace_stuck_in_small_table(struct kunit *test)
{
	struct chm_params p = u64_params;
	struct plug *plug;
	struct chm *map;
	u64 key = AT_HOME(0, 7);
	u32 i;

	p.hash = hash_as_told;
	map = test_map(test, &p);
	/* More than CHM_RETIRED_MIN. */
	KUNIT_ASSERT_EQ(test, insert_keys(map, 1000, 100000), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	plug = plug_worker(test);
	chm_clear(map);
	for (i = 0; i < 8; i++)
		KUNIT_ASSERT_EQ(test, stuck_insert(map, AT_HOME(0, i), GFP_ATOMIC), 0);
	KUNIT_ASSERT_EQ(test, stats_of(map).chunks, 2);
	for (i = 0; i < 7; i++)
		KUNIT_ASSERT_EQ(test, remove_key(map, AT_HOME(0, i)), 0);
	sweep_by_writers(map);
	for (i = 0; i < 6; i++)
		KUNIT_ASSERT_EQ(test, stuck_insert(map, AT_HOME(1, i), GFP_ATOMIC), 0);
	sweep_by_writers(map);
	KUNIT_EXPECT_EQ(test, chm_replace(map, &key, &key, GFP_ATOMIC), 0);
	KUNIT_EXPECT_EQ(test, chm_count(map), 7);
	unplug_worker(test, plug);
	expect_sound(test, map);
}

static void *small_alloc(u64 bytes, gfp_t gfp)
{
	return bytes > SZ_64K ? ERR_PTR(-ENOMEM) : __chm_alloc(bytes, gfp);
}

/* More than can be had in atomic context is promised to each table of the map. */
static void chm_insert_atomic_below_minimum(struct kunit *test)
{
	struct chm_params p = u64_params;
	struct chm *map;

	p.min_entries = 100000;
	map = test_map(test, &p);
	kunit_activate_static_stub(test, chm_alloc, small_alloc);
	KUNIT_EXPECT_EQ(test, stuck_insert(map, 0, GFP_ATOMIC), 0);
	kunit_deactivate_static_stub(test, chm_alloc);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 1, 1000), 0);
	KUNIT_EXPECT_TRUE(test, settle(map));
	KUNIT_EXPECT_GE(test, stats_of(map).slots, p.min_entries);
	expect_sound(test, map);
}

/* Another writer has the first table allocated; for this one there is a small one. */
static void small_found_no_room(struct chm *map, bool planned)
{
	struct kunit *test = kunit_get_current_test();

	if (!planned)
		return;
	kunit_deactivate_static_stub(test, chm_found_no_room);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 2000, 2005), 0);
	kunit_activate_static_stub(test, chm_alloc, small_alloc);
}

static void chm_insert_meets_larger_table(struct kunit *test)
{
	struct chm_params p = u64_params;
	struct chm *map;

	p.min_entries = 100000;
	map = test_map(test, &p);
	kunit_activate_static_stub(test, chm_found_no_room, small_found_no_room);
	KUNIT_EXPECT_EQ(test, stuck_insert(map, 1, GFP_ATOMIC), 0);
	kunit_deactivate_static_stub(test, chm_alloc);
	KUNIT_EXPECT_TRUE(test, settle(map));
	KUNIT_EXPECT_GE(test, stats_of(map).slots, p.min_entries);
	KUNIT_EXPECT_EQ(test, chm_count(map), 6);
	expect_sound(test, map);
}

static struct chm_stats grown;

/* As if another writer were faster. */
static void grow_meanwhile(struct chm *map, bool planned)
{
	struct kunit *test = kunit_get_current_test();

	kunit_deactivate_static_stub(test, chm_found_no_room);
	KUNIT_EXPECT_FALSE(test, planned);
	KUNIT_EXPECT_EQ(test, chm_reserve(map, 2000, GFP_KERNEL), 0);
	grown = stats_of(map);
}

/* A table in which a key has strayed too far is gone: its writer does not take another. */
static void chm_insert_too_far_meets_other_table(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct chm_stats after;
	struct long_reader *r;
	struct plug *plug;
	u32 i;

	grown = (struct chm_stats) { };
	KUNIT_ASSERT_EQ(test, chm_reserve(map, 900, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 500), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	plug = plug_worker(test);
	r = test_reader(test);
	kunit_activate_static_stub(test, chm_found_no_room, grow_meanwhile);
	for (i = 0; i < 1000 && !grown.grows; i++) {
		KUNIT_ASSERT_EQ(test, remove_key(map, 7), 0);
		KUNIT_ASSERT_EQ(test, insert_key(map, 7), 0);
	}
	after = stats_of(map);
	KUNIT_EXPECT_EQ(test, grown.grows, 1);
	KUNIT_EXPECT_FALSE(test, after.migrating);
	KUNIT_EXPECT_EQ(test, migrations(&after), migrations(&grown));
	stop_reader(test, r);
	unplug_worker(test, plug);
	KUNIT_EXPECT_EQ(test, after.gp_waits, grown.gp_waits);
	expect_sound(test, map);
}

/* G11: what a write copies besides, so that the table is not full before all is. */
static void chm_write_copies_little(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct plug *plug = fill_and_plug(test, map, 400, 400);
	struct chm_stats s;
	u64 key, first;

	key = begin_migration(test, map, 400);
	s = stats_of(map);
	for (first = key; stats_of(map).migrating; key++)
		KUNIT_EXPECT_EQ(test, stuck_insert(map, key, GFP_ATOMIC), 0);
	KUNIT_EXPECT_GE(test, key - first, (s.chunks - s.copied) / 32);
	KUNIT_EXPECT_LE(test, key - first, s.chunks);
	unplug_worker(test, plug);
	expect_sound(test, map);
}

/* Who must not sleep, and finds the table full, copies what is left by himself. */
static void chm_insert_drives_what_it_waits_for(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct plug *plug;
	u64 full;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 1000), 0);
	KUNIT_EXPECT_TRUE(test, settle(map));
	plug = plug_worker(test);
	be_restless(test, 1, false);
	kunit_activate_static_stub(test, chm_alloc, no_alloc);
	full = stuck_fill(test, map, 1000, GFP_ATOMIC);
	kunit_deactivate_static_stub(test, chm_alloc);
	KUNIT_EXPECT_EQ(test, stuck_insert(map, full, GFP_ATOMIC), 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, full + 1), 0);
	unplug_worker(test, plug);
	expect_sound(test, map);
}

#define HALF_KEYS	600U
#define HALF_REPLACED	13U

static void half_expect(struct kunit *test, struct chm *map, const u64 *want)
{
	u64 key, value;

	for (key = 0; key < HALF_KEYS; key++) {
		bool found = chm_cell_read(map, &key, &value);

		KUNIT_EXPECT_EQ_MSG(test, found ? value : 0, want[key], "G9: key %llu", key);
	}
}

static void half_insert(struct kunit *test, struct chm *map, u64 key, u64 *want)
{
	KUNIT_ASSERT_LT(test, key, HALF_KEYS);
	want[key] = value_of(key);
	KUNIT_ASSERT_EQ(test, stuck_insert(map, key, GFP_ATOMIC), 0);
}

/*
 * Fill the map, hold the worker, and have the map grow, with additions to cells after
 * each step.
 */
static struct plug *half_grow(struct kunit *test, struct chm *map, u64 *want)
{
	struct plug *plug;
	u64 key, n;

	for (n = 0; n < 300; n++)
		want[n] = value_of(n);
	/* Four times that is a table that writers allocate by themselves. */
	KUNIT_ASSERT_EQ(test, chm_reserve(map, n, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, n), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	plug = plug_worker(test);
	be_restless(test, 1, false);
	while (!stats_of(map).migrating)
		half_insert(test, map, n++, want);
	while (stats_of(map).migrating) {
		half_insert(test, map, n++, want);
		key = n % HALF_REPLACED;
		want[key] = n;
		KUNIT_EXPECT_EQ(test, chm_replace(map, &key, &n, GFP_ATOMIC), 0);
		for (key = n % 7; key < n; key += 7) {
			KUNIT_EXPECT_EQ(test, chm_cell_add(map, &key, 0, 1), 0);
			want[key]++;
		}
	}
	return plug;
}

/*
 * Cells were copied and then added to, and nobody merges them as long as the worker
 * is held.  Meanwhile keys are removed, inserted again, and replaced; and slots that
 * they leave could be used again, but for what is still to be added to them.
 */
static void chm_cells_are_merged_by_slot(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .class = CHM_CELL,
	};
	u64 *want = test_alloc(test, HALF_KEYS * sizeof(*want));
	struct chm *map = test_map(test, &p);
	struct plug *plug;
	u64 key, value;

	plug = half_grow(test, map, want);
	half_expect(test, map, want);
	/* A lookup may miss what was added, but not that these were replaced. */
	for (key = 0; key < HALF_REPLACED; key++) {
		KUNIT_EXPECT_TRUE(test, chm_get(map, &key, &value));
		KUNIT_EXPECT_LE_MSG(test, value, want[key], "key %llu", key);
	}
	for (key = 0; key < 200; key++) {
		KUNIT_EXPECT_EQ(test, remove_key(map, key), 0);
		want[key] = 0;
	}
	for (key = 0; key < 300; key++) {
		/* Their slots could be used again, those of one generation after the other. */
		if (key % 50 == 0)
			synchronize_rcu();
		if (key % 3 == 0)
			continue;
		value = key + 1;
		KUNIT_EXPECT_EQ(test, chm_upsert(map, &key, &value, GFP_ATOMIC), key < 200);
		want[key] = value;
	}
	half_expect(test, map, want);
	expect_sound(test, map);
	unplug_worker(test, plug);
	KUNIT_EXPECT_TRUE(test, settle(map));
	half_expect(test, map, want);
	expect_sound(test, map);
}

/* Who takes a cell gets what was added to it before it was merged. */
static void chm_cells_are_merged_before_take(struct kunit *test)
{
	u64 *want = test_alloc(test, HALF_KEYS * sizeof(*want));
	struct taker *t = test_alloc(test, sizeof(*t));
	struct chm *map = test_map(test, &cell_params);
	struct task_struct *task;
	struct plug *plug;

	taker_init(t, map);
	plug = half_grow(test, map, want);
	task = kthread_run(taker_thread, t, "chm_taker");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	msleep(300);
	KUNIT_EXPECT_FALSE(test, completion_done(&t->done));
	unplug_worker(test, plug);
	KUNIT_ASSERT_NE(test, wait_for_completion_timeout(&t->done, 60 * HZ), 0);
	kthread_stop(task);
	KUNIT_EXPECT_EQ(test, t->ret, 0);
	KUNIT_EXPECT_EQ_MSG(test, t->value, want[7], "G9");
	expect_sound(test, map);
}

/* A drop() that takes cell 8, and then takes until @leave. */
struct drop_taker {
	struct taker		t;
	struct completion	leave;
};

static void take_in_drop(void *arg)
{
	struct drop_taker *d = arg;
	u64 key = 8;

	d->t.ret = chm_take(d->t.map, &key, NULL, &d->t.value);
	complete(&d->t.done);
	wait_for_completion_timeout(&d->leave, 60 * HZ);
}

/*
 * Cells were merged by a taker in the worker, and another taker has not been told yet.
 * The slot of its cell is not used again before it has that, though no reader can see it.
 */
static void reuse_taken_cell(struct kunit *test)
{
	u64 *want = test_alloc(test, HALF_KEYS * sizeof(*want)), key = 7, value = 1;
	struct drop_taker *d = test_alloc(test, sizeof(*d));
	struct taker *t = test_alloc(test, sizeof(*t));
	struct chm *map = test_map(test, &cell_params);
	unsigned long waits, failed;
	struct task_struct *task;
	struct plug *plug;

	taker_init(t, map);
	taker_init(&d->t, map);
	init_completion(&d->leave);
	plug = half_grow(test, map, want);
	plug->then = take_in_drop;
	plug->arg = d;
	waits = stats_of(map).gp_waits;
	task = kthread_run(taker_thread, t, "chm_taker");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	while (stats_of(map).gp_waits == waits)
		msleep(20);
	complete(&plug->leave);
	KUNIT_EXPECT_NE(test, wait_for_completion_timeout(&d->t.done, 60 * HZ), 0);
	/* What is removed in this section can't be used again in it. */
	rcu_read_lock();
	failed = remove_keys(map, 20, 300);
	failed += chm_insert(map, &key, &value, GFP_ATOMIC) != 0;
	rcu_read_unlock();
	complete(&d->leave);
	KUNIT_EXPECT_NE(test, wait_for_completion_timeout(&t->done, 60 * HZ), 0);
	unplug_worker(test, plug);
	kthread_stop(task);
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_EQ(test, t->ret, 0);
	KUNIT_EXPECT_EQ_MSG(test, t->value, want[7], "G3");
	KUNIT_EXPECT_EQ(test, d->t.ret, 0);
	KUNIT_EXPECT_EQ_MSG(test, d->t.value, want[8], "G9");
	expect_sound(test, map);
}

/* Several times: the other taker may be told too soon. */
static void chm_taken_cell_is_not_reused(struct kunit *test)
{
	u32 i;

	for (i = 0; i < 4; i++)
		reuse_taken_cell(test);
}

/*
 * A taker in the worker can't be counted before another one is through, who waits for
 * cells to be merged.  The worker merges them, and says so.
 */
static void chm_takers_wait_for_one_another(struct kunit *test)
{
	u64 *want = test_alloc(test, HALF_KEYS * sizeof(*want));
	struct drop_taker *d = test_alloc(test, sizeof(*d));
	struct taker *t = test_alloc(test, sizeof(*t));
	struct chm *map = test_map(test, &cell_params);
	struct task_struct *task;
	struct plug *plug;
	u16 pins;

	taker_init(t, map);
	taker_init(&d->t, map);
	init_completion(&d->leave);
	complete(&d->leave);
	plug = half_grow(test, map, want);
	plug->then = take_in_drop;
	plug->arg = d;
	task = kthread_run(taker_thread, t, "chm_taker");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	/* Until it waits for the worker. */
	msleep(300);
	KUNIT_EXPECT_FALSE(test, completion_done(&t->done));
	pins = set_pins(map, U16_MAX);
	complete(&plug->leave);
	KUNIT_EXPECT_NE(test, wait_for_completion_timeout(&t->done, 20 * HZ), 0);
	/* If the first one was counted here, the other one has gone on. */
	if (pins)
		KUNIT_EXPECT_NE(test, wait_for_completion_timeout(&d->t.done, 20 * HZ), 0);
	set_pins(map, 0);
	if (!pins)
		KUNIT_EXPECT_NE(test, wait_for_completion_timeout(&d->t.done, 20 * HZ), 0);
	unplug_worker(test, plug);
	kthread_stop(task);
	KUNIT_EXPECT_EQ(test, t->ret, 0);
	KUNIT_EXPECT_EQ_MSG(test, t->value, want[7], "G9");
	KUNIT_EXPECT_EQ(test, d->t.ret, 0);
	KUNIT_EXPECT_EQ_MSG(test, d->t.value, want[8], "G9");
	expect_sound(test, map);
}

/*
 * The table that a taker in the worker has found is cleared, and a later reader, this
 * thread, sees it.  Return: does the taker wait for that one, too, rather than spin?
 */
static bool taker_waits_twice(struct kunit *test)
{
	u64 *want = test_alloc(test, HALF_KEYS * sizeof(*want));
	struct drop_taker *d = test_alloc(test, sizeof(*d));
	struct chm *map = test_map(test, &cell_params);
	unsigned long waits, end;
	struct long_reader *early;
	struct plug *plug;

	taker_init(&d->t, map);
	init_completion(&d->leave);
	complete(&d->leave);
	plug = half_grow(test, map, want);
	plug->then = take_in_drop;
	plug->arg = d;
	waits = stats_of(map).gp_waits;
	early = test_reader(test);
	complete(&plug->leave);
	KUNIT_EXPECT_TRUE(test, wait_until_more(map, offsetof(struct chm_stats, gp_waits),
						waits));
	msleep(100);
	chm_clear(map);
	waits = stats_of(map).gp_waits;
	end = jiffies + 2 * HZ;
	rcu_read_lock();
	WRITE_ONCE(early->leave, true);
	while (stats_of(map).gp_waits == waits && time_before(jiffies, end))
		cpu_relax();
	waits = stats_of(map).gp_waits - waits;
	rcu_read_unlock();
	stop_reader(test, early);
	KUNIT_EXPECT_NE(test, wait_for_completion_timeout(&d->t.done, 20 * HZ), 0);
	unplug_worker(test, plug);
	calm_down(test);
	KUNIT_EXPECT_EQ(test, d->t.ret, 0);
	KUNIT_EXPECT_EQ_MSG(test, d->t.value, want[8], "G9");
	expect_sound(test, map);
	return waits;
}

/* The first wait may be for the later reader, too, if RCU was busy when it began. */
static void chm_taker_in_worker_waits_for_readers(struct kunit *test)
{
	bool twice = false;
	u32 i;

	for (i = 0; i < 8 && !twice; i++)
		twice = taker_waits_twice(test);
	KUNIT_EXPECT_TRUE(test, twice);
}

static atomic_t others_merges;

/* Who merges, while the worker is held? */
static void merge_noting_others(void *ctx, void *new_value, const void *old_now,
				const void *snapshot)
{
	atomic64_add(READ_ONCE(*(const s64 *)old_now) - *(const s64 *)snapshot,
		     new_value);
	atomic_inc(&others_merges);
}

/*
 * The worker merges what belongs to a table that was cleared, and holds no lock all the
 * time.  A taker that can't be counted yet leaves that alone, since the table is freed
 * then.
 */
static void chm_taker_leaves_retired_tables(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .class = CHM_CELL,
		.merge = merge_noting_others,
	};
	struct taker *t = test_alloc(test, sizeof(*t));
	struct chm *map = test_map(test, &p);
	unsigned long waits, failed = 0;
	struct task_struct *task;
	struct plug *plug;
	u64 key, cell;

	plug = fill_and_plug(test, map, 300, 300);
	be_restless(test, 1, false);
	key = begin_migration(test, map, 300);
	while (stats_of(map).migrating) {
		rcu_read_lock();
		for (cell = 0; cell < 300; cell++)
			atomic64_inc(chm_cell_lookup(map, &cell));
		rcu_read_unlock();
		failed += stuck_insert(map, key++, GFP_ATOMIC) != 0;
	}
	chm_clear(map);
	KUNIT_ASSERT_EQ(test, stuck_insert(map, 7, GFP_ATOMIC), 0);
	set_pins(map, U16_MAX);
	taker_init(t, map);
	waits = stats_of(map).gp_waits;
	task = kthread_run(taker_thread, t, "chm_taker");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	while (stats_of(map).gp_waits < waits + 3)
		msleep(20);
	KUNIT_EXPECT_FALSE(test, completion_done(&t->done));
	KUNIT_EXPECT_EQ(test, atomic_read(&others_merges), 0);
	set_pins(map, 0);
	KUNIT_EXPECT_NE(test, wait_for_completion_timeout(&t->done, 60 * HZ), 0);
	kthread_stop(task);
	unplug_worker(test, plug);
	KUNIT_EXPECT_TRUE(test, wait_retired(map));
	KUNIT_EXPECT_GT(test, atomic_read(&others_merges), 0);
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_EQ(test, t->ret, 0);
	expect_sound(test, map);
}

#define EXCHANGE_KEY	7U

/* A cell that is replaced in the midst of a chm_cell_read(), once. */
static struct exchange {
	struct chm		*map;
	int			ret;
} exchange;

static int exchange_now(struct chm *map, long value)
{
	u64 key = EXCHANGE_KEY;

	return chm_replace(map, &key, &value, GFP_ATOMIC);
}

static void exchange_half_read(void)
{
	struct chm *map = exchange.map;

	exchange.map = NULL;
	if (map)
		exchange.ret = exchange_now(map, 5);
}

/*
 * In a section, so that nothing is merged: have the map grow, and add to the old cell.
 * Return: how many calls have failed.
 */
static unsigned long exchange_grow(struct chm *map)
{
	u64 end = now_ns() + 5ULL * NSEC_PER_SEC;
	u64 key = EXCHANGE_KEY, other = key + 1;
	void *old = chm_cell_lookup(map, &key);
	unsigned long failed = 0;

	while (chm_cell_lookup(map, &key) == old && now_ns() < end)
		failed += stuck_insert(map, other++, GFP_ATOMIC) != 0;
	failed += chm_cell_lookup(map, &key) == old;
	atomic_long_add(1000, old);
	return failed;
}

/* O10, G9: who sums up a cell that is being replaced does not get some of both values. */
static void chm_cell_is_replaced_at_once(struct kunit *test)
{
	struct chm *map = test_map(test, &cell_params);
	u64 key = EXCHANGE_KEY;
	unsigned long failed;
	long before, after;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, EXCHANGE_KEY), 0);
	KUNIT_ASSERT_EQ(test, chm_cell_upsert_add(map, &key, 0, 70, GFP_KERNEL), 1);
	KUNIT_ASSERT_TRUE(test, settle(map));
	kunit_activate_static_stub(test, chm_half_read, exchange_half_read);
	exchange = (struct exchange) { };
	rcu_read_lock();
	failed = exchange_grow(map);
	failed += !chm_cell_read(map, &key, &before);
	exchange.map = map;
	failed += !chm_cell_read(map, &key, &after);
	rcu_read_unlock();
	kunit_deactivate_static_stub(test, chm_half_read);
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_NULL(test, exchange.map);
	KUNIT_EXPECT_EQ(test, exchange.ret, 0);
	KUNIT_EXPECT_EQ(test, before, 1070);
	KUNIT_EXPECT_EQ(test, after, 5);
	KUNIT_EXPECT_TRUE(test, settle(map));
	expect_sound(test, map);
}

/* drop() gets cells with all that was added to them, also if they were not merged yet. */
static void chm_cells_are_merged_before_drop(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .class = CHM_CELL,
		.drop = seen_drop,
	};
	u64 *want = test_alloc(test, HALF_KEYS * sizeof(*want));
	struct seen *seen = test_alloc(test, sizeof(*seen));
	struct chm *map = test_alloc(test, sizeof(*map));
	unsigned long entries;
	struct plug *plug;
	u64 sum = 0;
	u32 i;

	KUNIT_ASSERT_EQ(test, chm_init(map, &p, seen, NULL), 0);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, destroy_action, map), 0);
	plug = half_grow(test, map, want);
	for (i = 0; i < HALF_KEYS; i++)
		sum += want[i];
	entries = chm_count(map);
	chm_clear(map);
	unplug_worker(test, plug);
	KUNIT_EXPECT_TRUE(test, wait_retired(map));
	KUNIT_EXPECT_EQ(test, atomic_read(&seen->drops), entries);
	KUNIT_EXPECT_EQ_MSG(test, atomic64_read(&seen->values), sum, "G9");
}

/* Two keys in turn have the same hash. */
static u64 hash_of_pairs(const void *key, u64 seed)
{
	return chm_fold(chm_fold((*(const u64 *)key >> 1) ^ seed));
}

static u64 gone_key;
static atomic_t gone_looks;

static bool equal_unless_gone(const void *a, const void *b)
{
	u64 left = *(const u64 *)a, right = *(const u64 *)b, gone = READ_ONCE(gone_key);

	if (left == gone || right == gone)
		atomic_inc(&gone_looks);
	return left == right;
}

static u32 wrong_sums(struct chm *map, const u64 *want, u64 from, u64 to)
{
	u32 wrong = 0;
	u64 key, sum;

	for (key = from; key < to; key++)
		wrong += !chm_cell_read(map, &key, &sum) || sum != want[key];
	return wrong;
}

/*
 * G3: a pair that was removed after the swap is still FULL in the old table.  When a grace
 * period is over, nobody who sums up another cell compares its key.
 */
static void chm_removed_key_is_not_compared(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .class = CHM_CELL,
		.hash = hash_of_pairs, .equal = equal_unless_gone,
	};
	u64 *want = test_alloc(test, HALF_KEYS * sizeof(*want));
	struct chm *map = test_map(test, &p);
	struct plug *plug;
	u64 key;

	gone_key = U64_MAX;
	atomic_set(&gone_looks, 0);
	plug = half_grow(test, map, want);
	for (key = 100; key < 200; key += 2) {
		KUNIT_EXPECT_EQ(test, remove_key(map, key), 0);
		synchronize_rcu();
		WRITE_ONCE(gone_key, key);
		KUNIT_EXPECT_EQ(test, wrong_sums(map, want, key + 1, key + 2), 0);
	}
	/* From phase 3 on cells are still to be merged. */
	KUNIT_EXPECT_GE(test, READ_ONCE(map->phase), 3);
	KUNIT_EXPECT_EQ(test, atomic_read(&gone_looks), 0);
	WRITE_ONCE(gone_key, U64_MAX);
	unplug_worker(test, plug);
	KUNIT_EXPECT_TRUE(test, settle(map));
	KUNIT_EXPECT_EQ(test, wrong_sums(map, want, 200, 300), 0);
	expect_sound(test, map);
}

static struct merging {
	struct chm		*map;
	struct long_reader	*reader;
	bool			settled;
} merging;

static void merge_meanwhile(struct chm *map, bool planned)
{
	/* From phase 3 on cells are still to be merged. */
	if (!planned || map != merging.map || READ_ONCE(map->phase) < 3)
		return;
	merging.map = NULL;
	WRITE_ONCE(merging.reader->leave, true);
	merging.settled = settle(map);
}

/* The worker merges between the two looks of a writer that must not sleep: there is room. */
static void chm_cells_are_merged_meanwhile(struct kunit *test)
{
	struct chm *map = test_map(test, &cell_params);
	int ret = 0;
	u64 key;

	merging.map = map;
	merging.settled = false;
	merging.reader = test_reader(test);
	kunit_activate_static_stub(test, chm_found_no_room, merge_meanwhile);
	for (key = 0; key < 1000 && !ret && merging.map; key++)
		ret = stuck_insert(map, key, GFP_ATOMIC);
	kunit_deactivate_static_stub(test, chm_found_no_room);
	stop_reader(test, merging.reader);
	KUNIT_EXPECT_EQ_MSG(test, ret, 0, "after %llu keys", key);
	KUNIT_EXPECT_NULL_MSG(test, merging.map, "it never was full");
	KUNIT_EXPECT_TRUE(test, merging.settled);
	expect_sound(test, map);
}

/* What was cleared, for want of memory in place, does not come with the next table. */
static void chm_clear_in_place_midway(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct plug *plug = fill_and_plug(test, map, 500, 400);
	u64 key;

	be_restless(test, 1, true);
	key = begin_migration(test, map, 400);
	key += insert_keys(map, key, key + 20) + 20;
	kunit_activate_static_stub(test, chm_alloc, no_alloc);
	chm_clear(map);
	KUNIT_EXPECT_EQ(test, chm_count(map), 0);
	expect_sound(test, map);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 1000, 1200), 0);
	KUNIT_EXPECT_EQ(test, found_keys(map, 0, 1000), 0);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 1000, 1200), 0);
	expect_sound(test, map);
	kunit_deactivate_static_stub(test, chm_alloc);
	calm_down(test);
	unplug_worker(test, plug);
	expect_sound(test, map);
}

/*
 * G10: room for DEAD slots is given back, also if it was moved to another table.  The
 * worker is busy until chm is restless: it must not give it back before.
 */
static void chm_roomy_table_is_replaced(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct chm_stats s, before;
	struct long_reader *r;
	struct plug *plug;
	u64 key = 0;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 1000), 0);
	KUNIT_ASSERT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	KUNIT_ASSERT_TRUE(test, settle(map));
	plug = plug_worker(test);
	before = stats_of(map);
	s = before;
	r = test_reader(test);
	for (; s.chunks < 2 * before.chunks && key < 50000; key++) {
		KUNIT_EXPECT_EQ(test, remove_key(map, key), 0);
		KUNIT_EXPECT_EQ(test, stuck_insert(map, key + 1000, GFP_ATOMIC), 0);
		s = stats_of(map);
	}
	KUNIT_EXPECT_GE(test, s.chunks, 2 * before.chunks);
	be_restless(test, 0, true);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 100000, 100001), 0);
	complete(&plug->leave);
	KUNIT_EXPECT_TRUE(test, wait_until_more(map, offsetof(struct chm_stats, rehashes),
						s.rehashes));
	KUNIT_EXPECT_EQ(test, stats_of(map).chunks, s.chunks);
	calm_down(test);
	stop_reader(test, r);
	unplug_worker(test, plug);
	KUNIT_EXPECT_TRUE(test, wait_dead(map));
	msleep(2500);
	KUNIT_EXPECT_TRUE(test, settle(map));
	KUNIT_EXPECT_LT(test, 5 * stats_of(map).chunks, 4 * s.chunks);
	expect_sound(test, map);
}

static void *count_alloc(u64 bytes, gfp_t gfp)
{
	builds++;
	return __chm_alloc(bytes, gfp);
}

/* What is empty is not replaced by another table of the size that was promised. */
static void chm_clear_of_empty_map(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .min_entries = 1000,
	};
	struct chm *map = test_map(test, &p);

	builds = 0;
	kunit_activate_static_stub(test, chm_alloc, count_alloc);
	chm_clear(map);
	KUNIT_EXPECT_EQ(test, builds, 0);
	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, 10), 0);
	KUNIT_EXPECT_EQ(test, builds, 1);
	KUNIT_EXPECT_EQ(test, remove_keys(map, 0, 10), 0);
	chm_clear(map);
	KUNIT_EXPECT_EQ(test, builds, 1);
	kunit_deactivate_static_stub(test, chm_alloc);
	expect_sound(test, map);
}

static unsigned long tables_built;

#define FLOOD		BIT_ULL(32)	/* the first of keys that collide */
#define FLOOD_KEYS	230U

static const struct chm_params flood_params = {
	.key_size = sizeof(u64), .value_size = sizeof(u64), .hash = hash_flooded_late,
};

/* A map in the middle of a migration that only writers take further. */
static struct chm *flood_map(struct kunit *test, struct plug **plug)
{
	struct chm *map;

	flooded_seed = 0;
	map = test_map(test, &flood_params);
	*plug = fill_and_plug(test, map, 1300, 300);
	be_restless(test, 1, true);
	begin_migration(test, map, 300);
	WRITE_ONCE(chm_restless, false);
	return map;
}

static void flood_expect_over(struct kunit *test, struct chm *map)
{
	KUNIT_EXPECT_EQ(test, stats_of(map).reseeds, 1);
	KUNIT_EXPECT_LT(test, stats_of(map).longest_probe, 16);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, FLOOD, FLOOD + FLOOD_KEYS), 0);
	expect_sound(test, map);
}

/* A table that is more than half full has longer paths by nature, but not that long. */
static void chm_flood_of_fuller_table(struct kunit *test)
{
	struct chm *map;

	flooded_seed = 0;
	map = test_map(test, &flood_params);
	KUNIT_ASSERT_EQ(test, chm_reserve(map, 20000, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 15000), 0);
	KUNIT_EXPECT_EQ(test, insert_keys(map, FLOOD, FLOOD + 1500), 0);
	KUNIT_EXPECT_TRUE(test, settle(map));
	kunit_info(test, "measured: paths of up to %lu chunks, %lu reseeds, %lu growths",
		   stats_of(map).longest_probe, stats_of(map).reseeds, stats_of(map).grows);
	KUNIT_EXPECT_EQ(test, stats_of(map).reseeds, 1);
	KUNIT_EXPECT_EQ(test, stats_of(map).grows, 0);
	KUNIT_EXPECT_LE(test, stats_of(map).longest_probe, 64);
	expect_sound(test, map);
}

/* All keys that collide come during a migration, and none after it. */
static void chm_flood_midway(struct kunit *test)
{
	struct plug *plug;
	struct chm *map = flood_map(test, &plug);
	u64 key;

	for (key = FLOOD; key < FLOOD + FLOOD_KEYS; key++)
		KUNIT_EXPECT_EQ(test, stuck_insert(map, key, GFP_ATOMIC), 0);
	KUNIT_EXPECT_NE(test, stats_of(map).migrating, 0);
	KUNIT_EXPECT_EQ(test, stats_of(map).reseeds, 0);
	KUNIT_EXPECT_GT(test, stats_of(map).longest_probe, 32);
	calm_down(test);
	unplug_worker(test, plug);
	KUNIT_EXPECT_TRUE(test, settle(map));
	flood_expect_over(test, map);
}

/* A writer that may block does not wait for the worker, nor for other writers. */
static void chm_flood_ends_migration(struct kunit *test)
{
	struct plug *plug;
	struct chm *map = flood_map(test, &plug);

	KUNIT_EXPECT_EQ(test, insert_keys(map, FLOOD, FLOOD + FLOOD_KEYS), 0);
	flood_expect_over(test, map);
	calm_down(test);
	unplug_worker(test, plug);
}

static void chm_flood_of_many_ends_migration(struct kunit *test)
{
	u64 *keys = test_alloc(test, FLOOD_KEYS * sizeof(*keys));
	u64 *values = test_alloc(test, FLOOD_KEYS * sizeof(*values));
	struct plug *plug;
	struct chm *map = flood_map(test, &plug);
	int err;
	u32 i;

	for (i = 0; i < FLOOD_KEYS; i++) {
		keys[i] = FLOOD + i;
		values[i] = value_of(FLOOD + i);
	}
	KUNIT_EXPECT_EQ(test, chm_insert_many(map, keys, values, FLOOD_KEYS, GFP_KERNEL,
					      &err), FLOOD_KEYS);
	flood_expect_over(test, map);
	calm_down(test);
	unplug_worker(test, plug);
}

/*
 * Keys beyond 32 bits have one home, in the middle of the table, whatever the seed; the
 * homes of others are well before it.
 */
static u64 hash_flooded_always(const void *key, u64 seed)
{
	u64 k = *(const u64 *)key;
	u64 home = chm_fold(chm_fold(k ^ seed)) >> 3;

	return unmix(k >> 32 ? BIT_ULL(63) : 3 * home, seed);
}

/* How many chunks are copied when @key is inserted. */
static unsigned long copied_for(struct kunit *test, struct chm *map, u64 key)
{
	unsigned long before = stats_of(map).copied;

	KUNIT_EXPECT_EQ(test, stuck_insert(map, key, GFP_ATOMIC), 0);
	return stats_of(map).copied - before;
}

/* Who makes a long path longer does more for the migration; others don't. */
static void chm_flood_shares_migration(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64),
		.hash = hash_flooded_always,
	};
	struct chm *map = test_map(test, &p);
	struct plug *plug;
	unsigned long n;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 1300, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 300), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, FLOOD, FLOOD + 300), 0);
	KUNIT_EXPECT_TRUE(test, settle(map));
	KUNIT_EXPECT_GT(test, stats_of(map).longest_probe, 32);
	plug = plug_worker(test);
	be_restless(test, 0, true);
	begin_migration(test, map, 300);
	calm_down(test);
	n = copied_for(test, map, 1000);
	KUNIT_EXPECT_GT(test, n, 0);
	KUNIT_EXPECT_LE(test, n, 4);
	n = copied_for(test, map, FLOOD + 300);
	KUNIT_EXPECT_GT(test, n, 32);
	unplug_worker(test, plug);
	KUNIT_EXPECT_TRUE(test, settle(map));
	expect_sound(test, map);
}

/* A map that gets more pairs with each table that is made for it. */
static struct chm *filling;
static u64 filling_from;

static void *filling_alloc(u64 bytes, gfp_t gfp)
{
	struct chm *map = filling;

	tables_built++;
	filling = NULL;
	/* More than there is room for in the last page of a table. */
	if (map && filling_from < 7000) {
		insert_keys(map, filling_from, filling_from + 190);
		filling_from += 190;
	}
	filling = map;
	return __chm_alloc(bytes, gfp);
}

/* The table that fits is too small when it comes; the next one is larger. */
static void chm_shrink_while_others_insert(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 8000, GFP_KERNEL), 0);
	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 2000), 0);
	KUNIT_EXPECT_TRUE(test, settle(map));
	filling = map;
	filling_from = 2000;
	tables_built = 0;
	kunit_activate_static_stub(test, chm_alloc, filling_alloc);
	KUNIT_EXPECT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	kunit_deactivate_static_stub(test, chm_alloc);
	/* CONFIG_CHM_DEBUG: two allocations for each */
	KUNIT_EXPECT_LE(test, tables_built, 12);
	KUNIT_EXPECT_GE(test, stats_of(map).shrinks, 1);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, filling_from), 0);
	expect_sound(test, map);
}

/* A reservation that fails takes nothing back of what is under way. */
static void chm_reserve_too_much_midway(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	struct plug *plug = fill_and_plug(test, map, 400, 400);
	struct chm_stats s;
	u64 key;

	be_restless(test, 1, false);
	key = begin_migration(test, map, 400);
	s = stats_of(map);
	KUNIT_EXPECT_EQ(test, chm_reserve(map, ULONG_MAX, GFP_KERNEL), -E2BIG);
	KUNIT_EXPECT_NE(test, stats_of(map).migrating, 0);
	KUNIT_EXPECT_GE(test, stats_of(map).copied, s.copied);
	KUNIT_EXPECT_EQ(test, stats_of(map).aborts, s.aborts);
	calm_down(test);
	unplug_worker(test, plug);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, key), 0);
	expect_sound(test, map);
}

/* A call that has to wait for an earlier table's readers still makes the map fit. */
static void chm_shrink_at_once(struct kunit *test)
{
	struct chm *map = test_map(test, &u64_params);
	unsigned long slots;

	KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 40000), 0);
	KUNIT_ASSERT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	slots = stats_of(map).slots;
	KUNIT_ASSERT_EQ(test, chm_reserve(map, 43000, GFP_KERNEL), 0);
	KUNIT_EXPECT_GT(test, stats_of(map).slots, slots);
	KUNIT_ASSERT_EQ(test, chm_shrink(map, GFP_KERNEL), 0);
	KUNIT_EXPECT_EQ(test, stats_of(map).slots, slots);
	KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 40000), 0);
	expect_sound(test, map);
}

#define WRAP_LAST	U64_MAX

struct wrap {
	struct chm		*map;
	unsigned long		failed;
};

static bool wrap_begins;

/* chm_clear() has asked for memory, and is about to do without. */
static void *wrap_no_alloc(u64 bytes, gfp_t gfp)
{
	WRITE_ONCE(wrap_begins, true);
	return ERR_PTR(-ENOMEM);
}

/* The home of the last key is the last chunk; the others are anywhere. */
static u64 wrap_hash(const void *key, u64 seed)
{
	u64 k = *(const u64 *)key;

	return unmix(k == WRAP_LAST ? k : chm_fold(k + 1), seed);
}

static int wrap_replace(void *arg)
{
	struct wrap *w = arg;
	u64 key = WRAP_LAST, value = 0;

	while (!READ_ONCE(wrap_begins))
		cond_resched();
	while (!kthread_should_stop()) {
		int ret = chm_replace(w->map, &key, &value, GFP_ATOMIC);

		w->failed += ret && ret != -ENOENT;
		ndelay(500);
		if (!(++value % 64))
			cond_resched();
	}
	return 0;
}

/* Return: whether the key is there, which nobody has inserted since. */
static bool wrap_survives(struct kunit *test, struct chm *map)
{
	struct wrap w = { .map = map };
	struct task_struct *task;

	wrap_begins = false;
	task = kthread_run(wrap_replace, &w, "chm_wrap");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	usleep_range(1000, 2000);
	kunit_activate_static_stub(test, chm_alloc, wrap_no_alloc);
	chm_clear(map);
	kunit_deactivate_static_stub(test, chm_alloc);
	kthread_stop(task);
	KUNIT_EXPECT_EQ(test, w.failed, 0);
	return has_key(map, WRAP_LAST);
}

/*
 * A pair that is replaced while its map is cleared in place moves on, past the end of
 * the table and to chunks that were cleared before.
 */
static void chm_clear_in_place_meets_replace(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .hash = wrap_hash,
	};
	struct chm *map = test_map(test, &p);
	u32 rounds = scaled(10, 3), survived = 0, i;

	KUNIT_ASSERT_EQ(test, chm_reserve(map, 100000, GFP_KERNEL), 0);
	for (i = 0; i < rounds; i++) {
		KUNIT_ASSERT_EQ(test, insert_keys(map, 0, 50000), 0);
		KUNIT_ASSERT_EQ(test, insert_key(map, WRAP_LAST), 0);
		survived += wrap_survives(test, map);
		expect_sound(test, map);
		chm_clear(map);
		KUNIT_ASSERT_TRUE(test, wait_dead(map));
	}
	KUNIT_EXPECT_EQ(test, survived, 0);
}

/*
 * The worker has begun to move some pairs of a large table to a small one.  Return:
 * whether that was seen in time.
 */
static bool shrink_begins(struct kunit *test, struct chm *map, u64 n, u64 left)
{
	struct plug *plug = plug_worker(test);
	unsigned long end = jiffies + 10 * HZ;
	struct chm_stats s;

	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, left), 0);
	KUNIT_EXPECT_EQ(test, chm_reserve(map, n, GFP_KERNEL), 0);
	unplug_worker(test, plug);
	KUNIT_EXPECT_TRUE(test, settle(map));
	/* Ends the promise, and has the worker look at the map. */
	KUNIT_EXPECT_EQ(test, chm_reserve(map, 0, GFP_KERNEL), 0);
	do {
		s = stats_of(map);
	} while (!s.migrating && s.slots > n && time_before(jiffies, end));
	return s.migrating && s.migrating < s.chunks;
}

/* A promise that the small table could not keep, while that is being filled. */
static void chm_reserve_while_shrinking(struct kunit *test)
{
	u32 rounds, met = 0;

	for (rounds = 0; rounds < 20 && met < 3; rounds++) {
		struct chm *map = test_map(test, &u64_params);

		met += shrink_begins(test, map, 300000, 1000);
		KUNIT_EXPECT_EQ(test, chm_reserve(map, 200000, GFP_KERNEL), 0);
		KUNIT_EXPECT_TRUE(test, settle(map));
		KUNIT_EXPECT_GE(test, stats_of(map).slots, 200000 * 5 / 4);
		expect_sound(test, map);
		destroy_now(test, map);
	}
	if (!met)
		kunit_skip(test, "no shrinking was met in %u rounds", rounds);
}

/* Are more pairs in the table that is being filled than may be in any? */
static bool next_is_full(struct chm *map)
{
	unsigned long flags;
	bool full;

	lock_table(map, &flags);
	full = map->next && map->next->migrated > map->next->hard_entries;
	unlock_table(map, &flags);
	return full;
}

/* More pairs than the small table is for, while that is being filled. */
static void chm_insert_while_shrinking(struct kunit *test)
{
	u32 rounds, met = 0;

	for (rounds = 0; rounds < 20 && met < 3; rounds++) {
		struct chm *map = test_map(test, &u64_params);
		unsigned long full = 0;
		u64 key;

		met += shrink_begins(test, map, 300000, 1000);
		for (key = 1000; key < 3000; key++) {
			KUNIT_EXPECT_EQ(test, stuck_insert(map, key, GFP_ATOMIC), 0);
			full += next_is_full(map);
		}
		KUNIT_EXPECT_EQ(test, full, 0);
		KUNIT_EXPECT_TRUE(test, settle(map));
		KUNIT_EXPECT_EQ(test, wrong_keys(map, 0, 3000), 0);
		expect_sound(test, map);
		destroy_now(test, map);
	}
	if (!met)
		kunit_skip(test, "no shrinking was met in %u rounds", rounds);
}

/* === Walks =============================================================== */

/*
 * Keys of group g have one home under seed number g, and under no other: so who
 * inserts the group of the seed that is in use makes the map take another one.
 */
#define WALK_SEEDS	64U
#define WALK_CALM	U32_MAX		/* the group that never collides */
#define WALK_STEADY	300U
#define WALK_FLOOD	6000U

static u64 walk_seeds[WALK_SEEDS];

/* In the order in which the map tried them. */
static u32 walk_seed_nr(u64 hash_seed)
{
	u32 i;

	for (i = 0; i < WALK_SEEDS - 1; i++) {
		if (!READ_ONCE(walk_seeds[i]))
			cmpxchg64(&walk_seeds[i], 0, hash_seed);
		if (READ_ONCE(walk_seeds[i]) == hash_seed)
			break;
	}
	return i;
}

static u64 walk_hash(const void *key, u64 hash_seed)
{
	u64 k = *(const u64 *)key;

	if (walk_seed_nr(hash_seed) == k >> 32)
		return unmix(0x4711ULL << 48 | (k & 0xffff), hash_seed);
	return chm_fold(chm_fold(k ^ hash_seed));
}

struct walk {
	struct chm		*map;
	struct kunit		*test;
	u64			rng;
	u8			steady[WALK_STEADY];	/* visits */
	u8			*flood;			/* those of flooding keys */
	unsigned long		pairs;
	unsigned long		flooded;
};

static u64 walk_steady_key(u32 i)
{
	return (u64)WALK_CALM << 32 | i;
}

static struct walk *walk_new(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64), .hash = walk_hash,
	};
	struct walk *w = test_alloc(test, sizeof(*w));
	u32 i;

	memset(walk_seeds, 0, sizeof(walk_seeds));
	w->map = test_map(test, &p);
	w->test = test;
	w->rng = rnd_seed(0);
	w->flood = test_alloc(test, WALK_SEEDS * WALK_FLOOD);
	for (i = 0; i < WALK_STEADY; i++)
		KUNIT_EXPECT_EQ(test, insert_key(w->map, walk_steady_key(i)), 0);
	return w;
}

/* The number of the seed in use. */
static u32 walk_seed_now(struct walk *w)
{
	unsigned long flags;
	u64 hash_seed;

	hash_seed = lock_table(w->map, &flags)->seed[0];
	unlock_table(w->map, &flags);
	return walk_seed_nr(hash_seed);
}

/* Make the map take a fresh seed. */
static void walk_reseed(struct walk *w)
{
	unsigned long reseeds = stats_of(w->map).reseeds;
	u32 group = walk_seed_now(w), i;

	KUNIT_ASSERT_LT(w->test, group, WALK_SEEDS - 1);
	for (i = 0; i < WALK_FLOOD && stats_of(w->map).reseeds == reseeds; i++) {
		insert_key(w->map, (u64)group << 32 | i);
		give_way();
	}
	w->flooded += i;
	KUNIT_EXPECT_TRUE(w->test, settle(w->map));
	KUNIT_EXPECT_GT_MSG(w->test, stats_of(w->map).reseeds, reseeds,
			    "no reseed after %u pairs with one home", i);
	KUNIT_EXPECT_NE(w->test, walk_seed_now(w), group);
}

static void walk_visit(struct walk *w, u64 key)
{
	u32 group = key >> 32, i = (u32)key;

	w->pairs++;
	if (group == WALK_CALM && i < WALK_STEADY)
		w->steady[i]++;
	else if (group < WALK_SEEDS && i < WALK_FLOOD)
		w->flood[group * WALK_FLOOD + i]++;
	else
		KUNIT_FAIL(w->test, "a walk met key %#llx", key);
}

/* As a netlink dump does: what is kept in between is the cursor's bytes. */
static bool walk_piece(struct walk *w, struct chm_iter *stored, u32 pairs)
{
	struct chm_iter it = *stored;
	bool more = true;
	u64 key, value;

	memset(stored, 0x5a, sizeof(*stored));
	while (pairs-- > 0 && more) {
		more = chm_iter_next(&it, &key, &value);
		if (more)
			walk_visit(w, key);
		if (more && value != value_of(key))
			KUNIT_FAIL(w->test, "key %#llx with value %#llx", key, value);
	}
	*stored = it;
	return more;
}

/* Each steady key @least times to once, and no other more than once. */
static void walk_expect(struct walk *w, u32 least)
{
	u32 i;

	for (i = 0; i < WALK_STEADY; i++) {
		KUNIT_EXPECT_GE_MSG(w->test, w->steady[i], least, "G8: key %u", i);
		KUNIT_EXPECT_LE_MSG(w->test, w->steady[i], 1, "G8: key %u", i);
	}
	for (i = 0; i < WALK_SEEDS * WALK_FLOOD; i++)
		KUNIT_EXPECT_LE_MSG(w->test, w->flood[i], 1, "G8: flooding key %u", i);
	memset(w->steady, 0, sizeof(w->steady));
	for (i = 0; i < WALK_SEEDS; i++)
		memset(w->flood + i * WALK_FLOOD, 0, WALK_FLOOD);
	w->pairs = 0;
}

/*
 * Insert keys of one home until the map takes a fresh seed.  Return: how many it has
 * put further from home than it tolerates.
 */
static u32 walk_far_pairs(struct walk *w)
{
	unsigned long reseeds = stats_of(w->map).reseeds;
	u32 group = walk_seed_now(w), i, far = 0;
	struct chm_stats s;

	for (i = 0; i < WALK_FLOOD; i++) {
		KUNIT_EXPECT_EQ(w->test, insert_key(w->map, (u64)group << 32 | i), 0);
		s = stats_of(w->map);
		if (s.reseeds != reseeds)
			break;
		/* 32 chunks are the limit of a table that is half empty. */
		far += s.longest_probe > 33;
	}
	KUNIT_EXPECT_GT(w->test, s.reseeds, reseeds);
	KUNIT_EXPECT_TRUE(w->test, settle(w->map));
	return far;
}

/*
 * Who knows each seed does not have all pairs copied with each pair of his: long paths
 * must have cost as much before, an eighth of a chunk for each pair.
 */
static void chm_defence_is_paid_for(struct kunit *test)
{
	struct walk *w = walk_new(test);
	u32 n = 10000, i, far;

	KUNIT_ASSERT_EQ(test, chm_reserve(w->map, 2 * n, GFP_KERNEL), 0);
	for (i = WALK_STEADY; i < n; i++)
		KUNIT_EXPECT_EQ(test, insert_key(w->map, walk_steady_key(i)), 0);
	walk_far_pairs(w);
	for (i = 0; i < 3; i++) {
		far = walk_far_pairs(w);
		kunit_info(test, "%u far pairs\n", far);
		/* Paths are of 33 to 64 chunks. */
		KUNIT_EXPECT_GE(test, far, n / 8 / 64);
	}
	expect_sound(test, w->map);
}

static void *building_alloc(u64 bytes, gfp_t gfp)
{
	tables_built++;
	return __chm_alloc(bytes, gfp);
}

/* A fresh seed is due, and no table may be retired: none is built for nothing. */
static void chm_reseed_waits_for_readers(struct kunit *test)
{
	struct walk *w = walk_new(test);
	struct long_reader *r;
	u32 group, i, n;

	KUNIT_ASSERT_EQ(test, chm_reserve(w->map, 100000, GFP_KERNEL), 0);
	KUNIT_ASSERT_TRUE(test, settle(w->map));
	r = test_reader(test);
	KUNIT_ASSERT_EQ(test, chm_reserve(w->map, 200000, GFP_KERNEL), 0);
	group = walk_seed_now(w);
	tables_built = 0;
	kunit_activate_static_stub(test, chm_alloc, building_alloc);
	for (i = 0; i < WALK_FLOOD - 5 && !w->map->seeding; i++)
		KUNIT_EXPECT_EQ(test, insert_key(w->map, (u64)group << 32 | i), 0);
	KUNIT_EXPECT_TRUE(test, w->map->seeding);
	for (n = 0; n < 5; n++, i++)
		KUNIT_EXPECT_EQ(test, insert_key(w->map, (u64)group << 32 | i), 0);
	kunit_deactivate_static_stub(test, chm_alloc);
	KUNIT_EXPECT_EQ(test, tables_built, 0);
	stop_reader(test, r);
	KUNIT_EXPECT_TRUE(test, settle(w->map));
	expect_sound(test, w->map);
}

/* G8, through as many orders as a walk remembers. */
static void chm_walk_across_reseeds(struct kunit *test)
{
	struct walk *w = walk_new(test);
	struct chm_iter it;
	u32 i;

	chm_iter_init(&it, w->map);
	for (i = 1; i < CHM_ORDERS; i++) {
		/* The rest of the flood is in front of it, and may come, too. */
		KUNIT_EXPECT_TRUE(test, walk_piece(w, &it, 40));
		walk_reseed(w);
	}
	while (walk_piece(w, &it, 7))
		;
	KUNIT_EXPECT_FALSE(test, chm_iter_stale(&it));
	KUNIT_EXPECT_FALSE(test, chm_iter_next(&it, NULL, NULL));
	kunit_info(test, "%lu pairs, %lu reseeds by %lu pairs\n", w->pairs,
		   stats_of(w->map).reseeds, w->flooded);
	walk_expect(w, 1);
	expect_sound(test, w->map);
}

/* After one order more it ends and says so; the next walk is complete. */
static void chm_walk_across_too_many_reseeds(struct kunit *test)
{
	struct walk *w = walk_new(test);
	struct chm_iter it;
	u32 i;

	chm_iter_init(&it, w->map);
	for (i = 0; i < CHM_ORDERS; i++) {
		KUNIT_EXPECT_TRUE(test, walk_piece(w, &it, 20));
		walk_reseed(w);
	}
	while (walk_piece(w, &it, 7))
		;
	KUNIT_EXPECT_TRUE(test, chm_iter_stale(&it));
	KUNIT_EXPECT_FALSE(test, chm_iter_next(&it, NULL, NULL));
	walk_expect(w, 0);
	chm_iter_init(&it, w->map);
	while (walk_piece(w, &it, 50))
		;
	KUNIT_EXPECT_FALSE(test, chm_iter_stale(&it));
	KUNIT_EXPECT_EQ(test, w->pairs, chm_count(w->map));
	walk_expect(w, 1);
	expect_sound(test, w->map);
}

/* A dump that is never finished does not keep the map from defending itself. */
static void chm_walk_that_is_forgotten(struct kunit *test)
{
	struct walk *w = walk_new(test);
	struct chm_iter its[3];
	u32 i;

	for (i = 0; i < ARRAY_SIZE(its); i++) {
		chm_iter_init(&its[i], w->map);
		walk_piece(w, &its[i], 1 + i);
	}
	walk_reseed(w);
	KUNIT_EXPECT_LE(test, stats_of(w->map).displaced, chm_count(w->map) / 2);
	expect_sound(test, w->map);
}

static void walk_churn(struct walk *w)
{
	u32 i;

	for (i = 0; i < 12; i++) {
		u64 key = (u64)(WALK_SEEDS - 1) << 32 | rnd(&w->rng, 200);
		u64 steady = walk_steady_key(rnd(&w->rng, WALK_STEADY));
		u64 value = value_of(steady);

		if (remove_key(w->map, key))
			KUNIT_EXPECT_EQ(w->test, insert_key(w->map, key), 0);
		KUNIT_EXPECT_EQ(w->test, chm_replace(w->map, &steady, &value, GFP_ATOMIC), 0);
	}
	if (rnd(&w->rng, 10))
		return;
	WRITE_ONCE(chm_restless, false);
	KUNIT_EXPECT_EQ(w->test, chm_reserve(w->map, rnd(&w->rng, 3000), GFP_KERNEL), 0);
	WRITE_ONCE(chm_restless, true);
}

/* G8, with tables that are replaced as fast as readers leave. */
static void chm_walk_in_pieces_while_all_moves(struct kunit *test)
{
	struct walk *w = walk_new(test);
	u32 rounds = scaled(40, 4);
	struct chm_stats s;
	struct chm_iter it;
	u32 i;

	be_restless(test, 1, true);
	for (i = 0; i < rounds; i++) {
		chm_iter_init(&it, w->map);
		while (walk_piece(w, &it, 1 + rnd(&w->rng, 20)))
			walk_churn(w);
		KUNIT_EXPECT_FALSE(test, chm_iter_stale(&it));
		walk_expect(w, 1);
	}
	calm_down(test);
	s = stats_of(w->map);
	KUNIT_EXPECT_GT(test, migrations(&s), rounds / 4);
	expect_sound(test, w->map);
}

/* A key that is replaced by an equal one with other bytes comes once as well. */
static void chm_walk_over_keys_that_change_their_bytes(struct kunit *test)
{
	static const struct chm_params p = {
		.key_size = sizeof(u64), .value_size = sizeof(u64),
		.hash = hash_low_bits, .equal = equal_low_bits,
	};
	struct chm *map = test_map(test, &p);
	u8 *visits = test_alloc(test, WALK_STEADY);
	u64 rng = rnd_seed(1), key, value = 0;
	struct chm_iter it;
	u32 i;

	KUNIT_EXPECT_EQ(test, insert_keys(map, 0, WALK_STEADY), 0);
	be_restless(test, 1, true);
	chm_iter_init(&it, map);
	while (chm_iter_next(&it, &key, NULL)) {
		if ((key & S64_MAX) < WALK_STEADY)
			visits[key & S64_MAX]++;
		for (i = 0; i < 10; i++) {
			u64 other = rnd(&rng, WALK_STEADY) | (u64)rnd(&rng, 2) << 63;

			KUNIT_EXPECT_EQ(test, chm_replace(map, &other, &value, GFP_KERNEL), 0);
		}
	}
	calm_down(test);
	for (i = 0; i < WALK_STEADY; i++)
		KUNIT_EXPECT_EQ_MSG(test, visits[i], 1, "G8: key %u", i);
	expect_sound(test, map);
}

/* === Suites ============================================================== */

static int writers_suite_init(struct kunit_suite *suite)
{
	if (!seed)
		seed = get_random_u32();
	pr_info("scale=%u volume=%u seed=%lu\n", scale, volume, seed);
	return 0;
}

static struct kunit_case chm_writers_cases[] = {
	KUNIT_CASE_PARAM(chm_writers_race_in_all_contexts, scene_gen_params),
	KUNIT_CASE(chm_insert_atomic_from_two_cpus),
	KUNIT_CASE(chm_insert_atomic_on_rhashtable),
	KUNIT_CASE(chm_insert_takes_bounded_time),
	KUNIT_CASE(chm_clear_takes_constant_time),
	{}
};

static struct kunit_suite chm_writers_suite = {
	.name = "chm_writers",
	.suite_init = writers_suite_init,
	.test_cases = chm_writers_cases,
};

static struct kunit_case chm_calls_cases[] = {
	KUNIT_CASE(chm_get_or_insert_tells_which),
	KUNIT_CASE(chm_get_or_insert_of_cell),
	KUNIT_CASE(chm_lookup_or_insert_points_into_the_map),
	KUNIT_CASE(chm_lookup_or_insert_stays_readable),
	KUNIT_CASE(chm_lookup_or_insert_fails_by_pointer),
	KUNIT_CASE(chm_insert_many_inserts_all),
	KUNIT_CASE(chm_insert_many_grows_in_atomic_context),
	KUNIT_CASE(chm_insert_many_stops_at_the_first_failure),
	KUNIT_CASE(chm_insert_many_takes_a_key_once),
	KUNIT_CASE(chm_insert_many_keys_without_values),
	KUNIT_CASE(chm_remove_many_removes_what_is_there),
	KUNIT_CASE(chm_remove_many_midway),
	KUNIT_CASE(chm_many_share_no_long_hold),
	KUNIT_CASE(chm_replace_if_compares),
	KUNIT_CASE(chm_replace_if_of_word),
	KUNIT_CASE(chm_remove_if_compares),
	KUNIT_CASE(chm_conditional_calls_refuse_cells),
	KUNIT_CASE(chm_swap_hands_out_the_old_pair),
	KUNIT_CASE(chm_swap_of_word),
	KUNIT_CASE(chm_take_hands_out_the_stored_key),
	KUNIT_CASE(chm_take_of_cell_hands_out_the_stored_key),
	KUNIT_CASE(chm_take_of_cell_while_cleared),
	KUNIT_CASE(chm_remove_while_visiting),
	KUNIT_CASE(chm_ctx_reaches_drop),
	KUNIT_CASE(chm_ctx_reaches_clone),
	KUNIT_CASE(chm_ctx_reaches_merge),
	KUNIT_CASE(chm_ctx_of_static_map_is_null),
	KUNIT_CASE(chm_typed_map_with_array_keys),
	KUNIT_CASE(chm_string_keys_are_owned),
	KUNIT_CASE(chm_string_hash_depends_on_seed),
	KUNIT_CASE(chm_destroy_async_drops_all),
	KUNIT_CASE(chm_destroy_async_waits_for_readers),
	KUNIT_CASE(chm_destroy_async_of_sync_map),
	KUNIT_CASE(chm_destroy_async_in_the_middle),
	KUNIT_CASE(chm_destroy_async_in_softirq),
	KUNIT_CASE(chm_destroy_async_in_hardirq),
	KUNIT_CASE(chm_destroy_async_under_the_worker),
	KUNIT_CASE(chm_drop_comes_before_reuse),
	KUNIT_CASE(chm_destroy_waits_for_drop),
	KUNIT_CASE(chm_destroy_between_turns),
	KUNIT_CASE(chm_destroy_before_the_next_turn),
	KUNIT_CASE(chm_destroy_async_of_many_maps),
	KUNIT_CASE(chm_destroy_with_a_drop_that_writes),
	KUNIT_CASE(chm_barrier_with_nothing_to_do),
	{}
};

static struct kunit_suite chm_calls_suite = {
	.name = "chm_calls",
	.suite_init = writers_suite_init,
	.test_cases = chm_calls_cases,
};

static struct kunit_case chm_misuse_cases[] = {
	KUNIT_CASE_PARAM(chm_blocking_where_it_must_not, misuse_gen_params),
	KUNIT_CASE(chm_lookup_or_insert_that_blocks),
	KUNIT_CASE(chm_walk_of_another_type),
	KUNIT_CASE(chm_misuse_is_reported_once),
	KUNIT_CASE(chm_sync_map_where_it_must_not_block),
	KUNIT_CASE(chm_map_that_was_never_made),
	KUNIT_CASE(chm_map_that_was_destroyed),
	KUNIT_CASE(chm_map_that_was_destroyed_async),
	{}
};

static int misuse_suite_init(struct kunit_suite *suite)
{
	misuse_tainted = test_taint(TAINT_WARN);
	return writers_suite_init(suite);
}

static struct kunit_suite chm_misuse_suite = {
	.name = "chm_misuse",
	.suite_init = misuse_suite_init,
	.test_cases = chm_misuse_cases,
};

static struct kunit_case chm_midway_cases[] = {
	KUNIT_CASE_PARAM(chm_calls_agree_with_model, model_gen_params),
	KUNIT_CASE_PARAM(chm_calls_survive_failed_allocations, model_gen_params),
	KUNIT_CASE_PARAM(chm_growth_that_never_succeeds, stuck_gen_params),
	KUNIT_CASE(chm_growth_without_worker),
	KUNIT_CASE(chm_growth_without_worker_by_blocking),
	KUNIT_CASE(chm_growth_takes_gfp_of_caller),
	KUNIT_CASE(chm_stale_value_takes_no_room),
	KUNIT_CASE(chm_full_of_dead_without_clones),
	KUNIT_CASE(chm_beyond_maximum_without_clones),
	KUNIT_CASE(chm_stuck_without_clones),
	KUNIT_CASE(chm_full_of_dead_clones_again),
	KUNIT_CASE(chm_one_wait_will_do),
	KUNIT_CASE(chm_wait_is_not_for_what_dies_later),
	KUNIT_CASE(chm_longer_wait_takes_nothing_back),
	KUNIT_CASE(chm_worker_drops_after_a_wait),
	KUNIT_CASE(chm_worker_frees_after_a_wait),
	KUNIT_CASE(chm_defence_is_not_put_off),
	KUNIT_CASE(chm_full_table_is_looked_at_rarely),
	KUNIT_CASE(chm_shrunk_table_stays),
	KUNIT_CASE_PARAM(chm_wanted_table_comes, wanted_gen_params),
	KUNIT_CASE(chm_wanted_table_comes_later),
	KUNIT_CASE(chm_wanted_no_more),
	KUNIT_CASE(chm_barrier_waits_for_the_worker),
	KUNIT_CASE(chm_reserved_cells_without_worker),
	KUNIT_CASE(chm_slow_drop_ends_its_turn),
	KUNIT_CASE(chm_clear_retires_little),
	KUNIT_CASE(chm_reseed_waits_for_readers),
	KUNIT_CASE(chm_shrink_of_clones_by_two),
	KUNIT_CASE(chm_reserve_before_shrinking),
	KUNIT_CASE(chm_shrink_when_growth_is_due),
	KUNIT_CASE(chm_shrink_of_what_fits),
	KUNIT_CASE(chm_shrink_meets_smaller_table),
	KUNIT_CASE(chm_reserve_while_others_move),
	KUNIT_CASE(chm_reserve_while_cells_move),
	KUNIT_CASE(chm_reserve_while_cells_grow),
	KUNIT_CASE(chm_reserve_while_others_retire),
	KUNIT_CASE(chm_insert_maximum_before_worker),
	KUNIT_CASE(chm_shrink_beside_worker),
	KUNIT_CASE(chm_reserve_for_atomic_callers),
	KUNIT_CASE(chm_replace_stuck_in_small_table),
	KUNIT_CASE(chm_insert_atomic_below_minimum),
	KUNIT_CASE(chm_insert_meets_larger_table),
	KUNIT_CASE(chm_insert_too_far_meets_other_table),
	KUNIT_CASE(chm_write_copies_little),
	KUNIT_CASE(chm_insert_drives_what_it_waits_for),
	KUNIT_CASE(chm_cells_are_merged_by_slot),
	KUNIT_CASE(chm_cells_are_merged_before_take),
	KUNIT_CASE(chm_taken_cell_is_not_reused),
	KUNIT_CASE(chm_takers_wait_for_one_another),
	KUNIT_CASE(chm_taker_in_worker_waits_for_readers),
	KUNIT_CASE(chm_taker_leaves_retired_tables),
	KUNIT_CASE(chm_cell_is_replaced_at_once),
	KUNIT_CASE(chm_cells_are_merged_before_drop),
	KUNIT_CASE(chm_removed_key_is_not_compared),
	KUNIT_CASE(chm_cells_are_merged_meanwhile),
	KUNIT_CASE(chm_clear_in_place_midway),
	KUNIT_CASE(chm_clear_of_empty_map),
	KUNIT_CASE(chm_roomy_table_is_replaced),
	KUNIT_CASE(chm_flood_of_fuller_table),
	KUNIT_CASE(chm_flood_midway),
	KUNIT_CASE(chm_flood_shares_migration),
	KUNIT_CASE(chm_flood_ends_migration),
	KUNIT_CASE(chm_flood_of_many_ends_migration),
	KUNIT_CASE(chm_shrink_while_others_insert),
	KUNIT_CASE(chm_shrink_at_once),
	KUNIT_CASE(chm_reserve_too_much_midway),
	KUNIT_CASE_SLOW(chm_clear_in_place_meets_replace),
	KUNIT_CASE(chm_reserve_while_shrinking),
	KUNIT_CASE(chm_insert_while_shrinking),
	KUNIT_CASE(chm_defence_is_paid_for),
	KUNIT_CASE(chm_walk_across_reseeds),
	KUNIT_CASE(chm_walk_across_too_many_reseeds),
	KUNIT_CASE(chm_walk_that_is_forgotten),
	KUNIT_CASE(chm_walk_in_pieces_while_all_moves),
	KUNIT_CASE(chm_walk_over_keys_that_change_their_bytes),
	{}
};

static struct kunit_suite chm_midway_suite = {
	.name = "chm_midway",
	.suite_init = writers_suite_init,
	.test_cases = chm_midway_cases,
};

kunit_test_suites(&chm_writers_suite, &chm_calls_suite, &chm_misuse_suite,
		  &chm_midway_suite);

MODULE_DESCRIPTION("KUnit tests of chm: writers");
MODULE_LICENSE("GPL");
