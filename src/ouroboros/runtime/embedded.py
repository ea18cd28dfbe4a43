"""The embedded node: a program that finds no node starts one for its user, as ssh-agent or adb do.

Programs that race for it meet at a lock: the first starts the node, the others find it.
"""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from ouroboros.errors import NodeError
from ouroboros.runtime.paths import make_runtime_dir

#: What the node writes into its `--ready-fd` when programs can connect.
READY = b"ready\n"


def start_node(directory: Path, try_connect: Callable[[], socket.socket | None]) -> socket.socket:
    """Start a node in `directory` unless `try_connect` finds one by now; returns a socket connected to it.

    Blocks until the node is ready. Raises `NodeError` with the node's own words when it cannot start.
    """
    make_runtime_dir(directory)
    with open(directory / "start.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (sock := try_connect()) is not None:
            return sock
        _spawn(directory)
        if (sock := try_connect()) is not None:
            return sock
    raise NodeError(f"the node started in {directory} but is gone already: see {_log(directory)}")


def _log(directory: Path) -> Path:
    return directory / "irmd.log"


def _spawn(directory: Path) -> None:
    ready, child_end = os.pipe()
    command = [sys.executable, "-m", "ouroboros.tools.irmd", "--embedded", "--ready-fd", str(child_end)]
    # The node runs the copy of the package that the program runs.
    package = str(Path(__file__).parents[2])
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"OUROBOROS_RUNTIME_DIR": str(directory), "PYTHONPATH": os.pathsep.join(paths)}
    try:
        with open(_log(directory), "w") as log, os.fdopen(ready, "rb") as pipe:
            child = subprocess.Popen(
                command,
                cwd="/",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[child_end],
                start_new_session=True,
            )
            os.close(child_end)
            said = pipe.read()
            # The child only forks the node and ends.
            child.wait()
    except OSError as error:
        raise NodeError(f"cannot start a node: {error}; run `irmd` by hand to see more") from error
    if said != READY:
        words = _log(directory).read_text(errors="replace").strip().splitlines()
        raise NodeError(f"the node did not start: {words[-1] if words else 'it said nothing'} (see {_log(directory)})")
