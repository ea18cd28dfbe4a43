"""The control messages: every one survives its trip, and garbage is a ProtocolError and nothing else."""

from __future__ import annotations

import math
import struct
import typing

import msgspec
import pytest
from support import udp_settings

from ouroboros.errors import ProtocolError
from ouroboros.qos import QOS_DATA, QoSSpec
from ouroboros.wire import control as messages
from ouroboros.wire.control import (
    Accept,
    Alloc,
    Answer,
    BindProcess,
    BindProgram,
    BootstrapIpcp,
    BroadcastDetails,
    Capture,
    ChangePeers,
    ConnectIpcp,
    CreateIpcp,
    CreateName,
    Dealloc,
    DestroyIpcp,
    DestroyName,
    DisconnectIpcp,
    DiscoverLayers,
    Done,
    EnrollIpcp,
    Failed,
    FlowEntry,
    Granted,
    Hello,
    HopEntry,
    ImpairIpcp,
    IpcpEntry,
    Join,
    KeepAliveIpcp,
    ListFlows,
    ListIpcps,
    ListNames,
    LocalDetails,
    MessageReader,
    NameEntry,
    NodeEntry,
    NodeInfo,
    OfferEntry,
    PortDetails,
    ProbeName,
    RegisterName,
    Request,
    Save,
    UnbindProcess,
    UnbindProgram,
    UnregisterName,
)

REQUESTS: list[Request] = [
    Hello(messages.VERSION, "oecho.py", 1),
    Alloc("oecho", QoSSpec(), None),
    Alloc("ö" * 127, QOS_DATA, 0.25),
    Accept(None, None),
    Accept("oecho", 0.0),
    Join("lab", QoSSpec(timeout=0), 3.0),
    Capture(messages.FIRST_IPCP_ID, 96),
    Dealloc(10_239, 1),
    CreateName("x", "round-robin"),
    DestroyName("x"),
    ListNames(),
    RegisterName("x", messages.FIRST_IPCP_ID),
    UnregisterName("x", messages.FIRST_IPCP_ID),
    BindProgram("/usr/bin/x", "x", True, ["-l", "", "ü"]),
    UnbindProgram("x", "x"),
    BindProcess(1, "x"),
    UnbindProcess(1, "x"),
    CreateIpcp("l0", "local"),
    BootstrapIpcp(messages.FIRST_IPCP_ID, "lab"),
    BootstrapIpcp(messages.FIRST_IPCP_ID, "net", udp_settings("192.0.2.1", 3500, ["a@192.0.2.2"])),
    ImpairIpcp(messages.FIRST_IPCP_ID, "loss=1%,delay=10ms"),
    ChangePeers(messages.FIRST_IPCP_ID, ["a@192.0.2.2"], []),
    KeepAliveIpcp(messages.FIRST_IPCP_ID, 0.25),
    EnrollIpcp(messages.FIRST_IPCP_ID, "campus"),
    ConnectIpcp(messages.FIRST_IPCP_ID, "Data Transfer", "campus.b", QoSSpec(loss=0)),
    DisconnectIpcp(messages.FIRST_IPCP_ID, "Management", "campus.b"),
    DestroyIpcp(messages.FIRST_IPCP_ID),
    ProbeName("web", None, True, 1.0),
    DiscoverLayers(("lan",)),
    ListIpcps(),
    ListFlows(),
    Save(),
    NodeInfo(),
]
ANSWERS: list[Answer] = [
    Done(None),
    Done(7),
    Failed("FlowNameException", "nobody offers 'x'"),
    Granted(1, QOS_DATA, 0, 65536),
]
ENTRIES: list[msgspec.Struct] = [
    NameEntry("x", "spillover", ["x"], [7], ["lab"]),
    IpcpEntry(messages.FIRST_IPCP_ID, "l0", "local", "operational", "lab", "SHA3_256", LocalDetails("loss=1%", 2, 3)),
    IpcpEntry(1, "b0", "broadcast", "boot", "", "SHA3_256", BroadcastDetails(2, 3)),
    IpcpEntry(1, "u0", "udp6", "opening", "net", "MD5", PortDetails("", "[::1]:1", ("a@::1",)), {"lost": 1}),
    FlowEntry(1, "x", (7, 0), QOS_DATA),
    OfferEntry("unicast", "campus", "campus.b", "lan", "02:00:00:00:00:0b"),
    HopEntry(1, "lab", "unicast", 1, "m1", "0a.00.01.02", "answered", 0.5, (1, 2)),
    NodeEntry("0.0.0", 1, True, "/tmp/node", 1, 2, 3),
]


def body(message: Request | Answer) -> bytes:
    reader = MessageReader()
    reader.feed(messages.encode(message))
    found = reader.next()
    assert found is not None
    return found


@pytest.mark.parametrize("timeout", [0.0, -1.0, 10.5, math.inf, math.nan])
def test_a_probe_waits_for_a_time_that_there_is(timeout: float) -> None:
    with pytest.raises(ProtocolError, match="not a control message"):
        messages.decode_request(body(ProbeName("web", None, False, timeout)))


