"""Mock hosts, one module each; the module's name is the profile's name and its value `PROFILE` the profile.

A new profile is a new file here: the folder is listed, nothing is registered.
"""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gpudaemon.mock.tree import Tree

__all__ = ["Profile", "profiles"]


@dataclass(frozen=True, slots=True)
class Profile:
    """A mock host that can be built.

    name: of the module. title: one line for people. kernel: which prints such files.
    host: number of GPUs -> the tree. gpus: that number where nobody says otherwise.
    """

    name: str
    title: str
    host: Callable[[int], Tree]
    gpus: int
    kernel: str = "6.12"

    def tree(self, gpus: int | None = None, *, seed: int = 0, workload: str | None = None) -> Tree:
        """The tree of this host. seed: another one gives other motion; workload: of every GPU.

        Raises ValueError where the profile cannot have that many GPUs, and for a workload that does not exist.
        """
        tree = self.host(self.gpus if gpus is None else gpus)
        if seed or workload is not None:
            for gpu in tree.gpus.values():
                gpu.restart(gpu.seed + 1_000_003 * seed, workload)
            tree.renew()
        return tree


def profiles() -> Mapping[str, Profile]:
    """name -> profile, in the order of the names."""
    found: dict[str, Profile] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        profile = importlib.import_module(f"{__name__}.{module.name}").PROFILE
        if not isinstance(profile, Profile) or profile.name != module.name:
            raise AssertionError(f"{module.name}: PROFILE is not a profile of that name")
        found[profile.name] = profile
    return found
