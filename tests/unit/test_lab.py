"""Laboratories in virtual time: what can be done with a network, and what is said when it cannot."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ouroboros import layers
from ouroboros.control.irm import Irm
from ouroboros.errors import FlowAuthException, FlowDownException, FlowNameException, NodeError
from ouroboros.lab import (
    Certificate,
    Description,
    DescriptionError,
    Expectation,
    Here,
    Lab,
    LabError,
    Policy,
    describe,
)
from ouroboros.lab.commands import read_question
from ouroboros.lab.counted import COUNTERS
from ouroboros.lab.description import Layer
from ouroboros.lab.doing import answer, play
from ouroboros.lab.virtual import VirtualGround
from ouroboros.layers.agenda import earliest
from ouroboros.qos import QoSSpec
from ouroboros.wire.control import CreateName


def lab(network: str, **more: object) -> Lab:
    return Lab(network, clock="virtual", seed=7, **{"silence": 1.0, **more})  # type: ignore[arg-type]


def test_the_line_of_the_issue() -> None:
    with Lab("a - b - c", clock="virtual") as lab:
        ping = lab.a.ping(lab.c)
        assert (ping.hops, ping.path, ping.lost) == (2, ("a", "b", "c"), 0)
        # Two milliseconds each way, and a moment for programs to wake up.
        assert ping.time is not None
        assert 0.004 <= ping.time < 0.005
        assert str(ping) == "a to c: 4 ms, 2 hops: a - b - c"
        assert repr(ping) == f"<ping {ping}>"
        assert {"a", "b", "c", "ping"} - set(dir(lab)) == {"ping"}
        lab.link("a", "b").cut()
        with pytest.raises(LabError, match="a has no flow to c: "):
            lab.a.ping(lab.c)
        lab.link("b", "a").heal()
        assert lab.a.ping(lab.c)


def test_the_same_seed_is_the_same_run() -> None:
    def times(seed: int) -> list[float | None]:
        with Lab("a -(delay=5ms,jitter=5ms)- b - c", clock="virtual", seed=seed) as lab:
            return [*lab.a.ping("c", count=5).times, lab.now]

    assert times(1) == times(1)
    assert times(1) != times(2)


def test_links_change_in_one_direction_or_both() -> None:
    with lab("a - b") as made:
        link = made.link("b", "a")
        assert (link.ends, link.impair) == (("b", "a"), ("none", "none"))
        link.change(forth="delay=50ms")
        assert made.link("a", "b").impair == ("none", "delay=50ms")
        time = made.a.ping("b").time
        assert time is not None
        assert 0.05 <= time < 0.053
        link.change("delay=20ms")
        time = made.a.ping("b").time
        assert time is not None
        assert 0.04 <= time < 0.043
        link.change("none", back="loss=1%")
        assert link.impair == ("none", "none")
        with pytest.raises(DescriptionError, match="unknown key 'slow'"):
            link.change("slow=1")


def test_a_cut_link_keeps_what_else_happens_on_it() -> None:
    with lab("a -(delay=5ms)- b") as made:
        made.link("a", "b").cut()
        made.link("a", "b").change("delay=10ms")
        assert made.link("a", "b").is_cut
        with pytest.raises(LabError):
            made.a.ping("b")
        made.link("a", "b").heal()
        time = made.a.ping("b").time
        assert time is not None
        assert time >= 0.02


def test_routes_go_around_what_is_cut_or_killed() -> None:
    with lab("ring 5") as made:
        assert made.n0.path("n2") == ("n0", "n1", "n2")
        made.link("n0", "n1").cut()
        made.converge()
        assert made.n0.path("n2") == ("n0", "n4", "n3", "n2")
        made.n4.kill()
        made.converge()
        assert not made.n4.runs
        with pytest.raises(LabError, match="the tables know no way from n0 to n2"):
            made.n0.path("n2")
        made.n4.restart()
        made.converge()
        assert made.n0.ping("n2").path == ("n0", "n4", "n3", "n2")
        # It came back with the links that it had.
        assert made.n4.member("n3-n4").peers


def test_a_paused_node_answers_late() -> None:
    with lab("a - b - c") as made:
        made.a.ping("c")
        made.b.pause()
        made.wait(0.5)
        assert not made.b.runs
        with pytest.raises(LabError):
            made.a.ping("c")
        made.b.resume()
        assert made.a.ping("c").path == ("a", "b", "c")
        made.converge()


def test_a_link_that_is_cut_while_a_node_is_paused_is_cut_when_it_goes_on() -> None:
    with lab("a - b") as made:
        made.a.ping("b")
        made.b.pause()
        made.link("a", "b").cut()
        made.b.resume()
        assert made.b.member("a-b").impair == "partition"
        with pytest.raises(LabError):
            made.a.ping("b")


def test_a_coroutine_cannot_call_what_waits_for_it() -> None:
    async def ping(here: Here) -> None:
        with pytest.raises(LabError, match="cannot call what waits"):
            here.node.ping("b")
        await here.sleep(1)

    with lab("a - b") as made:
        made.a.run(ping)


def test_a_network_that_does_not_converge_in_time_says_what_is_missing() -> None:
    with lab("a - b - c", silence=60.0) as made:
        made.link("b", "c").cut()
        with pytest.raises(LabError, match="layer net1 has not converged: a still has ways to c"):
            made.converge(within=5)
        made.link("b", "c").heal()
        made.converge()


def test_layers_lie_over_layers() -> None:
    with lab("a@x - b@z", over="x - y - z") as made:
        assert made.x.ping("z").path == ("x", "z")
        assert made.x.path("y") == ("x", "y")
        assert set(made.x.routes("net1")) == {"y", "z"}
        assert set(made.x.routes()) == {"z"}
        before = made.y.member("net1").counters.get("forwarded", 0)
        made.x.ping("z", count=3)
        assert made.y.member("net1").counters.get("forwarded", 0) >= before
        made.link("x", "y").cut()
        made.converge()
        assert made.x.routes() == {}


def test_members_on_the_way_answer_a_trace_in_each_rank() -> None:
    with lab("a@x - b@z - c@w", over="x - y - z - w") as made:
        trace = made.x.trace("w")
        assert trace.ranks == (
            (("net2",), ("x", "z", "w")),
            (("net1",), ("x", "y", "z", "w")),
            (("x-y", "y-z", "z-w"), ("x", "y", "z", "w")),
        )
        assert repr(trace).startswith("<trace x to w, net2: x - z - w; net1: x - y - z - w; ")
        assert str(trace) == "net2: x - z - w\nnet1: x - y - z - w\nx-y y-z z-w: x - y - z - w"
        assert [(hop.path, hop.layer, hop.member) for hop in trace.hops if hop.rank == 2] == [
            ((1,), "net2", "net2.b"),
            ((2,), "net2", "net2.c"),
        ]
        assert trace.hops[0].round_trip is not None
        # Two hops there, of a millisecond each, and back.
        assert 0.004 <= round(trace.hops[0].round_trip, 9) < 0.005
        made.link("x", "y").cut()
        made.converge()
        with pytest.raises(LabError, match="no layer leads from x to w"):
            made.x.trace("w")


def test_a_node_that_stands_still_is_a_question_mark_on_the_way() -> None:
    with lab("a - b - c", silence=60.0) as made:
        made.a.ping("c")
        made.b.pause()
        trace = made.a.trace("c")
        assert (trace.path, str(trace)) == (("a", "?"), "net1: a - ?\na-b: a - ?")
        assert [hop.state for hop in trace.hops] == ["silent", "unasked"]
        with pytest.raises(LabError, match="a has no flow to c: "):
            made.a.ping("c")


def test_links_over_ipv6_are_like_others() -> None:
    with lab("a - b - c", links="udp6") as made:
        assert made.a.ping("c").path == ("a", "b", "c")
        assert {ipcp.type for ipcp in made.b.ipcps()} == {"udp6", "unicast"}


@pytest.mark.parametrize(
    ("links", "clock", "message"),
    [
        (
            "eth-dix",
            "virtual",
            "link a-b: virtual time has links of type udp4, udp6, not eth-dix: take clock='namespaces'",
        ),
        ("udp6", "real", "link a-b: real time has links of type udp4, not udp6: take clock='namespaces'"),
    ],
)
def test_a_type_of_link_that_a_clock_lacks_is_refused(links: str, clock: str, message: str) -> None:
    with pytest.raises(LabError) as caught:
        Lab("a - b", clock=clock, links=links).start()
    assert str(caught.value) == message


def certified(*certificates: Certificate) -> Description:
    """A line whose layer takes ann, ben and bob only, with these certificates."""
    line = describe("a - b - c")
    layer = replace(line.layers[0], settings={"enroll": ("ann", "ben", "bob")})
    return replace(line, layers=(layer,), certificates=certificates)


def test_members_prove_by_certificates_who_they_are() -> None:
    ann, ben, bob = (Certificate(*each, "net1") for each in (("a", "ann"), ("b", "ben"), ("c", "bob")))
    with Lab(certified(ann, ben, bob), clock="virtual") as made:
        assert made.a.ping("c").path == ("a", "b", "c")
        made.c.restart()
        made.converge()
    with pytest.raises(LabError, match=r"the network is not ready within 5 s: .*that prove who they are"):
        Lab(certified(ann, ben), clock="virtual", within=5).start()
    mallory = Certificate("c", "mallory", "net1")
    with pytest.raises(LabError, match=r"the network is not ready within 5 s: .*'mallory' is not one of those"):
        Lab(certified(ann, ben, mallory), clock="virtual", within=5).start()


def test_policies_say_who_may_have_flows_and_members_be_connected() -> None:
    line = describe("a - b - c")
    policies = (
        Policy("c", "clock", rules=("allow=ann",)),
        Policy("b", "net1", encryption=()),
        *(Policy(name, "net1", "client", encryption=()) for name in line.names),
    )
    certificates = (Certificate("a", "ann", "clock"),)

    async def serve(here: Here) -> bytes:
        return await (await here.accept("clock")).read()

    async def ask(here: Here) -> None:
        flow = await here.alloc("clock", timeo=5)
        await flow.write(here.node.name.encode())
        await here.sleep(1)

    with Lab(replace(line, policies=policies, certificates=certificates), clock="virtual") as made:
        assert made.a.ping("c").path == ("a", "b", "c")
        made.c.offer("clock")
        made.wait(1)
        assert made.run({"c": serve, "a": ask})["c"] == b"a"
        with pytest.raises(FlowAuthException):
            made.run({"c": serve, "b": ask})
        below = [flow for flow in made.a.flows() if flow.name == "net1.b"]
        assert below
        assert all(flow.qos.cypher_s for flow in below)


@pytest.mark.parametrize("over", [None, "net1"])
def test_a_broadcast_layer_lies_between_nodes(over: str | None) -> None:
    line = describe("a - b - c")
    hall = Layer("hall", "broadcast", {"a": "a", "b": "b", "c": "c"}, (("a", "b"), ("b", "c")), over)

    async def talk(here: Here) -> set[bytes]:
        flow = await here.join("hall")
        await here.sleep(1)
        await flow.write(here.node.name.encode())
        return {await flow.read(), await flow.read()}

    with Lab(replace(line, layers=(*line.layers, hall)), clock="virtual") as made:
        names = ["a", "b", "c"]
        heard = made.run(dict.fromkeys(names, talk))
        assert heard == {name: {other.encode() for other in names if other != name} for name in names}
        assert made.a.ping("c").path == ("a", "b", "c")
        made.b.restart()
        assert made.run(dict.fromkeys(names, talk)) == heard


def test_a_graph_of_several_pieces_has_a_layer_in_each() -> None:
    with lab("a - b, c - d") as made:
        assert made.a.ping("b")
        assert made.c.ping("d")
        with pytest.raises(LabError, match="the tables know no way from a to d"):
            made.a.path("d")


def test_expectations_ask_for_counters_and_tables() -> None:
    line = describe("a - b - c")
    asked = [
        ("counter b forwarded = 0", True),
        ("ping a c", True),
        ("counter b net1 forwarded >= 2", True),
        ("no counter b forwarded > 100", True),
        ("counter a b-a received > 0", True),
        ("counter a forwarded > 0", False),
        ("routes b = 2", True),
        ("routes b net1 < 2", False),
        ("flows c > 0", True),
        ("flows c = 0", False),
    ]
    expected = tuple(Expectation(0, that, 0.5) for that, _ in asked)
    with Lab(replace(line, expectations=expected), clock="virtual", seed=7) as made:
        verdict = play(made)
        assert verdict.met == tuple(asked), str(verdict)
        assert "NOT MET: at 0 s, routes b net1 < 2\n    after 0.5 s: 2" in str(verdict)
        made.b.kill()
        assert answer(made, read_question("flows b = 0", made.description)) == (False, "node b is gone")


def test_what_a_node_counts_can_be_asked_for() -> None:
    """In virtual time as on others: what the engine counts of packets, too."""
    line = describe("a - b")
    hall = Layer("hall", "broadcast", {"a": "a", "b": "b"}, (("a", "b"),))
    desk = Layer("desk", "local", {"a": "a"})
    with Lab(replace(line, layers=(*line.layers, hall, desk)), clock="virtual", seed=7) as made:
        made.a.ping("b", count=3)
        shown = {name for node in made for ipcp in node.ipcps() for name in ipcp.counters}
        assert {"lsus_received", "requests_sent", "forwarded", "delivered", "no_route"} <= shown <= COUNTERS
        assert made.b.counters("a-b")["received"] > 3
        assert any(flow.counters["received"] >= 3 for flow in made.b.flows() if flow.counters)
    source = Path(next(iter(layers.__path__)))
    written = {name for path in source.rglob("*.py") for name in re.findall(r'counters\["(\w+)"\]', path.read_text())}
    assert written <= COUNTERS


def test_a_busy_machine_gives_a_ping_its_time_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Found as a negative timeout: what pauses for a moment may come back when all the time has passed."""
    left: list[float] = []
    with lab("a - b - c") as made:
        ground = made.ground
        alloc, sleep = ground.alloc, ground.sleep

        async def note(node: str, name: str, qos: QoSSpec, timeo: float | None) -> object:
            assert timeo is not None
            left.append(timeo)
            if len(left) == 1:
                raise FlowNameException("not known yet")
            return await alloc(node, name, qos, timeo)

        async def oversleep(seconds: float) -> None:
            await sleep(seconds + 10)

        monkeypatch.setattr(ground, "alloc", note)
        monkeypatch.setattr(ground, "sleep", oversleep)
        assert made.a.ping("c")
    assert len(left) == 2
    assert all(seconds > 0 for seconds in left)


