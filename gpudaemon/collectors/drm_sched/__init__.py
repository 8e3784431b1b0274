"""Jobs of GPUs' rings, from the kernel's own scheduler (drivers/gpu/drm/scheduler), whatever the vendor.

The kernel adds them up where it can: one probe on drm_sched_job_cleanup() sees each job once, when it is
freed, with all its times; two more count what is queued and what the hardware was given. Where it cannot, the
events of drm_sched are read from the ring buffer, in the names they have (`recipes.py`). Drivers that do not
use this scheduler (i915) and queues that the hardware schedules (KFD, user queues of amdgpu) are not seen
here.
"""

from gpudaemon.collectors import Collector
from gpudaemon.collectors.drm_sched.account import Jobs
from gpudaemon.collectors.drm_sched.recipes import RECIPES
from gpudaemon.metrics import drm_sched as rows
from gpudaemon.model.metric import Metric
from gpudaemon.model.tracing import Subject

__all__ = ["COLLECTOR", "STREAM"]

COLLECTOR = Collector(
    name="drm_sched",
    wants=lambda _: False,
    needs=lambda _: (),
    attributes=lambda _device, _facts: (),
    constants=lambda _device, _facts: (),
    emits=tuple(value for value in vars(rows).values() if isinstance(value, Metric)),
)

STREAM = Subject(name="drm_sched", recipes=RECIPES, accumulator=Jobs)
