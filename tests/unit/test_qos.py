"""The nine parameters of a QoSSpec: defaults, units, limits, cubes, and the specs with a name."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable

import msgspec
import pytest

from ouroboros.qos import (
    BILLION,
    MILLION,
    NAMED_SPECS,
    QOS_BEST_EFFORT,
    QOS_DATA,
    QOS_RAW,
    QOS_RAW_NO_ERRORS,
    QOS_VIDEO,
    QOS_VOICE,
    QoSSpec,
)

LARGEST = {
    "delay": 2**32 - 1,
    "bandwidth": 2**64 - 1,
    "availability": 255,
    "loss": 2**32 - 1,
    "ber": 2**32 - 1,
    "in_order": 1,
    "max_gap": 2**32 - 1,
    "cypher_s": 65535,
    "timeout": 2**32 - 1,
}


def test_defaults_are_those_of_the_documentation() -> None:
    assert msgspec.structs.asdict(QoSSpec()) == {
        "delay": 1_000_000,
        "bandwidth": 0,
        "availability": 0,
        "loss": 1_000_000,
        "ber": 1_000_000_000,
        "in_order": 0,
        "max_gap": 1_000_000,
        "cypher_s": 0,
        "timeout": 120_000,
    }


def test_the_documented_table_of_defaults_is_true() -> None:
    rows = [re.split(r"\s{2,}", line.strip()) for line in (QoSSpec.__doc__ or "").splitlines()]
    documented = {row[0]: row[-1].replace(" ", "").replace("10^9", str(BILLION)) for row in rows if row[0] in LARGEST}
    assert documented == {field: str(value) for field, value in msgspec.structs.asdict(QoSSpec()).items()}


def test_million_and_billion_are_what_they_say() -> None:
    assert (MILLION, BILLION) == (10**6, 10**9)


@pytest.mark.parametrize("field", LARGEST)
def test_a_field_takes_zero_and_its_largest_value(field: str) -> None:
    assert getattr(QoSSpec(**{field: 0}), field) == 0
    assert getattr(QoSSpec(**{field: LARGEST[field]}), field) == LARGEST[field]


@pytest.mark.parametrize("field", LARGEST)
@pytest.mark.parametrize("over", [True, False], ids=["too large", "negative"])
def test_a_value_out_of_range_is_refused_by_the_name_of_its_field(field: str, over: bool) -> None:
    value = LARGEST[field] + 1 if over else -1
    with pytest.raises(ValueError, match=rf"QoSSpec: {field} must be from 0 to {LARGEST[field]} .*, not {value}$"):
        QoSSpec(**{field: value})


@pytest.mark.parametrize("field", LARGEST)
@pytest.mark.parametrize("value", [1.0, "1", None, b"1"], ids=repr)
def test_what_is_no_whole_number_is_refused_by_the_name_of_its_field(field: str, value: object) -> None:
    with pytest.raises(TypeError, match=rf"QoSSpec: {field} must be a whole number"):
        QoSSpec(**{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("field", [field for field in LARGEST if field != "in_order"])
def test_a_bool_is_no_number_of_anything_but_in_order(field: str) -> None:
    with pytest.raises(TypeError, match=field):
        QoSSpec(**{field: True})


def test_in_order_given_as_a_bool_becomes_a_number() -> None:
    spec = QoSSpec(in_order=True)
    assert type(spec.in_order) is int
    assert spec == QoSSpec(in_order=1)
    assert QoSSpec(in_order=False) == QoSSpec()


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        QoSSpec().delay = 1  # type: ignore[misc]


def test_equal_specs_have_equal_hashes() -> None:
    assert {QoSSpec(loss=0), QoSSpec(loss=0), QoSSpec()} == {QoSSpec(), QoSSpec(loss=0)}


@pytest.mark.parametrize(
    ("spec", "reliable", "ordered"),
    [
        (QoSSpec(), False, False),
        (QoSSpec(in_order=1), False, True),
        (QoSSpec(loss=0), True, True),
        (QoSSpec(loss=0, in_order=1), True, True),
        (QoSSpec(loss=1), False, False),
    ],
)
def test_no_loss_alone_means_reliable_and_in_order(spec: QoSSpec, reliable: bool, ordered: bool) -> None:
    assert (spec.reliable, spec.ordered) == (reliable, ordered)


# `flows.md` 4.3: first match wins, and all four conditions of a row must hold.
@pytest.mark.parametrize(
    ("delay", "bandwidth", "availability", "max_gap", "cube"),
    [
        (50, 100_000, 5, 50, "voice"),
        (50, 100_001, 5, 50, "video"),
        (51, 0, 5, 50, "video"),
        (50, 100_000, 4, 50, "video"),
        (50, 100_000, 5, 51, "video"),
        (0, 0, 255, 0, "voice"),
        (100, 2**64 - 1, 3, 100, "video"),
        (101, 0, 3, 100, "best effort"),
        (100, 0, 2, 100, "best effort"),
        (100, 0, 3, 101, "best effort"),
        (0, 0, 0, 0, "best effort"),
    ],
)
def test_cubes_at_their_boundaries(delay: int, bandwidth: int, availability: int, max_gap: int, cube: str) -> None:
    assert QoSSpec(delay=delay, bandwidth=bandwidth, availability=availability, max_gap=max_gap).cube == cube


def test_what_has_no_part_in_the_cube_does_not_change_it() -> None:
    spec = QoSSpec(delay=50, bandwidth=100_000, availability=5, max_gap=50, loss=0, ber=0, in_order=1, timeout=0)
    assert spec.cube == "voice"


@pytest.mark.parametrize(
    ("spec", "cube"),
    [
        (QOS_RAW, "best effort"),
        (QOS_RAW_NO_ERRORS, "best effort"),
        (QOS_BEST_EFFORT, "best effort"),
        (QOS_VIDEO, "video"),
        (QOS_VOICE, "voice"),
        (QOS_DATA, "best effort"),
    ],
)
def test_the_named_specs_fall_into_their_cubes(spec: QoSSpec, cube: str) -> None:
    assert spec.cube == cube


def test_the_named_specs_are_those_of_the_prototype() -> None:
    def sizes(spec: QoSSpec) -> tuple[int, int, int, bool, bool, int]:
        return spec.delay, spec.bandwidth, spec.availability, spec.loss == 0, spec.ber == 0, spec.in_order

    assert sizes(QOS_RAW) == (MILLION, 0, 0, False, False, 0)
    assert sizes(QOS_RAW_NO_ERRORS) == (MILLION, 0, 0, False, True, 0)
    assert sizes(QOS_BEST_EFFORT) == (MILLION, 0, 0, False, True, 1)
    assert sizes(QOS_VIDEO) == (100, 2**64 - 1, 3, False, True, 1)
    assert sizes(QOS_VOICE) == (50, 100_000, 5, False, True, 1)
    assert sizes(QOS_DATA) == (1000, 0, 0, True, True, 1)
    assert QOS_DATA.max_gap == 2000
    assert {spec.timeout for spec in NAMED_SPECS.values()} == {120_000}


def test_tools_find_the_specs_by_their_words() -> None:
    assert NAMED_SPECS == {
        "raw": QOS_RAW,
        "best": QOS_BEST_EFFORT,
        "video": QOS_VIDEO,
        "voice": QOS_VOICE,
        "data": QOS_DATA,
    }


def test_a_spec_from_an_older_message_gets_defaults_for_what_it_lacks() -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode([7]), type=QoSSpec) == QoSSpec(delay=7)


def test_seven_values_can_be_given_by_position() -> None:
    spec = QoSSpec(1, 2, 3, 4, 5, 1, 7, timeout=8, cypher_s=9)
    assert list(msgspec.structs.asdict(spec).values()) == [1, 2, 3, 4, 5, 1, 7, 9, 8]
    assert msgspec.msgpack.encode(spec) == msgspec.msgpack.encode([1, 2, 3, 4, 5, 1, 7, 9, 8])


@pytest.mark.parametrize("rest", [[5000], [0, 5000], [0, 0, 0]])
def test_by_position_the_eighth_is_refused_since_versions_differ_in_it(rest: list[int]) -> None:
    with pytest.raises(
        TypeError, match=r"the eighth is timeout in the package 0\.23 and cypher_s in .*: write timeout="
    ):
        QoSSpec(100, 0, 0, 0, 1, 1, 100, *rest)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda spec: pickle.loads(pickle.dumps(spec))])
def test_a_copy_is_equal(copied: Callable[[QoSSpec], QoSSpec]) -> None:
    assert copied(QoSSpec(loss=0, cypher_s=256, timeout=5)) == QoSSpec(loss=0, cypher_s=256, timeout=5)


@pytest.mark.parametrize("values", [[-1], [0, 0, 256], [0, 0, 0, 0, 0, True], ["0"], [1.5]], ids=repr)
def test_a_bad_spec_from_a_message_is_refused(values: list[object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(values), type=QoSSpec)
