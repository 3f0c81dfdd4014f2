/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Class CHM_CELL, for the model checker spin: scripts/verify runs it
 *
 * Readers update the cells of one key, others read its exact sum, and one
 * writer (writers exclude one another) migrates, merges, clears, exchanges,
 * removes, takes and inserts, for ever and in any order.  The search is
 * exhaustive.
 *
 * A step is one access to a cell, a mark, or a pointer, with what goes with it.
 * Steps interleave as if memory were sequentially consistent: what weaker
 * ordering can do is the matter of the litmus tests of O9 and O10.  How keys
 * are found is that of chm.pml: here a lookup is one step.  Each slot is a chunk
 * of its own, so a migration is one step of copying for each slot.
 *
 * Names are those of chm.c.  Left out there, and why that is no loss:
 *	- memory is freed, and slots become EMPTY, as soon as they may: what is
 *	  kept for longer only keeps the writer from using it
 *	- a grace period begins with the step that it is needed for, and a read
 *	  ends its section with its last step: later would only delay the writer
 *	- the two generations of DEAD slots: here each slot has its cookie
 *	- a reader that spins on a mark: here it waits for another one
 *	- the number that counts rebases: here a reader is told of each
 *	- writers' locks, allocation and its failures
 *	- CHM_SYNC maps, which do nothing between two steps of a migration
 *
 * Checked, by assertions:
 *	- lost: at rest each word is the sum of all updates since the pair was
 *	  inserted or the word last exchanged, in whatever table they were made,
 *	  once what is not merged yet is added
 *	- sum: what chm_cell_read() returns of a word was its true sum at some
 *	  moment during the call, so successive calls don't go backwards; this
 *	  asks for updates that all add the same, see UNEQUAL for others.  The
 *	  key is missed only if it was absent.  A reader that is still in the
 *	  table before the last one when a word is exchanged may return what
 *	  that table's cell is then: see M_OLD_READER
 *	- final: what chm_take() returns, and drop() gets, has all updates that
 *	  were ever made
 *	- seen: no slot is reclaimed that a reader may still update or read, and
 *	  no table and no snapshot used that was freed
 *
 * Size of the model
 *	UPDATERS  readers that update, at most 2
 *	READERS	  readers that sum up, at most 2
 *	WORDS	  words of the value, at most 2
 *	MERGE	  the map has merge(): one mark for both words, no replacing
 *	SLOTS	  slots of a table, at most 2
 *	TABLES	  tables at a time, 2 or 3
 *	MAX	  what a word may come to until it is set to 0 again
 *	NO_REPLACE, NO_REMOVE, NO_CLEAR
 *		  without words that are exchanged, pairs that are removed or
 *		  taken, maps that are cleared
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
#ifdef MERGE
#define NO_REPLACE
#endif

#define ALL		(UPDATERS + READERS)
#define NR_SLOTS	(TABLES * SLOTS)
/* Slots are numbered across tables, words across slots. */
#define word_of(slot, w)	((slot) * WORDS + (w))
#define table_of(slot)		((slot) / SLOTS)
#define first_slot(t)		((t) * SLOTS)
#define last_slot(t)		((t) * SLOTS + SLOTS - 1)
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
#define TAKEN	2	/* DEAD, and chm_take() waits, or has what it waited for */
#define FULL	3
byte tag[NR_SLOTS];
byte cell[NR_SLOTS * WORDS];
byte dead_cookie[NR_SLOTS];

#define UNUSED	0
#define FILLING	1
#define ACTIVE	2
#define OLD	3	/* replaced, and not all of it is merged */
#define RETIRED	4
byte state[TABLES];
byte cookie[TABLES];	/* SETTLING, then of retirement */
byte tbl;		/* map->tbl */
byte next;		/* map->next, or NONE */
byte cursor;		/* slots of tbl that have been copied to next */
byte taken;		/* the slot that chm_take() waits for */
bit owns_full[TABLES];	/* a retired table that drops its FULL pairs as well */

