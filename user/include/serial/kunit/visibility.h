/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef USER_SERIAL_VISIBILITY_H
#define USER_SERIAL_VISIBILITY_H

#define VISIBLE_IF_KUNIT

#endif
