// SPDX-License-Identifier: GPL-2.0-only
/*
 * Fuzz the sequence of calls and the parameters of a map, for libFuzzer.
 *
 * The first bytes of an input choose the parameters and how others behave.  The rest is
 * a list of steps: calls, and what happens between them.  A model knows what each call
 * may return, and what the map holds.  drop() and clone() are counted.  All is done by
 * one thread (serial.c), so that an input always does the same.
 *
 * FUZZ_TRACE in the environment has the steps shown.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <linux/list.h>
#include <linux/siphash.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include "chm.h"
#include "check.h"
#include "serial.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const u8 *data, size_t size);

#define KEYS		512U	/* different ones */
#define MANY		80U	/* at most, in one call */
#define WALKS		3U
#define SUMS		4U	/* words that are added to */
#define VALUES_MAX	SZ_256K	/* bytes of values in a map, or so */
#define HELD		64U	/* bytes that a reader looks at */

static bool tracing;

static void trace(const char *fmt, ...) __printf(1, 2);
static void trace(const char *fmt, ...)
{
	va_list args;

	if (!tracing)
		return;
	va_start(args, fmt);
	vfprintf(stderr, fmt, args);
	va_end(args);
}

/* === Input =============================================================== */

static const u8 *at, *end;

static bool at_end(void)
{
	return at == end;
}

/* Zeroes follow the end. */
static u8 next_u8(void)
{
	return at_end() ? 0 : *at++;
}

static u32 next_u16(void)
{
	u32 low = next_u8();

	return low | next_u8() << 8;
}

/* One of @n sizes, or any */
static u32 next_size(const u32 *sizes, u32 n)
{
	u8 i = next_u8();

	return i < 240 ? sizes[i % n] : next_u16();
}

/* === Model =============================================================== */

enum kind {
	BYTES,		/* a pattern */
	OBJECT,		/* a pointer to one, which the pair owns, and a pattern */
	WORDS,		/* CHM_CELL: numbers that are added to */
	BITS,		/* CHM_CELL with merge(): bytes, of which one gets bits */
};

enum hash {
	DEFAULT,
	SEEDED,
	UNSEEDED,
	WEAK,		/* four values */
	CONSTANT,
};

/* What a pair owns */
struct object {
	struct object	*next;		/* in limbo */
	u32		key;
	u32		serial;
};

/* What the map should have for a key */
struct entry {
	bool		present;
	u8		variant;	/* last byte of the key, if equal() ignores it */
	u32		serial;		/* its value's pattern */
	u8		bits;
	struct object	*object;	/* NULL if clone() makes others */
	unsigned long	sums[SUMS];
};

/* A walk: keys that it has visited, that it has to, and that may come twice or never */
struct walk {
	bool		on;
	struct chm_iter	it;
	bool		seen[KEYS], owed[KEYS], loose[KEYS];
};

/* A reader elsewhere, of a pair */
struct held {
	const u8	*value;
	struct object	object;
	u8		copy[HELD];
};

static struct model {
	struct chm_params p;
	enum kind	kind;
	enum hash	hash;
	u32		keys;		/* that can be told apart */
	bool		has_variants;	/* equal() ignores the last byte of a key */
	u8		clone_fails;	/* of 256, how often */
	unsigned long	clone_failed;

	unsigned long	count;
	unsigned long	reserved;
	unsigned long	wear;		/* pairs removed since all was settled */
	u32		serial;		/* of the latest value */
	u32		settles;	/* they take long */
	struct entry	entries[KEYS];

	long		instances;	/* pairs that are to be dropped */
	unsigned long	in, out;	/* sums of first words that came and went */
	struct object	*limbo;		/* readers may still look at them */
	struct walk	walks[WALKS];
	struct held	held[SERIAL_READERS];
} m;

static struct chm *map;
static long objects;

static u8 key_buf[MANY * CHM_KEY_MAX], old_key_buf[CHM_KEY_MAX];
static u8 value_buf[MANY * CHM_VALUE_MAX], old_value_buf[CHM_VALUE_MAX];
static u8 expected_buf[CHM_VALUE_MAX];

/* --- Keys --- */

static void make_key(u8 *key, u32 k, u8 variant)
{
	u32 i;

	for (i = 2; i < m.p.key_size; i++)
		key[i] = k * 31 + i;
	key[0] = k;
	if (m.p.key_size > 1)
		key[1] = k >> 8;
	if (m.has_variants)
		key[m.p.key_size - 1] = variant;
}

static u32 key_number(const u8 *key)
{
	return key[0] | (m.keys > 256 ? key[1] << 8 : 0);
}

/* The number of a key, all of whose bytes must be right; @variant: of any key, if NULL */
static u32 check_key(const u8 *key, const u8 *variant)
{
	static u8 right[CHM_KEY_MAX];
	u32 k = key_number(key);

	check(k < m.keys);
	make_key(right, k, variant ? *variant : key[m.p.key_size - 1]);
	check(!memcmp(key, right, m.p.key_size));
	return k;
}

static u64 hash_seeded(const void *key, u64 seed)
{
	u64 x = (key_number(key) ^ seed) * 0x9e3779b97f4a7c15;

	return (x ^ x >> 29) * 0xbf58476d1ce4e5b9;
}

static u64 hash_unseeded(const void *key, u64 seed)
{
	return hash_seeded(key, 0);
}

static u64 hash_weak(const void *key, u64 seed)
{
	return key_number(key) % 4;
}

static u64 hash_constant(const void *key, u64 seed)
{
	return 42;
}

