// SPDX-License-Identifier: GPL-2.0-only
/*
 * chm_flows - sample user of chm: packets and bytes of each flow
 *
 * A flow is what has the same addresses, ports and protocol.  A netfilter hook
 * counts each IP packet that arrives in the value of its flow, in softirq
 * context, where it lies: the map is of class CHM_CELL, so nothing is lost when
 * it grows meanwhile.
 *
 *	# cd /sys/kernel/debug/chm_flows
 *	# cat flows
 *	# echo 1 > expire	(else done every EXPIRE_SECONDS)
 *	# cat totals
 *
 * No packet goes uncounted:
 *
 *	total = live + expired + missed
 *
 * Worth a look: writers of chm sleep, so the packets of new flows are handed
 * over to a work item (hand_over()); what is expired is counted when nobody
 * updates it any more (flow_drop()); nothing is decided on a cell but by
 * chm_cell_read() (flow_idle()); what a flood of flows may cost (MAX_FLOWS,
 * QUEUE_LENGTH); in which order all of it ends (flows_exit()).
 */
#include <linux/debugfs.h>
#include <linux/kfifo.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <linux/rcupdate.h>
#include <linux/seq_file.h>
#include <linux/skbuff.h>
#include <linux/spinlock.h>
#include <linux/wait_bit.h>
#include <linux/workqueue.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/net_namespace.h>

#include "chm.h"
#include "chm_compat.h"

#define MAX_FLOWS	65536	/* 8 MB; some 25 MB while the map grows */
#define QUEUE_LENGTH	4096	/* packets, a power of two */
#define EXPIRE_SECONDS	60

/* === The map ============================================================= */

/* No padding without a name: chm compares and hashes keys as bytes. */
struct flow_key {
	struct in6_addr	src, dst;	/* IPv4: ::ffff:a.b.c.d */
	__be16		sport, dport;	/* 0: none, or not known */
	u8		protocol;
	u8		version;	/* of IP */
	u16		zero;
};

/* The value: longs that are only added to, so growth can add them up. */
struct flow {
	atomic_long_t	packets;
	atomic_long_t	bytes;
	atomic_long_t	seen;		/* packets when last looked at */
};

enum flow_word { FLOW_PACKETS, FLOW_BYTES, FLOW_SEEN };

static struct flow expired;
static struct flow missed;		/* no room in the queue or the map */
static atomic_long_t leaving;		/* removed, not in @expired yet */

static void flow_add(struct flow *to, long packets, long bytes)
{
	atomic_long_add(packets, &to->packets);
	atomic_long_add(bytes, &to->bytes);
}

static void flow_add_all(struct flow *to, const struct flow *from)
{
	flow_add(to, atomic_long_read(&from->packets),
		 atomic_long_read(&from->bytes));
}

/*
 * chm calls this after a grace period, when no packet finds the flow any more:
 * these counts are final.  chm_take() returns the same, but waits for a grace
 * period for each flow; here many share one.
 */
static void flow_drop(void *key, void *value)
{
	flow_add_all(&expired, value);
	/* Ordered: who sees 0 sees all of @expired. */
	if (atomic_long_dec_and_test(&leaving))
		wake_up_var(&leaving);
}

DEFINE_CHM_TYPE(flow_map, struct flow_key, struct flow, .class = CHM_CELL,
		.max_entries = MAX_FLOWS, .drop = flow_drop);

static struct flow_map flows;
static struct dentry *flows_dir;

/* === New flows =========================================================== */

struct arrival {
	struct flow_key	key;
	u32		bytes;
};

static DECLARE_KFIFO(arrivals, struct arrival, QUEUE_LENGTH);
static DEFINE_SPINLOCK(arrivals_lock);

/* The flow may be there by now: others of its packets were in the queue, too. */
static void flow_begin(const struct arrival *a)
{
	if (flow_map_cell_upsert_add(&flows, &a->key, FLOW_PACKETS, 1,
				     GFP_KERNEL) < 0) {
		flow_add(&missed, 1, a->bytes);
		return;
	}
	/* It is there, unless it was expired already: then it begins again. */
	if (flow_map_cell_upsert_add(&flows, &a->key, FLOW_BYTES, a->bytes,
				     GFP_KERNEL) < 0)
		flow_add(&missed, 0, a->bytes);
}

static unsigned int count_arrivals(void)
{
	unsigned int n;

	spin_lock_irq(&arrivals_lock);
	n = kfifo_len(&arrivals);
	spin_unlock_irq(&arrivals_lock);
	return n;
}

/*
 * What comes while this runs has queued it once more: so flush_work() waits for
 * what is in the queue, and not for the end of a flood.
 */
