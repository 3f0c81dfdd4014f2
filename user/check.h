/* SPDX-License-Identifier: GPL-2.0-only */
/* For the programs of this directory: the first thing that is wrong ends them. */
#ifndef USER_CHECK_H
#define USER_CHECK_H

#include <stdio.h>
#include <stdlib.h>

#define check(cond) do {						\
	if (!(cond)) {							\
		fprintf(stderr, "%s:%d: %s: not so: %s\n", __FILE__,	\
			__LINE__, __func__, #cond);			\
		abort();						\
	}								\
} while (0)

#endif
