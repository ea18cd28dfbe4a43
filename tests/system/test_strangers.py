"""Strangers at a real node over UDP: what they hold, whom they keep out, and what its configuration says of them.

How fast they may be is measured by `bench/strangers.py`.
"""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from strangers import OLDER, OURS, PROTOTYPE, forged
from support import Background, NodeProcess, until
from udp_nodes import FAR, NEAR, Nodes, free_port

from ouroboros import irm
from ouroboros.dev import flow_accept, flow_alloc
from ouroboros.errors import FlowPeerException
from ouroboros.settings import Strangers
from ouroboros.wire.udp import FlowReply, FlowRetry, decode

MANY = 300


@pytest.fixture
def stranger() -> Iterator[socket.socket]:
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)
        yield sock


def counters() -> dict[str, int]:
    (info,) = (info for info in irm.list_ipcps() if info.name == "net0")
    return dict(info.counters)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [OURS, OLDER, PROTOTYPE])
def test_forged_requests_leave_a_node_to_its_programs_and_honest_peers(
    nodes: Nodes, stranger: socket.socket, kind: str
) -> None:
    accepting = [nodes.accept() for _ in range(40)]
    for number in range(MANY):
        stranger.sendto(forged(kind, number, time.time_ns()), (FAR, nodes.port))
    share = 0 if kind == OURS else Strangers().unproven_of_one
    with nodes.far.use():
        # What control has dealt with, and what the door answers itself or lets nobody see.
        until(lambda: sum(counters()[each] for each in ("requests_received", "challenged", "refused")) >= MANY)
        until(lambda: len(irm.list_flows()) == share)
        assert counters()["requests_accepted"] == share
        assert counters()["challenged"] == (MANY if kind == OURS else 0)
        local = Background.waiting_for_node(lambda: flow_accept(name="here"))
        with flow_alloc("here") as flow, local.result():
            flow.write(b"within")
    # One of those that still wait.
    with nodes.near.use(), flow_alloc("clock") as flow:
        flow.write(b"between")
    with nodes.far.use():
        for _ in accepting[share + 1 :]:
            flow_alloc("clock").dealloc()
    for each in accepting:
        each.result().dealloc()


def test_a_stranger_that_says_nothing_is_gone_after_its_grace_and_its_timeout_is_told(
    nodes: Nodes, stranger: socket.socket
) -> None:
    nodes.far._node._irm.bound_strangers(Strangers(grace=1, timeout=5000))  # type: ignore[attr-defined]
    accepting = nodes.accept()
    stranger.sendto(forged(PROTOTYPE, 1, time.time_ns()), (FAR, nodes.port))
    with accepting.result() as flow:
        assert flow.get_qos().timeout == 5000
        with pytest.raises(FlowPeerException):
            flow.read()


def test_a_request_with_the_cookie_is_answered_and_only_from_the_same_address(
    nodes: Nodes, stranger: socket.socket
) -> None:
    accepting, wall = nodes.accept(), time.time_ns()
    there = (FAR, nodes.port)
    stranger.sendto(forged(OURS, 1, wall), there)
    retry = decode(stranger.recv(2048))
    assert isinstance(retry, FlowRetry)
    proven = forged(OURS, 1, wall, cookie=retry.cookie)
    with socket.socket(type=socket.SOCK_DGRAM) as other:
        other.settimeout(20)
        other.sendto(proven, there)
        assert isinstance(decode(other.recv(2048)), FlowRetry)
    stranger.sendto(proven, there)
    reply = decode(stranger.recv(2048))
    assert isinstance(reply, FlowReply)
    assert reply.checked
    accepting.result().dealloc()


def test_the_configuration_says_what_strangers_have_and_can_be_changed(
    make_node: Callable[..., NodeProcess], tmp_path: Path, stranger: socket.socket
) -> None:
    port, path = free_port(), tmp_path / "irmd.toml"
    layer = f'[udp4.net0]\nbootstrap = "net"\nip = "{NEAR}"\nport = {port}\nreg = ["clock"]\n'
    path.write_text(f"[strangers]\nunproven = 0\n{layer}")
    node = make_node("--config", str(path))
    stranger.sendto(forged(PROTOTYPE, 1, time.time_ns()), (NEAR, port))
    until(lambda: counters()["messages_dropped"] == 1)
    path.write_text(f"[strangers]\nunproven = 1\n{layer}")
    node.process.send_signal(signal.SIGHUP)
    until(lambda: "again" in node.log())
    accepting = Background.waiting_for_node(lambda: flow_accept(name="clock"))
    stranger.sendto(forged(PROTOTYPE, 2, time.time_ns()), (NEAR, port))
    assert isinstance(decode(stranger.recv(2048)), FlowReply)
    accepting.result().dealloc()
