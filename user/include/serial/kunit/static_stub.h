/* SPDX-License-Identifier: GPL-2.0-only */
/* There is no KUnit here, but what chm.c lets its tests decide is the fuzzer's. */
#ifndef USER_SERIAL_STATIC_STUB_H
#define USER_SERIAL_STATIC_STUB_H

#define KUNIT_STATIC_STUB_REDIRECT(...)	((void)0)

#endif
