"""Protection of the flows of this node, name by name. Pure: files come from `SecurityFiles`.

The files of a name are read at each allocation, so that a change counts for the next one; they are parsed again only when
they did change. `reload` reads the certificates that we trust.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ouroboros.control.parties import Party, Process
from ouroboros.errors import FlowAuthException, FlowRefusedException
from ouroboros.layers.bucket import WARNINGS, Bucket
from ouroboros.oap import (
    EAUTH,
    ECRYPT,
    ClientHandshake,
    OapError,
    Server,
    Session,
    Settings,
    asking,
    negotiation,
    refusal,
)
from ouroboros.oap.directory import Paths, Side, has_directory, load_settings, load_trust
from ouroboros.oap.session import Random
from ouroboros.security import FlowSecurity
from ouroboros.wire.control import NameSecurity

if TYPE_CHECKING:
    from ouroboros.oap.certificates import TrustStore

#: Sides of names that are kept parsed.
_PARSED = 256


class SecurityFiles(Protocol):
    """The security directory. A path is relative to it, or absolute. All raise `OSError` for what cannot be read.

    `root`: its own path, with a slash behind it, for messages that name a file.
    """

    @property
    def root(self) -> str: ...

    def exists(self, path: str) -> bool:
        """Whether there is something, be it unreadable."""

    def read(self, path: str) -> bytes | None:
        """The content of a file; None when there is none."""

    def files(self, path: str) -> dict[str, bytes]:
        """The files of a folder by their paths; none when there is no folder."""


class NoSecurityFiles:
    """Nothing is configured."""

    root = ""

    def exists(self, path: str) -> bool:
        return False

    def read(self, path: str) -> bytes | None:
        return None

    def files(self, path: str) -> dict[str, bytes]:
        return {}


class _Parsed(NamedTuple):
    files: Mapping[str, bytes | None]
    settings: Settings


class Security:
    """Protection of flows, and the handshakes of flows that stay inside the node.

    `paths`: the files that are configured for a name. `warn`: tells the operator why the node refused a program, and the
    user of that.
    """

    def __init__(
        self,
        files: SecurityFiles,
        paths: Callable[[str], NameSecurity | None],
        warn: Callable[[str, int | None], None],
        *,
        random: Random,
        wall: Callable[[], int],
    ) -> None:
        self._files = files
        self._paths = paths
        self._warn = warn
        #: For the owner, and for all others.
        self._warnings = {trusted: Bucket(*WARNINGS) for trusted in (True, False)}
        self._random = random
        self._wall = wall
        self._trust: TrustStore | None = None
        #: Settings of names for which nothing is configured.
        self._plain = Settings()
        self._parsed: dict[tuple[str, Side], _Parsed] = {}
        # Separate from the server for peers, so that neither blocks the other.
        self._oap = Server()

    def reload(self) -> None:
        """Read the trusted certificates again. Raises `FlowAuthException`, naming the wrong file; then nothing changed."""
        try:
            trust = load_trust(self._files.files("cacert"), self._files.files("untrusted"))
        except OapError as error:
            raise FlowAuthException(f"the CA store cannot be used: {error}") from error
        except OSError as error:
            raise FlowAuthException(f"the CA store cannot be read: {error.filename}: {error.strerror}") from error
        self._trust = trust
        self._plain = Settings(trust=trust)
        self._parsed.clear()

    def settings(self, name: str, side: Side) -> Settings:
        """The configured settings for one side of flows to a name. Raises `OapError` naming the file that is wrong."""
        paths = _of_side(self._paths(name), side)
        if paths == _NOWHERE and not self._has_files(name, side):
            return self._plain
        key = (name, side)
        known = self._parsed.get(key)
        if known is not None and all(self._is_same(path, content) for path, content in known.files.items()):
            return known.settings
        files: dict[str, bytes | None] = {}

        def read(path: str) -> bytes | None:
            content = files[path] = self._files.read(path)
            return content

        settings = load_settings(read, side, name, self._trust, paths, self._files.root)
        self._parsed.pop(key, None)
        if len(self._parsed) >= _PARSED:
            del self._parsed[next(iter(self._parsed))]
        self._parsed[key] = _Parsed(files, settings)
        return settings

    def asked(self, name: str, cypher_s: int, party: Party) -> Settings:
        """Settings of a client: the configured ones, made as strong as its program asks for.

        Raises `FlowCryptException` or `FlowAuthException` when what is configured cannot be used.
        """
        try:
            return asking(self.settings(name, "client"), cypher_s)
        except OapError as error:
            text = f"no flow to {name!r}"
            if not party.trusted:
                raise self._refuse(name, party, error, text, "what this node has configured for it is wrong") from error
            raise refusal(error, text) from error

    def agree(self, name: str, cypher_s: int, party: Party) -> tuple[Session, Session] | None:
        """The two ends of a flow inside this node, allocator first; None when it is in plaintext.

        Both sides want of each other what they would want over a network, and tell each other no more. Raises
        `FlowCryptException` or `FlowAuthException` when they do not come together.
        """
        client = self.asked(name, cypher_s, party)
        text = f"the flow to {name!r} was refused within this node"
        try:
            with _as_server():
                server = self.settings(name, "server")
                if _is_anonymous(client) and _is_anonymous(server):
                    return self._draw(client, server)
            return self._exchange(name, client, server)
        except _OfServer as error:
            raise self._refuse(name, party, error, text, _REASONS[error.code] + negotiation.wish(client)) from error
        except OapError as error:
            raise refusal(error, f"{text} (the client: {negotiation.wish(client)})") from error

    def _refuse(self, name: str, party: Party, error: OapError, text: str, why: str) -> FlowRefusedException:
        """The error for a program, in place of one that quotes secrets of the owner: allowed peers, and lines of files."""
        if self._warnings[party.trusted].take(self._wall() / 1e9):
            user = party.uid if isinstance(party, Process) else None
            self._warn(f"a flow to {name!r} for {party.program} ({party.pid}) was refused: {error}", user)
        return refusal(OapError(error.code, f"{why}; the log of the node has the reason"), text)

    def _draw(self, client: Settings, server: Settings) -> tuple[Session, Session] | None:
        """Nobody shows a certificate and nobody listens, so that the node may choose the key itself."""
        agreement = negotiation.inside(client, server)
        if agreement is None:
            return None
        key = self._random.randbytes(32)
        text = f"{agreement.cipher.name}, key of the node"
        first, second = (
            Session(text, agreement.cipher.number, bytearray(key), strength=agreement.cipher.strength) for _ in range(2)
        )
        return first, second

    def _exchange(self, name: str, client: Settings, server: Settings) -> tuple[Session, Session] | None:
        handshake = ClientHandshake(name, client, random=self._random, wall=self._wall())
        with _as_server():
            received = self._oap.receive(handshake.request, server, self._wall())
            response, accepted = received.respond(random=self._random, wall=self._wall())
        allocated = handshake.finish(response)
        return (allocated, accepted) if allocated.cipher else None

    def _has_files(self, name: str, side: Side) -> bool:
        return has_directory(name) and self._files.exists(f"{side}/{name}")

    def _is_same(self, path: str, content: bytes | None) -> bool:
        try:
            return self._files.read(path) == content
        except OSError:
            return False


class _OfServer(OapError):
    """An error of the server's side. Its text is for the operator of the node."""


