"""What the IRM wants done does not depend on the hashes of text, which differ from run to run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Whatever is a set of text meets here, and is iterated.
SCENARIO = """
from irm_world import World
from lower_world import LowerWorld
from ouroboros.wire.control import *

names = [f"name{number}" for number in range(12)]
world = LowerWorld()
log = []
collect = world.collect
world.collect = lambda: log.append(collect())

for name in names:
    world.manage(CreateName(name, "round-robin"))
    world.manage(BindProgram("/bin/p", name, True, []))
manager = world.manager
servers = [world.program("p") for _ in range(2)]
for server in servers:
    world.accept(server)
clients = [world.alloc(world.program("client"), name) for name in names]
for server in servers:
    world.kill(server)
toys = [world.toy(name, layer) for layer in ("low", "high") for name in (layer + "a", layer + "b")]
for toy in toys[2:]:
    for name in names:
        world.manage(BindProcess(toy.id, name))
        toys[1].register(name, 0.0)
low = frozenset(["low", "lab", "nix"])
for number, name in enumerate(names):
    world.ask(toys[number % 4], number, name)
    world.ask(toys[2], 100 + number, name, over=low)
world.engine()
for toy in toys:
    world.destroy(toy)
world.engine()
world.advance(60.0)
world.manage(ListNames())
world.manage(DestroyName("name3"))
print(log)
"""


def effects(seed: str) -> str:
    tests = Path(__file__).parents[1]
    run = subprocess.run(
        [sys.executable, "-c", SCENARIO],
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(tests)},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.slow
def test_effects_are_the_same_under_any_hash_seed() -> None:
    one, *others = (effects(seed) for seed in ("1", "2", "77"))
    assert one.count("StartProgram(") >= 10
    assert one.count("EndFlow(") >= 10
    assert one.count("Attach(") >= 10
    assert others == [one, one]
