/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Concurrent hash map: lock-free lookups, pairs inline, one buffer
 *
 * Terms, one name each, used everywhere:
 *
 *	map	struct chm: what a user declares and passes around
 *	pair	a key and a value; the map owns a copy of their bytes
 *	table	one buffer: header, chunks, bitmaps of chunks
 *	chunk	a control word and CHM_SLOTS slots (chm_chunk.h)
 *	slot	room for one pair; its tag is EMPTY, DEAD or FULL
 *	home	the chunk where a key's probe path begins
 *	displaced  said of a pair that is not in its home chunk
 *	migrate	copy every pair into another table, step by step, and publish it
 *	retire	hand a table over to be freed after a grace period
 *	walk	an iteration that survives growth (struct chm_iter)
 *
 * Readers call chm_lookup() and friends under rcu_read_lock() and never wait,
 * retry or write.  Writers exclude one another with a spinlock, for a bounded time;
 * they run in any context but NMI, and sleep only if they are passed a gfp that
 * allows it.  Guarantees G1-G12 and their limits are listed in
 * Documentation/chm.rst.
 */
#ifndef CHM_H
#define CHM_H

#include <linux/atomic.h>
#include <linux/build_bug.h>
#include <linux/compiler.h>
#include <linux/gfp.h>
#include <linux/init.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/moduleparam.h>
#include <linux/prefetch.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/types.h>

#include "chm_chunk.h"

struct chm_debugfs;

/*
 * Whether a callback is given, as a constant.  To the kernel's compiler the address
 * of an extern function may be 0, so that !!f is none; but who names one has one.
 */
#define __chm_is_set(f)	(__builtin_constant_p(!(f)) ? !!(f) : true)

/*
 * The layout of maps and tables, and all that is inline, in a number.  A module that
 * was built with another one refers to a symbol that chm.ko lacks, and insmod
 * refuses it.  Lint wants a new number when these change.
 */
#define CHM_ABI			2

extern const char chm_abi_2;
static const void * const __chm_abi __used = &chm_abi_2;

/* Largest key and value, in bytes: larger ones go behind a pointer. */
#define CHM_KEY_MAX	4096
#define CHM_VALUE_MAX	65536

/**
 * enum chm_class - What may happen to the bytes of a value while visible.
 * @CHM_FROZEN: Nothing.  chm_replace() writes a new slot and switches to it
 *	atomically; growth moves the pair bitwise.  The default.
 * @CHM_WORD: chm_replace() overwrites it in place with one store.  1, 2, 4 or
 *	8 bytes, no more than a long, naturally aligned.  Readers take it with
 *	READ_ONCE() or chm_get().
 * @CHM_CLONE: Like @CHM_FROZEN, but growth calls clone() for each pair and
 *	drop() for the old copy, after a grace period.
 * @CHM_CELL: Readers update it in place, by atomic operations that may come in
 *	any order: additions to atomic_long_t (on 64-bit machines atomic64_t)
 *	words, or with merge() whatever that can combine.  What such an
 *	operation returns is worth nothing: see chm_cell_lookup().
 *	chm_replace() exchanges it in place, word by word.
 */
enum chm_class {
	CHM_FROZEN,
	CHM_WORD,
	CHM_CLONE,
	CHM_CELL,
};

/**
 * enum chm_reclaim - Who migrates, and who waits for grace periods.
 * @CHM_DEFERRED: Every writer does a small share of a migration; one worker of the
 *	module does the rest, waits for grace periods and frees.  A writer waits
 *	only if it may sleep and has to.  The default.
 * @CHM_SYNC: The writer that needs a larger table: it copies all pairs, publishes
 *	the table, waits for a grace period and frees the old one, while other
 *	writers wait.  All writers of such a map must be able to sleep.
 */
enum chm_reclaim {
	CHM_DEFERRED,
	CHM_SYNC,
};

/**
 * struct chm_params - What a map is made of.
 *
 * Not copied: must stay as it is until the map is destroyed, and after
 * chm_destroy_async() until chm_barrier().  Best static const.
 *
 * @key_size: Bytes of a key, 1 to CHM_KEY_MAX.  Keys are compared and hashed
 *	as bytes unless @equal and @hash say otherwise: zero their padding.
 * @value_size: Bytes of a value, 0 to CHM_VALUE_MAX.
 * @value_offset: Offset of the value in a slot; 0: right after the key, at
 *	its natural alignment.
 * @slot_size: Bytes of a slot; 0: as needed.  Slots are aligned to 8 bytes as
 *	far as this and @value_offset are multiples of it.
 * @class: What may happen to a value while it is visible.
 * @reclaim: Who waits when a table was replaced.
 * @max_load: Percent of the slots that may hold pairs before the table grows,
 *	25 to 95; 0: 80.
 * @growth: Size of a grown table in percent of the old one, 110 to 400; 0: 200
 *	for tables up to 32 KiB, then 140.  CHM_CELL maps take 200 at least, and
 *	so do others while an earlier table waits for its grace period.
 * @min_entries: The table is made for at least so many pairs, and kept when the
 *	map becomes empty.
 * @max_entries: More pairs than this are refused with -E2BIG; 0: no limit.
 * @debugfs_write: Let root change this map through its debugfs directory, and
 *	make up keys to look up, be there @hash or @equal.
 * @hash: Hash of a key with a seed; NULL: a seeded hash of its bytes, which
 *	changes to SipHash if a fresh seed is no help against an attack.  A good
 *	32-bit hash will do, jhash() for example: chm multiplies the result to
 *	spread it over 64 bits, and mixes the seed in.  A hash that takes @seed into
 *	account can also be defended against chosen keys.  Called in the context of
 *	the lookup, and by writers with the map's spinlock held: it must not
 *	sleep, nor call chm.
 * @equal: Whether two keys are the same; NULL: memcmp().  Equal keys must
 *	have equal hashes.  Called as @hash.
 * @clone: CHM_CLONE only, where it is required: make a second pair of one.
 *	@new_key and @new_value hold a bitwise copy to begin with.  Returns 0,
 *	or a negative errno after undoing its own work, which ends the migration;
 *	it is tried again.  Called with the map's spinlock held and gfp
 *	%GFP_NOWAIT: it must not sleep, nor call chm.
 * @drop: Release what a removed pair owns.  Called once for each pair that
 *	was inserted (or cloned), after a grace period; never for a pair that
 *	chm_take() or chm_swap() handed out.  In CHM_WORD maps the value is the
 *	last one stored, in CHM_CELL maps what all updates have made of it.
 *	Process context, no lock held: in the module's worker, in chm_destroy(),
 *	or in a writer of a CHM_SYNC map.  It may sleep, and write to or destroy
 *	other maps; in CHM_DEFERRED maps it may also write to its own.  It must
 *	not call chm_barrier().  While it sleeps all maps wait for the worker.
 * @merge: CHM_CELL only; NULL: the value is an array of atomic_long_t, and
 *	updates are added up.  Else: bring the updates that led from @snapshot to
 *	@old_now into @new_value, by atomic operations, whatever @new_value is
 *	now.  @old_now may still change: read each of its fields once.  Called
 *	with the map's spinlock held, and in the context of chm_cell_read() with
 *	@new_value pointing to its buffer: it must not sleep, lock, or do anything
 *	else but update @new_value.
 *
 * The callbacks' @ctx is that of chm_init(); NULL for DEFINE_CHM().
 */
struct chm_params {
	u32		key_size;
	u32		value_size;
	u32		value_offset;
	u32		slot_size;
	enum chm_class	class;
	enum chm_reclaim reclaim;
	u32		max_load;
	u32		growth;
	unsigned long	min_entries;
	unsigned long	max_entries;
	bool		debugfs_write;
	u64		(*hash)(const void *key, u64 seed);
	bool		(*equal)(const void *a, const void *b);
	int		(*clone)(void *ctx, void *new_key, void *new_value,
				 const void *key, const void *value, gfp_t gfp);
	void		(*drop)(void *ctx, void *key, void *value);
	void		(*merge)(void *ctx, void *new_value, const void *old_now,
				 const void *snapshot);
};

/**
 * struct chm_stats - A snapshot of a map's figures, see chm_stats().
 * @entries: Pairs in the map.
 * @chunks: Chunks of the active table; 0: the map owns no table.
 * @slots: Slots of the active table.
 * @bytes: Bytes of the active table.
 * @displaced: Pairs outside their home chunk.
 * @longest_probe: Most chunks that an insertion into this table had to visit.
 * @dead: Removed slots whose grace period is not known to be over.
 * @grows: Migrations into a table with more chunks.
 * @shrinks: Migrations into a table with fewer chunks.
 * @rehashes: Migrations into a table with as many chunks.
 * @migrated: Pairs moved by the last migration.
 * @migrated_ns: Nanoseconds from its begin to its end.
 * @migrating: Chunks of the table that is being filled; 0: there is none.
 * @copied: Chunks that were copied into it so far.
 * @snapshot_bytes: Bytes of the snapshot of a migration that is under way, or whose
 *	old table is not freed yet: of CHM_CELL maps; of others only with
 *	CONFIG_CHM_DEBUG.
 * @changed: Pairs that readers wrote to while they were copied, other than in
 *	CHM_CELL maps; only looked for with CONFIG_CHM_DEBUG.
 * @retired_bytes: Bytes of replaced tables that are not freed yet.
 * @gp_waits: Grace periods that writers waited for.
 * @reseeds: Rehashes with a fresh seed because of long probe paths.
 * @failed_allocs: Tables that could not be allocated.
 * @aborts: Migrations that were given up half done.
 */
