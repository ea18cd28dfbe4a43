"""What the parts of a member share: who it is, what the layer agreed on, counters, and the ways out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from ouroboros.errors import OuroborosError
from ouroboros.layers.effects import SendMessage, SendPdu, Warn
from ouroboros.layers.face import Host, Posts, Task
from ouroboros.settings import ANYONE, CERTIFIED, NOBODY, UnicastConfig, UnicastSettings

#: Endpoint ids of the components of a member.
ALLOCATOR = 0
DIRECTORY = 1
PROBES = 2
#: Seconds between two keepalives to a neighbour to which nothing else is sent, and how many such times it may be silent: a
#: bit less than three, so that packets go another way when three are over.
KEEPALIVE = 10.0
MISSED = 2.9
#: No address.
NOWHERE = 0


class Core:
    """Identity and output of one member. `layer`, `settings` and `address` are there from bootstrap or enrollment on."""

    def __init__(self, id: int, name: str, host: Host, *, broadcast: bool = False) -> None:
        """`broadcast`: of a broadcast layer, which agrees on nothing: then `settings` mean nothing."""
        self.id = id
        self.broadcast = broadcast
        #: Of the IPC process.
        self.name = name
        self.host = host
        self.settings = UnicastSettings()
        self.layer = ""
        self.address = NOWHERE
        #: A random number that stands for the member, also after a restart.
        self.node = 0
        #: Layers below it, itself counted.
        self.rank = 1
        #: Seconds between keepalives in connections for packets that it asks for.
        self.keepalive = KEEPALIVE
        #: What is counted; `docs/unicast.md` says what each means.
        self.counters: Counter[str] = Counter()

    @property
    def config(self) -> UnicastConfig:
        """What the layer agreed on, but for the hash of names."""
        return self.settings.unicast

    def may_enroll(self, peer: str) -> str:
        """Why one that has proven to be `peer` may not become a member, "" if it may. Source: `docs/unicast.md`."""
        admitted = self.config.enroll
        if admitted == (ANYONE,):
            return ""
        if admitted == (NOBODY,):
            return f"layer {self.layer!r} takes no new members (enroll {NOBODY})"
        if not peer:
            return (
                f"layer {self.layer!r} takes only members that prove who they are, by a certificate that is configured for "
                "the name they ask for; this one has shown none"
            )
        if admitted != (CERTIFIED,) and peer not in admitted:
            return f"{peer!r} is not one of those who may be members of layer {self.layer!r}"
        return ""

    def may_connect(self, peer: str) -> str:
        """The same for one that says that it is a member. Nobody can prove that; who may enroll can prove that much."""
        return "" if self.config.enroll == (NOBODY,) else self.may_enroll(peer)

    def message(self, fd: int, data: bytes) -> None:
        """One packet to the other end of a lower flow that was not handed over."""
        self.host.effects.append(SendMessage(self.id, fd, data))

    def send(self, destination: int, eid: int, data: bytes, *, ttl: int = 0) -> None:
        """One packet to a component of the member with that address. `ttl`: as of `SendPdu`."""
        self.host.effects.append(SendPdu(self.id, destination, eid, data, ttl))

    def warn(self, text: str, *, error: bool = False) -> None:
        self.host.effects.append(Warn(text, error))


class Then(Task):
    """A task within a member: its answer is told at once."""

    def __init__(self, answer: Callable[[object], None]) -> None:
        super().__init__(Posts(), answer)

    def done(self, value: object = None) -> None:
        self._tell(value)

    def failed(self, error: OuroborosError) -> None:
        self._tell(error)
