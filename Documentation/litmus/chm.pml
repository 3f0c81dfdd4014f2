/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * chm's protocol, for the model checker spin: scripts/verify runs it
 *
 * One writer (writers exclude one another) inserts, replaces, removes, clears,
 * sweeps, waits and migrates for ever and in any order; readers look keys up
 * for ever.  The search is exhaustive, so a property that holds here holds for
 * any number of operations on a table of this size.
 *
 * A step is one load or one store of a control word, with what goes with it.
 * Steps interleave as if memory were sequentially consistent: what weaker
 * ordering can do is the matter of the litmus tests next to this file.  All
 * tags collide; the keys decide.
 *
 * Names are those of chm.c.  Left out there, and why that is no loss:
 *	- when chm.c polls, grows or waits: here it may do so at any time
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
 *	- at rest each key has one slot, and overflow filters are exact, with
 *	  GIVE_UP supersets of that (asked of one mutant only: the others have to
 *	  fail before a reader)
 *
 * Size of the model
 *	CHUNKS	  chunks of the first table, and of every second one after it
 *	CHUNKS2	  chunks of the others
 *	SLOTS	  slots of a chunk
 *	KEYS	  keys, at most 3; their homes are spread unless SAME_HOME
 *	READERS	  readers, at most 2
 *	SWAPS	  how often a table may be replaced; ANY: no limit
 *	WALKER	  readers look up as walks do: they do not look back, and may leave
 *		  their section between two chunks
 *	LOWER_FIRST  chm_erase() clears the filters, then stores DEAD
 *	GIVE_UP	  chm_lower_overflow() may end before it has cleared all bits
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
#ifdef SAME_HOME
#define home(k, t)	0
#else
#define home(k, t)	((k) * nr_chunks(t) / KEYS)
#endif
#define chunk_at(k, t, distance) \
	((t) * STRIDE + (home(k, t) + (distance)) % nr_chunks(t))
/* How far is this chunk of the active table from the key's home? */
#define distance_of(k, chunk) \
	(((chunk) - tbl * STRIDE + nr_chunks(tbl) - home(k, tbl)) % \
	 nr_chunks(tbl))
#define slot_of(c, s)	((c) * SLOTS + (s))
#define chunk_of(slot)	((slot) / SLOTS)
#define NONE		255
#define bit_of(n)	(1 << (n))

/* === Tables ============================================================== */

#define EMPTY		0
#define DEAD(gen)	(1 + (gen))
#define FULL		3
#define MOVED		4	/* M_MOVED only */

/*
 * The control word of chunk c: overflow[c] and the tags of its slots.  For a
 * reader who compares it, the generation of DEAD is a part of it.
 */
byte overflow[TABLES * STRIDE];
byte tag[NR_SLOTS];
byte key[NR_SLOTS];
#if SLOTS == 1
#define word(c)	(overflow[c] | tag[c] << 3)
#else
#define word(c)	(overflow[c] | tag[slot_of(c, 0)] << 3 | tag[slot_of(c, 1)] << 5)
#endif

/* chm_overflow_bit() of each key, and whether the word has it. */
byte overflow_bit[KEYS];
#define chm_overflows(c, k)	((overflow[c] & overflow_bit[k]) != 0)

#define UNUSED	0
#define ACTIVE	1
#define RETIRED	2
byte state[TABLES];
byte cookie[TABLES];	/* of the sealed generation; of retirement */
byte tbl;		/* map->tbl */
byte dead_gen;		/* of the active table: what removals join */
byte dead[2];		/* its DEAD slots by generation */
byte swaps;

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
byte waiting_for;	/* synchronize_rcu() in chm_wait() */

/* === Monitor ============================================================= */

byte current[KEYS];	/* the slot that lookups should find; NONE: absent */
byte ok[NR_SLOTS];	/* readers in whose lookup it was current for a moment */

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

