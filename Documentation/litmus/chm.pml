/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * chm's protocol, for the model checker spin: scripts/verify runs it
 *
 * One writer (writers exclude one another) inserts, replaces, removes, clears,
 * sweeps, waits and migrates for ever and in any order; readers look keys up
 * for ever.  The search is exhaustive, so a property that holds here holds for
 * any number of operations on a table of this size.
 *
 * A migration is incremental: next is filled one chunk at a time, with any
 * operation in between, and replaces tbl in the hold of the last step.  A
 * migration in one hold, as a small table has it, is one of these.
 *
 * A step is one load or one store of a control word, with what goes with it.
 * Steps interleave as if memory were sequentially consistent: what weaker
 * ordering can do is the matter of the litmus tests next to this file.  All
 * tags collide; the keys decide.
 *
 * Names are those of chm.c.  Left out there, and why that is no loss:
 *	- when chm.c polls, grows or waits: here it may do so at any time
 *	- that a write begins with a step: here it comes before any operation
 *	- clearing in place, for want of memory: it is removals that don't lower,
 *	  of which GIVE_UP has all
 *	- what is done to next is one step, since no reader sees it
 *	- the bitmap of chunks with DEAD slots: here all are searched; that of
 *	  occupied ones: here walks look at each home
 *	- retired tables beyond the first: here the writer frees it before it
 *	  replaces the next
 *	- chm_lookup_many(): the lookups under way together are those of readers
 *	  that began together, and to be in one section only delays writers
 *	- writers' locks, allocation and its failures, values, statistics
 *
 * Checked, by assertions:
 *	- linearizability: what a lookup returns was current at some moment
 *	  between its begin and its end.  An update becomes current when it
 *	  returns, or as soon as a lookup ends that returns it.  So a key that
 *	  is present throughout is found, and a lookup that begins when another
 *	  has ended returns nothing older
 *	- no slot is written or dropped, and no table freed, that a reader may
 *	  still look at; no reader loads a word of a freed table
 *	- a lookup loads no more words on its way than there are chunks
 *	- drop() runs once for each pair, or clone, after the last reader of it
 *	- at rest each key has one slot, and overflow filters are exact, with
 *	  GIVE_UP supersets of that; next has the pairs of tbl's chunks below the
 *	  cursor, as they are now, no others, and nothing DEAD (asked of one
 *	  mutant only: the others have to fail before a reader, or in drop())
 *
 * Size of the model
 *	CHUNKS	  chunks of the first table, and of every second one after it
 *	CHUNKS2	  chunks of the others
 *	SLOTS	  slots of a chunk
 *	KEYS	  keys, at most 3; their homes are spread unless SAME_HOME
 *	READERS	  readers, at most 2
 *	SWAPS	  how often a table may be replaced; ANY: no limit
 *	RESEED	  every second table has the keys in the opposite order
 *	CLONE	  the map has clone(): next owns what it has
 *	DROP	  drop() runs outside of the lock, for one slot at a time
 *	WALKER	  readers look up as walks do: they do not look back, and may leave
 *		  their section between two chunks
 *	LOWER_FIRST  chm_erase() clears the filters, then stores DEAD
 *	GIVE_UP	  chm_lower_overflow() may end before it has cleared all bits
 *	AWAIT	  a seal may use what another writer has waited for
 *
 * Overflow filters have three bits.  Which of them a key has is chosen once, in
 * the beginning, so each size has all cases: bits that keys share or don't.
 *
 * Mutants, each with one mistake, are the macros M_...
 */
#ifndef CHUNKS
#define CHUNKS	2
#endif
#ifndef CHUNKS2
#define CHUNKS2	CHUNKS
#endif
#ifndef SLOTS
#define SLOTS	1
#endif
#ifndef KEYS
#define KEYS	1
#endif
#ifndef READERS
#define READERS	1
#endif
#define ANY	255
#ifndef SWAPS
#define SWAPS	0
#endif

#if SWAPS
#define TABLES	2
#else
#define TABLES	1
#endif
#if CHUNKS > CHUNKS2
#define STRIDE	CHUNKS
#else
#define STRIDE	CHUNKS2
#endif
#define NR_SLOTS	(TABLES * STRIDE * SLOTS)

/* Chunks are numbered across tables, and slots across chunks. */
#define nr_chunks(t)	((t) -> CHUNKS2 : CHUNKS)
#ifdef RESEED
#define hash(k, t)	((t) -> KEYS - 1 - (k) : (k))
#else
#define hash(k, t)	(k)
#endif
#ifdef SAME_HOME
#define home(k, t)	0
#else
#define home(k, t)	(hash(k, t) * nr_chunks(t) / KEYS)
#endif
#define chunk_at(k, t, distance) \
	((t) * STRIDE + (home(k, t) + (distance)) % nr_chunks(t))
#define table_of(chunk)	((chunk) / STRIDE)
/* How far is this chunk from the key's home? */
#define distance_of(k, chunk) \
	(((chunk) % STRIDE + nr_chunks(table_of(chunk)) - \
	  home(k, table_of(chunk))) % nr_chunks(table_of(chunk)))
#define slot_of(c, s)	((c) * SLOTS + (s))
#define chunk_of(slot)	((slot) / SLOTS)
#define first_slot(t)	((t) * STRIDE * SLOTS)
#define last_slot(t)	(((t) + 1) * STRIDE * SLOTS - 1)
#define NONE		255
#define bit_of(n)	(1 << (n))

/* === Tables ============================================================== */

