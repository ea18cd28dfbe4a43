"""The grammar of the `irm` command: what words become, and what a wrong word is told. No node takes part."""

from __future__ import annotations

import re
import subprocess

import pytest

from ouroboros.irm import (
    CongestionAvoidPolicy,
    DhtConfig,
    DtConfig,
    EthConfig,
    IpcpConfig,
    IpcpType,
    LinkStateConfig,
    LinkStatePolicy,
    RoutingConfig,
    Udp4Config,
    Udp6Config,
    UnicastConfig,
)
from ouroboros.tools.irm import irm_main
from ouroboros.tools.irm_grammar import Command, Help, UsageError, parse
from ouroboros.tools.irm_help import FILES, LIVE, completion_script, completions, help_text
from ouroboros.tools.irm_settings import settings
from ouroboros.tools.irm_table import VERBS


def parsed(line: str) -> Command:
    command = parse(line.split())
    assert isinstance(command, Command)
    return command


def spoken(command: Command) -> str:
    return command.verb.words


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
        ("i e name a layer b", "ipcp enroll"),
        ("i c name a type local", "ipcp create"),
        ("i con name a dst b", "ipcp connect"),
        ("i di name a dst b", "ipcp disconnect"),
        ("c z", "completion zsh"),
        ("s", "save"),
        ("save node.toml", "save"),
    ],
)
def test_a_prefix_stands_for_the_first_word_in_the_table(line: str, meant: str) -> None:
    assert spoken(parsed(line)) == meant


def test_keys_and_words_can_be_cut_short() -> None:
    command = parsed("i b t loc n lab0 l lab h sha3_5 au")
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
        ("", "nothing asked for: begin with ipcp, layer, bind, unbind, name, flow, save or completion"),
        ("radio list", "no such object: radio (known: ipcp, layer, bind, unbind, name, flow, save, completion)"),
        ("name", "after 'name' comes create, destroy, register, unregister or list"),
        ("flow create", "'flow' has no verb create (known: list)"),
        ("name create", "'name create' needs a <name>"),
        ("bind program oping", "key 'name' is missing"),
        ("ipcp create name a", "key 'type' is missing"),
        ("ipcp create name a type", "key 'type' needs a value"),
        ("ipcp create name a type radio", "key 'type' cannot be radio: say unicast, broadcast, udp4, udp6"),
        ("ipcp create name a name b type local", "key 'name' is given twice"),
        ("ipcp create name a color red", "no such key: color (known: name, type)"),
        ("name create clock lb random", "key 'lb' cannot be random: say round-robin or spillover"),
        ("name destroy clock now", "no such key: now (known: none)"),
        ("ipcp bootstrap name a layer b hash MD5", "key 'hash' cannot be MD5: say SHA3_224, SHA3_256"),
        ("name create clock -- x", "'name create' takes no arguments after --"),
        ("name create clock --json", "--json goes with the lists only"),
        ("ipcp list --yaml", "no such option: --yaml"),
        ("ipcp enroll name a layer b type local", "key 'type' cannot be local: say unicast or broadcast"),
        ("ipcp connect name a", "key 'dst' is missing"),
        ("ipcp connect name a dst b component all", "key 'component' cannot be all: say *, dt or mgmt"),
        ("ipcp connect name a dst b qos gold", "key 'qos' cannot be gold: say raw, best, video, voice or data"),
        ("save a b", "no such key: b (known: none)"),
        ("save --json", "--json goes with the lists only"),
        ("save -- x", "'save' takes no arguments after --"),
        ("completion tcsh", "'completion' has no verb tcsh (known: bash, zsh, fish)"),
        ("name create \udcff", "is not valid UTF-8"),
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
    assert (
        "irm ipcp bootstrap name NAME layer NAME [type TYPE] [hash ALGORITHM] [autobind] [impair TEXT] [SETTING VALUE]..."
        in help_text(("i", "b"))
    )
    assert "SHA3_224, SHA3_256, SHA3_384 or SHA3_512" in help_text(("ipcp", "bootstrap"))


# --- settings of a bootstrap


def bootstrapped(keys: str, ipcp_type: IpcpType) -> IpcpConfig:
    return settings(parsed(f"ipcp bootstrap name a layer b {keys}"), ipcp_type)


def test_what_is_not_set_has_its_default() -> None:
    assert bootstrapped("", IpcpType.LOCAL) == IpcpConfig(IpcpType.LOCAL, "b")
    assert bootstrapped("", IpcpType.UNICAST) == IpcpConfig(IpcpType.UNICAST, "b", unicast=UnicastConfig())


