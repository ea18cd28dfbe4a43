"""The links of this member: which it announces, when it says so again, and its answers to others that speak for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ouroboros.layers.agenda import Agenda, earliest
from ouroboros.layers.face import NO_SIZE, Size
from ouroboros.layers.members.core import Core
from ouroboros.layers.unicast.claims import Claims
from ouroboros.layers.unicast.database import OURS, Database
from ouroboros.layers.unicast.silence import Silence
from ouroboros.wire.unicast.lsu import LEAST_ADDRESS, MOST_LENGTH, MOST_NUMBER, LinkStateUpdate

#: Between refreshments of own links in a layer of ours, seconds.
REFRESHMENT = 600.0
#: A link comes up once in so many seconds. One that went down so often within so many seconds stays down for `t_timeo`.
UP_PAUSE = 1.0
FLAPS = 3
FLAP_TIME = 60.0
#: So many seconds after a flow to a neighbour of the prototype is there, it is made to compute its routes.
NUDGE_PAUSE = 0.05
#: What that is done for.
_NEW_FLOW, _LOST_LINK = 0, 1


@dataclass(slots=True, eq=False)
class _Link:
    """One of our adjacencies. `wanted`: data can go there. `up`: we announce it. `hold`: it does not come up before.
    `size`: of the packets that go there."""

    wanted: bool = False
    up: bool = False
    hold: float = 0.0
    size: Size = NO_SIZE
    downs: list[float] = field(default_factory=list)


class OwnLinks:
    """Links by the addresses of neighbours. `store`: takes what is announced. `silence`: links with silent neighbours are
    down."""

    def __init__(
        self,
        core: Core,
        database: Database,
        silence: Silence,
        claims: Claims,
        store: Callable[[LinkStateUpdate, float], None],
    ) -> None:
        ls = core.config.dt.routing.ls
        self._core = core
        self._database = database
        self._silence = silence
        self._claims = claims
        self._store = store
        self._t_update, self._t_timeo = float(ls.t_update), float(ls.t_timeo)
        #: As it is known to others: it stays while `moved` puts another in its place.
        self.address = core.address
        self._links: dict[int, _Link] = {}
        #: Links that could be up, but for what there is in `hold`.
        self._held: dict[int, _Link] = {}
        self._mixed = False
        self._lost = False
        self._refresh_at: float | None = None
        self._nudges = Agenda()
        self._nudged = float("-inf")

    def adjacent(self, address: int, now: float) -> None:
        """Packets can go to that neighbour."""
        self._links.setdefault(address, _Link()).wanted = True
        self._nudges.set(_NEW_FLOW, max(now + NUDGE_PAUSE, self._nudged + self._t_update))
        self.settle(address, now)

    def not_adjacent(self, address: int, now: float) -> bool:
        """They cannot any more. False: they never could."""
        link = self._links.get(address)
        if link is not None:
            link.wanted = False
            self.settle(address, now)
        return link is not None

    def resized(self, address: int, size: Size, now: float) -> None:
        """Packets of other lengths can go to that neighbour from now on."""
        link = self._links.setdefault(address, _Link())
        if link.size != size:
            link.size = size
            if link.up:
                self._write(address, now)

    def settle(self, address: int, now: float) -> None:
        """Announce a link if it is to be announced, or withdraw it. No error when there is none."""
        link = self._links.get(address)
        if link is None:
            return
        wanted = link.wanted and address not in self._silence
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
        self._lost = True
        # Members of the prototype have forgotten the link by then, and go on using it: `unicast-control.md` N17.
        self._nudges.set(_LOST_LINK, now + self._t_timeo + 2 * self._t_update)

    def take_lost(self) -> bool:
        """Whether a link was lost since the last call."""
        lost, self._lost = self._lost, False
        return lost

    def withdraw_all(self, now: float) -> None:
        """None is up any more."""
        for address, link in self._links.items():
            if link.up:
                link.up = False
                self._write(address, now, withdrawn=True)

    def moved(self) -> None:
        """From now on, they are announced under the address that the member has now. They are all withdrawn."""
        self.address = self._core.address
        self._claims.clear()

    def announce_again(self, now: float) -> None:
        """All that were withdrawn together."""
        for address, link in self._links.items():
            link.hold = now
            self.settle(address, now)

    def note_mixed(self, mixed: bool, now: float) -> None:
        """There are members of the prototype in the layer now, or none any more."""
        self._mixed = mixed
        if self._refresh_at is not None:
            self._refresh_at = min(self._refresh_at, now + self._interval())

    def _write(self, destination: int, now: float, *, withdrawn: bool = False) -> None:
        """Announce one of our own pairs, with a number that beats all that were heard of it."""
        pair = self.address, destination
        known = max(self._database.number(pair), self._claims.number(pair))
        clock = (self._core.host.wall() << 16) // 10**9
        number = min(max(OURS, clock, known + 1), MOST_NUMBER)
        link = self._links.get(destination)
        size = NO_SIZE if link is None or withdrawn else link.size
        most, whole = min(size.most, MOST_LENGTH), min(size.whole, MOST_LENGTH)
        self._store(LinkStateUpdate(destination, self.address, number, withdrawn, most=most, whole=whole), now)
        if self._refresh_at is None:
            self._refresh_at = now + self._interval()

    def _interval(self) -> float:
        """Until own links are refreshed next. Members that began at the same time do not do it at the same time."""
        longest = self._t_update if self._mixed else max(self._t_update, REFRESHMENT)
        return longest * (0.75 + self._core.host.random.getrandbits(16) / (1 << 18))

    # --- time

    def deadline(self) -> float | None:
        hold = min(link.hold for link in self._held.values()) if self._held else None
        return earliest(self._refresh_at, self._nudges.next(), self._claims.deadline(), hold)

    def timeout(self, now: float) -> None:
        for address in list(self._held):
            self.settle(address, now)
        for address in self._claims.to_answer(now):
            link = self._links.get(address)
            self._write(address, now, withdrawn=link is None or not link.up)
        if self._refresh_at is not None and self._refresh_at <= now:
            for address, link in self._links.items():
                if link.up:
                    self._write(address, now)
            self._refresh_at = now + self._interval()

    def nudge(self, now: float) -> None:
        """If it is due: a member of the prototype computes its routes for each pair that is new, and else may go on using a
        flow or a link that is gone. So let there be a pair, of which no path is made (`unicast-data.md` 8.3)."""
        if not list(self._nudges.due(now)) or not self._mixed or not any(link.up for link in self._links.values()):
            return
        self._nudged = now
        address = self._core.host.random.getrandbits(32)
        if address >= LEAST_ADDRESS and address != self.address and address not in self._links:
            self._write(address, now)
