"""What takes long to import is not imported by those who do not need it."""

from __future__ import annotations

import subprocess
import sys
import textwrap

PLAIN = """
    import random, sys
    import ouroboros.dev
    from ouroboros.oap import ClientHandshake, Server, Settings
    from ouroboros.oap.directory import load_settings, load_trust

    settings = load_settings(lambda path: None, "client", "clock", load_trust({}, {}))
    client = ClientHandshake("clock", settings, random=random.Random(1), wall=1)
    response, _ = Server().receive(client.request, Settings(), 1).respond(random=random.Random(2), wall=1)
    client.finish(response)
    print(sorted(name for name in sys.modules if name.partition(".")[0] == "cryptography"))
"""


def test_a_plain_handshake_does_without_cryptography() -> None:
    command = [sys.executable, "-c", textwrap.dedent(PLAIN)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
