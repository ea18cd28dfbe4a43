"""The listings of the `irm` command: the frames of the C prototype, and JSON with every field."""

from __future__ import annotations

import json
from typing import get_args

import msgspec
import pytest

from ouroboros.irm import (
    ConnectionInfo,
    DirectoryHashAlgo,
    FlowInfo,
    IpcpInfo,
    IpcpType,
    LoadBalancePolicy,
    NameInfo,
    RouteInfo,
)
from ouroboros.qos import QoSSpec
from ouroboros.tools.irm_listing import flow_table, ipcp_table, json_text, layer_text, name_table, qos_words
from ouroboros.wire.control import Details

IPCPS = [
    IpcpInfo(17582, IpcpType.LOCAL, "l1", "local", "operational", DirectoryHashAlgo.SHA3_256),
    IpcpInfo(17646, IpcpType.UNICAST, "u1", "", "boot"),
]
NAMES = [NameInfo("foo"), NameInfo("bar", LoadBalancePolicy.SPILL)]


def test_ipcps_as_the_c_prototype_lists_them() -> None:
    assert ipcp_table(IPCPS).splitlines() == [
        "+---------+----------------------+------------+----------------------+",
        "|     pid |                 name |       type |                layer |",
        "+---------+----------------------+------------+----------------------+",
        "|   17582 |                   l1 |      local |                local |",
        "|   17646 |                   u1 |    unicast |        Not enrolled. |",
        "+---------+----------------------+------------+----------------------+",
    ]


def test_a_layer_that_failed_is_shown_with_the_reason() -> None:
    failed = IpcpInfo(17700, IpcpType.UDP4, "u0", "net", "failed", reason="out of luck")
    assert (
        ipcp_table([failed]).splitlines()[3]
        == "|   17700 |                   u0 |       udp4 | net failed: out of luck |"
    )


def test_names_as_the_c_prototype_lists_them() -> None:
    assert name_table(NAMES).splitlines() == [
        "+----------------------------------------------------+----------------------+",
        "|                                               name |  load-balance policy |",
        "+----------------------------------------------------+----------------------+",
        "|                                                foo |          round-robin |",
        "|                                                bar |            spillover |",
        "+----------------------------------------------------+----------------------+",
    ]


def test_a_long_name_widens_its_column() -> None:
    lines = name_table([*NAMES, NameInfo("x" * 60)]).splitlines()
    assert {len(line) for line in lines} == {len(lines[0])}
    assert f"| {'x' * 60} |          round-robin |" in lines


def test_flows_name_the_node_as_the_other_end_of_a_broadcast_flow() -> None:
    flows = [FlowInfo(64, "clock", (4001, 4002), QoSSpec(loss=0)), FlowInfo(65, "broadcast", (4003, 0), QoSSpec())]
    assert flow_table(flows).splitlines()[3:5] == [
        "|      64 |                          clock |      4001 |      4002 |               loss=0 |",
        "|      65 |                      broadcast |      4003 |      node |                  raw |",
    ]


def test_flows_with_another_node_name_its_address() -> None:
    flow = FlowInfo(64, "clock", (4001, 0), QoSSpec(), "net", "192.0.2.7:3435", "prototype")
    assert flow_table([flow]).splitlines()[3] == (
        "|      64 |                          clock |      4001 | 192.0.2.7:3435 |                  raw |"
    )


def test_qos_words_are_what_differs_from_the_defaults() -> None:
    assert qos_words(QoSSpec()) == "raw"
    assert qos_words(QoSSpec(delay=50, loss=0)) == "delay=50 loss=0"


def test_json_of_ipcps_has_all_fields_and_words_for_enums() -> None:
    assert json.loads(json_text(IPCPS)) == [
        {
            "pid": 17582,
            "name": "l1",
            "type": "local",
            "layer": "local",
            "state": "operational",
            "dir_hash_algo": "SHA3_256",
            "members": 0,
            "lost": 0,
            "impair": "",
            "delivered": 0,
            "duplicated": 0,
            "reordered": 0,
            "address": "",
            "peers": [],
            "counters": {},
            "reason": "",
            "connections": [],
            "routes": [],
            "registered": [],
            "kept": 0,
            "enroll": [],
        },
        {
            "pid": 17646,
            "name": "u1",
            "type": "unicast",
            "layer": "",
            "state": "boot",
            "dir_hash_algo": None,
            "members": 0,
            "lost": 0,
            "impair": "",
            "delivered": 0,
            "duplicated": 0,
            "reordered": 0,
            "address": "",
            "peers": [],
            "counters": {},
            "reason": "",
            "connections": [],
            "routes": [],
            "registered": [],
            "kept": 0,
            "enroll": [],
        },
    ]


