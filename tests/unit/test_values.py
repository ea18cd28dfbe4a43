"""Values that programs give: what is taken, as what, and what is refused."""

from __future__ import annotations

import array
import ctypes
import enum
import math
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

from ouroboros._values import copy_into, packet_view, plain_text, target_view, time_limit, whole_number
from ouroboros.irm import DhtConfig
from ouroboros.qos import QoSSpec
from ouroboros.wire.control import CreateName, DestroyIpcp, ListNames, decode_request, encode


class Whole:
    """A whole number of a type that is not Python's."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


class TextOfNumber(str):
    """As the texts of numpy: it has a number in it, and is none."""

    def __float__(self) -> float:
        return float(str(self))


class Number(enum.IntEnum):
    SEVEN = 7


class Text(str):
    def __str__(self) -> str:
        return "another text"


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (0, 0.0),
        (-0.0, 0.0),
        (1.5, 1.5),
        (Number.SEVEN, 7.0),
        (Whole(3), 3.0),
        (Decimal("0.25"), 0.25),
        (Fraction(1, 4), 0.25),
        (1e9, 1e9),
        (1.1e9, None),
        (math.inf, None),
        (10**400, None),
        (Decimal("inf"), None),
        (Fraction(10**400), None),
        (Whole(10**400), None),
    ],
)
def test_a_time_limit_is_any_real_number_from_0(given: Any, seconds: float | None) -> None:
    found = time_limit(given, 20.0)
    assert found == seconds
    assert type(found) is type(seconds)
    assert found is None or math.copysign(1, found) == 1


def test_no_time_limit_is_the_default() -> None:
    assert (time_limit(None), time_limit(None, 20.0)) == (None, 20.0)


@pytest.mark.parametrize(
    "given", [-1, -1e-9, -math.inf, math.nan, -(10**400), Decimal(-1), Decimal("nan"), Decimal("snan"), Whole(-1)]
)
def test_a_time_limit_below_0_is_refused_and_so_is_one_that_is_no_number(given: Any) -> None:
    with pytest.raises(ValueError, match="timeout is a number of seconds from 0"):
        time_limit(given)


@pytest.mark.parametrize("given", ["1", b"1", TextOfNumber("1"), [], 1j, True, object(), int])
def test_a_time_limit_of_another_type_is_refused_with_its_type(given: Any) -> None:
    with pytest.raises(TypeError, match=rf"timeout is a number.*\({type(given).__name__}\)"):
        time_limit(given)


@pytest.mark.parametrize("given", [5, Whole(5), Number.SEVEN, 10**400])
def test_a_whole_number_becomes_a_plain_int(given: Any) -> None:
    number = whole_number(given)
    assert type(number) is int
    assert number == given.__index__()


@pytest.mark.parametrize("given", [5.0, "5", None, True, Decimal(5), Fraction(5), math.nan])
def test_what_is_no_whole_number_is_refused_with_its_type(given: Any) -> None:
    with pytest.raises(TypeError, match=rf"\({type(given).__name__}\) is not a whole number"):
        whole_number(given)


def test_a_qos_takes_whole_numbers_of_any_type_and_keeps_plain_ones() -> None:
    qos = QoSSpec(delay=Whole(7), loss=Number.SEVEN, in_order=True)  # type: ignore[arg-type]
    assert qos == QoSSpec(delay=7, loss=7, in_order=1)
    assert {type(qos.delay), type(qos.loss), type(qos.in_order)} == {int}
    for wrong in (7.0, Decimal(7), Fraction(7), True, math.nan, math.inf):
        with pytest.raises(
            TypeError, match=rf"QoSSpec: delay must be a whole number \(ms\).*\({type(wrong).__name__}\)"
        ):
            QoSSpec(delay=wrong)  # type: ignore[arg-type]
    for out in (-1, 10**400, Whole(-1)):
        with pytest.raises(ValueError, match="QoSSpec: delay must be from 0"):
            QoSSpec(delay=out)  # type: ignore[arg-type]


def test_texts_and_numbers_go_into_messages_whatever_their_type() -> None:
    for message, plain in (
        (CreateName(Text("echo"), "spillover"), CreateName("echo", "spillover")),
        (DestroyIpcp(Whole(7)), DestroyIpcp(7)),  # type: ignore[arg-type]
    ):
        assert encode(message) == encode(plain)
    assert decode_request(encode(ListNames())[4:]) == ListNames()
    with pytest.raises(TypeError, match="not a whole number"):
        encode(DestroyIpcp(object()))  # type: ignore[arg-type]


def test_settings_keep_plain_numbers() -> None:
    assert DhtConfig(k=Whole(16)).k == 16  # type: ignore[arg-type]


def test_plain_text_is_that_of_the_object_whatever_its_class_shows() -> None:
    class Mixed(str, enum.Enum):  # noqa: UP042 - it is the one that programs have had since 3.4
        ECHO = "echo"

    for each in (Text("echo"), Mixed.ECHO):
        assert type(plain_text(each)) is str
        assert plain_text(each) == "echo"


def test_what_is_copied_into_a_buffer_fits_it_whatever_its_format() -> None:
    for target in (
        bytearray(4),
        array.array("i", [0]),
        (ctypes.c_int * 1)(),
        ctypes.c_int(),
        memoryview(bytearray(4)).cast("B", (2, 2)),
    ):
        assert copy_into(target, b"abcdef") == 4
        assert bytes(memoryview(target).tobytes()) == b"abcd"
        assert target_view(target).nbytes == packet_view(target).nbytes == 4
    assert copy_into(bytearray(), b"abc") == 0


def test_numbers_of_numpy_are_taken() -> None:
    numpy = pytest.importorskip("numpy")
    assert time_limit(numpy.float32(0.5)) == 0.5
    assert time_limit(numpy.int64(2)) == 2.0
    assert type(whole_number(numpy.uint8(7))) is int
    assert plain_text(numpy.str_("echo")) == "echo"
    assert packet_view(numpy.float64(1.0)).nbytes == 8
    assert packet_view(numpy.array(1.0)).nbytes == 8
    for no_number in (numpy.str_("1"), numpy.bytes_(b"1"), numpy.bool_(True), numpy.complex128(1)):
        with pytest.raises(TypeError, match="timeout is a number"):
            time_limit(no_number)