def test_every_setting_of_a_unicast_layer_arrives_where_it_belongs() -> None:
    keys = (
        "addr 8 eid 4 ttl 30 addr_auth flat directory dht dht_alpha 2 dht_k 20 dht_t_expire 10 dht_t_refresh 3"
        " dht_t_replicate 3600 routing ecmp ls_t_recalc 1 ls_t_update 2 ls_t_timeo 3 congestion none"
    )
    conf = bootstrapped(keys, IpcpType.UNICAST).unicast
    assert conf is not None
    assert conf.dt == DtConfig(8, 4, 30, RoutingConfig(ls=LinkStateConfig(LinkStatePolicy.ECMP, 1, 2, 3)))
    assert conf.dir.dht == DhtConfig(2, 20, 10, 3, 3600)
    assert conf.cong_avoid is CongestionAvoidPolicy.NONE


@pytest.mark.parametrize("word", ["0600", "0x600", "600", "0X0600"])
def test_an_ethertype_is_hexadecimal_with_or_without_a_prefix(word: str) -> None:
    conf = bootstrapped(f"dev eth0 ethertype {word}", IpcpType.ETH_DIX)
    assert conf.eth == EthConfig("eth0", 0x0600)


def test_peers_are_given_one_by_one() -> None:
    conf = bootstrapped("ip 192.0.2.1 peer clock@192.0.2.7 peer a@b@192.0.2.8:4000", IpcpType.UDP4)
    assert conf.udp4 == Udp4Config("192.0.2.1", peers=("clock@192.0.2.7", "a@b@192.0.2.8:4000"))
    with pytest.raises(UsageError, match=r"^key 'peer' must be NAME@ADDRESS such as clock@192.0.2.7, not clock$"):
        bootstrapped("ip 192.0.2.1 peer clock", IpcpType.UDP4)


def test_addresses_are_of_the_version_of_the_type() -> None:
    assert bootstrapped("ip 192.0.2.1 port 1 dns 192.0.2.2", IpcpType.UDP4).udp4 == Udp4Config(
        "192.0.2.1", "192.0.2.2", 1
    )
    assert bootstrapped("ip 2001:DB8::1", IpcpType.UDP6).udp6 == Udp6Config("2001:db8::1")
    with pytest.raises(UsageError, match=r"^key 'ip' must be an IPv4 address, not '::1'$"):
        bootstrapped("ip ::1", IpcpType.UDP4)


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ("ethertype 05ff", "key 'ethertype' must be from 0x0600 to 0xFFFE, not 0x05FF"),
        ("ethertype ffff", "key 'ethertype' must be from 0x0600 to 0xFFFE, not 0xFFFF"),
        ("ethertype eth0", "key 'ethertype' must be a hexadecimal number such as A000, not eth0"),
        ("ethertype 0x", "key 'ethertype' must be a hexadecimal number"),
        ("ip 192.0.2.256", "key 'ip' must be an IP address, not 192.0.2.256"),
        ("dns localhost", "key 'dns' must be an IP address, not localhost"),
        ("port 0", "key 'port' must be from 1 to 65535, not 0"),
        ("port 65536", "key 'port' must be from 1 to 65535, not 65536"),
        ("port -1", "key 'port' must be a whole number, not -1"),
        ("addr 0", "key 'addr' must be from 1 to 8 bytes, not 0"),
        ("eid 9", "key 'eid' must be from 1 to 8 bytes, not 9"),
        ("ttl 256", "key 'ttl' must be from 1 to 255 hops, not 256"),
        ("dht_alpha 11", "key 'dht_alpha' must be from 1 to 10, not 11"),
        ("dht_k 21", "key 'dht_k' must be from 1 to 20, not 21"),
        ("dht_t_expire 9", "key 'dht_t_expire' must be from 10 to 86400 s, not 9"),
        ("dht_t_refresh 2", "key 'dht_t_refresh' must be from 3 to 3600 s, not 2"),
        ("dht_t_replicate 3601", "key 'dht_t_replicate' must be from 3 to 3600 s, not 3601"),
        ("ls_t_recalc 0", "key 'ls_t_recalc' must be from 1 to"),
        ("ls_t_update 1.5", "key 'ls_t_update' must be a whole number, not 1.5"),
        ("ls_t_timeo \u0661", "key 'ls_t_timeo' must be a whole number"),
        ("routing rip", "key 'routing' cannot be rip: say link_state, lfa or ecmp"),
        ("congestion tcp", "key 'congestion' cannot be tcp: say none or mb-ecn"),
        ("directory dns", "key 'directory' cannot be dns: say DHT"),
        ("hash md5", "key 'hash' cannot be md5"),
        (f"dev {'x' * 256}", "key 'device' has 256 bytes in UTF-8; at most 255 fit"),
    ],
)
def test_a_value_that_a_setting_cannot_have_is_told_with_its_range(keys: str, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parsed(f"ipcp bootstrap name a layer b {keys}")
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "ipcp_type", "text"),
    [
        ("dev eth0", IpcpType.LOCAL, "key 'device' means nothing for type local: leave it out"),
        ("dev eth0 ethertype A000", IpcpType.ETH_LLC, "key 'ethertype' means nothing for type eth-llc"),
        ("dht_k 3", IpcpType.BROADCAST, "key 'dht_k' means nothing for type broadcast"),
        ("", IpcpType.ETH_DIX, "key 'device' is missing: type eth-dix needs it"),
        ("port 1000", IpcpType.UDP6, "key 'ip' is missing: type udp6 needs it"),
    ],
)
def test_settings_have_to_fit_the_type(keys: str, ipcp_type: IpcpType, text: str) -> None:
    with pytest.raises(UsageError) as caught:
        bootstrapped(keys, ipcp_type)
    assert text in str(caught.value)