def test_all_are_told_of_all_in_few_messages() -> None:
    with lab("line 40") as made:
        heard = [node.counters("net1")["lsus_received"] for node in made]
    # One by one, two for each link would come from each side: one that tells of its ends, and one that acknowledges.
    assert max(heard) < 40


def test_coroutines_run_on_nodes() -> None:
    async def serve(here: Here) -> list[bytes]:
        flow = await here.accept("clock")
        heard = [await flow.read(), await flow.read()]
        await flow.write(b"noon")
        await here.sleep(1)
        flow.dealloc()
        return heard

    async def ask(here: Here) -> list[bytes]:
        flow = await here.alloc("clock", QoSSpec(loss=0), 5)
        begun = here.now
        await flow.write(b"what time")
        await flow.write(b"is it?")
        answer = await flow.read()
        with pytest.raises(FlowDownException):
            await flow.read()
        flow.dealloc()
        assert here.now - begun >= 1
        return [answer]

    with lab("a - b - c") as made:
        # The name is known to all before it is asked for.
        made.c.offer("clock")
        made.wait(1)
        found = made.run({"c": serve, "a": ask})
        assert found["c"] == [b"what time", b"is it?"]
        assert found["a"] == [b"noon"]
        assert "clock" in [name.name for name in made.c.names()]


