"""A handshake without encryption and certificates: who understands whom, and what is refused."""

from __future__ import annotations

import hashlib
import random

import pytest

from ouroboros.oap import ClientHandshake, OapError, Server, Session, Settings

NOW = 1_795_368_186_773_007_710


def client(data: bytes = b"", seed: int = 1) -> ClientHandshake:
    return ClientHandshake("clock", Settings(), random=random.Random(seed), wall=NOW, data=data)


def respond(request: bytes, data: bytes = b"") -> tuple[bytes, Session]:
    received = Server().receive(request, Settings(), NOW)
    return received.respond(random=random.Random(2), wall=NOW + 5, data=data)


def test_the_smallest_handshake_has_36_and_84_bytes() -> None:
    handshake = client()
    response, accepted = respond(handshake.request)
    assert (len(handshake.request), len(response)) == (36, 84)
    assert response[:16] == handshake.request[:16]
    assert response[36:] == hashlib.sha384(handshake.request).digest()
    assert handshake.finish(response) == accepted == Session()


def test_each_side_gets_the_data_of_the_other() -> None:
    handshake = client(b"from the client")
    response, accepted = respond(handshake.request, b"from the server")
    assert accepted.data == b"from the client"
    assert handshake.finish(response).data == b"from the server"


def test_a_response_to_another_request_is_refused_and_the_right_one_still_counts() -> None:
    handshake = client()
    with pytest.raises(OapError, match="not one to this request"):
        handshake.finish(respond(client(seed=3).request)[0])
    assert handshake.finish(respond(handshake.request)[0]) == Session()


def test_a_request_that_comes_back_as_its_response_is_refused() -> None:
    handshake = client()
    with pytest.raises(OapError, match="response is none"):
        handshake.finish(handshake.request)


def test_a_response_is_no_request() -> None:
    response, _ = respond(client().request)
    with pytest.raises(OapError, match="request is none"):
        Server().receive(response, Settings(), NOW)
