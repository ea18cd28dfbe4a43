"""What is in the security directories of nodes in tests: an authority, certificates, settings."""

from __future__ import annotations

from functools import cache
from random import Random

from irm_world import WALL

from ouroboros.oap.issuing import Issued, make_authority, make_certificate

CACERT = "cacert/authority.pem"


@cache
def authority(name: str = "authority") -> Issued:
    return make_authority(name, random=Random(name), wall=WALL, days=3650)


@cache
def issued(name: str, issuer: str = "authority", days: int = 365) -> Issued:
    return make_certificate(name, authority(issuer), random=Random(name), wall=WALL, days=days)


def trusting(issuer: str = "authority") -> dict[str, bytes]:
    return {CACERT: authority(issuer).certificate}


def certified(place: str, name: str, issuer: str = "authority") -> dict[str, bytes]:
    """The certificate of `name` and its key, at `place`: `server/clock`, `client/clock`."""
    made = issued(name, issuer)
    return {f"{place}/crt.pem": made.certificate, f"{place}/key.pem": made.key}
