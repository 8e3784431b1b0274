// SPDX-License-Identifier: GPL-2.0 OR MIT
/*
 * /sys/kernel/debug/gpudaemon_test_gpu/: the witness of tests, and where trouble is ordered. Nothing here touches the
 * device: reading it neither wakes it nor counts as an access.
 */
#include <linux/debugfs.h>
#include <linux/module.h>
#include <linux/pm_runtime.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "tg.h"

static struct dentry *tg_debugfs_root;

static const char * const tg_access_names[TG_ACCESSES] = { "hwmon", "sysfs", "fdinfo", "open", "submit" };

static const char * const tg_count_names[TG_COUNTS] = {
	"pm.resumes", "pm.suspends", "pm.refused", "opens", "resets", "coredumps", "wedged",
	"hmm.to_device_pages", "hmm.to_system_pages", "hmm.cpu_faults", "hmm.evicted_pages",
	"hmm.range_faults",
};

static void tg_show_ring_counts(struct seq_file *m, const char *prefix, struct tg_ring_counts *c)
{
	seq_printf(m, "%s.queued %lld\n%s.run %lld\n%s.done %lld\n%s.timed_out %lld\n%s.cancelled %lld\n",
		   prefix, atomic64_read(&c->queued), prefix, atomic64_read(&c->run), prefix,
		   atomic64_read(&c->done), prefix, atomic64_read(&c->timed_out), prefix,
		   atomic64_read(&c->cancelled));
	seq_printf(m, "%s.resubmitted %lld\n", prefix, atomic64_read(&c->resubmitted));
}

