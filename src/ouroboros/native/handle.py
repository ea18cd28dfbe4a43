"""A flow as the library knows it: its number, its flags, and whether it may still be used."""

from __future__ import annotations

import os
import threading
from typing import Any, Final

from ouroboros.dataplane import ends
from ouroboros.errors import (
    FlowDownException,
    FlowException,
    FlowNotAllocatedException,
    FlowPeerException,
    FlowPermissionException,
)
from ouroboros.native import declarations as c
from ouroboros.native.library import Library
from ouroboros.native.tuning import LONG_OVER


class Handle:
    """The number of a flow in the library. `frct`: whether the library keeps order, or more, by itself."""

    def __init__(self, library: Library, fd: int, *, frct: bool) -> None:
        self.fd: Final = fd
        self.library: Final = library
        self.frct: Final = frct
        self.flags = ends.DEFAULT_FLAGS
        #: Neither closed nor the flow of another process.
        self.usable = True
        self.closing = threading.Event()
        self.disowned = False

    # --- whether it may be used

    def close(self) -> None:
        self.closing.set()
        self.usable = False

    def disown(self) -> None:
        self.disowned = True
        self.usable = False

    def check_usable(self) -> None:
        if self.closing.is_set():
            raise FlowNotAllocatedException("this flow is deallocated; allocate a new one")
        if self.disowned:
            raise FlowException("this flow belongs to the process that forked this one; it cannot be used here")

    # --- flags

    @property
    def is_read_only(self) -> bool:
        return self.flags & ends.ACCESS == ends.READ_ONLY

    @property
    def is_write_only(self) -> bool:
        return self.flags & ends.ACCESS == ends.WRITE_ONLY

    def refuses(self) -> bool:
        """Whether to drop the peer's packets here. The library could, but would never take packets again."""
        return self.is_write_only and not self.library.ours and self.usable

    def set_flags(self, flags: int) -> None:
        """Set the flags. The library is told only the flags that it needs and can take back."""
        told = ends.DOWN | (ends.ACCESS if self.library.ours else 0)
        if (flags ^ self.flags) & told:
            access = flags & ends.ACCESS if self.library.ours else ends.READ_WRITE
            value = flags & ends.DOWN | access | ends.DEFAULT_FLAGS & ~ends.ACCESS
            result = self.fccntl(c.SET_FLAGS, self.library.ffi.cast("uint32_t", value))
            if result < 0:
                raise self.failure(result)
        self.flags = flags

    # --- calls of the library

    def fccntl(self, command: int, argument: Any) -> int:  # noqa: ANN401
        return int(self.library.dev.fccntl(self.fd, command, argument))

    def queue(self, command: int) -> int:
        """The length of a queue, or the error below 0."""
        length = self.library.ffi.new("size_t *")
        result = self.fccntl(command, length)
        return result if result < 0 else int(length[0])

    def set_limit(self, command: int, seconds: float) -> None:
        """Set the time limit of reads or writes."""
        if seconds == LONG_OVER and self.library.ours:
            seconds = 0
        self.fccntl(command, self.library.ffi.new("struct timespec *", (int(seconds), int(seconds % 1 * 1e9))))

    def failure(self, result: int) -> FlowException:
        """The exception for an error that the library returned."""
        number = self.library.number(result)
        if number in (c.ENOTALLOC, c.EBADF):
            return FlowNotAllocatedException("the C Ouroboros does not know this flow any more; allocate a new one")
        if number == c.EFLOWDOWN:
            return FlowDownException("the flow is down; allocate a new one")
        if number == c.EFLOWPEER:
            return FlowPeerException("the peer does not answer any more; allocate a new flow")
        if number == c.EPERM:
            return FlowPermissionException("the peer has set the flow write-only and takes no packets")
        return FlowException(f"the C Ouroboros refused with error {result} ({os.strerror(number)})")


__all__ = ["Handle"]
