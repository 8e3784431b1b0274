"""Debian packages of suites this host does not use, fetched by an apt of its own and unpacked, never installed.

Only files in the given folder change: sources, lists, cache and status are the folder's own, so the host's dpkg
is not touched and no lock of it is waited for. Proxies and credentials are the host's (apt.conf(5),
apt_auth.conf(5)). Needs no root.
"""

import functools
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

__all__ = ["KEYRING", "Apt", "mirror", "unpack", "version_key"]

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_FALLBACK = "http://deb.debian.org/debian"
_PLANNED = re.compile(r"^Inst (\S+) \((\S+)", re.MULTILINE)


def _run(*words: str, cwd: Path | None = None) -> str:
    """Standard output of a command. Raises RuntimeError with what it said where it fails."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=cwd, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words[:1] + words[-3:])}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def mirror() -> str:
    """Address of the mirror this host takes Debian from; Debian's own where it does not say."""
    listed = _run("apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)")
    known = sorted(line.split("|")[2] for line in listed.splitlines() if line.startswith("Debian|Debian|"))
    if known:
        return known[0]
    # Origins are known only to a host that has its lists; the addresses stand in the sources all the same.
    listed = _run("apt-get", "indextargets", "--format", "$(REPO_URI)")
    return next((line for line in listed.splitlines() if line.rstrip("/").endswith("/debian")), _FALLBACK)


@functools.lru_cache
def version_key(text: str) -> tuple[int, ...]:
    """A kernel's version as numbers that compare: 7.3.4+deb13-amd64 is (7, 3, 4, 13)."""
    return tuple(int(number) for number in re.findall(r"\d+", text.rsplit("-", 1)[0]))


def unpack(debs: Iterable[Path], into: Path) -> None:
    """Unpack packages into a folder; no script of theirs runs."""
    into.mkdir(parents=True, exist_ok=True)
    for deb in debs:
        _run("dpkg-deb", "-x", str(deb), str(into))


class Apt:
    """folder: where it keeps everything. suites: of the mirror, the first is the one packages come from."""

    def __init__(self, folder: Path, suites: Iterable[str], address: str) -> None:
        for name in ("lists/partial", "cache/archives/partial", "empty"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / "status").write_text("")
        lines = [f"deb [signed-by={KEYRING}] {address} {suite} main\n" for suite in suites]
        (folder / "sources.list").write_text("".join(lines))
        own = {
            "Dir::Etc::SourceList": folder / "sources.list",
            "Dir::Etc::SourceParts": folder / "empty",
            "Dir::Etc::Preferences": folder / "none",
            "Dir::Etc::PreferencesParts": folder / "empty",
            "Dir::State": folder,
            "Dir::State::Lists": folder / "lists",
            "Dir::State::Status": folder / "status",
            "Dir::Cache": folder / "cache",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        self._own = [word for key, value in own.items() for word in ("-o", f"{key}={value}")]

    def update(self) -> None:
        """Fetch the lists of the suites."""
        _run("apt-get", "-q", *self._own, "update", "--error-on=any")

    def names(self, pattern: str) -> list[str]:
        """Names of packages that match a regular expression."""
        listed = _run("apt-cache", *self._own, "search", "--names-only", pattern)
        return [line.split(" ", 1)[0] for line in listed.splitlines()]

    def depends(self, name: str) -> list[str]:
        """Names in a package's Depends, alternatives included, in order."""
        shown = _run("apt-cache", *self._own, "show", "--no-all-versions", name)
        fields = "".join(line[9:] for line in shown.splitlines() if line.startswith("Depends: "))
        return [re.split(r"[\s(:]", word.strip(), maxsplit=1)[0] for word in re.split(r"[,|]", fields) if word]

    def closure(self, names: Iterable[str]) -> list[str]:
        """Packages with all they depend on, as `name=version`: what a machine with nothing would install."""
        flags = ("--simulate", "--no-install-recommends", "--yes")
        planned = _run("apt-get", "-q", *self._own, "install", *flags, *names)
        return [f"{name}={version}" for name, version in _PLANNED.findall(planned)]

    def download(self, names: Iterable[str], into: Path) -> list[Path]:
        """Fetch packages (name, or name=version) into a folder; their paths. None is fetched twice."""
        into.mkdir(parents=True, exist_ok=True)
        wanted = sorted(set(names))
        listed = _run("apt-get", "-q", *self._own, "download", "--print-uris", *wanted, cwd=into)
        files = [into / line.split(" ")[1] for line in listed.splitlines() if line.startswith("'")]
        if not all(file.exists() for file in files):
            _run("apt-get", "-q", *self._own, "download", *wanted, cwd=into)
        return files
