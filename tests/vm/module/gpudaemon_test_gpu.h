/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note OR MIT */
/*
 * What a program says to a test GPU. Every structure has the same layout for 32 and 64 bits and no hole.
 */
#ifndef GPUDAEMON_TEST_GPU_H
#define GPUDAEMON_TEST_GPU_H

#include <drm/drm.h>

#define TG_MAX_RINGS	4
#define TG_MAX_ENGINES	3

/* What this device, on this kernel, can do. */
#define TG_FEATURE_HMM		(1 << 0)	/* device-private memory */
#define TG_FEATURE_P2P		(1 << 1)	/* its BAR is peer-to-peer memory */
#define TG_FEATURE_WEDGED	(1 << 2)	/* the kernel has wedged events */

struct tg_info {
	__u64 client_id;	/* drm-client-id of this open file */
	__u64 vram_size;	/* bytes */
	__u32 rings;
	__u32 features;
};

#define TG_SUBMIT_HANG	(1 << 0)	/* the job never ends by itself */

struct tg_submit {
	__u64 duration_ns;
	__u32 ring;
	__u32 count;		/* jobs, one after the other; at most 65536 */
	__u32 flags;
	__u32 in_sync;		/* syncobj the first waits for, or 0 */
	__u32 out_sync;		/* syncobj that gets the last one's fence, or 0 */
	__u32 bo;		/* object the last one writes, or 0 */
};

struct tg_wait {
	__u64 timeout_ns;	/* until every job of this file has been freed */
};

#define TG_BO_VRAM	0
#define TG_BO_SYSTEM	1

#define TG_BO_PURGEABLE	(1 << 0)

struct tg_bo_create {
	__u64 size;
	__u32 region;
	__u32 flags;
	__u32 handle;		/* out */
	__u32 pad;
};

#define TG_TO_DEVICE	0
#define TG_TO_SYSTEM	1

/* Anonymous memory of the caller, whole pages. */
struct tg_migrate {
	__u64 addr;
	__u64 size;
	__u32 direction;
	__u32 pad;
	__u64 migrated;		/* out: pages */
};

/* hmm_range_fault(): where the pages are. With TG_RANGE_ADD the device adds `value` to each 64-bit word there. */
#define TG_RANGE_FAULT	(1 << 0)	/* fault in what is not there */
#define TG_RANGE_ADD	(1 << 1)

struct tg_range {
	__u64 addr;
	__u64 size;
	__u64 value;
	__u32 flags;
	__u32 pad;
	__u64 device;		/* out: pages on this device */
	__u64 system;		/* out: pages in system memory */
};

#define TG_INFO		0x00
#define TG_SUBMIT	0x01
#define TG_WAIT		0x02
#define TG_BO_CREATE	0x03
#define TG_MIGRATE	0x04
#define TG_RANGE	0x05

#define DRM_IOCTL_TG_INFO	DRM_IOR(DRM_COMMAND_BASE + TG_INFO, struct tg_info)
#define DRM_IOCTL_TG_SUBMIT	DRM_IOW(DRM_COMMAND_BASE + TG_SUBMIT, struct tg_submit)
#define DRM_IOCTL_TG_WAIT	DRM_IOW(DRM_COMMAND_BASE + TG_WAIT, struct tg_wait)
#define DRM_IOCTL_TG_BO_CREATE	DRM_IOWR(DRM_COMMAND_BASE + TG_BO_CREATE, struct tg_bo_create)
#define DRM_IOCTL_TG_MIGRATE	DRM_IOWR(DRM_COMMAND_BASE + TG_MIGRATE, struct tg_migrate)
#define DRM_IOCTL_TG_RANGE	DRM_IOWR(DRM_COMMAND_BASE + TG_RANGE, struct tg_range)

#endif
