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
 *	displaced  describes a pair that is outside its home chunk
 *	migrate	copy every pair into another table, step by step, and publish it
 *	retire	hand a table over to be freed after a grace period
 *	walk	an iteration that survives growth (struct chm_iter)
 *
 * Readers call chm_lookup() and friends under rcu_read_lock().  They never
 * wait, retry or write.  Writers exclude one another with a spinlock, for a
 * bounded time.  They run in any context but NMI.  They sleep only if they are
 * passed a gfp that allows it, in CHM_SYNC maps, in chm_take() of CHM_CELL maps,
 * and in chm_clear() where it looks for memory.  Guarantees G1-G12 and their
 * limits are listed in Documentation/chm.rst.
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
 * Tell whether a callback is given, as a constant.  To the kernel's compiler
 * the address of an extern function may be 0, so !!f is not a constant.  But a
 * caller who names a function has one.
 */
#define __chm_is_set(f)	(__builtin_constant_p(!(f)) ? !!(f) : true)

/*
 * This number stands for the layout of maps and tables, and for all inline
 * code.  A module that was built with another number refers to a symbol that
 * chm.ko lacks, so insmod refuses it.  scripts/lint demands a new number when
 * any of these change.
 */
#define CHM_ABI			2

extern const char chm_abi_2;
static const void * const __chm_abi __used = &chm_abi_2;

/* Largest key and value, in bytes.  Put larger ones behind a pointer. */
#define CHM_KEY_MAX	4096
#define CHM_VALUE_MAX	65536

/**
 * enum chm_class - What may happen to the bytes of a visible value.
 * @CHM_FROZEN: Its bytes never change.  chm_replace() writes a new slot and
 *	switches to it atomically.  Growth moves the pair bitwise.  This is the
 *	default.
 * @CHM_WORD: chm_replace() overwrites the value in place with one store.  The
 *	value has 1, 2, 4 or 8 bytes, is no larger than a long, and is naturally
 *	aligned.  Readers load it with READ_ONCE() or chm_get().
 * @CHM_CLONE: Like @CHM_FROZEN, but growth calls clone() for each pair.  After
 *	a grace period, it calls drop() for the old copy.
 * @CHM_CELL: Readers update the value in place, by atomic operations that may
 *	come in any order.  These are additions to atomic_long_t (on 64-bit
 *	machines atomic64_t) words, or with merge() anything that it can
 *	combine.  Do not use what such an operation returns: see
 *	chm_cell_lookup().  chm_replace() exchanges the value in place, word by
 *	word.
 */
enum chm_class {
	CHM_FROZEN,
	CHM_WORD,
	CHM_CLONE,
	CHM_CELL,
};

/**
 * enum chm_reclaim - Who migrates, and who waits for grace periods.
 * @CHM_DEFERRED: Every writer does a small share of a migration.  The module's
 *	one worker does the rest, waits for grace periods and frees.  A writer
 *	waits only if it has to, and only if it may sleep.  This is the default.
 * @CHM_SYNC: The writer that needs a larger table does everything itself: it
 *	copies all pairs, publishes the table, waits for a grace period and
 *	frees the old table.  Other writers wait meanwhile.  All writers of such
 *	a map must be able to sleep.
 */
enum chm_reclaim {
	CHM_DEFERRED,
	CHM_SYNC,
};

/**
 * struct chm_params - What a map is made of.
 *
 * chm does not copy this structure.  It must not change until the map is
 * destroyed, and after chm_destroy_async() until chm_barrier() returns.  It is
 * best made static const.
 *
 * @key_size: Bytes of a key, 1 to CHM_KEY_MAX.  Keys are compared and hashed as
 *	bytes unless @equal and @hash say otherwise, so zero their padding.
 * @value_size: Bytes of a value, 0 to CHM_VALUE_MAX.
 * @value_offset: Offset of the value in a slot.  0 means right after the key,
 *	at the value's natural alignment.
 * @slot_size: Bytes of a slot.  0 means as many as needed.  A slot is aligned
 *	to 8 bytes if this is a multiple of 8.  So is its value if @value_offset
 *	is one, too.
 * @class: What may happen to a value while it is visible.
 * @reclaim: Who waits after a table was replaced.
 * @max_load: Percent of the slots that may hold pairs before the table grows,
 *	25 to 95.  0 means 80.
 * @growth: Size of a grown table in percent of the old one, 110 to 400.  0
 *	means 200 for tables up to 32 KiB, and 140 for larger ones.  CHM_CELL
 *	maps use at least 200, and up to 32 KiB at least 400.  While an earlier
 *	table waits for its grace period, the map grows by a larger factor, up to
 *	400, so that the old tables fit the budget for retired memory.
 * @min_entries: The table has room for at least this many pairs, as far as
 *	there is memory.  A map that becomes empty keeps that room, until
 *	chm_shrink().
 * @max_entries: More pairs than this are refused with -E2BIG.  0 means no
 *	limit.  Once the map is idle, its table has room for at most an eighth
 *	more pairs.
 * @debugfs_write: Let root change this map through its debugfs directory.  Also
 *	let root look up made-up keys, even if they are pointers or the map has
 *	@hash or @equal.
 * @key_is_pointer: The key is a pointer.  debugfs shows it hashed, as %p does.
 *	Typed maps know this by themselves.
 * @value_is_pointer: The same for the value.
 * @hash: Hashes a key with a seed.  NULL means a seeded hash of the key's
 *	bytes, which changes to SipHash if a fresh seed does not help against an
 *	attack.  A good 32-bit hash is enough, for example jhash(): chm
 *	multiplies the result to spread it over 64 bits, and mixes the seed in.
 *	If the hash takes @seed into account, chm can also defend the map
 *	against chosen keys.  Lookups call it in their own context.  Writers
 *	call it with the map's spinlock held.  It must not sleep or call chm.
 * @equal: Tells whether two keys are the same.  NULL means memcmp().  Equal
 *	keys must have equal hashes.  It is called in the same way as @hash.
 * @clone: For CHM_CLONE maps only, which require it.  It makes a second pair
 *	from an existing one.  @new_key and @new_value begin as a bitwise copy.
 *	It returns 0, or undoes its own work and returns a negative errno.  An
 *	error ends the migration, which is tried again.  While every migration
 *	fails, replaced pairs move further from home, and a replacement can fail
 *	with %-ENOMEM although there are EMPTY slots elsewhere.  It is called with
 *	the map's spinlock held and gfp %GFP_NOWAIT.  It must not sleep or call
 *	chm.
 * @drop: Releases what a removed pair owns.  It is called once for each pair
 *	that was inserted (or cloned), after a grace period.  It is never called
 *	for a pair that chm_take() or chm_swap() handed out.  In CHM_WORD maps
 *	the value is the last one stored.  In CHM_CELL maps it is the result of
 *	all updates.  It runs in process context with no lock held: in the
 *	module's worker, in chm_destroy(), or in a writer of a CHM_SYNC map.  It
 *	may sleep, and it may write to or destroy other maps.  In CHM_DEFERRED
 *	maps it may also write to its own map, unless chm_destroy_async() may be
 *	called for that.  It must not call chm_barrier().
 *	While it sleeps, all maps wait for the worker.  So a lock that it takes
 *	must not be held around a call of any map that may sleep.
 * @merge: For CHM_CELL maps only.  NULL means that the value is an array of
 *	atomic_long_t, and that updates are added up.  Otherwise, it applies to
 *	@new_value the updates that led from @snapshot to @old_now.  It must do
 *	so by atomic operations, whatever @new_value is now.  @old_now may still
 *	change, so read each of its fields once.  It is called with the map's
 *	spinlock held.  It is also called in the context of chm_cell_read(),
 *	with @new_value pointing to the buffer of that function.  It must not
 *	sleep, take locks, or do anything but update @new_value.
 *
 * The callbacks get the @ctx of chm_init().  It is NULL for DEFINE_CHM().
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
	bool		key_is_pointer;
	bool		value_is_pointer;
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
 * @chunks: Chunks of the active table; 0 if the map owns no table.
 * @slots: Slots of the active table.
 * @bytes: Bytes of the active table.
 * @displaced: Pairs outside their home chunk.
 * @longest_probe: Most chunks that any insertion into this table had to visit.
 * @dead: Removed slots whose grace period is not known to be over.
 * @grows: Migrations into a table with more chunks.
 * @shrinks: Migrations into a table with fewer chunks.
 * @rehashes: Migrations into a table with as many chunks.
 * @migrated: Pairs moved by the last migration.
 * @migrated_ns: Nanoseconds from the start to the end of that migration.
 * @migrating: Chunks of the table that is being filled; 0 if there is none.
 * @copied: Chunks that have been copied into it so far.
 * @snapshot_bytes: Bytes of the snapshot of a migration that is under way, or
 *	whose old table is not freed yet.  CHM_CELL maps take such snapshots.
 *	Other maps do so only with CONFIG_CHM_DEBUG.
 * @changed: Pairs that readers wrote to while they were being copied.  CHM_CELL
 *	maps do not count these.  Only CONFIG_CHM_DEBUG looks for them.
 * @retired_bytes: Bytes of replaced tables that are not freed yet.
 * @gp_waits: Grace periods that writers waited for.
 * @reseeds: Rehashes with a fresh seed because of long probe paths.
 * @failed_allocs: Tables that could not be allocated.
 * @aborts: Migrations that were abandoned halfway.
 *
 * These counts start again at 0: @reseeds, @failed_allocs and @aborts after 2^16,
 * @grows, @shrinks, @rehashes and @gp_waits after 2^32.  @changed stays at 2^16 - 1.
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
 * Embed it, declare it with DEFINE_CHM(), or let DEFINE_CHM_TYPE() wrap it in a
 * type of its own.  It takes 128 bytes on 64-bit kernels without lock
 * debugging.
 */
