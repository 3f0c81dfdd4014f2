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
 *	Resize: build a table aside, copy every pair, publish the table, let
 *	a grace period pass, free the old one without dropping what moved.
 *	A work item does so, too, with tables that are worn or far too large.
 *	Values that readers update (CHM_CELL) are noted as they are copied;
 *	after a grace period what was added to the old ones since is added to
 *	the new ones.
 *
 * Locking
 *	map->lock excludes writers.  map->resize_lock, taken outside of it,
 *	has one table built at a time while map->lock is free: memory is never
 *	allocated for a table under map->lock.  Writers who must not wait for
 *	another one's memory build a table of their own; map->epoch tells that
 *	there was another.
 *
 * Ordering (store side | load side | without it)
 *	O1  release store of a control word | acquire load | a FULL tag is
 *	    seen before the bytes of its slot, or of a neighbour's: a plain
 *	    store would break the neighbours' release sequences.
 *	O2  overflow filters before the tag | probe order, acquire | a pair is
 *	    found, and then one that was inserted before it is not.
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
 *	    chm_cell_read() counts an update twice, or not at all.
 *	O11 chunk marked as occupied before a pair in it is visible | a walk looks
 *	    for marks, then at chunks | a walk misses a pair that was found before.
 *
 * Guarantees G1-G10 are stated in Documentation/chm.rst, the reasons and the
 * rejected alternatives in Documentation/design.rst.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/ctype.h>
#include <linux/debugfs.h>
#include <linux/kcsan-checks.h>
#include <linux/irqflags.h>
#include <linux/ktime.h>
#include <linux/log2.h>
#include <linux/math64.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/preempt.h>
#include <linux/random.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/siphash.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

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
#define CHM_LOWER_LIMIT		256U

/* Copying a table this large takes as long as some grace periods. */
#define CHM_LARGE		SZ_16M

/* Chunks that a walk visits in one read-side section. */
#define CHM_SECTION		64U

/* Chunks between two chances to reschedule, at most; see chm_range(). */
#define CHM_RANGE		1024U

/* What chm_store() may do about a key. */
#define CHM_CREATE		BIT(0)
#define CHM_UPDATE		BIT(1)
#define CHM_ZEROES		BIT(2)	/* no value: all its bytes are zero */
#define CHM_ANYWHERE		BIT(3)	/* as far from home as there is room */

/*
 * What was copied from a table into its successor, as it was then.  What cells
 * have more after a grace period is still to be added there: values of CHM_CELL
 * maps.  Others must be the same still, which CONFIG_CHM_DEBUG looks at: pairs.
 */
struct chm_snapshot {
	struct chm_table	*from;		/* what was copied */
	size_t			bytes;		/* of all this */
	unsigned long		merged;		/* how far, see chm_merge_begin() */
	u8			copies[] __aligned(CHM_SLOT_ALIGN); /* by slots */
};

/* At the end of each table whose map has snapshots taken. */
struct chm_snapshots {
	struct chm_snapshot	*pending;	/* to be merged into this table */
	struct chm_snapshot	*spent;		/* of this table; freed with it */
};

/* What a writer lacks that found no usable slot. */
enum chm_need {
	CHM_NEED_SLOTS,		/* there are as many pairs as there may be */
	CHM_NEED_EMPTY,		/* DEAD slots fill the table */
	CHM_NEED_NEARER,	/* the probe path is full for too long */
};

/* What a new table's seed shall be. */
enum chm_seeding {
	CHM_SAME_SEED,
	CHM_NEW_SEED,
	CHM_NEW_SIPHASH,	/* and SipHash, where chm chooses the hash */
};

/* Where a pair is, or could be. */
struct chm_place {
	struct chm_chunk	*c;
	u32			chunk;
	u32			distance;	/* from the home chunk */
	u32			slot;
};

/* The directory of a map in debugfs. */
struct chm_debugfs {
	struct chm	*map;
	struct dentry	*dir;
	char		name[64];
	bool		dying;		/* the map is being destroyed */
	struct mutex	lock;		/* of all below */
	bool		has_key;
	u8		key[];		/* what the file lookup has found last */
};

/* === Parameters ========================================================== */

static bool chm_sizes_valid(const struct chm_params *p)
{
	return p->key_size && p->key_size <= CHM_KEY_MAX &&
	       p->value_size <= CHM_VALUE_MAX &&
	       p->value_offset <= CHM_KEY_MAX &&
	       p->slot_size <= CHM_KEY_MAX + CHM_VALUE_MAX;
}

/* Fill in what 0 means; false if key and value don't fit what was given. */
static bool chm_lay_out_slot(struct chm_params *p)
{
	u32 align = max(chm_natural_align(p->key_size),
			chm_natural_align(p->value_size));
	u32 end;

	if (!p->value_offset)
		p->value_offset = ALIGN(p->key_size,
					chm_natural_align(p->value_size));
	end = p->value_offset + p->value_size;
	if (!p->slot_size)
		p->slot_size = ALIGN(end, align);
	return p->value_offset >= p->key_size && p->slot_size >= end;
}

/* Words that are added to must be aligned; others merge() sees to itself. */
static int chm_check_cell(const struct chm_params *p)
{
	if (p->clone || !p->value_size)
		return -EINVAL;
	if (p->merge)
		return 0;
	return (p->value_size | p->value_offset | p->slot_size) %
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
		return (p->value_offset | p->slot_size) & (p->value_size - 1) ?
		       -EINVAL : 0;
	case CHM_CLONE:
		return !p->clone || p->merge ? -EINVAL : 0;
	case CHM_CELL:
		return chm_check_cell(p);
	}
	return -EINVAL;
}

/* Replace zeroes by their defaults and check everything. */
static int chm_params_complete(struct chm_params *p)
{
	if (!p->max_load)
		p->max_load = 80;
	if (!p->growth)
		p->growth = 140;
	if (!chm_sizes_valid(p) || !chm_lay_out_slot(p))
		return -EINVAL;
	if (p->max_load < 25 || p->max_load > 95 ||
	    p->growth < 110 || p->growth > 400)
		return -EINVAL;
	if (p->max_entries && p->min_entries > p->max_entries)
		return -EINVAL;
	if (p->reclaim != CHM_DEFERRED && p->reclaim != CHM_SYNC)
		return -EINVAL;
	return chm_check_class(p);
}

