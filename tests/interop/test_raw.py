"""Raw flows, allocation and what goes with it, between our node and the C prototype as it is, over IPv4 and IPv6."""

from __future__ import annotations

import re

import pytest
from interop.conftest import World
from interop.hosts import Command
from support import Background, until

from ouroboros.dev import flow_accept, flow_alloc
from ouroboros.errors import FlowException, FlowPeerException, FlowSizeException, FlowTimeoutException
from ouroboros.qos import QoSSpec

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

#: Largest packet that the prototype's layer delivers whole.
LARGEST = {"udp4": 8976, "udp6": 8948}


def received(ping: Command) -> tuple[int, int]:
    """How many packets a run of `oping` sent and how many replies it got."""
    said = "\n".join(ping.finish())
    match = re.search(r"(\d+) packets transmitted, (\d+) received", said)
    assert match, said
    return int(match[1]), int(match[2])


def counted(lines: list[str]) -> int:
    """How many packets a server of `ocbr` reports in all."""
    return sum(int(found[1]) for found in map(re.compile(r"Flow +\d+: +(\d+) packets").search, lines) if found)


# --- tools


@pytest.mark.parametrize("size", [64, 1400, 1500])
def test_our_oping_with_their_server(stock: World, size: int) -> None:
    stock.theirs.serve("oping")
    ping = stock.ours.run("oping", "-n", "oping", "-c", "20", "-i", "10", "-s", str(size))
    assert received(ping) == (20, 20)
    assert f"{size} bytes from oping: seq=19" in "\n".join(ping.said)


@pytest.mark.parametrize("size", [64, 1400, 1500])
def test_their_oping_with_our_server(stock: World, size: int) -> None:
    server = stock.ours.serve("oping")
    ping = stock.theirs.run("oping", "-n", "oping", "-c", "20", "-i", "10", "-s", str(size))
    assert received(ping) == (20, 20)
    assert f"{size} bytes from oping: seq=19" in "\n".join(ping.said)
    assert sum(line.startswith(f"Received {size} bytes") for line in server.interrupt()) == 20


def test_our_oping_floods_their_server(stock: World) -> None:
    stock.theirs.serve("oping", "-Q")
    assert received(stock.ours.run("oping", "-n", "oping", "-c", "2000", "-f", "-Q")) == (2000, 2000)


def test_their_oping_floods_our_server(stock: World) -> None:
    stock.ours.serve("oping", "-Q")
    assert received(stock.theirs.run("oping", "-n", "oping", "-c", "2000", "-f", "-Q")) == (2000, 2000)


def test_our_oecho_with_their_server(stock: World) -> None:
    server = stock.theirs.serve("oecho")
    assert stock.ours.run("oecho").finish() == ["Server replied with Client says hi!"]
    server.until(r"^Message from client is Client says hi!\.$")


def test_their_oecho_with_our_server(stock: World) -> None:
    server = stock.ours.serve("oecho")
    assert stock.theirs.run("oecho").finish() == ["Server replied with Client says hi!"]
    server.until(r"^Message from client is Client says hi!\.$")


def test_our_ocbr_with_their_server(stock: World) -> None:
    server = stock.theirs.serve("ocbr")
    client = stock.ours.run("ocbr", "-n", "ocbr", "-d", "1", "-r", "1M", "-s", "1000").finish()
    sent = re.search(r"sent statistics: +(\d+) packets, +(\d+) bytes", client[-1])
    assert sent, client
    server.until("timed out")
    assert counted(server.said) == int(sent[1]) > 100
    assert int(sent[2]) == 1000 * int(sent[1])


def test_their_ocbr_with_our_server(stock: World) -> None:
    server = stock.ours.serve("ocbr")
    client = stock.theirs.run("ocbr", "-n", "ocbr", "-d", "1", "-r", "1M", "-s", "1000").finish()
    sent = re.search(r"sent statistics: +(\d+) packets", client[-1])
    assert sent, client
    server.until("timed out")
    assert counted(server.said) == int(sent[1]) > 100


def test_our_operf_with_their_server(stock: World) -> None:
    stock.theirs.serve("operf")
    client = stock.ours.run("operf", "-n", "operf", "-t", "bi", "-d", "1s", "-s", "1000", "-r", "1M").finish()
    assert any(re.search(r"(\d+) packets transmitted, \1 received", line) for line in client), client


# --- allocation and refusal


