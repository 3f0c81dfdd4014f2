// SPDX-License-Identifier: GPL-2.0-only
/*
 * chm - concurrent hash map: lock-free lookups, pairs inline, one buffer
 *
 * Terms are those of chm.h, tags and masks those of chm_chunk.h.
 *
 * Sources
 *	Chunks with an overflow byte: F14 (Bronson and Shi, Meta).  Pairs and
 *	metadata inline in one buffer, tags matched in a word: SwissTable and
 *	hashbrown.  Growth by copying a frozen table and switching a pointer:
 *	fs/file.c.  Removed slots that wait for a polled grace period:
 *	scc::HashIndex, lib/stackdepot.c.
 *
 * Operations
 *	Lookup: load the table pointer once, then each chunk's control word
 *	once, along the probe path, until a key matches or an overflow filter
 *	says that nothing went further.  A hit outside the home chunk looks
 *	back over the chunks it passed (O4).
 *	Insert: write the slot, set its bit in the overflow filters on the way,
 *	publish its tag.
 *	Remove: turn the tag DEAD, clear those bits that no other pair needs if
 *	that is soon found out.
 *	The slot becomes EMPTY when a grace period is over and drop() has run.
 *	Walk: the chunks that are marked as occupied, in the order of hashes.
 *	Replace: write a new slot in the same chunk, or further along the
 *	path, and switch; CHM_WORD values are overwritten in place.
 *	Migrate: fill another table aside, some chunks in each hold of the lock;
 *	a write to a chunk that was copied already is done in both tables;
 *	publish the new table when all is copied, retire the old one, and free it
 *	after a grace period without dropping what moved.
 *	Values that readers update (CHM_CELL) are noted as they are copied;
 *	after a grace period the updates that the old ones have got since are
 *	added to the new ones.
 *
 * Locking
 *	map->lock, a spinlock taken with interrupts off, excludes writers.  A hold
 *	takes a bounded number of chunks.  Under it no drop() runs, nobody waits, and
 *	nothing is allocated, except by clone().  chm_worker.lock is outside of
 *	map->lock.  It protects the lists of maps that the worker has to visit, and
 *	the pointer to the map that it is at.  map->busy is outside of both.  It
 *	makes the writers of a CHM_SYNC map wait for one another.
 *
 * Ordering (store side | load side | without it)
 *	O1  release store of a control word | acquire load | a FULL tag is
 *	    seen before the bytes of its slot, or of a neighbour's: a plain
 *	    store would break the neighbours' release sequences.
 *	O2  overflow filters before the tag | probe order, acquire | a pair is
 *	    found, and then one that was inserted before it is not.  DEAD before
 *	    the filters are lowered | tag, filter, tag | a walk shows a pair twice.
 *	O3  displaced replace: new tag before DEAD | probe order, acquire |
 *	    the key is missed while it is present.
 *	O4  (no store of its own) | look back | a lookup finds the new value
 *	    and a later one the old value.
 *	O5  DEAD before the cookie, cookie elapsed before the slot is written
 *	    or dropped | end of the reader's section | a reader sees another
 *	    pair's bytes.
 *	O6  rcu_assign_pointer() of a complete table | rcu_dereference() | a
 *	    reader misses pairs that were migrated.
 *	O7  grace period between publication and freeing | end of the reader's
 *	    section | use after free.
 *	O8  one store of a CHM_WORD value | one load, acquire | a mixture of two
 *	    values; after a new word a miss of a key that was there before it.
 *	O9  new cells published, grace period, then old cells read for what was
 *	    added to them since they were copied | end of the section that
 *	    updates a cell | updates are lost.
 *	O10 mark, addition to the new cell, mark | mark, cells, mark |
 *	    chm_cell_read() counts an update twice, or not at all.  Likewise when
 *	    a writer exchanges a cell: sequence, cell and snapshot, sequence.
 *	O11 chunk marked as occupied before a pair in it is visible | a walk looks
 *	    for marks, then at chunks | a walk misses a pair that was found before.
 *	O12 plain stores of many writers to the table that is filled, lock, publication
 *	    by the last of them | as O6 | as O6: unlock and lock carry the earlier
 *	    ones' stores to the one that publishes.
 *	O13 worker has dropped, lock, slot EMPTY | lock of the writer that reuses it |
 *	    drop() works on another pair's bytes.
 *	O14 number of seals before slots that were sealed are reused | tag, then
 *	    number | a walk takes another pair for one that it has noted.
 *
 * Guarantees G1-G12 are stated in Documentation/chm.rst, the reasons and the
 * rejected alternatives in Documentation/design.rst.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ctype.h>
#include <linux/debugfs.h>
#include <linux/kcsan-checks.h>
#include <linux/irq_work.h>
#include <linux/irqflags.h>
#include <linux/jiffies.h>
#include <linux/jump_label.h>
#include <linux/kmemleak.h>
#include <linux/ktime.h>
#include <linux/log2.h>
#include <linux/math64.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/preempt.h>
#include <linux/random.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/siphash.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <linux/wait_bit.h>
#include <linux/workqueue.h>

#include "chm.h"
#include "chm_compat.h"

#define CREATE_TRACE_POINTS
#include "chm_trace.h"

/* === Data ================================================================ */

/* More chunks than a table may have: chm_home() needs some bits to spare. */
#define CHM_MAX_CHUNKS		BIT_ULL(31)

/* Retired tables may take so much, or as much as the active one. */
#define CHM_RETIRED_MIN		SZ_1M

/*
 * A probe path this long means an attack or a bad hash.  With a good hash a path
 * of k chunks has a probability of about exp(-1.35 k) in a table half full, and
 * exp(-0.16 k) at a load of 0.8: none in 2^31 chunks is that long.  With the
 * three slots of 32-bit machines these are exp(-0.58 k) and exp(-0.07 k).  Fuller
 * tables, if that is what their owner wants, have paths of hundreds of chunks.
 */
#define CHM_PROBE_LIMIT_HALF	(224U / CHM_SLOTS)	/* up to half full */
#define CHM_PROBE_LIMIT		(1792U / CHM_SLOTS)	/* up to 80 percent */
#define CHM_PROBE_LIMIT_90	(7168U / CHM_SLOTS)	/* up to 90 percent */
#define CHM_PROBE_LIMIT_FULL	(28672U / CHM_SLOTS)	/* beyond that */

/* So many long paths until a defence that was not possible is tried again. */
#define CHM_DEFEND_AGAIN	256U

/*
 * How far from home DEAD slots may drive a pair: see chm_reach().  A lookup that
 * visits 1024 chunks takes some 5 us.  From CHM_STRAYED on the pair is to come
 * home again when the map is calm.
 */
#define CHM_REACH_MIN		63U
#define CHM_REACH_MAX		1024U
#define CHM_STRAYED		16U

/* Chunks that are searched for a reason not to clear a bit of a filter. */
#define CHM_LOWER_LIMIT		64U

/*
 * Chunks that are copied or merged in one hold of the lock.  If each write copies four,
 * a table whose migration begins at a load of 0.80 has 0.84 at the end (design.rst).
 */
#define CHM_WRITER_STEP		4U
#define CHM_WRITER_STEP_MAX	32UL
#define CHM_WORKER_STEP		16U
#define CHM_FLOOD_STEP		64U

/* What copying a small pair takes, about (speed.rst). */
#define CHM_COPY_NS		16U

/* Where paths are long, a hold ends early: when pairs have passed this many chunks. */
#define CHM_STEP_WALK		1024U

/*
 * Holds of the lock in one turn of the worker.  A writer that must not sleep and finds
 * the table full takes up to four times as many.
 */
#define CHM_TURN		64U

/* A table so large, or smaller, is allocated by the writer that needs it. */
#define CHM_SMALL		SZ_32K

/* The slack of a larger one, up to this, is used up in no time: ask early. */
#define CHM_MIDDLING		SZ_1M

/* DEAD slots that become EMPTY in one hold, and chunks that may be looked at. */
#define CHM_WRITER_SWEEP	8U
#define CHM_POLL_EVERY		4U	/* writes per poll: fewer than CHM_WRITER_SWEEP */
#define CHM_LOOK_EVERY		16UL	/* pairs and DEAD slots per look at what is due */
#define CHM_FEW_CHUNKS		8U	/* poll at each write: a path may soon be full */
#define CHM_WORKER_SWEEP	64U
#define CHM_SWEEP_CHUNKS	(32U * BITS_PER_LONG)

/* Pairs that are dropped in one turn; and when it ends, if drop() is slow. */
#define CHM_DROPS		64U
#define CHM_DROPS_NS		NSEC_PER_MSEC

/* Attempts to make room before -ENOMEM; attempts to get a slot nearer to home. */
#define CHM_ATTEMPTS		32U
#define CHM_NEAR_TRIES		4U

/* Chunks that a walk visits in one read-side section. */
#define CHM_SECTION		64U

/* So many chunks ahead of a walk are prefetched. */
#define CHM_WALK_PREFETCH	6U

/* Chunks between two chances to reschedule, at most; see chm_range(). */
#define CHM_RANGE		1024U

/* What chm_store() may do about a key. */
#define CHM_CREATE		BIT(0)
#define CHM_UPDATE		BIT(1)
#define CHM_ZEROES		BIT(2)	/* no value: zeroes, but for one word */
#define CHM_HAND_OUT		BIT(3)	/* the old pair, which is not dropped */
#define CHM_FETCH		BIT(4)	/* copy out the value that is present */
#define CHM_ANYWHERE		BIT(5)	/* as far from home as there is room */
#define CHM_DETAILS		BIT(6)	/* see struct chm_op; few writers want any */

/* Where a pair is, or could be. */
struct chm_place {
	struct chm_chunk	*c;
	u32			chunk;
	u32			distance;	/* from the home chunk */
	u32			slot;
};

/* What a writer is to do, and what came of it. */
struct chm_op {
	const void	*key;
	const void	*value;		/* NULL: see CHM_ZEROES */
	/* With CHM_DETAILS: */
	const void	*expected;	/* NULL: any value may be there */
	void		*old_key;	/* NULL: not wanted */
	void		*old_value;	/* likewise */
	struct chm_place at;		/* where a pair was removed */
	struct chm_table *from;		/* from this table */

	const void	*found;		/* the value in the map */
	u32		due;		/* distance where a pair that lies far is due */
	unsigned int	how;
	unsigned int	word;		/* for CHM_ZEROES: index of a word */
	long		amount;		/* for CHM_ZEROES: initial value of that word */
	bool		too_far;	/* the nearest EMPTY slot is too far */
	bool		stuck;		/* there is no EMPTY slot on the path */
	bool		optional;	/* the table: readers could be waited for instead */
	u32		id;		/* of the table that was tried */
	unsigned int	tries;		/* to find a slot that is nearer to home */
	unsigned int	attempts;	/* to make room */
	u16		aborts;		/* map->aborts at the last attempt */
};

/*
 * Field by field, and no others: for @op is __uninitialized.  To clear all of it, as
 * CONFIG_INIT_STACK_ALL_ZERO or an initializer would, takes gcc a string instruction of
 * 14 ns, in each write.
 */
static __always_inline void chm_op_init(struct chm_op *op, const void *key,
					const void *value, unsigned int how)
{
	op->key = key;
	op->value = value;
	op->how = how;
	op->tries = 0;
	op->attempts = 0;
	op->aborts = 0;
}

static __always_inline void chm_op_details(struct chm_op *op, const void *expected,
					   void *old_key, void *old_value)
{
	op->expected = expected;
	op->old_key = old_key;
	op->old_value = old_value;
	op->how |= CHM_DETAILS;
}

/* Where a migration stands.  Under map->lock. */
enum chm_phase {
	CHM_IDLE,
	CHM_WANTED,		/* the worker looks for memory */
	CHM_COPYING,		/* map->next is being filled */
	CHM_SETTLING,		/* CHM_CELL: old cells may still be updated */
	CHM_MERGING,		/* CHM_CELL: they are final */
};

/*
 * What was copied from a table into its successor, as it was at that time.  In CHM_CELL
 * maps these are values: the updates that the old cells have got since are still to be
 * added to the new ones.  In other maps these are pairs, which must not have changed
 * since: CONFIG_CHM_DEBUG checks that.
 */
struct chm_snapshot {
	struct chm_table	*from;		/* what was copied */
	size_t			bytes;		/* of all this */
	unsigned long		slots;		/* that there is room for */
	unsigned long		cookie;		/* CHM_CELL: when old cells are final */
	unsigned long		merged;		/* how far, see chm_merge_begin() */
	u32			cursor;		/* chunks of @from that are merged */
	unsigned int		seq;		/* odd: a cell is being exchanged */
	u32			*where;		/* CHM_CELL: slots in the new table */
	u8			copies[] __aligned(CHM_SLOT_ALIGN); /* by slots */
};

/* At the end of each table whose map has snapshots taken. */
struct chm_snapshots {
	struct chm_snapshot	*pending;	/* to be merged into this table */
	struct chm_snapshot	*spent;		/* of this table; freed with it */
};

/* What a new table's seed shall be. */
enum chm_seeding {
	CHM_SAME_SEED,
	CHM_NEW_SEED,
	CHM_NEW_SIPHASH,	/* and SipHash, where chm chooses the hash */
};

/* The directory of a map in debugfs. */
struct chm_debugfs {
	struct chm	*map;
	struct dentry	*dir;
	char		name[64];
	int		error;		/* why it is not complete; 0: it is */
	bool		dying;		/* the map is being destroyed */
	struct mutex	lock;		/* of all below */
	bool		has_key;
	u8		key[];		/* what the file lookup has found last */
};

/* === Parameters ========================================================== */

static u32 chm_max_load(const struct chm_params *p)
{
	return p->max_load ?: 80;
}

static u32 chm_value_offset(const struct chm_params *p)
{
	return p->value_offset ?: ALIGN(p->key_size,
					chm_natural_align(p->value_size));
}

static u32 chm_slot_size(const struct chm_params *p)
{
	u32 align = max(chm_natural_align(p->key_size),
			chm_natural_align(p->value_size));

	return p->slot_size ?: ALIGN(chm_value_offset(p) + p->value_size, align);
}

static bool chm_sizes_valid(const struct chm_params *p)
{
	return p->key_size && p->key_size <= CHM_KEY_MAX &&
	       p->value_size <= CHM_VALUE_MAX &&
	       p->value_offset <= CHM_KEY_MAX &&
	       p->slot_size <= CHM_KEY_MAX + CHM_VALUE_MAX &&
	       chm_value_offset(p) >= p->key_size &&
	       chm_slot_size(p) >= chm_value_offset(p) + p->value_size;
}

/* chm adds to words, which must be aligned.  merge() handles other layouts itself. */
static int chm_check_cell(const struct chm_params *p)
{
	if (p->clone || !p->value_size)
		return -EINVAL;
	if (p->merge)
		return 0;
	return (p->value_size | chm_value_offset(p) | chm_slot_size(p)) %
	       sizeof(long) ? -EINVAL : 0;
}

static int chm_check_class(const struct chm_params *p)
{
	switch (p->class) {
	case CHM_FROZEN:
		return p->clone || p->merge ? -EINVAL : 0;
	case CHM_WORD:
		if (p->clone || p->merge)
			return -EINVAL;
		if (!is_power_of_2(p->value_size) ||
		    p->value_size > sizeof(long))
			return -EINVAL;
		return (chm_value_offset(p) | chm_slot_size(p)) &
		       (p->value_size - 1) ? -EINVAL : 0;
	case CHM_CLONE:
		return !p->clone || p->merge ? -EINVAL : 0;
	case CHM_CELL:
		return chm_check_cell(p);
	}
	return -EINVAL;
}

static int chm_params_check(const struct chm_params *p)
{
	if (!chm_sizes_valid(p))
		return -EINVAL;
	if (chm_max_load(p) < 25 || chm_max_load(p) > 95)
		return -EINVAL;
	if (p->growth && (p->growth < 110 || p->growth > 400))
		return -EINVAL;
	if (p->max_entries && p->min_entries > p->max_entries)
		return -EINVAL;
	if (p->reclaim != CHM_DEFERRED && p->reclaim != CHM_SYNC)
		return -EINVAL;
	if ((p->key_is_pointer && p->key_size != sizeof(void *)) ||
	    (p->value_is_pointer && p->value_size != sizeof(void *)))
		return -EINVAL;
	return chm_check_class(p);
}

/* For messages. */
static const char *chm_name(const struct chm *map)
{
	return map && map->debugfs ? map->debugfs->name : "without a name";
}

/* === Layout ============================================================== */

/* The active table, for writers. */
static struct chm_table *chm_table(const struct chm *map)
{
	return rcu_dereference_protected(map->tbl, lockdep_is_held(&map->lock));
}

static unsigned long chm_nr_slots(const struct chm_table *t)
{
	return (unsigned long)t->nr_chunks * CHM_SLOTS;
}

/* Slots beyond the maximum load. */
static unsigned long chm_spare(const struct chm_table *t)
{
	return chm_nr_slots(t) - t->max_entries;
}

/* Pairs at which a table that will be needed in no time is asked for. */
static unsigned long chm_early(const struct chm_table *t)
{
	return t->max_entries - t->max_entries / 8;
}

static unsigned long chm_nr_dead(const struct chm_table *t)
{
	return t->dead[0] + t->dead[1];
}

/* Does a migration of such a map take a snapshot of what it copies? */
static bool chm_takes_snapshots(const struct chm_params *p)
{
	return p->class == CHM_CELL || IS_ENABLED(CONFIG_CHM_DEBUG);
}

/* Chunks to copy, or to compare, between two chances to reschedule. */
static u32 chm_range(const struct chm_table *t)
{
	return clamp((u32)SZ_256K / t->stride, 1U, CHM_RANGE);
}

static u64 chm_chunks_bytes(const struct chm_params *p, u64 nr_chunks)
{
	return nr_chunks * chm_stride(chm_slot_size(p));
}

/*
 * Behind the chunks: a bitmap of those that have DEAD slots; one of those that
 * are occupied, as chm_occupies() says; and one of the words of that which are
 * not 0.
 */
static u64 chm_bitmap_longs(u32 nr_chunks)
{
	u64 longs = BITS_TO_LONGS(nr_chunks);

	return 2 * longs + BITS_TO_LONGS(longs);
}

static unsigned long *chm_dead_chunks(const struct chm_table *t)
{
	return (void *)__chm_chunk(t, t->nr_chunks, t->p);
}

static unsigned long *chm_occupied(const struct chm_table *t)
{
	return chm_dead_chunks(t) + BITS_TO_LONGS(t->nr_chunks);
}

static unsigned long *chm_occupied_words(const struct chm_table *t)
{
	return chm_occupied(t) + BITS_TO_LONGS(t->nr_chunks);
}

/* What is in a table. */
static u64 chm_table_used(const struct chm_params *p, u64 nr_chunks)
{
	u64 bytes = sizeof(struct chm_table) + chm_chunks_bytes(p, nr_chunks) +
		    chm_bitmap_longs(nr_chunks) * sizeof(long);

	if (chm_takes_snapshots(p))
		bytes += sizeof(struct chm_snapshots);
	return bytes;
}

/* What is allocated for it. */
static u64 chm_table_bytes(const struct chm_params *p, u64 nr_chunks)
{
	u64 bytes = chm_table_used(p, nr_chunks);

	/* Chunks begin at cache lines: kmalloc() aligns only such sizes. */
	if (bytes < PAGE_SIZE)
		return roundup_pow_of_two((unsigned long)bytes);
	return round_up(bytes, PAGE_SIZE);
}

/* As many chunks as fit into what is allocated for @chunks. */
static u64 chm_chunks_filling(const struct chm_params *p, u64 chunks)
{
	u64 bytes = chm_table_bytes(p, chunks);
	u32 more = (u32)(bytes - chm_table_used(p, chunks)) /
		   (u32)chm_stride(chm_slot_size(p));

	/* Their bits take some bytes, too. */
	while (more && chm_table_used(p, chunks + more) > bytes)
		more--;
	return min(chunks + more, max_t(u64, chunks, CHM_MAX_CHUNKS));
}

/* Fewest chunks that hold @entries pairs at maximum load, and no more memory. */
static u64 chm_chunks_for(const struct chm_params *p, u64 entries)
{
	u64 slots, chunks;

	if (entries > CHM_MAX_CHUNKS * CHM_SLOTS)
		return U64_MAX;
	slots = div_u64(entries * 100 + chm_max_load(p) - 1, chm_max_load(p));
	chunks = max_t(u64, div_u64(slots + CHM_SLOTS - 1, CHM_SLOTS), 1);
	return chm_chunks_filling(p, chunks);
}

/* Of a table whose map takes them. */
static struct chm_snapshots *chm_snapshots(const struct chm_table *t)
{
	return (void *)(chm_dead_chunks(t) + chm_bitmap_longs(t->nr_chunks));
}

/* What is still to be merged into @t, for writers; NULL: nothing. */
static struct chm_snapshot *chm_pending(const struct chm_table *t)
{
	return chm_takes_snapshots(t->p) ? chm_snapshots(t)->pending : NULL;
}

/* The snapshot taken of @t, with nothing left to merge; NULL: there is none. */
static struct chm_snapshot *chm_spent(const struct chm_table *t)
{
	return chm_takes_snapshots(t->p) ? chm_snapshots(t)->spent : NULL;
}

/* What of a slot is noted: the value of a cell, or the whole pair. */
static u32 chm_noted_offset(const struct chm_params *p)
{
	return p->class == CHM_CELL ? chm_value_offset(p) : 0;
}

static u32 chm_noted_size(const struct chm_params *p)
{
	return p->class == CHM_CELL ? p->value_size : chm_slot_size(p);
}

/* What was copied from slot number @nr. */
static void *chm_noted(struct chm_snapshot *s, const struct chm_params *p,
		       unsigned long nr)
{
	return s->copies + nr * chm_noted_size(p);
}

/*
 * The bytes of a table, and of all that is to be freed with it.  Snapshots that are
 * only for debugging do not count: no writer shall wait because of them.
 */
static size_t chm_bytes(const struct chm_table *t)
{
	size_t bytes = chm_table_bytes(t->p, t->nr_chunks);

	if (t->p->class != CHM_CELL)
		return bytes;
	if (chm_spent(t))
		bytes += chm_spent(t)->bytes;
	if (chm_pending(t)) {
		bytes += chm_pending(t)->bytes;
		if (chm_pending(t)->from)
			bytes += chm_bytes(chm_pending(t)->from);
	}
	return bytes;
}

/* For their ids. */
static atomic_t chm_tables;

static bool chm_in_a_hurry(u64 bytes)
{
	return bytes > CHM_SMALL && bytes <= CHM_MIDDLING;
}

/* Slots stay as the allocator left them: only FULL ones are ever read. */
static void chm_table_init(struct chm_table *t, const struct chm_params *p,
			   void *ctx, u32 nr_chunks, bool block)
{
	u32 i;

	memset(t, 0, sizeof(*t));
	t->nr_chunks = nr_chunks;
	t->slot_size = chm_slot_size(p);
	t->value_offset = chm_value_offset(p);
	t->stride = chm_stride(t->slot_size);
	t->slots_offset = chm_slots_offset(t->slot_size);
	t->p = p;
	t->ctx = ctx;
	/* 0 means no table: skip it when the counter wraps. */
	t->id = atomic_inc_return(&chm_tables) ?: atomic_inc_return(&chm_tables);
	t->max_entries = max_t(u64, 1, div_u64((u64)chm_nr_slots(t) *
					       chm_max_load(p), 100));
	t->hard_entries = t->max_entries + chm_spare(t) / 2;
	t->ask_entries = t->max_entries;
	if (chm_in_a_hurry(chm_table_bytes(p, nr_chunks)))
		t->ask_entries = chm_early(t);
	memset(chm_dead_chunks(t), 0, chm_bitmap_longs(nr_chunks) * sizeof(long));
	if (chm_takes_snapshots(p))
		*chm_snapshots(t) = (struct chm_snapshots) { };
	for (i = 0; i < nr_chunks; i++) {
		__chm_chunk(t, i, p)->ctrl = 0;
		if (block && i % CHM_RANGE == CHM_RANGE - 1)
			cond_resched();
	}
}

/*
 * Would the caller, or a reader that it interrupts, never go on if it slept?  As far
 * as the kernel can tell: without CONFIG_PREEMPT_COUNT spinlocks leave no trace.
 */
static bool chm_must_not_sleep(void)
{
#ifdef CONFIG_PROVE_RCU
	/* Not LOCK_STATE_UNKNOWN: lockdep gives up after its first report. */
	if (lock_is_held(&rcu_lock_map) == LOCK_STATE_HELD)
		return true;
#endif
	return preempt_count() || irqs_disabled() || rcu_preempt_depth();
}

/*
 * For a table that the caller can do without: rather none than a process killed
 * for memory, or much of it reclaimed.
 */
static gfp_t chm_optional(gfp_t gfp)
{
	return (gfp & ~__GFP_NOFAIL) | __GFP_NORETRY;
}

/*
 * Contiguous memory, as kvmalloc() tries it first: without direct reclaim, if there
 * may be vmalloc() after it.  More than a page is not rounded up to a power of two,
 * which would be nearly half as much again on the average.
 */
static void *chm_alloc_contiguous(u64 bytes, gfp_t gfp, bool more_ways)
{
	void *p;

	if (bytes <= PAGE_SIZE)
		return kmalloc(bytes, gfp);
	if (bytes > KMALLOC_MAX_SIZE)
		return NULL;
	if (more_ways)
		gfp &= ~(__GFP_DIRECT_RECLAIM | __GFP_NOFAIL);
	p = alloc_pages_exact(bytes, gfp);
	/* As kmalloc() does: the pairs may have the only pointers to something. */
	if (p)
		kmemleak_alloc(p, bytes, 1, gfp);
	return p;
}

/* Beyond KMALLOC_MAX_SIZE kvmalloc() has huge pages, but refuses more than INT_MAX. */
static void *chm_alloc_mapped(u64 bytes, gfp_t gfp)
{
	void *p = NULL;

	if (bytes > KMALLOC_MAX_SIZE && bytes <= INT_MAX)
		p = kvmalloc(bytes, gfp);
	/* In older kernels it has no second way for those that must not reclaim. */
	if (!p && (bytes <= KMALLOC_MAX_SIZE || bytes > INT_MAX ||
		   !gfpflags_allow_blocking(gfp)))
		p = __vmalloc(bytes, gfp);
	return p;
}

/* Without a test in the way */
VISIBLE_IF_KUNIT void *__chm_alloc(u64 bytes, gfp_t gfp)
{
	/* vmalloc() sleeps in older kernels, whatever it is told. */
	bool may_map = bytes > PAGE_SIZE && (gfpflags_allow_blocking(gfp) ||
		       (!chm_must_not_sleep() && IS_ENABLED(CONFIG_PREEMPT_COUNT)));
	void *p;

	if (bytes > LONG_MAX)
		return ERR_PTR(-E2BIG);
	gfp |= __GFP_NOWARN;
	p = chm_alloc_contiguous(bytes, gfp, may_map);
	if (!p && may_map)
		p = chm_alloc_mapped(bytes, gfp);
	return p ?: ERR_PTR(-ENOMEM);
}

#if IS_ENABLED(CONFIG_KUNIT)
EXPORT_SYMBOL_GPL(__chm_alloc);
#endif

/* For a table, or what goes with it.  A place for tests to take part. */
VISIBLE_IF_KUNIT void *chm_alloc(u64 bytes, gfp_t gfp)
{
	KUNIT_STATIC_STUB_REDIRECT(chm_alloc, bytes, gfp);
	return __chm_alloc(bytes, gfp);
}

#if IS_ENABLED(CONFIG_KUNIT)
EXPORT_SYMBOL_GPL(chm_alloc);
#endif

/* @p has @bytes, and is from chm_alloc(). */
static void chm_free(void *p, u64 bytes)
{
	if (bytes <= PAGE_SIZE || is_vmalloc_addr(p)) {
		kvfree(p);
		return;
	}
	kmemleak_free(p);
	free_pages_exact(p, bytes);
}

static struct chm_table *chm_table_alloc(const struct chm_params *p, void *ctx,
					 u64 nr_chunks, gfp_t gfp)
{
	struct chm_table *t;

	if (nr_chunks > CHM_MAX_CHUNKS)
		return ERR_PTR(-E2BIG);
	/* See chm_snapshot.where. */
	if (p->class == CHM_CELL && nr_chunks > U32_MAX / CHM_SLOTS)
		return ERR_PTR(-E2BIG);
	t = chm_alloc(chm_table_bytes(p, nr_chunks), gfp);
	if (!IS_ERR(t))
		chm_table_init(t, p, ctx, nr_chunks, gfpflags_allow_blocking(gfp));
	return t;
}

/* Of what is noted of a table of @nr_chunks. */
static u64 chm_snapshot_bytes(const struct chm_params *p, u32 nr_chunks)
{
	u64 slots = (u64)nr_chunks * CHM_SLOTS;
	u64 copies = ALIGN(slots * chm_noted_size(p), sizeof(u32));

	return sizeof(struct chm_snapshot) + copies +
	       (p->class == CHM_CELL ? slots * sizeof(u32) : 0);
}

/* Have @fresh keep room for what it gets from a table of @nr_chunks. */
static int chm_snapshot_alloc(struct chm_table *fresh, u32 nr_chunks, gfp_t gfp)
{
	unsigned long slots = (unsigned long)nr_chunks * CHM_SLOTS;
	u64 bytes = chm_snapshot_bytes(fresh->p, nr_chunks);
	struct chm_snapshot *s = chm_alloc(bytes, gfp);

	if (IS_ERR(s))
		return PTR_ERR(s);
	*s = (struct chm_snapshot) { .bytes = bytes, .slots = slots };
	s->where = (void *)s + bytes - slots * sizeof(u32);
	chm_snapshots(fresh)->pending = s;
	return 0;
}

static void chm_snapshot_free(struct chm_snapshot *s)
{
	if (s)
		chm_free(s, s->bytes);
}

/* Is the room that @fresh has for a snapshot that of a table of @nr_chunks, or more? */
static bool chm_snapshot_fits(const struct chm_table *fresh, u32 nr_chunks)
{
	const struct chm_snapshot *s = chm_pending(fresh);

	if (!nr_chunks || !chm_takes_snapshots(fresh->p))
		return !s;
	return s && s->slots >= (unsigned long)nr_chunks * CHM_SLOTS;
}

/* Let it be so; @fresh was not published yet. */
static int chm_snapshot_fit(struct chm_table *fresh, u32 nr_chunks, gfp_t gfp)
{
	if (chm_snapshot_fits(fresh, nr_chunks))
		return 0;
	chm_snapshot_free(chm_pending(fresh));
	chm_snapshots(fresh)->pending = NULL;
	return nr_chunks ? chm_snapshot_alloc(fresh, nr_chunks, gfp) : 0;
}

/* A place for tests to take part. */
VISIBLE_IF_KUNIT void chm_table_free(struct chm_table *t)
{
	KUNIT_STATIC_STUB_REDIRECT(chm_table_free, t);
	if (chm_takes_snapshots(t->p)) {
		chm_snapshot_free(chm_snapshots(t)->pending);
		chm_snapshot_free(chm_snapshots(t)->spent);
	}
	chm_free(t, chm_table_bytes(t->p, t->nr_chunks));
}

#if IS_ENABLED(CONFIG_KUNIT)
EXPORT_SYMBOL_GPL(chm_table_free);
#endif

/*
 * A table of @nr_chunks, to replace one of @old_chunks; 0: none.  It takes no map: the
 * worker's may be gone when it does not hold the lock.
 */
static struct chm_table *chm_table_build(const struct chm_params *p, void *ctx,
					 u64 nr_chunks, u32 old_chunks, gfp_t gfp)
{
	struct chm_table *fresh = chm_table_alloc(p, ctx, nr_chunks, gfp);
	int ret;

	if (IS_ERR(fresh))
		return fresh;
	ret = chm_snapshot_fit(fresh, old_chunks, gfp);
	if (!ret)
		return fresh;
	chm_table_free(fresh);
	return ERR_PTR(ret);
}

/* === Lookup ============================================================== */

u64 chm_siphash(const struct chm_table *t, const void *key, u32 len)
{
	const siphash_key_t k = { .key = { t->seed[0], t->seed[1] } };

	return siphash(key, len, &k);
}
EXPORT_SYMBOL_GPL(chm_siphash);

/* The value of @key in chunk @chunk, as it is right now. */
static __always_inline const void *
chm_probe(const struct chm_table *t, u32 chunk, const void *key, u64 hash,
	  const struct chm_params *p, unsigned long *ctrl)
{
	const struct chm_chunk *c = __chm_chunk(t, chunk, p);

	/*
	 * O1, O2, O3: acquire, in probe order.  Pairs with chm_set_ctrl().
	 * Without it the reader could load a later chunk's word first, and
	 * miss a pair that was published there before it died here.
	 */
	*ctrl = smp_load_acquire(&c->ctrl);
	return __chm_search_chunk(t, c, *ctrl, key, hash, p);
}

/*
 * O4: a hit at @distance from home is not final.  Pairs with
 * chm_replace_beyond().
 *
 *	reader			writer
 *	passes chunk 0
 *				inserts the key into chunk 0
 *				replaces it: new pair in chunk 1, ...
 *	finds the new pair
 *				... old pair in chunk 0 dies
 *
 * Before the last step another lookup finds the old pair in chunk 0: newer
 * first, older second.  So load the words of the chunks that were passed once
 * more; a pair there is what a lookup that begins now would find, and only the
 * chunks before it are left to be looked at.  @distance only falls: no retry.
 */
static const void *chm_look_back(const struct chm_table *t, const void *key,
				 u64 hash, const struct chm_params *p,
				 u32 distance, const void *found)
{
	u32 home = chm_home(hash, t->nr_chunks);
	u32 chunk = home;
	unsigned long ctrl;
	u32 i = 0;

	while (i < distance) {
		const void *earlier = chm_probe(t, chunk, key, hash, p, &ctrl);

		if (earlier) {
			found = earlier;
			distance = i;
			chunk = home;
			i = 0;
		} else {
			chunk = chm_next_chunk(chunk, t->nr_chunks);
			i++;
		}
	}
	return found;
}

/*
 * Is the home chunk as it was when its word was @ctrl?  A slot that was FULL
 * then is not reused while this reader is at it: equal words mean equal FULL
 * slots, none with the key, and there is nothing to look back at (O4).
 */
static bool chm_home_unchanged(const struct chm_table *t, u64 hash,
			       const struct chm_params *p, unsigned long ctrl)
{
	const struct chm_chunk *c;

	c = __chm_chunk(t, chm_home(hash, t->nr_chunks), p);
	/*
	 * O4: a load of its own, after that of the chunk with the pair.  Pairs with
	 * chm_replace_beyond(), as chm_look_back() does.
	 */
	return smp_load_acquire(&c->ctrl) == ctrl;
}

/*
 * The lookup beyond the home chunk, whose word was @home_ctrl.  All overflow
 * filters can be full at once, so the number of chunks bounds the walk, too.
 */
const void *chm_lookup_displaced(const struct chm_table *t, const void *key,
				 u64 hash, const struct chm_params *p,
				 unsigned long home_ctrl)
{
	u32 chunk = chm_home(hash, t->nr_chunks);
	unsigned long ctrl;
	u32 distance;

	for (distance = 1; distance < t->nr_chunks; distance++) {
		const void *value;

		chunk = chm_next_chunk(chunk, t->nr_chunks);
		value = chm_probe(t, chunk, key, hash, p, &ctrl);
		if (value) {
			if (distance == 1 &&
			    chm_home_unchanged(t, hash, p, home_ctrl))
				return value;
			return chm_look_back(t, key, hash, p, distance, value);
		}
		if (!chm_overflows(ctrl, hash))
			break;
	}
	return NULL;
}
EXPORT_SYMBOL_GPL(chm_lookup_displaced);

