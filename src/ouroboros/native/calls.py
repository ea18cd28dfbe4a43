"""Requests for flows: each in a thread of its own, because the library would wait where no signal and no other task gets
through, and because a call of it that is cut short leaves its request behind in the daemon.
"""

from __future__ import annotations

import math
import select
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from ouroboros.errors import FlowTimeoutException
from ouroboros.runtime.descriptors import Eventfd

_T = TypeVar("_T")

#: Seconds that a call may take longer than it was given, for the library itself to say that the time is over.
_GRACE = 0.25


class Call:
    """A call under way. For event loops: `poll` it when `fileno` is readable."""

    def __init__(self, work: Callable[[Call], Any], undo: Callable[[Any], None], timeout: float | None) -> None:
        """`work` is called in a thread. Its result goes to `poll`, or to `undo` after `withdraw`."""
        self._work = work
        self._undo = undo
        self._lock = threading.Lock()
        self._outcome: tuple[bool, Any] | None = None
        self._bell: Eventfd | None = Eventfd()
        self._thread = threading.Thread(target=self._run, name="ouroboros-call", daemon=True)
        self.withdrawn = False
        #: When the time of the caller is over.
        self.deadline = None if timeout is None else time.monotonic() + timeout
        under_way.add(self)
        try:
            self._thread.start()
        except BaseException:
            under_way.discard(self)
            self._close()
            raise

    def fileno(self) -> int:
        if self._bell is None:
            raise ValueError("this call is over")
        return self._bell.fileno()

    def left(self) -> float | None:
        """Seconds until the time of the caller is over, if it ever is."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def poll(self) -> Any:  # noqa: ANN401
        """The result of the call, or None when it is not over. Raises the exception of the call."""
        with self._lock:
            if self._outcome is None:
                return None
            good, value = self._outcome
            self._close()
        if good:
            return value
        raise value

    def wait(self) -> Any:  # noqa: ANN401
        """Wait for the end of the call. Interrupting the wait withdraws it."""
        bell = self._bell
        assert bell is not None
        try:
            while (value := self.poll()) is None:
                left = self.left()
                patience = None if left is None else max(0.0, left + _GRACE)
                if not _wait_for(bell, patience):
                    raise FlowTimeoutException("the C Ouroboros did not answer within the time limit of the call")
        except BaseException:
            self.withdraw()
            raise
        return value

    def withdraw(self) -> None:
        """Give up. A result that still comes is given back."""
        with self._lock:
            if self.withdrawn or self._bell is None:
                return
            self.withdrawn = True
            outcome = self._outcome
            self._close()
        if outcome is not None and outcome[0]:
            self._undo(outcome[1])

    def join(self, seconds: float) -> None:
        self._thread.join(seconds)

    def _run(self) -> None:
        # A signal would make the library give up, and leave its request behind.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            outcome = True, self._work(self)
        except BaseException as error:  # noqa: BLE001 - it is raised where the call is waited for
            outcome = False, error
        under_way.discard(self)
        with self._lock:
            self._outcome = outcome
            if self._bell is not None:
                self._bell.ring()
                return
        if outcome[0]:
            self._undo(outcome[1])

    def _close(self) -> None:
        # A thread that waits keeps the bell open by its reference. When the program ends it is not woken.
        self._bell = None


#: Calls whose threads may be in the library.
under_way: set[Call] = set()


def withdraw_all(seconds: float) -> None:
    """The program ends: no thread may be in the library when it goes."""
    end = time.monotonic() + seconds
    for call in list(under_way):
        call.withdraw()
        call.join(max(0.0, end - time.monotonic()))


def _wait_for(bell: Eventfd, seconds: float | None) -> bool:
    """Whether the descriptor is readable within that time."""
    poller = select.poll()
    poller.register(bell, select.POLLIN)
    return bool(poller.poll(None if seconds is None else math.ceil(1000 * seconds)))


def run(work: Callable[[], _T]) -> _T:
    """Make a call of the library in a thread, and wait for it. Signals do not cut the call short, only the wait for it."""
    value: tuple[_T] = Call(lambda _: (work(),), lambda _: None, None).wait()
    return value[0]


__all__ = ["Call", "run", "under_way", "withdraw_all"]
