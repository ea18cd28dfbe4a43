"""Encrypted flows between two nodes in virtual time: what both sides get, what is refused, and what an attacker can do."""

from __future__ import annotations

import hashlib

import msgspec
import pytest
from irm_world import World
from security_world import certified, trusting
from udp_world import STRANGER, Carried, two_nodes

from ouroboros.layers.effects import PeerGone, Warn
from ouroboros.layers.flows import incoming
from ouroboros.oap import OapError
from ouroboros.qos import QoSSpec
from ouroboros.wire import extension, oap
from ouroboros.wire.control import Failed
from ouroboros.wire.suites import HASH_BY_NUMBER
from ouroboros.wire.udp import REPLY_OAP_LENGTH, REQUEST_OAP_LENGTH, FlowReply, FlowRequest, decode

ENCRYPTED = QoSSpec(cypher_s=256)


class Pair:
    """A client's node, a server's, and a program on each."""

    def __init__(self, seed: int = 0) -> None:
        self.network, self.client, self.server = two_nodes(seed)
        self.program = self.client.program("watch")
        self.acceptor = self.server.server("clock")

    def ask(self, qos: QoSSpec = ENCRYPTED) -> tuple[int, int]:
        """The tokens of both requests, some time later."""
        taken = self.server.accept(self.acceptor)
        asked = self.client.alloc(self.program, "clock", qos=qos)
        self.network.run(0.2)
        return asked, taken

    def flow(self, qos: QoSSpec = ENCRYPTED) -> tuple[Carried, Carried]:
        """What the engines get."""
        asked, taken = self.ask(qos)
        self.client.granted(asked)
        self.server.granted(taken)
        return self.client.history[-1], self.server.history[-1]

    def refused(self, qos: QoSSpec = ENCRYPTED) -> Failed:
        asked, taken = self.ask(qos)
        assert self.server.answer(taken) is None
        return self.client.failed(asked)

    def request(self, qos: QoSSpec = ENCRYPTED) -> tuple[int, bytes, FlowRequest]:
        """A request that nobody answers yet: its token, datagram and content."""
        asked = self.client.alloc(self.program, "clock", qos=qos)
        data = self.client.sent()[-1]
        message = decode(data)
        assert isinstance(message, FlowRequest)
        return asked, data, message


def why(node: World) -> str:
    """What the node told whoever looks after it."""
    return "\n".join(effect.text for effect in node.take(Warn))


# --- what is agreed


@pytest.mark.parametrize(
    "qos", [QoSSpec(cypher_s=128), QoSSpec(loss=0, cypher_s=192), QoSSpec(in_order=1, cypher_s=256)]
)
def test_both_engines_get_the_same_key_and_both_programs_the_strength(qos: QoSSpec) -> None:
    near, far = Pair().flow(qos)
    assert near.session is not None
    assert far.session is not None
    assert near.session.key == far.session.key != bytes(32)
    assert near.qos.cypher_s == far.qos.cypher_s == qos.cypher_s
    assert near.extension is not None
    assert near.extension.has(extension.REPLAY)
    assert (near.side, far.side) == (0, 1)


def test_a_server_may_answer_with_more_than_was_asked_for() -> None:
    pair = Pair()
    pair.server.files["server/clock/enc.conf"] = b"kex=X25519\ncipher=chacha20-poly1305\nkdf=sha512"
    near, far = pair.flow(QoSSpec(cypher_s=128))
    assert near.qos.cypher_s == far.qos.cypher_s == 256
    assert near.session is not None
    assert near.session.suite == "secp521r1, chacha20-poly1305, sha512"


def test_what_is_configured_for_a_name_is_offered_without_being_asked() -> None:
    pair = Pair()
    pair.client.files["client/clock/enc.conf"] = b"kex=X25519\ncipher=aes-128-gcm"
    near, _ = pair.flow(QoSSpec())
    assert near.session is not None
    assert near.session.suite == "X25519, aes-128-gcm, sha256"


def test_a_flow_in_clear_has_no_session() -> None:
    near, far = Pair().flow(QoSSpec())
    assert near.session is None
    assert far.session is None
    assert near.qos.cypher_s == 0


def test_what_was_asked_for_is_not_told_to_the_network() -> None:
    _, _, request = Pair().request()
    assert request.qos.cypher_s == 0


def test_certificates_of_both_sides_show_at_the_other() -> None:
    pair = Pair()
    pair.client.files.update(
        trusting() | certified("client/clock", "alice") | {"client/clock/policy.conf": b"require=certificate"}
    )
    pair.server.files.update(
        trusting() | certified("server/clock", "clock") | {"server/clock/policy.conf": b"allow=alice"}
    )
    for node in (pair.client, pair.server):
        node.irm.security.reload()
    near, far = pair.flow()
    assert near.session is not None
    assert far.session is not None
    assert (near.session.peer_name, far.session.peer_name) == ("clock", "alice")
    assert near.session.peer_certificate is not None


