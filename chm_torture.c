// SPDX-License-Identifier: GPL-2.0-only
/*
 * Torture test of chm: all calls, in all contexts, on shared keys, for hours
 *
 * One map after another lives for some seconds.  tort_types[] lists their types.
 * While a map lives, all roles in tort_roles[] use it at the same time.  Then it is
 * destroyed under its readers.  rcutorture is the model.  kernel/torture.c is not
 * used, because distributions' kernels lack it.
 *
 * The oracle: each value carries its key, a version, and a pattern computed from
 * both and from a random number of the map.  There are four groups of keys.  Each
 * is written in a way that lets readers judge what they find, at little more than
 * the cost of a lookup:
 *
 *	steady	always present; any number of writers replace the value at the same
 *		time, by chm_replace_if() from version n to n + 1
 *	locked	one writer at a time, with all calls; each result is predicted
 *	wild	any number of writers at the same time, with all calls; all that was
 *		put in must come out, by drop(), take and swap
 *	hot	some of the wild keys: each call is recorded with the times of its
 *		begin and end, and the records are checked for linearizability
 *
 * Steady cells of CHM_CELL maps are added to, and each sum must be exact.
 * Documentation/testing.rst tells what this can't find.
 */
#define pr_fmt(fmt) "chm-torture: " fmt

#include <linux/atomic.h>
#include <linux/bits.h>
#include <linux/cpu.h>
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/gfp.h>
#include <linux/hrtimer.h>
#include <linux/init.h>
#include <linux/irq_work.h>
#include <linux/irqflags.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/math64.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/random.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/sched/debug.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/srcu.h>
#include <linux/string.h>
#include <linux/timekeeping.h>

#include "chm.h"
#include "chm_compat.h"

/* === Parameters ========================================================== */

/* If it is built in, it runs only if this is given. */
static unsigned int seconds = IS_MODULE(CONFIG_CHM_TORTURE) ? 60 : 0;
module_param(seconds, uint, 0444);
MODULE_PARM_DESC(seconds, "How long to run; 0: not at all");

static unsigned long seed;
module_param(seed, ulong, 0444);
MODULE_PARM_DESC(seed, "Repeats the schedule of operations (0: another one each time)");

static unsigned int slice = 600;
module_param(slice, uint, 0444);
MODULE_PARM_DESC(slice, "Milliseconds that most maps live");

static unsigned int stat = 15;
module_param(stat, uint, 0444);
MODULE_PARM_DESC(stat, "Seconds between two lines of statistics");

static unsigned int stall = 60;
module_param(stall, uint, 0444);
MODULE_PARM_DESC(stall, "Seconds without progress that are a failure");

static unsigned int readers = 2;
module_param(readers, uint, 0444);
MODULE_PARM_DESC(readers, "Threads that read");

static unsigned int writers = 2;
module_param(writers, uint, 0444);
MODULE_PARM_DESC(writers, "Threads that write");

static bool irqs = true;
module_param(irqs, bool, 0444);
MODULE_PARM_DESC(irqs, "Readers and writers in soft and hard interrupts, too");

static unsigned int max_keys = 1 << 22;
module_param(max_keys, uint, 0444);
MODULE_PARM_DESC(max_keys, "Most keys of a map");

static char *types = "";
module_param(types, charp, 0444);
MODULE_PARM_DESC(types, "Only types of maps whose names begin with this");

static bool stop;
module_param(stop, bool, 0444);
MODULE_PARM_DESC(stop, "End at the first failure");

static bool restless = true;
module_param(restless, bool, 0444);
MODULE_PARM_DESC(restless, "Two maps in three migrate all the time (needs CONFIG_KUNIT)");

static bool dawdle = true;
module_param(dawdle, bool, 0444);
MODULE_PARM_DESC(dawdle, "Writers pause between two stores (needs CONFIG_KUNIT)");

static bool faults = IS_ENABLED(CONFIG_FAULT_INJECTION);
module_param(faults, bool, 0444);
MODULE_PARM_DESC(faults, "Writers make allocations fail, and accept failures");

static unsigned int hog;
module_param(hog, uint, 0444);
MODULE_PARM_DESC(hog, "Take memory now and then, down to so many MiB (0: never)");

static bool onoff;
module_param(onoff, bool, 0444);
MODULE_PARM_DESC(onoff, "CPUs go offline, and come back (needs CONFIG_HOTPLUG_CPU)");

static bool verbose;
module_param(verbose, bool, 0444);
MODULE_PARM_DESC(verbose, "A line for each map");

/* For scripts */
static bool running;
module_param(running, bool, 0444);
MODULE_PARM_DESC(running, "Read-only: has not ended yet");

static unsigned int errors;
module_param(errors, uint, 0444);
MODULE_PARM_DESC(errors, "Read-only: failures so far");

static u64 tort_seed;

static void tort_echo(const char *when)
{
	pr_info("--- %s: seed=%llu seconds=%u slice=%u stat=%u stall=%u readers=%u writers=%u irqs=%d max_keys=%u types=%s stop=%d restless=%d dawdle=%d faults=%d hog=%u onoff=%d cpus=%u\n",
		when, tort_seed, seconds, slice, stat, stall, readers, writers,
		irqs, max_keys, *types ? types : "all", stop, restless, dawdle, faults,
		hog, onoff, num_online_cpus());
}

/* === Data ================================================================ */

#define TORT_WORKERS	32U
#define TORT_HOT	4U		/* hot keys of a map */
#define TORT_BATCH	64U		/* lookups in one section */
#define TORT_BUFFER	4096U		/* bytes of a key or value, or of many */
#define TORT_RECORDS	256U		/* of hot keys, by worker */
#define TORT_CONFIGS	2048U		/* see struct tort_config */
#define TORT_HELD	8U		/* pairs that one worker looks at */
#define TORT_DIGESTED	256U		/* operations that enter the digest */
#define TORT_COMPLAINTS	20		/* failures that are printed */

/* Versions */
#define TORT_ABSENT	0U
#define TORT_UNKNOWN	U32_MAX

#define TORT_NO_KEY	U32_MAX

enum tort_hashing {
	TORT_DEFAULT,
	TORT_SEEDED,
	TORT_WEAK,		/* 16 hashes */
	TORT_CONSTANT,
	TORT_CLUSTERS,		/* of keys with one home; readers linger there */
	TORT_FLOODED,		/* keys are chosen to collide, until the seed changes */
};

struct tort_type {
	const char		*name;
	struct chm_params	p;
	u32			keys;
	enum tort_hashing	hashing;
	u8			slices;		/* 0: 1 */
	bool			no_drop;
	bool			clears;		/* so no key is steady */
};

/* Some fields mean different things in different groups of keys. */
struct tort_key {
	atomic_t		owner;		/* locked: 1 while a writer has it */
	u32			seq;		/* locked: odd while it is written */
	u32			version;	/* locked: of the pair that is present */
	u32			epoch;		/* locked: l->clears at that time */
	u32			doomed;		/* locked: newest version to be removed */
	atomic_t		next;		/* the newest that was handed to chm; */
						/* steady: replacements; cells: begun */
	atomic_t		seen;		/* newest that was seen; cells: ended */
	atomic64_t		balance;	/* what was put in, less what came out */
};

/* One map, from chm_init() until it is destroyed */
struct tort_life {
	struct chm		map;
	struct chm_params	p;
	const struct tort_type	*type;
	u32			nr;
	u32			keys;		/* groups: steady, */
	u32			locked;		/* locked from here, */
	u32			wild;		/* wild from here, */
	u32			hot;		/* hot from here */
	u32			words;		/* of a value; 0: 4 bytes */
	bool			cell;
	bool			word;
	bool			calm;		/* migrates only if it has to */
	u32			focus;		/* a locked key that is written right now */
	u64			salt;
	u32			filled;		/* so many steady keys are present */
	bool			quiet;		/* no writer writes */
	bool			dying;		/* keys may be gone */
	bool			open;		/* calls on hot keys are recorded */
	u32			clears;		/* odd: chm_clear() is at work */
	atomic_t		clearing;
	atomic_t		clones_left;	/* until one fails */
	atomic64_t		drops;
	struct tort_key		flood;		/* for all keys chosen to collide */
	struct tort_key		*key;
	u32			*seen[TORT_WORKERS];	/* newest version of each key */
	u8			*count[2];	/* of a walk, and from its stored cursor */
	u8			*visited;	/* of a visit in place */
};

enum tort_context {
	TORT_THREAD,
	TORT_SOFTIRQ,
	TORT_HARDIRQ,
	TORT_IRQ_WORK,
};

static const char * const tort_contexts[] = {
	[TORT_THREAD] = "thread",
	[TORT_SOFTIRQ] = "softirq",
	[TORT_HARDIRQ] = "hardirq",
	[TORT_IRQ_WORK] = "irq_work",
};

enum tort_call {
	TORT_INSERT,
	TORT_GET_OR_INSERT,
	TORT_LOOKUP_OR_INSERT,
	TORT_REPLACE,
	TORT_REPLACE_IF,
	TORT_UPSERT,
	TORT_SWAP,
	TORT_REMOVE,
	TORT_REMOVE_IF,
	TORT_TAKE,
	TORT_READ,
	TORT_CLEAR,
	TORT_CALLS
};

static const char * const tort_calls[] = {
	[TORT_INSERT] = "insert",
	[TORT_GET_OR_INSERT] = "get_or_insert",
	[TORT_LOOKUP_OR_INSERT] = "lookup_or_insert",
	[TORT_REPLACE] = "replace",
	[TORT_REPLACE_IF] = "replace_if",
	[TORT_UPSERT] = "upsert",
	[TORT_SWAP] = "swap",
	[TORT_REMOVE] = "remove",
	[TORT_REMOVE_IF] = "remove_if",
	[TORT_TAKE] = "take",
	[TORT_READ] = "read",
	[TORT_CLEAR] = "clear",
};

static_assert(ARRAY_SIZE(tort_calls) == TORT_CALLS);

/* One call on one key, and its result */
struct tort_try {
	enum tort_call		call;
	u32			idx;
	u32			in;		/* version to be stored */
	u32			expected;
	u32			out;		/* version that was handed out */
	int			rc;		/* of all that may insert: 0 or 1 */
	u8			flavour;
};

/* A call on a hot key */
struct tort_record {
	u64			begin, end;	/* of tort_clock */
	u32			in, expected, out;
	int			rc;
	u8			call;
	u8			hot;		/* which key */
	u8			worker;
};

struct tort_worker;

struct tort_role {
	const char		*name;
	void			(*step)(struct tort_worker *w, struct tort_life *l);
	enum tort_context	context;
	bool			reads;		/* only under RCU: outlives the map */
	bool			writes;		/* not while the map is quiet */
	bool			alone;		/* has nothing to do with the map */
	unsigned int		pause;		/* of a thread, in ms */
	unsigned int		*number;	/* of such workers; NULL: one */
	const bool		*wanted;
};

struct tort_worker {
	const struct tort_role	*role;
	u32			id;
	struct task_struct	*task;
	struct hrtimer		timer;
	struct irq_work		irq;
	u32			life;		/* number of the last map */
	u64			random;		/* what to do */
	u64			noise;		/* when, and other things */
	u32			chosen;
	u64			digest;
	unsigned long		flags;
	bool			failing;	/* an allocation may fail */

	/* Counters; readers of these accept values that are a little old. */
	unsigned long		reads;
	unsigned long		hits;
	unsigned long		writes;
	unsigned long		rounds;
	unsigned long		beats;
	unsigned long		last_beats;	/* the watchdog's */
	unsigned long		stuck_since;

	u32			hot[TORT_HOT];	/* versions that it saw last */
	u32			records;
	struct tort_record	*record;
	u64			*key;		/* buffers of TORT_BUFFER bytes */
	u64			*old_key;
	u64			*value;
	u64			*expected;
	u64			*old;
};

/* The current map: readers use it under RCU, all others under SRCU. */
static struct tort_life __rcu *tort_life;
DEFINE_STATIC_SRCU(tort_srcu);
/* Workers hold it while they record a call. */
DEFINE_STATIC_SRCU(tort_hot_srcu);

static struct tort_worker *tort_workers;
static u32 tort_nr_workers;
static struct task_struct *tort_main_task, *tort_watch_task;
static bool tort_stop;
static atomic_t tort_waiting;			/* for the start */
static bool tort_started;
static u64 tort_start_ns;

/* Addresses of values that readers look at: these must not be dropped. */
static unsigned long tort_held[TORT_WORKERS][TORT_HELD];

/* The seed that tort_hash_flooded() was called with last */
static u64 tort_flood_seed;

/* Counts begins and ends of calls on hot keys. */
static atomic64_t tort_clock;

/* Sums over all maps that are gone */
static struct tort_totals {
	unsigned long		lives, migrations, aborts, reseeds, gp_waits;
	unsigned long		failed_allocs, histories, recorded, given_up;
	unsigned long		sides, verified, unverified, clears, floods;
	unsigned long		walks, resumed, stale, visits, offline, hogs;
	u64			drops, schedule;
} tort_total;

static bool tort_over(void)
{
	return READ_ONCE(tort_stop);
}

/* === Random numbers and time ============================================= */

static u64 tort_mix(u64 x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdULL;
	x ^= x >> 33;
	x *= 0xc4ceb9fe1a85ec53ULL;
	return x ^ x >> 33;
}

/* The inverse of tort_mix() */
static u64 tort_unmix(u64 x)
{
	static_assert(0xff51afd7ed558ccdULL * 0x4f74430c22a54005ULL == 1);
	static_assert(0xc4ceb9fe1a85ec53ULL * 0x9cb4b2f8129337dbULL == 1);

	x ^= x >> 33;
	x *= 0x9cb4b2f8129337dbULL;
	x ^= x >> 33;
	x *= 0x4f74430c22a54005ULL;
	return x ^ x >> 33;
}