struct chm_stats {
	unsigned long	entries;
	unsigned long	chunks;
	unsigned long	slots;
	unsigned long	bytes;
	unsigned long	displaced;
	unsigned long	longest_probe;
	unsigned long	dead;
	unsigned long	grows;
	unsigned long	shrinks;
	unsigned long	rehashes;
	unsigned long	migrated;
	u64		migrated_ns;
	unsigned long	migrating;
	unsigned long	copied;
	unsigned long	snapshot_bytes;
	unsigned long	changed;
	unsigned long	retired_bytes;
	unsigned long	gp_waits;
	unsigned long	reseeds;
	unsigned long	failed_allocs;
	unsigned long	aborts;
};

/**
 * struct chm - A concurrent hash map.
 *
 * Embed it, declare it with DEFINE_CHM(), or let DEFINE_CHM_TYPE() wrap it in
 * a type of its own.  128 bytes on 64-bit kernels without lock debugging.
 */
struct chm {
	/* private: use the functions below. */
	struct chm_table __rcu	*tbl;		/* NULL: there are no pairs */
	const struct chm_params	*p;		/* NULL: no map, or destroyed */
	void			*ctx;		/* for the callbacks */

	/* The line of readers: what follows in it changes rarely. */
	struct chm_debugfs	*debugfs;
	struct list_head	work;		/* see struct chm_worker */
	unsigned long		reserved;	/* what chm_reserve() promised */
	struct chm_table	*next;		/* is being filled */

	/* under lock, as reserved and next: */
	spinlock_t		lock;		/* excludes writers */
	u8			phase;		/* enum chm_phase */
	u8			seeding:2;	/* enum chm_seeding, due */
	u8			valid:1;	/* params have been looked at */
	u8			busy:1;		/* CHM_SYNC: held by a writer */
	u8			hash_is_bad:1;	/* no use in another seed */
	u8			kick:1;		/* the worker is to be called */
	u8			dying:1;	/* chm_destroy() is at work */
	u8			hash_told:1;	/* that it is bad */
	u8			clone_failed:1;	/* in the last migration */
	u8			seed_failed:1;	/* no memory for a fresh one */
	u8			claims;		/* to it: reserve and shrink */
	u32			cursor;		/* chunks of tbl copied so far */
	u32			tidy_from;	/* seconds; no tidying before */
	unsigned long		entries;
	struct chm_table	*retired;	/* the newest; see chm_retire() */
	unsigned long		retired_bytes;

	/* events so far */
	u32			grows;
	u32			shrinks;
	u32			rehashes;
	u32			gp_waits;
	u16			reseeds;
	u16			failed_allocs;
	u16			aborts;
	u16			changed;	/* 65535: so many, or more */
#ifdef CONFIG_DEBUG_LOCK_ALLOC
	struct lockdep_map	busy_map;	/* for busy */
#endif
};

#if BITS_PER_LONG == 64 && !defined(CONFIG_DEBUG_SPINLOCK) && \
	!defined(CONFIG_DEBUG_LOCK_ALLOC) && !defined(CONFIG_PREEMPT_RT)
static_assert(sizeof(struct chm) <= 128);
#endif

/*
 * One buffer: this header, nr_chunks chunks, bitmaps (see chm_bitmap_longs()), and
 * a struct chm_snapshots for CHM_CELL, or for all classes with CONFIG_CHM_DEBUG.  A
 * lookup reads the first line of the header and no more.
 */
struct chm_table {
	/* What readers use; constant once published, but for the bitmaps' bits. */
	u32			nr_chunks;
	u32			stride;		/* chm_stride() of the slot size */
	u32			slot_size;	/* the next three: of the params, */
	u16			value_offset;	/* with zeroes filled in */
	u16			slots_offset;	/* chm_slots_offset() */
	u64			seed[2];	/* the second: SipHash only */
	const struct chm_params	*p;		/* the map's, see __chm_lookup() */
	void			*ctx;		/* the map's */
	u32			id;		/* tables count up */
	bool			use_siphash;	/* instead of the default hash */
	bool			owns_full;	/* retired: drop FULL pairs, too */
	u16			pins_1;		/* as pins_0, of generation 1 */
	unsigned long		max_entries;	/* at maximum load */

	/* Writers only, under the map's lock. */
	u32			longest		/* most chunks visited to insert */
				__aligned(L1_CACHE_BYTES);
	u8			dead_gen:1;	/* generation that removals join */
	u8			roomy:1;	/* large because of DEAD slots */
	u8			strayed:1;	/* a pair was put far from home */
	u8			far_gone:1;	/* so far that this must end */
	u8			waited:1;	/* a writer has, for room */
	u8			awaited:1;	/* see chm_seal() */
	u8			look_later;	/* writes until chm_trigger() does */
	u16			pins_0;		/* takers of cells that joined 0 */
	unsigned long		dead[2];	/* DEAD slots by generation */
	unsigned long		displaced;
	unsigned long		cookie;		/* of !dead_gen, or of retirement */
	u64			spread;		/* distances from home, squared */
	u32			unlowered;	/* filter bits, perhaps useless */
	u32			version;	/* changes of control words */

	unsigned long		hard_entries;	/* pairs and DEAD slots, at most */
	u32			sweep;		/* chunk where sweeping goes on */
	u32			writes;		/* to this table */
	u32			fresh;		/* writes before, since the seed */
	u32			built_spread;	/* then, 16ths of the expected */
	u32			built_longest;	/* @longest then */
	u32			far;		/* chunks of long paths, since defended */
	u32			far_enough;	/* for the next defence */
	u32			migrated;	/* pairs */
	u64			migrated_ns;	/* when it began, or how long it took */
	unsigned long		ask_entries;	/* pairs, for the next growth */
	union {
		unsigned long	awaited_cookie;	/* active: see chm_seal() */
		size_t		bytes;		/* retired: counted by its map */
		u64		seq;		/* handed over, see chm_barrier() */
	};
	struct chm_table	*link;		/* retired: the next younger one */
} __aligned(L1_CACHE_BYTES);

/* With longer lines (powerpc64, s390) it takes two, with shorter ones more. */
static_assert(sizeof(struct chm_table) == CHM_HEADER_BYTES ||
	      L1_CACHE_BYTES != 64);

/* The slots follow at chm_slots_offset(). */
struct chm_chunk {
	unsigned long	ctrl;
};

#ifdef CONFIG_DEBUG_LOCK_ALLOC
#define __CHM_BUSY_MAP(map)						\
	.busy_map = STATIC_LOCKDEP_MAP_INIT("chm->busy", &(map)),
#else
#define __CHM_BUSY_MAP(map)
#endif

/**
 * CHM_INITIALIZER() - Static initialiser of a map, see DEFINE_CHM().
 * @name: The map.
 * @params: Pointer to its struct chm_params, of static storage.
 */
#define CHM_INITIALIZER(name, params) {					\
	.p = (params),							\
	.lock = __SPIN_LOCK_UNLOCKED((name).lock),			\
	.work = LIST_HEAD_INIT((name).work),				\
	__CHM_BUSY_MAP(name)						\
}

/**
 * DEFINE_CHM() - Define a map that needs no chm_init().
 * @name: Its name; may be preceded by static.
 * @...: Designated initialisers of struct chm_params.
 *
 * At file scope.  Owns no memory until the first insertion, which reports bad
 * parameters with -EINVAL.  Has no debugfs directory.  A module that unloads still calls
 * chm_destroy().
 */
#define DEFINE_CHM(name, ...)						\
	struct chm name = CHM_INITIALIZER(name,				\
		(&(const struct chm_params) { __VA_ARGS__ }))

/* === Life ================================================================ */

/* What lockdep tells the maps of one chm_init() call site apart by. */
struct chm_lock_keys {
	struct lock_class_key	lock;
	struct lock_class_key	busy;
};

int __chm_init(struct chm *map, const struct chm_params *p, void *ctx,
	       const char *name, struct chm_lock_keys *keys);

/**
 * chm_init() - Make an empty map.
 * @map: The map, uninitialised or destroyed.
 * @params: Must outlive the map, see struct chm_params.
 * @ctx: Passed to the callbacks of @params; may be NULL.
 * @name: Its directory under /sys/kernel/debug/chm/, up to 63 printable
 *	characters without '/'; NULL: none.  If the name is taken or debugfs
 *	fails, the map has no directory; a taken name is reported in the log.
 *
 * Allocates no table: an empty map owns no memory beyond struct chm (G10).
 * Maps made by different calls in the source have lock classes of their own
 * (typed maps: one per type and source file).
 *
 * Context: Any, if @name is NULL; else process context.
 * Return:
 * * %0			- the map is ready
 * * %-EINVAL		- a parameter or the name is out of range
 * * %-ENOMEM		- no memory for what the directory's files need
 */
#define chm_init(map, params, ctx, name)				\
({									\
	static struct chm_lock_keys __chm_keys;				\
									\
	__chm_init(map, params, ctx, name, &__chm_keys);		\
})

/**
 * chm_destroy() - Drop every pair and free all memory.
 * @map: The map.  No other call may run or begin; lookups that are still inside an
 *	RCU reader are waited for.
 *
 * Must be followed by chm_init() before the map is used again: writers are warned once,
 * and get -EINVAL; lookups find nothing.  Where it must not sleep it warns, and does
 * nothing at all.
 *
 * Context: Process context, no RCU reader; also in the drop() of another map.  Waits
 *	for a grace period unless the map never had a table, and until the worker
 *	has ended its turn at the map.
 */
void chm_destroy(struct chm *map);

/**
 * chm_destroy_async() - As chm_destroy(), but wait for nothing.
 * @map: The map.  No other call may run or begin; lookups that are still inside an
 *	RCU reader may go on.
 *
 * @map itself may be freed at once, if no reader looks at it: else after a grace
 * period, with kfree_rcu() for instance.  Its pairs are dropped and its tables
 * freed by the module's worker, after a grace period.  Before the code of drop(),
 * or what its ctx points to, goes away, call chm_barrier().
 *
 * Context: Any but NMI.  A map that has a debugfs directory: process context.
 */
