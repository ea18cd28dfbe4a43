"""The configuration file: every key, every error, and what it makes of a node. A real IRM, no files but the example."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from irm_world import World
from support import udp_settings

from ouroboros.control.configuration import (
    Configuration,
    ConfigurationError,
    IpcpTable,
    NameTable,
    Offered,
    Program,
    ShareTable,
    Steps,
    parse,
)
from ouroboros.control.shares import Kind
from ouroboros.errors import IpcpEnrollError
from ouroboros.settings import (
    BroadcastSettings,
    DhtConfig,
    DirConfig,
    DirectoryHashAlgo,
    DtConfig,
    LinkStateConfig,
    LinkStatePolicy,
    LocalSettings,
    RoutingConfig,
    Strangers,
    UnicastConfig,
    UnicastSettings,
    Users,
)
from ouroboros.wire.control import (
    BindProcess,
    BindProgram,
    ConnectIpcp,
    CreateName,
    DiscoverLayers,
    EnrollIpcp,
    IpcpEntry,
    KeepAliveIpcp,
    ListIpcps,
    ListNames,
    NameEntry,
    OfferEntry,
    Request,
)

EXAMPLE = Path(__file__).parents[2] / "contrib" / "irmd.toml"


def find_nothing(name: str) -> None:
    return None


def apply(world: World, text: str) -> list[str]:
    """Apply a configuration; the errors. Nothing is left for later."""
    return [str(error) for error in parse(text).apply(world.manage, find_nothing, never) if error is not None]


def never(title: str, steps: Callable[[], Steps]) -> None:
    raise AssertionError(title)


def names(world: World) -> dict[str, NameEntry]:
    entries = world.manage(ListNames())
    assert isinstance(entries, list)
    return {entry.name: entry for entry in entries}


def ipcps(world: World) -> dict[str, IpcpEntry]:
    entries = world.manage(ListIpcps())
    assert isinstance(entries, list)
    return {entry.name: entry for entry in entries}


# --- names


def test_an_empty_file_is_a_configuration() -> None:
    assert parse("") == parse("# nothing\n") == Configuration()


def test_a_name_needs_no_keys() -> None:
    assert parse("[name.clock]").names == (NameTable("clock", "spillover"),)


@pytest.mark.parametrize(
    ("word", "policy"), [("spill", "spillover"), ("spillover", "spillover"), ("round-robin", "round-robin")]
)
def test_lb_is_the_policy(word: str, policy: str) -> None:
    assert parse(f'[name.clock]\nlb = "{word}"').names[0].policy == policy


def test_prog_binds_programs_and_args_makes_the_first_of_them_start_on_demand() -> None:
    (table,) = parse('[name.clock]\nprog = ["/bin/a", "b", "c"]\nargs = ["--utc  -i 1", ""]').names
    assert table.programs == (Program("/bin/a", ("--utc", "-i", "1")), Program("b", ()), Program("c"))


def test_a_quoted_name_may_have_dots_and_blanks() -> None:
    (table,) = parse('[name."a b.c"]').names
    assert (table.name, table.title) == ("a b.c", '[name."a b.c"]')


# --- IPC processes


def test_an_ipcp_without_keys_is_only_created() -> None:
    assert parse("[local.l0]\n[broadcast.b0]").ipcps == (
        IpcpTable("local", "l0", settings=LocalSettings()),
        IpcpTable("broadcast", "b0", settings=BroadcastSettings()),
    )


def test_every_key_of_a_local_ipcp() -> None:
    text = '[local.l0]\nbootstrap = "lab"\nreg = ["a", "b"]\nhash = "SHA3_512"'
    assert parse(text).ipcps == (
        IpcpTable("local", "l0", "lab", LocalSettings(DirectoryHashAlgo.SHA3_512), register=("a", "b")),
    )


def test_every_key_of_a_broadcast_ipcp() -> None:
    text = '[broadcast.b0]\nbootstrap = "news"\nautobind = true\nconn = ["b1"]\nkeepalive = 2'
    assert parse(text).ipcps == (
        IpcpTable("broadcast", "b0", "news", BroadcastSettings(), autobind=True, neighbours=("b1",), keepalive=2.0),
    )
    (table,) = parse('[broadcast.b1]\nenrol = "b0"\nconn_over = { b0 = ["net", "net6"] }').ipcps
    assert table.over == {"b0": ("net", "net6")}
    assert parse('[broadcast.b1]\nenrol = "b0"').ipcps == (
        IpcpTable("broadcast", "b1", "", BroadcastSettings(), enrol="b0", neighbours=("b0",)),
    )


def test_autobind_binds_a_name_that_is_also_the_layers_once() -> None:
    world = World()
    assert apply(world, '[broadcast.news]\nbootstrap = "news"\nautobind = true') == []
    assert names(world).keys() == {"news"}


def test_a_layer_over_udp_has_an_address_and_peers() -> None:
    text = """
        [udp4.u0]
        bootstrap = "net"
        ip = "192.0.2.1"
        port = 4000
        peers = ["clock@192.0.2.7"]
        reg = ["a"]
    """
    udp = udp_settings("192.0.2.1", 4000, ["clock@192.0.2.7"])
    assert parse(text).ipcps == (IpcpTable("udp4", "u0", "net", udp, register=("a",)),)


def test_every_key_of_a_unicast_ipcp_as_the_prototype_writes_it() -> None:
    text = """
        [unicast.u0]
        bootstrap = "campus"
        autobind = true
        addr_size = 4
        eid_size = 8
        max_ttl = 30
        addr-auth = "flat"
        routing = "link-state"
        ls_t_recalc = 1
        ls_t_update = 2
        ls_t_timeo = 8
        congestion = "mb-ecn"
        directory = "dht"
        dht_alpha = 4
        dht_k = 5
        dht_t_expiry = 600
        dht_t_refresh = 60
        dht_t_replicate = 30
        hash = "SHA3_384"
        reg = ["clock"]
    """
    config = UnicastConfig(
        DtConfig(4, 8, 30, RoutingConfig(ls=LinkStateConfig(LinkStatePolicy.SIMPLE, 1, 2, 8))),
        DirConfig(dht=DhtConfig(4, 5, 600, 60, 30)),
    )
    settings = UnicastSettings(DirectoryHashAlgo.SHA3_384, unicast=config)
    assert parse(text).ipcps == (IpcpTable("unicast", "u0", "campus", settings, autobind=True, register=("clock",)),)
    assert parse(text.replace("link-state", "link_state").replace("expiry", "expire")) == parse(text)


def test_a_unicast_layer_has_an_mtu() -> None:
    (table,) = parse('[unicast.u0]\nbootstrap = "campus"\nmtu = 1400').ipcps
    assert table.settings == UnicastSettings(unicast=UnicastConfig(DtConfig(mtu=1400)))


@pytest.mark.parametrize(
    ("text", "enrol", "neighbours"),
    [
        ('enrol = "a"', "a", ("a",)),
        ('enrol = "a"\nbootstrap = "n"', "a", ("a",)),
        ('enrol = "a"\nconnect = false', "a", ()),
        ('enrol = "a"\nconn = ["b", "c"]', "a", ("b", "c")),
        ('bootstrap = "n"\nconn = ["b"]', "", ("b",)),
    ],
)
def test_whom_a_member_enrolls_with_and_connects_to(text: str, enrol: str, neighbours: tuple[str, ...]) -> None:
    (table,) = parse(f"[unicast.u0]\n{text}").ipcps
    assert (table.enrol, table.neighbours) == (enrol, neighbours)
    assert bool(table.layer) is not bool(enrol)


@pytest.mark.parametrize(
    ("text", "offered"),
    [
        ("any = true", Offered()),
        ('any = "n"\nany_over = ["lan", "lan2"]\nreg = ["x"]', Offered("n", ("lan", "lan2"))),
        ("any = true\nconnect = false", Offered(connects=False)),
        ('any = false\nenrol = "a"', None),
    ],
)
def test_a_member_can_enter_whatever_layer_others_offer(text: str, offered: Offered | None) -> None:
    (table,) = parse(f"[unicast.u0]\n{text}").ipcps
    assert (table.offered, table.layer) == (offered, "")


def test_a_member_is_told_how_often_to_send_keepalives_before_it_connects() -> None:
    (table,) = parse('[unicast.u0]\nenrol = "a"\nkeepalive = 1').ipcps
    asked: list[Request] = []

    def ask(request: Request) -> Any:
        asked.append(request)
        return [] if isinstance(request, ListIpcps) else 7

    table.apply(ask, lambda name: None, lambda title, steps: None)
    assert KeepAliveIpcp(7, 1.0) in asked


def test_an_empty_address_stands_for_none() -> None:
    (table,) = parse('[udp4.u0]\nbootstrap = "net"\nip = "192.0.2.1"\ndns = ""').ipcps
    assert table.settings == udp_settings("192.0.2.1")


def test_autobind_false_binds_nothing() -> None:
    assert parse('[broadcast.b0]\nbootstrap = "news"\nautobind = false').ipcps[0].autobind is False


def test_shares_of_users_are_for_the_node_itself() -> None:
    found = parse("[share.connections]\nuser = 10\n[share.flows]\nusers = 0")
    assert found.shares == (ShareTable(Kind.CONNECTIONS, user=10), ShareTable(Kind.FLOWS, users=0))
    assert not found.names
    assert not found.ipcps


# --- errors

SECURITY = [f"{side}_{kind}_file" for side in ("server", "client") for kind in ("enc", "crt", "key")]

ERRORS = {
    "[name.clock": "no TOML: .*end of document",
    "[name.clock]\nlb = fast": "no TOML: .*line 2",
    f"a = {'[' * 100_000}": "no TOML",
    f"a = {'1' * 10_000}": "no TOML",
    "[names.clock]": r"\[names\] unknown table: known are \[name.<name>\], \[local",
    "clock = 1": r"\[clock\] unknown table",
    "name = 1": r"name: not a table; write \[name.<name>\]",
    "[[local]]": r"local: not a table",
    '[name]\nlb = "spill"': r"\[name\] lb: a key without a table; write \[name.<name>\]",
    '[local]\nbootstrap = "lab"': r"\[local\] bootstrap: a key without a table",
    '[name."a b"]\nprogs = []': r'\[name."a b"\] progs: unknown key; known are prog, args, lb',
    '[name.a]\n"x y" = 1': r'\[name.a\] "x y": unknown key',
    '[name.""]': r'\[name.""\] the name is empty',
    f"[name.{'x' * 256}]": r"\] the name has 256 bytes",
    '[name."a\\tb"]': "control characters",
    '[name.a]\nlb = "fast"': r'\[name.a\] lb: must be "spill" or "round-robin", not "fast"',
    "[name.a]\nlb = 1": r'lb: must be "spill" or "round-robin", not 1',
    '[name.a]\nprog = "b"': r'\[name.a\] prog: must be an array of strings, not "b"',
    "[name.a]\nprog = [1]": r"prog: must be an array of strings, not \[1\]",
    "[name.a]\nargs = 1979-05-27": r"args: must be an array of strings, or of arrays of strings, not .*1979",
    '[name.a]\nprog = [""]': r"\[name.a\] prog: the program name is empty",
    '[name.a]\nprog = ["/bin/"]': "prog: the program name is empty",
    '[name.a]\nprog = ["./b"]': r"\[name.a\] prog: './b' must be an absolute path, or a base name",
    '[name.a]\nprog = ["/bin\\u0000/b"]': "prog: .* must be an absolute path",
    '[name.a]\nprog = ["/bin/b", "b"]': r"\[name.a\] prog: 'b' is there twice",
    '[name.a]\nprog = ["b"]\nargs = ["", ""]': r"\[name.a\] args: has 2 entries for 1 programs in prog",
    '[name.a]\nprog = ["b"]\nargs = ["\\u0000"]': "args: has a null character",
    **{
        f'[name.a]\n{key} = "x"': rf"\[name.a\] {key}: the path of a file that protects flows must be absolute"
        for key in SECURITY
    },
    '[local.""]': r'\[local.""\] the name of an IPC process is empty',
    "[local.a]\nlayer = 1": r"\[local.a\] layer: unknown key; known are bootstrap, bind, reg, hash",
    "[local.a]\nautobind = true": r"\[local.a\] autobind: unknown key",
    "[local.a]\nbootstrap = true": r"\[local.a\] bootstrap: must be the name of a layer, not true",
    '[local.a]\nbootstrap = ""': r"\[local.a\] bootstrap: the layer name is empty",
    '[local.a]\nbootstrap = "b"\nhash = "MD5"': r"\[local.a\] hash: must be one of SHA3_224.*, not .MD5",
    '[local.a]\nbootstrap = "b"\nreg = "c"': r"\[local.a\] reg: must be an array of strings",
    '[local.a]\nbootstrap = "b"\nreg = [""]': r"\[local.a\] reg: the name is empty",
    '[local.a]\nbootstrap = "b"\nreg = ["c", "c"]': r"\[local.a\] reg: 'c' is there twice",
    '[local.a]\nreg = ["c"]': r"\[local.a\] reg: .* add bootstrap",
    '[udp4.a]\nbootstrap = "b"': r"\[udp4.a\] ip: give the address of this host",
    '[udp4.a]\nbootstrap = "b"\nip = ""': r"\[udp4.a\] ip: give the address of this host",
    '[udp4.a]\nbootstrap = "b"\nip = "192.0.2.1"\nport = ""': r"\[udp4.a\] port: must be a whole number",
    '[local.a]\nimpair = ""': r"\[local.a\] impair: unknown key ''",
    '[local.a]\nbootstrap = "b"\nhash = ""': r"\[local.a\] hash: must be one of SHA3_224",
    '[udp4.a]\nbootstrap = "b"\nip = "x"': r"\[udp4.a\] ip: must be an IP address, not x",
    '[udp4.a]\nbootstrap = "b"\nip = "255.255.255.255"': r"\[udp4.a\] ip: '255.255.255.255' is not the address of one host",
    '[udp4.a]\nbootstrap = "b"\nip = "192.0.2.1"\npeers = ["c@255.255.255.255"]': r"peer: '255.255.255.255' is not the",
    '[udp6.a]\nbootstrap = "b"\nip = "192.0.2.1"': r"\[udp6.a\] ip: must be an IPv6 address, not '192.0.2.1'",
    '[udp4.a]\nbootstrap = "b"\nip = "192.0.2.1"\nport = 0': r"\[udp4.a\] port: must be from 1 to 65535, not 0",
    '[udp4.a]\nbootstrap = "b"\nip = "192.0.2.1"\nport = "1"': r"\[udp4.a\] port: must be a whole number",
    '[udp4.a]\nbootstrap = "b"\nip = "192.0.2.1"\npeers = ["c"]': r"\[udp4.a\] peer: 'c' is no NAME@ADDRESS",
    '[udp4.a]\nbootstrap = "b"\nip = "192.0.2.1"\ndns = "192.0.2.9"': r"\[udp4.a\] dns: .* with `peer NAME@ADDRESS`",
    '[udp4.a]\nhash = "SHA3_256"': r"\[udp4.a\] hash: unknown key",
    '[udp4.a]\nreg = ["c"]': r"\[udp4.a\] reg: .* add bootstrap",
    "[broadcast.a]\nautobind = 1": r"\[broadcast.a\] autobind: must be true or false, not 1",
    '[broadcast.a]\nreg = ["c"]': r"\[broadcast.a\] reg: a broadcast layer holds no names",
    '[broadcast.a]\nhash = "SHA3_256"': r"\[broadcast.a\] hash: unknown key; known are bootstrap, bind, autobind",
    '[broadcast.a]\nconn = ["b"]': r"\[broadcast.a\] conn: only a member of a layer has neighbours; add enrol or bootstrap",
    '[broadcast.a]\nenrol = "b"\nconn_qos = {b = "data"}': r"\[broadcast.a\] conn_qos: unknown key",
    "[share.names]": r"\[share.names\] unknown share: known are connections, processes, requests, flows, answers",
    "[share.flows]\nall = 1": r"\[share.flows\] all: unknown key; known are user, users",
    "[share.flows]\nuser = -1": r"\[share.flows\] user: must be a whole number from 0 on, not -1",
    '[share.flows]\nusers = "9"': r"\[share.flows\] users: must be a whole number from 0 on, not .9",
    "[share.flows]\nuser = 3\nusers = 2": r"\[share.flows\] user: one user cannot have more \(3\) than all of them \(2\)",
    "[local.a]\n[broadcast.a]": r"\[broadcast.a\] has the name of \[local.a\]",
    '[local.a]\nbootstrap = "l"\n[local.b]\nbootstrap = "l"': r"\[local.b\] bootstrap: \[local.a\] is in layer 'l'",
}


@pytest.mark.parametrize("text", ERRORS, ids=[text[:40] for text in ERRORS])
def test_an_error_names_the_table_and_the_key(text: str) -> None:
    with pytest.raises(ConfigurationError, match=ERRORS[text]):
        parse(text)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('conn = ["a"]', r"conn: only a member of a layer has neighbours; add enrol or bootstrap"),
        ('enrol = "a"\nconn = ["b"]\nconnect = false', r"conn: .*leave one of them out"),
        ('reg = ["a"]', r"reg: .* add bootstrap or enrol"),
        ('enrol = ""', r"enrol: the name to enroll with is empty"),
        ('any = true\nenrol = "a"', r"any: takes the layer that there is, and enrol says which: leave one of them out"),
        ('any = "n"\nbootstrap = "n"', r"any: takes the layer that there is, and bootstrap says which"),
        ('any = ""', r"any: the layer name is empty"),
        ("any = 1", r"any: must be true, false or the name of a layer, not 1"),
        ('any_over = ["n"]', r"any_over: says where to ask for layers, and any whether to: add any = true"),
        ('any = true\nany_over = "n"', r"any_over: must be an array of strings"),
        ('any = true\nconn = ["b"]\nconnect = false', r"conn: .*leave one of them out"),
        ('bootstrap = "n"\naddr_size = 2', r"addr: flat addresses have 4 bytes, not 2"),
        ("dht_t_expire = 60\ndht_t_expiry = 60", r"dht_t_expiry: says the same as dht_t_expire"),
        ('routing = "rip"', r"routing: must be one of link_state, lfa, ecmp"),
        ("dht_k = 21", r"dht_k: must be from 1 to 20, not 21"),
        ("enroll = []", r"enroll: has no names in it: write nobody if that is meant"),
        ('enroll = ["alice", "anyone"]', r"enroll: has anyone among names"),
        ("enroll = 1", r"enroll: must be 'anyone', 'certified', 'nobody', or an array of names, not 1"),
        ('enroll = [""]', r"enroll: has a name that is empty"),
        ('enrol = "a"\nconn_qos = { b = "data" }', r"conn_qos: 'b' is no neighbour that it is to connect to"),
        ('enrol = "a"\nconn_qos = { a = "fast" }', r"conn_qos: 'a' must have one of raw, .*, not \"fast\""),
        ('enrol = "a"\nconn_qos = "data"', r"conn_qos: must be a table of neighbours, each with one of raw"),
        ('enrol = "a"\nconn_over = { b = ["n"] }', r"conn_over: 'b' is no neighbour that it is to connect to"),
        (
            'enrol = "a"\nconn_over = { a = "n" }',
            r"conn_over: must be a table of neighbours, each with an array of layers",
        ),
        ('enrol = "a"\nconn_over = { a = [""] }', r"conn_over: the layer to connect over is empty"),
        ('bind = ["a", "a"]', r"bind: 'a' is there twice"),
        ("keepalive = 0", r"keepalive: 0.0 seconds; 0.05 to 3600 are allowed"),
        ("keepalive = nan", r"keepalive: nan seconds; 0.05 to 3600 are allowed"),
        ('keepalive = "fast"', r'keepalive: must be a number of seconds, not "fast"'),
    ],
)
def test_what_a_member_of_a_unicast_layer_cannot_be(text: str, error: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"\[unicast.u\] {error}"):
        parse(f"[unicast.u]\n{text}")


@pytest.mark.parametrize(
    ("text", "enroll"),
    [
        ("", ("anyone",)),
        ('enroll = "anyone"', ("anyone",)),
        ('enroll = "nobody"', ("nobody",)),
        ('enroll = "certified"', ("certified",)),
        ('enroll = ["certified"]', ("certified",)),
        ('enroll = ["alice", "bob", "alice"]', ("alice", "bob")),
    ],
)
def test_who_may_enroll_in_a_layer_of_the_file(text: str, enroll: tuple[str, ...]) -> None:
    (table,) = parse(f'[unicast.u]\nbootstrap = "n"\n{text}').ipcps
    assert table.settings == UnicastSettings(unicast=UnicastConfig(enroll=enroll))


def test_neighbours_of_the_file_and_the_qos_to_each() -> None:
    text = '[unicast.u]\nenrol = "a"\nconn = ["b", "c"]\nconn_qos = { b = "data", c = "raw" }\nbind = ["x"]'
    (table,) = parse(text).ipcps
    assert (table.neighbours, table.qualities, table.bind) == (("b", "c"), {"b": "data"}, ("x",))


def test_layers_of_the_file_over_each_of_which_there_is_a_connection() -> None:
    text = '[unicast.u]\nenrol = "a"\nconn = ["a", "b", "c"]\nconn_over = { a = ["n", "m", "n"], b = [], c = ["k"] }'
    (table,) = parse(text).ipcps
    assert table.over == {"a": ("n", "m"), "c": ("k",)}
    found = [IpcpEntry(1, "u", "unicast", "operational", "", "")]
    asked, steps = [], table._be_member()
    with contextlib.suppress(StopIteration):
        request = next(steps)
        while True:
            asked.append(request)
            request = steps.send(found if isinstance(request, ListIpcps) else None)
    assert [each.over for each in asked if isinstance(each, EnrollIpcp)] == [("n", "m")]
    over = [
        (each.name, each.over) for each in asked if isinstance(each, ConnectIpcp) and each.component == "Management"
    ]
    assert over == [("a", "n"), ("a", "m"), ("b", ""), ("c", "k")]


@pytest.mark.parametrize("refusing", [EnrollIpcp, ConnectIpcp])
def test_of_members_that_offer_a_layer_the_next_is_asked_when_one_refuses(
    refusing: type[EnrollIpcp | ConnectIpcp],
) -> None:
    (table,) = parse('[unicast.u]\nany = "campus"\nany_over = ["lan"]').ipcps
    offers = [OfferEntry("unicast", "campus", member, "lan", "02:00:00:00:00:0a") for member in "aab"]
    others = [OfferEntry("unicast", "other", "c", "lan", ""), OfferEntry("broadcast", "campus", "d", "lan", "")]
    answers: dict[type[Request], object] = {
        ListIpcps: [IpcpEntry(1, "u", "unicast", "boot", "", "")],
        DiscoverLayers: [*others, *offers],
    }
    asked, steps = [], table._be_member()
    with contextlib.suppress(StopIteration):
        request = next(steps)
        while True:
            asked.append(request)
            if isinstance(request, refusing) and request.name == "a":
                request = steps.throw(IpcpEnrollError("not here"))
            else:
                request = steps.send(answers.get(type(request)))
    assert [each.over for each in asked if isinstance(each, DiscoverLayers)] == [("lan",)]
    # A member stays what it has become.
    enrolled = ["a", "b"] if refusing is EnrollIpcp else ["a"]
    assert [each.name for each in asked if isinstance(each, EnrollIpcp)] == enrolled
    connected = [(each.name, each.component, each.over) for each in asked if isinstance(each, ConnectIpcp)]
    assert connected[-2:] == [("b", "Management", "lan"), ("b", "Data Transfer", "lan")]


def test_arguments_with_blanks_are_arrays() -> None:
    (name,) = parse('[name.a]\nprog = ["/b", "/c", "/d"]\nargs = ["-x  1", ["two words", ""]]').names
    assert [program.args for program in name.programs] == [("-x", "1"), ("two words", ""), None]


def test_layers_of_two_types_may_have_one_name() -> None:
    assert len(parse('[local.a]\nbootstrap = "l"\n[broadcast.b]\nbootstrap = "l"').ipcps) == 2


@given(st.text())
def test_any_text_is_a_configuration_or_a_configuration_error(text: str) -> None:
    for each in (text, f"[name.a]\nprog = {text}", f"[local.{text}]", f'[name."{text}"]'):
        with contextlib.suppress(ConfigurationError):
            parse(each)


# --- application


def test_the_example_makes_what_it_says() -> None:
    world = World()
    assert apply(world, EXAMPLE.read_text()) == []
    found = names(world)
    assert {name: (entry.policy, entry.programs, entry.layers) for name, entry in found.items()} == {
        "oping": ("round-robin", ["oping"], ["lab"]),
        "clock": ("spillover", ["clockd"], ["lab"]),
        "news0": ("round-robin", [], ["lab"]),
        "news": ("round-robin", [], ["lab"]),
    }
    assert {name: (entry.type, entry.layer, entry.state) for name, entry in ipcps(world).items()} == {
        "lab0": ("local", "lab", "operational"),
        "news0": ("broadcast", "news", "operational"),
    }
    binding = world.irm.registry.names["clock"].programs["clockd"]
    assert (binding.path, binding.auto, binding.args) == ("/usr/local/bin/clockd", True, ["--utc", "--interval", "1"])
    assert world.irm.ipcps[ipcps(world)["news0"].id].names == {"news0", "news"}


def test_the_policy_is_that_of_the_file_wherever_the_name_stands_in_it() -> None:
    world = World()
    assert apply(world, '[local.l0]\nbootstrap = "lab"\nreg = ["a"]\n[name.a]\nlb = "round-robin"') == []
    assert names(world)["a"].policy == "round-robin"


def test_files_that_protect_a_name_are_those_of_the_file() -> None:
    world = World()
    text = "\n".join(f'{key} = "/etc/{key}"' for key in SECURITY)
    assert apply(world, f"[name.a]\n{text}") == []
    security = world.irm.registry.security_of("a")
    assert security is not None
    assert [*msgspec.structs.asdict(security).values()] == [f"/etc/{key}" for key in SECURITY]


def test_an_ipcp_can_only_be_created() -> None:
    world = World()
    assert apply(world, "[local.l0]") == []
    assert ipcps(world)["l0"].state == "boot"


def test_the_hash_of_a_layer() -> None:
    world = World()
    assert apply(world, '[local.l0]\nbootstrap = "lab"\nhash = "SHA3_384"') == []
    assert ipcps(world)["l0"].hash == "SHA3_384"


def test_a_program_is_looked_up_by_its_base_name() -> None:
    world = World()
    configuration = parse('[name.a]\nprog = ["served", "later", "/opt/given"]\nargs = ["-x"]')
    found = {"served": "/usr/bin/served"}
    assert [*configuration.apply(world.manage, found.get, never)] == [None]
    paths = {program: binding.path for program, binding in world.irm.registry.names["a"].programs.items()}
    # One that others start is known by its base name: it may be installed later.
    assert paths == {"served": "/usr/bin/served", "later": "/later", "given": "/opt/given"}


def test_a_program_to_start_must_be_there() -> None:
    (error,) = apply(World(), '[name.a]\nprog = ["clockd"]\nargs = [""]')
    assert error.startswith("[name.a] prog: there is no program 'clockd' to start")


def test_applying_twice_changes_nothing() -> None:
    world = World()
    assert apply(world, EXAMPLE.read_text()) == []
    before = names(world), ipcps(world)
    assert apply(world, EXAMPLE.read_text()) == []
    assert (names(world), ipcps(world)) == before


def test_applying_again_adds_what_is_new_and_leaves_the_rest() -> None:
    world = World()
    assert apply(world, '[name.a]\nprog = ["one"]\n[local.l0]') == []
    world.manage(BindProgram("/bin/two", "a", True, ["-x"]))
    world.manage(CreateName("other", "round-robin"))
    more = '[name.a]\nlb = "round-robin"\nprog = ["one", "two", "three"]\n[local.l0]\nbootstrap = "lab"\nreg = ["a"]'
    assert apply(world, more) == []
    found = names(world)
    assert (found["a"].policy, found["a"].programs, found["a"].layers) == (
        "spillover",
        ["one", "three", "two"],
        ["lab"],
    )
    assert world.irm.registry.names["a"].programs["two"].args == ["-x"]
    assert "other" in found


def test_an_ipcp_that_is_another_is_an_error_and_stays() -> None:
    world = World()
    assert apply(world, '[local.l0]\nbootstrap = "lab"') == []
    (error,) = apply(world, '[local.l0]\nbootstrap = "elsewhere"')
    assert error.startswith("[local.l0] the node has an IPC process 'l0', local, in layer 'lab'")
    (error,) = apply(world, "[broadcast.l0]")
    assert error.startswith("[broadcast.l0] the node has an IPC process 'l0', local")
    assert ipcps(world)["l0"].layer == "lab"


def test_an_error_of_the_node_names_the_table_and_the_others_are_brought_about() -> None:
    world = World()
    assert apply(world, '[local.first]\nbootstrap = "lab"') == []
    errors = apply(world, '[name.a]\n[local.second]\nbootstrap = "lab"\n[local.third]\nbootstrap = "lab3"')
    assert len(errors) == 1
    assert errors[0].startswith("[local.second] this node is in local layer 'lab' already")
    assert "a" in names(world)
    assert ipcps(world)["third"].layer == "lab3"


def test_a_layer_that_a_table_could_not_join_leaves_no_ipcp_behind() -> None:
    world = World()
    assert apply(world, '[local.first]\nbootstrap = "lab"') == []
    assert len(apply(world, '[local.second]\nbootstrap = "lab"')) == 1
    assert set(ipcps(world)) == {"first"}


def test_autobind_is_the_binding_that_irm_makes() -> None:
    world, by_hand = World(), World()
    apply(world, '[broadcast.b0]\nbootstrap = "news"\nautobind = true')
    apply(by_hand, '[broadcast.b0]\nbootstrap = "news"')
    for name in ("b0", "news"):
        by_hand.manage(BindProcess(ipcps(by_hand)["b0"].id, name))
    assert names(world) == names(by_hand)


def test_impairment_of_a_local_layer_is_taken_and_checked() -> None:
    table = parse('[local.bad]\nbootstrap = "bad"\nimpair = "loss=1%"').ipcps[0]
    assert table.settings == LocalSettings(impair="loss=1%")
    with pytest.raises(ConfigurationError, match=r"\[local.bad\] impair: .*loss must look like 1%"):
        parse('[local.bad]\nbootstrap = "bad"\nimpair = "loss=often"')


# --- users


def test_layers_that_users_join_are_those_of_the_file() -> None:
    assert parse("").users == Users()
    assert parse('[users]\njoin = ["chat", "hall", "chat"]').users == Users(join=("chat", "hall"))


# --- strangers


def test_shares_of_strangers_are_those_of_the_file_and_the_others_as_ever() -> None:
    assert parse("").strangers == Strangers()
    found = parse("[strangers]\nunproven = 0\ntimeout = 5000\nanswer = 8\n").strangers
    assert found == Strangers(unproven=0, timeout=5000, answer=8)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("strangers = 1", r"strangers: not a table; write \[strangers\]"),
        ("users = 1", r"users: not a table; write \[users\]"),
        ('[users]\njoin = "chat"', r"\[users\] join: must be an array of names of layers, not \"chat\""),
        ("[users]\nleave = 1", r"\[users\] leave: unknown key; known are join"),
        ("[strangers]\nflow = 1", r"\[strangers\] flow: unknown key; known are flows, flows_of_one, memory, unproven"),
        ("[strangers]\nunproven = -1", r"\[strangers\] unproven: must be from 0"),
        ("[strangers]\ntimeout = 10", r"\[strangers\] timeout: must be from 1000"),
        ('[strangers]\ngrace = "long"', r"\[strangers\] grace: must be a whole number"),
    ],
)
def test_a_share_that_cannot_be_is_named(text: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        parse(text)
