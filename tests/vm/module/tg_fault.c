// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Trouble on command. Every place where a user of the driver could wait has a name: that of the attribute, or
 * "open", "fdinfo", "resume". A fault of that name, or of "*", makes it slow, hang or fail.
 */
#include <linux/delay.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "tg.h"

enum tg_fault_mode {
	TG_FAULT_SLOW,
	TG_FAULT_HANG,
	TG_FAULT_ERROR,
};

static const char * const tg_fault_modes[] = { "slow", "hang", "error" };

struct tg_fault {
	struct list_head node;
	char name[40];
	enum tg_fault_mode mode;
	unsigned int value;
};

static struct tg_fault *tg_fault_find(struct tg_device *tg, const char *name)
{
	struct tg_fault *fault;

	lockdep_assert_held(&tg->fault_lock);
	list_for_each_entry(fault, &tg->faults, node)
		if (!strcmp(fault->name, name))
			return fault;
	return NULL;
}

static bool tg_fault_get(struct tg_device *tg, const char *name, struct tg_fault *copy)
{
	struct tg_fault *fault;

	spin_lock(&tg->fault_lock);
	fault = tg_fault_find(tg, name);
	if (!fault)
		fault = tg_fault_find(tg, "*");
	if (fault)
		*copy = *fault;
	spin_unlock(&tg->fault_lock);
	return fault;
}

static bool tg_fault_hangs(struct tg_device *tg, const char *name)
{
	struct tg_fault fault;

	return !READ_ONCE(tg->removed) && tg_fault_get(tg, name, &fault) &&
	       fault.mode == TG_FAULT_HANG;
}

/* May sleep; in state D, where no signal reaches, until released. */
int tg_fault_point(struct tg_device *tg, const char *name)
{
	struct tg_fault fault;
	int ret = 0;

	if (READ_ONCE(tg->removed))
		return -ENODEV;
	if (!tg_fault_get(tg, name, &fault))
		return 0;
	atomic_inc(&tg->held);
	switch (fault.mode) {
	case TG_FAULT_SLOW:
		msleep(fault.value);
		break;
	case TG_FAULT_HANG:
		wait_event(tg->fault_wq, !tg_fault_hangs(tg, name));
		break;
	case TG_FAULT_ERROR:
		ret = -(int)fault.value;
		break;
	}
	atomic_dec(&tg->held);
	return READ_ONCE(tg->removed) ? -ENODEV : ret;
}

static int tg_fault_parse(struct tg_fault *fault, const char *mode, const char *value)
{
	int which = match_string(tg_fault_modes, ARRAY_SIZE(tg_fault_modes), mode);
	unsigned int number = 0;

	if (which < 0)
		return -EINVAL;
	if (which != TG_FAULT_HANG) {
		if (!value || kstrtouint(value, 0, &number))
			return -EINVAL;
		if (!number || number > (which == TG_FAULT_SLOW ? 600000 : MAX_ERRNO))
			return -ERANGE;
	}
	fault->mode = which;
	fault->value = number;
	return 0;
}

/* Mode "off" ends the fault of that name. */
int tg_fault_set(struct tg_device *tg, const char *name, const char *mode, const char *value)
{
	struct tg_fault *fault = NULL, *old;
	int ret;

	if (strcmp(mode, "off")) {
		fault = kzalloc(sizeof(*fault), GFP_KERNEL);
		if (!fault)
			return -ENOMEM;
		ret = tg_fault_parse(fault, mode, value);
		if (!ret && strscpy(fault->name, name, sizeof(fault->name)) < 0)
			ret = -ENAMETOOLONG;
		if (ret) {
			kfree(fault);
			return ret;
		}
	}
	spin_lock(&tg->fault_lock);
	old = tg_fault_find(tg, name);
	if (old)
		list_del(&old->node);
	if (fault)
		list_add_tail(&fault->node, &tg->faults);
	spin_unlock(&tg->fault_lock);
	kfree(old);
	wake_up_all(&tg->fault_wq);
	return 0;
}

/* Ends every fault and lets go whom they hold. */
void tg_fault_release(struct tg_device *tg)
{
	struct tg_fault *fault, *next;
	LIST_HEAD(ended);

	spin_lock(&tg->fault_lock);
	list_splice_init(&tg->faults, &ended);
	spin_unlock(&tg->fault_lock);
	list_for_each_entry_safe(fault, next, &ended, node)
		kfree(fault);
	wake_up_all(&tg->fault_wq);
}

/* The device goes: from here on every place answers -ENODEV. */
void tg_fault_fini(struct tg_device *tg)
{
	WRITE_ONCE(tg->removed, true);
	tg_fault_release(tg);
}

void tg_fault_show(struct tg_device *tg, struct seq_file *m)
{
	struct tg_fault *fault;

	spin_lock(&tg->fault_lock);
	list_for_each_entry(fault, &tg->faults, node)
		seq_printf(m, "%s %s %u\n", fault->name, tg_fault_modes[fault->mode], fault->value);
	spin_unlock(&tg->fault_lock);
}
