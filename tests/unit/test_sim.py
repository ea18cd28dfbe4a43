"""Networks in virtual time: real control, real packets, no clock."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sim_world import ENCRYPTED, RELIABLE, build

from ouroboros.errors import (
    FlowDownException,
    FlowNameException,
    FlowPeerException,
    FlowRefusedException,
    FlowSizeException,
    FlowTimeoutException,
    NodeError,
)
from ouroboros.qos import QOS_RAW, QoSSpec
from ouroboros.testing.sim import Flow, Network, Node
from ouroboros.testing.sim.network import nanoseconds
from ouroboros.wire.control import BindProgram, CreateName, DestroyIpcp, ListFlows

WORLD = Path(__file__).parents[1] / "sim_world.py"
QUALITIES = [QOS_RAW, QoSSpec(), RELIABLE, QoSSpec(loss=0, in_order=1, cypher_s=256)]


def pair(seed: int = 1) -> tuple[Network, Node, Node]:
    """Two nodes, the second of which has the name "clock"."""
    network = Network(seed)
    near, far = network.add_node("near"), network.add_node("far")
    near.over_udp(peers=[f"clock@{far.address}"])
    far.offer("clock", far.over_udp())
    return network, near, far


def connect(near: Node, far: Node, qos: QoSSpec | None = None) -> tuple[Flow, Flow]:
    accepting = far.program("server").accept("clock")
    client = near.program("watch").alloc("clock", qos).wait().flow
    return client, accepting.wait().flow


@pytest.fixture(autouse=True)
def _no_packet_is_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """After whatever a test lets happen."""
    step = Network._step

    def checked(network: Network, until: int) -> bool:
        went_on = step(network, until)
        assert network.balance().missing == 0, network.balance()
        return went_on

    monkeypatch.setattr(Network, "_step", checked)


@pytest.mark.parametrize(
    ("impair", "reasons"),
    [("loss=20%", {"lost"}), ("partition", {"lost"}), ("duplicate=50%", set()), ("reorder=20%", set())],
)
def test_each_packet_is_taken_dropped_for_a_reason_or_waits(impair: str, reasons: set[str]) -> None:
    network, near, far = pair()
    client, server = connect(near, far, QOS_RAW)
    near.impair(impair)
    client.source(500, 100)
    server.sink()
    network.run(0.0005)
    assert network.balance().queued > 0 or impair in ("loss=20%", "partition")
    network.run(5)
    balance = network.balance()
    assert set(balance.dropped) == reasons
    assert (balance.duplicated > 100) == (impair == "duplicate=50%")
    assert balance.received >= server.tally()["read"] >= (0 if reasons else 500)
    assert (balance.queued, balance.missing) == (0, 0)


def test_a_slow_reader_and_a_flow_that_is_gone_are_reasons() -> None:
    network, near, far = pair()
    client, server = connect(near, far, QOS_RAW)
    far.impair("partition")
    client.source(3000, 1400)
    network.run(2)
    assert network.balance().dropped["overrun"] > 0
    server.dealloc()
    client.write(b"who is there?")
    network.run(1)
    assert network.balance().dropped["unknown"] > 0
    assert network.balance().missing == 0


def assert_idle(node: Node) -> None:
    """Nothing is left of what was."""
    assert node.irm.flows.flows == {}
    assert node.irm.deadline() is None


@given(st.floats(0, 1e9))
def test_an_instant_is_not_before_its_time(seconds: float) -> None:
    instant = nanoseconds(seconds)
    assert instant / 1e9 >= seconds
    assert instant == 0 or (instant - 2) / 1e9 < seconds or math.ulp(seconds) > 1e-9


@pytest.mark.parametrize("qos", QUALITIES, ids=str)
def test_flows_between_nodes_carry_packets_both_ways(qos: QoSSpec) -> None:
    network, near, far = pair()
    client, server = connect(near, far, qos)
    client.write(b"what time is it?")
    assert server.read() == b"what time is it?"
    server.write(b"late")
    assert client.read() == b"late"
    client.dealloc()
    with pytest.raises(FlowDownException):
        server.read()
    server.dealloc()
    network.run(300)
    assert_idle(near)
    assert_idle(far)
    assert network.counted()["stuck"] == 0


@pytest.mark.parametrize("qos", QUALITIES, ids=str)
def test_flows_within_a_node_carry_packets_both_ways(qos: QoSSpec) -> None:
    node = Network().add_node()
    node.add_ipcp("local", "local")
    node.offer("clock")
    client, server = connect(node, node, qos)
    client.write(b"tick")
    assert server.read() == b"tick"
    server.write(b"tock")
    assert client.read() == b"tock"
    client.dealloc()
    with pytest.raises(FlowDownException):
        server.read()
    server.dealloc()
    node.network.run(1)
    assert_idle(node)


def test_what_one_joined_writes_the_others_get() -> None:
    node = Network().add_node()
    node.add_ipcp("broadcast", "hall")
    flows = [node.program().join("hall").wait().flow for _ in range(4)]
    flows[0].write(b"hello")
    assert [flow.read() for flow in flows[1:]] == [b"hello"] * 3
    assert flows[0].poll() is None


def test_time_passes_only_when_it_is_told_to() -> None:
    network, near, far = pair()
    before = network.now
    asking = near.program().alloc("clock", timeout=5.0)
    with pytest.raises(FlowTimeoutException, match="let time pass"):
        asking.flow  # noqa: B018
    assert network.now == before
    with pytest.raises((FlowTimeoutException, FlowRefusedException), match="accepted"):
        asking.wait().flow  # noqa: B018
    assert before < network.now <= before + 5.0
    network, near, far = pair()
    with pytest.raises(FlowTimeoutException):
        connect(near, far)[0].read(7.0)
    assert network.now >= 7.0


def test_a_packet_takes_as_long_as_the_link() -> None:
    network, near, far = pair()
    client, server = connect(near, far, QOS_RAW)
    near.impair("delay=20ms")
    start = network.now
    client.write(b"slow")
    server.read()
    assert network.now - start == pytest.approx(0.02, abs=1e-6)
    near.impair(None)
    start = network.now
    client.write(b"quick")
    server.read()
    assert network.now - start == pytest.approx(0.001, abs=1e-6)


def test_a_reliable_flow_gets_everything_over_a_bad_link() -> None:
    network, near, far = pair()
    client, server = connect(near, far, RELIABLE)
    for node in (near, far):
        node.impair("loss=10%,jitter=5ms,reorder=2%,duplicate=2%")
    client.source(2000, 1000)
    server.echo()
    network.run(120)
    assert client.tally() == {"written": 2000, "read": 2000, "bytes": 2_000_000, "disordered": 0}
    counted = network.counted()
    assert counted["lost"] > 100
    assert counted["sent"] + counted["duplicated"] == counted["arrived"] + counted["astray"] + counted["lost"]


def test_a_partition_is_noticed_after_the_timeout_of_the_flow() -> None:
    network, near, far = pair()
    client, server = connect(near, far, QoSSpec(timeout=10_000))
    network.run(60)
    for node in (near, far):
        node.impair("partition")
    network.run(7)
    assert client.poll() is server.poll() is None
    network.run(4)
    for end in (client, server):
        with pytest.raises(FlowPeerException):
            end.poll()


def test_the_end_of_a_program_is_told_at_the_other_end() -> None:
    network, near, far = pair()
    program = far.program("server")
    accepting = program.accept("clock")
    client = near.program().alloc("clock").wait().flow
    accepting.wait().flow.write(b"last words")
    program.die()
    assert client.read() == b"last words"
    with pytest.raises(FlowPeerException):
        client.read()
    client.dealloc()
    network.run(300)
    assert_idle(near)
    assert_idle(far)


def test_errors_are_those_of_real_nodes() -> None:
    network, near, far = pair()
    with pytest.raises(FlowNameException):
        near.program().alloc("nobody").wait().flow  # noqa: B018
    client, _ = connect(near, far, RELIABLE)
    with pytest.raises(FlowSizeException):
        client.write(bytes(2 << 20))
    assert network.counted()["astray"] >= 0


def test_programs_on_demand_are_refused() -> None:
    node = Network().add_node()
    node.manage(CreateName("clock", "spillover"))
    node.manage(BindProgram("/bin/true", "clock", True, []))
    with pytest.raises(FlowRefusedException, match="virtual time"):
        node.program().alloc("clock").wait().flow  # noqa: B018


@pytest.mark.parametrize("lower", [QOS_RAW, RELIABLE, ENCRYPTED], ids=["raw", "reliable", "encrypted"])
@pytest.mark.parametrize("qos", [QoSSpec(), RELIABLE, ENCRYPTED], ids=["ordered", "reliable", "encrypted"])
@pytest.mark.parametrize("udp", [True, False], ids=["udp", "node"])
def test_layers_over_layers_carry_packets_both_ways(udp: bool, qos: QoSSpec, lower: QoSSpec) -> None:
    way = build(3, udp=udp, lower=lower)
    client, server = way.flow(qos)
    client.source(300, 700)
    server.echo()
    way.network.run(60)
    assert client.tally() == {"written": 300, "read": 300, "bytes": 210_000, "disordered": 0}
    assert way.network.counted()["stuck"] == 0


def test_a_layer_that_is_destroyed_ends_what_it_carried() -> None:
    way = build(2, udp=True)
    client, server = way.flow(RELIABLE)
    client.write(b"here")
    assert server.read() == b"here"
    way.near.manage(DestroyIpcp(way.toys[0][0]))
    for end in (client, server):
        with pytest.raises((FlowPeerException, FlowDownException)):
            end.read(400.0)
        end.dealloc()
    way.network.run(300)
    for node in way.network.nodes:
        listed = node.manage(ListFlows()).value
        assert listed == [], listed


def test_counters_of_the_engine_are_those_of_the_layer() -> None:
    network, near, far = pair()
    client, server = connect(near, far, QOS_RAW)
    client.source(100, 100)
    server.sink()
    network.run(1)
    ipcp = next(iter(far.irm.ipcps))
    assert far.counters(ipcp)["received"] >= 100


def run_child(scene: str, seed: int, hash_seed: int) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, str(WORLD), scene, str(seed)]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout


@pytest.mark.parametrize("scene", ["plain", "encrypted"])
def test_two_runs_of_a_seed_are_the_same_whatever_the_hash_seed(scene: str) -> None:
    """Of encrypted layers the outcome; else the whole log."""
    first, second = run_child(scene, 5, 1), run_child(scene, 5, 2)
    assert first == second
    assert first.count("\n") > (100 if scene == "plain" else 1)


def test_another_seed_is_another_run() -> None:
    assert run_child("plain", 5, 0) != run_child("plain", 6, 0)


def test_a_node_that_stands_still_answers_when_it_goes_on() -> None:
    network, near, far = pair()
    client, server = connect(near, far, RELIABLE)
    far.pause()
    client.write(b"what time is it?")
    asked = far.manage(CreateName("bell", "round-robin"))
    network.run(5)
    assert server.poll() is None
    assert asked.answer is None
    far.resume()
    assert server.read() == b"what time is it?"
    assert asked.wait().value is None
    server.write(b"late")
    assert client.read() == b"late"
    assert network.counted()["stuck"] == 0


def test_a_pause_that_is_shorter_than_the_timeout_ends_no_flow() -> None:
    network, near, far = pair()
    client, server = connect(near, far, QoSSpec(timeout=2000))
    far.pause()
    network.run(1.5)
    far.resume()
    network.run(5)
    client.write(b"are you there?")
    assert server.read() == b"are you there?"


def test_a_node_that_crashed_is_silent_and_begins_anew_at_its_address() -> None:
    network, near, far = pair()
    client, server = connect(near, far, QoSSpec(timeout=1000))
    waiting = far.program("late").accept("clock")
    far.crash()
    network.run(5)
    with pytest.raises(FlowDownException):
        server.read()
    with pytest.raises(FlowPeerException):
        client.read()
    for asked in (waiting, far.manage(ListFlows())):
        with pytest.raises(NodeError, match="node far is gone"):
            asked.value  # noqa: B018
    server.dealloc()
    client.dealloc()
    again = network.add_node("far")
    assert (again.address, again is far) == (far.address, False)
    again.offer("clock", again.over_udp())
    client, server = connect(near, again)
    client.write(b"and now?")
    assert server.read() == b"and now?"


def test_a_cut_is_between_two_nodes_for_as_long_as_it_lasts() -> None:
    network, near, far = pair()
    third = network.add_node("third")
    third.over_udp(peers=[f"clock@{far.address}"])
    client, server = connect(near, far, RELIABLE)
    network.cut(far, near)
    client.write(b"when?")
    network.run(5)
    assert server.poll() is None
    connect(third, far)
    network.mend(near, far)
    network.mend(near, far)
    assert server.read() == b"when?"
    network.cut(near, far)
    far.crash()
    again = network.add_node("far")
    again.offer("clock", again.over_udp())
    network.run(5)
    connect(third, again)
    with pytest.raises(FlowTimeoutException):
        near.program("watch").alloc("clock", timeout=5.0).wait().flow  # noqa: B018
    network.mend(near, far)
    connect(near, again)
