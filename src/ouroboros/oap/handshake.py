"""Both sides of a handshake.

Cheap checks come before dear ones: what a message claims is compared with what is configured before a certificate is
looked at, and a key is computed with only after that. Nothing is remembered of who fails.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING

import msgspec

from ouroboros.errors import ProtocolError
from ouroboros.oap import negotiation
from ouroboros.oap.budget import SHARE, SHARE_OF_STRANGERS, Budget
from ouroboros.oap.negotiation import Agreement
from ouroboros.oap.replay import ReplayMemory, check_age
from ouroboros.oap.session import EAUTH, ECRYPT, Encryption, OapError, Random, Session, Settings
from ouroboros.wire.oap import DEFAULT_REQUEST_HASH, ID_SIZE, Header, decode
from ouroboros.wire.suites import HASH_BY_NAME, HASH_BY_NUMBER

if TYPE_CHECKING:
    from ouroboros.oap.certificates import Certificate, Role
    from ouroboros.oap.derivation import Shared
    from ouroboros.oap.exchange import Offer


class ClientHandshake:
    """The side that allocates: send `request`, give the response to `finish`.

    `settings` are those of the name, made strong enough by `asking`. Raises `OapError` when they cannot be used.
    """

    def __init__(self, name: str, settings: Settings, *, random: Random, wall: int, data: bytes = b"") -> None:
        self._name = name
        self._settings = negotiation.asking(settings, 0)
        own = self._settings.encryption
        self._offer = _make_offer(own, settings, random) if own is not None else None
        header = Header(id=random.randbytes(ID_SIZE), timestamp=wall, digest=_digest(settings, own), data=data)
        if own is not None and self._offer is not None:
            header = msgspec.structs.replace(
                header,
                cipher=own.encryption.number,
                kdf=own.derivation.number,
                kex=self._offer.kex,
                raw=own.exchange.hybrid,
                encapsulated=self._offer.encapsulated,
            )
        self._header = header
        self.request = _sign(header, settings)
        self._finished = False

    def finish(self, response: bytes) -> Session:
        """What was agreed. Raises `OapError` when the response is not the one to this request, or agrees to less.

        A response that is refused changes nothing: it may be a forged one, and the true one may still come.
        """
        if self._finished:
            raise OapError(EAUTH, "the response was here before")
        header = self._decode(response)
        policy = self._settings.policy
        if policy.authenticate and not header.certificate:
            raise OapError(EAUTH, f"the server of {self._name!r} has no certificate, and this side requires one")
        agreement = negotiation.check(header, self._settings, encapsulated=self._header.encapsulated)
        peer = _authenticate(header, self._settings, "server", self._header.timestamp)
        if peer is not None and peer.name != self._name:
            raise OapError(EAUTH, f"the certificate of the server is for {peer.name!r}, not for {self._name!r}")
        shared = self._share(header)
        self._finished, self._offer = True, None
        return _session(agreement, shared, peer, header.data)

    def claimed(self, response: bytes) -> bytes:
        """The data of a response, be it true or not; b"" when it is none."""
        try:
            return self._decode(response).data
        except OapError:
            return b""

    def refused(self, code: int) -> OapError:
        """The error for a refusal, which is nothing but its code."""
        return OapError(code, f"refused by the server ({code}): {self.reason(code)}")

    def reason(self, code: int) -> str:
        """What a refusal with that code can mean, and what this side wanted."""
        wish = negotiation.wish(self._settings)
        reasons = {
            ECRYPT: f"the two sides agree on no encryption; {wish}, and the server wants more or has no valid settings",
            EAUTH: "the server does not believe the request: the clocks of the two hosts differ, this side has no "
            f"certificate that the server trusts and allows, or the request was altered on the way; {wish}",
        }
        return reasons.get(code, "no reason known")

    def _decode(self, response: bytes) -> Header:
        request_hash = _request_hash(self._header.digest, self.request)
        try:
            header = decode(response, len(request_hash))
        except ProtocolError as error:
            raise OapError(EAUTH, f"the response is none: {error}") from error
        if header.id != self._header.id or not hmac.compare_digest(header.request_hash, request_hash):
            raise OapError(EAUTH, "the response is not one to this request: one of them was altered on the way")
        return header

    def _share(self, header: Header) -> Shared | None:
        if self._offer is None:
            return None
        try:
            return self._offer.finish(header.kex)
        except ValueError as error:
            raise OapError(ECRYPT, f"the key of the server cannot be used: {error}") from error


class Received:
    """A request that was found good. `respond` makes the response and the session, once there is somebody to accept."""

    def __init__(
        self,
        request: bytes,
        header: Header,
        settings: Settings,
        agreement: Agreement | None,
        peer: Certificate | None,
    ) -> None:
        self._request = request
        self._header = header
        self._settings = settings
        self._agreement = agreement
        self._peer = peer
        self.data = header.data
        self.peer_name = peer.name if peer is not None else None

    def respond(self, *, random: Random, wall: int, data: bytes = b"") -> tuple[bytes, Session]:
        """The response, and what was agreed. Raises `OapError` when the client's key is bad."""
        kex, shared = self._share(random)
        agreement = self._agreement
        response = Header(
            id=self._header.id,
            timestamp=wall,
            cipher=agreement.cipher.number if agreement is not None else 0,
            kdf=agreement.named if agreement is not None else 0,
            digest=_digest(self._settings, self._settings.encryption),
            kex=kex,
            raw=bool(kex) and self._header.raw,
            data=data,
            request_hash=_request_hash(self._header.digest, self._request),
        )
        return _sign(response, self._settings), _session(agreement, shared, self._peer, self.data)

    def _share(self, random: Random) -> tuple[bytes, Shared | None]:
        if self._agreement is None:
            return b"", None
        # Not imported by nodes that encrypt nothing.
        from ouroboros.oap import exchange

        try:
            if self._header.encapsulated:
                static = next(each for each in self._settings.static if each.hybrid == self._header.raw)
                return b"", static.open(self._header.kex)
            return exchange.answer(self._agreement.kex.name, self._header.kex, random)
        except ValueError as error:
            raise OapError(ECRYPT, f"the key of the client cannot be used: {error}") from error


