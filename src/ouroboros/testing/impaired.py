"""A layer of a private node in which packets are lost, late, doubled or overtaken, always in the same way for a seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from ouroboros._owned import Uncopied
from ouroboros.control.names import ROUND_ROBIN
from ouroboros.layers import impairment
from ouroboros.settings import LocalSettings
from ouroboros.wire.control import (
    BootstrapIpcp,
    CreateIpcp,
    CreateName,
    ImpairIpcp,
    ListIpcps,
    RegisterName,
    Request,
)


class Counters(NamedTuple):
    """Counters of the packets of a layer."""

    #: Arrived, duplicates among them.
    delivered: int
    lost: int
    #: Were sent on twice.
    duplicated: int
    #: Were overtaken by the next one.
    reordered: int


class ImpairedLayer(Uncopied):
    """The layer through which flows to a name go. Made by `Node.impair`."""

    def __init__(self, request: Callable[[Request], Any], number: int, name: str, text: str) -> None:
        self._request = request
        #: The impairment that was asked for last, but for partitions.
        self._text = text
        self.name = name
        self.ipcp: int = request(CreateIpcp(f"impaired-{number}", "local"))
        request(BootstrapIpcp(self.ipcp, f"impaired-{number}", LocalSettings(impair=text)))
        request(CreateName(name, ROUND_ROBIN))
        request(RegisterName(name, self.ipcp))

    def impair(self, text: str) -> None:
        """Treat packets in another way from now on. The seed in `text` is that of flows which begin from now on."""
        self._request(ImpairIpcp(self.ipcp, text))
        self._text = text

    def partition(self) -> None:
        """Let nothing through, in either direction, until `heal`. What is under way arrives."""
        parts = msgspec.structs.replace(impairment.parse(self._text), partition=True)
        self._request(ImpairIpcp(self.ipcp, parts.text))

    def heal(self) -> None:
        """End the partition; all else is as before."""
        parts = msgspec.structs.replace(impairment.parse(self._text), partition=False)
        self._request(ImpairIpcp(self.ipcp, parts.text))

    @property
    def counters(self) -> Counters:
        """Counters of packets, so far."""
        entry = next(entry for entry in self._request(ListIpcps()) if entry.id == self.ipcp)
        return Counters(entry.delivered, entry.lost, entry.duplicated, entry.reordered)


def with_seed(text: str, seed: int | None) -> str:
    """The words of an impairment with the seed, when there is one. Raises `IpcpBootstrapError` when they are none."""
    parts = impairment.parse(text)
    return (parts if seed is None else msgspec.structs.replace(parts, seed=seed)).text