const void *chm_lookup(const struct chm *map, const void *key)
{
	return __chm_lookup(map, key, NULL);
}
EXPORT_SYMBOL_GPL(chm_lookup);

bool chm_get(const struct chm *map, const void *key, void *value)
{
	return __chm_get(map, key, value, NULL);
}
EXPORT_SYMBOL_GPL(chm_get);

unsigned int chm_lookup_many(const struct chm *map, const void *keys,
			     unsigned int n, const void **values)
{
	return __chm_lookup_many(map, keys, n, values, NULL);
}
EXPORT_SYMBOL_GPL(chm_lookup_many);

/* === Cells =============================================================== */

/*
 * While cells move to another table, updates go to the old table or to the new one,
 * depending on which the updater found.  The new cell began with the snapshot of
 * the old one, so all updates together have come to
 *
 *	new + (old - snapshot)		until that difference has been added,
 *	new				from then on.
 *
 * That is done after a grace period, when the old cell is final (O9).  One word
 * says how far it is, so that chm_cell_read() can tell which of the two it has read,
 * from when the table is published until nothing is pending.  The old table and the
 * snapshot stay for another grace period.
 *
 * Writers go on meanwhile.  A key that is removed and inserted again has a new cell
 * that owes nothing to the old one: the snapshot says which slot the old cell went
 * to, and slots are not reused until all is merged.  One that is replaced takes the
 * old cell's present value for the snapshot: its updates up to then are overwritten.
 *
 * A reader that found the old table does not need the new cell.  If an update of the
 * new cell had ended before the reader began, the reader would have found the new
 * table.  But a writer may exchange the new cell while the reader is still in the old
 * table.  Then the reader returns the sum of the old cell, without the exchange.
 */

/*
 * Is word @nr merged?  If it is being, wait: some CPU adds one word, or calls
 * merge() once, with interrupts off.
 */
static bool chm_is_merged(const struct chm_snapshot *s, unsigned long nr)
{
	unsigned long merged;

	/*
	 * O10: acquire.  Pairs with chm_merge_begin() and chm_merge_end(): who
	 * sees the word marked as merged sees the sum, and not less.
	 */
	while ((merged = smp_load_acquire(&s->merged)) == 2 * nr + 1)
		cpu_relax();
	return merged > 2 * nr;
}

/* Wait until no cell is being exchanged. */
static unsigned int chm_read_seq(const struct chm_snapshot *s)
{
	unsigned int seq;

	/*
	 * O10: acquire.  Pairs with chm_exchange_end(): the cells and the snapshot
	 * that are read next are not older than the exchange.
	 */
	while ((seq = smp_load_acquire(&s->seq)) & 1)
		cpu_relax();
	return seq;
}

/* Was word @nr unmerged, and no cell exchanged since @seq, while it was read? */
static bool chm_still_unmerged(const struct chm_snapshot *s, unsigned long nr,
			       unsigned int seq)
{
	/*
	 * O10: the cells before the mark and the sequence.  Pairs with
	 * chm_merge_begin(): a reader that saw the sum sees that it had begun, and
	 * does not add the same once more.  And with chm_exchange_begin().
	 */
	smp_rmb();
	return READ_ONCE(s->merged) <= 2 * nr && READ_ONCE(s->seq) == seq;
}

/* A place for tests to come between two looks at a cell. */
VISIBLE_IF_KUNIT void chm_half_read(void)
{
	KUNIT_STATIC_STUB_REDIRECT(chm_half_read);
}

#if IS_ENABLED(CONFIG_KUNIT)
EXPORT_SYMBOL_GPL(chm_half_read);
#endif

/* What all updates of one word have come to. */
static unsigned long chm_sum_word(const struct chm_snapshot *s, unsigned long nr,
				  const atomic_long_t *now,
				  const atomic_long_t *old,
				  const unsigned long *copied)
{
	while (!chm_is_merged(s, nr)) {
		unsigned int seq = chm_read_seq(s);
		unsigned long sum = atomic_long_read(now);

		chm_half_read();
		sum += atomic_long_read(old) - READ_ONCE(*copied);
		if (chm_still_unmerged(s, nr, seq))
			return sum;
	}
	return atomic_long_read(now);
}

/* The number of the slot that @value of @t is in. */
static unsigned long chm_slot_number(const struct chm_table *t,
				     const void *value)
{
	size_t at = value - (const void *)(t + 1) - t->value_offset;

	return at / t->stride * CHM_SLOTS +
	       (at % t->stride - t->slots_offset) / t->slot_size;
}

/* Slot number @nr. */
static void *chm_numbered_slot(const struct chm_table *t, unsigned long nr)
{
	const struct chm_chunk *c = __chm_chunk(t, nr / CHM_SLOTS, t->p);

	return __chm_slot(t, c, nr % CHM_SLOTS, t->p);
}

/* Word by word: @now is in the new table, @old in that of @s. */
static void chm_sum_words(struct chm_snapshot *s, const struct chm_params *p,
			  const void *now, const void *old, void *value)
{
	unsigned long slot = chm_slot_number(s->from, old);
	const unsigned long *copied = chm_noted(s, p, slot);
	u32 words = p->value_size / sizeof(long);
	u32 i;

	for (i = 0; i < words; i++) {
		unsigned long sum = chm_sum_word(s, slot * words + i,
						 (const atomic_long_t *)now + i,
						 (const atomic_long_t *)old + i,
						 &copied[i]);

		memcpy(value + i * sizeof(long), &sum, sizeof(sum));
	}
}

/* As chm_sum_words(), where merge() knows what to do, here with a copy. */
static void chm_sum_merged(struct chm_snapshot *s, const struct chm_table *t,
			   const void *now, const void *old, void *value)
{
	unsigned long slot = chm_slot_number(s->from, old);

	while (!chm_is_merged(s, slot)) {
		__chm_copy_cell(t, value, now, t->p);
		t->p->merge(t->ctx, value, old, chm_noted(s, t->p, slot));
		if (chm_still_unmerged(s, slot, s->seq))
			return;
	}
	__chm_copy_cell(t, value, now, t->p);
}

/*
 * Find the cell that @now, the cell of @key in @t, was copied from.  It lies in the
 * table that @s was taken of.  It is recognised by the slot that it was copied to, so a
 * cell from an earlier life of the key is not taken for it.  Keys are not compared: the
 * key of a pair that was removed since may be gone.  The set of FULL slots in that
 * table no longer changes.
 */
static const void *chm_old_cell(const struct chm_snapshot *s,
				const struct chm_table *t, const void *key,
				const void *now)
{
	const struct chm_table *from = s->from;
	u64 hash = __chm_hash(from, key, from->p);
	u32 chunk = chm_home(hash, from->nr_chunks);
	u32 to = chm_slot_number(t, now), i, slot;

	for (i = 0; i < from->nr_chunks; i++) {
		const struct chm_chunk *c = __chm_chunk(from, chunk, from->p);
		const u32 *where = &s->where[(unsigned long)chunk * CHM_SLOTS];
		unsigned long ctrl = READ_ONCE(c->ctrl);
		unsigned long mask = chm_match(ctrl, chm_tag(hash));

		chm_for_each_match(slot, mask) {
			if (where[slot] == to)
				return __chm_slot(from, c, slot, from->p) +
				       from->value_offset;
		}
		if (!chm_overflows(ctrl, hash))
			break;
		chunk = chm_next_chunk(chunk, from->nr_chunks);
	}
	return NULL;
}

/* Copy out the cell @now of @key in @t, with all its updates. */
static void chm_sum_cell(const struct chm_table *t, const void *key,
			 const void *now, void *value)
{
	const struct chm_params *p = t->p;
	const void *old = NULL;
	struct chm_snapshot *s;

	/*
	 * O10: acquire.  Pairs with the release in chm_end_snapshot(): if nothing
	 * is pending, all is in the new cell.
	 */
	s = smp_load_acquire(&chm_snapshots(t)->pending);
	if (s)
		old = chm_old_cell(s, t, key, now);
	if (!old)
		__chm_copy_cell(t, value, now, p);
	else if (p->merge)
		chm_sum_merged(s, t, now, old, value);
	else
		chm_sum_words(s, p, now, old, value);
}

static const void *chm_find_cell(const struct chm_table *t, const void *key)
{
	/* In the other classes, readers rely on values that do not change. */
	if (!t || WARN_ON_ONCE(t->p->class != CHM_CELL))
		return NULL;
	return __chm_lookup_hashed(t, key, __chm_hash(t, key, t->p), t->p);
}

void *chm_cell_lookup(struct chm *map, const void *key)
{
	return (void *)chm_find_cell(__chm_table_rcu(map), key);
}
EXPORT_SYMBOL_GPL(chm_cell_lookup);

bool chm_cell_read(const struct chm *map, const void *key, void *value)
{
	const struct chm_table *t;
	const void *now;

	/* It would wait for the writer that it interrupted. */
	if (WARN_ON_ONCE(in_nmi()))
		return false;
	rcu_read_lock();
	t = __chm_table_rcu(map);
	now = chm_find_cell(t, key);
	if (now)
		chm_sum_cell(t, key, now, value);
	rcu_read_unlock();
	return now;
}
EXPORT_SYMBOL_GPL(chm_cell_read);

int chm_cell_add(struct chm *map, const void *key, unsigned int i, long n)
{
	return __chm_cell_add(map, key, i, n, NULL);
}
EXPORT_SYMBOL_GPL(chm_cell_add);

/* === Slots =============================================================== */

/*
 * What each write goes through is __always_inline: calls of so many small functions would
 * be a tenth of its instructions.  Functions for what is rare get a copy of a struct
 * chm_place: a struct whose address is not taken can stay in registers.
 */

/* Does a walk have to look at this chunk?  A pair is there, or passed it. */
static bool chm_occupies(unsigned long ctrl)
{
	return ctrl & (CHM_TAGS_HIGH | CHM_OVERFLOW);
}

/* Return: whether its word was 0. */
static bool chm_set_bit(unsigned long *bitmap, u32 bit)
{
	unsigned long *word = &bitmap[bit / BITS_PER_LONG];
	unsigned long was = *word;

	/* Pairs with READ_ONCE() in chm_next_bit() and chm_next_occupied(). */
	WRITE_ONCE(*word, was | BIT_MASK(bit));
	return !was;
}

/* Return: whether its word is 0 now. */
static bool chm_clear_bit(unsigned long *bitmap, u32 bit)
{
	unsigned long *word = &bitmap[bit / BITS_PER_LONG];

	/* Pairs with READ_ONCE() in chm_next_bit() and chm_next_occupied(). */
	WRITE_ONCE(*word, *word & ~BIT_MASK(bit));
	return !*word;
}

static void chm_occupy(struct chm_table *t, u32 chunk)
{
	if (chm_set_bit(chm_occupied(t), chunk))
		chm_set_bit(chm_occupied_words(t), chunk / BITS_PER_LONG);
}

static void chm_vacate(struct chm_table *t, u32 chunk)
{
	if (chm_clear_bit(chm_occupied(t), chunk))
		chm_clear_bit(chm_occupied_words(t), chunk / BITS_PER_LONG);
}

#if IS_ENABLED(CONFIG_KUNIT)
const struct chm_torture *chm_torture;
EXPORT_SYMBOL_GPL(chm_torture);

static void chm_dawdle(void)
{
	const struct chm_torture *torture = READ_ONCE(chm_torture);

	if (unlikely(torture))
		torture->dawdle();
}
#else
static void chm_dawdle(void) { }
#endif

/* A place for tests to look at a table as readers may see it. */
VISIBLE_IF_KUNIT void chm_stored(const struct chm_table *t)
{
	KUNIT_STATIC_STUB_REDIRECT(chm_stored, t);
	chm_dawdle();
}

#if IS_ENABLED(CONFIG_KUNIT)
EXPORT_SYMBOL_GPL(chm_stored);
#endif

/*
 * The only store to a control word that readers can see: release, always.  The
 * word carries all tags of the chunk, and a store of any other kind would publish
 * the neighbours' slots without ordering their bytes.
 */
static __always_inline void chm_set_ctrl(struct chm_table *t, u32 chunk,
					 struct chm_chunk *c, unsigned long ctrl)
{
	bool was_occupied = chm_occupies(c->ctrl);

	ASSERT_EXCLUSIVE_WRITER(c->ctrl);
	t->version++;
	/*
	 * O11: the chunk is marked before the pair is visible.  Pairs with
	 * chm_next_occupied(): otherwise a walk that began when the pair was
	 * there could pass over its chunk.
	 */
	if (unlikely(!was_occupied) && chm_occupies(ctrl))
		chm_occupy(t, chunk);
	/*
	 * O1, O2, O3: release.  Pairs with __chm_search_home(), chm_probe(),
	 * chm_scan_chunk().
	 */
	smp_store_release(&c->ctrl, ctrl);
	chm_stored(t);
	if (was_occupied && unlikely(!chm_occupies(ctrl)))
		chm_vacate(t, chunk);
}

static void *chm_place_slot(const struct chm_table *t,
			    const struct chm_place *at)
{
	return __chm_slot(t, at->c, at->slot, t->p);
}

/* Begin at the home chunk of @hash. */
static __always_inline void chm_home_place(const struct chm_table *t, u64 hash,
					   const struct chm_params *p,
					   struct chm_place *at)
{
	at->chunk = chm_home(hash, t->nr_chunks);
	at->distance = 0;
	at->c = __chm_chunk(t, at->chunk, p);
}

/* One chunk further along the probe path. */
static __always_inline void chm_advance_place(const struct chm_table *t,
					      const struct chm_params *p,
					      struct chm_place *at)
{
	at->distance++;
	at->chunk = chm_next_chunk(at->chunk, t->nr_chunks);
	at->c = __chm_chunk(t, at->chunk, p);
}

/* Is @key in the chunk of @at?  For writers: the words can't change. */
static __always_inline bool chm_find_in(const struct chm_table *t,
					const void *key, u64 hash,
					const struct chm_params *p,
					struct chm_place *at)
{
	unsigned long mask = chm_match(at->c->ctrl, chm_tag(hash));

	chm_for_each_match(at->slot, mask) {
		if (__chm_equal(chm_place_slot(t, at), key, p))
			return true;
	}
	return false;
}

/* The rest of chm_find(), for the few keys that are not at home. */
static noinline bool chm_find_beyond(const struct chm_table *t,
				     const void *key, u64 hash,
				     const struct chm_params *p,
				     struct chm_place *at)
{
	while (at->distance + 1 < t->nr_chunks &&
	       chm_overflows(at->c->ctrl, hash)) {
		chm_advance_place(t, p, at);
		if (chm_find_in(t, key, hash, p, at))
			return true;
	}
	return false;
}

/* Where @key is.  @at: its home before. */
static __always_inline bool chm_find_from(const struct chm_table *t,
					  const void *key, u64 hash,
					  const struct chm_params *p,
					  struct chm_place *at)
{
	struct chm_place beyond;
	bool found;

	if (chm_find_in(t, key, hash, p, at))
		return true;
	if (likely(!chm_overflows(at->c->ctrl, hash)))
		return false;
	beyond = *at;
	found = chm_find_beyond(t, key, hash, p, &beyond);
	*at = beyond;
	return found;
}

static __always_inline bool chm_find(const struct chm_table *t,
				     const void *key, u64 hash,
				     const struct chm_params *p,
				     struct chm_place *at)
{
	chm_home_place(t, hash, p, at);
	return chm_find_from(t, key, hash, p, at);
}

static __always_inline bool chm_find_empty_in(struct chm_place *at)
{
	unsigned long mask = chm_match_empty(at->c->ctrl);

	if (unlikely(!mask))
		return false;
	at->slot = chm_first(mask);
	return true;
}

/* The first EMPTY slot on the probe path behind @at. */
static noinline bool chm_find_empty_beyond(const struct chm_table *t,
					   const struct chm_params *p,
					   struct chm_place *at)
{
	while (at->distance + 1 < t->nr_chunks) {
		chm_advance_place(t, p, at);
		if (chm_find_empty_in(at))
			return true;
	}
	return false;
}

/* The first EMPTY slot on the probe path.  @at: where that begins. */
static __always_inline bool chm_find_empty(const struct chm_table *t,
					   const struct chm_params *p,
					   struct chm_place *at)
{
	struct chm_place beyond;
	bool found;

	if (likely(chm_find_empty_in(at)))
		return true;
	beyond = *at;
	found = chm_find_empty_beyond(t, p, &beyond);
	*at = beyond;
	return found;
}

/*
 * The first distance, below @distance, where the pair of @hash would have found
 * a slot if DEAD slots were EMPTY: where it is due.  Else @distance.
 */
static noinline u32 chm_due(const struct chm_table *t, u64 hash, u32 distance,
			    const struct chm_params *p)
{
	struct chm_place at;

	chm_home_place(t, hash, p, &at);
	while (at.distance < distance &&
	       chm_match_full(at.c->ctrl) == CHM_TAGS_HIGH)
		chm_advance_place(t, p, &at);
	return at.distance;
}

/*
 * How far from home DEAD slots may drive pairs before something is done about it.  The
 * limit is higher in a large table, since a fresh one costs more.  If the hash is bad,
 * the limit is at least twice the longest path that the table had when it was built.
 */
static u32 chm_reach(const struct chm_table *t)
{
	return max(clamp(t->nr_chunks / 128, CHM_REACH_MIN, CHM_REACH_MAX),
		   2 * t->built_longest);
}

/* A pair is about to pass the chunks at distance @from to @to - 1: one at least. */
static noinline void chm_raise_overflow(struct chm_table *t, u64 hash, u32 from,
					u32 to, const struct chm_params *p)
{
	u32 n = t->nr_chunks;
	u32 chunk = chm_nth_chunk(chm_home(hash, n), from, n);

	for (; from < to; from++) {
		struct chm_chunk *c = __chm_chunk(t, chunk, p);

		if (!chm_overflows(c->ctrl, hash))
			chm_set_ctrl(t, chunk, c,
				     c->ctrl | chm_overflow_bit(hash));
		chunk = chm_next_chunk(chunk, n);
	}
}

/*
 * Chunk @chunk lies @at chunks behind some home.  Look at those of its pairs that need
 * the overflow bit of @hash in the chunks that they passed.  Return: the first chunk
 * that one of them passed, counted from that home; @at if there are none.
 */
static s64 chm_overflow_from(const struct chm_table *t, u32 chunk, s64 at,
			     u64 hash, const struct chm_params *p)
{
	const struct chm_chunk *c = __chm_chunk(t, chunk, p);
	unsigned long mask = chm_match_full(c->ctrl);
	s64 from = at;
	u32 slot;

	chm_for_each_match(slot, mask) {
		u32 home;

		if (!chm_same_overflow(chm_tag_at(c->ctrl, slot), hash))
			continue;
		home = chm_home(__chm_hash(t, __chm_slot(t, c, slot, p), p),
				t->nr_chunks);
		from = min(from, at - chm_distance(home, chunk, t->nr_chunks));
	}
	return from;
}

/*
 * A pair at @distance from home, not 0, has died: clear the bits that only it needed.
 * Any other pair that needs the bit of a chunk lies behind that chunk, and has set the
 * bit in all chunks up to its own.  So go forward to where the bit ends, but no further
 * than any pair lies from home.  On the way back, keep track of the first chunk that
 * such a pair has passed.
 *
 * Return: false if the end is far.  Then nothing is cleared: bits too many cost
 * lookups time, but do no harm, and the search must not take long.
 */
static noinline bool chm_lower_overflow(struct chm_table *t, u64 hash, u32 distance,
					const struct chm_params *p)
{
	u32 n = t->nr_chunks;
	u32 chunk = chm_nth_chunk(chm_home(hash, n), distance, n);
	s64 last = min((s64)distance + n - 2, (s64)distance + t->longest);
	s64 far = (s64)distance + CHM_LOWER_LIMIT;
	s64 at = distance;
	s64 from = S64_MAX;

	for (; at < last && chm_overflows(__chm_chunk(t, chunk, p)->ctrl, hash);
	     at++) {
		if (at == far)
			return false;
		chunk = chm_next_chunk(chunk, n);
	}
	for (; at > 0; at--) {
		struct chm_chunk *c;

		from = min(from, chm_overflow_from(t, chunk, at, hash, p));
		chunk = chm_previous_chunk(chunk, n);
		c = __chm_chunk(t, chunk, p);
		/* O2: the pair is DEAD by now.  Pairs with chm_scan_plain(). */
		if (at <= distance && from >= at)
			chm_set_ctrl(t, chunk, c,
				     c->ctrl & ~chm_overflow_bit(hash));
	}
	return true;
}

/* Small pairs, which are most, are copied faster by words than by memcpy(). */
static noinline void chm_copy_words(void *to, const void *from, u32 len)
{
	if (len <= 8 * sizeof(u64)) {
		for (; len >= sizeof(u64); len -= sizeof(u64)) {
			memcpy(to, from, sizeof(u64));
			to += sizeof(u64);
			from += sizeof(u64);
		}
		if (!len)
			return;
	}
	memcpy(to, from, len);
}

/* The commonest sizes take no loop. */
static __always_inline void chm_copy_bytes(void *to, const void *from, u32 len)
{
	if (len == sizeof(u64))
		memcpy(to, from, sizeof(u64));
	else if (len == 2 * sizeof(u64))
		memcpy(to, from, 2 * sizeof(u64));
	else
		chm_copy_words(to, from, len);
}

static __always_inline void chm_write_slot(const struct chm_table *t, void *slot,
					   const struct chm_op *op)
{
	const struct chm_params *p = t->p;

	chm_copy_bytes(slot, op->key, p->key_size);
	if (op->value) {
		chm_copy_bytes(slot + t->value_offset, op->value, p->value_size);
		return;
	}
	memset(slot + t->value_offset, 0, p->value_size);
	if (op->how & CHM_ZEROES)
		memcpy(slot + t->value_offset + op->word * sizeof(long),
		       &op->amount, sizeof(op->amount));
}

static u64 chm_square(u32 distance)
{
	return (u64)distance * distance;
}

/* Make the pair in @at, whose slot is written, visible. */
static __always_inline void chm_publish_slot(struct chm_table *t, u64 hash,
					     u32 passed_from,
					     const struct chm_place *at,
					     const struct chm_params *p)
{
	/*
	 * O2: first the filters on the way, then the tag.  Pairs with
	 * __chm_search_home(), chm_probe() and chm_scan_plain().  Otherwise a reader that
	 * finds a later pair could miss this one: hit, then miss.
	 */
	if (unlikely(passed_from != at->distance)) {
		chm_raise_overflow(t, hash, passed_from, at->distance, p);
		t->displaced += !passed_from;
		t->spread += chm_square(at->distance) - chm_square(passed_from);
	}
	/* O1: the slot was written before; see chm_set_ctrl(). */
	chm_set_ctrl(t, at->chunk, at->c,
		     chm_tag_put(at->c->ctrl, at->slot, chm_tag(hash)));
	if (unlikely(t->longest <= at->distance))
		t->longest = at->distance + 1;
}

static unsigned long chm_dead_tag(const struct chm_table *t, bool taken)
{
	return CHM_TAG_DEAD | (t->dead_gen ? CHM_TAG_DEAD_GEN : 0) |
	       (taken ? CHM_TAG_DEAD_TAKEN : 0);
}

/* The pair in @at dies: readers may look at it for a grace period more. */
static __always_inline void chm_kill_slot(struct chm_table *t,
					  const struct chm_place *at, bool taken)
{
	chm_set_ctrl(t, at->chunk, at->c,
		     chm_tag_set(at->c->ctrl, at->slot, chm_dead_tag(t, taken)));
}

/* Return: how many were dropped. */
static u32 chm_drop_slots(const struct chm_table *t,
			  const struct chm_chunk *c, unsigned long mask)
{
	const struct chm_params *p = t->p;
	u32 n = hweight_long(mask);
	u32 slot;

	if (!p->drop)
		return 0;
	chm_for_each_match(slot, mask) {
		void *key = __chm_slot(t, c, slot, p);

		p->drop(t->ctx, key, key + t->value_offset);
	}
	return n;
}

/* === Reclaim ============================================================= */

/*
 * Removed slots wait for a grace period as DEAD slots of one of two
 * generations.  Removals join @dead_gen; the other generation is sealed: its
 * cookie was taken after its last DEAD store.  When that has elapsed its slots
 * become EMPTY, some at a time, and the generations change places.  A bitmap says
 * which chunks have DEAD slots, so that sweeping costs by their number.
 *
 * In maps without drop() writers sweep, too.  In others only the worker does, or
 * the writer that holds a CHM_SYNC map: drop() must run outside the lock, and its
 * slot must not be reused until it has.
 */

/* Have the worker visit @map when the lock is released. */
static void chm_call_worker(struct chm *map)
{
	lockdep_assert_held(&map->lock);
	map->kick = !map->dying;
}

/* @n more DEAD slots join the open generation of @t. */
static void chm_count_dead(struct chm_table *t, unsigned long n)
{
	t->dead[t->dead_gen] += n;
	t->awaited = false;
}

/*
 * If the sealed generation is empty, seal the open one, and open the other.  The
 * cookie of a generation whose readers were waited for already has elapsed.
 */
static void chm_seal(struct chm_table *t)
{
	if (!t->dead[t->dead_gen] || t->dead[!t->dead_gen])
		return;
	/*
	 * O5: the cookie is taken after the last DEAD store that it covers.  Pairs with
	 * the end of the sections of readers that saw FULL before that store.
	 */
	t->cookie = t->awaited ? get_completed_synchronize_rcu() :
				 get_state_synchronize_rcu();
	t->awaited = false;
	/*
	 * O14: stored after the last DEAD store of the generation, and before its slots
	 * are reused.  The cookie comes with a full barrier, or a grace period lies in
	 * between; reuse is a release store.  Pairs with chm_ahead_good(), which sees that
	 * the number has changed.
	 */
	WRITE_ONCE(t->seals, t->seals + 1);
	t->dead_gen ^= 1;
	t->sweep = 0;
}

/* What is DEAD when a writer begins to wait for a grace period. */
struct chm_wait {
	u32		id;	/* of the table; 0: there is none */
	unsigned long	seals;
	unsigned long	dead;	/* slots of the open generation */
};

static struct chm_wait chm_begin_wait(const struct chm_table *t)
{
	return (struct chm_wait) {
		.id = t ? t->id : 0,
		.seals = t ? t->seals : 0,
		.dead = t ? t->dead[t->dead_gen] : 0,
	};
}

/*
 * A grace period has passed since @w was noted.  It will do for all slots that were DEAD
 * then: for the sealed generation, and for the open one unless a slot has joined it
 * meanwhile.  That one may be the sealed one by now.  The cookie alone may not tell,
 * because it does not count each expedited grace period.
 */
static void chm_credit_wait(struct chm_table *t, const struct chm_wait *w)
{
	unsigned long seals;
	bool all;

	if (!t || t->id != w->id)
		return;
	seals = t->seals - w->seals;
	all = t->dead[seals ? !t->dead_gen : t->dead_gen] == w->dead;
	if (!seals || (seals == 1 && all))
		t->cookie = get_completed_synchronize_rcu();
	/* What another writer has waited for counts, too. */
	if (!seals)
		t->awaited |= all;
}

/* How many takers wait for cells that joined generation @gen. */
static u16 *chm_pins(struct chm_table *t, unsigned int gen)
{
	return gen ? &t->pins_1 : &t->pins_0;
}

/* Can the slots of the sealed generation be used again? */
static bool chm_may_sweep(const struct chm *map, struct chm_table *t)
{
	/* The updates of a cell are merged into its slot, DEAD or not. */
	if (!t->dead[!t->dead_gen] || map->phase >= CHM_SETTLING ||
	    *chm_pins(t, !t->dead_gen))
		return false;
	/*
	 * O5: nobody looks at these slots any more.  Pairs with the end of the
	 * sections of readers who saw them FULL; without it a reader would see
	 * another pair's bytes.
	 */
	return poll_state_synchronize_rcu(t->cookie);
}

/* These slots of chunk @chunk, DEAD and swept, become EMPTY. */
static void chm_empty_slots(struct chm_table *t, u32 chunk, unsigned long mask)
{
	struct chm_chunk *c = __chm_chunk(t, chunk, t->p);

	t->dead[!t->dead_gen] -= hweight_long(mask);
	chm_set_ctrl(t, chunk, c, chm_tags_clear(c->ctrl, mask));
	if (!chm_match_dead(c->ctrl))
		__clear_bit(chunk, chm_dead_chunks(t));
}

/* The next chunk that has DEAD slots; @end: none that is to be looked at now. */
static u32 chm_next_dead(struct chm_table *t, u32 end)
{
	t->sweep = find_next_bit(chm_dead_chunks(t), end, t->sweep);
	return t->sweep;
}

/* Some chunks were swept: go on with the others, or with the other generation. */
static void chm_end_sweep(struct chm_table *t)
{
	if (!t->dead[!t->dead_gen])
		chm_seal(t);
	else if (t->sweep == t->nr_chunks)
		t->sweep = 0;
}

/* Make up to @slots EMPTY, of a map without drop(). */
static void chm_sweep(struct chm_table *t, u32 slots)
{
	u32 end = min(t->nr_chunks, t->sweep + CHM_SWEEP_CHUNKS);
	unsigned int gen = !t->dead_gen;

	while (slots && chm_next_dead(t, end) < end) {
		struct chm_chunk *c = __chm_chunk(t, t->sweep, t->p);
		unsigned long mask = chm_match_dead_gen(c->ctrl, gen);

		if (mask)
			chm_empty_slots(t, t->sweep, mask);
		/* One for the look at the chunk, at least. */
		slots -= clamp_t(u32, hweight_long(mask), 1, slots);
		t->sweep++;
	}
	chm_end_sweep(t);
}

static noinline void chm_poll_now(const struct chm *map, struct chm_table *t)
{
	if (!map->p->drop && chm_may_sweep(map, t))
		chm_sweep(t, CHM_WRITER_SWEEP);
}

/*
 * Poll when DEAD slots are many enough to matter; not at each write, while there is
 * room.  Where there is none, each of them matters: what chm_reserve() promised (G7)
 * leaves room for those of two grace periods, and no more.
 */
static __always_inline void chm_poll(const struct chm *map, struct chm_table *t)
{
	unsigned long dead = chm_nr_dead(t);
	bool room = map->entries + dead < t->max_entries;

	if (unlikely(!room) ||
	    (dead > chm_nr_slots(t) / 16 &&
	     (!(t->writes % CHM_POLL_EVERY) || t->nr_chunks <= CHM_FEW_CHUNKS)))
		chm_poll_now(map, t);
}

/* The slot at @at, of the active table, was just turned DEAD. */
static __always_inline void chm_note_dead(struct chm *map, struct chm_table *t,
					  const struct chm_place *at)
{
	chm_count_dead(t, 1);
	__set_bit(at->chunk, chm_dead_chunks(t));
	if (!t->dead[!t->dead_gen]) {
		chm_seal(t);
		chm_call_worker(map);
	}
}

/* Pairs with READ_ONCE() in chm_leave() and chm_end_turn(), which want no order. */
static void chm_set_phase(struct chm *map, enum chm_phase phase)
{
	lockdep_assert_held(&map->lock);
	WRITE_ONCE(map->phase, phase);
}

/* --- Retired tables --- */

/*
 * A list of tables has a pointer to the youngest, which points to the oldest, and
 * so on to the youngest.
 */
static void chm_append(struct chm_table **youngest, struct chm_table *t)
{
	t->link = *youngest ? (*youngest)->link : t;
	if (*youngest)
		(*youngest)->link = t;
	/* Pairs with READ_ONCE() in chm_leave(). */
	WRITE_ONCE(*youngest, t);
}

static struct chm_table *chm_oldest(const struct chm_table *youngest)
{
	return youngest ? youngest->link : NULL;
}

static void chm_remove_oldest(struct chm_table **youngest)
{
	struct chm_table *oldest = (*youngest)->link;

	if (oldest == *youngest)
		WRITE_ONCE(*youngest, NULL);
	else
		(*youngest)->link = oldest->link;
}

/* Something may be due that look_later does not count: the next write shall look. */
static void chm_look_now(struct chm *map)
{
	struct chm_table *t = chm_table(map);

	if (t)
		t->look_later = 0;
}

/*
 * Hand over a table that was just replaced, or that was never published: to be freed
 * after a grace period, with the pairs that are still its.
 */
static void chm_retire(struct chm *map, struct chm_table *t)
{
	lockdep_assert_held(&map->lock);
	t->owns_full |= map->p->class == CHM_CLONE;
	t->sweep = 0;
	/*
	 * O7: the cookie comes after the table was unpublished.  Pairs with the end
	 * of the sections of readers who found it before.
	 */
	t->cookie = get_state_synchronize_rcu();
	chm_append(&map->retired, t);
	/* See chm_ask(). */
	chm_look_now(map);
	t->bytes = chm_bytes(t);
	WRITE_ONCE(map->retired_bytes, map->retired_bytes + t->bytes);
	chm_call_worker(map);
}

/* What retired tables may take where the active one has @bytes (G10). */
static size_t chm_retired_budget(size_t bytes)
{
	return max_t(size_t, bytes, CHM_RETIRED_MIN);
}

/* May @t be retired now, for a table of @bytes?  A single one may always. */
static bool chm_may_retire(const struct chm *map, const struct chm_table *t,
			   u64 bytes)
{
	return !map->retired || map->retired_bytes + chm_bytes(t) <=
				chm_retired_budget(bytes);
}

/*
 * Do retired tables take too much even for a writer that must not sleep?  The oldest
 * one does not count: it may be from a time when the map was much larger.
 */
static bool chm_retired_by_far(const struct chm *map, const struct chm_table *t)
{
	size_t bytes = map->retired_bytes;

	if (map->retired)
		bytes -= chm_oldest(map->retired)->bytes;
	return bytes > 4 * chm_retired_budget(chm_bytes(t));
}

static bool chm_merge_some(struct chm_snapshot *s, const struct chm_table *to,
			   u32 chunks);

/* The next chunk of a retired table that may have something to drop. */
static u32 chm_next_to_drop(struct chm_table *t)
{
	return t->owns_full ? t->sweep : chm_next_dead(t, t->nr_chunks);
}

/*
 * Drop a part of the pairs that a table owns, which no reader and no writer can see
 * any more.  Return: whether there are none left.
 */
static bool chm_drop_some(struct chm_table *t)
{
	u64 end = ktime_get_ns() + CHM_DROPS_NS;
	struct chm_snapshot *s = chm_pending(t);
	u32 n = 0;

	/* Its cells first get what is still due to them. */
	if (s && s->from) {
		if (!chm_merge_some(s, t, CHM_TURN) || !chm_drop_some(s->from))
			return false;
		chm_table_free(s->from);
		s->from = NULL;
	}
	if (!t->p->drop)
		return true;
	for (; n < CHM_DROPS && chm_next_to_drop(t) < t->nr_chunks; t->sweep++) {
		struct chm_chunk *c = __chm_chunk(t, t->sweep, t->p);

		n += chm_drop_slots(t, c, chm_match_droppable(c->ctrl));
		if (t->owns_full)
			n += chm_drop_slots(t, c, chm_match_full(c->ctrl));
		if (n && ktime_get_ns() > end)
			n = CHM_DROPS;
		if (!(t->sweep % CHM_RANGE))
			cond_resched();
	}
	return t->sweep == t->nr_chunks;
}

static void chm_drop_all(struct chm_table *t)
{
	while (!chm_drop_some(t))
		cond_resched();
	chm_table_free(t);
}

/* --- What readers changed --- */

