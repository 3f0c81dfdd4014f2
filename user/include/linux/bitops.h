/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef USER_LINUX_BITOPS_H
#define USER_LINUX_BITOPS_H

#include <linux/compiler.h>

#define BITS_PER_BYTE		8
#define BITS_TO_LONGS(n)	(((n) + BITS_PER_LONG - 1) / BITS_PER_LONG)
#define BIT(n)			(1UL << (n))
#define BIT_ULL(n)		(1ULL << (n))
#define BIT_MASK(n)		BIT((n) % BITS_PER_LONG)
#define BITMAP_FIRST_WORD_MASK(start)	(~0UL << ((start) % BITS_PER_LONG))

static __always_inline unsigned long __ffs(unsigned long word)
{
	return __builtin_ctzl(word);
}

static inline unsigned int hweight_long(unsigned long word)
{
	return __builtin_popcountl(word);
}

static inline u64 rol64(u64 word, unsigned int n)
{
	return word << (n & 63) | word >> (-n & 63);
}

static inline u32 rol32(u32 word, unsigned int n)
{
	return word << (n & 31) | word >> (-n & 31);
}

static inline bool is_power_of_2(unsigned long n)
{
	return n && !(n & (n - 1));
}

/* @n: at least 2 */
static inline unsigned long roundup_pow_of_two(unsigned long n)
{
	return 1UL << (BITS_PER_LONG - __builtin_clzl(n - 1));
}

static inline bool test_bit(unsigned long n, const unsigned long *bitmap)
{
	return READ_ONCE(bitmap[n / BITS_PER_LONG]) & BIT_MASK(n);
}

static inline void __set_bit(unsigned long n, unsigned long *bitmap)
{
	bitmap[n / BITS_PER_LONG] |= BIT_MASK(n);
}

static inline void __clear_bit(unsigned long n, unsigned long *bitmap)
{
	bitmap[n / BITS_PER_LONG] &= ~BIT_MASK(n);
}

static inline unsigned long find_next_bit(const unsigned long *bitmap,
					  unsigned long end, unsigned long n)
{
	unsigned long word;

	if (n >= end)
		return end;
	word = bitmap[n / BITS_PER_LONG] & BITMAP_FIRST_WORD_MASK(n);
	n -= n % BITS_PER_LONG;
	while (!word && (n += BITS_PER_LONG) < end)
		word = bitmap[n / BITS_PER_LONG];
	return word && n + __ffs(word) < end ? n + __ffs(word) : end;
}

#endif
