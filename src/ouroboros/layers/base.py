"""The face that every type of IPC process shows to the IRM. Pure: what a verb means for packets comes out as effects."""

from __future__ import annotations

import hashlib

from ouroboros.control.impairment import Impairment
from ouroboros.control.messages import IpcpEntry
from ouroboros.errors import IpcpBootstrapError, UnsupportedError

#: Directory hashes by the words of the command line (`irm.md` 1.2: numbers 0 to 3 on the wire).
HASHES = {
    "SHA3_224": hashlib.sha3_224,
    "SHA3_256": hashlib.sha3_256,
    "SHA3_384": hashlib.sha3_384,
    "SHA3_512": hashlib.sha3_512,
}
DEFAULT_HASH = "SHA3_256"


class Ipcp:
    """One IPC process: a member of a layer. Life: created (state "boot"), bootstrapped ("operational"), destroyed.

    Types that need something of the machine first are "opening" in between.
    """

    type = ""
    #: Position in the order in which layers are asked for a name (`irm.md` 1.2).
    preference = 0

    def __init__(self, id: int, name: str) -> None:
        self.id = id
        self.name = name
        self.state = "boot"
        self.layer = ""
        self.hash = DEFAULT_HASH
        #: Names bound to this IPC process.
        self.names: set[str] = set()
        #: What happens to packets of the layer, once it has been impaired.
        self.impairment: Impairment | None = None

    def bootstrap(self, layer: str, hash: str) -> None:
        """Become the first member of a layer. Raises `IpcpBootstrapError` in another state or for an unknown hash."""
        if self.state != "boot":
            raise IpcpBootstrapError(f"IPC process {self.name!r} is in layer {self.layer!r} already")
        if hash not in HASHES:
            raise IpcpBootstrapError(f"unknown directory hash {hash!r}: choose one of {', '.join(HASHES)}")
        self.layer, self.hash, self.state = layer, hash, "operational"

    def digest(self, name: str) -> bytes:
        """The name as the layer's directory knows it."""
        return HASHES[self.hash](name.encode()).digest()

    def register(self, name: str) -> None:
        """Publish a name in the layer. Raises `IpcpBootstrapError` when the IPC process is in none yet."""
        raise self._unsupported("register names")

    def unregister(self, name: str) -> None:
        """Take a name out of the layer; no error when it was not in."""
        raise self._unsupported("register names")

    def query(self, digest: bytes) -> bool:
        """Whether the layer can reach the name with that digest."""
        return False

    def join(self, flow_id: int) -> None:
        """Take a flow in as a member of the layer."""
        raise self._unsupported("be joined; only broadcast layers can")

    def leave(self, flow_id: int) -> None:
        """A member flow is gone."""
        raise self._unsupported("be left")

    def check_impairable(self) -> None:
        """Raises `UnsupportedError` when packets of this type cannot be impaired."""
        raise self._unsupported("be impaired; only local and UDP layers can")

    def impair(self, impairment: Impairment) -> None:
        """From now on, let this happen to the packets of the layer."""
        self.check_impairable()
        self._check_operational()
        self.impairment = impairment

    def entry(self) -> IpcpEntry:
        """The row of `irm ipcp list`."""
        return IpcpEntry(self.id, self.name, self.type, self.state, self.layer, self.hash)

    def _check_operational(self) -> None:
        if self.state != "operational":
            raise IpcpBootstrapError(f"IPC process {self.name!r} is in no layer yet: bootstrap it first")

    def _unsupported(self, what: str) -> UnsupportedError:
        return UnsupportedError(f"IPC process {self.name!r} of type {self.type} cannot {what}")
