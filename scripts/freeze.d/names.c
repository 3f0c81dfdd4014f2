// SPDX-License-Identifier: GPL-2.0-only
/*
 * Each type that chm-freeze knows by its name, as value.in.x, which is how it
 * has to be rejected.
 */
#include <linux/completion.h>
#include <linux/device.h>
#include <linux/idr.h>
#include <linux/interrupt.h>
#include <linux/irq_work.h>
#include <linux/kfifo.h>
#include <linux/klist.h>
#include <linux/kref.h>
#include <linux/kthread.h>
#include <linux/list_bl.h>
#include <linux/list_lru.h>
#include <linux/llist.h>
#include <linux/local_lock.h>
#include <linux/lockref.h>
#include <linux/maple_tree.h>
#include <linux/percpu-refcount.h>
#include <linux/percpu-rwsem.h>
#include <linux/percpu_counter.h>
#include <linux/plist.h>
#include <linux/rculist_nulls.h>
#include <linux/rhashtable.h>
#include <linux/rtmutex.h>
#include <linux/semaphore.h>
#include <linux/seqlock.h>
#include <linux/srcu.h>
#include <linux/static_key.h>
#include <linux/swait.h>
#include <linux/timerqueue.h>
#include <linux/u64_stats_sync.h>
#include <linux/ww_mutex.h>
#include <linux/xarray.h>
#include <asm/local64.h>

#include "chm.h"

#define BAD(name, type)							\
	struct bad_##name {						\
		u32 id;							\
		struct {						\
			type x;						\
		} in;							\
	};								\
	DEFINE_CHM_TYPE(n_##name, u32, struct bad_##name)

BAD(atomic, atomic_t);
BAD(atomic64, atomic64_t);
BAD(atomic_long, atomic_long_t);
BAD(local, local_t);
BAD(local64, local64_t);
BAD(refcount, refcount_t);
BAD(kref, struct kref);
BAD(percpu_ref, struct percpu_ref);
BAD(lockref, struct lockref);
BAD(spinlock, spinlock_t);
BAD(spinlock_tag, struct spinlock);
BAD(raw_spinlock, raw_spinlock_t);
BAD(raw_spinlock_tag, struct raw_spinlock);
BAD(arch_spinlock, arch_spinlock_t);
BAD(rwlock, rwlock_t);
BAD(arch_rwlock, arch_rwlock_t);
BAD(local_lock, local_lock_t);
BAD(mutex, struct mutex);
BAD(rt_mutex, struct rt_mutex);
BAD(rt_mutex_base, struct rt_mutex_base);
BAD(ww_mutex, struct ww_mutex);
BAD(semaphore, struct semaphore);
BAD(rw_semaphore, struct rw_semaphore);
BAD(percpu_rwsem, struct percpu_rw_semaphore);
BAD(lock_class_key, struct lock_class_key);
BAD(lockdep_map, struct lockdep_map);
BAD(srcu, struct srcu_struct);
BAD(seqcount, seqcount_t);
BAD(seqcount_tag, struct seqcount);
BAD(seqcount_spinlock, seqcount_spinlock_t);
BAD(seqcount_mutex, seqcount_mutex_t);
BAD(seqcount_rwlock, seqcount_rwlock_t);
BAD(seqcount_raw, seqcount_raw_spinlock_t);
BAD(seqcount_latch, seqcount_latch_t);
BAD(seqlock, seqlock_t);
BAD(stats_sync, struct u64_stats_sync);
BAD(list_head, struct list_head);
BAD(hlist_head, struct hlist_head);
BAD(hlist_node, struct hlist_node);
BAD(nulls_head, struct hlist_nulls_head);
BAD(nulls_node, struct hlist_nulls_node);
BAD(bl_head, struct hlist_bl_head);
BAD(bl_node, struct hlist_bl_node);
BAD(rb_node, struct rb_node);
BAD(rb_root, struct rb_root);
BAD(rb_root_cached, struct rb_root_cached);
BAD(llist_head, struct llist_head);
BAD(llist_node, struct llist_node);
BAD(plist_head, struct plist_head);
BAD(plist_node, struct plist_node);
BAD(klist, struct klist);
BAD(klist_node, struct klist_node);
BAD(timerqueue_head, struct timerqueue_head);
BAD(timerqueue_node, struct timerqueue_node);
BAD(list_lru, struct list_lru);
BAD(rhash_head, struct rhash_head);
BAD(rhlist_head, struct rhlist_head);
BAD(notifier, struct notifier_block);
BAD(wait_head, struct wait_queue_head);
BAD(wait_entry, struct wait_queue_entry);
BAD(swait_head, struct swait_queue_head);
BAD(swait, struct swait_queue);
BAD(completion, struct completion);
BAD(rcuwait, struct rcuwait);
BAD(timer, struct timer_list);
BAD(hrtimer, struct hrtimer);
BAD(tasklet, struct tasklet_struct);
BAD(irq_work, struct irq_work);
BAD(work, struct work_struct);
BAD(delayed_work, struct delayed_work);
BAD(rcu_work, struct rcu_work);
BAD(kthread_work, struct kthread_work);
BAD(kthread_delayed, struct kthread_delayed_work);
BAD(rcu_head, struct callback_head);
BAD(kobject, struct kobject);
BAD(kset, struct kset);
BAD(device, struct device);
BAD(xarray, struct xarray);
BAD(idr, struct idr);
BAD(ida, struct ida);
BAD(maple_tree, struct maple_tree);
BAD(rhashtable, struct rhashtable);
BAD(rhltable, struct rhltable);
BAD(kfifo, struct __kfifo);
BAD(percpu_counter, struct percpu_counter);
BAD(static_key, struct static_key);
BAD(chm, struct chm);
