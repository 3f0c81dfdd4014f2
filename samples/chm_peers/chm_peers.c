// SPDX-License-Identifier: GPL-2.0-only
/*
 * chm_peers - sample user of chm: objects with a name and a reference count
 *
 * A peer exists as long as somebody uses it.  Asking for a name that nobody
 * uses creates its peer.  The last user to put a peer removes it.  The map
 * holds no reference.  Users are open files, and the administrator:
 *
 *	# cd /sys/kernel/debug/chm_peers
 *	# exec 3> join && echo alice >&3	(until file 3 is closed)
 *	# echo add bob > control		(until "del bob")
 *	# cat dump
 *
 * Worth a look:
 *
 * - struct peer: the key points into the object
 * - peer_find(), peer_get(), peer_put(): how peers are found, found or made, and
 *   removed, from any context and without a lock of this module's own
 * - peer_drop(): who frees them
 * - dump_piece(): a dump is read in pieces, as netlink does it, and may be left
 *   unfinished
 * - peers_exit(): the end of a map that still has pairs
 */
#include <linux/atomic.h>
#include <linux/bitops.h>
#include <linux/debugfs.h>
#include <linux/err.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "chm.h"
#include "chm_compat.h"

#define NAME_LENGTH	32	/* including the 0 at its end */

/* === The map ============================================================= */

struct peer {
	refcount_t	users;		/* 0: dead, but perhaps still in the map */
	unsigned long	flags;
	char		name[NAME_LENGTH];
};

#define PEER_ADDED	0		/* the administrator is a user */

static atomic_t peers_nr;		/* allocated peers, whether in the map or not */

/*
 * chm calls this once for each peer that was inserted, after a grace period.
 * So no reader finds the peer any more.  Either it is dead or the map is being
 * destroyed, so nobody uses it any more.
 */
static void peer_drop(void *ctx, void *key, void *value)
{
	struct peer *peer = *(struct peer **)value;
	atomic_t *nr = ctx;

	kfree(peer);
	atomic_dec(nr);
}

/*
 * The key is a pointer to the name inside the peer.  So the name exists as long
 * as the pair does, until peer_drop().
 */
DEFINE_CHM_TYPE(peer_map, const char *, struct peer *,
		.hash = chm_hash_string, .equal = chm_equal_string,
		.drop = peer_drop);

static struct peer_map peers;

/* === Find, make and remove peers ========================================= */

/* The caller becomes a user of the peer.  NULL: there is none, or it is dead. */
static struct peer *peer_find(const char *name)
{
	struct peer *const *found;
	struct peer *peer = NULL;

	rcu_read_lock();
	found = peer_map_lookup(&peers, &name);
	if (found && refcount_inc_not_zero(&(*found)->users))
		peer = *found;
	rcu_read_unlock();
	return peer;
}

static struct peer *peer_alloc(const char *name, gfp_t gfp)
{
	struct peer *peer = kzalloc_obj(*peer, gfp);

	if (!peer)
		return NULL;
	refcount_set(&peer->users, 1);
	strscpy(peer->name, name, sizeof(peer->name));
	atomic_inc(&peers_nr);
	return peer;
}

/* For a peer that never was in the map, so no reader can have found it. */
static void peer_free(struct peer *peer)
{
	kfree(peer);
	atomic_dec(&peers_nr);
}

/*
 * Put @fresh into the map.  If the map has a peer of the same name, the caller
 * becomes a user of that one instead.  A dead peer is replaced, and peer_put()
 * will find that it is gone.  -ESTALE or -ENOENT: another CPU was faster at
 * replacing or removing it.
 *
 * The RCU reader protects the peer that is found.  So nothing in it may sleep.
 */
static struct peer *peer_try_insert(struct peer *fresh)
{
	const char *name = fresh->name;
	struct peer *peer = fresh;
	int ret;

	rcu_read_lock();
	ret = peer_map_get_or_insert(&peers, &name, &peer, GFP_ATOMIC);
	if (!ret && !refcount_inc_not_zero(&peer->users)) {
		ret = peer_map_replace_if(&peers, &name, &peer, &fresh,
					  GFP_ATOMIC);
		peer = fresh;
	}
	rcu_read_unlock();
	return ret < 0 ? ERR_PTR(ret) : peer;
}

