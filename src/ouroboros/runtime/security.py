"""The security directory on the disk, see `control.security`, and what a core file has of a node."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

#: No file of ours is longer; what is, is none of ours.
_LONGEST = 1 << 20

#: Of a process, what its core files have of its memory (core(5)): here nothing, only what it was and how it ended.
_CORE_FILES, _NOTHING = "/proc/{}/coredump_filter", "0x10"


def keep_out_of_core_files() -> str | None:
    """Keep the memory of this process out of core files, as it has private keys and, for moments, those of flows.

    Returns what was there before, None where it cannot be told. Programs that this one starts inherit it.
    """
    before = _swap_core_files("self", _NOTHING)
    return None if before is None else f"0x{before}"


def give_core_files(pid: int, filter: str | None) -> None:
    """Let a program that this one has started have the core files that it would have had."""
    if filter is not None:
        _swap_core_files(str(pid), filter)


def _swap_core_files(process: str, filter: str) -> str | None:
    # Kernels without core files have no such file.
    with contextlib.suppress(OSError), open(_CORE_FILES.format(process), "r+") as file:
        before = file.read().strip()
        file.write(filter)
        return before
    return None


class SecurityDirectory:
    """Files below a directory, or with absolute paths. Nothing is kept."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)

    def exists(self, path: str) -> bool:
        try:
            os.stat(self._path(path))
        except FileNotFoundError:
            return False
        except OSError:
            # Who reads it will see why.
            return True
        return True

    def read(self, path: str) -> bytes | None:
        try:
            # A FIFO must not stop the node.
            descriptor = os.open(self._path(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "it is no regular file", path)
            content = b""
            while chunk := os.read(descriptor, _LONGEST):
                content += chunk
                if len(content) > _LONGEST:
                    raise OSError(errno.EFBIG, f"it has more than {_LONGEST} bytes", path)
            return content
        finally:
            os.close(descriptor)

    def files(self, path: str) -> dict[str, bytes]:
        try:
            names = sorted(os.listdir(self._path(path)))
        except FileNotFoundError:
            return {}
        found = {}
        for name in names:
            content = self.read(f"{path}/{name}")
            # It may be gone by now.
            if content is not None:
                found[f"{path}/{name}"] = content
        return found

    def _path(self, path: str) -> str:
        return os.path.join(self._root, path)
