"""Files of captures, as an independent reader sees them."""

from __future__ import annotations

import io
import struct

import dpkt
import pytest
from capture_files import blocks, opened
from hypothesis import given
from hypothesis import strategies as st

from ouroboros.errors import ProtocolError
from ouroboros.wire import pcapng, tap

NOW = 1_800_000_000_123_456_789
HEAD = struct.Struct(">QBBH16sQQQQQI")


def mapped(host: str) -> bytes:
    return bytes(10) + b"\xff\xff" + bytes(map(int, host.split(".")))


def record(
    data: bytes, flags: int = 1, via: int = 0, port: int = 9, address: bytes = mapped("192.0.2.7"), below: int = 0
) -> tap.Record:
    return tap.decode(HEAD.pack(NOW, flags, via, port, address, below, 12, 100, 200, 3, len(data)) + data)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**63),
            st.binary(max_size=300),
            st.booleans(),
            st.text(max_size=30),
            st.integers(0, 2**64 - 1),
        ),
        max_size=5,
    )
)
def test_a_reader_finds_all_that_was_written(packets: list[tuple[int, bytes, bool, str, int]]) -> None:
    file = pcapng.section("a test") + pcapng.interface(pcapng.USER0, 65535, "net", "a layer")
    for time, data, outward, comment, dropped in packets:
        file += pcapng.packet(
            0, time, data, len(data) + 7, outward=outward, comment=comment.replace("\0", ""), dropped=dropped
        )
    file += pcapng.statistics(0, NOW, 9, 2)
    reader = dpkt.pcapng.Reader(io.BytesIO(file))
    assert reader.datalink() == pcapng.USER0
    assert [data for _, data in reader] == [data for _, data, *_ in packets]
    found = [opened(body) for kind, body in blocks(file) if kind == 6]
    assert [(each.ts_high << 32) + each.ts_low for each in found] == [time for time, *_ in packets]
    assert [each.pkt_len - each.caplen for each in found] == [7] * len(packets)
    for each, (_, _, outward, comment, dropped) in zip(found, packets, strict=True):
        options = {option.code: option.data for option in each.opts}
        assert options.get(1, b"").decode() == comment.replace("\0", "")
        assert options[2] == struct.pack("<I", 2 if outward else 1)
        assert options.get(4) == (struct.pack("<Q", dropped) if dropped else None)


@pytest.mark.parametrize("outward", [True, False])
@pytest.mark.parametrize("length", [0, 1, 4, 1400, 8980])
@pytest.mark.parametrize("family", [4, 6, "6, as a station"])
def test_a_datagram_has_the_headers_that_it_had_outside(family: int | str, length: int, outward: bool) -> None:
    data = bytes(number % 251 for number in range(length))
    far, near = (mapped("192.0.2.7"), "192.0.2.1") if family == 4 else (b"\x20\x01" + bytes(13) + b"\x07", "2001::1")
    if family == "6, as a station":
        # Anybody can send from such an address.
        far = STATION
    made, total = tap.datagram(record(data, int(outward), port=4000, address=far), (near, 3435))
    assert total == len(made)
    ip = dpkt.ip.IP(made) if family == 4 else dpkt.ip6.IP6(made)
    source, target = (ip.src, ip.dst) if outward else (ip.dst, ip.src)
    assert dpkt.utils.inet_to_str(source) == near
    assert target == (far[-4:] if family == 4 else far)
    assert (ip.udp.sport, ip.udp.dport) == ((3435, 4000) if outward else (4000, 3435))
    assert bytes(ip.udp.data) == data
    assert ip.udp.ulen == 8 + length
    if family == 4:
        # Computed anew.
        ip.sum = 0
        assert bytes(ip)[:20] == made[:20]
        assert ip.len == total
    else:
        right = ip.udp.sum
        assert right != 0
        ip.udp.sum = 0
        assert dpkt.ip6.IP6(bytes(ip)).udp.sum == right


def test_the_length_of_a_datagram_that_is_cut_off_is_that_of_all_of_it() -> None:
    cut = record(bytes(100))._replace(length=1400)
    made, total = tap.datagram(cut, ("192.0.2.1", 3435))
    assert (len(made), total) == (128, 1428)
    ip = dpkt.ip.IP(made)
    assert (ip.len, ip.udp.ulen) == (1428, 1408)


PCI = bytes([1, 2, 3, 0xAB, 2, 59, 4])
STATION = b"\x01" + bytes(9) + bytes.fromhex("020000000007")
FLOW_12 = "flow 12 (endpoint id 100 here, 200 there)"


@pytest.mark.parametrize(
    ("seen", "type", "text"),
    [
        (record(bytes(4), 1), "udp4", "to 192.0.2.7:9: management"),
        (record(bytes([0, 0, 0, 200, 1]), 5), "udp4", f"to 192.0.2.7:9: endpoint id 200, {FLOW_12}"),
        (record(bytes([0, 0, 0, 100, 1]), 6), "udp4", f"from 192.0.2.7:9: endpoint id 100, {FLOW_12}, encrypted"),
        (record(bytes([0, 0, 0, 100, 1]), 0), "udp4", "from 192.0.2.7:9: endpoint id 100"),
        (record(b"abc", 0), "udp4", "from 192.0.2.7:9: 3 bytes, too few for an endpoint id to be seen"),
        (record(b"hello", 9, 1, below=5), "unicast", "sent by flow 5 below: control message"),
        (record(b"hello", 1, 2), "broadcast", "within the node: 5 bytes"),
        (record(bytes(4), 1, address=STATION), "eth-dix", "to 02:00:00:00:00:07: management"),
        (record(bytes(4), 0, 1, below=5), "toy", "received by flow 5 below: management"),
    ],
)
def test_a_comment_says_in_words_what_a_packet_is(seen: tap.Record, type: str, text: str) -> None:
    assert tap.described(seen, "net", type) == f"layer net: {text}"


@pytest.mark.parametrize(
    ("eid", "text"),
    [
        (0, "flow allocator"),
        (1, "directory"),
        (9, "component 9"),
        (64, "endpoint id 64"),
        (2**63, f"endpoint id {2**63}"),
    ],
)
def test_a_comment_has_the_header_of_a_unicast_layer(eid: int, text: str) -> None:
    seen = record(PCI + eid.to_bytes(8, "little"), 0, 1, below=5)
    header = f"to member 01.02.03.ab, cube 2, TTL 59, ECN 4, {text}"
    assert tap.described(seen, "net", "unicast") == f"layer net: received by flow 5 below: {header}"
    cut = tap.described(seen._replace(data=seen.data[:14]), "net", "unicast")
    assert cut.endswith("15 bytes, too few for the header of the layer to be seen")


@given(st.binary(max_size=120), st.sampled_from(["udp4", "unicast", "broadcast", "local"]))
def test_any_bytes_are_a_record_that_can_be_shown_or_none(data: bytes, type: str) -> None:
    try:
        found = tap.decode(data)
    except ProtocolError:
        assert len(data) < 72 or data[9] > 2
    else:
        assert found.data == data[72:]
        assert tap.described(found, "net", type)
