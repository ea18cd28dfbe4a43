"""The C prototype where it is installed, and hosts for it.

It has one daemon a machine, at fixed paths, and needs root. So each host has a network, mounts, shared memory and process
ids of its own. A host ends, with all its processes, when the pipe to it closes, and so also when the program that made it
is killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ouroboros.lab.errors import LabError, UnavailableError

#: Names the prefix of an installation.
VARIABLE = "OUROBOROS_REFERENCE"

_TOOLS = ("unshare", "nsenter", "ip", "mount", "setpriv", "timeout", "chrt", "taskset", "stdbuf")
#: Its layers lose flows when the answer to a request overtakes what they do with the request (`unicast-data.md`, U25). Its
#: threads run in the order in which they were woken if they have one processor, and a real-time priority where that may be.
_IN_TURN = "in_turn='chrt --fifo 1 taskset --cpu-list {cpu}'; $in_turn true || in_turn=; "
#: Seconds until its daemon counts as one that does not start, and until a command of its counts as lost.
_STARTS_WITHIN, _PATIENCE = 20, 6
#: The shell stays: `nsenter` stands still when the process does that it began, and nobody would note the end of that.
_DAEMON = "$in_turn irmd --stdout; exit $?"
#: What the names of its processes begin with.
_DAEMONS = ("irmd", "ipcpd")


# --- the installation


@dataclass(frozen=True)
class Installation:
    """Where the prototype's programs are."""

    daemons: Path
    tools: Path
    library: Path

    def security(self) -> list[Path]:
        """Its security directories, of which a host needs at least one for encryption: the path is part of the programs."""
        places = (self.tools.parent / "etc/ouroboros/security", Path("/etc/ouroboros/security"))
        return [folder for folder in places if folder.is_dir()]

    def environment(self) -> dict[str, str]:
        path = f"{self.tools}:{self.daemons}:/usr/sbin:/usr/bin:/sbin:/bin"
        # Nothing else: what is set for our side is not meant for this one.
        return {"PATH": path, "LD_LIBRARY_PATH": str(self.library), "LC_ALL": "C.UTF-8"}


def find_installation(variable: str = VARIABLE, *, search_path: bool = True) -> Installation:
    """The installation under the prefix that the variable names, or on PATH. Raises `UnavailableError` when there is
    none."""
    prefix = os.environ.get(variable)
    if prefix is not None:
        return _installation(Path(prefix, "sbin", "irmd"))
    if search_path:
        for folder in f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin".split(":"):
            # Our own node has the same name, but no programs for its layers beside it.
            if Path(folder, "irmd").exists() and Path(folder, "ipcpd-udp4").exists():
                return _installation(Path(folder, "irmd"))
    on_path = ", or have its irmd on PATH" if search_path else ""
    raise UnavailableError(f"no C prototype is installed: set {variable} to the prefix of one, version 0.23{on_path}")


def _installation(irmd: Path) -> Installation:
    prefix = irmd.resolve().parent.parent
    found = Installation(irmd.parent, prefix / "bin", prefix / "lib")
    for path in (found.daemons / "irmd", found.daemons / "ipcpd-udp4", found.tools / "oping"):
        if not path.exists():
            raise UnavailableError(f"no complete C prototype: {path} is missing")
    return found


def check_machine() -> None:
    """Raises `UnavailableError` unless hosts for the prototype can be made here."""
    if os.geteuid() != 0:
        raise UnavailableError("the C prototype needs root")
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        raise UnavailableError(f"no host for the C prototype: there is no command {', '.join(missing)}")


# --- hosts


