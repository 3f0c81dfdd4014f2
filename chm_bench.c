// SPDX-License-Identifier: GPL-2.0-only
/*
 * Benchmarks of chm against what kernel code uses today
 *
 * Loaded, or built in, it measures and reports to the kernel log, one JSON
 * object per result, for scripts/bench to collect.  All contenders share one
 * loop per measurement: loops and operations are inlined into each other for
 * constant contenders and pair sizes, as the lookups of typed maps and of
 * rhashtable are meant to be used, so that nobody pays for an indirect call.
 *
 * Contenders of a measurement take turns in every round, so that what disturbs
 * the machine disturbs all of them.  All but BPF's map use the same hash function,
 * and keys that are numbered: key i is made of i, and its value begins with i.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/completion.h>
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/init.h>
#include <linux/jiffies.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/rculist.h>
#include <linux/reboot.h>
#include <linux/rhashtable.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "chm.h"
#include "chm_compat.h"

/* Nothing of BPF's map is exported: it can be measured where this is built in. */
#if defined(CONFIG_BPF_SYSCALL) && defined(CHM_HAS_map_mem_usage) && !defined(MODULE)
#define BENCH_HAS_BPF
#include <linux/bpf.h>
#include <linux/irq_work.h>
#include <asm/irq_work.h>
#endif

static char *run = "quick";
module_param(run, charp, 0444);
MODULE_PARM_DESC(run, "quick, full, or measurements: hit,churn");

static unsigned int rounds;
module_param(rounds, uint, 0444);
MODULE_PARM_DESC(rounds, "Rounds, up to 25 (0: 5 quick, 7 full)");

static unsigned long entries;
module_param(entries, ulong, 0444);
MODULE_PARM_DESC(entries, "Only tables of so many pairs, a power of two (0: all sizes)");

static unsigned int pair;
module_param(pair, uint, 0444);
MODULE_PARM_DESC(pair, "Only pairs of so many bytes (0: all sizes)");

static unsigned long churn;
module_param(churn, ulong, 0444);
MODULE_PARM_DESC(churn, "Removals and insertions per round (0: 500000 quick, 2000000 full)");

static unsigned long endurance;
module_param(endurance, ulong, 0444);
MODULE_PARM_DESC(endurance, "Removals and insertions of the endurance test (0: none quick, 10^8 full)");

static bool shutdown;
module_param(shutdown, bool, 0444);
MODULE_PARM_DESC(shutdown, "Power off at the end, for a kernel without userspace (default N)");

#define MAX_ROUNDS	25
#define MAX_KEY		64
#define MAX_VALUE	192
#define MAX_BATCH	256

/* The number of no pair. */
#define ABSENT		U64_MAX

/* Pairs between two chances to reschedule. */
#define STRETCH		1024

/*
 * Let others run.  User Mode Linux does not preempt kernel threads when an
 * interrupt returns, and cond_resched() does nothing where CONFIG_PREEMPT is set.
 */
static void give_way(void)
{
	cond_resched();
	if (need_resched())
		schedule();
}

/* === Pairs =============================================================== */

/* A size of pairs; always a compile-time constant. */
struct shape {
	struct chm_params		chm;
	struct chm_params		word;	/* CHM_WORD, where it can be */
	struct rhashtable_params	rht;
};

/* The nodes of the others, as their users write them. */
struct rht_node {
	struct rcu_head		rcu;
	struct rhash_head	link;
	u8			bytes[];	/* key and value */
};

struct hlist_obj {
	struct rcu_head		rcu;
	struct hlist_node	link;
	u8			bytes[];
};

static __always_inline u32 pair_size(const struct shape *s)
{
	return s->chm.key_size + s->chm.value_size;
}

/* Distinct for distinct @i, up to 2^32 keys; @dense: as xarray likes it. */
static __always_inline void make_key(const struct shape *s, void *key, u64 i,
				     bool dense)
{
	u64 k = dense ? i : i * 0x9e3779b97f4a7c15ULL;
	u32 at;

	if (s->chm.key_size == sizeof(u32)) {
		u32 k32 = dense ? i : (u32)i * 0x9e3779b1U;

		memcpy(key, &k32, sizeof(k32));
		return;
	}
	for (at = 0; at < s->chm.key_size; at += sizeof(k), k += i)
		memcpy(key + at, &k, sizeof(k));
}

static __always_inline void make_value(const struct shape *s, void *value,
				       u64 i)
{
	u32 size = s->chm.value_size;

	memset(value, 0, size);
	memcpy(value, &i, min_t(u32, size, sizeof(i)));
}

/* Key and value, as those who have nodes keep them. */
static __always_inline void write_pair(const struct shape *s, u8 *bytes,
				       const void *key, const void *value)
{
	memcpy(bytes, key, s->chm.key_size);
	memcpy(bytes + s->chm.key_size, value, s->chm.value_size);
}

/* The number in front of a value. */
static __always_inline u64 number_of(const void *value, const struct shape *s)
{
	if (!value)
		return ABSENT;
	if (s->chm.value_size == sizeof(u32))
		return READ_ONCE(*(const u32 *)value);
	return READ_ONCE(*(const u64 *)value);
}

/* Knuth's MMIX generator; the high half is good. */
static __always_inline u64 next_random(u64 x)
{
	return x * 6364136223846793005ULL + 1442695040888963407ULL;
}

static __always_inline u64 below(u64 random, u64 n)
{
	return ((random >> 32) * n) >> 32;
}

/* === Contenders ========================================================== */

/* A contender's table. */
struct table {
	union {
		struct chm		chm;
		struct rhashtable	rht;
		struct xarray		xa;
		struct bpf_map		*bpf;
		struct hlist_head	*heads;
		u64			*raw;
	};
	spinlock_t		lock;		/* writers of heads */
	u32			bits;		/* log2 of the number of heads */
	u64			scale;		/* words of raw per number, << 16 */
	u64			bare;		/* bytes of bpf without pairs */
	unsigned long		entries;
	unsigned long		room;		/* pairs to make room for; bytes of raw */
	struct kmem_cache	*nodes;		/* of those who have some */
	u64			published ____cacheline_aligned; /* numbers */
};

struct contender {
	const char *name;
	size_t size;	/* of what its users embed */
	size_t node;	/* of what comes before a pair outside of the table, or 0 */
	bool dense;
	bool blind;	/* what it finds says nothing */
	int (*init)(struct table *t, const struct shape *s);
	void (*exit)(struct table *t, const struct shape *s);
	/* The same without waiting for readers; NULL: exit() does not. */
	void (*leave)(struct table *t, const struct shape *s);
	/* The number of a pair, or ABSENT. */
	u64 (*find)(struct table *t, const void *key, const struct shape *s);
	/* The sum of @n numbers, of keys that are present; NULL: a loop. */
	u64 (*sum)(struct table *t, const void *keys, u32 n,
		   const struct shape *s);
	int (*insert)(struct table *t, const void *key, const void *value,
		      const struct shape *s);
	/* How many of @n pairs were inserted; NULL: a loop. */
	u32 (*insert_many)(struct table *t, const void *keys, const void *values,
			   u32 n, const struct shape *s);
	int (*remove)(struct table *t, const void *key, const struct shape *s);
	int (*replace)(struct table *t, const void *key, const void *value,
		       const struct shape *s);
	u64 (*walk)(struct table *t, const struct shape *s);
	size_t (*bytes)(struct table *t, const struct shape *s);
};

/* --- chm --- */

static int bench_chm_init_as(struct table *t, const struct chm_params *p)
{
	int ret = chm_init(&t->chm, p, NULL, NULL);

	if (ret || !t->room)
		return ret;
	ret = chm_reserve(&t->chm, t->room, GFP_KERNEL);
	if (ret)
		chm_destroy(&t->chm);
	return ret;
}

static int bench_chm_init(struct table *t, const struct shape *s)
{
	return bench_chm_init_as(t, &s->chm);
}

static int bench_word_init(struct table *t, const struct shape *s)
{
	return bench_chm_init_as(t, &s->word);
}

static void bench_chm_exit(struct table *t, const struct shape *s)
{
	chm_destroy(&t->chm);
}

static void bench_chm_leave(struct table *t, const struct shape *s)
{
	chm_destroy_async(&t->chm);
}

static __always_inline u64
bench_chm_find(struct table *t, const void *key, const struct shape *s)
{
	return number_of(chm_lookup(&t->chm, key), s);
}

static __always_inline u64 sum_values(const void **values, u32 n,
				      const struct shape *s)
{
	u64 sum = 0;
	u32 i;

	for (i = 0; i < n; i++)
		sum += number_of(values[i], s);
	return sum;
}

static __always_inline u64
bench_chm_sum(struct table *t, const void *keys, u32 n, const struct shape *s)
{
	static const void *values[MAX_BATCH];

	chm_lookup_many(&t->chm, keys, n, values);
	return sum_values(values, n, s);
}

/* What the functions that DEFINE_CHM_TYPE() makes expand to. */
static __always_inline u64
bench_typed_find(struct table *t, const void *key, const struct shape *s)
{
	return number_of(__chm_lookup(&t->chm, key, &s->chm), s);
}

static __always_inline u64
bench_typed_sum(struct table *t, const void *keys, u32 n,
		const struct shape *s)
{
	static const void *values[MAX_BATCH];

	__chm_lookup_many(&t->chm, keys, n, values, &s->chm);
	return sum_values(values, n, s);
}

static __always_inline int
bench_chm_insert(struct table *t, const void *key, const void *value,
		 const struct shape *s)
{
	return chm_insert(&t->chm, key, value, GFP_KERNEL);
}

static u32 bench_chm_insert_many(struct table *t, const void *keys,
				 const void *values, u32 n, const struct shape *s)
{
	int err;

	return chm_insert_many(&t->chm, keys, values, n, GFP_KERNEL, &err);
}

static __always_inline int
bench_chm_remove(struct table *t, const void *key, const struct shape *s)
{
	return chm_remove(&t->chm, key);
}

static __always_inline int
bench_chm_replace(struct table *t, const void *key, const void *value,
		  const struct shape *s)
{
	return chm_replace(&t->chm, key, value, GFP_KERNEL);
}

static u64 bench_chm_walk(struct table *t, const struct shape *s)
{
	u8 key[MAX_KEY], value[MAX_VALUE];
	struct chm_iter it;
	u64 sum = 0;

	chm_iter_init(&it, &t->chm);
	while (chm_iter_next(&it, key, value)) {
		if (!(++sum % STRETCH))
			give_way();
	}
	return sum;
}

static u64 bench_typed_walk(struct table *t, const struct shape *s)
{
	const void *key, *value;
	struct chm_pos pos;
	u64 sum = 0;

	rcu_read_lock();
	chm_for_each_rcu(&t->chm, pos, key, value)
		sum += key && value;
	rcu_read_unlock();
	return sum;
}

/* The worker copies no pairs and has no table to free. */
static bool bench_chm_is_calm(struct chm *map, struct chm_stats *stats)
{
	bool idle = !READ_ONCE(map->phase);

	chm_stats(map, stats);
	return idle && !stats->migrating && !stats->retired_bytes;
}

static size_t bench_chm_bytes(struct table *t, const struct shape *s)
{
	unsigned long end = jiffies + 20 * HZ;
	struct chm_stats stats;

	/* A growth under way comes first. */
	while (!bench_chm_is_calm(&t->chm, &stats) && time_before(jiffies, end))
		msleep(20);
	return stats.bytes;
}

static const struct contender chm = {
	.name		= "chm",
	.size		= sizeof(struct chm),
	.init		= bench_chm_init,
	.exit		= bench_chm_exit,
	.leave		= bench_chm_leave,
	.find		= bench_chm_find,
	.sum		= bench_chm_sum,
	.insert		= bench_chm_insert,
	.remove		= bench_chm_remove,
	.replace	= bench_chm_replace,
	.walk		= bench_chm_walk,
	.bytes		= bench_chm_bytes,
};

static const struct contender chm_typed = {
	.name		= "chm_typed",
	.size		= sizeof(struct chm),
	.init		= bench_chm_init,
	.exit		= bench_chm_exit,
	.find		= bench_typed_find,
	.sum		= bench_typed_sum,
	.insert		= bench_chm_insert,
	.remove		= bench_chm_remove,
	.replace	= bench_chm_replace,
	.walk		= bench_typed_walk,
	.bytes		= bench_chm_bytes,
};

/* Pairs come in batches. */
static const struct contender chm_many = {
	.name		= "chm_many",
	.size		= sizeof(struct chm),
	.init		= bench_chm_init,
	.exit		= bench_chm_exit,
	.find		= bench_chm_find,
	.insert		= bench_chm_insert,
	.insert_many	= bench_chm_insert_many,
	.walk		= bench_chm_walk,
	.bytes		= bench_chm_bytes,
};

static const struct contender chm_word = {
	.name		= "chm_word",
	.size		= sizeof(struct chm),
	.init		= bench_word_init,
	.exit		= bench_chm_exit,
	.find		= bench_chm_find,
	.insert		= bench_chm_insert,
	.remove		= bench_chm_remove,
	.replace	= bench_chm_replace,
	.walk		= bench_chm_walk,
	.bytes		= bench_chm_bytes,
};

/* What an entry takes outside of the table itself. */
static size_t node_size(const struct table *t)
{
	return t->nodes ? kmem_cache_size(t->nodes) : 0;
}

/* --- rhashtable --- */

static int bench_rht_init(struct table *t, const struct shape *s)
{
	struct rhashtable_params p = s->rht;

	p.nelem_hint = t->room;
	return rhashtable_init(&t->rht, &p);
}

static void bench_rht_free(void *node, void *cache)
{
	kmem_cache_free(cache, node);
}

