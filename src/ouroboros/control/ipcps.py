"""The IPC processes of a node, from their creation to their end, and what was asked of them. Pure."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping
from typing import NamedTuple

from ouroboros.control.flows import FlowManager
from ouroboros.control.names import Registry, check_name
from ouroboros.errors import IpcpBootstrapError, IpcpCreateError, IpcpEnrollError, NameError, OuroborosError
from ouroboros.layers.base import Ipcp, State
from ouroboros.layers.effects import Effect, Reply
from ouroboros.layers.face import Found, Host, Posts, Task
from ouroboros.layers.impairment import Impairment
from ouroboros.layers.impairment import parse as parse_impairment
from ouroboros.settings import Strangers, Users
from ouroboros.wire.control import (
    FIRST_IPCP_ID,
    BootstrapIpcp,
    ConnectIpcp,
    CreateIpcp,
    DisconnectIpcp,
    DiscoverLayers,
    Done,
    EnrollIpcp,
    Failed,
    OfferEntry,
)


class _Asked(NamedTuple):
    """A request to an IPC process that is not answered yet. `destroyed`: what it fails with when the IPC process ends."""

    task: Task
    ipcp: int
    destroyed: type[OuroborosError]


class IpcProcesses:
    """All IPC processes of a node.

    `table`: those that there are, by id; a destroyed one leaves it at once. `types`: by the words of the command line.
    """

    def __init__(
        self,
        table: dict[int, Ipcp],
        types: Mapping[str, type[Ipcp]],
        registry: Registry,
        flows: FlowManager,
        effects: list[Effect],
        posts: Posts,
        host: Host,
    ) -> None:
        self._table = table
        self._types = types
        self._registry = registry
        self._flows = flows
        self._effects = effects
        self._posts = posts
        self._host = host
        #: Something was managed since this was last set to False.
        self.managed = False
        #: What others than the owner may have done; may be replaced at any time.
        self.users = Users()
        self._next_id = FIRST_IPCP_ID
        #: Requests that are not answered yet, by token.
        self._tasks: dict[int, _Asked] = {}

    # --- which there are

    def all(self) -> list[Ipcp]:
        return list(self._table.values())

    def has(self, ipcp: Ipcp) -> bool:
        return self._table.get(ipcp.id) is ipcp

    def find(self, id: int) -> Ipcp:
        """Raises `IpcpCreateError` when there is none with that id."""
        ipcp = self._table.get(id)
        if ipcp is None:
            raise IpcpCreateError(f"there is no IPC process {id}; `irm ipcp list` shows them")
        return ipcp

    @property
    def strangers(self) -> Strangers:
        """What other nodes may have of this one."""
        return self._host.strangers

    def operational(self, ipcp: int) -> Ipcp | None:
        """None: it is gone, or in no layer, or failed."""
        member = self._table.get(ipcp)
        return member if member is not None and member.state == State.OPERATIONAL else None

    def _member_of(self, layer: str, type: str) -> Ipcp | None:
        of_type = (ipcp for ipcp in self._table.values() if ipcp.type == type and ipcp.state != State.BOOT)
        return next((ipcp for ipcp in of_type if ipcp.layer == layer), None)

    def to_join(self, layer: str) -> Ipcp | None:
        """The member of a broadcast layer; None: this node has none."""
        # A failed one is there, and says how to repair it.
        there = (ipcp for ipcp in self._table.values() if ipcp.state in (State.OPERATIONAL, State.FAILED))
        return next((ipcp for ipcp in there if ipcp.joinable and ipcp.layer == layer), None)

    def layers_of(self, name: str) -> list[str]:
        """The layers in which this node has registered a name."""
        return [ipcp.layer for ipcp in self._table.values() if ipcp.layer and ipcp.query(ipcp.digest(name))]

    # --- what is asked of them

    def create(self, request: CreateIpcp) -> int:
        """The id of a new IPC process. As the others, raises why it is refused."""
        check_name(request.name, "name of an IPC process")
        if request.type not in self._types:
            raise IpcpCreateError(f"unknown type {request.type!r}: choose one of {', '.join(self._types)}")
        kind = self._types[request.type]
        if any(ipcp.name == request.name for ipcp in self._table.values()):
            raise IpcpCreateError(f"there is an IPC process {request.name!r} already; choose another name")
        id = self._next_id
        self._next_id += 1
        self._table[id] = kind(id, request.name, self._host)
        self._host.touched.add(id)
        self._host.stirred.add(id)
        self._host.unsure.add(id)
        member = self._registry.add_member(self._table[id])
        if kind.accepts_flows:
            self._flows.stand(member)
        return id

    def bootstrap(self, request: BootstrapIpcp, task: Task, now: float) -> None:
        ipcp = self.find(request.ipcp)
        check_name(request.layer, "layer name")
        if not ipcp.several and (there := self._member_of(request.layer, ipcp.type)) is not None:
            if there.state == State.FAILED:
                raise IpcpBootstrapError(there.trouble)
            raise NameError(f"this node is in {ipcp.type} layer {request.layer!r} already")
        settings = ipcp.settings() if request.settings is None else request.settings
        if not isinstance(settings, ipcp.settings):
            raise IpcpBootstrapError(
                f"IPC process {ipcp.name!r} is of type {ipcp.type}, its settings of {settings.word()}"
            )
        settings.check()
        impairment = None if settings.impair is None else parse_impairment(settings.impair)
        if impairment is not None:
            ipcp.check_impairable()
        ipcp.bootstrap(request.layer, settings, self._impairing(ipcp, impairment, task), now)
        ipcp.told_settings = settings

    def enroll(self, request: EnrollIpcp, task: Task, now: float) -> None:
        check_name(request.name, "name to enroll with")
        if request.timeout is not None and not 0 < request.timeout < math.inf:
            raise IpcpEnrollError(f"the timeout of an enrollment is a time in seconds, not {request.timeout}")
        for layer in request.over:
            check_name(layer, "layer to enroll over")
        self.find(request.ipcp).enroll(
            request.name, task, now, connect=request.connect, timeout=request.timeout, over=request.over
        )

    def discover(self, request: DiscoverLayers, task: Task, now: float) -> None:
        """`task` is answered by a list of `OfferEntry`. Raises `IpcpEnrollError` when nothing can be asked."""
        there = [each for each in self._table.values() if each.discovers and each.state == State.OPERATIONAL]
        able = [each for each in there if not request.over or each.layer in request.over]
        if not able:
            which = f" of these: {', '.join(map(repr, request.over))}" if request.over else ""
            raise IpcpEnrollError(
                f"this node has no layer in which it can ask for others{which}; those on an Ethernet segment can, which "
                "`irm ipcp bootstrap type eth-dix` makes"
            )
        heard: list[list[OfferEntry]] = []

        def answer(ipcp: Ipcp, outcome: object) -> None:
            assert isinstance(outcome, list)
            heard.append([_entry(found, ipcp) for found in outcome])
            if len(heard) == len(able):
                task.done(sorted(itertools.chain(*heard)))

        for ipcp in able:
            ipcp.discover(Task(self._posts, functools.partial(answer, ipcp)), now)

    def neighbour(self, request: ConnectIpcp | DisconnectIpcp) -> Ipcp:
        """The IPC process that has one."""
        check_name(request.name, "name of the neighbour")
        if isinstance(request, ConnectIpcp) and request.over:
            check_name(request.over, "layer to connect over")
        return self.find(request.ipcp)

    def _impairing(self, ipcp: Ipcp, impairment: Impairment | None, task: Task) -> Task:
        """A bootstrap after which the layer is impaired, before it is told that there is one."""
        if impairment is None:
            return task

        def answer(outcome: object) -> None:
            if isinstance(outcome, OuroborosError):
                task.failed(outcome)
            else:
                ipcp.impair(impairment)
                task.done(outcome)

        return Task(self._posts, answer)

    def destroy(self, id: int, task: Task, now: float) -> None:
        """Whatever holds a flow that it carries is told first, and can do what follows from that. Then the flows end, then
        its part in the engine, and last of all the flows that it holds itself: what it has to say goes out by those."""
        ipcp, member = self.find(id), self._registry.members[id]
        del self._table[id]
        self._host.stirred.add(id)
        end_flows = self._flows.closing(ipcp, member, now)

        def finish() -> None:
            end_flows()
            ipcp.destroy(now)
            self._flows.lower.holder_ends(member, now)
            for asked in [each for each in self._tasks.values() if each.ipcp == id]:
                asked.task.failed(asked.destroyed(f"IPC process {ipcp.name!r} was destroyed"))
            task.done()

        self._posts.add(finish)

    # --- answers

    def task(self, token: int, ipcp: int, destroyed: type[OuroborosError]) -> Task:
        """The answer to a request of a program to an IPC process, which may come later."""

        def answer(outcome: object) -> None:
            self._tasks.pop(token, None)
            self.managed = True
            if isinstance(outcome, OuroborosError):
                self.fail(token, outcome)
            else:
                self._effects.append(Reply(token, Done(outcome)))

        task = Task(self._posts, answer)
        self._tasks[token] = _Asked(task, ipcp, destroyed)
        return task

    def unasked(self) -> Task:
        """For what no program asked for. Nobody waits for it, and it cannot fail."""
        return Task(self._posts, _no_answer)

    def cancel(self, token: int, now: float) -> None:
        """The caller hung up. No error when nothing was asked under that token."""
        if (asked := self._tasks.pop(token, None)) is not None:
            asked.task.cancel()
            if (ipcp := self._table.get(asked.ipcp)) is not None:
                ipcp.abandoned(asked.task, now)

    def fail(self, token: int, error: OuroborosError) -> None:
        """Answer a request, also one that does not wait for an IPC process."""
        self._tasks.pop(token, None)
        self._effects.append(Reply(token, Failed(type(error).__name__, str(error))))


def _entry(found: Found, ipcp: Ipcp) -> OfferEntry:
    offer = found.offer
    return OfferEntry(offer.type, offer.layer, offer.member, ipcp.layer, found.station)


def _no_answer(outcome: object) -> None:
    """Nobody waits for it."""
    assert not isinstance(outcome, OuroborosError), outcome
