"""The `irm` command as a process of its own against a real node: what it does, prints and exits with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import Background, NodeProcess, Programs

from ouroboros import __version__, irm
from ouroboros.dev import flow_accept, flow_alloc, flow_join
from ouroboros.errors import FlowNameException


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ouroboros.tools.irm", *words], capture_output=True, text=True)


def done(line: str) -> str:
    """The command has to succeed without a word on standard error; returns what it prints."""
    result = run(*line.split())
    assert (result.returncode, result.stderr) == (0, ""), line
    return result.stdout


def quiet(*lines: str) -> None:
    """Each command has to succeed and print nothing."""
    for line in lines:
        assert done(line) == ""


def listed(line: str) -> Any:
    return json.loads(done(f"{line} --json"))


def refused(line: str) -> str:
    """The command has to fail, saying why in one line; returns that."""
    result = run(*line.split())
    assert (result.returncode, result.stdout) == (1, ""), line
    (text,) = result.stderr.splitlines()
    assert text.startswith("irm: ")
    return text.removeprefix("irm: ")


@pytest.fixture
def lab(node: NodeProcess) -> NodeProcess:
    """A node with a local layer lab, a broadcast layer chat and an IPC process in none."""
    irm.bootstrap_ipcp(irm.create_ipcp("lab0", irm.IpcpType.LOCAL), irm.IpcpConfig(irm.IpcpType.LOCAL, "lab"))
    irm.bootstrap_ipcp(irm.create_ipcp("chat0", irm.IpcpType.BROADCAST), irm.IpcpConfig(irm.IpcpType.BROADCAST, "chat"))
    irm.create_ipcp("idle", irm.IpcpType.LOCAL)
    return node


# --- IPC processes


def test_ipc_processes_are_created_bootstrapped_listed_and_destroyed(node: NodeProcess) -> None:
    assert done("ipcp list") == "No IPCPs in system.\n\n"
    quiet("ipcp create type local name lab0", "ipcp bootstrap name lab0 layer lab hash SHA3_512")
    quiet("i b t broad n chat0 l chat au")
    assert done("i l").splitlines() == [
        "+---------+----------------------+------------+----------------------+",
        "|     pid |                 name |       type |                layer |",
        "+---------+----------------------+------------+----------------------+",
        "| 4194305 |                 lab0 |      local |                  lab |",
        "| 4194306 |                chat0 |  broadcast |                 chat |",
        "+---------+----------------------+------------+----------------------+",
        "",
    ]
    lab, chat = listed("ipcp list")
    assert (lab["name"], lab["type"], lab["layer"], lab["state"]) == ("lab0", "local", "lab", "operational")
    assert (lab["dir_hash_algo"], chat["dir_hash_algo"]) == ("SHA3_512", "SHA3_256")
    assert [info.name for info in irm.list_names()] == ["chat", "chat0"]
    quiet("ipcp destroy name lab0", "ipcp destroy name chat0")
    assert listed("ipcp list") == []


def test_a_list_of_ipc_processes_is_filtered(lab: NodeProcess) -> None:
    for words, names in (
        ("name idle", ["idle"]),
        ("layer lab", ["lab0"]),
        ("type broadcast", ["chat0"]),
        ("type local", ["lab0", "idle"]),
    ):
        assert [ipcp["name"] for ipcp in listed(f"ipcp list {words}")] == names
    assert "Not enrolled." in done("ipcp list name idle")


def test_autobind_that_means_nothing_is_remarked_upon(node: NodeProcess) -> None:
    result = run("ipcp", "bootstrap", "type", "local", "name", "lab0", "layer", "lab", "autobind")
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr == "irm: autobind ignored: nobody enrolls with an IPC process of type local\n"


def test_a_bootstrap_that_fails_leaves_nothing_behind(lab: NodeProcess) -> None:
    assert "in local layer 'lab' already" in refused("ipcp bootstrap type local name lab1 layer lab")
    assert irm.list_names() == []
    assert [ipcp.name for ipcp in irm.list_ipcps()] == ["lab0", "idle", "chat0"]


# --- names and bindings


def test_names_are_created_listed_and_destroyed(node: NodeProcess) -> None:
    assert done("name list") == "No names in system.\n\n"
    quiet("name create clock", "name create clip lb spillover", "name create bell", "name create clip lb round-robin")
    assert done("name list cl").splitlines() == [
        "+----------------------------------------------------+----------------------+",
        "|                                               name |  load-balance policy |",
        "+----------------------------------------------------+----------------------+",
        "|                                               clip |            spillover |",
        "|                                              clock |          round-robin |",
        "+----------------------------------------------------+----------------------+",
        "",
    ]
    assert [name["name"] for name in listed("name list")] == ["bell", "clip", "clock"]
    quiet("name destroy clip")
    assert [name["name"] for name in listed("name list cl")] == ["clock"]


def test_names_are_registered_and_unregistered(lab: NodeProcess) -> None:
    quiet("name register clock layer lab", "name register bell ipcp *", "name register bell ipcp lab0 layer lab")
    assert [(name["name"], name["pol_lb"], name["layers"]) for name in listed("name list")] == [
        ("bell", "round-robin", ["lab"]),
        ("clock", "round-robin", ["lab"]),
    ]
    quiet("name unregister clock ipcp lab0", "name unregister bell layer *")
    assert [name["layers"] for name in listed("name list")] == [[], []]


def test_a_program_is_bound_started_with_its_arguments_and_unbound(node: NodeProcess, programs: Programs) -> None:
    path = programs.script("clockd", "with flow_accept() as f: f.writeline(' '.join(sys.argv[1:]))")
    quiet(f"bind program {path} name clock auto -- --utc --json --")
    assert [name["programs"] for name in listed("name list")] == [["clockd"]]
    with flow_alloc("clock") as flow:
        assert flow.readline() == "--utc --json --"
    quiet("unbind program clockd name clock")
    assert [name["programs"] for name in listed("name list")] == [[]]
    assert "program 'clockd' is not bound to 'clock'" in refused("unbind program clockd name clock")


def test_a_process_is_bound_and_unbound(node: NodeProcess, programs: Programs) -> None:
    server = programs.shell("server")
    server.begin_blocked("f = flow_accept()", "node")
    with pytest.raises(FlowNameException):
        flow_alloc("clock")
    quiet(f"bind process {server.pid} name clock")
    assert [name["processes"] for name in listed("name list clock")] == [[server.pid]]
    with flow_alloc("clock"):
        server.answer()
        server.do("f.dealloc()")
    quiet(f"unbind process {server.pid} name clock")
    assert [name["processes"] for name in listed("name list clock")] == [[]]


def test_an_ipc_process_is_bound_and_unbound(lab: NodeProcess) -> None:
    quiet("bind ipcp chat0 name front", "unbind ipcp chat0 name front")
    assert "IPC process 'chat0' is not bound to 'front'" in refused("unbind ipcp chat0 name front")
    assert [name["name"] for name in listed("name list")] == ["front"]


def test_flows_are_listed(lab: NodeProcess, programs: Programs) -> None:
    assert done("flow list") == "No flows in system.\n\n"
    assert listed("flow list") == []
    acceptor = Background.waiting_for_node(lambda: flow_accept(name="clock"))
    with flow_alloc("clock") as near, acceptor.result(), flow_join("chat"):
        flows = listed("flow list")
        assert flows[0]["flow_id"] == near.flow_id
        assert flows[0]["qos"]["loss"] == 1_000_000
        assert [(flow["name"], 0 in flow["pids"]) for flow in flows] == [("clock", False), ("chat", True)]
        assert " node |" in done("f l")


# --- what goes wrong


def test_a_broadcast_layer_holds_no_names(lab: NodeProcess) -> None:
    assert "'chat0' of type broadcast cannot register names" in refused("name register clock layer chat")


FAILURES = [
    ("ipcp create name lab0 type local", "there is an IPC process 'lab0' already; choose another name"),
    ("ipcp destroy name nix", "there is no IPC process 'nix': see 'irm ipcp list'"),
    ("ipcp bootstrap name nix layer x", "there is no IPC process 'nix': add 'type TYPE' to create it"),
    ("ipcp bootstrap name lab0 layer x", "IPC process 'lab0' is in layer 'lab' already"),
    ("ipcp bootstrap name idle layer x type broadcast", "'idle' is of type local, not broadcast"),
    ("ipcp bootstrap name u layer x type unicast addr 2 congestion none", "addr: flat addresses have 4 bytes, not 2"),
    ("ipcp bootstrap name e layer x type eth-llc dev nix", "cannot use the device nix for a layer of type eth-llc"),
    ("ipcp bootstrap name e layer x type eth-dix dev nix ethertype A000", "cannot use the device nix for a layer"),
    ("ipcp bootstrap name u layer x type udp4 ip 192.0.2.1", "cannot use 192.0.2.1 port 3435 for a UDP layer"),
    (
        "ipcp bootstrap name u layer x type udp4 ip 127.0.0.1 dns 127.0.0.53",
        "dns: names are not registered with a name",
    ),
    ("ipcp bootstrap name u layer x type udp6 ip ::1 peer a@b", "peer: 'b' is no address of type udp6"),
    ("ipcp bootstrap name u layer x type udp6 ip ::", "ip: give the address of this host"),
    ("ipcp peer name lab0 add a@192.0.2.1", "IPC process 'lab0' of type local has no peers"),
    ("ipcp peer name nix add a@192.0.2.1", "there is no IPC process 'nix'"),
    ("ipcp enroll name u layer x", "IPC process 'u' cannot enroll with 'x'"),
    ("ipcp enroll name chat0 dst x layer chat autobind", "IPC process 'chat0' is in layer 'chat' already"),
    ("ipcp enroll name lab0 layer x", "of type local cannot enroll: only types unicast and broadcast can"),
    ("ipcp enroll name chat1 layer x type broadcast", "IPC process 'chat1' cannot enroll with 'x'"),
    ("ipcp connect name nix dst x", "there is no IPC process 'nix'"),
    ("ipcp connect name chat0 dst x component dt qos data", "connect it to 'x' by a raw flow"),
    ("ipcp disconnect name chat0 dst x", "'chat0' has no Data Transfer connection with 'x'"),
    ("ipcp list name nix", "none of the IPCPs match: 'irm ipcp list' shows all"),
    ("name destroy nix", "there is no name 'nix' on this node"),
    ("name create x scrtpath x.pem", "there is no file 'x.pem'"),
    (f"name create {'x' * 256}", "has 256 bytes in UTF-8; at most 255 are allowed"),
    (f"name create x skeypath {'x' * 512}", "key has 512 bytes in UTF-8; at most 511 fit"),
    ("name register x layer nix", "there is no layer called 'nix': see 'irm ipcp list'"),
    ("name register x ipcp lab0 ipcp idle", "there is no IPC process in a layer called 'idle'"),
    ("name unregister x layer nix", "there is no layer called 'nix'"),
    ("name list nix", "none of the names match"),
    ("bind program no-such-program name x", "there is no program 'no-such-program' here or on PATH"),
    ("bind program python name x -- y", "bind it with auto, or leave them out"),
    ("bind process 1 name x", "no process 1 uses this node"),
    ("bind ipcp nix name x", "there is no IPC process 'nix'"),
    ("unbind program nix name x", "there is no name 'x'"),
    ("unbind process 1 name x", "no process 1 uses this node"),
    ("unbind ipcp nix name x", "there is no IPC process 'nix'"),
]


@pytest.mark.slow
def test_a_failure_says_why_exits_with_1_and_changes_nothing(lab: NodeProcess) -> None:
    before = irm.list_ipcps(), irm.list_names()
    for line, text in FAILURES:
        assert text in refused(line), line
        assert (irm.list_ipcps(), irm.list_names()) == before, line


@pytest.mark.parametrize(
    ("line", "text", "help_for"),
    [
        ("", "nothing asked for", ""),
        ("ipcp", "nothing asked for: after 'ipcp' comes create", "ipcp"),
        ("ipcp create name a", "key 'type' is missing", "ipcp create"),
        ("ipcp bootstrap name a layer b type udp4 ip x", "key 'ip' must be an IP address, not x", "ipcp bootstrap"),
        ("ipcp enroll name a", "say with whom: layer NAME, dst NAME, or both", "ipcp enroll"),
        ("ipcp enroll name a layer b timeout soon", "timeout soon: say a number of seconds", "ipcp enroll"),
        ("ipcp enroll name a layer b timeout 0", "timeout 0: say a number of seconds", "ipcp enroll"),
        ("name register a", "say where: ipcp NAME, layer NAME, or both", "name register"),
        ("bind process clockd name a", "'clockd' is no process id: give a number", "bind process"),
        ("name create \udcff", "is not valid UTF-8", ""),
    ],
)
def test_wrong_usage_exits_with_2_and_points_to_the_help(line: str, text: str, help_for: str) -> None:
    result = run(*line.split())
    assert (result.returncode, result.stdout) == (2, "")
    assert text in result.stderr
    assert result.stderr.endswith(f"\nTry '{' '.join(['irm', *help_for.split(), '--help'])}'.\n")


@pytest.mark.parametrize(
    "line", ["ipcp list", "name list --json", "bind ipcp a name b", "ipcp create name a type local"]
)
def test_without_a_node_nothing_is_started(runtime_dir: Path, line: str) -> None:
    assert "start one with `irmd`" in refused(line)
    assert list(runtime_dir.iterdir()) == []


def test_help_version_and_completion_need_no_node(runtime_dir: Path) -> None:
    assert done("--version") == f"irm {__version__}\n"
    assert "Settings:" in done("ipcp bootstrap --help")
    assert "complete -F _irm irm" in done("completion bash")
    assert list(runtime_dir.iterdir()) == []


@pytest.mark.parametrize("line", ["--help", "completion bash"])
def test_a_reader_that_has_seen_enough_ends_it_quietly(runtime_dir: Path, line: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        command = [sys.executable, "-m", "ouroboros.tools.irm", *line.split()]
        result = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True)
    assert (result.returncode, result.stderr) == (-signal.SIGPIPE, "")


# --- words of the running node, for completion


def test_a_shell_is_offered_what_the_running_node_has(lab: NodeProcess) -> None:
    for name in ("clock", "z\u00fcrich", "two words", "$(date)", "`id`", "-c", "a;b", "*"):
        irm.create_name(irm.NameInfo(name))
    assert done("--complete names").splitlines() == ["clock", "z\u00fcrich"]
    assert done("--complete ipcps").splitlines() == ["chat0", "idle", "lab0"]
    assert done("--complete layers").splitlines() == ["chat", "lab"]
    acceptor = Background.waiting_for_node(lambda: flow_accept(name="clock"))
    with flow_alloc("clock"), acceptor.result():
        assert done("--complete pids").splitlines() == [str(os.getpid())]


def test_completion_starts_no_node_and_says_nothing_without_one(runtime_dir: Path) -> None:
    quiet("--complete names", "--complete ipcps", "--complete layers", "--complete pids")
    assert list(runtime_dir.iterdir()) == []


def test_a_node_that_does_not_answer_keeps_no_shell_waiting(node: NodeProcess) -> None:
    node.process.send_signal(signal.SIGSTOP)
    try:
        quiet("--complete names")
    finally:
        node.process.send_signal(signal.SIGCONT)
