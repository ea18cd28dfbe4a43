"""The face between an IPC process and the rest of its node: the flow manager above it, the engine below. Pure.

::

    Irm, FlowManager ── verbs of Ipcp (base.py) ──▶ IPC process ── effects (effects.py) ──▶ engine, machine
                     ◀── Upper, Task: posted ──────             ◀── opened, received, over ...
                     ◀── Lower: flows of layers below ──

**Downcalls return, upcalls are posted.** A verb of `Ipcp` may be called from anywhere in the flow manager, also in the
middle of a change of its state. So what an IPC process has to say goes into a queue (`Posts`). The IRM empties it when
the entry point that caused it is through: no upcall ever meets a half-made state, on either side.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from ouroboros.errors import OuroborosError
from ouroboros.layers.agenda import Alarm
from ouroboros.oap import Server, Session, Settings
from ouroboros.qos import QoSSpec
from ouroboros.settings import Strangers
from ouroboros.wire.control import HopEntry
from ouroboros.wire.offers import Offer

#: The longest time that a packet may live in a layer, nanoseconds (`frcp.md` 3). Both ends must assume the same.
MPL = 5_000_000_000
#: The same in a unicast layer, whatever is below (`unicast-data.md` 6).
UNICAST_MPL = 100_000_000

if TYPE_CHECKING:
    from ouroboros.layers.effects import Effect, Where

#: Posted calls that one entry point may cause. More is a circle, and a bug.
_MOST_POSTS = 100_000


class Reach(Enum):
    """Whether a layer leads to a name."""

    #: The name is registered by this node.
    HERE = auto()
    #: Perhaps: ask for a flow to it.
    PERHAPS = auto()
    NO = auto()


class How(Enum):
    """How the engine ended a flow that it carried. The values are its own words."""

    #: The program deallocated, and what it wrote is delivered.
    CLOSED = "closed"
    #: The program died, and what it wrote is delivered.
    DIED = "died"
    #: The peer was silent for too long.
    SILENT = "silent"
    #: It cannot be repaired.
    BROKEN = "broken"
    #: The peer let go, as `PeerGone` said.
    GONE = "gone"


class Random(Protocol):
    """The part of `random.Random` that is used."""

    def getrandbits(self, k: int, /) -> int: ...

    def randbytes(self, n: int, /) -> bytes: ...


@dataclass(slots=True, eq=False, kw_only=True)
class Arrival:
    """A flow that a peer asks for, to a name of this node. An IPC process adds what it needs for the answer.

    `ipcp`: id of the IPC process that the request came to. `proven`: it comes from where it says; others are served first.
    `host`: who asks, where hosts are told apart; none of them may take what all have.
    """

    ipcp: int
    name: str
    qos: QoSSpec
    proven: bool = True
    host: Hashable = None


class End(msgspec.Struct, frozen=True, kw_only=True):
    """Our end of a flow that an IPC process carries. All else in it is between the IPC process and the engine."""

    ipcp: int
    qos: QoSSpec
    session: Session

    def peer(self) -> tuple[str, str]:
        """Where the peer is, and at what node: "node" for one of ours, "prototype" for the C prototype. For listings."""
        return "", "node"


class Size(msgspec.Struct, frozen=True):
    """Of packets, bytes. `most`: the longest that is carried at all. `whole`: the longest that crosses the path in one
    piece."""

    most: int
    whole: int

    def less(self, other: Size) -> Size:
        """The smaller of both, each number for itself."""
        return Size(min(self.most, other.most), min(self.whole, other.whole))


#: Of what carries nothing.
NO_SIZE = Size(0, 0)


class LowerFlow(msgspec.Struct, frozen=True, kw_only=True):
    """A flow of another layer, or of this node, that an IPC process holds an end of.

    `fd`: the number of the end, given by the flow manager, ascending and never used again. `name`: what was asked for.
    `side`: 0 asked for, 1 accepted. `ipcp`: the IPC process that carries it; None when nothing is between the two ends.
    `layer`: that of `ipcp`, or the local one in which the name was found; "" if it was in none.
    `ours`: the other end is at a node of ours, as far as their handshake tells.
    `peer`: who is at the other end, where that is proven: the name in its certificate, or the name of an IPC process of this
    node; "" where it is not.
    """

    fd: int
    name: str
    qos: QoSSpec
    side: int
    size: Size
    ipcp: int | None
    ours: bool = False
    peer: str = ""
    layer: str = ""


class Step(NamedTuple):
    """A part of the way of a probe: so many hops towards its target in one layer, 0 for none. If another step follows, it
    goes down there: the target is then the other end of the lower flow to the neighbour `via`, or, for 0, to the one that
    leads on."""

    ttl: int
    via: int = 0


#: As a TTL: as far as it goes.
ALL_THE_WAY = 255


class Seen(NamedTuple):
    """What a probe found, at the time `when`. `end`: it is the target. `at`: its address as a `Step` has it; 0: it is not
    known. `deeper`: the hops of its layer go by lower flows that can be looked at."""

    entry: HopEntry
    when: float
    end: bool
    at: int = 0
    deeper: bool = False


def nobody(now: float) -> Seen:
    """There is nothing to find."""
    return Seen(HopEntry(1, "", "", state="silent"), now, end=True)


class Located(NamedTuple):
    """Where a name is in a layer: what `Ipcp.probe` takes as a target. It was found out at the time `when`."""

    target: Where
    when: float


class Found(NamedTuple):
    """A layer that a station offers to newcomers, and where that is."""

    offer: Offer
    station: str


class Upper(Protocol):
    """The flow manager, as an IPC process sees it. But for `settings`, all calls are posted, and `token` or `arrival` may
    mean nothing any more when they arrive."""

    def settings(self, name: str) -> Settings:
        """Our settings for peers that ask for a flow to our `name`. A question, answered at once. Raises `OapError`."""

    def offers(self, ipcp: int) -> list[Offer]:
        """The layers whose members here take newcomers in, by names that are registered with that IPC process. A
        question."""

    def reachable(self, token: int) -> None:
        """The layer knows where to ask and does so."""

    def unreachable(self, token: int, advice: str, now: float) -> None:
        """The layer does not know whom to ask. It has forgotten the token. `advice`: how it would know, for people."""

    def answered(self, token: int, end: End, now: float) -> None:
        """The peer accepted. The end is the flow manager's, which may hand it back by `Ipcp.give_back`."""

    def refused(self, token: int, error: OuroborosError, now: float, *, for_now: bool = False) -> None:
        """There will be no flow. The layer has forgotten the token. `for_now`: asking later may do better."""

    def requested(self, arrival: Arrival, now: float) -> None:
        """A peer wants a flow to a name of ours: `accept` or `refuse` is called later."""

    def withdrawn(self, arrival: Arrival) -> None:
        """A request that waits is over: neither `accept` nor `refuse` is called."""


