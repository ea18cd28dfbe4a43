"""The protobuf runtime, kept at arm's length.

It takes messages without required fields, gives text back that is no UTF-8, and sends what it did not know on. So a message
of its is only ever between bytes and a struct of ours: `parse` says what is missing, the modules beside this one check
what is there, and what we send is made from a struct.

The runtime is loaded by `load`, or with the first message: most nodes have no use for it.
"""

from __future__ import annotations

import functools
import pkgutil
from typing import Any

from ouroboros._arguments import shown
from ouroboros.errors import ProtocolError

#: Addresses of members; 0 is none.
MOST_ADDRESS = 0xFFFF_FFFF


@functools.cache
def _pool() -> Any:  # noqa: ANN401
    from google.protobuf.descriptor_pool import DescriptorPool

    # Not `messages_pb2`: generated code refuses runtimes that are older than the compiler, and warns of newer ones.
    pool = DescriptorPool()
    pool.AddSerializedFile(_only_file(pkgutil.get_data(__package__, "messages.binpb") or b""))
    return pool


def _only_file(descriptors: bytes) -> bytes:
    """A set of descriptors of one file is that file behind a tag and its length."""
    at = 1
    while descriptors[at] & 0x80:
        at += 1
    return descriptors[at + 1 :]


@functools.cache
def _class(name: str) -> Any:  # noqa: ANN401
    from google.protobuf.message_factory import GetMessageClass

    return GetMessageClass(_pool().FindMessageTypeByName(f"ouroboros.unicast.{name}"))


def load() -> None:
    """Load the runtime now, which takes some 20 ms, and not when somebody waits for the first message."""
    _class("Cep")


def make(name: str, /, **fields: Any) -> Any:  # noqa: ANN401
    """A message, or a part of one."""
    return _class(name)(**fields)


def serialized(message: Any) -> bytes:  # noqa: ANN401
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def parse(name: str, data: bytes) -> Any:  # noqa: ANN401
    """The message in bytes of a stranger, with all that it must have. Raises `ProtocolError`."""
    from google.protobuf.message import DecodeError

    message = _class(name)()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise ProtocolError(f"{name}: {len(data)} bytes that are no such message") from error
    if not message.IsInitialized():
        raise ProtocolError(f"{name}: without {', '.join(message.FindInitializationErrors())}")
    return message


# --- checks of fields


def text(field: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ProtocolError(f"{field}: {shown(value)} is no UTF-8") from error


def address(field: str, value: int) -> int:
    if not 0 < value <= MOST_ADDRESS:
        raise ProtocolError(f"{field}: {value} is no address")
    return value


def exactly(field: str, value: bytes, length: int) -> bytes:
    if len(value) != length:
        raise ProtocolError(f"{field}: {len(value)} bytes, where {length} belong")
    return value
