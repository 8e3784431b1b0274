"""Rockchip NPUs: a platform device with an accel node and no file of its own to sample.

What there is of it comes from the PM core: its power state and the time it slept. No fdinfo, no hwmon chip, no
devfreq.

drivers/accel/rocket/rocket_drv.c.
"""

from gpudaemon.drivers import GpuDriver

__all__ = ["DRIVER"]


DRIVER = GpuDriver(
    kernel_driver="rocket",
    vendor="rockchip",
    identity={},
    emits=(),
)
