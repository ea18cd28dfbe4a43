"""`ouroboros info`: which stack programs use here, our node or an installed C prototype, and why."""

from __future__ import annotations

import json

import click

from ouroboros import backend
from ouroboros.errors import NodeError
from ouroboros.tools._common import fail
from ouroboros.tools._output import say

_TITLES = {"node": "our node", "native": "the C Ouroboros"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print an object for programs.")
def info(as_json: bool) -> None:
    """Show which stack programs use here, its version, and why.

    Starts nothing. Exits with 1 when the stack cannot be used.
    """
    try:
        found = backend.info()
    except NodeError as error:
        fail(str(error))
    if as_json:
        say(json.dumps(found._asdict()))
    else:
        version = f" {found.version}" if found.version else ""
        say(f"{_TITLES[found.backend]}{version}: {found.reason}.")
        say(f"{'Library' if found.backend == 'native' else 'Runtime directory'}: {found.place or 'none'}")
        if found.problem:
            say(f"It cannot be used: {found.problem}.")
        elif not found.running:
            say("It does not run; the first program that needs it starts it.")
        if found.killed:
            say(
                f"The node that ran there, process {found.killed}, was killed or crashed: `irm ipcp list` and"
                " `irm flow list` show its last figures."
            )
        for share in found.shares:
            refused = f", refused {share['refused']} times" if share["refused"] else ""
            if share["held"]:
                whose = "Peers on other nodes" if share["user"] < 0 else f"User {share['user']}"
                say(f"{whose}: {share['held']} of {share['limit']} {share['kind']}{refused}.")
    if found.problem:
        raise SystemExit(1)


__all__ = ["info"]
