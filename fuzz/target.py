"""What the fuzz targets in Python share."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[1]


def run(name: str, include: list[str]) -> None:
    """Fuzz `attack` of the module `<name>_attack` of the tests, which begins with its `seeds`. `include`: packages in which
    the fuzzer sees what is reached. New inputs are kept in `fuzz/corpus/<name>`, or in the folder that is named behind the
    options, which are those of libFuzzer."""
    sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
    with atheris.instrument_imports(include=include):
        target = importlib.import_module(f"{name}_attack")
    folders = [Path(word) for word in sys.argv[1:] if not word.startswith("-")]
    if not folders:
        folders = [ROOT / "fuzz/corpus" / name]
        sys.argv.append(str(folders[0]))
    folders[0].mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (folders[0] / f"captured-{number:03}").write_bytes(seed)
    atheris.Setup(sys.argv, target.attack)
    atheris.Fuzz()
