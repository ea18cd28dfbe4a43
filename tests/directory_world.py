"""Directories of a unicast layer, alone and in virtual time: packets go from any member to any other that can be reached.

`Prototype` does what a member of the C prototype does with its table, as `unicast-control.md` 7 tells it.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from routing_world import EPOCH, make_core
from timed_world import TimedWorld

from ouroboros.errors import ProtocolError
from ouroboros.layers.base import HASHES
from ouroboros.layers.effects import Effect, SendPdu
from ouroboros.layers.members.core import DIRECTORY, Core
from ouroboros.layers.unicast.directory import Directory
from ouroboros.settings import DhtConfig, UnicastConfig
from ouroboros.wire.unicast import dht
from ouroboros.wire.unicast.dht import Contact, FindNode, FindValue, NodeFound, Store, ValueFound

BASE = 1 << 20


def digest(name: str) -> bytes:
    return HASHES["SHA3_256"](name.encode()).digest()


class Member:
    """A member in a world. `ours`: it is none of the prototype. `returns`: it had its address in an earlier life."""

    def __init__(self, world: World, address: int, *, ours: bool, returns: bool = False) -> None:
        self.address = address
        self.ours = ours
        config = UnicastConfig()
        config.dir.dht = world.config
        self.core = make_core(
            address, world.seed * 1009 + address, lambda: world.now + world.ahead.get(address, 0.0), config
        )
        self.part: Any = Directory(self.core, returns=returns) if ours else Prototype(self.core, world)


class World(TimedWorld[Member]):
    """Members, who reaches whom, and time."""

    def __init__(self, seed: int = 0, **config: Any) -> None:
        super().__init__(seed, 0.005)
        self.config = DhtConfig(**config)
        #: Of members whose clock is that many seconds ahead.
        self.ahead: dict[int, float] = {}
        #: Which piece of the network a member is in.
        self.pieces: dict[int, int] = {}
        self.watch: Callable[[int, int, bytes], None] = lambda sender, receiver, data: None
        self._tokens = count(1)

    # --- members

    def add(
        self, number: int, *, ours: bool = True, peer: int | None = None, told: bool = True, returns: bool = False
    ) -> Member:
        """`told`: all hear at once who can be reached."""
        address = BASE + number
        self._timers.pop(address, None)
        member = self.members[address] = Member(self, address, ours=ours, returns=returns)
        self.pieces[address] = 0
        if not ours:
            member.part.start(peer)
        elif peer is not None:
            self.do(member, lambda part: part.expect(self.now))
        if told:
            self.tell()
        return member

    def fill(self, size: int, *, prototypes: int = 0) -> list[Member]:
        """So many members, the last of which are of the prototype, and let in by the first."""
        for number in range(size):
            self.add(number, ours=number < size - prototypes, peer=BASE if number else None, told=False)
        self.tell()
        return list(self.members.values())

    def split(self, pieces: int) -> None:
        """Members whose addresses differ by a multiple of that reach each other only."""
        self.pieces = {address: address % pieces for address in self.members}
        self.tell()

    def kill(self, member: Member) -> None:
        """It says nothing; after a while routing tells."""
        del self.members[member.address]

    def tell(self) -> None:
        """What routing tells all of them: who can be reached."""
        for member in list(self.members.values()):
            piece = self.pieces[member.address]
            reached = {
                each.address: each.ours
                for each in self.members.values()
                if each is not member and self.pieces[each.address] == piece
            }
            self.do(member, lambda part, reached=reached: part.members(reached, self.now))  # type: ignore[misc]

    # --- names

    def register(self, member: Member, name: str) -> None:
        self.do(member, lambda part: part.register(digest(name), self.now))

    def unregister(self, member: Member, name: str) -> None:
        self.do(member, lambda part: part.unregister(digest(name), self.now))

    def query(self, member: Member, name: str) -> list[tuple[tuple[int, ...], float]]:
        """What it is answered, and after how many seconds: one item, as soon as there is an answer."""
        answers: list[tuple[tuple[int, ...], float]] = []
        start, expected = self.now, next(self._tokens)

        def answer(token: int, addresses: tuple[int, ...], now: float) -> None:
            assert token == expected
            assert now == self.now
            answers.append((addresses, now - start))

        self.do(member, lambda part: part.query(digest(name), expected, answer, self.now))
        return answers

    def find(self, member: Member, name: str) -> list[int]:
        """Where it finds a name."""
        answers = self.query(member, name)
        self.run(3.0)
        assert len(answers) == 1, "a query is answered once"
        return sorted(answers[0][0])

    # --- packets

    def carry_out(self, member: Member, effect: Effect) -> None:
        assert isinstance(effect, SendPdu), effect
        assert effect.eid == DIRECTORY
        destination, data = effect.destination, effect.data
        assert destination != member.address, "nobody asks himself"
        self.packets += 1
        self.watch(member.address, destination, data)
        self.on_the_way(lambda: self._deliver(member.address, destination, data))

    def _deliver(self, sender: int, destination: int, data: bytes) -> None:
        receiver = self.members.get(destination)
        if receiver is not None and self.pieces.get(sender) == self.pieces[destination]:
            self.do(receiver, lambda part: part.heard(data, 1, self.now))


class Prototype:
    """The table of the C prototype: contacts in the order in which they were heard of, the first three are asked."""

    def __init__(self, core: Core, world: World) -> None:
        self._core, self._world = core, world
        self._id = core.host.random.randbytes(32)
        self.contacts: dict[int, bytes] = {}
        self.values: dict[bytes, dict[int, int]] = {}
        self.local: dict[bytes, None] = {}
        #: Messages that it would not take, or would die of.
        self.harmed: list[str] = []
        self._waiting: dict[bytes, tuple[int, int, Callable[[int, tuple[int, ...], float], None]]] = {}
        self._until: float | None = None
        self._peer: int | None = None

    def start(self, peer: int | None) -> None:
        self._peer = peer

    def members(self, members: dict[int, bool], now: float) -> None:
        """It does not ask routing; but its join leaves when there is a route."""
        if self._peer in members:
            self._send(self._peer, FindNode(self._me(), 77, self._id))
            self._peer = None

    def register(self, key: bytes, now: float) -> None:
        self.local[key] = None
        for address in list(self.contacts)[:3]:
            self._send(address, Store(self._me(), key, self._core.address, EPOCH + int(now) + 86400))

    def unregister(self, key: bytes, now: float) -> None:
        del self.local[key]

    def query(self, key: bytes, token: int, answer: Callable[[int, tuple[int, ...], float], None], now: float) -> None:
        if known := self.values.get(key):
            answer(token, tuple(known), now)
            return
        self._waiting[key] = 5, token, answer
        self._until = now + 2.0
        for address in list(self.contacts)[:3]:
            self._send(address, FindValue(self._me(), 5, key))

    def heard(self, data: bytes, fd: int, now: float) -> None:
        try:
            message = dht.decode(data, 32)
        except ProtocolError as error:
            self.harmed.append(str(error))
            return
        source = message.source
        if source.address == self._core.address:
            self.harmed.append("src.addr is its own")
        self.contacts.setdefault(source.address, source.id)
        match message:
            case Store():
                if message.expiry > EPOCH + now + 86400 + 1:
                    self.harmed.append("exp is too far ahead")
                if message.expiry >= EPOCH + now:
                    values = self.values.setdefault(message.key, {})
                    values[message.address] = max(message.expiry, values.get(message.address, 0))
            case FindNode(_, cookie, key):
                self._send(source.address, NodeFound(self._me(), cookie, key, self._some(source)))
            case FindValue(_, cookie, key):
                self._expire(now)
                found = [*self.values.get(key, {}), *([self._core.address] if key in self.local else [])]
                self._send(source.address, ValueFound(self._me(), cookie, key, self._some(source), tuple(found[:8])))
            case ValueFound():
                self._learn(message.contacts)
                cookie, token, answer = self._waiting.get(message.key, (0, 0, None))
                if message.cookie == cookie and message.addresses and answer is not None:
                    del self._waiting[message.key]
                    answer(token, message.addresses, now)
            case NodeFound():
                self._learn(message.contacts)

    def deadline(self) -> float | None:
        return self._until

    def timeout(self, now: float) -> None:
        self._until = None
        for _, token, answer in self._waiting.values():
            answer(token, (), now)
        self._waiting.clear()

    def _expire(self, now: float) -> None:
        for values in self.values.values():
            for address in [address for address, expiry in values.items() if expiry < EPOCH + now]:
                del values[address]

    def _learn(self, contacts: tuple[Contact, ...]) -> None:
        if not contacts:
            self.harmed.append("an answer without contacts")
        for contact in contacts:
            if contact.address != self._core.address:
                self.contacts.setdefault(contact.address, contact.id)

    def _some(self, asker: Contact) -> tuple[Contact, ...]:
        others = [Contact(id, address) for address, id in self.contacts.items() if address != asker.address]
        return (asker, *others[:7])

    def _me(self) -> Contact:
        return Contact(self._id, self._core.address)

    def _send(self, address: int, message: dht.Message) -> None:
        if address in self._world.members:
            self._core.send(address, DIRECTORY, message.encode())
