"""The tree of exceptions: as documented, and each of them what the standard library would raise."""

from __future__ import annotations

import builtins
import re

import pytest

from ouroboros import errors
from ouroboros.errors import FlowDeallocWarning, FlowException, NodeError, OuroborosError

CLASSES = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, OuroborosError) and kind.__module__ == errors.__name__
}


def documented() -> dict[str, tuple[str | None, set[str]]]:
    """The tree in the docstring: class -> (parent, bracketed classes)."""
    tree: dict[str, tuple[str | None, set[str]]] = {}
    parents: dict[int, str] = {}
    for line in (errors.__doc__ or "").partition("::")[2].splitlines():
        found = re.match(r" {4}((?:[│├└─ ]{4})*)([A-Z]\w+(?:, [A-Z]\w+)*)", line)
        if found is None:
            continue
        depth = len(found[1]) // 4
        brackets = re.search(r"\[([\w, ]+)\]$", line.rstrip())
        names = found[2].split(", ")
        for name in names:
            tree[name] = parents.get(depth - 1), set(brackets[1].split(", ")) if brackets else set()
        parents[depth] = names[-1]
    return tree


def resolve(name: str) -> type:
    kind = CLASSES.get(name) or getattr(builtins, name)
    assert isinstance(kind, type)
    return kind


def test_the_documented_tree_has_every_class_and_no_other() -> None:
    assert set(documented()) == set(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_has_the_documented_bases(name: str) -> None:
    parent, brackets = documented()[name]
    above = {resolve(each) for each in {parent or "Exception", *brackets}}
    # A class that another one brings along is not named again.
    expected = {each for each in above if not any(each in other.__mro__[1:] for other in above)}
    assert set(CLASSES[name].__bases__) == expected


@pytest.mark.parametrize(
    ("name", "standard"),
    [
        ("FlowNotAllocatedException", ValueError),
        ("FlowNameException", LookupError),
        ("FlowRefusedException", ConnectionRefusedError),
        ("FlowQosException", ValueError),
        ("FlowDownException", ConnectionError),
        ("FlowPeerException", ConnectionResetError),
        ("FlowTimeoutException", TimeoutError),
        ("FlowWouldBlockException", BlockingIOError),
        ("FlowPermissionException", PermissionError),
        ("FlowSizeException", ValueError),
        ("NodeError", ConnectionError),
        ("NodeLimitError", ConnectionError),
        ("UnsupportedError", NotImplementedError),
    ],
)
def test_catching_what_the_standard_library_raises_works(name: str, standard: type[Exception]) -> None:
    with pytest.raises(standard, match=r"^why$"):
        raise CLASSES[name]("why")


@pytest.mark.parametrize("name", CLASSES)
def test_an_exception_tells_its_text_and_nothing_else(name: str) -> None:
    # OSError, behind some of them, makes an errno out of more than one argument.
    assert str(CLASSES[name]("what happened, and what to do")) == "what happened, and what to do"


@pytest.mark.parametrize("name", CLASSES)
def test_an_exception_says_what_it_means(name: str) -> None:
    assert CLASSES[name].__dict__.get("__doc__")


def test_whatever_goes_wrong_with_a_flow_is_a_flow_exception() -> None:
    flow_errors = {kind for name, kind in CLASSES.items() if name.startswith("Flow")}
    assert all(issubclass(kind, FlowException) for kind in flow_errors | {NodeError})


def test_a_dead_peer_is_caught_as_a_flow_that_is_down() -> None:
    with pytest.raises(errors.FlowDownException):
        raise errors.FlowPeerException("the peer died")


def test_the_warning_is_hidden_by_default_as_other_leaks_are() -> None:
    assert issubclass(FlowDeallocWarning, ResourceWarning)
    assert not issubclass(FlowDeallocWarning, OuroborosError)