class Server:
    """Takes the requests of all clients of a node, and knows which ones were here before."""

    def __init__(self, capacity: int = 1 << 16) -> None:
        """`capacity`: how many requests of the last twenty seconds are remembered, of either kind."""
        # Apart, so that a flood of requests that anybody can make does not touch those that are signed.
        self._anonymous = ReplayMemory(capacity)
        self._signed = ReplayMemory(capacity)
        #: By whether the address of the client is proven.
        self._budgets = {True: Budget(SHARE), False: Budget(SHARE_OF_STRANGERS)}

    def receive(self, request: bytes, settings: Settings, wall: int, *, proven: bool = True) -> Received:
        """Check a request against the settings of the name that it is for. `proven`: it comes from where it says. Raises
        `OapError` when it is refused."""
        try:
            header = decode(request)
        except ProtocolError as error:
            raise OapError(EAUTH, f"the request is none: {error}") from error
        self._check_time(header, wall)
        policy = settings.policy
        if (policy.authenticate or policy.peers) and not header.certificate:
            raise OapError(EAUTH, "the client has no certificate, and this side requires one")
        agreement = negotiation.answer(header, settings)
        peer = _authenticate(header, settings, "client", wall)
        if policy.peers and (peer is None or peer.name not in policy.peers):
            name = peer.name if peer is not None else None
            raise OapError(EAUTH, f"the client is {name!r}; allowed are {', '.join(map(repr, policy.peers))}")
        if peer is None and agreement is not None:
            self._budgets[proven].spend(agreement.kex.name, wall)
        memory = self._signed if peer is not None else self._anonymous
        memory.add(header.timestamp, header.id, wall)
        return Received(request, header, settings, agreement, peer)

    def _check_time(self, header: Header, wall: int) -> None:
        check_age(header.timestamp, wall)
        own, other = self._anonymous, self._signed
        if header.certificate:
            own, other = other, own
        own.check(header.timestamp, header.id, wall)
        if (header.timestamp, header.id) in other:
            raise OapError(EAUTH, "the same request was here before, with or without a certificate")


# --- what both sides do


def _make_offer(own: Encryption, settings: Settings, random: Random) -> Offer:
    from ouroboros.oap import exchange

    if own.kex not in negotiation.AVAILABLE:
        raise OapError(ECRYPT, f"this node cannot do {own.kex}; it does {', '.join(negotiation.AVAILABLE)}")
    if not own.client_encapsulates:
        return exchange.offer(own.kex, random)
    if settings.published is None or settings.published.kex != own.kex:
        there = "there is none" if settings.published is None else f"it is for {settings.published.kex}"
        raise OapError(ECRYPT, f"this side wants to use the published key of the server for {own.kex}, but {there}")
    try:
        return settings.published.offer(random)
    except ValueError as error:
        raise OapError(ECRYPT, f"the published key of the server cannot be used: {error}") from error


def _digest(settings: Settings, own: Encryption | None) -> int:
    """The number of the hash that this side signs with."""
    if own is None or (settings.credentials is not None and settings.credentials.has_own_digest):
        return 0
    return HASH_BY_NAME[own.digest].number


def _sign(header: Header, settings: Settings) -> bytes:
    if settings.credentials is None:
        return header.encode()
    part = msgspec.structs.replace(header, certificate=settings.credentials.certificate).signed_part
    return part + settings.credentials.sign(part, header.digest)


def _authenticate(header: Header, settings: Settings, side: Role, wall: int) -> Certificate | None:
    """The certificate of the peer, proven to be its own."""
    if not header.certificate:
        return None
    if settings.trust is None or not len(settings.trust):
        raise OapError(
            EAUTH,
            f"the {side} has a certificate, but this node trusts nobody: its CA store is empty; it reads it when it starts, "
            "and at SIGHUP",
        )
    from ouroboros.oap.certificates import Certificate

    certificate = Certificate(header.certificate)
    settings.trust.verify(certificate, wall, side)
    certificate.verify_signature(header.signature, header.signed_part, header.digest)
    return certificate


def _session(agreement: Agreement | None, shared: Shared | None, peer: Certificate | None, data: bytes) -> Session:
    name, der = (peer.name, peer.der) if peer is not None else (None, None)
    if agreement is None or shared is None:
        return Session(peer_name=name, peer_certificate=der, data=data)
    return Session(
        suite=str(agreement),
        cipher=agreement.cipher.number,
        key=shared.key(agreement.kdf),
        peer_name=name,
        peer_certificate=der,
        data=data,
        strength=agreement.cipher.strength,
    )


def _request_hash(number: int, request: bytes) -> bytes:
    """What a response says about the request, by the digest that the request names."""
    name = HASH_BY_NUMBER[number].python if number else DEFAULT_REQUEST_HASH
    return hashlib.new(name, request).digest()
