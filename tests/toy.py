"""A layer over layers in its smallest form: in front of each packet of a flow stand four bytes, the endpoint id of the flow
at its receiver, and it goes over a flow of a layer below.

Neighbours are members of the layer that one lower flow leads to: `connect` asks for one to the name of the other member,
which has that name bound to it. There is no forwarding: a name is sought at one neighbour after the other. What members say
to one another is that of layers over UDP (`layers.flows`), in packets that begin with endpoint id 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from ouroboros.errors import FlowDownException, IpcpConnectError, OuroborosError
from ouroboros.layers.effects import OpenMember, RemoteEnd, Where
from ouroboros.layers.face import Host, How, LowerFlow, Task
from ouroboros.layers.flows.ipcp import FlowIpcp
from ouroboros.qos import QoSSpec
from ouroboros.settings import TypeSettings
from ouroboros.wire.control import PortDetails
from ouroboros.wire.udp import EID_LENGTH

#: For how long a neighbour is asked for, seconds.
PATIENCE = 20.0


class ToyEnd(RemoteEnd, frozen=True, kw_only=True):
    """Our end of a flow over a lower flow."""

    address: int

    def peer(self) -> tuple[str, str]:
        return f"flow {self.address}", "node"


class Neighbours:
    """Lower flows by number: whom to ask for a name."""

    guesses = True
    end = ToyEnd

    def __init__(self) -> None:
        self.flows: dict[Where, LowerFlow] = {}

    def find(self, name: str, token: int, now: float) -> tuple[Where, ...]:
        return tuple(self.flows)

    def cancel(self, name: str, token: int) -> None:
        """Nothing is looked up."""

    def forget(self, name: str) -> None:
        """Nothing is kept."""

    def advice(self, name: str, refused: Sequence[Where]) -> str:
        return "register it at a neighbour, or connect the neighbour that has it"

    def written(self, address: Where) -> str:
        flow = self.flows[address]
        return f"{'the neighbour' if flow.side == 0 else 'a neighbour of'} {flow.name!r} (flow {address})"

    def origin(self, address: Where) -> Where:
        return address

    def longest(self, address: Where) -> int:
        return self.flows[address].size.most - EID_LENGTH


class ToyIpcp(FlowIpcp):
    """A member."""

    type = "toy"
    preference = 9
    several = True
    accepts_flows = True

    def __init__(self, id: int, name: str, host: Host) -> None:
        self.neighbours = Neighbours()
        super().__init__(id, name, host, self.neighbours)
        #: Lower flows that are asked for, by number: name and whoever waits for it.
        self._asked: dict[int, tuple[str, Task]] = {}
        self._last = 0

    # --- management

    def bootstrap(self, layer: str, settings: TypeSettings, task: Task, now: float) -> None:
        super().bootstrap(layer, settings, task, now)
        self.hash = "MD5"
        self._open()

    def _open(self) -> None:
        self.host.effects.append(OpenMember(self.id))

    def connect(self, component: str, name: str, qos: QoSSpec, task: Task, now: float, *, over: str = "") -> None:
        self._check_operational()
        if name in self._names():
            task.failed(IpcpConnectError(f"{self.name!r} is connected to {name!r} already, or about to be"))
        else:
            self._last += 1
            self._asked[self._last] = name, task
            self.host.lower.ask(self.id, self._last, name, qos, now, until=now + PATIENCE)

    def disconnect(self, component: str, name: str, task: Task, now: float) -> None:
        self._check_operational()
        if name in self._names():
            for number in [number for number, (asked, _) in self._asked.items() if asked == name]:
                self._withdraw(number, now)
            for flow in [flow for flow in self.neighbours.flows.values() if flow.side == 0 and flow.name == name]:
                self.lower_down(flow.fd, How.CLOSED, now)
                self.host.lower.release(flow.fd, now)
            task.done()
        else:
            task.failed(IpcpConnectError(f"{self.name!r} is not connected to {name!r}"))

    def details(self) -> PortDetails:
        # Of all that a list can say of a type, what has peers.
        return PortDetails(peers=tuple(self.neighbours.written(fd) for fd in self.neighbours.flows))

    def _close(self, now: float) -> None:
        for number in list(self._asked):
            self._withdraw(number, now)
        for flow in self.neighbours.flows.values():
            self.host.lower.release(flow.fd, now)

    # --- neighbours

    def _names(self) -> list[str]:
        """Those that we are connected to, or asked for."""
        connected = [flow.name for flow in self.neighbours.flows.values() if flow.side == 0]
        return [*connected, *(name for name, _ in self._asked.values())]

    def _withdraw(self, number: int, now: float) -> None:
        name, task = self._asked.pop(number)
        self.host.lower.withdraw(self.id, number, now)
        task.failed(FlowDownException(f"{self.name!r} does not wait for {name!r} any more"))

    def lower_up(self, number: int | None, flow: LowerFlow, now: float) -> None:
        self.neighbours.flows[flow.fd] = flow
        if number is not None:
            _, task = self._asked.pop(number)
            task.done()

    def lower_failed(self, number: int, error: OuroborosError, now: float) -> None:
        _, task = self._asked.pop(number)
        task.failed(error)

    def lower_down(self, fd: int, how: How, now: float) -> None:
        self._lost(fd, now)
        del self.neighbours.flows[fd]

    def lower_state(self, fd: int, up: bool, now: float) -> None:
        """A neighbour that is silent is gone."""
        if not up:
            self.lower_down(fd, How.SILENT, now)
            self.host.lower.release(fd, now)

    def received(self, data: bytes, source: Where, now: float) -> None:
        if source in self.neighbours.flows:
            super().received(data, source, now)
