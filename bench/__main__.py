"""`python -m bench`: measure, print the table, write the JSON file."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.harness import ROOT
from bench.measures import MEASURES
from bench.proc import machine
from bench.report import COLUMNS, render, write_json
from bench.run import Run


def main() -> None:
    """Run the measures that were asked for."""
    options = _options()
    about = machine()
    run = Run(options.quick)
    run.probe()
    for name in options.only or MEASURES:
        MEASURES[name](run)
    versions = {column: run.probes[column].version for column in COLUMNS if column in run.probes}
    print(render(run.results, about, versions, run.repetitions))
    write_json(options.json, run.results, about, versions, run.repetitions)
    print(f"Everything, samples included: {options.json}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 short repetitions instead of 5: a smoke test")
    parser.add_argument("--only", action="append", choices=list(MEASURES), help="measure this; may be repeated")
    default = ROOT / "bench" / "results" / "local.json"
    parser.add_argument("--json", type=Path, default=default, help="where to write every sample (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
