"""Hostile bytes for the handshake: a fixed number of them, by chance and by a fuzzer that sees which code they reach."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from oap_attack import altered, attack, seeds

FUZZ = Path(__file__).parents[2] / "fuzz"
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


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="there is no atheris for this platform")
def test_a_fuzzer_finds_nothing_in_a_few_thousand_runs(tmp_path: Path) -> None:
    command = [sys.executable, str(FUZZ / "oap.py"), f"-runs={RUNS}", "-seed=1", f"-artifact_prefix={tmp_path}/", "new"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"Done {RUNS} runs" in done.stderr