void chm_destroy_async(struct chm *map);

/**
 * chm_barrier() - Wait for all that chm_destroy_async() has handed over so far.
 *
 * When it returns these pairs have been dropped and the tables freed.  A module
 * that uses chm_destroy_async() calls this before it unloads, as it would call
 * rcu_barrier() for call_rcu().
 *
 * Context: Process context, no RCU reader; not in a drop().
 */
void chm_barrier(void);

/* === Look up ============================================================= */

u64 chm_siphash(const struct chm_table *t, const void *key, u32 len);
const void *chm_lookup_displaced(const struct chm_table *t, const void *key,
				 u64 hash, const struct chm_params *p,
				 unsigned long home_ctrl);

/*
 * The first @len bytes at @from, 8 at most, as a number.  Lengths that keys have
 * are one load: what was stored in part and is loaded whole comes late.
 */
static __always_inline u64 chm_load_bytes(const u8 *from, u32 len)
{
	u64 word = 0;
	u32 half;

	if (len == sizeof(half)) {
		memcpy(&half, from, sizeof(half));
		return half;
	}
	if (len == sizeof(word))
		memcpy(&word, from, sizeof(word));
	else
		memcpy(&word, from, len);
	return word;
}

/*
 * Default hash: fold each 8 bytes into the seed, and then once more, since one
 * fold alone keeps the structure of arithmetic progressions.  Folding the 128
 * bits of a product is from Wang Yi's wyhash and Orson Peters' foldhash.  Native
 * byte order; not for use across machines.
 */
static __always_inline u64 chm_hash_bytes(const void *key, u32 len, u64 seed)
{
	const u8 *k = key;

	for (; len > sizeof(u64); len -= sizeof(u64), k += sizeof(u64))
		seed = chm_fold(seed ^ chm_load_bytes(k, sizeof(u64)));
	return chm_fold(chm_fold(seed ^ chm_load_bytes(k, len)));
}

static __always_inline u64 __chm_hash(const struct chm_table *t,
				      const void *key,
				      const struct chm_params *p)
{
	if (p->hash)
		return chm_mix(p->hash(key, t->seed[0]), t->seed[0]);
	if (unlikely(t->use_siphash))
		return chm_siphash(t, key, p->key_size);
	return chm_hash_bytes(key, p->key_size, t->seed[0]);
}

/* Word by word in line: faster than memcmp() for most keys. */
static __always_inline bool chm_equal_bytes(const u8 *a, const u8 *b, u32 len)
{
	if (len > 8 * sizeof(u64))
		return !memcmp(a, b, len);
	for (; len > sizeof(u64); len -= sizeof(u64)) {
		if (chm_load_bytes(a, sizeof(u64)) !=
		    chm_load_bytes(b, sizeof(u64)))
			return false;
		a += sizeof(u64);
		b += sizeof(u64);
	}
	return chm_load_bytes(a, len) == chm_load_bytes(b, len);
}

static __always_inline bool __chm_equal(const void *slot, const void *key,
					const struct chm_params *p)
{
	if (p->equal)
		return p->equal(slot, key);
	return chm_equal_bytes(slot, key, p->key_size);
}

/* Typed maps know the layout of a chunk; for others the table has it ready. */
static __always_inline size_t __chm_stride(const struct chm_table *t,
					   const struct chm_params *p)
{
	return __builtin_constant_p(p->slot_size) ? chm_stride(p->slot_size) :
						    t->stride;
}

static __always_inline size_t __chm_slots_offset(const struct chm_table *t,
						 const struct chm_params *p)
{
	return __builtin_constant_p(p->slot_size) ?
	       chm_slots_offset(p->slot_size) : t->slots_offset;
}

static __always_inline u32 __chm_slot_size(const struct chm_table *t,
					   const struct chm_params *p)
{
	return __builtin_constant_p(p->slot_size) ? p->slot_size : t->slot_size;
}

/* Of typed maps: never 0, since a key has a size. */
static __always_inline u32 __chm_value_offset(const struct chm_table *t,
					      const struct chm_params *p)
{
	return __builtin_constant_p(p->value_offset) ? p->value_offset :
						       t->value_offset;
}

static __always_inline struct chm_chunk *
__chm_chunk(const struct chm_table *t, u32 chunk, const struct chm_params *p)
{
	return (void *)(t + 1) + chunk * __chm_stride(t, p);
}

static __always_inline void *__chm_slot(const struct chm_table *t,
					const struct chm_chunk *c, u32 slot,
					const struct chm_params *p)
{
	return (void *)c + __chm_slots_offset(t, p) +
	       slot * (size_t)__chm_slot_size(t, p);
}

/* The value of @key in @c, or NULL.  @ctrl: its word, loaded once. */
static __always_inline const void *
__chm_search_chunk(const struct chm_table *t, const struct chm_chunk *c,
		   unsigned long ctrl, const void *key, u64 hash,
		   const struct chm_params *p)
{
	unsigned long mask = chm_match(ctrl, chm_tag(hash));
	u32 slot;

	chm_for_each_match(slot, mask) {
		const void *found = __chm_slot(t, c, slot, p);

		if (likely(__chm_equal(found, key, p)))
			return found + __chm_value_offset(t, p);
	}
	return NULL;
}

/* The pair may be in the second line: have it come along with the first. */
static __always_inline void
__chm_prefetch_second(const struct chm_table *t, const struct chm_chunk *c,
		      const struct chm_params *p)
{
	if (__chm_stride(t, p) > L1_CACHE_BYTES)
		prefetch((const void *)c + L1_CACHE_BYTES);
}

/*
 * The value of @key in its home chunk @c, or NULL.  That is final, unless it is
 * NULL and the word @ctrl overflows for @hash.
 */
static __always_inline const void *
__chm_search_home(const struct chm_table *t, const struct chm_chunk *c,
		  const void *key, u64 hash, const struct chm_params *p,
		  unsigned long *ctrl)
{
	/*
	 * O1, O2, O3: acquire.  Pairs with chm_set_ctrl(): whoever sees a FULL
	 * tag sees the bytes of its slot, whoever sees a pair published sees the
	 * overflow filters on the way to it, and whoever sees one DEAD that was
	 * replaced sees the new one.
	 */
	*ctrl = smp_load_acquire(&c->ctrl);
	return __chm_search_chunk(t, c, *ctrl, key, hash, p);
}

static __always_inline struct chm_chunk *
__chm_home_chunk(const struct chm_table *t, u64 hash,
		 const struct chm_params *p)
{
	return __chm_chunk(t, chm_home(hash, t->nr_chunks), p);
}

/* What the home chunk decides is inline; all else is chm_lookup_displaced(). */
static __always_inline const void *
__chm_lookup_hashed(const struct chm_table *t, const void *key, u64 hash,
		    const struct chm_params *p)
{
	const struct chm_chunk *c = __chm_home_chunk(t, hash, p);
	const void *value;
	unsigned long ctrl;

	__chm_prefetch_second(t, c, p);
	value = __chm_search_home(t, c, key, hash, p, &ctrl);
	if (likely(value) || likely(!chm_overflows(ctrl, hash)))
		return value;
	return chm_lookup_displaced(t, key, hash, p, ctrl);
}

/*
 * O6: the pairs of a table were written before it was published.  Pairs with
 * rcu_assign_pointer() in chm_publish().  Any RCU flavour will do: grace
 * periods wait for all of them.
 */
#define __chm_table_rcu(map)						\
	rcu_dereference_check((map)->tbl, rcu_read_lock_any_held())

/*
 * @p: constant for typed maps; NULL: what the table says.  That and not map->p,
 * which the first insertion into a DEFINE_CHM() map writes: only what is reached
 * through the table pointer is ordered after it (O6).
 */
static __always_inline const void *
__chm_lookup(const struct chm *map, const void *key, const struct chm_params *p)
{
	const struct chm_table *t = __chm_table_rcu(map);

	if (unlikely(!t))
		return NULL;
	p = p ?: t->p;
	return __chm_lookup_hashed(t, key, __chm_hash(t, key, p), p);
}

#define __chm_load_as(type, to, from) do {				\
	/* O8: see __chm_copy_value(). */				\
	type __w = smp_load_acquire((const type *)(from));		\
									\
	memcpy(to, &__w, sizeof(__w));					\
} while (0)

/* The words that a CHM_CELL value is copied by: as large as its place allows. */
static __always_inline u32 __chm_cell_word(const struct chm_table *t,
					   const struct chm_params *p)
{
	u32 all = p->value_size | __chm_value_offset(t, p) |
		  __chm_slot_size(t, p);

	return min_t(u32, all & -all, sizeof(long));
}

#define __chm_copy_words(type, to, from, size) do {			\
	const type *__from = (from);					\
	u32 __i;							\
									\
	for (__i = 0; __i < (size) / sizeof(type); __i++) {		\
		type __w = READ_ONCE(__from[__i]);			\
									\
		memcpy((to) + __i * sizeof(type), &__w, sizeof(type));	\
	}								\
} while (0)

/* Copy a CHM_CELL value, whose words may change all the while. */
static __always_inline void __chm_copy_cell(const struct chm_table *t, void *to,
					    const void *from,
					    const struct chm_params *p)
{
	switch (__chm_cell_word(t, p)) {
	case 1:
		__chm_copy_words(u8, to, from, p->value_size);
		break;
	case 2:
		__chm_copy_words(u16, to, from, p->value_size);
		break;
	case 4:
		__chm_copy_words(u32, to, from, p->value_size);
		break;
	default:
		__chm_copy_words(unsigned long, to, from, p->value_size);
	}
}

