"""Messages between programs and the node over the control socket: one schema, one version.

Each message is a msgpack array (`msgspec`, tagged by type) behind a 4-byte big-endian length. A connection carries one
request at a time: `Hello` first, then requests, each answered by `Done`, `Failed` or `Granted`. The exceptions are
`Dealloc`, which has no answer, and hanging up, which cancels the request that is waiting. A connection that hangs up right
after a `Granted` gives the flow back: nobody took it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, get_args

import msgspec

from ouroboros._values import plain_text, whole_number
from ouroboros.errors import IpcpBootstrapError, ProtocolError
from ouroboros.qos import QoSSpec
from ouroboros.security import FlowSecurity
from ouroboros.settings import AnySettings

#: Raised by one whenever a message changes; a node answers a client of another version with `Failed`. The client of C
#: programs, `rust/client/src/message.rs`, has the same number.
VERSION = 12

#: The largest answer, bytes. A list of 100 000 names fits.
MESSAGE_LENGTH = 64 << 20

#: The largest request, bytes.
REQUEST_LENGTH = 256 << 10

#: Seconds between keepalives of members of unicast layers.
LEAST_KEEPALIVE = 0.05
MOST_KEEPALIVE = 3600.0

#: Seconds for which an answer to a probe is waited for, at the most.
LONGEST_PROBE = 10.0

#: IPC processes live inside the node. Their ids start above any pid that Linux gives (2**22).
FIRST_IPCP_ID = (1 << 22) + 1


class _Message(msgspec.Struct, frozen=True, array_like=True, tag=True, tag_field="kind"):
    pass


# --- requests: flows


class Hello(_Message, frozen=True):
    """The caller. The pid is taken from the socket, never from the message. `instance`: a number that is the same for
    all callers in a process, and another one after a fork or an exec, which keep the pid or the program."""

    version: int
    program: str
    instance: int


class Alloc(_Message, frozen=True):
    """Ask for a flow to a name. `timeout`: seconds to wait for an acceptor, None for the node's default, infinity for no
    limit. With `wait`, also for somebody who serves the name at all, here or elsewhere. `layer`: the one to look in, None
    for any."""

    name: str
    qos: QoSSpec
    timeout: float | None
    wait: bool = False
    layer: str | None = None


class Accept(_Message, frozen=True):
    """Wait for a flow to `name`, and bind this process to it first; None for any name that this process is bound to.
    `timeout` None: no limit."""

    name: str | None
    timeout: float | None


class Join(_Message, frozen=True):
    """Join the broadcast layer of that name."""

    layer: str
    qos: QoSSpec
    timeout: float | None


class Capture(_Message, frozen=True):
    """Ask for a flow that brings copies of what an IPC process sends and gets in its layer, as `wire.tap` reads them.
    `snap`: bytes of each packet at the most."""

    ipcp: int
    snap: int
    timeout: float | None = None


class Dealloc(_Message, frozen=True):
    """This end of the flow is released. Not answered."""

    flow_id: int
    side: int


# --- requests: management


class NameSecurity(msgspec.Struct, frozen=True, array_like=True):
    """Absolute paths of what protects flows to a name; None: the place in the security directory."""

    server_encryption: str | None = None
    server_certificate: str | None = None
    server_key: str | None = None
    client_encryption: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None


class CreateName(_Message, frozen=True):
    """`policy`: "round-robin" or "spillover". `security`: for a name that exists, those that are given count from now on."""

    name: str
    policy: str
    security: NameSecurity | None = None


class DestroyName(_Message, frozen=True):
    name: str


class ListNames(_Message, frozen=True):
    """Answered by a list of `NameEntry`."""


class RegisterName(_Message, frozen=True):
    """Publish a name in the layer of an IPC process. `ipcp`: its id."""

    name: str
    ipcp: int


class UnregisterName(_Message, frozen=True):
    name: str
    ipcp: int


class BindProgram(_Message, frozen=True):
    """`path`: absolute path of an executable. With `auto` the node starts it, with `args`, when a flow is asked for."""

    path: str
    name: str
    auto: bool
    args: list[str]


class UnbindProgram(_Message, frozen=True):
    """`program`: base name."""

    program: str
    name: str


class BindProcess(_Message, frozen=True):
    """`pid`: a process id, or the id of an IPC process."""

    pid: int
    name: str


class UnbindProcess(_Message, frozen=True):
    pid: int
    name: str


class CreateIpcp(_Message, frozen=True):
    """`type`: "local", "broadcast", ... Answered by the id of the new IPC process."""

    name: str
    type: str


class BootstrapIpcp(_Message, frozen=True):
    """`settings`: of its type; None for the defaults. Answered by the id."""

    ipcp: int
    layer: str
    settings: AnySettings | None = None


class ImpairIpcp(_Message, frozen=True):
    """Change what happens to the packets of a local or UDP layer, in the words of `layers.impairment`."""

    ipcp: int
    impair: str


class ChangePeers(_Message, frozen=True):
    """Change where a UDP layer looks for names: entries as in `Udp4Config.peers`. All of it is done, or nothing."""

    ipcp: int
    add: list[str]
    remove: list[str]


class KeepAliveIpcp(_Message, frozen=True):
    """Change how often a member of a unicast layer lets neighbours hear of it, in connections for packets that it asks for
    from then on. `seconds`: between two keepalives."""

    ipcp: int
    seconds: Annotated[float, msgspec.Meta(ge=LEAST_KEEPALIVE, le=MOST_KEEPALIVE)]


class EnrollIpcp(_Message, frozen=True):
    """Make an IPC process a member of the layer of the member that is asked by `name`. Answered by the id.

    `connect`: it will be connected to that member, and prepares for that meanwhile. `timeout`: seconds; None for the time
    that the node takes. `over`: layers by one of which it is asked, and over each of which it will be connected; empty: any.
    """

    ipcp: int
    name: str
    connect: bool = False
    timeout: float | None = None
    over: tuple[str, ...] = ()


class ConnectIpcp(_Message, frozen=True):
    """Connect a part of an IPC process to that of the neighbour which is asked by `name`. `component`: "Data Transfer" or
    "Management". `qos`: of the flow between the two. `over`: the layer that carries it; "": any."""

    ipcp: int
    component: str
    name: str
    qos: QoSSpec
    over: str = ""


class DisconnectIpcp(_Message, frozen=True):
    """Undo `ConnectIpcp`."""

    ipcp: int
    component: str
    name: str


class DestroyIpcp(_Message, frozen=True):
    ipcp: int


class ProbeName(_Message, frozen=True):
    """Ask who is on the way to a name. Answered by a list of `HopEntry`: of the end of the way in each layer, or, with
    `trace`, of all hops. `layer`: the one that leads there, None for any. `timeout`: seconds that an answer may take."""

    name: str
    layer: str | None
    trace: bool
    timeout: Annotated[float, msgspec.Meta(gt=0, le=LONGEST_PROBE)]


class DiscoverLayers(_Message, frozen=True):
    """Ask which layers other nodes offer to newcomers. Answered by a list of `OfferEntry`. `over`: names of the layers to
    ask in; empty: all that can be asked."""

    over: tuple[str, ...] = ()


class ListIpcps(_Message, frozen=True):
    """Answered by a list of `IpcpEntry`."""


class ListFlows(_Message, frozen=True):
    """Answered by a list of `FlowEntry`."""


class Save(_Message, frozen=True):
    """Answered by what the node has as the text of a configuration file."""


class NodeInfo(_Message, frozen=True):
    """Answered by `NodeEntry`."""


# --- answers


class Done(_Message, frozen=True):
    value: Any = None


class Failed(_Message, frozen=True):
    """`error`: name of a class in `ouroboros.errors`; `text`: what happened and what to do."""

    error: str
    text: str


class Granted(_Message, frozen=True):
    """A flow. Two descriptors come along: its memory and the doorbell socket of this end. `side`: 0 or 1. `max_packet`: the
    longest message that the flow takes, bytes.

    `security`: of an encrypted flow. `suite`, `key`: when it is the programs that encrypt, the number of the cipher and its
    32 bytes. `name`: what the flow was asked for, a name or a broadcast layer. `layer`: of the layer that carries it, "" for
    none.
    """

    flow_id: int
    qos: QoSSpec
    side: int
    max_packet: int
    security: FlowSecurity | None = None
    suite: int = 0
    key: bytes = b""
    name: str = ""
    layer: str = ""

    def __repr__(self) -> str:
        # A message may end up in a log, and the key must not.
        return f"<Granted flow {self.flow_id}, side {self.side}{', encrypted' if self.security else ''}>"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("flow_id", self.flow_id), ("side", self.side), ("security", self.security)]


# --- entries of listings


class NameEntry(msgspec.Struct, frozen=True):
    name: str
    policy: str
    programs: list[str]
    processes: list[int]
    layers: list[str]


class LocalDetails(msgspec.Struct, frozen=True, tag="local"):
    """`impair`: what happens to packets of an impaired layer, and to how many of them."""

    impair: str = ""
    delivered: int = 0
    lost: int = 0
    duplicated: int = 0
    reordered: int = 0


class PortDetails(msgspec.Struct, frozen=True, tag="port"):
    """Of a layer over UDP or on an Ethernet segment. `impair`: what happens to packets, "" when nothing does."""

    impair: str = ""
    address: str = ""
    peers: tuple[str, ...] = ()


class ConnectionEntry(msgspec.Struct, frozen=True):
    """A connection of a member with a neighbour. `component`: as of `ConnectIpcp`, or "Enrollment". `name`: of the other,
    or what was asked for. `peer`: as of `FlowEntry`. `state`: "up", "silent" or "missing": it is asked for again. `since`:
    when it came to be, seconds of the monotonic clock of its host; 0 for one that is missing. `over`: the layer that carries
    it, or is to."""

    component: str
    name: str
    address: str
    peer: str
    state: str
    since: float
    over: str = ""


class RouteEntry(msgspec.Struct, frozen=True):
    """The way to a member of a unicast layer. `via`: addresses of the neighbours that lead there, the first in use first."""

    address: str
    hops: int
    via: tuple[str, ...]
    peer: str


class UnicastDetails(msgspec.Struct, frozen=True, tag="unicast"):
    """`registered`: names of this node in the layer. `kept`: how many names of others the member keeps for the layer.
    `enroll`: who may become a member."""

    address: str = ""
    connections: tuple[ConnectionEntry, ...] = ()
    routes: tuple[RouteEntry, ...] = ()
    registered: tuple[str, ...] = ()
    kept: int = 0
    enroll: tuple[str, ...] = ()


class BroadcastDetails(msgspec.Struct, frozen=True, tag="broadcast"):
    """`members`: of this node. `lost`: packets, by member. `connections`: with members on other nodes. `address`: by which
    those know it."""

    members: int = 0
    lost: int = 0
    address: str = ""
    connections: tuple[ConnectionEntry, ...] = ()


Details = LocalDetails | BroadcastDetails | PortDetails | UnicastDetails

#: Fields of details that a type does not have.
_ABSENT = {field: value for kind in get_args(Details) for field, value in msgspec.structs.asdict(kind()).items()}


class IpcpEntry(msgspec.Struct, frozen=True):
    """`state`: "boot" before it is bootstrapped, then "operational", and "opening" in between; `layer` is empty before. One
    that is dead is "failed: " and the reason. `details`: what its type has to say. Their fields can be read here, too; those
    of another type are at their defaults."""

    id: int
    name: str
    type: str
    state: str
    layer: str
    hash: str
    details: Details | None = None
    counters: dict[str, int] = {}

    def __getattr__(self, field: str) -> Any:  # noqa: ANN401
        if field not in _ABSENT:
            raise AttributeError(f"IpcpEntry has no field {field!r}")
        return getattr(self.details, field, _ABSENT[field])


def with_counters(entry: IpcpEntry, counted: Mapping[str, int]) -> IpcpEntry:
    """The entry with what the engine has counted: where its type shows that, or else among its counters."""
    details = entry.details
    if details is not None and (shown := set(details.__struct_fields__) & set(counted)):
        details = msgspec.structs.replace(details, **{field: counted[field] for field in shown})
        return msgspec.structs.replace(entry, details=details)
    return msgspec.structs.replace(entry, counters={**entry.counters, **counted})


class FlowEntry(msgspec.Struct, frozen=True):
    """`pids`: of the allocator and the acceptor; 0 for the node itself (a broadcast layer) and for a program elsewhere.

    `layer`: as of `Granted`. `address`: of a flow with another node. `peer`: "" for a flow on this node, else "node" for one
    of ours and "prototype" for a node of the C prototype. `counters`: what the engine counts.
    """

    id: int
    name: str
    pids: tuple[int, int]
    qos: QoSSpec
    layer: str = ""
    address: str = ""
    peer: str = ""
    counters: dict[str, int] = {}


class HopEntry(msgspec.Struct, frozen=True):
    """What is at a hop of a way. `within`: the hops of the layers above that it is a part of, the uppermost first. `hop`:
    how many hops of its layer it is away; 0 for this node. `layer`, `type`, `rank`, `member`, `address`: what it says of
    itself, or what is known. `state`: "answered"; "silent" when nothing came in time; "unasked" where nobody can be asked.
    `round_trip`: seconds, from the member where the way of that layer begins; None: not known."""

    hop: int
    layer: str
    type: str
    rank: int = 0
    member: str = ""
    address: str = ""
    state: str = "answered"
    round_trip: float | None = None
    within: tuple[int, ...] = ()


class OfferEntry(msgspec.Struct, frozen=True, order=True):
    """A layer that another node offers to newcomers. `member`: the name to enroll with. `over`: the layer by which it said
    so, `station`: where it is there."""

    type: str
    layer: str
    member: str
    over: str
    station: str

    def __str__(self) -> str:
        return f"{self.type} layer {self.layer!r} by {self.member!r} at {self.station} in {self.over!r}"


class ShareEntry(msgspec.Struct, frozen=True):
    """The share of a user other than the owner in a node. `kind`: as in `control.shares`. `limit`: its share. `refused`:
    how often it wanted more."""

    user: int
    kind: str
    held: int
    limit: int
    refused: int = 0


class NodeEntry(msgspec.Struct, frozen=True):
    """`shares`: of the user who asks; the owner sees those of all."""

    version: str
    pid: int
    embedded: bool
    runtime_dir: str
    processes: int
    flows: int
    names: int
    shares: list[ShareEntry] = []


Request = (
    Hello
    | Alloc
    | Accept
    | Join
    | Capture
    | Dealloc
    | CreateName
    | DestroyName
    | ListNames
    | RegisterName
    | UnregisterName
    | BindProgram
    | UnbindProgram
    | BindProcess
    | UnbindProcess
    | CreateIpcp
    | BootstrapIpcp
    | ImpairIpcp
    | ChangePeers
    | KeepAliveIpcp
    | EnrollIpcp
    | ConnectIpcp
    | DisconnectIpcp
    | DestroyIpcp
    | ProbeName
    | DiscoverLayers
    | ListIpcps
    | ListFlows
    | Save
    | NodeInfo
)
#: What is answered by a flow.
FlowRequest = Alloc | Accept | Join | Capture
Answer = Done | Failed | Granted

_T = TypeVar("_T")
_PREFIX = struct.Struct(">I")
#: Bytes in which the type of a message is.
_KIND = 32


def _plain(value: Any) -> str | int:  # noqa: ANN401
    """Convert values for msgspec: text of a subclass of `str`, whole numbers of types that are not Python's."""
    return plain_text(value) if isinstance(value, str) else whole_number(value)


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_request_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_answer_decoder: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def encode(message: Request | Answer) -> bytes:
    """The message as it goes over the socket, length in front."""
    body = _encoder.encode(message)
    return _PREFIX.pack(len(body)) + body


