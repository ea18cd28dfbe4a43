"""Two nodes on loopback addresses: programs of one have flows with programs of the other."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from support import NodeProcess, until
from udp_nodes import FAR, NEAR, Nodes

from ouroboros import cli, irm
from ouroboros.dev import flow_alloc
from ouroboros.errors import FlowDownException, FlowNameException, FlowRefusedException, IpcpBootstrapError
from ouroboros.irm import IpcpConfig, IpcpType, Udp4Config
from ouroboros.qos import QOS_DATA, QOS_RAW, QoSSpec
from ouroboros.tools.irm import irm_main


@pytest.mark.parametrize("qos", [QOS_RAW, QoSSpec(loss=0), QOS_DATA])
def test_packets_go_both_ways(nodes: Nodes, qos: QoSSpec) -> None:
    near, far = nodes.flow(qos)
    with near, far:
        near.write(b"what time is it?")
        assert far.read() == b"what time is it?"
        far.write(b"noon")
        assert near.read() == b"noon"


def test_both_nodes_list_the_flow_with_the_other_one(nodes: Nodes, capsys: pytest.CaptureFixture[str]) -> None:
    near, far = nodes.flow()
    with near, far:
        for node, host in ((nodes.near, FAR), (nodes.far, NEAR)):
            with node.use():
                (info,) = irm.list_flows()
                assert (info.name, info.layer, info.peer) == ("clock", "net", "node")
                assert info.address == f"{host}:{nodes.port}"

        def listed() -> Any:
            with nodes.near.use():
                assert irm_main(["ipcp", "list", "--json"]) == 0
            (layer,) = (each for each in json.loads(capsys.readouterr().out) if each["name"] == "net0")
            return layer

        # What is counted of messages is shown within 100 ms.
        until(lambda: listed()["counters"]["requests_sent"] >= 1)
        layer = listed()
        assert layer["peers"] == [f"clock@{FAR}"]


def test_the_peer_is_told_that_a_flow_ended_and_gets_what_was_sent_before(nodes: Nodes) -> None:
    near, far = nodes.flow(QOS_DATA)
    with far:
        near.write(b"last words")
        near.dealloc()
        assert far.read() == b"last words"
        with pytest.raises(FlowDownException):
            far.read()


def test_nothing_is_left_of_flows_that_ended(nodes: Nodes) -> None:
    near, far = nodes.flow()
    near.dealloc()
    far.dealloc()
    for node in (nodes.near, nodes.far):
        with node.use():
            until(lambda: irm.list_flows() == [])


def test_a_name_that_is_not_registered_there_is_refused(nodes: Nodes) -> None:
    with nodes.near.use():
        assert irm_main(["ipcp", "peer", "name", "net0", "add", f"hidden@{FAR}"]) == 0
        with pytest.raises(FlowRefusedException, match=r"refused the flow to 'hidden' \(-1003 EIPCP\)"):
            flow_alloc("hidden")
        assert irm_main(["ipcp", "peer", "name", "net0", "del", f"hidden@{FAR}"]) == 0
        with pytest.raises(FlowNameException):
            flow_alloc("hidden")


def test_a_port_that_is_taken_cannot_be_had_and_nothing_is_left_of_the_attempt(nodes: Nodes) -> None:
    with nodes.near.use():
        conf = IpcpConfig(IpcpType.UDP4, udp4=Udp4Config(FAR, port=nodes.port))
        with pytest.raises(IpcpBootstrapError, match=f"cannot use {FAR} port {nodes.port} .* in use"):
            cli.autoboot("net1", IpcpType.UDP4, "other", conf)
        assert cli.list_ipcps(name="net1") == []


@pytest.mark.parametrize(
    ("ip", "text"),
    [
        ("255.255.255.255", "ip: '255.255.255.255' is not the address of one host everywhere"),
        ("224.0.0.1", "ip: '224.0.0.1' is not the address of one host everywhere"),
        # Of the loopback network, as the kernel knows.
        (
            "127.255.255.255",
            "cannot use 127.255.255.255 port 3435 for a UDP layer: it is the broadcast address of a network",
        ),
    ],
)
def test_an_address_that_no_host_can_have_is_refused_everywhere(
    node: NodeProcess, capsys: pytest.CaptureFixture[str], ip: str, text: str
) -> None:
    conf = IpcpConfig(IpcpType.UDP4, "net", udp4=Udp4Config(ip))
    with pytest.raises(IpcpBootstrapError, match=re.escape(text)):
        cli.autoboot("net0", IpcpType.UDP4, "net", conf)
    assert irm_main(["ipcp", "bootstrap", "type", "udp4", "name", "net0", "layer", "net", "ip", ip]) == 1
    assert text in capsys.readouterr().err
    assert irm.list_ipcps() == []


def test_a_layer_that_is_destroyed_ends_its_flows_and_the_peer_is_told(nodes: Nodes) -> None:
    near, far = nodes.flow()
    with near, far:
        with nodes.near.use():
            cli.destroy_ipcp("net0")
        for flow in (near, far):
            with pytest.raises(FlowDownException):
                flow.read()
