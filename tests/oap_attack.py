"""What a stranger can send to the handshake, from bytes. Property tests and the fuzz target `fuzz/oap.py` take it from here.

The first byte of an input says who gets the rest: see `_TARGETS`. No input may cause anything but the errors that are meant
for it, nor pass for a message that somebody has signed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from oap_support import NOW, REQUEST_AT, RESPONSE_AT, VECTORS, Script

from ouroboros.errors import ProtocolError
from ouroboros.oap import ClientHandshake, Encryption, OapError, Policy, Server, Session, Settings
from ouroboros.oap.certificates import TrustStore
from ouroboros.oap.exchange import StaticKey
from ouroboros.wire import extension, udp
from ouroboros.wire.oap import FIXED_SIZE, Header, decode
from ouroboros.wire.suites import CIPHER_BY_NUMBER, HASH_BY_NUMBER

_PLAIN = Settings()
_ENCRYPTED = Settings(Encryption("X25519"))
_SIGNED = VECTORS["authenticated"][0]
_SEALED = next(each for each in VECTORS["kem"] if "server_static_mlkem_seed" in each)
_ANONYMOUS = next(each for each in VECTORS["handshakes_by_cipher"] if each["cipher"] == "aes-256-gcm")
_DEFAULT_HASH_SIZE = 48
_HASH_SIZES = (0, 32, _DEFAULT_HASH_SIZE, 64)


def attack(input: bytes) -> bool:
    """Give an input to its target. Returns whether it was taken for good."""
    kind, message = input[:1] or b"\0", input[1:]
    return _TARGETS[kind[0] % len(_TARGETS)](message)


# --- decoders


def _datagram(message: bytes) -> bool:
    """A management datagram, and what it carries."""
    try:
        found = udp.decode(message)
    except ProtocolError:
        return False
    carried = getattr(found, "oap", b"")
    return _header(carried) if carried else True


def _header(message: bytes) -> bool:
    taken = [_decoded(message, size) for size in _HASH_SIZES]
    return any(taken)


def _decoded(message: bytes, hash_size: int) -> bool:
    try:
        header = decode(message, hash_size)
    except ProtocolError:
        return False
    assert header.encode() == message
    assert len(header.request_hash) == hash_size
    blob = extension.decode(header.data)
    assert blob is None or header.data[6:28] == blob.encode()[6:]
    return True


# --- a server


def _to_server(settings: Settings) -> Callable[[bytes], bool]:
    def take(message: bytes) -> bool:
        # Whoever makes up a request gets its time right.
        wall = int.from_bytes(message[16:24]) if len(message) >= FIXED_SIZE else NOW
        try:
            received = Server().receive(message, settings, wall)
            response, session = received.respond(random=Random(1), wall=wall)
        except OapError:
            return False
        header = decode(message)
        assert (session.suite is None) == (not header.kex)
        _check(session)
        hash_size = HASH_BY_NUMBER[header.digest].size if header.digest else _DEFAULT_HASH_SIZE
        assert decode(response, hash_size).id == header.id
        if settings.policy.authenticate:
            _assert_signed(header, bytes.fromhex(_SIGNED["request"]))
        return True

    return take


# --- a client


@cache
def _client(kind: str) -> tuple[Settings, bytes, bytes]:
    """Its settings, the random bytes of its request, and that request."""
    if kind == "signed":
        settings = Settings(Encryption("X25519"), trust=_trust(), policy=Policy(authenticate=True))
        return settings, bytes.fromhex(_SIGNED["client_x25519_private"]), bytes.fromhex(_SIGNED["request"])
    request = bytes.fromhex(_ANONYMOUS["udp_request"])[REQUEST_AT:]
    return _ENCRYPTED, bytes.fromhex(_ANONYMOUS["client_private"]), request


def _to_client(kind: str) -> Callable[[bytes], bool]:
    def take(message: bytes) -> bool:
        settings, secret, request = _client(kind)
        header = decode(request)
        random = Script([secret, header.id])
        client = ClientHandshake("oping", settings, random=random, wall=header.timestamp, data=header.data)
        # The request as it was captured, with the signature of another client and its choice of algorithms.
        client._header, client.request = header, request
        try:
            session = client.finish(message)
        except OapError:
            return False
        assert session.suite is not None
        _check(session)
        if kind == "signed":
            _assert_signed(decode(message, 32), bytes.fromhex(_SIGNED["response"]), 32)
        return True

    return take


# --- what holds for all that is taken


def _check(session: Session) -> None:
    if session.suite is not None:
        assert len(session.key) == 32
        assert session.strength == CIPHER_BY_NUMBER[session.cipher].strength


def _assert_signed(header: Header, genuine: bytes, hash_size: int = 0) -> None:
    """All that the signature covers is as it was signed. (Signatures themselves can be written in two ways.)"""
    assert header.signed_part == decode(genuine, hash_size).signed_part


@cache
def _trust() -> TrustStore:
    root = x509.load_der_x509_certificate(bytes.fromhex(_SIGNED["root_ca_der"]))
    return TrustStore({"root.pem": root.public_bytes(Encoding.PEM)})


def _static() -> StaticKey:
    private = MLKEM768PrivateKey.from_seed_bytes(bytes.fromhex(_SEALED["server_static_mlkem_seed"]))
    return StaticKey(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


_TARGETS: list[Callable[[bytes], bool]] = [
    _datagram,
    _header,
    _to_server(_PLAIN),
    _to_server(_ENCRYPTED),
    _to_server(Settings(trust=_trust(), policy=Policy(authenticate=True))),
    _to_server(Settings(Encryption("ML-KEM-768"), static=(_static(),))),
    _to_client("encrypted"),
    _to_client("signed"),
]


def seeds() -> list[bytes]:
    """Inputs that are taken for good: captured messages, each for those who can get it."""
    captured = [VECTORS["handshake_p256"], *VECTORS["handshakes_by_kex"], *VECTORS["handshakes_by_kdf"]]
    found = []
    for each in captured:
        request, reply = bytes.fromhex(each["udp_request"]), bytes.fromhex(each["udp_reply"])
        found += [b"\0" + request, b"\0" + reply, b"\1" + request[REQUEST_AT:], b"\1" + reply[RESPONSE_AT:]]
        found.append(b"\2" + request[REQUEST_AT:])
    found.append(b"\3" + bytes.fromhex(_ANONYMOUS["udp_request"])[REQUEST_AT:])
    found.append(b"\4" + bytes.fromhex(_SIGNED["request"]))
    found.append(b"\5" + bytes.fromhex(_SEALED["request"]))
    found.append(b"\6" + bytes.fromhex(_ANONYMOUS["udp_reply"])[RESPONSE_AT:])
    found.append(b"\7" + bytes.fromhex(_SIGNED["response"]))
    return found


# --- alterations


def altered(seed: bytes, others: list[bytes], random: Random) -> bytes:
    """The same message with a few things done to it that parsers stumble over."""
    message = bytearray(seed)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(message) + 1)
        random.choice(_ALTERATIONS)(message, at, others, random)
    return bytes(message)


def _flip(message: bytearray, at: int, _: list[bytes], random: Random) -> None:
    if at < len(message):
        message[at] ^= 1 << random.randrange(8)


def _set(message: bytearray, at: int, _: list[bytes], random: Random) -> None:
    value = random.choice((b"\0", b"\xff", b"\0\0", b"\xff\xff", b"\x3f\xff", b"\x80\0", b"\x40\0", b"\0\1"))
    message[at : at + len(value)] = value


def _set_field(message: bytearray, _: int, others: list[bytes], random: Random) -> None:
    """A field of the fixed part, behind the first byte."""
    at = 1 + random.choice((24, 26, 28, 30, 32, 34))
    message[at : at + 2] = random.choice((random.randbytes(2), random.choice(others)[at : at + 2]))


def _cut(message: bytearray, at: int, _: list[bytes], random: Random) -> None:
    del message[at : at + random.randint(1, 64)]


def _insert(message: bytearray, at: int, _: list[bytes], random: Random) -> None:
    message[at:at] = random.randbytes(random.randint(1, 64))


def _splice(message: bytearray, at: int, others: list[bytes], random: Random) -> None:
    message[at:] = random.choice(others)[at:]


_ALTERATIONS = (_flip, _flip, _set, _set_field, _cut, _insert, _splice)
