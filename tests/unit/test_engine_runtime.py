"""What a node tells its engine and its IRM: in which order, what a bug does to the rest, and what is left of what failed."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import pytest
from irm_world import OWNER, new_irm

from ouroboros.control.shares import Kind
from ouroboros.dataplane import SimulatedEngine
from ouroboros.layers.effects import Attach, Connect, Join, Loop, Member, OpenPort, RemoteEnd, Resolve
from ouroboros.layers.face import How
from ouroboros.oap import Session
from ouroboros.qos import QOS_RAW, QoSSpec
from ouroboros.runtime import ports
from ouroboros.runtime.engine import EngineRuntime
from ouroboros.runtime.flows import Channel, FlowRuntime
from ouroboros.runtime.grants import Grants
from ouroboros.runtime.held import News
from ouroboros.testing.sim import Network
from ouroboros.testing.sim.machine import NoChannel, VirtualMachine
from ouroboros.wire.extension import LEAST_PACKET, Extension
from ouroboros.wire.suites import CIPHERS

UDP, TOY, UPPER = 1, 2, 3


class Names:
    """An engine of which the names of flows are known."""

    def __init__(self, engine: SimulatedEngine) -> None:
        self.engine = engine
        self.taken: list[int] = []

    def __getattr__(self, verb: str) -> Any:
        return getattr(self.engine, verb)

    def name(self) -> int:
        self.taken.append(self.engine.name())
        return self.taken[-1]

    def unname(self, flow: int) -> None:
        self.taken.remove(flow)


class Machine(VirtualMachine):
    """One on which bugs are collected."""

    def __init__(self) -> None:
        node = Network().add_node()
        self.names = Names(node.engine)
        super().__init__(node.network, self.names, "test")  # type: ignore[arg-type]
        self.bugs: list[str] = []

    def met_bug(self, what: str, error: Exception) -> None:
        self.bugs.append(what)


class Stage:
    """An engine with a layer over UDP and a member over lower flows, and an IRM that notes what it is told."""

    def __init__(self) -> None:
        self.irm, self.grants, self.machine = Mock(), Mock(), Machine()
        self.engine = EngineRuntime(self.irm, lambda: None, self.machine)
        self.make_channel: Callable[[], Channel] = NoChannel
        self.flows = FlowRuntime(self.irm, self.grants, self.engine, lambda: self.make_channel())
        self.engine.open_port(OpenPort(UDP, "udp4", "10.0.0.1", 3435))
        self.engine._held.open_member(TOY, "transfer")

    def attach(self, user: int | Member, qos: QoSSpec = QOS_RAW, *, key: Session | None = None, **told: Any) -> Session:
        """Give it a flow with the next number."""
        session = Session() if key is None else key
        flow_id = 1 + len(self.engine._held.flows)
        told = {"ipcp": UDP, "address": ("10.0.0.2", 3435), "extension": None, **told}
        end = RemoteEnd(qos=qos, session=session, eid=70 + flow_id, peer_eid=71, **told)
        self.flows.attach(Attach(flow_id, "x", user, 0, end))
        return session

    def told(self) -> list[str]:
        """Names of what the IRM was told, but for that a flow is to be listed anew."""
        return [name for name, *_ in self.irm.mock_calls if name != "flow_touched"]


@pytest.fixture
def stage() -> Stage:
    return Stage()


def sealed() -> Session:
    return Session("suite", CIPHERS[0].number, bytearray(range(32)), strength=256)


# --- news


def test_what_came_over_a_flow_is_told_before_its_state_and_its_end(stage: Stage) -> None:
    stage.attach(Member(TOY, 5))
    number = stage.engine.flows.number(1, 0)
    assert number is not None
    stage.irm.reset_mock()
    member = stage.engine._held.members[TOY]
    stage.engine.heard(([(member, number, b"the last word")], [], [(number, "gone", {})], [], []))
    assert stage.told() == ["management_arrived", "flow_counted", "end_over", "flow_ended"]
    assert stage.irm.management_arrived.call_args.args[:3] == (TOY, b"the last word", 5)


@pytest.mark.parametrize("verb", ["management_arrived", "end_state", "end_over", "flow_ended", "member_broke"])
def test_what_meets_a_bug_keeps_nothing_else_from_being_told(stage: Stage, verb: str) -> None:
    for fd in (5, 6):
        stage.attach(Member(TOY, fd))
    first, second = (stage.engine.flows.number(flow_id, 0) or 0 for flow_id in (1, 2))
    stage.irm.reset_mock()
    getattr(stage.irm, verb).side_effect = ZeroDivisionError("a bug")
    at = ("10.0.0.2", 9)
    member = stage.engine._held.members[UDP]
    news: News = (
        [(member, at, b"1"), (member, at, b"2")],
        [],
        [(first, "gone", {})],
        [(second, False), (second, True)],
        [],
    )
    stage.engine.heard(news, "it broke")
    calls = {
        name: getattr(stage.irm, name).call_count
        for name in ("management_arrived", "end_state", "end_over", "flow_ended", "member_broke")
    }
    # The second flow ends with the engine, and both layers do.
    assert calls == {"management_arrived": 2, "end_state": 2, "end_over": 2, "flow_ended": 1, "member_broke": 2}
    assert len(stage.machine.bugs) == calls[verb]
    assert stage.engine._held.flows == {}


# --- what cannot be


def test_an_ipc_process_that_is_in_no_layer_costs_its_end_and_no_other(stage: Stage) -> None:
    stage.attach(Member(UPPER, 5))
    text = f"[Errno 0] the IPC process {UPPER} that is to have it is in no layer"
    assert stage.irm.end_failed.call_args.args[:3] == (1, 0, text)
    assert stage.irm.flow_ended.call_args.args[:3] == (UDP, 71, How.CLOSED)
    stage.irm.reset_mock()
    stage.flows.loop(Loop(1, "x", QOS_RAW, (Member(UPPER, 5), Member(TOY, 6)), None))
    assert [call.args[:3] for call in stage.irm.end_failed.call_args_list] == [(1, 0, text), (1, 1, text)]
    assert (stage.engine._held.flows, stage.engine._held.numbers, stage.engine._held.lower) == ({}, {}, {})


def test_a_layer_whose_engine_is_about_to_begin_again_does_not_have_the_end(stage: Stage) -> None:
    stage.engine.heard(([], [], [], [], []), "it broke")
    stage.flows.loop(Loop(1, "x", QOS_RAW, (Member(TOY, 5), 9), None))
    assert stage.irm.end_failed.called
    assert stage.grants.fail_flow.called


@pytest.mark.parametrize("qos", [QoSSpec(ber=0), QoSSpec(in_order=1, ber=0), QoSSpec(loss=0)], ids=["raw", "ber", "re"])
def test_a_flow_over_one_that_is_too_thin_is_refused(stage: Stage, qos: QoSSpec) -> None:
    peer = Extension(0, 16, 64, bytes(16))
    stage.attach(Member(TOY, 5), QOS_RAW, extension=peer)
    stage.attach(9, qos, ipcp=TOY, address=5, extension=Extension(0, LEAST_PACKET, 64, bytes(16)))
    (call,) = stage.grants.fail_flow.call_args_list
    assert call.args[3].strerror == "its path carries no packets"
    assert len(stage.engine._held.flows) == 1


def test_a_number_of_a_flow_is_not_that_of_the_next_one_with_its_id(stage: Stage) -> None:
    stage.attach(9)
    number = stage.engine.flows.number(1, 0)
    assert number is not None
    # It lingers: what was written still leaves.
    stage.engine.flows.release(1)
    assert stage.engine.flows.number(1, 0) is None
    stage.engine.flows.doom(1, 0)
    stage.irm.reset_mock()
    stage.engine.heard(([], [], [(number, "closed", {"packets_sent": 7})], [], []))
    assert not stage.irm.flow_counted.called
    assert stage.irm.flow_ended.call_args.args[:3] == (UDP, 71, How.CLOSED)


@pytest.mark.parametrize("opened", [False, True])
def test_what_is_left_of_a_flow_that_meets_a_bug_is_over(stage: Stage, opened: bool) -> None:
    """Before the engine has it, and after that."""
    end = RemoteEnd(
        ipcp=UDP, qos=QOS_RAW, session=sealed(), eid=71, peer_eid=72, address=("10.0.0.2", 3435), extension=None
    )
    attach = Attach(1, "x", Member(TOY, 5), 0, end)
    effects: list[Attach | Connect | Join | Loop] = [
        attach,
        Loop(2, "x", QOS_RAW, (8, Member(TOY, 6)), None, (sealed(), sealed())),
        Join(3, "hall", QOS_RAW, TOY, 9),
        Connect(4, "x", QOS_RAW, 10, 11, (sealed(), sealed())),
    ]
    if opened:
        stage.flows.attach(attach)
        stage.flows.loop(Loop(2, "x", QOS_RAW, (8, Member(TOY, 6)), None))
        assert len(stage.engine._held.flows) == 3
    stage.irm.reset_mock()
    waiting = [stage.flows.give_up(effect, "a bug") for effect in effects]
    assert waiting == [[], [8], [9], [10, 11]]
    assert [call.args[:3] for call in stage.irm.end_failed.call_args_list] == [(1, 0, "a bug"), (2, 1, "a bug")]
    assert [call.args[:3] for call in stage.irm.abandon.call_args_list] == [
        (2, 0, 8),
        (3, 0, 9),
        (4, 0, 10),
        (4, 1, 11),
    ]
    assert [call.args[:2] for call in stage.irm.flow_ended.call_args_list] == [(UDP, 71)]
    assert stage.engine._held.flows == {}
    keys = [end.session, *(key for effect in (effects[1], effects[3]) for key in effect.sessions or ())]  # type: ignore[union-attr]
    assert not any(any(session.key) for session in keys)


@pytest.mark.parametrize("error", [OSError(12, "no memory"), OverflowError("a bug"), KeyboardInterrupt()])
def test_a_flow_that_cannot_be_made_takes_no_name(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def refuse(**_: object) -> None:
        raise error

    end = RemoteEnd(
        ipcp=UDP, qos=QOS_RAW, session=Session(), eid=71, peer_eid=72, address=("10.0.0.2", 3435), extension=None
    )
    program = (-1, -1, 0)
    # Nothing is open in virtual time.
    monkeypatch.setattr("ouroboros.runtime.carrying.Setup", refuse)
    with pytest.raises(type(error)):
        stage.engine.flows.attach(Attach(1, "x", 9, 0, end), program)
    with pytest.raises(type(error)):
        stage.engine.flows.loop(Loop(2, "x", QOS_RAW, (8, 9), None), (program, program))
    with pytest.raises(type(error)):
        stage.engine.flows.join(Join(3, "x", QOS_RAW, TOY, 9), program)
    assert stage.machine.names.taken == []
    assert (stage.engine._held.flows, stage.engine._held.numbers) == ({}, {})


# --- keys and descriptors


def no_channel() -> Channel:
    raise OSError(24, os.strerror(24))


def test_keys_of_flows_that_cannot_be_made_are_overwritten(stage: Stage) -> None:
    stage.make_channel = no_channel
    keys = [sealed() for _ in range(4)]
    stage.flows.connect(Connect(1, "x", QOS_RAW, 7, 8, (keys[0], keys[1])))
    stage.flows.loop(Loop(2, "x", QOS_RAW, (7, 8), None, (keys[2], keys[3])))
    assert len(stage.grants.fail_flow.call_args_list) == 4
    assert not any(any(session.key) for session in keys)
    assert not any(stage.attach(9, key=sealed()).key)


def test_a_program_that_gets_its_flow_has_the_key(stage: Stage) -> None:
    keys = sealed(), sealed()
    stage.flows.loop(Loop(1, "x", QOS_RAW, (7, 8), None, keys))
    granted = [call.args[1] for call in stage.grants.grant.call_args_list]
    assert [each.key for each in granted] == [bytes(range(32))] * 2
    assert not any(any(session.key) for session in keys)


class Ports:
    """An engine that notes what it is told."""

    def __init__(self) -> None:
        self.sockets: dict[int, socket.socket] = {}

    def open_port(self, socket_: int, mac: bytes | None = None, ethertype: int | None = None) -> int:
        self.sockets[7] = socket.socket(fileno=socket_)
        return 7

    def close(self, member: int, died: bool) -> None:
        self.sockets.pop(member).close()


@pytest.mark.parametrize(("family", "address"), [("udp4", "127.0.0.1"), ("udp6", "::1")])
def test_a_port_that_cannot_be_set_up_is_closed(monkeypatch: pytest.MonkeyPatch, family: str, address: str) -> None:
    engine = Ports()
    for name in ("_IP_MTU_DISCOVER", "_IPV6_MTU_DISCOVER"):
        monkeypatch.setattr(ports, name, 9999)
    with pytest.raises(OSError, match="Protocol not available"):
        ports.open_port(OpenPort(1, family, address, 0), engine)
    assert engine.sockets == {}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(0, "its layer ended"), "the node could not make the flow: its layer ended"),
        (
            OSError(24, "Too many open files"),
            "the node could not make the flow: Too many open files; deallocate flows, or raise its limits (`ulimit -n`)",
        ),
    ],
)
def test_limits_are_blamed_for_what_the_system_refused_only(
    monkeypatch: pytest.MonkeyPatch, error: OSError, text: str
) -> None:
    callers = Mock()
    grants = Grants(Mock(), callers, Mock(), Mock())
    monkeypatch.setattr(grants, "_abandon", lambda *_: None)
    grants.fail_flow(1, 0, 5, error)
    assert callers.answer.call_args.args[1].text == text


# --- look-ups


def test_a_look_up_is_of_the_share_of_its_user_until_it_is_over(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    irm = new_irm()
    stage.engine._irm = irm
    pending: list[tuple[Callable[[list[str]], None], bool]] = []
    monkeypatch.setattr(
        stage.machine, "resolve", lambda effect, found, *, apart: pending.append((found, apart)), raising=True
    )
    users = {1: None, 2: OWNER + 1, 3: None}
    monkeypatch.setattr(irm.flows, "user", users.get)
    for asked in users:
        stage.engine.resolve(Resolve(UDP, 10 + asked, "host", "udp4", asked))
    # Only those that another user caused have threads of their own.
    assert [apart for _, apart in pending] == [False, True, False]
    assert irm.shares.held(Kind.LOOKUPS, OWNER + 1) == 1
    # It may have hung up meanwhile.
    users.clear()
    for found, _ in pending:
        found([])
    assert irm.shares.held(Kind.LOOKUPS, OWNER + 1) == 0