/* The snapshot of each table, made while it is copied, and its marks. */
bit has_snapshot[TABLES];	/* and it is not freed */
byte copied[NR_SLOTS * WORDS];
byte where[NR_SLOTS];	/* the slot in the next table, or NONE */
byte merged[TABLES];
bit rebasing[TABLES];	/* its sequence number is odd */
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
	bit torn;	/* there was a rebase meanwhile */
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

/* Of the writer, from one step to the next; 0 at rest. */
byte from;	/* the table before this one */
byte at;	/* slot of the old table */
byte at_to;	/* and of the new one */
byte w;		/* word to copy, exchange or merge next */
byte merging;	/* 1: after chm_merge_begin(), 2: all is added */
byte v;		/* what a word was, plus 1 */
byte part;	/* of a rebase: 1: seq is odd, 2: noted, 3: exchanged */
byte kept;	/* monitor: updates of the old cell since it was loaded */

/* === Monitor ============================================================= */

byte current;			/* the slot of the key; NONE: absent */
byte sum[NR_SLOTS * WORDS];	/* what all updates of this pair come to */
byte took[NR_SLOTS * WORDS];	/* 1 + what chm_take() has returned, or drop() got */
bit is_rebased[TABLES];		/* a word was exchanged that its cells don't have */

/* A pair that was moved is that of the slot it was moved to. */
#define pair_of(x)	(tag[x] == FULL && state[table_of(x)] >= OLD && \
			 where[x] != NONE -> where[x] : x)
#define is_full(x)	(tag[x] == FULL)
#if SLOTS > 1
#define full_in(t)	(is_full(first_slot(t)) -> first_slot(t) : \
			 (is_full(last_slot(t)) -> last_slot(t) : NONE))
#else
#define full_in(t)	(is_full(t) -> (t) : NONE)
#endif
#define pair_in(t)	(full_in(t) == NONE -> NONE : pair_of(full_in(t)))
#define watched(me)	(r[me].slot == NONE -> pair_in(r[me].table) : \
			 pair_of(r[me].slot))

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

/* Lookups in this table don't find the pair any more, or find this one. */
inline make_current(slot)
{
	current = slot;
#if READERS
	for (x : UPDATERS .. ALL - 1) {
		if
		:: r[x].phase == FIND && slot == NONE ->
			r[x].absent_ok = 1;
			for (m : 0 .. WORDS - 1) {
				ok_of(x, m) = (full_in(r[x].table) == NONE -> 0 :
					       ok_of(x, m))
			}
		:: else -> skip
		fi
	}
#endif
}

/* No reader may update or read this slot: it is about to be dropped. */
inline assert_unseen(which)
{
	for (x : 0 .. ALL - 1) {
		assert(r[x].slot != which)
	}
}

/* === Reclaim ============================================================= */

#define difference(w)	(cell[word_of(at, w)] - copied[word_of(at, w)])
/* Is this word, or value, of an old slot still to be merged? */
#define is_unmerged(slot, w)	(merged[table_of(slot)] <= 2 * number_of(slot, w))

/* drop() runs, or who has taken the pair does as it likes. */
inline finish(which)
{
	assert_unseen(which);
	for (m : 0 .. WORDS - 1) {
		n = word_of(which, m);
#ifndef M_SWEEP_WHILE_SETTLING
		took[n] = (took[n] -> took[n] : 1 + cell[n]);
		assert(took[n] == 1 + sum[n]);
#endif
		cell[n] = 0;
		sum[n] = 0;
		took[n] = 0
	};
	dead_cookie[which] = 0
}

#ifdef M_DROP_AT_ONCE
#define is_final(slot)	1
#else
#define is_final(slot)	(!dead_cookie[slot])
#endif
#if defined(M_DROP_EARLY) || defined(M_SWEEP_WHILE_SETTLING)
#define may_sweep	(taken == NONE)
#else
#define may_sweep	(taken == NONE && pending[tbl] == NONE)
#endif
#define may_free(t)	(state[t] == RETIRED && !cookie[t] && taken == NONE && \
			 pending[t] == NONE)
/* Of a map that was cleared while it settled or merged */
#define may_finish(t)	(state[t] == RETIRED && !cookie[t] && pending[t] != NONE)

