"""How much strangers may let the node compute.

An elliptic exchange takes a fraction of a millisecond. One in a finite field takes so long that a few dozen forged requests
in a second would leave the node no time for anything else.
"""

from __future__ import annotations

from ouroboros.oap.session import ECRYPT, OapError

_SECOND = 10**9

#: Milliseconds that an exchange takes, roughly.
_COSTS = {"ffdhe2048": 5, "ffdhe3072": 12, "ffdhe4096": 30}
#: Milliseconds in a second that are there for them, and for those of clients whose address is not proven.
SHARE = 300
SHARE_OF_STRANGERS = 100


class Budget:
    """What is left of a share. It fills up again within a second."""

    def __init__(self, share: int) -> None:
        self._share = share
        self._left = float(share)
        self._seen = 0

    def spend(self, kex: str, wall: int) -> None:
        """Raise `OapError` when too little is left for that exchange."""
        cost = _COSTS.get(kex)
        if cost is None:
            return
        elapsed = max(0, wall - self._seen)
        self._left = min(self._share, self._left + self._share * elapsed / _SECOND)
        self._seen = wall
        if cost > self._left:
            raise OapError(ECRYPT, f"too many clients without a certificate want {kex} at once, which is slow")
        self._left -= cost
