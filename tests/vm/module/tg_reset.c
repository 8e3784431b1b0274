// SPDX-License-Identifier: GPL-2.0 OR MIT
/* A job that does not end: reset of its ring, device core dump, wedged event. */
#include <linux/devcoredump.h>
#include <linux/utsname.h>
#include <linux/vmalloc.h>

#include <drm/drm_print.h>

#include "tg.h"

/* What is known of a guilty job once the scheduler may have freed it. */
struct tg_guilty {
	struct tg_ring *ring;
	u64 context;
	u64 seqno;
	pid_t pid;
	char comm[TASK_COMM_LEN];
};

#ifdef TG_WEDGED_EVENT
static const struct {
	const char *name;
	unsigned long method;
} tg_wedge_methods[] = {
	{ "off", 0 },
	{ "none", DRM_WEDGE_RECOVERY_NONE },
	{ "rebind", DRM_WEDGE_RECOVERY_REBIND },
	{ "bus-reset", DRM_WEDGE_RECOVERY_BUS_RESET },
#ifdef DRM_WEDGE_RECOVERY_VENDOR
	{ "vendor-specific", DRM_WEDGE_RECOVERY_VENDOR },
#endif
};

/* Methods the next events name, by a list with commas. "off": a reset sends none. */
int tg_wedge_set(struct tg_device *tg, char *methods)
{
	unsigned long wanted = 0;
	char *name;

	while ((name = strsep(&methods, ","))) {
		unsigned int i;

		for (i = 0; i < ARRAY_SIZE(tg_wedge_methods); i++)
			if (!strcmp(name, tg_wedge_methods[i].name))
				break;
		if (i == ARRAY_SIZE(tg_wedge_methods))
			return -EINVAL;
		wanted |= tg_wedge_methods[i].method;
	}
	WRITE_ONCE(tg->wedge_method, wanted);
	return 0;
}

static void tg_wedged(struct tg_device *tg, const struct tg_guilty *guilty)
{
	unsigned long method = READ_ONCE(tg->wedge_method);
#ifdef TG_WEDGE_TASK_INFO
	struct drm_wedge_task_info info = { };

	if (guilty) {
		info.pid = guilty->pid;
		memcpy(info.comm, guilty->comm, sizeof(info.comm));
	}
#endif
	if (!method)
		return;
	tg_count(tg, TG_WEDGED, 1);
#ifdef TG_WEDGE_TASK_INFO
	drm_dev_wedged_event(&tg->drm, method, guilty ? &info : NULL);
#else
	drm_dev_wedged_event(&tg->drm, method);
#endif
}

int tg_wedge_now(struct tg_device *tg)
{
	tg_wedged(tg, NULL);
	return 0;
}
#else
int tg_wedge_set(struct tg_device *tg, char *methods)
{
	return -EOPNOTSUPP;
}

int tg_wedge_now(struct tg_device *tg)
{
	return -EOPNOTSUPP;
}

static void tg_wedged(struct tg_device *tg, const struct tg_guilty *guilty)
{
}
#endif

static void tg_dump(struct tg_device *tg, const struct tg_guilty *guilty)
{
	char *text = vzalloc(PAGE_SIZE);
	size_t size;

	if (!text)
		return;
	size = scnprintf(text, PAGE_SIZE,
			 "**** GPU coredump ****\nmodule: " TG_NAME "\nkernel: %s\ndevice: %s\n"
			 "ring: %s\nfence: %llu:%llu\nprocess: %d %.*s\n",
			 init_utsname()->release, dev_name(tg->dev), guilty->ring->name, guilty->context,
			 guilty->seqno, guilty->pid, (int)sizeof(guilty->comm), guilty->comm);
	tg_count(tg, TG_COREDUMPS, 1);
	dev_coredumpv(tg->dev, text, size, GFP_KERNEL);
}

static void tg_sched_start(struct drm_gpu_scheduler *sched)
{
#ifdef TG_SCHED_START_ERRNO
	drm_sched_start(sched, -ETIME);
#else
	drm_sched_start(sched);
#endif
}

/*
 * Only the guilty job fails. tg_run_job() refuses it, so of what drm_sched_resubmit_jobs() walks over it alone has
 * no fence, and drm_sched_start() ends it: -ETIME, -ECANCELED on kernels where that takes no error.
 */
enum drm_gpu_sched_stat tg_timedout_job(struct drm_sched_job *sched_job)
{
	struct tg_job *job = container_of(sched_job, struct tg_job, base);
	struct tg_ring *ring = job->ring;
	struct tg_device *tg = ring->tg;
	struct tg_guilty guilty = {
		.ring = ring,
		.context = sched_job->s_fence->finished.context,
		.seqno = sched_job->s_fence->finished.seqno,
		.pid = job->pid,
	};
	bool ended;

	memcpy(guilty.comm, job->comm, sizeof(guilty.comm));
	drm_sched_stop(&ring->sched, sched_job);
	/* It kept its hardware fence only if that signalled in the meantime: a job that ended, however late. */
	ended = sched_job->s_fence->parent;
	if (!ended) {
		job->timed_out = true;
		atomic64_inc(&ring->counts.timed_out);
		atomic64_inc(&job->client->ring[ring->index].counts.timed_out);
	}
	tg_ring_reset(ring, -ECANCELED);
	tg_count(tg, TG_RESETS, 1);
	drm_sched_resubmit_jobs(&ring->sched);
	tg_sched_start(&ring->sched);

	if (!ended) {
		drm_err(&tg->drm, "ring %s timeout, fence %llu:%llu, process %s pid %d\n", ring->name,
			guilty.context, guilty.seqno, guilty.comm, guilty.pid);
		tg_dump(tg, &guilty);
		tg_wedged(tg, &guilty);
	}
#ifdef TG_SCHED_STAT_RESET
	return DRM_GPU_SCHED_STAT_RESET;
#else
	return DRM_GPU_SCHED_STAT_NOMINAL;
#endif
}
