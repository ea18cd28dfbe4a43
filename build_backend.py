"""Builds the package as maturin does, and the C libraries that `ouroboros cdev` installs with it (PEP 517).

`python build_backend.py` builds only those libraries, for a package that is installed in place.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import maturin
from maturin import (
    build_editable,
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

ROOT = Path(__file__).parent
LIBRARIES = ROOT / "src/ouroboros/cdev/lib"


def build_wheel(wheel_directory: str, *arguments: Any, **options: Any) -> str:  # noqa: ANN401
    """The hook of the same name."""
    # A source distribution has only the crates of the engine.
    if (ROOT / "rust/capi").is_dir():
        build_c_libraries()
    name: str = maturin.build_wheel(wheel_directory, *arguments, **options)
    return name


def build_c_libraries() -> None:
    """The two of them, in the place from which a wheel takes them."""
    build = "cargo build --release --locked --target-dir target -p ouroboros-capi-dev -p ouroboros-capi-irm"
    subprocess.run(build.split(), cwd=ROOT, check=True)
    LIBRARIES.mkdir(exist_ok=True)
    for name in ("dev", "irm"):
        # Not over the old one: programs that run may have it mapped.
        target = LIBRARIES / f"libouroboros-{name}.so"
        target.unlink(missing_ok=True)
        shutil.copy(ROOT / f"target/release/libouroboros_{name}.so", target)


if __name__ == "__main__":
    build_c_libraries()

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]
