"""`irm save`: what is written is read back as what it was, and a node that is configured by it is the node that wrote it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any

import hypothesis.strategies as st
import msgspec
from hypothesis import example, given, settings

from ouroboros.control.configuration import (
    Configuration,
    IpcpTable,
    NameTable,
    Program,
    ShareTable,
    parse,
)
from ouroboros.control.saving import text_of
from ouroboros.control.shares import Kind
from ouroboros.errors import OuroborosError
from ouroboros.layers.impairment import parse as parse_impairment
from ouroboros.qos import NAMED_SPECS, QOS_RAW
from ouroboros.settings import (
    TYPES,
    BroadcastSettings,
    CongestionAvoidPolicy,
    DhtConfig,
    DirConfig,
    DirectoryHashAlgo,
    DtConfig,
    EthConfig,
    EthDixSettings,
    EthLlcSettings,
    LinkStateConfig,
    LinkStatePolicy,
    LocalSettings,
    RoutingConfig,
    Strangers,
    Udp4Config,
    Udp4Settings,
    Udp6Config,
    Udp6Settings,
    UnicastConfig,
    UnicastSettings,
    Users,
)
from ouroboros.testing.sim import Network, Node
from ouroboros.wire.control import (
    BindProcess,
    BindProgram,
    BootstrapIpcp,
    ChangePeers,
    ConnectIpcp,
    CreateIpcp,
    CreateName,
    DisconnectIpcp,
    EnrollIpcp,
    ImpairIpcp,
    IpcpEntry,
    KeepAliveIpcp,
    ListIpcps,
    NameSecurity,
    RegisterName,
    Request,
    Save,
)

WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=6).filter(str.isprintable)
POLICIES = st.sampled_from(["round-robin", "spillover"])
ARGUMENTS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5), max_size=3)
PATHS = WORDS.map(lambda word: f"/{word}")
PROGRAM_NAMES = WORDS.filter(lambda word: "/" not in word)
ENROLL = st.one_of(
    st.sampled_from([("anyone",), ("certified",), ("nobody",)]),
    st.lists(WORDS, min_size=1, max_size=3, unique=True).map(tuple),
)
UNICAST = st.builds(
    UnicastSettings,
    st.sampled_from(DirectoryHashAlgo),
    unicast=st.builds(
        UnicastConfig,
        dt=st.builds(
            DtConfig,
            addr_size=st.just(4),
            eid_size=st.just(8),
            max_ttl=st.integers(1, 255),
            mtu=st.integers(128, 65535),
            routing=st.builds(
                RoutingConfig,
                ls=st.builds(LinkStateConfig, st.sampled_from(LinkStatePolicy), *[st.integers(1, 600)] * 3),
            ),
        ),
        dir=st.builds(
            DirConfig,
            dht=st.builds(
                DhtConfig,
                st.integers(1, 10),
                st.integers(1, 20),
                st.integers(10, 86400),
                st.integers(3, 3600),
                st.integers(3, 3600),
            ),
        ),
        cong_avoid=st.sampled_from(CongestionAvoidPolicy),
        enroll=ENROLL,
    ),
)
IMPAIRMENTS = st.sampled_from([None, "none", "loss=1%,delay=10ms", "partition,seed=7", "rate=10M"])
LOCAL = st.builds(
    LocalSettings,
    st.sampled_from(DirectoryHashAlgo),
    IMPAIRMENTS.map(lambda text: None if text is None else parse_impairment(text).text),
)
UDP = st.builds(
    Udp4Settings,
    udp4=st.builds(
        Udp4Config,
        st.sampled_from(["192.0.2.1", "127.0.0.1"]),
        port=st.integers(1, 65535),
        peers=st.lists(st.sampled_from(["a@192.0.2.7", "*@192.0.2.8:9", "a b@192.0.2.9"]), unique=True).map(tuple),
    ),
)

UDP6 = st.builds(Udp6Settings, udp6=st.builds(Udp6Config, st.just("2001:db8::1"), port=st.integers(1, 65535)))
DIX = st.builds(
    EthDixSettings,
    st.sampled_from(DirectoryHashAlgo),
    eth=st.builds(EthConfig, st.just("eth0"), st.integers(0x0600, 0xFFFE)),
)
LLC = st.builds(EthLlcSettings, st.sampled_from(DirectoryHashAlgo), eth=st.just(EthConfig("eth0")))
#: Of types that have nothing else.
SHIMS: dict[str, st.SearchStrategy[Any]] = {"local": LOCAL, "udp4": UDP, "udp6": UDP6, "eth-dix": DIX, "eth-llc": LLC}


@st.composite
def names(draw: st.DrawFn) -> NameTable:
    programs = draw(st.dictionaries(PROGRAM_NAMES, st.none() | ARGUMENTS.map(tuple), max_size=3))
    tables = [Program(f"/bin/{name}", args) for name, args in programs.items()]
    paths = draw(st.none() | st.lists(st.none() | PATHS, min_size=6, max_size=6).filter(any))
    security = None if paths is None else NameSecurity(*paths)
    tables.sort(key=lambda program: program.args is None)
    return NameTable(draw(WORDS), draw(POLICIES), tuple(tables), security)


@st.composite
def members(draw: st.DrawFn, name: str, layer: str) -> IpcpTable:
    """Of a unicast layer."""
    enrol = draw(st.just("") | WORDS)
    neighbours = tuple(draw(st.lists(WORDS, max_size=3, unique=True)))
    qualities = {each: draw(st.sampled_from(list(NAMED_SPECS))) for each in neighbours if draw(st.booleans())}
    return IpcpTable(
        "unicast",
        name,
        "" if enrol else layer,
        UnicastSettings() if enrol else draw(UNICAST),
        draw(st.booleans()),
        tuple(draw(st.lists(WORDS, max_size=2, unique=True))),
        enrol,
        neighbours,
        tuple(draw(st.lists(WORDS, max_size=2, unique=True))),
        {each: word for each, word in qualities.items() if word != "raw"},
        draw(st.none() | st.floats(0.05, 3600)),
        {each: tuple(draw(st.lists(WORDS, min_size=1, max_size=2, unique=True))) for each in neighbours[:1]},
    )


@st.composite
def ipcps(draw: st.DrawFn) -> tuple[IpcpTable, ...]:
    tables = []
    for name in draw(st.lists(WORDS, max_size=4, unique=True)):
        kind = draw(st.sampled_from([*TYPES, "created"]))
        registered = tuple(draw(st.lists(WORDS, max_size=2, unique=True)))
        match kind:
            case "broadcast":
                tables.append(IpcpTable(kind, name, name, BroadcastSettings(), draw(st.booleans())))
            case "unicast":
                tables.append(draw(members(name, name)))
            case "created":
                type = draw(st.sampled_from(list(TYPES)))
                tables.append(IpcpTable(type, name, settings=TYPES[type]()))
            case _:
                tables.append(IpcpTable(kind, name, name, draw(SHIMS[kind]), register=registered))
    # TOML keeps those of one type together.
    types = [table.type for table in tables]
    return tuple(sorted(tables, key=lambda table: types.index(table.type)))


SHARES = st.builds(ShareTable, st.sampled_from(Kind), st.none() | st.integers(0, 9), st.none() | st.integers(9, 99))
CONFIGURATIONS = st.builds(
    Configuration,
    st.lists(names(), max_size=3, unique_by=lambda name: name.name).map(tuple),
    ipcps(),
    st.lists(SHARES, max_size=3, unique_by=lambda share: share.kind).map(tuple),
    st.builds(Strangers, flows=st.integers(1, 9), grace=st.integers(1, 3600)) | st.just(Strangers()),
    st.builds(Users, join=st.lists(WORDS, max_size=3)),
)


@settings(max_examples=150)
@given(CONFIGURATIONS, st.lists(st.text(max_size=9), max_size=2))
def test_what_is_written_is_read_back_as_it_was(said: Configuration, notes: list[str]) -> None:
    assert parse(text_of(said, notes)) == said


# --- whole nodes


def apply(said: Configuration, node: Node) -> None:
    """As `irmd` does with its file. What is for later is tried until it is done."""
    waiting: list[Callable[[], Generator[Request, Any, None]]] = []

    def ask(request: Request) -> Any:
        return node.manage(request).wait().value

    errors = list(said.apply(ask, lambda name: None, lambda title, steps: waiting.append(steps)))
    assert errors == [None] * len(errors)
    for share in said.shares:
        node.irm.shares.change(share.kind, share.user, share.users)
    node.irm.bound_strangers(said.strangers)
    node.irm.bound_users(said.users)
    for _ in range(len(waiting) ** 2 + 1):
        for steps in waiting[:]:
            with contextlib.suppress(OuroborosError):
                follow(steps(), ask)
                waiting.remove(steps)
    assert not waiting


def follow(steps: Generator[Request, Any, None], ask: Callable[[Request], Any]) -> None:
    answer = None
    with contextlib.suppress(StopIteration):
        while True:
            answer = ask(steps.send(answer))


def saved(node: Node) -> str:
    text = node.manage(Save()).value
    assert isinstance(text, str)
    return text


NAMES = st.sampled_from(["x", "y y", "a", "campus", 'quo"te'])
IPCPS = st.sampled_from(["a", "b", "net0", "lab0"])
OPTIONAL_ARGUMENTS = st.none() | st.lists(st.sampled_from(["-l", "two words", ""]), max_size=2)
QUALITIES = st.sampled_from([QOS_RAW, NAMED_SPECS["data"]])
#: What is asked of a node, with the name of an IPC process in the place of its id.
REQUESTS = st.one_of(
    st.builds(CreateName, NAMES, POLICIES),
    st.builds(CreateName, NAMES, POLICIES, st.just(NameSecurity(server_key="/k", client_certificate="/c"))),
    st.builds(
        lambda name, program, args: BindProgram(f"/bin/{program}", name, args is not None, args or []),
        NAMES,
        st.sampled_from(["sh", "ls"]),
        OPTIONAL_ARGUMENTS,
    ),
    st.builds(CreateIpcp, IPCPS, st.sampled_from(["local", "unicast", "broadcast", "udp4"])),
    st.builds(lambda ipcp, told: BootstrapIpcp(ipcp, "lab", told), IPCPS, LOCAL),
    st.builds(lambda ipcp, told: BootstrapIpcp(ipcp, "campus", told), IPCPS, UNICAST),
    st.builds(lambda ipcp: BootstrapIpcp(ipcp, "net", Udp4Settings(udp4=Udp4Config("127.0.0.1"))), IPCPS),
    st.builds(lambda ipcp: BootstrapIpcp(ipcp, "chat", BroadcastSettings()), IPCPS),
    st.builds(lambda ipcp, peer: ChangePeers(ipcp, [peer], []), IPCPS, st.sampled_from(["a@192.0.2.1", "b@192.0.2.2"])),
    st.builds(ImpairIpcp, IPCPS, st.sampled_from(["none", "loss=1%"])),
    st.builds(BindProcess, IPCPS, NAMES),
    st.builds(RegisterName, NAMES, IPCPS),
    st.builds(EnrollIpcp, IPCPS, NAMES),
    st.builds(KeepAliveIpcp, IPCPS, st.sampled_from([0.25, 10.0])),
    st.builds(ConnectIpcp, IPCPS, st.just("Management"), NAMES, st.just(QOS_RAW), st.just("") | NAMES),
    st.builds(ConnectIpcp, IPCPS, st.just("Data Transfer"), NAMES, QUALITIES, st.just("") | NAMES),
    st.builds(DisconnectIpcp, IPCPS, st.just("Data Transfer"), NAMES),
)


def with_id(request: Any, node: Node) -> Any:
    """The request with the id of the IPC process that it names; None when there is none."""
    entries = node.manage(ListIpcps()).value
    assert isinstance(entries, list)
    ids = {each.name: each.id for each in entries if isinstance(each, IpcpEntry)}
    for field in ("ipcp", "pid"):
        if isinstance(named := getattr(request, field, None), str):
            return msgspec.structs.replace(request, **{field: ids[named]}) if named in ids else None
    return request


#: A member that others know by all its names, and one that enrolls with it.
_TWO_MEMBERS = [
    CreateIpcp("net0", "udp4"),
    BootstrapIpcp("net0", "net", Udp4Settings(udp4=Udp4Config("127.0.0.1"))),  # type: ignore[arg-type]
    CreateIpcp("a", "unicast"),
    BootstrapIpcp("a", "campus", UnicastSettings(unicast=UnicastConfig(enroll=("anyone",)))),  # type: ignore[arg-type]
    *(BindProcess("a", name) for name in ("a", "campus", "x")),  # type: ignore[arg-type]
    *(RegisterName(name, "net0") for name in ("a", "campus")),  # type: ignore[arg-type]
    CreateIpcp("b", "unicast"),
    EnrollIpcp("b", "a"),  # type: ignore[arg-type]
    ConnectIpcp("b", "Management", "a", QOS_RAW),  # type: ignore[arg-type]
    ConnectIpcp("b", "Data Transfer", "a", NAMED_SPECS["data"]),  # type: ignore[arg-type]
    CreateName("y y", "spillover"),
    RegisterName("y y", "b"),  # type: ignore[arg-type]
]


_TWO_MEMBERS_SAVED = """\
[name.a]
lb = "round-robin"