def decode_request(body: bytes) -> Request:
    """Parse a request; raise `ProtocolError` when it is none, `IpcpBootstrapError` for settings that no layer can have."""
    try:
        return _decode(_request_decoder, body)
    except ProtocolError as error:
        # Settings check themselves, and nothing else in that request does.
        wrong = error.__cause__ and error.__cause__.__cause__
        if wrong is not None and BootstrapIpcp.__name__.encode() in body[:_KIND]:
            raise IpcpBootstrapError(str(wrong)) from error
        raise


def decode_answer(body: bytes) -> Answer:
    """Parse an answer; raise `ProtocolError` when it is none."""
    return _decode(_answer_decoder, body)


def _decode(decoder: msgspec.msgpack.Decoder[_T], body: bytes) -> _T:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError) as error:
        raise ProtocolError(f"not a control message: {error}") from error


class MessageReader:
    """Cuts a byte stream into message bodies. Feed bytes with `feed`, take bodies with `next`."""

    __slots__ = ("_buffer", "_limit", "missing")

    def __init__(self, limit: int = MESSAGE_LENGTH) -> None:
        self._buffer = bytearray()
        self._limit = limit
        #: When there is no next message: bytes that are missing of it, or, before it is known, of its length.
        self.missing = _PREFIX.size

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> bytes | None:
        """The next whole body, or None; raise `ProtocolError` when the announced length is over the limit."""
        there, end = len(self._buffer), _PREFIX.size
        if there >= end:
            (length,) = _PREFIX.unpack_from(self._buffer)
            if length > self._limit:
                raise ProtocolError(f"control message of {length} bytes announced; the limit is {self._limit}")
            end += length
        if there < end:
            self.missing = end - there
            return None
        body = bytes(self._buffer[_PREFIX.size : end])
        del self._buffer[:end]
        return body
