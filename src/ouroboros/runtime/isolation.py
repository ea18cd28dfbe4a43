"""How an interpreter runs our node: with the copy of the package that this program runs, and no less closed than this one.

`python -I` is for programs that nobody is to slip code by the environment, the user's packages or a working directory; what
such a program starts must not take it from there either.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ouroboros.runtime.children import PYTHONPATH_BEFORE

#: Runs the node where `PYTHONPATH` does not count. Its first argument: where the package is, then where others are. The
#: package is loaded from that place whatever else is installed, and nothing of it goes before the standard library.
_START = """\
import sys
from importlib.util import module_from_spec, spec_from_file_location
places = sys.argv.pop(1).split(":")
sys.path += places
spec = spec_from_file_location("ouroboros", places[0] + "/ouroboros/__init__.py")
sys.modules["ouroboros"] = module = module_from_spec(spec)
spec.loader.exec_module(module)
from ouroboros.tools.irmd import main
main()
"""


def interpreter_command(interpreter: str) -> tuple[list[str], dict[str, str]]:
    """The command that runs `irmd`, to which its options are added, and the variables that it needs."""
    places = [str(Path(__file__).parents[2])]
    # Another interpreter looks for packages in other places.
    elsewhere = interpreter != sys.executable
    if not sys.flags.ignore_environment:
        before = os.environ.get("PYTHONPATH", "")
        # The node has another working directory.
        places += map(os.path.abspath, filter(None, before.split(os.pathsep)))
        if elsewhere:
            places += [path for path in sys.path if path.endswith("-packages")]
        # Programs that the node starts get theirs back.
        path = {"PYTHONPATH": os.pathsep.join(places), PYTHONPATH_BEFORE: before}
        return [interpreter, *_isolation(), "-m", "ouroboros.tools.irmd"], path
    if sys.flags.no_site or elsewhere:
        # Then the program found its packages by itself.
        places += [path for path in sys.path if path.endswith("-packages") and path not in places]
    # -P, or the working directory would come first.
    return [interpreter, *_isolation(), "-P", "-c", _START, os.pathsep.join(places)], {}


def _isolation() -> list[str]:
    """The options that make an interpreter as closed as this one."""
    flags = sys.flags
    if flags.isolated:
        chosen = ["-I"]
    else:
        closed = {"-E": flags.ignore_environment, "-s": flags.no_user_site, "-P": flags.safe_path}
        chosen = [option for option, is_on in closed.items() if is_on]
    return [*chosen, "-S"] if flags.no_site else chosen
