"""`Lab`: a network of a description that runs, and what can be done with it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from ouroboros._owned import Uncopied
from ouroboros.lab.description import Description, Layer, Program
from ouroboros.lab.errors import LabError
from ouroboros.lab.grammar import describe
from ouroboros.lab.graph import State, as_svg, as_text
from ouroboros.lab.ground import Flow, Ground, Job, T
from ouroboros.lab.probe import Ping, Prober, Trace
from ouroboros.lab.works import Place, Wire, Works
from ouroboros.qos import QOS_RAW, QoSSpec
from ouroboros.wire.control import (
    FlowEntry,
    IpcpEntry,
    ListFlows,
    ListIpcps,
    ListNames,
    NameEntry,
    Request,
    RouteEntry,
)

#: Seconds that whatever is waited for may take, when nothing else is said.
WITHIN = 60.0

#: Characters of the log of a node of the prototype that an error brings along.
_NOTE = 4000

CLOCKS = ("real", "namespaces", "virtual")


class Lab(Uncopied):
    """A network that runs, from `with` to the end of the block. `network`: a line such as `"a - b - c"`, a
    `Description`, or the path of a scenario in TOML (`docs/lab.md`).

    `over`: with a line, the network below, or several from the highest down; then there are layers over layers.
    `links`: with a line, the type of the links: "udp4" by default, "udp6", "eth-dix", "eth-llc".
    `clock`: "real" has processes and time that passes by itself, "namespaces" has kernel network stacks as well,
    "virtual" has the same nodes in time that passes when something waits for it. `seed`: of chance in virtual time, and
    of bad links. `silence`: seconds after which a neighbour that says nothing is down; None: what the description says,
    2 by default. `within`: seconds that the network may take to be ready.

    Nodes are attributes: `lab.a`, or `lab["a"]`. Raises `DescriptionError` for a description that is wrong,
    `UnavailableError` when this machine lacks what the clock needs, and `LabError` when the network does not come
    about; then all of it is ended."""

    def __init__(
        self,
        network: str | os.PathLike[str] | Description,
        *,
        over: str | Sequence[str] = (),
        links: str | None = None,
        clock: str = "real",
        seed: int = 0,
        silence: float | None = None,
        within: float = WITHIN,
    ) -> None:
        if clock not in CLOCKS:
            raise LabError(f"there is no clock {clock!r}: choose from {', '.join(CLOCKS)}")
        described = _described(network, over, links)
        self.description = described if silence is None else replace(described, silence=silence)
        self.clock = clock
        self.seed = seed
        self._within = within
        self._ground: Ground | None = None
        self._nodes: dict[str, LabNode] = {}

    # --- from begin to end

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Have the network begin; returns when all routes are there. `with` does it."""
        if self._ground is not None:
            raise LabError("this laboratory runs already")
        self._ground = _ground(self.clock, self.description, self.seed)
        try:
            self._works = Works(self._ground, _seeded(self.description, self.seed))
            self._prober = Prober(self._ground, self._works)
            self._nodes = {name: LabNode(self, name) for name in self.description.names}
            self._programs: list[subprocess.Popen[str]] = []
            self._ground.run(self._set_up())
            for program in self.description.programs:
                self._start_program(program)
        except BaseException as error:
            for name in self._ground.foreign:
                if log := self._ground.log(name):
                    error.add_note(f"log of node {name}: {log[-_NOTE:]}")
            self.close()
            raise

    async def _set_up(self) -> None:
        assert self._ground is not None

        async def ready() -> None:
            await self._works.set_up()
            await self._works.converge(self._within)

        try:
            await self._ground.within(self._within, ready())
        except TimeoutError:
            why = "".join(f": {each}" for each in list(self._works.refusals.values())[:1])
            raise LabError(f"the network is not ready within {self._within:g} s{why}") from None

    def close(self) -> None:
        """End all nodes, and programs that the laboratory started. Nothing is left. Nothing happens the second time."""
        ground, self._ground = self._ground, None
        if ground is None:
            return
        try:
            for program in getattr(self, "_programs", ()):
                if program.poll() is None:
                    program.kill()
                program.communicate()
        finally:
            ground.close()

    # --- parts

    @property
    def ground(self) -> Ground:
        """What it stands on. In virtual time, `ground.network` is the network of `ouroboros.testing.sim`."""
        if self._ground is None:
            raise LabError("this laboratory does not run: use it in a `with` block, or call start()")
        return self._ground

    @property
    def nodes(self) -> dict[str, LabNode]:
        """The nodes by name."""
        self.ground  # noqa: B018 - or its error
        return self._nodes

    @property
    def links(self) -> list[LabLink]:
        self.ground  # noqa: B018 - or its error
        return [LabLink(self, wire) for wire in self._works.wires]

    def __getitem__(self, name: str) -> LabNode:
        try:
            return self.nodes[name]
        except KeyError:
            raise LabError(f"there is no node {name!r}: there are {', '.join(self.nodes)}") from None

    def __getattr__(self, name: str) -> LabNode:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self[name]
        except LabError as error:
            raise AttributeError(str(error)) from None

    def __dir__(self) -> list[str]:
        """With the nodes, for completion."""
        return [*super().__dir__(), *self.description.names]

    def __iter__(self) -> Iterator[LabNode]:
        return iter(self.nodes.values())

    def link(self, one: str, other: str) -> LabLink:
        """The link between two nodes. Raises `DescriptionError` when there is none."""
        self.ground  # noqa: B018 - or its error
        return LabLink(self, self._works.wire(one, other), reverse=self._works.wire(one, other).link.one != one)

    def layer(self, name: str) -> Layer:
        """What the description says of a layer."""
        for layer in self.description.layers:
            if layer.name == name:
                return layer
        names = ", ".join(layer.name for layer in self.description.layers)
        raise LabError(f"there is no layer {name!r}: there are {names or 'none'}")

    # --- time

    @property
    def now(self) -> float:
        """Seconds of its clock."""
        return self.ground.now()

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.ground.run(self.ground.sleep(seconds))

    def converge(self, within: float = WITHIN) -> None:
        """Wait until the tables of all nodes that run say what the network is now. Raises `LabError`, with a table that
        does not, when that takes longer."""
        self.ground.run(self._works.converge(within))

    def run(self, programs: Mapping[str, Callable[[Here], Awaitable[T]]], *, within: float = WITHIN) -> dict[str, T]:
        """Run async functions on nodes, by their names, beside each other; return what they return. Each is given a
        `Here`. The first exception ends the others, and is raised. Raises `TimeoutError` when they take longer."""
        ground = self.ground
        jobs = [_as_job(function, Here(self, self[name])) for name, function in programs.items()]
        return dict(zip(programs, ground.run(ground.within(within, ground.all(jobs))), strict=True))

    # --- how it looks

    def graph(self) -> str:
        """The network as text: what is linked to what, and how that is now; and its layers."""
        return as_text(self.description, self._state())

    def svg(self) -> str:
        """The network as a picture: columns are nodes, rows are ranks, the links at the bottom."""
        return as_svg(self.description, self._state())

    def _repr_svg_(self) -> str:
        return self.svg()

    def _repr_html_(self) -> str:
        return f"<div>{self.svg()}</div>"

    def __repr__(self) -> str:
        state = "ended" if self._ground is None else f"{self.clock} clock"
        return f"<Lab: {len(self.description.nodes)} nodes, {len(self.description.links)} links, {state}>"

    def _state(self) -> State:
        if self._ground is None:
            return State()
        places = self._works.places.values()
        return State(
            dead=frozenset(place.name for place in places if not place.alive),
            paused=frozenset(place.name for place in places if place.alive and place.paused),
            cut=frozenset(wire.link.name for wire in self._works.wires if wire.is_cut),
            impaired={wire.link.name: (wire.impair[0], wire.impair[1]) for wire in self._works.wires},
        )

    # --- programs

    def _start_program(self, program: Program) -> None:
        node = self[program.node]
        if program.serves is not None:
            node.offer(program.serves)
            if node.name in self.ground.foreign:
                # There a program is known by its name, and says none when it accepts.
                node.execute("irm", "bind", "program", program.run[0], "name", program.serves)
        node.start(*program.run)

    def _begin(self, command: list[str], environment: dict[str, str], **more: Any) -> subprocess.Popen[str]:  # noqa: ANN401
        process = subprocess.Popen(command, env=environment, text=True, **more)
        self._programs.append(process)
        return process


