"""Impairments of packets in a layer, and their notation: `loss=1%,delay=10ms,seed=42`.

========================= =========================================================================
`loss=1%`                 so many packets are lost
`duplicate=1%`            so many packets arrive twice
`reorder=0.5%`            so many packets are overtaken by the next one
`delay=10ms`              the least time that a packet takes; units: ns, us, ms, s
`jitter=2ms`              the most that is added to the delay; each packet draws its own
`rate=10M`                bits in a second; k, M and G are 10^3, 10^6 and 10^9
`partition`               nothing comes through
`seed=42`                 chooses the random numbers; 0 when it is not given
`none`                    alone: nothing of it
========================= =========================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from ouroboros.errors import IpcpBootstrapError
from ouroboros.qos import UINT64_MAX

#: Nanoseconds.
_TIMES = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_FACTORS = {"G": 10**9, "M": 10**6, "k": 10**3, "": 1}
_LONGEST = 3600 * 10**9
_NUMBER = re.compile(r"(\d{1,20})(?:\.(\d{1,9}))?([A-Za-z%]*)", re.ASCII)


class Impairment(msgspec.Struct, frozen=True):
    """An impairment of the packets of a layer, in either direction. `loss`, `duplicate` and `reorder` are probabilities."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    #: Nanoseconds.
    delay: int = 0
    jitter: int = 0
    #: Bits in a second; 0: no bound.
    rate: int = 0
    partition: bool = False
    seed: int = 0

    @property
    def text(self) -> str:
        """As `parse` reads it."""
        words = {
            f"loss={self.loss * 100:.11g}%": self.loss,
            f"duplicate={self.duplicate * 100:.11g}%": self.duplicate,
            f"reorder={self.reorder * 100:.11g}%": self.reorder,
            f"delay={_shortest(self.delay, _TIMES)}": self.delay,
            f"jitter={_shortest(self.jitter, _TIMES)}": self.jitter,
            f"rate={_shortest(self.rate, _FACTORS)}": self.rate,
            "partition": self.partition,
            f"seed={self.seed}": self.seed,
        }
        return ",".join(word for word, wanted in words.items() if wanted) or "none"


def parse(text: str) -> Impairment:
    """Read the words of an impairment. Raises `IpcpBootstrapError` naming the key that is wrong."""
    if text.strip() == "none":
        return Impairment()
    found: dict[str, float | int | bool] = {}
    for word in text.split(","):
        key, equals, value = (part.strip() for part in word.partition("="))
        if key in found:
            raise IpcpBootstrapError(f"impair: {key} is given twice")
        if key == "partition" and not equals:
            found[key] = True
        elif key in _READERS:
            found[key] = _READERS[key](key, value)
        elif key == "partition":
            raise IpcpBootstrapError(f"impair: partition stands alone, not with {value!r}")
        else:
            known = ", ".join([*_READERS, "partition"])
            raise IpcpBootstrapError(f"impair: unknown key {key!r} in {text!r}: choose from {known}, or say none")
    return msgspec.convert(found, Impairment)


def _number(key: str, value: str, factors: dict[str, int], example: str) -> int:
    """A number with a unit, in billionths of the smallest unit so that no digit is lost."""
    match = _NUMBER.fullmatch(value)
    if match is None or match[3] not in factors:
        raise IpcpBootstrapError(f"impair: {key} must look like {example}, not {value!r}")
    return int(match[1] + (match[2] or "").ljust(9, "0")) * factors[match[3]]


def _chance(key: str, value: str) -> float:
    percent = _number(key, value, {"%": 1}, "1% or 0.5%")
    if percent > 100 * 10**9:
        raise IpcpBootstrapError(f"impair: {key} must be from 0% to 100%, not {value}")
    return percent / 10**11


def _time(key: str, value: str) -> int:
    time = _number(key, value, _TIMES, "10ms (units: ns, us, ms, s)") // 10**9
    if time > _LONGEST:
        raise IpcpBootstrapError(f"impair: {key} must be at most an hour, not {value}")
    return time


def _rate(key: str, value: str) -> int:
    rate = _number(key, value, _FACTORS, "10M (bits in a second, with k, M or G)") // 10**9
    if not 1 <= rate <= UINT64_MAX:
        raise IpcpBootstrapError(f"impair: {key} must be from 1 to {UINT64_MAX} bit/s, not {value}")
    return rate


def _seed(key: str, value: str) -> int:
    if re.fullmatch(r"[0-9]{1,20}", value) is None or int(value) > UINT64_MAX:
        raise IpcpBootstrapError(f"impair: {key} must be a whole number from 0 to {UINT64_MAX}, not {value!r}")
    return int(value)


_READERS: dict[str, Callable[[str, str], float | int]] = {
    "loss": _chance,
    "duplicate": _chance,
    "reorder": _chance,
    "delay": _time,
    "jitter": _time,
    "rate": _rate,
    "seed": _seed,
}


def _shortest(value: int, factors: dict[str, int]) -> str:
    """The number in its largest unit that keeps it whole."""
    unit, factor = next((unit, factor) for unit, factor in factors.items() if value % factor == 0)
    return f"{value // factor}{unit}"