#define EMPTY		0
#define DEAD(gen)	(1 + (gen))
#define FULL		3
#define MOVED		4	/* M_MOVED only */
#define TAKEN		5	/* DEAD, and drop() runs or did */

/*
 * The control word of chunk c: overflow[c] and the tags of its slots.  For a
 * reader who compares it, the generation of DEAD is a part of it.
 */
byte overflow[TABLES * STRIDE];
byte tag[NR_SLOTS];
byte key[NR_SLOTS];
#if SLOTS == 1
#define word(c)	(overflow[c] | tag[c] << 3)
#elif !defined(DROP)
#define word(c)	(overflow[c] | tag[slot_of(c, 0)] << 3 | tag[slot_of(c, 1)] << 5)
#endif

/* chm_overflow_bit() of each key, and whether the word has it. */
byte overflow_bit[KEYS];
#define bit_in(k, t)		overflow_bit[hash(k, t)]
#define chm_overflows(c, k)	((overflow[c] & bit_in(k, table_of(c))) != 0)

#define UNUSED	0
#define ACTIVE	1
#define RETIRED	2
#define FILLING	3	/* map->next */
byte state[TABLES];
byte cookie[TABLES];	/* of the sealed generation; of retirement */
byte tbl;		/* map->tbl */
#define next	(1 - tbl)
byte cursor;		/* chunks of tbl that have been copied to next */
bit owns_full;		/* the retired table drops its FULL pairs as well */
#define is_copied(slot)	(chunk_of(slot) % STRIDE < cursor)
byte dead_gen;		/* of the active table: what removals join */
byte dead[2];		/* its DEAD slots by generation */
#ifdef AWAIT
bit waits;		/* a writer does; no slot has joined since, nor was one sealed */
bit awaited;		/* readers of the open generation's slots have left */
byte awaited_cookie;
#define no_longer_awaited()	waits = 0; awaited = 0; awaited_cookie = 0
#define seal_cookie()	(awaited -> 0 : inside)
#else
#define no_longer_awaited()	skip
#define seal_cookie()	inside
#endif
byte swaps;
#ifdef DROP
byte taken;		/* the slot that the worker drops outside of the lock */
bit dropped;
#endif

/* === Readers ============================================================= */

#define IDLE	0	/* outside of rcu_read_lock() */
#define WALK	1	/* along the probe path */
#define SAME	2	/* found at distance 1: is the home chunk as it was? */
#define BACK	3	/* looks back */
#define HOLD	4	/* has what it looked for until rcu_read_unlock() */
#define AWAY	5	/* WALKER: between two sections */

typedef Reader {
	byte phase;
	byte key;
	byte table;
	byte distance;	/* of the chunk to load next; of found's chunk */
	byte i;		/* BACK: distance of the chunk to load next */
	byte home;	/* the home chunk's word, while it may be compared */
	byte found;
#ifdef WALKER
	byte common;	/* overflow bits of all chunks so far */
#endif
	short eyes;	/* slots whose bytes it may read */
	bit absent_ok;	/* monitor: the key was absent for a moment */
};
Reader r[READERS];

/*
 * Grace periods.  A cookie is the set of readers that were inside when it was
 * taken and did not leave since; it has elapsed when nobody is left.
 */
byte inside;
byte waiting_for;	/* synchronize_rcu() in chm_wait_for_readers() */

/* === Monitor ============================================================= */

byte current[KEYS];	/* the slot that lookups should find; NONE: absent */
byte ok[NR_SLOTS + 1];	/* readers in whose lookup it was current for a moment */
bit owned[NR_SLOTS + 1];	/* drop() has to run for what it has */
bit stale[NR_SLOTS];	/* in next: not, or not any more, what tbl has */
#define LOST	NR_SLOTS	/* of mutants: should be in tbl and is not */

/* The update on its way: it makes pending current, NONE to remove. */
bit is_pending;
byte pending_key;
byte pending;

/* For a single step, which sets what it uses; not part of the state. */
hidden byte c;
hidden byte s;
hidden byte n;
hidden byte m;
hidden byte x;
hidden byte hit;
hidden byte more;
hidden byte passed;
hidden byte g;
hidden byte y;
hidden byte hit_d;
hidden byte p;
hidden byte q;

inline make_current(k, slot)
{
	current[k] = slot;
	for (x : 0 .. READERS - 1) {
		if
		:: r[x].phase == IDLE || r[x].phase == HOLD -> skip
		:: r[x].key != k -> skip
		:: else ->
			if
			:: slot == NONE -> r[x].absent_ok = 1
			:: else -> ok[slot] = ok[slot] | bit_of(x)
			fi
		fi
	}
}

inline begin_update(k, slot)
{
	is_pending = 1;
	pending_key = k;
	pending = slot
}

inline end_update()
{
	if
	:: is_pending -> make_current(pending_key, pending)
	:: else -> skip
	fi;
	is_pending = 0;
	pending_key = 0;
	pending = 0
}

inline begin_lookup(me, k)
{
#ifdef WALKER
	r[me].common = 7;
#endif
	r[me].key = k;
	if
	:: current[k] == NONE -> r[me].absent_ok = 1
	:: else -> ok[current[k]] = ok[current[k]] | bit_of(me)
	fi
}

inline end_lookup(me, slot)
{
	if
	:: is_pending && pending_key == r[me].key && pending == slot &&
	   !(slot == NONE && r[me].absent_ok) ->
		end_update()
	:: else -> skip
	fi;
	if
	:: slot == NONE ->
		/* A miss: the key was absent for a moment. */
		assert(r[me].absent_ok)
#ifndef WALKER
	:: slot != NONE ->
		/* A hit: this pair was current for a moment. */
		assert(ok[slot] & bit_of(me))
#endif
	:: else -> skip
	fi;
	for (x : 0 .. NR_SLOTS - 1) {
		ok[x] = ok[x] & ~bit_of(me)
	}
	r[me].absent_ok = 0
}

