"""What outlives a node: a few values, in a file of its state directory."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from contextlib import ExitStack
from pathlib import Path

import msgspec

from ouroboros.layers.effects import Remember

log = logging.getLogger("ouroboros.irmd")

#: Bytes of a file that is believed.
_LONGEST = 1 << 20


class Memory:
    """`kept`: the values by name, those of the node before to begin with. One that cannot be read is forgotten.

    A file is of one node at a time: two that remembered the same would have one address in their layers. The second one
    begins without, remembers only until it ends, and says so."""

    def __init__(self, directory: Path) -> None:
        """`directory`: made when something is to be remembered."""
        self._path = directory / "memory"
        self._held = ExitStack()
        #: Whether the file is this node's; None: nobody has asked yet.
        self._ours: bool | None = None
        self.kept: dict[str, bytes] = {}

    def load(self) -> None:
        """Begin with what the node before remembered."""
        try:
            # A FIFO must not stop the node.
            with open(os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
                if self._own():
                    self.kept.update(msgspec.msgpack.decode(file.read(_LONGEST), type=dict[str, bytes]))
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError, ValueError, TypeError, RecursionError) as error:
            log.warning("%s cannot be read, and is forgotten: %s", self._path, error)

    def remember(self, effect: Remember) -> None:
        """The file is whole at any time; one that cannot be written costs the next node what is in it, and no more."""
        if effect.data:
            self.kept[effect.name] = effect.data
        else:
            self.kept.pop(effect.name, None)
        new = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(0o700, parents=True, exist_ok=True)
            if self._own():
                new.write_bytes(msgspec.msgpack.encode(self.kept))
                os.replace(new, self._path)
        except OSError as error:
            log.warning("%s cannot be written: %s; OUROBOROS_STATE_DIR sets another directory", self._path, error)

    def close(self) -> None:
        """Leave the file to the next node. Nothing is remembered any more."""
        self._held.close()
        self._ours = False

    def _own(self) -> bool:
        """Have the file for this node, until `close`."""
        if self._ours is None:
            lock = self._held.enter_context(self._path.with_suffix(".lock").open("ab"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno != errno.EWOULDBLOCK:
                    raise
                log.warning(
                    "%s is in use by another node: this one forgets at its end what it was to remember; set"
                    " OUROBOROS_STATE_DIR to a directory of its own",
                    self._path,
                )
                self._ours = False
            else:
                self._ours = True
        return self._ours