/* Readers wrote to the pair at @now, which was as @then when it was copied. */
static void chm_report_changed(const char *name, const struct chm_table *t,
			       const void *now, const void *then)
{
	const struct chm_params *p = t->p;
	bool in_key = !p->value_size || memcmp(now, then, p->key_size);
	const u8 *is = now + (in_key ? 0 : t->value_offset);
	const u8 *was = then + (in_key ? 0 : t->value_offset);
	u32 end = in_key ? p->key_size : p->value_size;
	u32 first = 0;

	/* The reader may still write to it, and take the change back. */
	while (first < end - 1 && is[first] == was[first])
		first++;
	end = min(end, first + 16);
	while (end - 1 > first && is[end - 1] == was[end - 1])
		end--;
	WARN(1, "chm: map %s (%p), key %*phN: byte %u of the %s was %*ph when it was copied and became %*ph.  This is lost: use CHM_CELL or a pointer.\n",
	     name, t,
	     min(p->key_size, 64U), then, first, in_key ? "key" : "value",
	     end - first, was + first, end - first, is + first);
}

static bool chm_changed(const struct chm_table *t, const void *now,
			const void *then)
{
	u32 key_size = t->p->key_size;

	return memcmp(now, then, key_size) ||
	       memcmp(now + t->value_offset, then + t->value_offset,
		      t->p->value_size);
}

/*
 * Is each pair of @t the same as when it was copied?  The grace period of @t is over,
 * so readers no longer change it.  CHM_CELL tables are passed over: their cells were
 * merged instead.  So are tables whose pairs drop() may have written to: they were
 * checked before.  The first pair that differs is reported, with the @name of the map;
 * if @name is NULL, none is.  Return: how many pairs differ.
 */
static u32 chm_check_frozen(const char *name, const struct chm_table *t)
{
	const struct chm_params *p = t->p;
	struct chm_snapshot *s = chm_spent(t);
	u32 changed = 0;
	u32 i;

	if (!s || s->from != t || p->class == CHM_CELL || t->sweep)
		return 0;
	for (i = 0; i < t->nr_chunks; i++) {
		struct chm_chunk *c = __chm_chunk(t, i, p);
		unsigned long mask = chm_match_full(c->ctrl);
		u32 slot;

		chm_for_each_match(slot, mask) {
			void *now = __chm_slot(t, c, slot, p);
			void *then = chm_noted(s, p, (unsigned long)i *
					       CHM_SLOTS + slot);

			if (chm_changed(t, now, then) && !changed++ && name)
				chm_report_changed(name, t, now, then);
		}
		if (!(i % chm_range(t)))
			cond_resched();
	}
	return changed;
}

/* === Worker ============================================================== */

/*
 * One work item serves all maps, each in bounded turns.  A map that needs the worker is
 * in one of three lists: ready now, waiting for a grace period, or resting for a second
 * because tidying was put off.
 *
 * The worker serves one map at a time: chm_worker.map.  Whenever it takes the lock of
 * that map, it first checks that the map is still there.  chm_destroy() takes the map
 * away between two turns, chm_destroy_async() even within a turn, between two holds of
 * the lock.  Without the lock, the worker touches only tables that nobody else frees.
 */
static void chm_work(struct work_struct *work);
static void chm_grace_work(struct work_struct *work);
static void chm_second_work(struct work_struct *work);
static void chm_irq_work(struct irq_work *work);

static struct chm_worker {
	spinlock_t		lock;		/* outer to all maps' */
	struct list_head	ready;
	struct list_head	waiting;	/* for a grace period */
	struct list_head	resting;	/* for a second */
	struct chm		*map;		/* whose turn it is */
	u64			turns;		/* odd: it is in one */
	bool			kicked;		/* in this turn, by itself */
	struct task_struct	*task;
	struct chm_table	*orphans;	/* of chm_destroy_async() */
	u64			seq;		/* of the youngest so far */
	wait_queue_head_t	done;		/* with a map, or an orphan */
	struct workqueue_struct	*wq;
	struct work_struct	work;
	struct rcu_work		grace;		/* a grace period is over */
	struct delayed_work	second;		/* a second is */
	struct irq_work		irq;
} chm_worker = {
	.lock = __SPIN_LOCK_UNLOCKED(chm_worker.lock),
	.ready = LIST_HEAD_INIT(chm_worker.ready),
	.waiting = LIST_HEAD_INIT(chm_worker.waiting),
	.resting = LIST_HEAD_INIT(chm_worker.resting),
	.done = __WAIT_QUEUE_HEAD_INITIALIZER(chm_worker.done),
	.work = __WORK_INITIALIZER(chm_worker.work, chm_work),
	.grace.work = __WORK_INITIALIZER(chm_worker.grace.work, chm_grace_work),
	.second = __DELAYED_WORK_INITIALIZER(chm_worker.second, chm_second_work, 0),
	.irq = IRQ_WORK_INIT(chm_irq_work),
};

/* What a turn has led to; the greatest of several counts. */
enum chm_turn {
	CHM_DONE,
	CHM_PUT_OFF,		/* for a second */
	CHM_LATER,		/* to go on with after a grace period */
	CHM_SOON,		/* when the others had their turns */
	CHM_GONE,		/* the map is not there any more */
};

/* May the caller wait for the worker?  Not if this is its drop(). */
static bool chm_in_worker(void)
{
	return READ_ONCE(chm_worker.task) == current;
}

static void chm_irq_work(struct irq_work *work)
{
	queue_work(chm_worker.wq, &chm_worker.work);
}

/* Wake it up.  With interrupts off the caller may hold locks of the scheduler. */
static void chm_wake_worker(void)
{
	/* Before this module's initcall, if it is built in: it looks then. */
	if (unlikely(!READ_ONCE(chm_worker.wq)))
		return;
	if (irqs_disabled())
		irq_work_queue(&chm_worker.irq);
	else
		queue_work(chm_worker.wq, &chm_worker.work);
}

/* Have the worker visit @map; @first: before others, whose writers can go on. */
static noinline void chm_queue(struct chm *map, bool first)
{
	unsigned long flags;

	spin_lock_irqsave(&chm_worker.lock, flags);
	if (first)
		list_move(&map->work, &chm_worker.ready);
	else
		list_move_tail(&map->work, &chm_worker.ready);
	spin_unlock_irqrestore(&chm_worker.lock, flags);
	chm_wake_worker();
}

/* How long locks are held, while the benchmark wants to know (G11). */
#if IS_ENABLED(CONFIG_CHM_BENCH)
static DEFINE_STATIC_KEY_FALSE(chm_holds_measured);
static DEFINE_PER_CPU(u64, chm_hold_began);
static struct chm_holds chm_holds;

void chm_measure_holds(bool on, struct chm_holds *holds)
{
	if (on) {
		chm_holds = (struct chm_holds) { };
		static_branch_enable(&chm_holds_measured);
	} else {
		static_branch_disable(&chm_holds_measured);
		*holds = chm_holds;
	}
}
EXPORT_SYMBOL_GPL(chm_measure_holds);

static void chm_hold_begins(void)
{
	if (static_branch_unlikely(&chm_holds_measured))
		__this_cpu_write(chm_hold_began, ktime_get_ns());
}

/* Of one map at a time: its lock protects these figures. */
static void chm_hold_ends(void)
{
	u64 ns;

	if (!static_branch_unlikely(&chm_holds_measured))
		return;
	ns = ktime_get_ns() - __this_cpu_read(chm_hold_began);
	chm_holds.n++;
	chm_holds.long_ones += ns > CHM_LONG_HOLD_NS;
	chm_holds.longest_ns = max(chm_holds.longest_ns, ns);
}
#else
static void chm_hold_begins(void)
{
}

static void chm_hold_ends(void)
{
}
#endif

/*
 * Sparse can't follow a lock that is taken if its map is still there, and is told
 * nothing; lockdep sees all.
 */
#define chm_lock(map, flags) do {					\
	spin_lock_irqsave(&(map)->lock, flags);				\
	__release(&(map)->lock);					\
	chm_hold_begins();						\
} while (0)

static void chm_unlock(struct chm *map, unsigned long flags)
{
	bool kick = map->kick, first = map->phase == CHM_WANTED;

	map->kick = false;
	chm_hold_ends();
	__acquire(&map->lock);
	spin_unlock_irqrestore(&map->lock, flags);
	if (unlikely(kick))
		chm_queue(map, first);
}

/*
 * Take the lock of a map during a turn.  @worker: this is the worker's, else that of
 * the writer that holds a CHM_SYNC map.  Return: false if the map is gone.
 */
static bool chm_lock_turn(struct chm *map, bool worker, unsigned long *flags)
{
	unsigned long irq;

	if (!worker) {
		chm_lock(map, irq);
	} else {
		spin_lock_irqsave(&chm_worker.lock, irq);
		if (chm_worker.map != map) {
			spin_unlock_irqrestore(&chm_worker.lock, irq);
			return false;
		}
		spin_lock(&map->lock);
		__release(&map->lock);
		chm_hold_begins();
		spin_unlock(&chm_worker.lock);
	}
	*flags = irq;
	return true;
}

/*
 * Release it.  The map may be gone from then on: what the worker is called for, it
 * sees to in another turn.
 */
static void chm_unlock_turn(struct chm *map, bool worker, unsigned long flags)
{
	if (!worker) {
		chm_unlock(map, flags);
		return;
	}
	chm_worker.kicked |= map->kick;
	map->kick = false;
	chm_hold_ends();
	__acquire(&map->lock);
	spin_unlock_irqrestore(&map->lock, flags);
}

/* Tell writers that wait, see chm_await(), that something was done. */
static void chm_tell(struct chm *map)
{
	/* What was done before, as wake_up_var() wants it. */
	smp_mb();
	wake_up_var(map);
}

/* === Wear ================================================================ */

/*
 * Removing and replacing leaves pairs further from home than they need be: DEAD
 * slots were in the way, or pairs that are gone since.  A lookup of an absent key
 * that comes upon such a path goes along it, so that all together these cost by
 * the square of the distance.  A table knows the sum of the squares, and is worn
 * if that is more than usual; then a fresh table of the same size takes its place.
 */

/*
 * The usual sum for each chunk, in thousandths, when 25, 30, ... 95 percent of the
 * slots are full: what inserting alone leads to.  The mean of simulations, nearly
 * the same for any number of chunks (Documentation/design.rst).
 */
static const u32 chm_usual_spread[] = {
#ifdef CONFIG_64BIT
	1, 2, 5, 13, 28, 55, 108, 209, 404, 800,
	1665, 3817, 10310, 39600, 349000,
#else
	10, 21, 41, 74, 130, 225, 387, 676, 1200, 2240,
	4450, 9850, 25800, 94900, 895000,
#endif
};

/* Of a table with @entries pairs, and something more for chance. */
static u64 chm_spread_expected(const struct chm_table *t, unsigned long entries)
{
	u32 percent = div64_ul(100ULL * entries, chm_nr_slots(t));
	u32 above = clamp(percent, 25U, 94U) - 25;
	const u32 *usual = &chm_usual_spread[above / 5];
	u32 each = usual[0] + (usual[1] - usual[0]) * (above % 5 + 1) / 5;

	return div_u64((u64)t->nr_chunks * (each + 250), 1000) + 64;
}

/* So many filter bits are left.  That may be reason enough for a fresh table. */
static void chm_count_unlowered(struct chm_table *t, u32 bits)
{
	t->unlowered += bits;
	t->look_later = 0;
}

/* A pair at @distance from home is gone: so are the bits that only it needed. */
static void chm_lower(struct chm_table *t, u64 hash, u32 distance)
{
	if (likely(!distance))
		return;
	t->displaced--;
	/* Bits that stay cost as if the pair did. */
	if (chm_lower_overflow(t, hash, distance, t->p))
		t->spread -= chm_square(distance);
	else
		chm_count_unlowered(t, distance);
}

/*
 * @t was just built.  Where a bad hash has pairs lie further from home than is
 * usual, that is no wear.
 */
static void chm_note_built(const struct chm *map, struct chm_table *t)
{
	u64 expected = chm_spread_expected(t, map->entries);
	u64 ratio = div64_u64(16 * t->spread, expected) + 1;

	t->built_spread = clamp(ratio, 16ULL, (u64)U32_MAX);
	t->built_longest = t->longest;
}

/*
 * Is @t worn, so much that copying all pairs is worth it?  While much is going on,
 * only when so much was written that copying is a small part of the work.
 */
static bool chm_worn(const struct chm *map, const struct chm_table *t, bool calm)
{
	unsigned long writes = t->writes;
	u64 most = div_u64(chm_spread_expected(t, map->entries) *
			   t->built_spread, 16);

	if (t->unlowered > t->nr_chunks / 4 && calm)
		return true;
	if (calm && t->strayed)
		return true;
	if (t->spread <= most + most / 4)
		return false;
	return calm || writes > 4UL * t->nr_chunks;
}

/* === Migration =========================================================== */

/*
 * The life of a migration, all under the lock:
 *
 *	trigger	something is due: the writer that sees it allocates a small table
 *		itself, without the lock; for a large one it asks the worker
 *	step	chunks below map->cursor have been copied to map->next.  Every write
 *		and every turn of the worker copies some more.  A pair is in both
 *		tables if and only if the chunk of its slot, not its home, is below
 *		the cursor; so a write that has changed the active table is then
 *		repeated in the other one (chm_mirror())
 *	swap	in the hold that has copied the last chunk
 *	abort	at any time before: nobody has seen map->next
 *
 * After a swap the cells of a CHM_CELL map settle and are merged; others are done.
 * The protocol was explored exhaustively: Documentation/litmus/README.rst.
 */

/* --- Copying --- */

/* All of a pair, bitwise; of a cell, each word as it is at some moment. */
static void chm_copy_bitwise(const struct chm_table *t, void *to,
			     const void *from)
{
	const struct chm_params *p = t->p;

	if (p->class == CHM_CELL) {
		chm_copy_bytes(to, from, p->key_size);
		__chm_copy_cell(t, to + t->value_offset, from + t->value_offset, p);
		return;
	}
	/*
	 * Have KCSAN report any write to a pair in a table, even an atomic one:
	 * a write after this copy is lost.
	 */
	__kcsan_check_access(from, t->slot_size, KCSAN_ACCESS_ASSERT);
	chm_copy_bytes(to, from, t->slot_size);
}

/*
 * A second copy of the pair in slot number @nr of the active table, for @to, bitwise
 * or by clone(); with a note of it if @to has a snapshot.
 */
static int chm_copy_pair(const struct chm_table *to, void *copy, void *from,
			 unsigned long nr)
{
	struct chm_snapshot *s = chm_pending(to);
	const struct chm_params *p = to->p;
	int ret;

	chm_copy_bitwise(to, copy, from);
	if (s)
		memcpy(chm_noted(s, p, nr), copy + chm_noted_offset(p),
		       chm_noted_size(p));
	if (p->class != CHM_CLONE)
		return 0;
	ret = p->clone(to->ctx, copy, copy + to->value_offset, from,
		       from + to->value_offset, GFP_NOWAIT | __GFP_NOWARN);
	return ret ? -ENOMEM : 0;
}

/* The pair that has come to @at, of @to, is not at home, or is the first one. */
static noinline void chm_note_displaced(struct chm_table *to, u64 hash,
					const struct chm_place *at)
{
	to->longest = max(to->longest, at->distance + 1);
	if (!at->distance)
		return;
	chm_raise_overflow(to, hash, 0, at->distance, to->p);
	to->displaced++;
	to->spread += chm_square(at->distance);
}

/*
 * Copy the pair in slot number @nr of the active table into @to, which is private.
 * O12: plain stores will do: the holder of the lock that publishes @to comes after
 * this one.  Pairs with rcu_assign_pointer() in chm_publish().
 */
static __always_inline int __chm_migrate_pair(struct chm_table *to, void *pair,
					      unsigned long nr)
{
	const struct chm_params *p = to->p;
	u64 hash = __chm_hash(to, pair, p);
	struct chm_place at;
	int ret;

	chm_home_place(to, hash, p, &at);
	if (to->migrated + chm_nr_dead(to) >= to->hard_entries ||
	    !chm_find_empty(to, p, &at))
		return -ENOSPC;
	ret = chm_copy_pair(to, chm_place_slot(to, &at), pair, nr);
	if (ret)
		return ret;
	if (p->class == CHM_CELL)
		chm_pending(to)->where[nr] = at.chunk * CHM_SLOTS + at.slot;
	if (unlikely(!chm_occupies(at.c->ctrl)))
		chm_occupy(to, at.chunk);
	at.c->ctrl = chm_tag_put(at.c->ctrl, at.slot, chm_tag(hash));
	to->migrated++;
	if (unlikely(at.distance || !to->longest))
		chm_note_displaced(to, hash, &at);
	return at.distance;
}

static noinline int chm_migrate_pair(struct chm_table *to, void *pair,
				     unsigned long nr)
{
	return __chm_migrate_pair(to, pair, nr);
}

/* Return: how many chunks the pairs have passed on their ways to their slots. */
static long chm_migrate_chunk(struct chm_table *to, const struct chm_table *from,
			      u32 chunk)
{
	struct chm_chunk *c = __chm_chunk(from, chunk, to->p);
	unsigned long nr = (unsigned long)chunk * CHM_SLOTS;
	unsigned long mask = chm_match_full(c->ctrl);
	long walked = 0;
	u32 slot;

	chm_for_each_match(slot, mask) {
		void *pair = __chm_slot(from, c, slot, to->p);
		int ret = __chm_migrate_pair(to, pair, nr + slot);

		if (ret < 0)
			return ret;
		walked += ret;
	}
	return walked;
}

/* --- Merging: cells --- */

/*
 * Word @nr of the snapshot is about to be merged; for maps with merge(), all words of
 * slot @nr.  Until now s->merged was less than 2 * @nr + 1.  It equals that while the
 * word is being merged, and is greater afterwards.  Words without a difference are
 * passed over: a reader gets the same result whether it takes them for merged or not.
 */
static unsigned long chm_merge_begin(struct chm_snapshot *s, unsigned long nr)
{
	unsigned long flags;

	/* Readers wait for what is between this and the end. */
	local_irq_save(flags);
	/*
	 * O10: release: words before this one count as merged with this store.
	 * And this one changes after it.  Pairs with chm_is_merged() and
	 * chm_still_unmerged(); without it a reader could see the sum, and add
	 * the difference itself.
	 */
	smp_store_release(&s->merged, 2 * nr + 1);
	/* O10: see above.  Pairs with smp_rmb() in chm_still_unmerged(). */
	smp_wmb();
	return flags;
}

static void chm_merge_end(struct chm_snapshot *s, unsigned long nr,
			  unsigned long flags)
{
	/* O10: release: the sum before the mark.  Pairs with chm_is_merged(). */
	smp_store_release(&s->merged, 2 * nr + 2);
	local_irq_restore(flags);
}

static void chm_merge_words(struct chm_snapshot *s, unsigned long nr, u32 words,
			    atomic_long_t *to, const unsigned long *now,
			    const unsigned long *copied)
{
	u32 i;

	for (i = 0; i < words; i++, nr++) {
		unsigned long flags;

		if (now[i] == copied[i])
			continue;
		flags = chm_merge_begin(s, nr);
		atomic_long_add(now[i] - copied[i], &to[i]);
		chm_merge_end(s, nr, flags);
	}
}

/*
 * The value of @pair, in slot number @nr, may have got updates since it was copied.
 * Apply them to its copy in @to.  The slot of the copy may be DEAD by now, but is not
 * reused.
 */
static void chm_merge_pair(struct chm_snapshot *s, unsigned long nr,
			   const struct chm_table *to, const void *pair)
{
	const struct chm_params *p = to->p;
	const void *copied = chm_noted(s, p, nr);
	const void *now = pair + to->value_offset;
	u32 words = p->value_size / sizeof(long);
	unsigned long flags;
	void *value;

	if (!memcmp(now, copied, p->value_size))
		return;
	value = chm_numbered_slot(to, s->where[nr]) + to->value_offset;
	if (!p->merge) {
		chm_merge_words(s, nr * words, words, value, now, copied);
		return;
	}
	flags = chm_merge_begin(s, nr);
	p->merge(to->ctx, value, now, copied);
	chm_merge_end(s, nr, flags);
}

/* Some chunks of the table that @s is of.  Return: whether that was all. */
static bool chm_merge_some(struct chm_snapshot *s, const struct chm_table *to,
			   u32 chunks)
{
	const struct chm_table *from = s->from;

	for (; chunks && s->cursor < from->nr_chunks; chunks--, s->cursor++) {
		struct chm_chunk *c = __chm_chunk(from, s->cursor, from->p);
		unsigned long nr = (unsigned long)s->cursor * CHM_SLOTS;
		unsigned long mask = chm_match_full(c->ctrl);
		u32 slot;

		chm_for_each_match(slot, mask)
			chm_merge_pair(s, nr + slot, to,
				       __chm_slot(from, c, slot, from->p));
	}
	return s->cursor == from->nr_chunks;
}

/* All of @s is merged into the active table: put it away with the old one. */
static void chm_end_snapshot(struct chm *map, struct chm_snapshot *s)
{
	struct chm_table *t = chm_table(map);

	/*
	 * O10: release: a reader that sees nothing pending sees all of it merged.
	 * Pairs with chm_sum_cell().  Readers may have seen @s before: it goes with
	 * the old table, whose cookie is taken after this (O7).
	 */
	smp_store_release(&chm_snapshots(t)->pending, NULL);
	chm_snapshots(s->from)->spent = s;
	chm_set_phase(map, CHM_IDLE);
	chm_retire(map, s->from);
}

/*
 * The active table was just published.  O9: when the cookie has elapsed, old cells
 * are final: readers that found them have ended.  Pairs with __chm_cell_add_to().
 * Without this an update that is still to come would be lost.
 */
static void chm_settle(struct chm *map, struct chm_snapshot *s)
{
	s->cookie = get_state_synchronize_rcu();
	/* chm_drop_some() looks at all of it, however far a sweep has come. */
	s->from->sweep = 0;
	chm_set_phase(map, CHM_SETTLING);
	chm_call_worker(map);
}

/* --- Swap, and abort --- */

static void chm_judge_seed(struct chm *map, struct chm_table *t);

static void chm_count_migration(struct chm *map, u32 from, u32 to)
{
	if (to > from)
		map->grows++;
	else if (to < from)
		map->shrinks++;
	else
		map->rehashes++;
}

/* Make @fresh, complete, the active table; NULL: none. */
static void chm_publish(struct chm *map, struct chm_table *fresh)
{
	if (fresh)
		chm_note_built(map, fresh);
	/*
	 * O6: pairs with __chm_table_rcu().  O12: earlier holders of the lock have
	 * written to @fresh, too.  Pairs with __chm_migrate_pair().  O9: readers that
	 * find old cells began before the grace period that chm_settle() begins to
	 * wait for.  Pairs with __chm_cell_add_to().
	 */
	rcu_assign_pointer(map->tbl, fresh);
}

/* All pairs are in map->next: contents are equal, whichever a reader finds. */
static void chm_swap_tables(struct chm *map)
{
	struct chm_table *fresh = map->next;
	struct chm_snapshot *s = chm_pending(fresh);
	struct chm_table *old = chm_table(map);

	map->next = NULL;
	chm_set_phase(map, CHM_IDLE);
	fresh->migrated_ns = ktime_get_ns() - fresh->migrated_ns;
	fresh->waited |= old->waited;
	/* With the seed that it had before, paths go on to be long. */
	if (fresh->fresh)
		fresh->far = old->far;
	chm_publish(map, fresh);
	chm_count_migration(map, old->nr_chunks, fresh->nr_chunks);
	trace_chm_migrate(map, old->nr_chunks, fresh->nr_chunks, map->entries,
			  fresh->migrated_ns);
	chm_judge_seed(map, fresh);
	if (map->p->class == CHM_CELL) {
		chm_settle(map, s);
		return;
	}
	if (s) {
		chm_snapshots(fresh)->pending = NULL;
		chm_snapshots(old)->spent = s;
	}
	chm_retire(map, old);
}

/* Give map->next up.  The pairs that clone() has made for it are dropped. */
static void chm_abort(struct chm *map)
{
	struct chm_table *t = map->next;

	lockdep_assert_held(&map->lock);
	if (map->phase == CHM_WANTED)
		chm_set_phase(map, CHM_IDLE);
	if (map->phase != CHM_COPYING)
		return;
	if (chm_pending(t))
		chm_pending(t)->from = NULL;
	map->next = NULL;
	chm_set_phase(map, CHM_IDLE);
	map->aborts++;
	chm_retire(map, t);
}

/* The map has no pairs: it owns no table from now on. */
static void chm_give_back(struct chm *map)
{
	struct chm_table *t = chm_table(map);

	chm_abort(map);
	chm_publish(map, NULL);
	map->shrinks++;
	chm_set_phase(map, CHM_IDLE);
	chm_retire(map, t);
}

/* --- Step --- */

/* Seconds: jiffies in 32 bits come round too soon. */
static u32 chm_now(void)
{
	return ktime_get_seconds();
}

/* Nothing that can wait is begun in the next @seconds. */
static void chm_put_off(struct chm *map, u32 seconds)
{
	map->tidy_from = chm_now() + seconds;
}

/* For how many seconds; not at all, if that is not positive. */
static s32 chm_put_off_for(const struct chm *map)
{
	return map->tidy_from - chm_now();
}

static bool chm_is_put_off(const struct chm *map)
{
	return chm_put_off_for(map) > 0;
}

/* For a second to an hour, but no sooner than was said before. */
static void chm_put_off_more(struct chm *map, u64 seconds)
{
	s32 more = clamp_t(u64, seconds, 1, 3600);

	if (chm_put_off_for(map) < more)
		chm_put_off(map, more);
}

/* How many seconds make @ns a hundredth of the time. */
static u64 chm_pause_after(u64 ns)
{
	return div_u64(100 * ns, NSEC_PER_SEC);
}

/*
 * Tidying has taken @ns, with what is still to come, and led to @t.  Spend a hundredth
 * of the time at most.  Where that is less than a second, wait for one, or for some
 * writes: each of those costs a few microseconds then.
 */
static void chm_put_off_tidying(struct chm *map, struct chm_table *t, u64 ns,
				bool failed)
{
	u64 wait = chm_pause_after(ns) + failed;

	/* A longer wait of before stays. */
	chm_put_off_more(map, wait);
	if (t)
		t->tidy_soon = !wait && chm_put_off_for(map) <= 1;
}

/*
 * map->next can't take a pair: there is no room, -ENOSPC, or clone() has failed.  What
 * that lacks may be there in a second.
 */
static void chm_give_up(struct chm *map, int ret)
{
	u64 ns = map->next->copying_ns;

	chm_abort(map);
	map->clone_failed = ret == -ENOMEM;
	map->failed_at = chm_now();
	/* The cost counts as that of tidying. */
	chm_put_off_tidying(map, chm_table(map), ns, true);
}

/* All is copied.  hash() and clone() may have taken longer than was thought. */
static void chm_charge_tidying(struct chm *map)
{
	struct chm_table *fresh = map->next;

	if (fresh->tidies && chm_pause_after(fresh->copying_ns))
		chm_put_off_tidying(map, fresh, fresh->copying_ns, false);
}

/* Does what copying takes depend on the user's code? */
static bool chm_copies_by_user(const struct chm_params *p)
{
	return p->clone || p->hash;
}

/* Was @failed_at this second?  Or a multiple of 64 seconds ago, which does no harm. */
static bool chm_failed_now(const struct chm *map)
{
	return !((chm_now() - map->failed_at) & 63);
}

/* Has clone() failed in this second?  Else it is to be tried again. */
static bool chm_clone_failed_now(const struct chm *map)
{
	return map->clone_failed && chm_failed_now(map);
}

/* Copy @chunks more; swap after the last. */
static void chm_step(struct chm *map, u32 chunks)
{
	u64 start = chm_copies_by_user(map->p) ? ktime_get_ns() : 0;
	long walked = 0, ret = 0;
	struct chm_table *t;
	u32 end;

	lockdep_assert_held(&map->lock);
	/*
	 * O12: this hold comes after those of earlier steps.  Pairs with
	 * __chm_migrate_pair().
	 */
	t = chm_table(map);
	end = min(t->nr_chunks - map->cursor, chunks) + map->cursor;
	for (; map->cursor < end && walked < CHM_STEP_WALK; map->cursor++) {
		ret = chm_migrate_chunk(map->next, t, map->cursor);
		if (ret < 0)
			break;
		walked += ret;
	}
	if (start)
		map->next->copying_ns += ktime_get_ns() - start;
	if (ret < 0) {
		chm_give_up(map, ret);
	} else if (map->cursor == t->nr_chunks) {
		chm_charge_tidying(map);
		chm_swap_tables(map);
	}
}

#if IS_ENABLED(CONFIG_KUNIT)
unsigned int chm_step_chunks;
EXPORT_SYMBOL_GPL(chm_step_chunks);

bool chm_restless;
EXPORT_SYMBOL_GPL(chm_restless);

/* Tests set it while others write. */
static bool chm_is_restless(void)
{
	return READ_ONCE(chm_restless);
}
#else
#define chm_step_chunks	0

static bool chm_is_restless(void)
{
	return false;
}
#endif

/* More, if memory came so late that the table would be full before the end. */
static u32 chm_writer_step(const struct chm *map)
{
	const struct chm_table *t = chm_table(map);
	unsigned long used = map->entries + chm_nr_dead(t);
	unsigned long room = used < t->hard_entries ? t->hard_entries - used : 1;
	unsigned long left = t->nr_chunks - map->cursor;

	if (likely(left <= room * CHM_WRITER_STEP))
		return CHM_WRITER_STEP;
	return min(left / room + 1, CHM_WRITER_STEP_MAX);
}

/* What every write does for the others. */
static void chm_share(struct chm *map)
{
	if (unlikely(map->phase == CHM_COPYING))
		chm_step(map, chm_step_chunks ?: chm_writer_step(map));
}

/* Drive a migration to its end, in at most @holds holds of the lock. */
static void chm_drive(struct chm *map, u32 holds, bool block)
{
	bool more = true;

	for (; more && holds; holds--) {
		unsigned long flags;

		chm_lock(map, flags);
		if (map->phase == CHM_COPYING)
			chm_step(map, CHM_WORKER_STEP);
		more = map->phase == CHM_COPYING;
		chm_unlock(map, flags);
		if (block)
			cond_resched();
	}
}

/* --- Dual write --- */

/* Is the slot at @at in a chunk that was copied already? */
static bool chm_copied(const struct chm *map, const struct chm_place *at)
{
	return at && at->chunk < map->cursor;
}

static unsigned long chm_place_number(const struct chm_place *at)
{
	return (unsigned long)at->chunk * CHM_SLOTS + at->slot;
}

/*
 * The pair at @at, of map->next, is gone: the slot is EMPTY at once, since no reader
 * has seen it.  Only what clone() has made waits there to be dropped.
 */
static void chm_unmigrate_pair(struct chm_table *to, u64 hash,
			       const struct chm_place *at)
{
	unsigned long tag = CHM_TAG_EMPTY;

	if (to->p->class == CHM_CLONE) {
		tag = chm_dead_tag(to, false);
		to->dead[to->dead_gen]++;
		__set_bit(at->chunk, chm_dead_chunks(to));
	}
	chm_set_ctrl(to, at->chunk, at->c,
		     chm_tag_set(at->c->ctrl, at->slot, tag));
	to->migrated--;
	chm_lower(to, hash, at->distance);
}

/*
 * Do in map->next what was just done in the active table: the pair that was at @was
 * is at @is now; NULL: nowhere.  If that can't be done, the migration is given up:
 * the active table is right.
 */
static noinline void chm_mirror(struct chm *map, const struct chm_place *was,
				const struct chm_place *is)
{
	struct chm_table *t = chm_table(map), *to = map->next;
	const void *key = chm_place_slot(t, was ?: is);
	struct chm_place at;
	int ret = 0;

	if (chm_copied(map, was)) {
		u64 hash = __chm_hash(to, key, to->p);

		if (chm_find(to, key, hash, to->p, &at))
			chm_unmigrate_pair(to, hash, &at);
		else
			ret = -EUCLEAN;
		WARN_ON_ONCE(ret);
	}
	if (!ret && chm_copied(map, is))
		ret = chm_migrate_pair(to, chm_place_slot(t, is),
				       chm_place_number(is));
	if (ret < 0)
		chm_give_up(map, ret);
}

/* As chm_mirror(), of a value at @at that was changed in place. */
static noinline void chm_mirror_value(struct chm *map, const struct chm_place *at)
{
	struct chm_table *t = chm_table(map), *to = map->next;
	const void *key = chm_place_slot(t, at);
	struct chm_place copy;

	if (!chm_copied(map, at))
		return;
	if (WARN_ON_ONCE(!chm_find(to, key, __chm_hash(to, key, to->p), to->p,
				   &copy)))
		chm_abort(map);
	else
		chm_copy_pair(to, chm_place_slot(to, &copy), (void *)key,
			      chm_place_number(at));
}

/* --- Size --- */

/* The least number of chunks for @entries pairs and all that was promised. */
static u64 chm_chunks_needed(const struct chm *map, unsigned long entries)
{
	return chm_chunks_for(map->p, max3(entries, map->reserved,
					   map->p->min_entries));
}

/* The least size of the next table, in chunks, so that @t, too, may be retired. */
static u64 chm_chunks_within_budget(const struct chm *map,
				    const struct chm_table *t)
{
	return div_u64(map->retired_bytes + chm_bytes(t), t->stride) + 1;
}

/* As large as a table after @t is made if its readers leave in time. */
static u64 chm_chunks_usual(const struct chm_params *p, const struct chm_table *t)
{
	u32 growth = p->growth ?: chm_bytes(t) <= CHM_SMALL ? 200 : 140;
	u64 usual;

	/* Cells take a grace period longer. */
	if (p->class == CHM_CELL)
		growth = max(growth, chm_bytes(t) <= CHM_SMALL ? 400U : 200U);
	usual = div_u64((u64)t->nr_chunks * growth + 99, 100);
	return chm_chunks_filling(p, min(usual, CHM_MAX_CHUNKS));
}

/* All pairs that may ever come, and some DEAD slots, which caches need.  0: no limit. */
static u64 chm_most_entries(const struct chm_params *p)
{
	u64 most = min_t(u64, p->max_entries, CHM_MAX_CHUNKS * CHM_SLOTS);

	return most + most / 8;
}

static bool chm_is_largest(const struct chm_params *p, const struct chm_table *t)
{
	return p->max_entries && t->max_entries >= chm_most_entries(p);
}

/* @chunks, or the largest table if they would do for all pairs that may ever come. */
static u64 chm_chunks_at_most(const struct chm_params *p, u64 chunks)
{
	if (!p->max_entries || chunks < chm_chunks_for(p, p->max_entries))
		return chunks;
	return min(chm_chunks_for(p, chm_most_entries(p)), CHM_MAX_CHUNKS);
}

static u64 chm_chunks_grown(const struct chm *map, const struct chm_table *t)
{
	const struct chm_params *p = map->p;
	u64 grown = chm_chunks_at_most(p, chm_chunks_usual(p, t));

	/*
	 * Where pairs come so fast that earlier tables still wait for their readers:
	 * so large that all these together are within the budget.
	 */
	if (!chm_may_retire(map, t, chm_table_bytes(p, grown))) {
		grown = clamp_t(u64, chm_chunks_within_budget(map, t), grown,
				max(4ULL * t->nr_chunks, grown));
		grown = chm_chunks_filling(p, min(grown, CHM_MAX_CHUNKS));
	}
	return max(grown, chm_chunks_needed(map, map->entries + 1));
}

/*
 * Chunks that make room for the DEAD slots of about two grace periods at the rate
 * they come, but not more than twice what the pairs need or 1 MiB.
 */
static u64 chm_chunks_roomy(const struct chm *map, const struct chm_table *t)
{
	u64 needed = chm_chunks_needed(map, map->entries + 1);
	u64 roomy = chm_chunks_for(map->p, map->entries +
				   2 * chm_nr_dead(t) + 1);
	/* With header and bitmaps, it is to fit into one block of the page allocator. */
	u64 most = max(2 * needed, div_u64(CHM_RETIRED_MIN - CHM_RETIRED_MIN / 64,
					   t->stride));

	return max(needed, min(roomy, most));
}