struct chm {
	/* private: use the functions below. */
	struct chm_table __rcu	*tbl;		/* NULL: there are no pairs */
	const struct chm_params	*p;		/* NULL: no map, or destroyed */
	void			*ctx;		/* for the callbacks */

	/* Readers use this cache line.  What follows in it changes rarely. */
	struct chm_debugfs	*debugfs;
	struct list_head	work;		/* see struct chm_worker */
	unsigned long		reserved;	/* what chm_reserve() promised */
	struct chm_table	*next;		/* the table that is being filled */

	/* Protected by lock, as are reserved and next: */
	spinlock_t		lock;		/* excludes writers */
	u8			phase;		/* enum chm_phase */
	u8			seeding:2;	/* enum chm_seeding: what is due */
	u8			valid:1;	/* params have been checked */
	u8			busy:1;		/* CHM_SYNC: held by a writer */
	u8			hash_is_bad:1;	/* another seed is of no use */
	u8			kick:1;		/* the worker must be called */
	u8			dying:1;	/* the map is being destroyed */
	u8			hash_told:1;	/* hash_is_bad was reported */
	u8			clone_failed:1;	/* during the last migration */
	u8			seed_failed:1;	/* no memory to take a fresh one */
	u8			failed_at:6;	/* when, in seconds modulo 64 */
	u8			claims;		/* pending calls of reserve and shrink */
	u32			cursor;		/* chunks of tbl copied so far */
	u32			tidy_from;	/* in seconds; no tidying before then */
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
	u16			changed;	/* 65535 means so many, or more */
#ifdef CONFIG_DEBUG_LOCK_ALLOC
	struct lockdep_map	busy_map;	/* for busy */
#endif
};

#if BITS_PER_LONG == 64 && !defined(CONFIG_DEBUG_SPINLOCK) && \
	!defined(CONFIG_DEBUG_LOCK_ALLOC) && !defined(CONFIG_PREEMPT_RT)
static_assert(sizeof(struct chm) <= 128);
#endif

/*
 * One buffer holds this header, nr_chunks chunks, bitmaps (see
 * chm_bitmap_longs()), and a struct chm_snapshots.  Only CHM_CELL maps have the
 * latter; with CONFIG_CHM_DEBUG all classes do.  A lookup reads only the first
 * cache line of the header.
 */
struct chm_table {
	/*
	 * Readers use these.  They are constant once published, except for
	 * owns_full and pins_1, which writers use.
	 */
	u32			nr_chunks;
	u32			stride;		/* chm_stride() of the slot size */
	u32			slot_size;	/* from the params, or the default */
	u16			value_offset;	/* likewise */
	u16			slots_offset;	/* chm_slots_offset() */
	u64			seed[2];	/* the second one is for SipHash only */
	const struct chm_params	*p;		/* the map's, see __chm_lookup() */
	void			*ctx;		/* the map's */
	u32			id;		/* serial number, counting up */
	bool			use_siphash;	/* instead of the default hash */
	bool			owns_full;	/* retired: drop its FULL pairs, too */
	u16			pins_1;		/* as pins_0, but of generation 1 */
	unsigned long		max_entries;	/* at maximum load */

	/* Writers only, under the map's lock. */
	u32			longest		/* most chunks an insertion visited */
				__aligned(L1_CACHE_BYTES);
	u8			dead_gen:1;	/* generation that removals join */
	u8			roomy:1;	/* large because of DEAD slots */
	u8			strayed:1;	/* a pair was stored far from home */
	u8			far_gone:1;	/* so far that this table must go */
	u8			waited:1;	/* a writer has waited for room */
	u8			awaited:1;	/* see chm_credit_wait() */
	u8			tidies:1;	/* its migration is a tidying */
	u8			tidy_soon:1;	/* see chm_put_off_tidying() */
	u8			look_later;	/* pairs or DEAD slots until chm_trigger() looks */
	u16			pins_0;		/* takers of cells of generation 0 */
	unsigned long		dead[2];	/* DEAD slots by generation */
	unsigned long		displaced;
	unsigned long		cookie;		/* for !dead_gen, or for retirement */
	u64			spread;		/* sum of squared distances from home */
	u32			unlowered;	/* filter bits left, perhaps useless */
	u32			version;	/* counts changes of control words */