def test_server_sees_the_qos_that_was_asked_for(stock: World) -> None:
    program = stock.theirs.program("theirs")
    program.begin("accept", 30)
    with flow_alloc("theirs", QoSSpec(delay=11, bandwidth=12, availability=13, loss=14, max_gap=15, timeout=16_000)):
        _, seen = program.answer()
    wanted = {
        "delay": 11,
        "bandwidth": 12,
        "availability": 13,
        "loss": 14,
        "in_order": 0,
        "max_gap": 15,
        "timeout": 16_000,
    }
    assert seen | wanted == seen


def test_our_server_sees_the_qos_that_was_asked_for(stock: World) -> None:
    program = stock.theirs.program()
    wanted = {
        "delay": 11,
        "bandwidth": 12,
        "availability": 13,
        "loss": 14,
        "in_order": 0,
        "max_gap": 15,
        "timeout": 16_000,
    }
    stock.ours.offer("ours")
    accepted = Background.waiting_for_node(lambda: flow_accept(name="ours"))
    program.begin("alloc", "ours", {"ber": 1} | wanted, 30)
    with accepted.result() as flow:
        assert program.answer() >= 0
        assert {field: getattr(flow.get_qos(), field) for field in wanted} == wanted


def test_many_of_their_clients_at_once(stock: World) -> None:
    stock.ours.serve("oping", "-Q")
    # The first one alone: several that look the name up at once hinder each other there.
    assert received(stock.theirs.run("oping", "-n", "oping", "-c", "1", "-Q")) == (1, 1)
    clients = [stock.theirs.run("oping", "-n", "oping", "-c", "5", "-i", "10", "-Q") for _ in range(10)]
    assert [received(client) for client in clients] == [(5, 5)] * 10


def test_their_client_is_told_that_nobody_has_the_name(stock: World) -> None:
    client = stock.theirs.run("oping", "-n", "nobody", "-c", "1")
    assert client.finish() == ["Failed to allocate flow: -1003."]


def test_our_client_gives_up_at_its_time_limit(stock: World) -> None:
    with pytest.raises(FlowTimeoutException):
        flow_alloc("theirs", timeo=0.5)


def test_our_client_repeats_its_request_until_there_is_a_server(stock: World) -> None:
    # The prototype drops a request that nobody accepts within a second, and says nothing.
    stock.theirs.irm("name", "create", "theirs")
    waiting = Background.waiting_for_node(lambda: flow_alloc("theirs"))
    until(lambda: "No active process" in stock.theirs.log())
    program = stock.theirs.program("theirs")
    program.begin("accept", 30)
    with waiting.result() as flow:
        accepted, _ = program.answer()
        flow.write(b"at last")
        assert bytes.fromhex(program.do("read", accepted)) == b"at last"


# --- the end of flows


def test_nothing_reaches_their_next_flow_after_our_deallocation(stock: World) -> None:
    program = stock.theirs.program("theirs")
    for word in (b"first", b"second"):
        program.begin("accept", 30)
        with flow_alloc("theirs") as flow:
            accepted, _ = program.answer()
            flow.write(word)
            assert bytes.fromhex(program.do("read", accepted)) == word
        assert program.do("dealloc", accepted) == 0


def test_their_deallocation_costs_our_program_nothing(stock: World) -> None:
    # The prototype tells nobody. What we write from then on is dropped there.
    program = stock.theirs.program("theirs")
    program.begin("accept", 30)
    with flow_alloc("theirs") as flow:
        accepted, _ = program.answer()
        assert program.do("dealloc", accepted) == 0
        for _ in range(100):
            flow.write(b"nobody reads this")


def test_keepalives_keep_an_idle_flow(stock: World) -> None:
    program = stock.theirs.program("theirs")
    program.begin("accept", 30)
    with flow_alloc("theirs", QoSSpec(timeout=1000)) as flow:
        accepted, _ = program.answer()
        # Its reader has to read for it to take note of our keepalives.
        program.do("timeouts", accepted, 3)
        program.begin("read", accepted)
        flow.set_rcv_timeout(2.5)
        with pytest.raises(FlowTimeoutException):
            flow.read()
        assert program.answer() == -110
        program.begin("echo", accepted, 1)
        flow.write(b"still there")
        assert flow.read() == b"still there"
        assert program.answer() == [1, 0]


def test_our_reader_is_told_when_their_host_died(stock: World) -> None:
    program = stock.theirs.program("theirs")
    program.begin("accept", 30)
    with flow_alloc("theirs", QoSSpec(timeout=1000)) as flow:
        program.answer()
        reader = Background(flow.read)
        reader.until_asleep("poll")
        stock.theirs.die()
        with pytest.raises(FlowPeerException):
            reader.result()


