// SPDX-License-Identifier: GPL-2.0-only
/*
 * chm beside what a process would use: liburcu's cds_lfht and Concurrency Kit's ck_ht
 *
 * usage: bench [ROUNDS]
 *        bench memory CONTENDER PAIRS	bytes, in a process of its own
 *
 * As in chm_bench.c: key i is made of i, and its value is i; all use the same hash;
 * all loops are inlined for each contender; contenders take turns in each round, each
 * look-up is a read-side critical section of liburcu's (a batch is one, too), and what
 * is found is checked.  Readers are timed by the CPU time of their threads, so that
 * others on the machine disturb less; writers, who may wait, by the clock.
 *
 *	chm	DEFINE_CHM_TYPE(), a batch by chm_lookup_many()
 *	lfht	cds_lfht, which resizes by itself, over nodes from malloc(); where it
 *		does not grow, it is told to begin with a bucket for each, as it stops
 *		at up to eight
 *	ck_ht	ck_ht with CK_HT_MODE_BYTESTRING, over pairs from malloc()
 *	ck_word	ck_ht with CK_HT_MODE_DIRECT: keys and values are words in the table
 *	raw	a load from an array as large as chm's table
 *	loop	nothing, but for the loop
 *
 * ck_ht has one writer at most, which takes no lock here.
 */
#include <ck_ht.h>

#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/workqueue.h>
#include <urcu/rculfhash.h>

#include "chm.h"

#define MAX_ROUNDS	25
#define BATCH		256
#define SEED		0x243f6a8885a308d3ULL

/* The number of no pair. */
#define ABSENT		U64_MAX

/* How long one measurement of a loop shall take */
#define LOOP_NS		(40 * NSEC_PER_MSEC)

static void __noreturn die(const char *what)
{
	fprintf(stderr, "bench: %s\n", what);
	exit(2);
}

static void *must_have(void *p)
{
	if (!p)
		die("no memory");
	return p;
}

/* Never 0, nor any other that ck_ht keeps for itself, and distinct. */
static __always_inline u64 key_of(u64 i)
{
	return (i + 1) * 0x9e3779b97f4a7c15ULL;
}

/* Of chm; the others use it with a seed of their own. */
static __always_inline u64 hash_of(u64 key)
{
	return chm_hash_bytes(&key, sizeof(key), SEED);
}

/* === Contenders ========================================================== */

DEFINE_CHM_TYPE(bench_map, u64, u64);

struct table {
	union {
		struct bench_map	chm;
		struct cds_lfht		*lfht;
		ck_ht_t			ck;
		u64			*raw;
	};
	u64	words;		/* of raw */
};

struct contender {
	const char *name;
	bool blind;		/* finds what is not there */
	/* @room: for so many pairs, if it can be told; 0: it is to grow. */
	void (*init)(struct table *t, u64 room);
	void (*exit)(struct table *t);
	/* The number of a pair, or ABSENT. */
	u64 (*find)(struct table *t, u64 key);
	/* The sum of BATCH numbers, of keys that are present; NULL: a loop. */
	u64 (*sum)(struct table *t, const u64 *keys);
	bool (*insert)(struct table *t, u64 key, u64 value);
	bool (*remove)(struct table *t, u64 key);
	/* Called when a loop over @n pairs takes seconds; NULL: be patient. */
	void (*nudge)(struct table *t, u64 n);
};

/* --- chm --- */

static void bench_chm_init(struct table *t, u64 room)
{
	if (bench_map_init(&t->chm, NULL, NULL))
		die("chm_init() failed");
}

static void bench_chm_exit(struct table *t)
{
	bench_map_destroy(&t->chm);
}

static __always_inline u64 bench_chm_find(struct table *t, u64 key)
{
	const u64 *value = bench_map_lookup(&t->chm, &key);

	return value ? *value : ABSENT;
}

static __always_inline u64 bench_chm_sum(struct table *t, const u64 *keys)
{
	const u64 *values[BATCH];
	u64 sum = 0;
	int i;

	bench_map_lookup_many(&t->chm, keys, BATCH, values);
	for (i = 0; i < BATCH; i++)
		sum += values[i] ? *values[i] : ABSENT;
	return sum;
}

static __always_inline bool bench_chm_insert(struct table *t, u64 key, u64 value)
{
	return !bench_map_insert(&t->chm, &key, &value, GFP_KERNEL);
}

static __always_inline bool bench_chm_remove(struct table *t, u64 key)
{
	return !bench_map_remove(&t->chm, &key);
}

