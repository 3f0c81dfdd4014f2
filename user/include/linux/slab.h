/* SPDX-License-Identifier: GPL-2.0-only */
/* All memory is malloc()'s, from the start of a cache line. */
#ifndef USER_LINUX_SLAB_H
#define USER_LINUX_SLAB_H

#include <linux/kernel.h>

#define __GFP_DIRECT_RECLAIM	BIT(0)
#define __GFP_KSWAPD_RECLAIM	BIT(1)
#define __GFP_IO		BIT(2)
#define __GFP_NOWARN		BIT(3)
#define __GFP_NORETRY		BIT(4)
#define __GFP_RETRY_MAYFAIL	BIT(5)
#define __GFP_NOFAIL		BIT(6)
#define __GFP_ZERO		BIT(7)
#define GFP_NOWAIT		(__GFP_KSWAPD_RECLAIM | __GFP_NOWARN)
#define GFP_ATOMIC		(__GFP_KSWAPD_RECLAIM)
#define GFP_NOIO		(__GFP_KSWAPD_RECLAIM | __GFP_DIRECT_RECLAIM)
#define GFP_KERNEL		(GFP_NOIO | __GFP_IO)

#define KMALLOC_MAX_SIZE	SZ_4M

static inline bool gfpflags_allow_blocking(gfp_t gfp)
{
	return gfp & __GFP_DIRECT_RECLAIM;
}

void *kmalloc(size_t bytes, gfp_t gfp);
void kfree(const void *p);

#define kzalloc(bytes, gfp)	kmalloc(bytes, (gfp) | __GFP_ZERO)
#define kvmalloc		kmalloc
#define kvzalloc		kzalloc
#define kvcalloc(n, size, gfp)	kzalloc(array_size(n, size), gfp)
#define __vmalloc		kmalloc
#define kvfree			kfree
#define alloc_pages_exact	kmalloc

static inline void free_pages_exact(void *p, size_t bytes)
{
	kfree(p);
}

static inline bool is_vmalloc_addr(const void *p)
{
	return false;
}

static inline void kmemleak_alloc(const void *p, size_t bytes, int n, gfp_t gfp)
{
}

static inline void kmemleak_free(const void *p)
{
}

#endif