inline zero_table(t)
{
	for (u : first_slot(t) .. last_slot(t)) {
		tag[u] = EMPTY;
		where[u] = NONE;
		dead_cookie[u] = 0;
		for (m : 0 .. WORDS - 1) {
			cell[word_of(u, m)] = 0;
			copied[word_of(u, m)] = 0
		}
	};
	has_snapshot[t] = 0;
	merged[t] = 0;
	owns_full[t] = 0;
	is_rebased[t] = 0;
	pending[t] = NONE;
	state[t] = UNUSED
}

inline chm_free_table(t)
{
	for (u : first_slot(t) .. last_slot(t)) {
		assert_unseen(u);
		if
		:: tag[u] == DEAD || (tag[u] == FULL && owns_full[t]) -> finish(u)
		:: else -> skip
		fi
	};
	zero_table(t)
}

/* Nobody looks any more, so there is no mark, and no atomic access. */
inline chm_finish_merge(t)
{
	u = full_in(pending[t]);
#ifndef M_CLEAR_FORGETS
	if
	:: u != NONE ->
		for (m : 0 .. WORDS - 1) {
			n = word_of(where[u], m);
			cell[n] = (is_unmerged(u, m) ->
				   cell[n] + cell[word_of(u, m)] -
				   copied[word_of(u, m)] : cell[n])
		}
	:: else -> skip
	fi;
#endif
	/* It is retired by now. */
	state[pending[t]] = RETIRED;
	cookie[pending[t]] = 0;
	pending[t] = NONE
}

