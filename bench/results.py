"""The samples of a run, the figures made of them, and what could not be measured."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.bars import Cell
from bench.rows import ROWS


@dataclass(frozen=True, slots=True)
class Figure:
    median: float
    low: float
    high: float
    samples: list[float]

    def as_dict(self) -> dict[str, Any]:
        return {"median": self.median, "min": self.low, "max": self.high, "samples": self.samples}


class Results:
    """Samples by row and column."""

    def __init__(self) -> None:
        self._samples: defaultdict[Cell, list[float]] = defaultdict(list)
        #: Why something is missing: (measure, column) -> reasons.
        self.skipped: dict[tuple[str, str], str] = {}

    def add(self, row: str, column: str, value: float) -> None:
        if row not in ROWS:
            raise KeyError(f"no row {row}")
        self._samples[row, column].append(value)

    def skip(self, measure: str, column: str, reason: str) -> None:
        self.skipped.setdefault((measure, column), reason)

    def is_skipped(self, measure: str, column: str) -> bool:
        return (measure, column) in self.skipped

    def figure(self, cell: Cell) -> Figure | None:
        """Return the figure of a cell, None when it was not measured."""
        samples = self._samples.get(cell)
        return Figure(median(samples), min(samples), max(samples), samples) if samples else None

    def median_of(self, cell: Cell) -> float | None:
        figure = self.figure(cell)
        return None if figure is None else figure.median

    def rows(self) -> list[str]:
        """Return the rows that have a figure, in the order of the table."""
        measured = {row for row, _ in self._samples}
        return [row for row in ROWS if row in measured]

    def as_dict(self, columns: list[str]) -> dict[str, Any]:
        """Return everything, for JSON."""
        return {
            row: {
                "title": ROWS[row].title,
                "measure": ROWS[row].measure,
                "unit": ROWS[row].unit,
                "columns": {
                    column: figure.as_dict() for column in columns if (figure := self.figure((row, column))) is not None
                },
            }
            for row in self.rows()
        }