#: Reasons that the client's side can give, by the code.
_REASONS = {
    ECRYPT: "the two sides agree on no encryption: the server wants more or has no valid settings, and ",
    EAUTH: "this side has no certificate that the server trusts and allows, or the server has no valid settings; ",
}


@contextlib.contextmanager
def _as_server() -> Iterator[None]:
    try:
        yield
    except OapError as error:
        raise _OfServer(error.code, str(error)) from error


def shown(session: Session | None) -> FlowSecurity | None:
    """The part for programs, which is all but the key; None for plaintext."""
    if session is None or not session.cipher:
        return None
    return FlowSecurity(session.suite or "", session.strength, session.peer_name, session.peer_certificate)


_NOWHERE = Paths()


def _of_side(paths: NameSecurity | None, side: Side) -> Paths:
    if paths is None:
        return _NOWHERE
    if side == "server":
        return Paths(paths.server_encryption, paths.server_certificate, paths.server_key)
    return Paths(paths.client_encryption, paths.client_certificate, paths.client_key)


def _is_anonymous(settings: Settings) -> bool:
    policy, encryption = settings.policy, settings.encryption
    return not (
        settings.credentials is not None
        or policy.authenticate
        or policy.peers
        or (encryption is not None and encryption.client_encapsulates)
    )