/*
 * Return the peer of this name, made if there is none, or an ERR_PTR().  The
 * caller becomes a user of it.  Callable from any context that @gfp allows.
 */
static struct peer *peer_get(const char *name, gfp_t gfp)
{
	struct peer *peer = peer_find(name);
	struct peer *fresh;

	if (peer)
		return peer;
	fresh = peer_alloc(name, gfp);
	if (!fresh)
		return ERR_PTR(-ENOMEM);
	do {
		peer = peer_try_insert(fresh);
	} while (peer == ERR_PTR(-ESTALE) || peer == ERR_PTR(-ENOENT));
	if (peer != fresh)
		peer_free(fresh);
	return peer;
}

/*
 * Callable from any context.  Between the two steps another CPU may put a new
 * peer of this name in this one's place (peer_try_insert()).  chm_remove_if()
 * leaves that new one alone.  The RCU reader keeps peer_drop() from freeing
 * this peer before we are done with it.
 */
static void peer_put(struct peer *peer)
{
	const char *name = peer->name;

	rcu_read_lock();
	if (refcount_dec_and_test(&peer->users))
		peer_map_remove_if(&peers, &name, &peer);
	rcu_read_unlock();
}

/* === DebugFS: names ====================================================== */

/*
 * A write is one line of less than @size bytes.  Return its length or a
 * negative errno.
 */
static ssize_t read_line(char *line, size_t size, const char __user *from,
			 size_t count)
{
	if (count >= size)
		return -E2BIG;
	if (copy_from_user(line, from, count))
		return -EFAULT;
	line[count] = 0;
	strim(line);
	return line[0] ? count : -EINVAL;
}

/* === DebugFS: control ==================================================== */

/* Adding a peer twice counts once: the administrator is one user. */
static int peer_add(const char *name)
{
	struct peer *peer = peer_get(name, GFP_KERNEL);

	if (IS_ERR(peer))
		return PTR_ERR(peer);
	if (!test_and_set_bit(PEER_ADDED, &peer->flags))
		return 0;
	peer_put(peer);
	return -EEXIST;
}

static int peer_del(const char *name)
{
	struct peer *peer = peer_find(name);
	int err = -ENOENT;

	if (!peer)
		return err;
	if (test_and_clear_bit(PEER_ADDED, &peer->flags)) {
		peer_put(peer);		/* reference of peer_add() */
		err = 0;
	}
	peer_put(peer);			/* reference of peer_find() */
	return err;
}

static ssize_t control_write(struct file *file, const char __user *from,
			     size_t count, loff_t *pos)
{
	char line[NAME_LENGTH + 4];
	ssize_t ret = read_line(line, sizeof(line), from, count);
	int err = -EINVAL;

	if (ret < 0)
		return ret;
	if (!strncmp(line, "add ", 4))
		err = peer_add(line + 4);
	else if (!strncmp(line, "del ", 4))
		err = peer_del(line + 4);
	return err ?: ret;
}

static const struct file_operations control_fops = {
	.owner	= THIS_MODULE,
	.open	= simple_open,
	.write	= control_write,
};

/* === DebugFS: join ======================================================= */

/* An open file uses the peer that was written to it last. */
static ssize_t join_write(struct file *file, const char __user *from,
			  size_t count, loff_t *pos)
{
	char name[NAME_LENGTH];
	ssize_t ret = read_line(name, sizeof(name), from, count);
	struct peer *peer;

	if (ret < 0)
		return ret;
	peer = peer_get(name, GFP_KERNEL);
	if (IS_ERR(peer))
		return PTR_ERR(peer);
	peer = xchg(&file->private_data, peer);
	if (peer)
		peer_put(peer);
	return ret;
}

static int join_open(struct inode *inode, struct file *file)
{
	file->private_data = NULL;
	return nonseekable_open(inode, file);
}

static int join_release(struct inode *inode, struct file *file)
{
	if (file->private_data)
		peer_put(file->private_data);
	return 0;
}

