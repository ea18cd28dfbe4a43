"""Graphs by name: what a shape makes of its numbers. Nodes are numbers from 0; edges have the lower one first."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence

from ouroboros.lab.errors import DescriptionError

Edge = tuple[int, int]
#: More nodes than anybody has memory for.
MOST = 10_000


def line(count: int) -> list[Edge]:
    return list(itertools.pairwise(range(count)))


def ring(count: int) -> list[Edge]:
    return [*line(count), (0, count - 1)]


def star(count: int) -> list[Edge]:
    """Node 0 in the middle."""
    return [(0, each) for each in range(1, count)]


def full(count: int) -> list[Edge]:
    return list(itertools.combinations(range(count), 2))


def grid(width: int, height: int) -> list[Edge]:
    """By rows. Inner nodes have degree 4."""
    numbers = range(width * height)
    across = [(each, each + 1) for each in numbers if (each + 1) % width]
    return sorted([*across, *((each, each + width) for each in numbers if each + width < width * height)])


def tree(depth: int, fan: int) -> list[Edge]:
    """Node 0 is the root; each node above the lowest level has `fan` children."""
    count = sum(fan**level for level in range(depth + 1))
    return [((each - 1) // fan, each) for each in range(1, count)]


def random_graph(count: int, degree: int, seed: int) -> list[Edge]:
    """Connected, with `degree` edges at a node on average: a tree by chance, and more edges by chance."""
    chance = random.Random(f"{count} {degree} {seed}")
    edges = {(chance.randrange(each), each) for each in range(1, count)}
    while len(edges) < min(count * degree // 2, count * (count - 1) // 2):
        one, other = sorted(chance.sample(range(count), 2))
        edges.add((one, other))
    return sorted(edges)


def _count(make: Callable[[int], list[Edge]], least: int) -> Callable[[Sequence[int]], tuple[int, list[Edge]]]:
    def edges(numbers: Sequence[int]) -> tuple[int, list[Edge]]:
        (count,) = numbers
        if count < least:
            raise DescriptionError(f"{least} nodes at least", word=str(count))
        return _bounded(count), make(count)

    return edges


def _grid(numbers: Sequence[int]) -> tuple[int, list[Edge]]:
    width, height = numbers
    if not width or not height:
        raise DescriptionError("1x1 at least", word=f"{width}x{height}")
    return _bounded(width * height), grid(width, height)


def _tree(numbers: Sequence[int]) -> tuple[int, list[Edge]]:
    depth, fan = numbers
    if not fan:
        raise DescriptionError("1 child at least", word=f"{depth}^{fan}")
    if depth > MOST:
        raise DescriptionError(f"{MOST} levels at most", word=f"{depth}^{fan}")
    count = 0
    for level in range(depth + 1):
        count = _bounded(count + fan**level)
    return count, tree(depth, fan)


def _random(numbers: Sequence[int]) -> tuple[int, list[Edge]]:
    count, degree, seed = (*numbers, *(3, 0)[len(numbers) - 1 :])
    if count < 1 or degree < 1:
        raise DescriptionError("1 node and degree 1 at least", word=f"{count}/{degree}")
    return _bounded(count), random_graph(count, min(degree, count), seed)


def _bounded(count: int) -> int:
    if count > MOST:
        raise DescriptionError(f"{MOST} nodes at most", word=str(count))
    return count


#: By name: how its numbers are written, and what makes it of them.
SHAPES: dict[str, tuple[str, Callable[[Sequence[int]], tuple[int, list[Edge]]]]] = {
    "line": ("COUNT", _count(line, 1)),
    "ring": ("COUNT", _count(ring, 3)),
    "star": ("COUNT", _count(star, 2)),
    "full": ("COUNT", _count(full, 1)),
    "grid": ("WIDTHxHEIGHT", _grid),
    "tree": ("DEPTH^CHILDREN", _tree),
    "random": ("COUNT[/DEGREE[/SEED]]", _random),
}
