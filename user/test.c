// SPDX-License-Identifier: GPL-2.0-only
/*
 * Does chm work as a library?  Its tests are KUnit's; this one is for the shims, and
 * for the sanitizers that there are in userland only.
 *
 * usage: test [PAIRS]
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <linux/siphash.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "chm.h"
#include "check.h"

/* Keys are numbers; each fourth one comes and goes, the others stay. */
static unsigned long pairs = 1000000;

static bool comes_and_goes(u64 i)
{
	return i % 4 == 3;
}

static u64 next_random(u64 *x)
{
	*x = *x * 6364136223846793005ULL + 1442695040888963407ULL;
	return *x >> 32;
}

struct value {
	u64	version;
	u64	sum;		/* with the key */
};

static struct value value_of(u64 key, u64 version)
{
	return (struct value) { version, key * 31 + version };
}

static bool is_of(const struct value *v, u64 key)
{
	return v->sum == key * 31 + v->version;
}

static unsigned long dropped;

static void drop(void *ctx, void *key, void *value)
{
	check(is_of(value, *(u64 *)key));
	__atomic_fetch_add(&dropped, 1, __ATOMIC_RELAXED);
}

DEFINE_CHM_TYPE(plain, u64, struct value);
DEFINE_CHM_TYPE(owner, u64, struct value, .drop = drop);
DEFINE_CHM_TYPE(waiter, u64, struct value, .drop = drop, .reclaim = CHM_SYNC);
DEFINE_CHM_TYPE(words, u64, u64, .class = CHM_WORD);
DEFINE_CHM_TYPE(counters, u64, atomic_long_t, .class = CHM_CELL);

/* === Readers and a writer ================================================ */

static struct plain shared;
static unsigned long inserted;		/* keys below this are there, or come and go */
static bool done;

struct reader {
	pthread_t	thread;
	u64		x;		/* random */
	u64		hits, misses;
};

/* Look @key up; @bound: what was inserted before. */
static void read_one(struct reader *r, u64 key, u64 bound)
{
	const struct value *v;
	struct value copy;

	rcu_read_lock();
	v = plain_lookup(&shared, &key);
	if (v)
		check(is_of(v, key));
	else
		check(key >= bound || comes_and_goes(key));
	check(!v || key < pairs);
	rcu_read_unlock();
	if (plain_get(&shared, &key, &copy))
		check(is_of(&copy, key));
	r->hits += !!v;
	r->misses += !v;
}

static void read_many(struct reader *r, u64 bound)
{
	const struct value *values[100];
	u64 keys[ARRAY_SIZE(values)];
	unsigned int i, found, n = 0;

	for (i = 0; i < ARRAY_SIZE(keys); i++)
		keys[i] = next_random(&r->x) % (2 * pairs);
	rcu_read_lock();
	found = plain_lookup_many(&shared, keys, ARRAY_SIZE(keys), values);
	for (i = 0; i < ARRAY_SIZE(keys); i++) {
		if (values[i])
			check(is_of(values[i], keys[i]));
		else
			check(keys[i] >= bound || comes_and_goes(keys[i]));
		n += !!values[i];
	}
	rcu_read_unlock();
	check(n == found);
}

static void *read_on(void *arg)
{
	struct reader *r = arg;

	urcu_memb_register_thread();
	while (!READ_ONCE(done)) {
		/* Pairs with fill(): these have been inserted. */
		u64 bound = smp_load_acquire(&inserted);

		read_one(r, next_random(&r->x) % (2 * pairs), bound);
		if (bound)
			read_one(r, next_random(&r->x) % bound, bound);
		if (!(next_random(&r->x) % 64))
			read_many(r, bound);
	}
	urcu_memb_unregister_thread();
	return NULL;
}

/* Change something among the keys below @i, of which @there tells who comes and goes. */
static void change_one(u64 *x, u64 i, u8 *there)
{
	u64 key = next_random(x) % i;
	struct value v = value_of(key, i);

	if (!comes_and_goes(key)) {
		check(!plain_replace(&shared, &key, &v, GFP_KERNEL));
	} else if (there[key / 4]) {
		check(!plain_remove(&shared, &key));
		there[key / 4] = false;
	} else {
		check(!plain_insert(&shared, &key, &v, GFP_KERNEL));
		there[key / 4] = true;
	}
}

/* Each key that stays is visited once, each other one at most once. */
static void walk(const u8 *there)
{
	u8 *visited = calloc(pairs, 1);
	struct chm_iter it;
	struct value v;
	u64 key, n = 0;

	check(visited);
	plain_iter_init(&it, &shared);
	while (plain_iter_next(&it, &key, &v)) {
		check(key < pairs && !visited[key] && is_of(&v, key));
		visited[key] = true;
		n++;
	}
	check(!chm_iter_stale(&it));
	for (key = 0; key < pairs; key++)
		check(visited[key] == (!comes_and_goes(key) || there[key / 4]));
	check(n == plain_count(&shared));
	free(visited);
}

static void fill(u8 *there)
{
	u64 i, x = 1;

	for (i = 0; i < pairs; i++) {
		struct value v = value_of(i, 0);

		check(!plain_insert(&shared, &i, &v, GFP_KERNEL));
		if (comes_and_goes(i))
			there[i / 4] = true;
		/* Pairs with read_on(). */
		smp_store_release(&inserted, i + 1);
		if (!(i % 4))
			change_one(&x, i + 1, there);
	}
	/* No growth any more, but slots are used again. */
	for (i = 0; i < pairs / 4; i++)
		change_one(&x, pairs, there);
}