static void bench_rht_exit(struct table *t, const struct shape *s)
{
	rhashtable_free_and_destroy(&t->rht, bench_rht_free, t->nodes);
}

static __always_inline u64
bench_rht_find(struct table *t, const void *key, const struct shape *s)
{
	struct rht_node *node = rhashtable_lookup(&t->rht, key, s->rht);

	return number_of(node ? node->bytes + s->chm.key_size : NULL, s);
}

static __always_inline struct rht_node *
bench_rht_make(struct table *t, const void *key, const void *value,
	       const struct shape *s)
{
	struct rht_node *node = kmem_cache_alloc(t->nodes, GFP_KERNEL);

	if (node)
		write_pair(s, node->bytes, key, value);
	return node;
}

static __always_inline int
bench_rht_insert(struct table *t, const void *key, const void *value,
		 const struct shape *s)
{
	struct rht_node *node = bench_rht_make(t, key, value, s);
	int ret;

	if (!node)
		return -ENOMEM;
	ret = rhashtable_lookup_insert_fast(&t->rht, &node->link, s->rht);
	if (ret)
		kmem_cache_free(t->nodes, node);
	return ret;
}

static __always_inline int
bench_rht_remove(struct table *t, const void *key, const struct shape *s)
{
	struct rht_node *node;
	int ret = -ENOENT;

	rcu_read_lock();
	node = rhashtable_lookup(&t->rht, key, s->rht);
	if (node)
		ret = rhashtable_remove_fast(&t->rht, &node->link, s->rht);
	if (!ret)
		kfree_rcu(node, rcu);
	rcu_read_unlock();
	return ret;
}

static __always_inline int
bench_rht_replace(struct table *t, const void *key, const void *value,
		  const struct shape *s)
{
	struct rht_node *fresh = bench_rht_make(t, key, value, s);
	struct rht_node *node;
	int ret = -ENOENT;

	if (!fresh)
		return -ENOMEM;
	rcu_read_lock();
	node = rhashtable_lookup(&t->rht, key, s->rht);
	if (node)
		ret = rhashtable_replace_fast(&t->rht, &node->link,
					      &fresh->link, s->rht);
	if (!ret)
		kfree_rcu(node, rcu);
	rcu_read_unlock();
	if (ret)
		kmem_cache_free(t->nodes, fresh);
	return ret;
}

static u64 bench_rht_walk(struct table *t, const struct shape *s)
{
	struct rhashtable_iter it;
	void *node;
	u64 sum = 0;

	rhashtable_walk_enter(&t->rht, &it);
	rhashtable_walk_start(&it);
	while ((node = rhashtable_walk_next(&it)))
		sum += !IS_ERR(node);
	rhashtable_walk_stop(&it);
	rhashtable_walk_exit(&it);
	return sum;
}

static size_t bench_rht_bytes(struct table *t, const struct shape *s)
{
	size_t heads;

	/* A growth under way comes first. */
	flush_work(&t->rht.run_work);
	rcu_read_lock();
	heads = rht_dereference_rcu(t->rht.tbl, &t->rht)->size * sizeof(void *);
	rcu_read_unlock();
	return heads + atomic_read(&t->rht.nelems) * node_size(t);
}

static const struct contender rht = {
	.name		= "rhashtable",
	.size		= sizeof(struct rhashtable),
	.node		= sizeof(struct rht_node),
	.init		= bench_rht_init,
	.exit		= bench_rht_exit,
	.find		= bench_rht_find,
	.insert		= bench_rht_insert,
	.remove		= bench_rht_remove,
	.replace	= bench_rht_replace,
	.walk		= bench_rht_walk,
	.bytes		= bench_rht_bytes,
};

/* --- A fixed hash list, one bucket per entry --- */

static int bench_hlist_init(struct table *t, const struct shape *s)
{
	spin_lock_init(&t->lock);
	t->bits = max(ilog2(roundup_pow_of_two(t->entries)), 1);
	t->heads = kvzalloc_objs(*t->heads, 1UL << t->bits, GFP_KERNEL);
	return t->heads ? 0 : -ENOMEM;
}

static void bench_hlist_exit(struct table *t, const struct shape *s)
{
	struct hlist_obj *obj;
	struct hlist_node *next;
	unsigned long i;

	for (i = 0; i < 1UL << t->bits; i++) {
		hlist_for_each_entry_safe(obj, next, &t->heads[i], link)
			kmem_cache_free(t->nodes, obj);
	}
	kvfree(t->heads);
}

static __always_inline struct hlist_head *
bench_hlist_head(struct table *t, const void *key, const struct shape *s)
{
	return &t->heads[chm_hash_bytes(key, s->chm.key_size, 1) >>
			 (64 - t->bits)];
}

static __always_inline struct hlist_obj *
bench_hlist_obj(struct table *t, const void *key, const struct shape *s)
{
	struct hlist_obj *obj;

	hlist_for_each_entry_rcu(obj, bench_hlist_head(t, key, s), link) {
		if (__chm_equal(obj->bytes, key, &s->chm))
			return obj;
	}
	return NULL;
}

static __always_inline u64
bench_hlist_find(struct table *t, const void *key, const struct shape *s)
{
	struct hlist_obj *obj = bench_hlist_obj(t, key, s);

	return number_of(obj ? obj->bytes + s->chm.key_size : NULL, s);
}

static __always_inline struct hlist_obj *
bench_hlist_make(struct table *t, const void *key, const void *value,
		 const struct shape *s)
{
	struct hlist_obj *obj = kmem_cache_alloc(t->nodes, GFP_KERNEL);

	if (obj)
		write_pair(s, obj->bytes, key, value);
	return obj;
}

static __always_inline int
bench_hlist_insert(struct table *t, const void *key, const void *value,
		   const struct shape *s)
{
	struct hlist_obj *obj = bench_hlist_make(t, key, value, s);
	int ret = -EEXIST;

	if (!obj)
		return -ENOMEM;
	spin_lock(&t->lock);
	if (!bench_hlist_obj(t, key, s)) {
		hlist_add_head_rcu(&obj->link, bench_hlist_head(t, key, s));
		ret = 0;
	}
	spin_unlock(&t->lock);
	if (ret)
		kmem_cache_free(t->nodes, obj);
	return ret;
}

static __always_inline int
bench_hlist_remove(struct table *t, const void *key, const struct shape *s)
{
	struct hlist_obj *obj;

	spin_lock(&t->lock);
	obj = bench_hlist_obj(t, key, s);
	if (obj)
		hlist_del_rcu(&obj->link);
	spin_unlock(&t->lock);
	if (!obj)
		return -ENOENT;
	kfree_rcu(obj, rcu);
	return 0;
}

static __always_inline int
bench_hlist_replace(struct table *t, const void *key, const void *value,
		    const struct shape *s)
{
	struct hlist_obj *fresh = bench_hlist_make(t, key, value, s);
	struct hlist_obj *obj;

	if (!fresh)
		return -ENOMEM;
	spin_lock(&t->lock);
	obj = bench_hlist_obj(t, key, s);
	if (obj)
		hlist_replace_rcu(&obj->link, &fresh->link);
	spin_unlock(&t->lock);
	if (!obj) {
		kmem_cache_free(t->nodes, fresh);
		return -ENOENT;
	}
	kfree_rcu(obj, rcu);
	return 0;
}

static u64 bench_hlist_walk(struct table *t, const struct shape *s)
{
	struct hlist_obj *obj;
	unsigned long i;
	u64 sum = 0;

	rcu_read_lock();
	for (i = 0; i < 1UL << t->bits; i++) {
		hlist_for_each_entry_rcu(obj, &t->heads[i], link)
			sum++;
	}
	rcu_read_unlock();
	return sum;
}

static size_t bench_hlist_bytes(struct table *t, const struct shape *s)
{
	return (sizeof(*t->heads) << t->bits) +
	       t->entries * node_size(t);
}

static const struct contender hlist = {
	.name		= "hlist",
	.size		= sizeof(struct hlist_head *) + sizeof(spinlock_t),
	.node		= sizeof(struct hlist_obj),
	.init		= bench_hlist_init,
	.exit		= bench_hlist_exit,
	.find		= bench_hlist_find,
	.insert		= bench_hlist_insert,
	.remove		= bench_hlist_remove,
	.replace	= bench_hlist_replace,
	.walk		= bench_hlist_walk,
	.bytes		= bench_hlist_bytes,
};

/* --- xarray: integers to integers, without any node of the user's --- */

static int bench_xa_init(struct table *t, const struct shape *s)
{
	xa_init(&t->xa);
	return 0;
}

static void bench_xa_exit(struct table *t, const struct shape *s)
{
	xa_destroy(&t->xa);
}

static __always_inline u64
bench_xa_find(struct table *t, const void *key, const struct shape *s)
{
	void *entry = xa_load(&t->xa, number_of(key, s));

	return entry ? xa_to_value(entry) : ABSENT;
}

static __always_inline int
bench_xa_insert(struct table *t, const void *key, const void *value,
		const struct shape *s)
{
	return xa_insert(&t->xa, number_of(key, s),
			 xa_mk_value(number_of(value, s)), GFP_KERNEL);
}

static __always_inline int
bench_xa_remove(struct table *t, const void *key, const struct shape *s)
{
	return xa_erase(&t->xa, number_of(key, s)) ? 0 : -ENOENT;
}

static u64 bench_xa_walk(struct table *t, const struct shape *s)
{
	unsigned long i;
	u64 sum = 0;
	void *entry;

	xa_for_each(&t->xa, i, entry)
		sum++;
	return sum;
}

static const struct contender xarray = {
	.name		= "xarray",
	.size		= sizeof(struct xarray),
	.dense		= true,
	.init		= bench_xa_init,
	.exit		= bench_xa_exit,
	.find		= bench_xa_find,
	.insert		= bench_xa_insert,
	.remove		= bench_xa_remove,
	.walk		= bench_xa_walk,
};

/* --- BPF's hash map: of a fixed size, with a lock for each bucket --- */

#ifdef BENCH_HAS_BPF
/*
 * As map_create() does.  The rest of it is for maps that have file descriptors, types,
 * or locks in their values.
 */
static int bench_bpf_init_as(struct table *t, const struct shape *s, u32 flags)
{
	union bpf_attr attr = {
		.map_type	= BPF_MAP_TYPE_HASH,
		.key_size	= s->chm.key_size,
		.value_size	= s->chm.value_size,
		.max_entries	= t->entries,
		.map_flags	= flags,
	};
	int ret = htab_map_ops.map_alloc_check(&attr);
	struct bpf_map *map;

	if (ret)
		return ret;
	map = htab_map_ops.map_alloc(&attr);
	if (IS_ERR(map))
		return PTR_ERR(map);
	map->ops = &htab_map_ops;
	t->bpf = map;
	t->bare = htab_map_ops.map_mem_usage(map);
	return 0;
}

static int bench_bpf_init(struct table *t, const struct shape *s)
{
	return bench_bpf_init_as(t, s, BPF_F_NO_PREALLOC);
}

static int bench_bpf_init_prealloc(struct table *t, const struct shape *s)
{
	return bench_bpf_init_as(t, s, 0);
}

static void bench_bpf_exit(struct table *t, const struct shape *s)
{
	migrate_disable();
	htab_map_ops.map_free(t->bpf);
	migrate_enable();
}

static __always_inline u64
bench_bpf_find(struct table *t, const void *key, const struct shape *s)
{
	return number_of(htab_map_ops.map_lookup_elem(t->bpf, (void *)key), s);
}

/* What runs BPF programs, or a system call for their maps, holds both of these. */
static __always_inline void bench_bpf_enter(void)
{
	migrate_disable();
	rcu_read_lock();
}

static __always_inline void bench_bpf_leave(void)
{
	rcu_read_unlock();
	migrate_enable();
}

static __always_inline int
bench_bpf_update(struct table *t, const void *key, const void *value, u64 flags)
{
	int ret;

	bench_bpf_enter();
	ret = htab_map_ops.map_update_elem(t->bpf, (void *)key, (void *)value, flags);
	bench_bpf_leave();
	return ret;
}

static __always_inline int
bench_bpf_insert(struct table *t, const void *key, const void *value,
		 const struct shape *s)
{
	return bench_bpf_update(t, key, value, BPF_NOEXIST);
}

static __always_inline int
bench_bpf_replace(struct table *t, const void *key, const void *value,
		  const struct shape *s)
{
	return bench_bpf_update(t, key, value, BPF_EXIST);
}

static __always_inline int
bench_bpf_remove(struct table *t, const void *key, const struct shape *s)
{
	int ret;

	bench_bpf_enter();
	ret = htab_map_ops.map_delete_elem(t->bpf, (void *)key);
	bench_bpf_leave();
	return ret;
}

static u64 bench_bpf_count(u64 map, u64 key, u64 value, u64 sum, u64 unused)
{
	*(u64 *)sum += key && value;
	return 0;
}

/*
 * As bpf_for_each_map_elem().  map_get_next_key(), which is for user space, looks up
 * each key again to come to the next one.
 */
static u64 bench_bpf_walk(struct table *t, const struct shape *s)
{
	u64 sum = 0;

	migrate_disable();
	htab_map_ops.map_for_each_callback(t->bpf, bench_bpf_count, &sum, 0);
	migrate_enable();
	return sum;
}

/* As BPF counts, and what kmalloc() adds to each pair. */
static size_t bench_bpf_bytes(struct table *t, const struct shape *s)
{
	u64 used = htab_map_ops.map_mem_usage(t->bpf);
	size_t each = div64_ul(used - t->bare, t->entries);

	return used + t->entries * (kmalloc_size_roundup(each) - each);
}