static bool equal(const void *a, const void *b)
{
	return !memcmp(a, b, m.p.key_size - m.has_variants);
}

/* --- Values --- */

static u32 nr_sums(void)
{
	return min_t(u32, SUMS, m.p.value_size / sizeof(long));
}

/* The bytes that the value of @e has */
static void make_value(u8 *value, const struct entry *e)
{
	u32 x = e->serial * 0x9e3779b1;
	u32 i;

	/* 0: the value that chm_cell_upsert_add() begins with */
	for (i = 0; i < m.p.value_size; i++)
		value[i] = e->serial ? (x >> (i % 4 * 8)) ^ (i / 4) : 0;
	if (m.kind == OBJECT)
		memcpy(value, &e->object, sizeof(e->object));
	else if (m.kind == BITS)
		value[0] |= e->bits;
	for (i = 0; m.kind == WORDS && i < nr_sums(); i++) {
		unsigned long word;

		memcpy(&word, value + i * sizeof(word), sizeof(word));
		word += e->sums[i];
		memcpy(value + i * sizeof(word), &word, sizeof(word));
	}
}

static unsigned long first_word(const u8 *value)
{
	unsigned long word;

	memcpy(&word, value, sizeof(word));
	return word;
}

static struct object *object_in(const u8 *value)
{
	return (struct object *)first_word(value);
}

static struct object *new_object(u32 k, u32 serial)
{
	struct object *o = malloc(sizeof(*o));

	check(o);
	*o = (struct object) { .key = k, .serial = serial };
	objects++;
	return o;
}

static void free_object(struct object *o)
{
	objects--;
	free(o);
}

/* Readers may still look at it. */
static void put_in_limbo(struct object *o)
{
	o->next = m.limbo;
	m.limbo = o;
}

static void empty_limbo(void)
{
	u32 i;

	for (i = 0; i < SERIAL_READERS; i++)
		if (serial.readers[i])
			return;
	while (m.limbo) {
		struct object *o = m.limbo;

		m.limbo = o->next;
		free_object(o);
	}
}

/* Is @value, in the map or copied from it, that of @k as @e describes it? */
static void check_value(u32 k, const struct entry *e, const u8 *value)
{
	struct entry is = *e;

	if (m.kind == OBJECT) {
		is.object = object_in(value);
		check(is.object->key == k && is.object->serial == e->serial);
		check(!e->object || is.object == e->object);
	}
	make_value(expected_buf, &is);
	check(!memcmp(value, expected_buf, m.p.value_size));
}

/* The words of cells that are being merged are not exact: see chm_get(). */
static void check_visible(u32 k, const u8 *value)
{
	check(m.entries[k].present);
	if (m.p.class != CHM_CELL)
		check_value(k, &m.entries[k], value);
}

/* --- Callbacks --- */

static void drop(void *ctx, void *key, void *value)
{
	u32 k = check_key(key, NULL);

	might_sleep();
	check(ctx == &m);
	check(--m.instances >= 0);
	if (m.kind == OBJECT) {
		struct object *o = object_in(value);

		check_value(k, &(struct entry) { .serial = o->serial }, value);
		free_object(o);
	} else if (m.kind == WORDS) {
		m.out += first_word(value);
	}
}

static int clone_pair(void *ctx, void *new_key, void *new_value, const void *key,
		      const void *value, gfp_t gfp)
{
	u32 k = check_key(key, NULL);

	check(ctx == &m && check_key(new_key, NULL) == k);
	check(!memcmp(value, new_value, m.p.value_size));
	if ((u8)get_random_u64() < m.clone_fails) {
		m.clone_failed++;
		return -ENOMEM;
	}
	m.instances++;
	if (m.kind == OBJECT) {
		struct object *o = new_object(k, object_in(value)->serial);

		memcpy(new_value, &o, sizeof(o));
	}
	return 0;
}

/* Bits are set and never cleared. */
static void merge(void *ctx, void *new_value, const void *old_now, const void *snapshot)
{
	u8 was = *(const u8 *)snapshot;
	u8 is = __atomic_load_n((const u8 *)old_now, __ATOMIC_RELAXED);

	check(ctx == &m && !(was & ~is));
	__atomic_fetch_or((u8 *)new_value, is & ~was, __ATOMIC_RELAXED);
}

/* === Readers elsewhere =================================================== */

static void end_reader(u32 i)
{
	struct held *h = &m.held[i];

	if (!serial.readers[i])
		return;
	if (h->value && (m.p.class == CHM_FROZEN || m.p.class == CHM_CLONE)) {
		check(!memcmp(h->value, h->copy, min(m.p.value_size, HELD)));
		if (m.kind == OBJECT)
			check(object_in(h->value)->serial == h->object.serial);
	}
	/* It must be there still, whatever it is. */
	if (h->value && m.p.value_size)
		(void)READ_ONCE(*h->value);
	serial.readers[i] = 0;
}

static void end_readers(void)
{
	u32 i;

	for (i = 0; i < SERIAL_READERS; i++)
		end_reader(i);
}

static void begin_reader(u32 i, u32 k)
{
	struct held *h = &m.held[i];

	end_reader(i);
	serial_read(i);
	rcu_read_lock();
	make_key(key_buf, k, 0);
	h->value = chm_lookup(map, key_buf);
	check(!h->value == !m.entries[k].present);
	if (h->value) {
		memcpy(h->copy, h->value, min(m.p.value_size, HELD));
		if (m.kind == OBJECT)
			h->object = *object_in(h->value);
	}
	rcu_read_unlock();
}

