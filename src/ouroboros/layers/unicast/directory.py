"""The directory of a unicast layer: which members have which names. Each name is kept by the few members next to its digest.

::

    register ──▶ publisher ── STORE ──▶ the members next to the digest ── STORE, as acknowledgement ──▶
    query ──▶ lookups ── FIND_VALUE ──▶ the same members ── values ──▶

Members of ours know from routing who is in the layer. So each works out by itself which members are next to a digest: those
whose place, a digest of the address, differs from it in the lower bits only. Nobody has to be asked for contacts, a question
goes to the right member at once, and a name that none of these has is not in the layer.

Members of the prototype take part in it by the messages that they know (`unicast-control.md` 7). They find their contacts by
messages, so they are sent one, and asked beside the others, because they keep names elsewhere. A STORE that expires at once
takes a value back; they refuse such a one, and are told shorter times instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import msgspec

from ouroboros.errors import ProtocolError
from ouroboros.layers.agenda import Agenda, earliest
from ouroboros.layers.bucket import Bucket
from ouroboros.layers.members.core import DIRECTORY, Core
from ouroboros.layers.unicast.lookups import PATIENCE, Lookups
from ouroboros.layers.unicast.places import Places
from ouroboros.layers.unicast.publisher import Publisher
from ouroboros.layers.unicast.values import Values
from ouroboros.wire.unicast import dht
from ouroboros.wire.unicast.dht import MOST_VALUES, Contact, FindNode, FindValue, NodeFound, Store, ValueFound

#: Messages a second that are taken from one lower flow, and at once.
MESSAGES = (2000.0, 4000.0)
MOST_BUCKETS = 1024
#: So long after it can be reached, a member of the prototype is asked for its id, seconds: it has its routes then.
GREETING = 1.0
#: Values that are over are dropped at most so often, seconds.
SWEEP = 10.0
#: What is known of members to which no path leads is forgotten after so many seconds: when they are back they tell it anew.
GONE = 300.0
#: Lookups for members of the prototype at a time: there are to be some for our own programs.
MOST_HELPED = 64
#: So often room is made, by dropping what is worth less.
ROOM_PAUSE = 1.0

Answer = Callable[[int, tuple[int, ...], float], None]


class Entry(msgspec.Struct, frozen=True):
    """A name, by its digest, and a member that has it. `left`: seconds until it is forgotten; None: this member has it."""

    digest: bytes
    address: int
    left: float | None


class Directory:
    """The part of one member. Its address is there. `returns`: it had that address in an earlier life."""

    def __init__(self, core: Core, *, returns: bool = False) -> None:
        dht_config = core.config.dir.dht
        self._core = core
        self._k, self._t_refresh, self._t_expire = dht_config.k, float(dht_config.t_refresh), dht_config.t_expire
        self._t_replicate = float(dht_config.t_replicate)
        self._places = Places(core, dht_config.k)
        #: When members of the prototype are asked for their ids.
        self._greetings = Agenda()
        self._own_address = core.address
        self._returns = returns
        self._values = Values()
        #: Since when no path leads to members of which values are kept.
        self._gone: dict[int, float] = {}
        self._room_made = float("-inf")
        self._sweep_at: float | None = None
        self._replicate_at: float | None = None
        self._lookups = Lookups(self, dht_config.alpha, core.host.alarm)
        self._publisher = Publisher(self, dht_config)
        #: Lookups for other members: that go on, and ever.
        self._helping = self._helped = 0
        self._buckets: dict[int, Bucket] = {}

    # --- what its member wants

    def expect(self, now: float) -> None:
        """The member is being connected: if nobody can be reached yet, somebody will be soon."""
        if not len(self._places):
            self._lookups.expecting = now + PATIENCE

    def register(self, digest: bytes, now: float) -> None:
        """This member has that name. No error when it had it before."""
        self._publisher.register(digest, now)

    def unregister(self, digest: bytes, now: float) -> None:
        """It has it no more. No error when it had not."""
        self._publisher.unregister(digest, now)

    def query(self, digest: bytes, token: int, answer: Answer, now: float) -> None:
        """Find the members that have a name.

        `answer` gets the token, their addresses and the time, once, perhaps at once. No addresses: no member has it. Members
        to which no path leads are named only when there is no other.
        """

        known = self._known(digest)
        alive = tuple(filter(self.alive, known))

        def found(addresses: tuple[int, ...], now: float) -> None:
            answer(token, tuple(dict.fromkeys(alive + addresses)), now)

        if alive and self._core.address in self._places.nearest(digest, self._k):
            found((), now)
        elif not self._lookups.begin(digest, token, found, now):
            self._core.counters["lookups_refused"] += 1
            found((), now)

    def cancel(self, token: int) -> None:
        """That query is not waited for any more."""
        self._lookups.cancel(token)

    def forget(self, digest: bytes) -> None:
        """A member that was found does not have the name: ask anew next time."""
        self._lookups.forget(digest)

    def disown(self, digest: bytes, now: float) -> None:
        """A peer takes this member for one that has the name, and it has not: those that keep it are told. That happens with
        names of an earlier life."""
        self._publisher.disown(digest, self.keepers(digest), now)

    def members(self, members: Mapping[int, bool], now: float) -> None:
        """Those to which paths lead now, without ourselves; and whether they are ours."""
        added, removed = self._places.update(members)
        for address in removed:
            if self._values.has(address):
                self._miss(address, now)
            self._greetings.cancel(address)
        for address in added:
            self._gone.pop(address, None)
            if not members[address]:
                self._greetings.set(address, now + GREETING)
            elif self._returns:
                self._publisher.join([address], now)
            if members[address] and self._values.has(address):
                self._publisher.check(self._values.keys_of(address), address, now)
        if members:
            self._lookups.expecting = float("-inf")
        if added or removed:
            self._publisher.members_changed(removed, now)
            self._lookups.members_changed(now)

    def moved(self, now: float) -> None:
        """This member has another address now: its names are told anew, and what it kept, for its old place, is not its any
        more."""
        before, self._own_address = self._own_address, self._core.address
        self._returns = False
        self._values = Values()
        self._gone.clear()
        self._publisher.moved(Contact(self._places.place(before), before), now)

    def entries(self) -> list[Entry]:
        """What this member knows of names."""
        wall = self.wall()
        own = [Entry(key, self._core.address, None) for key in self._publisher.names()]
        return own + [Entry(key, address, max(0.0, value.expiry - wall)) for key, address, value in self._values]

    def close(self, now: float) -> None:
        """The member leaves: take its names back, and hand over what it keeps. Call nothing any more."""
        self._publisher.close(now)
        wall = self.wall()
        for key, address, value in list(self._values):
            others = [each for each in self._places.nearest(key, self._k + 1) if each != self._core.address]
            if value.expiry >= wall and self.alive(address) and len(others) == self._k and address != others[-1]:
                # All but the last of them keep it already.
                self._replicated(others[-1], key, address, value.expiry)

    # --- messages

    def heard(self, data: bytes, fd: int, now: float) -> None:
        """A packet came by that lower flow. It is hostile, as all are."""
        counters = self._core.counters
        if not self._bucket(fd).take(now):
            counters["directory_dropped"] += 1
            return
        try:
            message = dht.decode(data, self._places.length)
        except ProtocolError:
            counters["directory_malformed"] += 1
            return
        source = message.source
        if source.address == self._core.address:
            counters["directory_wrong_source"] += 1
            return
        self._places.introduced(source)
        match message:
            case Store():
                self._stored(message, now)
            case FindNode(_, cookie, key):
                if self.ours(source.address):
                    self._publisher.returned(source.address, now)
                self._answer(NodeFound(self._places.contact(), cookie, key, self._places.contacts(source, key)), source)
            case FindValue():
                self._asked(message, now)
            case NodeFound():
                self._publisher.joined(source.address)
                self._places.learn(message.contacts)
            case ValueFound():
                self._found(message, now)

    def _found(self, answer: ValueFound, now: float) -> None:
        key, source = answer.key, answer.source.address
        self._places.learn(answer.contacts)
        more = () if self.ours(source) else [each.address for each in answer.contacts if each.address in self._places]
        if self._core.address in answer.addresses and self.ours(source):
            # Whether we have it is known here.
            self._publisher.disown(key, [source], now)
        others = [each for each in answer.addresses if each != self._core.address]
        if not self._lookups.answered(answer.cookie, source, key, others, more, now):
            self._core.counters["directory_unasked"] += 1

    def _stored(self, store: Store, now: float) -> None:
        key, source, wall = store.key, store.source, self.wall()
        if store.address == self._core.address:
            if self.ours(source.address):
                self._publisher.confirmed(key, source.address, back=store.expiry == 0, now=now)
            return
        replica = source.address != store.address
        if not replica:
            self._publisher.checked(key, source.address)
        if store.expiry == 0 and not replica:
            self._values.remove(key, store.address)
            if not self._values.has(store.address):
                self._gone.pop(store.address, None)
            self._lookups.forget(key)
        elif store.expiry < wall or not self._keep(store, replica=replica, now=now):
            self._core.counters["stores_refused"] += 1
            return
        if self._sweep_at is None and len(self._values):
            self._sweep_at = now + SWEEP
        if self._replicate_at is None and self.mixed:
            self._replicate_at = now + self._t_replicate
        if self._values.has(store.address) and not self.alive(store.address):
            self._miss(store.address, now)
        if replica and self.ours(store.address):
            self._publisher.check([key], store.address, now)
        if not replica and self.ours(source.address):
            self._replicated(source.address, key, store.address, store.expiry)

    def _keep(self, store: Store, *, replica: bool, now: float) -> bool:
        """Whether there is room for that value."""
        if replica and not self.alive(store.address):
            return False
        expiry = min(store.expiry, int(self.wall()) + self._t_expire)
        if self._values.put(store.key, store.address, expiry, replica=replica):
            return True
        if not self._values.full or now - self._room_made < ROOM_PAUSE:
            return False
        self._room_made = now
        self._values.drop(lambda address, value: value.replica or not self.alive(address))
        self._gone = {address: since for address, since in self._gone.items() if self._values.has(address)}
        return self._values.put(store.key, store.address, expiry, replica=replica)

    def _asked(self, question: FindValue, now: float) -> None:
        source, key = question.source, question.key

        def found(addresses: tuple[int, ...], now: float) -> None:
            contacts, values = self._places.contacts(source, key), addresses[:MOST_VALUES]
            self._answer(ValueFound(self._places.contact(), question.cookie, key, contacts, values), source)

        known = self._known(key)
        lost = not any(map(self.alive, known)) and len(self._places) > self._k
        # One of the prototype asks only those that it has known for long, who may not keep the name: find out for it.
        if not (lost and self._places.foreign(source.address) and self._find_out(key, found, now)):
            found(known, now)

    def _find_out(self, key: bytes, found: Callable[[tuple[int, ...], float], None], now: float) -> bool:
        """Look a name up for another member, unless that is being done for too many. Whether it will be told."""
        if self._helping >= MOST_HELPED:
            return False

        def answer(addresses: tuple[int, ...], now: float) -> None:
            self._helping -= 1
            found(addresses, now)

        self._helping += 1
        self._helped += 1
        begun = self._lookups.begin(key, -self._helped, answer, now)
        if not begun:
            self._helping -= 1
        return begun

    def _answer(self, message: NodeFound | ValueFound, source: Contact) -> None:
        self._core.send(source.address, DIRECTORY, message.encode())

    def _bucket(self, fd: int) -> Bucket:
        if fd not in self._buckets:
            if len(self._buckets) >= MOST_BUCKETS:
                del self._buckets[next(iter(self._buckets))]
            self._buckets[fd] = Bucket(*MESSAGES)
        return self._buckets[fd]

    # --- what its parts need

    def alive(self, address: int) -> bool:
        return self._places.alive(address)

    def ours(self, address: int) -> bool:
        """Whether that member can be reached and is one of ours."""
        return self._places.ours(address)

    @property
    def mixed(self) -> bool:
        """Members of the prototype can be reached."""
        return self._places.mixed

    def wall(self) -> float:
        """Seconds since 1970."""
        return self._core.host.wall() / 10**9

    def chance(self) -> float:
        """From 0 to 1."""
        return self._core.host.random.getrandbits(16) / 65536

    def candidates(self, key: bytes) -> Iterator[int]:
        """Those that keep a name, and members of the prototype, which keep theirs anywhere."""
        return self._places.candidates(key)

    def keepers(self, key: bytes) -> dict[int, None]:
        """Others to whom a name of ours is told: those next to it, and some of the prototype, which ask each other."""
        return self._places.keepers(key)

    def ask(self, address: int, key: bytes) -> int:
        cookie = self._core.host.random.getrandbits(64) or 1
        self._core.send(address, DIRECTORY, FindValue(self._places.contact(), cookie, key).encode())
        return cookie

    def store(self, receiver: int, key: bytes, expiry: int, source: Contact | None = None) -> None:
        """Tell a member that we have a name. `source`: we, under another address."""
        source = source or self._places.contact()
        self._core.send(receiver, DIRECTORY, Store(source, key, source.address, expiry).encode())

    def check(self, receiver: int, key: bytes) -> None:
        """Tell a member that we keep it as one that has a name, if we do."""
        value = self._values.get(key, receiver)
        if value is not None:
            self._replicated(receiver, key, receiver, value.expiry)

    def join(self, receiver: int) -> None:
        """Ask a member for the one at our own place, as one does that comes into the layer."""
        cookie = self._core.host.random.getrandbits(64) or 1
        own = self._places.place(self._core.address)
        self._core.send(receiver, DIRECTORY, FindNode(self._places.contact(), cookie, own).encode())

    def _replicated(self, receiver: int, key: bytes, address: int, expiry: int) -> None:
        self._core.send(receiver, DIRECTORY, Store(self._places.contact(), key, address, expiry).encode())

    def _known(self, key: bytes) -> tuple[int, ...]:
        """Members that have a name, as far as is known here: first those that say so themselves, any of them, as members of
        the prototype take the first one; last those to which no path leads."""
        said, repeated = self._values.of(key, self.wall())
        first = [each for each in said if self.alive(each)]
        if key in self._publisher:
            first.append(self._core.address)
        turn = self._core.host.random.getrandbits(16) % len(first) if len(first) > 1 else 0
        alive = [*first[turn:], *first[:turn], *filter(self.alive, repeated)]
        return (*alive, *(each for each in (*said, *repeated) if not self.alive(each)))

    # --- time

    def deadline(self) -> float | None:
        """When `timeout` wants to be called next."""
        return earliest(
            self._lookups.deadline(),
            self._publisher.deadline(),
            self._greetings.next(),
            self._sweep_at,
            self._replicate_at,
        )

    def timeout(self, now: float) -> None:
        """Do what is due."""
        self._lookups.timeout(now)
        self._publisher.timeout(now)
        for address in list(self._greetings.due(now)):
            self.join(address)
            self._greetings.set(address, now + self._t_refresh)
        if self._replicate_at is not None and self._replicate_at <= now:
            self._replicate(now)
        if self._sweep_at is not None and self._sweep_at <= now:
            self._sweep(now)

    def _miss(self, address: int, now: float) -> None:
        """No path leads to a member of which something is kept."""
        self._gone.setdefault(address, now)
        self._sweep_at = min(self._sweep_at or now + GONE, now + GONE)

    def _sweep(self, now: float) -> None:
        wall = self.wall()
        over = {address for address, since in self._gone.items() if since + GONE <= now}
        self._values.drop(lambda address, value: value.expiry < wall or address in over)
        self._gone = {address: since for address, since in self._gone.items() if address not in over}
        times = [now + value.expiry - wall + 1 for _, _, value in self._values]
        times += [since + GONE for since in self._gone.values()]
        self._sweep_at = max(now + SWEEP, min(times)) if times else None

    def _replicate(self, now: float) -> None:
        """Members of the prototype tell theirs once, and to a few: let those hear of it that keep the name."""
        self._replicate_at = now + self._t_replicate if len(self._values) and self.mixed else None
        wall = self.wall()
        for key, address, value in self._values:
            if self._places.foreign(address) and value.expiry >= wall:
                for each in self._places.nearest(key, self._k, own=False):
                    if each != address:
                        self._replicated(each, key, address, value.expiry)
