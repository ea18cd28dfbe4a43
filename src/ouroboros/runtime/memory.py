"""What outlives a node: a few values, in a file of its runtime directory."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec

from ouroboros.layers.effects import Remember

log = logging.getLogger("ouroboros.irmd")

#: Bytes of a file that is believed.
_LONGEST = 1 << 20


class Memory:
    """`kept`: the values by name, those of the node before to begin with. One that cannot be read is forgotten."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "memory"
        self.kept: dict[str, bytes] = {}

    def load(self) -> None:
        try:
            with open(self._path, "rb") as file:
                self.kept.update(msgspec.msgpack.decode(file.read(_LONGEST), type=dict[str, bytes]))
        except FileNotFoundError:
            pass
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("%s cannot be read, and is forgotten: %s", self._path, error)

    def remember(self, effect: Remember) -> None:
        """The file is whole at any time; one that cannot be written costs the next node what is in it, and no more."""
        if effect.data:
            self.kept[effect.name] = effect.data
        else:
            self.kept.pop(effect.name, None)
        new = self._path.with_suffix(".new")
        try:
            new.write_bytes(msgspec.msgpack.encode(self.kept))
            os.replace(new, self._path)
        except OSError as error:
            log.warning("%s cannot be written: %s", self._path, error)
