/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Class CHM_CELL, for the model checker spin: scripts/verify runs it
 *
 * Readers update the cells of one key, others read its exact sum, and one
 * writer (writers exclude one another) replaces its table, exchanges, removes,
 * takes and inserts it, for ever and in any order.  The search is exhaustive.
 *
 * A step is one access to a cell, a mark, or a pointer, with what goes with it.
 * Steps interleave as if memory were sequentially consistent: what weaker
 * ordering can do is the matter of the litmus tests of O9 and O10.  How keys
 * are found is that of chm.pml: here a table has one chunk.
 *
 * Names are those of chm.c.  Left out there, and why that is no loss:
 *	- memory is freed, and slots become EMPTY, as soon as they may: what is
 *	  kept for longer only keeps the writer from using it
 *	- a grace period begins with the step that it is needed for, and a read
 *	  ends its section with its last step: later would only delay the writer
 *	- the two generations of DEAD slots: here each slot has its cookie
 *	- a reader that spins on a mark: here it waits for another one
 *	- writers' locks, allocation and its failures
 *
 * Checked, by assertions:
 *	- lost: at rest each word is the sum of all updates since the pair was
 *	  inserted or the word last exchanged, in whatever table they were made
 *	- sum: what chm_cell_read() returns of a word was its true sum at some
 *	  moment during the call, so successive calls don't go backwards; this
 *	  asks for updates that all add the same, see UNEQUAL for others.  The
 *	  key is missed only if it was absent
 *	- final: what chm_take() returns has all updates that were ever made
 *	- seen: no slot is reclaimed that a reader may still update or read, and
 *	  no table and no snapshot used that was freed
 *
 * Size of the model
 *	UPDATERS  readers that update, at most 2
 *	READERS	  readers that sum up, at most 2
 *	WORDS	  words of the value, at most 2
 *	MERGE	  the map has merge(): one mark for both words, no replacing
 *	SLOTS	  slots of a table, at most 2
 *	TABLES	  tables at a time, 2 or 3.  There can't be 4: a replaced table
 *		  goes, at the latest, in the grace period of the next growth
 *	MAX	  what a word may come to until it is set to 0 again
 *	UNEQUAL	  one updater adds 1 and the other 4, and each of these digits
 *		  is read as it was at some moment: a sum has all updates that
 *		  were made before the call, once, and of later ones some
 *
 * Mutants, each with one mistake, are the macros M_...
 */
#ifndef UPDATERS
#define UPDATERS	2
#endif
#ifndef READERS
#define READERS	1
#endif
#ifndef WORDS
#define WORDS	1
#endif
#ifndef SLOTS
#define SLOTS	1
#endif
#ifndef TABLES
#define TABLES	3
#endif
#ifndef MAX
#define MAX	2
#endif

#define ALL		(UPDATERS + READERS)
#define NR_SLOTS	(TABLES * SLOTS)
/* Slots are numbered across tables, words across slots. */
#define word_of(slot, w)	((slot) * WORDS + (w))
#define table_of(slot)		((slot) / SLOTS)
#define NONE		255
#define bit_of(n)	(1 << (n))

/* What has a mark of its own: a word, or with merge() a value. */
#ifdef MERGE
#define UNIT		WORDS
#define number_of(slot, w)	((slot) % SLOTS)
#else
#define UNIT		1
#define number_of(slot, w)	word_of((slot) % SLOTS, w)
#endif

#ifdef UNEQUAL
#define amount(me)	((me) -> 4 : 1)
#else
#define amount(me)	1
#endif

/* === Tables ============================================================== */

#define EMPTY	0
#define DEAD	1
#define TAKEN	2	/* DEAD, and chm_take() waits */
#define FULL	3
byte tag[NR_SLOTS];
byte cell[NR_SLOTS * WORDS];
byte dead_cookie[NR_SLOTS];

#define UNUSED	0
#define ACTIVE	1
#define RETIRED	2
byte state[TABLES];
byte cookie[TABLES];	/* chm_merge()'s grace period, then of retirement */
byte tbl;		/* map->tbl */

/* The snapshot of each table, made when it is replaced, and its mark. */
bit has_snapshot[TABLES];	/* and it is not freed */
byte copied[NR_SLOTS * WORDS];
byte merged[TABLES];
byte pending[TABLES];	/* the table whose snapshot is to be merged into this */

/* === Readers ============================================================= */