static int counters_show(struct seq_file *m, void *unused)
{
	struct tg_device *tg = m->private;
	u64 engine_ns[TG_MAX_ENGINES] = { };
	unsigned int i;

	for (i = 0; i < tg->rings; i++) {
		struct tg_ring *ring = &tg->ring[i];
		u64 busy_ns = tg_ring_busy(ring, NULL);
		char prefix[32];

		engine_ns[ring->engine] += busy_ns;
		snprintf(prefix, sizeof(prefix), "ring.%s", ring->name);
		tg_show_ring_counts(m, prefix, &ring->counts);
		seq_printf(m, "%s.busy_ns %llu\n", prefix, busy_ns);
	}
	for (i = 0; i < TG_MAX_ENGINES; i++)
		seq_printf(m, "engine.%s.busy_ns %llu\n", tg_engine_names[i], engine_ns[i]);
	for (i = 0; i < TG_COUNTS; i++)
		seq_printf(m, "%s %lld\n", tg_count_names[i], atomic64_read(&tg->counts[i]));
	for (i = 0; i < TG_ACCESSES; i++)
		seq_printf(m, "access.%s %lld\nwake.%s %lld\n", tg_access_names[i],
			   atomic64_read(&tg->accesses[i]), tg_access_names[i],
			   atomic64_read(&tg->wakes[i]));
	seq_printf(m, "pm.awake_ns %llu\npm.usage %d\n", tg_awake_ns(tg),
		   atomic_read(&tg->dev->power.usage_count));
	seq_printf(m, "jobs %d\nfaults.held %d\n", atomic_read(&tg->jobs), atomic_read(&tg->held));
	seq_printf(m, "vram.used_bytes %lld\nsystem.used_bytes %lld\n", atomic64_read(&tg->vram_used),
		   atomic64_read(&tg->system_used));
	tg_hmm_show(tg, m);
	seq_printf(m, "p2p.allocated_bytes %zu\n", tg->p2p_size);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(counters);

/* One paragraph a client that is open now, in the same words; 0 is the driver's own. */
static int clients_show(struct seq_file *m, void *unused)
{
	struct tg_device *tg = m->private;
	struct tg_client *client;
	unsigned int i;

	mutex_lock(&tg->clients_lock);
	list_for_each_entry(client, &tg->clients, node) {
		seq_printf(m, "client %llu\npid %d\ncomm %s\npending %d\n", client->id, client->pid,
			   client->comm, atomic_read(&client->pending));
		for (i = 0; i < tg->rings; i++) {
			char prefix[32];

			snprintf(prefix, sizeof(prefix), "ring.%s", tg->ring[i].name);
			tg_show_ring_counts(m, prefix, &client->ring[i].counts);
			seq_printf(m, "%s.busy_ns %llu\n", prefix, tg_ring_busy(&tg->ring[i], client));
		}
		seq_putc(m, '\n');
	}
	mutex_unlock(&tg->clients_lock);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(clients);

static int tg_control_ring(struct tg_device *tg, const char *name)
{
	unsigned int i;

	for (i = 0; i < tg->rings; i++)
		if (!strcmp(tg->ring[i].name, name))
			return i;
	return -EINVAL;
}

/* load RING PERCENT JOB_US */
static int tg_control_load(struct tg_device *tg, int argc, char **argv)
{
	int ring = tg_control_ring(tg, argv[1]);
	unsigned int percent, job_us;

	if (ring < 0 || kstrtouint(argv[2], 0, &percent) || kstrtouint(argv[3], 0, &job_us))
		return -EINVAL;
	return tg_load_set(tg, ring, percent, job_us);
}

/* submit RING COUNT JOB_US | hang RING */
static int tg_control_submit(struct tg_device *tg, int argc, char **argv)
{
	struct tg_submit args = { .count = 1, .flags = TG_SUBMIT_HANG };
	int ring = tg_control_ring(tg, argv[1]);
	unsigned int job_us;
	int idx, ret;

	if (ring < 0)
		return ring;
	args.ring = ring;
	if (argc == 4) {
		if (kstrtouint(argv[2], 0, &args.count) || kstrtouint(argv[3], 0, &job_us))
			return -EINVAL;
		args.duration_ns = (u64)job_us * NSEC_PER_USEC;
		args.flags = 0;
	}
	if (!drm_dev_enter(&tg->drm, &idx))
		return -ENODEV;
	ret = tg_submit(tg->kernel_client, &args, NULL);
	drm_dev_exit(idx);
	return ret;
}

/* fault NAME slow MS | fault NAME error ERRNO | fault NAME hang | fault NAME off */
static int tg_control_fault(struct tg_device *tg, int argc, char **argv)
{
	return tg_fault_set(tg, argv[1], argv[2], argc > 3 ? argv[3] : NULL);
}

static int tg_control_release(struct tg_device *tg, int argc, char **argv)
{
	tg_fault_release(tg);
	return 0;
}

/* wedge METHOD[,METHOD] */
static int tg_control_wedge(struct tg_device *tg, int argc, char **argv)
{
	return tg_wedge_set(tg, argv[1]);
}

static int tg_control_wedged(struct tg_device *tg, int argc, char **argv)
{
	return tg_wedge_now(tg);
}

/* reads wake | reads refuse */
static int tg_control_reads(struct tg_device *tg, int argc, char **argv)
{
	bool refuse = !strcmp(argv[1], "refuse");

	if (!refuse && strcmp(argv[1], "wake"))
		return -EINVAL;
	WRITE_ONCE(tg->reads_refused, refuse);
	return 0;
}

/* fdinfo wake | fdinfo sleep */
static int tg_control_fdinfo(struct tg_device *tg, int argc, char **argv)
{
	bool wake = !strcmp(argv[1], "wake");

	if (!wake && strcmp(argv[1], "sleep"))
		return -EINVAL;
	WRITE_ONCE(tg->fdinfo_wakes, wake);
	return 0;
}

/* p2p BYTES */
static int tg_control_p2p(struct tg_device *tg, int argc, char **argv)
{
	unsigned int size;

	return kstrtouint(argv[1], 0, &size) ? -EINVAL : tg_p2p_alloc(tg, size);
}

static int tg_control_evict(struct tg_device *tg, int argc, char **argv)
{
	return tg_hmm_evict(tg);
}

static const struct {
	const char *word;
	int least;
	int most;
	int (*run)(struct tg_device *tg, int argc, char **argv);
} tg_commands[] = {
	{ "load", 4, 4, tg_control_load },
	{ "submit", 4, 4, tg_control_submit },
	{ "hang", 2, 2, tg_control_submit },
	{ "fault", 3, 4, tg_control_fault },
	{ "release", 1, 1, tg_control_release },
	{ "wedge", 2, 2, tg_control_wedge },
	{ "wedged", 1, 1, tg_control_wedged },
	{ "reads", 2, 2, tg_control_reads },
	{ "fdinfo", 2, 2, tg_control_fdinfo },
	{ "p2p", 2, 2, tg_control_p2p },
	{ "evict", 1, 1, tg_control_evict },
};

static int tg_control(struct tg_device *tg, int argc, char **argv)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(tg_commands); i++)
		if (argc >= tg_commands[i].least && argc <= tg_commands[i].most &&
		    !strcmp(argv[0], tg_commands[i].word))
			return tg_commands[i].run(tg, argc, argv);
	return -EINVAL;
}