static u64 tort_step_random(u64 *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static u32 tort_below(u64 *state, u32 below)
{
	return ((tort_step_random(state) >> 32) * below) >> 32;
}

/*
 * Draws decide on the schedule of operations, which the seed repeats.  So they may
 * depend only on the numbers of map and worker, and on earlier draws.
 */
static u32 tort_random(struct tort_worker *w, u32 below)
{
	return tort_below(&w->random, below);
}

/* For decisions that need not repeat */
static u32 tort_noise(struct tort_worker *w, u32 below)
{
	return tort_below(&w->noise, below);
}

static void tort_note_choice(struct tort_worker *w, u64 what)
{
	if (w->chosen++ < TORT_DIGESTED)
		w->digest = tort_mix(w->digest ^ what);
}

/* In User Mode Linux, local_clock() stands still while an interrupt lasts. */
static u64 tort_now(void)
{
	return ktime_get_mono_fast_ns();
}

/*
 * Keep the CPU for a while.  udelay() and cpu_relax() would not do: they execute
 * PAUSE, and then emulators run another CPU, so that no two CPUs spin at once.
 */
static void tort_spin(u64 ns)
{
	u64 start = tort_now();

	while (tort_now() - start < ns)
		barrier();
}

/*
 * Let others run.  User Mode Linux does not preempt kernel threads when an
 * interrupt returns, and cond_resched() does nothing with CONFIG_PREEMPT.
 */
static void tort_give_way(void)
{
	cond_resched();
	if (need_resched())
		schedule();
}

/* Call this in long loops. */
static void tort_beat(struct tort_worker *w)
{
	w->beats++;
	tort_give_way();
}

/* === Failures ============================================================ */

static atomic_t tort_complaints;

static void __printf(3, 4) tort_fail(struct tort_worker *w, struct tort_life *l,
				     const char *fmt, ...)
{
	struct va_format vaf;
	va_list args;

	WRITE_ONCE(errors, READ_ONCE(errors) + 1);
	if (stop)
		WRITE_ONCE(tort_stop, true);
	if (atomic_inc_return(&tort_complaints) > TORT_COMPLAINTS)
		return;
	va_start(args, fmt);
	vaf.fmt = fmt;
	vaf.va = &args;
	pr_err("!!! %pV; map %u %s, %s/%u in %s, cpu %u, seed %llu, %llu ms\n", &vaf,
	       l ? l->nr : 0, l ? l->type->name : "-",
	       w ? w->role->name : "callback", w ? w->id : 0,
	       w ? tort_contexts[w->role->context] : "thread",
	       raw_smp_processor_id(), tort_seed,
	       div_u64(tort_now() - tort_start_ns, NSEC_PER_MSEC));
	va_end(args);
}

/* === Keys and values ===================================================== */

/* Make key @idx in @buf. */
static const void *tort_make_key(const struct tort_life *l, u64 *buf, u32 idx)
{
	u32 words = l->p.key_size / sizeof(u64);
	u32 i;

	if (!words) {
		*(u32 *)buf = idx + (u32)l->salt;
		return buf;
	}
	buf[0] = (tort_mix(idx ^ l->salt) & ~(u64)U32_MAX) | idx;
	for (i = 1; i < words; i++)
		buf[i] = l->type->hashing == TORT_CLUSTERS ? 0 : tort_mix(buf[0] + i);
	return buf;
}

/* The number of @key, or TORT_NO_KEY.  */
static u32 tort_index(const struct tort_life *l, const void *key)
{
	u32 words = l->p.key_size / sizeof(u64);
	const u64 *k = key;
	u32 idx, i;

	if (!words) {
		idx = *(const u32 *)key - (u32)l->salt;
		return idx < l->keys ? idx : TORT_NO_KEY;
	}
	idx = k[0];
	if (idx >= l->keys || (tort_mix(idx ^ l->salt) ^ k[0]) >> 32)
		return TORT_NO_KEY;
	for (i = 1; i < words; i++) {
		if (k[i] != (l->type->hashing == TORT_CLUSTERS ? 0 : tort_mix(k[0] + i)))
			return TORT_NO_KEY;
	}
	return idx;
}

/* Word @i of a value whose first word is @head */
static u64 tort_word(const struct tort_life *l, u64 head, u32 i)
{
	return tort_mix((head ^ l->salt) + i * 0x9e3779b97f4a7c15ULL);
}

/* A word that tells whose cell it is; nothing is ever added to it. */
static u64 tort_stamp(const struct tort_life *l, u32 idx)
{
	return tort_mix(l->salt ^ idx) | 1;
}

/* The first word has version and key; of a cell, version and sum. */
static u64 tort_make_head(const struct tort_life *l, u32 idx, u32 version)
{
	if (!l->words)
		return (u32)(version << 6) | (idx & 63);
	return (u64)version << 32 | (l->cell ? 0 : idx);
}

static void tort_fill(const struct tort_life *l, u64 *value, u32 idx, u32 version)
{
	u64 head = tort_make_head(l, idx, version);
	u32 i;

	if (!l->words) {
		*(u32 *)value = head;
		return;
	}
	value[0] = head;
	for (i = 1; i < l->words; i++)
		value[i] = !l->cell ? tort_word(l, head, i) :
			   i == 1 ? tort_stamp(l, idx) : 0;
}

/* Read it only once: words and cells change at any time. */
static u64 tort_head(const struct tort_life *l, const void *value)
{
	if (!l->words)
		return READ_ONCE(*(const u32 *)value);
	return READ_ONCE(*(const u64 *)value);
}

static u32 tort_version(const struct tort_life *l, u64 head)
{
	return l->words ? head >> 32 : head >> 6;
}

static bool tort_good_cell(const struct tort_life *l, const u64 *value, u32 idx)
{
	u64 stamp;

	if (l->words < 2)
		return true;
	stamp = READ_ONCE(value[1]);
	/* chm_cell_upsert_add() inserts zeroes. */
	return stamp == tort_stamp(l, idx) || (!stamp && idx >= l->wild);
}

/* Is this a value of key @idx?  @head: its first word; @full: look at all words. */
static bool tort_good(const struct tort_life *l, const u64 *value, u64 head,
		      u32 idx, bool full)
{
	u32 i;

	if (l->cell)
		return tort_good_cell(l, value, idx);
	if (!l->words)
		return (head & 63) == (idx & 63);
	if ((u32)head != idx)
		return false;
	i = full ? 1 : max(l->words, 2U) - 1;
	for (; i < l->words; i++) {
		if (value[i] != tort_word(l, head, i))
			return false;
	}
	return true;
}

/* What one pair adds to the balance of its key: see tort_check_balance(). */
static u64 tort_worth(const struct tort_life *l, const u64 *value, u64 head)
{
	if (l->word)
		return 1;
	if (!l->cell)
		return tort_mix(head);
	return head + (l->words > 2 && !l->p.merge ? READ_ONCE(value[2]) : 0);
}

/* Locked cells are replaced, which loses what was added to them. */
static bool tort_is_balanced(const struct tort_life *l, u32 idx)
{
	return l->p.drop && !(l->cell && idx >= l->locked && idx < l->wild);
}

static void tort_put_in(struct tort_life *l, u32 idx, const u64 *value)
{
	if (tort_is_balanced(l, idx))
		atomic64_add(tort_worth(l, value, tort_head(l, value)),
			     &l->key[idx].balance);
}

static void tort_got_out(struct tort_life *l, u32 idx, const u64 *value)
{
	if (tort_is_balanced(l, idx))
		atomic64_sub(tort_worth(l, value, tort_head(l, value)),
			     &l->key[idx].balance);
}

/* === Hashes ============================================================== */

static u64 tort_first_word(const void *key)
{
	return *(const u64 *)key;
}

static u64 tort_hash_seeded(const void *key, u64 hash_seed)
{
	return (u32)tort_mix(tort_first_word(key) ^ hash_seed);
}

static bool tort_equal_16(const void *a, const void *b)
{
	return !memcmp(a, b, 16);
}

static u64 tort_hash_weak(const void *key, u64 hash_seed)
{
	return tort_mix(tort_first_word(key)) & 15;
}

static u64 tort_hash_constant(const void *key, u64 hash_seed)
{
	return 0;
}

static u64 tort_hash_flooded(const void *key, u64 hash_seed)
{
	if (READ_ONCE(tort_flood_seed) != hash_seed)
		WRITE_ONCE(tort_flood_seed, hash_seed);
	return tort_mix(tort_first_word(key) ^ hash_seed);
}

/* chm_mix() of this is @hash. */
static u64 tort_before_mix(u64 hash, u64 hash_seed)
{
	const u64 inverse = 0xf1de83e19937733dULL;

	static_assert(CHM_GOLDEN * 0xf1de83e19937733dULL == 1);
	return (hash ^ hash >> 32) * inverse ^ rol64(hash_seed, 32);
}

/* A key that has this hash */
static u64 tort_flood_key(u64 hash_seed, u64 hash)
{
	return tort_unmix(tort_before_mix(hash, hash_seed)) ^ hash_seed;
}

/*
 * Twelve keys share a home, which has room for seven.  All have the same tag, so that
 * readers compare each.  In a table that lives for long, all slots at home become
 * EMPTY while some of these keys are further out.
 */
static u64 tort_hash_clusters(const void *key, u64 hash_seed)
{
	u32 idx = tort_first_word(key);
	u64 hash = tort_mix(idx / 12) << 32 | (u64)idx << 7 | 5;

	return tort_before_mix(hash, hash_seed);
}

/* The second word of such a key is no part of it: it tells equal() to wait, once. */
static void tort_set_lingering(u64 *key)
{
	key[1] = 1;
}

/* Stores of control words so far */
static atomic_t tort_stores;

/*
 * An ambush: a reader has loaded the control word of its key's home chunk, and the key
 * is absent.  It waits in equal().  A writer inserts the key and begins to replace it.
 * Between two stores of that, it lets the reader go on, waits until the reader has its
 * result, and makes a lookup of its own, which must not find an older version.
 */
static struct {
	u32			prey;		/* key that a reader waits for */
	atomic_t		gos;		/* reader: go on */
	atomic_t		ends;		/* of lookups that have waited */
	atomic_t		busy;		/* one writer at a time */
	struct task_struct	*writer;	/* NULL: there is none */
	u32			stores;		/* after so many, reader goes on */
	struct tort_life	*life;
	u32			idx;		/* of that key */
} tort_ambush = { .prey = TORT_NO_KEY };

/* Return: whether @count has changed from @from in time */
static bool tort_await_change(atomic_t *count, int from)
{
	u64 start = tort_now();

	while (atomic_read(count) == from) {
		if (tort_now() - start > 2 * NSEC_PER_MSEC)
			return false;
		barrier();
	}
	return true;
}

static void tort_lie_in_wait(u32 idx)
{
	int gos = atomic_read(&tort_ambush.gos);

	WRITE_ONCE(tort_ambush.prey, idx);
	tort_await_change(&tort_ambush.gos, gos);
	WRITE_ONCE(tort_ambush.prey, TORT_NO_KEY);
}

/* The writer calls this between two stores, with the lock held. */
static void tort_spring_ambush(void)
{
	struct tort_life *l = tort_ambush.life;
	struct tort_key *k = &l->key[tort_ambush.idx];
	int ends = atomic_read(&tort_ambush.ends);
	const void *value;
	u32 seen, version;
	u64 key[2];

	atomic_inc(&tort_ambush.gos);
	if (!tort_await_change(&tort_ambush.ends, ends))
		return;
	seen = atomic_read_acquire(&k->seen);
	rcu_read_lock();
	value = chm_lookup(&l->map, tort_make_key(l, key, tort_ambush.idx));
	version = value ? tort_version(l, tort_head(l, value)) : TORT_ABSENT;
	rcu_read_unlock();
	if (version < seen)
		tort_fail(NULL, l, "G4: key %u has version %u, but %u was seen",
			  tort_ambush.idx, version, seen);
}

static bool tort_equal_slowly(const void *slot, const void *key)
{
	u64 *k = (u64 *)key;

	if (in_task() && !irqs_disabled() && k[1]) {
		k[1] = 0;
		tort_lie_in_wait(k[0]);
	}
	return tort_first_word(slot) == tort_first_word(key);
}

/* chm calls this after each store, with the lock held. */
static void __maybe_unused tort_dawdle(void)
{
	u32 n = atomic_inc_return(&tort_stores);

	if (READ_ONCE(tort_ambush.writer) == current && in_task() &&
	    !tort_ambush.stores--) {
		tort_spring_ambush();
	} else if (!(n % 64)) {
		tort_spin((u32)tort_mix(n) % 16384);
	} else if (!(n % 4)) {
		tort_spin(1000);
	}
}

/* === Callbacks =========================================================== */

static void tort_write_in_drop(struct tort_life *l, u32 idx);

/* G3, G5: does a reader look at @value?  @who: receives its number. */
static bool tort_is_held(const void *value, u32 *who)
{
	u32 i, j;

	for (i = 0; i < tort_nr_workers; i++) {
		for (j = 0; j < TORT_HELD; j++) {
			if (READ_ONCE(tort_held[i][j]) != (unsigned long)value)
				continue;
			*who = i;
			return true;
		}
	}
	return false;
}

/* Is @version of a locked key present, now and a moment later? */
static bool tort_drops_present(struct tort_life *l, u32 idx, u32 version)
{
	struct tort_key *k = &l->key[idx];
	/* Pairs with the release in tort_write_locked() */
	u32 seq = smp_load_acquire(&k->seq);
	bool present;

	if (idx < l->locked || idx >= l->wild || l->type->clears || l->cell || l->word ||
	    l->p.class == CHM_CLONE || READ_ONCE(l->dying))
		return false;
	present = READ_ONCE(k->version) == version;
	/* All that before the second look; pairs with smp_wmb() in tort_write_locked(). */
	smp_rmb();
	return present && !(seq & 1) && READ_ONCE(k->seq) == seq &&
	       !READ_ONCE(l->dying);
}

/* Readers that still look at it, and a second drop(), see this. */
static void tort_poison(const struct tort_life *l, void *value)
{
	memset(value, 0x6b, l->p.value_size);
}

static bool tort_is_poison(const struct tort_life *l, u64 head)
{
	return head == (l->words ? 0x6b6b6b6b6b6b6b6bULL : 0x6b6b6b6bULL);
}

static void tort_judge_drop(struct tort_life *l, u32 idx, const u64 *value)
{
	u64 head = tort_head(l, value);
	u32 who;

	if (tort_is_poison(l, head))
		tort_fail(NULL, l, "G5: key %u dropped twice", idx);
	else if (!tort_good(l, value, head, idx, true))
		tort_fail(NULL, l, "G5: key %u dropped with wrong bytes, head %#llx",
			  idx, head);
	else if (tort_is_held(value, &who))
		tort_fail(NULL, l, "G5: key %u, version %u dropped under reader %u",
			  idx, tort_version(l, head), who);
	else if (tort_drops_present(l, idx, tort_version(l, head)))
		tort_fail(NULL, l, "G5: key %u, version %u dropped while it is present",
			  idx, tort_version(l, head));
}

/* Drop a pair that tort_step_flood() has inserted. */
static void tort_drop_flood(struct tort_life *l, const void *key, u64 *value)
{
	if (l->type->hashing != TORT_FLOODED || value[0] != ~*(const u64 *)key) {
		tort_fail(NULL, l, "G5: dropped what is no pair, head %#llx",
			  tort_head(l, value));
		return;
	}
	atomic64_sub(tort_mix(value[0]), &l->flood.balance);
}

static void tort_drop(void *ctx, void *key, void *value)
{
	struct tort_life *l = ctx;
	u32 idx = tort_index(l, key);
	u64 n = atomic64_inc_return(&l->drops);

	if (in_interrupt() || irqs_disabled())
		tort_fail(NULL, l, "G5: drop() in atomic context");
	if (idx == TORT_NO_KEY) {
		tort_drop_flood(l, key, value);
	} else {
		tort_judge_drop(l, idx, value);
		tort_got_out(l, idx, value);
	}
	tort_poison(l, value);
	if (!(n % 512) && idx != TORT_NO_KEY)
		tort_write_in_drop(l, idx);
	/* Give others time to replace the table meanwhile. */
	if (!(n % 64))
		tort_spin(20000);
	/* drop() may sleep, while all maps wait. */
	if (!(n % 4096))
		usleep_range(100, 1000);
}

static int tort_clone(void *ctx, void *new_key, void *new_value, const void *key,
		      const void *value, gfp_t gfp)
{
	struct tort_life *l = ctx;
	u32 idx = tort_index(l, key);
	u64 head = tort_head(l, value);

	if (idx == TORT_NO_KEY || !tort_good(l, value, head, idx, false) ||
	    memcmp(key, new_key, l->p.key_size) ||
	    memcmp(value, new_value, l->p.value_size)) {
		tort_fail(NULL, l, "clone() of what is no pair: key %u, head %#llx",
			  idx, head);
		return -EINVAL;
	}
	if (!atomic_dec_return(&l->clones_left)) {
		atomic_set(&l->clones_left, 1 + (u32)tort_mix(tort_now()) % (16 * l->keys));
		return -ENOMEM;
	}
	tort_put_in(l, idx, value);
	return 0;
}

/* The first word is a sum, the third a maximum. */
static void tort_raise(atomic_long_t *cell, long to)
{
	long is = atomic_long_read(cell);

	while (is < to && !atomic_long_try_cmpxchg(cell, &is, to))
		;
}

static void tort_merge(void *ctx, void *new_value, const void *old_now,
		       const void *snapshot)
{
	const long *now = old_now, *copied = snapshot;
	atomic_long_t *cell = new_value;

	atomic_long_add(READ_ONCE(now[0]) - copied[0], &cell[0]);
	tort_raise(&cell[2], READ_ONCE(now[2]));
}

/* === Types of maps ======================================================= */

#define TORT_PAIR(_class, key, val, more...)				\
	.p = {								\
		.class = _class, .key_size = key, .value_size = val,	\
		.drop = tort_drop, more					\
	}

/* Maps with tables of any size, pairs of 8 to 4096 bytes, and good and bad hashes */
static const struct tort_type tort_types[] = {
	{ "frozen-8", TORT_PAIR(CHM_FROZEN, 4, 4), .keys = 1000, },
	{ "frozen-16", TORT_PAIR(CHM_FROZEN, 8, 8), .keys = 1 << 16, },
	{ "frozen-tiny", TORT_PAIR(CHM_FROZEN, 8, 16), .keys = 14, },
	{ "frozen-no-drop", TORT_PAIR(CHM_FROZEN, 8, 16), .keys = 200, .no_drop = true, },
	{ "frozen-seeded", TORT_PAIR(CHM_FROZEN, 16, 48, .equal = tort_equal_16,
				     .max_load = 95),
	  .keys = 4000, .hashing = TORT_SEEDED, },
	{ "frozen-weak", TORT_PAIR(CHM_FROZEN, 8, 24, .growth = 110),
	  .keys = 2000, .hashing = TORT_WEAK, },
	{ "frozen-constant", TORT_PAIR(CHM_FROZEN, 8, 16), .keys = 96,
	  .hashing = TORT_CONSTANT, },
	{ "frozen-clusters", TORT_PAIR(CHM_FROZEN, 16, 16, .equal = tort_equal_slowly,
				       .min_entries = 40000),
	  .keys = 2000, .hashing = TORT_CLUSTERS, .slices = 3, },
	{ "frozen-flooded", TORT_PAIR(CHM_FROZEN, 8, 16), .keys = 2000,
	  .hashing = TORT_FLOODED, .slices = 2, },
	{ "frozen-240", TORT_PAIR(CHM_FROZEN, 40, 200, .max_load = 50), .keys = 4000, },
	{ "frozen-4096", TORT_PAIR(CHM_FROZEN, 1024, 3072), .keys = 128, },
	{ "frozen-clear", TORT_PAIR(CHM_FROZEN, 8, 24), .keys = 300, .clears = true, },
	{ "frozen-clear-min", TORT_PAIR(CHM_FROZEN, 8, 8, .min_entries = 200),
	  .keys = 3000, .clears = true, },
	{ "frozen-max", TORT_PAIR(CHM_FROZEN, 8, 16, .max_entries = 500), .keys = 1000, },
	{ "frozen-sync", TORT_PAIR(CHM_FROZEN, 8, 16, .reclaim = CHM_SYNC),
	  .keys = 1000, },
	{ "frozen-sync-clear", TORT_PAIR(CHM_FROZEN, 8, 16, .reclaim = CHM_SYNC),
	  .keys = 100, .clears = true, },
	{ "frozen-large", TORT_PAIR(CHM_FROZEN, 8, 8), .keys = 1 << 20, .slices = 2, },
	{ "frozen-huge", TORT_PAIR(CHM_FROZEN, 8, 8), .keys = 1 << 22, .slices = 4, },
	{ "word-8", TORT_PAIR(CHM_WORD, 4, 4), .keys = 1000, },
	{ "word-16", TORT_PAIR(CHM_WORD, 8, 8), .keys = 30000, },
	{ "word-tiny", TORT_PAIR(CHM_WORD, 8, 8), .keys = 20, },
	{ "word-weak", TORT_PAIR(CHM_WORD, 8, 8), .keys = 500, .hashing = TORT_WEAK, },
	{ "word-clear", TORT_PAIR(CHM_WORD, 8, 8), .keys = 200, .clears = true, },
	{ "word-sync", TORT_PAIR(CHM_WORD, 8, 8, .reclaim = CHM_SYNC), .keys = 1000, },
	{ "clone-16", TORT_PAIR(CHM_CLONE, 8, 8, .clone = tort_clone), .keys = 5000, },
	{ "clone-32", TORT_PAIR(CHM_CLONE, 8, 24, .clone = tort_clone), .keys = 60,
	  .hashing = TORT_WEAK, },
	{ "clone-clear", TORT_PAIR(CHM_CLONE, 8, 24, .clone = tort_clone), .keys = 500,
	  .clears = true, },
	{ "clone-sync", TORT_PAIR(CHM_CLONE, 8, 24, .clone = tort_clone,
				  .reclaim = CHM_SYNC), .keys = 500, },
	{ "cell-16", TORT_PAIR(CHM_CELL, 8, 8), .keys = 1000, },
	{ "cell-24", TORT_PAIR(CHM_CELL, 8, 16), .keys = 30000, },
	{ "cell-tiny", TORT_PAIR(CHM_CELL, 8, 24), .keys = 20, },
	{ "cell-weak", TORT_PAIR(CHM_CELL, 8, 40), .keys = 300, .hashing = TORT_WEAK, },
	{ "cell-clear", TORT_PAIR(CHM_CELL, 8, 24), .keys = 300, .clears = true, },
	{ "cell-sync", TORT_PAIR(CHM_CELL, 8, 24, .reclaim = CHM_SYNC), .keys = 500, },
	{ "cell-merge", TORT_PAIR(CHM_CELL, 8, 24, .merge = tort_merge), .keys = 1000, },
	{ "cell-large", TORT_PAIR(CHM_CELL, 8, 16), .keys = 1 << 19, .slices = 2, },
};

/* === Calls =============================================================== */

/* How a thread calls chm.  Interrupts ignore it. */
enum tort_flavour {
	TORT_PLAIN,		/* may sleep */
	TORT_RCU,
	TORT_BH_OFF,
	TORT_PREEMPT_OFF,
	TORT_IRQS_OFF,
	TORT_IRQS_OFF_RCU,
	TORT_FLAVOURS
};

static u8 tort_choose_flavour(struct tort_worker *w, const struct tort_life *l)
{
	u32 lot = tort_random(w, 2 * TORT_FLAVOURS);

	if (l->p.reclaim == CHM_SYNC || w->role->context != TORT_THREAD)
		return TORT_PLAIN;
	/* Taking map->lock may sleep there. */
	if (IS_ENABLED(CONFIG_PREEMPT_RT))
		return lot < TORT_FLAVOURS ? TORT_PLAIN : TORT_RCU;
	return lot < TORT_FLAVOURS ? lot : TORT_PLAIN;
}

static bool tort_may_block(const struct tort_worker *w, u8 flavour)
{
	return w->role->context == TORT_THREAD && flavour == TORT_PLAIN;
}

static gfp_t tort_gfp(const struct tort_worker *w, const struct tort_try *try)
{
	if (tort_may_block(w, try->flavour))
		return GFP_KERNEL | __GFP_NOWARN;
	return (try->idx & 1 ? GFP_ATOMIC : GFP_NOWAIT) | __GFP_NOWARN;
}

/* Let one of the next allocations of this thread fail; scripts/guest/init enables it. */
static void tort_arm(struct tort_worker *w, u8 flavour)
{
#ifdef CONFIG_FAULT_INJECTION
	if (!faults || !tort_may_block(w, flavour) || tort_noise(w, 32))
		return;
	current->fail_nth = 1 + tort_noise(w, 4);
	w->failing = true;
#endif
}

static void tort_disarm(struct tort_worker *w)
{
#ifdef CONFIG_FAULT_INJECTION
	if (w->failing)
		current->fail_nth = 0;
	w->failing = false;
#endif
}

static void tort_enter(struct tort_worker *w, u8 flavour)
{
	if (w->role->context != TORT_THREAD)
		return;
	if (flavour == TORT_RCU || flavour == TORT_IRQS_OFF_RCU) {
		rcu_read_lock();
		/* For sparse: tort_leave() unlocks it. */
		__release(RCU);
	}
	if (flavour == TORT_BH_OFF)
		local_bh_disable();
	if (flavour == TORT_PREEMPT_OFF)
		preempt_disable();
	if (flavour == TORT_IRQS_OFF || flavour == TORT_IRQS_OFF_RCU)
		local_irq_save(w->flags);
	tort_arm(w, flavour);
}

static void tort_leave(struct tort_worker *w, u8 flavour)
{
	if (w->role->context != TORT_THREAD)
		return;
	tort_disarm(w);
	if (flavour == TORT_IRQS_OFF || flavour == TORT_IRQS_OFF_RCU)
		local_irq_restore(w->flags);
	if (flavour == TORT_PREEMPT_OFF)
		preempt_enable();
	if (flavour == TORT_BH_OFF)
		local_bh_enable();
	if (flavour == TORT_RCU || flavour == TORT_IRQS_OFF_RCU) {
		__acquire(RCU);
		rcu_read_unlock();
	}
}

/* May the call fail with @rc, and leave everything as it was? */
static bool tort_excused(const struct tort_worker *w, const struct tort_life *l,
			 int rc, u8 flavour)
{
	if (rc == -E2BIG)
		return l->p.max_entries;
	return rc == -ENOMEM && (faults || hog || l->p.class == CHM_CLONE ||
				 !tort_may_block(w, flavour));
}

static bool tort_is_excused(const struct tort_worker *w, const struct tort_life *l,
			    const struct tort_try *try)
{
	return tort_excused(w, l, try->rc, try->call == TORT_LOOKUP_OR_INSERT ?
					   TORT_RCU : try->flavour);
}

/* Note and check the value that a call has handed out. */
static void tort_note_out(struct tort_worker *w, struct tort_life *l,
			  struct tort_try *try, const u64 *value)
{
	u64 head = tort_head(l, value);

	try->out = tort_version(l, head);
	if (!tort_good(l, value, head, try->idx, true))
		tort_fail(w, l, "G3: %s of key %u has wrong bytes, head %#llx",
			  tort_calls[try->call], try->idx, head);
}

static void tort_lookup_or_insert(struct tort_worker *w, struct tort_life *l,
				  struct tort_try *try, const void *key)
{
	const void *value;

	rcu_read_lock();
	value = chm_lookup_or_insert(&l->map, key, w->value, GFP_NOWAIT | __GFP_NOWARN);
	try->rc = PTR_ERR_OR_ZERO(value);
	if (!try->rc) {
		tort_note_out(w, l, try, value);
		try->rc = try->out == try->in;
	}
	rcu_read_unlock();
}

static void tort_get_or_insert(struct tort_worker *w, struct tort_life *l,
			       struct tort_try *try, const void *key, gfp_t gfp)
{
	memcpy(w->old, w->value, l->p.value_size);
	try->rc = chm_get_or_insert(&l->map, key, w->old, gfp);
	if (!try->rc)
		tort_note_out(w, l, try, w->old);
}

/* Swap or take: the caller gets the old pair. */
static void tort_hand_out(struct tort_worker *w, struct tort_life *l,
			  struct tort_try *try, const void *key, gfp_t gfp)
{
	if (try->call == TORT_SWAP)
		try->rc = chm_swap(&l->map, key, w->value, w->old_key, w->old, gfp);
	else
		try->rc = chm_take(&l->map, key, w->old_key, w->old);
	if (try->rc)
		return;
	tort_note_out(w, l, try, w->old);
	if (memcmp(key, w->old_key, l->p.key_size))
		tort_fail(w, l, "G3: %s of key %u has handed out another key",
			  tort_calls[try->call], try->idx);
}

static void tort_read(struct tort_worker *w, struct tort_life *l,
		      struct tort_try *try, const void *key)
{
	const void *value;

	rcu_read_lock();
	value = chm_lookup(&l->map, key);
	try->rc = !!value;
	if (value)
		tort_note_out(w, l, try, value);
	rcu_read_unlock();
}

static void tort_make_call(struct tort_worker *w, struct tort_life *l,
			   struct tort_try *try, const void *key)
{
	gfp_t gfp = tort_gfp(w, try);
	struct chm *map = &l->map;

	switch (try->call) {
	case TORT_INSERT:
		try->rc = chm_insert(map, key, w->value, gfp);
		break;
	case TORT_GET_OR_INSERT:
		tort_get_or_insert(w, l, try, key, gfp);
		break;
	case TORT_LOOKUP_OR_INSERT:
		tort_lookup_or_insert(w, l, try, key);
		break;
	case TORT_REPLACE:
		try->rc = chm_replace(map, key, w->value, gfp);
		break;
	case TORT_REPLACE_IF:
		try->rc = chm_replace_if(map, key, w->expected, w->value, gfp);
		break;
	case TORT_UPSERT:
		try->rc = chm_upsert(map, key, w->value, gfp);
		break;
	case TORT_REMOVE:
		try->rc = chm_remove(map, key);
		break;
	case TORT_REMOVE_IF:
		try->rc = chm_remove_if(map, key, w->expected);
		break;
	case TORT_SWAP:
	case TORT_TAKE:
		tort_hand_out(w, l, try, key, gfp);
		break;
	case TORT_READ:
		tort_read(w, l, try, key);
		break;
	default:
		chm_clear(map);
	}
}

/* Was the key absent, and has the call put in a pair? */
static bool tort_has_inserted(const struct tort_try *try)
{
	if (try->call == TORT_INSERT)
		return !try->rc;
	return try->rc == 1 && try->call != TORT_READ;
}

static bool tort_has_replaced(const struct tort_try *try)
{
	return !try->rc && (try->call == TORT_REPLACE || try->call == TORT_UPSERT ||
			    try->call == TORT_REPLACE_IF || try->call == TORT_SWAP);
}

/* Keep the balance of what was put in and what came out. */
static void tort_account(struct tort_worker *w, struct tort_life *l,
			 const struct tort_try *try)
{
	/* Words and cells are replaced in place, and nothing is dropped. */
	bool in_place = l->word || l->cell;

	if (tort_has_inserted(try) || (tort_has_replaced(try) && !in_place))
		tort_put_in(l, try->idx, w->value);
	if (!try->rc && (try->call == TORT_TAKE ||
			 (try->call == TORT_SWAP && !in_place)))
		tort_got_out(l, try->idx, w->old);
}

/* Make the call that @try describes, and store its result there. */
static void tort_do(struct tort_worker *w, struct tort_life *l, struct tort_try *try)
{
	const void *key = tort_make_key(l, w->key, try->idx);

	/* CHM_SYNC writers wait, which can't be done under RCU. */
	if (try->call == TORT_LOOKUP_OR_INSERT && l->p.reclaim == CHM_SYNC)
		try->call = TORT_GET_OR_INSERT;
	tort_fill(l, w->value, try->idx, try->in);
	tort_fill(l, w->expected, try->idx, try->expected);
	tort_enter(w, try->flavour);
	tort_make_call(w, l, try, key);
	tort_leave(w, try->flavour);
	tort_account(w, l, try);
	w->writes += try->call != TORT_READ;
}

/* === Locked keys ========================================================= */

/* What is known of a locked key before a lookup */
struct tort_view {
	u32	seq;
	u32	clears;
	u32	version;
	u32	least;
};

/* The version of @k at a moment when l->clears was @clears */
static u32 tort_known(const struct tort_key *k, u32 clears)
{
	if (READ_ONCE(k->epoch) == clears)
		return READ_ONCE(k->version);
	/* A clear() has begun since.  It is over if the number is even. */
	return clears & 1 ? TORT_UNKNOWN : TORT_ABSENT;
}

static void tort_begin_view(struct tort_life *l, struct tort_key *k,
			    struct tort_view *v)
{
	/* Pairs with tort_clear() */
	v->clears = smp_load_acquire(&l->clears);
	/* Pairs with the release in tort_write_locked() */
	v->seq = smp_load_acquire(&k->seq);
	v->version = tort_known(k, v->clears);
	v->least = atomic_read_acquire(&k->seen);
	/* Order all this before the lookup. */
	smp_rmb();
}

/* Has nothing changed since @v was taken? */
static bool tort_is_settled(struct tort_life *l, struct tort_key *k,
			    const struct tort_view *v)
{
	/* The lookup before this; pairs with smp_wmb() in tort_write_locked(). */
	smp_rmb();
	return !((v->seq | v->clears) & 1) && v->version != TORT_UNKNOWN &&
	       READ_ONCE(k->seq) == v->seq && READ_ONCE(l->clears) == v->clears &&
	       !READ_ONCE(l->dying);
}

/* @version was seen: lookups that begin later must not find less. */
static void tort_see(struct tort_key *k, u32 version)
{
	u32 old = atomic_read(&k->seen);

	while (old < version) {
		u32 was = atomic_cmpxchg(&k->seen, old, version);

		if (was == old)
			break;
		old = was;
	}
}

static int tort_expected_rc(const struct tort_try *try, u32 version)
{
	switch (try->call) {
	case TORT_INSERT:
		return version ? -EEXIST : 0;
	case TORT_GET_OR_INSERT:
	case TORT_LOOKUP_OR_INSERT:
	case TORT_UPSERT:
	case TORT_SWAP:
		return !version;
	case TORT_REPLACE_IF:
	case TORT_REMOVE_IF:
		if (version && version != try->expected)
			return -ESTALE;
		fallthrough;
	default:
		return version ? 0 : -ENOENT;
	}
}

static bool tort_hands_out(const struct tort_try *try)
{
	return !try->rc &&
	       (try->call == TORT_GET_OR_INSERT || try->call == TORT_LOOKUP_OR_INSERT ||
		try->call == TORT_SWAP || try->call == TORT_TAKE);
}

static void tort_judge_locked(struct tort_worker *w, struct tort_life *l,
			      const struct tort_try *try, u32 version)
{
	int expected = tort_expected_rc(try, version);

	if (try->rc != expected)
		tort_fail(w, l, "%s of key %u, version %u, returned %d, not %d",
			  tort_calls[try->call], try->idx, version, try->rc, expected);
	else if (tort_hands_out(try) && try->out != version)
		tort_fail(w, l, "%s of key %u has found version %u, not %u",
			  tort_calls[try->call], try->idx, try->out, version);
}

static u32 tort_version_after(const struct tort_try *try, u32 version)
{
	if (tort_has_inserted(try) || tort_has_replaced(try))
		return try->in;
	if (!try->rc && (try->call == TORT_REMOVE || try->call == TORT_REMOVE_IF ||
			 try->call == TORT_TAKE))
		return TORT_ABSENT;
	return version;
}

/* May the map have been cleared since l->clears was @before? */
static bool tort_may_be_cleared(struct tort_life *l, struct tort_key *k, u32 before)
{
	/* The call before this; pairs with smp_wmb() in tort_clear(). */
	smp_rmb();
	if (!(before & 1) && READ_ONCE(l->clears) == before) {
		WRITE_ONCE(k->epoch, before);
		return false;
	}
	/* The version is unknown until the next clear(). */
	WRITE_ONCE(k->epoch, (READ_ONCE(l->clears) + 1) & ~1U);
	return true;
}

static void tort_note_locked(struct tort_worker *w, struct tort_life *l,
			     const struct tort_try *try, u32 version, u32 clears)
{
	struct tort_key *k = &l->key[try->idx];

	if (tort_may_be_cleared(l, k, clears)) {
		WRITE_ONCE(k->version, TORT_UNKNOWN);
		return;
	}
	if (!tort_is_excused(w, l, try)) {
		if (version != TORT_UNKNOWN)
			tort_judge_locked(w, l, try, version);
		version = tort_version_after(try, version);
	}
	WRITE_ONCE(k->version, version);
	if (version != TORT_UNKNOWN)
		tort_see(k, version);
}

static bool tort_removes(enum tort_call call)
{
	return call == TORT_REMOVE || call == TORT_REMOVE_IF || call == TORT_TAKE;
}

/* @right: whether _if() calls expect the right version */
static void tort_write_locked(struct tort_worker *w, struct tort_life *l,
			      struct tort_try *try, bool right)
{
	struct tort_key *k = &l->key[try->idx];
	u32 clears, version;

	if (atomic_cmpxchg_acquire(&k->owner, 0, 1))
		return;
	/* Pairs with tort_clear() */
	clears = smp_load_acquire(&l->clears);
	version = tort_known(k, clears);
	try->in = atomic_inc_return(&k->next);
	try->expected = right && version != TORT_UNKNOWN ? version : try->in - 1;
	WRITE_ONCE(k->seq, k->seq + 1);
	if (tort_removes(try->call))
		WRITE_ONCE(k->doomed, try->in);
	/* Before the map changes; pairs with tort_is_settled(). */
	smp_wmb();
	tort_do(w, l, try);
	tort_note_locked(w, l, try, version, clears);
	/* After the map has changed; pairs with tort_begin_view(). */
	smp_store_release(&k->seq, k->seq + 1);
	atomic_set_release(&k->owner, 0);
}

/* === Steady keys ========================================================= */

static u32 tort_steady(struct tort_life *l)
{
	/* Pairs with tort_fill_steady() */
	return smp_load_acquire(&l->filled);
}

/* The version that a steady key has now; 0: failed. */
static u32 tort_get_steady(struct tort_worker *w, struct tort_life *l, u32 idx)
{
	u64 head;

	if (!chm_get(&l->map, tort_make_key(l, w->key, idx), w->expected)) {
		tort_fail(w, l, "G2: steady key %u is gone", idx);
		return 0;
	}
	head = tort_head(l, w->expected);
	if (!tort_good(l, w->expected, head, idx, true))
		tort_fail(w, l, "G3: get of steady key %u has wrong bytes, head %#llx",
			  idx, head);
	return tort_version(l, head);
}

/* Any number of workers do this at a time; each version follows the last. */
static void tort_write_steady(struct tort_worker *w, struct tort_life *l,
			      struct tort_try *try)
{
	struct tort_key *k = &l->key[try->idx];
	u32 version = tort_get_steady(w, l, try->idx);

	if (!version)
		return;
	try->call = TORT_REPLACE_IF;
	try->expected = version;
	try->in = version + 1;
	tort_do(w, l, try);
	if (!try->rc) {
		atomic_inc(&k->next);
		tort_see(k, try->in);
	} else if (try->rc == -ESTALE) {
		if (tort_get_steady(w, l, try->idx) <= version)
			tort_fail(w, l, "G4: steady key %u is stale, but has version %u still",
				  try->idx, version);
	} else if (!tort_is_excused(w, l, try)) {
		tort_fail(w, l, "replace_if of steady key %u returned %d", try->idx,
			  try->rc);
	}
}

/* === Wild and hot keys =================================================== */

/* The result depends on others: is it possible at all? */
static void tort_judge_wild(struct tort_worker *w, struct tort_life *l,
			    const struct tort_try *try)
{
	bool possible = try->rc >= 0 || tort_is_excused(w, l, try);

	if (try->rc == -EEXIST)
		possible = try->call == TORT_INSERT;
	if (try->rc == -ENOENT)
		possible = try->call != TORT_INSERT && try->call != TORT_UPSERT &&
			   try->call != TORT_SWAP && try->call != TORT_GET_OR_INSERT &&
			   try->call != TORT_LOOKUP_OR_INSERT;
	if (try->rc == -ESTALE)
		possible = try->call == TORT_REPLACE_IF || try->call == TORT_REMOVE_IF;
	if (!possible)
		tort_fail(w, l, "%s of key %u returned %d", tort_calls[try->call],
			  try->idx, try->rc);
	else if (tort_hands_out(try) && try->out > (u32)atomic_read(&l->key[try->idx].next))
		tort_fail(w, l, "%s of key %u has found version %u, which was never written",
			  tort_calls[try->call], try->idx, try->out);
}

static void tort_write_wild(struct tort_worker *w, struct tort_life *l,
			    struct tort_try *try)
{
	/* The word may change before we read it. */
	if (try->call == TORT_LOOKUP_OR_INSERT && l->word)
		try->call = TORT_GET_OR_INSERT;
	try->in = atomic_inc_return(&l->key[try->idx].next);
	if (!try->expected)
		try->expected = try->in - 1;
	tort_do(w, l, try);
	tort_judge_wild(w, l, try);
}

/* Insert some consecutive keys, none of them hot, in one call. */
static void tort_write_many(struct tort_worker *w, struct tort_life *l,
			    struct tort_try *try)
{
	u32 room = TORT_BUFFER / max(l->p.key_size, l->p.value_size);
	u32 n = min3(room, 16U, l->hot - try->idx);
	unsigned long done, i;
	int err;

	for (i = 0; i < n; i++) {
		u32 idx = try->idx + i;
		u32 version = l->cell ? 0 : atomic_inc_return(&l->key[idx].next);

		tort_make_key(l, (void *)w->key + i * l->p.key_size, idx);
		tort_fill(l, (void *)w->value + i * l->p.value_size, idx, version);
	}
	tort_enter(w, try->flavour);
	done = chm_insert_many(&l->map, w->key, w->value, n, tort_gfp(w, try), &err);
	tort_leave(w, try->flavour);
	for (i = 0; i < done; i++)
		tort_put_in(l, try->idx + i, (void *)w->value + i * l->p.value_size);
	w->writes += done + 1;
	if (done > n || (err ? done == n : done < n) ||
	    (err && err != -EEXIST && !tort_excused(w, l, err, try->flavour)))
		tort_fail(w, l, "insert_many of %u keys from %u: %lu, error %d", n,
			  try->idx, done, err);
}

/* Make and record a call on a hot key.  It expects the version that it saw last. */
static void tort_call_hot(struct tort_worker *w, struct tort_life *l,
			  struct tort_try *try)
{
	struct tort_record *r = &w->record[w->records];
	u32 hot = try->idx - l->hot;

	r->hot = hot;
	r->worker = w->id;
	r->call = try->call;
	try->expected = w->hot[hot] ?: 1;
	r->begin = atomic64_inc_return(&tort_clock);
	if (try->call == TORT_READ)
		tort_do(w, l, try);
	else
		tort_write_wild(w, l, try);
	r->end = atomic64_inc_return(&tort_clock);
	/* tort_write_wild() may have changed it. */
	r->call = try->call;
	r->in = try->in;
	r->expected = try->expected;
	r->out = try->out;
	r->rc = try->rc;
	w->records++;
	if (tort_has_inserted(try) || tort_has_replaced(try))
		w->hot[hot] = try->in;
	else if (tort_hands_out(try) || (try->call == TORT_READ && try->rc))
		w->hot[hot] = try->out;
}

static void tort_hot(struct tort_worker *w, struct tort_life *l, struct tort_try *try)
{
	int nr = srcu_read_lock(&tort_hot_srcu);

	/* Pairs with tort_check_history() */
	if (smp_load_acquire(&l->open) && w->life == l->nr &&
	    w->records < TORT_RECORDS)
		tort_call_hot(w, l, try);
	srcu_read_unlock(&tort_hot_srcu, nr);
}

static void tort_record_clear(struct tort_worker *w, struct tort_life *l, u64 begin)
{
	u64 end = atomic64_inc_return(&tort_clock);
	u32 i;

	for (i = l->hot; i < l->keys; i++)
		w->record[w->records++] = (struct tort_record) {
			.begin = begin, .end = end, .call = TORT_CLEAR,
			.hot = i - l->hot, .worker = w->id,
		};
}

/* Clear the map, one worker at a time, and record it for each hot key. */
static void tort_clear(struct tort_worker *w, struct tort_life *l,
		       struct tort_try *try)
{
	int nr = srcu_read_lock(&tort_hot_srcu);
	u64 begin;

	/* Pairs with tort_check_history() */
	if (!l->type->clears || !smp_load_acquire(&l->open) || w->life != l->nr ||
	    w->records + TORT_HOT > TORT_RECORDS ||
	    atomic_cmpxchg_acquire(&l->clearing, 0, 1))
		goto out;
	WRITE_ONCE(l->clears, l->clears + 1);
	/* Before the map changes; pairs with tort_is_settled(), tort_may_be_cleared(). */
	smp_wmb();
	begin = atomic64_inc_return(&tort_clock);
	try->call = TORT_CLEAR;
	tort_do(w, l, try);
	tort_record_clear(w, l, begin);
	/* After the map has changed; pairs with tort_begin_view(), tort_write_locked(). */
	smp_store_release(&l->clears, l->clears + 1);
	atomic_set_release(&l->clearing, 0);
	tort_total.clears++;
out:
	srcu_read_unlock(&tort_hot_srcu, nr);
}

/* drop() may write to its map, as long as that lives. */
static void tort_write_in_drop(struct tort_life *l, u32 idx)
{
	int nr = srcu_read_lock(&tort_srcu);
	bool lives = srcu_dereference(tort_life, &tort_srcu) == l;
	u64 absent[TORT_BUFFER / 32 / sizeof(u64)];
	int ret;

	if (lives && l->p.reclaim != CHM_SYNC && l->p.key_size <= sizeof(absent)) {
		ret = chm_remove(&l->map, tort_make_key(l, absent, l->keys + idx));
		if (ret != -ENOENT)
			tort_fail(NULL, l, "remove() in a drop(): %d", ret);
	}
	srcu_read_unlock(&tort_srcu, nr);
}

/* === Cells =============================================================== */

/* Add by chm_cell_add(), or in place; maps with merge() have no choice. */
static int tort_add_to(struct tort_worker *w, struct tort_life *l, u32 idx, u32 word,
		       long n, bool in_place)
{
	const void *key = tort_make_key(l, w->key, idx);
	atomic_long_t *cell;
	int ret = -ENOENT;

	if (!in_place && !l->p.merge)
		return chm_cell_add(&l->map, key, word, n);
	rcu_read_lock();
	cell = chm_cell_lookup(&l->map, key);
	if (cell) {
		ret = 0;
		if (word && l->p.merge)
			tort_raise(&cell[word], n);
		else
			atomic_long_add(n, &cell[word]);
	}
	rcu_read_unlock();
	return ret;
}

static void tort_add(struct tort_worker *w, struct tort_life *l, u32 idx)
{
	u32 word = l->words > 2 && tort_random(w, 4) == 0 ? 2 : 0;
	long n = word ? (long)tort_random(w, 2000) - 1000 : 1;
	struct tort_key *k = &l->key[idx];
	int ret;

	if (idx < l->locked && !word)
		atomic_inc(&k->next);
	ret = tort_add_to(w, l, idx, word, n, tort_random(w, 2));
	w->writes++;
	if (ret && (ret != -ENOENT || idx < l->locked)) {
		tort_fail(w, l, "add to cell of key %u returned %d", idx, ret);
		return;
	}
	if (!ret && tort_is_balanced(l, idx) && !(word && l->p.merge))
		atomic64_add(n, &k->balance);
	/* Release: after the cell.  Pairs with tort_read_cell(). */
	if (idx < l->locked && !word)
		atomic_fetch_inc_release(&k->seen);
}

static void tort_upsert_add(struct tort_worker *w, struct tort_life *l,
			    struct tort_try *try)
{
	const void *key = tort_make_key(l, w->key, try->idx);
	int ret;

	tort_enter(w, try->flavour);
	ret = chm_cell_upsert_add(&l->map, key, 0, 3, tort_gfp(w, try));
	tort_leave(w, try->flavour);
	w->writes++;
	if (ret >= 0)
		atomic64_add(tort_is_balanced(l, try->idx) ? 3 : 0,
			     &l->key[try->idx].balance);
	else if (l->p.merge ? ret != -EINVAL : !tort_excused(w, l, ret, try->flavour))
		tort_fail(w, l, "upsert_add to key %u returned %d", try->idx, ret);
}

/* G9: chm_cell_read() of a steady cell is exact. */
static void tort_read_cell(struct tort_worker *w, struct tort_life *l, u32 idx)
{
	struct tort_key *k = &l->key[idx];
	/* Acquire: before the cell.  Pairs with the release in tort_add(). */
	u32 ended = atomic_read_acquire(&k->seen);
	u32 begun;

	if (!chm_cell_read(&l->map, tort_make_key(l, w->key, idx), w->old)) {
		tort_fail(w, l, "G2: steady cell %u is gone", idx);
		return;
	}
	/* The cell before this; pairs with atomic_inc() in tort_add() and what follows. */
	smp_rmb();
	begun = atomic_read(&k->next);
	if ((u32)w->old[0] < ended || (u32)w->old[0] > begun)
		tort_fail(w, l, "G9: steady cell %u is %llu, which had %u to %u updates",
			  idx, w->old[0], ended, begun);
	if (!tort_good_cell(l, w->old, idx))
		tort_fail(w, l, "G3: steady cell %u has wrong bytes", idx);
}

static void tort_write_steady_cell(struct tort_worker *w, struct tort_life *l, u32 idx)
{
	if (tort_random(w, 8))
		tort_add(w, l, idx);
	else
		tort_read_cell(w, l, idx);
}

/* One writer at a time replaces these cells, while others add to them. */
static void tort_write_locked_cell(struct tort_worker *w, struct tort_life *l,
				   struct tort_try *try)
{
	static const u8 calls[] = {
		TORT_INSERT, TORT_INSERT, TORT_GET_OR_INSERT, TORT_LOOKUP_OR_INSERT,
		TORT_REMOVE, TORT_REPLACE, TORT_UPSERT, TORT_REPLACE,
	};

	if (tort_random(w, 2)) {
		tort_add(w, l, try->idx);
		return;
	}
	try->call = calls[tort_random(w, ARRAY_SIZE(calls))];
	if (!tort_random(w, 200) && tort_may_block(w, try->flavour))
		try->call = TORT_TAKE;
	/* chm does not know the words of maps with merge(). */
	if (l->p.merge && (try->call == TORT_REPLACE || try->call == TORT_UPSERT))
		try->call = TORT_INSERT;
	tort_write_locked(w, l, try, true);
}

static void tort_write_wild_cell(struct tort_worker *w, struct tort_life *l,
				 struct tort_try *try)
{
	u32 lot = tort_random(w, 16);

	try->call = lot < 2 ? TORT_REMOVE : TORT_INSERT;
	if (lot == 2 && !tort_random(w, 16) && tort_may_block(w, try->flavour))
		try->call = TORT_TAKE;
	if (lot >= 8) {
		tort_add(w, l, try->idx);
		return;
	}
	if (lot >= 5) {
		tort_upsert_add(w, l, try);
		return;
	}
	/* A new cell is all zeroes. */
	try->in = 0;
	tort_do(w, l, try);
	tort_judge_wild(w, l, try);
}

/* === Readers ============================================================= */

/* Publish what this worker looks at, for drop() to check. */
static void tort_hold(struct tort_worker *w, u32 nr, const void *value)
{
	WRITE_ONCE(tort_held[w->id][nr], (unsigned long)value);
}

/* Was @idx present during the lookup that came before this? */
static bool tort_is_present(struct tort_life *l, u32 idx, u32 filled)
{
	if (idx >= filled)
		return false;
	/* Pairs with tort_end_life(), which sets l->dying first. */
	smp_rmb();
	return !READ_ONCE(l->dying);
}

/* A locked key was seen, and is missed now: has no removal begun? */
static bool tort_is_lost(struct tort_life *l, u32 idx, u32 seen)
{
	if (!seen || l->type->clears || idx < l->locked || idx >= l->wild)
		return false;
	/* The lookup before this; pairs with smp_wmb() in tort_write_locked(). */
	smp_rmb();
	return READ_ONCE(l->key[idx].doomed) < seen && !READ_ONCE(l->dying);
}

static void tort_missed(struct tort_worker *w, struct tort_life *l, u32 idx,
			u32 filled)
{
	if (tort_is_present(l, idx, filled))
		tort_fail(w, l, "G2: steady key %u missed", idx);
	else if (idx < l->keys && tort_is_lost(l, idx, l->seen[w->id][idx]))
		tort_fail(w, l, "G2: key %u missed, whose version %u was seen", idx,
			  l->seen[w->id][idx]);
}

/* Do versions of this key never decrease? */
static bool tort_is_ordered(const struct tort_life *l, u32 idx)
{
	return l->cell ? idx >= l->locked && idx < l->wild : idx < l->wild;
}

/*
 * Judge what a lookup has found, by what this worker saw before.  This touches nothing
 * that is shared, so that it costs little more than the lookup.  Return: the version.
 */
static u32 tort_found(struct tort_worker *w, struct tort_life *l, u32 idx,
		      const void *value, bool full)
{
	u64 head = tort_head(l, value);
	u32 version = tort_version(l, head);

	w->hits++;
	if (idx >= l->keys)
		tort_fail(w, l, "G3: found key %u, which was never inserted", idx);
	else if (!tort_good(l, value, head, idx, full))
		tort_fail(w, l, "G3: key %u has wrong bytes, head %#llx", idx, head);
	else if (tort_is_ordered(l, idx) && version < l->seen[w->id][idx])
		tort_fail(w, l, "G4: key %u has version %u, after %u", idx, version,
			  l->seen[w->id][idx]);
	return version;
}

static void tort_remember(struct tort_worker *w, struct tort_life *l, u32 idx,
			  u32 version)
{
	u32 *seen;

	if (idx >= l->keys)
		return;
	seen = &l->seen[w->id][idx];
	*seen = max(*seen, version);
}

/* Any key; one in nine was never inserted. */
static u32 tort_any(struct tort_worker *w, const struct tort_life *l)
{
	return tort_random(w, l->keys + l->keys / 8 + 1);
}

static void tort_look_for(struct tort_worker *w, struct tort_life *l, u32 idx,
			  u32 filled)
{
	const void *value = chm_lookup(&l->map, tort_make_key(l, w->key, idx));

	if (value)
		tort_remember(w, l, idx, tort_found(w, l, idx, value, false));
	else
		tort_missed(w, l, idx, filled);
}

/* Look up as many keys at a time as fit into a buffer. */
static void tort_look_many(struct tort_worker *w, struct tort_life *l, u32 filled)
{
	u32 n = min(16U, TORT_BUFFER / l->p.key_size), i;
	const void *values[16];
	u32 idx[16], version[16];
	unsigned int found = 0;

	for (i = 0; i < n; i++) {
		idx[i] = tort_any(w, l);
		tort_make_key(l, w->old, idx[i]);
		memcpy((void *)w->key + i * l->p.key_size, w->old, l->p.key_size);
	}
	if (chm_lookup_many(&l->map, w->key, n, values) > n)
		tort_fail(w, l, "lookup_many has found too many");
	for (i = 0; i < n; i++) {
		if (values[i])
			version[i] = tort_found(w, l, idx[i], values[i], false);
		else
			tort_missed(w, l, idx[i], filled);
		found += !!values[i];
	}
	/* One call may look up its keys in any order. */
	for (i = 0; i < n; i++) {
		if (values[i])
			tort_remember(w, l, idx[i], version[i]);
	}
	w->reads += n;
}

/* Judge the result by all that is known of a locked key. */
static void tort_judge_view(struct tort_worker *w, struct tort_life *l, u32 idx,
			    const struct tort_view *v, const void *value)
{
	struct tort_key *k = &l->key[idx];
	/* Read it before it is checked for changes: words change in place. */
	u32 version = value ? tort_version(l, tort_head(l, value)) : TORT_ABSENT;
	bool settled = tort_is_settled(l, k, v);

	if (settled && version != v->version)
		tort_fail(w, l, "%s: key %u has version %u, not %u",
			  value ? "G4" : "G2", idx, version, v->version);
	else if (value && version < v->least)
		tort_fail(w, l, "G4: key %u has version %u, but %u was seen", idx,
			  version, v->least);
	else if (value && version > (u32)atomic_read(&k->next))
		tort_fail(w, l, "G3: key %u has version %u, which was never written",
			  idx, version);
	if (value)
		tort_see(k, version);
}

/* Go on looking at it, in one case of four, and rarely for long. */
static void tort_linger(struct tort_worker *w, struct tort_life *l, u32 idx,
			const void *value)
{
	u32 lot = tort_noise(w, 64);
	u64 head = tort_head(l, value);

	if (l->word || l->cell || lot >= 16)
		return;
	tort_hold(w, 0, value);
	tort_spin(w->role->context == TORT_THREAD && !lot ? 200000 : lot * 1000);
	if (tort_head(l, value) != head || !tort_good(l, value, head, idx, true))
		tort_fail(w, l, "G3: key %u changed while it was looked at, head %#llx, now %#llx",
			  idx, head, tort_head(l, value));
	tort_hold(w, 0, NULL);
}

/* Look up a locked key, and judge by all means. */
static void tort_look_closely(struct tort_worker *w, struct tort_life *l, u32 filled)
{
	u32 idx = l->locked + tort_random(w, l->wild - l->locked);
	const void *key = tort_make_key(l, w->key, idx);
	const void *value;
	struct tort_view v;

	tort_begin_view(l, &l->key[idx], &v);
	value = chm_lookup(&l->map, key);
	tort_judge_view(w, l, idx, &v, value);
	if (!value) {
		tort_missed(w, l, idx, filled);
		return;
	}
	tort_remember(w, l, idx, tort_found(w, l, idx, value, true));
	/* Have later lookups gone back in time? */
	tort_look_for(w, l, idx, filled);
	tort_linger(w, l, idx, value);
	tort_look_for(w, l, idx, filled);
}

static void tort_get(struct tort_worker *w, struct tort_life *l, u32 filled)
{
	u32 idx = tort_any(w, l);

	if (chm_get(&l->map, tort_make_key(l, w->key, idx), w->old))
		tort_remember(w, l, idx, tort_found(w, l, idx, w->old, true));
	else
		tort_missed(w, l, idx, filled);
}

/* Has the second lookup gone back in time? */
static void tort_look_twice(struct tort_worker *w, struct tort_life *l, u32 idx,
			    u32 filled)
{
	tort_look_for(w, l, idx, filled);
	tort_look_for(w, l, idx, filled);
	w->reads += 2;
}

/* Wait in equal(): see tort_lie_in_wait() */
static void tort_look_slowly(struct tort_worker *w, struct tort_life *l, u32 idx)
{
	const void *value;

	tort_make_key(l, w->key, idx);
	tort_set_lingering(w->key);
	value = chm_lookup(&l->map, w->key);
	if (value) {
		u32 version = tort_found(w, l, idx, value, false);

		tort_remember(w, l, idx, version);
		tort_see(&l->key[idx], version);
	}
	atomic_inc(&tort_ambush.ends);
	w->reads++;
}

/* Look for some keys that are absent. */
static void tort_look_from_ambush(struct tort_worker *w, struct tort_life *l)
{
	u32 i, idx;

	for (i = 0; i < 4; i++) {
		idx = l->locked + tort_noise(w, l->wild - l->locked);
		if (READ_ONCE(l->key[idx].version) == TORT_ABSENT)
			tort_look_slowly(w, l, idx);
	}
}

static void tort_look_at_side(struct tort_worker *w);

static void tort_look_for_some(struct tort_worker *w, struct tort_life *l, u32 n)
{
	u32 filled = tort_steady(l);
	u32 i;

	tort_note_choice(w, tort_random(w, 1U << 31));
	if (tort_random(w, 4) == 0) {
		tort_look_many(w, l, filled);
		return;
	}
	for (i = 0; i < n; i++)
		tort_look_for(w, l, tort_any(w, l), filled);
	w->reads += n;
}

static void tort_read_hot(struct tort_worker *w, struct tort_life *l)
{
	struct tort_try try = {
		.call = TORT_READ, .idx = l->hot + tort_random(w, l->keys - l->hot),
	};

	if (!l->cell && l->hot < l->keys)
		tort_hot(w, l, &try);
}

static void tort_step_read(struct tort_worker *w, struct tort_life *l)
{
	u64 restart = tort_step_random(&w->random);
	u32 n = w->role->context == TORT_THREAD ? TORT_BATCH : 8;
	u32 lot = tort_random(w, 16);

	tort_look_for_some(w, l, n);
	if (l->type->hashing == TORT_CLUSTERS && w->role->context == TORT_THREAD)
		tort_look_from_ambush(w, l);
	if (lot < 4 && l->wild > l->locked)
		tort_look_closely(w, l, tort_steady(l));
	else if (lot < 6)
		tort_get(w, l, tort_steady(l));
	else if (lot < 8)
		tort_read_hot(w, l);
	else if (lot < 9)
		tort_look_at_side(w);
	else
		for (; n && l->wild > l->locked; n--)
			tort_look_twice(w, l, READ_ONCE(l->focus), tort_steady(l));
	w->reads++;
	/* The next step must not depend on how much this one has drawn. */
	w->random = restart;
}

/* What a long reader has found */
struct tort_holding {
	const void	*value;
	u64		head;
	u32		idx;
};

static u32 tort_grasp(struct tort_worker *w, struct tort_life *l,
		      struct tort_holding *h)
{
	u32 n = 0, i;

	for (i = 0; i < 2 * TORT_HELD && n < TORT_HELD; i++) {
		u32 idx = tort_random(w, l->keys);
		const void *value = chm_lookup(&l->map, tort_make_key(l, w->key, idx));

		if (!value)
			continue;
		tort_hold(w, n, value);
		h[n++] = (struct tort_holding) { value, tort_head(l, value), idx };
	}
	w->reads += i;
	w->hits += n;
	return n;
}

/* Look at the same pairs again and again, for a long time. */
static void tort_step_hold(struct tort_worker *w, struct tort_life *l)
{
	u64 ns = tort_noise(w, 8) ? tort_noise(w, 3000000) : 40000000;
	struct tort_holding h[TORT_HELD];
	u64 start = tort_now();
	u32 n, i;

	n = tort_grasp(w, l, h);
	do {
		for (i = 0; i < n; i++) {
			u64 head = l->word || l->cell ? tort_head(l, h[i].value) :
							h[i].head;

			if (!tort_good(l, h[i].value, head, h[i].idx, true) ||
			    (!l->word && !l->cell && tort_head(l, h[i].value) != head))
				tort_fail(w, l, "G3: held key %u changed, head %#llx, now %#llx",
					  h[i].idx, head, tort_head(l, h[i].value));
		}
		tort_spin(1000);
	} while (tort_now() - start < ns && !tort_over());
	for (i = 0; i < n; i++)
		tort_hold(w, i, NULL);
	w->rounds++;
}

/* === Walks =============================================================== */

/* Has tort_step_flood() made this pair? */
static bool tort_is_flood(const struct tort_life *l, const u64 *key, const u64 *value)
{
	return l->type->hashing == TORT_FLOODED && value[0] == ~key[0];
}

static void tort_visit(struct tort_worker *w, struct tort_life *l, const void *key,
		       const void *value, u8 *count)
{
	u64 head = tort_head(l, value);
	u32 idx = tort_index(l, key);

	if (idx == TORT_NO_KEY) {
		if (!tort_is_flood(l, key, value))
			tort_fail(w, l, "G8: visited what is no key, head %#llx", head);
		return;
	}
	if (!tort_good(l, value, head, idx, true))
		tort_fail(w, l, "G8: visited key %u with wrong bytes, head %#llx", idx,
			  head);
	else if (count[idx]++)
		tort_fail(w, l, "G8: key %u visited twice", idx);
}

/* A key that was visited is found, unless a removal has begun. */
static void tort_look_again(struct tort_worker *w, struct tort_life *l, u32 idx,
			    u32 visited)
{
	const void *value;
	u32 version;

	if (!tort_is_ordered(l, idx))
		return;
	rcu_read_lock();
	value = chm_lookup(&l->map, tort_make_key(l, w->key, idx));
	version = value ? tort_version(l, tort_head(l, value)) : 0;
	rcu_read_unlock();
	if (!value && tort_is_lost(l, idx, visited))
		tort_fail(w, l, "G2: key %u missed, whose version %u a walk has visited",
			  idx, visited);
	else if (value && version < visited)
		tort_fail(w, l, "G4: key %u has version %u, but a walk has visited %u",
			  idx, version, visited);
}

/* Each key that was present throughout must have been visited. */
static void tort_expect_visits(struct tort_worker *w, struct tort_life *l, u32 filled,
			       const u8 *count)
{
	u32 idx;

	for (idx = 0; idx < filled && !READ_ONCE(l->dying); idx++) {
		if (!count[idx])
			tort_fail(w, l, "G8: steady key %u not visited", idx);
		if (!(idx % 4096))
			tort_beat(w);
	}
}

/* Return: whether the walk has ended. */
static bool tort_walk_on(struct tort_worker *w, struct tort_life *l,
			 struct chm_iter *it, u32 steps, u8 *count)
{
	u32 i, idx;

	for (i = 0; i < steps; i++) {
		if (READ_ONCE(l->dying) || tort_over() ||
		    !chm_iter_next(it, w->old_key, w->old))
			return true;
		tort_visit(w, l, w->old_key, w->old, count);
		idx = tort_index(l, w->old_key);
		if (idx != TORT_NO_KEY && !tort_noise(w, 4))
			tort_look_again(w, l, idx,
					tort_version(l, tort_head(l, w->old)));
		if (!(i % 64))
			tort_beat(w);
	}
	return false;
}

static void tort_end_walk(struct tort_worker *w, struct tort_life *l,
			  struct chm_iter *it, u32 filled, const u8 *count)
{
	if (READ_ONCE(l->dying) || tort_over())
		return;
	if (chm_iter_stale(it)) {
		tort_total.stale++;
		/* A walk becomes stale only after CHM_ORDERS changes of the seed. */
		if (l->type->hashing != TORT_FLOODED && !l->type->clears)
			tort_fail(w, l, "G8: a walk became stale");
		return;
	}
	tort_expect_visits(w, l, filled, count);
	w->rounds++;
}

/* Walk, store the cursor on the way, and walk once more from there. */
static void tort_step_walk(struct tort_worker *w, struct tort_life *l)
{
	u32 part = tort_noise(w, l->keys + 1);
	u32 filled = tort_steady(l);
	struct chm_iter it, stored;

	memset(l->count[0], 0, l->keys);
	chm_iter_init(&it, &l->map);
	if (tort_walk_on(w, l, &it, part, l->count[0])) {
		tort_end_walk(w, l, &it, filled, l->count[0]);
		return;
	}
	stored = it;
	memcpy(l->count[1], l->count[0], l->keys);
	if (!tort_noise(w, 4))
		msleep(20);
	tort_walk_on(w, l, &it, U32_MAX, l->count[0]);
	tort_end_walk(w, l, &it, filled, l->count[0]);
	tort_walk_on(w, l, &stored, U32_MAX, l->count[1]);
	tort_end_walk(w, l, &stored, filled, l->count[1]);
	tort_total.resumed++;
	tort_total.walks += 2;
}

/* Walk in place, in one RCU section, which large maps would make too long. */
static void tort_step_visit(struct tort_worker *w, struct tort_life *l)
{
	u32 filled = tort_steady(l);
	const void *key, *value;
	struct chm_pos pos;

	if (l->keys > 1 << 16)
		return;
	memset(l->visited, 0, l->keys);
	rcu_read_lock();
	chm_for_each_rcu(&l->map, pos, key, value)
		tort_visit(w, l, key, value, l->visited);
	rcu_read_unlock();
	tort_expect_visits(w, l, filled, l->visited);
	w->rounds++;
	tort_total.visits++;
}

/* === Linearizability ===================================================== */

/*
 * Calls on a key are linearizable if there is an order of all of them in which each
 * takes effect between its begin and its end, and returns what it has returned.  The
 * check follows all such orders at the same time.  A configuration is a version that
 * the key may have, and the set of pending calls that have taken effect.  When a call
 * ends, configurations in which it has not taken effect are discarded.  It is a failure
 * if none is left.  (Just-in-time linearization, after Lowe: Testing for linearizability.)
 */
struct tort_event {
	u64				time;
	const struct tort_record	*r;
};

struct tort_config {
	u32	done;		/* bits of workers */
	u32	version;
};

static struct tort_history {
	struct tort_event	*events;
	u32			nr_events;
	struct tort_config	*configs;
	u32			nr_configs;
	const struct tort_record *pending[TORT_WORKERS];
	u32			begun;		/* bits of workers */
} tort_history;

static int tort_compare_events(const void *a, const void *b)
{
	const struct tort_event *x = a, *y = b;

	return x->time < y->time ? -1 : x->time > y->time;
}

static bool tort_may_be(u32 version, u32 is)
{
	return version == is || version == TORT_UNKNOWN;
}

/* Can @r, which was successful, take effect if the version is @from?  Then it is @to. */
static bool tort_succeeds(const struct tort_record *r, u32 from, u32 *to)
{
	bool inserted = r->call == TORT_INSERT ? !r->rc : r->rc == 1;

	switch (r->call) {
	case TORT_READ:
		*to = r->rc ? r->out : TORT_ABSENT;
		return tort_may_be(from, *to);
	case TORT_CLEAR:
		*to = TORT_ABSENT;
		return true;
	case TORT_REMOVE:
		*to = TORT_ABSENT;
		return from != TORT_ABSENT;
	case TORT_REMOVE_IF:
		*to = TORT_ABSENT;
		return tort_may_be(from, r->expected);
	case TORT_TAKE:
		*to = TORT_ABSENT;
		return tort_may_be(from, r->out);
	case TORT_GET_OR_INSERT:
	case TORT_LOOKUP_OR_INSERT:
		*to = inserted ? r->in : r->out;
		return tort_may_be(from, inserted ? TORT_ABSENT : r->out);
	}
	*to = r->in;
	if (inserted)
		return tort_may_be(from, TORT_ABSENT);
	if (r->call == TORT_REPLACE_IF)
		return tort_may_be(from, r->expected);
	if (r->call == TORT_SWAP)
		return tort_may_be(from, r->out);
	return from != TORT_ABSENT;
}

static bool tort_takes_effect(const struct tort_record *r, u32 from, u32 *to)
{
	if (r->rc >= 0)
		return tort_succeeds(r, from, to);
	*to = from;
	switch (r->rc) {
	case -EEXIST:
		return from != TORT_ABSENT;
	case -ENOENT:
		*to = TORT_ABSENT;
		return tort_may_be(from, TORT_ABSENT);
	case -ESTALE:
		return from != TORT_ABSENT && from != r->expected;
	default:
		return true;
	}
}

static bool tort_add_config(struct tort_history *h, u32 done, u32 version)
{
	u32 i;

	for (i = 0; i < h->nr_configs; i++) {
		if (h->configs[i].done == done && h->configs[i].version == version)
			return true;
	}
	if (h->nr_configs == TORT_CONFIGS)
		return false;
	h->configs[h->nr_configs++] = (struct tort_config) { done, version };
	return true;
}

/* Let calls take effect in any order until that of @worker has. */
static bool tort_unfold(struct tort_history *h, u32 worker)
{
	u32 i, j, version;

	for (i = 0; i < h->nr_configs; i++) {
		struct tort_config c = h->configs[i];

		if (c.done & BIT(worker))
			continue;
		for (j = 0; j < TORT_WORKERS; j++) {
			if (!(h->begun & ~c.done & BIT(j)) ||
			    !tort_takes_effect(h->pending[j], c.version, &version))
				continue;
			if (!tort_add_config(h, c.done | BIT(j), version))
				return false;
		}
	}
	return true;
}

/* The call of @worker has ended: keep the configurations in which it took effect. */
static void tort_fold(struct tort_history *h, u32 worker)
{
	u32 n = h->nr_configs, i;

	h->nr_configs = 0;
	for (i = 0; i < n; i++) {
		struct tort_config c = h->configs[i];

		if (c.done & BIT(worker))
			tort_add_config(h, c.done & ~BIT(worker), c.version);
	}
	h->begun &= ~BIT(worker);
}

static void tort_show_record(const struct tort_record *r)
{
	pr_err("    %llu to %llu, worker %u: %s in=%u expected=%u: %d, out=%u\n",
	       r->begin, r->end, r->worker, tort_calls[r->call], r->in, r->expected,
	       r->rc, r->out);
}

static void tort_report_history(struct tort_worker *w, struct tort_life *l, u32 hot,
				u32 at)
{
	struct tort_history *h = &tort_history;
	u32 i = at > 24 ? at - 24 : 0;

	tort_fail(w, l, "no order explains what calls for hot key %u returned, up to time %llu",
		  l->hot + hot, h->events[at].time);
	for (; i <= at; i++) {
		if (h->events[i].time == h->events[i].r->end)
			tort_show_record(h->events[i].r);
	}
}

/* The events of hot key @hot, in order */
static void tort_collect(u32 hot)
{
	struct tort_history *h = &tort_history;
	u32 i, j;

	h->nr_events = 0;
	for (i = 0; i < tort_nr_workers; i++) {
		for (j = 0; j < tort_workers[i].records; j++) {
			const struct tort_record *r = &tort_workers[i].record[j];

			if (r->hot != hot)
				continue;
			h->events[h->nr_events++] = (struct tort_event) { r->begin, r };
			h->events[h->nr_events++] = (struct tort_event) { r->end, r };
		}
	}
	sort(h->events, h->nr_events, sizeof(*h->events), tort_compare_events, NULL);
}

/*
 * Return: which event no order explains; the number of events: all are explained;
 * TORT_UNKNOWN: there are too many orders.
 */
static u32 tort_explain(struct tort_worker *w, u32 hot)
{
	struct tort_history *h = &tort_history;
	u32 i;

	tort_collect(hot);
	h->begun = 0;
	h->nr_configs = 0;
	tort_add_config(h, 0, TORT_UNKNOWN);
	for (i = 0; i < h->nr_events; i++) {
		const struct tort_record *r = h->events[i].r;

		if (h->events[i].time == r->begin) {
			h->pending[r->worker] = r;
			h->begun |= BIT(r->worker);
			continue;
		}
		if (!tort_unfold(h, r->worker))
			return TORT_UNKNOWN;
		tort_fold(h, r->worker);
		if (!h->nr_configs)
			return i;
		tort_beat(w);
	}
	return i;
}

static void tort_check_hot(struct tort_worker *w, struct tort_life *l, u32 hot)
{
	struct tort_history *h = &tort_history;
	u32 at = tort_explain(w, hot);

	if (at == TORT_UNKNOWN) {
		tort_total.given_up++;
		return;
	}
	if (at < h->nr_events)
		tort_report_history(w, l, hot, at);
	tort_total.recorded += h->nr_events / 2;
	tort_total.histories++;
}

/* A lookup misses what was inserted: before it, which is wrong, or meanwhile. */
static void tort_check_checker(struct tort_worker *me)
{
	struct tort_worker *w = &tort_workers[0];
	u32 meanwhile;

	for (meanwhile = 0; meanwhile < 2; meanwhile++) {
		w->record[0] = (struct tort_record) {
			.begin = 1, .end = meanwhile ? 4 : 2, .in = 1, .call = TORT_INSERT,
		};
		w->record[1] = (struct tort_record) {
			.begin = 3, .end = 5, .call = TORT_READ, .worker = 1,
		};
		w->records = 2;
		if ((tort_explain(me, 0) == tort_history.nr_events) != meanwhile)
			tort_fail(me, NULL, "histories are not judged well");
	}
	w->records = 0;
}

/* Stop recording, check what was recorded for this map, and start again. */
static void tort_check_history(struct tort_worker *w, struct tort_life *l, u32 last)
{
	u32 i;

	if (l->cell)
		return;
	WRITE_ONCE(l->open, false);
	synchronize_srcu_expedited(&tort_hot_srcu);
	for (i = 0; i < TORT_HOT && last == l->nr; i++)
		tort_check_hot(w, l, i);
	for (i = 0; i < tort_nr_workers; i++)
		tort_workers[i].records = 0;
	if (READ_ONCE(l->dying))
		return;
	/* Pairs with tort_hot() */
	smp_store_release(&l->open, true);
}

/* === Other roles ========================================================= */

static void tort_check_sums(struct tort_worker *w, struct tort_life *l)
{
	unsigned long count = chm_count(&l->map);
	u32 filled = tort_steady(l);
	struct chm_stats s;

	chm_stats(&l->map, &s);
	if (READ_ONCE(l->dying))
		return;
	if (count < filled || (count > l->keys && l->type->hashing != TORT_FLOODED))
		tort_fail(w, l, "%lu pairs, but %u are steady and %u keys are there",
			  count, filled, l->keys);
	if (s.displaced > s.entries || s.entries + s.dead > s.slots)
		tort_fail(w, l, "%lu pairs, %lu displaced, %lu dead, %lu slots",
			  s.entries, s.displaced, s.dead, s.slots);
	if (s.changed)
		tort_fail(w, l, "%lu pairs were written to while they were copied",
			  s.changed);
}

static void tort_verify(struct tort_worker *w, struct tort_life *l)
{
	int ret = chm_verify(&l->map);

	if (!ret)
		tort_total.verified++;
	else if (ret == -EBUSY || (ret == -ENOMEM && (faults || hog)))
		tort_total.unverified++;
	else
		tort_fail(w, l, "verify returned %d", ret);
}

static void tort_step_check(struct tort_worker *w, struct tort_life *l)
{
	static u32 last;

	tort_check_history(w, l, last);
	last = l->nr;
	tort_check_sums(w, l);
	/* It looks at each pair. */
	if (!tort_noise(w, 1 + l->keys / 20000))
		tort_verify(w, l);
	w->rounds++;
}

/* Ask for another size of the table.  This aborts migrations. */
static void tort_step_resize(struct tort_worker *w, struct tort_life *l)
{
	u32 most = l->p.max_entries ?: 2 * l->keys;
	bool reserves = tort_random(w, 2);
	u32 n = tort_random(w, most + 1);
	int ret;

	if (l->calm)
		return;
	tort_note_choice(w, n << 1 | reserves);
	/* The memory of two large tables may not be there. */
	if (l->keys > 1 << 20)
		n /= 2;
	tort_enter(w, TORT_PLAIN);
	ret = reserves ? chm_reserve(&l->map, n, GFP_KERNEL | __GFP_NOWARN) :
			 chm_shrink(&l->map, GFP_KERNEL | __GFP_NOWARN);
	tort_leave(w, TORT_PLAIN);
	if (ret && !tort_excused(w, l, ret, TORT_PLAIN))
		tort_fail(w, l, "%s returned %d", reserves ? "reserve" : "shrink", ret);
	w->rounds++;
}

/* With short grace periods, slots and memory are used again much sooner. */
static void tort_step_expedite(struct tort_worker *w, struct tort_life *l)
{
	synchronize_rcu_expedited();
	w->rounds++;
}

/* An attacker who knows hash and seed inserts keys that collide, and removes them. */
static void tort_step_flood(struct tort_worker *w, struct tort_life *l)
{
	u64 hash_seed = READ_ONCE(tort_flood_seed);
	u64 from = tort_step_random(&w->noise) & ~0xffffULL, i, n;
	u64 value[2];
	int ret = 0;

	if (l->type->hashing != TORT_FLOODED)
		return;
	for (n = 0; n < 3000 && !ret && !READ_ONCE(l->quiet) && !tort_over(); n++) {
		u64 key = tort_flood_key(hash_seed, from + n);

		value[0] = ~key;
		value[1] = 0;
		ret = chm_insert(&l->map, &key, value, GFP_KERNEL);
		if (!ret)
			atomic64_add(tort_mix(value[0]), &l->flood.balance);
		tort_beat(w);
	}
	if (ret)
		n--;
	if (ret && !tort_excused(w, l, ret, TORT_PLAIN))
		tort_fail(w, l, "insert of a key that collides returned %d", ret);
	for (i = 0; i < n; i++) {
		u64 key = tort_flood_key(hash_seed, from + i);

		ret = chm_remove(&l->map, &key);
		if (ret)
			tort_fail(w, l, "remove of a key that collides returned %d", ret);
		tort_beat(w);
	}
	tort_total.floods++;
	w->writes += 2 * n;
}

/* --- Memory --- */

struct tort_pages {
	struct list_head	list;
	unsigned int		order;
};

static bool tort_take_pages(struct list_head *pages, unsigned int order)
{
	const gfp_t gfp = GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN | __GFP_NOMEMALLOC;
	struct tort_pages *p = (void *)__get_free_pages(gfp, order);

	if (!p)
		return false;
	p->order = order;
	list_add(&p->list, pages);
	return true;
}

/* Take memory, so that large tables can't be had for a while. */
static void tort_step_hog(struct tort_worker *w, struct tort_life *l)
{
	struct tort_pages *p, *next;
	LIST_HEAD(pages);

	if (tort_noise(w, 4))
		return;
	while (si_mem_available() >> (20 - PAGE_SHIFT) > hog && !tort_over()) {
		if (!tort_take_pages(&pages, 9) && !tort_take_pages(&pages, 3))
			break;
		tort_beat(w);
	}
	msleep(20 + tort_noise(w, 200));
	list_for_each_entry_safe(p, next, &pages, list)
		free_pages((unsigned long)p, p->order);
	tort_total.hogs++;
}

/* --- CPUs --- */

#ifdef CONFIG_HOTPLUG_CPU
/* Return: a CPU that is online, other than the first; 0: there is none. */
static unsigned int tort_other_cpu(struct tort_worker *w)
{
	unsigned int nr = tort_noise(w, num_online_cpus()), cpu, found = 0;

	for_each_online_cpu(cpu) {
		if (!cpu)
			continue;
		found = cpu;
		if (!nr--)
			break;
	}
	return found;
}

static void tort_step_onoff(struct tort_worker *w, struct tort_life *l)
{
	unsigned int cpu = tort_other_cpu(w);
	int ret;

	if (!cpu || remove_cpu(cpu))
		return;
	msleep(tort_noise(w, 1000));
	ret = add_cpu(cpu);
	if (ret)
		pr_warn("??? CPU %u does not come back: %d\n", cpu, ret);
	tort_total.offline++;
}
#endif

/* --- Small maps that come and go --- */

struct tort_side {
	struct chm		map;
	u32			filled;		/* so many keys are present */
	bool			dying;
	u64			salt;
	atomic64_t		balance;	/* pairs, less those that were dropped */
	struct irq_work		irq;
	struct list_head	list;
	struct rcu_head		rcu;
};

static struct tort_side __rcu *tort_side;
/* Maps that were destroyed and may still be in use; only the side worker has these. */
static LIST_HEAD(tort_sides);
static u32 tort_nr_sides;

static u64 tort_side_value(const struct tort_side *s, u64 key)
{
	return tort_mix(key ^ s->salt);
}

static void tort_side_drop(void *ctx, void *key, void *value)
{
	struct tort_side *s = ctx;
	u64 *v = value;
	u32 who;

	if (*v != tort_side_value(s, *(u64 *)key))
		tort_fail(NULL, NULL, "G5: a small map has dropped wrong bytes: %#llx", *v);
	else if (tort_is_held(value, &who))
		tort_fail(NULL, NULL, "G5: a small map has dropped a pair under reader %u",
			  who);
	*v = 0x6b6b6b6b6b6b6b6bULL;
	atomic64_dec(&s->balance);
}

#define TORT_SIDE(_class, _reclaim)					\
	{								\
		.class = _class, .reclaim = _reclaim,			\
		.key_size = sizeof(u64), .value_size = sizeof(u64),	\
		.drop = tort_side_drop,					\
	}

static const struct chm_params tort_side_params[] = {
	TORT_SIDE(CHM_FROZEN, CHM_DEFERRED),
	TORT_SIDE(CHM_FROZEN, CHM_SYNC),
	TORT_SIDE(CHM_WORD, CHM_DEFERRED),
	TORT_SIDE(CHM_CELL, CHM_DEFERRED),
};

/* Readers call this under rcu_read_lock(). */
static void tort_look_at_side(struct tort_worker *w)
{
	struct tort_side *s = rcu_dereference(tort_side);
	const u64 *value;
	u32 filled;
	u64 key;

	if (!s)
		return;
	/* Pairs with tort_fill_side() */
	filled = smp_load_acquire(&s->filled);
	if (!filled)
		return;
	key = tort_noise(w, filled);
	value = chm_lookup(&s->map, &key);
	/* The lookup before this; pairs with tort_end_side(). */
	smp_rmb();
	if (!value) {
		if (!READ_ONCE(s->dying))
			tort_fail(w, NULL, "G2: a small map has lost key %llu of %u", key,
				  filled);
		return;
	}
	tort_hold(w, 1, value);
	tort_spin(tort_noise(w, 2000));
	if (READ_ONCE(*value) != tort_side_value(s, key))
		tort_fail(w, NULL, "G3: key %llu of a small map has wrong bytes: %#llx",
			  key, READ_ONCE(*value));
	tort_hold(w, 1, NULL);
}

static void tort_destroy_in_irq(struct irq_work *work)
{
	chm_destroy_async(&container_of(work, struct tort_side, irq)->map);
}

/* Destroy a map in one of the possible ways, under its readers. */
static void tort_end_side(struct tort_worker *w, struct tort_side *s, bool sync)
{
	u32 how = tort_noise(w, 4);

	WRITE_ONCE(s->dying, true);
	/* Before the map is empty; pairs with smp_rmb() in tort_look_at_side(). */
	smp_wmb();
	if (!how) {
		chm_destroy(&s->map);
	} else if (how < 3 || sync || IS_ENABLED(CONFIG_PREEMPT_RT)) {
		chm_destroy_async(&s->map);
	} else {
		init_irq_work(&s->irq, tort_destroy_in_irq);
		irq_work_queue(&s->irq);
		irq_work_sync(&s->irq);
	}
	if (chm_count(&s->map))
		tort_fail(w, NULL, "a small map is destroyed, and has pairs");
	list_add(&s->list, &tort_sides);
	tort_nr_sides++;
	tort_total.sides++;
}

/* After chm_barrier(), maps that were destroyed must have dropped all pairs. */
static void tort_reap_sides(struct tort_worker *w)
{
	struct tort_side *s, *next;

	chm_barrier();
	list_for_each_entry_safe(s, next, &tort_sides, list) {
		if (atomic64_read(&s->balance))
			tort_fail(w, NULL, "G5: a small map is gone, but %lld of its pairs",
				  atomic64_read(&s->balance));
		list_del(&s->list);
		/* Readers may still look at it. */
		kfree_rcu(s, rcu);
	}
	tort_nr_sides = 0;
}

static void tort_fill_side(struct tort_worker *w, struct tort_side *s)
{
	u32 n = tort_noise(w, 300);
	u64 key, value;
	int ret;

	for (key = 0; key < n; key++) {
		value = tort_side_value(s, key);
		atomic64_inc(&s->balance);
		ret = chm_insert(&s->map, &key, &value, GFP_KERNEL);
		if (ret) {
			atomic64_dec(&s->balance);
			if (ret != -ENOMEM || !(faults || hog))
				tort_fail(w, NULL, "insert into a small map returned %d",
					  ret);
			break;
		}
		/* Pairs with tort_look_at_side() */
		smp_store_release(&s->filled, key + 1);
	}
	for (key = n; key < n + 10; key++) {
		if (chm_remove(&s->map, &key) != -ENOENT)
			tort_fail(w, NULL, "a small map has a key that was not inserted");
	}
}

static void tort_step_side(struct tort_worker *w, struct tort_life *l)
{
	const struct chm_params *p;
	struct tort_side *s;

	p = &tort_side_params[tort_noise(w, ARRAY_SIZE(tort_side_params))];
	s = kzalloc_obj(*s, GFP_KERNEL);
	if (!s)
		return;
	s->salt = tort_step_random(&w->noise);
	if (chm_init(&s->map, p, s, NULL))
		tort_fail(w, NULL, "a small map can't be made");
	rcu_assign_pointer(tort_side, s);
	tort_fill_side(w, s);
	if (!tort_noise(w, 4))
		tort_spin(100000);
	RCU_INIT_POINTER(tort_side, NULL);
	tort_end_side(w, s, p->reclaim == CHM_SYNC);
	if (tort_nr_sides >= 32)
		tort_reap_sides(w);
	w->rounds++;
}

/* === Writers ============================================================= */

/* Maps fill and drain by turns. */
static const u8 tort_fill_calls[] = {
	TORT_INSERT, TORT_INSERT, TORT_GET_OR_INSERT, TORT_LOOKUP_OR_INSERT,
	TORT_REPLACE, TORT_REPLACE_IF, TORT_UPSERT, TORT_UPSERT,
	TORT_SWAP, TORT_REMOVE, TORT_REMOVE_IF, TORT_TAKE,
};

static const u8 tort_drain_calls[] = {
	TORT_INSERT, TORT_GET_OR_INSERT, TORT_LOOKUP_OR_INSERT, TORT_REMOVE,
	TORT_REPLACE, TORT_REPLACE_IF, TORT_UPSERT, TORT_REMOVE,
	TORT_SWAP, TORT_REMOVE, TORT_REMOVE_IF, TORT_TAKE,
};

static_assert(ARRAY_SIZE(tort_fill_calls) == ARRAY_SIZE(tort_drain_calls));

static u8 tort_choose_call(struct tort_worker *w)
{
	u32 lot = tort_random(w, ARRAY_SIZE(tort_fill_calls));

	return w->chosen & BIT(13) ? tort_drain_calls[lot] : tort_fill_calls[lot];
}

/* If @lot is below @share, choose a key from @from to @to. */
static bool tort_choose_key(struct tort_worker *w, struct tort_try *try, u32 lot,
			    u32 share, u32 from, u32 to)
{
	if (lot >= share || from >= to)
		return false;
	try->idx = from + tort_random(w, to - from);
	return true;
}

static void tort_write_cell(struct tort_worker *w, struct tort_life *l,
			    struct tort_try *try, u32 lot)
{
	u32 filled = tort_steady(l);

	if (tort_choose_key(w, try, lot, 100, 0, filled))
		tort_write_steady_cell(w, l, try->idx);
	else if (tort_choose_key(w, try, lot, 160, l->locked, l->wild))
		tort_write_locked_cell(w, l, try);
	else if (tort_choose_key(w, try, lot, 256, l->wild, l->keys))
		tort_write_wild_cell(w, l, try);
}

static void tort_write_as(struct tort_worker *w, struct tort_life *l,
			  struct tort_try *try, enum tort_call call)
{
	try->call = call;
	tort_write_locked(w, l, try, true);
}

/* A reader waits for this key: see tort_ambush. */
static void tort_write_in_ambush(struct tort_worker *w, struct tort_life *l, u32 idx)
{
	struct tort_try try = { .idx = idx };

	if (atomic_cmpxchg_acquire(&tort_ambush.busy, 0, 1))
		return;
	tort_write_as(w, l, &try, TORT_INSERT);
	tort_ambush.stores = tort_noise(w, 2);
	tort_ambush.life = l;
	tort_ambush.idx = idx;
	WRITE_ONCE(tort_ambush.writer, current);
	tort_write_as(w, l, &try, TORT_REPLACE);
	WRITE_ONCE(tort_ambush.writer, NULL);
	tort_write_as(w, l, &try, TORT_REMOVE);
	atomic_set_release(&tort_ambush.busy, 0);
}

/* Write one key again and again, while readers look at it. */
static void tort_write_burst(struct tort_worker *w, struct tort_life *l,
			     struct tort_try *try)
{
	static const u8 calls[] = {
		TORT_REMOVE, TORT_INSERT, TORT_REPLACE, TORT_UPSERT, TORT_SWAP,
		TORT_TAKE, TORT_GET_OR_INSERT, TORT_REPLACE_IF,
	};
	u32 i;

	WRITE_ONCE(l->focus, try->idx);
	for (i = 0; i < 2 * ARRAY_SIZE(calls); i++)
		tort_write_as(w, l, try, calls[i % ARRAY_SIZE(calls)]);
}

static void tort_write_pair(struct tort_worker *w, struct tort_life *l,
			    struct tort_try *try, u32 lot, bool right)
{
	if (tort_choose_key(w, try, lot, 64, 0, tort_steady(l)))
		tort_write_steady(w, l, try);
	else if (tort_choose_key(w, try, lot, 150, l->locked, l->wild))
		tort_write_locked(w, l, try, right);
	else if (tort_choose_key(w, try, lot, 160, l->locked, l->wild))
		tort_write_burst(w, l, try);
	else if (tort_choose_key(w, try, lot, 216, l->wild, l->hot))
		tort_write_wild(w, l, try);
	else if (tort_choose_key(w, try, lot, 222, l->wild, l->hot))
		tort_write_many(w, l, try);
	else if (tort_choose_key(w, try, lot, 256, l->hot, l->keys))
		tort_hot(w, l, try);
}

static void tort_write(struct tort_worker *w, struct tort_life *l)
{
	u64 restart = tort_step_random(&w->random);
	u32 lot = tort_random(w, 256);
	struct tort_try try = {
		.call = tort_choose_call(w),
		.flavour = tort_choose_flavour(w, l),
	};

	tort_note_choice(w, restart ^ lot << 16 ^ try.call << 8 ^ try.flavour);
	if (l->type->clears && !tort_random(w, 1000))
		tort_clear(w, l, &try);
	else if (l->cell)
		tort_write_cell(w, l, &try, lot);
	else
		tort_write_pair(w, l, &try, lot, restart & 1);
	/* The next call must not depend on how much this one has drawn. */
	w->random = restart;
}

/* Write at a rate at which the worker empties all DEAD slots. */
static void tort_write_seldom(struct tort_worker *w, struct tort_life *l)
{
	u64 start = tort_now();
	u32 prey;

	if (w->role->context != TORT_THREAD && tort_noise(w, 16))
		return;
	tort_write(w, l);
	while (w->role->context == TORT_THREAD && tort_now() - start < 500000) {
		prey = READ_ONCE(tort_ambush.prey);
		if (prey != TORT_NO_KEY)
			tort_write_in_ambush(w, l, prey);
	}
}

static void tort_step_write(struct tort_worker *w, struct tort_life *l)
{
	u32 n = w->role->context == TORT_THREAD ? 16 : 1 + tort_noise(w, 3);

	if (l->p.reclaim == CHM_SYNC && w->role->context != TORT_THREAD)
		return;
	if (l->type->hashing == TORT_CLUSTERS) {
		tort_write_seldom(w, l);
		return;
	}
	while (n-- && !READ_ONCE(l->quiet) && !tort_over())
		tort_write(w, l);
}

/* === Workers ============================================================= */

static bool tort_hogs;

#define TORT_IRQ(what, where, _context, ...)				\
	{								\
		.name = #what, .step = tort_step_##where,		\
		.context = _context, .wanted = &irqs, __VA_ARGS__	\
	}

static const struct tort_role tort_roles[] = {
	{ "reader", tort_step_read, .reads = true, .number = &readers, },
	TORT_IRQ(reader, read, TORT_SOFTIRQ, .reads = true),
	TORT_IRQ(reader, read, TORT_HARDIRQ, .reads = true),
	TORT_IRQ(reader, read, TORT_IRQ_WORK, .reads = true),
	{ "long-reader", tort_step_hold, .reads = true, .pause = 30, },
	{ "writer", tort_step_write, .writes = true, .number = &writers, },
	TORT_IRQ(writer, write, TORT_SOFTIRQ, .writes = true),
#ifndef CONFIG_PREEMPT_RT
	TORT_IRQ(writer, write, TORT_HARDIRQ, .writes = true),
#endif
	TORT_IRQ(writer, write, TORT_IRQ_WORK, .writes = true),
	{ "resizer", tort_step_resize, .writes = true, .pause = 2, },
	{ "flooder", tort_step_flood, .writes = true, .pause = 10, },
	{ "walker", tort_step_walk, .pause = 5, },
	{ "visitor", tort_step_visit, .pause = 10, },
	{ "checker", tort_step_check, .pause = 20, },
	{ "side", tort_step_side, .pause = 1, },
	{ "expediter", tort_step_expedite, .alone = true, .pause = 2, },
	{ "hog", tort_step_hog, .alone = true, .pause = 500, .wanted = &tort_hogs, },
#ifdef CONFIG_HOTPLUG_CPU
	{ "onoff", tort_step_onoff, .alone = true, .pause = 10000, .wanted = &onoff, },
#endif
};

/* What a worker does with a map depends on their numbers and on the seed. */
static void tort_meet(struct tort_worker *w, struct tort_life *l)
{
	if (w->life == l->nr)
		return;
	w->life = l->nr;
	w->random = tort_mix(tort_mix(tort_seed + l->nr) + w->id) | 1;
	w->chosen = 0;
	w->digest = 0;
	memset(w->hot, 0, sizeof(w->hot));
}

/* Only RCU protects readers, so the map may be destroyed meanwhile. */
static bool tort_run_reader(struct tort_worker *w)
{
	struct tort_life *l;

	rcu_read_lock();
	l = rcu_dereference(tort_life);
	if (l) {
		tort_meet(w, l);
		w->role->step(w, l);
	}
	rcu_read_unlock();
	return l;
}

/* Return: whether there was anything to do. */
static bool tort_run(struct tort_worker *w)
{
	struct tort_life *l;
	int nr;

	w->beats++;
	if (w->role->reads)
		return tort_run_reader(w);
	if (w->role->alone) {
		w->role->step(w, NULL);
		return true;
	}
	nr = srcu_read_lock(&tort_srcu);
	l = srcu_dereference(tort_life, &tort_srcu);
	if (l && !(w->role->writes && READ_ONCE(l->quiet))) {
		tort_meet(w, l);
		w->role->step(w, l);
	} else {
		l = NULL;
	}
	srcu_read_unlock(&tort_srcu, nr);
	return l;
}

static enum hrtimer_restart tort_timer(struct hrtimer *timer)
{
	struct tort_worker *w = container_of(timer, struct tort_worker, timer);
	u64 start = tort_now(), pause = 20000 + tort_noise(w, 60000);

	if (tort_over())
		return HRTIMER_NORESTART;
	if (w->role->context == TORT_HARDIRQ ? !in_hardirq() : !in_serving_softirq())
		tort_fail(w, NULL, "a timer in the wrong context: %#x", preempt_count());
	tort_run(w);
	/* Leave most of the time to others, even on slow machines. */
	pause = max(pause, 4 * (tort_now() - start));
	hrtimer_set_expires(timer, ktime_add_ns(hrtimer_cb_get_time(timer), pause));
	return HRTIMER_RESTART;
}

static enum hrtimer_mode tort_timer_mode(const struct tort_role *role)
{
	if (role->context == TORT_SOFTIRQ)
		return HRTIMER_MODE_REL_PINNED_SOFT;
	/* Lockdep forbids a spinlock_t, as map->lock is, in timers that are hard on RT. */
	return role->writes ? HRTIMER_MODE_REL_PINNED : HRTIMER_MODE_REL_PINNED_HARD;
}

static void tort_run_timer(struct tort_worker *w)
{
	enum hrtimer_mode mode = tort_timer_mode(w->role);

	hrtimer_setup(&w->timer, tort_timer, CLOCK_MONOTONIC, mode);
	hrtimer_start(&w->timer, ns_to_ktime(NSEC_PER_USEC), mode);
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);
	hrtimer_cancel(&w->timer);
}