/* === Calls =============================================================== */

/* The context of a call, and what had failed before it */
static struct {
	gfp_t		gfp;
	bool		blocks, in_reader, in_lock;
	unsigned long	failed, clone_failed;
} call;

static void begin_call(void)
{
	u8 how = next_u8();

	call.gfp = how & 1 ? how & 2 ? GFP_NOWAIT : GFP_ATOMIC : GFP_KERNEL;
	call.blocks = gfpflags_allow_blocking(call.gfp);
	call.in_reader = !call.blocks && how & 4 && m.p.reclaim != CHM_SYNC;
	call.in_lock = !call.blocks && how & 8 && m.p.reclaim != CHM_SYNC;
	call.failed = serial.failed;
	call.clone_failed = m.clone_failed;
	if (call.in_reader)
		rcu_read_lock();
	preempt_count() += call.in_lock;
}

static void end_call(void)
{
	preempt_count() -= call.in_lock;
	if (call.in_reader)
		rcu_read_unlock();
}

/* Has chm_reserve() promised that the map can hold @n pairs now? */
static bool promised(unsigned long n)
{
	if (n > m.reserved || m.clone_failed != call.clone_failed)
		return false;
	return call.blocks || (m.wear <= m.reserved / 38 && !m.clone_fails);
}

/* May a call that would make the map hold @n pairs fail with @err? */
static void check_refused(int err, unsigned long n)
{
	if (err == -E2BIG) {
		check(m.p.max_entries && n > m.p.max_entries);
		return;
	}
	check(err == -ENOMEM);
	check(!call.blocks || serial.failed != call.failed ||
	      m.clone_failed != call.clone_failed);
	check(!promised(n));
}

/* --- What calls lead to --- */

/* A value of its own for @k, at @value; it has yet to come into the map. */
static struct entry new_value(u32 k, u8 *value)
{
	struct entry e = { .present = true, .serial = ++m.serial };

	if (m.kind == OBJECT)
		e.object = new_object(k, e.serial);
	make_value(value, &e);
	return e;
}

/* It did not come there. */
static void forget_value(const struct entry *e)
{
	if (e->object)
		free_object(e->object);
}

/* As it is in the map */
static void settle_entry(u32 k, struct entry *e, const u8 *value)
{
	if (m.kind == WORDS)
		m.in += first_word(value);
	/* From now on clone() may make others of it. */
	if (m.p.class == CHM_CLONE)
		e->object = NULL;
	m.entries[k] = *e;
}

/*
 * @k comes with other bytes than it had.  A walk that is past the old ones may see the
 * new ones, too; and it may miss those that take the place of old ones.
 */
static void note_variant(u32 k, u8 variant)
{
	u32 i;

	if (variant == m.entries[k].variant || m.hash == SEEDED)
		return;
	for (i = 0; i < WALKS; i++)
		if (m.entries[k].present || m.walks[i].seen[k])
			m.walks[i].loose[k] = true;
}

static void note_inserted(u32 k, struct entry *e, const u8 *value, u8 variant)
{
	note_variant(k, variant);
	e->variant = variant;
	settle_entry(k, e, value);
	m.count++;
	m.instances++;
}

static bool in_place(void)
{
	return m.p.class == CHM_WORD || m.p.class == CHM_CELL;
}

static void note_replaced(u32 k, struct entry *e, const u8 *value, u8 variant)
{
	struct entry *old = &m.entries[k];

	if (in_place())
		variant = old->variant;
	else
		m.instances++;
	if (m.kind == WORDS) {
		make_value(expected_buf, old);
		m.out += first_word(expected_buf);
	}
	if (m.p.class == CHM_WORD && old->object)
		put_in_limbo(old->object);
	m.wear += !in_place();
	note_variant(k, variant);
	e->variant = variant;
	settle_entry(k, e, value);
}

/* Walks owe it no more. */
static void note_gone(u32 k)
{
	u32 i;

	check(m.entries[k].present);
	m.entries[k].present = false;
	m.count--;
	m.wear++;
	for (i = 0; i < WALKS; i++)
		m.walks[i].owed[k] = false;
}

/* The pair of @k, as the model has it, was handed out as @value. */
static void note_handed_out(u32 k, const u8 *value)
{
	check_value(k, &m.entries[k], value);
	m.instances--;
	if (m.kind == OBJECT)
		put_in_limbo(object_in(value));
	else if (m.kind == WORDS)
		m.out += first_word(value);
}

/* --- Insert and replace --- */

static u32 next_key(u8 *variant)
{
	u32 k = next_u8();

	if (k >= 240)
		k = 240 + next_u8() + (k - 240) * 16;
	*variant = m.has_variants ? next_u8() % 4 : 0;
	return k % m.keys;
}

/* A new pair would be beyond what this is meant to hold. */
static bool too_much(u32 n)
{
	return (m.count + n) * (m.p.key_size + m.p.value_size) > VALUES_MAX;
}

static void do_insert(void)
{
	u8 variant;
	u32 k = next_key(&variant);
	struct entry e = new_value(k, value_buf);
	int ret;

	make_key(key_buf, k, variant);
	begin_call();
	ret = chm_insert(map, key_buf, value_buf, call.gfp);
	end_call();
	trace("insert %u: %d\n", k, ret);
	check((ret == -EEXIST) == m.entries[k].present);
	if (!ret) {
		note_inserted(k, &e, value_buf, variant);
		return;
	}
	forget_value(&e);
	if (ret != -EEXIST)
		check_refused(ret, m.count + 1);
}

