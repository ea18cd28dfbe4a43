"""What every type of layer answers to the verbs of its face, and what only one of them can."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any, cast

import msgspec
import pytest

from ouroboros.errors import IpcpBootstrapError, UnsupportedError
from ouroboros.layers.base import DEFAULT_HASH, HASHES, RESTORATION_TIME, RESTORATIONS, Ipcp
from ouroboros.layers.broadcast import BroadcastIpcp
from ouroboros.layers.ethernet import EthIpcp
from ouroboros.layers.face import Host, Lower, PostedUpper, Posts, Task, Upper
from ouroboros.layers.local import LocalIpcp
from ouroboros.layers.udp import UdpIpcp
from ouroboros.layers.unicast.member import UnicastIpcp
from ouroboros.oap import Server
from ouroboros.runtime.node import IPCP_TYPES
from ouroboros.settings import DirectoryHashAlgo
from ouroboros.wire.control import BroadcastDetails, Details, IpcpEntry, UnicastDetails

BUILT = list(IPCP_TYPES.values())
#: Those that are a layer as soon as they are told so. The others want a socket first: `test_udp_layer.py`,
#: `test_ethernet_layer.py`.
WITHIN_A_NODE = [kind for kind in BUILT if not issubclass(kind, UdpIpcp | EthIpcp)]
#: What types have to say of themselves that are as they began.
DETAILS: dict[str, Details] = {"broadcast": BroadcastDetails(), "unicast": UnicastDetails()}
IN_A_LAYER = DETAILS | {"unicast": UnicastDetails(enroll=("anyone",))}


@pytest.fixture(params=WITHIN_A_NODE, ids=lambda kind: kind.type)
def ipcp(request: pytest.FixtureRequest) -> Ipcp:
    """An IPC process of each type, not bootstrapped."""
    kind: type[Ipcp] = request.param
    return kind(7, "it", host())


def host() -> Host:
    """A node around it, without a flow manager: nothing here is asked of one."""
    posts = Posts()
    return Host([], random.Random(1), lambda: 0, Server(), PostedUpper(cast(Upper, None), posts), cast(Lower, None))


def bootstrap(ipcp: Ipcp, layer: str, hash: str) -> list[object]:
    """The answers to a bootstrap."""
    posts, answers = Posts(), list[object]()
    ipcp.bootstrap(layer, ipcp.settings(DirectoryHashAlgo[hash]), Task(posts, answers.append), 0.0)
    posts.settle()
    return answers


def entry(ipcp: Ipcp) -> IpcpEntry:
    """Its row, without what it drew and what it has not counted."""
    row = ipcp.entry()
    details = row.details
    if isinstance(details, UnicastDetails):
        details = msgspec.structs.replace(details, address="")
    counters = {name: count for name, count in row.counters.items() if count}
    return msgspec.structs.replace(row, details=details, counters=counters)


# --- conformance: every type


def test_a_type_is_known_to_the_irm_by_its_own_name() -> None:
    assert {kind.type: kind for kind in BUILT} == {type: kind for type, kind in IPCP_TYPES.items() if kind}


def test_types_differ_in_their_preference() -> None:
    assert len({kind.preference for kind in BUILT}) == len(BUILT)


def test_a_new_ipc_process_is_in_no_layer(ipcp: Ipcp) -> None:
    assert (ipcp.state, ipcp.layer) == ("boot", "")
    assert entry(ipcp) == IpcpEntry(7, "it", ipcp.type, "boot", "", DEFAULT_HASH, DETAILS.get(ipcp.type))


@pytest.mark.parametrize("hash", HASHES)
def test_bootstrap_makes_a_member_of_the_layer(ipcp: Ipcp, hash: str) -> None:
    assert bootstrap(ipcp, "lab", hash) == [7]
    assert entry(ipcp) == IpcpEntry(7, "it", ipcp.type, "operational", "lab", hash, IN_A_LAYER.get(ipcp.type))


def test_bootstrap_works_once(ipcp: Ipcp) -> None:
    bootstrap(ipcp, "lab", DEFAULT_HASH)
    with pytest.raises(IpcpBootstrapError, match="'it' is in layer 'lab' already"):
        bootstrap(ipcp, "gym", "SHA3_512")
    assert (ipcp.layer, ipcp.hash) == ("lab", DEFAULT_HASH)


def test_the_digest_of_a_name_is_that_of_its_bytes(ipcp: Ipcp) -> None:
    # The vector of `irm.md` 1.2.
    assert ipcp.digest("oping").hex() == "42dee3b0415b4f690fd91cbd99876f1e9bd8d9745ef7fa32b142773af0349d54"
    bootstrap(ipcp, "lab", "SHA3_512")
    assert ipcp.digest("ü") == hashlib.sha3_512("ü".encode()).digest()


def test_a_layer_does_not_know_a_name_that_nobody_registered(ipcp: Ipcp) -> None:
    assert not ipcp.query(ipcp.digest("x"))
    bootstrap(ipcp, "lab", DEFAULT_HASH)
    assert not ipcp.query(ipcp.digest("x"))


def test_a_layer_that_breaks_begins_again_a_few_times_and_then_has_failed(ipcp: Ipcp) -> None:
    bootstrap(ipcp, "lab", DEFAULT_HASH)
    for number in range(RESTORATIONS):
        assert ipcp.broke("out of luck", float(number))
        assert entry(ipcp).counters == {"restored": number + 1}
    assert ipcp.state == "operational"
    assert not ipcp.broke("no luck at all", RESTORATIONS)
    assert (ipcp.state, ipcp.entry().state) == ("failed", "failed: no luck at all")
    with pytest.raises(IpcpBootstrapError, match=r"has failed \(no luck at all\): destroy its IPC process 'it'"):
        bootstrap(ipcp, "lab", DEFAULT_HASH)


def test_a_layer_that_breaks_now_and_then_begins_again_each_time(ipcp: Ipcp) -> None:
    bootstrap(ipcp, "lab", DEFAULT_HASH)
    for number in range(20):
        assert ipcp.broke("bad day", number * RESTORATION_TIME / RESTORATIONS)
    assert ipcp.restored == 20


def refusal(verb: Callable[[Any, float], None], argument: object) -> str | None:
    """Why the layer cannot do it, or None when it did."""
    try:
        verb(argument, 0.0)
    except UnsupportedError as error:
        return str(error)
    return None


def test_a_layer_holds_names_or_says_that_it_cannot(ipcp: Ipcp) -> None:
    bootstrap(ipcp, "lab", DEFAULT_HASH)
    holds_names = isinstance(ipcp, LocalIpcp | UnicastIpcp)
    why = None if holds_names else f"IPC process 'it' of type {ipcp.type} cannot register names"
    assert refusal(ipcp.register, "x") == why
    assert ipcp.query(ipcp.digest("x")) == holds_names
    assert not ipcp.query(ipcp.digest("y"))
    for _ in range(2):
        assert refusal(ipcp.unregister, "x") == why
        assert not ipcp.query(ipcp.digest("x"))


def test_a_layer_takes_members_or_says_that_it_cannot(ipcp: Ipcp) -> None:
    bootstrap(ipcp, "lab", DEFAULT_HASH)
    takes_members = isinstance(ipcp, BroadcastIpcp)
    beginning = f"IPC process 'it' of type {ipcp.type} cannot be"
    assert refusal(ipcp.join, 1) == (None if takes_members else f"{beginning} joined; only broadcast layers can")
    assert ipcp.entry().members == int(takes_members)
    for _ in range(2):
        assert refusal(ipcp.leave, 1) == (None if takes_members else f"{beginning} left")
        assert ipcp.entry().members == 0


def test_one_of_a_type_knows_nothing_of_another(ipcp: Ipcp) -> None:
    other = type(ipcp)(8, "other", host())
    for each in (ipcp, other):
        bootstrap(each, "lab", DEFAULT_HASH)
    ipcp.names.add("x")
    if isinstance(ipcp, LocalIpcp):
        ipcp.register("x", 0.0)
    if isinstance(ipcp, BroadcastIpcp):
        ipcp.join(1, 0.0)
    assert other.names == set()
    assert not other.query(other.digest("x"))
    assert other.entry().members == 0


# --- what only one type can


def test_the_local_layer_registers_names_only_when_it_is_a_layer() -> None:
    ipcp = LocalIpcp(7, "l0", host())
    with pytest.raises(IpcpBootstrapError, match="IPC process 'l0' is in no layer yet: bootstrap it first"):
        ipcp.register("x", 0.0)


def test_the_local_layer_tells_names_apart_by_case_and_bytes() -> None:
    ipcp = LocalIpcp(7, "l0", host())
    bootstrap(ipcp, "lab", DEFAULT_HASH)
    ipcp.register("é", 0.0)
    assert not any(ipcp.query(ipcp.digest(text)) for text in ("É", "e\u0301", "e"))


def test_the_broadcast_layer_knows_its_members_and_its_losses() -> None:
    ipcp = BroadcastIpcp(7, "b0", host())
    bootstrap(ipcp, "lab", DEFAULT_HASH)
    for flow in (1, 5, 5):
        ipcp.join(flow, 0.0)
    ipcp.counted({"lost": 3})
    assert ipcp.members == {1, 5}
    assert (ipcp.entry().members, ipcp.entry().lost) == (2, 3)