static void tort_irq_work(struct irq_work *work)
{
	tort_run(container_of(work, struct tort_worker, irq));
}

static void tort_run_irq_work(struct tort_worker *w)
{
	init_irq_work(&w->irq, tort_irq_work);
	while (!kthread_should_stop() && !tort_over()) {
		u32 i;

		/* On most machines it runs at once, on others at the next tick. */
		for (i = 0; i < 16; i++) {
			irq_work_queue(&w->irq);
			irq_work_sync(&w->irq);
		}
		schedule_timeout_interruptible(1);
	}
	irq_work_sync(&w->irq);
}

static void tort_run_thread(struct tort_worker *w)
{
	unsigned int pause = msecs_to_jiffies(w->role->pause);

	while (!kthread_should_stop() && !tort_over()) {
		bool busy = tort_run(w);

		tort_give_way();
		if (pause || !busy)
			schedule_timeout_interruptible(max(pause, 1U));
	}
}

static int tort_thread(void *arg)
{
	struct tort_worker *w = arg;

	/* The start barrier: nobody begins before all are there. */
	atomic_dec(&tort_waiting);
	while (!READ_ONCE(tort_started) && !kthread_should_stop())
		schedule_timeout_interruptible(1);
	if (w->role->context == TORT_THREAD)
		tort_run_thread(w);
	else if (w->role->context == TORT_IRQ_WORK)
		tort_run_irq_work(w);
	else
		tort_run_timer(w);
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);
	return 0;
}

