"""What a node has and counts, read from its files: by whoever runs it, also when it does not answer, and after its end."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Background, NodeProcess, until
from udp_nodes import FAR, NEAR, free_port

from ouroboros import cli, irm
from ouroboros.dev import Flow, flow_accept, flow_alloc
from ouroboros.errors import FlowPeerException, NodeError
from ouroboros.irm import IpcpConfig, IpcpType, Udp4Config
from ouroboros.qos import QOS_RAW, QoSSpec
from ouroboros.runtime import figures
from ouroboros.runtime.client import client
from ouroboros.testing.node import Node
from ouroboros.wire.control import FlowEntry, IpcpEntry, ListFlows, ListIpcps

RELIABLE = QoSSpec(loss=0)


class Pair:
    """The node of the test, a process, with a layer over UDP, and another one at which `clock` is."""

    def __init__(self, near: NodeProcess, far: Node) -> None:
        self.near, self.far, port = near, far, free_port()
        self._up(NEAR, port, f"clock@{FAR}")
        with far.use():
            self._up(FAR, port)
            cli.reg_name("clock", layer="net")

    def _up(self, host: str, port: int, *peers: str) -> None:
        conf = IpcpConfig(IpcpType.UDP4, "net", udp4=Udp4Config(host, port=port, peers=peers))
        cli.autoboot("net0", IpcpType.UDP4, "net", conf)

    def flow(self, qos: QoSSpec = QOS_RAW) -> tuple[Flow, Flow]:
        with self.far.use():
            accepting = Background.waiting_for_node(lambda: flow_accept(name="clock"))
        flow = flow_alloc("clock", qos)
        return flow, accepting.result()

    def stop(self) -> None:
        os.kill(self.near.pid, signal.SIGSTOP)
        until(lambda: all(state == "T" for state in states(self.near.pid)))

    def kill(self) -> None:
        self.near.process.kill()
        self.near.process.wait()


def run(*words: str) -> subprocess.CompletedProcess[str]:
    """An `irm` or `ouroboros` command."""
    module = {"irm": "ouroboros.tools.irm", "ouroboros": "ouroboros"}[words[0]]
    return subprocess.run([sys.executable, "-m", module, *words[1:]], capture_output=True, text=True)


def states(pid: int) -> list[str]:
    """Of all threads."""
    return [path.read_text().rpartition(") ")[2][0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]


@pytest.fixture
def pair(
    node: NodeProcess, ouroboros_inproc_node: Callable[[], Node], runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> Pair:
    far = ouroboros_inproc_node()
    # That one has made itself the node that is found.
    monkeypatch.setenv("OUROBOROS_RUNTIME_DIR", str(runtime_dir))
    return Pair(node, far)


def counters() -> dict[str, int]:
    (info,) = irm.list_flows()
    return info.counters


def test_the_files_are_for_the_user_of_the_node_only(pair: Pair, runtime_dir: Path) -> None:
    for name in ("listing", "counters"):
        status = (runtime_dir / name).stat()
        assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o600, os.geteuid())


def test_a_node_that_is_stopped_is_listed(pair: Pair) -> None:
    """So it is neither asked nor woken, and its engine is not."""
    near, far = pair.flow()
    with near, far:
        for _ in range(7):
            near.write(b"tick")
        until(lambda: counters()["sent"] == 7)
        until(lambda: irm.list_ipcps()[0].counters["requests_sent"] == 1)
        pair.stop()
        try:
            (flow,), (ipcp,) = irm.list_flows(), irm.list_ipcps()
            assert (flow.name, flow.layer, flow.pids, flow.counters["sent"]) == ("clock", "net", (os.getpid(), 0), 7)
            assert (ipcp.name, ipcp.state, ipcp.counters["requests_sent"]) == ("net0", "operational", 1)
            assert ipcp.counters["sent"] >= 8
            left = irm.last_figures()
            assert (left.running, left.pid) == (True, pair.near.pid)
            assert (left.flows, left.ipcps) == ((flow,), (ipcp,))
            assert set(states(pair.near.pid)) == {"T"}
        finally:
            os.kill(pair.near.pid, signal.SIGCONT)
        near.write(b"tock")
        until(lambda: counters()["sent"] == 8)


def test_what_is_read_is_what_the_node_answers(pair: Pair) -> None:
    flows = [pair.flow(qos) for qos in (QOS_RAW, RELIABLE, QoSSpec(cypher_s=256))]
    with flows[0][0], flows[0][1], flows[1][0], flows[1][1], flows[2][0], flows[2][1]:
        for near, far in flows:
            near.write(b"tick")
            assert far.read() == b"tick"
        flows_of: Callable[[], list[FlowEntry]] = lambda: client.request(ListFlows())  # noqa: E731
        ipcps_of: Callable[[], list[IpcpEntry]] = lambda: client.request(ListIpcps())  # noqa: E731
        until(lambda: [info.counters for info in irm.list_flows()] == [entry.counters for entry in flows_of()])
        until(lambda: [info.counters for info in irm.list_ipcps()] == [entry.counters for entry in ipcps_of()])
        for info, entry in zip(irm.list_flows(), flows_of(), strict=True):
            shown = (info.flow_id, info.name, info.pids, info.qos, info.layer, info.address, info.peer)
            assert shown == (entry.id, entry.name, entry.pids, entry.qos, entry.layer, entry.address, entry.peer)
        assert [info.counters.get("frcp_data_sent") for info in irm.list_flows()] == [None, 1, None]
        assert irm.list_ipcps()[0].counters["sent"] >= 3


def test_figures_of_a_node_that_was_killed_can_be_read_until_another_starts(
    pair: Pair, make_node: Callable[..., NodeProcess], runtime_dir: Path
) -> None:
    near, far = pair.flow()
    with near, far:
        near.write(b"the last word")
        assert far.read() == b"the last word"
        until(lambda: counters()["sent"] == 1)
        flows = irm.list_flows()
        pair.kill()
        with pytest.raises(FlowPeerException):
            near.read()
        left = irm.last_figures()
        assert (left.running, left.pid) == (False, pair.near.pid)
        assert (list(left.flows), [ipcp.name for ipcp in left.ipcps]) == (flows, ["net0"])
        # Nothing is taken for a node that is not there.
        with irm.running_node_only(), pytest.raises(NodeError, match="no node runs"):
            irm.list_ipcps()
    listed = run("irm", "flow", "list", "--json")
    assert listed.returncode == 1
    assert [flow["counters"]["sent"] for flow in json.loads(listed.stdout)] == [1]
    assert re.search(
        rf"last figures of process {pair.near.pid}, which was killed or crashed after \d{{4}}-", listed.stderr
    )
    assert "net0" in run("irm", "ipcp", "list").stdout
    info = run("ouroboros", "info")
    assert f"process {pair.near.pid}, was killed or crashed" in info.stdout
    make_node()
    assert irm.list_flows() == []
    assert irm.last_figures().running
    assert not (runtime_dir / "counters").exists()


def test_a_node_that_ends_in_order_leaves_nothing(pair: Pair, runtime_dir: Path) -> None:
    pair.near.stop()
    assert not {"listing", "counters", "listing.new", "counters.new"} & {path.name for path in runtime_dir.iterdir()}
    with pytest.raises(NodeError, match="ends in order leaves none"):
        irm.last_figures()
    assert "killed" not in run("ouroboros", "info").stdout


def test_a_damaged_file_is_no_answer(pair: Pair, runtime_dir: Path) -> None:
    near, far = pair.flow()
    with near, far:
        # One that is made shorter ends the engine, as is said in docs/node.md.
        with (runtime_dir / "counters").open("r+b") as file:
            file.write(b"something else")
        assert [ipcp.name for ipcp in irm.list_ipcps()] == ["net0"]
        assert irm.list_flows()[0].counters["sent"] == 0
        (runtime_dir / "other").write_bytes(b"something else")
        (runtime_dir / "other").replace(runtime_dir / "counters")
        with pytest.raises(NodeError, match=r"counters cannot be read: it is no file of counters"):
            irm.last_figures()
        (runtime_dir / "listing").write_bytes(b"something else")
        with pytest.raises(NodeError, match=r"listing cannot be read: it is no listing of a node"):
            irm.last_figures()
        (runtime_dir / "listing").unlink()
        (runtime_dir / "listing").symlink_to("/dev/zero")
        with pytest.raises(NodeError, match="cannot use the runtime directory"):
            irm.last_figures()
        # The node answers instead.
        assert [ipcp.name for ipcp in irm.list_ipcps()] == ["net0"]


def test_a_node_whose_engine_cannot_have_its_file_is_asked(
    make_node: Callable[..., NodeProcess], runtime_dir: Path
) -> None:
    make_node(within=("bash", "-c", 'ulimit -f 512; exec "$@"', "bash"))
    cli.autoboot(
        "net0", IpcpType.UDP4, "net", IpcpConfig(IpcpType.UDP4, "net", udp4=Udp4Config(NEAR, port=free_port()))
    )
    assert "received" in irm.list_ipcps()[0].counters
    found = figures.read(runtime_dir)
    assert found is not None
    assert (found.running, found.whole) == (True, False)
    assert not [path.name for path in runtime_dir.iterdir() if path.name.startswith("counters")]


def test_what_was_let_go_here_is_not_listed(pair: Pair) -> None:
    near, far = pair.flow()
    near.dealloc()
    assert irm.list_flows() == []
    far.dealloc()


def test_an_engine_that_begins_again_counts_anew(pair: Pair) -> None:
    """In a node of this process, where it can be broken."""
    near, far = pair.flow()
    with near, far, pair.far.use():
        far.write(b"tick")
        until(lambda: counters()["sent"] == 1)
        pair.far._node._engine._held.engine._panic()  # type: ignore[attr-defined]
        until(lambda: cli.find_ipcp("net0").counters.get("restored") == 1)
        # Of what the program still holds, the last ones.
        assert counters()["sent"] == 1
        assert cli.find_ipcp("net0").counters["received"] < 2
