"""What a node has and has counted, in two files of its runtime directory: `listing`, which the node writes, and `counters`,
which its engine does. Whoever may read them asks nobody and wakes nobody, and they outlive a node that is killed.

They are read, not mapped: a file that somebody makes shorter would kill a program that has it mapped.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from ouroboros.errors import NodeError, ProtocolError
from ouroboros.runtime.descriptors import above_standard
from ouroboros.runtime.paths import trusted_users, unusable
from ouroboros.wire import listing
from ouroboros.wire.control import FlowEntry, IpcpEntry, with_counters
from ouroboros.wire.counters import Counters
from ouroboros.wire.listing import Listing, Place

_T = TypeVar("_T")

#: The names of the files.
LISTING, COUNTERS = "listing", "counters"

#: Bytes of a file that are read, at the most: a node with 100 000 flows has half of that.
_LONGEST = 128 << 20
#: Bytes that are read at once.
_PIECE = 1 << 20
#: How often slots that are being written are looked at again.
_TRIES = 10


class Figures(NamedTuple):
    """The figures of a node. `running`: it has not ended. `whole`: the engine shows its counters. `updated`: when they last
    changed, seconds since 1970."""

    pid: int
    version: str
    running: bool
    whole: bool
    updated: float
    ipcps: list[IpcpEntry]
    flows: list[FlowEntry]


def read(directory: Path) -> Figures | None:
    """The figures of the node in a runtime directory, or the last ones of one that was killed there. None when there are
    none, or this user may not read them. Raises `NodeError` when the files are not what they should be."""
    with _opened(directory / LISTING) as file:
        if file is None:
            return None
        running, updated = _is_held(directory / LISTING, file), os.fstat(file).st_mtime
        found = _parsed(directory / LISTING, lambda: listing.parse(_content(file)))
    with _opened(directory / COUNTERS) as file:
        counters = None if file is None else _parsed(directory / COUNTERS, lambda: counters_of(file))
    if counters is not None:
        updated = max(updated, counters.header.updated / 1e9)
    places = [each.place for each in found.ipcps.values()] + [each.place for each in found.flows.values()]
    whole = all(_is_of(counters, place) for place in places)
    return Figures(found.node.pid, found.node.version, running, whole, updated, *_joined(found, counters))


def counters_of(file: int) -> Counters:
    """The counters in a file that an engine may be writing. Raises `ProtocolError`."""
    counters = Counters(_content(file), _content(file))
    size = counters.header.slot
    for _ in range(_TRIES):
        counters.torn = [
            at for at in counters.torn if not counters.mend(os.pread(file, size, at), os.pread(file, size, at))
        ]
        if not counters.torn:
            break
    # One that is never whole was being written when the engine was killed.
    return counters


def _joined(found: Listing, counters: Counters | None) -> tuple[list[IpcpEntry], list[FlowEntry]]:
    def counted(kind: str, place: Place | None) -> dict[str, int] | None:
        return counters.of(kind, place[1]) if counters is not None and _is_of(counters, place) and place else None

    ipcps = [with_counters(record.entry, counted("layer", record.place) or {}) for record in found.ipcps.values()]
    flows = []
    for record in found.flows.values():
        of_flow = counted("flow", record.place)
        flows.append(record.entry if of_flow is None else msgspec.structs.replace(record.entry, counters=of_flow))
    return ipcps, flows


def _is_of(counters: Counters | None, place: Place | None) -> bool:
    """Whether nothing is counted at a place, or all that is must be there."""
    return place is None or (counters is not None and place[0] == counters.header.instance)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    """The file; None when there is none, or it is not for us. Raises `NodeError` when it may be of anybody."""
    try:
        file = above_standard(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY))
    except (FileNotFoundError, PermissionError):
        yield None
        return
    except OSError as error:
        raise unusable(path.parent, error) from error
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in trusted_users():
            raise NodeError(f"{path} is no file of a node of yours: remove it")
        yield file
    finally:
        os.close(file)


def _is_held(path: Path, file: int) -> bool:
    """Whether the node that writes the file is there."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    # Unless the node has just put another one in its place.
    with _opened(path) as now:
        return now is not None and not os.path.sameopenfile(file, now) and _is_held(path, now)


def _content(file: int) -> bytes:
    pieces, at = [], 0
    while piece := os.pread(file, _PIECE, at):
        pieces.append(piece)
        at += len(piece)
        if at > _LONGEST:
            raise ProtocolError(f"it has more than {_LONGEST} bytes")
    return b"".join(pieces)


def _parsed(path: Path, parse: Callable[[], _T]) -> _T:
    try:
        return parse()
    except ProtocolError as error:
        raise NodeError(f"{path} cannot be read: {error}; a node that starts there makes a new one") from error


# --- the node's side


def create(path: Path) -> int:
    """A new file that only this user may read, next to its place: `put` puts it there. Raises `OSError`."""
    new = _new(path)
    new.unlink(missing_ok=True)
    return above_standard(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))


def put(path: Path) -> None:
    os.replace(_new(path), path)


def discard(path: Path) -> None:
    """What `create` made is not put there."""
    with contextlib.suppress(OSError):
        _new(path).unlink(missing_ok=True)


def _new(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def remove(directory: Path) -> None:
    """What a node has left in the directory is gone."""
    for name in (LISTING, COUNTERS):
        for path in (directory / name, _new(directory / name)):
            path.unlink(missing_ok=True)
