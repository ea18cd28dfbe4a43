"""`ouroboros.irm` and `ouroboros.cli` against a real node: what they change is what flows then find."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from support import Background, NodeProcess, Programs, until

from ouroboros import aio, cli, irm
from ouroboros.dev import FlowDownException, FlowTimeoutException, flow_accept, flow_alloc, flow_join
from ouroboros.errors import FlowNameException
from ouroboros.irm import (
    BIND_AUTO,
    BindError,
    IpcpBootstrapError,
    IpcpConfig,
    IpcpConnectError,
    IpcpCreateError,
    IpcpEnrollError,
    IpcpType,
    LoadBalancePolicy,
    NameError,
    NameInfo,
    NodeError,
)
from ouroboros.server import FlowRequestHandler, FlowServer


def test_the_life_of_an_ipc_process(node: NodeProcess) -> None:
    pid = irm.create_ipcp("chat0", IpcpType.BROADCAST)
    (idle,) = irm.list_ipcps()
    assert (idle.pid, idle.type, idle.name, idle.layer, idle.state) == (pid, IpcpType.BROADCAST, "chat0", "", "boot")
    assert idle.dir_hash_algo is None
    with pytest.raises(FlowNameException):
        flow_join("chat")
    irm.bootstrap_ipcp(pid, IpcpConfig(ipcp_type=IpcpType.BROADCAST, layer_name="chat"))
    with flow_join("chat") as flow:
        (ipcp,) = irm.list_ipcps()
        assert (ipcp.layer, ipcp.state, ipcp.members) == ("chat", "operational", 1)
        irm.destroy_ipcp(pid)
        with pytest.raises(FlowDownException):
            flow.read()
    assert irm.list_ipcps() == []


def test_an_exception_carries_the_reason_of_the_node(node: NodeProcess) -> None:
    pid = irm.create_ipcp("lab0", IpcpType.LOCAL)
    irm.bootstrap_ipcp(pid, IpcpConfig(IpcpType.LOCAL, "lab"))
    with pytest.raises(IpcpCreateError, match="there is an IPC process 'lab0' already"):
        irm.create_ipcp("lab0", IpcpType.LOCAL)
    with pytest.raises(IpcpCreateError, match="the name of an IPC process is empty"):
        irm.create_ipcp("", IpcpType.LOCAL)
    with pytest.raises(IpcpCreateError, match="there is no IPC process 7"):
        irm.destroy_ipcp(7)
    with pytest.raises(IpcpBootstrapError, match="'lab0' is in layer 'lab' already"):
        irm.bootstrap_ipcp(pid, IpcpConfig(IpcpType.LOCAL, "field"))
    with pytest.raises(NameError, match="there is no name 'nix'"):
        irm.reg_name("nix", pid)
    with pytest.raises(NameError, match="there is no IPC process 7"):
        irm.unreg_name("nix", 7)
    with pytest.raises(BindError, match="no process 1 uses this node"):
        irm.bind_process(1, "clock")
    with pytest.raises(BindError, match="there is no name 'nix'"):
        irm.unbind_program("clockd", "nix")


def test_an_ipc_process_without_a_layer_or_of_a_type_without_neighbours_says_so(node: NodeProcess) -> None:
    chat, lab = irm.create_ipcp("chat0", IpcpType.BROADCAST), irm.create_ipcp("lab0", IpcpType.LOCAL)
    with pytest.raises(IpcpEnrollError, match="'chat0' cannot enroll with 'chat': nobody offers 'chat'"):
        irm.enroll_ipcp(chat, "chat")
    with pytest.raises(IpcpEnrollError, match="'lab0' of type local cannot enroll: only types unicast and broadcast"):
        irm.enroll_ipcp(lab, "lab")
    for change in (irm.connect_ipcp, irm.disconnect_ipcp):
        with pytest.raises(IpcpConnectError, match="'chat0' is in no layer yet: bootstrap it first"):
            change(chat, irm.DT_COMP, "chat1")
        with pytest.raises(IpcpConnectError, match="'lab0' of type local cannot have neighbours"):
            change(lab, irm.DT_COMP, "lab1")


def test_names(node: NodeProcess) -> None:
    cli.autoboot("lab0", IpcpType.LOCAL, "lab")
    irm.create_name(NameInfo("clock", LoadBalancePolicy.SPILL))
    irm.create_name(NameInfo("bell"))
    cli.reg_name("clock", layer="lab")
    assert irm.list_names() == [
        NameInfo("bell"),
        NameInfo("clock", LoadBalancePolicy.SPILL, layers=("lab",)),
    ]
    cli.unreg_name("clock", ipcp="lab0")
    irm.destroy_name("bell")
    assert irm.list_names() == [NameInfo("clock", LoadBalancePolicy.SPILL)]


def test_a_name_has_the_same_policy_however_it_is_made(node: NodeProcess, programs: Programs) -> None:
    cli.autoboot("lab0", IpcpType.LOCAL, "lab")
    with pytest.raises(FlowTimeoutException):
        flow_accept(0, name="accepted")
    FlowServer("served", FlowRequestHandler).server_close()
    asyncio.run(serve_for_a_moment("awaited"))
    irm.create_name(NameInfo("created"))
    cli.create_name("by name")
    cli.reg_name("registered", layer="lab")
    irm.bind_program(str(programs.script("clockd", "")), "program")
    irm.bind_process(os.getpid(), "process")
    for words in ("create command", "register command-registers layer lab"):
        run("name", *words.split())
    names = cli.list_names()
    assert len(names) == 10
    assert {name.pol_lb for name in names} == {LoadBalancePolicy.ROUND_ROBIN}


async def serve_for_a_moment(name: str) -> None:
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            await tasks.start(aio.serve, name, anyio.Event.wait)
            scope.cancel()


def run(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "ouroboros.tools.irm", *words], check=True)


def test_bound_programs_and_processes_accept(node: NodeProcess, programs: Programs) -> None:
    path = programs.script("clockd", "with flow_accept() as f: f.writeline(' '.join(sys.argv[1:]))")
    cli.bind_program(str(path), "clock", BIND_AUTO, ["--utc"])
    with flow_alloc("clock") as flow:
        assert flow.readline() == "--utc"
    cli.unbind_program(str(path), "clock")
    irm.bind_process(os.getpid(), "bell")
    acceptor = Background.waiting_for_node(flow_accept)
    (bell,) = cli.list_names("bell")
    assert bell.processes == (os.getpid(),)
    with flow_alloc("bell"), acceptor.result():
        # The program that was started may not have ended yet.
        until(lambda: [flow.name for flow in irm.list_flows()] == ["bell"])
        assert irm.list_flows()[0].pids == (os.getpid(), os.getpid())
    irm.unbind_process(os.getpid(), "bell")


def test_a_program_that_cannot_be_started_is_not_bound(node: NodeProcess, tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("")
    with pytest.raises(BindError, match="is not executable: make it so with chmod"):
        irm.bind_program(str(tmp_path / "notes"), "clock")
    with pytest.raises(BindError, match=r"there is no program .* at that path"):
        irm.bind_program(str(tmp_path / "nix"), "clock")
    with pytest.raises(ValueError, match="opts knows only BIND_AUTO"):
        irm.bind_program("python", "clock", 2)
    assert irm.list_names() == []


def test_the_node_tells_about_itself(node: NodeProcess) -> None:
    irm.create_name(NameInfo("clock"))
    info = irm.node_info()
    assert (info.pid, info.embedded, info.runtime_dir) == (node.pid, False, str(node.directory))
    assert (info.processes, info.flows, info.names) == (1, 0, 1)


def test_management_starts_the_embedded_node_unless_told_not_to(embedded: Path) -> None:
    with irm.running_node_only(), pytest.raises(NodeError, match="no node runs"):
        cli.list_ipcps()
    assert [ipcp.layer for ipcp in cli.list_ipcps()] == ["local", "broadcast"]
    with irm.running_node_only():
        assert irm.node_info().embedded


def test_the_walk_through_of_the_older_binding_runs_as_written(node: NodeProcess) -> None:
    scope: dict[str, object] = {}
    exec("from ouroboros.irm import *", scope)
    exec(
        """
pid = create_ipcp("my_ipcp", IpcpType.LOCAL)
conf = IpcpConfig(ipcp_type=IpcpType.LOCAL, layer_name="my_layer")
bootstrap_ipcp(pid, conf)
listed = [(each.pid, each.type, each.name, each.layer) for each in list_ipcps()]
info = NameInfo(name="my_name", pol_lb=LoadBalancePolicy.ROUND_ROBIN)
info.pol_lb = LoadBalancePolicy.SPILL
create_name(info)
reg_name("my_name", pid)
names = [name.name for name in list_names()]
unreg_name("my_name", pid)
destroy_name("my_name")
destroy_ipcp(pid)
""",
        scope,
    )
    assert scope["listed"] == [(scope["pid"], IpcpType.LOCAL, "my_ipcp", "my_layer")]
    assert scope["names"] == ["my_name"]
