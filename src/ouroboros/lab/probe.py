"""How far a node is from another, as packets, tables and the members on the way say."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from ouroboros.errors import FlowException, FlowNameException, OuroborosError
from ouroboros.lab.description import Layer
from ouroboros.lab.errors import LabError
from ouroboros.lab.ground import Flow, Ground
from ouroboros.lab.works import Works
from ouroboros.ping import Hop
from ouroboros.qos import QOS_RAW, QoSSpec
from ouroboros.wire.control import HopEntry, ProbeName

#: Seconds until a packet counts as lost, and until there is a flow for it: names of a node of the prototype are found
#: some seconds after it has come into a layer.
PATIENCE, _PATIENCE_WITH_PROTOTYPE = 2.0, 20.0
#: Packets are those of `oping`, so that nodes of the prototype can be at either end: kind, number, and what else there is.
_HEAD, _REQUEST, _ANSWER, _SHORTEST = struct.Struct("!II"), 0, 1, 24
_LENGTH = 64
#: Seconds between two tries.
_PAUSE = 0.05


@dataclass(frozen=True, repr=False)
class Ping:
    """`times`: round trips of the packets, seconds, None for one that is lost. `path`: the nodes from the first to the
    last, as the members on the way answered, "?" for one that says nothing; empty if it changed meanwhile."""

    source: str
    target: str
    times: tuple[float | None, ...]
    path: tuple[str, ...]

    @property
    def hops(self) -> int | None:
        return len(self.path) - 1 if self.path else None

    @property
    def lost(self) -> int:
        return self.times.count(None)

    @property
    def time(self) -> float | None:
        """The shortest round trip, seconds; None: all packets are lost."""
        return min((time for time in self.times if time is not None), default=None)

    def __bool__(self) -> bool:
        return self.time is not None

    def __repr__(self) -> str:
        return f"<ping {self}>"

    def __str__(self) -> str:
        time = "no answer" if self.time is None else f"{self.time * 1000:.3g} ms"
        lost = f", {self.lost} of {len(self.times)} lost" if self.lost and self else ""
        way = "" if not self.path else f", {self.hops} hop{'s' * (self.hops != 1)}: {' - '.join(self.path)}"
        return f"{self.source} to {self.target}: {time}{lost}{way}"


class Rank(NamedTuple):
    """What a trace found at one height. `layers`: those that the way leads through there. `path`: the nodes on it."""

    layers: tuple[str, ...]
    path: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Trace:
    """Who answered on the way. `hops`: all of it, as of `ouroboros.ping.trace`. `ranks`: the same by height, from the
    layer of both nodes down to the links; "?" is a node that says nothing."""

    source: str
    target: str
    hops: tuple[Hop, ...]
    ranks: tuple[Rank, ...]

    @property
    def path(self) -> tuple[str, ...]:
        """The nodes on the way in the highest layer."""
        return self.ranks[0].path

    def __repr__(self) -> str:
        ranks = str(self).replace("\n", "; ")
        return f"<trace {self.source} to {self.target}, {ranks}>"

    def __str__(self) -> str:
        return "\n".join(f"{' '.join(rank.layers) or '?'}: {' - '.join(rank.path)}" for rank in self.ranks)


class Prober:
    """Has echoes on the nodes that are asked for one."""

    def __init__(self, ground: Ground, works: Works) -> None:
        self._ground = ground
        self._works = works

    async def ping(
        self, source: str, target: str, *, count: int = 1, length: int = _LENGTH, qos: QoSSpec = QOS_RAW
    ) -> Ping:
        """Packets to the other node and back. Raises `LabError` when there is no flow to it."""
        layer = self._layer(source, target)
        await self._have_echo(target)
        if source in self._ground.foreign:
            if qos != QOS_RAW:
                raise LabError(f"node {source} has the C prototype, which pings over raw flows only")
            return Ping(source, target, tuple(await self._times(source, target, count, length)), ())
        flow = await self._flow(source, target, qos)
        try:
            times = [await self._round(flow, number, length) for number in range(count)]
        finally:
            flow.dealloc()
        path = await self._walked(layer, source, target) if any(time is not None for time in times) else ()
        return Ping(source, target, tuple(times), path)

    async def path(self, source: str, target: str) -> tuple[str, ...]:
        """The nodes on the way, both ends included, as the tables of the highest layer of both say. Raises `LabError`
        when there is no way."""
        path = await self._path(self._layer(source, target), source, target)
        if not path:
            raise LabError(f"the tables know no way from {source} to {target}")
        return path

    async def trace(self, source: str, target: str) -> Trace:
        """Who answers on the way, in each layer. Raises `LabError` when no layer leads there."""
        layer = self._layer(source, target)
        await self._have_echo(target)
        end = self._ground.now() + self._patience(target)
        while True:
            try:
                return await self._ask(layer, source, target)
            except FlowNameException as error:
                if self._ground.now() >= end:
                    raise LabError(f"no layer leads from {source} to {target}: {error}") from error
            await self._ground.sleep(_PAUSE)

    async def _ask(self, layer: Layer, source: str, target: str) -> Trace:
        request = ProbeName(_echo(target), layer.name, True, PATIENCE / 2)
        entries: list[HopEntry] = await self._ground.request(source, request)
        hops = tuple(Hop(**msgspec.structs.asdict(entry)) for entry in entries)
        layers = {each.name: each for each in self._works.description.layers}
        return Trace(source, target, hops, tuple(_ranks(source, hops, layers)))

    async def _walked(self, layer: Layer, source: str, target: str) -> tuple[str, ...]:
        """The nodes on the way, as the members say now."""
        try:
            path = (await self._ask(layer, source, target)).path
        except FlowNameException:
            return ()
        if target in self._ground.foreign and path[-1] == "?":
            # It has the name, and says nothing.
            return (*path[:-1], target)
        return path if path[-1] == target else ()

    def forget(self, node: str) -> None:
        """The node is gone, and its echo with it."""
        self._works.places[node].offered.discard(_echo(node))

    def _layer(self, source: str, target: str) -> Layer:
        if source == target:
            raise LabError(f"{source} is the same node")
        places = self._works.places
        for node in (source, target):
            if not places[node].alive:
                raise LabError(f"node {node} was killed")
        # One that has an echo is asked in earnest.
        if places[source].paused or (places[target].paused and _echo(target) not in places[target].offered):
            raise LabError(f"node {source if places[source].paused else target} is paused")
        for layer in reversed(self._works.description.layers):
            if layer.has_names and layer.adjacencies and layer.member_on(source) and layer.member_on(target):
                return layer
        raise LabError(f"{source} and {target} are in no layer together")

    async def _flow(self, source: str, target: str, qos: QoSSpec) -> Flow:
        """To the echo of the target. A name is known to others a moment after it was offered."""
        end = self._ground.now() + self._patience(target)
        while True:
            try:
                # Whoever slept too long, on a busy machine, has one more try.
                left = max(end - self._ground.now(), _PAUSE)
                return await self._ground.alloc(source, _echo(target), qos, left)
            except FlowNameException as error:
                if self._ground.now() + _PAUSE >= end:
                    raise LabError(f"{source} has no flow to {target}: {error}") from error
            except OuroborosError as error:
                raise LabError(f"{source} has no flow to {target}: {error}") from error
            await self._ground.sleep(_PAUSE)

    async def _times(self, source: str, target: str, count: int, length: int) -> list[float | None]:
        """The same from a node of the prototype, by its `oping`."""
        end = self._ground.now() + self._patience(source)
        while (times := await self._ground.ping(source, _echo(target), count, length)) is None:
            if self._ground.now() + _PAUSE >= end:
                raise LabError(f"{source} has no flow to {target}: its oping does not say why")
            await self._ground.sleep(_PAUSE)
        return times

    def _patience(self, node: str) -> float:
        return _PATIENCE_WITH_PROTOTYPE if node in self._ground.foreign else PATIENCE

    async def _round(self, flow: Flow, number: int, length: int) -> float | None:
        request = _HEAD.pack(_REQUEST, number).ljust(max(_SHORTEST, length), b"\0")
        reply = _reply(request)
        start = self._ground.now()

        async def there_and_back() -> None:
            await flow.write(request)
            while await flow.read() != reply:
                pass

        try:
            await self._ground.within(PATIENCE, there_and_back())
        except (TimeoutError, FlowException):
            return None
        return self._ground.now() - start

    async def _have_echo(self, node: str) -> None:
        name = _echo(node)
        if name in self._works.places[node].offered:
            return
        await self._works.offer(node, name)
        if node in self._ground.foreign:
            await self._ground.echo(node, name)
        else:
            self._ground.begin(_serve(self._ground, node, name))

    async def hops(self, source: str, target: str) -> int:
        """How far another node is, as the table of the highest layer of both says. Raises `LabError` when there is no
        way."""
        layer = self._layer(source, target)
        addresses, entry = await self._works.addresses(layer), await self._works.entry(source, layer.name)
        there = addresses.get(layer.member_on(target) or "")
        found = {route.address: route for route in entry.routes}.get(there or "")
        if found is None:
            raise LabError(f"the table of {source} knows no way to {target}")
        hops: int = found.hops
        return hops

    async def _path(self, layer: Layer, source: str, target: str) -> tuple[str, ...]:
        addresses = await self._works.addresses(layer)
        members = {address: member for member, address in addresses.items()}
        here, there = layer.member_on(source), layer.member_on(target)
        path = [source]
        while here != there and here in addresses and len(path) <= len(addresses):
            if layer.members[here] in self._ground.foreign:
                raise LabError(
                    f"node {layer.members[here]} has the C prototype, whose tables cannot be read: ask for hops, or trace"
                )
            entry = await self._works.entry(layer.members[here], layer.name)
            via = next((route.via for route in entry.routes if members.get(route.address) == there), ())
            here = members.get(via[0]) if via else None
            if here is not None:
                path.append(layer.members[here])
        return tuple(path) if here == there else ()


def _ranks(source: str, hops: Sequence[Hop], layers: Mapping[str, Layer]) -> Iterator[Rank]:
    """From the uppermost down. Where nobody can be asked, as over UDP, the end of the hop above is the node."""
    above: list[tuple[tuple[int, ...], str]] = [((), "?")]
    while True:
        here, names = list[tuple[tuple[int, ...], str]](), list[str]()
        for within, end in above:
            part = [hop for hop in hops if hop.within == within]
            for number, hop in enumerate(part, 1):
                names.append(hop.layer)
                here.append((hop.path, _node_of(hop, layers) or (end if number == len(part) else "?")))
            if not part:
                here.append((within, end))
        if not names:
            return
        yield Rank(tuple(dict.fromkeys(filter(None, names))), (source, *(node for _, node in here)))
        above = here


def _node_of(hop: Hop, layers: Mapping[str, Layer]) -> str | None:
    """The node of the member that a hop ends at, None when it did not say who it is."""
    layer = layers.get(hop.layer)
    return None if layer is None else layer.members.get(hop.member.removeprefix(f"{layer.name}."))


def _reply(packet: bytes) -> bytes:
    """What an echo gives back: the packet, of another kind if it is a request of `oping`."""
    if len(packet) < _HEAD.size:
        return packet
    kind, number = _HEAD.unpack_from(packet)
    return _HEAD.pack(_ANSWER if kind == _REQUEST else kind, number) + packet[_HEAD.size :]


def _echo(node: str) -> str:
    return f"lab.echo.{node}"


async def _serve(ground: Ground, node: str, name: str) -> None:
    """Give back all packets of all flows to that name, until the node is gone."""
    with contextlib.suppress(OuroborosError):
        while True:
            ground.begin(_give_back(await ground.accept(node, name)))


async def _give_back(flow: Flow) -> None:
    try:
        with contextlib.suppress(FlowException):
            while True:
                await flow.write(_reply(await flow.read()))
    finally:
        flow.dealloc()