/* Copy a value out of its slot, where some may change meanwhile. */
static __always_inline void __chm_copy_value(const struct chm_table *t,
					     void *to, const void *from,
					     const struct chm_params *p)
{
	if (p->class == CHM_FROZEN || p->class == CHM_CLONE) {
		memcpy(to, from, p->value_size);
		return;
	}
	if (p->class == CHM_CELL) {
		__chm_copy_cell(t, to, from, p);
		return;
	}
	/*
	 * O8: one load, acquire.  Pairs with chm_store_as(), whose store may
	 * come at any time: two loads could return a mixture, and without the
	 * acquire the reader could miss what was inserted before that store.
	 */
	switch (p->value_size) {
	case 1:
		__chm_load_as(u8, to, from);
		break;
	case 2:
		__chm_load_as(u16, to, from);
		break;
	case 4:
		__chm_load_as(u32, to, from);
		break;
	default:
		__chm_load_as(unsigned long, to, from);
	}
}

static __always_inline bool __chm_get(const struct chm *map, const void *key,
				      void *value, const struct chm_params *p)
{
	const struct chm_table *t;
	const void *found = NULL;

	rcu_read_lock();
	t = __chm_table_rcu(map);
	if (likely(t)) {
		p = p ?: t->p;
		found = __chm_lookup_hashed(t, key, __chm_hash(t, key, p), p);
	}
	if (found)
		__chm_copy_value(t, value, found, p);
	rcu_read_unlock();
	return found;
}

/* Keys whose home chunks chm_lookup_many() has on their way from memory. */
#define CHM_BATCH	32U

/* Of these, keys that are to be looked for further on. */
#define CHM_BEYOND	8U

struct chm_batch {
	u64		hash[CHM_BATCH];
	const struct chm_chunk *home[CHM_BATCH];
	struct {
		u64		hash;
		unsigned long	ctrl;	/* of its home */
		unsigned int	i;
	} beyond[CHM_BEYOND];
	unsigned int	begun, ended;	/* of beyond */
};

static __always_inline void
__chm_prefetch(const struct chm_table *t, const struct chm_chunk *c,
	       const struct chm_params *p)
{
	prefetch(c);
	__chm_prefetch_second(t, c, p);
}

/* Fetch the home chunk of key @i. */
static __always_inline void
__chm_many_fetch(struct chm_batch *b, const struct chm_table *t, const void *keys,
		 unsigned int i, const struct chm_params *p)
{
	u64 hash = __chm_hash(t, keys + i * (size_t)p->key_size, p);
	const struct chm_chunk *home = __chm_home_chunk(t, hash, p);

	__chm_prefetch(t, home, p);
	b->hash[i % CHM_BATCH] = hash;
	b->home[i % CHM_BATCH] = home;
}

/* Look further on for the oldest key of those that are to be. */
static __always_inline void
__chm_many_beyond(struct chm_batch *b, const struct chm_table *t, const void *keys,
		  const void **values, const struct chm_params *p)
{
	typeof(b->beyond[0]) *k = &b->beyond[b->ended++ % CHM_BEYOND];

	values[k->i] = chm_lookup_displaced(t, keys + k->i * (size_t)p->key_size,
					    k->hash, p, k->ctrl);
}

/* Search the home chunk of key @i. */
static __always_inline void
__chm_many_search(struct chm_batch *b, const struct chm_table *t, const void *keys,
		  unsigned int i, const void **values, const struct chm_params *p)
{
	const struct chm_chunk *home = b->home[i % CHM_BATCH];
	u64 hash = b->hash[i % CHM_BATCH];
	unsigned long ctrl;

	values[i] = __chm_search_home(t, home, keys + i * (size_t)p->key_size, hash,
				      p, &ctrl);
	if (likely(values[i]) || likely(!chm_overflows(ctrl, hash)))
		return;
	__chm_prefetch(t, (const void *)home + __chm_stride(t, p), p);
	if (b->begun - b->ended == CHM_BEYOND)
		__chm_many_beyond(b, t, keys, values, p);
	b->beyond[b->begun % CHM_BEYOND].hash = hash;
	b->beyond[b->begun % CHM_BEYOND].ctrl = ctrl;
	b->beyond[b->begun++ % CHM_BEYOND].i = i;
}

/*
 * Chunks are fetched ahead of the key that is searched for, throughout the call; and
 * where a key went on from its home, the next chunk while others are searched for.
 */
static __always_inline unsigned int
__chm_lookup_many(const struct chm *map, const void *keys, unsigned int n,
		  const void **values, const struct chm_params *p)
{
	const struct chm_table *t = __chm_table_rcu(map);
	struct chm_batch b __uninitialized;
	unsigned int found = 0;
	unsigned int i;

	if (unlikely(!t)) {
		memset(values, 0, n * sizeof(*values));
		return 0;
	}
	p = p ?: t->p;
	b.begun = 0;
	b.ended = 0;
	for (i = 0; i < min(n, CHM_BATCH); i++)
		__chm_many_fetch(&b, t, keys, i, p);
	for (i = 0; i < n; i++) {
		__chm_many_search(&b, t, keys, i, values, p);
		if (n - i > CHM_BATCH)
			__chm_many_fetch(&b, t, keys, i + CHM_BATCH, p);
	}
	while (b.begun != b.ended)
		__chm_many_beyond(&b, t, keys, values, p);
	for (i = 0; i < n; i++)
		found += !!values[i];
	return found;
}

/**
 * chm_lookup() - Find the value of a key.
 * @map: The map.
 * @key: @key_size bytes.
 *
 * Wait-free: no store to shared memory, no lock, no retry (G1).  It visits the
 * chunks of the probe path once.  A key that is not in its home chunk has it look
 * back at the chunks before; should writers have put the key into one of these
 * meanwhile, it looks back once more, from there, at fewer chunks: so n chunks
 * cost less than n * n / 2 visits at the very most, and n and a few in practice.
 * Finds every key that is present during the
 * whole call, through replacement, growth, shrinking and slot reuse (G2).
 * What it returns is one pair as one writer passed it and stays readable until
 * rcu_read_unlock() (G3); a later lookup never finds an older value (G4).
 * CHM_WORD and CHM_CELL values may change: read their words with READ_ONCE() or
 * atomic_long_read().
 *
 * Ordering: whoever finds a pair sees all that its writer did before inserting
 * it.  Neither a hit nor a miss is a full barrier.
 *
 * Context: Any, within rcu_read_lock() or another RCU reader, NMI included as
 *	far as @hash and @equal of the map allow.
 * Return: The value inside the map, or NULL if the key is absent.
 */
const void *chm_lookup(const struct chm *map, const void *key);

/**
 * chm_get() - Find a key and copy its value out.
 * @map: The map.
 * @key: @key_size bytes.
 * @value: Receives @value_size bytes if the key is present; else untouched.
 *
 * As chm_lookup(), under an rcu_read_lock() of its own.  In CHM_CELL maps each
 * word is what chm_cell_lookup() would show; chm_cell_read() is exact.
 *
 * Context: Any.
 * Return: Whether the key is present.
 */
bool chm_get(const struct chm *map, const void *key, void *value);

/**
 * chm_lookup_many() - Find many keys, overlapping their cache misses.
 * @map: The map.
 * @keys: @n keys of @key_size bytes each, packed.
 * @n: How many; any number.
 * @values: Receives @n pointers: the value of each key, or NULL.
 *
 * Each key is looked up as by chm_lookup(), all in one table, but in any order:
 * one call may find a pair and miss one that was inserted before it, and, if a
 * key is given twice, find the newer value first.  The chunks of the next 32 keys
 * are prefetched while those before are searched, so that a long call is faster than
 * several short ones.  DPDK's rte_hash_lookup_bulk() prefetches within a batch.
 *
 * Context: As chm_lookup().
 * Return: How many keys are present.
 */
unsigned int chm_lookup_many(const struct chm *map, const void *keys,
			     unsigned int n, const void **values);

/* === Cells =============================================================== */

/*
 * Refuse calls for other classes, when it compiles for typed maps, else when
 * it runs; @p is NULL for untyped maps.
 */
static __always_inline void __chm_check_cell_type(const struct chm_params *p,
						  bool add)
{
	BUILD_BUG_ON_MSG(p->class != CHM_CELL,
			 "chm: only the values of CHM_CELL maps may be updated in place");
	BUILD_BUG_ON_MSG(add && __chm_is_set(p->merge),
			 "chm: only longs can be added to: a map with merge() has a layout of its own");
}

/* Does a value consist of longs, and is there one with this index? */
static __always_inline bool __chm_cell_has(const struct chm_params *p,
					   unsigned int i)
{
	return p->class == CHM_CELL && !p->merge &&
	       i < p->value_size / sizeof(long);
}

static __always_inline int
__chm_cell_add_to(const struct chm_table *t, const void *key, unsigned int i,
		  long n, const struct chm_params *p)
{
	const void *cell;

	if (unlikely(!__chm_cell_has(p, i)))
		return -EINVAL;
	cell = __chm_lookup_hashed(t, key, __chm_hash(t, key, p), p);
	if (!cell)
		return -ENOENT;
	/* O9: ends before the section does; pairs with chm_settle(). */
	atomic_long_add(n, (atomic_long_t *)cell + i);
	return 0;
}

static __always_inline int __chm_cell_add(struct chm *map, const void *key,
					  unsigned int i, long n,
					  const struct chm_params *p)
{
	const struct chm_table *t;
	int ret = -ENOENT;

	rcu_read_lock();
	t = __chm_table_rcu(map);
	if (likely(t)) {
		p = p ?: t->p;
		ret = __chm_cell_add_to(t, key, i, n, p);
	}
	rcu_read_unlock();
	return ret;
}

