"""The agreement of two sides with different wishes. Source: `security.md` 6 and 11.2.

Ranks decide, as the prototype has them; on top of that comes our policy, which counts the bits of the cipher's key, and
that nobody is given a cipher without integrity who did not ask for one.
"""

from __future__ import annotations

import msgspec

from ouroboros.oap.encodings import CIPHERTEXT_SIZES, identify
from ouroboros.oap.session import ECRYPT, Encryption, OapError, Policy, Settings
from ouroboros.wire.oap import ID_SIZE, Header
from ouroboros.wire.suites import (
    CIPHER_BY_NUMBER,
    CIPHERS,
    HASH_BY_NAME,
    HASH_BY_NUMBER,
    KEX_BY_NAME,
    KEXES,
    Cipher,
    Hash,
    Kex,
)

#: The abilities of this node. `cryptography` has no ML-KEM-512.
AVAILABLE = tuple(kex.name for kex in KEXES if kex.name != "ML-KEM-512")

#: The hash that derives the key when neither side names one.
_DEFAULT_KDF = HASH_BY_NAME["sha256"]

# The strongest exchange that every build of the prototype has: a server refuses a weaker one than its own, and gives no
# second chance.
_FOR_CYPHER_S = {
    128: Encryption("secp521r1", "aes-128-gcm", "sha3-256", "sha256"),
    192: Encryption("secp521r1", "aes-192-gcm", "sha3-256", "sha384"),
    256: Encryption("secp521r1", "aes-256-gcm", "sha3-256", "sha512"),
}


class Agreement(msgspec.Struct, frozen=True):
    """The encryption of the packets of a flow. `named`: the number of `kdf` that the response has."""

    kex: Kex
    cipher: Cipher
    kdf: Hash
    named: int

    def __str__(self) -> str:
        return f"{self.kex.name}, {self.cipher.name}, {self.kdf.name}"


def asking(settings: Settings, cypher_s: int) -> Settings:
    """The settings of a client whose program wants that many bits: never weaker than either.

    A policy that wants encryption counts as 256 bits when nothing is configured.
    """
    policy = settings.policy
    bits = max(cypher_s, policy.strength)
    if not bits and policy.encrypt and settings.encryption is None:
        bits = 256
    if not bits:
        return settings
    level = next((each for each in _FOR_CYPHER_S if bits <= each), 256)
    return msgspec.structs.replace(
        settings,
        encryption=_stronger(_FOR_CYPHER_S[level], settings.encryption),
        policy=msgspec.structs.replace(policy, encrypt=True, strength=level),
    )


def _stronger(wanted: Encryption, configured: Encryption | None) -> Encryption:
    """The stronger, item by item."""
    if configured is None:
        return wanted
    return Encryption(
        max((wanted.kex, configured.kex), key=lambda name: KEX_BY_NAME[name].rank),
        stronger_cipher(wanted.encryption, configured.encryption).name,
        max((wanted.kdf, configured.kdf), key=lambda name: HASH_BY_NAME[name].rank),
        max((wanted.digest, configured.digest), key=lambda name: HASH_BY_NAME[name].rank),
        # Only an ML-KEM exchange can be configured with it, and those rank above all that is wanted here.
        configured.client_encapsulates,
    )


def stronger_cipher(one: Cipher, other: Cipher) -> Cipher:
    """The higher rank; but an AES key does not get shorter by it, so that of two it may be a third one."""
    high, low = (one, other) if one.rank >= other.rank else (other, one)
    return high if high.key >= low.key else _aead(low.key)


def _aead(key: int) -> Cipher:
    return next(each for each in CIPHERS if each.authenticated and each.key >= key)


# --- the server's side


def answer(request: Header, settings: Settings) -> Agreement | None:
    """The choice of the server for a request; None: plaintext. Raises `OapError` when there is no agreement."""
    if not request.kex:
        _check_plaintext(request, settings)
        return None
    kex = _requested_kex(request, settings)
    kdf = _requested_kdf(request, settings.encryption)
    return Agreement(kex, _requested_cipher(request, settings), HASH_BY_NUMBER.get(kdf, _DEFAULT_KDF), kdf)


def _check_plaintext(request: Header, settings: Settings) -> None:
    if request.raw or request.encapsulated:
        raise OapError(ECRYPT, "the client says what kind of key it sends, but sends none")
    if settings.encryption is not None or _wants_encryption(settings.policy):
        raise OapError(ECRYPT, f"the client offers no encryption; {wish(settings)}")


def _requested_kex(request: Header, settings: Settings) -> Kex:
    if request.encapsulated:
        return _static_kex(request, settings)
    name = identify(request.kex, request.raw)
    if name is None:
        raise OapError(ECRYPT, f"the client offers a key of a kind that is not known here; {wish(settings)}")
    return _offered_kex(name, settings)


