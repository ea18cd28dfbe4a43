"""The descriptor of a flow: readable while there is a packet, an end that was not seen, or room that is wanted.

While it is not, the flow is armed: the next event of the library makes it readable.
"""

from __future__ import annotations

from ouroboros.dataplane.ends import Ended
from ouroboros.native.bell import Bell
from ouroboros.native.ending import Ending
from ouroboros.native.handle import Handle
from ouroboros.native.pump import Watch
from ouroboros.native.reading import Reading


class Descriptor:
    """The descriptor of one flow, from the first time that it is asked for."""

    def __init__(self, handle: Handle, ending: Ending, reading: Reading, watch: Watch) -> None:
        self._handle = handle
        self._ending = ending
        self._reading = reading
        self._watch = watch
        self.bell = Bell()
        #: The end that the program has seen, of which the descriptor is silent.
        self._seen = 0
        #: The end that the descriptor told of last, and whether nobody has read or watched since.
        self._told_end, self._end_is_news = 0, False
        self.wants_room = self.room_found = False

    @property
    def is_open(self) -> bool:
        return self.bell.descriptor is not None

    def number(self) -> int:
        """The descriptor itself. The caller holds the right to read."""
        if self.bell.descriptor is None:
            self.bell.open()
            self._reading.watched = True
            self.settle()
        assert self.bell.descriptor is not None
        return self.bell.descriptor

    def watch(self, seen: int) -> None:
        """Be silent about the end `seen`."""
        self._seen = seen
        self.forget_news()
        self.settle()

    def forget_news(self) -> None:
        """Somebody has seen how the flow is."""
        self._end_is_news = False

    def want_room(self) -> None:
        """Be silent until `find_room`, or until there is news for a reader."""
        self.room_found = False
        self.wants_room = True
        self.bell.hush()
        self._watch.keep_polling()

    def forget_room(self) -> None:
        self.wants_room = self.room_found = False

    def settle(self) -> None:
        """Ring, hush or arm, as the flow is now. The caller holds the right to read."""
        self._reading.update_plain()
        if not self.is_open or not self._handle.usable:
            return
        packet = self._reading.has_packet()
        if self._handle.frct:
            self._watch.keep_polling()
        elif not packet and self._ending.ended != Ended.DEAD and not self._ending.is_given_back():
            # Also while there is an end to be told: only an event says why the next one comes.
            self._watch.arm()
            # There is no event for a packet that came before.
            packet = self._reading.has_packet()
        ended = self._ending.ended
        if ended != self._told_end:
            # News even if it is taken back before anybody reads or watches.
            self._told_end, self._end_is_news = ended, True
        if packet or self.room_found or self._end_is_news or ended != self._seen:
            self.bell.ring()
        else:
            self.bell.hush()

    def glance(self) -> None:
        """Find out how the flow is, unless another thread reads: that one finds out anyway."""
        if self._reading.lock.acquire(blocking=False):
            try:
                # Checked under the lock: without it the flow may be given back, and another flow have its number.
                if self._handle.usable:
                    self._reading.keep_one()
                    self.settle()
            finally:
                self._reading.lock.release()

    def close(self) -> None:
        """Wake all that wait for it, and let go of it."""
        self.bell.close()

    def disown(self) -> None:
        """In the child of a fork: let go of it in silence."""
        self.bell = self.bell.disown()


__all__ = ["Descriptor"]
