"""The registry: what can be a name, how many there may be, and bindings that come in any order."""

from __future__ import annotations

import itertools

import pytest

from ouroboros._arguments import NAME_LENGTH
from ouroboros.control.names import Binding, Registry, check_name
from ouroboros.errors import BindError, NameError

USER = 1000


@pytest.fixture
def registry() -> Registry:
    return Registry(limit=1000)


# --- what can be a name


@pytest.mark.parametrize("text", ["x", "oecho", "net.example/über", "two words", "名前", "a" * 255, "é" * 127])
def test_printable_text_of_up_to_255_bytes_is_a_name(text: str) -> None:
    assert check_name(text) == text


def test_a_name_is_not_empty() -> None:
    with pytest.raises(NameError, match="the name is empty"):
        check_name("")


@pytest.mark.parametrize(("text", "length"), [("a" * 256, 256), ("é" * 128, 256), ("名" * 86, 258)])
def test_the_length_of_a_name_counts_in_bytes_of_utf8(text: str, length: int) -> None:
    with pytest.raises(NameError, match=f"the name has {length} bytes in UTF-8; at most {NAME_LENGTH} are allowed"):
        check_name(text)


def test_a_lone_surrogate_is_no_text_that_utf8_has() -> None:
    with pytest.raises(NameError, match=r"the name 'a\\udc80' is not valid UTF-8"):
        check_name("a\udc80")


@pytest.mark.parametrize("character", ["\0", "\n", "\t", "\x1b", "\x7f", "\x85", "\u2028", "\u202e"], ids=ascii)
def test_control_characters_have_no_place_in_a_name(character: str) -> None:
    with pytest.raises(NameError, match="control characters"):
        check_name(f"a{character}b")


def test_the_error_says_what_kind_of_name_it_was() -> None:
    with pytest.raises(NameError, match="the layer name is empty"):
        check_name("", "layer name")


# --- creating and destroying


def test_a_created_name_is_there_with_its_policy(registry: Registry) -> None:
    registry.create("x", "round-robin")
    assert registry.find("x").policy == "round-robin"


def test_creating_a_name_again_changes_nothing(registry: Registry) -> None:
    first = registry.create("x", "round-robin")
    assert registry.create("x", "spillover") is first
    assert first.policy == "round-robin"


def test_an_unknown_policy_is_refused_with_the_choice(registry: Registry) -> None:
    with pytest.raises(NameError, match="'random': choose round-robin or spillover"):
        registry.create("x", "random")
    assert "x" not in registry.names


def test_a_bad_name_is_not_created(registry: Registry) -> None:
    with pytest.raises(NameError):
        registry.create("")
    assert not registry.names


def test_names_are_case_sensitive(registry: Registry) -> None:
    assert registry.create("x") is not registry.create("X")


def test_a_destroyed_name_is_gone_and_its_processes_are_free_of_it(registry: Registry) -> None:
    process = registry.add_process(1, USER, "server")
    registry.bind_process(process, "x")
    registry.destroy("x")
    assert process.names == set()
    with pytest.raises(NameError, match="there is no name 'x' on this node; `irm name list` shows the names"):
        registry.find("x")


def test_a_destroyed_name_comes_back_without_its_bindings(registry: Registry) -> None:
    registry.bind_program(Binding("/bin/server"), "x")
    registry.destroy("x")
    entry = registry.create("x").entry([])
    assert (entry.programs, entry.processes) == ([], [])
    assert registry.add_process(1, USER, "server").names == set()


def test_a_name_that_is_not_there_cannot_be_destroyed(registry: Registry) -> None:
    with pytest.raises(NameError, match="there is no name 'x'"):
        registry.destroy("x")


# --- the limit


def test_the_limit_of_names_is_an_error_that_says_what_to_do() -> None:
    registry = Registry(limit=2)
    registry.create("a")
    registry.create("b")
    with pytest.raises(NameError, match="the node has its limit of 2 names; destroy one"):
        registry.create("c")
    registry.create("a")
    registry.destroy("b")
    registry.create("c")
    assert set(registry.names) == {"a", "c"}


def test_at_the_limit_a_name_that_lost_its_processes_gives_way_to_a_new_one() -> None:
    registry = Registry(limit=2)
    for pid in (1, 2):
        process = registry.add_process(pid, USER, "server")
        registry.bind_process(process, f"reply-{pid}", lasting=False)
        registry.remove_process(process)
    assert set(registry.names) == {"reply-1", "reply-2"}, "there was room for both"
    registry.create("new")
    assert set(registry.names) == {"reply-2", "new"}, "the one longest without a process gives way"


def test_at_the_limit_names_in_use_or_asked_for_stay() -> None:
    registry = Registry(limit=5)
    server = registry.add_process(1, USER, "server")
    registry.bind_process(server, "used", lasting=False)
    registry.create("created")
    gone = registry.add_process(2, USER, "gone")
    for text in ("created", "kept", "awaited"):
        registry.bind_process(gone, text, lasting=False)
    registry.bind_process(registry.add_process(3, USER, "back"), "bound", lasting=False)
    registry.unbind_process(registry.processes[3], "bound")
    registry.bind_process(registry.processes[3], "bound", lasting=False)
    registry.remove_process(gone)
    registry.create("kept")
    registry.names["awaited"].allocators[7] = None
    with pytest.raises(NameError, match="limit"):
        registry.create("new")
    assert set(registry.names) == {"used", "created", "kept", "awaited", "bound"}


