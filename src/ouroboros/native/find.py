"""Which C prototype there is on this machine: the library, its version, and whether its daemon answers. Loads nothing."""

from __future__ import annotations

import mmap
import os
import re
import socket
import sysconfig
from pathlib import Path
from typing import NamedTuple

from ouroboros.errors import NodeError
from ouroboros.native.declarations import KNOWN
from ouroboros.runtime.paths import CREDENTIALS

#: Where the daemon of the prototype listens; it is built into the library.
SOCKET = "/var/run/ouroboros/irm.sock"

#: A request for the list of IPC processes, which changes nothing. It has to be sent at once: the daemon reads from one
#: client at a time, and waits for one that is silent.
_LIST_IPCPS = b"\x08\x04"

#: Seconds after which a daemon that does not answer counts as none.
_PATIENCE = 5.0

_FILE = re.compile(r"libouroboros-dev\.so\.(\d+)\.(\d+)")

#: Text that is in our library of C functions (`docs/native.md`), and in no library of the prototype.
_OURS = b"OUROBOROS_RUNTIME_DIR"


class Installed(NamedTuple):
    """A library that was found. `ours`: it is the one of this project, and leads to our node."""

    path: Path
    version: tuple[int, int]
    release: str
    ours: bool


def installed() -> Installed:
    """The newest library that is known. Raises `NodeError` when there is none.

    It is looked for in `$OUROBOROS_LIBDIR`, else in the directories of `$LD_LIBRARY_PATH` and the usual ones.
    """
    found: dict[tuple[int, int], Path] = {}
    for folder in _folders():
        for path in folder.glob("libouroboros-dev.so.*"):
            if (match := _FILE.fullmatch(path.name)) is not None:
                found.setdefault((int(match[1]), int(match[2])), path)
    for version in KNOWN:
        if version in found:
            return _describe(found[version], version)
    known = ", ".join(_dotted(version) for version in reversed(KNOWN))
    if found:
        there = ", ".join(_dotted(version) for version in sorted(found))
        raise NodeError(f"the installed C Ouroboros is of version {there}; this package knows {known}")
    raise NodeError(f"no C Ouroboros is installed: there is no libouroboros-dev.so of version {known} in {_places()}")


def daemon() -> int:
    """The process id of the daemon. Raises `NodeError` when none runs, or it does not answer."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.settimeout(_PATIENCE)
            sock.connect(SOCKET)
            sock.send(_LIST_IPCPS)
            # Hanging up is an answer as well.
            sock.recv(1)
            pid, _, _ = CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, CREDENTIALS.size))
            return int(pid)
    except TimeoutError as error:
        # After a crash, programs that the daemon had started keep its socket open.
        raise NodeError(f"the daemon of the C Ouroboros does not answer at {SOCKET}: restart it") from error
    except OSError as error:
        raise NodeError(f"no daemon of a C Ouroboros runs: {SOCKET}: {error.strerror}") from error


def _folders() -> list[Path]:
    if chosen := os.environ.get("OUROBOROS_LIBDIR"):
        return [Path(chosen).absolute()]
    named = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    usual = [Path("/usr/local/lib"), Path("/usr/local/lib64"), Path("/usr/lib"), Path("/usr/lib64")]
    multiarch = sysconfig.get_config_var("MULTIARCH")
    if isinstance(multiarch, str) and multiarch:
        usual += [Path("/usr/local/lib") / multiarch, Path("/usr/lib") / multiarch]
    return [*map(Path, named), *usual]


def _places() -> str:
    return ", ".join(map(str, _folders()))


def _describe(path: Path, version: tuple[int, int]) -> Installed:
    real = path.resolve()
    match = re.fullmatch(r"libouroboros-dev\.so\.(\d+\.\d+\.\d+)", real.name)
    return Installed(path, version, match[1] if match else _dotted(version), _is_ours(real))


def _is_ours(path: Path) -> bool:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(_OURS) >= 0
    except (OSError, ValueError) as error:
        raise NodeError(f"cannot read {path}: {error}") from error


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
