"""The three messages by which a newcomer gets the configuration of a layer (OEP). Source: `unicast-control.md` 3.

A member of the C prototype takes 1024 bytes, dies of a configuration with a part missing, and does not look at the values
in it: `decode` refuses what it would die of, and `encode` cannot make it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ouroboros._arguments import as_name
from ouroboros.errors import ProtocolError
from ouroboros.settings import (
    ANYONE,
    MTU,
    BroadcastSettings,
    DhtConfig,
    DirConfig,
    DirectoryHashAlgo,
    DtConfig,
    IpcpType,
    LinkStateConfig,
    RoutingConfig,
    UnicastConfig,
    UnicastSettings,
)
from ouroboros.wire.unicast import protobuf

#: A member of the C prototype cuts off what is longer.
LONGEST = 1024
ID_LENGTH = 8
#: Bytes of an address in the headers of a layer.
ADDRESS_SIZE = 4
#: Bytes of an endpoint id there.
EID_SIZE = 8

#: The `response` to a newcomer that is not wanted.
REFUSED = -1
#: The longest `reason` of a refusal, bytes.
_LONGEST_REASON = 512
_BILLION = 1_000_000_000


class Configuration(msgspec.Struct, frozen=True):
    """What all members of a layer have in common.

    `peer`: the address of the member that answers, where the directory is joined; None in a broadcast layer. `note`: what
    was said and is not taken at its word.
    """

    layer: str
    settings: UnicastSettings | BroadcastSettings
    peer: int | None
    note: str = ""


class Request(msgspec.Struct, frozen=True):
    """A newcomer asks. `id`: random, the same in all three messages."""

    id: bytes

    def encode(self) -> bytes:
        return protobuf.serialized(protobuf.make("EnrollRequest", id=protobuf.exactly("id", self.id, ID_LENGTH)))


class Response(msgspec.Struct, frozen=True):
    """`wall`: nanoseconds since 1970 at the member. `configuration`: None when the newcomer is refused, for a `reason`
    that members of the C prototype do not give and do not read."""

    id: bytes
    wall: int
    configuration: Configuration | None
    reason: str = ""

    def encode(self) -> bytes:
        seconds, nanoseconds = divmod(self.wall, _BILLION)
        message = protobuf.make(
            "EnrollResponse",
            id=protobuf.exactly("id", self.id, ID_LENGTH),
            seconds=seconds,
            nanoseconds=nanoseconds,
            response=REFUSED if self.configuration is None else 0,
        )
        if self.configuration is not None:
            message.configuration.CopyFrom(_configuration_message(self.configuration))
        elif self.reason:
            message.reason = self.reason.encode()[:_LONGEST_REASON]
        data = protobuf.serialized(message)
        if len(data) > LONGEST:
            raise ValueError(f"an enrollment response of {len(data)} bytes; a receiver takes {LONGEST}")
        return data


class Ack(msgspec.Struct, frozen=True):
    """The newcomer has what it needs. `result`: 0, or what went wrong at the newcomer."""

    id: bytes
    result: int = 0

    def encode(self) -> bytes:
        id = protobuf.exactly("id", self.id, ID_LENGTH)
        return protobuf.serialized(protobuf.make("EnrollAck", id=id, result=self.result))


def decode_request(data: bytes) -> Request:
    """Raises `ProtocolError` naming the field, as the others do."""
    return Request(protobuf.exactly("id", _parse("EnrollRequest", data).id, ID_LENGTH))


def decode_response(data: bytes) -> Response:
    message = _parse("EnrollResponse", data)
    id = protobuf.exactly("id", message.id, ID_LENGTH)
    if not 0 <= message.nanoseconds < _BILLION:
        raise ProtocolError(f"t_nsec: {message.nanoseconds} is no part of a second")
    wall = message.seconds * _BILLION + message.nanoseconds
    if message.response < 0:
        return Response(id, wall, None, message.reason.decode(errors="replace"))
    if not message.HasField("configuration"):
        raise ProtocolError("conf: missing, although the response is a welcome")
    return Response(id, wall, _configuration(message.configuration))


def decode_ack(data: bytes) -> Ack:
    message = _parse("EnrollAck", data)
    return Ack(protobuf.exactly("id", message.id, ID_LENGTH), message.result)


def _parse(name: str, data: bytes) -> Any:  # noqa: ANN401
    if len(data) > LONGEST:
        raise ProtocolError(f"length: {len(data)} bytes; an enrollment message has at most {LONGEST}")
    return protobuf.parse(name, data)


# --- the configuration: what is sent


def _configuration_message(said: Configuration) -> Any:  # noqa: ANN401
    settings = said.settings
    layer = protobuf.make("Layer", name=said.layer.encode(), dir_hash_algo=settings.dir_hash_algo)
    if isinstance(settings, BroadcastSettings):
        return protobuf.make("Configuration", layer=layer, type=IpcpType.BROADCAST)
    unicast = settings.unicast
    return protobuf.make(
        "Configuration",
        layer=layer,
        type=IpcpType.UNICAST,
        unicast=protobuf.make(
            "Unicast",
            dt=_transfer_message(unicast.dt),
            dir=_directory_message(unicast.dir, said.peer),
            addr_auth=unicast.addr_auth,
            cong_avoid=unicast.cong_avoid,
            # Only what a member of the prototype would not say.
            enroll=[] if unicast.enroll == (ANYONE,) else [name.encode() for name in unicast.enroll],
        ),
    )


def _transfer_message(dt: DtConfig) -> Any:  # noqa: ANN401
    ls = dt.routing.ls
    ls_message = protobuf.make(
        "LinkState", policy=ls.pol, t_recalc=ls.t_recalc, t_update=ls.t_update, t_timeo=ls.t_timeo
    )
    return protobuf.make(
        "DataTransfer",
        addr_size=dt.addr_size,
        eid_size=dt.eid_size,
        max_ttl=dt.max_ttl,
        routing=protobuf.make("Routing", policy=dt.routing.pol, ls=ls_message),
        mtu=None if dt.mtu == MTU else dt.mtu,
    )


def _directory_message(directory: DirConfig, peer: int | None) -> Any:  # noqa: ANN401
    if not peer:
        raise ValueError("the configuration of a unicast layer tells the address of the member that sends it")
    dht = directory.dht
    dht_message = protobuf.make(
        "HashTable",
        alpha=dht.alpha,
        k=dht.k,
        t_expire=dht.t_expire,
        t_refresh=dht.t_refresh,
        t_replicate=dht.t_replicate,
        peer=peer,
    )
    return protobuf.make("Directory", policy=directory.pol, dht=dht_message)


# --- the configuration: what is taken


def _configuration(message: Any) -> Configuration:  # noqa: ANN401
    name = as_name(protobuf.text("layer name", message.layer.name), "layer name", ProtocolError)
    try:
        if message.type == IpcpType.BROADCAST:
            return Configuration(name, BroadcastSettings(_hash(message)), None)
        if message.type != IpcpType.UNICAST:
            raise ProtocolError(f"ipcp_type: {message.type} is that of no layer in which one can enroll")
        unicast = _part(message, "unicast")
        dht = _part(unicast.dir, "dht")
        settings = UnicastSettings(_hash(message), unicast=_unicast(unicast, dht))
    except (ValueError, TypeError) as error:
        # The checks of the settings name the class and the field.
        raise ProtocolError(f"conf: {error}") from error
    return Configuration(name, settings, protobuf.address("peer", dht.peer), _note(unicast.dt))


def _hash(message: Any) -> DirectoryHashAlgo:  # noqa: ANN401
    return DirectoryHashAlgo(message.layer.dir_hash_algo)


def _part(message: Any, field: str) -> Any:  # noqa: ANN401
    if not message.HasField(field):
        raise ProtocolError(f"{field}: missing in the configuration")
    return getattr(message, field)


def _unicast(message: Any, dht: Any) -> UnicastConfig:  # noqa: ANN401
    if message.dt.addr_size != ADDRESS_SIZE:
        raise ProtocolError(f"addr_size: {message.dt.addr_size} bytes; flat addresses have {ADDRESS_SIZE}")
    ls = _part(message.dt.routing, "ls")
    return UnicastConfig(
        dt=DtConfig(
            addr_size=ADDRESS_SIZE,
            eid_size=EID_SIZE,
            max_ttl=message.dt.max_ttl,
            routing=RoutingConfig(
                message.dt.routing.policy, LinkStateConfig(ls.policy, ls.t_recalc, ls.t_update, ls.t_timeo)
            ),
            mtu=message.dt.mtu if message.dt.HasField("mtu") else MTU,
        ),
        dir=DirConfig(message.dir.policy, DhtConfig(dht.alpha, dht.k, dht.t_expire, dht.t_refresh, dht.t_replicate)),
        addr_auth=message.addr_auth,
        cong_avoid=message.cong_avoid,
        enroll=tuple(protobuf.text("enroll", name) for name in message.enroll) or (ANYONE,),
    )


def _note(dt: Any) -> str:  # noqa: ANN401
    if dt.eid_size == EID_SIZE:
        return ""
    return f"endpoint ids of {dt.eid_size} bytes are taken as {EID_SIZE}, as members of the C prototype do"