/* CPU number @nr of those that are online */
static unsigned int tort_nth_cpu(unsigned int nr)
{
	unsigned int cpu, n = nr % num_online_cpus();

	for_each_online_cpu(cpu) {
		if (!n--)
			return cpu;
	}
	return 0;
}

static bool tort_alloc_buffers(struct tort_worker *w)
{
	u64 **buffers[] = { &w->key, &w->old_key, &w->value, &w->expected, &w->old };
	u32 i;

	for (i = 0; i < ARRAY_SIZE(buffers); i++) {
		*buffers[i] = kzalloc(TORT_BUFFER, GFP_KERNEL);
		if (!*buffers[i])
			return false;
	}
	w->record = kvcalloc(TORT_RECORDS, sizeof(*w->record), GFP_KERNEL);
	return w->record;
}

static bool tort_start_worker(const struct tort_role *role)
{
	struct tort_worker *w = &tort_workers[tort_nr_workers];
	struct task_struct *task;

	/* Main has the last slot. */
	if (tort_nr_workers == TORT_WORKERS - 1)
		return true;
	w->role = role;
	w->id = tort_nr_workers;
	w->noise = tort_mix(tort_seed + 1000 + w->id) | 1;
	w->life = U32_MAX;
	if (!tort_alloc_buffers(w))
		return false;
	task = kthread_create(tort_thread, w, "chm_tort/%s", role->name);
	if (IS_ERR(task))
		return false;
	atomic_inc(&tort_waiting);
	tort_nr_workers++;
	set_cpus_allowed_ptr(task, cpumask_of(tort_nth_cpu(w->id)));
	get_task_struct(task);
	w->task = task;
	wake_up_process(task);
	return true;
}

