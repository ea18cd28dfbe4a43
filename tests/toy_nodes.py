"""Real nodes with toy layers (`toy.py`) between two programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from support import udp_settings
from udp_nodes import FAR, NEAR, free_port

from ouroboros.qos import QOS_RAW, QoSSpec
from ouroboros.runtime import client
from ouroboros.settings import AnySettings
from ouroboros.testing.node import Node, ProcessNode
from ouroboros.wire.control import (
    BindProcess,
    BootstrapIpcp,
    ConnectIpcp,
    CreateIpcp,
    CreateName,
    RegisterName,
)


class ToyNode(ProcessNode):
    """A node that has the type."""

    _host: ClassVar[tuple[str, ...]] = (str(Path(__file__).with_name("toy_host.py")),)


def over_udp(depth: int, lower: QoSSpec = QOS_RAW) -> Callable[[str, bool, Callable[[], Node]], dict[str, str]]:
    """For a world: so many toy layers on top of each other, above a layer over UDP, between two nodes.

    `lower`: of the flows of members to their neighbours.
    """

    def offer(name: str, allocating: bool, another: Callable[[], Node]) -> dict[str, str]:
        far, port = another(), free_port()
        with far.use():
            below = [_member("udp", "udp4", "net", udp_settings(FAR, port))]
        _member("udp", "udp4", "net", udp_settings(NEAR, port, [f"far1@{FAR}"]))
        for level in range(1, depth + 1):
            with far.use():
                below.append(_toy("far", level, below[-1]))
            near = _toy("near", level)
            _connect(near, f"far{level}", lower)
        if allocating:
            with far.use():
                _register(name, below[-1])
        else:
            _register(name, near)
        return {"OUROBOROS_RUNTIME_DIR": str(far.directory)}

    return offer


def over_two_ports(name: str, allocating: bool, another: Callable[[], Node]) -> dict[str, str]:
    """For a world: two layers over UDP, each with a port of its own at either node, and above both one toy layer.

    The far node has a member of that over each port. The name is at the one over the second port, which the near member asks
    last; at the other is "NAME over the first port".
    """
    assert allocating
    far, near = another(), _toy("near", 1)
    for side, offered in (("first", f"{name} over the first port"), ("second", name)):
        port = free_port()
        with far.use():
            below = _member(f"udp-{side}", "udp4", f"net-{side}", udp_settings(FAR, port))
            _register(offered, _toy(side, 1, below))
        _member(f"udp-{side}", "udp4", f"net-{side}", udp_settings(NEAR, port, [f"{side}1@{FAR}"]))
        _connect(near, f"{side}1", QOS_RAW)
    return {"OUROBOROS_RUNTIME_DIR": str(far.directory)}


def within_a_node(depth: int, lower: QoSSpec = QOS_RAW) -> Callable[[str, bool, Callable[[], Node]], dict[str, str]]:
    """As `over_udp`, with both members of each layer in one node, and nothing below the lowest."""

    def offer(name: str, allocating: bool, another: Callable[[], Node]) -> dict[str, str]:
        below = 0
        for level in range(1, depth + 1):
            below = _toy("far", level, below)
            _connect(_toy("near", level), f"far{level}", lower)
        _register(name, below)
        return {}

    return offer


def _member(name: str, type: str, layer: str, settings: AnySettings | None = None) -> int:
    ipcp: int = client.request(CreateIpcp(name, type))
    client.request(BootstrapIpcp(ipcp, layer, settings))
    return ipcp


def _toy(side: str, level: int, below: int = 0) -> int:
    """A member to which flows can be had by its name. `below`: where the name is registered."""
    name = f"{side}{level}"
    ipcp = _member(name, "toy", f"toys{level}")
    client.request(BindProcess(ipcp, name))
    if below:
        client.request(RegisterName(name, below))
    return ipcp


def _connect(near: int, name: str, lower: QoSSpec) -> None:
    client.request(ConnectIpcp(near, "Data Transfer", name, lower))


def _register(name: str, ipcp: int) -> None:
    client.request(CreateName(name, "spillover"))
    client.request(RegisterName(name, ipcp))
