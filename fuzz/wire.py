"""Control messages, messages on Ethernet segments, and the files in which a node says what it has.

`pip install atheris`, then `python fuzz/wire.py -max_total_time=60`. The corpus begins with a message of each kind.
"""

from __future__ import annotations

from target import run

run("wire", ["ouroboros.wire"])
