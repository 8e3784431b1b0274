/* SPDX-License-Identifier: GPL-2.0 OR MIT */
/*
 * A GPU that exists in a test's virtual machine only: what the parts of its driver share.
 *
 * The "hardware" is a number of rings, each working off jobs of a known duration in order, timed by an hrtimer. All
 * accounting follows the nominal times, never the moment a late timer ran: what a job occupied its ring for is its
 * duration to the nanosecond.
 */
#ifndef TG_H
#define TG_H

#include <linux/atomic.h>
#include <linux/hrtimer.h>
#include <linux/kref.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/wait.h>

#include <drm/drm_device.h>
#include <drm/drm_drv.h>
#include <drm/drm_file.h>
#include <drm/drm_gem_shmem_helper.h>
#include <drm/gpu_scheduler.h>

#include "gpudaemon_test_gpu.h"

#define TG_NAME		"gpudaemon_test_gpu"

struct pci_dev;
struct seq_file;
struct tg_hmm;
struct tg_load;

/* Times one thing was done to a device, by what did it. */
enum tg_access {
	TG_ACCESS_HWMON,
	TG_ACCESS_SYSFS,
	TG_ACCESS_FDINFO,
	TG_ACCESS_OPEN,
	TG_ACCESS_SUBMIT,
	TG_ACCESSES
};

enum tg_count {
	TG_RESUMES,
	TG_SUSPENDS,
	TG_REFUSED,		/* reads refused because the device slept */
	TG_OPENS,
	TG_RESETS,
	TG_COREDUMPS,
	TG_WEDGED,
	TG_TO_DEVICE_PAGES,
	TG_TO_SYSTEM_PAGES,
	TG_CPU_FAULTS,		/* CPU touched a page that was on the device */
	TG_EVICTED_PAGES,
	TG_RANGE_FAULTS,	/* calls of hmm_range_fault() */
	TG_COUNTS
};

struct tg_ring_counts {
	atomic64_t queued;
	atomic64_t run;
	atomic64_t done;
	atomic64_t timed_out;
	atomic64_t cancelled;	/* of a killed client, or when the device went */
	atomic64_t resubmitted;	/* innocent of a reset */
};

struct tg_ring {
	struct drm_gpu_scheduler sched;
	struct tg_device *tg;
	const char *name;
	unsigned int index;
	unsigned int engine;
	u64 fence_context;
	atomic64_t fence_seqno;
	spinlock_t fence_lock;

	spinlock_t lock;	/* all below; taken in hard interrupts */
	struct list_head hw;	/* struct tg_hw_job, the first one runs */
	struct hrtimer timer;
	bool dead;
	u64 busy_ns;		/* of jobs that ended */

	struct tg_ring_counts counts;
};

/* A job in the hardware. Its fence comes first: dma_fence_free() frees the whole by it. */
struct tg_hw_job {
	struct dma_fence fence;
	struct list_head node;
	struct tg_client *client;
	ktime_t start;
	ktime_t end;
	u64 duration_ns;
	bool hang;
};

struct tg_client_ring {
	struct drm_sched_entity entity;
	struct tg_ring_counts counts;
	u64 busy_ns;		/* under the ring's lock */
};

/* An open file, or the driver itself. */
struct tg_client {
	struct kref refs;
	struct tg_device *tg;
	struct list_head node;	/* tg->clients */
	struct mutex lock;	/* order of arming and pushing; alive */
	bool alive;
	u64 id;			/* drm-client-id; 0: the driver */
	pid_t pid;
	char comm[TASK_COMM_LEN];
	atomic_t pending;	/* jobs not freed yet */
	wait_queue_head_t idle;
	struct tg_client_ring ring[TG_MAX_RINGS];
};

struct tg_job {
	struct drm_sched_job base;
	struct tg_client *client;
	struct tg_ring *ring;
	u64 duration_ns;
	u32 flags;
	pid_t pid;
	char comm[TASK_COMM_LEN];
	bool ran;
	bool timed_out;
};

/* A sensor block's memory between two readings. */
struct tg_sensors {
	struct mutex lock;
	ktime_t at;
	u64 busy_ns;		/* of all rings, then */
	u64 energy_uj;		/* then */
	u64 awake_ns;		/* then */
	unsigned int busy_permille;
	u64 power_uw;
	long temp_mdeg;
	long power_cap_uw;
};

struct tg_device {
	struct drm_device drm;
	struct device *dev;
	struct pci_dev *pdev;	/* NULL: platform flavour */
	struct workqueue_struct *timeout_wq;
	struct tg_ring ring[TG_MAX_RINGS];
	unsigned int rings;

	struct mutex clients_lock;
	struct list_head clients;
	struct tg_client *kernel_client;
	atomic_t jobs;		/* of all clients, not freed yet */
	wait_queue_head_t jobs_wq;

	spinlock_t fault_lock;
	struct list_head faults;
	wait_queue_head_t fault_wq;
	atomic_t held;		/* callers a fault holds now */
	bool removed;

	struct mutex load_lock;
	struct tg_load *load[TG_MAX_RINGS];

	struct device *hwmon;
	struct tg_sensors sensors;
	struct mutex pm_lock;
	u64 awake_ns;		/* until awake_since */
	ktime_t awake_since;	/* 0: asleep */
	bool reads_refused;	/* a read never wakes the device, it fails */
	bool fdinfo_wakes;

