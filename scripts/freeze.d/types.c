// SPDX-License-Identifier: GPL-2.0-only
/*
 * Map types for scripts/check-freeze: what chm-freeze has to make of each is in
 * the comments right before it.
 */
#include <linux/cpumask.h>
#include <linux/if_ether.h>
#include <linux/in6.h>
#include <linux/kref.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/nodemask.h>
#include <linux/rcupdate.h>
#include <linux/seqlock.h>
#include <linux/u64_stats_sync.h>
#include <linux/uuid.h>
#include <linux/workqueue.h>

#include "chm.h"

/* === Scalars ============================================================= */

/* ok */
DEFINE_CHM_TYPE(t_scalar, u64, u64);

/* ok */
DEFINE_CHM_TYPE(t_word, u32, unsigned long, .class = CHM_WORD);

enum color { RED, GREEN };

/* ok */
DEFINE_CHM_TYPE(t_enum, enum color, enum color);

/* ok */
DEFINE_CHM_TYPE(t_bool, u8, bool);

/* ok */
DEFINE_CHM_TYPE(t_string, u32, const char *);

/* ok */
DEFINE_CHM_TYPE(t_string_key, const char *, u32, .hash = chm_hash_string,
		.equal = chm_equal_string);

/* ok */
DEFINE_CHM_TYPE(t_name_key, char[16], u32);

/* ok */
DEFINE_CHM_TYPE(t_pointer, void *, struct mutex *);

/* ok */
DEFINE_CHM_TYPE(t_volatile_pointee, u32, volatile int *);

/* ok */
DEFINE_CHM_TYPE(t_time, uuid_t, ktime_t);

struct nothing { };

/* ok */
DEFINE_CHM_TYPE(t_set, u64, struct nothing);

struct no_bytes {
	u8	none[0];
};

/* ok */
DEFINE_CHM_TYPE(t_no_bytes, u64, struct no_bytes);

/* === Structures that are frozen ========================================== */

typedef int (*callback_t)(struct mutex *, volatile int *);

struct ops {
	callback_t	open;
	void		(*close)(atomic_t *count);
	const char	*name;
	struct list_head *queue;
	struct mutex	*locks[4];
	spinlock_t __percpu *percpu;
	struct work_struct __rcu *work;
};

/* ok */
DEFINE_CHM_TYPE(t_ops, u32, struct ops);

struct flags {
	unsigned int	up : 1;
	unsigned int	speed : 7;
	unsigned int	: 4;
	enum color	color : 8;
	unsigned long	mask[BITS_TO_LONGS(200)];
	DECLARE_BITMAP(bits, 77);
};

/* ok */
DEFINE_CHM_TYPE(t_flags, u32, struct flags);

struct masks {
	struct cpumask	cpus;
	nodemask_t	nodes;
	struct in6_addr	addr;
	u8		mac[ETH_ALEN];
};

/* ok */
DEFINE_CHM_TYPE(t_masks, struct in6_addr, struct masks);

struct choice {
	int	kind;
	union {
		u64		number;
		const char	*text;
		struct {
			u16	low, high;
		};
	};
};

/* ok */
DEFINE_CHM_TYPE(t_choice, u32, struct choice);

/* ok */
DEFINE_CHM_TYPE(t_clone, u32, struct choice, .class = CHM_CLONE,
		.clone = (void *)1);

typedef u64 four_t[4];

/* ok */
DEFINE_CHM_TYPE(t_array, u32, four_t);

struct marked {
	u32	a;
	u8	from_here[0];
	u32	b;
};

/* ok */
DEFINE_CHM_TYPE(t_marker, u32, struct marked);

struct overlaid {
	union {
		u64	words[2];
		DECLARE_FLEX_ARRAY(u8, bytes);
	};
};

/* ok */
DEFINE_CHM_TYPE(t_overlay, u32, struct overlaid);

/* Names that only begin or end like what is rejected */
struct mutex_stats { u32 spinlock, atomic_t_count; };
struct my_list_head { u32 n; };
typedef struct my_list_head not_a_spinlock_t;

struct alike {
	struct mutex_stats	mutex;
	not_a_spinlock_t	list_head;
};

/* ok */
DEFINE_CHM_TYPE(t_alike, u32, struct alike);

/* === Structures that are not ============================================= */

struct counted {
	u32		id;
	atomic_t	users;
};

/* REJECTED: value.users (atomic_t) */
DEFINE_CHM_TYPE(t_atomic, u32, struct counted);

/* REJECTED: value.users (atomic_t) */
DEFINE_CHM_TYPE(t_atomic_word, u32, struct counted, .class = CHM_WORD);

