"""C programs for tests: built against the libraries that `ouroboros cdev` installs, in processes of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from support import until, waits

SOURCES = Path(__file__).parent / "capi"


def not_built() -> str | None:
    """Why there are no C libraries of ours here, None when there are."""
    import ouroboros

    library = Path(ouroboros.__file__).parent / "cdev" / "lib" / "libouroboros-dev.so"
    return None if library.exists() else "the C libraries are not built: run `make build`"


def cannot_build() -> str | None:
    """Why C programs cannot be built here, None when they can."""
    return not_built() or (None if shutil.which("gcc") else "there is no gcc")


def install(prefix: Path) -> None:
    """Run `ouroboros cdev`."""
    command = [sys.executable, "-m", "ouroboros.tools.main", "cdev", "--prefix", str(prefix)]
    subprocess.run(command, check=True, capture_output=True)


def build(name: str, prefix: Path, folder: Path) -> Path:
    """Compile one of `tests/capi`; every warning is an error."""
    program = folder / name
    flags = ["-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-unused-const-variable", "-pthread"]
    places = [f"-I{prefix}/include", f"-L{prefix}/lib", f"-Wl,-rpath,{prefix}/lib"]
    source = str(SOURCES / f"{name}.c")
    libraries = ["-louroboros-dev", "-louroboros-irm"]
    command = ["gcc", *flags, *places, source, "-o", str(program), *libraries]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


class CProgram:
    """A C program that runs; its input stays open until `finish`."""

    def __init__(self, *words: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | environment,
            start_new_session=True,
        )
        self.pid = self.process.pid

    def line(self) -> str:
        """The next line that it says."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert line, f"it ended with status {self.process.wait()}"
        return line.rstrip("\n")

    def until_asleep(self, what: str) -> None:
        until(lambda: waits(self.pid, self.pid, what))

    def finish(self) -> tuple[int, str, str]:
        """End its input; its exit status, and what else it says on standard output and standard error."""
        out, err = self.process.communicate()
        return self.process.returncode, out.decode(errors="replace"), err.decode(errors="replace")

    def dispose(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ValueError, BrokenPipeError):
            self.process.communicate()
