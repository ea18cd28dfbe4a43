"""The prototype with itself: what the other tests take for granted."""

from __future__ import annotations

import pytest
from interop.conftest import MakePrototype
from interop.hosts import ADDRESSES, Link, PrototypeHost, join

from ouroboros.lab import UnavailableError
from ouroboros.lab.prototype import Installation


@pytest.fixture
def server(stock_installation: Installation, make_prototype: MakePrototype, family: str) -> PrototypeHost:
    return make_prototype(stock_installation, "server", {})


@pytest.fixture
def client(
    stock_installation: Installation, make_prototype: MakePrototype, server: PrototypeHost, family: str
) -> PrototypeHost:
    addresses = ADDRESSES[family]
    client = make_prototype(
        stock_installation, "client", dict.fromkeys(("oping", "oecho", "ocbr", "theirs"), addresses.theirs)
    )
    try:
        join(client.namespace, server.namespace)
    except UnavailableError as why:
        pytest.skip(str(why))
    client.start(family, addresses.ours)
    server.start(family, addresses.theirs)
    return client


@pytest.mark.slow
def test_two_hosts_of_the_prototype_reach_each_other(client: PrototypeHost, server: PrototypeHost) -> None:
    server.serve("oping")
    assert "3 packets transmitted, 3 received" in client.run("oping", "-n", "oping", "-c", "3", "-i", "10").finish()[-2]


@pytest.mark.slow
def test_programs_that_the_test_directs_reach_each_other(client: PrototypeHost, server: PrototypeHost) -> None:
    receiver = server.program("theirs")
    sender = client.program()
    receiver.begin("accept", 20)
    spec = {"delay": 1000, "loss": 1, "ber": 1, "in_order": 0, "max_gap": 1000, "timeout": 120_000}
    flow = sender.do("alloc", "theirs", spec, 20)
    assert flow >= 0
    accepted, seen = receiver.answer()
    assert seen == {"bandwidth": 0, "availability": 0, **spec}
    # One at a time: the prototype's layer reorders.
    receiver.begin("echo", accepted, 10)
    sender.do("timeouts", flow, 5)
    for number in range(10):
        packet = bytes([number]) * 1000
        assert sender.do("write", flow, packet.hex()) == 1000
        assert sender.do("read", flow) == packet.hex()
    assert receiver.answer() == [10, 0]
    assert sender.do("dealloc", flow) == receiver.do("dealloc", accepted) == 0


@pytest.mark.slow
def test_link_loses_what_it_is_told_to_and_no_management(
    patched_installation: Installation, make_prototype: MakePrototype
) -> None:
    addresses = ADDRESSES["udp4"]
    client = make_prototype(patched_installation, "client", {"oping": addresses.near})
    server = make_prototype(patched_installation, "server", {})
    join(client.namespace, server.namespace)
    client.start("udp4", addresses.ours)
    server.start("udp4", addresses.theirs)
    server.serve("oping")
    link = Link(client, "udp4")
    link.set(loss=1)
    lost = client.run("oping", "-n", "oping", "-c", "3", "-i", "10").finish()
    assert "3 packets transmitted, 0 received" in lost[-1]
    assert link.set(loss=0)["lost"] == 3
    link.set(loss=0.05, reorder=0.05, duplicate=0.05)
    lossy = client.run("oping", "-n", "oping", "-q", "data", "-c", "100", "-i", "10").finish()
    # Even without its worst faults the prototype does not always get all of them through.
    assert "100 packets transmitted" in lossy[-2]
    counted = link.set()
    assert min(counted[fault] for fault in ("lost", "reordered", "duplicated")) > 0
