"""The choice between our node and an installed C prototype, and how one is found."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from ouroboros import __version__, backend
from ouroboros.errors import NodeError
from ouroboros.native import find, library, stack
from ouroboros.runtime import client
from ouroboros.tools.info import info


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No node, no daemon and no library, and none that this process has used before."""
    monkeypatch.setattr(library, "_loaded", None)
    monkeypatch.setattr(stack, "_stack", None)
    monkeypatch.setenv("OUROBOROS_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("OUROBOROS_LIBDIR", str(tmp_path))
    monkeypatch.delenv("OUROBOROS_BACKEND", raising=False)
    monkeypatch.setattr(find, "SOCKET", str(tmp_path / "c.sock"))
    monkeypatch.setattr(find, "_PATIENCE", 0.2)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[socket.socket]:
    """Answers as the daemon of the prototype does, for as long as it is open."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listening.bind(str(tmp_path / "c.sock"))
    listening.listen()

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                if connection.recv(100) == b"\x08\x04":
                    connection.send(b"\x08\x1b\xc8\x01\x00")

    thread = threading.Thread(target=serve)
    thread.start()
    yield listening
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


def install(directory: Path, version: str, content: bytes = b"\x7fELF") -> None:
    (directory / f"libouroboros-dev.so.{version}.0").write_bytes(content)
    (directory / f"libouroboros-dev.so.{version}").symlink_to(f"libouroboros-dev.so.{version}.0")


class TestFind:
    def test_the_newest_version_that_is_known_is_taken(self, tmp_path: Path) -> None:
        for version in "0.22", "0.24", "0.23", "0.20":
            install(tmp_path, version)
        found = find.installed()
        assert (found.version, found.release, found.ours) == ((0, 23), "0.23.0", False)

    def test_what_is_unknown_is_refused_politely(self, tmp_path: Path) -> None:
        with pytest.raises(NodeError, match=r"0\.21, 0\.22, 0\.23"):
            find.installed()
        install(tmp_path, "0.24")
        with pytest.raises(NodeError, match=r"is of version 0\.24; this package knows 0\.21, 0\.22, 0\.23"):
            find.installed()

    def test_the_library_of_this_project_is_recognised(self, tmp_path: Path) -> None:
        install(tmp_path, "0.23", b"\x7fELF...OUROBOROS_RUNTIME_DIR...")
        assert find.installed().ours

    def test_a_daemon_is_one_that_answers(self, daemon: socket.socket) -> None:
        assert find.daemon() > 0

    def test_a_daemon_that_does_not_answer_is_none(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as silent:
            silent.bind(str(tmp_path / "c.sock"))
            silent.listen()
            with pytest.raises(NodeError, match="does not answer"):
                find.daemon()
        with pytest.raises(NodeError, match="no daemon"):
            find.daemon()


@pytest.fixture
def crashing(tmp_path: Path) -> Callable[[int, str], tuple[Path, Path]]:
    """Builds a library whose first starts end badly, and names the file that gets a byte at each start."""

    def build(times: int, how: str) -> tuple[Path, Path]:
        path, starts = tmp_path / "libcrash.so", tmp_path / "starts"
        source = f"""
            #include <fcntl.h>
            #include <signal.h>
            #include <unistd.h>
            __attribute__((constructor)) static void start(void) {{
                int file = open("{starts}", O_CREAT | O_WRONLY | O_APPEND, 0600);
                if (write(file, "x", 1) == 1 && lseek(file, 0, SEEK_CUR) <= {times})
                    {how};
            }}
        """
        subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-o", str(path), "-"], input=source, text=True, check=True)
        return path, starts

    return build


class TestLoad:
    """What would end the process is found out before."""

    def test_without_a_daemon_nothing_is_loaded(self, tmp_path: Path) -> None:
        install(tmp_path, "0.23")
        with pytest.raises(NodeError, match="no daemon"):
            library.load()
        assert library.loaded() is None

    def test_a_library_that_would_end_the_process_ends_another(self, tmp_path: Path, daemon: socket.socket) -> None:
        install(tmp_path, "0.23", b"no library at all")
        with pytest.raises(NodeError, match="does not start here"):
            library.load()

    @pytest.mark.slow
    def test_a_library_that_crashes_is_tried_again(self, crashing: Callable[[int, str], tuple[Path, Path]]) -> None:
        path, starts = crashing(2, "raise(SIGSEGV)")
        library._try_out(path)
        assert starts.stat().st_size == 3

    @pytest.mark.slow
    def test_a_library_that_always_crashes_is_given_up(self, crashing: Callable[[int, str], tuple[Path, Path]]) -> None:
        path, starts = crashing(100, "raise(SIGSEGV)")
        with pytest.raises(NodeError, match=r"crashed at each of 5 starts \(Segmentation fault\): restart the daemon"):
            library._try_out(path)
        assert starts.stat().st_size == 5

    @pytest.mark.slow
    def test_a_library_that_gives_up_is_not_tried_again(
        self, crashing: Callable[[int, str], tuple[Path, Path]]
    ) -> None:
        path, starts = crashing(1, "_exit(1)")
        with pytest.raises(NodeError, match="does not start here: status 1"):
            library._try_out(path)
        assert starts.stat().st_size == 1

    def test_an_interpreter_without_arguments_has_no_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Path, "read_bytes", lambda self: b"/usr/bin/python3\0")
        with pytest.raises(NodeError, match="-q"):
            library._check_name()
        for command in b"python3\0-q\0", b"/usr/bin/python3.11\0", b"./program\0":
            monkeypatch.setattr(Path, "read_bytes", lambda self, command=command: command)
            library._check_name()


class TestChoice:
    def test_alone_it_is_our_node_which_is_started(self) -> None:
        choice = backend.choose()
        assert not choice.native
        assert "no daemon" in choice.reason

    def test_a_daemon_and_its_library_are_used(self, tmp_path: Path, daemon: socket.socket) -> None:
        assert not backend.choose().native
        install(tmp_path, "0.23")
        assert backend.choose().native

    def test_a_node_of_ours_comes_first(
        self, tmp_path: Path, daemon: socket.socket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install(tmp_path, "0.23")
        monkeypatch.setattr(client.client, "find", lambda: True)
        choice = backend.choose()
        assert (choice.native, choice.reason) == (False, f"our node runs in {tmp_path}")

    @pytest.mark.parametrize("word", ["node", "native"])
    def test_the_environment_says_it(self, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OUROBOROS_BACKEND", word)
        assert backend.choose() == (word == "native", f"OUROBOROS_BACKEND is {word}")

    def test_another_word_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OUROBOROS_BACKEND", "nativ")
        with pytest.raises(NodeError, match="node or native, not 'nativ'"):
            backend.choose()

    def test_the_socket_of_a_c_ouroboros_in_our_place_is_told(self, tmp_path: Path) -> None:
        """Both have the same place for root."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
            other.bind(str(tmp_path / "irm.sock"))
            other.listen()
            assert not client.client.find()
            with pytest.raises(NodeError, match="OUROBOROS_BACKEND=native"):
                client.request(None, start=True)  # type: ignore[arg-type]


class TestInfo:
    def test_it_says_which_and_why(self) -> None:
        result = CliRunner().invoke(info)
        assert result.exit_code == 0
        assert result.output.startswith(f"our node {__version__}: no node runs in ")
        assert "starts it" in result.output

    def test_what_cannot_be_used_is_a_failure(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OUROBOROS_BACKEND", "native")
        result = CliRunner().invoke(info)
        assert result.exit_code == 1
        assert "cannot be used: no C Ouroboros is installed" in result.output

    def test_programs_get_an_object(
        self, tmp_path: Path, daemon: socket.socket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install(tmp_path, "0.22")
        found = json.loads(CliRunner().invoke(info, ["--json"]).output)
        assert (found["backend"], found["version"], found["running"]) == ("native", "0.22.0", True)
        assert found["problem"] == ""

    def test_a_wrong_word_is_told(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OUROBOROS_BACKEND", "x")
        result = CliRunner().invoke(info)
        assert result.exit_code == 1
        assert "node or native" in result.output


def test_nothing_of_it_is_imported_before_it_is_used() -> None:
    code = (
        "import sys; import ouroboros.aio, ouroboros.cli, ouroboros.event, ouroboros.irm, ouroboros.server; "
        "print([name for name in sys.modules if name == 'cffi' or name.startswith('ouroboros.native')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