def test_settings_that_do_not_fit_are_wrong_usage_before_any_node_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert irm_main(["ipcp", "bootstrap", "type", "local", "name", "a", "layer", "b", "dev", "eth0"]) == 2
    assert capsys.readouterr().err == (
        "irm: key 'device' means nothing for type local: leave it out\nTry 'irm ipcp bootstrap --help'.\n"
    )


# --- help and completion


def test_the_help_of_a_verb_explains_each_of_its_keys() -> None:
    for verb in VERBS:
        text = help_text((verb.object, verb.name))
        for key in verb.keys:
            assert re.search(rf"^    {key.name}\b.*  .*\w", text, re.MULTILINE), key.name
    assert "    dht_k NUMBER            members that keep a name, 1 to 20 (default 8), for unicast" in help_text(
        ("i", "b")
    )


def test_completion_offers_every_object_verb_key_and_word() -> None:
    rows = completions()
    assert {"ipcp", "bind", "unbind", "name", "flow", "completion"} <= set(rows[""])
    for verb in VERBS:
        start = f"{verb.object} {verb.name}"
        assert (verb.name or FILES) in rows[verb.object]
        if not verb.name:
            continue
        assert {key.name for key in verb.keys} <= set(rows[f"{start} *"])
        for key in verb.keys:
            if key.value and key.value != "PATH":
                assert rows[f"{start} {key.name}"] == ([LIVE[key.live]] if key.live else list(key.words))


def test_completion_offers_files_where_a_file_is_meant() -> None:
    rows = completions()
    assert rows["bind program program"] == rows["name create scrtpath"] == [FILES]
    assert rows["name create create"] == rows["ipcp create name"] == []


def test_completion_asks_the_node_for_what_has_to_be_there_already() -> None:
    rows = completions()
    assert rows["name destroy destroy"] == rows["bind program name"] == [LIVE["names"]]
    assert rows["bind ipcp ipcp"] == rows["ipcp destroy name"] == rows["name register ipcp"] == [LIVE["ipcps"]]
    assert rows["name register layer"] == [LIVE["layers"]]
    assert rows["unbind process process"] == [LIVE["pids"]]


#: Answers in place of a node.
NODE = """irm() { printf '%s-1\\n%s-2\\n' "$2" "$2"; }"""

COMPLETED = [
    ("irm ", "ipcp layer bind unbind name flow save completion --help --version"),
    ("irm i", "ipcp"),
    ("irm ipcp con", "connect"),
    ("irm ipcp create type eth", "eth-dix eth-llc"),
    ("irm ipcp create name x t", "type"),
    ("irm ipcp create name ", ""),
    ("irm name create ", ""),
    ("irm name destroy ", "names-1 names-2"),
    ("irm ipcp destroy name ip", "ipcps-1 ipcps-2"),
    ("irm name register x layer ", "layers-1 layers-2"),
    ("irm bind process ", "pids-1 pids-2"),
    ("irm completion ", "bash zsh fish"),
    ("irm ipcp list --", "--json"),
]


@pytest.mark.parametrize(("line", "words"), COMPLETED)
def test_bash_completes(line: str, words: str) -> None:
    typed = line.split(" ")
    script = (
        f"{completion_script('bash')}\n{NODE}\nCOMP_WORDS=({' '.join(word or repr('') for word in typed)})\n"
        f'COMP_CWORD={len(typed) - 1}\n_irm\necho "${{COMPREPLY[*]}}"'
    )
    assert spoken_by("bash", "-c", script) == words.split()


@pytest.mark.parametrize(("line", "words"), COMPLETED)
def test_fish_completes(line: str, words: str) -> None:
    node = "function irm\n    printf '%s-1\\n%s-2\\n' $argv[2] $argv[2]\nend"
    script = f"{completion_script('fish')}\n{node}\ncomplete -C '{line}'"
    assert sorted(spoken_by("fish", "--no-config", "-c", script)) == sorted(words.split())


def test_zsh_understands_its_script() -> None:
    script = f'compdef() {{ : }}\n{completion_script("zsh")}\n_irm_next "ipcp create type"'
    assert spoken_by("zsh", "-f", "-c", script)[:2] == ["unicast", "broadcast"]


def spoken_by(*command: str) -> list[str]:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        pytest.skip(f"{command[0]} is not installed")
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_command_prints_the_script_and_asks_no_node(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert irm_main(["completion", shell]) == 0
    assert capsys.readouterr().out == completion_script(shell)


def test_wrong_usage_points_to_the_fitting_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert irm_main(["bind", "program", "oping"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "irm: key 'name' is missing\nTry 'irm bind program --help'.\n"
