"""The security directory on the disk, see `control.security`, and what a core file has of a node."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path

#: No file of ours is longer; what is, is none of ours.
_LONGEST = 1 << 20

#: What a file has in it that is a private key in PEM, and what one is called that is a bare one.
_PRIVATE, _PRIVATE_RAW = b"PRIVATE KEY-----", "kex.key.raw"

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
        self.root = f"{root}/"

    def exists(self, path: str) -> bool:
        try:
            os.stat(self._path(path))
        except FileNotFoundError:
            return False
        except OSError:
            # Its reader will say why.
            return True
        return True

    def read(self, path: str) -> bytes | None:
        path = self._path(path)
        try:
            # A FIFO must not stop the node.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "it is no regular file", path)
            content = b""
            while chunk := os.read(descriptor, _LONGEST):
                content += chunk
                if len(content) > _LONGEST:
                    raise OSError(errno.EFBIG, f"it has more than {_LONGEST} bytes", path)
            if _PRIVATE in content or os.path.basename(path) == _PRIVATE_RAW:
                self._check_private(path, status)
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
            place = self._path(f"{path}/{name}")
            content = self.read(place)
            # It may be gone by now.
            if content is not None:
                found[place] = content
        return found

    def _check_private(self, path: str, status: os.stat_result) -> None:
        """Refuse a private key that others can use, as OpenSSH does. It may have been copied already."""
        # What root gave us to read it can have given by our group.
        ours = status.st_uid == os.geteuid()
        mode = stat.S_IMODE(status.st_mode)
        if mode & (0o077 if ours else 0o027):
            remedy = f"`chmod {'600' if ours else '640'} {self._path(path)}`, or a new one if somebody may have read it"
            raise OSError(
                errno.EPERM, f"it is a private key that other users can use (mode {mode:04o}): {remedy}", path
            )

    def _path(self, path: str) -> str:
        return os.path.join(self.root, path)
