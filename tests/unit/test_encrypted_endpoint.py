"""The two ends of a local flow encrypt: as any flow to them, ciphertext to everybody else."""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import NamedTuple

import pytest

from ouroboros.dataplane import MAX_PACKET, Endpoint, create_channel
from ouroboros.errors import FlowDownException, FlowException, FlowSizeException, FlowWouldBlockException

KEY = bytes(range(32))
SUITES = {
    "aes-128-gcm": 895,
    "aes-192-gcm": 898,
    "aes-256-gcm": 901,
    "chacha20-poly1305": 1018,
    "aes-128-ctr": 904,
    "aes-192-ctr": 905,
    "aes-256-ctr": 906,
}
AES = SUITES["aes-256-gcm"]
NO_WAITING = 0o3002
NO_PARTIAL_READ = 0o10000


class Pair(NamedTuple):
    near: Endpoint
    far: Endpoint


def ends(near: tuple[int, bytes] | None = (AES, KEY), far: tuple[int, bytes] | None = (AES, KEY)) -> Pair:
    """Both ends of a flow, each with its suite and key, or without."""
    memory, bell_0, bell_1 = create_channel()
    second = os.dup(memory)
    pair = Pair(
        Endpoint(memory, bell_0, 0, MAX_PACKET, *(near or ())), Endpoint(second, bell_1, 1, MAX_PACKET, *(far or ()))
    )
    for end in pair:
        end.flags = NO_WAITING
    return pair


def sealed(packet: bytes) -> bytes:
    """What the near end puts into the ring."""
    pair = ends(far=None)
    pair.near.write(packet)
    return pair.far.read()


def shows(end: Endpoint) -> tuple[bool, bool]:
    """Whether its descriptor is readable, and whether it says that there is a packet."""
    return bool(select.select([end.fileno()], [], [], 0)[0]), end.readable


@pytest.mark.parametrize("suite", SUITES.values(), ids=SUITES)
def test_packets_of_any_length_arrive_both_ways(suite: int) -> None:
    near, far = ends((suite, KEY), (suite, KEY))
    for length in (1, 15, 16, 17, 1400, 65_536, MAX_PACKET - 28):
        packet = os.urandom(length)
        assert near.write(packet) == length
        assert far.read() == packet
        assert far.write(packet) == length
        assert near.read() == packet


def test_ring_holds_ciphertext_only() -> None:
    near, far = ends(far=None)
    near.write(b"an open secret, said twice: an open secret")
    seen = far.read()
    assert b"secret" not in seen
    assert len(seen) == 42 + 28


def test_packet_is_read_in_parts_and_its_end_is_marked() -> None:
    near, far = ends()
    near.write(b"0123456789")
    near.write(b"next")
    assert [far.read(4), far.read(6), far.read(4), far.read()] == [b"0123", b"456789", b"", b"next"]


def test_reading_calls_find_the_plaintext() -> None:
    near, far = ends()
    target = bytearray(10)
    near.write_many([b"one", b"two", b"three", "vier ü".encode(), b"five"])
    assert far.read_many(2) == [b"one", b"two"]
    assert far.read_into(target) == 5
    assert target[:5] == b"three"
    assert far.read_text() == "vier ü"
    assert far.read_soon() == b"five"
    assert far.read_soon() is None


def test_packet_that_a_read_refuses_to_cut_stays() -> None:
    near, far = ends()
    far.flags = NO_WAITING | NO_PARTIAL_READ
    near.write(b"whole")
    with pytest.raises(FlowSizeException):
        far.read(4)
    assert far.receive_queue == 1
    assert far.read(5) == b"whole"


def test_text_that_is_none_stays() -> None:
    near, far = ends()
    near.write(b"\xff\xfe")
    with pytest.raises(UnicodeDecodeError):
        far.read_text()
    assert far.read() == b"\xff\xfe"


def test_queues_count_packets_as_on_any_flow() -> None:
    near, far = ends()
    for number in range(3):
        near.write(bytes([number]))
    assert (near.transmit_queue, far.receive_queue) == (3, 3)
    assert far.readable
    assert far.receive_queue == 3
    far.read()
    assert (near.transmit_queue, far.receive_queue) == (2, 2)


def test_descriptor_is_readable_for_packets_and_not_for_forgeries() -> None:
    near, far = ends(near=None)
    assert shows(far) == (False, False)
    near.write(bytes(100))
    # A false alarm, which the look settles.
    assert shows(far) == (True, False)
    assert shows(far) == (False, False)
    near.write(sealed(b"real"))
    assert shows(far) == (True, True)
    assert shows(far) == (True, True)
    assert far.read() == b"real"
    assert shows(far) == (False, False)


