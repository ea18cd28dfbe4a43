"""Parties, which ask for flows, accept them and hold their ends: processes and IPC processes. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from enum import Enum, auto

from ouroboros.errors import FlowRefusedException
from ouroboros.layers.base import Ipcp, State
from ouroboros.layers.ordered import OrderedSet
from ouroboros.qos import QoSSpec

#: The most layers that may lie over each other: the highest rank of an IPC process.
HIGHEST_RANK = 8
#: The most accepted flows that an IPC process holds, from anybody. Further requests wait, as with a busy program.
MOST_ACCEPTED = 1024


@dataclass(slots=True, eq=False, kw_only=True)
class Party:
    """A holder of ends of flows. `pid`: a process id, or the id of an IPC process; no number is both."""

    pid: int
    program: str
    #: All its connections were made as root or as the user of the node, so that its name counts. What may come over a
    #: connection goes by that connection alone.
    trusted: bool
    names: OrderedSet[str] = field(default_factory=OrderedSet)
    #: (flow id, side) of every end it holds.
    ends: set[tuple[int, int]] = field(default_factory=set)
    #: Tokens of its waiting requests.
    waiting: set[int] = field(default_factory=set)
    #: The names that it called accept for, None for any of its names: a server of them, perhaps a busy one.
    accepts: set[str | None] = field(default_factory=set)
    #: Of the names that a program was started for, those that it took a flow for. One that dies before that is not started
    #: again.
    served: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        return f"process {self.pid} ({self.program})"


@dataclass(slots=True, eq=False, kw_only=True)
class Process(Party):
    """A program that runs and talks to us."""

    uid: int


@dataclass(slots=True, eq=False, kw_only=True)
class IpcProcess(Party):
    """An IPC process: it asks and accepts by `layers.face.Lower`, and holds flows of layers below."""

    ipcp: Ipcp
    #: Its questions without an answer, by its own numbers.
    questions: dict[int, Question] = field(default_factory=dict)
    #: How many flows it holds of each IPC process below; None: of those with nothing between.
    below: Counter[int | None] = field(default_factory=Counter)
    #: Flows that it accepted, until the engine is done with them.
    accepted: int = 0

    def __str__(self) -> str:
        return f"IPC process {self.program!r}"

    @classmethod
    def of(cls, ipcp: Ipcp) -> IpcProcess:
        return cls(pid=ipcp.id, program=ipcp.name, trusted=True, names=ipcp.names, ipcp=ipcp)

    @property
    def free(self) -> bool:
        """Whether it takes another flow."""
        return self.accepted < MOST_ACCEPTED and self.ipcp.state != State.FAILED


@dataclass(slots=True, eq=False)
class Question:
    """A flow that an IPC process asked for, under a number of its own."""

    number: int
    #: Of the request that waits for it.
    token: int = 0
    #: The end that it was granted, and is not told of yet.
    end: LowerEnd | None = None
    #: It is answered or withdrawn, and will hear nothing any more.
    over: bool = False


class Stage(Enum):
    """The life of an end that an IPC process holds."""

    #: The engine is to make it.
    OPENING = auto()
    #: The engine has it.
    OPEN = auto()
    #: Its carrier is being destroyed, and the IPC process has been told.
    DOWN = auto()
    #: Let go, by either side: the engine is not done with it.
    ENDING = auto()


@dataclass(slots=True, eq=False, kw_only=True)
class LowerEnd:
    """An end of a flow that an IPC process holds. `carrier`: the id of the IPC process below that carries it. `peer`,
    `layer`: as of `LowerFlow`."""

    fd: int
    holder: IpcProcess
    flow_id: int
    side: int
    name: str
    qos: QoSSpec
    carrier: int | None
    #: None for an end that it accepted.
    question: Question | None
    #: The other end is at a node of ours.
    ours: bool
    peer: str = ""
    layer: str = ""
    stage: Stage = Stage.OPENING


class Layering:
    """Which IPC process lies over which: by the flows that each holds of others."""

    def __init__(self, members: Mapping[int, IpcProcess]) -> None:
        self._members = members

    def rank(self, pid: int) -> int:
        """One more than the highest rank below; 0 without flows of others, and 1 with a flow that nothing carries."""
        return self._rank(pid, {each.pid: each.below.keys() for each in self._members.values()}, {})

    def _rank(self, pid: int, below: Mapping[int, Set[int | None]], known: dict[int, int]) -> int:
        if pid not in known:
            carriers = below.get(pid, ())
            known[pid] = max(
                (1 if each is None else 1 + self._rank(each, below, known) for each in carriers), default=0
            )
        return known[pid]

    def above(self, pid: int) -> set[int]:
        """The IPC process, and all that lie over it; with all of their layers, since a layer is one and the same on whatever
        node and by whatever member."""
        found, new = set[int](), {pid}
        while new:
            found |= new
            layers = {self._layer(each) for each in new} - {None}
            over = (
                each for each in self._members.values() if each.below.keys() & new or self._layer(each.pid) in layers
            )
            new = {each.pid for each in over} - found
        return found

    def _layer(self, pid: int) -> tuple[str, str] | None:
        """That of an IPC process; None for one that is in none."""
        member = self._members.get(pid)
        return (member.ipcp.type, member.ipcp.layer) if member is not None and member.ipcp.layer else None

    def check(self, party: Party, carrier: int | None) -> None:
        """Raises `FlowRefusedException` when a party must hold no flow that the IPC process `carrier` carries."""
        if not isinstance(party, IpcProcess) or carrier in party.below:
            return
        above = self.above(party.pid)
        start = f"{party} cannot have a flow over {self._name(carrier)}"
        if carrier in above:
            raise FlowRefusedException(f"{start}, which is in the same layer or lies over it: no layer carries itself")
        below: dict[int, Set[int | None]] = {each.pid: each.below.keys() for each in self._members.values()}
        below[party.pid] = party.below.keys() | {carrier}
        known = dict[int, int]()
        if max(self._rank(each, below, known) for each in above) > HIGHEST_RANK:
            raise FlowRefusedException(f"{start}: more than {HIGHEST_RANK} layers would lie over each other")

    def _name(self, carrier: int | None) -> str:
        member = None if carrier is None else self._members.get(carrier)
        return "this node" if member is None else str(member)
