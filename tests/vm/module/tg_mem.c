// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Objects in two regions, and what a client's fdinfo says. */
#include <linux/dma-resv.h>
#include <linux/math64.h>
#include <linux/slab.h>

#include <drm/drm_gem.h>
#include <drm/drm_print.h>

#include "tg.h"

#define TG_REGIONS 2

static const char * const tg_regions[TG_REGIONS] = { "vram", "system" };

struct tg_bo {
	struct drm_gem_shmem_object base;
	u32 region;
	u32 flags;
	bool accounted;
};

static struct tg_bo *to_tg_bo(struct drm_gem_object *obj)
{
	return container_of(to_drm_gem_shmem_obj(obj), struct tg_bo, base);
}

static atomic64_t *tg_region_used(struct tg_device *tg, u32 region)
{
	return region == TG_BO_VRAM ? &tg->vram_used : &tg->system_used;
}

static void tg_bo_free(struct drm_gem_object *obj)
{
	struct tg_bo *bo = to_tg_bo(obj);

	if (bo->accounted)
		atomic64_sub(obj->size, tg_region_used(to_tg(obj->dev), bo->region));
	drm_gem_shmem_free(&bo->base);
}

static const struct drm_gem_object_funcs tg_bo_funcs = {
	.free = tg_bo_free,
	.print_info = drm_gem_shmem_object_print_info,
	.pin = drm_gem_shmem_object_pin,
	.unpin = drm_gem_shmem_object_unpin,
	.get_sg_table = drm_gem_shmem_object_get_sg_table,
	.vmap = drm_gem_shmem_object_vmap,
	.vunmap = drm_gem_shmem_object_vunmap,
	.mmap = drm_gem_shmem_object_mmap,
	.vm_ops = &drm_gem_shmem_vm_ops,
};

struct drm_gem_object *tg_bo_alloc(struct drm_device *drm, size_t size)
{
	struct tg_bo *bo = kzalloc(sizeof(*bo), GFP_KERNEL);

	if (!bo)
		return ERR_PTR(-ENOMEM);
	bo->region = TG_BO_SYSTEM;
	bo->base.base.funcs = &tg_bo_funcs;
	return &bo->base.base;
}

static int tg_bo_create(struct tg_device *tg, struct tg_bo_create *args, struct drm_file *file)
{
	struct drm_gem_shmem_object *shmem;
	struct tg_bo *bo;
	int ret;

	if (!args->size || args->size > SZ_1G || args->region >= TG_REGIONS ||
	    args->flags & ~TG_BO_PURGEABLE || args->pad)
		return -EINVAL;
	shmem = drm_gem_shmem_create(&tg->drm, args->size);
	if (IS_ERR(shmem))
		return PTR_ERR(shmem);
	bo = container_of(shmem, struct tg_bo, base);
	bo->region = args->region;
	bo->flags = args->flags;
	bo->accounted = true;
	if (atomic64_add_return(shmem->base.size, tg_region_used(tg, bo->region)) >
	    (s64)tg_param_vram_mb << 20 && bo->region == TG_BO_VRAM)
		ret = -ENOSPC;
	else
		ret = drm_gem_handle_create(file, &shmem->base, &args->handle);
	/* With a handle, that holds the object from here on. */
	drm_gem_object_put(&shmem->base);
	return ret;
}

int tg_ioctl_bo_create(struct drm_device *drm, void *data, struct drm_file *file)
{
	int idx, ret;

	if (!drm_dev_enter(drm, &idx))
		return -ENODEV;
	ret = tg_bo_create(to_tg(drm), data, file);
	drm_dev_exit(idx);
	return ret;
}

/* The object is active until `fence` signals. */
int tg_bo_add_fence(struct drm_file *file, u32 handle, struct dma_fence *fence)
{
	struct drm_gem_object *obj = drm_gem_object_lookup(file, handle);
	int ret;

	if (!obj)
		return -ENOENT;
	ret = dma_resv_lock_interruptible(obj->resv, NULL);
	if (ret)
		goto out;
	ret = dma_resv_reserve_fences(obj->resv, 1);
	if (!ret)
		dma_resv_add_fence(obj->resv, fence, DMA_RESV_USAGE_WRITE);
	dma_resv_unlock(obj->resv);
out:
	drm_gem_object_put(obj);
	return ret;
}

