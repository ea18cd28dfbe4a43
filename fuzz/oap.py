"""Requests and responses of the handshake, and the datagrams that carry them, from anybody.

`pip install atheris`, then `python fuzz/oap.py -max_total_time=60`. The corpus begins with captured messages.
"""

from __future__ import annotations

from target import run

run("oap", ["ouroboros.oap", "ouroboros.wire"])