	unsigned long		hard_entries;	/* limit of pairs plus DEAD slots */
	u32			sweep;		/* chunk where sweeping resumes */
	u32			writes;		/* to this table */
	u32			fresh;		/* earlier writes, with the same seed */
	u32			built_spread;	/* when built, in 16ths of the expected */
	u32			built_longest;	/* @longest when built */
	u32			far;		/* sum of long due distances since a defence */
	u32			far_enough;	/* @far at which the next defence is due */
	u32			migrated;	/* pairs that were migrated */
	u64			migrated_ns;	/* start of migration, or its duration */
	unsigned long		seals;		/* of generations: see chm_seal() */
	union {
		unsigned long	ask_entries;	/* active: pairs when growth is asked for */
		size_t		bytes;		/* retired: as counted by its map */
		u64		seq;		/* handed over: see chm_barrier() */
	};
	union {
		struct chm_table *link;		/* retired: the next younger one */
		u64		copying_ns;	/* before: what copying to it took */
	};
} __aligned(L1_CACHE_BYTES);

/*
 * With longer cache lines (powerpc64, s390) the header takes two lines, with
 * shorter ones more.
 */
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
 * @params: Pointer to its struct chm_params, which must have static storage.
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
 * Use this at file scope.  The map owns no memory until the first insertion,
 * which reports bad parameters with -EINVAL.  The map has no debugfs directory.
 * A module that unloads must still call chm_destroy().
 */
#define DEFINE_CHM(name, ...)						\
	struct chm name = CHM_INITIALIZER(name,				\
		(&(const struct chm_params) { __VA_ARGS__ }))

/* === Life ================================================================ */

/*
 * Lock classes of one chm_init() call site.  They tell its maps from others in
 * lockdep.
 */
struct chm_lock_keys {
	struct lock_class_key	lock;
	struct lock_class_key	busy;
};

int __chm_init(struct chm *map, const struct chm_params *p, void *ctx,
	       const char *name, struct chm_lock_keys *keys);

/**
 * chm_init() - Make an empty map.
 * @map: The map, either uninitialised or destroyed.
 * @params: Must outlive the map, see struct chm_params.
 * @ctx: Passed to the callbacks of @params; may be NULL.
 * @name: Name of its directory under /sys/kernel/debug/chm/, up to 63 printable
 *	characters without '/'.  NULL means no directory.  If the name is taken
 *	or debugfs fails, the map has no directory.  A taken name is reported in
 *	the log.
 *
 * This allocates no table: an empty map owns no memory beyond struct chm (G10).
 * Each call in the source gives its maps lock classes of their own (typed maps:
 * one per type and source file).
 *
 * Context: Any if @name is NULL, otherwise process context.
 * Return:
 * * %0			- the map is ready
 * * %-EINVAL		- a parameter or the name is out of range
 * * %-ENOMEM		- no memory for the data of the directory's files
 */
#define chm_init(map, params, ctx, name)				\
({									\
	static struct chm_lock_keys __chm_keys;				\
									\
	__chm_init(map, params, ctx, name, &__chm_keys);		\
})

/**
 * chm_destroy() - Drop every pair and free all memory.
 * @map: The map.  No other call on it may be in progress or start.  chm_destroy() waits
 *	for lookups that are still inside an RCU reader.
 *
 * Call chm_init() before the map is used again.  Until then, writers get
 * -EINVAL and are warned once, and lookups find nothing.  If the caller must
 * not sleep, this warns and does nothing at all.
 *
 * Context: Process context, outside RCU readers.  Also allowed in the drop() of
 *	another map.  Waits for a grace period if the map has a table.
 *	Also waits until the worker has ended its turn at the map.
 */
void chm_destroy(struct chm *map);

/**
 * chm_destroy_async() - Like chm_destroy(), but without waiting.
 * @map: The map.  No other call on it may be in progress or start.  Lookups that are
 *	still inside an RCU reader may go on.
 *
 * If no reader looks at @map, it may be freed at once.  Otherwise free it after
 * a grace period, for instance with kfree_rcu().  The module's worker drops the
 * pairs and frees the tables after a grace period.  Call chm_barrier() before
 * the code of drop(), or what its ctx points to, goes away.
 *
 * Context: Any but NMI.  Process context if the map has a debugfs directory.
 */
void chm_destroy_async(struct chm *map);

/**
 * chm_barrier() - Wait for everything chm_destroy_async() has handed over so far.
 *
 * When this returns, those pairs have been dropped and the tables freed.  A
 * module that uses chm_destroy_async() calls this before it unloads, just as it
 * would call rcu_barrier() for call_rcu().
 *
 * Context: Process context, outside RCU readers, and not in a drop().
 */
void chm_barrier(void);

/* === Look up ============================================================= */

u64 chm_siphash(const struct chm_table *t, const void *key, u32 len);
const void *chm_lookup_displaced(const struct chm_table *t, const void *key,
				 u64 hash, const struct chm_params *p,
				 unsigned long home_ctrl);

/*
 * Return the first @len bytes at @from, at most 8, as a number.  The lengths
 * that keys usually have take one load.  Storing a word in parts and then
 * loading it whole is slow.
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
 * Default hash.  It folds each 8 bytes into the seed, and then folds once more,
 * since one fold alone keeps the structure of arithmetic progressions.  Folding
 * the 128 bits of a product is from Wang Yi's wyhash and Orson Peters'
 * foldhash.  The hash uses native byte order and is not for use across
 * machines.
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

/* Compare inline, word by word: this is faster than memcmp() for most keys. */
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

/* Typed maps know the layout of a chunk.  For other maps the table stores it. */
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

/* In typed maps this is never 0, since a key has a size. */
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

/* Return the value of @key in @c, or NULL.  @ctrl is its control word, loaded once. */
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

/* The pair may be in the second cache line: prefetch that along with the first. */
static __always_inline void
__chm_prefetch_second(const struct chm_table *t, const struct chm_chunk *c,
		      const struct chm_params *p)
{
	if (__chm_stride(t, p) > L1_CACHE_BYTES)
		prefetch((const void *)c + L1_CACHE_BYTES);
}

/*
 * Return the value of @key in its home chunk @c, or NULL.  The result is final,
 * unless it is NULL and the word @ctrl overflows for @hash.
 */
