/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the program of one thread decides, in serial.c: when the worker runs, grace
 * periods end, time passes, and memory is short.  The same decisions lead to the same
 * run.
 */
#ifndef USER_SERIAL_H
#define USER_SERIAL_H

#include <linux/types.h>

#define SERIAL_READERS	4

struct serial {
	u64		random;		/* what get_random_u64() and turns come from */
	u8		turns;		/* of 256: how often work is done in between */
	bool		lazy;		/* work is not done in short waits */

	unsigned int	spared;		/* allocations that succeed before others fail */
	unsigned int	failing;	/* allocations that then fail */
	size_t		limit;		/* bytes that may be allocated */

	size_t		bytes;		/* allocated */
	unsigned long	blocks;
	unsigned long	failed;		/* allocations */
	u64		now;		/* ns */

	/* Readers elsewhere: the grace period at which each began, + 1; 0: none */
	unsigned long	readers[SERIAL_READERS];
	/* Who waits for a grace period wants them to end. */
	void		(*end_readers)(void);
};

extern struct serial serial;

void serial_read(unsigned int i);	/* reader @i begins */
bool serial_work(void);			/* one that is due; false: there is none */
bool serial_grace(void);		/* begin one, or end it; false: there are readers */
bool serial_settle(u64 ns);	/* until there is nothing to do; false: it is too late */

#endif
