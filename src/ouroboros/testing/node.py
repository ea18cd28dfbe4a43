"""Private nodes for tests, as processes or within the test process. They need no privileges and end with the test.

They behave like the embedded node that programs start by themselves, but do not end when nobody uses them.
"""

from __future__ import annotations

import asyncio
import math
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ouroboros._owned import Uncopied
from ouroboros.control.names import ROUND_ROBIN
from ouroboros.errors import NodeError
from ouroboros.runtime import client
from ouroboros.runtime.descriptors import pipe
from ouroboros.runtime.embedded import READY
from ouroboros.runtime.node import Node as Runtime
from ouroboros.testing.impaired import ImpairedLayer, with_seed
from ouroboros.wire.control import BindProgram, CreateName, ListNames, Request

if TYPE_CHECKING:
    import pytest


class Node(Uncopied):
    """A node of a test's own. `directory`: its runtime directory. `security`: its security directory, which is not there
    until the test makes it. `pid`: of its process."""

    def __init__(self, folder: Path) -> None:
        #: Where programs are looked for.
        self._folder = folder
        # Not below pytest's own directory, which is too long for the path of a socket.
        self.directory = Path(tempfile.mkdtemp(prefix="ouroboros-"))
        self.security = self.directory / "security"
        self.pid = os.getpid()
        self._layers: dict[str, ImpairedLayer] = {}
        self._programs = 0

    def names(self) -> list[str]:
        """The names that the node knows, sorted."""
        return sorted(entry.name for entry in self._request(ListNames()))

    def serve(self, name: str, program: str | os.PathLike[str], *arguments: str) -> None:
        """Have a program accept the flows to a name. The node starts it for the first one, and ends it with the test.

        `program`: a Python script or an executable, looked for beside the file of the test and then where pytest runs. What
        it prints is shown when the test fails.
        """
        path = self._find(program)
        self._programs += 1
        folder = self.directory / "programs" / str(self._programs)
        folder.mkdir(parents=True)
        # A starter of the same name: a program is known by that, and a script need not be executable.
        starter = folder / path.name
        command = [sys.executable, str(path)] if path.suffix == ".py" else [str(path)]
        starter.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
        starter.chmod(0o700)
        self._request(CreateName(name, ROUND_ROBIN))
        self._request(BindProgram(str(starter), name, True, list(arguments)))

    def impair(self, name: str, impair: str = "none", *, seed: int | None = None) -> ImpairedLayer:
        """Let flows to a name go through a bad link from now on, or through another one: `node.impair("clock", "loss=1%")`.

        `docs/testing.md` has the words. `seed` goes before one that is among them. Raises `IpcpBootstrapError` naming the
        word that is wrong.
        """
        text = with_seed(impair, seed)
        layer = self._layers.get(name)
        if layer is None:
            layer = self._layers[name] = ImpairedLayer(self._request, len(self._layers) + 1, name, text)
        else:
            layer.impair(text)
        return layer

    @contextmanager
    def use(self) -> Iterator[None]:
        """Within this block, calls of this process are for this node, and so are programs that it starts."""
        chosen = self._environment()
        before = {name: os.environ.get(name) for name in chosen}
        os.environ.update(chosen)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def select(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Be the node that is found until the end of the test. None is started in its place, should it die."""
        for name, value in self._environment().items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("OUROBOROS_AUTOSTART", "0")

    def stop(self) -> None:
        """End the node, and the programs that it started. Does nothing the second time."""
        raise NotImplementedError

    def clean_up(self) -> None:
        """Remove what a stopped node has left."""
        client.client.disconnect(str(self.directory))
        shutil.rmtree(self.directory)

    def _environment(self) -> dict[str, str]:
        """Of programs that are for this node, whatever stack this user has chosen for others."""
        return {"OUROBOROS_RUNTIME_DIR": str(self.directory), "OUROBOROS_BACKEND": "node"}

    def _request(self, request: Request) -> Any:  # noqa: ANN401
        with self.use():
            return client.request(request, start=False)

    def _find(self, program: str | os.PathLike[str]) -> Path:
        for path in (self._folder / program, Path(program).absolute()):
            if path.is_file():
                return path
        raise FileNotFoundError(f"there is no program {os.fspath(program)!r} in {self._folder} or {Path.cwd()}")


class ProcessNode(Node):
    """A node in a process of its own, as programs find it outside of tests."""

    #: Arguments of the interpreter.
    _host: ClassVar[tuple[str, ...]] = ("-m", "ouroboros.testing.host")
    #: What starts the process, in the way of `subprocess.Popen`.
    _popen: ClassVar[Callable[..., subprocess.Popen[bytes]]] = subprocess.Popen

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._log = self.directory / "irmd.log"
        ready, child_end = pipe()
        # The node runs the copy of the package that the test runs.
        paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        with self._log.open("wb") as log, os.fdopen(ready, "rb") as told:
            self._process = type(self)._popen(
                [sys.executable, *self._host, str(self.directory), str(child_end)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env=os.environ
                | self._environment()
                | {
                    "OUROBOROS_SECURITY_DIR": str(self.security),
                    "OUROBOROS_STATE_DIR": str(self.directory),
                    "PYTHONPATH": os.pathsep.join(paths),
                },
                pass_fds=[child_end],
            )
            os.close(child_end)
            said = told.read()
        self.pid = self._process.pid
        if said != READY:
            self.stop()
            words = self.log()
            self.clean_up()
            raise NodeError(f"the node of the test did not start:\n{words}")

    def kill(self) -> None:
        """End it as a crash would."""
        self._process.kill()
        self.stop()

    def stop(self) -> None:
        # The node ends at the end of its input, and so it does when the test process is killed.
        self._process.communicate()

    def log(self) -> str:
        """The output of the node and of the programs that it started."""
        return self._log.read_text(errors="replace")


class ThreadNode(Node):
    """A node in a thread of the test process."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name=f"node in {self.directory}", daemon=True)
        self._thread.start()
        try:
            self._ready.result()
        except BaseException:
            self.clean_up()
            raise

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._node.stop)
            self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        directory = self.directory
        self._node = Runtime(directory, embedded=True, idle_time=math.inf, security=self.security, state=directory)
        await self._node.run(lambda: self._ready.set_result(None))