static ssize_t control_write(struct file *file, const char __user *buf, size_t len, loff_t *ppos)
{
	struct tg_device *tg = ((struct seq_file *)file->private_data)->private;
	char **argv;
	char *text;
	int argc, ret;

	if (len > 256)
		return -E2BIG;
	text = memdup_user_nul(buf, len);
	if (IS_ERR(text))
		return PTR_ERR(text);
	if (!strncmp(text, "log ", 4)) {
		/* As it stands, blanks and all: it is some other driver's line. */
		printk(KERN_ERR "%s\n", text + 4);
		kfree(text);
		return len;
	}
	argv = argv_split(GFP_KERNEL, text, &argc);
	kfree(text);
	if (!argv)
		return -ENOMEM;
	ret = argc ? tg_control(tg, argc, argv) : -EINVAL;
	argv_free(argv);
	return ret ? ret : len;
}

/* What is ordered now. */
static int control_show(struct seq_file *m, void *unused)
{
	tg_fault_show(m->private, m);
	return 0;
}

static int control_open(struct inode *inode, struct file *file)
{
	return single_open(file, control_show, inode->i_private);
}

static const struct file_operations control_fops = {
	.owner = THIS_MODULE,
	.open = control_open,
	.read = seq_read,
	.write = control_write,
	.llseek = seq_lseek,
	.release = single_release,
};

/* Write "PROVIDER CLIENT", two PCI addresses; read the answer of pci_p2pdma_distance(). One pair at a time. */
static DEFINE_MUTEX(tg_pair_lock);
static char tg_pair[2][16];

static int p2p_distance_show(struct seq_file *m, void *unused)
{
	int distance, ret;

	mutex_lock(&tg_pair_lock);
	ret = tg_pair[0][0] ? tg_p2p_distance(tg_pair[0], tg_pair[1], &distance) : -ENODATA;
	if (!ret)
		seq_printf(m, "%s %s %d\n", tg_pair[0], tg_pair[1], distance);
	mutex_unlock(&tg_pair_lock);
	return ret;
}

static ssize_t p2p_distance_write(struct file *file, const char __user *buf, size_t len, loff_t *ppos)
{
	char text[40] = "";
	char provider[16], client[16];

	if (len >= sizeof(text))
		return -E2BIG;
	if (copy_from_user(text, buf, len))
		return -EFAULT;
	if (sscanf(text, "%15s %15s", provider, client) != 2)
		return -EINVAL;
	mutex_lock(&tg_pair_lock);
	strscpy(tg_pair[0], provider, sizeof(tg_pair[0]));
	strscpy(tg_pair[1], client, sizeof(tg_pair[1]));
	mutex_unlock(&tg_pair_lock);
	return len;
}

static int p2p_distance_open(struct inode *inode, struct file *file)
{
	return single_open(file, p2p_distance_show, NULL);
}

static const struct file_operations p2p_distance_fops = {
	.owner = THIS_MODULE,
	.open = p2p_distance_open,
	.read = seq_read,
	.write = p2p_distance_write,
	.llseek = seq_lseek,
	.release = single_release,
};

void tg_debugfs_init(struct tg_device *tg)
{
	tg->debugfs = debugfs_create_dir(dev_name(tg->dev), tg_debugfs_root);
	debugfs_create_file("counters", 0444, tg->debugfs, tg, &counters_fops);
	debugfs_create_file("clients", 0444, tg->debugfs, tg, &clients_fops);
	debugfs_create_file("control", 0600, tg->debugfs, tg, &control_fops);
}

void tg_debugfs_fini(struct tg_device *tg)
{
	debugfs_remove_recursive(tg->debugfs);
}

void tg_debugfs_register(void)
{
	tg_debugfs_root = debugfs_create_dir(TG_NAME, NULL);
	debugfs_create_file("p2p_distance", 0600, tg_debugfs_root, NULL, &p2p_distance_fops);
}

void tg_debugfs_unregister(void)
{
	debugfs_remove_recursive(tg_debugfs_root);
}