static bool tort_start_workers(void)
{
	u32 i, j;

	for (i = 0; i < ARRAY_SIZE(tort_roles); i++) {
		const struct tort_role *role = &tort_roles[i];
		u32 number = role->number ? *role->number : 1;

		for (j = 0; j < number && (!role->wanted || *role->wanted); j++) {
			if (!tort_start_worker(role))
				return false;
		}
	}
	while (atomic_read(&tort_waiting))
		schedule_timeout_interruptible(1);
	WRITE_ONCE(tort_started, true);
	return true;
}

static void tort_stop_workers(void)
{
	u32 i;

	for (i = 0; i < tort_nr_workers; i++) {
		kthread_stop(tort_workers[i].task);
		put_task_struct(tort_workers[i].task);
	}
}

static void tort_free_workers(void)
{
	u32 i;

	for (i = 0; i < TORT_WORKERS && tort_workers; i++) {
		struct tort_worker *w = &tort_workers[i];

		kfree(w->key);
		kfree(w->old_key);
		kfree(w->value);
		kfree(w->expected);
		kfree(w->old);
		kvfree(w->record);
	}
	kvfree(tort_workers);
}

/* Move threads to other CPUs.  Timers stay where they are. */
static void tort_shuffle(struct tort_worker *me)
{
	u32 i;

	for (i = 0; i < tort_nr_workers; i++) {
		if (tort_workers[i].role->context == TORT_THREAD)
			set_cpus_allowed_ptr(tort_workers[i].task, tort_noise(me, 4) ?
					     cpumask_of(tort_nth_cpu(tort_noise(me, 1000))) :
					     cpu_possible_mask);
	}
}

