"""What every flow does, whatever carries it: the calls of `Flow`, from one end of it (`flows.md` 5 and 6, as intended)."""

from __future__ import annotations

import array
import copy
import ctypes
import enum
import functools
import gc
import hashlib
import math
import mmap
import pickle
import select
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from decimal import Decimal
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from support import Background, NodeProcess, Shell, forever, until

from ouroboros import aio, irm
from ouroboros.dev import (
    MAX_PACKET,
    Flow,
    FlowAllocatedException,
    FlowDownException,
    FlowNotAllocatedException,
    FlowPeerException,
    FlowPermissionException,
    FlowProperties,
    FlowSizeException,
    FlowTimeoutException,
    FlowWouldBlockException,
    QoSSpec,
    flow_accept,
    flow_alloc,
    flow_join,
)
from ouroboros.event import FEventQueue, FlowSet
from ouroboros.server import FlowRequestHandler, FlowServer

from .worlds import LONGEST, TOO_MUCH, Pair, arrived

LONG = pytest.mark.needs("long")
READ_WRITE = FlowProperties.ReadWrite
NON_BLOCKING = FlowProperties.ReadWrite | FlowProperties.NonBlocking
KIB = 1024


def pattern(length: int, seed: int = 0) -> bytes:
    """Bytes that differ from place to place and from packet to packet."""
    block = hashlib.sha256(f"{length} {seed}".encode()).digest()
    return (block * (length // len(block) + 1))[:length]


def digest(packets: list[bytes]) -> str:
    found = hashlib.sha256()
    for packet in packets:
        found.update(len(packet).to_bytes(4, "big") + packet)
    return found.hexdigest()


#: The same two in the far program.
HELPERS = """
import hashlib
def pattern(length, seed=0):
    block = hashlib.sha256(f"{length} {seed}".encode()).digest()
    return (block * (length // len(block) + 1))[:length]
def digest(packets):
    found = hashlib.sha256()
    for packet in packets:
        found.update(len(packet).to_bytes(4, "big") + packet)
    return found.hexdigest()
"""


class TestPackets:
    SIZES = (1, 2, 7, 8, 9, 1400, 4079, 4080, 4081, 4096)
    LONG_SIZES = (64 * KIB, LONGEST - 1, LONGEST)

    @pytest.mark.parametrize("size", [*SIZES, *(pytest.param(size, marks=LONG) for size in LONG_SIZES)])
    def test_a_packet_of_any_size_arrives_whole(self, near: Flow, far: Shell, size: int) -> None:
        far.do(HELPERS)
        assert near.write(pattern(size)) == size
        assert far.do(f"f.read() == pattern({size})")
        assert far.do(f"f.write(pattern({size}, 1))") == size
        assert near.read() == pattern(size, 1)

    @pytest.mark.needs("back-pressure")
    @pytest.mark.lossless
    def test_boundaries_and_order_are_kept(self, near: Flow, far: Shell) -> None:
        far.do(HELPERS)
        packets = [pattern(1 + (seed * 7919) % 3000, seed) for seed in range(3000)]
        far.begin(f"digest([f.read() for _ in range({len(packets)})])")
        for packet in packets:
            near.write(packet)
        assert far.answer() == digest(packets)

    @pytest.mark.needs("back-pressure", "long")
    def test_large_and_small_packets_mix(self, near: Flow, far: Shell) -> None:
        far.do(HELPERS)
        sizes = [LONGEST, 1, 700 * KIB, 5, 4096, LONGEST, 64 * KIB, 1] * 5
        far.begin(f"for seed, size in enumerate({sizes}): f.write(pattern(size, seed))")
        assert digest([near.read() for _ in sizes]) == digest([pattern(size, seed) for seed, size in enumerate(sizes)])
        far.answer()

    @pytest.mark.needs("back-pressure")
    def test_the_longest_packet_arrives_whole(self, near: Flow, far: Shell) -> None:
        far.do(HELPERS)
        far.begin("digest([f.read()])")
        packet = pattern(near.max_packet)
        near.write(packet)
        assert far.answer() == digest([packet])

    def test_a_packet_over_the_limit_is_refused_and_nothing_is_sent(self, near: Flow, far: Shell) -> None:
        with pytest.raises(FlowSizeException, match=str(near.max_packet + 1)) as caught:
            near.write(bytes(near.max_packet + 1))
        assert isinstance(caught.value, ValueError)
        near.write(b"next")
        assert far.do("f.read()") == b"next"

    def test_an_empty_buffer_sends_nothing(self, near: Flow, far: Shell) -> None:
        assert near.write(b"") == 0
        assert near.write(b"abc", 0) == 0
        assert near.writeline("") == 0
        assert near.write_many([b"", b""]) == 2
        assert far.do("f.get_rx_queue_len()") == 0
        near.write(b"next")
        assert far.do("f.read()") == b"next"

    @pytest.mark.parametrize(("count", "sent"), [(0, b""), (1, b"h"), (5, b"hello"), (99, b"hello"), (None, b"hello")])
    def test_write_sends_at_most_count_bytes(self, near: Flow, far: Shell, count: int | None, sent: bytes) -> None:
        assert near.write(b"hello", count) == len(sent)
        near.write(b"end")
        assert far.do("f.read()") == (sent or b"end")

    def test_negative_counts_are_refused(self, near: Flow, far: Shell) -> None:
        far.do("f.write(b'packet')")
        calls: list[Callable[[], object]] = [
            lambda: near.write(b"x", -1),
            lambda: near.writeline("x", -1),
            lambda: near.read(-1),
            lambda: near.readline(-1),
        ]
        for call in calls:
            with pytest.raises(ValueError, match="count"):
                call()
        assert near.read() == b"packet"
        assert far.do("f.get_rx_queue_len()") == 0


class TestPartialReads:
    # packet lengths, counts of the reads, what the reads return; None: nothing is there
    TABLE = (
        ([10], [100], [10]),
        ([16], [16, 16, 16], [16, 0, None]),
        ([100], [40, 40, 40, 40], [40, 40, 20, None]),
        ([80], [40, 40, 40, 40], [40, 40, 0, None]),
        ([5], [0, 10], [0, 5]),
        ([5], [0, 5, 5, 5], [0, 5, 0, None]),
        ([100], [40, None, None], [40, 60, None]),
        ([16], [None, None], [16, None]),
        ([100, 8], [40, 100, 100], [40, 60, 8]),
        ([16, 8], [16, 16, 16], [16, 0, 8]),
        ([16, 8], [16, None, None], [16, 0, 8]),
        ([1, 1], [1, 1, 1, 1, 1], [1, 0, 1, 0, None]),
        ([3, 3], [2, 2, 2, 2], [2, 1, 2, 1]),
        pytest.param([LONGEST], [1, LONGEST], [1, LONGEST - 1], marks=LONG),
    )

    @pytest.mark.parametrize("into", [False, True], ids=["read", "readinto"])
    @pytest.mark.parametrize(("packets", "counts", "lengths"), TABLE)
    def test_the_rest_of_a_packet_stays_for_the_next_read(
        self,
        near: Flow,
        far: Shell,
        packets: list[int],
        counts: list[int | None],
        lengths: list[int | None],
        into: bool,
    ) -> None:
        far.do(HELPERS)
        far.do(f"for seed, size in enumerate({packets}): f.write(pattern(size, seed))")
        arrived(near, len(packets))
        near.set_flags(NON_BLOCKING)
        got = b""
        for count, length in zip(counts, lengths, strict=True):
            if length is None:
                with pytest.raises(FlowWouldBlockException):
                    near.read(count)
                continue
            if into and count is not None:
                buffer = bytearray(count)
                taken = near.readinto(buffer)
                piece = bytes(buffer[:taken])
                assert bytes(buffer[taken:]) == bytes(count - taken)
            else:
                piece = near.read(count)
            assert len(piece) == length
            got += piece
        sent = b"".join(pattern(size, seed) for seed, size in enumerate(packets))
        assert got == sent[: len(got)]

    def test_no_partial_read_refuses_and_keeps_the_packet(self, near: Flow, far: Shell) -> None:
        near.set_flags(NON_BLOCKING | FlowProperties.NoPartialRead)
        far.do("f.write(b'x' * 100); f.write(b'y' * 8)")
        arrived(near, 2)
        for _ in range(2):
            with pytest.raises(FlowSizeException, match="100 bytes"):
                near.read(40)
            with pytest.raises(FlowSizeException, match="100 bytes"):
                near.readinto(bytearray(40))
            with pytest.raises(FlowSizeException, match="100 bytes"):
                near.readline(40)
        assert near.read(100) == b"x" * 100
        assert near.read(40) == b"y" * 8

    def test_no_partial_read_leaves_no_mark_of_the_end(self, near: Flow, far: Shell) -> None:
        near.set_flags(NON_BLOCKING | FlowProperties.NoPartialRead)
        far.do("f.write(b'x' * 40)")
        arrived(near, 1)
        assert near.read(40) == b"x" * 40
        with pytest.raises(FlowWouldBlockException):
            near.read(40)

    def test_a_held_rest_is_read_after_the_peer_is_gone(self, near: Flow, far: Shell) -> None:
        far.do("f.write(b'0123456789'); f.dealloc()")
        assert near.read(4) == b"0123"
        assert near.read() == b"456789"
        with pytest.raises(FlowDownException):
            near.read()


class TestText:
    @pytest.mark.parametrize(
        "text",
        [
            "hello",
            "héllo",
            "€€€",
            "日本語",
            "𝄞clef",
            "a\nb\n",
            "nul\0nul",
            pytest.param("x" * LONGEST, marks=LONG),
        ],
    )
    def test_text_arrives_as_written(self, near: Flow, far: Shell, text: str) -> None:
        assert near.writeline(text) == len(text)
        far.do("line = f.readline()")
        assert far.do("len(line)") == len(text)
        assert far.do("f.writeline(line)") == len(text)
        assert near.readline() == text

    @pytest.mark.parametrize(
        ("text", "count", "sent"),
        [("héllo", 2, "hé"), ("€€€", 1, "€"), ("€€€", 3, "€€€"), ("€€€", 99, "€€€"), ("𝄞x", 1, "𝄞")],
    )
    def test_writeline_counts_characters_and_sends_no_halves(
        self, near: Flow, far: Shell, text: str, count: int, sent: str
    ) -> None:
        assert near.writeline(text, count) == len(sent)
        assert far.do("f.read()") == sent.encode()

    @pytest.mark.parametrize(
        ("text", "counts", "lines"),
        [
            ("€€€", [2, 2], ["€€", "€"]),
            ("€€€", [3, 3], ["€€€", ""]),
            ("héllo", [0, 1, 1, 9], ["", "h", "é", "llo"]),
            ("héllo", [2, None], ["hé", "llo"]),
            ("𝄞𝄞", [1, 1, 1], ["𝄞", "𝄞", ""]),
        ],
    )
    def test_readline_counts_characters(
        self, near: Flow, far: Shell, text: str, counts: list[int | None], lines: list[str]
    ) -> None:
        far.do(f"f.writeline({text!r}); f.writeline('next')")
        assert [near.readline(count) for count in counts] == lines
        assert near.readline() == "next"

    @pytest.mark.parametrize("packet", [b"\xff\xfe", b"good \xe2\x82", b"\xed\xa0\x80"])
    def test_what_is_no_utf8_raises_and_can_be_read_as_bytes(self, near: Flow, far: Shell, packet: bytes) -> None:
        far.do(f"f.write({packet!r}); f.writeline('next')")
        for _ in range(2):
            with pytest.raises(UnicodeDecodeError) as caught:
                near.readline()
            assert caught.value.object == packet
        assert near.read() == packet
        assert near.readline() == "next"

    def test_half_a_character_left_by_read_is_not_lost(self, near: Flow, far: Shell) -> None:
        far.do("f.writeline('€uro')")
        assert near.read(1) == "€".encode()[:1]
        with pytest.raises(UnicodeDecodeError):
            near.readline()
        assert near.read() == "€uro".encode()[1:]

    def test_text_without_utf8_is_refused_and_nothing_is_sent(self, near: Flow, far: Shell) -> None:
        with pytest.raises(UnicodeEncodeError):
            near.writeline("lone \ud800")
        near.writeline("next")
        assert far.do("f.readline()") == "next"


class Point(ctypes.Structure):
    _fields_ = (("x", ctypes.c_int), ("y", ctypes.c_int))


class TestBuffers:
    BUFFERS: tuple[Any, ...] = (
        b"bytes",
        bytearray(b"bytearray"),
        memoryview(b"-memoryview-")[1:-1],
        array.array("d", [1.5, -2.5]),
        memoryview(bytearray(range(24))).cast("B", (2, 3, 4)),
        memoryview(array.array("i", [1, 2, 3])),
        (ctypes.c_int * 3)(1, 2, 3),
        (ctypes.c_short * 2 * 3)(),
        ctypes.create_string_buffer(b"characters"),
        ctypes.c_double(1.5),
        Point(1, 2),
        mmap.mmap(-1, 64),
    )

    @pytest.mark.parametrize("buffer", BUFFERS, ids=lambda buffer: type(buffer).__name__)
    def test_any_contiguous_buffer_is_written(self, near: Flow, far: Shell, buffer: Any) -> None:
        whole = memoryview(buffer).tobytes()
        assert near.write(buffer) == len(whole)
        assert near.write(buffer, 3) == 3
        assert near.write_many([buffer, buffer]) == 2
        assert far.do("[f.read() for _ in range(4)]") == [whole, whole[:3], whole, whole]

    def test_a_buffer_can_be_reused_when_write_returns(self, near: Flow, far: Shell) -> None:
        buffer = bytearray(b"first")
        near.write(buffer)
        buffer[:] = b"other length"
        near.write(buffer)
        assert far.do("[f.read(), f.read()]") == [b"first", b"other length"]

    @pytest.mark.parametrize(
        ("buffer", "kind"),
        [(memoryview(b"abcd")[::2], BufferError), ("text", TypeError), (7, TypeError), (None, TypeError)],
    )
    def test_what_is_no_contiguous_buffer_is_refused(
        self, near: Flow, far: Shell, buffer: Any, kind: type[Exception]
    ) -> None:
        with pytest.raises(kind):
            near.write(buffer)
        with pytest.raises(kind):
            near.write_many([b"not sent either", buffer])
        near.write(b"next")
        assert far.do("f.read()") == b"next"

    def test_readinto_fills_any_writable_buffer(self, near: Flow, far: Shell) -> None:
        far.do("f.write(b'12345678')")
        numbers = array.array("I", [0, 0])
        near.set_flags(READ_WRITE | FlowProperties.NoPartialRead)
        assert near.readinto(numbers) == 8
        assert numbers.tobytes() == b"12345678"
        far.do("f.write(b'abcd'); f.write(b'12345678'); f.write(b'x')")
        characters, point, byte = ctypes.create_string_buffer(6), Point(), ctypes.c_char()
        assert [near.readinto(each) for each in (characters, point, byte)] == [4, 8, 1]
        assert (characters.value, bytes(point), byte.value) == (b"abcd", b"12345678", b"x")
        whole = bytearray(b"........")
        far.do("f.write(b'abc'); f.write(b'xyz')")
        assert near.readinto(memoryview(whole)[2:5]) == 3
        assert whole == b"..abc..."
        assert near.readinto(whole) == 3
        assert whole == b"xyzbc..."

    @pytest.mark.parametrize("buffer", [b"read-only", memoryview(bytearray(8))[::2], "text"])
    def test_readinto_refuses_other_buffers_and_keeps_the_packet(self, near: Flow, far: Shell, buffer: Any) -> None:
        far.do("f.write(b'packet')")
        with pytest.raises((TypeError, BufferError)):
            near.readinto(buffer)
        assert near.read() == b"packet"


class TestBatches:
    @pytest.mark.needs("back-pressure")
    @pytest.mark.lossless
    def test_a_batch_is_written_and_read_in_order(self, near: Flow, far: Shell) -> None:
        far.do(HELPERS)
        packets = [pattern(1 + seed, seed) for seed in range(500)]
        assert near.write_many(packets) == 500
        arrived(far, 500)
        assert far.do("whole = f.read_many(1000); digest(whole)") == digest(packets)

    @pytest.mark.lossless
    def test_read_many_takes_at_most_what_is_there_and_what_is_asked_for(self, near: Flow, far: Shell) -> None:
        far.do("for number in range(100): f.write(b'%d' % number)")
        arrived(near, 100)
        assert near.read_many(1) == [b"0"]
        assert near.read_many(3) == [b"1", b"2", b"3"]
        assert len(near.read_many()) == 64
        assert near.read_many(10_000) == [b"%d" % number for number in range(68, 100)]
        with pytest.raises(ValueError, match="limit"):
            near.read_many(0)

    def test_read_many_starts_with_the_rest_of_a_packet(self, near: Flow, far: Shell) -> None:
        far.do("f.write(b'0123456789'); f.write(b'next')")
        arrived(near, 2)
        near.read(7)
        assert near.read_many() == [b"789", b"next"]

    def test_an_empty_batch_is_written(self, near: Flow, far: Shell) -> None:
        assert near.write_many([]) == 0
        assert near.write_many([b"a", b"", b"b"]) == 3
        arrived(far, 2)
        assert far.do("f.read_many()") == [b"a", b"b"]

    @pytest.mark.needs("back-pressure", "instant", "room")
    def test_write_many_tells_how_many_fit(self, near: Flow, far: Shell) -> None:
        near.set_flags(NON_BLOCKING)
        packets = [pattern(60_000, seed) for seed in range(100)]
        written = near.write_many(packets)
        assert 0 < written < 100
        with pytest.raises(FlowWouldBlockException):
            near.write_many(packets[written:])
        far.do(HELPERS)
        assert far.do("digest(f.read_many(100))") == digest(packets[:written])
        assert near.write_many(packets[written : written + 2]) == 2

    @pytest.mark.needs("back-pressure", "instant", "room")
    def test_write_many_tells_how_many_were_written_in_time(self, near: Flow, far: Shell) -> None:
        near.set_snd_timeout(0.01)
        written = near.write_many([bytes(60_000)] * 100)
        assert 0 < written < 100
        with pytest.raises(FlowTimeoutException):
            near.write_many([bytes(60_000)])
        assert far.do("len(f.read_many(100))") == written

    def test_write_many_stops_before_a_packet_that_is_too_long(self, near: Flow, far: Shell) -> None:
        packets = [b"a", b"b", bytes(MAX_PACKET + 1), b"c"]
        assert near.write_many(packets) == 2
        with pytest.raises(FlowSizeException):
            near.write_many(packets[2:])
        assert near.write_many(packets[3:]) == 1
        arrived(far, 3)
        assert far.do("f.read_many()") == [b"a", b"b", b"c"]

    @pytest.mark.needs("back-pressure", "long", "room")
    def test_a_batch_larger_than_the_ring_waits_for_the_reader(self, near: Flow, far: Shell) -> None:
        far.do(HELPERS)
        packets = [pattern(60_000, seed) for seed in range(TOO_MUCH // 60_000)]
        writer = Background(lambda: near.write_many(packets))
        writer.until_asleep("room")
        assert far.do(f"digest([f.read() for _ in range({len(packets)})])") == digest(packets)
        assert writer.result() == len(packets)


class Whole:
    """A whole number of a type that is not Python's, as of numpy."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class Real:
    """A real number of a type that is not Python's."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return self.value


#: Of no type that a timeout can have, or no timeout by their value.
WRONG_TYPES: tuple[Any, ...] = ("1", b"1", [1], 1j, True, object())
WRONG_VALUES: tuple[Any, ...] = (
    -1,
    -0.001,
    -math.inf,
    math.nan,
    -(10**400),
    Decimal("nan"),
    Fraction(-1, 3),
    Whole(-1),
)
NO_TIMEOUTS = [
    *((value, TypeError) for value in WRONG_TYPES),
    *((value, ValueError) for value in WRONG_VALUES),
]


class TestTimeouts:
    @pytest.mark.parametrize("timeout", [0, 0.0, 0.001, 0.05])
    def test_a_read_ends_at_its_timeout_and_not_before(self, near: Flow, far: Shell, timeout: float) -> None:
        near.set_rcv_timeout(timeout)
        calls: list[Callable[[], object]] = [
            near.read,
            near.readline,
            near.read_many,
            lambda: near.readinto(bytearray(9)),
        ]
        for call in calls:
            start = time.monotonic()
            with pytest.raises(FlowTimeoutException) as caught:
                call()
            assert time.monotonic() - start >= timeout
            assert isinstance(caught.value, TimeoutError)
        far.do("f.write(b'late')")
        arrived(near, 1)
        assert near.read() == b"late"

    @pytest.mark.needs("back-pressure", "long", "room")
    @pytest.mark.parametrize("timeout", [0, 0.001, 0.05])
    def test_a_write_ends_at_its_timeout_and_what_is_queued_survives(
        self, near: Flow, far: Shell, timeout: float
    ) -> None:
        near.set_snd_timeout(timeout)
        packets: list[bytes] = []
        starts = []

        def write_one() -> None:
            packet = pattern(60_000, len(packets))
            starts.append(time.monotonic())
            near.write(packet)
            packets.append(packet)

        with pytest.raises(FlowTimeoutException):
            forever(write_one)
        assert time.monotonic() - starts[-1] >= timeout
        far.do(HELPERS)
        assert far.do(f"digest([f.read() for _ in range({len(packets)})])") == digest(packets)
        assert far.do("f.get_rx_queue_len()") == 0

    def test_without_a_timeout_calls_wait(self, near: Flow, far: Shell) -> None:
        assert near.get_rcv_timeout() is None
        assert near.get_snd_timeout() is None
        reader = Background(near.read)
        reader.until_asleep("poll")
        far.do("f.write(b'at last')")
        assert reader.result() == b"at last"

    def test_a_timeout_can_be_taken_back(self, near: Flow, far: Shell) -> None:
        near.set_rcv_timeout(0)
        near.set_rcv_timeout(None)
        reader = Background(near.read)
        reader.until_asleep("poll")
        far.do("f.write(b'at last')")
        assert reader.result() == b"at last"

    def test_data_that_is_there_is_read_with_timeout_zero(self, near: Flow, far: Shell) -> None:
        far.do("f.write(b'here')")
        arrived(near, 1)
        near.set_rcv_timeout(0)
        assert near.read() == b"here"

    @pytest.mark.parametrize(
        ("timeout", "kept"),
        [
            (1.5, 1.5),
            (0, 0),
            (-0.0, 0),
            (None, None),
            (math.inf, None),
            (10**400, None),
            (Decimal("1.5"), 1.5),
            (Fraction(3, 2), 1.5),
            (Whole(2), 2),
            (Real(0.25), 0.25),
        ],
    )
    def test_timeouts_are_reported_as_set(self, near: Flow, timeout: float | None, kept: float | None) -> None:
        near.set_rcv_timeout(timeout)
        assert near.get_rcv_timeout() == kept
        near.set_snd_timeout(timeout)
        assert near.get_snd_timeout() == kept

    @pytest.mark.parametrize(("timeout", "kind"), NO_TIMEOUTS)
    def test_what_is_no_timeout_is_refused(self, near: Flow, timeout: Any, kind: type[Exception]) -> None:
        with pytest.raises(kind, match="timeo"):
            near.set_rcv_timeout(timeout)
        with pytest.raises(kind, match="timeo"):
            near.set_snd_timeout(timeout)
        assert near.get_rcv_timeout() is near.get_snd_timeout() is None
        with FlowSet([near]) as flows, pytest.raises(kind, match="timeout"):
            flows.wait(FEventQueue(), timeout)


class TestFlags:
    def test_a_new_flow_is_read_write_without_partial_writes(self, near: Flow, far: Shell) -> None:
        assert near.get_flags() == FlowProperties.ReadWrite | FlowProperties.NoPartialWrite
        assert int(near.get_flags()) == 0o20002

    @pytest.mark.parametrize("flag", list(FlowProperties))
    def test_flags_are_reported_as_set(self, near: Flow, flag: FlowProperties) -> None:
        near.set_flags(flag)
        assert near.get_flags() == flag

    def test_non_blocking_calls_do_not_wait(self, near: Flow, far: Shell) -> None:
        near.set_flags(NON_BLOCKING)
        calls: list[Callable[[], object]] = [
            near.read,
            near.readline,
            near.read_many,
            lambda: near.readinto(bytearray(9)),
        ]
        for call in calls:
            with pytest.raises(FlowWouldBlockException) as caught:
                call()
            assert isinstance(caught.value, BlockingIOError)
        far.do("f.write(b'now')")
        arrived(near, 1)
        assert near.read() == b"now"

    def test_non_blocking_wins_over_a_timeout(self, near: Flow, far: Shell) -> None:
        near.set_rcv_timeout(0)
        near.set_flags(READ_WRITE | FlowProperties.NonBlockingRead)
        with pytest.raises(FlowWouldBlockException):
            near.read()

    @pytest.mark.needs("back-pressure", "long")
    def test_reading_and_writing_are_made_non_blocking_one_by_one(self, near: Flow, far: Shell) -> None:
        near.set_flags(READ_WRITE | FlowProperties.NonBlockingWrite)
        near.set_rcv_timeout(0)
        with pytest.raises(FlowTimeoutException):
            near.read()
        near.set_flags(READ_WRITE | FlowProperties.NonBlockingRead)
        near.set_snd_timeout(0)
        with pytest.raises(FlowTimeoutException):
            forever(lambda: near.write(bytes(LONGEST)))

    @pytest.mark.parametrize("flags", [FlowProperties.ReadOnly, FlowProperties.NonBlockingRead])
    def test_a_read_only_flow_refuses_writes_and_can_be_undone(
        self, near: Flow, far: Shell, flags: FlowProperties
    ) -> None:
        near.set_flags(flags)
        calls: list[Callable[[], object]] = [
            lambda: near.write(b"x"),
            lambda: near.writeline("x"),
            lambda: near.write_many([b"x"]),
        ]
        for call in calls:
            with pytest.raises(FlowPermissionException) as caught:
                call()
            assert isinstance(caught.value, PermissionError)
        far.do("f.write(b'read only')")
        arrived(near, 1)
        assert near.read() == b"read only"
        near.set_flags(READ_WRITE)
        near.write(b"again")
        assert far.do("f.read()") == b"again"

    @pytest.mark.needs("instant")
    def test_a_write_only_flow_refuses_the_peer_and_can_be_undone(self, near: Flow, far: Shell) -> None:
        near.set_flags(FlowProperties.WriteOnly)
        for call in (near.read, near.readline, near.read_many, lambda: near.readinto(bytearray(1))):
            with pytest.raises(FlowPermissionException):
                call()
        with pytest.raises(FlowPermissionException):
            far.do("f.write(b'refused')")
        near.write(b"one way")
        assert far.do("f.read()") == b"one way"
        near.set_flags(READ_WRITE)
        far.do("f.write(b'taken')")
        assert near.read() == b"taken"
        near.write(b"both ways")
        assert far.do("f.read()") == b"both ways"

    def test_both_access_bits_at_once_are_refused(self, near: Flow) -> None:
        before = near.get_flags()
        with pytest.raises(ValueError, match="exclude"):
            near.set_flags(FlowProperties.WriteOnly | FlowProperties.ReadWrite)
        assert near.get_flags() == before

    @pytest.mark.needs("instant")
    def test_down_takes_both_ends_down_until_it_is_cleared(self, near: Flow, far: Shell) -> None:
        far.do("f.write(b'queued')")
        near.set_flags(READ_WRITE | FlowProperties.Down)
        assert near.read() == b"queued"
        for call in (near.read, lambda: near.write(b"x")):
            with pytest.raises(FlowDownException) as caught:
                call()
            assert not isinstance(caught.value, FlowPeerException)
        for code in ("f.read()", "f.write(b'x')"):
            with pytest.raises(FlowDownException):
                far.do(code)
        near.set_flags(READ_WRITE)
        near.write(b"up")
        assert far.do("f.read()") == b"up"
        far.do("f.write(b'up')")
        assert near.read() == b"up"

    @pytest.mark.needs("back-pressure", "shared-flags")
    def test_down_wakes_the_reader_and_the_writer_at_the_other_end(self, near: Flow, far: Shell) -> None:
        far.begin_blocked("f.read()", "poll")
        near.set_flags(READ_WRITE | FlowProperties.Down)
        with pytest.raises(FlowDownException):
            far.answer()
        near.set_flags(READ_WRITE)
        far.begin_blocked(f"f.write_many([bytes(60000)] * {TOO_MUCH // 60_000}); f.write(bytes(60000))", "room")
        near.set_flags(READ_WRITE | FlowProperties.Down)
        with pytest.raises(FlowDownException):
            far.answer()

    @pytest.mark.needs("back-pressure", "long")
    def test_down_wakes_the_readers_and_the_writer_of_its_own_process(self, near: Flow, far: Shell) -> None:
        readers: list[Background[Any]] = [Background(near.read), Background(near.readline)]
        for reader in readers:
            reader.until_asleep("poll")
        near.set_flags(READ_WRITE | FlowProperties.Down)
        for reader in readers:
            with pytest.raises(FlowDownException):
                reader.result()
        near.set_flags(READ_WRITE)
        writer: Background[Any] = Background(lambda: forever(lambda: near.write(bytes(60000))))
        writer.until_asleep("room")
        near.set_flags(READ_WRITE | FlowProperties.Down)
        with pytest.raises(FlowDownException):
            writer.result()

    def test_other_flags_leave_a_waiting_reader_alone(self, near: Flow, far: Shell) -> None:
        reader = Background(near.read)
        reader.until_asleep("poll")
        near.set_flags(READ_WRITE | FlowProperties.NonBlockingWrite)
        far.do("f.write(b'packet')")
        assert reader.result() == b"packet"


class TestQueues:
    @pytest.mark.needs("instant")
    def test_queue_lengths_count_packets_not_read(self, near: Flow, far: Shell) -> None:
        assert (near.get_rx_queue_len(), near.get_tx_queue_len()) == (0, 0)
        far.do("for _ in range(5): f.write(b'packet')")
        assert near.get_rx_queue_len() == 5
        assert far.do("f.get_tx_queue_len()") == 5
        near.read()
        assert near.get_rx_queue_len() == 4
        assert far.do("f.get_tx_queue_len()") == 4
        near.read(2)
        assert near.get_rx_queue_len() == 3
        near.read_many()
        assert (near.get_rx_queue_len(), far.do("f.get_tx_queue_len()")) == (0, 0)
        assert near.get_tx_queue_len() == 0

    @pytest.mark.needs("back-pressure", "instant")
    @pytest.mark.parametrize("size", [1, 1400, 64 * KIB, LONGEST])
    def test_a_full_ring_drops_nothing_when_non_blocking(self, near: Flow, far: Shell, size: int) -> None:
        far.do(HELPERS)
        near.set_flags(NON_BLOCKING)
        packets: list[bytes] = []

        def write_one() -> None:
            near.write(pattern(size, len(packets)))
            packets.append(pattern(size, len(packets)))

        with pytest.raises(FlowWouldBlockException):
            forever(write_one)
        assert near.get_tx_queue_len() == len(packets)
        assert far.do(f"digest([f.read() for _ in range({len(packets)})])") == digest(packets)
        assert near.write(b"room again") == 10
        assert far.do("f.read()") == b"room again"

    @pytest.mark.parametrize("size", [16, 100, 1000])
    def test_an_empty_ring_has_room_wherever_it_is(self, node: NodeProcess, size: int) -> None:
        for before in range(2000 // size + 2):
            acceptor = Background.waiting_for_node(lambda: flow_accept(name="myself"))
            with flow_alloc("myself") as writer, acceptor.result() as reader:
                writer.set_flags(NON_BLOCKING)
                for _ in range(before):
                    writer.write(bytes(size))
                    reader.read()
                assert writer.write_many([bytes(size)] * 100) == 100

    @pytest.mark.lossless
    @pytest.mark.needs("back-pressure")
    @pytest.mark.parametrize("size", [1400, pytest.param(LONGEST, marks=pytest.mark.needs("long", "room"))])
    def test_a_full_ring_makes_a_blocking_writer_wait_and_drops_nothing(
        self, near: Flow, far: Shell, size: int
    ) -> None:
        far.do(HELPERS)
        count = TOO_MUCH // size
        packets = [pattern(size, seed) for seed in range(count)]

        def write_all() -> int:
            return sum(near.write(packet) for packet in packets)

        writer = Background(write_all)
        writer.until_asleep("room")
        assert far.do(f"digest([f.read() for _ in range({count})])") == digest(packets)
        assert writer.result() == size * count


class TestEnd:
    def test_queued_packets_are_read_before_the_end_is_told(self, near: Flow, far: Shell) -> None:
        far.do("for number in range(3): f.write(b'%d' % number)")
        far.do("f.dealloc()")
        assert [near.read(), near.readline(), near.read_many()] == [b"0", "1", [b"2"]]
        for call in (near.read, near.readline, near.read_many, lambda: near.readinto(bytearray(1))):
            with pytest.raises(FlowDownException) as caught:
                call()
            assert isinstance(caught.value, ConnectionError)
            assert not isinstance(caught.value, FlowPeerException)

    def test_a_write_to_a_peer_that_is_gone_fails_at_once(self, near: Flow, far: Shell) -> None:
        far.do("f.dealloc()")
        with pytest.raises(FlowDownException):
            near.read()
        calls: list[Callable[[], object]] = [
            lambda: near.write(b"x"),
            lambda: near.writeline("x"),
            lambda: near.write_many([b"x"]),
        ]
        for call in calls:
            with pytest.raises(FlowDownException):
                call()

    @pytest.mark.needs("instant")
    def test_non_blocking_reads_tell_the_end(self, near: Flow, far: Shell) -> None:
        near.set_flags(NON_BLOCKING)
        far.do("f.write(b'last'); f.dealloc()")
        assert near.read() == b"last"
        with pytest.raises(FlowDownException):
            near.read()

    @pytest.mark.needs("back-pressure", "long", "room")
    def test_dealloc_does_not_wait_for_the_peer_to_read(self, near: Flow, far: Shell) -> None:
        near.set_flags(NON_BLOCKING)
        written = near.write_many([bytes(60_000)] * 100)
        near.dealloc()
        assert far.do(f"sum(len(f.read()) for _ in range({written}))") == written * 60_000
        with pytest.raises(FlowDownException):
            far.do("f.read()")

    def test_dealloc_can_be_repeated(self, near: Flow, far: Shell) -> None:
        for _ in range(3):
            near.dealloc()
        with pytest.raises(FlowDownException):
            far.do("f.read()")

    def test_a_deallocated_flow_refuses_everything(self, near: Flow, far: Shell) -> None:
        read, write = near.read, near.write
        near.dealloc()
        calls: list[Callable[[], object]] = [
            read,
            lambda: write(b"x"),
            near.read,
            near.readline,
            near.read_many,
            lambda: near.readinto(bytearray(1)),
            lambda: near.write(b"x"),
            lambda: near.writeline("x"),
            lambda: near.write_many([b"x"]),
            near.fileno,
            near.get_flags,
            lambda: near.set_flags(READ_WRITE),
            near.get_qos,
            near.get_rx_queue_len,
            near.get_tx_queue_len,
            near.get_rcv_timeout,
            near.get_snd_timeout,
            lambda: near.set_rcv_timeout(1),
            lambda: near.set_snd_timeout(1),
            lambda: near.flow_id,
        ]
        for call in calls:
            with pytest.raises(FlowNotAllocatedException):
                call()

    def test_closing_takes_a_flow(self, near: Flow, far: Shell) -> None:
        with closing(near):
            near.write(b"before")
        assert far.do("f.read()") == b"before"
        with pytest.raises(FlowDownException):
            far.do("f.read()")
        near.close()

    def test_iterating_gives_the_packets_until_the_peer_deallocates(self, near: Flow, far: Shell) -> None:
        far.do("f.write(b'one'); f.write(b'two'); f.dealloc()")
        assert list(near) == [b"one", b"two"]
        near.dealloc()
        with pytest.raises(FlowNotAllocatedException):
            next(near)

    @pytest.mark.needs("death")
    def test_iterating_over_a_flow_whose_peer_dies_raises(self, near: Flow, far: Shell) -> None:
        far.do("f.write(b'one')")
        packets = iter(near)
        assert next(packets) == b"one"
        far.kill()
        with pytest.raises(FlowPeerException):
            next(packets)

    def test_iterating_keeps_the_time_limit(self, near: Flow, far: Shell) -> None:
        near.set_rcv_timeout(0)
        with pytest.raises(FlowTimeoutException):
            list(near)

    def test_with_deallocates_also_when_it_raises(self, near: Flow, far: Shell) -> None:
        def use_and_fail() -> None:
            with near:
                near.write(b"before")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            use_and_fail()
        assert far.do("f.read()") == b"before"
        with pytest.raises(FlowDownException):
            far.do("f.read()")
        with pytest.raises(FlowNotAllocatedException):
            near.read()

    def test_a_dropped_flow_warns_and_is_deallocated(self, near: Flow, far: Shell) -> None:
        far.begin("g = flow_accept(name='pair')")
        flow = flow_alloc("pair")
        far.answer()
        with pytest.warns(ResourceWarning, match="never deallocated"):
            del flow
        with pytest.raises(FlowDownException):
            far.do("g.read()")
        far.do("g.dealloc()")


class TestReferences:
    """A call holds its flow, as does whatever was taken off it; a flow that nothing refers to is given back."""

    #: What the far end does with a flow, what the near end calls on one that it keeps no reference to, and the result.
    CALLS: tuple[tuple[str, Callable[[Flow], object], object], ...] = (
        ("g.write(b'hello')", lambda flow: flow.read, b"hello"),
        ("g.write(b'hello')", lambda flow: flow.readline, "hello"),
        ("g.write(b'hello')", lambda flow: flow.read_many, [b"hello"]),
        ("g.write(b'hello')", lambda flow: lambda: bytes(bytearray(flow.readinto(bytearray(9)))), bytes(5)),
        ("g.write(b'hello')", lambda flow: functools.partial(next, iter(flow)), b"hello"),
        ("g.write(b'hello\\n')", lambda flow: flow.makefile().readline, "hello\n"),
        ("g.read(1)", lambda flow: functools.partial(flow.write, b"x"), 1),
        ("g.read(1)", lambda flow: functools.partial(flow.writeline, "x"), 1),
        ("g.read(1)", lambda flow: functools.partial(flow.write_many, [b"x"]), 1),
    )

    def dropping(self) -> AbstractContextManager[object]:
        return pytest.warns(ResourceWarning, match="never deallocated")

    def temporary(self, far: Shell) -> Flow:
        far.begin("g = flow_accept(name='pair')")
        flow = flow_alloc("pair")
        far.answer()
        return flow

    @pytest.mark.parametrize(("other", "method", "result"), CALLS)
    def test_a_method_keeps_its_flow(
        self, near: Flow, far: Shell, other: str, method: Callable[[Flow], Callable[[], object]], result: object
    ) -> None:
        call = method(self.temporary(far))
        gc.collect()
        far.begin(other)
        with self.dropping():
            assert call() == result
            del call
        far.answer()
        with pytest.raises(FlowDownException):
            far.do("g.read(); g.read()")
        far.do("g.dealloc()")

    def test_a_flow_lasts_as_long_as_a_call_of_it(self, near: Flow, far: Shell) -> None:
        with self.dropping():
            reader = Background(self.temporary(far).read)
            gc.collect()
            assert far.do("g.write(b'at last')") == 7
            assert reader.result() == b"at last"
            del reader
        far.do("g.dealloc()")

    def test_a_method_that_is_kept_works_with_the_next_flow(self, near: Flow, far: Shell) -> None:
        read = near.read
        near.dealloc()
        with pytest.raises(FlowNotAllocatedException):
            read()
        far.do("f.dealloc()")
        far.begin("f = flow_accept(name='pair')")
        near.alloc("pair")
        far.answer()
        far.do("f.write(b'next')")
        assert read() == b"next"

    def test_dropping_the_last_reference_needs_no_garbage_collector(self, near: Flow, far: Shell) -> None:
        gc.disable()
        try:
            with self.dropping():
                read = self.temporary(far).read
                del read
        finally:
            gc.enable()
        with pytest.raises(FlowDownException):
            far.do("g.read()")
        far.do("g.dealloc()")

    @pytest.mark.parametrize("attempt", [copy.copy, copy.deepcopy, pickle.dumps])
    def test_a_flow_is_not_copied(self, near: Flow, far: Shell, attempt: Callable[[object], object]) -> None:
        class Mine(Flow):
            pass

        files = [near.makefile("rwb"), near.makefile("rb", 0)]
        with FlowSet([near]) as flows:
            for each, name in (
                (near, "Flow"),
                (Mine(), "Mine"),
                (aio.Flow(), "Flow"),
                (aio.Flow().stream(), "FlowStream"),
                (near._endpoint, "Endpoint"),
                (flows, "FlowSet"),
                (FEventQueue(), "FEventQueue"),
                (files[0], "BufferedRWPair"),
                (files[1], "FlowFile"),
            ):
                with pytest.raises(TypeError, match=name):
                    attempt(each)
        gc.collect()
        near.write(b"as before")
        assert far.do("f.read()") == b"as before"

    def test_a_dropped_flow_is_given_back_before_it_warns(self, near: Flow, far: Shell) -> None:
        flow = self.temporary(far)
        seen: list[Any] = []
        hook = sys.unraisablehook
        sys.unraisablehook = seen.append
        try:
            # As under `python -W error`: the warning is raised, and can be raised no further.
            del flow
        finally:
            sys.unraisablehook = hook
        assert [type(each.exc_value).__name__ for each in seen] == ["FlowDeallocWarning"]
        with pytest.raises(FlowDownException):
            far.do("g.read()")
        far.do("g.dealloc()")


class TestSubclasses:
    def test_methods_of_a_subclass_are_called_instead(self, near: Flow, far: Shell) -> None:
        class Loud(Flow):
            def read(self, count: int | None = None) -> bytes:
                return super().read(count).upper()

            def write(self, buf: Any, count: int | None = None) -> int:
                return super().write(bytes(buf) + b"!", count)

        far.begin("g = flow_accept(name='pair')")
        with Loud() as loud:
            loud.alloc("pair")
            far.answer()
            loud.write(b"hey")
            loud.writeline("you")
            assert far.do("[g.read(), g.read()]") == [b"hey!", b"you!"]
            far.do("g.write(b'what'); g.write(b'else'); g.write(b'now')")
            assert (loud.read(), loud.readline(), next(loud)) == (b"WHAT", "else", b"NOW")
        far.do("g.dealloc()")

    def test_a_subclass_that_forgets_to_call_init_works(self, near: Flow, far: Shell) -> None:
        class Mine(Flow):
            def __init__(self, color: str) -> None:
                self.color = color

        mine = Mine("red")
        assert "not allocated" in repr(mine)
        with pytest.raises(FlowNotAllocatedException):
            mine.read()
        far.begin("g = flow_accept(name='pair')")
        with mine:
            mine.alloc("pair")
            far.answer()
            mine.write(b"x", count=1)
            assert far.do("g.read()") == b"x"
        assert mine.color == "red"
        far.do("g.dealloc()")

    def test_a_flow_takes_no_arguments(self) -> None:
        with pytest.raises(TypeError):
            Flow("name")  # type: ignore[call-arg]


class Names(enum.StrEnum):
    ECHO = "echo"


class Mixed(str, enum.Enum):  # noqa: UP042 - it is the one that programs have had since 3.4
    ECHO = "echo"


class Text(str):
    """As numpy and markupsafe have one."""

    def __str__(self) -> str:
        return "another text"


class TestAllocation:
    def test_an_object_that_holds_a_flow_takes_no_second_one(self, near: Flow, far: Shell) -> None:
        calls: list[Callable[[], object]] = [
            lambda: near.alloc("pair", timeo=0),
            lambda: near.accept(timeo=0),
            lambda: near.join("pair"),
        ]
        for call in calls:
            with pytest.raises(FlowAllocatedException):
                call()
        near.write(b"still there")
        assert far.do("f.read()") == b"still there"

    def test_an_object_can_be_used_again_after_dealloc(self, near: Flow, far: Shell) -> None:
        near.set_flags(FlowProperties.ReadOnly)
        near.set_rcv_timeout(0)
        near.dealloc()
        far.do("f.dealloc()")
        far.begin("f.accept(name='pair')")
        near.alloc("pair")
        far.answer()
        assert near.get_flags() == FlowProperties.ReadWrite | FlowProperties.NoPartialWrite
        assert near.get_rcv_timeout() is None
        near.write(b"again")
        assert far.do("f.read()") == b"again"

    def test_a_new_object_holds_no_flow(self) -> None:
        flow = Flow()
        flow.dealloc()
        assert "not allocated" in repr(flow)
        with pytest.raises(FlowNotAllocatedException):
            flow.read()
        with flow, pytest.raises(FlowNotAllocatedException):
            flow.write(b"x")

    @pytest.mark.needs("checks")
    @pytest.mark.parametrize(
        "qos",
        [
            None,
            QoSSpec(),
            QoSSpec(delay=20, bandwidth=10**9, availability=5, loss=0, ber=0, in_order=1, timeout=1000),
            pytest.param(QoSSpec(loss=0, in_order=1, timeout=0), marks=pytest.mark.needs("endless")),
        ],
    )
    def test_both_ends_report_the_qos_that_was_asked_for(
        self, make_pair: Callable[..., Pair], qos: QoSSpec | None
    ) -> None:
        pair = make_pair(qos)
        assert qos in (None, msgspec.structs.replace(pair.qos, cypher_s=0))
        assert pair.near.get_qos() == pair.qos
        assert pair.far.do(f"f.get_qos() == {pair.qos!r}")

    def test_alloc_and_accept_return_the_qos(self, node: NodeProcess) -> None:
        qos = QoSSpec(loss=0, delay=7)
        with Flow() as one, Flow() as other:
            acceptor = Background.waiting_for_node(lambda: one.accept(name="qos"))
            assert other.alloc("qos", qos) == qos
            assert acceptor.result() == qos

    def test_a_flow_is_encrypted_as_strongly_as_was_asked(self, make_pair: Callable[..., Pair]) -> None:
        pair = make_pair(QoSSpec(cypher_s=192))
        assert pair.near.get_qos().cypher_s >= 192
        assert pair.far.do("f.get_qos().cypher_s") == pair.near.get_qos().cypher_s
        pair.near.write(b"secret")
        assert pair.far.do("f.read()") == b"secret"
        pair.far.do("f.write(b'so is this')")
        assert pair.near.read() == b"so is this"

    @pytest.mark.parametrize(("timeout", "kind"), NO_TIMEOUTS)
    def test_what_is_no_timeout_is_refused(self, node: NodeProcess, timeout: Any, kind: type[Exception]) -> None:
        calls: list[Callable[[], object]] = [
            lambda: flow_alloc("name", timeo=timeout),
            lambda: flow_accept(timeout),
            lambda: flow_join("name", None, timeout),
        ]
        for call in calls:
            with pytest.raises(kind, match="timeo"):
                call()
        with FlowServer("name", FlowRequestHandler) as server:
            server.timeout = timeout
            with pytest.raises(kind, match="timeo"):
                server.handle_request()

    @pytest.mark.parametrize("name", [Names.ECHO, Mixed.ECHO, Text("echo")], ids=lambda name: type(name).__name__)
    def test_a_name_of_a_subclass_of_str_is_taken_as_its_text(self, node: NodeProcess, name: str) -> None:
        acceptor = Background.waiting_for_node(lambda: flow_accept(name=name))
        with flow_alloc(name), acceptor.result():
            assert "echo" in [each.name for each in irm.list_names()]
        irm.create_name(irm.NameInfo(Text("created")))
        irm.destroy_name(Text("created"))
        irm.destroy_name(Text("echo"))

    @pytest.mark.parametrize("timeout", [0, 0.05])
    def test_accept_ends_at_its_timeout_and_not_before(self, node: NodeProcess, timeout: float) -> None:
        start = time.monotonic()
        with pytest.raises(FlowTimeoutException):
            flow_accept(timeo=timeout, name="nobody-asks")
        assert time.monotonic() - start >= timeout

    @pytest.mark.parametrize("timeout", [0, 0.05])
    def test_alloc_ends_at_its_timeout_and_not_before(self, node: NodeProcess, timeout: float) -> None:
        with pytest.raises(FlowTimeoutException):
            flow_accept(timeo=0, name="nobody-accepts")
        start = time.monotonic()
        with pytest.raises(FlowTimeoutException):
            flow_alloc("nobody-accepts", timeo=timeout)
        assert time.monotonic() - start >= timeout


class TestThreads:
    def test_a_program_can_have_a_flow_to_itself(self, node: NodeProcess) -> None:
        acceptor = Background.waiting_for_node(lambda: flow_accept(name="myself"))
        with flow_alloc("myself") as one, acceptor.result() as other:
            one.write(b"to")
            other.write(b"fro")
            assert (other.read(), one.read()) == (b"to", b"fro")
            reader = Background(one.read)
            reader.until_asleep("poll")
            other.write(b"wake up")
            assert reader.result() == b"wake up"

    @pytest.mark.needs("back-pressure")
    @pytest.mark.lossless
    def test_both_ends_read_and_write_at_the_same_time(self, near: Flow, far: Shell) -> None:
        far.do(HELPERS)
        count = 20_000
        packets = [pattern(1 + seed % 700, seed) for seed in range(count)]
        far.begin(
            f"""
            packets = [pattern(1 + seed % 700, seed) for seed in range({count})]
            writer = threading.Thread(target=lambda: [f.write(packet) for packet in packets])
            writer.start()
            got = digest([f.read() for _ in packets])
            writer.join()
            got
            """
        )
        writer = Background(lambda: [near.write(packet) for packet in packets])
        assert digest([near.read() for _ in packets]) == digest(packets)
        writer.result()
        assert far.answer() == digest(packets)

    @pytest.mark.lossless
    def test_readers_of_several_threads_share_the_packets(self, near: Flow, far: Shell) -> None:
        count = 5000
        shares: list[list[bytes]] = [[], [], []]

        def read_all(share: list[bytes]) -> None:
            while True:
                try:
                    share.append(near.read())
                except FlowDownException:
                    return

        readers = [Background(lambda share=share: read_all(share)) for share in shares]  # type: ignore[misc]
        for reader in readers:
            reader.until_asleep("poll")
        far.do(f"for number in range({count}): f.write(b'%d' % number)")
        far.do("f.dealloc()")
        for reader in readers:
            reader.result()
        assert sorted(int(packet) for share in shares for packet in share) == list(range(count))
        for share in shares:
            assert [int(packet) for packet in share] == sorted(int(packet) for packet in share)

    @pytest.mark.needs("back-pressure")
    @pytest.mark.lossless
    def test_writers_of_several_threads_lose_and_mix_nothing(self, near: Flow, far: Shell) -> None:
        far.begin("counts = [f.read() for _ in range(6000)]; sorted(counts) == sorted(set(counts)) and len(counts)")
        start = threading.Barrier(3)

        def write_all(mark: int) -> None:
            start.wait()
            for number in range(2000):
                near.write(b"%d %d" % (mark, number) * 100)

        writers = [Background(lambda mark=mark: write_all(mark)) for mark in range(3)]  # type: ignore[misc]
        for writer in writers:
            writer.result()
        assert far.answer() == 6000
        for mark in range(3):
            far.do(f"whole = [b'{mark} %d' % number * 100 for number in range(2000)]")
            assert far.do(f"[packet for packet in counts if packet.startswith(b'{mark} ')] == whole")


def ready(flow: Flow, how: str) -> bool:
    """Whether a poller that is asked once, without waiting, calls the flow readable: a moment after a packet is there."""
    if how == "select":
        return bool(select.select([flow], [], [], 0)[0])
    if how == "poll":
        poller = select.poll()
        poller.register(flow, select.POLLIN)
        return bool(poller.poll(0))
    with select.epoll() as epoll:
        epoll.register(flow.fileno(), select.EPOLLIN)
        return bool(epoll.poll(0))


@pytest.mark.parametrize("how", ["select", "poll", "epoll"])
class TestPolling:
    def test_an_idle_flow_is_not_readable(self, near: Flow, far: Shell, how: str) -> None:
        assert not ready(near, how)
        near.write(b"own packets do not count")
        assert not ready(near, how)

    def test_packets_from_before_the_first_fileno_make_it_readable(self, near: Flow, far: Shell, how: str) -> None:
        far.do("f.write(b'early')")
        arrived(near, 1)
        assert ready(near, how)

    def test_it_stays_readable_until_all_is_read(self, near: Flow, far: Shell, how: str) -> None:
        assert not ready(near, how)
        far.do("for _ in range(3): f.write(b'0123456789')")
        arrived(near, 3)
        until(lambda: ready(near, how))
        for _ in range(2):
            assert ready(near, how)
            near.read()
        assert ready(near, how)
        near.read(3)
        assert ready(near, how)
        near.read()
        assert not ready(near, how)
        far.do("f.write(b'more')")
        until(lambda: ready(near, how))
        assert near.read_many() == [b"more"]
        assert not ready(near, how)

    def test_the_mark_of_the_end_of_a_packet_is_readable(self, near: Flow, far: Shell, how: str) -> None:
        near.fileno()
        far.do("f.write(b'0123')")
        until(lambda: ready(near, how))
        assert near.read(4) == b"0123"
        assert ready(near, how)
        assert near.read(4) == b""
        assert not ready(near, how)

    def test_a_rest_from_before_the_first_fileno_is_readable(self, near: Flow, far: Shell, how: str) -> None:
        far.do("f.write(b'0123456789')")
        near.read(3)
        assert ready(near, how)
        near.read()
        assert not ready(near, how)

    def test_blocking_reads_do_not_disturb_it(self, near: Flow, far: Shell, how: str) -> None:
        near.fileno()
        for number in range(3):
            reader = Background(near.read)
            reader.until_asleep("poll")
            far.do(f"f.write(b'{number}')")
            assert reader.result() == b"%d" % number
            assert not ready(near, how)
        far.do("f.write(b'last')")
        until(lambda: ready(near, how))

    @pytest.mark.parametrize("end", ["f.dealloc()", "f.set_flags(FlowProperties.Down)"])
    @pytest.mark.needs("instant")
    def test_the_end_is_readable(self, near: Flow, far: Shell, how: str, end: str) -> None:
        far.do("f.write(b'last')")
        until(lambda: ready(near, how))
        far.do(end)
        near.read()
        for _ in range(2):
            assert ready(near, how)
            with pytest.raises(FlowDownException):
                near.read()

    @pytest.mark.needs("death")
    def test_a_killed_peer_is_readable(self, near: Flow, far: Shell, how: str) -> None:
        assert not ready(near, how)
        far.kill()
        until(lambda: ready(near, how))
        with pytest.raises(FlowPeerException):
            near.read()


class TestEpoll:
    def test_a_registered_flow_wakes_the_poller_at_each_packet_and_at_the_end(self, near: Flow, far: Shell) -> None:
        near.set_flags(NON_BLOCKING)
        with select.epoll() as epoll:
            epoll.register(near.fileno(), select.EPOLLIN)
            for number in range(100):
                far.begin(f"f.write(b'{number}')")
                assert epoll.poll()
                far.answer()
                assert near.read() == b"%d" % number
                assert not epoll.poll(0)
            far.begin("f.dealloc()")
            assert epoll.poll()
            with pytest.raises(FlowDownException):
                near.read()
            far.answer()

    @pytest.mark.lossless
    def test_an_edge_triggered_poller_that_reads_all_misses_nothing(self, near: Flow, far: Shell) -> None:
        near.set_flags(NON_BLOCKING)
        count, seen = 20_000, 0
        far.begin(f"for number in range({count}): f.write(b'%d' % number)")
        with select.epoll() as epoll:
            epoll.register(near.fileno(), select.EPOLLIN | select.EPOLLET)
            while seen < count:
                epoll.poll()
                try:
                    while True:
                        assert near.read() == b"%d" % seen
                        seen += 1
                except FlowWouldBlockException:
                    continue
        far.answer()

    def test_the_descriptor_is_closed_with_the_flow(self, near: Flow, far: Shell) -> None:
        with select.epoll() as epoll:
            descriptor = near.fileno()
            assert near.fileno() == descriptor
            epoll.register(descriptor, select.EPOLLIN)
            near.dealloc()
            with pytest.raises(FlowNotAllocatedException):
                near.fileno()
            with pytest.raises(OSError, match="Bad file descriptor"):
                epoll.modify(descriptor, select.EPOLLIN)
