"""What every type of layer answers to the verbs of its face, and what only one of them can."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from ouroboros.control.irm import IPCP_TYPES
from ouroboros.control.messages import IpcpEntry
from ouroboros.errors import IpcpBootstrapError, UnsupportedError
from ouroboros.layers.base import DEFAULT_HASH, HASHES, Ipcp
from ouroboros.layers.broadcast import BroadcastIpcp
from ouroboros.layers.local import LocalIpcp
from ouroboros.layers.udp import UdpIpcp

BUILT = [kind for kind in IPCP_TYPES.values() if kind is not None]
#: Those that are a layer as soon as they are told so. The others want a socket first: `test_udp_layer.py`.
WITHIN_A_NODE = [kind for kind in BUILT if not issubclass(kind, UdpIpcp)]


@pytest.fixture(params=WITHIN_A_NODE, ids=lambda kind: kind.type)
def ipcp(request: pytest.FixtureRequest) -> Ipcp:
    """An IPC process of each type, not bootstrapped."""
    kind: type[Ipcp] = request.param
    return kind(7, "it")


# --- conformance: every type


def test_a_type_is_known_to_the_irm_by_its_own_name() -> None:
    assert {kind.type: kind for kind in BUILT} == {type: kind for type, kind in IPCP_TYPES.items() if kind}


def test_types_differ_in_their_preference() -> None:
    assert len({kind.preference for kind in BUILT}) == len(BUILT)


def test_a_new_ipc_process_is_in_no_layer(ipcp: Ipcp) -> None:
    assert (ipcp.state, ipcp.layer) == ("boot", "")
    assert ipcp.entry() == IpcpEntry(7, "it", ipcp.type, "boot", "", DEFAULT_HASH)


@pytest.mark.parametrize("hash", HASHES)
def test_bootstrap_makes_a_member_of_the_layer(ipcp: Ipcp, hash: str) -> None:
    ipcp.bootstrap("lab", hash)
    assert ipcp.entry() == IpcpEntry(7, "it", ipcp.type, "operational", "lab", hash)


def test_bootstrap_works_once(ipcp: Ipcp) -> None:
    ipcp.bootstrap("lab", DEFAULT_HASH)
    with pytest.raises(IpcpBootstrapError, match="'it' is in layer 'lab' already"):
        ipcp.bootstrap("gym", "SHA3_512")
    assert (ipcp.layer, ipcp.hash) == ("lab", DEFAULT_HASH)


@pytest.mark.parametrize("hash", ["", "sha3_256", "MD5", "CRC32"])
def test_bootstrap_with_an_unknown_hash_leaves_it_in_boot(ipcp: Ipcp, hash: str) -> None:
    with pytest.raises(IpcpBootstrapError, match="unknown directory hash"):
        ipcp.bootstrap("lab", hash)
    assert (ipcp.state, ipcp.layer) == ("boot", "")


def test_the_digest_of_a_name_is_that_of_its_bytes(ipcp: Ipcp) -> None:
    # The vector of irm.md 1.2.
    assert ipcp.digest("oping").hex() == "42dee3b0415b4f690fd91cbd99876f1e9bd8d9745ef7fa32b142773af0349d54"
    ipcp.bootstrap("lab", "SHA3_512")
    assert ipcp.digest("ü") == hashlib.sha3_512("ü".encode()).digest()


def test_a_layer_does_not_know_a_name_that_nobody_registered(ipcp: Ipcp) -> None:
    assert not ipcp.query(ipcp.digest("x"))
    ipcp.bootstrap("lab", DEFAULT_HASH)
    assert not ipcp.query(ipcp.digest("x"))


def refusal(verb: Callable[[Any], None], argument: object) -> str | None:
    """Why the layer cannot do it, or None when it did."""
    try:
        verb(argument)
    except UnsupportedError as error:
        return str(error)
    return None


def test_a_layer_holds_names_or_says_that_it_cannot(ipcp: Ipcp) -> None:
    ipcp.bootstrap("lab", DEFAULT_HASH)
    holds_names = isinstance(ipcp, LocalIpcp)
    why = None if holds_names else f"IPC process 'it' of type {ipcp.type} cannot register names"
    assert refusal(ipcp.register, "x") == why
    assert ipcp.query(ipcp.digest("x")) == holds_names
    assert not ipcp.query(ipcp.digest("y"))
    for _ in range(2):
        assert refusal(ipcp.unregister, "x") == why
        assert not ipcp.query(ipcp.digest("x"))


def test_a_layer_takes_members_or_says_that_it_cannot(ipcp: Ipcp) -> None:
    ipcp.bootstrap("lab", DEFAULT_HASH)
    takes_members = isinstance(ipcp, BroadcastIpcp)
    beginning = f"IPC process 'it' of type {ipcp.type} cannot be"
    assert refusal(ipcp.join, 1) == (None if takes_members else f"{beginning} joined; only broadcast layers can")
    assert ipcp.entry().members == int(takes_members)
    for _ in range(2):
        assert refusal(ipcp.leave, 1) == (None if takes_members else f"{beginning} left")
        assert ipcp.entry().members == 0


def test_one_of_a_type_knows_nothing_of_another(ipcp: Ipcp) -> None:
    other = type(ipcp)(8, "other")
    for each in (ipcp, other):
        each.bootstrap("lab", DEFAULT_HASH)
    ipcp.names.add("x")
    if isinstance(ipcp, LocalIpcp):
        ipcp.register("x")
    if isinstance(ipcp, BroadcastIpcp):
        ipcp.join(1)
    assert other.names == set()
    assert not other.query(other.digest("x"))
    assert other.entry().members == 0


# --- what only one type can


def test_the_local_layer_registers_names_only_when_it_is_a_layer() -> None:
    ipcp = LocalIpcp(7, "l0")
    with pytest.raises(IpcpBootstrapError, match="IPC process 'l0' is in no layer yet: bootstrap it first"):
        ipcp.register("x")


def test_the_local_layer_tells_names_apart_by_case_and_bytes() -> None:
    ipcp = LocalIpcp(7, "l0")
    ipcp.bootstrap("lab", DEFAULT_HASH)
    ipcp.register("é")
    assert not any(ipcp.query(ipcp.digest(text)) for text in ("É", "e\u0301", "e"))


def test_the_broadcast_layer_knows_its_members_and_its_losses() -> None:
    ipcp = BroadcastIpcp(7, "b0")
    ipcp.bootstrap("lab", DEFAULT_HASH)
    for flow in (1, 5, 5):
        ipcp.join(flow)
    ipcp.lost = 3
    assert ipcp.members == {1, 5}
    assert (ipcp.entry().members, ipcp.entry().lost) == (2, 3)