MEMBER = IpcpInfo(
    17646,
    IpcpType.UNICAST,
    "u1",
    "campus",
    "operational",
    address="8b.8c.d4.1f",
    connections=(
        ConnectionInfo("Management", "u2", "c2.02.f4.8d", "node", "up", 12.4, "net4"),
        ConnectionInfo("Data Transfer", "u3", "", "", "missing", 0.0),
    ),
    routes=(
        RouteInfo("c2.02.f4.8d", 1, ("c2.02.f4.8d",), "node"),
        RouteInfo("01.02.03.04", 2, ("a", "b"), "prototype"),
    ),
    registered=("clock", "oping"),
    kept=3,
    enroll=("alice", "bob"),
)


def test_a_member_of_a_unicast_layer_with_its_neighbours_and_routes() -> None:
    assert layer_text(MEMBER).splitlines() == [
        "u1 is member 8b.8c.d4.1f of unicast layer campus (operational)",
        "Connections:",
        "+----------------------+-------------+---------------+-----------+-----------+---------+----------+",
        "|            neighbour |     address |     component |      node |      over |   state |      age |",
        "+----------------------+-------------+---------------+-----------+-----------+---------+----------+",
        "|                   u2 | c2.02.f4.8d |    Management |      node |      net4 |      up |     12 s |",
        "|                   u3 |             | Data Transfer |           |           | missing |      0 s |",
        "+----------------------+-------------+---------------+-----------+-----------+---------+----------+",
        "Members that can be reached:",
        "+-------------+-----------+------+-------------+",
        "|      member |      node | hops |   by way of |",
        "+-------------+-----------+------+-------------+",
        "| c2.02.f4.8d |      node |    1 | c2.02.f4.8d |",
        "| 01.02.03.04 | prototype |    2 |         a b |",
        "+-------------+-----------+------+-------------+",
        "May enroll: alice, bob",
        "Names of this node: clock, oping; kept for the layer: 3",
    ]
    assert json.loads(json_text([MEMBER]))[0]["routes"][1] == {
        "address": "01.02.03.04",
        "hops": 2,
        "via": ["a", "b"],
        "peer": "prototype",
    }


def test_a_member_that_is_alone_says_so() -> None:
    alone = IpcpInfo(17646, IpcpType.UNICAST, "u1", "campus", "operational", address="8b.8c.d4.1f")
    assert layer_text(alone).splitlines()[1:] == [
        "No other member can be reached.",
        "Names of this node: none; kept for the layer: 0",
    ]


def test_json_of_names_and_flows() -> None:
    clock = NameInfo("clock", LoadBalancePolicy.SPILL, programs=("clockd",), processes=(4001,), layers=("lab",))
    assert json.loads(json_text([clock])) == [
        {
            "name": "clock",
            "pol_lb": "spillover",
            "server_sec": {"enc": "", "key": "", "crt": ""},
            "client_sec": {"enc": "", "key": "", "crt": ""},
            "programs": ["clockd"],
            "processes": [4001],
            "layers": ["lab"],
        }
    ]
    (flow,) = json.loads(json_text([FlowInfo(64, "clock", (4001, 4002), QoSSpec(loss=0))]))
    assert flow["flow_id"] == 64
    assert flow["pids"] == [4001, 4002]
    assert flow["qos"]["loss"] == 0


def test_json_of_nothing_is_an_empty_list() -> None:
    assert json.loads(json_text([])) == []


@pytest.mark.parametrize("kind", get_args(Details))
def test_what_a_type_says_of_itself_is_in_the_info_of_programs(kind: type[msgspec.Struct]) -> None:
    public = msgspec.structs.asdict(IPCPS[0])
    for field, default in msgspec.structs.asdict(kind()).items():
        assert public[field] == default, field