/**
 * chm_cell_lookup() - Find a value that may be updated in place.
 * @map: A CHM_CELL map; for maps of other classes this is a bug (once warned
 *	of) and no key is found.
 * @key: @key_size bytes.
 *
 * As chm_lookup(), but what it returns may be written to, within the same RCU
 * reader, by operations that are one atomic access each and commute:
 * atomic_long_add() and its relatives, or what merge() can combine.  None of
 * them is ever lost, however the table changes (G9).
 *
 * While a table is replaced, some CPUs update the old copy of the value and
 * some the new one, so what an update returns is not unique, what is read
 * through the pointer can go backwards, and nothing may be decided on it: no
 * tickets, no reference counts, no limits, no bit locks, no cmpxchg, no plain
 * stores.  chm_cell_read() tells exactly what all updates have come to.
 *
 * Context: As chm_lookup().
 * Return: The value inside the map, or NULL if the key is absent.
 */
void *chm_cell_lookup(struct chm *map, const void *key);

/**
 * chm_cell_add() - Add to one word of a value.
 * @map: A CHM_CELL map without merge().
 * @key: @key_size bytes.
 * @i: Which of the longs that the value consists of.
 * @n: What to add; may be negative.
 *
 * chm_cell_lookup() and atomic_long_add() in one; implies no ordering.
 *
 * Context: Any.
 * Return:
 * * %0		- added
 * * %-ENOENT	- the key is absent
 * * %-EINVAL	- there is no such word, or the map is of another kind; may be
 *		  told of only once the map has a table
 */
int chm_cell_add(struct chm *map, const void *key, unsigned int i, long n);

/**
 * chm_cell_upsert_add() - Add to one word of a value, which may begin with it.
 * @map: A CHM_CELL map without merge().
 * @key: @key_size bytes.
 * @i: Which of the longs that the value consists of.
 * @n: What to add; may be negative.
 * @gfp: As for chm_insert().
 *
 * As chm_cell_add(); if the key is absent it is inserted first, with a value of
 * zeroes.  Takes no lock if the key is present.
 *
 * Context: As chm_insert().
 * Return:
 * * %0		- added
 * * %1		- inserted, and added
 * * %-EINVAL	- as chm_cell_add() and chm_insert()
 * * others	- as chm_insert(), but for %-EEXIST
 */
int __must_check chm_cell_upsert_add(struct chm *map, const void *key,
				     unsigned int i, long n, gfp_t gfp);

/**
 * chm_cell_read() - Copy out what the updates of a value have come to.
 * @map: A CHM_CELL map; for maps of other classes this is a bug (once warned
 *	of) and no key is found.
 * @key: @key_size bytes.
 * @value: Receives @value_size bytes if the key is present; else untouched.  In
 *	maps with merge() aligned as the value's type is.
 *
 * Exact, also while the table is being replaced: each word has all updates that
 * ended before this call began, each once, and of those that go on meanwhile
 * some.  So a word that is only added to never goes backwards from one call to
 * another.  Which some is not said: +1 by one thread and then -1 by another, both
 * during the call, may read as -1.  Words are read one after the other.
 *
 * Reads again while the old copy of a word is being merged into the new one, or
 * chm_replace() exchanges the word, and waits for that one addition, exchange or
 * call of merge(), which another CPU makes with interrupts off.
 *
 * Context: Any but NMI.
 * Return: Whether the key is present.
 */
bool chm_cell_read(const struct chm *map, const void *key, void *value);

/* === Update ============================================================== */

/*
 * All of these may be called in any context but NMI, also inside rcu_read_lock(),
 * with interrupts off and under spinlocks, unless @gfp allows to block
 * (gfpflags_allow_blocking()): then from process context outside RCU readers.  On
 * PREEMPT_RT: not in hard interrupts, nor under raw spinlocks.  A map's spinlock is
 * taken with interrupts off, for a bounded number of chunks.  CHM_SYNC maps: process
 * context only.
 *
 * A call that would have to sleep where it may not is reported once in the kernel
 * log, on every kernel that can tell, and fails with -EDEADLK.
 *
 * A caller that holds a lock of the scheduler or of printk() must have interrupts
 * off, and give a @gfp without __GFP_KSWAPD_RECLAIM: then the worker is woken up from
 * an interrupt, and kswapd is not.  Not for CHM_CLONE maps: clone() allocates.  A
 * caller that may block can wait for the worker, and so for the drop() of any map: it
 * must not hold a lock that one of these takes.
 *
 * While chm_destroy() drops pairs, what would insert fails with -ESHUTDOWN: a drop()
 * may write to its own map.
 */

/**
 * chm_insert() - Add a pair whose key is absent.
 * @map: The map.
 * @key: @key_size bytes, copied.
 * @value: @value_size bytes, copied; NULL only if that is 0.
 * @gfp: For the new table, should one be needed.
 *
 * On failure the map is as it was (G6) and the caller still owns what the pair
 * refers to.  Cannot fail with -ENOMEM within what chm_reserve() promised (G7).
 *
 * A growth is begun well before the table is full, and every writer copies a few
 * chunks.  Only if the worker gets no memory in time does the table fill up (to
 * half way between max_load and 100 percent).  Then a caller who may block looks for
 * memory itself and finishes the migration, or waits for a grace period.  Another one
 * tries to allocate the table, and copies up to 4096 chunks, some times over; it gets
 * -ENOMEM if that is not enough.  In CHM_CELL maps no table can follow the last one
 * before the grace period that their cells settle in is over: reserve what callers
 * who must not sleep will insert meanwhile.
 *
 * Ordering: all that the caller did before is visible to any reader that finds the
 * pair.
 *
 * Context: Any but NMI; see above.
 * Return:
 * * %0		- inserted
 * * %-EEXIST	- the key is present
 * * %-ENOMEM	- the table is full and another one could not be had.  The worker
 *		  has been asked for one: a later try may succeed.
 * * %-E2BIG	- the map is at @max_entries, or at what chm can address
 * * %-EINVAL	- DEFINE_CHM() with bad parameters, or no value, or no map
 * * %-EDEADLK	- @gfp allows to block, and the caller must not
 */
int __must_check chm_insert(struct chm *map, const void *key,
			    const void *value, gfp_t gfp);

/**
 * chm_get_or_insert() - Insert a pair, or copy out the value that is present.
 * @map: The map.
 * @key: As for chm_insert().
 * @value: The value to insert.  If the key is present, receives its value instead.
 * @gfp: As for chm_insert().
 *
 * Context: As chm_insert().
 * Return:
 * * %1		- inserted
 * * %0		- the key was present; @value is what it had, as chm_get() copies
 * * others	- as chm_insert(), but for %-EEXIST
 */
int __must_check chm_get_or_insert(struct chm *map, const void *key,
				   void *value, gfp_t gfp);

/**
 * chm_lookup_or_insert() - Find the value of a key, which is inserted if absent.
 * @map: The map.
 * @key: As for chm_insert().
 * @value: The value to insert.
 * @gfp: As for chm_insert(); must not allow to block.
 *
 * Compare with @value's bytes, or use chm_get_or_insert(), to learn which it was.
 *
 * Context: As chm_insert(), within rcu_read_lock().
 * Return: The value inside the map, valid until rcu_read_unlock(); or an ERR_PTR()
 * as chm_insert(), but for %-EEXIST.
 */
const void *chm_lookup_or_insert(struct chm *map, const void *key,
				 const void *value, gfp_t gfp);

/**
 * chm_insert_many() - Add many pairs whose keys are absent.
 * @map: The map.
 * @keys: @n keys of @key_size bytes each, packed.
 * @values: @n values of @value_size bytes each, packed; NULL only if that is 0.
 * @n: How many; any number.
 * @gfp: As for chm_insert().
 * @err: Receives 0, or why the first pair that is not counted was not inserted.
 *
 * As chm_insert() for one pair after the other, until one fails; with fewer
 * rounds of the map's lock, and with the chunks of later pairs prefetched.
 *
 * Context: As chm_insert().
 * Return: How many pairs were inserted, all before the one that failed.
 */
unsigned long chm_insert_many(struct chm *map, const void *keys,
			      const void *values, unsigned long n, gfp_t gfp,
			      int *err);

/**
 * chm_replace() - Give a key that is present another value.
 * @map: The map.
 * @key: @key_size bytes, copied (CHM_WORD, CHM_CELL: not used again).
 * @value: @value_size bytes, copied.
 * @gfp: For a new table, should the old one have no free slot where it counts.
 *
 * Readers find the old pair or the new one, never neither, never a mixture.
 * The old pair is dropped after a grace period; in CHM_WORD maps the word is
 * overwritten in place and nothing is dropped.
 *
 * In CHM_CELL maps each word is exchanged in place, one after the other, and
 * nothing is dropped.  An update of a word comes either before, and is
 * overwritten, or after, and is added to the new word; none is applied to a word
 * that is no longer there.  Not for maps with merge(), whose words chm does not
 * know.
 *
 * Context: As chm_insert().
 * Return:
 * * %0		- replaced
 * * %-ENOENT	- the key is absent
 * * %-EOPNOTSUPP - a CHM_CELL map with merge()
 * * others	- as chm_insert(), but for %-EEXIST
 */
int __must_check chm_replace(struct chm *map, const void *key,
			     const void *value, gfp_t gfp);

