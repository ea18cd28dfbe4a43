"""Laboratories on the real clock: processes, sockets, signals; and the same verdict on all clocks."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from support import logged_no_bug

from ouroboros.errors import FlowDownException, NodeError
from ouroboros.lab import (
    Certificate,
    Description,
    Event,
    Expectation,
    Here,
    Lab,
    LabError,
    LabNode,
    Layer,
    Program,
    UnavailableError,
    describe,
    namespaces,
)
from ouroboros.lab.doing import play
from ouroboros.lab.namespaces import NamespaceGround, lacks
from ouroboros.lab.real import RealGround
from ouroboros.qos import QOS_DATA
from ouroboros.testing import link
from ouroboros.testing.forks import Forks
from ouroboros.testing.link import lacks_devices

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SCENARIOS = sorted((Path(__file__).parents[2] / "examples" / "lab").glob("*.toml"))

#: All of them, where the kernel lets us have namespaces.
CLOCKS = ("virtual", "real") if lacks() else ("virtual", "real", "namespaces")

ECHO = """
from ouroboros.dev import flow_accept
print("ready", flush=True)
with flow_accept(name="echo") as flow:
    flow.write(flow.read())
    flow.read()
"""

ASK = """
from ouroboros.dev import flow_alloc
with flow_alloc("echo", wait=True) as flow:
    flow.writeline("hello")
    print(flow.readline())
