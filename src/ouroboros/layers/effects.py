"""Effects: orders of the IRM and its IPC processes to the world. The runtime carries them out in order.

Endpoint ids are those of the layer of `ipcp`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import msgspec

from ouroboros.layers.face import MPL, UNICAST_MPL, End, Size
from ouroboros.layers.impairment import Impairment
from ouroboros.oap import Session
from ouroboros.qos import QoSSpec
from ouroboros.wire.control import Answer
from ouroboros.wire.extension import Extension

#: Address and port of a node on an IP network; or the address of a device on an Ethernet segment, and the SAP there or 0.
Address = tuple[str, int]
#: Where a peer is: its address, or the number of the lower flow that leads to it.
Where = Address | int


class Member(msgspec.Struct, frozen=True):
    """An IPC process as the user of an end, which it knows by the number `fd`."""

    ipcp: int
    fd: int


#: The user of an end: a program, by the token of its request, or an IPC process.
User = int | Member


class RemoteEnd(End, frozen=True, kw_only=True):
    """Our end of a flow with another node. `eid`: ours. `extension`: what both can do, None for the C prototype. `grace`:
    milliseconds for the first packet of a peer of which nothing has proven yet that it is there; 0 for others."""

    eid: int
    peer_eid: int
    address: Where
    extension: Extension | None
    grace: int = 0

    #: How long a packet may live in the layer, nanoseconds.
    mpl: ClassVar[int] = MPL

    @property
    def place(self) -> tuple[Where, int]:
        """Where its packets go, and their endpoint id, in the words of the engine."""
        return self.address, self.peer_eid

    def can(self, flag: int) -> bool:
        return self.extension is not None and self.extension.has(flag)


class UnicastEnd(RemoteEnd, frozen=True, kw_only=True):
    """Our end of a flow with another member of a unicast layer. `address`: of that member. Endpoint ids have 64 bits.
    `cube`: in which its packets travel."""

    address: int
    cube: int = 0

    mpl = UNICAST_MPL

    @property
    def destination(self) -> int:
        """Where its packets go."""
        return self.address

    def peer(self) -> tuple[str, str]:
        return written_address(self.address), "prototype" if self.extension is None else "node"


def written_address(address: int) -> str:
    """An address of a unicast layer as people write it, the first byte on the wire first (`unicast-data.md` 2.1)."""
    return address.to_bytes(4, "little").hex(".")


# --- what the node does, for programs and for people


class Reply(msgspec.Struct, frozen=True):
    """Answer the request that waits under `token`."""

    token: int
    message: Answer


class Warn(msgspec.Struct, frozen=True):
    """Tell the operator of the node; `text` may quote a peer, so it is not to be trusted.

    `error`: something of the node itself broke. `user`: of the program that caused it, None for none.
    """

    text: str
    error: bool = False
    user: int | None = None


class StartProgram(msgspec.Struct, frozen=True):
    """Start a program because somebody wants a flow to `name`. Report its end with `FlowManager.program_ended`."""

    path: str
    args: list[str]
    name: str


# --- what the engine does with flows


class Connect(msgspec.Struct, frozen=True):
    """Make a flow between two waiting requests: side 0 goes to `allocator`, side 1 to `acceptor`.

    `name`: what was asked for. `sessions`: of the two sides, whose programs encrypt; None for plaintext. `layer`: in which
    the name was found, "" for none.
    """

    flow_id: int
    name: str
    qos: QoSSpec
    allocator: int
    acceptor: int
    sessions: tuple[Session, Session] | None = None
    layer: str = ""


class Loop(msgspec.Struct, frozen=True):
    """As `Connect`, but the flow goes through the engine: over the impaired layer of `ipcp`, or, for None, with nothing
    between its ends. `users`: of side 0 and side 1. `sessions`, `layer`: as of `Connect`; sessions of IPC processes are the
    engine's. `accounts`: what pays for the memory of each end, by number, and the bytes that all flows of an account have
    together."""

    flow_id: int
    name: str
    qos: QoSSpec
    users: tuple[User, User]
    ipcp: int | None
    sessions: tuple[Session, Session] | None = None
    layer: str = ""
    accounts: tuple[Mapping[int, int], Mapping[int, int]] = ({}, {})


class Join(msgspec.Struct, frozen=True):
    """Make a flow between a waiting request (side 0) and the broadcast member of an IPC process, or, with `snap`, one that
    brings copies of so many bytes of each packet that the member sends and gets. `name`: of the layer."""

    flow_id: int
    name: str
    qos: QoSSpec
    ipcp: int
    token: int
    snap: int | None = None


class Attach(msgspec.Struct, frozen=True):
    """Make a flow between a user of this node and a peer elsewhere in the layer; its end is told by `Irm.flow_ended`.

    `name`: what was asked for. `side`: of the user; 0 it allocated, 1 it accepted. `end`: ours, as its IPC process gave it.
    `layer`: the one that carries it. `accounts`: as of `Loop`.
    """

    flow_id: int
    name: str
    user: User
    side: int
    end: End
    layer: str = ""
    accounts: Mapping[int, int] = {}

    @property
    def ipcp(self) -> int:
        return self.end.ipcp


class EndFlow(msgspec.Struct, frozen=True):
    """An IPC process lets go of its end: what it sent is delivered. Answered by `Irm.end_over`, unless the end was never
    made or is over."""

    flow_id: int
    side: int


class MarkDead(msgspec.Struct, frozen=True):
    """The process behind `side` of the flow died, or never got its end: tell the other side.

    `ipcp`: what carries the flow; None when nothing does, or when it is joined.
    """

    flow_id: int
    side: int
    ipcp: int | None = None


class Release(msgspec.Struct, frozen=True):
    """Nobody uses the flow any more, and the engine is done with the ends of IPC processes. `ipcp`: what carries it, or what
    it is joined to; None when nothing is between its ends."""

    flow_id: int
    ipcp: int | None = None


class PeerGone(msgspec.Struct, frozen=True):
    """The peer deallocated, or `died`: what it sent is delivered, then the program is told."""

    ipcp: int
    eid: int
    died: bool


class ResizeWay(msgspec.Struct, frozen=True):
    """Of packets to a member of a unicast layer. Flows to there carry no longer ones from now on, and at the most those that
    they carried at first; None: nothing is known of the way."""

    ipcp: int
    destination: int
    size: Size | None


class Reserve(msgspec.Struct, frozen=True):
    """Packets for `eid` that come from `where` are kept, a few of them, until `Attach` or `Unreserve`. In a unicast layer
    they do not tell where they come from, and all are."""

    ipcp: int
    eid: int
    where: Where


class Unreserve(msgspec.Struct, frozen=True):
    """Nothing is expected for `eid` any more."""

    ipcp: int
    eid: int


# --- what the engine does with members of layers


class OpenBroadcast(msgspec.Struct, frozen=True):
    """Have a member of a broadcast layer, for the first time or after it failed. It ends with `CloseMember`."""

    ipcp: int


class OpenPort(msgspec.Struct, frozen=True):
    """Have a member of a layer over UDP or on an Ethernet segment, for the first time or after it failed, and open its
    socket. Answered by `Irm.member_opened` or `Irm.member_failed`. It ends with `CloseMember`.

    `family`: "udp4" or "udp6"; `address` and `port`: our own. Or "eth-dix" or "eth-llc": `address` is the device, `port` the
    ethertype of DIX.
    """

    ipcp: int
    family: str
    address: str
    port: int


class OpenMember(msgspec.Struct, frozen=True):
    """Have a member of a layer over lower flows, each packet of which begins with an endpoint id of 4 bytes. It ends with
    `CloseMember`."""

    ipcp: int


class _Transfer(msgspec.Struct, frozen=True):
    """Settings of a member of a unicast layer in the engine. `max_ttl`: of packets that it sends. `ecn`: it marks packets,
    and heeds marks."""

    ipcp: int
    address: int
    max_ttl: int
    ecn: bool


class OpenTransfer(_Transfer, frozen=True):
    """A unicast layer begins, or begins again after its part in the engine failed: the engine has a member of it. It ends
    with `CloseMember`."""


class SetAddress(_Transfer, frozen=True):
    """The member has other settings from now on: enrollment told them."""


class Listen(msgspec.Struct, frozen=True):
    """All that came and comes by the lower flow `fd` is told by `Irm.message`. Before, the first packet is, and those that
    follow wait for this or for `HandOver`."""

    ipcp: int
    fd: int


class HandOver(msgspec.Struct, frozen=True):
    """From now on, the lower flow `fd` carries packets to and from the neighbour with that address: before others that do,
    as long as the neighbour is not silent on it. `ours`: it is a node of ours;
    packets to others keep a pace."""

    ipcp: int
    fd: int
    neighbour: int
    ours: bool


class TakeBack(msgspec.Struct, frozen=True):
    """Nothing is sent by the lower flow `fd` any more. What arrives there is taken until it ends."""

    ipcp: int
    fd: int


class Route(msgspec.Struct, frozen=True):
    """The ways to all destinations, instead of those before. `table`: up to eight neighbours for each, by address, of which
    the first that is up is used. `spread`: all that are up are, each for some flows, but for those behind a 0, for when no
    other is up."""

    ipcp: int
    table: dict[int, tuple[int, ...]]
    spread: bool


class SendMessage(msgspec.Struct, frozen=True):
    """Send one packet by a lower flow that was not handed over."""

    ipcp: int
    fd: int
    data: bytes


class SendPdu(msgspec.Struct, frozen=True):
    """Send a packet to an endpoint of a member, by the ways of the layer. To ourselves, it comes back at once. `ttl`: lower
    flows that it may cross; 0: as many as the layer allows."""

    ipcp: int
    destination: int
    eid: int
    data: bytes
    ttl: int = 0


class Impair(msgspec.Struct, frozen=True):
    """Impair a member of a local or UDP layer from now on, or in another way. A local layer has one from then on."""

    ipcp: int
    impairment: Impairment


class CloseMember(msgspec.Struct, frozen=True):
    """The member of `ipcp` in the engine ends: its flows go down."""

    ipcp: int


class SendManagement(msgspec.Struct, frozen=True):
    """Send a management datagram. `data`: all of it, the endpoint id 0 included."""

    ipcp: int
    where: Where
    data: bytes


# --- what the machine is asked


class Remember(msgspec.Struct, frozen=True):
    """Keep this over an end of the node, and of the machine; the next one has it in `Host.memory`. No data: forget it."""

    name: str
    data: bytes


class Resolve(msgspec.Struct, frozen=True):
    """Look a host name up. Answered by `Irm.resolved` with the `token` and the addresses, none when there are none.

    `asked`: the token of the request that it is for, whose user's share it is of; others may come to wait for it, too.
    """

    ipcp: int
    token: int
    host: str
    family: str
    asked: int = 0


Effect = (
    Reply
    | Warn
    | StartProgram
    | Connect
    | Loop
    | Join
    | Attach
    | EndFlow
    | MarkDead
    | Release
    | PeerGone
    | ResizeWay
    | Reserve
    | Unreserve
    | OpenBroadcast
    | OpenPort
    | OpenMember
    | OpenTransfer
    | SetAddress
    | Listen
    | HandOver
    | TakeBack
    | Route
    | SendMessage
    | SendPdu
    | Impair
    | CloseMember
    | SendManagement
    | Resolve
    | Remember
)