def test_the_first_coroutine_that_fails_ends_the_others() -> None:
    ended: list[str] = []

    async def wait_for_ever(here: Here) -> None:
        try:
            await here.accept("nobody")
        finally:
            ended.append(here.node.name)

    async def fail(here: Here) -> None:
        await here.sleep(1)
        raise KeyError("mine")

    with lab("a - b") as made:
        with pytest.raises(KeyError, match="mine"):
            made.run({"a": wait_for_ever, "b": fail})
        assert ended == ["a"]
        with pytest.raises(TimeoutError):
            made.a.run(wait_for_ever, within=3)
        assert ended == ["a", "a"]


def test_a_coroutine_that_waits_for_another_clock_is_told() -> None:
    async def sleep(here: Here) -> None:
        await asyncio.Future(loop=loop)

    loop = asyncio.new_event_loop()
    try:
        with (
            lab("a - b") as made,
            pytest.raises(LabError, match=r"in virtual time a coroutine waits by .* `here\.sleep`"),
        ):
            made.a.run(sleep)
    finally:
        loop.close()


def test_flows_of_a_killed_node_go_down() -> None:
    async def ask(here: Here) -> None:
        flow = await here.alloc("clock", QoSSpec(timeout=1000), 5)
        await here.sleep(0.1)
        with pytest.raises(FlowDownException):
            await flow.read()

    async def serve(here: Here) -> None:
        flow = await here.accept("clock")
        with pytest.raises(FlowDownException):
            await flow.read()

    async def kill(here: Here) -> None:
        await here.sleep(2)
        await made.ground.kill("b")

    with lab("a - b, c") as made:
        made.b.offer("clock")
        made.run({"a": ask, "b": serve, "c": kill})
        with pytest.raises(NodeError, match="node b is gone"):
            made.b.names()