/* No reader may look at this slot: it is about to be written, or dropped. */
inline assert_unseen(slot)
{
	for (x : 0 .. READERS - 1) {
		assert(!(r[x].eyes & bit_of(slot)))
	}
}

/* drop() runs. */
inline drop(slot)
{
	assert_unseen(slot);
	assert(owned[slot]);
	owned[slot] = 0
}

#if defined(MUTANT) && !defined(M_LOWER_BEFORE_DEAD)
#define verify()	skip
#else
/*
 * It has each pair of the copied chunks once, no other one, and filters for
 * them; DEAD slots, if at all, are those of clones.
 */
inline verify_next()
{
	n = 0;
	m = 0;
	for (x : 0 .. KEYS - 1) {
		n = n + (current[x] != NONE && is_copied(current[x]))
	};
	for (y : first_slot(next) .. last_slot(next)) {
		m = m + (tag[y] == FULL);
#ifdef CLONE
		assert(owned[y] == (tag[y] != EMPTY));
#else
		assert(tag[y] == EMPTY || tag[y] == FULL);
		assert(!owned[y]);
#endif
		assert(!stale[y]);
		assert(tag[y] != FULL || (current[key[y]] != NONE &&
					  is_copied(current[key[y]])))
	};
	assert(n == m);
	for (c : next * STRIDE .. next * STRIDE + nr_chunks(next) - 1) {
		passed = 0;
		for (y : first_slot(next) .. last_slot(next)) {
			passed = passed |
				 (tag[y] == FULL && distance_of(key[y], c) <
				  distance_of(key[y], chunk_of(y)) ->
				  bit_in(key[y], next) : 0)
		};
#ifdef GIVE_UP
		assert((overflow[c] & passed) == passed)
#else
		assert(overflow[c] == passed)
#endif
	}
}

#ifdef DROP
#define is_dropped(slot)	(tag[slot] == TAKEN && dropped)
#else
#define is_dropped(slot)	0
#endif

/* chm_verify(): at rest. */
inline verify()
{
#if SWAPS
	if
	:: state[next] == FILLING -> verify_next()
	:: else -> skip
	fi;
#endif
	for (c : tbl * STRIDE .. tbl * STRIDE + nr_chunks(tbl) - 1) {
		passed = 0;
		for (x : 0 .. KEYS - 1) {
			if
			:: current[x] != NONE ->
				assert(tag[current[x]] == FULL);
				assert(key[current[x]] == x);
				passed = passed |
					 (distance_of(x, c) <
					  distance_of(x, chunk_of(current[x])) ->
					  bit_in(x, tbl) : 0)
			:: else -> skip
			fi
		};
#ifdef GIVE_UP
		assert((overflow[c] & passed) == passed)
#else
		assert(overflow[c] == passed)
#endif
	};
	n = 0;
	m = 0;
	for (x : 0 .. KEYS - 1) {
		n = n + (current[x] != NONE)
	};
	for (x : first_slot(tbl) .. last_slot(tbl)) {
		m = m + (tag[x] == FULL);
		assert(owned[x] == (tag[x] != EMPTY && !is_dropped(x)))
	};
	assert(n == m)
}
#endif

/* === Lookup ============================================================== */

/* One load of the control word at this distance: hit, and more to come? */
inline chm_probe(me, at)
{
	/* O7 */
	assert(state[r[me].table] != UNUSED);
	c = chunk_at(r[me].key, r[me].table, at);
	hit = NONE;
	r[me].eyes = (r[me].found != NONE -> bit_of(r[me].found) : 0);
	for (s : 0 .. SLOTS - 1) {
		if
		:: tag[slot_of(c, s)] == FULL ->
			r[me].eyes = r[me].eyes | bit_of(slot_of(c, s));
			if
			:: key[slot_of(c, s)] == r[me].key && hit == NONE ->
				hit = slot_of(c, s)
			:: else -> skip
			fi
#ifdef M_MOVED
		:: tag[slot_of(c, s)] == MOVED &&
		   key[slot_of(c, s)] == r[me].key ->
			r[me].found = slot_of(c, s);
			r[me].eyes = r[me].eyes | bit_of(slot_of(c, s))
#endif
		:: else -> skip
		fi
	};
#ifdef WALKER
	/* chm_scan_chunk() looks for all keys of this home. */
#ifdef M_WALK_OWN_BITS
	r[me].common = r[me].common & overflow[c];
#endif
	hit = (at && !(r[me].common & bit_in(r[me].key, r[me].table)) ->
	       NONE : hit);
	r[me].common = r[me].common & overflow[c];
	more = r[me].common != 0
#else
	more = chm_overflows(c, r[me].key)
#endif
}

/* The lookup is over; the section is not. */
inline chm_return(me, slot)
{
	end_lookup(me, slot);
	r[me].eyes = (slot != NONE -> bit_of(slot) : 0);
	r[me].found = NONE;
	r[me].key = 0;
	r[me].distance = 0;
	r[me].i = 0;
	r[me].home = 0;
#ifdef WALKER
	r[me].common = 0;
#endif
	r[me].phase = HOLD
}

#ifdef M_COMPARE_FAR
#define may_compare	1
#else
#define may_compare	(r[me].distance == 1)
#endif

