"""What a node tries until it is done, in virtual time."""

from __future__ import annotations

import asyncio
import logging
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ouroboros.control.configuration import Steps
from ouroboros.errors import IpcpConnectError, IpcpEnrollError, OuroborosError
from ouroboros.qos import QOS_RAW
from ouroboros.runtime.pursuits import FIRST_PAUSE, LONGEST_PAUSE, Pursuits
from ouroboros.wire.control import ConnectIpcp, EnrollIpcp, Request

ENROLL = EnrollIpcp(1, "campus")
CONNECT = ConnectIpcp(1, "Management", "m1", QOS_RAW)


class _Selector(selectors.SelectSelector):
    """Waits for nothing: the time that it would take has passed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        self.now += timeout or 0.0
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


class Others:
    """Those who answer. `answers`: of each request, in order; errors are raised, and the last is given for ever."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[float, Request]] = []

    async def ask(self, request: Request) -> object:
        self.asked.append((asyncio.get_running_loop().time(), request))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def times(self) -> list[float]:
        return [round(at, 6) for at, _ in self.asked]

    def gaps(self) -> list[float]:
        return [round(later - at, 6) for (at, _), (later, _) in zip(self.asked, self.asked[1:], strict=False)]


def run(story: Callable[[], Awaitable[None]]) -> list[dict[str, Any]]:
    """Carry it out in virtual time; what the loop was told of bugs."""
    bugs: list[dict[str, Any]] = []

    async def listened() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: bugs.append(context))
        await story()

    with asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(listened())
    return bugs


def enroll() -> Steps:
    yield ENROLL


def enroll_and_connect() -> Steps:
    number: int = yield ENROLL
    yield ConnectIpcp(number, "Management", "m1", QOS_RAW)


def pursue(others: Others, steps: Callable[[], Steps], seconds: float) -> list[dict[str, Any]]:
    async def story() -> None:
        pursuits = Pursuits(others.ask)
        pursuits.begin("[unicast.m0]", steps)
        await asyncio.sleep(seconds)
        pursuits.shut_down()

    return run(story)


def test_what_is_done_at_once_is_asked_for_once_and_steps_get_the_answers(caplog: pytest.LogCaptureFixture) -> None:
    others = Others(7, None)
    with caplog.at_level(logging.INFO):
        assert pursue(others, enroll_and_connect, 1000.0) == []
    assert others.asked == [(0.0, ENROLL), (0.0, ConnectIpcp(7, "Management", "m1", QOS_RAW))]
    assert caplog.text == ""


def test_what_fails_is_tried_again_after_pauses_that_double_up_to_the_longest() -> None:
    others = Others(IpcpEnrollError("nobody is there"))
    pursue(others, enroll, 200.0)
    doubled = [FIRST_PAUSE * 2**each for each in range(6)]
    assert others.gaps()[:6] == doubled
    assert set(others.gaps()[6:]) == {LONGEST_PAUSE}
    assert 2 * doubled[-1] > LONGEST_PAUSE
    assert 200.0 - others.times()[-1] <= LONGEST_PAUSE


def test_all_steps_are_taken_again_and_with_success_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    others = Others(1, IpcpConnectError("no way"), 1, None)
    with caplog.at_level(logging.INFO):
        pursue(others, enroll_and_connect, 1000.0)
    assert [request for _, request in others.asked] == [ENROLL, CONNECT, ENROLL, CONNECT]
    assert others.times() == [0.0, 0.0, FIRST_PAUSE, FIRST_PAUSE]
    assert caplog.messages == ["[unicast.m0] no way; it is tried again", "[unicast.m0] is done"]


def test_steps_may_have_another_way_when_one_fails() -> None:
    def either() -> Steps:
        try:
            yield ENROLL
        except IpcpEnrollError:
            yield CONNECT

    others = Others(IpcpEnrollError("nobody is there"), None)
    assert pursue(others, either, 1000.0) == []
    assert others.asked == [(0.0, ENROLL), (0.0, CONNECT)]


def test_each_reason_is_said_once_in_a_row(caplog: pytest.LogCaptureFixture) -> None:
    reasons: list[OuroborosError] = [IpcpEnrollError(text) for text in ("a", "a", "a", "b", "b", "a")]
    pursue(Others(*reasons), enroll, 16.0)
    assert [text.split()[1] for text in caplog.messages] == ["a;", "b;", "a;"]


def test_a_new_sequence_of_that_title_takes_the_place_of_the_one_before() -> None:
    asked: list[Request] = []
    withdrawn: list[Request] = []

    async def ask(request: Request) -> object:
        asked.append(request)
        try:
            return await asyncio.get_running_loop().create_future()
        finally:
            withdrawn.append(request)

    async def story() -> None:
        pursuits = Pursuits(ask)
        other = EnrollIpcp(2, "lab")
        pursuits.begin("[unicast.m0]", enroll)
        pursuits.begin("[unicast.m1]", lambda: (yield other))
        await asyncio.sleep(1.0)
        pursuits.begin("[unicast.m0]", lambda: (yield CONNECT))
        await asyncio.sleep(1.0)
        assert (asked, withdrawn) == ([ENROLL, other, CONNECT], [ENROLL])
        pursuits.shut_down()
        await asyncio.sleep(1.0)
        assert set(withdrawn) == {ENROLL, other, CONNECT}

    assert run(story) == []


def test_one_that_was_replaced_while_it_paused_does_not_go_on() -> None:
    others = Others(IpcpEnrollError("no"), None)

    async def story() -> None:
        pursuits = Pursuits(others.ask)
        pursuits.begin("[unicast.m0]", enroll)
        await asyncio.sleep(FIRST_PAUSE / 2)
        pursuits.begin("[unicast.m0]", lambda: (yield CONNECT))
        await asyncio.sleep(100.0)

    run(story)
    assert [request for _, request in others.asked] == [ENROLL, CONNECT]


def test_nothing_is_tried_any_more_after_the_end() -> None:
    others = Others(IpcpEnrollError("no"))

    async def story() -> None:
        pursuits = Pursuits(others.ask)
        pursuits.begin("[unicast.m0]", enroll)
        await asyncio.sleep(1.0)
        pursuits.shut_down()
        count = len(others.asked)
        await asyncio.sleep(1000.0)
        assert len(others.asked) == count

    run(story)


def test_a_bug_in_it_is_told_when_it_happens_and_the_others_go_on() -> None:
    bug = ZeroDivisionError("a bug")

    def broken() -> Steps:
        yield ENROLL
        raise bug

    others = Others(None, IpcpEnrollError("no"), None)
    bugs: list[dict[str, Any]] = []

    async def story() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: bugs.append(context))
        pursuits = Pursuits(others.ask)
        pursuits.begin("[unicast.m0]", broken)
        pursuits.begin("[unicast.m1]", enroll)
        await asyncio.sleep(0.1)
        assert [(each["message"], each["exception"]) for each in bugs] == [("[unicast.m0] was given up", bug)]
        await asyncio.sleep(10.0)

    run(story)
    assert len(others.asked) == 3
