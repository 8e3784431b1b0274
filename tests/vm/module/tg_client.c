// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Open files, the jobs they submit, and what each has been given of the device. */
#include <linux/sched.h>
#include <linux/slab.h>

#include <drm/drm_syncobj.h>

#include "tg.h"

static void tg_client_release(struct kref *refs)
{
	struct tg_client *client = container_of(refs, struct tg_client, refs);

	kfree(client);
}

void tg_client_put(struct tg_client *client)
{
	kref_put(&client->refs, tg_client_release);
}

struct tg_client *tg_client_create(struct tg_device *tg, u64 id)
{
	struct tg_client *client = kzalloc(sizeof(*client), GFP_KERNEL);
	unsigned int i;
	int ret;

	if (!client)
		return ERR_PTR(-ENOMEM);
	kref_init(&client->refs);
	client->tg = tg;
	client->id = id;
	client->pid = id ? task_tgid_nr(current) : 0;
	get_task_comm(client->comm, current);
	mutex_init(&client->lock);
	init_waitqueue_head(&client->idle);
	client->alive = true;

	for (i = 0; i < tg->rings; i++) {
		struct drm_gpu_scheduler *sched = &tg->ring[i].sched;

		ret = drm_sched_entity_init(&client->ring[i].entity, DRM_SCHED_PRIORITY_NORMAL,
					    &sched, 1, NULL);
		if (ret)
			goto fail;
	}
	mutex_lock(&tg->clients_lock);
	list_add_tail(&client->node, &tg->clients);
	mutex_unlock(&tg->clients_lock);
	return client;

fail:
	while (i--)
		drm_sched_entity_fini(&client->ring[i].entity);
	tg_client_put(client);
	return ERR_PTR(ret);
}

/* What it had queued and not begun is dropped; what runs ends. The caller holds clients_lock and a reference. */
void tg_client_kill(struct tg_client *client)
{
	unsigned int i;

	mutex_lock(&client->lock);
	if (client->alive) {
		client->alive = false;
		for (i = 0; i < client->tg->rings; i++)
			drm_sched_entity_fini(&client->ring[i].entity);
	}
	mutex_unlock(&client->lock);
}

int tg_client_open(struct drm_device *drm, struct drm_file *file)
{
	struct tg_device *tg = to_tg(drm);
	struct tg_client *client;
	int idx, ret;

	if (!drm_dev_enter(drm, &idx))
		return -ENODEV;
	ret = tg_fault_point(tg, "open");
	if (!ret)
		ret = tg_pm_get(tg, TG_ACCESS_OPEN);
	if (ret)
		goto out;
	client = tg_client_create(tg, file->client_id);
	tg_pm_put(tg);
	ret = PTR_ERR_OR_ZERO(client);
	if (ret)
		goto out;
	file->driver_priv = client;
	tg_count(tg, TG_OPENS, 1);
out:
	drm_dev_exit(idx);
	return ret;
}

/*
 * A process that ends by itself waits a moment for what it queued, as with real drivers (drm_sched_entity_flush);
 * one that is killed, and one whose device has gone, does not.
 */
void tg_client_close(struct drm_device *drm, struct drm_file *file)
{
	struct tg_device *tg = to_tg(drm);
	struct tg_client *client = file->driver_priv;
	unsigned int i;

	mutex_lock(&client->lock);
	if (client->alive) {
		for (i = 0; i < tg->rings; i++)
			drm_sched_entity_flush(&client->ring[i].entity,
					       msecs_to_jiffies(1000));
	}
	mutex_unlock(&client->lock);

	mutex_lock(&tg->clients_lock);
	tg_client_kill(client);
	list_del_init(&client->node);
	mutex_unlock(&tg->clients_lock);
	tg_client_put(client);
}

/* Process context: the scheduler's free work, or the end of an entity. */
void tg_job_free(struct tg_job *job)
{
	struct tg_client *client = job->client;
	struct tg_device *tg = client->tg;
	struct tg_ring *ring = job->ring;

	if (job->base.s_fence->finished.error && !job->timed_out) {
		atomic64_inc(&ring->counts.cancelled);
		atomic64_inc(&client->ring[ring->index].counts.cancelled);
	}
	drm_sched_job_cleanup(&job->base);
	kfree(job);
	tg_pm_put(tg);
	if (atomic_dec_and_test(&client->pending))
		wake_up_all(&client->idle);
	tg_client_put(client);
	/* The last touch of the device: tg_remove() waits for it. */
	if (atomic_dec_and_test(&tg->jobs))
		wake_up_all(&tg->jobs_wq);
}

static struct tg_job *tg_job_create(struct tg_client *client, const struct tg_submit *args)
{
	struct tg_job *job = kzalloc(sizeof(*job), GFP_KERNEL);
	struct drm_sched_entity *entity = &client->ring[args->ring].entity;
	int ret;

