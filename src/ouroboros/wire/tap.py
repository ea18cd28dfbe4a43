"""Records of captures, which the engine writes (`rust/stack/src/tap.rs`), and what readers of a capture file get of them."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from ouroboros._hosts import written
from ouroboros.errors import ProtocolError
from ouroboros.wire.udp import EID_LENGTH

_HEAD = struct.Struct(">QBBH16sQQQQQI")
_OUTWARD, _SEALED, _KNOWN, _CONTROL = 1, 2, 4, 8
_VIA_PORT, _VIA_FLOW, _VIA_NOTHING = range(3)
#: In front of a packet of a unicast layer: destination, cube, TTL, ECN, endpoint id (`unicast-data.md` 2.1).
_PCI = struct.Struct("<IBBBQ")
#: The first endpoint id of flows of a unicast layer. Those before are of components; 0 is the flow allocator.
_FLOWS = 64
_COMPONENTS = {0: "flow allocator", 1: "directory"}

_UDP = 17
#: TTL of headers of IP that nobody has sent.
_TTL = 64


class Record(NamedTuple):
    """A packet that a member of a layer sent (`outward`) or got, as the engine tells of it.

    `time`: nanoseconds since 1970. `peer`: of a port, an address and a port of UDP, or the address of IPv6 that the engine
    has for a station (`rust/wire/src/ether.rs`) and its SAP; `below`: else the number of the flow that carried it, None for
    one within the node. `flow`, `ours`, `theirs`: of the flow of the layer that it belongs to, and its endpoint ids, None if
    it is not known to. `sealed`: that flow is encrypted. `control`: a word between control sides, with no header of the
    layer. `lost`: records before it that found no room. `length`: of the packet; `data` may be less of it.
    """

    time: int
    outward: bool
    peer: tuple[str, int] | None
    below: int | None
    flow: int | None
    ours: int
    theirs: int
    sealed: bool
    control: bool
    lost: int
    length: int
    data: bytes


def decode(record: bytes) -> Record:
    """Parse a record; raise `ProtocolError` when it is none."""
    if len(record) < _HEAD.size:
        raise ProtocolError(f"record of a capture: {len(record)} bytes, at least {_HEAD.size} are needed")
    time, flags, via, port, address, below, flow, ours, theirs, lost, length = _HEAD.unpack_from(record)
    if via not in (_VIA_PORT, _VIA_FLOW, _VIA_NOTHING):
        raise ProtocolError(f"record of a capture: via is {via}")
    return Record(
        time,
        bool(flags & _OUTWARD),
        (_host(address), port) if via == _VIA_PORT else None,
        below if via == _VIA_FLOW else None,
        flow if flags & _KNOWN else None,
        ours,
        theirs,
        bool(flags & _SEALED),
        bool(flags & _CONTROL),
        lost,
        length,
        record[_HEAD.size :],
    )


def _host(address: bytes) -> str:
    ip = IPv6Address(address)
    return str(ip.ipv4_mapped or ip)


# --- what a packet is, in plain words


def described(record: Record, layer: str, type: str) -> str:
    """What the packet is, for people. `type`: of the IPC process, a word of the command line."""
    way = "to" if record.outward else "from"
    if record.peer is not None:
        where = f"{way} {_station(record.peer) if type.startswith('eth') else written(record.peer)}"
    elif record.below is not None:
        where = f"{'sent' if record.outward else 'received'} by flow {record.below} below"
    else:
        where = "within the node"
    header = _unicast if type == "unicast" else _with_eid if record.peer or record.below is not None else _bare
    words = "control message" if record.control else header(record)
    if record.flow is not None:
        words += f", flow {record.flow}"
        if record.ours or record.theirs:
            words += f" (endpoint id {record.ours} here, {record.theirs} there)"
    if record.sealed:
        words += ", encrypted"
    return f"layer {layer}: {where}: {words}"


def _station(peer: tuple[str, int]) -> str:
    """One on a segment. It has no port; that of LLC has a service access point."""
    return IPv6Address(peer[0]).packed[10:].hex(":")


def _unicast(record: Record) -> str:
    if len(record.data) < _PCI.size:
        return f"{record.length} bytes, too few for the header of the layer to be seen"
    _, cube, ttl, ecn, eid = _PCI.unpack_from(record.data)
    # The first byte on the wire first, as people write it.
    member = record.data[:4].hex(".")
    what = f"endpoint id {eid}" if eid >= _FLOWS else _COMPONENTS.get(eid, f"component {eid}")
    return f"to member {member}, cube {cube}, TTL {ttl}, ECN {ecn}, {what}"


def _with_eid(record: Record) -> str:
    if len(record.data) < EID_LENGTH:
        return f"{record.length} bytes, too few for an endpoint id to be seen"
    eid = int.from_bytes(record.data[:EID_LENGTH], "big")
    return f"endpoint id {eid}" if eid else "management"


def _bare(record: Record) -> str:
    return f"{record.length} bytes"


# --- headers in front of datagrams


def datagram(record: Record, local: tuple[str, int]) -> tuple[bytes, int]:
    """What the packet of a port looked like outside, from or to `local`: headers of IP and UDP, and the packet. And its
    length, of which that may be the beginning.

    The headers are made up, but for addresses, ports and lengths. There is no checksum over IPv4, and over IPv6, where there
    has to be one, it is right unless the packet is cut off.
    """
    assert record.peer is not None, record
    source, target = (local, record.peer) if record.outward else (record.peer, local)
    udp_length = 8 + record.length
    udp = struct.pack(">HHHH", source[1], target[1], udp_length, 0)
    if ":" in record.peer[0]:
        ends = IPv6Address(source[0]).packed + IPv6Address(target[0]).packed
        if len(record.data) == record.length:
            pseudo = ends + struct.pack(">II", udp_length, _UDP)
            udp = udp[:6] + struct.pack(">H", _checksum(pseudo + udp + record.data) or 0xFFFF)
        ip = struct.pack(">IHBB", 6 << 28, udp_length, _UDP, _TTL) + ends
    else:
        ends = IPv4Address(source[0]).packed + IPv4Address(target[0]).packed
        ip = struct.pack(">BBHIBBH", 0x45, 0, 20 + udp_length, 0, _TTL, _UDP, 0) + ends
        ip = ip[:10] + struct.pack(">H", _checksum(ip)) + ip[12:]
    return ip + udp + record.data, len(ip) + udp_length


def _checksum(data: bytes) -> int:
    """That of the Internet (RFC 1071)."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
