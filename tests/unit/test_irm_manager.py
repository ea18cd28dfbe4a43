"""Management of a node: every request, what it is answered when it is wrong, and who may make it."""

from __future__ import annotations

import pytest
from irm_world import OWNER, World, new_irm

from ouroboros.errors import (
    BindError,
    IpcpBootstrapError,
    IpcpCreateError,
    NameError,
    OuroborosError,
    UnsupportedError,
)
from ouroboros.layers.effects import CloseMember, Join, MarkDead, OpenBroadcast, Release
from ouroboros.qos import QOS_RAW_NO_ERRORS, QoSSpec
from ouroboros.settings import BroadcastSettings, DirectoryHashAlgo, LocalSettings
from ouroboros.wire.control import (
    FIRST_IPCP_ID,
    Accept,
    BindProcess,
    BindProgram,
    BootstrapIpcp,
    CreateIpcp,
    CreateName,
    Dealloc,
    DestroyIpcp,
    DestroyName,
    FlowEntry,
    Hello,
    IpcpEntry,
    ListFlows,
    ListIpcps,
    ListNames,
    NameEntry,
    RegisterName,
    Request,
    UnbindProcess,
    UnbindProgram,
    UnregisterName,
)
from ouroboros.wire.control import Join as JoinRequest

OTHER = OWNER + 1


@pytest.fixture
def world() -> World:
    return World()


def names(world: World) -> list[NameEntry]:
    listed = world.manage(ListNames())
    assert isinstance(listed, list)
    return listed


def ipcps(world: World) -> list[IpcpEntry]:
    listed = world.manage(ListIpcps())
    assert isinstance(listed, list)
    return listed


def make_ipcp(world: World, name: str, type: str, layer: str | None = None) -> int:
    id = world.manage(CreateIpcp(name, type))
    assert isinstance(id, int)
    if layer is not None:
        assert world.manage(BootstrapIpcp(id, layer)) == id
    return id


# --- names


def test_created_names_are_listed(world: World) -> None:
    world.manage(CreateName("b", "round-robin"))
    world.manage(CreateName("a", "spillover"))
    assert {(name.name, name.policy) for name in names(world)} == {("b", "round-robin"), ("a", "spillover")}


def test_a_destroyed_name_is_listed_no_more(world: World) -> None:
    world.manage(CreateName("x", "spillover"))
    world.manage(DestroyName("x"))
    assert names(world) == []


@pytest.mark.parametrize(
    ("request_", "error", "text"),
    [
        (CreateName("", "spillover"), NameError, "the name is empty"),
        (CreateName("x" * 256, "spillover"), NameError, "has 256 bytes in UTF-8; at most 255 are allowed"),
        (CreateName("x", "fastest"), NameError, "choose round-robin or spillover"),
        (DestroyName("nix"), NameError, "there is no name 'nix' on this node; `irm name list` shows the names"),
        (RegisterName("nix", FIRST_IPCP_ID), NameError, "there is no name 'nix'"),
        (RegisterName("there", 7), IpcpCreateError, "there is no IPC process 7; `irm ipcp list` shows them"),
        (UnregisterName("there", 7), IpcpCreateError, "there is no IPC process 7; `irm ipcp list` shows them"),
        (BindProgram("bin/x", "x", False, []), BindError, "the path of a program must be absolute, not 'bin/x'"),
        (BindProgram("", "x", False, []), BindError, "must be absolute"),
        (BindProgram("/bin/x", "", False, []), NameError, "the name is empty"),
        (BindProgram("/bin/", "x", False, []), NameError, "the program name is empty"),
        (BindProgram("/b\0n/x", "x", True, []), BindError, "null character"),
        (BindProgram("/bin/x", "x", True, ["a", "\0"]), BindError, "null character"),
        (UnbindProgram("x", "there"), BindError, "program 'x' is not bound to 'there'; give its base name"),
        (UnbindProgram("x", "nix"), NameError, "there is no name 'nix'"),
        (BindProcess(99, "x"), BindError, "no process 99 uses this node; bind its program instead, or start it first"),
        (UnbindProcess(99, "there"), BindError, "no process 99 uses this node"),
        (CreateIpcp("", "local"), NameError, "the name of an IPC process is empty"),
        (
            CreateIpcp("l", "quantum"),
            IpcpCreateError,
            "unknown type 'quantum': choose one of local, unicast, broadcast",
        ),
        (CreateIpcp("there", "local"), IpcpCreateError, "there is an IPC process 'there' already; choose another name"),
        (BootstrapIpcp(7, "lab"), IpcpCreateError, "there is no IPC process 7"),
        (BootstrapIpcp(FIRST_IPCP_ID, ""), NameError, "the layer name is empty"),
        (
            BootstrapIpcp(FIRST_IPCP_ID, "lab", BroadcastSettings()),
            IpcpBootstrapError,
            "IPC process 'there' is of type local, its settings of broadcast",
        ),
        (DestroyIpcp(7), IpcpCreateError, "there is no IPC process 7; `irm ipcp list` shows them"),
        (Hello(1, "x", 1), UnsupportedError, "Hello is no request for the IRM"),
    ],
)
def test_a_wrong_request_is_refused_with_a_text_that_helps_and_changes_nothing(
    world: World, request_: Request, error: type[OuroborosError], text: str
) -> None:
    world.manage(CreateName("there", "spillover"))
    make_ipcp(world, "there", "local")
    before = names(world), ipcps(world)
    with pytest.raises(error) as raised:
        world.manage(request_)
    assert text in str(raised.value)
    assert (names(world), ipcps(world)) == before


