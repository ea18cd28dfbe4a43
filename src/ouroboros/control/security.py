"""What protects the flows of this node, name by name. Pure: files come from a `Directory`.

The files of a name are read at each allocation, so that a change counts for the next one; they are parsed again only when
they did change. The certificates of those whom we trust are read by `reload`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ouroboros.control.messages import NameSecurity
from ouroboros.control.oap import ClientHandshake, OapError, Server, Session, Settings, asking, negotiation
from ouroboros.control.oap.directory import Paths, Side, has_directory, load_settings, load_trust
from ouroboros.control.oap.session import Random
from ouroboros.errors import FlowAuthException
from ouroboros.layers.udp.refusals import refusal
from ouroboros.security import FlowSecurity

if TYPE_CHECKING:
    from ouroboros.control.oap.certificates import TrustStore

#: So many sides of names are remembered as parsed.
_PARSED = 256


class Directory(Protocol):
    """The security directory. A path is relative to it, or absolute. All raise `OSError` for what cannot be read."""

    def exists(self, path: str) -> bool:
        """Whether there is something, be it unreadable."""

    def read(self, path: str) -> bytes | None:
        """The content of a file; None when there is none."""

    def files(self, path: str) -> dict[str, bytes]:
        """The files of a folder by their paths; none when there is no folder."""


class NoDirectory:
    """Nothing is configured."""

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
    """What protects flows, and the handshakes of those that stay inside the node.

    `paths`: the files that are configured for a name.
    """

    def __init__(
        self,
        directory: Directory,
        paths: Callable[[str], NameSecurity | None],
        *,
        random: Random,
        wall: Callable[[], int],
    ) -> None:
        self._directory = directory
        self._paths = paths
        self._random = random
        self._wall = wall
        self._trust: TrustStore | None = None
        self._parsed: dict[tuple[str, Side], _Parsed] = {}
        # Apart from that of peers: neither is in the way of the other.
        self._oap = Server()

    def reload(self) -> None:
        """Read anew whom we trust. Raises `FlowAuthException` naming the file that is wrong; then nothing changed."""
        try:
            trust = load_trust(self._directory.files("cacert"), self._directory.files("untrusted"))
        except OapError as error:
            raise FlowAuthException(f"the CA store cannot be used: {error}") from error
        except OSError as error:
            raise FlowAuthException(f"the CA store cannot be read: {error.filename}: {error.strerror}") from error
        self._trust = trust
        self._parsed.clear()

    def settings(self, name: str, side: Side) -> Settings:
        """What is configured for a side of flows to a name. Raises `OapError` naming the file that is wrong."""
        paths = _of_side(self._paths(name), side)
        if paths == Paths() and not self._has_files(name, side):
            return Settings(trust=self._trust)
        key = (name, side)
        known = self._parsed.get(key)
        if known is not None and all(self._is_same(path, content) for path, content in known.files.items()):
            return known.settings
        files: dict[str, bytes | None] = {}

        def read(path: str) -> bytes | None:
            content = files[path] = self._directory.read(path)
            return content

        settings = load_settings(read, side, name, self._trust, paths)
        self._parsed.pop(key, None)
        if len(self._parsed) >= _PARSED:
            del self._parsed[next(iter(self._parsed))]
        self._parsed[key] = _Parsed(files, settings)
        return settings

    def asked(self, name: str, cypher_s: int) -> Settings:
        """What a client wants of a flow: what is configured, and what its program asks for.

        Raises `FlowCryptException` or `FlowAuthException` when what is configured cannot be used.
        """
        try:
            return asking(self.settings(name, "client"), cypher_s)
        except OapError as error:
            raise refusal(error, f"no flow to {name!r}") from error

    def agree(self, name: str, cypher_s: int) -> tuple[Session, Session] | None:
        """The two ends of a flow inside this node, allocator first; None when it is in plaintext.

        Both sides want of each other what they would want over a network. Raises `FlowCryptException` or
        `FlowAuthException` when they do not come together.
        """
        client = self.asked(name, cypher_s)
        try:
            server = self.settings(name, "server")
            if _is_anonymous(client) and _is_anonymous(server):
                return self._draw(client, server)
            return self._exchange(name, client, server)
        except OapError as error:
            text = f"the flow to {name!r} was refused within this node (the client: {negotiation.wish(client)})"
            raise refusal(error, text) from error

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
        received = self._oap.receive(handshake.request, server, self._wall())
        response, accepted = received.respond(random=self._random, wall=self._wall())
        allocated = handshake.finish(response)
        return (allocated, accepted) if allocated.cipher else None

    def _has_files(self, name: str, side: Side) -> bool:
        return has_directory(name) and self._directory.exists(f"{side}/{name}")

    def _is_same(self, path: str, content: bytes | None) -> bool:
        try:
            return self._directory.read(path) == content
        except OSError:
            return False


def shown(session: Session | None) -> FlowSecurity | None:
    """What a program may know of it, which is all but the key; None for plaintext."""
    if session is None or not session.cipher:
        return None
    return FlowSecurity(session.suite or "", session.strength, session.peer_name, session.peer_certificate)


def _of_side(paths: NameSecurity | None, side: Side) -> Paths:
    if paths is None:
        return Paths()
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
