/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Pure helpers of chm: control words, tags, probe order, layout
 *
 * No state, no locks, no memory accesses: every function here maps numbers to
 * numbers, so that chm_test.c can check them exhaustively.
 *
 * A chunk is one control word followed by CHM_SLOTS slots.  Byte i of the
 * control word, counted from the least significant one on every architecture,
 * is the tag of slot i; the top byte is the overflow filter:
 *
 *	 63      56 55      48        15       8 7        0
 *	+----------+----------+- ... -+---------+----------+
 *	| overflow |  tag 6   |       |  tag 1  |  tag 0   |
 *	+----------+----------+- ... -+---------+----------+
 *
 *	tag	0x00		EMPTY	never used, or its grace period is over
 *		0b00000tg1	DEAD	removed; readers may still look at the slot
 *					g: generation, t: taken (no drop())
 *		0b1hhhhhhh	FULL	holds a pair; h: seven bits of its hash
 *
 *	overflow: bit i is set if a pair whose hash ends in i passed this chunk on
 *	its probe path, because it found no slot here, and not much longer.  A
 *	look-up of such a hash goes on to the next chunk, any other ends here.
 *
 * Sources: an overflow byte instead of tombstones is F14's (Bronson and Shi,
 * Meta), there a count; as a filter it is boost::unordered_flat_map's (Lopez
 * Munoz), there never lowered.  Tags in a word matched by arithmetic are those of
 * hashbrown's generic group; DEAD generations in the tag resemble the epoch bytes
 * of scc::HashIndex.
 */
#ifndef CHM_CHUNK_H
#define CHM_CHUNK_H

#include <linux/align.h>
#include <linux/bitops.h>
#include <linux/bits.h>
#include <linux/build_bug.h>
#include <linux/cache.h>
#include <linux/kernel.h>
#include <linux/math64.h>
#include <linux/types.h>

/* Slots in a chunk: one byte of the control word each, less the overflow. */
#define CHM_SLOTS		(sizeof(long) - 1)

#define CHM_TAG_EMPTY		0x00UL
#define CHM_TAG_DEAD		0x01UL
#define CHM_TAG_DEAD_GEN	0x02UL	/* with DEAD: its generation */
#define CHM_TAG_DEAD_TAKEN	0x04UL	/* with DEAD: the value was taken */
#define CHM_TAG_FULL		0x80UL

#define CHM_OVERFLOW_SHIFT	(BITS_PER_LONG - BITS_PER_BYTE)
#define CHM_OVERFLOW		(0xffUL << CHM_OVERFLOW_SHIFT)

/* The lowest and the highest bit of each tag byte; never of the overflow. */
#define CHM_TAGS_LOW		((~0UL / 0xff) >> BITS_PER_BYTE)
#define CHM_TAGS_HIGH		(CHM_TAGS_LOW << 7)

static_assert(CHM_SLOTS * BITS_PER_BYTE == CHM_OVERFLOW_SHIFT);
static_assert((CHM_TAGS_HIGH >> CHM_OVERFLOW_SHIFT) == 0);

/* Tag of a pair with this hash: bits that chm_home() does not use. */
static __always_inline unsigned long chm_tag(u64 hash)
{
	return CHM_TAG_FULL | (hash & 0x7f);
}

/*
 * Home chunk of a hash.  Monotone in the hash: chunks are in hash order, so
 * migration streams through both tables and a walk's cursor, which is a hash,
 * survives growth.
 */
static __always_inline u32 chm_home(u64 hash, u32 nr_chunks)
{
	return ((hash >> 32) * nr_chunks) >> 32;
}

/*
 * The least hash whose home is @home: the ceiling of home / nr_chunks in
 * units of the hash's upper half.
 */
static __always_inline u64 chm_home_begin(u32 home, u32 nr_chunks)
{
	return div_u64(((u64)home << 32) + nr_chunks - 1, nr_chunks) << 32;
}

/* The chunk after @chunk on every probe path. */
static __always_inline u32 chm_next_chunk(u32 chunk, u32 nr_chunks)
{
	return chunk + 1 == nr_chunks ? 0 : chunk + 1;
}

/* The chunk before it. */
static __always_inline u32 chm_previous_chunk(u32 chunk, u32 nr_chunks)
{
	return (chunk ?: nr_chunks) - 1;
}

/* The chunk @distance, less than @nr_chunks, steps behind @home. */
static __always_inline u32 chm_nth_chunk(u32 home, u32 distance, u32 nr_chunks)
{
	u32 left = nr_chunks - home;

	return distance < left ? home + distance : distance - left;
}

/* How many steps @chunk lies behind @home on the probe path. */
static __always_inline u32 chm_distance(u32 home, u32 chunk, u32 nr_chunks)
{
	return chunk >= home ? chunk - home : nr_chunks - home + chunk;
}

/* The multiplier of Fibonacci hashing: 2^64 over the golden ratio. */
#define CHM_GOLDEN		0x9e3779b97f4a7c15ULL

/* Mix: the halves of a 128-bit product, XORed. */
static __always_inline u64 chm_fold(u64 x)
{
#ifdef __SIZEOF_INT128__
	return x * CHM_GOLDEN ^ (u64)(((__uint128_t)x * CHM_GOLDEN) >> 64);
#else
	return x * CHM_GOLDEN ^ mul_u64_u64_shr(x, CHM_GOLDEN, 64);
#endif
}