def test_the_limit_of_names_is_told_to_whoever_wants_one_more() -> None:
    world = World(name_limit=1)
    world.manage(CreateName("x", "spillover"))
    with pytest.raises(NameError, match="the node has its limit of 1 names; destroy one"):
        world.manage(CreateName("y", "spillover"))
    server = world.program("server")
    assert world.failed(world.accept(server, name="y")).error == "FlowNameException"
    assert server.waiting == set()


def test_programs_that_accept_under_ever_new_names_do_not_fill_the_node_up() -> None:
    world = World(embedded=True, name_limit=10)
    world.manage(CreateName("kept", "spillover"))
    for number in range(100):
        process = world.program(f"worker-{number}")
        assert world.answer(world.accept(process, name=f"reply-{number}" if number % 2 else None)) is None
        world.kill(process)
    assert len(names(world)) == 10
    assert "kept" in {name.name for name in names(world)}


# --- bindings


def test_bindings_are_listed_with_the_name_they_make(world: World) -> None:
    world.manage(BindProgram("/bin/server", "x", False, []))
    server, other = world.program("server"), world.program("other")
    world.manage(BindProcess(other.pid, "x"))
    assert names(world) == [NameEntry("x", "round-robin", ["server"], [server.pid, other.pid], [])]
    world.manage(UnbindProcess(server.pid, "x"))
    world.manage(UnbindProgram("server", "x"))
    assert names(world) == [NameEntry("x", "round-robin", [], [other.pid], [])]


def test_a_process_that_is_not_bound_cannot_be_unbound(world: World) -> None:
    world.manage(CreateName("x", "spillover"))
    server = world.program("server")
    with pytest.raises(BindError, match=rf"process {server.pid} \(server\) is not bound to 'x'"):
        world.manage(UnbindProcess(server.pid, "x"))


def test_an_ipc_process_is_bound_and_unbound_by_its_id(world: World) -> None:
    ipcp = make_ipcp(world, "l0", "local")
    world.manage(BindProcess(ipcp, "x"))
    assert [name.name for name in names(world)] == ["x"]
    world.manage(UnbindProcess(ipcp, "x"))
    with pytest.raises(BindError, match="IPC process 'l0' is not bound to 'x'"):
        world.manage(UnbindProcess(ipcp, "x"))


def test_a_destroyed_name_is_bound_to_no_ipc_process(world: World) -> None:
    ipcp = make_ipcp(world, "l0", "local")
    world.manage(BindProcess(ipcp, "x"))
    world.manage(DestroyName("x"))
    with pytest.raises(BindError, match="not bound"):
        world.manage(UnbindProcess(ipcp, "x"))