#define IDLE	0	/* outside of rcu_read_lock() */
#define FIND	1	/* has loaded map->tbl */
#define HOLD	2	/* an updater: has found the cell */
#define FROM	3	/* is anything pending? */
#define MARK	4	/* chm_is_merged() */
#define LOAD	5	/* the cells */
#define AGAIN	6	/* chm_still_unmerged() */
#define NOW	7	/* the new cell alone */

typedef Reader {
	byte phase;
	byte table;
	byte slot;	/* the cell it found */
	byte old;	/* the one in the table before, or NONE */
	byte i;		/* word to read next */
	byte got;	/* what has been loaded of this word, or value */
	bit absent_ok;	/* monitor: the key was absent for a moment */
};
Reader r[ALL];
#if READERS
#define sum_of(me, w)	sums[((me) - UPDATERS) * WORDS + (w)]
#define ok_of(me, w)	ok[((me) - UPDATERS) * WORDS + (w)]
byte sums[READERS * WORDS];	/* what it has added up */
short ok[READERS * WORDS];	/* monitor: sums that may be returned */
#endif

byte inside;		/* readers; see chm.pml for cookies */

/* === Monitor ============================================================= */

byte current;			/* the slot of the key; NONE: absent */
byte sum[NR_SLOTS * WORDS];	/* what all updates of this pair come to */
byte took[NR_SLOTS * WORDS];	/* 1 + what chm_take() has returned */

/* A pair that is moved is that of the slot it was moved to. */
#define pair_of(x)	(tag[x] == FULL -> current : x)
#define watched(me)	(r[me].slot == NONE -> current : pair_of(r[me].slot))

/* For a single step, which sets what it uses; not part of the state. */
hidden byte m;
hidden byte n;
hidden byte s;
hidden byte x;
hidden byte hit;
hidden byte u;
hidden byte y;
hidden short true_sums;

inline set_sum(which, w, value)
{
	sum[word_of(which, w)] = value;
#if READERS
	for (x : UPDATERS .. ALL - 1) {
		if
		:: r[x].phase == IDLE -> skip
		:: r[x].phase != IDLE && watched(x) == which && r[x].i <= w ->
			ok_of(x, w) = ok_of(x, w) | bit_of(value)
		:: else -> skip
		fi
	}
#endif
}

inline make_current(slot)
{
	current = slot;
#if READERS
	for (x : UPDATERS .. ALL - 1) {
		if
		:: r[x].phase == FIND && slot == NONE -> r[x].absent_ok = 1
		:: else -> skip
		fi
	}
#endif
}

/* No reader may update or read this slot: it is about to be dropped. */
inline assert_unseen(where)
{
	for (x : 0 .. ALL - 1) {
		assert(r[x].slot != where)
	}
}

/* === Reclaim ============================================================= */

/* drop() runs, or who has taken the pair does as it likes. */
inline reclaim(which)
{
	assert_unseen(which);
	for (m : 0 .. WORDS - 1) {
		n = word_of(which, m);
		assert(!took[n] || took[n] == 1 + sum[n]);
		cell[n] = 0;
		sum[n] = 0;
		took[n] = 0
	};
	dead_cookie[which] = 0;
	tag[which] = EMPTY
}

#if defined(M_UNLOCK_GROW) || defined(M_UNLOCK_REPLACE)
#define is_used(t)	(pending[t] != NONE || pending[0] == t || \
			 pending[1] == t || pending[TABLES - 1] == t)
#else
#define is_used(t)	0
#endif
#define may_free(t)	(state[t] == RETIRED && !cookie[t] && !is_used(t))
#ifdef M_DROP_AT_ONCE
#define may_drop(which)	(tag[which] == DEAD)
#else
#define may_drop(which)	(tag[which] == DEAD && !dead_cookie[which])
#endif

/* Its FULL slot was moved, so it is not dropped. */
inline chm_free_table(t)
{
	for (u : (t) * SLOTS .. (t) * SLOTS + SLOTS - 1) {
		assert_unseen(u);
		assert(tag[u] != DEAD);
		tag[u] = EMPTY;
		for (m : 0 .. WORDS - 1) {
			cell[word_of(u, m)] = 0;
			copied[word_of(u, m)] = 0
		}
	};
	has_snapshot[t] = 0;
	merged[t] = 0;
	pending[t] = NONE;
	state[t] = UNUSED
}

