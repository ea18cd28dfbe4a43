"""A set that is iterated in the order of insertion. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableSet, Set
from typing import TypeVar

_T = TypeVar("_T")


class OrderedSet(MutableSet[_T]):
    """A set that is iterated in the order of insertion. Hashes of text differ from run to run, and so would the effects."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[_T] = ()) -> None:
        self._items = dict.fromkeys(items)

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def __iter__(self) -> Iterator[_T]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __eq__(self, other: object) -> bool:
        """The order does not count."""
        return isinstance(other, Set) and len(self) == len(other) and all(item in other for item in self)

    def __repr__(self) -> str:
        return f"OrderedSet({list(self._items)})"

    def add(self, value: _T) -> None:
        self._items[value] = None

    def discard(self, value: _T) -> None:
        self._items.pop(value, None)