#if defined(MUTANT) && !defined(M_LOWER_BEFORE_DEAD)
#define verify()	skip
#else
/* chm_verify(): at rest. */
inline verify()
{
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
					  overflow_bit[x] : 0)
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
	for (x : tbl * STRIDE * SLOTS .. (tbl + 1) * STRIDE * SLOTS - 1) {
		m = m + (tag[x] == FULL)
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
	hit = (at && !(r[me].common & overflow_bit[r[me].key]) -> NONE : hit);
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

inline chm_find()
{
	at = NONE;
	at_d = 0;
	more = 1;
	do
	:: more ->
		c = chunk_at(wk, tbl, at_d);
		for (s : 0 .. SLOTS - 1) {
			if
			:: at == NONE && tag[slot_of(c, s)] == FULL &&
			   key[slot_of(c, s)] == wk ->
				at = slot_of(c, s)
			:: else -> skip
			fi
		};
		if
		:: at != NONE || !chm_overflows(c, wk) ||
		   at_d + 1 == nr_chunks(tbl) -> more = 0
		:: else -> at_d++
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
	overflow[chunk] = overflow[chunk] | overflow_bit[wk]
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
	:: !n && m < nr_chunks(tbl) ->
		c = tbl * STRIDE + (chunk - tbl * STRIDE + m) % nr_chunks(tbl);
		for (s : 0 .. SLOTS - 1) {
			x = slot_of(c, s);
			if
			:: tag[x] != FULL -> skip
#ifdef LOWER_FIRST
			:: tag[x] == FULL && x == at -> skip
#endif
			:: else ->
				n = (overflow_bit[key[x]] == overflow_bit[wk] &&
				     distance_of(key[x], c) >= m -> m : n)
			fi
		};
		m = (chm_overflows(c, wk) -> m + 1 : nr_chunks(tbl))
	:: else -> break
	od
}

/*
 * chm_lower_overflow(): on towards home.  d is the distance, plus 1, of the next
 * chunk whose word it has to store.
 */
inline chm_lower_next()
{
	do
	:: d > 0 ->
#ifdef M_LOWER_SHARED
		break
#else
		overflow_needed(chunk_at(wk, tbl, d - 1));
		if
		:: n -> d--
		:: else -> break
		fi
#endif
	:: else -> break
	od;
	skip
}

inline chm_lower()
{
	d--;
	c = chunk_at(wk, tbl, d);
#ifndef MUTANT
	assert(chm_overflows(c, wk));
#endif
	overflow[c] = overflow[c] & ~overflow_bit[wk];
	chm_lower_next()
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
#ifdef M_FREE_AT_ONCE
#define may_free(t)	(state[t] == RETIRED)
#else
#define may_free(t)	(state[t] == RETIRED && !cookie[t])
#endif

/* O5: the second half of chm_advance(). */
inline seal()
{
	if
	:: dead[dead_gen] ->
		cookie[tbl] = inside;
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
	:: else -> seal()
	fi
}

/* One store of chm_sweep(): the first chunk with DEAD slots of gen. */
inline chm_sweep_chunk(gen)
{
	c = NONE;
	for (x : tbl * STRIDE * SLOTS .. (tbl + 1) * STRIDE * SLOTS - 1) {
		if
		:: c == NONE && tag[x] == DEAD(gen) -> c = chunk_of(x)
		:: else -> skip
		fi
	};
	for (s : 0 .. SLOTS - 1) {
		if
		:: tag[slot_of(c, s)] == DEAD(gen) ->
			/* drop() runs */
			assert_unseen(slot_of(c, s));
			tag[slot_of(c, s)] = EMPTY;
			ok[slot_of(c, s)] = 0;
			dead[gen]--
		:: else -> skip
		fi
	}
}

inline chm_free_table(t)
{
	for (m : (t) * STRIDE * SLOTS .. (t + 1) * STRIDE * SLOTS - 1) {
		assert_unseen(m);
		tag[m] = EMPTY;
		key[m] = 0
	};
	for (m : (t) * STRIDE .. (t + 1) * STRIDE - 1) {
		overflow[m] = 0
	};
	cookie[t] = 0;
	state[t] = UNUSED
}

/* === Growth ============================================================== */

/* chm_migrate() and chm_publish(): of all that, readers see one store. */
inline chm_replace_table(t)
{
	for (m : tbl * STRIDE * SLOTS .. (tbl + 1) * STRIDE * SLOTS - 1) {
		if
		:: tag[m] == FULL ->
			wk = key[m];
			chm_find_empty(wk, t, 0);
			assert(to != NONE);
			key[to] = wk;
			tag[to] = FULL;
			for (x : 0 .. to_d - 1) {
				chm_raise(chunk_at(wk, t, x))
			};
			current[wk] = to
		:: else -> skip
		fi
	};
#ifdef WALKER
	/* A table that is there again has another id. */
	for (x : 0 .. READERS - 1) {
		r[x].table = (r[x].phase == AWAY -> NONE : r[x].table)
	};
#endif
	/* O6 */
	state[t] = ACTIVE;
	state[tbl] = RETIRED;
	tbl = t;
	dead_gen = 0;
	dead[0] = 0;
	dead[1] = 0;
	swaps = swaps + (SWAPS != ANY)
}

/* === Update ============================================================== */

/* Each ends with the last store of an operation. */
inline rest()
{
	end_update();
	wk = 0;
	at = 0;
	at_d = 0;
	to = 0;
	to_d = 0;
	d = 0;
	verify()
}

/* Every FULL slot of the chunk dies, and nothing passes it any more. */
inline chm_clear_chunk(chunk)
{
	for (m : 0 .. KEYS - 1) {
		if
		:: current[m] == NONE -> skip
		:: current[m] != NONE &&
		   distance_of(m, chunk) <=
		   distance_of(m, chunk_of(current[m])) ->
			/* It is here, or lookups end here from now on. */
			make_current(m, NONE)
		:: else -> skip
		fi
	};
	overflow[chunk] = 0;
	for (s : 0 .. SLOTS - 1) {
		if
		:: tag[slot_of(chunk, s)] == FULL -> kill(slot_of(chunk, s))
		:: else -> skip
		fi
	}
}

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
			chm_find();
			chm_find_empty(wk, tbl, (at == NONE -> 0 : first_d))
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
			rest() }; goto idle
		   :: d_step { at != NONE && to != NONE && !is_within ->
			begin_update(wk, to);
			chm_write_slot(to, wk);
			d = (to_d < at_d -> to_d : at_d);
			chm_raise_next() }; goto replace_beyond
		   :: d_step { at != NONE ->
			begin_update(wk, NONE);
			to = 0;
			to_d = 0 }; goto erase
		   fi
		:: d_step { dead[1 - dead_gen] && elapsed(tbl) -> skip };
		   goto advance
		:: d_step { dead[0] + dead[1] -> waiting_for = inside };
		   goto wait
		:: d_step { d = 0 }; goto clear
#if SWAPS
		:: d_step { (SWAPS == ANY || swaps < SWAPS) &&
			    state[1 - tbl] == UNUSED ->
#ifdef M_COOKIE_BEFORE_SWAP
			cookie[tbl] = inside }; goto swap
#else
			chm_replace_table(1 - tbl);
			cookie[1 - tbl] = inside;
			rest() }; goto idle
