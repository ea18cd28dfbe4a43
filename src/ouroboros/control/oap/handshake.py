"""Both sides of a handshake. Cheap checks come before dear ones, and nothing is remembered of who fails them."""

from __future__ import annotations

import hashlib

from ouroboros.control.oap.replay import ReplayMemory, check_age
from ouroboros.control.oap.session import EAUTH, ECRYPT, OapError, Random, Session, Settings
from ouroboros.errors import ProtocolError
from ouroboros.wire.oap import DEFAULT_REQUEST_HASH, ID_SIZE, Header, decode
from ouroboros.wire.suites import HASH_BY_NUMBER


class ClientHandshake:
    """The side that allocates: send `request`, give the response to `finish`.

    A response that is refused changes nothing: it may be a forged one, and the true one may still come.
    """

    def __init__(self, name: str, settings: Settings, *, random: Random, wall: int, data: bytes = b"") -> None:
        self._name = name
        self._settings = settings
        self._header = Header(id=random.randbytes(ID_SIZE), timestamp=wall, data=data)
        self.request = self._header.encode()

    def finish(self, response: bytes) -> Session:
        """What was agreed. Raises `OapError` when the response is not the one to this request, or agrees to less."""
        request_hash = _request_hash(self._header.digest, self.request)
        try:
            header = decode(response, len(request_hash))
        except ProtocolError as error:
            raise OapError(EAUTH, f"the response is none: {error}") from error
        if header.id != self._header.id or header.request_hash != request_hash:
            raise OapError(EAUTH, "the response is not one to this request")
        return Session(data=header.data)


class Received:
    """A request that was found good. `respond` makes the response and the session, once there is somebody to accept."""

    def __init__(self, request: bytes, header: Header, settings: Settings) -> None:
        self._request = request
        self._header = header
        self._settings = settings
        self.data = header.data
        self.peer_name: str | None = None

    def respond(self, *, random: Random, wall: int, data: bytes = b"") -> tuple[bytes, Session]:
        """The response, and what was agreed. Raises `OapError` when the keys are bad."""
        request_hash = _request_hash(self._header.digest, self._request)
        response = Header(id=self._header.id, timestamp=wall, data=data, request_hash=request_hash)
        return response.encode(), Session(data=self.data)


class Server:
    """Takes the requests of all clients of a node, and knows which ones were here before."""

    def __init__(self) -> None:
        self._memory = ReplayMemory()

    def receive(self, request: bytes, settings: Settings, wall: int) -> Received:
        """Check a request. Raises `OapError` when it is refused."""
        try:
            header = decode(request)
        except ProtocolError as error:
            raise OapError(EAUTH, f"the request is none: {error}") from error
        check_age(header.timestamp, wall)
        self._memory.check(header.timestamp, header.id, wall)
        if header.kex or header.certificate:
            raise OapError(ECRYPT, "the client wants an encrypted flow, and this node does none yet")
        self._memory.add(header.timestamp, header.id, wall)
        return Received(request, header, settings)


def _request_hash(number: int, request: bytes) -> bytes:
    """What a response says about the request, by the digest that the request names."""
    name = HASH_BY_NUMBER[number].python if number else DEFAULT_REQUEST_HASH
    return hashlib.new(name, request).digest()