class LabNode:
    """A node of a laboratory. `name`: as in the description."""

    def __init__(self, lab: Lab, name: str) -> None:
        self.lab = lab
        self.name = name

    def __repr__(self) -> str:
        place = self.lab._works.places[self.name]
        return f"<node {self.name}, {'paused' if place.paused else 'runs' if place.alive else 'killed'}>"

    # --- the network from here

    def ping(self, other: LabNode | str, *, count: int = 1, length: int = 64, qos: QoSSpec = QOS_RAW) -> Ping:
        """Send packets of `length` bytes to another node and back, one after the other, over a flow of that `qos`.
        Raises `LabError` when no flow leads there."""
        return self._run(self.lab._prober.ping(self.name, _name(other), count=count, length=length, qos=qos))

    def path(self, other: LabNode | str) -> tuple[str, ...]:
        """The nodes on the way to another, both ends included, as the tables say. Raises `LabError` when there is no
        way."""
        return self._run(self.lab._prober.path(self.name, _name(other)))

    def hops(self, other: LabNode | str) -> int:
        """How far another node is, as its table says. Raises `LabError` when there is no way."""
        return self._run(self.lab._prober.hops(self.name, _name(other)))

    def trace(self, other: LabNode | str) -> Trace:
        """Who answers on the way to another node, hop by hop in each layer, as `ouroboros.ping.trace` has it: packets
        ask the members, and no table is believed. Raises `LabError` when no layer leads there."""
        return self._run(self.lab._prober.trace(self.name, _name(other)))

    # --- what happens to it

    def kill(self) -> None:
        """End it as `kill -9` does: nobody is told."""
        self._run(self.lab._works.kill(self.name))
        self.lab._prober.forget(self.name)

    def pause(self) -> None:
        """Have it stand still, as SIGSTOP does."""
        self._run(self.lab._works.pause(self.name))

    def resume(self) -> None:
        """Have it go on, as SIGCONT does."""
        self._run(self.lab._works.resume(self.name))

    def restart(self) -> None:
        """Start it anew, after it was killed or not. It has the links, layers and names that it had."""
        self.lab._prober.forget(self.name)
        self._run(self.lab._works.restart(self.name))

    @property
    def runs(self) -> bool:
        """It was neither killed nor paused."""
        return self._place.runs

    # --- programs

    def run(self, function: Callable[[Here], Awaitable[T]], *, within: float = WITHIN) -> T:
        """Run an async function here, and return what it returns; see `Lab.run`."""
        return self.lab.run({self.name: function}, within=within)[self.name]

    def offer(self, name: str) -> None:
        """Have other nodes find a name here. A program that accepts for it, `flow_accept(name=...)`, gets the flows."""
        self._run(self.lab._works.offer(self.name, name))

    def start(self, *words: str | os.PathLike[str], **popen: Any) -> subprocess.Popen[str]:  # noqa: ANN401
        """Start a program here; it ends with the laboratory. `popen`: as of `subprocess.Popen`, with text. Real clocks
        only."""
        command, environment = self.lab.ground.command(self.name, [os.fspath(word) for word in words])
        return self.lab._begin(command, environment | popen.pop("env", {}), **popen)

    def execute(self, *words: str | os.PathLike[str], timeout: float = WITHIN) -> str:
        """Run a program here to its end, and return what it printed. Raises `subprocess.CalledProcessError` when it
        fails. Real clocks only."""
        command, environment = self.lab.ground.command(self.name, [os.fspath(word) for word in words])
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
        if done.returncode:
            error = subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
            error.add_note(done.stderr.strip())
            raise error
        return done.stdout

    # --- what it says of itself

    def request(self, request: Request) -> Any:  # noqa: ANN401
        """Any request of management of `ouroboros.wire.control`, and the value of its answer."""
        return self._run(self.lab.ground.request(self.name, request))

    def ipcps(self) -> list[IpcpEntry]:
        """Its IPC processes, with all that they count."""
        entries: list[IpcpEntry] = self.request(ListIpcps())
        return entries

    def flows(self) -> list[FlowEntry]:
        """Its flows, with all that they count."""
        entries: list[FlowEntry] = self.request(ListFlows())
        return entries

    def names(self) -> list[NameEntry]:
        """The names that it knows."""
        entries: list[NameEntry] = self.request(ListNames())
        return entries

    def member(self, layer: str | None = None) -> IpcpEntry:
        """Its IPC process of a layer, or of a link by the name of that. None: of the highest layer that it is in."""
        ipcps = self._place.ipcps
        if layer is None:
            top = self.lab._works.top_layers(self.name)
            if not top:
                raise LabError(f"node {self.name} is in no layer between nodes")
            layer = top[-1].name
        if layer not in ipcps:
            raise LabError(f"node {self.name} has no part in {layer!r}: there are {', '.join(ipcps)}")
        return self._run(self.lab._works.entry(self.name, layer))

    def routes(self, layer: str | None = None) -> dict[str, RouteEntry]:
        """Its table of a layer, by the node to which a route leads. Members that are not known any more are there by
        address."""
        entry = self.member(layer)
        described = self.lab.layer(entry.layer)
        addresses = self._run(self.lab._works.addresses(described))
        nodes = {address: described.members[member] for member, address in addresses.items()}
        return {nodes.get(route.address, route.address): route for route in entry.routes}

    def counters(self, layer: str | None = None) -> dict[str, int]:
        """What its IPC process of a layer, or of a link, counts."""
        return self.member(layer).counters

    @property
    def log(self) -> str:
        """What it had to say."""
        return self.lab.ground.log(self.name)

    @property
    def directory(self) -> Path:
        """Its runtime directory, by which programs find it (`OUROBOROS_RUNTIME_DIR`). Real clocks only."""
        return self.lab.ground.directory(self.name)

    @property
    def security(self) -> Path:
        """Its security directory. Real clocks only."""
        return self.lab.ground.security(self.name)

    @property
    def _place(self) -> Place:
        return self.lab._works.places[self.name]

    def _run(self, job: Job[T]) -> T:
        return self.lab.ground.run(job)


