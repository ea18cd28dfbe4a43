"""What the crates say of themselves: the order in which their files are read, and what they may depend on."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "rust"
CRATES = sorted(path for path in ROOT.rglob("src/lib.rs") if "Read bottom to top: " in path.read_text())


def order(lib: Path) -> list[str]:
    """The modules of that sentence, the lowest first."""
    head = " ".join(line.removeprefix("//!").strip() for line in lib.read_text().splitlines() if line.startswith("//!"))
    sentence = head.split("Read bottom to top: ", 1)[1].split(". ")[0]
    return re.findall(r"`(\w+)`", sentence)


def uses(lib: Path, module: str) -> set[str]:
    """The modules of the crate that one refers to, with those below it."""
    files = [lib.with_name(f"{module}.rs"), *lib.with_name(module).glob("*.rs")]
    text = "".join(path.read_text() for path in files if path.exists())
    assert text, f"{lib}: there is no {module}"
    several = re.findall(r"\bcrate::\{([^}]*)\}", text)
    return set(re.findall(r"\bcrate::(\w+)", text)) | {word for words in several for word in re.findall(r"\w+", words)}


@pytest.mark.parametrize("lib", CRATES, ids=lambda lib: str(lib.parents[1].relative_to(ROOT)))
def test_a_module_refers_to_none_that_is_read_later(lib: Path) -> None:
    modules = order(lib)
    later = {module: uses(lib, module) & set(modules[place + 1 :]) for place, module in enumerate(modules)}
    assert not {module: names for module, names in later.items() if names}
    assert set(modules) == set(re.findall(r"^(?:pub )?mod (\w+);", lib.read_text(), re.MULTILINE))


def test_the_crates_that_say_so_are_found() -> None:
    assert {lib.parents[1].name for lib in CRATES} >= {"client", "dev", "frcp", "shm"}


@pytest.mark.parametrize(
    ("crate", "others"),
    [
        ("stack", {"ouroboros-crypto", "ouroboros-frcp", "ouroboros-wire"}),
        ("frcp", set()),
        ("wire", {"crc32fast"}),
    ],
)
def test_a_pure_crate_depends_on_nothing_that_does_more(crate: str, others: set[str]) -> None:
    manifest = tomllib.loads((ROOT / crate / "Cargo.toml").read_text())
    assert set(manifest.get("dependencies", {})) == others
    assert "#![forbid(unsafe_code)]" in (ROOT / crate / "src/lib.rs").read_text()


def test_comments_have_no_examples_to_run() -> None:
    """`make test` would not run them: it takes a while for each crate to find that there are none."""
    fence = re.compile(r"^\s*//[/!] ```(.*)$", re.MULTILINE)
    found = {path: fence.findall(path.read_text()) for path in ROOT.rglob("*.rs")}
    assert any(found.values())
    assert {path for path, fences in found.items() if fences != ["text", ""] * (len(fences) // 2)} == set()