/**
 * chm_replace_if() - Give a key another value if it has the expected one.
 * @map: The map; not of class CHM_CELL.
 * @key: As for chm_replace().
 * @expected: @value_size bytes, compared with those of the present value.
 * @value: As for chm_replace().
 * @gfp: As for chm_replace().
 *
 * Context: As chm_insert().
 * Return:
 * * %0		- replaced
 * * %-ENOENT	- the key is absent
 * * %-ESTALE	- it has another value
 * * %-EOPNOTSUPP - a CHM_CELL map
 * * %-EINVAL	- no @expected, or as chm_insert()
 * * others	- as chm_insert(), but for %-EEXIST
 */
int __must_check chm_replace_if(struct chm *map, const void *key,
				const void *expected, const void *value,
				gfp_t gfp);

/**
 * chm_upsert() - Insert a pair, or replace the one with its key.
 * @map: The map.
 * @key: As for chm_insert() or chm_replace().
 * @value: As for chm_insert() or chm_replace().
 * @gfp: As for chm_insert() or chm_replace().
 *
 * Context: As chm_insert().
 * Return:
 * * %0		- replaced
 * * %1		- inserted
 * * %-EOPNOTSUPP - present, in a CHM_CELL map with merge()
 * * others	- as chm_insert(), but for %-EEXIST
 */
int __must_check chm_upsert(struct chm *map, const void *key,
			    const void *value, gfp_t gfp);

/**
 * chm_swap() - Insert a pair, or exchange the one with its key.
 * @map: The map; not of class CHM_CELL.
 * @key: As for chm_upsert().
 * @value: As for chm_upsert().
 * @old_key: Receives the key of the old pair, as it was stored; NULL: not wanted.
 * @old_value: Receives its value.
 * @gfp: As for chm_upsert().
 *
 * The old pair is the caller's: drop() will not run for it, and as with
 * chm_take(), what it refers to must outlive a grace period.  In CHM_WORD maps the
 * key that is stored stays in the map, and is the map's.
 *
 * Context: As chm_insert().
 * Return:
 * * %1		- inserted; @old_key and @old_value are untouched
 * * %0		- exchanged
 * * %-EOPNOTSUPP - a CHM_CELL map
 * * others	- as chm_insert(), but for %-EEXIST
 */
int __must_check chm_swap(struct chm *map, const void *key, const void *value,
			  void *old_key, void *old_value, gfp_t gfp);

/**
 * chm_remove() - Remove a key.
 * @map: The map.
 * @key: @key_size bytes.
 *
 * Readers that found the pair may go on reading it until rcu_read_unlock();
 * drop() runs after a grace period, in the module's worker.  Allocates nothing.
 * Allowed inside chm_for_each_rcu() and between calls of chm_iter_next().
 *
 * Context: Any but NMI; CHM_SYNC: process context, outside RCU readers.
 * Return:
 * * %0		- removed
 * * %-ENOENT	- the key is absent
 * * %-EINVAL	- no map
 */
int chm_remove(struct chm *map, const void *key);

/**
 * chm_remove_if() - Remove a key if it has the expected value.
 * @map: The map; not of class CHM_CELL.
 * @key: @key_size bytes.
 * @expected: @value_size bytes, compared with those of the present value.
 *
 * As chm_remove().  With a pointer as the value, this removes an object and not
 * another one that has come under the same key.
 *
 * Context: As chm_remove().
 * Return:
 * * %0		- removed
 * * %-ENOENT	- the key is absent
 * * %-ESTALE	- it has another value
 * * %-EOPNOTSUPP - a CHM_CELL map
 * * %-EINVAL	- no map, or no @expected
 */
int chm_remove_if(struct chm *map, const void *key, const void *expected);

/**
 * chm_take() - Remove a key and hand its pair to the caller.
 * @map: The map.
 * @key: @key_size bytes.
 * @old_key: Receives the key as it was stored; NULL: not wanted.
 * @value: Receives @value_size bytes; NULL: not wanted.
 *
 * drop() will not run for this pair: what it owns is the caller's now.  Readers
 * may still look at the pair until a grace period is over, so what it refers to
 * must outlive one (kfree_rcu(), synchronize_rcu()).
 *
 * In CHM_CELL maps readers may also still update it: so this waits for a grace
 * period, and for the worker if a migration is to be merged, and @value has every
 * update.
 *
 * Context: As chm_remove(); CHM_CELL: process context, outside RCU readers.
 * Return:
 * * %0		- removed, @old_key and @value are valid
 * * %-ENOENT	- the key is absent
 * * %-EINVAL	- no map
 * * %-EDEADLK	- a CHM_CELL map, where the caller must not sleep
 */
int chm_take(struct chm *map, const void *key, void *old_key, void *value);

/**
 * chm_reserve() - Make room ahead of time.
 * @map: The map.
 * @n: How many pairs the map shall be able to hold in all.
 * @gfp: For the new table, should one be needed; must allow to block.
 *
 * From then on @n pairs in all fit without an allocation that has to succeed,
 * also after removals (G7): in callers who must not sleep, as long as no more than
 * @n / 8 pairs were removed or replaced within the last two grace periods.  That is
 * with a max_load of 80; with 90, @n / 18, and with 95, @n / 38.
 * Lasts until chm_shrink() or the next chm_reserve().
 *
 * Context: Process context, outside RCU readers.  May wait for a grace period.
 * Return:
 * * %0		- done
 * * %-ENOMEM	- no memory, or clone() has failed; the map is as it was
 * * %-E2BIG	- more than @max_entries, or than chm can address
 * * %-EBUSY	- the caller is a drop(), and what it would wait for is the worker
 * * %-EINVAL	- as chm_insert()
 * * %-EDEADLK	- the caller must not sleep
 */
int __must_check chm_reserve(struct chm *map, unsigned long n, gfp_t gfp);

/**
 * chm_shrink() - Give back what the pairs do not need.
 * @map: The map.
 * @gfp: For the smaller table; must allow to block.
 *
 * Ends what chm_reserve() promised, also if it fails.  An empty map then owns no
 * table.  A map that is used to less than an eighth also shrinks by itself, and one
 * that stays empty for a grace period or two frees its table; but both keep what
 * was reserved, and @min_entries.
 *
 * Context: As chm_reserve().
 * Return:
 * * %0		- the table fits the pairs
 * * others	- as chm_reserve()
 */
int chm_shrink(struct chm *map, gfp_t gfp);

/**
 * chm_clear() - Remove every pair.
 * @map: The map.
 *
 * Publishes an empty table, or none, in one store: a lookup that begins later finds
 * no pair that was there before.  The worker drops the pairs after a grace period.
 * Takes the same time for any number of pairs; only if something was reserved, and
 * there is no memory for another table of that size, each pair is removed, a few at
 * a time, as by chm_remove().
 *
 * Context: As chm_remove().
 */
void chm_clear(struct chm *map);

/* --- Strings as keys --- */

/**
 * chm_hash_string() - A hash() for keys that are pointers to strings.
 * @key: The key: a pointer to a const char *, whose string ends with a 0.
 * @seed: The table's.
 *
 * SipHash of the string, as strong as @seed is secret.  For maps whose key type is
 * a char *.  Arrays of char that are padded with zeroes need no hash().
 *
 * Context: Any.
 * Return: The hash.
 */
u64 chm_hash_string(const void *key, u64 seed);

/**
 * chm_equal_string() - The equal() that goes with chm_hash_string().
 * @a: A key.
 * @b: Another.
 *
 * Context: Any.
 * Return: Whether their strings are the same.
 */
bool chm_equal_string(const void *a, const void *b);

/* === Look at the whole map =============================================== */

/**
 * chm_count() - How many pairs the map holds.
 * @map: The map.
 *
 * Context: Any.
 * Return: The number at some moment during the call.
 */
static inline unsigned long chm_count(const struct chm *map)
{
	return READ_ONCE(map->entries);
}

/**
 * chm_stats() - Take a snapshot of the map's figures.
 * @map: The map.
 * @s: Receives them.
 *
 * Costs a few loads; looks at no pair.
 *
 * Context: Any but NMI.
 */
void chm_stats(const struct chm *map, struct chm_stats *s);

/**
 * chm_verify() - Check every invariant of the map.
 * @map: The map.
 *
 * Tags against hashes, reachability of each pair along its probe path,
 * overflow filters, number of pairs and of DEAD slots, duplicate keys, the bitmaps
 * of chunks, the retired tables, and a table that is being filled against what was
 * copied into it.  What is wrong goes to the kernel log.
 *
 * Looks at some chunks in each hold of the map's spinlock and begins again if a writer
 * has changed the map.  After some attempts it holds the lock for the whole of a small
 * table; in a large one it goes on and checks each pair, but no sums: the numbers of
 * pairs and of DEAD slots, and whether filters have bits too many.
 *
 * Context: Process context, outside RCU readers.
 * Return:
 * * %0		- all well
 * * %-EUCLEAN	- at least one invariant is broken
 * * %-EBUSY	- the table was replaced again and again; nothing is known
 * * %-ENOMEM	- no memory for the check; nothing is known
 */
int __must_check chm_verify(const struct chm *map);

/* So many orders of hashes can a walk go through, see chm_iter_next(). */
#define CHM_ORDERS	4U

/* A prefix of the order that a seed gives all keys: up to and with this pair. */
struct chm_prefix {
	u64	seed[2];
	u64	hash;
	u64	fingerprint;	/* of the key: tells equal hashes apart */
	bool	use_siphash;
	bool	started;	/* else nothing */
};

/* Where a walk stands: the union of these prefixes is behind it. */
struct chm_cursor {
	struct chm_prefix	at[CHM_ORDERS];	/* the first is of the latest seed */
	u8			orders;
	bool			ended;
	bool			stale;		/* too many seeds: ended early */
};

/* Pairs of one home that a walk looks ahead at. */
#define CHM_AHEAD	8U

