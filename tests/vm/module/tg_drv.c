// SPDX-License-Identifier: GPL-2.0 OR MIT
/* Probe and removal of both flavours: platform devices made by the module itself, and QEMU's pci-testdev. */
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/platform_device.h>
#include <linux/pm_runtime.h>

#include <drm/drm_ioctl.h>

#include "tg.h"

#define TG_MAX_DEVICES	16

static unsigned int tg_param_devices = 1;
module_param_named(devices, tg_param_devices, uint, 0444);
MODULE_PARM_DESC(devices, "Platform devices to make (default 1, at most 16)");

unsigned int tg_param_vram_mb = 256;
module_param_named(vram_mb, tg_param_vram_mb, uint, 0444);
MODULE_PARM_DESC(vram_mb, "Device memory of each, MiB (default 256)");

unsigned int tg_param_hmm_mb = 16;
module_param_named(hmm_mb, tg_param_hmm_mb, uint, 0444);
MODULE_PARM_DESC(hmm_mb, "Device-private memory, made at the first migration, MiB (default 16)");

unsigned int tg_param_timeout_ms = 2000;
module_param_named(timeout_ms, tg_param_timeout_ms, uint, 0444);
MODULE_PARM_DESC(timeout_ms, "A job that takes longer is reset (default 2000)");

unsigned int tg_param_depth = 4;
module_param_named(depth, tg_param_depth, uint, 0444);
MODULE_PARM_DESC(depth, "Jobs a ring takes at a time (default 4)");

int tg_param_autosuspend_ms = -1;
module_param_named(autosuspend_ms, tg_param_autosuspend_ms, int, 0444);
MODULE_PARM_DESC(autosuspend_ms, "Runtime suspend when idle for so long; -1: never (default)");

char *tg_param_fdinfo = "ns";
module_param_named(fdinfo, tg_param_fdinfo, charp, 0444);
MODULE_PARM_DESC(fdinfo, "Engines in fdinfo: ns (default), cycles or both");

static const struct drm_ioctl_desc tg_ioctls[] = {
	DRM_IOCTL_DEF_DRV(TG_INFO, tg_ioctl_info, DRM_RENDER_ALLOW),
	DRM_IOCTL_DEF_DRV(TG_SUBMIT, tg_ioctl_submit, DRM_RENDER_ALLOW),
	DRM_IOCTL_DEF_DRV(TG_WAIT, tg_ioctl_wait, DRM_RENDER_ALLOW),
	DRM_IOCTL_DEF_DRV(TG_BO_CREATE, tg_ioctl_bo_create, DRM_RENDER_ALLOW),
	DRM_IOCTL_DEF_DRV(TG_MIGRATE, tg_ioctl_migrate, DRM_RENDER_ALLOW),
	DRM_IOCTL_DEF_DRV(TG_RANGE, tg_ioctl_range, DRM_RENDER_ALLOW),
};

static const struct file_operations tg_fops = {
	.owner = THIS_MODULE,
	DRM_GEM_FOPS,
	.show_fdinfo = drm_show_fdinfo,
};

static const struct drm_driver tg_drm_driver = {
	.driver_features = DRIVER_GEM | DRIVER_RENDER | DRIVER_SYNCOBJ | DRIVER_SYNCOBJ_TIMELINE,
	.open = tg_client_open,
	.postclose = tg_client_close,
	.gem_create_object = tg_bo_alloc,
	DRM_GEM_SHMEM_DRIVER_OPS,
	.show_fdinfo = tg_show_fdinfo,
	.ioctls = tg_ioctls,
	.num_ioctls = ARRAY_SIZE(tg_ioctls),
	.fops = &tg_fops,
	.name = TG_NAME,
	.desc = "test GPU of gpudaemon",
#ifdef TG_DRIVER_DATE
	.date = "20261125",
#endif
	.major = 1,
	.minor = 0,
};

/* Jobs of the driver's own and of every file still open end, and with them all that uses a scheduler. */
static void tg_stop(struct tg_device *tg)
{
	struct tg_client *client;

	tg_load_fini(tg);
	tg_rings_kill(tg);
	mutex_lock(&tg->clients_lock);
	list_for_each_entry(client, &tg->clients, node)
		tg_client_kill(client);
	if (tg->kernel_client) {
		list_del_init(&tg->kernel_client->node);
		tg_client_put(tg->kernel_client);
		tg->kernel_client = NULL;
	}
	mutex_unlock(&tg->clients_lock);
	wait_event(tg->jobs_wq, !atomic_read(&tg->jobs));
	tg_rings_fini(tg);
}

static int tg_start(struct tg_device *tg)
{
	int ret = tg_rings_init(tg);

	if (ret)
		return ret;
	tg->kernel_client = tg_client_create(tg, 0);
	if (IS_ERR(tg->kernel_client)) {
		ret = PTR_ERR(tg->kernel_client);
		tg->kernel_client = NULL;
		goto stop;
	}
	ret = tg_p2p_init(tg);
	if (ret)
		goto stop;
	ret = tg_hwmon_init(tg);
	if (ret)
		goto stop;
	ret = drm_dev_register(&tg->drm, 0);
	if (ret)
		goto hwmon;
	return 0;

hwmon:
	tg_fault_fini(tg);
	tg_hwmon_fini(tg);
stop:
	tg_stop(tg);
	return ret;
}

