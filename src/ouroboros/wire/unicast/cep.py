"""The message by which a connection over a lower flow begins, one each way (CEP). Source: `unicast-control.md` 2.

Nodes of ours know each other by field 100, which members of the C prototype skip:

======= ======== =========================================================================================
number  field    meaning
======= ======== =========================================================================================
1       version  1; later ones append fields
2       flags    what this message is, if it is no greeting: `LEAVING`, `TAKEN`, `DEEP`, `STRANGE`
3       rank     how many layers are below the sender's, itself counted: 1 over UDP; at most `MOST_RANK`
4       node     a random number of the member, the same for its whole life and after a restart
5       name     of the IPC process, for people; left out when it is longer than `NAME_LENGTH`
6       request  of a newcomer that enrolls: the id of its request, which this is; left out otherwise
======= ======== =========================================================================================
"""

from __future__ import annotations

from typing import Any

import msgspec

from ouroboros.errors import ProtocolError
from ouroboros.wire.unicast import protobuf
from ouroboros.wire.unicast.enrollment import ID_LENGTH

#: A member of the C prototype cuts off what is longer.
LONGEST = 128

VERSION = 1
#: Layers over layers go no deeper.
MOST_RANK = 8

#: Longer names are left out.
NAME_LENGTH = 48

#: The sender ends its connections to that component, because a person said so.
LEAVING = 1
#: Refused: the address is that of another member.
TAKEN = 2
#: Refused: layers are over layers more than `MOST_RANK` deep.
DEEP = 4
#: Refused: the requester has not proven that it may be in the layer.
STRANGE = 8


class Ours(msgspec.Struct, frozen=True):
    """What one node of ours tells another. `request`: the id of a request to enroll; empty if there is none."""

    flags: int
    rank: int
    node: int
    name: str = ""
    version: int = VERSION
    request: bytes = b""


class Cep(msgspec.Struct, frozen=True):
    """`address`: of the sender, 0 when it has none. `ours`: None for a member of the C prototype."""

    component: str
    protocol: str
    version: int
    syntax: int
    address: int
    ours: Ours | None = None

    def encode(self) -> bytes:
        """Raises `ValueError` for what a member of the C prototype cannot take."""
        message = protobuf.make(
            "Cep",
            component=self.component.encode(),
            protocol=self.protocol.encode(),
            version=self.version,
            syntax=self.syntax,
            address=self.address,
        )
        if self.ours is not None:
            message.ours.CopyFrom(_ours_message(self.ours))
        data = protobuf.serialized(message)
        if len(data) > LONGEST:
            raise ValueError(f"a CEP of {len(data)} bytes; a receiver takes {LONGEST}")
        return data


#: The answer to one that asks for a component which we do not have.
UNKNOWN = Cep("", "", 0, 0, 0)


def decode(data: bytes) -> Cep:
    """Raises `ProtocolError` naming the field."""
    if len(data) > LONGEST:
        raise ProtocolError(f"length: {len(data)} bytes; a CEP has at most {LONGEST}")
    message = protobuf.parse("Cep", data)
    if message.address > protobuf.MOST_ADDRESS:
        raise ProtocolError(f"address: {message.address} is none")
    return Cep(
        protobuf.text("component", message.component),
        protobuf.text("protocol", message.protocol),
        message.version,
        message.syntax,
        message.address,
        _ours(message.ours) if message.HasField("ours") else None,
    )


def _ours_message(ours: Ours) -> Any:  # noqa: ANN401
    message = protobuf.make("Ours", version=ours.version, flags=ours.flags, rank=ours.rank, node=ours.node)
    name = ours.name.encode()
    if 0 < len(name) <= NAME_LENGTH:
        message.name = name
    if ours.request:
        message.request = protobuf.exactly("request", ours.request, ID_LENGTH)
    return message


def _ours(message: Any) -> Ours | None:  # noqa: ANN401
    """None for a version that we cannot read."""
    if message.version < VERSION:
        return None
    name = protobuf.text("name", message.name)
    request = protobuf.exactly("request", message.request, ID_LENGTH) if message.request else b""
    shown = name if name.isprintable() else ""
    return Ours(message.flags, message.rank, message.node, shown, message.version, request)
