"""Layers of a few members, for ten minutes of all that can happen to them. Between bursts of faults it is quiet, for as long
as a layer may take. Then every pair of members between which links lead exchanges packets, every name resolves, flows whose
ends are still there go on, reliable ones without a loss, and nothing has grown. At no time do packets go in circles for
longer than routing takes."""

from __future__ import annotations

import os

import pytest
from fault_world import Plan, World

SEEDS = range(int(os.environ.get("OUROBOROS_FAULT_SEEDS", "100")))


@pytest.mark.parametrize("seed", SEEDS)
def test_ten_minutes_of_faults(seed: int) -> None:
    plan = Plan(seed)
    # Shown when it fails.
    print(plan)
    World(plan).go_on()


def test_a_plan_follows_from_its_seed_and_no_two_are_the_same() -> None:
    assert str(Plan(7)) == str(Plan(7))
    assert len({str(Plan(seed)) for seed in range(20)}) == 20
