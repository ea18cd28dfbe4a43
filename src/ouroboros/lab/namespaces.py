"""The real clock with kernel network stacks: a network namespace for each node, and a pair of devices for each link:
veth devices for IP, whose layers spoil packets themselves, and TAP devices for Ethernet, with a bad link between.

Root is not needed where the kernel lets users have namespaces of users: then all of it is in one.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from ouroboros.lab.description import LINKS, Link
from ouroboros.lab.errors import LabError, UnavailableError
from ouroboros.lab.real import RealGround, shared
from ouroboros.settings import Udp4Config
from ouroboros.testing import link as testing

_TOOLS = ("ip", "unshare", "nsenter")
_DEVICE = "ip link add veth0 type veth peer name veth1"


#: What starts a process that may have network namespaces: with the rights of root, and without.
_WAYS = (("unshare", "--net", "--"), ("unshare", "--user", "--map-root-user", "--net", "--"))
#: Settings of kernels that keep users from namespaces of users, the value that does, and the one that does not.
_SETTINGS = (
    ("user.max_user_namespaces", "0", "10000"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
)


def way() -> tuple[str, ...]:
    """The start of a command line whose process may have network namespaces. Raises `UnavailableError` with the
    reason when there is none."""
    if missing := [tool for tool in _TOOLS if shutil.which(tool) is None]:
        raise UnavailableError(
            f"no network namespaces: there is no command {', '.join(missing)}; packages iproute2 and util-linux have them"
        )
    reason = ""
    for prefix in _WAYS:
        done = subprocess.run([*prefix, "sh", "-c", _DEVICE], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return prefix
        reason = (done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
    raise UnavailableError(f"no network namespaces: the kernel does not let this user have them: {reason}{hint()}")


def hint(settings: Path = Path("/proc/sys")) -> str:
    """What would let users have them: the setting of the kernel that keeps them from it, if one does."""
    for name, off, on in _SETTINGS:
        path = settings.joinpath(*name.split("."))
        if path.exists() and path.read_text().strip() == off:
            return f"; as root, `sysctl {name}={on}` lets users have them"
    return "; be root, or have CAP_SYS_ADMIN; in a container, its runtime has to let it"


def lacks() -> str | None:
    """Why there can be no namespaces here, None when there can."""
    try:
        way()
    except UnavailableError as error:
        return str(error)
    return None


class NamespaceGround(RealGround):
    """See the module."""

    clock = "namespaces"
    links = LINKS

    def __init__(self) -> None:
        self._way = way()
        super().__init__(shared(self._way))
        #: What is between the TAP devices of links, by number.
        self.between: dict[int, testing.Link] = {}

    @property
    def port(self) -> int:
        # Nobody else is there.
        return Udp4Config().port

    def addresses(self, number: int, link: Link) -> tuple[str, str]:
        if link.is_ethernet:
            return f"veth{number}", f"veth{number}"
        if link.type == "udp6":
            return f"fd00:{number:x}::1", f"fd00:{number:x}::2"
        high, low = divmod(4 * number, 256)
        return f"10.{high >> 8}.{high & 255}.{low + 1}", f"10.{high >> 8}.{high & 255}.{low + 2}"

    async def lay(self, links: Sequence[tuple[int, Link]]) -> None:
        """The ends of link 7 are veth7 in both namespaces. They are there as long as the namespaces, whatever becomes
        of nodes."""
        lines: dict[str, list[str]] = {name: ["link set dev lo up"] for name in self._pids}
        for number, link in links:
            if self.can_be_bad(link):
                await self._lay_between(number, link)
                continue
            self._check_cable(link, (link.forth, link.back))
            there = self.pid(link.other)
            lines[link.one].append(f"link add veth{number} type veth peer name veth{number} netns {there}")
        await self._batches(lines)
        lines = {}
        for number, link in links:
            for side, name in enumerate(link.ends):
                device = lines.setdefault(name, [])
                if not link.is_ethernet:
                    device.append(f"address add {self.words(number, link, side)} dev veth{number}")
                queue = f"txqueuelen {testing.QUEUE} " if number in self.between else ""
                device.append(f"link set dev veth{number} {queue}up")
        await self._batches(lines)

    def can_be_bad(self, link: Link) -> bool:
        """It has more than a cable between its ends, so that more can be done to it than to cut it."""
        return self.impairs(link) and testing.lacks_devices() is None

    def words(self, number: int, link: Link, side: int) -> str:
        """The address of one end, as `ip` is told it."""
        # Nobody else can have it: it need not be asked for first.
        return f"{self.addresses(number, link)[side]}/{'64 nodad' if link.type == 'udp6' else '30'}"

    async def _lay_between(self, number: int, link: Link) -> None:
        with ExitStack() as stack:
            ends = []
            for name in link.ends:
                try:
                    ends.append(await self._tap(name, f"veth{number}"))
                except OSError as error:
                    raise LabError(f"link {link.name}: node {name} gets no device for it: {error}") from error
                stack.callback(os.close, ends[-1])
            # The link takes them over.
            stack.pop_all()
            self.between[number] = testing.Link(ends[0], ends[1], link.forth, link.back)

    async def _tap(self, node: str, device: str) -> int:
        """A device for frames in the namespace of a node. Raises `OSError`."""
        return await asyncio.wrap_future(self._forks.tap(self._key(node), device))

    def _check_cable(self, link: Link, ways: Sequence[str]) -> None:
        if self.impairs(link) and any(way != "none" for way in ways):
            raise LabError(f"link {link.name}: it can be cut, and nothing else: {testing.lacks_devices()}")

    async def change(self, number: int, link: Link, ways: Sequence[str], *, plugged: bool) -> None:
        if (between := self.between.get(number)) is not None:
            between.impair(*ways)
        else:
            self._check_cable(link, ways)
        line = f"link set dev veth{number} {'up' if plugged else 'down'}"
        await self._batches({name: [line] for name in link.ends})

    async def _batches(self, lines: dict[str, list[str]]) -> None:
        done = [asyncio.wrap_future(self._forks.batch(self._key(name), each)) for name, each in lines.items()]
        for name, said in zip(lines, await asyncio.gather(*done), strict=True):
            if said:
                raise LabError(f"node {name}: its network devices could not be set up: {said}")

    def command(self, node: str, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        if node not in self._running:
            raise LabError(f"node {node} was killed: a program needs its namespace")
        user = ["--user", "--preserve-credentials"] if "--user" in self._way else []
        command, environment = super().command(node, words)
        return ["nsenter", f"--target={self.pid(node)}", *user, "--net", "--", *command], environment

    async def _end(self) -> None:
        await super()._end()
        for name in self._pids:
            self._forks.forget(self._key(name))
        for between in self.between.values():
            between.close()
