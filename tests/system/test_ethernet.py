"""Layers on an Ethernet segment: two nodes with a network stack of the kernel each, joined by a veth pair. Needs root."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import NodeProcess

from ouroboros.testing.link import NamespacePair

_LACKS = NamespacePair.lacks()
pytestmark = pytest.mark.skipif(_LACKS is not None, reason=str(_LACKS))
TYPES = ("eth-dix", "eth-llc")


@pytest.fixture
def segment() -> Iterator[NamespacePair]:
    with NamespacePair(None) as pair:
        yield pair


class Station:
    """A node on the segment."""

    def __init__(self, node: NodeProcess) -> None:
        self.node = node
        self.environment = os.environ | {"OUROBOROS_RUNTIME_DIR": str(node.directory)}

    def tool(self, tool: str, *words: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name(tool)), *words]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120, check=False)

    def irm(self, *words: str) -> str:
        done = self.tool("irm", *words)
        assert done.returncode == 0, (words, done.stderr, self.node.log())
        return done.stdout

    def bootstrap(self, kind: str, *options: str) -> None:
        self.irm("ipcp", "bootstrap", "type", kind, "name", "e", "layer", "segment", "dev", "veth0", *options)

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Answer `oping` there."""
        program = str(Path(sys.executable).with_name("oping"))
        self.irm("bind", "program", program, "name", "oping")
        self.irm("name", "register", "oping", "layer", "segment")
        with subprocess.Popen([program, "-l"], env=self.environment, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            assert "erver" in server.stdout.readline()
            yield
            server.terminate()
            server.stdout.read()


@pytest.fixture
def stations(segment: NamespacePair, make_node: Callable[..., NodeProcess], tmp_path: Path) -> tuple[Station, Station]:
    near, far = (
        Station(make_node(within=segment.command(host), directory=tmp_path / f"node{host}")) for host in (0, 1)
    )
    return near, far


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("qos", ["raw", "data"])
def test_programs_of_two_stations_reach_each_other(stations: tuple[Station, Station], kind: str, qos: str) -> None:
    near, far = stations
    for station in stations:
        station.bootstrap(kind)
    with far.serving():
        done = near.tool("oping", "-n", "oping", "-c", "20", "-i", "1", "-s", "1400", "-q", qos)
    assert "20 packets transmitted, 20 received" in done.stdout, done.stderr


def test_ethertypes_are_layers_of_their_own(stations: tuple[Station, Station]) -> None:
    near, far = stations
    near.bootstrap("eth-dix", "ethertype", "a001")
    far.bootstrap("eth-dix")
    with far.serving():
        done = near.tool("oping", "-n", "oping", "-c", "1")
    assert done.returncode == 2
    assert "no station on the segment has it" in done.stderr


def test_a_device_that_is_not_there_is_named(stations: tuple[Station, Station]) -> None:
    near, _ = stations
    done = near.tool("irm", "ipcp", "bootstrap", "type", "eth-dix", "name", "e", "layer", "segment", "dev", "veth9")
    assert done.returncode != 0
    assert "cannot use the device veth9 for a layer of type eth-dix: No such device; `ip link` shows" in done.stderr
