"""The table, the bars and the JSON file."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

from bench.bars import BARS, OURS, Verdict, judge
from bench.results import Figure, Results
from bench.rows import ROWS

#: Columns in the order of the table, with their headings.
COLUMNS = {
    "seqpacket": "SEQPACKET",
    "pipe": "multiprocessing",
    "zmq": "pyzmq ipc",
    "limit": "bare ring (limit)",
    "streams": "asyncio streams",
    "udp": "UDP sockets",
    "tcp": "TCP sockets",
    "tls": "ssl over TCP",
    "quic": "aioquic",
    "prototype": "C prototype",
    "ours": "ours",
}


def render(results: Results, machine: dict[str, Any], versions: dict[str, str], repetitions: int) -> str:
    """Return the whole report."""
    parts = [
        _machine_line(machine, versions),
        f"Medians of {repetitions} interleaved repetitions, [lowest-highest].",
        *(part for rows in _sections(results) for part in (_table(results, rows), _ratios(results, rows))),
        _skipped(results),
        "Bars\n" + "\n".join(f"  {verdict}" for verdict in verdicts(results)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def verdicts(results: Results) -> list[Verdict]:
    """Hold every bar against the results; bars of measures that did not run are left out."""
    measured = {ROWS[row].measure for row in results.rows()}
    return [judge(bar, results.median_of) for bar in BARS if ROWS[bar.value[0]].measure in measured]


def write_json(
    path: Path, results: Results, machine: dict[str, Any], versions: dict[str, str], repetitions: int
) -> None:
    """Write everything that was measured."""
    content = {
        "machine": machine,
        "versions": versions,
        "repetitions": repetitions,
        "rows": results.as_dict(list(COLUMNS)),
        "skipped": [
            {"measure": measure, "column": column, "reason": reason}
            for (measure, column), reason in results.skipped.items()
        ],
        "bars": [
            {"text": verdict.bar.text, "bound": verdict.bar.bound, "reached": verdict.reached, "met": verdict.met}
            for verdict in verdicts(results)
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def _machine_line(machine: dict[str, Any], versions: dict[str, str]) -> str:
    what = ", ".join(f"{COLUMNS[column]} {version}" for column, version in versions.items())
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['kernel']}, {machine['python']}, "
        f"load {machine['load']} at the start\n{what}"
    )


def _sections(results: Results) -> list[list[str]]:
    """The measured rows, by section."""
    return [list(rows) for _, rows in groupby(results.rows(), lambda row: ROWS[row].section)]


def _table(results: Results, rows: list[str]) -> str:
    columns = _measured(results, rows)

    def cells(row: str) -> list[str]:
        return [_cell(results.figure((row, column)), ROWS[row].unit) for column in columns]

    return f"{ROWS[rows[0]].section}\n\n" + _lay_out(rows, [COLUMNS[column] for column in columns], cells)


def _ratios(results: Results, rows: list[str]) -> str:
    """Ours over each peer: above 1 is better for a rate, below 1 for anything else."""
    rows = [row for row in rows if results.figure((row, OURS))]
    columns = [column for column in _measured(results, rows) if column != OURS]
    rows = [row for row in rows if any(results.figure((row, column)) for column in columns)]

    def cells(row: str) -> list[str]:
        return [_ratio(results.median_of((row, OURS)), results.median_of((row, column))) for column in columns]

    if not rows:
        return ""
    title = "Ours over each peer (rates: more than 1 is faster; all others: less than 1 is better)\n\n"
    return title + _lay_out(rows, [COLUMNS[column] for column in columns], cells)


def _measured(results: Results, rows: list[str]) -> list[str]:
    return [column for column in COLUMNS if any(results.figure((row, column)) for row in rows)]


def _lay_out(rows: list[str], headings: list[str], cells: Callable[[str], list[str]]) -> str:
    table = [["", *headings], *([ROWS[row].title, *cells(row)] for row in rows)]
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    lines = [_line(table[0], widths)]
    measure = ""
    for row, line in zip(rows, table[1:], strict=True):
        if measure and ROWS[row].measure != measure:
            lines.append("")
        measure = ROWS[row].measure
        lines.append(_line(line, widths))
    return "\n".join(lines)


def _line(cells: list[str], widths: list[int]) -> str:
    first = cells[0].ljust(widths[0])
    return "  ".join([first, *(cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))]).rstrip()


def _ratio(ours: float | None, other: float | None) -> str:
    return "-" if ours is None or not other else f"{ours / other:.3g}x"


def _cell(figure: Figure | None, unit: str) -> str:
    if figure is None:
        return "-"
    scale, prefix = _scale(figure.median, unit)
    low, middle, high = (f"{value / scale:.3g}" for value in (figure.low, figure.median, figure.high))
    return f"{middle} {prefix}{unit} [{low}-{high}]"


def _scale(value: float, unit: str) -> tuple[float, str]:
    if unit == "/s" and value >= 1e6:
        return 1e6, "M"
    if unit == "/s" and value >= 1e3:
        return 1e3, "k"
    return 1, ""


def _skipped(results: Results) -> str:
    if not results.skipped:
        return ""
    lines = [
        f"  {measure}, {COLUMNS.get(column, column)}: {reason}" for (measure, column), reason in results.skipped.items()
    ]
    return "Not measured\n" + "\n".join(lines)