/* Pairs come from the allocator that BPF has for any context. */
static const struct contender bpf_hash = {
	.name		= "bpf",
	.init		= bench_bpf_init,
	.exit		= bench_bpf_exit,
	.find		= bench_bpf_find,
	.insert		= bench_bpf_insert,
	.remove		= bench_bpf_remove,
	.replace	= bench_bpf_replace,
	.walk		= bench_bpf_walk,
	.bytes		= bench_bpf_bytes,
};

/* Pairs are allocated with the map. */
static const struct contender bpf_prealloc = {
	.name		= "bpf_prealloc",
	.init		= bench_bpf_init_prealloc,
	.exit		= bench_bpf_exit,
	.find		= bench_bpf_find,
	.insert		= bench_bpf_insert,
	.remove		= bench_bpf_remove,
	.replace	= bench_bpf_replace,
	.walk		= bench_bpf_walk,
	.bytes		= bench_bpf_bytes,
};
#endif

/* --- raw: loads from an array of @room bytes, the physical limit --- */

static int bench_raw_init(struct table *t, const struct shape *s)
{
	t->raw = kvmalloc(t->room, GFP_KERNEL);
	t->scale = div64_ul((u64)(t->room / sizeof(*t->raw)) << 16, t->entries);
	return t->raw ? 0 : -ENOMEM;
}

static void bench_raw_exit(struct table *t, const struct shape *s)
{
	kvfree(t->raw);
}

/* The word of number @i: all over the array, whatever its size. */
static __always_inline u64 *bench_raw_at(struct table *t, const void *key,
					 const struct shape *s)
{
	return &t->raw[(number_of(key, s) * t->scale) >> 16];
}

static __always_inline u64
bench_raw_find(struct table *t, const void *key, const struct shape *s)
{
	return READ_ONCE(*bench_raw_at(t, key, s));
}

static __always_inline void *bench_chunk_of(const u64 *word)
{
	return PTR_ALIGN_DOWN((void *)word, 2 * L1_CACHE_BYTES);
}

static __always_inline u64
bench_raw_sum(struct table *t, const void *keys, u32 n, const struct shape *s)
{
	static u64 *at[MAX_BATCH];
	u64 sum = 0;
	u32 i;

	for (i = 0; i < n; i++, keys += s->chm.key_size) {
		at[i] = bench_raw_at(t, keys, s);
		prefetch(at[i]);
	}
	for (i = 0; i < n; i++)
		sum += READ_ONCE(*at[i]);
	return sum;
}

/*
 * The lines that chm_lookup_many() fetches for a key: both of a chunk of 128 bytes, of
 * which the control word is read, and the pair.
 */
static __always_inline u64
bench_lines_sum(struct table *t, const void *keys, u32 n, const struct shape *s)
{
	static u64 *at[MAX_BATCH];
	u64 sum = 0;
	u32 i;

	for (i = 0; i < n; i++, keys += s->chm.key_size) {
		at[i] = bench_raw_at(t, keys, s);
		prefetch(bench_chunk_of(at[i]));
		prefetch(bench_chunk_of(at[i]) + L1_CACHE_BYTES);
	}
	for (i = 0; i < n; i++)
		sum += READ_ONCE(*at[i]) + READ_ONCE(*(u64 *)bench_chunk_of(at[i]));
	return sum;
}

static __always_inline int
bench_raw_insert(struct table *t, const void *key, const void *value,
		 const struct shape *s)
{
	*bench_raw_at(t, key, s) = number_of(value, s);
	return 0;
}

static const struct contender raw = {
	.name		= "raw",
	.dense		= true,
	.init		= bench_raw_init,
	.exit		= bench_raw_exit,
	.find		= bench_raw_find,
	.sum		= bench_raw_sum,
	.insert		= bench_raw_insert,
};

static const struct contender raw_lines = {
	.name		= "raw_lines",
	.dense		= true,
	.blind		= true,		/* Control words are in its sums. */
	.init		= bench_raw_init,
	.exit		= bench_raw_exit,
	.find		= bench_raw_find,
	.sum		= bench_lines_sum,
	.insert		= bench_raw_insert,
};

/*
 * --- floor: what inserting and removing take at least, in an array of @room bytes ---
 *
 * As in chm, a call takes a lock, with interrupts off, and hashes the key.  It reads
 * and writes the control word of a chunk, and the pair in its other line.  It searches
 * nothing, and looks after nothing.
 */

static int bench_floor_init(struct table *t, const struct shape *s)
{
	spin_lock_init(&t->lock);
	t->raw = kvzalloc(t->room, GFP_KERNEL);
	return t->raw ? 0 : -ENOMEM;
}

static __always_inline u64 *bench_floor_chunk(struct table *t, const void *key,
					      const struct shape *s)
{
	u64 hash = chm_hash_bytes(key, s->chm.key_size, t->room);
	u64 chunks = t->room / (2 * L1_CACHE_BYTES);

	return (void *)t->raw + below(hash, chunks) * 2 * L1_CACHE_BYTES;
}

static __always_inline int
bench_floor_insert(struct table *t, const void *key, const void *value,
		   const struct shape *s)
{
	u64 *chunk = bench_floor_chunk(t, key, s), *pair = &chunk[L1_CACHE_BYTES / 8];
	unsigned long flags;

	prefetch(pair);
	spin_lock_irqsave(&t->lock, flags);
	memcpy(pair, key, s->chm.key_size);
	memcpy((void *)pair + s->chm.key_size, value, s->chm.value_size);
	/* As chm publishes the pair; no reader looks. */
	smp_store_release(chunk, READ_ONCE(*chunk) + 1);
	spin_unlock_irqrestore(&t->lock, flags);
	return 0;
}

static __always_inline int
bench_floor_remove(struct table *t, const void *key, const struct shape *s)
{
	u64 *chunk = bench_floor_chunk(t, key, s), *pair = &chunk[L1_CACHE_BYTES / 8];
	unsigned long flags;

	prefetch(pair);
	spin_lock_irqsave(&t->lock, flags);
	/* Another may have overwritten it: this is no table. */
	if (!memcmp(pair, key, s->chm.key_size))
		WRITE_ONCE(*chunk, READ_ONCE(*chunk) - 1);
	spin_unlock_irqrestore(&t->lock, flags);
	return 0;
}

static const struct contender floor = {
	.name		= "floor",
	.init		= bench_floor_init,
	.exit		= bench_raw_exit,
	.blind		= true,
	.find		= bench_raw_find,
	.insert		= bench_floor_insert,
	.remove		= bench_floor_remove,
};

/* --- empty: what the loops cost, and the keys that they make --- */

static int bench_empty_init(struct table *t, const struct shape *s)
{
	return 0;
}

static void bench_empty_exit(struct table *t, const struct shape *s)
{
}

static __always_inline u64
bench_empty_find(struct table *t, const void *key, const struct shape *s)
{
	return number_of(key, s);
}

static __always_inline int
bench_empty_insert(struct table *t, const void *key, const void *value,
		   const struct shape *s)
{
	OPTIMIZER_HIDE_VAR(key);
	OPTIMIZER_HIDE_VAR(value);
	return 0;
}

static const struct contender empty = {
	.name		= "empty",
	.blind		= true,
	.init		= bench_empty_init,
	.exit		= bench_empty_exit,
	.find		= bench_empty_find,
	.insert		= bench_empty_insert,
};

/* === Latencies =========================================================== */

/* The time stamp counter where there is one, else nanoseconds. */
static __always_inline u64 ticks(void)
{
#ifdef CONFIG_X86_64
	u32 low, high;

	/* What comes before is done, and what comes after has not begun. */
	asm volatile("lfence; rdtsc; lfence" : "=a" (low), "=d" (high) :: "memory");
	return (u64)high << 32 | low;
#else
	return ktime_get_ns();
#endif
}

/* ns per tick, << 20 */
static u64 tick_length;

static void measure_ticks(void)
{
	u64 start = ktime_get_ns(), first = ticks(), ns;

	do {
		ns = ktime_get_ns() - start;
	} while (ns < 20 * NSEC_PER_MSEC);
	tick_length = div64_u64(ns << 20, max(ticks() - first, 1ULL));
}

/* --- spin: as long as an insertion takes, which interrupts make longer --- */

#define SPIN_NS		200

static __always_inline int
bench_spin_insert(struct table *t, const void *key, const void *value,
		  const struct shape *s)
{
	u64 start = ticks();

	while (((ticks() - start) * tick_length) >> 20 < SPIN_NS)
		cpu_relax();
	return 0;
}

static const struct contender spin = {
	.name		= "spin",
	.blind		= true,
	.init		= bench_empty_init,
	.exit		= bench_empty_exit,
	.find		= bench_empty_find,
	.insert		= bench_spin_insert,
};

/* Log-linear: 2^FINE buckets for each power of two, so 3 % apart. */
#define FINE		5
#define NR_BUCKETS	((64 - FINE + 1) << FINE)

struct histogram {
	u64	count;
	u64	max;
	u32	buckets[NR_BUCKETS];
};

static __always_inline u32 bucket_of(u64 t)
{
	u32 shift = t >> FINE ? fls64(t) - FINE - 1 : 0;

	return (shift << FINE) + (t >> shift);
}

/* The most that a bucket has. */
static u64 bucket_end(u32 i)
{
	u32 shift = i >> FINE ? (i >> FINE) - 1 : 0;

	return ((u64)(i - (shift << FINE) + 1) << shift) - 1;
}

static __always_inline void note(struct histogram *h, u64 t)
{
	h->count++;
	h->max = max(h->max, t);
	h->buckets[bucket_of(t)]++;
}

/* What @part of 10,000 do not exceed, in ticks. */
static u64 quantile(const struct histogram *h, u32 part)
{
	u64 left = div_u64(h->count * part + 9999, 10000);
	u32 i;

	for (i = 0; i < NR_BUCKETS && left > h->buckets[i]; i++)
		left -= h->buckets[i];
	return min(bucket_end(i), h->max);
}

/* === Loops =============================================================== */

/* One measurement of one contender: @ops operations on @t. */
struct job {
	struct table	*t;
	u64		n;	/* numbers that it uses; for churn, a power of two */
	u64		ops;
	u64		seed;	/* where the random numbers begin; moves on */
	u64		first;	/* the next number to insert */
	u32		batch;
	u64		errors;	/* operations that went wrong */
	u64		refused; /* insertions that had to be tried again */
	struct histogram *h;	/* of loops that note how long each call takes */
};

static __always_inline u64 find_number(const struct contender *c,
				       struct job *j, u64 i,
				       const struct shape *s)
{
	u8 key[MAX_KEY] __aligned(sizeof(u64)) __uninitialized;
	u64 found;

	make_key(s, key, i, c->dense);
	rcu_read_lock();
	found = c->find(j->t, key, s);
	rcu_read_unlock();
	return found;
}

/*
 * @ops look-ups in stretches.  Of random numbers below twice the number of
 * pairs, hits have @from 0 and @span 1, misses 1 and 1, a mixture 0 and 2.
 */
static __always_inline void loop_find(const struct contender *c, struct job *j,
				      const struct shape *s, u32 from, u32 span)
{
	u64 first = from * j->n, n = span * j->n;
	u64 x = j->seed, hits = 0, left = j->ops;

	while (left) {
		u32 k = min_t(u64, left, STRETCH);

		for (left -= k; k; k--) {
			x = next_random(x);
			hits += find_number(c, j, first + below(x, n), s) != ABSENT;
		}
		give_way();
	}
	j->seed = x;
	if (!c->blind && (from ? hits : (span == 1 && hits != j->ops)))
		j->errors++;
}

static __always_inline void loop_hit(const struct contender *c, struct job *j,
				     const struct shape *s)
{
	loop_find(c, j, s, 0, 1);
}

static __always_inline void loop_miss(const struct contender *c, struct job *j,
				      const struct shape *s)
{
	loop_find(c, j, s, 1, 1);
}

static __always_inline void loop_mixed(const struct contender *c,
				       struct job *j, const struct shape *s)
{
	loop_find(c, j, s, 0, 2);
}

/* The next key depends on the value found, so cache misses can't overlap. */
static __always_inline void loop_dep(const struct contender *c, struct job *j,
				     const struct shape *s)
{
	u64 x = j->seed, left = j->ops;

	while (left) {
		u32 k = min_t(u64, left, STRETCH);

		for (left -= k; k; k--) {
			u64 i = below(x, j->n);
			u64 found = find_number(c, j, i, s);

			j->errors += !c->blind && found != i;
			x = next_random(x + found);
		}
		give_way();
	}
	j->seed = x;
}

/* Batches of j->batch keys that are made first. */
static __always_inline void loop_many(const struct contender *c,
				      struct job *j, const struct shape *s)
{
	static u8 keys[MAX_BATCH * MAX_KEY] __aligned(sizeof(u64));
	u64 x = j->seed, sum = 0, expected = 0, done;
	u32 size = s->chm.key_size;

	for (done = 0; done < j->ops; done += j->batch) {
		u32 k;

		for (k = 0; k < j->batch; k++) {
			u64 i;

			x = next_random(x);
			i = below(x, j->n);
			expected += i;
			make_key(s, keys + k * size, i, c->dense);
		}
		rcu_read_lock();
		if (c->sum) {
			sum += c->sum(j->t, keys, j->batch, s);
		} else {
			for (k = 0; k < j->batch; k++)
				sum += c->find(j->t, keys + k * size, s);
		}
		rcu_read_unlock();
		if (!(done & (STRETCH - 1)))
			give_way();
	}
	j->seed = x;
	if (!c->blind && sum != expected)
		j->errors++;
}

static __always_inline int insert_number(const struct contender *c,
					 struct job *j, u64 i,
					 const struct shape *s)
{
	u8 key[MAX_KEY] __aligned(sizeof(u64)) __uninitialized;
	u8 value[MAX_VALUE] __aligned(sizeof(u64)) __uninitialized;

	make_key(s, key, i, c->dense);
	make_value(s, value, i);
	return c->insert(j->t, key, value, s);
}