def test_requests_go_to_nodes_and_their_errors_come_back() -> None:
    with lab("a - b") as made:
        made.a.request(CreateName("bell", "round-robin"))
        assert {name.name for name in made.a.names()} == {"bell", "net1.a"}
        with pytest.raises(LabError, match="node a has no part in 'net7': there are a-b, net1"):
            made.a.member("net7")
        assert made.a.counters("a-b")["requests_received"] > 0
        assert made.a.flows()[0].layer == "a-b"
        assert {entry.name for entry in made.a.ipcps()} == {"a-b", "net1.a"}


def test_what_is_not_there_is_named() -> None:
    made = lab("a - b - c")
    with pytest.raises(LabError, match=r"does not run: use it in a `with` block"):
        made.wait(1)
    with made:
        with pytest.raises(LabError, match="there is no node 'q': there are a, b, c"):
            made["q"]
        with pytest.raises(AttributeError, match="there is no node 'q'"):
            made.q  # noqa: B018
        with pytest.raises(DescriptionError, match="there is no link between them: a is linked to b"):
            made.link("a", "c")
        with pytest.raises(LabError, match="runs already"):
            made.start()
        with pytest.raises(LabError, match="no programs run in virtual time"):
            made.a.execute("true")
        with pytest.raises(LabError, match="a is the same node"):
            made.a.ping("a")
        made.b.kill()
        for call in (made.b.kill, made.b.pause, made.b.resume):
            with pytest.raises(LabError, match="node b does not run: restart it first"):
                call()
        with pytest.raises(LabError, match="node b was killed"):
            made.a.ping("b")
        assert repr(made.b) == "<node b, killed>"
        assert repr(made.link("a", "b")) == "<link a - b, none | none>"
    assert repr(made) == "<Lab: 3 nodes, 2 links, ended>"
    made.close()


