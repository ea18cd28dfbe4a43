"""How flows get from party to party: which layers may carry them, and what is between two parties of a node. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum, auto

from ouroboros.control.names import Name
from ouroboros.control.parties import IpcProcess, Layering, Party, Process
from ouroboros.control.waiting import Asking
from ouroboros.errors import FlowDownException
from ouroboros.layers.base import Ipcp, State
from ouroboros.layers.face import Reach


class Way(Enum):
    """How a flow gets from one party of this node to another."""

    #: A ring between two programs.
    RING = auto()
    #: The engine: through an impaired layer, or to an IPC process.
    LOOP = auto()
    #: A layer, in at one IPC process of this node and out at another.
    LAYER = auto()


class Ways:
    """Ways that lead to a name, as things are."""

    def __init__(self, ipcps: Mapping[int, Ipcp], layering: Layering) -> None:
        self._ipcps = ipcps
        self._layering = layering

    def way(self, asking: Asking, takes: Party) -> tuple[Way, Ipcp | None]:
        """How a flow gets to a party of this node, and the IPC process that carries it or is to be asked, if one is.

        A name of an impaired local layer: through that. One that is registered with an IPC process of a layer of which this
        node has another member: through the layer, by that one. Else there is nothing between the two.
        """
        home = self._home(asking)
        if home is not None and home.within_node and home.impairment is not None:
            return Way.LOOP, home
        if home is not None and not home.within_node:
            barred = self._barred(asking.party)
            for other in self._ipcps.values():
                same = (other.type, other.layer) == (home.type, home.layer)
                if same and other.id not in barred and other.reach(asking.name) is Reach.PERHAPS:
                    return Way.LAYER, other
        programs = isinstance(asking.party, Process) and isinstance(takes, Process)
        return (Way.RING if programs else Way.LOOP), None

    def within(self, asking: Asking) -> bool:
        """Whether an acceptor of this node will do: if it has to be over certain layers, one that is known in them."""
        if asking.over is None:
            return True
        # A program may name any layer in which the name is known to be here. An IPC process has to have a flow of the layer.
        known = (each for each in self._holders(asking) if each.within_node or isinstance(asking.party, Process))
        return next(known, None) is not None

    def layer(self, asking: Asking) -> str:
        """The layer in which a name of this node was found, the first in their order; "" if it is in none."""
        found = min(self._holders(asking), key=lambda each: (each.preference, each.id), default=None)
        return "" if found is None else found.layer

    def ipcps_to_ask(self, asking: Asking, name: Name | None) -> list[Ipcp]:
        """The IPC processes whose layers may lead to a name: none for one that is served here or can be found here."""
        alone = is_alone(asking.party, name)
        within, barred = self.within(asking) and not alone, self._barred(asking.party)
        if within and name is not None and name.served:
            return []
        candidates = [each for each in self._ipcps.values() if each.id not in barred and _may_carry(asking, each)]
        reach = {ipcp: ipcp.reach(asking.name) for ipcp in candidates}
        if within and Reach.HERE in reach.values():
            return []
        if alone:
            # It is registered for itself, and looks for those of the same name.
            leading = [ipcp for ipcp, how in reach.items() if how is not Reach.NO and ipcp.elsewhere]
        else:
            leading = [ipcp for ipcp, how in reach.items() if how is Reach.PERHAPS]
        return sorted(leading, key=lambda each: each.turn(asking.name))

    def barred(self, party: Party, over: frozenset[str] | None) -> list[str]:
        """The layers that are not asked for an IPC process, as they would carry themselves, of those that may be asked."""
        barred = [self._ipcps[each] for each in self._barred(party) if each in self._ipcps]
        layers = {each.layer for each in barred if each.layer and each.registers}
        return sorted(layers if over is None else layers & over)

    def why_not_over(self, over: frozenset[str]) -> str:
        """What keeps this node from finding any name in these layers; "" when nothing does."""
        members = [ipcp for ipcp in self._ipcps.values() if ipcp.layer in over]
        if any(ipcp.registers and ipcp.state == State.OPERATIONAL for ipcp in members):
            return ""
        if members and not any(ipcp.registers for ipcp in members):
            return "a broadcast layer holds no names; programs join it (`flow_join`)"
        if members:
            return "; ".join(f"its IPC process {each.name!r} is {each.state}" for each in members if each.registers)
        there = sorted({repr(ipcp.layer) for ipcp in self._ipcps.values() if ipcp.layer and ipcp.registers})
        return (
            f"this node is not in it, but in {', '.join(there) or 'none'}; `irm ipcp enroll` makes it a member, or "
            "`irm ipcp bootstrap` the first one"
        )

    def check_layers(self, asking: Asking) -> None:
        """Raises `FlowDownException` when a name may not be found only because its layer failed."""
        for ipcp in self._ipcps.values():
            if ipcp.state == State.FAILED and ipcp.elsewhere and _may_carry(asking, ipcp):
                raise FlowDownException(ipcp.trouble)

    def _home(self, asking: Asking) -> Ipcp | None:
        """The IPC process by which a name of this node is known, if that makes a difference: local ones first."""
        if not any(ipcp.several or (ipcp.within_node and ipcp.impairment is not None) for ipcp in self._ipcps.values()):
            return None
        homes = (ipcp for ipcp in self._ipcps.values() if ipcp.within_node or ipcp.several)
        known = [each for each in homes if _may_carry(asking, each) and each.query(each.digest(asking.name))]
        return min(known, key=lambda each: not each.within_node, default=None)

    def _holders(self, asking: Asking) -> Iterator[Ipcp]:
        """The IPC processes that may carry a flow to a name, and by which it is known to be here."""
        able = (each for each in self._ipcps.values() if each.registers and _may_carry(asking, each))
        return (each for each in able if each.reach(asking.name) is Reach.HERE)

    def _barred(self, party: Party) -> set[int]:
        """The IPC processes that must not carry anything for a party: itself, and all above it."""
        return self._layering.above(party.pid) if isinstance(party, IpcProcess) else set()


def is_alone(party: Party, name: Name | None) -> bool:
    """Whether an IPC process asks for a name that nobody but itself serves on this node: by the name of its layer it looks
    for the other members."""
    return isinstance(party, IpcProcess) and name is not None and name.servers == {party.pid} and not name.autostart()


def _may_carry(asking: Asking, ipcp: Ipcp) -> bool:
    return asking.over is None or ipcp.layer in asking.over
