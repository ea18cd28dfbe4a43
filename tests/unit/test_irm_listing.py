"""The listings of the `irm` command: the frames of the C prototype, and JSON with every field."""

from __future__ import annotations

import json

from ouroboros.irm import DirectoryHashAlgo, FlowInfo, IpcpInfo, IpcpType, LoadBalancePolicy, NameInfo
from ouroboros.qos import QoSSpec
from ouroboros.tools.irm_listing import flow_table, ipcp_table, json_text, name_table, qos_words

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
        },
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