class LabLink:
    """A link of a laboratory. It is the same from both ends, but for `change`: `forth` is away from the node named
    first."""

    def __init__(self, lab: Lab, wire: Wire, *, reverse: bool = False) -> None:
        self._lab = lab
        self._wire = wire
        self._reverse = reverse

    @property
    def ends(self) -> tuple[str, str]:
        one, other = self._wire.link.ends
        return (other, one) if self._reverse else (one, other)

    @property
    def is_cut(self) -> bool:
        return self._wire.is_cut

    @property
    def impair(self) -> tuple[str, str]:
        """What happens to packets: forth and back."""
        forth, back = self._wire.impair
        return (back, forth) if self._reverse else (forth, back)

    def cut(self) -> None:
        """Let nothing through in either direction, until `heal`. What is under way arrives."""
        self._cut(True)

    def heal(self) -> None:
        """End the cut; all else is as before."""
        self._cut(False)

    def change(self, both: str | None = None, *, forth: str | None = None, back: str | None = None) -> None:
        """Have other things happen to packets from now on, in the words of `irm ipcp impair`; None: as before. A cut
        stays."""
        words = [forth if both is None else both, back if both is None else both]
        told = [before if text is None else text for before, text in zip(self.impair, words, strict=True)]
        ways = reversed(told) if self._reverse else told
        link = replace(self._wire.link, **dict(zip(("forth", "back"), ways, strict=True)))
        self._lab.ground.check(link)
        before, self._wire.impair[:] = list(self._wire.impair), (link.forth, link.back)
        try:
            self._lab.ground.run(self._lab._works.impair(self._wire))
        except LabError:
            self._wire.impair[:] = before
            raise

    def __repr__(self) -> str:
        return f"<link {' - '.join(self.ends)}{', cut' * self.is_cut}, {' | '.join(self.impair)}>"

    def _cut(self, cut: bool) -> None:
        self._wire.is_cut = cut
        self._lab.ground.run(self._lab._works.impair(self._wire))


