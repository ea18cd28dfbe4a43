"""Flows between a request and an acceptor that were matched: both are checked, the flow comes into the table, and the engine
is told. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from ouroboros.control.demand import OnDemand
from ouroboros.control.lower import LowerFlows
from ouroboros.control.names import Name, Registry
from ouroboros.control.parties import IpcProcess, Layering, Party
from ouroboros.control.security import Security
from ouroboros.control.table import Flow, FlowTable
from ouroboros.control.waiting import Accepting, Arrived, Asking, WaitingRoom
from ouroboros.control.ways import Way, Ways
from ouroboros.errors import FlowDownException, FlowRefusedException, NodeLimitError
from ouroboros.layers.base import Ipcp, State
from ouroboros.layers.effects import Attach, Connect, Effect, Loop, User
from ouroboros.layers.face import End
from ouroboros.oap import Session


@dataclass(kw_only=True)
class Matching:
    """Makes flows of pairs. `ask_later`: asks the next IPC process for a request."""

    registry: Registry
    security: Security
    waiting: WaitingRoom
    table: FlowTable
    layering: Layering
    ways: Ways
    lower: LowerFlows
    demand: OnDemand
    effects: list[Effect]
    ask_later: Callable[[Asking, float], None]

    def connect(self, asks: Asking | Arrived, takes: Accepting, name: Name, now: float) -> bool:
        """Whether the flow could be made. If not, the asker is told, or asks a layer that leads here."""
        if isinstance(asks, Arrived):
            return self._connect_peer(asks, takes, now)
        asks.stop(now)
        way, carrier = self.ways.way(asks, takes.party)
        if way is Way.LAYER and carrier is not None:
            asks.leave(self.registry)
            asks.through, asks.more_ipcps = True, [carrier]
            self.ask_later(asks, now)
            return False
        sessions = None
        try:
            self._check_carrier(takes, carrier)
            check_works(asks.party)
            if takes.standing is not None and takes.party is asks.party:
                raise FlowRefusedException(f"{asks.party} asks for a flow to {name.text!r}, for which only it is there")
            for party in (asks.party, takes.party):
                self.layering.check(party, None if carrier is None else carrier.id)
            gets, ring = (asks.user, takes.user), way is Way.RING
            # Before anything dear is computed.
            self.table.check(gets, ring=ring)
            sessions = self.security.agree(name.text, asks.qos.cypher_s, asks.party)
            qos = msgspec.structs.replace(asks.qos, cypher_s=sessions[0].strength if sessions else 0)
            owners = (asks.party, takes.party)
            flow = self.table.add(name.text, qos, owners, (asks.token, takes.token), gets, ring=ring)
        except (FlowDownException, FlowRefusedException, NodeLimitError) as error:
            for session in sessions or ():
                session.wipe()
            self.waiting.fail(asks, error, now)
            return False
        self.waiting.remove(asks)
        flow.relay, flow.layer = carrier, self.ways.layer(asks)
        peers = tuple(_proven(flow, 1 - side, sessions and sessions[side]) for side in (0, 1))
        users = (self._user(flow, 0, asks, peers[0]), self._user(flow, 1, takes, peers[1]))
        self._taken(takes, name)
        match way, users:
            case Way.RING, (int() as allocator, int() as acceptor):
                self.effects.append(Connect(flow.id, flow.name, flow.qos, allocator, acceptor, sessions, flow.layer))
            case _:
                accounts = (self.table.accounts(flow, 0), self.table.accounts(flow, 1))
                loop = Loop(flow.id, flow.name, flow.qos, users, flow.carrier, sessions, flow.layer, accounts)
                self.effects.append(loop)
        return True

    def _connect_peer(self, asks: Arrived, takes: Accepting, now: float) -> bool:
        """The same for a request of a peer. Its handshake can fail, which is nothing to the acceptor."""
        arrival, ipcp = asks.arrival, asks.ipcp
        try:
            self._check_carrier(takes, ipcp)
            self.layering.check(takes.party, ipcp.id)
        except (FlowDownException, FlowRefusedException) as error:
            self.waiting.fail(asks, error, now)
            return False
        self.waiting.remove(asks)
        end = ipcp.accept(arrival, now)
        if end is None:
            return False
        try:
            host = None if arrival.host is None else (ipcp.id, arrival.host)
            flow = self.table.add(
                arrival.name, end.qos, (None, takes.party), (None, takes.token), (None, takes.user), host=host
            )
        except NodeLimitError as error:
            end.session.wipe()
            ipcp.refuse(arrival, error, now, end)
            return False
        self.attach(flow, end, takes, 1)
        self._taken(takes, self.registry.names[arrival.name])
        ipcp.confirm(arrival, now)
        return True

    def _check_carrier(self, takes: Accepting, carrier: Ipcp | None) -> None:
        """Raises `FlowDownException` when what is to carry a flow, or to take it, has failed, or is in no layer yet."""
        if carrier is not None and carrier.state == State.FAILED:
            raise FlowDownException(carrier.trouble)
        check_works(takes.party)
        if (member := takes.standing) is not None and member.ipcp.state == State.BOOT:
            raise FlowDownException(f"{member}, which is to take the flow, is in no layer yet: bootstrap it first")

    def _user(self, flow: Flow, side: int, waiting: Asking | Accepting, peer: str) -> User:
        """The user of an end, in the words of the engine. `peer`: who is proven to be at the other."""
        if isinstance(waiting.party, IpcProcess):
            question = waiting.question if isinstance(waiting, Asking) else None
            return self.lower.grant(waiting.party, question, flow, side, peer)
        return waiting.token

    def _taken(self, takes: Accepting, name: Name) -> None:
        """An acceptor has its flow. A standing one goes on, at the end of the queue."""
        if self.demand.runs(name.text):
            takes.party.served.add(name.text)
        if takes.standing is None:
            self.waiting.remove(takes)
        elif takes.free:
            name.acceptors.pop(takes.token, None)
            name.acceptors[takes.token] = None
        else:
            takes.leave(self.registry)

    def attach(self, flow: Flow, end: End, waiting: Asking | Accepting, side: int) -> None:
        """A flow to a peer is there: its end goes to the user that waits."""
        self.table.attach(flow, end)
        user = self._user(flow, side, waiting, end.session.peer_name or "")
        accounts = self.table.accounts(flow, side)
        self.effects.append(Attach(flow.id, flow.name, user, side, end, flow.layer, accounts))


def _proven(flow: Flow, side: int, session: Session | None) -> str:
    """Who has that end of a flow within this node, as `LowerFlow.peer` has it. `session`: of the other end."""
    if session is not None and session.peer_name:
        return session.peer_name
    owner = flow.owners[side]
    return owner.program if isinstance(owner, IpcProcess) else ""


def check_works(party: Party) -> None:
    """Raises `FlowDownException` for an IPC process that has failed."""
    if isinstance(party, IpcProcess) and party.ipcp.state == State.FAILED:
        raise FlowDownException(party.ipcp.trouble)
