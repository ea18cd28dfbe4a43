"""Namespaces, where some nodes run the C prototype: what it is asked for is said to it by its own `irm`."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ouroboros._checks import told
from ouroboros.errors import NodeError
from ouroboros.lab.description import Link
from ouroboros.lab.errors import LabError
from ouroboros.lab.ground import Flow
from ouroboros.lab.namespaces import NamespaceGround
from ouroboros.lab.prototype import Machine, Namespace, check_machine, find_installation
from ouroboros.qos import QoSSpec
from ouroboros.settings import AnySettings, EthDixSettings, EthLlcSettings, Udp4Settings, UnicastSettings
from ouroboros.testing.forks import open_device_in
from ouroboros.wire.control import (
    BindProcess,
    BootstrapIpcp,
    ConnectIpcp,
    CreateIpcp,
    CreateName,
    EnrollIpcp,
    RegisterName,
    Request,
)

T = TypeVar("T")

#: What its command calls the parts of a member.
_COMPONENTS = {"Management": "mgmt", "Data Transfer": "dt"}
#: The IPC process for all links over UDP. Two would each say that they find a neighbour of the other.
_OVER_UDP = "links"
_REPLY = re.compile(r"seq=(\d+) time=([\d.]+) ms")
#: Its server ends by itself about once in forty flows, when its layer loses a race and accepting a flow fails.
_ECHO = "while [ -S /run/ouroboros/irm.sock ]; do oping -l; done"


class Prototype:
    """A node of the prototype. `ipcps`: its IPC processes; their ids are their places in it."""

    def __init__(self, name: str, machine: Machine) -> None:
        self.name = name
        self.machine = machine
        #: Its daemon takes one command at a time.
        self.turn = asyncio.Lock()
        self._ipcps: list[CreateIpcp] = []
        self._names: set[str] = set()
        self._places: dict[str, str] = {}
        self._is_over_udp = False
        self._echo: subprocess.Popen[bytes] | None = None

    def do(self, request: Request) -> Any:  # noqa: ANN401
        """A request of management, and the value of its answer. Raises `LabError` when it fails, and
        for one that the prototype has nothing like."""
        irm = self.machine.irm
        match request:
            case CreateIpcp():
                return self._create(request)
            case BootstrapIpcp():
                self._bootstrap(self._ipcps[request.ipcp], request)
            case EnrollIpcp():
                ipcp = self._ipcps[request.ipcp]
                self._know(request.name)
                irm("ipcp", "enroll", "type", ipcp.type, "name", ipcp.name, "dst", request.name)
            case ConnectIpcp():
                ipcp = self._ipcps[request.ipcp]
                self._know(request.name)
                component = _COMPONENTS[request.component]
                irm("ipcp", "connect", "name", ipcp.name, "dst", request.name, "component", component)
            case BindProcess():
                irm("bind", "ipcp", self._ipcps[request.pid].name, "name", request.name)
            case CreateName():
                self._know(request.name)
            case RegisterName():
                irm("name", "register", request.name, "ipcp", self._ipcps[request.ipcp].name)
            case _:
                raise LabError(
                    f"node {self.name} has the C prototype, which cannot be asked that; what its own commands can do is "
                    f"lab[{self.name!r}].execute('irm', ...), for example"
                )
        return None

    def _create(self, request: CreateIpcp) -> int:
        """An IPC process is made when it is bootstrapped, or enrolls."""
        if request.type == "udp4":
            request = CreateIpcp(_OVER_UDP, request.type)
        if request not in self._ipcps:
            self._ipcps.append(request)
        return self._ipcps.index(request)

    def _bootstrap(self, ipcp: CreateIpcp, request: BootstrapIpcp) -> None:
        layer = request.layer
        if isinstance(request.settings, Udp4Settings):
            layer = _OVER_UDP
            self._places |= dict(peer.split("@") for peer in request.settings.udp4.peers)
            self.machine.find(self._places)
            if self._is_over_udp:
                return
            self._is_over_udp = True
        words = "type", ipcp.type, "name", ipcp.name, "layer", layer, *_words(request.settings)
        for last in (False, False, True):
            try:
                self.machine.irm("ipcp", "bootstrap", *words)
                return
            except LabError:
                # Once in some hundred times it does not find the process that it has just made.
                if last:
                    raise

    def _know(self, name: str) -> None:
        """It asks for names only that it knows itself. A name that is made without a program has settings of encryption
        that come from nowhere; a program that accepts no flows does no harm."""
        if name not in self._names:
            self.bind("true", name)
            self._names.add(name)

    def bind(self, program: str, name: str) -> None:
        """Have flows to a name go to a program."""
        self.machine.irm("bind", "program", program, "name", name)

    def echo(self, name: str) -> None:
        """Give back all packets of flows to that name."""
        self.bind("oping", name)
        if self._echo is None:
            self._echo = self._start("sh", "-c", _ECHO)

    def ping(self, name: str, count: int, length: int) -> list[float | None] | None:
        """Round trips, as its `oping` has them, seconds; None for one that is lost. None: there is no flow to that
        name."""
        self._know(name)
        words = "oping", "-n", name, "-c", str(count), "-i", "10", "-s", str(length)
        pinging = self._start(*("timeout", str(10 + count), *words), stdout=subprocess.PIPE)
        said = pinging.communicate()[0].decode(errors="replace")
        if "packets transmitted" not in said:
            return None
        found = {int(number): float(time) / 1000 for number, time in _REPLY.findall(said)}
        return [found.get(number) for number in range(count)]

    def _start(self, *words: str, stdout: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self.machine.command(*words),
            env=self.machine.installation.environment(),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.DEVNULL,
        )

    def close(self) -> None:
        self.machine.close()
        if self._echo is not None:
            self._echo.wait()


def _words(settings: AnySettings | None) -> list[str]:
    """What its `irm ipcp bootstrap` is told."""
    match settings:
        case Udp4Settings():
            return ["ip", str(settings.udp4.ip_addr)]
        case EthDixSettings() | EthLlcSettings():
            return ["dev", settings.eth.dev]
        case UnicastSettings():
            try:
                settings.unicast.check_for_prototype()
            except ValueError as error:
                raise LabError(str(error)) from None
            values = {setting.key: value for setting, value in told(settings) if not setting.quiet}
            del values["enroll"], values["mtu"]
            return [word for key, value in values.items() for word in (key, str(getattr(value, "word", value)))]
    return []


class MixedGround(NamespaceGround):
    """See the module. `foreign`: the names of the nodes that run the prototype."""

    def __init__(self, foreign: Sequence[str]) -> None:
        self._installation = find_installation()
        check_machine()
        super().__init__()
        self.foreign: dict[str, int] = {name: number for number, name in enumerate(foreign, 1)}
        self._networks: dict[str, Namespace] = {}
        self._prototypes: dict[str, Prototype] = {}

    def check(self, link: Link) -> None:
        super().check(link)
        for end in link.ends:
            if end in self.foreign and link.type == "udp6":
                raise LabError(
                    f"link {link.name}: links of node {end}, which has the C prototype, are of type udp4, eth-dix or eth-llc"
                )
        if not self.can_be_bad(link):
            self._check_cable(link, (link.forth, link.back))

    def impairs(self, link: Link) -> bool:
        """The prototype does nothing to its packets."""
        return link.is_ethernet or bool(self.foreign.keys() & set(link.ends))

    # --- nodes

    def secure(self, node: str, files: Mapping[str, bytes]) -> None:
        if node in self.foreign and any(path.endswith("policy.conf") for path in files):
            raise LabError(f"node {node} has the C prototype, which knows no policy.conf: leave the rules out")
        if node in self.foreign and not self._installation.security():
            raise LabError(
                f"node {node} has the C prototype, which has no security directory: make etc/ouroboros/security, empty, in "
                "its prefix"
            )
        super().secure(node, files)

    async def add(self, name: str) -> None:
        if name not in self.foreign:
            await super().add(name)
            return
        await asyncio.to_thread(self._add, name)

    def _add(self, name: str) -> None:
        self.directory(name).mkdir(mode=0o700, exist_ok=True)
        if name not in self._networks:
            self._networks[name] = Namespace(private=False)
            self._pids[name] = self._networks[name].pid
        machine = Machine(self._installation, self.directory(name), self.security(name), self._networks[name])
        self._prototypes[name] = Prototype(name, machine)
        machine.start()

    def _there(self, node: str) -> Prototype:
        if node not in self._prototypes:
            raise NodeError(f"node {node} is gone")
        return self._prototypes[node]

    async def kill(self, name: str) -> None:
        if name not in self.foreign:
            await super().kill(name)
            return
        await asyncio.to_thread(self._prototypes.pop(name).close)

    async def pause(self, name: str) -> None:
        if name not in self.foreign:
            await super().pause(name)
            return
        await asyncio.to_thread(self._there(name).machine.pause)

    async def resume(self, name: str) -> None:
        if name not in self.foreign:
            await super().resume(name)
            return
        self._there(name).machine.resume()

    async def _do(self, node: str, function: Callable[[Prototype], T]) -> T:
        there = self._there(node)
        async with there.turn:
            return await asyncio.to_thread(function, there)

    async def request(self, node: str, request: Request) -> Any:  # noqa: ANN401
        if node not in self.foreign:
            return await super().request(node, request)
        return await self._do(node, lambda there: there.do(request))

    async def alloc(self, node: str, name: str, qos: QoSSpec, timeo: float | None) -> Flow:
        self._check_ours(node)
        return await super().alloc(node, name, qos, timeo)

    async def accept(self, node: str, name: str) -> Flow:
        self._check_ours(node)
        return await super().accept(node, name)

    async def join(self, node: str, layer: str) -> Flow:
        self._check_ours(node)
        return await super().join(node, layer)

    def _check_ours(self, node: str) -> None:
        if node in self.foreign:
            raise LabError(f"node {node} has the C prototype, on which no coroutine runs: start a program there")

    async def echo(self, node: str, name: str) -> None:
        await self._do(node, lambda there: there.echo(name))

    async def ping(self, node: str, name: str, count: int, length: int) -> list[float | None] | None:
        return await asyncio.to_thread(self._there(node).ping, name, count, length)

    def command(self, node: str, words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        if node not in self.foreign:
            return super().command(node, words)
        # In the directory of whoever starts it; and it ends when `nsenter` does.
        command = "env", f"--chdir={os.getcwd()}", "setpriv", "--pdeathsig", "KILL", "--", *words
        return self._there(node).machine.command(*command), self._installation.environment()

    # --- links

    def addresses(self, number: int, link: Link) -> tuple[str, str]:
        """A node of the prototype has one address on all its links, as it has one layer over UDP."""
        one, other = super().addresses(number, link)
        return (one, other) if link.is_ethernet else (self._address(link.one, one), self._address(link.other, other))

    def _address(self, name: str, otherwise: str) -> str:
        if name not in self.foreign:
            return otherwise
        high, low = divmod(self.foreign[name], 256)
        return f"10.255.{high}.{low}"

    def words(self, number: int, link: Link, side: int) -> str:
        addresses = self.addresses(number, link)
        return f"{addresses[side]} peer {addresses[1 - side]}/32"

    async def _tap(self, node: str, device: str) -> int:
        if node not in self.foreign:
            return await super()._tap(node, device)
        return await asyncio.to_thread(open_device_in, Path(f"/proc/{self.pid(node)}/ns/net"), device)

    async def change(self, number: int, link: Link, ways: Sequence[str], *, plugged: bool) -> None:
        """A device of the prototype stays up. Of a cable, it has no carrier when the other end is down."""
        ours = [end for end in link.ends if end not in self.foreign]
        if len(ours) == 2:
            await super().change(number, link, ways, plugged=plugged)
            return
        if (between := self.between.get(number)) is None:
            self._check_cable(link, ways)
        else:
            between.impair(*ways)
            if not plugged:
                between.partition()
        end = ours[:1] if between is not None else [*ours, link.one][:1]
        await self._batches({name: [f"link set dev veth{number} {'up' if plugged else 'down'}"] for name in end})

    async def _batches(self, lines: dict[str, list[str]]) -> None:
        await super()._batches({name: each for name, each in lines.items() if name not in self.foreign})
        for name in self.foreign:
            if name in lines:
                await asyncio.to_thread(self._batch, name, lines[name])

    def _batch(self, name: str, lines: list[str]) -> None:
        command = [*self._networks[name].within(), "ip", "-batch", "-"]
        done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=False)
        if done.returncode:
            raise LabError(f"node {name}: its network devices could not be set up: {done.stderr.strip()}")

    async def _end(self) -> None:
        # What it still does ends at once.
        for each in list(self._prototypes.values()):
            each.close()
        await asyncio.get_running_loop().shutdown_default_executor()
        for each in self._prototypes.values():
            each.close()
        for network in self._networks.values():
            network.close()
        await super()._end()
