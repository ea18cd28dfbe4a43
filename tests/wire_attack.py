"""What programs, stations on a segment and files of a node can say, from bytes. Property tests and the fuzz target
`fuzz/wire.py` take it from here.

The first byte of an input says which decoder gets the rest: see `_TARGETS`. No input may cause anything but the errors that
are meant for it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from ouroboros.errors import IpcpBootstrapError, ProtocolError
from ouroboros.qos import QOS_RAW, QoSSpec
from ouroboros.settings import UnicastSettings
from ouroboros.wire import control, counters, listing
from ouroboros.wire.control import (
    Accept,
    Alloc,
    BindProgram,
    BootstrapIpcp,
    ConnectIpcp,
    Dealloc,
    Done,
    EnrollIpcp,
    Failed,
    Hello,
    ListIpcps,
    MessageReader,
)
from ouroboros.wire.ethernet import DIX, LLC, NameQuery
from ouroboros.wire.listing import IpcpGone, NodeRecord
from ouroboros.wire.udp import FlowDealloc, FlowReply, FlowRequest

_DIGEST = 32
#: Of what another user says.
_LENGTH = 1 << 18


def _stream(data: bytes) -> list[bytes]:
    """Messages that come in pieces; the first byte says how long these are."""
    reader, size, found = MessageReader(_LENGTH), 1 + (data[0] if data else 0), []
    for at in range(1, len(data), size):
        reader.feed(data[at : at + size])
        while (body := reader.next()) is not None:
            found.append(body)
    return found


_TARGETS: tuple[Callable[[bytes], object], ...] = (
    control.decode_request,
    control.decode_answer,
    _stream,
    lambda data: DIX.decode(data, _DIGEST),
    lambda data: LLC.decode(data, _DIGEST),
    listing.parse,
    lambda data: counters.Counters(data, data),
)
REQUEST, ANSWER, STREAM, FRAMES_DIX, FRAMES_LLC, LISTING, COUNTERS = range(len(_TARGETS))


def attack(input: bytes) -> bool:
    """Give an input to its decoder. Returns whether it was taken."""
    kind, data = input[:1] or b"\0", input[1:]
    try:
        _TARGETS[kind[0] % len(_TARGETS)](data)
    except (ProtocolError, IpcpBootstrapError):
        return False
    return True


def seeds() -> list[bytes]:
    """Inputs that are taken: for each decoder one of each kind."""
    requests = (
        Hello(control.VERSION, "program", 7),
        Alloc("clock", QoSSpec(loss=0, in_order=1), 1.5),
        Accept("clock", None),
        Dealloc(64, 1),
        BindProgram("/bin/clock", "clock", True, ["-v"]),
        BootstrapIpcp(1, "campus", UnicastSettings()),
        EnrollIpcp(1, "campus"),
        ConnectIpcp(1, "Management", "m0", QOS_RAW),
        ListIpcps(),
    )
    answers = (Done({"name": [1, None, 2.5]}), Failed("NameError", "there is no such name"))
    digest = bytes(range(_DIGEST))
    messages = (
        NameQuery(digest),
        FlowRequest(64, QOS_RAW, digest, b"oap"),
        FlowReply(64, 65, 0, b"oap"),
        FlowDealloc(64, 65, died=True),
    )
    found = [bytes([REQUEST]) + control.encode(each)[4:] for each in requests]
    found += [bytes([ANSWER]) + control.encode(each)[4:] for each in answers]
    found += [bytes([STREAM, 9]) + b"".join(control.encode(each) for each in requests)]
    found += [bytes([FRAMES_DIX]) + DIX.encode(each) for each in messages]
    found += [bytes([FRAMES_LLC]) + LLC.encode(each) for each in messages if isinstance(each, NameQuery)]
    records = listing.encode(NodeRecord("1", 2)) + listing.encode(IpcpGone(3))
    found += [bytes([LISTING]) + listing.MAGIC + records]
    names = b"flow sent"
    header = struct.pack("<8s9Q", counters.MAGIC, counters.VERSION, 96, 32, 1, 7, 1, 2, 0, len(names)) + names
    return [*found, bytes([COUNTERS]) + header.ljust(96, b"\0") + struct.pack("<4Q", 2, 5, 1, 9)]
