"""Messages of the directory of a unicast layer, a hash table over its members. Source: `unicast-control.md` 7.2, 7.3.

A member of the C prototype dies of some messages (`unicast-control.md` 10.1, item 4): `encode` cannot make them.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Any

import msgspec

from ouroboros.errors import ProtocolError
from ouroboros.wire.unicast import protobuf

#: More contacts than that in an answer are not looked at: the largest k.
MOST_CONTACTS = 20
#: Nor more values.
MOST_VALUES = 8

#: A value: the address of a member that has the name.
_VALUE = struct.Struct(">Q")


class Code(IntEnum):
    """What a message is."""

    STORE = 0
    FIND_NODE = 1
    NODE_FOUND = 2
    FIND_VALUE = 3
    VALUE_FOUND = 4


class Contact(msgspec.Struct, frozen=True):
    """A member. `id`: its place in the table."""

    id: bytes
    address: int


class Store(msgspec.Struct, frozen=True):
    """The member at `address` has the name with the digest `key`. `expiry`: seconds since 1970."""

    source: Contact
    key: bytes
    address: int
    expiry: int

    def encode(self) -> bytes:
        store = protobuf.make("Store", key=self.key, value=_VALUE.pack(self.address), expiry=self.expiry)
        return _serialized(Code.STORE, self.source, self.key, store=store)


class FindNode(msgspec.Struct, frozen=True):
    """Whom do you know near `key`? `cookie`: 64 random bits, which come back."""

    source: Contact
    cookie: int
    key: bytes

    def encode(self) -> bytes:
        return _serialized(Code.FIND_NODE, self.source, self.key, find=_find(self.cookie, self.key))


class FindValue(msgspec.Struct, frozen=True):
    """Who has the name with the digest `key`? `cookie`: 64 random bits, which come back."""

    source: Contact
    cookie: int
    key: bytes

    def encode(self) -> bytes:
        return _serialized(Code.FIND_VALUE, self.source, self.key, find=_find(self.cookie, self.key))


class NodeFound(msgspec.Struct, frozen=True):
    """The answer to `FindNode`. `contacts`: some, the asker at least."""

    source: Contact
    cookie: int
    key: bytes
    contacts: tuple[Contact, ...]

    def encode(self) -> bytes:
        return _serialized(Code.NODE_FOUND, self.source, self.key, node=_found(self))


class ValueFound(msgspec.Struct, frozen=True):
    """The answer to `FindValue`. `contacts`: as of `NodeFound`. `addresses`: of members that have the name."""

    source: Contact
    cookie: int
    key: bytes
    contacts: tuple[Contact, ...]
    addresses: tuple[int, ...]

    def encode(self) -> bytes:
        # Present, although empty when nobody has the name.
        values = protobuf.make("Values", values=[_VALUE.pack(each) for each in self.addresses])
        return _serialized(Code.VALUE_FOUND, self.source, self.key, node=_found(self), value=values)


Message = Store | FindNode | NodeFound | FindValue | ValueFound


def _find(cookie: int, key: bytes) -> Any:  # noqa: ANN401
    return protobuf.make("Find", cookie=cookie, key=key)


def _found(answer: NodeFound | ValueFound) -> Any:  # noqa: ANN401
    if not answer.contacts:
        raise ValueError("an answer of the directory has contacts, the asker at least")
    return protobuf.make(
        "Found",
        cookie=answer.cookie,
        key=answer.key,
        contacts=[_contact_message(each, len(answer.key)) for each in answer.contacts],
    )


def _contact_message(contact: Contact, key_length: int) -> Any:  # noqa: ANN401
    if len(contact.id) != key_length or not contact.address:
        raise ValueError(f"{contact} cannot be told to members: it has no address, or its id another length than keys")
    return protobuf.make("Contact", id=contact.id, address=contact.address)


def _serialized(code: Code, source: Contact, key: bytes, **parts: Any) -> bytes:  # noqa: ANN401
    source_message = _contact_message(source, len(key))
    return protobuf.serialized(protobuf.make("Dht", code=code, source=source_message, **parts))


# --- decoding


def decode(data: bytes, key_length: int) -> Message:
    """The message in a packet. `key_length`: of digests of names in the layer. Raises `ProtocolError` naming the field."""
    message = protobuf.parse("Dht", data)
    if message.code > Code.VALUE_FOUND:
        raise ProtocolError(f"code: {message.code} is none that is known")
    source = Contact(
        protobuf.exactly("src.id", message.source.id, key_length),
        protobuf.address("src.addr", message.source.address),
    )
    match Code(message.code):
        case Code.STORE:
            return _store(source, _part(message, "store"), key_length)
        case Code.FIND_NODE:
            return FindNode(source, *_cookie_and_key(_part(message, "find"), key_length))
        case Code.FIND_VALUE:
            return FindValue(source, *_cookie_and_key(_part(message, "find"), key_length))
        case Code.NODE_FOUND:
            node = _part(message, "node")
            return NodeFound(source, *_cookie_and_key(node, key_length), _contacts(node, key_length))
        case Code.VALUE_FOUND:
            node = _part(message, "node")
            contacts, addresses = _contacts(node, key_length), _addresses(message.value)
            return ValueFound(source, *_cookie_and_key(node, key_length), contacts, addresses)


def _part(message: Any, field: str) -> Any:  # noqa: ANN401
    if not message.HasField(field):
        raise ProtocolError(f"{field}: missing in a message with code {message.code}")
    return getattr(message, field)


def _cookie_and_key(part: Any, key_length: int) -> tuple[int, bytes]:  # noqa: ANN401
    return part.cookie, protobuf.exactly("key", part.key, key_length)


def _store(source: Contact, store: Any, key_length: int) -> Store:  # noqa: ANN401
    key = protobuf.exactly("key", store.key, key_length)
    (value,) = _VALUE.unpack(protobuf.exactly("val", store.value, _VALUE.size))
    return Store(source, key, protobuf.address("val", value), store.expiry)


def _contacts(node: Any, key_length: int) -> tuple[Contact, ...]:  # noqa: ANN401
    """Those that can be: one that cannot spoils only itself."""
    return tuple(
        Contact(each.id, each.address)
        for each in node.contacts[:MOST_CONTACTS]
        if len(each.id) == key_length and 0 < each.address <= protobuf.MOST_ADDRESS
    )


def _addresses(part: Any) -> tuple[int, ...]:  # noqa: ANN401
    """As with contacts, a value that is none spoils only itself."""
    found = (_VALUE.unpack(each)[0] for each in part.values[:MOST_VALUES] if len(each) == _VALUE.size)
    return tuple(each for each in found if 0 < each <= protobuf.MOST_ADDRESS)
