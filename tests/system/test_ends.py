"""Every way in which a flow can end, over every kind of flow, as each call tells it.

`ENDS` says what an end is for a kind of flow, `TOLD` what calls make of that. What is not in the tables, and why:

* Flows within a node have no layer and no thread between them, so nothing of a node ends them; "outlives" is tested.
* A relayed flow is of one node: that of the peer and our own are the same one.
* A flag Down of the peer does not cross FRCP or a network, and an own one is not told to pollers of the own process
  (docs/flows.md).
* A set forgets a flow that its own program deallocates, and its descriptor is closed: no event, and nothing to poll.
* A member of a broadcast layer has no single peer whose end could be told.
* In a unicast layer there is a third node between the two. What carries packets of others knows no flows, so what ends
  there is found out by the silence; a relay that begins again is back before that, and only a reliable flow then brings
  what was written meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path

import pytest
from support import Background, Programs, Shell, forever, until
from toy import ToyIpcp
from toy_nodes import ToyNode, over_udp
from udp_nodes import free_port, join
from unicast_nodes import join as join_campus
from unicast_nodes import reaches
from warm import Warm

from ouroboros import aio, cli
from ouroboros.dev import Flow, flow_alloc, flow_join
from ouroboros.errors import FlowDownException, FlowNotAllocatedException, FlowPeerException
from ouroboros.event import FEventQueue, FEventType, FlowSet
from ouroboros.irm import IpcpType
from ouroboros.qos import QoSSpec
from ouroboros.runtime import client
from ouroboros.runtime.node import IPCP_TYPES
from ouroboros.testing.node import Node, ProcessNode, ThreadNode
from ouroboros.wire.control import DestroyIpcp, IpcpEntry, ListIpcps

# --- the tables

#: What is asked for, by the kind of flow.
KINDS = {
    "local": QoSSpec(),
    "encrypted": QoSSpec(cypher_s=256),
    "relayed": QoSSpec(),
    "relayed reliable": QoSSpec(loss=0),
    "udp raw": QoSSpec(),
    "udp reliable": QoSSpec(loss=0),
    "toy raw": QoSSpec(),
    "toy reliable": QoSSpec(loss=0),
    "unicast raw": QoSSpec(),
    "unicast reliable": QoSSpec(loss=0),
    "broadcast": QoSSpec(),
    "broadcast alone": QoSSpec(),
}
WITHIN = ("local", "encrypted")
RELAYED = ("relayed", "relayed reliable")
UDP = ("udp raw", "udp reliable")
#: Over a layer over UDP.
TOY = ("toy raw", "toy reliable")
#: Over a node in the middle, each over a layer over UDP.
UNICAST = ("unicast raw", "unicast reliable")
BETWEEN = (*UDP, *TOY, *UNICAST)
BROADCAST = ("broadcast", "broadcast alone")
#: Of two programs.
PAIRS = (*WITHIN, *RELAYED, *BETWEEN)
#: A thread of the node is between their ends.
CARRIED = (*RELAYED, *BETWEEN, *BROADCAST)


def _ended(kinds: tuple[str, ...]) -> dict[str, str]:
    """Their layer ends in order. Members of a broadcast layer have no peers from which more could have come."""
    return {kind: "closed" if kind in BROADCAST else "died" for kind in kinds}


#: "closed": the peer has let go, and everything came. "died": it has not said so. "down": it may come back. "own": this
#: program has let go. "outlives": the flow goes on.
ENDS = {
    "the peer deallocates": dict.fromkeys(PAIRS, "closed"),
    "the peer exits": dict.fromkeys(PAIRS, "closed"),
    "the peer is killed": dict.fromkeys(PAIRS, "died"),
    "we deallocate": dict.fromkeys(KINDS, "own"),
    "the peer sets Down": dict.fromkeys((*WITHIN, "relayed"), "down"),
    "our node is killed": dict.fromkeys(WITHIN, "outlives") | dict.fromkeys(CARRIED, "died"),
    "our node is terminated": dict.fromkeys(WITHIN, "outlives") | _ended(CARRIED),
    "our node is stopped": dict.fromkeys(WITHIN, "outlives") | _ended(CARRIED),
    "the peer's node is killed": dict.fromkeys(BETWEEN, "died"),
    "the peer's node is terminated": dict.fromkeys(BETWEEN, "died"),
    "the peer's node is stopped": dict.fromkeys(BETWEEN, "died"),
    "our layer is destroyed": dict.fromkeys(WITHIN, "outlives") | _ended(CARRIED),
    "the peer's layer is destroyed": dict.fromkeys(BETWEEN, "died"),
    "our layer below is destroyed": dict.fromkeys((*TOY, *UNICAST), "died"),
    "the peer's layer below is destroyed": dict.fromkeys((*TOY, *UNICAST), "died"),
    "our thread dies": dict.fromkeys(CARRIED, "died"),
    "the peer's thread dies": dict.fromkeys(BETWEEN, "died"),
    "the relay is killed": dict.fromkeys(UNICAST, "died"),
    "the relay is terminated": dict.fromkeys(UNICAST, "died"),
    "the relay's layer is destroyed": dict.fromkeys(UNICAST, "died"),
    "the relay's layer below is destroyed": dict.fromkeys(UNICAST, "died"),
    "the relay's thread dies": {"unicast reliable": "outlives"},
}


def is_silent(cause: str, kind: str) -> bool:
    """Nobody is left who could say it."""
    cut = "below" in cause or ("relay" in cause and "thread" not in cause)
    return cause == "the peer's node is killed" or (cut and kind in UNICAST)


RAISES = {
    "closed": "FlowDownException",
    "died": "FlowPeerException",
    "down": "FlowDownException",
    "own": "FlowNotAllocatedException",
}


def told(end: str, way: str, kind: str) -> str | None:
    """What a call of that way makes of an end; None: nothing, see above."""
    if kind in BROADCAST and (way == "write") != (kind == "broadcast alone"):
        # What one member writes, the others read.
        return None
    match way, end:
        case _, "outlives":
            return None if way == "write" else "packet"
        case (("event" | "poll"), "own"):
            return None
        case "event", _:
            return {"closed": "FlowDealloc", "died": "FlowPeer", "down": "FlowDown"}[end]
        case "poll", _:
            return "readable"
        case (("makefile" | "async for"), "closed"):
            return "end"
    return RAISES[end]


# --- the ways


def reading(call: Callable[[Flow], object]) -> Callable[[Flow], str]:
    return lambda flow: "packet" if call(flow) else "end"


def file_end(flow: Flow) -> str:
    with flow.makefile("rb") as file:
        return "packet" if file.read(5) else "end"


def event(flow: Flow) -> str:
    with FlowSet() as flows:
        flows.add(flow)
        events = FEventQueue()
        flows.wait(events)
        _, kind = events.next()
    return "packet" if kind == FEventType.FlowPkt else kind.name or ""


def poll(flow: Flow) -> str:
    poller = select.poll()
    poller.register(flow.fileno(), select.POLLIN)
    poller.poll()
    # A hint: what else there may be to read than the end.
    return "packet" if flow.get_rx_queue_len() else "readable"


WAYS: dict[str, Callable[[Flow], str]] = {
    "read": reading(lambda flow: flow.read()),
    "readinto": reading(lambda flow: flow.readinto(bytearray(5))),
    "read_many": reading(lambda flow: flow.read_many()),
    "write": lambda flow: forever(lambda: flow.write(bytes(1000))),
    "makefile": file_end,
    "event": event,
    "poll": poll,
}


async def async_for(flow: aio.Flow) -> str:
    async for _ in flow:
        return "packet"
    return "end"


async def await_read(flow: aio.Flow) -> str:
    return "packet" if await flow.read() else "end"


AWAITED: dict[str, Callable[[aio.Flow], Coroutine[object, object, str]]] = {
    "async for": async_for,
    "aio read": await_read,
}


def outcome(call: Callable[[], str]) -> str:
    try:
        return call()
    except (FlowDownException, FlowNotAllocatedException) as error:
        return type(error).__name__


class Waiter:
    """A flow of ours, and a thread that waits for its end in one of the ways."""

    def __init__(self, way: str, kind: str, qos: QoSSpec) -> None:
        self.way = way
        self._joins = kind in BROADCAST
        self._started = threading.Event()
        if way in AWAITED:
            self._background = Background(lambda: asyncio.run(self._wait(AWAITED[way], qos)))
        else:
            self.flow = flow_join("far", qos) if self._joins else flow_alloc("far", qos)
            self._background = Background(lambda: outcome(self._call))
        self._started.wait()

    def _call(self) -> str:
        self._started.set()
        return WAYS[self.way](self.flow)

    async def _wait(self, way: Callable[[aio.Flow], Coroutine[object, object, str]], qos: QoSSpec) -> str:
        flow = await (aio.flow_join("far", qos) if self._joins else aio.flow_alloc("far", qos))
        self.flow = flow.sync
        loop = asyncio.get_running_loop()
        task = loop.create_task(way(flow))
        await asyncio.sleep(0)
        self._started.set()
        with flow.sync:
            try:
                return await task
            except (FlowDownException, FlowNotAllocatedException) as error:
                return type(error).__name__

    def result(self) -> str:
        return self._background.result()


# --- the world


@pytest.fixture
def programs(warm_programs: Warm, tmp_path: Path) -> Iterator[Programs]:
    started = Programs(tmp_path, warm_programs)
    yield started
    started.end()


class Ends:
    """Our node and the peer's, which are one within a node, and what can happen to them."""

    def __init__(self, kind: str, make: Callable[[], Node], programs: Programs) -> None:
        self.kind = kind
        self.near = self.far = make()
        if kind in UDP:
            self.far = make()
            join(self.near, self.far, name="far")
        if kind in TOY:
            self.far = make()
            with self.near.use():
                over_udp(1)("far", True, lambda: self.far)
        if kind in UNICAST:
            self.far, self.relay = make(), make()
            port, row = free_port(), (self.far, self.relay, self.near)
            for number, node in enumerate(row):
                with node.use():
                    join_campus(number, port)
            for node in row:
                with node.use():
                    until(lambda: reaches(2))
            with self.far.use():
                cli.reg_name("far", layer="campus")
        with self.far.use():
            if kind in BROADCAST:
                cli.autoboot("far", IpcpType.BROADCAST, "far")
            if kind in RELAYED:
                self.near.impair("far", "none")
            elif kind in WITHIN:
                cli.create_name("far")
            self.program: Shell = programs.shell("far")

    def waiters(self, qos: QoSSpec, ways: list[str]) -> list[Waiter]:
        # Within the peer's node, from which it takes flows.
        accepts = "None" if self.kind in BROADCAST else f"[flow_accept(name='far') for _ in range({len(ways)})]"
        self.program.begin(f"kept = {accepts}; None")
        with self.near.use():
            waiters = [Waiter(way, self.kind, qos) for way in ways]
        self.program.answer()
        return waiters

    def layer(self, node: Node, name: str = "") -> int:
        """The IPC process that carries the flows; within a node the one where it has the names."""
        with node.use():
            entries: list[IpcpEntry] = client.request(ListIpcps())
        names = dict.fromkeys(WITHIN, "local") | dict.fromkeys(UDP, "net0") | dict.fromkeys(BROADCAST, "far")
        if self.kind in UNICAST:
            names[self.kind] = "m0" if node is self.far else "m2" if node is self.near else "m1"
        name = name or names.get(self.kind, "near1" if node is self.near else "far1")
        relays = [entry.id for entry in entries if self.kind in RELAYED and entry.details is not None]
        return (relays or [entry.id for entry in entries if entry.name == name])[0]

    def destroy_layer(self, node: Node, name: str = "") -> None:
        id = self.layer(node, name)
        with node.use():
            client.request(DestroyIpcp(id))

    def destroy_below(self, node: Node) -> None:
        self.destroy_layer(node, "udp" if self.kind in TOY else "net0")

    def terminate(self, node: Node) -> None:
        os.kill(node.pid, signal.SIGTERM)

    def panic(self, node: Node) -> None:
        runtime = node._node  # type: ignore[attr-defined]
        # The node answers once it has joined what it granted.
        self.layer(node)
        runtime._engine._held.engine._panic()

    def cause(self, cause: str, waiters: list[Waiter]) -> None:
        match cause:
            case "the peer deallocates":
                self.program.do("for f in kept: f.dealloc()")
            case "the peer exits":
                self.program.finish()
            case "the peer is killed":
                self.program.kill()
            case "the peer sets Down":
                self.program.do("for f in kept: f.set_flags(FlowProperties.ReadWrite | FlowProperties.Down)")
            case "we deallocate":
                for waiter in waiters:
                    waiter.flow.dealloc()
            case "our node is killed":
                self.near.kill()  # type: ignore[attr-defined]
            case "the peer's node is killed":
                self.far.kill()  # type: ignore[attr-defined]
            case "our node is terminated":
                self.terminate(self.near)
            case "the peer's node is terminated":
                self.terminate(self.far)
            case "our node is stopped":
                self.near.stop()
            case "the peer's node is stopped":
                self.far.stop()
            case "our layer below is destroyed":
                self.destroy_below(self.near)
            case "the peer's layer below is destroyed":
                self.destroy_below(self.far)
            case "our layer is destroyed":
                self.destroy_layer(self.near)
            case "the peer's layer is destroyed":
                self.destroy_layer(self.far)
            case "our thread dies":
                self.panic(self.near)
            case "the peer's thread dies":
                self.panic(self.far)
            case "the relay is killed":
                self.relay.kill()  # type: ignore[attr-defined]
            case "the relay is terminated":
                self.terminate(self.relay)
            case "the relay's layer is destroyed":
                self.destroy_layer(self.relay)
            case "the relay's layer below is destroyed":
                self.destroy_below(self.relay)
            case "the relay's thread dies":
                self.panic(self.relay)
            case _:
                raise AssertionError(cause)