static void do_upsert(void)
{
	u8 variant;
	u32 k = next_key(&variant);
	struct entry e = new_value(k, value_buf);
	bool present = m.entries[k].present;
	int ret;

	make_key(key_buf, k, variant);
	begin_call();
	ret = chm_upsert(map, key_buf, value_buf, call.gfp);
	end_call();
	trace("upsert %u: %d\n", k, ret);
	if (ret == 1) {
		check(!present);
		note_inserted(k, &e, value_buf, variant);
	} else if (!ret) {
		check(present && m.kind != BITS);
		note_replaced(k, &e, value_buf, variant);
	} else {
		forget_value(&e);
		check((ret == -EOPNOTSUPP) == (present && m.kind == BITS));
		if (ret != -EOPNOTSUPP)
			check_refused(ret, m.count + !present);
	}
}

/* The end of a call that replaces only; @due: what it is to return */
static void end_replace(u32 k, u8 variant, struct entry *e, int ret, int due)
{
	if (!ret && !due) {
		note_replaced(k, e, value_buf, variant);
		return;
	}
	forget_value(e);
	if (ret == due)
		return;
	check(m.entries[k].present && !in_place());
	check_refused(ret, m.count);
}

static void do_replace(void)
{
	u8 variant;
	u32 k = next_key(&variant);
	struct entry e = new_value(k, value_buf);
	int ret, due = 0;

	make_key(key_buf, k, variant);
	begin_call();
	ret = chm_replace(map, key_buf, value_buf, call.gfp);
	end_call();
	trace("replace %u: %d\n", k, ret);
	if (!m.entries[k].present)
		due = -ENOENT;
	else if (m.kind == BITS)
		due = -EOPNOTSUPP;
	end_replace(k, variant, &e, ret, due);
}

/*
 * At @expected: the bytes that are there, or others.  Return: what a call is to
 * return that looks at them; 0: it changes the map.
 */
static int make_expected(u32 k, u8 *expected)
{
	u8 wrong = next_u8();

	memset(expected, 0, m.p.value_size);
	if (!m.entries[k].present)
		return -ENOENT;
	if (m.p.class == CHM_CELL)
		return -EOPNOTSUPP;
	check(chm_get(map, key_buf, expected));
	if (wrong % 4 || !m.p.value_size)
		return 0;
	expected[wrong % m.p.value_size] ^= 1;
	return -ESTALE;
}

/* A copy that clone() made may have come into the place of what was expected. */
static bool is_copy(int ret)
{
	return ret == -ESTALE && m.p.class == CHM_CLONE && m.kind == OBJECT;
}

static void do_replace_if(void)
{
	u8 variant;
	u32 k = next_key(&variant);
	struct entry e = new_value(k, value_buf);
	int ret, due;

	make_key(key_buf, k, variant);
	due = make_expected(k, old_value_buf);
	begin_call();
	ret = chm_replace_if(map, key_buf, old_value_buf, value_buf, call.gfp);
	end_call();
	trace("replace_if %u: %d\n", k, ret);
	end_replace(k, variant, &e, ret, due ?: is_copy(ret) ? ret : 0);
}

static void do_swap(void)
{
	u8 variant;
	u32 k = next_key(&variant);
	struct entry e = new_value(k, value_buf);
	bool present = m.entries[k].present;
	int ret;

	make_key(key_buf, k, variant);
	begin_call();
	ret = chm_swap(map, key_buf, value_buf, old_key_buf, old_value_buf, call.gfp);
	end_call();
	trace("swap %u: %d\n", k, ret);
	if (ret == 1) {
		check(!present);
		note_inserted(k, &e, value_buf, variant);
	} else if (!ret) {
		check(present && m.p.class != CHM_CELL);
		memcpy(key_buf, old_key_buf, m.p.key_size);
		check(check_key(key_buf, &m.entries[k].variant) == k);
		note_handed_out(k, old_value_buf);
		/* Not a second time */
		m.entries[k].object = NULL;
		m.instances += m.p.class == CHM_WORD;
		note_replaced(k, &e, value_buf, variant);
	} else {
		forget_value(&e);
		check((ret == -EOPNOTSUPP) == (m.p.class == CHM_CELL));
		if (ret != -EOPNOTSUPP)
			check_refused(ret, m.count + !present);
	}
}

static void do_get_or_insert(void)
{
	u8 variant;
	u32 k = next_key(&variant);
	struct entry e = new_value(k, value_buf);
	bool present = m.entries[k].present;
	int ret;

	make_key(key_buf, k, variant);
	begin_call();
	ret = chm_get_or_insert(map, key_buf, value_buf, call.gfp);
	end_call();
	trace("get_or_insert %u: %d\n", k, ret);
	check(!ret == present);
	if (ret == 1) {
		note_inserted(k, &e, value_buf, variant);
		return;
	}
	forget_value(&e);
	if (present)
		check_visible(k, value_buf);
	else
		check_refused(ret, m.count + 1);
}