def test_a_process_with_an_impossible_program_name_is_not_let_in(world: World) -> None:
    for program in ("", "x" * 256, "a\nb"):
        with pytest.raises(NameError, match="program name"):
            world.irm.process_arrived(1, OWNER, program)
    assert 1 not in world.irm.registry.processes


# --- IPC processes and layers


def test_ids_of_ipc_processes_are_never_used_twice(world: World) -> None:
    first = make_ipcp(world, "a", "local")
    world.manage(DestroyIpcp(first))
    assert [first, make_ipcp(world, "a", "local")] == [FIRST_IPCP_ID, FIRST_IPCP_ID + 1]


def test_an_ipc_process_is_in_boot_until_it_is_bootstrapped(world: World) -> None:
    ipcp = make_ipcp(world, "l0", "local")
    assert ipcps(world) == [IpcpEntry(ipcp, "l0", "local", "boot", "", "SHA3_256")]
    world.manage(BootstrapIpcp(ipcp, "lab", LocalSettings(DirectoryHashAlgo.SHA3_512)))
    assert ipcps(world) == [IpcpEntry(ipcp, "l0", "local", "operational", "lab", "SHA3_512")]


def test_a_second_bootstrap_is_refused_and_the_first_stands(world: World) -> None:
    ipcp = make_ipcp(world, "l0", "local", "lab")
    with pytest.raises(IpcpBootstrapError, match="IPC process 'l0' is in layer 'lab' already"):
        world.manage(BootstrapIpcp(ipcp, "other"))
    assert ipcps(world)[0].layer == "lab"


def test_a_failed_bootstrap_can_be_tried_again(world: World) -> None:
    ipcp = make_ipcp(world, "l0", "local")
    with pytest.raises(IpcpBootstrapError):
        world.manage(BootstrapIpcp(ipcp, "lab", LocalSettings(impair="loss")))
    world.manage(BootstrapIpcp(ipcp, "lab", LocalSettings(DirectoryHashAlgo.SHA3_224)))
    assert ipcps(world)[0].state == "operational"


def test_a_node_is_in_a_layer_once(world: World) -> None:
    make_ipcp(world, "l0", "local", "lab")
    with pytest.raises(NameError, match="this node is in local layer 'lab' already"):
        make_ipcp(world, "l1", "local", "lab")
    make_ipcp(world, "b0", "broadcast", "lab")


def test_listings_have_the_types_in_the_order_of_their_preference(world: World) -> None:
    for name, type in (("b0", "broadcast"), ("l0", "local"), ("b1", "broadcast"), ("l1", "local")):
        make_ipcp(world, name, type)
    assert [ipcp.name for ipcp in ipcps(world)] == ["l0", "l1", "b0", "b1"]


def test_a_broadcast_layer_starts_with_its_bootstrap_and_ends_with_its_ipc_process(world: World) -> None:
    ipcp = make_ipcp(world, "b0", "broadcast")
    assert world.take(object)[1:] == []
    world.manage(BootstrapIpcp(ipcp, "lab"))
    assert world.take(OpenBroadcast) == [OpenBroadcast(ipcp)]
    world.manage(DestroyIpcp(ipcp))
    assert world.take(CloseMember) == [CloseMember(ipcp)]
    assert ipcps(world) == []


def test_a_layer_that_never_started_is_not_stopped(world: World) -> None:
    for type in ("broadcast", "local"):
        world.manage(DestroyIpcp(make_ipcp(world, type, type)))
    assert world.take(CloseMember) == []


# --- registration


def test_registering_a_name_shows_in_the_layers_of_its_entry(world: World) -> None:
    world.manage(CreateName("x", "spillover"))
    lab, gym = make_ipcp(world, "l0", "local", "lab"), make_ipcp(world, "l1", "local", "gym")
    assert names(world)[0].layers == []
    world.manage(RegisterName("x", gym))
    assert names(world)[0].layers == ["gym"]
    world.manage(RegisterName("x", lab))
    world.manage(RegisterName("x", lab))
    assert names(world)[0].layers == ["lab", "gym"]
    world.manage(UnregisterName("x", gym))
    world.manage(UnregisterName("x", gym))
    assert names(world)[0].layers == ["lab"]
    world.manage(DestroyIpcp(lab))
    assert names(world)[0].layers == []


