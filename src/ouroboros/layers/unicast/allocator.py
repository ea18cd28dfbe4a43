"""Flows between members of a unicast layer: what `layers.flows` needs to know of it. Source: `unicast-data.md` 4.

**How long packets may be.** Each side tells what crosses all links between the two, as far as the announcements of members
of ours say, and its own links to all neighbours. The smaller is in force, and shrinks later when the ways do.

**Who is ours.** A member has shown to be one of ours when a handshake of a flow with it, in either direction, had our
extension; a neighbour when its connection said so; and any when its announcements of links are such as ours make. Others are
treated as those of the C prototype: asked at most three times for a flow, and answered three times, since the first may be
lost.
"""

from __future__ import annotations

import functools
import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from ouroboros.errors import ProtocolError
from ouroboros.layers.base import HASHES
from ouroboros.layers.effects import UnicastEnd, Where, written_address
from ouroboros.layers.face import Size
from ouroboros.layers.flows import core as flows
from ouroboros.layers.flows.core import PATIENCE, Patience
from ouroboros.layers.members.core import ALLOCATOR, Core
from ouroboros.qos import QoSSpec
from ouroboros.settings import DirectoryHashAlgo
from ouroboros.wire.udp import Message
from ouroboros.wire.unicast import flow

#: With a member that may be of the prototype: each request costs it a descriptor, and it is busy with one for up to 2 s.
_PROTOTYPE_PATIENCE = Patience(3.0, 3)
#: So many members are known as ours, and so many names have their turn remembered.
_KNOWN = 4096
#: An error text has so many other members.
_SHOWN = 8
#: Endpoint ids are a random number and an index; as many indices there are.
_INDICES = 1 << 16
_INDEX_BITS = 20

_V = TypeVar("_V")
_Found = Callable[[int, tuple[Where, ...], float], None]
_Answer = Callable[[int, tuple[int, ...], float], None]


class Lookup(Protocol):
    """The part of the directory of a layer that is needed."""

    def query(self, digest: bytes, token: int, answer: _Answer, now: float) -> None:
        """`answer`: is told the token and the addresses of members that have the name, now or later."""

    def cancel(self, token: int) -> None: ...

    def forget(self, digest: bytes) -> None:
        """The last answer for the name may be out of date: ask anew next time."""


class Routes(Protocol):
    """The part of routing that is needed."""

    def distance(self, address: int) -> int | None:
        """Hops to a member, 0 for ourselves; None: there is no way."""

    def ours(self, address: int) -> bool:
        """Whether a member is one of ours, as far as its announcements tell."""

    def least(self, address: int) -> Size | None:
        """Of packets that cross the whole way to a member, in both directions; None: nobody has said it."""

    def members(self) -> Mapping[int, bool]:
        """Those to which a path leads, without ourselves; and which of them are ours."""


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

    def __init__(self, core: Core, size: Callable[[], Size]) -> None:
        """`size`: of packets that the ways to all neighbours carry."""
        self._core = core
        self._size = size
        #: How often a name was found.
        self._turns: dict[str, int] = {}
        #: Names that members have whom no way leads to.
        self._cut_off: dict[str, tuple[int, ...]] = {}
        #: What people call a member.
        self.called: Callable[[int], str] = written_address
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
        self._note_cut_off(name, () if near else addresses)
        turn = self._turns.pop(name, 0)
        _keep(self._turns, name, turn + 1)
        ordered = (near[distance] for distance in sorted(near))
        return tuple(each[(turn + i) % len(each)] for each in ordered for i in range(len(each)))

    def locate(self, name: str, token: int, answer: Callable[[int | None, float], None], now: float) -> None:
        """Tell where the name is: the nearest of the members that have it; None when there is none to which a way leads."""

        def found(token: int, addresses: tuple[int, ...], now: float) -> None:
            near = [(distance, each) for each in addresses if (distance := self.routes.distance(each))]
            self._note_cut_off(name, () if near else addresses)
            answer(min(near)[1] if near else None, now)

        self._lookup.query(_digest(self._core, name), token, found, now)

    def _note_cut_off(self, name: str, addresses: tuple[int, ...]) -> None:
        self._cut_off.pop(name, None)
        if addresses:
            _keep(self._cut_off, name, addresses)

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
        if not self._size().most:
            return (
                f"{self._core.name!r} has no neighbour in layer {layer!r}; `irm ipcp connect name {self._core.name} dst "
                "NEIGHBOUR` gives it one"
            )
        return (
            f"no member of layer {layer!r} has it; `irm name register {name} layer {layer}` at one of them registers it"
            f"; members: {self._members()}"
        )

    def _members(self) -> str:
        """The members of the layer, as many as a person wants to read of, the nearest first."""
        known = self.routes.members()
        near = heapq.nsmallest(_SHOWN, known, key=lambda each: (self.routes.distance(each) or 0, each))
        more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
        return ", ".join([self._core.name, *map(self.called, near)]) + more

    # --- what an address is

    def end(self, *, qos: QoSSpec, **fields: Any) -> UnicastEnd:  # noqa: ANN401 - those of a `RemoteEnd`
        return UnicastEnd(qos=qos, cube=cube_of(qos), **fields)

    def written(self, address: Where) -> str:
        return written_address(_member(address))

    def origin(self, address: Where) -> int:
        return _member(address)

    def longest(self, address: Where) -> int:
        return self.size(address).most

    def size(self, address: Where) -> Size:
        """Of packets between here and there."""
        own, way = self._size(), self.routes.least(_member(address))
        return own if way is None else own.less(way)


class FlowsCore(flows.Core):
    """The state that asking and answering share, for a member."""

    reply_room = flow.REPLY_OAP_LENGTH
    #: A member was let in, and its messages come by flows.
    has_strangers = False
    repeats_answers = True

    def __init__(self, member: Core, names: Names) -> None:
        super().__init__(member.id, member.host, names)
        self._member = member
        self._names = names
        member.counters.update(self.counters)
        self.counters = member.counters
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

    def _size(self, address: Where) -> Size:
        return self._names.size(address)

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
    return _hashed(core.settings.dir_hash_algo, name)


@functools.lru_cache(_KNOWN)
def _hashed(algorithm: DirectoryHashAlgo, name: str) -> bytes:
    """Each flow asks for it some ten times."""
    return HASHES[algorithm.word](name.encode()).digest()


def _member(address: Where) -> int:
    assert isinstance(address, int), "members of a unicast layer are at addresses of the layer"
    return address


def _nobody(token: int, addresses: tuple[Where, ...], now: float) -> None:
    raise AssertionError("nobody waits for what is found")
