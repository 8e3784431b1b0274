"""Kernel modules of the tests, built for the guests' kernels.

    build(Store(), "7.x", Path("tests/vm/gpu"))   # -> .../modules/7.3.4+deb13-amd64/gpu-HASH/gpu.ko

The compiler and the headers are those of `tests/vm/setup --build-tools`, entered by chroot(2) in namespaces of
its own, with a /proc (objtool reads its limits there); as root, or where unprivileged user namespaces are
allowed. What was built once for the same source is not built again.

By hand: `python -m tests.vm.build FOLDER [KERNEL...]`.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.vm.store import KERNELS, Store

__all__ = ["build", "why_not"]

_SOURCES = (".c", ".h", ".S")


def why_not(store: Store) -> str:
    """Why no module can be built; empty where one can."""
    return "" if store.can_build else f"no build tools in {store.folder}: run tests/vm/setup --build-tools"


def build(store: Store, key: str, source: Path, *, arguments: tuple[str, ...] = ()) -> Path:
    """Build the one module of a folder with a Kbuild Makefile; path of the .ko.

    arguments: further words for make. Raises RuntimeError with what the compiler said; a warning of it is an
    error.
    """
    kernel = store.kernel(key)
    files = sorted(
        path for path in source.iterdir() if path.suffix in _SOURCES or path.name in ("Makefile", "Kbuild")
    )
    digest = hashlib.sha256(" ".join(arguments).encode())
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    name = f"{source.name}-{digest.hexdigest()[:12]}"
    target = store.folder / "modules" / kernel.release / name
    if not (found := list(target.glob("*.ko"))):
        work = store.debian / "build" / f"{name}-{kernel.release}-{os.getpid()}"
        work.mkdir(parents=True)
        try:
            for path in files:
                shutil.copy(path, work)
            _make(store, kernel.release, work, arguments)
            built = list(work.glob("*.ko"))
            if len(built) != 1:
                raise RuntimeError(f"{source}: {len(built)} modules were built, not one")
            target.mkdir(parents=True, exist_ok=True)
            # By rename, so that who looks meanwhile sees a whole file or none.
            shutil.copy(built[0], target / f".{os.getpid()}")
            found = [(target / f".{os.getpid()}").rename(target / built[0].name)]
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return found[0]


def _make(store: Store, release: str, work: Path, arguments: tuple[str, ...]) -> None:
    inside = f"/build/{work.name}"
    (store.debian / "proc").mkdir(exist_ok=True)
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    words = ["unshare", *as_root, "--mount", "--pid", "--fork", f"--mount-proc={store.debian}/proc"]
    words += ["chroot", str(store.debian), "/usr/bin/env", "-i", "PATH=/usr/bin:/bin", "LC_ALL=C"]
    words += ["make", "-s", "-C", f"/usr/src/linux-headers-{release}", f"M={inside}", f"-j{os.cpu_count()}"]
    words += ["KCFLAGS=-Werror", *arguments, "modules"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{release}: {done.stdout}{done.stderr}")


def main() -> None:
    """Build a folder's module and print where it is."""
    if len(sys.argv) < 2:
        sys.exit("python -m tests.vm.build FOLDER [KERNEL...]")
    store = Store()
    reason = why_not(store)
    if reason:
        sys.exit(reason)
    for key in sys.argv[2:] or KERNELS:
        print(build(store, key, Path(sys.argv[1]).absolute()))


if __name__ == "__main__":
    main()