/* All that is due */
inline chm_reclaim()
{
	for (u : 0 .. NR_SLOTS - 1) {
		if
		:: may_drop(u) -> reclaim(u)
		:: else -> skip
		fi
	};
	for (y : 0 .. TABLES - 1) {
		if
		:: may_free(y) -> chm_free_table(y)
		:: else -> skip
		fi
	};
	skip
}

/* The slot of the key in this table, or NONE */
inline find(where)
{
	assert(state[where] != UNUSED);
	hit = NONE;
	for (s : (where) * SLOTS .. (where) * SLOTS + SLOTS - 1) {
		hit = (tag[s] == FULL -> s : hit)
	}
}

inline rcu_read_lock(me)
{
	inside = inside | bit_of(me);
	r[me].table = tbl;
	r[me].phase = FIND
}

inline rcu_read_unlock(me)
{
	inside = inside & ~bit_of(me);
	for (x : 0 .. TABLES - 1) {
		cookie[x] = cookie[x] & ~bit_of(me)
	};
	for (x : 0 .. NR_SLOTS - 1) {
		dead_cookie[x] = dead_cookie[x] & ~bit_of(me)
	};
	r[me].table = 0;
	r[me].slot = NONE;
	r[me].phase = IDLE;
	chm_reclaim()
}

/* === Updating ============================================================ */

#ifdef UNEQUAL
#define is_below_max(me, w) \
	(sum[word_of(pair_of(r[me].slot), w)] / amount(me) % 4 < MAX)
#else
#define is_below_max(me, w)	(sum[word_of(pair_of(r[me].slot), w)] < MAX)
#endif
#define may_add(me, w) \
	(r[me].phase == HOLD && \
	 (pair_of(r[me].slot) == NONE || is_below_max(me, w)))

inline atomic_long_add(me, w)
{
	/* O7 */
	assert(state[r[me].table] != UNUSED);
	/* Of mutants only: the key is gone, and this cell was not its last. */
	n = pair_of(r[me].slot);
	cell[word_of(r[me].slot, w)] = cell[word_of(r[me].slot, w)] + amount(me);
	if
	:: n != NONE ->
		u = sum[word_of(n, w)] + amount(me);
		set_sum(n, w, u)
	:: else -> skip
	fi
}

proctype updater(byte me)
{
	do
	:: d_step { r[me].phase == IDLE -> rcu_read_lock(me) }
	:: d_step { r[me].phase == FIND ->
		find(r[me].table);
		r[me].slot = hit;
		if
		:: hit == NONE -> rcu_read_unlock(me)
		:: else -> r[me].phase = HOLD
		fi }
	:: d_step { may_add(me, 0) -> atomic_long_add(me, 0) }
#if WORDS > 1
	:: d_step { may_add(me, 1) -> atomic_long_add(me, 1) }
#endif
	:: d_step { r[me].phase == HOLD -> rcu_read_unlock(me) }
	od
}

/* === Exact reading ======================================================= */

#if READERS
#define nr(me)		number_of(r[me].old, r[me].i)
#define mark_of(me)	merged[table_of(r[me].old)]

/* chm_cell_read() has ended. */
inline end_read(me)
{
	for (m : 0 .. WORDS - 1) {
		sum_of(me, m) = 0;
		ok_of(me, m) = 0
	};
	r[me].absent_ok = 0;
	r[me].old = NONE;
	r[me].i = 0;
	r[me].got = 0;
	rcu_read_unlock(me)
}

/* This word, or value, is summed up: on to the next. */
inline next(me)
{
	for (m : r[me].i .. r[me].i + UNIT - 1) {
		n = sum_of(me, m);
		true_sums = ok_of(me, m);
		assert(n < 15);
#if defined(UNEQUAL) && !defined(M_ONE_MOMENT)
		/* 0x1111: what has the same low digit; 15: the same high one */
		assert((true_sums & (4369 << (n % 4))) &&
		       (true_sums & (15 << (n - n % 4))));
#else
		assert(true_sums & bit_of(n));
#endif
		sum_of(me, m) = 0;
		ok_of(me, m) = 0
	};
	r[me].got = 0;
	r[me].i = r[me].i + UNIT;
	if
	:: r[me].i == WORDS -> end_read(me)
	:: else -> r[me].phase = (r[me].old == NONE -> NOW : MARK)
	fi
}