/* Chunks for the pairs and some more, as after a growth. */
static u64 chm_chunks_ample(const struct chm *map)
{
	const struct chm_params *p = map->p;
	u64 ample = div_u64((u64)map->entries * (p->growth ?: 140), 100);

	return max(chm_chunks_needed(map, map->entries),
		   chm_chunks_at_most(p, chm_chunks_for(p, ample)));
}

/* Pairs and DEAD slots with which a table that has DEAD ones is crowded. */
static unsigned long chm_crowd(const struct chm_table *t)
{
	return t->max_entries + (chm_spare(t) + 3) / 4;
}

/*
 * Do DEAD slots fill the table so far beyond its maximum load that one more
 * pair would lie, and send readers, too far from home?
 */
static bool chm_crowded(const struct chm *map, const struct chm_table *t)
{
	unsigned long dead = chm_nr_dead(t);

	return dead && map->entries + dead >= chm_crowd(t);
}

/* Is there no room for another pair, a replacement (!@new) included? */
static __always_inline bool chm_full(const struct chm *map, const struct chm_table *t,
				     bool new)
{
	unsigned long used = map->entries + chm_nr_dead(t);

	/* The writer that finds it full at maximum load makes it grow. */
	if (map->p->reclaim == CHM_SYNC)
		return (new && map->entries >= t->max_entries) ||
		       chm_crowded(map, t);
	return used >= t->hard_entries + (new ? 0 : chm_spare(t) / 4);
}

/*
 * The number of pairs at which the next table is asked for.  It is lower if pairs come
 * so fast that an earlier table still waits for its readers: the worker may be late.
 */
static unsigned long chm_ask(const struct chm *map, const struct chm_table *t)
{
	if (!map->retired || map->entries <= t->migrated + t->nr_chunks ||
	    chm_bytes(t) <= CHM_SMALL)
		return t->ask_entries;
	return min(t->ask_entries, chm_early(t));
}

/* Has the map more pairs than this table is for, or will it soon? */
static bool chm_outgrown(const struct chm *map, const struct chm_table *t)
{
	const struct chm_params *p = map->p;

	if (chm_is_largest(p, t))
		return false;
	/* Its writers grow it, when it is full. */
	if (p->reclaim == CHM_SYNC)
		return false;
	return map->entries > max3(chm_ask(map, t), map->reserved, p->min_entries) ||
	       map->entries > t->max_entries;
}

/* A table of the same size; larger, if there are more pairs than it is for. */
static u64 chm_chunks_same(const struct chm *map, const struct chm_table *t)
{
	return max_t(u64, t->nr_chunks, chm_chunks_needed(map, map->entries));
}

/* For tests: but leave room for the tables that writers wait for. */
static bool chm_never_rests(const struct chm *map)
{
	return chm_is_restless() &&
	       (!map->retired || map->retired_bytes <= CHM_RETIRED_MIN / 2);
}

static u64 __chm_chunks_due(const struct chm *map, const struct chm_table *t,
			    bool never_rests)
{
	if (chm_outgrown(map, t))
		return chm_chunks_grown(map, t);
	/* The others can wait for chm_reserve() and chm_shrink(). */
	if (map->claims)
		return 0;
	if (chm_crowded(map, t))
		return chm_chunks_roomy(map, t);
	if (map->seeding || never_rests ||
	    (t->far_gone && t->writes > t->nr_chunks / 8) ||
	    (t->unlowered > t->nr_chunks / 64 && t->writes > t->nr_chunks))
		return chm_chunks_same(map, t);
	return 0;
}

/* How large a table is due, because of what writers did; 0: none. */
static u64 chm_chunks_due(const struct chm *map, const struct chm_table *t)
{
	return __chm_chunks_due(map, t, chm_never_rests(map));
}

/* --- Trigger --- */

/* Have the worker look for memory. */
static void chm_want(struct chm *map)
{
	chm_set_phase(map, CHM_WANTED);
	chm_call_worker(map);
}

/*
 * Hash seed of @fresh.  For a map without pairs it is always a new one: those that
 * come may do so in the order of the old one, as a walk has shown them, and pile
 * up in the first chunks of a table that grows with them.
 */
static void chm_seed_table(struct chm *map, struct chm_table *fresh)
{
	const struct chm_table *t = chm_table(map);

	if (t && map->entries && map->seeding == CHM_SAME_SEED) {
		memcpy(fresh->seed, t->seed, sizeof(fresh->seed));
		fresh->use_siphash = t->use_siphash;
		fresh->fresh = t->fresh + t->writes;
		fresh->far_enough = t->far_enough;
		return;
	}
	fresh->seed[0] = get_random_u64();
	fresh->seed[1] = get_random_u64();
	fresh->use_siphash = map->seeding == CHM_NEW_SIPHASH;
	fresh->far_enough = min_t(u64, U32_MAX, map->entries / 8);
	map->reseeds += map->entries && map->seeding != CHM_SAME_SEED;
	map->hash_is_bad &= !!map->entries;
	map->seeding = CHM_SAME_SEED;
}

/*
 * Is @fresh only so large because pairs came faster than earlier tables were freed?  When
 * the map is calm, it need not stay so.
 */
static bool chm_rushed(const struct chm *map, const struct chm_table *t,
		       const struct chm_table *fresh)
{
	u64 usual = chm_chunks_at_most(map->p, chm_chunks_usual(map->p, t));

	return fresh->nr_chunks > max(usual, chm_chunks_needed(map, map->entries + 1));
}

/* Is there room in @fresh for all pairs, and for those that were promised room? */
static bool chm_fits(const struct chm *map, const struct chm_table *fresh)
{
	return max(map->entries, map->reserved) <= fresh->max_entries;
}

/*
 * Begin to fill @fresh, or publish it if there is nothing to copy.  Its snapshot, if it
 * has room for one, will be of the active table.  @stuck: a writer finds no slot in the
 * active table.  Return: 0; -EBUSY if a migration is under way; -EAGAIN if @fresh has
 * become too small for the map, or if another table must be freed first.  After an
 * error, @fresh still belongs to the caller.
 */
static int chm_begin(struct chm *map, struct chm_table *fresh, bool stuck)
{
	struct chm_table *t = chm_table(map);
	u64 ample;

	lockdep_assert_held(&map->lock);
	if (map->phase > CHM_WANTED)
		return -EBUSY;
	if (!chm_fits(map, fresh))
		return -EAGAIN;
	/* Others were retired meanwhile.  Without a slot that counts for less. */
	if (t && !chm_may_retire(map, t, chm_bytes(fresh)) &&
	    ((!stuck && !chm_full(map, t, true)) || chm_retired_by_far(map, t)))
		return -EAGAIN;
	chm_seed_table(map, fresh);
	chm_set_phase(map, CHM_IDLE);
	map->clone_failed = false;
	map->seed_failed = false;
	/* Made to fit: nobody asks for more before it is full. */
	if (fresh->ask_entries < map->entries || chm_is_largest(map->p, fresh))
		fresh->ask_entries = fresh->max_entries;
	fresh->ask_entries = clamp(map->p->min_entries, fresh->ask_entries,
				   fresh->max_entries);
	if (!t) {
		chm_publish(map, fresh);
		return 0;
	}
	if (chm_pending(fresh))
		chm_pending(fresh)->from = t;
	/* The DEAD slots that it is so large for may be EMPTY by now. */
	ample = chm_chunks_ample(map);
	fresh->roomy = (fresh->nr_chunks > t->nr_chunks ||
			(t->roomy && fresh->nr_chunks > ample + ample / 8)) &&
		       !chm_outgrown(map, t) &&
		       (map->p->reclaim != CHM_SYNC ||
			map->entries < t->max_entries || chm_is_largest(map->p, t));
	if (chm_rushed(map, t, fresh)) {
		fresh->roomy = true;
		fresh->waited = true;
	}
	fresh->migrated_ns = ktime_get_ns();
	map->next = fresh;
	chm_set_phase(map, CHM_COPYING);
	map->cursor = map->entries ? 0 : t->nr_chunks;
	if (t->nr_chunks - map->cursor <= CHM_WORKER_STEP && !chm_step_chunks)
		chm_step(map, CHM_WORKER_STEP);
	chm_call_worker(map);
	return 0;
}

/*
 * Will chm_chunks_due() find nothing?  Return: after how many more pairs or DEAD slots that
 * must be asked again; 0: now, as it can't be told.
 */
static u32 chm_at_ease(const struct chm *map, const struct chm_table *t)
{
	unsigned long most = map->retired ? chm_early(t) : t->ask_entries;
	unsigned long used = map->entries + chm_nr_dead(t);
	unsigned long limit = chm_crowd(t);

	/* See chm_outgrown() and chm_ask() for the first, chm_crowded() for the second. */
	if (map->p->reclaim == CHM_SYNC || chm_is_largest(map->p, t))
		most = limit;
	else
		most = min(max3(most, map->reserved, map->p->min_entries),
			   t->max_entries);
	if (map->entries > most || used >= limit ||
	    t->unlowered > t->nr_chunks / 64 ||
	    map->seeding || t->far_gone || chm_is_restless())
		return 0;
	return min3(most - map->entries + 1, limit - used, CHM_LOOK_EVERY);
}

#if IS_ENABLED(CONFIG_KUNIT)
/* What has made something due has cleared look_later, or was counted by it. */
static void chm_check_ease(const struct chm *map, const struct chm_table *t)
{
	WARN_ON_ONCE(map->phase == CHM_IDLE && !map->retired &&
		     __chm_chunks_due(map, t, false));
}
#else
static void chm_check_ease(const struct chm *map, const struct chm_table *t) { }
#endif

/* A table that is due, and the one that it is for; that one may be gone by now. */
struct chm_plan {
	u64	chunks;		/* 0: none is due */
	u32	old_chunks;	/* 0: there was none */
	u32	id;		/* 0: there was none */
};

static u32 chm_table_id(const struct chm_table *t)
{
	return t ? t->id : 0;
}

static struct chm_plan chm_plan_for(const struct chm_table *t, u64 chunks)
{
	return (struct chm_plan) {
		.chunks = chunks,
		.old_chunks = t ? t->nr_chunks : 0,
		.id = chm_table_id(t),
	};
}

/* What was planned for another table may be too small by now, or too large. */
static bool chm_is_current(const struct chm *map, const struct chm_plan *plan)
{
	return chm_table_id(chm_table(map)) == plan->id;
}

static noinline struct chm_plan chm_trigger_now(struct chm *map, struct chm_table *t,
						bool allocates)
{
	const struct chm_plan none = { };
	u64 chunks, bytes;
	u32 ease;

	if (map->phase != CHM_IDLE)
		return none;
	ease = chm_at_ease(map, t);
	if (ease) {
		t->look_later = ease;
		return none;
	}
	chunks = chm_chunks_due(map, t);
	if (!chunks)
		return none;
	bytes = chm_table_bytes(map->p, chunks);
	/* Looking is not cheap, and a table is to be freed first. */
	if (!chm_may_retire(map, t, bytes)) {
		t->look_later = min(t->nr_chunks / 32, (u32)U8_MAX);
		return none;
	}
	/* Its writers see to room themselves; the worker, to all else. */
	if (map->p->reclaim == CHM_SYNC) {
		chm_call_worker(map);
		return none;
	}
	/* The worker sees to it in a second, when there may be no writer. */
	if (chm_clone_failed_now(map))
		allocates = false;
	if (bytes <= CHM_SMALL && allocates)
		return chm_plan_for(t, chunks);
	chm_want(map);
	return none;
}

/*
 * Is something due?  Called at the end of every write: by level, not by edge, so
 * that no wake-up can be lost.  Most writes need not look: see look_later.  Return: a
 * table that the caller shall allocate in chm_begin_small(), without the lock; or none.
 */
static __always_inline struct chm_plan chm_trigger(struct chm *map, bool allocates)
{
	struct chm_table *t = chm_table(map);

	if (unlikely(!t))
		return (struct chm_plan) { };
	if (likely(t->look_later) && !chm_is_restless()) {
		chm_check_ease(map, t);
		return (struct chm_plan) { };
	}
	return chm_trigger_now(map, t, allocates);
}

static int chm_begin_planned(struct chm *map, const struct chm_plan *plan,
			     struct chm_table *fresh, bool stuck)
{
	return chm_is_current(map, plan) ? chm_begin(map, fresh, stuck) : -EAGAIN;
}

/* Without direct reclaim; nor is kswapd woken up if the caller's @gfp forbids it. */
static noinline void chm_begin_small(struct chm *map, struct chm_plan plan, gfp_t gfp)
{
	struct chm_table *fresh;
	unsigned long flags;
	int ret = -ENOMEM;

	fresh = chm_table_build(map->p, map->ctx, plan.chunks, plan.old_chunks,
				GFP_NOWAIT & gfp);
	chm_lock(map, flags);
	if (!IS_ERR(fresh) && chm_table(map))
		ret = chm_begin_planned(map, &plan, fresh, false);
	if (IS_ERR(fresh) && map->phase == CHM_IDLE) {
		map->failed_allocs++;
		chm_want(map);
	}
	chm_unlock(map, flags);
	if (ret && !IS_ERR(fresh))
		chm_table_free(fresh);
}

/* --- Writers that can't go on --- */

/* A place for tests to come between a wait and what it is counted for. */
VISIBLE_IF_KUNIT void chm_waited(struct chm *map)
{
	KUNIT_STATIC_STUB_REDIRECT(chm_waited, map);
}

#if IS_ENABLED(CONFIG_KUNIT)
EXPORT_SYMBOL_GPL(chm_waited);
#endif

/* Count and trace a wait for a grace period.  No lock is held. */
static void chm_wait_for_readers(struct chm *map)
{
	struct chm_table *t;
	unsigned long flags;
	struct chm_wait w;

	chm_lock(map, flags);
	map->gp_waits++;
	t = chm_table(map);
	if (t)
		chm_seal(t);
	w = chm_begin_wait(t);
	chm_call_worker(map);
	chm_unlock(map, flags);
	trace_chm_wait(map, READ_ONCE(map->retired_bytes));
	/* O5, O7, O9: pairs with the end of the readers' sections. */
	synchronize_rcu();
	chm_waited(map);
	chm_lock(map, flags);
	t = chm_table(map);
	chm_credit_wait(t, &w);
	chm_unlock(map, flags);
}

/*
 * The caller has waited for readers, and will wait for the worker.  That may have looked
 * too soon, and wait for later readers.
 */
static void chm_have_worker_look(struct chm *map)
{
	unsigned long flags;

	chm_lock(map, flags);
	chm_call_worker(map);
	chm_unlock(map, flags);
}

/* Has the worker, or another writer, brought the map further? */
static bool chm_has_moved(struct chm *map, u32 id, u32 version, u8 phase,
			  unsigned long retired_bytes)
{
	const struct chm_table *t;
	unsigned long flags;
	bool moved;

	chm_lock(map, flags);
	t = chm_table(map);
	moved = !t || t->id != id || t->version != version ||
		map->phase != phase || map->retired_bytes != retired_bytes;
	chm_unlock(map, flags);
	return moved;
}

static void chm_turns_of_writer(struct chm *map);
static enum chm_turn chm_merge_hold(struct chm *map);
static enum chm_turn chm_turn_sweep(struct chm *map, bool worker);

static bool chm_can_sweep(struct chm *map)
{
	struct chm_table *t;
	unsigned long flags;
	bool can;

	chm_lock(map, flags);
	t = chm_table(map);
	can = t && !map->p->drop && chm_may_sweep(map, t);
	chm_unlock(map, flags);
	return can;
}

/*
 * Make all DEAD slots EMPTY that no reader looks at any more, without waiting for the
 * worker.  Return: whether there were any that a writer may sweep.
 */
static bool chm_sweep_now(struct chm *map)
{
	bool swept = false;

	while (chm_can_sweep(map)) {
		chm_turn_sweep(map, false);
		swept = true;
	}
	return swept;
}

/* Wait for a grace period, and a moment for what the worker does after it. */
static void chm_await(struct chm *map)
{
	unsigned long flags, retired_bytes;
	struct chm_table *t;
	u32 id, version;
	u8 phase;

	chm_lock(map, flags);
	t = chm_table(map);
	id = chm_table_id(t);
	version = t ? t->version : 0;
	phase = map->phase;
	retired_bytes = map->retired_bytes;
	if (t)
		t->waited = true;
	chm_unlock(map, flags);
	/* Then the other generation is sealed, too, and this wait will do for it. */
	chm_sweep_now(map);
	chm_wait_for_readers(map);
	if (map->p->reclaim == CHM_SYNC) {
		chm_turns_of_writer(map);
	} else if (!chm_sweep_now(map)) {
		chm_have_worker_look(map);
		wait_var_event_timeout(map, chm_has_moved(map, id, version, phase,
							  retired_bytes),
				       HZ / 10 + 1);
	}
}

/* What a writer that found no room can do about it. */
enum chm_way {
	CHM_GO_ON,		/* another one has made room */
	CHM_BUILD,		/* a larger table, or one without DEAD slots */
	CHM_DRIVE,		/* the migration that is under way */
	CHM_AWAIT,		/* a grace period */
};

/* A place for tests to have others make room: before a way is chosen, and after. */
VISIBLE_IF_KUNIT void chm_found_no_room(struct chm *map, bool planned)
{
	KUNIT_STATIC_STUB_REDIRECT(chm_found_no_room, map, planned);
}

#if IS_ENABLED(CONFIG_KUNIT)
EXPORT_SYMBOL_GPL(chm_found_no_room);
#endif

static enum chm_way chm_way_out(struct chm *map, struct chm_op *op, bool block,
				struct chm_plan *plan)
{
	struct chm_table *t = chm_table(map);
	bool larger;
	u64 chunks;

	lockdep_assert_held(&map->lock);
	if (t && !chm_full(map, t, true) &&
	    ((!op->too_far && !op->stuck) || op->id != t->id))
		return CHM_GO_ON;
	if (map->phase == CHM_COPYING)
		return CHM_DRIVE;
	if (map->phase >= CHM_SETTLING)
		return CHM_AWAIT;
	larger = t && map->entries >= t->max_entries && !chm_is_largest(map->p, t);
	if (!t)
		chunks = chm_chunks_needed(map, 1);
	else if (larger)
		chunks = chm_chunks_grown(map, t);
	else if (map->claims && block && map->p->reclaim != CHM_SYNC)
		return CHM_AWAIT;
	else if (chm_full(map, t, true))
		chunks = chm_chunks_roomy(map, t);
	else
		chunks = chm_chunks_same(map, t);
	if (t && !chm_may_retire(map, t, chm_table_bytes(map->p, chunks)) &&
	    (block || chm_retired_by_far(map, t)))
		return CHM_AWAIT;
	/* Readers end sooner than clone() gets what it lacks. */
	if (t && map->entries < t->hard_entries && block && !op->too_far &&
	    chm_clone_failed_now(map) && chm_nr_dead(t))
		return CHM_AWAIT;
	*plan = chm_plan_for(t, chunks);
	op->optional = t && (!larger || op->too_far);
	return CHM_BUILD;
}

/*
 * Is there memory for the planned table?  No, if it would take most of what is left; if
 * @tidy, more than half of it.  Trying nevertheless would use up all memory for a
 * while, and the OOM killer would kill other processes.
 */
static bool chm_can_afford(const struct chm_params *p, const struct chm_plan *plan,
			   bool tidy)
{
	u64 bytes = chm_table_bytes(p, plan->chunks);
	long available;

	if (chm_takes_snapshots(p))
		bytes += chm_snapshot_bytes(p, plan->old_chunks);
	if (bytes <= CHM_MIDDLING && !tidy)
		return true;
	available = si_mem_available();
	return (s64)(bytes >> PAGE_SHIFT) <= available - available / (tidy ? 2 : 8);
}

static struct chm_table *chm_build_afford(const struct chm *map,
					  const struct chm_plan *plan, gfp_t gfp)
{
	/* Beyond all limits chm_table_build() says so. */
	if (plan->chunks <= CHM_MAX_CHUNKS && !chm_can_afford(map->p, plan, false))
		return ERR_PTR(-ENOMEM);
	return chm_table_build(map->p, map->ctx, plan->chunks, plan->old_chunks, gfp);
}

/*
 * Build the table that was planned.  If memory is short, try a table with only a little
 * more room than is needed, provided that it is larger than the old one.  If there is
 * no old one, it only has to be smaller than planned.
 */
static struct chm_table *chm_build(const struct chm *map, struct chm_plan plan,
				   u32 *failed, gfp_t gfp)
{
	unsigned long entries = READ_ONCE(map->entries);
	u64 fit = chm_chunks_for(map->p, max(entries + entries / 16 + 1,
					     READ_ONCE(map->reserved)));
	bool will_do = plan.old_chunks ? fit > plan.old_chunks : fit < plan.chunks;
	struct chm_table *fresh;

	/* Insist only on what is needed. */
	fresh = chm_build_afford(map, &plan, will_do ? chm_optional(gfp) : gfp);
	*failed = fresh == ERR_PTR(-ENOMEM);
	if (*failed && will_do) {
		plan.chunks = min(fit, plan.chunks);
		fresh = chm_build_afford(map, &plan, gfp);
		*failed += fresh == ERR_PTR(-ENOMEM);
	}
	return fresh;
}

/* Return: 0, or an error if no table could be had. */
static int chm_build_and_begin(struct chm *map, const struct chm_plan *plan, bool stuck,
			       gfp_t gfp)
{
	struct chm_table *fresh;
	unsigned long flags;
	u32 failed;
	int ret;

	fresh = chm_build(map, *plan, &failed, gfp);
	chm_lock(map, flags);
	map->failed_allocs += failed;
	if (IS_ERR(fresh)) {
		ret = PTR_ERR(fresh);
		/* The worker tries again, from time to time. */
		if (chm_table(map) && map->phase == CHM_IDLE &&
		    map->p->reclaim != CHM_SYNC)
			chm_want(map);
	} else {
		ret = chm_begin_planned(map, plan, fresh, stuck);
	}
	chm_unlock(map, flags);
	if (!ret || IS_ERR(fresh))
		return ret;
	chm_table_free(fresh);
	return 0;
}

/*
 * There is no memory for a table.  Is another try worthwhile?  It is if others have
 * made room meanwhile.  It also is after a wait for DEAD slots to become EMPTY, if
 * there are any and the caller may wait.  If there is no slot on the path of the pair,
 * room elsewhere in the same table is of no use.
 */
static bool chm_has_room(struct chm *map, const struct chm_op *op, bool block)
{
	const struct chm_table *t;
	unsigned long flags;
	bool room, dead;

	chm_lock(map, flags);
	t = chm_table(map);
	room = t && (!op->stuck || op->id != t->id) && !chm_full(map, t, true);
	dead = t && chm_nr_dead(t);
	chm_unlock(map, flags);
	if (room || !dead || !block)
		return room;
	chm_await(map);
	return true;
}

/*
 * The worker may be busy with another map: merge cells that no reader updates any more.
 * Return: whether that is worth another try; not, if readers may still update them.
 */
static bool chm_merge_now(struct chm *map, struct chm_op *op, bool block)
{
	enum chm_turn again = CHM_SOON;
	u32 holds;

	for (holds = 0; holds < 4 * CHM_TURN && again == CHM_SOON; holds++) {
		unsigned long flags;

		chm_lock(map, flags);
		again = chm_merge_hold(map);
		chm_unlock(map, flags);
		if (block)
			cond_resched();
	}
	/* That took a while.  In an interrupt it is done four times at most. */
	if (again == CHM_SOON && !block)
		op->attempts += CHM_ATTEMPTS / 4;
	return again != CHM_LATER;
}

/* A writer found no usable slot.  Return: 0 to try again, -ENOMEM or -E2BIG. */
static noinline int chm_make_room(struct chm *map, struct chm_op *op, gfp_t gfp)
{
	bool block = gfpflags_allow_blocking(gfp) && !chm_in_worker();
	struct chm_plan plan;
	unsigned long flags;
	bool settling, aborted;
	enum chm_way way;
	int ret;

	chm_found_no_room(map, false);
	chm_lock(map, flags);
	aborted = map->aborts != op->aborts;
	/* Where clone() fails each time, so does every migration, late perhaps. */
	if (aborted && map->clone_failed)
		op->attempts += CHM_ATTEMPTS / 4;
	else if (aborted || !block)
		op->attempts++;
	op->aborts = map->aborts;
	way = chm_way_out(map, op, block, &plan);
	settling = map->phase >= CHM_SETTLING;
	chm_unlock(map, flags);
	chm_found_no_room(map, true);
	if (op->too_far && (!block || ++op->tries > CHM_NEAR_TRIES)) {
		op->how |= CHM_ANYWHERE;
		return 0;
	}
	if (op->attempts > CHM_ATTEMPTS)
		return -ENOMEM;
	switch (way) {
	case CHM_GO_ON:
		return 0;
	case CHM_DRIVE:
		chm_drive(map, block ? U32_MAX : 4 * CHM_TURN, block);
		return 0;
	case CHM_AWAIT:
		if (settling && chm_merge_now(map, op, block))
			return 0;
		if (!block)
			return -ENOMEM;
		chm_await(map);
		return 0;
	case CHM_BUILD:
		break;
	}
	ret = chm_build_and_begin(map, &plan, op->stuck,
				  op->optional ? chm_optional(gfp) : gfp);
	if (ret && op->too_far)
		op->how |= CHM_ANYWHERE;
	/* There is always a DEAD slot to wait for, where others replace. */
	if (ret)
		op->attempts++;
	if (ret && chm_has_room(map, op, block))
		return 0;
	return ret;
}

/*
 * Return: 0 if table @id was replaced; -ENOMEM if it is still there because clone() has
 * failed, -EAGAIN if the migration was ended for another reason.
 */
static int chm_move_result(struct chm *map, u32 id)
{
	unsigned long flags;
	bool moved, failed;

	chm_lock(map, flags);
	moved = !chm_table(map) || chm_table(map)->id != id;
	failed = map->clone_failed;
	chm_unlock(map, flags);
	if (moved)
		return 0;
	return failed ? -ENOMEM : -EAGAIN;
}

/* Is chm_move() to be tried again, with what is due then? */
static bool chm_move_again(int ret)
{
	return ret == -ERESTART || ret == -EAGAIN;
}

/* Is all as it was planned?  If not, wait for what keeps the map from moving. */
static int chm_before_move(struct chm *map, const struct chm_plan *plan)
{
	unsigned long flags;
	struct chm_table *t;
	bool current_plan, wait;

	chm_drive(map, U32_MAX, true);
	chm_lock(map, flags);
	t = chm_table(map);
	current_plan = chm_is_current(map, plan);
	wait = map->phase > CHM_WANTED ||
	       (t && !chm_may_retire(map, t, chm_table_bytes(map->p, plan->chunks)));
	chm_unlock(map, flags);
	if (!wait)
		return current_plan ? 0 : -ERESTART;
	if (chm_in_worker())
		return -EBUSY;
	chm_await(map);
	return -ERESTART;
}

/*
 * Another table was put in while one was built.  Does the latter still make the map
 * larger, or smaller, as it was to do?  Then it is not thrown away: where writers never
 * pause, tables may come and go faster than a large one can be built.
 */
static bool chm_leads_on(const struct chm *map, const struct chm_plan *plan)
{
	const struct chm_table *t = chm_table(map);
	u32 now = t ? t->nr_chunks : 0;

	return (plan->chunks > plan->old_chunks) == (plan->chunks > now) &&
	       (plan->chunks < plan->old_chunks) == (plan->chunks < now);
}

/*
 * A migration keeps a table that was built from being used; or, if @retired, another
 * table that is to be freed first.  Return: whether to try again.
 */
static bool chm_wait_to_begin(struct chm *map, bool retired)
{
	if (chm_in_worker())
		return false;
	chm_drive(map, U32_MAX, true);
	/* Until cells are merged, no migration begins. */
	if (retired || READ_ONCE(map->phase) >= CHM_SETTLING)
		chm_await(map);
	return true;
}

/*
 * Begin to move to @fresh, which was built as planned.  @now receives the same plan,
 * but for the table that is active when the move begins.
 */
static int chm_begin_move(struct chm *map, const struct chm_plan *plan,
			  struct chm_plan *now, struct chm_table *fresh, gfp_t gfp)
{
	unsigned long flags;
	bool late, wait;
	int ret;

	do {
		chm_lock(map, flags);
		*now = chm_plan_for(chm_table(map), plan->chunks);
		late = !chm_is_current(map, plan);
		if (late && !chm_leads_on(map, plan))
			ret = -ERESTART;
		else if (!chm_snapshot_fits(fresh, now->old_chunks))
			ret = -ESTALE;
		else
			ret = chm_begin(map, fresh, false);
		/* This size is what the caller wants. */
		if (!ret && !late && (map->next ?: chm_table(map)) == fresh)
			fresh->roomy = false;
		wait = ret == -EBUSY || (ret == -EAGAIN && chm_fits(map, fresh));
		chm_unlock(map, flags);
		if (ret == -ESTALE)
			ret = chm_snapshot_fit(fresh, now->old_chunks, gfp) ?: -ESTALE;
	} while (ret == -ESTALE || (wait && chm_wait_to_begin(map, ret == -EAGAIN)));
	return ret == -EBUSY ? -ERESTART : ret;
}

static void chm_count_failed_alloc(struct chm *map)
{
	unsigned long flags;

	chm_lock(map, flags);
	map->failed_allocs++;
	chm_unlock(map, flags);
}

/*
 * Move to the table that was planned.  May sleep.  Return: 0 if it has replaced the
 * table of the plan; 1 if it has replaced another table; -ERESTART if nothing was done,
 * because something else was under way or came in between; -EAGAIN if it no longer
 * fitted once it was allocated, or if the migration ended before all pairs were copied.
 */
static int chm_move(struct chm *map, const struct chm_plan *plan, gfp_t gfp)
{
	struct chm_table *fresh;
	struct chm_plan now;
	int ret;

	/* The size of such a table is beyond what can be calculated with. */
	if (plan->chunks > CHM_MAX_CHUNKS)
		return -E2BIG;
	ret = chm_before_move(map, plan);
	if (ret)
		return ret;
	fresh = chm_table_build(map->p, map->ctx, plan->chunks, plan->old_chunks, gfp);
	ret = PTR_ERR_OR_ZERO(fresh) ?: chm_begin_move(map, plan, &now, fresh, gfp);
	if (ret == -ENOMEM)
		chm_count_failed_alloc(map);
	if (ret && !IS_ERR(fresh))
		chm_table_free(fresh);
	if (ret)
		return ret;
	chm_drive(map, U32_MAX, true);
	return chm_move_result(map, now.id) ?: now.id != plan->id;
}

/* --- Flood defence --- */

static u32 chm_probe_limit_at(u64 percent)
{
	if (percent <= 50)
		return CHM_PROBE_LIMIT_HALF;
	if (percent <= 80)
		return CHM_PROBE_LIMIT;
	return percent <= 90 ? CHM_PROBE_LIMIT_90 : CHM_PROBE_LIMIT_FULL;
}

/*
 * The longest probe path that is not suspicious.  A path through more than a quarter of
 * the table is suspicious, except in a small table, which has such paths when it is
 * full.
 */
static u32 chm_probe_limit(const struct chm *map, const struct chm_table *t)
{
	u64 percent = div64_ul(100ULL * map->entries, chm_nr_slots(t));

	return min(chm_probe_limit_at(percent),
		   max(CHM_PROBE_LIMIT, t->nr_chunks / 4));
}

/* Does chm choose the hash? */
static bool chm_may_siphash(const struct chm *map)
{
	return !map->p->hash && !map->p->equal;
}

/*
 * A fresh seed did not help, and there is no other hash to turn to.  The worker tells:
 * a writer holds the lock, and perhaps others that printk() takes.
 */
static void chm_give_hash_up(struct chm *map)
{
	map->hash_is_bad = true;
	map->hash_told = false;
	chm_call_worker(map);
}

static enum chm_turn chm_turn_tell_hash(struct chm *map, bool worker)
{
	u64 (*hash)(const void *key, u64 seed);
	unsigned long flags;
	char name[64];
	bool tell;

	if (!chm_lock_turn(map, worker, &flags))
		return CHM_GONE;
	tell = map->hash_is_bad && !map->hash_told;
	map->hash_told = true;
	hash = map->p->hash;
	if (tell)
		strscpy(name, chm_name(map), sizeof(name));
	chm_unlock_turn(map, worker, flags);
	if (tell && hash)
		pr_warn_ratelimited("map %s: slow, because %ps() gives too many keys the same hash.  It must return at least 32 bits that depend on the whole key.\n",
				    name, hash);
	else if (tell)
		pr_warn_ratelimited("map %s: slow, because too many keys have the same hash\n",
				    name);
	return CHM_DONE;
}

/*
 * A pair was inserted that is due @due chunks from home.  If that is too far, ask for a
 * fresh seed.  If the last seed did not help for long, the keys were chosen to collide:
 * ask for SipHash, too.  Either way all pairs are copied.  So the next defence has to
 * wait until long paths have cost writers and readers about as much as the copying.  A
 * failed attempt costs less: then CHM_DEFEND_AGAIN such paths are enough.
 */
static void chm_defend(struct chm *map, struct chm_table *t, u32 due)
{
	u32 since = t->fresh + t->writes;
	bool again = map->reseeds && since <= map->entries / 4 + 256;

	/* Beyond its maximum load a table waits for a larger one, and paths are long. */
	if (map->entries > t->max_entries || due <= chm_probe_limit(map, t) ||
	    map->hash_is_bad || map->seeding)
		return;
	t->far += min(due, U32_MAX - t->far);
	if (t->far < t->far_enough || map->phase > CHM_WANTED)
		return;
	t->far = 0;
	t->far_enough = min_t(u64, U32_MAX, CHM_DEFEND_AGAIN * (u64)due);
	map->seeding = again && chm_may_siphash(map) ? CHM_NEW_SIPHASH :
							CHM_NEW_SEED;
	t->look_later = 0;
}

/*
 * @t was just published.  If it has a fresh seed: was that of any use?  If not: is one
 * due because of pairs that came while it was filled?
 */
static void chm_judge_seed(struct chm *map, struct chm_table *t)
{
	if (!map->entries || t->longest <= chm_probe_limit(map, t))
		return;
	if (t->fresh) {
		if (t->far >= t->far_enough)
			chm_defend(map, t, t->longest);
		return;
	}
	if (chm_may_siphash(map) && !t->use_siphash)
		map->seeding = CHM_NEW_SIPHASH;
	else
		chm_give_hash_up(map);
}

/*
 * A pair was inserted that is due @due chunks from home.  If that is too far, and a
 * migration is in the way of a fresh seed, copy more: otherwise a flood makes the path
 * much longer before that is over.
 */
static void chm_share_more(struct chm *map, u32 due)
{
	if (map->phase == CHM_COPYING && !chm_step_chunks &&
	    due > chm_probe_limit(map, chm_table(map)))
		chm_step(map, CHM_FLOOD_STEP);
}

/* --- Tidying up --- */

/*
 * How large the table should be: smaller, if it is far too large for the pairs, or
 * DEAD slots have made it too large and there are none any more; the same, if it is
 * worn; 0: it may stay.
 */
static u64 chm_chunks_tidy(const struct chm *map, const struct chm_table *t)
{
	unsigned long used = map->entries + 2 * chm_nr_dead(t);
	u64 ample = chm_chunks_ample(map);
	bool calm = chm_nr_dead(t) <= chm_nr_slots(t) / 1024;

	if (calm && t->roomy && t->nr_chunks > ample)
		return ample;
	/* Not because of chunks that only fill what was allocated. */
	if (used < chm_nr_slots(t) / 8 &&
	    t->nr_chunks > chm_chunks_filling(map->p, 2 * ample))
		return ample;
	return chm_worn(map, t, calm) ? chm_chunks_same(map, t) : 0;
}