/* === Counting ============================================================ */

struct tort_tally {
	unsigned long	reads, hits, writes;
};

static unsigned long tort_count(const unsigned long *count)
{
	/* The worker goes on counting: a value that is a little old will do. */
	return data_race(*count);
}

static struct tort_tally tort_tally(void)
{
	struct tort_tally t = { };
	u32 i;

	for (i = 0; i <= tort_nr_workers; i++) {
		t.reads += tort_count(&tort_workers[i].reads);
		t.hits += tort_count(&tort_workers[i].hits);
		t.writes += tort_count(&tort_workers[i].writes);
	}
	return t;
}

static struct tort_totals tort_totals(void)
{
	struct tort_totals t;

	/* As in tort_count() */
	data_race(t = tort_total);
	return t;
}

static u64 tort_elapsed(void)
{
	return div_u64(tort_now() - tort_start_ns, NSEC_PER_MSEC);
}

/* === Lives of maps ======================================================= */

/* Main fills maps, and checks them at the end. */
static struct tort_worker *tort_me;

/* Does the current map migrate all the time? */
static bool tort_is_restless;

static void *tort_life_alloc(u64 n, size_t size)
{
	return kvzalloc(n * size, GFP_KERNEL);
}

static void tort_free_life(struct tort_life *l)
{
	u32 i;

	if (!l)
		return;
	for (i = 0; i < TORT_WORKERS; i++)
		kvfree(l->seen[i]);
	kvfree(l->count[0]);
	kvfree(l->count[1]);
	kvfree(l->visited);
	kvfree(l->key);
	kvfree(l);
}