inline load_now(me, w)
{
	/* O7 */
	assert(state[r[me].table] != UNUSED);
	sum_of(me, w) = sum_of(me, w) + cell[word_of(r[me].slot, w)]
}

inline load_old(me, w)
{
	/* O7 */
	assert(has_snapshot[table_of(r[me].old)]);
	sum_of(me, w) = sum_of(me, w) + cell[word_of(r[me].old, w)] -
			copied[word_of(r[me].old, w)]
}

inline loaded(me)
{
#if defined(M_NO_MARK) || defined(M_NO_RECHECK)
	next(me)
#else
	r[me].phase = AGAIN
#endif
}

inline begin_read(me)
{
	rcu_read_lock(me);
	for (m : 0 .. WORDS - 1) {
		ok_of(me, m) = (current == NONE -> 0 :
				bit_of(sum[word_of(current, m)]))
	};
	r[me].absent_ok = (current == NONE)
}

inline chm_sum_cell(me)
{
	if
#ifndef M_GET
	:: pending[r[me].table] != NONE ->
		find(pending[r[me].table]);
		r[me].old = hit;
		r[me].phase = (hit == NONE -> NOW : MARK)
#endif
	:: else -> r[me].phase = NOW
	fi
#ifdef M_NO_MARK
	;
	r[me].phase = (r[me].old == NONE -> NOW : LOAD)
#endif
}

proctype reader(byte me)
{
	do
	:: d_step { r[me].phase == IDLE -> begin_read(me) }
	:: d_step { r[me].phase == FIND ->
		find(r[me].table);
		r[me].slot = hit;
		if
		:: hit == NONE ->
			assert(r[me].absent_ok);
			end_read(me)
		:: else ->
			r[me].absent_ok = 0;
			r[me].phase = FROM
		fi }
	:: d_step { r[me].phase == FROM -> chm_sum_cell(me) }
	:: d_step { r[me].phase == MARK && mark_of(me) != 2 * nr(me) + 1 ->
		assert(has_snapshot[table_of(r[me].old)]);
		r[me].phase = (mark_of(me) > 2 * nr(me) -> NOW : LOAD) }
#if UNIT == 1
	/* The compiler may choose which of the two comes first. */
	:: d_step { r[me].phase == LOAD && r[me].got != 1 ->
		load_now(me, r[me].i);
		if
		:: r[me].got -> loaded(me)
		:: else -> r[me].got = 1
		fi }
	:: d_step { r[me].phase == LOAD && r[me].got != 2 ->
		load_old(me, r[me].i);
		if
		:: r[me].got -> loaded(me)
		:: else -> r[me].got = 2
		fi }
#else
	/* A copy of the new value, and merge() on it */
	:: d_step { r[me].phase == LOAD && r[me].got < UNIT ->
		load_now(me, r[me].got);
		r[me].got++ }
	:: d_step { r[me].phase == LOAD && r[me].got >= UNIT ->
		load_old(me, r[me].got - UNIT);
		r[me].got++;
		if
		:: r[me].got == 2 * UNIT -> loaded(me)
		:: else -> skip
		fi }
#endif
	:: d_step { r[me].phase == AGAIN ->
		assert(has_snapshot[table_of(r[me].old)]);
		if
		:: mark_of(me) <= 2 * nr(me) -> next(me)
		:: else ->
			for (m : r[me].i .. r[me].i + UNIT - 1) {
				sum_of(me, m) = 0
			};
			r[me].got = 0;
			r[me].phase = MARK
		fi }
	:: d_step { r[me].phase == NOW ->
		load_now(me, r[me].i + r[me].got);
		r[me].got++;
		if
		:: r[me].got == UNIT -> next(me)
		:: else -> skip
		fi }
	od
}
#endif

/* === Writing ============================================================= */

/* Of the writer, from one step to the next; 0 at rest. */
byte to;	/* the new table */
byte from;	/* the one before it */
byte at;	/* slot of the old table */
byte at_to;	/* and of the new one */
byte w;		/* word to copy, exchange or merge next */
byte merging;	/* 1: after chm_merge_begin(), 2: all is added */
byte v;		/* of two mutants */