/* Memory, or a table that is being replaced, may be there a little later. */
static __always_inline int insert_surely(const struct contender *c,
					 struct job *j, u64 i,
					 const struct shape *s)
{
	u32 tries = 1000;
	int ret;

	do {
		ret = insert_number(c, j, i, s);
		if (likely(ret != -ENOMEM && ret != -EBUSY))
			break;
		j->refused++;
		give_way();
	} while (--tries);
	return ret;
}

static __always_inline int remove_number(const struct contender *c,
					 struct job *j, u64 i,
					 const struct shape *s)
{
	u8 key[MAX_KEY] __aligned(sizeof(u64)) __uninitialized;

	make_key(s, key, i, c->dense);
	return c->remove(j->t, key, s);
}

/* As many as are missing, in batches that are made first. */
static __always_inline void loop_insert_many(const struct contender *c,
					     struct job *j, const struct shape *s)
{
	static u8 keys[MAX_BATCH * MAX_KEY] __aligned(sizeof(u64));
	static u8 values[MAX_BATCH * MAX_VALUE] __aligned(sizeof(u64));
	u64 left = j->ops;

	while (left) {
		u32 n = min_t(u64, left, MAX_BATCH), k;

		for (k = 0; k < n; k++) {
			make_key(s, keys + k * s->chm.key_size, j->first, c->dense);
			make_value(s, values + k * s->chm.value_size, j->first++);
		}
		j->errors += n - c->insert_many(j->t, keys, values, n, s);
		left -= n;
		give_way();
	}
}

static __always_inline void loop_insert(const struct contender *c,
					struct job *j, const struct shape *s)
{
	u64 i;

	if (c->insert_many) {
		loop_insert_many(c, j, s);
		return;
	}
	for (i = 0; i < j->ops; i++) {
		if (insert_surely(c, j, j->first++, s))
			j->errors++;
		if (!(i & (STRETCH - 1)))
			give_way();
	}
}

/*
 * Remove a pair, insert a new one.  Numbers come in order and go in another,
 * so that the nodes of those who have some are scattered as they are in a table
 * that has run for long.
 */
static __always_inline void loop_churn(const struct contender *c,
				       struct job *j, const struct shape *s)
{
	u64 n = j->n;
	u64 i;

	if (!c->remove)
		return;
	for (i = 0; i < j->ops; i++) {
		u64 oldest = (j->first - n) & ~(n - 1);
		u64 victim = oldest + (j->first * 0x9e3779b1ULL & (n - 1));

		if (remove_number(c, j, victim, s) ||
		    insert_surely(c, j, j->first, s))
			j->errors++;
		j->first++;
		if (!(i & (STRETCH - 1)))
			give_way();
	}
}

static __always_inline void loop_replace(const struct contender *c,
					 struct job *j, const struct shape *s)
{
	u8 key[MAX_KEY] __aligned(sizeof(u64)) __uninitialized;
	u8 value[MAX_VALUE] __aligned(sizeof(u64)) __uninitialized;
	u64 i;

	if (!c->replace)
		return;
	for (i = 0; i < j->ops; i++) {
		u64 number;

		j->seed = next_random(j->seed);
		number = below(j->seed, j->n);
		make_key(s, key, number, c->dense);
		make_value(s, value, number);
		if (c->replace(j->t, key, value, s))
			j->errors++;
		if (!(i & (STRETCH - 1)))
			give_way();
	}
}

/* Inserts numbers in order, and tells those who look how far it has come. */
static __always_inline void loop_insert_noted(const struct contender *c,
					      struct job *j,
					      const struct shape *s)
{
	u64 i;

	for (i = 0; i < j->ops; i++) {
		u64 start = ticks();

		if (insert_surely(c, j, j->first++, s))
			j->errors++;
		note(j->h, ticks() - start);
		/* Pairs with loop_find_noted(). */
		smp_store_release(&j->t->published, j->first);
	}
	give_way();
}

/* Looks for numbers that were inserted. */
static __always_inline void loop_find_noted(const struct contender *c,
					    struct job *j,
					    const struct shape *s)
{
	/* Pairs with loop_insert_noted(). */
	u64 n = smp_load_acquire(&j->t->published);
	u64 i;

	for (i = 0; n && i < j->ops; i++) {
		u64 number, found, start;

		j->seed = next_random(j->seed);
		number = below(j->seed, n);
		start = ticks();
		found = find_number(c, j, number, s);
		note(j->h, ticks() - start);
		j->errors += !c->blind && found != number;
	}
	give_way();
}

static __always_inline void loop_walk(const struct contender *c,
				      struct job *j, const struct shape *s)
{
	if (c->walk && c->walk(j->t, s) != j->t->entries)
		j->errors++;
}

/* === Instances =========================================================== */

typedef void (*loop_fn)(struct job *j);

enum loop {
	HIT, DEP, MISS, MIXED, MANY, INSERT, CHURN, REPLACE, WALK,
	FIND_NOTED, INSERT_NOTED, NR_OPS
};

/* A contender for one size of pairs: what was inlined, to be called. */
struct instance {
	const struct contender	*c;
	const struct shape	*s;
	loop_fn			loops[NR_OPS];
};

#define DEFINE_LOOP(loop, c, s)						\
static void loop##_##c##_##s(struct job *j)				\
{									\
	loop(&(c), j, &(s));						\
}

#define DEFINE_INSTANCE(c_, s_)						\
DEFINE_LOOP(loop_hit, c_, s_)						\
DEFINE_LOOP(loop_dep, c_, s_)						\
DEFINE_LOOP(loop_miss, c_, s_)						\
DEFINE_LOOP(loop_mixed, c_, s_)						\
DEFINE_LOOP(loop_many, c_, s_)						\
DEFINE_LOOP(loop_insert, c_, s_)					\
DEFINE_LOOP(loop_churn, c_, s_)						\
DEFINE_LOOP(loop_replace, c_, s_)					\
DEFINE_LOOP(loop_walk, c_, s_)						\
DEFINE_LOOP(loop_find_noted, c_, s_)					\
DEFINE_LOOP(loop_insert_noted, c_, s_)					\
									\
static const struct instance c_##_##s_ = {				\
	.c = &c_,							\
	.s = &s_,							\
	.loops = {							\
		[HIT]		= loop_hit_##c_##_##s_,			\
		[DEP]		= loop_dep_##c_##_##s_,			\
		[MISS]		= loop_miss_##c_##_##s_,		\
		[MIXED]		= loop_mixed_##c_##_##s_,		\
		[MANY]		= loop_many_##c_##_##s_,		\
		[INSERT]	= loop_insert_##c_##_##s_,		\
		[CHURN]		= loop_churn_##c_##_##s_,		\
		[REPLACE]	= loop_replace_##c_##_##s_,		\
		[WALK]		= loop_walk_##c_##_##s_,		\
		[FIND_NOTED]	= loop_find_noted_##c_##_##s_,		\
		[INSERT_NOTED]	= loop_insert_noted_##c_##_##s_,	\
	},								\
}

#define BENCH_PARAMS(k, v, c) {						\
	.key_size = (k),						\
	.value_size = (v),						\
	.value_offset = (k),						\
	.slot_size = (k) + (v),						\
	.class = (c),							\
}

#define DEFINE_SHAPE(k, v)						\
static const struct chm_params params_##k##_##v =			\
	BENCH_PARAMS(k, v, CHM_FROZEN);					\
									\
static __always_inline u32 rht_hash_##k##_##v(const void *key, u32 len,	\
					      u32 seed)			\
{									\
	return chm_hash_bytes(key, k, seed);				\
}									\
									\
static __always_inline int						\
rht_compare_##k##_##v(struct rhashtable_compare_arg *arg, const void *obj) \
{									\
	return !__chm_equal(((const struct rht_node *)obj)->bytes,	\
			    arg->key, &params_##k##_##v);		\
}									\
									\
static const struct shape shape_##k##_##v = {				\
	.chm	= BENCH_PARAMS(k, v, CHM_FROZEN),			\
	.word	= BENCH_PARAMS(k, v, CHM_WORD),				\
	.rht	= {							\
		.key_len	= k,					\
		.key_offset	= offsetof(struct rht_node, bytes),	\
		.head_offset	= offsetof(struct rht_node, link),	\
		.hashfn		= rht_hash_##k##_##v,			\
		.obj_cmpfn	= rht_compare_##k##_##v,		\
	},								\
};									\
									\
