"""Values that programs give, of whatever type is as good as the one that is meant: one check for each kind of value."""

from __future__ import annotations

import io
import math
import numbers
import operator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

#: Seconds. What ends after that is no limit.
_LONGEST = 1e9


def time_limit(value: Any, default: float | None = None) -> float | None:  # noqa: ANN401
    """A time limit that was given, in seconds, or the default for None. None for no limit, which infinity is as well.

    Any real number will do: also of numpy, a `Decimal`, a `Fraction`. Raises `TypeError` for what is none, `ValueError` for
    one below zero, and for NaN.
    """
    if value is None:
        return default
    kind = type(value)
    if _is_no_real(value) or not (hasattr(kind, "__float__") or hasattr(kind, "__index__")):
        raise TypeError(f"a timeout is a number of seconds or None, not {value!r} ({kind.__name__})")
    try:
        seconds = float(value)
    except OverflowError:
        # Longer than any float, as 10**400.
        exact = operator.index(value) if hasattr(kind, "__index__") else value
        seconds = math.inf if exact > 0 else -math.inf
    except ValueError:
        # A signaling NaN is no float at all.
        seconds = math.nan
    except TypeError as error:
        raise TypeError(f"a timeout is a number of seconds or None, not {value!r} ({kind.__name__})") from error
    if math.isnan(seconds) or seconds < 0:
        raise ValueError(f"a timeout is a number of seconds from 0, or None for no limit, not {value!r}")
    return None if seconds > _LONGEST else abs(seconds)


def _is_no_real(value: object) -> bool:
    """Whether a value is no real number, though `float` may take it: those of numpy become one whatever they are."""
    is_complex = isinstance(value, numbers.Complex) and not isinstance(value, numbers.Real)
    return is_complex or isinstance(value, (str, bytes)) or type(value).__name__ in ("bool", "bool_")


def whole_number(value: Any) -> int:  # noqa: ANN401
    """A whole number that was given, of any type that is one, as a plain `int`.

    Raises `TypeError` for what is none; a `bool` is none.
    """
    if isinstance(value, bool):
        raise TypeError(f"{value!r} (bool) is not a whole number")
    try:
        # Twice: a subclass of int is its own index.
        return int(operator.index(value))
    except TypeError:
        raise TypeError(f"{value!r} ({type(value).__name__}) is not a whole number") from None


def plain_text(value: str) -> str:
    """The text of a `str`, or of an object of a subclass, as a plain `str`."""
    return str.__str__(value)


def packet_view(buffer: ReadableBuffer) -> memoryview:
    """The memory of a packet that is to be written. Raises `TypeError` for what is no buffer, `BufferError` for one that is
    not contiguous."""
    if isinstance(buffer, str):
        raise TypeError("a packet is bytes, not str: use writeline() for text, or encode it")
    view = memoryview(buffer)
    if not view.c_contiguous:
        raise BufferError("a packet must be a contiguous buffer: copy it with bytes()")
    return view


def target_view(buffer: WriteableBuffer) -> memoryview:
    """The memory that a packet is to be read into. Raises `TypeError` if none can be."""
    view = memoryview(buffer)
    if view.readonly or not view.c_contiguous:
        raise TypeError("readinto() needs a writable, contiguous buffer such as a bytearray")
    return view


def copy_into(target: WriteableBuffer, data: bytes | memoryview) -> int:
    """Copy data to the start of a buffer of any format, as far as it fits; return how many bytes."""
    # A memoryview takes bytes only if its own format is a simple one, and that of a ctypes array is not.
    return io.BytesIO(data).readinto(target)


__all__ = ["copy_into", "packet_view", "plain_text", "target_view", "time_limit", "whole_number"]
