"""Shortest paths through a unicast layer, from one of its members: what a change leaves as it was is not computed again.

A link can be used when both of its ends announce it (`unicast-control.md` 6.5). All links count the same, so a distance is a
number of hops. For each destination X at the distance d these neighbours are known:

* nearest: those at the distance d - 1 from X, by which a shortest path begins.
* alternates: those at the distance d. No path from there comes back here: they are loop-free alternates (LFA).
* primary: the nearest one by which the path goes on whose last member before X has the smallest address.

The table has the primary, then the other nearest ones, then the alternates, so that another way is at hand whatever the
policy of the layer is. With ECMP all nearest ones come first, and a 0 stands between them and the alternates.

All three follow from those of the vertices next to X, at its own distance and the one below. So a change spreads from where
it is, distance by distance, and ends where it makes no difference.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from ouroboros.settings import LinkStatePolicy

#: Next hops of a destination that are kept.
MOST_HOPS = 8

#: Stands between those that are as good as each other and alternates.
NOT_EQUAL = 0

#: Sets of neighbours are numbers, a bit for each that there ever was. So many more than needed are put up with.
_SPARE_BITS = 64

_Edge = tuple[int, int]
Table = dict[int, tuple[int, ...]]


class Graph:
    """A layer, as the member with the address `root` knows it."""

    def __init__(self, root: int, policy: LinkStatePolicy) -> None:
        self._root = root
        self._policy = policy
        #: What each vertex announces, and the links that both ends announce.
        self._announced: dict[int, dict[int, None]] = {}
        self._links: dict[int, dict[int, None]] = {}
        #: Links that changed since the last computation, and whether they were there.
        self._touched: dict[_Edge, bool] = {}
        self._distances: dict[int, int] = {root: 0}
        self._hops = _Hops(root, self._links, self._distances)
        self._table: Table = {}

    # --- links

    def announce(self, source: int, destination: int) -> None:
        """The one has the other as neighbour, it says."""
        self._announced.setdefault(source, {})[destination] = None
        if source in self._announced.get(destination, ()):
            self._change(source, destination, there=True)

    def retract(self, source: int, destination: int) -> None:
        """It does not any more."""
        announced = self._announced.get(source, {})
        announced.pop(destination, None)
        if not announced:
            self._announced.pop(source, None)
        self._change(source, destination, there=False)

    def linked(self, one: int, other: int) -> bool:
        """Whether the link between them can be used."""
        return other in self._links.get(one, ())

    def degree(self, vertex: int) -> int:
        return len(self._links.get(vertex, ()))

    @property
    def changed(self) -> bool:
        """A computation would find something to do."""
        return bool(self._touched) and any(was != self.linked(*edge) for edge, was in self._touched.items())

    def _change(self, one: int, other: int, *, there: bool) -> None:
        if self.linked(one, other) == there:
            return
        self._touched.setdefault((min(one, other), max(one, other)), not there)
        for end, far in ((one, other), (other, one)):
            links = self._links.setdefault(end, {})
            if there:
                links[far] = None
            else:
                del links[far]
            if not links:
                del self._links[end]

    # --- paths, as of the last computation

    def distance(self, vertex: int) -> int | None:
        """Hops to that member; None: no path leads there."""
        return self._distances.get(vertex)

    def reachable(self) -> Iterator[int]:
        """Members to which a path leads, and the root."""
        return iter(self._distances)

    def table(self) -> Table:
        """The next hops by destination, the first choice first; see above for a 0. It stays as it is: the next call gives
        another."""
        return dict(self._table)

    def paths(self, vertex: int) -> Iterator[_Edge]:
        """The links of all shortest paths to a member, the last first. Of each, the end that is nearer to the root first."""
        ways = {vertex: None} if vertex in self._distances else {}
        while ways:
            before: dict[int, None] = {}
            for each in ways:
                near = self._distances[each] - 1
                for neighbour in self._links.get(each, ()):
                    if self._distances.get(neighbour) == near:
                        before[neighbour] = None
                        yield neighbour, each
            ways = before

    @property
    def routes(self) -> int:
        """How many destinations are in it."""
        return len(self._table)

    def compute(self) -> bool:
        """Bring the paths up to date. Whether the table is another one now."""
        edges = [edge for edge, was in self._touched.items() if was != self.linked(*edge)]
        added = [edge for edge in edges if self.linked(*edge)]
        removed = [edge for edge in edges if not self.linked(*edge)]
        self._touched.clear()
        moved = self._move(added, removed)
        dirty = dict.fromkeys(vertex for edge in edges for vertex in edge)
        for vertex in moved:
            dirty[vertex] = None
            dirty.update(dict.fromkeys(self._links.get(vertex, ())))
        return self._write(self._hops.spread(dirty))

    def _move(self, added: Iterable[_Edge], removed: Iterable[_Edge]) -> dict[int, None]:
        """Find the new distances. Returns the vertices whose distance is another one."""
        old = self._strand(removed)
        distances, heap = self._distances, list[tuple[int, int]]()
        for vertex in old:
            for neighbour in self._links.get(vertex, ()):
                if neighbour in distances:
                    heap.append((distances[neighbour] + 1, vertex))
        for edge in added:
            for one, other in (edge, edge[::-1]):
                if one in distances:
                    heap.append((distances[one] + 1, other))
        heapq.heapify(heap)
        while heap:
            distance, vertex = heapq.heappop(heap)
            known = distances.get(vertex)
            if known is not None and known <= distance:
                continue
            if known is not None:
                old.setdefault(vertex, known)
            else:
                old.setdefault(vertex, -1)
            distances[vertex] = distance
            for neighbour in self._links.get(vertex, ()):
                if distances.get(neighbour, distance + 2) > distance + 1:
                    heapq.heappush(heap, (distance + 1, neighbour))
        return dict.fromkeys(vertex for vertex, was in old.items() if distances.get(vertex, -2) != was)

    def _strand(self, removed: Iterable[_Edge]) -> dict[int, int]:
        """Take away the distances that rested on links which are gone. Returns what they were."""
        distances, stranded = self._distances, dict[int, int]()
        heap = [(distances[vertex], vertex) for edge in removed for vertex in edge if vertex in distances]
        heapq.heapify(heap)
        while heap:
            distance, vertex = heapq.heappop(heap)
            if vertex == self._root or vertex in stranded:
                continue
            neighbours = self._links.get(vertex, ())
            if any(distances.get(neighbour) == distance - 1 for neighbour in neighbours):
                continue
            stranded[vertex] = distances.pop(vertex)
            for neighbour in neighbours:
                if distances.get(neighbour) == distance + 1:
                    heapq.heappush(heap, (distance + 1, neighbour))
        return stranded

    def _write(self, vertices: Iterable[int]) -> bool:
        """Bring the table up to date for those. Whether it is another one."""
        changed = False
        for vertex in vertices:
            hops = self._hops.of(vertex, self._policy)
            if hops == self._table.get(vertex, ()):
                continue
            changed = True
            if hops:
                self._table[vertex] = hops
            else:
                del self._table[vertex]
        return changed


class _Hops:
    """By which neighbours paths begin. Sets of them are numbers, so that a union is one operation."""

    def __init__(self, root: int, links: dict[int, dict[int, None]], distances: dict[int, int]) -> None:
        self._root = root
        self._links = links
        self._distances = distances
        self._primary: dict[int, int] = {}
        self._nearest: dict[int, int] = {}
        #: With the nearest ones.
        self._alternates: dict[int, int] = {}
        self._bits: dict[int, int] = {}
        self._neighbours: list[int] = []
        #: What sets mean, as far as it was asked for.
        self._meanings: dict[int, tuple[int, ...]] = {0: ()}

    def of(self, vertex: int, policy: LinkStatePolicy) -> tuple[int, ...]:
        """The next hops to a vertex, the first choice first; none when it is the root, or no path leads there."""
        primary = self._primary.get(vertex)
        if primary is None:
            return ()
        nearest = self._meaning(self._nearest[vertex])
        others = self._meaning(self._alternates[vertex] & ~self._nearest[vertex])
        if policy is LinkStatePolicy.ECMP:
            spare = others[: max(0, MOST_HOPS - len(nearest))]
            return (*nearest[:MOST_HOPS], NOT_EQUAL, *spare) if spare else nearest[:MOST_HOPS]
        ordered = (primary, *(each for each in nearest if each != primary), *others)
        return ordered[:MOST_HOPS]

    def _meaning(self, bits: int) -> tuple[int, ...]:
        found = self._meanings.get(bits)
        if found is None:
            rest, neighbours = bits, []
            while rest:
                lowest = rest & -rest
                neighbours.append(self._neighbours[lowest.bit_length() - 1])
                rest ^= lowest
            found = self._meanings[bits] = tuple(sorted(neighbours))
        return found

    def _bit(self, neighbour: int) -> int:
        if neighbour not in self._bits:
            self._bits[neighbour] = len(self._neighbours)
            self._neighbours.append(neighbour)
        return 1 << self._bits[neighbour]

    def spread(self, dirty: dict[int, None]) -> dict[int, None]:
        """Bring up to date what is known of these vertices, and of others as far as it follows from them.

        Returns those that may have other next hops now.
        """
        own = self._links.get(self._root, {})
        if len(self._neighbours) > _SPARE_BITS + 2 * len(own):
            self._forget()
            dirty = dirty | dict.fromkeys(self._distances)
        if len(self._meanings) > _SPARE_BITS + 4 * len(self._distances):
            self._meanings = {0: ()}
        seen: dict[int, None] = {}
        levels: dict[int, dict[int, None]] = {}
        for vertex in dirty:
            level = self._distances.get(vertex)
            if level is None:
                seen[vertex] = None
                for part in (self._primary, self._nearest, self._alternates):
                    part.pop(vertex, None)
            elif level:
                levels.setdefault(level, {})[vertex] = None
        while levels:
            level = min(levels)
            vertices = levels.pop(level)
            above = self._level(level, vertices)
            seen.update(vertices)
            if above:
                levels.setdefault(level + 1, {}).update(above)
        return seen

    def _level(self, level: int, vertices: dict[int, None]) -> dict[int, None]:
        """Bring up to date what is known of vertices of one level, to which others may come. Returns those of the next level
        for which it may make a difference."""
        distances, links = self._distances, self._links
        changed: dict[int, None] = {}
        for vertex in list(vertices):
            before = self._primary.get(vertex), self._nearest.get(vertex)
            if self._approach(level, vertex) != before:
                changed[vertex] = None
                # Theirs go by the nearest of this one.
                vertices.update((each, None) for each in links[vertex] if distances.get(each) == level)
        for vertex in vertices:
            alternates = self._nearest[vertex]
            for each in links[vertex]:
                near = distances.get(each)
                if near == level:
                    alternates |= self._nearest[each]
                elif near == level - 1 and each != self._root:
                    alternates |= self._alternates[each]
            if alternates != self._alternates.get(vertex):
                self._alternates[vertex] = alternates
                changed[vertex] = None
        return {each: None for vertex in changed for each in links[vertex] if distances.get(each) == level + 1}

    def _approach(self, level: int, vertex: int) -> tuple[int, int]:
        """Find primary and nearest neighbours of a vertex."""
        if level == 1:
            primary, nearest = vertex, self._bit(vertex)
        else:
            before = [each for each in self._links[vertex] if self._distances.get(each) == level - 1]
            primary, nearest = self._primary[min(before)], 0
            for each in before:
                nearest |= self._nearest[each]
        self._primary[vertex], self._nearest[vertex] = primary, nearest
        return primary, nearest

    def _forget(self) -> None:
        self._primary.clear()
        self._nearest.clear()
        self._alternates.clear()
        self._bits.clear()
        self._neighbours.clear()
        self._meanings = {0: ()}
