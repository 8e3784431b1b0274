"""Stock Debian kernels from their packages: chosen, unpacked, made bootable.

A kernel's release is the newest in the suites that is not -rt, -cloud or -dbg; its parts are the packages in
its Depends that carry the release in their names (7.x has linux-base-, linux-binary- and linux-modules-RELEASE,
6.12 one linux-image-RELEASE). The image is taken out of its bzImage (Documentation/arch/x86/boot.rst,
`payload_offset` and `payload_length`), so that the guest does not decompress it.
"""

import lzma
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

from tests.vm.packages import Apt, unpack, version_key
from tests.vm.store import Kernel, Store

__all__ = ["choose", "fetch", "headers", "initramfs", "make_bootable", "parts"]

_WANTED = {
    "7.x": re.compile(r"linux-image-(7\.\d+\.\d+\+deb\d+(?:\.\d+)?-amd64)"),
    "6.12": re.compile(r"linux-image-(6\.12\.\d+\+deb12(?:\.\d+)?-amd64)"),
}
_NEEDED = ("9p", "9pnet_virtio", "overlay")
"""What the initramfs loads, with what these need; virtio and tmpfs are built in."""
_MAGICS = ((b"\x28\xb5\x2f\xfd", "usr/bin/zstd", "-dc"), (b"\xfd7zXZ\0", "usr/bin/xz", "-dc"))


def choose(apt: Apt, key: str) -> str:
    """Release of the newest kernel that goes by a key. Raises RuntimeError where the suites have none."""
    found = (_WANTED[key].fullmatch(name) for name in apt.names("^linux-image-"))
    releases = [match[1] for match in found if match is not None]
    if not releases:
        raise RuntimeError(f"no kernel {key} in the suites")
    return max(releases, key=version_key)


def parts(apt: Apt, release: str) -> list[str]:
    """Packages a kernel is made of."""
    image = f"linux-image-{release}"
    return [image, *(name for name in apt.depends(image) if release in name and name != image)]


def headers(apt: Apt, release: str) -> tuple[list[str], str]:
    """Packages modules are built from, and the compiler's name: linux-headers-RELEASE and what it points to."""
    first = f"linux-headers-{release}"
    depends = apt.depends(first)
    version = release.rsplit("-", 1)[0]
    names = [name for name in depends if version in name and "image" not in name and "-base-" not in name]
    compilers = [match[0] for name in depends if (match := re.match(r"gcc-\d+", name))]
    return [first, *names], compilers[0] if compilers else "gcc"


def fetch(apt: Apt, store: Store, key: str) -> Kernel:
    """Download and unpack a kernel; `make_bootable` is next."""
    release = choose(apt, key)
    folder = store.folder / "kernels" / key
    if not (folder / "release").exists() or store.kernel(key).release != release:
        shutil.rmtree(folder, ignore_errors=True)
        unpack(apt.download(parts(apt, release), store.folder / "debs"), folder)
        if (folder / "usr/lib/modules").exists():
            (folder / "lib").symlink_to("usr/lib")
    return Kernel(key, release, folder)


def make_bootable(store: Store, kernel: Kernel) -> None:
    """Index the modules, unwrap the image; the file `release` comes last."""
    depmod = store.program("usr/bin/kmod", "-b", str(kernel.folder), kernel.release, name="depmod")
    subprocess.run(depmod, check=True)
    packed = [kernel.folder / f"boot/vmlinuz-{kernel.release}", kernel.modules / kernel.release / "vmlinuz"]
    image = next(path for path in packed if path.exists())
    kernel.image.write_bytes(_payload(store, image.read_bytes()))
    (kernel.folder / "release").write_text(f"{kernel.release}\n")


def _payload(store: Store, image: bytes) -> bytes:
    setup_sectors = image[0x1F1] or 4
    offset = int.from_bytes(image[0x248:0x24C], "little") + (setup_sectors + 1) * 512
    length = int.from_bytes(image[0x24C:0x250], "little")
    payload = image[offset : offset + length]
    for magic, path, flag in _MAGICS:
        if payload.startswith(magic):
            # The size of the unpacked kernel follows the compressed data: not of its format, so not an error.
            done = subprocess.run(store.program(path, flag), input=payload, capture_output=True, check=False)
            if done.stdout.startswith(b"\x7fELF"):
                return done.stdout
            raise RuntimeError(f"the kernel's payload is not ELF: {done.stderr.decode()}")
    raise RuntimeError(f"the kernel is packed in a way that is not known: {payload[:4].hex()}")


def _module_files(kernel: Kernel) -> list[Path]:
    """Files of the modules the initramfs loads, in order. modules.dep: `file: needs needs`, nearest first."""
    base = kernel.modules / kernel.release
    needs: dict[str, list[str]] = {}
    for line in (base / "modules.dep").read_text().splitlines():
        file, _, below = line.partition(":")
        needs[file] = below.split()
    found: list[str] = []
    for name in _NEEDED:
        for file, others in needs.items():
            if os.path.basename(file).split(".")[0] == name:
                found += [*reversed(others), file]
    return [base / file for file in dict.fromkeys(found)]


def initramfs(store: Store, kernel: Kernel) -> bytes:
    """What mounts the host's root and goes there: a cpio archive, not compressed.

    Documentation/driver-api/early-userspace/buffer-format.rst.
    """
    entries: list[tuple[str, int, bytes]] = [
        (name, stat.S_IFDIR | 0o755, b"")
        for name in ("bin", "modules", "proc", "sys", "dev", "lower", "upper", "new")
    ]
    entries.append(("bin/busybox", stat.S_IFREG | 0o755, (store.debian / "usr/bin/busybox").read_bytes()))
    order = []
    for file in _module_files(kernel):
        content = file.read_bytes()
        name = file.name.removesuffix(".xz")
        order.append(name)
        content = lzma.decompress(content) if file.suffix == ".xz" else content
        entries.append((f"modules/{name}", stat.S_IFREG | 0o644, content))
    entries.append(("modules/order", stat.S_IFREG | 0o644, "".join(f"{name}\n" for name in order).encode()))
    init = (Path(__file__).parent / "initramfs-init").read_bytes()
    entries.append(("init", stat.S_IFREG | 0o755, init))
    return b"".join(_cpio(number, *entry) for number, entry in enumerate(entries, 1)) + _cpio(
        0, "TRAILER!!!", 0, b""
    )


def _cpio(number: int, name: str, mode: int, content: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields) + encoded
    return header + bytes(-len(header) % 4) + content + bytes(-len(content) % 4)
