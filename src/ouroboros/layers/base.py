"""The face that every type of IPC process shows to its node. Pure: what a verb means for packets comes out as effects.

A type implements the verbs that it can do; the others refuse. Time is in seconds, of the clock that the node has. No verb
waits, and none raises but what its docstring says: what fails later is told by `Upper` or `Task` (face.py).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from functools import partial
from typing import ClassVar, Concatenate, ParamSpec, TypeVar

from msgspec.structs import replace

from ouroboros.errors import IpcpBootstrapError, OuroborosError, UnsupportedError
from ouroboros.layers.effects import CloseMember, Impair, Where
from ouroboros.layers.face import Arrival, Connected, End, Host, How, LowerFlow, Reach, Size, Step, Task, nobody
from ouroboros.layers.impairment import Impairment
from ouroboros.layers.ordered import OrderedSet
from ouroboros.oap import Settings
from ouroboros.qos import QoSSpec
from ouroboros.settings import DirectoryHashAlgo, TypeSettings
from ouroboros.wire.control import Details, IpcpEntry

#: Directory hashes by the words of the command line (`irm.md` 1.2: numbers 0 to 3 on the wire).
HASHES = {algo.word: partial(hashlib.new, algo.word.lower()) for algo in DirectoryHashAlgo}
DEFAULT_HASH = TypeSettings().dir_hash_algo.word

#: A layer that fails by itself is begun again so often within so many seconds. More often, something is wrong that does not
#: go away, and it stays failed.
RESTORATIONS = 3
RESTORATION_TIME = 600.0


_P = ParamSpec("_P")
_T = TypeVar("_T")

#: Verbs after which something else may be shown of an IPC process, in all types.
_CHANGES = (
    *("bootstrap", "enroll", "connect", "disconnect", "destroy", "change_peers", "impair", "broke", "gave_up"),
    *("register", "unregister", "join", "leave", "allocate", "cancel", "accept", "confirm", "refuse", "give_back"),
    *("lower_up", "lower_failed", "lower_down", "lower_state"),
    *("opened", "failed", "device", "resolved", "received", "message", "heard", "begun", "over", "counted", "timeout"),
)
#: Verbs after which only its deadline may be another one.
_QUIET_CHANGES = ("abandoned", "keep_alive", "locate", "probe", "discover", "lower_resized")


def _marking(verb: Callable[Concatenate[Ipcp, _P], _T], *, is_frequent: bool) -> Callable[Concatenate[Ipcp, _P], _T]:
    is_shown = verb.__name__ not in _QUIET_CHANGES

    @functools.wraps(verb)
    def call(ipcp: Ipcp, /, *args: _P.args, **named: _P.kwargs) -> _T:
        host, id = ipcp.host, ipcp.id
        host.stirred.add(id)
        if is_frequent:
            host.counted.add(id)
        else:
            host.unsure.add(id)
            if is_shown:
                host.touched.add(id)
        return verb(ipcp, *args, **named)

    return call


#: In the class, `type` is a word.
_Told = type[TypeSettings]


class State(StrEnum):
    """The life of an IPC process, in the words of `irm ipcp list`."""

    BOOT = "boot"
    #: It waits for something that it needs of the machine.
    OPENING = "opening"
    OPERATIONAL = "operational"
    #: Its part in the engine broke too often.
    FAILED = "failed"
    DESTROYED = "destroyed"


class Ipcp:
    """One IPC process: a member of a layer. Life: created, bootstrapped, destroyed."""

    type: ClassVar[str] = ""
    #: The settings of a bootstrap.
    settings: ClassVar[_Told] = TypeSettings
    #: Position in the order in which layers are asked for a name (`irm.md` 1.2).
    preference: ClassVar[int] = 0
    #: Names can be registered in its layers.
    registers: ClassVar[bool] = False
    #: Programs can join its layers.
    joinable: ClassVar[bool] = False
    #: Flows between programs of this node, to names that are registered in its layer, go through it while it is impaired.
    within_node: ClassVar[bool] = False
    #: It can ask for flows to names elsewhere.
    elsewhere: ClassVar[bool] = False
    #: A node may have several members of one layer.
    several: ClassVar[bool] = False
    #: It takes flows to names that are bound to it.
    accepts_flows: ClassVar[bool] = False
    #: It can ask which layers there are.
    discovers: ClassVar[bool] = False
    #: Verbs that are a part of each flow. After them nobody asks for `entry`, in which only counters may have changed, nor
    #: for the `deadline`: they tell `Host.alarm` what becomes due. Some types have hundreds of parts.
    frequent: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls) -> None:
        _mark_changes(cls)

    def __init__(self, id: int, name: str, host: Host) -> None:
        self.id = id
        self.name = name
        self.host = host
        self.state = State.BOOT
        self.layer = ""
        self.hash = DEFAULT_HASH
        #: What it was told at its bootstrap.
        self.told_settings: TypeSettings | None = None
        #: The name of the member with which it enrolled, "" for one that was bootstrapped.
        self.enrolled_with = ""
        #: Names bound to this IPC process.
        self.names: OrderedSet[str] = OrderedSet()
        #: The impairment of packets of the layer; None until there is one.
        self.impairment: Impairment | None = None
        #: Bytes that the device of its port carries in a frame; 0: it has none.
        self.mtu = 0
        #: It was made for programs that join its layer, and goes when they are gone.
        self.on_demand = False
        #: Since when the last program that had joined is gone; None while there are some.
        self.idle_since: float | None = None
        #: Why it failed.
        self.reason = ""
        #: How often it was begun again after it had failed.
        self.restored = 0
        self._broken_at: list[float] = []
        #: Counters of the engine for the layer.
        self.engine_counters: Mapping[str, int] = {}

    @property
    def busy(self) -> bool:
        """Whether the node is of use without programs: peers may ask for flows at any time."""
        return False

    @property
    def takes_newcomers(self) -> bool:
        """Whether others can enroll with it."""
        return False

    # --- management

    def bootstrap(self, layer: str, settings: TypeSettings, task: Task, now: float) -> None:
        """Become the first member of a layer. `task` is answered by the id of the IPC process.

        `settings`: of the class `Ipcp.settings`, and checked. Raises `IpcpBootstrapError` in another state.
        """
        self._check_new()
        self.layer, self.hash, self.state = layer, settings.dir_hash_algo.word, State.OPERATIONAL
        task.done(self.id)

    def enroll(
        self,
        member: str,
        task: Task,
        now: float,
        *,
        connect: bool = False,
        timeout: float | None = None,
        over: tuple[str, ...] = (),
    ) -> None:
        """Become a member of the layer of a member, which is asked by that name. `task` is answered by the id of the IPC
        process. `connect`: then `connect` will be called with the same name. `timeout`: seconds, None for its own choice.
        `over`: layers by one of which it is asked, and over each of which it will be connected; empty: any."""
        raise UnsupportedError(f"IPC process {self.name!r} cannot enroll with {member!r}: its type has no enrollment")

    def abandoned(self, task: Task, now: float) -> None:
        """Nobody waits for that task any more."""

    def connect(self, component: str, name: str, qos: QoSSpec, task: Task, now: float, *, over: str = "") -> None:
        """Connect a part of it to that of the neighbour which is asked by that name. `component`: `MGMT_COMP`, `DT_COMP`.
        `over`: the layer below; "": any."""
        raise UnsupportedError(
            f"IPC process {self.name!r} cannot be connected to {name!r}: its type has no connections"
        )

    def disconnect(self, component: str, name: str, task: Task, now: float) -> None:
        """Undo `connect`."""
        raise UnsupportedError(
            f"IPC process {self.name!r} cannot be disconnected from {name!r}: its type has no connections"
        )

    def settings_now(self) -> TypeSettings:
        """The settings with which a bootstrap would make it what it is now."""
        told = self.settings() if self.told_settings is None else self.told_settings
        return replace(told, impair=None if self.impairment is None else self.impairment.text)

    def connected(self) -> list[Connected]:
        """What it keeps connected to neighbours."""
        return []

    def destroy(self, now: float) -> None:
        """Leave the layer, which ends on this node. What it carried ends; programs and peers are told."""
        running = self._engine_has_it
        self.state = State.DESTROYED
        if running:
            self.host.effects.append(CloseMember(self.id))

    def change_peers(self, add: Iterable[str], remove: Iterable[str], now: float) -> None:
        """Change the peer table. Raises `IpcpBootstrapError` naming the entry that is wrong; then nothing changed."""
        raise IpcpBootstrapError(f"IPC process {self.name!r} of type {self.type} has no peers; those over UDP have")

    def check_impairable(self) -> None:
        """Raises `UnsupportedError` when packets of this type cannot be impaired."""
        raise self._unsupported("be impaired; only local and UDP layers can")

    def impair(self, impairment: Impairment) -> None:
        """From now on, let this happen to the packets of the layer. Raises `UnsupportedError` or `IpcpBootstrapError`."""
        self.check_impairable()
        self._check_operational()
        self.impairment = impairment
        self.host.effects.append(Impair(self.id, impairment))

    def keep_alive(self, seconds: float) -> None:
        """From now on, ask for connections for packets in which both sides send keepalives so often. Raises
        `UnsupportedError`."""
        raise self._unsupported("be told how often to send keepalives; only unicast ones can")

    @property
    def keepalive(self) -> float | None:
        """What `keep_alive` said; None: nothing that is not so by itself."""
        return None

    def entry(self) -> IpcpEntry:
        """The row of `irm ipcp list`."""
        details = self.details()
        return IpcpEntry(
            self.id, self.name, self.type, self._shown_state(), self.layer, self.hash, details, self._counters()
        )

    @property
    def rows(self) -> int:
        """How long that row is, with all that is in it, roughly."""
        return 1

    def details(self) -> Details | None:
        """The part of that row that only this type has."""
        return None

    # --- failures of its own

    def broke(self, reason: str, now: float) -> bool:
        """Its part in the engine failed, and all flows there ended as died. Whether it begins again."""
        self._broken_at = [when for when in self._broken_at if now - when < RESTORATION_TIME] + [now]
        if len(self._broken_at) > RESTORATIONS:
            self.gave_up(reason, now)
            return False
        self.restored += 1
        return True

    def gave_up(self, reason: str, now: float) -> None:
        """From now on it only waits to be destroyed."""
        running = self._engine_has_it
        self.state, self.reason = State.FAILED, reason
        self._given_up(now)
        if running:
            self.host.effects.append(CloseMember(self.id))

    @property
    def trouble(self) -> str:
        """The error text of a layer that failed."""
        return (
            f"the layer {self.layer!r} has failed ({self.reason}): destroy its IPC process {self.name!r}, and bootstrap one "
            "again"
        )

    # --- names

    def digest(self, name: str) -> bytes:
        """The name as the layer's directory knows it."""
        return HASHES[self.hash](name.encode()).digest()

    def register(self, name: str, now: float) -> None:
        """Publish a name in the layer. Raises `IpcpBootstrapError` when the IPC process is in none yet."""
        raise self._unsupported("register names")

    def unregister(self, name: str, now: float) -> None:
        """Take a name out of the layer; no error when it was not in."""
        raise self._unsupported("register names")

    def query(self, digest: bytes) -> bool:
        """Whether the name with that digest is registered by this IPC process."""
        return False

    def reach(self, name: str) -> Reach:
        """Whether the layer leads to a name."""
        if self.state != State.OPERATIONAL:
            return Reach.NO
        if self.query(self.digest(name)):
            return Reach.HERE
        return Reach.PERHAPS if self.elsewhere else Reach.NO

    def turn(self, name: str) -> tuple[float, int, int]:
        """When the layer is asked for a name, among those of the node: by type, then by age."""
        return self.preference, self.preference, self.id

    # --- who is on the way to a name

    def locate(self, name: str, task: Task, now: float) -> None:
        """Find out where a name is in the layer. `task` is answered by a `Located`."""
        raise self._unsupported(f"tell where a name is; `oping -n {name}` asks for a flow to it")

    def probe(self, target: Where, steps: tuple[Step, ...], wait: float, task: Task, now: float) -> None:
        """Find out what is `steps` away towards a place in the layer. `task` is answered by a `Seen`, at the latest after
        `wait` seconds."""
        task.done(nobody(now))

    def discover(self, task: Task, now: float) -> None:
        """Ask which layers others offer to newcomers. `task` is answered by a list of `Found`."""
        raise self._unsupported("ask which layers there are; those on an Ethernet segment can")

    # --- broadcast

    def join(self, flow_id: int, now: float) -> None:
        """Take a flow in as a member of the layer."""
        raise self._unsupported("be joined; only broadcast layers can")

    def leave(self, flow_id: int, now: float) -> None:
        """A member flow is gone."""
        raise self._unsupported("be left")

    # --- flows to names elsewhere; what comes of them is told to `Upper`

    def allocate(self, token: int, name: str, qos: QoSSpec, settings: Settings, now: float) -> None:
        """Ask for a flow to a name elsewhere. `settings`: what is wanted of its encryption and of the peer."""
        raise self._unsupported("reach names elsewhere")

    def cancel(self, token: int, now: float) -> None:
        """That flow is not waited for any more. No error for a token that was answered meanwhile."""
        raise self._unsupported("reach names elsewhere")

    def why(self, token: int) -> str:
        """Why the allocation still waits, for people. Its answer may be posted already."""
        raise self._unsupported("reach names elsewhere")

    def accept(self, arrival: Arrival, now: float) -> End | None:
        """Our end of the flow that a peer asked for; `confirm` or `refuse` must follow.

        None when its handshake fails: the peer is told, and the program can go on waiting.
        """
        raise self._unsupported("be asked for flows")

    def confirm(self, arrival: Arrival, now: float) -> None:
        """The engine has the flow: the peer can be told."""
        raise self._unsupported("be asked for flows")

    def refuse(self, arrival: Arrival, error: OuroborosError, now: float, end: End | None = None) -> None:
        """There will be no flow; the peer is told why. `end`: what `accept` gave."""
        raise self._unsupported("be asked for flows")

    def give_back(self, end: End, now: float) -> None:
        """An end that `Upper.answered` brought is not taken, and the engine never heard of it."""
        raise self._unsupported("reach names elsewhere")

    # --- flows that it holds itself, of layers below: the answers of `Lower`

    def lower_up(self, number: int | None, flow: LowerFlow, now: float) -> None:
        """There is a flow: the one that was asked for under `number`; None: one to a name that is bound to this IPC process.

        From now on it belongs to the IPC process, until `lower_down`, or until it calls `Lower.release`.
        """
        self.host.lower.release(flow.fd, now)

    def lower_failed(self, number: int, error: OuroborosError, now: float) -> None:
        """There will be no flow that was asked for under `number`. To ask again at once would not come to an end."""

    def lower_down(self, fd: int, how: How, now: float) -> None:
        """A flow ended by itself. Its number means nothing any more."""

    def lower_state(self, fd: int, up: bool, now: float) -> None:
        """The peer of a flow was silent for longer than its timeout, or (`up`) is back. The flow goes on, and it is for the
        type to say what that means."""

    def lower_resized(self, fd: int, size: Size, now: float) -> None:
        """What is below a flow carries packets of other lengths from now on. The engine has been told."""

    # --- what the engine and the machine tell

    def opened(self, now: float) -> None:
        """The port of `OpenPort` is open."""
        raise self._unsupported("be opened")

    def failed(self, text: str, now: float) -> None:
        """The port of `OpenPort` could not be opened; `text` says why."""
        raise self._unsupported("be opened")

    def device(self, trouble: str, now: float) -> None:
        """The device of its port carries no frames from now on, and `trouble` says why; or ("") it does again. The engine
        has been told."""

    def resolved(self, number: int, hosts: list[str], now: float) -> None:
        """The answer to `Resolve`; no hosts when the name has none."""
        raise self._unsupported("look names up")

    def received(self, data: bytes, source: Where, now: float) -> None:
        """A management datagram came in, from anybody. `source`: a lower flow for a member over such, else an address."""
        raise self._unsupported("receive datagrams")

    def message(self, fd: int, data: bytes, now: float) -> None:
        """A packet came by a lower flow that is used for control."""
        raise self._unsupported("take messages")

    def heard(self, eid: int, data: bytes, fd: int, now: float) -> None:
        """A packet came for a component of this member. `fd`: the lower flow that brought it; 0: it is from ourselves."""
        raise self._unsupported("be asked by members")

    def begun(self, eid: int) -> None:
        """The first packet came of a flow whose end has a grace."""
        raise self._unsupported("carry flows")

    def over(self, eid: int, how: How, now: float) -> None:
        """The engine is done with a flow, which is told once for each; the endpoint id is free."""
        raise self._unsupported("carry flows")

    def counted(self, counters: Mapping[str, int]) -> None:
        """Counters of the engine for the layer, so far."""
        self.engine_counters = counters

    # --- time

    def deadline(self) -> float | None:
        """When `timeout` wants to be called next. It is looked at after the verbs of this class, and after nothing
        else."""
        return None

    def timeout(self, now: float) -> None:
        """Do what is due. Called when something is."""

    # --- for the types

    def _given_up(self, now: float) -> None:
        """It has failed for good: say what there is to say."""

    @property
    def _engine_has_it(self) -> bool:
        """Whether something runs in the engine for this layer."""
        return self.impairment is not None

    def _shown_state(self) -> str:
        return f"failed: {self.reason}" if self.state == State.FAILED else self.state

    def _counters(self) -> dict[str, int]:
        return {"restored": self.restored} if self.restored else {}

    def _check_new(self) -> None:
        if self.state == State.FAILED:
            raise IpcpBootstrapError(self.trouble)
        if self.state != State.BOOT:
            raise IpcpBootstrapError(f"IPC process {self.name!r} is in layer {self.layer!r} already")

    def _check_operational(self) -> None:
        if self.state == State.FAILED:
            raise IpcpBootstrapError(self.trouble)
        if self.state != State.OPERATIONAL:
            raise IpcpBootstrapError(f"IPC process {self.name!r} is in no layer yet: bootstrap it first")

    def _unsupported(self, what: str) -> UnsupportedError:
        return UnsupportedError(f"IPC process {self.name!r} of type {self.type} cannot {what}")


def _mark_changes(cls: type[Ipcp]) -> None:
    """After its verbs, it is published anew, and asked when it wants to be called."""
    for name in (*_CHANGES, *_QUIET_CHANGES):
        if name in cls.__dict__:
            setattr(cls, name, _marking(cls.__dict__[name], is_frequent=name in cls.frequent))


_mark_changes(Ipcp)