/*
 * The worker allocates without I/O: a writer that waits for it may hold any lock of
 * a file system.
 */
#define CHM_WORKER_GFP	(GFP_NOIO | __GFP_NORETRY | __GFP_NOWARN)

/* --- The worker's turn at a map --- */

/* Have there been so many writes to a table that was tidied that this is due again? */
static bool chm_tidy_soon(const struct chm_table *t)
{
	return t->tidy_soon && t->writes > t->nr_chunks / 64;
}

/* Chunks of the table to allocate; 0: none.  @tidy: set if no writer needs it. */
static u64 chm_turn_chunks(struct chm *map, bool *tidy, enum chm_turn *again)
{
	struct chm_table *t = chm_table(map);
	u64 chunks;

	*again = CHM_DONE;
	if (!t || map->phase > CHM_WANTED)
		return 0;
	/* See chm_turn_empty(). */
	if (map->claims)
		*again = CHM_LATER;
	chunks = chm_chunks_due(map, t);
	*tidy = !chunks;
	/* What must not be done while memory is wanted, chm_turn_empty(), can be now. */
	if (*tidy && map->phase == CHM_WANTED) {
		chm_set_phase(map, CHM_IDLE);
		chm_call_worker(map);
	}
	/* A table that was made for a promise is not to be given back before it. */
	if (!chunks && !map->claims && !chm_is_restless())
		chunks = chm_chunks_tidy(map, t);
	if (!chunks)
		return 0;
	/* Where writers had to wait, tidy a second later: they need the whole table. */
	if (*tidy && t->waited) {
		t->waited = false;
		t->tidy_soon = false;
		chm_put_off_more(map, 1);
	}
	/* That second is over. */
	if (!chm_clone_failed_now(map))
		map->clone_failed = false;
	*again = CHM_LATER;
	if (!chm_may_retire(map, t, chm_table_bytes(map->p, chunks)))
		return 0;
	if (map->clone_failed || (*tidy && !chm_tidy_soon(t) && chm_is_put_off(map))) {
		*again = CHM_PUT_OFF;
		return 0;
	}
	return chunks;
}

/*
 * What copying all pairs takes, about.  Where that depends on clone() and hash(), each pair
 * takes as long as the last time.  Few pairs in many chunks tell little of many pairs.
 */
static u64 chm_copying_ns(const struct chm *map)
{
	const struct chm_table *t = chm_table(map);
	u64 ns = (u64)map->entries * (CHM_COPY_NS + t->slot_size / 4);

	if (chm_copies_by_user(map->p) && t->migrated)
		ns = max(ns, min_t(u64, map->entries, 4ULL * t->migrated) *
			     div_u64(t->copying_ns, t->migrated));
	return ns;
}

/* Look for the memory that is wanted, or that would make the map tidy. */
static enum chm_turn chm_turn_memory(struct chm *map, bool worker)
{
	u64 start = ktime_get_ns(), copying = 0;
	const struct chm_params *p;
	struct chm_table *fresh = NULL;
	enum chm_turn again;
	unsigned long flags;
	struct chm_plan plan;
	void *ctx;
	bool tidy;
	int ret = -ENOMEM;

	if (!chm_lock_turn(map, worker, &flags))
		return CHM_GONE;
	plan = chm_plan_for(chm_table(map), chm_turn_chunks(map, &tidy, &again));
	if (plan.chunks)
		copying = chm_copying_ns(map);
	p = map->p;
	ctx = map->ctx;
	chm_unlock_turn(map, worker, flags);
	if (!plan.chunks)
		return again;
	if (chm_can_afford(p, &plan, tidy))
		fresh = chm_table_build(p, ctx, plan.chunks, plan.old_chunks,
					CHM_WORKER_GFP);
	if (!chm_lock_turn(map, worker, &flags)) {
		if (!IS_ERR_OR_NULL(fresh))
			chm_table_free(fresh);
		return CHM_GONE;
	}
	/* chm_shrink() may have found meanwhile that the old one fits. */
	if (!IS_ERR_OR_NULL(fresh)) {
		fresh->tidies = tidy;
		ret = chm_table(map) && (tidy || chm_chunks_due(map, chm_table(map))) ?
			chm_begin_planned(map, &plan, fresh, false) : -EAGAIN;
	}
	map->failed_allocs += ret == -ENOMEM;
	if (tidy)
		chm_put_off_tidying(map, map->next ?: chm_table(map),
				    ktime_get_ns() - start + (ret ? 0 : copying),
				    ret == -ENOMEM);
	chm_unlock_turn(map, worker, flags);
	if (ret && !IS_ERR_OR_NULL(fresh))
		chm_table_free(fresh);
	return ret == -ENOMEM || ret == -EAGAIN ? CHM_LATER : CHM_SOON;
}

/*
 * Copy, unless writers do: each of them copies enough, and taking the lock from one
 * another costs more than that.
 */
static enum chm_turn chm_turn_copy(struct chm *map, bool worker)
{
	unsigned long flags;
	u32 holds, cursor = 0;

	for (holds = 0; holds < CHM_TURN; holds++) {
		bool more, busy;

		if (!chm_lock_turn(map, worker, &flags))
			return CHM_GONE;
		busy = holds && map->cursor != cursor;
		if (map->phase == CHM_COPYING && !busy)
			chm_step(map, CHM_WORKER_STEP);
		more = map->phase == CHM_COPYING;
		cursor = map->cursor;
		chm_unlock_turn(map, worker, flags);
		if (!more) {
			chm_tell(map);
			return CHM_DONE;
		}
		if (busy)
			return CHM_LATER;
		cond_resched();
	}
	return CHM_SOON;
}

/* One hold of the lock for the cells of @map. */
static enum chm_turn chm_merge_hold(struct chm *map)
{
	struct chm_snapshot *s;

	if (map->phase < CHM_SETTLING)
		return CHM_DONE;
	s = chm_pending(chm_table(map));
	/* O9: pairs with the end of the sections that update old cells. */
	if (map->phase == CHM_SETTLING && !poll_state_synchronize_rcu(s->cookie))
		return CHM_LATER;
	chm_set_phase(map, CHM_MERGING);
	if (!chm_merge_some(s, chm_table(map), CHM_WORKER_STEP))
		return CHM_SOON;
	chm_end_snapshot(map, s);
	return CHM_DONE;
}

static enum chm_turn chm_turn_merge(struct chm *map, bool worker)
{
	enum chm_turn again = CHM_SOON;
	unsigned long flags;
	u32 holds;

	for (holds = 0; holds < CHM_TURN && again == CHM_SOON; holds++) {
		if (!chm_lock_turn(map, worker, &flags))
			return CHM_GONE;
		again = chm_merge_hold(map);
		chm_unlock_turn(map, worker, flags);
		cond_resched();
	}
	return again;
}

/*
 * Some cells of retired tables, oldest first, that no reader sees.  Any of them may be
 * the one whose cell a taker waits for.  Return: whether there were none.
 */
static bool chm_merge_retired(struct chm *map)
{
	struct chm_table *t = map->retired;

	do {
		struct chm_snapshot *s;

		t = t->link;
		s = chm_pending(t);
		/* O9: pairs with the end of the sections that update old cells. */
		if (s && s->from && s->cursor < s->from->nr_chunks &&
		    poll_state_synchronize_rcu(t->cookie)) {
			chm_merge_some(s, t, CHM_WORKER_STEP);
			return false;
		}
	} while (t != map->retired);
	return true;
}

/* Does a taker still read a cell in @t, or in what is to be merged into it? */
static bool chm_pinned(const struct chm_table *t)
{
	const struct chm_snapshot *s = chm_pending(t);

	return t->pins_0 || t->pins_1 || (s && s->from && chm_pinned(s->from));
}

/* The oldest retired table that no reader sees; @again: if there are others. */
static struct chm_table *chm_turn_oldest(struct chm *map, enum chm_turn *again)
{
	struct chm_table *t = chm_oldest(map->retired);

	*again = t ? CHM_LATER : CHM_DONE;
	/* O7: pairs with the end of the readers' sections. */
	if (!t || !poll_state_synchronize_rcu(t->cookie))
		return NULL;
	if (!chm_pinned(t))
		return t;
	if (!chm_merge_retired(map))
		*again = CHM_SOON;
	return NULL;
}

static void chm_count_changed(struct chm *map, u32 changed)
{
	map->changed = min(map->changed + changed, (u32)U16_MAX);
}

/* Free a retired table, or some pairs of it.  Only the worker does that. */
static enum chm_turn chm_turn_retired(struct chm *map, bool worker)
{
	enum chm_turn again;
	char name[IS_ENABLED(CONFIG_CHM_DEBUG) ? 64 : 1];
	bool first, dropped;
	struct chm_table *t;
	unsigned long flags;
	u32 changed;

	if (!chm_lock_turn(map, worker, &flags))
		return CHM_GONE;
	t = chm_turn_oldest(map, &again);
	/* The map, and its name, may be gone when it is needed.  One report will do. */
	first = !map->changed;
	if (IS_ENABLED(CONFIG_CHM_DEBUG))
		strscpy(name, chm_name(map), sizeof(name));
	chm_unlock_turn(map, worker, flags);
	if (!t)
		return again;
	/* Before drop() writes to what clone() was made of. */
	changed = chm_check_frozen(first ? name : NULL, t);
	dropped = chm_drop_some(t);
	if (!chm_lock_turn(map, worker, &flags))
		return CHM_GONE;
	chm_count_changed(map, changed);
	if (dropped) {
		chm_remove_oldest(&map->retired);
		WRITE_ONCE(map->retired_bytes, map->retired_bytes - t->bytes);
		chm_look_now(map);
	}
	chm_unlock_turn(map, worker, flags);
	if (dropped)
		chm_table_free(t);
	return CHM_SOON;
}

/* Slots that were marked as TAKEN, so that nobody drops them again. */
struct chm_sweepings {
	u32		chunk[CHM_DROPS];
	unsigned long	mask[CHM_DROPS];
	u32		n;
	u32		slots;
};

/*
 * Mark up to CHM_DROPS slots of @t whose pairs are to be dropped.  Those that were
 * handed out become EMPTY.
 */
static void chm_gather(struct chm_table *t, struct chm_sweepings *g)
{
	u32 end = min(t->nr_chunks, t->sweep + CHM_SWEEP_CHUNKS);
	u32 chunks = 0;

	g->n = 0;
	g->slots = 0;
	while (g->slots + CHM_SLOTS <= CHM_DROPS && chunks < CHM_WORKER_SWEEP &&
	       chm_next_dead(t, end) < end) {
		struct chm_chunk *c = __chm_chunk(t, t->sweep, t->p);
		unsigned long dead = chm_match_dead_gen(c->ctrl, !t->dead_gen);
		unsigned long mask = dead & chm_match_droppable(c->ctrl);

		if (dead & ~mask)
			chm_empty_slots(t, t->sweep, dead & ~mask);
		if (mask) {
			chm_set_ctrl(t, t->sweep, c, c->ctrl |
				     (mask >> 7) * CHM_TAG_DEAD_TAKEN);
			g->chunk[g->n] = t->sweep;
			g->mask[g->n++] = mask;
			g->slots += hweight_long(mask);
		}
		chunks++;
		t->sweep++;
	}
}

/* Return: of how many chunks, in the time that there is. */
static u32 chm_drop_gathered(const struct chm_table *t,
			     const struct chm_sweepings *g)
{
	u64 end = ktime_get_ns() + CHM_DROPS_NS;
	u32 i;

	for (i = 0; i < g->n && (!i || ktime_get_ns() <= end); i++)
		chm_drop_slots(t, __chm_chunk(t, g->chunk[i], t->p), g->mask[i]);
	return i;
}

/* The slots of the chunks from number @dropped on are still to be dropped. */
static void chm_give_gathered_back(struct chm_table *t, const struct chm_sweepings *g,
				   u32 dropped)
{
	u32 i;

	for (i = dropped; i < g->n; i++) {
		struct chm_chunk *c = __chm_chunk(t, g->chunk[i], t->p);

		chm_set_ctrl(t, g->chunk[i], c, c->ctrl &
			     ~((g->mask[i] >> 7) * CHM_TAG_DEAD_TAKEN));
	}
}

/* Those slots of @n chunks become EMPTY. */
static void chm_empty_gathered(struct chm_table *t, const struct chm_sweepings *g,
			       u32 n)
{
	u32 i;

	for (i = 0; i < n; i++)
		chm_empty_slots(t, g->chunk[i], g->mask[i]);
}

/* One bounded part of a sweep.  The lock is dropped, and taken again, for drop(). */
static enum chm_turn chm_sweep_hold(struct chm *map, bool worker,
				    unsigned long *flags)
{
	struct chm_table *t = chm_table(map);
	struct chm_sweepings g;
	u32 dropped = 0;

	if (!t->p->drop) {
		chm_sweep(t, CHM_WORKER_SWEEP);
		return CHM_SOON;
	}
	chm_gather(t, &g);
	if (g.n) {
		bool gone;

		chm_unlock_turn(map, worker, *flags);
		dropped = chm_drop_gathered(t, &g);
		gone = !chm_lock_turn(map, worker, flags);
		/* Retired or not, and with the map or without: only this worker drops. */
		chm_give_gathered_back(t, &g, dropped);
		/* No lock is held: leave t->sweep alone.  chm_retire() has reset it. */
		if (gone)
			return CHM_GONE;
		if (dropped < g.n)
			t->sweep = min(t->sweep, g.chunk[dropped]);
	}
	/*
	 * O13: they become EMPTY in a hold of the lock that comes after drop().  Pairs
	 * with chm_try_store(), which reuses them in a later one.  A retired table
	 * keeps them as they are: DEAD, and TAKEN.
	 */
	if (t != chm_table(map))
		return CHM_SOON;
	chm_empty_gathered(t, &g, dropped);
	chm_end_sweep(t);
	return CHM_SOON;
}

static enum chm_turn chm_turn_sweep(struct chm *map, bool worker)
{
	enum chm_turn again = CHM_DONE;
	unsigned long flags;
	u32 holds;

	for (holds = 0; holds < CHM_TURN; holds++) {
		struct chm_table *t;
		bool more;

		if (!chm_lock_turn(map, worker, &flags))
			return CHM_GONE;
		t = chm_table(map);
		more = t && chm_may_sweep(map, t);
		again = t && chm_nr_dead(t) ? CHM_LATER : CHM_DONE;
		if (t && !more)
			chm_seal(t);
		if (more)
			again = chm_sweep_hold(map, worker, &flags);
		if (again == CHM_GONE)
			return again;
		/* As many drops as in one part of a retired table. */
		more &= !map->p->drop;
		chm_unlock_turn(map, worker, flags);
		if (!more)
			break;
		cond_resched();
	}
	chm_tell(map);
	return again;
}

/* A map that is empty and calm owns no table. */
static enum chm_turn chm_turn_empty(struct chm *map, bool worker)
{
	enum chm_turn again = CHM_DONE;
	unsigned long flags;
	struct chm_table *t;

	if (!chm_lock_turn(map, worker, &flags))
		return CHM_GONE;
	t = chm_table(map);
	if (t && !map->entries && !map->reserved && !map->p->min_entries &&
	    !chm_nr_dead(t) && map->phase == CHM_IDLE) {
		/* Nobody calls when the claim has ended. */
		if (map->claims)
			again = CHM_LATER;
		else
			chm_give_back(map);
	}
	chm_unlock_turn(map, worker, flags);
	return again;
}

/* Drop, free, copy, merge, sweep and tidy: of each a bounded amount. */
static enum chm_turn chm_take_turn(struct chm *map, bool worker)
{
	static enum chm_turn (* const parts[])(struct chm *map, bool worker) = {
		chm_turn_copy, chm_turn_merge, chm_turn_retired, chm_turn_sweep,
		chm_turn_empty, chm_turn_memory, chm_turn_tell_hash,
	};
	enum chm_turn most = CHM_DONE;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(parts) && most != CHM_GONE; i++)
		most = max(most, parts[i](map, worker));
	return most;
}

/* --- CHM_SYNC --- */

static bool chm_try_busy(struct chm *map)
{
	unsigned long flags;
	bool ours;

	chm_lock(map, flags);
	ours = !map->busy;
	map->busy = true;
	chm_unlock(map, flags);
	return ours;
}

static void chm_end_busy(struct chm *map)
{
	unsigned long flags;

	chm_lock(map, flags);
	map->busy = false;
	chm_unlock(map, flags);
	chm_tell(map);
}

#ifdef CONFIG_DEBUG_LOCK_ALLOC
#define chm_note_busy(map)	lock_map_acquire(&(map)->busy_map)
#define chm_note_idle(map)	lock_map_release(&(map)->busy_map)
#else
#define chm_note_busy(map)	((void)(map))
#define chm_note_idle(map)	((void)(map))
#endif

/* The writers of a CHM_SYNC map come one after the other. */
static void chm_enter(struct chm *map)
{
	if (likely(map->p->reclaim != CHM_SYNC))
		return;
	chm_note_busy(map);
	wait_var_event(map, chm_try_busy(map));
}

/*
 * What the worker would do about a migration that is over, and about DEAD slots: for
 * the writer that holds a CHM_SYNC map.
 */
static void chm_turns_of_writer(struct chm *map)
{
	while (chm_turn_merge(map, false) == CHM_SOON ||
	       chm_turn_retired(map, false) == CHM_SOON ||
	       chm_turn_sweep(map, false) == CHM_SOON)
		cond_resched();
}

/* The end of a growth: wait for readers, free the old table, let others write. */
static void chm_leave(struct chm *map)
{
	if (likely(map->p->reclaim != CHM_SYNC))
		return;
	while (READ_ONCE(map->retired) || READ_ONCE(map->phase) >= CHM_SETTLING) {
		chm_wait_for_readers(map);
		chm_turns_of_writer(map);
	}
	chm_end_busy(map);
	chm_note_idle(map);
}

/* --- The worker --- */

/* Return: whether there is more to do for it, or another, now. */
static bool chm_orphan_turn(void)
{
	struct chm_table *t;
	unsigned long flags;

	spin_lock_irqsave(&chm_worker.lock, flags);
	t = chm_oldest(chm_worker.orphans);
	spin_unlock_irqrestore(&chm_worker.lock, flags);
	if (!t)
		return false;
	/* O7: pairs with the end of the readers' sections. */
	if (!poll_state_synchronize_rcu(t->cookie)) {
		queue_rcu_work(chm_worker.wq, &chm_worker.grace);
		return false;
	}
	/* Before drop() writes to what clone() was made of. */
	chm_check_frozen("that was destroyed", t);
	if (!chm_drop_some(t))
		return true;
	spin_lock_irqsave(&chm_worker.lock, flags);
	chm_remove_oldest(&chm_worker.orphans);
	spin_unlock_irqrestore(&chm_worker.lock, flags);
	chm_table_free(t);
	return true;
}

static struct chm *chm_begin_turn(void)
{
	unsigned long flags;
	struct chm *map;

	spin_lock_irqsave(&chm_worker.lock, flags);
	map = list_first_entry_or_null(&chm_worker.ready, struct chm, work);
	if (map)
		list_del_init(&map->work);
	WRITE_ONCE(chm_worker.map, map);
	chm_worker.kicked = false;
	chm_worker.turns++;
	spin_unlock_irqrestore(&chm_worker.lock, flags);
	return map;
}

static void chm_end_turn(struct chm *map, enum chm_turn again)
{
	unsigned long flags;

	spin_lock_irqsave(&chm_worker.lock, flags);
	if (chm_worker.map != map) {
		again = CHM_GONE;
	} else {
		WRITE_ONCE(chm_worker.map, NULL);
		if (chm_worker.kicked)
			again = CHM_SOON;
		/* Unless it was queued meanwhile. */
		if (!list_empty(&map->work))
			again = CHM_DONE;
		if (again == CHM_SOON)
			list_add_tail(&map->work, &chm_worker.ready);
		else if (again == CHM_LATER && READ_ONCE(map->phase) == CHM_WANTED)
			list_add(&map->work, &chm_worker.waiting);
		else if (again == CHM_LATER)
			list_add_tail(&map->work, &chm_worker.waiting);
		else if (again == CHM_PUT_OFF)
			list_add_tail(&map->work, &chm_worker.resting);
	}
	spin_unlock_irqrestore(&chm_worker.lock, flags);
	wake_up_all(&chm_worker.done);
	/* Not only when all others are done; it does nothing if it is pending. */
	if (again == CHM_LATER)
		queue_rcu_work(chm_worker.wq, &chm_worker.grace);
	else if (again == CHM_PUT_OFF)
		queue_delayed_work(chm_worker.wq, &chm_worker.second, HZ);
}

/* The worker's turn at @map, which another writer may hold if it is CHM_SYNC. */
static enum chm_turn chm_worker_turn(struct chm *map)
{
	enum chm_turn again;
	unsigned long flags;
	bool sync, ours = true;

	if (!chm_lock_turn(map, true, &flags))
		return CHM_GONE;
	sync = map->p->reclaim == CHM_SYNC;
	if (sync) {
		ours = !map->busy;
		map->busy = true;
	}
	chm_unlock_turn(map, true, flags);
	if (!ours)
		return CHM_LATER;
	again = chm_take_turn(map, true);
	if (sync && chm_lock_turn(map, true, &flags)) {
		map->busy = false;
		chm_unlock_turn(map, true, flags);
		chm_tell(map);
	}
	return again;
}

/* Nothing of maps or tables that are gone is touched any more: see chm_barrier(). */
static void chm_end_turns(void)
{
	unsigned long flags;

	spin_lock_irqsave(&chm_worker.lock, flags);
	chm_worker.turns++;
	spin_unlock_irqrestore(&chm_worker.lock, flags);
	wake_up_all(&chm_worker.done);
}

static void chm_work(struct work_struct *work)
{
	bool again;

	WRITE_ONCE(chm_worker.task, current);
	do {
		struct chm *map = chm_begin_turn();

		if (map)
			chm_end_turn(map, chm_worker_turn(map));
		again = chm_orphan_turn() || map;
		chm_end_turns();
		cond_resched();
	} while (again);
	WRITE_ONCE(chm_worker.task, NULL);
}

/* The turn of these maps has come. */
static void chm_go_on(struct list_head *maps)
{
	unsigned long flags;

	spin_lock_irqsave(&chm_worker.lock, flags);
	list_splice_tail_init(maps, &chm_worker.ready);
	spin_unlock_irqrestore(&chm_worker.lock, flags);
	queue_work(chm_worker.wq, &chm_worker.work);
}

static void chm_grace_work(struct work_struct *work)
{
	chm_go_on(&chm_worker.waiting);
}

static void chm_second_work(struct work_struct *work)
{
	chm_go_on(&chm_worker.resting);
}

/* === Update ============================================================== */

/*
 * What a call has to know about its map and its context: warn once, and say which
 * function it was.
 */
#define __chm_check_call(map, sleeps) ({				\
	int __ret = 0;							\
									\
	if (WARN_ONCE(!(map)->p || in_nmi(),				\
		      "chm: %s() of no map, of a destroyed one, or in an NMI\n",\
		      __func__))						\
		__ret = -EINVAL;					\
	else if ((sleeps) &&						\
		 WARN_ONCE(chm_must_not_sleep() &&			\
			   system_state > SYSTEM_BOOTING,		\
			   "chm: %s() might sleep where it must not\n",	\
			   __func__))					\
		__ret = -EDEADLK;					\
	__ret;								\
})

/* For a writer: in CHM_SYNC maps all of them wait for one another. */
#define chm_check_call(map, sleeps)					\
	__chm_check_call(map, (sleeps) || (map)->p->reclaim == CHM_SYNC)

/* The parameters of DEFINE_CHM() are looked at when they are first needed. */
static int chm_check_params(struct chm *map)
{
	int ret;

	lockdep_assert_held(&map->lock);
	if (likely(map->valid))
		return 0;
	if (map->dying)
		return -ESHUTDOWN;
	ret = chm_params_check(map->p);
	map->valid = !ret;
	return ret;
}

static void chm_add_entries(struct chm *map, long n)
{
	/* Pairs with READ_ONCE() in chm_count(), which needs no order. */
	WRITE_ONCE(map->entries, map->entries + n);
}

/*
 * O8: one store, which readers take with one load; release, since the word may
 * be a pointer.  Pairs with __chm_copy_value() and with READ_ONCE() in readers.
 */
#define chm_store_as(type, word, value) do {				\
	type __w;							\
									\
	memcpy(&__w, value, sizeof(__w));				\
	/* O8: see above. */						\
	smp_store_release((type *)(word), __w);				\
} while (0)

static void chm_store_word(void *word, const void *value, u32 size)
{
	switch (size) {
	case 1:
		chm_store_as(u8, word, value);
		break;
	case 2:
		chm_store_as(u16, word, value);
		break;
	case 4:
		chm_store_as(u32, word, value);
		break;
	default:
		chm_store_as(unsigned long, word, value);
	}
}

/*
 * May a new pair lie at @distance?  No, if only DEAD slots or replacements have driven
 * it very far from home, and the writer may wait for a fresh table: each lookup of the
 * key would go all the way.  If the pair lies far without need, mark the table for
 * tidying.
 */
static bool chm_may_stray(struct chm_table *t, u64 hash, u32 distance,
			  struct chm_op *op)
{
	if (likely(distance <= CHM_STRAYED))
		return true;
	op->due = chm_due(t, hash, distance, t->p);
	if (distance > max(chm_reach(t), 2 * op->due)) {
		t->far_gone = true;
		t->look_later = 0;
		op->too_far = !(op->how & CHM_ANYWHERE);
	}
	t->strayed |= distance > max3(CHM_STRAYED, 2 * op->due,
				      2 * t->built_longest);
	return !op->too_far;
}

/* One pair, or one DEAD slot, more: is it time to look for what is due? */
static __always_inline void chm_count_used(struct chm_table *t)
{
	if (t->look_later)
		t->look_later--;
}

/* The write to @t has succeeded; pair at @was, now at @is; NULL: nowhere. */
static __always_inline void chm_note_write(struct chm *map, struct chm_table *t,
					   const struct chm_place *was,
					   const struct chm_place *is)
{
	t->writes++;
	if (unlikely(map->phase == CHM_COPYING)) {
		struct chm_place from, to;

		if (was)
			from = *was;
		if (is)
			to = *is;
		chm_mirror(map, was ? &from : NULL, is ? &to : NULL);
	}
}

static int chm_insert_absent(struct chm *map, struct chm_table *t, u64 hash,
			     const struct chm_place *home, struct chm_op *op)
{
	const struct chm_params *p = map->p;
	struct chm_place at = *home;
	void *slot;

	if (p->max_entries && map->entries >= p->max_entries)
		return -E2BIG;
	if (chm_full(map, t, true))
		return -EAGAIN;
	op->stuck = !chm_find_empty(t, p, &at);
	if (op->stuck || !chm_may_stray(t, hash, at.distance, op))
		return -EAGAIN;
	slot = chm_place_slot(t, &at);
	chm_write_slot(t, slot, op);
	chm_publish_slot(t, hash, 0, &at, p);
	chm_add_entries(map, 1);
	chm_count_used(t);
	chm_note_write(map, t, NULL, &at);
	op->found = slot + t->value_offset;
	if (unlikely(op->due)) {
		chm_defend(map, t, op->due);
		chm_share_more(map, op->due);
	}
	return 1;
}

/* The new pair goes into the chunk of the old one: one store switches. */
static void chm_replace_within(struct chm *map, struct chm_table *t, u64 hash,
			       const struct chm_place *at, struct chm_op *op)
{
	bool taken = op->how & CHM_HAND_OUT;
	struct chm_place to = *at;
	unsigned long ctrl = at->c->ctrl;

	to.slot = chm_first(chm_match_empty(ctrl));
	chm_write_slot(t, chm_place_slot(t, &to), op);
	ctrl = chm_tag_set(ctrl, at->slot, chm_dead_tag(t, taken));
	ctrl = chm_tag_set(ctrl, to.slot, chm_tag(hash));
	/* O1: see chm_set_ctrl(); and readers see exactly one of the two. */
	chm_set_ctrl(t, at->chunk, at->c, ctrl);
	chm_note_dead(map, t, at);
	chm_count_used(t);
	chm_note_write(map, t, at, &to);
}

/*
 * The new pair goes further along the path, never back: a reader on its way
 * would miss both.  It takes over the old pair's bits in the overflow filters
 * from home to @at and sets its own from there.
 */
static int chm_replace_beyond(struct chm *map, struct chm_table *t, u64 hash,
			      const struct chm_place *at, struct chm_op *op)
{
	struct chm_place to = *at;

	op->stuck = !chm_find_empty_beyond(t, map->p, &to);
	if (op->stuck || !chm_may_stray(t, hash, to.distance, op))
		return -EAGAIN;
	chm_write_slot(t, chm_place_slot(t, &to), op);
	chm_publish_slot(t, hash, at->distance, &to, map->p);
	/*
	 * O3: the new pair is visible before the old one dies.  Pairs with
	 * chm_probe().  O4: in between readers see both.  Pairs with
	 * chm_look_back() and chm_home_unchanged().
	 */
	chm_kill_slot(t, at, op->how & CHM_HAND_OUT);
	chm_note_dead(map, t, at);
	chm_count_used(t);
	chm_note_write(map, t, at, &to);
	return 0;
}

static __always_inline void chm_copy_present(const struct chm_table *t,
					     const void *pair, struct chm_op *op);

/* A CHM_WORD value, in place; the old one may go to where the new one is. */
static void chm_replace_word(struct chm *map, struct chm_table *t,
			     const struct chm_place *at, struct chm_op *op)
{
	void *pair = chm_place_slot(t, at);
	unsigned long word = 0;

	memcpy(&word, op->value, map->p->value_size);
	chm_copy_present(t, pair, op);
	chm_store_word(pair + t->value_offset, &word, map->p->value_size);
	t->writes++;
	if (unlikely(map->phase == CHM_COPYING))
		chm_mirror_value(map, at);
}

/* --- Exchanging cells --- */

/*
 * chm_sum_word() reads the cell and the snapshot between two looks at @seq: those
 * of before the exchange, or those of after it.
 */
static unsigned long chm_exchange_begin(struct chm_snapshot *s)
{
	unsigned long flags;

	/* Readers wait for the end.  On PREEMPT_RT the lock leaves interrupts on. */
	local_irq_save(flags);
	WRITE_ONCE(s->seq, s->seq + 1);
	/* O10: pairs with smp_rmb() in chm_still_unmerged(). */
	smp_wmb();
	return flags;
}

static void chm_exchange_end(struct chm_snapshot *s, unsigned long flags)
{
	/* O10: release.  Pairs with chm_read_seq(). */
	smp_store_release(&s->seq, s->seq + 1);
	local_irq_restore(flags);
}

/*
 * Exchange word @nr of the snapshot, which is not merged: the updates that the old
 * cell got so far are overwritten, those to come are not.
 */
static void chm_exchange_unmerged(struct chm_snapshot *s, unsigned long nr,
				  atomic_long_t *now, const atomic_long_t *old,
				  unsigned long *copied, long word)
{
	unsigned long flags = chm_exchange_begin(s);

	WRITE_ONCE(*copied, atomic_long_read(old));
	atomic_long_xchg(now, word);
	chm_exchange_end(s, flags);
}

/*
 * Exchange a CHM_CELL value in place.  Not by stores: an atomic operation may
 * consist of a load and a store under a lock that only others like it take.
 */
static int chm_replace_cell(struct chm *map, struct chm_table *t,
			    const struct chm_place *at, const void *value)
{
	const void *key = chm_place_slot(t, at);
	atomic_long_t *cell = chm_place_slot(t, at) + t->value_offset;
	u32 words = t->p->value_size / sizeof(long);
	struct chm_snapshot *s = chm_pending(t);
	const atomic_long_t *old = NULL;
	unsigned long first = 0;
	u32 i;

	if (t->p->merge)
		return -EOPNOTSUPP;
	if (s)
		old = chm_old_cell(s, t, key, cell);
	if (old)
		first = chm_slot_number(s->from, old) * words;
	for (i = 0; i < words; i++) {
		long word;

		memcpy(&word, value + i * sizeof(word), sizeof(word));
		if (old && s->merged <= 2 * (first + i))
			chm_exchange_unmerged(s, first + i, &cell[i], &old[i],
					      chm_noted(s, t->p, first / words) +
					      i * sizeof(word), word);
		else
			atomic_long_xchg(&cell[i], word);
	}
	t->writes++;
	if (unlikely(map->phase == CHM_COPYING))
		chm_mirror_value(map, at);
	return 0;
}

/* --- Storing --- */

/* What is wanted of the pair that is, or was, present. */
static __always_inline void chm_copy_present(const struct chm_table *t,
					     const void *pair, struct chm_op *op)
{
	if (likely(!(op->how & CHM_DETAILS)))
		return;
	if (op->old_value)
		__chm_copy_value(t, op->old_value, pair + t->value_offset, t->p);
	if (op->old_key)
		memcpy(op->old_key, pair, t->p->key_size);
}

/* The present value: is it the one that is expected? */
static __always_inline int chm_look_at_present(const struct chm_table *t,
					       const void *pair,
					       const struct chm_op *op)
{
	const struct chm_params *p = t->p;
	const void *value = pair + t->value_offset;

	if (likely(!(op->how & CHM_DETAILS)))
		return 0;
	if (p->class == CHM_CELL && (op->expected || op->how & CHM_HAND_OUT))
		return -EOPNOTSUPP;
	if (op->expected && memcmp(value, op->expected, p->value_size))
		return -ESTALE;
	return 0;
}

static int chm_store_present(struct chm *map, struct chm_table *t, u64 hash,
			     const struct chm_place *at, struct chm_op *op)
{
	void *pair = chm_place_slot(t, at);
	int ret;

	op->found = pair + t->value_offset;
	if (!(op->how & (CHM_UPDATE | CHM_FETCH)))
		return -EEXIST;
	ret = chm_look_at_present(t, pair, op);
	/* Before there is anything to copy out. */
	if (!ret && op->how & CHM_UPDATE && map->p->class != CHM_WORD &&
	    map->p->class != CHM_CELL && chm_full(map, t, false))
		return -EAGAIN;
	if (!ret && op->how & CHM_FETCH)
		chm_copy_present(t, pair, op);
	if (ret || op->how & CHM_FETCH)
		return ret;
	if (map->p->class == CHM_CELL)
		return chm_replace_cell(map, t, at, op->value);
	if (map->p->class == CHM_WORD) {
		chm_replace_word(map, t, at, op);
		return 0;
	}
	if (chm_match_empty(at->c->ctrl))
		chm_replace_within(map, t, hash, at, op);
	else
		ret = chm_replace_beyond(map, t, hash, at, op);
	/* The old pair is where it was. */
	if (!ret)
		chm_copy_present(t, pair, op);
	return ret;
}

/* Return: 1 inserted, 0 present, or replaced; -EAGAIN: there is no room. */
static int chm_try_store(struct chm *map, struct chm_op *op)
{
	struct chm_place home, at;
	struct chm_table *t;
	u64 hash;
	int ret;

	op->due = 0;
	op->too_far = false;
	op->stuck = false;
	ret = chm_check_params(map);
	if (!ret && !op->value && map->p->value_size && !(op->how & CHM_ZEROES))
		ret = -EINVAL;
	if (ret)
		return ret;
	chm_share(map);
	/*
	 * O13: the lock orders this after the drop() of what was in EMPTY slots.  Pairs
	 * with chm_sweep_hold().
	 */
	t = chm_table(map);
	if (!t)
		return op->how & CHM_CREATE ? -EAGAIN : -ENOENT;
	op->id = t->id;
	chm_poll(map, t);
	hash = __chm_hash(t, op->key, map->p);
	chm_home_place(t, hash, map->p, &home);
	/* One insertion in ten goes on to the next chunk: have it come along. */
	prefetch((void *)home.c + t->stride);
	at = home;
	if (chm_find_from(t, op->key, hash, map->p, &at))
		return chm_store_present(map, t, hash, &at, op);
	if (!(op->how & CHM_CREATE))
		return -ENOENT;
	return chm_insert_absent(map, t, hash, &home, op);
}

