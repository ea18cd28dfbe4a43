"""Every option, key, word and abbreviation of the C prototype's commands, version 0.23, and what ours make of it."""

from __future__ import annotations

from itertools import groupby

import click
import pytest

from ouroboros.qos import NAMED_SPECS
from ouroboros.tools import irmd, obc, ocbr, oecho, operf, oping
from ouroboros.tools.irm_grammar import Command, Help, UsageError, parse

COMMANDS = {
    "irmd": irmd.irmd,
    "obc": obc.obc,
    "ocbr": ocbr.ocbr,
    "oecho": oecho.oecho,
    "operf": operf.operf,
    "oping": oping.oping,
}

#: For each tool its options, and whether a value follows.
OPTIONS = {
    "irmd": [("--stdout", False), ("--config", True), ("--version", False)],
    "obc": [("-l --listen", False), ("-n --name", True), ("-m --message", True), ("--help", False)],
    "ocbr": [
        ("-l --listen", False),
        ("-i --interval", True),
        ("-t --timeout", True),
        ("-n --server_apn", True),
        ("-d --duration", True),
        ("-f --flood", False),
        ("-s --size", True),
        ("-r --rate", True),
        ("--sleep", False),
        ("--spin", False),
        ("--help", False),
    ],
    "oecho": [("-l --listen", False), ("--help", False)],
    "operf": [
        ("-l --listen", False),
        ("-t --test", True),
        ("-n --server-name", True),
        ("-d --duration", True),
        ("-r --rate", True),
        ("-s --size", True),
        ("-f --flood", False),
        ("--sleep", False),
        ("--help", False),
    ],
    "oping": [
        ("-l --listen", False),
        ("--poll", False),
        ("--busy", False),
        ("-c --count", True),
        ("-d --duration", True),
        ("-f --flood", False),
        ("-F --flood-busy", False),
        ("-i --interval", True),
        ("-n --server-name", True),
        ("-q --qos", True),
        ("-s --size", True),
        ("-Q --quiet", False),
        ("-D --timeofday", False),
        ("--help", False),
    ],
}

#: Values with units, as the tools read them.
VALUES = [
    *(f"oping -n x -{option} 5{unit}" for option in "id" for unit in ("", "ms", "s", "m", "h", "d")),
    *(f"oping -n x -q {word}" for word in ("raw", "best", "video", "voice", "data")),
    *(f"operf -n x -d 5{unit}" for unit in ("", "ms", "s", "m", "h", "d")),
    *(f"operf -n x -r 5{unit}" for unit in ("", "k", "M", "G")),
    *(f"operf -n x -t {word}" for word in ("uni", "bi")),
    *(f"ocbr -n x -r 5{unit}" for unit in ("", "k", "M", "G")),
]

#: For each verb of irm the word that it takes first, and its keys in the order in which a prefix is looked up; `=` follows
#: those with a value.
IRM: dict[str, tuple[str, str]] = {
    "ipcp create": ("", "type= name="),
    "ipcp destroy": ("", "name="),
    "ipcp bootstrap": (
        "",
        "type= layer= name= hash= ip= dns= device= ethertype= addr= eid= ttl= port= autobind addr_auth= directory= "
        "dht_alpha= dht_k= dht_t_expire= dht_t_refresh= dht_t_replicate= routing= ls_t_timeo= ls_t_update= ls_t_recalc= "
        "congestion=",
    ),
    "ipcp enroll": ("", "name= type= layer= dst= autobind"),
    "ipcp connect": ("", "name= dst= component= qos="),
    "ipcp disconnect": ("", "name= dst= component="),
    "ipcp list": ("", "type= name="),
    "bind program": ("cat", "name="),
    "bind process": ("42", "name="),
    "bind ipcp": ("lab0", "name="),
    "unbind program": ("cat", "name="),
    "unbind process": ("42", "name="),
    "unbind ipcp": ("lab0", "name="),
    "name create": ("clock", "lb= sencpath= scrtpath= skeypath= cencpath= ccrtpath= ckeypath="),
    "name destroy": ("clock", ""),
    "name register": ("clock", "layer= ipcp="),
    "name unregister": ("clock", "layer= ipcp="),
    "name list": ("", ""),
}
OBJECTS = ["ipcp", "bind", "unbind", "name", "help"]

#: The words that a key knows, in the order in which a prefix is looked up.
WORDS = {
    "ipcp bootstrap type": "unicast broadcast udp4 udp6 eth-dix eth-llc local",
    "ipcp bootstrap hash": "SHA3_224 SHA3_256 SHA3_384 SHA3_512",
    "ipcp bootstrap addr_auth": "flat",
    "ipcp bootstrap directory": "DHT",
    "ipcp bootstrap routing": "link_state lfa ecmp",
    "ipcp bootstrap congestion": "none mb-ecn",
    "ipcp create type": "unicast broadcast udp4 udp6 eth-dix eth-llc local",
    "ipcp enroll type": "unicast broadcast",
    "ipcp list type": "unicast broadcast udp4 udp6 eth-dix eth-llc local",
    "ipcp connect component": "dt mgmt *",
    "ipcp connect qos": "best raw video voice data",
    "ipcp disconnect component": "dt mgmt *",
    "name create lb": "round-robin spillover",
}