/* __chm_lookup_hashed() and chm_lookup_displaced() */
inline chm_walk(me)
{
#ifdef M_UNBOUNDED
#define at_end	0
	assert(r[me].distance < nr_chunks(r[me].table));
#else
#define at_end	(r[me].distance + 1 == nr_chunks(r[me].table))
#endif
	chm_probe(me, r[me].distance);
	if
#if defined(WALKER) || defined(M_NO_LOOK_BACK) || defined(M_MOVED)
	:: hit != NONE ->
		chm_return(me, hit)
#else
	:: hit != NONE && !r[me].distance ->
		chm_return(me, hit)
	:: hit != NONE && r[me].distance && may_compare ->
		r[me].found = hit;
		r[me].phase = SAME
	:: hit != NONE && r[me].distance && !may_compare ->
		r[me].found = hit;
		r[me].home = 0;
		r[me].phase = BACK
#endif
	:: hit == NONE && (!more || at_end) ->
		/* Nothing found, but for M_MOVED. */
		chm_return(me, r[me].found)
	:: else ->
		if
		:: !r[me].distance -> r[me].home = word(c)
#ifndef M_COMPARE_FAR
		:: r[me].distance -> r[me].home = 0
#endif
		:: else -> skip
		fi;
		r[me].distance++
	fi
}

/* One load of the home chunk's word, and no look at its slots. */
inline chm_home_unchanged(me)
{
	/* O7 */
	assert(state[r[me].table] != UNUSED);
	r[me].eyes = bit_of(r[me].found);
#ifdef M_COMPARE_NOTHING
	m = 1;
#else
	m = (word(chunk_at(r[me].key, r[me].table, 0)) == r[me].home);
#endif
	if
	:: m -> chm_return(me, r[me].found)
	:: else ->
		r[me].home = 0;
		r[me].phase = BACK
	fi
}

/* O4 */
inline chm_look_back(me)
{
	chm_probe(me, r[me].i);
	if
	:: hit != NONE ->
		r[me].found = hit;
		r[me].eyes = r[me].eyes | bit_of(hit);
#ifdef M_LOOK_BACK_ONCE
		r[me].distance = 0;
#else
		r[me].distance = r[me].i;
#endif
		r[me].i = 0
	:: else ->
		r[me].i++
	fi;
	if
	:: r[me].i == r[me].distance -> chm_return(me, r[me].found)
	:: else -> skip
	fi
}

inline leave(me)
{
	inside = inside & ~bit_of(me);
	waiting_for = waiting_for & ~bit_of(me);
	for (x : 0 .. TABLES - 1) {
		cookie[x] = cookie[x] & ~bit_of(me)
	};
#ifdef AWAIT
	awaited_cookie = awaited_cookie & ~bit_of(me);
#endif
	r[me].eyes = 0
}

inline rcu_read_unlock(me)
{
	leave(me);
	r[me].table = 0;
	r[me].phase = IDLE
}

#ifdef WALKER
/* chm_scan(): on in the same table; in another one the home begins anew. */
inline come_back(me)
{
	inside = inside | bit_of(me);
	if
#ifdef M_WALK_OTHER_TABLE
	:: r[me].table != tbl -> r[me].table = tbl
#else
	:: r[me].table != tbl ->
		r[me].table = tbl;
		r[me].distance = 0;
		r[me].home = 0;
		r[me].common = 7
#endif
	:: else -> skip
	fi;
	r[me].phase = WALK
}
#endif

/* Any key; k is a variable. */
inline pick_key(k)
{
	if
	:: k = 0
#if KEYS > 1
	:: k = 1
#endif
#if KEYS > 2
	:: k = 2
#endif
	fi
}

/*
 * A lookup begins with the load of map->tbl and of the home chunk's word: what
 * comes between could only make its time longer, and the monitor milder.
 */
proctype reader(byte me)
{
	byte k;

	do
	:: atomic {
		r[me].phase == IDLE ->
		pick_key(k);
		d_step {
			inside = inside | bit_of(me);
			r[me].table = tbl;
			r[me].phase = WALK;
			begin_lookup(me, k);
			k = 0;
			chm_walk(me)
		}
	   }
	:: d_step { r[me].phase == WALK -> chm_walk(me) }
	:: d_step { r[me].phase == SAME -> chm_home_unchanged(me) }
	:: d_step { r[me].phase == BACK -> chm_look_back(me) }
	:: d_step { r[me].phase == HOLD -> rcu_read_unlock(me) }
#ifdef WALKER
	:: d_step { r[me].phase == WALK -> leave(me); r[me].phase = AWAY }
	:: d_step { r[me].phase == AWAY -> come_back(me) }
#endif
	od
}

/* === Slots =============================================================== */

/* Of the writer, from one step to the next; 0 at rest. */
byte wk;	/* the key */
byte at;	/* where it is */
byte at_d;
byte to;	/* where it goes */
byte to_d;
byte d;		/* distance of the chunk to store to next */

/* In table t: slot and distance, hit and hit_d */
inline chm_find(t)
{
	hit = NONE;
	hit_d = 0;
	more = 1;
	do
	:: more ->
		c = chunk_at(wk, t, hit_d);
		for (s : 0 .. SLOTS - 1) {
			if
			:: hit == NONE && tag[slot_of(c, s)] == FULL &&
			   key[slot_of(c, s)] == wk ->
				hit = slot_of(c, s)
			:: else -> skip
			fi
		};
		if
		:: hit != NONE || !chm_overflows(c, wk) ||
		   hit_d + 1 == nr_chunks(t) -> more = 0
		:: else -> hit_d++
		fi
	:: else -> break
	od
}

