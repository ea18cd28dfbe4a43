"""Hostile bytes for what programs, stations and files say: a fixed number of them, by chance and by a fuzzer that sees which
code they reach."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from oap_attack import altered
from support import fuzz
from wire_attack import attack, seeds

RUNS = 4_000
#: Of the fuzzer, which is slow at first.
FUZZED = 2_000

pytestmark = pytest.mark.slow


def test_one_of_each_kind_is_taken() -> None:
    # Else the tests below would never get past the first check.
    assert [number for number, seed in enumerate(seeds()) if not attack(seed)] == []
    assert {seed[0] for seed in seeds()} == set(range(7))


def test_altered_messages_cause_nothing_but_the_errors_that_are_meant_for_them() -> None:
    random, start = Random(1), seeds()
    for _ in range(RUNS):
        message = altered(random.choice(start), start, random)
        try:
            attack(message)
        except Exception as error:
            error.add_note(f"the input was {message.hex()}")
            raise


@pytest.mark.parametrize(
    "opening", [b"\x91", b"\x81", b"\xdd\xff\xff\xff\xff", b"\xdf\x7f\xff\xff\xff", b"\xc6\xff\xff\xff\xff"]
)
@pytest.mark.parametrize("decoder", [0, 1])
def test_depths_and_lengths_that_cannot_be_are_refused_at_once(opening: bytes, decoder: int) -> None:
    head = bytes([decoder]) + b"\x94\xa4Done"
    for count in (1, 1000, 100_000):
        assert not attack(bytes([decoder]) + opening * count)
        assert not attack(head + b"\xc0" + opening * count)


def test_a_fuzzer_finds_nothing_in_a_few_thousand_runs(tmp_path: Path) -> None:
    fuzz("wire", FUZZED, tmp_path)