@pytest.fixture
def make_ends(
    programs: Programs, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], Ends]]:
    with contextlib.ExitStack() as stack:

        def make(kind: str, cause: str) -> Ends:
            monkeypatch.setitem(IPCP_TYPES, "toy", ToyIpcp)

            def node() -> Node:
                # Only a process can be killed, and only within this one there is a thread to be broken.
                process = ToyNode if kind in TOY else ProcessNode
                kind_of_node = process if "killed" in cause or "terminated" in cause else ThreadNode
                made = kind_of_node(request.path.parent)
                stack.callback(made.clean_up)
                stack.callback(made.stop)
                made.select(monkeypatch)
                return made

            return Ends(kind, node, programs)

        yield make
        programs.end()


CELLS = [(cause, kind) for cause, kinds in ENDS.items() for kind in kinds]


@pytest.mark.slow
@pytest.mark.parametrize(("cause", "kind"), CELLS, ids=[f"{kind}: {cause}" for cause, kind in CELLS])
def test_an_end_is_told_for_what_it_is(cause: str, kind: str, make_ends: Callable[[str, str], Ends]) -> None:
    end, qos = ENDS[cause][kind], KINDS[kind]
    if is_silent(cause, kind):
        # It is found out by the silence.
        qos = QoSSpec(loss=qos.loss, timeout=1500)
    expected = {way: told(end, way, kind) for way in (*WAYS, *AWAITED)}
    expected = {way: what for way, what in expected.items() if what is not None}
    ends = make_ends(kind, cause)
    waiters = ends.waiters(qos, list(expected))
    ends.cause(cause, waiters)
    if end == "outlives":
        ends.program.do("for f in kept: f.write(b'alive')")
    results = {waiter.way: waiter.result() for waiter in waiters}
    for waiter in waiters:
        waiter.flow.dealloc()
    assert results == expected


def test_each_exception_of_the_table_is_what_the_documentation_says() -> None:
    assert issubclass(FlowPeerException, FlowDownException)
    assert not issubclass(FlowNotAllocatedException, FlowDownException)
