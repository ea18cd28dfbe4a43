"""Facts about the encryption of a flow: `Flow.security`.

How to configure it, and from whom it protects: `docs/security.md`.
"""

from __future__ import annotations

from typing import Any

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

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """For `repr`: of the certificate, only that there is one."""
        certificate = None if self.peer_certificate is None else _Certificate(len(self.peer_certificate))
        return [
            ("suite", self.suite),
            ("strength", self.strength),
            ("peer_name", self.peer_name),
            ("peer_certificate", certificate),
        ]

    def __repr__(self) -> str:
        return f"FlowSecurity({', '.join(f'{field}={value!r}' for field, value in self.__rich_repr__())})"


class _Certificate(int):
    def __repr__(self) -> str:
        return f"<{int(self)} bytes of DER>"


__all__ = ["FlowSecurity"]
