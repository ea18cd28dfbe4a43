"""Captures of real nodes, by the command and by the API."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dpkt
import pytest
from capture_files import blocks
from support import Background, until
from udp_nodes import FAR, NEAR, Nodes

from ouroboros import irm
from ouroboros.capture import capture
from ouroboros.errors import FlowNameException, NodeError
from ouroboros.qos import QoSSpec
from ouroboros.testing.node import Node

SECRET = b"what one program tells the other"


@contextlib.contextmanager
def command(node: Node, *words: str, output: int = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:
    """`ouroboros capture` on that node, which captures from now on."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ouroboros", "capture", *words],
        stdout=output,
        stderr=subprocess.PIPE,
        env=os.environ | {"OUROBOROS_RUNTIME_DIR": str(node.directory)},
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline().endswith(b"net.\n")
        yield process
    finally:
        process.kill()
        process.communicate()


def datagrams(file: bytes) -> list[dpkt.ip.IP]:
    reader = dpkt.pcapng.Reader(io.BytesIO(file))
    return [dpkt.ip.IP(data) for _, data in reader]


def captures(node: Node) -> int:
    with node.use():
        return sum(flow.name.startswith("capture") for flow in irm.list_flows())


def test_a_capture_is_saved_until_it_is_interrupted(nodes: Nodes, tmp_path: Path) -> None:
    path = tmp_path / "net.pcapng"
    with command(nodes.near, "net", "-w", str(path)) as process:
        near, far = nodes.flow()
        with near, far:
            near.write(SECRET)
            assert far.read() == SECRET
            until(lambda: path.exists() and SECRET in path.read_bytes())
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
    seen = datagrams(path.read_bytes())
    assert {tuple(map(dpkt.utils.inet_to_str, (ip.src, ip.dst))) for ip in seen} == {(NEAR, FAR), (FAR, NEAR)}
    assert {(ip.udp.sport, ip.udp.dport) for ip in seen} == {(nodes.port, nodes.port)}
    # It is complete, with statistics at the end.
    assert blocks(path.read_bytes())[-1][0] == 5
    until(lambda: captures(nodes.near) == 0)


def test_a_capture_goes_into_a_pipe_until_there_were_so_many(nodes: Nodes) -> None:
    with command(nodes.far, "net", "-c", "3", "-s", "64", "-w", "-") as process:
        near, far = nodes.flow()
        with near, far:
            near.write(SECRET * 100)
            far.read()
            output, errors = process.communicate()
    assert (process.returncode, errors) == (0, b"")
    seen = dpkt.pcapng.Reader(io.BytesIO(output))
    assert [len(data) <= 28 + 64 for _, data in seen] == [True] * 3


def test_all_layers_are_captured_into_one_file(nodes: Nodes) -> None:
    with nodes.far.use():
        layers = [ipcp.layer.encode() for ipcp in irm.list_ipcps()]
    assert len(layers) > 1
    with command(nodes.far, "-c", "3", "-w", "-") as process:
        near, far = nodes.flow()
        with near, far:
            near.write(SECRET)
            output, _ = process.communicate()
    interfaces = [body for kind, body in blocks(output) if kind == 1]
    assert [layer in body for layer, body in zip(layers, interfaces, strict=True)] == [True] * len(layers)
    place = next(number for number, body in enumerate(interfaces) if b"layer net" in body)
    assert {int.from_bytes(body[:4], "little") for kind, body in blocks(output) if kind == 6} == {place}


def test_nobody_waits_for_a_capture_that_nobody_reads(nodes: Nodes) -> None:
    read, write = os.pipe()
    with command(nodes.far, "net", "-w", "-", output=write) as process:
        os.close(write)
        near, far = nodes.flow(QoSSpec(loss=0))
        with near, far:
            count = 6000
            writing = Background(lambda: [near.write(bytes(1200)) for _ in range(count)])
            assert [len(far.read()) for _ in range(count)] == [1200] * count
            writing.result()
        # It ends when the reader of its pipe is gone.
        os.close(read)
        process.wait()
    until(lambda: captures(nodes.far) == 0)


def test_a_capture_whose_program_is_killed_is_over(nodes: Nodes) -> None:
    with command(nodes.far, "net") as process:
        assert captures(nodes.far) == 1
        process.kill()
        until(lambda: captures(nodes.far) == 0)
    near, far = nodes.flow()
    with near, far:
        near.write(SECRET)
        assert far.read() == SECRET


def test_lines_say_what_packets_are(nodes: Nodes) -> None:
    with command(nodes.far, "net", "--count", "1") as process:
        near, far = nodes.flow()
        with near, far:
            output, _ = process.communicate()
    (line,) = output.decode().splitlines()
    assert f"layer net: from {NEAR}:{nodes.port}: management, length " in line


def test_a_program_captures_what_it_wants(nodes: Nodes) -> None:
    with nodes.near.use():
        packets = capture("net", name="net0")
    with packets:
        near, far = nodes.flow(QoSSpec(cypher_s=256))
        with near, far:
            near.write(SECRET)
            assert far.read() == SECRET
            seen = [next(packets) for _ in range(3)]
            while not seen[-1].comment.endswith("encrypted"):
                seen.append(next(packets))
        assert all(SECRET not in packet.data for packet in seen)
        assert [packet.time for packet in seen] == sorted(packet.time for packet in seen)
        assert (seen[0].outward, seen[0].comment) == (True, f"layer net: to {FAR}:{nodes.port}: management")
        assert packets.lost == 0
    assert captures(nodes.near) == 0


def test_a_capture_ends_with_its_layer(nodes: Nodes) -> None:
    with nodes.near.use():
        packets = capture("net")
        (pid,) = [ipcp.pid for ipcp in irm.list_ipcps() if ipcp.layer == "net"]
        with packets:
            irm.destroy_ipcp(pid)
            assert [packet for packet in packets if not packet.outward] == []
            out = io.BytesIO()
            assert packets.save(out) == 0
    assert [kind for kind, _ in blocks(out.getvalue())] == [0x0A0D0D0A, 1, 5]


def test_mistakes_are_told(nodes: Nodes, tmp_path: Path) -> None:
    with nodes.near.use():
        with pytest.raises(FlowNameException, match="'irm ipcp list' shows"):
            capture("nett")
        with pytest.raises(ValueError, match="from 1 to"):
            capture("net", snap=0)
    nowhere = {"OUROBOROS_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", "ouroboros", "capture"], env=os.environ | nowhere, capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"Cannot capture: ")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OUROBOROS_RUNTIME_DIR", str(tmp_path))
        with pytest.raises(NodeError):
            capture("net")


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="there is no tcpdump here")
def test_tcpdump_reads_it(nodes: Nodes, tmp_path: Path) -> None:
    path = tmp_path / "net.pcapng"
    with nodes.near.use():
        packets = capture("net")
    with packets, path.open("wb") as file:
        near, far = nodes.flow()
        with near, far:
            near.write(SECRET)
            packets.save(file, count=3)
    done = subprocess.run(["tcpdump", "-nr", path], capture_output=True, text=True, check=True)
    assert f"{NEAR}.{nodes.port} > {FAR}.{nodes.port}: UDP" in done.stdout