static const struct contender chm = {
	.name	= "chm",
	.init	= bench_chm_init,
	.exit	= bench_chm_exit,
	.find	= bench_chm_find,
	.sum	= bench_chm_sum,
	.insert	= bench_chm_insert,
	.remove	= bench_chm_remove,
};

/* --- cds_lfht --- */

struct lfht_pair {
	struct cds_lfht_node	node;
	u64			key, value;
	struct rcu_head		rcu;
};

static struct lfht_pair *lfht_pair(struct cds_lfht_node *node)
{
	return container_of(node, struct lfht_pair, node);
}

static int lfht_match(struct cds_lfht_node *node, const void *key)
{
	return lfht_pair(node)->key == *(const u64 *)key;
}

static void lfht_free(struct rcu_head *rcu)
{
	free(container_of(rcu, struct lfht_pair, rcu));
}

/* With a limit its buckets are an array, which is fastest. */
static void bench_lfht_init(struct table *t, u64 room)
{
	t->lfht = must_have(cds_lfht_new_flavor(room > 1 ? roundup_pow_of_two(room) : 1,
						1, 1UL << 26, CDS_LFHT_AUTO_RESIZE |
						CDS_LFHT_ACCOUNTING,
						&urcu_memb_flavor, NULL));
}

static void bench_lfht_exit(struct table *t)
{
	struct cds_lfht_iter it;
	struct cds_lfht_node *node;

	urcu_memb_read_lock();
	cds_lfht_for_each(t->lfht, &it, node) {
		cds_lfht_del(t->lfht, node);
		urcu_memb_call_rcu(&lfht_pair(node)->rcu, lfht_free);
	}
	urcu_memb_read_unlock();
	if (cds_lfht_destroy(t->lfht, NULL))
		die("cds_lfht_destroy() failed");
}

static __always_inline struct cds_lfht_node *lfht_find(struct table *t, u64 key)
{
	struct cds_lfht_iter it;

	cds_lfht_lookup(t->lfht, hash_of(key), lfht_match, &key, &it);
	return cds_lfht_iter_get_node(&it);
}

static __always_inline u64 bench_lfht_find(struct table *t, u64 key)
{
	struct cds_lfht_node *node = lfht_find(t, key);

	return node ? lfht_pair(node)->value : ABSENT;
}

static __always_inline bool bench_lfht_insert(struct table *t, u64 key, u64 value)
{
	struct lfht_pair *pair = must_have(malloc(sizeof(*pair)));
	struct cds_lfht_node *node;

	cds_lfht_node_init(&pair->node);
	pair->key = key;
	pair->value = value;
	urcu_memb_read_lock();
	node = cds_lfht_add_unique(t->lfht, hash_of(key), lfht_match, &key, &pair->node);
	urcu_memb_read_unlock();
	if (node == &pair->node)
		return true;
	free(pair);
	return false;
}

static __always_inline bool bench_lfht_remove(struct table *t, u64 key)
{
	struct cds_lfht_node *node;
	bool removed;

	urcu_memb_read_lock();
	node = lfht_find(t, key);
	removed = node && !cds_lfht_del(t->lfht, node);
	urcu_memb_read_unlock();
	if (removed)
		urcu_memb_call_rcu(&lfht_pair(node)->rcu, lfht_free);
	return removed;
}

static unsigned int nudges;

/*
 * Up to 0.15 at least, it notes that its worker has been asked to resize only after it
 * has asked.  If the worker is done by then, it is never asked again, and the chains
 * grow without end.  This puts it right.
 */
static void bench_lfht_nudge(struct table *t, u64 n)
{
	cds_lfht_resize(t->lfht, roundup_pow_of_two(n));
	nudges++;
}

static const struct contender lfht = {
	.name	= "lfht",
	.init	= bench_lfht_init,
	.exit	= bench_lfht_exit,
	.find	= bench_lfht_find,
	.insert	= bench_lfht_insert,
	.remove	= bench_lfht_remove,
	.nudge	= bench_lfht_nudge,
};

/* --- ck_ht --- */

struct ck_pair {
	u64		key, value;
	struct rcu_head	rcu;
};

static void ck_pair_free(struct rcu_head *rcu)
{
	free(container_of(rcu, struct ck_pair, rcu));
}

/* A table of ck_ht's may have to wait for readers; this comes before it. */
struct ck_buffer {
	struct rcu_head	rcu;
} __aligned(L1_CACHE_BYTES);

static void *ck_buffer_alloc(size_t bytes)
{
	struct ck_buffer *buffer;

	if (posix_memalign((void **)&buffer, L1_CACHE_BYTES, sizeof(*buffer) + bytes))
		return NULL;
	return buffer + 1;
}

