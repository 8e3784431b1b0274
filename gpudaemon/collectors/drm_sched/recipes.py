"""How the DRM scheduler can be watched, the best first.

`fprobe`: the kernel adds up. drm_sched_job_cleanup() is called once for each job, when its driver frees it;
then its fences hold the kernel's own times of start and end, which are better than any event's: the start of
a job that was queued behind another on the hardware is the end of that one (sched_main.c,
drm_sched_get_finished_job). A hist key can be computed only by way of a synthetic event, and a histogram has
at most three keys, one of them a string: so devices are told apart by their address in the kernel, whose name
a histogram of its own gives.

The trigger that makes the synthetic event is keyed by processor, so that its map is as small as the host and no
two processors write one entry; `onchange` of the timestamp, which always changes, fires for each job.

`events`: the stable events of newer kernels; `old events`: those before, with fences named by their address and
without a device (gpu_scheduler_trace.h).
"""

from gpudaemon.model.tracing import Recipe, Tap

__all__ = [
    "CLEANUP",
    "DEPENDS",
    "DONE",
    "JOB",
    "OLD_DEPENDS",
    "OLD_DONE",
    "OLD_QUEUE",
    "OLD_RUN",
    "PUSHED",
    "QUEUE",
    "RECIPES",
    "RUN",
    "SCHEDULED",
]

_GROUP = "gpu_scheduler"
QUEUE, RUN, DONE, DEPENDS = (
    f"{_GROUP}/drm_sched_job_queue",
    f"{_GROUP}/drm_sched_job_run",
    f"{_GROUP}/drm_sched_job_done",
    f"{_GROUP}/drm_sched_job_unschedulable",
)
OLD_QUEUE, OLD_RUN, OLD_DONE, OLD_DEPENDS = (
    f"{_GROUP}/drm_sched_job",
    f"{_GROUP}/drm_run_job",
    f"{_GROUP}/drm_sched_process_job",
    f"{_GROUP}/drm_sched_job_wait_dep",
)
CLEANUP, SCHEDULED, PUSHED = "gpudaemon/job", "gpudaemon/run", "gpudaemon/queue"
JOB = "synthetic/gpudaemon_job"
_MODULES = ("gpu_sched",)

FPROBE = Recipe(
    name="fprobe",
    option="in_kernel",
    modules=_MODULES,
    probes=(
        "f:gpudaemon/job drm_sched_job_cleanup submit=job->submit_ts:u64 "
        "start=job->s_fence->scheduled.timestamp:u64 fin=job->s_fence->finished.timestamp:u64 "
        "err=job->s_fence->finished.error:s32 ring=job->sched->name:string at=job->sched->dev:u64",
        "f:gpudaemon/run drm_sched_fence_scheduled ring=fence->sched->name:string at=fence->sched->dev:u64",
        "f:gpudaemon/queue drm_sched_entity_push_job ring=sched_job->sched->name:string "
        "at=sched_job->sched->dev:u64 dev=sched_job->sched->dev->kobj.name:string",
        "s:gpudaemon_job u64 wait; u64 run; u64 at; char ring[]",
    ),
    # What ends is counted before what begins: a job that is seen in part was begun before, never the other way.
    triggers=(
        (JOB, "hist:keys=at,ring,run.log2:vals=run:size=8192"),
        (JOB, "hist:keys=at,ring,wait.log2:vals=wait:size=8192"),
        (
            CLEANUP,
            "hist:keys=common_cpu:t=common_timestamp,w=start-submit,x=fin-start:"
            "onchange($t).trace(gpudaemon_job,$w,$x,at,ring):size=4096 if err==0 && submit!=0",
        ),
        (CLEANUP, "hist:keys=at,ring,err:size=4096 if submit!=0"),
        (SCHEDULED, "hist:keys=at,ring:size=2048"),
        (PUSHED, "hist:keys=at,ring:size=2048"),
        (PUSHED, "hist:keys=at,dev:size=1024"),
    ),
    hists=(JOB, CLEANUP, SCHEDULED, PUSHED),
)

EVENTS = Recipe(
    name="events",
    modules=_MODULES,
    taps=(
        Tap(event=QUEUE, fields=("fence_context", "fence_seqno", "name", "dev", "common_pid")),
        Tap(event=RUN, fields=("fence_context", "fence_seqno", "name", "dev")),
        Tap(event=DONE, fields=("fence_context", "fence_seqno")),
        Tap(event=DEPENDS, fields=("fence_context", "fence_seqno"), optional=True),
    ),
)

OLD_EVENTS = Recipe(
    name="old events",
    modules=_MODULES,
    taps=(
        Tap(event=OLD_QUEUE, fields=("fence", "id", "name", "common_pid")),
        Tap(event=OLD_RUN, fields=("fence", "id", "name")),
        Tap(event=OLD_DONE, fields=("fence",)),
        Tap(event=OLD_DEPENDS, fields=("name", "id"), optional=True),
    ),
)

RECIPES = (FPROBE, EVENTS, OLD_EVENTS)
