"""Encrypted flows and certificates, between our node and the C prototype, over IPv4.

A refusal can leave the prototype's layer stuck, so nothing is asked of a host of it that has refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from interop.conftest import MakeWorld, World, able
from interop.encrypted import (
    MARKER,
    SPEC,
    Suite,
    Watcher,
    encrypt,
    from_them,
    refusal,
    suite_of,
    talk,
    to_them,
)
from interop.hosts import Program
from interop.test_frcp import DATA, RELIABLE, digest, numbered
from interop.test_raw import received
from support import Background, until

from ouroboros.dev import Flow, flow_accept, flow_alloc
from ouroboros.errors import FlowAuthException, FlowCryptException, FlowTimeoutException
from ouroboros.irm import list_flows
from ouroboros.lab.prototype import Installation
from ouroboros.qos import QoSSpec
from ouroboros.tools.main import ouroboros

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

#: What the ciphers add to a packet.
CIPHERS = {
    "aes-128-ctr": 16,
    "aes-192-ctr": 16,
    "aes-256-ctr": 16,
    "aes-128-gcm": 28,
    "aes-192-gcm": 28,
    "aes-256-gcm": 28,
    "chacha20-poly1305": 28,
}
EXCHANGES = ["ffdhe2048", "prime256v1", "X25519", "ffdhe3072", "secp384r1", "ffdhe4096", "X448", "secp521r1"]
DERIVATIONS = ["blake2s256", "sha256", "sha3-256", "sha384", "sha3-384", "blake2b512", "sha512", "sha3-512"]


SUITES = pytest.mark.parametrize(
    "suites",
    [
        [Suite(kex=kex) for kex in EXCHANGES],
        [Suite(cipher=cipher) for cipher in CIPHERS],
        [Suite(kdf=kdf) for kdf in DERIVATIONS],
    ],
    ids=["exchanges", "ciphers", "derivations"],
)
#: In bytes, in front of each packet of a flow: the number of its receiver.
ENDPOINT = 4
#: Likewise, in front of what the program wrote on a reliable flow.
FRCP = 12
BURST_OF_THEIRS = 500


@pytest.fixture
def reliable(make_world: MakeWorld, patched_installation: Installation) -> Iterator[World]:
    """The prototype without its worst faults, with a link between the hosts that loses; both want encryption."""
    world = make_world(able(patched_installation), "udp4", linked=True)
    encrypt(world, Suite())
    yield world
    print(world.faults.set())
    world.theirs.check()


# --- suites


@SUITES
def test_our_client_speaks_each_suite_of_their_server(secured: World, suites: list[Suite]) -> None:
    watcher = Watcher(secured)
    program = secured.theirs.program("theirs")
    for suite in suites:
        encrypt(secured, suite)
        flow, accepted = to_them(secured, program)
        with flow:
            talk(flow, program, accepted)
            assert suite_of(flow) == str(suite)
        assert_encrypted(watcher.seen(), suite)


@SUITES
def test_our_server_speaks_each_suite_of_their_client(secured: World, suites: list[Suite]) -> None:
    watcher = Watcher(secured)
    secured.ours.offer("ours")
    program = secured.theirs.program()
    for suite in suites:
        encrypt(secured, suite)
        flow, allocated = from_them(program)
        with flow:
            talk(flow, program, allocated)
            assert suite_of(flow) == str(suite)
        assert_encrypted(watcher.seen(), suite)


def assert_encrypted(datagrams: list[bytes], suite: Suite) -> None:
    added = ENDPOINT + CIPHERS[suite.cipher]
    assert [len(datagram) - added for datagram in datagrams] == [len(MARKER)] * 2 + [1] * 2, suite
    assert not any(MARKER[:8] in datagram for datagram in datagrams), suite


#: Packets, in both directions together, after which the key changes.
PERIOD = 1 << 20
#: Packets under way: far fewer than their sockets and rings hold, as nothing is sent again.
BURST = 32


@pytest.mark.timeout(600)
@pytest.mark.parametrize("cipher", ["aes-256-gcm", "chacha20-poly1305"])
def test_keys_change_twice_while_our_client_and_their_server_talk(secured: World, cipher: str) -> None:
    encrypt(secured, Suite(cipher=cipher))
    watcher = Watcher(secured)
    program = secured.theirs.program("theirs")
    flow, accepted = to_them(secured, program)
    keys_change(flow, program, accepted, watcher)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("cipher", ["aes-128-gcm"])
def test_keys_change_twice_while_their_client_and_our_server_talk(secured: World, cipher: str) -> None:
    encrypt(secured, Suite(cipher=cipher))
    secured.ours.offer("ours")
    watcher = Watcher(secured)
    program = secured.theirs.program()
    flow, allocated = from_them(program)
    keys_change(flow, program, allocated, watcher)


def keys_change(flow: Flow, program: Program, number: int, watcher: Watcher) -> None:
    """Talk for two periods of a key, and some: so each side sends more than one."""
    # What their layer drops is not sent again, and need not be waited for. It drops little: a side that missed a change of
    # the key would lose all that comes after it.
    program.do("timeouts", number, 2)
    flow.set_rcv_timeout(2)
    with flow:
        assert phases(flow, program, number, watcher) == {0}
        for phase in (1, 0):
            assert echoed(flow, program, number, PERIOD // 2) > 0.9 * (PERIOD // 2)
            # What was seen until now is of no interest, and too much to keep.
            watcher.seen()
            assert phases(flow, program, number, watcher) == {phase}
        (listed,) = list_flows()
        assert listed.counters["rejected"] == 0
        assert listed.counters["received"] > 0.9 * PERIOD


def phases(flow: Flow, program: Program, number: int, watcher: Watcher) -> set[int]:
    """The first bit of some packets in both directions: it turns with the key."""
    assert echoed(flow, program, number, 100 * BURST) > 90 * BURST
    datagrams = watcher.seen()
    # Ours cross as runs, which the kernel takes apart only behind the link.
    assert len({datagram[:ENDPOINT] for datagram in datagrams}) == 2
    return {datagram[ENDPOINT] >> 7 for datagram in datagrams}


def echoed(flow: Flow, program: Program, number: int, count: int) -> int:
    """Have so many packets sent there and back, some at a time; how many came."""
    came = 0
    for first in range(0, count, BURST):
        packets = [numbered(first + each, 8) for each in range(BURST)]
        program.begin("echo", number, BURST)
        flow.write_many(packets)
        # Their layer changes the order.
        came += len(set(packets) & set(read_all(flow)))
        program.answer()
    return came


def read_all(flow: Flow) -> list[bytes]:
    """A burst, or what came of it."""
    found: list[bytes] = []
    with suppress(FlowTimeoutException):
        while len(found) < BURST:
            found.append(flow.read())
    return found


def test_what_crosses_without_encryption_is_seen(secured: World) -> None:
    # Else the tests above would prove nothing.
    watcher = Watcher(secured)
    program = secured.theirs.program("theirs")
    flow, accepted = to_them(secured, program)
    with flow:
        talk(flow, program, accepted)
        assert flow.security is None
    assert [MARKER in datagram for datagram in watcher.seen()] == [True, True, False, False]


def test_the_stronger_cipher_and_derivation_of_both_sides_count(secured: World) -> None:
    weak, strong = Suite("prime256v1", "aes-128-gcm", "sha256"), Suite("prime256v1", "chacha20-poly1305", "sha3-512")
    program = secured.theirs.program("theirs")
    secured.ours.offer("ours")
    for ours, theirs in ((weak, strong), (strong, weak)):
        for path in ("client/theirs", "server/ours"):
            secured.ours.configure(f"{path}/enc.conf", ours.conf())
        for path in ("server/theirs", "client/ours"):
            secured.theirs.configure(f"{path}/enc.conf", theirs.conf())
        for flow, number in (to_them(secured, program), from_them(program)):
            with flow:
                talk(flow, program, number)
                assert suite_of(flow) == str(strong)


def test_our_oping_with_their_encrypting_server(secured: World) -> None:
    encrypt(secured, Suite())
    secured.theirs.serve("oping", "-Q")
    assert received(secured.ours.run("oping", "-n", "oping", "-c", "20", "-i", "10", "-Q")) == (20, 20)


def test_their_oping_with_our_encrypting_server(secured: World) -> None:
    encrypt(secured, Suite())
    secured.ours.serve("oping", "-Q")
    assert received(secured.theirs.run("oping", "-n", "oping", "-c", "20", "-i", "10", "-Q")) == (20, 20)


# --- what a program asks for


def test_our_program_gets_what_it_asks_for_whatever_their_server_has(secured: World) -> None:
    program = secured.theirs.program("theirs")
    settings = {
        None: "secp521r1, aes-256-gcm, sha3-256",
        "": "secp521r1, aes-256-gcm, sha3-256",
        "cipher=chacha20-poly1305\n": "secp521r1, chacha20-poly1305, sha3-256",
        "kex=X448\nkdf=sha3-512\n": "secp521r1, aes-256-gcm, sha3-512",
    }
    for setting, suite in settings.items():
        if setting is not None:
            secured.theirs.configure("server/theirs/enc.conf", setting)
        flow, accepted = to_them(secured, program, QoSSpec(cypher_s=256))
        with flow:
            talk(flow, program, accepted)
            assert (suite_of(flow), flow.get_qos().cypher_s) == (suite, 256)


@pytest.mark.parametrize("bits", [128, 192])
def test_our_program_gets_the_key_that_it_asks_for(secured: World, bits: int) -> None:
    program = secured.theirs.program("theirs")
    flow, accepted = to_them(secured, program, QoSSpec(cypher_s=bits))
    with flow:
        talk(flow, program, accepted)
        assert flow.get_qos().cypher_s == bits


# --- refusals


def test_their_server_that_insists_on_encryption_refuses_our_flow_in_clear(secured: World) -> None:
    secured.theirs.configure("server/theirs/enc.conf", "")
    secured.theirs.program("theirs").begin("accept", 30)
    with pytest.raises(FlowCryptException):
        flow_alloc("theirs")


def test_their_server_that_wants_a_stronger_exchange_refuses_ours(secured: World) -> None:
    secured.ours.configure("client/theirs/enc.conf", "kex=prime256v1\n")
    secured.theirs.configure("server/theirs/enc.conf", "kex=X25519\n")
    secured.theirs.program("theirs").begin("accept", 30)
    with pytest.raises(FlowCryptException):
        flow_alloc("theirs")


@pytest.mark.parametrize(
    ("path", "text"), [("policy.conf", "require=encryption\n"), ("enc.conf", "")], ids=["policy", "enc.conf"]
)
def test_their_client_without_encryption_is_refused_where_we_require_it(secured: World, path: str, text: str) -> None:
    secured.ours.configure(f"server/ours/{path}", text)
    secured.ours.offer("ours")
    program = secured.theirs.program()
    waiting = Background.waiting_for_node(lambda: flow_accept(name="ours"))
    assert refusal(program) == -1008
    # One that encrypts is served by the same call.
    secured.theirs.configure("client/ours/enc.conf", "")
    allocated = program.do("alloc", "ours", SPEC, 30)
    with waiting.result() as flow:
        talk(flow, program, allocated)
        assert suite_of(flow) == "prime256v1, aes-256-gcm, sha256"


# --- certificates


@dataclass
class Authority:
    home: Path

    def __post_init__(self) -> None:
        self._cert("authority")

    @property
    def certificate(self) -> Path:
        return self.home / "cacert/authority.pem"

    def server(self, security: Path, name: str) -> None:
        """Give a host what proves that it has a name."""
        self._cert("server", name, "--output", str(security))

    def client(self, security: Path, name: str, to: str) -> None:
        self._cert("client", name, "--to", to, "--output", str(security))

    def _cert(self, *words: str) -> None:
        result = CliRunner().invoke(ouroboros, ["cert", "-d", str(self.home), *words])
        assert result.exit_code == 0, result.output


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    """An authority that nobody trusts."""
    return Authority(tmp_path / "stranger")


@pytest.fixture
def certified(make_secured: MakeWorld, authority: Authority, runtime_dir: Path) -> World:
    """Both hosts encrypt and trust the authority; ours requires a certificate."""
    trusted = runtime_dir / "security/cacert/authority.pem"
    trusted.parent.mkdir(parents=True)
    trusted.write_bytes(authority.certificate.read_bytes())
    world: World = make_secured(authority.certificate)
    encrypt(world, Suite())
    for path in ("client/theirs", "server/ours"):
        world.ours.configure(f"{path}/policy.conf", "require=certificate\n")
    world.ours.offer("ours")
    return world


def rename(security: Path, was: str, name: str) -> None:
    """Have one name use the certificate of another."""
    for file in ("crt.pem", "key.pem"):
        (security / was / file).rename(security / name / file)


def test_our_client_and_their_server_prove_their_names(certified: World, authority: Authority) -> None:
    authority.server(certified.theirs.security, "theirs")
    authority.client(certified.ours.security, "alice", to="theirs")
    program = certified.theirs.program("theirs")
    flow, accepted = to_them(certified, program)
    with flow:
        talk(flow, program, accepted)
        assert flow.security is not None
        assert flow.security.peer_name == "theirs"


def test_their_client_and_our_server_prove_their_names(certified: World, authority: Authority) -> None:
    authority.server(certified.ours.security, "ours")
    authority.client(certified.theirs.security, "alice", to="ours")
    certified.ours.configure("server/ours/policy.conf", "require=certificate\nallow=alice\n")
    program = certified.theirs.program()
    flow, allocated = from_them(program)
    with flow:
        talk(flow, program, allocated)
        assert flow.security is not None
        assert flow.security.peer_name == "alice"


def test_our_client_takes_no_server_that_proves_another_name(certified: World, authority: Authority) -> None:
    authority.server(certified.theirs.security, "other")
    rename(certified.theirs.security, "server/other", "server/theirs")
    certified.theirs.program("theirs").begin("accept", 30)
    with pytest.raises(FlowAuthException, match="other"):
        flow_alloc("theirs")


def test_our_client_takes_no_server_of_an_unknown_authority(certified: World, stranger: Authority) -> None:
    stranger.server(certified.theirs.security, "theirs")
    certified.theirs.program("theirs").begin("accept", 30)
    with pytest.raises(FlowAuthException):
        flow_alloc("theirs")


def test_our_client_takes_no_server_without_a_certificate(certified: World) -> None:
    certified.theirs.program("theirs").begin("accept", 30)
    with pytest.raises(FlowAuthException):
        flow_alloc("theirs")


def test_their_server_refuses_our_client_of_an_unknown_authority(
    certified: World, authority: Authority, stranger: Authority
) -> None:
    authority.server(certified.theirs.security, "theirs")
    stranger.client(certified.ours.security, "alice", to="theirs")
    certified.theirs.program("theirs").begin("accept", 30)
    with pytest.raises(FlowAuthException):
        flow_alloc("theirs")


def test_their_client_takes_no_server_of_ours_that_proves_another_name(certified: World, authority: Authority) -> None:
    authority.server(certified.ours.security, "other")
    rename(certified.ours.security, "server/other", "server/ours")
    authority.client(certified.theirs.security, "alice", to="ours")
    program = certified.theirs.program()
    waiting = Background.waiting_for_node(lambda: flow_accept(name="ours"))
    assert program.do("alloc", "ours", SPEC, 30) == -1008
    # It tells nobody: here the flow is there.
    waiting.result().dealloc()


def test_their_client_takes_no_server_of_ours_of_an_unknown_authority(
    certified: World, authority: Authority, stranger: Authority
) -> None:
    stranger.server(certified.ours.security, "ours")
    authority.client(certified.theirs.security, "alice", to="ours")
    program = certified.theirs.program()
    waiting = Background.waiting_for_node(lambda: flow_accept(name="ours"))
    assert program.do("alloc", "ours", SPEC, 30) == -1008
    waiting.result().dealloc()


def test_our_server_takes_only_the_clients_that_it_should(
    certified: World, authority: Authority, stranger: Authority
) -> None:
    authority.server(certified.ours.security, "ours")
    certified.ours.configure("server/ours/policy.conf", "require=certificate\nallow=alice\n")
    security = certified.theirs.security
    program = certified.theirs.program()
    waiting = Background.waiting_for_node(lambda: flow_accept(name="ours"))

    def refused() -> bool:
        return refusal(program) == -1009

    def leave() -> None:
        for file in ("crt.pem", "key.pem"):
            (security / "client/ours" / file).unlink()

    assert refused(), "without a certificate"
    stranger.client(security, "alice", to="ours")
    assert refused(), "of an unknown authority"
    leave()
    authority.client(security, "bob", to="ours")
    assert refused(), "not in the list"
    leave()
    authority.client(security, "alice", to="ours")
    allocated = program.do("alloc", "ours", SPEC, 30)
    with waiting.result() as flow:
        talk(flow, program, allocated)


# --- reliable


@contextmanager
def unless_it_crashes(program: Program) -> Iterator[None]:
    """A failure says nothing when their program has crashed.

    Its threads use one cipher at the same time: its timer encrypts an acknowledgement while its reader decrypts.
    """
    try:
        yield
    except AssertionError:
        if program.crashed():
            pytest.skip("the prototype's program crashed by itself: it used one cipher in two threads")
        raise


def test_all_of_ours_arrives_there_without_loss(reliable: World) -> None:
    program = reliable.theirs.program("theirs")
    packets = [numbered(number, 1000) for number in range(1000)]
    with unless_it_crashes(program):
        flow, accepted = to_them(reliable, program, RELIABLE)
        with flow:
            assert suite_of(flow) == str(Suite())
            program.begin("receive", accepted, len(packets))
            for packet in packets:
                flow.write(packet)
            assert program.answer() == [len(packets), digest(packets), 0]


def test_theirs_arrives_here_without_loss(reliable: World) -> None:
    # One after the other: the more there are at once, the more often its program crashes, and what it sends again is sent
    # in clear or without its IV, so that nobody takes it.
    reliable.ours.offer("ours")
    program = reliable.theirs.program()
    with unless_it_crashes(program):
        flow, allocated = from_them(program, DATA)
        with flow:
            for packet in (numbered(each, 1000) for each in range(100)):
                assert program.do("write", allocated, packet.hex()) == len(packet)
                assert flow.read() == packet


def test_of_a_burst_of_theirs_all_that_is_sealed_is_taken_and_nothing_that_comes_again_unsealed(
    reliable: World,
) -> None:
    # It may stall, or its program crash, before all is sent: what crosses the link says that it is not for want of us.
    reliable.ours.offer("ours")
    watcher = Watcher(reliable)
    program = reliable.theirs.program()
    flow, allocated = from_them(program, DATA)
    flow.set_rcv_timeout(5)
    with flow:
        program.begin("send", allocated, BURST_OF_THEIRS, 1000)
        packets: list[bytes] = []
        with suppress(FlowTimeoutException):
            while len(packets) < BURST_OF_THEIRS:
                packets.append(flow.read())
        assert packets == [numbered(each, 1000) for each in range(len(packets))]
        reliable.theirs.end_programs()
        seen = watcher.seen()
        clear, sealed = (ENDPOINT + FRCP + 1000 + added for added in (0, CIPHERS[Suite().cipher]))
        again = sum(len(datagram) == clear for datagram in seen)
        first = {datagram for datagram in seen if len(datagram) == sealed}
        until(lambda: counted() == (again, len(first)))


def counted() -> tuple[int, int]:
    """Packets that our side refused, and those with data that it took."""
    (listed,) = list_flows()
    return listed.counters["rejected"], listed.counters["frcp_data_received"]


def test_both_sides_speak_in_turn_without_loss(reliable: World) -> None:
    program = reliable.theirs.program("theirs")
    with unless_it_crashes(program):
        flow, accepted = to_them(reliable, program, RELIABLE)
        with flow:
            program.begin("echo", accepted, 100)
            for number in range(100):
                flow.write(numbered(number, 100))
                assert flow.read() == numbered(number, 100)
            assert program.answer() == [100, 0]


# What we lose only: what the prototype sends again cannot be decrypted by anybody. And one packet after the other: the more
# there are at once, the more often its program crashes.


def test_what_our_client_lost_arrives_there(reliable: World) -> None:
    program = reliable.theirs.program("theirs")
    with unless_it_crashes(program):
        flow, accepted = to_them(reliable, program, RELIABLE)
        arrives_in_turn(reliable, flow, program, accepted)


def test_what_our_server_lost_arrives_there(reliable: World) -> None:
    reliable.ours.offer("ours")
    program = reliable.theirs.program()
    with unless_it_crashes(program):
        flow, allocated = from_them(program, DATA)
        arrives_in_turn(reliable, flow, program, allocated)


def arrives_in_turn(world: World, flow: Flow, program: Program, number: int) -> None:
    world.faults.set(from_near=0.2)
    with flow:
        for packet in (numbered(each, 1000) for each in range(100)):
            flow.write(packet)
            assert bytes.fromhex(program.do("read", number)) == packet
        world.faults.set(from_near=0)
        assert world.faults.set()["lost"] > 0
