"""The works of a laboratory: what has to be asked of nodes so that there is the network of a description, on every
clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from ouroboros.control.configuration import NETWORKED
from ouroboros.errors import NodeError, OuroborosError
from ouroboros.lab.certificates import issue
from ouroboros.lab.description import Description, Layer, Link, distances, neighbours, rounds
from ouroboros.lab.errors import LabError
from ouroboros.lab.ground import Ground, Job
from ouroboros.layers import impairment
from ouroboros.qos import QoSSpec
from ouroboros.settings import (
    AnySettings,
    EthConfig,
    EthDixSettings,
    EthLlcSettings,
    Udp4Config,
    Udp4Settings,
    Udp6Config,
    Udp6Settings,
    UnicastSettings,
)
from ouroboros.wire.control import (
    BindProcess,
    BootstrapIpcp,
    ConnectIpcp,
    CreateIpcp,
    CreateName,
    EnrollIpcp,
    ImpairIpcp,
    IpcpEntry,
    ListIpcps,
    RegisterName,
    Request,
)

#: Seconds between two looks at what is to come about: the first, and the longest.
_PAUSE = 0.01
_LONGEST_PAUSE = 0.2
#: How many times `silence` a link that nobody announces is known, and how many times that a neighbour may be silent,
#: where there are nodes of the prototype.
_LINKS_OF_PROTOTYPE, _SILENCE_OF_PROTOTYPE = 4, 6
#: Seconds for which a member is asked again. The prototype loses one request in some, and a try of its takes long.
_PATIENCE, _PATIENCE_WITH_PROTOTYPE = 20.0, 45.0
_ROUND_ROBIN = "round-robin"


@dataclass
class Place:
    """A node that is set up. `ipcps`: ids of its IPC processes, by layer or link."""

    name: str
    ipcps: dict[str, int] = field(default_factory=dict)
    alive: bool = True
    paused: bool = False
    #: Names that it offers.
    offered: set[str] = field(default_factory=set)
    #: Links that changed while it was paused.
    late: set[str] = field(default_factory=set)

    @property
    def runs(self) -> bool:
        return self.alive and not self.paused


class Wire:
    """A link that is set up. `addresses`: of its two ends. `impair`: what happens to packets from the first to the
    second, and back. `apart`: the ground does that, and not the layers at its ends."""

    def __init__(self, number: int, link: Link, addresses: tuple[str, str], *, apart: bool) -> None:
        self.number = number
        self.link = link
        self.addresses = addresses
        self.apart = apart
        self.impair = [link.forth, link.back]
        self.is_cut = False

    def words(self, side: int) -> str:
        """What happens to packets that leave that end, in the words of its layer."""
        if self.apart:
            return "none"
        parts = impairment.parse(self.impair[side])
        return msgspec.structs.replace(parts, partition=True).text if self.is_cut else parts.text


class Works:
    """See the module."""

    def __init__(self, ground: Ground, description: Description) -> None:
        self.ground = ground
        self.description = description
        for link in description.links:
            ground.check(link)
        self.places = {name: Place(name) for name in description.names}
        self.wires = [
            Wire(number, link, ground.addresses(number, link), apart=ground.impairs(link))
            for number, link in enumerate(description.links)
        ]
        self._by_pair = {frozenset(wire.link.ends): wire for wire in self.wires}
        self._beside = neighbours(wire.link.ends for wire in self.wires)
        #: Why what is asked for again and again was not done yet.
        self.refusals: dict[tuple[str, Request], str] = {}
        self._ranks = description.ranks

    def wire(self, one: str, other: str) -> Wire:
        """The link between two nodes. Raises `DescriptionError` when there is none."""
        return self._by_pair[frozenset(self.description.link(one, other).ends)]

    # --- all of it

    async def set_up(self) -> None:
        files = issue(self.description, random=self.ground.random, wall=self.ground.wall)
        for node, each in files.items():
            self.ground.secure(node, each)
        await self.ground.all([self.ground.add(name) for name in self.places])
        await self.ground.lay([(wire.number, wire.link) for wire in self.wires])
        await self.ground.all([self._begin(name) for name in self.places])
        for layer in self.description.layers:
            if layer.is_between:
                await self._make(layer)

    async def _begin(self, name: str) -> None:
        """A node with its links, and its layers that are its own."""
        place = self.places[name] = Place(name)
        for other in self._beside.get(name, ()):
            wire = self.wire(name, other)
            settings = self._settings(wire, wire.link.ends.index(name), other)
            place.ipcps[wire.link.name] = await self._ipcp(name, wire.link.name, wire.link.type, settings)
        for layer in self.description.layers:
            if not layer.is_between and name in layer.members.values():
                place.ipcps[layer.name] = await self._ipcp(name, layer.name, layer.type, None)

    def _settings(self, wire: Wire, side: int, other: str) -> AnySettings:
        """What the layer over a link is told at one end."""
        here, there = wire.addresses[side], wire.addresses[1 - side]
        words = wire.words(side)
        impair = None if words == "none" else words
        peers, port = tuple(f"{each}@{there}" for each in self._members_on(other)), self.ground.port
        match wire.link.type:
            case "udp4":
                return Udp4Settings(udp4=Udp4Config(here, port=port, peers=peers), impair=impair)
            case "udp6":
                return Udp6Settings(udp6=Udp6Config(here, port=port, peers=peers), impair=impair)
            case "eth-dix":
                return EthDixSettings(eth=EthConfig(here))
        return EthLlcSettings(eth=EthConfig(here))

    async def _ipcp(self, node: str, layer: str, type: str, settings: AnySettings | None) -> int:
        ipcp: int = await self.ground.request(node, CreateIpcp(layer, type))
        await self.ground.request(node, BootstrapIpcp(ipcp, layer, settings))
        return ipcp

    def _members_on(self, node: str) -> list[str]:
        """Names of members on a node by which its neighbours find them."""
        layers = [layer for layer in self.description.layers if layer.over is None and layer.is_between]
        return [layer.ipcp(member) for layer in layers if (member := layer.member_on(node)) is not None]

    async def _make(self, layer: Layer) -> None:
        """A layer, that each member joins at the one that is nearer to the first. All links are there before members
        tell each other about them: so each tells it once."""
        beside = neighbours(layer.adjacencies)
        left = dict.fromkeys(layer.members)
        while left:
            middle = _middle(next(iter(left)), beside)
            # One of ours, if there is one: it never fails to answer.
            ours = (each for each in distances(middle, beside) if layer.members[each] not in self.ground.foreign)
            first = next(ours, middle)
            await self._bootstrap(layer, first)
            await self._grow(layer, first, _children(first, beside))
            for member in distances(first, beside):
                del left[member]
        management, *others = NETWORKED[layer.type]
        for component in reversed(others):
            await self._all([self._connect(layer, *pair, [component]) for pair in layer.adjacencies])
        for pairs in rounds(layer.adjacencies):
            await self._all([self._connect(layer, *pair, [management]) for pair in pairs])

    async def _all(self, jobs: Sequence[Job[None]]) -> None:
        """One after the other, if some nodes have the prototype, which loses requests that come together."""
        if not self.ground.foreign:
            await self.ground.all(jobs)
            return
        waiting = list(jobs)
        try:
            while waiting:
                await waiting.pop(0)
        finally:
            for job in waiting:
                job.close()

    async def _grow(self, layer: Layer, member: str, children: Mapping[str, Sequence[str]]) -> None:
        async def join(child: str) -> None:
            await self._enroll(layer, child, member)
            await self._grow(layer, child, children)

        await self._all([join(child) for child in children.get(member, ())])

    async def _bootstrap(self, layer: Layer, member: str) -> None:
        node = layer.members[member]
        ipcp: int = await self.ground.request(node, CreateIpcp(layer.ipcp(member), layer.type))
        await self.ground.request(node, BootstrapIpcp(ipcp, layer.name, self._told(layer)))
        await self._be_known(layer, member, ipcp)

    def _told(self, layer: Layer) -> UnicastSettings | None:
        """The settings, if its type has some. Members of the prototype hear of what is gone by its silence only, and all
        members go by the same."""
        if not layer.has_names:
            return None
        silence = max(1, round(self.description.silence))
        quick = {"ls_t_recalc": 1, "ls_t_update": silence, "ls_t_timeo": _LINKS_OF_PROTOTYPE * silence}
        if self.ground.foreign and not quick.keys() & layer.settings.keys():
            return replace(layer, settings={**quick, **layer.settings}).told()
        return layer.told()

    async def _enroll(self, layer: Layer, member: str, at: str) -> None:
        node = layer.members[member]
        ipcp: int = await self.ground.request(node, CreateIpcp(layer.ipcp(member), layer.type))
        await self._insist(node, EnrollIpcp(ipcp, layer.ipcp(at)))
        await self._be_known(layer, member, ipcp)

    async def _be_known(self, layer: Layer, member: str, ipcp: int) -> None:
        """In what is below."""
        place = self.places[layer.members[member]]
        place.ipcps[layer.name] = ipcp
        name = layer.ipcp(member)
        await self.ground.request(place.name, BindProcess(ipcp, name))
        links = [self.wire(place.name, other).link.name for other in self._beside.get(place.name, ())]
        for below in links if layer.over is None else [layer.over]:
            await self.ground.request(place.name, RegisterName(name, place.ipcps[below]))

    async def _connect(self, layer: Layer, one: str, other: str, components: Sequence[str]) -> None:
        if layer.members[one] in self.ground.foreign and layer.members[other] not in self.ground.foreign:
            # Ours asks again when the connection is lost, and knows whom it asked.
            one, other = other, one
        node = layer.members[one]
        # A layer has time to go another way before one over it finds its neighbours silent.
        silence = self.description.silence * self._ranks[layer.name]
        if {layer.members[one], layer.members[other]} & set(self.ground.foreign):
            # The prototype does not find another way when it hears that a neighbour is gone before the link is forgotten.
            silence *= _SILENCE_OF_PROTOTYPE
        qos = QoSSpec(timeout=max(1, round(silence * 1000)))
        for component in components:
            ipcp = self.places[node].ipcps[layer.name]
            await self._insist(node, ConnectIpcp(ipcp, component, layer.ipcp(other), qos))

    async def _insist(self, node: str, request: EnrollIpcp | ConnectIpcp) -> None:
        """Ask again as long as the other one is not known yet: what was registered is found a moment later."""
        end, pause = self.ground.now() + (_PATIENCE_WITH_PROTOTYPE if self.ground.foreign else _PATIENCE), _PAUSE
        while True:
            try:
                await self.ground.request(node, request)
                self.refusals.pop((node, request), None)
                return
            except NodeError:
                raise
            except OuroborosError as error:
                self.refusals[node, request] = f"node {node}: {error}"
                if self.ground.now() >= end:
                    raise LabError(self.refusals[node, request]) from error
            await self.ground.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    # --- links and nodes

    async def impair(self, wire: Wire) -> None:
        """Have what the wire says happen to packets."""
        if wire.apart:
            await self.ground.change(wire.number, wire.link, wire.impair, plugged=not wire.is_cut)
            return
        for name in wire.link.ends:
            await self._impair_end(wire, self.places[name])

    async def _impair_end(self, wire: Wire, place: Place) -> None:
        if place.runs:
            words = wire.words(wire.link.ends.index(place.name))
            await self.ground.request(place.name, ImpairIpcp(place.ipcps[wire.link.name], words))
        elif place.alive:
            place.late.add(wire.link.name)

    async def pause(self, name: str) -> None:
        self._check_alive(name)
        await self.ground.pause(name)
        self.places[name].paused = True

    async def resume(self, name: str) -> None:
        self._check_alive(name)
        place = self.places[name]
        await self.ground.resume(name)
        place.paused = False
        for wire in self.wires:
            if wire.link.name in place.late:
                await self._impair_end(wire, place)
        place.late.clear()

    def _check_alive(self, name: str) -> None:
        if not self.places[name].alive:
            raise LabError(f"node {name} does not run: restart it first")

    async def kill(self, name: str) -> None:
        self._check_alive(name)
        self.places[name].alive = False
        await self.ground.kill(name)

    async def restart(self, name: str) -> None:
        """A node begins anew, with the links that it had, and is in the layers that it was in."""
        if self.places[name].alive:
            await self.kill(name)
        offered = self.places[name].offered
        await self.ground.add(name)
        await self._begin(name)
        for layer in self.description.layers:
            member = layer.member_on(name)
            if layer.is_between and member is not None:
                await self._join_again(layer, member)
        for each in offered:
            await self.offer(name, each)

    async def _join_again(self, layer: Layer, member: str) -> None:
        beside = neighbours(layer.adjacencies).get(member, [])
        alive = [other for other in beside if self.places[layer.members[other]].runs]
        near = [other for other in alive if self._leads(layer, member, other)]
        if alive and not near:
            raise LabError(
                f"{member} cannot join layer {layer.name} again: no link leads to a neighbour that runs; heal one first"
            )
        if not near:
            await self._bootstrap(layer, member)
            return
        await self._enroll(layer, member, near[0])
        for other in near:
            await self._connect(layer, member, other, NETWORKED[layer.type])

    async def offer(self, node: str, name: str) -> None:
        """A name can be reached at a node, through the highest layers that it is in."""
        place = self.places[node]
        place.offered.add(name)
        await self.ground.request(node, CreateName(name, _ROUND_ROBIN))
        for layer in self.top_layers(node):
            await self.ground.request(node, RegisterName(name, place.ipcps[layer.name]))

    def top_layers(self, node: str) -> list[Layer]:
        """The highest layers between nodes that a node is in."""
        layers = [each for each in self.description.layers if each.has_names and each.member_on(node)]
        below = {layer.over for layer in layers}
        return [layer for layer in layers if layer.name not in below]

    # --- what is so

    async def entry(self, node: str, layer: str) -> IpcpEntry:
        """What a node says of its IPC process of a layer or link."""
        ipcp = self.places[node].ipcps[layer]
        entries: list[IpcpEntry] = await self.ground.request(node, ListIpcps())
        return next(each for each in entries if each.id == ipcp)

    def graph(self, layer: Layer) -> dict[str, list[str]]:
        """The members that are neighbours now, as the works know it: nodes that run, and links that are not cut."""
        pairs = [pair for pair in layer.adjacencies if self._leads(layer, *pair)]
        return neighbours(pairs)

    def _leads(self, layer: Layer, one: str, other: str) -> bool:
        ends = layer.members[one], layer.members[other]
        if not all(self.places[node].runs for node in ends):
            return False
        if layer.over is None:
            return not self.wire(*ends).is_cut
        below = next(each for each in self.description.layers if each.name == layer.over)
        members = [below.member_on(node) for node in ends]
        return members[1] in distances(members[0] or "", self.graph(below))

    async def converge(self, seconds: float) -> None:
        """Wait until the tables of all members say what the graphs say. Raises `LabError` with a table that does
        not."""
        end = self.ground.now() + seconds
        for layer in self.description.layers:
            if layer.has_names:
                await self._converge(layer, end)

    async def _converge(self, layer: Layer, end: float) -> None:
        graph, addresses = self.graph(layer), await self.addresses(layer)
        for member in self._asked(layer):
            hops, pause = distances(member, graph), _PAUSE
            del hops[member]
            while not _agree(found := await self._hops(layer, member), hops, addresses):
                if self.ground.now() >= end:
                    raise LabError(_not_yet(layer, member, addresses, hops, found))
                await self.ground.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                if self.ground.foreign:
                    addresses = await self.addresses(layer)

    def _asked(self, layer: Layer) -> list[str]:
        """The members of a layer that can say what they know."""
        foreign = self.ground.foreign
        return [member for member, node in layer.members.items() if self.places[node].runs and node not in foreign]

    async def addresses(self, layer: Layer) -> dict[str, str]:
        """Of the members of a layer that run; of the prototype, those that are neighbours of ours."""
        asked = self._asked(layer)
        entries = await self.ground.all([self.entry(layer.members[each], layer.name) for each in asked])
        found = {member: entry.address for member, entry in zip(asked, entries, strict=True)}
        names = {
            layer.ipcp(member): member
            for member, node in layer.members.items()
            if node in self.ground.foreign and self.places[node].runs
        }
        known = [
            each for entry in entries if names for each in entry.connections if each.name in names and each.address
        ]
        # One that is silent for a neighbour may have been heard by another one since.
        for each in sorted(known, key=lambda each: each.state == "up"):
            found[names[each.name]] = each.address
        return found

    async def _hops(self, layer: Layer, member: str) -> dict[str, int]:
        entry = await self.entry(layer.members[member], layer.name)
        return {route.address: route.hops for route in entry.routes}


def _agree(found: Mapping[str, int], hops: Mapping[str, int], addresses: Mapping[str, str]) -> bool:
    """A table says what the graph says. `hops`: by member. Those whose address nobody knows are told by their distance
    only."""
    wanted = {addresses[member]: count for member, count in hops.items() if member in addresses}
    nameless = sorted(count for member, count in hops.items() if member not in addresses)
    return wanted.items() <= found.items() and nameless == sorted(found[each] for each in found.keys() - wanted.keys())


def _not_yet(
    layer: Layer, member: str, addresses: Mapping[str, str], hops: Mapping[str, int], found: Mapping[str, int]
) -> str:
    names = {address: name for name, address in addresses.items()}
    missing = [f"{each} in {count}" for each, count in hops.items() if found.get(addresses.get(each, "")) != count]
    more = [names.get(each, each) for each in found if names.get(each) not in hops]
    return (
        f"layer {layer.name} has not converged: {member}"
        f"{f' should reach {chr(44).join(missing)} hops, and does not yet' if missing else ''}"
        f"{f' still has ways to {chr(44).join(more)}' if more else ''}"
    )


def _middle(start: str, beside: Mapping[str, list[str]]) -> str:
    """A member that is far from none, in the piece of the graph that has `start`."""
    one = list(distances(start, beside))[-1]
    far = distances(one, beside)
    here, steps = list(far)[-1], far[list(far)[-1]] // 2
    for _ in range(steps):
        here = next(each for each in beside[here] if far[each] == far[here] - 1)
    return here


def _children(first: str, beside: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """The members that each other one is nearest to, but for those that are as near to another."""
    hops, children = distances(first, beside), dict[str, list[str]]()
    for member in hops:
        if member != first:
            parent = next(each for each in hops if hops[each] == hops[member] - 1 and each in beside[member])
            children.setdefault(parent, []).append(member)
    return children


__all__ = ["Place", "Wire", "Works"]