static void ck_buffer_free_rcu(struct rcu_head *rcu)
{
	free(container_of(rcu, struct ck_buffer, rcu));
}

static void ck_buffer_free(void *p, size_t bytes, bool readers)
{
	struct ck_buffer *buffer = (struct ck_buffer *)p - 1;

	if (readers)
		urcu_memb_call_rcu(&buffer->rcu, ck_buffer_free_rcu);
	else
		free(buffer);
}

static struct ck_malloc ck_allocator = {
	.malloc	= ck_buffer_alloc,
	.free	= ck_buffer_free,
};

static void ck_hash(ck_ht_hash_t *h, const void *key, size_t len, uint64_t seed)
{
	h->value = hash_of(*(const u64 *)key);
}

static __always_inline ck_ht_hash_t ck_hash_of(u64 key)
{
	return (ck_ht_hash_t) { hash_of(key) };
}

/* The flag has it note how far to look for absent keys: that is faster. */
static void ck_init(struct table *t, unsigned int mode)
{
	if (!ck_ht_init(&t->ck, mode | CK_HT_WORKLOAD_DELETE, ck_hash, &ck_allocator,
			16, SEED))
		die("ck_ht_init() failed");
}

static void bench_ck_init(struct table *t, u64 room)
{
	ck_init(t, CK_HT_MODE_BYTESTRING);
}

static void bench_ck_exit(struct table *t)
{
	ck_ht_iterator_t it = CK_HT_ITERATOR_INITIALIZER;
	ck_ht_entry_t *entry;

	while (ck_ht_next(&t->ck, &it, &entry))
		free(ck_ht_entry_value(entry));
	ck_ht_destroy(&t->ck);
}

static __always_inline u64 bench_ck_find(struct table *t, u64 key)
{
	ck_ht_entry_t entry;

	ck_ht_entry_key_set(&entry, &key, sizeof(key));
	if (!ck_ht_get_spmc(&t->ck, ck_hash_of(key), &entry))
		return ABSENT;
	return ((const struct ck_pair *)ck_ht_entry_value(&entry))->value;
}

static __always_inline bool bench_ck_insert(struct table *t, u64 key, u64 value)
{
	struct ck_pair *pair = must_have(malloc(sizeof(*pair)));
	ck_ht_entry_t entry;

	pair->key = key;
	pair->value = value;
	ck_ht_entry_set(&entry, ck_hash_of(key), &pair->key, sizeof(key), pair);
	if (ck_ht_put_spmc(&t->ck, ck_hash_of(key), &entry))
		return true;
	free(pair);
	return false;
}

static __always_inline bool bench_ck_remove(struct table *t, u64 key)
{
	struct ck_pair *pair;
	ck_ht_entry_t entry;

	ck_ht_entry_key_set(&entry, &key, sizeof(key));
	if (!ck_ht_remove_spmc(&t->ck, ck_hash_of(key), &entry))
		return false;
	pair = ck_ht_entry_value(&entry);
	urcu_memb_call_rcu(&pair->rcu, ck_pair_free);
	return true;
}

static const struct contender ck_ht = {
	.name	= "ck_ht",
	.init	= bench_ck_init,
	.exit	= bench_ck_exit,
	.find	= bench_ck_find,
	.insert	= bench_ck_insert,
	.remove	= bench_ck_remove,
};

static void bench_word_init(struct table *t, u64 room)
{
	ck_init(t, CK_HT_MODE_DIRECT);
}

static void bench_word_exit(struct table *t)
{
	ck_ht_destroy(&t->ck);
}

static __always_inline u64 bench_word_find(struct table *t, u64 key)
{
	ck_ht_entry_t entry;

	ck_ht_entry_key_set_direct(&entry, key);
	if (!ck_ht_get_spmc(&t->ck, ck_hash_of(key), &entry))
		return ABSENT;
	return ck_ht_entry_value_direct(&entry);
}

static __always_inline bool bench_word_insert(struct table *t, u64 key, u64 value)
{
	ck_ht_entry_t entry;

	ck_ht_entry_set_direct(&entry, ck_hash_of(key), key, value);
	return ck_ht_put_spmc(&t->ck, ck_hash_of(key), &entry);
}

static __always_inline bool bench_word_remove(struct table *t, u64 key)
{
	ck_ht_entry_t entry;

	ck_ht_entry_key_set_direct(&entry, key);
	return ck_ht_remove_spmc(&t->ck, ck_hash_of(key), &entry);
}