	if (!job)
		return ERR_PTR(-ENOMEM);
	job->client = client;
	job->ring = &client->tg->ring[args->ring];
	job->duration_ns = args->duration_ns;
	job->flags = args->flags;
	job->pid = task_pid_nr(current);
	get_task_comm(job->comm, current);
#ifdef TG_SCHED_JOB_CLIENT_ID
	ret = drm_sched_job_init(&job->base, entity, 1, client, client->id);
#else
	ret = drm_sched_job_init(&job->base, entity, 1, client);
#endif
	if (ret) {
		kfree(job);
		return ERR_PTR(ret);
	}
	return job;
}

/* client->lock is held; the job belongs to the scheduler from here on. Gives its finished fence. */
static struct dma_fence *tg_job_push(struct tg_job *job)
{
	struct tg_client *client = job->client;
	struct tg_ring *ring = job->ring;
	struct dma_fence *fence;

	kref_get(&client->refs);
	atomic_inc(&client->pending);
	atomic_inc(&client->tg->jobs);
	atomic64_inc(&ring->counts.queued);
	atomic64_inc(&client->ring[ring->index].counts.queued);
	drm_sched_job_arm(&job->base);
	fence = dma_fence_get(&job->base.s_fence->finished);
	drm_sched_entity_push_job(&job->base);
	return fence;
}

static int tg_submit_locked(struct tg_client *client, const struct tg_submit *args,
			    struct drm_file *file, struct drm_syncobj *out)
{
	struct tg_device *tg = client->tg;
	struct dma_fence *fence = NULL;
	u32 i;
	int ret = 0;

	for (i = 0; i < args->count; i++) {
		struct tg_job *job;

		/* Held until the job is freed. */
		ret = tg_pm_get(tg, TG_ACCESS_SUBMIT);
		if (ret)
			break;
		job = tg_job_create(client, args);
		ret = PTR_ERR_OR_ZERO(job);
		if (!ret && !i && args->in_sync) {
			ret = drm_sched_job_add_syncobj_dependency(&job->base, file, args->in_sync, 0);
			if (ret) {
				drm_sched_job_cleanup(&job->base);
				kfree(job);
			}
		}
		if (ret) {
			tg_pm_put(tg);
			break;
		}
		dma_fence_put(fence);
		fence = tg_job_push(job);
	}
	if (fence && !ret && args->bo)
		ret = tg_bo_add_fence(file, args->bo, fence);
	if (fence && out)
		drm_syncobj_replace_fence(out, fence);
	dma_fence_put(fence);
	return ret;
}

int tg_submit(struct tg_client *client, const struct tg_submit *args, struct drm_file *file)
{
	struct drm_syncobj *out = NULL;
	int ret;

	if (args->ring >= client->tg->rings || !args->count || args->count > 65536)
		return -EINVAL;
	if (args->flags & ~TG_SUBMIT_HANG || args->duration_ns > 3600ull * NSEC_PER_SEC)
		return -EINVAL;
	if (args->out_sync) {
		out = drm_syncobj_find(file, args->out_sync);
		if (!out)
			return -ENOENT;
	}
	mutex_lock(&client->lock);
	ret = client->alive ? tg_submit_locked(client, args, file, out) : -ENODEV;
	mutex_unlock(&client->lock);
	if (out)
		drm_syncobj_put(out);
	return ret;
}

int tg_ioctl_submit(struct drm_device *drm, void *data, struct drm_file *file)
{
	int idx, ret;

	if (!drm_dev_enter(drm, &idx))
		return -ENODEV;
	ret = tg_submit(file->driver_priv, data, file);
	drm_dev_exit(idx);
	return ret;
}

int tg_ioctl_wait(struct drm_device *drm, void *data, struct drm_file *file)
{
	struct tg_client *client = file->driver_priv;
	struct tg_wait *args = data;
	long left;

	/* Not inside drm_dev_enter(): the device may go meanwhile, and then nothing is pending. */
	left = wait_event_interruptible_timeout(client->idle, !atomic_read(&client->pending),
						nsecs_to_jiffies(args->timeout_ns) + 1);
	if (left < 0)
		return left;
	return left ? 0 : -ETIME;
}

int tg_ioctl_info(struct drm_device *drm, void *data, struct drm_file *file)
{
	struct tg_device *tg = to_tg(drm);
	struct tg_info *info = data;
	int idx;

	if (!drm_dev_enter(drm, &idx))
		return -ENODEV;
	info->client_id = file->client_id;
	info->vram_size = (u64)tg_param_vram_mb << 20;
	info->rings = tg->rings;
	info->features = 0;
	if (tg_hmm_supported())
		info->features |= TG_FEATURE_HMM;
	if (tg->p2p)
		info->features |= TG_FEATURE_P2P;
#ifdef TG_WEDGED_EVENT
	info->features |= TG_FEATURE_WEDGED;
#endif
	drm_dev_exit(idx);
	return 0;
}
