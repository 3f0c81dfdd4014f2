/* SPDX-License-Identifier: GPL-2.0-only */
/* Shared by the tests of chm */
#ifndef CHM_TEST_H
#define CHM_TEST_H

#include "chm_chunk.h"

/*
 * What a hash() has to return for chm_mix() to make @hash of it: with this a
 * test chooses home, tag and filter bit of a key.
 */
static inline u64 unmix(u64 hash, u64 seed)
{
	const u64 inverse = 0xf1de83e19937733dULL;	/* of CHM_GOLDEN */

	static_assert(CHM_GOLDEN * 0xf1de83e19937733dULL == 1);
	return (hash ^ hash >> 32) * inverse ^ rol64(seed, 32);
}

#endif /* CHM_TEST_H */
