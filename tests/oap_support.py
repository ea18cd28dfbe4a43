"""Handshakes for tests: captured ones, scripted randomness, and an authority with everything that it could issue."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

#: When the captured handshakes ran, give or take an hour.
NOW = 1_795_368_186_773_007_710
SECOND = 10**9

VECTORS: Mapping[str, Any] = json.loads((Path(__file__).parent / "vectors" / "security.json").read_text())

#: Where the handshake begins in a datagram.
REQUEST_AT = 63
RESPONSE_AT = 47


class Script:
    """Randomness that is known beforehand, in the order in which it is asked for."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = list(chunks)

    def randbytes(self, n: int, /) -> bytes:
        chunk = self._chunks.pop(0)
        assert len(chunk) == n, f"{n} bytes are asked for, the script has {len(chunk)}"
        return chunk


def as_random(kex: str, private: bytes) -> bytes:
    """What has to be drawn for that private key to come out."""
    if kex in ("prime256v1", "secp384r1", "secp521r1"):
        return (int.from_bytes(private) - 1).to_bytes(len(private) + 8)
    sizes = {"ffdhe2048": 29, "ffdhe3072": 35, "ffdhe4096": 41}
    return private.rjust(sizes.get(kex, len(private)), b"\0")
