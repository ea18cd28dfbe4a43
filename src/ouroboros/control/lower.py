"""Flows that IPC processes ask for, accept and hold. Pure.

::

    ask ──▶ FlowManager ──▶ grant ──▶ Attach, Loop ──▶ end_opened ──▶ lower_up ──▶ release ──▶ EndFlow ──▶ end_over
              └──▶ lower_failed          └──▶ end_failed ──▶ lower_failed     └──▶ end_over ──▶ lower_down

An end belongs to the flow manager until `lower_up` is delivered, then to the IPC process, and to the flow manager again from
`release` or `lower_down` on. Its flow stays in the table until the engine is done with it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Protocol

from ouroboros.control.names import Registry
from ouroboros.control.parties import IpcProcess, LowerEnd, Question, Stage
from ouroboros.control.table import Flow, FlowTable
from ouroboros.control.waiting import Asking, WaitingRoom
from ouroboros.errors import FlowDownException, NodeError, OuroborosError
from ouroboros.layers.base import Ipcp
from ouroboros.layers.effects import Effect, EndFlow, Member, RemoteEnd
from ouroboros.layers.face import How, LowerFlow, Posts, Seen, Size, Step, Task, nobody
from ouroboros.qos import QoSSpec
from ouroboros.wire.control import HopEntry

#: In the place of an address.
THIS_NODE = "this node"


class Manager(Protocol):
    """The part of the flow manager that is used here."""

    def ask(self, asking: Asking, until: float, now: float) -> None: ...

    def cancel(self, token: int, now: float) -> None: ...

    def resume(self, member: IpcProcess, now: float) -> None: ...


class LowerFlows:
    """`layers.face.Lower`, and the ends that IPC processes hold.

    Its verbs may be called in the middle of anything. So they change only what is theirs, and post the rest.
    """

    def __init__(
        self,
        manager: Manager,
        registry: Registry,
        waiting: WaitingRoom,
        table: FlowTable,
        effects: list[Effect],
        posts: Posts,
        rank: Callable[[int], int],
    ) -> None:
        self._manager = manager
        self._members = registry.members
        self._waiting = waiting
        self._table = table
        self._effects = effects
        self._posts, self._post = posts, posts.add
        self.rank = rank
        self._last_fd = 0
        #: Ends of IPC processes that the engine has, or is to have, by flow and side.
        self._ends: dict[tuple[int, int], LowerEnd] = {}
        #: Ends that IPC processes were told of and have not let go, by the number that they know.
        self._held: dict[int, LowerEnd] = {}

    # --- verbs of IPC processes

    def ask(
        self,
        ipcp: int,
        number: int,
        name: str,
        qos: QoSSpec,
        now: float,
        *,
        until: float,
        over: frozenset[str] | None = None,
    ) -> None:
        member = self._members.get(ipcp)
        if member is None:
            # It is being destroyed.
            return
        if number in member.questions:
            raise ValueError(f"{member} asks twice under the number {number}")
        question = member.questions[number] = Question(number)

        def begin() -> None:
            if question.over:
                return
            question.token = self._waiting.new_token()
            refuse = functools.partial(self._refuse, member, question)
            asking = Asking(
                token=question.token, party=member, name=name, qos=qos, refuse=refuse, question=question, over=over
            )
            try:
                self._manager.ask(asking, until, now)
            except OuroborosError as error:
                refuse(error, now)

        self._post(begin)

    def withdraw(self, ipcp: int, number: int, now: float) -> None:
        member = self._members.get(ipcp)
        question = member.questions.pop(number, None) if member is not None else None
        if question is None:
            return
        question.over = True
        if question.end is not None:
            self._let_go(question.end)
        else:
            # When it was granted in the meantime, `end_opened` finds that nobody waits for it.
            self._post(lambda: self._manager.cancel(question.token, now))

    def probe(
        self, ipcp: int, fd: int, steps: tuple[Step, ...], wait: float, answer: Callable[[object], None], now: float
    ) -> None:
        task, end = Task(self._posts, answer), self._held.get(fd)
        flow = None if end is None or end.holder.pid != ipcp else self._table.flows.get(end.flow_id)
        if flow is None or end is None:
            task.done(nobody(now))
        elif flow.remote is None:
            # Both ends are in this node, with a local layer in between or nothing.
            self._within_node(flow, end, task, now)
        else:
            carrier = self._members[flow.remote.ipcp].ipcp
            assert isinstance(flow.remote, RemoteEnd)
            carrier.probe(flow.remote.address, steps, wait, task, now)

    def _within_node(self, flow: Flow, end: LowerEnd, task: Task, now: float) -> None:
        through = flow.ipcp or flow.relay or self._local(flow.layer)
        layer, type = ("", "") if through is None else (through.layer, through.type)
        owner = flow.owners[1 - end.side]
        member = "" if owner is None else owner.program
        entry = HopEntry(1, layer, type, member=member, address=THIS_NODE, state="unasked")
        task.done(Seen(entry, now, end=True))

    def _local(self, layer: str) -> Ipcp | None:
        """The local layer of that name, in which names are found with nothing between."""
        ipcps = (each.ipcp for each in self._members.values())
        return next((each for each in ipcps if each.within_node and each.layer == layer), None)

    def release(self, fd: int, now: float) -> None:
        if (end := self._held.pop(fd, None)) is not None:
            self._let_go(end)

    def _let_go(self, end: LowerEnd) -> None:
        if end.stage is not Stage.ENDING:
            end.stage = Stage.ENDING
            self._effects.append(EndFlow(end.flow_id, end.side))

    # --- what the flow manager decided

    def grant(self, member: IpcProcess, question: Question | None, flow: Flow, side: int, peer: str) -> Member:
        """Give an end of a flow to an IPC process, which is told when the engine has it.

        `question`: None for a flow that it accepts. `peer`: as of `LowerFlow`.
        """
        self._last_fd += 1
        end = LowerEnd(
            fd=self._last_fd,
            holder=member,
            flow_id=flow.id,
            side=side,
            name=flow.name,
            qos=flow.qos,
            carrier=flow.carrier,
            question=question,
            ours=flow.ours,
            peer=peer,
            layer="" if flow.carrier is None and self._local(flow.layer) is None else flow.layer,
        )
        self._ends[flow.id, side] = end
        member.below[end.carrier] += 1
        if question is None:
            member.accepted += 1
        else:
            question.end = end
        return Member(member.pid, end.fd)

    def carrier_ends(self, carrier: int, now: float) -> Callable[[], None]:
        """An IPC process is being destroyed: whatever holds a flow that it carries is told. Returns what has to be done
        after that."""
        ends = [end for end in self._ends.values() if end.carrier == carrier and end.stage is not Stage.ENDING]
        for end in ends:
            self._tell_down(end, How.GONE, now, _ended(end))
            end.stage = Stage.DOWN

        def let_go() -> None:
            for end in ends:
                self._let_go(end)

        return let_go

    def closing(self, member: IpcProcess, now: float) -> None:
        """An IPC process is being destroyed: it gets no flow any more."""
        for number in list(member.questions):
            self.withdraw(member.pid, number, now)

    def holder_ends(self, member: IpcProcess, now: float) -> None:
        """An IPC process is destroyed: it lets go of all that it holds."""
        for end in self._ends.values():
            if end.holder is member:
                self._held.pop(end.fd, None)
                self._let_go(end)

    # --- what the engine tells

    def holds(self, ipcp: int, fd: int) -> bool:
        """Whether the number of an end means anything to an IPC process."""
        end = self._held.get(fd)
        return end is not None and end.holder.pid == ipcp

    def end_opened(self, flow_id: int, side: int, size: Size, now: float) -> None:
        end = self._ends.get((flow_id, side))
        if end is None or end.stage is not Stage.OPENING:
            return
        if end.question is not None and end.question.over:
            self._let_go(end)
            return
        end.stage = Stage.OPEN
        self._post(lambda: self._tell_up(end, size, now))

    def end_failed(self, flow_id: int, side: int, text: str, now: float) -> None:
        if (end := self._ends.get((flow_id, side))) is not None:
            error = NodeError(f"the node could not make the flow to {end.name!r}: {text}")
            self._tell_down(end, How.BROKEN, now, error)
            self._forget(end, now)
            self._table.lose(self._table.flows[flow_id], side, now)

    def end_over(self, flow_id: int, side: int, how: How, now: float) -> None:
        if (end := self._ends.get((flow_id, side))) is not None:
            self._tell_down(end, how, now, _ended(end))
            self._forget(end, now)
            self._table.let_go(self._table.flows[flow_id], side, now)

    def end_resized(self, flow_id: int, side: int, size: Size, now: float) -> None:
        end = self._ends.get((flow_id, side))

        def tell() -> None:
            if end is not None and self._held.get(end.fd) is end and end.stage is Stage.OPEN:
                end.holder.ipcp.lower_resized(end.fd, size, now)

        # Behind the words by which it got the end, and the size of that time.
        self._post(tell)

    def end_state(self, flow_id: int, side: int, up: bool, now: float) -> None:
        end = self._ends.get((flow_id, side))

        def tell() -> None:
            if end is not None and self._held.get(end.fd) is end and end.stage is Stage.OPEN:
                end.holder.ipcp.lower_state(end.fd, up, now)

        self._post(tell)

    def _forget(self, end: LowerEnd, now: float) -> None:
        """The engine does not have it any more."""
        end.stage = Stage.ENDING
        del self._ends[end.flow_id, end.side]
        below = end.holder.below
        below[end.carrier] -= 1
        if not below[end.carrier]:
            del below[end.carrier]
        end.holder.ends.discard((end.flow_id, end.side))
        if end.question is None:
            end.holder.accepted -= 1
            # There is room for another.
            self._post(lambda: self._manager.resume(end.holder, now))

    # --- what IPC processes are told, all of it posted

    def _tell_up(self, end: LowerEnd, size: Size, now: float) -> None:
        if end.stage is not Stage.OPEN:
            return
        number = None
        if (question := end.question) is not None:
            number, question.over, question.end = question.number, True, None
            del end.holder.questions[number]
        self._held[end.fd] = end
        flow = LowerFlow(
            fd=end.fd,
            name=end.name,
            qos=end.qos,
            side=end.side,
            size=size,
            ipcp=end.carrier,
            ours=end.ours,
            peer=end.peer,
            layer=end.layer,
        )
        end.holder.ipcp.lower_up(number, flow, now)

    def _tell_down(self, end: LowerEnd, how: How, now: float, error: OuroborosError) -> None:
        """One that has it hears that it is down, and `how`; one that still asks, that there is none, and the `error`."""

        def tell() -> None:
            if self._held.pop(end.fd, None) is not None:
                end.holder.ipcp.lower_down(end.fd, how, now)

        if end.fd in self._held:
            self._post(tell)
        elif end.question is not None:
            end.question.end = None
            self._refuse(end.holder, end.question, error, now)

    def _refuse(self, member: IpcProcess, question: Question, error: OuroborosError, now: float) -> None:
        def tell() -> None:
            if not question.over:
                question.over = True
                del member.questions[question.number]
                member.ipcp.lower_failed(question.number, error, now)

        self._post(tell)


def _ended(end: LowerEnd) -> FlowDownException:
    return FlowDownException(f"the flow to {end.name!r} ended before it could be used")