static const struct file_operations join_fops = {
	.owner		= THIS_MODULE,
	.open		= join_open,
	.write		= join_write,
	.release	= join_release,
};

/* === DebugFS: dump ======================================================= */

/*
 * What a netlink dump keeps between two messages.  A struct chm_iter holds
 * nothing: no lock, no table, no reference.  So a dump that nobody ever reads
 * to its end costs only these bytes.  Meanwhile, peers come and go.
 */
struct dump {
	struct mutex	lock;		/* for several readers of one file */
	struct chm_iter	it;
	char		piece[512];
};

/*
 * Put the next peers, as many as fit, into the piece.  Peers that exist
 * throughout the dump each appear once.  Return the number of bytes; 0: there
 * are no more; or a negative errno.
 */
static ssize_t dump_piece(struct dump *dump, size_t size)
{
	struct chm_iter before;
	struct peer *peer;
	ssize_t ret = 0;
	size_t len;

	rcu_read_lock();	/* pairs are copied, but not what they point to */
	for (;;) {
		before = dump->it;
		if (!peer_map_iter_next(&dump->it, NULL, &peer)) {
			/* The map has been attacked too often meanwhile. */
			if (chm_iter_stale(&dump->it))
				ret = -ESTALE;
			break;
		}
		len = snprintf(dump->piece + ret, size - ret,
			       "%s users %u%s\n", peer->name,
			       refcount_read(&peer->users),
			       test_bit(PEER_ADDED, &peer->flags) ? " added" : "");
		if (ret + len >= size) {
			dump->it = before;	/* it begins the next piece */
			ret = ret ?: -EMSGSIZE;
			break;
		}
		ret += len;
	}
	rcu_read_unlock();
	return ret;
}

static ssize_t dump_read(struct file *file, char __user *to, size_t count,
			 loff_t *pos)
{
	struct dump *dump = file->private_data;
	ssize_t ret;

	mutex_lock(&dump->lock);
	/* One more byte, for the 0 of snprintf(). */
	ret = dump_piece(dump, min(count + 1, sizeof(dump->piece)));
	if (ret > 0 && copy_to_user(to, dump->piece, ret))
		ret = -EFAULT;
	mutex_unlock(&dump->lock);
	return ret;
}

static int dump_open(struct inode *inode, struct file *file)
{
	struct dump *dump = kzalloc_obj(*dump, GFP_KERNEL);

	if (!dump)
		return -ENOMEM;
	mutex_init(&dump->lock);
	peer_map_iter_init(&dump->it, &peers);
	file->private_data = dump;
	return nonseekable_open(inode, file);
}

static int dump_release(struct inode *inode, struct file *file)
{
	kfree(file->private_data);
	return 0;
}

static const struct file_operations dump_fops = {
	.owner		= THIS_MODULE,
	.open		= dump_open,
	.read		= dump_read,
	.release	= dump_release,
};

/* === Module ============================================================== */

static struct dentry *peers_dir;

static int __init peers_init(void)
{
	int err = peer_map_init(&peers, &peers_nr, KBUILD_MODNAME);

	if (err)
		return err;
	peers_dir = debugfs_create_dir(KBUILD_MODNAME, NULL);
	debugfs_create_file("control", 0200, peers_dir, NULL, &control_fops);
	debugfs_create_file("join", 0200, peers_dir, NULL, &join_fops);
	debugfs_create_file("dump", 0400, peers_dir, NULL, &dump_fops);
	debugfs_create_atomic_t("nr", 0400, peers_dir, &peers_nr);
	return 0;
}

/*
 * An open file pins this module, so the administrator is the only user left.
 * If what ends is not the module but one network namespace of many,
 * chm_destroy_async() alone is enough: it waits for nothing.  But here
 * peer_drop() must not run after this function returns.
 */
static void __exit peers_exit(void)
{
	debugfs_remove(peers_dir);
	peer_map_destroy_async(&peers);
	chm_barrier();
	WARN_ON(atomic_read(&peers_nr));
}

module_init(peers_init);
module_exit(peers_exit);

MODULE_DESCRIPTION("Objects by name, counted by reference, a sample user of chm");
MODULE_LICENSE("GPL");
