"""What programs and the node say to each other over the control socket: one schema, one version.

Each message is a msgpack array (`msgspec`, tagged by type) behind a 4-byte big-endian length. A connection carries one
request at a time: `Hello` first, then requests, each answered by `Done`, `Failed` or `Granted`. The exceptions are
`Dealloc`, which has no answer, and hanging up, which cancels the request that is waiting. A connection that hangs up right
after a `Granted` gives the flow back: nobody took it.
"""

from __future__ import annotations

import struct
from typing import Any, TypeVar

import msgspec

from ouroboros.errors import ProtocolError
from ouroboros.qos import QoSSpec
from ouroboros.security import FlowSecurity

#: Raised by one whenever a message changes; a node answers a client of another version with `Failed`. The client of C
#: programs, `rust/client/src/message.rs`, has the same number.
VERSION = 4

#: Names, layers and programs are at most this many bytes of UTF-8 (C prototype: 255).
NAME_LENGTH = 255

#: The largest answer, bytes. A list of 100 000 names fits.
MESSAGE_LENGTH = 64 << 20

#: The largest request, bytes.
REQUEST_LENGTH = 256 << 10

#: IPC processes live inside the node. Their ids start above any pid that Linux gives (2**22).
FIRST_IPCP_ID = (1 << 22) + 1


class _Message(msgspec.Struct, frozen=True, array_like=True, tag=True, tag_field="kind"):
    pass


# --- requests: flows


class Hello(_Message, frozen=True):
    """Who is calling. The pid is taken from the socket, never from the message. `instance`: a number that is the same for
    all callers in a process, and another one after a fork or an exec, which keep the pid or the program."""

    version: int
    program: str
    instance: int


class Alloc(_Message, frozen=True):
    """Ask for a flow to a name. `timeout`: seconds to wait for an acceptor, None for the node's default."""

    name: str
    qos: QoSSpec
    timeout: float | None


class Accept(_Message, frozen=True):
    """Wait for a flow to a name bound to this process; with `name`, bind it first. `timeout` None: no limit."""

    name: str | None
    timeout: float | None


class Join(_Message, frozen=True):
    """Join the broadcast layer of that name."""

    layer: str
    qos: QoSSpec
    timeout: float | None


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


class UdpOptions(msgspec.Struct, frozen=True, array_like=True):
    """Settings of a UDP layer. `ip`: our address. `dns`: a name server, which is refused unless it stands for none.
    `peers`: where names are, as `NAME@ADDRESS` or `NAME@ADDRESS:PORT`."""

    ip: str
    port: int = 3435
    dns: str = ""
    peers: list[str] = []


class BootstrapIpcp(_Message, frozen=True):
    """`hash`: directory hash, "SHA3_224" to "SHA3_512". `impair`: what happens to the packets of a local or UDP layer, in
    the words of `control.impairment`; None for none, ever. `udp`: for the types over UDP. Answered by the id."""

    ipcp: int
    layer: str
    hash: str
    impair: str | None = None
    udp: UdpOptions | None = None


class ImpairIpcp(_Message, frozen=True):
    """Change what happens to the packets of a local or UDP layer, in the words of `control.impairment`."""

    ipcp: int
    impair: str


class ChangePeers(_Message, frozen=True):
    """Change where a UDP layer looks for names: entries as in `UdpOptions.peers`. All of it is done, or nothing."""

    ipcp: int
    add: list[str]
    remove: list[str]


class DestroyIpcp(_Message, frozen=True):
    ipcp: int


class ListIpcps(_Message, frozen=True):
    """Answered by a list of `IpcpEntry`."""


class ListFlows(_Message, frozen=True):
    """Answered by a list of `FlowEntry`."""


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
    32 bytes.
    """

    flow_id: int
    qos: QoSSpec
    side: int
    max_packet: int
    security: FlowSecurity | None = None
    suite: int = 0
    key: bytes = b""

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


class IpcpEntry(msgspec.Struct, frozen=True):
    """`state`: "boot" before it is bootstrapped, then "operational", and "opening" in between; `layer` is empty before.
    `lost`: packets, by member. `impair`: what happens to packets, "" when they go directly; the counts behind it are of
    packets of such a layer. `address`, `peers`, `counters`: of a layer over UDP."""

    id: int
    name: str
    type: str
    state: str
    layer: str
    hash: str
    members: int = 0
    lost: int = 0
    impair: str = ""
    delivered: int = 0
    duplicated: int = 0
    reordered: int = 0
    address: str = ""
    peers: list[str] = []
    counters: dict[str, int] = {}


class FlowEntry(msgspec.Struct, frozen=True):
    """`pids`: of the allocator and the acceptor; 0 for the node itself (a broadcast layer) and for a program elsewhere.

    `layer`, `address`: of a flow with another node. `peer`: "" for a flow on this node, else "node" for one of ours and
    "prototype" for a node of the C prototype. `counters`: what the engine counts.
    """

    id: int
    name: str
    pids: tuple[int, int]
    qos: QoSSpec
    layer: str = ""
    address: str = ""
    peer: str = ""
    counters: dict[str, int] = {}


class NodeEntry(msgspec.Struct, frozen=True):
    version: str
    pid: int
    embedded: bool
    runtime_dir: str
    processes: int
    flows: int
    names: int


Request = (
    Hello
    | Alloc
    | Accept
    | Join
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
    | DestroyIpcp
    | ListIpcps
    | ListFlows
    | NodeInfo
)
Answer = Done | Failed | Granted

_T = TypeVar("_T")
_PREFIX = struct.Struct(">I")
_encoder = msgspec.msgpack.Encoder()
_request_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_answer_decoder: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def encode(message: Request | Answer) -> bytes:
    """The message as it goes over the socket, length in front."""
    body = _encoder.encode(message)
    return _PREFIX.pack(len(body)) + body


def decode_request(body: bytes) -> Request:
    """Parse a request; raise `ProtocolError` when it is none."""
    return _decode(_request_decoder, body)


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

    __slots__ = ("_buffer", "_limit")

    def __init__(self, limit: int = MESSAGE_LENGTH) -> None:
        self._buffer = bytearray()
        self._limit = limit

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> bytes | None:
        """The next whole body, or None; raise `ProtocolError` when the announced length is over the limit."""
        if len(self._buffer) < _PREFIX.size:
            return None
        (length,) = _PREFIX.unpack_from(self._buffer)
        if length > self._limit:
            raise ProtocolError(f"control message of {length} bytes announced; the limit is {self._limit}")
        end = _PREFIX.size + length
        if len(self._buffer) < end:
            return None
        body = bytes(self._buffer[_PREFIX.size : end])
        del self._buffer[:end]
        return body