/* The first EMPTY slot of the key's path in table t at distance or more. */
inline chm_find_empty(k, t, distance)
{
	to = NONE;
	to_d = distance;
	do
	:: to == NONE && to_d < nr_chunks(t) ->
		c = chunk_at(k, t, to_d);
		for (s : 0 .. SLOTS - 1) {
			if
			:: to == NONE && tag[slot_of(c, s)] == EMPTY ->
				to = slot_of(c, s)
			:: else -> skip
			fi
		};
		if
		:: to == NONE -> to_d++
		:: else -> skip
		fi
	:: else -> break
	od
}

inline chm_write_slot(slot, k)
{
	assert_unseen(slot);
	key[slot] = k;
	owned[slot] = 1;
	ok[slot] = 0
}

/* chm_raise_overflow(): on to the next chunk whose word it has to store. */
inline chm_raise_next()
{
	do
	:: d < to_d && chm_overflows(chunk_at(wk, tbl, d), wk) -> d++
	:: else -> break
	od;
	skip
}

inline chm_raise(chunk)
{
	overflow[chunk] = overflow[chunk] | bit_in(wk, table_of(chunk))
}

/*
 * n: how many chunks behind this one lies a pair that needs its bit of wk.  The
 * code asks that of all chunks in one pass.
 */
inline overflow_needed(chunk)
{
	n = 0;
	m = 1;
	do
	:: !n && m < nr_chunks(table_of(chunk)) ->
		c = table_of(chunk) * STRIDE +
		    (chunk % STRIDE + m) % nr_chunks(table_of(chunk));
		for (s : 0 .. SLOTS - 1) {
			x = slot_of(c, s);
			if
			:: tag[x] != FULL -> skip
#ifdef LOWER_FIRST
			:: tag[x] == FULL && x == at -> skip
#endif
			:: else ->
				n = (bit_in(key[x], table_of(c)) ==
				     bit_in(wk, table_of(c)) &&
				     distance_of(key[x], c) >= m -> m : n)
			fi
		};
		m = (chm_overflows(c, wk) -> m + 1 : nr_chunks(table_of(c)))
	:: else -> break
	od
}

/*
 * chm_lower_overflow(): on towards home.  d is the distance, plus 1, of the next
 * chunk whose word it has to store.
 */
inline chm_lower_next(t)
{
	do
	:: d > 0 ->
#ifdef M_LOWER_SHARED
		break
#else
		g = chunk_at(wk, t, d - 1);
		overflow_needed(g);
		if
		:: n -> d--
		:: else -> break
		fi
#endif
	:: else -> break
	od;
	skip
}

inline chm_lower(t)
{
	d--;
	c = chunk_at(wk, t, d);
#ifndef MUTANT
	assert(chm_overflows(c, wk));
#endif
	overflow[c] = overflow[c] & ~bit_in(wk, t);
	chm_lower_next(t)
}

/* Its bytes stay, but only who has found them needs them. */
inline kill(slot)
{
	g = dead_gen;
#ifdef M_JOIN_SEALED
	g = 1 - g;
#endif
	tag[slot] = DEAD(g);
	dead[g]++;
#ifndef M_STILL_AWAITED
	no_longer_awaited();
#endif
	key[slot] = 0;
	for (x : 0 .. READERS - 1) {
		if
		:: r[x].found != slot -> ok[slot] = ok[slot] & ~bit_of(x)
		:: else -> skip
		fi
	}
}

/* === Reclaim ============================================================= */

#ifdef M_NO_GRACE_PERIOD
#define elapsed(t)	1
#else
#define elapsed(t)	(!cookie[t])
#endif
#ifdef DROP
#define is_busy		(taken != NONE)
#else
#define is_busy		0
#endif
/* Who drops outside of the lock also frees: one worker. */
#ifdef M_FREE_AT_ONCE
#define may_free(t)	(state[t] == RETIRED && !is_busy)
#else
#define may_free(t)	(state[t] == RETIRED && !cookie[t] && !is_busy)
#endif

/* O5: chm_seal(). */
inline chm_seal()
{
	if
	:: dead[dead_gen] ->
		cookie[tbl] = seal_cookie();
		no_longer_awaited();
		dead_gen = 1 - dead_gen
	:: else -> skip
	fi
}

/* Sweeping comes when the writer likes, so only the seal is left here. */
inline chm_note_dead()
{
	if
	:: dead[1 - dead_gen] -> skip
#ifdef M_COOKIE_BEFORE_DEAD
	:: !dead[1 - dead_gen] && dead[dead_gen] -> dead_gen = 1 - dead_gen
#endif
	:: else -> chm_seal()
	fi
}

/* The first slot that is DEAD in gen: there is one. */
inline find_dead(gen)
{
	hit = NONE;
	for (x : first_slot(tbl) .. last_slot(tbl)) {
		hit = (hit == NONE && tag[x] == DEAD(gen) -> x : hit)
	}
}

/* One store of chm_sweep(): the first chunk with DEAD slots of gen. */
inline chm_sweep_chunk(gen)
{
	find_dead(gen);
	c = chunk_of(hit);
	for (s : 0 .. SLOTS - 1) {
		if
		:: tag[slot_of(c, s)] == DEAD(gen) ->
			drop(slot_of(c, s));
			tag[slot_of(c, s)] = EMPTY;
			ok[slot_of(c, s)] = 0;
			dead[gen]--
		:: else -> skip
		fi
	}
}

#ifdef DROP
/* drop() may sleep: the slot is TAKEN, dropped unlocked, and only then EMPTY. */
inline chm_gather(gen)
{
	find_dead(gen);
#ifndef M_NOT_TAKEN
	tag[hit] = TAKEN;
#endif
	dead[gen]--;
	taken = hit
}

