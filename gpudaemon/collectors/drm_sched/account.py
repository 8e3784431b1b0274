"""The accumulator of the DRM scheduler: rings, filled by whichever recipe is armed."""

from collections.abc import Iterable, Sequence

from gpudaemon.collectors.drm_sched.added import Added
from gpudaemon.collectors.drm_sched.follow import Follow
from gpudaemon.collectors.drm_sched.rings import Rings
from gpudaemon.model.tracing import Context, Event, Hist, Note, Recipe, StreamRow

__all__ = ["Jobs"]


class Jobs:
    """See `gpudaemon.model.tracing.Accumulator`."""

    def __init__(self, context: Context) -> None:
        self._rings = Rings(int(context.settings.get("hang", 10.0) * 1e9))
        self._follow = Follow(self._rings, context.owner)
        self._added = Added(self._rings)
        self._recipe: Recipe | None = None

    def armed(self, recipe: Recipe | None) -> None:
        """Begin anew with what is in flight; counts and times go on."""
        self._recipe = recipe
        self._follow.forget()
        self._added.forget()
        self._rings.still()

    def take(self, events: Sequence[Event]) -> None:
        """Events of the scheduler."""
        self._follow.take(events)

    def take_hist(self, event: str, hist: Hist) -> None:
        """A histogram of the kernel's."""
        self._added.take(event, hist)

    def lost(self, events: int) -> None:
        """What is counted is a lower bound from now on, and jobs may be gone unseen."""
        self._rings.lower_bound = True

    def rows(self, now: int) -> Iterable[StreamRow]:
        """Figures of every ring."""
        self._follow.expire(now)
        self._added.levels(now)
        if self._recipe is not None:
            self._rings.watch(now)
        return self._rings.rows(now, events=self._recipe is None or bool(self._recipe.taps))

    def notes(self) -> Iterable[Note]:
        """Hangs."""
        return self._rings.notes()