static void test_readers(void)
{
	struct reader readers[2] = { { .x = 1 }, { .x = 2 } };
	u8 *there = calloc(pairs / 4 + 1, 1);
	struct chm_stats s;
	u64 key;
	int i;

	check(there && !plain_init(&shared, NULL, NULL));
	for (i = 0; i < 2; i++)
		check(!pthread_create(&readers[i].thread, NULL, read_on, &readers[i]));
	fill(there);
	walk(there);
	check(!plain_verify(&shared));
	plain_stats(&shared, &s);
	WRITE_ONCE(done, true);
	for (i = 0; i < 2; i++)
		check(!pthread_join(readers[i].thread, NULL) && readers[i].hits);
	printf("%lu pairs, %lu growths, %lu rehashes; readers found %llu and missed %llu\n",
	       s.entries, s.grows, s.rehashes, readers[0].hits + readers[1].hits,
	       readers[0].misses + readers[1].misses);
	for (key = 0; key < pairs; key++)
		check(plain_remove(&shared, &key) ==
		      (comes_and_goes(key) && !there[key / 4] ? -ENOENT : 0));
	check(!plain_count(&shared) && !plain_verify(&shared));
	plain_destroy(&shared);
	free(there);
}

/* === Cells =============================================================== */

static struct counters counts;
static u64 counted = 1000;		/* keys */

static void *count_on(void *unused)
{
	u64 i, key;

	urcu_memb_register_thread();
	for (i = 0; i < pairs; i++) {
		key = i % counted;
		check(counters_cell_upsert_add(&counts, &key, 0, 1, GFP_KERNEL) >= 0);
	}
	urcu_memb_unregister_thread();
	return NULL;
}

/* Two threads count while the table grows, and is shrunk again and again. */
static void test_cells(void)
{
	pthread_t threads[2];
	atomic_long_t n;
	u64 key;
	int i;

	check(!counters_init(&counts, NULL, NULL));
	for (i = 0; i < 2; i++)
		check(!pthread_create(&threads[i], NULL, count_on, NULL));
	for (i = 0; i < 100; i++) {
		check(!counters_reserve(&counts, 20 * counted, GFP_KERNEL));
		check(!counters_shrink(&counts, GFP_KERNEL));
	}
	for (i = 0; i < 2; i++)
		check(!pthread_join(threads[i], NULL));
	for (key = 0; key < counted; key++) {
		check(counters_cell_read(&counts, &key, &n));
		check((u64)n.counter == 2 * (pairs / counted + (key < pairs % counted)));
	}
	check(!counters_verify(&counts));
	counters_destroy(&counts);
}

/* === Words, and who drops pairs ========================================== */

static void test_words(void)
{
	struct words map;
	u64 key, value;
	int err;
	u64 keys[100], values[100];

	check(!words_init(&map, NULL, NULL));
	for (key = 0; key < ARRAY_SIZE(keys); key++) {
		keys[key] = key;
		values[key] = key;
	}
	check(words_insert_many(&map, keys, values, ARRAY_SIZE(keys), GFP_ATOMIC,
				&err) == ARRAY_SIZE(keys) && !err);
	for (key = 0; key < 10000; key++)
		check(words_upsert(&map, &key, &key, GFP_ATOMIC) == (key >= 100));
	value = 4711;
	key = 42;
	check(!words_replace(&map, &key, &value, GFP_ATOMIC));
	check(words_get(&map, &key, &value) && value == 4711);
	check(!words_take(&map, &key, NULL, &value) && value == 4711);
	check(!words_verify(&map));
	words_clear(&map);
	check(!words_count(&map));
	words_destroy(&map);
}

#define DEFINE_TEST_DROPS(name)						\
static void test_drops_##name(bool async)				\
{									\
	unsigned long n = pairs / 10, before = dropped;			\
	struct name map;						\
	u64 key;							\
									\
	check(!name##_init(&map, NULL, NULL));				\
	for (key = 0; key < n; key++) {					\
		struct value v = value_of(key, 1);			\
									\
		check(!name##_insert(&map, &key, &v, GFP_KERNEL));	\
		if (key % 2)						\
			check(!name##_remove(&map, &key));		\
	}								\
	if (async)							\
		name##_destroy_async(&map);				\
	else								\
		name##_destroy(&map);					\
	chm_barrier();							\
	check(__atomic_load_n(&dropped, __ATOMIC_RELAXED) == before + n);	\
}

DEFINE_TEST_DROPS(owner)
DEFINE_TEST_DROPS(waiter)

/* The vector of SipHash's authors: key 00 01 02..., message 00 01 02... of 15 bytes */
static void test_siphash(void)
{
	const siphash_key_t key = { { 0x0706050403020100, 0x0f0e0d0c0b0a0908 } };
	u8 message[15];
	u8 i;

	for (i = 0; i < sizeof(message); i++)
		message[i] = i;
	check(siphash(message, sizeof(message), &key) == 0xa129ca6149be45e5);
}

int main(int argc, char **argv)
{
	if (argc > 1)
		pairs = strtoul(argv[1], NULL, 0);
	urcu_memb_register_thread();
	check(pairs >= 1000 && !load_module());
	test_siphash();
	test_readers();
	test_cells();
	test_words();
	test_drops_owner(false);
	test_drops_owner(true);
	test_drops_waiter(false);
	test_drops_waiter(true);
	unload_module();
	urcu_memb_unregister_thread();
	printf("all is well\n");
	return 0;
}
