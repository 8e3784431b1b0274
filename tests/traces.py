"""Raw pages of the trace ring buffer of real kernels, as tests and benches take them apart."""

from collections.abc import Iterator
from pathlib import Path

from gpudaemon.collectors.drm_sched import STREAM
from gpudaemon.model.tracing import Event, Recipe
from gpudaemon.parsers.trace_format import PageLayout, event_format, page_layout
from gpudaemon.parsers.trace_page import Decoder

__all__ = ["RawTrace"]


class RawTrace:
    """A folder `raw-binary`. recipe: that of the DRM scheduler whose events its kernel has."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.layout: PageLayout = page_layout((folder / "header_page").read_bytes())
        self.recipe: Recipe = next(
            one for one in STREAM.recipes[1:] if self._format(one.taps[0].event).exists()
        )
        wanted = {}
        for tap in self.recipe.taps:
            form = event_format(self._format(tap.event).read_bytes())
            wanted[tap.event] = (form, [name.removesuffix("?") for name in tap.fields])
        self.decoder = Decoder(self.layout, wanted, order="little")

    def _format(self, event: str) -> Path:
        return self._folder / f"{event.split('/')[1]}.format"

    def pages(self) -> Iterator[bytes]:
        """Of both processors, one after the other."""
        for path in sorted(self._folder.glob("cpu*.bin")):
            content = path.read_bytes()
            for at in range(0, len(content), self.layout.size):
                yield content[at : at + self.layout.size]

    def events(self) -> list[Event]:
        """In order of time."""
        found = [event for page in self.pages() for event in self.decoder.decode(page).events]
        return sorted(found, key=lambda event: event[0])
