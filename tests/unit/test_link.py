"""A bad link between sockets, in this process."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support import descriptors, until

from ouroboros.errors import IpcpBootstrapError
from ouroboros.testing.impaired import Counters
from ouroboros.testing.link import Link, datagram_link

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def joined(stack: ExitStack, impair: str = "none", seed: int | None = None) -> tuple[Link, Ends]:
    """A link, and what is connected to its ends."""
    (one, near), (far, other) = (socket.socketpair(type=socket.SOCK_SEQPACKET) for _ in range(2))
    for each in (one, other):
        stack.enter_context(each)
        each.settimeout(30)
    return stack.enter_context(Link(near.detach(), far.detach(), impair, seed=seed)), (one, other)


def test_packets_go_both_ways(stack: ExitStack) -> None:
    _, (one, other) = joined(stack, "delay=1ms,jitter=1ms")
    for sender, receiver in ((one, other), (other, one)):
        for packet in (b"first", b"second" * 1000):
            sender.send(packet)
        assert [receiver.recv(10_000), receiver.recv(10_000)] == [b"first", b"second" * 1000]


def test_the_seed_decides_what_is_lost(stack: ExitStack) -> None:
    def came(text: str, seed: int | None = None) -> list[int]:
        link, ends = joined(stack, text, seed)
        for number in range(64):
            ends[0].send(bytes([number]))
        until(lambda: sum(link.counters[:2]) == 64)
        link.impair("none")
        ends[0].send(b"end")
        return [packet[0] for packet in iter(lambda: ends[1].recv(8), b"end")]

    assert 0 < len(came("loss=50%")) < 64
    assert came("loss=50%,seed=7") == came("loss=50%", 7) == came("loss=50%,seed=8", 7)
    assert came("loss=50%,seed=7") != came("loss=50%,seed=8")


def test_nothing_comes_through_a_partition(stack: ExitStack) -> None:
    link, (one, other) = joined(stack, "duplicate=100%")
    link.partition()
    one.send(b"nobody hears this")
    until(lambda: link.counters.lost > 0)
    link.heal()
    one.send(b"but this")
    assert [other.recv(20), other.recv(20)] == [b"but this", b"but this"]
    assert link.counters == Counters(delivered=2, lost=1, duplicated=1, reordered=0)


@pytest.mark.parametrize("text", ["loss", "loss=200%", "delay=5", "speed=1M"])
def test_wrong_words_are_named(stack: ExitStack, text: str) -> None:
    link, _ = joined(stack)
    with pytest.raises(IpcpBootstrapError, match=text.partition("=")[0]):
        link.impair(text)
    with pytest.raises(IpcpBootstrapError, match=text.partition("=")[0]):
        Link(-1, -1, text)


def test_a_link_needs_two_descriptors() -> None:
    for ends in ((-1, 5), (5, -1), (5, 5)):
        with pytest.raises(ValueError, match="not two descriptors"):
            Link(*ends)


def test_a_closed_link_keeps_its_counters_and_no_descriptor(stack: ExitStack) -> None:
    before = descriptors()
    link, (one, other) = joined(stack)
    one.send(b"hello")
    assert other.recv(8) == b"hello"
    until(lambda: link.counters.delivered == 1)
    link.close()
    link.close()
    assert one.recv(8) == b""
    one.close()
    other.close()
    assert descriptors() == before
    assert link.counters == Counters(delivered=1, lost=0, duplicated=0, reordered=0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_each_host_sees_a_face_instead_of_the_other(stack: ExitStack, host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    if ":" in host and not _has_ipv6():
        pytest.skip("no IPv6 on the loopback interface")
    sockets = [stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(4)]
    for each in sockets:
        each.settimeout(30)
        each.bind((host, 0))
    names = [each.getsockname()[:2] for each in sockets]
    # The ports of the faces were free a moment ago.
    for each in sockets[2:]:
        each.close()
    one, other = sockets[:2]
    with datagram_link((names[0], names[1]), (names[2], names[3])) as link:
        one.sendto(b"ask", names[2])
        packet, sender = other.recvfrom(10)
        assert (packet, sender[:2]) == (b"ask", names[3])
        other.sendto(b"answer", sender)
        packet, sender = one.recvfrom(10)
        assert (packet, sender[:2]) == (b"answer", names[2])
        assert link.counters.delivered == 2


def test_wrong_words_leave_no_descriptors() -> None:
    hosts, faces = (("127.0.0.1", 9), ("127.0.0.1", 9)), (("127.0.0.1", 0), ("127.0.0.1", 0))
    before = descriptors()
    with pytest.raises(IpcpBootstrapError, match="loss"):
        datagram_link(hosts, faces, "loss=2")
    assert descriptors() == before


def test_a_face_that_is_taken_is_an_error(stack: ExitStack) -> None:
    taken = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    taken.bind(("127.0.0.1", 0))
    host = ("127.0.0.1", 9)
    with pytest.raises(OSError, match="Address already in use"):
        datagram_link((host, host), (("127.0.0.1", 0), taken.getsockname()))


def _has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError:
            return False
    return True


def test_a_link_that_failed_by_itself_says_so_whatever_is_asked_of_it(stack: ExitStack) -> None:
    ends = [stack.enter_context(each) for _ in range(2) for each in socket.socketpair(type=socket.SOCK_SEQPACKET)]
    link = Link(ends[1].detach(), ends[2].detach())
    link._worker._panic()
    # Whose end is gone.
    assert ends[0].recv(1) == b""
    until(lambda: link._worker.failure is not None)
    for use in (lambda: link.counters, link.partition, link.close):
        with pytest.raises(RuntimeError, match=r"the link failed by itself.*provoked by a test"):
            use()
