"""From numbers that move to the content of a file, as drivers print what firmware gives them."""

from collections.abc import Callable

from gpudaemon.mock.model import Gpu
from gpudaemon.mock.physics import State
from gpudaemon.mock.tree import Generate

__all__ = ["integer", "shown"]


def integer(value: Callable[[float], float], step: int = 1) -> Generate:
    """`%d\\n` of `value` at a moment, rounded down to a multiple of `step`."""
    return lambda seconds: b"%d\n" % (int(value(seconds)) // step * step)


def shown(gpu: Gpu, value: Callable[[State], float], step: int = 1, end: bytes = b"\n") -> Generate:
    """`%d\\n` of `value` of the state a GPU is in, rounded down to a multiple of `step`."""
    return lambda seconds: b"%d" % (int(value(gpu.at(seconds)) + 1e-9) // step * step) + end
