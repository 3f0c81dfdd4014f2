/* SPDX-License-Identifier: GPL-2.0-only */
/* Tracepoints are functions that do nothing. */
#ifndef USER_LINUX_TRACEPOINT_H
#define USER_LINUX_TRACEPOINT_H

#define TP_PROTO(...)		__VA_ARGS__
#define TRACE_EVENT(name, proto, args, fields, assign, print)		\
static inline void trace_##name(proto)					\
{									\
}

#endif
