"""Hostile bytes for members of unicast layers: a fixed number of them, by chance and by a fuzzer that sees which code they
reach."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from oap_attack import altered
from support import fuzz
from unicast_attack import Message, attack, deliver, messages, recorded, seeds, small_layer, spoiled

RUNS = 20_000
#: Messages to the members of one layer.
MESSAGES = 150
#: Of the fuzzer, which is slow at first.
FUZZED = 5_000

pytestmark = pytest.mark.slow


def test_each_decoder_takes_what_members_say_to_each_other() -> None:
    # Else the tests below would never get past the first check.
    assert {seed[0] for seed in seeds()} == set(range(9))
    assert {eid for eid, _ in recorded()} == {-1, 0, 1}


@pytest.mark.parametrize("message", messages(), ids=lambda each: each.name)
def test_a_message_with_any_field_wrong_is_read_or_refused_by_every_decoder(message: Message) -> None:
    for data in spoiled(message):
        for decoder in range(9):
            try:
                attack(bytes([decoder]) + data)
            except Exception as error:
                error.add_note(f"decoder {decoder}, the input was {data.hex()}")
                raise


@pytest.mark.parametrize("series", range(4))
def test_altered_messages_cause_nothing_but_the_error_that_is_meant_for_them(series: int) -> None:
    random, start = Random(series), seeds()
    for _ in range(RUNS // 4):
        message = altered(random.choice(start), start, random)
        try:
            attack(message)
        except Exception as error:
            error.add_note(f"the input was {message.hex()}")
            raise


@pytest.mark.parametrize("seed", range(6))
def test_members_outlive_whatever_their_neighbours_say(seed: int) -> None:
    random, layer = Random(seed), small_layer()
    start = list(recorded())
    for _ in range(MESSAGES):
        eid, data = random.choice(start)
        data = altered(data, [each for _, each in start], random)
        try:
            deliver(layer, random.randrange(3), eid, data)
            layer.network.run(random.choice((0, 0.01, 1.5)))
        except Exception as error:
            error.add_note(f"the message was {eid} {data.hex()}")
            raise
    layer.network.run(700)
    assert layer.network.balance().missing == 0


def test_a_fuzzer_finds_nothing_in_a_few_thousand_runs(tmp_path: Path) -> None:
    fuzz("unicast", FUZZED, tmp_path)
