"""Who is on the way to a name: in the layer that leads there, and in all layers below it.

::

    from ouroboros.ping import ping, trace

    for hop in trace("web"):
        print(hop.rank, hop.path, hop.member, hop.round_trip)

No program is asked, and no flow is made: members of unicast layers answer. Members of the C prototype do not, and carry what
is sent like any packet. Layers over UDP and within a node have one hop, and nobody there who answers.
"""

from __future__ import annotations

import msgspec

from ouroboros import backend
from ouroboros._arguments import as_name
from ouroboros._values import time_limit
from ouroboros.errors import FlowNameException
from ouroboros.wire import control as messages

#: Seconds that an answer may take.
TIMEOUT = 1.0


class Hop(msgspec.Struct, frozen=True):
    """What is at a hop of a way.

    `layer`, `type`, `rank`: of its layer, whose rank is how many layers are below, itself counted; 0 over UDP. `hop`: hops
    in that layer, 0 for this node. `within`: the hops of the layers above that it is a part of, the uppermost first: hop 2
    of the flow that is hop 1 of the layer above has `hop` 2 and `within` `(1,)`.

    `member`: name of the IPC process. `address`: in its layer. Both empty when they are not known. `state`: "answered";
    "silent" when nothing came in time, as from a member of the C prototype; "unasked" where nobody can be asked.
    `round_trip`: seconds, None when it is not known; below the uppermost layer it begins where the flow does.
    """

    hop: int
    layer: str
    type: str
    rank: int
    member: str
    address: str
    state: str
    round_trip: float | None
    within: tuple[int, ...]

    @property
    def path(self) -> tuple[int, ...]:
        """Where it is: `within`, and `hop`."""
        return (*self.within, self.hop)


def ping(name: str, *, layer: str | None = None, timeout: float = TIMEOUT) -> list[Hop]:
    """Ask the member that has a name, and the ends of the first hop in each layer below; the uppermost layer comes first.

    `layer`: name of the layer that is to lead there, None for any. `timeout`: seconds that an answer may take; each is asked
    for twice. A name of this node is one hop, 0.

    Raises `FlowNameException` when no layer leads to the name, and for a layer that this node is not in; `ValueError` for a
    timeout that is not above 0 and at most 10 s; `NodeError` when the node cannot be reached.

    Example::

        answers = [hop for hop in ping("web") if hop.round_trip is not None]
    """
    return _hops(name, layer, timeout, trace=False)


def trace(name: str, *, layer: str | None = None, timeout: float = TIMEOUT) -> list[Hop]:
    """Ask all members on the way to a name, and, for each hop, those on the way of the flow that carries it, in the order of
    `Hop.path`. Arguments and errors are those of `ping`. Takes 20 s at the most; what is not known then is left out.

    Example::

        members = [hop.member for hop in trace("web") if not hop.within]
    """
    return _hops(name, layer, timeout, trace=True)


def _hops(name: str, layer: str | None, timeout: float, *, trace: bool) -> list[Hop]:
    as_name(name, "name", FlowNameException)
    if layer is not None:
        as_name(layer, "name of the layer", FlowNameException)
    wait = time_limit(timeout)
    if wait is None or not 0 < wait <= messages.LONGEST_PROBE:
        raise ValueError(
            f"a timeout of an answer is above 0 and at most {messages.LONGEST_PROBE:.0f} seconds, not {timeout!r}"
        )
    found = backend.request(messages.ProbeName(name, layer, trace, wait))
    return [Hop(**msgspec.structs.asdict(each)) for each in found]


__all__ = ["Hop", "ping", "trace"]