/* REJECTED: value.users (atomic_t) */
DEFINE_CHM_TYPE(t_atomic_clone, u32, struct counted, .class = CHM_CLONE,
		.clone = (void *)1);

/* REJECTED: key.users (atomic_t) */
DEFINE_CHM_TYPE(t_atomic_key, struct counted, u32);

struct frozen_counter {
	const atomic_t	users;
};

/* REJECTED: value.users (atomic_t) */
DEFINE_CHM_TYPE(t_atomic_const, u32, struct frozen_counter);

typedef atomic_t users_t;
typedef users_t seats_t;

struct chained {
	seats_t	seats;
};

/* REJECTED: value.seats (atomic_t) */
DEFINE_CHM_TYPE(t_typedef_chain, u32, struct chained);

typedef struct chained chained_t;

/* REJECTED: value.seats (atomic_t) */
DEFINE_CHM_TYPE(t_typedef_top, u32, chained_t);

struct deep3 {
	char		name[16];
	spinlock_t	lock;
};

struct deep2 { u32 n; struct deep3 c; };
struct deep1 { struct deep2 b; };
struct deep { u64 x; struct deep1 a; };

/* REJECTED: value.a.b.c.lock (spinlock_t) */
DEFINE_CHM_TYPE(t_deep, u32, struct deep);

struct anonymous {
	u32	kind;
	union {
		u32	number;
		struct {
			u16		pad;
			refcount_t	refs;
		};
	};
};

/* REJECTED: value.refs (refcount_t) */
DEFINE_CHM_TYPE(t_anonymous, u32, struct anonymous);

union either {
	u64			number;
	struct list_head	list;
};

/* REJECTED: value.list (struct list_head) */
DEFINE_CHM_TYPE(t_union, u32, union either);

struct row {
	struct counted	cells[3][2];
};

/* REJECTED: value.cells[].users (atomic_t) */
DEFINE_CHM_TYPE(t_array_of_structs, u32, struct row);

typedef struct counted row_t[4];

/* REJECTED: value[].users (atomic_t) */
DEFINE_CHM_TYPE(t_array_top, u32, row_t);

struct both {
	struct mutex	lock;
	struct rcu_head	rcu;
};

/* REJECTED: value.lock (struct mutex) */
/* REJECTED: value.rcu (struct callback_head) */
DEFINE_CHM_TYPE(t_two, u32, struct both);

/* REJECTED: key.lock (struct mutex) */
/* REJECTED: key.rcu (struct callback_head) */
/* REJECTED: value.lock (struct mutex) */
/* REJECTED: value.rcu (struct callback_head) */
DEFINE_CHM_TYPE(t_both, struct both, struct both);

struct shaky {
	volatile u32	reg;
	u32 *volatile where;
	volatile u8	bytes[3];
};

/* REJECTED: value.reg (volatile u32) */
/* REJECTED: value.where (u32 *volatile) */
/* REJECTED: value.bytes (volatile u8[3]) */
DEFINE_CHM_TYPE(t_volatile, u32, struct shaky);

struct flexible {
	u32	n;
	u16	items[];
};

/* REJECTED: value.items (u16[]) */
DEFINE_CHM_TYPE(t_flexible, u32, struct flexible);

struct old_flexible {
	u32	n;
	u32	items[0];
};

/* REJECTED: value.items (u32[]) */
DEFINE_CHM_TYPE(t_old_flexible, u32, struct old_flexible);

struct embedded {
	struct t_scalar	map;
};

/* REJECTED: value.map.map (struct chm) */
DEFINE_CHM_TYPE(t_map, u32, struct embedded);

/* === Pointers to itself ================================================== */

struct chain {
	struct chain	*next;
	u32		id;
};

/* ok */
/* note: value.next (struct chain *) must not point into its own pair */
DEFINE_CHM_TYPE(t_chain, u32, struct chain);

struct cursor {
	struct {
		struct choice	first, *current_choice;
	} list;
};

/* ok */
/* note: value.list.current_choice (struct choice *) must not point into its own pair */
DEFINE_CHM_TYPE(t_cursor, u32, struct cursor);

/* === Padding of keys ===================================================== */

struct hole {
	u8	a;
	u32	b;
};

static bool hole_equal(const void *a, const void *b)
{
	return ((const struct hole *)a)->b == ((const struct hole *)b)->b;
}

/* ok */
/* note: key has 3 bytes of padding from byte 1 on, which must be zeroed */
DEFINE_CHM_TYPE(t_hole, struct hole, u32);

/* ok */
DEFINE_CHM_TYPE(t_hole_equal, struct hole, u32, .equal = hole_equal);