# --- bindings, in any order


def test_a_process_is_bound_to_the_names_of_its_program_when_it_arrives(registry: Registry) -> None:
    registry.bind_program(Binding("/bin/server"), "x")
    registry.bind_program(Binding("/opt/server"), "y")
    registry.bind_program(Binding("/bin/other"), "z")
    assert registry.add_process(1, USER, "server").names == {"x", "y"}
    assert registry.names["x"].processes == {1}


def test_a_process_that_runs_is_bound_when_its_program_is(registry: Registry) -> None:
    process = registry.add_process(1, USER, "server")
    registry.add_process(2, USER, "other")
    assert registry.bind_program(Binding("/bin/server"), "x") == [process]
    assert process.names == {"x"}


def test_the_orders_of_name_program_and_process_all_end_alike() -> None:
    def name(registry: Registry) -> None:
        registry.create("x", "round-robin")

    def program(registry: Registry) -> None:
        registry.bind_program(Binding("/bin/server"), "x")

    def process(registry: Registry) -> None:
        registry.add_process(1, USER, "server")

    for order in itertools.permutations((name, program, process)):
        registry = Registry(limit=10)
        for step in order:
            step(registry)
        assert registry.names["x"].processes == {1}
        assert list(registry.names["x"].programs) == ["server"]
        assert registry.processes[1].names == {"x"}


def test_binding_makes_the_name_with_the_policy_of_all_names(registry: Registry) -> None:
    registry.bind_process(registry.add_process(1, USER, "p"), "x")
    registry.bind_program(Binding("/bin/q"), "y")
    assert (registry.names["x"].policy, registry.names["y"].policy) == ("round-robin", "round-robin")


def test_binding_twice_is_binding_once(registry: Registry) -> None:
    process = registry.add_process(1, USER, "server")
    registry.bind_process(process, "x")
    registry.bind_process(process, "x")
    registry.unbind_process(process, "x")
    assert registry.names["x"].processes == set()


def test_a_process_that_was_unbound_is_bound_no_more(registry: Registry) -> None:
    process = registry.add_process(1, USER, "server")
    registry.bind_process(process, "x")
    registry.unbind_process(process, "x")
    assert process.names == set()
    with pytest.raises(BindError, match=r"process 1 \(server\) is not bound to 'x'"):
        registry.unbind_process(process, "x")


def test_unbinding_a_program_leaves_its_processes_bound_and_later_ones_free(registry: Registry) -> None:
    registry.bind_program(Binding("/bin/server"), "x")
    running = registry.add_process(1, USER, "server")
    registry.unbind_program("server", "x")
    assert running.names == {"x"}
    assert registry.add_process(2, USER, "server").names == set()


def test_what_is_not_bound_cannot_be_unbound(registry: Registry) -> None:
    registry.create("x")
    with pytest.raises(BindError, match="program 'server' is not bound to 'x'; give its base name"):
        registry.unbind_program("server", "x")
    with pytest.raises(NameError, match="there is no name 'y'"):
        registry.unbind_program("server", "y")


def test_a_program_is_known_by_its_base_name(registry: Registry) -> None:
    registry.bind_program(Binding("/usr/local/bin/server"), "x")
    assert registry.names["x"].entry([]).programs == ["server"]
    with pytest.raises(NameError, match="the program name is empty"):
        registry.bind_program(Binding("/usr/bin/"), "y")
    assert "y" not in registry.names


def test_the_program_to_start_is_the_one_bound_last_with_auto(registry: Registry) -> None:
    registry.bind_program(Binding("/bin/a", auto=True), "x")
    registry.bind_program(Binding("/bin/b", auto=True, args=["-l"]), "x")
    registry.bind_program(Binding("/bin/c"), "x")
    assert registry.names["x"].autostart() == Binding("/bin/b", auto=True, args=["-l"])
    registry.bind_program(Binding("/bin/a", auto=True), "x")
    assert registry.names["x"].autostart() == Binding("/bin/a", auto=True)
    registry.bind_program(Binding("/bin/a"), "x")
    registry.unbind_program("b", "x")
    assert registry.names["x"].autostart() is None


def test_a_process_that_is_gone_is_bound_to_nothing_and_its_names_stay(registry: Registry) -> None:
    process = registry.add_process(1, USER, "server")
    registry.bind_process(process, "x")
    registry.bind_process(process, "y")
    registry.remove_process(process)
    assert [name.processes for name in registry.names.values()] == [set(), set()]
    assert registry.processes == {}


def test_listings_are_sorted(registry: Registry) -> None:
    for pid, program in ((2, "b"), (10, "a"), (1, "c")):
        registry.bind_program(Binding(f"/bin/{program}"), "x")
        registry.add_process(pid, USER, program)
    entry = registry.names["x"].entry(["lab"])
    assert (entry.programs, entry.processes, entry.layers) == (["a", "b", "c"], [1, 2, 10], ["lab"])
