// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * Device-private memory: pages a process owns and the CPU cannot reach, Documentation/mm/hmm.rst. What such a page
 * holds stands in an ordinary page behind it. Made at the first migration, because it costs 2 MiB of struct pages.
 */
#include <linux/highmem.h>
#include <linux/hmm.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/seq_file.h>
#include <linux/slab.h>

#include "tg.h"

#if IS_ENABLED(CONFIG_DEVICE_PRIVATE) && IS_ENABLED(CONFIG_HMM_MIRROR) && defined(TG_PAGEMAP_FOLIO_FREE)

#define TG_CHUNK	64	/* pages migrated or looked at together */

struct tg_hmm {
	struct tg_device *tg;
	struct dev_pagemap pgmap;
	unsigned long first;	/* page frame */
	unsigned long pages;
	spinlock_t lock;	/* free list, used */
	struct page *free;	/* linked by zone_device_data */
	unsigned long used;
};

/* A page on the device and the ordinary one behind it; gives the former locked, with one reference. */
static struct page *tg_hmm_alloc(struct tg_hmm *hmm)
{
	struct page *behind = alloc_page(GFP_HIGHUSER);
	struct page *page;

	if (!behind)
		return NULL;
	spin_lock(&hmm->lock);
	page = hmm->free;
	if (page) {
		hmm->free = page->zone_device_data;
		hmm->used++;
	}
	spin_unlock(&hmm->lock);
	if (!page) {
		__free_page(behind);
		return NULL;
	}
	zone_device_page_init(page, &hmm->pgmap, 0);
	page->zone_device_data = behind;
	return page;
}

static void tg_hmm_folio_free(struct folio *folio)
{
	struct tg_hmm *hmm = container_of(folio->pgmap, struct tg_hmm, pgmap);
	struct page *page = &folio->page;
	struct page *behind = page->zone_device_data;

	__free_page(behind);
	spin_lock(&hmm->lock);
	page->zone_device_data = hmm->free;
	hmm->free = page;
	hmm->used--;
	spin_unlock(&hmm->lock);
}

/* Gives system memory to what migrate_vma_setup() or migrate_device_range() collected in `src`. */
static void tg_hmm_fill_system(const unsigned long *src, unsigned long *dst, unsigned long pages, gfp_t gfp)
{
	unsigned long i;

	for (i = 0; i < pages; i++) {
		struct page *from = migrate_pfn_to_page(src[i]);
		struct page *to;

		dst[i] = 0;
		if (!from || !(src[i] & MIGRATE_PFN_MIGRATE))
			continue;
		to = alloc_page(gfp);
		if (!to)
			continue;
		lock_page(to);
		copy_highpage(to, from->zone_device_data);
		dst[i] = migrate_pfn(page_to_pfn(to));
		if (src[i] & MIGRATE_PFN_WRITE)
			dst[i] |= MIGRATE_PFN_WRITE;
	}
}

static void tg_hmm_fill_device(struct tg_hmm *hmm, const struct migrate_vma *args)
{
	unsigned long i;

	for (i = 0; i < args->npages; i++) {
		struct page *from = migrate_pfn_to_page(args->src[i]);
		struct page *to;

		args->dst[i] = 0;
		if (!(args->src[i] & MIGRATE_PFN_MIGRATE))
			continue;
		to = tg_hmm_alloc(hmm);
		if (!to)
			continue;
		/* No page yet, or that of zeros: the new one begins with zeros. */
		if (from)
			copy_highpage(to->zone_device_data, from);
		else
			clear_highpage(to->zone_device_data);
		args->dst[i] = migrate_pfn(page_to_pfn(to));
		if (args->src[i] & MIGRATE_PFN_WRITE || (!from && args->vma->vm_flags & VM_WRITE))
			args->dst[i] |= MIGRATE_PFN_WRITE;
	}
}

static unsigned long tg_hmm_moved(const unsigned long *src, const unsigned long *dst, unsigned long pages)
{
	unsigned long i, moved = 0;

	for (i = 0; i < pages; i++)
		if (src[i] & MIGRATE_PFN_MIGRATE && dst[i])
			moved++;
	return moved;
}

