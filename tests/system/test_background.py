"""`irmd --background`, commands that come right after a node was started, and the README as people paste it."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import Programs, ended, node_info, users_of

from ouroboros.runtime import client
from ouroboros.wire.control import ListNames

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

Bash = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def bash(runtime_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bash]:
    """Has `bash` run lines as they were pasted; ends the nodes that are left."""
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    directories = [runtime_dir]

    def run(lines: str, directory: Path = runtime_dir) -> subprocess.CompletedProcess[str]:
        directories.append(directory)
        environment = os.environ | {"OUROBOROS_RUNTIME_DIR": str(directory)}
        return subprocess.run(["bash", "-e"], input=lines, env=environment, capture_output=True, text=True, check=False)

    yield run
    client.client.forget()
    for directory in dict.fromkeys(directories):
        if (directory / "irm.sock").exists():
            pid = int((directory / "irmd.lock").read_text())
            os.kill(pid, signal.SIGTERM)
            ended(pid)
        print(*(path.read_text() for path in directory.glob("irmd.log")))


class TestBackground:
    def test_it_returns_when_programs_can_connect(self, bash: Bash, runtime_dir: Path) -> None:
        done = bash("irmd --background\nirm name create n")
        assert (done.returncode, done.stderr) == (0, "")
        assert [entry.name for entry in client.request(ListNames(), start=False)] == ["n"]

    def test_it_leaves_terminal_and_directory_and_logs_to_a_file(self, bash: Bash, runtime_dir: Path) -> None:
        assert bash("irmd --background").returncode == 0
        pid = node_info().pid
        assert os.getsid(pid) == pid
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
        log = runtime_dir / "irmd.log"
        assert {os.readlink(f"/proc/{pid}/fd/{number}") for number in (1, 2)} == {str(log)}
        assert f"ready in {runtime_dir}" in log.read_text()

    def test_its_configuration_may_be_named_from_here(self, bash: Bash, runtime_dir: Path, tmp_path: Path) -> None:
        (tmp_path / "irmd.toml").write_text("[name.here]\n")
        assert bash(f"cd {tmp_path}\nirmd --background --config irmd.toml").returncode == 0
        assert [entry.name for entry in client.request(ListNames(), start=False)] == ["here"]

    def test_a_second_one_fails_and_says_why(self, bash: Bash, runtime_dir: Path) -> None:
        assert bash("irmd --background").returncode == 0
        log = (runtime_dir / "irmd.log").read_text()
        done = bash("irmd --background")
        assert done.returncode == 1
        assert f"a node runs in {runtime_dir} already, as process {node_info().pid}" in done.stderr
        # It has not cut off what the first one said.
        assert (runtime_dir / "irmd.log").read_text().startswith(log)

    def test_what_is_wrong_with_its_configuration_is_said(self, bash: Bash, runtime_dir: Path, tmp_path: Path) -> None:
        config = tmp_path / "irmd.toml"
        config.write_text("[nonsense]\n")
        done = bash(f"irmd --background --config {config}")
        assert done.returncode == 1
        assert str(config) in done.stderr
        assert users_of(runtime_dir) == []

    @pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
    def test_it_does_without_standard_descriptors(self, bash: Bash, runtime_dir: Path, closed: str) -> None:
        assert bash(f"irmd --background {closed}").returncode == 0
        assert "ready in" in (runtime_dir / "irmd.log").read_text()


def test_a_command_right_after_a_node_was_started_waits_for_it(bash: Bash) -> None:
    done = bash("irmd > /dev/null 2>&1 &\nirm name create n\nirm name list")
    assert (done.returncode, done.stderr) == (0, "")
    assert "n" in done.stdout


def test_without_a_node_a_command_still_says_so(bash: Bash, runtime_dir: Path) -> None:
    done = bash("irm name list")
    assert (done.returncode, done.stderr) == (1, f"irm: no node runs in {runtime_dir}: start one with `irmd`\n")


def blocks(heading: str) -> list[str]:
    """What a section of the README has people paste into a shell."""
    section = re.search(rf"^## {heading}\n(.*?)^## ", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert section is not None
    return re.findall(r"^```sh\n(.*?)^```", section[1], re.DOTALL | re.MULTILINE)


def test_the_readme_can_be_pasted(bash: Bash, runtime_dir: Path, programs: Programs) -> None:
    on_server, on_client = blocks("Between machines")
    # Other machines are other addresses of this one; nobody else has these.
    address = f"127.{random.randrange(1, 255)}.{random.randrange(1, 255)}."
    near, far = runtime_dir / "near", runtime_dir / "far"
    environment = os.environ | {"OUROBOROS_RUNTIME_DIR": str(far)}
    with subprocess.Popen([sys.executable, ROOT / "examples/oecho.py", "-l"], env=environment) as server:
        while not (far / "irm.sock").exists():
            os.sched_yield()
        for lines, directory in ((on_server, far), (on_client, near)):
            done = bash(lines.replace("192.0.2.", address), directory)
            assert (done.returncode, done.stderr) == (0, "")
        done = bash(f"python {ROOT / 'examples/oecho.py'}", near)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "Server says: Hello, PyOuroboros!\n"
        server.terminate()
