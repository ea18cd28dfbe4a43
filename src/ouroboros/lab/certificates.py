"""The certificates of a laboratory, and the authority that issues them: as files of the security directories of nodes."""

from __future__ import annotations

from collections.abc import Iterator

from ouroboros.lab.description import Certificate, Description
from ouroboros.layers.face import Random

#: Long enough for any laboratory.
_DAYS = 30


def issue(description: Description, *, random: Random, wall: int) -> dict[str, dict[str, bytes]]:
    """The files by node and path. `wall`: nanoseconds since 1970, when they begin to be valid."""
    files: dict[str, dict[str, bytes]] = {}
    if not description.certificates:
        return files
    from ouroboros.oap.issuing import make_authority, make_certificate

    authority = make_authority("laboratory", random=random, wall=wall, days=_DAYS)
    for name in description.names:
        files[name] = {"cacert/authority.pem": authority.certificate}
    for each in description.certificates:
        made = make_certificate(each.name, authority, random=random, wall=wall, days=_DAYS)
        for folder in _folders(each, description):
            files[each.node] |= {f"{folder}/crt.pem": made.certificate, f"{folder}/key.pem": made.key}
    return files


def _folders(certificate: Certificate, description: Description) -> Iterator[str]:
    if certificate.to is None:
        yield f"server/{certificate.name}"
        return
    layer = next((each for each in description.layers if each.name == certificate.to), None)
    for service in [certificate.to] if layer is None else map(layer.ipcp, layer.members):
        yield f"client/{service}"