static bool tort_alloc_arrays(struct tort_life *l)
{
	u32 i;

	l->key = tort_life_alloc(l->keys, sizeof(*l->key));
	l->count[0] = tort_life_alloc(l->keys, 1);
	l->count[1] = tort_life_alloc(l->keys, 1);
	l->visited = tort_life_alloc(l->keys, 1);
	for (i = 0; i <= tort_nr_workers; i++) {
		const struct tort_role *role = i < tort_nr_workers ?
					       tort_workers[i].role : NULL;

		if (role && role->step != tort_step_read)
			continue;
		l->seen[i] = tort_life_alloc(l->keys, sizeof(*l->seen[i]));
		if (!l->seen[i])
			return false;
	}
	return l->key && l->count[0] && l->count[1] && l->visited;
}

static void tort_set_hash(struct tort_life *l)
{
	switch (l->type->hashing) {
	case TORT_DEFAULT:
		break;
	case TORT_SEEDED:
		l->p.hash = tort_hash_seeded;
		break;
	case TORT_WEAK:
		l->p.hash = tort_hash_weak;
		break;
	case TORT_CONSTANT:
		l->p.hash = tort_hash_constant;
		break;
	case TORT_CLUSTERS:
		l->p.hash = tort_hash_clusters;
		break;
	case TORT_FLOODED:
		l->p.hash = tort_hash_flooded;
	}
}

/* 25% of all keys are steady, 40% locked, and 35% wild; of these, some are hot. */
static void tort_set_groups(struct tort_life *l)
{
	l->keys = min(l->type->keys, max_keys);
	l->locked = l->type->clears ? 0 : l->keys / 4;
	l->wild = l->locked + l->keys * 2 / 5;
	l->hot = l->keys - min(TORT_HOT, l->keys / 3);
	l->focus = l->locked;
}

/* A table has to stay for two grace periods, or slots are not used again. */
static bool tort_is_calm(const struct tort_type *type, u32 nr)
{
	return nr % 3 == 0 || type->hashing == TORT_CLUSTERS;
}

static struct tort_life *tort_new_life(const struct tort_type *type, u32 nr)
{
	struct tort_life *l = tort_life_alloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->type = type;
	l->nr = nr;
	l->calm = tort_is_calm(type, nr);
	l->p = type->p;
	if (type->no_drop)
		l->p.drop = NULL;
	l->salt = tort_mix(tort_seed ^ (u64)nr << 32);
	l->words = l->p.value_size / sizeof(u64);
	l->cell = l->p.class == CHM_CELL;
	l->word = l->p.class == CHM_WORD;
	tort_set_hash(l);
	tort_set_groups(l);
	atomic_set(&l->clones_left, 4 * l->keys);
	if (!tort_alloc_arrays(l) ||
	    (chm_init(&l->map, &l->p, l, "torture") &&
	     chm_init(&l->map, &l->p, l, NULL))) {
		tort_free_life(l);
		return NULL;
	}
	return l;
}

/* Only main writes these keys until they count as steady. */
static void tort_fill_steady(struct tort_life *l, u64 end)
{
	u32 version = l->cell ? 0 : 1;
	struct tort_worker *w = tort_me;
	u32 idx = 0, tries = 0;
	int ret;

	while (idx < l->locked && tries < 1000 && tort_now() < end && !tort_over()) {
		tort_fill(l, w->value, idx, version);
		tort_put_in(l, idx, w->value);
		ret = chm_insert(&l->map, tort_make_key(l, w->key, idx), w->value,
				 GFP_KERNEL | __GFP_NOWARN);
		if (!ret) {
			idx++;
			/* Pairs with tort_steady() */
			smp_store_release(&l->filled, idx);
			tort_beat(w);
			continue;
		}
		tort_got_out(l, idx, w->value);
		if (!tort_excused(w, l, ret, TORT_PLAIN))
			tort_fail(w, l, "insert of steady key %u returned %d", idx, ret);
		tries++;
	}
}

