/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * There is no debugfs, as in a kernel without CONFIG_DEBUG_FS.  What makes and shows its
 * files compiles, is never called, and does nothing.
 */
#ifndef USER_LINUX_DEBUGFS_H
#define USER_LINUX_DEBUGFS_H

#include <sys/stat.h>

#include <linux/kernel.h>

struct dentry {
};

struct inode {
	umode_t	i_mode;
	void	*i_private;
};

struct file {
	void	*private_data;
};

struct seq_file {
	void	*private;
};

struct seq_operations {
	void	*(*start)(struct seq_file *m, loff_t *pos);
	void	(*stop)(struct seq_file *m, void *v);
	void	*(*next)(struct seq_file *m, void *v, loff_t *pos);
	int	(*show)(struct seq_file *m, void *v);
};

struct file_operations {
	void	*owner;
	int	(*open)(struct inode *inode, struct file *file);
	ssize_t	(*read)(struct file *file, char __user *to, size_t len, loff_t *pos);
	ssize_t	(*write)(struct file *file, const char __user *from, size_t len,
			 loff_t *pos);
	loff_t	(*llseek)(struct file *file, loff_t pos, int whence);
	int	(*release)(struct inode *inode, struct file *file);
};

#define DEFINE_SHOW_ATTRIBUTE(name)					\
static int name##_open(struct inode *inode, struct file *file)		\
{									\
	return single_open(file, name##_show, inode->i_private);	\
}									\
									\
static const struct file_operations name##_fops = {			\
	.open = name##_open,						\
}

static inline struct dentry *debugfs_create_dir(const char *name,
						struct dentry *parent)
{
	return ERR_PTR(-ENODEV);
}

static inline struct dentry *debugfs_create_file(const char *name, umode_t mode,
						 struct dentry *parent, void *data,
						 const struct file_operations *fops)
{
	return NULL;
}

static inline struct dentry *debugfs_lookup(const char *name, struct dentry *parent)
{
	return NULL;
}

static inline void debugfs_remove(struct dentry *dir)
{
}

static inline void dput(struct dentry *dir)
{
}

static inline struct inode *d_inode(struct dentry *dir)
{
	return NULL;
}

static inline struct inode *file_inode(struct file *file)
{
	return NULL;
}

static inline int single_open(struct file *file,
			      int (*show)(struct seq_file *m, void *v), void *data)
{
	return -ENODEV;
}

static inline int seq_open(struct file *file, const struct seq_operations *ops)
{
	return -ENODEV;
}

static inline void __printf(2, 3) seq_printf(struct seq_file *m, const char *fmt, ...)
{
}

static inline void seq_putc(struct seq_file *m, char c)
{
}

static inline int seq_release(struct inode *inode, struct file *file)
{
	return 0;
}

#define seq_read	NULL
#define seq_lseek	NULL
#define single_release	NULL

static inline unsigned long copy_from_user(void *to, const void __user *from, size_t n)
{
	return n;
}

/* === For its commands ==================================================== */

static inline int kstrtoull(const char *s, unsigned int base, unsigned long long *n)
{
	return -EINVAL;
}

static inline int hex2bin(u8 *to, const char *from, size_t n)
{
	return -EINVAL;
}

static inline int match_string(const char * const *words, size_t n, const char *word)
{
	return -EINVAL;
}

#endif
