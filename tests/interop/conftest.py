"""Two hosts for each test, ours and the C prototype's. All of it is skipped where there is no prototype.

OUROBOROS_REFERENCE is the prefix of an installation of the prototype, version 0.23.0; without it, one on PATH is taken.
OUROBOROS_REFERENCE_PATCHED is one without the faults that end its own reliable flows; it may be the same prefix.
OUROBOROS_REFERENCE_KEM is one that was built with ML-KEM, for which it wants OpenSSL 3.5; it may be the same, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from interop.hosts import ADDRESSES, Addresses, Link, OurHost, PrototypeHost, join
from support import NodeProcess

from ouroboros.lab import UnavailableError
from ouroboros.lab.prototype import VARIABLE, Installation, Namespace, check_machine, find_installation

#: Names that programs of the prototype's host have, as our host's peer table has them.
THEIR_NAMES = ("oping", "oecho", "ocbr", "operf", "theirs")
#: Names of ours that the prototype's host can find.
OUR_NAMES = ("oping", "oecho", "ocbr", "operf", "ours", "nobody")


@dataclass
class World:
    """Our host, the prototype's, and the link between them when there is one that does harm."""

    family: str
    addresses: Addresses
    ours: OurHost
    theirs: PrototypeHost
    link: Link | None = None

    @property
    def faults(self) -> Link:
        assert self.link is not None
        return self.link


def _found(variable: str, *, search_path: bool) -> Installation:
    try:
        check_machine()
        return find_installation(variable, search_path=search_path)
    except UnavailableError as why:
        pytest.skip(str(why))


@pytest.fixture(scope="session")
def stock_installation() -> Installation:
    return _found(VARIABLE, search_path=True)


@pytest.fixture(scope="session")
def patched_installation() -> Installation:
    return _found("OUROBOROS_REFERENCE_PATCHED", search_path=False)


@pytest.fixture(scope="session")
def kem_installation() -> Installation:
    return _found("OUROBOROS_REFERENCE_KEM", search_path=False)


@pytest.fixture(params=["udp4", "udp6"])
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def hosts(runtime_dir: Path) -> Iterator[ExitStack]:
    """Ends the hosts of the test, the last first, before it is counted what is left."""
    with ExitStack() as stack:
        yield stack


MakePrototype = Callable[[Installation, str, dict[str, str]], PrototypeHost]


@pytest.fixture
def prototype_logs() -> Iterator[list[Callable[[], str]]]:
    """The logs of the hosts of the prototype, printed at the end."""
    logs: list[Callable[[], str]] = []
    yield logs
    for log in logs:
        print(log())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A failure says nothing when the prototype has lost one of its own races (`_RACES`)."""
    try:
        return (yield)
    except Exception as error:
        found = item.funcargs.get("prototype_logs") if isinstance(item, pytest.Function) else None
        logs = [log() for log in found] if isinstance(found, list) else []
        # A laboratory that did not come about is gone, and has left its logs here.
        logs += getattr(error, "__notes__", [])
        for said, meaning in _RACES.items():
            if any(said in log for log in logs):
                pytest.skip(f"the prototype failed by itself: {meaning}")
        raise


#: What the log of the prototype says when it failed by itself, and what that means.
_RACES = {
    # About one time in forty. From then on it serves no request at all.
    "Failed to respond to flow request": "its layer could not answer a request",
    "Failed to send flow allocation response packet": "its member could not answer a request",
    # `unicast-control.md` 10, N12. It says this only at its end otherwise, which no test waits for.
    "shutting down": "its member heard nothing of its daemon any more",
}


@pytest.fixture
def make_prototype(hosts: ExitStack, prototype_logs: list[Callable[[], str]], tmp_path: Path) -> MakePrototype:
    """Makes hosts of the prototype."""

    def make(installation: Installation, name: str, names: dict[str, str]) -> PrototypeHost:
        try:
            host = PrototypeHost(installation, tmp_path / name, names)
        except UnavailableError as why:
            pytest.skip(str(why))
        hosts.callback(host.close)
        prototype_logs.append(host.log)
        return host

    return make


@pytest.fixture
def make_world(
    hosts: ExitStack, make_prototype: MakePrototype, make_node: Callable[..., NodeProcess]
) -> Iterator[Callable[..., World]]:
    """Makes the two hosts of a test, with a layer each.

    `linked`: with a link that can do harm between them; `trusted`: the certificate of the authority that theirs trusts;
    `our_names`, `their_names`: names there that the other one can find.
    """
    programs = ExitStack()

    def make(
        installation: Installation,
        family: str,
        *options: str,
        linked: bool = False,
        seed: int = 1,
        trusted: Path | None = None,
        our_names: Sequence[str] = OUR_NAMES,
        their_names: Sequence[str] = THEIR_NAMES,
    ) -> World:
        addresses = ADDRESSES[family]
        theirs = make_prototype(
            installation, "theirs", dict.fromkeys(our_names, addresses.far if linked else addresses.ours)
        )
        try:
            network = Namespace(private=False)
            hosts.callback(network.close)
            join(network, theirs.namespace)
        except UnavailableError as why:
            pytest.skip(str(why))
        if trusted is not None:
            theirs.configure("cacert/authority.pem", trusted.read_text())
        theirs.start(family, addresses.theirs)
        peers = dict.fromkeys(their_names, addresses.near if linked else addresses.theirs)
        ours = OurHost(network, make_node, family, peers)
        programs.callback(ours.end_programs)
        ours.bootstrap(*options)
        world = World(family, addresses, ours, theirs)
        if linked:
            world.link = Link(ours, family, seed)
        return world

    # The node is asked what it holds when its programs are gone.
    with programs:
        yield make


MakeWorld = Callable[..., World]


def able(installation: Installation) -> Installation:
    if not installation.security():
        pytest.skip("no security directory of the prototype: make etc/ouroboros/security, empty, in its prefix")
    return installation


@pytest.fixture
def make_secured(make_world: MakeWorld, stock_installation: Installation) -> Iterator[MakeWorld]:
    """Makes the two hosts of a test, the prototype's as it is."""
    made: list[World] = []

    def make(trusted: Path | None = None) -> World:
        made.append(make_world(able(stock_installation), "udp4", trusted=trusted))
        return made[-1]

    yield make
    for world in made:
        world.theirs.check()


@pytest.fixture
def secured(make_secured: MakeWorld) -> World:
    return make_secured()


@pytest.fixture
def stock(make_world: Callable[..., World], stock_installation: Installation, family: str) -> Iterator[World]:
    """Our host and one of the prototype as it is, which has to survive the test."""
    world = make_world(stock_installation, family)
    yield world
    world.theirs.check()


@pytest.fixture
def patched(make_world: Callable[..., World], patched_installation: Installation, family: str) -> Iterator[World]:
    """Our host and one of the prototype without its worst faults, which has to survive the test."""
    world = make_world(patched_installation, family)
    yield world
    world.theirs.check()


@pytest.fixture
def linked(make_world: Callable[..., World], patched_installation: Installation) -> Iterator[World]:
    """As `patched`, over IPv4, with a link between the hosts that does the harm it is told to."""
    world = make_world(patched_installation, "udp4", linked=True)
    yield world
    print(world.faults.set())
    world.theirs.check()