/* Fill half of the other keys, or large maps would stay nearly empty. */
static void tort_fill_others(struct tort_life *l, u64 end)
{
	u32 idx;

	for (idx = l->locked; idx < l->hot && tort_now() < end && !tort_over(); idx += 2) {
		struct tort_try try = { .call = TORT_INSERT, .idx = idx };

		if (idx < l->wild)
			tort_write_locked(tort_me, l, &try, true);
		else if (l->cell)
			tort_upsert_add(tort_me, l, &try);
		else
			tort_write_wild(tort_me, l, &try);
		tort_beat(tort_me);
	}
}

/* --- The end of a map --- */

/* No writer is at work: is this key as it should be? */
static bool tort_check_key(struct tort_life *l, u32 idx)
{
	struct tort_key *k = &l->key[idx];
	struct tort_worker *w = tort_me;
	u32 known = tort_known(k, l->clears);
	u32 version = 0;
	bool present;
	u64 head = 0;

	present = chm_get(&l->map, tort_make_key(l, w->key, idx), w->old);
	if (present) {
		head = tort_head(l, w->old);
		version = tort_version(l, head);
		if (!tort_good(l, w->old, head, idx, true))
			tort_fail(w, l, "G3: at rest, key %u has wrong bytes, head %#llx",
				  idx, head);
	}
	if (idx < l->filled && !present)
		tort_fail(w, l, "G2: at rest, steady key %u is gone", idx);
	else if (idx < l->filled && !l->cell && version != 1 + (u32)atomic_read(&k->next))
		tort_fail(w, l, "G4: at rest, steady key %u has version %u after %d replacements",
			  idx, version, atomic_read(&k->next));
	else if (idx < l->filled && l->cell)
		tort_read_cell(w, l, idx);
	else if (idx >= l->locked && idx < l->wild && known != TORT_UNKNOWN &&
		 version != known)
		tort_fail(w, l, "G2: at rest, key %u has version %u, not %u", idx,
			  version, known);
	return present;
}

/* A walk must visit all keys. */
static void tort_check_walk(struct tort_life *l, unsigned long present)
{
	struct tort_worker *w = tort_me;
	unsigned long visited = 0;
	struct chm_iter it;

	chm_iter_init(&it, &l->map);
	while (chm_iter_next(&it, w->old_key, NULL)) {
		visited++;
		tort_beat(w);
	}
	if (visited != present && !tort_over())
		tort_fail(w, l, "G8: at rest, a walk has visited %lu keys of %lu", visited,
			  present);
}

/* Clear the map: nothing may come back. */
static void tort_check_clear(struct tort_life *l)
{
	struct tort_worker *w = tort_me;
	u32 idx;

	WRITE_ONCE(l->dying, true);
	/* Record no more: this clear() would be missing there. */
	synchronize_srcu_expedited(&tort_srcu);
	WRITE_ONCE(l->open, false);
	synchronize_srcu_expedited(&tort_hot_srcu);
	chm_clear(&l->map);
	if (chm_count(&l->map))
		tort_fail(w, l, "clear has left %lu pairs", chm_count(&l->map));
	for (idx = 0; idx < l->keys; idx++) {
		if (chm_get(&l->map, tort_make_key(l, w->key, idx), w->old))
			tort_fail(w, l, "key %u is still there after clear", idx);
		tort_beat(w);
	}
}

/* Writers pause: all must be as they left it. */
static void tort_check_at_rest(struct tort_life *l)
{
	unsigned long present = 0;
	u32 idx;

	WRITE_ONCE(l->quiet, true);
	synchronize_srcu_expedited(&tort_srcu);
	for (idx = 0; idx < l->keys && !tort_over(); idx++) {
		present += tort_check_key(l, idx);
		tort_beat(tort_me);
	}
	if (tort_over())
		return;
	if (present != chm_count(&l->map))
		tort_fail(tort_me, l, "at rest, %lu keys are present, but %lu are counted",
			  present, chm_count(&l->map));
	tort_check_walk(l, present);
	tort_verify(tort_me, l);
	if (tort_noise(tort_me, 2))
		tort_check_clear(l);
}

/* All that was put in must have come out. */
static void tort_check_balance(struct tort_life *l)
{
	u32 idx;

	for (idx = 0; idx < l->keys; idx++) {
		s64 balance = atomic64_read(&l->key[idx].balance);

		if (balance)
			tort_fail(tort_me, l, l->cell ?
				  "G9: cell of key %u: %lld was added, but did not come out" :
				  "G5: key %u: what was put in is not what came out, by %lld",
				  idx, balance);
		tort_beat(tort_me);
	}
	if (atomic64_read(&l->flood.balance))
		tort_fail(tort_me, l, "G5: keys that collide are not what came out");
}

static void tort_show_life(struct tort_life *l, const struct chm_stats *s)
{
	static struct tort_tally before;
	struct tort_tally t = tort_tally();

	if (verbose)
		pr_info("map %u %s: restless %d pairs %lu grows %lu shrinks %lu rehashes %lu aborts %lu reseeds %lu longest %lu reads %lu writes %lu, %llu ms\n",
			l->nr, l->type->name, tort_is_restless, s->entries, s->grows,
			s->shrinks, s->rehashes, s->aborts, s->reseeds,
			s->longest_probe, t.reads - before.reads,
			t.writes - before.writes, tort_elapsed());
	before = t;
}

static void tort_add_totals(struct tort_life *l)
{
	struct chm_stats s;
	u32 i;

	chm_stats(&l->map, &s);
	tort_show_life(l, &s);
	tort_total.lives++;
	tort_total.migrations += s.grows + s.shrinks + s.rehashes;
	tort_total.aborts += s.aborts;
	tort_total.reseeds += s.reseeds;
	tort_total.gp_waits += s.gp_waits;
	tort_total.failed_allocs += s.failed_allocs;
	if (l->nr)
		return;
	/* Of the first map, whose workers had the time for that. */
	for (i = 0; i < tort_nr_workers; i++) {
		const struct tort_worker *w = &tort_workers[i];

		if (w->role->context == TORT_THREAD && w->life == l->nr &&
		    w->chosen >= TORT_DIGESTED)
			tort_total.schedule += tort_mix(w->digest + i);
	}
}

static void tort_bury(struct tort_life *l)
{
	if (!l)
		return;
	chm_barrier();
	tort_check_balance(l);
	tort_total.drops += atomic64_read(&l->drops);
	/* Readers may still use the map, and @l. */
	synchronize_rcu();
	tort_free_life(l);
}

/* Destroy the map under its readers.  Return: it, if tort_bury() is still to be called. */
static struct tort_life *tort_end_life(struct tort_life *l)
{
	if (tort_noise(tort_me, 1 + l->keys / 20000) < 2 && tort_noise(tort_me, 2))
		tort_check_at_rest(l);
	WRITE_ONCE(l->dying, true);
	rcu_assign_pointer(tort_life, NULL);
	/* Only readers are left, and see l->dying before the map changes. */
	synchronize_srcu_expedited(&tort_srcu);
	tort_add_totals(l);
	if (tort_noise(tort_me, 2)) {
		chm_destroy_async(&l->map);
		return l;
	}
	chm_destroy(&l->map);
	tort_bury(l);
	return NULL;
}

static bool tort_is_wanted(const struct tort_type *type)
{
	return !*types || strstarts(type->name, types);
}

/* Each type once, in an order that depends on the seed, and again */
static const struct tort_type *tort_next_type(u32 nr)
{
	static u8 order[ARRAY_SIZE(tort_types)];
	u32 n = ARRAY_SIZE(tort_types), i;
	u64 random;

	if (!(nr % n)) {
		random = tort_mix(tort_seed + nr) | 1;
		for (i = 0; i < n; i++) {
			u32 j = tort_below(&random, i + 1);

			order[i] = order[j];
			order[j] = i;
		}
	}
	return &tort_types[order[nr % n]];
}

static bool tort_wants_restless(const struct tort_type *type, u32 nr)
{
	return IS_ENABLED(CONFIG_KUNIT) && restless && !tort_is_calm(type, nr);
}

static void tort_set_dawdle(bool on)
{
#if IS_ENABLED(CONFIG_KUNIT)
	static const struct chm_torture hooks = { .dawdle = tort_dawdle };

	WRITE_ONCE(chm_torture, on ? &hooks : NULL);
	/* Callers have interrupts off, so this waits for them. */
	synchronize_rcu();
#endif
}

/* Only while no map exists: chm reads these without a lock. */
static void tort_set_restless(bool on)
{
#if IS_ENABLED(CONFIG_KUNIT)
	chm_barrier();
	tort_is_restless = on;
	WRITE_ONCE(chm_restless, on);
	WRITE_ONCE(chm_step_chunks, on ? tort_noise(tort_me, 4) : 0);
#endif
}

static void tort_sleep_until(u64 end)
{
	for (; tort_now() < end && !tort_over(); tort_me->beats++)
		schedule_timeout_interruptible(HZ / 50 + 1);
}

/* Large maps may not be full in time, and stay smaller. */
static void tort_live(struct tort_life *l)
{
	u64 ns = (u64)slice * NSEC_PER_MSEC * max_t(u8, l->type->slices, 1);
	u64 end = tort_now() + ns;

	/* Others could fill the map up to max_entries first. */
	if (l->p.max_entries)
		tort_fill_steady(l, end);
	rcu_assign_pointer(tort_life, l);
	if (!l->p.max_entries)
		tort_fill_steady(l, end - ns / 4);
	tort_fill_others(l, end);
	tort_sleep_until(max(end, tort_now() + ns / 2));
}

static bool tort_time_is_up(void)
{
	return tort_now() - tort_start_ns >= (u64)seconds * NSEC_PER_SEC;
}

static void tort_live_on(void)
{
	struct tort_life *l, *old = NULL;
	u32 nr = 0, tried;

	for (tried = 0; !tort_over() && !tort_time_is_up(); tried++) {
		const struct tort_type *type = tort_next_type(tried);

		if (!tort_is_wanted(type))
			continue;
		l = tort_new_life(type, nr);
		if (!l) {
			pr_warn("??? no memory for %s with %u keys\n", type->name,
				min(type->keys, max_keys));
			tort_sleep_until(tort_now() + 100 * NSEC_PER_MSEC);
			continue;
		}
		if (tort_is_restless != tort_wants_restless(type, nr)) {
			tort_bury(old);
			old = NULL;
			tort_set_restless(!tort_is_restless);
		}
		nr++;
		tort_shuffle(tort_me);
		tort_live(l);
		l = tort_end_life(l);
		tort_bury(old);
		old = l;
	}
	tort_bury(old);
}

/* === Statistics ========================================================== */

static void tort_report(void)
{
	struct tort_tally t = tort_tally();
	struct tort_totals n = tort_totals();
	u64 ms = tort_elapsed();

	pr_info("%llu.%03llu s: maps %lu reads %lu hits %lu writes %lu drops %llu migrations %lu aborts %lu reseeds %lu waits %lu failed_allocs %lu errors %u\n",
		div_u64(ms, 1000), ms - 1000 * div_u64(ms, 1000), n.lives, t.reads,
		t.hits, t.writes, n.drops, n.migrations, n.aborts, n.reseeds,
		n.gp_waits, n.failed_allocs, READ_ONCE(errors));
	pr_info("    walks %lu resumed %lu stale %lu visits %lu verified %lu unverified %lu histories %lu of %lu calls, given up %lu; clears %lu floods %lu small maps %lu hogs %lu offline %lu\n",
		n.walks, n.resumed, n.stale, n.visits, n.verified, n.unverified,
		n.histories, n.recorded, n.given_up, n.clears, n.floods, n.sides,
		n.hogs, n.offline);
}

static void tort_show_who_goes_on(void)
{
	static unsigned long before[TORT_WORKERS];
	u32 i;

	for (i = 0; i <= tort_nr_workers; i++)
		before[i] = tort_count(&tort_workers[i].beats);
	msleep(1000);
	for (i = 0; i <= tort_nr_workers; i++) {
		const struct tort_worker *w = &tort_workers[i];

		pr_info("    %s/%u in %s, cpu %d: %lu steps in the last second\n",
			w->role->name, i, tort_contexts[w->role->context],
			w->task ? task_cpu(w->task) : -1,
			tort_count(&w->beats) - before[i]);
	}
}

/* Liveness: has the worker made a step lately? */
static void tort_watch(struct tort_worker *w)
{
	unsigned long beats = tort_count(&w->beats);

	if (beats != w->last_beats || !w->stuck_since) {
		w->last_beats = beats;
		w->stuck_since = jiffies | 1;
		return;
	}
	if (time_before(jiffies, w->stuck_since + stall * HZ))
		return;
	tort_fail(w, NULL, "no progress for %u s", stall);
	if (w->task)
		sched_show_task(w->task);
	tort_show_who_goes_on();
	w->stuck_since = jiffies | 1;
}

static int tort_watch_thread(void *unused)
{
	unsigned long next = jiffies + stat * HZ;
	u32 i;

	while (!kthread_should_stop()) {
		schedule_timeout_interruptible(HZ);
		if (!READ_ONCE(tort_started) || tort_over())
			continue;
		for (i = 0; i <= tort_nr_workers; i++)
			tort_watch(&tort_workers[i]);
		if (time_before(jiffies, next))
			continue;
		tort_report();
		next += stat * HZ;
	}
	return 0;
}

static void tort_show_workers(void)
{
	u32 i;

	for (i = 0; i < tort_nr_workers; i++) {
		const struct tort_worker *w = &tort_workers[i];

		pr_info("    %s/%u in %s: steps %lu reads %lu writes %lu rounds %lu\n",
			w->role->name, i, tort_contexts[w->role->context], w->beats,
			w->reads, w->writes, w->rounds);
		if (!w->beats && tort_time_is_up())
			tort_fail(NULL, NULL, "worker %u has done nothing", i);
	}
}

static void tort_conclude(void)
{
	struct tort_tally t;

	tort_show_workers();
	if (tort_time_is_up() && !tort_total.migrations)
		tort_fail(NULL, NULL, "no map has migrated");
	tort_report();
	tort_echo("end");
	t = tort_tally();
	pr_info("%s: seed %llu, %llu s, schedule %016llx, maps %lu reads %lu writes %lu drops %llu errors %u\n",
		errors ? "FAILURE" : "SUCCESS", tort_seed, div_u64(tort_elapsed(), 1000),
		tort_total.schedule, tort_total.lives, t.reads, t.writes,
		tort_total.drops, errors);
}

/* === Module ============================================================== */

static const struct tort_role tort_main_role = { .name = "main", .reads = true, };

static bool tort_prepare(void)
{
	struct tort_history *h = &tort_history;

	h->events = kvcalloc(2 * TORT_WORKERS * TORT_RECORDS, sizeof(*h->events),
			     GFP_KERNEL);
	h->configs = kvcalloc(TORT_CONFIGS, sizeof(*h->configs), GFP_KERNEL);
	return h->events && h->configs;
}

/* Main has the slot after the last worker. */
static bool tort_begin(void)
{
	if (!tort_prepare())
		return false;
	tort_set_dawdle(dawdle);
	if (!tort_start_workers())
		return false;
	tort_me = &tort_workers[tort_nr_workers];
	tort_me->role = &tort_main_role;
	tort_me->id = tort_nr_workers;
	tort_me->noise = tort_mix(tort_seed) | 1;
	if (!tort_alloc_buffers(tort_me))
		return false;
	tort_check_checker(tort_me);
	return true;
}

static int tort_main(void *unused)
{
	set_user_nice(current, -10);
	if (tort_begin())
		tort_live_on();
	else
		tort_fail(NULL, NULL, "no memory to begin with");
	WRITE_ONCE(tort_stop, true);
	tort_stop_workers();
	if (tort_nr_sides)
		tort_reap_sides(tort_me);
	tort_set_restless(false);
	tort_set_dawdle(false);
	tort_conclude();
	WRITE_ONCE(running, false);
	while (!kthread_should_stop())
		schedule_timeout_interruptible(HZ);
	return 0;
}

static void tort_cleanup(void)
{
	WRITE_ONCE(tort_stop, true);
	if (tort_main_task)
		kthread_stop(tort_main_task);
	if (tort_watch_task)
		kthread_stop(tort_watch_task);
	chm_barrier();
	/* kfree_rcu() may be pending. */
	rcu_barrier();
	tort_free_workers();
	kvfree(tort_history.events);
	kvfree(tort_history.configs);
}

static struct task_struct *tort_run_task(int (*run)(void *arg), const char *name)
{
	struct task_struct *task = kthread_run(run, NULL, "%s", name);

	return IS_ERR(task) ? NULL : task;
}

static int __init tort_init(void)
{
	if (!seconds)
		return 0;
	slice = clamp(slice, 10U, 60000U);
	stat = clamp(stat, 1U, 3600U);
	stall = clamp(stall, 5U, 3600U);
	max_keys = clamp(max_keys, 20U, 1U << 22);
	readers = min(readers, 8U);
	writers = min(writers, 6U);
	tort_hogs = hog;
	tort_seed = seed ?: get_random_u32();
	errors = 0;
	running = true;
	tort_echo("start");
	tort_workers = kvcalloc(TORT_WORKERS, sizeof(*tort_workers), GFP_KERNEL);
	if (!tort_workers)
		return -ENOMEM;
	tort_start_ns = tort_now();
	tort_watch_task = tort_run_task(tort_watch_thread, "chm_tort/watch");
	tort_main_task = tort_run_task(tort_main, "chm_tort/main");
	if (tort_main_task && tort_watch_task)
		return 0;
	tort_cleanup();
	return -ENOMEM;
}

/* If it is built in, it has to come after chm. */
late_initcall(tort_init);
module_exit(tort_cleanup);

MODULE_DESCRIPTION("Torture test of chm");
MODULE_LICENSE("GPL");
