"""The end of a flow, as far as it is known. The library says that a flow is up no more; only an event says why."""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter

from ouroboros.dataplane import ends
from ouroboros.dataplane.ends import Ended
from ouroboros.errors import FlowDownException, FlowPeerException
from ouroboros.native import declarations as c
from ouroboros.native.handle import Handle
from ouroboros.native.pump import Watch
from ouroboros.native.tuning import EXPLAINED, FALLS

#: Why a flow is down, by the event of the library: it was set down, set up again, given back by the peer.
_CAUSES = {c.EVENT_DOWN: Ended.DOWN, c.EVENT_UP: 0, c.EVENT_DEALLOC: Ended.CLOSED}


class Ending:
    """Whether a flow is up, and the cause of its end."""

    def __init__(self, handle: Handle, watch: Watch) -> None:
        self._handle = handle
        self._watch = watch
        #: Ended.CLOSED, Ended.DEAD or Ended.DOWN; 0 while the flow is up.
        self.ended = 0
        #: Cause that an event gave, of an end that is here or will come: Ended.CLOSED, Ended.DOWN or 0.
        self.cause = 0
        #: Time of that event.
        self._told_at = -FALLS
        #: Time since which the flow is known to be up no more, with the cause unknown; 0 otherwise.
        self.fell_at = 0.0
        #: Time at which the flow was last found up.
        self.up_at = 0.0

    def note_packet(self) -> None:
        """A read brought a packet."""
        if self.ended != Ended.DEAD and not self._handle.flags & ends.DOWN:
            # Queued packets come before the end, so the flow is up again.
            self.ended = 0

    def note_nothing(self, result: int) -> None:
        """A read ended with this result, and without a packet."""
        number = self._handle.library.number(result)
        if number in (0, c.EAGAIN, c.ETIMEDOUT):
            self.up_at = perf_counter()
            if self.ended or self.up_at - self._told_at > FALLS:
                self.cause = 0
            self.ended, self.fell_at = 0, 0.0
        elif number == c.EPERM:
            # Only our library says this, when the flow is write-only.
            self.up_at = 0.0
        elif self.ended == Ended.DEAD or number == c.EFLOWPEER:
            self.ended = Ended.DEAD
        elif self._handle.flags & ends.DOWN:
            self.ended = Ended.DOWN
        elif self.cause:
            self.ended = self.cause
        elif not self.ended and not self._waits_for_the_cause():
            # It may only be set down: the library tells the two apart by events alone, and the flow is not watched.
            self.ended = Ended.CLOSED
        if self.ended:
            self.fell_at = 0.0

    def note_events(self, kinds: Iterable[int]) -> None:
        """Take the cause from events. Whether the flow is down, a read shows: an event may be of the flow that had the
        number before, and it comes before the flow is down, or after."""
        for kind in kinds:
            if kind in _CAUSES:
                self.cause, self._told_at = _CAUSES[kind], perf_counter()
                self._watch.keep_polling()
        if self.ended == Ended.DOWN and not self.cause:
            self.ended = 0

    def note_flags(self) -> None:
        """Flags were set: the flow may be up or down now."""
        self.up_at = 0.0
        if self.ended == Ended.DOWN and not self._handle.flags & ends.DOWN:
            self.ended = 0

    def is_unsettled(self) -> bool:
        """Whether a read may soon tell more of the end."""
        return bool(self.fell_at) or perf_counter() - self._told_at <= FALLS

    def is_given_back(self) -> bool:
        """Whether the peer has deallocated the flow, for sure."""
        return self.ended == Ended.CLOSED and bool(self.cause)

    def check_up(self) -> None:
        """Raise the exception for the end of the flow, if it has ended."""
        if self.ended == Ended.DEAD:
            raise FlowPeerException("the peer's process died, or does not answer any more; allocate a new flow")
        if self.ended == Ended.DOWN:
            raise FlowDownException("the flow is set down by FlowProperties.Down, here or at the peer")
        if self.ended:
            raise FlowDownException("the peer deallocated the flow; allocate a new one")

    def _waits_for_the_cause(self) -> bool:
        """Whether the event with the cause of the end may still come."""
        if not self._watch.is_armed():
            self.fell_at = 0.0
            return False
        now = perf_counter()
        if not self.fell_at:
            self.fell_at = now
            self._watch.keep_polling()
        return now - self.fell_at < EXPLAINED


__all__ = ["Ending"]