def test_their_reader_is_told_when_our_node_died(stock: World) -> None:
    program = stock.theirs.program("theirs")
    program.begin("accept", 30)
    with flow_alloc("theirs", QoSSpec(timeout=1000)):
        accepted, _ = program.answer()
        program.do("timeouts", accepted, 0.5)
        stock.ours.node.kill()
        until(lambda: program.do("read", accepted) == -1006)
    stock.ours.node.start()


def test_their_reader_is_told_when_our_program_left(stock: World) -> None:
    # Deallocation ends the keepalives, which is the only sign that the prototype knows.
    program = stock.theirs.program("theirs")
    program.begin("accept", 30)
    with flow_alloc("theirs", QoSSpec(timeout=1000)):
        accepted, _ = program.answer()
        program.do("timeouts", accepted, 0.5)
    until(lambda: program.do("read", accepted) == -1006)


# --- sizes, and what is added to packets


def test_largest_packet_goes_both_ways_and_a_larger_one_is_refused(stock: World) -> None:
    largest = LARGEST[stock.family]
    program = stock.theirs.program("theirs")
    program.begin("accept", 30)
    with flow_alloc("theirs") as flow:
        accepted, _ = program.answer()
        program.begin("echo", accepted, 3)
        for size in (1, 1472, largest):
            packet = bytes(number % 251 for number in range(size))
            flow.write(packet)
            assert flow.read() == packet
        assert program.answer() == [3, 0]
        with pytest.raises(FlowSizeException, match=str(largest)):
            flow.write(bytes(largest + 1))
        program.begin("echo", accepted, 1)
        flow.write(b"the refused one was not sent")
        assert flow.read() == b"the refused one was not sent"


def test_packets_with_checksum_are_understood_by_both(stock: World) -> None:
    # A server of the prototype obeys a ber of 0 that it is asked for, though its own clients never ask.
    program = stock.theirs.program("theirs")
    program.begin("accept", 30)
    with flow_alloc("theirs", QoSSpec(ber=0)) as flow:
        accepted, seen = program.answer()
        assert seen["ber"] == 0
        program.begin("echo", accepted, 2)
        for packet in (b"x", bytes(1000)):
            flow.write(packet)
            assert flow.read() == packet


# --- junk


@pytest.mark.parametrize("port", [0, 3435], ids=["from another port", "from another address"])
def test_junk_disturbs_no_flow(stock: World, port: int) -> None:
    stock.theirs.serve("oping", "-Q")
    # Datagrams from their address and another port, or from a third address and the right port.
    source = (stock.theirs, stock.addresses.theirs) if port == 0 else (stock.ours, stock.addresses.near)
    host, address = source
    junk = host.script("junk.py", stock.addresses.ours, "3435", address, str(port), "7")
    junk.until("sending")
    assert received(stock.ours.run("oping", "-n", "oping", "-c", "200", "-i", "10", "-Q")) == (200, 200)
    assert received(stock.ours.run("oping", "-n", "oping", "-c", "20", "-i", "10", "-Q")) == (20, 20)


def test_junk_after_which_their_client_is_served(stock: World) -> None:
    junk = stock.theirs.script("junk.py", stock.addresses.ours, "3435", stock.addresses.theirs, "0", "8")
    junk.until("sending")
    stock.ours.serve("oping", "-Q")
    assert received(stock.theirs.run("oping", "-n", "oping", "-c", "50", "-i", "10", "-Q")) == (50, 50)


# --- lost management


@pytest.mark.parametrize("lost", ["requests", "replies"])
def test_lost_request_or_reply_is_made_up_for(linked: World, lost: str) -> None:
    linked.faults.set(**{lost: 1})
    linked.theirs.serve("oping")
    assert received(linked.ours.run("oping", "-n", "oping", "-c", "20", "-i", "10")) == (20, 20)


def test_layers_on_two_ports_are_two_layers(stock: World) -> None:
    # Nobody listens there on their side: the names of one layer are not those of the other.
    family, address = stock.family, stock.addresses.ours
    stock.ours.irm(
        "ipcp", "bootstrap", "type", family, "name", "v", "layer", "other", "ip", address, "port", "3500",
        "peer", f"elsewhere@{stock.addresses.theirs}",
    )  # fmt: skip
    stock.theirs.serve("oping")
    with pytest.raises(FlowException):
        flow_alloc("elsewhere", timeo=0.5)
    assert received(stock.ours.run("oping", "-n", "oping", "-c", "5", "-i", "10")) == (5, 5)
