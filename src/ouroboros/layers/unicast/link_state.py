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

import functools
from collections.abc import Callable

import msgspec

from ouroboros.errors import ProtocolError
from ouroboros.layers.agenda import earliest, soonest
from ouroboros.layers.face import Size
from ouroboros.layers.members.core import Core
from ouroboros.layers.unicast.claims import Claims
from ouroboros.layers.unicast.database import Database, Life, Pair
from ouroboros.layers.unicast.flooding import Flow, Neighbour
from ouroboros.layers.unicast.graph import Graph, Table
from ouroboros.layers.unicast.own_links import REFRESHMENT, OwnLinks
from ouroboros.layers.unicast.silence import STALL, Silence
from ouroboros.settings import LinkStatePolicy
from ouroboros.wire.unicast import lsu
from ouroboros.wire.unicast.lsu import MOST_LENGTH, Acknowledgement, LinkStateUpdate, Updates

#: So many refreshments of a link may be missed.
MISSED = 3
#: Routes are computed at once, then with pauses that double as long as changes go on, seconds.
FIRST_PAUSE = 0.01
LAST_PAUSE = 1.0
#: Numbers of members of ours are from their clocks: the time in seconds, times 2^16, or what was heard of them and one more.
#: They may be ahead of ours by a bit more than a year; when ours is before that time, it is not set.
MOST_AHEAD = 1 << 25
CLOCK_IS_SET = 1_577_836_800
#: So often room is made in the database, by dropping what is worth less.
ROOM_PAUSE = 1.0


class Row(msgspec.Struct, frozen=True):
    """An entry of the database, for listings. `age`: seconds since it was refreshed. `used`: both ends announce the link."""

    source: int
    destination: int
    number: int
    age: float
    life: Life
    used: bool


