"""A flow as a file: `Flow.makefile`."""

from __future__ import annotations

import io
from typing import IO, TYPE_CHECKING, Any, Protocol

from ouroboros._arguments import shown
from ouroboros._owned import Uncopied
from ouroboros._values import copy_into
from ouroboros.dataplane.ends import Ended, FlowEnd
from ouroboros.errors import FlowDownException, FlowException, FlowWouldBlockException

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer


class _Flow(Protocol):
    def read(self) -> bytes: ...

    def write(self, buf: ReadableBuffer) -> int: ...

    def fileno(self) -> int: ...

    @property
    def max_packet(self) -> int: ...

    def _held(self) -> FlowEnd: ...


class FlowFile(Uncopied, io.RawIOBase):
    """The bytes of a flow's packets, unbuffered but for the rest of a packet that was not asked for yet."""

    def __init__(self, flow: _Flow, readable: bool, writable: bool) -> None:
        super().__init__()
        self._flow = flow
        self._readable = readable
        self._writable = writable
        self._rest = memoryview(b"")

    def __repr__(self) -> str:
        return f"<file of {self._flow!r}>"

    def readable(self) -> bool:
        self._check_open()
        return self._readable

    def writable(self) -> bool:
        self._check_open()
        return self._writable

    def fileno(self) -> int:
        self._check_open()
        return self._flow.fileno()

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        if not self.readable():
            raise io.UnsupportedOperation("not readable")
        target = memoryview(buffer)
        # Not by `Flow.readinto`, whose empty read after a packet of exactly that length would be the end of the file.
        while target.nbytes and not self._rest:
            try:
                self._rest = memoryview(self._flow.read())
            except FlowWouldBlockException:
                return None
            except FlowDownException:
                if self._flow._held().ended != Ended.CLOSED:
                    raise
                return 0
        count = min(target.nbytes, self._rest.nbytes)
        if target.format == "B" and target.ndim == 1:
            target[:count] = self._rest[:count]
        else:
            copy_into(buffer, self._rest[:count])
        self._rest = self._rest[count:]
        return count

    def write(self, buffer: ReadableBuffer) -> int | None:
        """Write all of it, unless it would block, the time is over or the flow ends: then what was written counts, and
        the next call says why it was not more."""
        if not self.writable():
            raise io.UnsupportedOperation("not writable")
        view = memoryview(buffer)
        source = view if view.format == "B" and view.ndim == 1 else memoryview(view.tobytes())
        longest = self._flow.max_packet
        written = 0
        try:
            while written < source.nbytes:
                written += self._flow.write(source[written : written + longest])
        except FlowWouldBlockException:
            return written or None
        except FlowException:
            if not written:
                raise
        return written

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on a closed file")


def open_flow(
    flow: _Flow, mode: str, buffering: int | None, encoding: str | None, errors: str | None, newline: str | None
) -> IO[Any]:
    """The file; see `Flow.makefile`."""
    if not isinstance(mode, str):
        raise TypeError(f'mode is a str such as "r" or "rwb", not {shown(mode)}')
    if buffering is not None and not isinstance(buffering, int):
        raise TypeError(f"buffering is a whole number of bytes or None, not {shown(buffering)}")
    if not set(mode) <= set("rwb") or not set(mode) & set("rw") or len(set(mode)) != len(mode):
        raise ValueError(f'mode must be "r", "w" or "rw", with or without "b", not {mode!r}')
    binary = "b" in mode
    if binary and (encoding, errors, newline) != (None, None, None):
        raise ValueError('a binary file takes no encoding, errors or newline: leave them, or the "b" of the mode, out')
    if buffering == 0 and not binary:
        raise ValueError('text needs a buffer: leave buffering out, or add "b" to the mode')
    raw = FlowFile(flow, "r" in mode, "w" in mode)
    if buffering == 0:
        return raw  # type: ignore[return-value] # an IO to all but typeshed
    size = io.DEFAULT_BUFFER_SIZE if buffering is None or buffering < 2 else buffering
    buffered = _buffered(raw, mode, size)
    if binary:
        return buffered  # type: ignore[no-any-return]
    return io.TextIOWrapper(buffered, encoding or "utf-8", errors, newline, line_buffering=buffering == 1)


def _buffered(raw: FlowFile, mode: str, size: int) -> Any:  # noqa: ANN401 - one of three classes, all of them files
    if "w" not in mode:
        return io.BufferedReader(raw, size)
    return io.BufferedRWPair(raw, raw, size) if "r" in mode else io.BufferedWriter(raw, size)


__all__ = ["FlowFile", "open_flow"]