class Lower(Protocol):
    """The flow manager, as an IPC process sees it that wants flows for itself: it asks as a program does.

    None of these raises but for bugs, and none calls back: the answers are verbs of `Ipcp`, and posted.
    """

    def ask(
        self,
        ipcp: int,
        number: int,
        name: str,
        qos: QoSSpec,
        now: float,
        *,
        until: float,
        over: frozenset[str] | None = None,
    ) -> None:
        """Ask for a flow to a name; answered by `lower_up` or `lower_failed`, once.

        `number`: of the own choice, not that of another question that waits. `until`: when it fails, seconds of the clock
        of `now`. `over`: names of the layers that may carry it, None for any.
        """

    def withdraw(self, ipcp: int, number: int, now: float) -> None:
        """There will be no answer to that question. No error when there was one."""

    def rank(self, ipcp: int) -> int:
        """How many layers lie below an IPC process now. A question, answered at once."""

    def probe(
        self, ipcp: int, fd: int, steps: tuple[Step, ...], wait: float, answer: Callable[[object], None], now: float
    ) -> None:
        """As `Ipcp.probe`, of the layer that carries a flow, towards the other end of it. `answer` gets what a task gets."""

    def release(self, fd: int, now: float) -> None:
        """Let go of a flow: what was sent before is delivered. Nothing is told of it any more. No error when it ended."""