@pytest.mark.parametrize(
    ("network", "more", "message"),
    [
        ("a - b", {"clock": "wall"}, "there is no clock 'wall': choose from real, namespaces, virtual"),
        (describe("a - b"), {"over": "x - y"}, "`over` goes with a network in a line"),
        (describe("a - b"), {"links": "udp6"}, "`links` goes with a network in a line"),
        ("a - b", {"links": "wire"}, "'wire': no type of link: choose from udp4, udp6, eth-dix, eth-llc"),
        ("a - b", {"silence": 0.0}, "from 0.1 to 3600 seconds"),
    ],
)
def test_a_laboratory_that_cannot_be_is_refused_at_once(network: object, more: dict[str, object], message: str) -> None:
    with pytest.raises(LabError, match=message):
        Lab(network, **more)  # type: ignore[arg-type]


def test_a_network_that_is_not_ready_in_time_is_ended() -> None:
    made = Lab("a -(partition)- b", clock="virtual", within=3)
    with pytest.raises(LabError, match="the network is not ready within 3 s"):
        made.start()
    assert repr(made) == "<Lab: 2 nodes, 1 links, ended>"


def test_the_api_of_flows_brings_no_laboratory() -> None:
    code = "import sys, ouroboros.dev, ouroboros.aio, ouroboros.irm; print([m for m in sys.modules if '.lab' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def knows_its_deadline(irm: Irm) -> bool:
    """What it remembers of its IPC processes, when nothing has happened to them, is so."""
    return irm.deadline() == earliest(irm.flows.deadline(), *[ipcp.deadline() for ipcp in irm.ipcps.values()])


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 12), st.integers(2, 4), st.integers(0, 1000), st.data())
def test_tables_say_what_the_graph_says_whatever_is_cut(
    count: int, degree: int, seed: int, data: st.DataObject
) -> None:
    """Converged is a claim about every table; pings must agree with it."""
    with lab(f"random {count}/{degree}/{seed}") as made:
        for link in made.links:
            if data.draw(st.booleans()):
                link.cut()
        made.converge()
        one, other = data.draw(st.sampled_from([(a, b) for a in made for b in made if a is not b]))
        known = other.name in one.routes()
        try:
            path = one.path(other)
        except LabError:
            assert not known
        else:
            assert known
            assert all(not made.link(*pair).is_cut for pair in pairwise(path))
            assert one.ping(other).path == path
            assert one.trace(other).path == path
        ground = made.ground
        assert isinstance(ground, VirtualGround)
        assert all(knows_its_deadline(ground.node(node.name).irm) for node in made)
        assert ground.network.balance().missing == 0
        assert ground.network.counted()["stuck"] == 0