/* For messages. */
static const char *chm_name(const struct chm *map)
{
	return map->debugfs ? map->debugfs->name : "without a name";
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

static unsigned long chm_nr_dead(const struct chm_table *t)
{
	return t->dead[0] + t->dead[1];
}

/* Fewest chunks that hold @entries pairs at maximum load. */
static u64 chm_chunks_for(const struct chm_params *p, u64 entries)
{
	u64 slots;

	if (entries > CHM_MAX_CHUNKS * CHM_SLOTS)
		return U64_MAX;
	slots = div_u64(entries * 100 + p->max_load - 1, p->max_load);
	return max_t(u64, div_u64(slots + CHM_SLOTS - 1, CHM_SLOTS), 1);
}

/* Of what it migrates? */
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
	return nr_chunks * chm_stride(p->slot_size);
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

static u64 chm_table_bytes(const struct chm_params *p, u64 nr_chunks)
{
	u64 bytes = sizeof(struct chm_table) + chm_chunks_bytes(p, nr_chunks) +
		    chm_bitmap_longs(nr_chunks) * sizeof(long);

	if (chm_takes_snapshots(p))
		bytes += sizeof(struct chm_snapshots);
	/* Chunks begin at cache lines: kmalloc() aligns only such sizes. */
	if (bytes < PAGE_SIZE)
		return roundup_pow_of_two((unsigned long)bytes);
	return bytes;
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

/* What was copied from @t, and nothing is to be merged of; NULL: nothing. */
static struct chm_snapshot *chm_spent(const struct chm_table *t)
{
	return chm_takes_snapshots(t->p) ? chm_snapshots(t)->spent : NULL;
}

/* What of a slot is noted: the value of a cell, or the whole pair. */
static u32 chm_noted_offset(const struct chm_params *p)
{
	return p->class == CHM_CELL ? p->value_offset : 0;
}

static u32 chm_noted_size(const struct chm_params *p)
{
	return p->class == CHM_CELL ? p->value_size : p->slot_size;
}

/* What was copied from slot number @nr. */
static void *chm_noted(struct chm_snapshot *s, const struct chm_params *p,
		       unsigned long nr)
{
	return s->copies + nr * chm_noted_size(p);
}

/*
 * Of a table, and of what is to be freed with it.  What is there for debugging
 * alone does not count: no writer shall wait because of it.
 */
static size_t chm_bytes(const struct chm_table *t)
{
	size_t bytes = chm_table_bytes(t->p, t->nr_chunks);

	if (t->p->class == CHM_CELL && chm_spent(t))
		bytes += chm_spent(t)->bytes;
	return bytes;
}

/* Slots stay as the allocator left them: only FULL ones are ever read. */
static void chm_table_init(struct chm_table *t, const struct chm_params *p,
			   u32 nr_chunks)
{
	u32 i;

	memset(t, 0, sizeof(*t));
	t->nr_chunks = nr_chunks;
	t->stride = chm_stride(p->slot_size);
	t->slots_offset = chm_slots_offset(p->slot_size);
	t->p = p;
	t->max_entries = max_t(u64, 1, div_u64((u64)chm_nr_slots(t) *
					       p->max_load, 100));
	memset(chm_dead_chunks(t), 0, chm_bitmap_longs(nr_chunks) * sizeof(long));
	if (chm_takes_snapshots(p))
		*chm_snapshots(t) = (struct chm_snapshots) { };
	for (i = 0; i < nr_chunks; i++) {
		__chm_chunk(t, i, p)->ctrl = 0;
		if (!(i % CHM_RANGE))
			cond_resched();
	}
}

/*
 * For a table that the caller can do without: rather none than a process killed
 * for memory, or much of it reclaimed.
 */
static gfp_t chm_optional(gfp_t gfp)
{
	return (gfp & ~__GFP_NOFAIL) | __GFP_NORETRY;
}

/* For a table, or what goes with it.  A place for tests to take part. */
VISIBLE_IF_KUNIT void *chm_alloc(u64 bytes, gfp_t gfp)
{
	void *p = NULL;

	KUNIT_STATIC_STUB_REDIRECT(chm_alloc, bytes, gfp);
	if (bytes > LONG_MAX)
		return ERR_PTR(-E2BIG);
	/* kvmalloc() refuses and warns beyond INT_MAX. */
	if (bytes <= INT_MAX)
		p = kvmalloc(bytes, gfp | __GFP_NOWARN);
	/* In older kernels it has no second way for those that must not reclaim. */
	if (!p && (bytes > INT_MAX || !gfpflags_allow_blocking(gfp)))
		p = __vmalloc(bytes, gfp | __GFP_NOWARN);
	return p ?: ERR_PTR(-ENOMEM);
}

#if IS_ENABLED(CONFIG_KUNIT)
EXPORT_SYMBOL_GPL(chm_alloc);
#endif

static struct chm_table *chm_table_alloc(const struct chm_params *p,
					 u64 nr_chunks, gfp_t gfp)
{
	struct chm_table *t;

	if (nr_chunks > CHM_MAX_CHUNKS)
		return ERR_PTR(-E2BIG);
	t = chm_alloc(chm_table_bytes(p, nr_chunks), gfp);
	if (!IS_ERR(t))
		chm_table_init(t, p, nr_chunks);
	return t;
}

/* Of what is noted of a table of @nr_chunks. */
static u64 chm_snapshot_bytes(const struct chm_params *p, u32 nr_chunks)
{
	return sizeof(struct chm_snapshot) +
	       (u64)nr_chunks * CHM_SLOTS * chm_noted_size(p);
}

/* Have @fresh keep room for what it gets from a table of @nr_chunks. */
static int chm_snapshot_alloc(struct chm_table *fresh, u32 nr_chunks, gfp_t gfp)
{
	u64 bytes = chm_snapshot_bytes(fresh->p, nr_chunks);
	struct chm_snapshot *s = chm_alloc(bytes, gfp);

	if (IS_ERR(s))
		return PTR_ERR(s);
	s->from = NULL;
	s->bytes = bytes;
	s->merged = 0;
	chm_snapshots(fresh)->pending = s;
	return 0;
}

static void chm_snapshots_free(struct chm_table *t)
{
	kvfree(chm_snapshots(t)->pending);
	kvfree(chm_snapshots(t)->spent);
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

const void *chm_lookup(struct chm *map, const void *key)
{
	return __chm_lookup(map, key, NULL);
}
EXPORT_SYMBOL_GPL(chm_lookup);

bool chm_get(struct chm *map, const void *key, void *value)
{
	return __chm_get(map, key, value, NULL);
}
EXPORT_SYMBOL_GPL(chm_get);

unsigned int chm_lookup_many(struct chm *map, const void *keys, unsigned int n,
			     const void **values)
{
	return __chm_lookup_many(map, keys, n, values, NULL);
}
EXPORT_SYMBOL_GPL(chm_lookup_many);

/* === Cells =============================================================== */

/*
 * While a writer moves cells to another table, updates go to the old table or to
 * the new one, depending on which the updater found.  The new cell began with
 * the snapshot of the old one, so all updates together have come to
 *
 *	new + (old - snapshot)		until the writer has added that difference,
 *	new				from then on.
 *
 * The writer does so after a grace period, when the old cell is final (O9), and
 * says how far it is in one word, so that chm_cell_read() can tell which of the
 * two it has read, from when the table is published until nothing is pending.
 * The old table and the snapshot stay for another grace period.
 *
 * A reader that found the old table still has no use for the new cell: what went
 * there has not ended before the reader began, which would have found the new
 * table then.  And the writer keeps the map's mutex from the snapshot until
 * all is merged: nothing else replaces, removes or moves a cell meanwhile.
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

/* Was word @nr still as chm_is_merged() found it when it was read? */
static bool chm_still_unmerged(const struct chm_snapshot *s, unsigned long nr)
{
	/*
	 * O10: the cells before the mark.  Pairs with chm_merge_begin(): who saw
	 * the sum sees that it had begun, and does not add the same once more.
	 */
	smp_rmb();
	return READ_ONCE(s->merged) <= 2 * nr;
}

/* What all updates of one word have come to. */
static unsigned long chm_sum_word(const struct chm_snapshot *s, unsigned long nr,
				  const atomic_long_t *now,
				  const atomic_long_t *old, unsigned long copied)
{
	while (!chm_is_merged(s, nr)) {
		unsigned long sum = atomic_long_read(now) +
				    atomic_long_read(old) - copied;

		if (chm_still_unmerged(s, nr))
			return sum;
	}
	return atomic_long_read(now);
}

/* The number of the slot that @value of @t is in. */
static unsigned long chm_slot_number(const struct chm_table *t,
				     const void *value)
{
	size_t at = value - (const void *)(t + 1) - t->p->value_offset;

	return at / t->stride * CHM_SLOTS +
	       (at % t->stride - t->slots_offset) / t->p->slot_size;
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
						 copied[i]);

		memcpy(value + i * sizeof(long), &sum, sizeof(sum));
	}
}

/* As chm_sum_words(), where merge() knows what to do, here with a copy. */
static void chm_sum_merged(struct chm_snapshot *s, const struct chm_params *p,
			   const void *now, const void *old, void *value)
{
	unsigned long slot = chm_slot_number(s->from, old);

	while (!chm_is_merged(s, slot)) {
		__chm_copy_cell(value, now, p);
		p->merge(value, old, chm_noted(s, p, slot));
		if (chm_still_unmerged(s, slot))
			return;
	}
	__chm_copy_cell(value, now, p);
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
		old = __chm_lookup_hashed(s->from, key,
					  __chm_hash(s->from, key, p), p);
	/* What the old table lacks came after the merging. */
	if (!old)
		__chm_copy_cell(value, now, p);
	else if (p->merge)
		chm_sum_merged(s, p, now, old, value);
	else
		chm_sum_words(s, p, now, old, value);
}

static const void *chm_find_cell(const struct chm_table *t, const void *key)
{
	/* Whoever wrote to another value would break what its readers rely on. */
	if (!t || WARN_ON_ONCE(t->p->class != CHM_CELL))
		return NULL;
	return __chm_lookup_hashed(t, key, __chm_hash(t, key, t->p), t->p);
}

void *chm_cell_lookup(struct chm *map, const void *key)
{
	return (void *)chm_find_cell(__chm_table_rcu(map), key);
}
EXPORT_SYMBOL_GPL(chm_cell_lookup);

bool chm_cell_read(struct chm *map, const void *key, void *value)
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

/* Does a walk have to look at this chunk?  A pair is there, or passed it. */
static bool chm_occupies(unsigned long ctrl)
{
	return ctrl & (CHM_TAGS_HIGH | CHM_OVERFLOW);
}

static void chm_set_bit(unsigned long *bitmap, u32 bit)
{
	unsigned long *word = &bitmap[bit / BITS_PER_LONG];

	/* Pairs with READ_ONCE() in chm_next_bit() and chm_next_occupied(). */
	WRITE_ONCE(*word, *word | BIT_MASK(bit));
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
	chm_set_bit(chm_occupied(t), chunk);
	chm_set_bit(chm_occupied_words(t), chunk / BITS_PER_LONG);
}

static void chm_vacate(struct chm_table *t, u32 chunk)
{
	if (chm_clear_bit(chm_occupied(t), chunk))
		chm_clear_bit(chm_occupied_words(t), chunk / BITS_PER_LONG);
}

/* A place for tests to look at a table as readers may see it. */
VISIBLE_IF_KUNIT void chm_stored(const struct chm_table *t)
{
	KUNIT_STATIC_STUB_REDIRECT(chm_stored, t);
}

#if IS_ENABLED(CONFIG_KUNIT)
EXPORT_SYMBOL_GPL(chm_stored);
#endif

/*
 * The only store to a control word that readers can see: release, always.  The
 * word carries all tags of the chunk, and a store of any other kind would publish
 * the neighbours' slots without ordering their bytes.
 */
static void chm_set_ctrl(struct chm_table *t, u32 chunk, struct chm_chunk *c,
			 unsigned long ctrl)
{
	bool was_occupied = chm_occupies(c->ctrl);

	ASSERT_EXCLUSIVE_WRITER(c->ctrl);
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

/* Where @key is. */
static __always_inline bool chm_find(const struct chm_table *t,
				     const void *key, u64 hash,
				     const struct chm_params *p,
				     struct chm_place *at)
{
	chm_home_place(t, hash, p, at);
	if (chm_find_in(t, key, hash, p, at))
		return true;
	if (likely(!chm_overflows(at->c->ctrl, hash)))
		return false;
	return chm_find_beyond(t, key, hash, p, at);
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

/* The first EMPTY slot on the probe path. */
static __always_inline bool chm_find_empty(const struct chm_table *t, u64 hash,
					   const struct chm_params *p,
					   struct chm_place *at)
{
	chm_home_place(t, hash, p, at);
	if (likely(chm_find_empty_in(at)))
		return true;
	return chm_find_empty_beyond(t, p, at);
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
 * As far as DEAD slots may drive pairs from home before something is done about
 * it.  In a large table that is further, since a fresh one costs more.  Not less
 * than twice what is usual here, if the hash is bad.
 */
static u32 chm_reach(const struct chm_table *t)
{
	return max(clamp(t->nr_chunks / 128, CHM_REACH_MIN, CHM_REACH_MAX),
		   2 * t->built_longest);
}

/* A pair is about to pass the chunks at distance @from to @to - 1. */
static void chm_raise_overflow(struct chm_table *t, u64 hash, u32 from, u32 to,
			       const struct chm_params *p)
{
	u32 n = t->nr_chunks;
	u32 chunk;

	if (from == to)
		return;
	chunk = chm_nth_chunk(chm_home(hash, n), from, n);
	for (; from < to; from++) {
		struct chm_chunk *c = __chm_chunk(t, chunk, p);

		if (!chm_overflows(c->ctrl, hash))
			chm_set_ctrl(t, chunk, c,
				     c->ctrl | chm_overflow_bit(hash));
		chunk = chm_next_chunk(chunk, n);
	}
}

/*
 * Of the pairs in chunk @chunk, @at chunks behind some home, that need the bit
 * of @hash where they passed: the first chunk behind that home that one passed.
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
 * A pair at @distance from home died: clear the bits that only it needed.  Others
 * that need one lie behind that chunk, and set the bit all the way to theirs.  So
 * go to where it ends, but no further than any pair has gone, and come back with
 * the first chunk that was passed.
 *
 * Return: false if the end is far.  Then nothing is cleared: bits too many cost
 * lookups time, but do no harm, and the search must not take long.
 */
static bool chm_lower_overflow(struct chm_table *t, u64 hash, u32 distance,
			       const struct chm_params *p)
{
	u32 n = t->nr_chunks;
	u32 chunk = chm_nth_chunk(chm_home(hash, n), distance, n);
	s64 last = min((s64)distance + n - 2, (s64)distance + t->longest);
	s64 far = (s64)distance + CHM_LOWER_LIMIT;
	s64 at = distance;
	s64 from = S64_MAX;

	if (!distance)
		return true;
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
		if (at <= distance && from >= at)
			chm_set_ctrl(t, chunk, c,
				     c->ctrl & ~chm_overflow_bit(hash));
	}
	return true;
}

/* Small pairs, which are most, are copied faster by words than by memcpy(). */
static void chm_copy_bytes(void *to, const void *from, u32 len)
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

static void chm_write_slot(void *slot, const void *key, const void *value,
			   const struct chm_params *p)
{
	chm_copy_bytes(slot, key, p->key_size);
	/* See CHM_ZEROES. */
	if (value)
		chm_copy_bytes(slot + p->value_offset, value, p->value_size);
	else
		memset(slot + p->value_offset, 0, p->value_size);
}

/* Make the pair in @at, whose slot is written, visible. */
static void chm_publish_slot(struct chm_table *t, u64 hash, u32 passed_from,
			     const struct chm_place *at,
			     const struct chm_params *p)
{
	/*
	 * O2: first the filters on the way, then the tag.  Pairs with
	 * __chm_search_home() and chm_probe().  Otherwise a reader that finds a
	 * later pair could miss this one: hit, then miss.
	 */
	chm_raise_overflow(t, hash, passed_from, at->distance, p);
	/* O1: the slot was written before; see chm_set_ctrl(). */
	chm_set_ctrl(t, at->chunk, at->c,
		     chm_tag_set(at->c->ctrl, at->slot, chm_tag(hash)));
	t->longest = max(t->longest, at->distance + 1);
}

static unsigned long chm_dead_tag(const struct chm_table *t, bool taken)
{
	return CHM_TAG_DEAD | (t->dead_gen ? CHM_TAG_DEAD_GEN : 0) |
	       (taken ? CHM_TAG_DEAD_TAKEN : 0);
}

/* The pair in @at dies: readers may look at it for a grace period more. */
static void chm_kill_slot(struct chm_table *t, const struct chm_place *at,
			  bool taken)
{
	chm_set_ctrl(t, at->chunk, at->c,
		     chm_tag_set(at->c->ctrl, at->slot, chm_dead_tag(t, taken)));
}

static void chm_drop_slots(const struct chm_table *t,
			   const struct chm_chunk *c, unsigned long mask)
{
	const struct chm_params *p = t->p;
	u32 slot;

	if (!p->drop)
		return;
	chm_for_each_match(slot, mask) {
		void *key = __chm_slot(t, c, slot, p);

		p->drop(key, key + p->value_offset);
	}
}

/* === Reclaim ============================================================= */

/*
 * Removed slots wait for a grace period as DEAD slots of one of two
 * generations.  Removals join @dead_gen; the other generation is sealed: its
 * cookie was taken after its last DEAD store.  When that has elapsed its slots
 * become EMPTY and the generations change places.  A bitmap says which chunks
 * have DEAD slots, so that sweeping costs by their number.
 */

/* The DEAD slots of generation @gen become EMPTY; their grace period is over. */
static void chm_sweep(struct chm *map, struct chm_table *t, unsigned int gen)
{
	const struct chm_params *p = &map->p;
	unsigned long chunk;

	if (!t->dead[gen])
		return;
	for_each_set_bit(chunk, chm_dead_chunks(t), t->nr_chunks) {
		struct chm_chunk *c = __chm_chunk(t, chunk, p);
		unsigned long mask = chm_match_dead_gen(c->ctrl, gen);

		if (!mask)
			continue;
		chm_drop_slots(t, c, mask & chm_match_droppable(c->ctrl));
		chm_set_ctrl(t, chunk, c, chm_tags_clear(c->ctrl, mask));
		if (!chm_match_dead(c->ctrl))
			__clear_bit(chunk, chm_dead_chunks(t));
		cond_resched();
	}
	t->dead[gen] = 0;
}

/*
 * Sweep what has elapsed, seal what has not begun to wait.  Return: whether DEAD
 * slots became EMPTY.
 */
static bool chm_advance(struct chm *map, struct chm_table *t)
{
	unsigned int sealed = !t->dead_gen;
	bool swept = t->dead[sealed];

	lockdep_assert_held(&map->lock);
	if (swept) {
		/*
		 * O5: nobody looks at the slots of this generation any more.
		 * Pairs with the end of the RCU section of whoever saw them
		 * FULL; without it a reader would see another pair's bytes.
		 */
		if (!poll_state_synchronize_rcu(t->cookie))
			return false;
		chm_sweep(map, t, sealed);
	}
	if (t->dead[!sealed]) {
		/*
		 * O5: the cookie comes after the last DEAD store it covers.  Pairs
		 * with the end of the sections of readers who saw FULL before it.
		 */
		t->cookie = start_poll_synchronize_rcu();
		t->dead_gen = sealed;
	}
	return swept;
}

/* Poll when DEAD slots are many enough to matter. */
static void chm_poll(struct chm *map, struct chm_table *t)
{
	if (chm_nr_dead(t) > chm_nr_slots(t) / 16)
		chm_advance(map, t);
}

/* Have chm_reclaim_work() run after a grace period, if it isn't due anyway. */
static void chm_schedule_reclaim(struct chm *map)
{
	if (!map->dying)
		queue_rcu_work(system_dfl_wq, &map->reclaim);
}

/* The slot at @at, of the active table, was just turned DEAD. */
static void chm_note_dead(struct chm *map, struct chm_table *t,
			  const struct chm_place *at)
{
	t->dead[t->dead_gen]++;
	__set_bit(at->chunk, chm_dead_chunks(t));
	if (!t->dead[!t->dead_gen]) {
		chm_advance(map, t);
		chm_schedule_reclaim(map);
	}
}

/* Free a table that no reader can see, with the pairs that are still its. */
static void chm_free_table(const struct chm_params *p, struct chm_table *t)
{
	u32 i;

	for (i = 0; p->drop && i < t->nr_chunks; i++) {
		struct chm_chunk *c = __chm_chunk(t, i, p);

		chm_drop_slots(t, c, chm_match_droppable(c->ctrl));
		if (t->owns_full)
			chm_drop_slots(t, c, chm_match_full(c->ctrl));
		if (!(i % CHM_RANGE))
			cond_resched();
	}
	if (chm_takes_snapshots(p))
		chm_snapshots_free(t);
	kvfree(t);
}

/* --- What readers changed --- */

/* Readers wrote to the pair at @now, which was as @then when it was copied. */
static void chm_report_changed(const struct chm *map, const void *now,
			       const void *then)
{
	const struct chm_params *p = &map->p;
	bool in_key = !p->value_size || memcmp(now, then, p->key_size);
	const u8 *is = now + (in_key ? 0 : p->value_offset);
	const u8 *was = then + (in_key ? 0 : p->value_offset);
	u32 end = in_key ? p->key_size : p->value_size;
	u32 first = 0;

	/* Whoever writes to it may still do so, and take the change back. */
	while (first < end - 1 && is[first] == was[first])
		first++;
	end = min(end, first + 16);
	while (end - 1 > first && is[end - 1] == was[end - 1])
		end--;
	WARN(1, "chm: map %s (%p), key %*phN: byte %u of the %s was %*ph when it was copied and became %*ph.  This is lost: use CHM_CELL or a pointer.\n",
	     chm_name(map), map,
	     min(p->key_size, 64U), then, first, in_key ? "key" : "value",
	     end - first, was + first, end - first, is + first);
}

static bool chm_changed(const struct chm_params *p, const void *now,
			const void *then)
{
	return memcmp(now, then, p->key_size) ||
	       memcmp(now + p->value_offset, then + p->value_offset,
		      p->value_size);
}

/*
 * Its grace period is over, so @t is final: is each pair what was copied?  Cells
 * were merged instead.  The first pair is reported, the others are counted.
 */
static void chm_check_frozen(struct chm *map, const struct chm_table *t)
{
	const struct chm_params *p = &map->p;
	struct chm_snapshot *s = chm_spent(t);
	u32 i;

	if (!s || p->class == CHM_CELL)
		return;
	for (i = 0; i < t->nr_chunks; i++) {
		struct chm_chunk *c = __chm_chunk(t, i, p);
		unsigned long mask = chm_match_full(c->ctrl);
		u32 slot;

		chm_for_each_match(slot, mask) {
			void *now = __chm_slot(t, c, slot, p);
			void *then = chm_noted(s, p, (unsigned long)i *
					       CHM_SLOTS + slot);

			if (chm_changed(p, now, then) && !map->events.changed++)
				chm_report_changed(map, now, then);
		}
		if (!(i % chm_range(t)))
			cond_resched();
	}
}

/* Free retired tables, oldest first; those that must wait only if @all. */
static void chm_free_retired(struct chm *map, bool all)
{
	struct chm_table *t, *next;

	lockdep_assert_held(&map->lock);
	list_for_each_entry_safe(t, next, &map->retired, retired) {
		/* O7: pairs with the end of the readers' sections. */
		if (!all && !poll_state_synchronize_rcu(t->cookie))
			break;
		list_del(&t->retired);
		map->retired_bytes -= chm_bytes(t);
		chm_check_frozen(map, t);
		chm_free_table(&map->p, t);
	}
}

/* The map's mutex is held: writers block one another. */
static void chm_wait_for_readers(struct chm *map)
{
	lockdep_assert_held(&map->lock);
	trace_chm_wait(map, map->retired_bytes);
	/* O5, O7, O9: pairs with the end of the readers' sections. */
	synchronize_rcu();
	map->events.gp_waits++;
}

/*
 * Wait until no reader sees what was removed or retired so far, and reclaim
 * it.
 */
static void chm_wait(struct chm *map)
{
	struct chm_table *t = chm_table(map);

	chm_wait_for_readers(map);
	chm_free_retired(map, true);
	if (t) {
		chm_sweep(map, t, 0);
		chm_sweep(map, t, 1);
	}
}

/*
 * What retired tables may take before a writer waits for their readers: as much
 * as the active one would, with a snapshot if it is one of cells.
 */
static size_t chm_retired_budget(const struct chm *map)
{
	const struct chm_table *t = chm_table(map);
	size_t bytes = t ? chm_bytes(t) : 0;

	if (t && t->p->class == CHM_CELL)
		bytes += chm_snapshot_bytes(t->p, t->nr_chunks);
	return max_t(size_t, bytes, CHM_RETIRED_MIN);
}

/* A single one may be larger: it is there while somebody waits, too. */
static bool chm_retired_too_much(const struct chm *map)
{
	if (map->p.reclaim == CHM_SYNC)
		return !list_empty(&map->retired);
	return map->retired_bytes > chm_retired_budget(map) &&
	       !list_is_singular(&map->retired);
}

/* Hand over a table that was just replaced (G10). */
static void chm_retire(struct chm *map, struct chm_table *t)
{
	lockdep_assert_held(&map->lock);
	t->owns_full |= map->p.class == CHM_CLONE;
	/*
	 * O7: the cookie comes after the table was unpublished.  Pairs with the end
	 * of the sections of readers who found it before.
	 */
	t->cookie = start_poll_synchronize_rcu();
	chm_free_retired(map, false);
	list_add_tail(&t->retired, &map->retired);
	map->retired_bytes += chm_bytes(t);
	if (chm_retired_too_much(map))
		chm_wait(map);
	else
		chm_schedule_reclaim(map);
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

static u64 chm_square(u32 distance)
{
	return (u64)distance * distance;
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
	t->built_writes = map->writes;
}

/*
 * Is @t worn, so much that copying all pairs is worth it?  While much is going on,
 * only when so much was written that copying is a small part of the work.
 */
static bool chm_worn(const struct chm *map, const struct chm_table *t, bool calm)
{
	unsigned long writes = map->writes - t->built_writes;
	u64 most = div_u64(chm_spread_expected(t, map->entries) *
			   t->built_spread, 16);

	if (t->unlowered > t->nr_chunks / 4 && (calm || writes > t->nr_chunks))
		return true;
	if (calm && t->strayed)
		return true;
	if (t->spread <= most + most / 4)
		return false;
	return calm || writes > 4UL * t->nr_chunks;
}

/* === Growth ============================================================== */

/* All of a pair, bitwise; of a cell, each word as it is at some moment. */
static void chm_copy_bitwise(const struct chm_params *p, void *to,
			     const void *from)
{
	if (p->class == CHM_CELL) {
		chm_copy_bytes(to, from, p->key_size);
		__chm_copy_cell(to + p->value_offset, from + p->value_offset, p);
		return;
	}
	/*
	 * Have KCSAN report whoever writes to a pair in a table, be it with
	 * an atomic: what comes after this copy is lost.
	 */
	__kcsan_check_access(from, p->slot_size, KCSAN_ACCESS_ASSERT);
	chm_copy_bytes(to, from, p->slot_size);
}

/*
 * A second copy of the pair at @from, bitwise or by clone().
 * @noted: Receives what of the slot a snapshot keeps; NULL: none is taken.
 */
static int chm_copy_pair(const struct chm_params *p, void *to, void *from,
			 void *noted, gfp_t gfp)
{
	int ret;

	chm_copy_bitwise(p, to, from);
	if (noted)
		memcpy(noted, to + chm_noted_offset(p), chm_noted_size(p));
	if (p->class != CHM_CLONE)
		return 0;
	ret = p->clone(to, to + p->value_offset, from,
		       from + p->value_offset, gfp);
	/* -EAGAIN means another thing here, and so would a positive number. */
	return ret > 0 || ret == -EAGAIN ? -ENOMEM : ret;
}

/* Copy one pair into @to, which is private: no order is needed yet (O6). */
static int chm_migrate_pair(const struct chm_params *p, struct chm_table *to,
			    void *pair, void *noted, gfp_t gfp)
{
	u64 hash = __chm_hash(to, pair, p);
	struct chm_place at;
	int ret;

	if (WARN_ON_ONCE(!chm_find_empty(to, hash, p, &at)))
		return -EUCLEAN;
	ret = chm_copy_pair(p, chm_place_slot(to, &at), pair, noted, gfp);
	if (ret)
		return ret;
	if (unlikely(!chm_occupies(at.c->ctrl)))
		chm_occupy(to, at.chunk);
	at.c->ctrl = chm_tag_set(at.c->ctrl, at.slot, chm_tag(hash));
	if (unlikely(at.distance)) {
		chm_raise_overflow(to, hash, 0, at.distance, p);
		to->displaced++;
		to->spread += chm_square(at.distance);
		to->longest = max(to->longest, at.distance + 1);
	}
	return 0;
}

/* Copy the pairs of chunks @begin to @end - 1 into @to. */
static int chm_migrate_range(const struct chm_params *p, struct chm_table *to,
			     const struct chm_table *from, u32 begin, u32 end,
			     gfp_t gfp)
{
	struct chm_snapshot *s = chm_pending(to);

	for (; begin < end; begin++) {
		struct chm_chunk *c = __chm_chunk(from, begin, p);
		unsigned long nr = (unsigned long)begin * CHM_SLOTS;
		unsigned long mask = chm_match_full(c->ctrl);
		u32 slot;

		chm_for_each_match(slot, mask) {
			void *noted = s ? chm_noted(s, p, nr + slot) : NULL;
			void *pair = __chm_slot(from, c, slot, p);
			int ret = chm_migrate_pair(p, to, pair, noted, gfp);

			if (ret)
				return ret;
		}
	}
	return 0;
}

static int chm_migrate(struct chm *map, struct chm_table *to,
		       const struct chm_table *from, gfp_t gfp)
{
	u64 start = ktime_get_ns();
	u32 begin, end;

	/* For the pairs that come to lie at home. */
	to->longest = !!map->entries;
	for (begin = 0; begin < from->nr_chunks; begin = end) {
		int ret;

		end = min(begin + chm_range(from), from->nr_chunks);
		ret = chm_migrate_range(&map->p, to, from, begin, end, gfp);
		if (ret)
			return ret;
		cond_resched();
	}
	map->events.migrated = map->entries;
	map->events.migrated_ns = ktime_get_ns() - start;
	return 0;
}

static void chm_count_migration(struct chm *map, u32 from, u32 to)
{
	if (to > from)
		map->events.grows++;
	else if (to < from)
		map->events.shrinks++;
	else
		map->events.rehashes++;
	trace_chm_migrate(map, from, to, map->entries,
			  map->events.migrated_ns);
}

/*
 * Word @nr of the snapshot is about to be merged; for maps with merge(), all
 * words of slot @nr.  Before, @merged is less; while it is being, 2 * @nr + 1;
 * from then on, more.  Words without a difference are passed over: it makes
 * none whether they are taken for merged.  Return: what chm_merge_end() takes.
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

/* Bring what was done to the value of @pair since it was copied into @to. */
static void chm_merge_pair(struct chm_snapshot *s, unsigned long slot,
			   const struct chm_table *to, const void *pair)
{
	const struct chm_params *p = to->p;
	const void *copied = chm_noted(s, p, slot);
	const void *now = pair + p->value_offset;
	u32 words = p->value_size / sizeof(long);
	struct chm_place at;
	unsigned long flags;
	void *value;

	if (!memcmp(now, copied, p->value_size))
		return;
	if (WARN_ON_ONCE(!chm_find(to, pair, __chm_hash(to, pair, p), p, &at)))
		return;
	value = chm_place_slot(to, &at) + p->value_offset;
	if (!p->merge) {
		chm_merge_words(s, slot * words, words, value, now, copied);
		return;
	}
	flags = chm_merge_begin(s, slot);
	p->merge(value, now, copied);
	chm_merge_end(s, slot, flags);
}

/* All pairs of the table that @s is of, in its order. */
static void chm_merge_pairs(struct chm_snapshot *s, const struct chm_table *to)
{
	const struct chm_table *from = s->from;
	u32 i;

	for (i = 0; i < from->nr_chunks; i++) {
		struct chm_chunk *c = __chm_chunk(from, i, from->p);
		unsigned long nr = (unsigned long)i * CHM_SLOTS;
		unsigned long mask = chm_match_full(c->ctrl);
		u32 slot;

		chm_for_each_match(slot, mask)
			chm_merge_pair(s, nr + slot, to,
				       __chm_slot(from, c, slot, from->p));
		if (!(i % chm_range(from)))
			cond_resched();
	}
}

/*
 * @to was just published: add to its cells what readers have added, since the
 * snapshot, to those of the table before it.
 */
static void chm_merge(struct chm *map, struct chm_table *to)
{
	/*
	 * O9: the old cells are final: whoever found them has ended.  Pairs with
	 * __chm_cell_add_to().  Without this an update that is still to come would
	 * be lost.
	 */
	chm_wait_for_readers(map);
	chm_merge_pairs(chm_pending(to), to);
}

/* Merge what was noted while @to was built, if it is for that, and put it away. */
static void chm_end_snapshot(struct chm *map, struct chm_table *to)
{
	struct chm_snapshot *s = chm_pending(to);

	if (!s)
		return;
	if (map->p.class == CHM_CELL)
		chm_merge(map, to);
	/*
	 * O10: release: who sees nothing pending sees all of it merged.  Pairs
	 * with chm_sum_cell().  Readers may have seen @s before: it goes with
	 * the old table, whose cookie is taken after this (O7).
	 */
	smp_store_release(&chm_snapshots(to)->pending, NULL);
	chm_snapshots(s->from)->spent = s;
	map->events.snapshot_bytes = s->bytes;
}

/* Make @fresh, complete, the active table; NULL: none.  Retire the old one. */
static void chm_publish(struct chm *map, struct chm_table *fresh)
{
	struct chm_table *old = chm_table(map);

	/* Pairs with READ_ONCE() in chm_resize(), which lacks the lock. */
	WRITE_ONCE(map->epoch, map->epoch + 1);
	if (fresh) {
		memcpy(map->seed, fresh->seed, sizeof(map->seed));
		map->use_siphash = fresh->use_siphash;
		fresh->id = map->epoch;
		fresh->roomy = old && old->roomy &&
			       old->nr_chunks == fresh->nr_chunks;
		chm_note_built(map, fresh);
	}
	/*
	 * O6: pairs with __chm_table_rcu().  O9: readers that find old cells
	 * began before the grace period that chm_merge() waits for.  Pairs with
	 * __chm_cell_add_to().
	 */
	rcu_assign_pointer(map->tbl, fresh);
	if (!old)
		return;
	if (!fresh)
		map->events.migrated_ns = 0;
	chm_count_migration(map, old->nr_chunks, fresh ? fresh->nr_chunks : 0);
	if (fresh)
		chm_end_snapshot(map, fresh);
	chm_retire(map, old);
}

/*
 * Move every pair to @fresh and publish it: steps 3 to 6 of a growth.  On
 * failure @fresh is still the caller's and the map is as it was.
 */
static int chm_replace_table(struct chm *map, struct chm_table *fresh,
			     gfp_t gfp)
{
	struct chm_table *old = chm_table(map);
	int ret;

	lockdep_assert_held(&map->lock);
	if (max(map->entries, map->reserved) > fresh->max_entries)
		return -EAGAIN;
	if (old) {
		if (chm_pending(fresh))
			chm_pending(fresh)->from = old;
		ret = chm_migrate(map, fresh, old, gfp);
		if (ret) {
			/* clone() made pairs that nobody has seen. */
			fresh->owns_full = map->p.class == CHM_CLONE;
			return ret;
		}
	}
	chm_publish(map, fresh);
	return 0;
}

/* Does chm choose the hash? */
static bool chm_may_siphash(const struct chm *map)
{
	return !map->p.hash && !map->p.equal;
}

/*
 * Hash seed of @fresh.  For a map without pairs it is always a new one: those that
 * come may do so in the order of the old one, as a walk has shown them, and pile
 * up in the first chunks of a table that grows with them.
 */
static int chm_seed_table(struct chm *map, struct chm_table *fresh,
			  enum chm_seeding seeding)
{
	if (seeding == CHM_SAME_SEED && map->entries) {
		memcpy(fresh->seed, map->seed, sizeof(fresh->seed));
		fresh->use_siphash = map->use_siphash;
		return 0;
	}
	/* Another seed is another order of hashes, and walks rely on that. */
	if (map->walks && map->entries)
		return -EBUSY;
	get_random_bytes(fresh->seed, sizeof(fresh->seed));
	fresh->use_siphash = seeding == CHM_NEW_SIPHASH && chm_may_siphash(map);
	map->hash_is_bad &= !!map->entries;
	return 0;
}

static int chm_fill_table(struct chm *map, struct chm_table *fresh,
			  enum chm_seeding seeding, gfp_t gfp)
{
	int ret = chm_seed_table(map, fresh, seeding);

	if (!ret)
		ret = chm_replace_table(map, fresh, gfp);
	if (ret) {
		chm_free_table(&map->p, fresh);
		return ret;
	}
	map->events.reseeds += seeding != CHM_SAME_SEED;
	return 0;
}

/* A table of @nr_chunks, to replace one of @old_chunks; 0: none. */
static struct chm_table *chm_build_table(const struct chm *map, u64 nr_chunks,
					 u32 old_chunks, gfp_t gfp)
{
	struct chm_table *fresh = chm_table_alloc(&map->p, nr_chunks, gfp);
	int ret;

	if (IS_ERR(fresh) || !chm_takes_snapshots(&map->p) || !old_chunks)
		return fresh;
	ret = chm_snapshot_alloc(fresh, old_chunks, gfp);
	if (!ret)
		return fresh;
	chm_free_table(&map->p, fresh);
	return ERR_PTR(ret);
}

/*
 * One table is built at a time, so that writers who find the map full do not all
 * look for memory.  But the one who does may be in reclaim, and wait for what the
 * caller holds, if that has to pass less than GFP_KERNEL or is in reclaim itself.
 */
static bool chm_lock_resize(struct chm *map, gfp_t gfp)
{
	if ((current_gfp_context(gfp) & GFP_KERNEL) != GFP_KERNEL ||
	    current->flags & PF_MEMALLOC)
		return mutex_trylock(&map->resize_lock);
	mutex_lock(&map->resize_lock);
	return true;
}

/*
 * Another table came while @fresh was made, to replace one of @old_chunks.  Does
 * it still lead where it was to?  Thrown away each time, a table that takes long
 * would never come where somebody else publishes small ones all the time.
 */
static bool chm_still_wanted(const struct chm *map,
			     const struct chm_table *fresh, u32 old_chunks)
{
	const struct chm_table *t = chm_table(map);

	/* The map became empty, and its table was freed: so be it. */
	if (!t)
		return false;
	/* The snapshot has no room for more slots. */
	if (chm_takes_snapshots(&map->p) && t->nr_chunks > old_chunks)
		return false;
	if (fresh->nr_chunks > old_chunks)
		return fresh->nr_chunks > t->nr_chunks;
	return fresh->nr_chunks < min(old_chunks, t->nr_chunks);
}

/*
 * A table of @nr_chunks, to replace one of @old_chunks, can't be had.  Has another
 * writer's led there, so that the caller may do without?  Where others publish
 * tables which don't, the caller must not try for ever.
 */
static bool chm_outdone(const struct chm *map, u64 nr_chunks, u32 old_chunks)
{
	const struct chm_table *t = chm_table(map);

	if (!t)
		return false;
	if (nr_chunks > old_chunks)
		return t->nr_chunks > old_chunks;
	return t->nr_chunks < old_chunks;
}

/*
 * Build a table of @nr_chunks and move to it.  Drops and retakes map->lock, so
 * that memory is not allocated under it.  Returns -EAGAIN, with nothing done, if
 * the new table has no room, or another writer replaced the old one meanwhile
 * and this one is not wanted any more, or can't be had but the other one may do.
 */
static int chm_resize(struct chm *map, u64 nr_chunks, enum chm_seeding seeding,
		      gfp_t gfp)
{
	const struct chm_table *old = chm_table(map);
	u32 old_chunks = old ? old->nr_chunks : 0;
	unsigned long epoch = map->epoch;
	struct chm_table *fresh = NULL;
	bool locked, outrun;
	int ret = -EAGAIN;

	lockdep_assert_held(&map->lock);
	mutex_unlock(&map->lock);
	locked = chm_lock_resize(map, gfp);
	if (READ_ONCE(map->epoch) == epoch)
		fresh = chm_build_table(map, nr_chunks, old_chunks, gfp);
	mutex_lock(&map->lock);
	outrun = map->epoch != epoch;
	if (IS_ERR(fresh)) {
		ret = PTR_ERR(fresh);
		map->events.failed_allocs += ret == -ENOMEM;
	} else if (fresh && (map->dying || (outrun &&
		   !chm_still_wanted(map, fresh, old_chunks)))) {
		chm_free_table(&map->p, fresh);
	} else if (fresh) {
		ret = chm_fill_table(map, fresh, seeding, gfp);
	}
	if (locked)
		mutex_unlock(&map->resize_lock);
	if (ret && ret != -EAGAIN && chm_outdone(map, nr_chunks, old_chunks))
		return -EAGAIN;
	return ret;
}

/* The least number of chunks for @entries pairs and all that was promised. */
static u64 chm_chunks_needed(const struct chm *map, unsigned long entries)
{
	return chm_chunks_for(&map->p, max3(entries, map->reserved,
					    map->p.min_entries));
}

static u64 chm_chunks_grown(const struct chm *map, const struct chm_table *t)
{
	u64 grown = div_u64((u64)t->nr_chunks * map->p.growth + 99, 100);

	return max(min(grown, CHM_MAX_CHUNKS),
		   chm_chunks_needed(map, map->entries + 1));
}

/* Is there room for one pair more, DEAD slots aside? */
static bool chm_full(const struct chm *map, const struct chm_table *t)
{
	return map->entries >= t->max_entries;
}

/*
 * One pair more needs a larger table.  If memory is short, one that is a little
 * larger will do, too.
 */
static int chm_grow(struct chm *map, gfp_t gfp)
{
	unsigned long failed = map->events.failed_allocs;
	struct chm_table *t = chm_table(map);

	if (t) {
		int ret = chm_resize(map, chm_chunks_grown(map, t),
				     CHM_SAME_SEED, chm_optional(gfp));

		if (ret != -ENOMEM || map->events.failed_allocs == failed)
			return ret;
	}
	return chm_resize(map, chm_chunks_needed(map, map->entries +
						 map->entries / 16 + 1),
			  CHM_SAME_SEED, gfp);
}

/*
 * Chunks that make room for the DEAD slots of about two grace periods at the rate
 * they come, but not more than twice what the pairs need or 1 MiB.
 */
static u64 chm_chunks_roomy(const struct chm *map, const struct chm_table *t)
{
	u64 needed = chm_chunks_needed(map, map->entries + 1);
	u64 roomy = chm_chunks_for(&map->p, map->entries +
				   2 * chm_nr_dead(t) + 1);
	u64 most = max(2 * needed, div_u64(CHM_RETIRED_MIN,
					   chm_stride(map->p.slot_size)));

	return max(needed, min(roomy, most));
}

/*
 * To get rid of the DEAD slots of @t: would it take a grace period, or as much time,
 * to replace it?
 */
static bool chm_replacing_waits(const struct chm *map,
				const struct chm_table *t)
{
	return map->p.class == CHM_CELL || map->p.reclaim == CHM_SYNC ||
	       chm_bytes(t) > CHM_LARGE ||
	       map->retired_bytes + chm_bytes(t) > chm_retired_budget(map);
}

/*
 * DEAD slots are in the way of a writer, or have been: sweep those whose readers
 * have gone, or leave them behind in an old table, or wait for their readers.
 * Without any, a pair that is to be replaced lies so far from home that no slot
 * behind it will do: a fresh table helps, or else one further out.
 */
static int chm_clear_way(struct chm *map, enum chm_need need, gfp_t gfp)
{
	struct chm_table *t = chm_table(map);
	bool dead = chm_nr_dead(t), empty = need == CHM_NEED_EMPTY;
	u64 chunks = empty ? chm_chunks_roomy(map, t) : t->nr_chunks;
	int ret = -ENOMEM;

	if (chm_advance(map, t))
		return 0;
	if (empty || !dead || !chm_replacing_waits(map, t))
		ret = chm_resize(map, chunks, CHM_SAME_SEED,
				 empty && !dead ? gfp : chm_optional(gfp));
	if (!ret)
		chm_table(map)->roomy |= empty && dead;
	if (!ret || ret == -EAGAIN)
		return 0;
	t = chm_table(map);
	if (t && chm_nr_dead(t)) {
		chm_wait(map);
		return 0;
	}
	if (!empty)
		return 1;
	return dead ? 0 : ret;
}

/*
 * A writer found no usable slot.  Return: 0 to try again, 1 to make do with any slot,
 * -ENOMEM, -E2BIG or what clone() returned.
 */
static int chm_make_room(struct chm *map, enum chm_need need, gfp_t gfp)
{
	struct chm_table *t;
	int ret;

	if (need != CHM_NEED_SLOTS)
		return chm_clear_way(map, need, gfp);
	ret = chm_grow(map, gfp);
	if (ret == -EAGAIN)
		return 0;
	t = chm_table(map);
	/* While memory was looked for, others may have removed pairs. */
	return ret && t && !chm_full(map, t) ? 0 : ret;
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
 * The longest probe path that is no reason for suspicion.  A path through a quarter
 * of the table is one, but for small tables: full ones have such paths.
 */
static u32 chm_probe_limit(const struct chm *map, const struct chm_table *t)
{
	u64 percent = div64_ul(100ULL * map->entries, chm_nr_slots(t));

	return min(chm_probe_limit_at(percent),
		   max(CHM_PROBE_LIMIT, t->nr_chunks / 4));
}

/* A fresh seed did not help, and there is no other hash to turn to. */
static void chm_give_hash_up(struct chm *map)
{
	map->hash_is_bad = true;
	if (map->p.hash)
		pr_warn_ratelimited("map %s: slow, because %ps() gives too many keys the same hash.  It must return at least 32 bits that depend on the whole key.\n",
				    chm_name(map), map->p.hash);
	else
		pr_warn_ratelimited("map %s: slow, because too many keys have the same hash\n",
				    chm_name(map));
}

/*
 * Take a fresh seed; and SipHash if that does not help, or did not help for long:
 * then the keys were chosen to collide.
 */
static int chm_reseed(struct chm *map, gfp_t gfp)
{
	bool again = map->events.reseeds &&
		     map->writes - map->reseeded <= map->entries / 4 + 256;
	enum chm_seeding seeding = again ? CHM_NEW_SIPHASH : CHM_NEW_SEED;

	for (; seeding <= CHM_NEW_SIPHASH; seeding++) {
		const struct chm_table *t = chm_table(map);
		int ret = chm_resize(map, t->nr_chunks, seeding, gfp);

		if (ret)
			return ret;
		map->reseeded = map->writes;
		t = chm_table(map);
		if (t->longest <= chm_probe_limit(map, t))
			return 0;
		if (!chm_may_siphash(map))
			break;
	}
	chm_give_hash_up(map);
	return 0;
}

/*
 * A pair was inserted that is due @due chunks from home.  If that is too far, take
 * a fresh seed.  This copies all pairs: not again before long paths have cost about
 * as much, to writers and readers.  If it can't be done, a try costs less.
 */
static void chm_defend(struct chm *map, u32 due, gfp_t gfp)
{
	if (due <= chm_probe_limit(map, chm_table(map)) || map->walks ||
	    map->hash_is_bad)
		return;
	map->far += due;
	if (map->far < map->far_enough)
		return;
	map->far = 0;
	map->far_enough = (u64)CHM_DEFEND_AGAIN * due;
	if (!chm_reseed(map, chm_optional(gfp)))
		map->far_enough = map->entries / 8;
}

/* --- Tidying up --- */

/* Chunks for the pairs and some more, as after a growth. */
static u64 chm_chunks_ample(const struct chm *map)
{
	u64 ample = div_u64((u64)map->entries * map->p.growth, 100);

	return max(chm_chunks_needed(map, map->entries),
		   chm_chunks_for(&map->p, ample));
}

/*
 * How large the table should be: smaller, if it is far too large for the pairs, or
 * DEAD slots have made it too large and there are none any more; the same, if it is
 * worn; 0: it may stay.
 */
static u64 chm_chunks_tidy(const struct chm *map, const struct chm_table *t)
{
	unsigned long used = map->entries + 2 * chm_nr_dead(t);
	u64 ample = chm_chunks_ample(map);
	bool calm = !chm_nr_dead(t);

	if (calm && t->roomy && t->nr_chunks > ample)
		return ample;
	if (used < chm_nr_slots(t) / 8 && t->nr_chunks >= 2 * ample)
		return ample;
	return chm_worn(map, t, calm) ? t->nr_chunks : 0;
}

/* Without any reclaim: who destroys the map, and waits, may hold any lock. */
#define CHM_TIDY_GFP	(GFP_NOWAIT | __GFP_NOWARN)

/* Not if the table would take most of the memory that is left. */
static bool chm_can_afford(const struct chm *map, u64 chunks)
{
	u64 pages = chm_table_bytes(&map->p, chunks) >> PAGE_SHIFT;

	return (s64)pages <= si_mem_available() / 2;
}

/*
 * Give back what the map does not need any more, and undo wear.  Return: whether
 * there is something to do that has to wait.
 */
static bool chm_tidy(struct chm *map)
{
	const struct chm_table *t = chm_table(map);
	u64 chunks, start, now;
	bool again;

	if (!t || map->dying)
		return false;
	if (!map->entries && !map->reserved && !map->p.min_entries &&
	    !chm_nr_dead(t)) {
		chm_publish(map, NULL);
		return false;
	}
	chunks = chm_chunks_tidy(map, t);
	if (!chunks)
		return false;
	start = ktime_get_ns();
	if (start < map->tidy_from)
		return true;
	again = !chm_can_afford(map, chunks) ||
		chm_resize(map, chunks, CHM_SAME_SEED, CHM_TIDY_GFP);
	/* A hundredth of the time at most, all waiting and all failures included. */
	now = ktime_get_ns();
	map->tidy_from = now + 100 * (now - start) + (again ? NSEC_PER_SEC : 0);
	return again;
}

static void chm_reclaim_work(struct work_struct *work)
{
	struct chm *map = container_of(to_rcu_work(work), struct chm, reclaim);
	struct chm_table *t;
	bool again;

	mutex_lock(&map->lock);
	t = chm_table(map);
	if (t)
		chm_advance(map, t);
	chm_free_retired(map, false);
	again = chm_tidy(map);
	t = chm_table(map);
	if (again || !list_empty(&map->retired) || (t && chm_nr_dead(t)))
		chm_schedule_reclaim(map);
	mutex_unlock(&map->lock);
}

/* Maps need not agree on what may be held around chm_destroy(). */
static void chm_init_reclaim(struct chm *map, struct lock_class_key *key)
{
	INIT_RCU_WORK(&map->reclaim, chm_reclaim_work);
	lockdep_init_map(&map->reclaim.work.lockdep_map, "chm->reclaim", key, 0);
}

/* Check what DEFINE_CHM() declared, and set up the work item, once. */
static int chm_start(struct chm *map)
{
	int ret;

	lockdep_assert_held(&map->lock);
	if (likely(map->started))
		return 0;
	if (map->declared) {
		struct chm_params p = *map->declared;

		ret = chm_params_complete(&p);
		if (ret)
			return ret;
		map->p = p;
		/* As for a static mutex, the address is the lock class. */
		chm_init_reclaim(map, (void *)&map->reclaim);
	}
	map->started = true;
	return 0;
}

/* === Update ============================================================== */

/* Writers may sleep, and wait for readers: inside of one they never end. */
static void chm_assert_writer(void)
{
	might_sleep();
#ifdef CONFIG_PROVE_RCU
	RCU_LOCKDEP_WARN(lock_is_held(&rcu_lock_map),
			 "chm: writer inside rcu_read_lock()");
#endif
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
 * Do DEAD slots fill the table so far beyond its maximum load that one more
 * pair would lie, and send readers, too far from home?
 */
static bool chm_crowded(const struct chm *map, const struct chm_table *t)
{
	unsigned long spare = chm_nr_slots(t) - t->max_entries;
	unsigned long dead = chm_nr_dead(t);

	return dead && map->entries + dead >= t->max_entries + (spare + 3) / 4;
}

/*
 * May a new pair lie at @distance?  Not where only DEAD slots have driven it so far,
 * or replacing has: it would stay there for no reason.
 */
static bool chm_may_stray(struct chm *map, struct chm_table *t, u64 hash,
			  u32 distance, unsigned int how)
{
	u32 due;

	if (likely(distance <= CHM_STRAYED))
		return true;
	due = chm_due(t, hash, distance, &map->p);
	if (distance > max(chm_reach(t), 2 * due) && !(how & CHM_ANYWHERE))
		return false;
	t->strayed |= distance > max3(CHM_STRAYED, 2 * due,
				      2 * t->built_longest);
	map->due = due;
	return true;
}

static int chm_insert_absent(struct chm *map, struct chm_table *t, u64 hash,
			     const void *key, const void *value,
			     unsigned int how, enum chm_need *need)
{
	const struct chm_params *p = &map->p;
	struct chm_place at;

	if (p->max_entries && map->entries >= p->max_entries)
		return -E2BIG;
	*need = CHM_NEED_SLOTS;
	if (chm_full(map, t))
		return -EAGAIN;
	*need = CHM_NEED_EMPTY;
	if (chm_crowded(map, t) || !chm_find_empty(t, hash, p, &at))
		return -EAGAIN;
	*need = CHM_NEED_NEARER;
	if (!chm_may_stray(map, t, hash, at.distance, how))
		return -EAGAIN;
	chm_write_slot(chm_place_slot(t, &at), key, value, p);
	chm_publish_slot(t, hash, 0, &at, p);
	t->displaced += !!at.distance;
	t->spread += chm_square(at.distance);
	chm_add_entries(map, 1);
	return 1;
}

/* The new pair goes into the chunk of the old one: one store switches. */
static void chm_replace_within(struct chm *map, struct chm_table *t, u64 hash,
			       const struct chm_place *at,
			       const void *key, const void *value)
{
	unsigned long ctrl = at->c->ctrl;
	u32 slot = chm_first(chm_match_empty(ctrl));

	chm_write_slot(__chm_slot(t, at->c, slot, &map->p), key, value, &map->p);
	ctrl = chm_tag_set(ctrl, at->slot, chm_dead_tag(t, false));
	ctrl = chm_tag_set(ctrl, slot, chm_tag(hash));
	/* O1: see chm_set_ctrl(); and readers see exactly one of the two. */
	chm_set_ctrl(t, at->chunk, at->c, ctrl);
	chm_note_dead(map, t, at);
}

/*
 * The new pair goes further along the path, never back: a reader on its way
 * would miss both.  It takes over the old pair's bits in the overflow filters
 * from home to @at and sets its own from there.
 */
static int chm_replace_beyond(struct chm *map, struct chm_table *t, u64 hash,
			      const struct chm_place *at,
			      const void *key, const void *value,
			      unsigned int how, enum chm_need *need)
{
	struct chm_place to = *at;

	*need = CHM_NEED_EMPTY;
	if (!chm_find_empty_beyond(t, &map->p, &to))
		return -EAGAIN;
	*need = CHM_NEED_NEARER;
	if (!chm_may_stray(map, t, hash, to.distance, how))
		return -EAGAIN;
	chm_write_slot(chm_place_slot(t, &to), key, value, &map->p);
	chm_publish_slot(t, hash, at->distance, &to, &map->p);
	/*
	 * O3: the new pair is visible before the old one dies.  Pairs with
	 * chm_probe().  O4: in between readers see both.  Pairs with
	 * chm_look_back() and chm_home_unchanged().
	 */
	chm_kill_slot(t, at, false);
	t->displaced += !at->distance;
	t->spread += chm_square(to.distance) - chm_square(at->distance);
	chm_note_dead(map, t, at);
	return 0;
}

/*
 * Exchange a CHM_CELL value in place.  Not by stores: an atomic operation may
 * consist of a load and a store under a lock that only others like it take.
 */
static int chm_replace_cell(atomic_long_t *cell, const void *value,
			    const struct chm_params *p)
{
	u32 i;

	if (p->merge)
		return -EOPNOTSUPP;
	for (i = 0; i < p->value_size / sizeof(long); i++) {
		long word;

		memcpy(&word, value + i * sizeof(word), sizeof(word));
		atomic_long_xchg(&cell[i], word);
	}
	return 0;
}

static int chm_replace_present(struct chm *map, struct chm_table *t, u64 hash,
			       const struct chm_place *at,
			       const void *key, const void *value,
			       unsigned int how, enum chm_need *need)
{
	const struct chm_params *p = &map->p;

	if (p->class == CHM_WORD) {
		chm_store_word(chm_place_slot(t, at) + p->value_offset, value,
			       p->value_size);
		return 0;
	}
	if (p->class == CHM_CELL)
		return chm_replace_cell(chm_place_slot(t, at) + p->value_offset,
					value, p);
	*need = CHM_NEED_EMPTY;
	if (chm_crowded(map, t))
		return -EAGAIN;
	if (!chm_match_empty(at->c->ctrl))
		return chm_replace_beyond(map, t, hash, at, key, value, how,
					  need);
	chm_replace_within(map, t, hash, at, key, value);
	return 0;
}

/* Return: 1 inserted, 0 replaced; -EAGAIN if that takes what @need says. */
static int chm_try_store(struct chm *map, const void *key, const void *value,
			 unsigned int how, enum chm_need *need)
{
	struct chm_table *t = chm_table(map);
	struct chm_place at;
	u64 hash;

	lockdep_assert_held(&map->lock);
	*need = CHM_NEED_SLOTS;
	if (!t)
		return how & CHM_CREATE ? -EAGAIN : -ENOENT;
	chm_poll(map, t);
	map->due = 0;
	hash = __chm_hash(t, key, &map->p);
	/* One insertion in ten goes on to the next chunk: have it come along. */
	prefetch((void *)__chm_home_chunk(t, hash, &map->p) + t->stride);
	if (chm_find(t, key, hash, &map->p, &at)) {
		if (!(how & CHM_UPDATE))
			return -EEXIST;
		return chm_replace_present(map, t, hash, &at, key, value, how,
					   need);
	}
	if (!(how & CHM_CREATE))
		return -ENOENT;
	return chm_insert_absent(map, t, hash, key, value, how, need);
}

static int chm_store_locked(struct chm *map, const void *key,
			    const void *value, unsigned int how, gfp_t gfp)
{
	int ret = chm_start(map);
	enum chm_need need;

	if (!ret && !value && map->p.value_size && !(how & CHM_ZEROES))
		ret = -EINVAL;
	while (!ret) {
		ret = chm_try_store(map, key, value, how, &need);
		if (ret != -EAGAIN)
			break;
		ret = chm_make_room(map, need, gfp);
		if (ret > 0) {
			how |= CHM_ANYWHERE;
			ret = 0;
		}
	}
	return ret;
}

static int chm_store(struct chm *map, const void *key, const void *value,
		     unsigned int how, gfp_t gfp)
{
	int ret;

	chm_assert_writer();
	mutex_lock(&map->lock);
	ret = chm_store_locked(map, key, value, how, gfp);
	if (ret >= 0)
		map->writes++;
	/* Without memory lookups stay slow, but nothing is lost. */
	if (ret > 0 && unlikely(map->due))
		chm_defend(map, map->due, gfp);
	mutex_unlock(&map->lock);
	return ret;
}

int chm_insert(struct chm *map, const void *key, const void *value, gfp_t gfp)
{
	int ret = chm_store(map, key, value, CHM_CREATE, gfp);

	return ret > 0 ? 0 : ret;
}
EXPORT_SYMBOL_GPL(chm_insert);

int chm_replace(struct chm *map, const void *key, const void *value, gfp_t gfp)
{
	return chm_store(map, key, value, CHM_UPDATE, gfp);
}
EXPORT_SYMBOL_GPL(chm_replace);

int chm_upsert(struct chm *map, const void *key, const void *value, gfp_t gfp)
{
	return chm_store(map, key, value, CHM_CREATE | CHM_UPDATE, gfp);
}
EXPORT_SYMBOL_GPL(chm_upsert);

/* May a zeroed value be inserted and its word @i be added to? */
static int chm_check_add(struct chm *map, unsigned int i)
{
	int ret;

	mutex_lock(&map->lock);
	ret = chm_start(map);
	if (!ret && !__chm_cell_has(&map->p, i))
		ret = -EINVAL;
	mutex_unlock(&map->lock);
	return ret;
}

int chm_cell_upsert_add(struct chm *map, const void *key, unsigned int i,
			long n, gfp_t gfp)
{
	int inserted = 0;
	int ret;

	chm_assert_writer();
	/* Again if somebody inserts or removes the key in between. */
	while ((ret = chm_cell_add(map, key, i, n)) == -ENOENT) {
		ret = chm_check_add(map, i) ?:
		      chm_store(map, key, NULL, CHM_CREATE | CHM_ZEROES, gfp);
		if (ret < 0 && ret != -EEXIST)
			return ret;
		inserted |= ret > 0;
	}
	return ret ?: inserted;
}
EXPORT_SYMBOL_GPL(chm_cell_upsert_add);

/* Remove @key; @take: its value goes to @value and not to drop(). */
static int chm_erase(struct chm *map, const void *key, bool take, void *value)
{
	struct chm_table *t = chm_table(map);
	const struct chm_params *p = &map->p;
	struct chm_place at;
	const void *taken;
	u64 hash;

	lockdep_assert_held(&map->lock);
	if (!t)
		return -ENOENT;
	chm_poll(map, t);
	hash = __chm_hash(t, key, p);
	if (!chm_find(t, key, hash, p, &at))
		return -ENOENT;
	taken = chm_place_slot(t, &at) + p->value_offset;
	if (take && p->class != CHM_CELL)
		memcpy(value, taken, p->value_size);
	chm_kill_slot(t, &at, take);
	t->displaced -= !!at.distance;
	/* Bits that stay cost as if the pair did. */
	if (chm_lower_overflow(t, hash, at.distance, p))
		t->spread -= chm_square(at.distance);
	else
		t->unlowered += at.distance;
	chm_add_entries(map, -1);
	map->writes++;
	chm_note_dead(map, t, &at);
	if (take && p->class == CHM_CELL) {
		/*
		 * O9: readers that found it may still update it.  Pairs with
		 * __chm_cell_add_to().  The slot is EMPTY then, but nobody writes
		 * to it before the unlock.
		 */
		chm_wait(map);
		memcpy(value, taken, p->value_size);
	}
	return 0;
}

int chm_remove(struct chm *map, const void *key)
{
	int ret;

	chm_assert_writer();
	mutex_lock(&map->lock);
	ret = chm_erase(map, key, false, NULL);
	mutex_unlock(&map->lock);
	return ret;
}
EXPORT_SYMBOL_GPL(chm_remove);

int chm_take(struct chm *map, const void *key, void *value)
{
	int ret;

	chm_assert_writer();
	mutex_lock(&map->lock);
	ret = chm_erase(map, key, true, value);
	mutex_unlock(&map->lock);
	return ret;
}
EXPORT_SYMBOL_GPL(chm_take);

/* Every FULL slot of @c becomes DEAD; nothing passes it any more. */
static void chm_clear_chunk(struct chm_table *t, u32 chunk,
			    const struct chm_params *p)
{
	struct chm_chunk *c = __chm_chunk(t, chunk, p);
	unsigned long full = chm_match_full(c->ctrl);
	unsigned long ctrl = c->ctrl & ~CHM_OVERFLOW;

	if (full) {
		t->dead[t->dead_gen] += hweight_long(full);
		__set_bit(chunk, chm_dead_chunks(t));
	}
	ctrl = chm_tags_clear(ctrl, full) |
	       (full >> 7) * chm_dead_tag(t, false);
	if (ctrl != c->ctrl)
		chm_set_ctrl(t, chunk, c, ctrl);
}

void chm_clear(struct chm *map)
{
	struct chm_table *t;
	u32 i;

	chm_assert_writer();
	mutex_lock(&map->lock);
	t = chm_table(map);
	for (i = 0; t && i < t->nr_chunks; i++) {
		chm_clear_chunk(t, i, &map->p);
		if (!(i % CHM_RANGE))
			cond_resched();
	}
	if (t) {
		chm_add_entries(map, -map->entries);
		t->displaced = 0;
		t->spread = 0;
		t->strayed = false;
		t->unlowered = 0;
		t->longest = 0;
		chm_advance(map, t);
		chm_schedule_reclaim(map);
	}
	mutex_unlock(&map->lock);
}
EXPORT_SYMBOL_GPL(chm_clear);

static int chm_reserve_locked(struct chm *map, unsigned long n, gfp_t gfp)
{
	int ret = chm_start(map);

	if (!ret && map->p.max_entries && n > map->p.max_entries)
		ret = -E2BIG;
	while (!ret) {
		struct chm_table *t = chm_table(map);

		if (!n || (t && n <= t->max_entries)) {
			if (t && n < map->reserved)
				chm_schedule_reclaim(map);
			map->reserved = n;
			map->promises++;
			break;
		}
		ret = chm_resize(map, chm_chunks_needed(map,
							max(n, map->entries)),
				 CHM_SAME_SEED, gfp);
		if (ret == -EAGAIN)
			ret = 0;
	}
	return ret;
}

int chm_reserve(struct chm *map, unsigned long n, gfp_t gfp)
{
	int ret;

	chm_assert_writer();
	mutex_lock(&map->lock);
	ret = chm_reserve_locked(map, n, gfp);
	mutex_unlock(&map->lock);
	return ret;
}
EXPORT_SYMBOL_GPL(chm_reserve);

static int chm_shrink_locked(struct chm *map, gfp_t gfp)
{
	int ret = -EAGAIN;

	while (ret == -EAGAIN) {
		struct chm_table *t = chm_table(map);
		/* Another writer may reserve while the lock is dropped. */
		unsigned long kept = max(map->entries, map->reserved);
		u64 fit;

		/* Never used, perhaps: then map->p is not complete either. */
		if (!t)
			return 0;
		fit = chm_chunks_for(&map->p, max(kept, map->p.min_entries));
		if (kept && fit >= t->nr_chunks)
			return 0;
		if (!kept) {
			chm_publish(map, NULL);
			return 0;
		}
		ret = chm_resize(map, fit, CHM_SAME_SEED, chm_optional(gfp));
	}
	return ret;
}

int chm_shrink(struct chm *map, gfp_t gfp)
{
	const struct chm_table *t;
	unsigned long reserved, promise;
	int ret;

	chm_assert_writer();
	mutex_lock(&map->lock);
	reserved = map->reserved;
	map->reserved = 0;
	promise = ++map->promises;
	ret = chm_shrink_locked(map, gfp);
	t = chm_table(map);
	/* As it was, unless others have made or ended a promise meanwhile. */
	if (ret && map->promises == promise && t && reserved <= t->max_entries)
		map->reserved = reserved;
	mutex_unlock(&map->lock);
	return ret;
}
EXPORT_SYMBOL_GPL(chm_shrink);

/* === Iterate ============================================================= */

/*
 * A walk visits home chunks in order and, of the pairs of one home, the one
 * with the least (hash, fingerprint) behind the last.  That order depends on
 * the keys and the seed alone, so the cursor is good in any table and after
 * any sleep; and a pair that is visible twice, while it is being replaced, has
 * one place in it.
 */

/* Another SipHash than chm_siphash(): two keys agree in both never. */
static u64 chm_fingerprint(const struct chm_table *t, const void *key, u32 len)
{
	const siphash_key_t k = { .key = { t->seed[1], ~t->seed[0] } };

	return siphash(key, len, &k);
}

/* Compare (@hash, fingerprint of @key) with @than, as memcmp() does. */
static int chm_compare(const struct chm_table *t, const struct chm_params *p,
		       u64 hash, const void *key, const struct chm_cursor *than)
{
	u64 fingerprint;

	if (hash != than->hash)
		return hash < than->hash ? -1 : 1;
	fingerprint = chm_fingerprint(t, key, p->key_size);
	if (fingerprint != than->fingerprint)
		return fingerprint < than->fingerprint ? -1 : 1;
	return 0;
}

/* Where the search for the next pair of a walk stands. */
struct chm_scan {
	u32			table;		/* which one; see @started */
	bool			started;
	bool			found;		/* @best was found in this section */
	u32			home;		/* of the pairs that are looked for */
	u32			distance;	/* chunks behind it seen so far */
	unsigned long		common;		/* overflow bits they all have */
	struct chm_cursor	best;		/* first of them behind the cursor */
	const void		*pair;		/* if @found */
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
static void chm_scan_from(struct chm_scan *s, const struct chm_table *t,
			  u32 home)
{
	*s = (struct chm_scan) {
		.table = t->id, .started = true, .common = CHM_OVERFLOW,
		.home = chm_next_occupied(t, home),
	};
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

/* Is the pair, of hash @hash, next: behind @after and before @s->best? */
static bool chm_scan_pair(struct chm_scan *s, const struct chm_table *t,
			  const struct chm_params *p, const void *pair,
			  const struct chm_cursor *after)
{
	u64 hash = __chm_hash(t, pair, p);

	if (chm_home(hash, t->nr_chunks) != s->home)
		return false;
	if (after->started && chm_compare(t, p, hash, pair, after) <= 0)
		return false;
	/* A pair and its replacement: the first is as a lookup has it. */
	if (s->best.started && chm_compare(t, p, hash, pair, &s->best) >= 0)
		return false;
	s->best.hash = hash;
	s->best.fingerprint = chm_fingerprint(t, pair, p->key_size);
	s->best.seed = t->seed[0];
	s->best.started = true;
	s->found = true;
	s->pair = pair;
	return true;
}

/*
 * Look at one more chunk for pairs of @s->home.  They are found as a lookup finds
 * them, so that none is missed which is present meanwhile (G2).  Return: whether
 * there may be more further on.
 */
static bool chm_scan_chunk(struct chm_scan *s, const struct chm_table *t,
			   const struct chm_params *p,
			   const struct chm_cursor *after)
{
	u32 chunk = chm_nth_chunk(s->home, s->distance, t->nr_chunks);
	const struct chm_chunk *c = __chm_chunk(t, chunk, p);
	/* O1, O2, O3: pairs with chm_set_ctrl(), as in chm_probe(). */
	unsigned long ctrl = smp_load_acquire(&c->ctrl);
	unsigned long mask = chm_match_full(ctrl);
	u32 slot;

	/* Who is here and not at home has a bit in all chunks before. */
	if (s->distance)
		mask = chm_match_overflow(mask, ctrl, s->common);
	chm_for_each_match(slot, mask)
		chm_scan_pair(s, t, p, __chm_slot(t, c, slot, p), after);
	s->common &= ctrl;
	return ++s->distance < t->nr_chunks && s->common;
}

/*
 * The home where a walk goes on.  Behind a whole home stands a cursor with the
 * last fingerprint: the next hash may be the next home's.
 */
static u32 chm_cursor_home(const struct chm_table *t,
			   const struct chm_cursor *cursor)
{
	u64 hash = cursor->hash;

	if (!cursor->started)
		return 0;
	if (cursor->fingerprint == U64_MAX && hash != U64_MAX)
		hash++;
	return chm_home(hash, t->nr_chunks);
}

/* Have @cursor stand behind everything before @home, if it does not yet. */
static void chm_cursor_skip(const struct chm_table *t,
			    struct chm_cursor *cursor, u32 home)
{
	if (home <= chm_cursor_home(t, cursor))
		return;
	cursor->hash = chm_home_begin(home, t->nr_chunks) - 1;
	cursor->fingerprint = U64_MAX;
	cursor->seed = t->seed[0];
	cursor->started = true;
}

/*
 * Search up to @chunks of @t for the pair behind @cursor.  Return: whether @s->best
 * is that; if not, it takes more chunks, or the walk has ended.
 */
static bool chm_scan(struct chm_scan *s, const struct chm_table *t,
		     const struct chm_params *p, struct chm_cursor *cursor,
		     u32 chunks)
{
	if (!s->started || s->table != t->id)
		chm_scan_from(s, t, chm_cursor_home(t, cursor));
	s->found = false;
	for (; chunks; chunks--) {
		if (s->home == t->nr_chunks) {
			cursor->ended = true;
			return false;
		}
		if (chm_scan_chunk(s, t, p, cursor))
			continue;
		if (s->best.started)
			return true;
		chm_scan_from(s, t, s->home + 1);
	}
	/* What was seen need not be seen again in another table. */
	chm_cursor_skip(t, cursor, s->home);
	return false;
}

/*
 * One read-side section of a walk: at most CHM_SECTION chunks.  The best pair is
 * copied out when it is found, since it may be gone in the next section.
 */
static bool chm_walk_section(const struct chm_table *t,
			     struct chm_cursor *cursor, struct chm_scan *s,
			     void *key, void *value)
{
	const struct chm_params *p = t->p;
	bool done = chm_scan(s, t, p, cursor, CHM_SECTION);

	if (s->found && key)
		memcpy(key, s->pair, p->key_size);
	if (s->found && value)
		__chm_copy_value(value, s->pair + p->value_offset, p);
	if (!done)
		return false;
	*cursor = s->best;
	s->started = false;
	return true;
}

void chm_iter_init(struct chm_iter *it, struct chm *map)
{
	chm_assert_writer();
	*it = (struct chm_iter) { .map = map };
	/* Under the lock: a reseed that has begun must not see no walk. */
	mutex_lock(&map->lock);
	map->walks++;
	mutex_unlock(&map->lock);
}
EXPORT_SYMBOL_GPL(chm_iter_init);

/* Has the map changed its seed, and with it the order of its pairs? */
static bool chm_cursor_stale(const struct chm_table *t,
			     const struct chm_cursor *cursor)
{
	return cursor->started && cursor->seed != t->seed[0];
}

bool chm_iter_next(struct chm_iter *it, void *key, void *value)
{
	struct chm_scan s = { };
	bool found = false;

	while (!found && !it->cursor.ended) {
		const struct chm_table *t;

		rcu_read_lock();
		t = __chm_table_rcu(it->map);
		/*
		 * A walk keeps the map from changing its seed, but for when
		 * there is no pair: no key has been present throughout.
		 */
		if (!t || chm_cursor_stale(t, &it->cursor))
			it->cursor.ended = true;
		else
			found = chm_walk_section(t, &it->cursor, &s, key, value);
		rcu_read_unlock();
	}
	return found;
}
EXPORT_SYMBOL_GPL(chm_iter_next);

void chm_iter_exit(struct chm_iter *it)
{
	struct chm *map = it->map;

	chm_assert_writer();
	mutex_lock(&map->lock);
	map->walks--;
	mutex_unlock(&map->lock);
	it->cursor.ended = true;
}
EXPORT_SYMBOL_GPL(chm_iter_exit);

bool chm_pos_next(struct chm_pos *pos)
{
	const struct chm_table *t = pos->tbl;
	struct chm_scan s = { };

	while (t && !pos->cursor.ended) {
		if (!chm_scan(&s, t, t->p, &pos->cursor, U32_MAX))
			continue;
		pos->cursor = s.best;
		pos->key = s.pair;
		pos->value = s.pair + t->p->value_offset;
		return true;
	}
	return false;
}
EXPORT_SYMBOL_GPL(chm_pos_next);

bool chm_pos_first(struct chm_pos *pos, struct chm *map)
{
	*pos = (struct chm_pos) { .tbl = __chm_table_rcu(map) };
	return chm_pos_next(pos);
}
EXPORT_SYMBOL_GPL(chm_pos_first);

void chm_stats(struct chm *map, struct chm_stats *s)
{
	const struct chm_table *t;

	chm_assert_writer();
	mutex_lock(&map->lock);
	t = chm_table(map);
	*s = map->events;
	s->entries = map->entries;
	s->retired_bytes = map->retired_bytes;
	s->walks = map->walks;
	if (t) {
		s->chunks = t->nr_chunks;
		s->slots = chm_nr_slots(t);
		s->bytes = chm_bytes(t);
		s->displaced = t->displaced;
		s->longest_probe = t->longest;
		s->dead = chm_nr_dead(t);
	}
	mutex_unlock(&map->lock);
}
EXPORT_SYMBOL_GPL(chm_stats);

/* === Verify ============================================================== */

struct chm_check {
	const struct chm	*map;
	const struct chm_table	*t;
	unsigned long		*overflow;	/* what each chunk's should be */
	unsigned long		full;
	unsigned long		dead[2];
	unsigned long		displaced;
	u64			spread;
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
	const struct chm_chunk *c = __chm_chunk(t, chunk, &check->map->p);
	u32 i = chunk / BITS_PER_LONG;

	if (chm_bit_set(chm_occupied(t), chunk) != chm_occupies(c->ctrl) ||
	    chm_bit_set(chm_occupied_words(t), i) != !!chm_occupied(t)[i])
		chm_complain(check, "chunk %u: ctrl %#lx, occupied %#lx",
			     chunk, c->ctrl, chm_occupied(t)[i]);
}

/* Tags, the DEAD slots and the bitmaps of one chunk. */
static void chm_check_chunk(struct chm_check *check, u32 chunk)
{
	const struct chm_chunk *c = __chm_chunk(check->t, chunk, &check->map->p);
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
	const struct chm_params *p = &check->map->p;
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

/* The tag of a pair, where it lies, and whom it passed on its way. */
static void chm_check_pair(struct chm_check *check, u32 chunk, u32 slot)
{
	const struct chm_params *p = &check->map->p;
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
	check->spread += chm_square(chm_distance(home, chunk, n));
	for (i = home; i != chunk; i = chm_next_chunk(i, n))
		check->overflow[i] |= chm_overflow_bit(hash);
	chm_check_unique(check, home, hash, pair);
}

/* No bit too few, and none too many unless chm_lower_overflow() gave up. */
static void chm_check_overflow(struct chm_check *check, u32 chunk)
{
	const struct chm_chunk *c = __chm_chunk(check->t, chunk, &check->map->p);
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

	if (check->full != check->map->entries || check->full > t->max_entries)
		chm_complain(check, "%lu pairs, counted %lu, at most %lu",
			     check->full, check->map->entries, t->max_entries);
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

/* Whoever replaced a table has merged all cells before it let go of the lock. */
static void chm_check_cells(struct chm_check *check)
{
	if (chm_pending(check->t) || chm_spent(check->t))
		chm_complain(check, "cells unmerged");
}

static void chm_check_retired(struct chm_check *check)
{
	const struct chm *map = check->map;
	const struct chm_table *t;
	size_t bytes = 0;

	list_for_each_entry(t, &map->retired, retired)
		bytes += chm_bytes(t);
	if (bytes != map->retired_bytes || chm_retired_too_much(map))
		chm_complain(check, "%zu bytes retired, counted %lu, budget %zu",
			     bytes, map->retired_bytes, chm_retired_budget(map));
}

static void chm_check_table(struct chm_check *check)
{
	const struct chm_table *t = check->t;
	u32 chunk;

	for (chunk = 0; chunk < t->nr_chunks; chunk++) {
		const struct chm_chunk *c = __chm_chunk(t, chunk, &check->map->p);
		unsigned long mask = chm_match_full(c->ctrl);
		u32 slot;

		chm_check_chunk(check, chunk);
		chm_for_each_match(slot, mask)
			chm_check_pair(check, chunk, slot);
		if (!(chunk % CHM_RANGE))
			cond_resched();
	}
	for (chunk = 0; chunk < t->nr_chunks; chunk++)
		chm_check_overflow(check, chunk);
	chm_check_totals(check);
	chm_check_cells(check);
}

static int chm_verify_locked(struct chm *map, unsigned long *overflow)
{
	struct chm_check check = {
		.map = map, .t = chm_table(map), .overflow = overflow,
	};

	lockdep_assert_held(&map->lock);
	if (check.t)
		chm_check_table(&check);
	else if (map->entries)
		chm_complain(&check, "%lu pairs without a table", map->entries);
	chm_check_retired(&check);
	return check.errors ? -EUCLEAN : 0;
}

int chm_verify(struct chm *map)
{
	const struct chm_table *t;
	unsigned long *overflow = NULL;
	u32 n = 0;
	int ret;

	chm_assert_writer();
	mutex_lock(&map->lock);
	while ((t = chm_table(map)) && t->nr_chunks > n) {
		n = t->nr_chunks;
		mutex_unlock(&map->lock);
		kvfree(overflow);
		overflow = __vmalloc(array_size(n, sizeof(*overflow)),
				     GFP_KERNEL | __GFP_ZERO | __GFP_NOWARN);
		if (!overflow)
			return -ENOMEM;
		mutex_lock(&map->lock);
	}
	ret = chm_verify_locked(map, overflow);
	mutex_unlock(&map->lock);
	kvfree(overflow);
	return ret;
}
EXPORT_SYMBOL_GPL(chm_verify);

/* === DebugFS ============================================================= */

/*
 * A directory of files for each named map, described in
 * Documentation/debugfs.rst.
 *
 * debugfs_remove() waits for the file operations that run and refuses those
 * that come later, all but release().  So whatever opens, reads and writes may
 * rely on its map; release() must not look at it.
 */

/* A map made by a command. */
struct chm_created {
	struct chm		map;
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

static void chm_show_object(struct seq_file *m, const void *object, u32 size)
{
	const u32 most = 64;	/* that %ph prints */
	u64 n = 0;

	if (!size) {
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
	chm_show_object(m, pair, p->key_size);
	seq_putc(m, ' ');
	chm_show_object(m, pair + p->value_offset, p->value_size);
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
	return kvmalloc(p->slot_size, GFP_KERNEL);
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
	size_t pair = d ? 2 * (size_t)d->map->p.slot_size : 0;

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
		if (c->writes && !map->p.debugfs_write)
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
	const struct chm_params *p = &map->p;
	void *pair = chm_alloc_pair(p);
	int ret;

	if (!pair)
		return -ENOMEM;
	ret = chm_parse_object(argv[0], pair, p->key_size);
	if (!ret)
		ret = chm_parse_object(argv[1], pair + p->value_offset,
				       p->value_size);
	if (!ret)
		ret = chm_store(map, pair, pair + p->value_offset, how,
				CHM_DEBUGFS_GFP);
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
	void *pair = chm_alloc_pair(&map->p);
	unsigned long n;
	u32 i;
	int ret;

	if (!pair)
		return -ENOMEM;
	ret = chm_parse_object(argv[0], pair, map->p.key_size);
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
	void *pair = chm_alloc_pair(&map->p);
	int ret;

	if (!pair)
		return -ENOMEM;
	ret = chm_parse_object(argv[0], pair, map->p.key_size);
	if (!ret)
		ret = chm_remove(map, pair);
	kvfree(pair);
	return ret;
}

/* The value of a filled-in pair is its key, cut off or followed by zeroes. */
static int chm_insert_integer(struct chm *map, void *pair, u64 n)
{
	const struct chm_params *p = &map->p;
	void *value = pair + p->value_offset;

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
	void *pair = chm_alloc_pair(&map->p);
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
	u32 size = map->p.key_size;
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
static int chm_move(struct chm *map, bool larger)
{
	const struct chm_table *t;
	unsigned long epoch;
	int ret;

	mutex_lock(&map->lock);
	epoch = map->epoch;
	do {
		t = chm_table(map);
		if (!t)
			ret = -ENODATA;
		else
			ret = chm_resize(map, larger ? chm_chunks_grown(map, t) :
					 t->nr_chunks, CHM_SAME_SEED,
					 CHM_DEBUGFS_GFP);
		/* Whoever it was, every pair has moved. */
		if (ret == -EAGAIN && !larger && map->epoch != epoch)
			ret = 0;
	} while (ret == -EAGAIN);
	mutex_unlock(&map->lock);
	return ret;
}

static int chm_command_grow(struct chm *map, int argc, char **argv)
{
	return chm_move(map, true);
}

static int chm_command_rehash(struct chm *map, int argc, char **argv)
{
	return chm_move(map, false);
}

static int chm_command_shrink(struct chm *map, int argc, char **argv)
{
	return chm_shrink(map, CHM_DEBUGFS_GFP);
}

static int chm_command_reserve(struct chm *map, int argc, char **argv)
{
	unsigned long n;
	int ret = chm_parse_integer(argv[0], &n, sizeof(n));

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
	const struct chm_params *p = &d->map->p;
	void *pair = chm_alloc_pair(p);
	bool found;

	if (!pair)
		return -ENOMEM;
	mutex_lock(&d->lock);
	found = d->has_key;
	memcpy(pair, d->key, p->key_size);
	mutex_unlock(&d->lock);
	found = found && chm_get(d->map, pair, pair + p->value_offset);
	if (found)
		chm_show_pair(m, p, pair);
	kvfree(pair);
	return found ? 0 : -ENODATA;
}

/* Look up what @line says and remember it if it is there. */
static int chm_lookup_line(struct chm_debugfs *d, char *line)
{
	const struct chm_params *p = &d->map->p;
	void *pair;
	char *word;
	int ret;

	/* A key that these follow as a pointer is not to be made up. */
	if ((p->hash || p->equal) && !p->debugfs_write)
		return -EPERM;
	ret = chm_split(line, &word, 1);
	if (ret < 0)
		return ret;
	pair = chm_alloc_pair(p);
	if (!pair)
		return -ENOMEM;
	ret = chm_parse_object(word, pair, p->key_size);
	if (!ret && !chm_get(d->map, pair, pair + p->value_offset))
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

/*
 * An open file that lists a map: a walk as struct chm_iter is, but it takes no
 * lock and does not pin the seed while it waits for its reader, who may be
 * away for long.  The price is -ESTALE after a reseed, or if the map was empty.
 */
struct chm_listing {
	struct chm		*map;
	struct chm_cursor	cursor;
	struct chm_scan		scan;
	bool			full;		/* the pair is to be shown */
	u8			pair[] __aligned(CHM_SLOT_ALIGN);
};

/* One read-side section of the walk.  Return: 0, or -ESTALE. */
static int chm_entries_copy(struct chm_listing *l)
{
	const struct chm_table *t;
	int ret = 0;

	rcu_read_lock();
	t = __chm_table_rcu(l->map);
	if (!t)
		l->cursor.ended = true;
	else if (chm_cursor_stale(t, &l->cursor))
		ret = -ESTALE;
	else
		l->full = chm_walk_section(t, &l->cursor, &l->scan, l->pair,
					   l->pair + t->p->value_offset);
	rcu_read_unlock();
	return ret;
}

static void *chm_entries_step(struct chm_listing *l)
{
	while (!l->full && !l->cursor.ended) {
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
		l->cursor = (struct chm_cursor) { };
		l->scan = (struct chm_scan) { };
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

	chm_show_pair(m, &l->map->p, l->pair);
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

	l = kvzalloc_flex(*l, pair, d->map->p.slot_size, GFP_KERNEL);
	if (!l)
		return -ENOMEM;
	l->map = d->map;
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
	seq_printf(m, "slot_size: %u\n", p->slot_size);
	seq_printf(m, "class: %s\n", chm_class_names[p->class]);
	seq_printf(m, "reclaim: %s\n", chm_reclaim_names[p->reclaim]);
	seq_printf(m, "max_load: %u\n", p->max_load);
	seq_printf(m, "growth: %u\n", p->growth);
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
	chm_show_params(m, &d->map->p);
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
	seq_printf(m, "snapshot_bytes: %lu\n", s.snapshot_bytes);
	seq_printf(m, "changed: %lu\n", s.changed);
	seq_printf(m, "retired_bytes: %lu\n", s.retired_bytes);
	seq_printf(m, "gp_waits: %lu\n", s.gp_waits);
	seq_printf(m, "reseeds: %lu\n", s.reseeds);
	seq_printf(m, "failed_allocs: %lu\n", s.failed_allocs);
	seq_printf(m, "walks: %lu\n", s.walks);
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
	struct chm *map = ((struct chm_debugfs *)m->private)->map;
	unsigned long pairs[CHM_DISTANCES] = { };
	const struct chm_table *t;
	u32 i;

	mutex_lock(&map->lock);
	t = chm_table(map);
	for (i = 0; t && i < t->nr_chunks; i++) {
		chm_count_distances(t, i, &map->p, pairs);
		if (!(i % CHM_RANGE))
			cond_resched();
	}
	mutex_unlock(&map->lock);
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
	int i;

	if (!chm_name_valid(name))
		return -EINVAL;
	/* None before this module's initcall, if it is built in; none without ours. */
	if (!IS_ENABLED(CONFIG_DEBUG_FS) || IS_ERR_OR_NULL(chm_dir))
		return 0;
	d = kzalloc_flex(*d, key, map->p.key_size, GFP_KERNEL);
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
		return 0;
	}
	d->dir = debugfs_create_dir(name, chm_dir);
	for (i = 0; i < ARRAY_SIZE(chm_debugfs_files); i++)
		debugfs_create_file(chm_debugfs_files[i].name,
				    chm_debugfs_files[i].mode, d->dir, d,
				    chm_debugfs_files[i].fops);
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
	if (!chm_find_created(name) && !chm_name_taken(name))
		ret = chm_init(&c->map, p, name);
	if (!ret && !c->map.debugfs->dir) {
		/* A driver was quicker. */
		chm_destroy(&c->map);
		ret = -EEXIST;
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

	list_for_each_entry_safe(c, next, &chm_created_maps, list)
		chm_destroy_created(c);
	debugfs_remove(chm_dir);
}

/* === Life ================================================================ */

int __chm_init(struct chm *map, const struct chm_params *p, const char *name,
	       struct chm_lock_keys *keys)
{
	int ret;

	might_sleep();
	*map = (struct chm) { .p = *p };
	ret = chm_params_complete(&map->p);
	if (ret)
		return ret;
	__mutex_init(&map->lock, "chm->lock", &keys->lock);
	__mutex_init(&map->resize_lock, "chm->resize_lock", &keys->resize_lock);
	INIT_LIST_HEAD(&map->retired);
	chm_init_reclaim(map, &keys->reclaim);
	return name ? chm_debugfs_add(map, name) : 0;
}
EXPORT_SYMBOL_GPL(__chm_init);

/*
 * Nothing is queued after this, and nothing runs.  Cancel and don't flush: this
 * may be the drop() of another map, in a work item of its own.
 */
static void chm_stop_reclaim(struct chm *map)
{
	mutex_lock(&map->lock);
	map->dying = true;
	mutex_unlock(&map->lock);
	if (!map->started)
		return;
	/* Pending is also what still waits for its grace period. */
	if (work_pending(&map->reclaim.work))
		rcu_barrier();
	cancel_work_sync(&map->reclaim.work);
}

void chm_destroy(struct chm *map)
{
	struct chm_table *t;

	chm_assert_writer();
	chm_debugfs_remove(map);
	chm_stop_reclaim(map);
	mutex_lock(&map->lock);
	WARN_ON_ONCE(map->walks);
	t = chm_table(map);
	RCU_INIT_POINTER(map->tbl, NULL);
	if (map->epoch)
		chm_wait(map);
	if (t) {
		t->owns_full = true;
		chm_free_table(&map->p, t);
	}
	map->entries = 0;
	mutex_unlock(&map->lock);
	mutex_destroy(&map->lock);
	mutex_destroy(&map->resize_lock);
	/* Not before: what is found wrong in the end has its map's name. */
	kfree(map->debugfs);
	map->debugfs = NULL;
}
EXPORT_SYMBOL_GPL(chm_destroy);

/* === Module ============================================================== */

static int __init chm_module_init(void)
{
	chm_debugfs_init();
	return 0;
}

static void __exit chm_module_exit(void)
{
	chm_debugfs_exit();
}

/* Early: the maps of most initcalls get their directories. */
subsys_initcall(chm_module_init);
module_exit(chm_module_exit);

MODULE_DESCRIPTION("Concurrent hash map with lock-free lookups");
MODULE_LICENSE("GPL");
MODULE_VERSION("0.1");
