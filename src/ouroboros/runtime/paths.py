"""Where a node and its programs meet, where its keys are, and what it remembers."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import struct
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from ouroboros.errors import NodeError, NodeLimitError

#: pid, uid and gid as the kernel gives them for SO_PEERCRED.
CREDENTIALS = struct.Struct("3i")

#: Longest path of a Unix socket on Linux, bytes.
_SOCKET_PATH = 107

#: So many symbolic links the kernel follows in one path.
_MOST_LINKS = 40

#: The user that the kernel shows in place of one whom a user namespace does not map (`kernel.overflowuid`).
_UNMAPPED = 65534


_chosen: ContextVar[Path | None] = ContextVar("chosen", default=None)


@contextlib.contextmanager
def node_at(directory: Path) -> Iterator[None]:
    """Within this block, calls of this task or thread are for the node in that directory, whatever the environment
    says. It is a node of ours, and none is started in its place."""
    token = _chosen.set(directory)
    try:
        yield
    finally:
        _chosen.reset(token)


def is_chosen() -> bool:
    """Whether this is within `node_at`."""
    return _chosen.get() is not None


def place() -> tuple[str | None, int]:
    """What tells where calls go now, and with whose rights."""
    chosen = _chosen.get()
    return os.environ.get("OUROBOROS_RUNTIME_DIR") if chosen is None else str(chosen), os.geteuid()


def runtime_dir() -> Path:
    """The directory of the node: of `node_at`, else `$OUROBOROS_RUNTIME_DIR`, else `/run/ouroboros` for root, else
    `$XDG_RUNTIME_DIR/ouroboros`, else a directory of the user's in `/tmp`."""
    if (directory := _chosen.get()) is not None:
        return directory
    if chosen := os.environ.get("OUROBOROS_RUNTIME_DIR"):
        return Path(chosen).absolute()
    return _usual_runtime_dir()


def _usual_runtime_dir() -> Path:
    if os.geteuid() == 0:
        return Path("/run/ouroboros")
    if base := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(base) / "ouroboros"
    return Path(f"/tmp/ouroboros-{os.geteuid()}")


def security_dir() -> Path:
    """The directory of keys and certificates: `$OUROBOROS_SECURITY_DIR`, else `/etc/ouroboros/security` for root, else
    `ouroboros/security` in `$XDG_CONFIG_HOME` or `~/.config`. Raises `NodeError` when the user has no home."""
    if chosen := os.environ.get("OUROBOROS_SECURITY_DIR"):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/etc/ouroboros/security")
    return _of_user("XDG_CONFIG_HOME", ".config", "OUROBOROS_SECURITY_DIR") / "ouroboros" / "security"


def state_dir(runtime: Path) -> Path:
    """Where the node with that runtime directory has what is to outlive the machine's next start: `$OUROBOROS_STATE_DIR`,
    else `/var/lib/ouroboros` for root, else `ouroboros` in `$XDG_STATE_HOME` or `~/.local/state`.

    A node in another runtime directory than the usual one, and one of a user without a home, has it in the runtime
    directory: several nodes of one user share nothing."""
    if chosen := os.environ.get("OUROBOROS_STATE_DIR"):
        return Path(chosen).absolute()
    if runtime != _usual_runtime_dir():
        return runtime
    if os.geteuid() == 0:
        return Path("/var/lib/ouroboros")
    try:
        return _of_user("XDG_STATE_HOME", ".local/state", "OUROBOROS_STATE_DIR") / "ouroboros"
    except NodeError:
        return runtime


def _of_user(variable: str, usual: str, another: str) -> Path:
    """A directory of the user's by the XDG Base Directory Specification. `another`: the variable that helps without."""
    if base := os.environ.get(variable):
        return Path(base)
    try:
        return Path.home() / usual
    except RuntimeError as error:
        raise NodeError(f"user {os.geteuid()} has no home directory: set HOME, {variable} or {another}") from error


def socket_path(directory: Path) -> str:
    """The control socket in a runtime directory. Raises `NodeError` when the path is too long for one."""
    path = str(directory / "irm.sock")
    if len(os.fsencode(path)) > _SOCKET_PATH:
        raise NodeError(
            f"the runtime directory {directory} has too long a path for a socket: set OUROBOROS_RUNTIME_DIR"
        )
    return path


def owner_socket_path(directory: Path) -> str:
    """The second control socket of a node that serves all users, for root alone: whoever fills the queue of the other
    one does not keep root waiting. Its name is no longer than the other, so that its path is not, either."""
    return str(directory / "own.sock")


def trusted_users() -> set[int]:
    """Whose nodes and files are as good as our own: our user's, and root's."""
    user = os.geteuid()
    return {0} if _is_anybody(user) else {0, user}


