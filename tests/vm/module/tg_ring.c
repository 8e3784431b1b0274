// SPDX-License-Identifier: GPL-2.0 OR MIT
/* The rings: hardware that works off jobs of known durations, behind the kernel's own GPU scheduler. */
#include <linux/slab.h>

#include "tg.h"

const char * const tg_engine_names[TG_MAX_ENGINES] = { "gfx", "compute", "copy" };
const unsigned int tg_engine_capacity[TG_MAX_ENGINES] = { 1, 2, 1 };

static const struct {
	const char *name;
	unsigned int engine;
} tg_ring_kinds[TG_MAX_RINGS] = {
	{ "gfx", 0 },
	{ "compute0", 1 },
	{ "compute1", 1 },
	{ "copy", 2 },
};

static const char *tg_fence_driver_name(struct dma_fence *fence)
{
	return TG_NAME;
}

static const char *tg_fence_timeline_name(struct dma_fence *fence)
{
	return "ring";
}

static const struct dma_fence_ops tg_fence_ops = {
	.get_driver_name = tg_fence_driver_name,
	.get_timeline_name = tg_fence_timeline_name,
};

static void tg_hw_job_start(struct tg_hw_job *hw, ktime_t at)
{
	hw->start = at;
	hw->end = ktime_add_ns(at, hw->duration_ns);
}

/* Signals jobs that are in no list of the hardware any more. */
static void tg_hw_jobs_signal(struct list_head *jobs, int error)
{
	struct tg_hw_job *hw, *next;

	list_for_each_entry_safe(hw, next, jobs, node) {
		list_del(&hw->node);
		tg_client_put(hw->client);
		if (error)
			dma_fence_set_error(&hw->fence, error);
		dma_fence_signal(&hw->fence);
		dma_fence_put(&hw->fence);
	}
}

static enum hrtimer_restart tg_ring_timer(struct hrtimer *timer)
{
	struct tg_ring *ring = container_of(timer, struct tg_ring, timer);
	struct tg_hw_job *hw;
	enum hrtimer_restart again = HRTIMER_NORESTART;
	unsigned long flags;
	ktime_t now = ktime_get();
	LIST_HEAD(ended);

	spin_lock_irqsave(&ring->lock, flags);
	while ((hw = list_first_entry_or_null(&ring->hw, struct tg_hw_job, node))) {
		ktime_t end = hw->end;

		if (hw->hang)
			break;
		if (ktime_after(end, now)) {
			hrtimer_set_expires(timer, end);
			again = HRTIMER_RESTART;
			break;
		}
		list_move_tail(&hw->node, &ended);
		ring->busy_ns += hw->duration_ns;
		hw->client->ring[ring->index].busy_ns += hw->duration_ns;
		atomic64_inc(&ring->counts.done);
		atomic64_inc(&hw->client->ring[ring->index].counts.done);

		/* A late timer costs nothing: the next one began when this one ended. */
		hw = list_first_entry_or_null(&ring->hw, struct tg_hw_job, node);
		if (hw)
			tg_hw_job_start(hw, end);
	}
	spin_unlock_irqrestore(&ring->lock, flags);

	tg_hw_jobs_signal(&ended, 0);
	return again;
}

static struct dma_fence *tg_run_job(struct drm_sched_job *sched_job)
{
	struct tg_job *job = container_of(sched_job, struct tg_job, base);
	struct tg_ring *ring = job->ring;
	struct tg_hw_job *hw;
	unsigned long flags;

	if (job->timed_out)
		return ERR_PTR(-ETIME);
	if (sched_job->s_fence->finished.error)
		return ERR_PTR(sched_job->s_fence->finished.error);

	/* On the way to a signalled fence: no allocation that could wait for one. */
	hw = kzalloc(sizeof(*hw), GFP_ATOMIC);
	if (!hw)
		return ERR_PTR(-ENOMEM);
	hw->duration_ns = job->duration_ns;
	hw->hang = job->flags & TG_SUBMIT_HANG;
	hw->client = job->client;
	dma_fence_init(&hw->fence, &tg_fence_ops, &ring->fence_lock, ring->fence_context,
		       atomic64_inc_return(&ring->fence_seqno));

	spin_lock_irqsave(&ring->lock, flags);
	if (ring->dead) {
		spin_unlock_irqrestore(&ring->lock, flags);
		dma_fence_put(&hw->fence);
		return ERR_PTR(-ENODEV);
	}
	kref_get(&hw->client->refs);
	dma_fence_get(&hw->fence);
	if (list_empty(&ring->hw)) {
		tg_hw_job_start(hw, ktime_get());
		if (!hw->hang)
			hrtimer_start(&ring->timer, hw->end, HRTIMER_MODE_ABS);
	}
	list_add_tail(&hw->node, &ring->hw);
	spin_unlock_irqrestore(&ring->lock, flags);

	atomic64_inc(job->ran ? &ring->counts.resubmitted : &ring->counts.run);
	atomic64_inc(job->ran ? &job->client->ring[ring->index].counts.resubmitted :
				&job->client->ring[ring->index].counts.run);
	job->ran = true;
	return &hw->fence;
}

static void tg_free_job(struct drm_sched_job *sched_job)
{
	tg_job_free(container_of(sched_job, struct tg_job, base));
}

