"""Flows between programs of one node: what is asked for and configured is given, or there is no flow."""

from __future__ import annotations

import pytest
from irm_world import OWNER, World
from security_world import certified, trusting

from ouroboros.errors import FlowAuthException
from ouroboros.layers.effects import Connect, Loop, Warn
from ouroboros.qos import QoSSpec
from ouroboros.settings import LocalSettings
from ouroboros.wire.control import (
    BootstrapIpcp,
    CreateIpcp,
    CreateName,
    Failed,
    Granted,
    NameSecurity,
    RegisterName,
)

ENCRYPTED = QoSSpec(cypher_s=256)
#: Somebody else than the user of the node.
OTHER = OWNER + 1


@pytest.fixture
def world() -> World:
    return World()


def both(world: World, qos: QoSSpec | None = None, name: str = "x") -> tuple[Granted, Granted]:
    """What the two programs of a flow get."""
    taken = world.accept(world.server(name))
    asked = world.alloc(world.program("client"), name, qos=qos)
    return world.granted(asked), world.granted(taken)


def refused(world: World, qos: QoSSpec | None = None, uid: int = OWNER) -> Failed:
    """What the client gets; the acceptor goes on waiting."""
    before = len(world.irm.flows.flows)
    taken = world.accept(world.server("x"))
    failed = world.failed(world.alloc(world.program("client", uid), "x", qos=qos))
    assert world.answer(taken) is None
    assert len(world.irm.flows.flows) == before
    world.cancel(taken)
    return failed


def logged(world: World) -> str:
    """What the node tells whoever looks after it, since the last time."""
    return "\n".join(effect.text for effect in world.take(Warn))


@pytest.mark.parametrize(
    ("cypher_s", "strength", "suite"),
    [(1, 128, 895), (128, 128, 895), (129, 192, 898), (193, 256, 901), (256, 256, 901), (65535, 256, 901)],
)
def test_both_programs_get_the_key_and_are_told_what_was_agreed(
    world: World, cypher_s: int, strength: int, suite: int
) -> None:
    near, far = both(world, QoSSpec(loss=0, cypher_s=cypher_s))
    assert near.key == far.key
    assert len(near.key) == 32
    assert near.key != bytes(32)
    assert near.suite == far.suite == suite
    assert near.qos == far.qos == QoSSpec(loss=0, cypher_s=strength)
    assert near.security is not None
    assert near.security.strength == strength


def test_no_two_flows_have_the_same_key(world: World) -> None:
    assert len({both(world, ENCRYPTED)[0].key for _ in range(20)}) == 20


def test_nothing_is_encrypted_that_nobody_asked_for(world: World) -> None:
    for granted in both(world):
        assert (granted.key, granted.suite, granted.security, granted.qos) == (b"", 0, None, QoSSpec())


def test_the_key_shows_in_no_text(world: World) -> None:
    near, _ = both(world, ENCRYPTED)
    (connect,) = world.take(Connect)
    assert connect.sessions is not None
    for text in (repr(near), repr(connect), repr(connect.sessions[0]), str(near.__rich_repr__())):
        assert repr(near.key)[2:12] not in text
        assert near.key.hex() not in text
    assert "key" not in str(world.irm.flows.entries())


@pytest.mark.parametrize("side", ["client", "server"])
def test_a_file_for_the_name_encrypts_flows_whose_programs_did_not_ask(world: World, side: str) -> None:
    world.files["client/x/enc.conf"] = b"cipher=chacha20-poly1305"
    if side == "server":
        world.files["server/x/enc.conf"] = b""
    near, far = both(world)
    assert near.security is not None
    assert near.security.suite == "chacha20-poly1305, key of the node"
    assert near.qos.cypher_s == far.qos.cypher_s == 256
    assert near.suite == far.suite == 1018


def test_the_stronger_of_request_and_file_counts(world: World) -> None:
    world.files["client/x/enc.conf"] = b"kex=X25519\ncipher=aes-256-gcm"
    near, _ = both(world, QoSSpec(cypher_s=128))
    assert near.qos.cypher_s == 256


def test_a_server_that_wants_encryption_refuses_a_client_that_offers_none(world: World) -> None:
    world.files["server/x/enc.conf"] = b"kex=X25519"
    failed = refused(world)
    assert failed.error == "FlowCryptException"
    assert "the server wants more or has no valid settings, and this side asks for no encryption" in failed.text
    assert "X25519" not in failed.text
    assert "the client offers no encryption; this side wants at least X25519, aes-256-gcm, sha256" in logged(world)