"""


def ground_of(lab: Lab) -> RealGround:
    ground = lab.ground
    assert isinstance(ground, RealGround)
    return ground


def assert_nothing_is_left(ground: RealGround) -> None:
    assert not ground._directory.exists()
    assert not ground._thread.is_alive()
    for pid in ground._pids.values():
        assert not Path(f"/proc/{pid}").exists()


def test_the_line_of_the_issue_on_processes() -> None:
    with Lab("a - b - c") as lab:
        ground = ground_of(lab)
        ping = lab.a.ping(lab.c, count=3)
        assert (ping.path, ping.lost) == (("a", "b", "c"), 0)
        lab.link("a", "b").cut()
        with pytest.raises(LabError):
            lab.a.ping(lab.c)
        lab.link("a", "b").heal()
        lab.a.ping(lab.c)
        pids = [ground.pid(node.name) for node in lab]
        assert len(set(pids)) == 3
        for node in lab:
            assert logged_no_bug(node.log)
    assert_nothing_is_left(ground)
    lab.close()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_has_one_verdict_on_all_clocks(scenario: Path) -> None:
    verdicts = {}
    for clock in CLOCKS:
        with Lab(scenario, clock=clock, seed=7) as lab:
            verdicts[clock] = play(lab)
            for node in lab:
                if node.runs:
                    assert logged_no_bug(node.log)
    for verdict in verdicts.values():
        assert verdict, str(verdict)
        assert verdict.met == verdicts["virtual"].met


def devices_of(node: LabNode) -> dict[str, str]:
    """Addresses by device; whether a device is up shows a moment later."""
    lines = [line.split() for line in node.execute("ip", "-4", "-brief", "address").splitlines()]
    return {device.partition("@")[0]: " ".join(addresses) for device, _, *addresses in lines}


def test_each_node_has_a_network_stack_of_its_own_in_namespaces() -> None:
    if reason := lacks():
        pytest.skip(reason)
    with Lab("a - b - c", clock="namespaces") as lab:
        assert lab.a.ping("c").path == ("a", "b", "c")
        devices = devices_of(lab.b)
        assert set(devices) == {"lo", "veth0", "veth1"}
        ground = lab.ground
        (near, _), (_, far) = (
            ground.addresses(0, lab.description.links[0]),
            ground.addresses(1, lab.description.links[1]),
        )
        assert near in lab.a.execute("ip", "-brief", "address")
        assert far not in lab.a.execute("ip", "-brief", "address")
        lab.b.kill()
        with pytest.raises(LabError, match="node b was killed: a program needs its namespace"):
            lab.b.execute("true")
        lab.b.restart()
        assert devices_of(lab.b) == devices


def test_links_are_of_any_type_in_namespaces() -> None:
    if reason := lacks():
        pytest.skip(reason)
    ring = describe("a - b - c - d - a", links="udp6")
    types = dict(zip(("a-b", "b-c", "c-d", "d-a"), ("udp6", "eth-dix", "eth-llc", "udp4"), strict=True))
    links = tuple(replace(link, type=types[link.name]) for link in ring.links)
    with Lab(replace(ring, links=links, silence=1.0), clock="namespaces") as lab:
        assert {ipcp.name: ipcp.type for node in lab for ipcp in node.ipcps() if ipcp.name in types} == types
        for link in lab.links:
            one, other = link.ends
            assert lab[one].ping(other).path == link.ends
        lab.link("b", "c").cut()
        lab.converge()
        assert lab.b.ping("c").path == ("b", "a", "d", "c")
        lab.link("c", "d").cut()
        # The plug of a node that was killed can be put in as well.
        lab.c.kill()
        lab.link("d", "c").heal()
        lab.c.restart()
        lab.converge()
        assert lab.c.ping("b").path == ("c", "d", "a", "b")


@pytest.mark.parametrize("links", ["eth-dix", "eth-llc"])
def test_an_ethernet_can_be_as_bad_as_any_link(links: str) -> None:
    if reason := lacks() or lacks_devices():
        pytest.skip(reason)
    with Lab("a -(delay=20ms|loss=10%)- b", links=links, clock="namespaces", seed=7) as lab:
        ground = lab.ground
        assert isinstance(ground, NamespaceGround)
        ping = lab.a.ping("b", count=30, qos=QOS_DATA)
        assert (ping.lost, ping.path) == (0, ("a", "b"))
        assert ping.time is not None
        assert ping.time >= 0.02
        # The seed decides which of the first frames.
        assert ground.between[0].counters.lost > 0
        lab.link("b", "a").change(forth="none", back="duplicate=100%")
        assert lab.link("a", "b").impair == ("duplicate=100%", "none")
        assert lab.a.ping("b", qos=QOS_DATA).lost == 0
        assert ground.between[0].counters.duplicated > 0


def test_a_machine_without_devices_has_ethernets_that_can_be_cut(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if reason := lacks():
        pytest.skip(reason)
    monkeypatch.setattr(link, "_DEVICES", tmp_path / "tun")
    with pytest.raises(
        LabError, match=r"link a-b: it can be cut, and nothing else: there is no .*/tun that can be opened"
    ):
        Lab("a -(loss=1%)- b", links="eth-dix", clock="namespaces").start()
    with Lab("a - b", links="eth-dix", clock="namespaces") as lab:
        with pytest.raises(LabError, match="it can be cut, and nothing else"):
            lab.link("a", "b").change("loss=1%")
        assert lab.link("a", "b").impair == ("none", "none")
        lab.link("a", "b").cut()
        lab.link("a", "b").heal()
        lab.converge()
        assert lab.a.ping("b").path == ("a", "b")


def test_a_machine_without_namespaces_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sh = shutil.which("sh")
    assert sh is not None
    with monkeypatch.context() as patched:
        patched.setenv("PATH", str(tmp_path))
        with pytest.raises(UnavailableError, match="no network namespaces: there is no command ip, unshare, nsenter;"):
            Lab("a - b", clock="namespaces").start()
    for tool in ("ip", "nsenter"):
        (tmp_path / tool).symlink_to(sh)
    (tmp_path / "unshare").write_text(f"#!{sh}\necho unshare failed: No space left on device >&2\nexit 1\n")
    (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "does not let this user have them: unshare failed: No space left on device; " in str(lacks())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("user/max_user_namespaces", "0", "; as root, `sysctl user.max_user_namespaces=10000` lets users have them"),
        (
            "user/max_user_namespaces",
            "5",
            "; be root, or have CAP_SYS_ADMIN; in a container, its runtime has to let it",
        ),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "; as root, `sysctl kernel.apparmor_restrict_unprivileged_userns=0` lets users have them",
        ),
    ],
)
def test_the_setting_that_keeps_users_from_namespaces_is_named(
    name: str, value: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text(f"{value}\n")
    assert namespaces.hint(tmp_path) == said


def test_namespaces_need_no_root_where_users_can_have_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces, "_WAYS", namespaces._WAYS[1:])
    if reason := lacks():
        pytest.skip(reason)
    with Lab("a - b", clock="namespaces") as lab:
        assert lab.a.ping("b").path == ("a", "b")
        assert set(devices_of(lab.a)) == {"lo", "veth0"}
        users = {os.readlink(f"/proc/{ground_of(lab).pid(node.name)}/ns/user") for node in lab}
        assert len(users) == 1
        assert users != {os.readlink("/proc/self/ns/user")}


def test_there_are_ten_scenarios() -> None:
    assert len(SCENARIOS) >= 10


@pytest.mark.parametrize("clock", ["virtual", "real"])
def test_what_is_not_so_is_said_on_all_clocks(clock: str) -> None:
    line = describe("a - b - c")
    description = Description(
        line.nodes,
        line.links,
        line.layers,
        events=(Event(0.1, "kill b"),),
        expectations=(
            Expectation(0, "hops a c = 3", 0.2),
            Expectation(0.1, "runs b", 0),
            Expectation(0.1, "no runs b", 0),
        ),
        silence=1.0,
    )
    with Lab(description, clock=clock) as lab:
        told: list[str] = []
        verdict = play(lab, told.append)
    assert verdict.met == (("hops a c = 3", False), ("runs b", False), ("no runs b", True))
    assert not verdict
    assert "NOT MET: at 0 s, hops a c = 3\n    after 0.2 s: 2" in told
    assert "0.1 s: kill b" in told
    assert str(verdict).endswith("3 expectations, 2 not met")


def test_programs_run_on_nodes() -> None:
    with Lab("a - b") as lab:
        lab.b.offer("echo")
        server = lab.b.start(sys.executable, "-c", ECHO, stdout=subprocess.PIPE)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        assert lab.a.execute(sys.executable, "-c", ASK) == "hello\n"
        assert "net1.a" in lab.a.execute("irm", "ipcp", "list")
        with pytest.raises(subprocess.CalledProcessError) as caught:
            lab.a.execute("sh", "-c", "echo why >&2; exit 3")
        assert (caught.value.returncode, caught.value.__notes__) == (3, ["why"])
        left = lab.a.start("sleep", "1000")
    assert left.returncode == -9
    assert server.stdout.closed


def test_a_description_brings_its_programs() -> None:
    line = describe("a - b")
    program = Program("b", (sys.executable, "-c", ECHO), "echo")
    with Lab(Description(line.nodes, line.links, line.layers, programs=(program,))) as lab:
        assert lab.a.execute(sys.executable, "-c", ASK) == "hello\n"


def test_a_service_has_the_certificate_of_the_description() -> None:
    line = describe("a - b")
    program, certificate = Program("b", (sys.executable, "-c", ECHO), "echo"), Certificate("b", "echo")
    ask = (
        "from ouroboros.dev import QoSSpec, flow_alloc\n"
        "with flow_alloc('echo', QoSSpec(cypher_s=256), wait=True) as flow:\n"
        "    print(flow.security.peer_name)\n"
    )
    with Lab(replace(line, programs=(program,), certificates=(certificate,))) as lab:
        assert lab.a.execute(sys.executable, "-c", ask) == "echo\n"
        key = lab.b.security / "server/echo/key.pem"
        assert key.stat().st_mode & 0o777 == 0o600


def test_all_hear_what_is_said_in_a_broadcast_layer_over_a_unicast_one() -> None:
    async def talk(here: Here) -> bytes:
        flow = await here.join("hall")
        there.add(here.node.name)
        while len(there) < 2:
            await here.sleep(0.01)
        await flow.write(here.node.name.encode())
        heard = await flow.read()
        flow.dealloc()
        return heard

    there: set[str] = set()
    line = describe("a - b - c")
    hall = Layer("hall", "broadcast", {"a": "a", "c": "c"}, (("a", "c"),), "net1")
    with Lab(replace(line, layers=(*line.layers, hall))) as lab:
        assert lab.run({"a": talk, "c": talk}) == {"a": b"c", "c": b"a"}


def test_coroutines_of_one_program_run_on_many_nodes() -> None:
    async def serve(here: Here) -> bytes:
        flow = await here.accept("clock")
        heard = await flow.read()
        await flow.write(b"noon")
        with pytest.raises(FlowDownException):
            await flow.read()
        flow.dealloc()
        return heard

    async def ask(here: Here) -> bytes:
        flow = await here.alloc("clock", QOS_DATA, 20)
        await flow.write(b"what time is it?")
        answer = await flow.read()
        flow.dealloc()
        return answer

    with Lab("a - b - c") as lab:
        lab.c.offer("clock")
        lab.a.ping("c")
        assert lab.run({"c": serve, "a": ask}) == {"c": b"what time is it?", "a": b"noon"}


def test_kill_pause_and_restart_are_signals() -> None:
    with Lab("a - b - c, a - c", silence=1.0) as lab:
        ground = ground_of(lab)
        before = ground.pid("b")
        lab.b.pause()
        assert Path(f"/proc/{before}/stat").read_text().split()[2] == "T"
        lab.b.resume()
        assert Path(f"/proc/{before}/stat").read_text().split()[2] in "SR"
        lab.b.kill()
        assert not Path(f"/proc/{before}").exists()
        with pytest.raises(NodeError):
            lab.b.names()
        lab.link("a", "b").change("delay=1ms")
        lab.b.restart()
        assert ground.pid("b") != before
        lab.converge()
        assert lab.b.ping("c").path == ("b", "c")
        # The link is as it was changed while the node was gone.
        assert lab.b.member("a-b").impair.startswith("delay=1ms")
        lab.c.pause()
        # The end of the laboratory ends a paused node, too.
    assert_nothing_is_left(ground)


def test_laboratories_run_beside_each_other_and_in_threads() -> None:
    found: dict[int, bool] = {}

    def run(number: int) -> None:
        with Lab("a - b") as lab:
            found[number] = bool(lab.a.ping("b"))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {0: True, 1: True, 2: True}


def test_nodes_end_with_the_program_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, signal\n"
        "from ouroboros.lab import Lab\n"
        "lab = Lab('a - b')\n"
        "lab.start()\n"
        "print(*[lab.ground.pid(node.name) for node in lab], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert done.returncode == -9
    pids = [int(word) for word in done.stdout.split()]
    assert len(pids) == 2
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        # It becomes readable when the process ends; the watchdog of the test ends one that waits in vain.
        try:
            poll = select.poll()
            poll.register(descriptor)
            poll.poll()
        finally:
            os.close(descriptor)


def test_a_node_that_cannot_start_says_why(tmp_path: Path) -> None:
    forks = Forks()
    try:
        starting = forks.start("a", tmp_path / "not-there", tmp_path / "security")
        with pytest.raises(NodeError, match="ended with status 1 before it was ready"):
            starting.result()
        good = tmp_path / "good"
        good.mkdir(mode=0o700)
        assert forks.start("b", good, tmp_path / "security").result() > 0
        forks.signal("b", 9)
        assert forks.ended("b").result() == -9
    finally:
        forks.close()
    assert not forks.running
    with pytest.raises(NodeError, match="the process that starts nodes is gone"):
        forks.start("c", tmp_path, tmp_path).result()
