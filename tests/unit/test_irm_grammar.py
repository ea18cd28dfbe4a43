"""The grammar of the `irm` command: what words become, and what a wrong word is told. No node takes part."""

from __future__ import annotations

import pytest

from ouroboros.tools.irm import VERBS, Command, Help, UsageError, help_text, irm_main, parse


def parsed(line: str) -> Command:
    command = parse(line.split())
    assert isinstance(command, Command)
    return command


def spoken(command: Command) -> str:
    return f"{command.verb.object} {command.verb.name}"


@pytest.mark.parametrize(
    ("line", "meant"),
    [
        ("i l", "ipcp list"),
        ("b p oping n oping", "bind program"),
        ("b pr oping n oping", "bind program"),
        ("bind proc 42 name clock", "bind process"),
        ("u i lab0 n lab", "unbind ipcp"),
        ("n c clock", "name create"),
        ("n r clock layer lab", "name register"),
        ("n u clock layer lab", "name unregister"),
        ("ipcp d name lab0", "ipcp destroy"),
        ("IPCP LIST", "ipcp list"),
        ("f l", "flow list"),
    ],
)
def test_a_prefix_stands_for_the_first_word_in_the_table(line: str, meant: str) -> None:
    assert spoken(parsed(line)) == meant


def test_keys_and_words_can_be_cut_short() -> None:
    command = parsed("i b t loc n lab0 l lab h sha3_5 a")
    assert command.values == {
        "type": ["local"],
        "name": ["lab0"],
        "layer": ["lab"],
        "hash": ["SHA3_512"],
        "autobind": [],
    }


def test_an_exact_word_wins_over_a_longer_one_before_it() -> None:
    assert parsed("ipcp bootstrap name a layer b type eth-dix").get("type") == "eth-dix"
    assert parsed("ipcp bootstrap name a layer b ip 10.0.0.1").has("ip")


def test_keys_go_in_any_order() -> None:
    words = [["type", "local"], ["name", "lab0"], ["layer", "lab"], ["autobind"]]
    forwards = parse(["ipcp", "bootstrap", *(word for key in words for word in key)])
    backwards = parse(["ipcp", "bootstrap", *(word for key in reversed(words) for word in key)])
    assert forwards == backwards


def test_a_value_may_look_like_a_key() -> None:
    assert parsed("ipcp bootstrap name layer layer name").values == {"name": ["layer"], "layer": ["name"]}


def test_the_operand_may_look_like_a_key() -> None:
    assert parsed("name create lb lb spill") == Command(
        parsed("name create x").verb, operand="lb", values={"lb": ["spillover"]}
    )


def test_repeatable_keys_keep_their_order() -> None:
    command = parsed("name register clock layer lab ipcp a layer field ipcp *")
    assert command.operand == "clock"
    assert command.values == {"layer": ["lab", "field"], "ipcp": ["a", "*"]}


def test_words_after_two_dashes_are_arguments_untouched() -> None:
    command = parsed("bind program oping name oping auto -- -l --help --json -- name")
    assert command.operand == "oping"
    assert command.values == {"name": ["oping"], "auto": []}
    assert command.args == ["-l", "--help", "--json", "--", "name"]


def test_no_dashes_is_not_the_same_as_no_arguments() -> None:
    assert parsed("bind program oping name oping").args is None
    assert parsed("bind program oping name oping --").args == []


def test_the_prefix_of_a_name_list_is_optional() -> None:
    assert parsed("name list").operand == ""
    assert parsed("name list lab.").operand == "lab."


@pytest.mark.parametrize(
    "line", ["--json ipcp list", "ipcp --json list", "ipcp list --json", "ipcp list name a --json"]
)
def test_json_goes_anywhere_in_a_list(line: str) -> None:
    assert parsed(line).json


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("", "nothing asked for: begin with ipcp, bind, unbind, name or flow"),
        ("layer list", "no such object: layer (known: ipcp, bind, unbind, name, flow)"),
        ("name", "after 'name' comes create, destroy, register, unregister or list"),
        ("flow create", "'flow' has no verb create (known: list)"),
        ("name create", "'name create' needs a <name>"),
        ("bind program oping", "key 'name' is missing"),
        ("ipcp create name a", "key 'type' is missing"),
        ("ipcp create name a type", "key 'type' needs a value"),
        ("ipcp create name a type radio", "key 'type' cannot be radio: say local, unicast, broadcast, eth-llc"),
        ("ipcp create name a name b type local", "key 'name' is given twice"),
        ("ipcp create name a color red", "no such key: color (known: name, type)"),
        ("name create clock lb random", "key 'lb' cannot be random: say round-robin or spillover"),
        ("name destroy clock now", "no such key: now (known: none)"),
        ("ipcp bootstrap name a layer b hash MD5", "key 'hash' cannot be MD5: say SHA3_224, SHA3_256"),
        ("name create clock -- x", "'name create' takes no arguments after --"),
        ("name create clock --json", "--json goes with the lists only"),
        ("ipcp list --yaml", "no such option: --yaml"),
    ],
)
def test_wrong_words_are_named(line: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(line.split())
    assert text in str(caught.value)


def test_an_empty_value_is_no_value() -> None:
    with pytest.raises(UsageError, match="key 'name' needs a value"):
        parse(["ipcp", "destroy", "name", ""])


def test_help_is_asked_for_anywhere() -> None:
    assert parse(["--help"]) == Help()
    assert parse(["ipcp", "-h"]) == Help(("ipcp",))
    assert parse(["i", "b", "--help", "name"]) == Help(("i", "b", "name"))
    assert parse(["--version"]) == Help(version=True)


def test_help_shows_every_verb_and_the_words_of_a_key() -> None:
    everything = help_text(())
    for verb in VERBS:
        assert f"irm {verb.object} {verb.name}" in everything
    assert "irm bind program" not in help_text(("name",))
    assert "irm ipcp bootstrap name NAME layer NAME [type TYPE] [hash ALGORITHM] [autobind]" in help_text(("i", "b"))
    assert "SHA3_224, SHA3_256, SHA3_384 or SHA3_512" in help_text(("ipcp", "bootstrap"))


@pytest.mark.parametrize("verb", ["enroll name a layer b", "connect name a dst b", "disconnect name a dst b"])
def test_verbs_to_come_say_so(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert irm_main(["ipcp", *verb.split()]) == 1
    assert "not built yet" in capsys.readouterr().err


def test_types_to_come_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert irm_main(["ipcp", "create", "name", "u", "type", "unicast"]) == 1
    assert "type unicast are not built yet" in capsys.readouterr().err


def test_wrong_usage_points_to_the_fitting_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert irm_main(["bind", "program", "oping"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "irm: key 'name' is missing\nTry 'irm bind program --help'.\n"