def test_a_destroyed_name_is_taken_out_of_its_layers(world: World) -> None:
    world.manage(CreateName("x", "spillover"))
    world.manage(RegisterName("x", make_ipcp(world, "l0", "local", "lab")))
    world.manage(DestroyName("x"))
    world.manage(CreateName("x", "spillover"))
    assert names(world)[0].layers == []


def test_a_name_is_registered_in_a_layer_only(world: World) -> None:
    world.manage(CreateName("x", "spillover"))
    ipcp = make_ipcp(world, "l0", "local")
    with pytest.raises(IpcpBootstrapError, match="IPC process 'l0' is in no layer yet: bootstrap it first"):
        world.manage(RegisterName("x", ipcp))
    # With another hash, what was registered before could never be found or taken out again.
    world.manage(BootstrapIpcp(ipcp, "lab", LocalSettings(DirectoryHashAlgo.SHA3_512)))
    world.manage(RegisterName("x", ipcp))
    assert names(world)[0].layers == ["lab"]


def test_a_broadcast_layer_holds_no_names(world: World) -> None:
    world.manage(CreateName("x", "spillover"))
    ipcp = make_ipcp(world, "b0", "broadcast", "lab")
    for request in (RegisterName("x", ipcp), UnregisterName("x", ipcp)):
        with pytest.raises(UnsupportedError, match="IPC process 'b0' of type broadcast cannot register names"):
            world.manage(request)


# --- who may


MANAGEMENT: list[Request] = [
    CreateName("y", "spillover"),
    DestroyName("x"),
    RegisterName("x", FIRST_IPCP_ID),
    UnregisterName("x", FIRST_IPCP_ID),
    BindProgram("/bin/sh", "x", True, []),
    UnbindProgram("server", "x"),
    BindProcess(FIRST_IPCP_ID, "x"),
    UnbindProcess(FIRST_IPCP_ID, "x"),
    CreateIpcp("l1", "local"),
    BootstrapIpcp(FIRST_IPCP_ID, "lab"),
    DestroyIpcp(FIRST_IPCP_ID),
]


@pytest.mark.parametrize("request_", MANAGEMENT, ids=lambda each: type(each).__name__)
def test_another_user_cannot_manage_the_node(world: World, request_: Request) -> None:
    make_ipcp(world, "l0", "local")
    world.manage(BindProgram("/bin/server", "x", False, []))
    world.manage(BindProcess(FIRST_IPCP_ID, "x"))
    before = names(world), ipcps(world)
    with pytest.raises(BindError, match="only the user who runs this node, and root, may manage it"):
        world.manage(request_, world.program("irm", uid=OTHER))
    assert (names(world), ipcps(world)) == before


def test_root_can_manage_the_node_of_any_user(world: World) -> None:
    world.manage(CreateName("x", "spillover"), world.program("irm", uid=0))
    assert [name.name for name in names(world)] == ["x"]


@pytest.mark.parametrize("request_", [ListNames(), ListIpcps(), ListFlows()], ids=lambda each: type(each).__name__)
def test_another_user_can_list_everything(world: World, request_: Request) -> None:
    assert world.manage(request_, world.program("irm", uid=OTHER)) == []


def test_another_user_can_allocate_and_release_flows(world: World) -> None:
    taken = world.accept(world.server("x"))
    client = world.program("client", uid=OTHER)
    asked = world.alloc(client, "x")
    assert world.connected(asked, taken)
    world.dealloc(client, asked)
    assert client.ends == set()


def test_another_user_can_join_a_broadcast_layer(world: World) -> None:
    make_ipcp(world, "b0", "broadcast", "lab")
    world.granted(world.send(world.program("member", uid=OTHER), JoinRequest("lab", QoSSpec(), None)))


def test_another_user_can_accept_once_the_owner_bound_the_process(world: World) -> None:
    server = world.program("server", uid=OTHER)
    failed = world.failed(world.accept(server, name="x"))
    assert failed.error == "FlowPermissionException"
    assert failed.text == "only the user who runs this node, and root, may take the name 'x'"
    assert names(world) == []
    world.manage(BindProcess(server.pid, "x"))
    taken = world.accept(server, name="x")
    assert world.connected(world.alloc(world.program("client"), "x"), taken)