class LinkState:
    """The component "Management" of a member. Its address is there."""

    def __init__(
        self,
        core: Core,
        changed: Callable[[Table, bool, float], None],
        collided: Callable[[float], None] = lambda now: None,
        resized: Callable[[float], None] = lambda now: None,
    ) -> None:
        """`changed`: gets the whole table of next hops, whether they are equal to each other, and the time, whenever it is
        another one. `collided`: another member has our address, or has spoken for it with a number that cannot be beaten.
        `resized`: what `least` answers may be something else now."""
        config = core.config.dt.routing.ls
        self._core = core
        self._changed = changed
        self._resized = resized
        self._policy = LinkStatePolicy(config.pol)
        self._t_recalc, self._t_update, self._t_timeo = map(float, (config.t_recalc, config.t_update, config.t_timeo))
        self._database = Database()
        self._graph = Graph(core.address, self._policy)
        #: What `least` has found out, and whether that is still so.
        self._least: dict[int, Size | None] = {}
        self._mtu = Size(MOST_LENGTH, core.config.dt.mtu)
        self._is_resized = False
        self._silence = Silence(self._t_update)
        self._claims = Claims(core, self._database, collided)
        self._own = OwnLinks(core, self._database, self._silence, self._claims, self._store)
        self._neighbours: dict[int, Neighbour] = {}
        #: Those that are to be told something.
        self._busy: dict[int, Neighbour] = {}
        self._last_id = core.host.random.getrandbits(32)
        self._mixed = False
        #: Since when there is something of the prototype in the database, and when there was last.
        self._foreign_since: float | None = None
        self._foreign_at = float("-inf")
        self._sweep_at: float | None = None
        self._computed = float("-inf")
        self._pause = FIRST_PAUSE
        self._room_made = float("-inf")

    # --- what data transfer says

    def adjacency_up(self, address: int, now: float) -> None:
        """Packets can go to that neighbour. No error when they could before."""
        self._own.adjacent(address, now)
        self._settle(now)

    def adjacency_down(self, address: int, now: float) -> None:
        """They cannot any more, by any flow. No error when they could not before."""
        if self._own.not_adjacent(address, now):
            self._settle(now)

    def adjacency_resized(self, address: int, size: Size, now: float) -> None:
        """Packets to that neighbour have other lengths from now on."""
        self._own.resized(address, size, now)
        self._settle(now)

    # --- the component: management flows

    def connected(self, connection: Flow, now: float) -> None:
        """There is a management flow to a neighbour."""
        address = connection.address
        neighbour = self._neighbours.get(address)
        if neighbour is None:
            neighbour = Neighbour(self._core, address, self._database, self._draw_id, self._exists, self._unanswered)
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
            if self._silence.ignore(connection.address):
                self._own.settle(connection.address, now)
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

    def least(self, address: int) -> Size | None:
        """Of packets that cross all links of the shortest paths to that member, both ways; None: nobody has said it.

        What nobody has said of a link is the MTU of the layer. Of their own links both ends of a flow tell each other
        (`Extension.whole`): those count only where they are announced."""
        if address not in self._least:
            ends = {address, self._own.address}
            sizes = [
                self._mtu if said is None else said
                for edge in self._graph.paths(address)
                if (said := self._said(edge)) is not None or ends.isdisjoint(edge)
            ]
            self._least[address] = functools.reduce(Size.less, sizes) if sizes else None
        return self._least[address]

    def _said(self, edge: tuple[int, int]) -> Size | None:
        """Of packets that cross a link, as its ends announce it."""
        entries = (self._database.get(pair) for pair in (edge, edge[::-1]))
        sizes = [Size(each.most, each.whole) for each in entries if each is not None and each.has_size]
        return functools.reduce(Size.less, sizes) if sizes else None

    def ours(self, address: int) -> bool:
        """Whether that member is one of ours, as far as is known."""
        if address == self._own.address:
            return True
        neighbour = self._neighbours.get(address)
        return self._database.ours(address) if neighbour is None else neighbour.ours

    def members(self) -> dict[int, bool]:
        """Those to which a path leads, without ourselves; and which of them are ours."""
        return {each: self.ours(each) for each in self._graph.reachable() if each != self._own.address}

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

    @property
    def routes(self) -> int:
        """How many destinations are in it, without a copy."""
        return self._graph.routes

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
            self._silence.deadline(),
            self._own.deadline(),
            self._compute_at(),
            soonest(self._busy.values()),
        )

    def timeout(self, now: float) -> None:
        """Do what is due."""
        for address in self._silence.judge(now):
            self._core.counters["neighbours_silent"] += 1
            self._neighbours[address].is_silent(now)
            self._own.settle(address, now)
        self._own.timeout(now)
        if self._sweep_at is not None and self._sweep_at <= now:
            self._sweep(now)
        self._own.nudge(now)
        self._settle(now)

    def close(self, now: float) -> None:
        """This member leaves: tell the neighbours, as far as they can be told. Call nothing any more."""
        self._own.withdraw_all(now)
        for neighbour in self._busy.values():
            neighbour.send(now, at_once=True)

    def moved(self, now: float) -> None:
        """This member has another address now: nothing that has the old one is ours any more."""
        self._own.withdraw_all(now)
        self._own.moved()
        self._graph = Graph(self._own.address, self._policy)
        for pair, entry in self._database:
            if entry.life is Life.LIVE:
                self._graph.announce(*pair)
        self._own.announce_again(now)
        self._route(now, always=True)
        self._settle(now)

    def _hear(self, address: int, now: float) -> None:
        """A neighbour said something. Those of the prototype have to, every `t_update`."""
        silence = self._silence
        was_silent = silence.ignore(address) if self._neighbours[address].ours else silence.heard(address, now)
        if was_silent:
            self._own.settle(address, now)

    # --- what others say

    def _take(self, update: LinkStateUpdate, neighbour: Neighbour, now: float) -> None:
        if self._is_ahead(update):
            self._core.counters["lsus_refused"] += 1
            return
        if update.source == self._own.address:
            self._claims.heard(update, now)
            return
        pair = update.source, update.destination
        known = self._database.get(pair)
        if known is not None and not known.yields_to(update):
            same = update.number == known.number and update.withdrawn == (known.life is Life.WITHDRAWN)
            if same and (update.most or not known.most):
                neighbour.knows(pair)
            elif neighbour.ours:
                # It is behind, or its source said two things with one number, which it can only correct when it hears of it.
                neighbour.tell(pair)
                self._busy[neighbour.address] = neighbour
            return
        speaker = self._neighbours.get(update.source)
        if speaker is not None and speaker is not neighbour and self._speaks(speaker):
            # It says that itself, if it is true.
            self._core.counters["lsus_of_neighbours"] += 1
            speaker.ask(update, now)
            self._busy[speaker.address] = speaker
            return
        self._believe(update, neighbour, now)

    def _believe(self, update: LinkStateUpdate, via: Neighbour | None, now: float) -> None:
        """As far as there is room."""
        pair = update.source, update.destination
        known = self._database.get(pair)
        if known is not None and not known.yields_to(update):
            return
        if known is None and not self._has_room(pair, now):
            self._core.counters["lsus_refused"] += 1
            return
        self._store(update, now, via)

    def _is_ahead(self, update: LinkStateUpdate) -> bool:
        """Whether no member of ours can have drawn that number. Its source could hardly say anything greater."""
        clock = self._core.host.wall() // 10**9
        return clock >= CLOCK_IS_SET and update.number >> 16 > clock + MOST_AHEAD

    def _speaks(self, neighbour: Neighbour) -> bool:
        """Whether a neighbour tells us its links itself."""
        return neighbour.is_reached and (neighbour.ours or self._silence.awaits(neighbour.address))

    def _store(self, update: LinkStateUpdate, now: float, via: Neighbour | None = None) -> None:
        """That counts from now on: in the database, in the graph, and for the neighbours."""
        pair = update.source, update.destination
        known = self._database.get(pair)
        if known is None or (known.most, known.whole) != (update.most, update.whole):
            self._is_resized = True
        self._database.put(update, now)
        if update.withdrawn:
            self._graph.retract(*pair)
        else:
            self._graph.announce(*pair)
        for address, neighbour in self._neighbours.items():
            if neighbour is via:
                neighbour.knows(pair)
            else:
                neighbour.tell_soon(pair)
                self._busy[address] = neighbour
        if self._sweep_at is None:
            self._sweep_at = now + self._sweep_interval()

    def _unanswered(self, update: LinkStateUpdate, now: float) -> None:
        """A neighbour does not say whether it said that: it may be gone. So it is believed as of any other member."""
        self._believe(update, None, now)

    def _has_room(self, pair: Pair, now: float) -> bool:
        if self._database.fits(pair):
            return True
        if now - self._room_made < ROOM_PAUSE:
            return False
        self._room_made = now
        for each in self._database.make_room(pair[0], lambda source: self._graph.distance(source) is not None):
            self._graph.retract(*each)
        return self._database.fits(pair)

    def _exists(self, pair: Pair) -> bool:
        return self._graph.linked(*pair)

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
        self._claims.forget(now - 4 * self._t_update)
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
            self._own.note_mixed(mixed, now)
            if self._sweep_at is not None:
                self._sweep_at = now + self._sweep_interval()
        compute_at = self._compute_at()
        lost = self._own.take_lost()
        if compute_at is not None and (lost or compute_at <= now):
            self._route(now)
        if self._is_resized:
            self._is_resized = False
            self._least.clear()
            self._resized(now)
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
        self._is_resized = True
        if self._graph.compute() or always:
            self._changed(self._graph.table(), self._policy is LinkStatePolicy.ECMP, now)

    def _draw_id(self) -> int:
        self._last_id = (self._last_id + 1) & 0xFFFFFFFF
        return self._last_id
