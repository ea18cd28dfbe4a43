"""The control messages byte by byte: `rust/client`, which C programs speak through, writes and reads the same ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import udp_settings

from ouroboros.qos import QOS_DATA, QoSSpec
from ouroboros.security import FlowSecurity
from ouroboros.settings import (
    CongestionAvoidPolicy,
    DhtConfig,
    DirConfig,
    DirectoryHashAlgo,
    DtConfig,
    EthConfig,
    EthDixSettings,
    LinkStateConfig,
    LinkStatePolicy,
    LocalSettings,
    RoutingConfig,
    UnicastConfig,
    UnicastSettings,
)
from ouroboros.wire import control as messages
from ouroboros.wire.control import (
    Accept,
    Alloc,
    Answer,
    BindProcess,
    BindProgram,
    BootstrapIpcp,
    ConnectIpcp,
    CreateIpcp,
    CreateName,
    Dealloc,
    DestroyIpcp,
    DestroyName,
    DisconnectIpcp,
    Done,
    EnrollIpcp,
    Failed,
    Granted,
    Hello,
    IpcpEntry,
    Join,
    ListIpcps,
    ListNames,
    NameEntry,
    NameSecurity,
    RegisterName,
    Request,
    UnbindProcess,
    UnbindProgram,
    UnregisterName,
    encode,
)

_FILE = Path(__file__).parents[1] / "vectors" / "control.txt"

_RAW = QoSSpec(2**32 - 1, 0, 0, 1, 1, 0, 2**32 - 1)

_UNICAST = UnicastSettings(
    DirectoryHashAlgo.SHA3_512,
    unicast=UnicastConfig(
        dt=DtConfig(4, 8, 255, RoutingConfig(ls=LinkStateConfig(LinkStatePolicy.ECMP, 1, 300, 70_000))),
        dir=DirConfig(dht=DhtConfig(10, 20, 86_400, 3, 3600)),
        cong_avoid=CongestionAvoidPolicy.NONE,
    ),
)

#: By the words that both sides know them by.
_VECTORS: dict[str, Request | Answer] = {
    "hello": Hello(messages.VERSION, "oecho", 2**48 - 1),
    "alloc": Alloc("naïve", _RAW, 20.0),
    "alloc without limit": Alloc("x", QOS_DATA, None),
    "accept": Accept(None, None),
    "accept with limit": Accept(None, 0.5),
    "join": Join("lab", _RAW, 3.0),
    "dealloc": Dealloc(70_000, 1),
    "create name": CreateName("n" * 200, "round-robin"),
    "create secured name": CreateName("x", "spillover", NameSecurity("/enc", None, "/key", None, "/crt", None)),
    "destroy name": DestroyName("x"),
    "list names": ListNames(),
    "register name": RegisterName("x", messages.FIRST_IPCP_ID),
    "unregister name": UnregisterName("x", messages.FIRST_IPCP_ID),
    "bind program": BindProgram("/bin/oecho", "x", True, ["-l", "--fast"]),
    "unbind program": UnbindProgram("oecho", "x"),
    "bind process": BindProcess(4711, "x"),
    "unbind process": UnbindProcess(4711, "x"),
    "create ipcp": CreateIpcp("lab0", "broadcast"),
    "bootstrap ipcp": BootstrapIpcp(messages.FIRST_IPCP_ID, "lab", LocalSettings(DirectoryHashAlgo.SHA3_512)),
    "bootstrap udp ipcp": BootstrapIpcp(1, "lab", udp_settings("192.0.2.1", 3435, [])),
    "bootstrap unicast ipcp": BootstrapIpcp(1, "campus", _UNICAST),
    "bootstrap ethernet ipcp": BootstrapIpcp(1, "segment", EthDixSettings(eth=EthConfig("eth0", 0xA001))),
    "enroll ipcp": EnrollIpcp(messages.FIRST_IPCP_ID, "campus"),
    "connect ipcp": ConnectIpcp(1, "Data Transfer", "b", QOS_DATA),
    "disconnect ipcp": DisconnectIpcp(1, "Management", "b"),
    "destroy ipcp": DestroyIpcp(1),
    "list ipcps": ListIpcps(),
    "answer: done": Done(None),
    "answer: id": Done(messages.FIRST_IPCP_ID),
    "answer: failed": Failed("FlowNameException", "nobody offers 'x'"),
    "answer: granted": Granted(7, QOS_DATA, 1, 1 << 20, name="naïve"),
    "answer: encrypted": Granted(
        7, QOS_DATA, 0, 1000, FlowSecurity("X25519 aes-256-gcm", 256, "clock", b"\x30"), 901, bytes(range(32)), "clock"
    ),
    "answer: names": Done([NameEntry("x", "spillover", ["oecho"], [4711], ["lab"])]),
    "answer: ipcps": Done([IpcpEntry(messages.FIRST_IPCP_ID, "lab0", "local", "operational", "lab", "SHA3_256")]),
}


def _recorded() -> dict[str, str]:
    lines = _FILE.read_text().splitlines()
    return dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("name", _VECTORS)
def test_a_message_has_the_recorded_bytes(name: str) -> None:
    # When this fails because a message changed: raise VERSION, change rust/client/src/message.rs, and record anew.
    assert encode(_VECTORS[name]).hex() == _recorded()[name]


def test_every_recorded_message_is_compared() -> None:
    assert set(_recorded()) == set(_VECTORS)
