"""The Ouroboros Allocation Protocol: what two nodes agree on before packets flow, and how they know each other.

One request, one response. `ClientHandshake` is the side that allocates, `Server` the node that accepts; each is given
the `Settings` of its side for that name, and both end with a `Session`. Bytes, the wall clock (nanoseconds since 1970)
and a source of randomness are arguments; the latter has to be `random.SystemRandom`, except in tests.

`cryptography` is imported when the first request with a key or a certificate needs it, because it takes longer to
import than everything else in a node.
"""

from ouroboros.oap.handshake import ClientHandshake, Received, Server
from ouroboros.oap.negotiation import asking
from ouroboros.oap.session import (
    EAUTH,
    ECRYPT,
    Encryption,
    OapError,
    Policy,
    Session,
    Settings,
    refusal,
)

__all__ = [
    "EAUTH",
    "ECRYPT",
    "ClientHandshake",
    "Encryption",
    "OapError",
    "Policy",
    "Received",
    "Server",
    "Session",
    "Settings",
    "asking",
    "refusal",
]
