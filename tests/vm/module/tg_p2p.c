// SPDX-License-Identifier: GPL-2.0 OR MIT
/* The BAR as peer-to-peer memory, and the kernel's answer for any pair of PCI devices. */
#include <linux/pci.h>
#include <linux/pci-p2pdma.h>
#include <linux/sizes.h>

#include "tg.h"

#define TG_P2P_BAR 2	/* of QEMU's pci-testdev with membar=SIZE */

#ifdef CONFIG_PCI_P2PDMA
int tg_p2p_init(struct tg_device *tg)
{
	int ret;

	mutex_init(&tg->p2p_lock);
	if (!tg->pdev || pci_resource_len(tg->pdev, TG_P2P_BAR) < SZ_1M)
		return 0;
	ret = pci_p2pdma_add_resource(tg->pdev, TG_P2P_BAR, pci_resource_len(tg->pdev, TG_P2P_BAR), 0);
	if (ret)
		return ret;
	pci_p2pmem_publish(tg->pdev, true);
	tg->p2p = true;
	return 0;
}

void tg_p2p_fini(struct tg_device *tg)
{
	tg_p2p_alloc(tg, 0);
}

/* Takes that many bytes of it instead of those taken before; 0: none. */
int tg_p2p_alloc(struct tg_device *tg, size_t size)
{
	int ret = 0;

	if (!tg->p2p)
		return size ? -EOPNOTSUPP : 0;
	mutex_lock(&tg->p2p_lock);
	if (tg->p2p_addr)
		pci_free_p2pmem(tg->pdev, tg->p2p_addr, tg->p2p_size);
	tg->p2p_addr = size ? pci_alloc_p2pmem(tg->pdev, size) : NULL;
	tg->p2p_size = tg->p2p_addr ? size : 0;
	if (size && !tg->p2p_addr)
		ret = -ENOMEM;
	mutex_unlock(&tg->p2p_lock);
	return ret;
}

static struct pci_dev *tg_pci_device(const char *address)
{
	unsigned int domain, bus, slot, function;

	if (sscanf(address, "%x:%x:%x.%x", &domain, &bus, &slot, &function) != 4)
		return NULL;
	return pci_get_domain_bus_and_slot(domain, bus, PCI_DEVFN(slot, function));
}

/* -1 in *distance: the kernel would not map one's memory for the other. */
int tg_p2p_distance(const char *provider_name, const char *client_name, int *distance)
{
	struct pci_dev *provider = tg_pci_device(provider_name);
	struct pci_dev *client = tg_pci_device(client_name);
	int ret = -ENODEV;

	if (provider && client) {
		*distance = pci_p2pdma_distance(provider, &client->dev, false);
		ret = 0;
	}
	pci_dev_put(provider);
	pci_dev_put(client);
	return ret;
}
#else
int tg_p2p_init(struct tg_device *tg)
{
	return 0;
}

void tg_p2p_fini(struct tg_device *tg)
{
}

int tg_p2p_alloc(struct tg_device *tg, size_t size)
{
	return -EOPNOTSUPP;
}

int tg_p2p_distance(const char *provider_name, const char *client_name, int *distance)
{
	return -EOPNOTSUPP;
}
#endif