static vm_fault_t tg_hmm_migrate_to_ram(struct vm_fault *vmf)
{
	struct tg_hmm *hmm = container_of(page_pgmap(vmf->page), struct tg_hmm, pgmap);
	unsigned long src = 0, dst = 0;
	struct migrate_vma args = {
		.vma = vmf->vma,
		.start = vmf->address & PAGE_MASK,
		.end = (vmf->address & PAGE_MASK) + PAGE_SIZE,
		.src = &src,
		.dst = &dst,
		.pgmap_owner = hmm,
		.flags = MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
		.fault_page = vmf->page,
	};
	vm_fault_t ret = 0;

	if (migrate_vma_setup(&args))
		return VM_FAULT_SIGBUS;
	tg_hmm_fill_system(&src, &dst, args.npages, GFP_HIGHUSER_MOVABLE);
	if (src & MIGRATE_PFN_MIGRATE && !dst)
		ret = VM_FAULT_OOM;
	migrate_vma_pages(&args);
	if (tg_hmm_moved(&src, &dst, args.npages))
		tg_count(hmm->tg, TG_CPU_FAULTS, 1);
	migrate_vma_finalize(&args);
	return ret;
}

static const struct dev_pagemap_ops tg_hmm_pagemap_ops = {
	.folio_free = tg_hmm_folio_free,
	.migrate_to_ram = tg_hmm_migrate_to_ram,
};

static struct tg_hmm *tg_hmm_create(struct tg_device *tg)
{
	unsigned long size = (unsigned long)tg_param_hmm_mb << 20;
	struct tg_hmm *hmm = kzalloc(sizeof(*hmm), GFP_KERNEL);
	struct resource *res;
	unsigned long i;
	void *mapped;

	if (!hmm)
		return ERR_PTR(-ENOMEM);
	res = request_free_mem_region(&iomem_resource, size, dev_name(tg->dev));
	if (IS_ERR(res)) {
		kfree(hmm);
		return ERR_CAST(res);
	}
	hmm->tg = tg;
	spin_lock_init(&hmm->lock);
	hmm->pgmap.type = MEMORY_DEVICE_PRIVATE;
	hmm->pgmap.range.start = res->start;
	hmm->pgmap.range.end = res->end;
	hmm->pgmap.nr_range = 1;
	hmm->pgmap.ops = &tg_hmm_pagemap_ops;
	hmm->pgmap.owner = hmm;
	mapped = memremap_pages(&hmm->pgmap, numa_node_id());
	if (IS_ERR(mapped)) {
		release_mem_region(res->start, resource_size(res));
		kfree(hmm);
		return ERR_CAST(mapped);
	}
	hmm->first = PHYS_PFN(res->start);
	hmm->pages = PHYS_PFN(size);
	for (i = 0; i < hmm->pages; i++) {
		struct page *page = pfn_to_page(hmm->first + i);

		page->zone_device_data = hmm->free;
		hmm->free = page;
	}
	return hmm;
}

static struct tg_hmm *tg_hmm_get(struct tg_device *tg)
{
	struct tg_hmm *hmm;

	if (!tg_param_hmm_mb)
		return ERR_PTR(-EOPNOTSUPP);
	mutex_lock(&tg->hmm_lock);
	if (!tg->hmm) {
		hmm = tg_hmm_create(tg);
		if (!IS_ERR(hmm))
			WRITE_ONCE(tg->hmm, hmm);
	} else {
		hmm = tg->hmm;
	}
	mutex_unlock(&tg->hmm_lock);
	return hmm;
}

/* Everything back into system memory, whoever it belongs to. */
static int tg_hmm_evict_locked(struct tg_hmm *hmm)
{
	unsigned long *src = kvcalloc(hmm->pages, sizeof(*src), GFP_KERNEL);
	unsigned long *dst = kvcalloc(hmm->pages, sizeof(*dst), GFP_KERNEL);
	int ret = src && dst ? 0 : -ENOMEM;

	if (!ret)
		ret = migrate_device_range(src, hmm->first, hmm->pages);
	if (!ret) {
		tg_hmm_fill_system(src, dst, hmm->pages, GFP_HIGHUSER_MOVABLE | __GFP_NOFAIL);
		migrate_device_pages(src, dst, hmm->pages);
		tg_count(hmm->tg, TG_EVICTED_PAGES, tg_hmm_moved(src, dst, hmm->pages));
		migrate_device_finalize(src, dst, hmm->pages);
	}
	kvfree(src);
	kvfree(dst);
	return ret;
}

int tg_hmm_evict(struct tg_device *tg)
{
	int ret = 0;

	mutex_lock(&tg->hmm_lock);
	if (tg->hmm)
		ret = tg_hmm_evict_locked(tg->hmm);
	mutex_unlock(&tg->hmm_lock);
	return ret;
}

