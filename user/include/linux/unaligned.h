/* SPDX-License-Identifier: GPL-2.0-only */
/* For the kernel's siphash.c */
#ifndef USER_LINUX_UNALIGNED_H
#define USER_LINUX_UNALIGNED_H

#include <linux/kernel.h>

#define __get_unaligned_le(bits, p) ({					\
	u##bits __word;							\
									\
	memcpy(&__word, p, sizeof(__word));				\
	le##bits##toh(__word); })
#define get_unaligned_le16(p)	__get_unaligned_le(16, p)
#define get_unaligned_le32(p)	__get_unaligned_le(32, p)
#define get_unaligned_le64(p)	__get_unaligned_le(64, p)

#endif