/* It may have been retired or replaced meanwhile. */
inline chm_empty_gathered()
{
	if
	:: table_of(chunk_of(taken)) == tbl ->
		assert_unseen(taken);
		tag[taken] = EMPTY;
		ok[taken] = 0
	:: else -> skip
	fi;
	taken = NONE;
	dropped = 0
}
#endif

inline zero_table(t)
{
	for (y : first_slot(t) .. last_slot(t)) {
		assert(!owned[y]);
		tag[y] = EMPTY;
		key[y] = 0;
		stale[y] = 0
	};
	for (y : (t) * STRIDE .. (t) * STRIDE + STRIDE - 1) {
		overflow[y] = 0
	};
	state[t] = UNUSED
}

#define is_dead(slot)	(tag[slot] == DEAD(0) || tag[slot] == DEAD(1))
inline chm_free_table(t)
{
	for (m : first_slot(t) .. last_slot(t)) {
		assert_unseen(m);
		if
		:: is_dead(m) || (tag[m] == FULL && owns_full) -> drop(m)
		:: else -> skip
		fi
	};
	owns_full = 0;
	cookie[t] = 0;
	zero_table(t)
}

/* === Growth ============================================================== */

#ifdef CLONE
#define is_cloned	1
#else
#define is_cloned	0
#endif

#if SWAPS
#define may_start	((SWAPS == ANY || swaps < SWAPS) && \
			 state[next] == UNUSED)

/* Nobody has seen it: no grace period.  The pairs are tbl's, but for clones. */
inline chm_abort()
{
#if (defined(CLONE) && !defined(M_ABORT_LEAKS)) || defined(M_ABORT_DROPS)
	for (y : first_slot(next) .. last_slot(next)) {
		if
		:: tag[y] != EMPTY ->
#ifdef M_ABORT_DROPS
			for (x : 0 .. KEYS - 1) {
				if
				:: current[x] != NONE && x == key[y] ->
					drop(current[x])
				:: else -> skip
				fi
			}
#else
			drop(y)
#endif
		:: else -> skip
		fi
	};
#endif
	zero_table(next);
	cursor = 0
}

/* O6: one store. */
inline chm_publish(all)
{
#ifdef WALKER
	/* A table that is there again has another id. */
	for (x : 0 .. READERS - 1) {
		r[x].table = (r[x].phase == AWAY -> NONE : r[x].table)
	};
#endif
	state[next] = ACTIVE;
	state[tbl] = RETIRED;
#ifndef M_COOKIE_BEFORE_SWAP
	cookie[tbl] = inside;
#endif
	owns_full = all;
	tbl = next;
	cursor = 0;
	dead_gen = 0;
	no_longer_awaited();
	dead[0] = 0;
	dead[1] = 0;
	swaps = swaps + (SWAPS != ANY)
}

/* wk goes into next, or the migration is given up. */
inline insert_into_next()
{
	chm_find_empty(wk, next, 0);
	if
#ifdef M_NEVER_ABORT
	:: to == NONE -> skip
#else
	:: to == NONE -> chm_abort()
#endif
	:: to != NONE ->
		key[to] = wk;
		tag[to] = FULL;
		stale[to] = 0;
#ifdef CLONE
		owned[to] = 1;
#endif
		for (x : 0 .. to_d - 1) {
			chm_raise(chunk_at(wk, next, x))
		}
	fi
}

/* Pairs are current, and owned, where they are now. */
inline move_current()
{
	for (y : 0 .. KEYS - 1) {
		hit = LOST;
		for (x : first_slot(next) .. last_slot(next)) {
			hit = (tag[x] == FULL && key[x] == y && !stale[x] ->
			       x : hit)
		};
		if
		:: current[y] != NONE ->
#ifndef MUTANT
			assert(hit != LOST);
#endif
#ifndef CLONE
			owned[current[y]] = 0;
			owned[hit] = 1;
#endif
			current[y] = hit
		:: else -> skip
		fi
	}
}

/* Copies one chunk, and replaces the table in the same hold if it was the last. */
inline chm_step()
{
	state[next] = FILLING;
	for (m : slot_of(tbl * STRIDE + cursor, 0) ..
		 slot_of(tbl * STRIDE + cursor, SLOTS - 1)) {
		if
		:: tag[m] == FULL && state[next] == FILLING ->
			wk = key[m];
			insert_into_next()
		:: else -> skip
		fi
	};
	cursor = cursor + (state[next] == FILLING);
	if
	:: cursor == nr_chunks(tbl) ->
		move_current();
		chm_publish(is_cloned);
#ifdef CLONE
		for (x : first_slot(tbl) .. last_slot(tbl)) {
			dead[0] = dead[0] + (tag[x] == DEAD(0))
		}
#endif
	:: else -> skip
	fi
}

#ifdef M_HOME
#define has_copy(slot)	((slot) != NONE && home(wk, tbl) < cursor)
#else
#define has_copy(slot)	((slot) != NONE && is_copied(slot))
#endif

/*
 * What was done to wk, which was in at and is in to, is done to next: it depends
 * on where the slots lie, not on the key's home.
 */
