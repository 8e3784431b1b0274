// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Runtime power management, with counters of who woke the device. */
#include <linux/pm_runtime.h>

#include "tg.h"

static int tg_runtime_suspend(struct device *dev)
{
	struct tg_device *tg = dev_get_drvdata(dev);
	int ret = tg_fault_point(tg, "suspend");

	if (ret && !READ_ONCE(tg->removed))
		return ret;
	mutex_lock(&tg->pm_lock);
	tg->awake_ns += ktime_to_ns(ktime_sub(ktime_get(), tg->awake_since));
	tg->awake_since = 0;
	mutex_unlock(&tg->pm_lock);
	tg_count(tg, TG_SUSPENDS, 1);
	return 0;
}

static int tg_runtime_resume(struct device *dev)
{
	struct tg_device *tg = dev_get_drvdata(dev);
	int ret = tg_fault_point(tg, "resume");

	/* tg_remove() wakes it once more. */
	if (ret && !READ_ONCE(tg->removed))
		return ret;
	mutex_lock(&tg->pm_lock);
	tg->awake_since = ktime_get();
	mutex_unlock(&tg->pm_lock);
	tg_count(tg, TG_RESUMES, 1);
	return 0;
}

const struct dev_pm_ops tg_pm_ops = {
	RUNTIME_PM_OPS(tg_runtime_suspend, tg_runtime_resume, NULL)
};

u64 tg_awake_ns(struct tg_device *tg)
{
	u64 awake;

	mutex_lock(&tg->pm_lock);
	awake = tg->awake_ns;
	if (tg->awake_since)
		awake += ktime_to_ns(ktime_sub(ktime_get(), tg->awake_since));
	mutex_unlock(&tg->pm_lock);
	return awake;
}

/* Wakes the device and holds it awake, as most drivers do for every read. */
int tg_pm_get(struct tg_device *tg, enum tg_access by)
{
	bool asleep = pm_runtime_suspended(tg->dev);
	int ret;

	if (by != TG_ACCESS_FDINFO)
		atomic64_inc(&tg->accesses[by]);
	ret = pm_runtime_resume_and_get(tg->dev);
	if (!ret && asleep)
		atomic64_inc(&tg->wakes[by]);
	return ret;
}

/* The same, or -EPERM from a device that sleeps where it is told to refuse, as amdgpu has since 2025. */
int tg_pm_get_for_read(struct tg_device *tg, enum tg_access by)
{
	int ret;

	if (!READ_ONCE(tg->reads_refused))
		return tg_pm_get(tg, by);
	atomic64_inc(&tg->accesses[by]);
	ret = pm_runtime_get_if_active(tg->dev);
	if (ret > 0)
		return 0;
	if (ret == -EINVAL) {
		/* Runtime power management is off: always awake. */
		pm_runtime_get_noresume(tg->dev);
		return 0;
	}
	tg_count(tg, TG_REFUSED, 1);
	return -EPERM;
}

void tg_pm_put(struct tg_device *tg)
{
	pm_runtime_mark_last_busy(tg->dev);
	pm_runtime_put_autosuspend(tg->dev);
}

/*
 * The probe holds one reference, dropped at its end. A negative delay keeps the device awake until somebody writes
 * power/autosuspend_delay_ms.
 */
void tg_pm_init(struct tg_device *tg)
{
	mutex_init(&tg->pm_lock);
	tg->awake_since = ktime_get();
	pm_runtime_set_autosuspend_delay(tg->dev, tg_param_autosuspend_ms);
	pm_runtime_use_autosuspend(tg->dev);
	if (tg->pdev) {
		/* Enabled, held and forbidden by the bus. */
		pm_runtime_allow(tg->dev);
	} else {
		pm_runtime_get_noresume(tg->dev);
		pm_runtime_set_active(tg->dev);
		pm_runtime_enable(tg->dev);
	}
}

/* Everybody else has let go. The device ends awake, with the reference the probe began with. */
void tg_pm_fini(struct tg_device *tg)
{
	pm_runtime_dont_use_autosuspend(tg->dev);
	if (tg->pdev) {
		pm_runtime_forbid(tg->dev);
	} else {
		pm_runtime_disable(tg->dev);
		pm_runtime_set_suspended(tg->dev);
		pm_runtime_put_noidle(tg->dev);
	}
}
