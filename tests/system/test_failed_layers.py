"""A thread of the engine that dies: its flows die, the layer begins again or is shown as failed, and nothing is silent."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import Background, until
from udp_nodes import Nodes

from ouroboros import aio, cli, irm
from ouroboros.dev import Flow, flow_accept, flow_alloc, flow_join
from ouroboros.errors import FlowDownException, FlowPeerException, IrmError
from ouroboros.irm import IpcpConfig, IpcpInfo, IpcpType
from ouroboros.layers.base import RESTORATIONS
from ouroboros.layers.effects import Effect, Impair, Loop, Member, PeerGone, Reserve, Resolve, SendManagement, Unreserve
from ouroboros.layers.impairment import Impairment
from ouroboros.qos import QOS_RAW, QoSSpec
from ouroboros.testing.node import Node

RELIABLE = QoSSpec(loss=0)
QOSES = pytest.mark.parametrize("qos", [QOS_RAW, RELIABLE], ids=["raw", "reliable"])


@pytest.fixture(autouse=True)
def _errors(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "ouroboros.irmd")


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.ERROR]


def shown(node: Node, name: str) -> IpcpInfo:
    with node.use():
        return next(info for info in irm.list_ipcps() if info.name == name)


def runtime(node: Node) -> Any:
    return node._node  # type: ignore[attr-defined]


def on_loop(node: Node, call: Callable[[], object]) -> None:
    """Have the node do something, and wait until it has."""

    async def do() -> None:
        call()

    asyncio.run_coroutine_threadsafe(do(), node._loop).result()  # type: ignore[attr-defined]


def break_udp(node: Node, name: str = "net0") -> None:
    """Let the thread of a UDP layer panic, and wait until the node knows it."""
    info = shown(node, name)
    before = info.counters.get("restored", 0)
    runtime(node)._engine._held.engine._panic()
    until(lambda: shown(node, name).state == "failed" or shown(node, name).counters.get("restored", 0) > before)


@QOSES
def test_a_thread_that_dies_takes_its_flows_along_and_the_layer_begins_again(
    nodes: Nodes, qos: QoSSpec, caplog: pytest.LogCaptureFixture
) -> None:
    near, far = nodes.flow(qos)
    with near, far:
        break_udp(nodes.near)
        for flow in (near, far):
            # The node of the far one is told that the near program is gone.
            with pytest.raises(FlowPeerException, match="died"):
                flow.read()
    assert shown(nodes.near, "net0").state == "operational"
    # All layers of the node have one thread.
    (said,) = [text for text in errors(caplog) if "'net'" in text]
    assert said.startswith("the layer 'net' failed (provoked by a test (rust/io/src/")
    near, far = nodes.flow(qos)
    with near, far:
        near.write(b"as before")
        assert far.read() == b"as before"


def test_files_and_loops_over_such_a_flow_raise(nodes: Nodes) -> None:
    near, far = nodes.flow(RELIABLE)
    with near, far, near.makefile("rb") as file:
        far.write(b"half of a line")
        assert file.read(5) == b"half "
        break_udp(nodes.near)
        with pytest.raises(FlowPeerException):
            file.read()

    accepting = nodes.accept()

    async def read() -> None:
        with nodes.near.use():
            flow = await aio.flow_alloc("clock", RELIABLE)
        async with flow:
            with accepting.result() as far:
                far.write(b"the first")
                async for packet in flow:
                    assert packet == b"the first"
                    break_udp(nodes.near)

    with pytest.raises(FlowPeerException):
        asyncio.run(read())


def test_a_layer_that_fails_again_and_again_is_shown_so_and_can_be_made_anew(
    nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(RESTORATIONS + 1):
        break_udp(nodes.near)
    info = shown(nodes.near, "net0")
    assert info.state == "failed"
    assert info.reason.startswith("provoked by a test (")
    assert len([text for text in errors(caplog) if "'net'" in text]) == RESTORATIONS + 1
    with nodes.near.use():
        with pytest.raises(
            FlowDownException, match=r"the layer 'net' has failed \(provoked.*: destroy its IPC process"
        ):
            flow_alloc("clock", RELIABLE)
        with pytest.raises(IrmError, match="has failed"):
            cli.reg_name("another", layer="net")
        cli.destroy_ipcp("net0")
        udp4 = irm.Udp4Config("127.0.0.1", port=nodes.port, peers=("clock@127.0.0.2",))
        cli.autoboot("net0", IpcpType.UDP4, "net", IpcpConfig(IpcpType.UDP4, "net", udp4=udp4))
    near, far = nodes.flow()
    near.dealloc()
    far.dealloc()


@pytest.fixture
def lab(ouroboros_inproc_node: Callable[[], Node]) -> Iterator[Node]:
    node = ouroboros_inproc_node()
    with node.use():
        yield node


def relayed(node: Node, qos: QoSSpec) -> tuple[Flow, Flow]:
    accepting = Background.waiting_for_node(lambda: flow_accept(name="clock"))
    near = flow_alloc("clock", qos)
    # What is granted is joined right after that; the node answers once it has.
    irm.list_flows()
    return near, accepting.result()


@QOSES
def test_flows_of_an_impaired_layer_whose_thread_dies_die(lab: Node, qos: QoSSpec) -> None:
    lab.impair("clock", "delay=1ms")
    near, far = relayed(lab, qos)
    runtime(lab)._engine._held.engine._panic()
    for flow in (near, far):
        with flow, pytest.raises(FlowPeerException, match="died"):
            flow.read()
    until(lambda: any(info.counters.get("restored") == 1 for info in irm.list_ipcps()))
    near, far = relayed(lab, qos)
    with near, far:
        near.write(b"as before")
        assert far.read() == b"as before"


def test_members_of_a_broadcast_layer_whose_thread_dies_die_and_others_can_join(lab: Node) -> None:
    member = flow_join("broadcast")
    runtime(lab)._engine._held.engine._panic()
    with member, pytest.raises(FlowPeerException, match="died"):
        member.read()
    until(lambda: +Counter(shown(lab, "broadcast").counters) == {"restored": 1})
    with flow_join("broadcast") as one, flow_join("broadcast") as other:
        one.write(b"as before")
        assert other.read() == b"as before"


def has_noticed(node: Node, engine: object) -> bool:
    """Whether the node has another engine by now, or shows that the layer has none."""
    another = runtime(node)._engine._held.engine
    return another not in (None, engine) or shown(node, "broadcast").state == "failed"


def test_a_broadcast_layer_that_stays_failed_says_so_to_who_joins(lab: Node) -> None:
    for _ in range(RESTORATIONS + 1):
        engine = runtime(lab)._engine._held.engine
        engine._panic()
        until(lambda engine=engine: has_noticed(lab, engine))  # type: ignore[misc]
    assert shown(lab, "broadcast").state == "failed"
    with pytest.raises(FlowDownException, match="the layer 'broadcast' has failed"):
        flow_join("broadcast")


# --- the same for the node's own bugs


def test_a_bug_while_a_layer_is_changed_fails_it_and_nothing_else(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    node = runtime(nodes.near)

    def bug(_: object) -> None:
        raise ZeroDivisionError("a bug")

    pid = shown(nodes.near, "net0").pid
    with monkeypatch.context() as patch:
        patch.setitem(node._handlers, Impair, bug)
        effect = Impair(pid, Impairment())
        on_loop(nodes.near, lambda: (node._irm._effects.append(effect), node._carry_out()))
    until(lambda: shown(nodes.near, "net0").counters.get("restored") == 1)
    assert any("Impair failed" in said for said in errors(caplog))
    near, far = nodes.flow(RELIABLE)
    near.dealloc()
    far.dealloc()


@pytest.mark.parametrize(
    "make",
    [
        lambda ipcp: SendManagement(ipcp, ("127.0.0.1", 9), b""),
        lambda ipcp: PeerGone(ipcp, 7, False),
        lambda ipcp: Reserve(ipcp, 7, ("127.0.0.1", 9)),
        lambda ipcp: Unreserve(ipcp, 7),
        # The token is a number of its directory, and not that of a request.
        lambda ipcp: Resolve(ipcp, 7, "nowhere.invalid", "udp4"),
    ],
)
def test_a_bug_in_something_that_anybody_can_cause_fails_no_layer(
    nodes: Nodes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[int], Effect],
) -> None:
    node = runtime(nodes.near)
    answered: list[object] = []

    def bug(_: object) -> None:
        raise ZeroDivisionError("a bug")

    near, far = nodes.flow(RELIABLE)
    with near, far, monkeypatch.context() as patch:
        effect = make(shown(nodes.near, "net0").pid)
        patch.setitem(node._handlers, type(effect), bug)
        patch.setattr(node._callers, "answer", lambda *what, **_: answered.append(what))
        for _ in range(RESTORATIONS + 1):
            on_loop(nodes.near, lambda: (node._irm._effects.append(effect), node._carry_out()))
        patch.undo()
        assert answered == []
        assert len(errors(caplog)) == RESTORATIONS + 1
        assert shown(nodes.near, "net0").counters.get("restored") is None
        near.write(b"as before")
        assert far.read() == b"as before"


def test_a_bug_that_each_packet_of_a_peer_meets_does_not_fill_the_log(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    node = runtime(nodes.near)

    def bug(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    member = node._engine._held.members[shown(nodes.near, "net0").pid]
    with monkeypatch.context() as patch:
        patch.setattr(node._irm, "management_arrived", bug)
        datagrams = [(member, ("127.0.0.9", 9), bytes(4))] * 1000
        on_loop(nodes.near, lambda: node._engine.heard((datagrams, [], [], [], [])))
    caplog.set_level(logging.WARNING, "ouroboros.irmd")
    on_loop(nodes.near, node._journal.count)
    assert 1 <= len(errors(caplog)) <= 10
    assert f"lines that were left out: {1000 - len(errors(caplog))} of others" in caplog.text


def test_a_bug_while_the_end_of_an_ipc_process_is_made_fails_the_end(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = runtime(nodes.near)
    told: list[tuple[int, int]] = []

    def bug(_: object) -> None:
        raise ZeroDivisionError("a bug")

    pid = shown(nodes.near, "net0").pid
    with monkeypatch.context() as patch:
        patch.setitem(node._handlers, Loop, bug)
        patch.setattr(node._irm, "end_failed", lambda flow_id, side, text, now: told.append((flow_id, side)))
        effect = Loop(77, "x", QOS_RAW, (Member(pid, 1), Member(pid, 2)), None)
        on_loop(nodes.near, lambda: (node._irm._effects.append(effect), node._carry_out()))
        until(lambda: told == [(77, 0), (77, 1)])


def test_a_bug_in_what_is_due_does_not_stop_the_clock_of_the_node(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    node = runtime(nodes.near)
    with monkeypatch.context() as patch:
        patch.setattr("ouroboros.runtime.node.BUG_PAUSE", 0.01)
        patch.setattr(node._irm, "timeout", lambda _: 1 / 0)
        on_loop(nodes.near, node._time_out)
        until(lambda: bool(errors(caplog)))
    with nodes.near.use(), pytest.raises(TimeoutError):
        flow_alloc("clock", timeo=0.01)