void tg_hmm_fini(struct tg_device *tg)
{
	struct tg_hmm *hmm = tg->hmm;

	if (!hmm)
		return;
	while (READ_ONCE(hmm->used))
		tg_hmm_evict(tg);
	WRITE_ONCE(tg->hmm, NULL);
	memunmap_pages(&hmm->pgmap);
	release_mem_region(hmm->pgmap.range.start, range_len(&hmm->pgmap.range));
	kfree(hmm);
}

static long tg_hmm_migrate_chunk(struct tg_hmm *hmm, struct vm_area_struct *vma, unsigned long start,
				 unsigned long end, u32 direction)
{
	unsigned long src[TG_CHUNK] = { }, dst[TG_CHUNK] = { };
	struct migrate_vma args = {
		.vma = vma,
		.start = start,
		.end = end,
		.src = src,
		.dst = dst,
		.pgmap_owner = hmm,
		.flags = direction == TG_TO_DEVICE ? MIGRATE_VMA_SELECT_SYSTEM :
						     MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
	};
	long moved;
	int ret = migrate_vma_setup(&args);

	if (ret)
		return ret;
	if (direction == TG_TO_DEVICE)
		tg_hmm_fill_device(hmm, &args);
	else
		tg_hmm_fill_system(src, dst, args.npages, GFP_HIGHUSER_MOVABLE);
	migrate_vma_pages(&args);
	moved = tg_hmm_moved(src, dst, args.npages);
	migrate_vma_finalize(&args);
	tg_count(hmm->tg, direction == TG_TO_DEVICE ? TG_TO_DEVICE_PAGES : TG_TO_SYSTEM_PAGES, moved);
	return moved;
}

static bool tg_hmm_range_valid(u64 addr, u64 size)
{
	return size && size <= SZ_1G && PAGE_ALIGNED(addr) && PAGE_ALIGNED(size) && addr + size > addr &&
	       addr + size <= TASK_SIZE;
}

static int tg_hmm_migrate(struct tg_hmm *hmm, struct tg_migrate *args)
{
	struct mm_struct *mm = current->mm;
	unsigned long addr = args->addr, end = args->addr + args->size;
	long moved = 0;

	args->migrated = 0;
	mmap_read_lock(mm);
	while (addr < end && moved >= 0) {
		struct vm_area_struct *vma = vma_lookup(mm, addr);
		unsigned long until;

		if (!vma || !vma_is_anonymous(vma)) {
			moved = -EFAULT;
			break;
		}
		until = min3(end, vma->vm_end, addr + TG_CHUNK * PAGE_SIZE);
		moved = tg_hmm_migrate_chunk(hmm, vma, addr, until, args->direction);
		if (moved > 0)
			args->migrated += moved;
		addr = until;
	}
	mmap_read_unlock(mm);
	return moved < 0 ? moved : 0;
}

int tg_ioctl_migrate(struct drm_device *drm, void *data, struct drm_file *file)
{
	struct tg_device *tg = to_tg(drm);
	struct tg_migrate *args = data;
	struct tg_hmm *hmm;
	int idx, ret;

	if (!tg_hmm_range_valid(args->addr, args->size) || args->direction > TG_TO_SYSTEM || args->pad)
		return -EINVAL;
	if (!drm_dev_enter(drm, &idx))
		return -ENODEV;
	hmm = tg_hmm_get(tg);
	ret = PTR_ERR_OR_ZERO(hmm);
	if (!ret)
		ret = tg_hmm_migrate(hmm, args);
	drm_dev_exit(idx);
	return ret;
}

/* Looking at a range under a notifier: what is found holds while `lock` is held and the sequence is the same. */
struct tg_mirror {
	struct mmu_interval_notifier notifier;
	struct mutex lock;
};

static bool tg_mirror_invalidate(struct mmu_interval_notifier *notifier, const struct mmu_notifier_range *range,
				 unsigned long seq)
{
	struct tg_mirror *mirror = container_of(notifier, struct tg_mirror, notifier);

	if (mmu_notifier_range_blockable(range))
		mutex_lock(&mirror->lock);
	else if (!mutex_trylock(&mirror->lock))
		return false;
	mmu_interval_set_seq(notifier, seq);
	mutex_unlock(&mirror->lock);
	return true;
}

static const struct mmu_interval_notifier_ops tg_mirror_ops = {
	.invalidate = tg_mirror_invalidate,
};

static void tg_page_add(struct page *page, u64 value)
{
	u64 *words = kmap_local_page(page);
	unsigned int i;

	for (i = 0; i < PAGE_SIZE / sizeof(*words); i++)
		words[i] += value;
	kunmap_local(words);
}