static int tg_probe(struct device *dev, struct pci_dev *pdev)
{
	struct tg_device *tg = devm_drm_dev_alloc(dev, &tg_drm_driver, struct tg_device, drm);
	int ret;

	if (IS_ERR(tg))
		return PTR_ERR(tg);
	tg->dev = dev;
	tg->pdev = pdev;
	mutex_init(&tg->clients_lock);
	INIT_LIST_HEAD(&tg->clients);
	init_waitqueue_head(&tg->jobs_wq);
	spin_lock_init(&tg->fault_lock);
	INIT_LIST_HEAD(&tg->faults);
	init_waitqueue_head(&tg->fault_wq);
	mutex_init(&tg->load_lock);
	mutex_init(&tg->hmm_lock);
#ifdef TG_WEDGED_EVENT
	tg->wedge_method = DRM_WEDGE_RECOVERY_NONE;
#endif
	dev_set_drvdata(dev, tg);
	tg_pm_init(tg);
	ret = tg_start(tg);
	if (ret) {
		tg_pm_fini(tg);
		return ret;
	}
	tg_debugfs_init(tg);
	tg_pm_put(tg);
	return 0;
}

/* Takes no longer than what a job needs to be given up: whoever waits for this device is let go first. */
static void tg_remove(struct device *dev)
{
	struct tg_device *tg = dev_get_drvdata(dev);

	/* Readers first: they are let go, and none begins to hang again. */
	tg_fault_fini(tg);
	pm_runtime_get_sync(dev);
	tg_debugfs_fini(tg);
	tg_hwmon_fini(tg);
	drm_dev_unplug(&tg->drm);
	tg_stop(tg);
	tg_hmm_fini(tg);
	tg_p2p_fini(tg);
	tg_pm_fini(tg);
}

static int tg_platform_probe(struct platform_device *platform)
{
	return tg_probe(&platform->dev, NULL);
}

static void tg_platform_remove(struct platform_device *platform)
{
	tg_remove(&platform->dev);
}

static struct platform_driver tg_platform_driver = {
	.probe = tg_platform_probe,
	.remove = tg_platform_remove,
	.driver = {
		.name = TG_NAME,
		.pm = pm_ptr(&tg_pm_ops),
	},
};

static int tg_pci_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	int ret = pcim_enable_device(pdev);

	return ret ? ret : tg_probe(&pdev->dev, pdev);
}

static void tg_pci_remove(struct pci_dev *pdev)
{
	tg_remove(&pdev->dev);
}

static const struct pci_device_id tg_pci_ids[] = {
	{ PCI_DEVICE(0x1b36, 0x0005) },
	{ }
};
MODULE_DEVICE_TABLE(pci, tg_pci_ids);

static struct pci_driver tg_pci_driver = {
	.name = TG_NAME,
	.id_table = tg_pci_ids,
	.probe = tg_pci_probe,
	.remove = tg_pci_remove,
	.driver = {
		.pm = pm_ptr(&tg_pm_ops),
	},
};

static struct platform_device *tg_platform_devices[TG_MAX_DEVICES];

static void tg_platform_devices_unregister(void)
{
	unsigned int i;

	for (i = 0; i < TG_MAX_DEVICES; i++)
		platform_device_unregister(tg_platform_devices[i]);
}

static int tg_platform_devices_register(void)
{
	unsigned int i;

	for (i = 0; i < min_t(unsigned int, tg_param_devices, TG_MAX_DEVICES); i++) {
		struct platform_device *made = platform_device_register_simple(TG_NAME, i, NULL, 0);

		if (IS_ERR(made)) {
			tg_platform_devices_unregister();
			return PTR_ERR(made);
		}
		tg_platform_devices[i] = made;
	}
	return 0;
}

static int __init tg_init(void)
{
	int ret;

	tg_debugfs_register();
	ret = platform_driver_register(&tg_platform_driver);
	if (ret)
		goto debugfs;
	ret = pci_register_driver(&tg_pci_driver);
	if (ret)
		goto platform;
	ret = tg_platform_devices_register();
	if (ret)
		goto pci;
	return 0;

pci:
	pci_unregister_driver(&tg_pci_driver);
platform:
	platform_driver_unregister(&tg_platform_driver);
debugfs:
	tg_debugfs_unregister();
	return ret;
}
module_init(tg_init);

static void __exit tg_exit(void)
{
	tg_platform_devices_unregister();
	pci_unregister_driver(&tg_pci_driver);
	platform_driver_unregister(&tg_platform_driver);
	tg_debugfs_unregister();
}
module_exit(tg_exit);

MODULE_DESCRIPTION("GPU that exists in a test's virtual machine only");
MODULE_LICENSE("Dual MIT/GPL");
