"""Nodes of the C prototype: what its commands are told for what a laboratory asks, and what is said where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import pytest

from ouroboros.lab import Lab, LabError, UnavailableError
from ouroboros.lab.mixed import Prototype
from ouroboros.lab.prototype import VARIABLE, Machine, find_installation
from ouroboros.qos import QOS_RAW
from ouroboros.settings import (
    AnySettings,
    DtConfig,
    EthConfig,
    EthDixSettings,
    LinkStateConfig,
    RoutingConfig,
    Udp4Config,
    Udp4Settings,
    UnicastConfig,
    UnicastSettings,
)
from ouroboros.wire.control import (
    BindProcess,
    BootstrapIpcp,
    ConnectIpcp,
    CreateIpcp,
    CreateName,
    EnrollIpcp,
    ListIpcps,
    RegisterName,
)


class Recorder:
    """In the place of a machine: notes what its `irm` is told, and fails as often as it is said to."""

    def __init__(self, failures: int = 0) -> None:
        self.said: list[str] = []
        self.places: Mapping[str, str] = {}
        self._failures = failures

    def irm(self, *words: str) -> None:
        self.said.append(" ".join(words))
        if self._failures:
            self._failures -= 1
            raise LabError("it failed")

    def find(self, names: Mapping[str, str]) -> None:
        self.places = dict(names)


def node(recorder: Recorder) -> Prototype:
    return Prototype("b", cast(Machine, recorder))


def begin(there: Prototype, name: str, type: str, layer: str, settings: AnySettings | None = None) -> int:
    ipcp: int = there.do(CreateIpcp(name, type))
    there.do(BootstrapIpcp(ipcp, layer, settings))
    return ipcp


def test_a_member_begins_and_joins_by_the_words_of_its_command() -> None:
    told = Recorder()
    there = node(told)
    ipcp: int = there.do(CreateIpcp("net1.b", "unicast"))
    there.do(EnrollIpcp(ipcp, "net1.a"))
    there.do(BindProcess(ipcp, "net1.b"))
    for component in ("Management", "Data Transfer"):
        there.do(ConnectIpcp(ipcp, component, "net1.a", QOS_RAW))
    there.do(CreateName("clock", "round-robin"))
    there.do(RegisterName("clock", ipcp))
    assert told.said == [
        "bind program true name net1.a",
        "ipcp enroll type unicast name net1.b dst net1.a",
        "bind ipcp net1.b name net1.b",
        "ipcp connect name net1.b dst net1.a component mgmt",
        "ipcp connect name net1.b dst net1.a component dt",
        "bind program true name clock",
        "name register clock ipcp net1.b",
    ]


def test_all_its_links_over_udp_are_one_layer_that_knows_all_neighbours() -> None:
    told = Recorder()
    there = node(told)
    udp = [
        begin(there, name, "udp4", name, Udp4Settings(udp4=Udp4Config("10.255.0.1", peers=peers)))
        for name, peers in (("a-b", ()), ("b-c", ("net1.c@10.0.0.6",)), ("b-e", ("net1.e@10.0.0.8",)))
    ]
    begin(there, "b-d", "eth-dix", "b-d", EthDixSettings(eth=EthConfig("veth2")))
    assert udp == [udp[0]] * 3
    assert told.said == [
        "ipcp bootstrap type udp4 name links layer links ip 10.255.0.1",
        "ipcp bootstrap type eth-dix name b-d layer b-d dev veth2",
    ]
    assert told.places == {"net1.c": "10.0.0.6", "net1.e": "10.0.0.8"}


def test_settings_of_a_layer_are_words_of_its_command() -> None:
    told = Recorder()
    link_state = LinkStateConfig(t_recalc=1, t_update=2, t_timeo=8)
    settings = UnicastSettings(unicast=UnicastConfig(dt=DtConfig(routing=RoutingConfig(ls=link_state))))
    begin(node(told), "net1.b", "unicast", "net1", settings)
    assert told.said[0].startswith("ipcp bootstrap type unicast name net1.b layer net1 ")
    for words in ("ls_t_recalc 1", "ls_t_update 2", "ls_t_timeo 8", "routing link_state", "directory DHT", "ttl 60"):
        assert f" {words}" in told.said[0]
    assert "mtu" not in told.said[0]
    for unicast in (UnicastConfig(enroll=("ann",)), UnicastConfig(DtConfig(mtu=1400))):
        with pytest.raises(LabError, match=r"leave (enroll|mtu) out"):
            begin(node(told), "net1.b", "unicast", "net1", UnicastSettings(unicast=unicast))


def test_it_begins_again_when_it_did_not_find_its_own_process() -> None:
    told = Recorder(failures=2)
    begin(node(told), "hall.b", "broadcast", "hall")
    assert told.said == ["ipcp bootstrap type broadcast name hall.b layer hall"] * 3
    with pytest.raises(LabError, match="it failed"):
        begin(node(Recorder(failures=3)), "hall.b", "broadcast", "hall")


def test_what_it_does_not_say_is_an_error_that_names_the_way() -> None:
    with pytest.raises(LabError, match=r"node b has the C prototype, .* lab\['b'\]\.execute\('irm', \.\.\.\)"):
        node(Recorder()).do(ListIpcps())


@pytest.mark.parametrize("clock", ["real", "virtual"])
def test_other_clocks_refuse_it(clock: str) -> None:
    with pytest.raises(LabError, match="node b: the C prototype runs in namespaces only: take clock='namespaces'"):
        Lab("a - b(stack=c)", clock=clock).start()


def test_a_machine_without_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with pytest.raises(UnavailableError, match=f"no complete C prototype: {tmp_path}/sbin/irmd is missing"):
        Lab("a - b(stack=c)", clock="namespaces").start()
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(UnavailableError, match=f"no C prototype is installed: set {VARIABLE} to the prefix of one"):
        find_installation(search_path=False)


def test_a_machine_that_has_it_on_its_path_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("sbin/irmd", "sbin/ipcpd-udp4", "bin/oping"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "sbin"))
    found = find_installation()
    assert (found.daemons, found.tools) == (tmp_path / "sbin", tmp_path / "bin")
    assert set(found.environment()) == {"PATH", "LD_LIBRARY_PATH", "LC_ALL"}
