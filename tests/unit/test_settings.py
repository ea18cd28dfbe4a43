"""One description of what a type of IPC process is told: who gets what from it."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
from irm_world import World

import ouroboros
from ouroboros._checks import Check, Setting, address, described, fields, told, whole
from ouroboros.control.configuration import ConfigurationError, parse
from ouroboros.errors import IpcpBootstrapError, ProtocolError
from ouroboros.irm import IpcpType
from ouroboros.layers.base import Ipcp
from ouroboros.layers.face import Task
from ouroboros.runtime.node import IPCP_TYPES
from ouroboros.settings import TYPES, DirectoryHashAlgo, LocalSettings, TypeSettings, Udp4Config, Udp4Settings
from ouroboros.tools.irm_grammar import Command, UsageError
from ouroboros.tools.irm_grammar import parse as parse_command
from ouroboros.tools.irm_help import help_text, type_help
from ouroboros.tools.irm_settings import type_settings
from ouroboros.tools.irm_table import Verb, setting_keys
from ouroboros.wire.control import BootstrapIpcp, CreateIpcp, decode_request, encode


class StringSettings(TypeSettings, tag="string"):
    """Two tins and a string: a type that nothing else has heard of."""

    checks = fields(length=Setting(whole(1, 100, "m"), "length", "of the string"))

    length: int = 12


@pytest.fixture
def string(monkeypatch: pytest.MonkeyPatch) -> Verb:
    """`ipcp bootstrap` of a package that has the type."""
    monkeypatch.setitem(TYPES, "string", StringSettings)
    return Verb("ipcp", "bootstrap", "", tuple(setting_keys({"string": StringSettings})), "start a layer")


# --- a new setting


def test_a_new_setting_is_checked_where_it_is_given() -> None:
    with pytest.raises(ValueError, match=r"^StringSettings: length must be from 1 to 100 m, not 0$"):
        StringSettings(length=0)


def test_a_new_setting_is_a_key_of_the_command(string: Verb) -> None:
    assert type_settings(Command(string, values={"length": ["30"]}), StringSettings) == StringSettings(length=30)
    assert type_settings(Command(string), StringSettings) == StringSettings()
    with pytest.raises(UsageError, match=r"^key 'length' must be from 1 to 100 m, not 101$"):
        type_settings(Command(string, values={"length": ["101"]}), StringSettings)


def test_a_new_setting_is_a_key_of_the_configuration_file(string: Verb) -> None:
    settings: object = parse("[string.s0]\nlength = 30").ipcps[0].settings
    assert settings == StringSettings(length=30)
    with pytest.raises(ConfigurationError, match=r"^\[string.s0\] length: must be from 1 to 100 m, not 0$"):
        parse("[string.s0]\nlength = 0")
    with pytest.raises(ConfigurationError, match=r'^\[string.s0\] length: must be a whole number, not "1"$'):
        parse('[string.s0]\nlength = "1"')
    with pytest.raises(
        ConfigurationError, match=r"\[string.s0\] width: unknown key; known are bootstrap, bind, reg, len"
    ):
        parse("[string.s0]\nwidth = 1")


def test_a_new_setting_has_a_line_of_help(string: Verb) -> None:
    assert type_help(string, "string").endswith(
        "Settings of type string:\n    length NUMBER  of the string, 1 to 100 m (default 12)"
    )


def test_a_new_setting_reaches_the_type(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[TypeSettings] = []

    class StringIpcp(Ipcp):
        type = "string"
        settings = StringSettings

        def bootstrap(self, layer: str, settings: TypeSettings, task: Task, now: float) -> None:
            told.append(settings)
            super().bootstrap(layer, settings, task, now)

    monkeypatch.setitem(IPCP_TYPES, "string", StringIpcp)
    world = World()
    for name, settings in (("given", StringSettings(length=30)), ("default", None)):
        id = world.manage(CreateIpcp(name, "string"))
        assert isinstance(id, int)
        assert world.manage(BootstrapIpcp(id, name, settings)) == id  # type: ignore[arg-type]
    assert told == [StringSettings(length=30), StringSettings()]


# --- the types


def test_every_type_has_a_description_in_the_order_of_its_number() -> None:
    assert list(TYPES) == [each.word for each in IpcpType]


def test_each_type_is_told_what_is_described() -> None:
    assert {type: kind.settings for type, kind in IPCP_TYPES.items()} == TYPES


@pytest.mark.parametrize("type", TYPES)
def test_what_a_type_was_told_is_what_is_described(type: str) -> None:
    settings = TYPES[type]()
    assert [setting for setting, _ in told(settings)] == [setting for setting, _ in described(TYPES[type])]


@pytest.mark.parametrize("type", TYPES)
def test_a_key_sets_one_thing(type: str) -> None:
    keys = [setting.key for setting, _ in described(TYPES[type])]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("type", TYPES)
def test_the_help_of_a_type_lists_its_settings_with_defaults_and_units(type: str) -> None:
    command = parse_command(["ipcp", "bootstrap", "type", type, "--help"])
    text = help_text(command.words)  # type: ignore[union-attr]
    listed = text[text.index(f"ype {type}") :]
    for setting, default in described(TYPES[type]):
        line = re.search(rf"^    {setting.key} .*$", listed, re.MULTILINE)
        assert (line is None) == setting.quiet, setting.key
        if line is not None:
            assert setting.check.range in line[0]
            assert setting.required or setting.check.say(default) in line[0]
    others = {setting.key for kind in TYPES.values() for setting, _ in described(kind)}
    assert set(re.findall(r"^    (\w+)", listed, re.MULTILINE)) <= others


def test_the_help_of_a_type_takes_what_the_command_takes() -> None:
    assert help_text(("i", "b", "name", "type", "layer", "x", "t", "udp4")) == help_text(
        ("ipcp", "bootstrap", "type", "udp4")
    )
    assert "    port NUMBER        UDP port, 1 to 65535 (default 3435)" in help_text(("i", "b", "t", "udp4"))
    assert "Type broadcast has no settings." in help_text(("i", "b", "t", "broadcast"))
    assert help_text(("i", "b", "type")) == help_text(("i", "b"))
    with pytest.raises(UsageError, match="key 'type' cannot be radio"):
        help_text(("i", "b", "type", "radio"))


def test_the_port_of_layers_over_udp_and_its_bounds_stand_once() -> None:
    sources = [source.read_text() for source in Path(ouroboros.__file__).parent.rglob("*.py")]
    for number in (r"\b3435\b", r"1, 65535\b"):
        assert sum(len(re.findall(number, source)) for source in sources) == 1, number


# --- over the control socket


@pytest.mark.parametrize(
    "settings",
    [
        None,
        LocalSettings(DirectoryHashAlgo.SHA3_512, "loss=1%"),
        Udp4Settings(udp4=Udp4Config("192.0.2.1", port=1, peers=("a@192.0.2.2",))),
        *(kind() for kind in TYPES.values()),
    ],
    ids=repr,
)
def test_settings_survive_their_trip(settings: Any) -> None:
    request = BootstrapIpcp(1, "lab", settings)
    assert decode_request(encode(request)[4:]) == request


@pytest.mark.parametrize(("port", "most"), [(3435, 65535)])
def test_settings_that_no_layer_can_have_are_named_whoever_sent_them(port: int, most: int) -> None:
    good = encode(BootstrapIpcp(1, "lab", Udp4Settings()))[4:]
    bad = good.replace(b"\xa4port" + bytes([0xCD, *port.to_bytes(2, "big")]), b"\xa4port\x00")
    with pytest.raises(IpcpBootstrapError, match=f"^Udp4Config: port must be from 1 to {most}, not 0$"):
        decode_request(bad)
    with pytest.raises(ProtocolError, match="not a control message"):
        decode_request(good.replace(b"\xa4udp4\x01", b"\xa4udp5\x01"))


# --- words


def test_a_value_is_said_as_it_is_given() -> None:
    checks: list[tuple[Check, object]] = [
        (whole(0, 0xFFFF, base=16), 0xA000),
        (address(IPv4Address), "192.0.2.1"),
    ]
    for check, value in checks:
        assert check(check.read(check.say(value))) == value
    assert address(IPv6Address).say("::") == ""