class Here:
    """What a program in a coroutine has: its node. Its flows have the awaited verbs `read`, `write`, and `dealloc`."""

    def __init__(self, lab: Lab, node: LabNode) -> None:
        self._lab = lab
        self.node = node

    async def alloc(self, name: str, qos: QoSSpec = QOS_RAW, timeo: float | None = None) -> Flow:
        """As `flow_alloc`."""
        return await self._lab.ground.alloc(self.node.name, name, qos, timeo)

    async def accept(self, name: str) -> Flow:
        """Have other nodes find the name here, and wait for a flow to it."""
        if name not in self.node._place.offered:
            await self._lab._works.offer(self.node.name, name)
        return await self._lab.ground.accept(self.node.name, name)

    async def join(self, layer: str) -> Flow:
        """As `flow_join`: a flow of a broadcast layer that has a member here."""
        return await self._lab.ground.join(self.node.name, layer)

    async def request(self, request: Request) -> Any:  # noqa: ANN401
        """Any request of management, as `LabNode.request`."""
        return await self._lab.ground.request(self.node.name, request)

    async def sleep(self, seconds: float) -> None:
        """Let time pass."""
        await self._lab.ground.sleep(seconds)

    @property
    def now(self) -> float:
        """Seconds of the clock."""
        return self._lab.ground.now()


