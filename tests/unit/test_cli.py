"""Management by names, against an IRM without a node around it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from irm_world import World

from ouroboros import cli, irm
from ouroboros.cli import IpcpConfig, IpcpType, LoadBalancePolicy, NameInfo, NoMatchError
from ouroboros.errors import (
    BindError,
    IpcpBootstrapError,
    IpcpCreateError,
    IpcpEnrollError,
    NameError,
    UnsupportedError,
)
from ouroboros.qos import QOS_DATA, QoSSpec
from ouroboros.runtime import client
from ouroboros.wire.control import BootstrapIpcp, NameSecurity


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    """An IRM that gets the requests of this test."""
    # Not the figures of a node that runs on this machine.
    monkeypatch.setenv("OUROBOROS_RUNTIME_DIR", str(tmp_path))
    world = World()

    def request(message: Any, *, start: bool = True) -> Any:
        value = msgspec.to_builtins(world.manage(message))
        kind = client._ENTRIES.get(type(message))
        return value if kind is None else msgspec.convert(value, kind)

    monkeypatch.setattr(client, "request", request)
    return world


def layers(name: str) -> list[tuple[str, ...]]:
    return [info.layers for info in cli.list_names(name)]


def nothing_is_done_when(call: str) -> None:
    """The call finds nothing to act on."""
    with pytest.raises(NoMatchError, match="'nix'"):
        eval(f"cli.{call}", {"cli": cli, "conf": IpcpConfig(IpcpType.LOCAL, "lab")})


# --- finding


@pytest.mark.parametrize(
    "call",
    [
        "find_ipcp('nix')",
        "destroy_ipcp('nix')",
        "bootstrap_ipcp('nix', conf)",
        "enroll_ipcp('nix', 'lab')",
        "connect_ipcp('nix', 'b')",
        "disconnect_ipcp('nix', 'b')",
        "bind_ipcp('nix', 'clock')",
        "unbind_ipcp('nix', 'clock')",
        "reg_name('clock', ipcp='nix')",
        "reg_name('clock', layers=['nix'])",
        "reg_name('clock', ipcp='lab0', layer='nix')",
        "unreg_name('clock', ipcps=['lab0', 'nix'])",
        "unreg_name('clock', layer='nix')",
    ],
)
def test_nothing_of_that_name_is_an_error_and_nothing_is_done(world: World, call: str) -> None:
    cli.autoboot("lab0", IpcpType.LOCAL, "lab")
    before = cli.list_ipcps(), cli.list_names()
    nothing_is_done_when(call)
    assert (cli.list_ipcps(), cli.list_names()) == before


def test_no_match_is_what_programs_catch() -> None:
    assert issubclass(NoMatchError, ValueError)
    assert issubclass(NoMatchError, irm.IrmError)


def test_lists_filter_and_may_be_empty(world: World) -> None:
    cli.autoboot("lab0", IpcpType.LOCAL, "lab")
    cli.autoboot("chat0", IpcpType.BROADCAST, "chat")
    cli.create_ipcp("idle", IpcpType.LOCAL)
    assert [ipcp.name for ipcp in cli.list_ipcps()] == ["lab0", "idle", "chat0"]
    assert [ipcp.name for ipcp in cli.list_ipcps(name="idle")] == ["idle"]
    assert [ipcp.name for ipcp in cli.list_ipcps(layer="chat")] == ["chat0"]
    assert [ipcp.name for ipcp in cli.list_ipcps(ipcp_type=IpcpType.LOCAL)] == ["lab0", "idle"]
    assert cli.list_ipcps(name="lab0", layer="chat") == []
    assert cli.list_names("nix") == []


# --- IPC processes


def test_create_bootstrap_destroy(world: World) -> None:
    pid = cli.create_ipcp("lab0", IpcpType.LOCAL)
    cli.bootstrap_ipcp("lab0", IpcpConfig(IpcpType.LOCAL, "lab"))
    assert cli.find_ipcp("lab0").pid == pid
    assert cli.find_ipcp("lab0").layer == "lab"
    cli.destroy_ipcp("lab0")
    assert cli.list_ipcps() == []


def test_autobind_makes_a_member_known_under_its_name_and_its_layers(world: World) -> None:
    cli.create_ipcp("chat0", IpcpType.BROADCAST)
    cli.bootstrap_ipcp("chat0", IpcpConfig(IpcpType.BROADCAST, "chat"), autobind=True)
    assert world.irm.ipcps[cli.find_ipcp("chat0").pid].names == {"chat0", "chat"}


def test_autobind_means_nothing_where_nobody_enrolls(world: World) -> None:
    cli.autoboot("lab0", IpcpType.LOCAL, "lab")
    assert world.irm.ipcps[cli.find_ipcp("lab0").pid].names == set()
    assert cli.list_names() == []


def test_autoboot_takes_the_settings_and_leaves_them_as_they_are(world: World) -> None:
    conf = IpcpConfig(IpcpType.LOCAL, "elsewhere", irm.DirectoryHashAlgo.SHA3_512)
    cli.autoboot("lab0", IpcpType.LOCAL, "lab", conf)
    assert conf.layer_name == "elsewhere"
    assert cli.find_ipcp("lab0").layer == "lab"
    assert cli.find_ipcp("lab0").dir_hash_algo is irm.DirectoryHashAlgo.SHA3_512


def test_autoboot_without_autobind_binds_nothing(world: World) -> None:
    cli.autoboot("chat0", IpcpType.BROADCAST, "chat", autobind=False)
    assert cli.list_names() == []


def test_autoboot_uses_one_that_waits_for_it(world: World) -> None:
    pid = cli.create_ipcp("lab0", IpcpType.LOCAL)
    cli.autoboot("lab0", IpcpType.LOCAL, "lab")
    assert [(ipcp.pid, ipcp.layer) for ipcp in cli.list_ipcps()] == [(pid, "lab")]


def test_autoboot_destroys_what_it_created_when_the_rest_fails(world: World) -> None:
    cli.autoboot("lab0", IpcpType.LOCAL, "lab")
    with pytest.raises(IpcpBootstrapError, match="in local layer 'lab' already"):
        cli.autoboot("lab1", IpcpType.LOCAL, "lab")
    assert [ipcp.name for ipcp in cli.list_ipcps()] == ["lab0"]


def test_autoboot_keeps_what_was_there_when_it_fails(world: World) -> None:
    cli.autoboot("lab0", IpcpType.LOCAL, "lab")
    with pytest.raises(IpcpBootstrapError, match="is in layer 'lab' already"):
        cli.autoboot("lab0", IpcpType.LOCAL, "field")
    with pytest.raises(IpcpCreateError, match="is of type local, not broadcast: choose another name, or destroy it"):
        cli.autoboot("lab0", IpcpType.BROADCAST, "field")
    assert cli.find_ipcp("lab0").layer == "lab"


def test_autoboot_wants_settings_of_its_type(world: World) -> None:
    with pytest.raises(ValueError, match="conf is for type local, ipcp_type is broadcast"):
        cli.autoboot("a", IpcpType.BROADCAST, "b", IpcpConfig(IpcpType.LOCAL))


def test_a_configuration_has_to_fit_the_process(world: World) -> None:
    pid = cli.create_ipcp("lab0", IpcpType.LOCAL)
    with pytest.raises(IpcpBootstrapError, match="'lab0' is of type local, its configuration of type broadcast"):
        irm.bootstrap_ipcp(pid, IpcpConfig(IpcpType.BROADCAST, "lab"))
    with pytest.raises(IpcpBootstrapError, match="no layer name: set layer_name"):
        irm.bootstrap_ipcp(pid, IpcpConfig(IpcpType.LOCAL))
    with pytest.raises(IpcpBootstrapError, match="there is no IPC process 7"):
        irm.bootstrap_ipcp(7, IpcpConfig(IpcpType.LOCAL, "lab"))


def test_a_configuration_that_cannot_be_written_leaves_nothing_behind(world: World, tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        cli.save_configuration(path)
    assert list(tmp_path.iterdir()) == [path]


# --- what is to come: enrolling and connecting


def test_enrolling_and_connecting_say_that_they_are_not_built(world: World) -> None:
    cli.autoboot("chat0", IpcpType.BROADCAST, "chat")
    calls: list[Callable[[], None]] = [
        lambda: cli.enroll_ipcp("chat0", "chat"),
        lambda: cli.connect_ipcp("chat0", "chat1"),
        lambda: cli.disconnect_ipcp("chat0", "chat1", "mgmt"),
    ]
    for call in calls:
        with pytest.raises(UnsupportedError, match="not built yet"):
            call()


def test_types_without_neighbours_cannot_have_any(world: World) -> None:
    cli.autoboot("lab0", IpcpType.LOCAL, "lab")
    with pytest.raises(irm.IpcpConnectError, match="only types unicast and broadcast can"):
        cli.connect_ipcp("lab0", "lab1", "dt")
    with pytest.raises(IpcpEnrollError, match="only types unicast and broadcast can"):
        cli.enroll_ipcp("lab0", "lab")
    with pytest.raises(IpcpEnrollError, match="there is no IPC process 7"):
        irm.enroll_ipcp(7, "lab")


def test_components_have_names(world: World) -> None:
    cli.autoboot("chat0", IpcpType.BROADCAST, "chat")
    with pytest.raises(ValueError, match="comp must be 'mgmt', 'dt' or '\\*', not 'Management'"):
        cli.connect_ipcp("chat0", "chat1", "Management")
    with pytest.raises(ValueError, match=r"component must be MGMT_COMP \('Management'\) or DT_COMP"):
        irm.connect_ipcp(1, "mgmt", "chat1")


def test_an_enrollment_that_fails_leaves_no_process_behind(world: World) -> None:
    with pytest.raises(UnsupportedError):
        cli.enroll_ipcp("chat0", "chat", ipcp_type=IpcpType.BROADCAST)
    assert cli.list_ipcps() == []


@pytest.fixture
def enrolled(world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """Enrollment as it will be: by way of `dst` one gets into layer chat."""

    def enroll(pid: int, dst: str, *, connect: bool, timeout: float | None, over: tuple[str, ...]) -> None:
        world.manage(BootstrapIpcp(pid, "chat"))

    monkeypatch.setattr(irm, "_enroll", enroll)
    return world


def test_who_enrolls_is_bound_to_what_the_layer_turned_out_to_be_called(enrolled: World) -> None:
    cli.enroll_ipcp("chat1", "chat0", autobind=True, ipcp_type=IpcpType.BROADCAST, layer="chat")
    assert enrolled.irm.ipcps[cli.find_ipcp("chat1").pid].names == {"chat1", "chat"}


def test_another_layer_than_the_wanted_one_is_an_error(enrolled: World) -> None:
    with pytest.raises(IpcpEnrollError, match="'chat0' is a member of layer 'chat', not of 'talk'"):
        cli.enroll_ipcp("chat1", "chat0", ipcp_type=IpcpType.BROADCAST, layer="talk")
    assert cli.list_ipcps() == []


@pytest.mark.parametrize(
    ("ipcp_type", "comp", "connected"),
    [
        (IpcpType.UNICAST, "*", [("Management", None), ("Data Transfer", QOS_DATA)]),
        (IpcpType.UNICAST, "mgmt", [("Management", None)]),
        (IpcpType.UNICAST, "dt", [("Data Transfer", QOS_DATA)]),
        (IpcpType.BROADCAST, "*", [("Data Transfer", QOS_DATA)]),
    ],
)
def test_the_parts_that_a_type_has_are_connected_management_first(
    monkeypatch: pytest.MonkeyPatch, ipcp_type: IpcpType, comp: str, connected: list[tuple[str, QoSSpec | None]]
) -> None:
    made: list[tuple[str, QoSSpec | None]] = []
    layers: list[str | None] = []
    undone: list[str] = []
    monkeypatch.setattr(irm, "list_ipcps", lambda: [irm.IpcpInfo(1, ipcp_type, "a", "lab", "operational")])

    def connect(pid: int, part: str, dst: str, qos: QoSSpec | None, *, over: str | None) -> None:
        made.append((part, qos))
        layers.append(over)

    monkeypatch.setattr(irm, "connect_ipcp", connect)
    monkeypatch.setattr(irm, "disconnect_ipcp", lambda pid, part, dst: undone.append(part))
    cli.connect_ipcp("a", "b", comp, QOS_DATA)
    cli.disconnect_ipcp("a", "b", comp)
    assert made == connected
    assert layers == [None] * len(connected)
    assert undone == [part for part, _ in reversed(connected)]
    layers.clear()
    cli.connect_ipcp("a", "b", comp, over=iter(["net4", "net6"]))
    assert layers == [layer for layer in ("net4", "net6") for _ in connected]


# --- names and bindings


def test_names_are_created_with_a_policy(world: World) -> None:
    cli.create_name("a")
    cli.create_name("b", LoadBalancePolicy.SPILL)
    cli.create_name("c", 1)
    cli.create_name("ignored", info=NameInfo("d", LoadBalancePolicy.SPILL))
    assert [(info.name, info.pol_lb.value) for info in cli.list_names()] == [("a", 0), ("b", 1), ("c", 1), ("d", 1)]
    cli.destroy_name("a")
    assert cli.list_names("a") == []
    with pytest.raises(NameError, match="there is no name 'a'"):
        cli.destroy_name("a")


def test_security_files_of_a_name_are_known_by_where_they_really_are(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "k.pem").touch()
    (tmp_path / "link.pem").symlink_to("k.pem")
    monkeypatch.chdir(tmp_path)
    irm.create_name(NameInfo("a", client_sec=irm.NameSecPaths(key="link.pem")))
    assert world.irm.registry.security_of("a") == NameSecurity(client_key=str((tmp_path / "k.pem").resolve()))
    irm.create_name(NameInfo("a", server_sec=irm.NameSecPaths(enc=str(tmp_path / "k.pem"))))
    both = world.irm.registry.security_of("a")
    assert both is not None
    assert both.client_key == both.server_encryption


def test_security_files_that_are_not_there_are_refused(world: World) -> None:
    with pytest.raises(NameError, match=r"there is no file 'k\.pem'"):
        irm.create_name(NameInfo("a", client_sec=irm.NameSecPaths(key="k.pem")))
    assert cli.list_names() == []


def test_a_name_is_registered_by_process_by_layer_or_everywhere(world: World) -> None:
    for number in range(3):
        cli.autoboot(f"lab{number}", IpcpType.LOCAL, f"layer{number}")
    cli.autoboot("chat0", IpcpType.BROADCAST, "chat")
    cli.create_ipcp("idle", IpcpType.LOCAL)
    cli.reg_name("a", ipcp="lab0")
    cli.reg_name("b", ipcps=["lab0", "lab1"], layer="layer1")
    cli.reg_name("c", layers=["layer2", "layer0"], ipcp="lab1")
    cli.reg_name("d", ipcp="*")
    cli.reg_name("e", layer="*")
    assert layers("a") == [("layer0",)]
    assert layers("b") == [("layer0", "layer1")]
    assert layers("c") == layers("d") == layers("e") == [("layer0", "layer1", "layer2")]
    cli.unreg_name("c", layer="layer1", ipcps=["lab2"])
    assert layers("c") == [("layer0",)]
    cli.unreg_name("d", layer="*")
    assert layers("d") == [()]


def test_registering_creates_the_name_or_leaves_its_policy(world: World) -> None:
    cli.autoboot("lab0", IpcpType.LOCAL, "lab")
    cli.reg_name("new", layer="lab")
    cli.reg_name("spilling", layer="lab", pol_lb=LoadBalancePolicy.SPILL)
    cli.reg_name("spilling", layer="lab")
    assert [info.pol_lb.value for info in cli.list_names()] == [0, 1]


def test_a_place_has_to_be_given(world: World) -> None:
    for call in (cli.reg_name, cli.unreg_name):
        with pytest.raises(ValueError, match="say where: ipcp, ipcps, layer or layers"):
            call("a")
    with pytest.raises(NoMatchError, match="there is no layer that can hold names"):
        cli.reg_name("a", layer="*")
    cli.create_ipcp("idle", IpcpType.LOCAL)
    with pytest.raises(NoMatchError, match="there is no IPC process in a layer called 'idle'"):
        cli.reg_name("a", ipcp="idle")
    assert cli.list_names() == []


def test_a_broadcast_layer_holds_no_names(world: World) -> None:
    cli.autoboot("chat0", IpcpType.BROADCAST, "chat")
    with pytest.raises(UnsupportedError, match="cannot register names"):
        cli.reg_name("a", layer="chat")


def test_an_ipc_process_is_bound_and_unbound(world: World) -> None:
    pid = cli.create_ipcp("lab0", IpcpType.LOCAL)
    cli.bind_ipcp("lab0", "front")
    assert world.irm.ipcps[pid].names == {"front"}
    cli.unbind_ipcp("lab0", "front")
    assert world.irm.ipcps[pid].names == set()
    with pytest.raises(BindError, match="'lab0' is not bound to 'front'"):
        cli.unbind_ipcp("lab0", "front")


# --- the module


def test_what_is_the_same_by_name_and_by_pid_is_the_same() -> None:
    for name in ("create_ipcp", "destroy_name", "bind_program", "unbind_program", "bind_process", "unbind_process"):
        assert getattr(cli, name) is getattr(irm, name)


def test_every_function_is_documented_with_an_example() -> None:
    for module in (cli, irm):
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isfunction(value):
                assert "Example::" in (value.__doc__ or ""), name


def test_a_star_import_brings_only_what_is_there() -> None:
    assert [name for name in cli.__all__ if not hasattr(cli, name)] == []