	unsigned long wedge_method;
	atomic64_t vram_used;
	atomic64_t system_used;

	struct mutex hmm_lock;
	struct tg_hmm *hmm;

	bool p2p;
	struct mutex p2p_lock;
	void *p2p_addr;
	size_t p2p_size;

	struct dentry *debugfs;
	atomic64_t counts[TG_COUNTS];
	atomic64_t accesses[TG_ACCESSES];
	atomic64_t wakes[TG_ACCESSES];
};

static inline struct tg_device *to_tg(struct drm_device *drm)
{
	return container_of(drm, struct tg_device, drm);
}

static inline void tg_count(struct tg_device *tg, enum tg_count what, u64 by)
{
	atomic64_add(by, &tg->counts[what]);
}

/* tg_drv.c: parameters */
extern unsigned int tg_param_vram_mb;
extern unsigned int tg_param_hmm_mb;
extern unsigned int tg_param_timeout_ms;
extern unsigned int tg_param_depth;
extern int tg_param_autosuspend_ms;
extern char *tg_param_fdinfo;

/* tg_ring.c: the hardware and the scheduler's back end */
extern const char * const tg_engine_names[TG_MAX_ENGINES];
extern const unsigned int tg_engine_capacity[TG_MAX_ENGINES];
int tg_rings_init(struct tg_device *tg);
void tg_rings_kill(struct tg_device *tg);
void tg_rings_fini(struct tg_device *tg);
void tg_ring_reset(struct tg_ring *ring, int error);
u64 tg_ring_busy(struct tg_ring *ring, struct tg_client *client);
u64 tg_busy(struct tg_device *tg);

/* tg_client.c: open files and what they submit */
int tg_client_open(struct drm_device *drm, struct drm_file *file);
void tg_client_close(struct drm_device *drm, struct drm_file *file);
struct tg_client *tg_client_create(struct tg_device *tg, u64 id);
void tg_client_kill(struct tg_client *client);
void tg_client_put(struct tg_client *client);
void tg_job_free(struct tg_job *job);
int tg_submit(struct tg_client *client, const struct tg_submit *args, struct drm_file *file);
int tg_ioctl_info(struct drm_device *drm, void *data, struct drm_file *file);
int tg_ioctl_submit(struct drm_device *drm, void *data, struct drm_file *file);
int tg_ioctl_wait(struct drm_device *drm, void *data, struct drm_file *file);

/* tg_reset.c */
enum drm_gpu_sched_stat tg_timedout_job(struct drm_sched_job *job);
int tg_wedge_set(struct tg_device *tg, char *methods);
int tg_wedge_now(struct tg_device *tg);

/* tg_mem.c: objects and fdinfo */
struct drm_gem_object *tg_bo_alloc(struct drm_device *drm, size_t size);
int tg_bo_add_fence(struct drm_file *file, u32 handle, struct dma_fence *fence);
int tg_ioctl_bo_create(struct drm_device *drm, void *data, struct drm_file *file);
void tg_show_fdinfo(struct drm_printer *p, struct drm_file *file);

/* tg_fault.c */
int tg_fault_point(struct tg_device *tg, const char *name);
int tg_fault_set(struct tg_device *tg, const char *name, const char *mode, const char *value);
void tg_fault_release(struct tg_device *tg);
void tg_fault_fini(struct tg_device *tg);
void tg_fault_show(struct tg_device *tg, struct seq_file *m);

/* tg_hwmon.c: sensors, and attributes of the driver's own */
int tg_hwmon_init(struct tg_device *tg);
void tg_hwmon_fini(struct tg_device *tg);

/* tg_load.c */
int tg_load_set(struct tg_device *tg, unsigned int ring, unsigned int percent, unsigned int job_us);
void tg_load_fini(struct tg_device *tg);

/* tg_pm.c */
extern const struct dev_pm_ops tg_pm_ops;
void tg_pm_init(struct tg_device *tg);
void tg_pm_fini(struct tg_device *tg);
int tg_pm_get(struct tg_device *tg, enum tg_access by);
int tg_pm_get_for_read(struct tg_device *tg, enum tg_access by);
void tg_pm_put(struct tg_device *tg);
u64 tg_awake_ns(struct tg_device *tg);

/* tg_hmm.c */
bool tg_hmm_supported(void);
void tg_hmm_fini(struct tg_device *tg);
int tg_hmm_evict(struct tg_device *tg);
void tg_hmm_show(struct tg_device *tg, struct seq_file *m);
int tg_ioctl_migrate(struct drm_device *drm, void *data, struct drm_file *file);
int tg_ioctl_range(struct drm_device *drm, void *data, struct drm_file *file);

/* tg_p2p.c */
int tg_p2p_init(struct tg_device *tg);
void tg_p2p_fini(struct tg_device *tg);
int tg_p2p_alloc(struct tg_device *tg, size_t size);
int tg_p2p_distance(const char *provider, const char *client, int *distance);

/* tg_debugfs.c */
void tg_debugfs_init(struct tg_device *tg);
void tg_debugfs_fini(struct tg_device *tg);
void tg_debugfs_register(void);
void tg_debugfs_unregister(void);

#endif