static const struct drm_sched_backend_ops tg_sched_ops = {
	.run_job = tg_run_job,
	.timedout_job = tg_timedout_job,
	.free_job = tg_free_job,
};

/*
 * What the ring holds is taken out of the hardware and fails with `error`. The part the first job had run for stays
 * on the account: the ring was occupied.
 */
void tg_ring_reset(struct tg_ring *ring, int error)
{
	struct tg_hw_job *hw;
	unsigned long flags;
	LIST_HEAD(dropped);

	hrtimer_cancel(&ring->timer);
	spin_lock_irqsave(&ring->lock, flags);
	hw = list_first_entry_or_null(&ring->hw, struct tg_hw_job, node);
	if (hw) {
		s64 ran = ktime_to_ns(ktime_sub(ktime_get(), hw->start));

		if (!hw->hang)
			ran = min_t(s64, ran, hw->duration_ns);
		ran = max_t(s64, ran, 0);
		ring->busy_ns += ran;
		hw->client->ring[ring->index].busy_ns += ran;
	}
	list_splice_init(&ring->hw, &dropped);
	spin_unlock_irqrestore(&ring->lock, flags);

	tg_hw_jobs_signal(&dropped, error);
}

/* Time the ring was occupied so far, by `client` or, with NULL, by anybody; ns. */
u64 tg_ring_busy(struct tg_ring *ring, struct tg_client *client)
{
	struct tg_hw_job *hw;
	unsigned long flags;
	u64 busy;

	spin_lock_irqsave(&ring->lock, flags);
	busy = client ? client->ring[ring->index].busy_ns : ring->busy_ns;
	hw = list_first_entry_or_null(&ring->hw, struct tg_hw_job, node);
	if (hw && (!client || hw->client == client)) {
		s64 ran = ktime_to_ns(ktime_sub(ktime_get(), hw->start));

		if (!hw->hang)
			ran = min_t(s64, ran, hw->duration_ns);
		busy += max_t(s64, ran, 0);
	}
	spin_unlock_irqrestore(&ring->lock, flags);
	return busy;
}

u64 tg_busy(struct tg_device *tg)
{
	u64 busy = 0;
	unsigned int i;

	for (i = 0; i < tg->rings; i++)
		busy += tg_ring_busy(&tg->ring[i], NULL);
	return busy;
}

static int tg_sched_init(struct tg_ring *ring)
{
	struct tg_device *tg = ring->tg;
	long timeout = msecs_to_jiffies(tg_param_timeout_ms);

#ifdef TG_SCHED_INIT_ARGS
	const struct drm_sched_init_args args = {
		.ops = &tg_sched_ops,
		.num_rqs = DRM_SCHED_PRIORITY_COUNT,
		.credit_limit = tg_param_depth,
		.timeout = timeout,
		.timeout_wq = tg->timeout_wq,
		.name = ring->name,
		.dev = tg->dev,
	};

	return drm_sched_init(&ring->sched, &args);
#else
	return drm_sched_init(&ring->sched, &tg_sched_ops, NULL, DRM_SCHED_PRIORITY_COUNT,
			      tg_param_depth, 0, timeout, tg->timeout_wq, NULL, ring->name,
			      tg->dev);
#endif
}

int tg_rings_init(struct tg_device *tg)
{
	unsigned int i;
	int ret;

	tg->timeout_wq = alloc_ordered_workqueue("%s", 0, dev_name(tg->dev));
	if (!tg->timeout_wq)
		return -ENOMEM;

	for (i = 0; i < TG_MAX_RINGS; i++) {
		struct tg_ring *ring = &tg->ring[i];

		ring->tg = tg;
		ring->index = i;
		ring->name = tg_ring_kinds[i].name;
		ring->engine = tg_ring_kinds[i].engine;
		ring->fence_context = dma_fence_context_alloc(1);
		spin_lock_init(&ring->fence_lock);
		spin_lock_init(&ring->lock);
		INIT_LIST_HEAD(&ring->hw);
#ifdef TG_HRTIMER_SETUP
		hrtimer_setup(&ring->timer, tg_ring_timer, CLOCK_MONOTONIC, HRTIMER_MODE_ABS);
#else
		hrtimer_init(&ring->timer, CLOCK_MONOTONIC, HRTIMER_MODE_ABS);
		ring->timer.function = tg_ring_timer;
#endif
		ret = tg_sched_init(ring);
		if (ret) {
			tg_rings_fini(tg);
			return ret;
		}
		tg->rings++;
	}
	return 0;
}

/* Nothing will run from here on: what is in the hardware fails, and so does what comes. */
void tg_rings_kill(struct tg_device *tg)
{
	unsigned int i;

	for (i = 0; i < tg->rings; i++) {
		struct tg_ring *ring = &tg->ring[i];
		unsigned long flags;

		spin_lock_irqsave(&ring->lock, flags);
		ring->dead = true;
		spin_unlock_irqrestore(&ring->lock, flags);
		tg_ring_reset(ring, -ENODEV);
	}
}

/* No job of anybody is left. */
void tg_rings_fini(struct tg_device *tg)
{
	while (tg->rings)
		drm_sched_fini(&tg->ring[--tg->rings].sched);
	destroy_workqueue(tg->timeout_wq);
}
