"""Types and settings of IPC processes, and names: what the calls of `ouroboros.irm` are given.

Everything here is also in `ouroboros.irm`, which is where programs import it from. A value is checked when it is given, to
the constructor or to an attribute later; an error names the class and the field.

>>> from ouroboros.irm import *
>>> DhtConfig(k=16).alpha
3
>>> DhtConfig(alpha=11)
Traceback (most recent call last):
    ...
ValueError: DhtConfig: alpha must be from 1 to 10, not 11
"""

from ouroboros.settings import *  # noqa: F403 - exported
from ouroboros.settings import __all__ as __all__
