"""The listing of a node: a file with what `irm` lists of it, for whoever reads it without asking. Pure.

The file begins with `MAGIC`. Then come records, each behind its length and its CRC32, 4 bytes each, least significant byte
first: what there is, and what there is no more. A later record replaces an earlier one of the same thing.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

import msgspec

from ouroboros.errors import ProtocolError
from ouroboros.wire.control import FlowEntry, IpcpEntry

#: The first bytes, the version last.
MAGIC = b"OUROLST\x01"
#: Bytes of one record, at the most.
_LONGEST = 1 << 20

_FRAME = struct.Struct("<II")

#: Where the engine counts for it: which engine, and the id there. See `wire.counters`.
Place = tuple[int, int]


class _Record(msgspec.Struct, frozen=True, array_like=True, tag=True, tag_field="kind"):
    pass


class NodeRecord(_Record, frozen=True):
    """The node: it comes first."""

    version: str
    pid: int


class IpcpRecord(_Record, frozen=True):
    entry: IpcpEntry
    place: Place | None = None


class IpcpGone(_Record, frozen=True):
    id: int


class FlowRecord(_Record, frozen=True):
    """The counters of `entry` are its last ones, if it has no `place`."""

    entry: FlowEntry
    place: Place | None = None


class FlowGone(_Record, frozen=True):
    id: int


Record = NodeRecord | IpcpRecord | IpcpGone | FlowRecord | FlowGone

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)


def encode(record: Record) -> bytes:
    """The record as it is in the file."""
    body = _encoder.encode(record)
    return _FRAME.pack(len(body), zlib.crc32(body)) + body


class Listing(NamedTuple):
    """What a node has, in the order in which it came."""

    node: NodeRecord
    ipcps: dict[int, IpcpRecord]
    flows: dict[int, FlowRecord]


def parse(data: bytes) -> Listing:
    """Raises `ProtocolError` when it is none. A record at the end that is not whole is one that is being written, or was
    when the node was killed."""
    if data[: len(MAGIC)] != MAGIC:
        raise ProtocolError("it is no listing of a node, or one of another version")
    at, node = len(MAGIC), None
    ipcps: dict[int, IpcpRecord] = {}
    flows: dict[int, FlowRecord] = {}
    while (found := _record(data, at)) is not None:
        record, at = found
        match record:
            case NodeRecord():
                node = record
            case IpcpRecord(entry=entry):
                ipcps[entry.id] = record
            case IpcpGone(id=id):
                ipcps.pop(id, None)
            case FlowRecord(entry=flow):
                flows[flow.id] = record
            case FlowGone(id=id):
                flows.pop(id, None)
    if node is None:
        raise ProtocolError("it says of no node")
    return Listing(node, ipcps, flows)


def _record(data: bytes, at: int) -> tuple[Record, int] | None:
    """The record that begins there, and where the next one does; None: it is not whole."""
    if len(data) - at < _FRAME.size:
        return None
    length, checksum = _FRAME.unpack_from(data, at)
    at += _FRAME.size
    if length > _LONGEST:
        raise ProtocolError(f"it is damaged: a record of {length} bytes")
    body = data[at : at + length]
    at += length
    if len(body) < length:
        return None
    if zlib.crc32(body) != checksum:
        if at < len(data):
            raise ProtocolError("it is damaged: a record has a wrong checksum")
        return None
    try:
        return _decoder.decode(body), at
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError) as error:
        raise ProtocolError(f"a record is of another version: {error}") from error