async def _as_job(function: Callable[[Here], Awaitable[T]], here: Here) -> T:
    return await function(here)


def _name(node: LabNode | str) -> str:
    return node if isinstance(node, str) else node.name


def _described(
    network: str | os.PathLike[str] | Description, over: str | Sequence[str], links: str | None
) -> Description:
    if isinstance(network, str):
        return describe(network, over, links=links or "udp4")
    if over:
        raise LabError("`over` goes with a network in a line; a description has its layers")
    if links is not None:
        raise LabError("`links` goes with a network in a line; a description has their types")
    if isinstance(network, Description):
        return network
    from ouroboros.lab.scenario import load

    return load(network)


def _seeded(description: Description, seed: int) -> Description:
    """Links draw by the seed, each in its own way."""

    def word(text: str, number: int) -> str:
        return text if text == "none" or "seed=" in text else f"{text},seed={(seed << 20) + number}"

    links = [
        replace(link, forth=word(link.forth, 2 * number), back=word(link.back, 2 * number + 1))
        for number, link in enumerate(description.links)
    ]
    return replace(description, links=tuple(links))


def _ground(clock: str, description: Description, seed: int) -> Ground:
    foreign = [node.name for node in description.nodes if node.stack != "ours"]
    if foreign and clock != "namespaces":
        raise LabError(f"node {foreign[0]}: the C prototype runs in namespaces only: take clock='namespaces'")
    if clock == "virtual":
        from ouroboros.lab.virtual import VirtualGround

        return VirtualGround(seed)
    if clock == "real":
        from ouroboros.lab.real import RealGround

        return RealGround()
    if foreign:
        from ouroboros.lab.mixed import MixedGround

        return MixedGround(foreign)
    from ouroboros.lab.namespaces import NamespaceGround

    return NamespaceGround()


__all__ = ["Here", "Lab", "LabLink", "LabNode"]
