"""What is known of the encryption of a flow: `Flow.security`.

How to configure it, and from whom it protects: `docs/security.md`.
"""

from __future__ import annotations

import msgspec


class FlowSecurity(msgspec.Struct, frozen=True, array_like=True):
    """How an encrypted flow is protected.

    ================ ==================================================================================================
    field            meaning
    ================ ==================================================================================================
    suite            key exchange, cipher and derivation that were agreed on, in the words of `enc.conf`
    strength         size of the cipher's key, bits; the `cypher_s` of the flow's QoS
    peer_name        the name in the peer's certificate, proven; None for a peer without one
    peer_certificate that certificate, X.509 in DER
    ================ ==================================================================================================
    """

    suite: str
    strength: int
    peer_name: str | None = None
    peer_certificate: bytes | None = None


__all__ = ["FlowSecurity"]