static const struct contender ck_word = {
	.name	= "ck_word",
	.init	= bench_word_init,
	.exit	= bench_word_exit,
	.find	= bench_word_find,
	.insert	= bench_word_insert,
	.remove	= bench_word_remove,
};

/* --- raw, loop --- */

static void bench_raw_init(struct table *t, u64 room)
{
	t->raw = must_have(malloc(t->words * sizeof(*t->raw)));
}

static void bench_raw_exit(struct table *t)
{
	free(t->raw);
}

/* All over the array; that of a number that is present holds nearly that. */
static __always_inline u64 *raw_at(struct table *t, u64 key)
{
	return &t->raw[((__uint128_t)key * t->words) >> 64];
}

static __always_inline u64 bench_raw_find(struct table *t, u64 key)
{
	return READ_ONCE(*raw_at(t, key));
}

static __always_inline u64 bench_raw_sum(struct table *t, const u64 *keys)
{
	u64 sum = 0;
	int i;

	for (i = 0; i < BATCH; i++)
		prefetch(raw_at(t, keys[i]));
	for (i = 0; i < BATCH; i++)
		sum += READ_ONCE(*raw_at(t, keys[i]));
	return sum;
}

static __always_inline bool bench_raw_insert(struct table *t, u64 key, u64 value)
{
	*raw_at(t, key) = value;
	return true;
}

static const struct contender raw = {
	.name	= "raw",
	.blind	= true,
	.init	= bench_raw_init,
	.exit	= bench_raw_exit,
	.find	= bench_raw_find,
	.sum	= bench_raw_sum,
	.insert	= bench_raw_insert,
};

static void bench_loop_init(struct table *t, u64 room)
{
}

static void bench_loop_exit(struct table *t)
{
}

static __always_inline u64 bench_loop_find(struct table *t, u64 key)
{
	return key;
}

static __always_inline bool bench_loop_insert(struct table *t, u64 key, u64 value)
{
	return true;
}

static const struct contender loop = {
	.name	= "loop",
	.blind	= true,
	.init	= bench_loop_init,
	.exit	= bench_loop_exit,
	.find	= bench_loop_find,
	.insert	= bench_loop_insert,
};

/* === Loops =============================================================== */

/* What one thread does. */
struct job {
	const struct contender *c;	/* for nudge(), if the table grows */
	struct table	*t;
	u64		n;		/* pairs; for churn, a power of two */
	u64		ops;
	u64		x;		/* random, moves on */
	u64		first;		/* the next number to insert */
	u64		errors;
	void		(*run)(struct job *j);
	clockid_t	clock;
	int		cpu;
	u64		ns;		/* that it took */
	pthread_t	thread;
};

/* Knuth's MMIX generator; the high half is good. */
static __always_inline u64 next_random(u64 x)
{
	return x * 6364136223846793005ULL + 1442695040888963407ULL;
}

static __always_inline u64 below(u64 random, u64 n)
{
	return ((random >> 32) * n) >> 32;
}

static __always_inline u64 find_number(const struct contender *c, struct table *t, u64 i)
{
	u64 found;

	rcu_read_lock();
	found = c->find(t, key_of(i));
	rcu_read_unlock();
	return found;
}

/* Numbers from @from on: those below j->n are there. */
static __always_inline void loop_find(const struct contender *c, struct job *j, u64 from,
				      bool present)
{
	u64 x = j->x, hits = 0, sum = 0, i;

	for (i = 0; i < j->ops; i++) {
		u64 found;

		x = next_random(x);
		found = find_number(c, j->t, from + below(x, j->n));
		hits += found != ABSENT;
		sum += found;
	}
	j->x = x + (sum & 1);
	j->errors += !c->blind && hits != (present ? j->ops : 0);
}

static __always_inline void loop_hit(const struct contender *c, struct job *j)
{
	loop_find(c, j, 0, true);
}

static __always_inline void loop_miss(const struct contender *c, struct job *j)
{
	loop_find(c, j, j->n, false);
}

/* The next key depends on the value found, so that cache misses cannot overlap. */
static __always_inline void loop_dep(const struct contender *c, struct job *j)
{
	u64 x = j->x, i;

	for (i = 0; i < j->ops; i++) {
		u64 number = below(x, j->n);
		u64 found = find_number(c, j->t, number);

		j->errors += !c->blind && found != number;
		x = next_random(x + found);
	}
	j->x = x;
}

