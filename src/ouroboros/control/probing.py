"""Ping and trace of programs: who is on the way to a name, in the layer that leads there and in those below it. Pure.

::

    hops 1, 2, 3 to the target            Step(1)   Step(2)   Step(3)
      hop 1, 2 of the flow to hop 2         Step(1, via hop 2) Step(1)   Step(1, via hop 2) Step(2)
        hop 1 of the flow to hop 2 of that    ...

A ping is the same for the ends of the ways only, each of the flow to the first hop of the layer above.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping

import msgspec

from ouroboros.control.lower import THIS_NODE
from ouroboros.control.names import Registry, check_name
from ouroboros.errors import FlowNameException, OuroborosError
from ouroboros.layers.base import Ipcp, State
from ouroboros.layers.face import ALL_THE_WAY, Located, Posts, Reach, Seen, Step, Task
from ouroboros.wire.control import HopEntry, ProbeName

#: Hops of one way that are asked at a time, and so many in a row that say nothing end it.
BATCH = 4
MOST_SILENT = 8
#: Of one trace, in all layers.
MOST_HOPS = 512
#: Each is asked so often.
ATTEMPTS = 2
#: Seconds for all of a trace. What is not known then is left out.
PATIENCE = 20.0

#: The hops of which a hop is a part, and itself.
_Path = tuple[int, ...]


class Probing:
    """Begins what is asked."""

    def __init__(self, ipcps: Mapping[int, Ipcp], registry: Registry, posts: Posts) -> None:
        self._ipcps = ipcps
        self._registry = registry
        self._posts = posts

    def begin(self, request: ProbeName, task: Task, now: float) -> None:
        """`task` is answered by a list of `HopEntry`. Raises `FlowNameException` for a layer that there is not,
        `NameError` for what cannot be a name."""
        name, layer = check_name(request.name), request.layer
        able = [each for each in self._ipcps.values() if each.state == State.OPERATIONAL]
        if layer is not None and not (able := [each for each in able if each.layer == layer]):
            there = ", ".join(sorted({repr(each.layer) for each in self._ipcps.values() if each.layer}))
            raise FlowNameException(f"this node is in no layer {layer!r}; it is in {there or 'none'}")
        reach = {ipcp: ipcp.reach(name) for ipcp in able}
        here = next((ipcp for ipcp, how in reach.items() if how is Reach.HERE), None)
        known = self._registry.names.get(name)
        leading = [ipcp for ipcp, how in reach.items() if how is Reach.PERHAPS]
        if here is not None:
            # As flows go (`Ways.way`): through its layer, where this node has another member of that.
            leading = [each for each in leading if (each.type, each.layer) == (here.type, here.layer)][:1]
        if here is not None and (here.within_node or not leading):
            rank = here.host.lower.rank(here.id)
            task.done([HopEntry(0, here.layer, here.type, rank, here.name, THIS_NODE)])
        elif here is None and layer is None and known is not None and known.served:
            task.done([HopEntry(0, "", "", address=THIS_NODE)])
        else:
            self._locate(request, sorted(leading, key=lambda each: each.turn(name)), task, now)

    def _locate(self, request: ProbeName, ipcps: list[Ipcp], task: Task, now: float) -> None:
        """Ask all layers at once where the name is. The first of those that know counts, in the order for flows."""
        if not ipcps:
            task.failed(_not_found(request, ["no layer of this node leads elsewhere"]))
        outcomes: dict[Ipcp, Located | OuroborosError] = {}

        def answer(ipcp: Ipcp, outcome: object) -> None:
            assert isinstance(outcome, Located | OuroborosError), outcome
            outcomes[ipcp] = outcome
            if len(outcomes) < len(ipcps):
                return
            for each in ipcps:
                if isinstance(found := outcomes[each], Located):
                    (_Trace if request.trace else _Ping)(self._posts, each, found, request, task).begin()
                    return
            # Members of one layer say the same.
            why = {(each.type, each.layer): str(outcomes[each]) for each in ipcps}
            task.failed(_not_found(request, why.values()))

        for ipcp in ipcps:
            located = Task(self._posts, functools.partial(answer, ipcp))
            try:
                ipcp.locate(request.name, located, now)
            except OuroborosError as error:
                located.failed(error)


def _not_found(request: ProbeName, reasons: Iterable[str]) -> FlowNameException:
    return FlowNameException(f"{request.name!r} was not found: {'; '.join(reasons)}")


class _Run:
    """What both do: ask, again if nothing comes, and note what was found."""

    def __init__(self, posts: Posts, ipcp: Ipcp, located: Located, request: ProbeName, task: Task) -> None:
        self._posts, self._ipcp, self._task = posts, ipcp, task
        self._target, self._now = located
        self._wait = request.timeout
        self._until = self._now + PATIENCE
        self._rows: dict[_Path, HopEntry] = {}

    def _ask(self, steps: tuple[Step, ...], answer: Callable[[Seen], None], attempt: int = 1) -> None:
        def answered(outcome: object) -> None:
            assert isinstance(outcome, Seen), outcome
            self._now = outcome.when
            again = outcome.entry.state == "silent" and not outcome.end and attempt < ATTEMPTS
            if again and self._now < self._until:
                self._ask(steps, answer, attempt + 1)
            else:
                answer(outcome)

        self._ipcp.probe(self._target, steps, self._wait, Task(self._posts, answered), self._now)

    def _note(self, path: _Path, seen: Seen) -> None:
        *within, hop = path
        self._rows[path] = msgspec.structs.replace(seen.entry, hop=hop, within=tuple(within))

    def _finish(self) -> None:
        self._task.done([self._rows[path] for path in sorted(self._rows)])


class _Ping(_Run):
    """The end of the way, then that of the flow to its first hop in the layer below, and so on down."""

    def begin(self) -> None:
        self._look((), ())

    def _look(self, steps: tuple[Step, ...], within: _Path) -> None:
        self._ask((*steps, Step(ALL_THE_WAY)), functools.partial(self._found, steps, within))

    def _found(self, steps: tuple[Step, ...], within: _Path, seen: Seen) -> None:
        self._note((*within, seen.entry.hop), seen)
        if seen.deeper and seen.entry.hop:
            self._look((*steps, Step(0)), (*within, 1))
        else:
            self._finish()

    def _finish(self) -> None:
        # The uppermost layer first.
        self._task.done(list(self._rows.values()))


class _Trace(_Run):
    """All hops, then those of the flow to each of them in the layer below, and so on down."""

    def begin(self) -> None:
        self._open = 1
        self._follow((), (), {}, 1)

    def _follow(self, steps: tuple[Step, ...], within: _Path, found: dict[int, Seen], first: int) -> None:
        """Ask the next hops of a way."""
        batch = range(first, min(first + BATCH, ALL_THE_WAY))

        def answer(hop: int, seen: Seen) -> None:
            found[hop] = seen
            if all(each in found for each in batch):
                self._batch_done(steps, within, found, batch.stop)

        for hop in batch:
            self._ask((*steps, Step(hop)), functools.partial(answer, hop))

    def _batch_done(self, steps: tuple[Step, ...], within: _Path, found: dict[int, Seen], following: int) -> None:
        end = min((hop for hop, seen in found.items() if seen.end), default=0)
        heard = max((hop for hop, seen in found.items() if seen.entry.state != "silent"), default=0)
        more = len(self._rows) + len(found) < MOST_HOPS and self._now < self._until
        if not end and more and following - 1 - heard < MOST_SILENT and following < ALL_THE_WAY:
            self._follow(steps, within, found, following)
            return
        # Where it breaks off, one hop that is silent says so.
        self._over(steps, within, {hop: found[hop] for hop in range(1, (end or heard + 1) + 1) if hop in found})

    def _over(self, steps: tuple[Step, ...], within: _Path, found: dict[int, Seen]) -> None:
        for hop, seen in found.items():
            self._note((*within, hop), seen)
        for hop, seen in found.items():
            begins = found.get(hop - 1)
            # The member before knows the flow, and it is known itself.
            known = begins is None or begins.entry.state == "answered"
            if seen.deeper and known and len(self._rows) < MOST_HOPS and self._now < self._until:
                self._open += 1
                self._follow((*steps, Step(hop - 1, seen.at)), (*within, hop), {}, 1)
        self._open -= 1
        if not self._open:
            self._finish()
