"""Programs that join broadcast layers, also one in which the node has no member: then it enrolls in it by itself. Pure.

::

    join ──▶ a member is here ─────────────────────────────────────────▶ flow ──▶ the last flow of such a member ends,
      │ none, and a layer below may lead to one                           ▲              and none comes for LINGER
      └──▶ IPC process is made ──▶ enrolls ──▶ is connected ──▶ all ──────┘                       │
                 │ fails, or nobody waits any more                                                ▼
                 └──▶ IPC process is destroyed, and whoever waits hears why       IPC process is destroyed

All that want to join one layer meanwhile wait for the same IPC process.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from ouroboros.control.flows import ALLOC_TIMEOUT, FlowManager, check_joinable
from ouroboros.control.ipcps import IpcProcesses
from ouroboros.control.names import Registry, check_name
from ouroboros.control.parties import Process
from ouroboros.control.waiting import Joining
from ouroboros.errors import (
    FlowException,
    FlowNameException,
    FlowPermissionException,
    FlowRefusedException,
    FlowTimeoutException,
    NameError,
    OuroborosError,
)
from ouroboros.layers.agenda import earliest
from ouroboros.layers.base import Ipcp
from ouroboros.layers.face import Posts, Reach, Task
from ouroboros.qos import QOS_RAW
from ouroboros.wire.control import CreateIpcp, Join

#: The type of the layers, and what their members connect.
_TYPE, _COMPONENT = "broadcast", "Data Transfer"
#: Behind the name of the layer, this is that of its IPC process.
_SUFFIX = ".joined"
#: Seconds that a member stays without a flow: what was written last gets out, and whoever comes back finds it.
LINGER = 30.0


@dataclass(slots=True, eq=False)
class _Entering:
    """An IPC process that is to be a member. `task`: what it does now."""

    layer: str
    ipcp: Ipcp
    waiting: dict[int, Joining] = field(default_factory=dict)
    is_connecting: bool = False
    task: Task = field(init=False)


class Joins:
    """Requests to join, and the IPC processes that were made for them."""

    def __init__(self, registry: Registry, ipcps: IpcProcesses, flows: FlowManager, posts: Posts) -> None:
        self._registry = registry
        self._ipcps = ipcps
        self._flows = flows
        self._posts = posts
        #: By the name of the layer.
        self._entering: dict[str, _Entering] = {}
        #: Those that have done something, and what came of it.
        self._answered: list[tuple[_Entering, object]] = []
        #: Members, by id.
        self._made: dict[int, Ipcp] = {}

    def join(self, token: int, process: Process, request: Join, user: int | None, now: float) -> None:
        """Answered by a flow, or by why there is none. `user`: of the connection; None for the owner. Raises what is clear
        at once."""
        layer = request.layer
        entering, ipcp = self._entering.get(layer), self._ipcps.to_join(layer)
        if entering is None and ipcp is not None:
            self._flows.join(token, process, request, ipcp, user, now)
            return
        check_joinable(request)
        if entering is None:
            self._check(layer, user)
        timeout = ALLOC_TIMEOUT if request.timeout is None else request.timeout
        if timeout <= 0:
            raise FlowTimeoutException(
                f"this node is not in broadcast layer {layer!r}, and had no time to enroll in it"
            )
        joining = self._flows.let_wait(token, process, request, user, now + timeout, self._left)
        try:
            entering = entering or self._enter(layer, now)
        except OuroborosError as error:
            self._flows.turn_away(joining, error, now)
        else:
            entering.waiting[token] = joining

    # --- who may, and where to

    def _check(self, layer: str, user: int | None) -> None:
        """Raises why this node does not try to be in a layer."""
        if not self._leads(layer):
            raise FlowNameException(
                f"there is no broadcast layer {layer!r} on this node, and none of its layers leads to one; "
                f"`irm ipcp bootstrap type broadcast name {layer} layer {layer}` makes one"
            )
        if user is not None and layer not in self._ipcps.users.join:
            raise FlowPermissionException(
                f"there is no broadcast layer {layer!r} on this node, and it enrolls in one for programs of its own user "
                "and of root, and for others only in those that `join` in [users] of its configuration file names"
            )
        try:
            check_name(layer + _SUFFIX, "name of the IPC process for it")
        except NameError as error:
            raise FlowNameException(f"this node cannot enroll in {layer!r} by itself: {error}") from error

    def _leads(self, layer: str) -> bool:
        """Whether a member of that layer may be found by its name. What programs of this node serve is none."""
        if any(ipcp.layer == layer for ipcp in self._ipcps.all()):
            return False
        name = self._registry.names.get(layer)
        if name is not None and name.served:
            return not self._registry.members.keys().isdisjoint(name.servers)
        return any(ipcp.reach(layer) is Reach.PERHAPS for ipcp in self._ipcps.all())

    # --- becoming a member

    def _enter(self, layer: str, now: float) -> _Entering:
        taken = {ipcp.name for ipcp in self._ipcps.all()}
        # No name of the layer itself: neighbours that ask for another member by that would believe that they have one.
        names = (f"{layer}{_SUFFIX}{number or ''}" for number in itertools.count())
        ipcp = self._ipcps.find(
            self._ipcps.create(CreateIpcp(next(each for each in names if each not in taken), _TYPE))
        )
        ipcp.on_demand = True
        entering = self._entering[layer] = _Entering(layer, ipcp)
        self._enroll(entering, now)
        return entering

    def _enroll(self, entering: _Entering, now: float) -> None:
        task = self._new_task(entering)
        entering.ipcp.enroll(entering.layer, task, now, connect=True, timeout=ALLOC_TIMEOUT)

    def _new_task(self, entering: _Entering) -> Task:
        # What follows needs the time: `timeout` has it.
        entering.task = Task(self._posts, lambda outcome: self._answered.append((entering, outcome)))
        return entering.task

    def _go_on(self, entering: _Entering, outcome: object, now: float) -> None:
        """Raises why it cannot."""
        ipcp, layer = entering.ipcp, entering.layer
        if isinstance(outcome, OuroborosError):
            if entering.is_connecting or not isinstance(_reason(layer, outcome), FlowTimeoutException):
                raise outcome
            # Each that waits has a limit of its own.
            self._enroll(entering, now)
        elif self._ipcps.find(ipcp.id).layer != layer:
            raise FlowNameException(
                f"{layer!r} is a member of broadcast layer {ipcp.layer!r}, and not the name of one: join {ipcp.layer!r}"
            )
        elif not entering.is_connecting:
            entering.is_connecting = True
            ipcp.connect(_COMPONENT, layer, QOS_RAW, self._new_task(entering), now)
        else:
            del self._entering[layer]
            self._made[ipcp.id], ipcp.idle_since = ipcp, now
            for joining in entering.waiting.values():
                self._flows.let_in(joining, ipcp, now)

    def _give_up(self, entering: _Entering, error: OuroborosError, now: float) -> None:
        self._drop(entering, now)
        for joining in list(entering.waiting.values()):
            self._flows.turn_away(joining, error, now)

    def _left(self, joining: Joining, now: float) -> None:
        """It waits no more. That may be in the middle of anything."""
        entering = self._entering.get(joining.request.layer)
        if entering is None or entering.waiting.pop(joining.token, None) is None:
            return

        def drop_if_unwanted() -> None:
            if not entering.waiting and self._entering.get(entering.layer) is entering:
                self._drop(entering, now)

        self._posts.add(drop_if_unwanted)

    def _drop(self, entering: _Entering, now: float) -> None:
        del self._entering[entering.layer]
        entering.task.cancel()
        self._destroy(entering.ipcp, now)

    def _destroy(self, ipcp: Ipcp, now: float) -> None:
        """Unless somebody has done so."""
        if self._ipcps.has(ipcp):
            self._ipcps.destroy(ipcp.id, self._ipcps.unasked(), now)

    # --- time

    def deadline(self) -> float | None:
        """When `timeout` wants to be called next."""
        if self._answered:
            return 0.0
        return earliest(*(when for when, _ in self._ends()))

    def timeout(self, now: float) -> None:
        answered, self._answered = self._answered, []
        for entering, outcome in answered:
            if self._entering.get(entering.layer) is entering:
                try:
                    self._go_on(entering, outcome, now)
                except OuroborosError as error:
                    self._give_up(entering, _reason(entering.layer, error), now)
        for ipcp in [each for when, each in self._ends() if when <= now]:
            del self._made[ipcp.id]
            ipcp.on_demand = False
            # One that was bound to a name has become somebody's.
            if not ipcp.names:
                self._destroy(ipcp, now)

    def _ends(self) -> Iterator[tuple[float, Ipcp]]:
        """The members without a flow, and when they go."""
        return ((each.idle_since + LINGER, each) for each in self._made.values() if each.idle_since is not None)


def _reason(layer: str, error: OuroborosError) -> FlowException:
    """Why there is no flow, of the kind that a flow to the member would have failed with."""
    text = f"this node cannot become a member of broadcast layer {layer!r}: {error}"
    for each in (error, error.__cause__):
        if isinstance(each, FlowNameException | FlowTimeoutException | FlowRefusedException):
            return type(each)(text)
    return FlowRefusedException(text)