def test_a_server_that_wants_more_refuses_and_each_side_is_told_its_own(world: World) -> None:
    world.files["server/x/enc.conf"] = b"kex=ML-KEM-768"
    failed = refused(world, ENCRYPTED)
    assert failed.error == "FlowCryptException"
    assert "and this side wants at least secp521r1, aes-256-gcm, sha3-256" in failed.text
    assert "the log of the node has the reason" in failed.text
    assert "ML-KEM" not in failed.text
    assert "the client offers secp521r1, which is weaker; this side wants at least ML-KEM-768" in logged(world)


@pytest.mark.parametrize("side", ["client", "server"])
def test_policies_of_strength_hold(world: World, side: str) -> None:
    world.files[f"{side}/x/policy.conf"] = b"require=encryption\nstrength=192"
    near, far = both(world, QoSSpec(cypher_s=128))
    assert near.qos.cypher_s == far.qos.cypher_s == 192


@pytest.mark.parametrize("name", ["enc.conf", "policy.conf"])
@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("uid", [OWNER, OTHER])
def test_a_file_that_is_wrong_is_an_error_that_names_it_to_those_whom_it_concerns(
    world: World, side: str, name: str, uid: int
) -> None:
    path = f"{side}/x/{name}"
    world.files[path] = b"cipher=none-such" if name == "enc.conf" else b"require=secrecy"
    failed = refused(world, uid=uid)
    assert failed.error == "FlowCryptException"
    if side == "client" and uid == OWNER:
        assert f"{path}, line 1: " in failed.text
        assert logged(world) == ""
    else:
        assert not any(each in failed.text for each in (name, "none-such", "secrecy", "line"))
        assert "the log of the node has the reason" in failed.text
        assert f"a flow to 'x' for client ({world.last_pid}) was refused: {path}, line 1: " in logged(world)


def test_what_the_log_is_told_is_bounded(world: World) -> None:
    world.files["server/x/enc.conf"] = b"cipher=none-such"
    world.accept(world.server("x"))
    client = world.program("client")
    for _ in range(100):
        world.alloc(client, "x")
    assert len(logged(world).splitlines()) == 20
    world.take(Warn)
    world.advance(3)
    for _ in range(100):
        world.alloc(client, "x")
    assert len(logged(world).splitlines()) == 3


def test_a_file_that_cannot_be_read_is_not_taken_for_none(world: World) -> None:
    world.files.unreadable.add("client/x/enc.conf")
    failed = refused(world)
    assert failed.error == "FlowCryptException"
    assert "client/x/enc.conf cannot be read: Permission denied" in failed.text


def test_files_are_read_at_each_allocation(world: World) -> None:
    assert both(world)[0].security is None
    world.files["client/x/enc.conf"] = b"cipher=aes-128-gcm"
    assert both(world)[0].qos.cypher_s == 128
    world.files["client/x/enc.conf"] = b"cipher=aes-192-gcm"
    assert both(world)[0].qos.cypher_s == 192
    world.files["server/x/enc.conf"] = b"cipher=aes-256-gcm"
    assert both(world)[0].qos.cypher_s == 256
    world.files.clear()
    assert both(world)[0].security is None


def test_files_that_did_not_change_are_read_but_not_parsed_again(world: World) -> None:
    world.files.update(trusting() | certified("server/x", "x"))
    world.irm.security.reload()
    first = world.irm.security.settings("x", "server")
    world.files.reads.clear()
    assert world.irm.security.settings("x", "server") is first
    assert "server/x/key.pem" in world.files.reads
    world.files["server/x/policy.conf"] = b""
    assert world.irm.security.settings("x", "server") is not first


def test_what_is_remembered_of_names_is_bounded(world: World) -> None:
    for number in range(400):
        world.files[f"client/{number}/enc.conf"] = b""
        world.irm.security.settings(str(number), "client")
    assert len(world.irm.security._parsed) <= 256


def test_files_of_a_name_may_be_elsewhere(world: World) -> None:
    world.files["/etc/x.conf"] = b"cipher=aes-192-gcm"
    world.manage(CreateName("x", "spillover", NameSecurity(client_encryption="/etc/x.conf")))
    assert both(world)[0].qos.cypher_s == 192
    del world.files["/etc/x.conf"]
    failed = refused(world)
    assert (failed.error, "/etc/x.conf is configured, but there is no such file" in failed.text) == (
        "FlowCryptException",
        True,
    )


@pytest.mark.parametrize("path", ["x.conf", "", "/a\0b", "/a\nb"])
def test_a_path_that_is_none_is_refused(world: World, path: str) -> None:
    if path:
        with pytest.raises(Exception, match="must be absolute"):
            world.manage(CreateName("x", "spillover", NameSecurity(client_key=path)))
        assert "x" not in world.irm.registry.names
    else:
        world.manage(CreateName("x", "spillover", NameSecurity(client_key=path)))
        assert world.irm.registry.security_of("x") is None


