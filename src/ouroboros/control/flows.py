"""The flow manager: requests for flows, acceptors, and the flows that there are. Pure.

::

    alloc ──▶ acceptor waits? ── yes ──▶ Connect
                   │ no
                   ├──▶ queue of the name ──▶ acceptor comes ──▶ Connect
                   │         ├──▶ time runs out, or the asker hangs up
                   │         └──▶ the program started for it failed, or nobody serves it any more ──▶ Failed
                   └──▶ not served here: layers, one after the other ──▶ a peer accepts ──▶ Attach
                             └──▶ none leads there ──▶ Failed, or with `wait` the same again after a pause
    request of a peer ──▶ queue of the name ──▶ acceptor comes ──▶ Attach

A request is known by its token, which the runtime chooses, each one larger than those before; requests of peers have
negative ones. Nothing waits anywhere but in `waiting`.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from ouroboros.control.demand import OnDemand
from ouroboros.control.lower import LowerFlows
from ouroboros.control.matching import Matching, check_works
from ouroboros.control.names import Name, Registry
from ouroboros.control.parties import IpcProcess, Layering, Party, Process
from ouroboros.control.reasons import Reasons, check_possible, deserted, is_patient
from ouroboros.control.security import Security
from ouroboros.control.shares import PEERS, Kind, Shares
from ouroboros.control.table import FlowTable
from ouroboros.control.waiting import Accepting, Arrived, Asking, Joining, Waiting, WaitingRoom
from ouroboros.control.ways import Ways, is_alone
from ouroboros.errors import (
    FlowDownException,
    FlowNameException,
    FlowQosException,
    FlowRefusedException,
    FlowTimeoutException,
    NodeLimitError,
    OuroborosError,
)
from ouroboros.layers.agenda import Alarm, earliest
from ouroboros.layers.base import Ipcp, State
from ouroboros.layers.effects import Effect, Join, Reply
from ouroboros.layers.face import Arrival, End, Posts, Reach
from ouroboros.oap import Settings
from ouroboros.qos import QoSSpec
from ouroboros.settings import Strangers
from ouroboros.wire.control import Accept, Alloc, Failed
from ouroboros.wire.control import Join as JoinRequest
from ouroboros.wire.offers import Offer

#: How long an allocation or a join waits when the caller gives no limit, seconds (`flows.md` 1).
ALLOC_TIMEOUT = 20.0
#: How long a request of a peer waits for an acceptor: a bit shorter, so that the peer still hears why it failed.
ARRIVAL_TIMEOUT = 19.5
#: Ends of flows of a process that died that are let go at once, in about a millisecond; the others get their turn before the
#: next ones.
ENDS_A_TURN = 32


class FlowManager:
    """Matches requests for flows with acceptors, here and elsewhere, and keeps the table of flows."""

    def __init__(
        self,
        registry: Registry,
        security: Security,
        effects: list[Effect],
        limit: int,
        ipcps: Mapping[int, Ipcp],
        posts: Posts,
        shares: Shares,
        alarm: Alarm,
    ) -> None:
        """`alarm`: hears of each time of `deadline`."""
        self._alarm = alarm
        self._registry = registry
        self._security = security
        self._ipcps = ipcps
        self._effects = effects
        self._post = posts.add
        self._shares = shares
        self._waiting = WaitingRoom(registry, shares, alarm)
        self._table = FlowTable(effects, limit, ipcps, shares)
        self.bound_peers(Strangers())
        self._layering = Layering(registry.members)
        self._ways = Ways(ipcps, self._layering)
        self.lower = LowerFlows(self, registry, self._waiting, self._table, effects, posts, self._layering.rank)
        self.flows = self._table.flows
        self.entries = self._table.entries
        self.touch = self._table.touch
        self.take_changes = self._table.take_changes
        self.engine_done = self._table.engine_done
        self.carrier_gone = self._table.carrier_gone
        #: Ends of flows of processes that died, which are still to be let go, and since when.
        self._dead: deque[tuple[Process, tuple[int, int], float]] = deque()
        #: The standing accepts of IPC processes.
        self._standing: dict[IpcProcess, Accepting] = {}
        self._demand = OnDemand(effects, shares.starts)
        self._reasons = Reasons(registry, self._ways, self._demand)
        self._matching = Matching(
            registry=registry,
            security=security,
            waiting=self._waiting,
            table=self._table,
            layering=self._layering,
            ways=self._ways,
            lower=self.lower,
            demand=self._demand,
            effects=effects,
            ask_later=self._ask_later,
        )

    def bound_peers(self, strangers: Strangers) -> None:
        """From now on, peers that ask for flows have so many, and so much memory for those."""
        self._table.most_of_peers, self._table.most_of_host = strangers.flows, strangers.flows_of_one
        self._shares.memory_of_peers = strangers.memory

    # --- requests

    def alloc(self, token: int, process: Process, request: Alloc, user: int | None, now: float) -> None:
        """`user`: of the connection that the request came over; None for the owner of the node, who has no share."""
        timeout = ALLOC_TIMEOUT if request.timeout is None else request.timeout
        refuse = functools.partial(self._refuse, token)
        asking = Asking(
            token=token,
            party=process,
            name=request.name,
            qos=request.qos,
            refuse=refuse,
            user=user,
            over=None if request.layer is None else frozenset((request.layer,)),
            patient=request.wait,
        )
        self.ask(asking, now + timeout, now)

    def ask(self, asking: Asking, until: float, now: float) -> None:
        """A party wants a flow. Raises why there will be none, if that is clear at once."""
        name = self._registry.names.get(asking.name)
        ipcps = self._ways.ipcps_to_ask(asking, name)
        if asking.patient:
            check_possible(asking.name)
        elif not ipcps and (nobody := self._reasons.none_here(asking, name)) is not None:
            self._ways.check_layers(asking)
            raise nobody
        self._waiting.add(asking, until)
        if not self._connect_now(asking, name, now) and until > now and self._may_wait(asking, name, now):
            self._seek(asking, name, ipcps, now)
        if until <= now and asking in self._waiting:
            self._expire(asking, now)

    def _connect_now(self, asking: Asking, name: Name | None, now: float) -> bool:
        """Whether there is somebody to connect with, be it with success or not."""
        if name is None or not name.acceptors or not self._ways.within(asking):
            return False
        acceptors = (self._waiting.acceptors[token] for token in name.in_turn())
        # An IPC process may be bound to the name of its layer, by which it asks for the others.
        others = (each for each in acceptors if each.standing is None or each.party is not asking.party)
        first = next(others, None)
        if first is None:
            if self._ways.ipcps_to_ask(asking, name):
                return False
            if is_alone(asking.party, name):
                self._fail(asking, self._reasons.not_found(asking, name), now)
                return True
            first = self._waiting.acceptors[next(name.in_turn())]
        self._matching.connect(asking, first, name, now)
        return True

    def _seek(self, asking: Asking, name: Name | None, ipcps: list[Ipcp], now: float) -> None:
        """Wait for an acceptor here, and ask layers."""
        within = self._ways.within(asking) and not is_alone(asking.party, name)
        if within and (name is not None or asking.patient):
            self._registry.enqueue(asking.name, asking.token)
        if ipcps or asking.patient:
            asking.more_ipcps = ipcps
            self._ask_next(asking, now)

    def accept(self, token: int, process: Process, request: Accept, user: int | None, now: float) -> None:
        until = None if request.timeout is None else now + request.timeout
        refuse = functools.partial(self._refuse, token)
        accepting = Accepting(token=token, party=process, name=request.name, refuse=refuse, user=user)
        self._waiting.add(accepting, until)
        self._registry.mark_server(process, request.name)
        names = self._names_of(accepting)
        self._demand.arrived(name.text for name in names)
        if self._offer(accepting, names, now):
            return
        if until is not None and until <= now:
            self._expire(accepting, now)
            return
        for name in names:
            name.acceptors[token] = None

    def stand(self, member: IpcProcess) -> None:
        """From now on, an IPC process takes all flows to names that are bound to it."""
        accepting = Accepting(token=self._waiting.new_token(), party=member, name=None, refuse=_never)
        self._waiting.add(accepting, None)
        self._standing[member] = accepting
        self._registry.mark_server(member, None)

    def resume(self, member: IpcProcess, now: float) -> None:
        """An IPC process that accepts has room for another flow."""
        if (accepting := self._standing.get(member)) is not None:
            self._eligible(accepting, self._names_of(accepting), now)

    def _offer(self, accepting: Accepting, names: list[Name], now: float) -> bool:
        """Serve the oldest request first, over all names of the acceptor. Whether a program has its flow."""
        while accepting.free and (name := self._asked_first(names)) is not None:
            asks = self._waiting.clients[next(iter(name.allocators))]
            if self._matching.connect(asks, accepting, name, now) and accepting.standing is None:
                return True
        return False

    def _eligible(self, accepting: Accepting, names: list[Name], now: float) -> None:
        """It takes the next flow to any of the names, whether a request waits or not."""
        if not self._offer(accepting, names, now) and accepting.free:
            for name in names:
                name.acceptors.setdefault(accepting.token)

    def join(
        self, token: int, process: Process, request: JoinRequest, ipcp: Ipcp, user: int | None, now: float
    ) -> None:
        """`ipcp`: the member of the layer (`control/joining.py`)."""
        if ipcp.state == State.FAILED:
            raise FlowDownException(ipcp.trouble)
        check_joinable(request)
        flow = self._table.add(request.layer, request.qos, (process, None), (token, None), (user, None))
        flow.ipcp, flow.layer = ipcp, ipcp.layer
        ipcp.join(flow.id, now)
        self._effects.append(Join(flow.id, request.layer, request.qos, ipcp.id, token))

    def let_wait(
        self,
        token: int,
        process: Process,
        request: JoinRequest,
        user: int | None,
        until: float,
        left: Callable[[Joining, float], None],
    ) -> Joining:
        """A request to join waits for a member of the layer. Raises `NodeLimitError` when its user has too many."""
        refuse = functools.partial(self._refuse, token)
        joining = Joining(token=token, party=process, request=request, refuse=refuse, left=left, user=user)
        self._waiting.add(joining, until)
        return joining

    def let_in(self, joining: Joining, ipcp: Ipcp, now: float) -> None:
        """There is a member now."""
        self._waiting.remove(joining)
        try:
            self.join(joining.token, joining.party, joining.request, ipcp, joining.user, now)
        except OuroborosError as error:
            joining.refuse(error, now)

    def turn_away(self, joining: Joining, error: OuroborosError, now: float) -> None:
        """There will be none."""
        self._fail(joining, error, now)

    def capture(self, token: int, process: Process, snap: int, ipcp: Ipcp) -> None:
        """Let a process of the owner see what an IPC process sends and gets."""
        if ipcp.state == State.FAILED:
            raise FlowDownException(ipcp.trouble)
        if ipcp.state != State.OPERATIONAL:
            raise FlowNameException(f"IPC process {ipcp.name!r} is in no layer yet: there is nothing to capture")
        name = f"capture of {ipcp.name}"
        flow = self._table.add(name, QoSSpec(), (process, None), (token, None), (None, None))
        self._effects.append(Join(flow.id, name, flow.qos, ipcp.id, token, snap))

    def bound(self, party: Party, name: Name, now: float) -> None:
        """A party was bound to a name: acceptors of it that wait for any name are eligible at once."""
        for token in sorted(party.waiting & self._waiting.acceptors.keys()):
            accepting = self._waiting.acceptors[token]
            if accepting.name is None:
                self._eligible(accepting, [name], now)

    def unbound(self, party: Party, name: Name, now: float) -> None:
        """A party was unbound from a name: it is not eligible any more, and what waits for that name alone is over."""
        for token in sorted(party.waiting & name.acceptors.keys()):
            del name.acceptors[token]
            self._end_accept(self._waiting.acceptors[token], f"this process was unbound from {name.text!r}", now)
        self.wanted(name, now)

    def wanted(self, name: Name, now: float) -> None:
        """The bindings of a name changed, or a process of it died: start its program if clients wait and nobody else can,
        and refuse those that wait for nobody.

        When a program that was started for it still runs, its end will tell what to do: see `program_ended`.
        """
        if self._demand.runs(name.text):
            return
        # Whoever has had too many started is refused, and the next one asks.
        while name.allocators and not self._started(name, self._waiting.clients[next(iter(name.allocators))], now):
            pass
        if name.deserted:
            for waiting in self._of_queue(name):
                if not is_patient(waiting):
                    self._fail(waiting, deserted(name), now)

    def name_destroyed(self, name: Name, now: float) -> None:
        self._demand.arrived([name.text])
        for waiting in self._of_queue(name):
            if is_patient(waiting):
                self._registry.enqueue(name.text, waiting.token)
            else:
                self._fail(waiting, FlowNameException(f"the name {name.text!r} was destroyed"), now)
        for token in name.acceptors:
            self._end_accept(self._waiting.acceptors[token], f"the name {name.text!r} was destroyed", now)

    def cancel(self, token: int, now: float) -> None:
        """The asker hung up. No error when the request is answered already."""
        waiting = self._waiting.get(token)
        if waiting is not None:
            self._waiting.remove(waiting)
            if isinstance(waiting, Asking | Joining):
                waiting.stop(now)

    def user(self, token: int) -> int | None:
        """Whose program asks for a flow under that token; None for the owner, and when none does any more."""
        asking = self._waiting.asking(token)
        return None if asking is None else asking.user

    # --- ends of flows

    def dealloc(self, process: Process, flow_id: int, side: int, now: float) -> None:
        """One end lets go. Ends that the process does not hold are ignored: it may have raced with its own death."""
        if (flow_id, side) in process.ends:
            process.ends.discard((flow_id, side))
            self._table.let_go(self.flows[flow_id], side, now)

    def abandon(self, flow_id: int, side: int, now: float, token: int | None = None) -> None:
        """An end whose owner never got it: the descriptors could not be made or delivered.

        With the `token` of the request, nothing happens when the id belongs to another flow by now.
        """
        flow = self.flows.get(flow_id)
        owner = flow.owners[side] if flow else None
        if flow is not None and owner is not None and token in (None, flow.tokens[side]):
            owner.ends.discard((flow_id, side))
            self._table.lose(flow, side, now)

    def process_died(self, process: Process, now: float) -> None:
        for token in sorted(process.waiting):
            self.cancel(token, now)
        is_first = not self._dead
        self._dead.extend((process, end, now) for end in sorted(process.ends))
        self._alarm.sooner(now)
        if is_first:
            self._lose_ends(ENDS_A_TURN, now)

    def _lose_ends(self, most: int, now: float) -> None:
        """Of the dead; `deadline` tells that there are more."""
        for _ in range(min(most, len(self._dead))):
            process, end, _ = self._dead.popleft()
            # It may have been taken back before.
            if end in process.ends:
                process.ends.discard(end)
                self._table.lose(self.flows[end[0]], end[1], now)

    def shut_down(self, now: float) -> None:
        """The peers of all that died are told."""
        self._lose_ends(len(self._dead), now)

    # --- programs started on demand

    def program_ended(self, name: str, program: str, how: str, served: bool, now: float) -> None:
        """A program we started is gone. When it served somebody, the next request starts it again."""
        self._demand.ended(name)
        entry = self._registry.names.get(name)
        if entry is None or not entry.allocators or entry.servers:
            return
        if served:
            self.wanted(entry, now)
            return
        for token in list(entry.allocators):
            self._fail(
                self._waiting.clients[token],
                FlowRefusedException(f"{program!r}, started for {name!r}, {how} and accepted nothing"),
                now,
            )

    # --- what IPC processes tell: `layers.face.Upper`. Whatever is waited for may be over by the time that it is told.

    def settings(self, name: str) -> Settings:
        return self._security.settings(name, "server")

    def offers(self, ipcp: int) -> list[Offer]:
        carrier, found = self._ipcps[ipcp], list[Offer]()
        for member in self._registry.members.values():
            known = [text for text in member.names if carrier.query(carrier.digest(text))]
            if known and member.ipcp.takes_newcomers:
                # By the name of the layer any of its members is found, and certificates are for that.
                layer = member.ipcp.layer
                found.append(Offer(member.ipcp.type, layer, layer if layer in known else known[0]))
        return found

    def reachable(self, token: int) -> None:
        """Another node is asked. A program here that accepts from now on comes too late, except for patient requests, which
        take the first acceptor."""
        asking = self._asked(token)
        if asking is not None and not asking.patient:
            asking.leave(self._registry)

    def unreachable(self, token: int, advice: str, now: float) -> None:
        if (asking := self._asked(token)) is not None:
            if asking.ipcp is not None:
                asking.advice[asking.ipcp.layer] = advice
            asking.ipcp = None
            self._ask_next(asking, now)

    def answered(self, token: int, end: End, now: float) -> None:
        asking = self._asked(token)
        if asking is None or end.ipcp not in self._ipcps:
            self._give_back(end, now)
            return
        try:
            check_works(asking.party)
            self._layering.check(asking.party, end.ipcp)
            flow = self._table.add(asking.name, end.qos, (asking.party, None), (token, None), (asking.user, None))
        except (FlowDownException, FlowRefusedException, NodeLimitError) as error:
            self._give_back(end, now)
            asking.ipcp = None
            self._fail(asking, error, now)
            return
        self._waiting.remove(asking)
        self._matching.attach(flow, end, asking, 0)

    def refused(self, token: int, error: OuroborosError, now: float, *, for_now: bool = False) -> None:
        asking = self._asked(token)
        if asking is None:
            return
        asking.ipcp = None
        if not (for_now and asking.patient):
            self._fail(asking, error, now)
            return
        asking.last_refusal = str(error)
        self._ask_next(asking, now)

    def requested(self, arrival: Arrival, now: float) -> None:
        """A peer wants a flow: it waits like a party of this node."""
        ipcp = self._ipcps.get(arrival.ipcp)
        if ipcp is None:
            return
        arrived = Arrived(token=self._waiting.new_token(), arrival=arrival, ipcp=ipcp)
        self._waiting.add(arrived, now + ARRIVAL_TIMEOUT)
        name = self._registry.names.get(arrival.name)
        if name is None:
            self._fail(arrived, FlowNameException(f"there is no name {arrival.name!r}"), now)
        elif (acceptor := name.next_acceptor()) is not None:
            self._matching.connect(arrived, self._waiting.acceptors[acceptor], name, now)
        elif (nobody := self._reasons.nobody(arrival.name, name)) is not None:
            self._fail(arrived, nobody, now)
        else:
            self._registry.enqueue(name.text, arrived.token, stranger=arrived.stranger)
            self._started(name, arrived, now)

    def withdrawn(self, arrival: Arrival) -> None:
        arrived = self._waiting.find(arrival)
        if arrived is not None:
            self._waiting.remove(arrived)

    def _asked(self, token: int) -> Asking | None:
        """The request that an IPC process answers; None when that is not asked any more."""
        asking = self._waiting.asking(token)
        return asking if asking is not None and asking.ipcp is not None else None

    def _give_back(self, end: End, now: float) -> None:
        """Nobody takes it."""
        end.session.wipe()
        if (ipcp := self._ipcps.get(end.ipcp)) is not None:
            ipcp.give_back(end, now)

    # --- IPC processes

    def rank(self, ipcp: int) -> int:
        """How many layers lie below it."""
        return self._layering.rank(ipcp)

    def closing(self, ipcp: Ipcp, member: IpcProcess, now: float) -> Callable[[], None]:
        """An IPC process carries nothing any more and gets nothing any more. It is in neither the IRM's table of IPC
        processes nor that of parties from now on.

        Returns what has to be done when all are told, before it is destroyed itself.
        """
        error = FlowDownException(f"the layer {ipcp.layer!r} was destroyed")
        for asking in self._waiting.asking_of(ipcp):
            asking.stop(now)
            self._ask_later(asking, now, error)
        for arrived in self._waiting.arrived_at(ipcp):
            self._fail(arrived, error, now)
        self.lower.closing(member, now)
        self.carrier_gone(ipcp.id)
        if (accepting := self._standing.pop(member, None)) is not None:
            self._waiting.remove(accepting)
        self._registry.remove_process(member)
        for text in member.names:
            self.wanted(self._registry.names[text], now)
        return self.lower.carrier_ends(ipcp.id, now)

    # --- time

    def deadline(self) -> float | None:
        """When `timeout` wants to be called next."""
        return earliest(self._waiting.deadline(), self._dead[0][2] if self._dead else None)

    def timeout(self, now: float) -> None:
        self._lose_ends(ENDS_A_TURN, now)
        for waiting in self._waiting.expired(now):
            self._expire(waiting, now)
        for asking in self._waiting.to_ask(now):
            name = self._registry.names.get(asking.name)
            # A request that went through a layer of this node is in no queue since then. An acceptor may have come.
            if not self._connect_now(asking, name, now):
                self._seek(asking, name, self._ways.ipcps_to_ask(asking, name), now)

    # --- helpers

    def _ask_next(self, asking: Asking, now: float, error: OuroborosError | None = None) -> None:
        """`error`: why the last one does not lead there, if it should have."""
        while asking.more_ipcps:
            ipcp = asking.ipcp = asking.more_ipcps.pop(0)
            if self._ipcps.get(ipcp.id) is not ipcp or ipcp.reach(asking.name) is Reach.NO:
                continue
            try:
                settings = self._security.asked(asking.name, asking.qos.cypher_s, asking.party)
                if asking.user is not None:
                    # It may have to look the name up.
                    self._shares.check(Kind.LOOKUPS, asking.user)
                ipcp.allocate(asking.token, asking.name, asking.qos, settings, now)
            except (FlowRefusedException, NodeLimitError) as refusal:
                self._fail(asking, refusal, now)
            return
        asking.ipcp = None
        name = self._registry.names.get(asking.name)
        if asking.patient:
            self._waiting.ask_again(asking, now)
        elif error is not None:
            self._fail(asking, error, now)
        elif name is None or asking.through or is_alone(asking.party, name) or not self._ways.within(asking):
            self._fail(asking, self._reasons.not_found(asking, name), now)
        elif (why := self._reasons.none_here(asking, name)) is not None:
            self._fail(asking, why, now)

    def _ask_later(self, asking: Asking, now: float, error: OuroborosError | None = None) -> None:
        """Ask the next layer when what the last one may have said is heard, which is nothing to this request any more."""

        def ask() -> None:
            if asking in self._waiting:
                self._ask_next(asking, now, error)

        self._post(ask)

    def _of_queue(self, name: Name) -> list[Asking | Arrived]:
        """The requests that wait for the name here: no other node is asked for them, or they are patient, or of a peer."""
        waiting = [self._waiting.clients[token] for token in name.allocators]
        return [each for each in waiting if isinstance(each, Arrived) or each.patient or each.ipcp is None]

    def _names_of(self, accepting: Accepting) -> list[Name]:
        return [self._registry.names[text] for text in accepting.names]

    def _end_accept(self, accepting: Accepting, why: str, now: float) -> None:
        """End an accept for that name alone, which would wait for ever. An accept for any name goes on."""
        if accepting.name is not None:
            self._fail(accepting, FlowNameException(f"{why} while it waited for a flow to it"), now)

    def _asked_first(self, names: Iterable[Name]) -> Name | None:
        """Of the names, the one whose client has waited longest; strangers come last."""

        def turn(name: Name) -> tuple[bool, int]:
            first = self._waiting.clients[next(iter(name.allocators))]
            return first.stranger, first.order

        return min((name for name in names if name.allocators), key=turn, default=None)

    def _may_wait(self, asking: Asking, name: Name | None, now: float) -> bool:
        return name is None or not self._ways.within(asking) or self._started(name, asking, now)

    def _started(self, name: Name, waiting: Asking | Arrived, now: float) -> bool:
        """Whether what waits for a name may go on: the program of the name is started for it, if there is one to start."""
        user = PEERS if isinstance(waiting, Arrived) else waiting.user
        try:
            self._demand.start(name, user, now)
        except NodeLimitError as error:
            self._fail(waiting, error, now)
            return False
        return True

    def _fail(self, waiting: Waiting, error: OuroborosError, now: float) -> None:
        self._waiting.fail(waiting, error, now)

    def _refuse(self, token: int, error: OuroborosError, now: float) -> None:
        self._effects.append(Reply(token, Failed(type(error).__name__, str(error))))

    def _expire(self, waiting: Waiting, now: float) -> None:
        if isinstance(waiting, Accepting):
            self._fail(waiting, FlowTimeoutException("nobody asked for a flow in time"), now)
        elif isinstance(waiting, Joining):
            layer = waiting.request.layer
            why = f"no member of broadcast layer {layer!r} let this node in in time: is the host of one up?"
            self._fail(waiting, FlowTimeoutException(why), now)
        else:
            self._fail(waiting, self._reasons.late(waiting), now)


def check_joinable(request: JoinRequest) -> None:
    """Raises `FlowQosException` for what no broadcast layer can give."""
    if request.qos.ordered or request.qos.cypher_s:
        raise FlowQosException(
            f"broadcast layer {request.layer!r} can neither promise delivery (loss=0, in_order=1) nor encrypt "
            "(cypher_s); join it with the default QoS"
        )


def _never(error: OuroborosError, now: float) -> None:
    raise RuntimeError("an IPC process that accepts flows does so as long as it is there")