/*
 * Is a table with a fresh seed due?  Not if it is to be @now and the active table
 * can't be retired yet.
 */
static bool chm_reseed_due(struct chm *map, struct chm_plan *plan, bool now)
{
	const struct chm_table *t;
	unsigned long flags;
	bool due;

	chm_lock(map, flags);
	t = chm_table(map);
	due = map->seeding && map->phase <= CHM_WANTED && t &&
	      !(map->seed_failed && chm_failed_now(map));
	if (due) {
		*plan = chm_plan_for(t, chm_chunks_same(map, t));
		due = !now || chm_may_retire(map, t, chm_table_bytes(map->p,
								     plan->chunks));
	}
	chm_unlock(map, flags);
	return due;
}

/* An earlier table still waits for its readers: so does this writer, for a moment. */
static void chm_await_budget(struct chm *map)
{
	struct chm_plan plan;

	if (map->p->reclaim == CHM_SYNC || !chm_reseed_due(map, &plan, false))
		return;
	wait_var_event_timeout(map,
			       chm_reseed_due(map, &plan, true) ||
			       !chm_reseed_due(map, &plan, false),
			       HZ / 10 + 1);
}

/* No fresh seed can come before the migration that is under way is over. */
static bool chm_flooded_midway(struct chm *map, u32 due)
{
	unsigned long flags;
	bool flooded;

	chm_lock(map, flags);
	flooded = map->phase == CHM_COPYING &&
		  due > chm_probe_limit(map, chm_table(map));
	chm_unlock(map, flags);
	return flooded;
}

/*
 * A fresh seed is due, and the caller may block: it does not wait for the worker, since
 * each pair that comes meanwhile makes long paths longer.  Without memory it does, and
 * does not ask again for each pair.
 */
static noinline void chm_reseed_now(struct chm *map, u32 due, gfp_t gfp)
{
	unsigned long flags;
	struct chm_plan plan;

	if (chm_flooded_midway(map, due))
		chm_drive(map, U32_MAX, true);
	chm_await_budget(map);
	if (!chm_reseed_due(map, &plan, true))
		return;
	if (!chm_build_and_begin(map, &plan, false, chm_optional(gfp))) {
		chm_drive(map, U32_MAX, true);
		return;
	}
	chm_lock(map, flags);
	map->seed_failed = true;
	map->failed_at = chm_now();
	chm_unlock(map, flags);
}

/* After a write: is the new pair so far from home that a fresh seed may be due? */
static void chm_see_to_far(struct chm *map, const struct chm_op *op, gfp_t gfp)
{
	if (unlikely(op->due) && gfpflags_allow_blocking(gfp) && !chm_in_worker())
		chm_reseed_now(map, op->due, gfp);
}

static int chm_store(struct chm *map, struct chm_op *op, gfp_t gfp)
{
	int ret;

	chm_enter(map);
	do {
		struct chm_plan plan;
		unsigned long flags;

		chm_lock(map, flags);
		ret = chm_try_store(map, op);
		plan = chm_trigger(map, true);
		chm_unlock(map, flags);
		if (unlikely(plan.chunks))
			chm_begin_small(map, plan, gfp);
		if (likely(ret != -EAGAIN))
			break;
		ret = chm_make_room(map, op, gfp);
	} while (!ret);
	chm_see_to_far(map, op, gfp);
	chm_leave(map);
	return ret;
}

int chm_insert(struct chm *map, const void *key, const void *value, gfp_t gfp)
{
	struct chm_op op __uninitialized;
	int ret;

	chm_op_init(&op, key, value, CHM_CREATE);
	ret = chm_check_call(map, gfpflags_allow_blocking(gfp)) ?:
	      chm_store(map, &op, gfp);
	return ret > 0 ? 0 : ret;
}
EXPORT_SYMBOL_GPL(chm_insert);

int chm_get_or_insert(struct chm *map, const void *key, void *value, gfp_t gfp)
{
	struct chm_op op __uninitialized;

	chm_op_init(&op, key, value, CHM_CREATE | CHM_FETCH);
	chm_op_details(&op, NULL, NULL, value);
	return chm_check_call(map, gfpflags_allow_blocking(gfp)) ?:
	       chm_store(map, &op, gfp);
}
EXPORT_SYMBOL_GPL(chm_get_or_insert);

const void *chm_lookup_or_insert(struct chm *map, const void *key,
				 const void *value, gfp_t gfp)
{
	struct chm_op op __uninitialized;
	int ret;

	RCU_LOCKDEP_WARN(!rcu_read_lock_any_held(),
			 "chm: a value is looked up outside of an RCU reader");
	/* Not every kernel can tell that it is inside of one. */
	if (WARN_ONCE(gfpflags_allow_blocking(gfp),
		      "chm: %s() might sleep where it must not\n", __func__))
		return ERR_PTR(-EDEADLK);
	chm_op_init(&op, key, value, CHM_CREATE);
	ret = chm_check_call(map, false) ?: chm_store(map, &op, gfp);
	return ret > 0 || ret == -EEXIST ? op.found : ERR_PTR(ret);
}
EXPORT_SYMBOL_GPL(chm_lookup_or_insert);

int chm_replace(struct chm *map, const void *key, const void *value, gfp_t gfp)
{
	struct chm_op op __uninitialized;

	chm_op_init(&op, key, value, CHM_UPDATE);
	return chm_check_call(map, gfpflags_allow_blocking(gfp)) ?:
	       chm_store(map, &op, gfp);
}
EXPORT_SYMBOL_GPL(chm_replace);

/* None would mean any, in struct chm_op. */
static int chm_check_expected(const struct chm *map, const void *expected)
{
	return expected || !map->p->value_size ? 0 : -EINVAL;
}

int chm_replace_if(struct chm *map, const void *key, const void *expected,
		   const void *value, gfp_t gfp)
{
	struct chm_op op __uninitialized;

	chm_op_init(&op, key, value, CHM_UPDATE);
	chm_op_details(&op, expected, NULL, NULL);
	return chm_check_call(map, gfpflags_allow_blocking(gfp)) ?:
	       chm_check_expected(map, expected) ?: chm_store(map, &op, gfp);
}
EXPORT_SYMBOL_GPL(chm_replace_if);

int chm_upsert(struct chm *map, const void *key, const void *value, gfp_t gfp)
{
	struct chm_op op __uninitialized;

	chm_op_init(&op, key, value, CHM_CREATE | CHM_UPDATE);
	return chm_check_call(map, gfpflags_allow_blocking(gfp)) ?:
	       chm_store(map, &op, gfp);
}
EXPORT_SYMBOL_GPL(chm_upsert);

int chm_swap(struct chm *map, const void *key, const void *value,
	     void *old_key, void *old_value, gfp_t gfp)
{
	int ret = chm_check_call(map, gfpflags_allow_blocking(gfp));
	struct chm_op op __uninitialized;

	chm_op_init(&op, key, value, CHM_CREATE | CHM_UPDATE | CHM_HAND_OUT);
	chm_op_details(&op, NULL, old_key, old_value);
	/* Also if the key is absent: the caller is to learn it from its first call. */
	if (!ret && map->p->class == CHM_CELL)
		ret = -EOPNOTSUPP;
	return ret ?: chm_store(map, &op, gfp);
}
EXPORT_SYMBOL_GPL(chm_swap);

/* Pairs that chm_insert_many() and chm_remove_many() write in one hold of the lock. */
#define CHM_BULK	16UL

/* So many keys are about to be written to in this hold: have their home chunks come. */
static void chm_fetch_bulk(const struct chm *map, const void *keys, unsigned long n)
{
	const struct chm_params *p = map->p;
	const struct chm_table *t = chm_table(map);
	unsigned long i;

	for (i = 0; t && i < n; i++)
		prefetchw(__chm_home_chunk(t, __chm_hash(t, keys + i * p->key_size, p),
					   p));
}

/*
 * How many of the pairs that are left are written in one hold.  During a migration it
 * is one, since each write also copies its share.  Where paths are long, it is a few.
 */
static unsigned long chm_bulk(const struct chm *map, unsigned long left)
{
	const struct chm_table *t = chm_table(map);

	if (map->phase == CHM_COPYING)
		return 1;
	if (!t)
		return min(left, CHM_BULK);
	return min3(left, CHM_BULK, 1 + CHM_STEP_WALK / (1UL + t->longest));
}

/* As many of @n pairs as there is room for.  Return: as chm_try_store(). */
static int chm_try_bulk(struct chm *map, struct chm_op *op, unsigned long n,
			unsigned long *inserted)
{
	const struct chm_params *p = map->p;
	unsigned long i;
	u32 due = 0;
	int ret = 0;

	chm_fetch_bulk(map, op->key, n);
	for (i = 0; i < n && ret >= 0; i++) {
		ret = chm_try_store(map, op);
		due = max(due, op->due);
		if (ret < 0)
			break;
		op->key += p->key_size;
		if (op->value)
			op->value += p->value_size;
	}
	*inserted += i;
	op->due = due;
	return ret;
}

static int chm_insert_bulk(struct chm *map, struct chm_op *op, unsigned long n,
			   unsigned long *inserted, gfp_t gfp)
{
	int ret = 0;

	while (ret >= 0 && *inserted < n) {
		unsigned long before = *inserted;
		struct chm_plan plan;
		unsigned long flags;

		chm_lock(map, flags);
		ret = chm_try_bulk(map, op, chm_bulk(map, n - *inserted), inserted);
		plan = chm_trigger(map, true);
		chm_unlock(map, flags);
		if (unlikely(plan.chunks))
			chm_begin_small(map, plan, gfp);
		chm_see_to_far(map, op, gfp);
		/* For each pair anew. */
		if (*inserted != before) {
			op->attempts = 0;
			op->tries = 0;
			op->how &= ~CHM_ANYWHERE;
		}
		if (ret == -EAGAIN)
			ret = chm_make_room(map, op, gfp);
		if (gfpflags_allow_blocking(gfp))
			cond_resched();
	}
	return min(ret, 0);
}

unsigned long chm_insert_many(struct chm *map, const void *keys,
			      const void *values, unsigned long n, gfp_t gfp,
			      int *err)
{
	unsigned long inserted = 0;
	struct chm_op op __uninitialized;

	chm_op_init(&op, keys, values, CHM_CREATE);
	*err = chm_check_call(map, gfpflags_allow_blocking(gfp));
	if (*err || !n)
		return 0;
	chm_enter(map);
	*err = chm_insert_bulk(map, &op, n, &inserted, gfp);
	chm_leave(map);
	return inserted;
}
EXPORT_SYMBOL_GPL(chm_insert_many);

/* May a zeroed value be inserted and its word @i be added to? */
static int chm_check_add(struct chm *map, unsigned int i)
{
	unsigned long flags;
	int ret;

	chm_lock(map, flags);
	ret = chm_check_params(map);
	chm_unlock(map, flags);
	if (!ret && !__chm_cell_has(map->p, i))
		ret = -EINVAL;
	return ret;
}

int chm_cell_upsert_add(struct chm *map, const void *key, unsigned int i,
			long n, gfp_t gfp)
{
	int ret = chm_check_call(map, gfpflags_allow_blocking(gfp));

	if (ret)
		return ret;
	/* Again if somebody inserts and removes the key in between. */
	while ((ret = chm_cell_add(map, key, i, n)) == -ENOENT) {
		struct chm_op op __uninitialized;

		chm_op_init(&op, key, NULL, CHM_CREATE | CHM_ZEROES);
		op.word = i;
		op.amount = n;
		ret = chm_check_add(map, i) ?: chm_store(map, &op, gfp);
		if (ret != -EEXIST)
			return ret;
	}
	return ret;
}
EXPORT_SYMBOL_GPL(chm_cell_upsert_add);

/* --- Removing --- */

/* Remove op->key. */
static int chm_try_erase(struct chm *map, struct chm_op *op)
{
	const struct chm_params *p = map->p;
	struct chm_table *t;
	struct chm_place at;
	void *pair;
	u64 hash;
	int ret;

	chm_share(map);
	t = chm_table(map);
	if (!t)
		return -ENOENT;
	chm_poll(map, t);
	hash = __chm_hash(t, op->key, p);
	if (!chm_find(t, op->key, hash, p, &at))
		return -ENOENT;
	pair = chm_place_slot(t, &at);
	ret = chm_look_at_present(t, pair, op);
	if (ret)
		return ret;
	chm_copy_present(t, pair, op);
	chm_kill_slot(t, &at, op->how & CHM_HAND_OUT);
	chm_lower(t, hash, at.distance);
	chm_add_entries(map, -1);
	chm_note_dead(map, t, &at);
	chm_note_write(map, t, &at, NULL);
	if (unlikely(op->how & CHM_DETAILS)) {
		op->at = at;
		op->from = t;
	}
	return 0;
}

static int chm_erase(struct chm *map, struct chm_op *op)
{
	unsigned long flags;
	int ret;

	chm_enter(map);
	chm_lock(map, flags);
	ret = chm_try_erase(map, op);
	chm_trigger(map, false);
	chm_unlock(map, flags);
	chm_leave(map);
	return ret;
}

int chm_remove(struct chm *map, const void *key)
{
	struct chm_op op __uninitialized;

	chm_op_init(&op, key, NULL, 0);
	return chm_check_call(map, false) ?: chm_erase(map, &op);
}
EXPORT_SYMBOL_GPL(chm_remove);

/* One hold of the lock.  Return: how many of the @n keys were there. */
static unsigned long chm_erase_bulk(struct chm *map, struct chm_op *op,
				    unsigned long n)
{
	unsigned long removed = 0, i;

	chm_fetch_bulk(map, op->key, n);
	for (i = 0; i < n; i++) {
		removed += !chm_try_erase(map, op);
		op->key += map->p->key_size;
	}
	return removed;
}

unsigned long chm_remove_many(struct chm *map, const void *keys, unsigned long n)
{
	unsigned long removed = 0;
	struct chm_op op __uninitialized;

	chm_op_init(&op, keys, NULL, 0);
	if (chm_check_call(map, false))
		return 0;
	chm_enter(map);
	while (n) {
		unsigned long flags, some;

		chm_lock(map, flags);
		some = chm_bulk(map, n);
		removed += chm_erase_bulk(map, &op, some);
		chm_trigger(map, false);
		chm_unlock(map, flags);
		n -= some;
		if (map->p->reclaim == CHM_SYNC)
			cond_resched();
	}
	chm_leave(map);
	return removed;
}
EXPORT_SYMBOL_GPL(chm_remove_many);

int chm_remove_if(struct chm *map, const void *key, const void *expected)
{
	struct chm_op op __uninitialized;

	chm_op_init(&op, key, NULL, 0);
	chm_op_details(&op, expected, NULL, NULL);
	return chm_check_call(map, false) ?: chm_check_expected(map, expected) ?:
	       chm_erase(map, &op);
}
EXPORT_SYMBOL_GPL(chm_remove_if);

/* Is nothing to be added to the cells of @t, which is pinned, any more? */
static bool chm_cells_final(struct chm *map, const struct chm_table *t)
{
	const struct chm_snapshot *s;
	unsigned long flags;
	bool final;

	chm_lock(map, flags);
	s = chm_pending(t);
	/* Also if @t is the one that is being migrated from, or retired. */
	final = !s || !s->from || s->cursor == s->from->nr_chunks;
	chm_unlock(map, flags);
	return final;
}

/*
 * Does the caller, instead of the worker, merge the cells of @map?  Only one of the two
 * may touch retired tables, because part of that work is done without the lock.
 */
static bool chm_caller_merges(const struct chm *map)
{
	return map->p->reclaim == CHM_SYNC || chm_in_worker();
}

/*
 * As the worker does it, which waits for this caller, or has to see to other maps.
 * Return: false if there is nothing more to merge before readers have ended.
 */
static bool chm_merge_by_caller(struct chm *map)
{
	bool more = chm_turn_merge(map, false) == CHM_SOON;
	unsigned long flags;

	/* Not chm_turn_retired(): this may be the drop() of one of them. */
	chm_lock(map, flags);
	if (map->retired)
		more |= !chm_merge_retired(map);
	chm_unlock(map, flags);
	/* Others may wait for these cells, and this caller for them: chm_pins_left(). */
	chm_tell(map);
	cond_resched();
	return more;
}

/* Wait until readers and the migration are done with the cells of @t. */
static void chm_await_cells(struct chm *map, const struct chm_table *t)
{
	chm_wait_for_readers(map);
	if (!chm_caller_merges(map)) {
		chm_have_worker_look(map);
		wait_var_event(map, chm_cells_final(map, t));
	}
	while (!chm_cells_final(map, t)) {
		/* @t may have been replaced meanwhile. */
		if (!chm_merge_by_caller(map) && !chm_cells_final(map, t))
			chm_wait_for_readers(map);
	}
}

/* The counters of takers are small.  One too many waits until others are through. */
static bool chm_pins_left(struct chm *map)
{
	struct chm_table *t = chm_table(map);

	return !t || max(t->pins_0, t->pins_1) < U16_MAX;
}

/*
 * The cell at @at, DEAD, will be handed out.  Its generation is not swept, nor the table
 * freed, meanwhile.  Return: what to decrement afterwards.
 */
static u16 *chm_pin(struct chm_table *t, const struct chm_place *at)
{
	u16 *pins = chm_pins(t, !!(chm_tag_at(at->c->ctrl, at->slot) & CHM_TAG_DEAD_GEN));

	++*pins;
	chm_set_ctrl(t, at->chunk, at->c, at->c->ctrl |
		     chm_tag_set(0, at->slot, CHM_TAG_DEAD_TAKEN));
	return pins;
}

/*
 * O9: readers that found the cell may still update it, and a migration may be under
 * way.  Pairs with __chm_cell_add_to().  The slot stays as it is while it is pinned.
 */
static int chm_take_cell(struct chm *map, const void *key, void *old_key, void *value)
{
	struct chm_op op __uninitialized;
	unsigned long flags;
	int ret;

	chm_op_init(&op, key, NULL, 0);
	chm_op_details(&op, NULL, old_key, NULL);
	chm_enter(map);
	chm_lock(map, flags);
	while (!chm_pins_left(map)) {
		chm_unlock(map, flags);
		chm_wait_for_readers(map);
		if (chm_caller_merges(map))
			chm_merge_by_caller(map);
		chm_lock(map, flags);
	}
	ret = chm_try_erase(map, &op);
	if (ret) {
		chm_unlock(map, flags);
	} else {
		u16 *pins = chm_pin(op.from, &op.at);

		chm_unlock(map, flags);
		chm_await_cells(map, op.from);
		if (value)
			memcpy(value, chm_place_slot(op.from, &op.at) +
				      op.from->value_offset, map->p->value_size);
		chm_lock(map, flags);
		--*pins;
		chm_call_worker(map);
		chm_unlock(map, flags);
	}
	chm_leave(map);
	return ret;
}

int chm_take(struct chm *map, const void *key, void *old_key, void *value)
{
	int ret = chm_check_call(map, map->p && map->p->class == CHM_CELL);
	struct chm_op op __uninitialized;

	if (ret)
		return ret;
	if (map->p->class == CHM_CELL)
		return chm_take_cell(map, key, old_key, value);
	chm_op_init(&op, key, NULL, CHM_HAND_OUT);
	chm_op_details(&op, NULL, old_key, value);
	return chm_erase(map, &op);
}
EXPORT_SYMBOL_GPL(chm_take);

/*
 * Every FULL slot of chunk @chunk becomes DEAD; @wrapped: only those of pairs that came
 * here past the end of the table.  Return: how many.
 */
static u32 chm_clear_chunk(struct chm_table *t, u32 chunk, bool wrapped)
{
	struct chm_chunk *c = __chm_chunk(t, chunk, t->p);
	unsigned long full = chm_match_full(c->ctrl);
	unsigned long ctrl = c->ctrl;
	u32 slot, n = 0;

	chm_for_each_match(slot, full) {
		u64 hash = __chm_hash(t, __chm_slot(t, c, slot, t->p), t->p);
		u32 home = chm_home(hash, t->nr_chunks);

		if (wrapped && home <= chunk)
			continue;
		ctrl = chm_tag_set(ctrl, slot, chm_dead_tag(t, false));
		t->displaced -= home != chunk;
		chm_count_unlowered(t, chm_distance(home, chunk, t->nr_chunks));
		n++;
	}
	if (!n)
		return 0;
	chm_count_dead(t, n);
	__set_bit(chunk, chm_dead_chunks(t));
	chm_set_ctrl(t, chunk, c, ctrl);
	return n;
}

/*
 * There is no memory for another table of the size that was promised, or too many wait
 * for their readers.  A pair that is replaced meanwhile moves on along its path: to
 * chunks that are still to come, or past the end to the first ones, which are looked at
 * once more.
 */
static void chm_clear_slowly(struct chm *map)
{
	u64 i = 0, n = 0;
	u32 id = 0;

	do {
		unsigned long flags;
		struct chm_table *t;
		u64 end;

		chm_lock(map, flags);
		t = chm_table(map);
		chm_abort(map);
		n = t ? (u64)t->nr_chunks + min(t->longest, t->nr_chunks) : 0;
		/* Pairs have moved. */
		if (t && t->id != id) {
			id = t->id;
			i = 0;
		}
		for (end = min(n, i + CHM_WORKER_STEP); i < end; i++) {
			bool again = i >= t->nr_chunks;
			u32 chunk = again ? i - t->nr_chunks : i;

			chm_add_entries(map, -(long)chm_clear_chunk(t, chunk, again));
		}
		if (t)
			chm_seal(t);
		chm_call_worker(map);
		chm_unlock(map, flags);
	} while (i < n);
}

/*
 * Empty the map: publish @fresh, which has the room that was promised, or no table if
 * no room was promised.  Return: false if @fresh is missing or too small.
 */
static bool chm_try_clear(struct chm *map, struct chm_table *fresh)
{
	bool promised = map->reserved || map->p->min_entries;
	struct chm_table *t = chm_table(map);

	if (!t || (promised && !fresh) ||
	    (fresh && fresh->max_entries < map->reserved))
		return !t;
	chm_abort(map);
	chm_add_entries(map, -map->entries);
	if (fresh)
		chm_seed_table(map, fresh);
	t->owns_full = true;
	chm_publish(map, fresh);
	chm_set_phase(map, CHM_IDLE);
	chm_retire(map, t);
	return true;
}

/*
 * The gfp that tries hardest, of those that the caller's context is known to allow.  A
 * caller that must not sleep may hold a lock of the scheduler: do not wake up kswapd.
 */
static gfp_t chm_clear_gfp(void)
{
	if (!IS_ENABLED(CONFIG_PREEMPT_COUNT) || chm_must_not_sleep())
		return GFP_NOWAIT & ~__GFP_KSWAPD_RECLAIM;
	return GFP_NOIO | __GFP_NORETRY;
}

/* Leave the table behind, unless too many wait for their readers.  Return: done? */
static bool chm_clear_at_once(struct chm *map)
{
	struct chm_table *fresh = NULL;
	unsigned long flags;
	struct chm_plan plan;
	bool done, crowd;

	chm_lock(map, flags);
	plan = chm_plan_for(NULL, chm_chunks_needed(map, 0));
	done = !map->entries;
	crowd = chm_table(map) && chm_retired_by_far(map, chm_table(map));
	chm_unlock(map, flags);
	if (done || crowd)
		return done;
	if ((READ_ONCE(map->reserved) || map->p->min_entries) &&
	    chm_can_afford(map->p, &plan, false))
		fresh = chm_table_build(map->p, map->ctx, plan.chunks, 0,
					chm_clear_gfp());
	if (IS_ERR(fresh))
		fresh = NULL;
	chm_lock(map, flags);
	done = chm_try_clear(map, fresh);
	if (done && chm_table(map) == fresh)
		fresh = NULL;
	chm_unlock(map, flags);
	if (fresh)
		chm_table_free(fresh);
	return done;
}

void chm_clear(struct chm *map)
{
	if (chm_check_call(map, false))
		return;
	chm_enter(map);
	if (!chm_clear_at_once(map))
		chm_clear_slowly(map);
	chm_leave(map);
}
EXPORT_SYMBOL_GPL(chm_clear);

/* --- Room --- */

/*
 * Promise room for @n pairs if the active table has it.  @less: receives whether more
 * was promised before.  Return: if the table is too small, the plan for one that will
 * do.
 */
static struct chm_plan chm_try_reserve(struct chm *map, unsigned long n, bool *less)
{
	struct chm_table *t = chm_table(map);

	if (!n || (t && n <= t->max_entries)) {
		/* Not into a table that is too small. */
		if (map->phase == CHM_COPYING && n > map->next->max_entries)
			chm_abort(map);
		*less = n < map->reserved;
		map->reserved = n;
		chm_look_now(map);
		return (struct chm_plan) { };
	}
	/* What is under way goes on: there may be no memory for more. */
	return chm_plan_for(t, chm_chunks_needed(map, max(n, map->entries)));
}

/*
 * The caller waits for a table of its own size.  Until it has it, nobody begins a
 * migration that can wait: where writers never pause, one always is due.
 * Return: for chm_end_claim().
 */
static bool chm_claim(struct chm *map)
{
	unsigned long flags;
	bool claimed;

	chm_lock(map, flags);
	claimed = map->claims < U8_MAX;
	map->claims += claimed;
	chm_unlock(map, flags);
	return claimed;
}

/*
 * @due: the table may need tidying.  The worker is called only now, since it does not
 * tidy a table while there are claims.
 */
static void chm_end_claim(struct chm *map, bool claimed, bool due)
{
	unsigned long flags;

	chm_lock(map, flags);
	map->claims -= claimed;
	if (due || map->phase == CHM_WANTED)
		chm_call_worker(map);
	chm_unlock(map, flags);
}

static int chm_reserve_room(struct chm *map, unsigned long n, gfp_t gfp, bool *less)
{
	int ret;

	do {
		struct chm_plan plan = { };
		unsigned long flags;

		chm_lock(map, flags);
		ret = chm_check_params(map);
		if (!ret && map->p->max_entries && n > map->p->max_entries)
			ret = -E2BIG;
		if (!ret)
			plan = chm_try_reserve(map, n, less);
		chm_unlock(map, flags);
		if (!plan.chunks)
			return ret;
		ret = chm_move(map, &plan, gfp);
	} while (ret >= 0 || chm_move_again(ret));
	return ret;
}

int chm_reserve(struct chm *map, unsigned long n, gfp_t gfp)
{
	int ret = chm_check_call(map, true);
	bool claimed, less = false;

	if (ret)
		return ret;
	chm_enter(map);
	claimed = chm_claim(map);
	ret = chm_reserve_room(map, n, gfp, &less);
	chm_end_claim(map, claimed, ret || less);
	chm_leave(map);
	return ret;
}
EXPORT_SYMBOL_GPL(chm_reserve);

/*
 * @again: more pairs came than an earlier table was for; some more will come while the
 * next one is filled.  Return: chunks of a smaller table; 0: there is nothing to do any
 * more.
 */
static u64 chm_try_shrink(struct chm *map, bool again)
{
	struct chm_table *t = chm_table(map);
	unsigned long kept = max(map->entries, map->reserved);
	u64 fit;

	if (!t)
		return 0;
	if (again)
		kept += kept / 8;
	fit = chm_chunks_for(map->p, max(kept, map->p->min_entries));
	if (kept) {
		/* The table is too large; or too small, and a growth by more is due. */
		if (fit < t->nr_chunks || map->entries > t->max_entries)
			return fit;
		/* It fits: nobody asks for more before it is full. */
		if (t->ask_entries < map->entries)
			t->ask_entries = t->max_entries;
		return 0;
	}
	/* Too many tables wait for their readers: so does chm_move(). */
	if (!chm_may_retire(map, t, 0))
		return fit;
	chm_give_back(map);
	return 0;
}

static int chm_shrink_table(struct chm *map, gfp_t gfp)
{
	int ret = 0;

	do {
		struct chm_plan plan;
		unsigned long flags;
		bool busy;

		/* It may lead to a table that fits. */
		chm_drive(map, U32_MAX, true);
		chm_lock(map, flags);
		plan = chm_plan_for(chm_table(map),
				    chm_try_shrink(map, ret == -EAGAIN));
		/* It fits, but another one may take its place. */
		busy = map->phase == CHM_COPYING;
		chm_unlock(map, flags);
		if (plan.chunks)
			ret = chm_move(map, &plan, chm_optional(gfp));
		else
			ret = busy ? -ERESTART : 0;
	} while (ret > 0 || chm_move_again(ret));
	return ret;
}

int chm_shrink(struct chm *map, gfp_t gfp)
{
	int ret = chm_check_call(map, true);
	unsigned long flags;
	bool claimed;

	if (ret)
		return ret;
	chm_enter(map);
	claimed = chm_claim(map);
	chm_lock(map, flags);
	map->reserved = 0;
	chm_look_now(map);
	chm_unlock(map, flags);
	ret = chm_shrink_table(map, gfp);
	chm_end_claim(map, claimed, ret);
	chm_leave(map);
	return ret;
}
EXPORT_SYMBOL_GPL(chm_shrink);

/* --- Strings as keys --- */

u64 chm_hash_string(const void *key, u64 seed)
{
	const siphash_key_t k = { .key = { seed, ~seed } };
	const char *s = *(const char * const *)key;

	return siphash(s, strlen(s), &k);
}
EXPORT_SYMBOL_GPL(chm_hash_string);

bool chm_equal_string(const void *a, const void *b)
{
	return !strcmp(*(const char * const *)a, *(const char * const *)b);
}
EXPORT_SYMBOL_GPL(chm_equal_string);

/* === Iterate ============================================================= */

/*
 * A walk visits home chunks in order, and the pairs of one home in the order of
 * (hash, fingerprint).  That order depends only on the keys and the seed.  So the
 * cursor is good in any table and after any sleep.  A pair that is visible twice, while
 * it is being replaced, has one place in the order.
 *
 * The pairs of a home are searched for once.  The slots of the first ones are noted in
 * order, and returned one by one as long as they have not changed.  If one has changed,
 * the walk searches again for what is behind the cursor.
 *
 * Fingerprints are only computed for keys that are seen to have the same hash.  If only
 * one key has a hash, the cursor moves behind all possible keys with that hash: any
 * other one is inserted later, and need not be seen.
 *
 * With another seed the order is another one.  Then the walk begins at the front of
 * it, and passes over the pairs that are in the prefix of an earlier order: it keeps
 * the seed and the end of each.
 */

/*
 * Tells keys with equal hashes apart.  It is SipHash with another key than in
 * chm_siphash(), so in practice no two keys agree in both.  In maps with equal() and
 * hash() it is hash() with another seed.  Then it stays the same if a key is replaced
 * by an equal one.  This is not so if hash() ignores its seed.
 */
static u64 chm_fingerprint(const struct chm_table *t, const void *key,
			   const struct chm_params *p)
{
	const siphash_key_t k = { .key = { t->seed[1], ~t->seed[0] } };

	if (p->equal && p->hash) {
		u64 second = p->hash(key, ~t->seed[0]);

		if (second != p->hash(key, t->seed[0]))
			return second;
	}
	return siphash(key, p->key_size, &k);
}

/* Compare (@hash, fingerprint of @key) with @than, as memcmp() does. */
static int chm_compare(const struct chm_table *t, const struct chm_params *p,
		       u64 hash, const void *key, const struct chm_prefix *than)
{
	u64 fingerprint;

	if (hash != than->hash)
		return hash < than->hash ? -1 : 1;
	if (than->fingerprint == U64_MAX)
		return -1;
	fingerprint = chm_fingerprint(t, key, p);
	if (fingerprint != than->fingerprint)
		return fingerprint < than->fingerprint ? -1 : 1;
	return 0;
}

/* Is @key in a prefix of an earlier order? */
static noinline bool chm_visited(const struct chm_cursor *cursor,
				 const struct chm_params *p, const void *key)
{
	u32 i;

	for (i = 1; i < cursor->orders; i++) {
		const struct chm_prefix *at = &cursor->at[i];
		/* For the hash functions: they want nothing else of a table. */
		const struct chm_table order = {
			.seed = { at->seed[0], at->seed[1] },
			.use_siphash = at->use_siphash,
		};

		if (chm_compare(&order, p, __chm_hash(&order, key, p), key,
				at) <= 0)
			return true;
	}
	return false;
}

/* Have the cursor follow the order of @t.  Return: false if it has seen too many. */
static bool chm_cursor_follow(struct chm_cursor *cursor,
			      const struct chm_table *t)
{
	struct chm_prefix *at = cursor->at;

	if (cursor->orders && at->seed[0] == t->seed[0] &&
	    at->seed[1] == t->seed[1] && at->use_siphash == t->use_siphash)
		return true;
	/* A prefix with nothing in it need not be kept. */
	if (cursor->orders && at->started) {
		if (cursor->orders == CHM_ORDERS)
			return false;
		memmove(at + 1, at, cursor->orders * sizeof(*at));
		cursor->orders++;
	}
	cursor->orders = max_t(u8, cursor->orders, 1);
	*at = (struct chm_prefix) {
		.seed = { t->seed[0], t->seed[1] },
		.use_siphash = t->use_siphash,
	};
	return true;
}

/* Where the search for the pairs of one home stands. */
struct chm_scan {
	u32		table;		/* which one */
	bool		started;
	bool		any_order;	/* within one section, behind the last home */
	bool		adjacent;	/* no chunk was passed over before this home */
	u32		distance;	/* chunks behind the home seen so far */
	u32		section;	/* chunks to be seen in one section */
	unsigned long	common;		/* overflow bits that all of them have */
};

/* The first bit from @bit on that is set, or @bits; readers have no lock. */
static u32 chm_next_bit(const unsigned long *bitmap, u32 bits, u32 bit)
{
	u32 i = bit / BITS_PER_LONG;
	unsigned long word;

	if (bit >= bits)
		return bits;
	word = READ_ONCE(bitmap[i]) & BITMAP_FIRST_WORD_MASK(bit);
	while (!word) {
		if (++i == BITS_TO_LONGS(bits))
			return bits;
		word = READ_ONCE(bitmap[i]);
	}
	return i * BITS_PER_LONG + __ffs(word);
}

/*
 * The first chunk from @chunk on that a pair may be in, or have passed.
 * O11: a pair that is there is marked.  Pairs with chm_set_ctrl().
 */
static u32 chm_next_occupied(const struct chm_table *t, u32 chunk)
{
	const unsigned long *occupied = chm_occupied(t);
	u32 longs = BITS_TO_LONGS(t->nr_chunks);
	u32 i = chunk / BITS_PER_LONG;
	unsigned long word = 0;

	if (chunk < t->nr_chunks)
		word = READ_ONCE(occupied[i]) & BITMAP_FIRST_WORD_MASK(chunk);
	while (!word) {
		i = chm_next_bit(chm_occupied_words(t), longs, i + 1);
		if (i >= longs)
			return t->nr_chunks;
		word = READ_ONCE(occupied[i]);
	}
	return i * BITS_PER_LONG + __ffs(word);
}