DEFINE_INSTANCE(chm, shape_##k##_##v);					\
DEFINE_INSTANCE(chm_typed, shape_##k##_##v);				\
DEFINE_INSTANCE(rht, shape_##k##_##v);					\
DEFINE_INSTANCE(hlist, shape_##k##_##v);				\
DEFINE_INSTANCE(empty, shape_##k##_##v);				\
DEFINE_INSTANCE(raw, shape_##k##_##v);					\
DEFINE_INSTANCE(raw_lines, shape_##k##_##v)

DEFINE_SHAPE(4, 4);
DEFINE_SHAPE(8, 8);
DEFINE_SHAPE(16, 16);
DEFINE_SHAPE(40, 24);
DEFINE_SHAPE(64, 192);
DEFINE_INSTANCE(xarray, shape_8_8);
DEFINE_INSTANCE(chm_word, shape_8_8);
DEFINE_INSTANCE(chm_many, shape_8_8);
DEFINE_INSTANCE(spin, shape_8_8);
DEFINE_INSTANCE(floor, shape_8_8);
#ifdef BENCH_HAS_BPF
DEFINE_INSTANCE(bpf_hash, shape_8_8);
DEFINE_INSTANCE(bpf_prealloc, shape_8_8);
#define BPF_INSTANCES	.bpf_prealloc = &bpf_prealloc_shape_8_8, .bpf = &bpf_hash_shape_8_8
#else
#define BPF_INSTANCES	.bpf_prealloc = NULL, .bpf = NULL
#endif

/* All that compete for one size of pairs. */
struct field {
	const struct instance *chm;
	const struct instance *typed;
	const struct instance *rht;
	const struct instance *hlist;
	const struct instance *empty;
	const struct instance *raw;
	const struct instance *lines;
	const struct instance *xarray;	/* or NULL */
	const struct instance *word;	/* or NULL */
	const struct instance *many;	/* or NULL */
	const struct instance *floor;	/* or NULL */
	const struct instance *bpf_prealloc; /* or NULL */
	const struct instance *bpf;	/* or NULL */
};

#define FIELD(k, v, ...) {						\
	.chm	= &chm_shape_##k##_##v,					\
	.typed	= &chm_typed_shape_##k##_##v,				\
	.rht	= &rht_shape_##k##_##v,					\
	.hlist	= &hlist_shape_##k##_##v,				\
	.empty	= &empty_shape_##k##_##v,				\
	.raw	= &raw_shape_##k##_##v,					\
	.lines	= &raw_lines_shape_##k##_##v,				\
	__VA_ARGS__							\
}

static const struct field fields[] = {
	FIELD(8, 8, .xarray = &xarray_shape_8_8, .word = &chm_word_shape_8_8,
	      .many = &chm_many_shape_8_8, .floor = &floor_shape_8_8, BPF_INSTANCES),
	FIELD(4, 4),
	FIELD(16, 16),
	FIELD(40, 24),
	FIELD(64, 192),
};

/* BPF's allocator is refilled by irq_work: at the next tick, where nothing else can. */
static const struct instance *bpf_of(const struct field *f)
{
#ifdef BENCH_HAS_BPF
	if (!arch_irq_work_has_interrupt())
		return NULL;
#endif
	return f->bpf;
}

/* === Results ============================================================= */

/* What one measurement may yield: most have but the first. */
#define NR_SERIES	20

enum { FIRST };

/* One contender in one measurement. */
struct entrant {
	const struct instance	*in;
	struct table		*t;
	bool			owner;		/* of t */
	unsigned long		entries;
	u32			load;		/* percent of the slots; 0: none */
	u64			bytes;		/* per entry, times 100 */
	struct job		job;
	struct job		other;		/* of another CPU, beside that */
	/* ns per operation, times 100 */
	u64			samples[NR_SERIES][MAX_ROUNDS];
};

/* What one result is about. */
struct result {
	const char	*op;
	const char	*contender;
	u64		entries;
	const struct shape *s;
	u32		load;
	u64		bytes;		/* per entry, times 100 */
	u64		refused;	/* insertions */
};

static unsigned long failures;
static unsigned long results;

static int compare_samples(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

/* Text that grows; what does not fit is left out, and seen by the reader. */
struct text {
	char	s[900];
	size_t	len;
};

#define say(t, fmt, ...)						\
	((t)->len += scnprintf((t)->s + (t)->len, sizeof((t)->s) - (t)->len, \
			       fmt, ##__VA_ARGS__))

static void say_fixed(struct text *t, const char *before, u64 x)
{
	say(t, "%s%llu.%02llu", before, x / 100, x % 100);
}

/* Print a result with @n samples, which may be none. */
static void report(const struct result *r, const u64 *samples, u32 n)
{
	static struct text t;
	u64 sorted[MAX_ROUNDS + 1] = { };
	u32 i;

	if (n)
		memcpy(sorted, samples, n * sizeof(*samples));
	sort(sorted, n, sizeof(*sorted), compare_samples, NULL);
	t.len = 0;
	say(&t, "{\"op\":\"%s\",\"contender\":\"%s\",\"entries\":%llu",
	    r->op, r->contender, r->entries);
	say(&t, ",\"key\":%u,\"value\":%u,\"load\":%u", r->s->chm.key_size,
	    r->s->chm.value_size, r->load);
	say_fixed(&t, ",\"ns_median\":", sorted[n / 2]);
	say_fixed(&t, ",\"ns_min\":", sorted[0]);
	say_fixed(&t, ",\"ns_max\":", sorted[n ? n - 1 : 0]);
	say_fixed(&t, ",\"bytes_per_entry\":", r->bytes);
	say(&t, ",\"refused\":%llu,\"rounds\":%u,\"samples\":[", r->refused, n);
	for (i = 0; i < n; i++)
		say_fixed(&t, i ? "," : "", samples[i]);
	say(&t, "]}");
	pr_info("%s\n", t.s);
	results++;
}

static u64 bytes_of(const struct entrant *e)
{
	const struct contender *c = e->in->c;

	return c->bytes ? c->bytes(e->t, e->in->s) : 0;
}

static u64 bytes_per_entry(const struct entrant *e)
{
	return e->entries ? div64_u64(bytes_of(e) * 100, e->entries) : 0;
}

static void report_entrant(const struct entrant *e, const char *name,
			   u32 which)
{
	struct result r = {
		.op		= name,
		.contender	= e->in->c->name,
		.entries	= e->entries,
		.s		= e->in->s,
		.load		= e->load,
		.bytes		= e->bytes,
		.refused	= e->job.refused + e->other.refused,
	};
	u64 errors = e->job.errors + e->other.errors;

	report(&r, e->samples[which], rounds);
	if (!errors)
		return;
	pr_err("%s of %s: %llu operations went wrong\n", name, r.contender,
	       errors);
	failures++;
}

static void report_bytes(const struct entrant *e, const char *op, u64 bytes)
{
	struct result r = {
		.op		= op,
		.contender	= e->in->c->name,
		.entries	= e->entries,
		.s		= e->in->s,
		.bytes		= bytes,
	};

	report(&r, NULL, 0);
}

/* === Measurements ======================================================== */

static bool full;	/* all sizes, and what no target is about */

/* Is @op one of the names in @run, or are all? */
static bool wanted(const char *op)
{
	size_t len = strlen(op);
	const char *at;

	if (!strcmp(run, "quick") || !strcmp(run, "full"))
		return true;
	for (at = run; (at = strstr(at, op)); at += len) {
		if ((at == run || at[-1] == ',') &&
		    (!at[len] || at[len] == ','))
			return true;
	}
	return false;
}

/* One sample, in ns per operation times 100. */
static u64 sample(struct entrant *e, enum loop kind, u64 ops)
{
	u64 start = ktime_get_ns();

	e->job.ops = ops;
	e->in->loops[kind](&e->job);
	return div64_u64((ktime_get_ns() - start) * 100, ops);
}

/* The entrants of a group of measurements. */
struct roster {
	struct entrant	e[14];
	u32		n;
	int		ret;		/* the first failure */
};

/* Rounds in which @n entrants take turns, after one that does not count. */
static void measure_surely(struct entrant *e, u32 n, const char *name,
			   enum loop kind, u64 ops, u32 batch)
{
	int round;
	u32 i;

	for (i = 0; i < n; i++) {
		e[i].job.errors = 0;
		e[i].job.refused = 0;
		e[i].job.batch = batch;
	}
	for (round = -1; round < (int)rounds; round++) {
		for (i = 0; i < n; i++)
			e[i].samples[FIRST][max(round, 0)] =
				sample(&e[i], kind, ops);
	}
	for (i = 0; i < n; i++) {
		e[i].bytes = bytes_per_entry(&e[i]);
		report_entrant(&e[i], name, FIRST);
	}
}

static void measure(struct entrant *e, u32 n, const char *name, enum loop kind,
		    u64 ops, u32 batch)
{
	if (wanted(name))
		measure_surely(e, n, name, kind, ops, batch);
}

/* The memory of a contender's nodes; NULL if it has none, or there is none. */
static struct kmem_cache *create_nodes(const struct instance *in)
{
	const char *name = in->c->name;

	return in->c->node ? kmem_cache_create(name, in->c->node +
					       pair_size(in->s), 0, 0, NULL) :
			     NULL;
}

/* Nodes that kfree_rcu() still holds belong to the cache. */
static void destroy_nodes(struct kmem_cache *nodes)
{
	if (!nodes)
		return;
	rcu_barrier();
	kmem_cache_destroy(nodes);
}

static int init_table(struct table *t, const struct instance *in)
{
	if (in->c->node && !t->nodes)
		return -ENOMEM;
	return in->c->init(t, in->s);
}

static int open_table(struct entrant *e, const struct instance *in,
		      unsigned long n, unsigned long room)
{
	struct table *t = kzalloc_obj(*t, GFP_KERNEL);
	int ret;

	*e = (struct entrant) { .in = in, .entries = n, .owner = true };
	if (!t)
		return -ENOMEM;
	t->entries = n;
	t->room = room;
	t->nodes = create_nodes(in);
	ret = init_table(t, in);
	if (ret) {
		destroy_nodes(t->nodes);
		kfree(t);
		return ret;
	}
	e->t = t;
	e->job.t = t;
	e->job.n = n;
	e->job.seed = 1;
	return 0;
}

static void close_table(struct entrant *e)
{
	struct table *t = e->t;

	e->t = NULL;
	if (!t || !e->owner)
		return;
	e->in->c->exit(t, e->in->s);
	destroy_nodes(t->nodes);
	kfree(t);
}

static int fill(struct entrant *e)
{
	e->job.ops = e->t->entries;
	e->in->loops[INSERT](&e->job);
	return e->job.errors ? -ENOMEM : 0;
}

/* Percent of the slots of a chm map that hold pairs. */
static u32 load_of(struct table *t)
{
	struct chm_stats stats;

	chm_stats(&t->chm, &stats);
	return div64_ul(stats.entries * 100ULL + stats.slots / 2, stats.slots);
}

static bool is_chm(const struct entrant *e)
{
	return e->in->c->exit == bench_chm_exit;
}

static struct entrant *next_entrant(struct roster *r)
{
	if (r->n == ARRAY_SIZE(r->e))
		r->ret = r->ret ?: -E2BIG;
	return &r->e[r->n];
}

/* An entrant more, with @n pairs in a table that has room for @room. */
static void enter(struct roster *r, const struct instance *in, unsigned long n,
		  unsigned long room)
{
	struct entrant *e = next_entrant(r);

	if (!in || r->ret)
		return;
	r->n++;
	r->ret = open_table(e, in, n, room);
	if (!r->ret)
		r->ret = fill(e);
	/* What grows in the background is done with it. */
	if (!r->ret)
		e->bytes = bytes_per_entry(e);
	if (!r->ret && is_chm(e))
		e->load = load_of(e->t);
}

/* The table of entrant @of once more, used in another way. */
static void enter_again(struct roster *r, const struct instance *in, u32 of)
{
	struct entrant *e = next_entrant(r);

	if (r->ret)
		return;
	*e = r->e[of];
	e->in = in;
	e->owner = false;
	r->n++;
}

static void dismiss(struct roster *r)
{
	while (r->n)
		close_table(&r->e[--r->n]);
	if (!r->ret)
		return;
	pr_err("a table could not be filled, or not so: error %d\n", r->ret);
	failures++;
	r->ret = 0;
}

static struct roster roster;

/* Are pairs with the numbers from @first on, which is all, where they are looked for? */
static void check_pairs(struct entrant *e, u64 first)
{
	u64 lost = 0, i;
	int ret = 0;

	for (i = first; i < first + e->entries; i++) {
		lost += find_number(e->in->c, &e->job, i, e->in->s) != i;
		if (!(i % STRETCH))
			give_way();
	}
	if (is_chm(e))
		ret = chm_count(&e->t->chm) == e->entries ? chm_verify(&e->t->chm) :
							    -ERANGE;
	if (!lost && !ret && !e->job.errors)
		return;
	pr_err("%s, %lu entries: %llu operations went wrong, %llu pairs are lost, error %d\n",
	       e->in->c->name, e->entries, e->job.errors, lost, ret);
	failures++;
}

static u64 ops_for(unsigned long n)
{
	return n >> 18 ? SZ_256K : SZ_1M;
}

/* Look-ups; in chm maps just before growth, halfway there, and just grown. */
static void measure_finds(const struct field *f, unsigned long n)
{
	struct roster *r = &roster;
	u64 ops = ops_for(n);

	if (!wanted("hit") && !wanted("dep") && !wanted("miss") &&
	    !wanted("mixed") && !wanted("many1") && !wanted("many8") &&
	    !wanted("many32") && !wanted("many64") && !wanted("many256"))
		return;
	enter(r, f->typed, n, n);
	enter(r, f->typed, n, n + n / 5);
	enter(r, f->typed, n, n + n * 2 / 5);
	if (full) {
		enter_again(r, f->chm, 0);
		enter_again(r, f->chm, 1);
		enter_again(r, f->chm, 2);
	}
	enter(r, f->rht, n, 0);
	enter(r, f->hlist, n, n);
	enter(r, f->xarray, n, 0);
	enter(r, f->bpf_prealloc, n, n);
	enter(r, bpf_of(f), n, n);
	enter(r, f->empty, n, 0);
	if (!r->ret)
		enter(r, f->raw, n, bytes_of(&r->e[1]));
	enter_again(r, f->lines, r->n - 1);
	if (!r->ret) {
		/* A single look-up does not need both lines. */
		measure(r->e, r->n - 1, "hit", HIT, ops, 1);
		measure(r->e, r->n - 1, "dep", DEP, ops, 1);
		/* There is nothing beyond the array of raw loads. */
		measure(r->e, r->n - 2, "miss", MISS, ops, 1);
		if (full) {
			measure(r->e, r->n - 2, "mixed", MIXED, ops, 1);
			measure(r->e, r->n, "many1", MANY, ops, 1);
			measure(r->e, r->n, "many8", MANY, ops, 8);
			measure(r->e, r->n, "many64", MANY, ops, 64);
		}
		measure(r->e, r->n, "many32", MANY, ops, 32);
		measure(r->e, r->n, "many256", MANY, ops, 256);
	}
	dismiss(r);
}

/* Every pair of a table: one by one, or under one rcu_read_lock() (chm_typed). */
static void measure_walks(const struct field *f, unsigned long n)
{
	struct roster *r = &roster;

	if (!wanted("iterate"))
		return;
	enter(r, f->chm, n, 0);
	enter_again(r, f->typed, 0);
	enter(r, f->rht, n, 0);
	enter(r, f->hlist, n, n);
	enter(r, f->xarray, n, 0);
	enter(r, f->bpf_prealloc, n, n);
	enter(r, bpf_of(f), n, n);
	if (!r->ret)
		measure(r->e, r->n, "iterate", WALK, n, 1);
	dismiss(r);
}

/* Insert and remove, or replace, in tables that stay as large as they are. */
static void measure_updates(const struct field *f, unsigned long n)
{
	struct roster *r = &roster;
	u64 ops = churn ?: full ? 2000000 : 500000;

	if (wanted("churn")) {
		enter(r, f->chm, n, 0);
		enter(r, f->rht, n, 0);
		enter(r, f->hlist, n, n);
		enter(r, f->xarray, n, 0);
		enter(r, f->bpf_prealloc, n, n);
		enter(r, bpf_of(f), n, n);
		/* chm's table is as large by then as it becomes. */
		if (!r->ret)
			sample(&r->e[0], CHURN, ops);
		enter(r, f->floor, n, bytes_of(&r->e[0]));
		if (!r->ret)
			measure(r->e, r->n, "churn", CHURN, ops, 1);
		dismiss(r);
	}
	if (!full || !wanted("replace"))
		return;
	enter(r, f->chm, n, 0);
	enter(r, f->word, n, 0);
	enter(r, f->rht, n, 0);
	enter(r, f->hlist, n, n);
	enter(r, f->bpf_prealloc, n, n);
	enter(r, bpf_of(f), n, n);
	if (!r->ret)
		measure(r->e, r->n, "replace", REPLACE, ops_for(n), 1);
	dismiss(r);
}

/* One round of a table's life: filled from empty, destroyed. */
enum { FILLED = FIRST, DESTROYED };

static int live(struct entrant *e, const struct instance *in, unsigned long n,
		unsigned long room, u32 round)
{
	u64 start, filled, closing;
	static struct entrant now;
	int ret;

	ret = open_table(&now, in, n, room);
	start = ktime_get_ns();
	if (!ret)
		ret = fill(&now);
	filled = ktime_get_ns();
	e->in = in;
	e->entries = n;
	e->bytes = ret ? 0 : bytes_per_entry(&now);
	e->job.errors += now.job.errors;
	e->job.refused += now.job.refused;
	closing = ktime_get_ns();
	close_table(&now);
	e->samples[DESTROYED][round] =
		div64_ul((ktime_get_ns() - closing) * 100, n);
	e->samples[FILLED][round] = div64_ul((filled - start) * 100, n);
	return ret;
}

static void report_lives(const struct entrant *e, u32 n, const char *insert)
{
	u32 i;

	for (i = 0; i < n; i++)
		report_entrant(&e[i], insert, FILLED);
	for (i = 0; full && i < n; i++)
		report_entrant(&e[i], "destroy", DESTROYED);
}

static void measure_lives_surely(const struct instance *const *in, u32 nr_in,
				 const char *insert, unsigned long n,
				 unsigned long room)
{
	struct roster *r = &roster;
	u32 round, i;

	memset(r, 0, sizeof(*r));
	for (round = 0; round < rounds && !r->ret; round++) {
		for (i = 0; i < nr_in && in[i] && !r->ret; i++)
			r->ret = live(&r->e[i], in[i], n, room, round);
	}
	if (!r->ret)
		report_lives(r->e, i, insert);
	dismiss(r);
}

static void measure_lives(const struct instance *const *in, u32 nr_in,
			  const char *insert, unsigned long n,
			  unsigned long room)
{
	if (wanted(insert))
		measure_lives_surely(in, nr_in, insert, n, room);
}

static void measure_inserts(const struct field *f, unsigned long n)
{
	const struct instance *growing[] = {
		f->chm, f->rht, f->xarray, f->many, f->bpf_prealloc, bpf_of(f),
	};
	const struct instance *presized[] = {
		f->chm, f->rht, f->hlist, f->bpf_prealloc, bpf_of(f),
	};

	measure_lives(growing, ARRAY_SIZE(growing), "insert", n, 0);
	if (full)
		measure_lives(presized, ARRAY_SIZE(presized),
			      "insert_presized", n, n);
}

/* Copy as many bytes as a table has, to memory that was touched before. */
static u64 memcpy_ns(void *to, const void *from, size_t bytes)
{
	u64 start = ktime_get_ns();
	size_t at, k;

	for (at = 0; at < bytes; at += k) {
		k = min_t(size_t, bytes - at, SZ_1M);
		memcpy(to + at, from + at, k);
		give_way();
	}
	return ktime_get_ns() - start;
}

/* Growth of a table that is as full as it gets. */
static int migrate(struct chm *map, unsigned long n, u64 *ns)
{
	struct chm_stats stats;
	int ret = chm_reserve(map, n + n * 2 / 5, GFP_KERNEL);

	chm_stats(map, &stats);
	*ns = stats.migrated_ns;
	return ret ?: chm_shrink(map, GFP_KERNEL);
}

static int measure_rounds_of_migration(struct entrant *e, size_t bytes)
{
	void *from = kvzalloc(bytes, GFP_KERNEL);
	void *to = kvzalloc(bytes, GFP_KERNEL);
	int ret = from && to ? 0 : -ENOMEM;
	u64 n = e->entries, ns;
	u32 round;

	for (round = 0; round < rounds && !ret; round++) {
		ret = migrate(&e->t->chm, n, &ns);
		e[0].samples[FIRST][round] = div64_u64(ns * 100, n);
		ns = memcpy_ns(to, from, bytes);
		e[1].samples[FIRST][round] = div64_u64(ns * 100, n);
	}
	kvfree(from);
	kvfree(to);
	return ret;
}

static void measure_migration(const struct field *f, unsigned long n)
{
	static const struct contender copy = { .name = "memcpy" };
	struct instance copying = { .c = &copy, .s = f->chm->s };
	struct roster *r = &roster;

	if (!wanted("migrate"))
		return;
	enter(r, f->chm, n, n);
	enter_again(r, &copying, 0);
	if (!r->ret)
		r->ret = measure_rounds_of_migration(r->e,
						     bytes_of(&r->e[0]));
	if (!r->ret) {
		report_entrant(&r->e[0], "migrate", FIRST);
		report_entrant(&r->e[1], "migrate", FIRST);
	}
	dismiss(r);
}

/* === Two CPUs ============================================================ */

/* One of several that work at a time, each on a CPU of its own. */
struct worker {
	struct crew		*crew;
	struct task_struct	*task;
	loop_fn			loop;
	struct job		*job;
	u64			limit;		/* operations; 0: until it is stopped */
	u64			done;
	u64			ns;		/* that they took */
};

struct crew {
	struct worker		w[2];
	u32			n;
	bool			go;
	bool			stop;
	struct completion	finished;	/* one that has a limit */
};

static int work(void *arg)
{
	struct worker *w = arg;
	u64 start;

	/* Pairs with crew_run(). */
	while (!smp_load_acquire(&w->crew->go))
		give_way();
	start = ktime_get_ns();
	while (w->limit ? w->done < w->limit : !READ_ONCE(w->crew->stop)) {
		w->job->ops = w->limit ? min(w->limit - w->done, STRETCH) : STRETCH;
		w->loop(w->job);
		w->done += w->job->ops;
	}
	w->ns = ktime_get_ns() - start;
	if (w->limit)
		complete(&w->crew->finished);
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);
	return 0;
}

static void crew_init(struct crew *crew)
{
	memset(crew, 0, sizeof(*crew));
	init_completion(&crew->finished);
}

static void crew_add(struct crew *crew, loop_fn loop, struct job *job, u64 limit)
{
	struct worker *w = &crew->w[crew->n++];

	*w = (struct worker) {
		.crew = crew, .loop = loop, .job = job, .limit = limit,
	};
}

static int crew_create(struct crew *crew, u32 cpu)
{
	u32 i;

	for (i = 0; i < crew->n; i++, cpu++) {
		struct worker *w = &crew->w[i];
		struct task_struct *task;

		task = kthread_create(work, w, "chm_bench/%u", i);
		if (IS_ERR(task))
			return PTR_ERR(task);
		kthread_bind(task, cpumask_nth(cpu % num_online_cpus(),
					       cpu_online_mask));
		w->task = task;
		wake_up_process(task);
	}
	return 0;
}

/* For @ms, or 0: until all have come to their limits.  The first is on @cpu. */
static int crew_run(struct crew *crew, u32 cpu, u32 ms)
{
	int ret = crew_create(crew, cpu);
	u32 i;

	/* Pairs with work(). */
	smp_store_release(&crew->go, true);
	if (ms)
		msleep(ms);
	for (i = 0; i < crew->n; i++) {
		if (crew->w[i].task && crew->w[i].limit)
			wait_for_completion(&crew->finished);
	}
	WRITE_ONCE(crew->stop, true);
	for (i = 0; i < crew->n; i++) {
		if (crew->w[i].task)
			kthread_stop(crew->w[i].task);
	}
	return ret;
}

/* ns per operation of one, times 100 */
static u64 pace(const struct worker *w)
{
	return div64_u64(w->ns * 100, max(w->done, 1ULL));
}

/* How long the measurements of a round take, and the CPU that has nothing else. */
#define CREW_MS		100
#define OTHER_CPU	1

static bool have_two_cpus(void)
{
	return num_online_cpus() > 1;
}

/* Look-ups of one reader, and of two, in ns for each that any of them makes. */
enum { ONE = FIRST, BOTH };

static int readers_round(struct entrant *e, u32 round)
{
	loop_fn loop = e->in->loops[HIT];
	struct crew crew;
	u64 a, b;
	int ret;

	crew_init(&crew);
	crew_add(&crew, loop, &e->job, 0);
	ret = crew_run(&crew, OTHER_CPU, CREW_MS);
	e->samples[ONE][round] = pace(&crew.w[0]);
	if (ret)
		return ret;
	e->other = e->job;
	e->other.seed = ~e->job.seed;
	crew_init(&crew);
	crew_add(&crew, loop, &e->job, 0);
	crew_add(&crew, loop, &e->other, 0);
	ret = crew_run(&crew, 0, CREW_MS);
	a = pace(&crew.w[0]);
	b = pace(&crew.w[1]);
	e->samples[BOTH][round] = div64_u64(a * b, max(a + b, 1ULL));
	return ret;
}

static void measure_readers(const struct field *f, unsigned long n)
{
	struct roster *r = &roster;
	u32 round, i;

	if (!wanted("readers"))
		return;
	enter(r, f->typed, n, 0);
	enter(r, f->rht, n, 0);
	enter(r, f->hlist, n, n);
	enter(r, f->empty, n, 0);
	for (round = 0; round < rounds; round++) {
		for (i = 0; i < r->n && !r->ret; i++)
			r->ret = readers_round(&r->e[i], round);
	}
	for (i = 0; i < r->n && !r->ret; i++)
		report_entrant(&r->e[i], "readers1", ONE);
	for (i = 0; i < r->n && !r->ret; i++)
		report_entrant(&r->e[i], "readers2", BOTH);
	dismiss(r);
}

/* A reader alone; beside a writer of each kind, and what the writer does then. */
enum { ALONE = FIRST, BESIDE_CHURN, BESIDE_REPLACE, CHURNS, REPLACES };

static int beside_round(struct entrant *e, enum loop kind, u64 *looks, u64 *writes)
{
	struct crew crew;
	int ret;

	crew_init(&crew);
	crew_add(&crew, e->in->loops[kind], &e->other, 0);
	crew_add(&crew, e->in->loops[HIT], &e->job, 0);
	ret = crew_run(&crew, 0, CREW_MS);
	*writes = pace(&crew.w[0]);
	*looks = pace(&crew.w[1]);
	return ret;
}

static int beside_rounds(struct entrant *e, u32 round)
{
	struct crew crew;
	int ret;

	crew_init(&crew);
	crew_add(&crew, e->in->loops[HIT], &e->job, 0);
	ret = crew_run(&crew, OTHER_CPU, CREW_MS);
	e->samples[ALONE][round] = pace(&crew.w[0]);
	ret = ret ?: beside_round(e, CHURN, &e->samples[BESIDE_CHURN][round],
				  &e->samples[CHURNS][round]);
	return ret ?: beside_round(e, REPLACE, &e->samples[BESIDE_REPLACE][round],
				   &e->samples[REPLACES][round]);
}

/*
 * The reader looks for the first half of the pairs, which are replaced; the other
 * half comes and goes.
 */
static void measure_beside(const struct field *f, unsigned long n)
{
	static const char * const names[] = {
		[ALONE]		 = "reader_alone",
		[BESIDE_CHURN]	 = "reader_beside_churn",
		[BESIDE_REPLACE] = "reader_beside_replace",
		[CHURNS]	 = "churn_beside_reader",
		[REPLACES]	 = "replace_beside_reader",
	};
	struct roster *r = &roster;
	u32 round, i, which;

	if (!wanted("beside"))
		return;
	enter(r, f->typed, n, 0);
	enter(r, f->rht, n, 0);
	enter(r, f->hlist, n, n);
	for (i = 0; i < r->n; i++) {
		r->e[i].job.n = n / 2;
		r->e[i].other = r->e[i].job;
		r->e[i].other.seed = 2;
	}
	for (round = 0; round < rounds; round++) {
		for (i = 0; i < r->n && !r->ret; i++)
			r->ret = beside_rounds(&r->e[i], round);
	}
	for (which = 0; which < ARRAY_SIZE(names); which++) {
		for (i = 0; i < r->n && !r->ret; i++)
			report_entrant(&r->e[i], names[which], which);
	}
	dismiss(r);
}

/* ns per insertion, of two that fill one table. */
static int pair_round(struct entrant *e, const struct instance *in,
		      unsigned long n, u32 round)
{
	static struct entrant now;
	struct crew crew;
	int ret = open_table(&now, in, n, 0);

	if (ret)
		return ret;
	now.other = now.job;
	now.other.first = n / 2;
	crew_init(&crew);
	crew_add(&crew, in->loops[INSERT], &now.job, n / 2);
	crew_add(&crew, in->loops[INSERT], &now.other, n / 2);
	ret = crew_run(&crew, 0, 0);
	e->in = in;
	e->entries = n;
	e->samples[FIRST][round] =
		div64_ul(max(crew.w[0].ns, crew.w[1].ns) * 100, n);
	e->job.errors += now.job.errors + now.other.errors;
	e->job.refused += now.job.refused + now.other.refused;
	close_table(&now);
	return ret;
}

/*
 * Insertions that had to be tried again are counted.  chm_test_writers.c does the same
 * with GFP_ATOMIC.
 */
static void measure_pairs(const struct field *f, unsigned long n)
{
	const struct instance *in[] = { f->chm, f->rht };
	struct roster *r = &roster;
	u32 round, i;

	if (!wanted("insert_both"))
		return;
	memset(r, 0, sizeof(*r));
	for (round = 0; round < rounds; round++) {
		for (i = 0; i < ARRAY_SIZE(in) && !r->ret; i++)
			r->ret = pair_round(&r->e[i], in[i], n, round);
	}
	for (i = 0; i < ARRAY_SIZE(in) && !r->ret; i++)
		report_entrant(&r->e[i], "insert_both", FIRST);
	dismiss(r);
}

/* --- Latencies --- */

static const struct {
	const char *name;
	u32 part;		/* of 10,000 */
} quantiles[] = {
	{ "p50", 5000 }, { "p99", 9900 }, { "p99.9", 9990 }, { "p99.99", 9999 },
	{ "max", 10000 },
};

/* What is noted of a table that grows: NR_QUANTILES series of each. */
#define NR_QUANTILES	ARRAY_SIZE(quantiles)

enum {
	INSERT_ALONE,		/* the other CPU has nothing to do */
	INSERT_BESIDE,		/* a reader is there */
	FIND_GROWING,		/* what that reader sees */
	FIND_IDLE,		/* in the table when it has grown */
};

static const char * const latencies[] = {
	[INSERT_ALONE]	= "insert_alone",
	[INSERT_BESIDE]	= "insert_beside_reader",
	[FIND_GROWING]	= "find_growing",
	[FIND_IDLE]	= "find_idle",
};

static void take_quantiles(struct entrant *e, u32 which, const struct histogram *h,
			   u32 round)
{
	u32 i;

	for (i = 0; i < NR_QUANTILES; i++)
		e->samples[which * NR_QUANTILES + i][round] =
			(quantile(h, quantiles[i].part) * tick_length * 100) >> 20;
}

/* Look for what is in a table that has come to rest. */
static int rest_noted(struct entrant *e, struct entrant *now, u32 round,
		      struct histogram *h)
{
	struct crew crew;
	int ret;

	bytes_of(now);		/* A growth comes to its end. */
	memset(h, 0, sizeof(*h));
	now->other.h = h;
	crew_init(&crew);
	crew_add(&crew, e->in->loops[FIND_NOTED], &now->other, 0);
	ret = crew_run(&crew, OTHER_CPU, 2 * CREW_MS);
	take_quantiles(e, FIND_IDLE, h, round);
	return ret;
}

/* Grow a table once, with a reader beside or without; then look for its pairs. */
static int grow_noted(struct entrant *e, struct entrant *now, u32 round,
		      bool beside, struct histogram *h)
{
	struct crew crew;
	int ret;

	memset(h, 0, 2 * sizeof(*h));
	now->job.h = &h[0];
	now->other = now->job;
	now->other.h = &h[1];
	crew_init(&crew);
	crew_add(&crew, e->in->loops[INSERT_NOTED], &now->job, e->entries);
	if (beside)
		crew_add(&crew, e->in->loops[FIND_NOTED], &now->other, 0);
	ret = crew_run(&crew, 0, 0);
	take_quantiles(e, beside ? INSERT_BESIDE : INSERT_ALONE, &h[0], round);
	if (!beside || ret)
		return ret;
	take_quantiles(e, FIND_GROWING, &h[1], round);
	return rest_noted(e, now, round, h);
}

#if IS_ENABLED(CONFIG_CHM_BENCH)
/*
 * Grow a table once more, to see how long its lock is held: a clock is read twice in
 * each hold, which is not to count in the latencies.
 */
static int measure_holds(struct entrant *e, struct histogram *h)
{
	static struct entrant now;
	struct chm_holds holds;
	struct crew crew;
	int ret = open_table(&now, e->in, 0, 0);

	if (ret)
		return ret;
	memset(h, 0, sizeof(*h));
	now.job.h = h;
	crew_init(&crew);
	crew_add(&crew, e->in->loops[INSERT_NOTED], &now.job, e->entries);
	chm_measure_holds(true, NULL);
	ret = crew_run(&crew, 0, 0);
	bytes_of(&now);		/* A growth comes to its end. */
	chm_measure_holds(false, &holds);
	close_table(&now);
	pr_info("# growing to %lu entries: %llu holds of the lock, the longest of %llu ns, %llu of more than %lu ns\n",
		e->entries, holds.n, holds.longest_ns, holds.long_ones,
		CHM_LONG_HOLD_NS);
	return ret;
}
#else
/* The chm.ko that this module was built with does not tell. */
static int measure_holds(struct entrant *e, struct histogram *h)
{
	return 0;
}
#endif

static int latency_round(struct entrant *e, u32 round, bool beside,
			 struct histogram *h)
{
	static struct entrant now;
	int ret = open_table(&now, e->in, 0, 0);

	ret = ret ?: grow_noted(e, &now, round, beside, h);
	e->job.errors += now.job.errors + now.other.errors;
	e->job.refused += now.job.refused;
	close_table(&now);
	return ret;
}

static void report_latencies(const struct entrant *e, u32 n)
{
	u32 which, i, k;
	char name[32];

	for (which = 0; which < ARRAY_SIZE(latencies); which++) {
		/* Alone is all that there is on one CPU. */
		if (which && !have_two_cpus())
			break;
		for (k = 0; k < NR_QUANTILES; k++) {
			scnprintf(name, sizeof(name), "%s.%s", latencies[which],
				  quantiles[k].name);
			for (i = 0; i < n; i++)
				report_entrant(&e[i], name,
					       which * NR_QUANTILES + k);
		}
	}
}

/* How long each insertion, and each look-up meanwhile, takes at most. */
static void measure_latencies(const struct field *f, unsigned long n)
{
	const struct instance *in[] = { f->typed, f->rht, &spin_shape_8_8 };
	struct histogram *h;
	struct roster *r = &roster;
	u32 round, i;

	BUILD_BUG_ON(ARRAY_SIZE(latencies) * NR_QUANTILES > NR_SERIES);
	if (!wanted("latency"))
		return;
	memset(r, 0, sizeof(*r));
	h = kvzalloc_objs(*h, 2, GFP_KERNEL);
	r->ret = h ? 0 : -ENOMEM;
	for (round = 0; round < rounds; round++) {
		for (i = 0; i < ARRAY_SIZE(in) && !r->ret; i++) {
			r->e[i].in = in[i];
			r->e[i].entries = n;
			r->ret = latency_round(&r->e[i], round, false, h);
			if (!r->ret && have_two_cpus())
				r->ret = latency_round(&r->e[i], round, true, h);
		}
	}
	if (!r->ret)
		report_latencies(r->e, ARRAY_SIZE(in));
	r->ret = r->ret ?: measure_holds(&r->e[0], h);
	kvfree(h);
	dismiss(r);
}

/* === Small tables ======================================================== */

#define SMALL_PAIRS	5

/* Many tables of a few pairs each. */
struct crowd {
	const struct instance	*in;
	struct table		*tables;
	u32			n;
	u32			open;		/* of these, the last so many */
	struct kmem_cache	*nodes;
	struct job		job;
};

/* What one of many at a time destroys of it. */
#define CROWD_PARTS	512U
#define CROWD_MS	500

struct crowd_part {
	struct work_struct	work;
	struct crowd		*c;
	u32			from;
	u32			to;
};

enum { CREATED = FIRST, PEOPLED, REMOVED, TAKEN };

/* Of a series */
static u64 median(const u64 *samples)
{
	u64 sorted[MAX_ROUNDS];

	memcpy(sorted, samples, rounds * sizeof(*samples));
	sort(sorted, rounds, sizeof(*sorted), compare_samples, NULL);
	return sorted[rounds / 2];
}

static unsigned long free_bytes(void)
{
	struct sysinfo i;

	si_meminfo(&i);
	return i.freeram * i.mem_unit;
}

static int crowd_create(struct crowd *c, unsigned long room)
{
	u32 i;
	int ret;

	for (i = 0; i < c->n; i++) {
		struct table *t = &c->tables[i];

		t->room = room;
		t->entries = SMALL_PAIRS;
		t->nodes = c->nodes;
		ret = init_table(t, c->in);
		if (ret)
			return ret;
		c->open++;
		if (!(i % STRETCH))
			give_way();
	}
	return 0;
}

static int crowd_people(struct crowd *c)
{
	u32 i;

	c->job = (struct job) { .n = SMALL_PAIRS, .ops = SMALL_PAIRS };
	for (i = 0; i < c->n; i++) {
		c->job.t = &c->tables[i];
		c->job.first = 0;
		c->in->loops[INSERT](&c->job);
	}
	return c->job.errors ? -EIO : 0;
}

/* As many as can be destroyed within CROWD_MS.  Return: ns for each, times 100. */
static u64 crowd_remove(struct crowd *c)
{
	void (*leave)(struct table *t, const struct shape *s) =
		c->in->c->leave ?: c->in->c->exit;
	u64 start = ktime_get_ns(), ns = 0;
	u32 n = c->open;

	while (c->open && ns < CROWD_MS * NSEC_PER_MSEC) {
		leave(&c->tables[--c->open], c->in->s);
		ns = ktime_get_ns() - start;
		if (!(c->open % 64))
			give_way();
	}
	return div_u64(ns * 100, max(n - c->open, 1U));
}

static void crowd_part_work(struct work_struct *work)
{
	struct crowd_part *p = container_of(work, struct crowd_part, work);

	for (; p->from < p->to; p->from++)
		p->c->in->c->exit(&p->c->tables[p->from], p->c->in->s);
}

/* Those that are left: each may wait for a grace period, but all for the same. */
static void crowd_dismiss(struct crowd *c)
{
	struct crowd_part *parts = kvzalloc_objs(*parts, CROWD_PARTS, GFP_KERNEL);
	struct workqueue_struct *wq = alloc_workqueue("chm_bench", WQ_UNBOUND,
						      CROWD_PARTS);
	u32 each = c->open / CROWD_PARTS + 1, i;

	for (i = 0; wq && parts && i < CROWD_PARTS; i++) {
		parts[i].c = c;
		parts[i].from = min(i * each, c->open);
		parts[i].to = min((i + 1) * each, c->open);
		INIT_WORK(&parts[i].work, crowd_part_work);
		queue_work(wq, &parts[i].work);
	}
	if (wq)
		destroy_workqueue(wq);
	if (wq && parts)
		c->open = 0;
	while (c->open)
		c->in->c->exit(&c->tables[--c->open], c->in->s);
	kvfree(parts);
}

/* Create, fill and destroy all. */
static int crowd_round(struct entrant *e, struct crowd *c, unsigned long room,
		       u32 round)
{
	u64 start, before, after;
	int ret;

	/* What others have left is no memory of these. */
	rcu_barrier();
	chm_barrier();
	before = free_bytes();
	start = ktime_get_ns();
	ret = crowd_create(c, room);
	e->samples[CREATED][round] =
		div_u64((ktime_get_ns() - start) * 100, c->n);
	start = ktime_get_ns();
	ret = ret ?: crowd_people(c);
	e->samples[PEOPLED][round] =
		div_u64((ktime_get_ns() - start) * 100, c->n);
	after = min(free_bytes(), before);
	e->samples[TAKEN][round] = div_u64((before - after) * 100, c->n) +
				   c->in->c->size * 100;
	e->samples[REMOVED][round] = crowd_remove(c);
	crowd_dismiss(c);
	return ret;
}

static int small_round(struct entrant *e, const struct instance *in, u32 n,
		       unsigned long room, u32 round)
{
	struct crowd c = { .in = in, .n = n };
	int ret = -ENOMEM;

	c.tables = kvzalloc_objs(*c.tables, n, GFP_KERNEL);
	c.nodes = create_nodes(in);
	if (c.tables)
		ret = crowd_round(e, &c, room, round);
	destroy_nodes(c.nodes);
	kvfree(c.tables);
	e->job.errors += c.job.errors;
	e->job.refused += c.job.refused;
	return ret;
}

/* By name: with room for its pairs from the start, which a user has to ask for. */
static void measure_small(const struct field *f)
{
	static struct contender hinted;
	struct instance rht_hinted = *f->rht;
	const struct instance *in[] = { f->chm, f->rht, &rht_hinted, f->xarray };
	struct roster *r = &roster;
	u32 n = full ? 100000 : 20000;
	u32 round, i;

	if (!wanted("small"))
		return;
	hinted = *f->rht->c;
	hinted.name = "rhashtable_hinted";
	rht_hinted.c = &hinted;
	memset(r, 0, sizeof(*r));
	for (round = 0; round < rounds; round++) {
		for (i = 0; i < ARRAY_SIZE(in) && in[i] && !r->ret; i++) {
			r->e[i].in = in[i];
			r->e[i].entries = n;
			r->ret = small_round(&r->e[i], in[i], n,
					     i == 2 ? SMALL_PAIRS : 0, round);
		}
	}
	for (i = 0; i < ARRAY_SIZE(in) && in[i] && !r->ret; i++) {
		report_entrant(&r->e[i], "small_create", CREATED);
		report_entrant(&r->e[i], "small_fill", PEOPLED);
		report_entrant(&r->e[i], "small_destroy", REMOVED);
		report_bytes(&r->e[i], "small", median(r->e[i].samples[TAKEN]));
	}
	dismiss(r);
}

/* === Endurance =========================================================== */

#define TENTHS		10U
#define PARTS		10U		/* of a tenth: as rounds are of others */
#define GLANCE		SZ_64K		/* operations between looks at the memory */

/* In each part of each tenth, times 100. */
struct wear {
	u64	ns[TENTHS][PARTS];		/* per operation */
	u64	bytes[TENTHS][PARTS];		/* of the map and what it retired, per entry */
	u64	probe[TENTHS][PARTS];		/* chunks that a hit reads: the mean */
	u64	longest[TENTHS][PARTS];		/* and the most */
};

/* How far from home the pairs of a chm map lie, each of which looks must visit. */
struct reach {
	u64	pairs;
	u64	sum;		/* chunks read to find them */
	u32	longest;
};

static void measure_chunk(struct reach *r, const struct chm_table *t, u32 chunk,
			  const struct chm_params *p)
{
	const struct chm_chunk *c = __chm_chunk(t, chunk, p);
	/* Pairs with chm_set_ctrl(), as in look-ups. */
	unsigned long mask = chm_match_full(smp_load_acquire(&c->ctrl));
	u32 slot;

	chm_for_each_match(slot, mask) {
		u64 hash = __chm_hash(t, __chm_slot(t, c, slot, p), p);
		u32 home = chm_home(hash, t->nr_chunks);
		u32 reads = chm_distance(home, chunk, t->nr_chunks) + 1;

		r->pairs++;
		r->sum += reads;
		r->longest = max(r->longest, reads);
	}
}

static struct reach measure_reach(const struct chm *map)
{
	struct reach r = { };
	const struct chm_table *t;
	u32 i;

	rcu_read_lock();
	t = __chm_table_rcu(map);
	for (i = 0; t && i < t->nr_chunks; i++)
		measure_chunk(&r, t, i, t->p);
	rcu_read_unlock();
	return r;
}

/* Of all tables of a map: the active one, the next one and those that are retired. */
static u64 bytes_in_all(const struct chm *map)
{
	struct chm_stats stats;

	chm_stats(map, &stats);
	return stats.bytes + stats.retired_bytes +
	       (stats.chunks ? div64_ul((u64)stats.bytes * stats.migrating,
					stats.chunks) : 0);
}

static void endure_part(struct entrant *e, struct wear *w, u64 ops, u32 tenth, u32 part)
{
	u64 left, k, ns = 0, bytes = 0, looks = 0;
	struct reach reach;

	for (left = ops; left; left -= k) {
		k = min_t(u64, left, GLANCE);
		ns += div_u64(sample(e, CHURN, k) * k, 100);
		bytes += bytes_in_all(&e->t->chm);
		looks++;
	}
	reach = measure_reach(&e->t->chm);
	w->ns[tenth][part] = div64_u64(ns * 100, ops);
	w->bytes[tenth][part] = div64_u64(bytes * 100, looks * e->entries);
	w->probe[tenth][part] = div64_u64(reach.sum * 100, max(reach.pairs, 1ULL));
	w->longest[tenth][part] = reach.longest * 100ULL;
}

static void report_wear(const struct entrant *e, const char *what, u32 load,
			const u64 (*samples)[PARTS])
{
	struct result r = {
		.contender	= e->in->c->name,
		.entries	= e->entries,
		.s		= e->in->s,
		.load		= load,
	};
	char name[32];
	u32 i;

	for (i = 0; i < TENTHS; i++) {
		scnprintf(name, sizeof(name), "%s.%u", what, i + 1);
		r.op = name;
		report(&r, samples[i], PARTS);
	}
}

/* Report what @ops operations did to a map that is as full as it gets. */
static void report_endurance(const struct entrant *e, const struct wear *w, u32 load,
			     u64 ops)
{
	struct chm_stats stats;

	chm_stats(&e->t->chm, &stats);
	pr_info("# endurance: %llu operations, %lu growths, %lu shrinks, %lu rehashes, %lu reseeds, %lu waits, %lu aborts\n",
		ops, stats.grows, stats.shrinks, stats.rehashes, stats.reseeds,
		stats.gp_waits, stats.aborts);
	report_wear(e, "endurance", load, w->ns);
	report_wear(e, "endurance_bytes", load, w->bytes);
	report_wear(e, "endurance_probe", load, w->probe);
	report_wear(e, "endurance_longest", load, w->longest);
}

/*
 * Remove and insert in a map that would grow if it had a pair more.  Does it get
 * slower, larger, or its pairs further from home?
 */
static void measure_endurance(const struct field *f)
{
	u64 ops = endurance ?: full ? 100000000 : 0;
	u64 each = div_u64(ops, TENTHS * PARTS);
	/* With fewer, DEAD slots alone would make the table larger. */
	unsigned long n = roundup_pow_of_two(entries ?: SZ_4M);
	struct roster *r = &roster;
	struct entrant *e = r->e;
	static struct wear w;
	u32 load, i;

	if (!wanted("endurance") || !each)
		return;
	pr_info("# endurance, %lu entries\n", n);
	enter(r, f->chm, n, n);
	load = e->load;
	for (i = 0; i < TENTHS * PARTS && !r->ret; i++)
		endure_part(e, &w, each, i / PARTS, i % PARTS);
	if (!r->ret) {
		report_endurance(e, &w, load, each * TENTHS * PARTS);
		/* To where all pairs left are those that came last. */
		sample(e, CHURN, n - e->job.first % n);
		check_pairs(e, e->job.first - e->entries);
	}
	dismiss(r);
}

/* === Large tables ======================================================== */

/* With room for half as many more, its table is larger than kvmalloc() gives. */
#define LARGEST		(SZ_64M + 0UL)

/* How large the table is. */
static u64 tell_size(struct entrant *e)
{
	u64 bytes = bytes_of(e);

	pr_info("# %s, %lu entries: %llu bytes, load %u\n", e->in->c->name,
		e->entries, bytes, is_chm(e) ? load_of(e->t) : 0);
	return bytes;
}

/* To a table that has no more than its pairs need, and back. */
static int move_pairs(struct entrant *e, unsigned long room)
{
	struct chm *map = &e->t->chm;
	int ret;

	check_pairs(e, 0);
	ret = chm_shrink(map, GFP_KERNEL);
	tell_size(e);
	check_pairs(e, 0);
	return ret ?: chm_reserve(map, room, GFP_KERNEL);
}

static void measure_large(const struct field *f, unsigned long n)
{
	const struct instance *growing[] = { f->chm, f->rht, f->many };
	unsigned long room = n + n / 2;
	struct roster *r = &roster;
	u64 bytes[3] = { };
	u32 i;

	pr_info("# large tables, %lu entries\n", n);
	enter(r, f->typed, n, room);
	if (!r->ret)
		r->ret = move_pairs(&r->e[0], room);
	enter(r, f->typed, n, 0);
	enter(r, f->rht, n, 0);
	for (i = 0; i < r->n && !r->ret; i++) {
		bytes[i] = tell_size(&r->e[i]);
		check_pairs(&r->e[i], 0);
	}
	enter(r, f->empty, n, 0);
	/* kvmalloc() gives no more. */
	enter(r, f->raw, n, min_t(u64, bytes[1], INT_MAX));
	if (!r->ret) {
		measure_surely(r->e, r->n, "hit", HIT, ops_for(n), 1);
		measure_surely(r->e, r->n, "dep", DEP, ops_for(n), 1);
		measure_surely(r->e, r->n - 1, "miss", MISS, ops_for(n), 1);
	}
	if (!r->ret && n == LARGEST && bytes[0] <= INT_MAX)
		r->ret = -ERANGE;
	dismiss(r);
	measure_lives_surely(growing, ARRAY_SIZE(growing), "insert", n, 0);
}

/* Whether all of one group fit into memory. */
static bool fits_large(const struct field *f, unsigned long n)
{
	return (n * (6 * pair_size(f->chm->s) + 72ULL)) >> PAGE_SHIFT <
	       (u64)si_mem_available();
}

static void measure_large_sizes(const struct field *f)
{
	static const unsigned long sizes[] = { SZ_16M, LARGEST };
	u32 i;

	if (!full || !wanted("large"))
		return;
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		if (entries && entries != sizes[i])
			continue;
		if (fits_large(f, sizes[i]))
			measure_large(f, sizes[i]);
		else
			pr_info("# large tables, %lu entries: too little memory\n",
				sizes[i]);
	}
}

/* === Memory ============================================================== */

/* Bytes per entry, times 100, from one growth to the next. */
struct cycle {
	u64	sum;
	u64	samples;
	u64	best;
	u64	worst;
	u64	peak;		/* at growth, with the table that is left */
};

static void note_bytes(struct cycle *c, u64 bytes, u64 entries)
{
	u64 each = div64_u64(bytes * 100, entries);

	c->sum += each;
	c->samples++;
	c->best = min(c->best, each);
	c->worst = max(c->worst, each);
}

/* Fill a table beyond @n pairs, from there through one cycle. */
static void run_cycle(struct entrant *e, unsigned long n, struct cycle *c)
{
	u64 before = bytes_of(e), bytes;
	u32 growths = 0;

	*c = (struct cycle) { .best = U64_MAX };
	e->job.ops = n >> 10;
	while (growths < 2 && !e->job.errors) {
		e->in->loops[INSERT](&e->job);
		e->entries += e->job.ops;
		bytes = bytes_of(e);
		if (bytes - e->job.ops * node_size(e->t) != before &&
		    e->entries > n) {
			growths++;
			before -= (e->entries - e->job.ops) * node_size(e->t);
			c->peak = div64_u64((bytes + before) * 100, e->entries);
		}
		before = bytes;
		if (growths == 1)
			note_bytes(c, bytes, e->entries);
	}
}

static void measure_cycle(const struct instance *in, unsigned long n)
{
	static struct entrant e;
	struct cycle c;

	if (open_table(&e, in, 0, 0)) {
		failures++;
	} else {
		run_cycle(&e, n, &c);
		e.entries = n;
		report_bytes(&e, "memory", div64_u64(c.sum, c.samples));
		report_bytes(&e, "memory_best", c.best);
		report_bytes(&e, "memory_worst", c.worst);
		report_bytes(&e, "peak", c.peak);
	}
	close_table(&e);
}

/* Bytes of a table with @n pairs: of each of them, or of all and the struct. */
static void measure_bytes(const struct instance *in, const char *op,
			  unsigned long n, bool each)
{
	static struct entrant e;

	if (!in)
		return;
	if (open_table(&e, in, n, 0) || fill(&e))
		failures++;
	else
		report_bytes(&e, op, each ? bytes_per_entry(&e) :
			     (in->c->size + bytes_of(&e)) * 100);
	close_table(&e);
}

static void measure_memory(const struct field *f)
{
	if (!wanted("memory"))
		return;
	measure_cycle(f->chm, SZ_256K);
	measure_cycle(f->rht, SZ_256K);
	measure_bytes(f->hlist, "memory", SZ_256K, true);
	measure_bytes(f->bpf_prealloc, "memory", SZ_256K, true);
	measure_bytes(bpf_of(f), "memory", SZ_256K, true);
	measure_bytes(f->chm, "empty", 0, false);
	measure_bytes(f->rht, "empty", 0, false);
	measure_bytes(f->chm, "ten", 10, false);
	measure_bytes(f->rht, "ten", 10, false);
	measure_bytes(f->hlist, "ten", 10, false);
}

/* === Module ============================================================== */

/*
 * Whether all tables of one group fit into memory, with room to spare, and each
 * into what User Mode Linux has in one piece (scripts/kernel).
 */
static bool fits(const struct field *f, unsigned long n)
{
	u64 each = 11 * (pair_size(f->chm->s) + 40);
	u64 largest = n * (pair_size(f->chm->s) + 8) * 7 / 4;

	if (IS_ENABLED(CONFIG_UML) && largest > 300ULL * SZ_1M)
		return false;
	return (n * each) >> PAGE_SHIFT < (u64)si_mem_available();
}

/* Whether a table of any contender fits, beside the one that it replaces. */
static bool fits_alone(const struct field *f, unsigned long n)
{
	return (n * (6 * pair_size(f->chm->s) + 80ULL)) >> PAGE_SHIFT <
	       (u64)si_mem_available();
}

static void measure_size(const struct field *f, unsigned long n)
{
	if (!fits(f, n)) {
		pr_info("# %u-byte pairs, %lu entries: too little memory\n",
			pair_size(f->chm->s), n);
		return;
	}
	pr_info("# %u-byte pairs, %lu entries\n", pair_size(f->chm->s), n);
	if (n >= 1024)
		measure_finds(f, n);
	if (full || n == SZ_1M) {
		measure_walks(f, n);
		measure_inserts(f, n);
	}
	if (full || n <= 1024 || n == SZ_64K || n == SZ_1M)
		measure_updates(f, n);
	if (full || n == SZ_4M)
		measure_migration(f, n);
}

/* Where there are two CPUs, and how long the slowest calls take. */
static void measure_smp(const struct field *f)
{
	static const u8 few[] = { 16, 20 };
	static const u8 all[] = { 10, 16, 20, 22 };
	u32 n = full ? ARRAY_SIZE(all) : ARRAY_SIZE(few);
	u32 i;

	for (i = 0; have_two_cpus() && i < n; i++) {
		unsigned long size = 1UL << (full ? all : few)[i];

		pr_info("# two CPUs, %lu entries\n", size);
		measure_readers(f, size);
		measure_beside(f, size);
	}
	if (have_two_cpus())
		measure_pairs(f, SZ_1M);
	pr_info("# latencies\n");
	measure_latencies(f, 1000000);
	if (full && fits_alone(f, 10000000))
		measure_latencies(f, 10000000);
	pr_info("# small tables\n");
	measure_small(f);
}

static void measure_field(const struct field *f)
{
	static const u8 few[] = { 6, 10, 16, 20, 22 };
	static const u8 all[] = { 6, 10, 14, 16, 18, 20, 22 };
	u32 n = full ? ARRAY_SIZE(all) : ARRAY_SIZE(few);
	u32 i;

	if (pair && pair_size(f->chm->s) != pair)
		return;
	if (entries)
		measure_size(f, roundup_pow_of_two(entries));
	for (i = 0; i < n && !entries; i++)
		measure_size(f, 1UL << (full ? all : few)[i]);
	measure_memory(f);
}

/*
 * In User Mode Linux the host provides a page when it is touched for the first
 * time, which would be added to what comes first.
 */
static void touch_memory(void)
{
	unsigned int order = ilog2(SZ_1M >> PAGE_SHIFT);
	unsigned long spare = totalram_pages() / 8;
	struct page *page, *next;
	LIST_HEAD(pages);

	while (IS_ENABLED(CONFIG_UML) && si_mem_available() > (long)spare) {
		page = alloc_pages(GFP_KERNEL | __GFP_NORETRY | __GFP_NOWARN |
				   __GFP_ZERO, order);
		if (!page)
			break;
		list_add(&page->lru, &pages);
	}
	list_for_each_entry_safe(page, next, &pages, lru)
		__free_pages(page, order);
}

static void measure_all(void)
{
	u32 i;

	pr_info("# %u CPUs\n", num_online_cpus());
	touch_memory();
	measure_ticks();
	for (i = 0; i < (full ? ARRAY_SIZE(fields) : 1); i++)
		measure_field(&fields[i]);
	if (!pair && !entries)
		measure_smp(&fields[0]);
	if (!pair)
		measure_endurance(&fields[0]);
	if (!pair)
		measure_large_sizes(&fields[0]);
}

static int __init chm_bench_init(void)
{
	static struct cpumask everywhere;

	full = strcmp(run, "quick");
	if (!rounds)
		rounds = full ? 7 : 5;
	rounds = min(rounds, MAX_ROUNDS);
	cpumask_copy(&everywhere, current->cpus_ptr);
	set_cpus_allowed_ptr(current, cpumask_of(cpumask_first(cpu_online_mask)));
	measure_all();
	set_cpus_allowed_ptr(current, &everywhere);
	pr_info("# %s, %lu results, %lu failures\n",
		failures ? "FAILED" : "done", results, failures);
	if (shutdown)
		kernel_power_off();
	if (failures)
		return -EIO;
	return results ? 0 : -EINVAL;
}

static void __exit chm_bench_exit(void)
{
}

/* Not module_init(): built in, it comes after all that it measures. */
late_initcall(chm_bench_init);
module_exit(chm_bench_exit);

MODULE_DESCRIPTION("Benchmarks of the concurrent hash map");
MODULE_LICENSE("GPL");
