"""Messages between members of unicast layers, from anybody: greetings, enrollment, link state, directory, flows.

`pip install atheris`, then `python fuzz/unicast.py -max_total_time=60`. The corpus begins with messages of a small layer.
"""

from __future__ import annotations

from target import run

run("unicast", ["ouroboros.wire"])