#endif
		:: d_step { may_free(1 - tbl) -> chm_free_table(1 - tbl) };
		   goto idle
		:: d_step { state[1 - tbl] == RETIRED -> waiting_for = inside };
		   goto wait
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
		rest() }; goto idle
	od;

replace_beyond:
#ifdef M_REMOVE_INSERT
	if :: d_step { kill(at); chm_note_dead(); d = at_d; chm_lower_next() } fi;
	do
	:: d_step { d > 0 -> chm_lower() }
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
		rest() }; goto idle
	fi;

erase:
#ifdef M_COOKIE_BEFORE_DEAD
	if :: d_step {
		cookie[tbl] = (dead[1 - dead_gen] -> cookie[tbl] : inside) }
	fi;
#endif
#if defined(LOWER_FIRST) || defined(M_LOWER_BEFORE_DEAD)
	if :: d_step { d = at_d; chm_lower_next() } fi;
	do
	:: d_step { d > 0 -> chm_lower() }
	:: d_step { d == 0 -> kill(at); chm_note_dead(); rest() }; goto idle
	od;
#endif
	if
	:: d_step { at_d == 0 -> kill(at); chm_note_dead(); rest() }; goto idle
	:: d_step { at_d != 0 -> kill(at); d = at_d; chm_lower_next() }
	fi;
	do
	:: d_step { d > 0 -> chm_lower() }
	:: d_step { may_end -> chm_note_dead(); rest() }; goto idle
	od;

advance:
	do
	:: d_step { dead[1 - dead_gen] > 0 ->
		g = 1 - dead_gen;
		chm_sweep_chunk(g); skip }
	:: d_step { !dead[1 - dead_gen] -> seal() }; goto idle
	od;

wait:
	if
	:: d_step {
		!waiting_for ->
#if SWAPS
		if
		:: state[1 - tbl] == RETIRED -> chm_free_table(1 - tbl)
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

clear:
	do
	:: d_step { d < nr_chunks(tbl) ->
		chm_clear_chunk(tbl * STRIDE + d);
		d++ }
	:: d_step { d == nr_chunks(tbl) -> chm_note_dead(); rest() }; goto idle
	od;

#ifdef M_COOKIE_BEFORE_SWAP
swap:
	if
	:: d_step {
		chm_replace_table(1 - tbl);
		rest() }; goto idle
	fi;
#endif
	skip
}
