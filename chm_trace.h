/* SPDX-License-Identifier: GPL-2.0-only */
/* Tracepoints of chm, on slow paths only */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM chm

#if !defined(CHM_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define CHM_TRACE_H

#include <linux/tracepoint.h>

struct chm;

/* A migration has ended, its table was published: growth, shrinking or rehash. */
TRACE_EVENT(chm_migrate,
	TP_PROTO(const struct chm *map, u32 from, u32 to,
		 unsigned long entries, u64 ns),
	TP_ARGS(map, from, to, entries, ns),
	TP_STRUCT__entry(
		__field(const void *, map)
		__field(u32, from)
		__field(u32, to)
		__field(unsigned long, entries)
		__field(u64, ns)
	),
	TP_fast_assign(
		__entry->map = map;
		__entry->from = from;
		__entry->to = to;
		__entry->entries = entries;
		__entry->ns = ns;
	),
	TP_printk("map=%p chunks=%u->%u entries=%lu ns=%llu",
		  __entry->map, __entry->from, __entry->to,
		  __entry->entries, __entry->ns)
);

/* A writer is about to wait for a grace period; the map is not locked. */
TRACE_EVENT(chm_wait,
	TP_PROTO(const struct chm *map, unsigned long retired_bytes),
	TP_ARGS(map, retired_bytes),
	TP_STRUCT__entry(
		__field(const void *, map)
		__field(unsigned long, retired_bytes)
	),
	TP_fast_assign(
		__entry->map = map;
		__entry->retired_bytes = retired_bytes;
	),
	TP_printk("map=%p retired_bytes=%lu",
		  __entry->map, __entry->retired_bytes)
);

#endif /* CHM_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE chm_trace
#include <trace/define_trace.h>
