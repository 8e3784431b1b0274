"""The wheel set as an operator uses it: built once, installed without network and compiler, then scraped.

And what becomes of a host on which the io_uring binding cannot be loaded: the daemon reads by threads.
"""

import errno
import hashlib
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from gpudaemon.mock import build
from tests.live.daemon import Page, RunningDaemon, until

pytestmark = [pytest.mark.live, pytest.mark.timeout(180)]

PROJECT = Path(__file__).resolve().parents[2]
ENGINE = re.compile(r'gpudaemon_daemon_engine_info{engine="(.*?)",reason="(.*?)"}')
PYTHON = os.path.realpath(sys.executable)  # not the one of a virtual environment
BARE = {"PATH": "/nonexistent", "HOME": "/nonexistent", "LANG": "C.UTF-8"}


@pytest.fixture(scope="module")
def wheel_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("wheels") / "set"
    subprocess.run([sys.executable, PROJECT / "systemd" / "build-wheels", target], check=True)
    return target


@pytest.fixture(scope="module")
def installed(wheel_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("opt") / "gpudaemon"
    answer = install(wheel_set, target)
    assert answer.returncode == 0, answer.stdout
    assert f"installed in {target}\n" in answer.stdout
    return target


def install(wheels: Path, target: Path, *flags: str) -> "subprocess.CompletedProcess[str]":
    """Install with an empty PATH, no home and, as root, no network."""
    command = [PYTHON, str(wheels / "install"), str(target), *flags]
    if os.geteuid() == 0 and (unshare := shutil.which("unshare")):
        command = [unshare, "--net", *command]
    return subprocess.run(
        command, env=BARE, cwd="/", text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )


@contextmanager
def running(target: Path, runtime: Path, environment: Mapping[str, str] = BARE) -> Iterator[str]:
    """The installed command on the mock host it brings; gives its page once it is ready."""
    command = [str(target / "bin" / "gpudaemon"), "run", "--demo", "--web.listen-address", "127.0.0.1:0"]
    command += ["--path.runtime", str(runtime)]
    with subprocess.Popen(command, env=environment, cwd="/", text=True, stdout=subprocess.PIPE) as daemon:
        try:
            assert daemon.stdout is not None
            found = re.search(r"http://\S+:\d+", daemon.stdout.readline())
            assert found is not None

            def text(path: str) -> str:
                with urllib.request.urlopen(found.group() + path, timeout=5) as answer:
                    return str(answer.read().decode())

            def ready() -> bool:
                try:
                    text("/-/ready")
                except OSError:
                    return False
                return 'state="ok"} 1' in text("/metrics")

            until(ready, 30)
            yield text("/metrics")
        finally:
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(10)


def test_the_set_is_locked(wheel_set: Path) -> None:
    lines = (wheel_set / "SHA256SUMS").read_text().splitlines()
    files = {str(path.relative_to(wheel_set)) for path in wheel_set.rglob("*") if path.is_file()}
    assert {line.split("  ")[1] for line in lines} == files - {"SHA256SUMS"}
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((wheel_set / name).read_bytes()).hexdigest() == digest
    locked = (wheel_set / "requirements.txt").read_text().splitlines()
    assert len(locked) == len(list((wheel_set / "wheels").iterdir()))
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+ --hash=sha256:[0-9a-f]{64}", line) for line in locked)


def test_every_wheel_says_honestly_which_libc_it_needs(wheel_set: Path) -> None:
    for wheel in (wheel_set / "wheels").iterdir():
        platforms = wheel.stem.split("-")[-1]
        glibc = [int(minor) for minor in re.findall(r"manylinux_2_(\d+)_", platforms)]
        assert platforms == "any" or min(glibc) <= 28, wheel.name
    (binding,) = (wheel_set / "wheels").glob("liburing-*.whl")
    assert "-linux_" not in binding.name


def test_installed_without_network_and_compiler_it_serves(installed: Path, tmp_path: Path) -> None:
    with running(installed, tmp_path) as page:
        found = Page.of(page)
    assert len(found.family("gpudaemon_gpu_busy_ratio")) >= 8
    assert set(found.family("gpudaemon_daemon_reader_up").values()) == {1.0}
    (engine,) = ENGINE.findall(page)
    with open("/proc/sys/kernel/io_uring_disabled") as stream:
        allowed = stream.read().strip() == "0"
    assert engine[0] == ("io_uring" if allowed else "threads")


def dynamic_tags(elf: bytes) -> set[int]:
    """Tags of the dynamic section of a 64 bit little endian ELF file."""
    (headers,) = struct.unpack_from("<Q", elf, 32)
    size, number = struct.unpack_from("<HH", elf, 54)
    for header in range(headers, headers + size * number, size):
        kind, offset, length = struct.unpack_from("<I4xQ16xQ", elf, header)
        if kind == 2:  # PT_DYNAMIC
            return {tag for tag, _ in struct.iter_unpack("<QQ", elf[offset : offset + length])}
    return set()


def test_nothing_but_the_set_is_installed(wheel_set: Path, installed: Path) -> None:
    (site,) = installed.glob("lib/python3*/site-packages")
    names = {path.stem.rsplit("-", 1)[0].lower().replace("_", "-") for path in site.glob("*.dist-info")}
    locked = {line.split("==")[0] for line in (wheel_set / "requirements.txt").read_text().splitlines()}
    assert names == locked
    for library in site.rglob("liburing/*.so"):
        # 15 DT_RPATH, 29 DT_RUNPATH: no directory of the host that built it (System V ABI)
        assert not dynamic_tags(library.read_bytes()) & {15, 29}


def test_a_second_installation_is_an_update(wheel_set: Path, installed: Path) -> None:
    (site,) = installed.glob("lib/python3*/site-packages")
    (site / "gpudaemon" / "cli.py").unlink()
    shutil.rmtree(next(site.glob("gpudaemon-*.dist-info")))
    answer = install(wheel_set, installed)
    assert answer.returncode == 0, answer.stdout
    assert (site / "gpudaemon" / "cli.py").exists()


def test_a_wheel_that_was_changed_is_refused(wheel_set: Path, tmp_path: Path) -> None:
    for pattern in ("pip-*.whl", "yarl-*.whl"):
        copy = tmp_path / pattern[:4]
        shutil.copytree(wheel_set, copy)
        (wheel,) = (copy / "wheels").glob(pattern)
        wheel.write_bytes(wheel.read_bytes() + b"\0")
        answer = install(copy, tmp_path / "target")
        assert answer.returncode != 0
        assert "is not the file this set" in answer.stdout or "DO NOT MATCH THE HASHES" in answer.stdout
        assert "Traceback" not in answer.stdout


def test_another_python_is_told_so(wheel_set: Path, tmp_path: Path) -> None:
    shutil.copytree(wheel_set, tmp_path / "set")
    script = tmp_path / "set" / "install"
    script.write_text(re.sub(r'MADE_FOR = "3\.\d+ ', 'MADE_FOR = "3.8 ', script.read_text()))
    answer = install(tmp_path / "set", tmp_path / "target")
    assert answer.returncode == 1
    assert answer.stdout.startswith("install: this set is for Python 3.8 ")
    assert not (tmp_path / "target").exists()


def test_without_the_binding_it_reads_by_threads(wheel_set: Path, tmp_path: Path) -> None:
    answer = install(wheel_set, tmp_path / "gpudaemon", "--without-io-uring")
    assert answer.returncode == 0, answer.stdout
    assert "io_uring here: no" in answer.stdout
    assert not list((tmp_path / "gpudaemon").rglob("liburing*"))
    with running(tmp_path / "gpudaemon", tmp_path) as page:
        assert ENGINE.findall(page) == [("threads", "liburing cannot be imported: No module named 'liburing'")]
        assert len(Page.of(page).family("gpudaemon_gpu_busy_ratio")) >= 8


def elf_hash(name: bytes) -> bytes:
    """The hash beside a symbol version's name in .gnu.version_r (System V ABI)."""
    value = 0
    for byte in name:
        value = (value << 4) + byte
        value = (value ^ (value & 0xF0000000) >> 24) & 0x0FFFFFFF
    return value.to_bytes(4, "little")


@pytest.fixture
def binding(tmp_path: Path) -> Path:
    """A copy of the installed binding that comes first on PYTHONPATH `tmp_path`."""
    found = find_spec("liburing")
    if found is None or found.origin is None:
        pytest.skip("needs liburing")
    shutil.copytree(Path(found.origin).parent, tmp_path / "liburing")
    return tmp_path / "liburing"


def engine_with(path: Path) -> tuple[str, str]:
    build("mi300x8", str(path / "host"), 1)
    with RunningDaemon(sysfs=f"{path}/host/sys", environment={"PYTHONPATH": str(path)}) as daemon:
        (engine,) = ENGINE.findall(daemon.get("/metrics")[1])
        assert daemon.metrics().states("0000:03:00.0") == ["ok"]
        assert "Traceback" not in daemon.log
    return engine


def test_a_binding_for_a_newer_libc(binding: Path) -> None:
    """The dynamic linker refuses a library that needs a symbol version this libc does not have."""
    patched = 0
    for library in binding.glob("*.so"):
        content = library.read_bytes()
        old, new = b"GLIBC_2.2.5", b"GLIBC_9.9.9"
        patched += content.count(old)
        library.write_bytes(content.replace(old, new).replace(elf_hash(old), elf_hash(new)))
    assert patched
    engine, reason = engine_with(binding.parent)
    assert engine == "threads"
    assert "GLIBC_9.9.9" in reason


def test_a_binding_for_another_processor(binding: Path) -> None:
    """The processor itself refuses an instruction: ud2 on x86-64, all zeros on ARM."""
    (binding / "__init__.py").write_text(
        "import ctypes, mmap\n"
        "page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)\n"
        "page.write(b'\\x0f\\x0b' if __import__('platform').machine() == 'x86_64' else bytes(4))\n"
        "ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()\n"
    )
    engine, reason = engine_with(binding.parent)
    assert engine == "threads"
    assert "SIGILL" in reason


OLDER = """
import ctypes, os, struct, sys
call, errno = int(sys.argv[1]), int(sys.argv[2])
# struct sock_filter: load the system call's number; `call`: this errno; any other: allow
program = b"".join(struct.pack("=HBBI", *one) for one in (
    (0x20, 0, 0, 0), (0x15, 0, 1, call), (0x06, 0, 0, 0x00050000 | errno), (0x06, 0, 0, 0x7FFF0000)))
buffer = ctypes.create_string_buffer(program)
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, struct.pack("=HxxxxxxQ", 4, ctypes.addressof(buffer)), 0, 0) == 0
os.execv(sys.argv[3], sys.argv[3:])
"""


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        # Linux before 5.15 has no IORING_REGISTER_IOWQ_MAX_WORKERS (io_uring_register is 427 everywhere).
        (427, errno.EINVAL, "io_uring_register: Invalid argument"),
        # Linux before 5.1, or built without CONFIG_IO_URING (io_uring_setup is 425).
        (425, errno.ENOSYS, "io_uring_setup: Function not implemented"),
    ],
)
def test_a_kernel_that_has_less_of_io_uring(call: int, error: int, says: str, tmp_path: Path) -> None:
    pytest.importorskip("liburing", reason="without the binding the kernel is never asked")
    build("mi300x8", str(tmp_path), 1)
    prefix = (sys.executable, "-c", OLDER, str(call), str(error))
    with RunningDaemon(sysfs=f"{tmp_path}/sys", prefix=prefix) as daemon:
        ((engine, reason),) = ENGINE.findall(daemon.get("/metrics")[1])
        assert daemon.metrics().states("0000:03:00.0") == ["ok"]
    assert engine == "threads"
    assert says in reason