# --- what is refused


def test_a_server_that_wants_more_refuses_and_both_sides_learn_why() -> None:
    pair = Pair()
    pair.server.files["server/clock/enc.conf"] = b"kex=X25519MLKEM768"
    failed = pair.refused()
    assert failed.error == "FlowCryptException"
    assert "192.0.2.2:3435 refused the flow to 'clock' (-1008 ECRYPT)" in failed.text
    assert "this side wants at least secp521r1, aes-256-gcm, sha3-256 with 256 bits" in failed.text
    assert "the client offers secp521r1, which is weaker; this side wants at least X25519MLKEM768" in why(pair.server)


@pytest.mark.parametrize("file", ["enc.conf", "policy.conf"])
def test_a_server_that_wants_encryption_refuses_plaintext(file: str) -> None:
    pair = Pair()
    pair.server.files[f"server/clock/{file}"] = b"" if file == "enc.conf" else b"require=encryption"
    failed = pair.refused(QoSSpec())
    assert failed.error == "FlowCryptException"
    assert "this side asks for no encryption, and the server wants more" in failed.text
    assert "the client offers no encryption" in why(pair.server)


def test_a_client_without_a_certificate_is_refused_where_one_is_required() -> None:
    pair = Pair()
    pair.server.files["server/clock/policy.conf"] = b"require=certificate"
    failed = pair.refused()
    assert (failed.error, "(-1009 EAUTH)" in failed.text) == ("FlowAuthException", True)
    assert "the client has no certificate" in why(pair.server)


@pytest.mark.parametrize(
    ("seconds", "text"), [(600.0, "in the future"), (-600.0, "old"), (0.2, "in the future"), (-21.0, "old")]
)
def test_clocks_that_differ_are_named_as_a_possible_reason(seconds: float, text: str) -> None:
    pair = Pair()
    pair.client.clock_error = seconds
    failed = pair.refused()
    assert failed.error == "FlowAuthException"
    assert "the clocks of the two hosts differ" in failed.text
    assert f"{text}, at most" in why(pair.server)


@pytest.mark.parametrize("seconds", [0.09, -19.0])
def test_clocks_may_differ_a_little(seconds: float) -> None:
    pair = Pair()
    pair.client.clock_error = seconds
    pair.flow()


def test_settings_of_the_client_that_cannot_be_used_are_an_error_before_anything_is_sent() -> None:
    pair = Pair()
    pair.client.files["client/clock/enc.conf"] = b"kex=ML-KEM-512"
    failed = pair.refused()
    assert failed.error == "FlowCryptException"
    assert "no flow to 'clock'" in failed.text
    assert pair.client.sent() == []
    pair.client.assert_idle()


def test_a_request_that_fits_no_datagram_is_an_error_that_says_so() -> None:
    pair = Pair()
    pair.client.files.update({"client/clock/enc.conf": b"kex=X448MLKEM1024"} | certified("client/clock", "x" * 64))
    failed = pair.refused()
    assert failed.error == "FlowCryptException"
    assert f"{REQUEST_OAP_LENGTH} fit: use a smaller" in failed.text
    assert pair.client.sent() == []
    pair.client.assert_idle()


def test_a_reply_that_fits_no_datagram_is_a_refusal_and_the_acceptor_goes_on_waiting() -> None:
    pair = Pair()
    pair.client.files["client/clock/enc.conf"] = b"kex=X448MLKEM1024"
    pair.server.files.update(certified("server/clock", "clock"))
    failed = pair.refused()
    assert failed.error == "FlowCryptException"
    assert f"{REPLY_OAP_LENGTH} fit in a reply" in why(pair.server)
    pair.client.files.clear()
    assert pair.server.history == []


def test_a_peer_whose_answer_is_refused_is_told_that_nobody_is_there() -> None:
    pair = Pair()
    pair.client.files["client/clock/policy.conf"] = b"require=certificate"
    asked, taken = pair.ask()
    failed = pair.client.failed(asked)
    assert failed.error == "FlowAuthException"
    assert (
        "the answer of 192.0.2.2:3435 for a flow to 'clock' was refused here: the server of 'clock' has no"
        in failed.text
    )
    pair.server.granted(taken)
    assert len(pair.server.take(PeerGone)) == 1
    assert pair.client.history == []
    pair.server.dealloc(pair.acceptor, taken)
    pair.network.run(150.0)
    pair.client.assert_idle()


# --- attacks