/* The first of them behind the cursor; good while no slot is reused. */
struct chm_ahead {
	struct {
		u64	hash;
		u32	chunk;
		u8	slot;
		bool	tied;		/* another pair has this hash */
	} pairs[CHM_AHEAD];
	unsigned long	cookie;		/* of the table, when they were found */
	u32		table;		/* which one */
	u32		home;
	u8		n;
	u8		next;		/* of these, to be given */
	bool		sorted;
	bool		more;		/* of this home, behind these */
};

/**
 * struct chm_iter - A walk over a map, see chm_iter_init().
 *
 * A plain struct that may be copied, stored, and forgotten: it holds nothing.  It is
 * too large for the ctx of a netlink dump, which may point to one.
 */
struct chm_iter {
	/* private: use the functions below. */
	struct chm		*map;
	struct chm_cursor	cursor;
	struct chm_ahead	ahead;
};

/**
 * chm_iter_init() - Begin a walk.
 * @it: The walk.
 * @map: The map; must not be destroyed before the last chm_iter_next().
 *
 * Visits every key that is present throughout exactly once, any other at most
 * once, across any number of growths and shrinks (G8).  The order is that of the
 * hashes.  CHM_CELL values are copied as by chm_get().
 *
 * The walk pins nothing, so it can be left unfinished.  If the map takes a fresh
 * seed meanwhile, the walk goes on in the new order, and passes over what it has
 * visited in the old ones.  It remembers CHM_ORDERS of them.  After more, which
 * takes that many floods, it ends early and chm_iter_stale() says so.
 *
 * In maps with a custom @equal this holds for keys that are replaced by equal ones
 * with other bytes as well, if @hash depends on its seed, as jhash() does.  With a
 * hash that does not, such a key may come twice, or not at all.  Keys that are not
 * equal must not have equal hashes under every seed: only one of them would come.
 *
 * Context: Any.
 */
void chm_iter_init(struct chm_iter *it, struct chm *map);

/**
 * chm_iter_next() - Copy out the next pair of a walk.
 * @it: The walk.
 * @key: Receives @key_size bytes; NULL: not wanted.  Undefined at the end.
 * @value: Receives @value_size bytes; NULL: not wanted.  Undefined at the end.
 *
 * Is in an RCU reader for no more than 64 chunks at a time; for more, up to twice a
 * probe path, if removals have disturbed it there.
 *
 * Context: Any; between calls the caller may sleep and change the map.
 * Return: Whether there was a pair; false from then on.
 */
bool chm_iter_next(struct chm_iter *it, void *key, void *value);

/**
 * chm_iter_stale() - Has a walk ended before it saw all?
 * @it: The walk; chm_iter_next() has returned false.
 *
 * Context: Any.
 * Return: Whether the map has changed its seed too often.
 */
static inline bool chm_iter_stale(const struct chm_iter *it)
{
	return it->cursor.stale;
}

/**
 * struct chm_pos - Position of chm_for_each_rcu().
 */
struct chm_pos {
	/* private: use chm_for_each_rcu(). */
	const struct chm_table	*tbl;
	struct chm_cursor	cursor;
	struct chm_ahead	ahead;
	const void		*key;
	const void		*value;
};

bool chm_pos_first(struct chm_pos *pos, const struct chm *map);
bool chm_pos_next(struct chm_pos *pos);

/**
 * chm_for_each_rcu() - Visit the pairs of one table in place.
 * @map: The map.
 * @pos: A struct chm_pos.
 * @k: Pointer to const, receives the key inside the map.
 * @v: Pointer to const, receives the value inside the map.
 *
 * Each key at most once; each that is present throughout exactly once.
 * Writers go on, but what happens in a newer table is not seen.  The pointers
 * are valid until rcu_read_unlock().
 *
 * Context: Within rcu_read_lock() from before the loop until after it.
 */
#define chm_for_each_rcu(map, pos, k, v)				\
	for (bool __more = chm_pos_first(&(pos), map);			\
	     __more && ((k) = (pos).key, (v) = (pos).value, true);	\
	     __more = chm_pos_next(&(pos)))

/* === Typed maps ========================================================== */

/* Class rules that the compiler can check once sizes are constants. */
static __always_inline void __chm_check_type(const struct chm_params *p,
					     size_t key_size)
{
	BUILD_BUG_ON_MSG(p->key_size != key_size,
			 "chm: a key is the whole of its type: a prefix takes a type of its own");
	BUILD_BUG_ON_MSG(p->key_size > CHM_KEY_MAX, "chm: key too large");
	BUILD_BUG_ON_MSG(p->value_size > CHM_VALUE_MAX, "chm: value too large");
	BUILD_BUG_ON_MSG(p->class == CHM_WORD &&
			 (p->value_size > sizeof(long) || !p->value_size ||
			  (p->value_size & (p->value_size - 1))),
			 "chm: a CHM_WORD value must be one machine word");
	BUILD_BUG_ON_MSG(p->class == CHM_CLONE && !__chm_is_set(p->clone),
			 "chm: CHM_CLONE needs clone()");
	BUILD_BUG_ON_MSG(p->class == CHM_CELL &&
			 (!p->value_size ||
			  (!__chm_is_set(p->merge) && p->value_size % sizeof(long))),
			 "chm: a CHM_CELL value without merge() is made of longs");
}

/* Whether @type is @t or an array of it. */
#define __chm_is(type, t)						\
	(__same_type(type, t) || __same_type(type, t[]))

#define __chm_is_volatile(t)						\
	__same_type(typeof(t) *, typeof(t) __volatile__ *)

#define __chm_is_counter(type)						\
	(__chm_is(type, atomic_t) || __chm_is(type, atomic64_t))

/* Can such words be added up as longs? */
#define __chm_is_long(type)						\
	(__chm_is(type, atomic_long_t) ||				\
	 (sizeof(long) == 8 && __chm_is(type, atomic64_t)))

/*
 * What a map cannot hold, as far as the compiler can tell: what a type
 * contains is for scripts/chm-freeze to find.
 */
#define __chm_is_fixed(type)						\
	(__chm_is(type, refcount_t) ||					\
	 __chm_is(type, spinlock_t) || __chm_is(type, raw_spinlock_t) ||\
	 __chm_is(type, rwlock_t) || __chm_is(type, struct mutex) ||	\
	 __chm_is(type, struct list_head) ||				\
	 __chm_is(type, struct hlist_node) ||				\
	 __chm_is(type, struct rcu_head) ||				\
	 __chm_is(type, struct work_struct) || __chm_is(type, struct chm))

/*
 * Checks a map type where it is defined, and leaves a line about it in the
 * module's .modinfo, which is not loaded.  Its parameter brings the types of
 * key and value into the debug information.  scripts/chm-freeze reads both.
 */
#define __CHM_TRACE_TYPE(name, ktype, vtype)				\
static_assert(!__chm_is_fixed(ktype) && !__chm_is_counter(ktype) &&	\
	      !__chm_is_volatile(ktype),				\
	      "chm: a key must not change in place: put it behind a pointer");\
static_assert(!__chm_is_fixed(vtype),					\
	      "chm: a value must not change or be bound in place: put it behind a pointer");\
									\
