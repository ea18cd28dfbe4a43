"""Two nodes of the test with a UDP layer each, on loopback addresses."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from support import Background

from ouroboros import cli, irm
from ouroboros.dev import Flow, flow_accept, flow_alloc
from ouroboros.irm import IpcpConfig, IpcpType, Udp4Config
from ouroboros.qos import QOS_RAW, QoSSpec
from ouroboros.testing.node import Node

NEAR, FAR = "127.0.0.1", "127.0.0.2"


#: Each worker of a test run takes every 16th port: two of them never choose the same one, which is free until it is bound.
_WORKERS = 16


def free_port() -> int:
    """A UDP port that is free at both addresses, and not one of those that the kernel gives away."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _WORKERS
    # Not the same for all: test runs may go on beside each other.
    start = 20_000 + os.getpid() % 10_000 // _WORKERS * _WORKERS
    for port in range(start + worker, 32_000, _WORKERS):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near, socket.socket(type=socket.SOCK_DGRAM) as far:
            try:
                near.bind((NEAR, port))
                far.bind((FAR, port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


@dataclass
class Nodes:
    """A node that knows where `clock` is, and the one where it is."""

    near: Node
    far: Node
    port: int

    def accept(self) -> Background[Flow]:
        """A program of the far node that waits for a flow to `clock`."""
        with self.far.use():
            return Background.waiting_for_node(lambda: flow_accept(name="clock"))

    def impair(self, text: str) -> None:
        """Let this happen to all that either node sends."""
        for node in (self.near, self.far):
            with node.use():
                cli.impair_ipcp("net0", text)

    def counters(self, node: Node) -> dict[str, int]:
        """Those of the only flow of a node."""
        with node.use():
            (info,) = irm.list_flows()
        return dict(info.counters)

    def flow(self, qos: QoSSpec = QOS_RAW) -> tuple[Flow, Flow]:
        accepting = self.accept()
        with self.near.use():
            flow = flow_alloc("clock", qos)
        return flow, accepting.result()


def join(near: Node, far: Node, *, peer: str = FAR, name: str = "clock") -> Nodes:
    """Give both nodes a UDP layer; the near one thinks that `name` is at `peer`, and it is at the far one."""
    port = free_port()
    for node, host, peers in ((near, NEAR, (f"{name}@{peer}",)), (far, FAR, ())):
        with node.use():
            conf = IpcpConfig(IpcpType.UDP4, "net", udp4=Udp4Config(host, port=port, peers=peers))
            cli.autoboot("net0", IpcpType.UDP4, "net", conf)
    with far.use():
        cli.reg_name(name, layer="net")
    return Nodes(near, far, port)