static void tg_bo_add_stats(struct drm_gem_object *obj, struct drm_memory_stats *stats)
{
	struct tg_bo *bo = to_tg_bo(obj);
	bool active = !dma_resv_test_signaled(obj->resv, dma_resv_usage_rw(true));

	if (drm_gem_object_is_shared_for_memory_stats(obj))
		stats->shared += obj->size;
	else
		stats->private += obj->size;
	/* Device memory is there or not; of system memory what has pages. */
	if (bo->region != TG_BO_VRAM && !bo->base.pages)
		return;
	stats->resident += obj->size;
	if (active)
		stats->active += obj->size;
	else if (bo->flags & TG_BO_PURGEABLE)
		stats->purgeable += obj->size;
}

static void tg_show_memory(struct drm_printer *p, struct drm_file *file)
{
	struct drm_memory_stats stats[TG_REGIONS] = { };
	enum drm_gem_object_status known = DRM_GEM_OBJECT_RESIDENT | DRM_GEM_OBJECT_PURGEABLE;
	struct drm_gem_object *obj;
	unsigned int i;
	int id;

#ifdef TG_GEM_OBJECT_ACTIVE
	known |= DRM_GEM_OBJECT_ACTIVE;
#endif
	spin_lock(&file->table_lock);
	idr_for_each_entry(&file->object_idr, obj, id)
		tg_bo_add_stats(obj, &stats[to_tg_bo(obj)->region]);
	spin_unlock(&file->table_lock);
	for (i = 0; i < TG_REGIONS; i++)
		drm_print_memory_stats(p, &stats[i], known, tg_regions[i]);
}

/* 19.2 MHz, as a GPU's own clock: cycles are 12/625 of the nanoseconds. */
static u64 tg_cycles(u64 ns)
{
	return mul_u64_u64_div_u64(ns, 12, 625);
}

static void tg_show_engine(struct drm_printer *p, unsigned int engine, u64 busy_ns, u64 now_ns)
{
	const char *name = tg_engine_names[engine];
	bool cycles = !strcmp(tg_param_fdinfo, "cycles");

	if (!cycles)
		drm_printf(p, "drm-engine-%s:\t%llu ns\n", name, busy_ns);
	if (cycles || !strcmp(tg_param_fdinfo, "both")) {
		drm_printf(p, "drm-cycles-%s:\t%llu\n", name, tg_cycles(busy_ns));
		drm_printf(p, "drm-total-cycles-%s:\t%llu\n", name, tg_cycles(now_ns));
	}
	if (tg_engine_capacity[engine] > 1)
		drm_printf(p, "drm-engine-capacity-%s:\t%u\n", name, tg_engine_capacity[engine]);
}

/* The core has made sure that the device is there: drm_show_fdinfo(). */
void tg_show_fdinfo(struct drm_printer *p, struct drm_file *file)
{
	struct tg_device *tg = to_tg(file->minor->dev);
	struct tg_client *client = file->driver_priv;
	u64 busy_ns[TG_MAX_ENGINES] = { };
	u64 now_ns = ktime_get_ns();
	bool awake = false;
	unsigned int i;

	if (tg_fault_point(tg, "fdinfo"))
		return;
	atomic64_inc(&tg->accesses[TG_ACCESS_FDINFO]);
	if (READ_ONCE(tg->fdinfo_wakes)) {
		if (tg_pm_get(tg, TG_ACCESS_FDINFO))
			return;
		awake = true;
	}
	for (i = 0; i < tg->rings; i++)
		busy_ns[tg->ring[i].engine] += tg_ring_busy(&tg->ring[i], client);
	for (i = 0; i < TG_MAX_ENGINES; i++)
		tg_show_engine(p, i, busy_ns[i], now_ns);
	tg_show_memory(p, file);
	if (awake)
		tg_pm_put(tg);
}
