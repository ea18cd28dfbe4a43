"""The `ouroboros` command: what belongs to no other command."""

from __future__ import annotations

import click

from ouroboros import __version__
from ouroboros.tools._common import CONTEXT
from ouroboros.tools._output import run_command
from ouroboros.tools.capture import capture
from ouroboros.tools.cdev import cdev
from ouroboros.tools.cert import cert
from ouroboros.tools.info import info
from ouroboros.tools.lab import lab
from ouroboros.tools.ping import ping, trace
from ouroboros.tools.setup import setup


@click.group(context_settings=CONTEXT)
@click.version_option(__version__)
def ouroboros() -> None:
    """Tools around an Ouroboros node."""


ouroboros.add_command(capture)
ouroboros.add_command(cdev)
ouroboros.add_command(cert)
ouroboros.add_command(info)
ouroboros.add_command(ping)
ouroboros.add_command(trace)
ouroboros.add_command(setup)
ouroboros.add_command(lab)


def main() -> None:
    """Entry point of the `ouroboros` command."""
    run_command(ouroboros)


if __name__ == "__main__":
    main()
