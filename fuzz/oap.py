"""Requests and responses of the handshake, and the datagrams that carry them, from anybody.

`pip install atheris`, then `python fuzz/oap.py -max_total_time=60`; the options are those of libFuzzer. The corpus begins
with captured messages; new inputs are kept in the directory `fuzz/corpus/oap`, or in one that is named behind the options.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

with atheris.instrument_imports(include=["ouroboros.oap", "ouroboros.wire"]):
    import oap_attack


def main() -> None:
    folders = [Path(word) for word in sys.argv[1:] if not word.startswith("-")]
    if not folders:
        folders = [ROOT / "fuzz/corpus/oap"]
        sys.argv.append(str(folders[0]))
    folders[0].mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(oap_attack.seeds()):
        (folders[0] / f"captured-{number:03}").write_bytes(seed)
    atheris.Setup(sys.argv, oap_attack.attack)
    atheris.Fuzz()


main()
