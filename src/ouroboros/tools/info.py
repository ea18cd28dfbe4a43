"""`ouroboros info`: which stack programs use here, our node or an installed C Ouroboros, and why."""

from __future__ import annotations

import json

import click

from ouroboros import backend
from ouroboros.tools._common import fail

_TITLES = {"node": "our node", "native": "the C Ouroboros"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print an object for programs.")
def info(as_json: bool) -> None:
    """Show which stack programs use here, its version, and why.

    Starts nothing. Exits with 1 when the stack cannot be used.
    """
    try:
        found = backend.info()
    except ValueError as error:
        fail(str(error))
    if as_json:
        click.echo(json.dumps(found._asdict()))
    else:
        version = f" {found.version}" if found.version else ""
        click.echo(f"{_TITLES[found.backend]}{version}: {found.reason}.")
        click.echo(f"{'Library' if found.backend == 'native' else 'Runtime directory'}: {found.place or 'none'}")
        if found.problem:
            click.echo(f"It cannot be used: {found.problem}.")
        elif not found.running:
            click.echo("It does not run; the first program that needs it starts it.")
    if found.problem:
        raise SystemExit(1)


__all__ = ["info"]