/* The keys of a batch are made first. */
static __always_inline void loop_many(const struct contender *c, struct job *j)
{
	u64 x = j->x, sum = 0, expected = 0, done;
	u64 keys[BATCH];
	int k;

	for (done = 0; done < j->ops; done += BATCH) {
		for (k = 0; k < BATCH; k++) {
			x = next_random(x);
			expected += below(x, j->n);
			keys[k] = key_of(below(x, j->n));
		}
		rcu_read_lock();
		if (c->sum) {
			sum += c->sum(j->t, keys);
		} else {
			for (k = 0; k < BATCH; k++)
				sum += c->find(j->t, keys[k]);
		}
		rcu_read_unlock();
	}
	j->x = x + (sum & 1);
	j->errors += !c->blind && sum != expected;
}

static __always_inline void loop_insert(const struct contender *c, struct job *j)
{
	u64 i;

	for (i = 0; i < j->ops; i++, j->first++)
		j->errors += !c->insert(j->t, key_of(j->first), j->first);
}

/* Remove a pair, insert a new one.  Numbers come in order and go in another. */
static __always_inline void loop_churn(const struct contender *c, struct job *j)
{
	u64 n = j->n, i;

	for (i = 0; c->remove && i < j->ops; i++, j->first++) {
		u64 oldest = (j->first - n) & ~(n - 1);
		u64 victim = oldest + (j->first * 0x9e3779b1ULL & (n - 1));

		j->errors += !c->remove(j->t, key_of(victim));
		j->errors += !c->insert(j->t, key_of(j->first), j->first);
	}
}

/* === Instances =========================================================== */

enum loop {
	HIT, MISS, DEP, MANY, INSERT, CHURN, NR_LOOPS
};

/* A contender, and the loops that it was inlined in */
struct instance {
	const struct contender	*c;
	void			(*loops[NR_LOOPS])(struct job *j);
};

#define DEFINE_LOOP(loop, c)						\
static void loop##_##c(struct job *j)					\
{									\
	loop(&(c), j);							\
}

#define DEFINE_INSTANCE(c_)						\
DEFINE_LOOP(loop_hit, c_)						\
DEFINE_LOOP(loop_miss, c_)						\
DEFINE_LOOP(loop_dep, c_)						\
DEFINE_LOOP(loop_many, c_)						\
DEFINE_LOOP(loop_insert, c_)						\
DEFINE_LOOP(loop_churn, c_)						\
									\
static const struct instance c_##_instance = {				\
	.c = &c_,							\
	.loops = {							\
		[HIT]		= loop_hit_##c_,			\
		[MISS]		= loop_miss_##c_,			\
		[DEP]		= loop_dep_##c_,			\
		[MANY]		= loop_many_##c_,			\
		[INSERT]	= loop_insert_##c_,			\
		[CHURN]		= loop_churn_##c_,			\
	},								\
}

DEFINE_INSTANCE(chm);
DEFINE_INSTANCE(lfht);
DEFINE_INSTANCE(ck_ht);
DEFINE_INSTANCE(ck_word);
DEFINE_INSTANCE(raw);
DEFINE_INSTANCE(loop);

/* chm comes first. */
static const struct instance * const instances[] = {
	&chm_instance, &lfht_instance, &ck_ht_instance, &ck_word_instance,
	&raw_instance, &loop_instance,
};

#define NR_CONTENDERS	ARRAY_SIZE(instances)

/* === Measuring =========================================================== */

static int cpus[2], nr_cpus;
static unsigned int rounds = 5;
static u64 errors;

static void find_cpus(void)
{
	cpu_set_t set;
	int i;

	if (sched_getaffinity(0, sizeof(set), &set))
		die("no CPUs");
	for (i = 0; i < CPU_SETSIZE && nr_cpus < 2; i++) {
		if (CPU_ISSET(i, &set))
			cpus[nr_cpus++] = i;
	}
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (pthread_setaffinity_np(pthread_self(), sizeof(set), &set))
		die("a thread cannot be pinned");
}

static u64 now(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (u64)t.tv_sec * NSEC_PER_SEC + t.tv_nsec;
}

static pthread_barrier_t start;

static void *work(void *arg)
{
	struct job *j = arg;

	pin(j->cpu);
	urcu_memb_register_thread();
	pthread_barrier_wait(&start);
	j->ns = now(j->clock);
	j->run(j);
	j->ns = now(j->clock) - j->ns;
	urcu_memb_unregister_thread();
	return NULL;
}

static void join(const struct job *j)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_sec += 2;
	while (pthread_timedjoin_np(j->thread, NULL, &t)) {
		if (j->c && j->c->nudge)
			j->c->nudge(j->t, j->n);
		t.tv_sec += 2;
	}
}

