"""Addresses of members: kept over a restart, and drawn anew when they are those of others."""

from __future__ import annotations

import random
from collections.abc import Mapping

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import example, given

from ouroboros.layers.effects import Effect, Remember
from ouroboros.layers.face import Host
from ouroboros.layers.members.addresses import Address, draw
from ouroboros.layers.members.greeting import LEAST_ADDRESS


class Life:
    """Of a member, from one start of its node to the next. `memory`: what the node before was told to remember."""

    def __init__(self, memory: Mapping[str, bytes] | None = None, seed: int = 1) -> None:
        self.effects: list[Effect] = []
        unused = None
        host = Host(
            effects=self.effects,
            random=random.Random(seed),
            wall=lambda: 0,
            oap=unused,  # type: ignore[arg-type]
            upper=unused,  # type: ignore[arg-type]
            lower=unused,  # type: ignore[arg-type]
            memory={} if memory is None else memory,
        )
        self.address = Address(host, "a")

    @property
    def memory(self) -> dict[str, bytes]:
        kept: dict[str, bytes] = {}
        for effect in self.effects:
            assert isinstance(effect, Remember)
            kept[effect.name] = effect.data
        return {name: data for name, data in kept.items() if data}


def test_an_address_and_the_number_of_the_member_are_kept_over_a_restart() -> None:
    first = Life()
    chosen = first.address.choose("net")
    again = Life(first.memory, seed=2)
    assert again.address.node == first.address.node
    assert again.address.choose("net") == chosen == again.address.value
    assert again.effects == []


def test_another_layer_is_another_address() -> None:
    first = Life()
    chosen = first.address.choose("net")
    again = Life(first.memory, seed=2)
    assert again.address.choose("other") != chosen
    assert again.address.node == first.address.node
    assert Life(again.memory, seed=3).address.choose("other") == again.address.value


def test_what_is_forgotten_is_drawn_anew() -> None:
    first = Life()
    chosen = first.address.choose("net")
    first.address.forget()
    assert first.memory == {}
    assert Life(first.memory, seed=2).address.choose("net") != chosen


def test_another_address_is_kept_instead() -> None:
    first = Life()
    chosen = first.address.choose("net")
    renewed = first.address.renew()
    assert renewed != chosen
    assert Life(first.memory, seed=2).address.choose("net") == renewed


def test_a_new_address_is_none_that_is_known() -> None:
    draws = iter([5_000_000, 5_000_000, 6_000_000, 7_000_000])

    class Loaded(random.Random):
        def getrandbits(self, k: int, /) -> int:
            return next(draws) if k == 32 else 1

    life = Life()
    life.address._host.__dict__["random"] = Loaded()
    life.address.choose("net")
    assert life.address.value == 5_000_000
    assert life.address.renew({6_000_000}) == 7_000_000


@given(st.integers(0, 2**64), st.integers(1, 20))
def test_addresses_are_those_that_a_member_can_have(seed: int, count: int) -> None:
    source = random.Random(seed)
    assert all(LEAST_ADDRESS <= draw(source) <= 0xFFFFFFFF for _ in range(count))


@given(
    st.binary(max_size=40)
    | st.tuples(st.integers(0, 2), st.text(), st.integers(), st.integers()).map(repr).map(str.encode)
)
@example(b"\x94\x00\xa3\x00\x00\x80")
@example(b"\x95\x00\xa0\x00\x00" + b"\x91" * 5000)
def test_a_damaged_memory_is_none(data: bytes) -> None:
    life = Life({"unicast/a/address": data})
    assert LEAST_ADDRESS <= life.address.choose("net") <= 0xFFFFFFFF


@pytest.mark.parametrize(
    "kept", [(2, "net", 70_000, 1), (1, "net", 65_535, 1), (1, "net", 2**32, 1), (1, "net", 70_000, -1)]
)
def test_a_memory_that_cannot_be_is_none(kept: tuple[int, str, int, int]) -> None:
    life = Life({"unicast/a/address": msgspec.msgpack.encode(kept)})
    assert life.address.choose("net") != kept[2]