inline chm_mirror()
{
	for (y : first_slot(next) .. last_slot(next)) {
		stale[y] = stale[y] || (tag[y] == FULL && key[y] == wk)
	};
	p = has_copy(at);
	q = has_copy(to);
#ifdef M_NO_CROSSING
	q = (at == NONE -> q : p && to != NONE);
#endif
	chm_find(next);
#if defined(CLONE)
	/* A clone is not overwritten. */
	if
	:: p && hit != NONE ->
#else
	if
#ifndef M_NOT_OVERWRITTEN
	:: p && q && hit != NONE -> stale[hit] = 0
#endif
	:: p && !q && hit != NONE ->
#endif
		stale[hit] = 0;
#ifdef M_DEAD_IN_NEXT
		tag[hit] = DEAD(0);
#elif defined(CLONE) && !defined(M_CLONE_EMPTY)
		tag[hit] = DEAD(0);
#else
		tag[hit] = EMPTY;
#endif
		key[hit] = 0;
		d = hit_d;
		chm_lower_next(next);
		do
		:: d > 0 -> chm_lower(next)
		:: else -> break
		od
	:: else -> skip
	fi;
	if
#ifdef CLONE
	:: q -> insert_into_next()
#else
	:: q && !p -> insert_into_next()
#endif
	:: else -> skip
	fi
}

/* Another table, empty, takes the place of this one, which keeps its pairs. */
inline chm_clear()
{
	if
	:: state[next] == FILLING -> chm_abort()
	:: else -> skip
	fi;
	for (m : 0 .. KEYS - 1) {
		if
		:: current[m] != NONE -> make_current(m, NONE)
		:: else -> skip
		fi
	};
	chm_publish(1)
}

#ifdef M_CLEAR_IN_PLACE
inline clear_in_place()
{
	for (m : 0 .. KEYS - 1) {
		if
		:: current[m] != NONE ->
			kill(current[m]);
			make_current(m, NONE)
		:: else -> skip
		fi
	};
	for (m : tbl * STRIDE .. tbl * STRIDE + STRIDE - 1) {
		overflow[m] = 0
	}
}
#endif
#endif

/* === Update ============================================================== */

/* Each hold ends so. */
inline rest()
{
	wk = 0;
	at = 0;
	at_d = 0;
	to = 0;
	to_d = 0;
	d = 0;
	verify()
}

/* Goes with the last store of an operation on wk. */
inline written()
{
	end_update();
#if SWAPS
	if
	:: state[next] == FILLING -> chm_mirror()
	:: else -> skip
	fi;
#endif
	rest()
}

#ifdef M_WRITE_RETIRED
inline kill_retired()
{
	for (y : first_slot(next) .. last_slot(next)) {
		tag[y] = (state[next] == RETIRED && tag[y] == FULL &&
			  key[y] == wk -> DEAD(0) : tag[y])
	}
}
#define died()	kill_retired(); written()
#else
#define died()	written()
#endif

#ifdef M_TWO_STORES
#define is_within	0
#else
#define is_within	(to_d == at_d)
#endif
#ifdef GIVE_UP
#define may_end	1
#else
#define may_end	(d == 0)
#endif
#ifdef M_REPLACE_BACK
#define first_d	0
#else
#define first_d	at_d
#endif