def test_another_user_cannot_take_a_name_of_the_embedded_default_either() -> None:
    world = World(embedded=True)
    assert world.failed(world.accept(world.program("oecho.py", uid=OTHER))).error == "FlowPermissionException"


def test_what_may_come_over_a_connection_goes_by_its_user_not_by_that_of_the_process(world: World) -> None:
    process = world.program("daemon", uid=0)
    for request in MANAGEMENT:
        failed = world.failed(world.send(process, request, uid=OTHER))
        assert failed.text == "only the user who runs this node, and root, may manage it"
    assert world.failed(world.send(process, Accept("x", None), uid=OTHER)).error == "FlowPermissionException"
    assert names(world) == []
    stranger = world.program("sudo", uid=OTHER)
    world.answer(world.send(stranger, CreateName("x", "spillover"), uid=OWNER))
    assert [name.name for name in names(world)] == ["x"]


def test_a_process_that_gave_up_its_rights_keeps_the_names_that_it_had(world: World) -> None:
    server = world.program("server", uid=0)
    world.accept(server, name="x", timeout=0)
    taken = world.send(server, Accept("x", None), uid=OTHER)
    assert world.connected(world.alloc(world.program("client"), "x"), taken)


# --- the embedded default


def test_the_embedded_node_has_a_local_and_a_broadcast_layer() -> None:
    irm = new_irm(embedded=True)
    assert [OpenBroadcast(FIRST_IPCP_ID + 1)] == irm.take_effects()
    found = [(ipcp.name, ipcp.type, ipcp.layer, ipcp.state) for ipcp in ipcps(World(embedded=True))]
    assert found == [
        ("local", "local", "local", "operational"),
        ("broadcast", "broadcast", "broadcast", "operational"),
    ]


@pytest.mark.parametrize(
    ("program", "name"),
    [("oecho.py", "oecho"), ("oecho", "oecho"), ("a.py.py", "a.py"), ("app.pyz", "app"), ("a.pyx", "a.pyx")],
)
def test_on_the_embedded_node_an_unbound_program_accepts_under_its_own_name(program: str, name: str) -> None:
    world = World(embedded=True)
    taken = world.accept(world.program(program))
    assert world.connected(world.alloc(world.program("client"), name), taken)


def test_on_the_embedded_node_a_bound_program_accepts_under_its_bindings_only() -> None:
    world = World(embedded=True)
    world.manage(BindProgram("/bin/oecho.py", "echo", False, []))
    taken = world.accept(world.program("oecho.py"))
    client = world.program("client")
    assert world.failed(world.alloc(client, "oecho")).error == "FlowNameException"
    assert world.connected(world.alloc(client, "echo"), taken)


def test_on_the_embedded_node_a_name_given_to_accept_replaces_the_natural_one() -> None:
    world = World(embedded=True)
    world.accept(world.program("oecho.py"), name="echo")
    assert [name.name for name in names(world)] == ["echo"]


def test_an_explicit_node_starts_empty_and_gives_no_natural_names(world: World) -> None:
    assert (names(world), ipcps(world)) == ([], [])
    taken = world.accept(world.program("oecho.py"), timeout=1)
    assert world.failed(world.alloc(world.program("client"), "oecho")).error == "FlowNameException"
    assert names(world) == []
    world.advance(1)
    assert world.failed(taken).error == "FlowTimeoutException"


# --- broadcast


@pytest.fixture
def lab(world: World) -> int:
    ipcp = make_ipcp(world, "b0", "broadcast", "lab")
    world.take(object)
    return ipcp


