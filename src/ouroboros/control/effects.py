"""What the IRM wants done in the world. The runtime carries these out in order."""

from __future__ import annotations

import msgspec

from ouroboros.control.impairment import Impairment
from ouroboros.control.messages import Answer
from ouroboros.qos import QoSSpec


class Reply(msgspec.Struct, frozen=True):
    """Answer the request that waits under `token`."""

    token: int
    message: Answer


class Connect(msgspec.Struct, frozen=True):
    """Make a flow between two waiting requests: side 0 goes to `allocator`, side 1 to `acceptor`."""

    flow_id: int
    qos: QoSSpec
    allocator: int
    acceptor: int


class Relay(msgspec.Struct, frozen=True):
    """As `Connect`, but the flow goes through the relay of the impaired layer of `ipcp`, with a channel for each side."""

    flow_id: int
    qos: QoSSpec
    allocator: int
    acceptor: int
    ipcp: int


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
    """A local layer is impaired from now on, or in another way: start its relay if it has none."""

    ipcp: int
    impairment: Impairment


class StopLayer(msgspec.Struct, frozen=True):
    """A broadcast or an impaired layer ends: its flows go down."""

    ipcp: int


Effect = Reply | Connect | Relay | Join | MarkDead | Release | StartProgram | StartLayer | Impair | StopLayer
