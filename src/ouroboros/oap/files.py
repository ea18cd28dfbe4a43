"""The text files that say how a name is protected: `enc.conf`, which the prototype reads as well, and `policy.conf`.

Both have a `key=value` on each line; what is behind a `#` at the start of a line is a comment. Anything else that is not
understood is an error that names the line: a word that is misspelt must not make a flow weaker than it was meant to be.
"""

from __future__ import annotations

from collections.abc import Iterator

from ouroboros.oap.negotiation import AVAILABLE
from ouroboros.oap.session import ECRYPT, Encryption, OapError, Policy
from ouroboros.wire.suites import CIPHERS, HASHES, KEX_BY_NAME

#: The prototype cuts a line in two here.
_LONGEST_LINE = 255

_HASHES = tuple(hash.name for hash in HASHES)
_VALUES = {
    "kex": AVAILABLE,
    "cipher": tuple(cipher.name for cipher in CIPHERS),
    "kdf": _HASHES,
    "digest": _HASHES,
    "kem_mode": ("server", "client"),
}
_REQUIREMENTS = ("encryption", "certificate")
_STRENGTHS = ("128", "192", "256")


def parse_encryption(path: str, file: bytes) -> Encryption | None:
    """Read an `enc.conf`: None when it says `none`, the defaults when it is empty. Raises `OapError` naming the line."""
    values: dict[str, str] = {}
    nothing = None
    for where, line in _lines(path, file):
        if line == "none":
            nothing = where
            continue
        key, value = _pair(where, line, tuple(_VALUES))
        values[key] = _one_of(where, key, value, _VALUES[key])
    if nothing is not None and values:
        # The prototype forgets what is before it and ignores what is behind it: a flow in clear that somebody meant to be
        # encrypted.
        key, value = next(iter(values.items()))
        raise _wrong(nothing, f"'none' and {key}={value} contradict each other: have one of them")
    if nothing is not None:
        return None
    mode = values.pop("kem_mode", "server")
    encryption = Encryption(**values, client_encapsulates=mode == "client")
    if encryption.client_encapsulates and not encryption.exchange.kem:
        kems = [name for name in AVAILABLE if KEX_BY_NAME[name].kem]
        raise _wrong(path, f"kem_mode=client goes with a kex of {', '.join(kems)}, not with {encryption.kex}")
    return encryption


def parse_policy(path: str, file: bytes) -> Policy:
    """Read a `policy.conf`. Raises `OapError` naming the line."""
    required: set[str] = set()
    strength, peers = 0, []
    for where, line in _lines(path, file):
        key, value = _pair(where, line, ("require", "strength", "allow"))
        if key == "require":
            required.add(_one_of(where, key, value, _REQUIREMENTS))
        elif key == "strength":
            strength = int(_one_of(where, key, value, _STRENGTHS))
        else:
            peers.append(value)
    return Policy(
        encrypt="encryption" in required or strength > 0,
        strength=strength,
        authenticate="certificate" in required or bool(peers),
        peers=tuple(peers),
    )


def _lines(path: str, file: bytes) -> Iterator[tuple[str, str]]:
    """Where a line is, and what it says."""
    for number, raw in enumerate(file.split(b"\n"), 1):
        where = f"{path}, line {number}"
        if len(raw) > _LONGEST_LINE:
            raise _wrong(where, f"it has {len(raw)} bytes, at most {_LONGEST_LINE} are allowed")
        try:
            line = raw.decode().strip()
        except UnicodeDecodeError:
            raise _wrong(where, "it is not UTF-8") from None
        if line and not line.startswith("#"):
            yield where, line


def _pair(where: str, line: str, keys: tuple[str, ...]) -> tuple[str, str]:
    key, equals, value = (part.strip() for part in line.partition("="))
    if not equals or key not in keys:
        raise _wrong(where, f"{line!r} is none of {', '.join(f'{each}=...' for each in keys)}")
    if not value:
        raise _wrong(where, f"there is nothing behind {key}=")
    return key, value


def _one_of(where: str, key: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise _wrong(where, f"{key}={value} is not known; allowed are {', '.join(allowed)}")
    return value


def _wrong(where: str, text: str) -> OapError:
    return OapError(ECRYPT, f"{where}: {text}")
