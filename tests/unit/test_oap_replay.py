"""Requests from another time, and requests that were here before."""

from __future__ import annotations

import random

import pytest

from ouroboros.oap import EAUTH, ClientHandshake, OapError, Server, Settings
from ouroboros.oap.replay import LIFETIME, ReplayMemory

NOW = 1_795_368_186_773_007_710
MS = 10**6
SECOND = 10**9


def request(wall: int = NOW, seed: int = 1) -> bytes:
    return ClientHandshake("clock", Settings(), random=random.Random(seed), wall=wall).request


@pytest.mark.parametrize("behind", [-100 * MS, -99 * MS, 0, 19 * SECOND, 20 * SECOND])
def test_request_from_the_last_twenty_seconds_is_taken(behind: int) -> None:
    Server().receive(request(NOW - behind), Settings(), NOW)


@pytest.mark.parametrize(
    ("behind", "text"),
    [
        (-101 * MS, "0.1 s in the future"),
        (-600 * SECOND, "600.0 s in the future.*clocks of the two hosts differ"),
        (20_001 * MS, "20.0 s old"),
        (600 * SECOND, "600.0 s old.*clocks of the two hosts differ"),
    ],
)
def test_request_from_another_time_is_refused_with_the_difference(behind: int, text: str) -> None:
    with pytest.raises(OapError, match=text) as refusal:
        Server().receive(request(NOW - behind), Settings(), NOW)
    assert refusal.value.code == EAUTH


def test_parts_of_a_millisecond_do_not_count() -> None:
    Server().receive(request(NOW + 101 * MS - 1), Settings(), NOW)
    Server().receive(request(NOW - LIFETIME - MS + 1), Settings(), NOW)


def test_same_request_is_refused_for_as_long_as_it_is_young_enough() -> None:
    server, first = Server(), request()
    server.receive(first, Settings(), NOW)
    for later in (0, SECOND, LIFETIME):
        with pytest.raises(OapError, match="here before"):
            server.receive(first, Settings(), NOW + later)


def test_same_id_at_another_time_and_another_id_at_the_same_time_are_new() -> None:
    server = Server()
    for wall, seed in ((NOW, 1), (NOW + 1, 1), (NOW, 2)):
        server.receive(request(wall, seed), Settings(), NOW)


def test_entries_leave_the_memory_when_they_are_too_old_to_be_repeated() -> None:
    memory = ReplayMemory()
    memory.add(NOW, b"old", NOW)
    memory.add(NOW + LIFETIME + 2 * MS, b"new", NOW + LIFETIME + 2 * MS)
    assert len(memory) == 1


def test_a_full_memory_stays_bounded_and_lets_nothing_in_a_second_time() -> None:
    memory = ReplayMemory(capacity=100)
    entries = [(NOW + each, each.to_bytes(16)) for each in range(1000)]
    for timestamp, id in entries:
        memory.check(timestamp, id, NOW)
        memory.add(timestamp, id, NOW)
    assert len(memory) == 100
    for timestamp, id in entries:
        with pytest.raises(OapError):
            memory.check(timestamp, id, NOW)
    memory.check(NOW + 1000, b"newer than the oldest that is remembered", NOW)


def test_a_clock_that_is_set_back_after_a_flood_does_not_lock_everybody_out() -> None:
    memory = ReplayMemory(capacity=1)
    memory.add(NOW, b"one", NOW)
    memory.add(NOW + 1, b"two", NOW)
    memory.check(NOW - 3600 * SECOND, b"three", NOW - 3600 * SECOND)