/* Go on with the pairs of the first home from @home on that may have some. */
static void chm_scan_from(struct chm_scan *s, struct chm_ahead *a,
			  const struct chm_table *t, u32 home)
{
	s->table = t->id;
	s->started = true;
	s->distance = 0;
	s->common = CHM_OVERFLOW;
	/*
	 * O14: acquire: first the number of seals, then what is in the slots.  Pairs
	 * with chm_seal(); see chm_ahead_good().
	 */
	a->seals = smp_load_acquire(&t->seals);
	a->table = t->id;
	a->home = chm_next_occupied(t, home);
	s->adjacent = a->home == home;
	a->n = 0;
	a->next = 0;
	a->sorted = false;
	a->more = false;
	prefetch(__chm_chunk(t, a->home + CHM_WALK_PREFETCH, t->p));
	prefetch((void *)__chm_chunk(t, a->home + CHM_WALK_PREFETCH, t->p) +
		 L1_CACHE_BYTES);
}

/* The pairs in @c with these overflow bits: their tags tell. */
static unsigned long chm_match_overflow(unsigned long mask, unsigned long ctrl,
					unsigned long bits)
{
	unsigned long found = 0;
	u32 slot;

	chm_for_each_match(slot, mask) {
		if (bits & chm_overflow_bit(chm_tag_at(ctrl, slot)))
			found |= mask & -mask;
	}
	return found;
}

static void *chm_noted_pair(const struct chm_table *t, const struct chm_noted *at)
{
	return __chm_slot(t, __chm_chunk(t, at->chunk, t->p), at->slot, t->p);
}

/* Compare two pairs, as memcmp() does, and note if they tie. */
static int chm_order(const struct chm_table *t, struct chm_noted *a,
		     struct chm_noted *b)
{
	u64 of_a, of_b;

	if (likely(a->hash != b->hash))
		return a->hash < b->hash ? -1 : 1;
	a->tied = true;
	b->tied = true;
	of_a = chm_fingerprint(t, chm_noted_pair(t, a), t->p);
	of_b = chm_fingerprint(t, chm_noted_pair(t, b), t->p);
	if (of_a != of_b)
		return of_a < of_b ? -1 : 1;
	return 0;
}

/*
 * Is the key of @noted there already?  It is if the pair was replaced meanwhile by one
 * further on.  One chunk never shows a key twice, since its word was loaded once: see
 * chm_replace_within().
 */
static bool chm_ahead_has(struct chm_ahead *a, const struct chm_table *t,
			  struct chm_noted *noted)
{
	u32 i;

	for (i = 0; i < a->n && a->pairs[i].chunk != noted->chunk; i++) {
		if (!chm_order(t, noted, &a->pairs[i]))
			return true;
	}
	return false;
}

/* Put them in order. */
static void chm_ahead_sort(struct chm_ahead *a, const struct chm_table *t)
{
	u32 i, k;

	for (i = 1; i < a->n; i++) {
		struct chm_noted moved = a->pairs[i];

		for (k = i; k && chm_order(t, &moved, &a->pairs[k - 1]) < 0; k--)
			a->pairs[k] = a->pairs[k - 1];
		a->pairs[k] = moved;
	}
	a->sorted = true;
}

/* There are more than CHM_AHEAD: only the first ones stay. */
static noinline void chm_ahead_insert(struct chm_ahead *a, const struct chm_table *t,
				      struct chm_noted *noted)
{
	u32 i = a->n, k;
	int order = 1;

	if (!a->sorted)
		chm_ahead_sort(a, t);
	while (i && (order = chm_order(t, noted, &a->pairs[i - 1])) < 0)
		i--;
	/* The first is as a lookup has it. */
	if (!order)
		return;
	a->more |= a->n == CHM_AHEAD;
	if (i == CHM_AHEAD)
		return;
	a->n = min(a->n + 1U, CHM_AHEAD);
	for (k = a->n - 1; k > i; k--)
		a->pairs[k] = a->pairs[k - 1];
	a->pairs[i] = *noted;
}

/* Note a pair that is behind the cursor, if it is one of the first. */
static void chm_ahead_add(struct chm_ahead *a, const struct chm_table *t,
			  struct chm_noted *noted)
{
	if (unlikely(a->sorted || a->n == CHM_AHEAD))
		chm_ahead_insert(a, t, noted);
	else if (noted->chunk == a->home || !chm_ahead_has(a, t, noted))
		a->pairs[a->n++] = *noted;
}

/* Is the pair, of hash @hash, one of this home that the walk has not visited? */
static bool chm_is_ahead(const struct chm_ahead *a, const struct chm_table *t, u64 hash,
			 const void *pair, const struct chm_cursor *cursor)
{
	const struct chm_prefix *after = &cursor->at[0];

	if (chm_home(hash, t->nr_chunks) != a->home)
		return false;
	if (after->started && chm_compare(t, t->p, hash, pair, after) <= 0)
		return false;
	return likely(cursor->orders <= 1) || !chm_visited(cursor, t->p, pair);
}

/*
 * Most homes are plain: no pair had to leave the chunk, and none came to it from another
 * home.  Two control words tell that without a hash.  Note the pairs of such a home.
 * Return: false if the home is not plain, or if a writer has just changed it.
 */
static bool chm_scan_plain(struct chm_ahead *a, const struct chm_table *t,
			   const struct chm_chunk *c, unsigned long ctrl)
{
	u32 before = chm_previous_chunk(a->home, t->nr_chunks);
	unsigned long mask = chm_match_full(ctrl), passed;
	u32 slot;

	if (ctrl & CHM_OVERFLOW)
		return false;
	/*
	 * O2: acquire, between two loads of @c's word: as long as a pair that came here
	 * is FULL, its bit is set in the chunk before.  Pairs with chm_publish_slot()
	 * and chm_lower_overflow().  Without it the walk could take such a pair, which
	 * it has shown at its own home, for one of this home.
	 */
	passed = smp_load_acquire(&__chm_chunk(t, before, t->p)->ctrl) & CHM_OVERFLOW;
	if (READ_ONCE(c->ctrl) != ctrl ||
	    (passed && chm_match_overflow(mask, ctrl, passed)))
		return false;
	chm_for_each_match(slot, mask)
		a->pairs[a->n++] = (struct chm_noted) {
			.chunk = a->home, .slot = slot,
		};
	return true;
}

/*
 * Look at one more chunk for pairs of @a->home.  They are found as a lookup finds
 * them, so that none is missed which is present meanwhile (G2).  Return: whether
 * there may be more further on.
 */
static bool chm_scan_chunk(struct chm_scan *s, struct chm_ahead *a,
			   const struct chm_table *t, const struct chm_cursor *cursor)
{
	u32 chunk = chm_nth_chunk(a->home, s->distance, t->nr_chunks);
	const struct chm_chunk *c = __chm_chunk(t, chunk, t->p);
	/* O1, O2, O3: pairs with chm_set_ctrl(), as in chm_probe(). */
	unsigned long ctrl = smp_load_acquire(&c->ctrl);
	unsigned long mask = chm_match_full(ctrl);
	u32 slot;

	/* The chunk before is at hand then. */
	if (s->any_order && s->adjacent && !s->distance &&
	    chm_scan_plain(a, t, c, ctrl))
		return false;
	/* A pair of this home has its overflow bit set in all chunks before. */
	if (s->distance)
		mask = chm_match_overflow(mask, ctrl, s->common);
	chm_for_each_match(slot, mask) {
		const void *pair = __chm_slot(t, c, slot, t->p);
		struct chm_noted noted = {
			.hash = __chm_hash(t, pair, t->p),
			.chunk = chunk,
			.slot = slot,
		};

		if (chm_is_ahead(a, t, noted.hash, pair, cursor))
			chm_ahead_add(a, t, &noted);
	}
	s->common &= ctrl;
	return ++s->distance < t->nr_chunks && s->common;
}

/*
 * The home where a walk goes on.  If the cursor has the last fingerprint, all of its
 * hash is done: go on with the next hash, which may belong to the next home.
 */
static u32 chm_cursor_home(const struct chm_table *t,
			   const struct chm_prefix *at)
{
	u64 hash = at->hash;

	if (!at->started)
		return 0;
	if (at->fingerprint == U64_MAX && hash != U64_MAX)
		hash++;
	return chm_home(hash, t->nr_chunks);
}

/* Have @at stand behind everything before @home, if it does not yet. */
static void chm_cursor_skip(const struct chm_table *t, struct chm_prefix *at,
			    u32 home)
{
	if (home <= chm_cursor_home(t, at))
		return;
	at->hash = chm_home_begin(home, t->nr_chunks) - 1;
	at->fingerprint = U64_MAX;
	at->started = true;
}

/* Is the slot in place @i, noted in an earlier section, as it was? */
static bool chm_ahead_good(const struct chm_ahead *a, const struct chm_table *t, u32 i)
{
	const struct chm_chunk *c = __chm_chunk(t, a->pairs[i].chunk, t->p);
	/*
	 * O14: acquire: first the tag, then the number of seals.  Pairs with chm_seal():
	 * a reused slot is FULL after its generation was sealed.  Without it the walk
	 * could give the pair of another home, and pass over its own.
	 */
	unsigned long ctrl = smp_load_acquire(&c->ctrl);

	return (chm_tag_at(ctrl, a->pairs[i].slot) & CHM_TAG_FULL) &&
	       READ_ONCE(t->seals) == a->seals;
}

/* Does a scan go on where the last section has ended? */
static bool chm_scan_resumes(struct chm_scan *s, const struct chm_ahead *a,
			     const struct chm_table *t)
{
	u32 i;

	if (!s->started || s->table != t->id)
		return false;
	for (i = 0; i < a->n; i++) {
		if (chm_ahead_good(a, t, i))
			continue;
		/* Again, with fewer interruptions. */
		s->section = min(s->section, U32_MAX / 2) * 2;
		return false;
	}
	return true;
}

/* Where to look for what is behind @cursor: all of its home may have been given. */
static u32 chm_next_home(const struct chm_ahead *a, const struct chm_table *t,
			 const struct chm_cursor *cursor)
{
	if (a->table == t->id && a->n && a->next == a->n && !a->more)
		return a->home + 1;
	return chm_cursor_home(t, &cursor->at[0]);
}

/*
 * Look for the pairs of the next home that has some behind @cursor, in one section.
 * Return: whether they are all noted, or as many as there is room for; if not, it takes
 * more chunks, or the walk has ended.
 */
static bool chm_scan(struct chm_scan *s, struct chm_ahead *a,
		     const struct chm_table *t, struct chm_cursor *cursor)
{
	u32 chunks;

	if (!chm_scan_resumes(s, a, t))
		chm_scan_from(s, a, t, chm_next_home(a, t, cursor));
	for (chunks = s->section; chunks; chunks--) {
		if (a->home == t->nr_chunks) {
			cursor->ended = true;
			return false;
		}
		if (chm_scan_chunk(s, a, t, cursor))
			continue;
		if (a->n) {
			s->started = false;
			return true;
		}
		chm_scan_from(s, a, t, a->home + 1);
	}
	/* What was seen need not be seen again in another table. */
	chm_cursor_skip(t, &cursor->at[0], a->home);
	return false;
}

/* Have the cursor stand behind the pair that is ahead. */
static void chm_cursor_pass(struct chm_cursor *cursor, struct chm_ahead *a,
			    const struct chm_table *t, const void *pair)
{
	struct chm_prefix *at = &cursor->at[0];
	u32 i = a->next++;

	at->hash = a->pairs[i].hash;
	at->fingerprint = a->pairs[i].tied ? chm_fingerprint(t, pair, t->p) : U64_MAX;
	at->started = true;
}

/* One read-side section of a walk.  Return: whether there was a pair. */
static bool chm_walk_section(const struct chm_table *t, struct chm_cursor *cursor,
			     struct chm_ahead *a, struct chm_scan *s,
			     void *key, void *value)
{
	const struct chm_params *p = t->p;
	const void *pair;

	if (s->started || a->next == a->n || a->table != t->id ||
	    !chm_ahead_good(a, t, a->next)) {
		if (!chm_scan(s, a, t, cursor))
			return false;
		if (!a->sorted)
			chm_ahead_sort(a, t);
	}
	pair = chm_noted_pair(t, &a->pairs[a->next]);
	if (key)
		chm_copy_bytes(key, pair, p->key_size);
	if (value)
		__chm_copy_value(t, value, pair + t->value_offset, p);
	chm_cursor_pass(cursor, a, t, pair);
	return true;
}

void chm_iter_init(struct chm_iter *it, struct chm *map)
{
	*it = (struct chm_iter) { .map = map };
}
EXPORT_SYMBOL_GPL(chm_iter_init);

/* As chm_walk_section(), in the table that the map has now. */
static bool chm_walk(struct chm_iter *it, struct chm_scan *s, void *key, void *value)
{
	struct chm_cursor *cursor = &it->cursor;
	const struct chm_table *t;
	bool found = false;

	rcu_read_lock();
	t = __chm_table_rcu(it->map);
	if (!t) {
		cursor->ended = true;
	} else if (!chm_cursor_follow(cursor, t)) {
		cursor->ended = true;
		cursor->stale = true;
	} else {
		found = chm_walk_section(t, cursor, &it->ahead, s, key, value);
	}
	rcu_read_unlock();
	return found;
}

bool chm_iter_next(struct chm_iter *it, void *key, void *value)
{
	struct chm_scan s = { .section = CHM_SECTION };
	bool found = false;

	while (!found && !it->cursor.ended)
		found = chm_walk(it, &s, key, value);
	return found;
}
EXPORT_SYMBOL_GPL(chm_iter_next);

/* The pair that is next, if it is still there: where it is by now. */
static const void *chm_pos_pair(const struct chm_ahead *a, const struct chm_table *t)
{
	const void *pair = chm_noted_pair(t, &a->pairs[a->next]), *value;
	const struct chm_chunk *c = __chm_chunk(t, a->pairs[a->next].chunk, t->p);
	/* O1, O2, O3: pairs with chm_set_ctrl(), as in chm_probe(). */
	unsigned long ctrl = smp_load_acquire(&c->ctrl);

	if (likely(chm_tag_at(ctrl, a->pairs[a->next].slot) & CHM_TAG_FULL))
		return pair;
	value = __chm_lookup_hashed(t, pair, __chm_hash(t, pair, t->p), t->p);
	return value ? value - t->value_offset : NULL;
}

static bool chm_pos_scan(struct chm_pos *pos)
{
	struct chm_scan s = {
		.section = U32_MAX,
		/* Else it looks for what is left of this home. */
		.any_order = !pos->ahead.more,
	};

	while (pos->tbl && !pos->cursor.ended) {
		if (chm_scan(&s, &pos->ahead, pos->tbl, &pos->cursor))
			return true;
	}
	return false;
}

/*
 * The reader keeps all slots from being reused, so that those of a home may come in any
 * order, unless there are more.
 */
bool chm_pos_next(struct chm_pos *pos)
{
	const struct chm_table *t = pos->tbl;
	struct chm_ahead *a = &pos->ahead;

	do {
		const void *pair;

		if (a->next == a->n && !chm_pos_scan(pos))
			return false;
		pair = chm_noted_pair(t, &a->pairs[a->next]);
		pos->key = chm_pos_pair(a, t);
		if (a->more)
			chm_cursor_pass(&pos->cursor, a, t, pair);
		else
			a->next++;
	} while (!pos->key);
	pos->value = pos->key + t->value_offset;
	return true;
}
EXPORT_SYMBOL_GPL(chm_pos_next);

bool chm_pos_first(struct chm_pos *pos, const struct chm *map)
{
	*pos = (struct chm_pos) { .tbl = __chm_table_rcu(map) };
	if (pos->tbl)
		chm_cursor_follow(&pos->cursor, pos->tbl);
	return chm_pos_next(pos);
}
EXPORT_SYMBOL_GPL(chm_pos_first);

/* What the lock protects does not change because somebody looks at it. */
static struct chm *chm_lockable(const struct chm *map)
{
	return (struct chm *)map;
}

static void chm_stats_of_table(struct chm_stats *s, const struct chm_table *t)
{
	s->chunks = t->nr_chunks;
	s->slots = chm_nr_slots(t);
	s->bytes = chm_table_bytes(t->p, t->nr_chunks);
	s->displaced = t->displaced;
	s->longest_probe = t->longest;
	s->dead = chm_nr_dead(t);
	s->migrated = t->migrated;
	s->migrated_ns = t->migrated_ns;
}

static size_t chm_bytes_of_snapshots(const struct chm *map)
{
	const struct chm_table *t = chm_table(map);
	const struct chm_snapshot *s = NULL;

	if (map->next)
		s = chm_pending(map->next);
	else if (t)
		s = chm_pending(t);
	if (!s && map->retired)
		s = chm_spent(map->retired);
	return s ? s->bytes : 0;
}

void chm_stats(const struct chm *map, struct chm_stats *s)
{
	unsigned long flags;

	*s = (struct chm_stats) { };
	/* Without a map there are no figures, and no lock to take. */
	if (!map->p)
		return;
	chm_lock(chm_lockable(map), flags);
	s->entries = map->entries;
	s->grows = map->grows;
	s->shrinks = map->shrinks;
	s->rehashes = map->rehashes;
	s->gp_waits = map->gp_waits;
	s->reseeds = map->reseeds;
	s->failed_allocs = map->failed_allocs;
	s->aborts = map->aborts;
	s->changed = map->changed;
	s->retired_bytes = map->retired_bytes;
	s->snapshot_bytes = chm_bytes_of_snapshots(map);
	if (chm_table(map))
		chm_stats_of_table(s, chm_table(map));
	if (map->next) {
		s->migrating = map->next->nr_chunks;
		s->copied = map->cursor;
	}
	chm_unlock(chm_lockable(map), flags);
}
EXPORT_SYMBOL_GPL(chm_stats);

/* === Verify ============================================================== */

struct chm_check {
	const struct chm	*map;
	const struct chm_table	*t;
	u32			id;		/* of @t */
	u32			version;	/* when it was looked at first */
	u32			next_id;	/* of map->next; 0: none */
	u32			cursor;
	u32			chunk;		/* looked at so far */
	u32			filter;		/* filters compared so far */
	u32			counted;	/* chunks of map->next so far */
	bool			torn;		/* the map changes all the time */
	u32			overflows;	/* room for so many */
	unsigned long		*overflow;	/* what each chunk's should be */
	unsigned long		full;
	unsigned long		dead[2];
	unsigned long		displaced;
	u64			spread;
	unsigned long		copied;		/* pairs below the cursor */
	unsigned long		next_full;	/* in map->next */
	unsigned long		next_dead;
	u32			copied_below;	/* @cursor; 0: nothing is filled */
	unsigned long		errors;
};

#define chm_complain(check, fmt, ...) do {				\
	(check)->errors++;						\
	pr_err_ratelimited("verify %p: " fmt "\n", (check)->map,	\
			   ##__VA_ARGS__);				\
} while (0)

static bool chm_tag_valid(unsigned long tag)
{
	return (tag & CHM_TAG_FULL) || tag == CHM_TAG_EMPTY ||
	       (tag & ~(CHM_TAG_DEAD_GEN | CHM_TAG_DEAD_TAKEN)) == CHM_TAG_DEAD;
}

static bool chm_bit_set(const unsigned long *bitmap, u32 bit)
{
	return bitmap[bit / BITS_PER_LONG] & BIT_MASK(bit);
}

/* Is chunk @chunk marked as occupied if and only if it is? */
static void chm_check_occupied(struct chm_check *check, u32 chunk)
{
	const struct chm_table *t = check->t;
	const struct chm_chunk *c = __chm_chunk(t, chunk, check->map->p);
	u32 i = chunk / BITS_PER_LONG;

	if (chm_bit_set(chm_occupied(t), chunk) != chm_occupies(c->ctrl) ||
	    chm_bit_set(chm_occupied_words(t), i) != !!chm_occupied(t)[i])
		chm_complain(check, "chunk %u: ctrl %#lx, occupied %#lx",
			     chunk, c->ctrl, chm_occupied(t)[i]);
}

/* Tags, the DEAD slots and the bitmaps of one chunk. */
static void chm_check_chunk(struct chm_check *check, u32 chunk)
{
	const struct chm_chunk *c = __chm_chunk(check->t, chunk, check->map->p);
	bool marked = test_bit(chunk, chm_dead_chunks(check->t));
	unsigned int gen;
	u32 i;

	for (i = 0; i < CHM_SLOTS; i++) {
		if (!chm_tag_valid(chm_tag_at(c->ctrl, i)))
			chm_complain(check, "chunk %u slot %u: tag %#lx",
				     chunk, i, chm_tag_at(c->ctrl, i));
	}
	for (gen = 0; gen < 2; gen++)
		check->dead[gen] +=
			hweight_long(chm_match_dead_gen(c->ctrl, gen));
	if (marked != !!chm_match_dead(c->ctrl))
		chm_complain(check, "chunk %u: ctrl %#lx, marked %d",
			     chunk, c->ctrl, marked);
	chm_check_occupied(check, chunk);
	check->full += hweight_long(chm_match_full(c->ctrl));
}

/* Walk the whole probe path: the key is in @slot and nowhere else. */
static void chm_check_unique(struct chm_check *check, u32 home, u64 hash,
			     const void *pair)
{
	const struct chm_params *p = check->map->p;
	u32 n = check->t->nr_chunks;
	u32 chunk = home;
	bool seen = false;
	u32 i;

	for (i = 0; i < n; i++, chunk = chm_next_chunk(chunk, n)) {
		const struct chm_chunk *c = __chm_chunk(check->t, chunk, p);
		unsigned long mask = chm_match(c->ctrl, chm_tag(hash));
		u32 slot;

		chm_for_each_match(slot, mask) {
			const void *other = __chm_slot(check->t, c, slot, p);

			if (other == pair)
				seen = true;
			else if (__chm_equal(other, pair, p))
				chm_complain(check, "chunk %u slot %u: key twice",
					     chunk, slot);
		}
		if (!chm_overflows(c->ctrl, hash))
			break;
	}
	if (!seen)
		chm_complain(check, "key with home %u can't be reached", home);
}

/* A pair is in the table that is being filled if its chunk was copied. */
static void chm_check_copy(struct chm_check *check, u32 chunk, u32 slot,
			   const void *pair)
{
	const struct chm_table *to = check->map->next;
	const struct chm_params *p = check->map->p;
	struct chm_place at;
	bool found, below = chunk < check->map->cursor;

	if (!to)
		return;
	found = chm_find(to, pair, __chm_hash(to, pair, p), p, &at);
	if (found != below)
		chm_complain(check, "chunk %u slot %u: copied %d, cursor %u",
			     chunk, slot, found, check->map->cursor);
	if (found && (p->class == CHM_FROZEN || p->class == CHM_WORD) &&
	    chm_changed(to, chm_place_slot(to, &at), pair))
		chm_complain(check, "chunk %u slot %u: differs from its copy",
			     chunk, slot);
}

static void chm_count_next(struct chm_check *check, u32 chunk)
{
	const struct chm_table *to = check->map->next;
	unsigned long ctrl = __chm_chunk(to, chunk, to->p)->ctrl;

	check->next_full += hweight_long(chm_match_full(ctrl));
	check->next_dead += hweight_long(chm_match_dead(ctrl));
}

/* Only CHM_CLONE has something to drop in it. */
static void chm_check_next(struct chm_check *check)
{
	const struct chm_table *to = check->map->next;

	if (!to)
		return;
	if (check->next_full != check->copied)
		chm_complain(check, "%lu pairs below the cursor, %lu copied",
			     check->copied, check->next_full);
	if (check->next_dead != chm_nr_dead(to) ||
	    (check->next_dead && check->map->p->class != CHM_CLONE))
		chm_complain(check, "%lu dead slots in the next table",
			     check->next_dead);
}

/* The tag of a pair, where it lies, and which chunks it passed on its way. */
static void chm_check_pair(struct chm_check *check, u32 chunk, u32 slot)
{
	const struct chm_params *p = check->map->p;
	const struct chm_chunk *c = __chm_chunk(check->t, chunk, p);
	const void *pair = __chm_slot(check->t, c, slot, p);
	u64 hash = __chm_hash(check->t, pair, p);
	u32 n = check->t->nr_chunks;
	u32 home = chm_home(hash, n);
	u32 i;

	if (chm_tag_at(c->ctrl, slot) != chm_tag(hash))
		chm_complain(check, "chunk %u slot %u: tag %#lx, hash %#llx",
			     chunk, slot, chm_tag_at(c->ctrl, slot), hash);
	check->displaced += chunk != home;
	check->copied += chunk < check->copied_below;
	check->spread += chm_square(chm_distance(home, chunk, n));
	for (i = home; i != chunk; i = chm_next_chunk(i, n))
		check->overflow[i] |= chm_overflow_bit(hash);
	chm_check_unique(check, home, hash, pair);
	chm_check_copy(check, chunk, slot, pair);
}

/* No bit too few, and none too many unless chm_lower_overflow() gave up. */
static void chm_check_overflow(struct chm_check *check, u32 chunk)
{
	const struct chm_chunk *c = __chm_chunk(check->t, chunk, check->map->p);
	unsigned long overflow = c->ctrl & CHM_OVERFLOW;

	if (check->t->unlowered)
		overflow &= check->overflow[chunk];
	if (overflow != check->overflow[chunk])
		chm_complain(check, "chunk %u: overflow %#lx instead of %#lx",
			     chunk, overflow, check->overflow[chunk]);
}

static void chm_check_totals(struct chm_check *check)
{
	const struct chm_table *t = check->t;

	if (check->full != check->map->entries || check->full > t->hard_entries)
		chm_complain(check, "%lu pairs, counted %lu, at most %lu",
			     check->full, check->map->entries, t->hard_entries);
	if (check->map->reserved > t->max_entries)
		chm_complain(check, "room for %lu pairs, %lu reserved",
			     t->max_entries, check->map->reserved);
	if (check->displaced != t->displaced)
		chm_complain(check, "%lu displaced pairs, counted %lu",
			     check->displaced, t->displaced);
	if (t->unlowered ? check->spread > t->spread : check->spread != t->spread)
		chm_complain(check, "spread %llu, counted %llu", check->spread,
			     t->spread);
	if (check->dead[0] != t->dead[0] || check->dead[1] != t->dead[1])
		chm_complain(check, "%lu + %lu dead slots, counted %lu + %lu",
			     check->dead[0], check->dead[1],
			     t->dead[0], t->dead[1]);
}

/* Cells are unmerged only while they settle, or are being merged. */
static void chm_check_cells(struct chm_check *check)
{
	bool pending = chm_pending(check->t);
	bool settling = check->map->phase >= CHM_SETTLING;

	if (pending != settling)
		chm_complain(check, "phase %u, cells %smerged",
			     check->map->phase, pending ? "un" : "");
}

static void chm_check_retired(struct chm_check *check)
{
	const struct chm *map = check->map;
	const struct chm_table *t = map->retired;
	size_t bytes = 0;

	while (t) {
		bytes += t->bytes;
		t = t->link == map->retired ? NULL : t->link;
	}
	if (bytes != map->retired_bytes)
		chm_complain(check, "%zu bytes retired, counted %lu",
			     bytes, map->retired_bytes);
}

static void chm_check_pairs(struct chm_check *check, u32 chunk)
{
	const struct chm_chunk *c = __chm_chunk(check->t, chunk, check->map->p);
	unsigned long mask = chm_match_full(c->ctrl);
	u32 slot;

	chm_check_chunk(check, chunk);
	chm_for_each_match(slot, mask)
		chm_check_pair(check, chunk, slot);
}

/* Do @look at @n more chunks of @nr, of which @at is the next.  Return: is that all? */
static bool chm_check_some(struct chm_check *check, u32 *at, u32 nr, u32 n,
			   void (*look)(struct chm_check *check, u32 chunk))
{
	u32 end = min(nr - *at, n) + *at;

	for (; *at < end; ++*at)
		look(check, *at);
	return *at == nr;
}

/* What takes all chunks as they are at one moment.  Return: is that all? */
static bool chm_check_sums(struct chm_check *check, u32 n)
{
	const struct chm_table *next = check->map->next;

	return chm_check_some(check, &check->filter, check->t->nr_chunks, n,
			      chm_check_overflow) &&
	       (!next || chm_check_some(check, &check->counted, next->nr_chunks,
					n, chm_count_next));
}

static void chm_check_whole(struct chm_check *check)
{
	if (check->torn)
		return;
	if (check->t) {
		chm_check_totals(check);
		chm_check_cells(check);
		chm_check_next(check);
	} else if (check->map->entries) {
		chm_complain(check, "%lu pairs without a table",
			     check->map->entries);
	}
	chm_check_retired(check);
}

/* Begin with the table that is there. */
static void chm_check_begin(struct chm_check *check)
{
	const struct chm *map = check->map;
	const struct chm_table *t = chm_table(map);
	unsigned long *overflow = check->overflow;
	u32 overflows = check->overflows;

	if (t && t->nr_chunks <= overflows)
		memset(overflow, 0, array_size(t->nr_chunks, sizeof(*overflow)));
	*check = (struct chm_check) {
		.map = map, .t = t, .overflow = overflow,
		.overflows = overflows, .errors = check->errors,
		.id = chm_table_id(t), .version = t ? t->version : 0,
		.next_id = chm_table_id(map->next),
		.cursor = map->cursor,
		.copied_below = map->next ? map->cursor : 0,
	};
}

/* Has the map changed since? */
static bool chm_check_outdated(const struct chm_check *check)
{
	const struct chm *map = check->map;
	const struct chm_table *t = chm_table(map);

	if (!t || !check->id)
		return t || check->id;
	if (map->next && map->cursor != check->cursor)
		return true;
	return t->id != check->id || t->version != check->version ||
	       chm_table_id(map->next) != check->next_id;
}

/* Chunks in one hold; in a hold for the whole of a small table that is never calm. */
#define CHM_CHECK_CHUNKS	64U
#define CHM_CHECK_SMALL		1024U

/* Attempts to see a whole table unchanged; attempts in all, until -EBUSY. */
#define CHM_CHECK_ATTEMPTS	8U
#define CHM_CHECK_TABLES	64U

/*
 * The map has changed.  Begin again, or if it never is calm, go on: each pair is looked
 * at in one hold, but sums can't be had.
 */
static void chm_check_again(struct chm_check *check, u32 *attempts)
{
	const struct chm_table *t = chm_table(check->map);
	bool same = t && t->id == check->id, tear;

	if (same && check->torn)
		return;
	tear = ++*attempts > CHM_CHECK_ATTEMPTS && t &&
	       t->nr_chunks > CHM_CHECK_SMALL;
	if (!same || !tear)
		chm_check_begin(check);
	check->torn = tear;
}

/*
 * One hold of the lock.  Return: 0 if there is more to look at, 1 if all is done,
 * -EAGAIN if there is no room for the filters of a larger table, -EBUSY if no table
 * stays for long enough.
 */
static int chm_check_hold(struct chm_check *check, u32 *attempts)
{
	u32 chunks = CHM_CHECK_CHUNKS;

	if (chm_check_outdated(check))
		chm_check_again(check, attempts);
	if (*attempts > CHM_CHECK_TABLES)
		return -EBUSY;
	if (check->t) {
		u32 nr_chunks = check->t->nr_chunks;

		if (nr_chunks > check->overflows)
			return -EAGAIN;
		if (*attempts > CHM_CHECK_ATTEMPTS && !check->torn)
			chunks = U32_MAX;
		if (!chm_check_some(check, &check->chunk, nr_chunks, chunks,
				    chm_check_pairs) ||
		    (!check->torn && !chm_check_sums(check, chunks)))
			return 0;
	}
	chm_check_whole(check);
	return 1;
}

static int chm_check_alloc(struct chm_check *check, u32 n)
{
	kvfree(check->overflow);
	check->overflow = __vmalloc(array_size(n, sizeof(long)),
				    GFP_KERNEL | __GFP_NOWARN);
	check->overflows = check->overflow ? n : 0;
	check->id = 0;
	check->t = NULL;
	check->chunk = 0;
	return check->overflow ? 0 : -ENOMEM;
}

int chm_verify(const struct chm *map)
{
	struct chm *locked = chm_lockable(map);
	struct chm_check check = { .map = map };
	int ret = chm_check_call(locked, true);
	u32 attempts = 0;

	if (ret)
		return ret;
	chm_enter(locked);
	do {
		unsigned long flags;
		u32 n = 0;

		chm_lock(locked, flags);
		if (!attempts)
			chm_check_begin(&check);
		attempts += !attempts;
		ret = chm_check_hold(&check, &attempts);
		if (ret == -EAGAIN)
			n = check.t->nr_chunks;
		chm_unlock(locked, flags);
		if (ret == -EAGAIN)
			ret = chm_check_alloc(&check, n);
		cond_resched();
	} while (!ret);
	chm_leave(locked);
	kvfree(check.overflow);
	if (check.errors)
		return -EUCLEAN;
	return min(ret, 0);
}
EXPORT_SYMBOL_GPL(chm_verify);

/* === DebugFS ============================================================= */

/*
 * A directory of files for each named map, described in
 * Documentation/debugfs.rst.
 *
 * debugfs_remove() waits for the file operations that run and refuses those
 * that come later, all but release().  So open(), read() and write() may rely
 * on their map; release() must not look at it.
 */

/* A map made by a command. */
struct chm_created {
	struct chm		map;
	struct chm_params	params;
	struct list_head	list;
	bool			dying;	/* somebody is destroying it */
	char			name[64];
};

static struct dentry *chm_dir;

static LIST_HEAD(chm_created_maps);
/* Protects chm_created_maps; outer to all locks of debugfs. */
static DEFINE_MUTEX(chm_created_lock);

/* A wrong number in a command is no reason to kill processes. */
#define CHM_DEBUGFS_GFP		(GFP_KERNEL | __GFP_RETRY_MAYFAIL)

/* --- Keys and values as text --- */

static bool chm_is_integer(u32 size)
{
	return size <= sizeof(u64) && is_power_of_2(size);
}

static void *chm_low_bytes(u64 *n, u32 size)
{
	return (void *)n +
	       (IS_ENABLED(CONFIG_CPU_BIG_ENDIAN) ? sizeof(*n) - size : 0);
}

static void chm_show_object(struct seq_file *m, const void *object, u32 size,
			    bool is_pointer)
{
	const u32 most = 64;	/* that %ph prints */
	const void *pointer;
	u64 n = 0;

	if (is_pointer) {
		memcpy(&pointer, object, sizeof(pointer));
		seq_printf(m, "%p", pointer);
	} else if (!size) {
		seq_putc(m, '-');
	} else if (chm_is_integer(size)) {
		memcpy(chm_low_bytes(&n, size), object, size);
		seq_printf(m, "%llu", n);
	} else {
		for (; size > most; size -= most, object += most)
			seq_printf(m, "%*phN", most, object);
		seq_printf(m, "%*phN", size, object);
	}
}

static void chm_show_pair(struct seq_file *m, const struct chm_params *p,
			  const void *pair)
{
	chm_show_object(m, pair, p->key_size, p->key_is_pointer);
	seq_putc(m, ' ');
	chm_show_object(m, pair + chm_value_offset(p), p->value_size,
			p->value_is_pointer);
	seq_putc(m, '\n');
}

/* Decimal, or hexadecimal behind 0x; kstrtoull() would take a sign, too. */
static int chm_parse_integer(const char *word, void *to, u32 size)
{
	bool hex = word[0] == '0' && tolower(word[1]) == 'x';
	unsigned long long value;
	u64 n;
	int ret;

	if (!isdigit(word[0]))
		return -EINVAL;
	ret = kstrtoull(word, hex ? 16 : 10, &value);
	if (ret)
		return ret;
	if (value > U64_MAX >> (64 - size * BITS_PER_BYTE))
		return -ERANGE;
	n = value;
	memcpy(to, chm_low_bytes(&n, size), size);
	return 0;
}

static int chm_parse_object(const char *word, void *to, u32 size)
{
	if (!size)
		return strcmp(word, "-") ? -EINVAL : 0;
	if (chm_is_integer(size))
		return chm_parse_integer(word, to, size);
	if (strlen(word) != size * 2)
		return -EINVAL;
	return hex2bin(to, word, size) ? -EINVAL : 0;
}

