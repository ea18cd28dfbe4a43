"""How a newcomer gets the configuration of a layer, both sides. Source: `unicast-control.md` 3.

::

    newcomer                                    member
      │── greeting with request ───────────────▶│ connections.py; may it?
      │◀─ greeting ─────────────────────────────│
      │◀─ configuration and time, or a refusal ─│
      │ check, become a member                  │
      │── ack ─────────────────────────────────▶│
      release                                   release

A member of the C prototype does not see the request in a greeting, and gets it in a message of its own. Where the node at
the other end is ours, the newcomer can `prepare` meanwhile: it asks for the flows by which it will be connected, and greets
on them as soon as it has an address. So it is connected two round trips after it had a flow.

Each newcomer has a flow and a time limit of its own, so one that is silent delays nobody. A member makes no state for it:
one whose ack is lost is a member all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from ouroboros.errors import FlowTimeoutException, IpcpEnrollError, OuroborosError, ProtocolError
from ouroboros.layers.agenda import Agenda, earliest
from ouroboros.layers.bucket import WARNINGS, Lines
from ouroboros.layers.face import LowerFlow, Task
from ouroboros.layers.members.connections import Connection, Connections
from ouroboros.layers.members.core import Core, Then
from ouroboros.layers.members.greeting import ENROLLMENT
from ouroboros.layers.members.links import SILENCE
from ouroboros.qos import QOS_RAW
from ouroboros.settings import ANYONE, BroadcastSettings, UnicastSettings
from ouroboros.wire.unicast import enrollment
from ouroboros.wire.unicast.enrollment import ID_LENGTH, Ack, Configuration, Request, Response

#: For how long a newcomer waits for its configuration, if nothing else is said, seconds. That is time for a lower flow to be
#: asked for three times, of which a member of the prototype may lose one (`unicast-control.md` 12.4).
ENROLL_PATIENCE = 6.0
#: For how long each message is waited for, seconds.
PATIENCE = 5.0
#: After how long a question to a node of ours is repeated, and each time later twice that.
REPETITION = 0.25
#: Newcomers at once. One more, and the oldest is let go.
MOST_NEWCOMERS = 256
#: Clocks further apart than this are worth a warning, as with the prototype; seconds.
CLOCK_WARNING = 0.02

_BILLION = 1_000_000_000


@dataclass(slots=True, eq=False, kw_only=True)
class _Enrolling:
    """We are the newcomer. `id`: of the exchange. `until`: when we give up, and `patience` how long that is. `connection`:
    None until there is one. `asked`: wall clock of the request, nanoseconds. `pause`: until the request is repeated."""

    member: str
    task: Task
    id: bytes
    patience: float
    until: float
    connection: Connection | None = None
    asked: int = 0
    pause: float = REPETITION


@dataclass(slots=True, eq=False)
class _Newcomer:
    """We are the member. `response`: what it got, or gets again. `id`: of the exchange."""

    connection: Connection
    response: bytes = b""
    id: bytes = b""


class Enrollment:
    """The component of that name. Of the two sides, a member before its enrollment is one, and ever after the other."""

    #: Set by whoever made both.
    connections: Connections

    def __init__(
        self,
        core: Core,
        enrolled: Callable[[Configuration, float], None],
        *,
        prepare: Callable[[str, float], None] = lambda member, now: None,
    ) -> None:
        """`enrolled`: become a member, with the configuration; it answers the task. `prepare`: the member that is asked by
        that name is at a node of ours, and in a round trip there will be a configuration.
        """
        self._core = core
        self._enrolled = enrolled
        self._prepare = prepare
        self._enrolling: _Enrolling | None = None
        self._newcomers: dict[int, _Newcomer] = {}
        self._times = Agenda()
        self._warnings = Lines(*WARNINGS, lambda text: core.warn(f"enrollment in layer {core.layer!r}: {text}"))

    # --- the newcomer

    def enroll(
        self,
        member: str,
        task: Task,
        now: float,
        *,
        over: frozenset[str] | None = None,
        patience: float = ENROLL_PATIENCE,
    ) -> None:
        """Enroll with the member to which the name leads. On success `enrolled` is called, and the task is left to it.

        `over`: layers that may carry the flow. `patience`: when it fails, seconds.
        """
        if self._enrolling is not None:
            task.failed(self._failure(member, f"it is being enrolled with {self._enrolling.member!r}"))
            return
        enrolling = self._enrolling = _Enrolling(
            member=member,
            task=task,
            id=self._core.host.random.randbytes(ID_LENGTH),
            patience=patience,
            until=now + patience,
        )

        def opened(flow: LowerFlow, now: float) -> bytes:
            enrolling.asked = self._core.host.wall()
            if flow.ours:
                self._prepare(member, now)
            return enrolling.id

        def answered(outcome: object) -> None:
            if isinstance(outcome, OuroborosError) and self._enrolling is enrolling:
                given_up = f"; given up after {patience:g} s: is that host up?"
                why = f"{outcome}{given_up if isinstance(outcome, FlowTimeoutException) else ''}"
                self._fail(why, now, outcome)

        self.connections.connect(
            ENROLLMENT, member, QOS_RAW, Then(answered), now, over=over, patience=patience, opened=opened
        )

    def cancel(self, now: float) -> None:
        """The enrollment is not wanted any more."""
        if self._enrolling is not None:
            self._fail("it was cancelled", now)

    def _connected(self, enrolling: _Enrolling, connection: Connection, now: float) -> None:
        """A member of ours has the request already, one of the prototype gets it when it has finished with the greeting."""
        enrolling.connection = connection
        self._times.set(connection.fd, now + (REPETITION if connection.ours else SILENCE))

    def _ask(self, enrolling: _Enrolling, connection: Connection, now: float) -> None:
        """Send the request, to one of ours once more."""
        if now >= enrolling.until:
            why = f"it does not answer within {enrolling.patience:g} s"
            self._fail(why, now, FlowTimeoutException(why))
            return
        if not connection.ours:
            enrolling.asked = self._core.host.wall()
        enrolling.pause *= 2
        self._core.message(connection.fd, Request(enrolling.id).encode())
        # A member of the prototype would take the second one for an ack.
        again = now + enrolling.pause if connection.ours else enrolling.until
        self._times.set(connection.fd, min(again, enrolling.until))

    def _answered(self, enrolling: _Enrolling, connection: Connection, data: bytes, now: float) -> None:
        try:
            response = enrollment.decode_response(data)
        except ProtocolError as error:
            self._fail(f"its answer makes no sense: {error}", now)
            return
        if response.id != enrolling.id:
            self._fail("it answered the request of another", now)
            return
        objection = self._objection(response, enrolling)
        configuration = response.configuration
        if objection or configuration is None:
            self._fail(objection, now)
            return
        if configuration.note:
            self._core.warn(f"layer {configuration.layer!r}, as {enrolling.member!r} tells it: {configuration.note}")
        self._enrolling = None
        self._times.cancel(connection.fd)
        self._enrolled(configuration, now)
        self._core.message(connection.fd, Ack(enrolling.id).encode())
        self.connections.release(connection, now)

    def _objection(self, response: Response, enrolling: _Enrolling) -> str:
        """Why the answer does not make us a member; empty if it does."""
        configuration = response.configuration
        if configuration is None:
            return f"it refused: {response.reason!r}" if response.reason else "it refused"
        settings, wanted = configuration.settings, BroadcastSettings if self._core.broadcast else UnicastSettings
        if not isinstance(settings, wanted):
            return f"its layer {configuration.layer!r} is a {settings.word()} layer: enroll an IPC process of that type"
        if isinstance(settings, BroadcastSettings):
            return ""
        apart = _apart(response.wall, enrolling.asked, self._core.host.wall())
        limit = settings.unicast.dir.dht.t_expire / 2
        if apart > limit:
            return (
                f"its clock is {apart:.1f} s away from ours, and in its layer names expire after {limit * 2:.0f} s: set "
                "the clocks"
            )
        if apart > CLOCK_WARNING:
            self._core.warn(
                f"the clock of {enrolling.member!r} is {apart * 1000:.0f} ms away from ours; expiry of names goes by clocks"
            )
        return ""

    def _fail(self, why: str, now: float, cause: OuroborosError | None = None) -> None:
        """`cause`: of what kind that is, for whoever wants to know; it is the cause of the error."""
        enrolling, self._enrolling = self._enrolling, None
        assert enrolling is not None
        if enrolling.connection is not None:
            self._times.cancel(enrolling.connection.fd)
            self.connections.release(enrolling.connection, now)
        # What is asked for, and what was prepared.
        self.connections.close(now)
        error = self._failure(enrolling.member, why)
        error.__cause__ = cause
        enrolling.task.failed(error)

    def _failure(self, member: str, why: str) -> IpcpEnrollError:
        return IpcpEnrollError(f"IPC process {self._core.name!r} cannot enroll with {member!r}: {why}")

    # --- the member

    def _requested(self, newcomer: _Newcomer, data: bytes, now: float) -> None:
        try:
            if newcomer.response:
                self._heard_again(newcomer, data, now)
                return
            newcomer.id = enrollment.decode_request(data).id
        except ProtocolError as error:
            self._warn(newcomer, f"a newcomer said what makes no sense: {error}", now)
            self._let_go(newcomer, now)
            return
        why = self._core.may_enroll(newcomer.connection.proven)
        if why:
            self._core.counters["enrollments_refused"] += 1
            self._warn(newcomer, f"{newcomer.connection.peer or 'a newcomer'} may not enroll: {why}", now)
        configuration = None if why else self._told(newcomer.connection)
        newcomer.response = Response(newcomer.id, self._core.host.wall(), configuration, why).encode()
        self._core.message(newcomer.connection.fd, newcomer.response)
        self._times.set(newcomer.connection.fd, now + PATIENCE)

    def _told(self, newcomer: Connection) -> Configuration:
        """What the layer is. A member of the prototype is told only what it knows of."""
        if self._core.broadcast:
            return Configuration(self._core.layer, BroadcastSettings(), None)
        settings = self._core.settings
        if not newcomer.ours:
            unicast = msgspec.structs.replace(settings.unicast, enroll=(ANYONE,))
            settings = msgspec.structs.replace(settings, unicast=unicast)
        return Configuration(self._core.layer, settings, self._core.address)

    def _heard_again(self, newcomer: _Newcomer, data: bytes, now: float) -> None:
        """An ack, or the request once more, because the answer was lost."""
        if data == Request(newcomer.id).encode():
            self._core.message(newcomer.connection.fd, newcomer.response)
            return
        ack = enrollment.decode_ack(data)
        if ack.result or ack.id != newcomer.id:
            self._warn(newcomer, f"a newcomer ended its enrollment with result {ack.result}", now)
        else:
            self._core.counters["enrollments"] += 1
        self._let_go(newcomer, now)

    def _let_go(self, newcomer: _Newcomer, now: float) -> None:
        fd = newcomer.connection.fd
        del self._newcomers[fd]
        self._times.cancel(fd)
        self.connections.release(newcomer.connection, now)

    def _warn(self, newcomer: _Newcomer, text: str, now: float) -> None:
        self._warnings.add(text, now, newcomer.connection.layer)

    # --- the component

    def connected(self, connection: Connection, now: float) -> None:
        if connection.side == 0:
            if self._enrolling is None or self._enrolling.connection is not None:
                self.connections.release(connection, now)
            else:
                self._connected(self._enrolling, connection, now)
            return
        newcomer = self._newcomers[connection.fd] = _Newcomer(connection)
        self._times.set(connection.fd, now + PATIENCE)
        if connection.request:
            self._requested(newcomer, Request(connection.request).encode(), now)
        if len(self._newcomers) > MOST_NEWCOMERS:
            self._core.counters["enrollments_evicted"] += 1
            self._let_go(next(iter(self._newcomers.values())), now)

    def disconnected(self, connection: Connection, now: float) -> None:
        self._times.cancel(connection.fd)
        self._newcomers.pop(connection.fd, None)
        if self._enrolling is not None and self._enrolling.connection is connection:
            self._fail("the flow to it ended", now)

    def heard(self, connection: Connection, data: bytes, now: float) -> None:
        if (newcomer := self._newcomers.get(connection.fd)) is not None:
            self._requested(newcomer, data, now)
        elif self._enrolling is not None and self._enrolling.connection is connection:
            self._answered(self._enrolling, connection, data, now)

    def state(self, connection: Connection, up: bool, now: float) -> None:
        """The time limits are shorter than any silence that is told."""

    def deadline(self) -> float | None:
        return earliest(self._times.next(), self._warnings.deadline())

    def timeout(self, now: float) -> None:
        for fd in self._times.due(now):
            if (newcomer := self._newcomers.get(fd)) is not None:
                self._core.counters["enrollments_unfinished"] += 1
                self._let_go(newcomer, now)
            elif self._enrolling is not None and self._enrolling.connection is not None:
                self._ask(self._enrolling, self._enrolling.connection, now)
        self._warnings.timeout(now)


def _apart(theirs: int, asked: int, answered: int) -> float:
    """Seconds by which a clock is wrong, at least, that showed `theirs` between two looks at ours."""
    return max(asked - theirs, theirs - answered, 0) / _BILLION
