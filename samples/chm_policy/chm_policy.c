// SPDX-License-Identifier: GPL-2.0-only
/*
 * chm_policy - sample user of chm: one lookup for every packet that arrives
 *
 * A person writes rules into debugfs, in process context:
 *
 *	# cd /sys/kernel/debug/chm_policy
 *	# echo 'add tcp 8080 drop' > control
 *	# echo 'add udp 53 count 7' > control
 *	# cat rules
 *
 * A netfilter hook looks up the protocol and destination port of each packet
 * for this host.  It runs in softirq context and waits for nothing.
 *
 * Worth a look:
 *
 * - struct policy_key: the padding of the key has a name
 * - struct policy: counters are behind a pointer
 * - policy_drop(): who frees them
 * - policy_hook(), rules_show(): what rcu_read_lock() protects
 * - policy_exit(): the order in which all of it ends
 *
 * This module needs no lock of its own.
 */
#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/netfilter.h>
#include <linux/rcupdate.h>
#include <linux/seq_file.h>
#include <linux/skbuff.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/net_namespace.h>

#include "chm.h"
#include "chm_compat.h"

/* === The map ============================================================= */

/*
 * chm compares and hashes keys as bytes, so every byte must be determined.
 * "= { .port = port }" clears all named members but not padding, so name the
 * padding.
 */
struct policy_key {
	__be16	port;		/* as in the packet: big-endian */
	u8	protocol;
	u8	zero;
};

enum policy_action {
	POLICY_ACCEPT,
	POLICY_DROP,
	POLICY_COUNT,		/* accept, and list with an id */
};

static const char * const action_names[] = {
	[POLICY_ACCEPT]	= "accept",
	[POLICY_DROP]	= "drop",
	[POLICY_COUNT]	= "count",
};

struct policy_counters {
	atomic64_t	packets;
	atomic64_t	bytes;
};

/*
 * The value.  It is frozen (CHM_FROZEN, the default).  While the map grows, the
 * value is in both the old table and the new one for a while, and readers may
 * find either.  A counter in here would exist twice, and what the old copy
 * gained would be lost.  The pointer is the same in both tables, and what is
 * behind it may change at any time.
 */
struct policy {
	u32			action;		/* enum policy_action */
	u32			id;
	struct policy_counters	*counters;
};

/*
 * chm calls this once for each pair that was inserted, however it left the map,
 * and after a grace period.  So no packet uses the counters any more, and
 * kfree() is enough.
 */
static void policy_drop(void *ctx, void *key, void *value)
{
	struct policy *policy = value;

	kfree(policy->counters);
}

DEFINE_CHM_TYPE(policy_map, struct policy_key, struct policy,
		.drop = policy_drop);

static struct policy_map policies;
static struct dentry *policy_dir;

/* === Packets ============================================================= */

/*
 * Return the protocol above IP and store where its header begins, or return a
 * negative errno.  Only the first fragment of a datagram has that header.  (The
 * others are useless without the first and can pass.)
 */
static int find_transport(const struct sk_buff *skb, u8 family,
			  unsigned int *offset)
{
	unsigned short fragment;
	int protocol;

	if (family == NFPROTO_IPV4) {
		if (ip_hdr(skb)->frag_off & htons(IP_OFFSET))
			return -ENOENT;
		*offset = skb_network_offset(skb) + ip_hdrlen(skb);
		return ip_hdr(skb)->protocol;
	}
	*offset = 0;
	protocol = ipv6_find_hdr(skb, offset, -1, &fragment, NULL);
	return protocol >= 0 && fragment ? -ENOENT : protocol;
}

static bool packet_key(const struct sk_buff *skb, u8 family,
		       struct policy_key *key)
{
	__be16 buf[2], *ports;
	unsigned int offset;
	int protocol = find_transport(skb, family, &offset);

	if (protocol != IPPROTO_TCP && protocol != IPPROTO_UDP)
		return false;
	/* Source and destination; may straddle pages, or be cut off. */
	ports = skb_header_pointer(skb, offset, sizeof(buf), buf);
	if (!ports)
		return false;
	*key = (struct policy_key){ .port = ports[1], .protocol = protocol };
	return true;
}

/*
 * Netfilter holds rcu_read_lock() around its hooks.  If it did not, we would
 * have to.
 */
static unsigned int policy_hook(void *priv, struct sk_buff *skb,
				const struct nf_hook_state *state)
{
	const struct policy *policy;
	struct policy_key key;

	if (!packet_key(skb, state->pf, &key))
		return NF_ACCEPT;	/* not our business */
	policy = policy_map_lookup(&policies, &key);
	if (!policy)
		return NF_ACCEPT;
	atomic64_inc(&policy->counters->packets);
	atomic64_add(skb->len, &policy->counters->bytes);
	return policy->action == POLICY_DROP ? NF_DROP : NF_ACCEPT;
}

static const struct nf_hook_ops policy_hook_ops = {
	.hook		= policy_hook,
	.pf		= NFPROTO_INET,		/* both IPv4 and IPv6 */
	.hooknum	= NF_INET_LOCAL_IN,
};

/* === DebugFS: control ==================================================== */

static int control_show(struct seq_file *m, void *unused)
{
	seq_puts(m,
		 "add tcp|udp PORT accept|drop   judge packets to this port\n"
		 "add tcp|udp PORT count ID      accept them, listed with ID\n"
		 "del tcp|udp PORT               end that\n"
		 "clear                          end it all\n");
	return 0;
}

