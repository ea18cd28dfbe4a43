"""Real nodes in a row, each with a member of the unicast layer `campus` on a loopback address of its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from support import until
from udp_nodes import free_port

from ouroboros import cli, irm
from ouroboros.irm import IpcpConfig, IpcpType, Udp4Config
from ouroboros.testing.node import Node


def join(number: int, port: int) -> None:
    """The node has member m<number>, which enrolls with the one before; the first one has nobody to enroll with."""
    peers = (f"m{number - 1}@127.0.0.{number}",) if number else ()
    conf = IpcpConfig(IpcpType.UDP4, udp4=Udp4Config(f"127.0.0.{number + 1}", port=port, peers=peers))
    cli.autoboot("net0", IpcpType.UDP4, "net", conf)
    if number:
        cli.enroll_ipcp(f"m{number}", f"m{number - 1}", autobind=True, ipcp_type=IpcpType.UNICAST)
    else:
        cli.autoboot("m0", IpcpType.UNICAST, "campus")


def member() -> irm.IpcpInfo:
    (found,) = cli.list_ipcps(ipcp_type=IpcpType.UNICAST)
    return found


def reaches(members: int) -> bool:
    """Whether the member of this node has ways to so many others."""
    return len(member().routes) == members


@contextlib.contextmanager
def at(directory: Path) -> Iterator[None]:
    """Calls are for the node in that directory."""
    before = os.environ.get("OUROBOROS_RUNTIME_DIR")
    os.environ["OUROBOROS_RUNTIME_DIR"] = str(directory)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OUROBOROS_RUNTIME_DIR"]
        else:
            os.environ["OUROBOROS_RUNTIME_DIR"] = before


#: As of `World.offer` in `conformance/worlds.py`.
Offer = Callable[[str, bool, Callable[[], Node]], dict[str, str]]


def over_hops(hops: int) -> Offer:
    """For a world: between its two nodes there are so many hops."""

    def offer(name: str, allocating: bool, another: Callable[[], Node]) -> dict[str, str]:
        return _registered(name, "campus", _row(hops, another))

    return offer


def over_ranks(name: str, allocating: bool, another: Callable[[], Node]) -> dict[str, str]:
    """For a world: its two nodes are neighbours in a layer over one in which there are two hops between them."""
    far = _row(2, another)
    with far.use():
        cli.autoboot("top0", IpcpType.UNICAST, "top")
    cli.enroll_ipcp("top2", "top", autobind=True, ipcp_type=IpcpType.UNICAST)
    return _registered(name, "top", far)


def _row(hops: int, another: Callable[[], Node]) -> Node:
    """Nodes in a row, this one the last; the first."""
    port = free_port()
    others = [another() for _ in range(hops)]
    for number, node in enumerate(others):
        with node.use():
            join(number, port)
    join(hops, port)
    for node in others:
        with node.use():
            until(lambda: reaches(hops))
    until(lambda: reaches(hops))
    return others[0]


def _registered(name: str, layer: str, far: Node) -> dict[str, str]:
    with far.use():
        cli.reg_name(name, layer=layer, pol_lb=irm.LoadBalancePolicy.SPILL)
    return {"OUROBOROS_RUNTIME_DIR": str(far.directory)}