class Namespace:
    """The namespaces of one host; `private` ones include mounts, shared memory and process ids, else only the network.
    `network`: the host whose network it has, in the place of one of its own. Raises `UnavailableError` when the kernel
    does not let us have them."""

    def __init__(self, *, private: bool, prepare: str = "", network: Namespace | None = None) -> None:
        self._kinds = ["--net", *(["--mount", "--ipc", "--pid"] if private else [])]
        before = [] if network is None else network.within()
        kinds = [*self._kinds[network is not None :], *(["--mount-proc"] if private else [])]
        # As the first process, `cat` takes all others with it when its input ends.
        script = f"set -e; {prepare}\nip link set lo up; echo ready; exec cat"
        self._process = subprocess.Popen(
            [*before, "unshare", *kinds, "--fork", "--kill-child", "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Not ours: it is no program of a node of ours.
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            start_new_session=True,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            errors = self._process.communicate()[1].decode().strip()
            raise UnavailableError(f"no namespaces here: {errors}")
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        self.pid = int(children)

    def within(self) -> list[str]:
        """What to put before a command to have it run here."""
        return ["nsenter", f"--target={self.pid}", *self._kinds, "--"]

    def processes(self) -> dict[str, int]:
        """Process ids, as seen from outside, by name."""
        return {name: pid for pid, name in self.names().items()}

    def names(self) -> dict[int, str]:
        """Names of processes, by their ids as seen from outside."""
        mine = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = {}
        for folder in Path("/proc").iterdir():
            # Processes end while we look, and some are none of our business.
            with contextlib.suppress(OSError):
                if folder.name.isdigit() and os.readlink(folder / "ns/pid") == mine:
                    found[int(folder.name)] = (folder / "comm").read_text().strip()
        return found

    def close(self) -> None:
        if self._process.returncode is None:
            self._process.communicate()


class Machine:
    """A host with the prototype's daemon, and files of its own in the place of the machine's. No call waits for longer
    than some seconds. `directory`: for its files, which stay there. `security`: its security directory. `network`: as
    of `Namespace`."""

    def __init__(
        self, installation: Installation, directory: Path, security: Path, network: Namespace | None = None
    ) -> None:
        self.installation = installation
        security.mkdir(mode=0o700, exist_ok=True)
        self._log = directory / "irmd.log"
        self._log.touch()
        self._hosts = directory / "hosts"
        self.find({})
        mounts = _mounts(installation, directory, security)
        self.namespace = Namespace(private=True, prepare=mounts, network=network)
        self._daemon: subprocess.Popen[bytes] | None = None

    def find(self, names: Mapping[str, str]) -> None:
        """Have its layers over UDP find these names, and no others, at those addresses."""
        lines = [f"{address} {hashlib.md5(name.encode()).hexdigest()}" for name, address in names.items()]
        self._hosts.write_text("127.0.0.1 localhost\n" + "".join(f"{line}\n" for line in lines))

    def start(self) -> None:
        """Have its daemon begin. Raises `LabError`."""
        with self._log.open("wb") as log:
            self._daemon = subprocess.Popen(
                self.command("sh", "-c", _IN_TURN.format(cpu=min(os.sched_getaffinity(0))) + _DAEMON),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.installation.environment(),
            )
        started = f"until grep -q 'daemon started' '{self._log}'; do sleep 0.02; done"
        self.do("sh", "-c", started, seconds=_STARTS_WITHIN)

    def irm(self, *words: str, seconds: int = _PATIENCE) -> None:
        """Have its `irm` do something. Raises `LabError` when it fails, or takes longer: its layers lose some
        requests, and give up late."""
        self.do("irm", *words, seconds=seconds)

    def do(self, *words: str, seconds: int) -> None:
        """Run a program there to its end. Raises `LabError` when it fails, or takes longer."""
        done = subprocess.run(
            self.command("timeout", str(seconds), *words),
            env=self.installation.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            why = (
                f"did not end within {seconds} s" if done.returncode == 124 else f"ended with status {done.returncode}"
            )
            raise LabError(
                f"{' '.join(words)} of the C prototype {why}: {done.stdout}{done.stderr}{self.log()[-2000:]}"
            )

    def pause(self) -> None:
        """Have its daemons stand still; programs go on. Returns when they do."""
        # Layers may begin meanwhile.
        while running := [pid for pid in self._daemons() if not _stands_still(pid)]:
            self._signal(running, signal.SIGSTOP)

    def resume(self) -> None:
        """Have them go on."""
        self._signal(self._daemons(), signal.SIGCONT)

    def _daemons(self) -> list[int]:
        return [pid for pid, name in self.namespace.names().items() if name.startswith(_DAEMONS)]

    def _signal(self, pids: Iterable[int], number: int) -> None:
        for pid in pids:
            # It may have ended.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def command(self, *words: str) -> list[str]:
        """The command line that runs a program there, with the environment of the installation."""
        return [*self.namespace.within(), *words]

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def close(self) -> None:
        """End all of it at once, as when its power fails."""
        self.namespace.close()
        if self._daemon is not None:
            self._daemon.wait()


def _stands_still(pid: int) -> bool:
    """Or has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "TZX"


def _mounts(installation: Installation, directory: Path, security: Path) -> str:
    """Commands that give the prototype's fixed paths to this host alone."""
    lines = [
        "mount --make-rprivate /",
        "mount -t tmpfs shm /dev/shm",
        "mount -t tmpfs run /run",
        "mkdir /run/ouroboros",
        f"mount --bind '{directory}/hosts' /etc/hosts",
        *(f"mount --bind '{security}' '{folder}'" for folder in installation.security()),
    ]
    return "; ".join(lines)
