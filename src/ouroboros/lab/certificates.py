"""The certificates of a laboratory, the authority that issues them, and its policies: as files of the security directories
of nodes."""

from __future__ import annotations

from collections.abc import Iterator

from ouroboros.lab.description import Description
from ouroboros.layers.face import Random

#: Long enough for any laboratory.
_DAYS = 30


def issue(description: Description, *, random: Random, wall: int) -> dict[str, dict[str, bytes]]:
    """The files by node and path. `wall`: nanoseconds since 1970, when they begin to be valid."""
    files: dict[str, dict[str, bytes]] = {}
    for policy in description.policies:
        there = files.setdefault(policy.node, {})
        for folder in _folders(policy.name, policy.side, policy.node, description):
            for name, lines in (("policy.conf", policy.rules), ("enc.conf", policy.encryption)):
                if lines is not None:
                    there[f"{folder}/{name}"] = "".join(f"{line}\n" for line in lines).encode()
    if not description.certificates:
        return files
    from ouroboros.oap.issuing import make_authority, make_certificate

    authority = make_authority("laboratory", random=random, wall=wall, days=_DAYS)
    for name in description.names:
        files.setdefault(name, {})["cacert/authority.pem"] = authority.certificate
    for each in description.certificates:
        made = make_certificate(each.name, authority, random=random, wall=wall, days=_DAYS)
        name, side = (each.name, "server") if each.to is None else (each.to, "client")
        for folder in _folders(name, side, each.node, description):
            files[each.node] |= {f"{folder}/crt.pem": made.certificate, f"{folder}/key.pem": made.key}
    return files


def _folders(name: str, side: str, node: str, description: Description) -> Iterator[str]:
    """Of what a node has for a name. That of a layer stands for its members: for those that others ask on this node, and
    for all that it asks itself."""
    layer = next((each for each in description.layers if each.name == name), None)
    members = {} if layer is None else layer.members
    services = (
        [layer.ipcp(member) for member, at in members.items() if side == "client" or at == node] if layer else [name]
    )
    for service in services:
        yield f"{side}/{service}"
