/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef USER_LINUX_LIST_H
#define USER_LINUX_LIST_H

#include <linux/kernel.h>

#define LIST_HEAD_INIT(name)	{ &(name), &(name) }
#define LIST_HEAD(name)		struct list_head name = LIST_HEAD_INIT(name)

static inline void INIT_LIST_HEAD(struct list_head *list)
{
	*list = (struct list_head)LIST_HEAD_INIT(*list);
}

static inline bool list_empty(const struct list_head *list)
{
	return READ_ONCE(list->next) == list;
}

/* Behind @prev */
static inline void list_add(struct list_head *entry, struct list_head *prev)
{
	entry->next = prev->next;
	entry->prev = prev;
	prev->next->prev = entry;
	WRITE_ONCE(prev->next, entry);
}

static inline void list_add_tail(struct list_head *entry, struct list_head *list)
{
	list_add(entry, list->prev);
}

static inline void list_del(struct list_head *entry)
{
	entry->next->prev = entry->prev;
	WRITE_ONCE(entry->prev->next, entry->next);
}

static inline void list_del_init(struct list_head *entry)
{
	list_del(entry);
	INIT_LIST_HEAD(entry);
}

static inline void list_move(struct list_head *entry, struct list_head *list)
{
	list_del(entry);
	list_add(entry, list);
}

static inline void list_move_tail(struct list_head *entry, struct list_head *list)
{
	list_del(entry);
	list_add_tail(entry, list);
}

static inline void list_splice_tail_init(struct list_head *from, struct list_head *to)
{
	while (!list_empty(from))
		list_move_tail(from->next, to);
}

#define list_entry(entry, type, field)	container_of(entry, type, field)
#define list_first_entry(list, type, field)				\
	list_entry((list)->next, type, field)
#define list_first_entry_or_null(list, type, field)			\
	(list_empty(list) ? NULL : list_first_entry(list, type, field))
#define list_next_entry(pos, field)					\
	list_entry((pos)->field.next, typeof(*(pos)), field)

#define list_for_each_entry(pos, list, field)				\
	for (pos = list_first_entry(list, typeof(*pos), field);		\
	     &pos->field != (list);					\
	     pos = list_next_entry(pos, field))
#define list_for_each_entry_safe(pos, n, list, field)			\
	for (pos = list_first_entry(list, typeof(*pos), field),		\
	     n = list_next_entry(pos, field);				\
	     &pos->field != (list);					\
	     pos = n, n = list_next_entry(n, field))

#endif
