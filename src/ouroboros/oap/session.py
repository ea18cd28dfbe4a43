"""The input of a handshake, and its result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from ouroboros.errors import FlowAuthException, FlowCryptException, FlowRefusedException, OuroborosError
from ouroboros.wire.suites import CIPHER_BY_NAME, HASH_BY_NAME, KEX_BY_NAME, Cipher, Hash, Kex

if TYPE_CHECKING:
    from ouroboros.oap.certificates import Credentials, TrustStore
    from ouroboros.oap.exchange import PublishedKey, StaticKey

#: The codes of a refusal, as they are in the reply to an allocation.
ECRYPT = -1008
EAUTH = -1009


class OapError(OuroborosError):
    """An allocation was refused here. `code` goes to the peer; the text, which says what each side wanted, does not."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


def refusal(error: OapError, text: str) -> FlowRefusedException:
    """A handshake failed. The program is told `text`, and why."""
    kind = FlowAuthException if error.code == EAUTH else FlowCryptException
    return kind(f"{text}: {error}")


class Random(Protocol):
    """The part of `random.Random` that is needed."""

    def randbytes(self, n: int, /) -> bytes: ...


class Encryption(msgspec.Struct, frozen=True):
    """The `enc.conf` of one side: the least that it accepts, and as a client, what it offers.

    `client_encapsulates`: as a client, use the key that the server has published instead of a fresh one.
    """

    kex: str = "prime256v1"
    cipher: str = "aes-256-gcm"
    kdf: str = "sha256"
    digest: str = "sha256"
    client_encapsulates: bool = False

    def __str__(self) -> str:
        return f"{self.kex}, {self.cipher}, {self.kdf}"

    @property
    def exchange(self) -> Kex:
        return KEX_BY_NAME[self.kex]

    @property
    def encryption(self) -> Cipher:
        return CIPHER_BY_NAME[self.cipher]

    @property
    def derivation(self) -> Hash:
        return HASH_BY_NAME[self.kdf]


class Policy(msgspec.Struct, frozen=True):
    """The duties of the peer, whatever its configuration.

    `encrypt`: no plaintext. `strength`: the least size of the cipher's key, bits. `authenticate`: the peer has a
    certificate that we trust. `peers`: as a server, the clients that may have flows, by the name in their certificates;
    none means any.
    """

    encrypt: bool = False
    strength: int = 0
    authenticate: bool = False
    peers: tuple[str, ...] = ()


class Settings(msgspec.Struct, frozen=True):
    """All that one side has for one name. Without arguments: plaintext, and nobody is known.

    `credentials`: our certificate and key. `trust`: who may issue the certificates of peers. `published`: as a client, the
    key of the server for `Encryption.client_encapsulates`; `static`: as a server, the private parts of such keys.
    """

    encryption: Encryption | None = None
    policy: Policy = Policy()
    credentials: Credentials | None = None
    trust: TrustStore | None = None
    published: PublishedKey | None = None
    static: tuple[StaticKey, ...] = ()


class Session(msgspec.Struct, frozen=True):
    """The agreement. The key of a plaintext flow is empty.

    `suite`: key exchange, cipher and hash for people. `cipher`: its number. `peer_certificate`: DER, checked; `peer_name`:
    the name in it. `data`: what the peer's program or node had to say. `strength`: size of the cipher's key, bits.
    """

    suite: str | None = None
    cipher: int = 0
    key: bytearray = msgspec.field(default_factory=bytearray)
    peer_name: str | None = None
    peer_certificate: bytes | None = None
    data: bytes = b""
    strength: int = 0

    def wipe(self) -> None:
        """Overwrite the key, once whoever encrypts has it."""
        self.key[:] = bytes(len(self.key))

    def __repr__(self) -> str:
        return f"<Session {self.suite or 'in plaintext'}, peer {self.peer_name or 'unknown'}>"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("suite", self.suite), ("peer_name", self.peer_name)]