/* Do the same in @threads threads.  Return: ns per operation of any of them. */
static double run(const struct job *what, int threads)
{
	struct job jobs[2];
	u64 ns = 0;
	int i;

	pthread_barrier_init(&start, NULL, threads);
	for (i = 0; i < threads; i++) {
		jobs[i] = *what;
		jobs[i].x = what->x * (i + 1);
		jobs[i].cpu = cpus[i];
		if (pthread_create(&jobs[i].thread, NULL, work, &jobs[i]))
			die("no thread");
	}
	for (i = 0; i < threads; i++) {
		join(&jobs[i]);
		ns += jobs[i].ns;
		errors += jobs[i].errors;
	}
	pthread_barrier_destroy(&start);
	return (double)ns / threads / (what->ops * threads);
}

/* Wait until what has to wait is freed, and nobody resizes any more. */
static void settle(void)
{
	u64 before, i, calm = 0;

	urcu_memb_barrier();
	for (i = 0; i < 500 && calm < 3; i++) {
		before = now(CLOCK_PROCESS_CPUTIME_ID);
		usleep(10000);
		calm = now(CLOCK_PROCESS_CPUTIME_ID) - before < 500000 ? calm + 1 : 0;
	}
}

/* Of one contender, by rounds */
struct series {
	double	ns[MAX_ROUNDS];
	double	low, median, high;	/* quartiles */
};

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void sum_up(struct series *s)
{
	qsort(s->ns, rounds, sizeof(s->ns[0]), compare);
	s->low = s->ns[rounds / 4];
	s->median = s->ns[rounds / 2];
	s->high = s->ns[rounds - 1 - rounds / 4];
}

/* === Results ============================================================= */

/* How chm compares with a contender, in reader rows */
static struct {
	unsigned int	rows, faster;
	char		slower[2000];
} scores[NR_CONTENDERS];

static void score(const char *row, int threads, u64 n, const struct series *all)
{
	unsigned int i;
	size_t len;

	for (i = 1; i < NR_CONTENDERS; i++) {
		char *slower = scores[i].slower;

		if (instances[i]->c->blind)
			continue;
		scores[i].rows++;
		if (all[i].median > all[0].median) {
			scores[i].faster++;
			continue;
		}
		len = strlen(slower);
		snprintf(slower + len, sizeof(scores[i].slower) - len,
			 "    %s, %d thread%s, 2^%d: %.2f%s\n", row, threads,
			 threads > 1 ? "s" : "", __builtin_ctzll(n),
			 all[i].median / all[0].median,
			 all[i].high > all[0].low ? ", within noise" : "");
	}
}

/* Cells of all contenders, or of those that can be written to */
static void print_head(const char *what, bool writers)
{
	unsigned int i;

	printf("\n%s\nentries", what);
	for (i = 0; i < NR_CONTENDERS; i++) {
		if (instances[i]->c->remove || !writers)
			printf("%*s", i ? 20 : 13, instances[i]->c->name);
	}
	printf("\n");
}

/* The median, the interquartile range, and what it is to chm's */
static void print_row(u64 n, const struct series *all, bool writers)
{
	unsigned int i;

	printf("   2^%-2d", __builtin_ctzll(n));
	for (i = 0; i < NR_CONTENDERS; i++) {
		const struct series *s = &all[i];

		if (!instances[i]->c->remove && writers)
			continue;
		printf("%8.1f ~%2.0f%%", s->median,
		       100 * (s->high - s->low) / s->median);
		if (i)
			printf(" %5.2fx", s->median / all[0].median);
	}
	printf("\n");
	fflush(stdout);
}

/* === Readers ============================================================= */

static const struct {
	const char	*name;
	const char	*what;
} reader_rows[] = {
	[HIT]	= { "hit",  "look up, present" },
	[MISS]	= { "miss", "look up, absent" },
	[DEP]	= { "dep",  "look up, each key from the value before" },
	[MANY]	= { "many", "look up 256 at a time" },
};

static const u64 reader_sizes[] = { 1 << 10, 1 << 16, 1 << 20, 1 << 22 };

static struct series readers[ARRAY_SIZE(reader_rows)][2][ARRAY_SIZE(reader_sizes)]
			    [NR_CONTENDERS];
static double loads[ARRAY_SIZE(reader_sizes)];	/* of chm's table */

