// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Load on command: a thread a ring that submits one job a period, by the clock, so that no sleep adds up. */
#include <linux/hrtimer.h>
#include <linux/kthread.h>
#include <linux/slab.h>

#include "tg.h"

struct tg_load {
	struct task_struct *task;
	struct tg_device *tg;
	u32 ring;
	u64 job_ns;
	u64 period_ns;
};

static int tg_load_thread(void *data)
{
	struct tg_load *load = data;
	struct tg_submit args = {
		.ring = load->ring,
		.count = 1,
		.duration_ns = load->job_ns,
	};
	ktime_t next = ktime_get();

	while (!kthread_should_stop()) {
		if (tg_submit(load->tg->kernel_client, &args, NULL))
			break;
		next = ktime_add_ns(next, load->period_ns);
		/* After a pause of the whole machine: from here on again. */
		if (ktime_before(ktime_add_ms(next, 1000), ktime_get()))
			next = ktime_get();
		set_current_state(TASK_IDLE);
		if (!kthread_should_stop())
			schedule_hrtimeout(&next, HRTIMER_MODE_ABS);
		__set_current_state(TASK_RUNNING);
	}
	/* Who started it also stops it. */
	while (!kthread_should_stop()) {
		set_current_state(TASK_IDLE);
		if (!kthread_should_stop())
			schedule();
		__set_current_state(TASK_RUNNING);
	}
	return 0;
}

static void tg_load_stop(struct tg_device *tg, unsigned int ring)
{
	struct tg_load *load = tg->load[ring];

	lockdep_assert_held(&tg->load_lock);
	if (!load)
		return;
	tg->load[ring] = NULL;
	kthread_stop(load->task);
	kfree(load);
}

static int tg_load_start(struct tg_device *tg, unsigned int ring, unsigned int percent, unsigned int job_us)
{
	struct tg_load *load = kzalloc(sizeof(*load), GFP_KERNEL);

	if (!load)
		return -ENOMEM;
	load->tg = tg;
	load->ring = ring;
	load->job_ns = (u64)job_us * NSEC_PER_USEC;
	load->period_ns = div_u64(load->job_ns * 100, percent);
	load->task = kthread_run(tg_load_thread, load, "tg-load/%s", tg->ring[ring].name);
	if (IS_ERR(load->task)) {
		int ret = PTR_ERR(load->task);

		kfree(load);
		return ret;
	}
	tg->load[ring] = load;
	return 0;
}

/* 0 percent ends it. */
int tg_load_set(struct tg_device *tg, unsigned int ring, unsigned int percent, unsigned int job_us)
{
	int ret = 0;

	if (ring >= tg->rings || percent > 100 || !job_us || job_us > 10 * USEC_PER_SEC)
		return -EINVAL;
	mutex_lock(&tg->load_lock);
	tg_load_stop(tg, ring);
	if (READ_ONCE(tg->removed))
		ret = -ENODEV;
	else if (percent)
		ret = tg_load_start(tg, ring, percent, job_us);
	mutex_unlock(&tg->load_lock);
	return ret;
}

void tg_load_fini(struct tg_device *tg)
{
	unsigned int i;

	mutex_lock(&tg->load_lock);
	for (i = 0; i < TG_MAX_RINGS; i++)
		tg_load_stop(tg, i);
	mutex_unlock(&tg->load_lock);
}