/* Ends every operation. */
inline rest()
{
	to = 0;
	from = 0;
	at = 0;
	at_to = 0;
	w = 0;
	v = 0;
	m = 1;
	for (x : 0 .. TABLES - 1) {
		/* Of mutants only */
		m = m && pending[x] == NONE
	};
	if
	:: current != NONE && m ->
		for (m : 0 .. WORDS - 1) {
			assert(cell[word_of(current, m)] ==
			       sum[word_of(current, m)])
		}
	:: else -> skip
	fi
}

#if SLOTS > 1
#define has_empty	(tag[tbl * SLOTS] == EMPTY || \
			 tag[tbl * SLOTS + 1] == EMPTY)
#else
#define has_empty	(tag[tbl] == EMPTY)
#endif

/* The first EMPTY slot of table t */
inline chm_find_empty(t)
{
	hit = NONE;
	for (s : (t) * SLOTS .. (t) * SLOTS + SLOTS - 1) {
		hit = (hit == NONE && tag[s] == EMPTY -> s : hit)
	}
}

/* The slot dies; who has found it may still update it. */
inline kill(how)
{
	at = current;
	tag[at] = how;
	dead_cookie[at] = inside;
	make_current(NONE)
}

inline take_value()
{
	for (m : 0 .. WORDS - 1) {
		took[word_of(at, m)] = 1 + cell[word_of(at, m)]
	}
}

#if TABLES > 2
#define is_some(what)	(what(0) || what(1) || what(2))
#else
#define is_some(what)	(what(0) || what(1))
#endif
#define is_unused(t)	(state[t] == UNUSED)
#define is_pending(t)	(pending[t] != NONE)
#if defined(M_UNLOCK_GROW) || defined(M_UNLOCK_REPLACE)
#define may_merge(t)	(is_pending(t) && !cookie[pending[t]])
#define is_locked	is_some(is_pending)
#else
#define is_locked	0
#endif

inline begin_growth()
{
	from = tbl;
	to = 0;
	do
	:: state[to] != UNUSED -> to++
	:: else -> break
	od;
	state[to] = ACTIVE;
	has_snapshot[from] = 1;
	find(from);
	at = hit;
	at_to = (at == NONE -> NONE : to * SLOTS);
	w = (at == NONE -> WORDS : 0)
}

/* chm_migrate_pair(): a word is loaded once. */
inline copy_word()
{
	cell[word_of(at_to, w)] = cell[word_of(at, w)];
	copied[word_of(at, w)] = cell[word_of(at_to, w)];
}

inline chm_publish()
{
	pending[to] = from;
	tbl = to;
	/* chm_wait_for_readers() */
	cookie[from] = inside;
	if
	:: at != NONE ->
		tag[at_to] = FULL;
		current = at_to;
		for (m : 0 .. WORDS - 1) {
			sum[word_of(at_to, m)] = sum[word_of(at, m)];
			sum[word_of(at, m)] = 0
		}
	:: else -> skip
	fi
}

/* chm_merge_pairs() begins. */
inline begin_merge()
{
	from = pending[to];
	find(from);
	at = hit;
	find(to);
	at_to = hit;
#ifdef M_PENDING_EARLY
	pending[to] = NONE;
#endif
	w = (at == NONE || at_to == NONE -> WORDS : 0);
	next_difference()
}

#define difference(w)	(cell[word_of(at, w)] - copied[word_of(at, w)])

/* On to the next word to be merged, or the next value. */
inline next_difference()
{
	do
	:: w < WORDS ->
		m = 0;
		for (x : w .. w + UNIT - 1) {
			m = m || difference(x)
		};
		if
		:: m -> break
		:: else -> w = w + UNIT
		fi
	:: else -> break
	od;
	skip
}

