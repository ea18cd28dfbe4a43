"""Where names are: the peer table first, then the resolver, whose answers are kept for a while."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from ouroboros._hosts import PEERS, Peer, usable, written
from ouroboros.errors import IpcpBootstrapError
from ouroboros.layers.effects import Address, Effect, RemoteEnd, Resolve, Where
from ouroboros.wire.udp import PACKET_LENGTH, digest_of

#: How long an answer of the resolver is good, seconds.
CACHE_TIME = 60.0
#: How many of them are kept.
CACHE_SIZE = 1024
#: How many addresses of a name are tried.
ADDRESSES = 8

#: How a layer comes to know where a name is.
_ADVICE = "add it to the peers of one with `irm ipcp peer`, or its MD5 {} to /etc/hosts or the DNS"


class UdpEnd(RemoteEnd, frozen=True, kw_only=True):
    """Our end of a flow with another node."""

    address: Address

    def peer(self) -> tuple[str, str]:
        return written(self.address), "prototype" if self.extension is None else "node"


class Directory:
    """Names and the addresses where they are."""

    guesses = False
    end = UdpEnd

    def __init__(self, ipcp: int, family: str, effects: list[Effect]) -> None:
        self._ipcp = ipcp
        self._family = family
        self._effects = effects
        #: Of nodes, where nothing else is said.
        self.port = 0
        self._peers: dict[str, list[Peer]] = {}
        self._cache: dict[str, tuple[float, tuple[Address, ...]]] = {}
        self._last = 0
        #: Lookups under way: number -> name, and name -> number and the tokens that wait for it.
        self._lookups: dict[int, str] = {}
        self._waiting: dict[str, tuple[int, dict[int, None]]] = {}

    @property
    def peers(self) -> list[Peer]:
        return [peer for peers in self._peers.values() for peer in peers]

    def change(self, add: Iterable[Peer], remove: Iterable[Peer]) -> None:
        """Take peers out of the table and put others in. Raises `IpcpBootstrapError`, and then changes nothing."""
        table = dict.fromkeys(self.peers)
        for peer in remove:
            if peer not in table:
                raise IpcpBootstrapError(f"peer: {peer.text!r} is not in the table; `irm ipcp list --json` shows it")
            del table[peer]
        table |= dict.fromkeys(add)
        if len(table) > PEERS:
            raise IpcpBootstrapError(f"peer: {len(table)} entries; at most {PEERS} are allowed")
        self._peers = {}
        for peer in table:
            self._peers.setdefault(peer.name, []).append(peer)

    def find(self, name: str, token: int, now: float) -> tuple[Address, ...] | None:
        """Where the name is; None when it has to be looked up, and `resolved` will tell."""
        if peers := self._peers.get(name):
            return tuple(peer.address(self.port) for peer in peers)
        expiry, addresses = self._cache.get(name, (now, ()))
        if expiry > now:
            return addresses
        self._cache.pop(name, None)
        if name not in self._waiting:
            self._last += 1
            self._lookups[self._last] = name
            self._waiting[name] = (self._last, {})
            self._effects.append(Resolve(self._ipcp, self._last, digest_of(name).hex(), self._family, token))
        self._waiting[name][1][token] = None
        return None

    def listed(self, name: str) -> Address | None:
        """The first place where the peer table has the name."""
        peers = self._peers.get(name)
        return peers[0].address(self.port) if peers else None

    def resolved(self, number: int, hosts: Iterable[str], now: float) -> tuple[list[int], tuple[Address, ...]]:
        """A lookup is over: the requests that wait for it, and the addresses."""
        name = self._lookups.pop(number, None)
        if name is None:
            return [], ()
        _, tokens = self._waiting.pop(name)
        good = (host for host in dict.fromkeys(hosts) if usable(self._family, host))
        addresses = tuple((host, self.port) for host in islice(good, ADDRESSES))
        if addresses:
            while len(self._cache) >= CACHE_SIZE:
                del self._cache[next(iter(self._cache))]
            self._cache[name] = (now + CACHE_TIME, addresses)
        return list(tokens), addresses

    def cancel(self, name: str, token: int) -> None:
        """That token does not wait any more. The lookup goes on: its answer is good for the next one."""
        if name in self._waiting:
            self._waiting[name][1].pop(token, None)

    def forget(self, name: str) -> None:
        """Nobody answered there: look the name up anew next time."""
        self._cache.pop(name, None)

    def advice(self, name: str, refused: Sequence[Where]) -> str:
        return _ADVICE.format(digest_of(name).hex())

    # --- what an address is

    def written(self, address: Where) -> str:
        return written(_ip_of(address))

    def origin(self, address: Where) -> str:
        return _ip_of(address)[0]

    def longest(self, address: Where) -> int:
        return PACKET_LENGTH[self._family]


def _ip_of(address: Where) -> Address:
    assert not isinstance(address, int), "members of layers over UDP have no lower flows"
    return address