#: A value that each key takes which is no plain word, and the keys without which a verb is not complete.
SAMPLES = {"ip": "192.0.2.1", "dns": "192.0.2.1", "ethertype": "A000"} | dict.fromkeys(
    ["addr", "eid", "ttl", "port", "dht_alpha", "dht_k", "ls_t_timeo", "ls_t_update", "ls_t_recalc"], "4"
)
SAMPLES |= dict.fromkeys(["dht_t_expire", "dht_t_refresh", "dht_t_replicate"], "100")
REQUIRED = {
    "ipcp create": {"name": "a", "type": "local"},
    "ipcp bootstrap": {"name": "a", "layer": "b"},
    "ipcp connect": {"name": "a", "dst": "b"},
    "ipcp disconnect": {"name": "a", "dst": "b"},
}


def spellings() -> list[tuple[str, str, bool]]:
    return [(tool, each, value) for tool, rows in OPTIONS.items() for row, value in rows for each in row.split()]


@pytest.mark.parametrize(("tool", "option", "takes_value"), spellings())
def test_a_tool_knows_the_option_and_whether_a_value_follows(tool: str, option: str, takes_value: bool) -> None:
    command = COMMANDS[tool]
    with click.Context(command) as context:
        known = {
            spelling: each
            for each in command.get_params(context)
            if isinstance(each, click.Option)
            for spelling in [*each.opts, *each.secondary_opts]
        }
    assert option in known
    assert known[option].is_flag != takes_value


@pytest.mark.parametrize(
    ("tool", "short", "long"),
    [(tool, *row.split()) for tool, rows in OPTIONS.items() for row, _ in rows if " " in row],
)
def test_the_short_and_the_long_option_are_the_same(tool: str, short: str, long: str) -> None:
    command = COMMANDS[tool]
    with click.Context(command) as context:
        (option,) = (each for each in command.get_params(context) if short in each.opts)
    assert long in option.opts


@pytest.mark.parametrize("line", VALUES)
def test_a_tool_reads_the_value(line: str) -> None:
    tool, *words = line.split()
    with COMMANDS[tool].make_context(tool, words) as context:
        assert context.params["name"] == "x"


def prefixes(words: list[str]) -> list[tuple[str, str]]:
    """Each beginning of the words, with the first word that it begins."""
    begun = {word[:end] for word in words for end in range(1, len(word) + 1)}
    return [(each, next(word for word in words if word.startswith(each))) for each in sorted(begun)]


def parsed(words: list[str]) -> Command:
    command = parse(words)
    assert isinstance(command, Command)
    return command


def complete(line: str, *without: str) -> list[str]:
    """The verb with what it cannot do without, but for some keys."""
    needed = {"name": "a"} if IRM[line][1].startswith("name=") else {}
    needed |= REQUIRED.get(line, {})
    keys = [word for key, value in needed.items() if key not in without for word in (key, value)]
    return [*line.split(), *IRM[line][0].split(), *keys]


def test_the_first_two_words_of_irm_and_their_beginnings() -> None:
    for word, object_ in prefixes(OBJECTS):
        if object_ == "help":
            assert parse([word]) == Help()
            continue
        assert parse([word, "--help"]) == Help((word,))
    for object_, lines in groupby(IRM, key=lambda line: line.split()[0]):
        for word, verb in prefixes([*(line.split()[1] for line in lines), "help"]):
            if verb == "help":
                assert parse([object_, word]) == Help((object_,))
                continue
            line = f"{object_} {verb}"
            command = parsed([object_, word, *complete(line)[2:]])
            assert (command.verb.object, command.verb.name) == (object_, verb)


@pytest.mark.parametrize("line", IRM)
def test_a_verb_of_irm_knows_the_keys_and_their_beginnings(line: str) -> None:
    keys = {key.rstrip("="): key.endswith("=") for key in IRM[line][1].split()}
    for word, key in prefixes(list(keys)):
        value = SAMPLES.get(key) or WORDS.get(f"{line} {key}", "x").split()[0]
        command = parsed([*complete(line, key), word, *([value] if keys[key] else [])])
        assert command.values[key] == ([value] if keys[key] else []), word


@pytest.mark.parametrize("place", WORDS)
def test_a_key_of_irm_knows_the_words(place: str) -> None:
    line, _, key = place.rpartition(" ")
    for word in WORDS[place].split():
        assert parsed([*complete(line, key), key, word]).get(key) == word


def test_the_beginnings_of_a_type_stand_for_the_prototypes() -> None:
    for word, kind in prefixes(WORDS["ipcp bootstrap type"].split()):
        assert parsed([*complete("ipcp bootstrap"), "type", word]).get("type") == kind


def test_a_program_is_bound_with_its_arguments() -> None:
    command = parsed(["bind", "program", "cat", "name", "clock", "auto", "--", "-n", "--help"])
    assert (command.operand, command.has("auto"), command.args) == ("cat", True, ["-n", "--help"])


def test_the_words_for_a_quality_of_service_are_those_of_the_tools() -> None:
    assert set(NAMED_SPECS) == set(WORDS["ipcp connect qos"].split())


def test_help_on_words_that_are_none_is_wrong_usage() -> None:
    from ouroboros.tools.irm_help import help_text

    assert parse(["help", "ipcp", "create"]) == Help(("ipcp", "create"))
    with pytest.raises(UsageError, match="no such object: nonsense"):
        help_text(("nonsense",))


@pytest.mark.parametrize(
    ("line", "text"),
    [
        # The prototype's library refuses it, too.
        ("unbind program cat", "key 'name' is missing"),
        # There by mistake, and filters nothing.
        ("name list list clock", "no such key: clock"),
    ],
)
def test_what_is_not_here_is_refused_by_name(line: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        parse(line.split())
