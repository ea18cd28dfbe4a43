"""The table of what the specification says about flows, and the tests of it, hold together."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from . import test_flow_flags as flags
from .rows import COMPLETE, ELSEWHERE, ROWS, Row

ROOT = Path(__file__).parents[2]
ALL = [pytest.param(row, id=f"{section}-{name}") for section, rows in ROWS.items() for name, row in rows.items()]
#: How a test says which section it is for.
CITED = re.compile(r"`flows\.md` (\d+(?:\.\d+)?)((?:(?:, | and )\d+(?:\.\d+)?)*)")


@cache
def known_tests(path: str) -> dict[str, str]:
    """The tests of a file, in Python or Rust, `Class::name` or `name`, with their docstrings."""
    source = (ROOT / path).read_text()
    if path.endswith(".rs"):
        return dict.fromkeys(re.findall(r"#\[test\]\s+fn (\w+)", source), "")
    found: dict[str, str] = {}

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
                visit(node.body, f"{node.name}::")
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found[prefix + node.name] = ast.get_docstring(node) or ""

    visit(ast.parse(source).body, "")
    return found


@pytest.mark.parametrize("row", ALL)
def test_a_row_has_tests_that_exist_or_a_reason(row: Row) -> None:
    assert bool(row.tests) != (row.reason is not None)
    assert len(set(row.tests)) == len(row.tests)
    for test in row.tests:
        path, _, name = test.partition("::")
        assert name in known_tests(path), f"there is no test {test}"


@pytest.mark.parametrize("section", COMPLETE)
def test_no_row_of_a_numbered_table_is_left_out(section: str) -> None:
    assert set(COMPLETE[section]) <= set(ROWS[section])


def test_every_section_is_either_here_or_elsewhere() -> None:
    # The sections with statements about flows; 12 and 15 are the defects.
    sections = (
        "1 2.1 2.2 2.3 2.4 2.5 3.1 3.2 3.3 3.4 4.1 4.2 4.3 4.4 4.5 5.1 5.2 5.3 5.4 5.5 6.1 6.2 6.3 6.4 7.1 7.2 7.3 7.4"
    )
    assert {*sections.split(), "8", "9", "10", "11", "12", "13", "14", "15", "A"} == ROWS.keys() | ELSEWHERE.keys()
    assert not ROWS.keys() & ELSEWHERE.keys()


@pytest.mark.parametrize(
    "path", sorted(str(path.relative_to(ROOT)) for path in Path(__file__).parent.glob("test_*.py"))
)
def test_a_test_that_cites_a_section_is_listed_there(path: str) -> None:
    for name, text in known_tests(path).items():
        for cited in CITED.finditer(text):
            for section in re.findall(r"\d+(?:\.\d+)?", cited[0].removeprefix("`flows.md`")):
                listed = {test for row in ROWS[section].values() for test in row.tests}
                assert f"{path}::{name}" in listed, f"{name} is for section {section}, which does not list it"


@pytest.mark.parametrize(
    ("section", "names"),
    [
        ("6.2", [name for name, *_ in flags.VALUES]),
        ("6.2", [name for name, *_ in flags.EFFECTS if name != "down-read-only"]),
        ("4.1", [name for name, *_ in flags.INITIAL if not name.startswith("named-")]),
    ],
    ids=["values", "effects", "initial"],
)
def test_rows_that_tests_are_named_after_are_listed(section: str, names: list[str]) -> None:
    assert set(names) <= ROWS[section].keys()


def test_nothing_is_listed_that_a_test_cannot_be_found_for() -> None:
    """Of the suite of flows itself, each test stands for a row."""
    listed = {test for rows in ROWS.values() for row in rows.values() for test in row.tests}
    path = "tests/conformance/test_flow_flags.py"
    assert {f"{path}::{name}" for name in known_tests(path)} <= listed
