"""Greetings of two members at the start of a lower flow, and objections to a connection (CEP).

Source: `unicast-control.md` 2. The acceptor of the C prototype compares nothing, so all of its checks are here as well.
"""

from __future__ import annotations

import msgspec

from ouroboros.errors import ProtocolError
from ouroboros.layers.members.core import NOWHERE, Core
from ouroboros.qos import QoSSpec
from ouroboros.wire.unicast import cep
from ouroboros.wire.unicast.cep import MOST_RANK, UNKNOWN, Cep, Ours

ENROLLMENT = "Enrollment"
MANAGEMENT = "Management"
DATA_TRANSFER = "Data Transfer"

#: Addresses below freeze members of the C prototype (`unicast-control.md` 10, N43).
LEAST_ADDRESS = 65_536

RAW_ONLY = (
    "data transfer with a member of the C prototype goes over raw flows only, of another it dies; with a node of ours, "
    "connect Management first"
)

#: The first byte of each greeting that we send: a field of bytes with the number 1.
_FIRST = b"\x0a"


class _Protocol(msgspec.Struct, frozen=True):
    """The protocol of a component. `placed`: a greeting tells the address of the sender."""

    name: str
    version: int
    syntax: int
    placed: bool = True


_PROTOCOLS = {
    ENROLLMENT: _Protocol("OEP", 1, 0, placed=False),
    MANAGEMENT: _Protocol("LSP", 1, 0),
    DATA_TRANSFER: _Protocol("dtp", 1, 2),
}


class Objection(msgspec.Struct, frozen=True):
    """Why there is no connection. `flag`: that of the answer to a peer of ours, 0 for none."""

    why: str
    flag: int = 0


#: In a broadcast layer there are no routes, and packets have no header. Addresses are of use to members of ours only.
_BROADCAST_PROTOCOLS = {ENROLLMENT: _PROTOCOLS[ENROLLMENT], DATA_TRANSFER: _Protocol("", 0, 0)}


def _protocols(core: Core) -> dict[str, _Protocol]:
    return _BROADCAST_PROTOCOLS if core.broadcast else _PROTOCOLS


def components(core: Core) -> tuple[str, ...]:
    """What there is to connect."""
    return tuple(_protocols(core))


def is_placed(component: str) -> bool:
    return _PROTOCOLS[component].placed


def greet(core: Core, component: str, rank: int, flags: int = 0, request: bytes = b"") -> Cep:
    """Our greeting for a component. `request`: the id of a request to enroll, for members of ours."""
    protocol = _protocols(core)[component]
    address = core.address if protocol.placed else NOWHERE
    return Cep(component, protocol.name, protocol.version, protocol.syntax, address, _ours(core, rank, flags, request))


def refuse(core: Core, rank: int, flags: int) -> Cep:
    """The answer when there is no connection: a requester of the C prototype fails cleanly."""
    return msgspec.structs.replace(UNKNOWN, ours=_ours(core, rank, flags))


def _ours(core: Core, rank: int, flags: int, request: bytes = b"") -> Ours:
    return Ours(flags, rank, core.node, core.name, request=request)


def parting(data: bytes) -> Cep | None:
    """The message of a neighbour that leaves, or that cannot have us since another has our address. It comes over
    management, among link states, which begin with 0, or in a broadcast layer among packets, as a word
    (docs/protocol/broadcast.md)."""
    if data[:1] != _FIRST:
        return None
    try:
        said = cep.decode(data)
    except ProtocolError:
        return None
    return said if said.ours is not None and said.ours.flags & (cep.LEAVING | cep.TAKEN) else None


def is_raw(qos: QoSSpec) -> bool:
    """Whether data transfer with a member of the prototype can go over a flow with that QoS."""
    return not qos.ordered and qos.ber != 0


def objection(core: Core, component: str, said: Cep, rank: int) -> Objection | None:
    """The objection to a connection of our component with the sender of that greeting; None: there is none."""
    own = greet(core, component, rank)
    if said.ours is not None and said.ours.node == core.node:
        return Objection("the name leads to this IPC process itself")
    if said == UNKNOWN or (said.ours is not None and not said.component):
        return _refusal(component, said)
    theirs = (said.component, said.protocol, said.version, said.syntax)
    if theirs != (own.component, own.protocol, own.version, own.syntax):
        return Objection(
            f"it speaks {said.protocol!r} {said.version} for {said.component!r} with syntax {said.syntax}, and we "
            f"{own.protocol!r} {own.version} for {own.component!r} with syntax {own.syntax}"
        )
    if said.ours is not None and max(rank, said.ours.rank) > MOST_RANK:
        return Objection(
            f"there would be more than {MOST_RANK} layers over one another (ours is number {rank}, the peer's "
            f"{said.ours.rank}): is one of the layers below over this one?",
            cep.DEEP,
        )
    return _misplaced(core, said) if is_placed(component) else None


def _misplaced(core: Core, said: Cep) -> Objection | None:
    if core.broadcast and said.ours is None:
        return None
    if said.address < LEAST_ADDRESS:
        return Objection(f"it says that its address is {said.address}; members have addresses from {LEAST_ADDRESS} on")
    if said.address == core.address:
        return Objection("it has the same address as this IPC process", cep.TAKEN)
    return None


def _refusal(component: str, said: Cep) -> Objection:
    flags = 0 if said.ours is None else said.ours.flags
    if flags & cep.TAKEN:
        return Objection("our address is that of another member", cep.TAKEN)
    if flags & cep.DEEP:
        return Objection(f"there would be more than {MOST_RANK} layers over one another", cep.DEEP)
    if flags & cep.STRANGE:
        return Objection("the layer takes only members that prove who they are, and this one may not be among them")
    return Objection(f"the IPC process there refuses it, or has no component {component!r}")