static int parse_key(char **argv, struct policy_key *key)
{
	bool tcp = !strcmp(argv[0], "tcp");
	u16 port;
	int err;

	if (!tcp && strcmp(argv[0], "udp"))
		return -EINVAL;
	err = kstrtou16(argv[1], 10, &port);
	if (err)
		return err;
	*key = (struct policy_key){
		.port = htons(port),
		.protocol = tcp ? IPPROTO_TCP : IPPROTO_UDP,
	};
	return 0;
}

static int parse_action(int argc, char **argv, struct policy *policy)
{
	int action = sysfs_match_string(action_names, argv[0]);

	if (action < 0)
		return action;
	policy->action = action;
	if (action != POLICY_COUNT)
		return argc == 1 ? 0 : -EINVAL;
	return argc == 2 ? kstrtou32(argv[1], 10, &policy->id) : -EINVAL;
}

static int policy_add(int argc, char **argv)
{
	struct policy policy = { };
	struct policy_key key;
	int err;

	err = parse_key(argv, &key) ?:
	      parse_action(argc - 2, argv + 2, &policy);
	if (err)
		return err;
	policy.counters = kzalloc_obj(*policy.counters, GFP_KERNEL);
	if (!policy.counters)
		return -ENOMEM;
	/* A pair that was refused is still ours: drop() will not run for it. */
	err = policy_map_insert(&policies, &key, &policy, GFP_KERNEL);
	if (err)
		kfree(policy.counters);
	return err;
}

static int policy_del(char **argv)
{
	struct policy_key key;
	int err = parse_key(argv, &key);

	return err ?: policy_map_remove(&policies, &key);
}

static int run_command(int argc, char **argv)
{
	if (argc >= 4 && !strcmp(argv[0], "add"))
		return policy_add(argc - 1, argv + 1);
	if (argc == 3 && !strcmp(argv[0], "del"))
		return policy_del(argv + 1);
	if (argc != 1 || strcmp(argv[0], "clear"))
		return -EINVAL;
	policy_map_clear(&policies);
	return 0;
}

static ssize_t control_write(struct file *file, const char __user *from,
			     size_t count, loff_t *pos)
{
	char line[64] = "", **argv;
	int argc, err;

	if (count >= sizeof(line))
		return -E2BIG;
	if (copy_from_user(line, from, count))
		return -EFAULT;
	if (strlen(line) != count)
		return -EINVAL;
	argv = argv_split(GFP_KERNEL, line, &argc);
	if (!argv)
		return -ENOMEM;
	err = run_command(argc, argv);
	argv_free(argv);
	return err ?: count;
}

static int control_open(struct inode *inode, struct file *file)
{
	return single_open(file, control_show, NULL);
}

static const struct file_operations control_fops = {
	.owner		= THIS_MODULE,
	.open		= control_open,
	.read		= seq_read,
	.write		= control_write,
	.llseek		= seq_lseek,
	.release	= single_release,
};

/* === DebugFS: rules ====================================================== */

static void show_rule(struct seq_file *m, const struct policy_key *key,
		      const struct policy *policy, u64 packets, u64 bytes)
{
	seq_printf(m, "%s %u %s", key->protocol == IPPROTO_TCP ? "tcp" : "udp",
		   ntohs(key->port), action_names[policy->action]);
	if (policy->action == POLICY_COUNT)
		seq_printf(m, " %u", policy->id);
	seq_printf(m, ": packets %llu bytes %llu\n", packets, bytes);
}

/*
 * A walk visits each rule that stays exactly once, even if the map grows
 * meanwhile.  It copies the pair, but not what the pair points to.  The
 * counters of a rule that is deleted at this moment exist until
 * rcu_read_unlock().
 */
static int rules_show(struct seq_file *m, void *unused)
{
	struct policy_key key;
	struct policy policy;
	struct chm_iter it;
	u64 packets, bytes;

	policy_map_iter_init(&it, &policies);
	rcu_read_lock();
	while (policy_map_iter_next(&it, &key, &policy)) {
		packets = atomic64_read(&policy.counters->packets);
		bytes = atomic64_read(&policy.counters->bytes);
		rcu_read_unlock();
		show_rule(m, &key, &policy, packets, bytes);
		cond_resched();
		rcu_read_lock();
	}
	rcu_read_unlock();
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(rules);

/* === Module ============================================================== */

static int __init policy_init(void)
{
	int err;

	/* With a name, the map shows up in /sys/kernel/debug/chm/. */
	err = policy_map_init(&policies, NULL, KBUILD_MODNAME);
	if (err)
		return err;
	/* For a sample, the initial network namespace is enough. */
	err = nf_register_net_hook(&init_net, &policy_hook_ops);
	if (err) {
		policy_map_destroy(&policies);
		return err;
	}
	policy_dir = debugfs_create_dir(KBUILD_MODNAME, NULL);
	debugfs_create_file("control", 0600, policy_dir, NULL, &control_fops);
	debugfs_create_file("rules", 0400, policy_dir, NULL, &rules_fops);
	return 0;
}

/* Stop writers first, then readers, then the map. */
static void __exit policy_exit(void)
{
	debugfs_remove(policy_dir);
	nf_unregister_net_hook(&init_net, &policy_hook_ops);
	synchronize_rcu();	/* for packets that are already in the hook */
	policy_map_destroy(&policies);
}

module_init(policy_init);
module_exit(policy_exit);

MODULE_DESCRIPTION("Packet policy by protocol and port, a sample user of chm");
MODULE_LICENSE("GPL");
