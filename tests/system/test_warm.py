"""What a warm process forks is as a fresh interpreter: the tests that have it would say the same of one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from warm import Warm

#: Prints what a program can see of how it was started.
LOOKS = """
import atexit, gc, json, os, resource, signal, sys, threading
from pathlib import Path

atexit.register(print, "at exit")
main = sys.modules["__main__"]
shown = Path("/proc/self/environ").read_bytes().rstrip(b"\\0").split(b"\\0")
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps([
    sys.argv, sys.path, __name__, __file__, main.__dict__ is globals(),
    sorted(os.environ.items()), sorted(each.decode() for each in shown) == sorted(f"{k}={v}" for k, v in os.environ.items()),
    os.getcwd(), status["Umask"], status["SigIgn"], status["SigBlk"], status["Threads"],
    [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)],
    os.getsid(0) == os.getpid() == os.getpgrp(),
    [os.readlink(f"/proc/self/fd/{each}").split(":")[0] for each in range(2)], os.listdir("/proc/self/fd"),
    [os.get_inheritable(each) for each in range(3)],
    [(each.fileno(), each.line_buffering, each.encoding, each.errors, each.seekable()) for each in (sys.stdin, sys.stdout)],
    threading.current_thread() is threading.main_thread(), threading.get_native_id() == os.getpid(), gc.isenabled(),
    resource.getrlimit(resource.RLIMIT_NOFILE), sys.stdin.readline(),
]))
print("not flushed by us", end="")
"""

#: Programs that end, each in its way.
ENDS = {
    "at its end": "",
    "status": "raise SystemExit(3)",
    "words": "import sys; sys.exit('words')",
    "exception": "def fail(n):\n    return fail(n - 1) if n else {}['key']\n\nfail(2)",
    "two exceptions": "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise OSError(2, 'no') from error",
    "no syntax": "a b",
    "Ctrl-C": "import os, signal\nos.kill(os.getpid(), signal.SIGINT)",
    "at once": "import os; print('lost'); os._exit(4)",
    "killed": "import os; os.kill(os.getpid(), 9)",
    "of a thread": "import threading\nthread = threading.Thread(target=lambda: 1 / 0, name='t')\nthread.start()",
    "threads": "import threading, time\nthreading.Thread(target=lambda: print('later')).start()",
}


def _outcome(popen: Callable[..., subprocess.Popen[bytes]], command: list[str], errors: Path) -> tuple[int, bytes, str]:
    with errors.open("wb") as stderr:
        process = popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=os.environ | {"MARK": "ä", "EMPTY": ""},
            start_new_session=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(b"told\n")
        process.stdin.flush()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    said = process.stdout.read()
    process.stdout.close()
    return process.wait(), said, errors.read_text()


@pytest.fixture
def both(warm_programs: Warm, tmp_path: Path) -> Callable[..., tuple[int, bytes, str]]:
    """Runs a program in both ways, and returns what came of it."""

    def run(*command: str) -> tuple[int, bytes, str]:
        fresh = _outcome(subprocess.Popen, [sys.executable, *command], tmp_path / "fresh")
        assert _outcome(warm_programs.popen, [sys.executable, *command], tmp_path / "forked") == fresh
        return fresh

    return run


def test_it_sees_what_a_fresh_one_sees(
    both: Callable[..., tuple[int, bytes, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "script.py"
    script.write_text(LOOKS)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    before = os.umask(0o027)
    try:
        status, said, errors = both(str(script), "one", "two words")
    finally:
        os.umask(before)
    assert (status, errors) == (0, "")
    assert said.endswith(b"not flushed by usat exit\n")


@pytest.mark.parametrize("end", ENDS)
def test_it_ends_as_a_fresh_one(both: Callable[..., tuple[int, bytes, str]], tmp_path: Path, end: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"import atexit\natexit.register(print, 'at exit')\n{ENDS[end]}\n")
    both(str(script))


def test_one_that_was_killed_is_there_until_somebody_waits(warm_programs: Warm, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("input()")
    with (tmp_path / "errors").open("wb") as stderr:
        process = warm_programs.popen(
            [sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=dict(os.environ),
        )
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0)
    process.kill()
    # Its number is its own for so long.
    assert os.path.exists(f"/proc/{process.pid}")
    assert process.wait() == process.poll() == -9
    assert not os.path.exists(f"/proc/{process.pid}")
    process.communicate()
