"""Layers that a station offers to newcomers: what follows the digest in its answer to the question which there are.

For each layer::

    type | length | name of the layer | length | name to enroll with
    0      1        2                   2 + n    3 + n

Lengths are bytes of UTF-8. `decode` takes the bytes of a stranger. docs/protocol/ethernet.md has the rest.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ouroboros._arguments import as_name
from ouroboros.errors import ProtocolError

#: In the place of a name, in the question. No name has this character in it, so no layer of the prototype has it.
QUESTION = "\0layers"
#: Types of layers by their numbers (`irm.md` 1.2).
_TYPES = {1: "unicast", 2: "broadcast"}
_NUMBERS = {type: number for number, type in _TYPES.items()}


class Offer(msgspec.Struct, frozen=True, order=True):
    """A layer that one can enroll in, with whoever has the name `member`."""

    type: str
    layer: str
    member: str


def encode(offers: Iterable[Offer], room: int) -> bytes:
    """As many of them as fit in so many bytes."""
    data = b""
    for offer in offers:
        names = (name.encode() for name in (offer.layer, offer.member))
        each = bytes([_NUMBERS[offer.type]]) + b"".join(bytes([len(name)]) + name for name in names)
        if len(data) + len(each) <= room:
            data += each
    return data


def decode(data: bytes) -> list[Offer]:
    """Raises `ProtocolError` naming the field. Layers of types that are not known are left out."""
    rest, offers = data, list[Offer]()
    while rest:
        type = _TYPES.get(rest[0])
        layer, rest = _name("layer", rest[1:])
        member, rest = _name("member", rest)
        if type is not None:
            offers.append(Offer(type, layer, member))
    return offers


def _name(field: str, data: bytes) -> tuple[str, bytes]:
    length = data[0] if data else 0
    raw = data[1 : 1 + length]
    if len(raw) < length or not length:
        raise ProtocolError(f"{field}: {len(raw)} bytes of {length or 'at least 1'}")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"{field}: no UTF-8") from error
    return as_name(text, field, ProtocolError), data[1 + length :]
