"""What a member says to others about flows, message by message: to those of ours, and to those of the C prototype."""

from __future__ import annotations

import random

import pytest
from unicast_world import Layer, line

from ouroboros.errors import FlowException
from ouroboros.layers.effects import SendPdu
from ouroboros.layers.flows.incoming import WAITING_OF_FLOW
from ouroboros.layers.members.core import ALLOCATOR
from ouroboros.oap import ClientHandshake, Settings
from ouroboros.qos import UINT32_MAX, QoSSpec
from ouroboros.testing.sim import Asked
from ouroboros.wire.udp import FlowDealloc, FlowReply, FlowRequest, Message
from ouroboros.wire.unicast import flow

RAW = QoSSpec(delay=UINT32_MAX, loss=1, ber=1, max_gap=UINT32_MAX)
#: A member of the prototype, which is nowhere.
STRANGER = 0x1FD48C8B
THEIR_EID = 0xA3C1C94300000042


class Watched:
    """Two members, of which the first serves `clock`, and what it sends to the stranger."""

    def __init__(self) -> None:
        self.layer = Layer(line(2))
        self.layer.converge()
        self.layer.offer("clock", 0)
        self.member = self.layer.member(0)
        self.said: list[tuple[float, Message]] = []
        runtime = self.layer.nodes[0]._handlers
        send = runtime[SendPdu]

        def watch(effect: SendPdu) -> None:
            if effect.destination == STRANGER and effect.eid == ALLOCATOR:
                self.said.append((self.layer.network.now, flow.decode(effect.data, 32)[0]))
            send(effect)

        runtime[SendPdu] = watch

    def accept(self) -> Asked:
        return self.layer.nodes[0].program("server").accept("clock")

    def request(self, *, eid: int = THEIR_EID, seed: int = 1, sender: int = STRANGER) -> bytes:
        """As the prototype makes it: nothing in the `data` of its handshake."""
        shake = ClientHandshake("clock", Settings(), random=random.Random(seed), wall=self.layer.network.wall, data=b"")
        return flow.encode(FlowRequest(eid, RAW, self.member.digest("clock"), shake.request), sender)

    def hear(self, data: bytes, fd: int = 0) -> None:
        node = self.layer.nodes[0]
        node.irm.heard(self.member.id, ALLOCATOR, data, fd, self.layer.network.now)
        node._carry_out()


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_an_answer_to_the_prototype_is_said_again_and_is_the_same(watched: Watched) -> None:
    waiting = watched.accept()
    asked_at = watched.layer.network.now
    watched.hear(watched.request())
    watched.layer.network.run(1.0)
    assert waiting.answer is not None
    times, messages = zip(*watched.said, strict=True)
    assert [round(when - asked_at, 3) for when in times] == [0.0, 0.01, 0.1]
    assert isinstance(messages[0], FlowReply)
    assert (messages[0].eid, messages[0].response) == (THEIR_EID, 0)
    assert len(set(messages)) == 1


@pytest.mark.parametrize("by", ["a packet", "the end"])
def test_an_answer_that_came_is_not_said_again(watched: Watched, by: str) -> None:
    waiting = watched.accept()
    watched.hear(watched.request())
    (eid,) = watched.member._ends
    if by == "a packet":
        sent = SendPdu(watched.layer.ids[1], watched.member.core.address, eid, b"it came")
        watched.layer.nodes[1]._handlers[SendPdu](sent)
    else:
        waiting.flow.dealloc()
    watched.layer.network.run(1.0)
    assert len(watched.said) == 1


def test_a_refusal_is_said_once_and_there_is_no_acceptance_after_it(watched: Watched) -> None:
    server = watched.layer.nodes[0].program("server")
    server.accept("clock")
    server.die()
    watched.hear(watched.request())
    watched.layer.network.run(60.0)
    ((_, message),) = watched.said
    assert isinstance(message, FlowReply)
    assert message.response < 0
    assert message.oap == b""


def test_the_prototype_hears_nothing_of_the_end_of_a_flow(watched: Watched) -> None:
    waiting = watched.accept()
    watched.hear(watched.request())
    watched.layer.network.run(1.0)
    before = len(watched.said)
    waiting.flow.dealloc()
    watched.layer.network.run(60.0)
    assert len(watched.said) == before


def test_a_notice_of_somebody_else_ends_nothing(watched: Watched) -> None:
    watched.layer.network.run(5.0)
    client, server = watched.layer.flow("clock", 1, 0)
    (eid,) = watched.member._ends
    end = watched.member._ends[eid]
    for notice, sender in (
        (FlowDealloc(end.peer_eid, eid), STRANGER),
        (FlowDealloc(end.peer_eid + 1, eid), watched.layer.member(1).core.address),
    ):
        watched.hear(flow.encode(notice, sender))
    client.write(b"still here")
    assert server.read() == b"still here"
    assert watched.member.entry().counters["messages_wrong_source"] == 2


def test_a_neighbour_that_invents_senders_leaves_others_places_to_wait(watched: Watched) -> None:
    waiting = watched.member._incoming
    one, other = (each.fd for each in watched.member.connections.rows())
    for number in range(WAITING_OF_FLOW + 50):
        watched.hear(watched.request(eid=THEIR_EID + number, seed=number, sender=STRANGER + number // 200), fd=one)
    assert len(waiting.waiting) == WAITING_OF_FLOW
    watched.hear(watched.request(eid=THEIR_EID, seed=9999, sender=STRANGER - 1), fd=other)
    assert len(waiting.waiting) == WAITING_OF_FLOW + 1
    # Answers give them back.
    watched.layer.network.run(60.0)
    assert not waiting.waiting
    watched.hear(watched.request(eid=THEIR_EID + 5000, seed=5000), fd=one)
    assert len(waiting.waiting) == 1


@pytest.mark.parametrize("code", [*range(8), 0x71, 0x72, 255])
def test_any_bytes_do_no_harm(watched: Watched, code: int) -> None:
    drawn = random.Random(code)
    for length in (0, 1, 60, 61, 92, 93, 200, 2048, 2049):
        data = bytearray(drawn.randbytes(length))
        if length > 58:
            data[58] = code
        watched.hear(bytes(data))
    watched.layer.network.run(5.0)
    client, server = watched.layer.flow("clock", 1, 0)
    client.write(b"still here")
    assert server.read() == b"still here"


def test_one_who_may_be_of_the_prototype_is_asked_three_times(watched: Watched) -> None:
    """The name is at a member that never answers, and whose announcements look like those of the prototype."""
    asking = watched.layer.member(1)
    address = watched.member.core.address
    asking._flows_core.ours.__init__()  # type: ignore[misc]
    asking.link_state.ours = lambda address: False  # type: ignore[method-assign]
    asked: list[float] = []
    handlers = watched.layer.nodes[1]._handlers
    send = handlers[SendPdu]

    def swallow(effect: SendPdu) -> None:
        if effect.destination == address and effect.eid == ALLOCATOR:
            asked.append(watched.layer.network.now)
        else:
            send(effect)

    handlers[SendPdu] = swallow
    watched.layer.network.run(5.0)
    start = watched.layer.network.now
    with pytest.raises(FlowException, match=r"no answer from .* to 3 requests"):
        watched.layer.nodes[1].program("client").alloc("clock", timeout=60.0).wait().flow  # noqa: B018
    assert [round(when - start) for when in asked] == [0, 3, 9]