static void begin_flows(struct work_struct *unused)
{
	unsigned int n = count_arrivals();
	struct arrival a;

	while (n-- &&
	       kfifo_out_spinlocked(&arrivals, &a, 1, &arrivals_lock)) {
		flow_begin(&a);
		cond_resched();
	}
}

static DECLARE_WORK(begin_work, begin_flows);

/*
 * The queue bridges the time for which the work item waits: to run, and for a
 * grace period when the map grows.  It does not fill up for a full map.
 */
static void hand_over(const struct arrival *a)
{
	if (flow_map_count(&flows) < MAX_FLOWS &&
	    kfifo_in_spinlocked(&arrivals, a, 1, &arrivals_lock))
		queue_work(system_dfl_wq, &begin_work);
	else
		flow_add(&missed, 1, a->bytes);
}

/* === Packets ============================================================= */

/* Both return where the header above IP begins; 0: nowhere, or in fragments. */

static unsigned int parse_ipv4(const struct sk_buff *skb, struct flow_key *key)
{
	const struct iphdr *ip = ip_hdr(skb);

	*key = (struct flow_key){ .version = 4, .protocol = ip->protocol };
	ipv6_addr_set_v4mapped(ip->saddr, &key->src);
	ipv6_addr_set_v4mapped(ip->daddr, &key->dst);
	return ip_is_fragment(ip) ? 0 : skb_network_offset(skb) + ip_hdrlen(skb);
}

static unsigned int parse_ipv6(const struct sk_buff *skb, struct flow_key *key)
{
	const struct ipv6hdr *ip = ipv6_hdr(skb);
	unsigned int offset = 0;
	unsigned short fragment;
	int flags = 0, protocol;

	/* Skips extension headers; negative if they are cut off. */
	protocol = ipv6_find_hdr(skb, &offset, -1, &fragment, &flags);
	*key = (struct flow_key){
		.src = ip->saddr, .dst = ip->daddr, .version = 6,
		.protocol = protocol < 0 ? ip->nexthdr : protocol,
	};
	return protocol < 0 || (flags & IP6_FH_F_FRAG) ? 0 : offset;
}

/*
 * Only the first fragment of a datagram has the ports: all of them are counted
 * without, together.
 */
static void parse_packet(const struct sk_buff *skb, u8 family,
			 struct flow_key *key)
{
	__be16 buf[2], *ports = NULL;
	unsigned int offset;
	int where;

	offset = family == NFPROTO_IPV4 ? parse_ipv4(skb, key) :
					  parse_ipv6(skb, key);
	where = proto_ports_offset(key->protocol);	/* IPsec: SPI */
	if (offset && where >= 0)
		ports = skb_header_pointer(skb, offset + where, sizeof(buf),
					   buf);
	if (ports) {
		key->sport = ports[0];
		key->dport = ports[1];
	}
}

/* Netfilter holds rcu_read_lock() around its hooks; else we would have to. */
static unsigned int flows_hook(void *priv, struct sk_buff *skb,
			       const struct nf_hook_state *state)
{
	struct arrival a = { .bytes = skb->len };
	struct flow *flow;

	parse_packet(skb, state->pf, &a.key);
	flow = flow_map_cell_lookup(&flows, &a.key);
	if (flow)
		flow_add(flow, 1, a.bytes);
	else
		hand_over(&a);
	return NF_ACCEPT;
}

static const struct nf_hook_ops flows_hook_ops = {
	.hook		= flows_hook,
	.pf		= NFPROTO_INET,		/* both IPv4 and IPv6 */
	.hooknum	= NF_INET_PRE_ROUTING,
	.priority	= NF_IP_PRI_FIRST,	/* before fragments are joined */
};

/* === Idle flows ========================================================== */

/* Only its holder removes flows and writes @seen. */
static DEFINE_MUTEX(expire_lock);

/* Has it had no packet since this was asked last? */
static bool flow_idle(const struct flow_key *key)
{
	struct flow flow;
	long news;

	if (!flow_map_cell_read(&flows, key, &flow))
		return false;
	news = atomic_long_read(&flow.packets) - atomic_long_read(&flow.seen);
	flow_map_cell_add(&flows, key, FLOW_SEEN, news);
	return !news;
}

static void expire_idle(void)
{
	unsigned long removed = 0;
	struct flow_key key;
	struct chm_iter it;

	mutex_lock(&expire_lock);
	flow_map_iter_init(&it, &flows);
	while (flow_map_iter_next(&it, &key, NULL)) {
		if (flow_idle(&key)) {
			/* A packet that comes now is counted by flow_drop(). */
			atomic_long_inc(&leaving);
			flow_map_remove(&flows, &key);
			removed++;
		}
		cond_resched();
	}
	flow_map_iter_exit(&it);
	/* A map never shrinks by itself.  If there is no memory: next time. */
	if (removed > flow_map_count(&flows))
		flow_map_shrink(&flows, GFP_KERNEL);
	mutex_unlock(&expire_lock);
}