static void do_lookup_or_insert(void)
{
	u8 variant;
	u32 k = next_key(&variant);
	struct entry e;
	const u8 *found;
	bool present = m.entries[k].present;

	if (m.p.reclaim == CHM_SYNC)
		return;
	e = new_value(k, value_buf);
	make_key(key_buf, k, variant);
	begin_call();
	call.blocks = false;
	rcu_read_lock();
	found = chm_lookup_or_insert(map, key_buf, value_buf, GFP_NOWAIT);
	trace("lookup_or_insert %u: %ld\n", k, IS_ERR(found) ? PTR_ERR(found) : 0);
	if (present) {
		check_visible(k, found);
		forget_value(&e);
	} else if (IS_ERR(found)) {
		forget_value(&e);
		check_refused(PTR_ERR(found), m.count + 1);
	} else {
		check(!memcmp(found, value_buf, m.p.value_size));
		note_inserted(k, &e, value_buf, variant);
	}
	rcu_read_unlock();
	end_call();
}

/* Keys @first, and so on by @stride, without repetition */
struct range {
	u32	first, stride, n;
};

static u32 in_range(const struct range *r, u32 i)
{
	return (r->first + i * r->stride) % m.keys;
}

static struct range next_range(void)
{
	struct range r;
	u32 i;
	u8 variant;

	r.first = next_key(&variant);
	r.n = next_u8() % (MANY + 1);
	r.stride = next_u8() % 8 * 2 + 1;	/* coprime to the number of keys */
	for (i = 0; i < r.n; i++)
		make_key(key_buf + i * m.p.key_size, in_range(&r, i), variant);
	return r;
}

static void do_insert_many(void)
{
	struct range r = next_range();
	struct entry e[MANY];
	unsigned long inserted, i;
	int err;

	if (too_much(r.n))
		return;
	for (i = 0; i < r.n; i++)
		e[i] = new_value(in_range(&r, i), value_buf + i * m.p.value_size);
	begin_call();
	inserted = chm_insert_many(map, key_buf, value_buf, r.n, call.gfp, &err);
	end_call();
	trace("insert_many %u*%u+%u: %lu, %d\n", r.n, r.stride, r.first, inserted, err);
	check(inserted <= r.n && (inserted == r.n) == !err);
	for (i = 0; i < inserted; i++) {
		u32 k = in_range(&r, i);

		check(!m.entries[k].present);
		note_inserted(k, &e[i], value_buf + i * m.p.value_size,
			      m.has_variants ?
			      key_buf[(i + 1) * m.p.key_size - 1] : 0);
	}
	for (i = inserted; i < r.n; i++)
		forget_value(&e[i]);
	if (!err)
		return;
	check((err == -EEXIST) == m.entries[in_range(&r, inserted)].present);
	if (err != -EEXIST)
		check_refused(err, m.count + 1);
}

/* --- Remove --- */

static void do_remove(void)
{
	u8 variant;
	u32 k = next_key(&variant);
	int ret;

	make_key(key_buf, k, variant);
	begin_call();
	ret = chm_remove(map, key_buf);
	end_call();
	trace("remove %u: %d\n", k, ret);
	check(ret == (m.entries[k].present ? 0 : -ENOENT));
	if (!ret)
		note_gone(k);
}

static void do_remove_if(void)
{
	u8 variant;
	u32 k = next_key(&variant);
	int ret, due;

	make_key(key_buf, k, variant);
	due = make_expected(k, old_value_buf);
	begin_call();
	ret = chm_remove_if(map, key_buf, old_value_buf);
	end_call();
	trace("remove_if %u: %d\n", k, ret);
	check(ret == due || (!due && is_copy(ret)));
	if (!ret)
		note_gone(k);
}

static void do_take(void)
{
	u8 variant;
	u32 k = next_key(&variant);
	u8 what = next_u8();
	int ret;

	make_key(key_buf, k, variant);
	begin_call();
	/* It waits for readers. */
	if (m.p.class == CHM_CELL)
		end_call();
	ret = chm_take(map, key_buf, what & 1 ? old_key_buf : NULL, old_value_buf);
	if (m.p.class != CHM_CELL)
		end_call();
	trace("take %u: %d\n", k, ret);
	check(ret == (m.entries[k].present ? 0 : -ENOENT));
	if (ret)
		return;
	if (what & 1) {
		memcpy(key_buf, old_key_buf, m.p.key_size);
		check(check_key(key_buf, &m.entries[k].variant) == k);
	}
	note_handed_out(k, old_value_buf);
	note_gone(k);
}

static void do_remove_many(void)
{
	struct range r = next_range();
	unsigned long removed, due = 0;
	u32 i;

	begin_call();
	removed = chm_remove_many(map, key_buf, r.n);
	end_call();
	trace("remove_many %u*%u+%u: %lu\n", r.n, r.stride, r.first, removed);
	for (i = 0; i < r.n; i++) {
		if (m.entries[in_range(&r, i)].present) {
			note_gone(in_range(&r, i));
			due++;
		}
	}
	check(removed == due);
}

static void note_all_gone(void)
{
	u32 k;

	for (k = 0; k < m.keys; k++)
		if (m.entries[k].present)
			note_gone(k);
}

static void do_clear(void)
{
	begin_call();
	chm_clear(map);
	end_call();
	trace("clear\n");
	note_all_gone();
	check(!chm_count(map));
}

/* --- Cells --- */

static void note_added(u32 k, u32 i, long n)
{
	m.entries[k].sums[i] += n;
	if (!i)
		m.in += n;
}

/* As many a reader would */
static void set_bits(u32 k, u8 bits)
{
	u8 *value;

	rcu_read_lock();
	value = chm_cell_lookup(map, key_buf);
	check(!value == !m.entries[k].present);
	if (value) {
		__atomic_fetch_or(value, bits, __ATOMIC_RELAXED);
		m.entries[k].bits |= bits;
	}
	rcu_read_unlock();
}