def join(world: World, layer: str = "lab", qos: QoSSpec | None = None) -> int:
    return world.send(world.program("member"), JoinRequest(layer, QoSSpec() if qos is None else qos, None))


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize("qos", [QoSSpec(loss=0), QoSSpec(in_order=1), QoSSpec(cypher_s=1)], ids=repr)
def test_a_broadcast_layer_refuses_what_it_cannot_promise(world: World, qos: QoSSpec) -> None:
    failed = world.failed(join(world, qos=qos))
    assert failed.error == "FlowQosException"
    assert "broadcast layer 'lab' can neither promise delivery (loss=0, in_order=1) nor encrypt" in failed.text
    assert world.manage(ListFlows()) == []
    assert ipcps(world)[0].members == 0


def test_a_member_gets_a_flow_whose_other_end_is_the_node(world: World, lab: int) -> None:
    token = join(world, qos=QOS_RAW_NO_ERRORS)
    assert world.take(Join) == [Join(1, "lab", QOS_RAW_NO_ERRORS, lab, token)]
    member = next(process for process in world.irm.registry.processes.values() if process.program == "member")
    assert world.manage(ListFlows()) == [FlowEntry(1, "lab", (member.pid, 0), QOS_RAW_NO_ERRORS, "lab")]
    assert ipcps(world)[0].members == 1


def test_a_member_that_leaves_is_released_at_once_and_counts_no_more(world: World, lab: int) -> None:
    member = world.program("member")
    tokens = [world.send(member, JoinRequest("lab", QoSSpec(), None)) for _ in range(3)]
    assert ipcps(world)[0].members == 3
    world.take(object)
    world.dealloc(member, tokens[1])
    assert world.take(object) == [Release(2, lab)]
    world.kill(member)
    assert world.take(object) == [MarkDead(1, 0), Release(1, lab), MarkDead(3, 0), Release(3, lab)]
    assert ipcps(world)[0].members == 0


@pytest.mark.usefixtures("lab")
def test_the_end_of_the_node_is_nobodys_to_release(world: World) -> None:
    member = world.program("member")
    world.send(member, JoinRequest("lab", QoSSpec(), None))
    world.take(object)
    world.send(member, Dealloc(1, 1))
    world.irm.flows.abandon(1, 1, world.now)
    assert (world.collect(), world.take(object)) == ([], [])


@pytest.mark.parametrize("layer", ["nix", "", "local"])
def test_what_is_no_broadcast_layer_cannot_be_joined(world: World, layer: str) -> None:
    make_ipcp(world, "l0", "local", "local")
    make_ipcp(world, "b1", "broadcast")  # in no layer yet
    failed = world.failed(join(world, layer))
    assert failed.error == "FlowNameException"
    assert f"there is no broadcast layer {layer!r} on this node" in failed.text
    assert "irm ipcp bootstrap type broadcast" in failed.text


def test_a_layer_that_ended_cannot_be_joined_and_its_members_can_still_leave(world: World, lab: int) -> None:
    member = world.program("member")
    token = world.send(member, JoinRequest("lab", QoSSpec(), None))
    world.manage(DestroyIpcp(lab))
    assert world.failed(join(world)).error == "FlowNameException"
    world.take(object)
    world.dealloc(member, token)
    assert world.take(object) == [Release(1, lab)]


def test_members_count_towards_the_limit_of_flows() -> None:
    world = World(flow_limit=1)
    make_ipcp(world, "b0", "broadcast", "lab")
    first = join(world)
    assert world.granted(first).flow_id == 1
    assert world.failed(join(world)).error == "NodeLimitError"
    assert ipcps(world)[0].members == 1


# --- effects


def test_effects_are_handed_out_once_and_in_order() -> None:
    irm = new_irm()
    process = irm.process_arrived(1, OWNER, "irm")
    for token, name in enumerate("abc"):
        irm.handle(token, process, CreateName(name, "spillover"), 0.0, user=OWNER)
    assert [effect.token for effect in irm.take_effects() if hasattr(effect, "token")] == [0, 1, 2]
    assert irm.take_effects() == []


def test_a_stranger_does_not_become_a_server_by_what_it_calls_itself() -> None:
    world = World()
    world.manage(BindProgram("/bin/bank", "bank", False, []))
    stranger = world.program("bank", uid=OTHER)
    world.manage(BindProgram("/usr/bin/bank", "vault", False, []))
    assert stranger.names == set()
    assert world.program("bank").names == {"bank", "vault"}
