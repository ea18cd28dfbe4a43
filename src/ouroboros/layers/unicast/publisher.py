"""Own names, told to those that keep them: at once, again until those of ours have acknowledged, and now and then anew.

Members of the prototype are told times of a few minutes: they forget a member that died or took a name back no sooner
(`unicast-control.md` N31). Those of ours are told when a name is taken back, and know from routing who is dead. So they get
the longest time that there is, and clocks that differ by hours do no harm between them. A member that comes back, perhaps to
another life, is asked whether it still has the names that are kept of it. One that was started anew says so itself, by the
question with which members of the prototype join: it may have been so quick that nobody noticed, and has lost all it kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import chain, islice
from typing import Protocol

from ouroboros.layers.agenda import Agenda, earliest
from ouroboros.layers.bucket import Bucket
from ouroboros.settings import DhtConfig
from ouroboros.wire.unicast.dht import Contact

#: Where the prototype is, a name is told at least every so many seconds, and forgotten after so many times that.
PERIOD = 120.0
TIMES = 3
#: Names, and messages, at once, and the pause after them, seconds.
BURST = 32
PAUSE = 0.02
#: When others can be reached than before, more may change: so many seconds later all are told.
LATER = 0.1
#: A message that is not acknowledged is sent again after these pauses, seconds.
REPETITIONS = (0.5, 1.0, 2.0, 4.0, 8.0)
#: Messages that are sent at the end; and names that are taken back as soon as the member that keeps them can be reached.
LAST_WORDS = 1024
MOST_OWED = 4096
#: Members a second that begin anew and are told our names for that, and at once.
RETURNS = (1.0, 16.0)

_NO_NAME = b""

#: A name, a member, and whether it is the one that is asked.
_Place = tuple[bytes, int, bool]


class Kind(Enum):
    """The kind of message about a name."""

    #: We have it. It is acknowledged by the same message.
    HAVE = auto()
    #: We have it no longer.
    BACK = auto()
    #: It has it, as we keep. It says whether that is so.
    CHECK = auto()
    #: Of no name: we begin anew, and keep none.
    JOIN = auto()


class Keepers(Protocol):
    """The part of the directory that is needed."""

    @property
    def mixed(self) -> bool: ...
    def wall(self) -> float: ...
    def chance(self) -> float: ...
    def alive(self, address: int) -> bool: ...
    def ours(self, address: int) -> bool: ...
    def keepers(self, key: bytes) -> dict[int, None]: ...
    def store(self, receiver: int, key: bytes, expiry: int, source: Contact | None = None) -> None: ...
    def check(self, receiver: int, key: bytes) -> None: ...
    def join(self, receiver: int) -> None: ...


@dataclass(slots=True, eq=False)
class _Name:
    """`told`: members that may keep it, also when they cannot be reached. `current`: those that were told since it was told
    anew last."""

    told: dict[int, None] = field(default_factory=dict)
    current: dict[int, None] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Notice:
    """A message to one member about one name, until it answers."""

    number: int
    key: bytes
    receiver: int
    kind: Kind
    sent: int = 0

    @property
    def place(self) -> _Place:
        """The message whose place it takes."""
        return self.key, self.receiver, self.kind is Kind.CHECK


class Publisher:
    """The names of one member."""

    def __init__(self, keepers: Keepers, config: DhtConfig) -> None:
        self._keepers = keepers
        self._t_expire, self._t_replicate = float(config.t_expire), float(config.t_replicate)
        self._names: dict[bytes, _Name] = {}
        #: Names whose keepers may be others, and when they are looked for.
        self._stale: dict[bytes, None] = {}
        self._stale_at = 0.0
        self._notices: dict[_Place, _Notice] = {}
        #: To be sent: names of ours, and after them what others made us say.
        self._queue: dict[_Place, None] = {}
        self._answers: dict[_Place, None] = {}
        self._next = 0.0
        #: By number of the notice.
        self._repetitions = Agenda()
        self._numbers: dict[int, _Notice] = {}
        self._last = 0
        self._renew_at: float | None = None
        #: Names to be taken back, and the members that keep them.
        self._owed: dict[tuple[bytes, int], None] = {}
        self._returns = Bucket(*RETURNS)

    def __contains__(self, key: bytes) -> bool:
        return key in self._names

    def names(self) -> Iterable[bytes]:
        return self._names

    def register(self, key: bytes, now: float) -> None:
        if key in self._names:
            return
        self._names[key] = _Name()
        if self._renew_at is None:
            self._renew_at = now + self._period()
        self._tell(key)
        self._send(now)

    def unregister(self, key: bytes, now: float) -> None:
        name = self._names.pop(key, None)
        if name is None:
            return
        self._stale.pop(key, None)
        for receiver in name.told:
            self._take_back(key, receiver)
        if not self._names:
            self._renew_at = None
        self._send(now)

    def disown(self, key: bytes, receivers: Iterable[int], now: float) -> None:
        """These members keep a name as ours that is not: it was in an earlier life."""
        if key not in self._names and len(self._notices) < MOST_OWED:
            for receiver in receivers:
                self._take_back(key, receiver)
            self._send(now)

    def _take_back(self, key: bytes, receiver: int) -> None:
        if self._keepers.ours(receiver):
            self._notify(key, receiver, Kind.BACK)
            return
        # One of the prototype forgets it by itself.
        self._drop((key, receiver, False))
        if not self._keepers.alive(receiver):
            self._owed[key, receiver] = None
            if len(self._owed) > MOST_OWED:
                del self._owed[next(iter(self._owed))]

    def confirmed(self, key: bytes, receiver: int, *, back: bool, now: float) -> None:
        """A member says what it keeps of us: that we have a name, or (`back`) that we have it no longer."""
        notice = self._notices.get((key, receiver, False))
        if notice is not None:
            if notice.sent and (notice.kind is Kind.BACK) is back:
                self._drop(notice.place)
        elif (key in self._names) is back and len(self._notices) < MOST_OWED:
            self._notify(key, receiver, Kind.HAVE if back else Kind.BACK)
            self._send(now)
        elif not back and len(self._notices) < MOST_OWED:
            # It asks.
            self._notify(key, receiver, Kind.HAVE)
            self._send(now)

    def check(self, keys: Iterable[bytes], receiver: int, now: float) -> None:
        """Ask a member whether it has these names, as is kept of it: it came back, or another one said so."""
        for key in keys:
            if len(self._notices) < MOST_OWED:
                self._notify(key, receiver, Kind.CHECK)
        self._next = max(self._next, now + LATER)

    def checked(self, key: bytes, receiver: int) -> None:
        """It said so."""
        self._drop((key, receiver, True))

    def join(self, receivers: Iterable[int], now: float) -> None:
        """Tell these members that we were in an earlier life what they may take us for: we keep nothing any more."""
        for receiver in receivers:
            if len(self._notices) < MOST_OWED:
                self._notify(_NO_NAME, receiver, Kind.JOIN)
        self._next = max(self._next, now + LATER)

    def joined(self, receiver: int) -> None:
        """It has heard of that."""
        self._drop((_NO_NAME, receiver, False))

    def returned(self, address: int, now: float) -> None:
        """That member keeps nothing any more, without having been away for as long as it takes to notice."""
        if any(address in name.current for name in self._names.values()) and self._returns.take(now):
            self.members_changed([address], now)

    def members_changed(self, removed: Iterable[int], now: float) -> None:
        """Others can be reached than before. Those that were `removed` are told anew when they are there again."""
        gone = dict.fromkeys(removed)
        for name in self._names.values():
            for address in [each for each in name.current if each in gone]:
                del name.current[address]
        for key, receiver in [pair for pair in self._owed if self._keepers.alive(pair[1])]:
            del self._owed[key, receiver]
            self.disown(key, [receiver], now)
        if not self._stale:
            self._stale_at = now + LATER
        self._stale.update(dict.fromkeys(self._names))
        if self._renew_at is not None and self._keepers.mixed:
            self._renew_at = min(self._renew_at, now + self._period())

    def moved(self, before: Contact, now: float) -> None:
        """We have another address than `before`."""
        for key, name in self._names.items():
            for receiver in name.told:
                if self._keepers.ours(receiver):
                    self._keepers.store(receiver, key, 0, before)
            name.told, name.current = {}, {}
        self._stale.update(dict.fromkeys(self._names))
        self._stale_at = now

    def close(self, now: float) -> None:
        """Take all names back, as far as can be told in one go."""
        left = LAST_WORDS
        for key, name in self._names.items():
            for receiver in name.told:
                if self._keepers.ours(receiver) and left:
                    self._keepers.store(receiver, key, 0)
                    left -= 1
        self._names.clear()

    # --- time

    def deadline(self) -> float | None:
        return earliest(
            self._repetitions.next(),
            self._renew_at,
            self._next if self._queue or self._answers else None,
            max(self._stale_at, self._next) if self._stale else None,
        )

    def timeout(self, now: float) -> None:
        for number in list(self._repetitions.due(now)):
            self._enqueue(self._numbers[number])
        if self._renew_at is not None and self._renew_at <= now:
            self._renew_at = now + self._period()
            for key, name in self._names.items():
                name.current = {}
                self._stale[key] = None
        self._send(now)

    # --- telling

    def _period(self) -> float:
        """Until names are told anew: those of members that began at the same time not all at once."""
        longest = self._longest()
        return longest * (0.5 + self._keepers.chance() / 2)

    def _longest(self) -> float:
        return min(PERIOD if self._keepers.mixed else self._t_replicate, self._t_expire / TIMES)

    def _expiry(self, receiver: int) -> int:
        short = min(TIMES * PERIOD, self._t_expire)
        return int(self._keepers.wall() + (self._t_expire if self._keepers.ours(receiver) else short))

    def _tell(self, key: bytes) -> None:
        name = self._names[key]
        for receiver in self._keepers.keepers(key):
            if receiver not in name.current:
                name.told[receiver] = name.current[receiver] = None
                self._notify(key, receiver, Kind.HAVE)

    def _notify(self, key: bytes, receiver: int, kind: Kind) -> None:
        self._last += 1
        notice = _Notice(self._last, key, receiver, kind)
        self._drop(notice.place)
        self._notices[notice.place] = self._numbers[notice.number] = notice
        self._enqueue(notice)

    def _enqueue(self, notice: _Notice) -> None:
        queue = self._queue if notice.key in self._names and notice.kind is Kind.HAVE else self._answers
        queue[notice.place] = None

    def _drop(self, place: _Place) -> None:
        self._queue.pop(place, None)
        self._answers.pop(place, None)
        notice = self._notices.pop(place, None)
        if notice is not None:
            del self._numbers[notice.number]
            self._repetitions.cancel(notice.number)

    def _send(self, now: float) -> None:
        """Send what is due, so much at a time."""
        if self._next > now:
            return
        if self._stale and self._stale_at <= now:
            for key in list(self._stale)[:BURST]:
                del self._stale[key]
                self._tell(key)
            self._next = now + PAUSE
        for place in list(islice(chain(self._queue, self._answers), BURST)):
            self._queue.pop(place, None)
            self._answers.pop(place, None)
            notice = self._notices[place]
            if self._keepers.alive(notice.receiver):
                self._say(notice)
                notice.sent += 1
            if self._keepers.ours(notice.receiver) and notice.sent <= len(REPETITIONS):
                self._repetitions.set(notice.number, now + REPETITIONS[notice.sent - 1])
            else:
                self._drop(place)
            self._next = now + PAUSE

    def _say(self, notice: _Notice) -> None:
        match notice.kind:
            case Kind.HAVE:
                self._keepers.store(notice.receiver, notice.key, self._expiry(notice.receiver))
            case Kind.BACK:
                self._keepers.store(notice.receiver, notice.key, 0)
            case Kind.CHECK:
                self._keepers.check(notice.receiver, notice.key)
            case Kind.JOIN:
                self._keepers.join(notice.receiver)
