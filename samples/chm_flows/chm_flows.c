// SPDX-License-Identifier: GPL-2.0-only
/*
 * chm_flows - sample user of chm: packets and bytes of each flow
 *
 * A flow is all packets with the same addresses, ports and protocol.  A
 * netfilter hook counts each IP packet that arrives.  It does so in softirq
 * context, and adds to the flow's value in place.  The map is of class
 * CHM_CELL, so nothing is lost when it grows meanwhile.
 *
 *	# cd /sys/kernel/debug/chm_flows
 *	# cat flows
 *	# echo 1 > expire	(otherwise done every expire_seconds)
 *	# cat totals
 *
 * No packet goes uncounted:
 *
 *	total = live + expired + missed
 *
 * Worth a look:
 *
 * - flow_begin(): the first packet of a flow inserts it, where it arrives
 * - expire_some(): a timer removes idle flows, a few at a time, and keeps its
 *   place in a struct chm_iter
 * - flow_drop(): an expired flow is counted when nobody updates it any more
 * - flow_idle(): only chm_cell_read() is used to decide anything on a cell
 * - MAX_FLOWS: what a flood of flows may cost
 * - flows_exit(): the order in which all of it ends
 */
#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <linux/rcupdate.h>
#include <linux/seq_file.h>
#include <linux/skbuff.h>
#include <linux/timer.h>
#include <linux/wait_bit.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/net_namespace.h>

#include "chm.h"
#include "chm_compat.h"

#define MAX_FLOWS	65536	/* 8 MB; some 25 MB while the map grows */
#define EXPIRE_BATCH	256	/* flows in one run of the timer */

static unsigned long expire_seconds = 60;
module_param(expire_seconds, ulong, 0644);
MODULE_PARM_DESC(expire_seconds, "Time between two passes over all flows");

/* === The map ============================================================= */

/* chm compares and hashes keys as bytes, so all padding has a name. */
struct flow_key {
	struct in6_addr	src, dst;	/* IPv4: ::ffff:a.b.c.d */
	__be16		sport, dport;	/* 0: none, or unknown */
	u8		protocol;
	u8		version;	/* of IP */
	u16		zero;
};

/*
 * The value.  It consists of longs that are only added to, so growth can add
 * them up.
 */
struct flow {
	atomic_long_t	packets;
	atomic_long_t	bytes;
	atomic_long_t	seen;		/* packets when last looked at */
};

enum flow_word { FLOW_PACKETS, FLOW_BYTES, FLOW_SEEN };

static struct flow expired;
static struct flow missed;		/* no room for the flow */
static atomic_long_t leaving;		/* removed, but not in @expired yet */

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
 * chm calls this after a grace period, when no packet finds the flow any more.
 * So these counts are final.  chm_take() returns the same counts, but has to
 * wait for that grace period, which a timer can't do.
 */
static void flow_drop(void *ctx, void *key, void *value)
{
	flow_add_all(&expired, value);
	/* Ordered: a reader that sees 0 sees all of @expired. */
	if (atomic_long_dec_and_test(&leaving))
		wake_up_var(&leaving);
}

DEFINE_CHM_TYPE(flow_map, struct flow_key, struct flow, .class = CHM_CELL,
		.max_entries = MAX_FLOWS, .drop = flow_drop);

static struct flow_map flows;
static struct dentry *flows_dir;

/* === Packets ============================================================= */

/*
 * Both return the offset of the header above IP; 0: there is none, or it is in
 * fragments.
 */

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
 * Only the first fragment of a datagram has the ports.  So all fragments are
 * counted together, without ports.
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

/*
 * Another CPU may have inserted the flow by now; then this adds to it.  If the
 * flow expires between the two calls, the second call begins it again.
 */
static void flow_begin(const struct flow_key *key, unsigned int bytes)
{
	if (flow_map_cell_upsert_add(&flows, key, FLOW_PACKETS, 1,
				     GFP_ATOMIC) < 0) {
		flow_add(&missed, 1, bytes);
		return;
	}
	if (flow_map_cell_upsert_add(&flows, key, FLOW_BYTES, bytes,
				     GFP_ATOMIC) < 0)
		flow_add(&missed, 0, bytes);
}

/*
 * Netfilter holds rcu_read_lock() around its hooks.  If it did not, we would
 * have to.
 */
static unsigned int flows_hook(void *priv, struct sk_buff *skb,
			       const struct nf_hook_state *state)
{
	struct flow_key key;
	struct flow *flow;

	parse_packet(skb, state->pf, &key);
	flow = flow_map_cell_lookup(&flows, &key);
	if (flow)
		flow_add(flow, 1, skb->len);
	else
		flow_begin(&key, skb->len);
	return NF_ACCEPT;
}