static void fill(const struct instance *i, struct table *t, u64 n)
{
	struct job j = {
		.t = t, .n = n, .ops = n,
		.run = i->loops[INSERT], .clock = CLOCK_MONOTONIC,
	};

	i->c->init(t, n);
	run(&j, 1);
	settle();
}

static void measure_row(int row, int threads, int size, struct table *tables)
{
	struct series *all = readers[row][threads - 1][size];
	u64 ops[NR_CONTENDERS];
	unsigned int r, i;

	/* The first round tells how many operations take long enough. */
	for (r = 0; r <= rounds; r++) {
		for (i = 0; i < NR_CONTENDERS; i++) {
			struct job j = {
				.t	= &tables[i],
				.n	= reader_sizes[size],
				.ops	= r ? ops[i] : 32 * BATCH,
				.x	= r + 1,
				.clock	= CLOCK_THREAD_CPUTIME_ID,
				.run	= instances[i]->loops[row],
			};
			double ns = run(&j, threads);

			if (r)
				all[i].ns[r - 1] = ns;
			else
				ops[i] = ALIGN((u64)(LOOP_NS / ns / threads), BATCH);
		}
	}
	for (i = 0; i < NR_CONTENDERS; i++)
		sum_up(&all[i]);
}

static void measure_size(int size)
{
	struct table tables[NR_CONTENDERS] = { };
	u64 n = reader_sizes[size];
	struct chm_stats stats;
	unsigned int i, row;
	int threads;

	for (i = 0; i < NR_CONTENDERS; i++) {
		/* chm came first. */
		tables[i].words = i ? stats.bytes / sizeof(u64) : 0;
		fill(instances[i], &tables[i], n);
		if (!i)
			bench_map_stats(&tables[0].chm, &stats);
	}
	loads[size] = 100.0 * stats.entries / stats.slots;
	for (row = 0; row < ARRAY_SIZE(reader_rows); row++) {
		for (threads = 1; threads <= nr_cpus; threads++)
			measure_row(row, threads, size, tables);
	}
	for (i = 0; i < NR_CONTENDERS; i++)
		instances[i]->c->exit(&tables[i]);
	settle();
	malloc_trim(0);
}

static void print_readers(void)
{
	unsigned int row, size;
	char what[100];
	int threads;

	for (row = 0; row < ARRAY_SIZE(reader_rows); row++) {
		for (threads = 1; threads <= nr_cpus; threads++) {
			snprintf(what, sizeof(what), "%s: %s, %s", reader_rows[row].name,
				 reader_rows[row].what, threads == 1 ? "one thread" :
				 "two threads, per look-up of any");
			print_head(what, false);
			for (size = 0; size < ARRAY_SIZE(reader_sizes); size++) {
				struct series *all = readers[row][threads - 1][size];

				print_row(reader_sizes[size], all, false);
				score(reader_rows[row].name, threads,
				      reader_sizes[size], all);
			}
		}
	}
	printf("\nchm's tables are filled to");
	for (size = 0; size < ARRAY_SIZE(reader_sizes); size++)
		printf("%s %.0f %%", size ? "," : "", loads[size]);
	printf(".\n");
}

/* === Writers ============================================================= */

static double measure_insert(const struct instance *i, u64 n)
{
	struct table t = { };
	struct job j = {
		.c = i->c, .t = &t, .n = n, .ops = n,
		.run = i->loops[INSERT], .clock = CLOCK_MONOTONIC,
	};
	double ns;

	i->c->init(&t, 0);
	ns = run(&j, 1);
	settle();
	i->c->exit(&t);
	settle();
	return ns;
}

/* Once around before it counts */
static double measure_churn(const struct instance *i, u64 n)
{
	struct table t = { };
	struct job j = {
		.t = &t, .n = n, .ops = n, .first = n,
		.run = i->loops[CHURN], .clock = CLOCK_MONOTONIC,
	};
	double ns;

	fill(i, &t, n);
	run(&j, 1);
	j.first += j.ops;
	j.ops = 4 * n;
	ns = run(&j, 1);
	settle();
	i->c->exit(&t);
	settle();
	return ns;
}

static void measure_writers(const char *what, u64 n,
			    double (*measure)(const struct instance *i, u64 n))
{
	static struct series all[NR_CONTENDERS];
	unsigned int r, i;

	for (r = 0; r < rounds; r++) {
		for (i = 0; i < NR_CONTENDERS; i++) {
			if (instances[i]->c->remove)
				all[i].ns[r] = measure(instances[i], n);
		}
		malloc_trim(0);
	}
	for (i = 0; i < NR_CONTENDERS; i++)
		sum_up(&all[i]);
	print_head(what, true);
	print_row(n, all, true);
}

