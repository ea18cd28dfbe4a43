"""Programs that join a broadcast layer of another node, and leave, hang up and die, while the ways fail and nodes change."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joining_world import members, talk, world

from ouroboros.control.joining import LINGER
from ouroboros.errors import FlowException
from ouroboros.testing.sim import Asked
from ouroboros.wire.control import DestroyIpcp, Granted

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["join", "leave", "cancel", "die", "cut", "mend", "destroy"]),
        st.integers(0, 9),
        st.sampled_from([0.0, 0.003, 1.0, 7.0]),
    ),
    max_size=20,
)


@pytest.mark.slow
@settings(max_examples=30)
@given(STEPS)
def test_there_is_one_member_as_long_as_somebody_needs_it(steps: list[tuple[str, int, float]]) -> None:
    network, hub, near = world()
    programs = [near.program(f"p{number}") for number in range(10)]
    asked: dict[int, Asked] = {}
    for what, number, pause in steps:
        mine = asked.get(number)
        match what:
            case "join" if mine is None:
                asked[number] = programs[number].join("chat", 5.0)
            case "leave" if mine is not None and isinstance(mine.answer, Granted):
                asked.pop(number).flow.dealloc()
            case "cancel" if mine is not None and mine.answer is None:
                asked.pop(number).cancel()
            case "die":
                programs[number].die()
                programs[number] = near.program(f"p{number}")
                asked.pop(number, None)
            case "cut":
                network.cut(hub, near)
            case "mend":
                network.mend(hub, near)
            case "destroy" if one := members(near):
                near.manage(DestroyIpcp(one[0].id)).value  # noqa: B018 - or its error
        assert len(members(near)) <= 1
        network.run(pause)
    network.mend(hub, near)
    for number, each in asked.items():
        # Whatever came of it, within the time that it was given.
        each.wait(6)
        assert each.answer is not None
        if isinstance(each.answer, Granted):
            each.flow.dealloc()
        else:
            with pytest.raises(FlowException):
                each.value  # noqa: B018
        assert len(members(near)) <= 1, number
    network.run(LINGER + 1)
    assert members(near) == []
    talk(network, hub.program().join("chat").wait().flow, near.program().join("chat").wait().flow)
    network.run(2)
    (there,) = members(hub)
    assert len([each for each in there.connections if each.state == "up"]) == 1
    assert network.balance().missing == 0