static __always_inline const void *
__chm_search_home(const struct chm_table *t, const struct chm_chunk *c,
		  const void *key, u64 hash, const struct chm_params *p,
		  unsigned long *ctrl)
{
	/*
	 * O1, O2, O3: acquire.  Pairs with chm_set_ctrl(): a reader that sees a
	 * FULL tag also sees the bytes of its slot.  A reader that sees a
	 * published pair also sees the overflow filters on the way to it.  A
	 * reader that sees a replaced pair as DEAD also sees the new one.
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

/* What the home chunk decides is inline.  chm_lookup_displaced() does the rest. */
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
 * rcu_assign_pointer() in chm_publish().  Any RCU flavour will do, since grace
 * periods wait for all of them.
 */
#define __chm_table_rcu(map)						\
	rcu_dereference_check((map)->tbl, rcu_read_lock_any_held())

/*
 * @p is a constant for typed maps.  If it is NULL, the params are those of the
 * table.  They are not taken from map->p, which chm_init() and chm_destroy() write:
 * only what is reached through the table pointer is ordered after it (O6).
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

/*
 * Size of the words that a CHM_CELL value is copied by: as large as its place
 * allows.
 */
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

/* Copy a CHM_CELL value, whose words may change at any time. */
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

/* Copy a value out of its slot.  In some classes it may change meanwhile. */
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
	 * come at any time.  Two loads could return a mixture.  Without the
	 * acquire, the reader could miss what was inserted before that store.
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

/* Number of keys whose home chunks chm_lookup_many() is fetching from memory. */
#define CHM_BATCH	32U

/* How many of these keys may wait for a search beyond their home chunks. */
#define CHM_BEYOND	8U

struct chm_batch {
	u64		hash[CHM_BATCH];
	const struct chm_chunk *home[CHM_BATCH];
	struct {
		u64		hash;
		unsigned long	ctrl;	/* of its home chunk */
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

/* Prefetch the home chunk of key @i. */
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

/* Search beyond the home chunk for the oldest key that waits for that. */
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
 * Home chunks are prefetched ahead of the key that is searched for, throughout
 * the call.  If a key went on from its home chunk, the next chunk is prefetched
 * while other keys are searched for.
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
 * The lookup is wait-free: no store to shared memory, no lock, no retry (G1).
 * It visits the chunks of the probe path once.  If it finds the key outside the
 * home chunk, it looks back at the earlier chunks.  If writers have put the key
 * into one of these meanwhile, it looks back once more from there, at fewer
 * chunks.  So n chunks cost about n * n / 2 visits at the very most.  In
 * practice they cost n and a few more.
 *
 * A lookup finds every key that is present during the whole call, through
 * replacement, growth, shrinking and slot reuse (G2).  It returns one pair
 * exactly as one writer passed it.  The pair stays readable until
 * rcu_read_unlock() (G3).  A later lookup never finds an older value (G4).
 * CHM_WORD and CHM_CELL values may change, so read their words with READ_ONCE()
 * or atomic_long_read().
 *
 * Ordering: a reader that finds a pair sees everything that its writer did
 * before inserting it.  Neither a hit nor a miss is a full barrier.
 *
 * Context: Any, within rcu_read_lock(), or with softirqs, preemption or
 *	interrupts disabled.  Readers of SRCU and RCU Tasks do not count.  This
 *	includes NMI, as far as @hash and @equal of the map allow.
 * Return: The value inside the map, or NULL if the key is absent.
 */
const void *chm_lookup(const struct chm *map, const void *key);

/**
 * chm_get() - Find a key and copy its value out.
 * @map: The map.
 * @key: @key_size bytes.
 * @value: Receives @value_size bytes if the key is present; otherwise
 *	untouched.
 *
 * This is chm_lookup() under an rcu_read_lock() of its own.  In CHM_CELL maps
 * each word is what chm_cell_lookup() would show.  chm_cell_read() is exact.
 *
 * Context: Any.
 * Return: Whether the key is present.
 */
bool chm_get(const struct chm *map, const void *key, void *value);

/**
 * chm_lookup_many() - Find many keys, overlapping their cache misses.
 * @map: The map.
 * @keys: @n keys of @key_size bytes each, packed.
 * @n: Number of keys, without a limit.
 * @values: Receives @n pointers: the value of each key, or NULL.
 *
 * Each key is looked up as by chm_lookup().  All are looked up in one table,
 * but in any order.  So one call may find a pair and miss one that was inserted
 * before it.  If a key is given twice, it may find the newer value first.  The
 * chunks of the next 32 keys are prefetched while those before are searched, so
 * a long call is faster than several short ones.  DPDK's rte_hash_lookup_bulk()
 * prefetches within a batch.  This takes about 700 bytes of the stack: those of
 * the caller, if the map is typed.
 *
 * Context: As for chm_lookup().
 * Return: How many keys are present.
 */
unsigned int chm_lookup_many(const struct chm *map, const void *keys,
			     unsigned int n, const void **values);

/* === Cells =============================================================== */

/* Refuse typed calls for other classes; untyped ones are refused at run time. */
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
	/* O9: this ends before the section does; pairs with chm_settle(). */
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
 * @map: A CHM_CELL map.  For maps of other classes this is a bug: it
 *	warns once and finds nothing.
 * @key: @key_size bytes.
 *
 * Like chm_lookup(), but the caller may write to what it returns, within the
 * same RCU reader.  Each update must be one atomic access, and updates must
 * commute: atomic_long_add() and its relatives, or what merge() can combine.
 * No update is ever lost, however the table changes (G9).
 *
 * While a table is being replaced, some CPUs update the old copy of the value
 * and some the new one.  So what an update returns is not unique, and what is
 * read through the pointer can go backwards.  Do not decide anything on it: no
 * tickets, no reference counts, no limits, no bit locks, no cmpxchg, no plain
 * stores.  chm_cell_read() returns the exact result of all updates.
 *
 * Context: As for chm_lookup().
 * Return: The value inside the map, or NULL if the key is absent.
 */
void *chm_cell_lookup(struct chm *map, const void *key);

/**
 * chm_cell_add() - Add to one word of a value.
 * @map: A CHM_CELL map without merge().
 * @key: @key_size bytes.
 * @i: Index of the long in the value.
 * @n: Amount to add; may be negative.
 *
 * This is chm_cell_lookup() and atomic_long_add() in one call.  It implies no
 * ordering.
 *
 * Context: Any.
 * Return:
 * * %0		- added
 * * %-ENOENT	- the key is absent
 * * %-EINVAL	- there is no such word, or the map is of another kind.  This
 *		  may be reported only once the map has a table.
 */
int chm_cell_add(struct chm *map, const void *key, unsigned int i, long n);

/**
 * chm_cell_upsert_add() - Add to one word of a value; insert the key if absent.
 * @map: A CHM_CELL map without merge().
 * @key: @key_size bytes.
 * @i: Index of the long in the value.
 * @n: Amount to add; may be negative.
 * @gfp: As for chm_insert().
 *
 * Like chm_cell_add().  But if the key is absent, it is inserted first, with a
 * value of zeroes.  Takes no lock if the key is present.
 *
 * Context: As for chm_insert().
 * Return:
 * * %0		- added
 * * %1		- inserted, and added
 * * %-EINVAL	- as for chm_cell_add() and chm_insert()
 * * others	- as for chm_insert(), except %-EEXIST
 */
int __must_check chm_cell_upsert_add(struct chm *map, const void *key,
				     unsigned int i, long n, gfp_t gfp);

/**
 * chm_cell_read() - Copy out the result of all updates of a value.
 * @map: A CHM_CELL map.  For maps of other classes this is a bug: it
 *	warns once and finds nothing.
 * @key: @key_size bytes.
 * @value: Receives @value_size bytes if the key is present; otherwise
 *	untouched.  In maps with merge() it must be aligned as the value's type
 *	is.
 *
 * The result is exact, even while the table is being replaced.  Each word has
 * every update that ended before this call began, each once.  It also has some
 * of the updates that run during the call; which ones is unspecified.  So a
 * word that is only added to never goes backwards from one call to another.
 * But if one thread adds 1 and then another adds -1, both during the call, the
 * word may read as -1.  Words are read one after the other.
 *
 * This call reads a word again while its old copy is being merged into the new
 * one, or while chm_replace() exchanges it.  It waits for that one addition,
 * exchange or call of merge(), which another CPU makes with interrupts off.
 *
 * Context: Any but NMI.
 * Return: Whether the key is present.
 */
bool chm_cell_read(const struct chm *map, const void *key, void *value);

/* === Update ============================================================== */

/*
 * All of these may be called in any context but NMI, also inside
 * rcu_read_lock(), with interrupts off and under spinlocks.  But if @gfp allows
 * blocking (gfpflags_allow_blocking()), call them from process context outside
 * RCU readers.  On PREEMPT_RT, do not call them in hard interrupts or under raw
 * spinlocks.  A map's spinlock is taken with interrupts off, for a bounded
 * number of chunks.  For CHM_SYNC maps, call them in process context only.
 *
 * A call that may sleep (by its @gfp, its class or CHM_SYNC) fails with -EDEADLK
 * where sleeping is forbidden, even if it would not have slept.  The kernel log
 * says so once.  Kernels without CONFIG_PREEMPT_COUNT cannot see spinlocks or
 * disabled preemption: there the call may sleep.  Where sleeping is allowed,
 * kernels whose vmalloc() always sleeps may do so for a large table even if @gfp
 * does not allow blocking.
 *
 * A caller that holds a lock of the scheduler or of printk() must have
 * interrupts off, and must pass a @gfp without __GFP_KSWAPD_RECLAIM.  Then the
 * worker is woken up from an interrupt, and kswapd is not woken up.  CHM_CLONE
 * maps do not support this, because clone() allocates.  A caller that may block
 * can wait for the worker, and so for the drop() of any map.  It must not hold
 * a lock that any drop() takes.
 *
 * A drop() may write to its own map.  While chm_destroy() drops pairs, calls that
 * store a pair, and chm_reserve(), fail with -ESHUTDOWN.  Every call in an NMI
 * fails with -EINVAL, as for no map.
 */

/**
 * chm_insert() - Add a pair whose key is absent.
 * @map: The map.
 * @key: @key_size bytes, copied.
 * @value: @value_size bytes, copied; NULL only if @value_size is 0.
 * @gfp: For the new table, if one is needed.
 *
 * On failure the map is unchanged (G6), and the caller still owns what the pair
 * refers to.  The call cannot fail with -ENOMEM within what chm_reserve()
 * promised (G7).
 *
 * Growth begins well before the table is full, and every writer copies a few
 * chunks.  The table fills up (to half way between max_load and 100 percent)
 * only if the worker gets no memory in time.  Then a caller that may block
 * looks for memory itself and finishes the migration, or waits for a grace
 * period.  A caller that must not block tries to allocate the table, and copies
 * up to 4096 chunks, several times if need be.  It gets -ENOMEM if that is not
 * enough.  In CHM_CELL maps, the next table has to wait until the cells of the
 * last migration have settled, which takes a grace period.  So reserve what
 * callers that must not sleep will insert meanwhile.
 *
 * Ordering: a reader that finds the pair sees everything that the caller did
 * before.
 *
 * Context: Any but NMI; see above.
 * Return:
 * * %0		- inserted
 * * %-EEXIST	- the key is present
 * * %-ENOMEM	- the table is full and another one could not be allocated, or
 *		  clone() has failed, or cells have not settled.  The worker has
 *		  been asked for a table, so a later try may succeed.
 * * %-E2BIG	- the map is at @max_entries, or at the limit of what chm can address
 * * %-EINVAL	- bad parameters of DEFINE_CHM(), or no value, or no map
 * * %-EDEADLK	- @gfp allows blocking, or it is a CHM_SYNC map, but the caller must
 *		  not sleep
 * * %-ESHUTDOWN	- chm_destroy() of the map is at work
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
 * Context: As for chm_insert().
 * Return:
 * * %1		- inserted
 * * %0		- the key was present; its value was copied to @value, as by chm_get()
 * * others	- as for chm_insert(), except %-EEXIST
 */
int __must_check chm_get_or_insert(struct chm *map, const void *key,
				   void *value, gfp_t gfp);

/**
 * chm_lookup_or_insert() - Find the value of a key, or insert it if absent.
 * @map: The map.
 * @key: As for chm_insert().
 * @value: The value to insert.
 * @gfp: As for chm_insert(); must not allow blocking.
 *
 * To learn whether the key was present, compare the result with the bytes of
 * @value, or use chm_get_or_insert().
 *
 * Context: As for chm_insert(), within rcu_read_lock().
 * Return: The value inside the map, valid until rcu_read_unlock().  Otherwise
 * an ERR_PTR() as for chm_insert(), except %-EEXIST.  It is %-EDEADLK if @gfp
 * allows blocking, and in CHM_SYNC maps, whose writers must not be RCU readers.
 */
const void *chm_lookup_or_insert(struct chm *map, const void *key,
				 const void *value, gfp_t gfp);

/**
 * chm_insert_many() - Add many pairs whose keys are absent.
 * @map: The map.
 * @keys: @n keys of @key_size bytes each, packed.
 * @values: @n values of @value_size bytes each, packed; NULL only if that size is 0.
 * @n: Number of keys, without a limit.
 * @gfp: As for chm_insert().
 * @err: Receives 0, or the reason why the first uncounted pair was not
 *	inserted.
 *
 * This inserts one pair after the other as by chm_insert(), until one fails.
 * It takes the map's lock fewer times, and prefetches the chunks of later
 * pairs.
 *
 * Context: As for chm_insert().
 * Return: How many pairs were inserted.  All of them come before the one that
 * failed.
 */
unsigned long chm_insert_many(struct chm *map, const void *keys,
			      const void *values, unsigned long n, gfp_t gfp,
			      int *err);

/**
 * chm_replace() - Replace the value of a key that is present.
 * @map: The map.
 * @key: @key_size bytes, copied.  CHM_WORD and CHM_CELL maps use it only to
 *	find the pair.
 * @value: @value_size bytes, copied.
 * @gfp: For a new table, if the old one has no free slot where one is needed.
 *
 * Readers always find either the old pair or the new one, never a mixture.  The
 * old pair is dropped after a grace period.  In CHM_WORD maps the word is
 * overwritten in place and nothing is dropped.
 *
 * In CHM_CELL maps each word is exchanged in place, one after the other, and
 * nothing is dropped.  An update that comes before the exchange of its word is
 * overwritten.  One that comes after is added to the new word.  No update is
 * applied to a word that is no longer there.  Maps with merge() refuse this,
 * since chm does not know their words.
 *
 * Ordering: a reader that finds the new pair sees everything that the caller did
 * before.  In CHM_WORD maps it must load the word with smp_load_acquire() or
 * chm_get().  CHM_CELL values imply no ordering.
 *
 * Context: As for chm_insert().
 * Return:
 * * %0		- replaced
 * * %-ENOENT	- the key is absent
 * * %-EOPNOTSUPP - present, in a CHM_CELL map with merge()
 * * others	- as for chm_insert(), except %-EEXIST
 */
int __must_check chm_replace(struct chm *map, const void *key,
			     const void *value, gfp_t gfp);

/**
 * chm_replace_if() - Replace the value of a key if it is the expected one.
 * @map: The map; not of class CHM_CELL.
 * @key: As for chm_replace().
 * @expected: @value_size bytes, compared with those of the present value.
 * @value: As for chm_replace().
 * @gfp: As for chm_replace().
 *
 * All bytes of the values are compared, padding included.  In CHM_CLONE maps a
 * migration may change them, by clone(): take @expected from a lookup.
 *
 * Context: As for chm_insert().
 * Return:
 * * %0		- replaced
 * * %-ENOENT	- the key is absent
 * * %-ESTALE	- it has another value
 * * %-EOPNOTSUPP - present, in a CHM_CELL map
 * * %-EINVAL	- no @expected, or as for chm_insert()
 * * others	- as for chm_insert(), except %-EEXIST
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
 * Context: As for chm_insert().
 * Return:
 * * %0		- replaced
 * * %1		- inserted
 * * %-EOPNOTSUPP - present, in a CHM_CELL map with merge()
 * * others	- as for chm_insert(), except %-EEXIST
 */
int __must_check chm_upsert(struct chm *map, const void *key,
			    const void *value, gfp_t gfp);

/**
 * chm_swap() - Insert a pair, or exchange the one with its key.
 * @map: The map; not of class CHM_CELL.
 * @key: As for chm_upsert().
 * @value: As for chm_upsert().
 * @old_key: Receives the key of the old pair, as it was stored; NULL if not
 *	wanted.
 * @old_value: Receives the value of the old pair.
 * @gfp: As for chm_upsert().
 *
 * The old pair now belongs to the caller, and drop() will not run for it.  As
 * with chm_take(), what it refers to must outlive a grace period.  In CHM_WORD
 * maps the stored key stays in the map and belongs to it.
 *
 * Context: As for chm_insert().
 * Return:
 * * %1		- inserted; @old_key and @old_value are untouched
 * * %0		- exchanged
 * * %-EOPNOTSUPP - a CHM_CELL map
 * * others	- as for chm_insert(), except %-EEXIST
 */
int __must_check chm_swap(struct chm *map, const void *key, const void *value,
			  void *old_key, void *old_value, gfp_t gfp);

/**
 * chm_remove() - Remove a key.
 * @map: The map.
 * @key: @key_size bytes.
 *
 * Readers that found the pair may go on reading it until rcu_read_unlock().
 * drop() runs after a grace period, in the module's worker.  In CHM_SYNC maps a
 * later writer that waits for a grace period may run it instead.  This call
 * allocates nothing.  It is allowed inside chm_for_each_rcu() and between calls
 * of chm_iter_next().
 *
 * Context: Any but NMI.  For CHM_SYNC maps, process context outside RCU
 *	readers.
 * Return:
 * * %0		- removed
 * * %-ENOENT	- the key is absent
 * * %-EINVAL	- no map
 * * %-EDEADLK	- a CHM_SYNC map, and the caller must not sleep
 */
int chm_remove(struct chm *map, const void *key);

/**
 * chm_remove_many() - Remove many keys.
 * @map: The map.
 * @keys: @n keys of @key_size bytes each, packed.
 * @n: Number of keys, without a limit.
 *
 * This removes one key after the other as by chm_remove(), and passes over
 * those that are absent.  It takes the map's lock fewer times, and prefetches
 * the chunks of later keys.  It sleeps only for CHM_SYNC maps.  For other maps, a
 * caller with very many keys passes some thousands at a time, and calls
 * cond_resched() in between.
 *
 * Context: As for chm_remove().
 * Return: How many keys were present.  0 also if there is no map, or if the
 * caller of a CHM_SYNC map must not sleep.
 */
unsigned long chm_remove_many(struct chm *map, const void *keys, unsigned long n);

/**
 * chm_remove_if() - Remove a key if it has the expected value.
 * @map: The map; not of class CHM_CELL.
 * @key: @key_size bytes.
 * @expected: @value_size bytes, compared with those of the present value.
 *
 * Like chm_remove().  If the value is a pointer, this removes that object, and
 * not another one that has since been inserted under the same key.  Values are
 * compared as by chm_replace_if().
 *
 * Context: As for chm_remove().
 * Return:
 * * %0		- removed
 * * %-ENOENT	- the key is absent
 * * %-ESTALE	- it has another value
 * * %-EOPNOTSUPP - present, in a CHM_CELL map
 * * %-EINVAL	- no map, or no @expected
 * * %-EDEADLK	- as for chm_remove()
 */
int chm_remove_if(struct chm *map, const void *key, const void *expected);

/**
 * chm_take() - Remove a key and hand its pair to the caller.
 * @map: The map.
 * @key: @key_size bytes.
 * @old_key: Receives the key as it was stored; NULL if not wanted.
 * @value: Receives @value_size bytes; NULL if not wanted.
 *
 * drop() will not run for this pair: the caller now owns what the pair owned.
 * Readers may still look at the pair until a grace period is over.  So what it
 * refers to must outlive one (kfree_rcu(), synchronize_rcu()).
 *
 * In CHM_CELL maps readers may also still update the pair.  So this call waits
 * for a grace period, and also for the worker if a migration must be merged.
 * Then @value has every update.
 *
 * Context: As for chm_remove().  For CHM_CELL maps, process context outside RCU
 *	readers.
 * Return:
 * * %0		- removed, @old_key and @value are valid
 * * %-ENOENT	- the key is absent
 * * %-EINVAL	- no map
 * * %-EDEADLK	- a CHM_CELL or CHM_SYNC map, and the caller must not sleep
 */
int chm_take(struct chm *map, const void *key, void *old_key, void *value);

/**
 * chm_reserve() - Make room ahead of time.
 * @map: The map.
 * @n: How many pairs in all the map must be able to hold.
 * @gfp: For the new table, if one is needed; must allow blocking.
 *
 * From then on, @n pairs in all fit without an allocation that has to succeed,
 * even after removals (G7).  For callers that must not sleep, this holds as
 * long as no more than @n / 8 pairs were removed or replaced within the last
 * two grace periods.  That limit is for a max_load of 80.  It is @n / 18 for
 * 90, and @n / 38 for 95.  A grace period here is what synchronize_rcu() waits
 * for: up to two of RCU's own, if one follows the other.  While the worker is
 * busy with the drop() of another map, pairs that were removed one grace period
 * earlier count as well.  In maps with @drop, so do all pairs that have not been
 * dropped yet.  In CHM_CELL maps, count what was removed since the last migration
 * ended, until a grace period after its cells were merged.  The reservation lasts
 * until chm_shrink() or the next chm_reserve().
 *
 * In a table of up to a dozen chunks a replacement may still need memory: the new
 * pair takes a free slot in the chunk of the old one or behind it on its path,
 * and that may be full while the rest of the table is not.
 *
 * Context: Process context, outside RCU readers.  May wait for a grace period.
 * Return:
 * * %0		- done
 * * %-ENOMEM	- no memory, or clone() has failed; the map is unchanged
 * * %-E2BIG	- @n is more than @max_entries, or more than chm can address
 * * %-EBUSY	- the caller is a drop(), and would have to wait for the worker
 * * %-ESHUTDOWN	- as for chm_insert()
 * * %-EINVAL	- as for chm_insert()
 * * %-EDEADLK	- the caller must not sleep
 */
int __must_check chm_reserve(struct chm *map, unsigned long n, gfp_t gfp);

/**
 * chm_shrink() - Free the memory that the pairs do not need.
 * @map: The map.
 * @gfp: For the smaller table; must allow blocking.
 *
 * This ends what chm_reserve() promised, even if it fails.  An empty map then
 * owns no table, whatever @min_entries is.  A map also shrinks by itself when
 * less than an eighth of it is used.  A map that stays empty for a grace period
 * or two frees its table.  Both keep room for what was reserved, and for
 * @min_entries.
 *
 * Context: As for chm_reserve().
 * Return:
 * * %0		- the table fits the pairs
 * * others	- as for chm_reserve()
 */
int chm_shrink(struct chm *map, gfp_t gfp);

/**
 * chm_clear() - Remove every pair.
 * @map: The map.
 *
 * This publishes an empty table, or none, in one store.  A lookup that begins
 * later finds no pair that was there before.  The worker drops the pairs after
 * a grace period.  This takes the same time for any number of pairs, with two
 * exceptions.  If something was reserved, or @min_entries asks for it, and there
 * is no memory for another table of that size, each pair is removed as by
 * chm_remove(), a few at a time.  The same happens if too many retired tables are
 * still waiting for their readers.  Misuse warns and does nothing.
 *
 * Context: As for chm_remove().  Where it may sleep, it looks for the memory of
 *	the other table with GFP_NOIO.  So do not call it with a lock held that a
 *	shrinker takes, if something was reserved or @min_entries is set.
 */
void chm_clear(struct chm *map);

/* --- Strings as keys --- */

/**
 * chm_hash_string() - A hash() for keys that are pointers to strings.
 * @key: The key: a pointer to a const char *, whose string is NUL-terminated.
 * @seed: The seed of the table.
 *
 * This is SipHash of the string, and as strong as @seed is secret.  Use it for
 * maps whose key type is a char *.  Arrays of char that are padded with zeroes
 * need no hash().
 *
 * Context: Any.
 * Return: The hash.
 */
u64 chm_hash_string(const void *key, u64 seed);

/**
 * chm_equal_string() - The equal() that goes with chm_hash_string().
 * @a: A key.
 * @b: Another key.
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
 * @s: Receives the figures.
 *
 * This takes the map's spinlock for a moment, and looks at no pair.
 *
 * Context: Any but NMI.
 */
void chm_stats(const struct chm *map, struct chm_stats *s);

/**
 * chm_verify() - Check every invariant of the map.
 * @map: The map.
 *
 * This checks tags against hashes, the reachability of each pair along its
 * probe path, overflow filters, the number of pairs and of DEAD slots,
 * duplicate keys, the bitmaps of chunks, and the retired tables.  If a table is
 * being filled, this also checks it against what was copied into it.  Errors go
 * to the kernel log.
 *
 * Each hold of the map's spinlock covers some chunks.  The check begins again
 * if a writer has changed the map.  After some attempts, it holds the lock for
 * the whole of a small table.  In a large table it goes on and checks each
 * pair, but no sums: it does not check the number of pairs, the number of DEAD
 * slots, or whether filters have bits too many.
 *
 * Context: Process context, outside RCU readers.
 * Return:
 * * %0		- all well
 * * %-EUCLEAN	- at least one invariant is broken
 * * %-EBUSY	- the table was replaced again and again; nothing is known
 * * %-ENOMEM	- no memory for the check; nothing is known
 * * %-EINVAL	- no map
 * * %-EDEADLK	- the caller must not sleep
 */
int __must_check chm_verify(const struct chm *map);

/* Number of hash orders that a walk can go through, see chm_iter_init(). */
#define CHM_ORDERS	4U

/* A prefix of the order that a seed gives all keys: up to and including this pair. */
struct chm_prefix {
	u64	seed[2];
	u64	hash;
	u64	fingerprint;	/* of the key: tells equal hashes apart */
	bool	use_siphash;
	bool	started;	/* otherwise the prefix is empty */
};

/* The position of a walk: it has passed the union of these prefixes. */
struct chm_cursor {
	struct chm_prefix	at[CHM_ORDERS];	/* the first one is of the latest seed */
	u8			orders;
	bool			ended;
	bool			stale;		/* too many seeds: ended early */
};

/* Pairs of one home chunk that a walk looks ahead at. */
#define CHM_AHEAD	8U

/* Where one of them lies. */
struct chm_noted {
	u64	hash;			/* unless any order will do */
	u32	chunk;
	u8	slot;
	bool	tied;			/* another pair has this hash */
};

/* The first of them after the cursor.  They are valid while no slot is reused. */
struct chm_ahead {
	struct chm_noted pairs[CHM_AHEAD];
	unsigned long	seals;		/* of the table, when they were found */
	u32		table;		/* id of that table */
	u32		home;
	u8		n;
	u8		next;		/* index of the next one to return */
	bool		sorted;
	bool		more;		/* this home has others after these */
};

/**
 * struct chm_iter - A walk over a map, see chm_iter_init().
 *
 * This is a plain struct that may be copied, stored, and forgotten: it holds
 * nothing.  It is too large for the ctx of a netlink dump, but that may point
 * to one.
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
 * A walk visits every key that is present throughout exactly once, and any
 * other at most once.  This holds across any number of growths and shrinks
 * (G8).  The order is that of the hashes.  CHM_CELL values are copied as by
 * chm_get().
 *
 * The walk pins nothing, so it can be left unfinished.  If the map takes a
 * fresh seed meanwhile, the walk goes on in the new order, and skips what it
 * has visited in the old ones.  It remembers CHM_ORDERS of them.  After more, it
 * ends early and chm_iter_stale() says so.  A map takes a fresh seed when it is
 * flooded, or when the first pair is inserted after the map was empty.
 *
 * In maps with a custom @equal, an equal key with other bytes may take the place
 * of a key: by a replacement, or by a removal and an insertion.  The above holds
 * for such keys as well if @hash depends on its seed, as jhash() does.  If @hash
 * does not, such a key may come twice, or not at all.  Keys that are not equal
 * must not have equal hashes under every seed: otherwise the walk returns only
 * one of them.
 *
 * Context: Any.
 */
void chm_iter_init(struct chm_iter *it, struct chm *map);

/**
 * chm_iter_next() - Copy out the next pair of a walk.
 * @it: The walk.
 * @key: Receives @key_size bytes; NULL if not wanted.  Undefined at the end.
 * @value: Receives @value_size bytes; NULL if not wanted.  Undefined at the end.
 *
 * This call stays in an RCU reader for at most 64 chunks at a time.  If
 * removals have disturbed it there, it may visit more in one reader, up to
 * twice a probe path.
 *
 * Context: Any; between calls the caller may sleep and change the map.
 * Return: Whether there was a pair.  Once false, it remains false.
 */
bool chm_iter_next(struct chm_iter *it, void *key, void *value);

/**
 * chm_iter_stale() - Tell whether a walk ended before it saw everything.
 * @it: The walk, after chm_iter_next() has returned false.
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
 * Each key is visited at most once, and each that is present throughout exactly
 * once.  Writers go on, but changes in a newer table are not seen.  The
 * pointers are valid until rcu_read_unlock().
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

/* Do keys and values of the walked map have the sizes that this map type expects? */
static inline bool __chm_iter_is_of(const struct chm_iter *it,
				    const struct chm_params *p)
{
	const struct chm_params *q = READ_ONCE(it->map->p);

	/* None: the map was destroyed, and the walk is over. */
	return !q || (q->key_size == p->key_size && q->value_size == p->value_size);
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
 * Types that a map cannot hold, as far as the compiler can tell.
 * scripts/chm-freeze finds such types inside other types.
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
 * Is the lvalue @x a pointer?  In the comma expression an array decays to a pointer, so
 * its type is not that of @x.  (sparse does not know __builtin_classify_type().)
 */
#ifdef __CHECKER__
#define __chm_is_pointer(x)	0
#else
#define __chm_is_pointer(x)						\
	(__builtin_classify_type(x) == __builtin_classify_type((void *)0) && \
	 __same_type(x, ((void)0, x)))
#endif

/*
 * Check a map type where it is defined, and leave a line about it in the
 * module's .modinfo, which is not loaded.  The parameter of the function brings
 * the types of key and value into the debug information.  scripts/chm-freeze
 * reads both.
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
 * module, and lists each use with the reason.  Use this at file scope.  It
 * generates no code.
 */
#define CHM_ASSUME_FROZEN(type, reason)					\
	MODULE_INFO(chm_frozen, #type ": " reason)

/**
 * DECLARE_CHM_TYPE() - Declare a map type in a header.
 * @name: Name of the type, as in struct name.
 *
 * Use this for structures that embed such a map.  The file that uses the map
 * has DEFINE_CHM_FUNCTIONS() in place of DEFINE_CHM_TYPE().
 */
#define DECLARE_CHM_TYPE(name)						\
struct name {								\
	struct chm map;							\
}

/**
 * DEFINE_CHM_TYPE() - Define a map type for one key and one value type.
 * @name: Name of the type, as in struct name, and prefix of its functions.
 * @ktype: Type of the keys.  It must have no padding, or its padding must be
 *	zeroed.  It may be an array, for instance char[16].  All bytes of an
 *	array count.
 * @vtype: Type of the values.
 * @...: Designated initialisers of struct chm_params, except for the sizes.
 *
 * For each chm_foo() that takes a map there is a name_foo() that takes struct name
 * and pointers to these types.  Lookups are inlined and specialised for this key, value and
 * hash.  Everything else is as documented for chm_foo().
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
 * @name: As for DECLARE_CHM_TYPE().
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
	.key_is_pointer = __chm_is_pointer(((struct name##_slot *)0)->key),	\
	.value_is_pointer = __chm_is_pointer(((struct name##_slot *)0)->value),	\
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
	BUILD_BUG_ON_MSG(__builtin_constant_p(i) &&			\
			 i >= sizeof(vtype) / sizeof(long),		\
			 "chm: the value has no such word");		\
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
static __always_inline unsigned long					\
name##_remove_many(struct name *m, typeof(ktype) const *keys,		\
		   unsigned long n)					\
{									\
	return chm_remove_many(&m->map, keys, n);			\
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
	if (WARN_ON_ONCE(!__chm_iter_is_of(it, &name##_params)))	\
		return false;						\
	return chm_iter_next(it, key, value);				\
}

/**
 * DEFINE_CHM_OF() - Define a map of a type that DEFINE_CHM_TYPE() made.
 * @type: That type's name.
 * @name: The map's name; may be preceded by static.
 *
 * Like DEFINE_CHM().
 */
#define DEFINE_CHM_OF(type, name)					\
	struct type name = {						\
		.map = CHM_INITIALIZER((name).map, &type##_params)	\
	}

#if IS_ENABLED(CONFIG_KUNIT)
/* Tests may redirect these for their own calls: see KUNIT_STATIC_STUB_REDIRECT(). */
void *chm_alloc(u64 bytes, gfp_t gfp);
void chm_table_free(struct chm_table *t);
void chm_stored(const struct chm_table *t);
void chm_half_read(void);
void chm_found_no_room(struct chm *map, bool planned);
void chm_waited(struct chm *map);

/* What chm_alloc() does unless it is redirected. */
void *__chm_alloc(u64 bytes, gfp_t gfp);

/*
 * chm_step_chunks: chunks that each write copies, 0 for the default.
 * chm_restless: migrate all the time.
 */
extern unsigned int chm_step_chunks;
extern bool chm_restless;

/*
 * For torture, NULL for the default.
 *
 * @dawdle: Called after each store to a control word, with the map's lock held and
 *	interrupts off.  Two stores are so close that readers on another CPU hardly
 *	ever see what is between them, unless this takes its time.
 */
struct chm_torture {
	void	(*dawdle)(void);
};

extern const struct chm_torture *chm_torture;
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
