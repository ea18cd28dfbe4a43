"""What code, tests and documentation cite of the specification is there, in `docs/spec`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "docs" / "spec"
PAGES = sorted(path.stem for path in SPEC.glob("*.md") if path.stem != "index")
CITING = sorted(
    path
    for folder in ("src", "rust", "tests", "fuzz", "bench", "examples", "docs")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".pyi", ".rs", ".c", ".h", ".md") and not path.is_relative_to(SPEC)
    if "_build" not in path.parts and "target" not in path.parts
)

#: One section: "6.2", "8", "A", "15.B1".
_SECTION = r"(?:\d+(?:\.\d+)*|[A-Z](?=\W))"
#: "`flows.md` 6.2", "`flows.md` 5.2, 5.3 and 7".
_CITATION = re.compile(rf"`({'|'.join(PAGES)})\.md`,? ((?:sections? )?{_SECTION}(?:(?:, | and | to ){_SECTION})*)")
#: Numbered faults and vectors: the letter, and the page that numbers them. "B12" in a test is one of them.
_LABELS = {
    "B": "flows",
    "P": "flows",
    "F": "frcp",
    "G": "frcp",
    "H": "frcp",
    "U": "unicast-data",
    "N": "unicast-control",
}
_LABEL = re.compile(rf"(?:\(|\"|^|, |/// |: |- ?)([{''.join(_LABELS)}]\d{{1,2}})(?=[),:.\"\s]|$)")


@cache
def sections(page: str) -> set[str]:
    """The numbers of the sections of a page."""
    headings = re.findall(r"^#+ (?:Appendix )?([\dA-Z.]+?)\.? ", (SPEC / f"{page}.md").read_text(), re.MULTILINE)
    return set(headings)


@cache
def labels(page: str) -> set[str]:
    """The numbers of what a page lists in tables."""
    return set(re.findall(r"^\| \**([A-Z]\d+)\b", (SPEC / f"{page}.md").read_text(), re.MULTILINE))


def cited(text: str) -> Iterator[tuple[str, str]]:
    """Pages and sections."""
    for page, numbers in _CITATION.findall(text):
        for number in re.findall(_SECTION, numbers + " "):
            yield page, number


def test_the_pages_are_there_with_their_sections() -> None:
    assert PAGES == ["flows", "frcp", "irm", "security", "shims", "unicast-control", "unicast-data"]
    assert "6.2" in sections("flows")
    assert "A" in sections("flows")
    assert "2.10" not in sections("flows")
    assert "B1" in labels("flows")


def test_citations_are_found_in_text() -> None:
    text = "as `flows.md` 5.2, 5.3 and 7 has it (`irm.md` 1.2). See `flows.md`, and `frcp.md` F9."
    assert list(cited(text)) == [("flows", "5.2"), ("flows", "5.3"), ("flows", "7"), ("irm", "1.2")]


def test_citations_lead_to_a_section() -> None:
    found = [(path, page, number) for path in CITING for page, number in cited(path.read_text())]
    missing = [
        f"{path.relative_to(ROOT)}: `{page}.md` {number}"
        for path, page, number in found
        if number not in sections(page)
    ]
    assert not missing
    assert len(found) > 40, "citations are not found any more"


def test_numbers_of_faults_are_those_of_the_specification() -> None:
    found = [
        (path, label) for path in CITING for line in path.read_text().splitlines() for label in _LABEL.findall(line)
    ]
    missing = [f"{path.relative_to(ROOT)}: {label}" for path, label in found if label not in labels(_LABELS[label[0]])]
    assert not missing
    assert len(found) > 50, "they are not found any more"
