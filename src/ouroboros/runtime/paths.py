"""Where a node and its programs meet, and where its keys are."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

from ouroboros.errors import NodeError

#: pid, uid and gid as the kernel gives them for SO_PEERCRED.
CREDENTIALS = struct.Struct("3i")

#: Longest path of a Unix socket on Linux, bytes.
_SOCKET_PATH = 107


def runtime_dir() -> Path:
    """The directory of the node: `$OUROBOROS_RUNTIME_DIR`, else `/run/ouroboros` for root, else
    `$XDG_RUNTIME_DIR/ouroboros`, else a directory of the user's in `/tmp`."""
    if chosen := os.environ.get("OUROBOROS_RUNTIME_DIR"):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/run/ouroboros")
    if base := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(base) / "ouroboros"
    return Path(f"/tmp/ouroboros-{os.geteuid()}")


def security_dir() -> Path:
    """The directory of keys and certificates: `$OUROBOROS_SECURITY_DIR`, else `/etc/ouroboros/security` for root, else
    `ouroboros/security` in `$XDG_CONFIG_HOME` or `~/.config`."""
    if chosen := os.environ.get("OUROBOROS_SECURITY_DIR"):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/etc/ouroboros/security")
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "ouroboros" / "security"


def socket_path(directory: Path) -> str:
    """The control socket in a runtime directory. Raises `NodeError` when the path is too long for one."""
    path = str(directory / "irm.sock")
    if len(os.fsencode(path)) > _SOCKET_PATH:
        raise NodeError(
            f"the runtime directory {directory} has too long a path for a socket: set OUROBOROS_RUNTIME_DIR"
        )
    return path


def make_runtime_dir(directory: Path) -> None:
    """Make the directory if there is none. Raises `NodeError` when somebody else could tamper with it."""
    # Root's node serves other users, so they must reach its socket; anybody else's directory is private.
    mode = 0o755 if os.geteuid() == 0 else 0o700
    try:
        directory.mkdir(mode=mode, parents=True, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise NodeError(f"cannot use the runtime directory {directory}: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (0, os.geteuid()) or status.st_mode & 0o022:
        raise NodeError(
            f"the runtime directory {directory} is not safe: it must be a directory of yours that nobody else can write"
        )
