"""Run the examples as separate programs on a node of their own, and check what they say. `make demo` runs this.

Everything happens under a fresh runtime directory, so a node that you use is left alone. The exit code is 0 only if
every program said and did what it should.
"""

import hashlib
import os
import random
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ouroboros import irm

EXAMPLES = Path(__file__).resolve().parent
PATIENCE = 60.0  # seconds for the whole demo
FILE_SIZE = 16 << 20  # bytes


class DemoError(Exception):
    """A program did not do what the demo expects."""


class Stage:
    """The programs of the demo, and the watchdog that ends them all if one hangs."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []
        self._watchdog = threading.Timer(PATIENCE, self._give_up)
        self._watchdog.daemon = True
        self.gave_up = False

    def __enter__(self) -> "Stage":
        self._watchdog.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._watchdog.cancel()
        self._kill()
        for process in self._running:
            with process:  # closes its pipes and waits for its end
                pass

    def start(self, program: str, *arguments: str) -> subprocess.Popen[str]:
        """Start an example; what it prints, errors included, comes out of its pipe."""
        process = subprocess.Popen(
            [sys.executable, str(EXAMPLES / f"{program}.py"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._running.append(process)
        return process

    def _give_up(self) -> None:
        self.gave_up = True
        self._kill()

    def _kill(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()


def expect(process: subprocess.Popen[str], text: str) -> str:
    """The next line that the program prints; it must contain the text."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if text not in line:
        process.kill()
        said = (line + process.stdout.read()).strip()
        raise DemoError(f"{title(process)} should have said {text!r}, but said {said!r}")
    return line.strip()


def type_line(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(text + "\n")
    process.stdin.flush()


def finish(process: subprocess.Popen[str]) -> None:
    """Close the program's input and wait for its end, which must be a good one."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    rest = process.stdout.read().strip()
    if process.wait() != 0 or rest:
        raise DemoError(f"{title(process)} ended with exit code {process.returncode}, saying {rest!r}")


def title(process: subprocess.Popen[str]) -> str:
    """The command line, short enough to print."""
    assert isinstance(process.args, list)
    return " ".join(Path(str(word)).name for word in process.args[1:])


def echo(stage: Stage) -> None:
    server = stage.start("oecho", "--listen")
    expect(server, "Waiting for flows to oecho")
    started = time.monotonic()
    client = stage.start("oecho")
    answer = expect(client, "Hello, PyOuroboros!")
    finish(client)
    seconds = time.monotonic() - started
    expect(server, "Client says: Hello, PyOuroboros!")
    server.send_signal(signal.SIGINT)
    expect(server, "Stopped.")
    finish(server)
    told(f"oecho     {answer!r}, {seconds:.2f} s from starting the client to its end")


def chat(stage: Stage) -> None:
    members = [stage.start("chat", nick) for nick in ("ada", "grace")]
    for member in members:
        expect(member, "joined broadcast")
    late = stage.start("chat", "radia", "--say", "hello, room", "--count", "2")
    expect(late, "radia joined broadcast")
    for member in members:
        expect(member, "radia: hello, room")
    for member, nick in zip(members, ("ada", "grace"), strict=True):
        type_line(member, f"welcome from {nick}")
        expect(late, f"{nick}: welcome from {nick}")
    finish(late)
    expect(members[0], "grace: welcome from grace")
    expect(members[1], "ada: welcome from ada")
    for member in members:
        finish(member)
    told("chat      3 members said 3 lines; each heard the 2 of the others, and none heard its own")


def sendfile(stage: Stage, directory: Path) -> None:
    inbox = directory / "inbox"
    inbox.mkdir()
    source = directory / "numbers.bin"
    content = random.Random(23).randbytes(FILE_SIZE)
    source.write_bytes(content)
    receiver = stage.start("sendfile", "--listen", str(inbox))
    expect(receiver, "Waiting for the sender")
    sender = stage.start("sendfile", str(source))
    expect(sender, "Waiting for the receiver")
    rate = expect(sender, f"sent {FILE_SIZE} bytes")
    digest = hashlib.sha256(content).hexdigest()
    expect(sender, f"sha256 {digest}: both ends agree")
    finish(sender)
    expect(receiver, f"received {FILE_SIZE} bytes")
    expect(receiver, f"sha256 {digest}")
    finish(receiver)
    if (inbox / source.name).read_bytes() != content:
        raise DemoError("the received file differs from the one that was sent")
    told(f"sendfile  {rate}, sha256 {digest[:16]}… at both ends")


def told(line: str) -> None:
    print(line, flush=True)


@contextmanager
def own_node() -> Iterator[Path]:
    """A directory in which an embedded node starts by itself; the node is ended afterwards."""
    with tempfile.TemporaryDirectory(prefix="ouroboros-demo-") as name:
        os.environ["OUROBOROS_RUNTIME_DIR"] = str(Path(name) / "run")
        try:
            yield Path(name)
        finally:
            end_node()


def end_node() -> None:
    try:
        with irm.running_node_only():
            pid = irm.node_info().pid
    except irm.NodeError:
        return  # it never started, or is gone already
    ended = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(ended, signal.SIGTERM)
        if not select.select([ended], [], [], PATIENCE)[0]:
            raise DemoError(f"the node, pid {pid}, does not end")
    finally:
        os.close(ended)


def main() -> None:
    started, stage = time.monotonic(), Stage()
    # A shell starts background jobs with SIGINT ignored, and programs inherit that; ours are to be stopped with it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with own_node() as directory, stage:
            # A client waits for the server of a name that exists, so it does not matter which of them is ready first.
            for name in ("oecho", "sendfile"):
                irm.create_name(irm.NameInfo(name))
            node = irm.node_info()
            told(f"node      version {node.version}, pid {node.pid}, started by the first call that needed one")
            echo(stage)
            chat(stage)
            sendfile(stage, directory)
    except (DemoError, irm.IrmError, OSError) as error:
        sys.exit(f"demo failed{f' (given up after {PATIENCE:g} s)' if stage.gave_up else ''}: {error}")
    told(f"done      all as expected, {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main()
