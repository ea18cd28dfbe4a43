"""`irmd` with a configuration file, run by systemd or by whatever speaks its protocols."""

from __future__ import annotations

import configparser
import contextlib
import os
import select
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from support import NodeProcess, Programs, node_info, until
from udp_nodes import free_port

from ouroboros import irm
from ouroboros.dev import flow_alloc
from ouroboros.runtime import client
from ouroboros.tools import irmd
from ouroboros.tools.irm import irm_main

CONTRIB = Path(__file__).parents[2] / "contrib"

FILE = """
[name.clock]
prog = ["clockd"]
lb = "round-robin"
[local.lab0]
bootstrap = "lab"
reg = ["clock"]
[broadcast.news0]
bootstrap = "news"
"""


def layers() -> dict[str, str]:
    return {ipcp.name: ipcp.layer for ipcp in irm.list_ipcps()}


def names() -> set[str]:
    return {name.name for name in irm.list_names()}


def run(*options: str, directory: Path | None = None) -> tuple[int, str, str]:
    """An `irmd` that ends by itself: exit status, output, errors."""
    environment = os.environ | ({} if directory is None else {"OUROBOROS_RUNTIME_DIR": str(directory)})
    command = [str(Path(sys.executable).with_name("irmd")), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "irmd.toml"
    path.write_text(FILE)
    return path


# --- at start


def test_the_node_has_what_the_file_says_when_programs_come(
    make_node: Callable[..., NodeProcess], config: Path
) -> None:
    make_node("--config", str(config))
    assert layers() == {"lab0": "lab", "news0": "news"}
    (name,) = irm.list_names()
    assert (name.name, name.programs, name.layers) == ("clock", ("clockd",), ("lab",))
    assert name.pol_lb is irm.LoadBalancePolicy.ROUND_ROBIN


def test_a_layer_over_udp_of_the_file_is_there_when_programs_come(
    make_node: Callable[..., NodeProcess], config: Path
) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    peers = 'peers = ["oping@127.0.0.2"]'
    config.write_text(f'[udp4.net0]\nbootstrap = "net"\nip = "127.0.0.1"\nport = {port}\n{peers}\nreg = ["clock"]\n')
    make_node("--config", str(config))
    (layer,) = irm.list_ipcps()
    assert (layer.layer, layer.address, layer.peers) == ("net", f"127.0.0.1:{port}", ("oping@127.0.0.2",))
    (name,) = irm.list_names()
    assert (name.name, name.layers) == ("clock", ("net",))


def test_what_is_saved_is_what_the_next_node_has(
    make_node: Callable[..., NodeProcess], runtime_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node = make_node()
    for line in (
        f"ipcp bootstrap type udp4 name net0 layer net ip 127.0.0.1 port {free_port()}",
        "ipcp bootstrap type unicast name a layer campus ttl 17 enroll alice enroll bob autobind",
        "ipcp bootstrap type broadcast name chat0 layer chat",
        "name create clock lb spillover",
        "name register clock layer campus",
    ):
        assert irm_main(line.split()) == 0
    irm.bind_program("/bin/sh", "clock", irm.BIND_AUTO, ["-c", "exit 3"])
    saved = tmp_path / "node.toml"
    assert irm_main(["save", str(saved)]) == 0
    assert irm_main(["save"]) == 0
    assert capsys.readouterr().out == saved.read_text() == irm.save_configuration()
    assert irm_main(["save", str(tmp_path / "nowhere" / "node.toml")]) == 1
    assert "cannot be written: No such file or directory" in capsys.readouterr().err
    assert 'ttl = 17\nenroll = ["alice", "bob"]' in saved.read_text().replace("max_ttl", "ttl")
    assert node.stop() == 0
    make_node("--config", str(saved))
    assert irm.save_configuration() == saved.read_text()
    assert layers() == {"net0": "net", "a": "campus", "chat0": "chat"}


def test_a_program_of_the_file_is_started_on_demand(
    make_node: Callable[..., NodeProcess], programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
        flow = flow_accept()
        flow.writeline(' '.join([*sys.argv[1:], *({'NOTIFY_SOCKET', 'LISTEN_PID', 'LISTEN_FDS'} & os.environ.keys())]))
        flow.read()
    """
    script = programs.script("clockd", source)
    # Meant for the node, or for nobody here.
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "1")
    path = tmp_path / "irmd.toml"
    path.write_text(f'[name.clock]\nprog = ["{script}"]\nargs = ["--utc  -i 1"]')
    make_node("--config", str(path))
    with flow_alloc("clock") as flow:
        assert flow.readline() == "--utc -i 1"


def test_a_broken_file_ends_the_node_with_a_sentence(runtime_dir: Path, config: Path) -> None:
    config.write_text(FILE + "\n[name.other]\nprogs = []")
    status, output, errors = run("--config", str(config))
    assert (status, output) == (1, "")
    assert errors.startswith(
        f"irmd: {config}: [name.other] progs: unknown key; known are prog, args, lb, server_enc_file"
    )
    assert not (runtime_dir / "irm.sock").exists()


def test_what_the_node_refuses_ends_it_with_a_sentence(runtime_dir: Path, config: Path) -> None:
    config.write_text(
        '[broadcast.news0]\nbootstrap = "news"\n[name.clock]\nprog = ["clockd-that-is-nowhere"]\nargs = [""]'
    )
    status, _, errors = run("--config", str(config))
    assert status == 1
    assert f"irmd: {config}: [name.clock] prog: there is no program 'clockd-that-is-nowhere' to start" in errors
    assert "Traceback" not in errors
    assert not (runtime_dir / "irm.sock").exists()


@pytest.mark.parametrize("option", ["--config", "--check"])
def test_a_file_that_cannot_be_read_is_a_sentence(runtime_dir: Path, tmp_path: Path, option: str) -> None:
    missing = tmp_path / "missing.toml"
    assert run(option, str(missing)) == (1, "", f"irmd: {missing}: cannot be read: No such file or directory\n")
    broken = tmp_path / "broken.toml"
    broken.write_bytes(b"# caf\xe9\n")
    assert run(option, str(broken)) == (1, "", f"irmd: {broken}: no UTF-8 at byte 5\n")


def test_no_file_is_read_unless_given(node: NodeProcess) -> None:
    assert layers() == {}


# --- check


def test_a_node_without_a_file_reads_whom_it_trusts_at_sighup(node: NodeProcess, runtime_dir: Path) -> None:
    store = runtime_dir / "security" / "cacert"
    store.mkdir(parents=True)
    (store / "broken.pem").write_text("no certificate")
    reload(node, f"CA store cannot be used: {store}/broken.pem")
    assert node_info().pid == node.pid


def test_check_looks_at_the_file_and_runs_nothing(runtime_dir: Path, config: Path) -> None:
    assert run("--check", str(config)) == (0, f"{config}: good, with 1 names and 2 IPC processes\n", "")
    assert list(runtime_dir.iterdir()) == []


def test_check_says_what_is_wrong(runtime_dir: Path, config: Path) -> None:
    config.write_text('[eth-dix.u0]\nbootstrap = "net"\ndev = 1')
    status, output, errors = run("--check", str(config))
    assert (status, output) == (1, "")
    assert errors.startswith(f"irmd: {config}: [eth-dix.u0] dev: must be")
    assert list(runtime_dir.iterdir()) == []


def test_the_example_is_good(runtime_dir: Path) -> None:
    status, _, errors = run("--check", str(CONTRIB / "irmd.toml"))
    assert (status, errors) == (0, "")


# --- SIGHUP


def reload(node: NodeProcess, said: str) -> None:
    """Have the node read its file again, and wait until it has said so."""
    before = node.log().count(said)
    node.process.send_signal(signal.SIGHUP)
    until(lambda: node.log().count(said) > before)


def test_sighup_adds_what_is_new_and_leaves_the_rest(make_node: Callable[..., NodeProcess], config: Path) -> None:
    node = make_node("--config", str(config))
    irm.create_name(irm.NameInfo("by-hand"))
    before = {ipcp.name: ipcp for ipcp in irm.list_ipcps()}
    config.write_text(FILE.replace("[broadcast.news0]", "[broadcast.more0]").replace('"news"', '"more"') + "[name.new]")
    reload(node, "again")
    assert names() == {"clock", "by-hand", "new"}
    assert layers() == {"lab0": "lab", "news0": "news", "more0": "more"}
    assert before.items() <= {ipcp.name: ipcp for ipcp in irm.list_ipcps()}.items()
    reload(node, "again")
    assert layers() == {"lab0": "lab", "news0": "news", "more0": "more"}


def test_a_broken_file_changes_nothing_at_sighup(make_node: Callable[..., NodeProcess], config: Path) -> None:
    node = make_node("--config", str(config))
    config.write_text("[name.new]\n[name.other]\nprogs = []")
    reload(node, "[name.other] progs: unknown key; known are prog, args, lb, server_enc_file")
    assert names() == {"clock"}
    assert "; nothing was changed" in node.log()
    config.unlink()
    reload(node, "cannot be read")
    assert node_info().pid == node.pid


def test_what_cannot_be_done_at_sighup_is_logged_and_the_rest_is_done(
    make_node: Callable[..., NodeProcess], config: Path
) -> None:
    node = make_node("--config", str(config))
    config.write_text('[local.lab0]\nbootstrap = "elsewhere"\n[broadcast.more0]\nbootstrap = "more"')
    reload(node, "[local.lab0] the node has an IPC process 'lab0', local, in layer 'lab'")
    until(lambda: "more0" in layers())
    assert layers() == {"lab0": "lab", "news0": "news", "more0": "more"}


# --- socket activation


@contextlib.contextmanager
def listener(directory: Path, kind: socket.SocketKind = socket.SOCK_STREAM) -> Iterator[socket.socket]:
    """The control socket as systemd opens it."""
    path = directory / "irm.sock"
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.bind(str(path))
        try:
            if kind == socket.SOCK_STREAM:
                sock.listen()
            yield sock
        finally:
            path.unlink()


@contextlib.contextmanager
def activated(
    sock: socket.socket, log: Path, *options: str, count: int = 1, pid: str = "os.getpid()"
) -> Iterator[subprocess.Popen[bytes]]:
    """An `irmd` to which the socket was passed as systemd does."""
    code = (
        f"import os, sys; os.dup2({sock.fileno()}, 3); "
        f"os.environ.update(LISTEN_PID=str({pid}), LISTEN_FDS='{count}'); os.execv(sys.argv[1], sys.argv[1:])"
    )
    irmd_command = [sys.executable, "-m", "ouroboros.tools.irmd", *options]
    with log.open("wb") as stream:
        node = subprocess.Popen(
            [sys.executable, "-c", code, *irmd_command],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            pass_fds=[sock.fileno()],
        )
    try:
        yield node
    finally:
        node.kill()
        node.wait()


def test_a_socket_that_is_passed_is_served_and_left_alone(
    runtime_dir: Path, tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUROBOROS_AUTOSTART", "0")
    with listener(runtime_dir) as sock:
        inode = (runtime_dir / "irm.sock").stat().st_ino
        with activated(sock, tmp_path / "log", "--config", str(config)) as node:
            # The program came before the node was ready, and waits in the socket.
            assert layers() == {"lab0": "lab", "news0": "news"}
            assert node_info().pid == node.pid
            node.terminate()
            assert node.wait() == 0
        assert (runtime_dir / "irm.sock").stat().st_ino == inode
        client.client.forget()
        # The next program finds the next node behind the same socket.
        with activated(sock, tmp_path / "log") as again:
            assert node_info().pid == again.pid
            again.terminate()
            assert again.wait() == 0


def test_a_socket_for_another_process_is_not_taken(runtime_dir: Path, tmp_path: Path) -> None:
    with listener(runtime_dir) as sock:
        other = runtime_dir / "other"
        with activated(sock, tmp_path / "log", "--directory", str(other), pid="1") as node:
            until(lambda: node.poll() is not None or "ready in" in (tmp_path / "log").read_text())
            assert (other / "irm.sock").is_socket()
            node.terminate()
            assert node.wait() == 0


def test_what_was_passed_must_be_the_control_socket(runtime_dir: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with listener(runtime_dir) as sock:
        with activated(sock, log, "--directory", str(tmp_path)) as node:
            assert node.wait() == 1
        assert "programs look for" in log.read_text()
        with activated(sock, log, count=2) as node:
            assert node.wait() == 1
        assert "2 sockets were passed" in log.read_text()
    with listener(runtime_dir, socket.SOCK_DGRAM) as sock:
        with activated(sock, log) as node:
            assert node.wait() == 1
        assert "no listening Unix stream socket" in log.read_text()
        assert "Traceback" not in log.read_text()


# --- sd_notify


def notified(directory: Path, address: str, name: str, options: list[str]) -> list[bytes]:
    """What a node tells at `address`, from its start to its end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        command = [sys.executable, "-m", "ouroboros.tools.irmd", *options]
        node = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"NOTIFY_SOCKET": name}
        )
        pidfd = os.pidfd_open(node.pid)
        try:
            # What it tells, or its end.
            select.select([sock.fileno(), pidfd], [], [])
            told = [sock.recv(100, socket.MSG_DONTWAIT)]
            if told == [b"READY=1"]:
                assert (directory / "irm.sock").is_socket()
            node.terminate()
            assert node.wait() == 0
            told.append(sock.recv(100, socket.MSG_DONTWAIT))
        finally:
            os.close(pidfd)
            node.kill()
            node.wait()
    return told


def test_the_node_tells_when_it_is_ready_and_when_it_stops(runtime_dir: Path, tmp_path: Path, config: Path) -> None:
    address = str(runtime_dir / "notify")
    assert notified(runtime_dir, address, address, ["--config", str(config)]) == [b"READY=1", b"STOPPING=1"]
    os.unlink(address)


def test_it_tells_an_abstract_socket_too(runtime_dir: Path) -> None:
    name = f"ouroboros-test-{os.getpid()}"
    assert notified(runtime_dir, f"\0{name}", f"@{name}", []) == [b"READY=1", b"STOPPING=1"]


def test_nobody_who_listens_is_no_reason_to_end(
    make_node: Callable[..., NodeProcess], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    node = make_node()
    assert node_info().pid == node.pid
    assert "nobody could be told that READY=1" in node.log()


# --- units


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string((CONTRIB / name).read_text())
    return parser


def test_the_units_fit_together_and_to_irmd() -> None:
    service, sock = unit("irmd.service"), unit("irmd.socket")
    program, *options = shlex.split(service["Service"]["ExecStart"])
    assert program.endswith("/irmd")
    with click.Context(irmd.irmd) as context:
        parsed = irmd.irmd.make_parser(context).parse_args(options)[0]
    assert f"{parsed['directory']}/irm.sock" == sock["Socket"]["ListenStream"]
    assert str(parsed["config"]).endswith("/irmd.toml")
    assert service["Service"]["Type"] == "notify"
    assert "-HUP" in service["Service"]["ExecReload"]
    assert service["Unit"]["Requires"] == service["Install"]["Also"] == "irmd.socket"
