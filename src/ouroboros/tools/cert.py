"""`ouroboros cert`: an authority of one's own, and certificates for services and clients, without OpenSSL.

It writes where the node looks: `server/NAME` and `client/SERVICE` in the security directory, with the certificate of the
authority in `cacert`. What exists is never overwritten.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ouroboros.runtime.paths import security_dir
from ouroboros.runtime.security import SecurityDirectory
from ouroboros.tools._common import fail
from ouroboros.tools._output import say

if TYPE_CHECKING:
    from ouroboros.oap.issuing import Issued

#: The key is not below cacert: what is there goes to every host.
AUTHORITY_KEY = Path("authority/key.pem")
AUTHORITY_CERTIFICATE = Path("cacert/authority.pem")

_DAYS = click.IntRange(1, 36500)


@click.group()
@click.option(
    "-d", "--directory", type=click.Path(path_type=Path), help="Security directory, in place of the usual one."
)
@click.pass_context
def cert(ctx: click.Context, *, directory: Path | None) -> None:
    """Make an authority, and certificates for services and clients."""
    ctx.obj = directory if directory is not None else security_dir()


@cert.command()
@click.option("-n", "--name", default="Ouroboros authority", show_default=True, help="What it is called.")
@click.option("--days", type=_DAYS, default=3650, show_default=True, help="How long it is valid.")
@click.pass_obj
def authority(directory: Path, *, name: str, days: int) -> None:
    """Make an authority. Copy its certificate, not its key, to every host that is to trust it."""
    from ouroboros.oap.issuing import make_authority

    made = _make(lambda: make_authority(name, random=random.SystemRandom(), wall=time.time_ns(), days=days))
    _write(directory / AUTHORITY_CERTIFICATE, directory / AUTHORITY_KEY, made)
    say(f"Wrote {directory / AUTHORITY_CERTIFICATE} for every host, and {directory / AUTHORITY_KEY} to be kept here.")
    say("Nodes that run trust it from their next SIGHUP on.")


_OUTPUT = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Security directory to write into, to be moved to another host; it gets the authority's certificate, too.",
)


@cert.command()
@click.argument("name")
@_OUTPUT
@click.option("--days", type=_DAYS, default=730, show_default=True, help="How long it is valid.")
@click.pass_obj
def server(directory: Path, *, name: str, output: Path | None, days: int) -> None:
    """Make a key and a certificate for the service NAME, used by the node that accepts flows for it."""
    _issue(directory, output, Path("server", name), name, days)


@cert.command()
@click.argument("name")
@click.option("--to", "service", required=True, help="The service that the client allocates flows to.")
@_OUTPUT
@click.option("--days", type=_DAYS, default=730, show_default=True, help="How long it is valid.")
@click.pass_obj
def client(directory: Path, *, name: str, service: str, output: Path | None, days: int) -> None:
    """Make a key and a certificate for the client NAME, used by its node for flows to one service."""
    _issue(directory, output, Path("client", service), name, days, service)


def _issue(directory: Path, output: Path | None, place: Path, name: str, days: int, service: str | None = None) -> None:
    from ouroboros.oap.issuing import Issued, check_name, make_certificate

    target = output if output is not None else directory
    files = SecurityDirectory(directory)
    try:
        certificate, key = files.read(str(AUTHORITY_CERTIFICATE)), files.read(str(AUTHORITY_KEY))
    except OSError as error:
        fail(f"The authority in {directory} cannot be used: {error.filename}: {error.strerror}")
    if certificate is None or key is None:
        missing = AUTHORITY_CERTIFICATE if certificate is None else AUTHORITY_KEY
        fail(f"There is no authority in {directory} (no {missing}): make one with ouroboros cert authority")
    issuer = Issued(certificate, key)

    def make() -> Issued:
        # It becomes the name of a directory.
        check_name(service or name)
        return make_certificate(name, issuer, random=random.SystemRandom(), wall=time.time_ns(), days=days)

    made = _make(make)
    _write(target / place / "crt.pem", target / place / "key.pem", made)
    if target != directory and not (target / AUTHORITY_CERTIFICATE).exists():
        _create(target / AUTHORITY_CERTIFICATE, issuer.certificate, 0o644)
    say(f"Wrote the certificate and the key of {name} into {target / place}.")


def _make(make: Callable[[], Issued]) -> Issued:
    try:
        return make()
    except ValueError as error:
        fail(f"Cannot make the certificate: {error}")


def _write(certificate: Path, key: Path, made: Issued) -> None:
    for path in (certificate, key):
        if path.exists():
            fail(f"There is {path} already: remove it first, if it is to be replaced")
    _create(key, made.key, 0o600)
    _create(certificate, made.certificate, 0o644)


def _create(path: Path, content: bytes, mode: int) -> None:
    """Write a file that was not there before; nobody else can read a key at any time."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        fail(f"Cannot write {path}: {error.strerror}")
