"""Quality of service of a flow: the nine parameters of a `QoSSpec`, and the specs that have a name.

Source: the PyOuroboros API text for parameters, units and defaults; `flows.md` 4.3 for the cubes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ouroboros._arguments import FieldNames, shown
from ouroboros._values import whole_number

MILLION = 1_000_000
BILLION = 1_000_000_000

UINT32_MAX = 2**32 - 1
UINT64_MAX = 2**64 - 1

#: Milliseconds of silence after which a peer counts as dead, unless a spec says otherwise.
DEFAULT_PEER_TIMEOUT = 120_000

# field -> (largest value, unit), in the order of the documentation
_LIMITS: dict[str, tuple[int, str]] = {
    "delay": (UINT32_MAX, "ms"),
    "bandwidth": (UINT64_MAX, "bit/s"),
    "availability": (255, "nines"),
    "loss": (UINT32_MAX, "ppm"),
    "ber": (UINT32_MAX, "errors per 10^9 bits"),
    "in_order": (1, "0 or 1"),
    "max_gap": (UINT32_MAX, "ms"),
    "cypher_s": (65535, "bits"),
    "timeout": (UINT32_MAX, "ms"),
}
_LARGEST = tuple(largest for largest, _ in _LIMITS.values())


def _whole(field: str, unit: str, value: object) -> int:
    try:
        return int(value) if isinstance(value, bool) and field == "in_order" else whole_number(value)
    except TypeError:
        kind = type(value).__name__
        raise TypeError(f"QoSSpec: {field} must be a whole number ({unit}), not {value!r} ({kind})") from None


class _ByPosition(FieldNames):
    """Refuses the parameters by position that mean something else in other versions of the API."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        if len(args) > len(_Positional.__struct_fields__):
            raise TypeError(
                "QoSSpec: by position there are seven values, delay to max_gap; the eighth is timeout in the package 0.23"
                " and cypher_s in the documentation: write timeout=... or cypher_s=..."
            )
        return super().__call__(*args, **kwargs)


class _Positional(msgspec.Struct, frozen=True, array_like=True, metaclass=_ByPosition):
    delay: int = MILLION
    bandwidth: int = 0
    availability: int = 0
    loss: int = MILLION
    ber: int = BILLION
    in_order: int = 0
    max_gap: int = MILLION


class QoSSpec(_Positional, frozen=True, array_like=True, kw_only=True):
    """The quality that is asked of a flow. Immutable; all values are whole numbers, of any type that is one.

    ============== ================================================================ =========
    parameter      meaning and unit                                                 default
    ============== ================================================================ =========
    delay          tolerable one-way delay, ms                                      1 000 000
    bandwidth      wanted bandwidth, bit/s                                          0
    availability   wanted availability, number of nines                             0
    loss           tolerable packet loss, ppm; 0 turns retransmission on            1 000 000
    ber            tolerable bit errors per 10^9 bits; 0 adds a CRC to each packet  10^9
    in_order       1 for in-order delivery, which enables FRCP                      0
    max_gap        longest tolerable interruption, ms                               1 000 000
    cypher_s       least encryption strength, bits; 0 asks for none                 0
    timeout        silence after which the peer counts as dead, ms; 0 for never     120 000
    ============== ================================================================ =========

    `cypher_s` and `timeout` are given by name only, the others also by position. `loss=0` alone means reliable *and* in
    order. `in_order` also takes a bool.

    Raises `TypeError` or `ValueError` naming the parameter when a value is no whole number or out of range.

    >>> QoSSpec(loss=0).reliable
    True
    >>> QoSSpec(availability=300)
    Traceback (most recent call last):
        ...
    ValueError: QoSSpec: availability must be from 0 to 255 (nines), not 300
    """

    cypher_s: int = 0
    timeout: int = DEFAULT_PEER_TIMEOUT

    def __post_init__(self) -> None:
        for value, largest in zip(msgspec.structs.astuple(self), _LARGEST, strict=True):
            if type(value) is not int or not 0 <= value <= largest:
                self._correct()
                return

    def _correct(self) -> None:
        """Make whole numbers of the values, or say which one cannot be."""
        for field, (largest, unit) in _LIMITS.items():
            value = getattr(self, field)
            if type(value) is not int:
                value = _whole(field, unit, value)
                msgspec.structs.force_setattr(self, field, value)
            if not 0 <= value <= largest:
                raise ValueError(f"QoSSpec: {field} must be from 0 to {largest} ({unit}), not {value}")

    @property
    def reliable(self) -> bool:
        """Whether every packet must arrive, which implies `ordered`."""
        return self.loss == 0

    @property
    def ordered(self) -> bool:
        """Whether packets must arrive in the order they were written."""
        return self.in_order != 0 or self.loss == 0

    @property
    def cube(self) -> str:
        """The QoS cube that the spec maps to: `"voice"`, `"video"` or `"best effort"`. First match wins."""
        if self.delay <= 50 and self.bandwidth <= 100_000 and self.availability >= 5 and self.max_gap <= 50:
            return "voice"
        if self.delay <= 100 and self.availability >= 3 and self.max_gap <= 100:
            return "video"
        return "best effort"


#: No promise at all: the default of `flow_alloc`.
QOS_RAW = QoSSpec()
#: No promise but that damaged packets are dropped.
QOS_RAW_NO_ERRORS = QoSSpec(ber=0)
#: In order, losses allowed.
QOS_BEST_EFFORT = QoSSpec(ber=0, in_order=1)
#: Moving pictures: in order, at most 100 ms late, three nines.
QOS_VIDEO = QoSSpec(delay=100, bandwidth=UINT64_MAX, availability=3, loss=1, ber=0, in_order=1, max_gap=100)
#: Speech: in order, at most 50 ms late, five nines, 100 kbit/s.
QOS_VOICE = QoSSpec(delay=50, bandwidth=100_000, availability=5, loss=1, ber=0, in_order=1, max_gap=50)
#: Files and messages: everything arrives, in order.
QOS_DATA = QoSSpec(delay=1000, loss=0, ber=0, in_order=1, max_gap=2000)

#: The specs by the words that the tools take for ``-q``.
NAMED_SPECS: dict[str, QoSSpec] = {
    "raw": QOS_RAW,
    "best": QOS_BEST_EFFORT,
    "video": QOS_VIDEO,
    "voice": QOS_VOICE,
    "data": QOS_DATA,
}


def check_qos(qos: QoSSpec | None) -> QoSSpec:
    """The argument `qos` of a call, None for raw. Raises `TypeError` for anything else."""
    if qos is None:
        return QOS_RAW
    if not isinstance(qos, QoSSpec):
        raise TypeError(f"qos is a QoSSpec such as QoSSpec(loss=0), not {shown(qos)}")
    return qos


__all__ = [
    "BILLION",
    "DEFAULT_PEER_TIMEOUT",
    "MILLION",
    "NAMED_SPECS",
    "QOS_BEST_EFFORT",
    "QOS_DATA",
    "QOS_RAW",
    "QOS_RAW_NO_ERRORS",
    "QOS_VIDEO",
    "QOS_VOICE",
    "UINT32_MAX",
    "QoSSpec",
    "check_qos",
]
