"""`ouroboros ping` and `ouroboros trace` over real nodes in a row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import logged_no_bug, until
from udp_nodes import free_port
from unicast_nodes import join, reaches

from ouroboros import cli, irm
from ouroboros.errors import FlowNameException
from ouroboros.irm import IpcpType
from ouroboros.ping import ping, trace
from ouroboros.testing.node import ProcessNode

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def row() -> Iterator[list[ProcessNode]]:
    """Three nodes; on the last is `web` in the layer `campus`, and `high` in the layer `top` over it, whose other member is
    on the first."""
    nodes = [ProcessNode(Path(__file__).parent) for _ in range(3)]
    port = free_port()
    try:
        for number, node in enumerate(nodes):
            with node.use():
                join(number, port)
        for node in nodes:
            with node.use():
                until(lambda: reaches(2))
        with nodes[2].use():
            cli.autoboot("top2", IpcpType.UNICAST, "top")
            cli.reg_name("web", layer="campus")
            cli.reg_name("high", layer="top")
        with nodes[0].use():
            cli.enroll_ipcp("top0", "top", autobind=True, ipcp_type=IpcpType.UNICAST)
            until(lambda: found("high"))
        yield nodes
    finally:
        for node in nodes:
            node.stop()
            log = node.log()
            node.clean_up()
            print(log)
            assert logged_no_bug(log)


def found(name: str) -> bool:
    try:
        return ping(name)[0].state == "answered"
    except FlowNameException:
        return False


def run(node: ProcessNode, line: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ouroboros", *line.split()]
    environment = os.environ | {"OUROBOROS_RUNTIME_DIR": str(node.directory)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def shown(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    hops: list[dict[str, Any]] = json.loads(line)["hops"]
    return hops


def test_each_hop_of_each_rank_is_shown(row: list[ProcessNode]) -> None:
    hops = shown(run(row[0], "trace high --json"))
    assert [(hop["path"], hop["layer"], hop["rank"], hop["member"], hop["state"]) for hop in hops] == [
        ([1], "top", 2, "top2", "answered"),
        ([1, 1], "campus", 1, "m1", "answered"),
        ([1, 1, 1], "net", 0, "", "unasked"),
        ([1, 2], "campus", 1, "m2", "answered"),
        ([1, 2, 1], "net", 0, "", "unasked"),
    ]
    assert [hop["address"].split(":")[0] for hop in hops if hop["layer"] == "net"] == ["127.0.0.2", "127.0.0.3"]
    assert all((hop["round_trip"] is not None) == (hop["state"] == "answered") for hop in hops)


def test_one_is_asked_in_each_layer_and_as_often_as_wanted(row: list[ProcessNode]) -> None:
    done = run(row[0], "ping high -c 2 -i 10ms")
    assert done.returncode == 0, done.stderr
    starts = [line.split("  ")[1] for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert starts == ["layer top (unicast, rank 2)"] * 2
    assert len(done.stdout.splitlines()) == 6
    (end, *below) = shown(run(row[0], "ping web --layer campus --json"))
    assert (end["member"], end["hop"], [hop["layer"] for hop in below]) == ("m2", 2, ["net"])


def test_the_same_in_python(row: list[ProcessNode]) -> None:
    with row[1].use():
        (hop, lower) = trace("web")
        assert (hop.member, hop.path, lower.path, lower.type) == ("m2", (1,), (1, 1), "udp4")
        assert hop.round_trip is not None
        for wrong in (0, -1, 11, float("nan")):
            with pytest.raises(ValueError, match="timeout"):
                ping("web", timeout=wrong)
        with irm.running_node_only(), pytest.raises(FlowNameException, match="was not found"):
            ping("absent")


def test_what_is_not_there_is_said(row: list[ProcessNode]) -> None:
    for line, text in (("ping web --layer nowhere", "in no layer 'nowhere'"), ("trace absent", "was not found")):
        done = run(row[0], line)
        assert (done.returncode, done.stdout) == (1, "")
        assert text in done.stderr