static void tg_range_look(struct tg_hmm *hmm, struct tg_range *args, const unsigned long *pfns, unsigned long pages)
{
	unsigned long i;

	for (i = 0; i < pages; i++) {
		struct page *page;

		if (!(pfns[i] & HMM_PFN_VALID))
			continue;
		page = hmm_pfn_to_page(pfns[i]);
		if (!is_device_private_page(page)) {
			args->system++;
			continue;
		}
		args->device++;
		if (args->flags & TG_RANGE_ADD && pfns[i] & HMM_PFN_WRITE)
			tg_page_add(page->zone_device_data, args->value);
	}
}

static int tg_range_chunk(struct tg_hmm *hmm, struct tg_mirror *mirror, struct tg_range *args, unsigned long start,
			  unsigned long end)
{
	unsigned long pfns[TG_CHUNK] = { };
	struct hmm_range range = {
		.notifier = &mirror->notifier,
		.start = start,
		.end = end,
		.hmm_pfns = pfns,
		.default_flags = args->flags & TG_RANGE_FAULT ? HMM_PFN_REQ_FAULT : 0,
		.dev_private_owner = hmm,
	};
	int ret;

	while (true) {
		range.notifier_seq = mmu_interval_read_begin(range.notifier);
		mmap_read_lock(current->mm);
		ret = hmm_range_fault(&range);
		mmap_read_unlock(current->mm);
		tg_count(hmm->tg, TG_RANGE_FAULTS, 1);
		if (ret == -EBUSY && !fatal_signal_pending(current))
			continue;
		if (ret)
			return ret;
		mutex_lock(&mirror->lock);
		if (!mmu_interval_read_retry(range.notifier, range.notifier_seq))
			break;
		mutex_unlock(&mirror->lock);
	}
	tg_range_look(hmm, args, pfns, (end - start) >> PAGE_SHIFT);
	mutex_unlock(&mirror->lock);
	return 0;
}

static int tg_range(struct tg_hmm *hmm, struct tg_range *args)
{
	struct tg_mirror mirror = { };
	unsigned long addr = args->addr, end = args->addr + args->size;
	int ret;

	args->device = 0;
	args->system = 0;
	mutex_init(&mirror.lock);
	ret = mmu_interval_notifier_insert(&mirror.notifier, current->mm, args->addr, args->size, &tg_mirror_ops);
	if (ret)
		return ret;
	while (addr < end && !ret) {
		unsigned long until = min(end, addr + TG_CHUNK * PAGE_SIZE);

		ret = tg_range_chunk(hmm, &mirror, args, addr, until);
		addr = until;
	}
	mmu_interval_notifier_remove(&mirror.notifier);
	return ret;
}

int tg_ioctl_range(struct drm_device *drm, void *data, struct drm_file *file)
{
	struct tg_device *tg = to_tg(drm);
	struct tg_range *args = data;
	struct tg_hmm *hmm;
	int idx, ret;

	if (!tg_hmm_range_valid(args->addr, args->size) || args->flags & ~(TG_RANGE_FAULT | TG_RANGE_ADD) ||
	    args->pad)
		return -EINVAL;
	if (!drm_dev_enter(drm, &idx))
		return -ENODEV;
	hmm = tg_hmm_get(tg);
	ret = PTR_ERR_OR_ZERO(hmm);
	if (!ret)
		ret = tg_range(hmm, args);
	drm_dev_exit(idx);
	return ret;
}

bool tg_hmm_supported(void)
{
	return tg_param_hmm_mb;
}

void tg_hmm_show(struct tg_device *tg, struct seq_file *m)
{
	mutex_lock(&tg->hmm_lock);
	seq_printf(m, "hmm.pages %lu\nhmm.used_pages %lu\n", tg->hmm ? tg->hmm->pages : 0,
		   tg->hmm ? READ_ONCE(tg->hmm->used) : 0);
	mutex_unlock(&tg->hmm_lock);
}

#else

bool tg_hmm_supported(void)
{
	return false;
}

void tg_hmm_fini(struct tg_device *tg)
{
}

int tg_hmm_evict(struct tg_device *tg)
{
	return -EOPNOTSUPP;
}

void tg_hmm_show(struct tg_device *tg, struct seq_file *m)
{
}

int tg_ioctl_migrate(struct drm_device *drm, void *data, struct drm_file *file)
{
	return -EOPNOTSUPP;
}

int tg_ioctl_range(struct drm_device *drm, void *data, struct drm_file *file)
{
	return -EOPNOTSUPP;
}

#endif
