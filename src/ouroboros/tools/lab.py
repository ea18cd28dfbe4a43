"""`ouroboros lab`: networks in one line, for the shell."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ouroboros.errors import OuroborosError
from ouroboros.tools._common import fail
from ouroboros.tools._output import say

if TYPE_CHECKING:
    from ouroboros.lab import Description, Lab

_NETWORK = click.argument("network", metavar="NETWORK|SCENARIO.toml")
_OVER = click.option("--over", multiple=True, help="The network below; again for the one below that.")
_LINKS = click.option(
    "--links", type=click.Choice(["udp4", "udp6", "eth-dix", "eth-llc"]), help="Type of the links [udp4]."
)


@click.group()
def lab() -> None:
    """Run networks of nodes on this machine, without root.

    NETWORK is one line, such as "a - b - c" or "ring 5"; a scenario is a file in TOML. docs/lab.md has both.
    """


@lab.command()
@_NETWORK
@_OVER
@_LINKS
@click.option(
    "--clock",
    type=click.Choice(["real", "namespaces", "virtual"]),
    default="real",
    show_default=True,
    help="Processes, processes with kernel network stacks, or time that passes when it is waited for.",
)
@click.option("--seed", type=click.IntRange(0, 2**31), default=0, help="Of chance: in virtual time, and on bad links.")
@click.option("--silence", type=click.FloatRange(0.1, 3600), help="Seconds of silence until a neighbour is down.")
@click.option("-c", "--command", "commands", multiple=True, help="Do this in the place of a prompt. Can be repeated.")
def run(
    *,
    network: str,
    over: tuple[str, ...],
    links: str | None,
    clock: str,
    seed: int,
    silence: float | None,
    commands: tuple[str, ...],
) -> None:
    """Run a network and ask what to do with it, or run a scenario and say whether all is as expected."""
    from ouroboros.lab import Lab
    from ouroboros.lab.doing import play

    description = _description(network, over, links)
    try:
        with Lab(description, clock=clock, seed=seed, silence=silence) as running:
            if commands:
                status = sum(not _do(running, line) for line in commands)
            elif description.events or description.expectations:
                verdict = play(running, say)
                say(str(verdict).rpartition("\n")[2])
                status = not verdict
            else:
                status = _prompt(running)
    except OuroborosError as error:
        fail(f"ouroboros lab: {error}")
    sys.exit(min(status, 1))


@lab.command()
@_NETWORK
@_OVER
@_LINKS
@click.option("--svg", is_flag=True, help="As a picture.")
@click.option("--toml", is_flag=True, help="As a scenario in full.")
def show(*, network: str, over: tuple[str, ...], links: str | None, svg: bool, toml: bool) -> None:
    """Show a network, and run nothing."""
    from ouroboros.lab import graph
    from ouroboros.lab.scenario import text_of

    description = _description(network, over, links)
    if toml:
        say(text_of(description).rstrip("\n"))
    else:
        say((graph.as_svg if svg else graph.as_text)(description, graph.State()).rstrip("\n"))


def _description(network: str, over: tuple[str, ...], links: str | None) -> Description:
    from ouroboros.lab import describe
    from ouroboros.lab.scenario import load

    try:
        if network.endswith(".toml"):
            if over:
                fail("ouroboros lab: --over goes with a network in a line; a scenario has its own", 2)
            if links is not None:
                fail("ouroboros lab: --links goes with a network in a line; a scenario says it by the key links", 2)
            return load(Path(network))
        return describe(network, over, links=links or "udp4")
    except OuroborosError as error:
        fail(f"ouroboros lab: {error}", 2)


def _prompt(running: Lab) -> int:
    """Returns how many lines could not be done."""
    asks = sys.stdin.isatty()
    if asks:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - lines can be edited
        say(f"{len(running.nodes)} nodes are ready. Say help for what can be done, and quit to end.")
    failed = 0
    while True:
        try:
            line = input("lab> " if asks else "").strip()
        except EOFError:
            break
        except KeyboardInterrupt:
            say("")
            break
        if line == "quit":
            break
        if line:
            failed += not _do(running, line)
    return 0 if asks else failed


def _do(running: Lab, line: str) -> bool:
    from ouroboros.lab.doing import say as answer

    try:
        if text := answer(running, line):
            say(text)
    except OuroborosError as error:
        say(str(error), err=True)
        return False
    return True