static bool has_word(u32 i)
{
	return m.kind == WORDS && i < m.p.value_size / sizeof(long);
}

static void do_cell_add(void)
{
	u8 variant;
	u32 k = next_key(&variant);
	long n = (signed char)next_u8();
	u32 i = next_u8() % SUMS;
	int ret;

	make_key(key_buf, k, variant);
	if (m.kind == BITS) {
		set_bits(k, n);
		return;
	}
	ret = chm_cell_add(map, key_buf, i, n);
	trace("cell_add %u, %u, %ld: %d\n", k, i, n, ret);
	if (!has_word(i)) {
		check(ret == -EINVAL || (ret == -ENOENT && !m.count));
		return;
	}
	check(ret == (m.entries[k].present ? 0 : -ENOENT));
	if (!ret)
		note_added(k, i, n);
}

static void do_cell_upsert_add(void)
{
	u8 variant;
	u32 k = next_key(&variant);
	long n = (signed char)next_u8();
	u32 i = next_u8() % SUMS;
	struct entry e = { .present = true };
	int ret;

	make_key(key_buf, k, variant);
	begin_call();
	ret = chm_cell_upsert_add(map, key_buf, i, n, call.gfp);
	end_call();
	trace("cell_upsert_add %u, %u, %ld: %d\n", k, i, n, ret);
	if (!has_word(i)) {
		check(ret == -EINVAL);
		return;
	}
	check(!ret == m.entries[k].present);
	if (ret == 1) {
		memset(value_buf, 0, m.p.value_size);
		note_inserted(k, &e, value_buf, variant);
	}
	if (ret >= 0)
		note_added(k, i, n);
	else
		check_refused(ret, m.count + 1);
}

/* Exact, at any time */
static void check_cell(u32 k)
{
	bool found = chm_cell_read(map, key_buf, old_value_buf);

	check(found == m.entries[k].present);
	if (found)
		check_value(k, &m.entries[k], old_value_buf);
}

/* --- Look up --- */

static void check_pair(u32 k, u8 variant)
{
	const u8 *found;

	make_key(key_buf, k, variant);
	rcu_read_lock();
	found = chm_lookup(map, key_buf);
	check(!found == !m.entries[k].present);
	if (found)
		check_visible(k, found);
	rcu_read_unlock();
	if (m.p.class == CHM_CELL) {
		check_cell(k);
		return;
	}
	check(chm_get(map, key_buf, old_value_buf) == m.entries[k].present);
	if (m.entries[k].present)
		check_visible(k, old_value_buf);
}

static void do_lookup(void)
{
	u8 variant;
	u32 k = next_key(&variant);

	check_pair(k, variant);
}

static void do_lookup_many(void)
{
	struct range r = next_range();
	const void *values[MANY];
	unsigned int found, i, n = 0;

	rcu_read_lock();
	found = chm_lookup_many(map, key_buf, r.n, values);
	for (i = 0; i < r.n; i++) {
		u32 k = in_range(&r, i);

		check(!values[i] == !m.entries[k].present);
		if (values[i])
			check_visible(k, values[i]);
		n += !!values[i];
	}
	rcu_read_unlock();
	check(n == found);
}

static void check_all(void)
{
	u32 k;

	for (k = 0; k < m.keys; k++)
		check_pair(k, 0);
	check(chm_count(map) == m.count);
}

/* --- Walk --- */

/* Pairs whose keys differ and whose hashes never do: only one of them comes. */
static bool all_come(void)
{
	return !m.p.equal || m.hash == SEEDED || m.hash == UNSEEDED;
}

static void begin_walk(struct walk *w)
{
	u32 k;

	memset(w, 0, sizeof(*w));
	w->on = true;
	for (k = 0; k < m.keys; k++)
		w->owed[k] = m.entries[k].present;
	chm_iter_init(&w->it, map);
}

static void end_walk(struct walk *w)
{
	u32 k;

	check(!chm_iter_next(&w->it, NULL, NULL));
	w->on = false;
	if (chm_iter_stale(&w->it) || !all_come())
		return;
	for (k = 0; k < m.keys; k++)
		check(!w->owed[k] || w->loose[k] || w->seen[k]);
}

static void step_walk(struct walk *w, bool wants_value)
{
	u32 k;

	if (!chm_iter_next(&w->it, key_buf, wants_value ? old_value_buf : NULL)) {
		end_walk(w);
		return;
	}
	k = key_number(key_buf);
	check(k < m.keys);
	check(check_key(key_buf, &m.entries[k].variant) == k);
	check(m.entries[k].present);
	check(!w->seen[k] || w->loose[k]);
	w->seen[k] = true;
	if (wants_value)
		check_visible(k, old_value_buf);
}

static void do_walk(void)
{
	u8 what = next_u8();
	struct walk *w = &m.walks[what % 4 % WALKS];
	u32 n = what & 128 ? UINT_MAX : what / 8;

	if (!w->on)
		begin_walk(w);
	trace("walk %u: %u steps\n", what % 4 % WALKS, n);
	for (; w->on && n; n--)
		step_walk(w, what & 4);
}

/* In a reader; remove one of @nth on the way. */
static void do_for_each(void)
{
	unsigned long n = 0, before = m.count;
	bool seen[KEYS] = { };
	u8 nth = next_u8();
	struct chm_pos pos;
	const void *key, *value;

	rcu_read_lock();
	chm_for_each_rcu(map, pos, key, value) {
		u32 k = check_key(key, NULL);

		check(m.entries[k].present && !seen[k]);
		check_visible(k, value);
		seen[k] = true;
		n++;
		if (nth < 2 || m.p.reclaim == CHM_SYNC || n % nth)
			continue;
		make_key(key_buf, k, 0);
		check(!chm_remove(map, key_buf));
		note_gone(k);
	}
	rcu_read_unlock();
	trace("for_each: %lu of %lu\n", n, before);
	check(all_come() ? n == before : n <= before);
}

