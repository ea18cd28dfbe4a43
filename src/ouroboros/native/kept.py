"""Packets that were taken out of the library and wait to be read, whole or in parts. Pure.

The library throws away the rest of a packet that is read in part, and a packet that does not fit; here both stay.
"""

from __future__ import annotations

from collections import deque

from ouroboros.errors import FlowSizeException


class Kept:
    """The packets of one flow. True as long as there is something to read, the mark of an end included."""

    def __init__(self) -> None:
        self._packets: deque[bytes | memoryview] = deque()
        #: Whether the first of them is the rest of a packet.
        self._cut = False
        self._end_mark = False
        #: Bytes of all of them.
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._packets) or self._end_mark

    def __len__(self) -> int:
        """Number of packets that are still whole."""
        return len(self._packets) - self._cut

    def put(self, packet: bytes) -> None:
        self._packets.append(packet)
        self.size += len(packet)

    def clear(self) -> None:
        self._packets.clear()
        self._cut = self._end_mark = False
        self.size = 0

    def take_bytes(self, count: int | None, partial: bool) -> bytes:
        """The next packet, or its first `count` bytes. One of exactly that length is followed by an empty read."""
        if self._end_mark:
            self._end_mark = False
            return b""
        packet = self._packets[0]
        length = len(packet)
        if count is not None and count < length:
            return bytes(self._cut_off(packet, count, count, partial))
        self._drop_first()
        self._end_mark = count == length > 0 and partial
        return bytes(packet)

    def take_text(self, count: int | None, partial: bool) -> str:
        """As `take_bytes`, in characters. A packet that is not UTF-8 stays."""
        if self._end_mark:
            self._end_mark = False
            return ""
        packet = self._packets[0]
        text = str(packet, "utf-8")
        if count is not None and count < len(text):
            self._cut_off(packet, len(text[:count].encode()), count, partial)
            return text[:count]
        self._drop_first()
        self._end_mark = count == len(text) > 0 and partial
        return text

    def _cut_off(self, packet: bytes | memoryview, length: int, count: int, partial: bool) -> memoryview:
        if not partial:
            raise FlowSizeException(
                f"the next packet has {len(packet)} bytes, the read asks for {count}, and NoPartialRead is set; the packet"
                " is still there"
            )
        view = memoryview(packet)
        self._packets[0] = view[length:]
        self._cut = True
        self.size -= length
        return view[:length]

    def _drop_first(self) -> None:
        self.size -= len(self._packets.popleft())
        self._cut = False


__all__ = ["Kept"]
