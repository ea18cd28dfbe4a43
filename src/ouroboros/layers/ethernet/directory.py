"""Where names are on an Ethernet segment: all stations are asked, and those with the name answer. Source: `shims.md` 4.3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ouroboros.layers.agenda import Agenda, Alarm
from ouroboros.layers.effects import Address, RemoteEnd, Where
from ouroboros.layers.face import UNICAST_MPL

#: All stations.
EVERYBODY = "ff:ff:ff:ff:ff:ff"
#: Seconds until a query is repeated; then the pauses double. After so many, nobody has the name.
FIRST_PAUSE = 0.1
QUERIES = 5
#: How long an answer is good, seconds, and how many are kept.
CACHE_TIME = 60.0
CACHE_SIZE = 1024


class EthEnd(RemoteEnd, frozen=True, kw_only=True):
    """Our end of a flow with another station."""

    address: Address

    mpl = UNICAST_MPL

    def peer(self) -> tuple[str, str]:
        return self.address[0], "prototype" if self.extension is None else "node"


class LlcEnd(EthEnd, frozen=True, kw_only=True):
    """One in a layer with LLC, whose frames have the SAPs of both ends."""

    @property
    def place(self) -> tuple[Address, int]:
        return (self.address[0], self.peer_eid), self.eid << 8 | self.peer_eid


@dataclass(slots=True)
class _Query:
    """`tokens`: wait for the name."""

    name: str
    digest: bytes
    sent: int = 1
    tokens: dict[int, None] = field(default_factory=dict)


class Directory:
    """Names and the stations that have them."""

    guesses = False

    def __init__(
        self, end: type[EthEnd], digest: Callable[[str], bytes], ask: Callable[[bytes], None], alarm: Alarm
    ) -> None:
        """`ask`: asks all stations where the name with that digest is."""
        self._end = end
        self._digest = digest
        self._ask = ask
        #: Bytes of the longest packet that a frame carries; 0 as long as there is no device.
        self.most = 0
        #: Why the device carries nothing, and nobody is asked; "": it does.
        self.trouble = ""
        self._known: dict[str, tuple[float, tuple[Address, ...]]] = {}
        #: By number, and the numbers by digest.
        self._queries: dict[int, _Query] = {}
        self._numbers: dict[bytes, int] = {}
        self._last = 0
        self._agenda = Agenda(alarm)
        #: Is told what was found, with the token.
        self.found: Callable[[int, tuple[Where, ...], float], None] = _nobody

    @property
    def end(self) -> Callable[..., RemoteEnd]:
        return self._end

    def find(self, name: str, token: int, now: float) -> tuple[Where, ...] | None:
        if self.trouble:
            return ()
        expiry, stations = self._known.get(name, (now, ()))
        if expiry > now:
            return stations
        self._known.pop(name, None)
        digest = self._digest(name)
        if digest not in self._numbers:
            self._last += 1
            self._numbers[digest] = self._last
            self._queries[self._last] = _Query(name, digest)
            self._agenda.set(self._last, now + FIRST_PAUSE)
            self._ask(digest)
        self._queries[self._numbers[digest]].tokens[token] = None
        return None

    def answered(self, name: str) -> bool:
        """A station said that it has the name, not long ago."""
        return name in self._known

    def heard(self, digest: bytes, source: Where, now: float) -> bool:
        """A station says that it has a name. False: nobody asked, so it is not believed."""
        number = self._numbers.get(digest)
        if number is None or isinstance(source, int):
            return False
        query = self._forget(number)
        while len(self._known) >= CACHE_SIZE:
            del self._known[next(iter(self._known))]
        self._known[query.name] = now + CACHE_TIME, (source,)
        for token in query.tokens:
            self.found(token, (source,), now)
        return True

    def cancel(self, name: str, token: int) -> None:
        number = self._numbers.get(self._digest(name))
        if number is not None:
            self._queries[number].tokens.pop(token, None)

    def forget(self, name: str) -> None:
        self._known.pop(name, None)

    def forget_all(self) -> None:
        """The device may be on another segment when it carries frames again."""
        self._known.clear()

    def advice(self, name: str, refused: Sequence[Where]) -> str:
        if self.trouble:
            return self.trouble
        return f"no station on the segment has it; `irm name register {name} layer LAYER` on one of them registers it"

    def deadline(self) -> float | None:
        return self._agenda.next()

    def timeout(self, now: float) -> None:
        for number in self._agenda.due(now):
            query = self._queries[number]
            if query.sent < QUERIES and query.tokens:
                self._agenda.set(number, now + FIRST_PAUSE * 2**query.sent)
                query.sent += 1
                self._ask(query.digest)
                continue
            self._forget(number)
            for token in query.tokens:
                self.found(token, (), now)

    def _forget(self, number: int) -> _Query:
        query = self._queries.pop(number)
        del self._numbers[query.digest]
        self._agenda.cancel(number)
        return query

    # --- what an address is

    def written(self, address: Where) -> str:
        return _station(address)

    def origin(self, address: Where) -> str:
        return _station(address)

    def longest(self, address: Where) -> int:
        return self.most


def _station(address: Where) -> str:
    assert not isinstance(address, int), "members of layers on a segment have no lower flows"
    return address[0]


def _nobody(token: int, addresses: tuple[Where, ...], now: float) -> None:
    raise AssertionError("nobody waits for what is found")