/* --- Room, and the whole map --- */

static void do_reserve(void)
{
	unsigned long n = next_u16();
	int ret;

	n = n < 0xff00 ? n % 1024 : n & 0x80 ? ULONG_MAX >> (n & 63) : 0;
	call.failed = serial.failed;
	call.clone_failed = m.clone_failed;
	ret = chm_reserve(map, n, GFP_KERNEL);
	trace("reserve %lu: %d\n", n, ret);
	if (!ret) {
		check(!m.p.max_entries || n <= m.p.max_entries);
		m.reserved = n;
		return;
	}
	check(ret == -E2BIG || ret == -ENOMEM);
	if (ret == -ENOMEM)
		check(serial.failed != call.failed ||
		      m.clone_failed != call.clone_failed);
	if (ret == -E2BIG)
		check(n >= 1024 || (m.p.max_entries && n > m.p.max_entries));
}

static void do_shrink(void)
{
	int ret;

	call.failed = serial.failed;
	call.clone_failed = m.clone_failed;
	ret = chm_shrink(map, GFP_KERNEL);
	trace("shrink: %d\n", ret);
	m.reserved = 0;
	if (!ret)
		return;
	check(ret == -ENOMEM);
	check(serial.failed != call.failed || m.clone_failed != call.clone_failed);
}

static void do_verify(void)
{
	unsigned long failed = serial.failed;
	struct chm_stats s;
	int ret;

	chm_stats(map, &s);
	check(s.entries == m.count && chm_count(map) == m.count);
	check(s.slots >= s.entries && s.displaced <= s.entries);
	ret = chm_verify(map);
	trace("verify: %d; %lu entries of %lu, %lu dead, %lu grows\n", ret, s.entries,
	      s.slots, s.dead, s.grows);
	check(!ret || (ret == -ENOMEM && serial.failed != failed));
	check_all();
}

/* === What others do ====================================================== */

static void do_fail(void)
{
	serial.spared = next_u8() % 16;
	serial.failing = next_u8();
	trace("fail %u after %u\n", serial.failing, serial.spared);
}

static void do_work(void)
{
	u32 n = next_u8() % 8 + 1;

	trace("work\n");
	while (n-- && serial_work())
		;
}

static void do_grace(void)
{
	u32 n = next_u8() % 4 + 1;

	trace("grace\n");
	while (n-- && serial_grace())
		;
}

static void do_pass(void)
{
	serial.now += (u64)next_u8() * next_u8() * NSEC_PER_MSEC;
	trace("time is %llu\n", serial.now);
}

static void do_settle(void)
{
	bool settled = m.settles++ < 4 && serial_settle(300 * NSEC_PER_MSEC);

	trace("settle: %d\n", settled);
	if (settled)
		m.wear = 0;
}

static void do_read(void)
{
	u8 variant;
	u32 i = next_u8();
	u32 k = next_key(&variant);

	trace("reader %u: %u\n", i % SERIAL_READERS, k);
	if (i & 128)
		end_reader(i % SERIAL_READERS);
	else
		begin_reader(i % SERIAL_READERS, k);
}

/* === Life ================================================================ */

static int begin_map(bool in_source)
{
	map = malloc(sizeof(*map));
	check(map);
	if (!in_source)
		return chm_init(map, &m.p, &m, NULL);
	*map = (struct chm)CHM_INITIALIZER(*map, &m.p);
	map->ctx = &m;
	return 0;
}

/* No call goes on in the map; readers do. */
static void end_map(u8 how)
{
	u32 i;

	for (i = 0; i < WALKS; i++)
		m.walks[i].on = false;
	note_all_gone();
	m.reserved = 0;
	if (how & 1)
		chm_destroy_async(map);
	else
		chm_destroy(map);
	if (how & 2)
		chm_barrier();
	trace("destroyed\n");
	free(map);
	map = NULL;
}

static void do_renew(void)
{
	u8 how = next_u8();

	end_map(how);
	check(!begin_map(how & 4));
}

static void (* const steps[])(void) = {
	do_insert, do_insert, do_insert_many, do_insert_many, do_upsert, do_replace,
	do_replace_if, do_swap, do_get_or_insert, do_lookup_or_insert,
	do_remove, do_remove, do_remove_many, do_remove_many, do_remove_if, do_take,
	do_clear, do_cell_add, do_cell_add, do_cell_upsert_add,
	do_lookup, do_lookup_many, do_walk, do_walk, do_walk, do_for_each,
	do_reserve, do_shrink, do_verify, do_fail, do_work, do_work,
	do_grace, do_grace, do_pass, do_settle, do_read, do_read, do_renew,
};

/* === Parameters ========================================================== */

static const u32 key_sizes[] = { 8, 4, 1, 2, 3, 6, 12, 16, 24, 33, 64, 100, 0, 4096, 4097 };
static const u32 value_sizes[] = { 8, 4, 1, 2, 0, 16, 24, 13, 40, 64, 200, 256, 4096,
				   65536, 65537 };