/*
 * Spread a hash from elsewhere over 64 bits, in an order that depends on @seed:
 * a 32-bit hash is good enough, and pairs inserted in the order of another
 * map's walk do not pile up.  A bijection, so no two hashes become equal.  The
 * seed is rotated lest a hash that ends with XORing it takes it back.
 */
static __always_inline u64 chm_mix(u64 hash, u64 seed)
{
	hash = (hash ^ rol64(seed, 32)) * CHM_GOLDEN;
	return hash ^ hash >> 32;
}

/*
 * Masks have the high bit of the byte of each slot that matches.  Walk them
 * with chm_for_each_match(), or take the first slot with chm_first().
 */
static __always_inline u32 chm_first(unsigned long mask)
{
	return __ffs(mask) / BITS_PER_BYTE;
}

#define chm_for_each_match(slot, mask)					\
	for (; (mask) && ((slot) = chm_first(mask), true); (mask) &= (mask) - 1)

/*
 * Slots whose tag is @tag, which must be a FULL one.  May also report a FULL
 * slot above a true match whose tag differs from @tag in the lowest bit alone
 * (the borrow of the subtraction); the key comparison absorbs it.  Never
 * reports an EMPTY or DEAD slot: its byte differs from @tag in the high bit.
 */
static __always_inline unsigned long chm_match(unsigned long ctrl,
					       unsigned long tag)
{
	unsigned long x = ctrl ^ (CHM_TAGS_LOW * tag);

	return (x - CHM_TAGS_LOW) & ~x & CHM_TAGS_HIGH;
}

static __always_inline unsigned long chm_match_full(unsigned long ctrl)
{
	return ctrl & CHM_TAGS_HIGH;
}

static __always_inline unsigned long chm_match_dead(unsigned long ctrl)
{
	return (ctrl << 7) & ~ctrl & CHM_TAGS_HIGH;
}

static __always_inline unsigned long chm_match_empty(unsigned long ctrl)
{
	return ~(ctrl << 7) & ~ctrl & CHM_TAGS_HIGH;
}

/* DEAD slots of generation @gen, 0 or 1. */
static __always_inline unsigned long chm_match_dead_gen(unsigned long ctrl,
							unsigned int gen)
{
	unsigned long is_one = ctrl << 6;

	return chm_match_dead(ctrl) & (gen ? is_one : ~is_one);
}

/* DEAD slots whose pairs are still the map's to drop. */
static __always_inline unsigned long chm_match_droppable(unsigned long ctrl)
{
	return chm_match_dead(ctrl) & ~(ctrl << 5);
}

static __always_inline unsigned long chm_tag_at(unsigned long ctrl, u32 slot)
{
	return (ctrl >> (slot * BITS_PER_BYTE)) & 0xff;
}

static __always_inline unsigned long chm_tag_set(unsigned long ctrl, u32 slot,
						 unsigned long tag)
{
	ctrl &= ~(0xffUL << (slot * BITS_PER_BYTE));
	return ctrl | (tag << (slot * BITS_PER_BYTE));
}

/* An EMPTY slot gets its tag. */
static __always_inline unsigned long chm_tag_put(unsigned long ctrl, u32 slot,
						 unsigned long tag)
{
	return ctrl | tag << (slot * BITS_PER_BYTE);
}

/* All slots of @mask become EMPTY. */
static __always_inline unsigned long chm_tags_clear(unsigned long ctrl,
						    unsigned long mask)
{
	return ctrl & ~((mask >> 7) * 0xff);
}

/*
 * The bit of the overflow filter for @hash.  Taken from the tag, so that who
 * looks for the pairs that need it can leave the others aside by their tags.
 */
static __always_inline unsigned long chm_overflow_bit(u64 hash)
{
	return 1UL << (CHM_OVERFLOW_SHIFT + (hash & 7));
}

/* Did a pair pass this chunk that a look-up of @hash must not miss? */
static __always_inline bool chm_overflows(unsigned long ctrl, u64 hash)
{
	return ctrl & chm_overflow_bit(hash);
}

/* Can a pair with this tag need the overflow bit of @hash? */
static __always_inline bool chm_same_overflow(unsigned long tag, u64 hash)
{
	return !((tag ^ hash) & 7);
}

/* What every slot is aligned to at most. */
#define CHM_SLOT_ALIGN		8U

/* The header of a table: one line for readers and two for writers. */
#define CHM_HEADER_BYTES	(3 * L1_CACHE_BYTES)

/*
 * Bytes from one chunk to the next: whole cache lines where that wastes no
 * more than an eighth, so that small chunks never straddle one line more than
 * they must; else as tight as alignment allows.
 */
static __always_inline size_t chm_stride(size_t slot_size)
{
	size_t bytes = CHM_SLOT_ALIGN + CHM_SLOTS * slot_size;
	size_t lines = ALIGN(bytes, L1_CACHE_BYTES);

	if (lines - bytes <= lines / 8)
		return lines;
	return ALIGN(bytes, CHM_SLOT_ALIGN);
}

/*
 * Where slots begin in a chunk: at its end, so that what rounding adds lies
 * between the control word and them.  Slots of 16, 32 or 64 bytes thus never
 * straddle a cache line.
 */
static __always_inline size_t chm_slots_offset(size_t slot_size)
{
	return chm_stride(slot_size) - CHM_SLOTS * slot_size;
}

/* Natural alignment of an object of @size bytes, CHM_SLOT_ALIGN at most. */
static __always_inline u32 chm_natural_align(u32 size)
{
	if (!size)
		return 1;
	return min_t(u32, size & -size, CHM_SLOT_ALIGN);
}

#endif /* CHM_CHUNK_H */
