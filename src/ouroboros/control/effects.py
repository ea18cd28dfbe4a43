"""What the IRM wants done in the world. The runtime carries these out in order."""

from __future__ import annotations

import msgspec

from ouroboros.control.impairment import Impairment
from ouroboros.control.messages import Answer
from ouroboros.control.oap import Session
from ouroboros.qos import QoSSpec
from ouroboros.wire.extension import Extension

#: Address and port of a node on an IP network.
Address = tuple[str, int]


class Reply(msgspec.Struct, frozen=True):
    """Answer the request that waits under `token`."""

    token: int
    message: Answer


class Warn(msgspec.Struct, frozen=True):
    """Tell whoever looks after the node; `text` may quote what a peer sent, so it is not to be trusted."""

    text: str


class Connect(msgspec.Struct, frozen=True):
    """Make a flow between two waiting requests: side 0 goes to `allocator`, side 1 to `acceptor`.

    `sessions`: of the two sides, whose programs encrypt; None for plaintext.
    """

    flow_id: int
    qos: QoSSpec
    allocator: int
    acceptor: int
    sessions: tuple[Session, Session] | None = None


class Relay(msgspec.Struct, frozen=True):
    """As `Connect`, but the flow goes through the relay of the impaired layer of `ipcp`, with a channel for each side."""

    flow_id: int
    qos: QoSSpec
    allocator: int
    acceptor: int
    ipcp: int
    sessions: tuple[Session, Session] | None = None


class Join(msgspec.Struct, frozen=True):
    """Make a flow between a waiting request (side 0) and the broadcast worker of an IPC process."""

    flow_id: int
    qos: QoSSpec
    ipcp: int
    token: int


class MarkDead(msgspec.Struct, frozen=True):
    """The process behind `side` of the flow died: tell the other side, for a relayed one by the relay of `ipcp`."""

    flow_id: int
    side: int
    ipcp: int | None = None


class Release(msgspec.Struct, frozen=True):
    """Nobody uses the flow any more; for a joined or relayed one, take it out of the layer of `ipcp`."""

    flow_id: int
    ipcp: int | None = None


class StartProgram(msgspec.Struct, frozen=True):
    """Start a program because somebody wants a flow to `name`. Report its end with `FlowManager.program_ended`."""

    path: str
    args: list[str]
    name: str


class StartLayer(msgspec.Struct, frozen=True):
    """A broadcast layer begins: start its worker."""

    ipcp: int


class Impair(msgspec.Struct, frozen=True):
    """A local or UDP layer is impaired from now on, or in another way: start its relay if it has none."""

    ipcp: int
    impairment: Impairment


class StopLayer(msgspec.Struct, frozen=True):
    """A broadcast, an impaired or a UDP layer ends: its flows go down."""

    ipcp: int


# --- layers over UDP: endpoint ids are those of the layer of `ipcp`


class OpenLayer(msgspec.Struct, frozen=True):
    """A UDP layer begins: open its socket. Answered by `Irm.layer_opened` or `Irm.layer_failed`.

    `family`: "udp4" or "udp6". `address` and `port`: our own.
    """

    ipcp: int
    family: str
    address: str
    port: int


class Resolve(msgspec.Struct, frozen=True):
    """Look a host name up. Answered by `Irm.resolved` with the `token` and the addresses, none when there are none."""

    ipcp: int
    token: int
    host: str
    family: str


class SendManagement(msgspec.Struct, frozen=True):
    """Send a management datagram. `data`: all of it, the endpoint id 0 included."""

    ipcp: int
    address: Address
    data: bytes


class Reserve(msgspec.Struct, frozen=True):
    """Packets for `eid` that come from `address` are kept, a few of them, until `Attach` or `Unreserve`."""

    ipcp: int
    eid: int
    address: Address


class Unreserve(msgspec.Struct, frozen=True):
    """Nothing is expected for `eid` any more."""

    ipcp: int
    eid: int


class Attach(msgspec.Struct, frozen=True):
    """Make a flow between a waiting request and a peer on another node; its end is told by `Irm.flow_ended`.

    `side`: of the local program; 0 it allocated, 1 it accepted. `eid`: ours. `extension`: what both sides can do, None for a
    node of the C prototype. `session`: the keys, None when the flow is not encrypted.
    """

    flow_id: int
    qos: QoSSpec
    token: int
    side: int
    ipcp: int
    eid: int
    peer_eid: int
    address: Address
    extension: Extension | None
    session: Session | None


class PeerGone(msgspec.Struct, frozen=True):
    """The peer deallocated, or `died`: what it sent is delivered, then the program is told."""

    ipcp: int
    eid: int
    died: bool


Effect = (
    Reply
    | Warn
    | Connect
    | Relay
    | Join
    | MarkDead
    | Release
    | StartProgram
    | StartLayer
    | Impair
    | StopLayer
    | OpenLayer
    | Resolve
    | SendManagement
    | Reserve
    | Unreserve
    | Attach
    | PeerGone
)