static void __init __used name##_chm_type(const struct name##_slot *slot)\
{									\
	BUILD_BUG_ON_MSG(name##_params.class != CHM_CELL &&		\
			 (__chm_is_counter(vtype) ||			\
			  __chm_is_volatile(vtype)),			\
			 "chm: a value that changes in place takes CHM_CELL");\
	BUILD_BUG_ON_MSG(name##_params.class == CHM_CELL &&		\
			 !__chm_is_set(name##_params.merge) &&		\
			 __chm_is_counter(vtype) && !__chm_is_long(vtype),\
			 "chm: a CHM_CELL value without merge() is made of longs");\
	__chm_check_type(&name##_params, sizeof(ktype));		\
	asm(".pushsection .modinfo, \"a\"\n\t"				\
	    ".ascii \"" __MODULE_INFO_PREFIX "chm_type=" #name "\"\n\t"	\
	    ".ascii \" class=\"\n\t.byte 48 + %c0\n\t"			\
	    ".ascii \" equal=\"\n\t.byte 48 + %c1\n\t"			\
	    ".ascii \" merge=\"\n\t.byte 48 + %c2, 0\n\t"		\
	    ".popsection"						\
	    : : "i" (name##_params.class),				\
		"i" (__chm_is_set(name##_params.equal)),		\
		"i" (__chm_is_set(name##_params.merge)));		\
}

/**
 * CHM_ASSUME_FROZEN() - Vouch for a type that scripts/chm-freeze rejects.
 * @type: The type as it is declared, for instance struct foo or foo_t.
 * @reason: String: why nothing writes to it while it is in a map, and why it
 *	may be moved.
 *
 * The checker then accepts this type anywhere in the keys and values of the
 * module and lists each use with the reason.  At file scope; no code.
 */
#define CHM_ASSUME_FROZEN(type, reason)					\
	MODULE_INFO(chm_frozen, #type ": " reason)

/**
 * DECLARE_CHM_TYPE() - Declare a map type in a header.
 * @name: Names the type, struct name.
 *
 * For structures that embed such a map.  The file that uses it has
 * DEFINE_CHM_FUNCTIONS() in place of DEFINE_CHM_TYPE().
 */
#define DECLARE_CHM_TYPE(name)						\
struct name {								\
	struct chm map;							\
}

/**
 * DEFINE_CHM_TYPE() - Define a map type for one key and one value type.
 * @name: Names the type, struct name, and prefixes its functions.
 * @ktype: Type of the keys; without padding, or with its padding zeroed.  May be an
 *	array, char[16] for instance, of which all bytes count.
 * @vtype: Type of the values.
 * @...: Designated initialisers of struct chm_params, but for the sizes.
 *
 * For each chm_foo() there is a name_foo() that takes struct name and pointers
 * to these types.  Lookups are inlined and fold to code for this key, value
 * and hash.  Everything else is as documented for chm_foo().
 *
 * Example::
 *
 *	DEFINE_CHM_TYPE(flow_map, struct flow_key, struct flow_info,
 *			.max_entries = 1 << 20);
 *	static DEFINE_CHM_OF(flow_map, flows);
 */
#define DEFINE_CHM_TYPE(name, ktype, vtype, ...)			\
struct name {								\
	struct chm map;							\
};									\
									\
DEFINE_CHM_FUNCTIONS(name, ktype, vtype, __VA_ARGS__)

/**
 * DEFINE_CHM_FUNCTIONS() - Define the functions of a declared map type.
 * @name: As DECLARE_CHM_TYPE() has it.
 * @ktype: As for DEFINE_CHM_TYPE().
 * @vtype: As for DEFINE_CHM_TYPE().
 * @...: As for DEFINE_CHM_TYPE().
 */
#define DEFINE_CHM_FUNCTIONS(name, ktype, vtype, ...)			\
struct name##_slot {							\
	typeof(ktype) key;						\
	typeof(vtype) value;						\
};									\
									\
static_assert(__alignof__(struct name##_slot) <= CHM_SLOT_ALIGN,	\
	      "chm: keys and values are aligned to 8 bytes at most");	\
									\
static const struct chm_params name##_params = {			\
	.key_size = sizeof(ktype),					\
	.value_size = sizeof(vtype),					\
	.value_offset = offsetof(struct name##_slot, value),		\
	.slot_size = sizeof(struct name##_slot),			\
	__VA_ARGS__							\
};									\
									\
__CHM_TRACE_TYPE(name, ktype, vtype)					\
									\
static __always_inline int name##_init(struct name *m, void *ctx,	\
				       const char *dir)			\
{									\
	return chm_init(&m->map, &name##_params, ctx, dir);		\
}									\
									\
static __always_inline void name##_destroy(struct name *m)		\
{									\
	chm_destroy(&m->map);						\
}									\
									\
static __always_inline void name##_destroy_async(struct name *m)	\
{									\
	chm_destroy_async(&m->map);					\
}									\
									\
static __always_inline typeof(vtype) const *				\
name##_lookup(const struct name *m, typeof(ktype) const *key)		\
{									\
	return __chm_lookup(&m->map, key, &name##_params);		\
}									\
									\
static __always_inline bool						\
name##_get(const struct name *m, typeof(ktype) const *key, typeof(vtype) *value)	\
{									\
	return __chm_get(&m->map, key, value, &name##_params);		\
}									\
									\
static __always_inline unsigned int					\
name##_lookup_many(const struct name *m, typeof(ktype) const *keys, unsigned int n,	\
		   typeof(vtype) const **values)			\
{									\
	return __chm_lookup_many(&m->map, keys, n,			\
				 (const void **)values, &name##_params);	\
}									\
									\
static __always_inline typeof(vtype) *					\
name##_cell_lookup(struct name *m, typeof(ktype) const *key)		\
{									\
	__chm_check_cell_type(&name##_params, false);			\
	return (typeof(vtype) *)__chm_lookup(&m->map, key, &name##_params);	\
}									\
									\
static __always_inline bool						\
name##_cell_read(const struct name *m, typeof(ktype) const *key, typeof(vtype) *value)	\
{									\
	__chm_check_cell_type(&name##_params, false);			\
	return chm_cell_read(&m->map, key, value);			\
}									\
									\
static __always_inline int						\
name##_cell_add(struct name *m, typeof(ktype) const *key, unsigned int i, long n)	\
{									\
	__chm_check_cell_type(&name##_params, true);			\
	return __chm_cell_add(&m->map, key, i, n, &name##_params);	\
}									\
									\
static __always_inline int __must_check					\
name##_cell_upsert_add(struct name *m, typeof(ktype) const *key,	\
		       unsigned int i, long n, gfp_t gfp)		\
{									\
	__chm_check_cell_type(&name##_params, true);			\
	return chm_cell_upsert_add(&m->map, key, i, n, gfp);		\
}									\
									\
static __always_inline int __must_check					\
name##_insert(struct name *m, typeof(ktype) const *key, typeof(vtype) const *value,	\
	      gfp_t gfp)						\
{									\
	return chm_insert(&m->map, key, value, gfp);			\
}									\
									\
static __always_inline int __must_check					\
name##_replace(struct name *m, typeof(ktype) const *key, typeof(vtype) const *value,	\
	       gfp_t gfp)						\
{									\
	return chm_replace(&m->map, key, value, gfp);			\
}									\
									\
static __always_inline int __must_check					\
name##_upsert(struct name *m, typeof(ktype) const *key, typeof(vtype) const *value,	\
	      gfp_t gfp)						\
{									\
	return chm_upsert(&m->map, key, value, gfp);			\
}									\
									\
static __always_inline int __must_check					\
name##_get_or_insert(struct name *m, typeof(ktype) const *key,		\
		     typeof(vtype) *value, gfp_t gfp)			\
{									\
	return chm_get_or_insert(&m->map, key, value, gfp);		\
}									\
									\
static __always_inline typeof(vtype) const *				\
name##_lookup_or_insert(struct name *m, typeof(ktype) const *key,	\
			typeof(vtype) const *value, gfp_t gfp)		\
{									\
	return chm_lookup_or_insert(&m->map, key, value, gfp);		\
}									\
									\
static __always_inline unsigned long					\
name##_insert_many(struct name *m, typeof(ktype) const *keys,		\
		   typeof(vtype) const *values, unsigned long n,	\
		   gfp_t gfp, int *err)					\
{									\
	return chm_insert_many(&m->map, keys, values, n, gfp, err);	\
}									\
									\
static __always_inline int __must_check					\
name##_replace_if(struct name *m, typeof(ktype) const *key,		\
		  typeof(vtype) const *expected,			\
		  typeof(vtype) const *value, gfp_t gfp)		\
{									\
	return chm_replace_if(&m->map, key, expected, value, gfp);	\
}									\
									\
static __always_inline int __must_check					\
name##_swap(struct name *m, typeof(ktype) const *key,			\
	    typeof(vtype) const *value, typeof(ktype) *old_key,		\
	    typeof(vtype) *old_value, gfp_t gfp)			\
{									\
	return chm_swap(&m->map, key, value, old_key, old_value, gfp);	\
}									\
									\
static __always_inline int						\
name##_remove(struct name *m, typeof(ktype) const *key)			\
{									\
	return chm_remove(&m->map, key);				\
}									\
									\
static __always_inline int						\
name##_remove_if(struct name *m, typeof(ktype) const *key,		\
		 typeof(vtype) const *expected)				\
{									\
	return chm_remove_if(&m->map, key, expected);			\
}									\
									\
static __always_inline int						\
name##_take(struct name *m, typeof(ktype) const *key,			\
	    typeof(ktype) *old_key, typeof(vtype) *value)		\
{									\
	return chm_take(&m->map, key, old_key, value);			\
}									\
									\
static __always_inline int __must_check					\
name##_reserve(struct name *m, unsigned long n, gfp_t gfp)		\
{									\
	return chm_reserve(&m->map, n, gfp);				\
}									\
									\
static __always_inline int name##_shrink(struct name *m, gfp_t gfp)	\
{									\
	return chm_shrink(&m->map, gfp);				\
}									\
									\
static __always_inline void name##_clear(struct name *m)		\
{									\
	chm_clear(&m->map);						\
}									\
									\
static __always_inline unsigned long name##_count(const struct name *m)	\
{									\
	return chm_count(&m->map);					\
}									\
									\
static __always_inline void						\
name##_stats(const struct name *m, struct chm_stats *s)			\
{									\
	chm_stats(&m->map, s);						\
}									\
									\
static __always_inline int __must_check name##_verify(const struct name *m)	\
{									\
	return chm_verify(&m->map);					\
}									\
									\
static __always_inline void						\
name##_iter_init(struct chm_iter *it, struct name *m)			\
{									\
	chm_iter_init(it, &m->map);					\
}									\
									\
static __always_inline bool						\
name##_iter_next(struct chm_iter *it, typeof(ktype) *key, typeof(vtype) *value)	\
{									\
	return chm_iter_next(it, key, value);				\
}

/**
 * DEFINE_CHM_OF() - Define a map of a type that DEFINE_CHM_TYPE() made.
 * @type: That type's name.
 * @name: The map's name; may be preceded by static.
 *
 * As DEFINE_CHM().
 */
#define DEFINE_CHM_OF(type, name)					\
	struct type name = {						\
		.map = CHM_INITIALIZER((name).map, &type##_params)	\
	}

#if IS_ENABLED(CONFIG_KUNIT)
/* Tests may redirect these, for their own calls: see KUNIT_STATIC_STUB_REDIRECT(). */
void *chm_alloc(u64 bytes, gfp_t gfp);
void chm_table_free(struct chm_table *t);
void chm_stored(const struct chm_table *t);
void chm_half_read(void);
void chm_found_no_room(struct chm *map);

/* Chunks that each write copies; 0: as usual.  Whether to migrate all the time. */
extern unsigned int chm_step_chunks;
extern bool chm_restless;
#endif

#if IS_ENABLED(CONFIG_CHM_BENCH)
#define CHM_LONG_HOLD_NS	(10 * NSEC_PER_USEC)

/* Holds of the lock of one map. */
struct chm_holds {
	u64	n;
	u64	long_ones;	/* longer than CHM_LONG_HOLD_NS */
	u64	longest_ns;
};

void chm_measure_holds(bool on, struct chm_holds *holds);
#endif

#endif /* CHM_H */
