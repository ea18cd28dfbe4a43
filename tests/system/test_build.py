"""What somebody is told who installs the package without all that its build needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOOKS = [
    "get_requires_for_build_wheel",
    "get_requires_for_build_editable",
    "prepare_metadata_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "build_wheel",
    "build_editable",
]
WITHOUT_LINKER = ["get_requires_for_build_sdist", "build_sdist"]


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """The only directory on PATH, with a Rust that will do and a C compiler that works."""
    folder = tmp_path / "bin"
    folder.mkdir()
    add(folder, "cargo", "echo 'cargo 1.88.0 (873a06493 2025-05-10)'")
    add(folder, "rustc", "echo 'rustc 1.88.0 (6b00bc388 2025-06-23)'")
    add(folder, "cc", "exit 0")
    return folder


def add(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def call(tools: Path, hook: str = "check_tools", **environment: str) -> tuple[int, str]:
    """Exit status of a hook, and all that it said."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import build_backend; build_backend.{hook}()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": str(tools), "HOME": str(tools.parent), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def told(tools: Path, **environment: str) -> str:
    """What is said, which is one sentence with its remedy."""
    status, text = call(tools, **environment)
    assert status == 1
    assert text.startswith("PyOuroboros cannot be built: ")
    assert len(text.splitlines()) == 1
    return text


RUSTUP = "Install Rust 1.88 or later by https://rustup.rs; most distributions have an older one."


def test_with_all_that_is_needed_nothing_is_said(tools: Path) -> None:
    assert call(tools) == (0, "")


@pytest.mark.parametrize("tool", ["cargo", "rustc"])
def test_without_rust_the_sentence_says_where_it_comes_from(tools: Path, tool: str) -> None:
    (tools / tool).unlink()
    assert told(tools) == f"PyOuroboros cannot be built: there is no {tool} on PATH. {RUSTUP}\n"


@pytest.mark.parametrize("tool", ["cargo", "rustc"])
@pytest.mark.parametrize("version", ["1.63.0", "1.87.1", "0.99.0"])
def test_a_rust_that_is_too_old_is_named(tools: Path, tool: str, version: str) -> None:
    add(tools, tool, f"echo '{tool} {version}'")
    assert told(tools) == (
        f"PyOuroboros cannot be built: {tools / tool} is {tool} {version}, which is too old. {RUSTUP}\n"
    )


@pytest.mark.parametrize("version", ["1.88.0", "1.100.0-nightly (abc 2027-01-01)", "2.0.0"])
def test_a_rust_that_is_new_enough_will_do(tools: Path, version: str) -> None:
    add(tools, "cargo", f"echo 'cargo {version}'")
    assert call(tools) == (0, "")


def test_a_rust_that_does_not_run_says_why(tools: Path) -> None:
    add(tools, "cargo", "echo 'error: no default toolchain is configured' >&2; exit 1")
    add(tools, "rustup", "exit 0")
    text = told(tools)
    assert "cargo does not run (error: no default toolchain is configured)" in text
    assert "`rustup default stable && rustup update stable`" in text
    (tools / "cargo").write_text("#!/no/such/interpreter\n")
    assert "cargo does not run (No such file or directory)" in told(tools)


def test_a_rust_that_is_not_on_path_is_pointed_out(tools: Path) -> None:
    place = tools.parent / ".cargo/bin"
    place.mkdir(parents=True)
    (tools / "cargo").rename(place / "cargo")
    assert f"There is one in {place}: `export PATH={place}:$PATH`" in told(tools)


def test_without_a_c_compiler_the_sentence_says_what_to_install(tools: Path) -> None:
    (tools / "cc").unlink()
    text = told(tools)
    assert "there is no C compiler (cc) on PATH" in text
    assert "`apt install gcc libc6-dev`" in text
    add(tools, "mycc", "exit 0")
    assert call(tools, CC="mycc --wrapped") == (0, "")


def test_a_c_compiler_without_a_c_library_is_told_apart(tools: Path) -> None:
    add(tools, "cc", "echo 'trial.c:1:10: fatal error: stdlib.h: No such file or directory' >&2; exit 1")
    assert "cc cannot make a program (trial.c:1:10: fatal error: stdlib.h: No such file or directory)" in told(tools)


@pytest.mark.parametrize("hook", [*HOOKS, *WITHOUT_LINKER])
def test_every_hook_looks_first(tools: Path, hook: str) -> None:
    (tools / "cargo").unlink()
    status, text = call(tools, hook)
    assert (status, text.count("\n")) == (1, 1)
    assert "there is no cargo on PATH" in text


@pytest.mark.parametrize("hook", HOOKS)
def test_a_source_distribution_alone_needs_no_linker(tools: Path, hook: str) -> None:
    (tools / "cc").unlink()
    assert "there is no C compiler" in call(tools, hook)[1]
    assert call(tools, "get_requires_for_build_sdist") == (0, "")


def test_this_machine_has_what_it_needs(tmp_path: Path) -> None:
    assert call(Path(os.environ["PATH"]), HOME=os.environ["HOME"]) == (0, "")


@pytest.mark.slow
def test_pip_shows_the_sentence_and_no_traceback(tools: Path) -> None:
    (tools / "cargo").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--no-index", "--dry-run", "."],
        cwd=ROOT,
        env={"PATH": str(tools), "HOME": str(tools.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert RUSTUP in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
