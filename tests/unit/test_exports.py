"""Every module of the package can be imported, exports what it says, and documents what it exports."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import ouroboros
from ouroboros import _infos, aio, cli, dev, errors, event, irm, ping, qos, server, settings

MODULES = ["ouroboros", *(each.name for each in pkgutil.walk_packages(ouroboros.__path__, "ouroboros."))]
VECTORS = Path(__file__).parents[1] / "vectors"

#: Modules whose names may be imported side by side.
PUBLIC = [dev, errors, event, irm, ping, qos, server]
#: Modules with the verbs of another: of `dev`, awaited; of `irm`, by names. And with what `irm` exports.
VERBS = [aio, cli, settings, _infos]


def public_names(module: ModuleType) -> list[str]:
    """What `from module import *` gives."""
    exported = getattr(module, "__all__", None)
    return list(exported) if exported is not None else [name for name in vars(module) if not name.startswith("_")]


def own(module: ModuleType) -> list[tuple[str, object]]:
    """The functions and classes that a module exports and defines itself."""
    return [
        (name, value)
        for name in public_names(module)
        if (inspect.isclass(value := getattr(module, name)) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    ]


def members(name: str, kind: type) -> list[tuple[str, object]]:
    """The public methods and properties that a class defines itself."""
    return [
        (f"{name}.{each}", value)
        for each, value in vars(kind).items()
        if not each.startswith("_") and (inspect.isroutine(value) or isinstance(value, property))
    ]


#: What the package of the C prototype, version 0.23, gives by module, with the members of its classes. Not its bindings
#: to C, `ffi` and `lib`.
PROTOTYPE = [line.split() for line in (VECTORS / "names-0.23.txt").read_text().splitlines()]
#: Names in it that come from the standard library.
HELPERS = {"IntEnum", "IntFlag", "List", "Optional", "errno", "modf", "shutil"}

DOCUMENTED = [
    (f"{module.__name__}.{name}", value)
    for module in [*PUBLIC, *VERBS]
    for name, each in own(module)
    for name, value in [(name, each), *(members(name, each) if inspect.isclass(each) else [])]
]


@pytest.mark.parametrize("name", MODULES)
def test_a_module_can_be_imported_and_says_what_it_is_for(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__ or name.endswith("._engine")


@pytest.mark.parametrize("name", MODULES)
def test_a_module_exports_only_what_it_has_and_once(name: str) -> None:
    module = importlib.import_module(name)
    exported = public_names(module)
    assert len(exported) == len(set(exported))
    assert [each for each in exported if not hasattr(module, each)] == []


@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_a_name_means_the_same_in_every_public_module(module: ModuleType) -> None:
    for other in PUBLIC:
        for name in set(public_names(module)) & set(public_names(other)):
            assert getattr(module, name) is getattr(other, name), name


@pytest.mark.parametrize("module", [dev, event, irm, qos, server, *VERBS], ids=lambda module: module.__name__)
def test_a_star_import_brings_what_is_ours_and_no_helpers_but_the_prototypes(module: ModuleType) -> None:
    for name in set(module.__all__) - HELPERS:
        value = getattr(module, name)
        assert not name.startswith("_")
        assert not inspect.ismodule(value)
        assert getattr(value, "__module__", "ouroboros").startswith("ouroboros"), name


@pytest.mark.parametrize(("name", "path"), PROTOTYPE, ids=[" ".join(row) for row in PROTOTYPE])
def test_a_module_gives_what_the_prototypes_gives(name: str, path: str) -> None:
    scope: dict[str, object] = {}
    exec(f"from {name} import *", scope)
    first, *members = path.split(".")
    assert first in scope
    value = scope[first]
    for each in members:
        value = getattr(value, each)


def test_a_star_import_of_dev_shadows_no_builtin() -> None:
    import builtins

    assert set(dev.__all__) & set(dir(builtins)) == set()


def test_programs_find_in_dev_the_exceptions_that_its_calls_raise() -> None:
    flow_errors = {name for name in vars(errors) if name.startswith("Flow")}
    of_events = {name for name in flow_errors if name.startswith("FlowEvent")}
    assert flow_errors - of_events <= set(dev.__all__)
    assert of_events <= set(event.__all__)


@pytest.mark.parametrize(("name", "value"), DOCUMENTED, ids=[name for name, _ in DOCUMENTED])
def test_what_is_public_is_documented(name: str, value: object) -> None:
    text = value.__dict__.get("__doc__") if isinstance(value, type) else value.__doc__
    assert text, f"{name} has no docstring"
    # msgspec and enum write one themselves when there is none.
    assert not text.startswith(("An enumeration.", f"{name.rpartition('.')[2]}("))


def test_the_test_of_documentation_reaches_methods_and_properties() -> None:
    names = {name for name, _ in DOCUMENTED}
    assert {"ouroboros.dev.Flow.read", "ouroboros.dev.Flow.flow_id", "ouroboros.qos.QoSSpec.cube"} <= names
    assert {"ouroboros.irm.create_name", "ouroboros.errors.FlowException"} <= names


def test_the_versions_agree() -> None:
    root = Path(__file__).parents[2]
    python = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    rust = tomllib.loads((root / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    assert ouroboros.__version__ == python == rust
