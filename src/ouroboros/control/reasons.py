"""Why there is no flow, in words for people. Pure."""

from __future__ import annotations

from ouroboros.control.demand import OnDemand
from ouroboros.control.names import Name, Registry, check_name
from ouroboros.control.waiting import Arrived, Asking, Waiting
from ouroboros.control.ways import Ways
from ouroboros.errors import FlowNameException, FlowTimeoutException, NameError


class Reasons:
    """Errors for requests that come to nothing."""

    def __init__(self, registry: Registry, ways: Ways, demand: OnDemand) -> None:
        self._registry = registry
        self._ways = ways
        self._demand = demand

    def none_here(self, asking: Asking, name: Name | None) -> FlowNameException | None:
        """Why no acceptor of this node will do; None if one may come."""
        if asking.over is not None and (barred := self._ways.barred(asking.party, asking.over)):
            return FlowNameException(f"no flow to {asking.name!r} over {_layers(asking.over)}: {_itself(barred)}")
        if asking.over is None or self._ways.within(asking):
            nobody, barred = self.nobody(asking.name, name), self._ways.barred(asking.party, None)
            return nobody if nobody is None or not barred else FlowNameException(f"{nobody}; {_itself(barred)}")
        check_possible(asking.name)
        if why := self._ways.why_not_over(asking.over):
            return FlowNameException(f"no flow to {asking.name!r} over {_layers(asking.over)}: {why}")
        register = "; or ".join(f"`irm name register {asking.name} layer {layer}`" for layer in sorted(asking.over))
        return FlowNameException(
            f"nobody in {_layers(asking.over)} offers {asking.name!r}: it is not registered there; {register} does that"
        )

    def nobody(self, text: str, name: Name | None) -> FlowNameException | None:
        """Why nobody here will ever accept a flow to a name, as things are; None if somebody may."""
        if name is None:
            check_possible(text)
            return FlowNameException(
                f"nobody offers {text!r} on this node: start the program that accepts flows for it, "
                "or create the name with `irm name create`"
            )
        # A program that was started, and is not bound any more, may come yet.
        return deserted(name) if name.deserted and not self._demand.runs(text) else None

    def not_found(self, asking: Asking, name: Name | None) -> FlowNameException:
        """No layer leads to the name."""
        nobody = "nobody" if name is None else "nobody else"
        text = f"{nobody} offers {asking.name!r} on this node, and no layer knows where it is"
        if asking.over is not None:
            text = f"nobody in {_layers(asking.over)} offers {asking.name!r}"
        if asking.through:
            text = f"{asking.name!r} is to be reached through its layer, and that does not know where it is"
        if asking.advice:
            text += f": {'; or '.join(dict.fromkeys(asking.advice.values()))}"
        if barred := self._ways.barred(asking.party, asking.over):
            text += f"; {_itself(barred)}"
        return FlowNameException(text)

    def late(self, waiting: Asking | Arrived) -> FlowTimeoutException:
        """The time of a request is over."""
        text = waiting.name
        name = self._registry.names.get(text)
        if isinstance(waiting, Asking) and waiting.ipcp is not None:
            why = f"{waiting.ipcp.why(waiting.token)} (layer {waiting.ipcp.layer!r})"
        elif isinstance(waiting, Asking) and waiting.last_refusal:
            why = waiting.last_refusal
        elif isinstance(waiting, Asking) and waiting.over is not None and not self._ways.within(waiting):
            why = self._ways.why_not_over(waiting.over) or f"nobody in {_layers(waiting.over)} offers it"
        elif name is None and is_patient(waiting):
            why = "nobody offers it"
        elif name is None:
            why = "it is not on this node, and there was no time to ask others"
        elif name.deserted:
            why = "the program that served it has ended"
        else:
            why = "its programs are busy" if name.servers else "no program accepts flows for it"
        return FlowTimeoutException(f"nobody accepted a flow to {text!r} in time: {why}")


def is_patient(waiting: Waiting) -> bool:
    """It waits for its name, also while nobody serves it."""
    return isinstance(waiting, Asking) and waiting.patient


def check_possible(text: str) -> None:
    """Raises `FlowNameException` for what will never be a name."""
    try:
        check_name(text)
    except NameError as error:
        raise FlowNameException(str(error)) from error


def deserted(name: Name) -> FlowNameException:
    return FlowNameException(
        f"nobody serves {name.text!r} any more: the program that accepted flows for it has ended; start it again, or wait"
        " for it (wait=True)"
    )


def _itself(layers: list[str]) -> str:
    """Why layers were not asked."""
    return (
        f"no layer carries itself, so {', '.join(map(repr, layers))} {'was' if len(layers) == 1 else 'were'} not asked"
    )


def _layers(over: frozenset[str]) -> str:
    """Layers, in an error text."""
    return f"{'layer' if len(over) == 1 else 'one of the layers'} {', '.join(map(repr, sorted(over)))}"
