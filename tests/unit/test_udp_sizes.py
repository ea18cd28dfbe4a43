"""How long packets and messages over UDP are, by what path, peer and flow allow."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from ouroboros.dataplane import Frcp, Setup, Simulation
from ouroboros.layers.face import MPL, Size
from ouroboros.layers.flows.sizes import (
    CRC_LENGTH,
    FRCP_LENGTH,
    Sizes,
    below_checksum,
    frcp_of,
    size_for_members,
    sizes_over,
)
from ouroboros.layers.udp.sizes import path_of
from ouroboros.qos import QoSSpec
from ouroboros.wire import extension
from ouroboros.wire.extension import Extension
from ouroboros.wire.suites import CIPHERS
from ouroboros.wire.udp import EID_LENGTH, PACKET_LENGTH

RING = 1 << 20
RAW, CHECKED = QoSSpec(), QoSSpec(ber=0)
ORDERED, RELIABLE = QoSSpec(in_order=1), QoSSpec(loss=0, ber=0)

FAMILIES = st.sampled_from(["udp4", "udp6"])
FLOWS = st.sampled_from([RAW, CHECKED, ORDERED, RELIABLE])
ANY_PEER = st.none() | st.builds(
    Extension,
    st.integers(0, 255),
    st.integers(extension.LEAST_PACKET, extension.LONGEST_PACKET),
    st.integers(0, 2**32 - 1),
    st.just(bytes(16)),
)
ANY_QOS = st.builds(QoSSpec, loss=st.integers(0, 1), ber=st.integers(0, 1), in_order=st.integers(0, 1))
#: The smallest MTU that a kernel lets a path of IPv4 have is 68.
ANY_PATH = st.builds(path_of, FAMILIES, st.integers(0, 65_535)) | st.builds(
    Size, st.integers(-4, 70_000), st.integers(-4, 70_000)
)
PEERS = st.none() | st.builds(
    Extension, st.integers(0, 63), st.integers(1000, 65_535), st.integers(0, 2**32 - 1), st.just(bytes(16))
)
MTUS = st.integers(1280, 65_535)
NUMBERS = st.sampled_from([0, *(cipher.number for cipher in CIPHERS)])


def sizes_of(
    family: str, mtu: int, qos: QoSSpec, peer: Extension | None, *, cipher: int = 0, max_message: int
) -> Sizes:
    return sizes_over(path_of(family, mtu), qos, peer, cipher=cipher, max_message=max_message)


def ours(flags: int, max_packet: int = 65_535) -> Extension:
    return Extension(flags, max_packet, 4096, bytes(16))


@pytest.mark.parametrize(("family", "headers", "packet"), [("udp4", 28, 8976), ("udp6", 48, 8948)])
def test_a_raw_flow_takes_the_longest_packet_of_its_family_whatever_the_path(
    family: str, headers: int, packet: int
) -> None:
    assert sizes_of(family, 1500, RAW, None, max_message=RING) == (1500 - headers, packet, packet)


@pytest.mark.parametrize(("qos", "packet"), [(RAW, 8976), (CHECKED, 8972), (ORDERED, 8976), (RELIABLE, 8972)])
def test_a_checksum_takes_its_bytes_of_the_packet_and_frcp_its_header_of_the_message(qos: QoSSpec, packet: int) -> None:
    sizes = sizes_of("udp4", 1500, qos, None, max_message=RING)
    assert sizes.packet == below_checksum(8976, qos) == packet
    assert sizes.message == packet - (12 if qos.ordered else 0)


def test_a_peer_gets_no_longer_packets_than_it_receives_whole() -> None:
    assert sizes_of("udp4", 9000, RAW, ours(0, 1400), max_message=RING).packet == 1400
    assert sizes_of("udp4", 9000, RAW, ours(0, 9000), max_message=RING).packet == 8976


@pytest.mark.parametrize(("whole", "datagram"), [(0, 1472), (2000, 1472), (1000, 1004)])
def test_fragments_cross_the_whole_way_in_one_piece_as_far_as_the_peer_knows_it(whole: int, datagram: int) -> None:
    peer = Extension(extension.FRAGMENTS, 8976, 4096, bytes(16), whole)
    sizes = sizes_of("udp4", 1500, RELIABLE, peer, max_message=RING)
    assert sizes == (datagram, datagram - EID_LENGTH - CRC_LENGTH, RING)
    # Without them, messages may be longer, and are cut below.
    assert sizes_of("udp4", 1500, RAW, peer, max_message=RING) == (datagram, 8976, 8976)


def test_fragments_fit_the_path_and_messages_the_ring() -> None:
    sizes = sizes_of("udp4", 1500, RELIABLE, ours(extension.FRAGMENTS), max_message=RING)
    assert sizes == (1472, 1472 - EID_LENGTH - CRC_LENGTH, RING)


def test_a_flow_without_order_has_no_fragments() -> None:
    assert sizes_of("udp4", 1500, RAW, ours(extension.FRAGMENTS), max_message=RING).message == 8976


@given(FAMILIES, MTUS, FLOWS, PEERS, NUMBERS)
def test_what_is_added_to_the_longest_packet_never_makes_it_too_long_for_the_peer(
    family: str, mtu: int, qos: QoSSpec, peer: Extension | None, number: int
) -> None:
    sizes = sizes_of(family, mtu, qos, peer, cipher=number, max_message=RING)
    cipher = next((cipher for cipher in CIPHERS if cipher.number == number), None)
    whole = sizes.packet + (CRC_LENGTH if qos.ber == 0 else 0) + (cipher.overhead if cipher else 0)
    limit = min(PACKET_LENGTH[family], PACKET_LENGTH[family] if peer is None else peer.max_packet)
    assert whole <= limit
    if peer is not None and peer.has(extension.FRAGMENTS) and qos.ordered:
        assert whole == min(limit, sizes.datagram - EID_LENGTH)
        assert sizes.message == RING
    else:
        assert whole == limit
        assert sizes.message == sizes.packet - (FRCP_LENGTH if qos.ordered else 0)


def engine_takes(sizes: Sizes, qos: QoSSpec, peer: Extension | None) -> None:
    """Raises what the engine raises. Carries a packet of a program as well."""
    node = Simulation().add_node()
    member = node.open_member("transfer")
    flow, lower = node.name(), node.name()
    settings = frcp_of(qos, peer, sizes.packet)
    frcp = None if settings is None else Frcp(**settings._asdict())
    setup = Setup(flow=flow, member=member, side=0, lower=lower, mtu=sizes.datagram, crc=qos.ber == 0, frcp=frcp)
    node.add([setup])
    node.write(flow, bytes(min(sizes.message, 100)))
    # What Rust takes of a number for a program.
    assert 0 < sizes.message <= RING


@given(ANY_PATH, ANY_QOS, ANY_PEER, NUMBERS, st.integers(0, 3))
def test_sizes_of_any_flow_are_those_that_the_engine_takes_or_not_usable(
    path: Size, qos: QoSSpec, peer: Extension | None, number: int, depth: int
) -> None:
    """So are those of the flows over it, however little is left."""
    for _ in range(depth + 1):
        sizes = sizes_over(path, qos, peer, cipher=number, max_message=RING)
        assert sizes.datagram >= 0
        if not sizes.usable:
            return
        engine_takes(sizes, qos, peer)
        below = size_for_members(sizes, qos, cipher=number)
        assert below.most >= below.whole >= 0
        path = Size(below.most - EID_LENGTH, below.whole - EID_LENGTH)


@pytest.mark.parametrize("mtu", [0, 28, 32, 48, 64])
def test_a_path_of_next_to_nothing_carries_no_fragments(mtu: int) -> None:
    sizes = sizes_of("udp4", mtu, RELIABLE, ours(extension.FRAGMENTS), cipher=CIPHERS[0].number, max_message=RING)
    assert not sizes.usable


def test_a_peer_that_takes_the_least_takes_something_of_any_flow() -> None:
    for cipher in CIPHERS:
        peer = ours(extension.FRAGMENTS, extension.LEAST_PACKET)
        sizes = sizes_of("udp4", 1500, RELIABLE, peer, cipher=cipher.number, max_message=RING)
        assert sizes.usable


def test_a_flow_without_order_has_no_frcp() -> None:
    assert frcp_of(RAW, ours(extension.SACK), 1400) is None


def test_frcp_with_the_prototype_does_nothing_that_the_prototype_cannot() -> None:
    assert frcp_of(RELIABLE, None, 8972) == (True, False, False, False, 0, 8972, MPL)
    assert frcp_of(ORDERED, None, 8976) == (False, False, False, False, 0, 8976, MPL)


@given(st.integers(0, 63))
def test_frcp_with_a_node_of_ours_does_what_the_peer_said(flags: int) -> None:
    settings = frcp_of(RELIABLE, ours(flags), 1400)
    sack, fragments = bool(flags & extension.SACK), bool(flags & extension.FRAGMENTS)
    assert settings == (True, True, sack, fragments, 4096, 1400, MPL)


def test_the_longest_life_of_a_packet_is_that_of_the_prototype() -> None:
    assert MPL == 5_000_000_000, "both ends must assume the same"
