"""Link-state routing of one member: it announces its own links, hears of those of all others, and makes routes of them.

::

    data transfer ── adjacency_up, adjacency_down ──▶ own links ──┐
    neighbours ── management flows ──▶ updates ──▶ database ──────┼─▶ graph ──▶ routes
               ◀─ flooding ──────────────────────────┴────────────┘

Members of ours tell each other what changed, withdrawals included, until it is acknowledged. So they refresh their links
seldom. As soon as a member of the prototype is in the layer, `mixed`, all refresh them every `t_update` and forget what is
older than `t_timeo`, as it expects (`unicast-control.md` 6, 11).

Who is ours, in the whole layer: members whose updates have numbers of ours (`database.OURS`). Members of the prototype pass
them on as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from ouroboros.errors import ProtocolError
from ouroboros.layers.agenda import Agenda, earliest
from ouroboros.layers.unicast.core import Core
from ouroboros.layers.unicast.database import OURS, Database, Life, Pair
from ouroboros.layers.unicast.flooding import Flow, Neighbour
from ouroboros.layers.unicast.graph import Graph, Table
from ouroboros.settings import LinkStatePolicy
from ouroboros.wire.unicast import lsu
from ouroboros.wire.unicast.lsu import LEAST_ADDRESS, MOST_NUMBER, Acknowledgement, LinkStateUpdate, Updates

#: Between refreshments of own links in a layer of ours, seconds. So many of them may be missed.
REFRESHMENT = 600.0
MISSED = 3
#: A neighbour of the prototype that is silent for so many times `t_update` is gone.
SILENCE = 3
#: Routes are computed at once, then with pauses that double as long as changes go on, seconds.
FIRST_PAUSE = 0.01
LAST_PAUSE = 1.0
#: A link comes up once in so many seconds. One that went down so often within so many seconds stays down for `t_timeo`.
UP_PAUSE = 1.0
FLAPS = 3
FLAP_TIME = 60.0
#: Somebody else speaks for our links: so many seconds later it is contradicted. If it goes on, a member has our address.
CLAIM_PAUSE = 1.0
CLAIMS_OF_ANOTHER = 3
MOST_CLAIMS = 256
#: Later than that, this node stood still: nobody is judged by what could not be read meanwhile.
STALL = 1.0
#: So many seconds after a flow to a neighbour of the prototype is there, it is made to compute its routes.
NUDGE_PAUSE = 0.05
#: What that is done for.
_NEW_FLOW, _LOST_LINK = 0, 1


class Row(msgspec.Struct, frozen=True):
    """An entry of the database, for listings. `age`: seconds since it was refreshed. `used`: both ends announce the link."""

    source: int
    destination: int
    number: int
    age: float
    life: Life
    used: bool


@dataclass(slots=True, eq=False)
class _Link:
    """One of our adjacencies. `wanted`: data can go there. `up`: we announce it. `hold`: it does not come up before."""

    wanted: bool = False
    up: bool = False
    hold: float = 0.0
    downs: list[float] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Claim:
    """What somebody else said of a link of ours: the greatest number, and how often it grew since then."""

    number: int
    since: float
    count: int = 1
    answered: bool = False


class LinkState:
    """The component "Management" of a member. Its address is there."""

    def __init__(
        self,
        core: Core,
        changed: Callable[[Table, bool, float], None],
        collided: Callable[[float], None] = lambda now: None,
    ) -> None:
        """`changed`: gets the whole table of next hops, whether they are equal to each other, and the time, whenever it is
        another one. `collided`: another member has our address."""
        config = core.config.dt.routing.ls
        self._core = core
        self._changed, self._collided = changed, collided
        self._policy = LinkStatePolicy(config.pol)
        self._t_recalc, self._t_update, self._t_timeo = map(float, (config.t_recalc, config.t_update, config.t_timeo))
        self._database = Database()
        self._graph = Graph(core.address, self._policy)
        #: As it is known to others: it stays while `moved` puts another in its place.
        self._address = core.address
        self._neighbours: dict[int, Neighbour] = {}
        #: Those that are to be told something.
        self._busy: dict[int, Neighbour] = {}
        #: Neighbours of the prototype, and when they were heard last; and those that have been silent for too long since.
        self._heard: dict[int, float] = {}
        self._silent: dict[int, None] = {}
        self._links: dict[int, _Link] = {}
        #: Links that could be up, but for what there is in `hold`.
        self._held: dict[int, _Link] = {}
        self._claims: dict[Pair, _Claim] = {}
        self._last_id = core.host.random.getrandbits(32)
        self._mixed = False
        #: Since when there is something of the prototype in the database, and when there was last.
        self._foreign_since: float | None = None
        self._foreign_at = float("-inf")
        self._sweep_at: float | None = None
        self._refresh_at: float | None = None
        self._nudges = Agenda()
        self._nudged = float("-inf")
        self._urgent = False
        self._computed = float("-inf")
        self._pause = FIRST_PAUSE
        self._room_made = float("-inf")

    # --- what data transfer says

    def adjacency_up(self, address: int, now: float) -> None:
        """Packets can go to that neighbour. No error when they could before."""
        self._links.setdefault(address, _Link()).wanted = True
        self._nudges.set(_NEW_FLOW, max(now + NUDGE_PAUSE, self._nudged + self._t_update))
        self._settle_link(address, now)
        self._settle(now)

    def adjacency_down(self, address: int, now: float) -> None:
        """They cannot any more, by any flow. No error when they could not before."""
        if link := self._links.get(address):
            link.wanted = False
            self._settle_link(address, now)
            self._settle(now)

    # --- the component: management flows

    def connected(self, connection: Flow, now: float) -> None:
        """There is a management flow to a neighbour."""
        address = connection.address
        neighbour = self._neighbours.get(address)
        if neighbour is None:
            neighbour = Neighbour(self._core, address, self._database, self._draw_id, self._exists)
            self._neighbours[address] = neighbour
        neighbour.add(connection, now)
        self._busy[address] = neighbour
        self._hear(address, now)
        self._settle(now)

    def disconnected(self, connection: Flow, now: float) -> None:
        """It ended."""
        neighbour = self._neighbours.get(connection.address)
        if neighbour is not None and neighbour.remove(connection, now):
            del self._neighbours[connection.address]
            self._busy.pop(connection.address, None)
            # Only data transfer can tell now whether it is there.
            self._heard.pop(connection.address, None)
            self._speak(connection.address, now)
        self._settle(now)

    def state(self, connection: Flow, up: bool, now: float) -> None:
        """Its other end has been silent for too long, or is back."""
        if neighbour := self._neighbours.get(connection.address):
            neighbour.state(connection, up, now)
            self._busy[connection.address] = neighbour
            self._settle(now)

    def heard(self, connection: Flow, data: bytes, now: float) -> None:
        """A packet came. It is hostile, as all are."""
        neighbour = self._neighbours.get(connection.address)
        if neighbour is None:
            return
        if not neighbour.takes(single=len(data) == lsu.LENGTH, now=now):
            self._core.counters["lsus_dropped"] += 1
            return
        try:
            message = lsu.decode(data, ours=connection.ours)
        except ProtocolError:
            self._core.counters["lsus_malformed"] += 1
            return
        self._core.counters["lsus_received"] += 1
        self._hear(connection.address, now)
        match message:
            case LinkStateUpdate():
                self._take(message, neighbour, now)
            case Updates(id, updates):
                neighbour.arrived(connection, id)
                self._busy[connection.address] = neighbour
                for update in updates:
                    self._take(update, neighbour, now)
            case Acknowledgement(ids):
                neighbour.acknowledged(ids, now)
        self._settle(now)

    # --- what is known

    def distance(self, address: int) -> int | None:
        """Hops to that member, 0 for ourselves; None: no path leads there."""
        return self._graph.distance(address)

    def ours(self, address: int) -> bool:
        """Whether that member is one of ours, as far as is known."""
        if address == self._address:
            return True
        neighbour = self._neighbours.get(address)
        return self._database.ours(address) if neighbour is None else neighbour.ours

    def members(self) -> dict[int, bool]:
        """Those to which a path leads, without ourselves; and which of them are ours."""
        return {each: self.ours(each) for each in self._graph.reachable() if each != self._address}

    def addresses(self, now: float) -> dict[int, float]:
        """Members that announce something, and seconds since they did."""
        ages: dict[int, float] = {}
        for (source, _), entry in self._database:
            if entry.life is Life.LIVE:
                ages[source] = min(now - entry.stamp, ages.get(source, float("inf")))
        return ages

    @property
    def mixed(self) -> bool:
        """A member of the prototype is in the layer."""
        return self._mixed

    def table(self) -> Table:
        """The next hops by destination, as of the last computation."""
        return self._graph.table()

    def rows(self, now: float) -> list[Row]:
        """The database, by source and destination."""
        return [
            Row(source, destination, entry.number, now - entry.stamp, entry.life, self._exists((source, destination)))
            for (source, destination), entry in sorted(self._database, key=lambda item: item[0])
        ]

    # --- time

    def deadline(self) -> float | None:
        """When `timeout` wants to be called next."""
        return earliest(
            self._sweep_at,
            self._refresh_at,
            self._nudges.next(),
            self._claims_at(),
            self._compute_at(),
            *[neighbour.deadline() for neighbour in self._busy.values()],
            *[link.hold for link in self._held.values()],
            *[self._silence_of(address) for address in self._heard],
        )

    def timeout(self, now: float) -> None:
        """Do what is due."""
        for address in list(self._heard):
            self._judge(address, now)
        for address in list(self._held):
            self._settle_link(address, now)
        if (claims_at := self._claims_at()) is not None and claims_at <= now:
            self._answer_claims(now)
        if self._refresh_at is not None and self._refresh_at <= now:
            self._refresh(now)
        if self._sweep_at is not None and self._sweep_at <= now:
            self._sweep(now)
        if list(self._nudges.due(now)):
            self._announce_nothing(now)
        self._settle(now)

    def close(self, now: float) -> None:
        """This member leaves: tell the neighbours, as far as they can be told. Call nothing any more."""
        for address, link in self._links.items():
            if link.up:
                self._write(address, now, withdrawn=True)
        for neighbour in self._busy.values():
            neighbour.send(now, at_once=True)

    def moved(self, now: float) -> None:
        """This member has another address now: nothing that has the old one is ours any more."""
        for address, link in self._links.items():
            if link.up:
                link.up = False
                self._write(address, now, withdrawn=True)
        self._address = self._core.address
        self._claims.clear()
        self._graph = Graph(self._address, self._policy)
        for pair, entry in self._database:
            if entry.life is Life.LIVE:
                self._graph.announce(*pair)
        for address, link in self._links.items():
            link.hold = now
            self._settle_link(address, now)
        self._route(now, always=True)
        self._settle(now)

    # --- own links

    def _settle_link(self, address: int, now: float) -> None:
        """Announce a link if it is to be announced, or withdraw it."""
        link = self._links.get(address)
        if link is None:
            return
        wanted = link.wanted and address not in self._silent
        if link.up and not wanted:
            self._lose(address, link, now)
        elif wanted and not link.up and link.hold <= now:
            link.up, link.hold = True, now + UP_PAUSE
            self._write(address, now)
        if wanted and not link.up:
            self._held[address] = link
        else:
            self._held.pop(address, None)

    def _lose(self, address: int, link: _Link, now: float) -> None:
        link.up = False
        link.downs = [each for each in link.downs if now - each < FLAP_TIME] + [now]
        if len(link.downs) >= FLAPS:
            link.hold = now + self._t_timeo
            self._core.counters["links_held_down"] += 1
        self._write(address, now, withdrawn=True)
        self._urgent = True
        # Members of the prototype have forgotten the link by then, and go on using it: `unicast-control.md` N17.
        self._nudges.set(_LOST_LINK, now + self._t_timeo + 2 * self._t_update)

    def _write(self, destination: int, now: float, *, withdrawn: bool = False) -> None:
        """Announce one of our own pairs, with a number that beats all that were heard of it."""
        pair = self._address, destination
        claim = self._claims.get(pair)
        known = max(self._database.number(pair), -1 if claim is None else claim.number)
        clock = (self._core.host.wall() << 16) // 10**9
        number = min(max(OURS, clock, known + 1), MOST_NUMBER)
        self._store(LinkStateUpdate(destination, self._address, number, withdrawn), now)
        if self._refresh_at is None:
            self._refresh_at = now + self._interval()

    def _refresh(self, now: float) -> None:
        for address, link in self._links.items():
            if link.up:
                self._write(address, now)
        self._refresh_at = now + self._interval()

    def _interval(self) -> float:
        """Until own links are refreshed next. Members that began at the same time do not do it at the same time."""
        longest = self._t_update if self._mixed else max(self._t_update, REFRESHMENT)
        return longest * (0.75 + self._core.host.random.getrandbits(16) / (1 << 18))

    def _announce_nothing(self, now: float) -> None:
        """A member of the prototype computes its routes for each pair that is new, and else may go on using a flow or a link
        that is gone: let there be a pair, of which no path is made (`unicast-data.md` 8.3)."""
        if not self._mixed or not any(link.up for link in self._links.values()):
            return
        self._nudged = now
        address = self._core.host.random.getrandbits(32)
        if address >= LEAST_ADDRESS and address != self._address and address not in self._links:
            self._write(address, now)

    # --- neighbours of the prototype, which say something every t_update

    def _hear(self, address: int, now: float) -> None:
        if self._neighbours[address].ours:
            self._heard.pop(address, None)
        else:
            self._heard[address] = now
        self._speak(address, now)

    def _speak(self, address: int, now: float) -> None:
        """Nothing is held against that neighbour any more."""
        if address in self._silent:
            del self._silent[address]
            self._settle_link(address, now)

    def _silence_of(self, address: int) -> float:
        return self._heard[address] + SILENCE * self._t_update

    def _judge(self, address: int, now: float) -> None:
        late = now - self._silence_of(address)
        if late < 0:
            return
        if late > STALL:
            self._heard[address] += late + self._t_update
            return
        del self._heard[address]
        self._silent[address] = None
        self._core.counters["neighbours_silent"] += 1
        self._settle_link(address, now)

    # --- what others say

    def _take(self, update: LinkStateUpdate, neighbour: Neighbour, now: float) -> None:
        if update.source == self._address:
            self._claimed(update, now)
            return
        pair = update.source, update.destination
        known = self._database.get(pair)
        if known is not None and update.number <= known.number:
            if update.number == known.number and update.withdrawn == (known.life is Life.WITHDRAWN):
                neighbour.knows(pair)
            elif neighbour.ours:
                # It is behind, or its source said two things with one number, which it can only correct when it hears of it.
                neighbour.tell(pair)
                self._busy[neighbour.address] = neighbour
            return
        if known is None and not self._has_room(pair, now):
            self._core.counters["lsus_refused"] += 1
            return
        self._store(update, now, neighbour)

    def _store(self, update: LinkStateUpdate, now: float, via: Neighbour | None = None) -> None:
        """That counts from now on: in the database, in the graph, and for the neighbours."""
        pair = update.source, update.destination
        self._database.put(update, now)
        if update.withdrawn:
            self._graph.retract(*pair)
        else:
            self._graph.announce(*pair)
        for address, neighbour in self._neighbours.items():
            if neighbour is via:
                neighbour.knows(pair)
            else:
                neighbour.tell(pair)
                self._busy[address] = neighbour
        if self._sweep_at is None:
            self._sweep_at = now + self._sweep_interval()

    def _has_room(self, pair: Pair, now: float) -> bool:
        if self._database.fits(pair):
            return True
        if now - self._room_made < UP_PAUSE:
            return False
        self._room_made = now
        for each in self._database.make_room(pair[0], lambda source: self._graph.distance(source) is not None):
            self._graph.retract(*each)
        return self._database.fits(pair)

    def _exists(self, pair: Pair) -> bool:
        return self._graph.linked(*pair)

    # --- what others say of our links

    def _claimed(self, update: LinkStateUpdate, now: float) -> None:
        """Our own updates come back, also from an earlier life. What is above them, or numbered by the prototype, is said by
        somebody else, or was in a life in which the clock was ahead."""
        pair = update.source, update.destination
        entry = self._database.get(pair)
        known = -1 if entry is None else entry.number
        # With the same number in an earlier life, it may have been the opposite.
        same = entry is not None and update.withdrawn == (entry.life is Life.WITHDRAWN)
        if OURS <= update.number < known or (OURS <= update.number == known and same):
            return
        claim = self._claims.get(pair)
        if claim is None:
            if len(self._claims) >= MOST_CLAIMS:
                self._core.counters["lsus_refused"] += 1
                return
            self._claims[pair] = _Claim(update.number, now)
        elif update.number <= claim.number:
            return
        else:
            claim.number, claim.answered, claim.count = update.number, False, claim.count + 1
        self._core.counters["lsus_of_own_address"] += 1
        if self._claims[pair].count == CLAIMS_OF_ANOTHER:
            self._collided(now)

    def _claims_at(self) -> float | None:
        """When claims are answered: not at once, as we may be about to have the link, and another may answer as well."""
        return min(
            (each.since + CLAIM_PAUSE * each.count for each in self._claims.values() if not each.answered), default=None
        )

    def _answer_claims(self, now: float) -> None:
        for pair, claim in list(self._claims.items()):
            if claim.answered or claim.since + CLAIM_PAUSE * claim.count > now:
                continue
            claim.answered = True
            if claim.number >= self._database.number(pair):
                link = self._links.get(pair[1])
                self._write(pair[1], now, withdrawn=link is None or not link.up)

    # --- what is old

    def _sweep_interval(self) -> float:
        return self._t_update if self._mixed else max(self._t_update, REFRESHMENT)

    def _sweep(self, now: float) -> None:
        stalled = self._sweep_at is not None and now - self._sweep_at > STALL
        self._sweep_at = now + self._sweep_interval()
        if stalled:
            return
        soon, late = max(self._t_timeo, 2 * self._t_update), max(self._t_timeo, (MISSED + 0.5) * REFRESHMENT)
        since = self._foreign_since
        for pair in self._database.age(soon, late if since is None else soon, since or 0.0, now):
            self._graph.retract(*pair)
        for pair, claim in list(self._claims.items()):
            if now - claim.since > 4 * self._t_update:
                del self._claims[pair]
        if not len(self._database):
            self._sweep_at = None

    # --- after anything

    def _settle(self, now: float) -> None:
        # By what all hear of, as who refreshes and who forgets must agree. They do not hear it at the same moment: so links
        # are refreshed often for a while longer than others are forgotten soon.
        if self._database.foreign:
            self._foreign_at = now
            self._foreign_since = now if self._foreign_since is None else self._foreign_since
        else:
            self._foreign_since = None
        mixed = now - self._foreign_at < 2 * self._t_timeo
        if mixed != self._mixed:
            self._mixed = mixed
            if self._refresh_at is not None:
                self._refresh_at = min(self._refresh_at, now + self._interval())
            if self._sweep_at is not None:
                self._sweep_at = now + self._sweep_interval()
        compute_at = self._compute_at()
        if compute_at is not None and (self._urgent or compute_at <= now):
            self._route(now)
        self._urgent = False
        for address, neighbour in list(self._busy.items()):
            neighbour.send(now)
            if neighbour.deadline() is None:
                del self._busy[address]

    def _compute_at(self) -> float | None:
        return self._computed + self._pause if self._graph.changed else None

    def _route(self, now: float, *, always: bool = False) -> None:
        quiet = now - self._computed > max(LAST_PAUSE, 2 * self._pause)
        longest = min(self._t_recalc, LAST_PAUSE)
        self._pause = FIRST_PAUSE if quiet else min(2 * self._pause, longest)
        self._computed = now
        self._core.counters["routes_computed"] += 1
        if self._graph.compute() or always:
            self._changed(self._graph.table(), self._policy is LinkStatePolicy.ECMP, now)

    def _draw_id(self) -> int:
        self._last_id = (self._last_id + 1) & 0xFFFFFFFF
        return self._last_id
