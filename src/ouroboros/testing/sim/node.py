"""A node in virtual time: the IRM of a real one and its interpreter of effects, over an engine without sockets."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from ouroboros.capture import SNAP
from ouroboros.control.irm import Irm
from ouroboros.control.names import ROUND_ROBIN
from ouroboros.control.parties import Process
from ouroboros.dataplane import LinkSettings, SimulatedEngine
from ouroboros.layers import impairment
from ouroboros.layers.effects import (
    Connect,
    Effect,
    Loop,
    Remember,
    Reply,
    SendManagement,
    SendMessage,
    SendPdu,
    StartProgram,
    Warn,
)
from ouroboros.runtime.devices import Device
from ouroboros.runtime.engine import EngineRuntime
from ouroboros.runtime.flows import Channel, FlowRuntime
from ouroboros.runtime.held import News
from ouroboros.settings import AnySettings, Udp4Config, Udp4Settings
from ouroboros.testing.sim.capture import Capture
from ouroboros.testing.sim.machine import NoChannel, VirtualFiles, VirtualMachine
from ouroboros.testing.sim.program import Asked, Program
from ouroboros.wire.control import (
    Answer,
    BootstrapIpcp,
    CreateIpcp,
    CreateName,
    Failed,
    Granted,
    ListFlows,
    ListIpcps,
    RegisterName,
    Request,
)

if TYPE_CHECKING:
    from ouroboros.testing.sim.network import Network

#: The user who runs all nodes.
_OWNER = 1000


class Node:
    """One of a `Network`, made by `Network.add_node`. `address`: of its layers over UDP. `warnings`: what it had to say."""

    def __init__(
        self,
        network: Network,
        engine: SimulatedEngine,
        address: str,
        name: str,
        *,
        flow_limit: int,
        security: Mapping[str, bytes] | None = None,
    ) -> None:
        self.network = network
        self.name = name
        self.address = address
        self.warnings: list[str] = []
        self.engine = engine
        # No life is like the one before.
        life = sum(node.name == name for node in network.nodes)
        self.irm = Irm(
            _OWNER,
            random=random.Random(f"{network.seed} {name} {life}"),
            wall=lambda: network.wall,
            directory=VirtualFiles(security or {}),
            types=network.types,
            flow_limit=flow_limit,
            memory=network.memories.setdefault(name, {}),
        )
        self.irm.security.reload()
        self._machine = VirtualMachine(network, engine, name, life)
        self._runtime = EngineRuntime(self.irm, self._carry_out, self._machine)
        self._flows = FlowRuntime(self.irm, self, self._runtime, NoChannel)
        self._handlers: dict[type[Effect], Callable[[Any], None]] = {
            Reply: lambda effect: self._answer(effect.token, effect.message),
            Warn: lambda effect: self.warnings.append(effect.text),
            StartProgram: self._refuse_to_start,
            Remember: lambda effect: network.memories[name].__setitem__(effect.name, effect.data),
            **self._flows.handlers,
            **self._runtime.handlers,
            Connect: self._connect,
        }
        #: When it looks after itself next.
        self._due: float | None = None
        #: It is gone for good.
        self.crashed = False
        #: What happens to the control of a node that stands still, when it goes on.
        self._late: list[Callable[[], None]] | None = None
        self._last_pid = 100
        self._last_token = 0
        self._asked: dict[int, Asked] = {}
        self._manager = self.program("irm")

    # --- layers and names

    def manage(self, request: Request) -> Asked:
        """Have a request of management carried out, now or later: `.value`, or `.wait().value`."""
        return self.ask(self._manager.process, request)

    def add_ipcp(self, type: str, layer: str, settings: AnySettings | None = None, *, name: str = "") -> int:
        """A member of a layer; its id. `name`: of the IPC process, by default that of the layer."""
        ipcp = self.manage(CreateIpcp(name or layer, type)).value
        assert isinstance(ipcp, int)
        self.manage(BootstrapIpcp(ipcp, layer, settings)).wait().value  # noqa: B018 - or its error
        return ipcp

    def over_udp(self, layer: str = "net", *, peers: Sequence[str] = ()) -> int:
        """A member of a layer over UDP, at the address of the node. `peers`: where names are looked for, "name@address" or
        "address"."""
        return self.add_ipcp("udp4", layer, Udp4Settings(udp4=Udp4Config(self.address, peers=tuple(peers))))

    def offer(self, name: str, *ipcps: int) -> None:
        """Make a name, and let it be reached through these layers."""
        requests: list[Request] = [CreateName(name, ROUND_ROBIN), *(RegisterName(name, ipcp) for ipcp in ipcps)]
        for request in requests:
            self.manage(request).value  # noqa: B018 - or its error

    def impair(self, text: str | None) -> None:
        """Let this happen to what leaves the node from now on, in the words of `irm ipcp impair`; None: nothing."""
        link = None
        if text is not None:
            link = LinkSettings(**msgspec.structs.asdict(impairment.parse(text)))
        for member in self._runtime.ports():
            self.engine.link(member, link, self.network.delay)

    def switch(self, device: str, state: Device | None) -> None:
        """A device below a layer is so from now on; None: it is gone. Nothing leaves by one that does not carry."""
        told, member = self._machine.devices[device]
        if state is not None:
            cut = impairment.parse("none" if state.carries else "partition")
            self.engine.link(member, LinkSettings(**msgspec.structs.asdict(cut)), self.network.delay)
        told(state)

    def counters(self, ipcp: int) -> dict[str, int]:
        """Counters of an IPC process, its part of the engine included."""
        self._runtime.count()
        return self.irm.ipcps[ipcp].entry().counters

    def capture(self, ipcp: int, *, snap: int = SNAP) -> Capture:
        """Capture what a member of a layer sends and gets from now on, so many bytes of each packet."""
        return Capture(self, self._manager.process, ipcp, snap)

    # --- programs

    def program(self, name: str = "program", *, user: int = _OWNER) -> Program:
        """A program that has said hello to the node. `user`: whose it is, by default that of the node's owner."""
        self._last_pid += 1
        return Program(self, self.irm.process_arrived(self._last_pid, user, name))

    def ask(self, process: Process, request: Request, *, user: int = _OWNER) -> Asked:
        """`user`: of the connection."""
        self._last_token += 1
        asked = self._asked[self._last_token] = Asked(self, self._last_token, process)
        if self.network.log is not None:
            self.network.note(self.name, f"asks {self._last_token} {request!r}")
        token = self._last_token

        def handle() -> None:
            if isinstance(request, ListIpcps | ListFlows):
                self._runtime.count(flows=isinstance(request, ListFlows))
            self.irm.handle(token, process, request, self.network.now, user=user)

        self._do(handle)
        return asked

    def tell(self, process: Process, request: Request) -> None:
        """As `ask`, for what is not answered."""
        self._do(lambda: self.irm.handle(0, process, request, self.network.now, user=_OWNER))

    def cancel(self, token: int) -> None:
        self._asked.pop(token, None)
        self._do(lambda: self.irm.cancel(token, self.network.now))

    def died(self, process: Process) -> None:
        self._do(lambda: self.irm.process_died(process, self.network.now))

    def _do(self, call: Callable[[], None]) -> None:
        """Now, or when the node goes on. One that is gone answers nobody."""
        if self.crashed:
            self._hang_up()
        elif self._late is None:
            call()
            self._carry_out()
        else:
            self._late.append(call)

    # --- as a process

    def pause(self) -> None:
        """Stand still, as a process does at SIGSTOP: what is asked and what arrives waits."""
        if self._late is None and not self.crashed:
            self._late = []
            self.engine.freeze(True)

    def resume(self) -> None:
        """Go on, as at SIGCONT."""
        late, self._late = self._late, None
        if late is None or self.crashed:
            return
        self.engine.freeze(False)
        for call in late:
            call()
            self._carry_out()

    def crash(self) -> None:
        """End, as at SIGKILL: nobody is told. `Network.add_node` with its name starts it anew."""
        self.crashed = True
        self._late = None
        self.engine.crash()
        self._hang_up()

    def _hang_up(self) -> None:
        for token in list(self._asked):
            self._answer(token, Failed("NodeError", f"node {self.name} is gone"))

    def grant(self, token: int, granted: Granted, channel: Channel) -> None:
        number = self._runtime.flows.number(granted.flow_id, granted.side)
        asked = self._asked.get(token)
        if asked is None or number is None:
            self.irm.abandon(granted.flow_id, granted.side, token, self.network.now)
        else:
            asked.number = number
            self._answer(token, granted)

    def fail_flow(self, flow_id: int, side: int, token: int, error: OSError) -> None:
        self.irm.abandon(flow_id, side, token, self.network.now)
        self._answer(token, Failed("NodeLimitError", f"the node could not make the flow: {error.strerror}"))

    def _answer(self, token: int, message: Answer) -> None:
        if (asked := self._asked.pop(token, None)) is not None:
            asked.answer = message
            if asked.answered is not None:
                asked.answered()

    # --- effects, news and time

    def hear(self, news: News) -> None:
        """The engine has news."""
        if self.network.log is not None:
            self._note_news(news)
        if self.crashed:
            return
        if self._late is None:
            self._runtime.heard(news)
        else:
            self._late.append(lambda: self._runtime.heard(news))

    def _carry_out(self) -> None:
        while effects := self.irm.take_effects():
            for effect in effects:
                if self.network.log is not None:
                    self.network.note(self.name, shown(effect))
                self._handlers[type(effect)](effect)
        self.network.unplanned[self] = None

    def plan(self) -> None:
        """Look after itself when the IRM wants that next."""
        deadline = self.irm.wake_at()
        if deadline is not None and (self._due is None or deadline < self._due):
            self._due = deadline
            self.network.at(deadline, lambda: self._pass(deadline))

    def _pass(self, deadline: float) -> None:
        if self._due != deadline:
            # An earlier one came in between.
            return
        self._due = None
        self._do(lambda: self.irm.timeout(self.network.now))

    def _connect(self, effect: Connect) -> None:
        """Between two programs of the node there is nothing; here the engine is, since it has the rings."""
        users = effect.allocator, effect.acceptor
        self._flows.loop(Loop(effect.flow_id, effect.name, effect.qos, users, None, effect.sessions, effect.layer))

    def _refuse_to_start(self, effect: StartProgram) -> None:
        how = "programs cannot be started in virtual time"
        self.irm.program_ended(effect.name, effect.path, how, False, self.network.now)

    def _note_news(self, news: News) -> None:
        datagrams, messages, ends, states, heard = news
        for number, how, counters in ends:
            self.network.note(self.name, f"ended {number} {how} {counters}")
        for number, up in states:
            self.network.note(self.name, f"state {number} {up}")
        for member, where, data in datagrams:
            self.network.note(self.name, f"arrived {member} {where} {_digest(data)}")
        for number, data in messages:
            self.network.note(self.name, f"message {number} {_digest(data)}")
        for member, eid, data, brought in heard:
            self.network.note(self.name, f"heard {member} {eid} {brought} {_digest(data)}")


def shown(effect: Effect) -> str:
    """An effect, for the log, without keys."""
    if isinstance(effect, SendManagement | SendMessage | SendPdu):
        others = (str(getattr(effect, name)) for name in effect.__struct_fields__ if name != "data")
        return " ".join([type(effect).__name__, *others, _digest(effect.data)])
    fields = {name: getattr(effect, name) for name in effect.__struct_fields__ if name != "sessions"}
    if (end := fields.pop("end", None)) is not None:
        fields |= {name: getattr(end, name) for name in end.__struct_fields__ if name != "session"}
    return " ".join([type(effect).__name__, *(f"{name}={value!r}" for name, value in fields.items())])


def _digest(data: bytes) -> str:
    return f"{len(data)} bytes {zlib.crc32(data):08x}"