class Posts:
    """Calls that wait until whatever is being done is done, in order."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()

    def add(self, call: Callable[[], None]) -> None:
        self._waiting.append(call)

    def settle(self) -> None:
        """Make the calls, and those that they cause. Raises the first exception of any, when all are made."""
        if not self._waiting:
            return
        first: Exception | None = None
        for _ in range(_MOST_POSTS):
            if not self._waiting:
                break
            try:
                self._waiting.popleft()()
            except Exception as error:  # noqa: BLE001 - raised below
                first = first or error
        else:
            raise RuntimeError(f"{_MOST_POSTS} calls between layers did not come to an end: bug of the node") from first
        if first is not None:
            raise first


class PostedUpper:
    """An `Upper` whose calls are posted."""

    def __init__(self, upper: Upper, posts: Posts) -> None:
        self._upper = upper
        self._post = posts.add

    def settings(self, name: str) -> Settings:
        return self._upper.settings(name)

    def offers(self, ipcp: int) -> list[Offer]:
        return self._upper.offers(ipcp)

    def reachable(self, token: int) -> None:
        self._post(partial(self._upper.reachable, token))

    def unreachable(self, token: int, advice: str, now: float) -> None:
        self._post(partial(self._upper.unreachable, token, advice, now))

    def answered(self, token: int, end: End, now: float) -> None:
        self._post(partial(self._upper.answered, token, end, now))

    def refused(self, token: int, error: OuroborosError, now: float, *, for_now: bool = False) -> None:
        self._post(partial(self._upper.refused, token, error, now, for_now=for_now))

    def requested(self, arrival: Arrival, now: float) -> None:
        self._post(partial(self._upper.requested, arrival, now))

    def withdrawn(self, arrival: Arrival) -> None:
        self._post(partial(self._upper.withdrawn, arrival))


class Connected(NamedTuple):
    """A connection that an IPC process keeps with a neighbour, as it was asked for. `over`: the layer below; "": any."""

    component: str
    name: str
    qos: QoSSpec
    over: str = ""


class Task:
    """A request to an IPC process that is answered once, at once or later: by `done` or by `failed`.

    The answer is posted. After `cancel` there is none, and the IPC process goes on as if it were not waited for.
    """

    def __init__(self, posts: Posts, answer: Callable[[object], None]) -> None:
        """`answer`: gets the value, or the `OuroborosError`."""
        self._posts = posts
        self._answer: Callable[[object], None] | None = answer

    def done(self, value: object = None) -> None:
        self._posts.add(lambda: self._tell(value))

    def failed(self, error: OuroborosError) -> None:
        self._posts.add(lambda: self._tell(error))

    def cancel(self) -> None:
        self._answer = None

    def _tell(self, outcome: object) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer(outcome)


@dataclass
class Host:
    """What an IPC process is given by its node. `wall`: nanoseconds since 1970. `memory`: what the node before was told to
    `Remember`. `strangers`: may be replaced at any time. `touched`: IPC processes, by id, of which something else may be
    shown than before. `counted`: those with other counters. `stirred`: those whose `deadline` may be another one. `unsure`:
    those of them where `alarm` may not have heard of it."""

    effects: list[Effect]
    random: Random
    wall: Callable[[], int]
    oap: Server
    upper: Upper
    lower: Lower
    memory: Mapping[str, bytes] = field(default_factory=dict)
    strangers: Strangers = field(default_factory=Strangers)
    touched: set[int] = field(default_factory=set)
    counted: set[int] = field(default_factory=set)
    stirred: set[int] = field(default_factory=set)
    unsure: set[int] = field(default_factory=set)
    alarm: Alarm = field(default_factory=Alarm)