static void expire_flows(struct work_struct *work)
{
	expire_idle();
	queue_delayed_work(system_dfl_wq, to_delayed_work(work),
			   EXPIRE_SECONDS * HZ);
}

static DECLARE_DELAYED_WORK(expire_work, expire_flows);

static int expire_set(void *data, u64 unused)
{
	expire_idle();
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(expire_fops, NULL, expire_set, "%llu\n");

/* === DebugFS: flows, totals ============================================== */

static void show_counts(struct seq_file *m, const struct flow *flow)
{
	seq_printf(m, ": packets %lu bytes %lu\n",
		   atomic_long_read(&flow->packets),
		   atomic_long_read(&flow->bytes));
}

static void show_flow(struct seq_file *m, const struct flow_key *key,
		      const struct flow *flow)
{
	u16 sport = ntohs(key->sport), dport = ntohs(key->dport);

	if (key->version == 4)
		seq_printf(m, "%u %pI4:%u %pI4:%u", key->protocol,
			   &key->src.s6_addr32[3], sport,
			   &key->dst.s6_addr32[3], dport);
	else
		seq_printf(m, "%u [%pI6c]:%u [%pI6c]:%u", key->protocol,
			   &key->src, sport, &key->dst, dport);
	show_counts(m, flow);
}

/* Add all flows to @live, and list them if there is @m. */
static void walk_flows(struct seq_file *m, struct flow *live)
{
	struct flow_key key;
	struct chm_iter it;
	struct flow flow;

	flow_map_iter_init(&it, &flows);
	while (flow_map_iter_next(&it, &key, NULL)) {
		cond_resched();
		if (!flow_map_cell_read(&flows, &key, &flow))
			continue;	/* expired just now */
		flow_add_all(live, &flow);
		if (m)
			show_flow(m, &key, &flow);
	}
	flow_map_iter_exit(&it);
}

static int flows_show(struct seq_file *m, void *unused)
{
	struct flow live = { };

	walk_flows(m, &live);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(flows);

static void show_total(struct seq_file *m, const char *name,
		       const struct flow *flow, struct flow *total)
{
	seq_puts(m, name);
	show_counts(m, flow);
	flow_add_all(total, flow);
}

/* Has every packet that arrived before it was opened, and perhaps later ones. */
static int totals_show(struct seq_file *m, void *unused)
{
	struct flow live = { }, total = { }, nothing = { };
	int err;

	flush_work(&begin_work);
	/* Until all flows are either live or expired, and stay that. */
	err = mutex_lock_killable(&expire_lock);
	if (err)
		return err;
	err = wait_var_event_killable(&leaving,
				      !atomic_long_read_acquire(&leaving));
	if (!err) {
		walk_flows(NULL, &live);
		show_total(m, "live", &live, &total);
		show_total(m, "expired", &expired, &total);
		show_total(m, "missed", &missed, &total);
		show_total(m, "total", &total, &nothing);
	}
	mutex_unlock(&expire_lock);
	return err;
}
DEFINE_SHOW_ATTRIBUTE(totals);

/* === Module ============================================================== */

static int __init flows_init(void)
{
	int err;

	INIT_KFIFO(arrivals);
	/* With a name, the map shows up in /sys/kernel/debug/chm/. */
	err = flow_map_init(&flows, KBUILD_MODNAME);
	if (err)
		return err;
	/* For a sample, the initial network namespace will do. */
	err = nf_register_net_hook(&init_net, &flows_hook_ops);
	if (err) {
		flow_map_destroy(&flows);
		return err;
	}
	queue_delayed_work(system_dfl_wq, &expire_work,
			   EXPIRE_SECONDS * HZ);
	flows_dir = debugfs_create_dir(KBUILD_MODNAME, NULL);
	debugfs_create_file("flows", 0400, flows_dir, NULL, &flows_fops);
	debugfs_create_file("totals", 0400, flows_dir, NULL, &totals_fops);
	debugfs_create_file("expire", 0200, flows_dir, NULL, &expire_fops);
	return 0;
}

/* Each step ends what the one before has left: users, packets, work, the map. */
static void __exit flows_exit(void)
{
	debugfs_remove(flows_dir);
	nf_unregister_net_hook(&init_net, &flows_hook_ops);
	synchronize_rcu();	/* for packets that are in the hook already */
	cancel_work_sync(&begin_work);
	cancel_delayed_work_sync(&expire_work);
	flow_map_destroy(&flows);
}

module_init(flows_init);
module_exit(flows_exit);

MODULE_DESCRIPTION("Packets and bytes of each flow, a sample user of chm");
MODULE_LICENSE("GPL");