def test_the_lists_of_this_file_miss_no_message() -> None:
    assert {type(request) for request in REQUESTS} == set(typing.get_args(Request))
    assert {type(answer) for answer in ANSWERS} == set(typing.get_args(Answer))


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: type(each).__name__)
def test_a_request_survives_its_trip(request_: Request) -> None:
    assert messages.decode_request(body(request_)) == request_


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda each: type(each).__name__)
def test_an_answer_survives_its_trip(answer: Answer) -> None:
    assert messages.decode_answer(body(answer)) == answer


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda each: type(each).__name__)
def test_the_entry_of_a_listing_survives_its_trip(entry: msgspec.Struct) -> None:
    answer = messages.decode_answer(body(Done([entry])))
    assert isinstance(answer, Done)
    assert msgspec.convert(answer.value, list[type(entry)]) == [entry]  # type: ignore[misc]


def test_what_a_type_says_of_itself_is_read_from_its_entry_and_of_others_the_defaults() -> None:
    entry = IpcpEntry(1, "b0", "broadcast", "boot", "", "SHA3_256", BroadcastDetails(2, 3))
    assert (entry.members, entry.lost, entry.impair, entry.peers) == (2, 3, "", ())
    assert IpcpEntry(1, "l0", "local", "boot", "", "SHA3_256").lost == 0
    with pytest.raises(AttributeError, match="IpcpEntry has no field 'lots'"):
        entry.lots  # noqa: B018


def test_the_length_stands_in_front_in_network_order() -> None:
    data = messages.encode(ListNames())
    assert struct.unpack(">I", data[:4]) == (len(data) - 4,)


def test_a_request_is_no_answer_and_an_answer_no_request() -> None:
    with pytest.raises(ProtocolError):
        messages.decode_answer(body(ListNames()))
    with pytest.raises(ProtocolError):
        messages.decode_request(body(Done(None)))


def test_messages_fed_byte_by_byte_come_out_whole_and_in_order() -> None:
    reader = MessageReader()
    found = []
    for byte in b"".join(messages.encode(request) for request in REQUESTS):
        reader.feed(bytes([byte]))
        while (each := reader.next()) is not None:
            found.append(messages.decode_request(each))
    assert found == REQUESTS


def test_messages_fed_in_one_piece_come_out_one_by_one() -> None:
    reader = MessageReader()
    reader.feed(messages.encode(ListNames()) + messages.encode(ListFlows()) + messages.encode(NodeInfo())[:-1])
    assert messages.decode_request(reader.next() or b"") == ListNames()
    assert messages.decode_request(reader.next() or b"") == ListFlows()
    assert reader.next() is None


@pytest.mark.parametrize("fed", [b"", b"\0", b"\0\0\0", b"\0\0\0\x05abcd"])
def test_half_a_message_is_none_yet(fed: bytes) -> None:
    reader = MessageReader()
    reader.feed(fed)
    assert reader.next() is None


def test_a_message_as_long_as_the_limit_passes() -> None:
    reader = MessageReader(limit=8)
    reader.feed(struct.pack(">I", 8) + b"x" * 8)
    assert reader.next() == b"x" * 8


def test_an_announcement_over_the_limit_is_refused_before_the_message_arrives() -> None:
    reader = MessageReader(limit=8)
    reader.feed(struct.pack(">I", 9))
    with pytest.raises(ProtocolError, match="9 bytes announced; the limit is 8"):
        reader.next()
    # A reader that lost its place in the stream does not find another one.
    reader.feed(messages.encode(ListNames()))
    with pytest.raises(ProtocolError):
        reader.next()


def test_the_usual_limit_is_that_of_answers() -> None:
    reader = MessageReader()
    reader.feed(struct.pack(">I", messages.MESSAGE_LENGTH))
    assert reader.next() is None
    reader = MessageReader()
    reader.feed(struct.pack(">I", messages.MESSAGE_LENGTH + 1))
    with pytest.raises(ProtocolError):
        reader.next()


def test_ids_of_ipc_processes_lie_above_every_pid_of_linux() -> None:
    assert messages.FIRST_IPCP_ID > 2**22


GARBAGE = {
    "nothing": b"",
    "a number": b"\x07",
    "no array": b"\x81\xa1a\x01",
    "empty array": b"\x90",
    "no tag": b"\x91\x01",
    "unknown tag": msgspec.msgpack.encode(["Explode", 1]),
    "cut off": body(Alloc("x", QoSSpec(), None))[:-1],
    "something behind it": body(ListNames()) + b"\0",
    "field missing": msgspec.msgpack.encode(["Alloc", "x"]),
    "wrong type": msgspec.msgpack.encode(["Dealloc", "1", 0]),
    "name is no UTF-8": b"\x92\xabDestroyName\xa2\xff\xfe",
    "name is bytes": msgspec.msgpack.encode(["DestroyName", b"x"]),
    "qos out of range": msgspec.msgpack.encode(["Alloc", "x", [0, 0, 256], None]),
    "qos of negative delay": msgspec.msgpack.encode(["Alloc", "x", [-1], None]),
    "array said to be huge": b"\x95\xabBindProgram\xa1a\xa1b\xc2\xdd\xff\xff\xff\xff",
    "text said to be huge": b"\x92\xabDestroyName\xdb\xff\xff\xff\xff",
    "very deep": b"\x91" * 100_000,
    "very deep value": b"\x92\xa4Done" + b"\x91" * 100_000,
    "unhashable key": b"\x92\xa4Done\x81\x80\x01",
    "impossible time": b"\x92\xa4Done\xd7\xff\xff\xff\xff\xff\xff\xff\xff\xff",
}


@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_a_protocol_error_and_nothing_else(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="not a control message"):
        messages.decode_request(data)
    with pytest.raises(ProtocolError, match="not a control message"):
        messages.decode_answer(data)