/* All that is due */
inline chm_reclaim()
{
	for (u : first_slot(tbl) .. last_slot(tbl)) {
		if
		:: tag[u] == DEAD && is_final(u) && may_sweep ->
			finish(u);
			tag[u] = EMPTY
		:: else -> skip
		fi
	};
	for (y : 0 .. TABLES - 1) {
		if
		:: may_finish(y) -> chm_finish_merge(y)
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
inline find(which)
{
	assert(state[which] != UNUSED);
	hit = full_in(which)
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

/* An old cell is never set to 0, so it has a bound of its own. */
#ifdef UNEQUAL
#define is_below_max(me, w) \
	(sum[word_of(pair_of(r[me].slot), w)] / amount(me) % 4 < MAX && \
	 cell[word_of(r[me].slot, w)] / amount(me) % 4 < MAX + 1)
#else
#define is_below_max(me, w) \
	(sum[word_of(pair_of(r[me].slot), w)] < MAX && \
	 cell[word_of(r[me].slot, w)] < MAX + 1)
#endif
#define may_add(me, w)	(r[me].phase == HOLD && is_below_max(me, w))

inline atomic_long_add(me, which)
{
	/* O7 */
	assert(state[r[me].table] != UNUSED);
	n = pair_of(r[me].slot);
	y = word_of(r[me].slot, which);
	cell[y] = cell[y] + amount(me);
	kept = (part == 2 && y == word_of(at, w) -> kept + amount(me) : kept);
	u = sum[word_of(n, which)] + amount(me);
	set_sum(n, which, u);
#if READERS && !defined(M_OLD_READER)
	for (x : UPDATERS .. ALL - 1) {
		if
		:: r[x].phase != IDLE && r[x].table == r[me].table &&
		   is_rebased[r[x].table] ->
			ok_of(x, which) = ok_of(x, which) | bit_of(cell[y])
		:: else -> skip
		fi
	}
#endif
	;
	skip
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
#ifdef M_NO_SEQ
#define is_rebasing(me)	0
#else
#define is_rebasing(me)	rebasing[table_of(r[me].old)]
#endif

/* chm_cell_read() has ended. */
inline end_read(me)
{
	for (m : 0 .. WORDS - 1) {
		sum_of(me, m) = 0;
		ok_of(me, m) = 0
	};
	r[me].absent_ok = 0;
	r[me].torn = 0;
	r[me].old = NONE;
	r[me].i = 0;
	r[me].got = 0;
	rcu_read_unlock(me)
}

/* This word, or value, is summed up: on to the next. */
inline summed(me)
{
	for (m : r[me].i .. r[me].i + UNIT - 1) {
		n = sum_of(me, m);
		true_sums = ok_of(me, m);
		assert(n < 15 && true_sums);
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
	summed(me)
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

/* The old cell counts if it is that of this very pair. */
#ifdef M_NOWHERE
#define is_origin(me)	(hit != NONE)
#else
#define is_origin(me)	(hit != NONE && where[hit] == r[me].slot)
#endif

inline chm_sum_cell(me)
{
	if
#ifndef M_GET
	:: pending[r[me].table] != NONE ->
		find(pending[r[me].table]);
		r[me].old = (is_origin(me) -> hit : NONE);
		r[me].phase = (r[me].old == NONE -> NOW : MARK)
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
	:: d_step { r[me].phase == MARK && mark_of(me) != 2 * nr(me) + 1 &&
		    !is_rebasing(me) ->
		assert(has_snapshot[table_of(r[me].old)]);
		r[me].torn = 0;
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
		:: mark_of(me) <= 2 * nr(me) && !r[me].torn -> summed(me)
		:: else ->
			for (m : r[me].i .. r[me].i + UNIT - 1) {
				sum_of(me, m) = 0
			};
			r[me].got = 0;
			r[me].torn = 0;
			r[me].phase = MARK
		fi }
	:: d_step { r[me].phase == NOW ->
		load_now(me, r[me].i + r[me].got);
		r[me].got++;
		if
		:: r[me].got == UNIT -> summed(me)
		:: else -> skip
		fi }
	od
}
#endif

/* === Writing ============================================================= */

/* The old slot of the pair at current while a word of it is unmerged, or NONE */
inline find_origin()
{
	at = (pending[tbl] == NONE -> NONE : full_in(pending[tbl]));
	at = (at == NONE || where[at] != current -> NONE : at);
	at = (at == NONE || !is_unmerged(at, WORDS - 1) -> NONE : at)
}

/* Ends every hold. */
inline rest()
{
	from = 0;
	w = 0;
	v = 0;
	part = 0;
	kept = 0;
	at_to = 0;
	if
	:: current != NONE ->
		find_origin();
		for (m : 0 .. WORDS - 1) {
			n = cell[word_of(current, m)];
			if
			:: at != NONE && is_unmerged(at, m) ->
				n = n + difference(m)
			:: else -> skip
			fi;
			/* Is the cell what it has to be? */
			assert(n == sum[word_of(current, m)])
		}
	:: else -> skip
	fi;
	at = 0
}

#if SLOTS > 1
#define has_empty	(tag[first_slot(tbl)] == EMPTY || \
			 tag[last_slot(tbl)] == EMPTY)
#else
#define has_empty	(tag[tbl] == EMPTY)
#endif

/* The first EMPTY slot of table t */
inline chm_find_empty(t)
{
	hit = NONE;
	for (s : first_slot(t) .. last_slot(t)) {
		hit = (hit == NONE && tag[s] == EMPTY -> s : hit)
	}
}

/* The slot in next becomes EMPTY: nobody has seen it. */
inline forget_copy(slot)
{
	if
	:: next != NONE && where[slot] != NONE ->
		tag[where[slot]] = EMPTY;
		for (m : 0 .. WORDS - 1) {
			cell[word_of(where[slot], m)] = 0;
			copied[word_of(slot, m)] = 0
		};
		where[slot] = NONE
	:: else -> skip
	fi
}

/* The slot dies; who has found it may still update it. */
inline kill(how)
{
	at = current;
	tag[at] = how;
	dead_cookie[at] = inside;
	forget_copy(at);
	make_current(NONE)
}

inline take_value(slot)
{
	for (m : 0 .. WORDS - 1) {
		took[word_of(slot, m)] = 1 + cell[word_of(slot, m)]
	}
}

#ifdef M_TAKE_BEFORE_MERGE
#define may_take	(taken != NONE && !dead_cookie[taken])
#else
#define may_take	(taken != NONE && !dead_cookie[taken] && \
			 pending[table_of(taken)] == NONE)
#endif

/* Its value is final.  Nobody writes to tables that were replaced. */
inline end_take()
{
	take_value(taken);
	finish(taken);
	if
	:: table_of(taken) == tbl -> tag[taken] = EMPTY
	:: else -> skip
	fi;
	taken = NONE;
	chm_reclaim()
}

inline insert()
{
	chm_find_empty(tbl);
	at = hit;
	assert_unseen(at);
	tag[at] = FULL;
	make_current(at);
	for (m : 0 .. WORDS - 1) {
		set_sum(at, m, 0)
	};
	if
	:: next != NONE && at % SLOTS < cursor ->
		chm_find_empty(next);
		assert(hit != NONE);
		tag[hit] = FULL;
		where[at] = hit
	:: else -> skip
	fi
}

#if TABLES > 2
#define is_some(what)	(what(0) || what(1) || what(2))
#else
#define is_some(what)	(what(0) || what(1))
#endif
#define is_unused(t)	(state[t] == UNUSED)

inline find_unused()
{
	y = 0;
	do
	:: state[y] != UNUSED -> y++
	:: else -> break
	od;
	skip
}

inline chm_abort()
{
	for (u : first_slot(tbl) .. last_slot(tbl)) {
		forget_copy(u)
	};
	has_snapshot[tbl] = 0;
	zero_table(next);
	next = NONE;
	cursor = 0
}

#ifdef M_MIGRATE_WHILE_SETTLING
#define may_start	(next == NONE && is_some(is_unused))
#else
#define may_start	(next == NONE && is_some(is_unused) && pending[tbl] == NONE)
#endif

/* The next slot is copied. */
inline begin_step()
{
	if
	:: next == NONE ->
		find_unused();
		next = y;
		state[next] = FILLING;
		has_snapshot[tbl] = 1
	:: else -> skip
	fi;
	at = first_slot(tbl) + cursor;
	if
	:: tag[at] == FULL ->
		chm_find_empty(next);
		at_to = hit;
		w = 0
	:: else ->
		at = NONE;
		w = WORDS
	fi
}

/* chm_migrate_pair(): a word is loaded once. */
inline copy_word()
{
	cell[word_of(at_to, w)] = cell[word_of(at, w)];
	copied[word_of(at, w)] = cell[word_of(at_to, w)];
}

inline chm_swap_tables()
{
	pending[next] = tbl;
	/* SETTLING */
	cookie[tbl] = inside;
	state[tbl] = OLD;
	state[next] = ACTIVE;
	tbl = next;
	next = NONE;
	cursor = 0;
	if
	:: current != NONE ->
		n = where[current];
		for (m : 0 .. WORDS - 1) {
			sum[word_of(n, m)] = sum[word_of(current, m)];
			sum[word_of(current, m)] = 0
		};
		current = n
	:: else -> skip
	fi
}

/* The last step, and the new table, in one hold. */
inline end_step()
{
	if
	:: at != NONE ->
		tag[at_to] = FULL;
		where[at] = at_to
	:: else -> skip
	fi;
	cursor++;
	if
	:: cursor == SLOTS -> chm_swap_tables()
	:: else -> skip
	fi
}

/* What there is, with what is pending, goes with its readers. */
inline chm_clear()
{
	if
	:: next != NONE -> chm_abort()
	:: else -> skip
	fi;
	find_unused();
	make_current(NONE);
	state[tbl] = RETIRED;
	cookie[tbl] = inside;
	owns_full[tbl] = 1;
	tbl = y;
	state[tbl] = ACTIVE;
	chm_reclaim()
}

/* chm_merge_some() goes on. */
inline begin_merge()
{
	from = pending[tbl];
	find(from);
	at = hit;
#ifdef M_BYKEY
	find(tbl);
	at_to = hit;
#else
	at_to = (at == NONE -> NONE : where[at]);
#endif
#ifdef M_PENDING_EARLY
	pending[tbl] = NONE;
#endif
	w = (at == NONE || at_to == NONE -> WORDS : 0);
	next_difference()
}

/* On to the next word to be merged, or the next value. */
inline next_difference()
{
	do
	:: w < WORDS ->
		m = 0;
		for (x : w .. w + UNIT - 1) {
			m = m || (is_unmerged(at, x) && difference(x))
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
		next = NONE;
		taken = NONE;
		for (x : 0 .. ALL - 1) {
			r[x].slot = NONE;
			r[x].old = NONE
		};
		for (x : 0 .. TABLES - 1) {
			pending[x] = NONE
		};
		for (x : 0 .. NR_SLOTS - 1) {
			where[x] = NONE
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
#ifndef NO_REPLACE
		:: d_step { current != NONE ->
			find_origin();
			w = 0;
#ifdef M_NO_REBASE
			at = NONE
#else
			skip
#endif
		   };
		   if
		   :: d_step { at == NONE -> at = 0 }; goto replace
		   :: d_step { at != NONE -> skip }; goto rebase
		   fi
#endif
#ifndef NO_REMOVE
		:: d_step { current != NONE ->
			kill(DEAD);
			chm_reclaim();
			rest() }; goto idle
#ifdef M_TAKE_AT_ONCE
		:: d_step { current != NONE ->
			kill(DEAD);
			take_value(at);
			chm_reclaim();
			rest() }; goto idle
#else
		:: d_step { current != NONE && taken == NONE ->
			kill(TAKEN);
			taken = at;
			rest() }; goto idle
		:: d_step { may_take -> end_take(); rest() }; goto idle
#endif
#endif
		:: d_step { current == NONE && has_empty -> insert(); rest() };
		   goto idle
		:: d_step { may_start || next != NONE -> begin_step() }; goto copy
		:: d_step { next != NONE -> chm_abort(); rest() }; goto idle
		:: d_step { pending[tbl] != NONE &&
#ifndef M_NO_GRACE_PERIOD
			    !cookie[pending[tbl]]
#else
			    1
#endif
			    -> begin_merge() }; goto merge
#ifndef NO_CLEAR
		:: d_step { next != NONE || is_some(is_unused) ->
			chm_clear();
			rest() }; goto idle
#endif
		fi
	};

replace:
	do
	/* atomic_long_xchg(); the copy is like new. */
	:: d_step { w < WORDS ->
		cell[word_of(current, w)] = 0;
		set_sum(current, w, 0);
		if
		:: next != NONE && where[current] != NONE ->
			cell[word_of(where[current], w)] = 0;
			copied[word_of(current, w)] = 0
		:: else -> skip
		fi;
		w++ }
	:: d_step { w == WORDS -> rest() }; goto idle
	od;

rebase:
	do
	:: d_step { w < WORDS && !part && is_unmerged(at, w) ->
		/* chm_exchange_begin() */
		from = table_of(at);
		rebasing[from] = 1;
		is_rebased[from] = 1;
		part = 1;
#if READERS && !defined(M_NO_SEQ)
		for (x : UPDATERS .. ALL - 1) {
			r[x].torn = r[x].torn || r[x].phase == LOAD ||
				    r[x].phase == AGAIN
		}
#endif
		skip }
	:: d_step { w < WORDS && !part && !is_unmerged(at, w) ->
		cell[word_of(current, w)] = 0;
		set_sum(current, w, 0);
		w++ }
	:: d_step { part == 1 ->
		copied[word_of(at, w)] = cell[word_of(at, w)];
		kept = 0;
		part = 2 }
	:: d_step { part == 2 ->
		cell[word_of(current, w)] = 0;
		set_sum(current, w, kept);
		kept = 0;
		part = 3 }
	:: d_step { part == 3 ->
		/* chm_exchange_end() */
		rebasing[from] = 0;
		part = 0;
		w++ }
	:: d_step { w == WORDS && !part -> rest() }; goto idle
	od;

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
	:: d_step { w == WORDS ->
		end_step();
#ifdef M_SNAPSHOT_LATE
		w = 0 }; break
#else
		rest() }; goto idle
#endif
	od;
#ifdef M_SNAPSHOT_LATE
	if
	:: d_step { at != NONE ->
		for (m : 0 .. WORDS - 1) {
			copied[word_of(at, m)] = cell[word_of(at, m)]
		};
		rest() }; goto idle
	:: d_step { at == NONE -> rest() }; goto idle
	fi;
#endif

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
#ifndef M_PENDING_EARLY
	/* It goes on in another hold. */
	:: d_step { w < WORDS && !merging && merged[from] -> rest() }; goto idle
#endif
	:: d_step { w == WORDS && !merging -> pending[tbl] = NONE }; break
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
