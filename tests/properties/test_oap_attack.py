"""Hostile bytes for the handshake: a fixed number of them, by chance and by a fuzzer that sees which code they reach."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from oap_attack import altered, attack, seeds
from support import fuzz

RUNS = 20_000

pytestmark = pytest.mark.slow


def test_captured_messages_are_taken_by_all_whom_they_are_for() -> None:
    # Else the tests below would never get past the first check.
    assert [number for number, seed in enumerate(seeds()) if not attack(seed)] == []


@pytest.mark.parametrize("series", range(4))
def test_altered_messages_cause_nothing_but_the_errors_that_are_meant_for_them(series: int) -> None:
    random, start = Random(series), seeds()
    for _ in range(RUNS // 4):
        message = altered(random.choice(start), start, random)
        try:
            attack(message)
        except Exception as error:
            error.add_note(f"the input was {message.hex()}")
            raise


def test_a_fuzzer_finds_nothing_in_a_few_thousand_runs(tmp_path: Path) -> None:
    fuzz("oap", RUNS, tmp_path)