active proctype writer()
{
	d_step {
		current = NONE;
		for (x : 0 .. ALL - 1) {
			r[x].slot = NONE;
			r[x].old = NONE
		};
		for (x : 0 .. TABLES - 1) {
			pending[x] = NONE
		};
		state[0] = ACTIVE
	};
	atomic {
		run updater(0);
#if UPDATERS > 1
		run updater(1);
#endif
#if READERS
		run reader(UPDATERS);
#endif
#if READERS > 1
		run reader(UPDATERS + 1);
#endif
		skip
	};

idle:
	atomic {
		if
#ifndef MERGE
		:: d_step { current != NONE &&
#ifndef M_UNLOCK_REPLACE
			    !is_locked
#else
			    1
#endif
			    -> w = 0 }; goto replace
#endif
		:: d_step { current != NONE && !is_locked ->
			kill(DEAD);
			chm_reclaim();
			rest() }; goto idle
#ifdef M_TAKE_AT_ONCE
		:: d_step { current != NONE && !is_locked ->
			kill(DEAD);
			take_value();
			chm_reclaim();
			rest() }; goto idle
#else
		:: d_step { current != NONE && !is_locked ->
			kill(TAKEN);
			skip };
		   goto take
#endif
		:: d_step { current == NONE && has_empty && !is_locked ->
			chm_find_empty(tbl);
			assert_unseen(hit);
			tag[hit] = FULL;
			make_current(hit);
			for (m : 0 .. WORDS - 1) {
				set_sum(hit, m, 0)
			};
			rest() }; goto idle
		:: d_step { is_some(is_unused) &&
#ifndef M_UNLOCK_GROW
			    !is_locked
#else
			    1
#endif
			    -> begin_growth() }; goto copy
#if defined(M_UNLOCK_GROW) || defined(M_UNLOCK_REPLACE)
		:: d_step { may_merge(0) -> to = 0; begin_merge() }; goto merge
		:: d_step { may_merge(1) -> to = 1; begin_merge() }; goto merge
		:: d_step { may_merge(2) -> to = 2; begin_merge() }; goto merge
#endif
		fi
	};

replace:
	do
	/* atomic_long_xchg() */
	:: d_step { w < WORDS ->
		cell[word_of(current, w)] = 0;
		set_sum(current, w, 0);
		w++ }
	:: d_step { w == WORDS -> rest() }; goto idle
	od;

take:
	if
	:: d_step { !dead_cookie[at] -> take_value(); reclaim(at); rest() };
	   goto idle
	fi;

copy:
	do
#ifdef M_SNAPSHOT_TWICE
	:: d_step { w < WORDS && !v ->
		cell[word_of(at_to, w)] = cell[word_of(at, w)];
		v = 1 }
	:: d_step { w < WORDS && v ->
		copied[word_of(at, w)] = cell[word_of(at, w)];
		v = 0;
		w++ }
#else
	:: d_step { w < WORDS -> copy_word(); w++ }
#endif
	:: d_step { w == WORDS -> chm_publish(); w = 0 }; break
	od;
#ifdef M_SNAPSHOT_LATE
	if
	:: d_step { at != NONE ->
		for (m : 0 .. WORDS - 1) {
			copied[word_of(at, m)] = cell[word_of(at, m)]
		} }
	:: d_step { at == NONE -> skip }
	fi;
#endif
#if defined(M_UNLOCK_GROW) || defined(M_UNLOCK_REPLACE)
	if :: d_step { rest() }; goto idle fi;
#endif
	/* O9 */
	if
#ifdef M_NO_GRACE_PERIOD
	:: d_step { begin_merge() }
#else
	:: d_step { !cookie[from] -> begin_merge() }
#endif
	fi;

merge:
	do
	:: d_step { w < WORDS && !merging ->
		/* chm_merge_begin() */
#ifdef M_MARK_EARLY
		merged[from] = 2 * number_of(at, w) + 2;
#elif !defined(M_MARK_LATE)
		merged[from] = 2 * number_of(at, w) + 1;
#endif
		merging = 1 }
#ifdef M_PLAIN_MERGE
	:: d_step { merging == 1 && !v ->
		v = 1 + cell[word_of(at_to, w)] }
	:: d_step { merging == 1 && v ->
		cell[word_of(at_to, w)] = v - 1 + difference(w);
		v = 0;
		w++;
		merging = (w % UNIT -> 1 : 2) }
#else
	:: d_step { merging == 1 ->
		cell[word_of(at_to, w)] = cell[word_of(at_to, w)] +
					  difference(w);
		w++;
		merging = (w % UNIT -> 1 : 2) }
#endif
	:: d_step { merging == 2 ->
		/* chm_merge_end() */
#ifndef M_MARK_EARLY
		merged[from] = 2 * number_of(at, w - 1) + 2;
#endif
		merging = 0;
		next_difference() }
	:: d_step { w == WORDS && !merging -> pending[to] = NONE }; break
	od;
	if
	:: d_step {
		/* chm_retire() */
#ifdef M_FREE_SNAPSHOT
		has_snapshot[from] = 0;
#endif
		cookie[from] = inside;
		state[from] = RETIRED;
		chm_reclaim();
		rest() }; goto idle
	fi
}