def _offered_kex(name: str, settings: Settings) -> Kex:
    own = settings.encryption
    if name not in AVAILABLE:
        raise OapError(ECRYPT, f"the client offers {name}, which this node cannot do; {wish(settings)}")
    if own is not None and KEX_BY_NAME[name].rank < own.exchange.rank:
        raise OapError(ECRYPT, f"the client offers {name}, which is weaker; {wish(settings)}")
    return KEX_BY_NAME[name]


def _static_kex(request: Header, settings: Settings) -> Kex:
    static = next((each for each in settings.static if each.hybrid == request.raw), None)
    if static is None:
        raise OapError(ECRYPT, "the client uses a published key of the server, and there is none of that kind here")
    if settings.encryption is not None and not settings.encryption.exchange.kem:
        raise OapError(ECRYPT, f"the client uses the published key of the server; {wish(settings)}")
    if len(request.kex) != CIPHERTEXT_SIZES[static.kex]:
        raise OapError(ECRYPT, f"the client uses a published key that is not ours, which is for {static.kex}")
    return KEX_BY_NAME[static.kex]


def _requested_kdf(request: Header, own: Encryption | None) -> int:
    """The number of the stronger one; with a published key the client has derived already, so it is the client's."""
    asked = HASH_BY_NUMBER.get(request.kdf)
    if own is None:
        return request.kdf
    if asked is not None and asked.rank >= own.derivation.rank:
        return asked.number
    if request.encapsulated:
        name = asked.name if asked else _DEFAULT_KDF.name
        raise OapError(ECRYPT, f"the client derives keys with {name}, this side wants at least {own.kdf}")
    return own.derivation.number


def _requested_cipher(request: Header, settings: Settings) -> Cipher:
    """At least the rank that the client names, or it would refuse."""
    own = settings.encryption
    asked = CIPHER_BY_NUMBER.get(request.cipher)
    if own is not None:
        cipher = stronger_cipher(own.encryption, asked) if asked is not None else own.encryption
    elif asked is None:
        raise OapError(ECRYPT, "the client offers a key but no cipher, and none is configured here")
    else:
        cipher = asked if asked.authenticated else _aead(asked.key)
    if cipher.strength < settings.policy.strength:
        return stronger_cipher(cipher, _aead(min(settings.policy.strength, 256) // 8))
    return cipher


# --- the client's side


def check(response: Header, settings: Settings, *, encapsulated: bool) -> Agreement | None:
    """The choice in the response, for the client; None: plaintext. Raises `OapError` when it is less than it asked for."""
    own = settings.encryption
    if own is None:
        if response.kex or response.cipher or response.raw or response.encapsulated:
            raise OapError(ECRYPT, "the server answers with encryption, which this side did not offer")
        return None
    cipher = CIPHER_BY_NUMBER.get(response.cipher)
    if cipher is None:
        raise OapError(ECRYPT, f"the server answers in plaintext; {wish(settings)}")
    if cipher.rank < own.encryption.rank or cipher.strength < settings.policy.strength:
        raise OapError(ECRYPT, f"the server answers with {cipher.name}, which is weaker; {wish(settings)}")
    kdf = HASH_BY_NUMBER.get(response.kdf, own.derivation)
    if kdf.rank < own.derivation.rank or (encapsulated and kdf != own.derivation):
        raise OapError(ECRYPT, f"the server derives keys with {kdf.name}; {wish(settings)}")
    if response.encapsulated or response.raw != (own.exchange.hybrid and not encapsulated):
        raise OapError(ECRYPT, f"the server answers with a key of another kind; {wish(settings)}")
    return Agreement(own.exchange, cipher, kdf, response.kdf)


# --- both sides in one node


def inside(client: Settings, server: Settings) -> Agreement | None:
    """The agreement of the two sides of a flow when no message goes from one to the other; None: plaintext.

    The rules are those of `answer` and `check`, and so are the errors. `client` is what `asking` gave.
    """
    own = client.encryption
    request = Header(bytes(ID_SIZE), 0)
    if own is None:
        _check_plaintext(request, server)
        return None
    request = msgspec.structs.replace(request, cipher=own.encryption.number, kdf=own.derivation.number)
    kex = _offered_kex(own.kex, server)
    cipher, kdf = _requested_cipher(request, server), _requested_kdf(request, server.encryption)
    response = msgspec.structs.replace(request, cipher=cipher.number, kdf=kdf, raw=kex.hybrid)
    return check(response, client, encapsulated=False)


# --- texts


def wish(settings: Settings) -> str:
    """The wishes of this side, for an error."""
    wanted = f"this side wants at least {settings.encryption}" if settings.encryption is not None else ""
    if not wanted and _wants_encryption(settings.policy):
        wanted = "this side requires encryption"
    if settings.policy.strength:
        wanted += f" with {settings.policy.strength} bits"
    return wanted or "this side asks for no encryption"


def _wants_encryption(policy: Policy) -> bool:
    return policy.encrypt or policy.strength > 0
