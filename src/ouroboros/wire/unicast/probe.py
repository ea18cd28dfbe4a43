"""Probes and their answers: between components 2 of members of ours.

A probe asks a member who it is. It ends where its TTL runs out, or at the member that it is for, and that one answers. With
steps, the answer is what a probe found out that the member sent in a layer below: see `layers.face.Step`. Both have `LENGTH`
bytes, so that nobody can be made to send more than was sent to it. Numbers are big-endian.

====== ============ =============================================================================================
bytes  field        meaning
====== ============ =============================================================================================
0      kind         1 probe, 2 answer
1      version      0
2–9    id           of the probe, for its answer
probe
10–11  wait         milliseconds that the source waits
12–15  source       address of the member that asks
16–19  target       address of the member that the probe is for
20–23  via          address of the neighbour whose lower flow is meant, 0: the one that leads to the target
24     count        of steps, at most 8
25–    steps        5 bytes each: TTL, and `via`
answer
10     flags        1 it is the end of the way; 2 an answer came (always, without steps); 4 its layer has layers below;
                    8 the round trip is known; 16 nobody could be asked
11     rank         layers below, the layer itself counted
12–15  at           address as a number, in the layer that the answer is of; 0: it has none
16–19  round trip   microseconds from the member that sent the probe, for an answer with steps
20–    texts        layer, type, name of the IPC process, address: a byte for the length, and at most 63 of UTF-8 each
====== ============ =============================================================================================

All else is 0.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

from ouroboros.errors import ProtocolError

#: Of a probe and of an answer.
LENGTH = 288
MOST_STEPS = 8
#: Longer texts are cut.
TEXT_LENGTH = 63
MOST_ADDRESS = 0xFFFFFFFF

_PROBE_KIND, _ANSWER_KIND, _VERSION = 1, 2, 0
_PROBE = struct.Struct(">BBQHIIIB")
_STEP = struct.Struct(">BI")
_ANSWER = struct.Struct(">BBQBBII")
_END, _ANSWERED, _DEEPER, _TIMED, _UNASKED = 1, 2, 4, 8, 16


class Probe(msgspec.Struct, frozen=True):
    """`wait`: seconds. `steps`: TTL and `via` of each."""

    id: int
    source: int
    target: int
    wait: float
    via: int = 0
    steps: tuple[tuple[int, int], ...] = ()

    def encode(self) -> bytes:
        """Raises `ValueError` for too many steps."""
        if len(self.steps) > MOST_STEPS:
            raise ValueError(f"{len(self.steps)} steps; a probe takes {MOST_STEPS}")
        wait = min(0xFFFF, max(0, round(self.wait * 1000)))
        fixed = (_PROBE_KIND, _VERSION, self.id, wait, self.source, self.target, self.via, len(self.steps))
        return (_PROBE.pack(*fixed) + b"".join(_STEP.pack(*each) for each in self.steps)).ljust(LENGTH, b"\0")


class Answer(msgspec.Struct, frozen=True):
    """`round_trip`: seconds, None: not known. Texts: see the module."""

    id: int
    end: bool
    answered: bool
    rank: int = 0
    at: int = 0
    deeper: bool = False
    asked: bool = True
    round_trip: float | None = None
    layer: str = ""
    type: str = ""
    member: str = ""
    address: str = ""

    def encode(self) -> bytes:
        flags = _END * self.end | _ANSWERED * self.answered | _DEEPER * self.deeper | _UNASKED * (not self.asked)
        flags |= _TIMED * (self.round_trip is not None)
        micros = min(0xFFFFFFFF, round((self.round_trip or 0.0) * 1e6))
        fixed = _ANSWER.pack(_ANSWER_KIND, _VERSION, self.id, flags, self.rank, self.at, micros)
        texts = b"".join(map(_text, (self.layer, self.type, self.member, self.address)))
        return (fixed + texts).ljust(LENGTH, b"\0")


def decode(data: bytes) -> Probe | Answer:
    """Raises `ProtocolError` naming the field."""
    if len(data) != LENGTH:
        raise ProtocolError(f"length: {len(data)} bytes; probes and answers have {LENGTH}")
    if data[1] != _VERSION:
        raise ProtocolError(f"version: {data[1]} is not known")
    match data[0]:
        case 1:
            return _probe(data)
        case 2:
            return _answer(data)
    raise ProtocolError(f"kind: {data[0]} is neither a probe nor an answer")


def _probe(data: bytes) -> Probe:
    _, _, id, wait, source, target, via, count = _PROBE.unpack_from(data)
    if count > MOST_STEPS:
        raise ProtocolError(f"count: {count} steps; at most {MOST_STEPS} are allowed")
    for field, address in (("source", source), ("target", target)):
        if not address:
            raise ProtocolError(f"{field}: 0 is no address")
    end = _PROBE.size + count * _STEP.size
    return Probe(id, source, target, wait / 1000, via, tuple(_STEP.iter_unpack(data[_PROBE.size : end])))


def _answer(data: bytes) -> Answer:
    _, _, id, flags, rank, at, micros = _ANSWER.unpack_from(data)
    texts = list(_texts(data, _ANSWER.size))
    return Answer(
        id,
        bool(flags & _END),
        bool(flags & _ANSWERED),
        rank,
        at,
        bool(flags & _DEEPER),
        not flags & _UNASKED,
        micros / 1e6 if flags & _TIMED else None,
        *texts,
    )


def _text(text: str) -> bytes:
    data = text.encode()[:TEXT_LENGTH].decode(errors="ignore").encode()
    return bytes((len(data),)) + data


def _texts(data: bytes, at: int) -> Iterator[str]:
    for field in ("layer", "type", "member", "address"):
        length = data[at]
        if length > TEXT_LENGTH:
            raise ProtocolError(f"{field}: {length} bytes; at most {TEXT_LENGTH} are allowed")
        try:
            text = data[at + 1 : at + 1 + length].decode()
        except UnicodeDecodeError as error:
            raise ProtocolError(f"{field}: no UTF-8: {error.reason}") from error
        if text and not text.isprintable():
            raise ProtocolError(f"{field}: it has control characters in it")
        yield text
        at += 1 + length
