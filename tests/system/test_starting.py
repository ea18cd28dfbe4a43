"""Starting the embedded node comes to an end, in time, with a node or with a sentence."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stuck_node import StuckNode
from support import Programs, Shell, asleep_in, until, users_of

from ouroboros.errors import NodeError

pytestmark = pytest.mark.slow

INFO = "from ouroboros.wire.control import NodeInfo; client.request(NodeInfo()).embedded"

#: Starts nothing, whatever it is told, and says nothing.
SLEEPER = "#!/bin/sh\nexec tail -f /dev/null\n"


@pytest.fixture
def shell(embedded: Path, programs: Programs) -> Shell:
    """A program without a node, which waits for less than usual."""
    shell = programs.shell()
    shell.do("client._START = 0.5; client._START_GRACE = 0.5; client._PATIENCE = 1e6")
    return shell


def script(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


class TestInterpreter:
    @pytest.mark.parametrize("executable", ["''", "None", "'/bin/true'", "'/no/python3'", "'/'", "sys.argv[0]"])
    def test_it_is_found_whatever_sys_executable_is(self, embedded: Path, programs: Programs, executable: str) -> None:
        shell = programs.shell()
        shell.do(f"sys.executable = {executable}; None")
        assert shell.do(INFO) is True

    def test_a_frozen_program_takes_the_irmd_on_path(self, embedded: Path, programs: Programs) -> None:
        folder = str(Path(sys.executable).parent)
        shell = programs.shell(PATH=f"{folder}:/bin:/usr/bin")
        shell.do("sys.frozen = True; sys.executable = sys.argv[0]; None")
        assert shell.do(INFO) is True

    def test_a_frozen_program_without_irmd_is_told_what_to_do(self, embedded: Path, programs: Programs) -> None:
        shell = programs.shell(PATH="/nowhere")
        shell.do("sys.frozen = True; sys.executable = '/opt/app/app'; None")
        with pytest.raises(NodeError, match=r"sys.executable is '/opt/app/app'.*run `irmd`, or set OUROBOROS_IRMD"):
            shell.do(INFO)
        assert users_of(embedded) == [shell.pid]

    def test_a_command_that_is_named_comes_first(self, embedded: Path, programs: Programs) -> None:
        irmd = Path(sys.executable).with_name("irmd")
        shell = programs.shell(OUROBOROS_IRMD=str(irmd), PATH="/nowhere")
        shell.do("sys.executable = None")
        assert shell.do(INFO) is True


class TestWhatIsNoNode:
    def test_a_program_that_is_started_in_its_own_place_starts_no_other(
        self, embedded: Path, programs: Programs, tmp_path: Path
    ) -> None:
        """Nor does it get into the place of a node."""
        program = programs.script("itself", "flow_accept()")
        shell = programs.shell(OUROBOROS_IRMD=str(program))
        with pytest.raises(NodeError, match=f"process {shell.pid} started this program as its node, which it is not"):
            shell.do(INFO)
        assert users_of(embedded) == [shell.pid]

    def test_nor_does_one_that_carries_on_in_another_directory(
        self, embedded: Path, programs: Programs, tmp_path: Path
    ) -> None:
        elsewhere = tmp_path / "elsewhere"
        program = programs.script("itself", f"os.environ['OUROBOROS_RUNTIME_DIR'] = {str(elsewhere)!r}\nflow_accept()")
        with pytest.raises(NodeError, match="which it is not"):
            programs.shell(OUROBOROS_IRMD=str(program)).do(INFO)
        assert users_of(elsewhere) == []

    @pytest.mark.parametrize("call", [INFO, "flow_accept(timeo=0)", "flow_accept()"])
    def test_what_never_gets_ready_is_ended(self, embedded: Path, shell: Shell, tmp_path: Path, call: str) -> None:
        shell.do(f"os.environ['OUROBOROS_IRMD'] = {str(script(tmp_path, 'sleeper', SLEEPER))!r}; None")
        with pytest.raises(NodeError, match="the node did not start: it said nothing in time"):
            shell.do(call)
        assert users_of(embedded) == [shell.pid]

    def test_so_is_what_stops_itself(self, embedded: Path, shell: Shell, tmp_path: Path) -> None:
        stops = script(tmp_path, "stops", "#!/bin/sh\nkill -STOP $$\n")
        shell.do(f"os.environ['OUROBOROS_IRMD'] = {str(stops)!r}; None")
        with pytest.raises(NodeError, match="did not start"):
            shell.do(INFO)
        assert users_of(embedded) == [shell.pid]

    @pytest.mark.parametrize("command", ["/bin/true", "/bin/false", "/no/irmd", "/etc/passwd"])
    def test_what_ends_at_once_is_told(self, embedded: Path, programs: Programs, command: str) -> None:
        with pytest.raises(NodeError, match=r"the node did not start|cannot start a node: .*" + command):
            programs.shell(OUROBOROS_IRMD=command).do(INFO)

    def test_so_is_the_status_of_what_says_nothing(self, embedded: Path, programs: Programs, tmp_path: Path) -> None:
        command = script(tmp_path, "silent", "#!/bin/sh\nexit 3\n")
        with pytest.raises(NodeError, match="it said nothing and ended with status 3"):
            programs.shell(OUROBOROS_IRMD=str(command)).do(INFO)

    def test_ctrl_c_ends_the_start_and_what_was_started(
        self, embedded: Path, programs: Programs, tmp_path: Path
    ) -> None:
        shell = programs.shell(OUROBOROS_IRMD=str(script(tmp_path, "sleeper", SLEEPER)))
        shell.do("1")
        shell.begin(INFO)
        until(lambda: len(users_of(embedded)) > 1)
        shell.signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            shell.answer()
        assert users_of(embedded) == [shell.pid]

    def test_the_next_call_starts_a_node_all_the_same(self, embedded: Path, shell: Shell, tmp_path: Path) -> None:
        shell.do(f"os.environ['OUROBOROS_IRMD'] = {str(script(tmp_path, 'sleeper', SLEEPER))!r}; None")
        with pytest.raises(NodeError):
            shell.do(INFO)
        shell.do("del os.environ['OUROBOROS_IRMD']; client._START = 30.0")
        assert shell.do(INFO) is True


@pytest.fixture
def held(runtime_dir: Path) -> Iterator[int]:
    """The lock of a node, held and said to be by this process."""
    with (runtime_dir / "irmd.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock.fileno()


class TestOthersThatStart:
    def test_a_starter_that_is_stopped_keeps_nobody_for_ever(self, embedded: Path, shell: Shell) -> None:
        with (embedded / "start.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            lock.write("4711")
            lock.flush()
            with pytest.raises(NodeError, match="process 4711 has begun to start a node"):
                shell.do(INFO)
        shell.do("client._START = 30.0")
        assert shell.do(INFO) is True

    @pytest.mark.parametrize("autostart", ["0", "1"])
    def test_a_node_that_is_about_to_be_ready_is_waited_for(
        self, runtime_dir: Path, programs: Programs, held: int, autostart: str
    ) -> None:
        shell = programs.shell(OUROBOROS_AUTOSTART=autostart)
        shell.begin(INFO)
        until(lambda: asleep_in(shell.pid, shell.pid, "room"))
        node = StuckNode(runtime_dir, None)
        # It has found it, and nobody has started another one.
        node.accept()
        assert users_of(runtime_dir) == [shell.pid]
        shell.kill()
        node.close()

    def test_a_node_that_is_never_ready_is_told(self, shell: Shell, held: int) -> None:
        with pytest.raises(NodeError, match=f"is not ready: process {os.getpid()} has the directory"):
            shell.do(INFO)

    def test_without_autostart_one_that_ends_is_none(self, programs: Programs, held: int) -> None:
        os.ftruncate(held, 0)
        with pytest.raises(NodeError, match="no node runs in"):
            programs.shell(OUROBOROS_AUTOSTART="0").do(INFO)
