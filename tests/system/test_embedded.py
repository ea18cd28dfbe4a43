"""The node that a program starts when there is none."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support import Programs, ended, node_info, spawn_irmd, users_of

import ouroboros
from ouroboros.dev import FlowTimeoutException, flow_accept, flow_alloc
from ouroboros.errors import NodeError
from ouroboros.runtime import client
from ouroboros.wire.control import ListIpcps

NODE_PID = "from ouroboros.wire.control import NodeInfo; client.request(NodeInfo()).pid"


def test_the_first_call_starts_a_node(embedded: Path) -> None:
    assert not (embedded / "irm.sock").exists()
    with pytest.raises(FlowTimeoutException):
        flow_accept(timeo=0, name="first")
    info = node_info()
    assert info.embedded
    assert info.runtime_dir == str(embedded)
    assert info.pid != os.getpid()


def test_it_has_a_local_and_a_broadcast_layer(embedded: Path) -> None:
    layers = client.request(ListIpcps())
    assert [(ipcp.type, ipcp.layer, ipcp.state) for ipcp in layers] == [
        ("local", "local", "operational"),
        ("broadcast", "broadcast", "operational"),
    ]


@pytest.mark.parametrize("count", [2, 10])
def test_programs_that_race_share_one_node(embedded: Path, programs: Programs, count: int) -> None:
    shells = [programs.shell(f"racer{number}") for number in range(count)]
    for shell in shells:
        shell.do("1")
    for shell in shells:
        shell.begin(NODE_PID)
    pids = {shell.answer() for shell in shells}
    assert len(pids) == 1
    assert set(users_of(embedded)) == pids | {shell.pid for shell in shells}
    shells[0].begin_blocked("f = flow_accept()", "node")
    shells[1].do("f = flow_alloc('racer0'); f.write(b'found')")
    shells[0].answer()
    assert shells[0].do("f.read()") == b"found"


def test_a_program_accepts_under_its_own_name(embedded: Path, programs: Programs) -> None:
    server = programs.start("with flow_accept() as f: say(f.readline())", name="natural")
    server.until_asleep("node")
    while True:
        # Asleep it may also be while its node starts.
        try:
            flow = flow_alloc("natural")
            break
        except LookupError:
            continue
    with flow:
        flow.writeline("by its script")
        assert server.line() == "by its script"


def test_without_autostart_there_is_a_clear_error(runtime_dir: Path, programs: Programs) -> None:
    shell = programs.shell(OUROBOROS_AUTOSTART="0")
    for call in ("flow_alloc('x')", "flow_accept()", "flow_join('x')"):
        with pytest.raises(NodeError, match="irmd"):
            shell.do(call)
    assert list(runtime_dir.iterdir()) == []


def test_it_outlives_the_program_that_started_it(embedded: Path, programs: Programs) -> None:
    starter = programs.shell("starter")
    pid = starter.do(NODE_PID)
    assert starter.finish() == 0
    assert node_info().pid == pid


def test_ctrl_c_in_the_terminal_of_the_program_does_not_end_it(embedded: Path, programs: Programs) -> None:
    starter = programs.shell("starter")
    pid = starter.do(NODE_PID)
    os.killpg(starter.pid, signal.SIGINT)
    starter.process.wait()
    assert node_info().pid == pid


def test_it_does_not_keep_the_output_of_its_starter_open(embedded: Path, tmp_path: Path) -> None:
    script = tmp_path / "starter.py"
    script.write_text("from ouroboros.dev import *\ntry: flow_accept(timeo=0)\nexcept TimeoutError: print('over')\n")
    # Comes back only when nobody holds the pipe any more.
    output = subprocess.run([sys.executable, str(script)], capture_output=True, check=True).stdout
    assert output == b"over\n"
    assert node_info().embedded


def test_it_ends_by_itself_when_nobody_uses_it(runtime_dir: Path, tmp_path: Path) -> None:
    with (tmp_path / "irmd.log").open("wb") as log:
        node = spawn_irmd(runtime_dir, log, "--embedded", "--idle-time", "0.2")
    assert node.wait() == 0
    assert not (runtime_dir / "irm.sock").exists()


def test_it_does_not_end_while_a_program_uses_it(embedded: Path, programs: Programs) -> None:
    ready, child_end = os.pipe()
    with (embedded / "irmd.log").open("wb") as log:
        node = spawn_irmd(
            embedded, log, "--embedded", "--idle-time", "0.05", "--ready-fd", str(child_end), keep=child_end
        )
    os.close(child_end)
    with os.fdopen(ready, "rb") as pipe:
        server = programs.shell("server")
        assert pipe.read()
    node.wait()
    server.begin("f = flow_accept(timeo=0.5)")
    with pytest.raises(FlowTimeoutException):
        server.answer()
    pid = server.do(NODE_PID)
    assert server.finish() == 0
    ended(pid)
    assert not (embedded / "irm.sock").exists()


def test_when_it_is_killed_waiting_programs_learn_it_and_the_next_call_starts_another(
    embedded: Path, programs: Programs
) -> None:
    shell = programs.shell("server")
    shell.begin_blocked("f = flow_accept()", "node")
    pid = node_info().pid
    os.kill(pid, signal.SIGKILL)
    ended(pid)
    with pytest.raises(NodeError, match="went away"):
        shell.answer()
    # Nobody has asked for another one yet.
    assert users_of(embedded) == [shell.pid]
    shell.begin_blocked("f = flow_accept()", "node")
    assert node_info().pid != pid
    with flow_alloc("server") as flow:
        shell.answer()
        flow.write(b"again")
        assert shell.do("f.read()") == b"again"


def test_a_node_that_cannot_start_says_why(runtime_dir: Path, programs: Programs) -> None:
    shell = programs.shell()
    runtime_dir.chmod(0o777)
    with pytest.raises(NodeError, match="not safe"):
        shell.do("flow_accept(timeo=0)")


#: Says so when a module of the environment, of the user or of the working directory runs.
TRAP = "import os, sys; open(os.environ['TRAP'], 'a').write(f'{__name__} {sys.argv}\\n')\n"


@pytest.mark.parametrize("options", [["-I"], ["-E"], ["-I", "-S"], ["-E", "-P", "-s"], ["-I", "-W", "error"]], ids=repr)
def test_a_node_is_as_isolated_as_the_program_that_starts_it(
    embedded: Path, tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    # One of the standard library, one of a dependency, one that any interpreter looks for at its start, and ourselves.
    for name in ("asyncio", "click", "msgspec", "sitecustomize", "ouroboros"):
        (hostile / f"{name}.py").write_text(TRAP)
    monkeypatch.setenv("PYTHONPATH", str(hostile))
    monkeypatch.setenv("PYTHONUSERBASE", str(hostile))
    monkeypatch.setenv("TRAP", str(tmp_path / "trapped"))
    monkeypatch.chdir(hostile)
    # Under -S a program has to say where its packages are.
    paths = [path for path in sys.path if path.endswith(("-packages", "/src"))]
    # As a copy that is not installed does it.
    package = str(Path(ouroboros.__file__).parents[1])
    code = f"import sys; sys.path += {paths!r}; sys.path.insert(0, {package!r}); from ouroboros.dev import *; "
    script = tmp_path / "program.py"
    script.write_text(code + "\ntry: flow_accept(timeo=0)\nexcept TimeoutError: pass\n")
    subprocess.run([sys.executable, *options, str(script)], check=True)
    info = node_info()
    assert not (tmp_path / "trapped").exists()
    flags = Path(f"/proc/{info.pid}/cmdline").read_text().split("\0")
    assert set(options) - {"-W", "error"} <= set(flags)
    with pytest.raises(FlowTimeoutException):
        flow_accept(timeo=0, name="works")


def test_a_node_runs_the_copy_of_the_package_that_an_isolated_program_runs(embedded: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(Path(ouroboros.__file__).parent, copy / "ouroboros")
    (copy / "ouroboros/__init__.py").write_text('__version__ = "0.0.copy"\n')
    script = tmp_path / "program.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(copy)!r})\nfrom ouroboros.dev import *\n"
        "try: flow_accept(timeo=0)\nexcept TimeoutError: pass\n"
    )
    subprocess.run([sys.executable, "-I", str(script)], check=True)
    assert node_info().version == "0.0.copy"


def test_a_program_that_is_not_isolated_finds_what_its_node_needs_by_the_environment(
    embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # That is what PYTHONPATH is for.
    (tmp_path / "sitecustomize.py").write_text(TRAP)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("TRAP", str(tmp_path / "trapped"))
    code = "from ouroboros.dev import *\ntry: flow_accept(timeo=0)\nexcept TimeoutError: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert len((tmp_path / "trapped").read_text().splitlines()) == 2