[name.campus]
lb = "round-robin"

[name.x]
lb = "round-robin"

[name."y y"]

[udp4.net0]
bootstrap = "net"
ip = "127.0.0.1"

[unicast.a]
bootstrap = "campus"
autobind = true
bind = ["x"]

[unicast.b]
enrol = "a"
conn_qos = { a = "data" }
reg = ["y y"]
"""


@settings(max_examples=60, deadline=None)
@example(_TWO_MEMBERS)
@example([*_TWO_MEMBERS, DisconnectIpcp("b", "Data Transfer", "a"), BindProcess("b", "campus")])  # type: ignore[arg-type]
@given(st.lists(REQUESTS, max_size=25))
def test_a_node_that_is_configured_by_what_another_saved_is_that_node(requests: list[Any]) -> None:
    node = Network(1).add_node("n")
    for request in requests:
        if (ready := with_id(request, node)) is not None:
            with contextlib.suppress(OuroborosError):
                node.manage(ready).wait(30).value  # noqa: B018 - or its error
    text = saved(node)
    if requests == _TWO_MEMBERS:
        assert text == _TWO_MEMBERS_SAVED
    again = Network(2).add_node("n")
    apply(parse(text), again)
    # What a file does not say is in comments.
    assert saved(again) == "".join(line for line in text.splitlines(keepends=True) if line[0] != "#").lstrip("\n")