/* Room for one pair: the key, and the value at its offset. */
static void *chm_alloc_pair(const struct chm_params *p)
{
	return kvmalloc(chm_slot_size(p), GFP_KERNEL);
}

/* --- Commands --- */

struct chm_command {
	const char	*name;
	const char	*usage;
	int		min_args;
	int		max_args;
	bool		writes;		/* for maps with debugfs_write only */
	int		(*run)(struct chm *map, int argc, char **argv);
};

/* What is written must be one line of text and all of it. */
static int chm_check_line(char *line, size_t len)
{
	size_t i;

	if (len && line[len - 1] == '\n')
		line[--len] = '\0';
	for (i = 0; i < len; i++) {
		if (!isascii(line[i]) || (!isprint(line[i]) && line[i] != '\t'))
			return -EINVAL;
	}
	return 0;
}

/* The longest line: a page, or a command with a pair in hexadecimal. */
static size_t chm_line_max(const struct chm_debugfs *d)
{
	size_t pair = d ? 2 * (size_t)chm_slot_size(d->map->p) : 0;

	return max_t(size_t, PAGE_SIZE - 1, pair + 16);
}

/* A write() to a file of @d, or to the topmost one: @run gets its line. */
static ssize_t chm_write_line(struct chm_debugfs *d, const char __user *from,
			      size_t len, loff_t pos,
			      int (*run)(struct chm_debugfs *d, char *line))
{
	char *line;
	int ret;

	if (pos)
		return -EINVAL;
	if (len > chm_line_max(d))
		return -E2BIG;
	line = kvmalloc(len + 1, GFP_KERNEL);
	if (!line)
		return -ENOMEM;
	line[len] = '\0';
	ret = -EFAULT;
	if (!copy_from_user(line, from, len))
		ret = chm_check_line(line, len);
	if (!ret)
		ret = run(d, line);
	kvfree(line);
	return ret < 0 ? ret : len;
}

/* A file that has NAME_show() and, for each line written to it, NAME_line(). */
#define CHM_DEFINE_FILE(name)						\
static ssize_t name ## _write(struct file *file, const char __user *from, \
			      size_t len, loff_t *pos)			\
{									\
	return chm_write_line(file_inode(file)->i_private, from, len,	\
			      *pos, name ## _line);			\
}									\
									\
static int name ## _open(struct inode *inode, struct file *file)	\
{									\
	return single_open(file, name ## _show, inode->i_private);	\
}									\
									\
static const struct file_operations name ## _fops = {			\
	.owner		= THIS_MODULE,					\
	.open		= name ## _open,				\
	.read		= seq_read,					\
	.write		= name ## _write,				\
	.llseek		= seq_lseek,					\
	.release	= single_release,				\
}

/* Return: how many words there are, at least one. */
static int chm_split(char *line, char **words, int max)
{
	char *word;
	int n = 0;

	while ((word = strsep(&line, " \t"))) {
		if (!*word)
			continue;
		if (n == max)
			return -EINVAL;
		words[n++] = word;
	}
	return n ?: -EINVAL;
}

static int chm_run_command(const struct chm_command *c, struct chm *map,
			   char *line)
{
	char *words[12];
	int args = chm_split(line, words, ARRAY_SIZE(words)) - 1;

	for (; args >= 0 && c->name; c++) {
		if (strcmp(words[0], c->name))
			continue;
		if (args < c->min_args || args > c->max_args)
			return -EINVAL;
		if (c->writes && !map->p->debugfs_write)
			return -EPERM;
		return c->run(map, args, words + 1);
	}
	return -EINVAL;
}

static void chm_show_usage(struct seq_file *m, const struct chm_command *c)
{
	for (; c->name; c++)
		seq_printf(m, "%s%s\n", c->name, c->usage);
}

/* --- Commands for one map --- */

static int chm_command_store(struct chm *map, char **argv, unsigned int how)
{
	const struct chm_params *p = map->p;
	void *pair = chm_alloc_pair(p);
	struct chm_op op __uninitialized;
	int ret;

	if (!pair)
		return -ENOMEM;
	ret = chm_parse_object(argv[0], pair, p->key_size);
	if (!ret)
		ret = chm_parse_object(argv[1], pair + chm_value_offset(p),
				       p->value_size);
	chm_op_init(&op, pair, pair + chm_value_offset(p), how);
	if (!ret)
		ret = chm_store(map, &op, CHM_DEBUGFS_GFP);
	kvfree(pair);
	return ret;
}

static int chm_command_insert(struct chm *map, int argc, char **argv)
{
	return chm_command_store(map, argv, CHM_CREATE);
}

static int chm_command_replace(struct chm *map, int argc, char **argv)
{
	return chm_command_store(map, argv, CHM_UPDATE);
}

static int chm_command_upsert(struct chm *map, int argc, char **argv)
{
	return chm_command_store(map, argv, CHM_CREATE | CHM_UPDATE);
}

/* As chm_cell_upsert_add(); the number is not signed, as all are here. */
static int chm_command_add(struct chm *map, int argc, char **argv)
{
	void *pair = chm_alloc_pair(map->p);
	unsigned long n;
	u32 i;
	int ret;

	if (!pair)
		return -ENOMEM;
	ret = chm_parse_object(argv[0], pair, map->p->key_size);
	if (!ret)
		ret = chm_parse_integer(argv[1], &i, sizeof(i));
	if (!ret)
		ret = chm_parse_integer(argv[2], &n, sizeof(n));
	if (!ret)
		ret = chm_cell_upsert_add(map, pair, i, n, CHM_DEBUGFS_GFP);
	kvfree(pair);
	return ret;
}

static int chm_command_remove(struct chm *map, int argc, char **argv)
{
	void *pair = chm_alloc_pair(map->p);
	int ret;

	if (!pair)
		return -ENOMEM;
	ret = chm_parse_object(argv[0], pair, map->p->key_size);
	if (!ret)
		ret = chm_remove(map, pair);
	kvfree(pair);
	return ret;
}

/* The value of a filled-in pair is its key, cut off or followed by zeroes. */
static int chm_insert_integer(struct chm *map, void *pair, u64 n)
{
	const struct chm_params *p = map->p;
	void *value = pair + chm_value_offset(p);

	memcpy(pair, chm_low_bytes(&n, p->key_size), p->key_size);
	if (chm_is_integer(p->value_size)) {
		memcpy(value, chm_low_bytes(&n, p->value_size), p->value_size);
	} else {
		memset(value, 0, p->value_size);
		memcpy(value, &n, min_t(u32, p->value_size, sizeof(n)));
	}
	return chm_insert(map, pair, value, CHM_DEBUGFS_GFP);
}

static int chm_fill(struct chm *map, u64 first, u64 count)
{
	void *pair = chm_alloc_pair(map->p);
	int ret = 0;

	if (!pair)
		return -ENOMEM;
	for (; count && !ret; first++, count--) {
		ret = chm_insert_integer(map, pair, first);
		if (fatal_signal_pending(current))
			ret = -EINTR;
		/* Pairs with WRITE_ONCE() in chm_debugfs_remove(). */
		if (READ_ONCE(map->debugfs->dying))
			ret = -EIO;
		cond_resched();
	}
	kvfree(pair);
	return ret;
}

static int chm_command_fill(struct chm *map, int argc, char **argv)
{
	u32 size = map->p->key_size;
	u64 first, count, most;
	int ret;

	if (!chm_is_integer(size))
		return -EINVAL;
	most = U64_MAX >> (64 - size * BITS_PER_BYTE);
	ret = chm_parse_integer(argv[0], &first, sizeof(first));
	if (!ret)
		ret = chm_parse_integer(argv[1], &count, sizeof(count));
	if (ret)
		return ret;
	if (first > most || (count && count - 1 > most - first))
		return -ERANGE;
	return chm_fill(map, first, count);
}

/* Move to another table, larger or of the same size. */
static int chm_command_move(struct chm *map, bool larger)
{
	int ret;

	chm_enter(map);
	do {
		const struct chm_table *t;
		struct chm_plan plan;
		unsigned long flags;
		u64 chunks = 0;

		chm_lock(map, flags);
		t = chm_table(map);
		if (t)
			chunks = chm_chunks_same(map, t);
		if (t && larger)
			chunks = max(chunks, chm_chunks_usual(map->p, t));
		plan = chm_plan_for(t, chunks);
		chm_unlock(map, flags);
		if (!chunks)
			ret = -ENODATA;
		else if (!chm_can_afford(map->p, &plan, false))
			ret = -ENOMEM;
		else
			ret = min(chm_move(map, &plan, CHM_DEBUGFS_GFP), 0);
		if (chm_move_again(ret) && fatal_signal_pending(current))
			ret = -EINTR;
		/* Pairs with WRITE_ONCE() in chm_debugfs_remove(). */
		if (chm_move_again(ret) && READ_ONCE(map->debugfs->dying))
			ret = -EIO;
	} while (chm_move_again(ret));
	chm_leave(map);
	return ret;
}

static int chm_command_grow(struct chm *map, int argc, char **argv)
{
	return chm_command_move(map, true);
}

static int chm_command_rehash(struct chm *map, int argc, char **argv)
{
	return chm_command_move(map, false);
}

static int chm_command_shrink(struct chm *map, int argc, char **argv)
{
	return chm_shrink(map, CHM_DEBUGFS_GFP);
}

/* Of a table that is beyond all limits, chm_reserve() says so. */
static bool chm_can_reserve(struct chm *map, unsigned long n)
{
	struct chm_plan plan;
	unsigned long flags;

	chm_lock(map, flags);
	plan = chm_plan_for(chm_table(map),
			    chm_chunks_needed(map, max(n, map->entries)));
	chm_unlock(map, flags);
	return plan.chunks <= plan.old_chunks || plan.chunks > CHM_MAX_CHUNKS ||
	       chm_can_afford(map->p, &plan, false);
}

static int chm_command_reserve(struct chm *map, int argc, char **argv)
{
	unsigned long n;
	int ret = chm_parse_integer(argv[0], &n, sizeof(n));

	if (!ret && !chm_can_reserve(map, n))
		ret = -ENOMEM;
	return ret ?: chm_reserve(map, n, CHM_DEBUGFS_GFP);
}

static int chm_command_clear(struct chm *map, int argc, char **argv)
{
	chm_clear(map);
	return 0;
}

static int chm_command_verify(struct chm *map, int argc, char **argv)
{
	return chm_verify(map);
}

static const struct chm_command chm_map_commands[] = {
	{ "insert",  " KEY VALUE",   2, 2, true,  chm_command_insert },
	{ "replace", " KEY VALUE",   2, 2, true,  chm_command_replace },
	{ "upsert",  " KEY VALUE",   2, 2, true,  chm_command_upsert },
	{ "remove",  " KEY",	     1, 1, true,  chm_command_remove },
	{ "add",     " KEY WORD NUMBER", 3, 3, true, chm_command_add },
	{ "fill",    " FIRST COUNT", 2, 2, true,  chm_command_fill },
	{ "grow",    "",	     0, 0, true,  chm_command_grow },
	{ "shrink",  "",	     0, 0, true,  chm_command_shrink },
	{ "rehash",  "",	     0, 0, true,  chm_command_rehash },
	{ "reserve", " COUNT",	     1, 1, true,  chm_command_reserve },
	{ "clear",   "",	     0, 0, true,  chm_command_clear },
	{ "verify",  "",	     0, 0, false, chm_command_verify },
	{ }
};

static int chm_map_control_show(struct seq_file *m, void *v)
{
	chm_show_usage(m, chm_map_commands);
	return 0;
}

static int chm_map_control_line(struct chm_debugfs *d, char *line)
{
	return chm_run_command(chm_map_commands, d->map, line);
}

CHM_DEFINE_FILE(chm_map_control);

/* --- Looking up --- */

static int chm_lookup_show(struct seq_file *m, void *v)
{
	struct chm_debugfs *d = m->private;
	const struct chm_params *p = d->map->p;
	void *pair = chm_alloc_pair(p);
	bool found;

	if (!pair)
		return -ENOMEM;
	mutex_lock(&d->lock);
	found = d->has_key;
	memcpy(pair, d->key, p->key_size);
	mutex_unlock(&d->lock);
	found = found && chm_get(d->map, pair, pair + chm_value_offset(p));
	if (found)
		chm_show_pair(m, p, pair);
	kvfree(pair);
	return found ? 0 : -ENODATA;
}

/* Look up what @line says and remember it if it is there. */
static int chm_lookup_line(struct chm_debugfs *d, char *line)
{
	const struct chm_params *p = d->map->p;
	void *pair;
	char *word;
	int ret;

	/* A key that these follow as a pointer is not to be made up. */
	if ((p->hash || p->equal || p->key_is_pointer) && !p->debugfs_write)
		return -EPERM;
	ret = chm_split(line, &word, 1);
	if (ret < 0)
		return ret;
	pair = chm_alloc_pair(p);
	if (!pair)
		return -ENOMEM;
	ret = chm_parse_object(word, pair, p->key_size);
	if (!ret && !chm_get(d->map, pair, pair + chm_value_offset(p)))
		ret = -ENOENT;
	if (!ret) {
		mutex_lock(&d->lock);
		memcpy(d->key, pair, p->key_size);
		d->has_key = true;
		mutex_unlock(&d->lock);
	}
	kvfree(pair);
	return ret;
}

CHM_DEFINE_FILE(chm_lookup);

/* --- All pairs --- */

/* An open file that lists a map. */
struct chm_listing {
	struct chm_iter		it;
	struct chm_scan		scan;
	bool			full;		/* the pair is to be shown */
	u8			pair[] __aligned(CHM_SLOT_ALIGN);
};

/* One read-side section of the walk.  Return: 0, or -ESTALE. */
static int chm_entries_copy(struct chm_listing *l)
{
	l->full = chm_walk(&l->it, &l->scan, l->pair,
			   l->pair + chm_value_offset(l->it.map->p));
	if (l->full)
		l->scan.section = CHM_SECTION;
	return l->it.cursor.stale ? -ESTALE : 0;
}

static void *chm_entries_step(struct chm_listing *l)
{
	while (!l->full && !l->it.cursor.ended) {
		int ret = chm_entries_copy(l);

		if (!ret && fatal_signal_pending(current))
			ret = -EINTR;
		if (ret)
			return ERR_PTR(ret);
		cond_resched();
	}
	return l->full ? l : NULL;
}

static void *chm_entries_start(struct seq_file *m, loff_t *pos)
{
	struct chm_listing *l = m->private;

	if (!*pos) {
		chm_iter_init(&l->it, l->it.map);
		l->scan = (struct chm_scan) { .section = CHM_SECTION };
		l->full = false;
	}
	return chm_entries_step(l);
}

static void *chm_entries_next(struct seq_file *m, void *v, loff_t *pos)
{
	struct chm_listing *l = v;

	++*pos;
	l->full = false;
	return chm_entries_step(l);
}

static void chm_entries_stop(struct seq_file *m, void *v)
{
}

static int chm_entries_show(struct seq_file *m, void *v)
{
	struct chm_listing *l = m->private;

	chm_show_pair(m, l->it.map->p, l->pair);
	return 0;
}

static const struct seq_operations chm_entries_sops = {
	.start	= chm_entries_start,
	.next	= chm_entries_next,
	.stop	= chm_entries_stop,
	.show	= chm_entries_show,
};

static int chm_entries_open(struct inode *inode, struct file *file)
{
	struct chm_debugfs *d = inode->i_private;
	struct chm_listing *l;
	int ret;

	l = kvzalloc_flex(*l, pair, chm_slot_size(d->map->p), GFP_KERNEL);
	if (!l)
		return -ENOMEM;
	l->it.map = d->map;
	ret = seq_open(file, &chm_entries_sops);
	if (ret)
		kvfree(l);
	else
		((struct seq_file *)file->private_data)->private = l;
	return ret;
}

/* Perhaps after the map is gone. */
static int chm_entries_release(struct inode *inode, struct file *file)
{
	kvfree(((struct seq_file *)file->private_data)->private);
	return seq_release(inode, file);
}

static const struct file_operations chm_entries_fops = {
	.owner		= THIS_MODULE,
	.open		= chm_entries_open,
	.read		= seq_read,
	.llseek		= seq_lseek,
	.release	= chm_entries_release,
};

/* --- Figures --- */

static const char * const chm_class_names[] = {
	[CHM_FROZEN]	= "frozen",
	[CHM_WORD]	= "word",
	[CHM_CLONE]	= "clone",
	[CHM_CELL]	= "cell",
};

static const char * const chm_reclaim_names[] = {
	[CHM_DEFERRED]	= "deferred",
	[CHM_SYNC]	= "sync",
};

static void chm_show_params(struct seq_file *m, const struct chm_params *p)
{
	seq_printf(m, "key_size: %u\n", p->key_size);
	seq_printf(m, "value_size: %u\n", p->value_size);
	seq_printf(m, "slot_size: %u\n", chm_slot_size(p));
	seq_printf(m, "class: %s\n", chm_class_names[p->class]);
	seq_printf(m, "reclaim: %s\n", chm_reclaim_names[p->reclaim]);
	seq_printf(m, "max_load: %u\n", chm_max_load(p));
	seq_printf(m, "growth: %u\n", p->growth ?: 140);
	seq_printf(m, "min_entries: %lu\n", p->min_entries);
	seq_printf(m, "max_entries: %lu\n", p->max_entries);
}

static int chm_stats_show(struct seq_file *m, void *v)
{
	struct chm_debugfs *d = m->private;
	struct chm_stats s;
	u64 load;

	chm_stats(d->map, &s);
	load = s.slots ? div64_ul(s.entries * 1000ULL, s.slots) : 0;
	chm_show_params(m, d->map->p);
	seq_printf(m, "entries: %lu\n", s.entries);
	seq_printf(m, "chunks: %lu\n", s.chunks);
	seq_printf(m, "slots: %lu\n", s.slots);
	seq_printf(m, "load: %llu.%llu\n", load / 10, load % 10);
	seq_printf(m, "bytes: %lu\n", s.bytes);
	seq_printf(m, "displaced: %lu\n", s.displaced);
	seq_printf(m, "longest_probe: %lu\n", s.longest_probe);
	seq_printf(m, "dead: %lu\n", s.dead);
	seq_printf(m, "grows: %lu\n", s.grows);
	seq_printf(m, "shrinks: %lu\n", s.shrinks);
	seq_printf(m, "rehashes: %lu\n", s.rehashes);
	seq_printf(m, "migrated: %lu\n", s.migrated);
	seq_printf(m, "migrated_ns: %llu\n", s.migrated_ns);
	seq_printf(m, "migrating: %lu\n", s.migrating);
	seq_printf(m, "copied: %lu\n", s.copied);
	seq_printf(m, "snapshot_bytes: %lu\n", s.snapshot_bytes);
	seq_printf(m, "changed: %lu\n", s.changed);
	seq_printf(m, "retired_bytes: %lu\n", s.retired_bytes);
	seq_printf(m, "gp_waits: %lu\n", s.gp_waits);
	seq_printf(m, "reseeds: %lu\n", s.reseeds);
	seq_printf(m, "failed_allocs: %lu\n", s.failed_allocs);
	seq_printf(m, "aborts: %lu\n", s.aborts);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(chm_stats);

/* Distances from home that are told apart; the last one means "or more". */
#define CHM_DISTANCES	17U

/* Count the pairs of @chunk by their distance from home. */
static void chm_count_distances(const struct chm_table *t, u32 chunk,
				const struct chm_params *p,
				unsigned long *pairs)
{
	const struct chm_chunk *c = __chm_chunk(t, chunk, p);
	unsigned long mask = chm_match_full(c->ctrl);
	u32 slot;

	chm_for_each_match(slot, mask) {
		u64 hash = __chm_hash(t, __chm_slot(t, c, slot, p), p);
		u32 home = chm_home(hash, t->nr_chunks);
		u32 distance = chm_distance(home, chunk, t->nr_chunks);

		pairs[min(distance, CHM_DISTANCES - 1)]++;
	}
}

static int chm_probes_show(struct seq_file *m, void *v)
{
	const struct chm_debugfs *d = m->private;
	unsigned long pairs[CHM_DISTANCES] = { };
	struct chm *map = d->map;
	u32 i = 0, n, id = 0;

	do {
		const struct chm_table *t;
		unsigned long flags;
		u32 end;

		chm_lock(map, flags);
		t = chm_table(map);
		n = t ? t->nr_chunks : 0;
		if (t && t->id != id) {
			id = t->id;
			i = 0;
			memset(pairs, 0, sizeof(pairs));
		}
		for (end = min(n, i + CHM_CHECK_CHUNKS); i < end; i++)
			chm_count_distances(t, i, map->p, pairs);
		chm_unlock(map, flags);
		cond_resched();
		/* It begins anew with each table. */
		if (fatal_signal_pending(current))
			return -EINTR;
		if (READ_ONCE(d->dying))
			return -EIO;
	} while (i < n);
	for (i = 0; i < CHM_DISTANCES; i++)
		seq_printf(m, "%u%s: %lu\n", i,
			   i == CHM_DISTANCES - 1 ? "+" : "", pairs[i]);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(chm_probes);

/* --- Directories --- */

static const struct {
	const char			*name;
	umode_t				mode;
	const struct file_operations	*fops;
} chm_debugfs_files[] = {
	{ "control",	0600,	&chm_map_control_fops },
	{ "entries",	0400,	&chm_entries_fops },
	{ "lookup",	0600,	&chm_lookup_fops },
	{ "probes",	0400,	&chm_probes_fops },
	{ "stats",	0400,	&chm_stats_fops },
};

static bool chm_name_valid(const char *name)
{
	const char *c;

	for (c = name; *c; c++) {
		if (!isascii(*c) || !isprint(*c) || *c == '/')
			return false;
	}
	return *name && c - name < sizeof_field(struct chm_debugfs, name) &&
	       strcmp(name, ".") && strcmp(name, "..") &&
	       strcmp(name, "control");
}

/* Ask first: debugfs_create_dir() complains in the kernel log. */
static bool chm_name_taken(const char *name)
{
	struct dentry *dir = debugfs_lookup(name, chm_dir);

	if (IS_ERR_OR_NULL(dir))
		return false;
	dput(dir);
	return true;
}

static int chm_debugfs_add(struct chm *map, const char *name)
{
	struct chm_debugfs *d;
	struct dentry *file;
	int i;

	if (!chm_name_valid(name))
		return -EINVAL;
	/*
	 * chm's own directory is missing before this module's initcall, if chm is built
	 * in, and if it could not be made.
	 */
	if (!IS_ENABLED(CONFIG_DEBUG_FS) || IS_ERR_OR_NULL(chm_dir))
		return 0;
	d = kzalloc_flex(*d, key, map->p->key_size, GFP_KERNEL);
	if (!d)
		return -ENOMEM;
	mutex_init(&d->lock);
	strscpy(d->name, name, sizeof(d->name));
	d->map = map;
	map->debugfs = d;
	/* That is no reason for a driver to fail. */
	if (chm_name_taken(name)) {
		pr_warn("map %s: no directory in debugfs, which has one of this name\n",
			name);
		d->error = -EEXIST;
		return 0;
	}
	d->dir = debugfs_create_dir(name, chm_dir);
	for (i = 0; i < ARRAY_SIZE(chm_debugfs_files); i++) {
		file = debugfs_create_file(chm_debugfs_files[i].name,
					   chm_debugfs_files[i].mode, d->dir, d,
					   chm_debugfs_files[i].fops);
		if (IS_ERR(file))
			d->error = PTR_ERR(file);
	}
	return 0;
}

static void chm_debugfs_remove(struct chm *map)
{
	struct chm_debugfs *d = map->debugfs;

	if (!d)
		return;
	/* Ends what takes long.  Pairs with READ_ONCE() in chm_fill(). */
	WRITE_ONCE(d->dying, true);
	debugfs_remove(d->dir);
	mutex_destroy(&d->lock);
}

static void chm_debugfs_free(struct chm *map)
{
	kfree(map->debugfs);
	map->debugfs = NULL;
}

/* --- Maps made by commands --- */

struct chm_option {
	const char		*name;
	size_t			offset;		/* in struct chm_params */
	size_t			size;
	const char * const	*words;		/* NULL: a number */
	size_t			nr_words;
};

#define CHM_OPTION(name, field, ...)					\
	{ name, offsetof(struct chm_params, field),			\
	  sizeof_field(struct chm_params, field), __VA_ARGS__ }
#define CHM_REQUIRED	(BIT(0) | BIT(1))	/* the first two */

static const struct chm_option chm_options[] = {
	CHM_OPTION("key", key_size),
	CHM_OPTION("value", value_size),
	CHM_OPTION("class", class, chm_class_names, ARRAY_SIZE(chm_class_names)),
	CHM_OPTION("max", max_entries),
	CHM_OPTION("min", min_entries),
	CHM_OPTION("load", max_load),
	CHM_OPTION("growth", growth),
	CHM_OPTION("reclaim", reclaim, chm_reclaim_names,
		   ARRAY_SIZE(chm_reclaim_names)),
};

static int chm_parse_option(char *word, struct chm_params *p,
			    unsigned int *seen)
{
	char *name = strsep(&word, "=");
	unsigned int i;

	for (i = 0; word && i < ARRAY_SIZE(chm_options); i++) {
		const struct chm_option *o = &chm_options[i];
		void *to = (void *)p + o->offset;
		int choice;

		if (strcmp(name, o->name))
			continue;
		if (*seen & BIT(i))
			return -EINVAL;
		*seen |= BIT(i);
		if (!o->words)
			return chm_parse_integer(word, to, o->size);
		choice = match_string(o->words, o->nr_words, word);
		if (choice < 0)
			return -EINVAL;
		memcpy(to, &choice, o->size);
		return 0;
	}
	return -EINVAL;
}

static struct chm_created *chm_find_created(const char *name)
{
	struct chm_created *c;

	lockdep_assert_held(&chm_created_lock);
	list_for_each_entry(c, &chm_created_maps, list) {
		if (!strcmp(c->name, name))
			return c;
	}
	return NULL;
}

static int chm_create(const char *name, const struct chm_params *p)
{
	struct chm_created *c;
	int ret = -EEXIST;

	if (!chm_name_valid(name))
		return -EINVAL;
	c = kzalloc_obj(*c, GFP_KERNEL);
	if (!c)
		return -ENOMEM;
	mutex_lock(&chm_created_lock);
	c->params = *p;
	if (!chm_find_created(name) && !chm_name_taken(name))
		ret = chm_init(&c->map, &c->params, NULL, name);
	if (!ret) {
		/* A driver was quicker, or there was no memory for all files. */
		ret = c->map.debugfs->error;
		if (ret)
			chm_destroy(&c->map);
	}
	if (!ret) {
		strscpy(c->name, name, sizeof(c->name));
		list_add_tail(&c->list, &chm_created_maps);
	}
	mutex_unlock(&chm_created_lock);
	if (ret)
		kfree(c);
	return ret;
}

static int chm_command_create(struct chm *unused, int argc, char **argv)
{
	struct chm_params p = { .debugfs_write = true };
	unsigned int seen = 0;
	int i, ret;

	for (i = 1; i < argc; i++) {
		ret = chm_parse_option(argv[i], &p, &seen);
		if (ret)
			return ret;
	}
	if ((seen & CHM_REQUIRED) != CHM_REQUIRED)
		return -EINVAL;
	return chm_create(argv[0], &p);
}

/* Not under the lock: this waits for the commands that use the map. */
static void chm_destroy_created(struct chm_created *c)
{
	chm_destroy(&c->map);
	mutex_lock(&chm_created_lock);
	list_del(&c->list);
	mutex_unlock(&chm_created_lock);
	kfree(c);
}

static int chm_command_destroy(struct chm *unused, int argc, char **argv)
{
	struct chm_created *c;
	int ret = 0;

	if (!chm_name_valid(argv[0]))
		return -EINVAL;
	mutex_lock(&chm_created_lock);
	c = chm_find_created(argv[0]);
	if (!c)
		ret = chm_name_taken(argv[0]) ? -EPERM : -ENOENT;
	else if (c->dying)
		ret = -ENOENT;
	else
		c->dying = true;
	mutex_unlock(&chm_created_lock);
	if (!ret)
		chm_destroy_created(c);
	return ret;
}

static const struct chm_command chm_commands[] = {
	{ "create",
	  " NAME key=BYTES value=BYTES [OPTION]...\n"
	  "\tclass=frozen|word|cell reclaim=deferred|sync max=PAIRS min=PAIRS\n"
	  "\tload=PERCENT growth=PERCENT",
	  3, 1 + ARRAY_SIZE(chm_options), false, chm_command_create },
	{ "destroy", " NAME", 1, 1, false, chm_command_destroy },
	{ }
};

static int chm_control_show(struct seq_file *m, void *v)
{
	chm_show_usage(m, chm_commands);
	return 0;
}

static int chm_control_line(struct chm_debugfs *none, char *line)
{
	return chm_run_command(chm_commands, NULL, line);
}

CHM_DEFINE_FILE(chm_control);

static void chm_debugfs_init(void)
{
	chm_dir = debugfs_create_dir("chm", NULL);
	if (!IS_ERR(chm_dir))
		d_inode(chm_dir)->i_mode = S_IFDIR | 0700;
	debugfs_create_file("control", 0600, chm_dir, NULL, &chm_control_fops);
}

/* Files keep the module: none is open any more. */
static void chm_debugfs_exit(void)
{
	struct chm_created *c, *next;

	/* One grace period for all. */
	list_for_each_entry(c, &chm_created_maps, list)
		chm_destroy_async(&c->map);
	chm_barrier();
	list_for_each_entry_safe(c, next, &chm_created_maps, list)
		kfree(c);
	debugfs_remove(chm_dir);
}

/* === Life ================================================================ */

const char chm_abi_2;
EXPORT_SYMBOL_GPL(chm_abi_2);

int __chm_init(struct chm *map, const struct chm_params *p, void *ctx,
	       const char *name, struct chm_lock_keys *keys)
{
	int ret = chm_params_check(p);

	*map = (struct chm) { };
	if (ret)
		return ret;
	map->p = p;
	map->ctx = ctx;
	map->valid = true;
	spin_lock_init(&map->lock);
	lockdep_set_class_and_name(&map->lock, &keys->lock, "chm->lock");
#ifdef CONFIG_DEBUG_LOCK_ALLOC
	lockdep_init_map(&map->busy_map, "chm->busy", &keys->busy, 0);
#endif
	INIT_LIST_HEAD(&map->work);
	ret = name ? chm_debugfs_add(map, name) : 0;
	if (ret)
		map->p = NULL;
	return ret;
}
EXPORT_SYMBOL_GPL(__chm_init);

/*
 * Take @map away from the worker, unless it has its turn.  @at_once: even then; the
 * worker will notice before it touches the map again.
 */
static bool chm_try_detach(struct chm *map, bool at_once)
{
	unsigned long flags;
	bool detached;

	spin_lock_irqsave(&chm_worker.lock, flags);
	list_del_init(&map->work);
	if (at_once && chm_worker.map == map)
		WRITE_ONCE(chm_worker.map, NULL);
	detached = chm_worker.map != map;
	spin_unlock_irqrestore(&chm_worker.lock, flags);
	return detached;
}

/* The end of a turn may have queued the map for another one, which may have begun. */
static void chm_detach(struct chm *map)
{
	while (!chm_try_detach(map, false))
		wait_event(chm_worker.done, READ_ONCE(chm_worker.map) != map);
}

/* Retire all tables, with the pairs that are in them.  Return: the list of them. */
static struct chm_table *chm_retire_all(struct chm *map)
{
	struct chm_table *t, *all;
	unsigned long flags;

	chm_lock(map, flags);
	chm_abort(map);
	t = chm_table(map);
	RCU_INIT_POINTER(map->tbl, NULL);
	if (t) {
		t->owns_full = true;
		chm_retire(map, t);
	}
	all = map->retired;
	WRITE_ONCE(map->retired, NULL);
	map->entries = 0;
	map->kick = false;
	/* A drop() that writes to its own map finds it empty, and leaves it so. */
	map->valid = false;
	map->dying = true;
	chm_unlock(map, flags);
	return all;
}

void chm_destroy(struct chm *map)
{
	struct chm_table *all, *t;

	if (chm_check_call(map, true))
		return;
	chm_debugfs_remove(map);
	chm_detach(map);
	all = chm_retire_all(map);
	/* O5, O7, O9: pairs with the end of the readers' sections. */
	if (all)
		synchronize_rcu();
	while ((t = chm_oldest(all))) {
		chm_remove_oldest(&all);
		chm_check_frozen(chm_name(map), t);
		chm_drop_all(t);
	}
	map->p = NULL;
	/* Not before: what is found wrong in the end has its map's name. */
	chm_debugfs_free(map);
}
EXPORT_SYMBOL_GPL(chm_destroy);

void chm_destroy_async(struct chm *map)
{
	struct chm_table *all, *t;
	unsigned long flags;
	bool first;

	if (__chm_check_call(map, map->debugfs))
		return;
	chm_debugfs_remove(map);
	chm_try_detach(map, true);
	all = chm_retire_all(map);
	map->p = NULL;
	chm_debugfs_free(map);
	if (!all)
		return;
	spin_lock_irqsave(&chm_worker.lock, flags);
	/* Else the worker is at others, or waits for a grace period. */
	first = !chm_worker.orphans;
	while ((t = chm_oldest(all))) {
		chm_remove_oldest(&all);
		t->seq = ++chm_worker.seq;
		chm_append(&chm_worker.orphans, t);
	}
	spin_unlock_irqrestore(&chm_worker.lock, flags);
	if (first)
		chm_wake_worker();
}
EXPORT_SYMBOL_GPL(chm_destroy_async);

/* Are all that were handed over up to @seq done with? */
static bool chm_orphans_gone(u64 seq)
{
	const struct chm_table *t;
	unsigned long flags;
	bool gone;

	spin_lock_irqsave(&chm_worker.lock, flags);
	t = chm_oldest(chm_worker.orphans);
	gone = !t || t->seq > seq;
	spin_unlock_irqrestore(&chm_worker.lock, flags);
	return gone;
}

static u64 chm_count_turns(void)
{
	unsigned long flags;
	u64 turns;

	spin_lock_irqsave(&chm_worker.lock, flags);
	turns = chm_worker.turns;
	spin_unlock_irqrestore(&chm_worker.lock, flags);
	return turns;
}

void chm_barrier(void)
{
	unsigned long flags;
	u64 seq, turns;

	might_sleep();
	if (WARN_ONCE(chm_in_worker(), "chm: %s() in a drop() would wait for itself\n", __func__))
		return;
	spin_lock_irqsave(&chm_worker.lock, flags);
	seq = chm_worker.seq;
	spin_unlock_irqrestore(&chm_worker.lock, flags);
	wait_event(chm_worker.done, chm_orphans_gone(seq));
	/* It may be at a map that was destroyed, or free the last of these tables. */
	turns = chm_count_turns();
	if (turns & 1)
		wait_event(chm_worker.done, chm_count_turns() != turns);
}
EXPORT_SYMBOL_GPL(chm_barrier);

/* === Module ============================================================== */

static int __init chm_module_init(void)
{
	struct workqueue_struct *wq;

	wq = alloc_workqueue("chm", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!wq)
		return -ENOMEM;
	WRITE_ONCE(chm_worker.wq, wq);
	queue_work(wq, &chm_worker.work);
	chm_debugfs_init();
	return 0;
}

static void __exit chm_module_exit(void)
{
	chm_debugfs_exit();
	irq_work_sync(&chm_worker.irq);
	flush_work(&chm_worker.work);
	/* For the callback that queues it. */
	rcu_barrier();
	cancel_delayed_work_sync(&chm_worker.second);
	destroy_workqueue(chm_worker.wq);
}

/* Early: the maps of most initcalls get their directories. */
subsys_initcall(chm_module_init);
module_exit(chm_module_exit);

MODULE_DESCRIPTION("Concurrent hash map with lock-free lookups");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.2");
