"""The real clock with kernel network stacks: a network namespace for each node, and a pair of veth devices for each
link.

Root is not needed where the kernel lets users have namespaces of users: then all of it is in one.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Sequence

from ouroboros.lab.description import Link
from ouroboros.lab.errors import LabError, UnavailableError
from ouroboros.lab.real import RealGround, shared
from ouroboros.settings import Udp4Config

_TOOLS = ("ip", "unshare", "nsenter")


def prefix() -> tuple[str, ...]:
    """What starts a process that may have network namespaces."""
    return ("unshare", "--net", "--") if os.geteuid() == 0 else ("unshare", "--user", "--map-root-user", "--net", "--")


def lacks() -> str | None:
    """Why there can be no namespaces here, None when there can."""
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        return f"there is no command {', '.join(missing)}"
    device = "ip link add veth0 type veth peer name veth1"
    done = subprocess.run([*prefix(), "sh", "-c", device], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"the kernel does not let this user have them: {done.stderr.strip().splitlines()[-1]}"
    return None


class NamespaceGround(RealGround):
    """See the module."""

    clock = "namespaces"

    def __init__(self) -> None:
        if reason := lacks():
            raise UnavailableError(f"no network namespaces: {reason}")
        super().__init__(shared(prefix()))

    @property
    def port(self) -> int:
        # Nobody else is there.
        return Udp4Config().port

    def addresses(self, number: int, link: Link) -> tuple[str, str]:
        if link.type != "udp4":
            raise LabError(f"link {link.name}: there are links of type udp4 only as yet, not {link.type}")
        high, low = divmod(4 * number, 256)
        return f"10.{high >> 8}.{high & 255}.{low + 1}", f"10.{high >> 8}.{high & 255}.{low + 2}"

    async def lay(self, links: Sequence[tuple[int, Link]]) -> None:
        """The ends of link 7 are veth7 in both namespaces. They are there as long as the namespaces, whatever becomes
        of nodes."""
        lines: dict[str, list[str]] = {name: ["link set dev lo up"] for name in self._pids}
        for number, link in links:
            there = self.pid(link.other)
            lines[link.one].append(f"link add veth{number} type veth peer name veth{number} netns {there}")
        await self._batches(lines)
        lines = {}
        for number, link in links:
            for name, address in zip(link.ends, self.addresses(number, link), strict=True):
                lines.setdefault(name, []).append(f"address add {address}/30 dev veth{number}")
                lines[name].append(f"link set dev veth{number} up")
        await self._batches(lines)

    async def _batches(self, lines: dict[str, list[str]]) -> None:
        done = [asyncio.wrap_future(self._forks.batch(self._key(name), each)) for name, each in lines.items()]
        for name, said in zip(lines, await asyncio.gather(*done), strict=True):
            if said:
                raise LabError(f"node {name}: its network devices could not be set up: {said}")

    def command(self, node: str, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        if node not in self._running:
            raise LabError(f"node {node} was killed: a program needs its namespace")
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        command, environment = super().command(node, words)
        return ["nsenter", f"--target={self.pid(node)}", *user, "--net", "--", *command], environment

    async def _end(self) -> None:
        await super()._end()
        for name in self._pids:
            self._forks.forget(self._key(name))