FORGERIES: dict[str, Callable[[bytes], bytes]] = {
    "first bit": lambda packet: bytes([packet[0] ^ 0x80]) + packet[1:],
    "last bit": lambda packet: packet[:-1] + bytes([packet[-1] ^ 1]),
    "in the middle": lambda packet: packet[:20] + bytes([packet[20] ^ 4]) + packet[21:],
    "cut": lambda packet: packet[:-1],
    "longer": lambda packet: packet + b"\0",
    "zeros": lambda packet: bytes(len(packet)),
    "too short": lambda packet: packet[:27],
    "empty": lambda packet: b"",
    "of another flow": lambda packet: (other := sealed(b"other"))[:-1] + bytes([other[-1] ^ 1]),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_forged_packet_is_dropped_and_counted(forge: Callable[[bytes], bytes]) -> None:
    near, far = ends(near=None)
    packet = sealed(b"genuine packet")
    forged = forge(packet)
    # An empty write sends nothing at all.
    near.write(forged)
    near.write(packet)
    assert far.read() == b"genuine packet"
    assert far.rejected == (1 if forged else 0)


def test_replayed_packet_is_dropped_and_counted() -> None:
    near, far = ends(near=None)
    packet = sealed(b"pay 100")
    for _ in range(3):
        near.write(packet)
    assert far.read_many(10) == [b"pay 100"]
    with pytest.raises(FlowWouldBlockException):
        far.read()
    assert far.rejected == 2


def test_packet_sent_back_is_dropped() -> None:
    near, far = ends(far=None)
    near.write(b"mine")
    far.write(far.read())
    assert near.read_soon() is None
    assert near.rejected == 1


def test_end_with_another_key_reads_nothing() -> None:
    near, far = ends((AES, KEY), (AES, bytes(32)))
    near.write(b"for somebody else")
    assert far.read_soon() is None
    assert far.rejected == 1


def test_queued_packets_are_read_after_the_peer_left() -> None:
    near, far = ends()
    near.write(b"last words")
    near.close()
    assert far.read() == b"last words"
    with pytest.raises(FlowDownException):
        far.read()


@pytest.mark.parametrize("length", [MAX_PACKET - 27, MAX_PACKET, MAX_PACKET + 1])
def test_packet_that_is_too_long_with_its_seal_is_refused(length: int) -> None:
    near, _ = ends()
    with pytest.raises(FlowSizeException, match=f"at most {MAX_PACKET - 28} bytes"):
        near.write(bytes(length))


def test_full_flow_takes_packets_again_once_some_were_read() -> None:
    near, far = ends()
    packets = [bytes([number % 256]) * 1400 for number in range(5000)]
    written = near.write_many(packets)
    assert 1000 < written < len(packets)
    with pytest.raises(FlowWouldBlockException):
        near.write(packets[written])
    assert far.read_many(written) == packets[:written]
    assert near.write(packets[written]) == 1400
    assert far.read() == packets[written]


@pytest.mark.parametrize(
    ("suite", "key", "text"),
    [
        (1, KEY, "number 1"),
        (0, KEY, "number 0"),
        (AES, bytes(31), "32 bytes"),
        (AES, b"", "32 bytes"),
        (AES, None, "32 bytes"),
    ],
    ids=["no such suite", "no suite", "short key", "empty key", "no key"],
)
def test_suite_or_key_that_is_none_is_an_error_that_does_not_tell_the_key(
    suite: int, key: bytes | None, text: str
) -> None:
    memory, bell_0, bell_1 = create_channel()
    os.close(bell_1)
    with pytest.raises(ValueError, match=text) as caught:
        Endpoint(memory, bell_0, 0, MAX_PACKET, suite, key)
    assert repr(KEY[4:8]) not in str(caught.value)
    for descriptor in (memory, bell_0):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.close(descriptor)


def test_child_of_a_fork_cannot_write_with_the_parents_key() -> None:
    near, far = ends()
    near.write(b"before")
    child = os.fork()
    if child == 0:
        result = 1
        try:
            near.write(b"from the child")
        except FlowException:
            result = 0
        finally:
            os._exit(result)
    assert os.waitpid(child, 0)[1] == 0
    near.write(b"after")
    assert far.read_many(10) == [b"before", b"after"]