active proctype writer()
{
	d_step {
		for (x : 0 .. KEYS - 1) {
			current[x] = NONE
		};
		for (x : 0 .. READERS - 1) {
			r[x].found = NONE
		};
#ifdef DROP
		taken = NONE;
#endif
		state[0] = ACTIVE;
		overflow_bit[0] = 1
	};
	atomic {
#if KEYS > 1
		if :: overflow_bit[1] = 1 :: overflow_bit[1] = 2 fi;
#endif
#if KEYS > 2
		if
		:: overflow_bit[2] = 1
		:: overflow_bit[2] = 2
		:: overflow_bit[1] == 2 -> overflow_bit[2] = 4
		fi;
#endif
		run reader(0)
#if READERS > 1
		; run reader(1)
#endif
	};

idle:
	atomic {
		if
		:: pick_key(wk);
		   /* At home or further on; for a replacement never back. */
		   d_step {
			chm_find(tbl);
			at = hit;
			at_d = (at == NONE -> 0 : hit_d);
			chm_find_empty(wk, tbl, (at == NONE -> 0 : first_d))
#ifdef M_STEP_LATE
			;
			if
			:: state[next] == FILLING ->
				p = wk;
				q = to;
				passed = to_d;
				chm_step();
				wk = p;
				to = q;
				to_d = passed
			:: else -> skip
			fi
#endif
		   };
		   if
		   :: d_step { at == NONE && to == NONE -> rest() }; goto idle
		   :: d_step { at == NONE && to != NONE ->
			begin_update(wk, to);
			chm_write_slot(to, wk);
			chm_raise_next() }; goto insert
		   :: d_step { at != NONE && to != NONE && is_within ->
			/* chm_replace_within(): one store. */
			begin_update(wk, to);
			chm_write_slot(to, wk);
			kill(at);
			tag[to] = FULL;
			chm_note_dead();
			written() }; goto idle
		   :: d_step { at != NONE && to != NONE && !is_within ->
			begin_update(wk, to);
			chm_write_slot(to, wk);
			d = (to_d < at_d -> to_d : at_d);
			chm_raise_next() }; goto replace_beyond
		   :: d_step { at != NONE ->
			begin_update(wk, NONE);
			to = NONE;
			to_d = 0 }; goto erase
		   fi
#ifdef DROP
		:: d_step { dead[1 - dead_gen] && elapsed(tbl) && taken == NONE ->
			g = 1 - dead_gen;
			chm_gather(g);
			rest() }; goto idle
		:: d_step { taken != NONE && !dropped ->
			drop(taken);
			dropped = 1 }; goto idle
		:: d_step { taken != NONE && dropped -> chm_empty_gathered(); rest() };
		   goto idle
		:: d_step { !dead[1 - dead_gen] && dead[dead_gen] -> chm_seal() };
		   goto idle
#else
		:: d_step { dead[1 - dead_gen] && elapsed(tbl) ->
			g = 1 - dead_gen;
			chm_sweep_chunk(g);
			if
			:: !dead[1 - dead_gen] -> chm_seal()
			:: else -> skip
			fi;
			rest() }; goto idle
		:: d_step { dead[0] + dead[1] -> waiting_for = inside };
		   goto wait
#endif
#ifdef AWAIT
		/* chm_wait_for_readers(): the writer that waits is another one. */
		:: d_step { dead[dead_gen] ->
			awaited_cookie = inside;
			waits = 1;
			awaited = 0;
			rest() }; goto idle
		:: d_step { waits && !awaited_cookie ->
			waits = 0;
			awaited = 1;
			rest() }; goto idle
#endif
#if SWAPS
#ifdef M_COOKIE_BEFORE_SWAP
		:: d_step { state[next] == FILLING &&
			    cursor + 1 == nr_chunks(tbl) ->
			cookie[tbl] = inside }; goto swap
		:: d_step { may_start -> chm_step(); rest() }; goto idle
#else
		/* Before the first step there is nothing to mirror. */
		:: d_step { may_start || state[next] == FILLING ->
			chm_step();
			rest() }; goto idle
		:: d_step { state[next] == FILLING -> chm_abort(); rest() };
		   goto idle
#endif
#ifdef M_CLEAR_IN_PLACE
		:: d_step { clear_in_place(); rest() }; goto idle
#else
		:: d_step { may_start || state[next] == FILLING ->
			chm_clear();
			rest() }; goto idle
#endif
		:: d_step { may_free(next) -> chm_free_table(next); rest() };
		   goto idle
#ifndef DROP
		:: d_step { state[next] == RETIRED -> waiting_for = inside };
		   goto wait
#endif
#endif
		fi
	};

insert:
#ifdef M_PUBLISH_BEFORE_RAISE
	if :: d_step { tag[to] = FULL } fi;
#endif
	do
	:: d_step { d < to_d ->
		chm_raise(chunk_at(wk, tbl, d));
		d++;
		chm_raise_next() }
	:: d_step { d >= to_d ->
		/* O2 */
		tag[to] = FULL;
		written() }; goto idle
	od;

replace_beyond:
#ifdef M_REMOVE_INSERT
	if :: d_step { kill(at); chm_note_dead(); d = at_d; chm_lower_next(tbl) } fi;
	do
	:: d_step { d > 0 -> chm_lower(tbl) }
	:: d_step { d == 0 -> chm_raise_next() }; goto insert
	od;
#endif
#if defined(M_DEAD_BEFORE_PUBLISH) || defined(M_TWO_STORES)
	if :: d_step { kill(at); skip } fi;
#endif
#ifdef M_MOVED
	if :: d_step { tag[at] = MOVED } fi;
#endif
	do
	:: d_step { d < to_d ->
		chm_raise(chunk_at(wk, tbl, d));
		d++;
		chm_raise_next() }
	:: d_step { d >= to_d -> tag[to] = FULL }; break
	od;
	if
	:: d_step {
		/* O3 */
#if !defined(M_DEAD_BEFORE_PUBLISH) && !defined(M_TWO_STORES)
		kill(at);
#endif
		chm_note_dead();
		written() }; goto idle
	fi;

erase:
#ifdef M_COOKIE_BEFORE_DEAD
	if :: d_step {
		cookie[tbl] = (dead[1 - dead_gen] -> cookie[tbl] : inside) }
	fi;
#endif
#if defined(LOWER_FIRST) || defined(M_LOWER_BEFORE_DEAD)
	if :: d_step { d = at_d; chm_lower_next(tbl) } fi;
	do
	:: d_step { d > 0 -> chm_lower(tbl) }
	:: d_step { d == 0 -> kill(at); chm_note_dead(); written() }; goto idle
	od;
#endif
#ifdef M_MIRROR_LATE
	if
	:: d_step {
		kill(at);
		chm_note_dead();
		hit = NONE;
		if
		:: state[next] == FILLING -> chm_find(next)
		:: else -> skip
		fi;
		at = hit }
	fi;
	do
	:: d_step { at != NONE && state[next] == FILLING -> chm_step() }
	:: d_step { at != NONE -> tag[at] = EMPTY; key[at] = 0; at = NONE }
	:: d_step { at == NONE -> end_update(); rest() }; goto idle
	od;
#endif
	if
	:: d_step { at_d == 0 -> kill(at); chm_note_dead(); died() }; goto idle
	:: d_step { at_d != 0 -> kill(at); d = at_d; chm_lower_next(tbl) }
	fi;
	do
	:: d_step { d > 0 -> chm_lower(tbl) }
	:: d_step { may_end -> chm_note_dead(); died() }; goto idle
	od;

#ifndef DROP
wait:
	if
	:: d_step {
		!waiting_for ->
#if SWAPS
		if
		:: state[next] == RETIRED -> chm_free_table(next)
		:: else -> skip
		fi
#else
		skip
#endif
	   }
	fi;
	do
	:: d_step { dead[0] > 0 -> chm_sweep_chunk(0); skip }
	:: d_step { !dead[0] && dead[1] > 0 -> chm_sweep_chunk(1); skip }
	:: d_step { !dead[0] && !dead[1] -> rest() }; goto idle
	od;
#endif

#ifdef M_COOKIE_BEFORE_SWAP
swap:
	if
	:: d_step { chm_step(); rest() }; goto idle
	fi;
#endif
	skip
}