@pytest.mark.parametrize("signed", [False, True])
def test_a_flipped_bit_anywhere_in_a_reply_is_found_out(signed: bool) -> None:
    pair = Pair()
    if signed:
        pair.client.files.update(trusting())
        pair.client.irm.security.reload()
        pair.server.files.update(certified("server/clock", "clock"))
    pair.server.accept(pair.acceptor)
    _, data, _ = pair.request()
    pair.server.irm.management_arrived(pair.server.layer_id, data, pair.client.address, 0.0)
    pair.server.collect()
    reply = decode(pair.server.sent()[-1])
    assert isinstance(reply, FlowReply)
    handshake = pair.client.layer._outgoing._tries[reply.eid].handshake
    blob = reply.oap.index(extension.MAGIC)
    # The time of an answer means nothing, and who has no certificate cannot vouch for what its node can do.
    free = set() if signed else {*range(16, 24), *range(blob, blob + extension.LENGTH)}
    for at in set(range(len(reply.oap))) - free:
        changed = bytearray(reply.oap)
        changed[at] ^= 1 << at % 8
        with pytest.raises(OapError):
            handshake.finish(bytes(changed))
    assert handshake.finish(reply.oap).cipher == 901


@pytest.mark.parametrize("at", [24, 25, 26, 27])
def test_a_downgrade_of_cipher_or_derivation_is_refused(at: int) -> None:
    pair = Pair()
    pair.server.accept(pair.acceptor)
    _, data, _ = pair.request()
    pair.server.irm.management_arrived(pair.server.layer_id, data, pair.client.address, 0.0)
    pair.server.collect()
    reply = decode(pair.server.sent()[-1])
    assert isinstance(reply, FlowReply)
    weaker = {24: (895, 1097), 25: (904, 1097), 26: (901, 672), 27: (901, 1057)}[at]
    changed = bytearray(reply.oap)
    changed[24:26], changed[26:28] = (number.to_bytes(2) for number in weaker)
    answer = msgspec.structs.replace(reply, oap=bytes(changed))
    pair.client.irm.management_arrived(pair.client.layer_id, answer.encode(), pair.server.address, 0.0)
    pair.client.collect()
    assert pair.client.history == []
    failed = pair.client.failed(pair.client._last_token)
    assert failed.error == "FlowCryptException"
    assert "weaker" in failed.text or "derives keys with" in failed.text


def test_an_answer_in_clear_is_never_taken() -> None:
    pair = Pair()
    asked, _, request = pair.request()
    header = oap.decode(request.oap)
    plain = msgspec.structs.replace(
        header, cipher=0, kdf=0, digest=0, kex=b"", data=b"", request_hash=_hash_of(request.oap, header.digest)
    )
    answer = FlowReply(request.eid, 64, 0, plain.encode())
    pair.client.irm.management_arrived(pair.client.layer_id, answer.encode(), pair.server.address, 0.0)
    pair.client.collect()
    failed = pair.client.failed(asked)
    assert failed.error == "FlowCryptException"
    assert "the server answers in plaintext" in failed.text


def test_a_request_that_comes_again_makes_no_second_flow() -> None:
    pair = Pair()
    pair.flow()
    datagram = next(data for source, _, data in pair.network.sent if source == pair.client.address)
    pair.server.accept(pair.acceptor)
    for source in (pair.client.address, STRANGER):
        for _ in range(5):
            pair.network.deliver(source, pair.server.address, datagram)
    pair.network.run(5.0)
    assert len(pair.server.history) == 1
    assert "here before" in why(pair.server)


def test_a_flood_of_requests_is_bounded_and_logs_little() -> None:
    pair = Pair()
    pair.server.files["server/clock/policy.conf"] = b"require=certificate"
    _, data, request = pair.request()
    before = len(pair.server.files.reads)
    for number in range(10_000):
        header = msgspec.structs.replace(oap.decode(request.oap), id=number.to_bytes(16))
        flood = msgspec.structs.replace(request, eid=number + 1, oap=header.encode())
        pair.server.irm.management_arrived(pair.server.layer_id, flood.encode(), (f"198.51.100.{number % 250}", 4), 0.0)
    pair.server.collect()
    looked_at = pair.server.counters["handshakes_failed"]
    assert looked_at <= incoming.REQUESTS[1]
    assert len(pair.server.files.reads) - before <= 8 * looked_at
    assert len(pair.server.sent()) <= incoming.REFUSALS_TO_PROVEN[1]
    assert len(pair.server.take(Warn)) <= incoming.WARNINGS[1]
    assert pair.server.layer._incoming.waiting == []
    assert len(data) < 2048


def test_keys_are_in_no_text_of_a_node() -> None:
    pair = Pair()
    near, far = pair.flow()
    assert near.session is not None
    key = near.session.key.hex()
    texts = [repr(near), repr(far), repr(pair.client.irm.flows.entries()), repr(pair.server.irm.flows.flows)]
    assert not any(key in text or repr(bytes(near.session.key))[2:-1] in text for text in texts)


def _hash_of(request: bytes, digest: int) -> bytes:
    return hashlib.new(HASH_BY_NUMBER[digest].python if digest else oap.DEFAULT_REQUEST_HASH, request).digest()
