"""What /proc tells about a process, and about the machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def rss_kib(pid: int, *, forget_peak: bool = False) -> float:
    """Return the resident memory of a process. `forget_peak`: `peak_kib` begins here."""
    if forget_peak:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _rollup(pid, "Rss")


def peak_kib(pid: int) -> float:
    """Return the most resident memory that a process had."""
    return float(_field(Path(f"/proc/{pid}/status"), "VmHWM").split()[0])


def pss_kib(pid: int) -> float:
    """Return the resident memory of a process, each shared page divided by the number of processes that share it."""
    return _rollup(pid, "Pss")


def voluntary_switches(pid: int) -> int:
    """Return how often the threads of a process went to sleep, which is how often they will have been woken."""
    # /proc/PID/status alone speaks of the main thread only.
    return sum(int(_field(task / "status", "voluntary_ctxt_switches")) for task in Path(f"/proc/{pid}/task").iterdir())


def thread_nanoseconds(pid: int, name: str) -> int:
    """Return the processor time of the threads of that name in a process."""
    tasks = (task for task in Path(f"/proc/{pid}/task").iterdir() if (task / "comm").read_text().strip() == name)
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def two_cores() -> tuple[int | None, int | None]:
    """Return two cores for two programs, (None, None) when there is only one. Hyperthreads of one core are not two."""
    cores = sorted(os.sched_getaffinity(0))
    first = cores[0]
    siblings = _siblings(first)
    others = [core for core in cores[1:] if core not in siblings] or cores[1:]
    return (first, others[0]) if others else (None, None)


def machine() -> dict[str, Any]:
    """Return what a reader must know of the machine to judge the figures."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "pyouroboros": _version_of("pyouroboros"),
        "load": round(os.getloadavg()[0], 2),
    }


def _rollup(pid: int, field: str) -> float:
    return float(_field(Path(f"/proc/{pid}/smaps_rollup"), field).split()[0])


def _field(path: Path, name: str) -> str:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    raise ValueError(f"{path} has no field {name}")


def _siblings(core: int) -> set[int]:
    path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
    if not path.exists():
        return {core}
    found: set[int] = set()
    for part in path.read_text().strip().split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
