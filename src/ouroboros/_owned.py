"""What has one owner, and is not copied."""

from __future__ import annotations

from typing import NoReturn, SupportsIndex


class Uncopied:
    """Base of what holds a flow, a descriptor or a node: a copy would be a second owner, whose end takes from the first."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuses: `copy` and `pickle` call this."""
        raise TypeError(f"cannot copy or pickle {type(self).__name__!r} object: what it holds has one owner")


__all__ = ["Uncopied"]
