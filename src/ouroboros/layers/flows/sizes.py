"""How long packets and messages of a flow may be, and how FRCP runs on it. Sizes are bytes."""

from __future__ import annotations

from typing import NamedTuple

from ouroboros.layers.face import MPL, Size
from ouroboros.qos import QoSSpec
from ouroboros.wire import extension
from ouroboros.wire.extension import Extension
from ouroboros.wire.suites import CIPHER_BY_NUMBER
from ouroboros.wire.udp import EID_LENGTH

#: Bytes that FRCP and the checksum add to a packet (`flows.md` 9); those of encryption depend on the cipher.
FRCP_LENGTH = 12
CRC_LENGTH = 4


class Sizes(NamedTuple):
    """Of one flow. `datagram`: the longest that what carries it need not cut. `packet`: the longest above encryption,
    checksum and endpoint id. `message`: the longest that a program may write."""

    datagram: int
    packet: int
    message: int

    @property
    def usable(self) -> bool:
        """Whether there is room for anything of a program."""
        return self.packet > FRCP_LENGTH and self.message > 0


class FrcpSettings(NamedTuple):
    """How FRCP runs on a flow: what the engine is told. `own`: the peer is a node of ours. `mpl`: nanoseconds."""

    reliable: bool
    own: bool
    sack: bool
    fragments: bool
    window: int
    max_packet: int
    mpl: int


def sizes_over(path: Size, qos: QoSSpec, peer: Extension | None, *, cipher: int = 0, max_message: int) -> Sizes:
    """`path`: of packets without their endpoint ids. `cipher`: the number of the one that encrypts, 0 for none; what a peer
    receives whole includes what it adds. `max_message`: what a ring takes, which is the limit where messages travel in
    fragments. A path or a peer that takes too little gives sizes that are not `usable`.
    """
    fragments = qos.ordered and _has(peer, extension.FRAGMENTS)
    if peer is not None:
        path = path.less(Size(peer.max_packet, peer.whole or path.whole))
    # With fragments, a longer message is carried in several packets, none of which has to be cut below.
    packet = min(path.most, path.whole) if fragments else path.most
    packet = below_checksum(packet - _overhead(cipher), qos)
    message = max_message if fragments else packet - (FRCP_LENGTH if qos.ordered else 0)
    return Sizes(max(path.whole + EID_LENGTH, 0), packet, message)


def size_for_members(sizes: Sizes, qos: QoSSpec, *, cipher: int = 0) -> Size:
    """Sizes of a flow for a layer above: 0 bytes `whole` if each packet has to be cut."""
    whole = below_checksum(sizes.datagram - EID_LENGTH - _overhead(cipher), qos) - (FRCP_LENGTH if qos.ordered else 0)
    return Size(sizes.message, max(min(whole, sizes.message), 0))


def below_checksum(packet: int, qos: QoSSpec) -> int:
    """The length of a packet without its checksum, if the flow has one."""
    return packet - CRC_LENGTH if qos.ber == 0 else packet


def frcp_of(qos: QoSSpec, peer: Extension | None, packet: int, *, mpl: int = MPL) -> FrcpSettings | None:
    """FRCP of a flow whose packets are so long at most; None for one without. `mpl`: of its layer."""
    if not qos.ordered:
        return None
    return FrcpSettings(
        reliable=qos.reliable,
        own=peer is not None,
        sack=_has(peer, extension.SACK),
        fragments=_has(peer, extension.FRAGMENTS),
        window=0 if peer is None else peer.window,
        max_packet=packet,
        mpl=mpl,
    )


def _overhead(cipher: int) -> int:
    return CIPHER_BY_NUMBER[cipher].overhead if cipher else 0


def _has(peer: Extension | None, flag: int) -> bool:
    return peer is not None and peer.has(flag)