static const struct nf_hook_ops flows_hook_ops = {
	.hook		= flows_hook,
	.pf		= NFPROTO_INET,		/* both IPv4 and IPv6 */
	.hooknum	= NF_INET_PRE_ROUTING,
	.priority	= NF_IP_PRI_FIRST,	/* before fragments are joined */
};

/* === Idle flows ========================================================== */

static void expire_in_time(struct timer_list *unused);

/* Removes flows and writes their @seen.  While it is pending, nobody else does. */
static DEFINE_TIMER(expire_timer, expire_in_time);
static DEFINE_MUTEX(expire_lock);	/* its holder stops the timer */
static struct chm_iter expire_walk;	/* the timer's position */
static unsigned long expire_at;		/* when the timer goes on, in jiffies */

/* Has the flow had no packet since this was last asked? */
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

/* Go on with @it, by some flows.  Return false if that was the last of them. */
static bool expire_some(struct chm_iter *it)
{
	struct flow_key key;
	unsigned int n;

	for (n = 0; n < EXPIRE_BATCH; n++) {
		if (!flow_map_iter_next(it, &key, NULL))
			return false;
		if (flow_idle(&key)) {
			/* flow_drop() counts a packet that comes now. */
			atomic_long_inc(&leaving);
			flow_map_remove(&flows, &key);
		}
	}
	return true;
}

/* Plan the next pass: it begins from the first flow, in a while. */
static void expire_plan(void)
{
	flow_map_iter_init(&expire_walk, &flows);
	expire_at = jiffies + max(expire_seconds * HZ, 1UL);
}

/* A struct chm_iter holds nothing, so the flows may change between two runs. */
static void expire_in_time(struct timer_list *unused)
{
	if (expire_some(&expire_walk))
		expire_at = jiffies + 1;
	else
		expire_plan();
	mod_timer(&expire_timer, expire_at);
}

static int expire_pause(void)
{
	int err = mutex_lock_killable(&expire_lock);

	if (!err)
		timer_delete_sync(&expire_timer);
	return err;
}

static void expire_resume(void)
{
	mod_timer(&expire_timer, expire_at);
	mutex_unlock(&expire_lock);
}

static int expire_set(void *data, u64 unused)
{
	struct chm_iter it;
	int err = expire_pause();

	if (err)
		return err;
	flow_map_iter_init(&it, &flows);
	while (expire_some(&it))
		cond_resched();
	expire_plan();
	expire_resume();
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

/* Add all flows to @live, and list them if @m is not NULL. */
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

/*
 * Counts every packet that arrived before the file was opened, and perhaps
 * later ones.
 */
static int totals_show(struct seq_file *m, void *unused)
{
	struct flow live = { }, total = { }, nothing = { };
	int err;

	/* Wait until all flows are either live or expired, and keep them so. */
	err = expire_pause();
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
	expire_resume();
	return err;
}
DEFINE_SHOW_ATTRIBUTE(totals);

/* === Module ============================================================== */

static int __init flows_init(void)
{
	int err;

	/* With a name, the map shows up in /sys/kernel/debug/chm/. */
	err = flow_map_init(&flows, NULL, KBUILD_MODNAME);
	if (err)
		return err;
	/* For a sample, the initial network namespace is enough. */
	err = nf_register_net_hook(&init_net, &flows_hook_ops);
	if (err) {
		flow_map_destroy(&flows);
		return err;
	}
	expire_plan();
	mod_timer(&expire_timer, expire_at);
	flows_dir = debugfs_create_dir(KBUILD_MODNAME, NULL);
	debugfs_create_file("flows", 0400, flows_dir, NULL, &flows_fops);
	debugfs_create_file("totals", 0400, flows_dir, NULL, &totals_fops);
	debugfs_create_file("expire", 0200, flows_dir, NULL, &expire_fops);
	return 0;
}

/*
 * Each step stops what the previous one has left: users, packets, the timer,
 * the map.
 */
static void __exit flows_exit(void)
{
	debugfs_remove(flows_dir);
	nf_unregister_net_hook(&init_net, &flows_hook_ops);
	synchronize_rcu();	/* for packets that are already in the hook */
	timer_delete_sync(&expire_timer);
	flow_map_destroy(&flows);
}

module_init(flows_init);
module_exit(flows_exit);

MODULE_DESCRIPTION("Packets and bytes of each flow, a sample user of chm");
MODULE_LICENSE("GPL");
