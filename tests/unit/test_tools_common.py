"""What the tools share: how options are read, and pace."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any
from unittest.mock import Mock

import pytest

from ouroboros.tools import _common
from ouroboros.tools._common import FlowServer, paced, parse_duration, parse_rate, text_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250", 0.25), ("250ms", 0.25), ("2s", 2), ("1.5s", 1.5), ("3m", 180), ("1h", 3600), ("1d", 86400), ("0", 0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-1s", "1w", "1 s", "1s2", "ten", ".5s"])
def test_a_wrong_duration_is_told_the_units(text: str) -> None:
    with pytest.raises(ValueError, match="ms, s, m, h or d"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "rate"), [("100", 100), ("64k", 64e3), ("1.5M", 1.5e6), ("10G", 10e9), ("0.5k", 500)])
def test_rates(text: str, rate: float) -> None:
    assert parse_rate(text) == pytest.approx(rate)


def test_a_bare_rate_counts_in_the_unit_of_the_tool() -> None:
    assert parse_rate("100", bare=1000) == pytest.approx(100e3)
    assert parse_rate("100k", bare=1000) == pytest.approx(100e3)


@pytest.mark.parametrize("text", ["", "M", "-1M", "1 M", "1m", "1K", "0", "0.0k", "fast", "1e6"])
def test_a_wrong_rate_is_told_the_units(text: str) -> None:
    with pytest.raises(ValueError, match="k, M or G"):
        parse_rate(text)


class Time:
    """A clock that moves when somebody waits, and by `cost` for each look at it."""

    def __init__(self, cost: float = 0.0) -> None:
        self.now = 100.0
        self.cost = cost
        self.waited_for: list[float] = []

    def __call__(self) -> float:
        self.now += self.cost
        return self.now

    def wait(self, due: float) -> None:
        self.waited_for.append(due)
        self.now = max(self.now, due)


def test_each_number_comes_at_its_time_and_the_run_takes_all_of_its_time() -> None:
    time = Time()
    times = [(number, time.now) for number in paced(0.5, 2.0, time.wait, time)]
    assert times == [(0, 100.0), (1, 100.5), (2, 101.0), (3, 101.5)]
    assert time.now == 102.0


def test_a_late_number_is_made_up_for() -> None:
    time = Time()
    times = []
    for number in paced(0.5, 2.0, time.wait, time):
        times.append(time.now)
        if number == 0:
            time.now += 1.2
    assert times == [100.0, 101.2, 101.2, 101.5]


def test_the_last_wait_ends_with_the_run() -> None:
    time = Time()
    assert list(paced(10.0, 2.0, time.wait, time)) == [0]
    assert time.waited_for == [102.0]


def test_without_an_interval_nothing_waits() -> None:
    time = Time(cost=0.25)
    assert len(list(paced(0.0, 10.0, time.wait, time))) > 10
    assert time.waited_for == []


def test_a_run_without_time_has_no_numbers() -> None:
    time = Time()
    assert list(paced(0.5, 0.0, time.wait, time)) == []


@pytest.mark.parametrize(
    ("packet", "text"),
    [(b"hello all\0", "hello all"), (b"no end", "no end"), (b"a\0b", "a"), (b"", ""), (b"\xff", "\ufffd")],
)
def test_the_text_of_a_packet_ends_at_its_nul(packet: bytes, text: str) -> None:
    assert text_of(packet) == text


def test_a_server_that_may_have_no_more_threads_lets_go_of_the_flow_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    released: list[int] = []
    flows: list[Any] = [Mock(flow_id=n, dealloc=partial(released.append, n)) for n in (64, 65)]

    def accept() -> Any:
        if not flows:
            raise KeyboardInterrupt
        return flows.pop(0)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_common, "flow_accept", accept)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    FlowServer(lambda *_: pytest.fail("nothing is served")).run()
    assert released == [64, 65]
    assert "Flow 65 is let go: can't start new thread." in capsys.readouterr().out