struct tail {
	struct hole	h[2];
	u8		last;
};

/* ok */
/* note: key has 9 bytes of padding from byte 1 on, which must be zeroed */
DEFINE_CHM_TYPE(t_tail, struct tail, u32);

struct bits {
	u32	a : 12, b : 12;
};

/* ok */
/* note: key has 1 bytes of padding from byte 3 on, which must be zeroed */
DEFINE_CHM_TYPE(t_bits, struct bits, u32);

struct full {
	u32	a : 12, b : 20;
	union {
		__be32	v4;
		u8	bytes[4];
	};
} __packed;

/* ok */
DEFINE_CHM_TYPE(t_full, struct full, struct hole);

union address {
	__be32		v4;
	struct in6_addr	v6;
};

/* ok */
/* note: key has 12 bytes of padding from byte 4 on, which must be zeroed */
DEFINE_CHM_TYPE(t_union_key, union address, u32);

/* === CHM_CELL ============================================================ */

static void sum_up(void *ctx, void *new_value, const void *old_now,
		   const void *snapshot)
{
}

struct counters {
	u64		born;
	atomic64_t	packets;
	atomic_long_t	bytes[2];
	local64_t	local;
};

/* ok */
DEFINE_CHM_TYPE(t_cell, u32, struct counters, .class = CHM_CELL);

/* ok */
DEFINE_CHM_TYPE(t_cell_atomic, u32, atomic_long_t, .class = CHM_CELL);

/* REJECTED: value.packets (atomic64_t) */
/* REJECTED: value.bytes[] (atomic_long_t) */
/* REJECTED: value.local (local64_t) */
DEFINE_CHM_TYPE(t_cell_as_frozen, u32, struct counters);

/* REJECTED: value.users (atomic_t) */
DEFINE_CHM_TYPE(t_cell_int, u32, struct counted, .class = CHM_CELL);

/* ok */
DEFINE_CHM_TYPE(t_cell_merge, u32, struct counted, .class = CHM_CELL,
		.merge = sum_up);

/* ok */
DEFINE_CHM_TYPE(t_cell_volatile, u32, struct shaky, .class = CHM_CELL,
		.merge = sum_up);

/* REJECTED: value.reg (volatile u32) */
/* REJECTED: value.where (u32 *volatile) */
/* REJECTED: value.bytes (volatile u8[3]) */
DEFINE_CHM_TYPE(t_cell_no_merge, u32, struct shaky, .class = CHM_CELL);

/* REJECTED: key.users (atomic_t) */
DEFINE_CHM_TYPE(t_cell_key, struct counted, struct counted, .class = CHM_CELL,
		.merge = sum_up);

/* REJECTED: value.a.b.c.lock (spinlock_t) */
DEFINE_CHM_TYPE(t_cell_lock, u32, struct deep, .class = CHM_CELL,
		.merge = sum_up);

struct counted_by_ref {
	atomic64_t	n;
	struct kref	ref;
};

/* REJECTED: value.ref (struct kref) */
DEFINE_CHM_TYPE(t_cell_ref, u32, struct counted_by_ref, .class = CHM_CELL,
		.merge = sum_up);

/* === CHM_ASSUME_FROZEN() ================================================= */

struct sealed {
	spinlock_t	lock;
	struct mutex	unused;
};

CHM_ASSUME_FROZEN(struct sealed, "a relic: no user");

struct box {
	u32		n;
	struct sealed	parts[2];
};

/* ok */
/* note: value (struct sealed) is assumed to be frozen: a relic: no user */
DEFINE_CHM_TYPE(t_assumed, u32, struct sealed);

/* ok */
/* note: value.parts[] (struct sealed) is assumed to be frozen: a relic: no user */
DEFINE_CHM_TYPE(t_assumed_part, u32, struct box);

struct box_and_lock {
	struct sealed	sealed;
	spinlock_t	lock;
};

/* REJECTED: value.lock (spinlock_t) */
/* note: value.sealed (struct sealed) is assumed to be frozen: a relic: no user */
DEFINE_CHM_TYPE(t_assumed_not_all, u32, struct box_and_lock);

typedef struct { atomic_t generation; } stamp_t;

CHM_ASSUME_FROZEN(stamp_t, "set once, before insertion");

struct stamped {
	stamp_t		stamp;
	atomic_t	other;
};

/* REJECTED: value.other (atomic_t) */
/* note: value.stamp (stamp_t) is assumed to be frozen: set once, before insertion */
DEFINE_CHM_TYPE(t_assumed_typedef, u32, struct stamped);

MODULE_DESCRIPTION("Map types for scripts/check-freeze");
MODULE_LICENSE("GPL");