static void choose_hash(u8 what)
{
	static u64 (* const hashes[])(const void *key, u64 seed) = {
		[SEEDED] = hash_seeded, [UNSEEDED] = hash_unseeded,
		[WEAK] = hash_weak, [CONSTANT] = hash_constant,
	};

	m.hash = what % 8 < 4 ? DEFAULT : what % 8 - 3;
	m.p.hash = hashes[m.hash];
	m.p.equal = what & 16 ? equal : NULL;
	/* Equal keys need equal hashes. */
	m.has_variants = m.p.equal && m.hash != DEFAULT && m.p.key_size > 1;
	m.keys = m.p.key_size > 1U + m.has_variants ? KEYS : 256;
}

/* Callbacks that go with the class, or, rarely, that do not */
static void choose_callbacks(u8 what)
{
	bool wrong = what >= 250;

	m.p.drop = what & 1 ? drop : NULL;
	m.p.clone = (m.p.class == CHM_CLONE) != wrong ? clone_pair : NULL;
	m.p.merge = m.p.class == CHM_CELL && what & 2 ? merge : NULL;
	if (m.p.class == CHM_CELL)
		m.kind = m.p.merge ? BITS : WORDS;
	else if (m.p.drop && m.p.value_size >= sizeof(struct object *))
		m.kind = OBJECT;
}

static void choose_params(void)
{
	u8 class = next_u8(), what = next_u8();

	m.p.class = class < 250 ? class % 4 : class;
	m.p.key_size = next_size(key_sizes, ARRAY_SIZE(key_sizes));
	m.p.value_size = next_size(value_sizes, ARRAY_SIZE(value_sizes));
	m.p.reclaim = what & 1 ? CHM_SYNC : CHM_DEFERRED;
	if (what & 2)
		m.p.max_load = next_u8();
	if (what & 4)
		m.p.growth = next_u16() % 512;
	if (what & 8)
		m.p.min_entries = next_u16() % 1024 << (what & 128 ? 20 : 0);
	if (what & 16)
		m.p.max_entries = next_u16() % 1024;
	if (what & 32)
		m.p.value_offset = next_u8();
	if (what & 64)
		m.p.slot_size = next_u16() % 1024;
	choose_hash(next_u8());
	choose_callbacks(next_u8());
}

static void choose_others(void)
{
	u8 how = next_u8();

	serial = (struct serial) {
		.random = next_u16(),
		.limit = SZ_4M * 4,
		.now = 1000 * NSEC_PER_SEC,
		.end_readers = end_readers,
	};
	serial.lazy = how & 1;
	if (how & 2)
		serial.turns = next_u8();
	if (how & 4)
		m.clone_fails = next_u8();
	if (how & 8)
		serial.limit = (next_u8() + 1) * SZ_32K;
	/* So that migrations take long, and more often */
	chm_step_chunks = how & 16 ? next_u8() % 3 + 1 : 0;
	chm_restless = how & 32;
}

/* Obviously wrong, or right; the rest is chm's to say. */
static void check_init(int ret)
{
	const struct chm_params *p = &m.p;

	check(!ret || ret == -EINVAL);
	if (!p->key_size || p->key_size > CHM_KEY_MAX || p->value_size > CHM_VALUE_MAX ||
	    p->class > CHM_CELL || (p->class == CHM_CLONE && !p->clone) ||
	    (p->class != CHM_CLONE && p->clone) ||
	    (p->max_load && (p->max_load < 25 || p->max_load > 95)) ||
	    (p->growth && (p->growth < 110 || p->growth > 400)) ||
	    (p->max_entries && p->min_entries > p->max_entries))
		check(ret);
	else if (p->class == CHM_FROZEN && !p->value_offset && !p->slot_size)
		check(!ret);
}

static void end_all(void)
{
	serial.failing = 0;
	chm_restless = false;
	chm_barrier();
	end_readers();
	serial_settle(3 * NSEC_PER_SEC);
	empty_limbo();
	check(!serial.bytes && !serial.blocks);
	if (m.p.drop)
		check(!m.instances && !objects);
	if (m.p.drop && m.kind == WORDS)
		check(m.in == m.out);
}

/* The parameters of such a map are looked at when it is first written to. */
static void check_bad_map(void)
{
	free(map);
	begin_map(true);
	memset(key_buf, 0, sizeof(old_key_buf));
	check(chm_insert(map, key_buf, value_buf, GFP_KERNEL) == -EINVAL);
	check(!chm_get(map, key_buf, value_buf) && !chm_count(map));
	chm_destroy(map);
	free(map);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	tracing = getenv("FUZZ_TRACE");
	serial = (struct serial) { .limit = SZ_4M, .end_readers = end_readers };
	return load_module();
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	bool in_source;
	int ret;

	at = data;
	end = data + size;
	memset(&m, 0, sizeof(m));
	objects = 0;
	choose_others();
	choose_params();
	in_source = next_u8() & 1;
	trace("class %d, reclaim %d, key %u, value %u, hash %d, kind %d, limit %zu\n",
	      m.p.class, m.p.reclaim, m.p.key_size, m.p.value_size, m.hash, m.kind,
	      serial.limit);
	ret = begin_map(false);
	check_init(ret);
	if (ret) {
		check_bad_map();
		return 0;
	}
	if (in_source) {
		free(map);
		begin_map(true);
	}
	while (!at_end() && !too_much(0)) {
		steps[next_u8() % ARRAY_SIZE(steps)]();
		check(chm_count(map) == m.count);
		empty_limbo();
	}
	if (m.count)
		do_verify();
	end_map(size & 3);
	end_all();
	return 0;
}
