"""`ouroboros lab`, as people type it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples" / "lab"


def lab(*words: str, says: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ouroboros", "lab", *words]
    return subprocess.run(command, input=says, capture_output=True, text=True, check=False)


def test_a_network_is_asked_line_by_line() -> None:
    lines = [
        "ping a c",
        "",
        "trace a c",
        "cut a-b",
        "graph",
        "path a c",
        "routes b",
        "heal a-b",
        "run a echo $OUROBOROS_BACKEND",
        "quit",
        "no",
    ]
    done = lab("run", "a - b - c", says="\n".join(lines))
    said = done.stdout.splitlines()
    assert said[0].startswith("a to c: ")
    assert said[0].endswith("2 hops: a - b - c")
    assert "a - b (cut)" in said
    assert "a - b - c" in said
    assert "net1: a - b - c" in said
    assert "c  1 hop via c" in said
    assert said[-1] == "node"
    assert (done.returncode, done.stderr) == (0, "")


def test_commands_take_the_place_of_the_prompt_and_a_mistake_is_a_status() -> None:
    good = lab(
        "run", "a - b", "--clock", "virtual", "--seed", "7", "-c", "ping a b 3", "-c", "counters a a-b", "-c", "help"
    )
    assert (good.returncode, good.stderr) == (0, "")
    assert "a to b: 2 ms, 1 hop: a - b" in good.stdout
    assert "requests_received  " in good.stdout
    assert "cut A-B" in good.stdout
    bad = lab("run", "a - b", "--clock", "virtual", "-c", "ping a q", "-c", "names a", "-c", "flows a", "-c", "log a")
    assert bad.returncode == 1
    assert bad.stderr == "'q': there is no node of that name: there are a, b\n"
    assert "net1.a  a-b" in bad.stdout


def test_a_scenario_is_played_and_its_verdict_is_the_status(tmp_path: Path) -> None:
    good = lab("run", str(EXAMPLES / "detour.toml"), "--clock", "virtual", "--seed", "7")
    assert good.returncode == 0, good.stderr
    assert good.stdout.splitlines()[-1] == "4 expectations, all met"
    path = tmp_path / "bad.toml"
    path.write_text('network = "a - b"\n[[expect]]\nthat = "hops a b = 2"\nwithin = 1\n')
    bad = lab("run", str(path), "--clock", "virtual")
    assert bad.returncode == 1
    assert bad.stdout == "NOT MET: at 0 s, hops a b = 2\n    after 1 s: 1\n1 expectation, 1 not met\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "a -"], "ouroboros lab: '-': a node is missing after it\n"),
        (["run", "nothing.toml"], "No such file or directory\n"),
        (
            ["run", "x.toml", "--over", "a"],
            "ouroboros lab: --over goes with a network in a line; a scenario has its own\n",
        ),
        (
            ["show", "x.toml", "--links", "udp6"],
            "ouroboros lab: --links goes with a network in a line; a scenario says it by the key links\n",
        ),
    ],
)
def test_a_description_that_is_wrong_runs_nothing(words: list[str], message: str) -> None:
    done = lab(*words)
    assert done.returncode == 2
    assert done.stderr.endswith(message)


def test_a_network_is_shown_without_being_run() -> None:
    text = lab("show", "a@x - b", "--over", "x - y").stdout
    assert text == "x - y\ny - x\nnet2, unicast over net1: a@x b@y\nnet1, unicast: x y\n"
    assert lab("show", "ring 3", "--svg").stdout.startswith("<svg ")
    assert '[[link]]\nbetween = "n0 - n1"' in lab("show", "ring 3", "--toml").stdout
    assert lab("show", "ring 3", "--toml", "--links", "udp6").stdout.count('type = "udp6"') == 3
