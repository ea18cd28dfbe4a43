"""Requests that are repeated or from another time, and key exchanges that are seldom or new, with the C prototype."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from random import Random

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM1024PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from interop.conftest import MakeWorld, World, able
from interop.encrypted import SPEC, Stranger, Suite, Watcher, encrypt, from_them, suite_of, talk, to_them
from support import until

from ouroboros.lab.prototype import Installation
from ouroboros.wire import oap
from ouroboros.wire.udp import FlowRequest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SECOND = 10**9
EAUTH = -1009


def at(request: FlowRequest, seconds: float) -> FlowRequest:
    """The same request, which nobody has signed, from so many seconds after now and not a repeated one."""
    header = oap.decode(request.oap)
    stamped = msgspec.structs.replace(
        header, id=Random(request.oap).randbytes(16), timestamp=time.time_ns() + int(seconds * SECOND)
    )
    return msgspec.structs.replace(request, oap=stamped.encode())


# --- repeated requests and other clocks


def ours_to_them(world: World) -> FlowRequest:
    """A request of ours that their server has accepted; it waits for the next."""
    encrypt(world, Suite())
    watcher = Watcher(world)
    program = world.theirs.program("theirs")
    flow, accepted = to_them(world, program)
    with flow:
        talk(flow, program, accepted)
    program.begin("accept", 30)
    return watcher.requests()[-1]


def test_their_server_refuses_our_request_when_it_comes_again(secured: World) -> None:
    request = ours_to_them(secured)
    assert Stranger(secured).asks(secured.addresses.theirs, request).response == EAUTH
    assert "already known" in secured.theirs.log()


def test_their_server_accepts_our_request_with_another_id_and_time(secured: World) -> None:
    # Else the other tests here would prove nothing.
    request = ours_to_them(secured)
    assert Stranger(secured).asks(secured.addresses.theirs, at(request, 0)).response == 0


@pytest.mark.parametrize(("seconds", "text"), [(60, "ms into future"), (-60, "too old")], ids=["ahead", "behind"])
def test_their_server_refuses_our_request_when_our_clock_is_wrong(secured: World, seconds: int, text: str) -> None:
    request = ours_to_them(secured)
    assert Stranger(secured).asks(secured.addresses.theirs, at(request, seconds)).response == EAUTH
    assert text in secured.theirs.log()


def test_our_server_refuses_their_request_when_it_comes_again_or_their_clock_is_wrong(secured: World) -> None:
    encrypt(secured, Suite())
    secured.ours.offer("ours")
    watcher = Watcher(secured)
    program = secured.theirs.program()
    flow, allocated = from_them(program)
    with flow:
        talk(flow, program, allocated)
    request, stranger = watcher.requests()[-1], Stranger(secured)
    for changed, text in (
        (request, "here before"),
        (at(request, 60), "in the future"),
        (at(request, -60), "s old, at most 20 s"),
    ):
        assert stranger.asks(secured.addresses.ours, changed).response == EAUTH
        until(partial(logged, secured, text))


def logged(world: World, text: str) -> bool:
    return text in world.ours.node.log()


# --- secrets with zeros in front

#: One secret in 256 begins with a zero byte, which the prototype drops and we have to; nine times in ten, one of 600 does.
#: (With the prototype as a client it would take too long: it often misses an answer, and asks again after some seconds.)
SET_UPS = 600


@pytest.mark.timeout(300)
def test_each_of_600_secrets_of_a_finite_field_is_the_same_at_our_client_and_their_server(secured: World) -> None:
    encrypt(secured, Suite("ffdhe2048"))
    program = secured.theirs.program("theirs")
    for _ in range(SET_UPS):
        flow, accepted = to_them(secured, program)
        with flow:
            talk(flow, program, accepted)
        program.do("dealloc", accepted)


# --- keys in quantum-safe ways

KEMS = ["ML-KEM-768", "ML-KEM-1024", "X25519MLKEM768", "X448MLKEM1024"]


@pytest.fixture
def quantum(make_world: MakeWorld, kem_installation: Installation) -> Iterator[World]:
    world = make_world(able(kem_installation), "udp4")
    yield world
    world.theirs.check()


@pytest.mark.parametrize("kex", KEMS)
def test_our_client_opens_what_their_server_encapsulates(quantum: World, kex: str) -> None:
    encrypt(quantum, Suite(kex))
    program = quantum.theirs.program("theirs")
    flow, accepted = to_them(quantum, program)
    with flow:
        talk(flow, program, accepted)
        assert suite_of(flow) == str(Suite(kex))


@pytest.mark.parametrize("kex", KEMS)
def test_their_client_opens_what_our_server_encapsulates(quantum: World, kex: str) -> None:
    encrypt(quantum, Suite(kex))
    quantum.ours.offer("ours")
    program = quantum.theirs.program()
    flow, allocated = from_them(program)
    with flow:
        talk(flow, program, allocated)
        assert suite_of(flow) == str(Suite(kex))


PUBLISHED: dict[str, Callable[[], MLKEM768PrivateKey | MLKEM1024PrivateKey]] = {
    "ML-KEM-768": MLKEM768PrivateKey.generate,
    "ML-KEM-1024": MLKEM1024PrivateKey.generate,
}


def publish(world: World, kex: str, name: str) -> None:
    """Give both hosts a key for a name, private where its server is, and have the client use it."""
    key = PUBLISHED[kex]()
    server, client = (world.theirs, world.ours) if name == "theirs" else (world.ours, world.theirs)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    server.configure(f"server/{name}/kex.key.pem", private.decode())
    client.configure(f"client/{name}/kex.srv.pub.pem", public.decode())
    client.configure(f"client/{name}/enc.conf", Suite(kex).conf() + "kem_mode=client\n")


@pytest.mark.parametrize("kex", PUBLISHED)
def test_our_client_encapsulates_for_the_key_that_their_server_has_published(quantum: World, kex: str) -> None:
    encrypt(quantum, Suite(kex))
    publish(quantum, kex, "theirs")
    program = quantum.theirs.program("theirs")
    flow, accepted = to_them(quantum, program)
    with flow:
        talk(flow, program, accepted)
        assert suite_of(flow) == str(Suite(kex))


@pytest.mark.parametrize("kex", PUBLISHED)
def test_their_client_encapsulates_for_the_key_that_our_server_has_published(quantum: World, kex: str) -> None:
    encrypt(quantum, Suite(kex))
    publish(quantum, kex, "ours")
    quantum.ours.offer("ours")
    program = quantum.theirs.program()
    flow, allocated = from_them(program)
    with flow:
        talk(flow, program, allocated)
        assert suite_of(flow) == str(Suite(kex))


def test_their_client_is_told_that_ours_has_no_ml_kem_512(quantum: World) -> None:
    quantum.theirs.configure("client/ours/enc.conf", Suite("ML-KEM-512").conf())
    quantum.ours.offer("ours")
    assert quantum.theirs.program().do("alloc", "ours", SPEC, 30) == -1008
    assert "ML-KEM-512, which this node cannot do" in quantum.ours.node.log()
