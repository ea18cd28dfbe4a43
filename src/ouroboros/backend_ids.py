"""What the choice of a stack and the C Ouroboros have to agree on, before that is imported."""

from __future__ import annotations

from collections.abc import Callable

#: The node that its grants name. For our nodes it is a hash (`runtime/connection.py`), and no hash is -1.
NATIVE = -1


def _never() -> bool:
    return False


#: Whether this process uses it. `native.stack` puts its own answer here when it is imported.
native_in_use: Callable[[], bool] = _never