def test_a_name_cannot_reach_the_files_of_another(world: World) -> None:
    world.files["client/x/enc.conf"] = b""
    for name in ("../client/x", "y/../x", "x/", "/x", "."):
        assert world.irm.security.settings(name, "client").encryption is None


# --- certificates


def test_certificates_of_both_sides_show_at_the_other(world: World) -> None:
    world.files.update(trusting() | certified("server/x", "x") | certified("client/x", "alice"))
    world.irm.security.reload()
    near, far = both(world, ENCRYPTED)
    assert near.security is not None
    assert far.security is not None
    assert (near.security.peer_name, far.security.peer_name) == ("x", "alice")
    assert near.security.peer_certificate != far.security.peer_certificate
    assert near.key == far.key
    assert near.security.suite == "secp521r1, aes-256-gcm, sha3-256"


def test_a_certificate_for_another_name_is_refused(world: World) -> None:
    world.files.update(trusting() | certified("server/x", "y"))
    world.irm.security.reload()
    failed = refused(world, ENCRYPTED)
    assert failed.error == "FlowAuthException"
    assert "the certificate of the server is for 'y', not for 'x'" in failed.text


def test_nobody_is_trusted_without_a_store(world: World) -> None:
    world.files.update(certified("server/x", "x"))
    failed = refused(world)
    assert (failed.error, "its CA store is empty" in failed.text) == ("FlowAuthException", True)


def test_a_name_that_is_required_to_prove_itself_does_or_there_is_no_flow(world: World) -> None:
    world.files["client/x/policy.conf"] = b"require=certificate"
    failed = refused(world, ENCRYPTED)
    assert (failed.error, "the server of 'x' has no certificate" in failed.text) == ("FlowAuthException", True)


def test_who_is_let_in_by_one_name_reaches_nobody_who_accepts_for_another(world: World) -> None:
    world.files.update(trusting() | certified("client/x", "mallory"))
    world.files["server/x/policy.conf"] = b"allow=alice"
    world.irm.security.reload()
    process, client = world.program("both"), world.program("client")
    guarded, open_to_all = world.accept(process, "x"), world.accept(process, "y")
    assert world.failed(world.alloc(client, "x", qos=ENCRYPTED)).error == "FlowAuthException"
    assert world.connected(world.alloc(client, "y"), open_to_all)
    waits = world.alloc(client, "y")
    assert (world.answer(waits), world.answer(guarded)) == (None, None)


def test_only_clients_that_are_allowed_get_flows(world: World) -> None:
    world.files.update(trusting() | certified("client/x", "mallory"))
    world.files["server/x/policy.conf"] = b"allow=alice\nallow=bob"
    world.irm.security.reload()
    failed = refused(world, ENCRYPTED)
    assert failed.error == "FlowAuthException"
    assert "this side has no certificate that the server trusts and allows" in failed.text
    assert not any(name in failed.text for name in ("alice", "bob", "mallory"))
    assert "the client is 'mallory'; allowed are 'alice', 'bob'" in logged(world)
    world.files.update(certified("client/x", "bob"))
    assert both(world, ENCRYPTED)[1].security is not None


def test_the_store_is_read_when_told_and_a_broken_one_changes_nothing(world: World) -> None:
    world.files.update(trusting() | certified("server/x", "x"))
    world.irm.security.reload()
    world.files["cacert/other.pem"] = b"no certificate"
    with pytest.raises(FlowAuthException, match=r"CA store cannot be used: .*other\.pem"):
        world.irm.security.reload()
    assert both(world, ENCRYPTED)[0].security is not None
    world.files.update(trusting("somebody else"))
    del world.files["cacert/other.pem"]
    world.irm.security.reload()
    assert refused(world, ENCRYPTED).error == "FlowAuthException"


def test_a_flow_through_an_impaired_layer_is_encrypted_too(world: World) -> None:
    ipcp = world.manage(CreateIpcp("l0", "local"))
    assert isinstance(ipcp, int)
    world.manage(BootstrapIpcp(ipcp, "lab", LocalSettings(impair="none")))
    world.manage(CreateName("x", "spillover"))
    world.manage(RegisterName("x", ipcp))
    world.accept(world.server("x"))
    world.alloc(world.program("client"), "x", qos=ENCRYPTED)
    (relay,) = world.take(Loop)
    assert relay.sessions is not None
    assert relay.sessions[0].key == relay.sessions[1].key
    assert relay.qos.cypher_s == 256
