"""Flows between members of a unicast layer: what `layers.flows` needs to know of it. Source: `unicast-data.md` 4.

**Who is ours.** A member has shown to be one of ours when a handshake of a flow with it, in either direction, had our
extension; a neighbour when its connection said so; and any when its announcements of links are such as ours make. Others are
treated as those of the C prototype: asked at most three times for a flow, and answered three times, since the first may be
lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from ouroboros.errors import ProtocolError
from ouroboros.layers.agenda import Agenda
from ouroboros.layers.base import HASHES
from ouroboros.layers.effects import UnicastEnd, Where, written_address
from ouroboros.layers.flows import core as flows
from ouroboros.layers.flows.core import COUNTERS, PATIENCE, Patience
from ouroboros.layers.flows.incoming import Request
from ouroboros.layers.unicast.core import ALLOCATOR, Core
from ouroboros.qos import QoSSpec
from ouroboros.wire.udp import Message
from ouroboros.wire.unicast import flow

#: With a member that may be of the prototype: each request costs it a descriptor, and it is busy with one for up to 2 s.
_PROTOTYPE_PATIENCE = Patience(3.0, 3)
#: When an answer to such a member is repeated, seconds. It drops one that comes before it has noted its own request.
_REPEATED = (0.01, 0.1)
#: So many members are known as ours, and so many names have their turn remembered.
_KNOWN = 4096
#: Endpoint ids are a random number and an index; as many indices there are.
_INDICES = 1 << 16
_INDEX_BITS = 20

_V = TypeVar("_V")
_Found = Callable[[int, tuple[Where, ...], float], None]
_Answer = Callable[[int, tuple[int, ...], float], None]


class Lookup(Protocol):
    """What is needed of the directory of a layer."""

    def query(self, digest: bytes, token: int, answer: _Answer, now: float) -> None:
        """`answer`: is told the token and the addresses of members that have the name, now or later."""

    def cancel(self, token: int) -> None: ...

    def forget(self, digest: bytes) -> None:
        """What is known of the name may be out of date: find out anew next time."""


class Routes(Protocol):
    """What is needed of routing."""

    def distance(self, address: int) -> int | None:
        """Hops to a member, 0 for ourselves; None: there is no way."""

    def ours(self, address: int) -> bool:
        """Whether a member is one of ours, as far as its announcements tell."""


class Ours:
    """Members that have shown to be nodes of ours, by address; the last ones of many."""

    def __init__(self) -> None:
        self._known: dict[int, None] = {}

    def __contains__(self, address: object) -> bool:
        return address in self._known

    def note(self, address: int) -> None:
        self._known.pop(address, None)
        self._known[address] = None
        if len(self._known) > _KNOWN:
            del self._known[next(iter(self._known))]


class Names:
    """Where names are: at members. The nearest is asked first; of several that are as near, another one each time."""

    guesses = True

    _lookup: Lookup
    routes: Routes

    def __init__(self, core: Core, size: Callable[[], int]) -> None:
        """`size`: bytes of the longest packet that the ways to all neighbours carry."""
        self._core = core
        self._size = size
        #: How often a name was found.
        self._turns: dict[str, int] = {}
        #: Names that members have whom no way leads to.
        self._cut_off: dict[str, tuple[int, ...]] = {}
        #: Is told what was found, with the token.
        self.found: _Found = _nobody

    def begin(self, lookup: Lookup, routes: Routes) -> None:
        """The member is in a layer."""
        self._lookup, self.routes = lookup, routes

    def find(self, name: str, token: int, now: float) -> tuple[Where, ...] | None:
        def answer(token: int, addresses: tuple[int, ...], now: float) -> None:
            self.found(token, self._in_order(name, addresses), now)

        self._lookup.query(_digest(self._core, name), token, answer, now)
        return None

    def _in_order(self, name: str, addresses: tuple[int, ...]) -> tuple[int, ...]:
        near: dict[int, list[int]] = {}
        for address in dict.fromkeys(addresses):
            distance = self.routes.distance(address)
            if distance:
                near.setdefault(distance, []).append(address)
        self._cut_off.pop(name, None)
        if addresses and not near:
            _keep(self._cut_off, name, addresses)
        turn = self._turns.pop(name, 0)
        _keep(self._turns, name, turn + 1)
        ordered = (near[distance] for distance in sorted(near))
        return tuple(each[(turn + i) % len(each)] for each in ordered for i in range(len(each)))

    def cancel(self, name: str, token: int) -> None:
        self._lookup.cancel(token)

    def forget(self, name: str) -> None:
        self._lookup.forget(_digest(self._core, name))

    def advice(self, name: str, refused: Sequence[Where]) -> str:
        layer = self._core.layer
        if refused:
            where = ", ".join(dict.fromkeys(map(self.written, refused)))
            return f"it was registered in layer {layer!r} at {where}, and nobody serves it there"
        if cut_off := self._cut_off.get(name):
            where = ", ".join(map(written_address, cut_off))
            return (
                f"it is registered in layer {layer!r} at {where}, to which no way leads now; `irm layer show {layer}` has "
                "the members that can be reached"
            )
        if not self._size():
            return (
                f"{self._core.name!r} has no neighbour in layer {layer!r}; `irm ipcp connect name {self._core.name} dst "
                "NEIGHBOUR` gives it one"
            )
        return (
            f"no member of layer {layer!r} has it; `irm name register {name} layer {layer}` at one of them registers it"
        )

    # --- what an address is

    def end(self, *, qos: QoSSpec, **fields: Any) -> UnicastEnd:  # noqa: ANN401 - those of a `RemoteEnd`
        return UnicastEnd(qos=qos, cube=cube_of(qos), **fields)

    def written(self, address: Where) -> str:
        return written_address(_member(address))

    def origin(self, address: Where) -> int:
        return _member(address)

    def longest(self, address: Where) -> int:
        return self._size()


class FlowsCore(flows.Core):
    """What the parts that ask and answer share, for a member."""

    reply_room = flow.REPLY_OAP_LENGTH
    #: A member was let in, and its messages come by flows.
    has_strangers = False

    def __init__(self, member: Core, names: Names) -> None:
        super().__init__(member.id, member.host, names)
        self._member = member
        self._names = names
        self.counters = member.counters
        # There is nobody who would have to prove his address.
        self.counters.update(dict.fromkeys((each for each in COUNTERS if each != "requests_proven"), 0))
        self.ours = Ours()
        self._index = 0

    @property
    def request_room(self) -> int:  # type: ignore[override]
        return flow.REPLY_OAP_LENGTH - len(self.digest(""))

    def _any_eid(self) -> int:
        """All but an index is random: that is what keeps other members from guessing it."""
        self._index = (self._index + 1) % _INDICES
        return (1 + self.host.random.getrandbits(43)) << _INDEX_BITS | self._index

    def is_of_prototype(self, eid: int) -> bool:
        return True

    def digest(self, name: str) -> bytes:
        return _digest(self._member, name)

    def patience(self, address: Where) -> Patience:
        ours = address in self.ours or self._names.routes.ours(_member(address))
        return PATIENCE if ours else _PROTOTYPE_PATIENCE

    def encode(self, message: Message) -> bytes:
        return flow.encode(message, self._member.address)

    def decode(self, data: bytes) -> tuple[Message, int]:
        """A message and the address of its sender, 0 if it does not say. Raises `ProtocolError`."""
        message, address = flow.decode(data, len(self.digest("")))
        if address == self._member.address:
            raise ProtocolError("s_addr: it is our own")
        return message, address

    def send(self, address: Where, data: bytes) -> None:
        self._member.send(_member(address), ALLOCATOR, data)


class RepeatedAnswers:
    """Accepting answers to members of the prototype, said again a few times."""

    def __init__(self, core: flows.Core) -> None:
        self._core = core
        self._left: dict[int, tuple[Request, list[float]]] = {}
        self._agenda = Agenda()

    def add(self, arrival: Request, now: float) -> None:
        """It was said just now."""
        self._left[arrival.number] = arrival, [now + later for later in _REPEATED]
        self._agenda.set(arrival.number, now + _REPEATED[0])

    def deadline(self) -> float | None:
        return self._agenda.next()

    def timeout(self, now: float) -> None:
        for number in self._agenda.due(now):
            arrival, times = self._left[number]
            assert arrival.reply is not None, "it was accepted"
            self._core.send(arrival.address, arrival.reply)
            del times[0]
            if times:
                self._agenda.set(number, times[0])
            else:
                del self._left[number]


def cube_of(qos: QoSSpec) -> int:
    """In which cube packets of a flow travel: 2 as voice, 1 as video, 0 as all else. Source: `flows.md` 4.3."""
    if qos.delay <= 50 and qos.bandwidth <= 100_000 and qos.availability >= 5 and qos.max_gap <= 50:
        return 2
    return int(qos.delay <= 100 and qos.availability >= 3 and qos.max_gap <= 100)


def _keep(kept: dict[str, _V], name: str, value: _V) -> None:
    kept[name] = value
    if len(kept) > _KNOWN:
        del kept[next(iter(kept))]


def _digest(core: Core, name: str) -> bytes:
    return HASHES[core.settings.dir_hash_algo.word](name.encode()).digest()


def _member(address: Where) -> int:
    assert isinstance(address, int), "members of a unicast layer are at addresses of the layer"
    return address


def _nobody(token: int, addresses: tuple[Where, ...], now: float) -> None:
    raise AssertionError("nobody waits for what is found")
