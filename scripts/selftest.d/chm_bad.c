// SPDX-License-Identifier: GPL-2.0-only
/*
 * chm_bad - a KUnit suite that misbehaves on request
 *
 * scripts/selftest loads it to see that the test harness takes notice.
 */

#include <kunit/test.h>
#include <linux/cpumask.h>
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/spinlock.h>

static char *fault = "none";
module_param(fault, charp, 0444);
MODULE_PARM_DESC(fault, "case, skip, warn, oops, hang, leak, uaf, lockdep, race or none");

static DEFINE_SPINLOCK(lock_a);
static DEFINE_SPINLOCK(lock_b);

static void leak(void)
{
	int i;

	/* Several, lest a stale pointer on some stack hides the only one. */
	for (i = 0; i < 10; i++)
		OPTIMIZER_HIDE_VAR(*(void **)&(void *){ kmalloc(200, GFP_KERNEL) });
}

static void use_after_free(void)
{
	char *p = kmalloc(64, GFP_KERNEL);

	kfree(p);
	READ_ONCE(p[8]);
}

static void invert_locks(void)
{
	spin_lock(&lock_a);
	spin_lock(&lock_b);
	spin_unlock(&lock_b);
	spin_unlock(&lock_a);

	spin_lock(&lock_b);
	spin_lock(&lock_a);
	spin_unlock(&lock_a);
	spin_unlock(&lock_b);
}

static int count(void *counter)
{
	while (!kthread_should_stop()) {
		++*(unsigned long *)counter;
		cond_resched();
	}
	return 0;
}

static void race(struct kunit *test)
{
	struct task_struct *tasks[2];
	unsigned long counter = 0;
	int i;

	for (i = 0; i < 2; i++) {
		tasks[i] = kthread_create(count, &counter, "chm_bad/%d", i);
		KUNIT_ASSERT_FALSE(test, IS_ERR(tasks[i]));
		kthread_bind(tasks[i], i);
		wake_up_process(tasks[i]);
	}
	msleep(1000);
	for (i = 0; i < 2; i++)
		kthread_stop(tasks[i]);
}

static void misbehave(struct kunit *test)
{
	if (!strcmp(fault, "case"))
		KUNIT_FAIL(test, "as asked");
	else if (!strcmp(fault, "skip"))
		kunit_skip(test, "%s", "");
	else if (!strcmp(fault, "warn"))
		WARN_ON(1);
	else if (!strcmp(fault, "oops"))
		WRITE_ONCE(*(int *)8, 1);
	else if (!strcmp(fault, "hang"))
		msleep(INT_MAX);
	else if (!strcmp(fault, "leak"))
		leak();
	else if (!strcmp(fault, "uaf"))
		use_after_free();
	else if (!strcmp(fault, "lockdep"))
		invert_locks();
	else if (!strcmp(fault, "race"))
		race(test);
}

static void behave(struct kunit *test)
{
}

static struct kunit_case bad_cases[] = {
	KUNIT_CASE(behave),
	KUNIT_CASE(misbehave),
	{}
};

static struct kunit_suite bad_suite = {
	.name = "chm_bad",
	.test_cases = bad_cases,
};

static struct kunit_suite good_suite = {
	.name = "chm_good",
	.test_cases = (struct kunit_case []){ KUNIT_CASE(behave), {} },
};

kunit_test_suites(&bad_suite, &good_suite);

MODULE_DESCRIPTION("KUnit suite that misbehaves on request");
MODULE_LICENSE("GPL");
