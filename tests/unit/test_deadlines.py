"""An IPC process is asked when it wants to be called after it was called, and not in between: nothing may be missed."""

from __future__ import annotations

import pytest
from sim_world import toy
from unicast_world import COMPONENTS, Layer, line

from ouroboros.control.irm import Irm
from ouroboros.layers.agenda import earliest
from ouroboros.qos import QOS_RAW, QoSSpec
from ouroboros.wire.control import DestroyIpcp, DisconnectIpcp, KeepAliveIpcp, ProbeName, UnregisterName

RELIABLE = QoSSpec(loss=0)


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """Whatever the resource manager says is what all of its IPC processes say at that moment, and a node is not woken up
    later."""
    told, wakes = Irm.deadline, Irm.wake_at
    seen: list[float | None] = []

    def check(irm: Irm) -> float | None:
        when = told(irm)
        assert when == earliest(irm.flows.deadline(), *[ipcp.deadline() for ipcp in irm.ipcps.values()])
        seen.append(when)
        return when

    def check_wake(irm: Irm) -> float | None:
        when, due = wakes(irm), check(irm)
        assert due is None or (when is not None and when <= due)
        return when

    monkeypatch.setattr(Irm, "deadline", check)
    monkeypatch.setattr(Irm, "wake_at", check_wake)
    return seen


def test_no_deadline_of_an_ipc_process_is_missed_in_the_life_of_a_layer(checked: list[float | None]) -> None:
    layer = Layer(line(4), keepalive=1.0)
    layer.converge()
    layer.offer("clock", 0)
    client, server = layer.flow("clock", 3, 0, RELIABLE)
    client.write(b"hello")
    assert server.read() == b"hello"
    near, far = layer.nodes[3], layer.nodes[0]
    assert near.manage(ProbeName("clock", None, True, 2.0)).wait().value
    near.manage(KeepAliveIpcp(layer.ids[3], 5.0)).value  # noqa: B018 - or its error
    toys = [toy(node, name, "toys", id) for node, name, id in ((far, "a", layer.ids[0]), (near, "b", layer.ids[3]))]
    layer.connect_ipcp(near, toys[1], "Data Transfer", "a").wait().value  # noqa: B018
    near.program("late").alloc("nobody", QOS_RAW)
    layer.network.run(3.0)
    for component in COMPONENTS:
        layer.nodes[2].manage(DisconnectIpcp(layer.ids[2], component, "m1")).wait().value  # noqa: B018
    layer.network.run(30.0)
    far.manage(UnregisterName("clock", layer.ids[0])).value  # noqa: B018
    far.manage(DestroyIpcp(layer.ids[0])).wait().value  # noqa: B018
    layer.network.run(300.0)
    assert sum(when is not None for when in checked) > 200