# What stands in the way of using the directory, and what to do about it.
_ANOTHER = "or set OUROBOROS_RUNTIME_DIR to another directory"
_OBSTACLES = {
    errno.ENOSPC: f"no space is left there: free some, {_ANOTHER}",
    errno.EDQUOT: f"your quota there is used up: free some space, {_ANOTHER}",
    errno.EROFS: f"it is on a file system that is read-only: mount that writable, {_ANOTHER}",
    errno.ENOTDIR: f"it, or a part of its path, is no directory: remove what is there, {_ANOTHER}",
    errno.EEXIST: f"it is no directory: remove what is there, {_ANOTHER}",
    errno.EACCES: f"this user may not use it: change its owner or mode, {_ANOTHER}",
}
#: Limits that stand in the way.
LIMITS = {
    errno.EFBIG: "this process may write no files of that size: raise its limit (`ulimit -f`)",
    errno.EMFILE: "this process has no descriptors left: raise its limit (`ulimit -n`)",
    errno.ENFILE: "this machine has no descriptors left: raise its limit (`sysctl fs.file-max`)",
}


@contextlib.contextmanager
def using(directory: Path) -> Iterator[None]:
    """Within this block, an `OSError` becomes a `NodeError` that says what is wrong with the runtime directory, or with
    the limits of this process."""
    try:
        yield
    except NodeError:
        raise
    except OSError as error:
        raise unusable(directory, error) from error


def unusable(directory: Path, error: OSError) -> NodeError:
    if (limited := LIMITS.get(error.errno or 0)) is not None:
        return NodeLimitError(f"cannot use the runtime directory {directory}: {limited}")
    obstacle = _OBSTACLES.get(error.errno or 0) or f"{error.strerror or error}: look at it, {_ANOTHER}"
    return NodeError(f"cannot use the runtime directory {directory}: {obstacle}")


def make_runtime_dir(directory: Path) -> None:
    """Make the directory if there is none. Raises `NodeError` when somebody else could tamper with it."""
    # Root's node serves other users, so they must reach its socket; anybody else's directory is private.
    mode = 0o755 if os.geteuid() == 0 else 0o700
    with using(directory):
        # One by one: those above it would get what the umask leaves.
        for missing in reversed([each for each in (directory, *directory.parents) if not os.path.lexists(each)]):
            missing.mkdir(mode, exist_ok=True)
        if not directory.is_symlink():
            directory.mkdir(exist_ok=True)
        _check_runtime_dir(directory)


def check_socket(path: str) -> None:
    """Raise `NodeError` when somebody else could have put the control socket there, or it leads elsewhere; nothing when
    there is none."""
    try:
        _check_runtime_dir(Path(path).parent)
        status = os.lstat(path)
    except FileNotFoundError:
        return
    except NodeError:
        raise
    except OSError as error:
        raise unusable(Path(path).parent, error) from error
    if stat.S_ISLNK(status.st_mode):
        raise NodeError(
            f"{path} is a symbolic link and leads to the socket of another node: remove it, or name the runtime directory "
            "of that node (OUROBOROS_RUNTIME_DIR)"
        )


def _check_runtime_dir(directory: Path) -> None:
    users, way = trusted_users(), list(_way(directory))
    for number, (path, status) in enumerate(way, 1):
        above = number < len(way)
        unsafe = f"the runtime directory {directory} is not safe: "
        if stat.S_ISLNK(status.st_mode) and not above:
            raise NodeError(
                f"{unsafe}it is a symbolic link: set OUROBOROS_RUNTIME_DIR to the directory itself, {os.path.realpath(path)}"
            )
        if status.st_uid not in users and not (above and _is_anybody(status.st_uid)):
            whose = f"{path}, which leads to it," if above else "it"
            remedy = "set OUROBOROS_RUNTIME_DIR to a directory of yours"
            if _is_anybody(status.st_uid):
                remedy = "who that is this user namespace does not tell, be it you: map the user (`unshare -c`)"
            raise NodeError(f"{unsafe}{whose} belongs to user {status.st_uid}; {remedy}")
        if stat.S_ISLNK(status.st_mode) or not status.st_mode & 0o022:
            continue
        if not above:
            raise NodeError(f"{unsafe}others can write it: `chmod go-w {path}`, {_ANOTHER}")
        # In a sticky one, as /tmp is, nobody moves away what is ours.
        if not status.st_mode & stat.S_ISVTX:
            raise NodeError(f"{unsafe}others can write {path}, which leads to it: `chmod go-w {path}`, {_ANOTHER}")


def _way(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """All directories and symbolic links that are passed when an absolute path is looked up, in order. What the path
    ends with is not followed."""
    here, ahead, links = Path(), list(reversed(path.parts)), 0
    while ahead:
        here /= ahead.pop()
        status = here.lstat()
        yield here, status
        if stat.S_ISLNK(status.st_mode) and ahead:
            links += 1
            if links > _MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            ahead += reversed(Path(os.readlink(here)).parts)
            here = here.parent


def _is_anybody(user: int) -> bool:
    """Whether a number stands for all users that are not mapped into the user namespace of this process."""
    if user != _UNMAPPED:
        return False
    try:
        ranges = [
            [int(number) for number in line.split()] for line in Path("/proc/self/uid_map").read_text().splitlines()
        ]
    except OSError:
        # There are no user namespaces.
        return False
    return not any(first <= user < first + count for first, _, count in ranges)
