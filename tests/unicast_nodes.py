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


def over_hops(hops: int) -> Callable[[str, bool, Callable[[], Node]], dict[str, str]]:
    """For a world: between its two nodes there are so many hops."""

    def offer(name: str, allocating: bool, another: Callable[[], Node]) -> dict[str, str]:
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
        with others[0].use():
            cli.reg_name(name, layer="campus", pol_lb=irm.LoadBalancePolicy.SPILL)
        return {"OUROBOROS_RUNTIME_DIR": str(others[0].directory)}

    return offer