/* === Memory ============================================================== */

static long resident(void)
{
	FILE *f = must_have(fopen("/proc/self/statm", "r"));
	long pages;

	malloc_trim(0);
	if (fscanf(f, "%*d %ld", &pages) != 1)
		die("no /proc/self/statm");
	fclose(f);
	return pages * sysconf(_SC_PAGESIZE);
}

/* In a process of its own: "memory NAME PAIRS" */
static int print_resident(const char *name, u64 n)
{
	struct table t = { };
	unsigned int i;
	long before;

	for (i = 0; i < NR_CONTENDERS && strcmp(instances[i]->c->name, name); i++)
		;
	if (i == NR_CONTENDERS)
		die("who?");
	settle();
	before = resident();
	fill(instances[i], &t, n);
	printf("%ld\n", resident() - before);
	instances[i]->c->exit(&t);
	settle();
	return 0;
}

static long memory_of(const char *name, u64 n)
{
	char command[100];
	long bytes;
	FILE *f;

	snprintf(command, sizeof(command), "exec /proc/%d/exe memory %s %llu",
		 getpid(), name, (unsigned long long)n);
	f = must_have(popen(command, "r"));
	if (fscanf(f, "%ld", &bytes) != 1 || pclose(f))
		die("memory cannot be measured");
	return bytes;
}

/* Between two powers of two, where some have just grown, and some are about to. */
static void measure_memory(void)
{
	unsigned int i, quarter;

	printf("\nmemory: resident bytes per pair\n  entries");
	for (i = 0; i < NR_CONTENDERS; i++) {
		if (instances[i]->c->remove)
			printf("%9s", instances[i]->c->name);
	}
	printf("\n");
	for (quarter = 4; quarter < 8; quarter++) {
		u64 n = quarter << 18;

		printf("%9llu", (unsigned long long)n);
		for (i = 0; i < NR_CONTENDERS; i++) {
			if (instances[i]->c->remove)
				printf("%9.1f",
				       (double)memory_of(instances[i]->c->name, n) / n);
		}
		printf("\n");
		fflush(stdout);
	}
}

/* === Verdict ============================================================= */

/* How often others took the CPU from a thread, per second */
static double disturbances(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return u.ru_nivcsw * (double)NSEC_PER_SEC / now(CLOCK_PROCESS_CPUTIME_ID);
}

static void print_verdict(void)
{
	unsigned int i;

	printf("\nThreads lost their CPU %.0f times in a second of work.\n", disturbances());
	for (i = 1; i < NR_CONTENDERS; i++) {
		if (*scores[i].slower)
			printf("chm is slower than %s in\n%s", instances[i]->c->name,
			       scores[i].slower);
	}
	if (nudges)
		printf("lfht had to be told to go on resizing %u times.\n", nudges);
	if (errors)
		printf("%llu operations went wrong.\n", (unsigned long long)errors);
	printf("Of the reader rows chm is faster");
	for (i = 1; i < NR_CONTENDERS; i++) {
		if (!instances[i]->c->blind)
			printf("%s than %s in %u of %u", i > 1 ? "," : "",
			       instances[i]->c->name, scores[i].faster, scores[i].rows);
	}
	printf(".\n");
}

static int bench_all(void)
{
	unsigned int size;

	printf("Medians of %u rounds in ns, interquartile ranges, multiples of chm's medians\n",
	       rounds);
	for (size = 0; size < ARRAY_SIZE(reader_sizes); size++)
		measure_size(size);
	print_readers();
	measure_writers("insert: from empty, growth included", 1 << 20, measure_insert);
	measure_writers("churn: remove and insert", 1 << 16, measure_churn);
	measure_memory();
	print_verdict();
	return errors ? 2 : 0;
}

int main(int argc, char **argv)
{
	int ret;

	find_cpus();
	/* The helpers of all contenders stay where the first, or only, thread is not. */
	pin(cpus[nr_cpus - 1]);
	urcu_memb_register_thread();
	must_have(urcu_memb_get_default_call_rcu_data());
	if (load_module())
		die("no module");
	if (argc == 4 && !strcmp(argv[1], "memory")) {
		ret = print_resident(argv[2], strtoull(argv[3], NULL, 0));
	} else {
		if (argc > 1)
			rounds = strtoul(argv[1], NULL, 0);
		rounds = clamp(rounds, 1U, (unsigned int)MAX_ROUNDS);
		ret = bench_all();
	}
	unload_module();
	urcu_memb_unregister_thread();
	return ret;
}
